"""What DVC shows of a fresh clone, without cache or remote: parameters, metrics, plots, stages, and what changed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from stages.common.experiments import EXPERIMENTS
from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT

SHOWN_DECIMALS = 5  # DVC's default
NOISY = ("reports/metrics/noisy.json", "reports/evaluation/noisy.json")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of two commits: in the first, noisy's learning rate and its loss curve were others."""
    clone = clone_into(tmp_path_factory.mktemp("views") / "project")
    params, history = (clone / "params.yaml").read_bytes(), clone / "reports/history/noisy.csv"
    set_param(clone, "train.noisy.lr", 0.05)
    shutil.copy(clone / "reports/history/nn.csv", history)
    for path in NOISY:
        text = (clone / path).read_text(encoding="utf-8")
        (clone / path).write_text(re.sub(r'("loss": )[\d.]+', r"\g<1>1.5", text), encoding="utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message=another learning rate")
    (clone / "params.yaml").write_bytes(params)
    for path in ("reports/history/noisy.csv", *NOISY):
        shutil.copy(ROOT / path, clone / path)
    run(clone, "git", "commit", "--quiet", "--all", "--message=back")
    return clone


def test_params_diff(clone: Path) -> None:
    assert dvc(clone, "params", "diff") == ""
    assert re.search(r"params.yaml +train.noisy.lr +0.05 +0.1", dvc(clone, "params", "diff", "HEAD~1"))


def test_metrics_show_every_number_and_nothing_but_numbers_and_words(clone: Path) -> None:
    shown = json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]
    assert set(shown) == {f"reports/metrics/{name}.json" for name in EXPERIMENTS} | {"reports/summary.json"}
    for path, entry in shown.items():
        assert entry["data"] == json.loads((clone / path).read_text(encoding="utf-8")), "a list or a null was dropped"


def test_no_number_is_only_shown_as_zero_where_it_is_not(clone: Path) -> None:
    """DVC rounds to five decimals: what that makes 0.0 has its logarithm beside it."""
    for name in EXPERIMENTS:
        metrics = json.loads((clone / f"reports/metrics/{name}.json").read_text(encoding="utf-8"))
        for key, value in flat(metrics).items():
            if value and round(value, SHOWN_DECIMALS) == 0:
                assert key == "loss"
                assert metrics["log10_loss"] < -SHOWN_DECIMALS
    summary = flat(json.loads((clone / "reports/summary.json").read_text(encoding="utf-8")))
    assert not [key for key, value in summary.items() if value and round(value, SHOWN_DECIMALS) == 0]


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, float]:
    """The numbers of nested groups by their full names."""
    numbers: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            numbers[prefix + key] = value
    return numbers


def test_metrics_diff(clone: Path) -> None:
    """Also of what `evaluate` found, which is no metric: a bare `dvc metrics show` stays readable."""
    assert dvc(clone, "metrics", "diff") == ""
    for path, key in zip(NOISY, ("loss", "run.loss"), strict=True):
        printed = dvc(clone, "metrics", "diff", "HEAD~1", "--targets", path)
        assert re.search(rf"{path} +{key} +1.5 +484.8\d+ +483.3\d+", printed)


def test_plots_show_curves_and_figures(clone: Path, tmp_path: Path) -> None:
    output = dvc(clone, "plots", "show", "--out", str(tmp_path))
    assert "failed" not in output
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    plots = specs(page)
    assert set(plots) == {"Loss over the whole CSV", *(f"{name}: loss" for name in EXPERIMENTS)}
    for title, plot in plots.items():
        assert plot["data"]["values"], title
        assert plot["encoding"]["y"]["scale"]["type"] == "log"
    figures = list((clone / "reports/figures").rglob("*.svg"))
    assert len(figures) > 2 * len(EXPERIMENTS)
    for figure in figures:
        assert f"{figure.parent.name}_{figure.name}" in page, "an image"


def test_the_joint_figure_holds_every_curve_in_a_colour_of_its_own(clone: Path, tmp_path: Path) -> None:
    dvc(clone, "plots", "show", "losses", "--out", str(tmp_path))
    plot = specs((tmp_path / "index.html").read_text(encoding="utf-8"))["Loss over the whole CSV"]
    drawn = {row["filename"] for row in plot["data"]["values"]}
    assert drawn == {f"{name}.csv" for name in EXPERIMENTS}, "DVC leaves out the folder that all share"
    colour = plot["encoding"]["color"]
    assert colour["field"] == "experiment"
    assert len(set(colour["scale"]["range"])) >= len(EXPERIMENTS)


def test_plots_diff_overlays_two_revisions(clone: Path, tmp_path: Path) -> None:
    assert "failed" not in dvc(clone, "plots", "diff", "HEAD~1", "--out", str(tmp_path))
    plots = specs((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert {row["rev"] for row in plots["noisy: loss"]["data"]["values"]} == {"HEAD~1", "workspace"}
    assert plots["noisy: loss"]["encoding"]["color"]["field"] == "rev"
    assert plots["Loss over the whole CSV"]["encoding"]["strokeDash"]["field"] == "rev"


def specs(page: str) -> dict[str, Any]:
    """The Vega-Lite plots of DVC's page, by title."""
    found = [json.loads(text) for text in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", page, flags=re.DOTALL)]
    return {spec["title"]["text"]: spec for spec in found}


def test_dvcs_page_says_why_it_is_empty_without_a_network() -> None:
    page = (ROOT / ".dvc/plots/page.html").read_text(encoding="utf-8")
    for placeholder in ("{refresh_tag}", "{scripts}", "{plot_divs}"):
        assert page.count(placeholder) == 1
    assert page.index("{scripts}") < page.index("typeof vegaEmbed") < page.index("{plot_divs}")
    assert "reports/index.html" in page


def test_every_stage_is_listed_with_what_it_does(clone: Path) -> None:
    listed = dict(line.split(maxsplit=1) for line in dvc(clone, "stage", "list").splitlines())
    stages = {stage.addressing: str(stage.desc) for stage in Repo(str(ROOT)).index.stages}
    assert set(listed) == set(stages)
    assert [name for name, desc in stages.items() if not listed[name].startswith(desc[:60])] == []
