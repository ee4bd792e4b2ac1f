"""The declaration of the pipeline itself: what dvc.yaml says a stage reads is what its code reads."""

import ast
from pathlib import Path

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

ROOT = Path(__file__).parent.parent
STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages}
DATA_SETS = ["line", "noisy_line", "plane", "stream", "clusters"]
EXPERIMENTS = {
    "manual": "line",
    "noisy": "noisy_line",
    "minibatch": "plane",
    "nn": "stream",
    "shared": "stream",
    "logistic": "clusters",
}


def imported(module: Path) -> set[Path]:
    """The project's files that a file imports by name."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("stages")}
    return {file for file in files if file.exists()}


def closure(module: Path) -> set[Path]:
    """The file and all that it imports, directly or not."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported(file)
    return seen


def relative(files: set[Path]) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in files}


def module_of(stage: str) -> Path:
    """The file that a stage's command runs."""
    name = STAGES[stage].cmd.split()[2]  # python -m stages....
    return ROOT / (name.replace(".", "/") + ".py")


def declared_files(stage: str) -> set[str]:
    return {str(dep.def_path) for dep in STAGES[stage].deps if not isinstance(dep, ParamsDependency)}


def declared_groups(stage: str) -> set[str]:
    return {
        name
        for dep in STAGES[stage].deps
        if isinstance(dep, ParamsDependency)
        for name in dep.params or ["params.yaml"]
    }


def test_the_stages_are_these() -> None:
    data = {f"generate-data@{name}" for name in DATA_SETS}
    fits = {f"{verb}{name}" for name in EXPERIMENTS for verb in ("train-", "replicate@")}
    assert set(STAGES) == {"check-params", "report"} | data | fits


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(stage: str) -> None:
    declared = {path for path in declared_files(stage) if path.endswith(".py")}
    assert declared == relative(closure(module_of(stage)))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_described(stage: str) -> None:
    assert STAGES[stage].desc


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "check-params"])
def test_every_stage_waits_for_the_check(stage: str) -> None:
    assert ".params.ok" in declared_files(stage)


def test_the_check_reads_all_of_params_and_keeps_its_marker() -> None:
    (marker,) = STAGES["check-params"].outs
    assert declared_groups("check-params") == {"params.yaml"}
    assert (marker.def_path, marker.persist, marker.use_cache) == (".params.ok", True, False)


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_stages(name: str) -> None:
    stage = f"generate-data@{name}"
    assert declared_groups(stage) == {f"data.{name}"}
    assert "data/raw" in declared_files(stage)
    assert {out.def_path for out in STAGES[stage].outs} == {f"data/{name}.csv"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_training_stages(name: str) -> None:
    stage = f"train-{name}"
    assert declared_groups(stage) == {f"train.{name}"}
    assert {path for path in declared_files(stage) if path.startswith("data/")} == {f"data/{EXPERIMENTS[name]}.csv"}
    outs = {out.def_path: out for out in STAGES[stage].outs}
    assert set(outs) == {f"reports/metrics/{name}.json", f"reports/history/{name}.csv"}
    assert outs[f"reports/metrics/{name}.json"].metric
    assert outs[f"reports/history/{name}.csv"].plot


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_replicating_stages(name: str) -> None:
    """They read what the fit reads, and what was published; a second implementation reads none of the fit's results."""
    stage = f"replicate@{name}"
    assert declared_groups(stage) == {f"data.{EXPERIMENTS[name]}", f"train.{name}", "replicate"}
    files = {path for path in declared_files(stage) if not path.startswith("stages/")}
    assert files == {".params.ok", f"data/{EXPERIMENTS[name]}.csv", "data/published.yaml"}
    outs = {out.def_path for out in STAGES[stage].outs}
    assert outs == {f"reports/replicates/{name}.json", f"reports/replicates/{name}.csv"}


def test_report_reads_all_results_and_all_templates() -> None:
    files = declared_files("report")
    for name, data_set in EXPERIMENTS.items():
        assert {f"data/{data_set}.csv", f"reports/metrics/{name}.json", f"reports/history/{name}.csv"} <= files
        assert {f"reports/replicates/{name}.json", f"reports/replicates/{name}.csv"} <= files
    templates = {path for path in (ROOT / "stages/templates").rglob("*") if path.is_file()}
    assert relative(templates) <= files
    assert {"data/published.yaml", "stages/common/house.mplstyle"} <= files


@pytest.mark.parametrize("stage", STAGES)
def test_reports_are_kept_in_git_and_data_in_the_cache(stage: str) -> None:
    for out in STAGES[stage].outs:
        assert out.use_cache == str(out.def_path).startswith("data/"), out.def_path


@pytest.mark.parametrize("path", sorted(relative(set((ROOT / "stages").rglob("*.py")))))
def test_imports_run_one_way(path: str) -> None:
    """Stage -> common -> third party; a fit sees neither the answer nor a picture."""
    direct = relative(imported(ROOT / path))
    assert all(name.startswith("stages/common/") for name in direct), "a stage imports a stage"
    seen = relative(closure(ROOT / path))
    if path.startswith("stages/train_"):
        assert not seen & {"stages/common/theory.py", "stages/common/figures.py"}
    if path.startswith("stages/replicate/"):
        training = {"recording.py", "scaling.py", "setup.py"}
        assert not seen & {f"stages/common/{name}" for name in training}, "not independent of the training code"
        assert "import torch" not in (ROOT / path).read_text(encoding="utf-8")
    if path == "stages/common/theory.py":
        assert not direct
        assert "import torch" not in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_lock_holds_every_stage(stage: str) -> None:
    """A committed dvc.lock without a stage would make `dvc status` call it new on every clone."""
    lock = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    assert f"\n  {stage}:\n" in lock
