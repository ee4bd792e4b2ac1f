"""What every fit shares around its loop: the rows it records, when it ends, and the scaling of its features."""

import gc
import io
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.files import read_json, read_numbers
from stages.common.params import Params
from stages.common.recording import Fit, Recorder, write_fit
from stages.common.scaling import Scaling

X = torch.tensor([[0.5], [-1.0], [2.0], [1.5]], dtype=torch.float64)
Y = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)


class State(NamedTuple):
    """The parameters before update `iteration`, and the loss over all rows."""

    iteration: int
    loss: float
    w: float
    b: float


def is_finite(state: State) -> bool:
    return all(map(math.isfinite, state))


def loss_of_all(w: Tensor, b: Tensor) -> Tensor:
    return ((X[:, 0] * w + b - Y) ** 2).mean()


def updated(iteration: int, w: Tensor, b: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """One step of gradient descent on one row."""
    x, y = X[iteration % len(X), 0], Y[iteration % len(X)]
    error = w * x + b - y
    return w - lr * 2 * error * x, b - lr * 2 * error


def naive_states(updates: int, lr: float) -> list[State]:
    """Every state of a plain loop that stops for nothing."""
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    states = []
    for iteration in range(updates + 1):
        states.append(State(iteration, loss_of_all(w, b).item(), w.item(), b.item()))
        w, b = updated(iteration, w, b, lr)
    return states


@pytest.fixture
def descend(params: Params, changed: Callable[..., Any]) -> Callable[..., Fit]:
    """Runs the same loop with a Recorder, which is given the loss at every iteration (`full_batch`) or not."""

    def loop(
        iterations: int, lr: float, *, full_batch: bool, log_every: int = 1, stop_below: float | None = None
    ) -> Fit:
        settings = changed(params.train.manual, log_every=log_every, stop_below=stop_below)
        recorder = Recorder(loss_of_all, Y, settings, iterations, Scaling.none(X))
        w, b = torch.zeros((2, 1), dtype=torch.float64)
        for iteration in recorder.iterations():
            recorder.observe(w, b, loss_of_all(w, b) if full_batch else None)
            new_w, new_b = updated(iteration, w, b, lr)
            w.copy_(new_w)  # in place, as the fits do
            b.copy_(new_b)
        return recorder.finish(w, b)

    return loop


def expected_rows(
    states: list[State], *, full_batch: bool, log_every: int, stop_below: float | None
) -> tuple[list[State], State | None]:
    """The rows to record of a run that stays finite, and the state that meets `stop_below`, if one does."""
    limit = len(states) - 1
    due = range(0, limit, log_every)
    seen = range(limit) if full_batch else due
    met = next((k for k in seen if stop_below is not None and states[k].loss < stop_below), None)
    last = limit if met is None else met + 1  # the update of the iteration that met it is still made
    rows = {k for k in due if k < last} | {last} | (set() if met is None else {met})
    return [states[k] for k in sorted(rows)], None if met is None else states[met]


STOPS = [None, 1e-9, 0.6, 0.7, 3.0, 1e6]


def test_the_stops_are_first_met_at_different_places() -> None:
    """So that the cases below differ: never, by the state after 30 updates, on the way, by the start."""
    losses = [state.loss for state in naive_states(31, lr=0.05)]
    met = [next((k for k, loss in enumerate(losses) if stop and loss < stop), None) for stop in STOPS]
    assert met == [None, None, 30, 14, 2, 0]


@pytest.mark.parametrize("full_batch", [True, False])
@pytest.mark.parametrize("stop_below", STOPS)
@pytest.mark.parametrize("log_every", [1, 2, 7, 30, 31, 1000])
@pytest.mark.parametrize("iterations", [1, 2, 30, 31])
def test_rows_and_end_are_those_of_the_plain_loop(
    descend: Callable[..., Fit], iterations: int, log_every: int, stop_below: float | None, full_batch: bool
) -> None:
    states = naive_states(iterations, lr=0.05)
    how: dict[str, Any] = {"full_batch": full_batch, "log_every": log_every, "stop_below": stop_below}
    rows, met = expected_rows(states, **how)
    fit = descend(iterations, 0.05, **how)
    # losses are rounded to about 1e-16 of the target's mean square, 3.6; parameters are the same floats
    expected = pd.DataFrame(rows).rename(columns=str)
    pd.testing.assert_frame_equal(fit.history, expected, check_exact=False, rtol=0, atol=1e-15)
    assert fit.history[["iteration", "w", "b"]].equals(expected[["iteration", "w", "b"]])
    assert fit.stopped == ("iterations" if met is None else "loss")
    assert fit.stop_loss == (None if met is None else pytest.approx(met.loss, abs=1e-15))
    assert fit.metrics()["iterations"] == rows[-1].iteration


def test_stop_met_only_by_the_final_state_does_not_count(descend: Callable[..., Fit]) -> None:
    """The loss is compared before an update: nothing compares the state after the last one."""
    fit = descend(30, 0.05, full_batch=True, stop_below=0.6)
    assert fit.metrics()["loss"] == pytest.approx(0.5967, abs=1e-4)
    assert (fit.stopped, fit.stop_loss) == ("iterations", None)


# --- divergence ------------------------------------------------------------------------------------------------------

DIVERGING = 3.0  # each pass over the rows multiplies the error by about 10^3


def first_state_that_is_not_finite() -> int:
    return next(state.iteration for state in naive_states(2000, DIVERGING) if not is_finite(state))


@pytest.mark.parametrize("full_batch", [True, False])
@pytest.mark.parametrize("log_every", [1, 7, 10**6])
@pytest.mark.parametrize("more", [-1, 0, 1, 2, 500])
def test_diverging_run_ends_on_its_last_finite_state(
    descend: Callable[..., Fit], more: int, log_every: int, full_batch: bool
) -> None:
    """With limits on either side of the update that overflows."""
    iterations = first_state_that_is_not_finite() + more
    states = naive_states(iterations, DIVERGING)
    last = [state for state in states if is_finite(state)][-1]
    fit = descend(iterations, DIVERGING, full_batch=full_batch, log_every=log_every)
    assert fit.stopped == ("iterations" if more < 0 else "diverged")
    assert fit.stop_loss is None
    assert np.isfinite(fit.history.to_numpy()).all()
    rows = sorted({*range(0, last.iteration, log_every), last.iteration})
    assert fit.history["iteration"].to_list() == rows
    assert fit.parameters() == {"w": last.w, "b": last.b}
    metrics = fit.metrics()
    assert metrics["loss"] == pytest.approx(last.loss, rel=1e-12)
    assert (metrics["fitted"], metrics["iterations"]) == (fit.parameters(), last.iteration)


def test_run_that_meets_its_stop_and_overflows_in_the_same_update_has_diverged(
    params: Params, changed: Callable[..., Any]
) -> None:
    settings = changed(params.train.manual, stop_below=100.0)
    recorder = Recorder(loss_of_all, Y, settings, 10, Scaling.none(X))
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    for _ in recorder.iterations():
        recorder.observe(w, b, loss_of_all(w, b))
        w = w + math.inf
    fit = recorder.finish(w, b)
    assert (fit.stopped, fit.stop_loss) == ("diverged", None)
    assert fit.history["iteration"].to_list() == [0]


@pytest.mark.parametrize("full_batch", [True, False])
def test_start_whose_loss_is_not_finite_is_refused(params: Params, full_batch: bool) -> None:
    def overflowing(w: Tensor, b: Tensor) -> Tensor:
        return ((X[:, 0] * w + b - 1e200 * Y) ** 2).mean()

    recorder = Recorder(overflowing, 1e200 * Y, params.train.manual, 10, Scaling.none(X))
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    for _ in recorder.iterations():
        recorder.observe(w, b, overflowing(w, b) if full_batch else None)
    with pytest.raises(UserError, match="the loss at the start is not a finite number"):
        recorder.finish(w, b)


@pytest.mark.parametrize("full_batch", [True, False])
def test_recorder_keeps_no_states_from_before_the_last_recorded_row(params: Params, full_batch: bool) -> None:
    def tensors() -> int:
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    recorder = Recorder(loss_of_all, Y, params.train.manual, 1000, Scaling.none(X))
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    before = tensors()
    for _ in recorder.iterations():
        recorder.observe(w, b, loss_of_all(w, b) if full_batch else None)
    assert tensors() - before < 100


# --- what is written -------------------------------------------------------------------------------------------------


def test_losses_below_the_residue_of_rounding_are_written_as_zero(params: Params) -> None:
    """1e-16 of the mean square of the target, 1e6 here, is 1e-10."""
    target = torch.full((4,), 1e3, dtype=torch.float64)
    recorder = Recorder(lambda w, b: (w * 1e-11).sum(), target, params.train.manual, 1, Scaling.none(X))
    w, b = torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in recorder.iterations():
        recorder.observe(w, b)
        w = 1e3 * w
    losses = recorder.finish(w, b).history["loss"]
    assert losses.to_list() == [0.0, 1e-8]


def test_files_hold_the_fit(project: Path, descend: Callable[..., Fit]) -> None:
    fit = descend(30, 0.05, full_batch=True, log_every=4, stop_below=0.7)
    write_fit("manual", fit, accuracy=0.75)
    metrics = read_json(Path("reports/metrics/manual.json"))
    history = read_numbers(Path("reports/history/manual.csv"))
    assert list(metrics) == [
        *("fitted", "initial", "loss", "log10_loss", "iterations", "stopped", "stop_loss", "accuracy")
    ]
    assert list(history.columns) == ["iteration", "loss", "w", "b"]
    np.testing.assert_allclose(history, fit.history, rtol=5.1e-10)  # 10 significant digits
    first, before, last = history.iloc[0], history.iloc[-2], history.iloc[-1]
    assert metrics == {
        "fitted": {"w": last["w"], "b": last["b"]},
        "initial": {"w": first["w"], "b": first["b"]},
        "loss": last["loss"],
        "log10_loss": round(math.log10(last["loss"]), 3),
        "iterations": last["iteration"],
        "stopped": "loss",
        "stop_loss": before["loss"],
        "accuracy": 0.75,
    }


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_shows_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch, params: Params, is_terminal: bool) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    recorder = Recorder(loss_of_all, Y, params.train.manual, 3, Scaling.none(X))
    for _ in recorder.iterations():
        time.sleep(0.4)  # runs of up to 1 s show nothing anywhere
    assert bool(screen.getvalue()) == is_terminal


