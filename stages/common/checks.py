"""What is proved of each experiment: its quantities beside what they should be, and checks that can fail.

A check that no longer applies, because the settings are not the article's, the data are one's own or the repetitions
are too few, says so instead of failing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.stats import chi2

from stages.common import theory
from stages.common.evidence import Evidence
from stages.common.params import LogisticTraining
from stages.common.repetition import decimals_of

MIN_REPETITIONS = 400  # fewer say too little about the ends of the central 99 %
CENTRAL = (0.5, 99.5)  # percent
COURSE_BAR = 1e-9  # relative; files hold 10 significant digits, so that a start is known to 5e-10 at best
NEGLIGIBLE = 1e-10  # of the target's mean square; a loss below it is mostly rounding
STANDARD_ERRORS = 4


class Verdict(StrEnum):
    """How a check came out."""

    HELD = "held"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Check:
    """What should hold, whether it does, and what was found; or why the check does not apply."""

    statement: str
    verdict: Verdict
    found: str


@dataclass(frozen=True)
class Quantity:
    """A row of the table of results; None where a column has nothing to say.

    Attributes:
        name: what it is; for a parameter its name in the metrics.
        true: its value in the distribution that the data were drawn from.
        exact: its value at the minimum of the loss on these data.
        predicted: theory's value for this run.
        fitted: this run's value.
        published: as the article printed it.
        percentile: where the published number, or else this run's, lies among the repetitions, in percent.
        check: what is checked of it.
        column: the column that a weight belongs to, where the data are one's own and have several.
    """

    name: str
    true: float | None = None
    exact: float | None = None
    predicted: float | None = None
    fitted: float | None = None
    published: str | None = None
    percentile: str | None = None
    check: Check | None = None
    column: str | None = None


def judged(statement: str, holds: bool, found: str) -> Check:
    """A check that applies."""
    return Check(statement, Verdict.HELD if holds else Verdict.FAILED, found)


def checks_of(e: Evidence) -> list[Check]:
    """All checks of an experiment: those of its quantities, then those of the whole run."""
    of_rows = [row.check for row in quantities(e) if row.check is not None]
    return of_rows + [check for check in (course_check(e), stop_check(e), rows_check(e), moments_check(e)) if check]


def errors(e: Evidence) -> dict[str, float]:
    """The largest absolute error of a fitted parameter against truth, exact solution and publication, where known.

    Against theory, where it predicts the course: the largest relative deviation of a recorded loss.
    """
    rows = [row for row in quantities(e) if row.name in e.fitted and row.fitted is not None]
    pairs: dict[str, list[float]] = {
        "truth": [row.fitted - row.true for row in rows if row.fitted is not None and row.true is not None],
        "exact": [row.fitted - row.exact for row in rows if row.fitted is not None and row.exact is not None],
        "publication": [row.fitted - float(row.published) for row in rows if row.fitted is not None and row.published],
    }
    found = {name: float(np.abs(differences).max()) for name, differences in pairs.items() if differences}
    deviation = course_deviation(e)
    return found if deviation is None else {**found, "theory": deviation}


# --- quantities ------------------------------------------------------------------------------------------------------


def quantities(e: Evidence) -> list[Quantity]:
    """Parameters, losses and ends of a run, each beside what it should be."""
    rows = [*_parameter_rows(e), *_loss_rows(e), *_end_rows(e)]
    return rows if e.data.file is None else [*rows, *_standard_error_rows(e)]


def _parameter_rows(e: Evidence) -> Iterator[Quantity]:
    exact = {} if e.exact is None else e.exact.parameters
    course = e.course(np.array([e.metrics["iterations"]]))
    predicted = {} if course is None else dict(zip(e.fitted, map(_finite, course.theta[0]), strict=True))
    printed = {} if e.departures else e.published.get("fitted", {})
    for name, value in e.fitted.items():
        published = printed.get(name)
        interval = e.replicates.get("published", {}).get("fitted", {}).get(name)
        percentile = _percentile_of_run(e, name, value)
        check = None
        if published is not None and interval is not None:
            percentile = _as_percentile(interval)
            is_seeded = "chosen_seeds" in e.published
            check = (
                decimals_check(e, name, published, value) if is_seeded else inside_check(e, name, published, interval)
            )
        yield Quantity(
            name,
            true=e.true.get(name),
            exact=exact.get(name),
            predicted=predicted.get(name),
            fitted=value,
            published=published,
            percentile=percentile,
            check=check,
            column=_column(e, name),
        )


def _column(e: Evidence, name: str) -> str | None:
    """The column of w1, w2, ... in one's own data."""
    if e.data.file is None or name in ("w", "b"):
        return None
    return str(e.table.features.columns[list(e.fitted).index(name)])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _loss_rows(e: Evidence) -> Iterator[Quantity]:
    printed = {} if e.departures else e.published.get("losses", {})
    loss_at = dict(zip(e.history["iteration"], e.history["loss"], strict=True))
    for iteration, published in printed.items():
        course = e.course(np.array([iteration]))
        interval = e.loss_spreads.get(str(iteration))
        yield Quantity(
            f"loss at iteration {iteration}",
            predicted=None if course is None else _finite(course.loss[0]),
            fitted=loss_at.get(iteration),
            published=published,
            percentile=_as_percentile(interval) if interval else None,
            check=inside_check(e, f"loss at iteration {iteration}", published, interval) if interval else None,
        )
    course = e.course(np.array([e.metrics["iterations"]]))
    yield Quantity(
        "final loss",
        exact=None if e.exact is None else e.exact.loss,
        predicted=None if course is None else _finite(course.loss[0]),
        fitted=e.metrics["loss"],
        percentile=_percentile_of_run(e, "loss", e.metrics["loss"]),
    )


