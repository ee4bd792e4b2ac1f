"""Descent on batches of rows: an epoch is an affine map of the error, and its maps say where descent ends.

With e = theta - theta*, residuals r = y - X theta* and step s = lr factor / b an update on the batch B of b rows is

    e <- (I - s sum_B x x') e + s sum_B x r,

so that an epoch is e <- M e + c, with M and c of the order in which the rows are read. In a fixed order this is exact.
Where the rows are shuffled anew, M and c are drawn anew, and moments of e follow from those of M and c, here averaged
over sampled orders. With reshuffling the floor is lower than for batches drawn with replacement (Mishchenko, Khaled and
Richtárik, Random reshuffling: simple analysis with vast improvements, 2020).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from stages.theory.least_squares import Array, with_ones

GROUPS = 5  # of orders, whose spread gives the sampling error


@dataclass(frozen=True)
class Epochs:
    """The maps of an epoch for some orders: M (orders, parameters, parameters) and c (orders, parameters)."""

    M: Array
    c: Array

    @property
    def shrinks(self) -> float:
        """By how much the mean error along the slowest direction is multiplied in an epoch: the radius of E[M]."""
        return _radius(self.M.mean(axis=0))

    @property
    def mean_square_growth(self) -> float:
        """By how much the mean square of the error is multiplied in an epoch: the radius of E[M (x) M]."""
        return _radius(self._second_moments())

    def typical_growth(self, epochs: int = 200) -> float:
        """log |M ... M v| an epoch for maps drawn anew: the growth of nearly all runs, below 0 where they stay.

        The first tenth, in which v turns to its direction, is left out (Furstenberg and Kesten, 1960).
        """
        generator, growth = np.random.default_rng(0), []
        v = np.ones(self.M.shape[1])
        for order in generator.integers(0, len(self.M), epochs):
            v = self.M[order] @ v
            length = float(np.linalg.norm(v))
            growth.append(np.log(length))
            v /= length
        return float(np.mean(growth[epochs // 10 :]))

    def floor(self, hessian: Array) -> tuple[float, float]:
        """The excess loss, e'He / 2 in the mean, at which epochs leave descent in the long run; and its sampling error.

        The mean m and the second moment S of e solve m = E[M] m + E[c] and S = E[M S M' + M m c' + c m' M' + c c'].
        Where the order is fixed the limit is exact, and the error 0.
        """
        whole = self._floor(hessian)
        if len(self.M) < 2 * GROUPS:
            return whole, 0.0
        parts = [Epochs(self.M[g::GROUPS], self.c[g::GROUPS])._floor(hessian) for g in range(GROUPS)]
        return whole, float(np.std(parts, ddof=1) / np.sqrt(GROUPS))

    def _floor(self, hessian: Array) -> float:
        size = self.M.shape[1]
        mean = np.linalg.solve(np.eye(size) - self.M.mean(axis=0), self.c.mean(axis=0))
        mixed = np.einsum("kij,j,kl->il", self.M, mean, self.c) / len(self.M)
        source = mixed + mixed.T + np.einsum("ki,kj->ij", self.c, self.c) / len(self.c)
        S = np.linalg.solve(np.eye(size**2) - self._second_moments(), source.ravel()).reshape(size, size)
        return float(np.trace(hessian @ S) / 2)

    def _second_moments(self) -> Array:
        size = self.M.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):  # descent that grows beyond the largest float in an epoch
            return np.einsum("kij,klm->iljm", self.M, self.M).reshape(size**2, size**2) / len(self.M)


def passes_zero(rising: Callable[[float], float], near: float) -> float | None:
    """The learning rate around `near` where a rising function of it, such as the log of a growth, is 0.

    None if 30 doublings or halvings don't pass it.
    """

    def at(log_lr: float) -> float:
        return float(np.clip(rising(math.exp(log_lr)), -1e3, 1e3))  # finite, as the search needs it

    here, step = math.log(near), math.log(2)
    is_above = at(here) > 0
    for _ in range(30):
        there = here - step if is_above else here + step
        if (at(there) > 0) != is_above:
            return math.exp(scipy.optimize.brentq(at, min(here, there), max(here, there), xtol=1e-4))
        here = there
    return None


def _radius(A: Array) -> float:
    """The largest magnitude of an eigenvalue; inf where a number is beyond the largest float.

    Above 0, as it is, though the product of thousands of rows' maps may be too small for a float.
    """
    if not np.isfinite(A).all():
        return math.inf
    return max(float(np.abs(np.linalg.eigvals(A)).max()), float(np.finfo(float).tiny))


def epochs(features: Array, residual: Array, orders: Array, *, batch_size: int, step: float) -> Epochs:
    """The maps of one epoch for each order.

    Args:
        features: (rows, features), as the fit sees them.
        residual: (rows,), y minus the exact solution's prediction.
        orders: (orders, rows), which row is read when.
        batch_size: rows a batch; the last may be short.
        step: lr times factor / batch_size.
    """
    rows = np.column_stack([with_ones(features), -residual])
    with np.errstate(over="ignore", invalid="ignore"):
        maps = np.array([_epoch(rows[order], batch_size, step) for order in orders])
    return Epochs(maps[:, :-1, :-1], maps[:, :-1, -1])


def _epoch(rows: Array, batch_size: int, step: float) -> Array:
    """[M c; 0 1], which takes (e, 1) over an epoch: the product of those of its batches, neighbours at a time.

    Args:
        rows: (rows, parameters + 1), x and -r of each in the order of their reading.
        batch_size: rows a batch.
        step: lr times factor / batch_size.
    """
    count, size = math.ceil(len(rows) / batch_size), rows.shape[1]
    filled = np.zeros((count * batch_size, size))  # a short last batch is filled with zeros, which add nothing
    filled[: len(rows)] = rows
    batches = filled.reshape(count, batch_size, size)
    maps = np.tile(np.eye(size), (count, 1, 1))
    maps[:, :-1] -= step * batches[:, :, :-1].transpose(0, 2, 1) @ batches
    while len(maps) > 1:
        even = len(maps) // 2 * 2
        maps = np.concatenate([maps[1::2] @ maps[:even:2], maps[even:]])
    product: Array = maps[0]
    return product
