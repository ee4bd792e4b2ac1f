"""The quantities of a run, each beside what is true, exact, predicted and published, and among its repetitions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.common.published import decimals_of
from stages.common.rounding import rounded_loss, rounded_parameter
from stages.evaluate.diagnosis import finished_resamples
from stages.evaluate.evidence import MIN_REPETITIONS, Array, Evidence
from stages.evaluate.goodness import of_exact, of_exact_unseen, of_fit, of_fit_unseen
from stages.evaluate.second_run import SecondRun

CENTRAL = (0.5, 99.5)  # percent: the ends of the central 99 %


@dataclass(frozen=True)
class Interval:
    """A percentile, in percent: an interval where rounding or ties leave a choice."""

    low: float
    high: float

    def __str__(self) -> str:
        low, high = f"{self.low:.1f}", f"{self.high:.1f}"
        return low if low == high else f"{low} to {high}"

    @property
    def middle(self) -> float:
        """The share of the repetitions that its middle stands for."""
        return (self.low + self.high) / 200

    @property
    def is_central(self) -> bool:
        """Whether it reaches into the central 99 %."""
        return self.high >= CENTRAL[0] and self.low <= CENTRAL[1]


@dataclass(frozen=True)
class Quantity:
    """A row of the table of results; None where a column has nothing to say.

    Attributes:
        key: its name in files.
        label: its name for readers.
        column: the column that a weight belongs to, where the data are one's own and have several.
        true: its value in the distribution that the data were drawn from.
        exact: its value at the minimum of the loss on these data.
        predicted: theory's value for this run.
        fitted: this run's value.
        published: as the article printed it.
        percentile: where the published number, or else this run's, lies among the repetitions.
        low: lower end of the central 99 % of the repetitions.
        high: upper end of it.
        exact_standard_error: of the exact solution, where the data are one's own.
        standard_error: of the fit, by the bootstrap: the repetitions of one's own data resample its rows.
    """

    key: str
    label: str
    column: str | None = None
    true: float | None = None
    exact: float | None = None
    predicted: float | None = None
    fitted: float | None = None
    published: str | None = None
    percentile: Interval | None = None
    low: float | None = None
    high: float | None = None
    exact_standard_error: float | None = None
    standard_error: float | None = None


def quantities(e: Evidence, run: SecondRun | None = None) -> list[Quantity]:
    """Parameters, losses and ends of a run.

    Where rows are read one by one in a known order, theory's prediction is the recurrence itself, the second run.
    """
    end = e.predicted(np.array([e.metrics["iterations"]]))
    if end is not None:
        theta, loss = end.theta[0], float(end.loss[0])
    elif run is not None and e.experiment.step == "one row" and run.decided == len(e.trail):
        theta = run.theta[-1]
        losses, _ = e.model.losses(e.model.predict(e.table.features, theta), e.table.target)
        loss = rounded_loss(float(losses.mean()), e.mean_square)
    else:
        theta, loss = None, None
    return [*_parameters(e, theta), *_losses(e, loss), *_ends(e), *_goodness(e)]


def _parameters(e: Evidence, predicted: Array | None) -> Iterator[Quantity]:
    printed = {} if e.differs else e.published.get("fitted", {})
    errors = None if e.data.file is None or e.exact is None else e.exact.standard_errors
    converged, finished = e.repetitions["stopped"] != "diverged", finished_resamples(e)
    for j, (name, value) in enumerate(e.metrics["fitted"].items()):
        values, published = e.repetitions[name], printed.get(name)
        low, high = central(values[converged])
        yield Quantity(
            name,
            label=name,
            column=_column(e, j),
            true=_at(e.true, j),
            exact=_known(e, None if e.exact is None else _at(e.exact.theta, j), j),
            predicted=_known(e, _at(predicted, j), j),
            fitted=value,
            published=published,
            percentile=_percentile(e, name, value) if published is None else percentile_of_printed(values, published),
            low=low,
            high=high,
            exact_standard_error=_at(errors, j),
            standard_error=None if finished is None else spread(values[finished]),
        )


def _column(e: Evidence, j: int) -> str | None:
    features = e.table.feature_names
    return features[j] if e.data.file is not None and len(e.names) > 2 and j < len(features) else None


def _at(values: Array | None, j: int) -> float | None:
    return None if values is None or not np.isfinite(values[j]) else float(values[j])


def _known(e: Evidence, value: float | None, j: int) -> float | None:
    """What every processor finds of parameter j."""
    if value is None:
        return None
    x = e.table.features[:, j] if j < len(e.names) - 1 else np.ones(1)  # of b
    return rounded_parameter(value, float(np.abs(e.table.target).max() / np.abs(x).max()))


def _losses(e: Evidence, predicted: float | None) -> Iterator[Quantity]:
    printed = {} if e.differs else e.published.get("losses", {})
    loss_at = dict(zip(e.history["iteration"].tolist(), e.history["loss"].tolist(), strict=True))
    for iteration, published in printed.items():
        course = e.predicted(np.array([iteration]))
        values = e.repetitions.get(f"loss_{iteration}")
        low, high = (None, None) if values is None else central(values)
        yield Quantity(
            f"loss_{iteration}",
            label=f"loss at iteration {iteration}",
            predicted=None if course is None else _at(course.loss, 0),
            fitted=loss_at.get(iteration),
            published=published,
            percentile=None if values is None else percentile_of_printed(values, published),
            low=low,
            high=high,
        )
    yield Quantity(
        "loss",
        label="final loss",
        exact=None if e.exact is None else rounded_loss(e.exact.loss, e.mean_square),
        predicted=predicted if predicted is not None and np.isfinite(predicted) else None,
        fitted=e.metrics["loss"],
        percentile=_percentile(e, "loss", e.metrics["loss"]),
    )


def _ends(e: Evidence) -> Iterator[Quantity]:
    if "stop_loss" in e.metrics:
        yield Quantity("stop_loss", label="loss that met the stop", fitted=e.metrics["stop_loss"])
    if e.train.stop_below is not None:
        updates = e.metrics["iterations"]
        percentile = _percentile(e, "iterations", updates)
        yield Quantity(
            "iterations", label="updates made", predicted=predicted_updates(e), fitted=updates, percentile=percentile
        )


def _goodness(e: Evidence) -> Iterator[Quantity]:
    """Accuracy of all classes; of one's own data also R^2, and both on rows that the fit has not seen."""
    is_own = e.data.file is not None
    if e.table.has_classes:
        key, name, fitted = "accuracy", "accuracy", e.metrics["accuracy"]
        percentile = _percentile(e, key, fitted)
        yield Quantity(key, label=name, exact=of_exact(e), fitted=fitted, percentile=percentile)
    elif is_own:
        key, name = "r_squared", "R²"
        yield Quantity(key, label=name, exact=of_exact(e), fitted=of_fit(e))
    if is_own:
        label = f"{name} on rows not seen"
        yield Quantity(f"{key}_unseen", label=label, exact=of_exact_unseen(e), fitted=of_fit_unseen(e))


