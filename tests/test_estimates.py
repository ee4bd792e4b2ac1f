"""The standard errors of what repetitions estimate are those that repeating the repetitions shows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stages.evaluate.answers import logistic
from stages.evaluate.estimates import Estimate, mean, median, share
from stages.evaluate.second_run import updates_to_stop
from stages.theory.bowl import Curvature
from stages.theory.single_rows import typical_growth
from tests.conftest import run_fit, with_changes
from tests.evidence import Array, committed


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (lambda values: share(np.mean(values < 0.3), len(values)), 0.3),
        (median, 0.5),
        (mean, 0.5),
    ],
    ids=["share", "median", "mean"],
)
def test_the_truth_lies_within_two_standard_errors_in_95_of_100(
    estimate: Callable[[Array], Estimate], truth: float
) -> None:
    found = [estimate(values) for values in np.random.default_rng(0).random((1000, 400))]
    near = [abs(one["value"] - truth) <= 2 * one["standard_error"] for one in found]
    assert np.mean(near) == pytest.approx(0.954, abs=0.035)


def test_a_share_of_none_is_not_certain() -> None:
    assert share(0.0, 1000) == {"value": 0.0, "standard_error": pytest.approx(0.001, rel=0.01)}


def test_a_run_of_the_mean_map_grows_by_its_eigenvalue() -> None:
    """Where all rows are the same, a step multiplies the error along g by 1 - 2 lr |g|^2."""
    gradients = np.tile([3.0, 0.0], (300, 1))
    np.testing.assert_allclose(typical_growth(gradients, 0.2), np.log(2 * 0.2 * 9 - 1))


@pytest.mark.parametrize("lr", [0.01, 0.4, 0.9])
def test_an_error_is_a_factor_e_smaller_after_an_e_fold(lr: float) -> None:
    curvature = Curvature(np.array([0.3, 2.0]))
    for place, eigenvalue in ((0, 0.3), (-1, 2.0)):
        updates = curvature.e_fold(lr=lr, place=place)
        assert abs(1 - lr * eigenvalue) ** updates == pytest.approx(np.exp(-1))
    assert curvature.e_fold(lr=0.5, place=-1) == 0, "at once"


def test_the_updates_to_the_stop_with_zeroed_gradients_are_those_of_the_fit() -> None:
    e = committed("logistic")
    found = logistic.answer(e)
    assert found is not None
    zeroed = with_changes(e.train, zero_grad=True, iterations=5000)
    fit = run_fit("logistic", e.table, zero_grad=True, iterations=5000)
    assert found.values["zeroed_updates"] == fit.metrics()["iterations"] > found.values["allowed"] == 1000
    assert updates_to_stop(replace(e, train=zeroed), 1000) is None
