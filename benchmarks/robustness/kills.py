"""SIGKILLs at random moments under load: is what was answered kept, and nothing half-written?

``python -m benchmarks.robustness.kills --kills 200 --answers 200000``. Eight visitors count, in a
value of their sessions, in a component, in a list that both must agree with, and together in the
registry. The server keeps that in SQLite, is killed again and again, and started again. A visitor's
number must be greater than the one before, by one more for each request at most that was cut off.
At the end the file must be sound, and no id of a session may be in it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import free_port

CLIENTS = 8
STORE = Path(".rpyserve") / "sessions.db"

COUNTER = """
from rpyserve import Interface, Resource, Session, cache, implementer, registerAdapter

cache()


class ICounter(Interface):
    pass


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0
        self.last = []


registerAdapter(Counter, Session, ICounter)


class Page(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        counter = ICounter(session)
        counter.value += 1
        counter.last = [*counter.last[-9:], counter.value]
        registry["all"] = registry.get("all", 0) + 1
        return {
            "n": session["n"],
            "value": counter.value,
            "last": counter.last[-1],
            "all": registry["all"],
        }


resource = Page()
"""


@dataclass
class Visitor:
    """One client, and what it has seen.

    Attributes:
        cookie: of its session.
        number: that of its last answer.
        answers: how many answers it had.
        cut: how many requests were cut off since the last answer.
        all_cut: how many were cut off at all.
        everybody: the highest count of all visitors that it has seen.
        faults: what was not as it should be.
    """

    cookie: bytes = b""
    number: int = 0
    answers: int = 0
    cut: int = 0
    all_cut: int = 0
    everybody: int = 0
    faults: list[str] = field(default_factory=list)

    async def visit(self, port: int) -> None:
        """Ask again and again, until the server is gone."""
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.005)
                continue
            async with stream:
                await self._ask_until_cut(stream)

    async def _ask_until_cut(self, stream: trio.SocketStream) -> None:
        while True:
            cookie = b"Cookie: %s\r\n" % self.cookie if self.cookie else b""
            request = b"GET /counter HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % cookie
            try:
                await stream.send_all(request)
                head, body = await _receive(stream)
            except (trio.BrokenResourceError, EOFError):
                self.cut += 1
                self.all_cut += 1
                return
            self._check(head, body)

    def _check(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 200 "):
            self.faults.append(f"{head[:40]!r} {body[:200]!r}")
            return
        if b"Set-Cookie: " in head:
            if self.answers:
                self.faults.append(f"a new session after number {self.number}")
            self.cookie = head.partition(b"Set-Cookie: ")[2].partition(b";")[0]
        found = json.loads(body)
        number = found["n"]
        if not self.number < number <= self.number + 1 + self.cut:
            self.faults.append(f"{number} after {self.number}, with {self.cut} cut off")
        if not number == found["value"] == found["last"]:
            self.faults.append(f"half-written: {found}")
        if found["all"] <= self.everybody:
            self.faults.append(f"everybody: {found['all']} after {self.everybody}")
        self.everybody = found["all"]
        self.number, self.cut = number, 0
        self.answers += 1


async def _receive(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])
    while len(body) < length:
        body += await _some(stream)
    return head, body


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise EOFError
    return bytes(data)


@dataclass(frozen=True)
class Result:
    """What was seen.

    Args:
        kills: how often the server was killed.
        answers: how many requests were answered.
        cut: how many were cut off.
        faults: what was lost, half-written, or not as it should be.
        longest_start: seconds, at most, from the start of a server to its URL.
    """

    kills: int
    answers: int
    cut: int
    faults: list[str]
    longest_start: float

    def __str__(self) -> str:
        return (
            f"{self.kills} SIGKILLs, {self.answers:,} answers, {self.cut} requests cut off, "
            f"longest start {self.longest_start:.1f} s: "
            + ("\n".join(self.faults[:20]) or "none lost, none half-written, the file is sound")
        )


@contextmanager
def serving(site: Path, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A server with SQLite, which is killed at the end."""
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", str(port), "--quiet"]
    command += ["--session-store", "sqlite", "--session-timeout", "never", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise SystemExit("the server did not start")
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


async def run(site: Path, kills: int, answers: int, mean: float = 0.5) -> Result:
    """Kill the server of *site* so often at least, until there were so many answers.

    Args:
        mean: seconds for which a server lives, on average, before it is killed.
    """
    (site / "counter.rpy").write_text(COUNTER)
    port, visitors = free_port(), [Visitor() for _ in range(CLIENTS)]
    killed, longest_start, moments = 0, 0.0, random.Random(1)
    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(visitor.visit, port)
        while killed < kills or sum(visitor.answers for visitor in visitors) < answers:
            began = time.monotonic()
            starting = serving(site, port)
            await trio.to_thread.run_sync(starting.__enter__)
            longest_start = max(longest_start, time.monotonic() - began)
            await trio.sleep(moments.uniform(0, 2 * mean))
            starting.__exit__(None, None, None)
            killed += 1
            if any(visitor.faults for visitor in visitors):
                break
        nursery.cancel_scope.cancel()
    faults = [fault for visitor in visitors for fault in visitor.faults]
    return Result(
        killed,
        sum(visitor.answers for visitor in visitors),
        sum(visitor.all_cut for visitor in visitors),
        faults + faults_of_file(site / STORE, visitors),
        longest_start,
    )


def faults_of_file(path: Path, visitors: list[Visitor]) -> list[str]:
    """What is wrong with the file: it is not sound, or an id is in it."""
    beside = [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-lock")]
    data = b"".join(each.read_bytes() for each in beside if each.exists())
    ids = [visitor.cookie.partition(b"=")[2] for visitor in visitors]
    faults = [f"the id {uid!r} is in the file" for uid in ids if not uid or uid in data]
    with closing(sqlite3.connect(path)) as file:
        [found] = file.execute("pragma integrity_check").fetchone()
        [count] = file.execute("select count(*) from records").fetchone()
    if found != "ok":
        faults.append(f"integrity_check: {found}")
    if count < len(visitors) + 1:
        faults.append(f"{count} records are in the file")
    return faults


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--answers", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as site:
        result = trio.run(run, Path(site), options.kills, options.answers)
    print(result)
    sys.exit(bool(result.faults))


if __name__ == "__main__":
    main()
