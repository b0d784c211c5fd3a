"""A real Chromium for tests: where it is, and a tab that tells what went wrong in it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.real_process import Server

PICTURES = Path(__file__).parent.parent.parent / "build" / "screenshots"
SECONDS = 15
"""How long a page has to show an edit before the test gives up: far more than it needs on a busy
machine.
"""

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    os.path.expandvars(r"%ProgramFiles%\Google\Chrome\Application\chrome.exe"),
    os.path.expandvars(r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe"),
)


def installed() -> str | None:
    """The path of a Chromium, or of one of its kin."""
    found = (shutil.which(name) for name in _NAMES)
    return next(filter(None, found), None) or next(filter(os.path.exists, _PLACES), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=installed(),
            args=["--disable-gpu"],
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            browser.close()


def open_tab(context: BrowserContext, url: str, credentials: str = "") -> Page:
    """A new tab with the page at *url*, once it listens for changes. It may log what it likes, but
    no errors. *credentials* are those of basic authentication, ``name:password``.
    """
    wait_for_quiet(url, credentials)
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    with page.expect_response(lambda response: "/-/events" in response.url):
        page.goto(url)
    page.evaluate("document.loadedOnce = true")
    return page


def wait_for_quiet(url: str, credentials: str = "") -> None:
    """Wait until all that was saved has been told: a page that is loaded before that looks once
    more for it.
    """
    before = None
    while (now := _number_of_changes(url, credentials)) != before:
        before = now
        time.sleep(0.25)


def _number_of_changes(url: str, credentials: str) -> str:
    anyone = ssl.create_default_context()  # a certificate made for the run is known to nobody
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    request = Request(urljoin(url, "/-/events?once"))
    if credentials:
        encoded = base64.b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    with urlopen(request, timeout=SECONDS, context=anyone) as response:
        return str(json.load(response)["cursor"])


def was_loaded_again(page: Page) -> bool:
    return not page.evaluate("document.loadedOnce === true")


def picture(page: Page, name: str) -> None:
    """Keep what *page* shows, for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def asked(server: Server, line: str) -> int:
    """How often the access log has *line*, such as ``GET /counter ``."""
    return server.output().count(line)
