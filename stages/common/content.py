"""What the report says, before it takes a form: one Section an experiment, from parameters, metrics and histories.

Both templates, Markdown and HTML, are views of these sections.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.common.figures import (
    MAX_FRAMES,
    MAX_POINTS,
    Line,
    Picture,
    Scatter,
    evenly_spaced,
    fit_picture,
    loss_picture,
)
from stages.common.files import DATA, HISTORY, METRICS, Table, read_clusters, read_json, read_linear_set
from stages.common.params import ClustersData, Data, DataSet, LinearData, LogisticTraining, Train, Training
from stages.common.theory import cluster_log_odds, shared_solution

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


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings; `article` is None where the article has no such setting."""

    key: str
    value: str
    article: str | None
    differs: bool


@dataclass(frozen=True)
class Quantity:
    """A row of the table of results; None where a column has nothing to say."""

    name: str
    true: float | None
    published: str | None
    fitted: float | None


@dataclass(frozen=True)
class Frame:
    """One step of the slider."""

    iteration: int
    loss: float
    parameters: Parameters
    line: tuple[float, ...] | None
    dot: tuple[float, ...] | None


@dataclass(frozen=True)
class Section:
    """One experiment of the report."""

    experiment: str
    title: str
    data_set: str
    article: dict[str, str]
    data: DataSet
    train: Training
    metrics: dict[str, Any]
    rows: int
    settings: list[Setting]
    departures: list[str]
    quantities: list[Quantity]
    fit: Picture
    fit_caption: str
    loss: Picture
    loss_caption: str
    frames: list[Frame]

    @property
    def error(self) -> dict[str, float]:
        """The largest absolute error of a fitted parameter against truth and publication, where they are known."""
        fitted = self.metrics["fitted"]
        rows = [row for row in self.quantities if row.name in fitted]
        truth = [abs(fitted[row.name] - row.true) for row in rows if row.true is not None]
        publication = [abs(fitted[row.name] - float(row.published)) for row in rows if row.published]
        return {name: max(errors) for name, errors in (("truth", truth), ("publication", publication)) if errors}


def section(experiment: str, all_data: Data, all_train: Train, published: dict[str, Any]) -> Section:
    """Everything that the report says of one experiment, read from what its stages wrote."""
    data_set, title = EXPERIMENTS[experiment]
    data: DataSet = getattr(all_data, data_set)
    train: Training = getattr(all_train, experiment)
    metrics = read_json(METRICS / f"{experiment}.json")
    history = pd.read_csv(HISTORY / f"{experiment}.csv")
    read = read_clusters if isinstance(data, ClustersData) else read_linear_set
    table = read(DATA / f"{data_set}.csv")

    settings = compared_settings(data_set, data, experiment, train, published["settings"])
    departures = [f"{row.key} is {row.value} (article: {row.article})" for row in settings if row.differs]
    applicable = {} if departures else published
    line_of = line_in_picture(train, experiment, table)
    true = truth(experiment, data, train)

    frames = history.iloc[evenly_spaced(len(history), MAX_FRAMES)]
    lines = [line_of(parameters) for parameters in _parameters(frames)]
    met = line_of(_parameters(history)[-2]) if metrics["stopped"] == "loss" else None
    fit = fit_picture(
        scatter(table),
        lines,
        met,
        line_of(true) if true else None,
        moving="boundary" if table.target.name == "label" else "fit",
    )
    losses = {iteration: float(value) for iteration, value in applicable.get("losses", {}).items()}
    start = "published, from its own start" if losses else ""
    loss = loss_picture(frames, train.stop_below, losses, start)
    return Section(
        experiment=experiment,
        title=title,
        data_set=data_set,
        article=published["article"],
        data=data,
        train=train,
        metrics=metrics,
        rows=len(table.target),
        settings=settings,
        departures=departures,
        quantities=quantities(metrics, true, applicable, history),
        fit=fit,
        fit_caption=fit_caption(table),
        loss=loss,
        loss_caption=loss_caption(len(history), len(frames)),
        frames=[
            Frame(int(row["iteration"]), float(row["loss"]), parameters, line, dot)
            for (_, row), parameters, line, dot in zip(
                frames.iterrows(), _parameters(frames), fit.places, loss.places, strict=True
            )
        ],
    )


def _parameters(history: pd.DataFrame) -> list[Parameters]:
    return [
        {str(name): float(value) for name, value in row.items()}
        for row in history.loc[:, "loss":].iloc[:, 1:].to_dict("records")
    ]


# --- settings and results --------------------------------------------------------------------------------------------


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
        solution = shared_solution(data.weights[0], data.bias)
        return {} if solution is None else dict(zip("wb", solution, strict=True))
    return {**_named_weights(data.weights), "b": data.bias}


