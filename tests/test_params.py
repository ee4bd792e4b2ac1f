"""params.yaml: every mistake is refused with one message that names the key, and nothing else is refused."""

import itertools
import os
from collections.abc import Callable
from functools import reduce
from math import inf, nan
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from stages import check_params
from stages.common.errors import UserError
from stages.common.params import load_group, load_params
from stages.common.schema import ManualTraining, NnTraining
from tests.conftest import DEFAULTS, TREE, Run, leaves

FILE = Path("params.yaml")


@pytest.fixture(autouse=True)
def _in_a_project(project: Path) -> None: ...


def edit(change: Callable[[dict[str, Any], str], object], *keys: str) -> None:
    """Applies `change` to the group that holds each key, and to the key's last part."""
    tree = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for key in keys:
        *groups, leaf = key.split(".")
        change(reduce(getitem, groups, tree), leaf)
    FILE.write_text(yaml.safe_dump(tree), encoding="utf-8")


def set_value(value: object, *keys: str) -> None:
    edit(lambda group, leaf: group.update({leaf: value}), *keys)


def remove(*keys: str) -> None:
    edit(lambda group, leaf: group.pop(leaf), *keys)


def rename(key: str, name: str) -> None:
    edit(lambda group, leaf: group.update({name: group.pop(leaf)}), key)


def value_of(key: str) -> Any:
    return reduce(getitem, key.split("."), load_params().model_dump())


def message(load: Callable[[], object] = load_params) -> str:
    with pytest.raises(UserError) as refusal:
        load()
    return str(refusal.value)


def problems() -> list[str]:
    """A line each."""
    first, *lines = message().splitlines()
    assert first == f"params.yaml: {len(lines)} problem{'s' if len(lines) > 1 else ''}; nothing was run"
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


