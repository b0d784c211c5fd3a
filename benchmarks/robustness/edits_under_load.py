"""Edits against a running server under load: is a response older than the last save, is a visit
lost?

``python -m benchmarks.robustness.edits_under_load --edits 500 --clients 8``; the tests run the same
with fewer edits. Files are saved in all the ways that editors have. Every request notes how many
saves were complete before it was sent. Its response must be of that version or a later one, must
not be an error, and must count one visit more than the client's last. A request that overlaps a
save which is not atomic (the file is empty, or missing, for a moment) may be an error, but not
stale.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import serving

COUNTER = """
from rpyserve import Attribute, Interface, Resource, Session, cache, registerAdapter
from helper import VERSION as HELPER
from pack import VERSION as PACK
from . import beside

cache("data.txt", "notes")
VERSION = {version}
DATA = open("data.txt").read()
NESTED = open("notes/sub/nested.txt").read()


class ICounter(Interface):
    value = Attribute("How many visits.")


class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


class Page(Resource):
    def render_GET(self, request):
        from late import VERSION as late

        # What may fail over a half-written file comes before the visit is counted.
        seen = f"script={{VERSION}} helper={{HELPER}} beside={{beside.VERSION}} pack={{PACK}}"
        counter = ICounter(request.getSession())
        counter.value += 1
        return f"{{seen}} late={{late}} data={{DATA}} nested={{NESTED}} visit={{counter.value}}"


resource = Page()
"""
MODULE = "VERSION = {version}\n"

FILES = {
    "script": ("counter.rpy", COUNTER),
    "helper": ("helper.py", MODULE),
    "beside": ("beside.py", MODULE),
    "pack": ("pack/deep.py", MODULE),
    "late": ("late.py", MODULE),
    "data": ("data.txt", "{version}"),
    "nested": ("notes/sub/nested.txt", "{version}"),
    "style": ("style.css", "/* style={version} */"),
}
"""What is edited: the file, and its text."""
SHOWN_BY_SCRIPT = [name for name in FILES if name != "style"]
MAY_BE_EMPTY = ("data", "nested", "style")
"""Files that may be read, and be empty, while they are saved."""
ATOMIC = ("rename", "rename, time set back")
WAYS = (
    *ATOMIC,
    "in place",
    "in place, time set back",
    "delete and create",
    "backup and create",
    "directory",
    "switch",
)
"""How files are saved; "switch" is that of a branch, which writes many files at once."""


@dataclass
class Result:
    """What was seen. It is good if nothing is stale, an error or lost."""

    edits: int = 0
    requests: int = 0
    stale: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    excused: int = 0
    """Requests that met a half-written file."""

    @property
    def good(self) -> bool:
        return not (self.stale or self.errors or self.lost)


class EditedSite:
    """A site that is edited.

    Attributes:
        root: its directory.
        saved: which version of each file is wholly saved.
        torn: how many saves so far were not atomic.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.saved = dict.fromkeys(FILES, 0)
        self.torn = 0
        for directory in ("pack", "notes/sub"):
            (root / directory).mkdir(parents=True)
        (root / "pack" / "__init__.py").write_text("from .deep import VERSION\n")
        for name in FILES:
            self.save(name, 0, "rename")

    def save(self, name: str, version: int, way: str) -> None:
        """Save *version* of a file, in one of the ways that editors have."""
        file, text = FILES[name]
        path = self.root / file
        content = text.format(version=version).encode()
        self.torn += way not in ATOMIC
        time_set_back = way.endswith("time set back") and path.exists()
        before = path.stat().st_mtime_ns if time_set_back else None
        if way.startswith("rename"):
            temporary = path.with_name(path.name + "~")
            _write(temporary, content, before)
            os.replace(temporary, path)
        elif way == "directory" and path.parent != self.root:
            self._replace_directory(path, content)
        else:
            self._prepare(path, version, way)
            _write(path, content, before)
        self.saved[name] = version

    def _prepare(self, path: Path, version: int, way: str) -> None:
        """Do what comes before the file is written in its place."""
        if way == "switch":
            for number in range(100):
                (self.root / f"other{number}.txt").write_text(str(version))
        elif way == "backup and create":
            path.replace(path.with_name(path.name + "~"))
        elif way == "delete and create":
            path.unlink()

    def _replace_directory(self, path: Path, content: bytes) -> None:
        """Put another directory in the place of the file's."""
        directory = self.root / path.relative_to(self.root).parts[0]
        new, old = directory.with_name("other~"), directory.with_name("old~")
        shutil.copytree(directory, new)
        (new / path.relative_to(directory)).write_bytes(content)
        directory.rename(old)
        new.rename(directory)
        shutil.rmtree(old)


