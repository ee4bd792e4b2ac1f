"""DVC's experiments on this project: run, queued, shown, compared, applied, and swept."""

import json
import re
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from stages.common.files import read_linear_set
from stages.common.params import Params
from tests.clones import clone_into, dvc, run
from tools.sweep import figure, predicted_loss

LIMIT = 0.79  # 2 / largest eigenvalue on manual's data, as the report says


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = clone_into(tmp_path_factory.mktemp("experiments") / "project")
    dvc(clone, "repro", "generate-data")
    return clone


def test_an_experiment_from_run_to_apply(clone: Path) -> None:
    dvc(clone, "exp", "run", "--temp", "--name", "fast", "-S", "train.nn.lr=0.05", "train-nn")
    assert run(clone, "git", "status", "--porcelain") == "", "--temp leaves the folder as it is"
    shown = json.loads(dvc(clone, "exp", "show", "--json"))
    (found,) = [e["revs"][0]["data"] for e in shown[1]["experiments"] if e["revs"][0]["name"] == "fast"]
    assert found["params"]["params.yaml"]["data"]["train"]["nn"]["lr"] == 0.05
    metrics = found["metrics"]["reports/metrics/nn.json"]["data"]
    difference = dvc(clone, "exp", "diff", "HEAD", "fast")
    assert re.search(r"params.yaml +train.nn.lr +0.01 +0.05 +0.04", difference)
    assert re.search(r"reports/metrics/nn.json +log10_loss +-10.3\d+ +-16", difference)
    dvc(clone, "exp", "apply", "fast")
    assert json.loads((clone / "reports/metrics/nn.json").read_text(encoding="utf-8")) == metrics
    assert re.search(r"params.yaml +train.nn.lr +0.01 +0.05", dvc(clone, "params", "diff"))
    run(clone, "git", "checkout", "--quiet", ".")


def test_a_misspelled_key_is_refused_by_dvc_and_an_added_one_by_the_check(clone: Path) -> None:
    assert "Key 'lrr' is not in struct" in dvc(clone, "exp", "run", "-S", "train.nn.lrr=0.05", code=255)
    output = dvc(clone, "exp", "run", "-S", "+train.nn.lrr=0.05", code=255)
    assert "train.nn: unknown key 'lrr'; did you mean 'lr'?" in output
    assert run(clone, "git", "status", "--porcelain") == " M params.yaml\n", "nothing was run"
    run(clone, "git", "checkout", "--quiet", ".")


def test_a_sweep_through_the_queue(clone: Path, params: Params) -> None:
    """Two experiments at a time, below and above the limit of stability; no worker is left."""
    output = run(clone, sys.executable, "-m", "tools.sweep", "--lr", "0.01,0.9", "--seed", "1")
    assert "sweep/manual.svg" in output
    assert run(clone, "git", "status", "--porcelain") == ""
    found = pd.read_csv(clone / "sweep/manual.csv")
    assert found[["lr", "seed", "stopped"]].to_numpy().tolist() == [[0.01, 1, "iterations"], [0.9, 1, "diverged"]]
    table, settings = read_linear_set(clone / "data/line.csv"), params.train.manual
    below = found.iloc[0]
    assert predicted_loss(table, below[["w", "b"]].to_numpy(float), settings, 0.01) == pytest.approx(below["loss"])
    assert (clone / "sweep/manual.svg").read_text(encoding="utf-8") == figure(found, table, settings)
    assert f"predicted limit of stability, {LIMIT}<" in (clone / "sweep/manual.svg").read_text(encoding="utf-8")
    assert set(found["name"]) <= set(dvc(clone, "exp", "list", "--name-only").split())
    assert no_worker_is_left(clone)


def no_worker_is_left(clone: Path, seconds: float = 60) -> bool:
    """Whether DVC's workers end, which they do soon after they are told to."""
    end = time.monotonic() + seconds
    while "Worker status: 0 active, 0 idle" not in dvc(clone, "queue", "status"):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def sweep(clone: Path, lr: str) -> str:
    """What a sweep prints that cannot run."""
    output = run(clone, sys.executable, "-m", "tools.sweep", f"--lr={lr}", "--seed=1", code=1)
    assert output.startswith("error: ")
    assert "Traceback" not in output
    return output


@pytest.mark.slow
def test_an_experiment_that_fails_is_named(clone: Path) -> None:
    name = re.search(r"(sweep\d+-1) did not end well; `dvc queue logs \1` shows why", sweep(clone, "0"))
    assert name is not None
    assert "train.manual.lr: expected a number greater than 0" in dvc(clone, "queue", "logs", name[1])


@pytest.mark.parametrize("lr", ["x(", ""])
def test_a_sweep_of_nonsense_ends_in_one_message(clone: Path, lr: str) -> None:
    assert "failed:" in sweep(clone, lr)


def test_a_sweep_runs_nothing_but_its_own(clone: Path) -> None:
    dvc(clone, "exp", "run", "--queue", "--name", "mine", "-S", "train.nn.lr=0.03", "train-nn")
    assert "DVC's queue holds mine; let it finish" in sweep(clone, "0.1")
    dvc(clone, "queue", "remove", "--queued")


@pytest.mark.slow
def test_a_sweep_in_a_shallow_clone_says_why_it_has_no_results(clone: Path, tmp_path: Path) -> None:
    run(clone, "git", "commit", "--quiet", "--allow-empty", "--message=second")
    run(tmp_path, "git", "clone", "--quiet", "--depth=1", clone.as_uri(), "shallow")
    for name, value in (("user.name", "test"), ("user.email", "test@example.org")):
        run(tmp_path / "shallow", "git", "config", name, value)
    assert "expected 1 experiments of this commit, found 0; a shallow clone" in sweep(tmp_path / "shallow", "0.1")
