"""Exactly the affected stages: each leaf of params.yaml, each code file and each data file.

What should rerun is derived from who reads what: the groups that a stage's code loads, and its import closure. What
would rerun is what DVC itself says of a clone.
"""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from stages.common.evidence import EXPERIMENTS
from stages.common.params import Params
from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT
from tests.test_graph import STAGES, closure, module_of, relative
from tests.test_params import TREE, leaves

CHECK = "check-params"


LEAVES = list(leaves(TREE))
GROUPS = [*(f"data.{name}" for name in TREE["data"]), *(f"train.{name}" for name in TREE["train"]), "replicate"]
NO_STAGES = {"stages/predict.py"}  # run by hand; no stage depends on them
CODE = sorted(relative(set((ROOT / "stages").rglob("*.py"))) - NO_STAGES)


def value_at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def another_value(path: str) -> Any:
    """A valid value that is not the present one."""
    old = value_at(TREE, path)
    special = {
        "distribution": None,  # changes with the names of its two numbers, below
        "file": "data/raw/iris.csv" if "clusters" in path else "data/raw/norris.csv",
        "dtype": "float32",
        "loss": "bce",
        "form": "general",
        "standardize": True,
        "low": -1.0,
        "high": 20.0,
        "stop_below": 0.5,
    }
    key = path.rsplit(".", 1)[-1]
    if key in special:
        return special[key]
    if isinstance(old, bool):
        return not old
    if isinstance(old, list):
        return [[number + 1 for number in part] if isinstance(part, list) else part + 1 for part in old]
    return old / 2 if isinstance(old, float) and old else old + 1


def changed_tree(path: str) -> Any:
    """The default params.yaml with one leaf changed, valid as a whole."""
    tree = copy.deepcopy(TREE)
    *groups, leaf = path.split(".")
    group = value_at(tree, ".".join(groups))
    if leaf == "distribution":
        is_uniform = group["distribution"] == "uniform"
        group.clear()
        group |= (
            {"distribution": "normal", "mean": 0.0, "sd": 1.0}
            if is_uniform
            else {"distribution": "uniform", "low": 0, "high": 1}
        )
    else:
        group[leaf] = another_value(path)
    if path == "train.logistic.standardize":
        tree["train"]["logistic"]["form"] = "general"
    return tree


