"""Noisy linear regression with an early stop: y_hat = w*x + b, loss = mean((y - y_hat)^2 / 2), p <- p - lr * p.grad.

After "pytorch 基础用法：线性回归和逻辑回归" (undated). With `zero_grad: false`, as published, autograd adds each
gradient g to the ones before, so that the update is v <- v + g, p <- p - lr*v: descent with a momentum of 1.
The loop stops after the update of the first iteration whose loss is below `stop_below`.

in   data/noisy_line.csv; params.yaml: train.noisy
out  reports/metrics/noisy.json, reports/history/noisy.csv
run  python -m stages.train.noisy
"""

import torch
from torch import Tensor

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import NoisyTraining
from stages.common.tables import read_linear_set
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, rounded_start, use_one_deterministic_thread


def fit(features: Tensor, target: Tensor, settings: NoisyTraining, generator: torch.Generator) -> Fit:
    """Full-batch gradient descent from w standard normal and b = 0.

    Args:
        features: (rows, 1), float64.
        target: (rows,), float64.
        settings: train.noisy.
        generator: draws the start.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).flatten().to(dtype), target.to(dtype)  # both (rows,)
    w = rounded_start(torch.randn((), generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
    b = torch.zeros((), dtype=dtype, requires_grad=True)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return (0.5 * (y - (w * x + b)) ** 2).mean()

    recorder = Recorder(loss_of, target, scaling, settings.stop_below, settings.log_every)
    for iteration in progress(settings.iterations, "update"):
        loss = loss_of(w, b)
        if not recorder.observe(iteration, w, b, loss):
            break
        if settings.zero_grad:
            w.grad = b.grad = None
        loss.backward()
        with torch.no_grad():
            w -= settings.lr * w.grad
            b -= settings.lr * b.grad
        if recorder.met_stop:  # by the loss from before this update, which is made all the same
            break
    return recorder.finish(iteration + 1, w, b)


def main() -> None:
    settings = load_group("train.noisy", NoisyTraining)
    features, target = as_tensors(read_linear_set(DATA / "noisy_line.csv", features=1))
    use_one_deterministic_thread()
    write_fit("noisy", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
