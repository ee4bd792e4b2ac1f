"""Repeats the fit of one linear layer with fresh data and starts, and holds it against theory's mean-square error.

By hand, the gradient of (x . w + b - y)^2 is 2 (x . w + b - y) (x, 1).

in   params.yaml: data.stream, train.nn, replicate; data/published.yaml; data/stream.csv where it is one's own
out  reports/replicates/nn.json; reports/replicates/nn.csv, a row a recorded iteration
run  python -m stages.replicate.nn
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.common import theory
from stages.common.errors import run_stage
from stages.common.files import REPLICATES, read_linear_set, read_published, write_csv, write_json
from stages.common.params import LinearData, NnTraining, Replicate, load_group
from stages.common.repetition import (
    Array,
    Quadratic,
    Runs,
    chunks,
    distribution_of,
    fresh_linear_sets,
    names_of,
    outcome,
    own_table,
    percentiles_of_fitted,
    prints_as,
    scaled,
)


def descend(features: Array, target: Array, start: Array, settings: NnTraining, record: Sequence[int] = ()) -> Runs:
    """Descent on one row a step, in order and from the top again, in every repetition.

    Args:
        features: (rows, repetitions, features).
        target: (rows, repetitions).
        start: (repetitions, features + 1), the weights and b; on scaled features where they are standardized.
        settings: train.nn.
        record: iterations to record, multiples of `log_every`.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    objective = Quadratic(x, target, factor=2)
    Z = np.concatenate([x, np.ones((*target.shape, 1))], axis=2)
    runs = Runs(start, limit=settings.iterations, stop_below=settings.stop_below, record=record)
    theta, v = start, np.zeros_like(start)
    with np.errstate(over="ignore", invalid="ignore"):  # runs that diverge
        for iteration in range(settings.iterations + 1):
            due = iteration % settings.log_every == 0
            if due or iteration == settings.iterations or runs.is_ending:
                going = runs.observe(iteration, theta, objective.loss(theta), compare=due)
                if not going.all():
                    theta, v, objective = theta[going], v[going], objective[going]
                    Z, target = Z[:, going], target[:, going]
                    if not len(theta):
                        break
            row = iteration % len(target)
            z = Z[row]
            residual = (z * theta).sum(axis=1) - target[row]
            gradient = 2 * residual[:, np.newaxis] * z
            v = gradient if settings.zero_grad else v + gradient
            theta = theta - settings.lr * v
    return runs.in_units(in_csv_units)


def against_theory(runs: Runs, steps: Sequence[int], data: LinearData, settings: NnTraining) -> pd.DataFrame:
    """Each run's squared parameter error beside its own prediction, from its start, at each step.

    Returns:
        Columns `predicted` and `observed`, means over the runs; `difference`, the mean of observed - predicted in
        pairs, and its `standard_error`.
    """
    x = distribution_of(data.x)
    errors = runs.theta_at[: len(steps)] - np.array([*data.weights, data.bias])
    predicted = theory.single_point_error(x, errors[0], lr=settings.lr, steps=steps, noise=data.noise)
    observed = (errors**2).sum(axis=2)
    difference = observed - predicted
    return pd.DataFrame(
        {
            "predicted": predicted.mean(axis=1),
            "observed": observed.mean(axis=1),
            "difference": difference.mean(axis=1),
            "standard_error": difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1]),
        }
    )


def main() -> None:
    data = load_group("data.stream", LinearData)
    settings = load_group("train.nn", NnTraining)
    replicate = load_group("replicate", Replicate)
    printed = read_published("nn")["fitted"]
    own = own_table("stream", data, read_linear_set)
    record = range(0, settings.iterations + 1, settings.log_every)
    parts = []
    for repetitions, generator in chunks(replicate, experiment=4, own=own, drawn=data.rows):
        features, target = fresh_linear_sets(data, own, repetitions, generator)
        bound = 1 / np.sqrt(features.shape[2])
        start = generator.uniform(-bound, bound, (repetitions, features.shape[2] + 1))
        parts.append(descend(features, target, start, settings, record))
    runs = Runs.joined(parts)
    table = pd.DataFrame({"iteration": record})
    if names_of(runs.theta) == list(printed):
        shown = np.all([prints_as(runs.theta_at[:, :, j], value) for j, value in enumerate(printed.values())], axis=0)
        table["share_as_published"] = shown.mean(axis=1)
    is_predictable = own is None and len(data.weights) == 1 and settings.zero_grad and not settings.standardize
    if is_predictable and runs.finite.all() and replicate.count > 1:
        steps = [k for k in record if k <= data.rows]
        table = table.join(against_theory(runs, steps, data, settings))
    write_csv(table, REPLICATES / "nn.csv")
    found = {"count": replicate.count, **outcome(runs), "published": {"fitted": percentiles_of_fitted(runs, printed)}}
    write_json(found, REPLICATES / "nn.json")


if __name__ == "__main__":
    run_stage(main)
