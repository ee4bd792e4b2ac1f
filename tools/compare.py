"""Compares reports/ and dvc.lock with what is committed: identical, equal within tolerance, or different.

`make reproduce` ends with it. Exit code 0 for the first two, and where inputs were edited since the commit, so that
there is nothing to compare with; 1 where results differ.

run  python -m tools.compare; with --row prints the row of docs/reproducibility.md that this machine and run give
"""

import argparse
import csv
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tools.machine import processor

RESULTS = ["reports", "dvc.lock"]
# requirements.txt is not among them: whether other versions change a result is what one wants to know
INPUTS = ["params.yaml", "dvc.yaml", "stages", "data/raw", "data/published.yaml"]
# What another processor's rounding may change in a number: at the committed settings nothing, at forty random ones 2e-6
# where a run explodes; 2e-4 in fits in single precision, which has seven digits and loses some to columns far from 0.
RELATIVE, SINGLE = 1e-5, 1e-3
RESIDUE = 1e-15  # of the largest magnitude in the number's column, or of 1: what rounding leaves of a 0
NUMBER = re.compile(r"(?<![\w.#-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")  # not within a word, a name or a colour

Difference = tuple[str, str, str]  # where, committed, found


def git(*arguments: str) -> bytes:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout


def names(output: bytes) -> list[str]:
    """The paths that a git command lists with -z."""
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def edited_inputs() -> list[str]:
    """Inputs that are not as committed, new files among them."""
    changed = names(git("diff", "--name-only", "-z", "HEAD", "--", *INPUTS))
    return changed + names(git("ls-files", "-z", "--others", "--exclude-standard", "--", *INPUTS))


def single_precision() -> set[str]:
    """The experiments whose fit is in single precision, by params.yaml."""
    params = Path("params.yaml")
    if not params.exists():
        return set()
    import yaml  # noqa: PLC0415 not needed to compare the results of other projects

    train = yaml.safe_load(params.read_text(encoding="utf-8"))["train"]
    return {name for name, settings in train.items() if settings["dtype"] == "float32"}


def bar_of(path: str, single: set[str]) -> float:
    """The relative tolerance in a file; the report and the summary hold numbers of all experiments."""
    parts = set(Path(path).with_suffix("").parts)
    of_all = not parts & {"metrics", "history", "replicates", "evaluation", "figures"}
    return SINGLE if single & parts or (single and of_all) else RELATIVE


def is_near(committed: float, found: float, scale: float, bar: float) -> bool:
    """Equal within the tolerance for a number in a column of this scale."""
    return math.isclose(committed, found, rel_tol=bar, abs_tol=RESIDUE * scale)


def differences(path: str, committed: str, found: str, bar: float = RELATIVE) -> Iterator[Difference]:
    """Where two versions of a file differ by more than the tolerance, relative to each number."""
    if path.endswith(".json"):
        yield from differences_in_json(json.loads(committed), json.loads(found), "", bar)
    elif path.endswith(".csv"):
        yield from differences_in_csv(committed, found, bar)
    else:
        yield from differences_in_text(committed, found, bar)


def differences_in_json(committed: object, found: object, where: str, bar: float) -> Iterator[Difference]:
    """Key by key; a number's scale is the number itself."""
    if isinstance(committed, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*committed, *found]):
            missing = "nothing"
            yield from differences_in_json(
                committed.get(key, missing), found.get(key, missing), f"{where}.{key}".lstrip("."), bar
            )
    elif isinstance(committed, float) and isinstance(found, float):
        if not is_near(committed, found, 1.0, bar):
            yield where, repr(committed), repr(found)
    elif committed != found:
        yield where, repr(committed), repr(found)


