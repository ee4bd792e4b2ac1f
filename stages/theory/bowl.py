"""A quadratic loss is a bowl: its curvature, the step sizes that it allows, and the whole course of descent in it.

`factor` says how the loss is coded, factor/2 * mean((X theta - y)^2): 2 for the mean of squares, 1 for half of it, so
that the Hessian is factor * X'X / n.
"""

import math
from dataclasses import dataclass

import numpy as np

from stages.theory.least_squares import Array, LeastSquares, least_squares, with_ones


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of a Hessian, smallest first, and what follows from them.

    Descent p <- p - lr*g multiplies the error along an eigenvector by 1 - lr*eigenvalue, so that it needs
    lr < 2/largest. Where gradients are never zeroed, it is heavy-ball descent with momentum 1, whose errors stay
    bounded, but are never damped, for lr < 4/largest (Polyak, Some methods of speeding up the convergence of iteration
    methods, 1964).
    """

    eigenvalues: Array

    @property
    def condition(self) -> float:
        """The ratio of the largest eigenvalue to the smallest."""
        smallest = float(self.eigenvalues[0])
        return float(self.eigenvalues[-1]) / smallest if smallest > 0 else math.inf

    @property
    def stable_lr(self) -> float:
        """2 / largest eigenvalue: descent converges below it."""
        return 2 / float(self.eigenvalues[-1])

    def e_fold(self, *, lr: float, place: int) -> float:
        """Updates after which an error along one of the eigenvectors is 1/e of itself: -1 / log |1 - lr eigenvalue|."""
        shrinks = lr * float(self.eigenvalues[place])
        if shrinks == 1:
            return 0.0
        return -1 / (math.log1p(-shrinks) if shrinks < 1 else math.log(shrinks - 1))

    @property
    def accumulating_lr(self) -> float:
        """4 / largest eigenvalue: descent with accumulating gradients stays bounded below it."""
        return 4 / float(self.eigenvalues[-1])


def eigen(A: Array) -> tuple[Array, Array]:
    """Eigenvalues of A'A, ascending, and its eigenvectors as columns, from A's singular values.

    A'A itself would lose all eigenvalues below 1e-16 of the largest, and half of the digits of those above (Golub and
    Van Loan, Matrix Computations, 4th edition, section 8.6). The triangle R of A = QR has the same singular values.
    Where A has fewer rows than columns, the eigenvectors of the first zeros are left out: there are too many.
    """
    _, s, Vt = np.linalg.svd(np.linalg.qr(A, mode="r"), full_matrices=False)
    h = np.zeros(A.shape[1])
    h[: len(s)] = s**2
    return h[::-1], Vt[::-1].T


@dataclass(frozen=True)
class Course:
    """Where descent is at the asked iterations: theta (iterations, features + 1), loss and excess, both (iterations,).

    The excess is what the loss is above its minimum. Not finite where the course has left the range of floating-point
    numbers.
    """

    theta: Array
    loss: Array
    excess: Array


class Bowl:
    """The loss of a line on some data, decomposed once; descent in it is a linear recurrence with a closed form.

    With H the Hessian and e the distance from the least-squares solution, zeroed gradients give
    e_{k+1} = (I - lr H) e_k, and accumulating ones e_{k+1} = 2 e_k - e_{k-1} - lr H e_k with e_1 = (I - lr H) e_0.
    Along an eigenvector with eigenvalue h the solutions are

        e_k = (1 - lr h)^k e_0
        e_k = cos((k + 1/2) phi) / cos(phi / 2) e_0,  cos(phi) = 1 - lr h / 2

    with complex phi, hence growth, for lr h > 4. The loss is loss* + e'He / 2.
    """

    def __init__(self, features: Array, target: Array, *, factor: float, standardize: bool) -> None:
        """Decomposes the Hessian.

        Args:
            features: (rows, features), in the CSV's units.
            target: (rows,).
            factor: 2 for the mean of squares, 1 for half of it.
            standardize: whether the descent is made on features of mean 0 and standard deviation 1.
        """
        none, ones = np.zeros(features.shape[1]), np.ones(features.shape[1])
        self._mean: Array = features.mean(0) if standardize else none
        self._sd: Array = features.std(0) if standardize else ones
        scaled = (features - self._mean) / self._sd if standardize else features
        X = with_ones(scaled)
        self._factor = factor
        self._solution = least_squares(scaled, target)
        self._h, self._V = eigen(X * math.sqrt(factor / len(X)))

    @property
    def curvature(self) -> Curvature:
        """In the units of the fit."""
        return Curvature(self._h)

    def course(self, start: Array, iterations: Array, *, lr: float, accumulate: bool) -> Course | None:
        """Where full-batch descent is; None where the features are linearly dependent.

        Args:
            start: (features + 1,), theta at iteration 0, in the CSV's units.
            iterations: (iterations,), the k to give; any non-negative integers.
            lr: the learning rate.
            accumulate: whether gradients add up.
        """
        if self._solution is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):  # a course that diverges
            multiplier = _multiplier(np.asarray(iterations)[:, np.newaxis], lr * self._h, accumulate)
            along = self._along(start, self._solution) * multiplier  # (iterations, eigenvectors)
            excess = (self._h * along**2).sum(axis=1) / 2
            theta = self._solution.theta + along @ self._V.T
            weights = theta[:, :-1] / self._sd
            loss = self._factor / 2 * self._solution.mean_square + excess
            return Course(np.column_stack([weights, theta[:, -1] - weights @ self._mean]), loss, excess)

    @property
    def hessian(self) -> Array:
        """In the units of the fit, (features + 1, features + 1)."""
        return (self._V * self._h) @ self._V.T

    def _along(self, theta: Array, solution: LeastSquares) -> Array:
        """The distance from the solution along each eigenvector, of theta in the CSV's units."""
        in_units_of_fit = np.append(theta[:-1] * self._sd, theta[-1] + theta[:-1] @ self._mean)
        return self._V.T @ (in_units_of_fit - solution.theta)

    def swing(self, start: Array, *, lr: float) -> float | None:
        """The largest loss of descent with accumulating gradients from theta, in the CSV's units; None if not bounded.

        Each |e_k| is at most |e_0| / cos(phi / 2), and cos(phi / 2)^2 = 1 - lr h / 4.
        """
        damping = 1 - lr * self._h / 4
        if self._solution is None or damping.min() <= 0:
            return None
        along = self._along(start, self._solution)
        return float(self._factor / 2 * self._solution.mean_square + (self._h * along**2 / damping).sum() / 2)

    def excess(self, theta: Array) -> float:
        """How far the loss at theta, in the CSV's units, lies above its minimum, e'He / 2; nan without a single one."""
        if self._solution is None:
            return math.nan
        with np.errstate(over="ignore"):  # at a theta that has exploded
            return float((self._h * self._along(theta, self._solution) ** 2).sum() / 2)


def _multiplier(k: Array, lr_h: Array, accumulate: bool) -> Array:
    """What k updates make of an error of 1 along an eigenvector; inf where it has grown beyond the largest float."""
    if not accumulate:
        return (1 - lr_h) ** k
    phi = np.arccos(1 - lr_h / 2 + 0j)
    return np.nan_to_num((np.cos((k + 0.5) * phi) / np.cos(phi / 2)).real, nan=np.inf)
