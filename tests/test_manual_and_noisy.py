"""manual and noisy are linear recurrences: their whole trajectory has a closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.common.files import Table
from stages.common.recording import Fit

SEEDS = [0, 1, 2, 3, 4]
HESSIAN = {"manual": 2.0, "noisy": 1.0}  # times X'X / n: the losses are mean(e^2) and mean(e^2) / 2


def remaining_error(k: np.ndarray, step: np.ndarray, *, zero_grad: bool) -> np.ndarray:
    """The share of the error along an eigenvector of the Hessian that k updates leave; step = lr * eigenvalue.

    Zeroed, e <- (1 - step) e. Accumulating, v <- v + eigenvalue e and e <- e - lr v: a rotation by the angle t with
    cos t = 1 - step/2, which has e_k = e_0 cos((k + 1/2) t) / cos(t/2); beyond step = 4 the angle is complex.
    """
    if zero_grad:
        return (1 - step) ** k
    t = np.arccos(1 - step / 2 + 0j)
    return np.real(np.cos((k + 0.5) * t) / np.cos(t / 2))


def closed_form(experiment: str, table: Table, history: np.ndarray, lr: float, *, zero_grad: bool) -> np.ndarray:
    """(w, b) of each row of a history with columns iteration, loss, w, b, from its first row alone."""
    x = np.column_stack([table.features, np.ones(len(table.target))])
    eigenvalues, vectors = np.linalg.eigh(HESSIAN[experiment] * x.T @ x / len(x))
    solution = np.linalg.lstsq(x, table.target)[0]
    error = vectors.T @ (history[0, 2:] - solution)
    k = history[:, :1]
    return solution + (remaining_error(k, lr * eigenvalues, zero_grad=zero_grad) * error) @ vectors.T


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("experiment", "data_set", "how"),
    [
        ("manual", "line", {"zero_grad": True, "lr": 0.01}),
        ("manual", "line", {"zero_grad": True, "lr": 0.5}),
        ("manual", "line", {"zero_grad": False, "lr": 0.01}),
        ("manual", "noisy_line", {"zero_grad": True, "lr": 0.01}),
        ("noisy", "line", {"zero_grad": False, "lr": 0.1}),
        ("noisy", "noisy_line", {"zero_grad": True, "lr": 0.01}),
        ("noisy", "noisy_line", {"zero_grad": True, "lr": 0.1}),  # diverges
        ("noisy", "noisy_line", {"zero_grad": False, "lr": 0.01}),
        ("noisy", "noisy_line", {"zero_grad": False, "lr": 0.1}),  # diverges on some draws
    ],
)
def test_trajectory_is_the_closed_form(
    fit: Callable[..., Fit],
    drawn: Callable[..., Table],
    *,
    experiment: str,
    data_set: str,
    how: dict[str, Any],
    seed: int,
) -> None:
    table = drawn(data_set, seed=seed, noise=1.0)
    result = fit(experiment, table, **how, seed=seed, iterations=200, stop_below=None, log_every=1).history.to_numpy()
    assert result[:, 0].tolist() == list(range(201))
    states = closed_form(experiment, table, result, **how)
    # each update rounds, by eps times the largest state so far; over 200 updates the roundings add up
    size = np.maximum.accumulate(np.abs(states).max(axis=1))
    assert (np.abs(result[:, 2:] - states).max(axis=1) / size).max() < 1e-11
    w, b = states.T[:, :, np.newaxis]
    errors = w * table.features.to_numpy().T + b - table.target.to_numpy()
    np.testing.assert_allclose(result[:, 1], HESSIAN[experiment] / 2 * (errors**2).mean(axis=1), rtol=1e-10)


def test_start_is_drawn_as_the_article_draws_it(fit: Callable[..., Fit], drawn: Callable[..., Table]) -> None:
    """manual: w and b uniform on [0, 1); noisy: w standard normal and b = 0."""
    table = drawn("line")

    def starts(experiment: str) -> np.ndarray:
        rows = [fit(experiment, table, seed=seed, iterations=1).history.iloc[0, 2:] for seed in range(200)]
        return np.array(rows, dtype=float).T

    w, b = starts("manual")
    for values in (w, b):
        assert 0 <= values.min() < 0.07  # (1 - 0.07)^200 = 5e-7
        assert 0.93 < values.max() < 1
    assert abs(np.corrcoef(w, b)[0, 1]) < 5 / np.sqrt(200)  # 5 standard errors, as below
    w, b = starts("noisy")
    assert abs(w.mean()) < 5 / np.sqrt(200)
    assert abs(w.std() - 1) < 5 / np.sqrt(400)
    assert (b == 0).all()
