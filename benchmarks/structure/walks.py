"""The way of a request, and of a save, through the package: calls, files, and moves between files.

``python -m benchmarks.structure.walks`` serves a small site with `rpyserve.serve` in this process,
over memory streams instead of sockets, and records by `sys.setprofile` every call of a function of
the package:

- for a request to a cached script that counts in a session, whose head the server has seen before,
  or has not;
- for a page that a browser loads, which gets the script tag of live reload;
- for a save, until the bytes of the event are on the stream of a page that listens;
- for the request that fetches the page again after it.

A coroutine that is resumed counts as a call again, so the figures are an upper bound, good for
comparing one state of the package with another. Only public names of the package are used, so this
goes on working when its modules are merged, moved or renamed.

What has nothing to do with the walk is kept out: requests are recorded early in a second, after one
that has made the head of that second's responses; the directory has just changed, so that its names
are looked up; tasks run in the order in which they were woken; what trio calls in each turn of its
loop does not count, nor does what the thread that watches the files does after it has told of a
save. Each walk is recorded several times, and the most frequent recording is shown.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import NamedTuple
from unittest import mock

import trio
from trio.testing import MemorySendStream, memory_stream_pair, wait_all_tasks_blocked

import rpyserve
from benchmarks.common.client import Client
from benchmarks.common.options import option_parser

ROUNDS = 5
SETTLE = 2.5
"""Seconds to wait before the first request, so that what it does not need has been imported, and
before requests are recorded: files that were read less than 2 seconds ago are compared by contents.
"""
QUIET = 0.2
"""Seconds before a recording, for the access log to be written and the files to be looked at."""
INSTRUMENTATION = trio._core._instrumentation.__file__
"""The module of trio whose calls, one in each turn of the loop, do not count."""

SCRIPT = """\
from rpyserve import Resource

cache()


