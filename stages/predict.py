"""Predicts with a fit: prints the rows of a new CSV with a column `prediction`, for logistic also `probability`.

in   reports/metrics/<experiment>.json, the fit; data/<data set>.csv, which names its features and classes; dvc.lock,
     which says that these two belong together; the new CSV
out  standard output: the new CSV, its own cells as they are
run  python -m stages.predict nn new.csv > predicted.csv

It is no stage of the pipeline: nothing depends on it, and it changes nothing.
"""

import argparse
import csv
import hashlib
import math
import os
import sys
from pathlib import Path

import numpy as np
import yaml
from scipy.special import expit

from stages.common.errors import UserError, run_stage
from stages.common.experiments import EXPERIMENTS, parameter_names
from stages.common.files import DAMAGED, DATA, METRICS, read_json, significant
from stages.common.tables import clusters, linear_set, read_numbers, read_rows
from stages.theory.models import Model, model_named

Array = np.ndarray
LOCK = Path("dvc.lock")


def predictions(model: Model, features: Array, theta: Array, classes: Array) -> dict[str, Array]:
    """The columns to add.

    Args:
        model: what was fitted.
        features: (rows, features), in the order of the fit.
        theta: (parameters,), the fitted ones.
        classes: the two values of the label, the smaller first; empty for a linear set.

    Returns:
        `prediction`, of y; for classes `probability`, P(the larger class) = sigmoid(z), and `prediction`, the class:
        the larger one where P > 1/2.

    Raises:
        UserError: where a prediction is too large to be a number.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        z = model.predict(features, theta)
        found = (
            {"probability": expit(z), "prediction": np.where(z > 0, *classes[::-1])}
            if len(classes)
            else {"prediction": z}
        )
    is_finite = np.isfinite(list(found.values())).all(axis=0)
    if not is_finite.all():
        row = 1 + int(np.argmin(is_finite))
        raise UserError(f"row {row}: the prediction is not a finite number; the fit or the features are too large")
    return found


def read_fit(experiment: str) -> tuple[Model, Array, list[str], Array]:
    """The model and its fitted theta, the names of the features they belong to, and the classes of a label.

    Raises:
        UserError: where the fit or its data are missing or damaged, the fit diverged, or is one to other data.
    """
    registered = EXPERIMENTS[experiment]
    metrics, path = METRICS / f"{experiment}.json", DATA / f"{registered.data_set}.csv"
    numbers = read_numbers(path)
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != hash_of_fitted(experiment, path):
        raise UserError(f"{metrics}: is not a fit to {path} as it is now; run `dvc repro train-{experiment}`")
    has_classes = registered.model == "logit"
    names = (clusters if has_classes else linear_set)(numbers, path).feature_names
    content = read_json(metrics)
    parameters = content.get("fitted") if isinstance(content, dict) else None
    parameters = parameters if isinstance(parameters, dict) else {}
    forms = {"general": parameter_names(len(names))}
    if has_classes and len(names) == 2:
        forms["slope-intercept"] = parameter_names(1)
    form = next((form for form, known in forms.items() if list(parameters) == known), None)
    if isinstance(content, dict) and content.get("stopped") == "not_applicable":
        raise UserError(f"{metrics}: {experiment} does not apply to these data, which have several features; use nn")
    if form is None or "stopped" not in content or not all(map(is_number, parameters.values())):
        raise UserError(f"{metrics}: {DAMAGED}")
    if content["stopped"] == "diverged":
        raise UserError(
            f"{metrics}: the fit diverged, so that it predicts nothing; set train.{experiment}.lr lower, or standardize"
            f" true where there is one, and run `dvc repro train-{experiment}`"
        )
    model = model_named(registered.model, registered.factor, {"form": form, "loss": "any"})
    column = numbers.values[:, numbers.names.index("label")] if has_classes else np.array([])
    return model, np.array(list(parameters.values())), names, np.unique(column)


def hash_of_fitted(experiment: str, path: Path) -> str | None:
    """The MD5 that the data had when the experiment was fitted to them, by dvc.lock; None if it does not say."""
    try:
        deps = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"][f"train-{experiment}"]["deps"]
        return next((dep["md5"] for dep in deps if dep["path"] == path.as_posix()), None)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def as_text(value: float, classes: Array) -> str:
    """A class as it is, any other number with the 10 significant digits of all results."""
    return (repr(value) if value in classes else repr(significant(value))).removesuffix(".0")


def with_predictions(experiment: str, new: Path) -> list[list[str]]:
    """The new CSV's header and rows, with the columns of the predictions.

    Raises:
        UserError: where the CSV lacks a feature, has no row, or has a column of the name of a new one.
    """
    model, theta, names, classes = read_fit(experiment)
    if not new.is_file():
        raise UserError(f"{new}: no such file; name the CSV to predict for")
    (_, header), *lines = read_rows(new)
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(
            f"{new}: expected the features of {experiment}'s fit, {', '.join(names)}, found {', '.join(header)} and no"
            f" {', '.join(missing)}; names are case-sensitive"
        )
    if not lines:
        raise UserError(f"{new}: expected at least one row below the header, found none")
    found = predictions(model, read_numbers(new, columns=names).values, theta, classes)
    for name in (name for name in found if name in header):
        raise UserError(f"{new}: has a column '{name}' already, which is the name of a new one; give it another name")
    added = (
        [as_text(value, classes) for value in row] for row in zip(*(c.tolist() for c in found.values()), strict=True)
    )
    return [[*header, *found], *([*cells, *more] for (_, cells), more in zip(lines, added, strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints a CSV with a column of predictions.")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("csv", type=Path, help="a CSV with the columns that the experiment was fitted to")
    arguments = parser.parse_args()
    rows = with_predictions(arguments.experiment, arguments.csv)
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    try:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run_stage(main)
