"""What several test files share: the project's settings, a project folder to spoil, ways to run fits and stages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import yaml

from stages.common.schema import Group, Params
from stages.common.tables import Numbers, Table, clusters, linear_set
from stages.generate_data import draw
from stages.train.recorder import Fit
from stages.train.start import as_tensors, use_one_deterministic_thread

ROOT = Path(__file__).parents[1]
TREE: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
DEFAULTS = Params.model_validate(TREE)

Run = Callable[..., subprocess.CompletedProcess[str]]  # the fixtures `run` and `refused`
G = TypeVar("G", bound=Group)


# --- settings, data and fits -----------------------------------------------------------------------------------------


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The full name of every setting: data.line.file, data.line.seed, ..."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def with_changes(settings: G, **changes: object) -> G:
    """A group of settings with some values changed, checked again: `with_changes(DEFAULTS.train.nn, lr=0.1)`."""
    return type(settings).model_validate({**settings.model_dump(), **changes})


def draw_table(data_set: str, **changes: object) -> Table:
    """A data set, drawn at its default settings save for the changes: `draw_table("line", seed=3)`."""
    columns = draw(with_changes(getattr(DEFAULTS.data, data_set), **changes))
    numbers = Numbers(list(columns), np.column_stack([np.asarray(values) for values in columns.values()]))
    return (clusters if data_set == "clusters" else linear_set)(numbers, Path(data_set))


def run_fit(experiment: str, table: Table, **changes: object) -> Fit:
    """A fit at its default settings save for the changes: `run_fit("nn", table, lr=0.1)`."""
    settings = with_changes(getattr(DEFAULTS.train, experiment), **changes)
    generator = () if experiment == "logistic" else (torch.Generator().manual_seed(settings.seed),)
    found = import_module(f"stages.train.{experiment}").fit(*as_tensors(table), settings, *generator)
    assert isinstance(found, Fit)
    return found


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    use_one_deterministic_thread()


# --- a project folder ------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, the current one, with params.yaml and data/raw/."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "data/raw", tmp_path / "data/raw")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Run:
    """Runs python in the project folder, as DVC does: `run("-m", "stages.check_params")`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}

    def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, encoding="utf-8", check=False)

    return run_python


@pytest.fixture
def refused(project: Path, run: Run) -> Run:
    """Runs a stage that must refuse its input: exit code 1, one message, no traceback, no file changed."""

    def run_stage(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        before = _contents(project)
        done = run("-m", f"stages.{module}", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("error: ") == 1
        assert "Traceback" not in done.stderr
        assert _contents(project) == before
        return done

    return run_stage


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
