"""Whether the numbers that an article printed can be: whether data as it states them explain every digit.

The articles' data are not known, but few of their properties matter, and the printed numbers say which values these
had. The values are then held against what such data have. None of this depends on a run.
"""

import numpy as np
import scipy

from stages.common.published import decimals_of
from stages.evaluate.checks import Check, judged
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.quantities import CENTRAL
from stages.theory.bowl import Bowl

WRONG_LR = 1.005  # times the article's: what the check of the losses would see


def publication_checks(e: Evidence) -> list[Check]:
    """Those that the article's numbers allow; none beside data of one's own."""
    if e.data.file is not None:
        return []
    found = (printed_losses_check(e), printed_fit_check(e), printed_rows_check(e))
    return [check for check in found if check]


def half_units(printed: dict[int, str]) -> Array:
    """Half of the last printed decimal of each number."""
    return np.array([0.5 * 10.0 ** -decimals_of(number) for number in printed.values()])


# --- all losses of a descent without noise ---------------------------------------------------------------------------


def printed_losses_check(e: Evidence) -> Check | None:
    """Losses printed from a known start, of points on a line, depend on two moments of x only: its mean and variance.

    The pair that explains all of them best is looked for; then how far from their expectation the two lie, by
    Mahalanobis's distance, whose square is chi-square with 2 degrees of freedom for many points.
    """
    if "start" not in e.published:
        return None
    settings = e.published["settings"]
    statement = "points of the stated kind explain every printed loss to its last digit"
    (mean, variance), missed = explaining_moments(e, lr=settings["train"]["lr"])
    _, by_wrong_lr = explaining_moments(e, lr=WRONG_LR * settings["train"]["lr"])
    percentile = moments_percentile(mean, variance, settings["data"])
    return judged(
        "printed_losses",
        statement,
        missed <= 1 and percentile <= CENTRAL[1],
        f"x of mean {mean:.4f} and variance {variance:.4f} misses none by more than {missed:.2f} of its rounding, and"
        f" lies at percentile {percentile:.0f}; with lr x {WRONG_LR:g} the best x would miss one by {by_wrong_lr:.0f}",
    )


def explaining_moments(e: Evidence, *, lr: float) -> tuple[tuple[float, float], float]:
    """The mean and variance of x that explain the printed losses best, and the largest miss in units of the rounding.

    Two points with the same mean and variance as many stand for these: the course is the same.
    """
    printed, data = e.published["losses"], e.published["settings"]["data"]
    start, numbers = (np.array([float(text) for text in texts.values()]) for texts in (e.published["start"], printed))
    rounding = half_units(printed)

    def misses(moments: Array) -> Array:
        mean, log_variance = moments
        x = mean + np.exp(log_variance / 2) * np.array([[-1.0], [1.0]])
        bowl = Bowl(x, data["weights"][0] * x[:, 0] + data["bias"], factor=e.experiment.factor or 2, standardize=False)
        course = bowl.course(start, np.array(list(printed)), lr=lr, accumulate=False)
        assert course is not None  # two points that differ
        return (course.loss - numbers) / rounding

    low, high = data["x"]["low"], data["x"]["high"]
    found = scipy.optimize.least_squares(misses, [(low + high) / 2, np.log((high - low) ** 2 / 12)])
    return (float(found.x[0]), float(np.exp(found.x[1]))), float(np.abs(found.fun).max())


def moments_percentile(mean: float, variance: float, data: dict[str, object]) -> float:
    """Where a sample's mean and variance lie among those of x uniform on [low, high): 0 in the middle.

    The sample mean has variance s^2 / n, the sample variance about (m4 - s^4) / n, with s^2 = d^2 / 12, m4 = d^4 / 80
    for a width d; where a distribution is symmetric they are uncorrelated (Cramer, Mathematical Methods of Statistics,
    section 27.4).
    """
    x = data["x"]
    assert isinstance(x, dict)
    count, width = float(str(data["rows"])), x["high"] - x["low"]
    s2, m4 = width**2 / 12, width**4 / 80
    off_mean, off_variance = mean - (x["low"] + x["high"]) / 2, variance - s2
    return 100 * float(scipy.special.chdtr(2, count * (off_mean**2 / s2 + off_variance**2 / (m4 - s2**2))))


# --- the end of a descent in noise -----------------------------------------------------------------------------------


def printed_fit_check(e: Evidence) -> Check | None:
    """The last printed loss is half the variance of the noise, and what the printed parameters' errors add to it.

    (noise variance + |theta - truth|^2) / 2 for features of variance 1 and mean 0; the noise of n rows has the stated
    variance times chi-square / n.
    """
    data = e.published["settings"]["data"]
    if "losses" not in e.published or not data.get("noise"):
        return None
    printed = dict([max(e.published["losses"].items())])
    (last,), (rounding,) = map(float, printed.values()), half_units(printed).tolist()
    theta = np.array([float(number) for number in e.published["fitted"].values()])
    excess = float(np.sum((theta - [*data["weights"], data["bias"]]) ** 2))
    factor = e.experiment.factor or 1
    variances = [max(2 / factor * (last + side * rounding) - excess, 0.0) for side in (-1, 1)]
    of_stated = [data["rows"] * variance / data["noise"] ** 2 for variance in variances]
    low, high = (100 * float(scipy.special.chdtr(data["rows"], squares)) for squares in of_stated)
    return judged(
        "printed_fit",
        "noise of the stated size explains the last printed loss at the printed parameters",
        high >= CENTRAL[0] and low <= CENTRAL[1],
        "noise of {:.5f} to {:.5f}".format(*np.sqrt(variances)) + f", percentile {low:.0f} to {high:.0f} of chi-square",
    )


# --- data rows -------------------------------------------------------------------------------------------------------


def printed_rows_check(e: Evidence) -> Check | None:
    """The data rows that an article prints agree with its stated truth and noise, whatever is fitted here."""
    printed = e.published.get("rows")
    if printed is None:
        return None
    data = e.published["settings"]["data"]
    rows = np.array(printed, dtype=float)  # x1, x2, y
    residuals = rows[:, -1] - rows[:, :-1] @ np.array(data["weights"], dtype=float) - data["bias"]
    rounding = 1e-4**2 / 12  # variance of a number printed with 4 decimals
    variance = data["noise"] ** 2 + rounding * (1 + float(np.sum(np.square(data["weights"]))))
    percentile = 100 * float(scipy.special.chdtr(len(rows), np.sum(residuals**2) / variance))
    largest = float(np.abs(residuals).max()) / np.sqrt(variance)
    return judged(
        "printed_rows",
        f"the {len(rows)} printed rows agree with the stated truth and noise",
        CENTRAL[0] <= percentile <= CENTRAL[1],
        f"sum of squares at percentile {percentile:.0f} of chi-square, largest residual {largest:.1f} sd",
    )
