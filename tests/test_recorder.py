"""What every fit shares around its loop: the rows it records, its end, what it writes, how its features are scaled."""

import gc
import io
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.files import read_json
from stages.common.progress import progress
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling

INF, NAN = math.inf, math.nan
UNSCALED = Scaling.none(torch.zeros((1, 1), dtype=torch.float64))


def columns(*values: list[float]) -> Tensor:
    """A matrix by its columns, float64."""
    return torch.tensor(values, dtype=torch.float64).T.contiguous()


def recorded(
    losses: list[float],
    *,
    log_every: int = 1,
    stop_below: float | None = None,
    full_batch: bool = True,
    target_size: float = 1.0,
    batches: int | None = None,
) -> Fit:
    """A fit whose parameters say its loss: w is losses[k] before update k, losses[-1] after the last.

    As in the stages, a loop that has the loss over all rows at hand observes every iteration, another what it records.
    """
    target = torch.full((4,), target_size, dtype=torch.float64)
    recorder = Recorder(lambda w, b: w.sum() + b, target, UNSCALED, stop_below, log_every)
    w, b = torch.tensor(losses[:1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for iteration, after in enumerate(losses[1:]):
        if full_batch and not recorder.observe(iteration, w, b, w.sum()):
            break
        if not full_batch and iteration % log_every == 0 and not recorder.observe(iteration, w, b):
            break
        w.fill_(after)  # in place, as the fits do
        if recorder.met_stop:
            break
    return recorder.finish(iteration + 1, w, b, batches)


# --- rows and end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "log_every", "stop_below", "full_batch", "rows", "stopped"),
    [
        # the limit
        ([9, 8], 1, None, True, [0, 1], "iterations"),
        ([9, 8, 7, 6, 5], 1, None, True, [0, 1, 2, 3, 4], "iterations"),
        ([9, 8, 7, 6, 5], 2, None, True, [0, 2, 4], "iterations"),
        ([9, 8, 7, 6, 5], 3, None, True, [0, 3, 4], "iterations"),
        ([9, 8, 7, 6, 5], 9, None, True, [0, 4], "iterations"),
        ([9, 8, 7, 6, 5], 3, None, False, [0, 3, 4], "iterations"),
        # the stop, and the one update after it; only the full batch is compared between recorded rows
        ([9, 8, 7, 6, 5], 1, 7.5, True, [0, 1, 2, 3], "loss"),
        ([9, 8, 7, 6, 5], 2, 8.5, True, [0, 1, 2], "loss"),
        ([9, 8, 7, 6, 5], 2, 8.5, False, [0, 2, 3], "loss"),
        ([9, 8, 7, 6, 5], 9, 6.5, True, [0, 3, 4], "loss"),
        ([9, 8, 7, 6, 5], 9, 6.5, False, [0, 4], "iterations"),
        ([9, 8, 7, 6, 5], 2, 10, True, [0, 1], "loss"),  # the start meets it
        ([9, 8, 7, 6, 5], 2, 8, True, [0, 2, 3], "loss"),  # 8 is not below 8
        ([9, 8, 7, 6, 5], 1, 5.5, True, [0, 1, 2, 3, 4], "iterations"),  # nothing compares the state after the last
        # divergence: the last finite observation
        ([1, 2, 3, INF, INF], 1, None, True, [0, 1, 2], "diverged"),
        ([1, 2, 3, INF, INF], 1, None, False, [0, 1, 2], "diverged"),
        ([1, 2, 3, INF, INF], 2, None, True, [0, 2], "diverged"),
        ([1, 2, 3, 4, 5, NAN, NAN, NAN], 3, None, True, [0, 3, 4], "diverged"),
        ([1, 2, 3, 4, 5, NAN, NAN, NAN], 3, None, False, [0, 3], "diverged"),  # 4 was never observed
        ([1, 2, 3, 4, 5, -INF], 3, None, True, [0, 3, 4], "diverged"),  # the last update overflows
        ([1, 2, 3, 4, 5, -INF], 3, None, False, [0, 3], "diverged"),
        ([1, 2, 3, 4, 5, INF], 9, None, False, [0], "diverged"),
        ([9, 8, INF], 1, 8.5, True, [0, 1], "diverged"),  # meets its stop, and its last update overflows
    ],
)
def test_rows_and_end_follow_from_the_losses(
    losses: list[float], log_every: int, stop_below: float | None, full_batch: bool, rows: list[int], stopped: str
) -> None:
    fit = recorded(losses, log_every=log_every, stop_below=stop_below, full_batch=full_batch)
    values = [losses[row] for row in rows]
    assert fit.history == {"iteration": rows, "loss": values, "w": values, "b": [0.0] * len(rows)}
    assert fit.stopped == stopped
    assert fit.stop_loss == (values[-2] if stopped == "loss" else None)


def test_a_state_with_an_infinite_parameter_is_not_finite_though_its_loss_is() -> None:
    """As where a probability is 1 because w is infinite."""
    recorder = Recorder(lambda w, b: torch.sigmoid(w.sum() + b), torch.ones(2), UNSCALED, None, 1)
    w, b = torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert recorder.observe(0, w, b)
    assert not recorder.observe(1, w - INF, b)
    assert not recorder.observe(1, w, b - INF)
    assert recorder.finish(1, w, b).history["iteration"] == [0]


@pytest.mark.parametrize("full_batch", [True, False])
def test_a_start_whose_loss_is_not_finite_is_refused(full_batch: bool) -> None:
    with pytest.raises(UserError, match="the loss at the start is not a finite number"):
        recorded([INF, 1.0], full_batch=full_batch)


def test_an_epoch_is_a_number_of_batches() -> None:
    history = recorded([9, 8, 7, 6, 5], log_every=2, stop_below=7.5, batches=2).history
    assert list(history) == ["iteration", "epoch", "loss", "w", "b"]
    assert (history["iteration"], history["epoch"]) == ([0, 2, 3], [0, 1, 1])


def test_rows_are_in_the_units_of_the_csv() -> None:
    """2 (x1 - 4)/2 + 3 x2/0.5 + 7 = x1 + 6 x2 + 3, and likewise with w twice as large."""
    scaling = Scaling(mean=columns([4.0, 0.0]).flatten(), sd=columns([2.0, 0.5]).flatten())
    recorder = Recorder(lambda w, b: w.sum() + 2 * b.sum(), torch.ones(2), scaling, None, 1)
    recorder.observe(0, columns([2, 3]), columns([7]))
    fit = recorder.finish(1, columns([4, 6]), columns([7]))
    assert fit.history == {"iteration": [0, 1], "loss": [19, 24], "w1": [1, 2], "w2": [6, 12], "b": [3, -1]}


def test_the_recorder_keeps_rows_and_one_state_no_trail() -> None:
    recorder = Recorder(lambda w, b: w.sum() + b, torch.ones(2), UNSCALED, None, 10**6)
    w, b = torch.zeros(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    recorder.observe(0, w, b)
    before = len(gc.get_objects())
    for iteration in range(1, 1000):
        recorder.observe(iteration, w, b)
    assert len(gc.get_objects()) - before < 100


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "target_size", "written", "log10"),
    [
        (0.5967, 1.0, 0.5967, -0.224),
        (1.26e-12, 1.0, 1.26e-12, -11.9),
        # rounded at about 1e-16 of the target's mean square; a loss of 0 counts as the smallest that is written
        (1e-11, 1e3, 0.0, -10.0),
        (1e-8, 1e3, 1e-8, -8.0),
        (0.0, 1.0, 0.0, -16.0),
        (0.0, 1e-6, 0.0, -28.0),
        (0.0, 1e-120, 0.0, -256.0),
        (0.0, 1e-160, 0.0, round(math.log10(sys.float_info.min), 3)),
        (0.0, 0.0, 0.0, -16.0),
        (1.26e-12, 1e200, 1.26e-12, -11.9),  # a target whose square overflows
    ],
)
def test_a_loss_is_rounded_to_the_residue_of_the_target_and_its_size_told_to_dvc(
    loss: float, target_size: float, written: float, log10: float
) -> None:
    """DVC shows five decimals of a metric, so that a small loss would be 0.0 there."""
    metrics = recorded([1.0, loss], target_size=target_size).metrics()
    assert (metrics["loss"], metrics["log10_loss"]) == (written, log10)


