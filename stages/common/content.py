"""What the report says, before it takes a form: one Section an experiment, from the evidence and the checks.

Both templates, Markdown and HTML, are views of these sections.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from stages.common.answers import Answer, answer_noisy, answer_shared, error_of_repetitions
from stages.common.checks import Check, Quantity, checks_of, errors, quantities
from stages.common.evidence import EXPERIMENTS, Evidence, Parameters, Setting, gather
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
from stages.common.files import Table
from stages.common.params import Data, LogisticTraining, Train, Training
from stages.common.theory import maximum_likelihood_exists

ANSWERS = {"noisy": answer_noisy, "nn": error_of_repetitions, "shared": answer_shared}


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
    article: dict[str, str]
    train: Training
    metrics: dict[str, object]
    rows: int
    repetitions: int
    settings: list[Setting]
    departures: list[str]
    quantities: list[Quantity]
    checks: list[Check]
    errors: dict[str, float]
    facts: list[tuple[str, str]]
    fit: Picture
    fit_caption: str
    points: pd.DataFrame
    loss: Picture
    loss_caption: str
    frames: list[Frame]
    answer: Answer | None
    pictures_only: bool


def sections(data: Data, train: Train) -> list[Section]:
    """The whole report."""
    return [section(gather(experiment, data, train)) for experiment in EXPERIMENTS]


def section(e: Evidence) -> Section:
    """Everything that the report says of one experiment."""
    line_of = line_in_picture(e.train, e.experiment, e.table)
    frames = e.history.iloc[evenly_spaced(len(e.history), MAX_FRAMES)]
    lines = [line_of(parameters) for parameters in _parameters(frames)]
    met = line_of(_parameters(e.history)[-2]) if e.metrics["stopped"] == "loss" else None
    moving = "boundary" if e.table.target.name == "label" else "fit"
    shown = scatter(e.table)
    fit = fit_picture(shown, lines, met, line_of(e.true) if e.true else None, moving=moving)
    printed = {} if e.departures else {k: float(loss) for k, loss in e.published.get("losses", {}).items()}
    loss = loss_picture(frames, e.train.stop_below, printed, _central(e, printed))
    return Section(
        experiment=e.experiment,
        title=e.title,
        article=e.published["article"],
        train=e.train,
        metrics=e.metrics,
        rows=len(e.target),
        repetitions=e.replicates["count"],
        settings=e.settings,
        departures=e.departures,
        quantities=quantities(e),
        checks=checks_of(e),
        errors=errors(e),
        facts=facts(e),
        fit=fit,
        fit_caption=fit_caption(e.table),
        points=points(shown),
        loss=loss,
        loss_caption=loss_caption(e.history, len(frames), bool(printed)),
        frames=[
            Frame(int(row["iteration"]), float(row["loss"]), parameters, line, dot)
            for (_, row), parameters, line, dot in zip(
                frames.iterrows(), _parameters(frames), fit.places, loss.places, strict=True
            )
        ],
        pictures_only=not ({"fitted", "losses"} & set(e.published)),
        answer=ANSWERS[e.experiment](e) if e.experiment in ANSWERS else None,
    )


def _parameters(history: pd.DataFrame) -> list[Parameters]:
    return [
        {str(name): float(value) for name, value in row.items()}
        for row in history.loc[:, "loss":].iloc[:, 1:].to_dict("records")
    ]


def _central(e: Evidence, printed: dict[int, float]) -> dict[int, tuple[float, float]]:
    """The central 99 % of the repetitions' losses at the iterations that the article printed."""
    spreads = {k: e.loss_spreads.get(str(k), {}) for k in printed}
    return {k: (spread["low"], spread["high"]) for k, spread in spreads.items() if "low" in spread}


def facts(e: Evidence) -> list[tuple[str, str]]:
    """What theory says of the loss on these data."""
    if isinstance(e.train, LogisticTraining):
        exists = maximum_likelihood_exists(e.features, e.target, form=e.train.form)
        return [
            ("a maximum-likelihood solution exists in this form", "yes" if exists else "no, the classes are separable")
        ]
    if e.curvature is None:
        return []
    c = e.curvature
    rows = [
        ("smallest eigenvalue of the Hessian", f"{c.eigenvalues[0]:.6g}"),
        ("largest eigenvalue of the Hessian", f"{c.eigenvalues[-1]:.6g}"),
        ("condition number", f"{c.condition:.4g}" if c.condition < 1e300 else "none, a direction is flat"),
        ("learning rate used", f"{e.train.lr:g}"),
        ("largest stable learning rate, 2 / largest eigenvalue", f"{c.stable_lr:.4g}"),
    ]
    if not e.train.zero_grad:
        rows.append(("with accumulating gradients, 4 / largest eigenvalue", f"{c.accumulating_lr:.4g}"))
    return rows


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


def points(shown: Scatter) -> pd.DataFrame:
    """The points drawn of the data, for DVC's plots: columns `x`, `y`, and for classes `label`."""
    columns = {"x": shown.x, "y": shown.y}
    if shown.label is not None:
        columns["label"] = shown.label.astype(int)
    return pd.DataFrame(columns).iloc[evenly_spaced(len(shown.x), MAX_POINTS)]


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


def loss_caption(history: pd.DataFrame, drawn: int, with_published: bool) -> str:
    """What the loss curve shows and what it leaves out."""
    recorded = len(history)
    zero = (
        " It ends where the loss is recorded as 0, below 1e-16 of the mean square of y."
        if (history["loss"] == 0).any()
        else ""
    )
    thinned = f"; {drawn:,} of {recorded:,} recorded iterations drawn" if drawn < recorded else ""
    bars = " Bars span the central 99 % of the repetitions." if with_published else ""
    return f"Loss over all rows by iteration; log scale{thinned}.{zero}{bars}"
