"""Repeats the fit of one linear layer with fresh data and starts.

By hand, the gradient of (x . w + b - y)^2 is 2 (x . w + b - y) (x, 1).

in   params.yaml: data.stream, train.nn, replicate; data/published.yaml; data/stream.csv where it is one's own
out  reports/replicates/nn.csv, a row a repetition; reports/replicates/nn-course.csv, a row a recorded iteration: the
     share of repetitions that show the published decimals, and moments of their squared error
run  python -m stages.replicate.nn
"""

from collections.abc import Sequence

import numpy as np

from stages.common.errors import run_stage
from stages.common.experiments import parameter_names
from stages.common.files import ESTIMATED, REPLICATES, Column, Columns, write_csv
from stages.common.params import load_group
from stages.common.published import decimals_of, read_published
from stages.common.schema import LinearData, NnTraining, Replicate
from stages.common.tables import read_linear_set
from stages.replicate.runs import (
    Array,
    Moments,
    Runs,
    chunks,
    descend,
    fresh_linear_sets,
    own_table,
    scaled,
    shape_of,
    write_runs,
)


class SingleRows(Moments):
    """The mean of squares of each repetition, and its gradient on one row after another, from the top again."""

    def __getitem__(self, kept: Array) -> "SingleRows":
        """The repetitions that a mask keeps."""
        part = super().__getitem__(kept)
        part._Z, part._y = self._Z[:, kept], self._y[:, kept]
        return part

    def gradient(self, theta: Array, iteration: int) -> Array:
        """(repetitions, features + 1)."""
        row = iteration % len(self._y)
        z = self._Z[row]
        residual = (z * theta).sum(axis=1) - self._y[row]
        return 2 * residual[:, np.newaxis] * z


def repeat(features: Array, target: Array, start: Array, settings: NnTraining, record: Sequence[int] = ()) -> Runs:
    """Descent on one row a step, in order and from the top again, in every repetition.

    Args:
        features: (rows, repetitions, features).
        target: (rows, repetitions).
        start: (repetitions, features + 1), the weights and b; on scaled features where they are standardized.
        settings: train.nn.
        record: iterations to record, multiples of `log_every`.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    updates, every = settings.iterations, settings.log_every
    runs = descend(SingleRows(x, target), start, settings, updates=updates, every=every, record=record)
    return runs.in_units(in_csv_units)


def share_as_printed(theta_at: Array, printed: dict[str, str]) -> Array:
    """The share of repetitions whose parameters (recorded, repetitions, parameters) round to all printed numbers."""
    decimals = [decimals_of(number) for number in printed.values()]
    rounded = [np.round(theta_at[:, :, j], places) for j, places in enumerate(decimals)]
    return np.all(
        [values == float(number) for values, number in zip(rounded, printed.values(), strict=True)], axis=0
    ).mean(axis=1)


def error_moments(error_at: Array) -> Columns:
    """What theory's prediction of each repetition's squared error is compared with, at each recorded iteration.

    Theory's E|e_k|^2 of a repetition is linear in the products e e' of its start's error e = (w, b) - (w*, b*), so that
    the mean and the variance of the differences follow from these.

    Args:
        error_at: (recorded, repetitions, 2); the first is the start.

    Returns:
        Columns `squared_error`, the mean of |e_k|^2, its `variance`, and its covariances with the start's products.
    """
    w, b = error_at[0].T
    squares = (error_at**2).sum(axis=2)
    moments = {"squared_error": squares.mean(axis=1).tolist(), "variance": squares.var(axis=1, ddof=1).tolist()}
    for name, product in (("ww", w * w), ("wb", w * b), ("bb", b * b)):
        deviations = (squares - squares.mean(axis=1, keepdims=True)) * (product - product.mean())
        moments[f"covariance_{name}"] = (deviations.sum(axis=1) / (len(w) - 1)).tolist()
    return moments


def main() -> None:
    data = load_group("data.stream", LinearData)
    settings = load_group("train.nn", NnTraining)
    replicate = load_group("replicate", Replicate)
    printed = read_published("nn")["fitted"]
    own = own_table("stream", data, read_linear_set)
    record = range(0, settings.iterations + 1, settings.log_every)
    parts, starts = [], []
    rows, parameters = shape_of(data, own)
    for repetitions, generator in chunks("nn", replicate, (rows, parameters), settings.iterations * parameters):
        features, target, left_out = fresh_linear_sets(data, own, repetitions, generator)
        bound = 1 / np.sqrt(features.shape[2])
        starts.append(generator.uniform(-bound, bound, (repetitions, features.shape[2] + 1)))
        runs = repeat(features, target, starts[-1], settings, record if parameters == 2 else ())
        parts.append(runs.scored(own, left_out))
    runs = Runs.joined(parts)
    names = parameter_names(runs.theta.shape[1] - 1)
    start = np.concatenate(starts).T.tolist()
    write_runs("nn", runs, dict(zip([f"{name}_start" for name in names], start, strict=True)), own)
    course: dict[str, Column] = {"iteration": record}
    if names == list(printed):
        course["share_as_published"] = share_as_printed(runs.theta_at, printed).tolist()
    if own is None and len(names) == 2 and replicate.count > 1:
        course.update(error_moments(runs.theta_at - np.array([*data.weights, data.bias])))
    write_csv(course, REPLICATES / "nn-course.csv", digits=ESTIMATED)


if __name__ == "__main__":
    run_stage(main)
