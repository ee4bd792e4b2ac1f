"""On 64-bit ARM every stage writes the committed bytes; and random runs, beyond the defaults, what they do here."""

import sys
from pathlib import Path

import pytest

from stages.common.experiments import EXPERIMENTS
from tests import arm
from tests.clones import clone_with_data, run
from tests.conftest import ROOT
from tests.random_runs import random_run
from tools.compare import RELATIVE, SINGLE, differences

LACKS = arm.missing_tools()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKS), reason=f"ARM can't be emulated without {LACKS}")]
RANDOM_RUNS = 40
processors = pytest.mark.parametrize("processor", arm.PROCESSORS)


@processors
def test_every_stage_writes_the_committed_bytes(tmp_path: Path, processor: str) -> None:
    clone = clone_with_data(tmp_path / "clone")
    data = {path: path.read_bytes() for path in (clone / "data").glob("*.csv")}
    for path in data:
        run(clone, *arm.command(processor), "-m", "stages.generate_data", path.stem)
    for name in EXPERIMENTS:
        for stage in (f"train.{name}", f"replicate.{name}"):
            run(clone, *arm.command(processor), "-m", f"stages.{stage}")
        run(clone, *arm.command(processor), "-m", "stages.evaluate", name)
    run(clone, *arm.command(processor), "-m", "stages.report")
    assert {path: path.read_bytes() for path in data} == data
    assert run(clone, "git", "status", "--porcelain") == ""


@processors
def test_random_runs_come_out_as_here(tmp_path: Path, processor: str) -> None:
    """Equal, as the comparison has it."""
    folders = {"here": [sys.executable], "there": arm.command(processor)}
    for folder, python in folders.items():
        run(ROOT, *python, "-m", "tests.random_runs", "0", str(RANDOM_RUNS), str(tmp_path / folder))
    found = {}
    for path in sorted((tmp_path / "here").glob("seed-*/**/*.*")):
        name = path.relative_to(tmp_path / "here")
        texts = (path.read_text(encoding="utf-8"), (tmp_path / "there" / name).read_text(encoding="utf-8"))
        seed = int(name.parts[0].removeprefix("seed-"))
        bar = SINGLE if random_run(seed).settings["dtype"] == "float32" else RELATIVE
        found[name.as_posix()] = list(differences(name.name, *texts, bar))[:3] if texts[0] != texts[1] else []
    assert found
    assert {name: different for name, different in found.items() if different} == {}
