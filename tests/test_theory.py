"""Theory against certified values, brute force and simulation."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from stages.common import theory
from tests.conftest import ROOT

SEEDS = range(5)


def draw(seed: int, rows: int = 30, features: int = 2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, features)) * generator.uniform(0.5, 2, features) + generator.normal(size=features)
    return X, X @ generator.normal(size=features) + generator.normal() + 0.3 * generator.normal(size=rows)


def test_norris_as_certified() -> None:
    """NIST StRD: slope, intercept, both standard errors and the residual standard deviation, to 12 digits.

    NIST's certified values are exact to their 15 digits; double precision loses about log10(condition) of its 16.
    """
    data = pd.read_csv(ROOT / "data/raw/norris.csv")
    found = theory.least_squares(data[["x"]].to_numpy(), data["y"].to_numpy())
    assert found is not None
    values = [*found.theta, *found.standard_errors, found.residual_sd]
    certified = [1.00211681802045, -0.262323073774029, 0.000429796848199937, 0.232818234301152, 0.884796396144373]
    np.testing.assert_allclose(values, certified, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_least_squares_is_stationary_and_lower_than_its_neighbours(seed: int) -> None:
    X, y = draw(seed)
    found = theory.least_squares(X, y)
    assert found is not None
    residual = y - theory.with_ones(X) @ found.theta
    np.testing.assert_allclose(theory.with_ones(X).T @ residual, 0, atol=1e-12 * np.abs(y).sum())
    assert found.mean_square == pytest.approx(np.mean(residual**2), rel=1e-12)


def test_dependent_columns_have_no_single_solution() -> None:
    X, y = draw(0)
    assert theory.least_squares(np.column_stack([X, X[:, 0] + X[:, 1]]), y) is None
    assert theory.least_squares(np.column_stack([X, np.full(len(X), 3.0)]), y) is None


@pytest.mark.parametrize("factor", [1, 2])
def test_hessian_is_the_second_difference_of_the_loss(factor: int) -> None:
    X, y = draw(1)

    def loss(theta: np.ndarray) -> float:
        return float(factor / 2 * np.mean((theory.with_ones(X) @ theta - y) ** 2))

    H, step = theory.hessian(X, factor), 1e-3
    for i in range(3):
        for j in range(3):
            di, dj = step * np.eye(3)[i], step * np.eye(3)[j]
            second = (loss(di + dj) - loss(di - dj) - loss(dj - di) + loss(-di - dj)) / (4 * step**2)
            assert second == pytest.approx(H[i, j], rel=1e-6, abs=1e-8)  # exact up to rounding: the loss is quadratic


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_course_is_what_descent_does(seed: int, factor: int, standardize: bool, accumulate: bool) -> None:
    """Against the loop itself; 1e-9 of the largest value, the rounding of a few hundred steps."""
    X, y = draw(seed, features=1 + seed % 3)
    mean, sd = (X.mean(0), X.std(0)) if standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
    Z = theory.with_ones((X - mean) / sd)
    lr = 0.7 * theory.curvature(theory.hessian((X - mean) / sd, factor)).stable_lr * (2 if accumulate else 1)
    scaled = np.asarray(np.random.default_rng(seed).normal(size=Z.shape[1]))

    def in_csv_units(theta: np.ndarray) -> np.ndarray:
        return np.array([*(theta[:-1] / sd), theta[-1] - np.dot(theta[:-1], mean / sd)])

    start = in_csv_units(scaled)
    asked = np.array([0, 1, 2, 7, 100, 300])
    course = theory.full_batch_course(
        X, y, start, lr=lr, iterations=asked, factor=factor, accumulate=accumulate, standardize=standardize
    )
    v = np.zeros_like(scaled)
    losses: list[float] = []
    thetas: list[np.ndarray] = []
    for _ in range(301):
        losses.append(factor / 2 * np.mean((Z @ scaled - y) ** 2))
        thetas.append(in_csv_units(scaled))
        gradient = factor * Z.T @ (Z @ scaled - y) / len(y)
        v = v + gradient if accumulate else gradient
        scaled = scaled - lr * v
    np.testing.assert_allclose(course.loss, np.array(losses)[asked], atol=1e-9 * max(losses))
    np.testing.assert_allclose(course.theta, np.array(thetas)[asked], atol=1e-9 * np.abs(thetas).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_stable_learning_rates_are_the_borders(seed: int) -> None:
    """Just below, descent shrinks (or, accumulating, stays bounded); just above, it grows."""
    X, y = draw(seed)
    c = theory.curvature(theory.hessian(X, 2))
    start, asked = np.ones(3), np.arange(0, 200_000, 997)
    for accumulate, border in ((False, c.stable_lr), (True, c.accumulating_lr)):
        losses = [
            theory.full_batch_course(
                X, y, start, lr=lr, iterations=asked, factor=2, accumulate=accumulate, standardize=False
            ).loss
            for lr in (0.999 * border, 1.001 * border)
        ]
        bound = 1e4 * losses[0][0]  # the swing's amplitude is 1 / cos(phi / 2), about 30 this close to the border
        assert losses[0].max() < bound
        assert not np.nan_to_num(losses[1], nan=np.inf).max() < 1e12 * bound


def test_gauss_quadrature_has_the_moments() -> None:
    for x, moments in (
        (theory.uniform(-1.0, 2.0), [(2 ** (k + 1) - (-1) ** (k + 1)) / (3 * (k + 1)) for k in range(9)]),
        (theory.normal(0.5, 2.0), [1, 0.5, 4.25, 6.125, 54.0625]),
    ):
        for k, moment in enumerate(moments):
            assert float(x.mean(x.points**k)) == pytest.approx(moment, rel=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_single_point_error_is_the_mean_of_many_runs(noise: float) -> None:
    """20,000 runs from two starts, within 4 standard errors at every step."""
    generator, lr, steps, runs = np.random.default_rng(0), 0.05, [0, 1, 5, 20, 60], 20_000
    starts = np.array([[0.5, -1.0], [-0.3, 0.2]])
    predicted = theory.single_point_error(theory.uniform(0, 1), starts, lr=lr, steps=steps, noise=noise)
    e = np.repeat(starts[:, np.newaxis], runs, axis=1)  # start, run, parameter
    for k in range(steps[-1] + 1):
        if k in steps:
            squared = (e**2).sum(axis=2)
            allowed = 4 * squared.std(axis=1) / np.sqrt(runs) + 1e-12
            assert (np.abs(squared.mean(axis=1) - predicted[steps.index(k)]) <= allowed).all()
        z = np.stack([generator.uniform(0, 1, e.shape[:2]), np.ones(e.shape[:2])], axis=2)
        residual = (z * e).sum(axis=2) - noise * generator.standard_normal(e.shape[:2])
        e = e - 2 * lr * residual[:, :, np.newaxis] * z


def test_shared_solutions_give_the_line() -> None:
    for slope, intercept in ((1.233, 0.988), (4.0, -3.0), (0.01, 0.0)):
        for sign, (w, b) in zip((1, -1), theory.shared_solutions(slope, intercept).values(), strict=True):
            assert np.sign(w) == sign
            np.testing.assert_allclose([w * w, (w + 1) * b], [slope, intercept], rtol=1e-12)
    assert theory.shared_solutions(-1.0, 1.0) == {}
    assert list(theory.shared_solutions(1.0, 1.0)) == ["positive"]


def test_shared_hessian_and_loss_agree() -> None:
    """The Hessian against second differences of the loss at both solutions; the step's error is about 1e-5."""
    x = theory.uniform(0, 1)

    def loss(theta: np.ndarray) -> float:
        return float(theory.shared_loss(theta[0], theta[1], 1.233, 0.988, x))

    for theta in theory.shared_solutions(1.233, 0.988).values():
        assert loss(theta) < 1e-25
        H, step = theory.shared_hessian(theta, x), 1e-4
        for i in range(2):
            for j in range(2):
                di, dj = step * np.eye(2)[i], step * np.eye(2)[j]
                second = loss(theta + di + dj) - loss(theta + di - dj) - loss(theta - di + dj) + loss(theta - di - dj)
                assert second / (4 * step**2) == pytest.approx(H[i, j], rel=1e-5, abs=1e-4)