def _true_boundary(data: ClustersData, form: str) -> Parameters:
    w, b = cluster_log_odds(data.centers, data.std)
    if form == "general":
        return {**_named_weights(w.tolist()), "b": b}
    if w[1] == 0:  # an upright boundary has no slope
        return {}
    return {"w": float(-w[0] / w[1]) + 0.0, "b": float(-b / w[1]) + 0.0}  # + 0.0 turns -0.0 into 0.0


def _named_weights(weights: list[float]) -> Parameters:
    if len(weights) == 1:
        return {"w": weights[0]}
    return {f"w{j}": weight for j, weight in enumerate(weights, start=1)}


def quantities(
    metrics: dict[str, Any], true: Parameters, published: dict[str, Any], history: pd.DataFrame
) -> list[Quantity]:
    """Fitted beside true and published: the parameters, the losses that the article printed, and the final loss."""
    printed = published.get("fitted", {})
    loss_at = dict(zip(history["iteration"], history["loss"], strict=True))
    return [
        *(Quantity(name, true.get(name), printed.get(name), value) for name, value in metrics["fitted"].items()),
        *(
            Quantity(f"loss at iteration {iteration}", None, value, loss_at.get(iteration))
            for iteration, value in published.get("losses", {}).items()
        ),
        Quantity(f"loss at the end, iteration {metrics['iterations']}", None, None, metrics["loss"]),
        *(
            Quantity(name.replace("_", " "), None, None, metrics[name])
            for name in ("stop_loss", "accuracy")
            if name in metrics
        ),
    ]


# --- pictures --------------------------------------------------------------------------------------------------------


def line_in_picture(train: Training, experiment: str, table: Table) -> Callable[[Parameters], Line | None]:
    """How the picture's line follows from the parameters; features that it does not show stand at their mean."""
    features = table.features.shape[1]
    across, up = shown_features(table)
    hidden = [j for j in range(features) if j not in (across, up)]
    means = table.features.mean().to_numpy()

    def linear(parameters: Parameters) -> Line:
        *w, b = parameters.values()
        return w[across], -1.0, b + sum(w[j] * means[j] for j in hidden)

    def applied_twice(parameters: Parameters) -> Line:
        w, b = parameters.values()
        return w * w, -1.0, (w + 1) * b

    def slope_intercept(parameters: Parameters) -> Line:
        w, b = parameters.values()
        return w, -1.0, b

    def general(parameters: Parameters) -> Line | None:
        *w, b = parameters.values()
        line = (w[across], 0.0 if up is None else w[up], b + sum(w[j] * means[j] for j in hidden))
        return line if any(line[:2]) else None

    if isinstance(train, LogisticTraining):
        return slope_intercept if train.form == "slope-intercept" else general
    return applied_twice if experiment == "shared" else linear


def shown_features(table: Table) -> tuple[int, int | None]:
    """The features on the axes: for classes the first two; else the second, as in article C, or the one."""
    features = table.features.shape[1]
    if table.target.name == "label":
        return 0, 1 if features > 1 else None
    return min(1, features - 1), None


def scatter(table: Table) -> Scatter:
    """The data as points: the target, or for classes the second feature, over the shown feature."""
    across, up = shown_features(table)
    names = list(table.features.columns)
    has_classes = table.target.name == "label"
    return Scatter(
        x=table.features.iloc[:, across].to_numpy(),
        y=(table.target if up is None else table.features.iloc[:, up]).to_numpy(),
        label=table.target.to_numpy() if has_classes else None,
        x_name=names[across],
        y_name=str(table.target.name) if up is None else names[up],
    )


def fit_caption(table: Table) -> str:
    """What the picture of the fit shows and what it leaves out."""
    across, up = shown_features(table)
    names = list(table.features.columns)
    shown = [names[j] for j in (across, up) if j is not None]
    hidden = [name for name in names if name not in shown]
    rows = len(table.target)
    what = "boundary" if table.target.name == "label" else "fitted line"
    held = f", {', '.join(hidden[:5])}{', ...' if len(hidden) > 5 else ''} held at the mean" if hidden else ""
    over = f" over {' and '.join(shown)}" if hidden else ""
    thinned = f"; {MAX_POINTS:,} of the rows drawn" if rows > MAX_POINTS else ""
    return f"Data ({rows:,} rows{thinned}){over} with the {what}{held}."


def loss_caption(recorded: int, drawn: int) -> str:
    """What the loss curve shows and what it leaves out."""
    thinned = f"; {drawn:,} of {recorded:,} recorded iterations drawn" if drawn < recorded else ""
    return f"Loss over all rows by iteration, before the update; log scale{thinned}."
