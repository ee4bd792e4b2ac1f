"""The layer applied twice, y_hat = w (w x + b) + b = w^2 x + (w + 1) b: its two solutions, and descent beside them."""

import math

import numpy as np

from stages.theory.bowl import Curvature, eigen
from stages.theory.least_squares import Array
from stages.theory.single_rows import Distribution

CONTOUR_POINTS = 401


def solutions(slope: float, intercept: float) -> dict[str, Array]:
    """Both (w, b) for which a layer applied twice gives the line slope*x + intercept, by the sign of w.

    w*(w*x + b) + b = w^2 x + (w + 1) b, so that w = +-sqrt(slope) and b = intercept / (w + 1). Empty where slope <= 0;
    without the negative one where w = -1.
    """
    if slope <= 0:
        return {}
    roots = {"positive": math.sqrt(slope), "negative": -math.sqrt(slope)}
    return {name: np.array([w, intercept / (w + 1)]) for name, w in roots.items() if w != -1}


def gradients(theta: Array, x: Array) -> Array:
    """d y_hat / d(w, b) = (2 w x + b, w + 1) at each x, (points, 2)."""
    w, b = theta
    slopes = np.full((len(x), 2), w + 1)
    slopes[:, 0] = 2 * w * x + b
    return slopes


def curvature(theta: Array, x: Distribution) -> Curvature:
    """Of E[(y_hat - y)^2] where y_hat = y, as at both solutions: the Hessian is 2 E[g g'], g the gradient of y_hat."""
    return Curvature(eigen(np.sqrt(2 * x.weights)[:, np.newaxis] * gradients(theta, x.points))[0])


def contour(level: float, slope: float, intercept: float, x: Distribution) -> list[Array]:
    """Where E[(y_hat - y)^2] has a level, as curves (points, 2) of w and b; nan where b passes infinity at w = -1.

    With rise = w^2 - slope and offset = (w + 1) b - intercept it is var(x) rise^2 + (offset + E[x] rise)^2, so that a
    level is an ellipse of rise and offset, and its points at w >= 0 and at w <= 0 are two curves. They meet at w = 0
    where the ellipse reaches so far.
    """
    mean, radius = x.mean(x.points), math.sqrt(level)
    sd = math.sqrt(x.mean((x.points - mean) ** 2))
    furthest = math.acos(max(-slope * sd / radius, -1))  # where w = 0, or round the ellipse
    angle = furthest * np.sin(np.linspace(-np.pi / 2, np.pi / 2, CONTOUR_POINTS))  # even steps of w about w = 0
    rise = radius / sd * np.cos(angle)
    offset = radius * np.sin(angle) - mean * rise
    curves = []
    for sign in (1, -1):
        w = sign * np.sqrt(np.maximum(slope + rise, 0))
        curve = np.column_stack([w, (intercept + offset) / (w + 1)])
        passes = np.flatnonzero(np.diff(np.sign(w + 1))) + 1
        curves.append(np.insert(curve, passes, np.nan, axis=0))
    return curves


def full_batch_path(
    start: Array, slope: float, intercept: float, x: Distribution, *, lr: float, iterations: Array
) -> Array:
    """Descent on E[(y_hat - y)^2], the loss over infinitely many rows, at the asked iterations, ascending, (asked, 2).

    With q = (w + 1) b the mean residual is r = w^2 E[x] + q - (slope E[x] + intercept), its mean with x likewise r_x,
    and the gradient 2 (2 w r_x + b r) by w and 2 (w + 1) r by b.
    """
    # Rounded, since the edge of stability magnifies a last bit that differs between processors.
    first, second = (round(float(x.mean(x.points**power)), 14) for power in (1, 2))
    w, b = (round(float(value), 14) for value in start)
    constant, constant_x = slope * first + intercept, slope * second + intercept * first
    twice_lr, four_lr = 2 * lr, 4 * lr
    path = np.empty((len(iterations), 2))
    for place, steps in enumerate(np.diff(iterations, prepend=0).tolist()):
        for _ in range(steps):
            v, square = w + 1, w * w
            q = v * b
            step = twice_lr * (first * square + q - constant)
            w, b = w - four_lr * w * (second * square + first * q - constant_x) - b * step, b - v * step
        path[place] = w, b
    return path
