"""The checks can fail: each kind of mistake turns at least one of them red, and the committed runs turn none."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_json
from stages.common.tables import read_linear_set
from stages.evaluate.__main__ import all_checks
from stages.evaluate.answers import ANSWERS, CHECKS
from stages.evaluate.checks import Check, Verdict, errors
from stages.evaluate.evidence import Evidence
from stages.evaluate.figures import Answer
from stages.evaluate.publication import explaining_moments, moments_percentile
from stages.evaluate.quantities import quantities
from stages.evaluate.second_run import second_run
from stages.theory.bowl import Bowl
from stages.train.recorder import Fit
from stages.train.start import as_tensors
from tests.conftest import ROOT, run_fit, with_changes
from tests.evidence import committed, with_fit, with_simulated_nn

FULL_BATCH = ["manual", "noisy"]


def judged(e: Evidence) -> list[Check]:
    """All but those of an answer's values."""
    return all_checks(e, quantities(e), None, second_run(e))


def failed(e: Evidence) -> list[str]:
    return [check.key for check in judged(e) if check.verdict is Verdict.FAILED]


def unchecked(e: Evidence, **changes: object) -> Fit:
    """The experiment's fit with settings that the schema might refuse."""
    settings = e.train.model_copy(update=changes)
    fit = import_module(f"stages.train.{e.experiment.name}").fit
    found = fit(*as_tensors(e.table), settings, torch.Generator().manual_seed(10))
    assert isinstance(found, Fit)
    return found


def twice_the_loss(e: Evidence) -> Evidence:
    """A factor 2 in the loss: gradients are twice as large as well."""
    e = with_fit(e, unchecked(e, lr=2 * e.train.lr, stop_below=None, iterations=13))
    return replace(e, history={**e.history, "loss": 2 * e.history["loss"]})


def recorded_off_by(shift: int) -> Callable[[Evidence], Evidence]:
    def spoil(e: Evidence) -> Evidence:
        iteration = e.history["iteration"]
        return replace(e, history={**e.history, "iteration": np.array([iteration[0], *(iteration[1:] + shift)])})

    return spoil


# --- what turns red --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_checks_of_the_committed_runs_hold(experiment: str) -> None:
    e = committed(experiment)
    found = all_checks(e, quantities(e), ANSWERS[experiment](e) if experiment in ANSWERS else None, second_run(e))
    assert [check for check in found if check.verdict is not Verdict.HELD] == []


@pytest.mark.parametrize("experiment", FULL_BATCH)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: with_fit(e, unchecked(e, lr=-e.train.lr, stop_below=None, iterations=20)),
        lambda e: with_fit(e, unchecked(e, zero_grad=not e.train.zero_grad)),
        twice_the_loss,
        recorded_off_by(1),
        recorded_off_by(-1),
    ],
    ids=["wrong sign of the gradient", "gradients zeroed or not", "a factor 2 in the loss", "late", "early"],
)
def test_a_spoilt_run_fails(experiment: str, spoil: Callable[[Evidence], Evidence]) -> None:
    e = committed(experiment)
    assert failed(with_fit(e, run_fit(experiment, e.table))) == [], "it holds when it is not spoilt"
    assert "course" in failed(spoil(e))


def test_a_stop_one_update_early_fails() -> None:
    """A loop that ends before the update of the iteration that met the stop."""
    e = committed("noisy")
    early = {name: values[:-1] for name, values in e.history.items()}
    assert "stop" in failed(replace(e, history=early, metrics={**e.metrics, "iterations": e.metrics["iterations"] - 1}))


@pytest.mark.parametrize(
    ("experiment", "path", "printed", "key"),
    [
        ("manual", ("losses", 300), "0.2780", "loss_300"),
        ("manual", ("losses", 2700), "0.0130", "loss_2700"),
        ("manual", ("losses", 600), "0.0960", "printed_losses"),
        ("manual", ("losses", 1500), "0.0151", "printed_losses"),
        ("minibatch", ("losses", 300), "0.000060", "printed_fit"),
        ("minibatch", ("losses", 100), "0.138065", "loss_100"),
        ("minibatch", ("losses", 300), "0.000060", "loss_300"),
        ("minibatch", ("fitted", "w1"), "2.0096", "w1"),
        ("minibatch", ("fitted", "b"), "4.2197", "b"),
        ("minibatch", ("rows", 4), ["0.5905", "0.9588", "2.2282"], "printed_rows"),
        ("nn", ("fitted", "w"), "1.234", "w"),
        ("shared", ("fitted", "b"), "0.469", "b"),
    ],
)
def test_a_shifted_published_number_fails(experiment: str, path: tuple[str, Any], printed: object, key: str) -> None:
    e = committed(experiment)
    published = deepcopy(e.published)
    published[path[0]][path[1]] = printed
    assert key in failed(replace(e, published=published))


