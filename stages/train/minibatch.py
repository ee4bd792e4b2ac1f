"""Linear regression from scratch on mini-batches: y_hat = X w + b, loss of a row = (y_hat - y)^2 / 2.

After "动手学深度学习3-从零开始完成线性回归" (2019-10-31): the rows are shuffled every epoch and read in batches; the
batch's losses are summed and p <- p - lr * p.grad / batch_size. A short last batch is divided by batch_size as well.

in   data/plane.csv; params.yaml: train.minibatch
out  reports/metrics/minibatch.json, reports/history/minibatch.csv
run  python -m stages.train.minibatch
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
from stages.common.tables import read_linear_set
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, rounded_start, use_one_deterministic_thread


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


def fit(features: Tensor, target: Tensor, settings: MinibatchTraining, generator: torch.Generator) -> Fit:
    """Mini-batch gradient descent from w normal with standard deviation 0.01 and b = 0; a row every `log_every` epochs.

    Args:
        features: (rows, features), float64.
        target: (rows,), float64.
        settings: train.minibatch.
        generator: draws the start, then the shuffles.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).to(dtype), target.to(dtype).unsqueeze(1)  # (rows, features), (rows, 1)
    start = 0.01 * torch.randn((x.shape[1], 1), generator=generator, dtype=torch.float64)
    w = rounded_start(start).to(dtype).requires_grad_()
    b = torch.zeros(1, dtype=dtype, requires_grad=True)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return squared_losses(linear(x, w, b), y).mean()

    batches = math.ceil(len(x) / settings.batch_size)  # an epoch
    log_every = settings.log_every * batches
    recorder = Recorder(loss_of, target, scaling, settings.stop_below, log_every)
    order = shuffled_batches(len(x), settings.batch_size, generator)
    for iteration, rows in zip(progress(settings.epochs * batches, "update"), order, strict=False):
        if iteration % log_every == 0 and not recorder.observe(iteration, w, b):
            break
        if settings.zero_grad:
            w.grad = b.grad = None
        squared_losses(linear(x[rows], w, b), y[rows]).sum().backward()
        with torch.no_grad():
            w -= settings.lr * w.grad / settings.batch_size
            b -= settings.lr * b.grad / settings.batch_size
        if recorder.met_stop:
            break
    return recorder.finish(iteration + 1, w, b, batches)


def main() -> None:
    settings = load_group("train.minibatch", MinibatchTraining)
    features, target = as_tensors(read_linear_set(DATA / "plane.csv"))
    use_one_deterministic_thread()
    write_fit("minibatch", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
