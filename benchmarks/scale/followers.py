"""Pages that follow edits, and one save: when is the last of them told, and how long wait others?

Each page has a stream of changes, as that of a browser of its own. Somebody else asks for another
page all the time, in a process of its own: ``python -m benchmarks.scale.followers PORT SECONDS``
prints when each of their requests was sent and how long it took, as JSON. What pages ask for once
they have been told is not in the figures.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.docs import ROOT
from benchmarks.common.server_process import ServerProcess, serving

PAGE = "def resource(request): return '<h1>{}</h1>'\n"
QUIET = 1.0
"""Seconds before the save, and after it, for which the others are watched."""
SETTLE = 3.0
"""Seconds until files that were written for the site are no longer new."""
OTHER_REQUEST = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
MOST_SECONDS = 30
PAUSE = 0.0005
"""Seconds between two requests of the others."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All in milliseconds.

    Args:
        told: from the save until the last page was told.
        waited: the longest wait of another request meanwhile, and in the second after the save.
        waited_before: the longest in the second before the save: what the machine does anyway.
    """

    told: float
    waited: float
    waited_before: float


def measure(directory: Path, pages: int) -> Figures:
    """Save a page of a new site in *directory* that so many pages follow."""
    site = directory / f"followed by {pages}"
    site.mkdir()
    page = site / "page.rpy"
    page.write_text(PAGE.format("before"))
    (site / "other.rpy").write_text("cache()\n" + PAGE.format("other"))
    with (
        serving(site, directory / "console") as server,
        following(server, pages) as streams,
        asking_for_another(server) as others,
    ):
        time.sleep(SETTLE)
        saved = time.monotonic()
        page.write_text(PAGE.format("after"))
        told = wait_all_told(streams) - saved
        time.sleep(max(0.0, QUIET - told))
        waits = others.stop()
    after = [took for sent, took in waits if sent + took >= saved]
    before = [took for sent, took in waits if saved - QUIET <= sent < saved - took]
    return Figures(told * 1000, max(after) * 1000, max(before) * 1000)


@contextmanager
def following(server: ServerProcess, pages: int) -> Iterator[list[socket.socket]]:
    """While inside, there are so many streams of changes."""
    streams: list[socket.socket] = []
    try:
        for number in range(pages):
            stream = socket.create_connection(("127.0.0.1", server.port), 30)
            streams.append(stream)
            stream.sendall(
                f"GET /-/events?page=/page&shared=&name=page{number} HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{server.port}\r\nUser-Agent: browser {number}\r\n"
                "Accept: text/event-stream\r\nSec-Fetch-Site: same-origin\r\n\r\n".encode()
            )
            wait_for(stream, b"event: hello\n")
        yield streams
    finally:
        for stream in streams:
            stream.close()


def wait_for(stream: socket.socket, text: bytes) -> None:
    received = b""
    while text not in received:
        data = stream.recv(65536)
        assert data, received
        received += data


def wait_all_told(streams: list[socket.socket]) -> float:
    """Return when the last of *streams* had an event of a change."""
    received = {stream: b"" for stream in streams}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ, stream)
        end = time.monotonic() + MOST_SECONDS
        while received:
            assert time.monotonic() < end, f"{len(received)} pages were not told"
            for key, _ in selector.select(1):
                stream = key.data
                received[stream] += stream.recv(65536)
                if b"event: change\n" in received[stream]:
                    selector.unregister(stream)
                    del received[stream]
    return time.monotonic()


# The others


class Others:
    """The process of `asking_for_another`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> list[tuple[float, float]]:
        """Return when each request was sent, and how long it took, in seconds."""
        output, _ = self._process.communicate("stop\n", 30)
        waits: list[tuple[float, float]] = json.loads(output)
        return waits


@contextmanager
def asking_for_another(server: ServerProcess) -> Iterator[Others]:
    """While inside, another page is asked for all the time."""
    command = [sys.executable, "-m", "benchmarks.scale.followers", str(server.port)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield Others(process)
    finally:
        process.kill()
        process.wait()


def ask(port: int) -> list[tuple[float, float]]:
    """Ask until there is a line on stdin."""
    waits = []
    with (
        selectors.DefaultSelector() as selector,
        socket.create_connection(("127.0.0.1", port), 30) as client,
    ):
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(PAUSE):
            sent = time.monotonic()
            client.sendall(OTHER_REQUEST)
            wait_for(client, b"</h1>")
            waits.append((sent, time.monotonic() - sent))
    return waits


if __name__ == "__main__":
    print(json.dumps(ask(int(sys.argv[1]))))
