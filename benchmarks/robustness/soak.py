"""A long run with everything at once: visitors, edits, resets, sessions that end, up- and
downloads.

``python -m benchmarks.robustness.soak --minutes 10``. No response may be wrong, older than the last
save, or missing; no visit and no end of a session may be lost; memory and open files must be flat:
what the server has in the last third of the time may exceed what it had after the first sixth by a
tenth at most. The tests run the same for a few seconds.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.common.client import Client
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving

COUNT = """
from rpyserve import cache, registry
from helper import VERSION as HELPER

cache()
VERSION = {version}


def ended():
    registry["ended"] = registry.get("ended", 0) + 1


def resource(request):
    session = request.getSession()
    if session.new:
        registry["made"] = registry.get("made", 0) + 1
        session.notifyOnExpire(ended)
    registry["visits"] = registry.get("visits", 0) + 1
    session["n"] = session.get("n", 0) + 1
    return f"version={{VERSION}} helper={{HELPER}} n={{session['n']}}"
"""
SCRIPTS = {
    "end.rpy": """
def resource(request):
    request.getSession().expire()
    return "ended"
""",
    "counts.rpy": """
from rpyserve import registry

def resource(request):
    counts = {name: registry.get(name, 0) for name in ("made", "ended", "visits")}
    return {**counts, "live": len(request.site.sessions)}
""",
    "stream.rpy": """
import trio

async def resource(request):
    return chunks()

async def chunks():
    for n in range(1000):
        yield "x" * 1000
        await trio.sleep(0.01)
""",
    "upload.rpy": """
import hashlib

def resource(request):
    return hashlib.sha256(request.content.read()).hexdigest()
""",
}
EDITED = {"version": ("count.rpy", COUNT), "helper": ("helper.py", "VERSION = {version}\n")}
"""What is saved again and again: the name of the file, and its text."""
UPLOAD = os.urandom(2**20) * 3
DOWNLOAD = os.urandom(2**20) * 8
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""The value of SO_LINGER with which a connection is reset when it is closed."""
MOST_GROWTH = 1.1


@dataclass(frozen=True)
class Usage:
    """Bytes of memory, and open files."""

    memory: int
    files: int


@dataclass
class Result:
    """What was seen. It is good if nothing is in `wrong`, and both growths are small."""

    requests: int = 0
    visits: int = 0
    resets: int = 0
    edits: int = 0
    ended: int = 0
    uploads: int = 0
    downloads: int = 0
    wrong: list[str] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)

    @property
    def memory_growth(self) -> float:
        return growth([usage.memory for usage in self.usage])

    @property
    def files_growth(self) -> float:
        return growth([usage.files for usage in self.usage])

    @property
    def good(self) -> bool:
        return not self.wrong and max(self.memory_growth, self.files_growth) < MOST_GROWTH

    def report(self) -> str:
        memory = [usage.memory / 1e6 for usage in self.usage] or [0]
        files = [usage.files for usage in self.usage] or [0]
        return (
            f"{self.requests:,} responses, {self.visits:,} visits counted, {self.edits} edits, "
            f"{self.resets:,} resets, {self.ended:,} sessions ended, "
            f"{self.uploads} uploads and {self.downloads} downloads: "
            f"{len(self.wrong)} wrong or lost; "
            f"memory {min(memory):.0f} to {max(memory):.0f} MB (x{self.memory_growth:.2f}), "
            f"open files {min(files)} to {max(files)} (x{self.files_growth:.2f})"
        )


