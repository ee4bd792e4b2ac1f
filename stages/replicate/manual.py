"""Repeats the line fitted by hand with fresh data: from random starts, and from the start that the article published.

By hand, dL/dw = 2 mean(x (w x + b - y)) = 2 (w mean(x^2) + b mean(x) - mean(x y)) and
dL/db = 2 (w mean(x) + b - mean(y)).

in   params.yaml: data.line, train.manual, replicate; data/published.yaml; data/line.csv where it is one's own
out  reports/replicates/manual.csv, a row a repetition from its random start; its columns loss_0, loss_300, ... are the
     losses at the iterations that the article printed, from the published start
run  python -m stages.replicate.manual
"""

from collections.abc import Sequence

import numpy as np

from stages.common.errors import run_stage
from stages.common.params import load_group
from stages.common.published import read_published
from stages.common.schema import ManualTraining, OneFeatureData, Replicate
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


class MeanOfSquares(Moments):
    """mean((w x + b - y)^2) of each repetition."""

    def gradient(self, theta: Array, _iteration: int) -> Array:
        """(repetitions, 2)."""
        return 2 * (self.product(theta) - self.h)


def repeat(
    features: Array, target: Array, start: Array, settings: ManualTraining, record: Sequence[int] = ()
) -> tuple[Runs, list[Array]]:
    """Full-batch descent on the mean of squares in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b; on scaled features where they are standardized.
        settings: train.manual.
        record: iterations to record.

    Returns:
        The runs, and their losses at each of these iterations.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    problem = MeanOfSquares(x, target)
    runs = descend(problem, start, settings, updates=settings.iterations, record=record)
    losses = [problem.loss_of_rows(theta) for theta in runs.theta_at]
    return runs.in_units(in_csv_units), losses


def main() -> None:
    data = load_group("data.line", OneFeatureData)
    settings = load_group("train.manual", ManualTraining)
    replicate = load_group("replicate", Replicate)
    published = read_published("manual")
    own = own_table("line", data, read_linear_set)
    printed = [int(k) for k in published["losses"] if int(k) <= settings.iterations]
    from_random, losses, shape = [], [], shape_of(data, own)
    for repetitions, generator in chunks("manual", replicate, shape, of_moments(shape, 2 * settings.iterations)):
        features, target, left_out = fresh_linear_sets(data, own, repetitions, generator)
        runs, _ = repeat(features, target, generator.uniform(0, 1, (repetitions, 2)), settings)
        from_random.append(runs.scored(own, left_out))
        start = np.tile([float(published["start"]["w"]), float(published["start"]["b"])], (repetitions, 1))
        losses.append(repeat(features, target, start, settings, printed)[1])
    write_runs("manual", Runs.joined(from_random), loss_columns(printed, losses), own)


if __name__ == "__main__":
    run_stage(main)
