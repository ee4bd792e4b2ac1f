"""The pictures that every experiment has, its loss and its data with the fitted line, and what all pictures share.

A figure's colours are written as CSS variables with the light colours as their fallback, so that it turns dark with
the page or the reader's system. The moving part of a figure (the line, the dot on the loss curve) has an id, and
`axes_of` says where its axes lie, so that a page can move it without redrawing. Figures are made under `STYLE`.
"""

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullLocator

from stages.common.tables import Table
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.goodness import of_fit
from stages.evaluate.quantities import Quantity
from stages.theory.models import DrawnLine, Shown

STYLE = Path(__file__).with_name("style.mplstyle")
MAX_POINTS = 1000  # points drawn of a data set; more would only make the file large
MAX_FRAMES = 500  # recorded iterations drawn, and steps of the page's slider
FURTHEST = 1e100  # a fitted value beyond this is drawn there
VISIBLE_LOSS = 1e12  # a loss above this is drawn at it; runs that diverge reach the largest float
LEGEND_CHARACTERS = 48  # that fit into one line above a figure
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CANDIDATES = 100  # pairs of all of thousands of features would take gigabytes
ALIKE = 0.999  # two features more correlated than this count as if this much
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
DASHED: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.2}

Segment = tuple[float, float, float, float]  # x and y of one end, x and y of the other


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Answer:
    """The answer to a question that an article leaves open: its values, and its figures by name."""

    values: dict[str, Any]
    figures: dict[str, Drawing]


