"""From an edit on disk to the repaint in headless Chromium, beside Vite's dev server in the same
run.

``python -m benchmarks.livereload.edit_to_repaint``. Measured in the page: a loop of animation
frames looks for the new text or colour, and notes the time after the frame that shows it. Edits of
all kinds take turns, at moments that have nothing to do with frames. Needs Node's npm; Vite is
installed into build/vite. A quiet machine tells more than a busy one.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import free_port, is_listening, serving

VITE = ROOT / "build" / "vite"
PARAGRAPH = "<p>Some text that stays as it is, <a href='#'>with a link</a>.</p>\n"
FILLER = PARAGRAPH * 60
STYLE = "h1 {{ --n: {}; color: navy }}"
LINK = '<link rel="stylesheet" href="style.css">'
OWN_SCRIPT = "<script>window.own = 1</script>"
VITE_MODULE = '<script type="module" src="/main.js"></script>'

PAGE, VITE_PAGE = "rpyserve, page (morphed)", "Vite, page (loaded again)"
STYLESHEET, VITE_STYLESHEET = "rpyserve, stylesheet", "Vite, stylesheet"
PAGE_WITH_SCRIPTS = "rpyserve, page with scripts"

WATCH = """
(() => {
  const wanted = () => Number(sessionStorage.wanted ?? -1);
  const shown = () => {
    const heading = document.querySelector("h1");
    if (!heading) return [];
    return [Number(heading.textContent), Number(getComputedStyle(heading).getPropertyValue("--n"))];
  };
  const frame = () => {
    if (shown().includes(wanted())) {
      const number = sessionStorage.wanted;
      delete sessionStorage.wanted;
      const { port1, port2 } = new MessageChannel();
      const now = () => performance.timeOrigin + performance.now();
      port1.onmessage = () => console.log(`seen ${number} ${now()}`);
      port2.postMessage(null); // after this frame
      return;
    }
    requestAnimationFrame(frame);
  };
  window.want = (number) => { sessionStorage.wanted = number; requestAnimationFrame(frame) };
  if ("wanted" in sessionStorage) requestAnimationFrame(frame);
})();
"""
"""Runs in the page: ``want(number)`` logs the time at which the number is shown."""


@dataclass
class Edit:
    """A kind of edit.

    Attributes:
        name: what the table calls it.
        page: the page that shows it.
        write: makes the page show a number.
        times: milliseconds of each edit so far.
    """

    name: str
    page: Page
    write: Callable[[int], object]
    times: list[float] = field(default_factory=list)

    def measure(self, number: int) -> None:
        self.page.bring_to_front()
        self.page.evaluate("(number) => want(number)", number)
        time.sleep(random.uniform(0.15, 0.3))
        shown = f"seen {number} "
        with self.page.expect_console_message(
            lambda message: message.text.startswith(shown)
        ) as message:
            began = time.time()
            self.write(number)
        self.times.append(float(message.value.text.split()[2]) - began * 1000)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def ninth_decile(self) -> float:
        return statistics.quantiles(self.times, n=10)[-1]


# The sites


def document(number: int, head: str) -> str:
    return (
        f"<!DOCTYPE html>\n<html><head>{head}</head>\n"
        f"<body><h1>{number}</h1>\n{FILLER}</body></html>\n"
    )


def write_script(path: Path, number: int, head: str = "") -> None:
    """A script of rpyserve that returns a document."""
    text = document(number, LINK + head)
    path.write_text(f"cache()\ndef resource(request):\n    return {text!r}\n")


def write_vite_page(site: Path, number: int) -> None:
    (site / "index.html").write_text(document(number, VITE_MODULE))


def write_stylesheet(site: Path, number: int) -> None:
    (site / "style.css").write_text(STYLE.format(number))


@contextmanager
def serving_by_vite(site: Path) -> Iterator[str]:
    """Vite's dev server: its URL."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        sys.exit("Vite needs Node and npm; without them: --no-vite")
    binary = VITE / "node_modules" / "vite" / "bin" / "vite.js"
    if not binary.exists():
        VITE.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--prefix", str(VITE), "--no-fund", "--no-audit", "vite"]
        subprocess.run(install, check=True)
    port = free_port()
    command = [node, str(binary), str(site), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--strictPort"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert is_listening(port), "Vite does not listen"
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


# The measure


def open_page(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(url)
    page.wait_for_timeout(1500)  # until it listens for changes
    return page


def own_edits(context: BrowserContext, directory: Path, stack: ExitStack) -> list[Edit]:
    """Edits of a site that rpyserve serves."""
    site = directory / "rpyserve"
    site.mkdir()
    plain, programmed = site / "plain.rpy", site / "programmed.rpy"
    write_stylesheet(site, 0)
    write_script(plain, 0)
    write_script(programmed, 0, OWN_SCRIPT)
    server = stack.enter_context(serving(site, directory / "console", "--quiet"))
    page = open_page(context, server.url + "plain")
    with_scripts = open_page(context, server.url + "programmed")
    return [
        Edit(PAGE, page, lambda number: write_script(plain, number)),
        Edit(STYLESHEET, page, lambda number: write_stylesheet(site, number)),
        Edit(
            PAGE_WITH_SCRIPTS,
            with_scripts,
            lambda number: write_script(programmed, number, OWN_SCRIPT),
        ),
    ]


def vite_edits(context: BrowserContext, directory: Path, stack: ExitStack) -> list[Edit]:
    """Edits of a site that Vite serves."""
    site = directory / "vite"
    site.mkdir()
    write_stylesheet(site, 0)
    write_vite_page(site, 0)
    (site / "main.js").write_text('import "./style.css";\n')
    page = open_page(context, stack.enter_context(serving_by_vite(site)))
    return [
        Edit(VITE_PAGE, page, lambda number: write_vite_page(site, number)),
        Edit(VITE_STYLESHEET, page, lambda number: write_stylesheet(site, number)),
    ]


def measure(browser: Browser, edits: int, *, with_vite: bool) -> list[Edit]:
    """Measure so many edits of each kind, in random order."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = browser.new_context()
        stack.callback(context.close)
        kinds = own_edits(context, directory, stack)
        if with_vite:
            kinds += vite_edits(context, directory, stack)
        numbers = count(1)
        for edit in kinds:
            edit.measure(next(numbers))  # the first of each warms up
            edit.times.clear()
        for _ in range(edits):
            for edit in random.sample(kinds, len(kinds)):
                edit.measure(next(numbers))
    return kinds


def report(kinds: list[Edit], edits: int) -> None:
    print(f"{edits} edits of each kind, milliseconds from the edit on disk to the repaint")
    print(f"{'':34}{'median':>8}{'9 in 10':>9}")
    for edit in kinds:
        print(f"{edit.name:34}{edit.median:8.1f}{edit.ninth_decile:9.1f}")
    medians = {edit.name: edit.median for edit in kinds}
    pairs = {"page": (PAGE, VITE_PAGE), "stylesheet": (STYLESHEET, VITE_STYLESHEET)}
    for title, (own, vite) in pairs.items():
        if vite in medians:
            ratio = medians[own] / medians[vite]
            print(f"{title}: rpyserve takes {ratio:.2f} times what Vite takes")


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--edits", type=int, default=30, help="of each kind")
    parser.add_argument("--no-vite", action="store_true")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    parser.add_argument("--chromium", default=chromium)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium)
        try:
            kinds = measure(browser, options.edits, with_vite=not options.no_vite)
        finally:
            browser.close()
    report(kinds, options.edits)


if __name__ == "__main__":
    main()
