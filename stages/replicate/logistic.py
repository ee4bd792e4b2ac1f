"""Repeats the logistic regression with fresh clusters: when it stops, and how many points it gets right.

By hand, with p = sigmoid(z) and z linear in theta, the gradient is mean(l'(z) dz/dtheta), where l' = p - label for bce
and l' = 2 (p - label) p (1 - p) for mse.

in   params.yaml: data.clusters, train.logistic, replicate; data/clusters.csv where it is one's own
out  reports/replicates/logistic.csv, a row a repetition
run  python -m stages.replicate.logistic
"""

import copy
import functools
from typing import Self

import numpy as np
from scipy.special import expit

from stages.common.errors import run_stage
from stages.common.params import load_group
from stages.common.schema import ClustersData, LogisticTraining, Replicate
from stages.common.tables import Table, read_clusters
from stages.replicate.runs import (
    Array,
    Fresh,
    Runs,
    chunks,
    descend,
    own_table,
    resampled,
    scaled,
    shape_of,
    with_ones,
    without_residue,
    write_runs,
)


class MeanLogisticLoss:
    """The mean loss of each repetition, z = sum_j theta_j Z_j + offset."""

    def __init__(self, features: Array, label: Array, loss: str, form: str) -> None:
        if form == "slope-intercept":  # z = w x + b - y
            Z, offset = with_ones(features[:, :, :1]), -features[:, :, 1]
        else:
            Z, offset = with_ones(features), np.zeros(label.shape)
        self._data = Z, offset, label
        self._loss = loss

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""
        part = copy.copy(self)
        Z, offset, label = self._data
        part._data = Z[:, kept], offset[:, kept], label[:, kept]
        return part

    def logits(self, theta: Array) -> Array:
        """(rows, repetitions)."""
        Z, offset, _ = self._data
        return np.einsum("nri,ri->nr", Z, theta) + offset

    def loss(self, theta: Array) -> Array:
        """(repetitions,)."""
        z, label = self.logits(theta), self._data[2]
        if self._loss == "mse":
            return ((expit(z) - label) ** 2).mean(axis=0)
        return np.logaddexp(0, np.where(label == 1, -z, z)).mean(axis=0)

    def loss_of_rows(self, theta: Array) -> Array:
        """(repetitions,)."""
        return without_residue(self.loss(theta), self._data[2])

    def gradient(self, theta: Array, _iteration: int) -> Array:
        """(repetitions, parameters)."""
        Z, _, label = self._data
        p = expit(self.logits(theta))
        slope = 2 * (p - label) * p * (1 - p) if self._loss == "mse" else p - label
        return np.einsum("nri,nr->ri", Z, slope) / len(label)

    def accuracy(self, theta: Array) -> Array:
        """(repetitions,)."""
        return ((self.logits(theta) > 0) == (self._data[2] == 1)).mean(axis=0)


def repeat(features: Array, label: Array, start: Array, settings: LogisticTraining) -> tuple[Runs, Array]:
    """Full-batch descent on the chosen loss in every repetition.

    Args:
        features: (rows, repetitions, features).
        label: (rows, repetitions), 0 or 1.
        start: (repetitions, parameters), on scaled features where they are standardized.
        settings: train.logistic.

    Returns:
        The runs, and the share of rows that each one has on the right side of its boundary.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    problem = MeanLogisticLoss(x, label, settings.loss, settings.form)
    runs = descend(problem, start, settings, updates=settings.iterations).in_units(in_csv_units)
    return runs, MeanLogisticLoss(features, label, settings.loss, settings.form).accuracy(runs.theta)


def fresh_clusters(data: ClustersData, own: Table | None, repetitions: int, generator: np.random.Generator) -> Fresh:
    """Two clusters drawn, or an own CSV's rows drawn with replacement."""
    if own is not None:
        return resampled(own, repetitions, generator)
    label = np.repeat([0, 1], data.rows_per_cluster)
    noise = data.std * generator.standard_normal((len(label), repetitions, 2))
    features = np.array(data.centers)[label][:, np.newaxis] + noise
    return Fresh(features, np.tile(label[:, np.newaxis], repetitions).astype(float))


def is_right(own: Table, theta: Array, *, form: str) -> Array:
    """Whether each row of a table is on the right side of each boundary, (rows, repetitions)."""
    x = own.features
    z = x @ theta[:, :-1].T + theta[:, -1] if form == "general" else x[:, :1] * theta[:, 0] + theta[:, 1] - x[:, 1:]
    is_one: Array = own.target == 1
    return (z > 0) == is_one[:, np.newaxis]


def main() -> None:
    data = load_group("data.clusters", ClustersData)
    settings = load_group("train.logistic", LogisticTraining)
    replicate = load_group("replicate", Replicate)
    own = own_table("clusters", data, read_clusters)
    parts, accuracy = [], []
    rows, parameters = shape = shape_of(data, own, settings.form)
    for repetitions, generator in chunks("logistic", replicate, shape, settings.iterations * rows * parameters):
        features, label, left_out = fresh_clusters(data, own, repetitions, generator)
        if settings.form == "slope-intercept":
            start = np.tile([1.0, 0.0], (repetitions, 1))
        else:
            start = np.zeros((repetitions, features.shape[2] + 1))
        runs, right = repeat(features, label, start, settings)
        parts.append(runs.scored(own, left_out, functools.partial(is_right, form=settings.form)))
        accuracy += right.tolist()
    write_runs("logistic", Runs.joined(parts), {"accuracy": accuracy}, own)


if __name__ == "__main__":
    run_stage(main)
