"""Descent on one row a step, its feature drawn anew every time: its mean-square error, and the step sizes it allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.theory.least_squares import Array, with_ones


@dataclass(frozen=True)
class Distribution:
    """A distribution of x as a few points with weights that add up to 1: Gauss quadrature.

    With 8 points the mean of every polynomial of degree 15 or less is exact; the moments used here have degree 4 or
    less.
    """

    points: Array
    weights: Array

    def mean(self, values: Array) -> Array:
        """E[f(x)] from the values f(points); the points run along the first axis."""
        weights = self.weights.reshape(-1, *[1] * (values.ndim - 1))
        return (weights * values).sum(axis=0)  # no BLAS, whose order of summation depends on the processor


def uniform(low: float, high: float) -> Distribution:
    """x uniform on [low, high): Gauss-Legendre quadrature."""
    points, weights = np.polynomial.legendre.leggauss(8)
    return Distribution(low + (high - low) * (points + 1) / 2, weights / 2)


def normal(mean: float, sd: float) -> Distribution:
    """x normal: Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(8)
    return Distribution(mean + sd * points, weights / weights.sum())


def second_moment_operator(gradients: Array, x: Distribution, lr: float) -> Array:
    """A, (4, 4), with vec(E[e_{k+1} e_{k+1}']) = A vec(E[e_k e_k']) for e_{k+1} = (I - 2 lr g g') e_k, x drawn anew.

    A = E[B (x) B], B = I - 2 lr g g'. Exact where the model is linear in theta (g = (x, 1)); elsewhere its
    linearisation (Feuer and Weinstein, Convergence analysis of LMS filters with uncorrelated Gaussian data, 1985).

    Args:
        gradients: (points, 2), g = d y_hat / d theta at each point of x.
        x: the distribution of x.
        lr: the learning rate.
    """
    B = np.eye(2) - 2 * lr * gradients[:, :, np.newaxis] * gradients[:, np.newaxis, :]
    return x.mean(_kronecker(B, B))


def mean_square_growth(gradients: Array, x: Distribution, lr: float) -> float:
    """The factor by which E|e|^2 grows in the long run, a step: the spectral radius of the second-moment operator."""
    return float(np.abs(np.linalg.eigvals(second_moment_operator(gradients, x, lr))).max())


def typical_growth(gradients: Array, lr: float) -> Array:
    """log |e_{k+1}| / |e_k| of one run, step by step, (steps,): its mean is the growth of nearly all runs.

    The mean square can grow where they shrink: rare bursts make it. This is a Lyapunov exponent (Furstenberg and
    Kesten, Products of random matrices, 1960). The first hundred steps, in which the start is forgotten, are left out.

    Args:
        gradients: (steps, 2), d y_hat / d theta at the row that each step reads.
        lr: the learning rate.
    """
    growth, (e_w, e_b) = [], (1.0, 0.0)
    for g_w, g_b in gradients.tolist():
        step = 2 * lr * (g_w * e_w + g_b * e_b)
        e_w, e_b = e_w - step * g_w, e_b - step * g_b
        length = math.hypot(e_w, e_b)
        growth.append(math.log(length))
        e_w, e_b = e_w / length, e_b / length
    return np.array(growth[100:])


def mean_square_stable_lr(gradients: Array, x: Distribution) -> float:
    """The lr above which E|e|^2 grows. It lies below 2/lambda_max of the mean Hessian 2 E[g g'].

    There an eigenvalue of A reaches 1. With P = g g' it is A = I - 2 lr K + 4 lr^2 L, K = E[P (x) I + I (x) P],
    L = E[P (x) P], so that K v = 2 lr L v: the smallest lr is half the inverse of the largest eigenvalue of K^-1 L.
    """
    P = gradients[:, :, np.newaxis] * gradients[:, np.newaxis, :]
    identity = np.broadcast_to(np.eye(2), P.shape)
    K = x.mean(_kronecker(P, identity) + _kronecker(identity, P))
    L = x.mean(_kronecker(P, P))
    return float(0.5 / np.linalg.eigvals(np.linalg.solve(K, L)).real.max())


def _kronecker(A: Array, B: Array) -> Array:
    """A (x) B of each point, (points, 4, 4)."""
    return np.einsum("nij,nkl->nikjl", A, B).reshape(-1, 4, 4)


def line_gradients(x: Distribution) -> Array:
    """d(w x + b) / d(w, b) = (x, 1) at each point, (points, 2)."""
    return with_ones(x.points[:, np.newaxis])


def expected_error(x: Distribution, *, lr: float, steps: Sequence[int], noise: float) -> tuple[Array, Array]:
    """E|theta_k - theta*|^2 of single-row descent on (y_hat - y)^2 for a line, linear in the products of its start.

    With y = theta* . (x, 1) + noise the error obeys e_{k+1} = B e_k + 2 lr noise_k (x, 1), so that its second moment M
    obeys vec(M) <- A vec(M) + 4 lr^2 noise^2 vec(E[(x, 1)(x, 1)']).

    Args:
        x: the distribution of x.
        lr: the learning rate.
        steps: the k to give, ascending.
        noise: standard deviation of the noise.

    Returns:
        T (steps, 4) and added (steps,): E|e_k|^2 = T vec(e_0 e_0') + added.
    """
    g = line_gradients(x)
    A = second_moment_operator(g, x, lr)
    source = 4 * lr**2 * noise**2 * x.mean(g[:, :, np.newaxis] * g[:, np.newaxis, :]).ravel()
    trace, noise_so_far = np.eye(2).ravel(), 0.0
    wanted, traces, added = set(steps), [], []
    for k in range(max(steps) + 1):
        if k in wanted:
            traces.append(trace)
            added.append(noise_so_far)
        noise_so_far += float((trace * source).sum())
        trace = (trace[:, np.newaxis] * A).sum(axis=0)
    return np.array(traces), np.array(added)
