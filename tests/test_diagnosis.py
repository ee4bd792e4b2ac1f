"""Each state is recognised, its numbers are what runs do, and the command that the report gives finishes the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.theory.epochs import epochs
from stages.theory.least_squares import least_squares, with_ones
from tests.evidence import lay_out, rerun

Array = np.ndarray
PLAIN = {"zero_grad": True, "stop_below": None, "dtype": "float64"}
GENERAL = {**PLAIN, "form": "general", "loss": "bce", "log_every": 50}


def table(
    rows: int, sds: list[float], *, mean: float = 0.0, noise: float = 0.5, mixed: float = 0.0
) -> dict[str, Array]:
    """A linear set of its own: features of these spreads, around a mean, each mixed with the first by a share."""
    random = np.random.default_rng(rows)
    x = random.normal(size=(rows, len(sds)))
    x[:, 1:] += mixed * x[:, :1]
    x = mean + x * sds
    y = 3 + x @ (1 / np.array(sds)) + noise * random.normal(size=rows)
    return {**{f"f{j}": x[:, j] for j in range(len(sds))}, "y": y}


def classes(rows: int, features: int, *, apart: float) -> dict[str, Array]:
    """Two clusters whose centres lie this far apart in the first feature."""
    random = np.random.default_rng(rows)
    label = np.arange(rows) % 2
    x = random.normal(size=(rows, features))
    x[:, 0] += apart * label
    return {**{f"f{j}": x[:, j] for j in range(features)}, "label": label.astype(float)}


def diagnosed(experiment: str, columns: dict[str, Array] | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The evaluation of a run with these settings of train.<experiment>."""
    own = None if columns is None else {name: values.tolist() for name, values in columns.items()}
    return rerun(experiment, {f"train.{experiment}.{key}": value for key, value in settings.items()}, own)


# --- the command -----------------------------------------------------------------------------------------------------

DATA = {
    "a line": ("manual", table(30, [1.0]), PLAIN | {"lr": 0.01, "iterations": 20}),
    "years": ("manual", table(60, [10.0], mean=1990.0), PLAIN | {"lr": 0.01, "iterations": 20}),
    "never zeroed": ("noisy", table(25, [2.0]), PLAIN | {"zero_grad": False, "lr": 0.01, "iterations": 50}),
    "round": ("minibatch", table(200, [1.0, 1.0, 1.0]), PLAIN | {"lr": 0.03, "epochs": 1}),
    "units": ("minibatch", table(100, [1e-3, 1.0, 1e4]), PLAIN | {"lr": 0.1, "epochs": 3}),
    "wide": ("minibatch", table(40, [1.0] * 12), PLAIN | {"lr": 0.01, "epochs": 3}),
    "alike": ("minibatch", table(150, [1.0, 1.0, 1.0], mixed=10.0), PLAIN | {"lr": 0.01, "epochs": 3}),
    "far from 0": ("minibatch", table(80, [1.0, 5.0], mean=1e4), PLAIN | {"lr": 0.01, "epochs": 3}),
    "exact": ("minibatch", table(50, [1.0, 2.0], noise=0.0), PLAIN | {"lr": 0.001, "epochs": 2}),
    "one row a step": ("nn", table(60, [1.0, 3.0]), PLAIN | {"lr": 0.05, "iterations": 100, "log_every": 50}),
    "clusters": ("logistic", classes(100, 2, apart=1.0), GENERAL | {"lr": 0.01, "iterations": 20}),
    "clusters, wide": ("logistic", classes(300, 9, apart=2.0), GENERAL | {"lr": 0.01, "iterations": 20}),
}


@pytest.mark.parametrize("name", DATA)
def test_the_command_leads_to_finished(project: Path, name: str) -> None:
    lay_out()
    experiment, columns, settings = DATA[name]
    found = diagnosed(experiment, columns, settings)
    assert found["state"] != "finished", "else there is nothing to show"
    for _ in range(3):
        changes = {key.rpartition(".")[2]: value for key, value in found.get("mend", {}).items()}
        assert set(found.get("mend", {})) == {f"train.{experiment}.{key}" for key in changes}
        settings = {**settings, **changes}
        found = diagnosed(experiment, columns, settings)
        if found["state"] == "finished":
            break
    assert found["state"] == "finished"
    assert "mend" not in found
    for row in (row for key, row in found["quantity"].items() if key[0] in "wb"):
        assert abs(row["fitted"] - row["exact"]) <= 0.5 * row["exact_standard_error"] + 1e-3 * abs(row["exact"])


