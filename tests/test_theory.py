"""Theory against certified values, autograd and simulation."""

from collections.abc import Callable
from itertools import pairwise

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, vjp
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from stages.common.tables import read_clusters, read_linear_set
from stages.theory import applied_twice, single_rows
from stages.theory.bowl import Bowl, Course
from stages.theory.least_squares import least_squares, with_ones
from stages.theory.logistic import cluster_log_odds, logistic_minimum, logits_of, maximum_likelihood_exists
from tests.conftest import ROOT

Array = np.ndarray
SEEDS = range(3)
UNIFORM = single_rows.uniform(0, 1)
LINE = (1.233, 0.988)  # of the layer applied twice: slope and intercept
SOLUTIONS = list(applied_twice.solutions(*LINE).values())


def draw(seed: int, features: int = 2) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(30, features)) * generator.uniform(0.5, 2, features) + generator.normal(size=features)
    return X, X @ generator.normal(size=features) + generator.normal() + 0.3 * generator.normal(size=30)


# --- a line ----------------------------------------------------------------------------------------------------------


def test_norris_is_fitted_as_certified() -> None:
    """NIST StRD: slope, intercept, both standard errors and the residual standard deviation, to 12 digits.

    NIST's certified values are exact to their 15 digits; double precision loses about log10(condition) of its 16.
    """
    table = read_linear_set(ROOT / "data/raw/norris.csv")
    found = least_squares(table.features, table.target)
    assert found is not None
    values = [*found.theta, *found.standard_errors, found.residual_sd]
    certified = [1.00211681802045, -0.262323073774029, 0.000429796848199937, 0.232818234301152, 0.884796396144373]
    np.testing.assert_allclose(values, certified, rtol=1e-12)


def test_small_eigenvalues_keep_their_digits() -> None:
    """Of the features of NIST's Wampler data, powers of 0 to 20: as in 60 digits, where X'X loses them."""
    powers = np.arange(21.0)[:, np.newaxis] ** np.arange(1, 6)
    X = mpmath.matrix(np.column_stack([powers, np.ones(21)]).tolist())
    with mpmath.workdps(60):
        exact = [float(value) for value in mpmath.eigsy(X.T * X * 2 / 21, eigvals_only=True)]
    found = Bowl(powers, powers.sum(axis=1), factor=2, standardize=False).curvature.eigenvalues
    np.testing.assert_allclose(found, exact, rtol=1e-8)
    assert exact[-1] / exact[0] > 1e13


@pytest.mark.parametrize(("multiples", "constant"), [((1, 1), 0), ((0, 0), 3), ((0, 0), 0)])
def test_dependent_columns_have_no_single_solution_and_no_course(multiples: tuple[int, int], constant: int) -> None:
    X, y = draw(0)
    X = np.column_stack([X, X @ multiples + constant])
    assert least_squares(X, y) is None
    bowl = Bowl(X, y, factor=2, standardize=False)
    assert bowl.course(np.zeros(4), np.arange(3), lr=0.1, accumulate=False) is None
    assert bowl.curvature.condition > 1e12


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_course_is_what_descent_does(seed: int, factor: int, standardize: bool, accumulate: bool) -> None:
    """Against the loop itself; 1e-9 of the largest value, the rounding of a few hundred steps."""
    X, y = draw(seed, features=1 + seed)
    mean, sd = (X.mean(0), X.std(0)) if standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
    Z = with_ones((X - mean) / sd)
    bowl = Bowl(X, y, factor=factor, standardize=standardize)
    lr = 0.7 * (bowl.curvature.accumulating_lr if accumulate else bowl.curvature.stable_lr)
    scaled, v = np.array(np.random.default_rng(seed).normal(size=Z.shape[1])), np.zeros(Z.shape[1])
    losses: list[float] = []
    thetas: list[Array] = []
    for _ in range(301):
        losses.append(factor / 2 * float(np.mean((Z @ scaled - y) ** 2)))
        thetas.append(np.array([*(scaled[:-1] / sd), scaled[-1] - scaled[:-1] @ (mean / sd)]))
        v = (v if accumulate else 0) + factor * Z.T @ (Z @ scaled - y) / len(y)
        scaled = scaled - lr * v
    asked = np.array([0, 1, 2, 7, 100, 300])
    course = bowl.course(thetas[0], asked, lr=lr, accumulate=accumulate)
    assert course is not None
    np.testing.assert_allclose(course.loss, np.array(losses)[asked], atol=1e-9 * max(losses))
    np.testing.assert_allclose(course.theta, np.array(thetas)[asked], atol=1e-9 * np.abs(thetas).max())


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_descent_grows_above_its_stable_learning_rate_only(seed: int, accumulate: bool) -> None:
    bowl = Bowl(*draw(seed), factor=2, standardize=False)
    border = bowl.curvature.accumulating_lr if accumulate else bowl.curvature.stable_lr

    def losses(lr: float) -> Array:
        course = bowl.course(np.ones(3), np.arange(0, 200_000, 997), lr=lr, accumulate=accumulate)
        assert isinstance(course, Course)
        return course.loss

    below, above = losses(0.999 * border), losses(1.001 * border)
    bound = 1e4 * below[0]  # the swing's amplitude is 1 / cos(phi / 2), about 30 this close to the border
    assert below.max() < bound
    assert not np.nan_to_num(above, nan=np.inf).max() < 1e12 * bound


