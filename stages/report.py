"""Writes the report: two views, Markdown and HTML, of one content, and the figures and the summary beside them.

in   params.yaml: data, train; data/published.yaml, data/*.csv, reports/metrics/*.json, reports/history/*.csv
out  reports/report.md, reports/index.html, reports/figures/*.svg, reports/points/*.csv, reports/summary.json
run  python -m stages.report
"""

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

from stages.common.answers import FIGURES
from stages.common.checks import count
from stages.common.content import Frame, Section, sections
from stages.common.errors import run_stage
from stages.common.figures import in_tags, note_figure, theme_css
from stages.common.files import write_csv, write_json, write_text
from stages.common.params import Data, Train, load_group

REPORTS = Path("reports")
SMALLEST_ERROR = 1e-16  # a smaller one, also 0, is counted as this, since 0 has no logarithm
TEMPLATES = Path(__file__).with_name("templates")


def number(value: float | None) -> str:
    """A number for a reader: six significant digits; nothing for None and for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.6g}"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table's cell."""
    return re.sub(r"([\\`*_\[\]<>#|~$&])", r"\\\1", text)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _markdown_with_formulas() -> MarkdownIt:
    """Markdown as GitHub reads it: $...$ is a formula in a line, a fence named math a formula of its own."""

    def inline(latex: str, _options: dict[str, Any]) -> str:
        return to_mathml(latex)

    def fence(_renderer: RendererHTML, tokens: Sequence[Token], index: int, *_: object) -> str:
        return f'<div class="formula">{to_mathml(tokens[index].content.strip(), display="block")}</div>\n'

    markdown = MarkdownIt("commonmark", {"html": False}).use(dollarmath_plugin, renderer=inline)
    markdown.add_render_rule("fence", fence)
    return markdown


def markdown_to_html(text: str) -> Markup:
    """The prose as HTML, its formulas as MathML; raw HTML in it is escaped."""
    return Markup(_markdown_with_formulas().render(text))  # noqa: S704 the renderer escapes what it does not make


def inline_svg(svg: str, name: str, label: str) -> Markup:
    """An SVG to stand in a page among others: its ids are made unique, and it has a name for screen readers."""
    unique = in_tags(svg, r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-")
    labelled = unique.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(label), 1)
    return Markup(re.sub(r"<style>:root.*?</style>", "", labelled, count=1))  # noqa: S704 matplotlib escapes its text


def frames_for_page(frames: list[Frame]) -> list[list[Any]]:
    """What the slider needs of each frame: text, then places of the line and of the dot in the SVGs' units."""
    return [
        [
            frame.iteration,
            number(frame.loss),
            ", ".join(f"{name} = {value:.4g}" for name, value in list(frame.parameters.items())[:6]),
            frame.line,
            frame.dot,
        ]
        for frame in frames
    ]


def environment(*, html: bool) -> Environment:
    """The templates' environment; names that a template misspells are errors."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True
    )
    env.filters |= {"number": number, "md": escape_markdown, "anchor": anchor, "markdown": markdown_to_html}
    env.globals |= {"inline_svg": inline_svg, "frames_for_page": frames_for_page, "theme_css": theme_css}
    return env


def render(sections: list[Section]) -> tuple[str, str]:
    """The report as Markdown and as HTML."""
    plain = environment(html=False)
    views = []
    for s in sections:
        answer = s.answer and plain.get_template(f"answers/{s.experiment}.md.j2").render(
            **s.answer.values, train=s.train
        )
        prose = plain.get_template(f"prose/{s.experiment}.md.j2").render(vars(s))
        views.append({**vars(s), "prose": prose.strip(), "answer_prose": answer and answer.strip()})
    checks = count([check for s in sections for check in s.checks])
    markdown = plain.get_template("report.md.j2").render(sections=views, checks=checks)
    html = environment(html=True).get_template("report.html.j2").render(sections=views, checks=checks)
    return markdown, html


def summary(sections: list[Section]) -> dict[str, Any]:
    """How many checks held, failed and do not apply, and each experiment's largest errors, as log10: most are small."""
    return {
        "checks": count([check for s in sections for check in s.checks]),
        **{s.experiment: {"log10_error": _log10(s.errors)} for s in sections},
    }


def _log10(errors: dict[str, float]) -> dict[str, float]:
    return {name: round(math.log10(max(error, SMALLEST_ERROR)), 3) for name, error in errors.items()}


def figures_of(s: Section) -> dict[str, str]:
    """Every figure of a section by its file's name without the ending."""
    answers = {name: note_figure("Drawn for the article's settings only.") for name in FIGURES.get(s.experiment, [])}
    if s.answer is not None:
        answers |= {figure.name: figure.svg for figure in s.answer.figures}
    return {f"{s.experiment}-fit": s.fit.svg, f"{s.experiment}-loss": s.loss.svg, **answers}


def main() -> None:
    content = sections(load_group("data", Data), load_group("train", Train))
    markdown, html = render(content)
    found = summary(content)
    for s in content:
        for name, svg in figures_of(s).items():
            write_text(svg, REPORTS / f"figures/{name}.svg")
        write_csv(s.points, REPORTS / f"points/{s.experiment}.csv")
    write_text(markdown, REPORTS / "report.md")
    write_text(html, REPORTS / "index.html")
    write_json(found, REPORTS / "summary.json")
    print(", ".join(f"{number} checks {way.replace('_', ' ')}" for way, number in found["checks"].items()))  # noqa: T201


if __name__ == "__main__":
    run_stage(main)
