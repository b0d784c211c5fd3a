"""Imports in threads while helpers are saved: does a request fail, or see an old helper?

``python -m benchmarks.robustness.thread_imports --requests 50000 --clients 8``; the tests run the
same with fewer requests. Some pages import in a thread, as slow calls do: a package of 60 modules,
one of its modules by itself, a helper by its name. Other pages import the same helpers in the event
loop. All the while helpers are saved, each time by a rename. Every request notes which versions
were saved before it was sent. It must be answered with 200, and must show those versions or later
ones.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import serving

PARTS = 60

IN_A_THREAD = """
import trio


def work():
{imports}
    return f"{seen}"


async def resource(request):
    return await trio.to_thread.run_sync(work)
"""
IN_THE_LOOP = """
{cache}
{imports}


def resource(request):
    return f"{seen}"
"""


def _in_a_thread(seen: str, *imports: str) -> str:
    lines = "\n".join(f"    {line}" for line in imports)
    return IN_A_THREAD.format(imports=lines, seen=seen)


def _in_the_loop(seen: str, *imports: str, cache: str = "") -> str:
    return IN_THE_LOOP.format(imports="\n".join(imports), seen=seen, cache=cache)


PAGES = {
    "package": _in_a_thread("part={big.part3.VERSION}", "import big"),
    "part": _in_a_thread("part={big.part3.VERSION}", "import big.part3"),
    "last": _in_a_thread("part={part3.VERSION}", "from big.last import part3"),
    "plugin": _in_a_thread(
        "plug={plug.VERSION} words={plug.WORDS}",
        "import importlib",
        "plug = importlib.import_module('plug')",
    ),
    "plain": _in_the_loop("words={VERSION}", "from words import VERSION"),
    "cached": _in_the_loop("part={big.part3.VERSION}", "import big", cache="cache()"),
    "other": _in_the_loop("other={other.VERSION}", "import other"),
    "static": _in_the_loop("nothing", cache="cache()"),
}
"""The pages, each of which shows the versions of what it has imported."""

HELPERS = {
    "part": ("big/part3.py", "from . import part2\nVERSION = {version}\n"),
    "plug": ("plug.py", "from words import VERSION as WORDS\nVERSION = {version}\n"),
    "words": ("words.py", "VERSION = {version}\n"),
    "other": ("other.py", "VERSION = {version}\n"),
}
"""What is saved: the file, and its text."""


@dataclass
class Result:
    """What was seen. It is good if no request failed or was answered with an old version."""

    requests: int = 0
    edits: int = 0
    failed: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.failed or self.stale)


class ImportingSite:
    """A site whose pages import, in threads and in the event loop.

    Attributes:
        saved: which version of each helper is wholly saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.saved = dict.fromkeys(HELPERS, 0)
        (root / "big").mkdir(parents=True)
        for number in range(PARTS):
            before = f"from . import part{number - 1}\n" if number else ""
            (root / "big" / f"part{number}.py").write_text(f"{before}NAMES = {['x'] * 50}\n")
        every = ", ".join(f"part{number}" for number in range(PARTS))
        (root / "big" / "last.py").write_text("from . import part3, part59\n")
        (root / "big" / "__init__.py").write_text(f"from . import {every}\n")
        for name, text in PAGES.items():
            (root / f"{name}.rpy").write_text(text)
        for name in HELPERS:
            self.save(name, 0)

    def save(self, name: str, version: int) -> None:
        """Save *version* of a helper."""
        file, text = HELPERS[name]
        temporary = self.root / f"{name}~"
        temporary.write_text(text.format(version=version))
        os.replace(temporary, self.root / file)
        self.saved[name] = version


async def _visit(url: str, site: ImportingSite, result: Result, wanted: int, first: int) -> None:
    """Ask for the pages in turn until *wanted* requests were made, by all visitors together."""
    pages = list(PAGES)
    async with httpx.AsyncClient(timeout=60) as client:
        while result.requests < wanted:
            name = pages[(first + result.requests) % len(pages)]
            result.requests += 1
            at_least = dict(site.saved)
            response = await client.get(url + name)
            _judge(response, name, at_least, result)


def _judge(response: httpx.Response, name: str, at_least: dict[str, int], result: Result) -> None:
    if response.status_code != 200:
        result.failed.append(f"/{name}: {response.status_code} {response.text[:1000]}")
        return
    for helper, version in re.findall(r"(\w+)=(\d+)", response.text):
        if int(version) < at_least[helper]:
            message = f"/{name}: {response.text}, though {at_least[helper]} was saved"
            result.stale.append(message)


async def _edit(site: ImportingSite, result: Result, pause: float) -> None:
    """Save one helper after the other, *pause* seconds apart, until cancelled."""
    names = list(HELPERS)
    while True:
        result.edits += 1
        site.save(names[result.edits % len(names)], result.edits)
        await trio.sleep(pause)


async def measure(
    url: str, site: ImportingSite, *, requests: int, clients: int, pause: float = 0.05
) -> Result:
    """Visit *site*, served at *url*, while its helpers are saved; *pause* is in seconds."""
    result = Result()
    async with trio.open_nursery() as editor:
        editor.start_soon(_edit, site, result, pause)
        async with trio.open_nursery() as visitors:
            for number in range(clients):
                visitors.start_soon(_visit, url, site, result, requests, number)
        editor.cancel_scope.cancel()
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two saves")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "site")
        site = ImportingSite(root)
        with serving(root, Path(directory, "console"), "--quiet") as server:
            began = time.monotonic()
            result = trio.run(
                lambda: measure(
                    server.url,
                    site,
                    requests=options.requests,
                    clients=options.clients,
                    pause=options.pause,
                )
            )
            took = time.monotonic() - began
    print(
        f"{result.requests} requests and {result.edits} edits in {took:.1f} s: "
        f"{len(result.failed)} failed, {len(result.stale)} saw an old helper"
    )
    for message in (result.failed + result.stale)[:10]:
        print(" ", message)
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
