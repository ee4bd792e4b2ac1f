"""Why the layer applied twice never finds its other solution, the one with negative w."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stages.common.published import decimals_of
from stages.common.schema import LinearData, Uniform
from stages.evaluate.answers.nn import feature_distribution
from stages.evaluate.checks import Check, judged, not_applicable
from stages.evaluate.estimates import mean, share
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.figures import (
    AXIS,
    BLUE,
    INK,
    ORANGE,
    RED,
    Answer,
    Drawing,
    add_legend,
    use_log_scale,
    use_plain_powers,
)
from stages.theory import applied_twice, single_rows

STABLE_LR_SHARE = 0.965  # of the largest stable lr: the descent that holds at the negative solution
NUDGE = 1e-3  # how far from the negative solution that descent starts, along w
HELD = 100_000  # its iterations where it holds
STEPS = 1_000_000  # and where it doesn't: after three quarters of them it has reached the edge of stability
AT_THE_EDGE = np.arange(3 * STEPS // 4, STEPS, 999)  # odd steps apart, since the edge swings every other iteration
ROWS = 40_000  # by which the typical growth is estimated
WAYS_ENDED = {"positive": (BLUE, "o"), "valley": (ORANGE, "^"), "runaway": (RED, "s"), "diverged": (INK, "x")}


def answer(e: Evidence) -> Answer | None:
    """Why no solution with negative w; None where the settings are not the article's."""
    if e.differs or not isinstance(e.data, LinearData):
        return None
    slope, intercept, lr = e.data.weights[0], e.data.bias, e.train.lr
    x = feature_distribution(e.data)
    solutions = applied_twice.solutions(slope, intercept)
    if len(solutions) < 2:
        return None
    negative = solutions["negative"]
    curvature = applied_twice.curvature(negative, x)
    full_batch = curvature.stable_lr
    stable = STABLE_LR_SHARE * full_batch
    start = negative + np.array([NUDGE, 0.0])
    at = {stable: _drawn(HELD), lr: np.union1d(_drawn(STEPS), AT_THE_EDGE)}
    paths = {
        rate: applied_twice.full_batch_path(start, slope, intercept, x, lr=rate, iterations=iterations)
        for rate, iterations in at.items()
    }
    edge = paths[lr][np.isin(at[lr], AT_THE_EDGE)]
    end, eigenvalues = edge.mean(axis=0), [applied_twice.curvature(theta, x).eigenvalues[-1] for theta in edge]
    ended = ended_where(e.repetitions)
    w_b = np.column_stack([e.repetitions["w"], e.repetitions["b"]])
    distance = np.linalg.norm(w_b[(ended == "valley") | (ended == "runaway")] - negative, axis=1)
    return Answer(
        values={
            "solutions": {name: _solution(theta, x, lr) for name, theta in solutions.items()},
            "share": {way: share(np.mean(ended == way), e.count) for way in WAYS_ENDED},
            "share_as_published": share(np.mean(shows_printed(e)), e.count),
            **{way: middle for way in ("valley", "runaway") if (middle := _middle(e, ended == way))},
            **({"nearest": float(distance.min())} if len(distance) else {}),
            "nudge": NUDGE,
            "valley_updates": 1 / (stable * float(curvature.eigenvalues[0])),
            "typical_growth": mean(single_rows.typical_growth(gradients_of_rows(negative, e.data), lr)),
            "stable_lr": stable,
            "full_batch_lr": full_batch,
            "edge": 2 / lr,
            "end": {"w": float(end[0]), "b": float(end[1])},
            "end_eigenvalue_low": float(min(eigenvalues)),
            "end_eigenvalue_high": float(max(eigenvalues)),
            "end_distance": float(np.linalg.norm(end - negative)),
            "held_distance": float(np.linalg.norm(paths[stable][-1] - negative)),
            "held_steps": HELD,
            "steps": STEPS,
        },
        figures={
            "landscape": Drawing(
                landscape_figure(e, solutions, slope, intercept, x),
                f"The loss over w and b, both solutions, and the ways of {len(_ways(e))} repetitions from their"
                " starts.",
            ),
            "starts": Drawing(
                starts_figure(e.repetitions["w_start"], e.repetitions["b_start"], ended),
                f"Which start goes where: {e.count:,} repetitions, by where they stand after"
                f" {e.metrics['iterations']:,} iterations.",
            ),
            "distance": Drawing(
                distance_figure(
                    {
                        f"lr = {rate:.3g}": (at[rate], np.linalg.norm(path - negative, axis=1))
                        for rate, path in paths.items()
                    }
                ),
                f"Full-batch descent from {NUDGE:g} beside the negative solution: distance from it by iteration.",
            ),
        },
    )


def negative_check(e: Evidence, answer: Answer | None) -> Check:
    """What theory says of the negative solution is what descent does there, and no repetition gets to it."""
    statement = "descent holds at the negative solution below its stable lr, at the article's at the edge of stability"
    if answer is None:
        return not_applicable("negative", statement, "asked of the article's settings only")
    v = answer.values
    holds = v["held_distance"] < v["nudge"] < min(v["end_distance"], v.get("nearest", math.inf))
    at_edge = v["end_eigenvalue_low"] <= v["edge"] <= v["end_eigenvalue_high"]
    found = f"{v['held_distance']:.2g} and {v['end_distance']:.2g} away; largest eigenvalue there {v['edge']:g}"
    return judged("negative", statement, holds and at_edge, found)