def test_the_default_settings_are_accepted_as_they_stand() -> None:
    assert load_params().model_dump(mode="json") == TREE


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "where", "hint"),
    [
        # misspelled
        ("train", "trian", "the whole file", "did you mean 'train'?"),
        ("data.clusters.centers", "centres", "data.clusters", "did you mean 'centers'?"),
        ("data.line.x.high", "hihg", "data.line.x", "did you mean 'high'?"),
        ("data.plane.x.distribution", "distrbution", "data.plane.x", "did you mean 'distribution'?"),
        # unknown: not every experiment has every setting
        ("replicate", "momentum", "the whole file", "valid keys are data, train, replicate"),
        ("data.line", "spiral", "data", "valid keys are line, noisy_line, plane, stream, clusters"),
        ("train.logistic.lr", "seed", "train.logistic", "valid keys are lr, zero_grad, stop_below, dtype, log_every, "),
        ("train.shared.lr", "standardize", "train.shared", "valid keys are lr, zero_grad, stop_below, dtype, "),
        (
            "data.clusters.std",
            "weights",
            "data.clusters",
            "valid keys are file, target, features, seed, rows_per_cluster, centers, std",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_or_with_all(key: str, name: str, where: str, hint: str) -> None:
    rename(key, name)
    (problem,) = problems()
    assert problem.startswith(f"{where}: unknown key '{name}'; {hint}")


def test_every_setting_is_needed() -> None:
    settings = [key for key in leaves(TREE) if not key.endswith("distribution")]  # what else x has depends on it
    remove(*settings)
    assert {problem.partition("; ")[0] for problem in problems()} == {f"{key}: missing key" for key in settings}


@pytest.mark.parametrize("group", ["data", "replicate", "data.line", "train.nn", "data.plane.x.distribution"])
def test_every_group_is_needed(group: str) -> None:
    remove(group)
    assert problems()[0].startswith(f"{group}: missing key; ")


def test_all_problems_of_different_groups_are_reported_at_once() -> None:
    set_value(0, "train.nn.lr")
    rename("train.noisy.lr", "lrr")
    remove("data.clusters.std")
    assert {problem.partition(":")[0] for problem in problems()} == {"data.clusters.std", "train.nn.lr", "train.noisy"}


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "taken_by"),
    [
        ("fast", ("target",)),
        *((value, ()) for value in ({"value": 1}, nan, inf, -inf, 1e10, -1e10)),
        (True, ("zero_grad", "standardize")),
        (None, ("file", "stop_below", "features")),
    ],
)
def test_every_setting_refuses_another_type_and_numbers_out_of_all_bounds(value: object, taken_by: tuple[str]) -> None:
    settings = [key for key in leaves(TREE) if not key.endswith(("distribution", *taken_by))]
    set_value(value, *settings)
    found = dict(problem.split(": ", maxsplit=1) for problem in problems())
    assert set(found) == set(settings)
    for problem in found.values():
        assert problem.startswith("expected ")
        assert problem.endswith(f", found {value!r}")


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ("a number greater than 0", {"train.nn.lr": 0, "train.noisy.lr": "nan", "train.noisy.stop_below": 0}),
        ("a number greater than 0", {"data.plane.x.sd": 0, "data.clusters.std": 0}),
        ("a number greater than or equal to 0", {"train.nn.seed": -1, "data.line.noise": -0.1}),
        ("a number greater than or equal to 1", {"train.nn.iterations": 0, "train.minibatch.epochs": 0}),
        ("a number greater than or equal to 1", {"train.nn.log_every": 0, "train.minibatch.batch_size": 0}),
        ("a number greater than or equal to 1", {"replicate.count": 0, "train.manual.log_every": -5}),
        ("a number greater than or equal to 2", {"data.line.rows": 1, "data.clusters.rows_per_cluster": 1}),
        ("a number less than ", {"train.nn.seed": 2**32, "train.nn.lr": 1.1e9, "replicate.count": 1_000_001}),
        ("a valid number", {"train.manual.lr": "", "data.plane.x.sd": "wide"}),
        ("a valid integer", {"train.nn.iterations": 1.5, "train.nn.seed": "one"}),
        ("a valid boolean", {"train.nn.zero_grad": 1, "train.noisy.zero_grad": "true", "train.manual.standardize": 0}),
        ("'float64' or 'float32'", {"train.nn.dtype": "float16", "train.manual.dtype": 64}),
        ("'", {"train.logistic.loss": "hinge", "train.logistic.form": "slope_intercept"}),
        ("a group of keys", {"train": [], "data.line": None, "data.noisy_line.x": "uniform"}),
        ("a valid list", {"data.line.weights": "3.0", "data.clusters.centers": 1.0}),
        ("a list of at least 1 item, found ", {"data.line.weights": [], "data.plane.weights": []}),
        ("a list of at most 1 item, found ", {"data.line.weights": [1.0, 2.0], "data.noisy_line.weights": [1.0, 2.0]}),
        ("a list of at least 2 items, found ", {"data.clusters.centers": [[0.0, 0.0]]}),
        ("low below high", {"data.line.x": {"distribution": "uniform", "high": 1.0, "low": 1.0}}),
        ("distribution: uniform with low and high, or ", {"data.line.x": {"distribution": "gaussian"}}),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected_and_found(expected: str, values: dict[str, object]) -> None:
    for key, value in values.items():
        set_value(value, key)
    found = dict(problem.split(": ", maxsplit=1) for problem in problems())
    assert set(found) == set(values)
    for key, value in values.items():
        assert found[key].startswith(f"expected {expected}")
        assert found[key].endswith(f", found {value!r}")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("train.nn.iterations", "1.5", "train.nn.iterations: expected a valid integer"),
        ("data.line.weights", ["a"], "data.line.weights.0: expected a valid number"),
        ("data.plane.weights", [1.0, True], "data.plane.weights.1: expected a number, found True"),
        ("data.clusters.centers", [[0.0, 0.0], [1.0]], "data.clusters.centers.1: expected a list of at least 2"),
        ("data.clusters.centers", [[0.0, 0.0], [1.0, inf]], "data.clusters.centers.1.1: expected"),
        ("train.logistic.standardize", True, "train.logistic: standardize: true needs form: general"),
        ("data.plane.features", ["a", "b", "a"], "data.plane: column 'a' is named twice"),
        ("data.plane.features", ["y"], "data.plane: column 'y' is named twice"),
        ("data.plane.features", [], "data.plane.features: expected"),
    ],
)
def test_a_bad_part_or_combination_of_values_is_named(key: str, value: object, problem: str) -> None:
    set_value(value, key)
    assert [line[: len(problem)] for line in problems()] == [problem]


