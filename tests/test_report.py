"""The report: what both views must hold for any results, and that nothing in the data can break out of them."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from stages import generate_data, report
from stages.common import answers
from stages.common.errors import UserError
from stages.common.evidence import EXPERIMENTS, as_text, compared_settings, truth
from stages.common.figures import MAX_FRAMES, MAX_POINTS, Scatter, evenly_spaced, fit_picture, loss_picture
from stages.common.files import write_csv, write_json
from stages.common.params import Data, Train, load_group

ROOT = Path(__file__).parent.parent
HOSTILE = "<script>alert('1')</script> | `$x^2$` [a](b) *_&"


READ = ("params.yaml", "data/published.yaml", "data/raw", "reports/metrics", "reports/history", "reports/replicates")


def fill(folder: Path) -> None:
    """All that the report reads, with the committed results."""
    for name in READ:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for name, model in generate_data.MODELS.items():
        write_csv(generate_data.draw(load_group(f"data.{name}", model)), Path(f"data/{name}.csv"))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to change, the current one, that holds all that the report reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answers, "STEPS", 2000)  # the long descent of article D's answer, shortened
    fill(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with the report of the committed results, and its two views; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(answers, "STEPS", 2000)
        fill(folder)
        return folder, *built()


@pytest.fixture
def default(built_once: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Both views of the report of the committed results, whose folder is the current one."""
    folder, *views = built_once
    monkeypatch.chdir(folder)
    return views[0], views[1]


@pytest.fixture
def change(results: Path) -> Callable[[str, str, Any], None]:
    """Sets a key of a group of the folder's params.yaml."""

    def set_key(group: str, key: str, value: object) -> None:
        tree = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        first, second = group.split(".")
        tree[first][second][key] = value
        Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    return set_key


class Page(HTMLParser):
    """The tags, ids and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def built() -> tuple[str, str]:
    report.main()
    reports = Path("reports")
    return (reports / "report.md").read_text(encoding="utf-8"), (reports / "index.html").read_text(encoding="utf-8")


def frames_in(html: str) -> list[list[list[Any]]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)]


def test_both_views_say_the_same(default: tuple[str, str]) -> None:
    markdown, html = default
    published = yaml.safe_load(Path("data/published.yaml").read_text(encoding="utf-8"))
    for experiment, (_, title) in EXPERIMENTS.items():
        metrics = json.loads(Path(f"reports/metrics/{experiment}.json").read_text(encoding="utf-8"))
        for view in (markdown, html):
            assert title in view
            assert published[experiment]["article"]["title"] in view
            assert published[experiment]["article"]["date"] in view
            for value in metrics["fitted"].values():
                assert report.number(value) in view
            for value in published[experiment].get("fitted", {}).values():
                assert value in view
    for name in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (Path("reports") / name).is_file()
    for heading in re.findall(r"\(#([^)]+)\)", markdown):
        assert heading in {report.anchor(title) for _, title in EXPERIMENTS.values()}


def test_the_page_needs_no_network_and_no_other_file(default: tuple[str, str]) -> None:
    _, html = default
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_the_page_is_well_formed(default: tuple[str, str]) -> None:
    _, html = default
    page = Page(html)
    repeated = [name for name, count in Counter(a["id"] for _, a in page.tags if a.get("id")).items() if count > 1]
    assert not repeated
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert reference in ids
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["math"] >= 2 * len(EXPERIMENTS)
    assert "$" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL), "a formula was not converted"
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


def test_figures_are_xml_in_both_colour_schemes(default: tuple[str, str]) -> None:
    for path in Path("reports/figures").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        ET.fromstring(svg)  # noqa: S314 made here
        assert "prefers-color-scheme:dark" in svg
        assert not re.findall(r"(?:fill|stroke): #", svg), "a colour that would not turn dark"
    expected = {f"{name}-{kind}" for name in EXPERIMENTS for kind in ("fit", "loss")} | {
        name for names in answers.FIGURES.values() for name in names
    }
    assert {path.stem for path in Path("reports/figures").glob("*.svg")} == expected


def test_the_same_results_give_the_same_bytes(built_once: tuple[Path, str, str], results: Path) -> None:
    folder, *views = built_once
    assert list(built()) == views
    for path in Path("reports/figures").iterdir():
        assert path.read_bytes() == (folder / path).read_bytes(), path.name


def test_the_slider_has_every_recorded_iteration(default: tuple[str, str]) -> None:
    _, html = default
    for frames, experiment in zip(frames_in(html), EXPERIMENTS, strict=True):
        history = pd.read_csv(f"reports/history/{experiment}.csv")
        assert [frame[0] for frame in frames] == history["iteration"].tolist()
        assert [frame[1] for frame in frames] == [report.number(loss) for loss in history["loss"]]


def test_a_frame_puts_the_line_where_it_was_drawn(default: tuple[str, str]) -> None:
    """The last frame is the fit as drawn: its ends lie on the drawn line, to the SVG's two decimals."""
    _, html = default
    for frames, experiment in zip(frames_in(html), EXPERIMENTS, strict=True):
        drawn = re.search(rf'id="{experiment}-fit-moving">\s*<path d="M (\S+) (\S+)\s+L (\S+) (\S+)', html)
        assert drawn is not None
        x0, y0, x1, y1 = map(float, drawn.groups())
        xa, ya, xb, yb = frames[-1][3]
        for x, y in ((x0, y0), (x1, y1)):
            distance = abs((xb - xa) * (y - ya) - (yb - ya) * (x - xa)) / np.hypot(xb - xa, yb - ya)
            assert distance < 0.05


