"""The report in a browser: offline, with mouse and keyboard, with text that would run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_report import HOSTILE, made_report

from bench.study.report import Report, html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM and "CI" not in os.environ:
    pytest.skip("chromium is not installed", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
]
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "chromium is not installed"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=SLOW_MS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report()


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Visit"]:
    visit = Visit(browser, report, tmp_path_factory.mktemp("page"))
    yield visit
    visit.page.context.close()


@pytest.fixture
def page(opened: "Visit") -> Page:
    """The page as it is when just opened."""
    opened.open()
    return opened.page


class Visit:
    """A page opened from the disk, and what it did."""

    def __init__(self, browser: Browser, report: Report, folder: Path) -> None:
        self.address = (folder / "report.html").as_uri()
        (folder / "report.html").write_text(html(report))
        self.page = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(SLOW_MS)
        self.requests, self.errors, self.dialogs = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def open(self) -> None:
        self.page.goto("about:blank")
        self.page.goto(self.address)
        self.page.wait_for_selector("html[data-ready=yes]")


def wait_for_scores(page: Page, wanted: list[float]) -> None:
    """Wait until the column of scores reads so; fails after SLOW_MS."""
    page.wait_for_function(
        """wanted => {
            const cells = [...document.querySelectorAll("#board tbody tr td:nth-child(5)")];
            const shown = cells.map(cell => Number(cell.dataset.order));
            return shown.length === wanted.length && shown.every((score, place) => score === wanted[place]);
        }""",
        arg=wanted,
    )


def shown_scores(report: Report, page: Page) -> list[float]:
    """The scores of all pairs, the page made to show all of them."""
    page.wait_for_selector("#panel-score canvas")
    page.select_option(".dt-length select", "-1")
    return sorted(report.board["score"])


def test_the_page_opens_offline_and_asks_for_nothing(opened: Visit, page: Page):
    page.wait_for_selector("#panel-score canvas")
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("file:", "blob:", "data:", "about:"))] == []


def test_its_numbers_are_the_leaderboards(page: Page, report: Report):
    page.select_option(".dt-length select", "-1")
    rows = page.eval_on_selector_all(
        "#board tbody tr",
        "rows => rows.map(row => [row.querySelector('a').innerText].concat("
        "[...row.querySelectorAll('td.n')].map(cell => [cell.dataset.order, cell.innerText])))",
    )
    assert len(rows) == len(report.board) == 12
    for row, known in zip(rows, report.board.to_dict("records"), strict=True):
        assert row[0] == f"{known['strong']}\nover {known['weak']}"
        names = ["rank", "gap_points", "score", "chat", "chat_hard", "safety", "reasoning", "n_examples"]
        for (order, text), name in zip(row[1:9], names, strict=True):
            assert float(order) == known[name]
            scale = 100 if name in names[2:7] else 1
            digits = 1 if name in names[1:7] else 0
            assert text.split()[0] == f"{scale * known[name]:.{digits}f}"
        assert (
            row[3][1]
            .split("\n")[-1]
            .strip()
            .endswith(f"[{100 * known['score_low']:.1f}, {100 * known['score_high']:.1f}]")
        )


def test_a_click_on_a_heading_sorts(page: Page, report: Report):
    rising = shown_scores(report, page)
    page.click("#board thead th:nth-child(5)")
    wait_for_scores(page, rising[::-1])
    page.click("#board thead th:nth-child(5)")
    wait_for_scores(page, rising)


def test_words_in_the_filter_leave_the_pairs_that_hold_them(page: Page, report: Report):
    strong = report.board["strong"].iloc[3]
    page.fill(".dt-search input", strong)
    wanted = ((report.board["strong"] == strong) | (report.board["weak"] == strong)).sum()
    assert 0 < wanted < len(report.board)
    expect(page.locator("#board tbody tr")).to_have_count(int(wanted))


def test_the_family_filter_leaves_one_family(page: Page, report: Report):
    page.select_option("#family", "gamma")
    families = ["gamma"] * (report.board["family"] == "gamma").sum()
    expect(page.locator("#board tbody tr td:nth-child(3)")).to_have_text(families)
    page.select_option("#family", "")
    expect(page.locator("#board tbody tr")).to_have_count(len(report.board))


def test_pointing_at_a_mark_names_the_pair(page: Page, report: Report):
    canvas = page.locator("#panel-score .figure").first
    canvas.locator("canvas").first.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # Where the plot put the first pair, as BokehJS says.
    x, y = page.evaluate(
        """([gap, score]) => {
            const view = [...Bokeh.index].find((view) => view.model.renderers?.some((r) => r.name === "pairs"));
            return [view.frame.x_scale.compute(gap), view.frame.y_scale.compute(score)];
        }""",
        [float(report.board["gap_points"].iloc[0]), float(report.board["score"].iloc[0])],
    )
    page.mouse.move(box["x"] + x - 3, box["y"] + y)
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.get_by_text(report.board["pair_id"].iloc[0], exact=True).last.wait_for(state="visible")


def test_a_pair_opens_its_subsets(page: Page, report: Report):
    assert page.locator("article:visible").count() == 0
    page.click("#board tbody tr:nth-child(2) a")
    article = page.locator("article:visible")
    article.wait_for()
    known = report.accuracy[report.accuracy["pair_id"] == report.board["pair_id"].iloc[1]]
    shown = dict(
        zip(
            article.locator("tbody th").all_inner_texts(),
            article.locator("tbody tr td:nth-child(2)").all_inner_texts(),
            strict=True,
        )
    )
    subsets = known[known["level"] == "subset"].set_index("name")["accuracy"]
    assert len(shown) == 1 + 4 + 23
    assert {name: float(shown[name].split()[0]) for name in subsets.index} == pytest.approx(
        (100 * subsets).to_dict(), abs=0.051
    )


def test_a_section_has_its_own_figures(page: Page):
    page.click("label[for=tab-safety]")
    page.wait_for_selector("#panel-safety canvas")
    expect(page.locator(".panel:visible")).to_have_count(1)
    assert page.locator("#panel-safety .figure").count() == 3


def test_the_largest_errors_open_with_shaded_responses(page: Page):
    page.click("#errors .case-pair summary >> nth=0")
    page.click("#errors .case-pair[open] .case summary >> nth=0")
    case = page.locator("#errors .case[open]").first
    assert "margin −" in case.locator("summary").inner_text()
    assert case.locator("i.f, i.F").count() > 0
    assert case.locator("i.a, i.A").count() > 0


def test_the_keyboard_reaches_filter_headings_and_pairs_and_opens_one(page: Page):
    reached = []
    page.focus("#family")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('.dt-search, th, td')?.className ?? ''"))
        if page.evaluate("document.activeElement.matches('#board td a')"):
            break
    assert any("dt-search" in place for place in reached)
    assert sum("dt-orderable" in place for place in reached) >= 10
    address = page.evaluate("document.activeElement.hash")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{address}:focus")
    assert page.locator(address).is_visible()


def test_a_heading_sorts_by_keyboard(page: Page, report: Report):
    rising = shown_scores(report, page)
    page.focus("#board thead th:nth-child(5) [tabindex], #board thead th:nth-child(5)[tabindex]")
    page.keyboard.press("Enter")
    wait_for_scores(page, rising[::-1])
    page.keyboard.press("Enter")
    wait_for_scores(page, rising)


@pytest.mark.parametrize("unfolded", [False, True])
def test_axe_finds_no_serious_fault(page: Page, unfolded: bool):
    page.wait_for_selector("#panel-score canvas")
    if unfolded:
        page.click("#board tbody tr:nth-child(1) a")
        page.evaluate("document.querySelectorAll('.case-pair, .case-pair:first-of-type > .case:nth-of-type(-n+2)')"
                      ".forEach(part => { part.open = true; })")  # fmt: skip
    # The policy of the page lets no foreign script in: axe comes through the debugger.
    found = Axe().run(page).response["violations"]
    assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found
            if fault["impact"] in ("serious", "critical")] == []  # fmt: skip


def test_rows_and_names_that_hold_scripts_are_text(browser: Browser, tmp_path: Path):
    hostile = made_report(hostile=True, n_models=8)
    # Without sections there is less to draw.
    rows = hostile.accuracy[hostile.accuracy["level"] != "section"]
    names = rows["name"].where(rows["level"] == "overall", HOSTILE[1] + rows["name"])
    hostile = hostile._replace(accuracy=rows.assign(name=names))
    visit = Visit(browser, hostile, tmp_path)
    visit.open()
    page = visit.page
    page.wait_for_selector("#panel-score canvas")
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    text = page.inner_text("#errors")
    assert "<script>window.broken = true; alert(1)</script>" in text
    assert "</script><img src=x onerror=" in text
    assert "<b onclick=alert(1)>family" in page.inner_text("#board")
    cells = page.locator("#panel-score .figure").last
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    for part in (0.7, 0.71):
        page.mouse.move(box["x"] + part * box["width"], box["y"] + 60)
    page.get_by_text(HOSTILE[1]).last.wait_for(state="visible")
    assert page.evaluate("window.broken") is None
    assert page.locator("#errors img, #errors svg, #errors script").count() == 0
    assert visit.dialogs == []
    page.context.close()


def test_a_script_that_got_in_would_not_run(opened: Visit, page: Page):
    opened.errors.clear()
    page.evaluate(
        """() => {
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.broken = true'>");
            const script = document.createElement("script");
            script.textContent = "window.broken = true";
            document.body.append(script);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.broken") is None
    opened.errors.clear()
