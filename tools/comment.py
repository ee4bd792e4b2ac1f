"""The comment on a pull request: were the results reproduced, and which parameters, metrics and figures changed.

.github/workflows/reproduce.yml posts it. It compares two commits, the base revision and HEAD, whatever the working
folder holds; the verdict on reproduction is read from what `make reproduce` printed. Values are shown with all their
digits: `dvc metrics diff` rounds to five decimals, which makes small losses 0.0.

run  python -m tools.comment <base revision> [--reproduction <file with what make reproduce printed>]
"""

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.common.errors import UserError, run_stage
from tools.compare import git, names

MARKER = "<!-- reproduction -->"  # the comment's first line, by which the workflow finds it again
PART = 15_000  # characters for each of the four parts; GitHub refuses a comment of more than 65,536
FIGURES = "reports/figures"
STATES = {"A": "added", "D": "removed", "M": "changed", "T": "changed"}  # git's letters; T: became a link
ABSENT = "—"
# How the lines of tools.compare begin, which ends `make reproduce`; its output and its errors reach a log in any order.
VERDICTS = {
    "identical: ": "Identical.",
    "equal within ": "Equal within tolerance.",
    "not compared with the commit: ": "Not compared.",
    r"different: |error: \d+ differences ": "Different.",
}

Values = dict[tuple[str, str], str]  # (file, key) -> the value as JSON, in which 1, 1.0, "1" and true differ


def commit(revision: str) -> str:
    """The commit that a revision names."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    except subprocess.CalledProcessError:
        raise UserError(
            f"{revision}: no such revision; expected a commit, branch or tag of this repository; "
            "fetch it (a shallow clone lacks most commits), or name another"
        ) from None


def printed(path: Path) -> str:
    """What `make reproduce` printed, from the file it was written to."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; expected what `make reproduce` printed: make reproduce 2>&1 | tee {path}"
        ) from None


def verdict(log: str | None) -> tuple[str, list[str]]:
    """The verdict on reproduction, and the lines it rests on."""
    if log is None:
        return "`make reproduce` was not run.", []
    lines = log.splitlines()
    said = [(word, line) for line in lines for start, word in VERDICTS.items() if re.match(start, line)]
    if not said:
        return "Failed. `make reproduce` ended before it compared anything; its last lines:", lines[-20:]
    return said[-1][0], [line for word, line in said if word == said[-1][0]]


EVERY_FILE = ""  # as the name of what DVC could not read


def values(shown: dict[str, Any]) -> tuple[Values, dict[str, str]]:
    """Every value that DVC found at a revision, and the files that it could not read, each with the reason."""
    if "error" in shown:
        return {}, {EVERY_FILE: f"{shown['error']}"}
    found: Values = {}
    unreadable = {}
    for file, content in shown.get("data", {}).items():
        if "error" in content:
            unreadable[file] = f"{content['error']}"
        else:
            found |= {(file, key): as_json(leaf) for key, leaf in leaves(content["data"])}
    return found, unreadable


def readable(found: Values, lost: dict[str, str]) -> Values:
    """The values of files that DVC could read at the other revision too: of the rest it is not known what changed."""
    return {} if EVERY_FILE in lost else {place: value for place, value in found.items() if place[0] not in lost}


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Whatever is not a group of other values, with the path of keys to it."""
    if isinstance(tree, dict) and tree:
        for key, branch in tree.items():
            yield from leaves(branch, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def as_json(value: object) -> str:
    """A value with all its digits; a date in YAML, which JSON does not know, as its text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # Python prints no whole number of more than 4300 digits
        return '"a number of thousands of digits"'


def changes(before: Values, after: Values) -> list[list[str]]:
    """Where two revisions differ: file, key, both values and, between numbers, the difference."""
    pairs = [(place, before.get(place, ABSENT), after.get(place, ABSENT)) for place in dict.fromkeys([*before, *after])]
    return [[*place, old, new, difference(old, new)] for place, old, new in pairs if old != new]


def difference(before: str, after: str) -> str:
    """In decimals, so that 0.05 - 0.1 is -0.05; nothing if one of both is no number."""
    try:
        return f"{Decimal(after) - Decimal(before):+g}"
    except InvalidOperation:
        return ""


def changed_figures(base: str, head: str) -> list[list[str]]:
    """The figures' files that git finds different, and how."""
    listed = names(git("diff", "--name-status", "--no-renames", "-z", base, head, "--", FIGURES))
    return [[name, STATES[state]] for state, name in zip(listed[::2], listed[1::2], strict=True)]


def code(text: str) -> str:
    """The text as a table shows it unchanged: in a code span nothing is markup, a mention or a link.

    What cannot be printed, such as the end of a line, is written as its escape.
    """
    if text in ("", ABSENT):
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if {shown[0], shown[-1]} & set("` ") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(lines: list[str]) -> list[str]:
    """Lines shown unchanged, by indenting: nothing in them can end such a block."""
    return ["", *("    " + "".join(c if c.isprintable() else " " for c in line) for line in lines)] if lines else []


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """A table of code spans, its head first."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(map(code, row))} |" for row in rows]


def fitting(lines: list[str]) -> list[str]:
    """As many of a part's first lines as it has room for, and how many it has not."""
    kept = sum(size <= PART for size in accumulate(len(line) + 1 for line in lines))
    left_out = [] if kept == len(lines) else ["", f"Lines left out for want of room: {len(lines) - kept}."]
    return lines[:kept] + left_out


def values_part(kind: str, shown: dict[str, Any], base: str, head: str) -> list[str]:
    """The parameters or metrics that differ between the two commits."""
    (before, lost), (after, missing) = values(shown.get(base, {})), values(shown.get(head, {}))
    unreadable = [
        f"{revision[:7]}: {file}{': ' if file else ''}{reason}"
        for revision, files in ((base, lost), (head, missing))
        for file, reason in files.items()
    ]
    rows = changes(readable(before, missing), readable(after, lost))
    none = f"No {kind} changed in what it could read." if unreadable else f"No {kind} changed."
    return [
        *(["DVC could not read", *block(unreadable), ""] if unreadable else []),
        *(table(["file", kind, "before", "after", "change"], rows) if rows else [none]),
    ]


def comment(base: str, head: str, log: str | None) -> str:
    """The whole comment on what lies between two commits."""
    repo = Repo()
    word, lines = verdict(log)
    figures = changed_figures(base, head)
    parts = {
        "Reproduction": [f"**{word}**", *block(lines)],
        "Parameters": values_part("parameter", repo.params.show(revs=[base, head]), base, head),
        "Metrics": values_part("metric", repo.metrics.show(revs=[base, head]), base, head),
        "Figures": table(["figure", "change"], figures) if figures else ["No figure changed."],
    }
    return f"{MARKER}\nFrom {base[:7]} to {head[:7]}:\n\n{assembled(parts)}"


def assembled(parts: dict[str, list[str]]) -> str:
    """The parts under their titles, short enough for GitHub."""
    return "\n\n".join("\n".join([f"### {title}", "", *fitting(lines)]) for title, lines in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.comment", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("base", help="the revision with which HEAD is compared")
    parser.add_argument("--reproduction", type=Path, help="the file with what `make reproduce` printed")
    arguments = parser.parse_args()
    try:
        log = printed(arguments.reproduction) if arguments.reproduction else None
        print(comment(commit(arguments.base), commit("HEAD"), log))
    except DvcException as error:  # no DVC project here
        raise UserError(str(error)) from None


if __name__ == "__main__":
    run_stage(main)
