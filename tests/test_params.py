"""params.yaml: every mistake is refused with one message that names the key, and nothing else is refused."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from stages.common.errors import UserError
from stages.common.params import ClustersData, ManualTraining, NnTraining, Params, load_group, load_params

TREE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The full name of every setting: data.line.file, data.line.seed, ..."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def edit(key: str, change: Callable[[Any, str], object]) -> None:
    """Applies `change` to the group that holds `key`, in the params.yaml of the current folder."""
    path = Path("params.yaml")
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    group = tree
    *parents, leaf = key.split(".")
    for parent in parents:
        group = group[parent]
    change(group, leaf)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def set_value(key: str, value: object) -> None:
    edit(key, lambda group, leaf: group.update({leaf: value}))


def remove(key: str) -> None:
    edit(key, lambda group, leaf: group.pop(leaf))


def rename(key: str, name: str) -> None:
    edit(key, lambda group, leaf: group.update({name: group.pop(leaf)}))


def message(load: Callable[[], object] = load_params) -> str:
    with pytest.raises(UserError) as refusal:
        load()
    return str(refusal.value)


def test_the_default_settings_are_accepted_as_they_stand(project: Path) -> None:
    loaded = load_params().model_dump(mode="json")
    assert loaded == TREE


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "line"),
    [
        ("train", "trian", "the whole file: unknown key 'trian'; did you mean 'train'?"),
        ("replicate", "replicates", "the whole file: unknown key 'replicates'; did you mean 'replicate'?"),
        ("data.noisy_line", "noisyline", "data: unknown key 'noisyline'; did you mean 'noisy_line'?"),
        ("train.logistic", "logisitc", "train: unknown key 'logisitc'; did you mean 'logistic'?"),
        ("train.noisy.zero_grad", "zero_grads", "train.noisy: unknown key 'zero_grads'; did you mean 'zero_grad'?"),
        ("data.plane.weights", "weight", "data.plane: unknown key 'weight'; did you mean 'weights'?"),
        ("data.clusters.centers", "centres", "data.clusters: unknown key 'centres'; did you mean 'centers'?"),
        ("data.line.x.high", "hihg", "data.line.x: unknown key 'hihg'; did you mean 'high'?"),
        ("data.plane.x.mean", "maen", "data.plane.x: unknown key 'maen'; did you mean 'mean'?"),
        ("replicate.count", "cuont", "replicate: unknown key 'cuont'; did you mean 'count'?"),
        (
            "data.line.x.distribution",
            "distrbution",
            "data.line.x: unknown key 'distrbution'; did you mean 'distribution'?",
        ),
    ],
)
def test_misspelled_key_is_named_with_its_nearest_valid_key(project: Path, key: str, name: str, line: str) -> None:
    rename(key, name)
    assert line in message().splitlines()[1].strip()


@pytest.mark.parametrize(
    ("key", "where", "valid"),
    [
        ("momentum", "the whole file", "data, train, replicate"),
        ("data.spiral", "data", "line, noisy_line, plane, stream, clusters"),
        ("train.nn.momentum", "train.nn", "lr, zero_grad, stop_below, dtype, log_every, iterations, seed, standardize"),
        ("train.logistic.seed", "train.logistic", "lr, zero_grad, stop_below"),
        ("train.shared.standardize", "train.shared", "lr, zero_grad, stop_below"),
        ("train.minibatch.iterations", "train.minibatch", "epochs, batch_size, seed"),
        ("data.clusters.weights", "data.clusters", "file, seed, rows_per_cluster, centers, std"),
        ("data.line.x.width", "data.line.x", "distribution, low, high"),
    ],
)
def test_unknown_key_is_named_with_all_valid_keys(project: Path, key: str, where: str, valid: str) -> None:
    set_value(key, 1)
    assert f"{where}: unknown key '{key.rpartition('.')[2]}'; valid keys are" in message()
    assert valid in message()


@pytest.mark.parametrize(
    "key",
    [*TREE, *(f"{group}.{name}" for group in ("data", "train") for name in TREE[group]), *leaves(TREE)],
)
def test_every_key_is_needed(project: Path, key: str) -> None:
    remove(key)
    assert message().splitlines()[1].strip().startswith(f"{key}: missing key")


def test_all_problems_of_different_groups_are_reported_at_once(project: Path) -> None:
    set_value("train.nn.lr", 0)
    rename("train.noisy.lr", "lrr")
    remove("data.clusters.std")
    report = message()
    assert report.startswith("params.yaml: 3 problems")
    for key in ("train.nn.lr", "train.noisy", "data.clusters.std"):
        assert f"  {key}: " in report


# --- values ----------------------------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")
POSITIVE, WHOLE, FLAG = "a number greater than 0", "valid integer", "valid boolean"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        # of another type
        ("train.nn.lr", "fast", "valid number"),
        ("train.nn.lr", "", "valid number"),
        ("train.nn.lr", True, "expected a number"),
        ("train.nn.lr", [0.1], "valid number"),
        ("train.nn.lr", None, "valid number"),
        ("train.nn.lr", {"value": 0.1}, "valid number"),
        ("train.nn.iterations", True, "expected a number"),
        ("train.nn.iterations", "many", WHOLE),
        ("train.nn.iterations", 1.5, WHOLE),
        ("train.nn.iterations", [1], WHOLE),
        ("train.nn.iterations", None, WHOLE),
        ("train.nn.seed", None, WHOLE),
        ("train.nn.zero_grad", 0, FLAG),
        ("train.nn.zero_grad", 1, FLAG),
        ("train.nn.zero_grad", "true", FLAG),
        ("train.nn.zero_grad", None, FLAG),
        ("train.manual.standardize", 1, FLAG),
        ("train.noisy.stop_below", False, "expected a number"),
        ("train.noisy.stop_below", "never", "valid number"),
        ("train.nn.dtype", "float16", "'float64' or 'float32'"),
        ("train.nn.dtype", 64, "'float64' or 'float32'"),
        ("train.logistic.loss", "hinge", "'mse' or 'bce'"),
        ("train.logistic.form", "slope_intercept", "'slope-intercept' or 'general'"),
        ("data.line.weights", 3.0, "valid list"),
        ("data.line.weights", "3.0", "valid list"),
        ("data.line.x", "uniform", "group of keys"),
        ("data.line.file", 3, "valid string"),
        ("data.line.file", False, "valid string"),
        ("data.line", None, "group of keys"),
        ("train", [], "group of keys"),
        # out of range
        ("train.manual.lr", 0, POSITIVE),
        ("train.manual.lr", -0.01, POSITIVE),
        ("train.manual.lr", 1e10, "1000000000"),
        ("train.minibatch.batch_size", 0, "greater than or equal to 1"),
        ("train.minibatch.epochs", 0, "greater than or equal to 1"),
        ("train.manual.iterations", 0, "greater than or equal to 1"),
        ("train.manual.iterations", -5, "greater than or equal to 1"),
        ("train.shared.log_every", 0, "greater than or equal to 1"),
        ("train.noisy.stop_below", 0, POSITIVE),
        ("train.noisy.stop_below", -1, POSITIVE),
        ("train.nn.seed", -1, "greater than or equal to 0"),
        ("train.nn.seed", 2**32, "less than 4294967296"),
        ("replicate.count", 0, "greater than or equal to 1"),
        ("data.line.rows", 0, "greater than or equal to 2"),
        ("data.line.rows", 1, "greater than or equal to 2"),
        ("data.clusters.rows_per_cluster", 1, "greater than or equal to 2"),
        ("data.line.noise", -0.1, "greater than or equal to 0"),
        ("data.plane.x.sd", 0, POSITIVE),
        ("data.clusters.std", 0, POSITIVE),
        ("data.line.weights", [], "at least 1 item"),
        ("data.line.weights", [1.0, 2.0], "at most 1 item"),
        ("data.noisy_line.weights", [1.0, 2.0], "at most 1 item"),
        ("data.clusters.centers", [[0.0, 0.0]], "at least 2 items"),
        # not a finite number
        ("train.nn.lr", NAN, "a number"),
        ("train.nn.lr", INFINITY, "less than or equal to"),
        ("train.nn.lr", "nan", "a number"),
        ("train.nn.iterations", NAN, "finite number"),
        ("train.nn.iterations", INFINITY, "finite number"),
        ("train.noisy.stop_below", NAN, "a number"),
        ("train.noisy.stop_below", INFINITY, "less than or equal to"),
        ("data.line.bias", NAN, ""),
        ("data.line.bias", -INFINITY, ""),
        ("data.line.noise", INFINITY, ""),
        ("data.line.x.low", NAN, ""),
        ("data.line.x.high", INFINITY, ""),
        ("data.plane.x.mean", NAN, ""),
        ("data.clusters.std", NAN, ""),
    ],
)
def test_bad_value_is_named_with_what_was_expected_and_found(
    project: Path, key: str, value: object, expected: str
) -> None:
    set_value(key, value)
    report = message()
    assert report.startswith("params.yaml: 1 problem; nothing was run\n")
    line = report.splitlines()[1].strip()
    assert line.startswith(f"{key}: ")
    assert expected in line
    assert f"found {value!r}" in line


@pytest.mark.parametrize(
    ("key", "value", "start"),
    [
        ("data.line.weights", ["a"], "data.line.weights.0: expected a valid number"),
        ("data.plane.weights", [1.0, True], "data.plane.weights.1: expected a number, found True"),
        ("data.plane.weights", [1.0, NAN], "data.plane.weights.1: expected"),
        ("data.clusters.centers", [[0.0, 0.0], [1.0]], "data.clusters.centers.1: "),
        ("data.clusters.centers", [[0.0, 0.0], [1.0, INFINITY]], "data.clusters.centers.1.1: expected"),
        ("data.line.x", {"distribution": "uniform", "low": 1.0, "high": 1.0}, "data.line.x: expected low below high"),
        ("data.line.x", {"distribution": "uniform", "low": 2.0, "high": 1.0}, "data.line.x: expected low below high"),
        ("data.line.x.distribution", "gaussian", "data.line.x: expected distribution: uniform"),
        ("train.nn.iterations", "1.5", "train.nn.iterations: expected a valid integer"),
        ("train.logistic.standardize", True, "train.logistic: standardize: true needs form: general"),
    ],
)
def test_bad_part_or_combination_of_values_is_named(project: Path, key: str, value: object, start: str) -> None:
    set_value(key, value)
    assert message().splitlines()[1].strip().startswith(start)


@pytest.mark.parametrize(
    ("key", "text", "number"),
    [
        ("train.nn.lr", "1e-05", 1e-5),
        ("train.nn.lr", "1e3", 1000.0),
        ("train.nn.iterations", "1e3", 1000),
        ("train.nn.iterations", "250", 250),
        ("train.nn.seed", "1e3", 1000),
        ("train.nn.seed", "4294967295", 2**32 - 1),
        ("train.nn.stop_below", "1e-9", 1e-9),
        ("data.line.noise", "1e-3", 1e-3),
        ("data.line.rows", "2", 2),
        ("data.line.x.low", "-1e-3", -1e-3),
    ],
)
def test_string_that_spells_a_number_counts_as_it(project: Path, key: str, text: str, number: float) -> None:
    set_value(key, text)
    value: Any = load_params()
    for part in key.split("."):
        value = getattr(value, part)
    assert value == number
    assert type(value) is type(number)


def test_standardize_is_accepted_with_the_general_form(project: Path) -> None:
    set_value("train.logistic.standardize", True)
    set_value("train.logistic.form", "general")
    assert load_params().train.logistic.standardize


# --- file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        "data/raw/norris.csv",
        "data/raw/deeper/own.csv",
    ],
)
def test_csv_below_data_raw_is_accepted(project: Path, file: str) -> None:
    Path("data/raw/deeper").mkdir()
    Path("data/raw/deeper/own.csv").touch()
    set_value("data.line.file", file)
    assert load_params().data.line.file == file


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("norris.csv", "below data/raw/"),
        ("params.yaml", "below data/raw/"),
        ("../outside.csv", "below data/raw/"),
        ("data/raw/../../params.yaml", "below data/raw/"),
        ("data/rawest/own.csv", "below data/raw/"),
        ("", "below data/raw/"),
        ("{project}/data/raw/norris.csv", "below data/raw/"),
        ("data/raw/link.csv", "below data/raw/"),
        ("data/raw/folder_link/params.yaml", "below data/raw/"),
        ("data/raw/none.csv", "a CSV that exists"),
        ("data/raw/dangling.csv", "a CSV that exists"),
        ("data/raw", "a CSV that exists"),
        ("data/raw/folder.csv", "a CSV that exists"),
        ("data/raw/loop.csv", "a CSV that exists"),
        ("data/raw/nul\0.csv", "a CSV that exists"),
        pytest.param(
            "data/raw/" + 300 * "a",
            "a CSV that exists",
            id="name too long",
        ),
    ],
)
def test_file_that_is_not_a_csv_below_data_raw_is_refused(project: Path, file: str, expected: str) -> None:
    for folder in ("data/raw/folder.csv", "data/rawest"):
        Path(folder).mkdir()
    Path("data/rawest/own.csv").touch()
    Path("data/raw/link.csv").symlink_to(project / "params.yaml")
    Path("data/raw/folder_link").symlink_to(project)
    Path("data/raw/dangling.csv").symlink_to("nowhere.csv")
    Path("data/raw/loop.csv").symlink_to("loop.csv")
    file = file.format(project=project)
    set_value("data.line.file", file)
    line = message().splitlines()[1].strip()
    assert line.startswith("data.line.file: ")
    assert expected in line


# --- the file as a whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["is empty", "data, train, replicate"]),
        ("# only a comment\n", ["is empty", "data, train, replicate"]),
        ("data: [", ["can't be read as YAML", "line 1"]),
        ("data:\n\tline: 1\n", ["can't be read as YAML", "line 2"]),
        pytest.param(2000 * "[", ["can't be read as YAML"], id="nested too deeply"),
        ("train: {nn: 1}}\n", ["can't be read as YAML", "line 1"]),
        ("- data\n- train\n", ["the whole file: ", "group of keys", "found ['data', 'train']"]),
        ("fast\n", ["the whole file: ", "group of keys", "found 'fast'"]),
        ("{}\n", ["data: missing key", "train: missing key", "replicate: missing key"]),
        ("1: 2\n", ["the whole file: unknown key '1'"]),
        ("data: 2020-13-45\n", ["can't be read as YAML"]),
    ],
)
def test_file_that_holds_no_settings_is_refused(project: Path, text: str, fragments: list[str]) -> None:
    Path("params.yaml").write_text(text, encoding="utf-8")
    report = message()
    assert report.startswith("params.yaml: ")
    for fragment in fragments:
        assert fragment in report


def test_file_that_is_not_utf8_is_refused(project: Path) -> None:
    Path("params.yaml").write_bytes(b"data: \xff\n")
    assert "params.yaml: can't be read as YAML" in message()


def test_missing_file_is_named_with_the_folder_to_run_from(project: Path) -> None:
    Path("params.yaml").unlink()
    assert f"params.yaml: not found in {project}" in message()


# --- one group -------------------------------------------------------------------------------------------------------


def test_load_group_gives_the_same_group_as_load_params(project: Path, params: Params) -> None:
    assert load_group("train.nn", NnTraining) == params.train.nn
    assert load_group("data.clusters", ClustersData) == params.data.clusters


def test_load_group_looks_at_its_own_group_only(project: Path) -> None:
    remove("data")
    set_value("replicate", "no group at all")
    set_value("train.manual.lr", -1)
    assert load_group("train.nn", NnTraining).lr == TREE["train"]["nn"]["lr"]
    report = message(lambda: load_group("train.manual", ManualTraining))
    assert report.splitlines()[1].strip() == "train.manual.lr: expected a number greater than 0, found -1"


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda: remove("train.manual"), ""),
        (lambda: remove("train"), ""),
        (lambda: rename("train.manual", "manaul"), " (there is 'manaul')"),
        (lambda: rename("train", "trian"), " (there is 'trian')"),
        (lambda: set_value("train", 3), ""),
        (lambda: set_value("train", None), ""),
    ],
)
def test_load_group_names_a_group_that_is_missing(project: Path, change: Callable[[], None], hint: str) -> None:
    change()
    assert f"params.yaml: group 'train.manual' is missing{hint};" in message(
        lambda: load_group("train.manual", ManualTraining)
    )


# --- the stage check-params ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda: rename("train.nn.lr", "learning_rate"), "train.nn: unknown key 'learning_rate'"),
        (lambda: set_value("data.line.file", "data/raw/none.csv"), "data.line.file: expected a CSV that exists"),
        (lambda: Path("params.yaml").write_text("data: ["), "can't be read as YAML"),
        (lambda: Path("params.yaml").unlink(), "not found"),
    ],
)
def test_check_params_refuses_with_one_message_and_leaves_every_file_as_it_was(
    refused: Callable[..., subprocess.CompletedProcess[str]], change: Callable[[], None], fragment: str
) -> None:
    for path in ("data/line.csv", "reports/metrics/nn.json"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("from an earlier run")
    change()
    assert fragment in refused("check_params").stderr
    assert not Path(".params.ok").exists()


def test_check_params_writes_the_committed_marker(
    project: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run("-m", "stages.check_params")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Path(".params.ok").read_bytes() == b"params.yaml is valid\n"


def test_check_params_does_not_wait_for_torch(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    program = "import sys, stages.check_params; print('torch' in sys.modules)"
    assert run("-c", program).stdout == "False\n"


def test_shared_takes_one_feature_of_the_stream(project: Path) -> None:
    """Refused as a whole, before anything runs; a group by itself is another matter."""
    set_value("data.stream.weights", [1.0, 2.0])
    assert "data.stream.weights: expected one weight, found 2" in message()


# --- the text itself -------------------------------------------------------------------------------------------------


def replaced(old: str, new: str) -> None:
    """Changes the text of params.yaml, once."""
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("seed: 2\n", "seed: 010\n", "data.line.seed", 10),
        ("rows: 50\n", "rows: 0x10\n", "data.line.rows", 16),
        ("lr: 0.01\n", "lr: 1e-05\n", "train.manual.lr", 1e-5),
        ("lr: 0.01\n", "lr: '1e-05'\n", "train.manual.lr", 1e-5),
    ],
)
def test_a_number_is_what_dvc_shows_of_it(project: Path, old: str, new: str, key: str, value: float) -> None:
    """`dvc params diff` and the stages read the same file as the same numbers."""
    replaced(old, new)
    group, name, leaf = key.split(".")
    assert load_params().model_dump()[group][name][leaf] == value
    seen_by_dvc = load_yaml("params.yaml")[group][name][leaf]
    assert float(seen_by_dvc) == value


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
        ("rows: 50", r'"\ud800": 50', r"data.line: unknown key '\ud800'"),
        ("rows: 50", '"' + "r" * 900 + '": 50', "data.line: unknown key 'rrrrrrrrrrrr"),
        ("form: slope-intercept", r'form: "\ud800"', r"train.logistic.form: expected a valid string"),
        ("rows: 50", "rows: !!int ''", "can't be read as YAML"),
        ("rows: 50", "rows: !!bool x", "can't be read as YAML"),
        ("rows: 50", "rows: !!python/object/apply:os.mkdir [made]", "can't be read as YAML"),
        ("rows: 50", "rows: 50\n    rows: 60", 'found duplicate key "rows"'),
        ("rows: 50", "rows: &loop [*loop]", "data.line.rows: expected a valid integer, found [[[...]]]"),
        ("rows: 50", "rows: 2001-99-99", "can't be read as YAML"),
        ("rows: 50", f"rows: {'[' * 3000}", "can't be read as YAML"),
        ("data:\n", f"a: &a [x]\n{ALIASES}data:\n", "the whole file: unknown key 'a'"),
        ("data:\n", "? [1, 2]\n: 3\ndata:\n", "the whole file: unknown key '(1, 2)'"),
    ],
)
def test_odd_yaml_ends_in_one_short_message(project: Path, old: str, new: str, fragment: str) -> None:
    replaced(old, new)
    text = message()
    assert fragment in text
    assert len(text) < 2000
    text.encode("utf-8")
    assert not Path("made").exists()
