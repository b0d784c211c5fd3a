"""WebKit, driven by WebDriver: WebKitWebDriver speaks JSON over HTTP, and opens windows of WebKitGTK
on a screen that nobody sees.

W3C, WebDriver, https://www.w3.org/TR/webdriver2/.
"""

from __future__ import annotations

import base64
import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.real_process import free_port
from tests.support.webdriver import (
    SECONDS,
    DriverError,
    NotAnExpressionError,
    PageError,
    Tab,
    wait_until,
)

_BROWSERS = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
_ENVIRONMENT = {
    "GDK_BACKEND": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "NO_AT_BRIDGE": "1",
    "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # root has no sandbox; our own pages only
}


def installed() -> str | None:
    """The path of the browser, where all that it needs is here too."""
    browsers = sorted(glob.glob(_BROWSERS))
    return (
        browsers[-1]
        if browsers and shutil.which("WebKitWebDriver") and shutil.which("Xvfb")
        else None
    )


@contextmanager
def webkit() -> Iterator[WebKit]:
    # It is not to begin anew whenever the last browser has closed: the next one would find no screen.
    screen = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-noreset"]
    with subprocess.Popen(
        screen, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        browser = WebKit(f":{process.stdout.readline().strip()}")
        try:
            yield browser
        finally:
            browser.close()
            process.terminate()


class WebKit:
    """All browsers on one screen: each context is one, since a driver has one session."""

    def __init__(self, display: str) -> None:
        self._environment = os.environ | _ENVIRONMENT | {"DISPLAY": display}
        self._contexts: list[WebKitContext] = []

    def new_context(self, base_url: str = "", viewport: object = None) -> WebKitContext:
        """Each has the same *viewport*, whatever is asked for."""
        context = WebKitContext(self._environment, base_url)
        self._contexts.append(context)
        return context

    def close(self) -> None:
        for context in self._contexts:
            context.close()


class WebKitContext:
    """A browser with a session of its own."""

    def __init__(self, environment: dict[str, str], base_url: str) -> None:
        self._base_url = base_url
        port = free_port()
        self._driver: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["WebKitWebDriver", f"--port={port}"], env=environment
        )
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=4 * SECONDS, trust_env=False
        )
        wait_until(lambda: self.send("GET", "/status"), lambda: "WebKitWebDriver does not listen")
        options = {"binary": installed(), "args": ["--automation"]}
        wanted = {"webkitgtk:browserOptions": options, "acceptInsecureCerts": True}
        made = self.send("POST", "/session", capabilities={"alwaysMatch": wanted})
        self._session = f"/session/{made['sessionId']}"
        self.free = [self.tell("GET", "/window")]  # the window that it began with
        self._window = self.free[0]

    def send(self, method: str, path: str, **params: Any) -> Any:
        try:
            body = params if method == "POST" else None
            value = self._client.request(method, path, json=body).json()["value"]
        except httpx.TransportError as error:
            raise DriverError(str(error)) from error
        if not isinstance(value, dict) or "error" not in value:
            return value
        # What goes wrong when the script runs comes back another way: see `WebKitTab.call`.
        kind = NotAnExpressionError if value["error"] == "javascript error" else DriverError
        raise kind(f"{value['error']}: {value['message']}")

    def tell(self, method: str, path: str, **params: Any) -> Any:
        return self.send(method, self._session + path, **params)

    def tell_window(self, window: str, method: str, path: str, **params: Any) -> Any:
        if window != self._window:
            self.tell("POST", "/window", handle=window)
            self._window = window
        return self.tell(method, path, **params)

    def new_page(self) -> WebKitTab:
        if self.free:
            window = self.free.pop()
        else:
            window = self.tell("POST", "/window/new", type="window")["handle"]
        tab = WebKitTab(self, window)
        tab.base_url = self._base_url
        self.tell_window(window, "POST", "/window/rect", x=0, y=0, width=800, height=700)
        return tab

    def close(self) -> None:
        if self._driver is None:
            return
        try:
            self.tell("DELETE", "")
        finally:
            self._client.close()
            self._driver.terminate()
            self._driver.wait(SECONDS)
            self._driver = None


class WebKitTab(Tab):
    engine = "webkit"

    def __init__(self, context: WebKitContext, window: str) -> None:
        self._context = context
        self._window = window
        self.errors = []

    def _tell(self, method: str, path: str, **params: Any) -> Any:
        return self._context.tell_window(self._window, method, path, **params)

    def navigate(self, url: str, wait_until: str) -> None:
        assert wait_until == "load", "the driver waits for the end of a page"
        self._tell("POST", "/url", url=url)

    def reload(self) -> None:
        self._tell("POST", "/refresh")

    def close(self) -> None:
        self.goto("about:blank")  # the last window would take the browser with it
        self._context.free.append(self._window)

    def call(self, function: str, argument: str) -> str:
        script = (
            "const [json, done] = arguments;"
            f"({function})(json).then((it) => done([it]), (error) => done(String(error)))"
        )
        answer = self._tell("POST", "/execute/async", script=script, args=[argument])
        if isinstance(answer, str):
            raise PageError(answer)
        return str(answer[0])

    def perform(self, actions: list[dict[str, Any]]) -> None:
        self._tell("POST", "/actions", actions=actions)

    def png(self) -> bytes:
        return base64.b64decode(self._tell("GET", "/screenshot"))
