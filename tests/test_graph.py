"""The declaration of the pipeline itself: what dvc.yaml says a stage reads is what its code reads."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from stages.common import answers, evidence
from stages.common.params import Data, Params, Train

ROOT = Path(__file__).parent.parent
STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages}
EXPERIMENTS = {name: data_set for name, (data_set, _) in evidence.EXPERIMENTS.items()}


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
    data = {f"generate-data@{name}" for name in Data.model_fields}
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


@pytest.mark.parametrize("name", Data.model_fields)
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


def test_report_declares_all_figures_and_points() -> None:
    of_experiments = {f"{name}-{kind}" for name in EXPERIMENTS for kind in ("fit", "loss")}
    names = of_experiments | {name for figures in answers.FIGURES.values() for name in figures}
    figures = {str(out.def_path) for out in STAGES["report"].outs if str(out.def_path).endswith(".svg")}
    assert figures == {f"reports/figures/{name}.svg" for name in names}
    points = {str(out.def_path) for out in STAGES["report"].outs if "/points/" in str(out.def_path)}
    assert points == {f"reports/points/{name}.csv" for name in EXPERIMENTS}


def test_every_experiment_is_in_the_report_and_in_the_joint_plot() -> None:
    assert set(EXPERIMENTS) == set(Train.model_fields), "stages/common/evidence.py: EXPERIMENTS"
    (losses,) = (plot["losses"] for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["plots"])
    assert set(losses["y"]) == {f"reports/history/{name}.csv" for name in EXPERIMENTS}
    published = yaml.safe_load((ROOT / "data/published.yaml").read_text(encoding="utf-8"))
    assert set(published) == set(EXPERIMENTS)


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


def test_no_parameter_reaches_a_shell() -> None:
    """Commands are filled with names from dvc.yaml alone; DVC would also put in values of params.yaml if asked to."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(.*?)\}", text)) == {"item", "key", "experiment", "data_set"}
    content = yaml.safe_load(text)
    assert "vars" not in content, "files named there would fill commands"
    for name, stage in content["stages"].items():
        assert set(map(str, stage.get("foreach", {}))) <= {*Data.model_fields, *EXPERIMENTS}, name
        assert [set(entry) for entry in stage.get("vars", [])] in ([], [{"experiment", "data_set"}]), name
    for stage in STAGES.values():
        assert re.fullmatch(r"python -m stages[.\w]+( \w+)?", stage.cmd), stage.cmd


def test_the_editors_schema_is_the_models() -> None:
    """params.schema.json, which params.yaml names in its first line, is what `make schema` writes."""
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"
    assert json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8")) == Params.model_json_schema()
