"""The repetitions: a second implementation of all six fits, which goes the same way as the first, on fresh data."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_csv
from stages.common.schema import Replicate
from stages.common.tables import Table
from stages.replicate import manual, nn, noisy, shared
from stages.replicate.logistic import fresh_clusters
from stages.replicate.runs import CHUNK, CHUNK_NUMBERS, CHUNK_ROWS, Moments, Runs, chunks, fresh_linear_sets, with_ones
from stages.train.logistic import accuracy
from stages.train.minibatch import shuffled_batches
from stages.train.recorder import Fit
from stages.train.start import as_tensors
from tests.clones import set_param
from tests.conftest import DEFAULTS, ROOT, draw_table, run_fit, with_changes

Array = np.ndarray
BOTH = (False, True)


def repeated(experiment: str, table: Table, fit: Fit, changes: dict[str, object]) -> Runs:
    """One repetition with the data, the start and the shuffles of a fit, by the second implementation."""
    return side_by_side(experiment, [table], [fit], changes)[0]


def side_by_side(
    experiment: str, tables: list[Table], fits: list[Fit], changes: dict[str, object], record: Sequence[int] = ()
) -> tuple[Runs, Any]:
    """A repetition of each fit, with the shuffles of one seed, and what else `repeat` returns."""
    settings = with_changes(getattr(DEFAULTS.train, experiment), **changes)
    starts = []
    for table, fit in zip(tables, fits, strict=True):
        *weights, b = fit.parameters(row=0).values()
        if getattr(settings, "standardize", False):
            mean, sd = table.features.mean(0), table.features.std(0)
            weights, b = list(weights * sd), b + weights @ mean
        starts.append([*weights, b])
    features, target = (np.stack([getattr(t, name) for t in tables], axis=1) for name in ("features", "target"))
    arguments: list[Any] = [features, target, np.array(starts)]
    if experiment == "minibatch":
        generator = torch.Generator().manual_seed(settings.seed)
        torch.randn((features.shape[2], 1), generator=generator, dtype=torch.float64)  # the start comes first
        batches = shuffled_batches(len(target), settings.batch_size, generator)
        epoch = range(math.ceil(len(target) / settings.batch_size))
        arguments.append(
            np.tile(torch.cat([next(batches) for _ in epoch]).numpy()[:, np.newaxis], len(fits))
            for _ in range(settings.epochs)
        )
    repeat = import_module(f"stages.replicate.{experiment}").repeat
    found = repeat(*arguments, settings, record) if record else repeat(*arguments, settings)
    runs, more = found if isinstance(found, tuple) else (found, None)
    if experiment == "logistic":
        pairs = zip(fits, tables, strict=True)
        assert list(more) == [accuracy(fit, *as_tensors(table), settings.form) for fit, table in pairs]
    assert isinstance(runs, Runs)
    return runs, more


def assert_same_end(runs: Runs, fit: Fit, r: int = 0) -> None:
    """Losses and parameters to 1e-9 of the largest on the way."""
    assert (runs.stopped[r], runs.iterations[r]) == (fit.stopped, fit.history["iteration"][-1])
    for name, value in {"loss": runs.loss[r], **dict(zip(fit.parameters(), runs.theta[r], strict=True))}.items():
        column = fit.history[name]
        assert value == pytest.approx(column[-1], rel=0, abs=1e-9 * max(map(abs, column)) + 1e-15), name
    stop_loss = math.nan if fit.stop_loss is None else fit.stop_loss
    assert runs.stop_loss[r] == pytest.approx(stop_loss, rel=1e-6, nan_ok=True)


# --- beside the fits -------------------------------------------------------------------------------------------------

SETTINGS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("manual", {}, {"lr": 0.3}),
    ("manual", {}, {"lr": 0.3, "standardize": True}),
    ("noisy", {}, {"lr": 0.01, "stop_below": None}),
    ("noisy", {}, {"lr": 0.01, "stop_below": None, "standardize": True}),
    ("minibatch", {"rows": 50}, {"batch_size": 10}),
    ("minibatch", {"rows": 50}, {"batch_size": 7, "standardize": True}),
    ("minibatch", {"rows": 50}, {"batch_size": 50}),
    ("nn", {"rows": 30, "noise": 0.1}, {"lr": 0.02}),
    ("nn", {"rows": 30, "weights": [1.2, -0.4, 2.0]}, {"lr": 0.02, "standardize": True}),
    ("shared", {"rows": 30}, {"lr": 0.01}),
    ("logistic", {"std": 2.0}, {"loss": "mse", "stop_below": None}),
    ("logistic", {"std": 2.0}, {"loss": "bce", "stop_below": None}),
    ("logistic", {"std": 2.0}, {"loss": "mse", "form": "general"}),
    ("logistic", {"std": 2.0}, {"loss": "bce", "form": "general", "standardize": True}),
]


@pytest.mark.parametrize("updates", [1, 40])
@pytest.mark.parametrize("zero_grad", BOTH)
@pytest.mark.parametrize(("experiment", "data", "settings"), SETTINGS)
def test_both_implementations_go_the_same_way(
    experiment: str, data: dict[str, object], settings: dict[str, object], zero_grad: bool, updates: int
) -> None:
    table = draw_table(EXPERIMENTS[experiment].data_set, seed=updates, **data)
    length = {"epochs": -(-updates // 10)} if experiment == "minibatch" else {"iterations": updates}
    changes = {**settings, "zero_grad": zero_grad, **length}
    fit = run_fit(experiment, table, **changes)
    assert_same_end(repeated(experiment, table, fit, changes), fit)


@pytest.mark.parametrize(
    ("experiment", "stop_below"),
    [("manual", 0.05), ("noisy", 1.0), ("minibatch", 0.1), ("nn", 1e-3), ("shared", 1e-3), ("logistic", 0.01)],
)
def test_both_implementations_stop_after_the_same_update(experiment: str, stop_below: float) -> None:
    table = draw_table(EXPERIMENTS[experiment].data_set)
    fit = run_fit(experiment, table, stop_below=stop_below)
    assert fit.stopped == "loss"
    assert_same_end(repeated(experiment, table, fit, {"stop_below": stop_below}), fit)


@pytest.mark.parametrize(
    ("x", "stop_below", "stopped", "updates"),
    [
        (1.0, 4.0, "loss", 2),  # 4, the loss at the start, is not below 4
        (1.0, 4.1, "loss", 1),
        (1e80, 4.1, "diverged", 0),  # meets its stop, and its last update overflows
    ],
)
def test_a_repetition_stops_on_a_finite_loss_below_its_stop(
    x: float, stop_below: float, stopped: str, updates: int
) -> None:
    settings = with_changes(DEFAULTS.train.manual, stop_below=stop_below)
    runs, _ = manual.repeat(np.array([[[x]], [[2 * x]]]), np.full((2, 1), 2.0), np.zeros((1, 2)), settings)
    assert (runs.stopped[0], runs.iterations[0]) == (stopped, updates)
    assert (runs.stop_loss[0] < stop_below) == (stopped == "loss")


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        ("manual", {"lr": 2.0}),
        ("noisy", {"zero_grad": True}),
        ("minibatch", {"lr": 9.0, "epochs": 20}),
        ("nn", {"lr": 3.0, "log_every": 7}),
        ("shared", {"lr": 3.0, "log_every": 1}),
    ],
)
def test_both_implementations_diverge_and_end_at_a_finite_observation(
    experiment: str, changes: dict[str, object]
) -> None:
    """Sums that overflow and moments that do may lie an update or two apart."""
    table = draw_table(EXPERIMENTS[experiment].data_set)
    fit = run_fit(experiment, table, **changes)
    runs = repeated(experiment, table, fit, changes)
    assert runs.stopped[0] == fit.stopped == "diverged"
    assert runs.iterations[0] == pytest.approx(fit.history["iteration"][-1], abs=2)
    assert np.isfinite([runs.loss[0], *runs.theta[0]]).all()


@pytest.mark.parametrize(
    ("experiment", "changes", "log_every", "record"),
    [
        ("manual", {"stop_below": 0.5}, 1, [0, 3, 20, 2000]),
        ("minibatch", {}, 2, [0, 100, 200, 300]),  # observes every other epoch and records each
        ("shared", {"iterations": 60}, 20, [0, 40, 60, 80]),
    ],
)
def test_recorded_states_are_those_of_the_fits_history_and_nan_where_a_run_did_not_get(
    experiment: str, changes: dict[str, object], log_every: int, record: list[int]
) -> None:
    table = draw_table(EXPERIMENTS[experiment].data_set)
    fit = run_fit(experiment, table, **changes, log_every=1)
    runs, losses = side_by_side(experiment, [table], [fit], {**changes, "log_every": log_every}, record)
    names = [*fit.parameters(), "loss"]
    history = {k: row for k, *row in zip(fit.history["iteration"], *(fit.history[name] for name in names), strict=True)}
    expected = np.array([history.get(k, [math.nan] * len(names)) for k in record])
    np.testing.assert_allclose(runs.theta_at[:, 0], expected[:, :-1], rtol=1e-9, atol=1e-12)
    if losses is not None:
        np.testing.assert_allclose(np.ravel(losses), expected[:, -1], rtol=1e-9)


def test_repetitions_do_not_disturb_each_other() -> None:
    """Side by side, with runs that stop, run on and diverge, each does what it does alone."""
    generator = np.random.default_rng(5)
    features, target, _ = fresh_linear_sets(DEFAULTS.data.noisy_line, None, 40, generator)
    start = np.column_stack([generator.standard_normal(40), np.zeros(40)])
    looks_rarely = with_changes(DEFAULTS.train.nn, lr=0.003, stop_below=3.0, log_every=7, iterations=300)

    def repeat_noisy(part: slice) -> Runs:
        runs, largest = noisy.repeat(features[:, part], target[:, part], start[part], DEFAULTS.train.noisy)
        Z = np.concatenate([features[:, part], np.ones((20, len(largest), 1))], axis=2)
        np.testing.assert_allclose(largest, np.linalg.eigvalsh(np.einsum("nri,nrj->rij", Z, Z) / 20)[:, -1], rtol=1e-9)
        return runs

    def repeat_nn(part: slice) -> Runs:
        sizes = np.where(np.arange(40) % 4 == 0, 30, 1)[:, np.newaxis]  # of the large ones, all diverge
        return nn.repeat((sizes * features)[:, part], target[:, part], start[part], looks_rarely)

    for repeat in (repeat_noisy, repeat_nn):
        together = repeat(slice(None))
        assert set(together.stopped) == {"loss", "iterations", "diverged"}
        assert np.isfinite(np.column_stack([together.theta, together.loss])).all()
        for r in range(40):
            alone = repeat(slice(r, r + 1))
            assert (alone.stopped[0], alone.iterations[0]) == (together.stopped[r], together.iterations[r])
            np.testing.assert_array_equal(alone.theta[0], together.theta[r])


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        ("manual", {"stop_below": 0.02, "iterations": 1000}),
        ("noisy", {"stop_below": 1.0, "lr": 0.02, "iterations": 200}),
        ("minibatch", {"stop_below": 0.02, "epochs": 40, "log_every": 3, "lr": 0.1}),
        ("nn", {"stop_below": 1e-3, "iterations": 1000, "log_every": 7}),
        ("shared", {"stop_below": 1e-3, "iterations": 1000, "log_every": 7}),
        ("logistic", {"stop_below": 0.02, "iterations": 100}),
    ],
)
def test_repetitions_side_by_side_end_as_the_fit_of_each(experiment: str, changes: dict[str, object]) -> None:
    """Runs that diverge, stop and run on, among each other: data of any size have one of these ends."""
    few = {"rows_per_cluster": 20} if experiment == "logistic" else {"rows": 40}
    table = draw_table(EXPERIMENTS[experiment].data_set, **few)
    tables = [replace(table, features=size * table.features) for size in (100, 0.01, 1, 30, 1.2, 0.1, 0.9, 50, 0.03)]
    fits = [run_fit(experiment, one, **changes) for one in tables]
    ends = [fit.stopped for fit in fits]
    assert set(ends) == {"loss", "iterations", *(["diverged"] if experiment != "logistic" else [])}
    runs, _ = side_by_side(experiment, tables, fits, changes)
    assert runs.stopped.tolist() == ends
    assert np.isfinite(np.column_stack([runs.loss, runs.theta])).all()
    for r, fit in enumerate(fits):
        if fit.stopped == "diverged":  # where the sums overflow and the moments may an update or two later
            assert runs.iterations[r] == pytest.approx(fit.history["iteration"][-1], abs=2)
        else:
            assert_same_end(runs, fit, r)


# --- fresh data ------------------------------------------------------------------------------------------------------


def test_chunks_depend_on_seed_and_experiment_but_not_on_the_count() -> None:
    def drawn(experiment: str, count: int, seed: int = 3) -> list[float]:
        return [
            generator.random()
            for _, generator in chunks(experiment, Replicate(count=count, budget=10**6, seed=seed), (100, 2), 1)
        ]

    few, many = drawn("manual", CHUNK + 1), drawn("manual", 5 * CHUNK)
    assert few == many[:2]
    others = [*drawn("noisy", 5 * CHUNK), *drawn("manual", 5 * CHUNK, seed=4)]
    assert len({*many, *others}) == 15
    for rows, sizes in ((100, [CHUNK, CHUNK, 7]), (CHUNK_ROWS // 400, [400, 400, 207]), (CHUNK_ROWS, [1] * 1007)):
        settings = Replicate(count=2 * CHUNK + 7, budget=10**6, seed=3)
        assert [size for size, _ in chunks("nn", settings, (rows, 1), 1)] == sizes


@pytest.mark.parametrize(("budget", "made"), [(3, 30), (30, 300), (101, 1000), (1, 10), (10**6, 1000)])
def test_the_budget_leaves_fewer_repetitions_and_the_stage_says_so(
    capsys: pytest.CaptureFixture[str], budget: int, made: int
) -> None:
    """A repetition's reading: 1000 rows of 10 parameters in 9 epochs, once for its moments, and their inverse."""
    settings = Replicate(count=1000, budget=budget, seed=3)
    reads = 9 * 1000 * 10
    assert sum(size for size, _ in chunks("nn", settings, (1000, 10), reads)) == pytest.approx(made, abs=1)
    said = capsys.readouterr().out
    assert ("for all of them set replicate.budget" in said) is (made < 1000)
    assert made == 1000 or f"now {budget}, to that" in said


