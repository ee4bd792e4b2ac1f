"""The declaration of the pipeline: dvc.yaml, the code's imports and the registry say the same."""

import json
import re
from graphlib import TopologicalSorter

import pytest
import yaml

from stages.common.experiments import EXPERIMENTS
from stages.common.schema import Data, Params
from stages.evaluate.answers import ANSWERS
from tests.conftest import ROOT
from tests.graph import (
    CODE,
    STAGES,
    USERS,
    closure,
    declared_files,
    declared_outs,
    holders,
    house,
    imported,
    module_of,
    names_imported,
    stages_in,
)

DVC_YAML = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
PIPELINE = yaml.safe_load(DVC_YAML)
OUTS = [out for stage in STAGES.values() for out in stage.outs]


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_is_declared_and_what_code_it_declares_is_imported(stage: str) -> None:
    """Of a declared folder at least one file."""
    declared = {path for path in declared_files(stage) if path.startswith("stages/")}
    assert holders(closure(module_of(stage)), declared) == declared


@pytest.mark.parametrize("path", sorted(CODE))
def test_imports_run_one_way(path: str) -> None:
    """A fit sees neither the answer nor a picture, and no repetition the fit's code."""
    own = house(path)
    known = set() if own in ("common", "theory") else {"common"}
    known |= {"theory"} if own in ("evaluate", "predict") else set()
    assert {house(file) for file in imported(path)} <= known | {own}
    packages = {name.partition(".")[0] for file in closure(path) for name in names_imported(file)}
    assert [package for package, users in USERS.items() if package in packages and own not in users] == []


def test_no_file_imports_itself_through_others() -> None:
    TopologicalSorter({path: imported(path) for path in CODE}).prepare()  # CycleError names the circle


# --- dvc.yaml --------------------------------------------------------------------------------------------------------


def test_dvc_yaml_is_short() -> None:
    assert len(DVC_YAML.splitlines()) <= 170


def test_every_stage_waits_for_the_check_whose_marker_is_never_deleted() -> None:
    wait: list[str] = ["check-params"]
    for earlier in wait:
        made = [f"{out}/" for out in declared_outs(earlier)]
        reads = {
            stage for stage in STAGES for dep in declared_files(stage) for out in made if out.startswith(f"{dep}/")
        }
        wait += sorted(reads - set(wait))
    assert set(wait) == set(STAGES)
    (marker,) = STAGES["check-params"].outs
    assert (marker.def_path, marker.persist, marker.use_cache) == (".params.ok", True, False)


def test_a_repetition_reads_no_result_of_the_fit() -> None:
    read = {path for stage in stages_in("replicate") for path in declared_files(stage)}
    assert not [path for path in read if path.startswith("reports")]


def test_data_are_kept_in_the_cache_and_all_else_in_git() -> None:
    assert {out.def_path for out in OUTS if out.use_cache} == {f"data/{name}.csv" for name in Data.model_fields}


def test_no_parameter_reaches_a_shell() -> None:
    """Commands are filled with names from dvc.yaml alone; DVC would also put in values of params.yaml if asked to."""
    filled = set(re.findall(r"\$\{(.*?)\}", DVC_YAML))
    assert filled <= {"item", "key", "item.data_set", "item.repeated", "experiment", "data_set"}
    variables = [PIPELINE.get("vars", []), *(stage.get("vars", []) for stage in PIPELINE["stages"].values())]
    assert [entry for entries in variables for entry in entries if not isinstance(entry, dict)] == [], "a file"
    assert [
        stage.cmd for stage in STAGES.values() if not re.fullmatch(r"python -m stages[.\w]+( \w+)?", stage.cmd)
    ] == []


# --- one registry ----------------------------------------------------------------------------------------------------


def test_the_stages_are_those_of_the_registry() -> None:
    data = {f"generate-data@{name}" for name in Data.model_fields}
    of_experiments = {f"{kind}{name}" for name in EXPERIMENTS for kind in ("train-", "replicate@", "evaluate@")}
    assert set(STAGES) == {"check-params", "report"} | data | of_experiments


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_tables_of_dvc_yaml_are_the_registry(name: str) -> None:
    data_set = EXPERIMENTS[name].data_set
    assert PIPELINE["stages"][f"train-{name}"]["vars"] == [{"experiment": name, "data_set": data_set}]
    tables = [PIPELINE["stages"][stage]["foreach"] for stage in ("replicate", "evaluate")]
    assert [table[name]["data_set"] for table in tables] == [data_set] * 2
    assert {table[name]["repeated"] for table in tables} <= {name, f"{name}-course"}
    assert {f"reports/metrics/{name}.json", f"reports/history/{name}.csv"} == declared_outs(f"train-{name}")


def test_every_experiment_has_its_code_its_words_and_its_publication() -> None:
    def names(pattern: str) -> list[str]:
        return sorted(path.name.partition(".")[0] for path in (ROOT / "stages").glob(pattern))

    assert names("train/*.py") == sorted([*EXPERIMENTS, "recorder", "scaling", "start", "workers"])
    assert names("replicate/*.py") == sorted([*EXPERIMENTS, "runs"])
    assert names("report/templates/prose/*.md.j2") == sorted(EXPERIMENTS)
    assert names("report/templates/answers/*.md.j2") == sorted(ANSWERS)
    assert set(yaml.safe_load((ROOT / "data/published.yaml").read_text(encoding="utf-8"))) == set(EXPERIMENTS)


def test_the_editors_schema_is_the_models() -> None:
    """params.schema.json, which params.yaml names in its first line, is what `make schema` writes."""
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"
    assert json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8")) == Params.model_json_schema()