def test_the_moments_that_explain_printed_losses_are_those_of_the_data() -> None:
    """Of data drawn, descended and printed with four decimals; and half of all data lie below percentile 50."""
    e = committed("manual")
    published, random = deepcopy(e.published), np.random.default_rng(0)
    data, start = published["settings"]["data"], np.array([0.01, 0.47])
    x = random.random((2000, data["rows"]))
    percentiles = [moments_percentile(float(row.mean()), float(row.var()), data) for row in x]
    assert np.quantile(percentiles, [0.1, 0.5, 0.9]) == pytest.approx([10, 50, 90], abs=4)
    for row in x[:5]:
        bowl = Bowl(row[:, np.newaxis], 3 * row + 0.8, factor=2, standardize=False)
        course = bowl.course(start, np.array(list(published["losses"])), lr=0.01, accumulate=False)
        assert course is not None
        published["losses"] = {k: f"{loss:.4f}" for k, loss in zip(published["losses"], course.loss, strict=True)}
        moments, missed = explaining_moments(replace(e, published=published), lr=0.01)
        assert moments == pytest.approx((row.mean(), row.var()), abs=2e-4)
        assert missed < 1.5, "least squares, which is near the smallest largest miss"


@pytest.mark.parametrize(("spoilt", "keys"), [({}, []), ({"lr": 0.005}, ["moments"]), ({"high": 1.05}, ["moments"])])
def test_repetitions_that_differ_from_theory_fail(spoilt: dict[str, float], keys: list[str]) -> None:
    """A gradient that lacks its factor 2, or an x drawn from a slightly other distribution."""
    e, _ = with_simulated_nn(committed("nn"), 500, range(0, 401, 20), **spoilt)
    assert failed(e) == keys


def test_a_repetition_that_diverges_within_theory_s_limit_fails() -> None:
    e = committed("noisy")
    eigenvalue, stopped = e.repetitions["largest_eigenvalue"], e.repetitions["stopped"].copy()
    assert "limit" not in failed(e)
    stopped[np.argmax(np.where(eigenvalue < 4 / e.train.lr, eigenvalue, 0))] = "diverged"
    assert "limit" in failed(replace(e, repetitions={**e.repetitions, "stopped": stopped}))
    assert "limit" in failed(replace(e, train=with_changes(e.train, zero_grad=False, lr=0.09)))


@pytest.mark.parametrize(
    "wrong", [{"held_distance": 0.002}, {"end_distance": 0.0005}, {"nearest": 1e-4}, {"end_eigenvalue_high": 199.0}]
)
def test_an_answer_that_descent_contradicts_fails(wrong: dict[str, float]) -> None:
    e = committed("shared")
    right = Answer(read_json(ROOT / "reports/evaluation/shared.json")["answer"], figures={})
    assert CHECKS["shared"](e, right).verdict is Verdict.HELD
    assert CHECKS["shared"](e, replace(right, values={**right.values, **wrong})).verdict is Verdict.FAILED


# --- what does not apply ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "changes", "keys"),
    [
        ("nn", {"seed": 5}, ["w", "b"]),
        ("manual", {"dtype": "float32"}, ["course", "parameters"]),
        ("noisy", {"dtype": "float32"}, ["course", "stop", "parameters"]),
        ("nn", {"zero_grad": False}, ["moments"]),
        ("nn", {"standardize": True}, ["moments"]),
    ],
)
def test_what_no_longer_applies_says_so(experiment: str, changes: dict[str, object], keys: list[str]) -> None:
    e = committed(experiment)
    e = replace(e, train=with_changes(e.train, **changes))
    assert [check.key for check in judged(e) if check.verdict is Verdict.NOT_APPLICABLE] == keys


def test_too_few_repetitions_are_not_judged() -> None:
    for experiment, keys in (("minibatch", {"w1", "w2", "b", "loss_100", "loss_200", "loss_300"}), ("nn", {"moments"})):
        e = committed(experiment)
        few = replace(e, repetitions={name: values[:399] for name, values in e.repetitions.items()})
        found = {check.key: check.found for check in judged(few) if check.verdict is Verdict.NOT_APPLICABLE}
        assert found == dict.fromkeys(keys, "399 repetitions, fewer than 400")


def test_a_run_that_departs_from_the_article_is_not_held_against_its_numbers() -> None:
    e = committed("shared")
    departed = replace(e, train=with_changes(e.train, lr=0.02))
    assert not [row for row in quantities(departed) if row.published]
    assert "publication" not in errors(departed, quantities(departed))
    assert "moments" not in {check.key for check in judged(e)}, "of a line only"


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_are_the_largest_of_a_parameter_against_what_is_known() -> None:
    for experiment, against in (
        ("manual", {"truth", "exact", "theory"}),
        ("minibatch", {"truth", "exact", "publication"}),
        ("logistic", {"truth", "exact"}),
    ):
        e = committed(experiment)
        found = errors(e, quantities(e))
        assert set(found) == against
        assert e.true is not None
        assert found["truth"] == np.abs(e.theta - e.true).max()
    assert found["truth"] != found["exact"]
    assert errors(committed("manual"), quantities(committed("manual")))["theory"] < 1e-9


def test_own_data_have_no_truth_but_an_exact_solution() -> None:
    """Norris: the fit meets the exact solution, and theory predicts its course as well."""
    table = read_linear_set(ROOT / "data/raw/norris.csv")
    e = committed("manual")
    own, train = e.data.model_copy(update={"file": "norris.csv"}), with_changes(e.train, standardize=True)
    e = with_fit(replace(e, data=own, train=train, table=table), run_fit("manual", table, standardize=True))
    found = errors(e, quantities(e))
    assert failed(e) == []
    assert set(found) == {"exact", "theory"}
    assert found["exact"] < 1e-9