class Counter(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["visits"] = session.get("visits", 0) + 1
        return f"<!DOCTYPE html><html><head></head><body>Visit {{session['visits']:08}}"


resource = Counter()  # version {version}
"""
CURL = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
}
NAVIGATION = BROWSER | {
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}
FETCH = BROWSER | {
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
FOLLOW = "Rpyserve-Follow"
"""The header by which the script in a page asks for that page again."""


class Call(NamedTuple):
    """One call: the file, below the package's directory, and the function."""

    file: str
    function: str

    @property
    def package(self) -> str:
        return self.file.rpartition("/")[0]


Calls = tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """The calls of one thing that the server does, in order."""

    title: str
    calls: Calls

    @property
    def files(self) -> list[str]:
        """The files in the order of the calls, without repetitions of one after another."""
        return [file for file, _ in groupby(call.file for call in self.calls)]

    @property
    def packages(self) -> list[str]:
        return [package for package, _ in groupby(call.package for call in self.calls)]

    def figures(self) -> list[int]:
        """Calls, files, moves from file to file, packages, moves from package to package."""
        files, packages = self.files, self.packages
        return [
            len(self.calls),
            len(set(files)),
            len(files) - 1,
            len(set(packages)),
            len(packages) - 1,
        ]


class Recorder:
    """A profile function that notes the calls into the package, while it is told to."""

    def __init__(self) -> None:
        self._package = str(Path(rpyserve.__file__).parent) + os.sep
        self._loop_thread = threading.get_ident()
        self._calls: list[Call] = []
        self._recording = False
        self._other_threads = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if not self._recording or event != "call" or not path.startswith(self._package):
            return
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename == INSTRUMENTATION:
            return
        if threading.get_ident() == self._loop_thread:
            self._other_threads = False
        elif not self._other_threads:
            return
        file = path.removeprefix(self._package).replace(os.sep, "/")
        self._calls.append(Call(file, frame.f_code.co_qualname))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, this thread and those that it starts are profiled."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def start(self, *, other_threads: bool = False) -> None:
        """Begin a recording.

        Args:
            other_threads: whether calls in other threads count until the first one in the loop's.
        """
        self._calls = []
        self._other_threads = other_threads
        self._recording = True

    def stop(self) -> Calls:
        self._recording = False
        return tuple(self._calls)


# The connection


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts memory streams instead of sockets; a real socket stands for its address."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self._connecting, self._accepted = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._accepted.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._connecting.close()
        self.socket.close()
        await trio.lowlevel.checkpoint()

    def connect(self) -> tuple[Client, MemorySendStream]:
        """A client, and the stream on which the server sends to it."""
        near, far = memory_stream_pair()
        address = self.socket.getsockname()
        ends = SimpleNamespace(
            getpeername=lambda: ("127.0.0.1", 50000), getsockname=lambda: address
        )
        far.socket = ends  # type: ignore[attr-defined]
        self._connecting.send_nowait(far)
        return Client(near), far.send_stream


# The walks


@dataclass
class Tracer:
    """A server with one script, a client, and a page that listens for changes."""

    recorder: Recorder
    root: Path
    client: Client
    listening: Client
    events: MemorySendStream
    """On which the server sends to `listening`."""
    number: int = 0

    async def warm_up(self) -> None:
        """Request everything once; then the script has been read."""
        for headers in (CURL, NAVIGATION, FETCH):
            await self.client.get("/counter", headers)

    async def listen(self) -> None:
        await self.listening.send_head("GET", "/-/events", FETCH | {"Accept": "text/event-stream"})
        await self.listening.receive_until(b"event: hello")

    async def record(self, walk: Callable[[], Awaitable[Calls]], rounds: int) -> Calls:
        """Return the most frequent of so many recordings; of several, the first only warms up."""
        recordings = [await walk() for _ in range(rounds)]
        return max(recordings[1:] or recordings, key=recordings.count)

    async def known_head(self) -> Calls:
        return await self._request(lambda: CURL)

    async def new_head(self) -> Calls:
        return await self._request(lambda: CURL | {"X-Number": self._next_number()})

    async def page_load(self) -> Calls:
        return await self._request(
            lambda: NAVIGATION | {"X-Number": self._next_number()}, b"<script"
        )

    async def save(self) -> Calls:
        """From a save to the bytes of the event, the next that the server sends on that stream."""
        calls: Calls = ()
        pass_on = self.events.send_all_hook
        assert pass_on is not None

        async def stop_and_pass_on() -> None:
            nonlocal calls
            calls = self.recorder.stop()
            await pass_on()

        await trio.sleep(QUIET)
        new = self.root.with_name("new.rpy")
        new.write_text(SCRIPT.format(version=self._next_number()), encoding="utf-8")
        self.events.send_all_hook = stop_and_pass_on
        self.recorder.start(other_threads=True)
        new.replace(self.root / "counter.rpy")
        with trio.fail_after(20):
            await self.listening.receive_until(b"event: change")
        self.events.send_all_hook = pass_on
        return calls

    async def refetch(self) -> Calls:
        """A request whose script is executed anew, since it was saved."""
        return await self._request(
            lambda: FETCH | {FOLLOW: self._next_number()}, b"<script", between=self.save
        )

    async def _request(
        self,
        headers: Callable[[], dict[str, str]],
        expected: bytes = b"Visit",
        between: Callable[[], Awaitable[object]] | None = None,
    ) -> Calls:
        """Record the second of two requests; the first has the ``Date`` of this second made."""
        await self._begin_second()
        await self.client.get("/counter", headers())
        if between is not None:
            await between()
        os.utime(self.root)
        await trio.sleep(QUIET)
        self.recorder.start()
        body = await self.client.get("/counter", headers())
        await wait_all_tasks_blocked()
        calls = self.recorder.stop()
        assert expected in body, body
        return calls

    async def _begin_second(self) -> None:
        await trio.sleep(1.01 - time.time() % 1)

    def _next_number(self) -> str:
        self.number += 1
        return str(self.number)


@contextmanager
def access_log() -> Iterator[None]:
    """While inside, the lines of the access log are made, and go nowhere."""
    logger, handler = logging.getLogger("rpyserve.access"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def trace(rounds: int = ROUNDS, settle: float = SETTLE) -> list[Walk]:
    """Record all walks, each so many times."""
    recorder = Recorder()
    in_order = mock.patch.object(trio._core._run._r, "random", lambda: 1.0)
    with access_log(), tempfile.TemporaryDirectory() as directory, in_order, recorder.installed():
        root = Path(directory).resolve() / "site"
        root.mkdir()
        (root / "counter.rpy").write_text(SCRIPT.format(version=0), encoding="utf-8")
        return trio.run(_trace, recorder, root, rounds, settle)


async def _trace(recorder: Recorder, root: Path, rounds: int, settle: float) -> list[Walk]:
    listener = MemoryListener()

    async def open_listeners(*args: object, **options: object) -> list[MemoryListener]:
        await trio.lowlevel.checkpoint()
        return [listener]

    async with trio.open_nursery() as nursery:
        with mock.patch.object(trio, "open_tcp_listeners", open_listeners):
            await nursery.start(rpyserve.serve, rpyserve.Site(rpyserve.Directory(root)))
        client, _ = listener.connect()
        listening, events = listener.connect()
        tracer = Tracer(recorder, root, client, listening, events)
        await trio.sleep(settle)
        await tracer.warm_up()
        await tracer.listen()
        # Saves come first: a save is compared with the requests of the last seconds.
        saves = await tracer.record(tracer.save, rounds)
        await tracer.warm_up()
        await trio.sleep(settle)
        walks = [
            Walk("request, known head", await tracer.record(tracer.known_head, rounds)),
            Walk("request, new head", await tracer.record(tracer.new_head, rounds)),
            Walk("page load in a browser", await tracer.record(tracer.page_load, rounds)),
            Walk("save, to the event's bytes", saves),
            Walk("page fetched after the save", await tracer.record(tracer.refetch, rounds)),
        ]
        nursery.cancel_scope.cancel()
    return walks


def report(walks: Iterable[Walk], *, files: bool, calls: bool) -> None:
    print(f"{'':28}{'calls':>8}{'files':>8}{'moves':>8}{'packages':>10}{'moves between them':>20}")
    for walk in walks:
        called, entered, moved, packages, between = walk.figures()
        print(f"{walk.title:28}{called:8}{entered:8}{moved:8}{packages:10}{between:20}")
    for walk in walks:
        if files:
            print(f"\n{walk.title}:", *walk.files, sep="\n  ")
        if calls:
            print(
                f"\n{walk.title}:",
                *(f"{call.file}: {call.function}" for call in walk.calls),
                sep="\n  ",
            )


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how often each is recorded ({ROUNDS})"
    )
    parser.add_argument("--list", action="store_true", help="list the files of each, in order")
    parser.add_argument("--calls", action="store_true", help="list all calls of each, in order")
    options = parser.parse_args()
    report(trace(options.rounds), files=options.list, calls=options.calls)


if __name__ == "__main__":
    main()
