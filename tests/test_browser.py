"""The report's page in a real browser, without a network: what it shows, how it moves, and that everyone can use it."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, ViewportSize, sync_playwright

from stages.common.evidence import EXPERIMENTS
from stages.report import number

REPORTS = Path(__file__).parents[1] / "reports"
INDEX = REPORTS / "index.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",  # as root, and in containers, there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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

    def __init__(self, browser: Browser, *, fake_clock: bool) -> None:
        self.troubles: list[str] = []
        self._url = ""
        context = browser.new_context()
        context.set_offline(True)
        context.set_default_timeout(10_000)
        context.route("**/*", self._refuse_others)
        context.on("request", self._note_others)
        context.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url}"))
        context.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        context.on("weberror", lambda error: self.troubles.append(f"error: {error.error}"))
        if fake_clock:
            context.clock.install()
        self._page = context.new_page()
        self._page.on("websocket", lambda socket: self.troubles.append(f"asked for {socket.url}"))

    def open(
        self,
        path: Path = INDEX,
        *,
        viewport: ViewportSize = WIDE,
        color_scheme: Literal["light", "dark"] = "light",
        reduced_motion: Literal["reduce", "no-preference"] = "no-preference",
    ) -> Page:
        self._page.goto("about:blank")  # so that the browser restores nothing of the last visit
        self._url = path.as_uri()
        self._page.set_viewport_size(viewport)
        self._page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        self._page.goto(self._url)
        return self._page

    def _refuse_others(self, route: Route, request: Request) -> None:
        if request.url == self._url:
            route.continue_()
        else:
            route.abort()

    def _note_others(self, request: Request) -> None:
        if request.url != self._url and not request.url.startswith(("data:", "about:")):
            self.troubles.append(f"asked for {request.url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "REQUIRE_BROWSER is set, and there is no Chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def visitors(browser: Browser) -> dict[str, Visitor]:
    return {"real": Visitor(browser, fake_clock=False), "fake": Visitor(browser, fake_clock=True)}


@pytest.fixture
def open_page(visitors: dict[str, Visitor]) -> Iterator[Callable[..., Page]]:
    """Opens the report or another file, for example `open_page(viewport=NARROW)`; no visit may have caused troubles."""

    def opened(path: Path = INDEX, *, clock: str = "real", **options: Any) -> Page:
        return visitors[clock].open(path, **options)

    for visitor in visitors.values():
        visitor.troubles.clear()
    yield opened
    assert [trouble for visitor in visitors.values() for trouble in visitor.troubles] == []


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

    def frames(self) -> list[list[Any]]:
        """The frames embedded in the page: [iteration, loss, parameters, line, dot] each."""
        frames: list[list[Any]] = json.loads(self.root.locator("script").text_content() or "")
        return frames

    def state(self) -> dict[str, Any]:
        """Its step and texts, the line's ends as written and the dot's centre as seen, both in their SVG's units."""
        state: dict[str, Any] = self.root.evaluate(
            """(player) => {
              const name = player.dataset.experiment;
              const line = document.querySelector(`#${name}-fit-moving path`);
              const dot = document.querySelector(`#${name}-loss-moving use`);
              const box = dot.getBoundingClientRect();
              const centre = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
              const inside = centre.matrixTransform(dot.ownerSVGElement.getScreenCTM().inverse());
              return {
                step: Number(player.querySelector("input").value),
                button: player.querySelector("button").innerText,
                readout: player.querySelector("output").innerText,
                line: line.getAttribute("d").match(/-?[\\d.]+/g).map(Number),
                lineShown: getComputedStyle(line).strokeOpacity === "1",
                dot: [inside.x, inside.y],
              };
            }"""
        )
        return state

    @property
    def step(self) -> int:
        return int(self.state()["step"])


def players(page: Page) -> list[Player]:
    return [Player(page, experiment) for experiment in EXPERIMENTS]


def as_text(frame: list[Any]) -> str:
    """What the page says of a frame."""
    iteration, loss, parameters, *_ = frame
    return f"iteration {iteration}: loss {loss}, {parameters}"


def assert_shows(player: Player, step: int, frames: list[list[Any]]) -> None:
    state = player.state()
    *_, line, dot = frames[step]
    assert (state["step"], state["readout"]) == (step, as_text(frames[step]))
    assert (state["line"], state["lineShown"]) == (line, True)
    assert state["dot"] == pytest.approx(dot, abs=0.5)