def test_chunks_are_small_where_there_are_many_columns() -> None:
    settings = Replicate(count=1000, budget=10**9, seed=3)
    for shape in ((200, 1001), (100, 10_001), (5000, 101), (CHUNK_ROWS, 4)):
        size, _ = next(chunks("nn", settings, shape, 1))
        assert size == 1 or size * shape[0] * shape[1] <= CHUNK_NUMBERS


def test_of_more_parameters_than_rows_nothing_is_larger_than_the_data() -> None:
    """The moments of 5 rows of 9 numbers would be 9 x 9; what they say is said by the rows."""
    random = np.random.default_rng(0)
    features, target, theta = random.normal(size=(5, 3, 8)), random.normal(size=(5, 3)), random.normal(size=(3, 9))
    wide = Moments(features, target)
    assert wide.G is None
    for part, mine in ((wide, [0, 1, 2]), (wide[np.array([True, False, True])], [0, 2])):
        z = with_ones(features)[:, mine]
        residual = np.einsum("nri,ri->nr", z, theta[mine]) - target[:, mine]
        np.testing.assert_allclose(part.loss(theta[mine]), np.mean(residual**2, axis=0))
        gradient = np.einsum("nri,nr->ri", z, residual) / 5
        np.testing.assert_allclose(part.product(theta[mine]) - part.h, gradient, atol=1e-12)
    assert np.isnan(wide.excess(theta)).all()


