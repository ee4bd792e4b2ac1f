"""The repetitions: an independent second implementation of all six fits, and what they report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from stages.common import theory
from stages.common.files import Table
from stages.common.params import Params, Replicate
from stages.common.recording import Fit
from stages.common.repetition import (
    CHUNK,
    Quadratic,
    Runs,
    chunks,
    fresh_linear_sets,
    percentiles_of_printed,
    prints_as,
)
from stages.replicate import logistic, manual, minibatch, nn, noisy, shared
from stages.train_minibatch import shuffled_batches

SEEDS = range(4)


def as_repetition(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """A table as one repetition: features (rows, 1, features), target (rows, 1)."""
    return table.features.to_numpy()[:, np.newaxis], table.target.to_numpy()[:, np.newaxis]


def start_of(fit: Fit, table: Table, *, standardize: bool = False) -> np.ndarray:
    """The start that a fit recorded, (1, parameters), in the units in which the fit was made."""
    *w, b = fit.history.iloc[0].loc["loss":].iloc[1:]
    if not standardize:
        return np.array([[*w, b]])
    mean, sd = table.features.mean().to_numpy(), table.features.std(ddof=0).to_numpy()
    return np.array([[*(w * sd), b + np.dot(w, mean)]])


def assert_same_course(runs: Runs, fit: Fit, record: list[int]) -> None:
    """Every recorded loss and parameter to 1e-9 of its column's largest magnitude, and the same end."""
    history = fit.history.set_index("iteration")
    at = history.loc[[k for k in record if k in history.index]]
    places = [place for place, k in enumerate(record) if k in history.index]
    assert len(at) > 1
    pairs = [
        ("loss", runs.loss_at[places, 0]),
        *zip(at.columns[-runs.theta.shape[1] :], runs.theta_at[places, 0].T, strict=True),
    ]
    for name, values in pairs:
        np.testing.assert_allclose(values, at[name], rtol=0, atol=1e-9 * history[name].abs().max(), err_msg=name)
    assert runs.iterations[0] == history.index[-1]
    assert runs.stopped[0] == fit.stopped
    np.testing.assert_allclose(
        runs.theta[0], list(fit.parameters().values()), rtol=0, atol=1e-9 * np.abs(runs.theta).max()
    )


def stable_lr(table: Table, factor: float, *, standardize: bool, accumulate: bool, share: float) -> float:
    features = table.features.to_numpy()
    if standardize:
        features = (features - features.mean(0)) / features.std(0)
    c = theory.curvature(theory.hessian(features, factor))
    return share * (c.accumulating_lr if accumulate else c.stable_lr)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("zero_grad", [False, True])
