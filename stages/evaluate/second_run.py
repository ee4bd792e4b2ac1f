"""The fit once more, in NumPy: the start, the order of rows and the updates that the settings ask for.

The loop is the articles' p <- p - lr * gradient with theory's gradient. How far two right programs may differ is found
by a third run, on data whose last bits are changed: what the fit's arithmetic does with these is what it does with its
own rounding.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluate.draws import STARTS, TorchGenerator, drawn_start
from stages.evaluate.evidence import MARGIN, Array, Evidence, in_csv_units

DECIDED = 1e-3  # of the largest parameter: where rounding may move one by more, a run can't be repeated
UPDATES, VISITS = 20_000, 20_000_000  # computed once more, at most: updates, and rows read for them or for losses


@dataclass(frozen=True)
class SecondRun:
    """What the recorded rows should hold.

    Attributes:
        theta: (rows, parameters), in the CSV's units, for as many of the first rows of the history as were run.
        doubt: (rows, parameters), how far a right program may be from it.
    """

    theta: Array
    doubt: Array

    @property
    def decided(self) -> int:
        """How many of the first rows rounding leaves where they are."""
        with np.errstate(invalid="ignore"):
            is_known = np.all(self.doubt <= DECIDED * np.abs(self.theta).max(axis=1, keepdims=True), axis=1)
        return len(is_known) if is_known.all() else int(np.argmin(is_known))


def second_run(e: Evidence) -> SecondRun | None:
    """None where the start is not known, or the fit was made with fewer digits."""
    if e.experiment.name not in STARTS or e.train.dtype != "float64":
        return None
    watched = e.history["iteration"][e.history["iteration"] <= min(UPDATES, VISITS // rows_a_step(e))].astype(int)
    (mean, sd), other = e.scale, e.with_other_last_bits
    # scaled by the same, since features of mean 0 again would hide what a mean that is a bit off does
    data = (e.scaled_features, e.table.target), ((other.table.features - mean) / sd, other.table.target)
    with np.errstate(all="ignore"):  # a fit that diverges
        theta, nudged = _theta_at(e, data, watched)
        theta, nudged = in_csv_units(theta, mean, sd), in_csv_units(nudged, *other.scale)
        sums = np.abs(theta)
        sums[:, -1] += np.sum(np.abs(theta[:, :-1] * mean), axis=1)  # b is the rest of these
        moved = np.maximum(np.abs(theta - nudged), np.finfo(float).eps * sums)
    return SecondRun(theta, MARGIN * np.maximum.accumulate(moved))


def rows_a_step(e: Evidence) -> int:
    """How many rows an update reads; a short last batch counts as a whole one, as in its article."""
    count = {"all rows": len(e.table.target), "one row": 1}.get(e.experiment.step)
    return count or int(e.train.model_dump()["batch_size"])


def rows_in_order(e: Evidence, generator: TorchGenerator) -> Iterator[Array | slice]:
    """Which rows each update reads."""
    count, size = len(e.table.target), rows_a_step(e)
    while True:
        if e.experiment.step == "batch":
            yield from np.split(generator.randperm(count), range(size, count, size))
        else:
            yield from (slice(start, start + size) for start in range(0, count, size))


def _theta_at(e: Evidence, data: Sequence[tuple[Array, Array]], watched: Array) -> list[Array]:
    """theta after so many updates, (watched, parameters), in the units of the fit, on each of the same rows' data."""
    start, generator = drawn_start(e.experiment.name, data[0][0].shape[1], e.train)
    orders = itertools.tee(rows_in_order(e, generator), len(data))  # side by side: they are drawn once, and not kept
    runs = [states(e, start, x, y, order) for (x, y), order in zip(data, orders, strict=True)]
    wanted, last = set(watched.tolist()), int(watched[-1])
    found = [theta for update, *theta in zip(range(last + 1), *runs, strict=False) if update in wanted]
    return [np.array(of_run) for of_run in zip(*found, strict=True)]


def states(e: Evidence, theta: Array, x: Array, target: Array, orders: Iterator[Array | slice]) -> Iterator[Array]:
    """theta before each update, (parameters,), without end, in the units of the fit: x are the features it sees."""
    step, added = e.train.lr / rows_a_step(e), np.zeros_like(theta)
    while True:
        yield theta
        rows = next(orders)
        gradient = e.model.gradient(x[rows], target[rows], theta)
        added = gradient if e.train.zero_grad else added + gradient
        theta = theta - step * added


def updates_to_stop(e: Evidence, limit: int) -> int | None:
    """How many updates the fit makes until its loss over all rows has met stop_below; None if more than the limit."""
    x, target, below = e.scaled_features, e.table.target, e.train.stop_below or 0
    start, generator = drawn_start(e.experiment.name, x.shape[1], e.train)
    for update, theta in zip(range(limit), states(e, start, x, target, rows_in_order(e, generator)), strict=False):
        losses, _ = e.model.losses(e.model.predict(x, theta), target)
        if losses.mean() < below:
            return update + 1
    return None
