"""DVC's experiments on this project: run, queued, shown, compared, applied, and swept."""

import json
import os
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


@pytest.mark.xdist_group("experiments")
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


@pytest.mark.xdist_group("experiments")
def test_a_misspelled_key_is_refused_by_dvc_and_an_added_one_by_the_check(clone: Path) -> None:
    assert "Key 'lrr' is not in struct" in dvc(clone, "exp", "run", "-S", "train.nn.lrr=0.05", code=255)
    output = dvc(clone, "exp", "run", "-S", "+train.nn.lrr=0.05", code=255)
    assert "train.nn: unknown key 'lrr'; did you mean 'lr'?" in output
    assert run(clone, "git", "status", "--porcelain") == " M params.yaml\n", "nothing was run"
    run(clone, "git", "checkout", "--quiet", ".")


@pytest.mark.xdist_group("experiments")
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


def no_worker_is_left(clone: Path, seconds: float = 30) -> bool:
    """Whether DVC's workers of this clone end, which they do soon after they are told to."""
    pids = [int(path.read_text(encoding="utf-8")) for path in (clone / ".dvc/tmp/exps/celery").glob("*.pid")]
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.5)
    return "Worker status: 0 active, 0 idle" in dvc(clone, "queue", "status") and os.getpid() not in pids


@pytest.mark.xdist_group("experiments")
@pytest.mark.parametrize(
    ("lr", "message"), [("0", "experiments failed; `dvc queue status`"), ("x(", "failed:"), ("", "failed:")]
)
def test_a_sweep_that_cannot_run_says_so(clone: Path, lr: str, message: str) -> None:
    output = run(clone, sys.executable, "-m", "tools.sweep", f"--lr={lr}", "--seed=1", code=1)
    assert output.startswith("error: ")
    assert message in output
    assert "Traceback" not in output
