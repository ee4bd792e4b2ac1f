"""What the six fits share around their loops: the rows they record, and when they end.

The loops themselves are not shared: they are what the articles are about.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.files import HISTORY, METRICS, parameter_names, write_csv, write_json
from stages.common.params import Training
from stages.common.scaling import Scaling

LONGEST_TRAIL = 10_000  # states kept to look for the last finite one, about 1 kB each
Loss = Callable[[Tensor, Tensor], Tensor]  # (w, b) -> the loss over the whole CSV


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

    history: pd.DataFrame
    stopped: str
    stop_loss: float | None
    smallest_loss: float

    def parameters(self) -> dict[str, float]:
        """The fitted weights and b."""
        return _parameters(self.history.iloc[-1])

    def metrics(self) -> dict[str, object]:
        """The content of reports/metrics/<experiment>.json.

        `log10_loss` is there for DVC, which shows five decimals and a small loss as 0.0.
        """
        first, last = self.history.iloc[0], self.history.iloc[-1]
        stop = {} if self.stop_loss is None else {"stop_loss": self.stop_loss}
        return {
            "fitted": self.parameters(),
            "initial": _parameters(first),
            "loss": float(last["loss"]),
            "log10_loss": round(math.log10(max(last["loss"], self.smallest_loss)), 3),
            "iterations": int(last["iteration"]),
            "stopped": self.stopped,
            **stop,
        }


def _parameters(row: pd.Series) -> dict[str, float]:
    """The weights and b, which stand in the columns after the loss."""
    return {str(name): float(value) for name, value in row.loc["loss":].iloc[1:].items()}


class Recorder:
    """Counts a fit's iterations, records rows of its history, and ends it on `stop_below` or when it diverges.

    A loop reads:

        for iteration in recorder.iterations():
            ...loss of (w, b)...
            recorder.observe(w, b, loss)
            ...update of w and b...
        return recorder.finish(w, b)

    `iterations` ends after the update of the iteration whose observation called for it, as the articles' programs do.
    """

    def __init__(
        self, loss_of_all: Loss, target: Tensor, settings: Training, iterations: int, scaling: Scaling
    ) -> None:
        self._loss_of_all = loss_of_all
        self._decimals = _loss_decimals(target)
        self._log_every = settings.log_every
        self._stop_below = settings.stop_below
        self._limit = iterations
        self._scaling = scaling
        self._updates = 0
        self._rows: list[list[float]] = []  # iteration, loss, parameters in the CSV's units
        self._last_finite: list[float] | None = None  # the newest row known to be finite
        self._since: list[tuple[int, Tensor, Tensor]] = []  # the states after it: iteration, w, b
        self._stopped: str | None = None
        self._stop_loss: float | None = None

    def iterations(self) -> Iterator[int]:
        """Counts from 0 until the limit, the stop or divergence; shows progress in a terminal, not in a log."""
        for iteration in tqdm(range(self._limit), disable=None, delay=1, leave=False):
            yield iteration
            self._updates = iteration + 1
            if self._stopped is not None:
                return

    def observe(self, w: Tensor, b: Tensor, loss: Tensor | None = None) -> None:
        """Sees the state before an update.

        Args:
            w: the weights, of the shape that the loss over the whole CSV takes.
            b: the bias, likewise.
            loss: that loss where the loop has it at hand; else it is computed at the recorded rows only.
        """
        due = self._updates % self._log_every == 0
        self._since.append((self._updates, w.detach().clone(), b.detach().clone()))
        if not (w.isfinite().all() and b.isfinite().all()):
            self._stopped = "diverged"
        elif loss is not None or due:
            self._examine(self._row(self._updates, w, b, loss), record=due, compare=True)
        elif len(self._since) >= LONGEST_TRAIL:
            self._examine(self._row(self._updates, w, b), record=False, compare=False)

    def _examine(self, row: list[float], *, record: bool, compare: bool) -> None:
        if not _is_finite(row):
            self._stopped = "diverged"
            return
        self._since.clear()
        self._last_finite = row
        loss = row[1]
        if compare and self._stop_below is not None and loss < self._stop_below:
            self._stopped, self._stop_loss = "loss", loss
        if record or self._stopped == "loss":
            self._rows.append(row)

    def finish(self, w: Tensor, b: Tensor) -> Fit:
        """Adds the final state: the last one in which parameters and loss are finite.

        Raises:
            UserError: where not even the start has a finite loss.
        """
        if self._stopped != "diverged":
            self._since.append((self._updates, w.detach().clone(), b.detach().clone()))
        last = self._last_finite_row()
        if last is None:
            raise UserError(
                "the loss at the start is not a finite number: the data hold values too large to be squared;"
                " divide the large columns of the CSV by a power of ten"
            )
        if last[0] < self._updates or self._stopped == "diverged":
            self._stopped, self._stop_loss = "diverged", None
        if not self._rows or self._rows[-1][0] != last[0]:
            self._rows.append(last)
        smallest_loss = max(10.0**-self._decimals, sys.float_info.min)
        return Fit(self._history(w.numel()), self._stopped or "iterations", self._stop_loss, smallest_loss)

    def _last_finite_row(self) -> list[float] | None:
        for iteration, w, b in reversed(self._since):
            row = self._row(iteration, w, b)
            if _is_finite(row):
                return row
        return self._last_finite

    def _row(self, iteration: int, w: Tensor, b: Tensor, loss: Tensor | None = None) -> list[float]:
        if loss is None:
            with torch.no_grad():
                loss = self._loss_of_all(w, b)
        return [
            iteration,
            round(loss.item(), self._decimals) if loss.isfinite() else math.nan,
            *self._scaling.in_csv_units(w, b),
        ]

    def _history(self, weights: int) -> pd.DataFrame:
        columns = ["iteration", "loss", *parameter_names(weights)]
        return pd.DataFrame(self._rows, columns=columns).astype({"iteration": int})


def _is_finite(row: list[float]) -> bool:
    return all(map(math.isfinite, row))


def _loss_decimals(target: Tensor) -> int:
    """Decimals that a loss is rounded to: about 1e-16 of the target's mean square, the residue of rounding."""
    mean_square = (target.double() ** 2).mean().item()
    if not 0 < mean_square < math.inf:
        return 16
    return 16 - math.floor(math.log10(mean_square))


def write_fit(experiment: str, fit: Fit, **more_metrics: float) -> None:
    """Writes reports/history/<experiment>.csv and reports/metrics/<experiment>.json, and says how the fit ended."""
    write_csv(fit.history, HISTORY / f"{experiment}.csv")
    write_json({**fit.metrics(), **more_metrics}, METRICS / f"{experiment}.json")
    ended = {"iterations": "all", "loss": "the loss met stop_below after", "diverged": "DIVERGED after"}[fit.stopped]
    last = fit.history.iloc[-1]
    print(f"{experiment}: {ended} {last['iteration']:.0f} iterations, loss {last['loss']:.6g}")  # noqa: T201