def differences_in_csv(committed: str, found: str, bar: float) -> Iterator[Difference]:
    """Row by row; a number's scale is the largest magnitude in its committed column."""
    old, new = (list(csv.reader(io.StringIO(text))) for text in (committed, found))
    if len(old) != len(new) or old[0] != new[0]:
        yield "header and number of rows", f"{old[0]}, {len(old) - 1}", f"{new[0]}, {len(new) - 1}"
        return
    scales = [
        max((abs(value) for value in map(as_number, column) if value is not None), default=0.0)
        for column in zip(*old[1:], strict=True)
    ]
    for row, (old_cells, new_cells) in enumerate(zip(old[1:], new[1:], strict=True), start=1):
        for name, scale, before, after in zip(old[0], scales, old_cells, new_cells, strict=True):
            numbers = as_number(before), as_number(after)
            near = None not in numbers and is_near(*numbers, scale, bar)  # type: ignore[arg-type]
            if before != after and not near:
                yield f"row {row}, column {name}", before, after


def as_number(cell: str) -> float | None:
    """The number that a cell spells."""
    try:
        return float(cell)
    except ValueError:
        return None


def differences_in_text(committed: str, found: str, bar: float) -> Iterator[Difference]:
    """Figures and prose: the words must be the same, their numbers within the tolerance or a unit of the last decimal.

    A whole number is a count, and must be the same.
    """
    if NUMBER.sub("#", committed) != NUMBER.sub("#", found):
        yield "words", f"{len(committed)} characters", f"{len(found)} characters, not only numbers differ"
        return
    for before, after in zip(NUMBER.findall(committed), NUMBER.findall(found), strict=True):
        if not math.isclose(float(before), float(after), rel_tol=bar, abs_tol=1.01 * last_decimal(before)):
            yield "a number", before, after


def last_decimal(spelled: str) -> float:
    """What a unit in its last decimal is worth; 0 for a whole number."""
    mantissa, _, exponent = spelled.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent else 0.0


def compared(single: set[str]) -> tuple[list[str], list[tuple[str, str, str, str]]]:
    """Which results are not the committed bytes, and where they differ by more than the tolerance."""
    changed = names(git("diff", "--name-only", "-z", "HEAD", "--", *RESULTS))
    new = names(git("ls-files", "-z", "--others", "--exclude-standard", "--", *RESULTS))
    found = [(name, "the file", "nothing", "a new file") for name in new]
    for name in changed:
        if name == "dvc.lock":  # hashes of the results: they follow from the rest, and mean nothing by themselves
            continue
        if not Path(name).exists():
            found.append((name, "the file", "there", "nothing"))
            continue
        texts = git("show", f"HEAD:{name}").decode(), Path(name).read_text(encoding="utf-8")
        found += [(name, *difference) for difference in differences(name, *texts, bar_of(name, single))]
    return changed, found


def verdict(changed: list[str], found: list[tuple[str, str, str, str]], single: set[str]) -> str:
    """In one line."""
    if found:
        return f"{len(found)} differences from the committed results"
    if changed == ["dvc.lock"]:
        return "identical: all results came out byte for byte; dvc.lock itself was not that of this commit, commit it"
    if changed:
        return f"equal within {SINGLE if single else RELATIVE:g}, though not byte for byte: {', '.join(changed)}"
    total = len(names(git("ls-files", "-z", "--", *RESULTS)))
    return f"identical: all {total} committed results came out byte for byte"


def row(said: str) -> str:
    """Of the table in docs/reproducibility.md: where this ran, and what came out."""
    torch, numpy = (version(package).partition("+")[0] for package in ("torch", "numpy"))
    system = " ".join([platform.system(), *platform.libc_ver()]).strip()
    return f"| {processor()}, {platform.machine()} | {system} | {torch} | {numpy} | {said} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the results with the committed ones.")
    parser.add_argument("--row", action="store_true", help="print the row of the table of machines and nothing else")
    is_row = parser.parse_args().row
    if edited := edited_inputs():
        print(f"not compared with the commit: {', '.join(edited)} {'was' if len(edited) == 1 else 'were'} edited since")
        return
    single = single_precision()
    changed, found = compared(single)
    said = verdict(changed, found, single)
    if is_row:
        print(row(said.partition(":")[0]))
        return
    for name, where, committed, now in found[:20]:
        print(f"different: {name}: {where}: committed {committed}, found {now}")
    if found:
        sys.exit(f"error: {said} (the first 20 are shown)")
    print(said)


if __name__ == "__main__":
    main()