def open_all_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


def luminance(color: str) -> float:
    """The relative luminance of an opaque colour, by WCAG."""
    parts = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", color)
    assert parts is not None, f"{color} is not an opaque colour"
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(p) / 255 for p in parts.groups())
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_the_page_works_from_any_folder_and_asks_for_nothing(
    open_page: Callable[..., Page], visitors: dict[str, Visitor], tmp_path: Path
) -> None:
    path = tmp_path / "Ergebnisse für Übung #1, 50 % größer" / INDEX.name
    path.parent.mkdir()
    shutil.copy(INDEX, path)
    page = open_page(path)
    assert page.title() == "Six small fits"
    open_all_details(page)
    for player in players(page):
        player.slider.press("Home")
        assert_shows(player, 0, player.frames())
        player.button.click()
    for link, experiment in zip(page.get_by_role("navigation").get_by_role("link").all(), EXPERIMENTS, strict=True):
        link.click()
        top = page.locator(f"section#{experiment}").evaluate("(section) => section.getBoundingClientRect().top")
        assert -1 <= top < WIDE["height"] / 2, "a link leads to its section"
    assert visitors["real"].troubles == []


# --- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_visible_with_all_of_its_text(open_page: Callable[..., Page]) -> None:
    page = open_page()
    names = sorted(path.stem for path in REPORTS.glob("figures/*.svg"))
    for viewport in (WIDE, NARROW):
        page.set_viewport_size(viewport)
        figures = page.evaluate(
            """[...document.querySelectorAll("svg")].map((svg) => {
              const box = svg.getBoundingClientRect();
              const cut = [...svg.querySelectorAll("text")].filter((text) => {
                const { left, top, right, bottom } = text.getBoundingClientRect();
                return left < box.left - 1 || top < box.top - 1 || right > box.right + 1 || bottom > box.bottom + 1;
              });
              return {
                name: svg.querySelector("[id$='-figure_1']").id.replace("-figure_1", ""),
                visible: svg.checkVisibility({ opacityProperty: true, visibilityProperty: true }),
                left: box.left, right: box.right, width: box.width, height: box.height,
                texts: svg.querySelectorAll("text").length, cut: cut.map((text) => text.textContent),
              };
            })"""
        )
        assert sorted(figure["name"] for figure in figures) == names
        for figure in figures:
            assert figure["visible"], figure
            assert figure["left"] >= 0, figure
            assert figure["right"] <= viewport["width"], figure
            assert figure["width"] >= 300, figure
            assert 0.5 < figure["height"] / figure["width"] < 1, figure
            assert figure["texts"] > 0, figure
            assert figure["cut"] == [], figure


# --- sliders and Play ------------------------------------------------------------------------------------------------


