"""What the fit wrote down is held against the data: every right fit passes, and a number that was changed is seen."""

import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.experiments import EXPERIMENTS
from stages.common.files import significant
from stages.evaluate.checks import Check, Verdict, course_check, stop_check
from stages.evaluate.draws import TorchGenerator
from stages.evaluate.evidence import Evidence
from stages.evaluate.record import accuracy_check, ends_check, losses_check, parameters_check, record_checks
from stages.evaluate.second_run import SecondRun, second_run
from stages.train import logistic
from stages.train.start import as_tensors
from tests.conftest import with_changes
from tests.evidence import committed, lay_out, with_fit
from tests.random_runs import RandomRun, random_run

Array = np.ndarray
EVERY = pytest.mark.parametrize("name", EXPERIMENTS)


# --- the random numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1024, 2**31 + 5, 2**40 + 3])
@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 40])
def test_the_generator_is_that_of_torch(seed: int, count: int) -> None:
    """All kinds of numbers, one after the other."""
    theirs, ours = torch.Generator().manual_seed(seed), TorchGenerator(seed)
    assert ours.rand(count).tolist() == torch.rand(count, generator=theirs, dtype=torch.float64).tolist()
    normal = torch.randn(count, generator=theirs, dtype=torch.float64).numpy()
    np.testing.assert_allclose(ours.randn(count), normal, rtol=1e-14)
    for rows in (1, 2, 50 * count):
        assert ours.randperm(rows).tolist() == torch.randperm(rows, generator=theirs).tolist()


# --- right fits ------------------------------------------------------------------------------------------------------


def failures(e: Evidence) -> list[Check]:
    """The checks of the record and of the course that a run fails."""
    checks = [*record_checks(e, second_run(e)), course_check(e), stop_check(e)]
    return [check for check in checks if check is not None and check.verdict == Verdict.FAILED]


@EVERY
def test_the_committed_runs_pass_to_their_ends(name: str) -> None:
    e = committed(name)
    assert failures(e) == []
    assert parameters_check(e, second_run(e)).found == "to the end"


def fitted(e: Evidence) -> Evidence:
    """The same after a fit to its data with its settings, as the files give it back."""
    features, target = as_tensors(e.table)
    module = import_module(f"stages.train.{e.experiment.name}")
    drawn = () if module is logistic else (torch.Generator().manual_seed(e.train.model_dump()["seed"]),)
    found = module.fit(features, target, e.train, *drawn)
    more = (
        {"accuracy": logistic.accuracy(found, features, target, e.train.model_dump()["form"])}
        if module is logistic
        else {}
    )
    e = with_fit(replace(e, metrics={}), found)
    history = {key: np.array([significant(value) for value in values.tolist()]) for key, values in e.history.items()}
    return replace(e, history=history, metrics=written({**e.metrics, **more}))


def written(content: Any) -> Any:
    """Nested values as a file of metrics gives them back."""
    if isinstance(content, dict):
        return {key: written(value) for key, value in content.items()}
    return significant(content) if isinstance(content, float) else content


def in_memory(run: RandomRun) -> Evidence:
    e = replace(committed(run.experiment), table=run.table)
    return fitted(replace(e, train=with_changes(e.train, **run.settings)))


