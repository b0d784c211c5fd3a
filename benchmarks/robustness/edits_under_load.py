"""Edits against a running server under load: is any answer older than the last save, is any visit lost?

Run it by itself for the whole measure: ``python benchmarks/edits_under_load.py --edits 500 --clients 8``. The tests
run the same with fewer edits. Files are saved in all the ways that editors have. Every request notes how many saves
were complete before it was sent. Its answer must be of that version or a later one, must not be an error, and must
count one visit more than the client's last. A request that overlaps a save which is not atomic (the file is empty, or
away, for a moment) may be an error, but not stale.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

COUNTER = """
from rpyserve import Attribute, Interface, Resource, Session, cache, registerAdapter
from helper import VERSION as HELPED
from pack import VERSION as PACKED
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
        seen = f"script={{VERSION}} helper={{HELPED}} beside={{beside.VERSION}} pack={{PACKED}} late={{late}}"
        counter = ICounter(request.getSession())
        counter.value += 1
        return f"{{seen}} data={{DATA}} nested={{NESTED}} visit={{counter.value}}"


resource = Page()
"""

FILES = {
    "script": ("counter.rpy", COUNTER),
    "helper": ("helper.py", "VERSION = {version}\n"),
    "beside": ("beside.py", "VERSION = {version}\n"),
    "pack": ("pack/deep.py", "VERSION = {version}\n"),
    "late": ("late.py", "VERSION = {version}\n"),
    "data": ("data.txt", "{version}"),
    "nested": ("notes/sub/nested.txt", "{version}"),
    "style": ("style.css", "/* style={version} */"),
}
READ = ("data", "nested", "style")
"""Files whose text may be empty for a moment while they are saved."""
ATOMIC = ("rename", "rename, time set back")
WAYS = (*ATOMIC, "in place", "in place, time set back", "delete and create", "backup and create", "directory", "switch")


@dataclass
class Result:
    """What was seen. Good is: no stale, no errors, no lost."""

    edits: int = 0
    requests: int = 0
    stale: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    excused: int = 0

    @property
    def good(self) -> bool:
        return not (self.stale or self.errors or self.lost)


class Site:
    """A site that is edited: which version of each file is wholly saved, and what is being saved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.saved = dict.fromkeys(FILES, 0)
        self.torn = 0  # saves so far that were not atomic
        for directory in ("pack", "notes/sub"):
            (root / directory).mkdir(parents=True)
        (root / "pack" / "__init__.py").write_text("from .deep import VERSION\n")
        for what in FILES:
            self.save(what, 0, "rename")

    def save(self, what: str, version: int, way: str) -> None:
        """Save *version* of a file, in one of the ways that editors have."""
        name, text = FILES[what]
        path = self.root / name
        content = text.format(version=version).encode()
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        self.torn += way not in ATOMIC
        if way.startswith("rename"):
            temporary = path.with_name(path.name + "~")
            temporary.write_bytes(content)
            if way.endswith("time set back"):
                os.utime(temporary, ns=(stamp, stamp))
            os.replace(temporary, path)
        elif way == "directory" and path.parent != self.root:
            self._renew(path, content)
        else:
            if way == "switch":  # of a branch: many files at once
                for number in range(100):
                    (self.root / f"other{number}.txt").write_text(str(version))
            if way == "backup and create":
                path.replace(path.with_name(path.name + "~"))
            elif way == "delete and create":
                path.unlink()
            path.write_bytes(content)
            if way.endswith("time set back"):
                os.utime(path, ns=(stamp, stamp))
        self.saved[what] = version

    def _renew(self, path: Path, content: bytes) -> None:
        """Put another directory in the place of the file's."""
        directory = self.root / path.relative_to(self.root).parts[0]
        other = directory.with_name("other~")
        shutil.copytree(directory, other)
        (other / path.relative_to(directory)).write_bytes(content)
        directory.rename(self.root / "old~")
        other.rename(directory)
        shutil.rmtree(self.root / "old~")


async def visit(url: str, site: Site, result: Result, number: int) -> None:
    """One visitor, who comes again and again until cancelled."""
    visits = 0
    style = etag = ""
    async with httpx.AsyncClient(timeout=30) as client:
        while True:
            at_least, torn = dict(site.saved), site.torn
            response = await client.get(url + "counter")
            result.requests += 1
            told = f"visitor {number}: {response.status_code} {response.text[:200]}"
            if response.status_code != 200:
                if site.torn == torn:
                    result.errors.append(told)
                result.excused += site.torn != torn
                continue
            seen = numbers_in(response.text)
            visits += 1
            if seen["visit"] != visits:
                result.lost.append(f"{told}, not visit {visits}")
                visits = seen["visit"]
            judge(result, seen, at_least, [what for what in FILES if what != "style"], site.torn != torn, told)

            at_least, torn = dict(site.saved), site.torn
            response = await client.get(url + "style.css", headers={"If-None-Match": etag} if etag else {})
            result.requests += 1
            if response.status_code == 200:
                style, etag = response.text, response.headers.get("ETag", "")
            told = f"visitor {number}: {response.status_code} {style}"
            if response.status_code not in (200, 304):
                if site.torn == torn:
                    result.errors.append(told)
                result.excused += site.torn != torn
                continue
            judge(result, numbers_in(style), at_least, ["style"], site.torn != torn, told)


def numbers_in(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}


def judge(
    result: Result, seen: dict[str, int], at_least: dict[str, int], names: list[str], torn: bool, told: str
) -> None:
    """Note which of the files *names* were *seen* in an older version than the one that was saved before."""
    for what in names:
        if what not in seen and what in READ and torn:
            result.excused += 1  # it was empty just then
        elif seen.get(what, -1) < at_least[what]:
            result.stale.append(f"{told}: {what} was {at_least[what]}")


async def edit(site: Site, result: Result, edits: int, pause: float) -> None:
    for version in range(1, edits + 1):
        what = list(FILES)[version % len(FILES)]
        site.save(what, version, WAYS[version // len(FILES) % len(WAYS)])
        result.edits += 1
        await trio.sleep(pause)


async def measure(url: str, site: Site, *, edits: int, clients: int, pause: float = 0.01) -> Result:
    """Edit *site*, served at *url*, while *clients* visit it."""
    result = Result()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(visit, url, site, result, number)
        await edit(site, result, edits, pause)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory))
        command = [sys.executable, "-m", "rpyserve", directory, "--port", "0", "--quiet"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            began = time.monotonic()
            try:
                result = trio.run(lambda: measure(url, site, edits=options.edits, clients=options.clients))
            finally:
                server.terminate()
            took = time.monotonic() - began
    print(
        f"{result.edits} edits, {result.requests} requests in {took:.1f} s: {len(result.stale)} stale, "
        f"{len(result.errors)} errors on good code, {len(result.lost)} visits lost "
        f"({result.excused} requests met a half-written file)"
    )
    for told in (result.stale + result.errors + result.lost)[:10]:
        print(" ", told)
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
