"""What a run has come to: theory's numbers, for the report to put into words.

A run is finished where its loss is so near to the minimum that the data can't tell: least squares itself errs by
loss p / (n - p) for p parameters and n rows, a maximum of the likelihood by p / (2n), and a tenth of that is enough.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common.experiments import EXPLODED
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.second_run import rows_a_step
from stages.theory.bowl import Bowl
from stages.theory.epochs import Epochs, epochs, passes_zero
from stages.theory.logistic import separating_features

SHARE = 0.1  # of what the data leave open
NOISELESS = 1e-8  # of the variance of y: what is left open where they leave nothing
ORDERS = 200  # of the rows, sampled
PARAMETERS, NUMBERS = 31, 20_000_000  # beyond these, and numbers in rows or in maps, an epoch's maps take too long
PATIENCE = 10_000_000  # updates; more take hours


@dataclass(frozen=True)
class Distance:
    """How far the loss is above its minimum, and how far it may be to be finished."""

    excess: float
    allowed: float

    @property
    def is_finished(self) -> bool:
        """Nearer than the data can tell."""
        return self.excess <= self.allowed


def diagnosis(e: Evidence) -> dict[str, Any]:
    """`state`, the numbers that stand behind it, and how many resamples of one's own data are finished like the fit."""
    finished = finished_resamples(e)
    resamples = (
        {} if finished is None else {"resamples": e.count, "resamples_unfinished": int(np.count_nonzero(~finished))}
    )
    return _state(e) | resamples


def _state(e: Evidence) -> dict[str, Any]:
    limits = _limits(e)
    if e.metrics["stopped"] == "diverged":
        return {"state": "diverged", **limits}
    start, is_bounded = float(e.history["loss"][0]), not e.train.zero_grad and e.train.lr < limits.get("limit", 0)
    if e.metrics["loss"] > EXPLODED * start and not is_bounded:
        return {"state": "growing", "start": start, **limits}
    if e.exact is None:
        if e.is_separable:
            return {"state": "separable", **separating(e)}
        if e.table.has_classes and e.with_settings(loss="bce").exact is not None:  # far out squares are flat
            return {"state": "unfinished" if e.train.zero_grad else "swinging"}
        return {"state": "no_single_solution"}
    distance = distance_of(e)
    found = {"state": "finished"} if distance.is_finished else _unfinished(e, distance, limits)
    return {**found, "excess": distance.excess, "allowed": distance.allowed, **limits}


def _unfinished(e: Evidence, distance: Distance, limits: dict[str, float]) -> dict[str, Any]:
    """What stands between a run and the minimum of its loss."""
    maps = epoch_maps(e)
    is_beyond = e.train.zero_grad and e.train.lr > limits.get("limit", math.inf)
    if is_beyond or (maps is not None and maps.mean_square_growth >= 1):
        return {"state": "growing", "start": float(e.history["loss"][0])}
    if not e.train.zero_grad:
        return {"state": "swinging"}
    if maps is None:
        bowl = e.bowl if e.experiment.step == "all rows" else None
        left = bowl and updates_until(bowl, e.theta, lr=e.train.lr, excess=distance.allowed)
        return {"state": "unfinished", **({} if left is None else {"more_updates": left})}
    assert e.bowl is not None
    floor, error = maps.floor(e.bowl.hessian)
    if floor > distance.allowed:
        lr = lr_of_floor(e, distance.allowed)
        state = "hovering" if distance.excess < 3 * floor else "unfinished"
        return {"state": state, "floor": floor, "floor_error": error, **({} if lr is None else {"lr": lr})}
    epochs_left = math.log(distance.excess / distance.allowed) / (-2 * math.log(maps.shrinks))
    return {"state": "unfinished", "more_epochs": math.ceil(epochs_left)}


def separating(e: Evidence) -> dict[str, str]:
    """The features each of which separates the classes by itself, or else a few of which a combination does."""
    classes = [e.table.features[e.table.target == label] for label in (0, 1)]
    apart = [(low.max(axis=0) < high.min(axis=0)) for low, high in (classes, classes[::-1])]
    names = [name for name, *is_apart in zip(e.table.feature_names, *apart, strict=True) if any(is_apart)]
    if names:
        return {"separating": ", ".join(names)}
    together = [e.table.feature_names[j] for j in separating_features(e.table.features, e.table.target)]
    return {"separating_together": ", ".join(together)} if together else {}