@pytest.mark.parametrize(
    "seeds", [range(150), pytest.param(range(150, 10_000), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_no_check_fails_where_the_fit_did_what_its_settings_say(seeds: range) -> None:
    assert {seed: found for seed in seeds if (found := failures(in_memory(random_run(seed))))} == {}


@pytest.mark.slow
def test_no_check_fails_in_a_report_of_such_runs(project: Path) -> None:
    lay_out()
    wrong = {}
    for seed in range(300):
        checks = random_run(seed).evaluation()["check"]
        wrong[seed] = {key: check for key, check in checks.items() if check["verdict"] == "failed" and key != "end"}
    assert {seed: found for seed, found in wrong.items() if found} == {}


# --- wrong numbers ---------------------------------------------------------------------------------------------------


def is_seen(e: Evidence, run: SecondRun | None) -> bool:
    """Whether a check fails; the quick ones first."""
    if Verdict.FAILED in (ends_check(e).verdict, losses_check(e, run).verdict):
        return True
    of_classes = [accuracy_check(e)] if e.table.has_classes else []
    return Verdict.FAILED in (parameters_check(e, run).verdict, *(check.verdict for check in of_classes))


def off(value: float, random: np.random.Generator) -> float:
    """A thousandth more or less; a count is one more, a 0 a thousandth."""
    if isinstance(value, int):
        return value + 1
    return value * (1 + 1e-3 * random.choice([-1, 1])) if value else 1e-3


def wrong_metrics(e: Evidence, random: np.random.Generator) -> Iterator[tuple[str, Evidence]]:
    """Each number of the metrics in turn."""
    for name, value in e.metrics.items():
        if isinstance(value, dict):
            for key, number in value.items():
                changed = {**e.metrics, name: {**value, key: off(number, random)}}
                yield f"{name}.{key}", replace(e, metrics=changed)
        elif not isinstance(value, str):
            yield name, replace(e, metrics={**e.metrics, name: off(value, random)})
    for ended in {"iterations", "loss", "diverged"} - {e.metrics["stopped"]}:
        yield ended, replace(e, metrics={**e.metrics, "stopped": ended})


def wrong_history(e: Evidence, random: np.random.Generator, count: int) -> Iterator[tuple[str, Evidence]]:
    """So many cells of the history in turn.

    But for losses of which a thousandth is not above what they are rounded to, 1e-16 of the target's mean square.
    """
    told = 1e-12 * np.mean(e.table.target**2)
    cells = [(k, row) for k, v in e.history.items() for row in range(len(v)) if k != "loss" or v[row] > told]
    for name, row in (cells[place] for place in random.permutation(len(cells))[:count]):
        column = e.history[name].copy()
        column[row] = off(int(column[row]) if name in ("iteration", "epoch") else column[row], random)
        yield f"{name} {row}", replace(e, history={**e.history, name: column})


def wrong_data(e: Evidence, random: np.random.Generator, count: int) -> Iterator[tuple[str, Evidence]]:
    """So many cells of the data in turn; a label becomes the other one."""
    rows, features = e.table.features.shape
    for place in random.permutation(rows * (features + 1))[:count]:
        row, column = divmod(int(place), features + 1)
        x, y = e.table.features.copy(), e.table.target.copy()
        if column < features:
            x[row, column] = off(x[row, column], random)
        else:
            y[row] = 1 - y[row] if e.table.has_classes else off(y[row], random)
        yield f"row {row}, column {column}", replace(e, table=replace(e.table, features=x, target=y))


@EVERY
@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.slow)])
def test_a_number_that_is_off_by_a_thousandth_is_seen(name: str, count: int) -> None:
    """In metrics, history and data, one at a time."""
    e, random = committed(name), np.random.default_rng(count)
    run = second_run(e)
    wrong_records = [*wrong_metrics(e, random), *wrong_history(e, random, count)]
    unseen = [place for place, wrong in wrong_records if not is_seen(wrong, run)]
    unseen += [place for place, wrong in wrong_data(e, random, count) if not is_seen(wrong, second_run(wrong))]
    assert unseen == []


@EVERY
def test_a_wrong_fit_that_agrees_with_itself_is_seen(name: str) -> None:
    """All parameters 1000 too large, and the losses those of the data there; and a run with another learning rate."""
    e = committed(name)
    history = {key: values + 1000 if key in e.names else values for key, values in e.history.items()}
    trail = np.column_stack([history[key] for key in e.names])
    rounding = np.zeros(len(e.names))
    losses = [e.model.mean_loss(e.table.features, e.table.target, theta, rounding=rounding, eps=0) for theta in trail]
    history["loss"] = np.array([significant(loss.value) for loss in losses])
    ends = {"initial": trail[0], "fitted": trail[-1]}
    metrics = {**e.metrics, **{key: dict(zip(e.names, theta.tolist(), strict=True)) for key, theta in ends.items()}}
    metrics |= {"loss": history["loss"][-1], "log10_loss": round(math.log10(history["loss"][-1]), 3)}
    assert "parameters" in [check.key for check in failures(replace(e, history=history, metrics=metrics))]
    faster = fitted(replace(e, train=with_changes(e.train, lr=1.001 * e.train.lr)))
    assert "parameters" in [check.key for check in failures(replace(faster, train=e.train))]