# --- the states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "experiment", "columns", "settings"),
    [
        ("finished", "nn", None, {}),
        ("unfinished", "manual", None, {}),
        ("swinging", "noisy", None, {}),
        ("swinging", "minibatch", table(60, [1.0, 1.0]), {"zero_grad": False, "lr": 0.001, "epochs": 20}),
        ("unfinished", "minibatch", table(200, [1.0, 1.0]), {"lr": 0.0001, "epochs": 2}),
        ("hovering", "minibatch", table(200, [1.0, 1.0], noise=2.0), {"lr": 0.5, "epochs": 40}),
        ("growing", "minibatch", table(60, [1.0, 20.0]), {"lr": 0.03, "epochs": 2}),
        ("growing", "manual", table(60, [1.0]), {"lr": 1.5, "iterations": 20}),
        ("unfinished", "minibatch", table(200, [1.0, 1.0], noise=2.0), {"lr": 0.5, "epochs": 1, "batch_size": 100}),
        ("diverged", "manual", table(60, [1.0]), {"lr": 1.5, "iterations": 3000}),
        ("separable", "logistic", classes(40, 2, apart=30.0), GENERAL | {"lr": 0.1, "iterations": 30}),
        (
            "no_single_solution",
            "minibatch",
            {"a": np.arange(9.0), "b": 2 * np.arange(9.0), "y": np.arange(9.0)},
            {"lr": 0.001},
        ),
        (
            "unfinished",
            "nn",
            {"a": np.array([1.0, 2, 4]), "y": np.zeros(3)},
            {"lr": 0.01, "iterations": 2, "log_every": 1},
        ),
        ("not_applicable", "shared", table(40, [1.0, 1.0]), {}),
    ],
)
def test_each_state(
    project: Path, state: str, experiment: str, columns: dict[str, Array] | None, settings: dict[str, Any]
) -> None:
    lay_out()
    found = diagnosed(experiment, columns, settings)
    assert found["state"] == state
    end = found["check"].get("end", {"verdict": "none"})["verdict"]
    explodes = state in ("growing", "diverged")
    assert end == ("failed" if explodes else "none" if state == "not_applicable" else "held")
    if state == "separable":
        assert found["diagnosis"]["separating"] == "f0"
        assert not any("standard_error" in key for row in found["quantity"].values() for key in row)


def test_theory_says_how_many_more_updates_a_fit_needs(project: Path) -> None:
    lay_out()
    columns, settings = table(50, [2.0]), {**PLAIN, "lr": 0.02, "iterations": 30, "log_every": 1}
    more = diagnosed("manual", columns, settings)["diagnosis"]["more_updates"]
    assert diagnosed("manual", columns, settings | {"iterations": 30 + more})["state"] == "finished"
    assert diagnosed("manual", columns, settings | {"iterations": 29 + more})["state"] == "unfinished"


# --- where mini-batches end ------------------------------------------------------------------------------------------


def simulated(x: Array, y: Array, batch_size: int, lr: float, passes: int, runs: int) -> Array:
    """theta after each of the last half of so many epochs, reshuffled, by a plain loop: (runs, epochs, parameters)."""
    random, X = np.random.default_rng(1), with_ones(x)
    ends = np.zeros((runs, passes, X.shape[1]))
    for run in range(runs):
        theta = np.zeros(X.shape[1])
        for epoch in range(passes):
            order = random.permutation(len(y))
            for first in range(0, len(y), batch_size):
                rows = order[first : first + batch_size]
                theta = theta - lr / batch_size * X[rows].T @ (X[rows] @ theta - y[rows])
            ends[run, epoch] = theta
    return ends[:, passes // 2 :]


@pytest.mark.parametrize(("batch_size", "lr"), [(1, 0.02), (1, 0.1), (7, 0.1), (7, 0.5), (20, 0.5)])
def test_the_floor_is_where_runs_hover(batch_size: int, lr: float) -> None:
    columns = table(60, [1.0, 1.0], noise=2.0)
    x, y = np.column_stack([columns["f0"], columns["f1"]]), columns["y"]
    exact = least_squares(x, y)
    assert exact is not None
    X = with_ones(x)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(60), (400, 1)), axis=1)
    maps = epochs(x, y - X @ exact.theta, orders, batch_size=batch_size, step=lr / batch_size)
    hessian = X.T @ X / 60
    floor, error = maps.floor(hessian)
    e = simulated(x, y, batch_size, lr, passes=120, runs=20) - exact.theta
    measured = np.einsum("rki,ij,rkj->r", e, hessian, e) / (2 * e.shape[1])
    assert floor == pytest.approx(measured.mean(), abs=4 * np.hypot(measured.std() / np.sqrt(20), error))
    assert floor == pytest.approx(measured.mean(), rel=0.25)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_below_the_limit_runs_stay_and_above_it_they_grow(batch_size: int) -> None:
    """The mean square may grow where a typical run stays, never the other way round."""
    columns = table(40, [1.0, 2.0], noise=0.0)
    x, y = np.column_stack([columns["f0"], columns["f1"]]), columns["y"]
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(40), (200, 1)), axis=1)
    seen = set()
    for lr in np.geomspace(0.01, 3, 12):
        maps = epochs(x, np.zeros(40), orders, batch_size=batch_size, step=lr / batch_size)
        typical, mean_square = maps.typical_growth(), maps.mean_square_growth
        assert typical <= np.log(mean_square) / 2 + 0.05
        with np.errstate(all="ignore"):
            ends = simulated(x, y, batch_size, lr, passes=60, runs=5)
        grows = not np.isfinite(ends).all() or np.abs(ends[:, -1]).max() > 1e6
        seen.add(grows)
        if abs(typical) > 0.2:
            assert grows == (typical > 0), lr
    assert seen == {True, False}


