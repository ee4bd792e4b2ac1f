"""Repeats the mini-batch fit with fresh data, starts and shuffles: where the article's printed numbers lie.

By hand, the gradient of a batch's summed losses (x . w + b - y)^2 / 2 is sum(x (x . w + b - y)) and sum(x . w + b - y).

in   params.yaml: data.plane, train.minibatch, replicate; data/published.yaml; data/plane.csv where it is one's own
out  reports/replicates/minibatch.json; reports/replicates/minibatch.csv, a row a repetition
run  python -m stages.replicate.minibatch
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from stages.common.errors import run_stage
from stages.common.files import REPLICATES, read_linear_set, read_published, write_csv, write_json
from stages.common.params import LinearData, MinibatchTraining, Replicate, load_group
from stages.common.repetition import (
    Array,
    Quadratic,
    Runs,
    chunks,
    fresh_linear_sets,
    names_of,
    outcome,
    own_table,
    percentiles_of_fitted,
    percentiles_of_printed,
    scaled,
    spread,
)


def descend(
    features: Array,
    target: Array,
    start: Array,
    orders: Iterable[Array],
    settings: MinibatchTraining,
    record: Sequence[int] = (),
) -> Runs:
    """Mini-batch descent in every repetition.

    Args:
        features: (rows, repetitions, features).
        target: (rows, repetitions).
        start: (repetitions, features + 1), the weights and b; on scaled features where they are standardized.
        orders: for each epoch the rows in the order of their reading, (rows, repetitions).
        settings: train.minibatch.
        record: iterations to record, multiples of the batches an epoch.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    objective = Quadratic(x, target, factor=1)
    Z = np.concatenate([x, np.ones((*target.shape, 1))], axis=2)
    batches = math.ceil(len(target) / settings.batch_size)  # an epoch
    limit = settings.epochs * batches
    runs = Runs(start, limit=limit, stop_below=settings.stop_below, record=record)
    theta, v, kept = start, np.zeros_like(start), np.arange(len(start))
    reading = iter(orders)
    with np.errstate(over="ignore", invalid="ignore"):  # runs that diverge
        for iteration in range(limit + 1):
            epoch, batch = divmod(iteration, batches)
            if batch == 0 or iteration == runs.limit or runs.is_ending:
                compare = batch == 0 and epoch % settings.log_every == 0
                going = runs.observe(iteration, theta, objective[kept].loss(theta), compare=compare)
                theta, v, kept = theta[going], v[going], kept[going]
                if not len(kept):
                    break
            if batch == 0:
                order = next(reading)
            rows = order[batch * settings.batch_size : (batch + 1) * settings.batch_size, kept]
            z, y = Z[rows, kept], target[rows, kept]
            residual = np.einsum("nri,ri->nr", z, theta) - y
            gradient = np.einsum("nri,nr->ri", z, residual)
            v = gradient if settings.zero_grad else v + gradient
            theta = theta - settings.lr * v / settings.batch_size
    return runs.in_units(in_csv_units)


def main() -> None:
    data = load_group("data.plane", LinearData)
    settings = load_group("train.minibatch", MinibatchTraining)
    replicate = load_group("replicate", Replicate)
    published = read_published("minibatch")
    own = own_table("plane", data, read_linear_set)
    parts = []
    for repetitions, generator in chunks(replicate, experiment=3, own=own, drawn=data.rows):
        features, target = fresh_linear_sets(data, own, repetitions, generator)
        weights = 0.01 * generator.standard_normal((repetitions, features.shape[2]))
        start = np.column_stack([weights, np.zeros(repetitions)])
        rows = np.tile(np.arange(len(target))[:, np.newaxis], repetitions)
        orders = (generator.permuted(rows, axis=0) for _ in range(settings.epochs))
        batches = math.ceil(len(target) / settings.batch_size)
        record = [epoch * batches for epoch in range(settings.epochs + 1)]
        parts.append(descend(features, target, start, orders, settings, record))
    runs = Runs.joined(parts)
    at = {str(iteration): runs.loss_at[place] for place, iteration in enumerate(record)}
    found = {
        "count": replicate.count,
        **outcome(runs),
        "published": {
            "fitted": percentiles_of_fitted(runs, published["fitted"]),
            "loss": {
                str(iteration): {**percentiles_of_printed(at[str(iteration)], loss), **spread(at[str(iteration)])}
                for iteration, loss in published["losses"].items()
                if str(iteration) in at
            },
        },
    }
    write_json(found, REPLICATES / "minibatch.json")
    table = pd.DataFrame(runs.theta, columns=names_of(runs.theta)).assign(loss=runs.loss)
    write_csv(table, REPLICATES / "minibatch.csv")


if __name__ == "__main__":
    run_stage(main)
