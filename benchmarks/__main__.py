"""Times the pipeline and its parts in turn with the bare programs of the articles, and writes a table of the ratios.

Absolute times differ between machines and from one minute to the next; a ratio is of two commands that ran one after
the other. Everything runs in a clone of the last commit in a temporary folder.

out  docs/benchmarks.md, docs/benchmarks.svg
run  make bench; ten minutes or so, in which nothing else should run
"""

import os
import platform
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.figure import Figure
from tqdm import tqdm

from stages.common.experiments import EXPERIMENTS
from stages.common.files import write_text
from stages.evaluate.figures import AXIS, BLUE, RED, STYLE, as_svg
from tools.machine import processor

ROUNDS = 3
DOCS = Path("docs")
BARE = {name: f"python benchmarks/bare/{name}.py" for name in EXPERIMENTS}
RUN, COMMIT = "make reproduce's run", "dvc commit --force"
IMPORT = "python -c 'import torch'"


@dataclass(frozen=True)
class Comparison:
    """Two things that are timed in turn.

    Attributes:
        name: of the first.
        commands: what it runs, one after the other.
        beside: the name of the second.
        others: what that one runs.
        bar: the ratio that is aimed at, at most.
        before: a command to run before each of the first, untimed.
        prints: whether the commands print what they take, instead of being timed as a whole.
    """

    name: str
    commands: list[str]
    beside: str
    others: list[str]
    bar: float
    before: str = ""
    prints: bool = False


def comparisons() -> list[Comparison]:
    """All of them; the bar of the whole run depends on the number of processors."""
    six, torch = ("the six bare programs", list(BARE.values())), ("import torch", [IMPORT])
    edit, quiet = "python -m benchmarks.edit", ["dvc repro --quiet"]
    found = [
        Comparison(RUN, ["python -m tools.reproduce"], *six, 0.8 if processors() >= 4 else 1.15),
        Comparison("dvc repro --force", ["dvc repro --force --quiet"], *six, 2.1),
        Comparison("edit of train.nn.lr, dvc repro", quiet, "bare nn", [BARE["nn"]], 2.6, before=edit),
        Comparison("dvc repro, nothing to do", quiet, *torch, 1.0, before="dvc repro --quiet"),
        Comparison("dvc status", ["dvc status --quiet"], *torch, 1.0),
        Comparison(COMMIT, [f"{COMMIT} --quiet"], *torch, 1.5),
    ]
    found.append(Comparison("check-params", ["python -m stages.check_params"], *torch, 0.2))
    for data_set in dict.fromkeys(experiment.data_set for experiment in EXPERIMENTS.values()):
        found.append(
            Comparison(f"generate-data {data_set}", [f"python -m stages.generate_data {data_set}"], *torch, 0.3)
        )
    for name, bare in BARE.items():
        found.append(Comparison(f"train {name}", [f"python -m stages.train.{name}"], f"bare {name}", [bare], 1.0))
    for name in EXPERIMENTS:
        found.append(Comparison(f"replicate {name}", [f"python -m stages.replicate.{name}"], *torch, 0.6))
    for name in EXPERIMENTS:
        found.append(Comparison(f"evaluate {name}", [f"python -m stages.evaluate {name}"], *torch, 1.0))
    found.append(Comparison("report", ["python -m stages.report"], *torch, 0.6))
    for name in ("manual", "nn", "shared"):
        ours, theirs = ([f"python -m benchmarks.steps {name} {kind}"] for kind in ("stage", "bare"))
        found.append(Comparison(f"a step of {name}", ours, "of the bare loop", theirs, 1.1, prints=True))
    return found


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def seconds(commands: list[str], folder: str, *, prints: bool) -> float:
    """What commands take, one after the other."""
    start = time.perf_counter()
    printed = [
        subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True, text=True).stdout
        for command in commands
    ]
    return float(printed[-1]) / 1e6 if prints else time.perf_counter() - start


