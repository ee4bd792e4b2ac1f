"""data/<data set>.csv: drawn from the seed as the settings say, or a copy of one's own CSV, its numbers unchanged."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, norm, uniform

from stages import generate_data
from stages.common.errors import UserError
from stages.common.files import TEMPORARY, Columns, read_csv, significant
from stages.generate_data import MODELS, draw, to_significant
from tests.clones import set_param
from tests.conftest import DEFAULTS, Run, with_changes

SEEDS = [0, 1, 12345]


def drawn(data_set: str, **changes: object) -> Columns:
    """A data set at its default settings save for the changes: `drawn("line", seed=3)`."""
    return draw(with_changes(getattr(DEFAULTS.data, data_set), **changes))


def as_lists(columns: Columns) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in columns.items()}


# --- drawn data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("data_set", MODELS)
def test_rows_follow_from_the_seed_and_have_the_digits_of_the_file(data_set: str, seed: int) -> None:
    once, again, other = (drawn(data_set, seed=s) for s in (seed, seed, seed + 1))
    assert as_lists(once) == as_lists(again) != as_lists(other)
    assert all(value == significant(value) for column in once.values() for value in column)


def floats_of_all_kinds(size: int) -> Iterator[np.ndarray]:
    """Usual ones, any bits, ties of the eleventh digit and powers of ten, both with their neighbours, and the ends."""
    random = np.random.default_rng(0)
    yield random.normal(size=size)
    yield random.normal(size=size) * 10.0 ** random.uniform(
        -16, 13, size
    )  # within the powers that are exact, and beyond
    yield random.integers(0, 2**64, size, dtype=np.uint64).view(float)
    ties = (random.integers(10**9, 10**10, size) + 0.5) * 10.0 ** random.integers(-22, 3, size)
    powers = np.array([float(f"1e{exponent}") for exponent in range(-323, 309)])
    almost = (powers * (1 - np.arange(1, 100)[:, np.newaxis] * 1e-11)).ravel()  # rounded up to a power, or not
    for values in (ties, powers, -powers, almost):
        yield np.concatenate([values, np.nextafter(values, 0), np.nextafter(values, np.inf)])
    yield np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, np.finfo(float).tiny, np.finfo(float).max])
    yield np.array([[0.1 + 0.2, 9999999999.5], [-9999999999.4, 99999999995.0]])


@pytest.mark.parametrize("size", [100_000, pytest.param(3_000_000, marks=pytest.mark.slow)])
def test_all_numbers_are_rounded_as_one_by_one(size: int) -> None:
    """Bit for bit: the CSV holds exactly what was computed with."""
    for values in floats_of_all_kinds(size):
        one_by_one = np.array([significant(value) for value in values.ravel().tolist()]).reshape(values.shape)
        rounded = to_significant(values)
        is_number = ~np.isnan(one_by_one)
        np.testing.assert_array_equal(rounded[is_number].view(np.int64), one_by_one[is_number].view(np.int64))
        assert np.isnan(rounded[~is_number]).all()


@pytest.mark.parametrize(
    ("weights", "names"),
    [([3.0], ["x", "y"]), ([2.0, -3.4], ["x1", "x2", "y"]), ([1.0, 0.0, -1.0, 1e3], ["x1", "x2", "x3", "x4", "y"])],
)
def test_without_noise_every_row_lies_on_the_plane(weights: list[float], names: list[str]) -> None:
    columns = drawn("plane", weights=weights, bias=0.8, noise=0)
    assert list(columns) == names
    *x, y = np.array(list(columns.values()))
    assert len(y) == 1000
    # y is rounded to 10 significant digits, its sum of products to eps times the largest of them
    np.testing.assert_allclose(y, weights @ np.array(x) + 0.8, rtol=5.1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_numbers_are_independent_and_have_the_distribution_that_is_asked_for(seed: int) -> None:
    rows = 10_000
    x = {"distribution": "normal", "mean": 7.0, "sd": 2.0}
    plane = drawn("plane", seed=seed, rows=rows, x=x, weights=[1.0, 2.0], bias=3.0, noise=0.5)
    x1, x2, y = np.array(list(plane.values()))
    between = {"distribution": "uniform", "low": -3.0, "high": 9.0}
    line = drawn("line", seed=seed, rows=rows, x=between)
    clusters = drawn("clusters", seed=seed, rows_per_cluster=rows, centers=[[1, -2], [-3, 4]], std=2)
    assert list(clusters["label"]) == [0] * rows + [1] * rows
    a, b = np.split(np.array([clusters["x"], clusters["y"]]), 2, axis=1)  # of each class, (coordinate, row)

    noise = y - x1 - 2 * x2 - 3
    expected: list[tuple[Any, Any]] = [
        (x1, norm(7, 2)),
        (x2, norm(7, 2)),
        (noise, norm(0, 0.5)),
        (line["x"], uniform(-3, 12)),
    ]
    expected += [(a[0], norm(1, 2)), (a[1], norm(-2, 2)), (b[0], norm(-3, 2)), (b[1], norm(4, 2))]
    for values, distribution in expected:
        assert kstest(values, distribution.cdf).pvalue > 1e-4
    assert -3 <= min(line["x"]) < max(line["x"]) <= 9
    for together in ([x1, x2, noise], [*a, *b]):
        assert np.abs(np.corrcoef(together) - np.eye(len(together))).max() < 5 / np.sqrt(rows)  # standard errors


# --- the stage -------------------------------------------------------------------------------------------------------


def run_stage(monkeypatch: pytest.MonkeyPatch, data_set: str) -> None:
    monkeypatch.setattr(sys, "argv", ["generate_data", data_set])
    generate_data.main()


def use_own_csv(data_set: str, content: str) -> None:
    Path("data/raw/own.csv").write_text(content, encoding="utf-8")
    set_param(Path(), f"data.{data_set}.file", "data/raw/own.csv")


@pytest.mark.parametrize(
    ("data_set", "content", "message"),
    [
        ("line", "a,b,y\n1,2,3\n4,5,6\n", "expected 1 feature for this experiment, found 2 (a, b); remove columns"),
        ("noisy_line", "a,b,y\n1,2,3\n4,5,6\n", "expected 1 feature for this experiment, found 2 (a, b)"),
        ("plane", "a,b,label\n1,2,3\n4,5,6\n", "no column 'y', found a, b, label"),
        ("stream", "x,y\n1,2\n3,four\n", "row 2 (line 3), column 'y': expected a finite number, found 'four'"),
        ("clusters", "x,label\n1,0\n2,1\n3,2\n", "column 'label' must hold exactly two classes, found 3: 0, 1, 2"),
    ],
)
def test_a_bad_csv_of_ones_own_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, data_set: str, content: str, message: str
) -> None:
    use_own_csv(data_set, content)
    with pytest.raises(UserError) as refusal:
        run_stage(monkeypatch, data_set)
    assert str(refusal.value).startswith(f"data/raw/own.csv: {message}")
    assert not Path(f"data/{data_set}.csv").exists()


def test_a_refusal_is_one_message_and_leaves_every_file_as_it_was(refused: Run) -> None:
    use_own_csv("plane", "")
    Path("data/plane.csv").write_text("from an earlier run")
    assert refused("generate_data", "plane").stderr.startswith("error: data/raw/own.csv: is empty")
    TEMPORARY.touch()  # a file where it needs a folder
    message = refused("generate_data", "line").stderr
    assert message.startswith(f"error: data/line.csv: can't be written by way of {TEMPORARY}/: File exists; see that")


@pytest.mark.parametrize("data_set", ["clusters", "stream"])
def test_numbers_of_ones_own_pass_unchanged(project: Path, monkeypatch: pytest.MonkeyPatch, data_set: str) -> None:
    own = {
        "längd": [0.1, 1 / 3, 5e-324, 2**53 + 1.0],
        "label": [7.0, -1.5] * 2,
        "y": [-1e-17, 1.2345678901234567e149] * 2,
    }
    use_own_csv(data_set, "\n".join(",".join(map(str, row)) for row in [own, *zip(*own.values(), strict=True)]))
    run_stage(monkeypatch, data_set)
    assert read_csv(Path(f"data/{data_set}.csv")) == own


@pytest.mark.parametrize("data_set", MODELS)
def test_the_stage_draws_what_the_function_draws(project: Path, monkeypatch: pytest.MonkeyPatch, data_set: str) -> None:
    run_stage(monkeypatch, data_set)
    assert read_csv(Path(f"data/{data_set}.csv")) == as_lists(drawn(data_set))
