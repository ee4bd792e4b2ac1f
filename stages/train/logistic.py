"""Logistic regression on two clusters: P(class 1) = sigmoid(z), p <- p - lr * p.grad, with an early stop.

After the second program of "pytorch 基础用法：线性回归和逻辑回归" (undated). Its form is `slope-intercept`:
z = w*x + b - y, so that the boundary is the line y = w*x + b; `general` is z = w1*x1 + ... + b. Its loss is `mse`:
mean((P - label)^2); `bce` is the cross-entropy -mean(log P(label)). Gradients add up, and the loop stops, as in noisy.

in   data/clusters.csv; params.yaml: train.logistic
out  reports/metrics/logistic.json, reports/history/logistic.csv
run  python -m stages.train.logistic
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from stages.common.errors import run_stage
from stages.common.files import DATA
from stages.common.params import load_group
from stages.common.progress import progress
from stages.common.schema import LogisticTraining
from stages.common.tables import read_clusters
from stages.train.recorder import Fit, Recorder, write_fit
from stages.train.scaling import Scaling
from stages.train.start import as_tensors, use_one_deterministic_thread


def logits(features: Tensor, w: Tensor, b: Tensor, form: str) -> Tensor:
    """z of each row, (rows,): features (rows, features), w (1,) or (features,), b ()."""
    if form == "slope-intercept":
        x, y = features.T
        return w * x + b - y
    return features @ w + b


def fit(features: Tensor, label: Tensor, settings: LogisticTraining) -> Fit:
    """Full-batch gradient descent from w = 1, b = 0 (slope-intercept) or zeros (general): nothing is drawn.

    Args:
        features: (rows, features), float64; two for slope-intercept.
        label: (rows,), 0 or 1.
        settings: train.logistic.
    """
    scaling = Scaling.of(features, standardize=settings.standardize)
    dtype = getattr(torch, settings.dtype)
    x, y = scaling.apply(features).to(dtype), label.to(dtype)  # (rows, features), (rows,)
    w = torch.zeros(x.shape[1], dtype=dtype, requires_grad=True)
    if settings.form == "slope-intercept":  # w belongs to the first feature alone
        w, scaling = torch.ones(1, dtype=dtype, requires_grad=True), Scaling.none(features[:, :1])
    b = torch.zeros((), dtype=dtype, requires_grad=True)

    def loss_of(w: Tensor, b: Tensor) -> Tensor:
        z = logits(x, w, b, settings.form)
        if settings.loss == "bce":
            return binary_cross_entropy_with_logits(z, y)  # mean(softplus(z) - y*z), which can't overflow
        return mse_loss(torch.sigmoid(z), y)

    recorder = Recorder(loss_of, label, scaling, settings.stop_below, settings.log_every)
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


def accuracy(found: Fit, features: Tensor, label: Tensor, form: str) -> float:
    """The share of rows on the right side of the fitted boundary; class 1 is where P > 1/2, class 0 the rest."""
    theta = torch.tensor([*found.parameters().values()], dtype=features.dtype)
    return ((logits(features, theta[:-1], theta[-1], form) > 0) == (label == 1)).double().mean().item()


def main() -> None:
    settings = load_group("train.logistic", LogisticTraining)
    table = read_clusters(DATA / "clusters.csv", features=2 if settings.form == "slope-intercept" else None)
    features, label = as_tensors(table)
    use_one_deterministic_thread()
    found = fit(features, label, settings)
    write_fit("logistic", found, accuracy=accuracy(found, features, label, settings.form))


if __name__ == "__main__":
    run_stage(main)
