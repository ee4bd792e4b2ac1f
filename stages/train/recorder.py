"""What the six fits write down: rows of their history, how they ended, and the files of both.

The loops themselves are not shared: they are what the articles are about.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.experiments import EXPLODED, parameter_names
from stages.common.files import HISTORY, METRICS, write_csv, write_json
from stages.common.rounding import loss_unit, rounded_loss
from stages.train.scaling import Scaling
from stages.train.workers import ALONE, Workers

Loss = Callable[[Tensor, Tensor], Tensor]  # (w, b) -> the loss over the whole CSV


class State(NamedTuple):
    """What is kept of an observation: w and b as lists of floats, on the fit's scale."""

    iteration: int
    loss: float
    w: list[float]
    b: list[float]


@dataclass(frozen=True)
class Fit:
    """What a fit found, in the CSV's units.

    Attributes:
        history: columns `iteration`, `loss` (over the whole CSV) and the parameters; iteration k is the state
            before update k; the first row is the start, the last row the final state.
        stopped: `iterations`, `loss` or `diverged`.
        stop_loss: the loss below `stop_below`, seen before the last update; None where it did not stop on the loss.
        smallest_loss: the smallest loss above 0 that rounding leaves; a loss of 0 is below it.
    """

    history: dict[str, list[float]]
    stopped: str
    stop_loss: float | None
    smallest_loss: float

    def parameters(self, row: int = -1) -> dict[str, float]:
        """The weights and b of a row of the history, by default the fitted ones."""
        names = list(self.history)
        return {name: self.history[name][row] for name in names[names.index("loss") + 1 :]}

    def metrics(self) -> dict[str, Any]:
        """The content of reports/metrics/<experiment>.json.

        `log10_loss` is there for DVC, which shows five decimals and a small loss as 0.0.
        """
        loss = self.history["loss"][-1]
        stop = {} if self.stop_loss is None else {"stop_loss": self.stop_loss}
        return {
            "fitted": self.parameters(),
            "initial": self.parameters(row=0),
            "loss": loss,
            "log10_loss": round(math.log10(max(loss, self.smallest_loss)), 3),
            "iterations": self.history["iteration"][-1],
            "stopped": self.stopped,
            **stop,
        }


class Recorder:
    """Observes a fit: records rows of its history, and says when it has met `stop_below` or diverged.

    A loop observes the state before an update, and ends itself:

        for iteration in progress(settings.iterations, "update"):
            ...loss of (w, b)...
            if not recorder.observe(iteration, w, b, loss):
                break
            ...update of w and b...
            if recorder.met_stop:
                break
        return recorder.finish(iteration + 1, w, b)

    A fit that diverges ends at its last finite observation.

    Attributes:
        met_stop: whether the newest loss observed is below `stop_below`.
    """

    def __init__(
        self,
        loss_of_all: Loss,
        target: Tensor,
        scaling: Scaling,
        stop_below: float | None,
        log_every: int,
        workers: Workers = ALONE,
    ) -> None:
        self.met_stop = self._diverged = False
        self._loss_of_all = loss_of_all
        self._mean_square = workers.mean(target.double() ** 2).item()
        self._log_every = log_every
        self._stop_below = -math.inf if stop_below is None else stop_below
        self._scaling = scaling
        self._recorded: list[State] = []
        self._last: State | None = None  # the newest finite observation

    def observe(self, iteration: int, w: Tensor, b: Tensor, loss: Tensor | None = None) -> bool:
        """Sees the state before an update; False where it is no longer finite: the fit has diverged.

        Args:
            iteration: updates made so far.
            w: the weights, of the shape that the loss over the whole CSV takes.
            b: the bias, likewise.
            loss: that loss where the loop has it at hand; else it is computed, so that the loop asks at recorded rows
                only.
        """
        if loss is None:
            with torch.no_grad():
                loss = self._loss_of_all(w, b)
        value, weights, bias = loss.item(), w.flatten().tolist(), b.flatten().tolist()
        # the parameters as well: the loss of a probability is finite for an infinite w
        self._diverged = not all(map(math.isfinite, (value, *weights, *bias)))
        if not self._diverged:
            loss_written = rounded_loss(value, self._mean_square)
            self._last = State(iteration, loss_written, weights, bias)
            self.met_stop = loss_written < self._stop_below
            if iteration % self._log_every == 0 or self.met_stop:
                self._recorded.append(self._last)
        return not self._diverged

    def finish(self, updates: int, w: Tensor, b: Tensor, batches: int | None = None) -> Fit:
        """Adds the final state, after all updates.

        Args:
            updates: how many were made.
            w: the weights.
            b: the bias.
            batches: how many make an epoch, for a column `epoch` of those completed.

        Raises:
            UserError: where not even the start has a finite loss.
        """
        if self._last is None:
            raise UserError(
                "the loss at the start is not a finite number: the data hold values too large to be squared;"
                " divide the large columns of the CSV by a power of ten"
            )
        stop_loss = self._last.loss if self.met_stop else None
        if self._diverged or not self.observe(updates, w, b):
            stop_loss = None
        if self._recorded[-1].iteration != self._last.iteration:
            self._recorded.append(self._last)
        stopped = "diverged" if self._diverged else "iterations" if stop_loss is None else "loss"
        smallest_loss = max(loss_unit(0.0, self._mean_square), sys.float_info.min)
        return Fit(self._history(batches), stopped, stop_loss, smallest_loss)

    def _history(self, batches: int | None) -> dict[str, list[float]]:
        iteration, loss, w, b = (list(column) for column in zip(*self._recorded, strict=True))
        epoch = {} if batches is None else {"epoch": [k // batches for k in iteration]}
        theta = self._scaling.in_csv_units(*(torch.tensor(values, dtype=torch.float64) for values in (w, b)))
        names = parameter_names(len(theta.T) - 1)
        return {"iteration": iteration, **epoch, "loss": loss, **dict(zip(names, theta.T.tolist(), strict=True))}


def write_fit(experiment: str, fit: Fit, **more_metrics: float) -> None:
    """Writes reports/history/<experiment>.csv and reports/metrics/<experiment>.json, and says how the fit ended."""
    write_csv(fit.history, HISTORY / f"{experiment}.csv")
    write_json({**fit.metrics(), **more_metrics}, METRICS / f"{experiment}.json")
    first, last = ({name: column[row] for name, column in fit.history.items()} for row in (0, -1))
    count, loss = last["iteration"], f"loss {last['loss']:.6g}"
    if fit.stopped == "loss":
        ended = f"loss {fit.stop_loss:.6g} met stop_below; after that iteration's update, the last of {count}, {loss}"
    else:
        ended = f"{'DIVERGED after' if fit.stopped == 'diverged' else 'all'} {count} iterations, {loss}"
    exploded = f", EXPLODED from {first['loss']:.6g}" if last["loss"] > EXPLODED * first["loss"] else ""
    print(f"{experiment}: {ended}{exploded}")  # noqa: T201


def write_not_applicable(experiment: str, why: str) -> None:
    """The same files where the data are none for this experiment: metrics that say so, and a history's header."""
    write_csv({name: [] for name in ("iteration", "loss", *parameter_names(1))}, HISTORY / f"{experiment}.csv")
    write_json({"stopped": "not_applicable"}, METRICS / f"{experiment}.json")
    print(f"{experiment}: not applicable, it {why}")  # noqa: T201
