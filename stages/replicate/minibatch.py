"""Repeats the mini-batch fit with fresh data, starts and shuffles.

By hand, the gradient of a batch's summed losses (x . w + b - y)^2 / 2 is sum(x (x . w + b - y)) and sum(x . w + b - y);
it is divided by the batch size.

in   params.yaml: data.plane, train.minibatch, replicate; data/published.yaml; data/plane.csv where it is one's own
out  reports/replicates/minibatch.csv, a row a repetition; its columns loss_100, ... are the losses at the iterations
     that the article printed
run  python -m stages.replicate.minibatch
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from stages.common.errors import run_stage
from stages.common.params import load_group
from stages.common.published import read_published
from stages.common.schema import LinearData, MinibatchTraining, Replicate
from stages.common.tables import read_linear_set
from stages.replicate.runs import (
    Array,
    Moments,
    Runs,
    chunks,
    descend,
    fresh_linear_sets,
    loss_columns,
    of_moments,
    own_table,
    scaled,
    shape_of,
    write_runs,
)


class Batches(Moments):
    """Half the mean of squares of each repetition, and its gradient on one batch after another."""

    factor = 0.5

    def __init__(self, features: Array, target: Array, orders: Iterable[Array], batch_size: int) -> None:
        super().__init__(features, target)
        self._kept = np.arange(target.shape[1])
        self._rows_of_all = self._Z.reshape(-1, self._Z.shape[2]), target.ravel()  # row n of repetition r is n R + r
        self._batch_size = batch_size
        self._orders = iter(orders)
        self._order = np.empty(0, dtype=int)

    def __getitem__(self, kept: Array) -> "Batches":
        """The repetitions that a mask keeps."""
        part = super().__getitem__(kept)
        part._kept = self._kept[kept]
        return part

    def gradient(self, theta: Array, iteration: int) -> Array:
        """(repetitions, features + 1); of all rows at once, their order says nothing and their moments all."""
        if self._batch_size >= len(self._y):
            return (self.product(theta) - self.h) * (len(self._y) / self._batch_size)
        batch = iteration % math.ceil(len(self._y) / self._batch_size)
        if batch == 0:
            self._order = next(self._orders)
        rows = self._order[batch * self._batch_size : (batch + 1) * self._batch_size, self._kept]
        places = rows * self._y.shape[1] + self._kept  # one index each: three times as fast as two
        z, y = (numbers.take(places, axis=0) for numbers in self._rows_of_all)
        residual = np.einsum("nri,ri->nr", z, theta) - y
        return np.einsum("nri,nr->ri", z, residual) / self._batch_size


def repeat(
    features: Array,
    target: Array,
    start: Array,
    orders: Iterable[Array],
    settings: MinibatchTraining,
    record: Sequence[int] = (),
) -> tuple[Runs, list[Array]]:
    """Mini-batch descent in every repetition.

    Args:
        features: (rows, repetitions, features).
        target: (rows, repetitions).
        start: (repetitions, features + 1), the weights and b; on scaled features where they are standardized.
        orders: for each epoch the rows in the order of their reading, (rows, repetitions).
        settings: train.minibatch.
        record: iterations to record.

    Returns:
        The runs, and their losses at each of these iterations.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    batches = math.ceil(len(target) / settings.batch_size)  # an epoch
    updates, every = settings.epochs * batches, settings.log_every * batches
    problem = Batches(x, target, orders, settings.batch_size)
    runs = descend(problem, start, settings, updates=updates, every=every, record=record)
    losses = [problem.loss_of_rows(theta) for theta in runs.theta_at]
    return runs.in_units(in_csv_units), losses


def main() -> None:
    data = load_group("data.plane", LinearData)
    settings = load_group("train.minibatch", MinibatchTraining)
    replicate = load_group("replicate", Replicate)
    own = own_table("plane", data, read_linear_set)
    rows, parameters = shape = shape_of(data, own)
    batches = math.ceil(rows / settings.batch_size)
    reads = of_moments(shape, settings.epochs) if batches == 1 else settings.epochs * rows * parameters
    ends = {epoch * batches for epoch in range(settings.epochs + 1)}
    printed = [int(k) for k in read_published("minibatch")["losses"] if int(k) in ends]
    parts, losses = [], []
    for repetitions, generator in chunks("minibatch", replicate, shape, reads):
        features, target, left_out = fresh_linear_sets(data, own, repetitions, generator)
        weights = 0.01 * generator.standard_normal((repetitions, features.shape[2]))
        start = np.column_stack([weights, np.zeros(repetitions)])
        in_order = np.tile(np.arange(rows)[:, np.newaxis], repetitions)
        orders = (generator.permuted(in_order, axis=0) for _ in range(settings.epochs))
        runs, losses_of_chunk = repeat(features, target, start, orders, settings, printed)
        parts.append(runs.scored(own, left_out))
        losses.append(losses_of_chunk)
    write_runs("minibatch", Runs.joined(parts), loss_columns(printed, losses), own)


if __name__ == "__main__":
    run_stage(main)
