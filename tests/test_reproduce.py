"""All stages side by side, in small projects of shell commands."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clones import dvc, python_first, run
from tests.conftest import ROOT

# a and b can start at once; c, which takes longest, as well; d reads a and b
STAGES = {
    "a": {"cmd": "echo a >> log; cp in a", "deps": ["in"], "outs": ["a"]},
    "b": {"cmd": "echo b >> log; cp in b", "deps": ["in"], "outs": ["b"]},
    "c": {"cmd": "echo c >> log; cp in c", "deps": ["in"], "outs": ["c"], "meta": {"seconds": 9}},
    "d": {"cmd": "echo d >> log; cat a b > d; echo made d", "deps": ["a", "b"], "outs": ["d"]},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", STAGES)


def make_project(folder: Path, stages: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "in").write_text("1\n", encoding="utf-8")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    dvc(folder, "init", "--quiet")
    return folder


def reproduce(folder: Path, *, code: int = 0, cores: str = "0") -> str:
    """What the runner prints in a project, on these processors."""
    command = ["taskset", "-c", cores, sys.executable, "-m", "tools.reproduce"]
    return run(folder, *command, code=code, environment={"PYTHONPATH": str(ROOT)})


def test_every_stage_runs_once_after_those_it_reads_and_the_longest_first(project: Path) -> None:
    assert "made d" in reproduce(project)
    assert (project / "log").read_text().split() == ["c", "a", "b", "d"]


def test_dvc_finds_all_up_to_date_and_dvc_lock_as_its_own_run_leaves_it(project: Path) -> None:
    dvc(project, "repro")
    lock = (project / "dvc.lock").read_bytes()
    (project / "a").write_text("edited by hand\n")
    reproduce(project)
    assert (project / "dvc.lock").read_bytes() == lock
    assert "up to date" in dvc(project, "status")


def test_outputs_are_removed_before_a_stage_runs(tmp_path: Path) -> None:
    command = "test ! -e out && mkdir -p made/here && echo 1 > out"
    folder = make_project(tmp_path / "project", {"a": {"cmd": command, "outs": ["out"]}})
    (folder / "out").write_text("old\n")
    reproduce(folder)


def test_a_stage_that_fails_ends_the_others_with_its_message_and_nothing_is_recorded(tmp_path: Path) -> None:
    failing = {"cmd": "sleep 1; echo what went wrong >&2; exit 3", "outs": ["x"]}
    slow = {"cmd": "sleep 60; echo 1 > y", "outs": ["y"]}
    folder = make_project(tmp_path / "project", {"failing": failing, "slow": slow})
    start = time.monotonic()
    output = reproduce(folder, code=1, cores="0-1")
    assert "error: failing failed, nothing was recorded:\nwhat went wrong" in output
    assert time.monotonic() - start < 40
    assert not (folder / "dvc.lock").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_running(tmp_path: Path, how: signal.Signals) -> None:
    folder = make_project(tmp_path / "project", {"slow": {"cmd": "echo $$ > ../pid; sleep 60 & wait", "outs": ["y"]}})
    environment = {**python_first(), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.reproduce"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    while not (pid := tmp_path / "pid").exists() or not pid.read_text().strip():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (130, 143)
    assert "Traceback" not in errors
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    group = [
        state for line in listed.splitlines() for leader, state in [line.split()] if leader == pid.read_text().strip()
    ]
    assert not [state for state in group if not state.startswith("Z")]


def test_a_second_run_at_the_same_time_says_that_dvc_is_busy(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", {"slow": {"cmd": "touch ../started; sleep 8; touch y", "outs": ["y"]}})
    environment = {**python_first(), "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-m", "tools.reproduce"], cwd=folder, env=environment)
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    assert "error: " in reproduce(folder, code=1)
    assert first.wait(timeout=60) == 0
