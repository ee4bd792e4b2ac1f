"""The report's page in a real browser, without a network: what it shows, how it moves, and that everyone can use it."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, ViewportSize, sync_playwright

from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_json
from tests.conftest import ROOT
from tests.evidence import at, distance, drawn_dot, drawn_line, off_line

INDEX = ROOT / "reports/index.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox"]  # as root, and in containers, there is none
ARGUMENTS += [f"--disable-{part}" for part in ("gpu", "quic", "background-networking", "component-update", "sync")]
NARROW: ViewportSize = {"width": 360, "height": 800}
WIDE: ViewportSize = {"width": 1280, "height": 900}
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"),
    reason="no Chromium installed; REQUIRE_BROWSER=1 makes this a failure",
)


class Visitor:
    """A reader without a network, in one page that opens one file after the other: a new page takes a second.

    Attributes:
        troubles: what no visit may cause: messages on the console, errors, requests for anything but the file itself.
    """

    def __init__(self, browser: Browser) -> None:
        self.troubles: list[str] = []
        self._url = ""
        context = browser.new_context(offline=True)
        context.set_default_timeout(10_000)
        context.on("request", self._note_others)
        context.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url}"))
        context.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        context.on("weberror", lambda error: self.troubles.append(f"error: {error.error}"))
        context.clock.install()  # which goes as it does, and can be put forward
        self._page = context.new_page()
        self._page.on("websocket", lambda socket: self.troubles.append(f"asked for {socket.url}"))

    def open(self, path: Path = INDEX, *, viewport: ViewportSize = WIDE, **media: Any) -> Page:
        """A file, wide and light unless asked otherwise: `open(viewport=NARROW, color_scheme="dark")`."""
        self._page.goto("about:blank")  # so that the browser restores nothing of the last visit
        self._url = path.as_uri()
        self._page.set_viewport_size(viewport)
        self._page.emulate_media(**{"color_scheme": "light", "reduced_motion": "no-preference", **media})
        self._page.goto(self._url)
        return self._page

    def _note_others(self, request: Request) -> None:
        if request.url != self._url and not request.url.startswith(("data:", "about:")):
            self.troubles.append(f"asked for {request.url}")


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    assert CHROMIUM is not None, "REQUIRE_BROWSER is set, and there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Visitor(browser)
        browser.close()


@pytest.fixture
def open_page(visitor: Visitor) -> Iterator[Callable[..., Page]]:
    """Opens the report or another file, for example `open_page(viewport=NARROW)`; no visit may have caused troubles."""
    visitor.troubles.clear()
    yield visitor.open
    assert visitor.troubles == []


@dataclass(frozen=True)
class State:
    """What a player shows: its step and texts; the line's ends and the dot, as written and as seen, in SVG units."""

    step: int
    button: str
    readout: str
    spoken: str
    line: list[float]
    has_line: bool
    dot: list[float]
    seen: list[float]
    height: float


