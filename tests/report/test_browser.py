"""The page in a real browser: Debian's chromium, driven by playwright (which downloads no browser of its own here)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.report.__main__ import main
from harness.results.record import RunRecord
from tests.report.folders import NASTY, write_everything
from tests.results.synthetic import run

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (pip install -e '.[dev]')")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs the program chromium (apt-get install chromium)")

FIVE_MB = 5_000_000


def twenty_runs() -> list[RunRecord]:
    """Four methods on five seeds and 200 problems, and one label so long that it must be wrapped."""
    methods = {
        "opd": {},
        "tropd": {},
        "eopd": {},
        "reopold": {"a_knob_with_a_long_name": "and_a_value_without_any_space"},
    }
    counts = [[(i + s + m * (i % 3)) % 5 if i % 7 else m for i in range(200)] for m in range(4) for s in range(5)]
    records = []
    for m, (method, changed) in enumerate(methods.items()):
        knobs = {"alpha": 1.0, **changed}
        records += [run(method, s, counts[5 * m + s], knobs=knobs, changed_knobs=changed) for s in range(5)]
    return records


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twenty")
    long_text = NASTY + " long" * 300  # longer than what the page keeps
    write_everything(folder, twenty_runs(), steps=200, text=long_text, tokens=["p", NASTY, "\n", *[" word"] * 3000])
    assert main([str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield launched
        launched.close()


class Visit:
    """The page in a window, and everything that it complained about or asked for."""

    def __init__(self, browser: Any, report: Path, width: int, scheme: str = "light", script: bool = True) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_twenty_runs_stay_small(report: Path) -> None:
    assert report.stat().st_size <= FIVE_MB


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_opens_quietly_and_fits_the_window(browser: Any, report: Path, width: int, scheme: str) -> None:
    with Visit(browser, report, width, scheme) as visit:
        page = visit.page
        page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == width
        boxes = [svg.bounding_box() for svg in page.query_selector_all("svg")]
        assert boxes.count(None) == 1  # the learning curve over the tokens; nobody knows the operations here
        for box in filter(None, boxes):
            assert box["width"] > 250 and box["height"] > 60 and box["x"] + box["width"] <= width
        assert page.locator("svg").count() >= 15
        assert page.locator("table").count() >= 6
        assert page.locator("svg[role=img] > title").count() == page.locator("svg").count()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) > 384) == (scheme == "light")
        assert visit.complaints == []
        assert visit.requests == [report.as_uri()]


def test_tables_and_folds_work_without_javascript(browser: Any, report: Path) -> None:
    with Visit(browser, report, 1400, script=False) as visit:
        page = visit.page
        assert page.locator("#main table").first.locator("tbody tr").count() == 4
        problem = page.locator("details.problem").first
        assert not problem.locator("pre").first.is_visible()
        problem.locator("summary").click()
        assert problem.locator("pre").first.is_visible()
        assert problem.locator("pre").first.inner_text().startswith("question ")
        assert "<script>alert(1)</script> ␀␛" in problem.locator("pre").nth(1).inner_text()


def test_the_axis_of_the_learning_curve_is_chosen_without_javascript(browser: Any, report: Path) -> None:
    with Visit(browser, report, 1400, script=False) as visit:
        figures = visit.page.locator("#learning svg")
        assert [figures.nth(n).is_visible() for n in range(figures.count())] == [True, False]
        visit.page.locator("#learning label", has_text="student tokens").click()
        assert [figures.nth(n).is_visible() for n in range(figures.count())] == [False, True]
        visit.page.keyboard.press("ArrowLeft")
        assert figures.first.is_visible()


def test_the_legend_of_the_dynamics_stays_in_sight(browser: Any, report: Path) -> None:
    with Visit(browser, report, 400) as visit:
        visit.page.locator("#dynamics figure").nth(3).scroll_into_view_if_needed()
        box = visit.page.locator("#dynamics .legend").bounding_box()
        nav = visit.page.locator("nav").bounding_box()
        assert nav["y"] + nav["height"] - 4 <= box["y"] < 900 / 2


def test_a_wide_table_shows_that_it_goes_on(browser: Any, report: Path) -> None:
    """At 400 pixels: a shadow stays at the edge of the window, and a cover of it scrolls with the table's own end."""
    with Visit(browser, report, 400) as visit:
        table = visit.page.locator("#main .scroll").first
        assert table.evaluate("e => e.scrollWidth > e.clientWidth")
        assert table.evaluate("e => getComputedStyle(e).backgroundAttachment") == "local, scroll"


def test_keyboard_reaches_links_and_folds(browser: Any, report: Path) -> None:
    with Visit(browser, report, 1400) as visit:
        page = visit.page

        def focused() -> dict[str, Any]:
            return page.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return {tag: e.tagName, text: e.textContent.trim(), outline: s.outlineStyle,"
                " top: e.getBoundingClientRect().top, label: e.getAttribute('aria-label')}; })()"
            )

        page.keyboard.press("Tab")
        assert focused()["text"] == "Skip to the results"
        assert focused()["top"] >= 0  # the link that is hidden until it has the focus
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        seen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.append(focused())
        assert [element for element in seen if element["outline"] == "none"] == []
        assert seen[0]["label"] == "arithmetic"  # the first table can be scrolled by keyboard
        folds = [element for element in seen if element["tag"] == "SUMMARY"]
        assert len(folds) > 10
        page.evaluate("document.querySelector('details.problem > summary').focus()")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('details.problem').open")


def test_prints(browser: Any, report: Path) -> None:
    with Visit(browser, report, 1400, "dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not visit.page.locator("nav").is_visible()
        assert visit.page.pdf().startswith(b"%PDF")