def distance_of(e: Evidence) -> Distance:
    """From the minimum, of a fit that has a single one."""
    assert e.exact is not None
    rows, parameters = len(e.table.target), len(e.theta)
    excess = max(e.metrics["loss"] - e.exact.loss, 0.0) if e.bowl is None else e.bowl.excess(e.theta)
    is_likelihood = getattr(e.train, "loss", "") == "bce"
    spare = max(rows - parameters, 1)
    worth = parameters / (2 * rows) if is_likelihood else e.exact.loss * parameters / spare
    size = float(e.table.target.var()) or e.mean_square or 1.0  # y may be constant, or 0 throughout
    return Distance(excess, max(SHARE * worth, NOISELESS * (e.experiment.factor or 1) / 2 * size))


def finished_resamples(e: Evidence) -> Array | None:
    """Which repetitions tell the fit's standard errors, (repetitions,): resamples of one's own data that are finished.

    None where the fit itself is not, or where it has no single end.
    """
    if e.data.file is None or e.exact is None or e.metrics["stopped"] == "diverged":
        return None
    distance = distance_of(e)
    if not distance.is_finished:
        return None
    is_near = e.repetitions["excess"] <= distance.allowed if "excess" in e.repetitions else True
    return (e.repetitions["stopped"] != "diverged") & is_near


def _limits(e: Evidence) -> dict[str, float]:
    """`limit`, the learning rate from which the error grows: of all rows, or of rows in a fixed order, exactly.

    Of all rows whose gradients are never zeroed it is where the swing is no longer bounded. Of rows that are shuffled
    anew it is where the mean square of the error grows, and `typical_limit` where nearly all runs do.
    """
    if e.bowl is None:
        return {}
    curvature = e.bowl.curvature
    if e.experiment.step == "all rows":
        return {"limit": curvature.stable_lr if e.train.zero_grad else curvature.accumulating_lr}
    if not e.train.zero_grad or epoch_maps(e) is None:
        return {}
    maps = functools.cache(functools.partial(_maps, e))
    near, tiny = curvature.stable_lr, 1e-6  # the slowest direction shrinks by as little in an epoch
    limit = passes_zero(lambda lr: math.log(maps(lr).mean_square_growth) - tiny, near)
    typical = None if is_in_order(e) else passes_zero(lambda lr: maps(lr).typical_growth() - tiny, near)
    found = {"limit": limit, "typical_limit": typical}
    return {name: lr for name, lr in found.items() if lr is not None}


def lr_of_floor(e: Evidence, target: float) -> float | None:
    """The learning rate at which batches of this size leave descent so far above its minimum."""
    assert e.bowl is not None
    hessian = e.bowl.hessian

    return passes_zero(lambda lr: math.log(_maps(e, lr).floor(hessian)[0] / target), e.train.lr)


def _maps(e: Evidence, lr: float) -> Epochs:
    """Where they are known at one learning rate, they are at all."""
    maps = epoch_maps(e, lr)
    assert maps is not None
    return maps


def updates_until(bowl: Bowl, start: Array, *, lr: float, excess: float) -> int | None:
    """The updates of full-batch descent until the loss is this near to its minimum; None if more than PATIENCE."""

    def is_near(updates: int) -> bool:
        course = bowl.course(start, np.array([updates]), lr=lr, accumulate=False)
        return course is not None and bool(course.excess[0] <= excess)

    far = 1
    while not is_near(far):
        far *= 2
        if far > PATIENCE:
            return None
    near = far // 2
    while far - near > 1:
        middle = (near + far) // 2
        near, far = (near, middle) if is_near(middle) else (middle, far)
    return far


# --- batches ---------------------------------------------------------------------------------------------------------


def is_in_order(e: Evidence) -> bool:
    """Whether each epoch reads the rows as the one before: one by one in their order, or all at once."""
    return e.experiment.step != "batch" or rows_a_step(e) >= len(e.table.target)


def epoch_maps(e: Evidence, lr: float | None = None) -> Epochs | None:
    """The maps of an epoch at this learning rate, or another; None where full batches or too many numbers make it."""
    if e.bowl is None or e.exact is None or e.experiment.step not in ("batch", "one row") or len(e.theta) > PARAMETERS:
        return None
    rows, size = len(e.table.target), rows_a_step(e)
    residual = e.table.target - e.model.predict(e.table.features, e.exact.theta)
    numbers = len(e.theta) * max(rows, math.ceil(rows / size) * len(e.theta))
    most = NUMBERS // numbers
    count = 1 if is_in_order(e) else min(ORDERS, most)
    if most < 1 or (count < 10 and not is_in_order(e)):
        return None
    in_order = np.tile(np.arange(rows), (count, 1))
    orders = in_order if is_in_order(e) else np.random.default_rng(0).permuted(in_order, axis=1)
    step = (e.train.lr if lr is None else lr) * (e.experiment.factor or 1) / size
    return epochs(e.scaled_features, residual, orders, batch_size=size, step=step)
