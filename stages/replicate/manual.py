"""Repeats the line fitted by hand with fresh data: from random starts, and from the start that the article published.

By hand, dL/dw = 2 mean(x (w x + b - y)) = 2 (w mean(x^2) + b mean(x) - mean(x y)) and
dL/db = 2 (w mean(x) + b - mean(y)).

in   params.yaml: data.line, train.manual, replicate; data/published.yaml; data/line.csv where it is one's own
out  reports/replicates/manual.json; reports/replicates/manual.csv, a row a repetition
run  python -m stages.replicate.manual
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.common.errors import run_stage
from stages.common.files import REPLICATES, read_linear_set, read_published, write_csv, write_json
from stages.common.params import ManualTraining, OneFeatureData, Replicate, load_group
from stages.common.repetition import (
    Array,
    Quadratic,
    Runs,
    chunks,
    descend_full_batch,
    fresh_linear_sets,
    outcome,
    own_table,
    percentiles_of_printed,
    scaled,
    spread,
)


def descend(features: Array, target: Array, start: Array, settings: ManualTraining, record: Sequence[int] = ()) -> Runs:
    """Full-batch descent on the mean of squares in every repetition.

    Args:
        features: (rows, repetitions, 1).
        target: (rows, repetitions).
        start: (repetitions, 2), w and b; on scaled features where they are standardized.
        settings: train.manual.
        record: iterations to record.
    """
    x, in_csv_units = scaled(features, standardize=settings.standardize)
    runs = descend_full_batch(
        Quadratic(x, target, factor=2),
        start,
        settings,
        record,
    )
    return runs.in_units(in_csv_units)


def main() -> None:
    data = load_group("data.line", OneFeatureData)
    settings = load_group("train.manual", ManualTraining)
    replicate = load_group("replicate", Replicate)
    published = read_published("manual")
    own = own_table("line", data, read_linear_set)
    printed = {int(k): loss for k, loss in published["losses"].items() if int(k) <= settings.iterations}
    from_random, from_published = [], []
    for repetitions, generator in chunks(replicate, experiment=1, own=own, drawn=data.rows):
        features, target = fresh_linear_sets(data, own, repetitions, generator)
        start = generator.uniform(0, 1, (repetitions, 2))
        from_random.append(descend(features, target, start, settings))
        start = np.tile([float(published["start"]["w"]), float(published["start"]["b"])], (repetitions, 1))
        from_published.append(descend(features, target, start, settings, list(printed)))
    runs, losses = Runs.joined(from_random), Runs.joined(from_published).loss_at
    found = {
        "count": replicate.count,
        "random_start": outcome(runs),
        "published_start": {
            "loss": {
                str(iteration): {**percentiles_of_printed(values, loss), **spread(values)}
                for (iteration, loss), values in zip(printed.items(), losses, strict=True)
            }
        },
    }
    write_json(found, REPLICATES / "manual.json")
    table = pd.DataFrame(runs.theta, columns=["w", "b"]).assign(loss=runs.loss)
    write_csv(table, REPLICATES / "manual.csv")


if __name__ == "__main__":
    run_stage(main)
