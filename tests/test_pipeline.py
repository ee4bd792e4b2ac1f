"""The real `dvc repro`, in a clone in a temporary folder."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from stages.common.params import Data, Train
from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT

RELATIVE = 1e-6  # what another processor's rounding may change in a committed number
DATA_STAGES = {f"generate-data@{name}" for name in Data.model_fields}
FIT_STAGES = {f"{verb}{name}" for name in Train.model_fields for verb in ("train-", "replicate@")}


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':", output, flags=re.MULTILINE))


def git_status(clone: Path) -> list[str]:
    return run(clone, "git", "status", "--porcelain").splitlines()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone that the tests of this file share."""
    return clone_into(tmp_path_factory.mktemp("clone") / "project")


@pytest.fixture
def reproduced(clone: Path) -> Iterator[Path]:
    """The clone with every stage up to date; put back as it was committed afterwards."""
    dvc(clone, "repro")
    yield clone
    run(clone, "git", "checkout", "--quiet", ".")


def assert_same_numbers(fresh: object, committed: object, where: str) -> None:
    if isinstance(committed, dict):
        assert isinstance(fresh, dict), where
        assert list(fresh) == list(committed), where
        for key, value in committed.items():
            assert_same_numbers(fresh[key], value, f"{where}.{key}")
    elif isinstance(committed, float):
        assert isinstance(fresh, float), where
        assert math.isclose(fresh, committed, rel_tol=RELATIVE, abs_tol=1e-9), where
    else:
        assert fresh == committed, where


def test_a_forced_run_reproduces_what_is_committed(clone: Path) -> None:
    output = dvc(clone, "repro", "--force")
    assert stages_run(output) == {"check-params", "report"} | DATA_STAGES | FIT_STAGES
    assert "Traceback" not in output
    assert "it/s" not in output, "a progress bar in a log"
    for path in sorted((clone / "reports").rglob("*.json")):
        committed = json.loads((ROOT / path.relative_to(clone)).read_text(encoding="utf-8"))
        assert_same_numbers(json.loads(path.read_text(encoding="utf-8")), committed, path.name)
    for path in sorted((clone / "reports").rglob("*.csv")):
        committed = pd.read_csv(ROOT / path.relative_to(clone))
        pd.testing.assert_frame_equal(pd.read_csv(path), committed, rtol=RELATIVE, atol=1e-9)
    assert not list((clone / ".tmp").iterdir()), "a temporary file is left"

    second = dvc(clone, "repro")
    assert stages_run(second) == set()
    assert "up to date" in second


def test_a_learning_rate_reruns_its_fits_and_the_report_only(reproduced: Path) -> None:
    set_param(reproduced, "train.nn.lr", 0.02)
    assert stages_run(dvc(reproduced, "repro")) == {"check-params", "train-nn", "replicate@nn", "report"}


def test_a_target_runs_only_what_it_needs(clone: Path) -> None:
    assert stages_run(dvc(clone, "repro", "--force", "--dry", "train-nn")) == {
        "check-params",
        "generate-data@stream",
        "train-nn",
    }


def test_a_fault_in_params_stops_before_anything_changes(reproduced: Path) -> None:
    set_param(reproduced, "train.noisy.lrr", 0.1)
    output = dvc(reproduced, "repro", code=255)
    assert "train.noisy: unknown key 'lrr'; did you mean 'lr'?" in output
    assert "Traceback" not in output
    assert stages_run(output) == {"check-params"}
    assert git_status(reproduced) == [" M params.yaml"]


def test_an_empty_params_yaml(reproduced: Path) -> None:
    (reproduced / "params.yaml").write_text("", encoding="utf-8")
    output = dvc(reproduced, "repro", code=255)
    assert "params.yaml: is empty; expected the groups data, train, replicate" in output
    assert git_status(reproduced) == [" M params.yaml"]


def test_norris_in_one_experiment(reproduced: Path) -> None:
    """NIST's certified slope and intercept to nine significant digits."""
    dvc(
        reproduced,
        *(
            "exp",
            "run",
            "-S",
            "data.line.file=data/raw/norris.csv",
            "-S",
            "train.manual.standardize=true",
            "train-manual",
        ),
    )
    fitted = json.loads((reproduced / "reports/metrics/manual.json").read_text(encoding="utf-8"))["fitted"]
    assert f"{fitted['w']:.9g}" == f"{1.00211681802045:.9g}"
    assert f"{fitted['b']:.9g}" == f"{-0.262323073774029:.9g}"


def test_the_readme_shows_the_graph() -> None:
    """README.md holds what `dvc dag --mermaid` prints."""
    graph = dvc(ROOT, "dag", "--mermaid").rstrip().replace("\t", "    ")
    assert f"```mermaid\n{graph}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
