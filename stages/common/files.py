"""The pipeline's files: CSVs and JSON in and out.

Readers check what they read and name file, line and column. Writers go through a temporary file and a rename, so that a
half-written file is never seen, and write floats with 10 significant digits, so that the same run gives the same bytes
on every processor.
"""

import csv
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from stages.common.errors import UserError

DATA = Path("data")
PUBLISHED = Path("data/published.yaml")
METRICS = Path("reports/metrics")
HISTORY = Path("reports/history")
REPLICATES = Path("reports/replicates")
TEMPORARY = Path(".tmp")  # ignored by git and DVC, on the same file system as the outputs
DAMAGED = "expected what an earlier stage wrote, found none or a damaged file; run `dvc repro --force`"
LARGEST = 1e150  # the square of a larger number is not finite
DIGITS = 10  # significant digits of every written float


@dataclass(frozen=True)
class Table:
    """A data set: features (rows x features) and target (rows), both float64; a label is 0 or 1."""

    features: pd.DataFrame
    target: pd.Series


def parameter_names(weights: int) -> list[str]:
    """The parameters as the files call them: `w` or `w1`, `w2`, ..., then `b`."""
    return ["w", "b"] if weights == 1 else [*(f"w{j}" for j in range(1, weights + 1)), "b"]


def significant(value: float) -> float:
    """The float that is written for `value`: rounded to 10 significant digits."""
    return float(f"{value:.{DIGITS}g}")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_linear_set(path: Path, features: int | None = None) -> Table:
    """A CSV with the target in column `y` and one feature in each other column.

    Args:
        path: the CSV.
        features: how many features the caller takes; None takes any number.

    Raises:
        UserError: where the file is not of this form.
    """
    return linear_set(read_numbers(path), path, features)


def read_clusters(path: Path, features: int | None = None) -> Table:
    """A CSV with the class in column `label`, two values of which the smaller is class 0, and features in the others.

    Raises:
        UserError: where the file is not of this form.
    """
    return clusters(read_numbers(path), path, features)


def linear_set(frame: pd.DataFrame, path: Path, features: int | None = None) -> Table:
    """The numbers read from `path` as features and target `y`; see `read_linear_set`."""
    table = _split(path, frame, target="y")
    _expect_features(path, table, features)
    return table


def clusters(frame: pd.DataFrame, path: Path, features: int | None = None) -> Table:
    """The numbers read from `path` as features and label 0 or 1; see `read_clusters`."""
    table = _split(path, frame, target="label")
    _expect_features(path, table, features)
    classes = np.unique(table.target)
    if len(classes) != 2:
        shown = ", ".join(f"{value:g}" for value in classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise UserError(f"{path}: column 'label' must hold exactly two classes, found {len(classes)}: {shown}")
    return Table(table.features, (table.target == classes[1]).astype(float))


def read_numbers(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV of finite numbers with a header; columns in file order.

    A byte order mark, CRLF, quotes, blank lines and spaces around names and numbers are accepted.

    Args:
        path: the CSV.
        columns: those to read, which must be there; the others may hold anything. None reads all.

    Raises:
        UserError: naming file, line and column of the first cell that is not a finite number.
    """
    rows = read_rows(path)
    header = next(rows)[1]
    chosen = header if columns is None else columns
    places = [header.index(name) for name in chosen]
    values = array("d")
    for row, (line, cells) in enumerate(rows, start=1):
        where = f"{path}: row {row} (line {line})"
        if len(cells) != len(header):
            expected = f"{len(header)} cells as in the header ({', '.join(header)})"
            raise UserError(f"{where}: expected {expected}, found {len(cells)}; correct or remove the row")
        values.extend(_checked_numbers(where, chosen, [cells[place] for place in places]))
    return pd.DataFrame(np.frombuffer(values).reshape(-1, len(chosen)), columns=list(chosen))


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


def _checked_numbers(where: str, names: Sequence[str], cells: list[str]) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
        if all(abs(number) <= LARGEST for number in numbers):  # not so for nan and inf
            return numbers
    except ValueError:
        pass
    name, cell = next(pair for pair in zip(names, cells, strict=True) if not _is_usable(pair[1]))
    found = f"'{cell[:40]}'" if cell.strip() else "an empty cell"
    expected = "expected a finite number" + (f" of size {LARGEST:g} at most" if _is_finite(cell) else "")
    raise UserError(f"{where}, column '{name}': {expected}, found {found}; correct or remove the row")


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


def _split(path: Path, frame: pd.DataFrame, target: str) -> Table:
    if target not in frame.columns:
        nearest = get_close_matches(target, [name.lower() for name in frame.columns], n=1)
        hint = "; names are case-sensitive" if nearest == [target] else ""
        raise UserError(
            f"{path}: no column '{target}', found {', '.join(frame.columns)}; name the target '{target}'{hint}"
        )
    if len(frame) < 2:
        raise UserError(f"{path}: expected at least 2 rows below the header, found {len(frame)}")
    features = frame.drop(columns=target)
    if features.columns.empty:
        raise UserError(f"{path}: expected at least one feature beside '{target}', found no other column")
    return Table(features, frame[target])


def _expect_features(path: Path, table: Table, expected: int | None) -> None:
    found = list(table.features.columns)
    if expected is not None and len(found) != expected:
        noun = "feature" if expected == 1 else "features"
        raise UserError(
            f"{path}: expected {expected} {noun} for this experiment, found {len(found)} ({', '.join(found)});"
            " remove columns, or use an experiment that takes any number (minibatch, nn, logistic with form: general)"
        )


def read_published(experiment: str) -> dict[str, Any]:
    """What an experiment's article published: the experiment's part of data/published.yaml."""
    try:
        published: dict[str, Any] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))[experiment]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{PUBLISHED}: expected an entry for {experiment}; {error!r}") from None
    return published


def read_json(path: Path) -> Any:
    """The content of a JSON file that an earlier stage wrote.

    Raises:
        UserError: where it is not there or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path}: {DAMAGED} ({error})") from None


def read_results(path: Path, first_column: str | None = None) -> pd.DataFrame:
    """A CSV that an earlier stage wrote.

    Raises:
        UserError: where it is not there or damaged.
    """
    try:
        frame = pd.read_csv(path)
    except (FileNotFoundError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: {DAMAGED} ({error})") from None
    if frame.empty or (first_column is not None and frame.columns[0] != first_column):
        raise UserError(f"{path}: {DAMAGED}")
    return frame


# --- writing ---------------------------------------------------------------------------------------------------------


def write_csv(frame: pd.DataFrame, path: Path, *, exact: bool = False) -> None:
    """A CSV with 10 significant digits, or with every digit (`exact`) where the numbers are the user's own."""
    write_text(frame.to_csv(index=False, lineterminator="\n", float_format=None if exact else f"%.{DIGITS}g"), path)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Strict JSON with floats rounded to 10 significant digits; ValueError on NaN or Infinity."""
    write_text(json.dumps(_rounded(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n", path)


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    return significant(content) if isinstance(content, float) else content


def write_text(text: str, path: Path) -> None:
    """Writes a file whole or not at all.

    Raises:
        UserError: where the disk is full, or the folder can't be written to.
    """
    temporary = TEMPORARY / path.as_posix().replace("/", "-")
    try:
        TEMPORARY.mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: can't be written by way of {TEMPORARY}/: {error.strerror or error}; see that the disk has space,"
            " and that both folders can be written to and lie on one file system, then run `dvc repro` again"
        ) from None
