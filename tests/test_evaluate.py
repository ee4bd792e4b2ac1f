"""What evaluate hands over: JSON and CSV of values, and figures whose moving parts lie where the axes say."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pytest

from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_csv, read_json, significant
from stages.evaluate.figures import MAX_FRAMES, MAX_POINTS, STYLE, as_svg, axes_of, evenly_spaced, loss_drawing
from stages.theory.bowl import Bowl
from stages.theory.least_squares import least_squares
from tests.evidence import (
    ODD,
    ODD_TABLE,
    at,
    committed,
    drawn_dot,
    drawn_line,
    evaluate,
    lay_out,
    numbers,
    off_line,
    rerun,
)

AXES = {"x0", "x1", "y0", "y1", "left", "right", "top", "bottom", "log"}
ALWAYS = {
    "state",
    "diagnosis",
    "article",
    "train",
    "run",
    "rows",
    "repetitions",
    "settings",
    "quantity",
    "check",
    "error",
    "log10_error",
}
QUANTITY = {"label", "column", "true", "exact", "predicted", "fitted", "published", "exact_standard_error", "verdict"}
ESTIMATES = {"percentile_low", "percentile_high", "percentile_error", "low", "high", "standard_error"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every experiment is evaluated, and in own/ minibatch on data with odd names."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "own").mkdir()
    with chdir(folder):
        lay_out()
        for experiment in EXPERIMENTS:
            evaluate(experiment)
    with chdir(folder / "own"):
        lay_out()
        rerun("minibatch", {}, ODD_TABLE)
    return folder


def leaves(tree: object, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested objects with the keys that lead to them."""
    if not isinstance(tree, dict):
        yield keys, tree
        return
    for key, value in tree.items():
        assert isinstance(key, str)
        yield from leaves(value, *keys, key)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*EXPERIMENTS, "own/minibatch"])
