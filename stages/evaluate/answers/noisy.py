"""Why lr 0.1 works although gradients are never zeroed, and how good the line is that it ends with."""

import numpy as np
from matplotlib.figure import Figure

from stages.evaluate.checks import Check, judged
from stages.evaluate.estimates import median, share
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.figures import (
    BLUE,
    INK,
    ORANGE,
    RED,
    VISIBLE_LOSS,
    Answer,
    Drawing,
    add_legend,
    draw_stop,
    use_log_scale,
)

SHOWN_ITERATIONS = 120  # beyond the stop
WRITTEN = 1e-5  # relative; eigenvalues of repetitions have six digits


def answer(e: Evidence) -> Answer | None:
    """The missing zeroing and the stop that lets go; None where the settings are not the article's."""
    iterations = np.arange(SHOWN_ITERATIONS + 1)
    swinging, zeroed = (e.predicted(iterations, accumulate=accumulate) for accumulate in (True, False))
    if e.differs or e.bowl is None or e.exact is None or swinging is None or zeroed is None:
        return None
    curvature = e.bowl.curvature
    limit = 4 / e.train.lr
    eigenvalue, loss, stopped = (e.repetitions[name] for name in ("largest_eigenvalue", "loss", "stopped"))
    met_stop = stopped == "loss"
    made = np.linalg.norm(np.diff(e.trail, axis=0), axis=1)  # lengths of the updates, where each of them is recorded
    return Answer(
        values={
            "largest": float(curvature.eigenvalues[-1]),
            "stable_lr": curvature.stable_lr,
            "accumulating_lr": curvature.accumulating_lr,
            "limit": limit,
            "share_beyond": share(np.mean(eigenvalue > limit), e.count),
            "share_zeroed_stable": share(np.mean(eigenvalue < 2 / e.train.lr), e.count),
            "share": {way: share(np.mean(stopped == way), e.count) for way in ("loss", "iterations", "diverged")},
            **({"median_stopped": median(loss[met_stop])} if met_stop.any() else {}),
            "share_good": share(np.mean(loss < (e.train.stop_below or 0)), e.count),
            "exact_loss": e.exact.loss,
            **({"moved": {"last": made[-1], "shortest": made.min(), "longest": made.max()}} if every_update(e) else {}),
        },
        figures={
            "course": Drawing(
                course_figure(e, {"never zeroed, theory": swinging.loss, "zeroed, theory": zeroed.loss}),
                "Loss by iteration on these data, as theory predicts it with and without zeroing, and as recorded.",
            ),
            "draws": Drawing(
                draws_figure(eigenvalue, loss, stopped, limit, (float(curvature.eigenvalues[-1]), e.metrics["loss"])),
                f"Final loss of {e.count:,} repetitions over the largest eigenvalue of their draw; losses above 1e12"
                " drawn at 1e12.",
            ),
        },
    )


def limit_check(e: Evidence, _answer: Answer | None) -> Check:
    """No repetition leaves the range of numbers that theory bounds: descent does below 2 / lr, accumulating 4 / lr."""
    factor = 2 if e.train.zero_grad else 4
    limit = factor / e.train.lr
    diverged = e.repetitions["largest_eigenvalue"][e.repetitions["stopped"] == "diverged"]
    found = f"{len(diverged)} diverged, from {diverged.min():.6g} on" if len(diverged) else "none diverged"
    statement = f"repetitions diverge only where the largest eigenvalue is beyond {factor} / lr = {limit:g}"
    return judged("limit", statement, bool((diverged > limit * (1 - WRITTEN)).all()), found)


def every_update(e: Evidence) -> bool:
    """Whether the history holds the state before and after each update."""
    return bool((np.diff(e.history["iteration"]) == 1).all())


def course_figure(e: Evidence, curves: dict[str, Array]) -> Figure:
    """Losses over iterations on a log scale: named curves, this run's points, and the loss that ends it."""
    figure = Figure()
    axes = figure.subplots()
    values = np.concatenate(list(curves.values()))
    use_log_scale(axes, values[(values > 0) & (values < VISIBLE_LOSS)])
    for (name, loss), color, style in zip(curves.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        axes.plot(np.arange(len(loss)), loss, color=color, linestyle=style, linewidth=1.4, label=name)
    shown = e.history["iteration"] <= SHOWN_ITERATIONS
    axes.plot(e.history["iteration"][shown], e.history["loss"][shown], "o", color=RED, markersize=5, label="this run")
    draw_stop(axes, e.train.stop_below)
    axes.set(xlabel="iteration", ylabel="loss over all rows")
    add_legend(figure, axes)
    return figure


def draws_figure(eigenvalue: Array, loss: Array, stopped: Array, limit: float, run: tuple[float, float]) -> Figure:
    """The final loss of each repetition over the largest eigenvalue of its draw, by how it ended; and this run's."""
    figure = Figure()
    axes = figure.subplots()
    shown = np.minimum(loss, VISIBLE_LOSS)
    use_log_scale(axes, shown)
    ways = (
        ("loss", "stopped on the loss", BLUE, "o"),
        ("iterations", "ran on", ORANGE, "^"),
        ("diverged", "diverged", INK, "x"),
    )
    for way, name, color, marker in ways:
        mine = stopped == way
        axes.plot(eigenvalue[mine], shown[mine], marker, color=color, markersize=3.5, alpha=0.7, label=name)
    axes.plot(run[0], min(run[1], VISIBLE_LOSS), "o", color=RED, markersize=8, label="this run")
    axes.axvline(limit, color=INK, linestyle=(0, (4, 3)), linewidth=1, label=f"4 / lr = {limit:g}")
    axes.set(xlabel="largest eigenvalue of the Hessian", ylabel="loss at the final parameters")
    add_legend(figure, axes)
    return figure