def growth(values: list[int]) -> float:
    """By which factor *values* grew, from after the first sixth to the last third."""
    early = values[len(values) // 6 : len(values) // 2]
    late = values[-(len(values) // 3) :]
    return max(late, default=1) / max(max(early, default=1), 1)


@dataclass
class Soak:
    """The tasks that run at the same time.

    Args:
        root: the directory of the site.
        server: serves it.
        result: is filled in.
        saved: the version of each edited file that was saved last.
    """

    root: Path
    server: ServerProcess
    result: Result
    saved: dict[str, int] = field(default_factory=lambda: {"version": 0, "helper": 0})

    async def run(self, seconds: float, clients: int) -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(clients):
                    nursery.start_soon(self.visit, number)
                for task in (self.reset, self.edit, self.upload, self.download):
                    nursery.start_soon(task)
                nursery.start_soon(self.sample_usage, seconds / 60)
        await trio.sleep(0.5)
        await self.check_counts()

    async def visit(self, number: int) -> None:
        """A visitor: counts, sometimes ends the session, sometimes uses a new connection."""
        chance = random.Random(number)
        while True:
            visits = 0
            async with Client.connect(self.server.port) as client:
                for _ in range(chance.randrange(1, 200)):
                    at_least = dict(self.saved)
                    body = await client.get("/count")
                    visits += 1
                    self.result.visits += 1
                    self.check_visit(number, body, visits, at_least)
                    if chance.random() < 0.02:
                        ended = await client.get("/end") == b"ended"
                        self.expect(ended, f"visitor {number}: the session did not end")
                        self.result.ended += 1
                        visits = 0
                    await trio.sleep(chance.random() * 0.05)

    def check_visit(self, number: int, body: bytes, visits: int, at_least: dict[str, int]) -> None:
        pairs = re.findall(rb"(\w+)=(\d+)", body)
        seen = {name.decode(): int(value) for name, value in pairs}
        is_fresh = all(seen.get(name, -1) >= version for name, version in at_least.items())
        self.expect(
            seen.get("n") == visits and is_fresh,
            f"visitor {number}: {body[:80]!r}, not n={visits} and at least {at_least}",
        )
        self.result.requests += 1

    def expect(self, good: bool, message: str) -> None:
        if not good:
            self.result.wrong.append(message)

    async def reset(self) -> None:
        """Clients that reset the connection at any point of a request or response."""
        chance = random.Random(0)
        while True:
            path = chance.choice(["/stream", "/large.bin", "/count", "/", "/none"])
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            async with await trio.open_tcp_stream("127.0.0.1", self.server.port) as stream:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                await stream.send_all(request[: chance.randrange(1, 60)])
                await trio.sleep(chance.random() * 0.05)
            self.result.resets += 1

    async def edit(self) -> None:
        for version in range(1, sys.maxsize):
            await trio.sleep(0.5)
            name = ("version", "helper")[version % 2]
            save(self.root, name, version)
            self.saved[name] = version
            self.result.edits += 1

    async def upload(self) -> None:
        digest = hashlib.sha256(UPLOAD).hexdigest().encode()
        async with Client.connect(self.server.port) as client:
            while True:
                received = await client.post("/upload", UPLOAD, pause=0.01)
                self.expect(received == digest, "an upload was not received as it was sent")
                self.result.uploads += 1
                self.result.requests += 1

    async def download(self) -> None:
        async with Client.connect(self.server.port) as client:
            while True:
                received = await client.get("/large.bin")
                self.expect(received == DOWNLOAD, "a download was not received as it is")
                self.result.downloads += 1
                self.result.requests += 1

    async def sample_usage(self, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            self.result.usage.append(Usage(self.server.memory(), self.server.open_files()))

    async def check_counts(self) -> None:
        """What the server has counted must be what was seen, but for the resets."""
        async with Client.connect(self.server.port) as client:
            counts = await client.get_json("/counts")
        self.expect(
            counts["made"] == counts["ended"] + counts["live"], f"sessions were lost: {counts}"
        )
        self.expect(
            counts["visits"] >= self.result.visits,
            f"{counts}, but {self.result.visits} visits were answered",
        )
        self.result.ended = counts["ended"]
        for line in self.server.output().splitlines():
            if "Traceback" in line or "failed" in line:
                self.result.wrong.append(f"the console: {line}")


def save(root: Path, name: str, version: int) -> None:
    """Save one of the `EDITED` files, as editors do: beside it, then over it."""
    file, text = EDITED[name]
    temporary = root / f".{file}.tmp"
    temporary.write_text(text.format(version=version))
    os.replace(temporary, root / file)


def make_site(root: Path) -> None:
    root.mkdir()
    for file, text in SCRIPTS.items():
        (root / file).write_text(text)
    for name in EDITED:
        save(root, name, 0)
    (root / "large.bin").write_bytes(DOWNLOAD)


def soak(directory: Path, seconds: float, clients: int) -> Result:
    """Soak a server of its own for some seconds."""
    site = directory / "site"
    make_site(site)
    result = Result()
    options = ("--session-timeout", "3", "--quiet")
    with serving(site, directory / "console", *options) as server:
        trio.run(Soak(site, server, result).run, seconds, clients)
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        result = soak(Path(directory), options.minutes * 60, options.clients)
    print(f"{time.monotonic() - began:.0f} s: {result.report()}")
    for message in result.wrong[:10]:
        print(" ", message)
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
