"""All that is known of one experiment before it is judged: settings, results, repetitions, exact solutions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stages.common import theory
from stages.common.files import (
    DATA,
    HISTORY,
    METRICS,
    REPLICATES,
    Table,
    parameter_names,
    read_clusters,
    read_json,
    read_linear_set,
    read_published,
    read_results,
)
from stages.common.params import ClustersData, Data, DataSet, LinearData, LogisticTraining, Train, Training

Parameters = dict[str, float]  # w or w1, w2, ..., then b

# experiment: (data set, title)
EXPERIMENTS = {
    "manual": ("line", "Linear regression by hand"),
    "noisy": ("noisy_line", "A noisy line and an early stop"),
    "minibatch": ("plane", "Mini-batches from scratch"),
    "nn": ("stream", "One linear layer"),
    "shared": ("stream", "One layer applied twice"),
    "logistic": ("clusters", "Logistic regression on two clusters"),
}

# 2: the loss is the mean of squares, or the square of one row; 1: half of it. The logistic losses are neither.
FACTOR = {
    "manual": 2,
    "noisy": 1,
    "minibatch": 1,
    "nn": 2,
    "shared": 2,
}


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings; `article` is None where the article has no such setting."""

    key: str
    value: str
    article: str | None
    differs: bool


@dataclass(frozen=True)
class Exact:
    """What an experiment's loss has as its minimum; its parameters, the loss there, and standard errors where known."""

    parameters: Parameters
    loss: float
    standard_errors: Parameters


@dataclass(frozen=True)
class Evidence:
    """One experiment's settings, what its stages wrote, and what follows from the data exactly.

    Attributes:
        experiment: its name.
        data_set: the name of its data set.
        title: for headings.
        data: the group data.<data set>.
        train: the group train.<experiment>.
        published: its part of data/published.yaml.
        metrics: reports/metrics/<experiment>.json.
        history: reports/history/<experiment>.csv.
        replicates: reports/replicates/<experiment>.json.
        repetitions: reports/replicates/<experiment>.csv.
        table: the data set.
    """

    experiment: str
    data_set: str
    title: str
    data: DataSet
    train: Training
    published: dict[str, Any]
    metrics: dict[str, Any]
    history: pd.DataFrame
    replicates: dict[str, Any]
    repetitions: pd.DataFrame
    table: Table

    @property
    def features(self) -> np.ndarray:
        """(rows, features)."""
        return self.table.features.to_numpy()

    @property
    def target(self) -> np.ndarray:
        """(rows,)."""
        return self.table.target.to_numpy()

    @property
    def fitted(self) -> Parameters:
        """The parameters at the end of the fit."""
        return self.metrics["fitted"]

    @property
    def standardize(self) -> bool:
        """Whether the fit was made on standardized features."""
        return getattr(self.train, "standardize", False)

    @cached_property
    def settings(self) -> list[Setting]:
        """Every setting in use beside the article's."""
        return compared_settings(self.data_set, self.data, self.experiment, self.train, self.published["settings"])

    @property
    def departures(self) -> list[str]:
        """Where the settings are not the article's."""
        return [f"{row.key} is {row.value} (article: {row.article})" for row in self.settings if row.differs]

    @cached_property
    def true(self) -> Parameters:
        """The parameters that the data were drawn from; empty where they are not known."""
        return truth(self.experiment, self.data, self.train)

    @cached_property
    def exact(self) -> Exact | None:
        """The minimum of the loss on these data; None where there is no single one."""
        if isinstance(self.train, LogisticTraining):
            return self._logistic_minimum(self.train)
        solution = theory.least_squares(self.features, self.target)
        if solution is None:
            return None
        loss = FACTOR[self.experiment] / 2 * solution.mean_square
        if self.experiment == "shared":
            solutions = theory.shared_solutions(*solution.theta.tolist())
            side = "positive" if self.fitted["w"] > 0 else "negative"
            return Exact(self._named(solutions[side]), loss, {}) if side in solutions else None
        return Exact(self._named(solution.theta), loss, self._named(solution.standard_errors))

    def _logistic_minimum(self, train: LogisticTraining) -> Exact | None:
        near = np.array(list(self.fitted.values()))
        found = theory.logistic_minimum(self.features, self.target, loss=train.loss, form=train.form, near=near)
        if found is None:
            return None
        errors = {} if found.standard_errors is None else self._named(found.standard_errors)
        return Exact(self._named(found.theta), found.loss, errors)

    def _named(self, theta: np.ndarray) -> Parameters:
        return dict(zip(self.fitted, theta.tolist(), strict=True))

    @cached_property
    def curvature(self) -> theory.Curvature | None:
        """Of the loss on these data, in the units of the fit; None where the loss is not quadratic."""
        if self.experiment not in FACTOR or self.experiment == "shared":
            return None
        features = self.features
        if self.standardize:
            features = (features - features.mean(0)) / features.std(0)
        return theory.curvature(theory.hessian(features, FACTOR[self.experiment]))

    @property
    def loss_spreads(self) -> dict[str, dict[str, float]]:
        """The repetitions' losses at the printed iterations (as text), from the published start if there is one."""
        return {**self.replicates.get("published", {}), **self.replicates.get("published_start", {})}.get("loss", {})

    def course(self, iterations: np.ndarray, *, accumulate: bool | None = None) -> theory.Course | None:
        """Theory's course of manual and noisy from the recorded start; None elsewhere or without one solution."""
        if self.experiment not in ("manual", "noisy") or self.exact is None:
            return None
        return theory.full_batch_course(
            self.features,
            self.target,
            np.array(list(self.metrics["initial"].values())),
            lr=self.train.lr,
            iterations=iterations,
            factor=FACTOR[self.experiment],
            accumulate=not self.train.zero_grad if accumulate is None else accumulate,
            standardize=self.standardize,
        )


