"""Makes data/<data set>.csv: drawn from its seed, or a checked copy of the user's own CSV.

NumPy's generator draws the same numbers on every processor. Everything drawn is rounded to 10 significant digits before
it is used, so that the CSV holds exactly what was computed with; an own CSV's numbers pass unchanged.

in   params.yaml: data.<data set>; data/raw/ where `file` names a CSV
out  data/<data set>.csv
run  python -m stages.generate_data line
"""

import argparse
from pathlib import Path
from typing import get_type_hints

import numpy as np

from stages.common.errors import UserError, run_stage
from stages.common.files import DATA, DIGITS, Columns, significant, write_csv
from stages.common.params import load_group
from stages.common.schema import ClustersData, Data, DataSet, LinearData, Normal, OneFeatureData, Uniform
from stages.common.tables import clusters, linear_set, read_own_columns

MODELS: dict[str, type[DataSet]] = {name: get_type_hints(Data)[name] for name in Data.model_fields}

PIECE = 50_000  # numbers that are rounded at a time, so that what is computed on the way stays in the processor's cache
POWERS = np.array([float(f"1e{k}") for k in range(23)])  # all powers of ten that a float holds exactly
LEAST = np.array([float(f"1e{DIGITS - 1 - k}") for k in range(23)][::-1])  # numbers that POWERS bring to 10 digits


def draw(settings: DataSet) -> Columns:
    """The rows that the settings describe; the same settings give the same rows."""
    generator = np.random.default_rng(settings.seed)
    if isinstance(settings, ClustersData):
        return draw_clusters(settings, generator)
    assert isinstance(settings, LinearData)
    return draw_linear_set(settings, generator)


def draw_linear_set(settings: LinearData, generator: np.random.Generator) -> Columns:
    """Rows of y = sum_j weights[j] * x_j + bias + noise.

    Returns:
        Columns `x` (one feature) or `x1`, `x2`, ..., then `y`.
    """
    count = len(settings.weights)
    features = to_significant(draw_x(settings.x, (settings.rows, count), generator))
    y = settings.bias + settings.noise * generator.standard_normal(settings.rows)
    for feature, weight in zip(features.T, settings.weights, strict=True):  # in order: a matrix product's order of
        y = y + weight * feature  # summation depends on the processor
    names = ["x"] if count == 1 else [f"x{j}" for j in range(1, count + 1)]
    return {**dict(zip(names, features.T, strict=True)), "y": to_significant(y)}


def draw_x(x: Uniform | Normal, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Features, (rows, features)."""
    if isinstance(x, Uniform):
        return generator.uniform(x.low, x.high, shape)
    return generator.normal(x.mean, x.sd, shape)


def draw_clusters(settings: ClustersData, generator: np.random.Generator) -> Columns:
    """rows_per_cluster points of class 0, then as many of class 1, normal around their centre.

    Returns:
        Columns `x`, `y` (the plane's coordinates) and `label` (0 or 1).
    """
    shape = (2, settings.rows_per_cluster, 2)  # class, row, coordinate
    centers = np.array(settings.centers)[:, np.newaxis, :]
    points = to_significant(centers + settings.std * generator.standard_normal(shape)).reshape(-1, 2)
    label = np.repeat([0, 1], settings.rows_per_cluster)
    return {"x": points[:, 0], "y": points[:, 1], "label": label}


def to_significant(values: np.ndarray) -> np.ndarray:
    """`significant` of every number, bit for bit; shape as that of values."""
    flat = values.ravel()
    rounded = np.empty_like(flat)
    for start in range(0, len(flat), PIECE):
        piece = slice(start, start + PIECE)
        rounded[piece] = _to_significant(flat[piece])
    return rounded.reshape(values.shape)


def _to_significant(x: np.ndarray) -> np.ndarray:
    """x 10^k rounded to a whole number of 10 digits, then divided by 10^k: both are exact, so that the quotient is the
    float nearest to the decimal number. The product is rounded, though never across a tie, which a float holds exactly;
    what falls onto one goes by text, and so does what the powers don't bring to 10 digits.
    """
    k = np.minimum(len(LEAST) - np.searchsorted(LEAST, np.abs(x), side="right"), len(POWERS) - 1)
    with np.errstate(invalid="ignore"):  # infinity less itself
        scaled = x * POWERS[k]
        whole = np.rint(scaled)
        size, rest = np.abs(scaled), np.abs(scaled - whole)
    is_sure = (size >= 10.0 ** (DIGITS - 1)) & (size <= 10.0**DIGITS) & (rest < 0.5)
    rounded = whole / POWERS[k]
    rounded[~is_sure] = [significant(value) for value in x[~is_sure].tolist()]
    return rounded


def read_own(file: Path, settings: DataSet) -> Columns:
    """The named columns of the user's own CSV, their numbers unchanged; the target is called `y` or `label`, as in all.

    Raises:
        UserError: where it does not have the form that the data set's experiments read.
    """
    numbers = read_own_columns(file, settings.target, settings.features)
    if isinstance(settings, ClustersData):
        name, table = "label", clusters(numbers, file, target=settings.target)
    else:
        features = 1 if isinstance(settings, OneFeatureData) else None
        name, table = "y", linear_set(numbers, file, features, target=settings.target)
    if name in table.feature_names:
        raise UserError(
            f"{file}: the column '{name}' can't be a feature, since data sets call their target so; rename it in the"
            " file's first line"
        )
    columns = dict(zip(numbers.names, numbers.values.T, strict=True))
    return {name if column == settings.target else column: values for column, values in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes data/<data set>.csv.")
    parser.add_argument("data_set", choices=MODELS)
    name = parser.parse_args().data_set
    settings = load_group(f"data.{name}", MODELS[name])
    if settings.file is None:
        write_csv(draw(settings), DATA / f"{name}.csv")
    else:
        write_csv(read_own(Path(settings.file), settings), DATA / f"{name}.csv", digits=None)


if __name__ == "__main__":
    run_stage(main)
