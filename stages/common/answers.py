"""The questions that the articles leave open, answered from theory and from the repetitions.

B: why does lr 0.1 work although gradients are never zeroed, and how good is the line it ends with?
D: why does the layer applied twice never find its other solution, the one with negative w?
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common import theory
from stages.common.evidence import Evidence
from stages.common.figures import (
    course_figure,
    distance_figure,
    draws_figure,
    error_figure,
    landscape_figure,
    share_figure,
    starts_figure,
)
from stages.common.params import LinearData
from stages.common.repetition import distribution_of

STABLE_LR_SHARE = 0.965  # of the largest stable lr: the descent that holds at the negative solution
FIGURES = {
    "noisy": ["noisy-course", "noisy-draws"],
    "nn": ["nn-error", "nn-share"],
    "shared": ["shared-landscape", "shared-starts", "shared-distance"],
}
NUDGE = 1e-3  # how far from the negative solution that descent starts, along w
STEPS = 2_000_000  # enough to come to rest at the edge of stability
SHOWN_ITERATIONS = 120  # of the noisy line, beyond its stop


@dataclass(frozen=True)
class AnswerFigure:
    """A figure of an answer: its file's name without the ending, its SVG, and what it shows."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Answer:
    """What the prose of an answer needs to know, and its figures and table."""

    values: dict[str, Any]
    columns: list[str]
    table: list[list[str]]
    figures: list[AnswerFigure]


def answer_noisy(e: Evidence) -> Answer | None:
    """The missing zeroing and the stop that lets go; None where the settings are not the article's."""
    if e.departures or e.curvature is None or e.exact is None:
        return None
    lr, limit = e.train.lr, 4 / e.train.lr
    eigenvalue = e.repetitions["largest_eigenvalue"].to_numpy()
    loss, stopped = e.repetitions["loss"].to_numpy(), e.repetitions["stopped"].to_numpy()
    iterations = np.arange(SHOWN_ITERATIONS + 1)
    courses = {
        name: e.course(iterations, accumulate=accumulate)
        for name, accumulate in (("never zeroed, theory", True), ("zeroed, theory", False))
    }
    curves = {name: (iterations, course.loss) for name, course in courses.items() if course is not None}
    recorded = e.history[e.history["iteration"] <= SHOWN_ITERATIONS]
    points = recorded["iteration"].to_numpy(), recorded["loss"].to_numpy()
    figure = course_figure(curves, points, e.train.stop_below)
    largest = float(e.curvature.eigenvalues[-1])
    draws = draws_figure(eigenvalue, loss, stopped, limit, (largest, e.metrics["loss"]))
    stable = 2 / lr
    return Answer(
        values={
            "largest": largest,
            "stable_lr": e.curvature.stable_lr,
            "accumulating_lr": e.curvature.accumulating_lr,
            "limit": limit,
            "share_beyond": float(np.mean(eigenvalue > limit)),
            "share_zeroed_stable": float(np.mean(eigenvalue < stable)),
            "share": {way: float(np.mean(stopped == way)) for way in ("loss", "iterations", "diverged")},
            "median_stopped": float(np.median(loss[stopped == "loss"])) if (stopped == "loss").any() else None,
            "share_good": float(np.mean(loss < (e.train.stop_below or 0))),
            "exact_loss": e.exact.loss,
        },
        columns=[],
        table=[],
        figures=[
            AnswerFigure(
                "noisy-course",
                figure,
                "Loss by iteration on these data, as theory predicts it with and without zeroing, and as recorded.",
            ),
            AnswerFigure(
                "noisy-draws",
                draws,
                f"Final loss of {len(loss):,} repetitions over the largest eigenvalue of their draw; losses above 1e12"
                " drawn at 1e12.",
            ),
        ],
    )