def test_an_evaluation_is_nested_numbers_and_texts_under_known_keys(evaluated: Path, path: str) -> None:
    own, _, experiment = path.rpartition("/")
    reports = evaluated / own / "reports"
    text = (reports / f"evaluation/{experiment}.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=pytest.fail)
    assert set(found) - {"answer", "chosen_seeds", "mend"} == ALWAYS | {"theory", "figure", "axes"}
    for keys, value in leaves(found):
        assert isinstance(value, str | int | float) or keys[0] == "mend", keys
        assert not set(ODD) & set(keys)
        assert not isinstance(value, float) or value == significant(value, 10), keys
        if keys[0] == "quantity":
            assert keys[2] in QUANTITY | ESTIMATES
            assert isinstance(value, str) is (keys[2] in ("label", "column", "published", "verdict"))
            assert keys[2] not in ESTIMATES or value == significant(float(value), 6), keys
    assert {check["verdict"] for check in found["check"].values()} <= {"held", "failed", "not applicable"}
    assert [set(axes) for axes in found["axes"].values()] == [AXES, AXES]
    assert {path.stem for path in (reports / f"figures/{experiment}").iterdir()} == set(found["figure"])
    assert list(found["figure"])[:2] == list(found["axes"]) == ["fit", "loss"]
    assert any("exact_standard_error" in quantity for quantity in found["quantity"].values()) is bool(own)
    columns = [quantity.get("column") for quantity in found["quantity"].values()]
    assert columns == ([*ODD, *[None] * 4] if own else [None] * len(columns))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_course_is_the_history_and_its_last_row_lies_where_it_was_drawn(evaluated: Path, experiment: str) -> None:
    reports, e = evaluated / "reports", committed(experiment)
    course = {name: np.array(column) for name, column in read_csv(reports / f"evaluation/{experiment}.csv").items()}
    assert list(course) == ["iteration", "loss", *e.names, "p", "q", "r"]
    for name in ("iteration", "loss", *e.names):
        np.testing.assert_array_equal(course[name], e.history[name])
    axes = read_json(reports / f"evaluation/{experiment}.json")["axes"]
    fit, loss = ((reports / f"figures/{experiment}/{name}.svg").read_text(encoding="utf-8") for name in ("fit", "loss"))
    assert off_line(drawn_line(fit), axes["fit"], [course[name][-1] for name in "pqr"]) < 0.02
    dot = at(axes["loss"], course["iteration"][-1], max(course["loss"][-1], axes["loss"]["y0"]))
    np.testing.assert_allclose(drawn_dot(loss), dot, atol=0.02)


@pytest.mark.parametrize("experiment", ["manual", "noisy"])
def test_an_evaluation_decomposes_each_loss_once_and_gives_the_same_bytes_again(
    evaluated: Path, project: Path, experiment: str
) -> None:
    """The Hessian of the data, of those with other last bits, and of the others of scaled and raw features."""
    lay_out()
    with (
        patch("stages.theory.models.Bowl", wraps=Bowl) as decomposed,
        patch("stages.theory.models.least_squares", wraps=least_squares) as of_csv,
    ):
        evaluate(experiment)
    assert (decomposed.call_count, of_csv.call_count) == (3, 1)
    paths = [*Path(f"reports/figures/{experiment}").iterdir(), *Path("reports/evaluation").glob(f"{experiment}.*")]
    assert [path for path in paths if path.read_bytes() != (evaluated / path).read_bytes()] == []


# --- runs of all kinds -----------------------------------------------------------------------------------------------


def quantity(found: dict[str, Any], column: str) -> dict[str, Any]:
    """A column of the table of parameters, where it is there."""
    return {name: row[column] for name, row in found["quantity"].items() if column in row and name[0] in "wb"}


CLUSTERS = {"f1": numbers(40, 1), "f2": numbers(40, 2), "f3": numbers(40, 3), "label": [2.0, 5.0] * 20}
GENERAL = {"train.logistic.form": "general", "train.logistic.iterations": 20}


@pytest.mark.parametrize("features", [1, 3])
def test_a_general_boundary_over_any_number_of_features_but_not_of_zeros(project: Path, features: int) -> None:
    lay_out()
    found = rerun("logistic", GENERAL, {name: CLUSTERS[name] for name in [*list(CLUSTERS)[:features], "label"]})
    course = read_csv(Path("reports/evaluation/logistic.csv"))
    assert [np.isfinite([course[name][row] for name in "pqr"]).all() for row in (0, 1)] == [False, True]
    assert len(quantity(found, "exact")) == features + 1
    assert bool(quantity(found, "standard_error")) == (found["state"] == "finished")
    assert found["theory"] == {"maximum_likelihood_exists": True}


def test_an_own_csv_has_no_truth_and_nothing_published_but_an_exact_solution(project: Path) -> None:
    lay_out()
    norris = {"data.line.file": "data/raw/norris.csv", "train.manual.standardize": True, "replicate.count": 500}
    found = rerun("manual", norris)
    assert set(found["error"]) == {"exact", "theory"}
    assert quantity(found, "true") == quantity(found, "published") == {}
    assert quantity(found, "column") == {}, "of one there is nothing to say"
    assert quantity(found, "exact")["w"] == pytest.approx(1.0021168)
    assert quantity(found, "exact_standard_error")["w"] == pytest.approx(0.00042979684)
    assert quantity(found, "standard_error")["w"] == pytest.approx(0.00043, rel=0.33), "by bootstrap, of 36 rows"
    differing = {key: row for key, row in found["settings"].items() if row["differs"]}
    assert differing["data.line.file"] == {"value": "data/raw/norris.csv", "article": "null", "differs": True}
    assert {key for key in found["settings"] if key.startswith("data.")} == {
        f"data.line.{key}" for key in ("file", "target", "features")
    }


@pytest.mark.parametrize(
    ("experiment", "own"), [("nn", None), ("minibatch", {"a": numbers(9, 1), "b": numbers(9, 3), "y": numbers(9, 2)})]
)
def test_one_repetition_is_the_whole_range_of_its_repetitions(
    project: Path, experiment: str, own: dict[str, list[float]] | None
) -> None:
    lay_out()
    found = rerun(experiment, {"replicate.count": 1, **({} if own else {"train.nn.iterations": 20})}, own)
    columns = read_csv(Path(f"reports/replicates/{experiment}.csv"))
    ends = quantity(found, "low")
    assert ends == quantity(found, "high") == {name: significant(columns[name][0], 6) for name in ends}
    assert set(ends) == {name for name in found["quantity"] if name[0] in "wb"}
    assert quantity(found, "standard_error") == {}, "one says nothing of a spread"
    assert not [check for check in found["check"].values() if check["verdict"] == "failed"]


@pytest.mark.parametrize(
    ("experiment", "settings", "own", "absent"),
    [
        # diverges
        ("noisy", {"train.noisy.zero_grad": True}, None, ["answer", "quantity.iterations.predicted"]),
        ("minibatch", {}, {"a": numbers(9, 1), "b": numbers(9, 3), "y": numbers(9, 2)}, ["check.printed_rows"]),
        ("manual", {"train.manual.lr": 1e-9, "train.manual.log_every": 7}, None, []),
        ("logistic", {"data.clusters.std": 1e-300}, None, ["quantity.w.true"]),  # out of range
        ("logistic", GENERAL, {**CLUSTERS, "f1": [0.0] * 40}, ["quantity.w1.exact"]),  # a free weight
        ("logistic", GENERAL, {"f": [-1.0, 1.0] * 9, "label": [0.0, 1.0] * 9}, ["quantity.w.exact"]),  # separable
        ("minibatch", {}, {"a": numbers(9, 1), "b": numbers(9, 1), "y": numbers(9, 2)}, ["quantity.w1.exact"]),
        ("minibatch", {}, {"a": [0.0] * 9, "b": numbers(9, 1), "y": numbers(9, 2)}, ["theory.condition_number"]),
        ("manual", {}, {"x": [1.0, 2.0], "y": [2.0, 4.0]}, ["quantity.w.exact_standard_error"]),  # no rows to spare
        ("nn", {"data.stream.rows": 50, "train.nn.iterations": 20}, None, ["quantity.w.published"]),
    ],
)
def test_what_is_not_known_has_no_key(
    project: Path,
    experiment: str,
    settings: dict[str, object],
    own: dict[str, list[float]] | None,
    absent: list[str],
) -> None:
    lay_out()
    found = {".".join(keys): value for keys, value in leaves(rerun(experiment, settings, own))}
    assert not [key for key in found for name in absent if key == name or key.startswith(f"{name}.")]
    assert "nan" not in Path(f"reports/evaluation/{experiment}.json").read_text(encoding="utf-8").lower()
    for path in Path(f"reports/figures/{experiment}").iterdir():
        ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 made here


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_xml_in_both_colour_schemes(evaluated: Path) -> None:
    for path in evaluated.rglob("figures/*/*.svg"):
        svg = path.read_text(encoding="utf-8")
        tree = ET.fromstring(svg)  # noqa: S314 made here
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
        assert "prefers-color-scheme:dark" in svg
        assert not re.findall(r"(?:fill|stroke): #", svg), "a colour that would not turn dark"
        assert set(re.findall(r'(?:id="|url\(#|href="#)(\w+-\w+)', svg)) == {f"{path.parent.name}-{path.stem}"}


@pytest.mark.parametrize("name", ["#0072b2", 'id="x" url(#a)', "溫度 [°C]", "naïve ☃", "$x^2$"])
def test_a_column_keeps_its_name_in_a_figure(project: Path, name: str) -> None:
    lay_out()
    rerun("manual", {"train.manual.iterations": 3}, {name: numbers(9, 1), "y": numbers(9, 2)})
    assert name in [node.text for node in ET.parse("reports/figures/manual/fit.svg").iter()]  # noqa: S314


@pytest.mark.parametrize("count", [1, 2, 3, 499, 500, 501, 5000])
def test_indices_are_evenly_spaced_from_the_first_to_the_last(count: int) -> None:
    chosen = evenly_spaced(count, 500)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, min(count, 500))
    assert count == 1 or np.ptp(np.diff(chosen)) <= 1


