"""`make verify`, the comparison that ends `make reproduce`, `make reset`, `make sweep`, and the environment."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import DEFAULTS, ROOT, draw_table, with_changes
from tools.compare import RELATIVE, SINGLE, bar_of, differences
from tools.sweep import bowl_of, predicted_loss, sweep


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
            lambda c: edit(c / "stages/train/nn.py", "import torch\n", "import torch  # \n"),
            r"train-nn: .*stages/train/nn.py is modified",
        ),
        (lambda c: edit(c / "data/raw/iris.csv", "4.7", "4.8"), r"generate-data@line: .*data/raw is modified"),
        (
            lambda c: edit(c / "dvc.yaml", "stages.train.${experiment}\n", "stages.train.${experiment} --x\n"),
            r"train-nn: changed command",
        ),
        (
            lambda c: edit(c / "reports/metrics/nn.json", "1.233", "1.234"),
            r"train-nn: changed outs: reports/metrics/nn.json is modified",
        ),
        (lambda c: (c / "reports/report.md").unlink(), r"report: changed outs: reports/report.md is deleted"),
        (
            lambda c: edit(c / "dvc.yaml", "      - stages/train/scaling.py\n", ""),
            r"train-nn: depended on stages/train/scaling.py",
        ),
        (
            lambda c: edit(c / "dvc.yaml", "        - replicate\n", ""),
            r"replicate@nn: depended on the parameters replicate",
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
    assert re.match(r"equal within 1e-05.*reports/metrics/nn.json", compare(clone))
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
        ("a.json", '{"w": 1.0}', '{"w": 1.00002}', False),
        ("a.json", '{"w": 1.0}', '{"w": 1.0, "b": 2.0}', False),
        ("a.json", '{"w": "loss"}', '{"w": "diverged"}', False),
        ("a.json", '{"k": 3}', '{"k": 4}', False),
        ("a.json", '{"loss": 4.9e-11}', '{"loss": 9.9e-10}', False),  # nearly 0, and yet another number
        ("a.json", '{"loss": 0.0}', '{"loss": 1e-16}', True),
        ("a.csv", "k,x\n0,1000\n1,0\n", "k,x\n0,1000\n1,5e-13\n", True),  # 5e-16 of the column's scale
        ("a.csv", "k,x\n0,1000\n1,0\n", "k,x\n0,1000\n1,5e-12\n", False),
        ("a.md", "| 0.079278 |", "| 0.080071 |", False),
        ("a.md", "| 0.079278 |", "| 0.079279 |", True),
        ("a.md", "the limit 0.0684", "the limit 0.0501", False),
        ("a.md", "9.8e-05", "9.9e-05", True),
        ("a.md", "9.8e-05", "9.6e-05", False),
        ("a.md", "28 checks held", "27 checks held", False),
        ("a.csv", "k,x\n0,1\n", "k,x\n0,1\n1,1\n", False),
        ("a.csv", "k,x\n0,loss\n", "k,x\n0,diverged\n", False),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="M 1.01 2.00"/>', True),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="M 1.02 2.00"/>', False),
        ("a.svg", '<path d="M 1.00 2.00"/>', '<path d="L 1.00 2.00"/>', False),
        ("a.svg", "fill: #6e7781", "fill: #6e7782", False),
        ("a.svg", "fill: #6e7781; x: 1.00", "fill: #6e7781; x: 1.01", True),
    ],
)
def test_tolerance(path: str, committed: str, found: str, equal: bool) -> None:
    assert (not list(differences(path, committed, found))) == equal


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: edit(c / "params.yaml", "lr: 0.01", "lr: 0.02"),
        lambda c: write(c / "params.yaml", "train: ["),
        lambda c: (c / "reports/report.md").unlink(),
        lambda c: (c / "reports/metrics").rename(c / "reports/old"),
        lambda c: write(c / "reports/figures/new/a.svg", "<svg/>"),
        lambda c: write(c / "reports/history/.b2_-Z.tmp", ""),
        lambda c: write(c / "dvc.lock", (c / "dvc.lock").read_text(encoding="utf-8")[:5000]),  # cut off by a kill
        lambda c: write(c / ".dvc/tmp/repro.dat", ""),  # left by an experiment that was killed
    ],
)
def test_reset_brings_back_the_last_commit(clone: Path, spoil: Callable[[Path], object], staged: bool) -> None:
    """Also without an environment; one's own files stay."""
    spoil(clone)
    if staged:
        run(clone, "git", "add", "--all", "--force")
    write(clone / "data/raw/own.csv", "x,y\n1,2\n")
    edit(clone / "stages/predict.py", "import", "# mine\nimport")
    assert run(clone, "make", "reset").startswith("Back at the last commit: ")
    assert run(clone, "git", "status", "--porcelain") == " M stages/predict.py\n?? data/raw/own.csv\n"


