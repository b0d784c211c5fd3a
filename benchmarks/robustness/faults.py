"""Faults of the system by a plan: does the server live on, and is each answer right or none?

``python -m benchmarks.robustness.faults --seconds 120``; an hour at night. Linux only. The server
is the real command, in whose process calls fail as `faulty_server` says: accept, receive, send and
write, sendfile, stat, open; and where memory, descriptors, the disk or the clock give out, or the
process stands still. One round has one kind of faults, or all of them. Meanwhile visitors ask for
files and ranges, scripts, streams, uploads, forms and their sessions, and scripts are edited.

An answer must be whole and right, or a refusal (500, 503, 507), or plainly cut: never wrong
bytes, never old ones, no session lost, and nothing without an end. After each round, without
faults, every page is right again; memory and open files are what they were. The seed is printed;
with it, the same calls of each function fail in the same way.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import h11
import trio

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving
from benchmarks.robustness.faulty_server import PLANS

KINDS = [[kind] for kind in (*PLANS, "stop")] + [[*PLANS, "stop"]]
"""The kinds of faults of each round, in turn."""
VISITORS = 8
PATIENCE = 20.0
"""Seconds in which an answer must have come, or the connection be closed."""
RECOVERY = 10.0
"""Seconds after the last fault in which everything must be right again."""
STOPPED = 0.5
"""Seconds that the process stands still under ``stop``."""
REFUSALS = (500, 503, 507)
MOST_GROWTH = 16 * 2**20
"""Bytes that the server may grow by after the first quarter of the rounds."""
MOST_FILES = 4
"""How many more descriptors it may have at the end of a round than at the beginning of all."""

TEXT = "".join(f"line {number}\n" for number in range(40_000)).encode()
STREAM = b"".join(b"chunk %d " % number * 500 for number in range(100))
UPLOAD = random.Random(1).randbytes(400_000)
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    + UPLOAD * 4
    + b"\r\n--B--\r\n"
)
SCRIPT = """
from rpyserve import cache
import helper

cache()


def resource(request):
    return f"script={version} helper={{helper.VERSION}}"
"""
HELPER = "VERSION = {version}\n"
EDITED = {"script": ("edited.rpy", SCRIPT), "helper": ("helper.py", HELPER)}
PAGES = {
    "visit.rpy": """
def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])
""",
    "stream.rpy": """
import trio


async def resource(request):
    return chunks()


async def chunks():
    for number in range(100):
        yield f"chunk {number} " * 500
        await trio.sleep(0.001)
""",
    "upload.rpy": """
import hashlib


def resource(request):
    return hashlib.sha256(request.content.read()).hexdigest()
""",
    "form.rpy": """
import hashlib


def resource(request):
    return hashlib.sha256(request.file("file").read()).hexdigest()
""",
    "hungry.rpy": """
def resource(request):
    return str(len(bytes(2**28)))
