"""Writes the report: puts words and pictures around what evaluate found, and computes nothing.

in   reports/evaluation/<experiment>.json and .csv, reports/figures/<experiment>/*.svg, of the registry's experiments
out  reports/report.md, reports/index.html, reports/summary.json
run  python -m stages.report
"""

from pathlib import Path
from typing import Any

from stages.common.errors import UserError, run_stage
from stages.common.experiments import EXPERIMENTS
from stages.common.files import DAMAGED, EVALUATION, FIGURES, read_csv, read_json, write_json, write_text
from stages.report.render import Section, render

REPORTS = Path("reports")
VERDICTS = ("held", "failed", "not applicable")


def section(name: str) -> Section:
    """What is known of an experiment: what evaluate found, its course and its figures."""
    found = read_json(EVALUATION / f"{name}.json")
    try:
        if found["state"] == "not_applicable":
            return {"experiment": name, "title": EXPERIMENTS[name].title, **found}
        course = read_csv(EVALUATION / f"{name}.csv", first_column="iteration")
        return {
            "experiment": name,
            "title": EXPERIMENTS[name].title,
            "differs": any(setting["differs"] for setting in found["settings"].values()),
            **found,
            "svg": {figure: (FIGURES / name / f"{figure}.svg").read_text("utf-8") for figure in found["figure"]},
            "page": page_data(found, course),
        }
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise UserError(f"{EVALUATION / name}.json: {DAMAGED} ({error!r})") from None


def page_data(found: dict[str, Any], course: dict[str, list[float]]) -> dict[str, Any]:
    """What the page moves its figures with: the axes, and the course row by row, null where there is no line."""
    rows = zip(*course.values(), strict=True)
    finite = [[value if value == value else None for value in row] for row in rows]  # noqa: PLR0124 nan is not itself
    return {"axes": found["axes"], "columns": list(course), "rows": finite}


def summary(sections: list[Section]) -> dict[str, Any]:
    """How many checks held, failed and do not apply, and each experiment's state and largest errors (log10)."""
    verdicts = [check["verdict"] for s in sections for check in s["check"].values()]
    checks = {verdict.replace(" ", "_"): verdicts.count(verdict) for verdict in VERDICTS}
    kept = ("state", "log10_error")
    return {"checks": checks, **{s["experiment"]: {name: s[name] for name in kept} for s in sections}}


def main() -> None:
    sections = [section(name) for name in EXPERIMENTS]
    found = summary(sections)
    markdown, html = render(sections, found["checks"])
    write_text(markdown, REPORTS / "report.md")
    write_text(html, REPORTS / "index.html")
    write_json(found, REPORTS / "summary.json")
    print(", ".join(f"{number} checks {way.replace('_', ' ')}" for way, number in found["checks"].items()))  # noqa: T201


if __name__ == "__main__":
    run_stage(main)
