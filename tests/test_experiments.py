"""DVC's experiments on this project, and the pages on adding an experiment and keeping one, followed to the letter."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.clones import clone_into, dvc, run
from tests.conftest import ROOT


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


# --- the pages -------------------------------------------------------------------------------------------------------

STEP = re.compile(
    r"^(?:In `(?P<file>[^`]+)`, (?P<what>above|below|in place of|delete) `(?P<first>[^`]+)`"
    r"(?: up to (?:`(?P<last>[^`]+)`|(?P<end>the end)))?|Create `(?P<new>[^`]+)`|```console)$",
    re.MULTILINE,
)
BLOCK = re.compile(r"\n*```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(page: str, clone: Path, instead: dict[str, str]) -> int:
    """Does the steps of a page, some commands otherwise; gives the number of lines written, blank ones not counted."""
    text, lines = (ROOT / "docs" / page).read_text(encoding="utf-8"), 0
    for step in STEP.finditer(text):
        is_command = step[0] == "```console"
        block = BLOCK.match(text, step.start() if is_command else step.end())
        if is_command:
            assert block is not None
            for command in block[1].replace("\\\n", "").splitlines():
                run(clone, "sh", "-c", instead.get(command, command))
            continue
        written = "" if step["what"] == "delete" or block is None else block[1]
        lines += sum(bool(line.strip()) for line in written.splitlines())
        path = clone / (step["new"] or step["file"])
        assert path.exists() == (step["new"] is None), path
        path.write_text(written if step["new"] else edited(path, step, written), encoding="utf-8")
    return lines


def edited(path: Path, step: re.Match[str], written: str) -> str:
    """A file's text after a step that names a line of it, or all lines from one up to another, which stays."""
    old = "\n" + path.read_text(encoding="utf-8")
    assert old.count(f"\n{step['first']}\n") == 1, f"{path.name}: {step['first']}"
    first = old.index(f"\n{step['first']}\n") + 1
    after = first + len(step["first"]) + 1
    if step["what"] in ("above", "below"):
        place = first if step["what"] == "above" else after
        return (old[:place] + written + old[place:])[1:]
    if step["last"] or step["end"]:
        after = len(old) if step["end"] else old.index(f"\n{step['last']}\n", first) + 1
    return (old[:first] + written + old[after:])[1:]


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A fresh clone that finds the environment of these tests in .venv, as complete as `make` leaves it."""
    clone = clone_into(tmp_path / "project")
    (clone / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    (clone / ".git/info/exclude").write_text(".venv\n", encoding="utf-8")
    os.utime(clone / "requirements.txt", (0, 0))
    run(clone, "git", "update-index", "--refresh")  # else git would write the file anew, and make install everything
    return clone


def results(clone: Path) -> dict[str, bytes]:
    """The results of every experiment; the summary is of all together."""
    paths = [*(clone / "reports").rglob("*.json"), *(clone / "reports").rglob("*.csv")]
    return {path.relative_to(clone).as_posix(): path.read_bytes() for path in paths if path.name != "summary.json"}


def only(*names: str) -> dict[str, str]:
    """In place of `make test`, the tests that look at the project as a whole."""
    return {"make test": f"{sys.executable} -m pytest -q -n 1 {' '.join(f'tests/test_{name}.py' for name in names)}"}


@pytest.mark.slow
def test_a_seventh_experiment(complete: Path) -> None:
    before = results(complete)
    tests = only("declared", "docs", "graph", "params", "registry", "report", "views")
    assert follow("adding-an-experiment.md", complete, tests) < 100
    run(complete, "make", "lint")
    metrics, found, summary = (
        json.loads((complete / "reports" / name).read_text(encoding="utf-8"))
        for name in ("metrics/momentum.json", "evaluation/momentum.json", "summary.json")
    )
    assert np.allclose([metrics["fitted"]["w"], metrics["fitted"]["b"]], [3, 0.8], atol=0.02)
    assert 1 < found["quantity"]["loss"]["percentile_low"] < 99
    assert summary["checks"]["failed"] == 0
    assert "A line, with momentum" in (complete / "reports/report.md").read_text(encoding="utf-8")
    after = results(complete)
    assert {path: after[path] for path in before} == before, "another experiment's results changed"


@pytest.mark.slow
def test_from_six_experiments_to_one(complete: Path) -> None:
    before = results(complete)
    follow("from-six-to-one.md", complete, {})
    assert dvc(complete, "status") == "Data and pipelines are up to date.\n"
    after = results(complete)
    assert {path.rpartition("/")[2] for path in after} == {"manual.json", "manual.csv"}
    assert {path: before[path] for path in after} == after, "what was kept has other results"
    report = (complete / "reports/report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", report, re.MULTILINE) == ["Linear regression by hand"]
