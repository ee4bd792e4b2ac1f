"""Sweeps manual's learning rate against its seed, and draws the final loss over the learning rate.

`make sweep` runs it: the stage's own `fit`, once for each combination; the pipeline's results stay as they are. The
figure shows theory's losses beside those found, and the learning rate above which descent on these data diverges.

in   data/line.csv; params.yaml: train.manual, less lr, seed and stop_below, which is null here
out  sweep/manual.csv, sweep/manual.svg; not in git
run  python -m tools.sweep --lr 0.01,0.1,0.9 --seed 1,2
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pydantic import ValidationError
from tqdm import tqdm

from stages.common.errors import UserError, run_stage
from stages.common.experiments import EXPERIMENTS
from stages.common.files import DATA, write_csv, write_text
from stages.common.params import load_group
from stages.common.schema import ManualTraining
from stages.common.tables import Table, read_linear_set
from stages.evaluate.figures import BLUE, INK, ORANGE, RED, STYLE, VISIBLE_LOSS, as_svg
from stages.theory.bowl import Bowl
from stages.theory.models import model_named
from stages.train.manual import fit
from stages.train.recorder import Fit
from stages.train.start import as_tensors, use_one_deterministic_thread

FOLDER = Path("sweep")
SMALLEST = 1e-16  # losses below it are rounding, and recorded as 0; drawn at it

Fits = dict[tuple[float, int], Fit]  # by learning rate and seed


def sweep(table: Table, settings: ManualTraining, rates: Sequence[str], seeds: Sequence[str]) -> Fits:
    """A fit for each combination, recorded at its start and end only; as many side by side as there are cores.

    Raises:
        UserError: where params.yaml could not hold one of the learning rates or seeds.
    """
    common = {**settings.model_dump(), "stop_below": None, "log_every": settings.iterations}
    try:
        chosen = [ManualTraining(**{**common, "lr": lr, "seed": seed}) for lr in rates for seed in seeds]
    except ValidationError as error:
        problem = error.errors()[0]
        expected = problem["msg"].replace("Input should be", "expected")
        raise UserError(f"{problem['loc'][0]}: {expected}, found {problem['input']!r}; nothing was run") from None
    with ProcessPoolExecutor(initializer=use_one_deterministic_thread) as cores:
        fits = cores.map(partial(fit_one, table), chosen)
        found = list(tqdm(fits, total=len(chosen), desc="fits", disable=None, leave=False))
    return {(one.lr, one.seed): one_fit for one, one_fit in zip(chosen, found, strict=True)}


def fit_one(table: Table, settings: ManualTraining) -> Fit:
    """As the stage makes it."""
    return fit(*as_tensors(table), settings, torch.Generator().manual_seed(settings.seed))


def columns(fits: Fits) -> dict[str, list[object]]:
    """One row a fit: what was set, how it ended, and its last state."""
    rows = [
        {"lr": lr, "seed": seed, "stopped": found.stopped, **{name: cells[-1] for name, cells in found.history.items()}}
        for (lr, seed), found in sorted(fits.items())
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def predicted_loss(bowl: Bowl, start: np.ndarray, settings: ManualTraining, lr: float) -> float:
    """Theory's loss after all iterations, from a start (w, b)."""
    course = bowl.course(start, np.array([settings.iterations]), lr=lr, accumulate=not settings.zero_grad)
    if course is None:
        raise UserError("data/line.csv: the feature is constant, so that theory predicts nothing; take other data")
    return float(course.loss[0])


def bowl_of(table: Table, settings: ManualTraining) -> Bowl:
    """The loss that the fits descend."""
    model = model_named(EXPERIMENTS["manual"].model, EXPERIMENTS["manual"].factor, settings.model_dump())
    bowl = model.bowl(table.features, table.target, standardize=settings.standardize)
    assert bowl is not None  # a line's loss is quadratic
    return bowl


def figure(fits: Fits, settings: ManualTraining, bowl: Bowl) -> str:
    """The final losses over lr as points, theory's as lines, one style a seed, and the limit of stability, as SVG."""
    limit = bowl.curvature.stable_lr if settings.zero_grad else bowl.curvature.accumulating_lr
    rates, seeds = (sorted(set(values)) for values in zip(*fits, strict=True))
    grid = np.geomspace(rates[0] / 1.5, max(rates[-1], limit) * 1.2, 400)
    with mpl.rc_context(fname=STYLE):
        drawing = Figure(figsize=(6.4, 4))
        axes = drawing.subplots()
        axes.set(xscale="log", yscale="log", xlabel="learning rate lr", ylabel="loss over all rows, at the end")
        axes.set_ylim(SMALLEST / 10, VISIBLE_LOSS * 10)
        axes.axvline(limit, color=RED, linestyle="--", label=f"predicted limit of stability, {limit:.3g}")
        for seed, marker, color in zip(seeds, cycle("osD^vP"), cycle((BLUE, ORANGE, INK)), strict=False):
            start = np.array(list(fits[rates[0], seed].parameters(row=0).values()))
            predicted = [predicted_loss(bowl, start, settings, lr) for lr in grid]
            axes.plot(grid, visible(predicted), color=color, linewidth=1, alpha=0.6)
            losses = visible([fits[lr, seed].history["loss"][-1] for lr in rates])
            axes.scatter(rates, losses, marker=marker, facecolors="none", edgecolors=color, label=f"seed {seed}")
        axes.plot([], [], color=INK, linewidth=1, alpha=0.6, label="theory, in the colour of its seed")
        decades = range(-16, 13, 4)
        axes.set_yticks([10.0**k for k in decades], [f"$10^{{{k}}}$" if k < 12 else r"$\geq 10^{12}$" for k in decades])
        axes.yaxis.set_minor_locator(NullLocator())
        drawing.legend(loc="outside upper left", ncols=2)
        return as_svg(drawing, "sweep")


def visible(loss: Sequence[float]) -> np.ndarray:
    """Losses kept within the figure: 0 at the smallest, divergence at the top."""
    return np.clip(np.nan_to_num(loss, nan=np.inf), SMALLEST, VISIBLE_LOSS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sweeps train.manual.lr against train.manual.seed.")
    parser.add_argument("--lr", required=True, help="learning rates, separated by commas")
    parser.add_argument("--seed", required=True, help="seeds, separated by commas")
    arguments = parser.parse_args()
    settings = load_group("train.manual", ManualTraining)
    table = read_linear_set(DATA / "line.csv", features=1)
    fits = sweep(table, settings, arguments.lr.split(","), arguments.seed.split(","))
    write_csv(columns(fits), FOLDER / "manual.csv")
    write_text(figure(fits, settings, bowl_of(table, settings)), FOLDER / "manual.svg")
    for (lr, seed), found in sorted(fits.items()):
        print(f"lr {lr:<8g} seed {seed:<4} loss {found.history['loss'][-1]:<12.6g} {found.stopped}")
    print(f"The figure: {FOLDER / 'manual.svg'}, the table: {FOLDER / 'manual.csv'}")


if __name__ == "__main__":
    run_stage(main)