def test_the_table_of_article_d() -> None:
    """The values that explain the missing solution, to the digits with which they are known."""
    x = theory.uniform(0, 1)
    positive, negative = theory.shared_solutions(1.233, 0.988).values()
    at = theory.curvature(theory.shared_hessian(negative, x))
    np.testing.assert_allclose(at.eigenvalues, [9.9e-5, 203.2], rtol=5e-3)
    assert at.stable_lr == pytest.approx(0.00984, abs=5e-6)
    g = theory.shared_gradients(negative, x)
    assert theory.mean_square_stable_lr(g, x) == pytest.approx(0.00969, abs=5e-6)
    assert theory.mean_square_growth(g, x, 0.01) == pytest.approx(1.13, abs=5e-3)
    np.testing.assert_allclose(
        theory.curvature(theory.shared_hessian(positive, x)).eigenvalues, [0.516, 14.2], rtol=5e-3
    )


def test_the_edge_of_stability() -> None:
    """Beside the negative solution a stable lr holds; the article's lr ends where the largest eigenvalue is 2/lr."""
    x = theory.uniform(0, 1)
    negative = theory.shared_solutions(1.233, 0.988)["negative"]
    held = theory.shared_full_batch_path(negative + np.array([1e-3, 0]), 1.233, 0.988, x, lr=0.0095, steps=100_000)
    assert np.linalg.norm(held[-1] - negative) < 1e-4
    thrown = theory.shared_full_batch_path(negative + np.array([1e-3, 0]), 1.233, 0.988, x, lr=0.01, steps=1_000_000)
    largest = theory.curvature(theory.shared_hessian(thrown[-1000:].mean(0), x)).eigenvalues[-1]
    assert largest == pytest.approx(200, rel=2e-3)


