"""Repeats the fit of the layer applied twice with fresh data and starts: which start goes where?

By hand, with r = w (w x + b) + b - y, the gradient of r^2 is 2 r (2 w x + b) by w and 2 r (w + 1) by b.

in   params.yaml: data.stream, train.shared, replicate; data/published.yaml; data/stream.csv where it is one's own
out  reports/replicates/shared.json; reports/replicates/shared.csv, a row a repetition
run  python -m stages.replicate.shared
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import pandas as pd

from stages.common.errors import run_stage
from stages.common.files import REPLICATES, read_linear_set, read_published, write_csv, write_json
from stages.common.params import LinearData, Replicate, SharedTraining, load_group
from stages.common.repetition import (
    Array,
    Runs,
    chunks,
    fresh_linear_sets,
    outcome,
    own_table,
    percentiles_of_fitted,
    prints_as,
)

PATHS = 16  # repetitions whose way is kept for the figure


class AppliedTwice:
    """mean((w (w x + b) + b - y)^2) of each repetition, from second moments: y_hat = w^2 x + (w + 1) b is a line."""

    def __init__(self, x: Array, y: Array) -> None:
        self._moments = np.array([(x * x).mean(0), x.mean(0), (x * y).mean(0), y.mean(0), (y * y).mean(0)])

    def __getitem__(self, kept: Array) -> Self:
        """The repetitions that a mask keeps."""
        part = object.__new__(type(self))
        part._moments = self._moments[:, kept]
        return part

    def loss(self, theta: Array) -> Array:
        """(repetitions,)."""
        xx, x, xy, y, yy = self._moments
        slope, intercept = theta[:, 0] ** 2, (theta[:, 0] + 1) * theta[:, 1]
        return slope * (slope * xx - 2 * xy) + intercept * (intercept + 2 * slope * x - 2 * y) + yy


def descend(features: Array, target: Array, start: Array, settings: SharedTraining, record: Sequence[int] = ()) -> Runs:
    """Descent on one row a step, in order and from the top again, in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b.
        settings: train.shared.
        record: iterations to record, multiples of `log_every`.
    """
    x_rows, y_rows = features[:, :, 0], target
    objective = AppliedTwice(x_rows, y_rows)
    runs = Runs(start, limit=settings.iterations, stop_below=settings.stop_below, record=record)
    theta, v = start, np.zeros_like(start)
    with np.errstate(over="ignore", invalid="ignore"):  # runs that diverge
        for iteration in range(settings.iterations + 1):
            due = iteration % settings.log_every == 0
            if due or iteration == settings.iterations or runs.is_ending:
                going = runs.observe(iteration, theta, objective.loss(theta), compare=due)
                if not going.all():
                    theta, v, objective = theta[going], v[going], objective[going]
                    x_rows, y_rows = x_rows[:, going], y_rows[:, going]
                    if not len(theta):
                        break
            x, y = x_rows[iteration % len(target)], y_rows[iteration % len(target)]
            w, b = theta.T
            twice_r = 2 * (w * (w * x + b) + b - y)
            gradient = np.column_stack([twice_r * (2 * w * x + b), twice_r * (w + 1)])
            v = gradient if settings.zero_grad else v + gradient
            theta = theta - settings.lr * v
    return runs


def ended_where(runs: Runs) -> Array:
    """Which way each run went, by the quadrant of (w, b) it ended in.

    `positive`: w > 0, where the published solution lies. `valley`: w < 0 and b < 0, on the way to the other solution.
    `runaway`: w < 0 and b > 0, where w -> -1 while b grows. `diverged`: no longer finite.
    """
    w, b = runs.theta.T
    where = np.select([w > 0, b < 0], ["positive", "valley"], "runaway").astype(object)
    where[~runs.finite] = "diverged"
    return where


def main() -> None:
    data = load_group("data.stream", LinearData)
    settings = load_group("train.shared", SharedTraining)
    replicate = load_group("replicate", Replicate)
    printed = read_published("shared")["fitted"]
    own = own_table("stream", data, lambda path: read_linear_set(path, features=1))
    record = range(0, settings.iterations + 1, settings.log_every)
    parts, starts = [], []
    for repetitions, generator in chunks(replicate, experiment=5, own=own, drawn=data.rows):
        features, target = fresh_linear_sets(data, own, repetitions, generator)
        starts.append(generator.uniform(-1, 1, (repetitions, 2)))
        parts.append(descend(features, target, starts[-1], settings, record))
    runs = Runs.joined(parts)
    shown = np.all([prints_as(runs.theta_at[:, :, j], printed[name]) for j, name in enumerate("wb")], axis=0)
    where = ended_where(runs)
    ways = ("positive", "valley", "runaway", "diverged")
    found = {
        "count": replicate.count,
        **outcome(runs),
        "share_ended": {way: float(np.mean(where == way)) for way in ways},
        "share_as_published": {str(k): float(share) for k, share in zip(record, shown.mean(axis=1), strict=True)},
        "published": {"fitted": percentiles_of_fitted(runs, printed)},
        "paths": paths_of(runs, list(record)),
    }
    write_json(found, REPLICATES / "shared.json")
    table = pd.DataFrame(
        np.column_stack([np.concatenate(starts), runs.theta]), columns=["w_start", "b_start", "w", "b"]
    )
    write_csv(table.assign(ended=where), REPLICATES / "shared.csv")


def paths_of(runs: Runs, record: list[int]) -> dict[str, dict[str, dict[str, float]]]:
    """The first few runs on their way, at iterations that lie closer at the beginning, where they move fast."""
    chosen = np.unique(np.geomspace(1, len(record), 40).round().astype(int) - 1)
    return {
        str(repetition): {
            str(record[place]): dict(zip("wb", map(float, runs.theta_at[place, repetition]), strict=True))
            for place in chosen
            if np.isfinite(runs.theta_at[place, repetition]).all()
        }
        for repetition in range(min(PATHS, len(runs.loss)))
    }


if __name__ == "__main__":
    run_stage(main)