def test_the_slider_moves_line_dot_and_readout(open_page: Callable[..., Page]) -> None:
    for player in players(open_page()):
        frames = player.frames()
        last = len(frames) - 1
        assert_shows(player, last, frames)
        assert frames[0][3:] != frames[last][3:], "line and dot have somewhere to go"
        for step in (0, last // 3, last):
            player.slider.fill(str(step))
            assert_shows(player, step, frames)
        player.slider.click()
        assert player.step == pytest.approx(last / 2, abs=1), "a click in its middle"
        assert_shows(player, player.step, frames)


def test_the_last_step_is_the_fit(open_page: Callable[..., Page]) -> None:
    for player in players(open_page()):
        metrics = json.loads((REPORTS / f"metrics/{player.experiment}.json").read_text(encoding="utf-8"))
        fitted = ", ".join(f"{name} = {value:.4g}" for name, value in metrics["fitted"].items())
        expected = f"iteration {metrics['iterations']}: loss {number(metrics['loss'])}, {fitted}"
        assert player.state()["readout"] == expected, "when opened"
        player.slider.press("Home")
        player.slider.press("End")
        assert player.state()["readout"] == expected, "at the end of the range"


def test_play_shows_every_step_once_and_stops(open_page: Callable[..., Page]) -> None:
    page = open_page(clock="fake")
    page.evaluate(
        """() => {
          window.shown = {};
          for (const player of document.querySelectorAll(".player")) {
            const texts = (window.shown[player.dataset.experiment] = []);
            new MutationObserver((changes) => {
              for (const change of changes) texts.push(...[...change.addedNodes].map((node) => node.textContent));
            }).observe(player.querySelector("output"), { childList: true });
          }
        }"""
    )
    for player in players(page):
        player.button.click()
        assert player.state()["button"] == "Pause"
    page.clock.run_for(16_000)
    shown = page.evaluate("window.shown")
    for player in players(page):
        frames = player.frames()
        assert shown[player.experiment] == [as_text(frame) for frame in frames]
        assert_shows(player, len(frames) - 1, frames)
        assert player.state()["button"] == "Play"
    page.clock.run_for(5_000)
    assert page.evaluate("window.shown") == shown, "nothing moves after the end"


def test_play_goes_on_from_where_the_slider_stands_and_ends_when_it_is_moved(open_page: Callable[..., Page]) -> None:
    page = open_page(clock="fake")
    for player in players(page):
        player.slider.fill("1")
        player.button.click()
        page.clock.run_for(550)
        assert player.step > 1
        player.slider.press("Home")
        assert player.state()["button"] == "Play"
        page.clock.run_for(2_000)
        assert player.step == 0


def test_a_step_without_a_line_hides_it(open_page: Callable[..., Page], tmp_path: Path) -> None:
    """A boundary of zeros is none, and a line far out of sight isn't drawn."""
    path = tmp_path / INDEX.name
    first_line = re.compile(r'(<script type="application/json">\[\[[^\[\]]*), \[[^\]]*\]')
    path.write_text(first_line.sub(r"\1, null", INDEX.read_text(encoding="utf-8")), encoding="utf-8")
    for player in players(open_page(path)):
        assert player.frames()[0][3] is None
        player.slider.press("Home")
        assert not player.state()["lineShown"]
        player.slider.press("ArrowRight")
        assert_shows(player, 1, player.frames())


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
        assert stop["inView"], stop
        assert stop["outline"] == "solid", stop
        assert stop["width"] >= 2, stop
        assert contrast(stop["color"], stop["paper"]) >= 3, stop


def test_keys_move_the_slider(open_page: Callable[..., Page]) -> None:
    for player in players(open_page()):
        frames = player.frames()
        last = len(frames) - 1
        player.slider.focus()
        moves = {"Home": 0, "ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 1, "ArrowDown": 0, "End": last}
        for key, step in moves.items():
            player.page.keyboard.press(key)
            assert_shows(player, step, frames)
        player.page.keyboard.press("ArrowRight")
        assert player.step == last, "there is nothing after the last step"


def test_a_key_starts_play_and_the_same_key_pauses_it(open_page: Callable[..., Page]) -> None:
    """By the real clock, as a reader sees it."""
    page = open_page()
    player = players(page)[0]
    for key in ("Space", "Enter"):
        player.slider.press("Home")
        player.button.focus()
        page.keyboard.press(key)
        assert player.state()["button"] == "Pause"
        page.wait_for_function("document.querySelector('.player input').value > 2")
        page.keyboard.press(key)
        assert player.state()["button"] == "Play"
        paused = player.step
        assert 2 < paused < len(player.frames()) - 1
        page.wait_for_timeout(200)
        assert_shows(player, paused, player.frames())


def test_a_screen_reader_hears_each_step_once(open_page: Callable[..., Page]) -> None:
    """From the slider; the text beside it, read out by itself, would repeat it and talk all through Play."""
    for player in players(open_page()):
        player.slider.press("Home")
        assert player.slider.get_attribute("aria-valuetext") == player.state()["readout"]
        assert player.root.locator("output").get_attribute("aria-live") == "off"


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
        heights = page.evaluate(
            """[...document.querySelectorAll(".player")].map((player) => {
              const slider = player.querySelector("input");
              const heights = new Set();
              for (let step = 0; step <= slider.max; step += slider.max < 50 ? 1 : 5) {
                slider.value = step;
                slider.dispatchEvent(new Event("input"));
                heights.add(player.getBoundingClientRect().height);
              }
              return [...heights];
            })"""
        )
        assert [len(different) for different in heights] == [1] * len(EXPERIMENTS), width


def test_with_reduced_motion_nothing_moves_unless_asked(open_page: Callable[..., Page]) -> None:
    page = open_page(clock="fake", reduced_motion="reduce")
    page.evaluate(
        """() => {
          window.changes = 0;
          const observer = new MutationObserver((changes) => { window.changes += changes.length; });
          observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        }"""
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
