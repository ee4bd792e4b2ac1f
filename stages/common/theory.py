"""What the fits should find: exact solutions, from the settings alone.

NumPy only: no torch, and nothing else of the project, so that it can't share a mistake with the training code.
"""

import math

import numpy as np


def shared_solution(slope: float, intercept: float) -> tuple[float, float] | None:
    """The (w, b) with w > 0 for which a layer applied twice gives the line slope*x + intercept.

    w*(w*x + b) + b = w^2 x + (w + 1) b, so that w = sqrt(slope) and b = intercept / (w + 1). The other solution has
    w = -sqrt(slope). None where slope <= 0: then no real w gives this line, or only w = 0.
    """
    if slope <= 0:
        return None
    w = math.sqrt(slope)
    return w, intercept / (w + 1)


def cluster_log_odds(centers: list[list[float]], std: float) -> tuple[np.ndarray, float]:
    """The true log-odds of class 1, w . x + b, for two normal clusters of equal size and standard deviation.

    By Bayes' rule log N(x; c1, std) - log N(x; c0, std) = (c1 - c0) . x / std^2 - (|c1|^2 - |c0|^2) / (2 std^2);
    see Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2nd edition, section 4.3.

    Returns:
        w of shape (coordinates,), and b.
    """
    c0, c1 = np.array(centers)
    return (c1 - c0) / std**2, float((c0 @ c0 - c1 @ c1) / (2 * std**2))
