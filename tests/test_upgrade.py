"""`make reproduce PACKAGE=VERSION` says whether another version changes a result, and leaves everything as it was."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.clones import run
from tests.conftest import ROOT

RUN = """import tiny
from pathlib import Path
Path("reports/result.csv").write_text(f"x\\n{tiny.RESULT}\\n")
"""
RESULTS = {"1.0": "0.5", "1.1": "0.5", "2.0": "0.75"}


def wheel(folder: Path, name: str, version: str, needs: str = "", code: str = "") -> None:
    """A package of one module that pip can install from a folder."""
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{about}/METADATA", metadata)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one package, tiny, whose version 2.0 gives another result and needs another version of a second."""
    folder, index = tmp_path / "project", tmp_path / "index"
    for name in ("Makefile", "tools/upgrade.py", "tools/compare.py", "tools/machine.py", ".gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tools/reproduce.py").write_text(RUN, encoding="utf-8")
    (folder / "requirements.txt").write_text("other==1.0\n    # via tiny\ntiny==1.0\n", encoding="utf-8")
    (folder / "reports").mkdir()
    (folder / "reports/result.csv").write_text("x\n0.5\n", encoding="utf-8")
    index.mkdir()
    for version, result in RESULTS.items():
        needs = "Requires-Dist: other>=2\n" if version == "2.0" else ""
        wheel(index, "tiny", version, needs, code=f"RESULT = {result}\n")
    wheel(index, "other", "1.0")
    wheel(index, "other", "2.0")
    for command in ("init", "config user.name t", "config user.email t@example.org", "add -A", "commit -m all"):
        run(folder, "git", *command.split())
    return folder


def upgrade(project: Path, *versions: str, code: int = 0) -> str:
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project.parent / "index"), "PYTHON": sys.executable}
    output = run(project, "make", "reproduce", *versions, code=code, environment=environment)
    assert run(project, "git", "status", "--porcelain") == ""
    assert not (project / ".venv").exists()
    return output


def test_a_version_that_changes_nothing_and_one_that_does(project: Path) -> None:
    assert "identical: all 1 committed results" in upgrade(project, "TINY=1.1")
    output = upgrade(project, "TINY=2.0", code=2)
    assert "different: reports/result.csv: row 1, column x: committed 0.5, found 0.75" in output
    assert "other 2.0 instead of 1.0" in output
    assert "Installing" not in upgrade(project, "TINY=1.1"), "an environment is made once"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("TINI=1.1", "error: TINI: expected a package of requirements.txt, found none; near it: tiny"),
        ("TINY=new", "error: TINY: expected a version such as 1.0, found 'new'"),
        ("TINY=9.9", "No matching distribution found for tiny==9.9|Could not find a version"),
    ],
)
def test_a_wrong_version_ends_in_one_message(project: Path, version: str, message: str) -> None:
    output = upgrade(project, version, code=2)
    assert any(part in output for part in message.split("|")), output
    assert output.count("error:") == 1
    assert "Traceback" not in output
