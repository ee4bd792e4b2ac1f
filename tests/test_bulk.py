"""Bad input in bulk: thousands of mutated params.yaml and CSV files are accepted with finite results, or refused with
one message that names the place; never a traceback or a NaN in an output.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import generate_data, train_logistic, train_manual, train_minibatch, train_nn, train_noisy, train_shared
from stages.common.errors import UserError
from stages.common.files import clusters, linear_set, read_numbers
from stages.common.params import Params, load_group, load_params
from tests.conftest import ROOT
from tests.test_params import TREE
from tests.test_selective import LEAVES

FEW = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

TRAIN = {
    "line": [train_manual],
    "noisy_line": [train_noisy],
    "plane": [train_minibatch],
    "stream": [train_nn, train_shared],
    "clusters": [train_logistic],
}

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["1e-05", "1_0", "0x10", ".inf", "nan", "data/raw/norris.csv", "data/raw/../../x", "mse", "general", ""]
    ),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=5)), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
names = st.one_of(
    st.text(max_size=12), st.integers(), st.sampled_from(["lr", "lrr", "seed", "train", "data", "x", "file"])
)


@st.composite
def mutated_params(draw: st.DrawFn) -> Any:
    """params.yaml with one to three keys set, removed, renamed or added, anywhere."""
    tree = json.loads(json.dumps(TREE))
    for _ in range(draw(st.integers(1, 3))):
        *groups, leaf = draw(st.sampled_from(LEAVES)).split(".")
        depth = draw(st.integers(0, len(groups)))
        key = [*groups, leaf][depth]
        group = tree
        for name in groups[:depth]:
            if not isinstance(group, dict) or name not in group:
                break
            group = group[name]
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
    return tree


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


def check_params_tree(text: str) -> None:
    Path("params.yaml").write_text(text, encoding="utf-8")
    with one_message():
        params = load_params()
        assert isinstance(params, Params)
        for value in numbers_in(params.model_dump()):
            assert math.isfinite(value)


def numbers_in(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from numbers_in(part)
    elif isinstance(tree, int | float):
        yield tree


@FEW
@given(tree=mutated_params())
def test_params(project_once: Path, tree: Any) -> None:
    check_params_tree(yaml.safe_dump(tree, allow_unicode=True))


@pytest.mark.slow
@MANY
@given(tree=mutated_params())
def test_params_many(project_once: Path, tree: Any) -> None:
    check_params_tree(yaml.safe_dump(tree, allow_unicode=True))


@pytest.mark.slow
@MANY
@given(text=st.text(max_size=300), cut=st.integers(0, 2000))
def test_params_text(project_once: Path, text: str, cut: int) -> None:
    whole = (ROOT / "params.yaml").read_text(encoding="utf-8")
    check_params_tree((whole[:cut] + text + whole[cut:]).encode("utf-8", "replace").decode())


cells = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "inf",
            "-inf",
            "1e308",
            "1e-320",
            "0",
            "1",
            "2",
            "-0.0",
            '"1"',
            '"',
            "'",
            "x",
            "１",
            "1,2",
            "\t",
        ]
    ),
    st.text(max_size=6),
)
headers = st.one_of(
    st.sampled_from(["x", "y", "label", "x1", "Y", " y", '"y"', "", "<script>", "$x$", "w", "b", "loss"]),
    st.text(max_size=8),
)


@st.composite
def csv_bytes(draw: st.DrawFn) -> bytes:
    """Mostly well-formed CSVs of a few rows, with a mark, line ends and cells that may be wrong."""
    columns = draw(st.integers(1, 4))
    header = draw(st.lists(headers, min_size=columns, max_size=columns))
    if draw(st.booleans()):
        header[-1] = draw(st.sampled_from(["y", "label"]))
    sane = st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}")
    kind = draw(st.sampled_from(["sane", "labels", "any"]))
    body = []
    for _ in range(draw(st.integers(0, 6))):
        width = columns if kind != "any" else draw(st.integers(0, columns + 1))
        row = draw(st.lists(cells if kind == "any" else sane, min_size=width, max_size=width))
        if kind == "labels" and row:
            row[-1] = draw(st.sampled_from(["0", "1"]))
        body.append(row)
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join(",".join(row) for row in [header, *body]) + draw(st.sampled_from(["", end, end * 2]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return mark + text.encode("utf-8", "surrogatepass" if draw(st.booleans()) else "replace")


def check_csv(content: bytes) -> None:
    """Read, and where it is accepted, fitted by every experiment that takes it."""
    path = Path("data/raw/own.csv")
    path.write_bytes(content)
    with one_message():
        frame = read_numbers(path)
        assert np.isfinite(frame.to_numpy()).all()
        for as_table in (linear_set, clusters):
            with one_message():
                as_table(frame, path)


def fit_csv(content: bytes, *, standardize: bool) -> None:
    Path("data/raw/own.csv").write_bytes(content)
    tree = json.loads(json.dumps(TREE))
    for group in tree["train"].values():
        group.update({"standardize": standardize, "stop_below": None})
        group.update({"iterations": 20, "log_every": 7} if "iterations" in group else {"epochs": 2})
    del tree["train"]["shared"]["standardize"]
    tree["train"]["logistic"]["form"] = "general"
    for group in tree["data"].values():
        group["file"] = "data/raw/own.csv"
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for data_set, stages in TRAIN.items():
        for stage in stages:
            name = stage.__name__.removeprefix("stages.train_")
            for old in Path("reports").rglob("*.*"):
                old.unlink()
            with one_message():
                own = load_group(f"data.{data_set}", generate_data.MODELS[data_set])
                generate_data.read_own(Path("data/raw/own.csv"), own).to_csv(f"data/{data_set}.csv", index=False)
                stage.main()
                metrics = json.loads(
                    Path(f"reports/metrics/{name}.json").read_text("utf-8"), parse_constant=pytest.fail
                )
                assert metrics["stopped"] in ("iterations", "diverged")
                history = pd.read_csv(f"reports/history/{name}.csv")
                assert np.isfinite(history.to_numpy()).all()


@FEW
@given(content=csv_bytes())
def test_csv(project_once: Path, content: bytes) -> None:
    check_csv(content)


@pytest.mark.slow
@MANY
@given(content=csv_bytes())
def test_csv_many(project_once: Path, content: bytes) -> None:
    check_csv(content)


@pytest.mark.slow
@MANY
@given(content=st.binary(max_size=200))
def test_csv_of_any_bytes(project_once: Path, content: bytes) -> None:
    check_csv(content)


@settings(FEW, max_examples=25)
@given(content=csv_bytes(), standardize=st.booleans())
def test_fits(project_once: Path, content: bytes, standardize: bool) -> None:
    fit_csv(content, standardize=standardize)


@pytest.mark.slow
@settings(MANY, max_examples=1000)
@given(content=csv_bytes(), standardize=st.booleans())
def test_fits_many(project_once: Path, content: bytes, standardize: bool) -> None:
    fit_csv(content, standardize=standardize)


@pytest.fixture(scope="module")
def project_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder, the current one, that all examples of a test share."""
    folder = tmp_path_factory.mktemp("bulk")
    (folder / "data/raw").mkdir(parents=True)
    for name in ("norris.csv", "iris.csv"):
        (folder / "data/raw" / name).write_bytes((ROOT / "data/raw" / name).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