# --- scaling ---------------------------------------------------------------------------------------------------------

SEEDS = [0, 1, 2, 3, 4]


def features_of_any_units(seed: int, rows: int = 50) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.tensor(generator.normal([0.0, 1e3, -5.0], [1e-3, 1e2, 4.0], (rows, 3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_scaled_columns_have_mean_0_and_population_standard_deviation_1(seed: int) -> None:
    features = features_of_any_units(seed, rows=5)  # few, so that n and n - 1 differ
    scaled = Scaling.of(features, standardize=True).apply(features).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-13)  # eps times mean / sd, 10 here
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_mapping_back_keeps_every_prediction(seed: int) -> None:
    features = features_of_any_units(seed)
    scaling = Scaling.of(features, standardize=True)
    w, b = torch.tensor(np.random.default_rng(seed).normal(size=(3, 1))), torch.tensor(0.5, dtype=torch.float64)
    *weights, bias = scaling.in_csv_units(w, b)
    predictions = (scaling.apply(features) @ w + b).flatten()
    # differences of terms of about 1e3 / 1e2: a few eps times 10
    np.testing.assert_allclose(features.numpy() @ weights + bias, predictions.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_scaling_changes_no_bit(seed: int) -> None:
    features = features_of_any_units(seed)
    scaling = Scaling.of(features, standardize=False)
    assert torch.equal(scaling.apply(features), features)
    w, b = torch.tensor([0.1, -3.0, 1e-30], dtype=torch.float64), torch.tensor(1 / 3, dtype=torch.float64)
    assert scaling.in_csv_units(w, b) == [0.1, -3.0, 1e-30, 1 / 3]


@pytest.mark.parametrize("value", [0.0, 0.1, -1e300, 1e-320])
def test_constant_column_is_refused_by_its_number(value: float) -> None:
    """0.1 has a standard deviation of rounding residue, not of 0."""
    features = features_of_any_units(0)
    features[:, 1] = value
    with pytest.raises(UserError, match=r"standardize: feature 2 .* expected values that differ"):
        Scaling.of(features, standardize=True)


@pytest.mark.parametrize("scale", [1e200, 1e-320])
def test_column_whose_spread_overflows_is_refused(scale: float) -> None:
    features = features_of_any_units(0)
    features[:, 2] *= scale
    with pytest.raises(UserError, match=r"standardize: feature 3 .* finite standard deviation"):
        Scaling.of(features, standardize=True)


def test_log10_loss_says_how_small_a_loss_is(descend: Callable[..., Fit]) -> None:
    """DVC shows five decimals of a metric, so that a small loss would be 0.0 there."""
    metrics = descend(30, lr=0.05, full_batch=True).metrics()
    assert metrics["log10_loss"] == pytest.approx(math.log10(metrics["loss"]), abs=5e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e3, 1.0, 1e-6, 1e-120])
def test_log10_loss_of_a_perfect_fit_is_that_of_the_smallest_loss_that_is_written(
    params: Params, changed: Callable[..., Any], size: float
) -> None:
    """About 1e-16 of the target's mean square."""
    settings = changed(params.train.manual, iterations=1)
    target = size * Y / Y.square().mean().sqrt()
    recorder = Recorder(lambda w, _: 0 * w.sum(), target, settings, 1, Scaling.none(X))
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    for _ in recorder.iterations():
        recorder.observe(w, b)
    metrics = recorder.finish(w, b).metrics()
    assert metrics["loss"] == 0
    assert metrics["log10_loss"] == pytest.approx(2 * math.log10(size) - 16, abs=0.01)


def test_log10_loss_of_the_smallest_targets_is_a_number(params: Params) -> None:
    recorder = Recorder(lambda w, _: 0 * w.sum(), 1e-160 * Y, params.train.manual, 1, Scaling.none(X))
    w, b = torch.zeros((2, 1), dtype=torch.float64)
    for _ in recorder.iterations():
        recorder.observe(w, b)
    assert recorder.finish(w, b).metrics()["log10_loss"] == pytest.approx(math.log10(sys.float_info.min), abs=1e-3)


@pytest.mark.parametrize(
    ("lr", "stop_below", "line"),
    [
        (0.05, None, "nn: all 30 iterations, loss 0.5967"),
        (0.05, 0.7, "nn: the loss met stop_below after 15 iterations, loss "),
        (1e200, None, "nn: DIVERGED after "),
    ],
)
def test_a_stage_says_how_its_fit_ended(
    project: Path,
    descend: Callable[..., Fit],
    capsys: pytest.CaptureFixture[str],
    lr: float,
    stop_below: float,
    line: str,
) -> None:
    write_fit("nn", descend(30, lr, full_batch=True, stop_below=stop_below))
    assert capsys.readouterr().out.startswith(line)
