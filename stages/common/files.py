"""The files that stages hand to each other: JSON and CSV, whole or not at all.

Writers go through a temporary file and a rename, so that a half-written file is never seen, and write floats with 10
significant digits, so that the same run gives the same bytes on every processor.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from stages.common.errors import UserError

DATA = Path("data")
METRICS = Path("reports/metrics")
HISTORY = Path("reports/history")
REPLICATES = Path("reports/replicates")
EVALUATION = Path("reports/evaluation")
FIGURES = Path("reports/figures")
TEMPORARY = Path(".tmp")  # ignored by git and DVC, on the same file system as the outputs
DAMAGED = "expected what an earlier stage wrote, found none or a damaged file; run `dvc repro --force`"
DIGITS = 10  # significant digits of every written float
ESTIMATED = 6  # of what repetitions estimate: a thousand of them know no more
PIECE = 50_000  # cells of a CSV that are spelled at a time: a few megabytes


class Column(Protocol):
    """A sequence, or an array of NumPy's, which a stage that only puts words on a page need not wait for."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, place: Any, /) -> Any: ...


Columns = Mapping[str, Column]  # a CSV: its columns by name, all of one length


def significant(value: float, digits: int = DIGITS) -> float:
    """The float that is written for `value`: rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The content of a JSON file that an earlier stage wrote.

    Raises:
        UserError: where it is not there or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path}: {DAMAGED} ({error})") from None


def read_csv(path: Path, first_column: str | None = None) -> dict[str, list[Any]]:
    """The columns of a CSV that an earlier stage wrote: numbers, nan for empty cells; else text.

    Raises:
        UserError: where it is not there or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            names, *rows = csv.reader(stream, strict=True)
        if not (names and rows) or any(len(row) != len(names) for row in rows) or first_column not in (None, names[0]):
            raise ValueError("rows or columns are missing")
    except (FileNotFoundError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: {DAMAGED} ({error})") from None
    return {name: _numbers(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}


def _numbers(cells: Sequence[str]) -> list[Any]:
    try:
        return [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return list(cells)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_csv(columns: Columns, path: Path, *, digits: int | None = DIGITS) -> None:
    """A CSV with so many significant digits, or with every digit (None) where the numbers are the user's own.

    Whole numbers and text stand as they are, nan as an empty cell.
    """
    write_pieces(_csv_pieces(columns, digits), path)


def _csv_pieces(columns: Columns, digits: int | None) -> Iterator[str]:
    """The text of a CSV: its header, then some rows at a time."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
    yield _rows([columns])
    step = max(PIECE // max(len(columns), 1), 1)
    for start in range(0, max(lengths, default=0), step):
        piece = [values[start : start + step] for values in columns.values()]
        yield _rows_of_numbers(piece, digits) or _rows(zip(*(_cells(values, digits) for values in piece), strict=True))


def _rows_of_numbers(piece: Sequence[Any], digits: int | None) -> str | None:
    """Rows of arrays, spelled by one format, which is three times as fast as cell by cell; None of anything else."""
    formats = [_number_format(values, digits) for values in piece]
    if not all(formats):
        return None
    rows = zip(*(values.tolist() for values in piece), strict=True)
    return (",".join(formats) + "\n") * len(piece[0]) % tuple(chain.from_iterable(rows))


def _number_format(values: Any, digits: int | None) -> str:
    """How % spells the numbers of an array; empty for what is no array of numbers, and where a nan is among them."""
    dtype = str(getattr(values, "dtype", None))
    if dtype == "int64":
        return "%d"
    if dtype == "float64" and not math.isnan(values.min()):
        return "%r" if digits is None else f"%.{digits}g"
    return ""


def _cells(values: Iterable[Any], digits: int | None) -> Iterator[Any]:
    """Any column's cells: floats are spelled, nan is empty."""
    spell = repr if digits is None else f"{{:.{digits}g}}".format

    def cell(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return "" if math.isnan(value) else spell(float(value))

    return map(cell, values)


def _rows(rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def write_json(content: dict[str, Any], path: Path) -> None:
    """Strict JSON with floats rounded to 10 significant digits; ValueError on NaN or Infinity."""
    write_text(json.dumps(_rounded(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n", path)


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    return significant(content) if isinstance(content, float) else content


def write_text(text: str, path: Path) -> None:
    """Writes a file whole or not at all; see `write_pieces`."""
    write_pieces([text], path)


def write_pieces(pieces: Iterable[str], path: Path) -> None:
    """Writes a file of these pieces, one after the other, whole or not at all.

    Raises:
        UserError: where the disk is full, or the folder can't be written to.
    """
    temporary = TEMPORARY / path.as_posix().replace("/", "-")
    try:
        TEMPORARY.mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                stream.writelines(pieces)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: can't be written by way of {TEMPORARY}/: {error.strerror or error}; see that the disk has space,"
            " and that both folders can be written to and lie on one file system, then run `dvc repro` again"
        ) from None
