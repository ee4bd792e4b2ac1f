"""Repeats the fit of the layer applied twice with fresh data and starts: which start goes where?

By hand, with r = w (w x + b) + b - y, the gradient of r^2 is 2 r (2 w x + b) by w and 2 r (w + 1) by b.

in   params.yaml: data.stream, train.shared, replicate; data/stream.csv where it is one's own
out  reports/replicates/shared.csv, a row a repetition; reports/replicates/shared-course.csv, the ways of the first few
run  python -m stages.replicate.shared
"""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np

from stages.common.errors import run_stage
from stages.common.files import ESTIMATED, REPLICATES, Columns, write_csv
from stages.common.params import load_group
from stages.common.schema import LinearData, Replicate, SharedTraining
from stages.common.tables import Table, read_linear_set
from stages.replicate.runs import (
    Array,
    Runs,
    chunks,
    descend,
    fresh_linear_sets,
    own_table,
    shape_of,
    without_residue,
    write_none,
    write_runs,
)

WAYS = 16  # repetitions whose way is kept for the figure


class AppliedTwice:
    """mean((w (w x + b) + b - y)^2) of each repetition, from second moments: y_hat = w^2 x + (w + 1) b is a line."""

    def __init__(self, x: Array, y: Array) -> None:
        self._x, self._y = x, y
        self._moments = np.array([(x * x).mean(0), x.mean(0), (x * y).mean(0), y.mean(0), (y * y).mean(0)])

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""
        part = copy.copy(self)
        part._x, part._y, part._moments = self._x[:, kept], self._y[:, kept], self._moments[:, kept]
        return part

    def loss(self, theta: Array) -> Array:
        """(repetitions,)."""
        xx, x, xy, y, yy = self._moments
        slope, intercept = theta[:, 0] ** 2, (theta[:, 0] + 1) * theta[:, 1]
        return slope * (slope * xx - 2 * xy) + intercept * (intercept + 2 * slope * x - 2 * y) + yy

    def loss_of_rows(self, theta: Array) -> Array:
        """(repetitions,); only before any repetition is left out."""
        w, b = theta.T
        return without_residue(((w * (w * self._x + b) + b - self._y) ** 2).mean(axis=0), self._y)

    def gradient(self, theta: Array, iteration: int) -> Array:
        """Of one row, in order and from the top again, (repetitions, 2)."""
        x, y = self._x[iteration % len(self._x)], self._y[iteration % len(self._y)]
        w, b = theta.T
        twice_r = 2 * (w * (w * x + b) + b - y)
        return np.column_stack([twice_r * (2 * w * x + b), twice_r * (w + 1)])


def repeat(features: Array, target: Array, start: Array, settings: SharedTraining, record: Sequence[int] = ()) -> Runs:
    """Descent on one row a step in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b.
        settings: train.shared.
        record: iterations to record, multiples of `log_every`.
    """
    updates, every = settings.iterations, settings.log_every
    problem = AppliedTwice(features[:, :, 0], target)
    return descend(problem, start, settings, updates=updates, every=every, record=record)


def ways(runs: Runs, record: Sequence[int]) -> Columns:
    """The first few runs on their way, at iterations that lie closer at the beginning, where they move fast."""
    chosen = np.unique(np.geomspace(1, len(record), 40).round().astype(int) - 1)
    rows = [
        (repetition, record[place], *runs.theta_at[place, repetition].tolist())
        for repetition in range(min(WAYS, len(runs.loss)))
        for place in chosen
        if np.isfinite(runs.theta_at[place, repetition]).all()
    ]
    return dict(zip(("repetition", "iteration", "w", "b"), map(list, zip(*rows, strict=True)), strict=True))


def squared_errors(own: Table, theta: Array) -> Array:
    """On each row of a table, (rows, repetitions)."""
    w, b = theta.T
    return (w * (w * own.features + b) + b - own.target[:, np.newaxis]) ** 2


def main() -> None:
    data = load_group("data.stream", LinearData)
    settings = load_group("train.shared", SharedTraining)
    replicate = load_group("replicate", Replicate)
    own = own_table("stream", data, read_linear_set)
    rows, parameters = shape_of(data, own)
    if parameters > 2:
        write_none("shared", "shared-course")
        return
    record = range(0, settings.iterations + 1, settings.log_every)
    parts, starts = [], []
    for repetitions, generator in chunks("shared", replicate, (rows, parameters), settings.iterations * parameters):
        features, target, left_out = fresh_linear_sets(data, own, repetitions, generator)
        starts.append(generator.uniform(-1, 1, (repetitions, 2)))
        runs = repeat(features, target, starts[-1], settings, record)
        parts.append(runs.scored(own, left_out, squared_errors))
    runs, (w, b) = Runs.joined(parts), np.concatenate(starts).T.tolist()
    write_runs("shared", runs, {"w_start": w, "b_start": b}, own)
    write_csv(ways(runs, record), REPLICATES / "shared-course.csv", digits=ESTIMATED)


if __name__ == "__main__":
    run_stage(main)
