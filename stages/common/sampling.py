"""Draws the data sets with NumPy's generator, whose numbers are the same on every processor.

Everything drawn is rounded to 10 significant digits before it is used, so that the CSV holds exactly what was computed
with.
"""

import numpy as np
import pandas as pd

from stages.common.files import significant
from stages.common.params import ClustersData, LinearData, Normal, Uniform

_to_significant = np.vectorize(significant, otypes=[float])


def draw_linear_set(settings: LinearData, generator: np.random.Generator) -> pd.DataFrame:
    """Rows of y = sum_j weights[j] * x_j + bias + noise.

    Returns:
        Columns `x` (one feature) or `x1`, `x2`, ..., then `y`.
    """
    count = len(settings.weights)
    features = _to_significant(_draw_x(settings.x, (settings.rows, count), generator))
    noise = settings.noise * generator.standard_normal(settings.rows)
    y = settings.bias + noise
    for feature, weight in zip(features.T, settings.weights, strict=True):  # in order: a matrix product's order of
        y = y + weight * feature  # summation depends on the processor
    names = ["x"] if count == 1 else [f"x{j}" for j in range(1, count + 1)]
    return pd.DataFrame(features, columns=names).assign(y=_to_significant(y))


def draw_clusters(settings: ClustersData, generator: np.random.Generator) -> pd.DataFrame:
    """rows_per_cluster points of class 0, then as many of class 1, normal around their centre.

    Returns:
        Columns `x`, `y` (the plane's coordinates) and `label` (0 or 1).
    """
    shape = (2, settings.rows_per_cluster, 2)  # class, row, coordinate
    centers = np.array(settings.centers)[:, np.newaxis, :]
    points = _to_significant(centers + settings.std * generator.standard_normal(shape))
    label = np.repeat([0, 1], settings.rows_per_cluster)
    return pd.DataFrame(points.reshape(-1, 2), columns=["x", "y"]).assign(label=label)


def _draw_x(x: Uniform | Normal, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    if isinstance(x, Uniform):
        return generator.uniform(x.low, x.high, shape)
    return generator.normal(x.mean, x.sd, shape)