def error_of_repetitions(e: Evidence) -> Answer | None:
    """How fast single-point descent gets there, and how often it shows the published decimals."""
    if "predicted" not in e.repetitions or "share_as_published" not in e.repetitions:
        return None
    steps = e.repetitions
    iteration, share = steps["iteration"].to_numpy(), steps["share_as_published"].to_numpy()
    share_at = dict(zip(iteration.tolist(), share.tolist(), strict=True))
    return Answer(
        values={"share_at_2000": share_at.get(2000), "share_at_end": float(share[-1]), "end": int(iteration[-1])},
        columns=[],
        table=[],
        figures=[
            AnswerFigure(
                "nn-error",
                error_figure(steps.dropna()),
                "Squared error of the parameters, mean of the repetitions and theory's prediction from their starts.",
            ),
            AnswerFigure(
                "nn-share",
                share_figure({"show both published values to three decimals": (iteration, share)}),
                "Share of the repetitions that show the published three decimals.",
            ),
        ],
    )


def answer_shared(e: Evidence) -> Answer | None:
    """Why no solution with negative w; None where the settings are not the article's."""
    if e.departures or not isinstance(e.data, LinearData):
        return None
    slope, intercept, lr = e.data.weights[0], e.data.bias, e.train.lr
    x = distribution_of(e.data.x)
    solutions = theory.shared_solutions(slope, intercept)
    if len(solutions) < 2:
        return None
    negative = solutions["negative"]
    full_batch = theory.curvature(theory.shared_hessian(negative, x)).stable_lr
    stable = STABLE_LR_SHARE * full_batch
    start = negative + np.array([NUDGE, 0.0])
    paths = {
        rate: theory.shared_full_batch_path(start, slope, intercept, x, lr=rate, steps=STEPS) for rate in (stable, lr)
    }
    distances = {f"lr = {rate:.3g}": np.linalg.norm(path - negative, axis=1) for rate, path in paths.items()}
    ends = {rate: path[-1000:].mean(axis=0) for rate, path in paths.items()}
    ways = [
        np.array([[point["w"], point["b"]] for point in path.values()])
        for path in e.replicates["paths"].values()
        if path
    ]
    at_edge = theory.curvature(theory.shared_hessian(ends[lr], x))
    return Answer(
        values={
            "negative": negative.tolist(),
            "positive": solutions["positive"].tolist(),
            "share": e.replicates["share_ended"],
            "share_as_published": list(e.replicates["share_as_published"].values())[-1],
            "stable_lr": stable,
            "full_batch_lr": full_batch,
            "edge": 2 / lr,
            "end": ends[lr].tolist(),
            "end_eigenvalue": float(at_edge.eigenvalues[-1]),
            "end_distance": float(np.linalg.norm(ends[lr] - negative)),
            "held_distance": float(np.linalg.norm(ends[stable] - negative)),
            "steps": STEPS,
        },
        columns=[
            "solution",
            "w",
            "b",
            "eigenvalues",
            "stable lr, all points",
            "stable lr, single points",
            f"growth at {lr:g}",
        ],
        table=[_solution_row(name, theta, x, lr) for name, theta in solutions.items()],
        figures=[
            AnswerFigure(
                "shared-landscape",
                landscape_figure(lambda w, b: theory.shared_loss(w, b, slope, intercept, x), solutions, ways),
                f"The loss over w and b, both solutions, and the ways of {len(ways)} repetitions from their starts.",
            ),
            AnswerFigure(
                "shared-starts",
                starts_figure(e.repetitions),
                f"Which start goes where: {len(e.repetitions):,} repetitions, by where they stand after"
                f" {e.metrics['iterations']:,} iterations.",
            ),
            AnswerFigure(
                "shared-distance",
                distance_figure(distances),
                f"Full-batch descent from {NUDGE:g} beside the negative solution: distance from it by iteration.",
            ),
        ],
    )


def _solution_row(name: str, theta: np.ndarray, x: theory.Distribution, lr: float) -> list[str]:
    c = theory.curvature(theory.shared_hessian(theta, x))
    g = theory.shared_gradients(theta, x)
    return [
        name,
        f"{theta[0]:.5g}",
        f"{theta[1]:.5g}",
        f"{c.eigenvalues[0]:.3g}, {c.eigenvalues[1]:.4g}",
        f"{c.stable_lr:.4g}",
        f"{theory.mean_square_stable_lr(g, x):.4g}",
        f"{theory.mean_square_growth(g, x, lr):.4g}",
    ]