def test_large_data_and_long_histories_are_thinned_and_captions_say_so(project: Path) -> None:
    lay_out()
    found = rerun("nn", {"train.nn.log_every": 1, "train.nn.iterations": 600})
    assert found["figure"]["fit"]["caption"] == "Data (5,000 rows, 1,000 of them drawn) with the fitted line."
    assert "500 of 601 recorded iterations drawn" in found["figure"]["loss"]["caption"]
    assert Path("reports/figures/nn/fit.svg").read_text(encoding="utf-8").count("<use ") < MAX_POINTS + 100
    assert len(read_csv(Path("reports/evaluation/nn.csv"))["loss"]) == MAX_FRAMES


@pytest.mark.parametrize("loss", [[0.0, 0.0], [1.0, 1e-5, 0.0], [1.0, 1e200, 7e306], [1e-300, 1e-301]])
def test_a_dot_can_be_placed_for_any_losses(loss: list[float]) -> None:
    """Rounded losses can be 0, which a log scale has no place for; those of a run that diverges are huge."""
    e, rows = committed("manual"), len(loss)
    history = {**{name: values[:rows] for name, values in e.history.items()}, "loss": np.array(loss)}
    with mpl.rc_context(fname=STYLE):
        drawing = loss_drawing(replace(e, history=history), [])
        dot = drawn_dot(as_svg(drawing.figure, "manual-loss"))
    axes = axes_of(drawing.figure)
    np.testing.assert_allclose(dot, at(axes, history["iteration"][-1], max(loss[-1], axes["y0"])), atol=0.02)
    assert axes["top"] - 0.01 <= dot[1] <= axes["bottom"] + 0.01