def test_files_hold_the_fit(project: Path) -> None:
    fit = recorded([9, 8, 7, 20 / 3, 5], log_every=2, stop_below=7.5)
    write_fit("manual", fit, accuracy=0.75)
    history = Path("reports/history/manual.csv").read_text()
    assert history == "iteration,loss,w,b\n0,9,9,0\n2,7,7,0\n3,6.666666667,6.666666667,0\n"
    assert read_json(Path("reports/metrics/manual.json")) == {
        "fitted": {"w": 6.666666667, "b": 0.0},
        "initial": {"w": 9.0, "b": 0.0},
        "loss": 6.666666667,
        "log10_loss": 0.824,
        "iterations": 3,
        "stopped": "loss",
        "stop_loss": 7.0,
        "accuracy": 0.75,
    }
    assert "stop_loss" not in recorded([9, 8]).metrics()


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        ([9, 8, 6], "nn: all 2 iterations, loss 6"),
        ([9, 3, 2, 1], "nn: loss 3 met stop_below; after that iteration's update, the last of 2, loss 2"),
        ([9, 20, INF], "nn: DIVERGED after 1 iterations, loss 20"),
        ([9, 20, 91], "nn: all 2 iterations, loss 91, EXPLODED from 9"),
        ([9, 95, INF], "nn: DIVERGED after 1 iterations, loss 95, EXPLODED from 9"),
    ],
)
def test_a_stage_says_how_its_fit_ended(
    project: Path, capsys: pytest.CaptureFixture[str], losses: list[float], line: str
) -> None:
    write_fit("nn", recorded(losses, stop_below=5))
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize(("is_terminal", "delay", "shows"), [(True, -1, True), (True, 60, False), (False, -1, False)])
def test_progress_counts_from_0_and_shows_in_a_terminal_only_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, delay: float, shows: bool
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("stages.common.progress.DELAY", delay)
    assert list(progress(3, "update")) == [0, 1, 2]
    assert ("update" in screen.getvalue()) == shows