def test_reset_brings_back_the_data_that_the_cache_holds(clone: Path) -> None:
    """Where nothing was ever drawn it takes away what does not belong to the commit."""
    (clone / ".venv").symlink_to(sys.prefix)
    for name in ("line.csv", ".a1_-Z.tmp"):
        write(clone / "data" / name, "x,y\n1,2\n")
    assert run(clone, "make", "reset").count("\n") == 1
    assert {path.name for path in (clone / "data").iterdir()} == {".gitignore", "published.yaml", "raw"}
    dvc(clone, "repro", "generate-data@line")
    drawn = (clone / "data/line.csv").read_bytes()
    write(clone / "data/line.csv", "x,y\n1,2\n")
    run(clone, "make", "reset")
    assert (clone / "data/line.csv").read_bytes() == drawn


def test_a_sweep_draws_the_losses_on_both_sides_of_the_limit(clone: Path) -> None:
    run(clone, sys.executable, "-m", "stages.generate_data", "line")
    run(clone, sys.executable, "-m", "tools.sweep", "--lr", "0.9,0.01", "--seed", "2,1")
    assert run(clone, "git", "status", "--porcelain") == ""
    rows = (clone / "sweep/manual.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[:4] for row in rows] == [
        ["0.01", "1", "iterations", "3000"],
        ["0.01", "2", "iterations", "3000"],
        ["0.9", "1", "diverged", "1437"],
        ["0.9", "2", "diverged", "1437"],
    ]
    assert "predicted limit of stability, 0.79<" in (clone / "sweep/manual.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [{}, {"zero_grad": False}, {"standardize": True}, {"stop_below": 1.0}])
def test_theory_predicts_every_loss_of_a_sweep(changes: dict[str, object]) -> None:
    table = draw_table("line")
    settings = with_changes(DEFAULTS.train.manual, iterations=100, **changes)
    bowl = bowl_of(table, settings)
    for (lr, _), found in sweep(table, settings, rates=["0.003", "0.5"], seeds=["1", "2"]).items():
        start = np.array(list(found.parameters(row=0).values()))
        assert found.history["loss"][-1] == pytest.approx(predicted_loss(bowl, start, settings, lr))


@pytest.mark.parametrize(("lr", "seed", "message"), [("0", "1", "lr: expected greater than 0"), ("1", "x", "seed: ")])
def test_a_sweep_of_nonsense_runs_nothing(lr: str, seed: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}.*nothing was run$"):
        sweep(draw_table("line"), DEFAULTS.train.manual, rates=["0.1", lr], seeds=[seed])


def test_the_build_of_torch_that_is_there_stays(tmp_path: Path) -> None:
    """Such as PyTorch's for CPU, whose version ends in +cpu, which the pin leaves open."""
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    version = re.search(r"^torch==([\d.]+)$", pins, flags=re.MULTILINE)[1]  # type: ignore[index]
    write(tmp_path / "requirements.txt", f"torch=={version}\n")
    shutil.copy(ROOT / "Makefile", tmp_path)
    run(tmp_path, sys.executable, "-m", "venv", ".venv")
    (packages,) = tmp_path.glob(".venv/lib/python*/site-packages")
    build = packages / f"torch-{version}+cpu.dist-info/METADATA"
    write(build, f"Metadata-Version: 2.1\nName: torch\nVersion: {version}+cpu\n")
    run(tmp_path, "make", ".venv/ready", environment={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""})
    assert build.exists()


def test_the_container_has_what_the_project_asks_for() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    image = (ROOT / ".devcontainer" / container["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3\.1[1-4]$", image, flags=re.MULTILINE)
    assert f"useradd --create-home --shell /bin/bash {container['remoteUser']} " in image
    recommended = json.loads((ROOT / ".vscode/extensions.json").read_text(encoding="utf-8"))["recommendations"]
    assert set(recommended) <= set(container["customizations"]["vscode"]["extensions"])


def test_single_precision_has_a_wider_bar_in_its_own_files_and_in_those_of_all() -> None:
    paths = (
        "reports/metrics/nn.json",
        "reports/figures/nn/fit.svg",
        "reports/metrics/manual.json",
        "reports/report.md",
    )
    assert [bar_of(path, {"nn"}) == SINGLE for path in paths] == [True, True, False, True]
    assert {bar_of(path, set()) for path in paths} == {RELATIVE}
