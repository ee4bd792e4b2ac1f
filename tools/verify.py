"""Says, without running a stage, whether dvc.lock belongs to what is committed.

For every stage its command, parameters, dependencies and outputs are compared with dvc.lock, also a dependency or
parameter that was taken out of dvc.yaml. Data that lie in DVC's cache only and are absent, as in a fresh clone, don't
count; instead the hash with which they left one stage is compared with the one with which they entered the next.

run  python -m tools.verify
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage

from stages.common.errors import UserError, run_stage


def problems(root: Path) -> Iterator[str]:
    """One line for each thing that does not match."""
    repo = Repo(str(root))
    lock = locked_stages(root / "dvc.lock")
    stages = {stage.addressing: stage for stage in repo.index.stages}
    for name in lock.keys() - stages.keys():
        yield f"{name}: stands in dvc.lock but not in dvc.yaml"
    for name, stage in stages.items():
        if name not in lock:
            yield f"{name}: stands in dvc.yaml but not in dvc.lock; it was never run"
        else:
            yield from removed(name, stage, lock[name])
    yield from changed(repo.status(), absent={out for out in cached_outs(stages) if not (root / out).exists()})
    yield from mismatched_hashes(lock)


def locked_stages(path: Path) -> dict[str, Any]:
    """What dvc.lock holds, by stage."""
    try:
        stages: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(
            f"{path.name}: can't be read as DVC's lock file: {error}; `git checkout {path.name}` puts it back"
        ) from None
    return stages


def cached_outs(stages: dict[str, PipelineStage]) -> set[str]:
    """Outputs that DVC's cache holds and git does not."""
    return {str(out.def_path) for stage in stages.values() for out in stage.outs if out.use_cache}


def changed(status: dict[str, Any], absent: set[str]) -> Iterator[str]:
    """What `dvc status` says, less the data that are absent from a fresh clone."""
    for name, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):
                yield f"{name}: {entry}"
                continue
            for kind, paths in entry.items():
                for path, state in paths.items():
                    if path in absent and state in ("deleted", "not in cache"):
                        continue
                    if isinstance(state, dict):  # parameters: name -> state
                        yield from (f"{name}: {kind}: {path}: {key} is {how}" for key, how in state.items())
                    else:
                        yield f"{name}: {kind}: {path} is {state}"


def removed(name: str, stage: PipelineStage, locked: dict[str, Any]) -> Iterator[str]:
    """Dependencies, parameters and outputs in dvc.lock that dvc.yaml no longer names, which DVC does not notice."""
    deps = {str(dep.def_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)}
    for dep in locked.get("deps", []):
        if dep["path"] not in deps:
            yield f"{name}: depended on {dep['path']}, which dvc.yaml no longer names"
    groups = {group for dep in stage.deps if isinstance(dep, ParamsDependency) for group in dep.params}
    reads_all = any(isinstance(dep, ParamsDependency) and not dep.params for dep in stage.deps)
    for file in locked.get("params", {}).values():
        for group in file if not reads_all else ():
            if group not in groups:
                yield f"{name}: depended on the parameters {group}, which dvc.yaml no longer names"
    outs = {str(out.def_path) for out in stage.outs}
    for out in locked.get("outs", []):
        if out["path"] not in outs:
            yield f"{name}: wrote {out['path']}, which dvc.yaml no longer names"


def mismatched_hashes(lock: dict[str, Any]) -> Iterator[str]:
    """Files that left one stage with another hash than they entered the next."""
    written = {out["path"]: (name, out["md5"]) for name, stage in lock.items() for out in stage.get("outs", [])}
    for name, stage in lock.items():
        for dep in stage.get("deps", []):
            writer, md5 = written.get(dep["path"], ("", dep["md5"]))
            if md5 != dep["md5"]:
                yield f"{name}: read another {dep['path']} than {writer} wrote"


def main() -> None:
    try:
        found = list(problems(Path.cwd()))
    except DvcException as error:  # dvc.yaml or params.yaml can't be read
        raise UserError(str(error)) from None
    for problem in found:
        print(problem)
    if found:
        sys.exit("error: dvc.lock does not belong to this commit; run dvc repro and commit what it changes")
    print("verified: commands, parameters, dependencies and outputs are those of dvc.lock")


if __name__ == "__main__":
    run_stage(main)