# --- scaling ---------------------------------------------------------------------------------------------------------


def test_columns_are_scaled_to_mean_0_and_population_standard_deviation_1() -> None:
    x = columns([1, 3], [300, 500])
    assert torch.equal(Scaling.of(x, standardize=True).apply(x), columns([-1, 1], [-1, 1]))


def test_no_scaling_changes_no_bit() -> None:
    x = columns([0.1, 1e-300, 1 / 3])
    scaling = Scaling.of(x, standardize=False)
    assert torch.equal(scaling.apply(x), x)
    assert scaling.in_csv_units(columns([1e-30]), columns([1 / 3])).tolist() == [[1e-30, 1 / 3]]


@pytest.mark.parametrize(
    ("bad", "others"),
    [
        ([0.1, 0.1, 0.1], []),  # alone, its standard deviation is a residue of rounding, not 0
        ([0.0, 0.0, 0.0], [[1, 2, 3]]),
        ([-1e300, -1e300, -1e300], [[1, 2, 3]]),
        ([1e200, 2e200, 3e200], [[1, 2, 3], [1, 2, 3]]),  # a spread whose square overflows
        ([1e-320, 2e-320, 3e-320], [[1, 2, 3]]),
    ],
)
def test_a_column_without_a_usable_spread_is_refused_by_its_number(bad: list[float], others: list[list[float]]) -> None:
    with pytest.raises(
        UserError, match=rf"standardize: feature {len(others) + 1} .* expected values that differ, a fin"
    ):
        Scaling.of(columns(*others, bad), standardize=True)