@pytest.mark.parametrize(
    ("key", "value", "number"),
    [
        ("train.nn.lr", "1e-05", 1e-5),
        ("train.nn.iterations", "1e3", 1000),
        ("train.nn.iterations", 1, 1),
        ("train.nn.seed", "4294967295", 2**32 - 1),
        ("train.nn.seed", 0, 0),
        ("data.line.rows", "2", 2),
        ("data.line.noise", 0, 0.0),
        ("data.line.x.low", "-1e-3", -1e-3),
    ],
)
def test_a_number_in_its_range_or_a_string_that_spells_one_is_accepted(key: str, value: object, number: float) -> None:
    set_value(value, key)
    assert value_of(key) == number
    assert type(value_of(key)) is type(number)


# --- a CSV of one's own ----------------------------------------------------------------------------------------------


def test_a_csv_below_data_raw_is_accepted() -> None:
    Path("data/raw/deeper").mkdir()
    Path("data/raw/norris.csv").rename("data/raw/deeper/own.csv")
    set_value("data/raw/deeper/own.csv", "data.line.file")
    assert value_of("data.line.file") == "data/raw/deeper/own.csv"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("../outside.csv", "a path below data/raw/, relative"),
        ("data/raw/../../params.yaml", "a path below data/raw/, relative"),
        ("data/rawest/own.csv", "a path below data/raw/, relative"),
        ("{project}/data/raw/norris.csv", "a path below data/raw/, relative"),
        ("data/raw/link.csv", "a path below data/raw/, not a link to elsewhere"),
        ("data/raw/folder_link/params.yaml", "a path below data/raw/, not a link to elsewhere"),
        ("data/raw/none.csv", "a CSV that exists"),
        ("data/raw", "a CSV that exists"),
        ("data/raw/folder.csv", "a CSV that exists"),
        ("data/raw/loop.csv", "a CSV that exists"),
        ("data/raw/nul\0.csv", "a CSV that exists"),
        (f"data/raw/{'a' * 300}", "a CSV that exists"),
    ],
)
def test_what_is_no_csv_below_data_raw_is_refused(project: Path, file: str, expected: str) -> None:
    for folder in ("data/raw/folder.csv", "data/rawest"):
        Path(folder).mkdir()
    Path("data/rawest/own.csv").touch()
    Path("data/raw/link.csv").symlink_to(project / "params.yaml")
    Path("data/raw/folder_link").symlink_to(project)
    Path("data/raw/loop.csv").symlink_to("loop.csv")
    set_value(file.format(project=project), "data.line.file")
    (problem,) = problems()
    assert problem.startswith(f"data.line.file: expected {expected}")


# --- the text itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (b"", "is empty; expected the groups data, train, replicate"),
        (b"# only a comment\n", "is empty; expected the groups data, train, replicate"),
        (b"data: [", "can't be read as YAML"),
        (b"data: \xff\n", "can't be read as YAML"),
        (b"fast\n", "1 problem; nothing was run\n  the whole file: expected a group of keys, found 'fast'"),
        (b"{}\n", "3 problems; nothing was run\n  data: missing key"),
        (b"1: 2\n", "1 problem; nothing was run\n  the whole file: unknown key '1'"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(text: bytes, start: str) -> None:
    FILE.write_bytes(text)
    assert message().startswith(f"params.yaml: {start}")


def test_a_missing_file_is_named_with_the_folder_to_run_from(project: Path) -> None:
    FILE.unlink()
    assert f"params.yaml: not found in {project}" in message()


def replace(old: str, new: str) -> None:
    """Changes the text of params.yaml, once."""
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    FILE.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("seed: 2\n", "seed: 010\n", "data.line.seed", 10),
        ("rows: 50\n", "rows: 0x10\n", "data.line.rows", 16),
        ("lr: 0.01\n", "lr: 1e-05\n", "train.manual.lr", 1e-5),
        ("lr: 0.01\n", "lr: '1e-05'\n", "train.manual.lr", 1e-5),
    ],
)
def test_a_number_is_what_dvc_shows_of_it(old: str, new: str, key: str, value: float) -> None:
    """`dvc params diff` and the stages read the same file as the same numbers."""
    replace(old, new)
    group, name, leaf = key.split(".")
    assert value_of(key) == value
    assert float(load_yaml("params.yaml")[group][name][leaf]) == value


