"""What goes wrong in a page's scripts is told on the console, in real browsers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.support.browsers import new_tab, save, wait_until_following
from tests.support.real_process import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

BROKEN = """\
<!DOCTYPE html>
<title>broken</title>
<script>
undefinedName.draw();
</script>
<script src="app.js"></script>
<p>x
"""


def test_errors_while_and_after_a_page_is_read(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "index.html", BROKEN)
    save(
        root, "app.js", "\n\nsetTimeout(() => { null.x }, 1);\nPromise.reject(new TypeError('no'));"
    )
    page = new_tab(context)
    page.goto(f"{server.url}/")
    wait_until_following(page)
    server.wait_for(
        r"In the browser, /: ReferenceError: .*undefinedName.*"
        r" \(the page as the browser got it, line \d+\)"
    )
    server.wait_for(r"In the browser, /: TypeError: .*null.* \(/app.js, line 3\)")
    server.wait_for(r"In the browser, /: unhandled rejection: TypeError: no \(/app.js, line 4\)")


def test_what_is_logged_stays_in_the_browser(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "index.html", "<script>console.log('hello'); throw Error('last')</script>")
    new_tab(context).goto(f"{server.url}/")
    server.wait_for("Error: last")
    assert "hello" not in server.output()


def test_what_is_logged_with_the_option(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    save(
        root,
        "index.html",
        "<script>const around = {}; around.itself = around;"
        "console.log('a', 1, {b: [2]}, null, undefined, around); console.error(Error('e'))</script>",
    )
    with serving(root, tmp_path, "--browser-log") as server:
        new_tab(context).goto(f"{server.url}/")
        server.wait_for(
            r'In the browser, /: console.log: a 1 \{"b":\[2\]\} null undefined \[object Object\]'
        )
        server.wait_for(r"In the browser, /: console.error: Error: e")