def test_a_frames_line_follows_its_parameters() -> None:
    """Points on the line a frame stands for map to points on the segment it draws: checked through two known points."""
    scatter = Scatter(np.array([0.0, 10.0]), np.array([0.0, 10.0]), None, "x", "y")
    flat, steep, upright = (0.0, -1.0, 5.0), (2.0, -1.0, -5.0), (1.0, 0.0, -5.0)
    picture = fit_picture(scatter, [flat, steep, upright, None, flat], None, None, moving="fit")
    at = picture.places
    assert at[0] == at[4]
    assert at[3] is None
    assert at[0] is not None
    assert at[2] is not None
    assert at[0][1] == at[0][3], "a constant line is level"
    assert at[2][0] == at[2][2], "x = 5 is upright"
    middle = (at[2][0], at[0][1])  # (5, 5), through which all three go
    assert at[1] is not None
    xa, ya, xb, yb = at[1]
    assert abs((xb - xa) * (middle[1] - ya) - (yb - ya) * (middle[0] - xa)) / np.hypot(xb - xa, yb - ya) < 0.05


def test_a_line_out_of_sight_is_not_drawn() -> None:
    scatter = Scatter(np.array([0.0, 10.0]), np.array([0.0, 10.0]), None, "x", "y")
    for far in ((5e152, -1.0, 4e151), (0.0, -1.0, 1e200)):
        picture = fit_picture(scatter, [(1.0, -1.0, 0.0), far], None, None, moving="fit")
        assert len(picture.places) == 2
        ET.fromstring(picture.svg)  # noqa: S314 made here


def test_large_data_are_thinned_and_the_caption_says_so(results: Path, change: Callable[[str, str, Any], None]) -> None:
    markdown, html = built()
    assert "Data (5,000 rows; 1,000 of the rows drawn)" in markdown
    svg = Path("reports/figures/nn-fit.svg").read_text(encoding="utf-8")
    assert svg.count("<use ") < MAX_POINTS + 100
    history = pd.read_csv("reports/history/manual.csv")
    long = pd.concat([history] * 10, ignore_index=True)
    write_csv(long.assign(iteration=range(len(long))), Path("reports/history/manual.csv"))
    markdown, html = built()
    assert f"{MAX_FRAMES:,} of 3,010 recorded iterations drawn" in markdown
    assert len(frames_in(html)[0]) == MAX_FRAMES


@pytest.mark.parametrize("count", [1, 2, 3, 499, 500, 501, 5000])
def test_evenly_spaced(count: int) -> None:
    chosen = evenly_spaced(count, 500)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1
    assert len(chosen) == min(count, 500)
    assert np.ptp(np.diff(chosen)) <= 1 if count > 1 else True


def test_hostile_names_stay_text(results: Path, change: Callable[[str, str, Any], None]) -> None:
    Path("data/raw/own.csv").write_text("first\n", encoding="utf-8")
    change("data.plane", "file", "data/raw/own.csv")
    plane = pd.read_csv("data/plane.csv").rename(columns={"x1": HOSTILE, "x2": "</svg>" + HOSTILE})
    write_csv(plane, Path("data/plane.csv"))
    markdown, html = built()
    assert "alert" in markdown
    assert "<script>alert" not in html.lower()
    assert HOSTILE not in markdown
    for signs in ("<script", "</svg", "$x^2", "](b)"):
        assert not re.search(rf"(?<!\\){re.escape(signs)}", markdown), signs
    for path in Path("reports/figures").glob("minibatch-*.svg"):
        tree = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 made here
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.tags) == len(EXPERIMENTS) + 1


