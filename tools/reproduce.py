"""Runs every stage afresh, as many side by side as there are processors, and has DVC record the results.

`make reproduce` runs it. It does what `dvc repro --force` does one stage after the other: the graph, the commands and
the outputs to remove are DVC's own, read from dvc.yaml, and dvc.lock ends with the same bytes. Of the stages that can
start those go first that dvc.yaml gives more seconds (`meta`). Where a stage fails the others are stopped and nothing
is recorded: `dvc repro` completes what is missing.

run  python -m tools.reproduce
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import IO

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage
from tqdm import tqdm

from stages.common.errors import UserError, run_stage

POLL = 0.01  # seconds between two looks at the running stages


@dataclass
class Run:
    """A stage at work; what it prints is kept until it ends, since several print at once."""

    stage: PipelineStage
    output: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def __post_init__(self) -> None:
        self.stage.remove_outs()
        for out in self.stage.outs:
            out.fs.makedirs(out.fs.parent(out.fs_path), exist_ok=True)
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.output, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(self.stage.cmd, shell=True, start_new_session=True, **streams)  # type: ignore[call-overload]  # noqa: S602

    def stop(self) -> None:
        """Ends the stage and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace").strip()


def reproduce(repo: Repo, jobs: int) -> None:
    """Runs all stages, then records them.

    Raises:
        UserError: with what the stage printed that failed.
    """
    stages = {stage.addressing: stage for stage in repo.index.stages}
    graph = {name: {dep.addressing for dep in repo.index.graph.successors(stage)} for name, stage in stages.items()}
    order = TopologicalSorter(graph)
    order.prepare()
    ready: list[str] = []
    running: dict[str, Run] = {}
    with tqdm(total=len(stages), disable=None, bar_format="{n_fmt} of {total_fmt} stages {bar}{desc}") as progress:
        try:
            while order.is_active():
                ready = sorted([*ready, *order.get_ready()], key=lambda name: -seconds(stages[name]))
                while ready and len(running) < jobs:
                    name = ready.pop(0)
                    running[name] = Run(stages[name])
                progress.set_description_str(", ".join(running))
                for name in ended(running):
                    finish(running.pop(name))
                    order.done(name)
                    progress.update()
        finally:
            for run in running.values():
                run.stop()
    repo.commit(force=True)


def seconds(stage: PipelineStage) -> float:
    """What dvc.yaml says that a stage takes."""
    return float((stage.meta or {}).get("seconds", 1))


def ended(running: dict[str, Run]) -> list[str]:
    """Waits until a stage ends, and names all that have."""
    while not (found := [name for name, run in running.items() if run.process.poll() is not None]):
        time.sleep(POLL)
    return found


def finish(run: Run) -> None:
    """Shows what a stage has printed."""
    if run.process.returncode:
        raise UserError(f"{run.stage.addressing} failed, nothing was recorded:\n{run.printed}")
    tqdm.write(run.printed or run.stage.addressing)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        repo = Repo()
        with lock_repo(repo):
            reproduce(repo, jobs=len(os.sched_getaffinity(0)))
    except DvcException as error:  # dvc.yaml or params.yaml can't be read, or another dvc is at work
        raise UserError(str(error)) from None


if __name__ == "__main__":
    run_stage(main)
