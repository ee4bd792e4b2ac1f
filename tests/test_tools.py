"""`make verify` and the comparison that ends `make reproduce`."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clones import clone_into, run, set_param
from tools.compare import differences


@pytest.fixture(scope="session")
def shared_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_into(tmp_path_factory.mktemp("tools") / "ein Ordner für Tests")


@pytest.fixture
def clone(shared_clone: Path) -> Path:
    """A fresh clone, without data and cache, in a folder with spaces and letters beyond ASCII."""
    run(shared_clone, "git", "reset", "--quiet", "--hard")
    run(shared_clone, "git", "clean", "--quiet", "-fdx")
    return shared_clone


def verify(clone: Path, code: int) -> str:
    return run(clone, sys.executable, "-m", "tools.verify", code=code)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_fresh_clone_is_verified(clone: Path) -> None:
    assert verify(clone, code=0).startswith("verified")
    assert run(clone, "git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: set_param(c, "train.nn.lr", 0.02), r"train-nn: changed deps: params.yaml: train.nn is modified"),
        (
            lambda c: edit(c / "stages/train_nn.py", "import torch\n", "import torch  # \n"),
            r"train-nn: .*stages/train_nn.py is modified",
        ),
        (lambda c: edit(c / "data/raw/iris.csv", "4.7", "4.8"), r"generate-data@line: .*data/raw is modified"),
        (
            lambda c: edit(c / "dvc.yaml", "stages.train_${experiment}\n", "stages.train_${experiment} --x\n"),
            r"train-nn: changed command",
        ),
        (
            lambda c: edit(c / "reports/metrics/nn.json", "1.233", "1.234"),
            r"train-nn: changed outs: reports/metrics/nn.json is modified",
        ),
        (lambda c: (c / "reports/report.md").unlink(), r"report: changed outs: reports/report.md is deleted"),
        (
            lambda c: edit(c / "dvc.yaml", "      - stages/common/scaling.py\n", ""),
            r"train-nn: depended on stages/common/scaling.py",
        ),
        (
            lambda c: edit(c / "dvc.yaml", "      - data\n      - train\n", "      - data\n"),
            r"report: depended on the parameters train",
        ),
        (
            lambda c: edit(c / "dvc.yaml", "      - reports/report.md: {cache: false}\n", ""),
            r"report: wrote reports/report.md",
        ),
        (
            lambda c: edit(c / "dvc.lock", "  train-nn:\n", "  train-mm:\n"),
            r"train-nn: stands in dvc.yaml but not in dvc.lock",
        ),
    ],
)
def test_what_does_not_match_is_named(clone: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(clone)
    output = verify(clone, code=1)
    assert re.search(f"^{message}", output, flags=re.MULTILINE), output
    assert "Traceback" not in output


def test_the_hash_of_absent_data_is_compared_where_they_are_used(clone: Path) -> None:
    lock = (clone / "dvc.lock").read_text(encoding="utf-8")
    head, used = lock.split("  train-manual:\n")
    md5 = re.search(r"path: data/line.csv\n\s+hash: md5\n\s+md5: (\w+)", used)
    assert md5 is not None
    (clone / "dvc.lock").write_text(head + "  train-manual:\n" + used.replace(md5[1], "f" * 32, 1), encoding="utf-8")
    assert "train-manual: read another data/line.csv than generate-data@line wrote" in verify(clone, code=1)


@pytest.mark.parametrize(
    ("name", "text"), [("dvc.lock", "stages: ["), ("dvc.yaml", "stages:\n  a: 1\n"), ("params.yaml", "a: [")]
)
def test_what_cannot_be_read_ends_in_a_message(clone: Path, name: str, text: str) -> None:
    (clone / name).write_text(text, encoding="utf-8")
    output = verify(clone, code=1)
    assert "Traceback" not in output
    assert name in output


def compare(clone: Path, code: int = 0) -> str:
    return run(clone, sys.executable, "-m", "tools.compare", code=code)


def test_three_cases_and_a_fourth(clone: Path) -> None:
    """Identical; equal within tolerance; different; and nothing to compare with."""
    assert compare(clone).startswith("identical")
    metrics = clone / "reports/metrics/nn.json"
    edit(metrics, "1.233024252", "1.233024253")
    assert re.match(r"equal within 1e-06.*reports/metrics/nn.json", compare(clone))
    edit(metrics, "1.233024253", "1.233124252")
    output = compare(clone, code=1)
    assert "different: reports/metrics/nn.json: fitted.w: committed 1.233024252, found 1.233124252" in output
    edit(clone / "params.yaml", "lr: 0.01", "lr: 0.02")
    assert "params.yaml was edited since" in compare(clone)


def test_a_lock_that_was_not_committed_is_no_difference_of_results(clone: Path) -> None:
    edit(clone / "dvc.lock", "size: ", "size: 1")
    assert "dvc.lock itself was not that of this commit, commit it" in compare(clone)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: (c / "reports/summary.json").unlink(), "reports/summary.json: the file"),
        (lambda c: (c / "reports/new.csv").write_text("x\n", encoding="utf-8"), "reports/new.csv: the file"),
        (
            lambda c: edit(c / "reports/history/nn.csv", "\n20,", "\n21,"),
            "reports/history/nn.csv: row 2, column iteration",
        ),
        (lambda c: edit(c / "reports/report.md", "Six small fits", "Six fits"), "reports/report.md: words"),
    ],
)
def test_differences_are_named(clone: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(clone)
    assert f"different: {message}" in compare(clone, code=1)


@pytest.mark.parametrize(
    ("path", "committed", "found", "equal"),
    [
        ("a.json", '{"w": 1.0}', '{"w": 1.0000005}', True),
        ("a.json", '{"w": 1.0}', '{"w": 1.000002}', False),
        ("a.json", '{"w": 1.0}', '{"w": 1.0, "b": 2.0}', False),
        ("a.json", '{"w": "loss"}', '{"w": "diverged"}', False),
        ("a.json", '{"k": 3}', '{"k": 4}', False),
        ("a.csv", "k,x\n0,1000\n1,0\n", "k,x\n0,1000\n1,5e-7\n", True),  # 5e-10 of the column's scale
        ("a.csv", "k,x\n0,1000\n1,0\n", "k,x\n0,1000\n1,5e-6\n", False),
        ("a.csv", "k,x\n0,1\n", "k,x\n0,1\n1,1\n", False),
        ("a.csv", "k,x\n0,loss\n", "k,x\n0,diverged\n", False),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="M 1.01 2.00"/>', True),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="M 1.50 2.00"/>', False),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="L 1.00 2.00"/>', False),
    ],
)
def test_tolerance(path: str, committed: str, found: str, equal: bool) -> None:
    assert (not list(differences(path, committed, found))) == equal
