"""Killed at any moment, `dvc repro` ends with the committed bytes, and no half-written file is ever seen."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.clones import clone_into, dvc, python_first, run, set_param

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
LONGEST = 40.0  # seconds from the start to the blow, at most; about the length of a full run
SHORT = 8.0  # likewise for the sample


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = clone_into(tmp_path_factory.mktemp("faults") / "project")
    dvc(clone, "repro")
    assert run(clone, "git", "status", "--porcelain") == ""
    return clone


def strike(clone: Path, seconds: float, blow: signal.Signals) -> None:
    """A full run, hit with all its children after so many seconds."""
    with (clone.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--force"],
            cwd=clone,
            env=python_first(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, blow)
        process.wait(timeout=300)  # a Ctrl-C while a library is being imported may get lost there


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
    """Every file that is there can be read to its end."""
    for path in (clone / "reports").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in [*(clone / "reports").rglob("*.csv"), *(clone / "data").glob("*.csv")]:
        assert path.read_text(encoding="utf-8").endswith("\n")
        assert not pd.read_csv(path).empty
    for path in (clone / "reports").rglob("*.svg"):
        assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    names = {path.name for folder in ("reports", "data") for path in (clone / folder).rglob("*") if path.is_file()}
    listed = run(clone, "git", "ls-files", "reports", "data").splitlines()
    committed = {Path(name).name for name in listed}
    assert names <= committed | {f"{name}.csv" for name in ("line", "noisy_line", "plane", "stream", "clusters")}


@pytest.mark.parametrize(
    ("number", "longest"),
    [*((k, SHORT) for k in range(3)), *(pytest.param(k, LONGEST, marks=pytest.mark.slow) for k in range(50))],
)
def test_a_run_that_is_killed(clone: Path, number: int, longest: float) -> None:
    chance = random.Random(number)  # noqa: S311 moments, no secrets
    strike(clone, chance.uniform(0.5, longest), SIGNALS[number % 3])
    assert_nothing_half_written(clone)
    restore_lock(clone)
    dvc(clone, "repro")
    assert run(clone, "git", "status", "--porcelain") == ""
    assert not list((clone / ".tmp").iterdir()), "a temporary file is left"


@pytest.mark.slow
def test_two_runs_at_once(clone: Path) -> None:
    """One of them waits or stops with DVC's message, and the state afterwards is right."""
    set_param(clone, "train.nn.lr", 0.02)
    command = [sys.executable, "-m", "dvc", "repro"]
    both = [
        subprocess.Popen(
            command, cwd=clone, env=python_first(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert 0 in [process.returncode for process in both]
    assert not [output for output in outputs if "Traceback" in output]
    assert "up to date" in dvc(clone, "repro")
    run(clone, "git", "checkout", "--quiet", ".")
    dvc(clone, "repro")
    assert run(clone, "git", "status", "--porcelain") == ""


IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]


def may_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*IN_A_NAMESPACE, "mount -t tmpfs tmpfs /mnt"], check=False).returncode == 0


FULL_DISK = """
mount -t tmpfs -o size=64m tmpfs "$1"
cp -r "$2"/. "$1"
cd "$1"
git status --porcelain
head -c 64M /dev/zero > filler 2> /dev/null || true
sync
"""
READ_ONLY = """
mount --bind "$2" "$1"
cd "$1"
mount --bind reports reports
mount -o remount,bind,ro reports
"""


@pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount a small file system of their own")
@pytest.mark.parametrize(
    ("mounts", "reason"), [(FULL_DISK, "No space left on device"), (READ_ONLY, "Read-only file system|cross-device")]
)
@pytest.mark.parametrize("command", ["-m stages.train_manual", "-m dvc repro --force --single-item train-manual"])
def test_a_place_that_cannot_be_written_ends_in_one_message(
    clone: Path, tmp_path: Path, mounts: str, reason: str, command: str
) -> None:
    script = f"{mounts}\nset +e; {sys.executable} {command}; test $? -ne 0"
    output = run(clone, *IN_A_NAMESPACE, script, "sh", str(tmp_path), str(clone))
    assert re.search(reason, output), output
    assert len(re.findall("^(?:error|ERROR): ", output, flags=re.MULTILINE)) in (1, 2), output  # the stage's, DVC's own
    assert "Traceback" not in output
    assert run(clone, "git", "status", "--porcelain") == ""