ALIASES = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghijk")
)


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("rows: 50", "rows: 1:30", "data.line.rows: expected a valid integer"),
        ("rows: 50", "rows: ５０", "data.line.rows: expected a valid integer"),
        ("zero_grad: true", "zero_grad: yes", "train.manual.zero_grad: expected a valid boolean, found 'yes'"),
        ("rows: 50", f"rows: 0x{'f' * 5000}", "data.line.rows: expected a number less than or equal to"),
        ("lr: 0.01", "lr: 1e400", "train.manual.lr: expected a number less than or equal to 1000000000, found inf"),
        ("rows: 50", f"rows: {'9' * 5000}", "can't be read as YAML: Exceeds the limit"),
        ("rows: 50", r'"\ud800": 50', "can't be read as YAML: while parsing a quoted scalar"),
        ("rows: 50", '"' + "r" * 900 + '": 50', "data.line: unknown key 'rrrrrrrrrrrr"),
        ("rows: 50", "rows: !!python/object/apply:os.mkdir [made]", "can't be read as YAML"),
        ("rows: 50", "rows: 50\n    rows: 60", 'found duplicate key "rows"'),
        ("rows: 50", "rows: &loop [*loop]", "data.line.rows: expected a valid integer, found [[[...]]]"),
        ("rows: 50", "rows: 2001-99-99", "can't be read as YAML"),
        ("rows: 50", f"rows: {'[' * 3000}", "can't be read as YAML"),
        ("data:\n", f"a: &a [x]\n{ALIASES}data:\n", "the whole file: unknown key 'a'"),
        ("data:\n", "? [1, 2]\n: 3\ndata:\n", "the whole file: unknown key '(1, 2)'"),
    ],
)
def test_odd_yaml_ends_in_one_short_message(old: str, new: str, fragment: str) -> None:
    replace(old, new)
    text = message()
    assert fragment in text
    assert len(text) < 2000
    text.encode("utf-8")
    assert not Path("made").exists()


# --- one group -------------------------------------------------------------------------------------------------------


def test_load_group_looks_at_its_own_group_only() -> None:
    set_value("no group at all", "data", "replicate")
    set_value(-1, "train.manual.lr")
    assert load_group("train.nn", NnTraining) == DEFAULTS.train.nn
    refusal = message(lambda: load_group("train.manual", ManualTraining))
    assert refusal.endswith("\n  train.manual.lr: expected a number greater than 0, found -1")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda: remove("train.manual"), ""),
        (lambda: rename("train.manual", "manaul"), " (there is 'manaul')"),
        (lambda: rename("train", "trian"), " (there is 'trian')"),
        (lambda: FILE.write_text("fast"), ""),
    ],
)
def test_load_group_names_a_group_that_is_missing(change: Callable[[], None], hint: str) -> None:
    change()
    refusal = message(lambda: load_group("train.manual", ManualTraining))
    assert refusal.startswith(f"params.yaml: group 'train.manual' is missing{hint};")


# --- the stage check-params ------------------------------------------------------------------------------------------


