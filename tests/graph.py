"""What dvc.yaml declares, as DVC reads it, and what the code in stages/ imports; paths are relative to the project."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath

from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from tests.conftest import ROOT

STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages}
CODE = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py")}
HOUSES = {path.split("/")[1].removesuffix(".py") for path in CODE}
USERS = {  # the houses that may use a package; the others do without, for a quick start or their independence
    "torch": {"train"},
    "matplotlib": {"evaluate"},
    "pandas": set(),
    "scipy": {"theory", "replicate", "evaluate", "predict"},
    "numpy": HOUSES - {"report", "check_params"},
}


# --- dvc.yaml --------------------------------------------------------------------------------------------------------


def declared_files(stage: str) -> set[str]:
    """The files and folders that a stage depends on."""
    return {str(dep.def_path) for dep in STAGES[stage].deps if not isinstance(dep, ParamsDependency)}


def declared_groups(stage: str) -> set[str]:
    """The groups of params.yaml that a stage depends on; `params.yaml` for all of it."""
    of_params = [dep for dep in STAGES[stage].deps if isinstance(dep, ParamsDependency)]
    return {name for dep in of_params for name in dep.params or ["params.yaml"]}


def declared_outs(stage: str) -> set[str]:
    """The files and folders that a stage writes."""
    return {str(out.def_path) for out in STAGES[stage].outs}


def holders(paths: Iterable[str], places: set[str]) -> set[str]:
    """Which of these files and folders the paths are or lie in; every path must."""
    found = {path: places & {path, *map(str, PurePosixPath(path).parents)} for path in paths}
    assert [path for path, place in found.items() if not place] == [], "not declared"
    return set().union(*found.values())


# --- the code --------------------------------------------------------------------------------------------------------


def house(path: str) -> str:
    """The house that a file of the code stands in: `train` for stages/train/nn.py."""
    return path.split("/")[1].removesuffix(".py")


def module_of(stage: str) -> str:
    """The file that a stage's command runs: `python -m stages.train.nn`, `python -m stages.evaluate nn`."""
    path = STAGES[stage].cmd.split()[2].replace(".", "/")
    return f"{path}.py" if f"{path}.py" in CODE else f"{path}/__main__.py"


def stages_in(name: str) -> set[str]:
    """The stages whose command lies in a house."""
    return {stage for stage in STAGES if house(module_of(stage)) == name}


@cache
def names_imported(path: str) -> set[str]:
    """What a file imports anywhere in it: packages, modules, and what is taken from them."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def imported(path: str) -> set[str]:
    """The project's files that a file imports, with the __init__.py of each package on the way to them."""
    found = set()
    for place in (PurePosixPath(name.replace(".", "/")) for name in names_imported(path)):
        packages = {f"{package}/" for package in (place, *place.parents)}
        found |= {f"{place}.py", *(f"{package}__init__.py" for package in packages if not path.startswith(package))}
    return found & CODE


def closure(path: str) -> set[str]:
    """A file, the __init__.py of its packages, and all that they import, directly or not."""
    seen, waiting = set(), {path, *(f"{package}/__init__.py" for package in PurePosixPath(path).parents)} & CODE
    while waiting:
        seen |= waiting
        waiting = set().union(*map(imported, waiting)) - seen
    return seen
