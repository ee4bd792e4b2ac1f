"""The statistics of the repetitions, and the answers to the questions that the articles leave open."""

from dataclasses import replace

import numpy as np
import pytest

from stages.common.experiments import EXPERIMENTS
from stages.evaluate.answers import noisy, shared
from stages.evaluate.answers.nn import against_theory, answer
from stages.evaluate.checks import stop_check
from stages.evaluate.evidence import Evidence, spelled
from stages.evaluate.goodness import goodness, of_exact
from stages.evaluate.quantities import (
    Interval,
    Quantity,
    central,
    percentile,
    percentile_of_printed,
    predicted_updates,
    quantities,
    spread,
)
from stages.theory import single_rows
from tests.conftest import with_changes
from tests.evidence import committed, with_simulated_nn


def of(e: Evidence, key: str) -> Quantity:
    """A row of the table of results."""
    return {row.key: row for row in quantities(e)}[key]


# --- among the repetitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [("0.5", 45, 56), ("0.50", 50, 51), ("2.0", 100, 100), ("-1", 0, 0), ("0.000", 0, 1), ("0", 0, 51)],
)
def test_the_percentile_of_a_printed_number_covers_its_rounding(printed: str, low: float, high: float) -> None:
    found = percentile_of_printed(np.arange(100) / 100, printed)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_percentile_of_a_value_covers_its_ties() -> None:
    values = np.array([1.0, 2.0, 2.0, 3.0])
    assert percentile(values, 2.0) == Interval(25, 75)
    assert percentile(values, 2.5) == Interval(75, 75)
    assert [str(percentile(values, value)) for value in (2.0, 2.5)] == ["25.0 to 75.0", "75.0"]


@pytest.mark.parametrize(
    ("low", "high", "is_central"), [(0, 0.4, False), (0, 0.5, True), (99.5, 100, True), (99.6, 100, False)]
)
def test_an_interval_is_central_where_it_reaches_into_the_central_99_percent(
    low: float, high: float, is_central: bool
) -> None:
    assert Interval(low, high).is_central is is_central


def test_the_central_99_percent_are_those_of_the_finite_values() -> None:
    assert central(np.array([*np.arange(1001.0), np.nan, np.inf])) == (5.0, 995.0)
    assert central(np.array([np.nan])) == (None, None)


def test_a_spread_is_a_standard_deviation_that_a_few_explosions_leave_as_it_is() -> None:
    values = 3 * np.random.default_rng(0).normal(size=20_000) + 7
    assert spread(values) == pytest.approx(3, rel=0.03)
    assert spread(np.concatenate([values, [1e144, -1e300]])) == pytest.approx(3, rel=0.03)
    assert spread(np.array([5.0])) is None
    assert spread(np.array([])) is None


def test_parameters_of_runs_that_diverged_do_not_widen_the_central_99_percent() -> None:
    """But a fit is placed among all repetitions."""
    e = committed("noisy")
    stopped = np.where(np.arange(1000) < 200, "diverged", "loss")
    w = np.where(stopped == "diverged", 1e300, np.arange(1000))
    row = of(replace(e, repetitions={**e.repetitions, "w": w, "stopped": stopped}), "w")
    assert [row.low, row.high] == pytest.approx([203.995, 995.005])
    assert row.percentile == Interval(0, 0)


# --- of this run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ([2.0, -3.4], "[2, -3.4]"), ({"low": 0.0, "high": 1.0}, "low 0, high 1"), (5, 5)],
)
def test_settings_are_text_where_json_has_none_or_a_list(value: object, text: object) -> None:
    assert spelled(value) == text


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_defaults_are_the_articles_settings_all_of_which_exist(experiment: str) -> None:
    """0.1 and 1e-1, 5 and 5.0 are the same setting."""
    e = committed(experiment)
    assert not e.differs
    theirs = e.published["settings"]
    assert sum("article" in row for row in e.settings.values()) == len(theirs["data"]) + len(theirs["train"])


def test_theory_predicts_the_updates_until_the_stop_or_all_of_them() -> None:
    e = committed("noisy")
    assert predicted_updates(e) == e.metrics["iterations"] == 12
    late = replace(e, metrics={**e.metrics, "iterations": 400})
    assert predicted_updates(late) == 12, "not when the run says so"
    check = stop_check(late)
    assert check is not None
    assert check.found == "400, predicted 12"
    never = with_changes(e.train, stop_below=1e-30, iterations=40)
    assert predicted_updates(replace(e, train=never)) == 40
    assert predicted_updates(committed("logistic")) is None
    assert predicted_updates(replace(e, metrics={**e.metrics, "stopped": "diverged"})) is None


def test_accuracy_is_the_share_of_rows_on_the_right_side() -> None:
    e = committed("logistic")
    table = replace(e.table, features=np.array([[0.0, 1], [0, 2], [0, -1], [0, 3]]), target=np.array([0.0, 0, 1, 1]))
    few = replace(e, table=table)
    boundaries = ([0.0, b] for b in (0.0, 5.0, 2.5))
    found = [goodness(few, few.model.predict(table.features, np.array(theta))) for theta in boundaries]
    assert found == [0.75, 0.5, 0.25]


