"""Which files of the code and of the results DVC sees."""

from pathlib import Path

import pytest

from tests.clones import clone_into, dvc, run

STRAY = [
    "stages/common/__pycache__/files.cpython-311.pyc",
    "stages/common/.files.py.swp",  # Vim
    "stages/common/files.py~",
    "stages/evaluate/4913",
    "stages/evaluate/.#figures.py",  # Emacs
    "stages/report/#render.py#",
    "stages/report/templates/.idea/workspace.xml",
    "stages/report/page/._page.css",  # macOS
    "reports/figures/nn/.DS_Store",
    "reports/evaluation/.DS_Store",
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_into(tmp_path_factory.mktemp("dvcignore") / "project")


def test_what_editors_and_python_leave_changes_no_stage(clone: Path) -> None:
    before = dvc(clone, "status", "--json")
    for name in STRAY:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("stray\n", encoding="utf-8")
    assert dvc(clone, "status", "--json") == before


def test_every_committed_file_of_the_code_counts(clone: Path) -> None:
    code = run(clone, "git", "ls-files", "stages").splitlines()
    assert dvc(clone, "check-ignore", *code, code=1) == ""
