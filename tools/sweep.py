"""Sweeps manual's learning rate against its seed in DVC's queue, and draws the final loss over the learning rate.

`make sweep` runs it. Every combination is an experiment of its own, sweep1-1, sweep1-2, ..., which `dvc exp show` lists
and `dvc exp apply` brings back. Beside the losses found the figure shows theory's, and the learning rate 2/lambda_max
above which descent on these data diverges.

in   params.yaml, as it is in the folder: all settings but the two that are swept, and stop_below, which is null here
out  sweep/manual.csv, sweep/manual.svg; not in git
run  python -m tools.sweep --lr 0.01,0.1,0.9 --seed 1,2
"""

import argparse
import json
import re
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from tqdm import tqdm

from stages.common import theory
from stages.common.errors import UserError, run_stage
from stages.common.evidence import FACTOR
from stages.common.figures import BLUE, HOUSE, INK, ORANGE, RED, VISIBLE_LOSS, as_svg
from stages.common.files import DATA, Table, read_linear_set, write_csv, write_text
from stages.common.params import ManualTraining, load_group

FOLDER = Path("sweep")
JOBS = 2
POLL = 2.0  # seconds between two looks at the queue
PATIENCE = 30  # looks without a worker at work before new workers are started
MARKERS = "osD^vP"
SMALLEST = 1e-16  # losses below it are rounding, and recorded as 0; drawn at it


