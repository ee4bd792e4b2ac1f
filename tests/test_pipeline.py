"""The real `dvc repro`, in a clone in a temporary folder."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.clones import clone_with_cache, dvc, run, set_param, stages_run


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_with_cache(tmp_path_factory.mktemp("pipeline") / "project")


@pytest.fixture
def clone(reproduced: Path, tmp_path: Path) -> Path:
    """A clone in which every stage is up to date."""
    return shutil.copytree(reproduced, tmp_path / "project")


def changed_files(clone: Path) -> list[str]:
    return run(clone, "git", "status", "--porcelain").splitlines()


def test_a_forced_run_gives_the_committed_bytes_also_of_the_lock(clone: Path) -> None:
    """A target runs what it needs. All stages at once: test_identity.py."""
    output = dvc(clone, "repro", "--force", "evaluate@manual")
    needed = ["check-params", "generate-data@line", "train-manual", "replicate@manual", "evaluate@manual"]
    assert sorted(stages_run(output)) == sorted(needed)
    assert changed_files(clone) == []
    assert "Traceback" not in output
    assert "it/s" not in output, "a progress bar in a log"
    assert not list((clone / ".tmp").iterdir()), "a temporary file is left"


def test_a_fault_in_params_stops_before_anything_changes(clone: Path) -> None:
    for fault, message in (
        (lambda: set_param(clone, "train.noisy.lrr", 0.1), "train.noisy: unknown key 'lrr'; did you mean 'lr'?"),
        (lambda: (clone / "params.yaml").write_text(""), "params.yaml: is empty; expected the groups data, train"),
    ):
        fault()
        output = dvc(clone, "repro", code=255)
        assert message in output
        assert "Traceback" not in output
        assert stages_run(output) == ["check-params"]
        assert changed_files(clone) == [" M params.yaml"]


@pytest.mark.slow
def test_an_experiment_with_a_csv_of_ones_own(clone: Path, tmp_path: Path) -> None:
    """NIST's certified slope and intercept of Norris to nine significant digits; then what DVC shows of the change."""
    settings = ["-S", "data.line.file=data/raw/norris.csv", "-S", "train.manual.standardize=true"]
    dvc(clone, "exp", "run", *settings, "evaluate@manual")
    fitted = json.loads((clone / "reports/metrics/manual.json").read_text(encoding="utf-8"))["fitted"]
    assert f"{fitted['w']:.9g}" == f"{1.00211681802045:.9g}"
    assert f"{fitted['b']:.9g}" == f"{-0.262323073774029:.9g}"
    compared = dvc(clone, "metrics", "diff", "--targets", "reports/evaluation/manual.json")
    assert re.search(r"\.json +rows +50 +36 +-14\n", compared)
    dvc(clone, "plots", "diff", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots/index.html").read_text(encoding="utf-8")
    assert "HEAD_reports_figures_manual_fit.svg" in page
