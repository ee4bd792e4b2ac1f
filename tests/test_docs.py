"""The pages: what they name is there, and what they say of a rerun is what DVC does."""

import json
import re
import shlex
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from stages.common.experiments import EXPERIMENTS
from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT, TREE, leaves

PAGES = ["README.md", "CONTRIBUTING.md", "data/raw/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?<![\w./-])(?:stages|tests|tools|benchmarks|docs|data|reports|\.github|\.ci)/[\w.*/-]*\w")
TO_BE_MADE = re.compile(r"momentum|data/raw/own\.csv|data/[a-z_*]+\.csv|\blrr\b")  # by the reader, or by a run


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def articles() -> dict[str, dict[str, str]]:
    """The article of every experiment that has one."""
    entries = {name: entry["article"] for name, entry in yaml.safe_load(text_of("data/published.yaml")).items()}
    return {name: article for name, article in entries.items() if article["title"] != "none"}


def commands(page: str) -> list[str]:
    """The lines of a page's console blocks, those that end in a backslash joined with the next."""
    blocks = [block for language, block in FENCE.findall(text_of(page)) if language == "console"]
    return [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", "").splitlines()]


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)", found.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], target


@pytest.mark.parametrize("page", PAGES)
def test_the_files_settings_and_make_targets_that_a_page_names_exist(page: str) -> None:
    text = text_of(page).replace("<experiment>", "nn")
    for path in PATH.findall(text):
        assert list(ROOT.glob(path)) or TO_BE_MADE.search(path), path
    for module in re.findall(r"python -m ((?:stages|tools)[.\w]*\w)", text):
        assert list(ROOT.glob(f"{module.replace('.', '/')}*")) or TO_BE_MADE.search(module), module
    settings = [f"{name}." for name in leaves(TREE)]
    without_python = FENCE.sub(lambda block: "" if block[1] == "python" else block[0], text)
    for name in re.findall(r"(?<![\w./-])(?:data|train|replicate)\.[a-z_.]*[a-z]\b", without_python):
        assert any(setting.startswith(f"{name}.") for setting in settings) or TO_BE_MADE.search(name), name
    for target in re.findall(r"(?:^|`)make\s+([a-z-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in text_of("Makefile"), target


@pytest.mark.parametrize("page", PAGES)
def test_dvc_knows_the_commands_of_a_page(page: str) -> None:
    inline = re.findall(r"`(dvc [^`]+)`", text_of(page))
    for line in [*commands(page), *inline]:
        for command in re.findall(r"(?:^|&& )dvc ([^|>&]*)", line):
            get_main_parser().parse_args(shlex.split(command, comments=True))  # ends the test at an unknown word


def test_the_readme_links_and_dates_every_article() -> None:
    text = text_of("README.md")
    links = {f"[{n}]": link for n, link in re.findall(r"^\[(\d)\]: (.*)$", text, re.MULTILINE)}
    published = articles()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|.* \| (.*) \|$", text, re.MULTILINE)
    assert [row[:2] for row in rows] == [(e.name, e.data_set) for e in EXPERIMENTS.values() if e.name in published]
    for name, _, article in rows:
        title, date = published[name]["title"], published[name]["date"][:10]
        if not article.startswith("the same"):
            assert links[article.removeprefix(f"[{title}]")[:3]] == "https://duckduckgo.com/?q=" + quote(f'"{title}"')
            assert date == "undated" or article.endswith(date)


def test_every_article_is_cited() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    cited = {ref["title"]: (str(ref.get("date-published", "undated")), ref["notes"]) for ref in citation["references"]}
    assert set(cited) == {article["title"] for article in articles().values()}
    for name, article in articles().items():
        date, notes = cited[article["title"]]
        assert date == article["date"][:10]
        assert re.search(rf"here the experiments? .*\b{name}\b", notes, re.IGNORECASE | re.DOTALL), name


def test_editors_are_offered_dvc_and_yaml() -> None:
    extensions = json.loads(text_of(".vscode/extensions.json"))
    assert {"iterative.dvc", "redhat.vscode-yaml"} <= set(extensions["recommendations"])


# --- how-dvc-decides -------------------------------------------------------------------------------------------------

DECIDES = "docs/how-dvc-decides.md"
EDIT = re.compile(
    r"^Set `(?P<key>[^`]+)` to `(?P<value>[^`]+)` in `params.yaml`|^Append `(?P<text>[^`]+)` to `(?P<file>[^`]+)`"
)


def test_the_readme_names_the_stages_that_dvc_runs_for_a_learning_rate() -> None:
    """As the page does, which the next test repeats."""
    printed = text_of(DECIDES).partition("Set `train.nn.lr`")[2].partition("## ")[0]
    (said,) = re.findall(r"dvc repro +# runs (.*), and nothing else", text_of("README.md"))
    assert re.findall(r"Running stage '(.*)'", printed) == re.split(", | and ", said)


@pytest.mark.slow
def test_dvc_decides_as_the_page_prints(tmp_path: Path) -> None:
    """Every command of the page prints what the page says."""
    clone = clone_into(tmp_path / "project")
    dvc(clone, "repro")
    compared = 0
    for part in text_of(DECIDES).split("\n\n"):
        if edit := EDIT.match(part):
            if edit["key"]:
                set_param(clone, edit["key"], yaml.safe_load(edit["value"]))
            else:
                with (clone / edit["file"]).open("a", encoding="utf-8") as file:
                    file.write(edit["text"] + "\n")
        elif block := FENCE.match(part + "\n"):
            for command, _, printed in (entry.partition("\n") for entry in re.split(r"^\$ ", block[2], flags=re.M)[1:]):
                assert run(clone, "sh", "-c", command) == printed, command
                compared += 1
    assert compared == text_of(DECIDES).count("\n$ ") > 10
