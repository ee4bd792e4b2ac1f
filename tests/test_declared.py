"""What a stage does is what dvc.yaml declares: files opened, groups of params.yaml loaded, files written."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from stages.common.experiments import EXPERIMENTS
from tests.clones import clone_with_data, run, set_param
from tests.graph import STAGES, USERS, declared_files, declared_groups, declared_outs, holders, house, module_of

# Runs a module as __main__, and notes what it opens, writes and lists below the project, the groups that it loads and
# the packages that are imported in the end.
OBSERVER = """
import json, os, runpy, sys

root, log, module = os.getcwd() + os.sep, sys.argv[1], sys.argv[2]
seen = {"reads": [], "writes": [], "lists": [], "groups": []}

def hook(event, arguments):
    kind, path = None, arguments[0] if arguments else None
    if event == "open":
        writes = "w" in str(arguments[1]) or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        kind = "writes" if writes else "reads"
    elif event == "os.rename":
        kind, path = "writes", arguments[1]
    elif event in ("os.listdir", "os.scandir"):
        kind = "lists"
    if kind and isinstance(path, (str, os.PathLike)) and (path := os.path.abspath(path)).startswith(root):
        seen[kind].append(path.removeprefix(root))

def noting(load):
    def loading(name="params.yaml", *arguments):
        seen["groups"].append(name)
        return load(name, *arguments) if arguments else load()
    return loading

sys.addaudithook(hook)
from stages.common import params
params.load_params, params.load_group = noting(params.load_params), noting(params.load_group)
sys.argv = [module, *sys.argv[3:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
seen["packages"] = [name.partition(".")[0] for name in sys.modules]
json.dump(seen, open(log, "w"))
"""


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_with_data(tmp_path_factory.mktemp("declared") / "project")


def watch(clone: Path, stage: str) -> dict[str, set[str]]:
    """What a run of a stage does; -B, so that all code is read from its source."""
    log = clone.parent / "seen.json"
    run(clone, sys.executable, "-B", "-c", OBSERVER, str(log), *STAGES[stage].cmd.split()[2:])
    seen = json.loads(log.read_text(encoding="utf-8"))
    return {
        kind: {n for n in names if not n.startswith(".tmp/") and "__pycache__" not in n} for kind, names in seen.items()
    }


def never_read(stage: str) -> set[str]:
    """What a stage declares, and does not read at the default settings."""
    kind, _, name = stage.partition("@")
    if kind == "check-params":
        return {"data/raw"}  # for settings that name a CSV
    if kind == "generate-data":
        return {".params.ok", "data/raw"}  # the one is there to come first
    if kind == "replicate":
        own = {f"data/{EXPERIMENTS[name].data_set}.csv"}  # likewise: else each repetition draws its own
        return own | ({"data/published.yaml"} if name in ("noisy", "shared", "logistic") else set())  # one list for all
    return set()


SAMPLE = ["check-params", "generate-data@line", "train-manual", "replicate@nn", "evaluate@nn", "report"]


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage in SAMPLE else [pytest.mark.slow]) for stage in STAGES]
)
def test_a_stage_does_what_it_declares(clone: Path, stage: str) -> None:
    seen, own = watch(clone, stage), house(module_of(stage))
    read = holders(seen["reads"] - seen["writes"] - {"params.yaml"}, declared_files(stage))
    assert declared_files(stage) - read == never_read(stage), "declared, but not read"
    assert holders(seen["writes"], declared_outs(stage)) == declared_outs(stage)
    assert seen["groups"] == declared_groups(stage)
    assert [package for package, users in USERS.items() if package in seen["packages"] and own not in users] == []
    assert not [path for path in seen["lists"] if path.startswith(("data", "reports"))], (
        "takes what happens to be there"
    )


def test_a_csv_of_ones_own_is_read_where_it_is_declared(clone: Path) -> None:
    set_param(clone, "data.line.file", "data/raw/norris.csv")
    assert "data/raw/norris.csv" in watch(clone, "check-params")["reads"]
    assert "data/raw/norris.csv" in watch(clone, "generate-data@line")["reads"]
    assert "data/line.csv" in watch(clone, "replicate@manual")["reads"]
    run(clone, "git", "checkout", "--quiet", ".")
    run(clone, sys.executable, "-m", "stages.generate_data", "line")


def test_what_an_old_experiment_left_is_not_in_the_report(clone: Path) -> None:
    shutil.copytree(clone / "reports/figures/nn", clone / "reports/figures/old")
    for ending in ("json", "csv"):
        shutil.copy(clone / f"reports/evaluation/nn.{ending}", clone / f"reports/evaluation/old.{ending}")
    assert not [path for path in watch(clone, "report")["reads"] if "old" in path]
    assert " M " not in run(clone, "git", "status", "--porcelain"), "the report changed"
    run(clone, "git", "clean", "--quiet", "-fd")
