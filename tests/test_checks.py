"""The checks can fail: each kind of mistake turns at least one of them red, and the defaults turn none."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stages.common.checks import Check, Verdict, checks_of, count, errors, quantities
from stages.common.evidence import EXPERIMENTS, Evidence, gather
from stages.common.files import Table
from stages.common.params import Data, Params, Train, load_group
from stages.common.recording import Fit
from stages.common.repetition import fresh_linear_sets
from stages.generate_data import MODELS, draw
from stages.replicate import nn
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed results, with the data drawn again."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("params.yaml", "data/published.yaml", "reports"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, model in MODELS.items():
            frame = draw(load_group(f"data.{name}", model))
            frame.to_csv(f"data/{name}.csv", index=False, float_format="%.10g")
    return folder


@pytest.fixture
def evidence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Evidence]:
    """The evidence of an experiment with the default settings."""
    monkeypatch.chdir(folder)
    data, train = load_group("data", Data), load_group("train", Train)
    return lambda experiment: gather(experiment, data, train)


def failed(e: Evidence) -> list[Check]:
    return [check for check in checks_of(e) if check.verdict is Verdict.FAILED]


def with_fit(e: Evidence, fit: Fit) -> Evidence:
    return replace(e, history=fit.history, metrics={**e.metrics, **fit.metrics()})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_checks_hold_by_default(evidence: Callable[[str], Evidence], experiment: str) -> None:
    checks = checks_of(evidence(experiment))
    assert checks
    assert {check.verdict for check in checks} == {Verdict.HELD}, [check for check in checks if check.verdict != "held"]


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
def test_the_fit_itself_passes(evidence: Callable[[str], Evidence], fit: Callable[..., Fit], experiment: str) -> None:
    """What the tests below spoil holds when it is not spoilt."""
    e = evidence(experiment)
    assert not failed(with_fit(e, fit(experiment, e.table)))


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
def test_wrong_sign_of_the_gradient(evidence: Callable[[str], Evidence], experiment: str) -> None:
    """An update that adds the gradient is one with a negative learning rate."""
    e = evidence(experiment)
    wrong = run_with(e, lr=-e.train.lr, stop_below=None, iterations=20)
    assert failed(with_fit(e, wrong))


def run_with(e: Evidence, **changes: object) -> Fit:
    """The experiment's fit with settings that the schema might refuse."""
    settings = e.train.model_copy(update=changes)
    module = import_module(f"stages.train_{e.experiment}")
    generator = torch.Generator().manual_seed(10)
    fit: Fit = module.fit(torch.tensor(e.features), torch.tensor(e.target), settings, generator)
    return fit


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
def test_a_factor_2_in_the_loss(evidence: Callable[[str], Evidence], experiment: str) -> None:
    """A loss twice as large has gradients twice as large."""
    e = evidence(experiment)
    wrong = run_with(e, lr=2 * e.train.lr, stop_below=None, iterations=13)
    assert failed(with_fit(e, replace(wrong, history=wrong.history.assign(loss=2 * wrong.history["loss"]))))


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
def test_gradients_zeroed_or_not(evidence: Callable[[str], Evidence], experiment: str) -> None:
    e = evidence(experiment)
    assert failed(with_fit(e, run_with(e, zero_grad=not e.train.zero_grad)))


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
@pytest.mark.parametrize("shift", [-1, 1])
def test_off_by_one_in_the_recorded_iteration(evidence: Callable[[str], Evidence], experiment: str, shift: int) -> None:
    e = evidence(experiment)
    history = e.history.iloc[1:].assign(iteration=e.history["iteration"] + shift)
    assert failed(replace(e, history=pd.concat([e.history.iloc[:1], history])))


def test_a_stop_one_update_early(evidence: Callable[[str], Evidence]) -> None:
    """A loop that ends before the update of the iteration that met the stop."""
    e = evidence("noisy")
    early = e.history.iloc[:-1]
    assert failed(replace(e, history=early, metrics={**e.metrics, "iterations": e.metrics["iterations"] - 1}))


