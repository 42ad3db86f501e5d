"""The page in a real browser that hears a file in place of a microphone."""

import re
import shutil

import pytest
import soundfile

from tests.harness.serving import serving

pytest.importorskip("playwright", reason="install the browser extra")
pytest.importorskip("axe_playwright_python", reason="install the browser extra")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.cluster,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
)
# Pixels of the raster that are not of the page's own colour.
NUM_SPIKES = """() => {
  const canvas = document.querySelector("canvas");
  const pixels = new Uint32Array(
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return pixels.filter(pixel => pixel !== pixels[0]).length;
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory, speech):
    from playwright.sync_api import sync_playwright

    heard = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(heard, speech(20.0, 48000), 48000)
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={heard}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def figure(page, name):
    return float(page.locator(f"#{name}").text_content().rstrip(" M%"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_what_is_said_is_shown_as_it_is_said(server, browser, scheme, width, tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda opened: asked.append(opened.url))
    page.goto(server.url)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#text")).to_have_text(re.compile(".{20}"), timeout=60_000)
    first = page.locator("#text").text_content()
    expect(page.locator("#heard")).to_have_text(re.compile(r"^(8|9|\d\d)\."), timeout=60_000)
    assert len(page.locator("#text").text_content()) > len(first)
    assert set(page.locator("#text").text_content()) <= set(" ABCDEFG")
    assert figure(page, "factor") > 0
    assert figure(page, "rate") > 0.1
    assert 0 < figure(page, "density") < 100
    assert page.locator("#sites").inner_text().split("\n") == [
        "encoder: 13",
        "layer 1: 200",
        "layer 2: 200",
    ]
    assert page.evaluate(NUM_SPIKES) > 5000
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("The microphone is off; the figures are of all").wait_for()
    assert said == []
    own = server.url.removeprefix("http:")
    assert {re.sub("^(http|ws):", "", url) for url in asked if "blob:" not in url} == {
        own,
        f"{own}stream",
    }
    page.close()


def test_a_page_that_is_refused_says_why(engine_file, browser, tmp_path):
    """The token comes from the fragment of the address that the server prints."""
    with serving(engine_file, "0.0.0.0") as server:
        for address, expected in (
            (server.url, "the token is missing or wrong"),
            (server.address, "Listening."),
        ):
            page = browser.new_page()
            page.goto(address.replace("0.0.0.0", "127.0.0.1"))
            page.get_by_role("button", name="Start").click()
            page.get_by_text(expected).wait_for()
            page.close()
