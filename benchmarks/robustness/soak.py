"""A long run with everything at once: 64 visitors, edits twice a second, resets, sessions ending, up- and downloads.

``python benchmarks/soak.py --minutes 10``. No answer may be wrong, older than the last save, or missing; no visit and
no end of a session may be lost; memory and open files must be flat: what the server has in the last third of the time
may exceed what it had after the first sixth by a tenth at most. The tests run the same for a few seconds.
"""

from __future__ import annotations

import argparse
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

from benchmarks.common.server_process import Server, Visitor, serving

COUNT = """
from rpyserve import cache, registry
from helper import VERSION as HELPED

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
    return f"version={{VERSION}} helper={{HELPED}} n={{session['n']}}"
"""
SCRIPTS = {
    "end.rpy": "def resource(request):\n    request.getSession().expire()\n    return 'ended'\n",
    "tally.rpy": "from rpyserve import registry\ndef resource(request):\n"
    "    return {**{name: registry.get(name, 0) for name in ('made', 'ended', 'visits')},"
    " 'live': len(request.site.sessions)}\n",
    "stream.rpy": "import trio\nasync def resource(request):\n    return chunks()\nasync def chunks():\n"
    "    for n in range(1000):\n        yield 'x' * 1000\n        await trio.sleep(0.01)\n",
    "upload.rpy": "import hashlib\n"
    "def resource(request):\n    return hashlib.sha256(request.content.read()).hexdigest()\n",
}
UPLOAD = os.urandom(2**20) * 3
DOWNLOAD = os.urandom(2**20) * 8
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