@pytest.mark.parametrize("name", ["#0072b2", 'id="x" url(#a)', "溫度 [°C]", "naïve ☃"])
def test_a_column_keeps_its_name_in_a_figure(results: Path, change: Callable[[str, str, Any], None], name: str) -> None:
    Path("data/raw/own.csv").write_text("first\n", encoding="utf-8")
    change("data.line", "file", "data/raw/own.csv")
    write_csv(pd.read_csv("data/line.csv").rename(columns={"x": name}), Path("data/line.csv"))
    _, html = built()
    svg = ET.parse("reports/figures/manual-fit.svg")  # noqa: S314 made here
    assert name in [node.text for node in svg.iter()]
    assert escape(name, quote=False) in html


def test_other_settings_than_the_articles_leave_out_its_numbers(
    results: Path, change: Callable[[str, str, Any], None]
) -> None:
    change("train.nn", "lr", 0.02)
    markdown, html = built()
    for view in (markdown, html):
        assert "this run differs from the article: train.nn.lr is 0.02 (article: 0.01)" in view.replace("\\", "")
    summary = json.loads(Path("reports/summary.json").read_text(encoding="utf-8"))
    assert set(summary["nn"]["log10_error"]) == {"truth", "exact"}
    assert set(summary["shared"]["log10_error"]) == {"truth", "exact", "publication"}


def test_an_own_csv_has_no_truth(results: Path, change: Callable[[str, str, Any], None]) -> None:
    change("data.line", "file", "data/raw/norris.csv")
    shutil.copy("data/raw/norris.csv", "data/line.csv")
    markdown, _ = built()
    assert r"data.line.file is data/raw/norris.csv (article: null)" in markdown
    assert "data.line.rows" not in markdown, "a setting that is not in use"
    summary = json.loads(Path("reports/summary.json").read_text(encoding="utf-8"))
    assert "truth" not in summary["manual"]["log10_error"]
    assert "publication" not in summary["manual"]["log10_error"]


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_general_boundary_over_any_number_of_features(
    results: Path, change: Callable[[str, str, Any], None], features: int
) -> None:
    change("train.logistic", "form", "general")
    change("data.clusters", "file", "data/raw/iris.csv")
    generator = np.random.default_rng(features)
    names = [f"f{j}" for j in range(1, features + 1)]
    table = pd.DataFrame(generator.normal(size=(30, features)), columns=names)
    write_csv(table.assign(label=(table["f1"] > 0).astype(int)), Path("data/clusters.csv"))
    parameters = {"w": 1.0} if features == 1 else {f"w{j}": float(j) for j in range(1, features + 1)}
    history = pd.DataFrame([dict.fromkeys(parameters, 0.0), parameters]).assign(b=[0.0, 0.5])
    history.insert(0, "iteration", [0, 1])
    history.insert(1, "loss", [0.7, 0.5])
    write_csv(history, Path("reports/history/logistic.csv"))
    metrics = {
        "initial": {**dict.fromkeys(parameters, 0.0), "b": 0.0},
        "fitted": {**parameters, "b": 0.5},
        "loss": 0.5,
        "iterations": 1,
        "stopped": "iterations",
        "accuracy": 1.0,
    }
    write_json(metrics, Path("reports/metrics/logistic.json"))
    _, html = built()
    frames = dict(zip(EXPERIMENTS, frames_in(html), strict=True))["logistic"]
    assert frames[0][3] is None, "all zeros give no boundary"
    assert frames[1][3] is not None


def test_a_run_that_diverged_is_reported(results: Path) -> None:
    history = pd.DataFrame(
        {"iteration": [0, 1, 2], "loss": [1.0, 1e200, 7e306], "w": [0.0, -1e100, 5e152], "b": [0.0, 1.0, 1.0]}
    )
    write_csv(history, Path("reports/history/noisy.csv"))
    ends = {"initial": {"w": 0.0, "b": 0.0}, "fitted": {"w": 5e152, "b": 1.0}}
    metrics = {**ends, "loss": 7e306, "iterations": 2, "stopped": "diverged"}
    write_json(metrics, Path("reports/metrics/noisy.json"))
    markdown, html = built()
    assert "The run diverged: after 2 updates the loss is 7e+306" in markdown
    assert "nan" not in html.lower().replace("nano", "")


