"""nn and shared take one row a step, in order: each is a short loop that can be written by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stages.common.files import Table
from stages.common.recording import Fit

SEEDS = [0, 1, 2, 3]


def gradient_of_one_layer(x: np.ndarray, y: float, w: np.ndarray, b: float) -> np.ndarray:
    """Of (y_hat - y)^2 with y_hat = w.x + b, by w and b."""
    error = w @ x + b - y
    return 2 * error * np.array([*x, 1.0])


def gradient_of_the_layer_twice(x: np.ndarray, y: float, w: np.ndarray, b: float) -> np.ndarray:
    """Of (y_hat - y)^2 with y_hat = w (w x + b) + b: dy_hat/dw = 2 w x + b, dy_hat/db = w + 1."""
    error = w[0] * (w[0] * x[0] + b) + b - y
    return 2 * error * np.array([2 * w[0] * x[0] + b, w[0] + 1])


GRADIENTS = {"nn": gradient_of_one_layer, "shared": gradient_of_the_layer_twice}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zero_grad", [True, False])
@pytest.mark.parametrize(
    ("experiment", "weights"), [("nn", [1.233]), ("nn", [2.0, -3.4]), ("nn", [1.0, 0.0, 2.0]), ("shared", [1.233])]
)
def test_fit_is_a_hand_written_loop_over_the_rows_in_order(
    fit: Callable[..., Fit],
    drawn: Callable[..., Table],
    *,
    experiment: str,
    weights: list[float],
    zero_grad: bool,
    seed: int,
) -> None:
    """Through the 30 rows and again from the top: 70 updates."""
    table = drawn("stream", seed=seed, rows=30, weights=weights)
    how = {"zero_grad": zero_grad, "lr": 0.005, "iterations": 70, "log_every": 1, "seed": seed}
    history = fit(experiment, table, **how).history.to_numpy()
    assert history[:, 0].tolist() == list(range(71))
    state, velocity = history[0, 2:], np.zeros(len(weights) + 1)
    for k in range(71):
        np.testing.assert_allclose(history[k, 2:], state, rtol=0, atol=1e-11)  # rounding of 70 updates of about 1
        x, y = table.features.to_numpy()[k % 30], table.target.to_numpy()[k % 30]
        velocity = GRADIENTS[experiment](x, y, state[:-1], state[-1]) + (0 if zero_grad else velocity)
        state = state - 0.005 * velocity


@pytest.mark.parametrize("seed", SEEDS)
def test_recorded_losses_are_over_all_rows(fit: Callable[..., Fit], drawn: Callable[..., Table], seed: int) -> None:
    table = drawn("stream", seed=seed, rows=30)
    x, y = table.features["x"].to_numpy(), table.target.to_numpy()
    for experiment, predict in [
        ("nn", lambda w, b: w * x + b),
        ("shared", lambda w, b: w * (w * x + b) + b),
    ]:
        for row in fit(experiment, table, iterations=50, log_every=7, seed=seed).history.itertuples():
            # losses are rounded to about 1e-16 of the mean square of y
            assert row.loss == pytest.approx(((predict(row.w, row.b) - y) ** 2).mean(), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("experiment", ["nn", "shared"])
def test_start_is_uniform_as_torch_draws_it_and_leaves_torchs_own_generator_alone(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str
) -> None:
    features = 1 if experiment == "shared" else 4
    table = drawn("stream", rows=5, weights=[1.0] * features)
    before = torch.get_rng_state()
    starts = np.array(
        [fit(experiment, table, iterations=1, seed=seed).history.iloc[0, 2:] for seed in range(150)], dtype=float
    )
    assert torch.equal(torch.get_rng_state(), before)
    scaled = starts * np.sqrt(features)  # uniform on [-1, 1)
    assert scaled.shape == (150, features + 1)
    assert (np.abs(scaled) <= 1).all()
    assert (scaled.min(axis=0) < -0.8).all()  # each misses these with (1 - 0.1)^150 = 1e-7
    assert (scaled.max(axis=0) > 0.8).all()
    assert np.abs(np.corrcoef(scaled.T) - np.eye(features + 1)).max() < 5 / np.sqrt(150)
