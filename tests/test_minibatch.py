"""minibatch: its gradients, its batches, and the full batch as a special case."""

from collections.abc import Callable
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from stages.common.files import Table
from stages.common.recording import Fit
from stages.train_minibatch import linear, shuffled_batches, squared_losses

SEEDS = [0, 1, 2, 3]
WEIGHTS = [[3.0], [2.0, -3.4], [1.0, -2.0, 0.5, 4.0]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("rows", "batch_size"), [(50, 10), (53, 10), (15, 15), (15, 100), (15, 1)])
def test_epoch_reads_every_row_once_in_a_new_order(rows: int, batch_size: int, seed: int) -> None:
    """Two orders of 15 rows are the same once in 10^12."""
    batches = shuffled_batches(rows, batch_size, torch.Generator().manual_seed(seed))
    per_epoch = -(-rows // batch_size)
    orders = []
    for _ in range(3):
        epoch = list(islice(batches, per_epoch))
        assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (per_epoch - 1)
        orders.append(torch.cat(epoch).tolist())
        assert sorted(orders[-1]) == list(range(rows))
    assert all(one != other for one, other in pairwise(orders))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zero_grad", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("rows", "batch_size"), [(50, 10), (53, 10), (20, 1), (20, 64)])
def test_fit_is_a_hand_written_loop_over_the_same_batches(
    fit: Callable[..., Fit],
    drawn: Callable[..., Table],
    *,
    rows: int,
    batch_size: int,
    weights: list[float],
    zero_grad: bool,
    seed: int,
) -> None:
    """Also where the last batch is short: its sum of gradients is divided by batch_size all the same."""
    table = drawn("plane", seed=seed, rows=rows, weights=weights, noise=0.5)
    x, y = table.features.to_numpy(), table.target.to_numpy()
    result = fit("minibatch", table, zero_grad=zero_grad, batch_size=batch_size, epochs=3, seed=seed).history

    generator = torch.Generator().manual_seed(seed)
    start = 0.01 * torch.randn((len(weights), 1), generator=generator, dtype=torch.float64)
    w, b = result.loc[0, "w" if len(weights) == 1 else "w1" : "b"].to_numpy()[:-1], 0.0
    np.testing.assert_allclose(w, start.numpy().ravel(), rtol=5.1e-10)  # 10 significant digits
    batches = shuffled_batches(rows, batch_size, generator)
    per_epoch = -(-rows // batch_size)
    velocity_w, velocity_b = np.zeros_like(w), 0.0
    for epoch in range(4):
        row = result.loc[epoch]
        assert (row["iteration"], row["epoch"]) == (epoch * per_epoch, epoch)
        # losses and parameters of some units, a few hundred updates
        np.testing.assert_allclose(row["loss"], ((x @ w + b - y) ** 2 / 2).mean(), rtol=1e-11)
        np.testing.assert_allclose(row.iloc[3:], [*w, b], rtol=1e-11, atol=1e-11)
        for batch in map(np.asarray, islice(batches, per_epoch)):
            error = x[batch] @ w + b - y[batch]
            velocity_w = x[batch].T @ error + (0 if zero_grad else velocity_w)
            velocity_b = error.sum() + (0 if zero_grad else velocity_b)
            w, b = w - 0.03 * velocity_w / batch_size, b - 0.03 * velocity_b / batch_size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_batch_of_all_rows_is_full_batch_descent(
    fit: Callable[..., Fit], drawn: Callable[..., Table], weights: list[float], seed: int
) -> None:
    """Then the order of the rows does not matter: error <- (I - lr X'X/n) error."""
    table = drawn("plane", seed=seed, rows=40, weights=weights, noise=0.5)
    x = np.column_stack([table.features, np.ones(40)])
    solution = np.linalg.lstsq(x, table.target)[0]
    contraction = np.eye(x.shape[1]) - 0.03 * x.T @ x / 40
    history = fit("minibatch", table, batch_size=40, epochs=100, seed=seed).history.to_numpy()
    assert history[:, 0].tolist() == history[:, 1].tolist() == list(range(101))
    for k, state in enumerate(history[:, 3:]):
        expected = solution + np.linalg.matrix_power(contraction, k) @ (history[0, 3:] - solution)
        np.testing.assert_allclose(state, expected, rtol=0, atol=1e-12)  # rounding, contracted at every update


@pytest.mark.parametrize("seed", SEEDS)
def test_losses_broadcast_row_by_row_only(seed: int) -> None:
    """(rows, 1) against (rows,) would give (rows, rows)."""
    generator = torch.Generator().manual_seed(seed)
    x, w, b, y = (torch.randn(shape, generator=generator) for shape in [(5, 2), (2, 1), (1,), (5, 1)])
    losses = squared_losses(linear(x, w, b), y)
    assert losses.shape == (5, 1)
    for i in range(5):
        error = x[i, 0] * w[0, 0] + x[i, 1] * w[1, 0] + b[0] - y[i, 0]
        torch.testing.assert_close(losses[i, 0], error**2 / 2)
