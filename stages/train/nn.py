"""One torch.nn.Linear layer, one row a step: y_hat = x w + b, loss = (y_hat - y)^2 of that row, torch.optim.SGD.

After the first program of "Pytorch 拟合多项式的例子" (2022-06-26). The article draws a fresh point every iteration;
here iteration k takes row k of the CSV, in order, and starts again at the top when the iterations exceed the rows.

in   data/stream.csv; params.yaml: train.nn
out  reports/metrics/nn.json, reports/history/nn.csv
run  python -m stages.train.nn
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import NnTraining
from stages.common.tables import read_linear_set
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, linear_layer, use_one_deterministic_thread


def fit(features: Tensor, target: Tensor, settings: NnTraining, generator: torch.Generator) -> Fit:
    """Stochastic gradient descent, one row a step, from the layer's usual start: uniform on +-1/sqrt(features).

    Args:
        features: (rows, features), float64.
        target: (rows,), float64.
        settings: train.nn.
        generator: draws the start.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).to(dtype), target.to(dtype).unsqueeze(1)  # (rows, features), (rows, 1)
    layer = linear_layer(x.shape[1], dtype, generator)
    optimizer = torch.optim.SGD(layer.parameters(), lr=settings.lr)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return mse_loss(linear(x, w, b), y)

    recorder = Recorder(loss_of, target, scaling, settings.stop_below, settings.log_every)
    for iteration in progress(settings.iterations, "update"):
        if iteration % settings.log_every == 0 and not recorder.observe(iteration, layer.weight, layer.bias):
            break
        row = iteration % len(x)
        if settings.zero_grad:
            optimizer.zero_grad()
        ((layer(x[row]) - y[row]) ** 2).backward()
        optimizer.step()
        if recorder.met_stop:
            break
    return recorder.finish(iteration + 1, layer.weight, layer.bias)


def main() -> None:
    settings = load_group("train.nn", NnTraining)
    features, target = as_tensors(read_linear_set(DATA / "stream.csv"))
    use_one_deterministic_thread()
    write_fit("nn", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