""",
}


@dataclass(frozen=True)
class Page:
    """What is asked for, and the one right answer."""

    path: str
    right: bytes
    status: int = 200
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


FORM_TYPE = ("Content-Type", "multipart/form-data; boundary=B")
FIXED = [
    Page("/text.txt", TEXT),
    Page("/text.txt", TEXT[1000:300_000], 206, headers=(("Range", "bytes=1000-299999"),)),
    Page("/text.txt", b"", method="HEAD"),
    Page("/small/one.txt", b"one"),
    Page("/stream", STREAM),
    Page("/upload", _sha256(UPLOAD), method="POST", body=UPLOAD),
    Page("/form", _sha256(UPLOAD * 4), method="POST", body=FORM, headers=(FORM_TYPE,)),
    Page("/hungry", b"%d" % 2**28),
]
"""The pages that always have the same answer."""


@dataclass
class Answer:
    """What came back: `whole` says whether it had the end that its head promised."""

    status: int = 0
    cookie: str = ""
    body: bytes = b""
    whole: bool = False
    goes_on: bool = False


@dataclass
class Connection:
    """A connection of a client, with h11 for the framing."""

    stream: trio.SocketStream
    h11: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    async def ask(self, page: Page, cookie: str = "") -> Answer:
        """Send the request for *page*, and return what comes."""
        answer = Answer()
        headers = [("Host", "localhost"), *page.headers]
        if cookie:
            headers.append(("Cookie", cookie))
        if page.body:
            headers.append(("Content-Length", str(len(page.body))))
        request = h11.Request(method=page.method, target=page.path, headers=headers)
        data = self.h11.send(request) or b""
        if page.body:
            data += self.h11.send(h11.Data(data=page.body)) or b""
        data += self.h11.send(h11.EndOfMessage()) or b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, data)
            with suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                await self._receive(answer)
            nursery.cancel_scope.cancel()
        answer.goes_on = answer.whole and self.h11.their_state is h11.DONE
        if answer.goes_on:
            self.h11.start_next_cycle()
        return answer

    async def _send(self, data: bytes) -> None:
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def _receive(self, answer: Answer) -> None:
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                for name, value in event.headers:
                    if name == b"set-cookie":
                        answer.cookie = value.decode().partition(";")[0]
            elif isinstance(event, h11.Data):
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.whole = True
                return
            elif isinstance(event, h11.ConnectionClosed):
                return


@dataclass
class Result:
    """What was seen. It is good if nothing is in `wrong`."""

    rounds: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def check_growth(self) -> None:
        early = self.memory[len(self.memory) // 4]
        if self.memory[-1] - early > MOST_GROWTH:
            self.wrong.append(f"memory grew from {early:,} to {self.memory[-1]:,} bytes")
        if self.files[-1] - self.files[0] > MOST_FILES:
            self.wrong.append(f"open files were {self.files[0]}, and are {self.files[-1]}")

    def report(self) -> str:
        answers = ", ".join(f"{count:,} {what}" for what, count in sorted(self.answers.items()))
        memory = [f"{self.memory[at] / 2**20:.0f}" for at in (0, len(self.memory) // 4, -1)]
        return (
            f"{self.rounds} rounds, {self.injected.total():,} faults injected; {answers}; "
            f"memory {memory[0]} MiB before, {memory[1]} after a quarter, {memory[2]} at the end; "
            f"open files {self.files[0]} before, {self.files[-1]} at the end; "
            f"{len(self.wrong)} wrong"
        )


@dataclass
class Visitor:
    """Asks for one page after the other, until cancelled.

    Args:
        trial: what all visitors share.
        chance: decides what is asked for.
        visits: what the session counted last.
        unsure: how many visits since then may have been counted.
    """

    trial: Trial
    chance: random.Random
    cookie: str = ""
    visits: int = 0
    unsure: int = 0

    async def run(self) -> None:
        while True:
            async with self.trial.connected() as connection:
                goes_on = connection is not None
                while connection is not None and goes_on and self.chance.random() < 0.9:
                    goes_on = await self.ask_for_any(connection)
            await trio.sleep(0.01)

    async def ask_for_any(self, connection: Connection) -> bool:
        """Ask for some page, and judge the answer. Returns whether the connection goes on."""
        kind = self.chance.randrange(len(FIXED) + 4)
        if kind < len(FIXED):
            return await self.ask_for_fixed(connection, FIXED[kind])
        return await (self.ask_for_edited if kind % 2 else self.visit)(connection)

    async def ask_for_fixed(self, connection: Connection, page: Page) -> bool:
        answer = await self.trial.ask(connection, page)
        is_right = answer.status == page.status and answer.body == page.right
        is_beginning = page.right.startswith(answer.body)
        self.trial.judge(page, answer, is_right, is_beginning)
        return answer.goes_on

    async def ask_for_edited(self, connection: Connection) -> bool:
        page = Page("/edited", b"")
        at_least = dict(self.trial.saved)
        answer = await self.trial.ask(connection, page)
        seen = dict(
            word.split("=") for word in answer.body.decode().split() if answer.status == 200
        )
        is_fresh = all(int(seen.get(name) or -1) >= at_least[name] for name in at_least)
        self.trial.judge(page, answer, answer.status == 200 and is_fresh, True)
        return answer.goes_on

    async def visit(self, connection: Connection) -> bool:
        page = Page("/visit", b"")
        self.unsure += 1
        answer = await self.trial.ask(connection, page, self.cookie)
        self.cookie = answer.cookie or self.cookie
        seen = int(answer.body) if answer.body.isdigit() else 0
        is_right = answer.status == 200 and self.visits < seen <= self.visits + self.unsure
        self.trial.judge(page, answer, is_right, True)
        if answer.whole and is_right:
            self.visits, self.unsure = seen, 0
        return answer.goes_on


@dataclass
class Trial:
    """A server with faults, and all that uses it.

    Attributes:
        saved: which version of each edited file was saved last.
        round: what the present round is called.
    """

    site: Path
    server: ServerProcess
    seed: int
    result: Result
    saved: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EDITED, 0))
    round: str = ""

    def run(self, seconds: float, round_seconds: float, rounds: float = math.inf) -> None:
        """Play rounds, for some seconds or so many, until something is wrong."""
        end = time.monotonic() + seconds
        visitors = [Visitor(self, random.Random(f"{self.seed} {n}")) for n in range(VISITORS)]
        trio.run(self.recover, visitors[0])
        while not self.result.wrong:
            if self.result.rounds >= rounds or time.monotonic() > end:
                break
            kinds = KINDS[self.result.rounds % len(KINDS)]
            self.round = f"round {self.result.rounds} ({' '.join(kinds)})"
            trio.run(self.play, visitors, kinds, round_seconds)
            self.result.rounds += 1
        self.result.check_growth()

    async def play(self, visitors: list[Visitor], kinds: list[str], seconds: float) -> None:
        plan = [kind for kind in kinds if kind in PLANS]
        await self.command(f"{self.seed}-{self.result.rounds} {' '.join(plan)}")
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for visitor in visitors:
                    nursery.start_soon(visitor.run)
                nursery.start_soon(self.edit)
                if "stop" in kinds:
                    nursery.start_soon(self.stop_and_continue)
        self.result.injected.update(await self.command(""))
        await self.recover(visitors[0])

    async def command(self, line: str) -> dict[str, int]:
        """Tell the server its plan. Returns how often each fault was injected by the last one."""
        process = self.server.process
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), f"{line}\n".encode())
        with trio.fail_after(PATIENCE):
            answer = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        if not answer:
            raise SystemExit(f"{self.round}: the server ended:\n{self.server.output()[-3000:]}")
        injected: dict[str, int] = json.loads(answer)
        return injected

    # What goes on during a round

    async def edit(self) -> None:
        while True:
            for name in EDITED:
                version = self.saved[name] + 1
                save(self.site, name, version)
                self.saved[name] = version
                await trio.sleep(0.1)

    async def stop_and_continue(self) -> None:
        process = self.server.process
        while True:
            try:
                process.send_signal(signal.SIGSTOP)
                await trio.sleep(STOPPED)
            finally:
                process.send_signal(signal.SIGCONT)
            await trio.sleep(STOPPED)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection | None]:
        """A new connection; None if there is none to be had."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.server.port)
        except OSError:
            self.result.answers["without a connection"] += 1
            yield None
            return
        async with stream:
            yield Connection(stream)

    async def ask(self, connection: Connection, page: Page, cookie: str = "") -> Answer:
        with trio.move_on_after(PATIENCE) as scope:
            return await connection.ask(page, cookie)
        if scope.cancelled_caught:
            self.result.wrong.append(f"{self.round}: {page.method} {page.path} has no end")
        return Answer()

    def judge(self, page: Page, answer: Answer, is_right: bool, is_beginning: bool) -> None:
        """Count *answer*.

        Args:
            page: what was asked for.
            answer: what came.
            is_right: whether it is the right one, if it is whole.
            is_beginning: whether it is the beginning of the right one, if it is not.
        """
        if answer.status in REFUSALS:
            self.result.answers[f"refused ({answer.status})"] += 1
        elif not answer.whole and (is_beginning or not answer.status):
            self.result.answers["cut" if answer.status else "none"] += 1
        elif answer.whole and is_right:
            self.result.answers["right"] += 1
        else:
            self.result.wrong.append(
                f"{self.round}: {page.method} {page.path}: {answer.status}, "
                f"{len(answer.body)} bytes, {answer.body[:80]!r}; saved {self.saved}"
            )

    # What must be so after it

    async def recover(self, visitor: Visitor) -> None:
        """Without faults, all is right, after some seconds at most; see what the server uses."""
        deadline = trio.current_time() + RECOVERY
        while not await self.all_is_right(visitor) and not self.result.wrong:
            if trio.current_time() > deadline:
                self.result.wrong.append(f"{self.round}: it does not recover")
            await trio.sleep(0.1)
        await trio.sleep(0.2)
        self.result.memory.append(self.server.memory())
        self.result.files.append(self.server.open_files())

    async def all_is_right(self, visitor: Visitor) -> bool:
        """Whether each page is right, each asked for on a connection of its own."""
        before = self.result.answers["right"]
        asked = 0
        for page in FIXED:
            async with self.connected() as connection:
                if connection is not None:
                    await visitor.ask_for_fixed(connection, page)
            asked += 1
        for ask in (visitor.ask_for_edited, visitor.visit):
            async with self.connected() as connection:
                if connection is not None:
                    await ask(connection)
            asked += 1
        return self.result.answers["right"] - before == asked


