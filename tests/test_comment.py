"""The comment on a pull request, made of two real revisions, and what a repository could smuggle into it."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.clones import clone_into, dvc, run, set_param
from tests.conftest import ROOT
from tools.comment import ABSENT, MARKER, PART, assembled, block, changes, code, table, values, values_part, verdict

HOSTILE = [
    "a | b",
    r"a \| b",
    "`x`",
    "``",
    "<script>alert(1)</script>",
    "<!-- ",
    "@everyone",
    "#1",
    "two\nlines",
    "\r\n| x | y |",
    "**bold** [a](b) ![c](d)",
    "$x$",
    " padded ",
    "\\",
    "\u202eright to left",
    "线性回归",
]


def tokens(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(markdown)


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """The rows of each part's table, without its head, as a reader sees them."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for opening, inline in zip(tokens(markdown), tokens(markdown)[1:], strict=False):
        text = "".join(child.content for child in inline.children or [])
        if opening.type == "heading_open":
            title = text
            found[title] = []
        elif opening.type == "tr_open":
            found[title].append([])
        elif opening.type == "td_open":
            found[title][-1].append(text)
    return {title: [row for row in rows if row] for title, rows in found.items()}


def comment(clone: Path, *arguments: str, code: int = 0) -> str:
    return run(clone, sys.executable, "-m", "tools.comment", *arguments, code=code)


@pytest.fixture(scope="session")
def shared_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits: the project as it is, and after another learning rate."""
    clone = clone_into(tmp_path_factory.mktemp("comment") / "project")
    set_param(clone, "train.noisy.lr", 0.05)
    dvc(clone, "repro")
    run(clone, "git", "commit", "--quiet", "--all", "--message=slower")
    run(clone, "git", "tag", "slower")
    return clone


@pytest.fixture
def clone(shared_clone: Path) -> Path:
    """At the second of the two commits."""
    run(shared_clone, "git", "reset", "--quiet", "--hard", "slower")
    return shared_clone


def test_the_comment_names_what_dvc_and_git_find_changed(clone: Path) -> None:
    text = comment(clone, "HEAD~1")
    assert text.startswith(f"{MARKER}\n")
    found = tables(text)
    assert found["Parameters"] == [["params.yaml", "train.noisy.lr", "0.1", "0.05", "-0.05"]]
    for kind, title in (("params", "Parameters"), ("metrics", "Metrics")):
        listed = json.loads(dvc(clone, kind, "diff", "--json", "HEAD~1", "HEAD"))
        expected = {(file, key): pair for file, keys in listed.items() for key, pair in keys.items()}
        assert expected
        assert {(file, key) for file, key, *_ in found[title]} == set(expected)
        for file, key, before, after, change in found[title]:
            pair = expected[file, key]
            assert (json.loads(before), json.loads(after)) == (pair["old"], pair["new"])
            assert float(change) == pytest.approx(pair["diff"], rel=1e-9)
    assert "reports/metrics/noisy.json" in {file for file, *_ in found["Metrics"]}
    figures = run(clone, "git", "diff", "--name-only", "HEAD~1", "HEAD", "--", "reports/figures").split()
    assert figures
    assert found["Figures"] == [[figure, "changed"] for figure in figures]


def test_figures_that_came_and_went(clone: Path) -> None:
    figures = clone / "reports/figures"
    (figures / "manual-fit.svg").rename(figures / "new | fit.svg")
    (figures / "nn-fit.svg").unlink()
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--message=figures")
    assert tables(comment(clone, "HEAD~1"))["Figures"] == [
        ["reports/figures/manual-fit.svg", "removed"],
        ["reports/figures/new | fit.svg", "added"],
        ["reports/figures/nn-fit.svg", "removed"],
    ]


@pytest.mark.parametrize(
    ("spoil", "exit_code", "word", "line"),
    [
        (lambda _: None, 0, "Identical.", "identical: all"),
        (
            lambda c: edit(c / "reports/metrics/nn.json", r'("w": 1\.\d{8})\d', r"\g<1>1"),
            0,
            "Equal within tolerance.",
            "though not byte for byte: reports/metrics/nn.json",
        ),
        (
            lambda c: edit(c / "reports/metrics/nn.json", r'("w": 1\.)\d\d', r"\g<1>99"),
            1,
            "Different.",
            "different: reports/metrics/nn.json: fitted.w: committed 1.2",
        ),
        (
            lambda c: edit(c / "reports/figures/nn-fit.svg", "</svg>", "<!-- --></svg>"),
            1,
            "Different.",
            "different: reports/figures/nn-fit.svg: words",
        ),
        (lambda c: set_param(c, "train.nn.lr", 0.02), 0, "Not compared.", "params.yaml was edited since"),
    ],
)
def test_the_verdict_is_that_of_the_comparison(
    clone: Path, spoil: Callable[[Path], object], exit_code: int, word: str, line: str
) -> None:
    """Also: two equal commits show no change, whatever is edited in the folder."""
    spoil(clone)
    log = clone.parent / "log.txt"
    compared = run(clone, sys.executable, "-m", "tools.compare", code=exit_code)
    log.write_text(f"Running stage 'report':\n{compared}make: done\n", encoding="utf-8")
    text = comment(clone, "HEAD", "--reproduction", str(log))
    assert f"### Reproduction\n\n**{word}**\n\n    " in text
    assert line in text
    assert "Running stage" not in text
    assert [what for what in ("parameter", "metric", "figure") if f"\nNo {what} changed." not in text] == []


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def test_every_line_of_a_difference_counts_in_whatever_order() -> None:
    """The program's two streams meet in one log."""
    lines = [
        "error: 2 differences from the committed results (the first 20 are shown)",
        "different: a: b",
        "different: c",
    ]
    for order in (lines, lines[::-1]):
        assert verdict("\n".join(["identical: before", *order, "make: Error 1"])) == ("Different.", order)


