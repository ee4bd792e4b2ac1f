"""The report: what both views must hold for any results, and that nothing in the data can break out of them."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from stages.common.errors import UserError
from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_csv, read_json, write_json
from stages.report import __main__ as report
from stages.report.render import anchor, escape_markdown, markdown_to_html, number, percentile, setting
from tests.conftest import ROOT
from tests.evidence import ODD, ODD_TABLE, lay_out, rerun


@dataclass(frozen=True)
class Built:
    """A folder with a report, and the two views."""

    folder: Path
    markdown: str
    html: str

    def found(self, experiment: str) -> dict[str, Any]:
        evaluation: dict[str, Any] = read_json(self.folder / f"reports/evaluation/{experiment}.json")
        return evaluation

    def section(self, experiment: str) -> list[str]:
        """The experiment's part of both views, as text: without backslashes and entities."""
        title = re.escape(EXPERIMENTS[experiment].title)
        markdown = re.search(rf"^## {title}$.*?(?=^## |\Z)", self.markdown, re.MULTILINE | re.DOTALL)
        html = re.search(rf'<section id="{experiment}".*?</section>', self.html, re.DOTALL)
        assert markdown is not None
        assert html is not None
        return [markdown[0].replace("\\", ""), unescape(html[0])]

    def course(self, experiment: str) -> dict[str, Any]:
        """What the page carries for the experiment's slider."""
        (script,) = re.findall(r'<script type="application/json">(.*?)</script>', self.section(experiment)[1])
        course: dict[str, Any] = json.loads(script)
        return course


def built() -> Built:
    """The report of what lies in the current folder."""
    report.main()
    views = (Path("reports", name).read_text(encoding="utf-8") for name in ("report.md", "index.html"))
    return Built(Path.cwd(), *views)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The report of the committed results."""
    with chdir(tmp_path_factory.mktemp("usual")):
        shutil.copytree(ROOT / "reports", "reports")
        return built()


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The report of a run that departs from its article, one that diverges, odd names, and separable classes."""
    with chdir(tmp_path_factory.mktemp("unusual")):
        lay_out()
        rerun("manual", {"train.manual.lr": 0.02, "train.manual.iterations": 30})
        rerun("noisy", {"train.noisy.zero_grad": True})
        rerun("minibatch", {}, ODD_TABLE)
        rerun("logistic", {"train.logistic.form": "general"}, {"f": [-1.0, 1.0] * 9, "label": [0.0, 1.0] * 9})
        return built()


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# --- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_both_views_say_all_that_was_found(usual: Built, experiment: str) -> None:
    found = usual.found(experiment)
    quantities = found["quantity"].values()
    numbers = [q[column] for q in quantities for column in ("true", "exact", "predicted", "fitted") if column in q]
    published = [q["published"] for q in quantities if "published" in q]
    texts = [text for check in found["check"].values() for text in (check["statement"], check["found"])]
    texts += [*found["settings"], found["article"]["title"], found["article"]["date"]]
    texts += [figure["caption"] for figure in found["figure"].values()]
    for view in usual.section(experiment):
        for text in [*map(number, numbers), *map(percentile, quantities), *published, *texts]:
            assert text in view, text
        assert view.count("held") >= len(found["check"])


def test_links_lead_somewhere(usual: Built) -> None:
    for name in re.findall(r"\]\((figures/[^)]+)\)", usual.markdown):
        assert (usual.folder / "reports" / name).is_file()
    titles = [experiment.title for experiment in EXPERIMENTS.values()]
    assert re.findall(r"\(#([^)]+)\)", usual.markdown) == [anchor(title) for title in titles]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_page_carries_the_course_and_where_the_axes_lie(usual: Built, experiment: str) -> None:
    page, course = usual.course(experiment), read_csv(usual.folder / f"reports/evaluation/{experiment}.csv")
    assert page["axes"] == usual.found(experiment)["axes"]
    assert page["columns"] == list(course)
    assert page["rows"] == [list(row) for row in zip(*course.values(), strict=True)]


