"""Firefox, driven by WebDriver BiDi: JSON over a WebSocket that the browser itself opens.

W3C, WebDriver BiDi, https://www.w3.org/TR/webdriver-bidi/.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from tests.support.webdriver import SECONDS, DriverError, NotAnExpressionError, PageError, Tab

_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "devtools.jsonview.enabled": False,
    "dom.disable_open_during_load": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


def installed() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


@contextmanager
def firefox() -> Iterator[Firefox]:
    from websockets.sync.client import connect

    binary = installed()
    assert binary is not None
    with ExitStack() as stack:
        profile = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="firefox", ignore_cleanup_errors=True)
        )
        lines = [
            f"user_pref({json.dumps(key)}, {json.dumps(value)});\n"
            for key, value in _PREFERENCES.items()
        ]
        Path(profile, "user.js").write_text("".join(lines), encoding="utf-8")
        command = [binary, "--headless", "--no-remote", "--profile", profile]
        process = stack.enter_context(
            subprocess.Popen(
                [*command, "--remote-debugging-port=0", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        )
        stack.callback(process.kill)
        assert process.stderr is not None
        address = _address_in(process.stderr)
        # What it says later goes nowhere, but must be read: the pipe would be full.
        stack.enter_context(_drained(process.stderr))
        connection = stack.enter_context(connect(f"{address}/session", max_size=None))
        browser = Firefox(connection)
        browser.send("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        browser.send("session.subscribe", events=["log.entryAdded"])
        try:
            yield browser
        finally:
            browser.send("browser.close")
            process.wait(SECONDS)


def _address_in(lines: IO[str]) -> str:
    for line in lines:
        if found := re.search(r"listening on (ws://\S+)", line):
            return found[1]
    raise DriverError("Firefox ended before it listened")


@contextmanager
def _drained(lines: IO[str]) -> Iterator[None]:
    from threading import Thread

    thread = Thread(target=lambda: [None for _ in lines], daemon=True)
    thread.start()
    yield
    thread.join(SECONDS)


class Firefox:
    """The browser: what it is told, and what it tells."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._number = 0
        self.tabs: dict[str, FirefoxTab] = {}

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come meanwhile reach their tabs."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=4 * SECONDS))
            if answer.get("id") == self._number:
                break
            self._on_event(answer)
        if answer["type"] == "error":
            raise DriverError(f"{answer['error']}: {answer['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _on_event(self, event: dict[str, Any]) -> None:
        if event.get("method") != "log.entryAdded":
            return
        entry = event["params"]
        tab = self.tabs.get(entry["source"].get("context", ""))
        if tab is None or (entry["type"], entry["level"]) != ("javascript", "error"):
            return
        if not entry["text"].startswith("Content-Security-Policy"):  # the browser's own favicon
            tab.errors.append(entry["text"])

    def new_context(self, base_url: str = "", viewport: object = None) -> FirefoxContext:
        """Each has the same *viewport*, whatever is asked for."""
        return FirefoxContext(self, base_url)


class FirefoxContext:
    """Tabs with cookies of their own."""

    def __init__(self, browser: Firefox, base_url: str) -> None:
        self.browser = browser
        self._base_url = base_url
        self._id = browser.send("browser.createUserContext")["userContext"]

    def new_page(self) -> FirefoxTab:
        # A window, because only the tab in front of a window counts as visible.
        made = self.browser.send("browsingContext.create", type="window", userContext=self._id)
        tab = FirefoxTab(self.browser, made["context"])
        tab.base_url = self._base_url
        self.browser.tabs[tab.id] = tab
        viewport = {"width": 800, "height": 600}
        self.browser.send("browsingContext.setViewport", context=tab.id, viewport=viewport)
        return tab

    def close(self) -> None:
        self.browser.send("browser.removeUserContext", userContext=self._id)


class FirefoxTab(Tab):
    engine = "firefox"

    def __init__(self, browser: Firefox, id: str) -> None:
        self._browser = browser
        self.id = id
        self.errors = []

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, context=self.id, **params)

    def navigate(self, url: str, wait_until: str) -> None:
        wait = "complete" if wait_until == "load" else "none"
        self._send("browsingContext.navigate", url=url, wait=wait)

    def reload(self) -> None:
        self._send("browsingContext.reload", wait="complete")

    def close(self) -> None:
        self._send("browsingContext.close")

    def call(self, function: str, argument: str) -> str:
        answer = self._browser.send(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[{"type": "string", "value": argument}],
            awaitPromise=True,
            target={"context": self.id},
        )
        if answer["type"] == "exception":
            text = answer["exceptionDetails"]["text"]
            raise (NotAnExpressionError if text.startswith("SyntaxError") else PageError)(text)
        return str(answer["result"]["value"])

    def perform(self, actions: list[dict[str, Any]]) -> None:
        self._send("input.performActions", actions=actions)

    def png(self) -> bytes:
        return base64.b64decode(self._send("browsingContext.captureScreenshot")["data"])
