"""A WSGI application whose client fails at every moment.

Its iterable is closed, its thread ends, and none is lost.

As `test_fault_injection`, but in real time, because no clock can be moved while a thread works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from rpyserve import Resource, Site, WSGIResource
from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.server_state import Limits
from tests.support.faulty_stream import CancelAt, Fault, Scripted, tasks
from tests.support.http_client import CLIENT, SERVER, head

QUICK = Limits(half_close=0.01, linger=0.05)

REQUESTS: dict[str, list[bytes]] = {
    "chunks": [head("GET", "/app/"), head("GET", "/app/")],
    "upload": [head("POST", "/app/", "Content-Length: 700000"), b"x" * 350_000, b"x" * 350_000],
    "failure": [head("GET", "/app/?fail")],
}


class Application:
    def __init__(self) -> None:
        self.begun = 0
        self.closed = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        self.begun += 1
        try:
            size = len(environ["wsgi.input"].read())
            start_response("200 OK", [])
            yield b"%d" % size
            for _ in range(3):
                yield b"x" * 70_000
            if environ["QUERY_STRING"]:
                raise ValueError("on purpose")
        finally:
            self.closed += 1


def play(
    lines: list[bytes], at: int | None, fault: Fault, step: int | None = None
) -> tuple[int, int]:
    app = Application()
    resource = WSGIResource(app)

    async def main() -> tuple[int, int]:
        root = Resource()
        root.putChild("app", resource)
        before = tasks()
        async with Site(root).running() as site:
            with trio.CancelScope() as outer:
                stream = Scripted(lines, at, fault, outer)
                counter = CancelAt(step, outer)
                trio.lowlevel.add_instrument(counter)
                try:
                    with trio.fail_after(60):
                        await serve_connection(
                            stream, site.respond, limits=QUICK, client=CLIENT, server=SERVER
                        )
                finally:
                    trio.lowlevel.remove_instrument(counter)
            with trio.fail_after(10):
                while resource._limiter.borrowed_tokens or app.closed != app.begun:  # noqa: ASYNC110
                    await trio.sleep(0.001)
        with trio.fail_after(10):
            while tasks() > before:  # noqa: ASYNC110
                await trio.sleep(0.001)
        return stream.uses, counter.steps

    return trio.run(main, strict_exception_groups=True)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.CLOSED, Fault.EOF, Fault.CANCEL])
def test_every_use_of_the_stream_fails_once(kind: str, fault: Fault) -> None:
    uses, _ = play(REQUESTS[kind], None, fault)
    for at in range(uses):
        play(REQUESTS[kind], at, fault)


@pytest.mark.parametrize("kind", REQUESTS)
def test_cancelled_before_every_step_of_every_task(kind: str) -> None:
    _, steps = play(REQUESTS[kind], None, Fault.CANCEL)
    for step in range(steps):
        play(REQUESTS[kind], None, Fault.CANCEL, step)
