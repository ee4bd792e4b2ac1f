"""The files that stages hand to each other, and how a stage ends where one is missing, damaged or can't be written."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common import files
from stages.common.errors import UserError, run_stage
from stages.common.files import TEMPORARY, read_csv, read_json, write_csv, write_json, write_text
from stages.common.published import PUBLISHED, read_published

CSV, JSON = Path("reports/history/own.csv"), Path("reports/metrics/own.json")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- to the digit ----------------------------------------------------------------------------------------------------


def test_floats_are_written_with_ten_significant_digits() -> None:
    numbers = [1 / 3, -2e5 / 3, 1e-7 / 3, 1.0, 123456789012.0]
    rounded = [0.3333333333, -66666.66667, 3.333333333e-8, 1.0, 123456789000.0]
    write_csv({"n": range(5), "x": numbers}, CSV)
    assert CSV.read_bytes().startswith(b"n,x\n0,0.3333333333\n1,-66666.66667\n")
    assert read_csv(CSV) == {"n": [0, 1, 2, 3, 4], "x": rounded}
    write_json({"floats": dict(zip("abcde", numbers, strict=True)), "count": 12345678901234}, JSON)
    assert read_json(JSON) == {"floats": dict(zip("abcde", rounded, strict=True)), "count": 12345678901234}


def test_numbers_of_ones_own_are_written_with_every_digit() -> None:
    awkward = [0.1, 1 / 3, -1e-17, 5e-324, 2.2250738585072014e-308, 1.2345678901234567e149, 2**53 + 1.0]
    write_csv({"x": awkward, "y": list(np.array(awkward))}, CSV, digits=None)
    assert read_csv(CSV) == {"x": awkward, "y": awkward}


def test_text_and_whole_numbers_stand_as_they_are_and_nan_as_an_empty_cell() -> None:
    write_csv({"name": ["a, b", "温度"], "n": [2**60, 1], "x": [math.nan, 1 / 3]}, CSV, digits=3)
    assert CSV.read_text(encoding="utf-8") == f'name,n,x\n"a, b",{2**60},\n温度,1,0.333\n'
    columns = read_csv(CSV, first_column="name")
    assert columns["name"] == ["a, b", "温度"]
    assert math.isnan(columns["x"][0])


ARRAYS = {
    "float": np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-100, 100, 0.2),
    "ends": np.tile([0.0, -0.0, 5e-324, 1e-5, 123456789012.0, math.inf, -math.inf, 1.7e308], 125),
    "int": np.arange(-500, 500),
    "some, nan": np.where(np.arange(1000) == 777, math.nan, 0.1),
    "float32": np.arange(1000, dtype="float32") / 3,
    "bool": np.arange(1000) % 2 == 0,
    "text": np.array(["a", "b"] * 500),
}


@pytest.mark.parametrize("digits", [10, 6, None])
@pytest.mark.parametrize("names", [["float"], ["float", "ends", "int"], ["int", "some, nan"], list(ARRAYS), []])
def test_arrays_are_written_as_lists_are(digits: int | None, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, in however many pieces."""
    columns = {name: ARRAYS[name] for name in names}
    write_csv({name: list(values) for name, values in columns.items()}, CSV, digits=digits)
    text = CSV.read_text()
    for cells in (1, 300, 1_000_000):
        monkeypatch.setattr(files, "PIECE", cells)
        write_csv(columns, CSV, digits=digits)
        assert CSV.read_text() == text
    assert len(text.splitlines()) == (1001 if names else 1)


@pytest.mark.parametrize("as_column", [list, np.array])
def test_columns_of_different_lengths_are_no_csv(as_column: Callable[[list[float]], Any]) -> None:
    write_text("old", CSV)
    with pytest.raises(ValueError, match="different lengths"):
        write_csv({"x": as_column([1.0, 2.0]), "y": as_column([1.0] * 100_000)}, CSV)
    assert CSV.read_text() == "old"
    assert list(TEMPORARY.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_json_refuses_what_is_not_a_finite_number_and_keeps_the_old_file(value: float) -> None:
    write_json({"loss": 1.0}, JSON)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"fitted": {"w": value}}, JSON)
    assert read_json(JSON) == {"loss": 1.0}


# --- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else() -> None:
    write_text("old", JSON)
    with pytest.raises(UnicodeEncodeError):  # in the middle of the text, when its beginning may be on the disk
        write_text("new" * 100_000 + "\ud800", JSON)
    assert JSON.read_text() == "old"
    assert list(JSON.parent.iterdir()) == [JSON]
    assert list(TEMPORARY.iterdir()) == []


def test_a_full_disk_is_named_with_the_file_and_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    write_text("old", CSV)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"^reports/history/own\.csv: can't be written by way of \.tmp/: no space left"):
        write_text("new", CSV)
    assert CSV.read_text() == "old"
    assert list(TEMPORARY.iterdir()) == []


# --- what is missing or damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_json, None),
        (read_json, b"{"),
        (read_json, b"\xff"),
        (read_csv, None),
        (read_csv, b""),
        (read_csv, b"\n\n"),
        (read_csv, b"iteration,loss\n"),
        (read_csv, b"iteration,loss\n0,1\n2\n"),
        (read_csv, b'iteration,loss\n0,"1\n'),
        (read_csv, b"iteration,loss\n\xff,1\n"),
        (lambda path: read_csv(path, first_column="iteration"), b"loss\n1\n"),
        (lambda path: read_csv(path, first_column="iteration"), b"\n\n"),
    ],
)
def test_a_missing_or_damaged_result_is_named_with_the_command_that_makes_it(
    read: Callable[[Path], Any], content: bytes | None
) -> None:
    path = Path("result")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"^result: expected what an earlier stage wrote.*`dvc repro --force`"):
        read(path)


@pytest.mark.parametrize("content", ["", "noisy: {w: '2.0'}\n", "text\n", "nn: [\n"])
def test_publications_without_the_experiment_are_refused(content: str) -> None:
    write_text(content, PUBLISHED)
    with pytest.raises(UserError, match=r"^data/published.yaml: expected an entry for nn"):
        read_published("nn")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x.csv: is empty"), "error: x.csv: is empty"),
        (PermissionError("x.csv"), "error: x.csv"),
        (MemoryError(), "error: there is not enough memory; ask for fewer rows in params.yaml, or take a smaller CSV"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_that_a_user_can_cause_ends_a_stage_in_its_message(error: BaseException, code: str | int) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_stage(main)
    assert end.value.code == code


def test_a_fault_of_the_program_shows_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(main)
