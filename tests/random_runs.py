"""Random runs, each from a seed: an experiment with valid settings and a CSV of one's own, awkward as such data are.

run  python -m tests.random_runs 0 40 FOLDER: writes what all stages make of seeds 0 to 39 below a new folder
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.experiments import EXPERIMENTS, parameter_names
from stages.common.files import significant
from stages.common.tables import Table
from tests.conftest import DEFAULTS
from tests.evidence import lay_out, rerun, run

ONE_FEATURE = ("manual", "noisy", "shared")


@dataclass(frozen=True)
class RandomRun:
    """What is fitted, with what, to what.

    Attributes:
        experiment: its name.
        settings: all of train.<experiment>.
        table: the data.
    """

    experiment: str
    settings: dict[str, Any]
    table: Table

    def evaluation(self) -> dict[str, Any]:
        """What all stages in turn make of it in the current folder, up to the report, with five repetitions."""
        settings = {f"train.{self.experiment}.{key}": value for key, value in self.settings.items()}
        columns = {
            name: column.tolist() for name, column in zip(self.table.feature_names, self.table.features.T, strict=True)
        }
        columns[self.table.target_name] = self.table.target.tolist()
        found = rerun(self.experiment, {**settings, "replicate.count": 5}, columns)
        run("report.__main__", "")
        return found


def random_run(seed: int) -> RandomRun:
    """The same one for the same seed."""
    random = np.random.default_rng(seed)
    experiment = str(random.choice(list(EXPERIMENTS)))
    table = random_table(experiment, random)
    return RandomRun(experiment, random_settings(experiment, table, random), table)


def random_table(experiment: str, random: np.random.Generator) -> Table:
    """Rows in units from 1e-6 to 1e6, some far from 0 as years are, some wide, some on a line, some separable."""
    features = int(random.choice([1, 2, 3, 4, 12]))
    features = 1 if experiment in ONE_FEATURE else 2 if experiment == "logistic" and features == 1 else features
    rows = int(random.integers(features + 1, 40))
    offset = random.choice([0, 1, 30, 1e5], size=features)
    x = (random.normal(size=(rows, features)) + offset) * 10 ** random.uniform(-6, 6, features)
    weights = random.normal(size=features)
    names = parameter_names(features)[:-1]
    if experiment == "logistic":
        label = (random.random(rows) < 0.5) if random.integers(3) else x @ weights > np.median(x @ weights)
        label[:2] = False, True
        return Table(x, label.astype(float), names, "label")
    target = x @ weights / np.abs(x).max() + random.choice([0, 0.1]) * random.normal(size=rows)
    target = (target + random.choice([0, 1, 1e3])) * 10 ** random.uniform(-6, 6)
    return Table(x, target, names, "y")


def random_settings(experiment: str, table: Table, random: np.random.Generator) -> dict[str, Any]:
    """Valid ones for the data; most learning rates lie about the limit, some far beyond."""
    x, known = table.features, getattr(DEFAULTS.train, experiment).model_dump()
    standardize = bool(random.integers(2))
    scaled = (x - x.mean(0)) / x.std(0) if standardize and "standardize" in known else x
    limit = 2 / (2 * float(np.mean(np.sum(scaled**2, axis=1)) + 1))
    lr = random.choice([limit, limit, 0.1]) * 10 ** random.uniform(-2, random.choice([0.5, 0.5, 0.5, 4]))
    stop_below = float(np.mean(table.target**2) * 10 ** random.uniform(-4, 0.3))
    anything = {
        "lr": min(significant(lr, 4), 1e9),
        "zero_grad": bool(random.integers(2)),
        "standardize": standardize,
        "dtype": str(random.choice(["float64", "float64", "float64", "float32"])),
        "stop_below": min(significant(stop_below, 4), 1e9) if random.integers(2) else None,
        "log_every": int(random.integers(1, 8)),
        "iterations": int(random.integers(1, 60)),
        "epochs": int(random.integers(1, 5)),
        "batch_size": int(random.integers(1, len(x) + 3)),
        "seed": int(random.integers(2**32)),
        "form": "general" if standardize or x.shape[1] != 2 else str(random.choice(["general", "slope-intercept"])),
        "loss": str(random.choice(["mse", "bce"])),
    }
    return {key: value for key, value in anything.items() if key in known}


def main() -> None:
    first, last, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir()
    os.chdir(folder)
    lay_out()
    for seed in range(first, last):
        found = random_run(seed)
        found.evaluation()
        for path in [
            *Path("reports").rglob(f"{found.experiment}*.*"),
            *Path("reports").glob(f"*/{found.experiment}/*"),
        ]:
            kept = f"seed-{seed}" / path.relative_to("reports")
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept)


if __name__ == "__main__":
    main()
