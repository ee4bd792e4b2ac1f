"""All drawing: the loss curve and the data with the fitted line or boundary, as SVG.

A figure's colours are written as CSS variables with the light colours as their fallback, so that it turns dark with
the page or the reader's system. The moving part of a figure (the line, the dot on the loss curve) has an id, and its
place at every recorded iteration is returned in the SVG's own units, so that a page can move it without redrawing.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

HOUSE = Path(__file__).with_name("house.mplstyle")
MAX_POINTS = 1000  # points drawn of a data set; more would only make the file large
MAX_FRAMES = 500  # recorded iterations drawn, and steps of the slider
VISIBLE_LOSS = 1e12  # a loss above this is drawn at it; runs that diverge reach the largest float
LEGEND_CHARACTERS = 48  # that fit into one line above a figure
OUT_OF_SIGHT = 1e4  # axes widths; a line further away than this is not drawn

# name: (on light paper, on dark paper). Okabe and Ito's blue, vermillion and orange, lightened for dark paper.
COLORS = {
    "ink": ("#1f2328", "#e6edf3"),
    "axis": ("#6e7781", "#9198a1"),
    "grid": ("#d8dee4", "#30363d"),
    "paper": ("#ffffff", "#0d1117"),
    "blue": ("#0072b2", "#56b4e9"),
    "red": ("#d55e00", "#ff8f4a"),
    "orange": ("#e69f00", "#f0c04d"),
}
INK, AXIS, BLUE, RED, ORANGE = (COLORS[name][0] for name in ("ink", "axis", "blue", "red", "orange"))

Line = tuple[float, float, float]  # (p, q, r): the points with p*x + q*y + r = 0
Segment = tuple[float, float, float, float]  # x and y of one end, x and y of the other


@dataclass(frozen=True)
class Scatter:
    """The points of a fit's picture.

    Attributes:
        x: (rows,), on the horizontal axis.
        y: (rows,), on the vertical axis.
        label: (rows,), the class 0 or 1 of each point; None where there are no classes.
        x_name: axis label.
        y_name: axis label.
    """

    x: np.ndarray
    y: np.ndarray
    label: np.ndarray | None
    x_name: str
    y_name: str


@dataclass(frozen=True)
class Picture:
    """An SVG, and where its moving part stands at each frame, in the SVG's units; None where it is out of sight."""

    svg: str
    places: list[tuple[float, ...] | None]


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the indices 0 to count - 1, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def loss_picture(
    history: pd.DataFrame,
    stop_below: float | None,
    published: dict[int, float],
    central: dict[int, tuple[float, float]],
) -> Picture:
    """The loss over the iterations on a log scale, with a dot for the current frame.

    Args:
        history: columns `iteration` and `loss`; its rows are the frames.
        stop_below: drawn as a dashed line; None draws none.
        published: loss by iteration as the article printed it, drawn as circles.
        central: by iteration the ends of the central 99 % of the repetitions, drawn as bars.
    """
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        iteration, loss = history["iteration"].to_numpy(), history["loss"].to_numpy()
        shown = np.array(
            [*loss, *published.values(), *sum(central.values(), ()), *([stop_below] if stop_below else [])]
        )
        if (loss > 0).any():
            _use_log_scale(axes, shown[shown > 0])
        axes.plot(iteration, loss, color=BLUE, label="this run", marker="o" if len(loss) < 40 else "", markersize=3)
        if central:
            low, high = np.array(list(central.values())).T
            axes.vlines(list(central), low, high, color=ORANGE, linewidth=5, alpha=0.6, label="repetitions")
        if published:
            style = {"color": RED, "fillstyle": "none", "markersize": 7}
            axes.plot(list(published), list(published.values()), "o", label="published", **style)  # type: ignore[arg-type]
        _draw_stop(axes, stop_below)
        dots = np.maximum(loss, axes.get_ylim()[0])  # a loss of 0 has no place on a log scale: at the axis
        axes.plot(iteration[-1:], dots[-1:], "o", color=RED, markersize=7, gid="moving", clip_on=False)
        axes.set(xlabel="iteration", ylabel="loss over all rows")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend(figure, axes)
        return Picture(as_svg(figure), _dots(figure, axes, iteration, dots))