@dataclass(frozen=True)
class Player:
    """One experiment's figures, slider and button in an open page."""

    page: Page
    experiment: str

    @property
    def root(self) -> Locator:
        return self.page.locator(f'.player[data-experiment="{self.experiment}"]')

    @property
    def slider(self) -> Locator:
        return self.root.get_by_role("slider")

    @property
    def button(self) -> Locator:
        return self.root.get_by_role("button")

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the page carries for it: `axes`, `columns`, `rows`."""
        data: dict[str, Any] = json.loads(self.root.locator("script").text_content() or "")
        return data

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        return [dict(zip(self.data["columns"], row, strict=True)) for row in self.data["rows"]]

    @property
    def last(self) -> int:
        return len(self.rows) - 1

    @property
    def state(self) -> State:
        return self.at_steps([None])[0]

    def at_steps(self, steps: list[int | None]) -> list[State]:
        """What it shows after its slider has been moved to one step after the other; None leaves it where it is."""
        states = self.root.evaluate(
            """(player, steps) => steps.map((step) => {
              const slider = player.querySelector("input"), name = player.dataset.experiment;
              if (step !== null) {
                slider.value = step;
                slider.dispatchEvent(new Event("input"));
              }
              const line = document.querySelector(`#${name}-fit-moving path`);
              const dot = document.querySelector(`#${name}-loss-moving use`);
              const box = dot.getBoundingClientRect();
              const centre = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
              const inside = centre.matrixTransform(dot.ownerSVGElement.getScreenCTM().inverse());
              return {
                step: Number(slider.value),
                button: player.querySelector("button").innerText,
                readout: player.querySelector("output").innerText,
                spoken: slider.getAttribute("aria-valuetext"),
                line: line.getAttribute("d").match(/-?[\\d.]+/g).map(Number),
                has_line: getComputedStyle(line).strokeOpacity === "1",
                dot: ["x", "y"].map((side) => Number(dot.getAttribute(side))),
                seen: [inside.x, inside.y],
                height: player.getBoundingClientRect().height,
              };
            })""",
            steps,
        )
        return [State(**state) for state in states]


def players(page: Page) -> list[Player]:
    return [Player(page, experiment) for experiment in EXPERIMENTS]


def as_text(row: dict[str, float]) -> str:
    """What the page says of a row of the course, as the report's tables spell it."""
    parameters = ", ".join(f"{name} = {row[name]:.4g}" for name in row if name[0] in "wb")
    return f"iteration {row['iteration']:.0f}: loss {row['loss']:.6g}, {parameters}"


def assert_shows(player: Player, step: int, state: State | None = None) -> None:
    """Texts, line and dot are those of a row, wherever its values lie by the axes: now, or in an earlier state."""
    row, axes, state = player.rows[step], player.data["axes"], state or player.state
    assert (state.step, state.readout, state.spoken) == (step, as_text(row), as_text(row))
    if state.has_line:
        assert off_line(np.reshape(state.line, (2, 2)), axes["fit"], (row["p"], row["q"], row["r"])) < 0.02
    dot = at(axes["loss"], row["iteration"], max(row["loss"], axes["loss"]["y0"]))
    np.testing.assert_allclose(state.dot, dot, atol=0.02)
    np.testing.assert_allclose(state.seen, dot, atol=0.5)


def open_all_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


def luminance(color: str) -> float:
    """The relative luminance of an opaque colour, by WCAG."""
    parts = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", color)
    assert parts is not None, f"{color} is not an opaque colour"
    rgb = np.array(parts.groups(), dtype=float) / 255
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_the_page_works_from_any_folder_and_asks_for_nothing(open_page: Callable[..., Page], tmp_path: Path) -> None:
    path = tmp_path / "Ergebnisse für Übung #1, 50 % größer" / INDEX.name
    path.parent.mkdir()
    shutil.copy(INDEX, path)
    page = open_page(path)
    assert page.title() == "Six small fits"
    open_all_details(page)
    for player in players(page):
        player.slider.press("Home")
        assert_shows(player, 0)
        player.button.click()
    for link, experiment in zip(page.get_by_role("navigation").get_by_role("link").all(), EXPERIMENTS, strict=True):
        link.click()
        top = page.locator(f"section#{experiment}").evaluate("(section) => section.getBoundingClientRect().top")
        assert -1 <= top < WIDE["height"] / 2, "a link leads to its section"


# --- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_visible_with_all_of_its_text(open_page: Callable[..., Page]) -> None:
    page = open_page()
    names = sorted(f"{path.parent.name}-{path.stem}" for path in ROOT.glob("reports/figures/*/*.svg"))
    for viewport in (WIDE, NARROW):
        page.set_viewport_size(viewport)
        figures = page.evaluate(
            """[...document.querySelectorAll("svg")].map((svg) => {
              const { left, top, right, bottom, width, height } = svg.getBoundingClientRect();
              const isCut = ({ left: l, top: t, right: r, bottom: b }) =>
                l < left - 1 || t < top - 1 || r > right + 1 || b > bottom + 1;
              const texts = [...svg.querySelectorAll("text")];
              const cut = texts.filter((text) => isCut(text.getBoundingClientRect())).map((text) => text.textContent);
              const name = svg.querySelector("[id$='-figure_1']").id.replace("-figure_1", "");
              const visible = svg.checkVisibility({ opacityProperty: true, visibilityProperty: true });
              return { name, visible, left, right, width, height, texts: texts.length, cut };
            })"""
        )
        assert sorted(figure["name"] for figure in figures) == names
        for figure in figures:
            assert (figure["visible"], figure["cut"]) == (True, []), figure
            assert figure["texts"] > 0, figure
            assert 0 <= figure["left"] < figure["left"] + 300 <= figure["right"] <= viewport["width"], figure
            assert 0.5 < figure["height"] / figure["width"] < 1, figure


