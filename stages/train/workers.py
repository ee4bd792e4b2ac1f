"""The processes that share the rows of a fit, and the sums that they make together.

One process is the rule. With WORKERS=4 in the environment a stage starts four of itself by torchrun; started by
torchrun, on one host or on several, it is one of them. Each holds a range of the CSV's rows, all draw the same
shuffles, and a sum over rows is the sum of all workers' sums (all-reduce, by gloo). It differs from the sum of one
process by rounding, about 1e-16 of its terms, which the ten written digits leave out.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.tables import read_linear_set, read_part
from stages.train.start import as_tensors

GATHERED = 8192  # rows, at least a batch
MOST = 256  # on one machine
ANSWER = timedelta(seconds=45)  # until a worker that does not answer counts as dead
READING = timedelta(hours=6)  # until all have read their rows
GONE = "a worker died before the fit was done (killed, or out of memory); nothing was written; run again"


class Workers:
    """One process, which holds all rows."""

    def rows_of_all(self, held: int) -> int:
        """How many rows all workers hold together, where this one holds so many."""
        return held

    def batches(self, data: Tensor, order: Iterator[Tensor], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of every batch x and y of the rows held here; small ones are gathered together, which costs less.

        Args:
            data: (rows held, features + 1), y in the last column.
            order: the row numbers of one batch after another.
            batch_size: of all but short ones.
        """
        together = max(1, GATHERED // batch_size)
        while batches := [self.own(numbers) for numbers in islice(order, together)]:
            rows, sizes = data.index_select(0, torch.cat(batches)), [len(own) for own in batches]
            yield from zip(rows[:, :-1].split(sizes), rows[:, -1:].split(sizes), strict=True)

    def own(self, rows: Tensor) -> Tensor:
        """Of row numbers of the CSV those held here, in their order, as places among the rows held."""
        return rows

    def mean(self, values: Tensor) -> Tensor:
        """The mean of (rows, ...) over the rows of all workers, (...)."""
        return values.mean(dim=0)

    def largest(self, values: Tensor) -> Tensor:
        """The largest of (rows, ...) over the rows of all workers, (...)."""
        return values.amax(dim=0)

    def add_gradients(self, *parameters: Tensor) -> None:
        """Lets each backward() add the gradients of all workers' rows to a parameter's .grad."""

    def leave(self) -> bool:
        """Waits for all workers to have come here; whether this one writes the stage's files."""
        return True


ALONE = Workers()


@dataclass(frozen=True)
class Group(Workers):
    """One of several processes, which holds the rows `first` to `last`, without the last, of `rows`."""

    first: int
    last: int
    rows: int

    def rows_of_all(self, held: int) -> int:
        """As for one process, and so below."""
        return self.rows

    def own(self, rows: Tensor) -> Tensor:  # noqa: D102
        return rows[(rows >= self.first) & (rows < self.last)] - self.first

    def mean(self, values: Tensor) -> Tensor:  # noqa: D102
        return all_reduced(values.sum(dim=0)) / self.rows

    def largest(self, values: Tensor) -> Tensor:  # noqa: D102
        none = values.new_full(values.shape[1:], -torch.inf)
        return all_reduced(values.amax(dim=0) if len(values) else none, "MAX")

    def add_gradients(self, *parameters: Tensor) -> None:  # noqa: D102
        for parameter in parameters:
            parameter.register_hook(all_reduced)

    def leave(self) -> bool:  # noqa: D102
        from torch import distributed  # noqa: PLC0415

        rank = distributed.get_rank()
        all_reduced(torch.zeros(1))
        distributed.destroy_process_group()
        return rank == 0


def all_reduced(values: Tensor, operation: str = "SUM") -> Tensor:
    """The sum, or the largest, of what each worker has in the same place.

    Raises:
        UserError: where another worker is gone.
    """
    from torch import distributed  # noqa: PLC0415 one process does without

    result = values.clone()
    try:
        distributed.all_reduce(result, getattr(distributed.ReduceOp, operation))
    except RuntimeError:
        raise UserError(GONE) from None
    return result


# --- in a worker -----------------------------------------------------------------------------------------------------


def read_share(path: Path, dtype: str) -> tuple[Tensor, Tensor, Workers]:
    """Features and target of the rows that this process holds, and the workers that it shares the linear set with.

    Raises:
        UserError: where the file is not of this form, or the digits would depend on the number of workers.
    """
    if not torchrun_started_this():
        return *as_tensors(read_linear_set(path)), ALONE
    if dtype != "float64":
        raise UserError(
            f"train.minibatch.dtype: several workers need float64, found {dtype}, in which the written digits depend on"
            " how many share a sum; set float64, or run with one worker"
        )
    from torch import distributed  # noqa: PLC0415

    try:
        distributed.init_process_group("gloo", timeout=ANSWER)
        rank, count = distributed.get_rank(), distributed.get_world_size()
        table = read_part(path, rank, count)
        distributed.monitored_barrier(timeout=READING)
    except RuntimeError:
        raise UserError(GONE) from None
    held = torch.zeros(count, dtype=torch.int64)
    held[rank] = len(table.target)
    ends = all_reduced(held).cumsum(dim=0).tolist()
    if ends[-1] < 2:
        read_linear_set(path)  # says that these are too few
    return *as_tensors(table), Group(ends[rank] - len(table.target), ends[rank], ends[-1])


def torchrun_started_this() -> bool:
    """Whether this process is one of torchrun's workers."""
    return "TORCHELASTIC_RUN_ID" in os.environ


# --- the process that starts them ------------------------------------------------------------------------------------


def workers_did(module: str) -> bool:
    """Where WORKERS asks for several, they run the stage on this machine, to its end; else False: it is this process's.

    Raises:
        UserError: with the message of the first worker that has one, or where WORKERS is no number of workers.
    """
    count = 1 if torchrun_started_this() else _workers_asked()
    if count > 1:
        _run_workers(count, module)
    return count > 1


def _workers_asked() -> int:
    asked = os.environ.get("WORKERS", "1")
    if not (re.fullmatch(r"[0-9]{1,4}", asked) and 1 <= int(asked) <= MOST):
        raise UserError(
            f"WORKERS in the environment: expected a whole number from 1 to {MOST}, found '{asked[:40]}'; set how many"
            " processes share the fit, or unset it"
        )
    return int(asked)


def _run_workers(count: int, module: str) -> None:
    with tempfile.TemporaryDirectory() as logs:
        options = ["--standalone", f"--nproc-per-node={count}", f"--log-dir={logs}", "--redirects=2"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", module]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as torchrun:  # noqa: S603
            try:
                failed = torchrun.wait() != 0
            except BaseException:  # also Ctrl-C: no worker outlives the stage
                torchrun.terminate()
                raise
        if failed:
            raise UserError(_reason(Path(logs)))


def _reason(logs: Path) -> str:
    """The workers' own message, where one has something to say besides that another is gone."""
    said = [path.read_text(encoding="utf-8") for path in sorted(logs.rglob("stderr.log"))]
    messages = [text.rpartition("error: ")[2].strip() for text in said if text.startswith("error: ")]
    return next((message for message in messages if message != GONE), GONE)
