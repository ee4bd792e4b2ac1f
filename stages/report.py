"""Writes the report: two views, Markdown and HTML, of one content, and the figures and the summary beside them.

in   params.yaml: data, train; data/published.yaml, data/*.csv, reports/metrics/*.json, reports/history/*.csv
out  reports/report.md, reports/index.html, reports/figures/*.svg, reports/summary.json
run  python -m stages.report
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert as to_mathml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

from stages.common.content import EXPERIMENTS, Frame, Section, section
from stages.common.errors import run_stage
from stages.common.figures import theme_css
from stages.common.files import write_json, write_text
from stages.common.params import Data, Train, load_group

PUBLISHED = Path("data/published.yaml")
REPORTS = Path("reports")
TEMPLATES = Path(__file__).with_name("templates")


def number(value: float | None) -> str:
    """A number for a reader: six significant digits; nothing for None."""
    if value is None:
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
    unique = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
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
    with_prose = [
        {**vars(s), "prose": plain.get_template(f"prose/{s.experiment}.md.j2").render(vars(s)).strip()}
        for s in sections
    ]
    markdown = plain.get_template("report.md.j2").render(sections=with_prose)
    html = environment(html=True).get_template("report.html.j2").render(sections=with_prose)
    return markdown, html


def summary(sections: list[Section]) -> dict[str, Any]:
    """Per experiment the largest error of a fitted parameter against truth and publication, where they are known."""
    return {s.experiment: {"error": s.error} for s in sections}


def main() -> None:
    data, train = load_group("data", Data), load_group("train", Train)
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    sections = [section(experiment, data, train, published[experiment]) for experiment in EXPERIMENTS]
    for s in sections:
        write_text(s.fit.svg, REPORTS / f"figures/{s.experiment}-fit.svg")
        write_text(s.loss.svg, REPORTS / f"figures/{s.experiment}-loss.svg")
    markdown, html = render(sections)
    write_text(markdown, REPORTS / "report.md")
    write_text(html, REPORTS / "index.html")
    write_json(summary(sections), REPORTS / "summary.json")


if __name__ == "__main__":
    run_stage(main)