def test_it_states_what_evaluate_found_and_nothing_of_its_own(usual: Built, project: Path) -> None:
    """Numbers that contradict each other stay as they are."""
    shutil.copytree(usual.folder / "reports", "reports")
    found = usual.found("nn")
    found["quantity"]["w"] |= {"fitted": 123.456, "published": "7.89", "percentile_low": 98.7, "verdict": "failed"}
    found["check"]["w"] |= {"verdict": "failed", "found": "so and so"}
    found["check"]["b"] |= {"verdict": "not applicable"}
    found["log10_error"] = {"truth": 5.0}
    found["diagnosis"]["limit"] = 0.4321
    write_json(found, Path("reports/evaluation/nn.json"))
    for view in built().section("nn"):
        for text in ("123.456", "7.89", "98.7 to 97.2", "failed", "so and so", "not applicable", "0.432"):
            assert text in view
    summary, before = read_json(Path("reports/summary.json")), read_json(usual.folder / "reports/summary.json")
    counts = before["checks"]
    assert summary["checks"] == {"held": counts["held"] - 2, "failed": 1, "not_applicable": 1}
    assert summary == before | {"checks": summary["checks"], "nn": {**before["nn"], "log10_error": {"truth": 5.0}}}


@pytest.mark.parametrize(("share", "said"), [(0.9, "partly its seed"), (0.99, "what most starts give")])
def test_the_published_match_is_called_its_seed_s_only_where_it_is(
    usual: Built, project: Path, share: float, said: str
) -> None:
    shutil.copytree(usual.folder / "reports", "reports")
    found = usual.found("nn")
    found["answer"]["share_at_end"]["value"] = share
    write_json(found, Path("reports/evaluation/nn.json"))
    assert all(said in unescape(view) for view in built().section("nn"))


