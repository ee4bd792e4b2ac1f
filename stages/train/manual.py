"""Linear regression by hand: y_hat = w*x + b, loss = mean((y_hat - y)^2), p <- p - lr * dloss/dp.

After "Pytorch實現線性回歸 手動" (2021-10-19): full batch, gradients by autograd, the update written out.

in   data/line.csv; params.yaml: train.manual
out  reports/metrics/manual.json, reports/history/manual.csv
run  python -m stages.train.manual
"""

import torch
from torch import Tensor

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import ManualTraining
from stages.common.tables import read_linear_set
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, rounded_start, use_one_deterministic_thread


def fit(features: Tensor, target: Tensor, settings: ManualTraining, generator: torch.Generator) -> Fit:
    """Full-batch gradient descent from w and b uniform on [0, 1).

    Args:
        features: (rows, 1), float64.
        target: (rows,), float64.
        settings: train.manual.
        generator: draws the start.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).flatten().to(dtype), target.to(dtype)  # both (rows,)
    w, b = rounded_start(torch.rand(2, generator=generator, dtype=torch.float64)).to(dtype).split(1)
    w.requires_grad_()
    b.requires_grad_()

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return ((w * x + b - y) ** 2).mean()

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
    settings = load_group("train.manual", ManualTraining)
    features, target = as_tensors(read_linear_set(DATA / "line.csv", features=1))
    use_one_deterministic_thread()
    write_fit("manual", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
