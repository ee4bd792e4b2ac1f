"""One torch.nn.Linear layer applied twice: y_hat = w*(w*x + b) + b, loss = (y_hat - y)^2 of one row, torch.optim.SGD.

After the second program of "Pytorch 拟合多项式的例子" (2022-06-26). Both uses share w and b: backward adds up their
gradients, and one step updates the parameters once. Rows are taken as in nn.

in   data/stream.csv; params.yaml: train.shared
out  reports/metrics/shared.json, reports/history/shared.csv; where the data have several features: that it takes one
run  python -m stages.train.shared
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import SharedTraining
from stages.common.tables import read_linear_set
from stages.train.recorder import Fit, Recorder, write_fit, write_not_applicable
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, linear_layer, use_one_deterministic_thread


def fit(features: Tensor, target: Tensor, settings: SharedTraining, generator: torch.Generator) -> Fit:
    """Stochastic gradient descent, one row a step, from the layer's usual start: uniform on [-1, 1).

    Args:
        features: (rows, 1), float64.
        target: (rows,), float64.
        settings: train.shared.
        generator: draws the start.
    """
    dtype = getattr(torch, settings.dtype)
    x, y = features.to(dtype), target.to(dtype).unsqueeze(1)  # both (rows, 1)
    layer = linear_layer(1, dtype, generator)
    optimizer = torch.optim.SGD(layer.parameters(), lr=settings.lr)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return mse_loss(linear(linear(x, w, b), w, b), y)

    recorder = Recorder(loss_of, target, Scaling.none(features), settings.stop_below, settings.log_every)
    for iteration in progress(settings.iterations, "update"):
        if iteration % settings.log_every == 0 and not recorder.observe(iteration, layer.weight, layer.bias):
            break
        row = iteration % len(x)
        if settings.zero_grad:
            optimizer.zero_grad()
        ((layer(layer(x[row])) - y[row]) ** 2).backward()
        optimizer.step()
        if recorder.met_stop:
            break
    return recorder.finish(iteration + 1, layer.weight, layer.bias)


def main() -> None:
    settings = load_group("train.shared", SharedTraining)
    table = read_linear_set(DATA / "stream.csv")
    if len(table.feature_names) > 1:  # nn fits the same data, and takes any number
        write_not_applicable("shared", "takes one feature")
        return
    features, target = as_tensors(table)
    use_one_deterministic_thread()
    write_fit("shared", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
