"""What the experiments fit: a line, a line applied twice, a logit; each with its prediction and its exact solution.

Throughout, theta = (w1, ..., wp, b), features are (rows, features) and targets (rows,).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stages.theory import applied_twice
from stages.theory.bowl import Bowl
from stages.theory.least_squares import Array, least_squares, with_ones
from stages.theory.logistic import cluster_log_odds, logistic_minimum, logits_of, maximum_likelihood_exists, row_losses

DrawnLine = tuple[float, float, float]  # (p, q, r): the points with p*x + q*y + r = 0


@dataclass(frozen=True)
class Exact:
    """The minimum of a loss on some data: its theta, the loss there, and theta's standard errors where known."""

    theta: Array
    loss: float
    standard_errors: Array | None


@dataclass(frozen=True)
class Shown:
    """What a picture of the data shows: the features on its axes, and the means (features,) of all of them.

    Attributes:
        across: the feature on the horizontal axis.
        up: the feature on the vertical axis; None where the target is there.
        means: at which the features that are not shown are held.
    """

    across: int
    up: int | None
    means: Array

    def held(self, weights: Array) -> float:
        """What the features that are not shown add to w . x, at their means."""
        return sum(float(weights[j] * self.means[j]) for j in range(len(weights)) if j not in (self.across, self.up))


class Loss(NamedTuple):
    """A loss, and how far it may be from one that was computed with other rounding."""

    value: float
    doubt: float


class Model(ABC):
    """What all models know.

    Attributes:
        sharpest: the largest second derivative that a row's loss has by its prediction.
    """

    sharpest: float

    @abstractmethod
    def predict(self, features: Array, theta: Array) -> Array:
        """y_hat of each row, or for classes the log-odds z of class 1."""

    @abstractmethod
    def losses(self, predicted: Array, target: Array) -> tuple[Array, Array]:
        """Each row's loss, and its derivative by the prediction, both (rows,)."""

    @abstractmethod
    def slopes(self, features: Array, theta: Array) -> Array:
        """d prediction / d theta, (rows, parameters)."""

    def curvatures(self, predicted: Array, target: Array) -> Array:
        """The second derivative of each row's loss by its prediction, (rows,)."""
        return np.full(len(target), self.sharpest)

    def gradient(self, features: Array, target: Array, theta: Array) -> Array:
        """The sum of the rows' d loss / d theta, (parameters,)."""
        _, by_prediction = self.losses(self.predict(features, theta), target)
        return by_prediction @ self.slopes(features, theta)

    def mean_loss(self, features: Array, target: Array, theta: Array, *, rounding: Array, eps: float) -> Loss:
        """The mean of the rows' losses, and how far off it may be.

        A theta known to +-rounding, and sums that round by a share of eps, leave d_i of doubt in row i's prediction,
        hence the mean of |dloss_i| d_i + sharpest d_i^2 / 2 in the loss.

        Args:
            features: (rows, features).
            target: (rows,).
            theta: (parameters,).
            rounding: (parameters,), at least 0.
            eps: of the numbers that the fit was made with, 2.2e-16 for float64.
        """
        slopes = np.abs(self.slopes(features, theta))
        losses, by_prediction = self.losses(self.predict(features, theta), target)
        terms = slopes @ np.abs(theta) + np.abs(target)
        doubt = slopes @ rounding + (len(theta) + 3) * eps * terms
        mean = float(losses.mean())
        return Loss(
            mean, float(np.mean(np.abs(by_prediction) * doubt + self.sharpest * doubt**2 / 2)) + 32 * eps * mean
        )

    @abstractmethod
    def drawn(self, theta: Array, shown: Shown) -> DrawnLine | None:
        """The fitted line or boundary in a picture; None where theta gives none."""

    @abstractmethod
    def exact(self, features: Array, target: Array, near: Array) -> Exact | None:
        """The minimum of the loss, of several the one at `near`; None where there is no single one."""

    @abstractmethod
    def truth(self, drawn_from: Mapping[str, Any]) -> Array | None:
        """The theta that drawn data come from, by the settings of their drawing; None where it is not known."""

    def bowl(self, features: Array, target: Array, *, standardize: bool) -> Bowl | None:
        """The loss where it is quadratic in theta."""
        return None

    def is_separable(self, features: Array, target: Array) -> bool | None:
        """Whether a line separates the classes, so that the likelihood has no maximum; None without classes."""
        return None


def _squares(residual: Array, factor: float) -> tuple[Array, Array]:
    """factor/2 * residual^2, and its derivative."""
    return factor / 2 * residual**2, factor * residual