def _end_rows(e: Evidence) -> Iterator[Quantity]:
    if "stop_loss" in e.metrics:
        yield Quantity("loss that met the stop", fitted=e.metrics["stop_loss"])
    if e.train.stop_below is not None:
        updates = e.metrics["iterations"]
        percentile = _percentile_of_run(e, "iterations", updates)
        yield Quantity(
            "updates made",
            predicted=predicted_updates(e),
            fitted=updates,
            percentile=percentile,
            check=among_check(e, "updates made", "iterations", updates),
        )
    if "accuracy" in e.metrics:
        yield Quantity(
            "accuracy",
            exact=_accuracy_at_minimum(e),
            fitted=e.metrics["accuracy"],
            percentile=_percentile_of_run(e, "accuracy", e.metrics["accuracy"]),
            check=among_check(e, "accuracy", "accuracy", e.metrics["accuracy"]),
        )


def _standard_error_rows(e: Evidence) -> Iterator[Quantity]:
    """The bootstrap's standard errors beside the exact solution's own."""
    known = {} if e.exact is None else e.exact.standard_errors
    for name in e.fitted:
        bootstrap = e.replicates.get("fitted", e.replicates.get("random_start", {}).get("fitted", {})).get(name, {})
        yield Quantity(
            f"standard error of {name}, fitted by bootstrap", exact=known.get(name), fitted=bootstrap.get("sd")
        )


def _accuracy_at_minimum(e: Evidence) -> float | None:
    if e.exact is None or not isinstance(e.train, LogisticTraining):
        return None
    by_theta, offset = theory.logits_of(e.features, e.train.form)
    right = (by_theta @ np.array(list(e.exact.parameters.values())) + offset > 0) == (e.target == 1)
    return float(right.mean())


# --- percentiles -----------------------------------------------------------------------------------------------------


def _percentile_of_run(e: Evidence, column: str, value: float) -> str | None:
    """Where this run's value lies among the repetitions; an interval where some have the very same value."""
    if e.replicates["count"] < MIN_REPETITIONS or column not in e.repetitions:
        return None
    return _as_percentile(_interval(e, column, value))


def _interval(e: Evidence, column: str, value: float) -> dict[str, float]:
    values = e.repetitions[column].to_numpy()
    return {
        "percentile_low": 100 * float(np.mean(values < value)),
        "percentile_high": 100 * float(np.mean(values <= value)),
    }


def _as_percentile(interval: dict[str, float]) -> str:
    low, high = f"{interval['percentile_low']:.1f}", f"{interval['percentile_high']:.1f}"
    return low if low == high else f"{low} to {high}"


def _is_central(interval: dict[str, float]) -> bool:
    return interval["percentile_high"] >= CENTRAL[0] and interval["percentile_low"] <= CENTRAL[1]


# --- checks ----------------------------------------------------------------------------------------------------------


def too_few(e: Evidence) -> str | None:
    """Why percentiles are not judged."""
    if e.replicates["count"] >= MIN_REPETITIONS:
        return None
    return f"{e.replicates['count']} repetitions, fewer than {MIN_REPETITIONS}"


def inside_check(e: Evidence, name: str, published: str, interval: dict[str, float]) -> Check:
    """A published number lies inside the central 99 % of the repetitions."""
    statement = f"published {name} inside the central 99 % of the repetitions"
    if reason := too_few(e):
        return Check(statement, Verdict.NOT_APPLICABLE, reason)
    return judged(statement, _is_central(interval), f"{published} at percentile {_as_percentile(interval)}")


def among_check(e: Evidence, name: str, column: str, value: float) -> Check:
    """This run's value lies inside the central 99 % of the repetitions: both implementations tell the same story."""
    statement = f"{name} inside the central 99 % of the repetitions"
    if reason := too_few(e):
        return Check(statement, Verdict.NOT_APPLICABLE, reason)
    interval = _interval(e, column, value)
    return judged(statement, _is_central(interval), f"{value:g} at percentile {_as_percentile(interval)}")


def decimals_check(e: Evidence, name: str, published: str, value: float) -> Check:
    """The fit shows the published decimals; a matter of the seed, so that it applies to the chosen seeds only."""
    decimals = decimals_of(published)
    statement = f"{name} is {published} to {decimals} decimals"
    chosen = e.published["chosen_seeds"]
    if (e.data.seed, getattr(e.train, "seed", None)) != (chosen["data"], chosen["train"]):
        return Check(statement, Verdict.NOT_APPLICABLE, "another seed than the chosen one")
    return judged(statement, f"{value:.{decimals}f}" == published, f"{value:.{decimals + 3}f}")


