"""Repeats the noisy line with fresh data and starts: how often it stops, runs on or diverges, and how good its line is.

By hand, dL/dw = mean(x (w x + b - y)) = w mean(x^2) + b mean(x) - mean(x y) and dL/db = w mean(x) + b - mean(y); where
gradients are never zeroed, their sum takes their place.

in   params.yaml: data.noisy_line, train.noisy, replicate; data/noisy_line.csv where it is one's own
out  reports/replicates/noisy.json; reports/replicates/noisy.csv, a row a repetition
run  python -m stages.replicate.noisy
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.common.errors import run_stage
from stages.common.files import REPLICATES, read_linear_set, write_csv, write_json
from stages.common.params import NoisyTraining, OneFeatureData, Replicate, load_group
from stages.common.repetition import (
    Array,
    Quadratic,
    Runs,
    chunks,
    descend_full_batch,
    fresh_linear_sets,
    outcome,
    own_table,
    scaled,
)


def descend(features: Array, target: Array, start: Array, settings: NoisyTraining, record: Sequence[int] = ()) -> Runs:
    """Full-batch descent on half the mean of squares in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b; on scaled features where they are standardized.
        settings: train.noisy.
        record: iterations to record.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    runs = descend_full_batch(
        Quadratic(x, target, factor=1),
        start,
        settings,
        record,
    )
    return runs.in_units(in_csv_units)


def main() -> None:
    data = load_group("data.noisy_line", OneFeatureData)
    settings = load_group("train.noisy", NoisyTraining)
    replicate = load_group("replicate", Replicate)
    own = own_table("noisy_line", data, read_linear_set)
    parts, eigenvalues = [], []
    for repetitions, generator in chunks(replicate, experiment=2, own=own, drawn=data.rows):
        features, target = fresh_linear_sets(data, own, repetitions, generator)
        start = np.column_stack([generator.standard_normal(repetitions), np.zeros(repetitions)])
        parts.append(descend(features, target, start, settings))
        x, _ = scaled(features, standardize=settings.standardize)
        eigenvalues.append(Quadratic(x, target, factor=1).largest_eigenvalue())
    runs = Runs.joined(parts)
    table = pd.DataFrame(
        {
            "largest_eigenvalue": np.concatenate(eigenvalues),
            "stopped": runs.stopped,
            "iterations": runs.iterations,
            "w": runs.theta[:, 0],
            "b": runs.theta[:, 1],
            "loss": runs.loss,
        }
    )
    write_csv(table, REPLICATES / "noisy.csv")
    write_json({"count": replicate.count, **outcome(runs)}, REPLICATES / "noisy.json")


if __name__ == "__main__":
    run_stage(main)