def evenly_spaced(count: int, limit: int) -> Array:
    """At most `limit` of the indices 0 to count - 1, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def shown_features(e: Evidence) -> Shown | None:
    """The features on the axes: of classes the two that separate best; else the one, or minibatch's second.

    The second is what its article draws. None for one's own data with several features: a line over one of them, at the
    mean of the others, would miss the rows.
    """
    table = e.table
    features, means = len(table.feature_names), table.features.mean(axis=0)
    if table.has_classes:
        return Shown(*best_pair(table), means) if features > 1 else Shown(0, None, means)
    return None if e.data.file is not None and features > 1 else Shown(min(1, features - 1), None, means)


def best_pair(table: Table) -> tuple[int, int]:
    """The two features in which the classes lie furthest apart, by Mahalanobis's distance between their means.

    They are looked for among the CANDIDATES that separate best by themselves.

    With differences d in units of the spread within the classes, and the correlation r of two features there, its
    square is (d_i^2 - 2 r d_i d_j + d_j^2) / (1 - r^2) (Fisher, The use of multiple measurements in taxonomic problems,
    1936).
    """
    classes = [table.features[table.target == label] for label in (0, 1)]
    means = [rows.mean(axis=0) for rows in classes]
    within = np.concatenate([rows - mean for rows, mean in zip(classes, means, strict=True)])
    spread = np.sqrt((within**2).mean(axis=0))
    spread[spread == 0] = 1
    d = (means[1] - means[0]) / spread
    best = np.sort(np.argsort(-np.abs(d), kind="stable")[:CANDIDATES])
    d, within = d[best], (within / spread)[:, best]
    r = np.clip(within.T @ within / len(within), -ALIKE, ALIKE)
    squares = (d[:, np.newaxis] ** 2 - 2 * r * d[:, np.newaxis] * d + d**2) / (1 - r**2)
    pairs = np.triu(np.round(squares, 6), k=1)  # rounded, so that every processor chooses the same
    first, second = np.unravel_index(int(np.argmax(pairs)), pairs.shape)
    return (int(best[first]), int(best[second])) if second > first else (0, 1)


# --- the loss --------------------------------------------------------------------------------------------------------


def loss_drawing(e: Evidence, rows: list[Quantity]) -> Drawing:
    """The loss over the iterations on a log scale, with a dot for the page to move; published losses as circles."""
    frames = evenly_spaced(len(e.history["loss"]), MAX_FRAMES)
    iteration, loss = e.history["iteration"][frames], e.history["loss"][frames]
    printed = [row for row in rows if row.key.startswith("loss_") and row.published is not None]
    at = [int(row.key.removeprefix("loss_")) for row in printed]
    published = [float(row.published or 0) for row in printed]
    bars = [(k, row.low, row.high) for k, row in zip(at, printed, strict=True) if row.low is not None]
    figure = Figure()
    axes = figure.subplots()
    bounds = [bound for _, *ends in bars for bound in ends if bound is not None]
    shown = np.array([*loss, *published, *bounds, *([e.train.stop_below] if e.train.stop_below else [])])
    if (loss > 0).any():
        use_log_scale(axes, shown[shown > 0])
    axes.plot(iteration, loss, color=BLUE, label="this run", marker="o" if len(loss) < 40 else "", markersize=3)
    if bars:
        axes.vlines(*zip(*bars, strict=True), color=ORANGE, linewidth=5, alpha=0.6, label="repetitions")
    if printed:
        axes.plot(at, published, "o", color=RED, fillstyle="none", markersize=7, label="published")
    draw_stop(axes, e.train.stop_below)
    lowest = max(loss[-1], axes.get_ylim()[0])  # a loss of 0 has no place on a log scale: at the axis
    axes.plot(iteration[-1:], [lowest], "o", color=RED, markersize=7, gid="moving", clip_on=False)
    axes.set(xlabel="iteration", ylabel="loss over all rows")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    add_legend(figure, axes)
    return Drawing(figure, _loss_caption(e.history["loss"], len(frames), with_published=bool(printed)))


def _loss_caption(loss: Array, drawn: int, *, with_published: bool) -> str:
    thinned = f"; {drawn:,} of {len(loss):,} recorded iterations drawn" if drawn < len(loss) else ""
    is_zero = (loss == 0).any()
    zero = " It ends where the loss is recorded as 0, below 1e-16 of the mean square of y." if is_zero else ""
    bars = " Bars span the central 99 % of the repetitions." if with_published else ""
    return f"Loss over all rows by iteration; log scale{thinned}.{zero}{bars}"


# --- the data --------------------------------------------------------------------------------------------------------


def fit_drawing(e: Evidence, shown: Shown) -> Drawing:
    """The data with the fitted line or boundary, for the page to move; its start, the truth, and what met the stop."""
    table, trail = e.table, e.trail
    x = table.features[:, shown.across]
    y = table.target if shown.up is None else table.features[:, shown.up]
    start, last = (e.model.drawn(theta, shown) for theta in (trail[0], trail[-1]))
    met = e.model.drawn(trail[-2], shown) if e.metrics["stopped"] == "loss" else None
    true = None if e.true is None else e.model.drawn(e.true, shown)
    figure = Figure()
    axes = figure.subplots()
    _draw_points(axes, x, y, table.target if table.has_classes else None)
    axes.set(xlim=_limits(x), ylim=_limits(y))
    if len(table.feature_names) <= 2:  # else a boundary at the means of the others may be anywhere
        for line in (start, last):
            _make_room_for(line, axes)
    still = [(true, INK, (0, (4, 3)), "truth"), (start, AXIS, "-", "start"), (met, ORANGE, "-", "met the stop")]
    for line, color, style, label in still:
        segment = _segment(line, axes)
        if segment is not None:
            _draw_segment(axes, segment, color=color, linestyle=style, linewidth=1.2, label=label)
    fitted = _segment(last, axes)
    anywhere = (*x[:2], *y[:2])  # so that there is a line to move
    label, alpha = "boundary" if table.has_classes else "fit", 1 if fitted else 0
    _draw_segment(axes, fitted or anywhere, color=RED, linewidth=1.6, label=label, gid="moving", alpha=alpha)
    axes.set_xlabel(table.feature_names[shown.across], parse_math=False)
    axes.set_ylabel(e.target_name if shown.up is None else table.feature_names[shown.up], parse_math=False)
    add_legend(figure, axes)
    return Drawing(figure, _fit_caption(table, shown))


def _fit_caption(table: Table, shown: Shown) -> str:
    names = table.feature_names
    axes = [names[j] for j in (shown.across, shown.up) if j is not None]
    hidden = [name for name in names if name not in axes]
    what = "boundary" if table.has_classes else "fitted line"
    held = f", {', '.join(hidden[:5])}{', ...' if len(hidden) > 5 else ''} held at the mean" if hidden else ""
    over = f" over {' and '.join(axes)}" if hidden else ""
    return f"Data ({_rows(table)}){over} with the {what}{held}."


def _draw_points(axes: Axes, x: Array, y: Array, label: Array | None) -> None:
    drawn = evenly_spaced(len(x), MAX_POINTS)
    x, y = x[drawn], y[drawn]
    size = 5.0 if len(drawn) <= 200 else 3.5
    style = {"markeredgewidth": 0, "alpha": 0.8}
    if label is None:
        axes.plot(x, y, "o", color=BLUE, markersize=size, label="data", **style)  # type: ignore[arg-type]
        return
    for value, color, marker in ((0, BLUE, "o"), (1, ORANGE, "^")):
        mine = label[drawn] == value
        name = f"class {value}"
        axes.plot(x[mine], y[mine], marker, color=color, markersize=size + 1, label=name, **style)  # type: ignore[arg-type]


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _make_room_for(line: DrawnLine | None, axes: Axes) -> None:
    """Widens the vertical axis by up to its own height on either side, so that a line that misses the data is seen."""
    if line is None or line[1] == 0:
        return
    low, high = axes.get_ylim()
    p, q, r = line
    ends = np.clip([-(p * x + r) / q for x in axes.get_xlim()], 2 * low - high, 2 * high - low)
    margin = 0.04 * (high - low)
    axes.set_ylim(min(low, ends.min() - margin), max(high, ends.max() + margin))


def _segment(line: DrawnLine | None, axes: Axes) -> Segment | None:
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


# --- one's own data, of any number of features ----------------------------------------------------------------------


def observed_drawing(e: Evidence) -> Drawing:
    """The target over what the fit says of it, with the line on which the two are equal."""
    name, mean, found = e.target_name, float(e.table.target.mean()), of_fit(e)
    figure, axes = _over_fitted(e, e.table.target, name)
    axes.axline((mean, mean), slope=1, label="equal", **DASHED)
    add_legend(figure, axes)
    r_squared = "" if found is None else f" R² is {found:.4g}."
    caption = f"Observed {name} over fitted {name} ({_rows(e.table)}); on the dashed line they are equal.{r_squared}"
    return Drawing(figure, caption)


def residual_drawing(e: Evidence) -> Drawing:
    """What the fit leaves of the target, over what it says of it: a pattern here is what a line can't say."""
    figure, axes = _over_fitted(e, e.table.target - _fitted(e), "observed - fitted")
    axes.axhline(0, label="no error", **DASHED)
    add_legend(figure, axes)
    return Drawing(figure, f"What the fit leaves of {e.target_name}: a bend or a funnel here is what a line can't say.")


