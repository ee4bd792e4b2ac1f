"""Bad input in bulk: thousands of mutated params.yaml and CSV files are accepted with finite results, or refused with
one message that names the place; never a traceback or a NaN in an output.
"""

import contextlib
import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_csv, write_csv
from stages.common.params import load_group, load_params
from stages.common.tables import clusters, linear_set, read_numbers
from stages.generate_data import MODELS, read_own
from tests.conftest import ROOT, TREE, leaves

OWN = Path("data/raw/own.csv")


@pytest.fixture(scope="module", autouse=True)
def _in_one_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A project folder, the current one, that all examples share."""
    folder = tmp_path_factory.mktemp("bulk")
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Lets pass what a stage would end in: a UserError with a message for people."""
    try:
        yield
    except UserError as error:
        text = str(error)
        assert text.strip()
        assert "Traceback" not in text
        assert len(text) < 20_000


# --- params.yaml -----------------------------------------------------------------------------------------------------

FAMILIAR = ["1e-05", "1_0", "0x10", ".inf", "nan", "data/raw/norris.csv", "data/raw/../../x", "mse", "general", ""]
values = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(FAMILIAR)),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=5)), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
KEYS = ["lr", "lrr", "seed", "train", "data", "x", "file"]
names = st.one_of(st.text(max_size=12), st.integers(), st.sampled_from(KEYS))


@st.composite
def mutated_params(draw: st.DrawFn) -> str:
    """params.yaml with one to three keys set, removed, renamed or added, anywhere."""
    tree: Any = copy.deepcopy(TREE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(leaves(TREE)))).split(".")
        *groups, key = path[: draw(st.integers(1, len(path)))]
        group = reduce(lambda group, name: group.get(name) if isinstance(group, dict) else None, groups, tree)
        if not isinstance(group, dict):
            continue
        action = draw(st.sampled_from(["set", "remove", "rename", "add"]))
        if action == "set":
            group[key] = draw(values)
        elif action == "remove":
            group.pop(key, None)
        elif action == "rename" and key in group:
            group[draw(names)] = group.pop(key)
        else:
            group[draw(names)] = draw(values)
    return yaml.safe_dump(tree, allow_unicode=True)


def check_params(text: str) -> None:
    Path("params.yaml").write_bytes(text.encode("utf-8", "replace"))
    with one_message():
        assert all(math.isfinite(value) for value in numbers_in(load_params().model_dump()))


def numbers_in(tree: Any) -> Iterator[float]:
    if isinstance(tree, int | float):
        yield tree
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from numbers_in(part)


TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
text_between = st.builds(lambda text, cut: TEXT[:cut] + text + TEXT[cut:], st.text(max_size=300), st.integers(0, 2000))


# --- CSVs ------------------------------------------------------------------------------------------------------------

SPELLED = ["", " ", "nan", "inf", "-inf", "1e308", "1e-320", "0", "1", "-0.0", '"1"', '"', "'", "x", "１", "1,2", "\t"]
cells = st.one_of(st.floats().map(str), st.integers().map(str), st.sampled_from(SPELLED), st.text(max_size=6))
sane_cells = st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}")
HEADERS = ["x", "y", "label", "x1", "Y", " y", '"y"', "", "<script>", "$x$", "w", "b", "loss"]
headers = st.one_of(st.sampled_from(HEADERS), st.text(max_size=8))


@st.composite
def csv_bytes(draw: st.DrawFn) -> bytes:
    """Mostly well-formed CSVs of a few rows, with a mark, line ends and cells that may be wrong."""
    columns = draw(st.integers(1, 4))
    header = draw(st.lists(headers, min_size=columns, max_size=columns))
    if draw(st.booleans()):
        header[-1] = draw(st.sampled_from(["y", "label"]))
    kind = draw(st.sampled_from(["sane", "labels", "any"]))
    body = []
    for _ in range(draw(st.integers(0, 6))):
        width = columns if kind != "any" else draw(st.integers(0, columns + 1))
        row = draw(st.lists(cells if kind == "any" else sane_cells, min_size=width, max_size=width))
        if kind == "labels":
            row[-1] = draw(st.sampled_from(["0", "1"]))
        body.append(row)
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join(",".join(row) for row in [header, *body]) + draw(st.sampled_from(["", end, end * 2]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return mark + text.encode("utf-8", "surrogatepass" if draw(st.booleans()) else "replace")


def check_csv(content: bytes) -> None:
    OWN.write_bytes(content)
    with one_message():
        numbers = read_numbers(OWN)
        assert np.isfinite(numbers.values).all()
        for as_table in (linear_set, clusters):
            with one_message():
                as_table(numbers, OWN)


def check_fits(example: tuple[bytes, bool]) -> None:
    """Every experiment that takes the CSV writes finite numbers."""
    content, standardize = example
    OWN.write_bytes(content)
    tree = copy.deepcopy(TREE)
    for group in tree["data"].values():
        group["file"] = OWN.as_posix()
    for group in tree["train"].values():
        group.update({"standardize": standardize} if "standardize" in group else {}, stop_below=None)
        group.update({"iterations": 20, "log_every": 7} if "iterations" in group else {"epochs": 2})
    tree["train"]["logistic"]["form"] = "general"
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    shutil.rmtree("reports", ignore_errors=True)
    for name, experiment in EXPERIMENTS.items():
        with one_message():
            own = read_own(OWN, load_group(f"data.{experiment.data_set}", MODELS[experiment.data_set]))
            write_csv(own, Path(f"data/{experiment.data_set}.csv"), digits=None)
            import_module(f"stages.train.{name}").main()
            text = Path(f"reports/metrics/{name}.json").read_text(encoding="utf-8")
            assert json.loads(text, parse_constant=pytest.fail)["stopped"] in ("iterations", "diverged")
            assert np.isfinite(list(read_csv(Path(f"reports/history/{name}.csv")).values())).all()


# --- in bulk ---------------------------------------------------------------------------------------------------------

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("check", "examples", "number"),
    [
        (check_params, mutated_params(), 150),
        (check_csv, csv_bytes(), 150),
        (check_fits, st.tuples(csv_bytes(), st.booleans()), 25),
        pytest.param(check_params, mutated_params(), 3000, marks=slow),
        pytest.param(check_params, text_between, 3000, marks=slow),
        pytest.param(check_csv, csv_bytes(), 3000, marks=slow),
        pytest.param(check_csv, st.binary(max_size=200), 3000, marks=slow),
        pytest.param(check_fits, st.tuples(csv_bytes(), st.booleans()), 1000, marks=slow),
    ],
)
def test_bad_input_gives_finite_results_or_one_message(
    check: Callable[[Any], None], examples: st.SearchStrategy[Any], number: int
) -> None:
    """The same examples every time."""
    quiet = settings(max_examples=number, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    quiet(given(examples)(check))()