def test_an_epoch_that_overflows_grows_without_bounds() -> None:
    x = np.arange(1.0, 401.0)[:, np.newaxis]
    maps = epochs(x, np.ones(400), np.arange(400)[np.newaxis], batch_size=1, step=100.0)
    assert maps.shrinks == maps.mean_square_growth == np.inf


def in_order(x: Array, y: Array, lr: float, passes: int) -> Array:
    """theta after each epoch of one row a step in the order of the file, on squares: (epochs, parameters)."""
    X, theta, ends = with_ones(x), np.zeros(x.shape[1] + 1), []
    for _ in range(passes):
        for row, target in zip(X, y, strict=True):
            theta = theta - 2 * lr * (row @ theta - target) * row
        ends.append(theta)
    return np.array(ends)


def test_the_limit_of_rows_in_order_is_where_their_epochs_begin_to_grow(project: Path) -> None:
    lay_out()
    columns = table(40, [1.0, 2.0])
    found = diagnosed("nn", columns, PLAIN | {"lr": 0.01, "iterations": 40, "log_every": 40})
    limit = found["diagnosis"]["limit"]
    assert "typical_limit" not in found["diagnosis"]
    assert "stable_lr" not in found["theory"], "a limit of other descent"
    x = np.column_stack([columns["f0"], columns["f1"]])
    with np.errstate(all="ignore"):
        below, above = (np.abs(in_order(x, columns["y"], lr, passes=400)) for lr in (0.98 * limit, 1.02 * limit))
    assert below[-100:].max() <= 1.01 * below[100:300].max() < 1e6
    assert not above[-1].max() < 1e6
    grown = diagnosed("nn", columns, PLAIN | {"lr": 1.02 * limit, "iterations": 40 * 5, "log_every": 40})
    assert (grown["state"], grown["diagnosis"]["limit"]) == ("growing", limit)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_the_limits_of_shuffled_batches_are_where_runs_begin_to_grow(project: Path, batch_size: int) -> None:
    """Nearly all runs from the typical limit on; the mean square, which a few runs make, before."""
    lay_out()
    columns = table(40, [1.0, 2.0])
    settings = PLAIN | {"lr": 0.01, "epochs": 2, "batch_size": batch_size}
    found = diagnosed("minibatch", columns, settings)["diagnosis"]
    assert found["limit"] <= found["typical_limit"]
    x = np.column_stack([columns["f0"], columns["f1"]])
    for share, grows in ((0.85, False), (1.15, True)):
        lr = share * found["typical_limit"]
        with np.errstate(all="ignore"):
            ends = np.abs(simulated(x, columns["y"], batch_size, lr, passes=200, runs=6))[:, -1].max(axis=1)
        assert np.median(np.nan_to_num(ends, nan=np.inf)) > 1e6 or not grows
        assert np.median(ends) < 1e6 or grows


def test_at_the_learning_rate_named_runs_hover_within_what_the_data_tell(project: Path) -> None:
    lay_out()
    columns = table(200, [1.0, 1.0], noise=2.0)
    found = diagnosed("minibatch", columns, PLAIN | {"lr": 0.5, "epochs": 40})["diagnosis"]
    assert found["lr"] < 0.5
    x, y = np.column_stack([columns["f0"], columns["f1"]]), columns["y"]
    exact = least_squares(x, y)
    assert exact is not None
    e = simulated(x, y, 10, found["lr"], passes=100, runs=10) - exact.theta
    X = with_ones(x)
    measured = np.einsum("rki,ij,rkj->r", e, X.T @ X / 200, e) / (2 * e.shape[1])
    assert measured.mean() == pytest.approx(found["allowed"], rel=0.2)


def test_a_few_features_are_named_of_which_a_combination_separates(project: Path) -> None:
    lay_out()
    columns = classes(60, 4, apart=0.0)
    columns["f1"] = columns["f2"] + np.where(columns["label"] == 1, 0.5, -0.5)
    found = diagnosed("logistic", columns, GENERAL | {"lr": 0.1, "iterations": 30})
    assert found["diagnosis"]["separating_together"] == "f1, f2"
    assert 0 < found["quantity"]["accuracy_unseen"]["fitted"] <= 1


def test_where_the_squares_of_probabilities_are_flat_the_command_changes_the_loss(project: Path) -> None:
    """The article's own settings, of gradients that are never zeroed, on classes that overlap."""
    lay_out()
    columns = classes(60, 3, apart=1.5)
    settings: dict[str, object] = {"form": "general", "standardize": True, "stop_below": None, "lr": 1.0}
    found = diagnosed("logistic", columns, settings)
    assert (found["state"], found["diagnosis"]) == ("swinging", {})
    found = diagnosed("logistic", columns, settings | {key.rpartition(".")[2]: v for key, v in found["mend"].items()})
    assert (found["state"], found["settings"]["train.logistic.loss"]["value"]) == ("finished", "bce")