def _write(path: Path, content: bytes, mtime_ns: int | None) -> None:
    path.write_bytes(content)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


@dataclass
class Visitor:
    """One visitor, who asks for the script and the stylesheet in turn, until cancelled."""

    number: int
    url: str
    site: EditedSite
    result: Result
    visits: int = 0
    style: str = ""
    etag: str = ""

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                await self.visit_script(client)
                await self.load_style(client)

    async def visit_script(self, client: httpx.AsyncClient) -> None:
        at_least, torn = dict(self.site.saved), self.site.torn
        response = await client.get(self.url + "counter")
        message = f"visitor {self.number}: {response.status_code} {response.text[:200]}"
        self.result.requests += 1
        if response.status_code != 200:
            self.note_error(message, torn)
            return
        seen = numbers_in(response.text)
        self.visits += 1
        if seen["visit"] != self.visits:
            self.result.lost.append(f"{message}, not visit {self.visits}")
            self.visits = seen["visit"]
        self.check_versions(seen, at_least, SHOWN_BY_SCRIPT, torn, message)

    async def load_style(self, client: httpx.AsyncClient) -> None:
        at_least, torn = dict(self.site.saved), self.site.torn
        headers = {"If-None-Match": self.etag} if self.etag else {}
        response = await client.get(self.url + "style.css", headers=headers)
        self.result.requests += 1
        if response.status_code == 200:
            self.style, self.etag = response.text, response.headers.get("ETag", "")
        message = f"visitor {self.number}: {response.status_code} {self.style}"
        if response.status_code not in (200, 304):
            self.note_error(message, torn)
            return
        self.check_versions(numbers_in(self.style), at_least, ["style"], torn, message)

    def note_error(self, message: str, torn: int) -> None:
        """Note an error; *torn* is how many saves were not atomic before the request."""
        if self.site.torn == torn:
            self.result.errors.append(message)
        else:
            self.result.excused += 1

    def check_versions(
        self,
        seen: dict[str, int],
        at_least: dict[str, int],
        names: Iterable[str],
        torn: int,
        message: str,
    ) -> None:
        """Note which of the files *names* were seen in an older version than was saved before."""
        for name in names:
            may_be_empty = name in MAY_BE_EMPTY and self.site.torn != torn
            if name not in seen and may_be_empty:
                self.result.excused += 1
            elif seen.get(name, -1) < at_least[name]:
                self.result.stale.append(f"{message}: {name} was {at_least[name]}")


def numbers_in(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}


async def edit(site: EditedSite, result: Result, edits: int, pause: float) -> None:
    """Edit the files in turn, each time in another way."""
    names = list(FILES)
    for version in range(1, edits + 1):
        name = names[version % len(names)]
        site.save(name, version, WAYS[version // len(names) % len(WAYS)])
        result.edits += 1
        await trio.sleep(pause)


async def measure(
    url: str, site: EditedSite, *, edits: int, clients: int, pause: float = 0.01
) -> Result:
    """Edit *site*, served at *url*, while *clients* visit it; *pause* is in seconds."""
    result = Result()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(Visitor(number, url, site, result).run)
        await edit(site, result, edits, pause)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "site")
        root.mkdir()
        site = EditedSite(root)
        with serving(root, Path(directory, "console"), "--quiet") as server:
            began = time.monotonic()
            result = trio.run(
                lambda: measure(server.url, site, edits=options.edits, clients=options.clients)
            )
            took = time.monotonic() - began
    print(
        f"{result.edits} edits, {result.requests} requests in {took:.1f} s: "
        f"{len(result.stale)} stale, {len(result.errors)} errors on good code, "
        f"{len(result.lost)} visits lost ({result.excused} requests met a half-written file)"
    )
    for message in (result.stale + result.errors + result.lost)[:10]:
        print(" ", message)
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
