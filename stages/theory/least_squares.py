"""The exact fit of a line or plane.

Throughout, theta = (w1, ..., wp, b), and X is the features with a column of ones.
"""

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class LeastSquares:
    """The exact fit of a line or plane.

    Attributes:
        theta: (features + 1,), the weights, then b.
        standard_errors: (features + 1,), of theta.
        residual_sd: sqrt(sum of squared residuals / (rows - features - 1)); nan where there are no rows to spare.
        mean_square: mean of the squared residuals.
    """

    theta: Array
    standard_errors: Array
    residual_sd: float
    mean_square: float


def with_ones(features: Array) -> Array:
    """X: features (rows, features) with a last column of ones, (rows, features + 1)."""
    X = np.ones((len(features), features.shape[1] + 1))
    X[:, :-1] = features
    return X


def least_squares(features: Array, target: Array) -> LeastSquares | None:
    """argmin |X theta - y|^2, by the singular value decomposition of X with columns of length 1.

    X'X, whose condition is the square of X's, is never formed (Golub and Van Loan, Matrix Computations, 4th edition,
    section 5.3). Standard errors are residual_sd * sqrt(diag((X'X)^-1)) (Seber and Lee, Linear Regression Analysis,
    section 3.3).

    Args:
        features: (rows, features).
        target: (rows,).

    Returns:
        None where the columns are linearly dependent, so that no single solution exists.
    """
    X = with_ones(features)
    lengths = np.linalg.norm(X, axis=0)
    if not lengths.all():
        return None
    U, s, Vt = np.linalg.svd(X / lengths, full_matrices=False)
    if len(X) < X.shape[1] or s[-1] < s[0] * len(X) * np.finfo(float).eps:
        return None
    inverse = Vt.T / s  # the pseudo-inverse is inverse @ U'
    theta = inverse @ (U.T @ target) / lengths
    squares = float(np.sum((target - X @ theta) ** 2))
    spare = len(X) - X.shape[1]
    residual_sd = math.sqrt(squares / spare) if spare else math.nan
    return LeastSquares(theta, residual_sd * np.linalg.norm(inverse, axis=1) / lengths, residual_sd, squares / len(X))
