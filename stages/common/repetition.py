"""What the repetitions of the six experiments share: fresh data, bookkeeping, percentiles. NumPy only.

Arrays put the rows first, then the repetitions, (rows, repetitions, features), so that one row of every repetition lies
together. theta is (repetitions, parameters): the weights, then b.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.common import theory
from stages.common.files import DATA, Table, parameter_names
from stages.common.params import (
    DataSet,
    IterativeTraining,
    LinearData,
    LogisticTraining,
    Normal,
    Replicate,
    Uniform,
)

Array = np.ndarray

# Repetitions drawn and run together; part of the meaning of a seed, since they fix the order of draws. Fewer where
# there are many rows, so that a chunk's data stay below 100 MB or so.
CHUNK = 500
CHUNK_CELLS = 2_500_000  # rows times repetitions


def chunks(
    settings: Replicate, experiment: int, own: Table | None, drawn: int
) -> Iterator[tuple[int, np.random.Generator]]:
    """Size and generator of each chunk of repetitions, the same however many chunks follow.

    Args:
        settings: count and seed.
        experiment: a number of its own for each experiment, so that no two share their draws.
        own: the user's own data, where they are resampled.
        drawn: rows of one repetition's data, where they are drawn.
    """
    rows = drawn if own is None else len(own.target)
    chunk = max(1, min(CHUNK, CHUNK_CELLS // rows))
    for number, first in enumerate(range(0, settings.count, chunk)):
        yield min(chunk, settings.count - first), np.random.default_rng([settings.seed, experiment, number])


# --- fresh data ------------------------------------------------------------------------------------------------------


def fresh_linear_sets(
    settings: LinearData, own: Table | None, repetitions: int, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Data of as many repetitions: drawn as the settings say, or an own CSV's rows drawn with replacement (bootstrap).

    Returns:
        features (rows, repetitions, features) and target (rows, repetitions).
    """
    if own is not None:
        return resampled(own, repetitions, generator)
    shape = (settings.rows, repetitions, len(settings.weights))
    x = settings.x
    features = (
        generator.uniform(x.low, x.high, shape) if isinstance(x, Uniform) else generator.normal(x.mean, x.sd, shape)
    )
    target = np.full(shape[:2], settings.bias)
    for j, weight in enumerate(settings.weights):
        target += weight * features[:, :, j]
    if settings.noise:
        target += settings.noise * generator.standard_normal(shape[:2])
    return features, target


def distribution_of(x: Uniform | Normal) -> theory.Distribution:
    """The distribution of a feature, as theory takes it."""
    return theory.uniform(x.low, x.high) if isinstance(x, Uniform) else theory.normal(x.mean, x.sd)


