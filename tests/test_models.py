"""The models: the line that they draw, their exact solution and the truth of drawn data."""

import numpy as np
import pytest

from stages.theory.models import Line, LineAppliedTwice, Logit, Model, Shown

X = np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 1.0], [1.0, 0.0], [3.0, 3.0]])
Y = np.array([1.0, 3.0, 2.0, 2.0, 4.0])
LABEL = np.array([0.0, 0.0, 1.0, 1.0, 1.0])  # no line separates them
BCE = Logit("bce", "general")
MSE = Logit("mse", "slope-intercept")
NEAR = np.array([0.3, 0.0, 0.0])


@pytest.mark.parametrize(
    ("model", "theta", "shown"),
    [
        (Line(2), [2, 5], Shown(0, None, np.array([7.0]))),
        (Line(1), [1, -2, 0.5, 5], Shown(1, None, np.array([7.0, 8.0, 9.0]))),
        (LineAppliedTwice(), [-0.5, 5], Shown(0, None, np.array([7.0]))),
        (MSE, [2, 5], Shown(0, 1, np.array([7.0, 8.0]))),
        (BCE, [2, -1, 5], Shown(0, 1, np.array([7.0, 8.0]))),
        (BCE, [2, 3, -1, 5], Shown(0, 1, np.array([7.0, 8.0, 9.0]))),
    ],
)
def test_a_drawn_line_is_where_the_prediction_is_with_hidden_features_at_their_means(
    model: Model, theta: list[float], shown: Shown
) -> None:
    """y_hat on the vertical axis, or log-odds of 0."""
    drawn = model.drawn(np.array(theta), shown)
    assert drawn is not None
    p, q, r = drawn
    for x in (-1.0, 0.0, 4.0):
        y, row = -(p * x + r) / q, shown.means.copy()
        row[shown.across] = x
        if shown.up is not None:
            row[shown.up] = y
        predicted = float(model.predict(row[np.newaxis], np.array(theta))[0])
        assert predicted == pytest.approx(y if shown.up is None else 0, abs=1e-12)


def test_a_boundary_of_one_feature_is_upright_and_one_of_zeros_is_none() -> None:
    assert BCE.drawn(np.array([2.0, -3.0]), Shown(0, None, np.zeros(1))) == (2, 0, -3)
    assert BCE.drawn(np.array([0.0, 0.0, 1.0]), Shown(0, 1, np.zeros(2))) is None


@pytest.mark.parametrize("factor", [1, 2])
def test_the_exact_line_has_the_loss_in_the_experiments_own_factor(factor: int) -> None:
    exact = Line(factor).exact(X, Y, near=NEAR)
    assert exact is not None
    assert exact.loss == pytest.approx(factor / 2 * np.mean((Line(factor).predict(X, exact.theta) - Y) ** 2))
    assert Line(factor).exact(X[:, [0, 0]], Y, near=NEAR) is None


def test_the_exact_layer_applied_twice_is_the_solution_of_the_sign_of_the_fit() -> None:
    x, model, line = X[:, :1], LineAppliedTwice(), Line(2).exact(X[:, :1], Y, near=NEAR)
    assert line is not None
    for near in (NEAR, -NEAR):
        exact = model.exact(x, Y, near=near)
        assert exact is not None
        assert np.sign(exact.theta[0]) == np.sign(near[0])
        assert exact.loss == pytest.approx(line.loss)
        np.testing.assert_allclose(model.predict(x, exact.theta), Line(2).predict(x, line.theta))
    assert [model.exact(x, -Y, near=NEAR), model.exact(0 * x, Y, near=NEAR)] == [None, None]


def test_the_exact_logit_is_the_minimum_of_its_loss_and_knows_what_is_separable() -> None:
    high = (X[:, 1] > 0.5).astype(float)
    assert [BCE.is_separable(X, LABEL), BCE.is_separable(X, high), MSE.is_separable(X, high)] == [False, True, False]
    exact = BCE.exact(X, LABEL, near=np.zeros(3))
    assert exact is not None
    z = BCE.predict(X, exact.theta)
    assert exact.loss == pytest.approx(np.mean(np.logaddexp(0, z) - LABEL * z))
    assert BCE.exact(X, high, near=np.zeros(3)) is None


@pytest.mark.parametrize(
    ("model", "drawn_from", "truth"),
    [
        (Line(2), {"weights": [3.0], "bias": 0.8}, [3, 0.8]),
        (Line(1), {"weights": [2.0, -3.4], "bias": 4.2}, [2, -3.4, 4.2]),
        (LineAppliedTwice(), {"weights": [4.0], "bias": 6.0}, [2, 2]),
        (LineAppliedTwice(), {"weights": [-4.0], "bias": 6.0}, None),
        (MSE, {"centers": [[2.0, 2.0], [-2.0, -2.0]], "std": 1.0}, [-1, 0]),
        (BCE, {"centers": [[2.0, 2.0], [-2.0, -2.0]], "std": 1.0}, [-4, -4, 0]),
        (MSE, {"centers": [[2.0, 2.0], [-2.0, 2.0]], "std": 1.0}, None),  # an upright boundary has no slope
        (BCE, {"centers": [[2.0, 2.0], [-2.0, -2.0]], "std": 1e-300}, None),  # out of range
    ],
)
def test_truth_follows_from_what_the_data_are_drawn_from(
    model: Model, drawn_from: dict[str, object], truth: list[float] | None
) -> None:
    found = model.truth(drawn_from)
    assert (None if found is None else found.tolist()) == truth