def predicted_updates(e: Evidence) -> int | None:
    """The updates after which theory sees full-batch descent end: one more than the iteration that meets the stop.

    Looked for up to one update more than the run made; where none meets the stop by then, it is all of the iterations.
    None where the run has left the range of numbers, which theory's course does at another update.
    """
    limit = getattr(e.train, "iterations", 0)
    course = e.predicted(np.arange(min(limit, e.metrics["iterations"] + 1)))
    if course is None or e.metrics["stopped"] == "diverged":
        return None
    below = np.flatnonzero(course.loss < (e.train.stop_below or 0))
    return int(below[0]) + 1 if len(below) else limit


# --- the repetitions -------------------------------------------------------------------------------------------------


def _percentile(e: Evidence, column: str, value: float) -> Interval | None:
    return (
        None if e.count < MIN_REPETITIONS or column not in e.repetitions else percentile(e.repetitions[column], value)
    )


def percentile(values: Array, value: float) -> Interval:
    """Where a value lies among others; an interval where some are the very same."""
    return Interval(100 * float(np.mean(values < value)), 100 * float(np.mean(values <= value)))


def percentile_of_printed(values: Array, printed: str) -> Interval:
    """Where a printed number lies among values: an interval, since it was rounded when it was printed.

    From the share of values below all numbers that print so to the share not above them.
    """
    half = 0.5 * 10.0 ** -decimals_of(printed)
    low, high = float(printed) - half, float(printed) + half
    return Interval(100 * float(np.mean(values < low)), 100 * float(np.mean(values <= high)))


def central(values: Array) -> tuple[float | None, float | None]:
    """The ends of the central 99 % of the finite values; None where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, CENTRAL)
    return float(low), float(high)


def spread(values: Array) -> float | None:
    """Half of the distance between the percentiles 15.87 and 84.13, a normal distribution's standard deviation.

    A few values far away leave it as it is. None of fewer than two values, or where it overflows.
    """
    if len(values) < 2:
        return None
    low, high = np.percentile(values, [15.865525, 84.134475])
    with np.errstate(over="ignore"):
        found = float(high / 2 - low / 2)
    return found if np.isfinite(found) else None
