"""What the fits should find and how they should get there, without running them.

Exact solutions, curvature and step sizes, the whole course of full-batch descent, the mean-square error of single-point
descent, both solutions of the shared layer, and the minimum of the logistic losses. NumPy and SciPy in float64; no
torch, and nothing else of the project, so that it can't share a mistake with the training code.

Throughout, theta = (w1, ..., wp, b), X is the features with a column of ones, and `factor` says how a loss is coded: 2
for the mean of squares, 1 for half of it, so that the Hessian is factor * X'X / n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, linprog, minimize
from scipy.special import expit

Array = np.ndarray


# --- linear least squares --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeastSquares:
    """The exact fit of a line or plane.

    Attributes:
        theta: (features + 1,), the weights, then b.
        standard_errors: (features + 1,), of theta.
        residual_sd: sqrt(sum of squared residuals / (rows - features - 1)); nan where there are no rows to spare.
        mean_square: mean of the squared residuals.
    """

    theta: Array
    standard_errors: Array
    residual_sd: float
    mean_square: float


def with_ones(features: Array) -> Array:
    """X: features (rows, features) with a last column of ones, (rows, features + 1)."""
    return np.column_stack([features, np.ones(len(features))])


def least_squares(features: Array, target: Array) -> LeastSquares | None:
    """argmin |X theta - y|^2, by the singular value decomposition of X with columns of length 1.

    X'X, whose condition is the square of X's, is never formed (Golub and Van Loan, Matrix Computations, 4th edition,
    section 5.3). Standard errors are residual_sd * sqrt(diag((X'X)^-1)) (Seber and Lee, Linear Regression Analysis,
    section 3.3).

    Args:
        features: (rows, features).
        target: (rows,).

    Returns:
        None where the columns are linearly dependent, so that no single solution exists.
    """
    X = with_ones(features)
    lengths = np.linalg.norm(X, axis=0)
    if not lengths.all():
        return None
    U, s, Vt = np.linalg.svd(X / lengths, full_matrices=False)
    if len(X) < X.shape[1] or s[-1] < s[0] * len(X) * np.finfo(float).eps:
        return None
    inverse = Vt.T / s  # the pseudo-inverse is inverse @ U'
    theta = inverse @ (U.T @ target) / lengths
    squares = float(np.sum((target - X @ theta) ** 2))
    spare = len(X) - X.shape[1]
    residual_sd = math.sqrt(squares / spare) if spare else math.nan
    return LeastSquares(theta, residual_sd * np.linalg.norm(inverse, axis=1) / lengths, residual_sd, squares / len(X))


# --- curvature and step sizes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of a Hessian, smallest first, and what follows from them.

    Descent p <- p - lr*g multiplies the error along an eigenvector by 1 - lr*eigenvalue, so that it needs
    lr < 2/largest. Where gradients are never zeroed, it is heavy-ball descent with momentum 1, whose errors stay
    bounded, but are never damped, for lr < 4/largest (Polyak, Some methods of speeding up the convergence of iteration
    methods, 1964).
    """

    eigenvalues: Array

    @property
    def condition(self) -> float:
        """The ratio of the largest eigenvalue to the smallest."""
        smallest = float(self.eigenvalues[0])
        return float(self.eigenvalues[-1]) / smallest if smallest > 0 else math.inf

    @property
    def stable_lr(self) -> float:
        """2 / largest eigenvalue: descent converges below it."""
        return 2 / float(self.eigenvalues[-1])

    @property
    def accumulating_lr(self) -> float:
        """4 / largest eigenvalue: descent with accumulating gradients stays bounded below it."""
        return 4 / float(self.eigenvalues[-1])


def hessian(features: Array, factor: float) -> Array:
    """factor * X'X / n, (features + 1, features + 1): constant, since the loss is quadratic."""
    X = with_ones(features)
    return factor * X.T @ X / len(X)


def curvature(matrix: Array) -> Curvature:
    """The eigenvalues of a symmetric matrix."""
    return Curvature(np.linalg.eigvalsh(matrix))


# --- full-batch descent on a quadratic -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """Where descent is at the asked iterations: theta (iterations, features + 1) and loss (iterations,).

    Not finite where the course has left the range of floating-point numbers.
    """

    theta: Array
    loss: Array


def full_batch_course(
    features: Array,
    target: Array,
    start: Array,
    *,
    lr: float,
    iterations: Array,
    factor: float,
    accumulate: bool,
    standardize: bool,
) -> Course:
    """The whole course of full-batch descent, in closed form.

    With H the Hessian and e the distance from the least-squares solution, zeroed gradients give
    e_{k+1} = (I - lr H) e_k, and accumulating ones e_{k+1} = 2 e_k - e_{k-1} - lr H e_k with e_1 = (I - lr H) e_0.
    Along an eigenvector with eigenvalue h the solutions are

        e_k = (1 - lr h)^k e_0            and            e_k = cos((k + 1/2) phi) / cos(phi / 2) e_0, cos(phi) = 1 - lr
        h / 2,

    with complex phi, hence growth, for lr h > 4. The loss is loss* + e'He / 2.

    Args:
        features: (rows, features), in the CSV's units.
        target: (rows,).
        start: (features + 1,), theta at iteration 0, in the CSV's units.
        lr: the learning rate.
        iterations: (iterations,), the k to give; any non-negative integers.
        factor: 2 for the mean of squares, 1 for half of it.
        accumulate: whether gradients add up.
        standardize: whether the descent is made on features of mean 0 and standard deviation 1.
    """
    mean, sd = (features.mean(0), features.std(0)) if standardize else (0 * features[0], 1 + 0 * features[0])
    scaled = (features - mean) / sd
    solution = least_squares(scaled, target)
    if solution is None:
        raise ValueError("the features are linearly dependent")
    e0 = np.append(start[:-1] * sd, start[-1] + start[:-1] @ mean) - solution.theta
    h, V = np.linalg.eigh(hessian(scaled, factor))
    with np.errstate(over="ignore", invalid="ignore"):  # a course that diverges
        multiplier = _multiplier(np.asarray(iterations)[:, np.newaxis], lr * h, accumulate)
        along = (V.T @ e0) * multiplier  # (iterations, eigenvectors)
        loss = factor / 2 * solution.mean_square + (h * along**2).sum(axis=1) / 2
        theta = solution.theta + along @ V.T
        weights = theta[:, :-1] / sd
        return Course(np.column_stack([weights, theta[:, -1] - weights @ mean]), loss)


def _multiplier(k: Array, lr_h: Array, accumulate: bool) -> Array:
    """What k updates make of an error of 1 along an eigenvector; inf where it has grown beyond the largest float."""
    if not accumulate:
        return (1 - lr_h) ** k
    phi = np.arccos(1 - lr_h / 2 + 0j)
    return np.nan_to_num((np.cos((k + 0.5) * phi) / np.cos(phi / 2)).real, nan=np.inf)


# --- one feature drawn at random -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distribution:
    """A distribution of x as a few points with weights that add up to 1: Gauss quadrature.

    With 8 points the mean of every polynomial of degree 15 or less is exact; the moments used here have degree 4 or
    less.
    """

    points: Array
    weights: Array

    def mean(self, values: Array) -> Array:
        """E[f(x)] from the values f(points); the points run along the first axis."""
        weights = self.weights.reshape(-1, *[1] * (values.ndim - 1))
        return (weights * values).sum(axis=0)  # no BLAS, whose order of summation depends on the processor


def uniform(low: float, high: float) -> Distribution:
    """x uniform on [low, high): Gauss-Legendre quadrature."""
    points, weights = np.polynomial.legendre.leggauss(8)
    return Distribution(low + (high - low) * (points + 1) / 2, weights / 2)


def normal(mean: float, sd: float) -> Distribution:
    """x normal: Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(8)
    return Distribution(mean + sd * points, weights / weights.sum())


def second_moment_operator(gradients: Array, x: Distribution, lr: float) -> Array:
    """A, (4, 4), with vec(E[e_{k+1} e_{k+1}']) = A vec(E[e_k e_k']) for e_{k+1} = (I - 2 lr g g') e_k, x drawn anew.

    A = E[B (x) B], B = I - 2 lr g g'. Exact where the model is linear in theta (g = (x, 1)); elsewhere its
    linearisation (Feuer and Weinstein, Convergence analysis of LMS filters with uncorrelated Gaussian data, 1985).

    Args:
        gradients: (points, 2), g = d y_hat / d theta at each point of x.
        x: the distribution of x.
        lr: the learning rate.
    """
    B = np.eye(2) - 2 * lr * gradients[:, :, np.newaxis] * gradients[:, np.newaxis, :]
    return x.mean(np.einsum("nij,nkl->nikjl", B, B).reshape(-1, 4, 4))


def mean_square_growth(gradients: Array, x: Distribution, lr: float) -> float:
    """The factor by which E|e|^2 grows in the long run, a step: the spectral radius of the second-moment operator."""
    return float(np.abs(np.linalg.eigvals(second_moment_operator(gradients, x, lr))).max())


def mean_square_stable_lr(gradients: Array, x: Distribution) -> float:
    """The lr above which E|e|^2 grows. It lies below 2/lambda_max of the mean Hessian 2 E[g g']."""
    largest = curvature(2 * x.mean(gradients[:, :, np.newaxis] * gradients[:, np.newaxis, :])).stable_lr
    return float(brentq(lambda lr: mean_square_growth(gradients, x, lr) - 1, 1e-3 * largest, largest, xtol=1e-15))


def line_gradients(x: Distribution) -> Array:
    """d(w x + b) / d(w, b) = (x, 1) at each point, (points, 2)."""
    return with_ones(x.points[:, np.newaxis])


def single_point_error(x: Distribution, starts: Array, *, lr: float, steps: Sequence[int], noise: float) -> Array:
    """E|theta_k - theta*|^2 of single-point descent on (y_hat - y)^2 for a line, exactly, from given starts.

    With y = theta* . (x, 1) + noise the error obeys e_{k+1} = B e_k + 2 lr noise_k (x, 1), so that its second moment M
    obeys vec(M) <- A vec(M) + 4 lr^2 noise^2 vec(E[(x, 1)(x, 1)']).

    Args:
        x: the distribution of x.
        starts: (starts, 2), theta_0 - theta*.
        lr: the learning rate.
        steps: the k to give, ascending.
        noise: standard deviation of the noise.

    Returns:
        (steps, starts).
    """
    g = line_gradients(x)
    A = second_moment_operator(g, x, lr)
    source = 4 * lr**2 * noise**2 * x.mean(g[:, :, np.newaxis] * g[:, np.newaxis, :]).ravel()
    outer = (starts[:, :, np.newaxis] * starts[:, np.newaxis, :]).reshape(-1, 4)
    trace, added = np.eye(2).ravel(), 0.0  # |e_k|^2 = trace . vec(e_0 e_0') + added
    wanted, rows = set(steps), []
    for k in range(max(steps) + 1):
        if k in wanted:
            rows.append((outer * trace).sum(axis=1) + added)
        added += float((trace * source).sum())
        trace = (trace[:, np.newaxis] * A).sum(axis=0)
    return np.array(rows)


# --- the layer applied twice -----------------------------------------------------------------------------------------


def shared_solutions(slope: float, intercept: float) -> dict[str, Array]:
    """Both (w, b) for which a layer applied twice gives the line slope*x + intercept, by the sign of w.

    w*(w*x + b) + b = w^2 x + (w + 1) b, so that w = +-sqrt(slope) and b = intercept / (w + 1). Empty where slope <= 0;
    without the negative one where w = -1.
    """
    if slope <= 0:
        return {}
    roots = {"positive": math.sqrt(slope), "negative": -math.sqrt(slope)}
    return {name: np.array([w, intercept / (w + 1)]) for name, w in roots.items() if w != -1}


def shared_gradients(theta: Array, x: Distribution) -> Array:
    """d y_hat / d(w, b) = (2 w x + b, w + 1) at each point, (points, 2)."""
    w, b = theta
    return np.column_stack([2 * w * x.points + b, np.full(len(x.points), w + 1)])


def shared_hessian(theta: Array, x: Distribution) -> Array:
    """2 E[g g'], the Hessian of E[(y_hat - y)^2] where y_hat = y, as at both solutions, (2, 2)."""
    g = shared_gradients(theta, x)
    return 2 * x.mean(g[:, :, np.newaxis] * g[:, np.newaxis, :])


def shared_loss(w: Array, b: Array, slope: float, intercept: float, x: Distribution) -> Array:
    """E[(y_hat - y)^2] of the layer applied twice, of the shape of w and b."""
    rise, offset = w**2 - slope, (w + 1) * b - intercept  # y_hat - y = rise x + offset
    return rise**2 * x.mean(x.points**2) + 2 * rise * offset * x.mean(x.points) + offset**2


def shared_full_batch_path(
    start: Array, slope: float, intercept: float, x: Distribution, *, lr: float, steps: int
) -> Array:
    """Descent on E[(y_hat - y)^2], the loss over infinitely many rows, (steps + 1, 2)."""
    # Rounded, since the edge of stability magnifies a last bit that differs between processors.
    first, second = (round(float(x.mean(x.points**power)), 14) for power in (1, 2))
    w, b = (round(float(value), 14) for value in start)
    path = np.empty((steps + 1, 2))
    for k in range(steps + 1):
        path[k] = w, b
        rise, offset = w * w - slope, (w + 1) * b - intercept
        residual = rise * first + offset  # E[y_hat - y]
        residual_x = rise * second + offset * first  # E[(y_hat - y) x]
        w, b = w - lr * 2 * (2 * w * residual_x + b * residual), b - lr * 2 * (w + 1) * residual
    return path


# --- logistic regression ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogisticMinimum:
    """A minimum of a logistic loss.

    Attributes:
        theta: the weights (w alone in the slope-intercept form), then b.
        loss: the loss there.
        standard_errors: of theta, from the inverse of the observed information; None for mse, which is no likelihood.
    """

    theta: Array
    loss: float
    standard_errors: Array | None


def logits_of(features: Array, form: str) -> tuple[Array, Array]:
    """Z and offset with z = Z theta + offset: `slope-intercept` is w*x + b - y, `general` w1*x1 + ... + b."""
    if form == "slope-intercept":
        return with_ones(features[:, :1]), -features[:, 1]
    return with_ones(features), np.zeros(len(features))


def logistic_minimum(features: Array, label: Array, *, loss: str, form: str, near: Array) -> LogisticMinimum | None:
    """The minimum that Newton's method, safeguarded by a trust region, reaches from `near`.

    bce is convex: there is one minimum, the maximum-likelihood fit, unless the classes can be separated. mse is not
    convex: this is the minimum whose basin `near` lies in. The trust region is SciPy's `trust-exact` (Nocedal and
    Wright, Numerical Optimization, 2nd edition, section 4.3).

    Args:
        features: (rows, features).
        label: (rows,), 0 or 1.
        loss: `mse` or `bce`.
        form: `slope-intercept` or `general`.
        near: theta to start from.

    Returns:
        None where the loss has no minimum in reach: it falls for ever, as it does where the classes are separable.
    """
    Z, offset = logits_of(features, form)
    scale = np.linalg.norm(Z, axis=0) / math.sqrt(len(Z))
    if not (scale > 0).all() or not np.isfinite(scale).all():  # a column of zeros leaves its weight free
        return None
    Z = Z / scale

    def value(theta: Array) -> float:
        return float(_losses(Z @ theta + offset, label, loss)[0].mean())

    def gradient(theta: Array) -> Array:
        return Z.T @ _losses(Z @ theta + offset, label, loss)[1] / len(Z)

    def second(theta: Array) -> Array:
        return (Z.T * _losses(Z @ theta + offset, label, loss)[2]) @ Z / len(Z)

    found = minimize(value, near * scale, jac=gradient, hess=second, method="trust-exact", options={"gtol": 1e-12})
    H = second(found.x)
    flat = np.linalg.eigvalsh(H)[0] < 1e-9
    if flat or np.abs(gradient(found.x)).max() > 1e-9 or not maximum_likelihood_exists(features, label, form=form):
        return None
    errors = np.sqrt(np.diag(np.linalg.inv(H)) / len(Z)) / scale if loss == "bce" else None
    return LogisticMinimum(found.x / scale, float(found.fun), errors)


def _losses(z: Array, label: Array, loss: str) -> tuple[Array, Array, Array]:
    """Each row's loss, and its first and second derivative by z."""
    p = expit(z)
    slope = p * (1 - p)
    if loss == "bce":
        return np.logaddexp(0, z) - label * z, p - label, slope
    error = p - label
    return error**2, 2 * error * slope, 2 * slope**2 + 2 * error * slope * (1 - 2 * p)


def maximum_likelihood_exists(features: Array, label: Array, *, form: str) -> bool:
    """Whether no direction d separates the classes: Z d >= 0 for all of class 1, <= 0 for all of class 0, not all 0.

    Along such a direction the likelihood rises for ever (Albert and Anderson, On the existence of maximum likelihood
    estimates in logistic regression models, 1984). A linear programme finds the best d in a box: its optimum is 0
    exactly where there is none.
    """
    Z, _ = logits_of(features, form)
    largest = np.abs(Z).max(axis=0)
    Z = Z[:, largest > 0] / largest[largest > 0]
    signed = np.where(label == 1, 1.0, -1.0)[:, np.newaxis] * Z
    found = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(Z)), bounds=(-1, 1), method="highs")
    return bool(-found.fun < 1e-7)


def cluster_log_odds(centers: list[list[float]], std: float) -> tuple[Array, float]:
    """The true log-odds of class 1, w . x + b, for two normal clusters of equal size and standard deviation.

    By Bayes' rule log N(x; c1, std) - log N(x; c0, std) = (c1 - c0) . x / std^2 - (|c1|^2 - |c0|^2) / (2 std^2)
    (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, section 4.3).

    Returns:
        w of shape (coordinates,), and b.
    """
    c0, c1 = np.array(centers) / std
    return (c1 - c0) / std, float((c0 @ c0 - c1 @ c1) / 2)