def resampled(own: Table, repetitions: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Rows of a table drawn with replacement: features (rows, repetitions, features) and target (rows, repetitions)."""
    rows = generator.integers(0, len(own.target), (len(own.target), repetitions))
    return own.features.to_numpy()[rows], own.target.to_numpy()[rows]


def own_table(data_set: str, settings: DataSet, read: Callable[[Path], Table]) -> Table | None:
    """The data set's CSV where it is the user's own; None where the data are drawn."""
    return None if settings.file is None else read(DATA / f"{data_set}.csv")


# --- scaling ---------------------------------------------------------------------------------------------------------


def scaled(features: Array, *, standardize: bool) -> tuple[Array, Callable[[Array], Array]]:
    """Each repetition's features, with mean 0 and standard deviation 1 if asked for.

    Returns:
        The features, and the function that takes theta (..., repetitions, parameters) back to the CSV's units.
    """
    if not standardize:
        return features, lambda theta: theta
    mean, sd = features.mean(axis=0), features.std(axis=0)  # both (repetitions, features)
    sd[sd == 0] = 1  # a bootstrap of few rows may draw one of them only

    def in_csv_units(theta: Array) -> Array:
        weights = theta[..., :-1] / sd
        return np.concatenate([weights, theta[..., -1:] - (weights * mean).sum(axis=-1, keepdims=True)], axis=-1)

    return (features - mean) / sd, in_csv_units


# --- losses ----------------------------------------------------------------------------------------------------------


class Quadratic:
    """factor/2 * mean((Z theta - y)^2) of each repetition, Z the features with a column of ones, from second moments.

    With G = Z'Z/n, h = Z'y/n and c = mean(y^2) the loss is factor/2 * (theta'G theta - 2 h'theta + c) and its gradient
    factor * (G theta - h).
    """

    def __init__(self, features: Array, target: Array, factor: float) -> None:
        rows = len(target)
        Z = np.concatenate([features, np.ones((*target.shape, 1))], axis=2)
        self.G = np.einsum("nri,nrj->rij", Z, Z) / rows
        self.h = np.einsum("nri,nr->ri", Z, target) / rows
        self.c = np.einsum("nr,nr->r", target, target) / rows
        self.factor = factor

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""
        part = object.__new__(type(self))
        part.G, part.h, part.c, part.factor = self.G[kept], self.h[kept], self.c[kept], self.factor
        return part

    def loss(self, theta: Array) -> Array:
        """(repetitions,)."""
        return self.factor / 2 * (np.einsum("ri,ri->r", theta, self._G_times(theta) - 2 * self.h) + self.c)

    def gradient(self, theta: Array) -> Array:
        """(repetitions, parameters)."""
        return self.factor * (self._G_times(theta) - self.h)

    def largest_eigenvalue(self) -> Array:
        """Of each repetition's Hessian, factor * G."""
        return self.factor * np.linalg.eigvalsh(self.G)[:, -1]

    def _G_times(self, theta: Array) -> Array:
        return np.einsum("rij,rj->ri", self.G, theta)


# --- bookkeeping -----------------------------------------------------------------------------------------------------


class Runs:
    """How repetitions that run side by side end, and what they passed on the way.

    The rules are the training stages': iteration k is the state before update k; a loss below `stop_below` ends a run
    after that iteration's update; one that is no longer finite has diverged, and its last finite observation counts.

    Attributes:
        theta: (repetitions, parameters), the newest state observed.
        loss: (repetitions,), its loss.
        iterations: (repetitions,), the updates made.
        stopped: (repetitions,), `iterations`, `loss` or `diverged`.
        stop_loss: (repetitions,), nan where a run did not stop on its loss.
        theta_at: (recorded, repetitions, parameters), nan for iterations that a run did not reach.
        loss_at: (recorded, repetitions), likewise.
    """

    def __init__(self, start: Array, *, limit: int, stop_below: float | None, record: Sequence[int] = ()) -> None:
        repetitions, parameters = start.shape
        self.limit = limit
        self.theta = start.copy()
        self.loss = np.full(repetitions, np.nan)
        self.iterations = np.zeros(repetitions, dtype=int)
        self.stopped = np.full(repetitions, "iterations", dtype=object)
        self.stop_loss = np.full(repetitions, np.nan)
        self.theta_at = np.full((len(record), repetitions, parameters), np.nan)
        self.loss_at = np.full((len(record), repetitions), np.nan)
        self._stop_below = -np.inf if stop_below is None else stop_below
        self._place = {iteration: place for place, iteration in enumerate(record)}
        self._running = np.arange(repetitions)

    def observe(self, iteration: int, theta: Array, loss: Array, *, compare: bool = True) -> Array:
        """Sees those still running before an update.

        Args:
            iteration: updates made so far.
            theta: (running, parameters).
            loss: (running,), over the whole data set.
            compare: whether the loss is compared with `stop_below`.

        Returns:
            Which of them go on, (running,).
        """
        finite = np.isfinite(loss) & np.isfinite(theta).all(axis=1)
        seen = self._running[finite]
        self.theta[seen], self.loss[seen], self.iterations[seen] = theta[finite], loss[finite], iteration
        if iteration in self._place:
            self.theta_at[self._place[iteration], seen] = theta[finite]
            self.loss_at[self._place[iteration], seen] = loss[finite]
        self.stopped[self._running[~finite]] = "diverged"
        self.stop_loss[self._running[~finite]] = np.nan
        going = finite & (self.stopped[self._running] == "iterations") & (iteration < self.limit)
        self._running = self._running[going]
        if compare:
            met = loss[going] < self._stop_below
            self.stopped[self._running[met]] = "loss"
            self.stop_loss[self._running[met]] = loss[going][met]
        return going

    @property
    def is_ending(self) -> bool:
        """Whether a run has met `stop_below` and waits for the observation after its last update."""
        return bool(np.any(self.stopped[self._running] == "loss"))

    def in_units(self, in_csv_units: Callable[[Array], Array]) -> Self:
        """The same runs with theta in the CSV's units."""
        self.theta, self.theta_at = in_csv_units(self.theta), in_csv_units(self.theta_at)
        return self

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The runs of all chunks, in order."""
        whole = object.__new__(cls)
        for name in ("theta", "loss", "iterations", "stopped", "stop_loss"):
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        for name in ("theta_at", "loss_at"):
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts], axis=1))
        return whole

    @property
    def finite(self) -> Array:
        """Which runs did not diverge."""
        return self.stopped != "diverged"


def descend_full_batch(
    objective: Any, start: Array, settings: IterativeTraining | LogisticTraining, record: Sequence[int]
) -> Runs:
    """theta <- theta - lr * v in every repetition, v the gradient, or the sum of all gradients where none is zeroed.

    Args:
        objective: has loss(theta), gradient(theta), and [mask] for a part of the repetitions.
        start: (repetitions, parameters).
        settings: lr, zero_grad, iterations and stop_below.
        record: iterations to record.
    """
    runs = Runs(start, limit=settings.iterations, stop_below=settings.stop_below, record=record)
    theta, v = start, np.zeros_like(start)
    with np.errstate(over="ignore", invalid="ignore"):  # runs that diverge
        for iteration in range(settings.iterations + 1):
            going = runs.observe(iteration, theta, objective.loss(theta))
            if not going.all():
                theta, v, objective = theta[going], v[going], objective[going]
                if not len(theta):
                    break
            gradient = objective.gradient(theta)
            v = gradient if settings.zero_grad else v + gradient
            theta = theta - settings.lr * v
    return runs


# --- what is reported ------------------------------------------------------------------------------------------------


def decimals_of(printed: str) -> int:
    """How many decimals a printed number has."""
    return len(printed.partition(".")[2])


def percentiles_of_printed(values: Array, printed: str) -> dict[str, float]:
    """Where a printed number lies among the values, in percent: an interval, since it was rounded when it was printed.

    From the share of values below all numbers that print so to the share not above them.
    """
    decimals = decimals_of(printed)
    low, high = float(printed) - 0.5 * 10.0**-decimals, float(printed) + 0.5 * 10.0**-decimals
    return {
        "percentile_low": 100 * float(np.mean(values < low)),
        "percentile_high": 100 * float(np.mean(values <= high)),
    }


def percentiles_of_fitted(runs: Runs, printed: dict[str, str]) -> dict[str, dict[str, float]]:
    """Where each printed parameter lies among the runs' final ones, and their spread."""
    return {
        name: {**percentiles_of_printed(values, printed[name]), **spread(values)}
        for name, values in zip(names_of(runs.theta), runs.theta.T, strict=True)
        if name in printed
    }


def prints_as(values: Array, printed: str) -> Array:
    """Which values round to the printed number at its number of decimals."""
    decimals = decimals_of(printed)
    return np.round(values, decimals) == float(printed)


def spread(values: Array) -> dict[str, float]:
    """Of the finite values: the ends of the central 99 %, median, mean, and standard deviation unless it overflows."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    found = {"low": float(low), "median": float(median), "high": float(high), "mean": float(values.mean())}
    with np.errstate(over="ignore"):
        sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {**found, "sd": sd} if np.isfinite(sd) else found


def outcome(runs: Runs) -> dict[str, Any]:
    """How the runs ended, and the spread of what those that did not diverge ended with."""
    kept = runs.finite
    ways = {way: float(np.mean(runs.stopped == way)) for way in ("loss", "iterations", "diverged")}
    if not kept.any():
        return {"share_stopped": ways}
    fitted = {name: spread(values) for name, values in zip(names_of(runs.theta), runs.theta[kept].T, strict=True)}
    return {
        "share_stopped": ways,
        "iterations": spread(runs.iterations[kept].astype(float)),
        "fitted": fitted,
        "loss": spread(runs.loss[kept]),
    }


def names_of(theta: Array) -> list[str]:
    """The names of the parameters, which run along the last axis."""
    return parameter_names(theta.shape[-1] - 1)