@pytest.mark.parametrize("path", [*(ROOT / "stages/report/templates").glob("*s*/*.j2")], ids=lambda path: path.stem)
def test_no_template_states_a_number_of_its_own(path: Path) -> None:
    """But in formulas and code; all others, and words for how much, are rendered from what evaluate found."""
    formulas_and_values = r"```math.*?```|\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|`[^`]*`|\$[^$]*\$"
    text = re.sub(formulas_and_values, "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = text.replace("class 1", "").replace("Stability, 2021", "").replace("Stability,\n2021", "")
    assert re.findall(r".*\d.*", text) == []
    assert re.findall(r"\b(?:most|few|dozen|hundred|thousand|million|nearly all|always)s?\b", text, re.IGNORECASE) == []


def test_it_needs_no_mathematics(usual: Built, project: Path) -> None:
    """Not even to be imported: it is done in well under a second."""
    shutil.copytree(usual.folder / "reports", "reports")
    code = "import sys; from stages.report.__main__ import main; main(); print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.splitlines())
    assert "stages.report.render" in modules
    assert not modules & {"numpy", "scipy", "matplotlib", "pandas", "torch", "pydantic", "ruamel.yaml"}
    assert not {name for name in modules if re.match(r"stages\.(theory|train|replicate|evaluate)", name)}
    assert Path("reports/index.html").read_text(encoding="utf-8") == usual.html, "and gives the same bytes"


def test_departures_from_the_article_are_named(unusual: Built) -> None:
    for view in unusual.section("manual"):
        assert "train.manual.lr is 0.02 (article: 0.01); train.manual.iterations is 30 (article: 3000)." in view
    summary = read_json(unusual.folder / "reports/summary.json")
    assert set(summary["manual"]["log10_error"]) == {"truth", "exact", "theory", "excess", "allowed"}
    for view in unusual.section("minibatch"):
        assert "data.plane.file is data/raw/own.csv (article: null)" in view
        assert "data.plane.rows" not in view, "a setting that is not in use"
        assert "± exact" in view


def test_a_run_that_diverged_and_separable_classes_are_reported(unusual: Built) -> None:
    for view in unusual.section("noisy"):
        assert re.search(r"The run diverged: after \d+ updates the loss is \d\.\d+e\+\d+", view)
    for view in unusual.section("logistic"):
        assert "no, the classes are separable" in view
    assert "| divergence |" in unusual.markdown
    rows = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', unusual.html)[5])["rows"]
    assert rows[0][-3:] == [None, None, None], "all zeros give no boundary"
    assert None not in rows[1]
    for view in (unusual.markdown, unusual.html):
        assert not re.search(r"\bnan\b|\binf\b", view, re.IGNORECASE)


@pytest.mark.parametrize(
    ("value", "text"),
    [("null", "null"), (True, "true"), (0.01, "0.01"), (1e-5, "1e-05"), (5000, "5000"), (2.0, "2"), ("mse", "mse")],
)
def test_settings_are_spelled_as_in_params_yaml(value: object, text: str) -> None:
    assert setting(value) == text


# --- what it is made of ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["usual", "unusual"])
def test_the_page_is_well_formed_and_needs_no_network_and_no_other_file(
    request: pytest.FixtureRequest, kind: str
) -> None:
    html = request.getfixturevalue(kind).html
    tags = Page(html).tags
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
        assert tag != "svg" or (attributes["role"] == "img" and attributes["aria-label"])
    assert not re.findall(r"@import|url\((?!#)", html)
    ids = Counter(attributes["id"] for _, attributes in tags if "id" in attributes)
    assert set(ids.values()) == {1}
    assert {*re.findall(r'(?:href="#|url\(#)([^")]+)', html)} <= set(ids)
    count = Counter(tag for tag, _ in tags)
    assert count["script"] == len(EXPERIMENTS) + 1
    assert count["math"] >= 2 * len(EXPERIMENTS)


def test_every_formula_is_converted_and_prose_holds_no_tags(usual: Built) -> None:
    assert "$" not in re.sub(r"<script.*?</script>", "", usual.html, flags=re.DOTALL)
    assert "<msup>" in markdown_to_html("$x^2$")
    assert "&lt;b&gt;" in markdown_to_html("<b>")


@pytest.mark.parametrize("name", ODD)
def test_odd_names_stay_text_in_both_views(unusual: Built, name: str) -> None:
    """Read as GitHub reads it, with tables, Markdown gives the name back."""
    from_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").render(unusual.markdown)
    for html in (unusual.html, from_markdown):
        assert f"w{ODD.index(name) + 1} ({name})" in Page(html).texts
    for signs in ("<script", "</svg", "$x^2", "](b)", "|y"):
        assert not re.search(rf"(?<!\\){re.escape(signs)}", unusual.markdown), signs


@pytest.mark.parametrize("name", ["https://a.b/c", "HTTP://a.b", "www.a.b", "WWW.a.b", "me@a.b", "@team", "see #12"])
def test_names_that_are_addresses_or_mentions_are_no_links_on_github(name: str) -> None:
    """GitHub links what looks so in plain text, and calls whoever is mentioned."""
    escaped = escape_markdown(name)
    assert not re.search(r"https?://|www\.|[@#]\w", escaped, re.IGNORECASE)
    shown = Page(MarkdownIt("commonmark").render(escaped)).texts
    assert [text.replace("\u200b", "") for text in shown if text.strip()] == [name]


# --- what it is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("evaluation/nn.json", lambda text: text[:50]),
        ("evaluation/nn.json", lambda text: "{}"),
        ("evaluation/nn.json", lambda text: "[]"),
        ("evaluation/nn.json", lambda text: text.replace('"settings"', '"others"')),
        ("evaluation/nn.json", lambda text: text.replace('"axes"', '"others"')),
        ("evaluation/nn.json", None),
        ("evaluation/nn.csv", lambda text: ""),
        ("evaluation/nn.csv", lambda text: text.split("\n")[0] + "\n"),
        ("evaluation/nn.csv", None),
        ("figures/nn/share.svg", None),
    ],
)
def test_what_is_damaged_or_missing_ends_in_a_message(
    usual: Built, project: Path, name: str, spoil: Callable[[str], str] | None
) -> None:
    shutil.copytree(usual.folder / "reports", "reports")
    path = Path("reports") / name
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8") if spoil else path.unlink()
    before = Path("reports/index.html").read_bytes()
    with pytest.raises(UserError, match=r"reports/(evaluation|figures)/nn.*run `dvc repro --force`"):
        report.main()
    assert Path("reports/index.html").read_bytes() == before