def test_a_run_that_broke_off_is_no_verdict() -> None:
    log = "".join(f"line {number}\n" for number in range(100)) + "ERROR: failed to reproduce 'train-nn'\n"
    word, lines = verdict(log)
    assert word.startswith("Failed.")
    assert lines[-1] == "ERROR: failed to reproduce 'train-nn'"
    assert len(lines) == 20
    assert verdict("")[0].startswith("Failed.")
    assert verdict(None) == ("`make reproduce` was not run.", [])


@pytest.mark.parametrize("revision", ["nowhere", "0" * 40, "HEAD:params.yaml", ""])
def test_an_unknown_revision_ends_in_one_message(clone: Path, revision: str) -> None:
    output = comment(clone, revision, code=1)
    assert output.startswith(f"error: {revision}: no such revision")
    assert output.count("\n") == 1


def test_a_missing_log_ends_in_one_message(clone: Path) -> None:
    output = comment(clone, "HEAD", "--reproduction", "nowhere.txt", code=1)
    assert output.startswith("error: nowhere.txt: no such file")
    assert output.count("\n") == 1


def test_a_repository_without_dvc_ends_in_one_message(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run(tmp_path, "git", *author, "commit", "--quiet", "--allow-empty", "--message=nothing")
    command = (sys.executable, "-m", "tools.comment", "HEAD")
    output = run(tmp_path, *command, code=1, environment={"PYTHONPATH": str(ROOT)})
    assert output.startswith("error: ")
    assert output.count("\n") == 1


def test_what_dvc_cannot_read_is_said(clone: Path) -> None:
    (clone / "reports/metrics/nn.json").write_text("{", encoding="utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message=damaged")
    head = run(clone, "git", "rev-parse", "--short=7", "HEAD").strip()
    text = comment(clone, "HEAD~1")
    assert re.search(rf"DVC could not read\n\n    {head}: .*nn\.json", text)
    assert tables(text)["Metrics"] == [], "what can't be read has not been removed"


def test_a_project_that_dvc_cannot_read_has_lost_nothing(clone: Path) -> None:
    (clone / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    (clone / "params.yaml").write_text("data: [", encoding="utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message=damaged")
    text = comment(clone, "HEAD~1")
    assert text.count("DVC could not read") == 2
    assert (tables(text)["Parameters"], tables(text)["Metrics"]) == ([], [])


def test_odd_names_and_numbers_are_shown(clone: Path) -> None:
    shutil.copy(clone / "reports/figures/nn-fit.svg", clone / os.fsdecode(b"reports/figures/\xff.svg"))
    edit(clone / "params.yaml", "rows: 50$", f"rows: 0x{'f' * 5000}")
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--message=odd")
    found = tables(comment(clone, "HEAD~1"))
    assert found["Figures"] == [[r"reports/figures/\udcff.svg", "added"]]
    assert found["Parameters"][0][3] == '"a number of thousands of digits"'


@pytest.mark.parametrize(
    ("before", "after", "row"),
    [
        (4.9e-11, 4.8682e-11, ["4.9e-11", "4.8682e-11", "-3.18e-13"]),
        (0.1, 0.05, ["0.1", "0.05", "-0.05"]),
        (12, 159, ["12", "159", "+147"]),
        (1, 1.0, ["1", "1.0", "+0.0"]),
        (1, True, ["1", "true", ""]),
        (0.1, "0.1", ["0.1", '"0.1"', ""]),
        (None, "null", ["null", '"null"', ""]),
        ([2.0, -3.4], [2.0], ["[2.0, -3.4]", "[2.0]", ""]),
        ({}, {"b": 1}, ["{}", ABSENT, ""]),
        (float("inf"), 1.0, ["Infinity", "1.0", "-Infinity"]),
    ],
)
def test_no_change_of_a_value_is_hidden(before: object, after: object, row: list[str]) -> None:
    revisions = [values({"data": {"f": {"data": {"a": value}}}})[0] for value in (before, after)]
    assert changes(*revisions)[0] == ["f", "a", *row]
    assert changes(revisions[0], revisions[0]) == []


def test_a_value_that_came_is_told_from_null() -> None:
    assert changes({}, {("f", "a.b"): "null"}) == [["f", "a.b", ABSENT, "null", ""]]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_the_repository_is_markup(text: str) -> None:
    """As file, key, value and line of a log: shown as it is, and neither cell nor row more than there should be."""
    shown = {
        "base": {"data": {text: {"data": {text: {text: text}}}}},
        "head": {"data": {text: {"data": {text: {text: 1}}}}},
    }
    markdown = "\n".join(["### Part", "", *values_part("parameter", shown, "base", "head"), "", "Log:", *block([text])])
    [row] = tables(markdown)["Part"]
    assert len(row) == 5
    assert all_in_code(markdown, ["Part", "file", "parameter", "before", "after", "change", "", "Log:"])
    if text.isprintable():
        assert row == [text, f"{text}.{text}", json.dumps(text, ensure_ascii=False), "1", ""]
        assert f"{text}\n" in [token.content for token in tokens(markdown) if token.type == "code_block"]


def all_in_code(markdown: str, but_for: list[str]) -> bool:
    """GitHub finds mentions, links and HTML outside of code only."""
    kinds = {token.type for token in tokens(markdown)}
    outside = [
        child
        for token in tokens(markdown)
        for child in token.children or []
        if child.type != "code_inline" and child.content not in but_for
    ]
    return not outside and "html_block" not in kinds


@given(st.text().filter(lambda text: text.strip(" ") and text != ABSENT))
def test_any_text_stays_in_its_cell(text: str) -> None:
    markdown = "\n".join(["### Part", "", *table(["a", "b"], [["x", text]])])
    [row] = tables(markdown)["Part"]
    assert len(row) == 2
    assert all_in_code(markdown, ["Part", "a", "b"])
    if text.isprintable():
        assert row[1] == text


def test_an_empty_name_leaves_an_empty_cell() -> None:
    assert tables("\n".join(["### Part", "", *table(["a", "b"], [["", "x"]])]))["Part"] == [["", "x"]]
    assert code("") == ""


def test_a_comment_that_is_too_long_is_cut_and_says_so() -> None:
    rows = [[f"figure {number}", "changed"] for number in range(5000)]
    parts = {title: table(["figure", "change"], rows) for title in ("A", "B", "C", "D")}
    text = assembled(parts)
    assert len(text) < 65_536 - 100
    for shown, (_, left_out) in zip(
        tables(text).values(), re.findall(r"(Lines left out for want of room): (\d+)\.", text), strict=True
    ):
        assert shown == rows[: len(shown)]
        assert len(shown) > 400
        assert len(shown) + int(left_out) == len(rows)


def test_one_value_that_is_too_long_is_left_out_and_counted() -> None:
    text = assembled({"A": table(["a", "b"], [["x", "y"], ["x", "y" * PART]])})
    assert tables(text)["A"] == [["x", "y"]]
    assert "Lines left out for want of room: 1." in text
