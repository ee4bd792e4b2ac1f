"""Linear regression from scratch on mini-batches: y_hat = X w + b, loss of a row = (y_hat - y)^2 / 2.

After "动手学深度学习3-从零开始完成线性回归" (2019-10-31): the rows are shuffled every epoch and read in batches; the
batch's losses are summed and p <- p - lr * p.grad / batch_size. A short last batch is divided by batch_size as well.

in   data/plane.csv; params.yaml: train.minibatch
out  reports/metrics/minibatch.json, reports/history/minibatch.csv
run  python -m stages.train_minibatch
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from stages.common.errors import run_stage
from stages.common.files import DATA, read_linear_set
from stages.common.params import MinibatchTraining, load_group
from stages.common.recording import Fit, Recorder, write_fit
from stages.common.scaling import Scaling
from stages.common.setup import as_tensors, rounded_start, use_one_deterministic_thread


def linear(features: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """X w + b: (rows, features) with w (features, 1) and b (1,) gives (rows, 1)."""
    return features @ w + b


def squared_losses(y_hat: Tensor, y: Tensor) -> Tensor:
    """(y_hat - y)^2 / 2 of each row, (rows, 1)."""
    return (y_hat - y) ** 2 / 2


def sgd(parameters: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """p <- p - lr * p.grad / batch_size, in place."""
    with torch.no_grad():
        for p in parameters:
            p.sub_(lr * p.grad / batch_size)


def shuffled_batches(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of one batch after another, without end; each epoch reads every row once, in a new order."""
    while True:
        yield from torch.randperm(rows, generator=generator).split(batch_size)


def fit(features: Tensor, target: Tensor, settings: MinibatchTraining, generator: torch.Generator) -> Fit:
    """Mini-batch gradient descent from w normal with standard deviation 0.01 and b = 0.

    Args:
        features: (rows, features), float64.
        target: (rows,), float64.
        settings: train.minibatch.
        generator: draws the start, then the shuffles.

    Returns:
        A history with one row every `log_every` epochs and a column `epoch`, the number of epochs completed.
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
    in_iterations = settings.model_copy(update={"log_every": settings.log_every * batches})
    recorder = Recorder(loss_of, target, in_iterations, settings.epochs * batches, scaling)
    for _, rows in zip(recorder.iterations(), shuffled_batches(len(x), settings.batch_size, generator), strict=False):
        recorder.observe(w, b)
        if settings.zero_grad:
            w.grad = b.grad = None
        squared_losses(linear(x[rows], w, b), y[rows]).sum().backward()
        sgd((w, b), settings.lr, settings.batch_size)
    result = recorder.finish(w, b)
    history = result.history.copy()
    history.insert(1, "epoch", history["iteration"] // batches)
    return replace(result, history=history)


def main() -> None:
    settings = load_group("train.minibatch", MinibatchTraining)
    features, target = as_tensors(read_linear_set(DATA / "plane.csv"))
    use_one_deterministic_thread()
    write_fit("minibatch", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
