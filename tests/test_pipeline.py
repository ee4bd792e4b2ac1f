"""The real `dvc repro`, in a clone in a temporary folder."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from stages.common.params import Data, Train

ROOT = Path(__file__).parent.parent
RELATIVE = 1e-6  # what another processor's rounding may change in a committed number
DATA_STAGES = {f"generate-data@{name}" for name in Data.model_fields}
FIT_STAGES = {f"{verb}{name}" for name in Train.model_fields for verb in ("train-", "replicate@")}


def run(clone: Path, *command: str, code: int = 0) -> str:
    """Standard output and error of a command in the clone, with this environment's Python first on PATH."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(clone.parent)}
    done = subprocess.run(
        command, cwd=clone, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def dvc(clone: Path, *arguments: str, code: int = 0) -> str:
    return run(clone, sys.executable, "-m", "dvc", *arguments, code=code)


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':", output, flags=re.MULTILINE))


def change(clone: Path, key: str, value: object) -> None:
    tree = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
    *groups, leaf = key.split(".")
    group = tree
    for name in groups:
        group = group[name]
    group[leaf] = value
    (clone / "params.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")


def git_status(clone: Path) -> list[str]:
    return run(clone, "git", "status", "--porcelain").splitlines()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone of the tracked files, as they are now, would hold; no cache, no environment."""
    clone = tmp_path_factory.mktemp("clone") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    run(clone, "git", "init", "--quiet")
    run(clone, "git", "config", "user.name", "test")
    run(clone, "git", "config", "user.email", "test@example.org")
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--message=all")
    return clone


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


@pytest.mark.xdist_group("pipeline")
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


@pytest.mark.xdist_group("pipeline")
def test_a_learning_rate_reruns_its_fits_and_the_report_only(reproduced: Path) -> None:
    change(reproduced, "train.nn.lr", 0.02)
    assert stages_run(dvc(reproduced, "repro")) == {"check-params", "train-nn", "replicate@nn", "report"}


@pytest.mark.xdist_group("pipeline")
def test_a_target_runs_only_what_it_needs(clone: Path) -> None:
    assert stages_run(dvc(clone, "repro", "--force", "train-nn")) == {
        "check-params",
        "generate-data@stream",
        "train-nn",
    }


@pytest.mark.xdist_group("pipeline")
def test_a_fault_in_params_stops_before_anything_changes(reproduced: Path) -> None:
    change(reproduced, "train.noisy.lrr", 0.1)
    output = dvc(reproduced, "repro", code=255)
    assert "train.noisy: unknown key 'lrr'; did you mean 'lr'?" in output
    assert "Traceback" not in output
    assert stages_run(output) == {"check-params"}
    assert git_status(reproduced) == [" M params.yaml"]


@pytest.mark.xdist_group("pipeline")
def test_an_empty_params_yaml(reproduced: Path) -> None:
    (reproduced / "params.yaml").write_text("", encoding="utf-8")
    output = dvc(reproduced, "repro", code=255)
    assert "params.yaml: is empty; expected the groups data, train, replicate" in output
    assert git_status(reproduced) == [" M params.yaml"]


@pytest.mark.xdist_group("pipeline")
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
