"""From an edit on disk to the repaint in a real headless Chromium, beside Vite's dev server in the same run.

Measured in the page: a loop of animation frames looks for the new text or colour, and tells the time after the frame
that shows it. Edits of all kinds take turns, at moments that have nothing to do with frames. Needs Node's npm; Vite is
installed into build/vite. A quiet machine tells more than a busy one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
VITE = ROOT / "build" / "vite"
FILLING = "<p>Some text that stays as it is, <a href='#'>with a link</a>.</p>\n" * 60

LOOK = """
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
      port1.onmessage = () => console.log(`seen ${number} ${performance.timeOrigin + performance.now()}`);
      port2.postMessage(null); // after this frame
      return;
    }
    requestAnimationFrame(frame);
  };
  window.want = (number) => { sessionStorage.wanted = number; requestAnimationFrame(frame) };
  if ("wanted" in sessionStorage) requestAnimationFrame(frame);
})();
"""


@dataclass
class Kind:
    """A kind of edit: *write* makes the page in *tab* show a number."""

    name: str
    tab: Page
    write: Callable[[int], object]
    times: list[float] = field(default_factory=list)

    def measure(self, number: int) -> None:
        self.tab.bring_to_front()
        self.tab.evaluate("(number) => want(number)", number)
        time.sleep(random.uniform(0.15, 0.3))
        with self.tab.expect_console_message(
            lambda message: message.text.startswith(f"seen {number} ")
        ) as told:
            began = time.time()
            self.write(number)
        self.times.append(float(told.value.text.split()[2]) - began * 1000)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def slow(self) -> float:
        return statistics.quantiles(self.times, n=10)[-1]


def sources(site: Path, *, vite: bool) -> None:
    css = "h1 { --n: 0; color: navy }"
    (site / "style.css").write_text(css)
    if vite:
        (site / "main.js").write_text('import "./style.css";\n')
        page(site, 0, '<script type="module" src="/main.js"></script>')
        return
    script(site / "plain.rpy", 0, "")
    script(site / "programmed.rpy", 0, "<script>window.own = 1</script>")


def document(number: int, head: str) -> str:
    return f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body><h1>{number}</h1>\n{FILLING}</body></html>\n"


def page(site: Path, number: int, head: str) -> None:
    (site / "index.html").write_text(document(number, head))


def script(path: Path, number: int, head: str) -> None:
    text = document(number, '<link rel="stylesheet" href="style.css">' + head)
    path.write_text(f"cache()\ndef resource(request):\n    return {text!r}\n")


def stylesheet(site: Path, number: int) -> None:
    (site / "style.css").write_text(f"h1 {{ --n: {number}; color: navy }}")


@contextlib.contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, **options) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.terminate()


@contextlib.contextmanager
def rpyserve(site: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", "0", "--quiet"]
    with process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()


@contextlib.contextmanager
def vite(site: Path) -> Iterator[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        sys.exit("Vite needs Node and npm; without them: --no-vite")
    binary = VITE / "node_modules" / "vite" / "bin" / "vite.js"
    if not binary.exists():
        VITE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [npm, "install", "--prefix", str(VITE), "--no-fund", "--no-audit", "vite"], check=True
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [
        node,
        str(binary),
        str(site),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--strictPort",
    ]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            time.sleep(0.1)
        yield url


def tab(context: BrowserContext, url: str) -> Page:
    opened = context.new_page()
    opened.add_init_script(LOOK)
    opened.goto(url)
    opened.wait_for_timeout(1500)  # until it listens for changes
    return opened


def report(kinds: list[Kind], edits: int) -> None:
    print(f"{edits} edits of each kind, milliseconds from the edit on disk to the repaint")
    print(f"{'':34}{'median':>8}{'9 in 10':>9}")
    for kind in kinds:
        print(f"{kind.name:34}{kind.median:8.1f}{kind.slow:9.1f}")
    medians = {kind.name: kind.median for kind in kinds}
    for what, ours, theirs in (
        ("page", "rpyserve, page (morphed)", "Vite, page (loaded again)"),
        ("stylesheet", "rpyserve, stylesheet", "Vite, stylesheet"),
    ):
        if theirs in medians:
            print(
                f"{what}: rpyserve takes {medians[ours] / medians[theirs]:.2f} times what Vite takes"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=30, help="of each kind")
    parser.add_argument("--no-vite", action="store_true")
    parser.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("google-chrome")
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        ours = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sources(ours, vite=False)
        url = stack.enter_context(rpyserve(ours))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=options.chromium)
        stack.callback(browser.close)
        context = browser.new_context()
        plain, programmed = tab(context, url + "plain"), tab(context, url + "programmed")
        kinds = [
            Kind("rpyserve, page (morphed)", plain, lambda n: script(ours / "plain.rpy", n, "")),
            Kind("rpyserve, stylesheet", plain, lambda n: stylesheet(ours, n)),
            Kind(
                "rpyserve, page with scripts",
                programmed,
                lambda n: script(ours / "programmed.rpy", n, "<script>window.own = 1</script>"),
            ),
        ]
        if not options.no_vite:
            theirs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sources(theirs, vite=True)
            other = tab(context, stack.enter_context(vite(theirs)))
            module = '<script type="module" src="/main.js"></script>'
            kinds += [
                Kind("Vite, page (loaded again)", other, lambda n: page(theirs, n, module)),
                Kind("Vite, stylesheet", other, lambda n: stylesheet(theirs, n)),
            ]
        numbers = iter(range(1, 10**6))
        for kind in kinds:
            kind.measure(next(numbers))  # the first of each warms up
            kind.times.clear()
        for _ in range(options.edits):
            for kind in random.sample(kinds, len(kinds)):
                kind.measure(next(numbers))
        report(kinds, options.edits)


if __name__ == "__main__":
    main()
