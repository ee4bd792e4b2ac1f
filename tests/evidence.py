"""What tests of evaluate and report share: the committed runs' evidence, and a folder in which to run the stages."""

import contextlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from stages.common.experiments import EXPERIMENTS
from stages.common.files import EVALUATION, read_json, write_csv
from stages.common.schema import Data, LinearData, NnTraining
from stages.evaluate.evidence import Evidence, gather
from stages.generate_data import draw
from stages.replicate import nn
from stages.replicate.runs import fresh_linear_sets
from stages.train.recorder import Fit
from tests.clones import set_param
from tests.conftest import DEFAULTS, ROOT, with_changes

Array = np.ndarray
ODD = ["a, b", 'it\'s "x"|y', "<script>alert(1)</script>", "$x^2$ [a](b) *_&", "]]></svg>", "溫度.[°C]"]


def numbers(count: int, seed: int) -> list[float]:
    """Normal ones."""
    return [float(value) for value in np.random.default_rng(seed).normal(size=count)]


ODD_TABLE = {**{name: numbers(30, j) for j, name in enumerate(ODD)}, "y": numbers(30, 99)}


def lay_out() -> None:
    """Fills the current folder: settings, what was published, the data sets, and the committed reports."""
    for name in ("params.yaml", "data/published.yaml", "data/raw", "reports"):
        source = ROOT / name
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copytree(source, name, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, name)
    for data_set in Data.model_fields:
        write_csv(draw(getattr(DEFAULTS.data, data_set)), Path(f"data/{data_set}.csv"))


@cache
def committed(experiment: str) -> Evidence:
    """The evidence of a committed run."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        lay_out()
        return gather(experiment)


def with_fit(e: Evidence, fit: Fit) -> Evidence:
    """The same with another fit."""
    history = {name: np.array(values) for name, values in fit.history.items()}
    return replace(e, history=history, metrics={**e.metrics, **fit.metrics()})


def with_simulated_nn(
    e: Evidence, count: int, steps: Sequence[int], *, lr: float | None = None, high: float = 1
) -> tuple[Evidence, Array]:
    """The evidence of nn with repetitions made anew, if asked for with another lr or x than it says.

    Returns:
        The evidence, and the errors of the repetitions' parameters, (steps, repetitions, 2).
    """
    assert isinstance(e.data, LinearData)
    assert isinstance(e.train, NnTraining)
    settings = with_changes(e.train, iterations=steps[-1], log_every=1, lr=lr or e.train.lr)
    data = with_changes(e.data, x={"distribution": "uniform", "low": 0, "high": high})
    generator = np.random.default_rng(0)
    features, target, _ = fresh_linear_sets(data, None, count, generator)
    start = generator.uniform(-1, 1, (count, 2))
    runs = nn.repeat(features, target, start, settings, steps)
    error_at = runs.theta_at - np.array([*data.weights, data.bias])
    moments = {"iteration": steps, **nn.error_moments(error_at)}
    repetitions = {"w": runs.theta[:, 0], "b": runs.theta[:, 1], "w_start": start[:, 0], "b_start": start[:, 1]}
    repetitions |= {"loss": runs.loss, "stopped": runs.stopped}
    course = {name: np.array(values) for name, values in moments.items()}
    return replace(e, repetitions=repetitions, course=course), error_at


def run(kind: str, name: str) -> None:
    """As `python -m stages.<kind> <name>` in the current folder."""
    with patch.object(sys, "argv", [kind, name]):
        import_module(f"stages.{kind}").main()


def evaluate(experiment: str) -> dict[str, Any]:
    """Evaluates what lies in the current folder."""
    run("evaluate.__main__", experiment)
    found: dict[str, Any] = read_json(EVALUATION / f"{experiment}.json")
    return found


def rerun(
    experiment: str, settings: Mapping[str, object], own: Mapping[str, list[Any]] | None = None
) -> dict[str, Any]:
    """Runs all stages of an experiment in the current folder, with 20 repetitions, and evaluates it.

    Args:
        experiment: its name.
        settings: changes of params.yaml, by full names.
        own: the columns of a CSV of one's own.
    """
    data_set, changes = EXPERIMENTS[experiment].data_set, {"replicate.count": 20, **settings}
    if own is not None:
        write_csv(own, Path("data/raw/own.csv"))
        changes[f"data.{data_set}.file"] = "data/raw/own.csv"
    for key, value in changes.items():
        set_param(Path(), key, value)
    run("generate_data", data_set)
    for kind in ("train", "replicate"):
        import_module(f"stages.{kind}.{experiment}").main()
    return evaluate(experiment)


# --- figures ---------------------------------------------------------------------------------------------------------


def drawn_line(svg: str) -> Array:
    """The ends of the line that a page moves, [[x, y], [x, y]] in the SVG's units."""
    found = re.search(r'-fit-moving">\s*<path d="M (\S+) (\S+)\s+L (\S+) (\S+)', svg)
    assert found is not None
    return np.array(found.groups(), dtype=float).reshape(2, 2)


def drawn_dot(svg: str) -> Array:
    """The dot that a page moves, [x, y] in the SVG's units."""
    found = re.search(r'-loss-moving">.*?<use [^>]*x="(\S+)" y="(\S+)"', svg, flags=re.DOTALL)
    assert found is not None
    return np.array(found.groups(), dtype=float)


def at(axes: Mapping[str, float], x: float, y: float) -> Array:
    """Where a point in data units lies, [x, y] in the SVG's units."""
    scaled = np.log10 if axes["log"] else np.asarray
    low, high, height = scaled([axes["y0"], axes["y1"], y])
    across, up = (x - axes["x0"]) / (axes["x1"] - axes["x0"]), (height - low) / (high - low)
    return np.array(
        [
            axes["left"] + across * (axes["right"] - axes["left"]),
            axes["bottom"] + up * (axes["top"] - axes["bottom"]),
        ]
    )


def distance(ends: Array, point: Array) -> float:
    """From the straight line through two ends."""
    (dx, dy), (a, b) = ends[1] - ends[0], point - ends[0]
    return float(abs(dx * b - dy * a) / np.hypot(dx, dy))


def off_line(ends: Array, axes: Mapping[str, float], line: Sequence[float]) -> float:
    """How far a drawn line lies from where p x + q y + r = 0 meets two edges of the axes, in the SVG's units."""
    (p, q, r), x, y = line, (axes["x0"], axes["x1"]), (axes["y0"], axes["y1"])
    is_flat = abs(p) * (x[1] - x[0]) < abs(q) * (y[1] - y[0])
    on_line = [(v, -(p * v + r) / q) for v in x] if is_flat else [(-(q * v + r) / p, v) for v in y]
    return max(distance(ends, at(axes, *point)) for point in on_line)