def fit_picture(
    scatter: Scatter, lines: Sequence[Line | None], met: Line | None, true: Line | None, *, moving: str
) -> Picture:
    """The data with the fitted line or boundary.

    Args:
        scatter: the data; thinned to MAX_POINTS.
        lines: the line at each frame, None where the parameters give none; the first is the start, the last the fit.
        met: the line that met `stop_below`, where that ended the fit.
        true: the line that the data were drawn from, where it is known.
        moving: what the line is called in the legend.
    """
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        _draw_points(axes, scatter)
        axes.set(xlim=_limits(scatter.x), ylim=_limits(scatter.y))
        for line in (lines[0], lines[-1]):
            _make_room_for(line, axes)
        still = [(true, INK, (0, (4, 3)), "truth"), (lines[0], AXIS, "-", "start"), (met, ORANGE, "-", "met the stop")]
        for line, color, style, label in still:
            segment = _segment(line, axes)
            if segment is not None:
                _draw_segment(axes, segment, color=color, linestyle=style, linewidth=1.2, label=label)
        last = _segment(lines[-1], axes)
        anywhere = (*scatter.x[:2], *scatter.y[:2])  # so that there is a line to move
        _draw_segment(
            axes, last or anywhere, color=RED, linewidth=1.6, label=moving, gid="moving", alpha=1 if last else 0
        )
        axes.set_xlabel(scatter.x_name, parse_math=False)
        axes.set_ylabel(scatter.y_name, parse_math=False)
        _legend(figure, axes)
        svg = as_svg(figure)
        return Picture(svg, [_to_svg_units(figure, axes, _segment(line, axes)) for line in lines])


# --- the answers' figures --------------------------------------------------------------------------------------------


def course_figure(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], points: tuple[np.ndarray, np.ndarray], bar: float | None
) -> str:
    """Losses over iterations on a log scale: named curves, recorded points, and the loss that ends the run."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        values = np.concatenate([loss for _, loss in curves.values()])
        _use_log_scale(axes, values[(values > 0) & (values < VISIBLE_LOSS)])
        for (name, (iteration, loss)), color, style in zip(curves.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
            axes.plot(iteration, loss, color=color, linestyle=style, linewidth=1.4, label=name)
        axes.plot(*points, "o", color=RED, markersize=5, label="this run")
        _draw_stop(axes, bar)
        axes.set(xlabel="iteration", ylabel="loss over all rows")
        _legend(figure, axes)
        return as_svg(figure)


def draws_figure(
    eigenvalue: np.ndarray, loss: np.ndarray, stopped: np.ndarray, limit: float, run: tuple[float, float]
) -> str:
    """The final loss of each repetition over the largest eigenvalue of its draw, by how it ended; and this run's."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        shown = np.minimum(loss, VISIBLE_LOSS)
        _use_log_scale(axes, shown)
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
        _legend(figure, axes)
        return as_svg(figure)


def error_figure(steps: pd.DataFrame) -> str:
    """Mean squared parameter error of the repetitions over the iterations, beside theory's, with 4 standard errors."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        predicted, observed = steps["predicted"].to_numpy(), steps["observed"].to_numpy()
        _use_log_scale(axes, np.concatenate([predicted, observed]))
        margin = 4 * steps["standard_error"]
        band = {"color": ORANGE, "alpha": 0.35, "linewidth": 0}
        low = np.maximum(predicted - margin, predicted / 10)
        axes.fill_between(steps["iteration"], low, predicted + margin, label="4 standard errors", **band)  # type: ignore[arg-type]
        axes.plot(steps["iteration"], observed, color=BLUE, label="repetitions")
        axes.plot(steps["iteration"], predicted, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label="theory")
        axes.set(xlabel="iteration", ylabel="mean of |(w, b) - truth|²")
        _legend(figure, axes)
        return as_svg(figure)


def share_figure(shares: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """The share of repetitions that show the published decimals, over the iterations."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        for name, (iteration, share) in shares.items():
            axes.plot(iteration, 100 * share, color=BLUE, label=name)
        axes.set(xlabel="iteration", ylabel="repetitions, %", ylim=(0, 100))
        _legend(figure, axes)
        return as_svg(figure)


