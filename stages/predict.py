"""Predicts with a fit: prints the rows of a new CSV with a column `prediction`, for logistic also `probability`.

in   reports/metrics/<experiment>.json, the fit; data/<data set>.csv, which names its features and classes; the new CSV
out  standard output: the new CSV, its other columns unchanged
run  python -m stages.predict nn new.csv > predicted.csv

It is no stage of the pipeline: nothing depends on it, and it changes nothing.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from stages.common.errors import UserError, run_stage
from stages.common.evidence import EXPERIMENTS
from stages.common.files import DATA, METRICS, clusters, linear_set, parameter_names, read_json, read_numbers

Array = np.ndarray


def line(features: Array, weights: Array, b: float) -> Array:
    """w . x + b of each row, (rows,): manual, noisy, minibatch, nn."""
    return features @ weights + b


def line_twice(features: Array, weights: Array, b: float) -> Array:
    """w*(w*x + b) + b of each row, (rows,): shared, whose layer is applied twice."""
    return line(line(features, weights, b)[:, np.newaxis], weights, b)


def logits(features: Array, weights: Array, b: float) -> Array:
    """z of each row, (rows,): w*x + b - y where one weight stands before two features, else w . x + b."""
    if len(weights) == 1 and features.shape[1] == 2:
        return line(features[:, :1], weights, b) - features[:, 1]
    return line(features, weights, b)


def predictions(experiment: str, features: pd.DataFrame, parameters: dict[str, float], classes: Array) -> pd.DataFrame:
    """The columns to add.

    Args:
        experiment: its name.
        features: (rows, features), in the order of the fit.
        parameters: `fitted` of its metrics.
        classes: the two values of the label, the smaller first; empty for a linear set.

    Returns:
        `prediction`, of y; for logistic `probability`, P(the larger class) = sigmoid(z), and `prediction`, the class:
        the larger one where P > 1/2.
    """
    *weights, b = parameters.values()
    x, w = features.to_numpy(), np.array(weights)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        if experiment == "logistic":
            z = logits(x, w, b)
            found = pd.DataFrame({"probability": expit(z), "prediction": np.where(z > 0, classes[-1], classes[0])})
        else:
            found = pd.DataFrame({"prediction": (line_twice if experiment == "shared" else line)(x, w, b)})
    if not np.isfinite(found.to_numpy()).all():
        row = 1 + int(np.argmin(np.isfinite(found.to_numpy()).all(axis=1)))
        raise UserError(f"row {row}: the prediction is not a finite number; the fit or the features are too large")
    return found


def read_fit(experiment: str) -> tuple[dict[str, float], list[str], Array]:
    """The fitted parameters, the names of the features they belong to, and the classes of a label.

    Raises:
        UserError: where the fit or its data are missing, or don't belong together.
    """
    path = DATA / f"{EXPERIMENTS[experiment][0]}.csv"
    parameters: dict[str, float] = read_json(METRICS / f"{experiment}.json")["fitted"]
    frame = read_numbers(path)
    is_logistic = experiment == "logistic"
    names = list((clusters if is_logistic else linear_set)(frame, path).features.columns)
    forms = [parameter_names(len(names)), *([parameter_names(1)] if is_logistic and len(names) == 2 else [])]
    if list(parameters) not in forms:
        raise UserError(
            f"{METRICS / f'{experiment}.json'}: expected a fit to the features of {path}, {', '.join(names)}, found the"
            f" parameters {', '.join(parameters)}; run `dvc repro train-{experiment}`"
        )
    return parameters, names, np.unique(frame["label"]) if is_logistic else np.array([])


def with_predictions(experiment: str, new: Path) -> pd.DataFrame:
    """The new CSV's columns, and those of the predictions.

    Raises:
        UserError: where the CSV lacks a feature, has no row, or has a column of the name of a new one.
    """
    parameters, names, classes = read_fit(experiment)
    if not new.is_file():
        raise UserError(f"{new}: not found; name the CSV to predict for")
    frame = read_numbers(new)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise UserError(
            f"{new}: expected the features of the fit, {', '.join(names)}, found {', '.join(frame.columns)} and no"
            f" {', '.join(missing)}; names are case-sensitive"
        )
    if frame.empty:
        raise UserError(f"{new}: expected at least one row below the header, found none")
    found = predictions(experiment, frame[names], parameters, classes)
    for name in found.columns.intersection(frame.columns):
        raise UserError(f"{new}: has a column '{name}' already, which is the name of a new one; give it another name")
    return pd.concat([frame, found], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints a CSV with a column of predictions.")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("csv", type=Path, help="a CSV with the columns that the experiment was fitted to")
    arguments = parser.parse_args()
    table = with_predictions(arguments.experiment, arguments.csv)
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    table.to_csv(sys.stdout, index=False, lineterminator="\n")


if __name__ == "__main__":
    run_stage(main)
