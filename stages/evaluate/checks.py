"""What is proved of a run: checks that can fail, from its evidence and its quantities.

A check that no longer applies, because the settings are not the article's, the data are one's own or the repetitions
are too few, says so instead of failing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from stages.common.experiments import EXPLODED
from stages.common.published import decimals_of
from stages.common.rounding import loss_unit
from stages.evaluate.evidence import MARGIN, Array, Evidence
from stages.evaluate.quantities import Quantity, predicted_updates

COURSE_BAR = 1e-9  # relative; files hold 10 significant digits, so that a start is known to 5e-10 at best
NEGLIGIBLE = 1e-10  # of the target's mean square; a loss below it is mostly rounding


class Verdict(StrEnum):
    """How a check came out."""

    HELD = "held"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Check:
    """What should hold, whether it does, and what was found; or why the check does not apply.

    Attributes:
        key: its name in files; that of a quantity where it is about one.
        statement: what should hold.
        verdict: whether it does.
        found: what was found.
    """

    key: str
    statement: str
    verdict: Verdict
    found: str


def judged(key: str, statement: str, holds: bool, found: str) -> Check:
    """A check that applies."""
    return Check(key, statement, Verdict.HELD if holds else Verdict.FAILED, found)


def not_applicable(key: str, statement: str, why: str) -> Check:
    """A check that does not."""
    return Check(key, statement, Verdict.NOT_APPLICABLE, why)


def checks(e: Evidence, rows: Sequence[Quantity]) -> list[Check]:
    """All checks of a run: those of its quantities, then those of the whole."""
    of_rows = [check for row in rows if (check := quantity_check(e, row))]
    of_run = (course_check(e), stop_check(e))
    return [*of_rows, *(check for check in of_run if check), end_check(e)]


def errors(e: Evidence, rows: Sequence[Quantity]) -> dict[str, float]:
    """The largest absolute error of a fitted parameter against truth, exact solution and publication, where known.

    Against theory, where it predicts the course and double precision follows: the largest relative deviation of a loss.
    """
    parameters = [row for row in rows if row.key in e.names]
    theirs: dict[str, list[float | str | None]] = {
        "truth": [row.true for row in parameters],
        "exact": [row.exact for row in parameters],
        "publication": [row.published for row in parameters],
    }
    fitted = e.theta.tolist()
    found = {
        against: max(differences)
        for against, values in theirs.items()
        if (differences := [abs(a - float(b)) for a, b in zip(fitted, values, strict=True) if b is not None])
    }
    deviation = course_deviation(e) if e.train.dtype == "float64" else None
    return found if deviation is None else {**found, "theory": deviation}


# --- of a quantity ---------------------------------------------------------------------------------------------------


def quantity_check(e: Evidence, row: Quantity) -> Check | None:
    """What is checked of a row of the results; None where nothing is."""
    if row.published is not None and row.key in e.names and "chosen_seeds" in e.published:
        return decimals_check(e, row)
    if row.published is not None and row.percentile is not None:
        return central_check(e, row, f"published {row.label}", row.published)
    return None


def central_check(e: Evidence, row: Quantity, name: str, value: str) -> Check:
    """A number, published or of this run, lies inside the central 99 % of the repetitions."""
    statement = f"{name} inside the central 99 % of the repetitions"
    if e.too_few or row.percentile is None:
        return not_applicable(row.key, statement, e.too_few or "no repetition has it")
    return judged(row.key, statement, row.percentile.is_central, f"{value} at percentile {row.percentile}")


def decimals_check(e: Evidence, row: Quantity) -> Check:
    """The fit shows the published decimals; a matter of the seed, so that it applies to the chosen seeds only."""
    assert row.published is not None
    decimals = decimals_of(row.published)
    statement = f"{row.label} is {row.published} to {decimals} decimals"
    chosen = e.published["chosen_seeds"]
    if (e.data.seed, getattr(e.train, "seed", None)) != (chosen["data"], chosen["train"]):
        return not_applicable(row.key, statement, "another seed than the chosen one")
    shows = f"{row.fitted:.{decimals}f}" == row.published
    return judged(row.key, statement, shows, f"{row.fitted:.{decimals + 3}f}")


# --- of the run ------------------------------------------------------------------------------------------------------


def course_check(e: Evidence) -> Check | None:
    """Theory's loss at every recorded iteration of a full-batch descent on a quadratic."""
    if e.experiment.step != "all rows" or e.bowl is None:
        return None
    statement = f"recorded losses as theory predicts, relative deviation at most {COURSE_BAR:g} beyond rounding"
    if e.train.dtype != "float64":
        return not_applicable("course", statement, f"dtype is {e.train.dtype}")
    deviation, beyond = course_deviation(e), course_deviation(e, doubt=course_doubt(e))
    if deviation is None or beyond is None:
        return not_applicable("course", statement, "no single exact solution")
    found = f"at most {deviation:.2g} over {len(e.history['loss']):,} iterations"
    return judged("course", statement, beyond <= COURSE_BAR, found)


