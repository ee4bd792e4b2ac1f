"""Which settings would finish a run, from theory: those of the one command that mends it."""

import math
from typing import Any

import numpy as np

from stages.common.files import significant
from stages.evaluate.diagnosis import PATIENCE, SHARE, distance_of, epoch_maps, updates_until
from stages.evaluate.evidence import Evidence
from stages.theory.bowl import eigen
from stages.theory.least_squares import with_ones
from stages.theory.logistic import logits_of, row_losses

MARGIN = 1.1  # more updates than theory asks for
RESAMPLES = 2  # times the updates that the rows need: their resamples, with flatter bowls, are to be finished too
DIGITS = 1e-12  # of what may be left of the excess: then a parameter is within some 1e-6 standard errors
QUICK = 200_000  # updates, of seconds: so many are worth the exact solution's digits
DRAWN_ROWS = 500  # of a history that is not to be too long


def mend(e: Evidence) -> dict[str, Any]:
    """The settings of train.<experiment> to change so that the run is finished; empty where theory knows none."""
    if e.exact is None and e.experiment.model != "logit":
        return {}
    found = {"manual": full_batch, "noisy": full_batch, "minibatch": full_batch, "nn": single_rows, "logistic": steep}
    changes = found[e.experiment.name](e) if e.experiment.name in found else None
    if changes is None:
        return {}
    now = e.train.model_dump()
    counted = "epochs" if "epochs" in now else "iterations"
    changes = {"zero_grad": True, "stop_below": None, "dtype": "float64", **changes}
    if all(now[key] == value for key, value in changes.items() if key != counted):  # theory asked for too few before
        changes[counted] = max(changes[counted], 2 * now[counted])
    if changes[counted] > PATIENCE:
        return {}
    if changes[counted] // now["log_every"] > 2 * DRAWN_ROWS:
        changes["log_every"] = changes[counted] // DRAWN_ROWS
    return {f"train.{e.experiment.name}.{key}": value for key, value in changes.items() if now[key] != value}


def better_scale(e: Evidence) -> Evidence | None:
    """The same with the features scaled or not, whichever gives the rounder bowl; None where neither has a bottom."""
    both = [e if e.standardize == scale else e.with_settings(standardize=scale) for scale in (True, False)]
    conditions = [other.bowl.curvature.condition if other.bowl else math.inf for other in both]
    return both[int(np.argmin(conditions))] if min(conditions) < math.inf else None


def full_batch(e: Evidence) -> dict[str, Any] | None:
    """All rows in every step at lr = 1 / largest eigenvalue, stable on resamples of the rows with steeper bowls too."""
    scaled = better_scale(e)
    if scaled is None or scaled.bowl is None:
        return None
    lr = min(_rounded_down(scaled.bowl.curvature.stable_lr / 2), 1e9)
    allowed = distance_of(e).allowed
    enough, to_digits = (
        updates_until(scaled.bowl, scaled.start, lr=lr, excess=share * allowed) for share in (0.5, DIGITS)
    )
    if enough is None:
        return None
    count = RESAMPLES * enough if to_digits is None or to_digits > QUICK else max(RESAMPLES * enough, to_digits)
    in_epochs = {"batch_size": len(e.table.target), "epochs": count} if e.experiment.step == "batch" else None
    return {"lr": lr, "standardize": scaled.standardize, **(in_epochs or {"iterations": count})}


def single_rows(e: Evidence) -> dict[str, Any] | None:
    """One row a step: the largest of halved learning rates whose epochs end near enough to the minimum."""
    scaled = better_scale(e)
    if scaled is None or scaled.bowl is None:
        return None
    lr = _rounded_down(0.5 / float((with_ones(scaled.scaled_features) ** 2).sum(axis=1).max()))
    goal = distance_of(e).allowed / 2
    start = scaled.bowl.excess(scaled.start)
    for _ in range(20):
        maps = epoch_maps(scaled, lr)
        if maps is None:
            return None
        if maps.shrinks < 1 and maps.floor(scaled.bowl.hessian)[0] <= goal:
            passes = max(1, math.ceil(MARGIN * math.log(max(start / goal, 1)) / (-2 * math.log(maps.shrinks))))
            return {"lr": lr, "standardize": scaled.standardize, "iterations": passes * len(e.table.target)}
        lr = _rounded_down(lr / 2)
    return None


def steep(e: Evidence) -> dict[str, Any] | None:
    """Cross-entropy, all rows in every step, at lr = 1 / the largest curvature that it has anywhere."""
    is_general = e.train.model_dump()["form"] == "general"
    scaled = e.with_settings(loss="bce", standardize=is_general)
    if scaled.exact is None:
        return None
    slopes, _ = logits_of(scaled.scaled_features, scaled.train.model_dump()["form"])
    rows = len(slopes)
    lr = _rounded_down(4 / float(eigen(slopes / math.sqrt(rows))[0][-1]))
    z = scaled.model.predict(e.table.features, scaled.exact.theta)
    curvature = row_losses(z, e.table.target, "bce")[2]
    smallest = float(eigen(np.sqrt(curvature / rows)[:, np.newaxis] * slopes)[0][0])
    start = math.log(2) if is_general else scaled.metrics["loss"]
    goal = SHARE * len(scaled.exact.theta) / (4 * rows)
    if not 0 < lr * smallest < 1:
        return None
    count = math.ceil(1.5 * math.log(max(start / goal, 2)) / (-2 * math.log1p(-lr * smallest))) + 50
    return {"loss": "bce", "lr": lr, "standardize": is_general, "iterations": count}


def _rounded_down(lr: float) -> float:
    """To three digits, not above by more than rounding: 0.5 and its neighbours are all 0.5."""
    rounded = significant(lr, 3)
    return rounded if rounded <= lr * (1 + 1e-9) else significant(lr * 0.995, 3)