def gather(experiment: str, all_data: Data, all_train: Train) -> Evidence:
    """Reads what the stages of an experiment wrote."""
    data_set, title = EXPERIMENTS[experiment]
    data: DataSet = getattr(all_data, data_set)
    read = read_clusters if isinstance(data, ClustersData) else read_linear_set
    return Evidence(
        experiment=experiment,
        data_set=data_set,
        title=title,
        data=data,
        train=getattr(all_train, experiment),
        published=read_published(experiment),
        metrics=read_json(METRICS / f"{experiment}.json"),
        history=read_results(HISTORY / f"{experiment}.csv", first_column="iteration"),
        replicates=read_json(REPLICATES / f"{experiment}.json"),
        repetitions=read_results(REPLICATES / f"{experiment}.csv"),
        table=read(DATA / f"{data_set}.csv"),
    )


def compared_settings(
    data_set: str, data: DataSet, experiment: str, train: Training, article: dict[str, Any]
) -> list[Setting]:
    """Every setting in use beside the article's; a CSV of one's own leaves only `file` of the data settings in use."""
    data_in_use = data.model_dump() if data.file is None else {"file": data.file}
    groups = [
        (f"data.{data_set}", data_in_use, article["data"]),
        (f"train.{experiment}", train.model_dump(), article["train"]),
    ]
    return [
        Setting(
            key=f"{group}.{key}",
            value=as_text(value),
            article=as_text(theirs[key]) if key in theirs else None,
            differs=key in theirs and theirs[key] != value,
        )
        for group, ours, theirs in groups
        for key, value in ours.items()
    ]


def as_text(value: object) -> str:
    """A setting as params.yaml spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {as_text(part)}" for key, part in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def truth(experiment: str, data: DataSet, train: Training) -> Parameters:
    """The parameters that the data were drawn from, in the form of the fit; empty where they are not known."""
    if data.file is not None:
        return {}
    if isinstance(data, ClustersData):
        assert isinstance(train, LogisticTraining)
        return _true_boundary(data, train.form)
    assert isinstance(data, LinearData)
    if experiment == "shared":
        solutions = theory.shared_solutions(data.weights[0], data.bias)
        return dict(zip("wb", solutions["positive"].tolist(), strict=True)) if solutions else {}
    return {**_named_weights(data.weights), "b": data.bias}


def _true_boundary(data: ClustersData, form: str) -> Parameters:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        w, b = theory.cluster_log_odds(data.centers, data.std)
        ratios = [-w[0] / w[1], -b / w[1]]
    if not np.isfinite([*w, b, *(ratios if form != "general" else [])]).all():  # an upright boundary has no slope
        return {}
    if form == "general":
        return {**_named_weights(w.tolist()), "b": b}
    return {name: float(ratio) + 0.0 for name, ratio in zip("wb", ratios, strict=True)}  # + 0.0 turns -0.0 into 0.0


def _named_weights(weights: list[float]) -> Parameters:
    return dict(zip(parameter_names(len(weights)), weights, strict=False))  # the last name is b's