# --- one row a step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "moments"),
    [
        (single_rows.uniform(-1.0, 2.0), [(2 ** (k + 1) - (-1) ** (k + 1)) / (3 * (k + 1)) for k in range(9)]),
        (single_rows.normal(0.5, 2.0), [1, 0.5, 4.25, 6.125, 54.0625]),
    ],
)
def test_quadrature_has_the_moments_of_the_distribution(x: single_rows.Distribution, moments: list[float]) -> None:
    np.testing.assert_allclose([x.mean(x.points**k) for k in range(len(moments))], moments, rtol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_expected_error_is_the_mean_of_many_runs(noise: float) -> None:
    """20,000 runs from two starts, within 4 standard errors at every step."""
    generator, lr, steps, runs = np.random.default_rng(0), 0.05, [0, 1, 5, 20, 60], 20_000
    starts = np.array([[0.5, -1.0], [-0.3, 0.2]])
    traces, added = single_rows.expected_error(UNIFORM, lr=lr, steps=steps, noise=noise)
    products = np.einsum("si,sj->sij", starts, starts).reshape(2, 4)
    predicted = traces @ products.T + added[:, np.newaxis]  # (steps, starts)
    e = np.repeat(starts[:, np.newaxis], runs, axis=1)  # (starts, runs, parameters)
    for k in range(steps[-1] + 1):
        if k in steps:
            squared = (e**2).sum(axis=2)
            allowed = 4 * squared.std(axis=1) / np.sqrt(runs) + 1e-12
            assert (np.abs(squared.mean(axis=1) - predicted[steps.index(k)]) <= allowed).all()
        z = np.stack([generator.uniform(0, 1, e.shape[:2]), np.ones(e.shape[:2])], axis=2)
        residual = (z * e).sum(axis=2) - noise * generator.standard_normal(e.shape[:2])
        e = e - 2 * lr * residual[:, :, np.newaxis] * z


@pytest.mark.parametrize("x", [UNIFORM, single_rows.normal(0.5, 2.0)])
def test_mean_square_error_grows_above_its_stable_learning_rate_only(x: single_rows.Distribution) -> None:
    for g in (single_rows.line_gradients(x), *(applied_twice.gradients(theta, x.points) for theta in SOLUTIONS)):
        border = single_rows.mean_square_stable_lr(g, x)
        growth = [single_rows.mean_square_growth(g, x, share * border) for share in (0.5, 0.999, 1, 1.001)]
        assert max(growth[:2]) < 1 < growth[3]
        assert growth[2] == pytest.approx(1, abs=1e-12)


# --- a layer applied twice -------------------------------------------------------------------------------------------


def loss_of(theta: torch.Tensor) -> torch.Tensor:
    """E[(y_hat - y)^2] by quadrature, for autograd."""
    (w, b), x, weights = theta, torch.tensor(UNIFORM.points), torch.tensor(UNIFORM.weights)
    return (weights * (w * (w * x + b) + b - LINE[0] * x - LINE[1]) ** 2).sum()


@pytest.mark.parametrize("line", [LINE, (4.0, -3.0), (0.01, 0.0)])
def test_both_solutions_give_the_line(line: tuple[float, float]) -> None:
    solutions = applied_twice.solutions(*line)
    assert solutions["positive"][0] > 0 > solutions["negative"][0]
    for w, b in solutions.values():
        np.testing.assert_allclose([w * w, (w + 1) * b], line, rtol=1e-12)
    assert applied_twice.solutions(-1.0, 1.0) == {}
    assert list(applied_twice.solutions(1.0, 1.0)) == ["positive"], "w = -1 gives no intercept"


@pytest.mark.parametrize("theta", SOLUTIONS)
def test_curvature_at_a_solution_is_that_of_autograd(theta: Array) -> None:
    expected = torch.linalg.eigvalsh(hessian(loss_of, torch.tensor(theta)))
    np.testing.assert_allclose(applied_twice.curvature(theta, UNIFORM).eigenvalues, expected, rtol=1e-8)


@pytest.mark.parametrize("level", [1e-3, 0.1, 1.0, 100.0])
def test_contours_have_their_level_and_leave_out_no_part(level: float) -> None:
    """At each w the curve passes twice, above and below what lies lower, or there is nothing lower."""
    curves = applied_twice.contour(level, *LINE, UNIFORM)
    for theta in np.concatenate(curves)[::7]:
        if np.isfinite(theta).all() and np.abs(theta).max() < 1e3:
            assert loss_of(torch.tensor(theta)).item() == pytest.approx(level, rel=1e-9)
    for at_w in (-1.5, -1.1, -0.6, -0.2, 0.3, 0.9, 1.1, 1.8):
        drawn = [curve[np.isfinite(curve[:, 0]), 0] for curve in curves]
        crossings = sum(np.count_nonzero(np.diff(np.sign(w - at_w))) for w in drawn)
        mean = float(UNIFORM.mean(UNIFORM.points))
        b = (LINE[1] - (at_w**2 - LINE[0]) * mean) / (at_w + 1)  # where the loss over b is smallest
        assert crossings == (2 if loss_of(torch.tensor([at_w, b])).item() < level else 0), at_w


def test_full_batch_descent_follows_the_gradient_of_the_loss() -> None:
    start, lr = np.array([-0.7, 0.4]), 0.01
    path = applied_twice.full_batch_path(start, *LINE, UNIFORM, lr=lr, iterations=np.arange(6))
    np.testing.assert_array_equal(path[0], start)
    for theta, after in pairwise(path):
        _, slopes = vjp(loss_of, torch.tensor(theta))
        np.testing.assert_allclose(after, theta - lr * slopes.numpy(), rtol=1e-12)
    some = applied_twice.full_batch_path(start, *LINE, UNIFORM, lr=lr, iterations=np.array([2, 5]))
    np.testing.assert_array_equal(some, path[[2, 5]])


# --- logits ----------------------------------------------------------------------------------------------------------


def test_iris_has_its_known_maximum_likelihood() -> None:
    """The reference coefficients, to the digits given."""
    table = read_clusters(ROOT / "data/raw/iris.csv")
    found = logistic_minimum(table.features, table.target, loss="bce", form="general", near=np.zeros(3))
    assert found is not None
    np.testing.assert_allclose(found.theta, [5.7545, 10.4467, -45.2723], atol=5e-5)


@pytest.mark.parametrize(("loss", "of_z"), [("mse", mse_loss), ("bce", binary_cross_entropy_with_logits)])
@pytest.mark.parametrize("form", ["slope-intercept", "general"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_vanishes_at_the_minimum_and_the_hessian_gives_standard_errors(
    seed: int, form: str, loss: str, of_z: Callable[..., torch.Tensor]
) -> None:
    """For clusters that overlap, by autograd."""
    generator = np.random.default_rng(seed)
    label = np.repeat([0.0, 1.0], 60)
    X = generator.normal(size=(120, 2)) + np.where(label == 0, 0.6, -0.6)[:, np.newaxis]
    Z, offset = map(torch.tensor, logits_of(X, form))

    def mean_loss(theta: torch.Tensor) -> torch.Tensor:
        z = Z @ theta + offset
        return of_z(z.sigmoid() if loss == "mse" else z, torch.tensor(label))

    found = logistic_minimum(X, label, loss=loss, form=form, near=np.zeros(Z.shape[1]))
    assert found is not None
    value, slopes = vjp(mean_loss, torch.tensor(found.theta))
    H = hessian(mean_loss, torch.tensor(found.theta))
    assert (found.loss, slopes.abs().max().item()) == pytest.approx((value.item(), 0), abs=1e-9)
    assert torch.linalg.eigvalsh(H)[0] > 0
    if found.standard_errors is None:
        assert loss == "mse", "which is no likelihood"
    else:
        np.testing.assert_allclose(found.standard_errors, (H.inverse().diag() / 120).sqrt(), rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_a_place_where_rounding_keeps_the_gradient_from_vanishing_is_no_minimum(loss: str) -> None:
    """As far out as b has no more than four decimals."""
    generator = np.random.default_rng(0)
    label = np.repeat([0.0, 1.0], 60)
    X = generator.normal(size=(120, 2)) + np.where(label == 0, 0.6, -0.6)[:, np.newaxis]
    for up, is_found in ((0, True), (1e12, False)):
        found = logistic_minimum(
            X + np.array([0, up]), label, loss=loss, form="slope-intercept", near=np.array([-1.0, up])
        )
        assert (found is not None) is is_found


ON_A_LINE: list[list[float]] = [[0], [1], [2], [3]]
APART_IN_Y: list[list[float]] = [[0, 5], [1, 5], [0.5, 0], [0.6, 0]]


@pytest.mark.parametrize(
    ("features", "label", "form", "exists"),
    [
        (ON_A_LINE, [0, 0, 1, 1], "general", False),
        (ON_A_LINE, [1, 1, 0, 0], "general", False),
        (ON_A_LINE, [0, 1, 0, 1], "general", True),
        (ON_A_LINE, [0, 1, 1, 0], "general", True),
        ([[0], [1e-9], [2e-9], [3e-9]], [0, 0, 1, 1], "general", False),  # in any unit
        ([[0], [1], [1], [2]], [0, 0, 1, 1], "general", False),  # both classes at x = 1: separated but for a tie
        (APART_IN_Y, [0, 0, 1, 1], "general", False),
        (APART_IN_Y, [0, 0, 1, 1], "slope-intercept", True),  # x alone does not separate them
        (APART_IN_Y, [0, 1, 0, 1], "slope-intercept", False),
    ],
)
def test_maximum_likelihood_exists_only_without_separation(
    features: list[list[float]], label: list[int], form: str, exists: bool
) -> None:
    assert maximum_likelihood_exists(np.array(features), np.array(label), form=form) is exists


def test_log_odds_of_clusters_follow_from_their_densities() -> None:
    centers, std = [[2.0, 1.0], [-1.0, 0.5]], 0.7
    w, b = cluster_log_odds(centers, std)
    for point in np.random.default_rng(0).normal(size=(10, 2)):
        log_density = [-np.sum((point - np.array(center)) ** 2) / (2 * std**2) for center in centers]
        assert w @ point + b == pytest.approx(log_density[1] - log_density[0], rel=1e-9, abs=1e-9)


def test_a_minimum_of_the_likelihood_is_found_exactly_where_a_linear_programme_says_that_there_is_one() -> None:
    """Of few points in a plane, on a grid, so that lines often separate them, wholly or but for points on the line."""
    random, exists = np.random.default_rng(5), []
    for _ in range(400):
        rows = int(random.integers(4, 25))
        x = random.integers(-2, 3, size=(rows, 2)) * 10.0 ** random.integers(-3, 4)
        noise = random.choice([0, 1]) * np.abs(x).max() * random.normal(size=rows)
        label = (x @ random.normal(size=2) + noise > 0).astype(float)
        exists.append(maximum_likelihood_exists(x, label, form="general"))
        found = logistic_minimum(x, label, loss="bce", form="general", near=np.zeros(3))
        ones = with_ones(x)
        if np.linalg.matrix_rank(ones) == 3:
            assert (found is not None) == exists[-1]
    assert 50 < sum(exists) < 350