@pytest.mark.parametrize("experiment", ["manual", "noisy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_full_batch_fits(
    params: Params,
    changed: Callable[..., Any],
    drawn: Callable[..., Table],
    fit: Callable[..., Fit],
    experiment: str,
    seed: int,
    zero_grad: bool,
    standardize: bool,
) -> None:
    generator = np.random.default_rng(seed)
    table = drawn("line" if experiment == "manual" else "noisy_line", seed=seed)
    factor, module = (2, manual) if experiment == "manual" else (1, noisy)
    lr = stable_lr(table, factor, standardize=standardize, accumulate=not zero_grad, share=generator.uniform(0.1, 0.9))
    changes = {
        "lr": lr,
        "zero_grad": zero_grad,
        "standardize": standardize,
        "seed": seed,
        "stop_below": None,
        "iterations": 200,
        "log_every": 5,
    }
    trained = fit(experiment, table, **changes)
    settings = changed(getattr(params.train, experiment), **changes)
    record = list(range(0, 201, 5))
    runs = module.descend(*as_repetition(table), start_of(trained, table, standardize=standardize), settings, record)
    assert_same_course(runs, trained, record)


@pytest.mark.parametrize("zero_grad", [False, True])
@pytest.mark.parametrize("batch_size", [7, 10, 50])
@pytest.mark.parametrize("seed", SEEDS)
def test_minibatch(
    params: Params,
    changed: Callable[..., Any],
    drawn: Callable[..., Table],
    fit: Callable[..., Fit],
    seed: int,
    batch_size: int,
    zero_grad: bool,
) -> None:
    table = drawn("plane", seed=seed, rows=50)
    lr = np.random.default_rng(seed).uniform(0.005, 0.03)
    changes = {"lr": lr, "batch_size": batch_size, "seed": seed, "epochs": 6, "zero_grad": zero_grad}
    trained = fit("minibatch", table, **changes)
    generator = torch.Generator().manual_seed(seed)
    torch.randn((2, 1), generator=generator, dtype=torch.float64)  # the start, drawn before the shuffles
    batches = shuffled_batches(50, batch_size, generator)
    per_epoch = -(-50 // batch_size)
    orders = [torch.cat([next(batches) for _ in range(per_epoch)]).numpy()[:, np.newaxis] for _ in range(6)]
    record = [epoch * per_epoch for epoch in range(7)]
    settings = changed(params.train.minibatch, **changes)
    runs = minibatch.descend(*as_repetition(table), start_of(trained, table), orders, settings, record)
    assert_same_course(runs, trained, record)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_nn(
    params: Params,
    changed: Callable[..., Any],
    drawn: Callable[..., Table],
    fit: Callable[..., Fit],
    seed: int,
    standardize: bool,
    features: int,
) -> None:
    table = drawn("stream", seed=seed, rows=90, weights=[1.2, -0.4, 2.0][:features], noise=0.1)
    changes = {"lr": np.random.default_rng(seed).uniform(0.01, 0.05), "standardize": standardize, "seed": seed}
    changes |= {"iterations": 300, "log_every": 30}
    trained = fit("nn", table, **changes)
    record = list(range(0, 301, 30))
    settings = changed(params.train.nn, **changes)
    runs = nn.descend(*as_repetition(table), start_of(trained, table, standardize=standardize), settings, record)
    assert_same_course(runs, trained, record)


@pytest.mark.parametrize("zero_grad", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_shared(
    params: Params,
    changed: Callable[..., Any],
    drawn: Callable[..., Table],
    fit: Callable[..., Fit],
    seed: int,
    zero_grad: bool,
) -> None:
    table = drawn("stream", seed=seed, rows=200)
    changes = {"lr": 0.01 if zero_grad else 0.001, "zero_grad": zero_grad, "seed": seed}
    changes |= {"iterations": 300, "log_every": 30}
    trained = fit("shared", table, **changes)
    record = list(range(0, 301, 30))
    settings = changed(params.train.shared, **changes)
    assert_same_course(
        shared.descend(*as_repetition(table), start_of(trained, table), settings, record), trained, record
    )


@pytest.mark.parametrize("zero_grad", [False, True])
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize(("form", "standardize"), [("slope-intercept", False), ("general", False), ("general", True)])
def test_logistic(
    params: Params,
    changed: Callable[..., Any],
    drawn: Callable[..., Table],
    fit: Callable[..., Fit],
    form: str,
    standardize: bool,
    loss: str,
    zero_grad: bool,
) -> None:
    table = drawn("clusters", seed=3, std=2.0)
    changes = {"form": form, "loss": loss, "standardize": standardize, "zero_grad": zero_grad}
    changes |= {"lr": 0.05 if zero_grad else 0.005, "iterations": 120, "log_every": 10}
    trained = fit("logistic", table, **changes)
    record = list(range(0, 121, 10))
    settings = changed(params.train.logistic, **changes)
    start = np.array([[1.0, 0.0]]) if form == "slope-intercept" else np.zeros((1, 3))
    assert_same_course(logistic.descend(*as_repetition(table), start, settings, record), trained, record)


@pytest.mark.parametrize("experiment", ["manual", "noisy", "minibatch", "nn", "shared", "logistic"])
def test_the_stop_is_the_same(
    params: Params, changed: Callable[..., Any], drawn: Callable[..., Table], fit: Callable[..., Fit], experiment: str
) -> None:
    """Both implementations end after the update of the same iteration."""
    data_set = {"manual": "line", "noisy": "noisy_line", "minibatch": "plane", "logistic": "clusters"}.get(
        experiment, "stream"
    )
    table = drawn(data_set)
    stop_below = {"manual": 0.05, "noisy": 1.0, "minibatch": 0.1, "nn": 1e-3, "shared": 1e-3, "logistic": 0.01}[
        experiment
    ]
    trained = fit(experiment, table, stop_below=stop_below)
    assert trained.stopped == "loss"
    settings = changed(getattr(params.train, experiment), stop_below=stop_below)
    arguments: list[Any] = [*as_repetition(table), start_of(trained, table)]
    if experiment == "minibatch":
        generator = torch.Generator().manual_seed(settings.seed)
        torch.randn((2, 1), generator=generator, dtype=torch.float64)
        batches = shuffled_batches(1000, 10, generator)
        arguments.append([torch.cat([next(batches) for _ in range(100)]).numpy()[:, np.newaxis] for _ in range(3)])
    module = {
        "manual": manual,
        "noisy": noisy,
        "minibatch": minibatch,
        "nn": nn,
        "shared": shared,
        "logistic": logistic,
    }
    runs = module[experiment].descend(*arguments, settings)
    assert runs.stopped[0] == "loss"
    assert runs.iterations[0] == trained.metrics()["iterations"]
    assert runs.stop_loss[0] == pytest.approx(trained.stop_loss, rel=1e-6)
    assert runs.loss[0] == pytest.approx(trained.metrics()["loss"], rel=1e-6)


def test_repetitions_do_not_disturb_each_other(params: Params, changed: Callable[..., Any]) -> None:
    """Side by side, with runs that stop, run on and diverge, each does what it does alone."""
    generator = np.random.default_rng(5)
    features, target = fresh_linear_sets(params.data.noisy_line, None, 40, generator)
    start = np.column_stack([generator.standard_normal(40), np.zeros(40)])
    settings = changed(params.train.noisy, iterations=1000)
    together = noisy.descend(features, target, start, settings)
    assert set(together.stopped) == {"loss", "iterations", "diverged"}
    for r in range(40):
        alone = noisy.descend(features[:, r : r + 1], target[:, r : r + 1], start[r : r + 1], settings)
        assert (alone.stopped[0], alone.iterations[0]) == (together.stopped[r], together.iterations[r])
        np.testing.assert_array_equal(alone.theta[0], together.theta[r])
    assert np.isfinite(together.theta).all()
    assert np.isfinite(together.loss).all()


def test_quadratic_is_the_loss_and_its_gradient(params: Params) -> None:
    generator = np.random.default_rng(0)
    features, target = fresh_linear_sets(params.data.plane.model_copy(update={"rows": 20}), None, 3, generator)
    theta = generator.normal(size=(3, 3))
    Z = np.concatenate([features, np.ones((20, 3, 1))], axis=2)
    residual = np.einsum("nri,ri->nr", Z, theta) - target
    for factor in (1, 2):
        q = Quadratic(features, target, factor)
        np.testing.assert_allclose(q.loss(theta), factor / 2 * (residual**2).mean(0), rtol=1e-12)
        np.testing.assert_allclose(q.gradient(theta), factor * np.einsum("nri,nr->ri", Z, residual) / 20, rtol=1e-11)
        for r in range(3):
            expected = theory.curvature(theory.hessian(features[:, r], factor)).eigenvalues[-1]
            assert q.largest_eigenvalue()[r] == pytest.approx(expected, rel=1e-12)


def test_chunks_do_not_depend_on_the_count() -> None:
    few = [
        generator.random()
        for _, generator in chunks(Replicate(count=CHUNK + 1, seed=3), experiment=1, own=None, drawn=100)
    ]
    many = [
        generator.random()
        for _, generator in chunks(Replicate(count=5 * CHUNK, seed=3), experiment=1, own=None, drawn=100)
    ]
    other = [
        generator.random()
        for _, generator in chunks(Replicate(count=5 * CHUNK, seed=3), experiment=2, own=None, drawn=100)
    ]
    assert few == many[: len(few)]
    assert not set(many) & set(other)
    assert (
        sum(size for size, _ in chunks(Replicate(count=5 * CHUNK + 7, seed=3), experiment=1, own=None, drawn=100))
        == 5 * CHUNK + 7
    )


def test_bootstrap_resamples_rows(params: Params) -> None:
    table = Table(pd.DataFrame({"x": [1.0, 2.0, 3.0]}), pd.Series([10.0, 20.0, 30.0], name="y"))
    features, target = fresh_linear_sets(params.data.line, table, 500, np.random.default_rng(0))
    assert features.shape == (3, 500, 1)
    np.testing.assert_array_equal(10 * features[:, :, 0], target)  # rows stay together
    assert len({tuple(sorted(column)) for column in target.T}) == 10  # all multisets of 3 out of 3


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [("0.5", 45, 55), ("0.50", 50, 51), ("2.0", 100, 100), ("-1", 0, 0), ("0.000", 0, 1)],
)
def test_percentiles_cover_the_rounding_of_print(printed: str, low: float, high: float) -> None:
    values = np.arange(100) / 100
    found = percentiles_of_printed(values, printed)
    assert (found["percentile_low"], found["percentile_high"]) == pytest.approx((low, high), abs=1.01)


def test_prints_as() -> None:
    shown = prints_as(np.array([1.2325001, 1.2334999, 1.2324999, 1.2335001]), "1.233")
    assert shown.tolist() == [True, True, False, False]


@pytest.mark.parametrize("experiment", ["manual", "noisy", "minibatch", "nn", "shared", "logistic"])
def test_stage(project: Path, monkeypatch: pytest.MonkeyPatch, experiment: str) -> None:
    """With few repetitions: the same bytes twice, strict JSON, a row a repetition or step."""
    (project / "data/published.yaml").write_text(
        (Path(__file__).parents[1] / "data/published.yaml").read_text("utf-8"), "utf-8"
    )
    tree = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    tree["replicate"]["count"] = 7
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    module = {
        "manual": manual,
        "noisy": noisy,
        "minibatch": minibatch,
        "nn": nn,
        "shared": shared,
        "logistic": logistic,
    }
    written = []
    for _ in range(2):
        module[experiment].main()
        written.append({path.name: path.read_bytes() for path in Path("reports/replicates").iterdir()})
    assert written[0] == written[1]
    found = json.loads(written[0][f"{experiment}.json"], parse_constant=pytest.fail)
    assert found["count"] == 7
    table = pd.read_csv(f"reports/replicates/{experiment}.csv")
    assert len(table) == (251 if experiment == "nn" else 7)


@pytest.mark.parametrize(("experiment", "file"), [("manual", "norris"), ("logistic", "iris")])
def test_own_csv_is_bootstrapped(project: Path, experiment: str, file: str) -> None:
    """The bootstrap's standard error of the slope is near the exact one: within a third, for 36 rows."""
    (project / "data/published.yaml").write_text(
        (Path(__file__).parents[1] / "data/published.yaml").read_text("utf-8"), "utf-8"
    )
    tree = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    tree["replicate"]["count"] = 500
    data_set = {"manual": "line", "logistic": "clusters"}[experiment]
    tree["data"][data_set]["file"] = f"data/raw/{file}.csv"
    tree["train"][experiment] |= {"standardize": True, "stop_below": None, "zero_grad": True}
    tree["train"]["logistic"] |= {"form": "general", "loss": "bce", "lr": 1.0, "iterations": 300}
    tree["train"]["manual"] |= {"lr": 0.1, "iterations": 300}
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    Path(f"data/{data_set}.csv").write_bytes(Path(f"data/raw/{file}.csv").read_bytes())
    {"manual": manual, "logistic": logistic}[experiment].main()
    found = json.loads(Path(f"reports/replicates/{experiment}.json").read_text(encoding="utf-8"))
    if experiment == "manual":
        slope = found["random_start"]["fitted"]["w"]
        assert slope["sd"] == pytest.approx(0.00042979684, rel=0.33)
        assert slope["mean"] == pytest.approx(1.0021168, abs=3 * slope["sd"])
    else:
        assert found["accuracy"]["median"] == pytest.approx(0.94, abs=0.03)