@dataclass(frozen=True)
class Line(Model):
    """y_hat = w . x + b, loss factor/2 * mean((y_hat - y)^2): 2 for the mean of squares, 1 for half of it."""

    factor: float

    @property
    def sharpest(self) -> float:  # type: ignore[override]
        return self.factor

    def predict(self, features: Array, theta: Array) -> Array:
        return features @ theta[:-1] + theta[-1]

    def losses(self, predicted: Array, target: Array) -> tuple[Array, Array]:
        return _squares(predicted - target, self.factor)

    def slopes(self, features: Array, theta: Array) -> Array:
        return with_ones(features)

    def drawn(self, theta: Array, shown: Shown) -> DrawnLine | None:
        return float(theta[shown.across]), -1.0, float(theta[-1]) + shown.held(theta[:-1])

    def exact(self, features: Array, target: Array, near: Array) -> Exact | None:
        found = least_squares(features, target)
        return None if found is None else Exact(found.theta, self.factor / 2 * found.mean_square, found.standard_errors)

    def truth(self, drawn_from: Mapping[str, Any]) -> Array | None:
        return np.array([*drawn_from["weights"], drawn_from["bias"]])

    def bowl(self, features: Array, target: Array, *, standardize: bool) -> Bowl | None:
        return Bowl(features, target, factor=self.factor, standardize=standardize)


@dataclass(frozen=True)
class LineAppliedTwice(Model):
    """y_hat = w (w x + b) + b, loss mean((y_hat - y)^2): a line of slope w^2 and intercept (w + 1) b."""

    sharpest = 2

    def predict(self, features: Array, theta: Array) -> Array:
        w, b = theta
        return w * (w * features[:, 0] + b) + b

    def losses(self, predicted: Array, target: Array) -> tuple[Array, Array]:
        return _squares(predicted - target, 2)

    def slopes(self, features: Array, theta: Array) -> Array:
        return applied_twice.gradients(theta, features[:, 0])

    def drawn(self, theta: Array, shown: Shown) -> DrawnLine | None:
        w, b = theta.tolist()
        return w * w, -1.0, (w + 1) * b

    def exact(self, features: Array, target: Array, near: Array) -> Exact | None:
        found = least_squares(features, target)
        if found is None:
            return None
        theta = applied_twice.solutions(*found.theta.tolist()).get("positive" if near[0] > 0 else "negative")
        return None if theta is None else Exact(theta, found.mean_square, None)

    def truth(self, drawn_from: Mapping[str, Any]) -> Array | None:
        return applied_twice.solutions(drawn_from["weights"][0], drawn_from["bias"]).get("positive")


@dataclass(frozen=True)
class Logit(Model):
    """P(class 1) = sigmoid(z).

    Attributes:
        loss: `mse`, mean((P - label)^2), or `bce`, the binary cross-entropy.
        form: `slope-intercept`, z = w*x + b - y, or `general`, z = w . x + b.
    """

    loss: str
    form: str
    sharpest = 0.25  # of the cross-entropy; of the squares 0.154

    def predict(self, features: Array, theta: Array) -> Array:
        Z, offset = logits_of(features, self.form)
        return Z @ theta + offset

    def losses(self, predicted: Array, target: Array) -> tuple[Array, Array]:
        return row_losses(predicted, target, self.loss)[:2]

    def curvatures(self, predicted: Array, target: Array) -> Array:
        return row_losses(predicted, target, self.loss)[2]

    def mean_loss(self, features: Array, target: Array, theta: Array, *, rounding: Array, eps: float) -> Loss:
        """PyTorch's cross-entropy subtracts numbers of the size of z: of a small loss little is left."""
        found = super().mean_loss(features, target, theta, rounding=rounding, eps=eps)
        cancelled = 4 * eps * float(np.abs(self.predict(features, theta)).mean()) if self.loss == "bce" else 0.0
        return Loss(found.value, found.doubt + cancelled)

    def slopes(self, features: Array, theta: Array) -> Array:
        return logits_of(features, self.form)[0]

    def drawn(self, theta: Array, shown: Shown) -> DrawnLine | None:
        if self.form == "slope-intercept":
            return float(theta[0]), -1.0, float(theta[1])
        weights = theta[:-1]
        line = float(weights[shown.across]), 0.0 if shown.up is None else float(weights[shown.up])
        return (*line, float(theta[-1]) + shown.held(weights)) if any(line) else None

    def exact(self, features: Array, target: Array, near: Array) -> Exact | None:
        found = logistic_minimum(features, target, loss=self.loss, form=self.form, near=near)
        return None if found is None else Exact(found.theta, found.loss, found.standard_errors)

    def truth(self, drawn_from: Mapping[str, Any]) -> Array | None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            w, b = cluster_log_odds(drawn_from["centers"], drawn_from["std"])
            theta = np.append(w, b) if self.form == "general" else np.array([-w[0] / w[1], -b / w[1]])
        return theta + 0.0 if np.isfinite(theta).all() else None  # an upright boundary has no slope; -0.0 becomes 0.0

    def is_separable(self, features: Array, target: Array) -> bool | None:
        return not maximum_likelihood_exists(features, target, form=self.form)


def model_named(name: str, factor: float | None, settings: Mapping[str, Any]) -> Model:
    """The model that the registry of experiments names, as the settings of the fit shape it."""
    if name == "logit":
        return Logit(settings["loss"], settings["form"])
    if name == "line applied twice":
        return LineAppliedTwice()
    assert name == "line"
    assert factor is not None
    return Line(factor)
