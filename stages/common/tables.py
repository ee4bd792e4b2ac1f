"""Users' tables: CSVs of numbers. A plain one is read at once; any other cell by cell, so that what is wrong is named
with its row and column.
"""

import csv
import math
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.common.errors import UserError

LARGEST = 1e150  # the square of a larger number is not finite


@dataclass(frozen=True)
class Numbers:
    """The numbers of a CSV: values (rows, columns), float64, and the columns' names."""

    names: list[str]
    values: np.ndarray


@dataclass(frozen=True)
class Table:
    """A data set.

    Attributes:
        features: (rows, features), float64.
        target: (rows,), float64; a label is 0 or 1.
        feature_names: of the columns of features.
        target_name: `y`, or `label` where the target is a class.
    """

    features: np.ndarray
    target: np.ndarray
    feature_names: list[str]
    target_name: str

    @property
    def has_classes(self) -> bool:
        """Whether the target is a class, 0 or 1."""
        return self.target_name == "label"


def read_linear_set(path: Path, features: int | None = None) -> Table:
    """A CSV with the target in column `y` and one feature in each other column.

    Args:
        path: the CSV.
        features: how many features the caller takes; None takes any number.

    Raises:
        UserError: where the file is not of this form.
    """
    return linear_set(read_numbers(path), path, features)


def read_part(path: Path, part: int, of: int) -> Table:
    """Of a linear set the rows whose lines begin in one of so many equal parts of the file; no other line is parsed.

    Raises:
        UserError: where the file is not of this form.
    """
    line, names = next(read_rows(path))
    with path.open("rb") as stream:
        head = sum(len(stream.readline()) for _ in range(line))
        begin, end = (head + (path.stat().st_size - head) * number // of for number in (part, part + 1))
        lines = list(_lines_between(stream, begin, end))
    try:
        values = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2) if lines else np.empty((0, len(names)))
        if values.shape[1] == len(names) and (np.abs(values) <= LARGEST).all():  # not so for nan and inf
            return _split(path, Numbers(names, values), "y", least=0)
    except ValueError:
        pass
    read_linear_set(path)  # names row and column
    raise UserError(f"{path}: expected plain numbers and commas, to be read in parts; `dvc repro --force` writes them")


def _lines_between(stream: BinaryIO, begin: int, end: int) -> Iterator[str]:
    """The lines that begin in a range of a file's bytes and are not blank."""
    stream.seek(begin - 1)
    stream.readline()  # the rest of the line before; only its end where a line begins at `begin`
    while stream.tell() < end:
        if line := stream.readline().decode().strip():
            yield line


def read_clusters(path: Path, features: int | None = None) -> Table:
    """A CSV with the class in column `label`, two values of which the smaller is class 0, and features in the others.

    Raises:
        UserError: where the file is not of this form.
    """
    return clusters(read_numbers(path), path, features)


def read_own_columns(path: Path, target: str, features: Sequence[str] | None) -> Numbers:
    """The target and the features of a user's own CSV, all other columns where these are not named.

    Raises:
        UserError: where a column is not there, or a cell in one of them is no number.
    """
    header = next(read_rows(path))[1]
    for name in (target, *(features or [])):
        if name not in header:
            near = get_close_matches(name, header, n=3, cutoff=0.4) or [
                known for known in header if known.lower() == name.lower()
            ]
            hint = f"; the nearest are {', '.join(near)}" if near else ""
            raise UserError(f"{path}: no column '{name}', found {', '.join(header)}{hint}; names are case-sensitive")
    return read_numbers(path, columns=None if features is None else [*features, target])


def linear_set(numbers: Numbers, path: Path, features: int | None = None, target: str = "y") -> Table:
    """The numbers read from `path` as features and target; see `read_linear_set`."""
    table = _split(path, numbers, target)
    _expect_features(path, table, features)
    return table