def landscape_figure(
    loss_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
    solutions: dict[str, np.ndarray],
    paths: list[np.ndarray],
) -> str:
    """Contours of the loss over (w, b), both solutions, and the ways of some repetitions, each (steps, 2)."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure(figsize=(5.2, 4.6))
        axes = figure.subplots()
        w, b = np.meshgrid(np.linspace(-2, 2, 161), np.linspace(-10, 4, 161))
        levels = [1e-3, 1e-2, 0.1, 1, 10, 100]
        axes.contour(w, b, loss_at(w, b), levels=levels, colors=AXIS, linewidths=0.7)
        for path in paths:
            color = BLUE if path[-1, 0] > 0 else ORANGE
            axes.plot(path[:, 0], path[:, 1], color=color, linewidth=1, alpha=0.9)
            axes.plot(*path[0], "o", color=color, markersize=3)
        axes.plot([], [], color=BLUE, label="to w > 0")
        axes.plot([], [], color=ORANGE, label="to w < 0")
        axes.plot([], [], color=AXIS, linewidth=0.7, label="loss 0.001 to 100")
        for name, (at_w, at_b) in solutions.items():
            axes.plot(at_w, at_b, "*", color=RED, markersize=11, label="solutions" if name == "positive" else None)
        axes.set(xlabel="w", ylabel="b", xlim=(-2, 2), ylim=(-10, 4))
        _legend(figure, axes)
        return as_svg(figure)


def starts_figure(starts: pd.DataFrame) -> str:
    """Where each start (w_start, b_start) ended."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure(figsize=(5.2, 4.6))
        axes = figure.subplots()
        ways = (("positive", BLUE, "o"), ("valley", ORANGE, "^"), ("runaway", RED, "s"), ("diverged", INK, "x"))
        for way, color, marker in ways:
            mine = starts[starts["ended"] == way]
            if len(mine):
                label = f"{way} ({100 * len(mine) / len(starts):.1f} %)"
                axes.plot(
                    mine["w_start"], mine["b_start"], marker, color=color, markersize=4, markeredgewidth=0, label=label
                )
        axes.set(xlabel="w at the start", ylabel="b at the start")
        _legend(figure, axes)
        return as_svg(figure)