def dvc(*arguments: str) -> str:
    """What a dvc command prints.

    Raises:
        UserError: with DVC's own message where it fails.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments)} failed:\n{done.stderr.strip()}")
    return done.stdout


def states() -> dict[str, str]:
    """What the queue says of each experiment in it: Queued, Running, Success or Failed."""
    rows = (line.split() for line in dvc("queue", "status").splitlines())
    return {row[1]: row[-1] for row in rows if row and row[-1] in ("Queued", "Running", "Success", "Failed")}


def enqueue(lrs: str, seeds: str) -> list[str]:
    """Queues one experiment for each combination; gives their names: sweep1-1, sweep1-2, and so on.

    Raises:
        UserError: where others wait in the queue, which the workers would run as well.
    """
    queue = states()
    if waiting := [name for name, state in queue.items() if state in ("Queued", "Running")]:
        raise UserError(
            f"DVC's queue holds {', '.join(waiting)}; let it finish (`dvc queue start`), or empty it (`dvc queue remove"
            " --queued`), then sweep"
        )
    earlier = re.findall(r"\bsweep(\d+)-\d+\b", dvc("exp", "list", "--name-only") + " ".join(queue))
    name = f"sweep{1 + max(map(int, earlier), default=0)}"
    changes = f"lr=choice({lrs})", f"seed=choice({seeds})", "stop_below=null"
    settings = [part for change in changes for part in ("-S", f"train.manual.{change}")]
    output = dvc("exp", "run", "--queue", "--name", name, *settings, "train-manual")
    return re.findall(rf"\b{name}-\d+\b", output)


def start_workers() -> None:
    """Starts DVC's background workers; its output is not read, since they would keep the pipe open."""
    command = [sys.executable, "-m", "dvc", "queue", "start", "--quiet", "--jobs", str(JOBS)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        raise UserError("DVC's workers can't be started; `dvc queue start` shows why")


def work_off(names: list[str]) -> None:
    """Runs the queued experiments, two at a time, and stops the workers, which would otherwise linger.

    Raises:
        UserError: naming the experiments that failed, or that somebody took out of the queue.
    """
    idle, found = 0, states()
    try:
        start_workers()
        with tqdm(total=len(names), desc="experiments", disable=None) as progress:
            while pending := [name for name in names if found.get(name) in ("Queued", "Running")]:
                time.sleep(POLL)
                found = states()
                done = len(names) - len(pending)
                progress.update(done - progress.n)
                idle = 0 if "Running" in found.values() else idle + 1
                if idle == PATIENCE:
                    start_workers()
                    idle = 0
    finally:
        dvc("queue", "stop")
        if queued := [name for name, state in found.items() if name in names and state == "Queued"]:
            dvc("queue", "remove", *queued)
    if failed := [name for name in names if found.get(name) != "Success"]:
        raise UserError(f"{', '.join(failed)} did not end well; `dvc queue logs {failed[0]}` shows why")


def results(names: list[str]) -> pd.DataFrame:
    """One row an experiment: `name`, `lr`, `seed`, `loss`, `stopped`, and the start `w`, `b`.

    Raises:
        UserError: where DVC has not kept them.
    """
    rows = []
    for group in json.loads(dvc("exp", "show", "--json"))[1:]:
        for experiment in group["experiments"] or []:
            found = experiment["revs"][0]
            if found["name"] in names:
                train = found["data"]["params"]["params.yaml"]["data"]["train"]["manual"]
                metrics = found["data"]["metrics"]["reports/metrics/manual.json"]["data"]
                values = {"lr": train["lr"], "seed": train["seed"], "loss": metrics["loss"]}
                rows.append({"name": found["name"], **values, "stopped": metrics["stopped"], **metrics["initial"]})
    if len(rows) < len(names):
        raise UserError(
            f"expected {len(names)} experiments of this commit, found {len(rows)}; a shallow clone keeps none of the"
            " queue's (`git fetch --unshallow`), and a commit made meanwhile hides them (`dvc exp list --all` has them)"
        )
    return pd.DataFrame(rows).sort_values(["lr", "seed"], ignore_index=True)


def predicted_loss(table: Table, start: np.ndarray, settings: ManualTraining, lr: float) -> float:
    """Theory's loss after all iterations, from a start (w, b)."""
    course = theory.full_batch_course(
        table.features.to_numpy(),
        table.target.to_numpy(),
        start,
        lr=lr,
        iterations=np.array([settings.iterations]),
        factor=FACTOR["manual"],
        accumulate=not settings.zero_grad,
        standardize=settings.standardize,
    )
    return float(course.loss[0])


def figure(found: pd.DataFrame, table: Table, settings: ManualTraining) -> str:
    """The final losses over lr as points, theory's as lines, one style a seed, and the limit of stability, as SVG."""
    curvature = theory.curvature(theory.hessian(fitted_features(table, settings), FACTOR["manual"]))
    limit = curvature.stable_lr if settings.zero_grad else curvature.accumulating_lr
    rates = np.geomspace(found["lr"].min() / 1.5, max(found["lr"].max(), limit) * 1.2, 400)
    with mpl.rc_context(fname=HOUSE):
        drawing = Figure(figsize=(6.4, 4))
        axes = drawing.subplots()
        axes.set(xscale="log", yscale="log", xlabel="learning rate lr", ylabel="loss over all rows, at the end")
        axes.set_ylim(SMALLEST / 10, VISIBLE_LOSS * 10)
        axes.axvline(limit, color=RED, linestyle="--", label=f"predicted limit of stability, {limit:.3g}")
        styles = zip(cycle(MARKERS), cycle((BLUE, ORANGE, INK)))
        for (seed, runs), (marker, color) in zip(found.groupby("seed"), styles, strict=False):
            start = runs[["w", "b"]].to_numpy()[0]
            predicted = [predicted_loss(table, start, settings, lr) for lr in rates]
            axes.plot(rates, visible(np.array(predicted)), color=color, linewidth=1, alpha=0.6)
            losses = visible(runs["loss"].to_numpy())
            axes.scatter(runs["lr"], losses, marker=marker, facecolors="none", edgecolors=color, label=f"seed {seed}")
        axes.plot([], [], color=INK, linewidth=1, alpha=0.6, label="theory, in the colour of its seed")
        axes.set_yticks(
            [10.0**k for k in range(-16, 13, 4)], [*(f"$10^{{{k}}}$" for k in range(-16, 9, 4)), r"$\geq 10^{12}$"]
        )
        axes.yaxis.set_minor_locator(NullLocator())
        drawing.legend(loc="outside upper left", ncols=2)
        return as_svg(drawing)


def fitted_features(table: Table, settings: ManualTraining) -> np.ndarray:
    """The features as the fit sees them, (rows, 1)."""
    features = table.features.to_numpy()
    return (features - features.mean(0)) / features.std(0) if settings.standardize else features


def visible(loss: np.ndarray) -> np.ndarray:
    """Losses kept within the figure: 0 at the smallest, divergence at the top."""
    return np.clip(np.nan_to_num(loss, nan=np.inf), SMALLEST, VISIBLE_LOSS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sweeps train.manual.lr against train.manual.seed.")
    parser.add_argument("--lr", required=True, help="learning rates, separated by commas")
    parser.add_argument("--seed", required=True, help="seeds, separated by commas")
    arguments = parser.parse_args()
    dvc("repro", "generate-data@line")
    table = read_linear_set(DATA / "line.csv", features=1)
    if theory.least_squares(table.features.to_numpy(), table.target.to_numpy()) is None:
        raise UserError("data/line.csv: the feature is constant, so that theory predicts nothing; take other data")
    names = enqueue(arguments.lr, arguments.seed)
    work_off(names)
    found = results(names)
    write_csv(found, FOLDER / "manual.csv")
    write_text(figure(found, table, load_group("train.manual", ManualTraining)), FOLDER / "manual.svg")
    print(found[["name", "lr", "seed", "loss", "stopped"]].to_string(index=False))
    print(f"The figure: {FOLDER / 'manual.svg'}, the table: {FOLDER / 'manual.csv'}")


if __name__ == "__main__":
    run_stage(main)