def clusters(numbers: Numbers, path: Path, features: int | None = None, target: str = "label") -> Table:
    """The numbers read from `path` as features and label 0 or 1; see `read_clusters`."""
    table = _split(path, numbers, target)
    _expect_features(path, table, features)
    classes = np.unique(table.target)
    if len(classes) != 2:
        shown = ", ".join(f"{value:g}" for value in classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise UserError(f"{path}: column '{target}' must hold exactly two classes, found {len(classes)}: {shown}")
    return replace(table, target=(table.target == classes[1]).astype(float))


def read_numbers(path: Path, columns: Sequence[str] | None = None) -> Numbers:
    """A CSV of finite numbers with a header; columns in file order.

    A byte order mark, CRLF, quotes, blank lines and spaces around names and numbers are accepted.

    Args:
        path: the CSV.
        columns: those to read, which must be there; the others may hold anything. None reads all.

    Raises:
        UserError: naming file, line and column of the first cell that is not a finite number.
    """
    line, header = next(read_rows(path))
    chosen = header if columns is None else list(columns)
    places = [header.index(name) for name in chosen]
    values = _plain_numbers(path, line, len(header), places)
    if values is None:
        values = _checked_numbers(path, chosen, places)
    return Numbers(chosen, values)


def _plain_numbers(path: Path, header_line: int, width: int, places: list[int]) -> np.ndarray | None:
    """The cells at these places of every row, (rows, places), or None: look cell by cell.

    NumPy's reader converts a cell as `float` of the stripped cell does, or refuses it: 1_0, digits beyond ASCII.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream, warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # no row at all
            lines = _plain_lines(islice(stream, header_line, None), width)
            values = np.loadtxt(lines, delimiter=",", comments=None, usecols=places, ndmin=2)
    except (ValueError, UserWarning):
        return None
    return values if values.min() >= -LARGEST and values.max() <= LARGEST else None  # not so with a nan


def _plain_lines(lines: Iterable[str], width: int) -> Iterator[str]:
    """The lines that are not blank; ValueError at one whose cells are not simply what stands between its commas."""
    commas, longest = width - 1, csv.field_size_limit()
    for line in lines:
        if line.isspace():
            continue
        if line.count(",") != commas or '"' in line or len(line) > longest:
            raise ValueError(line)
        yield line


def _checked_numbers(path: Path, names: Sequence[str], places: list[int]) -> np.ndarray:
    """The same, cell by cell; a UserError names the first that is not a finite number."""
    rows = read_rows(path)
    header = next(rows)[1]
    values = array("d")
    for row, (line, cells) in enumerate(rows, start=1):
        where = f"{path}: row {row} (line {line})"
        if len(cells) != len(header):
            expected = f"{len(header)} cells as in the header ({', '.join(header)})"
            raise UserError(f"{where}: expected {expected}, found {len(cells)}; correct or remove the row")
        values.extend(_checked_row(where, names, [cells[place].strip() for place in places]))
    return np.frombuffer(values).reshape(-1, len(names))


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells, as text, of every line that is not blank; first the header, its names checked.

    Raises:
        UserError: where the file is no CSV with a header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, skipinitialspace=True, strict=True)
            lines = (cells for cells in reader if any(cell.strip() for cell in cells) or len(cells) > 1)
            try:
                header = _checked_header(path, next(lines, []))
                yield reader.line_num, header
                for cells in lines:
                    yield reader.line_num, cells
            except csv.Error as error:
                raise UserError(f"{path}: line {reader.line_num}: expected comma-separated values; {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `dvc repro` makes it") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected text in UTF-8, found a byte that is not ({error.reason}); save it as UTF-8"
        ) from None


def _checked_header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not names:
        raise UserError(f"{path}: is empty; expected a line of column names, then one line a row")
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        raise UserError(
            f"{path}: expected columns separated by commas, found the header '{names[0][:60]}'; save it with commas"
        )
    times = Counter(names)
    for position, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{path}: column {position} has no name; give each column a name in the first line")
        if not name.isprintable():
            raise UserError(
                f"{path}: the name of column {position} holds an unprintable character; give it another name"
            )
        if times[name] > 1:
            raise UserError(f"{path}: column name '{name}' stands {times[name]} times; give each column its own")
    return names


def _checked_row(where: str, names: Sequence[str], cells: list[str]) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
        if all(abs(number) <= LARGEST for number in numbers):  # not so for nan and inf
            return numbers
    except ValueError:
        pass
    name, cell = next(pair for pair in zip(names, cells, strict=True) if not _is_usable(pair[1]))
    found = f"'{cell[:40]}'" if cell else "an empty cell"
    expected = "expected a finite number" + (f" of size {LARGEST:g} at most" if _is_finite(cell) else "")
    raise UserError(
        f"{where}, column '{name}': {expected}, found {found}; correct or remove the row, or leave the column out with"
        " `features` in params.yaml"
    )


def _is_usable(cell: str) -> bool:
    try:
        return abs(float(cell)) <= LARGEST  # not so for nan and inf
    except ValueError:
        return False


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _split(path: Path, numbers: Numbers, target: str, least: int = 2) -> Table:
    names = numbers.names
    if target not in names:
        nearest = get_close_matches(target, [name.lower() for name in names], n=1)
        hint = "; names are case-sensitive" if nearest == [target] else ""
        raise UserError(f"{path}: no column '{target}', found {', '.join(names)}; name the target '{target}'{hint}")
    if len(numbers.values) < least:
        raise UserError(f"{path}: expected at least {least} rows below the header, found {len(numbers.values)}")
    if len(names) < 2:
        raise UserError(f"{path}: expected at least one feature beside '{target}', found no other column")
    place = names.index(target)
    features = np.ascontiguousarray(np.delete(numbers.values, place, axis=1))
    return Table(features, numbers.values[:, place].copy(), [name for name in names if name != target], target)


def _expect_features(path: Path, table: Table, expected: int | None) -> None:
    found = table.feature_names
    if expected is not None and len(found) != expected:
        noun = "feature" if expected == 1 else "features"
        raise UserError(
            f"{path}: expected {expected} {noun} for this experiment, found {len(found)} ({', '.join(found)});"
            " remove columns, or use an experiment that takes any number (minibatch, nn, logistic with form: general)"
        )
