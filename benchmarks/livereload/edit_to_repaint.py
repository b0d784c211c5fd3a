"""From an edit on disk to the repaint in Chromium, Firefox and WebKit, without a window to be seen,
beside Vite's dev server in the same run.

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
from typing import Any

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import free_port, is_listening, serving
from tests.support.browsers import ENGINES, new_tab

VITE = ROOT / "build" / "vite"
# Seconds after an edit in which nobody asks the page, so that it is not disturbed.
QUIET = 0.3
PARAGRAPH = "<p>Some text that stays as it is, <a href='#'>with a link</a>.</p>\n"
FILLER = PARAGRAPH * 60
STYLE = "h1 {{ --n: {}; color: navy }}"
LINK = '<link rel="stylesheet" href="style.css">'

PAGE, VITE_PAGE = "rpyserve, page (morphed)", "Vite, page (loaded again)"
STYLESHEET, VITE_STYLESHEET = "rpyserve, stylesheet", "Vite, stylesheet"
PAGE_WITH_SCRIPTS = "rpyserve, page with scripts"

WATCH = """
(() => {
  const wanted = () => Number(sessionStorage.wanted ?? -1); // outlives a reload
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
      port1.onmessage = () => (sessionStorage.seen = `${number} ${now()}`);
      port2.postMessage(null); // after this frame
      return;
    }
    requestAnimationFrame(frame);
  };
  window.want = (number) => { sessionStorage.wanted = number; requestAnimationFrame(frame) };
  if ("wanted" in sessionStorage) requestAnimationFrame(frame);
})();
"""
"""Runs in the page: ``want(number)`` notes the time at which the number is shown."""
OWN_SCRIPT = f"<script>{WATCH}</script>"
VITE_SCRIPTS = f'{OWN_SCRIPT}<script type="module" src="/main.js"></script>'


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
    page: Any
    write: Callable[[int], object]
    times: list[float] = field(default_factory=list)

    def measure(self, number: int) -> None:
        self.page.bring_to_front()
        self.page.evaluate("(number) => want(number)", number)
        time.sleep(random.uniform(0.15, 0.3))
        began = time.time()
        self.write(number)
        time.sleep(QUIET)
        seen = "sessionStorage.seen?.split(' ') ?? []"
        self.page.wait_for_function(f"(number) => ({seen})[0] === String(number)", arg=number)
        self.times.append(float(self.page.evaluate(f"({seen})[1]")) - began * 1000)

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
    (site / "index.html").write_text(document(number, VITE_SCRIPTS))


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


def open_page(context: Any, url: str) -> Any:
    page = new_tab(context)
    page.goto(url)
    page.wait_for_timeout(1500)  # until it listens for changes
    if not page.evaluate("'want' in window"):
        page.evaluate(WATCH)  # it has no scripts of its own, and is never loaded again
    return page


def own_edits(context: Any, directory: Path, stack: ExitStack) -> list[Edit]:
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


def vite_edits(context: Any, directory: Path, stack: ExitStack) -> list[Edit]:
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


def measure(browser: Any, edits: int, *, with_vite: bool) -> list[Edit]:
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


def report(title: str, kinds: list[Edit]) -> None:
    print(f"{title:34}{'median':>8}{'9 in 10':>9}")
    for edit in kinds:
        print(f"{edit.name:34}{edit.median:8.1f}{edit.ninth_decile:9.1f}")
    medians = {edit.name: edit.median for edit in kinds}
    pairs = {"page": (PAGE, VITE_PAGE), "stylesheet": (STYLESHEET, VITE_STYLESHEET)}
    for what, (own, vite) in pairs.items():
        if vite in medians:
            ratio = medians[own] / medians[vite]
            print(f"{what}: rpyserve takes {ratio:.2f} times what Vite takes")


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--edits", type=int, default=30, help="of each kind")
    parser.add_argument("--no-vite", action="store_true")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    options = parser.parse_args()
    print(f"{options.edits} edits of each kind, milliseconds from the edit on disk to the repaint")
    for name in options.engines:
        engine = ENGINES[name]
        if engine.installed() is None:
            print(f"{name}: {engine.lacking}")
            continue
        with engine.start() as browser:
            report(engine.title, measure(browser, options.edits, with_vite=not options.no_vite))


if __name__ == "__main__":
    main()
