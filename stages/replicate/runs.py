"""What the repetitions of the six experiments share: fresh data, the loop of many runs side by side, their bookkeeping.

Arrays put the rows first, then the repetitions, (rows, repetitions, features), so that one row of every repetition lies
together. theta is (repetitions, parameters): the weights, then b. NumPy only; the gradients are each experiment's own.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from stages.common.experiments import EXPERIMENTS, parameter_names
from stages.common.files import DATA, ESTIMATED, REPLICATES, Columns, write_csv
from stages.common.progress import progress
from stages.common.rounding import rounded_loss
from stages.common.schema import ClustersData, DataSet, LinearData, Replicate, Training, Uniform
from stages.common.tables import Table

Array = np.ndarray

# Repetitions drawn and run together; part of the meaning of a seed, since they fix the order of draws. Fewer where
# there are many rows or columns, so that an array of a chunk's data stays below 100 MB or so.
CHUNK = 500
CHUNK_ROWS = 2_500_000  # rows times repetitions
CHUNK_NUMBERS = 7_500_000  # times parameters
DECOMPOSED = 50  # times as fast as it reads numbers, a processor decomposes moments

MILLION = 1_000_000  # the unit of the budget

Shape = tuple[int, int]  # rows and parameters of one repetition


def shape_of(settings: DataSet, own: Table | None, form: str = "general") -> Shape:
    """Rows and parameters of one repetition's data."""
    if own is not None:
        rows, features = own.features.shape
    elif isinstance(settings, LinearData):
        rows, features = settings.rows, len(settings.weights)
    else:
        assert isinstance(settings, ClustersData)
        rows, features = 2 * settings.rows_per_cluster, len(settings.centers)
    return rows, 2 if form == "slope-intercept" else features + 1