def _over_fitted(e: Evidence, values: Array, name: str) -> tuple[Figure, Axes]:
    """Values of the rows over their fitted target."""
    fitted = _fitted(e)
    figure = Figure()
    axes = figure.subplots()
    _draw_points(axes, fitted, values, None)
    axes.set(xlim=_limits(fitted), ylim=_limits(values))
    axes.set_xlabel(f"fitted {e.target_name}", parse_math=False)
    axes.set_ylabel(name, parse_math=False)
    return figure, axes


def _fitted(e: Evidence) -> Array:
    with np.errstate(over="ignore"):  # a fit that has exploded
        return np.clip(e.model.predict(e.table.features, e.theta), -FURTHEST, FURTHEST)


def _rows(table: Table) -> str:
    rows = len(table.target)
    return f"{rows:,} rows" + (f", {MAX_POINTS:,} of them drawn" if rows > MAX_POINTS else "")


# --- what all figures share ------------------------------------------------------------------------------------------


def draw_stop(axes: Axes, stop_below: float | None) -> None:
    if stop_below is not None:
        axes.axhline(stop_below, label=f"stop below {stop_below:g}", **DASHED)


def use_log_scale(axes: Axes, values: np.ndarray) -> None:
    """A log scale with a margin around the values.

    The losses of a run that diverged reach the largest float, which matplotlib's own choice of limits and ticks would
    exceed: the axis ends at 1e307, and over many decades the ticks are chosen here.
    """
    low, high = np.log10([values.min(), values.max()])
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, min(high + margin, 307)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(10.0**low, 10.0**high)
    use_plain_powers(axes.yaxis)
    if high - low > 3:
        axes.yaxis.set_minor_locator(NullLocator())  # dozens of ticks that say nothing, and take as long as the rest
    if high - low > 8:
        step = math.ceil((high - low) / 6)
        first = math.ceil(low / step) * step
        axes.yaxis.set_major_locator(FixedLocator([10.0**decade for decade in range(first, math.ceil(high), step)]))


