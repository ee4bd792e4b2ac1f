"""Exactly the affected stages: what DVC says of each setting and each file of the code, and what it then runs."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from stages.common.experiments import EXPERIMENTS
from tests.clones import clone_with_cache, dvc, set_param, stages_run
from tests.conftest import ROOT, TREE, leaves
from tests.graph import STAGES, house, stages_in

GROUPS = [*(f"data.{name}" for name in TREE["data"]), *(f"train.{name}" for name in TREE["train"]), "replicate"]
READERS = {  # of a group of params.yaml
    "data": ["replicate@", "evaluate@"],
    "train": ["train-", "replicate@", "evaluate@"],
    "replicate": ["replicate@", "evaluate@"],
}
FOLLOWERS = {"data": ["train-"], "train": [], "replicate": []}  # whose inputs the readers write
Pairs = set[tuple[str, str]]  # a stage, and what of its inputs or outputs is not as dvc.lock says


# --- who reads what --------------------------------------------------------------------------------------------------


def of_experiments(name: str, kinds: list[str]) -> set[str]:
    """The stages of an experiment, of those fitted to a data set, or of all (`""`)."""
    return {f"{kind}{e.name}" for e in EXPERIMENTS.values() if name in ("", e.name, e.data_set) for kind in kinds}


def readers_of_group(group: str) -> set[str]:
    kind, _, name = group.partition(".")
    drawn = {f"generate-data@{name}"} if kind == "data" else set()
    return {"check-params"} | drawn | of_experiments(name, READERS[kind])


def readers_of_code(path: str) -> set[str]:
    own, name = house(path), Path(path).stem
    if own in ("common", "__init__"):  # the package itself
        return set(STAGES)
    if own in ("train", "replicate") and name in EXPERIMENTS:
        return {f"{own}-{name}", f"{own}@{name}"} & set(STAGES)
    return stages_in("evaluate" if own == "theory" else own)


def dep_of(path: str) -> str:
    """What stands for a file of the code in dvc.yaml: its house, or the file where one fit must rerun alone."""
    return f"stages/{house(path)}" if house(path) in ("common", "theory", "evaluate", "report") else path


# --- what DVC says ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every stage is up to date."""
    clone = clone_with_cache(tmp_path_factory.mktemp("selective") / "project")
    assert noticed(clone) == set(), "dvc.lock is not of these files; `dvc repro` first"
    return clone


@pytest.fixture
def clone(reproduced: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reproduced, tmp_path / "project")


def noticed(clone: Path) -> Pairs:
    """What `dvc status` names."""
    pairs = set()
    for stage, changes in Repo(str(clone)).status().items():
        for places in (places for change in changes for places in change.values()):
            pairs |= {(stage.rpartition(":")[2], place) for place in {**places.pop("params.yaml", {}), **places}}
    return pairs


def append(clone: Path, path: str) -> None:
    """Adds a line to a file, a comment in code."""
    (clone / path).chmod(0o644)
    with (clone / path).open("a", encoding="utf-8") as file:
        file.write("# a comment\n")


def rounds(items: Iterable[str], key: Callable[[str], str]) -> list[Any]:
    """The items in lists where no two share a key, so that DVC tells them apart; all but the first list are slow."""
    by_key = defaultdict(list)
    for item in sorted(items):
        by_key[key(item)].append(item)
    first, *others = ([item for item in found if item] for found in zip_longest(*by_key.values()))
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


def group_of(leaf: str) -> str:
    return next(group for group in GROUPS if leaf.startswith(f"{group}."))


@pytest.mark.parametrize("changed", rounds(leaves(TREE), group_of), ids=len)
def test_a_setting_changes_the_stages_that_read_its_group(clone: Path, changed: list[str]) -> None:
    for leaf in changed:
        set_param(clone, leaf, "another value")
    pairs = {(stage, group_of(leaf)) for leaf in changed for stage in readers_of_group(group_of(leaf))}
    # check-params reads all, and is said to find `data` or `train` changed
    assert noticed(clone) == {(s, group.partition(".")[0] if s == "check-params" else group) for s, group in pairs}


ENDINGS = (".py", ".mplstyle", ".j2", ".css", ".js")
FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*") if path.suffix in ENDINGS}


@pytest.mark.parametrize("changed", rounds(FILES, dep_of), ids=len)
def test_code_words_and_style_change_the_stages_of_their_house(clone: Path, changed: list[str]) -> None:
    for path in (*changed, "README.md", "data/raw/README.md"):
        append(clone, path)
    assert noticed(clone) == {(stage, dep_of(path)) for path in changed for stage in readers_of_code(path)}


def test_comments_order_and_spelling_of_settings_change_nothing(clone: Path) -> None:
    sorted_keys = yaml.safe_dump(TREE, sort_keys=True)
    (clone / "params.yaml").write_text(f"# a comment\n{sorted_keys.replace('0.01', '1.0e-2')}", encoding="utf-8")
    assert noticed(clone) == set()


# --- what DVC runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [g if g == "train.nn" else pytest.param(g, marks=pytest.mark.slow) for g in GROUPS])
def test_a_changed_setting_runs_its_readers_and_what_follows(clone: Path, group: str) -> None:
    """train.nn.lr runs check-params, train-nn, replicate@nn, evaluate@nn and report, and nothing else."""
    kind, _, name = group.partition(".")
    if kind == "train":
        set_param(clone, f"{group}.lr", 0.9 * TREE["train"][name]["lr"])
    else:
        set_param(clone, f"{group}.seed", 4)
    ran = stages_run(dvc(clone, "repro"))
    assert sorted(ran) == sorted(readers_of_group(group) | of_experiments(name, FOLLOWERS[kind]) | {"report"})


@pytest.mark.slow
def test_code_that_changes_no_result_runs_its_own_stages_only(clone: Path) -> None:
    append(clone, "stages/train/nn.py")
    append(clone, "stages/replicate/shared.py")
    assert sorted(stages_run(dvc(clone, "repro"))) == ["replicate@shared", "train-nn"]
    append(clone, "stages/theory/bowl.py")
    assert set(stages_run(dvc(clone, "repro"))) == stages_in("evaluate")
