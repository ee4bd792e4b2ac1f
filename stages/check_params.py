"""Validates all of params.yaml before DVC deletes or runs anything else, and that the data fit into memory.

in   params.yaml; of the CSVs of data/raw/ that it names the size and the first lines
out  .params.ok, the marker that all data wait for, and with them all else; its content never changes, so nothing reruns
     for it
run  python -m stages.check_params
"""

import os
from pathlib import Path

from stages.common.errors import UserError, run_stage
from stages.common.params import PARAMS, load_params
from stages.common.schema import ClustersData, Data, DataSet, LinearData

MARKER = Path(".params.ok")
# What the hungriest stage, evaluate, takes beside its libraries: 75 and 375 measured on 2 to 12 million, rounded up.
BYTES_A_NUMBER = 100
BYTES_A_NUMBER_OF_CLUSTERS = 400
SAMPLE = 2**16  # bytes of a CSV, from which its rows are estimated


def refuse_what_is_too_big(data: Data, memory: int) -> None:
    """Compares what each data set needs with the machine's memory.

    Raises:
        UserError: naming every data set that needs more.
    """
    too_big = [(name, settings) for name, settings in data if bytes_needed(settings) > memory]
    if too_big:
        found = "1 problem" if len(too_big) == 1 else f"{len(too_big)} problems"
        problems = [_problem(name, settings, memory) for name, settings in too_big]
        raise UserError("\n  ".join([f"{PARAMS}: {found}; nothing was run", *problems]))


def _problem(name: str, settings: DataSet, memory: int) -> str:
    rows = "rows_per_cluster" if isinstance(settings, ClustersData) else "rows"
    found, advice = "rows that need", f"lower data.{name}.{rows}"
    if settings.file is not None:
        found = f"{settings.file} that needs"
        advice = f"name fewer features in data.{name}.features, or take fewer rows"
    return (
        f"data.{name}: expected data that fit into this machine's {memory:,} bytes of memory, found {found} some"
        f" {bytes_needed(settings):,}; {advice}"
    )


def bytes_needed(settings: DataSet) -> int:
    """Of memory, by the hungriest stage that reads the data set: its numbers times the bytes of one."""
    each = BYTES_A_NUMBER_OF_CLUSTERS if isinstance(settings, ClustersData) else BYTES_A_NUMBER
    return each * numbers_in(settings)


def numbers_in(settings: DataSet) -> int:
    """Rows times columns that are read: exact where the data are drawn, else estimated."""
    if settings.file is not None:
        return numbers_in_csv(Path(settings.file), settings.features)
    if isinstance(settings, ClustersData):
        return 2 * settings.rows_per_cluster * 3  # two coordinates and the label
    assert isinstance(settings, LinearData)
    return settings.rows * (len(settings.weights) + 1)


def numbers_in_csv(path: Path, features: list[str] | None) -> int:
    """The file's size over the mean length of its first lines, times the columns that are read."""
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE)
    lines = sample.splitlines()
    commas = max((line.count(b",") for line in lines), default=0)
    columns = 1 + (commas if features is None else len(features))
    return path.stat().st_size * len(lines) * columns // max(len(sample), 1)


def memory_of_machine() -> int | None:
    """In bytes; None where the system does not say, as on Windows."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    except (AttributeError, OSError, ValueError):
        return None


def main() -> None:
    params = load_params()
    if memory := memory_of_machine():
        refuse_what_is_too_big(params.data, memory)
    MARKER.write_text("params.yaml is valid\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