def note_figure(note: str) -> str:
    """A sentence in the place of a figure that does not apply."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure(figsize=(5.2, 1.0))
        figure.text(0.5, 0.5, note, ha="center", va="center")
        return as_svg(figure)


def distance_figure(distances: dict[str, np.ndarray]) -> str:
    """Distance from the negative solution over the iterations of full-batch descent, both axes on a log scale."""
    with mpl.rc_context(fname=HOUSE):
        figure = Figure()
        axes = figure.subplots()
        axes.set_xscale("log")
        _use_log_scale(axes, np.concatenate(list(distances.values())))
        for (name, distance), color, style in zip(distances.items(), (BLUE, RED), ("-", "--"), strict=True):
            at = np.unique(np.geomspace(1, len(distance) - 1, 400).round().astype(int))
            axes.plot(at, distance[at], color=color, linestyle=style, linewidth=1.4, label=name)
        axes.set(xlabel="iteration", ylabel="distance from the solution")
        _legend(figure, axes)
        return as_svg(figure)


def _draw_stop(axes: Axes, stop_below: float | None) -> None:
    if stop_below is not None:
        axes.axhline(stop_below, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label=f"stop below {stop_below:g}")


def _draw_points(axes: Axes, scatter: Scatter) -> None:
    drawn = evenly_spaced(len(scatter.x), MAX_POINTS)
    x, y = scatter.x[drawn], scatter.y[drawn]
    size = 5.0 if len(drawn) <= 200 else 3.5
    if scatter.label is None:
        axes.plot(x, y, "o", color=BLUE, markersize=size, markeredgewidth=0, alpha=0.8, label="data")
        return
    label = scatter.label[drawn]
    for value, color, marker in ((0, BLUE, "o"), (1, ORANGE, "^")):
        mine = label == value
        axes.plot(
            x[mine],
            y[mine],
            marker,
            color=color,
            markersize=size + 1,
            markeredgewidth=0,
            alpha=0.8,
            label=f"class {value}",
        )


def _use_log_scale(axes: Axes, values: np.ndarray) -> None:
    """A log scale with a margin around the values.

    The losses of a run that diverged reach the largest float, which matplotlib's own choice of limits and ticks would
    exceed: the axis ends at 1e307, and over many decades the ticks are chosen here.
    """
    low, high = np.log10([values.min(), values.max()])
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, min(high + margin, 307)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(10.0**low, 10.0**high)
    if high - low > 8:
        step = math.ceil((high - low) / 6)
        first = math.ceil(low / step) * step
        axes.yaxis.set_major_locator(FixedLocator([10.0**decade for decade in range(first, math.ceil(high), step)]))
        axes.yaxis.set_minor_locator(NullLocator())


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _make_room_for(line: Line | None, axes: Axes) -> None:
    """Widens the vertical axis by up to its own height on either side, so that a line that misses the data is seen."""
    if line is None or line[1] == 0:
        return
    low, high = axes.get_ylim()
    p, q, r = line
    ends = np.clip([-(p * x + r) / q for x in axes.get_xlim()], 2 * low - high, 2 * high - low)
    margin = 0.04 * (high - low)
    axes.set_ylim(min(low, ends.min() - margin), max(high, ends.max() + margin))


def _segment(line: Line | None, axes: Axes) -> Segment | None:
    """The piece of a line that crosses the axes, in data coordinates; it reaches beyond them and is clipped there.

    Computed in axes coordinates u, v (0 to 1 inside): there the line is p*u + q*v + r = 0, its point nearest to the
    centre is found, and two axes diagonals are gone from there to either side.
    """
    if line is None:
        return None
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    p, q, r = line
    p, q, r = p * (x1 - x0), q * (y1 - y0), p * x0 + q * y0 + r
    norm = float(np.hypot(p, q))
    if not 0 < norm < np.inf:
        return None
    p, q, r = p / norm, q / norm, r / norm
    distance = 0.5 * p + 0.5 * q + r
    if not abs(distance) < OUT_OF_SIGHT:
        return None
    u, v = 0.5 - distance * p, 0.5 - distance * q
    ends = ((u + 2 * side * q, v - 2 * side * p) for side in (-1, 1))
    (u0, v0), (u1, v1) = ends
    return x0 + u0 * (x1 - x0), y0 + v0 * (y1 - y0), x0 + u1 * (x1 - x0), y0 + v1 * (y1 - y0)


def _draw_segment(axes: Axes, segment: Segment, **style: object) -> None:
    xa, ya, xb, yb = segment
    axes.plot([xa, xb], [ya, yb], scalex=False, scaley=False, **style)  # type: ignore[arg-type]


def _to_svg_units(figure: Figure, axes: Axes, segment: Segment | None) -> Segment | None:
    if segment is None:
        return None
    (xa, ya), (xb, yb) = axes.transData.transform(np.reshape(segment, (2, 2)))
    return tuple(round(float(value), 2) for value in (xa, figure.bbox.height - ya, xb, figure.bbox.height - yb))  # type: ignore[return-value]


def _dots(figure: Figure, axes: Axes, iteration: np.ndarray, loss: np.ndarray) -> list[tuple[float, ...] | None]:
    places = axes.transData.transform(np.column_stack([iteration, loss]))
    return [(round(float(x), 2), round(float(figure.bbox.height - y), 2)) for x, y in places]


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, where it can't hide anything."""
    handles, labels = axes.get_legend_handles_labels()
    ncols = 5 if sum(map(len, labels)) <= LEGEND_CHARACTERS else 3
    spacing = {"handlelength": 1.4, "columnspacing": 1.2, "borderpad": 0.2}
    figure.legend(handles, labels, loc="outside upper left", ncols=ncols, **spacing)


def as_svg(figure: Figure) -> str:
    """The figure as SVG: the same bytes for the same figure, without date or version, colours as CSS variables."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: the text stays text, and the reader's system has a font for it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->\s*", "", stream.getvalue(), flags=re.DOTALL).lstrip()
    for name, (light, _) in COLORS.items():
        svg = in_tags(svg, re.escape(light), f"var(--{name}, {light})")
    return svg.replace("<defs>", f"<style>{theme_css()}</style>\n <defs>", 1)


def in_tags(svg: str, pattern: str, replacement: str) -> str:
    """`re.sub` within an SVG's tags, where its drawing is; the text between them stays, such as a column's name."""
    return re.sub(r"<[^>]+>", lambda tag: re.sub(pattern, replacement, tag[0], flags=re.IGNORECASE), svg)


def theme_css() -> str:
    """The colours as CSS variables: light, and dark where the reader's system is."""
    light = "".join(f"--{name}:{colors[0]};" for name, colors in COLORS.items())
    dark = "".join(f"--{name}:{colors[1]};" for name, colors in COLORS.items())
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