@dataclass
class Result:
    """What was seen. Good is: nothing in `wrong`, and both growths small."""

    requests: int = 0
    visits: int = 0
    resets: int = 0
    edits: int = 0
    ended: int = 0
    uploads: int = 0
    downloads: int = 0
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)

    def growth(self, which: int) -> float:
        """By which factor memory (0) or descriptors (1) grew, from after the first sixth to the last third."""
        values = [sample[which] for sample in self.samples]
        early = values[len(values) // 6 : len(values) // 2]
        late = values[-(len(values) // 3) :]
        return max(late, default=1) / max(max(early, default=1), 1)

    @property
    def good(self) -> bool:
        return not self.wrong and self.growth(0) < 1.1 and self.growth(1) < 1.1

    def told(self) -> str:
        memory = [sample[0] / 1e6 for sample in self.samples] or [0]
        files = [sample[1] for sample in self.samples] or [0]
        return (
            f"{self.requests:,} answers, {self.visits:,} visits counted, {self.edits} edits, {self.resets:,} resets, "
            f"{self.ended:,} sessions ended, {self.uploads} uploads and {self.downloads} downloads: "
            f"{len(self.wrong)} wrong or lost; memory {min(memory):.0f} to {max(memory):.0f} MB "
            f"(x{self.growth(0):.2f}), descriptors {min(files)} to {max(files)} (x{self.growth(1):.2f})"
        )


@dataclass
class Soak:
    root: Path
    server: Server
    result: Result
    saved: dict[str, int] = field(default_factory=lambda: {"version": 0, "helper": 0})

    async def visit(self, number: int) -> None:
        """A visitor: counts, sometimes ends the session, sometimes stays away, sometimes comes on a new connection."""
        chance = random.Random(number)
        while True:
            visits = 0
            async with Visitor.connect(self.server.port) as visitor:
                for _ in range(chance.randrange(1, 200)):
                    at_least = dict(self.saved)
                    body = await visitor.get("/count")
                    visits += 1
                    self.result.visits += 1
                    self.judge(number, body, visits, at_least)
                    if chance.random() < 0.02:
                        self.expect(await visitor.get("/end") == b"ended", f"visitor {number}: no end")
                        self.result.ended += 1
                        visits = 0
                    await trio.sleep(chance.random() * 0.05)

    def judge(self, number: int, body: bytes, visits: int, at_least: dict[str, int]) -> None:
        seen = {key.decode(): int(value) for key, value in re.findall(rb"(\w+)=(\d+)", body)}
        good = seen.get("n") == visits and all(seen.get(key, -1) >= least for key, least in at_least.items())
        self.expect(good, f"visitor {number}: {body[:80]!r}, not n={visits} and at least {at_least}")
        self.result.requests += 1

    def expect(self, good: bool, told: str) -> None:
        if not good:
            self.result.wrong.append(told)

    async def reset(self) -> None:
        """Clients that break off, in the middle of whatever it is."""
        chance = random.Random(0)
        while True:
            path = chance.choice(["/stream", "/large.bin", "/count", "/", "/none"])
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()[: chance.randrange(1, 60)]
            async with await trio.open_tcp_stream("127.0.0.1", self.server.port) as stream:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                await stream.send_all(request)
                await trio.sleep(chance.random() * 0.05)
            self.result.resets += 1

    async def edit(self) -> None:
        for version in range(1, sys.maxsize):
            await trio.sleep(0.5)
            what = ("version", "helper")[version % 2]
            save(self.root, what, version)
            self.saved[what] = version
            self.result.edits += 1

    async def upload(self) -> None:
        digest = hashlib.sha256(UPLOAD).hexdigest().encode()
        async with Visitor.connect(self.server.port) as visitor:
            while True:
                self.expect(
                    await visitor.post("/upload", UPLOAD, pause=0.01) == digest, "an upload was not what it was"
                )
                self.result.uploads += 1
                self.result.requests += 1

    async def download(self) -> None:
        async with Visitor.connect(self.server.port) as visitor:
            while True:
                self.expect(await visitor.get("/large.bin") == DOWNLOAD, "a download was not what it was")
                self.result.downloads += 1
                self.result.requests += 1

    async def sample(self, every: float) -> None:
        while True:
            await trio.sleep(every)
            self.result.samples.append((self.server.memory(), self.server.descriptors()))

    async def run(self, seconds: float, clients: int) -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(clients):
                    nursery.start_soon(self.visit, number)
                for task in (self.reset, self.edit, self.upload, self.download):
                    nursery.start_soon(task)
                nursery.start_soon(self.sample, seconds / 60)
        await trio.sleep(0.5)
        await self.count()

    async def count(self) -> None:
        """What the server has counted must be what was seen, but for the clients that broke off."""
        async with Visitor.connect(self.server.port) as visitor:
            tally = await visitor.json("/tally")
        self.expect(tally["made"] == tally["ended"] + tally["live"], f"sessions were lost: {tally}")
        self.expect(tally["visits"] >= self.result.visits, f"{tally}, but {self.result.visits} visits were answered")
        self.result.ended = tally["ended"]
        for line in self.server.said().splitlines():
            if "Traceback" in line or "failed" in line:
                self.result.wrong.append(f"the console: {line}")


def save(root: Path, what: str, version: int) -> None:
    """Save the script or its helper, as editors do: beside it, then over it."""
    name, text = {"version": ("count.rpy", COUNT), "helper": ("helper.py", "VERSION = {version}\n")}[what]
    temporary = root / f".{name}.tmp"
    temporary.write_text(text.format(version=version))
    os.replace(temporary, root / name)


def build(root: Path) -> None:
    root.mkdir()
    for name, text in SCRIPTS.items():
        (root / name).write_text(text)
    for what in ("version", "helper"):
        save(root, what, 0)
    (root / "large.bin").write_bytes(DOWNLOAD)


def soak(directory: Path, seconds: float, clients: int) -> Result:
    """Soak a server of its own for some seconds."""
    build(directory / "site")
    result = Result()
    with serving(directory / "site", directory / "console", "--session-timeout", "3", "--quiet") as server:
        trio.run(Soak(directory / "site", server, result).run, seconds, clients)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        result = soak(Path(directory), options.minutes * 60, options.clients)
    print(f"{time.monotonic() - began:.0f} s: {result.told()}")
    for told in result.wrong[:10]:
        print(" ", told)
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
