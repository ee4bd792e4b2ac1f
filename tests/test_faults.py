"""Killed at any moment, `dvc repro` ends with the committed bytes, and no half-written file is ever seen."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.common.files import read_csv, read_json
from tests.clones import clone_with_cache, dvc, python_first, run, set_param

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
LONGEST = 40.0  # seconds from the start to the blow, at most; about the length of a full run
SHORT = 6.0  # likewise for the sample


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every stage is up to date; each test leaves it so."""
    return clone_with_cache(tmp_path_factory.mktemp("faults") / "project")


def start(clone: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run of `dvc repro`, in a group of its own with all that it starts."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *arguments],
        cwd=clone,
        env=python_first(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def restore_lock(clone: Path) -> None:
    """DVC writes dvc.lock in place: a blow at that moment leaves it cut off, and DVC refuses it until it is put back.

    It is the one file that needs a hand, and the one that the stages don't write.
    """
    try:
        is_whole = "stages" in yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))
    except (yaml.YAMLError, TypeError):
        is_whole = False
    if not is_whole:
        run(clone, "git", "checkout", "--quiet", "dvc.lock")


def assert_nothing_half_written(clone: Path) -> None:
    """Every file that is there can be read to its end, and there is none that a whole run would not leave."""
    for path in (clone / "reports").rglob("*.json"):
        read_json(path)
    for path in [*(clone / "reports").rglob("*.csv"), *(clone / "data").glob("*.csv")]:
        assert path.read_bytes().endswith(b"\n")
        read_csv(path)
    for path in (clone / "reports").rglob("*.svg"):
        assert path.read_text(encoding="utf-8").endswith("</svg>\n")
    assert "??" not in run(clone, "git", "status", "--porcelain")


@pytest.mark.parametrize("number", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 50))])
def test_a_run_that_is_killed_is_completed_by_the_next(clone: Path, number: int) -> None:
    chance = random.Random(number)  # noqa: S311 moments, no secrets
    process = start(clone, "--force")
    time.sleep(chance.uniform(0.5, LONGEST if number else SHORT))
    if process.poll() is None:
        os.killpg(process.pid, SIGNALS[number % 3])
    process.communicate(timeout=300)  # a Ctrl-C while a library is being imported may get lost there
    assert_nothing_half_written(clone)
    restore_lock(clone)
    dvc(clone, "repro")
    assert run(clone, "git", "status", "--porcelain") == ""
    assert not list((clone / ".tmp").iterdir()), "a temporary file is left"


def test_a_stage_killed_before_it_renames_leaves_the_old_file_and_the_next_run_no_temporary_one(clone: Path) -> None:
    stage = "import os, pathlib, sys; from stages.generate_data import main; sys.argv[1:] = ['line']; "
    kill = "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9); "
    before = (clone / "data/line.csv").read_bytes()
    run(clone, sys.executable, "-c", f"{stage}{kill}main()", code=-signal.SIGKILL)
    assert (clone / "data/line.csv").read_bytes() == before
    (left,) = (clone / ".tmp").iterdir()
    run(clone, sys.executable, "-c", f"{stage}main()")
    assert not left.exists()


@pytest.mark.slow
def test_two_runs_at_once(clone: Path) -> None:
    """One of them waits or stops with DVC's message, and the state afterwards is right."""
    set_param(clone, "train.nn.lr", 0.02)
    both = [start(clone), start(clone)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert 0 in [process.returncode for process in both]
    assert not [output for output in outputs if "Traceback" in output]
    assert "up to date" in dvc(clone, "repro")
    run(clone, "git", "checkout", "--quiet", ".")
    dvc(clone, "repro")
    assert run(clone, "git", "status", "--porcelain") == ""


IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]
FULL_DISK = """
mount -t tmpfs -o size=64m tmpfs "$1"
cp -r "$2"/. "$1"
cd "$1"
sed -i '/^  manual:/,/log_every:/s/log_every:.*/log_every: 1/' params.yaml  # a history that is too long
head -c 64M /dev/zero > filler 2> /dev/null || true
truncate --size=-8K filler  # room for DVC's own lock, whose length is that of the paths, and for nothing else
sync
"""
READ_ONLY = """
mount --bind "$2" "$1"
cd "$1"
mount --bind reports reports
mount -o remount,bind,ro reports
"""


def may_mount() -> bool:
    mount = [*IN_A_NAMESPACE, "mount -t tmpfs tmpfs /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(mount, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount a small file system of their own")
@pytest.mark.parametrize("command", ["-m stages.train.manual", "-m dvc repro --force --single-item train-manual"])
@pytest.mark.parametrize(
    ("mounts", "reason"),
    [(FULL_DISK, "No space left on device"), (READ_ONLY, "Read-only file system|cross-device")],
    ids=["full", "read-only"],
)
def test_a_place_that_cannot_be_written_ends_in_one_message(
    clone: Path, tmp_path: Path, mounts: str, reason: str, command: str
) -> None:
    script = f"{mounts}\nset +e; {sys.executable} {command}; test $? -ne 0"
    output = run(clone, *IN_A_NAMESPACE, script, "sh", str(tmp_path), str(clone))
    assert re.search(reason, output), output
    assert len(re.findall("^(?:error|ERROR): ", output, flags=re.MULTILINE)) in (1, 2), output  # the stage's, DVC's own
    assert "Traceback" not in output
    assert run(clone, "git", "status", "--porcelain") == ""
