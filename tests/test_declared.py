"""Declared = true: the files that a stage opens while it runs are those that dvc.yaml says it reads and writes."""

import json
import sys
from pathlib import Path

import pytest

from tests.clones import clone_with_data, run
from tests.test_graph import STAGES, declared_files

# Reports every file below the project that is opened while a module runs as __main__, with its mode.
OBSERVER = """
import json, os, runpy, sys
root, log, module = os.getcwd() + os.sep, sys.argv[1], sys.argv[2]
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.abspath(os.fspath(arguments[0]))
        flags = arguments[2] or 0
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or "w" in str(arguments[1])
        if path.startswith(root):
            opened.append((path[len(root):].replace(os.sep, "/"), writes))
    elif event == "os.rename":
        opened.append((os.path.abspath(os.fspath(arguments[1]))[len(root):].replace(os.sep, "/"), True))
sys.addaudithook(hook)
sys.argv = [module, *sys.argv[3:]]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    json.dump(opened, open(log, "w"))
"""

# Read only where a setting asks for them, or never: the marker is there to come first.
SOMETIMES = {".params.ok", "data/raw", "data/published.yaml"}


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_with_data(tmp_path_factory.mktemp("declared") / "project")


def observed(clone: Path, stage: str) -> tuple[set[str], set[str]]:
    """The project's files that a stage reads and writes; caches of compiled code left out."""
    log = clone.parent / "opened.json"
    command = STAGES[stage].cmd.split()[2:]  # python -m ...
    run(clone, sys.executable, "-c", OBSERVER, str(log), *command)
    opened = [
        (path, writes) for path, writes in json.loads(log.read_text(encoding="utf-8")) if "__pycache__" not in path
    ]
    writes = {path for path, is_written in opened if is_written and not path.startswith(".tmp/")}
    reads = {path for path, is_written in opened if not is_written and not path.startswith(".tmp/")} - writes
    return reads, writes


SAMPLE = ["check-params", "generate-data@line", "replicate@manual"]


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage in SAMPLE else [pytest.mark.slow]) for stage in STAGES]
)
def test_a_stage_opens_what_it_declares(clone: Path, stage: str) -> None:
    reads, writes = observed(clone, stage)
    declared = declared_files(stage) | {"params.yaml"}
    assert reads <= declared, "read, but not declared"
    optional = SOMETIMES | (
        {path for path in declared if path.startswith("data/")} if stage.startswith("replicate") else set()
    )
    assert declared - optional <= reads, "declared, but not read"
    assert writes == {str(out.def_path) for out in STAGES[stage].outs}
