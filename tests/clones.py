"""A clone of the project in a temporary folder, and commands in it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.conftest import ROOT


def run(folder: Path, *command: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """Standard output and error of a command in a clone, with this environment's Python first on PATH."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**python_first(), "HOME": str(folder.parent), **(environment or {})},
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def python_first() -> dict[str, str]:
    """The environment of commands, not that of a make which runs the tests, with this Python first on PATH."""
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return {**own, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def dvc(folder: Path, *arguments: str, code: int = 0) -> str:
    """What a dvc command prints in a clone."""
    return run(folder, sys.executable, "-m", "dvc", *arguments, code=code)


def clone_into(folder: Path) -> Path:
    """What a fresh clone of the tracked files, as they are now, would hold, committed; no cache, no environment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=all")
    return folder


def clone_with_data(folder: Path) -> Path:
    """Such a clone in which the data sets have been drawn."""
    clone_into(folder)
    draw_all = (
        "import sys; from stages import generate_data as g\nfor name in g.MODELS: sys.argv[1:] = [name]; g.main()"
    )
    run(folder, sys.executable, "-c", draw_all)
    return folder


def clone_with_cache(folder: Path) -> Path:
    """Such a clone in which DVC knows the data, so that every stage is up to date."""
    clone_with_data(folder)
    dvc(folder, "commit", "generate-data")
    return folder


def set_param(folder: Path, key: str, value: object) -> None:
    """Changes one value of a clone's params.yaml."""
    tree = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    *groups, leaf = key.split(".")
    group = tree
    for name in groups:
        group = group[name]
    group[leaf] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` says it ran, in order."""
    return re.findall(r"^Running stage '(.+)':", output, flags=re.MULTILINE)
