"""The pages in docs/, followed to the letter in a fresh clone."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT

STEP = re.compile(
    r"^(?:In `(?P<file>[^`]+)`, (?P<side>above|below) `(?P<line>[^`]+)`|Create `(?P<new>[^`]+)`)$\n\n", re.M
)
# Of `make test` what looks at the project as a whole; the rest tests code that the page leaves as it is.
WHOLE = " ".join(f"tests/test_{name}.py" for name in ("graph", "params", "report", "docs", "views", "selective"))
QUICK_TESTS = f"{sys.executable} -m pytest -q -n 1 {WHOLE}"
FENCE = re.compile(r"```\w*\n(.*?)^```$", re.M | re.S)


def follow(page: str, clone: Path) -> int:
    """Does the edits of a page; gives the number of lines written, blank ones not counted."""
    lines = 0
    for step in STEP.finditer(page):
        block = FENCE.match(page, step.end())
        assert block is not None, step[0]
        text = block[1]
        lines += sum(bool(line.strip()) for line in text.splitlines())
        path = clone / (step["file"] or step["new"])
        if step["new"]:
            assert not path.exists()
            path.write_text(text, encoding="utf-8")
            continue
        old = path.read_text(encoding="utf-8")
        assert old.count(f"\n{step['line']}\n") == 1, f"{path.name}: {step['line']}"
        place = old.index(f"\n{step['line']}\n") + 1 + (len(step["line"]) + 1) * (step["side"] == "below")
        path.write_text(old[:place] + text + old[place:], encoding="utf-8")
    return lines


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone that finds the environment of these tests in .venv, as complete as `make` leaves it."""
    clone = clone_into(tmp_path_factory.mktemp("docs") / "project")
    (clone / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    (clone / ".git/info/exclude").write_text(".venv\n", encoding="utf-8")
    os.utime(clone / "requirements.txt", (0, 0))
    run(clone, "git", "update-index", "--refresh")  # else git would write the file anew, and make install everything
    return clone


EDIT = re.compile(
    r"^Set `(?P<key>[^`]+)` to `(?P<value>[^`]+)` in `params.yaml`|^Append `(?P<text>[^`]+)` to `(?P<file>[^`]+)`"
)
PROMPT = re.compile(r"^\$ ", re.M)


@pytest.mark.slow
def test_what_dvc_decides(clone: Path) -> None:
    """Every command of the page prints what the page says."""
    dvc(clone, "repro")
    page = (ROOT / "docs/how-dvc-decides.md").read_text(encoding="utf-8")
    compared = 0
    for part in page.split("\n\n"):
        if edit := EDIT.match(part):
            if edit["key"]:
                set_param(clone, edit["key"], yaml.safe_load(edit["value"]))
            else:
                with (clone / edit["file"]).open("a", encoding="utf-8") as file:
                    file.write(edit["text"] + "\n")
        elif block := FENCE.match(part + "\n"):
            for command, _, printed in (entry.partition("\n") for entry in PROMPT.split(block[1])[1:]):
                assert run(clone, "sh", "-c", command) == printed, command
                compared += 1
    assert compared == page.count("\n$ ") > 10


@pytest.mark.slow
def test_a_seventh_experiment(clone: Path) -> None:
    page = (ROOT / "docs/adding-an-experiment.md").read_text(encoding="utf-8")
    before = results(clone)
    assert follow(page, clone) < 100
    (commands,) = re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL)
    for command in commands.splitlines():
        run(clone, "sh", "-c", QUICK_TESTS if command == "make test" else command)
    run(clone, sys.executable, "-m", "ruff", "format", "--check")
    run(clone, sys.executable, "-m", "ruff", "check")
    run(clone, sys.executable, "-m", "mypy")
    metrics = json.loads((clone / "reports/metrics/momentum.json").read_text(encoding="utf-8"))
    summary = json.loads((clone / "reports/summary.json").read_text(encoding="utf-8"))
    repeated = json.loads((clone / "reports/replicates/momentum.json").read_text(encoding="utf-8"))
    assert np.allclose([metrics["fitted"]["w"], metrics["fitted"]["b"]], [3, 0.8], atol=0.02)
    assert repeated["random_start"]["loss"]["low"] < metrics["loss"] < repeated["random_start"]["loss"]["high"]
    assert summary["checks"]["failed"] == 0
    assert "A line, with momentum" in (clone / "reports/report.md").read_text(encoding="utf-8")
    after = results(clone)
    assert {path: after[path] for path in before} == before, "another experiment's results changed"


def results(clone: Path) -> dict[str, bytes]:
    """The results of every experiment; the summary is of all together."""
    paths = [*(clone / "reports").rglob("*.json"), *(clone / "reports").rglob("*.csv")]
    return {path.relative_to(clone).as_posix(): path.read_bytes() for path in paths if path.name != "summary.json"}


def test_every_article_is_cited() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    published = yaml.safe_load((ROOT / "data/published.yaml").read_text(encoding="utf-8"))
    published = {name: entry for name, entry in published.items() if entry["article"]["title"] != "none"}
    articles = {(entry["article"]["title"], entry["article"]["date"][:10]) for entry in published.values()}
    cited = {(entry["title"], str(entry.get("date-published", "undated"))) for entry in citation["references"]}
    assert cited == articles
    for name, entry in published.items():
        (notes,) = (ref["notes"] for ref in citation["references"] if ref["title"] == entry["article"]["title"])
        assert re.search(rf"here the experiments? .*\b{name}\b", notes, re.IGNORECASE | re.DOTALL), name


def test_editors_are_offered_dvc_and_yaml() -> None:
    extensions = json.loads((ROOT / ".vscode/extensions.json").read_text(encoding="utf-8"))
    assert {"iterative.dvc", "redhat.vscode-yaml"} <= set(extensions["recommendations"])


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/how-dvc-decides.md", "docs/adding-an-experiment.md"]
)
def test_links_and_make_targets_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile, target
