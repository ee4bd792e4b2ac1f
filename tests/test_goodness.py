"""How good a fit is on rows that it has not seen: what a formula says of each row is what a fit without it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.tables import Table
from stages.evaluate.figures import best_pair
from stages.theory.least_squares import least_squares, with_ones
from stages.theory.leave_one_out import predictions_without
from stages.theory.models import Line, LineAppliedTwice, Logit, Model
from tests.evidence import lay_out, rerun

Array = np.ndarray


def table(rows: int, features: int) -> tuple[Array, Array]:
    """A linear set in unlike units."""
    random = np.random.default_rng(rows)
    x = random.normal(size=(rows, features)) * 10.0 ** np.arange(features) + 5
    return x, x @ 0.1 ** np.arange(features) + random.normal(size=rows)


def left_out(model: Model, x: Array, y: Array, near: Array) -> Array:
    """The formula at the exact solution; nothing where it has none."""
    exact = model.exact(x, y, near)
    assert exact is not None
    z = model.predict(x, exact.theta)
    found = predictions_without(model.slopes(x, exact.theta), z, model.losses(z, y)[1], model.curvatures(z, y))
    return np.array([]) if found is None else found


def refitted(model: Model, x: Array, y: Array, near: Array) -> Array:
    """Each row's prediction by the exact solution without it."""
    found = np.zeros(len(y))
    for row in range(len(y)):
        others = np.arange(len(y)) != row
        exact = model.exact(x[others], y[others], near)
        assert exact is not None
        found[row] = model.predict(x[row : row + 1], exact.theta)[0]
    return found


@pytest.mark.parametrize("model", [Line(1), Line(2)])
@pytest.mark.parametrize("shape", [(12, 1), (40, 5)])
def test_leaving_a_row_out_of_a_line_is_exact(model: Line, shape: tuple[int, int]) -> None:
    x, y = table(*shape)
    np.testing.assert_allclose(left_out(model, x, y, np.zeros(1)), refitted(model, x, y, np.zeros(1)), rtol=1e-9)


def test_so_it_is_of_a_line_applied_twice() -> None:
    """Its slope is w^2, its intercept (w + 1) b: the same line in other letters."""
    x = np.linspace(0, 1, 9)[:, np.newaxis]
    y = 2 * x[:, 0] + 1 + 0.1 * np.random.default_rng(0).normal(size=9)
    near = np.array([1.0, 0.0])
    expected = refitted(LineAppliedTwice(), x, y, near)
    np.testing.assert_allclose(left_out(LineAppliedTwice(), x, y, near), expected, rtol=1e-9)


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("form", ["general", "slope-intercept"])
def test_of_a_logit_it_is_a_newton_step_from_exact(loss: str, form: str) -> None:
    random = np.random.default_rng(1)
    label = np.arange(200.0) % 2
    x = random.normal(size=(200, 2)) + 1.5 * np.column_stack([label, -label])
    model, near = Logit(loss, form), np.zeros(3 if form == "general" else 2)
    one_step, all_steps = left_out(model, x, label, near), refitted(model, x, label, near)
    exact = model.exact(x, label, near)
    assert exact is not None
    of_all = model.predict(x, exact.theta)
    moved = np.abs(all_steps - of_all)
    assert np.mean(np.abs(one_step - all_steps)) < 0.1 * moved.mean() < 0.1
    assert np.mean((one_step > 0) == (all_steps > 0)) > 0.99


def test_a_row_that_alone_fixes_a_parameter_can_t_be_left_out() -> None:
    x = np.array([[0.0], [0], [0], [1]])
    assert left_out(Line(1), x, np.array([1.0, 2, 3, 4]), np.zeros(1)).size == 0


def test_r2_and_its_likes_are_those_of_textbooks(project: Path) -> None:
    lay_out()
    x, y = table(60, 2)
    columns: dict[str, list[Any]] = {"a": x[:, 0].tolist(), "b": x[:, 1].tolist(), "y": y.tolist()}
    settings = {"standardize": True, "batch_size": 60, "epochs": 400, "lr": 0.3}
    found = rerun("minibatch", {f"train.minibatch.{key}": value for key, value in settings.items()}, columns)
    exact = least_squares(x, y)
    assert exact is not None
    residual, X = y - with_ones(x) @ exact.theta, with_ones(x)
    hat = np.diag(X @ np.linalg.solve(X.T @ X, X.T))
    total = np.sum((y - y.mean()) ** 2)
    own, unseen = found["quantity"]["r_squared"], found["quantity"]["r_squared_unseen"]
    assert own["exact"] == pytest.approx(1 - np.sum(residual**2) / total)
    assert own["fitted"] == pytest.approx(own["exact"], abs=1e-6)
    assert unseen["exact"] == pytest.approx(1 - np.sum((residual / (1 - hat)) ** 2) / total)
    assert unseen["exact"] - 0.1 < unseen["fitted"] < own["exact"]
    assert set(found["figure"]) == {"fit", "loss", "residuals"}
    assert f"R² is {own['fitted']:.4g}" in found["figure"]["fit"]["caption"]


def test_drawn_data_have_no_rows_that_are_not_seen(project: Path) -> None:
    lay_out()
    assert not any("unseen" in key or "squared" in key for key in rerun("minibatch", {})["quantity"])


def test_the_pair_of_features_drawn_is_the_one_that_separates_best() -> None:
    random = np.random.default_rng(0)
    label = np.arange(300) % 2
    x = random.normal(size=(300, 5))
    x[:, 1] += label  # somewhat
    x[:, 4] += 3 * label  # well
    x[:, 2] = x[:, 4] + 0.1 * x[:, 2]  # well, but nothing beyond what 4 says
    x[:, 0] = 0.0  # not at all
    names = [f"f{j}" for j in range(5)]
    assert best_pair(Table(x, label.astype(float), names, "label")) == (1, 4)
    assert best_pair(Table(np.zeros((300, 3)), label.astype(float), names[:3], "label")) == (0, 1)
