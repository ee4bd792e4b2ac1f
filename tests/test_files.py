"""CSV and JSON, in and out: what is read, what is refused and how, what is written to the digit."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.errors import UserError
from stages.common.files import (
    TEMPORARY,
    Table,
    read_clusters,
    read_json,
    read_linear_set,
    read_numbers,
    significant,
    write_csv,
    write_json,
    write_text,
)
from stages.common.params import Group, Params
from stages.generate_data import MODELS, draw

CSV = Path("own.csv")


def written(content: str | bytes) -> Path:
    CSV.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CSV


# --- reading: what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("", ["is empty", "column names"]),
        ("\n \n", ["is empty"]),
        ("x,y\n", ["at least 2 rows", "found 0"]),
        ("x,y\n1,2\n", ["at least 2 rows", "found 1"]),
        ("x,z\n1,2\n3,4\n", ["no column 'y'", "found x, z"]),
        ("x,Y\n1,2\n3,4\n", ["no column 'y'", "found x, Y", "case-sensitive"]),
        ("x;y\n1;2\n3;4\n", ["separated by commas, found the header 'x;y'"]),
        ("x\ty\n1\t2\n3\t4\n", ["separated by commas, found the header 'x\ty'"]),
        ("x,y;z\n1,2\n3,4\n", ["no column 'y', found x, y;z"]),
        ("y\n1\n2\n", ["at least one feature beside 'y'"]),
        ("x,y\n1,2\n3,four\n", ["row 2 (line 3), column 'y'", "a finite number, found 'four'"]),
        ("x,y\n1,2\n3,4 5\n", ["row 2 (line 3), column 'y'", "found '4 5'"]),
        ("x,y\n1,2\n,4\n", ["row 2 (line 3), column 'x'", "found an empty cell"]),
        ("x,y\n1,2\n3, \n", ["row 2 (line 3), column 'y'", "found an empty cell"]),
        ('x,y\n1,2\n"",4\n', ["row 2 (line 3), column 'x'", "found an empty cell"]),
        ("x,y\n1,2\n,\n", ["row 2 (line 3), column 'x'", "found an empty cell"]),
        ("x,y\nnan,2\n3,4\n", ["row 1 (line 2), column 'x'", "found 'nan'"]),
        ("x,y\n1,2\n3,inf\n", ["row 2 (line 3), column 'y'", "found 'inf'"]),
        ("x,y\n1,2\n3,-Infinity\n", ["row 2 (line 3), column 'y'", "found '-Infinity'"]),
        ("x,y\n1,2\n3,1e400\n", ["row 2 (line 3), column 'y'", "found '1e400'"]),
        ("x,y\n1,2\n3\n", ["row 2 (line 3)", "2 cells as in the header (x, y), found 1"]),
        ("x,y\n1,2\n3,4,5\n", ["row 2 (line 3)", "2 cells as in the header (x, y), found 3"]),
        ("x,y\n1,2\n3,4,\n", ["row 2 (line 3)", "found 3"]),
        ("x,y\n\n1,2\n \n\r\n3,four\n", ["row 2 (line 6), column 'y'", "found 'four'"]),
        ("\ufeffx,y\r\n\r\n1,2\r\n3\r\n", ["row 2 (line 4)", "found 1"]),
        ("x,y\n1,2\n3,1e200\n", ["row 2 (line 3), column 'y'", "finite number of size 1e+150 at most", "'1e200'"]),
        ("x,x,y\n1,2,3\n4,5,6\n", ["column name 'x' stands 2 times"]),
        ("x, x ,y\n1,2,3\n4,5,6\n", ["column name 'x' stands 2 times"]),
        ("x,,y\n1,2,3\n4,5,6\n", ["column 2 has no name"]),
        ("x,y,\n1,2,\n3,4,\n", ["column 3 has no name"]),
        ('"x\n1",y\n1,2\n3,4\n', ["the name of column 1", "unprintable"]),
        ('x,y\n1,2\n3,"4\n', ["line 3", "comma-separated values", "unexpected end"]),
        ('x,y\n1,2\n"3"4,5\n', ["line 3", "comma-separated values"]),
        (b"x,y\n1,2\n\xff,4\n", ["UTF-8"]),
        ("x,y\n1,2\n3,4\n".encode("utf-16"), ["UTF-8"]),
    ],
)
def test_bad_linear_set_is_refused_with_its_place(project: Path, content: str | bytes, fragments: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        read_linear_set(written(content))
    assert str(refusal.value).startswith("own.csv: ")
    for fragment in fragments:
        assert fragment in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("x,y\n1,2\n3,4\n", ["no column 'label'", "found x, y"]),
        ("x,Label\n1,0\n2,1\n", ["no column 'label'", "case-sensitive"]),
        ("label\n0\n1\n", ["at least one feature beside 'label'"]),
        ("x,label\n1,0\n", ["at least 2 rows", "found 1"]),
        ("x,label\n1,3\n2,3\n", ["exactly two classes, found 1: 3"]),
        ("x,label\n1,0\n2,1\n3,2.5\n", ["exactly two classes, found 3: 0, 1, 2.5"]),
        ("x,label\n1,0\n2,yes\n", ["row 2 (line 3), column 'label'", "found 'yes'"]),
    ],
)
def test_bad_clusters_are_refused_with_their_place(project: Path, content: str, fragments: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        read_clusters(written(content))
    assert str(refusal.value).startswith("own.csv: ")
    for fragment in fragments:
        assert fragment in str(refusal.value)


@pytest.mark.parametrize(
    ("read", "target", "found", "expected"),
    [
        (read_linear_set, "y", 2, 1),
        (read_linear_set, "y", 1, 2),
        (read_clusters, "label", 3, 2),
        (read_clusters, "label", 1, 2),
    ],
)
def test_other_number_of_features_than_the_experiment_takes_is_refused(
    project: Path, read: Callable[..., Table], target: str, found: int, expected: int
) -> None:
    names = [f"f{j}" for j in range(found)]
    path = written(f"{','.join(names)},{target}\n{'5,' * found}0\n{'6,' * found}1\n")
    assert read(path, features=found).features.shape == (2, found)
    with pytest.raises(UserError, match=rf"expected {expected} feature.*, found {found} \({', '.join(names)}\)"):
        read(path, features=expected)


def test_missing_csv_is_named_with_the_command_that_makes_it(project: Path) -> None:
    with pytest.raises(UserError, match=r"^data/line\.csv: not found; `dvc repro` makes it$"):
        read_linear_set(Path("data/line.csv"))


# --- reading: what is accepted ---------------------------------------------------------------------------------------

PLAIN = "x,y\n1,2.5\n-3e-2,4\n"


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        ("\ufeff" + PLAIN).replace("\n", "\r\n"),
        PLAIN.rstrip("\n"),
        PLAIN + "\n",
        PLAIN + "\r\n \r\n",
        "\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("x,y", '"x","y"'),
        PLAIN.replace("x,y", 'x, "y"'),
        PLAIN.replace("1,", '"1",'),
        PLAIN.replace(",", " , ").replace("\n", " \n "),
        PLAIN.replace("1,", "+1.0,").replace("-3e-2", "-0.03"),
    ],
)
def test_other_spelling_reads_as_the_plain_one(project: Path, content: str) -> None:
    plain, other = read_numbers(written(PLAIN)), read_numbers(written(content))
    pd.testing.assert_frame_equal(other, plain, check_exact=True)
    assert plain.to_dict("list") == {"x": [1.0, -0.03], "y": [2.5, 4.0]}


def test_columns_keep_their_order_and_names_in_utf8(project: Path) -> None:
    table = read_linear_set(written('längd,y,"b,c",温度\n1,2,3,4\n5,6,7,8\n'))
    assert table.features.to_dict("list") == {"längd": [1.0, 5.0], "b,c": [3.0, 7.0], "温度": [4.0, 8.0]}
    assert table.target.to_list() == [2.0, 6.0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (-1, 1), (-7.5, 1e150)])
def test_smaller_label_is_class_0(project: Path, low: float, high: float) -> None:
    table = read_clusters(written(f"x,label\n1,{high}\n2,{low}\n3,{high}\n"))
    assert table.target.to_list() == [1.0, 0.0, 1.0]


# --- writing ---------------------------------------------------------------------------------------------------------

AWKWARD = [
    0.1,
    1 / 3,
    -1e-17,
    5e-324,
    2.2250738585072014e-308,
    1.2345678901234567e149,
    123456789.123456789,
    2**53 + 1.0,
]


def test_own_numbers_pass_with_every_digit(project: Path) -> None:
    own = pd.DataFrame({"x": AWKWARD, "y": AWKWARD[::-1]})
    write_csv(own, CSV, exact=True)
    pd.testing.assert_frame_equal(read_numbers(CSV), own, check_exact=True)


def test_written_floats_have_ten_significant_digits(project: Path) -> None:
    values = [1 / 3, -2e5 / 3, 1e-7 / 3, 1.0, 123456789012.0]
    shown = [0.3333333333, -66666.66667, 3.333333333e-8, 1.0, 123456789000.0]
    write_csv(pd.DataFrame({"n": range(5), "x": values}), CSV)
    assert CSV.read_bytes().startswith(b"n,x\n0,0.3333333333\n1,-66666.66667\n")
    assert read_numbers(CSV)["x"].to_list() == shown
    write_json({"floats": {str(i): value for i, value in enumerate(values)}, "count": 12345678901234}, Path("own.json"))
    content = read_json(Path("own.json"))
    assert list(content["floats"].values()) == shown
    assert content["count"] == 12345678901234


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_json_refuses_what_is_not_a_finite_number(project: Path, value: float) -> None:
    write_json({"loss": 1.0}, Path("own.json"))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"fitted": {"w": value}}, Path("own.json"))
    assert json.loads(Path("own.json").read_text()) == {"loss": 1.0}


def test_failing_write_leaves_the_old_file_and_nothing_else(project: Path) -> None:
    path = Path("reports/metrics/own.json")
    write_text("old", path)
    with pytest.raises(UnicodeEncodeError):  # in the middle of the text, when its beginning may be on the disk
        write_text("new" * 100_000 + "\ud800", path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    assert list(TEMPORARY.iterdir()) == []


def test_failing_rename_leaves_the_old_file_and_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text("old", CSV)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"^.*: can't be written by way of .tmp/: no space left on device"):
        write_text("new", CSV)
    assert CSV.read_text() == "old"
    assert list(TEMPORARY.iterdir()) == []


# --- drawn data ------------------------------------------------------------------------------------------------------

SEEDS = [0, 1, 2, 12345]


@pytest.fixture
def settings(params: Params, changed: Callable[..., Any]) -> Callable[..., Any]:
    """The settings of a data set, for example `settings("line", seed=3)`."""
    return lambda name, **changes: changed(getattr(params.data, name), **changes)


def bytes_of(settings: Group) -> bytes:
    write_csv(draw(settings), CSV)  # type: ignore[arg-type]
    return CSV.read_bytes()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_bytes_follow_from_the_seed(project: Path, settings: Callable[..., Any], name: str, seed: int) -> None:
    once, again, other = (bytes_of(settings(name, seed=s)) for s in (seed, seed, seed + 1))
    assert once == again
    assert once != other


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_file_holds_exactly_what_was_drawn(project: Path, settings: Callable[..., Any], name: str, seed: int) -> None:
    drawn = draw(settings(name, seed=seed)).astype(float)
    assert all(value == significant(value) for value in drawn.to_numpy().flat)
    write_csv(drawn, CSV)
    pd.testing.assert_frame_equal(read_numbers(CSV), drawn, check_exact=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [[3.0], [2.0, -3.4], [1.0, 0.0, -1.0, 1e3]])
def test_without_noise_every_row_lies_on_the_plane(
    settings: Callable[..., Any], weights: list[float], seed: int
) -> None:
    frame = draw(settings("plane", seed=seed, weights=weights, bias=0.8, noise=0))
    x = frame.drop(columns="y").to_numpy()
    assert list(frame.columns) == (
        ["x", "y"] if len(weights) == 1 else [*(f"x{j + 1}" for j in range(len(weights))), "y"]
    )
    assert len(frame) == 1000
    # y is rounded to 10 significant digits, its sum of products to eps times the largest of them
    np.testing.assert_allclose(frame["y"], x @ weights + 0.8, rtol=5.1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_numbers_have_the_distribution_that_is_asked_for(settings: Callable[..., Any], seed: int) -> None:
    """Means and standard deviations within 6 standard errors: a right draw fails once in 10^8."""
    rows = 10_000
    error = 6 / math.sqrt(rows)
    x = {"distribution": "normal", "mean": 7.0, "sd": 2.0}
    plane = draw(settings("plane", seed=seed, rows=rows, x=x, weights=[1.0, 2.0], bias=3.0, noise=0.5))
    x1, x2, y = plane.to_numpy().T
    noise = y - x1 - 2 * x2 - 3
    for values, mean, sd in [(x1, 7, 2), (x2, 7, 2), (noise, 0, 0.5)]:
        assert abs(values.mean() - mean) < error * sd
        assert abs(values.std() - sd) < error * sd / math.sqrt(2)
    assert np.abs(np.corrcoef([x1, x2, noise]) - np.eye(3)).max() < error

    x = {"distribution": "uniform", "low": -3.0, "high": 9.0}
    values = draw(settings("line", seed=seed, rows=rows, x=x))["x"].to_numpy()
    assert -3 <= values.min() < -3 + 0.02  # a right draw misses these with (1 - 0.02/12)^10000 = 6e-8
    assert 9 - 0.02 < values.max() <= 9
    assert abs(values.mean() - 3) < error * 12 / math.sqrt(12)

    clusters = draw(settings("clusters", seed=seed, rows_per_cluster=rows, centers=[[1, -2], [-3, 4]], std=2))
    assert clusters["label"].to_list() == [0] * rows + [1] * rows
    points = clusters[["x", "y"]].to_numpy().reshape(2, rows, 2)
    for cluster, center in zip(points, [(1, -2), (-3, 4)], strict=True):
        assert np.abs(cluster.mean(axis=0) - center).max() < error * 2
        assert np.abs(cluster.std(axis=0) - 2).max() < error * 2 / math.sqrt(2)
        assert abs(np.corrcoef(cluster.T)[0, 1]) < error


# --- the stage generate-data -----------------------------------------------------------------------------------------


def use_own_csv(data_set: str, content: str) -> None:
    Path("data/raw/own.csv").write_text(content, encoding="utf-8")
    text = Path("params.yaml").read_text(encoding="utf-8")
    head, tail = text.split(f"  {data_set}:", maxsplit=1)
    text = f"{head}  {data_set}:{tail.replace('file: null', 'file: data/raw/own.csv', 1)}"
    Path("params.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("data_set", "content", "message"),
    [
        ("clusters", "x,label\n1,0\n2,1\n3,2\n", "column 'label' must hold exactly two classes, found 3: 0, 1, 2"),
        ("line", "x,y\n1,2\n3,four\n", "row 2 (line 3), column 'y': expected a finite number, found 'four'"),
        ("line", "a,b,y\n1,2,3\n4,5,6\n", "expected 1 feature for this experiment, found 2 (a, b); remove columns"),
        ("noisy_line", "a,b,y\n1,2,3\n4,5,6\n", "expected 1 feature for this experiment, found 2 (a, b)"),
        ("plane", "", "is empty"),
    ],
)
def test_stage_refuses_a_bad_csv_and_leaves_every_file_as_it_was(
    refused: Callable[..., subprocess.CompletedProcess[str]], data_set: str, content: str, message: str
) -> None:
    use_own_csv(data_set, content)
    Path(f"data/{data_set}.csv").write_text("from an earlier run")
    assert refused("generate_data", data_set).stderr.startswith(f"error: data/raw/own.csv: {message}")


def test_stage_that_cannot_write_says_so(refused: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    TEMPORARY.touch()  # a file where it needs a folder
    message = refused("generate_data", "line").stderr
    assert message.startswith(f"error: data/line.csv: can't be written by way of {TEMPORARY}/: File exists; see that")


def test_stage_passes_own_numbers_unchanged(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    own = pd.DataFrame({"längd": AWKWARD, "label": [7.0, -1.5] * 4, "y": AWKWARD[::-1]})
    use_own_csv("clusters", own.to_csv(index=False))
    done = run("-m", "stages.generate_data", "clusters")
    assert (done.returncode, done.stderr) == (0, "")
    pd.testing.assert_frame_equal(read_numbers(Path("data/clusters.csv")), own, check_exact=True)


def test_stage_draws_the_same_bytes_as_the_function(
    params: Params, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run("-m", "stages.generate_data", "noisy_line")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("data/noisy_line.csv").read_bytes() == bytes_of(params.data.noisy_line)
