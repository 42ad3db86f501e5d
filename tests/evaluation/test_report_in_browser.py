"""The report in a real browser; skips without Chromium and the ``browser`` extra."""

import shutil

import pytest

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from featurize.stage import Location

pytest.importorskip("playwright", reason="install the browser extra")
pytest.importorskip("axe_playwright_python", reason="install the browser extra")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]
# What a browser would otherwise try to reach outside.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def report(write_features, write_model, tmp_path):
    models = [write_model(kind) for kind in ("v2", "v1", "gru")]
    config = EvaluateConfig(num_bootstrap=100)
    runs = Location.of(tmp_path / "runs")
    return evaluate(config, models, write_features(), runs).location.child("report.html").uri


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_opens_from_disk_clean_and_accessible(browser, report, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{report}")
    assert page.locator("figure svg").count() >= 6
    assert said == []
    # Images inside the page are read from it, and nothing else is asked for.
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{report}"]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_the_plots_change_colours_with_the_page(browser, report):
    fills = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(f"file://{report}")
        text = page.locator("figure svg text").first
        fills[scheme] = text.evaluate("node => getComputedStyle(node).fill")
        page.close()
    assert fills == {"light": "rgb(28, 32, 36)", "dark": "rgb(230, 233, 236)"}


# Regions whose content is wider than they are, and whether a hint stands visibly before them.
CUT_OFF = """
[...document.querySelectorAll("[role=region]")]
  .filter(region => region.scrollWidth > region.clientWidth + 1)
  .map(region => [region.getAttribute("aria-label"),
                  getComputedStyle(region).overflowX === "auto",
                  region.previousElementSibling?.checkVisibility() &&
                  region.previousElementSibling.className === "hint"])
"""
# Height of the smallest label of a plot, in pixels of the screen.
SMALLEST_LABEL = """
Math.min(...[...document.querySelectorAll("figure svg")].flatMap(svg =>
  [...svg.querySelectorAll("text")].map(text => parseFloat(getComputedStyle(text).fontSize) *
    svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)))
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_labels_can_be_read(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(f"file://{report}")
    cut = page.evaluate(CUT_OFF)
    assert all(scrolls and (is_told or width == 1280) for _, scrolls, is_told in cut), cut
    assert not [name for name, _, _ in cut if "Errors and cost" in name or width == 1280]
    assert page.evaluate(SMALLEST_LABEL) > 7.5
    first = page.locator("section.first").bounding_box()
    assert first["y"] < 420  # sentence, numbers and plot are what one sees first
    page.close()


def test_wide_tables_scroll_by_keyboard_and_the_page_does_not(browser, report):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"file://{report}")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    page.locator("div.scroll").first.focus()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    page.close()