def chunks(experiment: str, settings: Replicate, shape: Shape, reads: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Size and generator of each chunk of repetitions, the same however many chunks follow.

    Args:
        experiment: its stream of random numbers is its own.
        settings: count, budget and seed.
        shape: of one repetition's data.
        reads: numbers that its updates read.
    """
    stream = EXPERIMENTS[experiment].stream
    rows, parameters = shape
    together = max(1, min(CHUNK, CHUNK_ROWS // rows, CHUNK_NUMBERS // (rows * parameters)))
    decomposition = parameters**3 // DECOMPOSED if rows >= parameters else 0
    count = affordable(experiment, settings, reads + rows * parameters + decomposition)
    for number in progress(math.ceil(count / together), "chunk"):
        size = min(together, count - number * together)
        yield size, np.random.default_rng([settings.seed, stream, number])


def of_moments(shape: Shape, updates: int) -> int:
    """The numbers that so many updates from second moments read."""
    return updates * shape[1] ** 2


def affordable(experiment: str, settings: Replicate, reads: int) -> int:
    """How many repetitions the budget allows, at least 2 of those asked for; says so where these are fewer.

    Fewer repetitions are as valid as many, and known from their number to be less sure: a percentile p to
    sqrt(p (1 - p) / n), a standard error to a share of 1 / sqrt(2 n). Resamples of fewer rows (Bickel, Goetze and van
    Zwet, Resampling fewer than n observations, 1997) would not spare anything: a fit needs its updates all the same.
    """
    count = min(settings.count, max(2, settings.budget * MILLION // reads))
    if count < settings.count:
        needed = math.ceil(settings.count * reads / MILLION)
        print(  # noqa: T201
            f"{experiment}: {count:,} of the {settings.count:,} repetitions, which would read {needed:,} million"
            f" numbers; for all of them set replicate.budget, now {settings.budget:,}, to that"
        )
    return count


# --- fresh data ------------------------------------------------------------------------------------------------------


class Fresh(NamedTuple):
    """Data of as many repetitions.

    Attributes:
        features: (rows, repetitions, features).
        target: (rows, repetitions).
        left_out: (rows, repetitions), which of one's own rows a resample does not have; None of data that are drawn.
    """

    features: Array
    target: Array
    left_out: Array | None = None


def fresh_linear_sets(
    settings: LinearData, own: Table | None, repetitions: int, generator: np.random.Generator
) -> Fresh:
    """Data drawn as the settings say, or an own CSV's rows drawn with replacement (bootstrap)."""
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
    return Fresh(features, target)


def resampled(own: Table, repetitions: int, generator: np.random.Generator) -> Fresh:
    """Rows of a table drawn with replacement."""
    rows = generator.integers(0, len(own.target), (len(own.target), repetitions))
    left_out = np.ones(rows.shape, dtype=bool)
    np.put_along_axis(left_out, rows, False, axis=0)
    return Fresh(own.features[rows], own.target[rows], left_out)


def squared_errors(own: Table, theta: Array) -> Array:
    """Of lines, on each row of a table, (rows, repetitions)."""
    return (own.features @ theta[:, :-1].T + theta[:, -1] - own.target[:, np.newaxis]) ** 2


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


# --- moments ---------------------------------------------------------------------------------------------------------


class Moments:
    """The second moments of each repetition's data, G = Z'Z/n, h = Z'y/n, c = mean(y^2), Z the features and ones.

    The loss, mean((Z theta - y)^2) or half of it, follows from them without the rows; but it is a difference of numbers
    of the size of c, and loses their digits where it is small.

    Attributes:
        factor: of the mean of squares in the loss, 1 or 1/2.
    """

    factor = 1.0

    def __init__(self, features: Array, target: Array) -> None:
        rows, Z = len(target), with_ones(features)
        self._Z, self._y = Z, target
        # of more parameters than rows G would be larger than the data
        self.G = Z.transpose(1, 2, 0) @ Z.transpose(1, 0, 2) / rows if rows >= Z.shape[2] else None
        self.h = np.einsum("nri,nr->ri", Z, target) / rows
        self.c = np.einsum("nr,nr->r", target, target) / rows

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""
        part = copy.copy(self)
        part.h, part.c = self.h[kept], self.c[kept]
        if self.G is None:
            part._Z = self._Z[:, kept]
        else:
            part.G = self.G[kept]
        return part

    def loss(self, theta: Array) -> Array:
        """factor (theta'G theta - 2 h'theta + c), (repetitions,)."""
        return self.factor * (np.einsum("ri,ri->r", theta, self.product(theta) - 2 * self.h) + self.c)

    def loss_of_rows(self, theta: Array) -> Array:
        """(repetitions,); only before any repetition is left out."""
        residual = np.einsum("nri,ri->nr", self._Z, theta) - self._y
        return without_residue(self.factor * np.einsum("nr,nr->r", residual, residual) / len(residual), self._y)

    def excess(self, theta: Array) -> Array:
        """The loss above its minimum, factor e'G e for e = theta - G^+ h, (repetitions,); nan of too few rows."""
        if self.G is None:
            return np.full(len(theta), np.nan)
        e = theta - np.einsum("rij,rj->ri", np.linalg.pinv(self.G, hermitian=True), self.h)
        return self.factor * np.einsum("ri,ri->r", e, self.product(e))

    def product(self, theta: Array) -> Array:
        """G theta, (repetitions, parameters)."""
        if self.G is None:
            return np.einsum("nri,nr->ri", self._Z, np.einsum("nri,ri->nr", self._Z, theta)) / len(self._Z)
        return np.einsum("rij,rj->ri", self.G, theta)


def without_residue(loss: Array, target: Array) -> Array:
    """Losses (repetitions,) to the digits that are known of them, target (rows, repetitions)."""
    mean_square = np.einsum("nr,nr->r", target, target) / len(target)
    return np.array([rounded_loss(*pair) for pair in zip(loss.tolist(), mean_square.tolist(), strict=True)])


def with_ones(features: Array) -> Array:
    """Features (rows, repetitions, features) with a last column of ones, which b multiplies."""
    Z = np.ones((*features.shape[:2], features.shape[2] + 1))
    Z[:, :, :-1] = features
    return Z


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
        excess: (repetitions,), the loss above its minimum; nan where theory has none.
        unseen: (repetitions,), the mean score of rows that a resample of one's own data left out; nan where there are
            none.
        theta_at: (recorded, repetitions, parameters), nan for iterations that a run did not reach.
    """

    def __init__(self, start: Array, *, limit: int, stop_below: float | None, record: Sequence[int] = ()) -> None:
        repetitions, parameters = start.shape
        self.theta = start.copy()
        self.loss = np.full(repetitions, np.nan)
        self.iterations = np.zeros(repetitions, dtype=int)
        self.stopped = np.full(repetitions, "iterations", dtype=object)
        self.stop_loss = np.full(repetitions, np.nan)
        self.excess = np.full(repetitions, np.nan)
        self.unseen = np.full(repetitions, np.nan)
        self.theta_at = np.full((len(record), repetitions, parameters), np.nan)
        self._limit = limit
        self._stop_below = -np.inf if stop_below is None else stop_below
        self._place = {iteration: place for place, iteration in enumerate(record)}
        self._running = np.arange(repetitions)
        self._has_met = np.zeros(repetitions, dtype=bool)  # of the running: wait for the state after their last update
        self._newest = 0, self.theta, self.loss  # of the running: iteration and what was observed there

    def record(self, iteration: int, theta: Array, loss: Array) -> None:
        """Keeps the state of those still running, (running, parameters), where it is asked for and its loss finite."""
        if iteration in self._place:
            finite = np.isfinite(loss)
            self.theta_at[self._place[iteration], self._running[finite]] = theta[finite]

    def observe(self, iteration: int, theta: Array, loss: Array, *, compare: bool = True) -> Array:
        """Sees those still running before an update.

        Args:
            iteration: updates made so far.
            theta: (running, parameters).
            loss: (running,), over the whole data set; finite only where theta is.
            compare: whether this is an observation for all: the loss is compared with `stop_below`, and a run that
                diverges before the next one ends here. Else only those that wait for their end are looked at.

        Returns:
            Which of them go on, (running,).
        """
        self.record(iteration, theta, loss)
        finite = np.isfinite(loss)
        going = finite & ~self._has_met if iteration < self._limit else np.zeros_like(finite)
        if not going.all():
            self._end(~going, finite, iteration, theta, loss)
            self._running, theta, loss = self._running[going], theta[going], loss[going]
        if compare:
            self._newest = iteration, theta, loss
        else:
            before, theta_before, loss_before = self._newest
            self._newest = before, theta_before[going], loss_before[going]
        self._has_met = (loss < self._stop_below) & compare
        self.stop_loss[self._running[self._has_met]] = loss[self._has_met]
        return going

    def _end(self, ending: Array, finite: Array, iteration: int, theta: Array, loss: Array) -> None:
        """Writes down how runs end: at this state, or where it is not finite at the one observed before."""
        before, theta_before, loss_before = self._newest
        runs = self._running[ending]
        self.theta[runs] = np.where(finite[:, np.newaxis], theta, theta_before)[ending]
        self.loss[runs] = np.where(finite, loss, loss_before)[ending]
        self.iterations[runs] = np.where(finite, iteration, before)[ending]
        self.stopped[runs] = np.select([~finite, self._has_met], ["diverged", "loss"], "iterations")[ending]
        self.stop_loss[self._running[~finite]] = np.nan

    @property
    def is_ending(self) -> bool:
        """Whether a run has met `stop_below` and waits for the observation after its last update."""
        return bool(self._has_met.any())

    def in_units(self, in_csv_units: Callable[[Array], Array]) -> Self:
        """The same runs with theta in the CSV's units."""
        self.theta, self.theta_at = in_csv_units(self.theta), in_csv_units(self.theta_at)
        return self

    def scored(
        self, own: Table | None, left_out: Array | None, score: Callable[[Table, Array], Array] = squared_errors
    ) -> Self:
        """The same runs, each tried on the rows that it has not seen ("out of bag").

        Args:
            own: the table that was resampled, if one was.
            left_out: (rows, repetitions), the rows that a resample does not have.
            score: of theta (repetitions, parameters), in the CSV's units, on each row, (rows, repetitions).
        """
        if own is not None and left_out is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # runs that diverged; resamples that have all rows
                self.unseen = np.where(left_out, score(own, self.theta), 0).sum(axis=0) / left_out.sum(axis=0)
        return self

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The runs of all chunks, in order."""
        whole = object.__new__(cls)
        for name in ("theta", "loss", "iterations", "stopped", "stop_loss", "excess", "unseen"):
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        whole.theta_at = np.concatenate([part.theta_at for part in parts], axis=1)
        return whole


class Problem(Protocol):
    """Many repetitions of one fit: the loss over all rows and, by hand, the gradient of an update."""

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""

    def loss(self, theta: Array) -> Array:
        """Over all rows of each repetition, (repetitions,), quickly."""

    def loss_of_rows(self, theta: Array) -> Array:
        """The same with all digits, (repetitions,); of all repetitions, none of them left out."""

    def gradient(self, theta: Array, iteration: int) -> Array:
        """What update `iteration` goes against, (repetitions, parameters)."""


def descend(
    problem: Problem, start: Array, settings: Training, *, updates: int, every: int = 1, record: Sequence[int] = ()
) -> Runs:
    """theta <- theta - lr * v in every repetition, v the gradient, or the sum of all gradients where none is zeroed.

    Args:
        problem: losses and gradients.
        start: (repetitions, parameters).
        settings: lr, zero_grad and stop_below.
        updates: how many to make, at most.
        every: iterations from one observation to the next; those look at the stop and at divergence.
        record: iterations whose states to keep.
    """
    runs = Runs(start, limit=updates, stop_below=settings.stop_below, record=record)
    theta, v, wanted, of_all = start, np.zeros_like(start), set(record), problem
    with np.errstate(over="ignore", invalid="ignore"):  # runs that diverge
        for iteration in progress(updates + 1, "update"):
            is_due = iteration % every == 0
            if is_due or iteration == updates or runs.is_ending:
                going = runs.observe(iteration, theta, problem.loss(theta), compare=is_due)
                if not going.all():
                    theta, v, problem = theta[going], v[going], problem[going]
                    if not len(theta):
                        break
            elif iteration in wanted:
                runs.record(iteration, theta, problem.loss(theta))
            gradient = problem.gradient(theta, iteration)
            v = gradient if settings.zero_grad else v + gradient
            theta = theta - settings.lr * v
        loss = of_all.loss_of_rows(runs.theta)
        runs.loss = np.where(np.isfinite(loss), loss, runs.loss)
        runs.excess = of_all.excess(runs.theta) if isinstance(of_all, Moments) else np.full(len(loss), np.nan)
    return runs


# --- what is written -------------------------------------------------------------------------------------------------


def write_runs(experiment: str, runs: Runs, more: Columns, own: Table | None) -> None:
    """reports/replicates/<experiment>.csv: a row a repetition, with the digits that a thousand of them can tell.

    Of one's own data also the excess, by which it is known which resamples are finished, and how they do on the rows
    that they left out.
    """
    names = parameter_names(runs.theta.shape[1] - 1)
    of_resamples = {} if own is None else {"excess": runs.excess, "unseen": runs.unseen}
    columns = {
        **dict(zip(names, runs.theta.T.tolist(), strict=True)),
        "loss": runs.loss.tolist(),
        "iterations": runs.iterations.tolist(),
        "stopped": runs.stopped.tolist(),
        **{name: values.tolist() for name, values in of_resamples.items() if not np.isnan(values).all()},
        **more,
    }
    write_csv(columns, REPLICATES / f"{experiment}.csv", digits=ESTIMATED)


def write_none(*names: str) -> None:
    """The same files with a header only, where the data are none for the experiment."""
    for name in names:
        write_csv({column: [] for column in (*parameter_names(1), "loss")}, REPLICATES / f"{name}.csv")


def loss_columns(iterations: Sequence[int], parts: Sequence[Sequence[Array]]) -> Columns:
    """Losses at iterations, of each chunk (repetitions,), as columns `loss_<iteration>`."""
    return {
        f"loss_{k}": np.concatenate(losses).tolist()
        for k, losses in zip(iterations, zip(*parts, strict=True), strict=True)
    }
