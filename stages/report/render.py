"""Two views of one content, Markdown and HTML: filters, formulas and pictures for the templates."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert as to_mathml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

HERE = Path(__file__).parent

ZERO_WIDTH_SPACE = "\u200b"
FIGURES_OF_RUN = ("fit", "loss", "observed", "residuals")  # the rest belongs to an answer

Section = dict[str, Any]  # what evaluate found of an experiment, and its name, title, course and figures


def render(sections: list[Section], checks: dict[str, int]) -> tuple[str, str]:
    """The report as Markdown and as HTML.

    Args:
        sections: one an experiment.
        checks: how many held, failed and do not apply.
    """
    plain = environment(html=False)
    views = []
    for s in sections:
        if s["state"] == "not_applicable":
            views.append(s)
            continue
        prose = plain.get_template(f"prose/{s['experiment']}.md.j2").render(s).strip()
        diagnosis = plain.get_template("diagnosis.md.j2").render(s).strip()
        answer = plain.get_template(f"answers/{s['experiment']}.md.j2").render(s).strip() if "answer" in s else None
        views.append({**s, "prose": prose, "diagnosis_prose": diagnosis, "answer_prose": answer})
    markdown = plain.get_template("report.md.j2").render(sections=views, checks=checks)
    html = environment(html=True).get_template("report.html.j2").render(sections=views, checks=checks)
    return markdown, html


def environment(*, html: bool) -> Environment:
    """The templates' environment; names that a template misspells are errors."""
    env = Environment(
        loader=FileSystemLoader([HERE / "templates", HERE / "page"]),
        autoescape=html,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.loopcontrols"],
        keep_trailing_newline=True,
    )
    env.filters |= {
        "number": number,
        "percentile": percentile,
        "estimate": estimate,
        "share": share,
        "thousands": thousands,
        "setting": setting,
        "md": escape_markdown,
        "anchor": anchor,
        "markdown": markdown_to_html,
    }
    env.globals |= {
        "inline_svg": inline_svg,
        "colors_of": colors_of,
        "results": results,
        "figures_of_run": FIGURES_OF_RUN,
    }
    return env


# --- the table of results --------------------------------------------------------------------------------------------

COLUMNS = {  # of the table: a quantity's key in the file
    "true": "true",
    "exact": "exact",
    "± exact": "exact_standard_error",
    "predicted": "predicted",
    "fitted": "fitted",
    "± bootstrap": "standard_error",
    "published": "published",
    "percentile": "percentile",
    "verdict": "verdict",
}
TEXTS = ("published", "percentile", "verdict")


def results(section: Section) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns that have something to say, and the rows: label, the user's column, and texts by column."""
    rows = []
    for quantity in section["quantity"].values():
        cells = {name: number(quantity.get(key)) for name, key in COLUMNS.items() if key not in TEXTS}
        cells |= {name: str(quantity.get(name, "")) for name in TEXTS} | {"percentile": percentile(quantity)}
        rows.append({"label": quantity["label"], "column": quantity.get("column"), "cells": cells})
    return [name for name in COLUMNS if any(row["cells"][name] for row in rows)], rows


# --- filters ---------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A number for a reader: six significant digits; nothing for None."""
    return "" if value is None else f"{value:.6g}"


def percentile(quantity: dict[str, Any]) -> str:
    """Where a quantity lies among the repetitions, with its standard error; two numbers where there is a choice."""
    if "percentile_low" not in quantity:
        return ""
    low, high = f"{quantity['percentile_low']:.1f}", f"{quantity['percentile_high']:.1f}"
    return f"{low if low == high else f'{low} to {high}'} ± {quantity['percentile_error']:.1f}"


def estimate(found: dict[str, float]) -> str:
    """A value and its standard error, both to the second digit of the error: 336 ± 13."""
    value, error = found["value"], found["standard_error"]
    decimals = 1 - math.floor(math.log10(error)) if error > 0 else 6
    return f"{round(value, decimals):.{max(decimals, 0)}f} ± {round(error, decimals):.{max(decimals, 0)}f}"


def share(found: dict[str, float]) -> str:
    """A share and its standard error in percent."""
    return f"{100 * found['value']:.1f} ± {100 * found['standard_error']:.1f} %"


def thousands(value: float) -> str:
    """A large number to two digits: 1,100,000."""
    return f"{int(float(f'{value:.2g}')):,}"


def setting(value: object) -> str:
    """A setting as params.yaml spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table's cell; addresses and @names don't become links on GitHub."""
    escaped = re.sub(r"([\\`*_\[\]<>#|~$&]|:(?=//)|(?<=www)\.)", r"\\\1", text, flags=re.IGNORECASE)
    return re.sub(r"[@#](?=\w)", rf"\g<0>{ZERO_WIDTH_SPACE}", escaped)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def markdown_to_html(text: str) -> Markup:
    """The prose as HTML, its formulas as MathML; raw HTML in it is escaped."""
    return Markup(_markdown_with_formulas().render(text))  # noqa: S704 the renderer escapes what it does not make


def _markdown_with_formulas() -> MarkdownIt:
    """Markdown as GitHub reads it: $...$ is a formula in a line, a fence named math a formula of its own."""

    def inline(latex: str, _options: dict[str, Any]) -> str:
        return to_mathml(latex)

    def fence(_renderer: RendererHTML, tokens: Sequence[Token], index: int, *_: object) -> str:
        if tokens[index].info != "math":
            return str(Markup("<pre><code>{}</code></pre>\n").format(tokens[index].content.strip()))
        return f'<div class="formula">{to_mathml(tokens[index].content.strip(), display="block")}</div>\n'

    markdown = MarkdownIt("commonmark", {"html": False}).use(dollarmath_plugin, renderer=inline)
    markdown.add_render_rule("fence", fence)
    return markdown


# --- pictures --------------------------------------------------------------------------------------------------------

STYLE = re.compile(r"<style>(:root.*?)</style>")  # the colours, which every figure carries for when it stands alone


def inline_svg(svg: str, label: str) -> Markup:
    """An SVG to stand in the page among others: with a name for screen readers, its colours taken from the page."""
    labelled = svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(label), 1)
    return Markup(STYLE.sub("", labelled, count=1))  # noqa: S704 matplotlib escapes its text


def colors_of(svg: str) -> Markup:
    """The colours of a figure, light and dark, as CSS variables for the page."""
    return Markup("".join(STYLE.findall(svg)[:1]))  # noqa: S704 as evaluate wrote them