# --- sliders and Play ------------------------------------------------------------------------------------------------


def test_line_dot_and_readout_are_where_each_rows_values_lie(open_page: Callable[..., Page]) -> None:
    for player in players(open_page()):
        for step, state in enumerate(player.at_steps([*range(player.last + 1)])):
            assert_shows(player, step, state)
        assert state.has_line
        player.slider.click()
        assert player.state.step == pytest.approx(step / 2, abs=1), "a click in its middle"
        assert_shows(player, player.state.step)


def test_the_last_step_is_the_fit_as_it_was_drawn(open_page: Callable[..., Page]) -> None:
    """When opened, and at the end of the slider: to 0.02 of the SVG's units where matplotlib drew line and dot."""
    for player in players(open_page()):
        run = read_json(ROOT / f"reports/metrics/{player.experiment}.json")
        figures = ROOT / "reports/figures" / player.experiment
        line = drawn_line((figures / "fit.svg").read_text(encoding="utf-8"))
        dot = drawn_dot((figures / "loss.svg").read_text(encoding="utf-8"))
        opened = player.state
        player.slider.press("Home")
        assert player.state.line != opened.line
        assert player.state.dot != opened.dot
        player.slider.press("End")
        for state in (opened, player.state):
            assert_shows(player, player.last, state)
            assert state.readout == as_text({**run, **run["fitted"], "iteration": run["iterations"]})
            assert max(distance(np.reshape(state.line, (2, 2)), end) for end in line) < 0.02
            np.testing.assert_allclose(state.dot, dot, atol=0.02)


@pytest.mark.parametrize("is_log", [False, True])
def test_upright_level_and_missing_lines_and_losses_of_zero(
    open_page: Callable[..., Page], tmp_path: Path, is_log: bool
) -> None:
    """A boundary of zeros is none, and a line far out of sight isn't drawn."""

    def crafted(script: re.Match[str]) -> str:
        data = json.loads(script[2])
        fit, loss = data["axes"]["fit"], data["axes"]["loss"]
        loss |= {"log": is_log, "y0": 1e-6 if is_log else -0.1, "y1": 2.0}
        x, y, parameters = (fit["x0"] + fit["x1"]) / 2, (fit["y0"] + fit["y1"]) / 2, [0.25] * (len(data["columns"]) - 5)
        lines = [(1, 0, -x), (-2, 0, 2 * x), (0, 1, -y), (1, -1, y - x), (None, None, None), (0, 0, 1), (0, 1, 1e12)]
        losses = [1.5, 0.0, 1e-3, 1.0, 0.0, 2.0, 1e-7]
        data["rows"] = [[k, losses[k], *parameters, *line] for k, line in enumerate(lines)]
        return script[1] + json.dumps(data) + script[3]

    html = re.sub(r'max="\d+" value="\d+"', 'max="6" value="6"', INDEX.read_text(encoding="utf-8"))
    path = tmp_path / INDEX.name
    path.write_text(re.sub(r'(<script type="application/json">)(.*?)(</script>)', crafted, html), encoding="utf-8")
    for player in players(open_page(path)):
        states = player.at_steps([*range(7)])
        assert [state.has_line for state in states] == [True] * 4 + [False] * 3
        for step, state in enumerate(states):
            assert_shows(player, step, state)
        assert states[0].line[0] == states[0].line[2], "x = constant is upright"
        assert states[2].line[1] == states[2].line[3], "y = constant is level"


