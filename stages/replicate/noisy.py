"""Repeats the noisy line with fresh data and starts: how often it stops, runs on or diverges, and how good its line is.

By hand, dL/dw = mean(x (w x + b - y)) = w mean(x^2) + b mean(x) - mean(x y) and dL/db = w mean(x) + b - mean(y); where
gradients are never zeroed, their sum takes their place.

in   params.yaml: data.noisy_line, train.noisy, replicate; data/noisy_line.csv where it is one's own
out  reports/replicates/noisy.csv, a row a repetition
run  python -m stages.replicate.noisy
"""

import numpy as np

from stages.common.errors import run_stage
from stages.common.params import load_group
from stages.common.schema import NoisyTraining, OneFeatureData, Replicate
from stages.common.tables import read_linear_set
from stages.replicate.runs import (
    Array,
    Moments,
    Runs,
    chunks,
    descend,
    fresh_linear_sets,
    of_moments,
    own_table,
    scaled,
    shape_of,
    write_runs,
)


class HalfMeanOfSquares(Moments):
    """mean((w x + b - y)^2) / 2 of each repetition, whose Hessian is G."""

    factor = 0.5

    def gradient(self, theta: Array, _iteration: int) -> Array:
        """(repetitions, 2)."""
        return self.product(theta) - self.h

    def largest_eigenvalue(self) -> Array:
        """Of each repetition's Hessian Z'Z/n, (repetitions,), from the singular values of Z."""
        return np.linalg.svd(self._Z.swapaxes(0, 1), compute_uv=False)[:, 0] ** 2 / len(self._Z)


def repeat(features: Array, target: Array, start: Array, settings: NoisyTraining) -> tuple[Runs, Array]:
    """Full-batch descent on half the mean of squares in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b; on scaled features where they are standardized.
        settings: train.noisy.

    Returns:
        The runs, and the largest eigenvalue of each one's Hessian.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    problem = HalfMeanOfSquares(x, target)
    runs = descend(problem, start, settings, updates=settings.iterations)
    return runs.in_units(in_csv_units), problem.largest_eigenvalue()


def main() -> None:
    data = load_group("data.noisy_line", OneFeatureData)
    settings = load_group("train.noisy", NoisyTraining)
    replicate = load_group("replicate", Replicate)
    own = own_table("noisy_line", data, read_linear_set)
    parts, eigenvalues, shape = [], [], shape_of(data, own)
    for repetitions, generator in chunks("noisy", replicate, shape, of_moments(shape, settings.iterations)):
        features, target, left_out = fresh_linear_sets(data, own, repetitions, generator)
        start = np.column_stack([generator.standard_normal(repetitions), np.zeros(repetitions)])
        runs, largest = repeat(features, target, start, settings)
        parts.append(runs.scored(own, left_out))
        eigenvalues += largest.tolist()
    write_runs("noisy", Runs.joined(parts), {"largest_eigenvalue": eigenvalues}, own)


if __name__ == "__main__":
    run_stage(main)