def test_full_batch_path_follows_the_gradient_of_the_loss() -> None:
    """Central differences of the loss; their error is about 1e-9 here."""
    x, lr, step = theory.uniform(0, 1), 0.01, 1e-5
    path = theory.shared_full_batch_path(np.array([-0.7, 0.4]), 1.233, 0.988, x, lr=lr, steps=5)
    for (w, b), after in pairwise(path):

        def loss(w: float, b: float) -> float:
            return float(theory.shared_loss(np.array(w), np.array(b), 1.233, 0.988, x))

        slopes = [
            (loss(w + step, b) - loss(w - step, b)) / (2 * step),
            (loss(w, b + step) - loss(w, b - step)) / (2 * step),
        ]
        np.testing.assert_allclose(after, np.array([w, b]) - lr * np.array(slopes), atol=1e-9)


def test_iris_maximum_likelihood() -> None:
    """The reference coefficients, to the digits given; standard errors by second differences of the likelihood."""
    data = pd.read_csv(ROOT / "data/raw/iris.csv")
    X, label = data[["x", "y"]].to_numpy(), data["label"].to_numpy()
    found = theory.logistic_minimum(X, label, loss="bce", form="general", near=np.zeros(3))
    assert found is not None
    np.testing.assert_allclose(found.theta, [5.7545, 10.4467, -45.2723], atol=5e-5)
    p = expit(theory.with_ones(X) @ found.theta)
    information = (theory.with_ones(X).T * (p * (1 - p))) @ theory.with_ones(X)
    assert found.standard_errors is not None
    np.testing.assert_allclose(found.standard_errors, np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("form", ["slope-intercept", "general"])
@pytest.mark.parametrize("seed", SEEDS)
def test_logistic_minimum_is_one(seed: int, form: str, loss: str) -> None:
    """Overlapping clusters: the gradient vanishes there, and no neighbour is lower."""
    generator = np.random.default_rng(seed)
    label = np.repeat([0.0, 1.0], 60)
    X = generator.normal(size=(120, 2)) + np.where(label == 0, 0.6, -0.6)[:, np.newaxis]
    Z, offset = theory.logits_of(X, form)

    def mean_loss(theta: np.ndarray) -> float:
        z = Z @ theta + offset
        return float(np.mean((expit(z) - label) ** 2 if loss == "mse" else np.logaddexp(0, z) - label * z))

    found = theory.logistic_minimum(X, label, loss=loss, form=form, near=np.zeros(Z.shape[1]))
    assert found is not None
    assert found.loss == pytest.approx(mean_loss(found.theta), rel=1e-12)
    for direction in generator.normal(size=(20, Z.shape[1])):
        assert mean_loss(found.theta + 1e-3 * direction) > found.loss


def test_maximum_likelihood_exists_only_without_separation() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    for label, exists in (([0, 0, 1, 1], False), ([0, 1, 0, 1], True), ([1, 1, 0, 0], False), ([0, 1, 1, 0], True)):
        assert theory.maximum_likelihood_exists(x, np.array(label), form="general") is exists
    touching = np.array([[0.0], [1.0], [1.0], [2.0]])  # both classes at x = 1: separated but for a tie
    assert not theory.maximum_likelihood_exists(touching, np.array([0, 0, 1, 1]), form="general")
    above = np.array([[0.0, 5.0], [1.0, 5.0], [0.5, 0.0], [0.6, 0.0]])  # y separates the classes, x alone does not
    assert not theory.maximum_likelihood_exists(above, np.array([0, 0, 1, 1]), form="general")
    assert theory.maximum_likelihood_exists(above, np.array([0, 0, 1, 1]), form="slope-intercept")
    assert not theory.maximum_likelihood_exists(above, np.array([0, 1, 0, 1]), form="slope-intercept")


def test_cluster_log_odds_is_bayes_rule() -> None:
    centers, std = [[2.0, 1.0], [-1.0, 0.5]], 0.7
    w, b = theory.cluster_log_odds(centers, std)
    for point in np.random.default_rng(0).normal(size=(10, 2)):
        log_density = [-np.sum((point - np.array(center)) ** 2) / (2 * std**2) for center in centers]
        assert w @ point + b == pytest.approx(log_density[1] - log_density[0], rel=1e-9, abs=1e-9)