@pytest.mark.parametrize(
    ("experiment", "path", "printed"),
    [
        ("manual", ("losses", 300), "0.2780"),
        ("manual", ("losses", 2700), "0.0130"),
        ("minibatch", ("losses", 100), "0.138065"),
        ("minibatch", ("losses", 300), "0.000060"),
        ("minibatch", ("fitted", "w1"), "2.0096"),
        ("minibatch", ("fitted", "b"), "4.2197"),
        ("nn", ("fitted", "w"), "1.234"),
        ("shared", ("fitted", "b"), "0.469"),
    ],
)
def test_a_shifted_published_number(
    evidence: Callable[[str], Evidence], experiment: str, path: tuple[str, Any], printed: str
) -> None:
    """With the percentile that the repetitions then give it."""
    e = evidence(experiment)
    published, replicates = deepcopy(e.published), deepcopy(e.replicates)
    published[path[0]][path[1]] = printed
    kind = {"losses": "loss", "fitted": "fitted"}[path[0]]
    spreads = replicates.get("published_start", replicates.get("published", {})).get(kind, {})
    if str(path[1]) in spreads:
        spread = spreads[str(path[1])]
        outside = 100.0 if float(printed) > spread["high"] else 0.0 if float(printed) < spread["low"] else 50.0
        spread |= {"percentile_low": outside, "percentile_high": outside}
    assert failed(replace(e, published=published, replicates=replicates))


def test_a_shifted_printed_row(evidence: Callable[[str], Evidence]) -> None:
    e = evidence("minibatch")
    published = deepcopy(e.published)
    published["rows"][4][2] = "2.2282"
    assert failed(replace(e, published=published))


@pytest.mark.parametrize("spoilt", ["lr", "x"])
def test_repetitions_that_differ_from_theory(evidence: Callable[[str], Evidence], params: Params, spoilt: str) -> None:
    """A gradient that lacks its factor 2, or an x drawn from a slightly other distribution."""
    e = evidence("nn")
    data, settings = params.data.stream, params.train.nn.model_copy(update={"iterations": 400})
    used = settings.model_copy(update={"lr": settings.lr / 2}) if spoilt == "lr" else settings
    drawn = data if spoilt == "lr" else data.model_copy(update={"x": data.x.model_copy(update={"high": 1.05})})
    generator, steps = np.random.default_rng(0), range(0, 401, 20)
    features, target = fresh_linear_sets(drawn, None, 500, generator)
    runs = nn.descend(features, target, generator.uniform(-1, 1, (500, 2)), used, steps)
    table = pd.DataFrame({"iteration": steps}).join(nn.against_theory(runs, steps, data, settings))
    assert failed(replace(e, repetitions=table))


def test_what_no_longer_applies_says_so(evidence: Callable[[str], Evidence]) -> None:
    few = evidence("minibatch")
    few = replace(few, replicates={**few.replicates, "count": 399})
    assert {c.verdict for c in checks_of(few) if "repetitions" in c.statement} == {Verdict.NOT_APPLICABLE}
    other_seed = evidence("nn")
    other_seed = replace(other_seed, train=other_seed.train.model_copy(update={"seed": 5}))
    assert {c.verdict for c in checks_of(other_seed) if "decimals" in c.statement} == {Verdict.NOT_APPLICABLE}
    float32 = evidence("manual")
    float32 = replace(float32, train=float32.train.model_copy(update={"dtype": "float32"}))
    assert {c.verdict for c in checks_of(float32) if "theory" in c.statement} == {Verdict.NOT_APPLICABLE}
    departed = evidence("shared")
    departed = replace(departed, train=departed.train.model_copy(update={"lr": 0.02}))
    assert not any(row.published for row in quantities(departed))


def test_counts_and_errors(evidence: Callable[[str], Evidence]) -> None:
    checks = [Check("", Verdict.HELD, ""), Check("", Verdict.HELD, ""), Check("", Verdict.NOT_APPLICABLE, "")]
    assert count(checks) == {"held": 2, "failed": 0, "not_applicable": 1}
    manual = errors(evidence("manual"))
    assert set(manual) == {"truth", "exact", "theory"}
    assert manual["theory"] < 1e-9 < manual["truth"]
    assert set(errors(evidence("minibatch"))) == {"truth", "exact", "publication"}


def test_own_data_have_no_truth_but_an_exact_solution(
    evidence: Callable[[str], Evidence], fit: Callable[..., Fit]
) -> None:
    """Norris: the fit meets the exact solution, and theory predicts its course as well."""
    frame = pd.read_csv(ROOT / "data/raw/norris.csv")
    table = Table(frame[["x"]], frame["y"])
    e = evidence("manual")
    e = replace(
        e,
        data=e.data.model_copy(update={"file": "data/raw/norris.csv"}),
        train=e.train.model_copy(update={"standardize": True}),
        table=table,
    )
    e = with_fit(e, fit("manual", table, standardize=True))
    assert not failed(e)
    assert set(errors(e)) == {"exact", "theory"}
    assert errors(e)["exact"] < 1e-9