def course_deviation(e: Evidence, *, doubt: Array | float = 0.0) -> float | None:
    """The largest relative deviation of a recorded loss from theory's, beyond theory's doubt and the record's rounding.

    Losses below NEGLIGIBLE of the target's mean square are not compared.
    """
    course = e.predicted(e.history["iteration"])
    if course is None:
        return None
    recorded = e.history["loss"]
    with np.errstate(all="ignore"):
        allowed = doubt + np.array([loss_unit(loss, e.mean_square) for loss in recorded.tolist()])
        compared = (recorded > NEGLIGIBLE * e.mean_square) & np.isfinite(course.loss) & np.isfinite(allowed)
        beyond = np.maximum(np.abs(course.loss - recorded) - allowed, 0)
    return float((beyond[compared] / recorded[compared]).max()) if compared.any() else None


def course_doubt(e: Evidence) -> Array | float:
    """How uncertain the arithmetic itself is, as with x in years: what data with other last bits change, (rows,)."""
    course, other = (evidence.predicted(e.history["iteration"]) for evidence in (e, e.with_other_last_bits))
    if course is None or other is None:
        return 0.0
    with np.errstate(all="ignore"):
        doubt: Array = np.maximum.accumulate(np.abs(other.loss - course.loss))
        if e.standardize:  # features of mean 0 again hide what a mean that is a bit off does
            mean, sd = e.scale
            doubt = doubt + np.finfo(float).eps * np.max(np.abs(mean) / sd) * e.history["loss"]
        return MARGIN * doubt


def stop_check(e: Evidence) -> Check | None:
    """The run ends where theory sees it end."""
    if e.train.stop_below is None or e.experiment.step != "all rows" or e.bowl is None:
        return None
    statement = "ended after as many updates as theory predicts"
    predicted, made = predicted_updates(e), e.metrics["iterations"]
    if predicted is None or e.train.dtype != "float64":
        return not_applicable("stop", statement, "no prediction for this run")
    return judged("stop", statement, predicted == made, f"{made}, predicted {predicted}")


def end_check(e: Evidence) -> Check:
    """The run has not exploded: where gradients are never zeroed and theory bounds the swing, it stayed inside."""
    loss, start = e.metrics["loss"], float(e.history["loss"][0])
    swing = None if e.bowl is None or e.train.zero_grad else e.bowl.swing(e.start, lr=e.train.lr)
    if swing is not None and e.experiment.step == "all rows":
        statement, bound = "stayed inside its swing", swing * (1 + COURSE_BAR)
    else:
        statement, bound = f"did not explode: the loss is at most {EXPLODED} times the start's", EXPLODED * start
    diverged = "diverged at " if e.metrics["stopped"] == "diverged" else ""
    found = f"{diverged}{loss:.3g}, {'at most' if swing else 'from'} {swing or start:.3g}"
    return judged("end", statement, not diverged and loss <= bound, found)