def loaded_groups(stage: str) -> set[str]:
    """The groups of params.yaml that a stage loads, from the calls of `load_group` and `load_params` in its code."""
    name = stage.partition("@")[2]
    groups = set()
    for node in ast.walk(ast.parse(module_of(stage).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "load_params":
                groups.add("")
            elif node.func.id == "load_group":
                argument = node.args[0]
                groups.add(str(argument.value) if isinstance(argument, ast.Constant) else f"data.{name}")
    return groups


def readers_of(leaf: str) -> set[str]:
    return {
        stage for stage in STAGES for group in loaded_groups(stage) if not group or f"{leaf}.".startswith(f"{group}.")
    }


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every stage is up to date."""
    clone = clone_into(tmp_path_factory.mktemp("selective") / "project")
    dvc(clone, "repro", "generate-data")
    assert not Repo(str(clone)).status()
    return clone


@pytest.fixture
def clone(reproduced: Path) -> Iterator[Path]:
    yield reproduced
    run(reproduced, "git", "checkout", "--quiet", ".")
    run(reproduced, "git", "clean", "--quiet", "-fd")


def considered_changed(clone: Path) -> set[str]:
    """The stages that `dvc status` names: those whose own inputs are not as in dvc.lock."""
    return {name.rpartition(":")[2] for name in Repo(str(clone)).status()}  # dvc.yaml's path stands before a colon


@pytest.mark.parametrize("leaf", LEAVES)
def test_changed_trees_are_valid(leaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert changed_tree(leaf) != TREE
    Params.model_validate(changed_tree(leaf))


A_LEAF_OF_EACH_GROUP = [next(leaf for leaf in LEAVES if leaf.startswith(f"{group}.")) for group in GROUPS]


@pytest.mark.parametrize(
    "leaves_to_change", [A_LEAF_OF_EACH_GROUP, pytest.param(LEAVES, marks=pytest.mark.slow)], ids=["sample", "all"]
)
def test_every_leaf_changes_the_stages_that_read_it(clone: Path, leaves_to_change: list[str]) -> None:
    for leaf in leaves_to_change:
        (clone / "params.yaml").write_text(yaml.safe_dump(changed_tree(leaf)), encoding="utf-8")
        readers = readers_of(leaf)
        assert CHECK in readers
        assert len(readers) > 1, leaf
        assert considered_changed(clone) == readers, leaf


@pytest.mark.parametrize("paths", [CODE[::6], pytest.param(CODE, marks=pytest.mark.slow)], ids=["sample", "all"])
def test_every_code_file_changes_the_stages_that_import_it(clone: Path, paths: list[str]) -> None:
    for path in paths:
        with (clone / path).open("a", encoding="utf-8") as file:
            file.write("# a comment\n")
        importers = {stage for stage in STAGES if path in relative(closure(module_of(stage)))}
        assert importers, f"{path} is imported by no stage"
        assert considered_changed(clone) == importers, path
        run(clone, "git", "checkout", "--quiet", path)


@pytest.mark.slow
def test_every_other_input_changes_its_readers(clone: Path) -> None:
    data = {f"generate-data@{name}" for name in TREE["data"]}
    replicates = {f"replicate@{name}" for name in EXPERIMENTS}
    templates = {path: {"report"} for path in relative(set((ROOT / "stages/templates").rglob("*.*")))}
    expected = {
        "data/raw/iris.csv": data,
        "data/raw/norris.csv": data,
        "data/raw/README.md": set(),
        "data/published.yaml": replicates | {"report"},
        "stages/common/house.mplstyle": {"report"},
        "README.md": set(),
        **templates,
        **{f"data/{data_set}.csv": _readers_of_data(data_set) for data_set, _ in EXPERIMENTS.values()},
    }
    for path, readers in expected.items():
        before = (clone / path).read_bytes()
        (clone / path).chmod(0o644)
        (clone / path).write_bytes(before + b"\n")
        assert considered_changed(clone) == readers, path
        (clone / path).write_bytes(before)


def _readers_of_data(data_set: str) -> set[str]:
    """Its own stage, whose output it is, and all that take it."""
    fits = {
        f"{verb}{name}"
        for name, (own, _) in EXPERIMENTS.items()
        if own == data_set
        for verb in ("train-", "replicate@")
    }
    return {f"generate-data@{data_set}", "report"} | fits


def test_what_changes_nothing(clone: Path) -> None:
    """Comments, the order of keys, and another spelling of the same number."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (clone / "params.yaml").write_text(f"# a comment\n{text.replace('lr: 0.01', 'lr: 1.0e-2')}", encoding="utf-8")
    assert considered_changed(clone) == set()
    (clone / "params.yaml").write_text(yaml.safe_dump(TREE, sort_keys=True), encoding="utf-8")
    assert considered_changed(clone) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "leaf", [f"data.{name}.seed" for name in TREE["data"]] + [f"train.{name}.lr" for name in TREE["train"]]
)
def test_one_leaf_of_each_group_in_a_real_run(clone: Path, leaf: str) -> None:
    """The readers of the leaf, and what follows from changed data."""
    dvc(clone, "repro")
    old = value_at(TREE, leaf)
    set_param(clone, leaf, old + 1 if leaf.endswith("seed") else old * 0.9)
    ran = {line.split("'")[1] for line in dvc(clone, "repro").splitlines() if line.startswith("Running stage")}
    follow = _readers_of_data(leaf.split(".")[1]) if leaf.startswith("data.") else set()
    assert ran == readers_of(leaf) | follow