def test_a_loss_of_zero_throughout(results: Path) -> None:
    """Rounded losses can be 0, which a log scale has no place for."""
    history = pd.DataFrame({"iteration": [0, 1], "loss": [0.0, 0.0]})
    picture = loss_picture(history, None, {}, {})
    assert all(place is not None and np.isfinite(place).all() for place in picture.places)
    assert_a_dot_can_move(picture.svg)


def test_a_loss_that_ends_at_zero() -> None:
    history = pd.DataFrame({"iteration": [0, 1, 2], "loss": [1.0, 1e-5, 0.0]})
    assert_a_dot_can_move(loss_picture(history, None, {}, {}).svg)


def assert_a_dot_can_move(svg: str) -> None:
    """The page's script moves the `use` element in the group of this id."""
    assert re.search(r'<g id="moving">.*?<use ', svg, flags=re.DOTALL)


def test_settings_are_compared_by_value(results: Path) -> None:
    """0.1 and 1e-1, 5 and 5.0 are the same setting."""
    published = yaml.safe_load(Path("data/published.yaml").read_text(encoding="utf-8"))
    data, train = load_group("data", Data), load_group("train", Train)
    for experiment, (data_set, _) in EXPERIMENTS.items():
        settings = compared_settings(
            data_set, getattr(data, data_set), experiment, getattr(train, experiment), published[experiment]["settings"]
        )
        assert not [row.key for row in settings if row.differs], "the defaults are the articles' settings"
        theirs = published[experiment]["settings"]
        named = {f"data.{data_set}.{key}" for key in theirs["data"]} | {
            f"train.{experiment}.{key}" for key in theirs["train"]
        }
        assert named <= {row.key for row in settings}, "published.yaml names a setting that does not exist"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0.01, "0.01"), (5000, "5000"), ([2.0, -3.4], "[2, -3.4]"), ("mse", "mse")],
)
def test_settings_as_params_yaml_spells_them(value: object, text: str) -> None:
    assert as_text(value) == text


def test_truth_of_the_defaults(results: Path) -> None:
    data, train = load_group("data", Data), load_group("train", Train)
    assert truth("manual", data.line, train.manual) == {"w": 3.0, "b": 0.8}
    assert truth("minibatch", data.plane, train.minibatch) == {"w1": 2.0, "w2": -3.4, "b": 4.2}
    shared = truth("shared", data.stream, train.shared)
    assert shared["w"] ** 2 == pytest.approx(1.233, rel=1e-12)
    assert (shared["w"] + 1) * shared["b"] == pytest.approx(0.988, rel=1e-12)
    assert truth("logistic", data.clusters, train.logistic) == {"w": -1.0, "b": 0.0}
    general = train.logistic.model_copy(update={"form": "general"})
    assert truth("logistic", data.clusters, general) == {"w1": -4.0, "w2": -4.0, "b": 0.0}


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("reports/metrics/nn.json", lambda text: text[:50]),
        ("reports/history/nn.csv", lambda text: ""),
        ("reports/history/nn.csv", lambda text: text.split("\n")[0] + "\n"),
        ("reports/replicates/nn.json", lambda text: text[:50]),
        ("data/published.yaml", lambda text: "nn: {}\n"),
    ],
)
def test_damaged_results_end_in_a_message(results: Path, name: str, spoil: Callable[[str], str]) -> None:
    path = Path(name)
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(name)):
        report.main()


@pytest.mark.parametrize("std", [1e-160, 1e-300])
def test_a_truth_out_of_range_is_not_known(results: Path, change: Callable[[str, str, Any], None], std: float) -> None:
    change("data.clusters", "std", std)
    markdown, _ = built()
    assert "nan" not in markdown
    assert "inf |" not in markdown


def test_clusters_with_a_column_of_zeros(results: Path, change: Callable[[str, str, Any], None]) -> None:
    """The weight of such a column is free: there is no single minimum, and the report says so by leaving it out."""
    change("data.clusters", "file", "data/raw/iris.csv")
    frame = pd.read_csv("data/clusters.csv").assign(x=0.0)
    write_csv(frame, Path("data/clusters.csv"))
    markdown, _ = built()
    assert "nan" not in markdown
