"""What repetitions estimate, each value with its standard error."""

import math

import numpy as np

from stages.theory.least_squares import Array

Estimate = dict[str, float]  # value, standard_error


def estimate(value: float | np.floating, standard_error: float | np.floating) -> Estimate:
    """As it stands in files."""
    return {"value": float(value), "standard_error": float(standard_error)}


def share(value: float | np.floating, count: int) -> Estimate:
    """A share of so many repetitions: sqrt(p (1 - p) / n), p one hit and one miss off the share.

    So that a share of 0 has an error too (Agresti and Coull, Approximate is better than "exact", 1998).
    """
    p = (value * count + 1) / (count + 2)
    return estimate(value, math.sqrt(p * (1 - p) / count))


def median(values: Array) -> Estimate:
    """Half of the distance between the values sqrt(n)/2 ranks below and above it: one standard error of ranks.

    (David and Nagaraja, Order Statistics, 3rd edition, section 7.1.)
    """
    ranks = 0.5 + np.array([-0.5, 0.5]) / math.sqrt(len(values))
    low, high = np.quantile(values, np.clip(ranks, 0, 1))
    return estimate(np.median(values), (high - low) / 2)


def mean(values: Array) -> Estimate:
    """sd / sqrt(n)."""
    return estimate(values.mean(), values.std(ddof=1) / math.sqrt(len(values)))