@dataclass(frozen=True)
class Timing:
    """The seconds of both things of a comparison, round by round."""

    comparison: Comparison
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Round by round, ascending."""
        return sorted(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))


def timed(comparison: Comparison, folder: str) -> Timing:
    """Runs both in turn."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        if comparison.before:
            seconds([comparison.before], folder, prints=False)
        ours.append(seconds(comparison.commands, folder, prints=comparison.prints))
        theirs.append(seconds(comparison.others, folder, prints=comparison.prints))
    return Timing(comparison, ours, theirs)


def table(timings: list[Timing]) -> str:
    """The results as a page of docs/."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "dvc", "numpy", "matplotlib"))
    rows = [
        f"| {t.comparison.name} | {median(t.ours):.3g} | {t.comparison.beside} | {median(t.theirs):.3g}"
        f" | {median(t.ratios):.2f} | {t.ratios[0]:.2f} to {t.ratios[-1]:.2f} | {t.comparison.bar:g} |\n"
        for t in timings
    ]
    return f"""\
# How fast it is

Made by `make bench`: each command in turn with what stands beside it, which is the article's program as plain as the
article has it (`benchmarks/bare/`), or `import torch`, which every fit needs. Times differ from machine to machine; the
ratio is what counts. Seconds are medians; those of a step are of one iteration of the loop.

{processor()}, {processors()} processors used; Python {platform.python_version()}, {packages}; {ROUNDS} rounds.

| what | seconds | beside | seconds | ratio | of the rounds | aim |
|---|---|---|---|---|---|---|
{"".join(rows)}
![The ratios](benchmarks.svg)

## Where the seconds of a full run go

{budget(timings)}"""


def budget(timings: list[Timing]) -> str:
    """The seconds of each kind of stage, on one processor, beside those of the whole run."""
    taken = {t.comparison.name: median(t.ours) for t in timings}
    lines, total = "", 0.0
    for kind in ("check-params", "generate-data", "train", "replicate", "evaluate", "report"):
        stages = [spent for name, spent in taken.items() if name.split()[0] == kind]
        lines += f"| {kind} | {len(stages)} | {sum(stages):.3g} |\n"
        total += sum(stages)
    torch = len(BARE) * next(median(t.theirs) for t in timings if t.comparison.others == [IMPORT])
    return f"""\
Of the fits' seconds some {torch:.2g} are `import torch`. `make reproduce` runs stages side by side that don't wait for
each other, {processors()} at a time here, and takes {taken[RUN]:.3g} in all, with DVC's start and its record of
the results; `dvc commit --force` alone takes {taken[COMMIT]:.2g}. Plain `dvc repro --force` records after each stage.

| stages | count | seconds |
|---|---|---|
{lines}| all | | {total:.3g} |
"""


def picture(timings: list[Timing]) -> str:
    """The ratios with their spread and the aims, as SVG."""
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(7.2, 0.24 * len(timings) + 1))
        axes = figure.subplots()
        for place, t in enumerate(timings):
            axes.plot([t.ratios[0], t.ratios[-1]], [place, place], color=AXIS, linewidth=1.5)
            axes.plot(median(t.ratios), place, "o", color=BLUE, label="measured" if place == 0 else None)
            axes.plot(
                t.comparison.bar, place, "|", color=RED, markersize=11, label="aim, at most" if place == 0 else None
            )
        names = [f"{t.comparison.name} : {t.comparison.beside}" for t in timings]
        axes.set_yticks(range(len(timings)), names)
        axes.set(xlabel="ratio of the times", xlim=(0, None), ylim=(len(timings) - 0.4, -0.6))
        figure.legend(loc="outside upper right", ncols=2)
        return as_svg(figure, "benchmarks")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds([f"git clone --quiet . {folder}"], ".", prints=False)
        seconds(["dvc repro --quiet"], folder, prints=False)
        timings = [timed(comparison, folder) for comparison in tqdm(comparisons(), disable=None)]
    page = table(timings)
    write_text(page, DOCS / "benchmarks.md")
    write_text(picture(timings), DOCS / "benchmarks.svg")
    print(page)


if __name__ == "__main__":
    main()
