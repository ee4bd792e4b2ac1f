"""logistic: both losses in both forms, its accuracy, and the maximum of the likelihood."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stages.common.files import Table, read_clusters
from stages.common.params import Params
from stages.common.recording import Fit
from stages.common.setup import as_tensors
from stages.train_logistic import accuracy, mean_loss
from stages.train_logistic import fit as fit_logistic

SEEDS = [0, 1, 2, 3]
OVERLAPPING = [[1.0, 0.5], [-0.5, -1.0]]


def loss_and_gradient(
    x: np.ndarray, label: np.ndarray, state: np.ndarray, form: str, loss: str
) -> tuple[float, np.ndarray]:
    """By hand: dP/dz = P (1 - P); z is linear in the state (w, b), of which slope-intercept fixes one slope at -1."""
    slopes = np.array([state[0], -1.0]) if form == "slope-intercept" else state[:-1]
    p = 1 / (1 + np.exp(-(x @ slopes + state[-1])))
    if loss == "mse":
        value, by_z = np.mean((p - label) ** 2), 2 * (p - label) * p * (1 - p) / len(x)
    else:
        value, by_z = -np.mean(np.log(np.where(label == 1, p, 1 - p))), (p - label) / len(x)
    return float(value), np.array([*(x.T @ by_z)[: len(state) - 1], by_z.sum()])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zero_grad", [True, False])
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("form", ["slope-intercept", "general"])
def test_fit_is_a_hand_written_loop(
    fit: Callable[..., Fit], drawn: Callable[..., Table], *, form: str, loss: str, zero_grad: bool, seed: int
) -> None:
    table = drawn("clusters", seed=seed, rows_per_cluster=30, centers=OVERLAPPING)
    x, label = table.features.to_numpy(), table.target.to_numpy()
    how = {"form": form, "loss": loss, "zero_grad": zero_grad, "lr": 0.03}
    history = fit("logistic", table, **how, iterations=40, stop_below=None).history.to_numpy()
    assert history[:, 0].tolist() == list(range(41))
    state = np.array([1.0, 0.0] if form == "slope-intercept" else [0.0, 0.0, 0.0])
    velocity = np.zeros_like(state)
    for row in history:  # to the rounding of 40 updates, which accumulation amplifies
        value, gradient = loss_and_gradient(x, label, state, form, loss)
        np.testing.assert_allclose(row[1:], [value, *state], rtol=0, atol=1e-10)
        velocity = gradient if zero_grad else velocity + gradient
        state = state - 0.03 * velocity


@pytest.mark.parametrize("z", [0.0, 1.0, -30.0, 40.0, 800.0, -1e4, 1e300])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_does_not_overflow(z: float, label: float) -> None:
    """-log P(label) = log(1 + exp(-s)) with s = z or -z, which is -s where exp(-s) overflows."""
    s = z if label == 1 else -z
    expected = -s if s < -700 else math.log1p(math.exp(-s))
    loss = mean_loss(torch.tensor([z], dtype=torch.float64), torch.tensor([label], dtype=torch.float64), "bce")
    assert loss.item() == pytest.approx(expected, abs=4e-16 * max(1, abs(z)))  # rounding of terms of size z


@pytest.mark.parametrize("form", ["slope-intercept", "general"])
def test_cross_entropy_fit_stays_finite_at_huge_logits(fit: Callable[..., Fit], form: str) -> None:
    features = pd.DataFrame({"x": [1e4, -2e4, 1e4, -1e4], "y": [1e4, -2e4, -1e4, 2e4]})
    table = Table(features, pd.Series([1.0, 1.0, 0.0, 0.0]))  # which no line separates
    result = fit("logistic", table, form=form, loss="bce", lr=1.0, iterations=20, stop_below=None)
    assert result.stopped == "iterations"
    assert result.history["loss"].max() > 1e3


@pytest.mark.parametrize(
    ("form", "parameters", "expected"),
    [
        ("slope-intercept", {"w": 1.0, "b": 0.0}, 0.75),  # below the diagonal is class 1
        ("slope-intercept", {"w": 0.0, "b": 2.5}, 0.5),
        ("slope-intercept", {"w": -1.0, "b": -9.0}, 0.5),  # none is class 1
        ("general", {"w1": 1.0, "w2": -1.0, "b": 0.0}, 0.75),
        ("general", {"w1": -1.0, "w2": 1.0, "b": 0.0}, 0.25),
        ("general", {"w1": 0.0, "w2": 0.0, "b": 1.0}, 0.5),
    ],
)
def test_accuracy_is_the_share_of_rows_on_their_side(
    fit: Callable[..., Fit], form: str, parameters: dict[str, float], expected: float
) -> None:
    features = pd.DataFrame({"x": [2.0, 3.0, 0.0, 1.0], "y": [1.0, 1.0, 2.0, 0.0]})
    label = pd.Series([1.0, 1.0, 0.0, 0.0])
    history = pd.DataFrame([{"iteration": 0, "loss": 0.1, **parameters}])
    result = dataclasses.replace(fit("logistic", Table(features, label), iterations=1), history=history)
    assert accuracy(result, *as_tensors(Table(features, label)), form) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_swapped_labels_turn_the_general_fit_round(
    fit: Callable[..., Fit], drawn: Callable[..., Table], loss: str, seed: int
) -> None:
    table = drawn("clusters", seed=seed, centers=OVERLAPPING)
    swapped = Table(table.features, 1 - table.target)
    one, other = (
        fit("logistic", t, form="general", loss=loss, stop_below=None, iterations=100) for t in (table, swapped)
    )
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-12)
    for name, value in one.parameters().items():
        assert other.parameters()[name] == pytest.approx(-value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_of_any_two_values_give_the_same_fit(
    project: Path, fit: Callable[..., Fit], drawn: Callable[..., Table], seed: int
) -> None:
    table = drawn("clusters", seed=seed)
    table.features.assign(label=table.target * 4.5 - 1.5).to_csv("other.csv", index=False)
    one, other = fit("logistic", table), fit("logistic", read_clusters(Path("other.csv")))
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)


@pytest.mark.parametrize("names", [["x"], ["x", "y", "z"]])
def test_general_form_takes_any_number_of_features(fit: Callable[..., Fit], names: list[str]) -> None:
    generator = np.random.default_rng(0)
    features = pd.DataFrame(generator.normal(size=(60, len(names))), columns=names)
    label = (features.sum(axis=1) + generator.normal(size=60) > 0).astype(float)
    result = fit(
        "logistic", Table(features, label), form="general", loss="bce", stop_below=None, lr=2.0, zero_grad=True
    )
    _, gradient = loss_and_gradient(
        features.to_numpy(), label.to_numpy(), np.array([*result.parameters().values()]), "general", "bce"
    )
    assert np.abs(gradient).max() < 1e-6  # at the maximum of the likelihood, which 1000 steps reach
    assert list(result.parameters()) == (["w", "b"] if len(names) == 1 else ["w1", "w2", "w3", "b"])


def test_iris_gives_the_maximum_likelihood_coefficients(
    project: Path, params: Params, changed: Callable[..., Any]
) -> None:
    """The reference values of data/raw/README.md, to four significant digits."""
    how = {"form": "general", "loss": "bce", "standardize": True, "zero_grad": True, "stop_below": None}
    settings = changed(params.train.logistic, **how, lr=1.0, iterations=10_000, log_every=1000)
    result, share_right = fit_logistic(*as_tensors(read_clusters(Path("data/raw/iris.csv"))), settings)
    found = {name: f"{value:.4g}" for name, value in result.parameters().items()}
    assert found == {"w1": "5.755", "w2": "10.45", "b": "-45.27"}
    assert share_right == 0.94
