"""Logistic regression on two clusters: P(class 1) = sigmoid(z), p <- p - lr * p.grad, with an early stop.

After the second program of "pytorch 基础用法：线性回归和逻辑回归" (undated). Its form is `slope-intercept`:
z = w*x + b - y, so that the boundary is the line y = w*x + b; `general` is z = w1*x1 + ... + b. Its loss is `mse`:
mean((P - label)^2); `bce` is the binary cross-entropy -mean(log P(label)). With `zero_grad: false`, as published,
gradients add up. The loop stops after the update of the first iteration whose loss is below `stop_below`.

in   data/clusters.csv; params.yaml: train.logistic
out  reports/metrics/logistic.json, reports/history/logistic.csv
run  python -m stages.train_logistic
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from stages.common.errors import run_stage
from stages.common.files import DATA, read_clusters
from stages.common.params import LogisticTraining, load_group
from stages.common.recording import Fit, Recorder, write_fit
from stages.common.scaling import Scaling
from stages.common.setup import as_tensors, use_one_deterministic_thread


def logits(features: Tensor, w: Tensor, b: Tensor, form: str) -> Tensor:
    """z of each row, (rows,): features (rows, features), w (1,) or (features,), b ()."""
    if form == "slope-intercept":
        x, y = features.T
        return w * x + b - y
    return features @ w + b


def mean_loss(z: Tensor, label: Tensor, loss: str) -> Tensor:
    """`mse`: mean((sigmoid(z) - label)^2); `bce`: mean(softplus(z) - label*z), which can't overflow."""
    if loss == "mse":
        return mse_loss(torch.sigmoid(z), label)
    return binary_cross_entropy_with_logits(z, label)


def fit(features: Tensor, label: Tensor, settings: LogisticTraining) -> tuple[Fit, float]:
    """Full-batch gradient descent from w = 1, b = 0 (slope-intercept) or zeros (general): nothing is drawn.

    Args:
        features: (rows, features), float64; two features for slope-intercept.
        label: (rows,), float64, 0 or 1.
        settings: train.logistic.

    Returns:
        The fit, and the share of rows on the right side of its boundary.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).to(dtype), label.to(dtype)  # (rows, features), (rows,)
    if settings.form == "slope-intercept":
        w = torch.ones(1, dtype=dtype, requires_grad=True)
        scaling = Scaling.none(features[:, :1])  # w belongs to the first feature alone
    else:
        w = torch.zeros(x.shape[1], dtype=dtype, requires_grad=True)
    b = torch.zeros((), dtype=dtype, requires_grad=True)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        return mean_loss(logits(x, w, b, settings.form), y, settings.loss)

    recorder = Recorder(loss_of, label, settings, settings.iterations, scaling)
    for _ in recorder.iterations():
        loss = loss_of(w, b)
        recorder.observe(w, b, loss)
        if settings.zero_grad:
            w.grad = b.grad = None
        loss.backward()
        with torch.no_grad():
            w -= settings.lr * w.grad
            b -= settings.lr * b.grad
    result = recorder.finish(w, b)
    return result, accuracy(result, features, label, settings.form)


def accuracy(result: Fit, features: Tensor, label: Tensor, form: str) -> float:
    """The share of rows on the right side of the fitted boundary; class 1 is where P > 1/2, class 0 the rest."""
    *weights, bias = result.parameters().values()
    z = logits(features, torch.tensor(weights, dtype=features.dtype), torch.tensor(bias, dtype=features.dtype), form)
    return ((z > 0) == (label == 1)).double().mean().item()


def main() -> None:
    settings = load_group("train.logistic", LogisticTraining)
    takes = 2 if settings.form == "slope-intercept" else None
    features, label = as_tensors(read_clusters(DATA / "clusters.csv", features=takes))
    use_one_deterministic_thread()
    result, share_right = fit(features, label, settings)
    write_fit("logistic", result, accuracy=share_right)


if __name__ == "__main__":
    run_stage(main)