def use_plain_powers(axis: Axis) -> None:
    """Labels an axis with a log scale by 10⁻³ and the like."""
    axis.set_major_formatter(PlainPowers())
    axis.set_minor_formatter(PlainPowers())


class PlainPowers(LogFormatterSciNotation):
    """Powers of ten as plain letters: matplotlib's formulas are slow to typeset, and pieces to who searches text."""

    def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: D102
        formula = super().__call__(x, pos)
        power = re.fullmatch(r"\$\\mathdefault\{(.*)\^\{(.*)\}\}\$", formula)
        return power[1].replace(r"\times", "×") + power[2].translate(SUPERSCRIPTS) if power else formula


def add_legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, where it can't hide anything."""
    handles, labels = axes.get_legend_handles_labels()
    ncols = 5 if sum(map(len, labels)) <= LEGEND_CHARACTERS else 3
    spacing = {"handlelength": 1.4, "columnspacing": 1.2, "borderpad": 0.2}
    figure.legend(handles, labels, loc="outside upper left", ncols=ncols, **spacing)


def axes_of(figure: Figure) -> dict[str, Any]:
    """Where a drawn figure's axes lie, for a page that moves its parts.

    Returns:
        `x0`, `x1`, `y0`, `y1`, the limits of the axes in data units; `left`, `right`, `top`, `bottom`, where those lie
        in the SVG's units; `log`, whether y is on a log scale.
    """
    axes, height = figure.axes[0], figure.bbox.height
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    box = axes.bbox
    places = {"left": box.x0, "right": box.x1, "top": height - box.y1, "bottom": height - box.y0}
    limits = {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    return {
        **{name: float(value) for name, value in limits.items()},
        **{name: round(float(value), 3) for name, value in places.items()},
        "log": axes.get_yscale() == "log",
    }


def as_svg(figure: Figure, name: str) -> str:
    """The figure as SVG: the same bytes for the same figure on every processor, without date or version.

    Places are rounded to a hundredth of a unit, which nobody sees, and ids are numbered instead of hashed from places,
    so that no last bit of these shows. Colours are CSS variables; ids begin with the name, so that several can stand in
    one page.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: the text stays text, and the reader's system has a font for it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # savefig would lay it out and draw it twice
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->\s*", "", stream.getvalue(), flags=re.DOTALL).lstrip()
    svg = _in_tags(svg, r"-?\d+\.\d{3,}", lambda place: f"{float(place[0]):.2f}")
    for number, hashed in enumerate(dict.fromkeys(re.findall(r'(?<=id=")[a-z][0-9a-f]{10}(?=")', svg)), start=1):
        svg = _in_tags(svg, rf'(?<=["#]){hashed}\b', f"{hashed[0]}{number}")
    for color, (light, _) in COLORS.items():
        svg = _in_tags(svg, re.escape(light), f"var(--{color}, {light})")
    svg = _in_tags(svg, r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-")
    return svg.replace("<defs>", f"<style>{_theme_css()}</style>\n <defs>", 1)


def _in_tags(svg: str, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> str:
    """`re.sub` within an SVG's tags, where its drawing is; the text between them stays, such as a column's name."""
    return re.sub(r"<[^>]+>", lambda tag: re.sub(pattern, replacement, tag[0], flags=re.IGNORECASE), svg)


def _theme_css() -> str:
    """The colours as CSS variables: light, and dark where the reader's system is."""
    light = "".join(f"--{name}:{colors[0]};" for name, colors in COLORS.items())
    dark = "".join(f"--{name}:{colors[1]};" for name, colors in COLORS.items())
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
