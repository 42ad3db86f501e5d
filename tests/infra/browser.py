"""Headless Chromium through its own driver (the W3C WebDriver protocol), for looking at pages."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1400,1200",
)


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, driver_url: str, profile: Path) -> None:
        self._driver_url = driver_url
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}"]}
        options["binary"] = shutil.which("chromium")
        capabilities = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
        }
        self._session = self._call("POST", "/session", {"capabilities": capabilities})["sessionId"]

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            self._driver_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.loads(response.read())["value"]

    def _page(self, method: str, path: str, body: object = None) -> Any:
        return self._call(method, f"/session/{self._session}{path}", body)

    def open(self, address: str) -> None:
        self._page("POST", "/url", {"url": address})

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript, which says ``return``."""
        return self._page("POST", "/execute/sync", {"script": script, "args": []})

    @property
    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.run("return document.body ? document.body.innerText : ''"))

    def wait_for(self, *words: str, timeout_s: float = 90) -> str:
        """Wait until every word can be read; returns the page's text."""
        deadline = time.monotonic() + timeout_s
        while True:
            text = self.text
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            if time.monotonic() > deadline:
                raise AssertionError(f"{missing} not on the page, which reads: {text[:3000]}")
            time.sleep(0.2)

    def wait_for_value(self, value: str, timeout_s: float = 60) -> None:
        """Wait until a field of the page holds a value."""
        fields = "[...document.querySelectorAll('input, textarea')]"
        script = f"return {fields}.some(field => field.value == {json.dumps(value)})"
        deadline = time.monotonic() + timeout_s
        while not self.run(script):
            assert time.monotonic() < deadline, f"no field holds {value!r}"
            time.sleep(0.2)

    def click(self, words: str) -> None:
        """Click what reads just so, with a mouse: a script's click opens no tab."""
        path = f"//*[normalize-space(text())='{words}']"
        found = self._page("POST", "/elements", {"using": "xpath", "value": path})
        assert found, (
            f"nothing to click reads {words!r} on the page, which reads: {self.text[:3000]}"
        )
        (element,) = found[-1].values()
        self._page("POST", f"/element/{element}/click", {})

    def fill(self, field: str, text: str) -> None:
        """Type into the input below a label that begins with these words, as a person does."""
        path = (
            f"//label[starts-with(normalize-space(.), '{field}')]"
            "/following::*[self::input or self::textarea][1]"
        )
        found = self._page("POST", "/elements", {"using": "xpath", "value": path})
        assert found, f"no field {field!r} on the page, which reads: {self.text[:3000]}"
        (element,) = found[0].values()
        # Control and A choose what stands there: the driver's own clearing is unseen by the page.
        self._page("POST", f"/element/{element}/value", {"text": f"\ue009a\ue000{text}"})
        self.wait_for_value(text)

    @property
    def height(self) -> float:
        """Of the page, in windows."""
        inner = "document.querySelector('main') || document.documentElement"
        script = f"const m = {inner}; return Math.max(m.scrollHeight, document.body.scrollHeight)"
        return float(self.run(script)) / float(self.run("return window.innerHeight"))

    def console_errors(self) -> list[str]:
        """Errors that the page has logged since the last call."""
        entries = self._page("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._page("GET", "/screenshot")))

    def close(self) -> None:
        self._page("DELETE", "")


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, or a skip where none is installed."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no browser: apt install chromium chromium-driver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(driver, url)
        browser = Browser(url, folder / "profile")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _wait_until_it_answers(driver: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    while driver.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/status", timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise RuntimeError("chromedriver did not start")
