"""How good a fit of one's own data is, on its own rows and on rows that it has not seen.

Of lines R^2 = 1 - mean squared error / variance of y; of classes the share of rows on the right side. The exact
solution is tried on each row by leaving it out; the fit on the rows that its resamples left out ("out of bag": a
resample has 63 % of the rows, so that this is a little too hard on it; Efron, Estimating the error rate of a prediction
rule, 1983).
"""

import numpy as np

from stages.evaluate.diagnosis import finished_resamples
from stages.evaluate.evidence import Array, Evidence
from stages.theory.leave_one_out import predictions_without


def goodness(e: Evidence, predicted: Array) -> float | None:
    """R^2 or accuracy of predictions, (rows,); None of a constant y."""
    y = e.table.target
    if e.table.has_classes:
        return float(np.mean((predicted > 0) == (y == 1)))
    return r_squared(e, float(np.mean((predicted - y) ** 2)))


def r_squared(e: Evidence, mean_squared_error: float) -> float | None:
    """1 - mean squared error / variance of y; None of a constant y."""
    variance = float(e.table.target.var())
    return 1 - mean_squared_error / variance if variance > 0 else None


def of_fit(e: Evidence) -> float | None:
    """On its own rows."""
    with np.errstate(over="ignore", invalid="ignore"):  # a fit that has exploded
        found = goodness(e, e.model.predict(e.table.features, e.theta))
    return found if found is not None and np.isfinite(found) else None


def of_exact(e: Evidence) -> float | None:
    """On its own rows; None where there is none."""
    return None if e.exact is None else goodness(e, e.model.predict(e.table.features, e.exact.theta))


def of_exact_unseen(e: Evidence) -> float | None:
    """Each row left out in turn."""
    if e.exact is None:
        return None
    x, y, theta = e.table.features, e.table.target, e.exact.theta
    z = e.model.predict(x, theta)
    _, by_prediction = e.model.losses(z, y)
    without = predictions_without(e.model.slopes(x, theta), z, by_prediction, e.model.curvatures(z, y))
    return None if without is None else goodness(e, without)


def of_fit_unseen(e: Evidence) -> float | None:
    """On the rows that resamples left out: of those that are finished, or for classes of all that have not diverged.

    A share of rows is at most 1; a mean of squares could be that of one resample that exploded.
    """
    finished = finished_resamples(e)
    if finished is None and e.table.has_classes:
        finished = e.repetitions["stopped"] != "diverged"
    if finished is None or "unseen" not in e.repetitions:
        return None
    scores = e.repetitions["unseen"][finished]
    scores = scores[np.isfinite(scores)]  # small resamples may have all rows
    if not len(scores):
        return None
    return float(scores.mean()) if e.table.has_classes else r_squared(e, float(scores.mean()))
