"""What several test files share: the default settings, a project folder to spoil, and a way to run fits and stages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from stages.common.files import Table, clusters, linear_set
from stages.common.params import Group, Params
from stages.common.recording import Fit
from stages.common.setup import use_one_deterministic_thread
from stages.generate_data import draw

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    use_one_deterministic_thread()


@pytest.fixture(scope="session")
def params() -> Params:
    """The project's default settings."""
    return Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, the current one, with params.yaml and data/raw/."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "data/raw", tmp_path / "data/raw")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs python in the project folder, as DVC does, for example `run("-m", "stages.check_params")`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}

    def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, encoding="utf-8", check=False)

    return run_python


@pytest.fixture
def refused(
    project: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
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


@pytest.fixture(scope="session")
def changed() -> Callable[..., Any]:
    """A group of settings with some values changed, checked again, for example `changed(params.train.nn, lr=0.1)`."""

    def with_changes(settings: Group, **changes: object) -> Group:
        return type(settings).model_validate({**settings.model_dump(), **changes})

    return with_changes


@pytest.fixture(scope="session")
def drawn(params: Params, changed: Callable[..., Any]) -> Callable[..., Table]:
    """Draws a data set at its default settings save for the changes, for example `drawn("line", seed=3)`."""

    def draw_table(data_set: str, **changes: object) -> Table:
        frame = draw(changed(getattr(params.data, data_set), **changes))
        return (clusters if data_set == "clusters" else linear_set)(frame, Path(data_set))

    return draw_table


@pytest.fixture(scope="session")
def fit(params: Params, changed: Callable[..., Any]) -> Callable[..., Fit]:
    """Runs an experiment at its default settings save for the changes, for example `fit("nn", table, lr=0.1)`."""

    def fit_experiment(experiment: str, table: Table, **changes: object) -> Fit:
        settings = changed(getattr(params.train, experiment), **changes)
        data = torch.tensor(table.features.to_numpy()), torch.tensor(table.target.to_numpy(dtype=np.float64))
        module = import_module(f"stages.train_{experiment}")
        if experiment == "logistic":
            result, _ = module.fit(*data, settings)
        else:
            result = module.fit(*data, settings, torch.Generator().manual_seed(settings.seed))
        assert isinstance(result, Fit)
        return result

    return fit_experiment
