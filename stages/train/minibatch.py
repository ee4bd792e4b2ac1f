"""Linear regression from scratch on mini-batches: y_hat = X w + b, loss of a row = (y_hat - y)^2 / 2.

After "动手学深度学习3-从零开始完成线性回归" (2019-10-31): the rows are shuffled every epoch and read in batches; the
batch's losses are summed and p <- p - lr * p.grad / batch_size. A short last batch is divided by batch_size as well.

in   data/plane.csv; params.yaml: train.minibatch
out  reports/metrics/minibatch.json, reports/history/minibatch.csv
run  python -m stages.train.minibatch
     with WORKERS=4 in the environment four processes share the rows
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import MinibatchTraining
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import rounded_start, use_one_deterministic_thread
from stages.train.workers import ALONE, Workers, read_share, workers_did


def linear(features: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """X w + b: (rows, features) with w (features, 1) and b (1,) gives (rows, 1)."""
    return features @ w + b


def squared_losses(y_hat: Tensor, y: Tensor) -> Tensor:
    """(y_hat - y)^2 / 2 of each row, (rows, 1)."""
    return (y_hat - y) ** 2 / 2


def shuffled_batches(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of one batch after another, without end; each epoch reads every row once, in a new order."""
    while True:
        yield from torch.randperm(rows, generator=generator).split(batch_size)


def fit(
    features: Tensor, target: Tensor, settings: MinibatchTraining, generator: torch.Generator, workers: Workers = ALONE
) -> Fit:
    """Mini-batch gradient descent from w normal with standard deviation 0.01 and b = 0; a row every `log_every` epochs.

    Args:
        features: (rows, features), float64; with several workers the rows held here.
        target: (rows,), float64.
        settings: train.minibatch.
        generator: draws the start, then the shuffles; the same in all workers.
        workers: those who share the rows.
    """
    scaling = Scaling.of(features, standardize=settings.standardize, workers=workers)
    # x and y of a row beside each other, (rows, features + 1): a shuffled row is one access to memory
    data = torch.cat([scaling.apply(features), target.unsqueeze(1)], dim=1).to(getattr(torch, settings.dtype))
    start = 0.01 * torch.randn((features.shape[1], 1), generator=generator, dtype=torch.float64)
    w = rounded_start(start).to(data.dtype).requires_grad_()
    b = torch.zeros(1, dtype=data.dtype, requires_grad=True)
    workers.add_gradients(w, b)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return workers.mean(squared_losses(linear(data[:, :-1], w, b), data[:, -1:]))

    rows_of_all = workers.rows_of_all(len(data))
    batches = math.ceil(rows_of_all / settings.batch_size)  # an epoch
    log_every = settings.log_every * batches
    recorder = Recorder(loss_of, target, scaling, settings.stop_below, log_every, workers)
    read = workers.batches(data, shuffled_batches(rows_of_all, settings.batch_size, generator), settings.batch_size)
    for iteration, (x, y) in zip(progress(settings.epochs * batches, "update"), read, strict=False):
        if iteration % log_every == 0 and not recorder.observe(iteration, w, b):
            break
        if settings.zero_grad:
            w.grad = b.grad = None
        squared_losses(linear(x, w, b), y).sum().backward()
        with torch.no_grad():
            w -= settings.lr * w.grad / settings.batch_size
            b -= settings.lr * b.grad / settings.batch_size
        if recorder.met_stop:
            break
    return recorder.finish(iteration + 1, w, b, batches)


def main() -> None:
    settings = load_group("train.minibatch", MinibatchTraining)
    if workers_did("stages.train.minibatch"):
        return
    use_one_deterministic_thread()
    features, target, workers = read_share(DATA / "plane.csv", settings.dtype)
    found = fit(features, target, settings, torch.Generator().manual_seed(settings.seed), workers)
    if workers.leave():
        write_fit("minibatch", found)


if __name__ == "__main__":
    run_stage(main)