def course_check(e: Evidence) -> Check | None:
    """Theory's loss at every recorded iteration of a full-batch descent on a quadratic."""
    if e.experiment not in ("manual", "noisy"):
        return None
    statement = f"recorded losses as theory predicts, relative deviation at most {COURSE_BAR:g}"
    if e.train.dtype != "float64":
        return Check(statement, Verdict.NOT_APPLICABLE, f"dtype is {e.train.dtype}")
    deviation = course_deviation(e)
    if deviation is None:
        return Check(statement, Verdict.NOT_APPLICABLE, "no single exact solution")
    return judged(statement, deviation <= COURSE_BAR, f"at most {deviation:.2g} over {len(e.history):,} iterations")


def course_deviation(e: Evidence) -> float | None:
    """The largest relative deviation of a recorded loss from theory's, beyond the rounding of the record.

    Losses are recorded to about 1e-16 of the target's mean square; those below NEGLIGIBLE of it are not compared.
    """
    course = e.course(e.history["iteration"].to_numpy())
    if course is None:
        return None
    recorded = e.history["loss"].to_numpy()
    mean_square = float(np.mean(e.target**2))
    compared = (recorded > NEGLIGIBLE * mean_square) & np.isfinite(course.loss)
    if not compared.any():
        return None
    beyond = np.maximum(np.abs(course.loss - recorded) - 1e-16 * mean_square, 0)
    return float((beyond[compared] / recorded[compared]).max())


def predicted_updates(e: Evidence) -> int | None:
    """The updates after which theory sees manual or noisy end: one more than the iteration that meets the stop.

    Looked for up to one update more than the run made; where none meets the stop by then, it is all of the iterations.
    """
    limit = getattr(e.train, "iterations", 0)
    course = e.course(np.arange(min(limit, e.metrics["iterations"] + 1)))
    if course is None:
        return None
    below = np.flatnonzero(course.loss < (e.train.stop_below or 0))
    return int(below[0]) + 1 if len(below) else limit


def stop_check(e: Evidence) -> Check | None:
    """The run ends where theory sees it end."""
    if e.train.stop_below is None or e.experiment not in ("manual", "noisy"):
        return None
    statement = "ended after as many updates as theory predicts"
    predicted = predicted_updates(e)
    if predicted is None or e.metrics["stopped"] == "diverged" or e.train.dtype != "float64":
        return Check(statement, Verdict.NOT_APPLICABLE, "no prediction for this run")
    return judged(statement, predicted == e.metrics["iterations"], f"{e.metrics['iterations']}, predicted {predicted}")


def rows_check(e: Evidence) -> Check | None:
    """The data rows that article C prints agree with its stated truth and noise, whatever is fitted here."""
    printed = e.published.get("rows")
    if printed is None:
        return None
    data = e.published["settings"]["data"]
    rows = np.array(printed, dtype=float)  # x1, x2, y
    residuals = rows[:, -1] - rows[:, :-1] @ np.array(data["weights"], dtype=float) - data["bias"]
    rounding = 1e-4**2 / 12  # variance of a number printed with 4 decimals
    variance = data["noise"] ** 2 + rounding * (1 + float(np.sum(np.square(data["weights"]))))
    percentile = 100 * float(chi2.cdf(np.sum(residuals**2) / variance, len(rows)))
    largest = float(np.abs(residuals).max()) / np.sqrt(variance)
    return judged(
        f"the {len(rows)} printed rows agree with the stated truth and noise",
        CENTRAL[0] <= percentile <= CENTRAL[1],
        f"sum of squares at percentile {percentile:.0f} of chi-square, largest residual {largest:.1f} sd",
    )


def moments_check(e: Evidence) -> Check | None:
    """The repetitions of nn have the mean-square error that theory predicts from their starts, at every step."""
    if e.experiment != "nn":
        return None
    statement = f"squared error of the repetitions as theory predicts, within {STANDARD_ERRORS} standard errors"
    if "predicted" not in e.repetitions:
        return Check(statement, Verdict.NOT_APPLICABLE, "theory predicts one drawn feature, zeroed gradients, as it is")
    if reason := too_few(e):
        return Check(statement, Verdict.NOT_APPLICABLE, reason)
    steps = e.repetitions[(e.repetitions["iteration"] > 0) & (e.repetitions["predicted"] > 1e-17)]
    deviation = float((steps["difference"] / steps["standard_error"]).abs().max())
    return judged(statement, deviation <= STANDARD_ERRORS, f"at most {deviation:.2f} over {len(steps)} steps")


def count(checks: list[Check]) -> dict[str, Any]:
    """How many checks held, failed and do not apply."""
    return {verdict.replace(" ", "_"): sum(check.verdict == verdict for check in checks) for verdict in Verdict}
