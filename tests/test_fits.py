"""The six fits, seen from outside: data and settings in, history and end out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import count, islice, pairwise, repeat
from math import exp, log1p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from stages.common.errors import UserError
from stages.common.experiments import EXPERIMENTS, parameter_names
from stages.common.files import read_csv, read_json, significant, write_csv
from stages.common.tables import Table, read_clusters, read_linear_set
from stages.generate_data import draw
from stages.train.logistic import accuracy
from stages.train.minibatch import shuffled_batches
from stages.train.recorder import Fit
from stages.train.start import as_tensors
from tests.conftest import DEFAULTS, draw_table, run_fit

SEEDS = [0, 1]
GENERAL: dict[str, Any] = {"form": "general", "loss": "bce"}


def updates(experiment: str, number: int) -> dict[str, Any]:
    """minibatch counts epochs."""
    return {"epochs" if experiment == "minibatch" else "iterations": number}


def small(experiment: str, **changes: object) -> Table:
    """20 rows of the experiment's data, with noise on them."""
    data_set = EXPERIMENTS[experiment].data_set
    few = {"rows_per_cluster": 10, "std": 3.0} if data_set == "clusters" else {"rows": 20, "noise": 0.5}
    return draw_table(data_set, **{**few, **changes})


def table_of(features: list[list[float]], target: list[float]) -> Table:
    return Table(np.array(features), np.array(target), [f"x{j}" for j in range(len(features[0]))], "y")


def rows(history: dict[str, list[float]], chosen: Sequence[int]) -> dict[str, list[float]]:
    return {name: [column[row] for row in chosen] for name, column in history.items()}


def parameters(fit: Fit) -> np.ndarray:
    """Of every row of the history, (rows, parameters)."""
    return np.array([list(fit.parameters(row).values()) for row in range(len(fit.history["loss"]))])


# --- every update ----------------------------------------------------------------------------------------------------

Loss = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]  # (parameters w..., b; features; target) -> the mean loss