@pytest.mark.parametrize(
    ("x", "low", "high", "mean", "sd"),
    [
        ({"distribution": "uniform", "low": -1, "high": 2}, -1, 2, 0.5, math.sqrt(0.75)),
        ({"distribution": "normal", "mean": 5, "sd": 2}, -math.inf, math.inf, 5, 2),
    ],
)
def test_fresh_linear_sets_are_drawn_as_the_settings_say(
    x: dict[str, object], low: float, high: float, mean: float, sd: float
) -> None:
    for noise in (0, 0.1):
        data = with_changes(DEFAULTS.data.plane, rows=400, x=x, weights=[2.0, -1.0], bias=3.0, noise=noise)
        features, target, _ = fresh_linear_sets(data, None, 50, np.random.default_rng(0))
        assert features.shape == (400, 50, 2)
        assert low <= features.min() < features.max() < high
        np.testing.assert_allclose([features.mean(), features.std()], [mean, sd], atol=0.04)
        residual = target - features @ [2, -1] - 3
        assert (residual.mean(), residual.std()) == pytest.approx((0, noise), abs=2e-3)


def test_fresh_clusters_lie_around_their_centres() -> None:
    data = with_changes(DEFAULTS.data.clusters, rows_per_cluster=300, std=0.5)
    features, label, _ = fresh_clusters(data, None, 20, np.random.default_rng(0))
    for value, center in enumerate(data.centers):
        mine = features[label == value]
        assert len(mine) == 300 * 20
        np.testing.assert_allclose([mine.mean(0), mine.std(0)], [center, [0.5, 0.5]], atol=0.03)


