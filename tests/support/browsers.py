"""Real browsers for tests: the three engines, and what one does with a tab in any of them.

Chromium is driven by Playwright, Firefox and WebKit by drivers of our own, whose tabs have
Playwright's names. So a test is written once, as for Playwright, with `expect` and `open_tab` from
here. It may use what `Tab` and `Locator` have; what only Playwright has is for tests that are
marked as not for the others.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import playwright.sync_api

from tests.support import chromium, firefox, webkit
from tests.support.real_process import Server
from tests.support.webdriver import SECONDS, Locator, LocatorAssertions, Tab, TabAssertions

PICTURES = Path(__file__).parent.parent.parent / "build" / "screenshots"

# The page has loaded the script, and that has taken its tag away.
_IS_FOLLOWING = """
performance.getEntriesByType("resource").some(({ name }) => name.endsWith("/-/follow.js")) &&
!Document.prototype.querySelector.call(document, "script[data-rpyserve]")
"""


@dataclass(frozen=True)
class Engine:
    """How to find a browser, and to start it.

    Attributes:
        title: its name.
        installed: its path; None if something is missing.
        start: a browser, for as long as it is needed.
        lacking: what to say if it is missing.
    """

    title: str
    installed: Callable[[], str | None]
    start: Callable[[], AbstractContextManager[Any]]
    lacking: str


ENGINES = {
    "chromium": Engine(
        "Chromium", chromium.installed, chromium.chromium, "there is no Chromium or Chrome here"
    ),
    "firefox": Engine("Firefox", firefox.installed, firefox.firefox, "there is no Firefox here"),
    "webkit": Engine(
        "WebKit",
        webkit.installed,
        webkit.webkit,
        "there is no WebKitGTK with a driver, or no Xvfb, here",
    ),
}


def save(root: Path, name: str, content: str | bytes) -> None:
    """Save a file of the site at *root*."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def page_of(text: str) -> str:
    """A script that shows *text*."""
    return f"def resource(request):\n    return {text!r}\n"


def expect(what: Any) -> Any:
    """Playwright's ``expect``, for the tabs of all engines."""
    if isinstance(what, Locator):
        return LocatorAssertions(what)
    if isinstance(what, Tab):
        return TabAssertions(what)
    return playwright.sync_api.expect(what)


def new_tab(context: Any) -> Any:
    page = context.new_page()
    if not isinstance(page, Tab):
        page.set_default_timeout(SECONDS * 1000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
    return page


def open_tab(context: Any, url: str, credentials: str = "") -> Any:
    """A new tab with the page at *url*, once it follows. It may log what it likes, but no errors.

    Args:
        credentials: those of basic authentication, ``name:password``.
    """
    wait_for_quiet(url, credentials)
    page = new_tab(context)
    page.goto(url)
    wait_until_following(page)
    page.evaluate("document.loadedOnce = true")
    return page


def wait_until_following(page: Any) -> None:
    """Wait until the script in the page has begun: from then on the page misses no change."""
    page.wait_for_function(_IS_FOLLOWING)


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


def engine_of(page: Any) -> str:
    """Its key in `ENGINES`."""
    return page.engine if isinstance(page, Tab) else "chromium"


def was_loaded_again(page: Any) -> bool:
    return not page.evaluate("document.loadedOnce === true")


def picture(page: Any, name: str) -> None:
    """Keep what *page* shows, for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}-{engine_of(page)}.png")


def asked(server: Server, line: str) -> int:
    """How often the access log has *line*, such as ``GET /counter ``."""
    return server.output().count(line)