def test_check_params_refuses_with_one_message_and_leaves_every_file_as_it_was(refused: Run) -> None:
    Path("data/line.csv").write_text("from an earlier run")
    rename("train.nn.lr", "learning_rate")
    assert "train.nn: unknown key 'learning_rate'" in refused("check_params").stderr
    assert not Path(".params.ok").exists()


def test_check_params_writes_the_committed_marker_and_does_not_wait_for_torch(run: Run) -> None:
    done = run("-c", "import sys, stages.check_params as stage; stage.main(); print('torch' in sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert Path(".params.ok").read_bytes() == b"params.yaml is valid\n"


# --- data that are too big -------------------------------------------------------------------------------------------


def refused_in_memory(size: int | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines with which check-params refuses the data sets on a machine with so many bytes."""
    monkeypatch.setattr(check_params, "memory_of_machine", lambda: size)
    try:
        check_params.main()
    except UserError as error:
        first, *lines = str(error).splitlines()
        assert first == f"params.yaml: {len(lines)} problem{'s' if len(lines) > 1 else ''}; nothing was run"
        assert not Path(".params.ok").exists()
        return [line.strip() for line in lines]
    assert Path(".params.ok").exists()
    return []


def test_data_that_do_not_fit_into_memory_are_refused_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    set_value(1000, "data.plane.rows", "data.clusters.rows_per_cluster")
    plane, stream, clusters = 100 * 1000 * 3, 100 * 5000 * 2, 400 * 2000 * 3
    assert refused_in_memory(clusters - 1, monkeypatch) == [
        "data.clusters: expected data that fit into this machine's 2,399,999 bytes of memory, found rows that need some"
        " 2,400,000; lower data.clusters.rows_per_cluster"
    ]
    too_big = [line.partition(":")[0] for line in refused_in_memory(plane - 1, monkeypatch)]
    assert too_big == ["data.plane", "data.stream", "data.clusters"]
    assert "1,000,000; lower data.stream.rows" in refused_in_memory(stream - 1, monkeypatch)[0]
    for enough in (clusters, None):  # where the system does not say, nothing is refused
        assert refused_in_memory(enough, monkeypatch) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_a_csv_of_ones_own_needs_is_estimated_from_its_first_lines(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{row / 7:.6f},{row},text of some length,{-row}" for row in range(100_000)]
    Path("data/raw/own.csv").write_text(end.join(["a,b,c,d", *rows]), newline="")
    set_value("data/raw/own.csv", "data.plane.file")
    for features, columns in ((None, 4), (["a"], 2)):
        set_value(features, "data.plane.features")
        needed = 100 * 100_000 * columns
        (line,) = refused_in_memory(int(0.8 * needed), monkeypatch)
        assert "found data/raw/own.csv that needs some" in line
        assert line.endswith("; name fewer features in data.plane.features, or take fewer rows")
        Path(".params.ok").unlink(missing_ok=True)
        assert refused_in_memory(int(1.2 * needed), monkeypatch) == []
        Path(".params.ok").unlink()


@pytest.mark.parametrize("content", ["", "\n", "x"])
def test_a_csv_without_rows_is_for_the_stage_that_reads_it(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/raw/own.csv").write_text(content)
    set_value("data/raw/own.csv", "data.plane.file")
    assert refused_in_memory(10**9, monkeypatch) == []


def test_the_memory_of_the_machine_is_known_or_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**27 < (check_params.memory_of_machine() or 2**30) < 2**50
    monkeypatch.setattr(os, "sysconf", lambda _: -1, raising=False)  # a system that can't tell
    assert check_params.memory_of_machine() is None
    monkeypatch.delattr(os, "sysconf")  # Windows
    assert check_params.memory_of_machine() is None


def test_more_rows_than_any_machine_holds_are_one_message_and_leave_every_file_as_it_was(refused: Run) -> None:
    set_value(100_000_000, "data.plane.rows")
    set_value([1.0] * 100, "data.plane.weights")
    Path("data/plane.csv").write_text("from an earlier run")
    assert "bytes of memory, found rows that need some 1,010,000,000,000;" in refused("check_params").stderr