def save(site: Path, name: str, version: int) -> None:
    """Save a version of one of the `EDITED` files, beside it and then over it."""
    file, text = EDITED[name]
    temporary = site / f".{file}.tmp"
    temporary.write_text(text.format(version=version))
    os.replace(temporary, site / file)


def make_site(site: Path) -> None:
    (site / "small").mkdir(parents=True)
    (site / "small" / "one.txt").write_text("one")
    (site / "text.txt").write_bytes(TEXT)
    for name, text in PAGES.items():
        (site / name).write_text(text)
    for name in EDITED:
        save(site, name, 0)


def inject(
    directory: Path, seed: int, seconds: float, round_seconds: float, rounds: float = math.inf
) -> Result:
    """Play rounds, for some seconds or so many, against a server of its own in *directory*."""
    site = directory / "site"
    make_site(site)
    result = Result()
    module = "benchmarks.robustness.faulty_server"
    with serving(site, directory / "console", module=module) as server:
        Trial(site, server, seed, result).run(seconds, round_seconds, rounds)
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--round", type=float, default=4, help="the seconds of one round")
    parser.add_argument("--seed", type=int, help="of the plans; by default another each time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() // 1000 % 10**9
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        result = inject(Path(directory), seed, options.seconds, options.round)
    print(result.report())
    for fault, count in sorted(result.injected.items()):
        print(f"  {count:6,} {fault}")
    for message in result.wrong[:10]:
        print(f"WRONG: {message}")
    sys.exit(bool(result.wrong))


if __name__ == "__main__":
    main()
