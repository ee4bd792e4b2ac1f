"""One torch.nn.Linear layer applied twice: y_hat = w*(w*x + b) + b, loss = (y_hat - y)^2 of one row, torch.optim.SGD.

After the second program of "Pytorch 拟合多项式的例子" (2022-06-26). Both uses share w and b: backward adds up their
gradients, and one step updates the parameters once. Rows are taken as in train_nn.

in   data/stream.csv; params.yaml: train.shared
out  reports/metrics/shared.json, reports/history/shared.csv
run  python -m stages.train_shared
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from stages.common.errors import run_stage
from stages.common.files import DATA, read_linear_set
from stages.common.params import SharedTraining, load_group
from stages.common.recording import Fit, Recorder, write_fit
from stages.common.scaling import Scaling
from stages.common.setup import as_tensors, linear_layer, use_one_deterministic_thread


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

    recorder = Recorder(loss_of, target, settings, settings.iterations, Scaling.none(features))
    for iteration in recorder.iterations():
        recorder.observe(layer.weight, layer.bias)
        row = iteration % len(x)
        if settings.zero_grad:
            optimizer.zero_grad()
        mse_loss(layer(layer(x[row])), y[row]).backward()
        optimizer.step()
    return recorder.finish(layer.weight, layer.bias)


def main() -> None:
    settings = load_group("train.shared", SharedTraining)
    features, target = as_tensors(read_linear_set(DATA / "stream.csv", features=1))
    use_one_deterministic_thread()
    write_fit("shared", fit(features, target, settings, torch.Generator().manual_seed(settings.seed)))


if __name__ == "__main__":
    run_stage(main)