def test_play_shows_every_step_once_and_stops(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.evaluate(
        """window.shown = Object.fromEntries([...document.querySelectorAll(".player")].map((player) => {
          const texts = [], watch = (changes) => texts.push(...changes.map((c) => c.addedNodes[0].textContent));
          new MutationObserver(watch).observe(player.querySelector("output"), { childList: true });
          return [player.dataset.experiment, texts];
        }))"""
    )
    for player in players(page):
        player.button.click()
        assert player.state.button == "Pause"
    page.clock.run_for(16_000)
    shown = page.evaluate("window.shown")
    for player in players(page):
        assert (player.state.step, player.state.button) == (player.last, "Play")
        assert shown[player.experiment] == [as_text(row) for row in player.rows]
    page.clock.run_for(5_000)
    assert page.evaluate("window.shown") == shown, "nothing moves after the end"


def test_play_goes_on_from_where_the_slider_stands_and_ends_when_it_is_moved(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for player in players(page):
        player.slider.fill("1")
        player.button.click()
        page.clock.run_for(550)
        assert player.state.step > 1
        player.slider.press("Home")
        assert player.state.button == "Play"
        page.clock.run_for(2_000)
        assert player.state.step == 0


# --- keyboard and screen reader --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("viewport", "color_scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_tab_reaches_everything_in_reading_order_and_the_focus_is_seen(
    open_page: Callable[..., Page], viewport: ViewportSize, color_scheme: str
) -> None:
    page = open_page(viewport=viewport, color_scheme=color_scheme)
    stops = []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => {
              const element = document.activeElement, style = getComputedStyle(element);
              const { left, top, bottom } = element.getBoundingClientRect();
              return element === document.body ? null : {
                index: [...document.querySelectorAll("*")].indexOf(element),
                name: element.outerHTML.slice(0, 80),
                place: [Math.round(top + scrollY), Math.round(left)],
                inView: bottom > 0 && top < innerHeight,
                outline: style.outlineStyle, width: parseFloat(style.outlineWidth), color: style.outlineColor,
                paper: getComputedStyle(document.body).backgroundColor,
              };
            }"""
        )
        if stop is None:
            break
        stops.append(stop)
    expected = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("*")];
          const wide = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth;
          const stops = (e) => e.matches("a[href], button, input, summary, [tabindex='0']") || wide(e);
          return all.filter((e) => stops(e) && e.checkVisibility()).map((e) => all.indexOf(e));
        }"""
    )
    assert [stop["index"] for stop in stops] == expected
    assert [stop["place"] for stop in stops] == sorted(stop["place"] for stop in stops)
    for stop in stops:
        assert (stop["inView"], stop["outline"]) == (True, "solid"), stop
        assert stop["width"] >= 2, stop
        assert contrast(stop["color"], stop["paper"]) >= 3, stop