def test_the_bootstrap_draws_whole_rows_with_replacement() -> None:
    table = Table(np.array([[1.0], [2.0], [3.0]]), np.array([10.0, 20.0, 30.0]), ["x"], "y")
    for features, target, left_out in (
        fresh_linear_sets(DEFAULTS.data.line, table, 500, np.random.default_rng(0)),
        fresh_clusters(DEFAULTS.data.clusters, table, 500, np.random.default_rng(0)),
    ):
        assert features.shape == (3, 500, 1)
        np.testing.assert_array_equal(10 * features[:, :, 0], target)
        assert len({tuple(sorted(column)) for column in target.T}) == 10, "all multisets of 3 out of 3"
        assert left_out is not None
        np.testing.assert_array_equal(left_out, ~(table.target[:, np.newaxis, np.newaxis] == target).any(axis=1))


def test_runs_are_tried_on_the_rows_that_they_left_out() -> None:
    table = Table(np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 0.0, 1.0]), ["x"], "y")
    left_out = np.array([[True, False, False], [False, True, False], [True, False, False]])
    runs = Runs(np.array([[1.0, 0.0], [0.0, 5.0], [0.0, 0.0]]), limit=1, stop_below=None)
    assert np.isnan(runs.unseen).all()
    np.testing.assert_array_equal(runs.scored(table, left_out).unseen, [(0 + 4) / 2, 25, np.nan])
    np.testing.assert_array_equal(
        runs.scored(table, left_out, shared.squared_errors).unseen, [((1 - 1) ** 2 + (3 - 1) ** 2) / 2, 25, np.nan]
    )


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_share_as_printed_counts_what_rounds_to_all_printed_numbers() -> None:
    w, b = [1.2325001, 1.2334999, 1.2324999, 1.2335001, 1.233], [0.988, 0.9884, 0.988, 0.988, 0.99]
    at_one, at_another = np.column_stack([w, b]), np.full((5, 2), np.nan)
    share = nn.share_as_printed(np.array([at_one, at_another]), {"w": "1.233", "b": "0.988"})
    assert share.tolist() == [0.4, 0]


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_stage_writes_a_row_a_repetition_and_the_same_bytes_again(project: Path, experiment: str, count: int) -> None:
    shutil.copy(ROOT / "data/published.yaml", "data")
    set_param(project, "replicate.count", count)
    written = []
    for _ in range(2):
        import_module(f"stages.replicate.{experiment}").main()
        written.append({path.name: path.read_bytes() for path in Path("reports/replicates").iterdir()})
    assert written[0] == written[1]
    columns = read_csv(Path(f"reports/replicates/{experiment}.csv"))
    assert len(columns["loss"]) == count
    for name, values in columns.items():
        assert name == "stopped" or np.isfinite(values).all()
    for name, column, first, last in (("nn", "iteration", 0, 5000), ("shared", "repetition", 0, count - 1)):
        if name == experiment:
            values = read_csv(Path(f"reports/replicates/{name}-course.csv"))[column]
            assert (values[0], values[-1]) == (first, last)