def _middle(e: Evidence, mine: Array) -> dict[str, float]:
    """Where some repetitions stand at the end: their median w and b; nothing where there are none."""
    return {name: float(np.median(e.repetitions[name][mine])) for name in ("w", "b")} if mine.any() else {}


def gradients_of_rows(theta: Array, data: LinearData) -> Array:
    """d y_hat / d(w, b) at rows that are drawn as the data are, (rows, 2)."""
    random, x = np.random.default_rng(0), data.x
    points = random.uniform(x.low, x.high, ROWS) if isinstance(x, Uniform) else random.normal(x.mean, x.sd, ROWS)
    return applied_twice.gradients(theta, points)


def _drawn(steps: int) -> Array:
    """Iterations evenly spaced on a log axis."""
    return np.unique(np.geomspace(1, steps, 400).round().astype(int))


def _solution(theta: Array, x: single_rows.Distribution, lr: float) -> dict[str, Any]:
    """Where a solution lies, how curved the loss is there, and which learning rates hold at it."""
    curvature = applied_twice.curvature(theta, x)
    g = applied_twice.gradients(theta, x.points)
    return {
        "w": float(theta[0]),
        "b": float(theta[1]),
        "smallest_eigenvalue": float(curvature.eigenvalues[0]),
        "largest_eigenvalue": float(curvature.eigenvalues[-1]),
        "stable_lr": curvature.stable_lr,
        "stable_lr_single_rows": single_rows.mean_square_stable_lr(g, x),
        "growth": single_rows.mean_square_growth(g, x, lr),
    }


def ended_where(repetitions: dict[str, Array]) -> Array:
    """Which way each repetition went, by the quadrant of (w, b) it ended in.

    `positive`: w > 0, where the published solution lies. `valley`: w < 0 and b < 0, on the way to the other solution.
    `runaway`: w < 0 and b > 0. `diverged`: no longer finite.
    """
    where = np.select([repetitions["w"] > 0, repetitions["b"] < 0], ["positive", "valley"], "runaway")
    return np.where(repetitions["stopped"] == "diverged", "diverged", where)


def shows_printed(e: Evidence) -> Array:
    """Which repetitions end at parameters that round to the printed ones."""
    printed = e.published["fitted"]
    rounded = [np.round(e.repetitions[name], decimals_of(number)) == float(number) for name, number in printed.items()]
    return np.all(rounded, axis=0)


def _ways(e: Evidence) -> list[Array]:
    """The ways of some repetitions from their starts, each (steps, 2)."""
    w_b = np.column_stack([e.course["w"], e.course["b"]])
    return [w_b[e.course["repetition"] == repetition] for repetition in np.unique(e.course["repetition"])]


def landscape_figure(
    e: Evidence, solutions: dict[str, Array], slope: float, intercept: float, x: single_rows.Distribution
) -> Figure:
    """Contours of the loss over (w, b), both solutions, and the ways of some repetitions."""
    figure = Figure(figsize=(5.2, 4.6))
    axes = figure.subplots()
    for level in (1e-3, 1e-2, 0.1, 1, 10, 100):
        for curve in applied_twice.contour(level, slope, intercept, x):
            axes.plot(*curve.T, color=AXIS, linewidth=0.7)
    for path in _ways(e):
        color = BLUE if path[-1, 0] > 0 else ORANGE
        axes.plot(path[:, 0], path[:, 1], color=color, linewidth=1, alpha=0.9)
        axes.plot(*path[0], "o", color=color, markersize=3)
    axes.plot([], [], color=BLUE, label="to w > 0")
    axes.plot([], [], color=ORANGE, label="to w < 0")
    axes.plot([], [], color=AXIS, linewidth=0.7, label="loss 0.001 to 100")
    for name, (at_w, at_b) in solutions.items():
        axes.plot(at_w, at_b, "*", color=RED, markersize=11, label="solutions" if name == "positive" else None)
    axes.set(xlabel="w", ylabel="b", xlim=(-2, 2), ylim=(-10, 4))
    add_legend(figure, axes)
    return figure


def starts_figure(w: Array, b: Array, ended: Array) -> Figure:
    """Where each start (w, b) ended."""
    figure = Figure(figsize=(5.2, 4.6))
    axes = figure.subplots()
    for way, (color, marker) in WAYS_ENDED.items():
        mine = ended == way
        if mine.any():
            label = f"{way} ({100 * np.mean(mine):.1f} %)"
            axes.plot(w[mine], b[mine], marker, color=color, markersize=4, markeredgewidth=0, label=label)
    axes.set(xlabel="w at the start", ylabel="b at the start")
    add_legend(figure, axes)
    return figure


def distance_figure(paths: dict[str, tuple[Array, Array]]) -> Figure:
    """Distance from the negative solution over the iterations of full-batch descent, both axes on a log scale."""
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    use_plain_powers(axes.xaxis)
    axes.xaxis.set_minor_locator(NullLocator())
    use_log_scale(axes, np.concatenate([distance for _, distance in paths.values()]))
    for (name, path), color, style in zip(paths.items(), (BLUE, RED), ("-", "--"), strict=True):
        axes.plot(*path, color=color, linestyle=style, linewidth=1.4, label=name)
    axes.set(xlabel="iteration", ylabel="distance from the solution")
    add_legend(figure, axes)
    return figure