def test_keys_move_the_slider_and_a_screen_reader_hears_each_step_once(open_page: Callable[..., Page]) -> None:
    """From the slider; the text beside it, read out by itself, would repeat it and talk all through Play."""
    for player in players(open_page()):
        player.slider.focus()
        steps = {"Home": 0, "ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 1, "ArrowDown": 0, "End": player.last}
        for key, step in [*steps.items(), ("ArrowRight", player.last)]:
            player.page.keyboard.press(key)
            assert_shows(player, step)
        assert player.root.locator("output").get_attribute("aria-live") == "off"


def test_a_key_starts_play_and_the_same_key_pauses_it(open_page: Callable[..., Page]) -> None:
    """By the real clock, as a reader sees it."""
    page = open_page()
    player = players(page)[0]
    for key in ("Space", "Enter"):
        player.slider.press("Home")
        player.button.focus()
        page.keyboard.press(key)
        assert player.state.button == "Pause"
        page.wait_for_function("document.querySelector('.player input').value > 2")
        page.keyboard.press(key)
        paused = player.state
        assert paused.button == "Play"
        assert 2 < paused.step < player.last
        page.wait_for_timeout(200)
        assert player.state == paused


# --- layout ----------------------------------------------------------------------------------------------------------


def test_the_page_is_never_wider_than_the_screen(open_page: Callable[..., Page]) -> None:
    page = open_page()
    open_all_details(page)
    for width in (320, 360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        beyond = page.evaluate(
            """[...document.querySelectorAll("body *:not(svg *, .scroll *, .formula *)")]
              .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth)
              .map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert beyond == [], f"cut off at {width}"


def test_wide_tables_and_formulas_scroll_by_themselves(open_page: Callable[..., Page]) -> None:
    page = open_page(viewport=NARROW)
    open_all_details(page)
    for kind in (".scroll", ".formula"):
        boxes = page.locator(kind).all()
        wide = [box for box in boxes if box.evaluate("(e) => e.scrollWidth > e.clientWidth")]
        assert wide, "there is one to try"
        for box in wide:
            assert box.evaluate("(e) => getComputedStyle(e).overflowX") == "auto"
        wide[0].press("ArrowRight")
        page.wait_for_function("(e) => e.scrollLeft > 0", arg=wide[0].element_handle())
    assert page.evaluate("scrollX") == 0


def test_the_page_holds_still_while_a_slider_moves(open_page: Callable[..., Page]) -> None:
    """A readout that took one line and then two would push all that is below it up and down."""
    page = open_page()
    for width in (320, 360, 480, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for player in players(page):
            states = player.at_steps([*range(0, player.last + 1, 1 if player.last < 50 else 5)])
            assert len({state.height for state in states}) == 1, (player.experiment, width)


def test_with_reduced_motion_nothing_moves_unless_asked(open_page: Callable[..., Page]) -> None:
    page = open_page(reduced_motion="reduce")
    page.evaluate(
        """window.changes = 0;
        new MutationObserver((changes) => { window.changes += changes.length; })
          .observe(document, { subtree: true, childList: true, attributes: true, characterData: true });"""
    )
    page.clock.run_for(10_000)
    assert page.evaluate("window.changes") == 0, "nothing starts by itself"
    for player in players(page):
        player.slider.press("Home")
    assert page.evaluate("window.changes") > 0
    assert page.evaluate("document.getAnimations().length") == 0, "and a step is made at once"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


# --- colours and accessibility ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_figures_stand_out_from_paper_in_both_colour_schemes(open_page: Callable[..., Page], color_scheme: str) -> None:
    page = open_page(color_scheme=color_scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(paper) < 0.05 if color_scheme == "dark" else luminance(paper) > 0.9
    figures = page.evaluate(
        """[...document.querySelectorAll("svg")].map((svg) => {
          const colors = (selector, property) =>
            [...new Set([...svg.querySelectorAll(selector)].map((e) => getComputedStyle(e)[property]))];
          return {
            paper: colors("[id$='-patch_1'] > path, [id$='-patch_2'] > path", "fill"),
            text: colors("text", "fill"),
            ticks: colors("[id*='matplotlib.axis'] use", "stroke"),
            spines: colors("[id$='-patch_3'] > path, [id$='-patch_4'] > path", "stroke"),
            moving: colors("[id$='-moving'] > path, [id$='-moving'] use", "stroke"),
          };
        })"""
    )
    for figure in figures:
        assert figure["paper"] == [paper]
        for part in ("text", "ticks", "spines"):
            assert figure[part], part
        for color in figure["text"]:
            assert contrast(color, paper) >= 4.5
        for color in [*figure["ticks"], *figure["spines"], *figure["moving"]]:
            assert contrast(color, paper) >= 3
    assert sum(map(len, (figure["moving"] for figure in figures))) == 2 * len(EXPERIMENTS)


def test_axe_finds_nothing(open_page: Callable[..., Page]) -> None:
    """With all tables open, and one check as it looks when it fails."""
    page = open_page()
    open_all_details(page)
    page.evaluate("document.querySelector('.held').className = 'failed'")
    # a figure is one image to axe, and a thousand points slow to walk through
    page.evaluate("document.querySelectorAll('svg').forEach((svg) => svg.replaceChildren())")
    page.evaluate(AXE)
    visits: list[tuple[Literal["light", "dark"], ViewportSize]] = [("light", WIDE), ("dark", NARROW)]
    for color_scheme, viewport in visits:
        page.emulate_media(color_scheme=color_scheme)
        page.set_viewport_size(viewport)
        # until the page has been laid out anew and has seen which formulas are too wide now
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        violations = page.evaluate(
            """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
              violations.map(({ id, impact, nodes }) => [id, impact, nodes.map((node) => node.target.join(" "))]))"""
        )
        assert violations == [], (color_scheme, viewport)
