"""The minima of the logistic losses, where there is none, and the boundary that two normal clusters have."""

import math
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts where they are used, which takes a third of a second

from stages.theory.least_squares import Array, with_ones

GAIN = 1e-6  # of the loss, by a Newton step at a minimum: less
SPARSE = 1e-9  # of the largest weight: a smaller one is 0
NEAR = 1e-6  # a gradient so small, of columns of length 1, that Newton's own steps finish


@dataclass(frozen=True)
class LogisticMinimum:
    """A minimum of a logistic loss.

    Attributes:
        theta: the weights (w alone in the slope-intercept form), then b.
        loss: the loss there.
        standard_errors: of theta, from the inverse of the observed information; None for mse, which is no likelihood.
    """

    theta: Array
    loss: float
    standard_errors: Array | None


def logits_of(features: Array, form: str) -> tuple[Array, Array]:
    """Z and offset with z = Z theta + offset: `slope-intercept` is w*x + b - y, `general` w1*x1 + ... + b."""
    if form == "slope-intercept":
        return with_ones(features[:, :1]), -features[:, 1]
    return with_ones(features), np.zeros(len(features))


def logistic_minimum(features: Array, label: Array, *, loss: str, form: str, near: Array) -> LogisticMinimum | None:
    """The minimum that Newton's method, safeguarded by a trust region, reaches from `near`.

    bce is convex: there is one minimum, the maximum-likelihood fit, unless the classes can be separated. mse is not
    convex: this is the minimum whose basin `near` lies in. The trust region is SciPy's `trust-exact` (Nocedal and
    Wright, Numerical Optimization, 2nd edition, section 4.3).

    Args:
        features: (rows, features).
        label: (rows,), 0 or 1.
        loss: `mse` or `bce`.
        form: `slope-intercept` or `general`.
        near: theta to start from.

    Returns:
        None where the loss has no minimum in reach: it falls for ever, as it does where the classes are separable.
    """
    Z, offset = logits_of(features, form)
    scale = np.linalg.norm(Z, axis=0) / math.sqrt(len(Z))
    if not (scale > 0).all() or not np.isfinite(scale).all():  # a column of zeros leaves its weight free
        return None
    Z = Z / scale

    def value(theta: Array) -> float:
        return float(row_losses(Z @ theta + offset, label, loss)[0].mean())

    def gradient(theta: Array) -> Array:
        return Z.T @ row_losses(Z @ theta + offset, label, loss)[1] / len(Z)

    def second(theta: Array) -> Array:
        return (Z.T * row_losses(Z @ theta + offset, label, loss)[2]) @ Z / len(Z)

    found = scipy.optimize.minimize(
        value, near * scale, jac=gradient, hess=second, method="trust-exact", options={"gtol": 1e-12}
    )
    theta = found.x
    flat = np.linalg.eigvalsh(second(theta))[0] < 1e-9  # of columns of length 1; forming H loses no more than 1e-15
    if flat or np.abs(gradient(theta)).max() > NEAR:
        return None
    for _ in range(2):  # the trust region ends where the loss no longer shows a step, half of the digits too early
        theta = theta - np.linalg.solve(second(theta), gradient(theta))
    g, inverse = gradient(theta), np.linalg.inv(second(theta))
    if loss == "mse":
        exists = logistic_minimum(features, label, loss="bce", form=form, near=np.zeros_like(near)) is not None
    else:  # of a convex loss that falls for ever a Newton step would still gain as much as is left of it
        is_proved = g @ inverse @ g < GAIN * value(theta)
        exists = is_proved or maximum_likelihood_exists(features, label, form=form)
    if np.abs(g).max() > 1e-9 or not exists:
        return None
    errors = np.sqrt(np.diag(inverse) / len(Z)) / scale if loss == "bce" else None
    return LogisticMinimum(theta / scale, value(theta), errors)


def row_losses(z: Array, label: Array, loss: str) -> tuple[Array, Array, Array]:
    """Each row's loss, and its first and second derivative by z."""
    p = scipy.special.expit(z)
    slope = p * (1 - p)
    if loss == "bce":
        return np.logaddexp(0, np.where(label == 1, -z, z)), p - label, slope  # nothing cancels, however small
    error = p - label
    return error**2, 2 * error * slope, 2 * slope**2 + 2 * error * slope * (1 - 2 * p)


def maximum_likelihood_exists(features: Array, label: Array, *, form: str) -> bool:
    """Whether no direction d separates the classes: Z d >= 0 for all of class 1, <= 0 for all of class 0, not all 0.

    Along such a direction the likelihood rises for ever (Albert and Anderson, On the existence of maximum likelihood
    estimates in logistic regression models, 1984). A linear programme finds the best d in a box: its optimum is 0
    exactly where there is none.
    """
    Z, _ = logits_of(features, form)
    largest = np.abs(Z).max(axis=0)
    Z = Z[:, largest > 0] / largest[largest > 0]
    signed = np.where(label == 1, 1.0, -1.0)[:, np.newaxis] * Z
    found = scipy.optimize.linprog(
        -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(Z)), bounds=(-1, 1), method="highs"
    )
    return bool(-found.fun < 1e-7)


def separating_features(features: Array, label: Array) -> list[int]:
    """A few features of which a combination separates the classes wholly; none where no combination of all does.

    Of all w . x + b that are at least 1 on class 1 and at most -1 on class 0, the one with the least sum of |w|, on
    features of standard deviation 1: a corner of a linear programme, where most weights are 0 (Bradley and Mangasarian,
    Feature selection via concave minimization and support vector machines, 1998).
    """
    sd = features.std(axis=0)
    used = np.flatnonzero(sd > 0)
    z = (features[:, used] - features[:, used].mean(axis=0)) / sd[used]
    signed = np.where(label == 1, 1.0, -1.0)[:, np.newaxis] * with_ones(z)
    count = len(used)
    found = scipy.optimize.linprog(
        np.append(np.ones(2 * count), 0.0),  # w = u - v with u, v >= 0
        A_ub=-np.column_stack([signed[:, :-1], -signed[:, :-1], signed[:, -1]]),
        b_ub=-np.ones(len(z)),
        bounds=[(0, None)] * (2 * count) + [(None, None)],
        method="highs",
    )
    if not found.success:
        return []
    w = np.abs(found.x[:count] - found.x[count : 2 * count])
    return [int(j) for j in used[w > SPARSE * w.max()]]


def cluster_log_odds(centers: list[list[float]], std: float) -> tuple[Array, float]:
    """The true log-odds of class 1, w . x + b, for two normal clusters of equal size and standard deviation.

    By Bayes' rule log N(x; c1, std) - log N(x; c0, std) = (c1 - c0) . x / std^2 - (|c1|^2 - |c0|^2) / (2 std^2)
    (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, section 4.3).

    Returns:
        w of shape (coordinates,), and b.
    """
    c0, c1 = np.array(centers) / std
    return (c1 - c0) / std, float((c0 @ c0 - c1 @ c1) / 2)
