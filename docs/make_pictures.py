"""Makes the pictures of the README: what a newcomer sees, in a real Chromium, with the real
console's output.

    .venv/bin/python -m pip install pillow && .venv/bin/python docs/make_pictures.py

Runs the tour, visits it, edits a script, breaks it, and mends it. Writes docs/pictures/*.png. On
Linux and macOS only: the console is a real terminal, so that its colours are in the picture.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
HOME = Path(tempfile.gettempdir()) / "try"
"""Where the site is. It is in the pictures, so it is no temporary name."""

CONSOLE = """<!DOCTYPE html><meta charset="utf-8"><style>
body { margin: 0; padding: 18px 22px; background: #15191d; color: #e4e8ec;
  width: max-content; min-width: 800px }
pre { margin: 0; font: 14px/1.5 "DejaVu Sans Mono", ui-monospace, monospace }
.c1 { font-weight: bold } .c2 { opacity: .7 } .c31 { color: #ff8a80 } .c32 { color: #9be29b }
.c33 { color: #ffd479 }
.c34 { color: #7ab8ff } .c35 { color: #e2a6ff } .c36 { color: #7fdfe0 }
</style><pre>"""


class Terminal:
    """The command in a terminal of its own; *text* is what it has shown."""

    def __init__(self, command: list[str]) -> None:
        ours, its = pty.openpty()
        environment = {
            key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")
        }
        environment |= {"TERM": "xterm-256color", "COLUMNS": "120"}
        self.process = subprocess.Popen(command, stdout=its, stderr=its, cwd=HOME, env=environment)
        os.close(its)
        self.text = ""
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):  # its end, on Linux
            while data := os.read(descriptor, 65536):
                self.text += data.decode()
        os.close(descriptor)

    def wait_for(self, pattern: str) -> re.Match[str]:
        for _ in range(500):
            if found := re.search(pattern, self.text):
                return found
            time.sleep(0.02)
        raise SystemExit(f"no {pattern!r} in:\n{self.text}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(5)


def as_html(text: str) -> str:
    """What a terminal makes of *text*: its colours as classes."""
    parts = re.split(r"\x1b\[([\d;]*)m", text.replace("\r\n", "\n"))
    shown = [html.escape(parts[0])]
    for codes, words in zip(parts[1::2], parts[2::2], strict=True):
        classes = " ".join(f"c{code}" for code in codes.split(";"))
        shown.append(f'<span class="{classes}">{html.escape(words)}</span>')
    return "".join(shown)


@contextlib.contextmanager
def site() -> Iterator[Path]:
    try:
        HOME.mkdir()
    except FileExistsError:
        sys.exit(f"{HOME} is there already, and would be in the way")
    try:
        subprocess.run(
            [sys.executable, "-m", "rpyserve", "--example", str(HOME / "site")], check=True
        )
        yield HOME / "site"
    finally:
        shutil.rmtree(HOME)


def save(shown: Page | Locator, name: str) -> None:
    """Keep what *shown* looks like: in 128 colours, a third of the size."""
    PICTURES.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(shown.screenshot(animations="disabled", caret="hide")))
    few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(PICTURES / f"{name}.png", optimize=True)


def visit(page: Page, terminal: Terminal, counter: Path) -> None:
    """A newcomer's first minutes."""
    url = terminal.wait_for(r"http://[\w.:]+/")[0]
    page.goto(url)
    save(page, "tour")
    for visits in (1, 2):
        page.goto(url + "counter")
        expect(page.locator("body")).to_contain_text(f"Visit #{visits} for you!")
    page.wait_for_timeout(300)
    good = counter.read_text(encoding="utf-8")
    counter.write_text(good.replace("Visit #{} for you!", "Welcome, visit #{}!"), encoding="utf-8")
    expect(page.locator("body")).to_contain_text("Welcome, visit #3!")
    page.wait_for_timeout(1100)
    counter.write_text(
        good.replace("!</p>', counter.value", "!</p>', countr.value"), encoding="utf-8"
    )
    expect(page.locator("body")).to_contain_text("NameError")
    save(page, "error")
    page.wait_for_timeout(1100)
    counter.write_text(good, encoding="utf-8")
    expect(page.locator("body")).to_contain_text("Visit #5 for you!")
    page.wait_for_timeout(300)
    look(page, url)


def look(page: Page, url: str) -> None:
    """What the inspector says of these minutes."""
    page.goto(url + "-/")
    expect(page.locator("#live")).to_contain_text("Live")
    save(page, "inspector")
    page.click("[aria-label='Live sessions'] tbody tr:has(.tag) a")
    expect(page.locator("#live")).to_contain_text("Live")
    expect(page.locator("main")).to_contain_text("your own session")
    save(page, "inspector-session")
    page.goto("about:blank")  # the policy of that page would be in the way of what comes next


def main() -> None:
    with site() as root, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome")
        )
        page = browser.new_page(viewport={"width": 900, "height": 620}, color_scheme="light")
        terminal = Terminal([sys.executable, "-m", "rpyserve", "./site", "--session-timeout", "5"])
        try:
            visit(page, terminal, root / "counter.rpy")
        finally:
            terminal.close()
        shown = "$ rpyserve ./site --session-timeout 5\n" + terminal.text.rstrip()
        page.set_content(CONSOLE + as_html(shown) + "</pre>")
        save(page.locator("body"), "console")
        browser.close()


if __name__ == "__main__":
    main()
