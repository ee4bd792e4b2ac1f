"""Whether what the fit wrote down is so: its parameters, its losses, how it ended, its accuracy.

Each is computed once more from the data and the settings, and compared to the digits that the files hold. None of this
depends on chance: a right fit passes always.
"""

import math

import numpy as np

from stages.common.rounding import loss_unit
from stages.evaluate.checks import Check, judged, not_applicable
from stages.evaluate.draws import STARTS
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.second_run import VISITS, SecondRun, rows_a_step
from stages.theory.models import Loss

WRITTEN = 5.1e-10  # relative: what ten significant digits leave open
TELLING = 1e-4  # relative: a loss that its parameters' digits say less about is computed from more digits


def record_checks(e: Evidence, run: SecondRun | None) -> list[Check]:
    """All of them; an experiment whose start and loop are not known here has no second run."""
    of_second_run = [parameters_check(e, run)] if e.experiment.name in STARTS else []
    of_classes = [accuracy_check(e)] if e.table.has_classes else []
    return [*of_second_run, losses_check(e, run), ends_check(e), *of_classes]


def parameters_check(e: Evidence, run: SecondRun | None) -> Check:
    """Each recorded parameter, the start among them, is that of a second run."""
    statement = "recorded parameters as a second run, in NumPy, gives them"
    if run is None:
        return not_applicable("parameters", statement, f"dtype is {e.train.dtype}")
    rows = run.decided
    if not rows:
        return not_applicable("parameters", statement, "rounding decides where it goes from the start on")
    theta, doubt = run.theta[:rows], run.doubt[:rows]
    with np.errstate(over="ignore"):
        share = np.abs(e.trail[:rows] - theta) / (WRITTEN * np.abs(theta) + doubt + np.finfo(float).tiny)
    reached = "to the end" if rows == len(e.trail) else f"up to iteration {int(e.history['iteration'][rows - 1]):,}"
    beyond = "; beyond it rounding decides where a run goes" if rows < len(run.theta) else ""
    return judged("parameters", statement, bool(share.max() <= 1), f"{reached}{_off_by(share)}{beyond}")


def _off_by(share: Array) -> str:
    """By how much a failed comparison failed; where it holds, the last bits in it differ between processors."""
    return f", off by {float(share.max()):.2g} times what rounding allows" if share.max() > 1 else ""


def losses_check(e: Evidence, run: SecondRun | None) -> Check:
    """Each recorded loss is the mean over the data at the parameters beside it.

    At a loss so small that the ten digits of these say too little, it is that of the second run's parameters.
    """
    statement = "recorded losses are those of the data at the recorded parameters"
    count, decided = len(e.trail), 0 if run is None else run.decided
    rows = np.union1d(np.arange(0, count, max(1, count * len(e.table.target) // VISITS)), [count - 1])
    share = np.zeros(len(rows))
    for place, row in enumerate(rows):
        recorded, theta = float(e.history["loss"][row]), e.trail[row]
        loss = mean_loss(e, theta, WRITTEN * np.abs(theta))
        if run is not None and row < decided and loss.doubt > TELLING * recorded:
            loss = mean_loss(e, run.theta[row], run.doubt[row])
        allowed = loss.doubt + WRITTEN * recorded + loss_unit(recorded, e.mean_square)
        if recorded != loss.value and math.isfinite(allowed):  # beyond the largest float nothing can be said
            share[place] = abs(recorded - loss.value) / max(allowed, np.finfo(float).tiny)
    found = f"{len(rows):,} of {count:,} rows{_off_by(share)}"
    return judged("losses", statement, bool(share.max() <= 1), found)


def mean_loss(e: Evidence, theta: Array, rounding: Array) -> Loss:
    """The loss over the data."""
    eps = float(np.finfo(e.train.dtype).eps)
    with np.errstate(all="ignore"):
        return e.model.mean_loss(e.table.features, e.table.target, theta, rounding=rounding, eps=eps)


def ends_check(e: Evidence) -> Check:
    """The metrics are the ends of the history, and both are what the settings ask for."""
    metrics, history, iteration = e.metrics, e.history, e.history["iteration"]
    settings, stopped = e.train.model_dump(), e.metrics["stopped"]
    batches = math.ceil(len(e.table.target) / rows_a_step(e)) if e.experiment.step == "batch" else 1
    asked, every = batches * (settings.get("epochs") or settings["iterations"]), batches * settings["log_every"]
    made, stop_loss = metrics["iterations"], metrics.get("stop_loss")
    below = history["loss"][:-1] < (-math.inf if e.train.stop_below is None else e.train.stop_below)
    regular = {*range(0, made, every), made, *([made - 1] if stopped == "loss" else [])}
    floor = loss_unit(0.0, e.mean_square)  # what a loss of 0 is counted as in its logarithm
    facts = {
        "start": list(metrics["initial"].values()) == e.trail[0].tolist(),
        "fitted": list(metrics["fitted"].values()) == e.trail[-1].tolist(),
        "loss": metrics["loss"] == history["loss"][-1],
        "log10_loss": abs(metrics["log10_loss"] - math.log10(max(metrics["loss"], floor))) <= 0.00051,
        "iterations": made == iteration[-1] and made <= asked and (stopped != "iterations" or made == asked),
        "recorded iterations": set(iteration.tolist()) == regular,
        "epochs": "epoch" not in history or (history["epoch"] == iteration // batches).all(),
        "stop": stopped in ("iterations", "loss", "diverged")
        and (stop_loss is None) == (stopped != "loss")
        and (stopped != "diverged" or made < asked),
        "stop_loss": (stopped == "diverged" or not below[:-1].any())
        and (stopped != "loss" or bool(below[-1] and history["loss"][-2] == stop_loss)),
        "stop_below": stopped != "iterations" or not below.any(),
    }
    wrong = [name for name, holds in facts.items() if not holds]
    statement = "metrics and history agree with each other and with the settings"
    return judged("ends", statement, not wrong, f"not so: {', '.join(wrong)}" if wrong else f"{len(facts)} ways")


def accuracy_check(e: Evidence) -> Check:
    """The share of rows on the right side of the recorded boundary; rows that lie on it may count either way."""
    with np.errstate(over="ignore"):
        z = e.model.predict(e.table.features, e.theta)
        doubt = WRITTEN * np.abs(e.model.slopes(e.table.features, e.theta)) @ np.abs(e.theta)
    right, on_it = (z > 0) == (e.table.target == 1), np.abs(z) <= doubt
    low, high = float(np.mean(right & ~on_it)), float(np.mean(right | on_it))
    recorded = e.metrics["accuracy"]
    holds = low - WRITTEN <= recorded <= high + WRITTEN
    return judged("accuracy", "accuracy is that of the recorded boundary", holds, f"{recorded:g}")
