"""What holds for all six fits: gradients, seeds, precision, stops, scaling; default runs; the stages as commands."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.files import Table, read_linear_set, read_numbers
from stages.common.recording import Fit
from stages.common.setup import as_tensors
from stages.train_logistic import accuracy

DATA_SETS = {
    "manual": "line",
    "noisy": "noisy_line",
    "minibatch": "plane",
    "nn": "stream",
    "shared": "stream",
    "logistic": "clusters",
}
EXPERIMENTS = list(DATA_SETS)
SEEDS = [0, 1, 2, 3]


def seeded(experiment: str, seed: int) -> dict[str, int]:
    """The start of logistic is fixed."""
    return {} if experiment == "logistic" else {"seed": seed}


def updates(experiment: str, count: int) -> dict[str, int]:
    """minibatch counts epochs."""
    return {"epochs": count} if experiment == "minibatch" else {"iterations": count}


# --- the first update ------------------------------------------------------------------------------------------------


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


# The losses as the articles state them, of parameters p = (w..., b).
LOSSES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Any]] = {
    "manual": lambda p, x, y: np.mean((x @ p[:-1] + p[-1] - y) ** 2),
    "noisy": lambda p, x, y: np.mean(0.5 * (y - (x @ p[:-1] + p[-1])) ** 2),
    "minibatch": lambda p, x, y: np.mean((x @ p[:-1] + p[-1] - y) ** 2 / 2),
    "nn": lambda p, x, y: np.mean((x @ p[:-1] + p[-1] - y) ** 2),
    "shared": lambda p, x, y: np.mean((p[0] * (p[0] * x[:, 0] + p[1]) + p[1] - y) ** 2),
    "logistic": lambda p, x, y: np.mean((sigmoid(p[0] * x[:, 0] + p[1] - x[:, 1]) - y) ** 2),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_first_update_goes_down_the_gradient_of_the_stated_loss(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, seed: int
) -> None:
    """Against central differences: no derivative is written here."""
    table = drawn(DATA_SETS[experiment], seed=seed)
    x, y = table.features.to_numpy(), table.target.to_numpy()
    whole = {"batch_size": len(y)} if experiment == "minibatch" else {}
    history = fit(
        experiment, table, lr=0.01, stop_below=None, **updates(experiment, 1), **seeded(experiment, seed), **whole
    ).history
    start, after = history.loc[:, "w" if "w" in history else "w1" :].to_numpy()
    for state, loss in zip((start, after), history["loss"], strict=True):
        assert loss == pytest.approx(LOSSES[experiment](state, x, y), rel=1e-12)  # over all rows
    used = slice(0, 1) if experiment in ("nn", "shared") else slice(None)  # one row a step
    h = 1e-5  # an error of h^2 times third derivatives, and of eps / h
    difference = [
        (LOSSES[experiment](start + e, x[used], y[used]) - LOSSES[experiment](start - e, x[used], y[used])) / (2 * h)
        for e in h * np.eye(len(start))
    ]
    np.testing.assert_allclose((start - after) / 0.01, difference, rtol=1e-7, atol=1e-8)


# --- seeds and precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_numbers_follow_from_the_seed(fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str) -> None:
    table = drawn(DATA_SETS[experiment])

    def history(seed: int) -> pd.DataFrame:
        return fit(experiment, table, **updates(experiment, 20), **seeded(experiment, seed)).history

    pd.testing.assert_frame_equal(history(5), history(5), check_exact=True)
    if experiment != "logistic":
        assert not history(5).iloc[0].equals(history(6).iloc[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_start_has_the_ten_digits_of_the_files(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, seed: int
) -> None:
    result = fit(experiment, drawn(DATA_SETS[experiment]), **updates(experiment, 1), **seeded(experiment, seed))
    start = result.history.iloc[0].drop("loss")
    assert all(float(f"{value:.10g}") == value for value in start)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_single_precision_stays_close_to_double(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, seed: int
) -> None:
    table = drawn(DATA_SETS[experiment], seed=seed)
    how: dict[str, Any] = {"lr": 0.01, "zero_grad": True, "stop_below": None, **seeded(experiment, seed)}
    double, single = (
        fit(experiment, table, **how, **updates(experiment, 2), dtype=dtype).history.to_numpy()
        for dtype in ("float64", "float32")
    )
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)  # eps is 1.2e-7


# --- stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("log_every", [1, 7])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_fit_ends_after_the_update_of_the_iteration_that_meets_the_stop(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, log_every: int, seed: int
) -> None:
    """Full-batch fits look at every iteration, the others at the recorded rows; minibatch records epochs."""
    table = drawn(DATA_SETS[experiment], seed=seed)
    how: dict[str, Any] = {"lr": 0.01, "zero_grad": True, **seeded(experiment, seed), **updates(experiment, 60)}
    free = fit(experiment, table, **how, stop_below=None, log_every=1).history
    seen = free.iloc[:-1] if experiment in ("manual", "noisy", "logistic") else free.iloc[:-1:log_every]
    below = (free["loss"].iloc[0] + free["loss"].iloc[-1]) / 2
    met = seen[seen["loss"] < below].iloc[0]

    result = fit(experiment, table, **how, stop_below=below, log_every=log_every)
    assert result.stopped == "loss"
    assert result.stop_loss == met["loss"]
    before, last = result.history.iloc[-2], result.history.iloc[-1]
    pd.testing.assert_series_equal(before, met, check_names=False)
    assert last["iteration"] == met["iteration"] + 1
    if experiment == "minibatch":  # the first batch of the next epoch
        assert last["epoch"] == met["epoch"]
        assert last["w1"] != met["w1"]
    else:
        pd.testing.assert_series_equal(last, free.loc[last["iteration"]], check_names=False)


# --- standardize -----------------------------------------------------------------------------------------------------

STANDARDIZED: dict[str, dict[str, Any]] = {
    "manual": {},
    "noisy": {},
    "minibatch": {},
    "nn": {},
    "logistic": {"form": "general", "loss": "bce"},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experiment", STANDARDIZED)
def test_standardized_fit_predicts_as_a_fit_of_columns_standardized_by_hand(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, seed: int
) -> None:
    table = drawn(DATA_SETS[experiment], seed=seed)
    x = 40 * table.features + 300
    by_hand = (x - x.mean()) / x.std(ddof=0)
    how: dict[str, Any] = {
        "zero_grad": True,
        "stop_below": None,
        **STANDARDIZED[experiment],
        **seeded(experiment, seed),
    }
    how.update(updates(experiment, 30))
    one = fit(experiment, Table(x, table.target), **how, standardize=True)
    other = fit(experiment, Table(by_hand, table.target), **how, standardize=False)

    def predictions(features: pd.DataFrame, result: Fit) -> np.ndarray:
        *w, b = result.parameters().values()
        return features.to_numpy() @ np.array(w) + b

    # losses and predictions of up to 30 units; mapping back adds mean / sd times eps
    np.testing.assert_allclose(predictions(x, one), predictions(by_hand, other), rtol=0, atol=1e-10)
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("experiment", "data_set", "how"),
    [
        ("manual", "noisy_line", {"iterations": 300}),
        ("noisy", "noisy_line", {"iterations": 600}),
        ("minibatch", "plane", {"epochs": 900, "batch_size": 1000}),
    ],
)
def test_standardized_full_batch_descent_reaches_least_squares(
    fit: Callable[..., Fit],
    drawn: Callable[..., Table],
    *,
    experiment: str,
    data_set: str,
    how: dict[str, Any],
    seed: int,
) -> None:
    """From badly scaled features, where descent as the articles do it would need millions of steps."""
    table = drawn(data_set, seed=seed, noise=1.0)
    x = 40 * table.features + 300
    result = fit(
        experiment, Table(x, table.target), **how, lr=0.1, zero_grad=True, stop_below=None, seed=seed, standardize=True
    )
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), table.target)[0]
    # the slowest error shrinks by 0.9 or so at each step; lstsq itself loses mean / sd, about 10, times eps
    np.testing.assert_allclose([*result.parameters().values()], solution, rtol=1e-9)


def test_norris_gives_the_certified_line(project: Path, fit: Callable[..., Fit]) -> None:
    """The reference values of data/raw/README.md, to nine significant digits."""
    table = read_linear_set(Path("data/raw/norris.csv"))
    result = fit("manual", table, lr=0.01, iterations=3000, standardize=True)
    found = {name: f"{value:.9g}" for name, value in result.parameters().items()}
    assert found == {"w": f"{1.00211681802045:.9g}", "b": f"{-0.262323073774029:.9g}"}


# --- the default settings --------------------------------------------------------------------------------------------


def test_default_nn_and_shared_show_the_published_decimals(
    fit: Callable[..., Fit], drawn: Callable[..., Table]
) -> None:
    for experiment, w, b in [("nn", "1.233", "0.988"), ("shared", "1.110", "0.468")]:
        found = fit(experiment, drawn("stream"))
        assert {name: f"{value:.3f}" for name, value in found.parameters().items()} == {"w": w, "b": b}
        assert found.stopped == "iterations"


@pytest.mark.parametrize(
    ("experiment", "truth", "within"),
    [("manual", {"w": 3.0, "b": 0.8}, 0.1), ("minibatch", {"w1": 2.0, "w2": -3.4, "b": 4.2}, 0.002)],
)
def test_default_fit_ends_close_to_the_truth(
    fit: Callable[..., Fit], drawn: Callable[..., Table], experiment: str, truth: dict[str, float], within: float
) -> None:
    found = fit(experiment, drawn(DATA_SETS[experiment]))
    assert found.parameters() == pytest.approx(truth, abs=within)
    assert found.stopped == "iterations"


def test_default_noisy_stops_on_its_loss(fit: Callable[..., Fit], drawn: Callable[..., Table]) -> None:
    found = fit("noisy", drawn("noisy_line"))
    assert found.stopped == "loss"
    assert found.stop_loss is not None
    assert found.stop_loss < 1 <= found.history["loss"].iloc[:-2].min()


def test_default_logistic_stops_on_its_loss_with_nearly_all_right(
    fit: Callable[..., Fit], drawn: Callable[..., Table]
) -> None:
    table = drawn("clusters")
    found = fit("logistic", table)
    assert found.stopped == "loss"
    assert found.stop_loss is not None
    assert found.stop_loss < 0.01 <= found.history["loss"].iloc[:-2].min()
    assert accuracy(found, *as_tensors(table), "slope-intercept") >= 0.99


# --- the stages as users run them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "csv", "yaml_edit", "message"),
    [
        ("manual", "x1,x2,y\n1,2,3\n2,4,5\n", None, "data/line.csv: expected 1 feature for this experiment, found 2"),
        ("shared", "x1,x2,y\n1,2,3\n2,4,5\n", None, "data/stream.csv: expected 1 feature for this experiment, found 2"),
        ("logistic", "x,y,z,label\n1,2,3,0\n2,4,5,1\n", None, "data/clusters.csv: expected 2 features"),
        ("minibatch", None, None, "data/plane.csv: not found"),
        (
            "nn",
            "x,y\n1,2\n3,4\n",
            ("    seed: 0 #", "    sead: 0 #"),
            "params.yaml: 1 problem; nothing was run\n  train.nn",
        ),
    ],
    ids=["two features", "two features", "three features", "no data", "misspelled key"],
)
def test_stage_refuses_its_input_and_leaves_every_file_as_it_was(
    refused: Callable[..., subprocess.CompletedProcess[str]],
    *,
    experiment: str,
    csv: str | None,
    yaml_edit: tuple[str, str] | None,
    message: str,
) -> None:
    for path in (f"reports/metrics/{experiment}.json", f"reports/history/{experiment}.csv"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text("from an earlier run")
    if csv is not None:
        Path(f"data/{DATA_SETS[experiment]}.csv").write_text(csv)
    if yaml_edit is not None:
        text = Path("params.yaml").read_text(encoding="utf-8")
        assert text.count(yaml_edit[0]) == 1
        Path("params.yaml").write_text(text.replace(*yaml_edit), encoding="utf-8")
    assert refused(f"train_{experiment}").stderr.startswith(f"error: {message}")


def test_stage_writes_the_numbers_of_the_function(
    run: Callable[..., subprocess.CompletedProcess[str]], fit: Callable[..., Fit], drawn: Callable[..., Table]
) -> None:
    table = drawn("line")
    table.features.assign(y=table.target).to_csv("data/line.csv", index=False)
    done = run("-m", "stages.train_manual")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"manual: all 3000 iterations, loss {fit('manual', table).metrics()['loss']:.6g}\n"
    np.testing.assert_allclose(
        read_numbers(Path("reports/history/manual.csv")), fit("manual", table).history, rtol=5.1e-10
    )