def line(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x @ p[:-1] + p[-1]


def stated_loss(experiment: str, *, loss: str = "", form: str = "", **_: object) -> Loss:
    """The loss as the article states it, with the factor that the registry has."""
    factor = EXPERIMENTS[experiment].factor or 0

    def squares(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
        y_hat = line(p, x) if EXPERIMENTS[experiment].model == "line" else p[0] * (p[0] * x[:, 0] + p[1]) + p[1]
        return factor / 2 * np.mean((y_hat - y) ** 2)

    def logistic(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
        probability = 1 / (1 + np.exp(-(line(p, x) if form == "general" else p[0] * x[:, 0] + p[1] - x[:, 1])))
        squared = np.mean((probability - y) ** 2)
        return squared if loss == "mse" else -np.mean(np.log(np.where(y == 1, probability, 1 - probability)))

    return squares if factor else logistic


def rows_read(experiment: str, table: Table, batch_size: int) -> Iterator[Any]:
    """The rows that each update reads: all, one after the other, or a shuffled batch."""
    number, weights = table.features.shape
    if EXPERIMENTS[experiment].step == "batch":
        generator = torch.Generator().manual_seed(DEFAULTS.train.minibatch.seed)
        torch.randn(weights, generator=generator, dtype=torch.float64)  # the start is drawn first
        return shuffled_batches(number, batch_size, generator)
    return repeat(range(number)) if EXPERIMENTS[experiment].step == "all rows" else ([k % number] for k in count())


def descent(
    loss: Loss, start: np.ndarray, table: Table, read: Iterator[Any], how: dict[str, Any]
) -> Iterator[np.ndarray]:
    """Every state of a plain loop; gradients by complex steps, exact to rounding: no derivative is written here."""
    state, velocity = start, np.zeros_like(start)
    while True:
        yield state
        chosen = np.asarray(next(read))
        x, y = table.features[chosen], table.target[chosen]
        gradient = np.array([loss(state + step, x, y).imag / 1e-100 for step in 1e-100j * np.eye(len(state))])
        gradient *= len(chosen) / how.get("batch_size", len(chosen))  # a short batch is divided by batch_size as well
        velocity = gradient + (0 if how["zero_grad"] else velocity)
        state = state - how["lr"] * velocity


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zero_grad", [True, False])
@pytest.mark.parametrize(
    ("experiment", "data", "how"),
    [
        ("manual", {}, {}),
        ("noisy", {}, {}),
        ("minibatch", {}, {"batch_size": 6}),  # the last batch of an epoch has two rows
        ("minibatch", {"weights": [3.0]}, {"batch_size": 64}),
        ("nn", {}, {}),
        ("nn", {"weights": [1.0, 0.0, 2.0]}, {}),
        ("shared", {}, {}),
        ("logistic", {}, {"form": "slope-intercept", "loss": "mse"}),
        ("logistic", {}, {"form": "slope-intercept", "loss": "bce"}),
        ("logistic", {}, {"form": "general", "loss": "mse"}),
        ("logistic", {}, {"form": "general", "loss": "bce"}),
    ],
)
def test_every_state_is_that_of_a_plain_loop_down_the_stated_loss(
    experiment: str, data: dict[str, Any], how: dict[str, Any], zero_grad: bool, seed: int
) -> None:
    """The rows of stream are read through, in order, and again from the top."""
    table = small(experiment, seed=seed, **data)
    how = {**how, "lr": 0.01, "zero_grad": zero_grad, "stop_below": None, "log_every": 1}
    fit = run_fit(experiment, table, **how, **updates(experiment, 50))
    found = parameters(fit)
    per_row = -(-20 // how["batch_size"]) if experiment == "minibatch" else 1
    assert fit.history["iteration"] == [per_row * row for row in range(51)]
    assert fit.history.get("epoch", list(range(51))) == list(range(51))
    assert list(fit.parameters()) == parameter_names(found.shape[1] - 1)

    loss = stated_loss(experiment, **how)
    read = rows_read(experiment, table, how.get("batch_size", 0))
    states = list(islice(descent(loss, found[0], table, read, how), 50 * per_row + 1))[::per_row]
    np.testing.assert_allclose(found, states, rtol=0, atol=1e-12 * np.abs(states).max())
    losses = [loss(state, table.features, table.target) for state in states]  # over all rows
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("number", "batch_size"), [(50, 10), (53, 10), (15, 15), (15, 100), (15, 1)])
def test_an_epoch_reads_every_row_once_in_a_new_order(number: int, batch_size: int, seed: int) -> None:
    """Two orders of 15 rows are the same once in 10^12."""
    batches = shuffled_batches(number, batch_size, torch.Generator().manual_seed(seed))
    orders = []
    for _ in range(3):
        epoch = list(islice(batches, -(-number // batch_size)))
        assert {len(batch) for batch in epoch[:-1]} <= {batch_size}
        orders.append(torch.cat(epoch).tolist())
        assert sorted(orders[-1]) == list(range(number))
    assert all(one != other for one, other in pairwise(orders))


# --- the start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "features", "of_w", "of_b"),
    [
        ("manual", 1, stats.uniform(0, 1), stats.uniform(0, 1)),
        ("noisy", 1, stats.norm(0, 1), None),
        ("minibatch", 2, stats.norm(0, 0.01), None),
        ("nn", 4, stats.uniform(-0.5, 1), stats.uniform(-0.5, 1)),  # +-1/sqrt(features), as torch.nn.Linear
        ("shared", 1, stats.uniform(-1, 2), stats.uniform(-1, 2)),
    ],
)
def test_a_start_is_drawn_as_in_the_article_from_the_seed_alone_with_the_digits_of_the_files(
    experiment: str, features: int, of_w: Any, of_b: Any
) -> None:
    table = table_of([[1.0] * features, [0.5] * features], [0.0, 1.0])

    def start(seed: int) -> dict[str, float]:
        return run_fit(experiment, table, **updates(experiment, 1), seed=seed).parameters(row=0)

    torchs_own = torch.get_rng_state()
    starts = [start(seed) for seed in range(200)]
    assert starts[7] == start(7)
    assert torch.equal(torch.get_rng_state(), torchs_own)
    assert all(value == significant(value) for row in starts for value in row.values())
    values = np.array([list(row.values()) for row in starts]).T
    for drawn, expected in zip(values, [*features * [of_w], of_b], strict=True):
        low, high = expected.support() if expected else (0, 0)
        assert low <= drawn.min() <= drawn.max() <= high
        assert expected is None or stats.kstest(drawn, expected.cdf).pvalue > 0.001
    varying = values[: None if of_b else -1]
    assert np.abs(np.corrcoef(varying) - np.eye(len(varying))).max() < 5 / np.sqrt(200)  # standard errors


@pytest.mark.parametrize(("form", "start"), [("slope-intercept", [1.0, 0.0]), ("general", [0.0, 0.0, 0.0])])
def test_logistic_starts_at_a_fixed_place(form: str, start: list[float]) -> None:
    fit = run_fit("logistic", small("logistic"), form=form, iterations=1)
    assert list(fit.parameters(row=0).values()) == start


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_single_precision_stays_close_to_double(experiment: str) -> None:
    how = {"lr": 0.01, "zero_grad": True, "stop_below": None, **updates(experiment, 2)}
    double, single = (
        parameters(run_fit(experiment, small(experiment), **how, dtype=dtype)) for dtype in ("float64", "float32")
    )
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)  # eps is 1.2e-7


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", [1, 7])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_fit_ends_after_the_update_of_the_iteration_that_meets_the_stop(experiment: str, log_every: int) -> None:
    """Full-batch fits look at every iteration, the others at the recorded rows; minibatch records epochs."""
    how = {"lr": 0.005, "zero_grad": True, **updates(experiment, 60)}
    free = run_fit(experiment, small(experiment), **how, stop_below=None, log_every=1).history
    stop_below = (free["loss"][0] + free["loss"][-1]) / 2
    seen = range(60) if EXPERIMENTS[experiment].step == "all rows" else range(0, 60, log_every)
    met = next(row for row in seen if free["loss"][row] < stop_below)

    fit = run_fit(experiment, small(experiment), **how, stop_below=stop_below, log_every=log_every)
    assert (fit.stopped, fit.stop_loss) == ("loss", free["loss"][met])
    assert rows(fit.history, [-2]) == rows(free, [met])
    assert fit.history["iteration"][-1] == free["iteration"][met] + 1
    assert list(fit.parameters().values()) != list(fit.parameters(-2).values())
    if experiment != "minibatch":  # whose last update is the first batch of an epoch
        assert rows(fit.history, [-1]) == rows(free, [met + 1])


@pytest.mark.parametrize(
    ("experiment", "lr"),
    [("manual", 1e3), ("noisy", 1e3), ("minibatch", 1e3), ("nn", 1e3), ("shared", 2.0), ("logistic", 1e8)],
)
def test_a_fit_that_diverges_ends_at_its_last_finite_observation(
    monkeypatch: pytest.MonkeyPatch, experiment: str, lr: float
) -> None:
    """Full-batch fits observe every iteration, the others the recorded rows; minibatch records epochs."""
    table, how = small(experiment), {"stop_below": None, **updates(experiment, 1000), "lr": lr}
    if experiment == "logistic":  # whose gradients are bounded by the features
        how.update(GENERAL)
        table = small("logistic", centers=[[0, 0], [0, 0]])
        table = replace(table, features=1e150 * table.features / np.abs(table.features).max())
    every = run_fit(experiment, table, **how, log_every=1)
    assert every.stopped == "diverged"
    last = len(every.history["loss"]) - 1
    assert run_fit(experiment, table, **{**how, **updates(experiment, last)}, log_every=1).stopped == "iterations"

    counter = count()
    monkeypatch.setattr(f"stages.train.{experiment}.progress", lambda limit, _: islice(counter, limit))
    fit = run_fit(experiment, table, **how, log_every=last - 1)
    assert (fit.stopped, fit.stop_loss) == ("diverged", None)
    seen = [0, last - 1, last] if EXPERIMENTS[experiment].step == "all rows" else [0, last - 1]
    assert fit.history == rows(every.history, seen)
    assert next(counter) < 500  # and the loop with it


# --- standardize -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "form"), [("manual", {}), ("noisy", {}), ("minibatch", {}), ("nn", {}), ("logistic", GENERAL)]
)
def test_a_standardized_fit_predicts_as_one_of_columns_standardized_by_hand(
    experiment: str, form: dict[str, str]
) -> None:
    table = small(experiment)
    x = 40 * table.features + 300
    by_hand = (x - x.mean(axis=0)) / x.std(axis=0)
    how = {"zero_grad": True, "stop_below": None, **updates(experiment, 30), **form}
    one = run_fit(experiment, replace(table, features=x), **how, standardize=True)
    other = run_fit(experiment, replace(table, features=by_hand), **how, standardize=False)
    # mapping back adds mean / sd times eps
    np.testing.assert_allclose(line(parameters(one)[-1], x), line(parameters(other)[-1], by_hand), rtol=0, atol=1e-10)
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-9)


def test_norris_gives_the_certified_line(project: Path) -> None:
    """The reference values of data/raw/README.md, to nine significant digits."""
    fit = run_fit("manual", read_linear_set(Path("data/raw/norris.csv")), lr=0.01, iterations=3000, standardize=True)
    assert [f"{value:.9g}" for value in fit.parameters().values()] == ["1.00211682", "-0.262323074"]


def test_iris_gives_the_maximum_likelihood_coefficients(project: Path) -> None:
    """The reference values of data/raw/README.md, to four significant digits."""
    table = read_clusters(Path("data/raw/iris.csv"))
    how = {**GENERAL, "standardize": True, "zero_grad": True, "stop_below": None, "lr": 1.0, "iterations": 10_000}
    fit = run_fit("logistic", table, **how, log_every=1000)
    assert [f"{value:.4g}" for value in fit.parameters().values()] == ["5.755", "10.45", "-45.27"]
    assert accuracy(fit, *as_tensors(table), "general") == 0.94


# --- logistic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [0.0, 1.0, -30.0, 40.0, 800.0, -1e4, 1e150])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_does_not_overflow(z: float, label: float) -> None:
    """-log P(label) = log(1 + exp(-s)) with s = z or -z, which is -s where exp(-s) overflows."""
    s = z if label == 1 else -z
    expected = -s if s < -700 else log1p(exp(-s))
    fit = run_fit("logistic", table_of([[z, 0.0]], [label]), form="slope-intercept", loss="bce", iterations=1)  # w = 1
    assert fit.history["loss"][0] == pytest.approx(expected, rel=1e-12, abs=4e-16 * max(1, abs(z)))  # terms of size z


@pytest.mark.parametrize(
    ("form", "parameters", "expected"),
    [
        ("slope-intercept", {"w": 1.0, "b": 0.0}, 0.8),  # below the diagonal is class 1
        ("slope-intercept", {"w": -1.0, "b": -9.0}, 0.4),  # none is class 1
        ("general", {"w1": 1.0, "w2": -1.0, "b": 0.0}, 0.8),
        ("general", {"w1": 0.0, "w2": 0.0, "b": 0.0}, 0.4),  # P = 1/2 is class 0
    ],
)
def test_accuracy_is_the_share_of_rows_on_their_side(form: str, parameters: dict[str, float], expected: float) -> None:
    features = torch.tensor([[2, 1], [3, 1], [4, 0], [0, 2], [1, 0]], dtype=torch.float64)
    label = torch.tensor([1, 1, 1, 0, 0], dtype=torch.float64)
    history = {"iteration": [0.0], "loss": [0.1], **{name: [value] for name, value in parameters.items()}}
    assert accuracy(Fit(history, "iterations", None, 1e-16), features, label, form) == expected


# --- the stages ------------------------------------------------------------------------------------------------------


def run_stage(experiment: str) -> None:
    import_module(f"stages.train.{experiment}").main()


@pytest.mark.parametrize(
    ("experiment", "stopped", "fitted", "within"),
    [
        ("manual", "iterations", {"w": 3.0, "b": 0.8}, 0.1),
        ("noisy", "loss", {}, 0.0),
        ("minibatch", "iterations", {"w1": 2.0, "w2": -3.4, "b": 4.2}, 0.002),
        ("nn", "iterations", {"w": 1.233, "b": 0.988}, 0.0005),  # as published
        ("shared", "iterations", {"w": 1.110, "b": 0.468}, 0.0005),  # as published
        ("logistic", "loss", {}, 0.0),
    ],
)
def test_a_stage_writes_the_fit_of_the_default_settings(
    project: Path, experiment: str, stopped: str, fitted: dict[str, float], within: float
) -> None:
    data_set, settings = EXPERIMENTS[experiment].data_set, getattr(DEFAULTS.train, experiment)
    write_csv(draw(getattr(DEFAULTS.data, data_set)), Path(f"data/{data_set}.csv"))
    run_stage(experiment)
    metrics = read_json(Path(f"reports/metrics/{experiment}.json"))
    history = read_csv(Path(f"reports/history/{experiment}.csv"))
    assert metrics["stopped"] == stopped
    assert metrics["fitted"] == {name: history[name][-1] for name in metrics["fitted"]}
    assert {name: metrics["fitted"][name] for name in fitted} == pytest.approx(fitted, abs=within)
    if stopped == "loss":
        assert metrics["stop_loss"] == history["loss"][-2] < settings.stop_below <= min(history["loss"][:-2])
    assert ("accuracy" in metrics) == (experiment == "logistic")
    assert metrics.get("accuracy", 1) >= 0.99


@pytest.mark.parametrize(
    ("experiment", "csv", "message"),
    [
        ("manual", "x1,x2,y\n1,2,3\n2,4,5\n", "data/line.csv: expected 1 feature for this experiment, found 2"),
        ("noisy", "x1,x2,y\n1,2,3\n2,4,5\n", "data/noisy_line.csv: expected 1 feature for this experiment, found 2"),
        ("minibatch", "", "data/plane.csv: not found"),
        ("nn", "x,label\n1,2\n2,4\n", "data/stream.csv: no column 'y'"),
        ("logistic", "x,y,z,label\n1,2,3,0\n2,4,5,1\n", "data/clusters.csv: expected 2 features"),
    ],
)
def test_a_stage_refuses_what_it_cannot_fit(project: Path, experiment: str, csv: str, message: str) -> None:
    if csv:
        Path(f"data/{EXPERIMENTS[experiment].data_set}.csv").write_text(csv)
    with pytest.raises(UserError) as refusal:
        run_stage(experiment)
    assert str(refusal.value).startswith(message)
    assert not Path("reports").exists()