def test_the_exact_accuracy_is_that_of_the_exact_boundary() -> None:
    e = committed("logistic")
    assert e.exact is not None
    row = of(replace(e, metrics={**e.metrics, "accuracy": 0.5}), "accuracy")
    assert (row.exact, row.fitted) == (of_exact(e), 0.5)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_standard_error_beside_theory_is_that_of_the_runs_in_pairs(noise: float) -> None:
    """From second moments alone as from each run's own prediction."""
    e, steps = committed("nn"), [0, 3, 20, 40]
    scattered = replace(e, data=with_changes(e.data, rows=40, noise=noise), train=with_changes(e.train, lr=0.05))
    simulated, error_at = with_simulated_nn(scattered, 30, steps)
    found = against_theory(simulated)
    traces, added = single_rows.expected_error(single_rows.uniform(0, 1), lr=0.05, steps=steps, noise=noise)
    products = np.einsum("ri,rj->rij", error_at[0], error_at[0]).reshape(30, 4)
    predicted = traces @ products.T + added[:, np.newaxis]  # (steps, repetitions)
    differences = (error_at**2).sum(axis=2) - predicted
    assert found is not None
    np.testing.assert_allclose(found.predicted, predicted.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.difference, differences.mean(axis=1), atol=1e-12)
    expected = differences.std(axis=1, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-6, atol=1e-8)


def test_theory_is_compared_up_to_the_row_that_is_met_again() -> None:
    e = committed("nn")
    steps = against_theory(replace(e, data=with_changes(e.data, rows=1000)))
    assert steps is not None
    assert steps.iteration[-1] == 1000


def test_how_often_single_rows_show_the_published_decimals() -> None:
    e = committed("nn")
    found = answer(e)
    assert found is not None
    share = dict(zip(e.course["iteration"], e.course["share_as_published"], strict=True))
    early, end = found.values["share_early"], found.values["share_at_end"]
    assert (early["value"], end["value"]) == (share[2000], share[5000])
    assert (found.values["early"], found.values["end"]) == (2000, 5000)
    unprinted = {name: values for name, values in e.course.items() if name != "share_as_published"}
    assert answer(replace(e, course=unprinted)) is None


def test_the_answer_about_the_noisy_line_counts_its_repetitions() -> None:
    e = committed("noisy")
    repetitions = {
        "largest_eigenvalue": np.array([10.0, 30.0, 39.0, 41.0]),
        "loss": np.array([0.5, 3.0, 5.0, 1e300]),
        "stopped": np.array(["loss", "loss", "iterations", "diverged"]),
    }
    found = noisy.answer(replace(e, repetitions=repetitions))
    assert found is not None
    assert found.values["limit"] == 4 / 0.1
    expected = {"share_beyond": 0.25, "share_zeroed_stable": 0.25, "share_good": 0.25, "median_stopped": 1.75}
    assert {name: found.values[name]["value"] for name in expected} == expected
    ended = {way: share["value"] for way, share in found.values["share"].items()}
    assert ended == {"loss": 0.5, "iterations": 0.25, "diverged": 0.25}
    lengths = np.linalg.norm(np.diff(e.trail, axis=0), axis=1)
    moved = {"last": lengths[-1], "shortest": lengths.min(), "longest": lengths.max()}
    assert found.values["moved"] == pytest.approx(moved)
    assert found.values["stable_lr"] < 0.1 < found.values["accumulating_lr"]
    assert noisy.answer(replace(e, train=with_changes(e.train, lr=0.05))) is None


def test_where_repetitions_of_the_layer_applied_twice_ended() -> None:
    e = committed("shared")
    w, b = np.array([1.1104, 1.11, -1.0, -1.0, 1.0]), np.array([0.4681, 0.46, -3.0, 3.0, 1.0])
    ended = {"w": w, "b": b, "stopped": np.array([*["iterations"] * 4, "diverged"])}
    assert shared.ended_where(ended).tolist() == ["positive", "positive", "valley", "runaway", "diverged"]
    assert shared.shows_printed(replace(e, repetitions=ended)).tolist() == [True, False, False, False, False]


def test_the_layer_applied_twice_is_thrown_out_of_its_other_solution() -> None:
    e = committed("shared")
    found = shared.answer(e)
    assert found is not None
    values, negative = found.values, found.values["solutions"]["negative"]
    assert sum(share["value"] for share in values["share"].values()) == pytest.approx(1)
    assert values["stable_lr"] < negative["stable_lr_single_rows"] < values["full_batch_lr"] < e.train.lr
    assert values["held_distance"] < 1e-5 < values["end_distance"]
    low, high = values["end_eigenvalue_low"], values["end_eigenvalue_high"]
    assert values["edge"] - 0.5 < low < values["edge"] < high < values["edge"] + 0.5
    assert values["solutions"]["positive"]["growth"] < 1 < negative["growth"]
    growth = values["typical_growth"]
    assert 0 < growth["value"] < np.log(negative["growth"]) / 2, "less than that of the root of the mean square"
    assert shared.answer(replace(e, train=with_changes(e.train, lr=0.02))) is None
