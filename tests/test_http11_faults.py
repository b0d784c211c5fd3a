"""Every wait of a connection fails once, in every way that it can; nothing may be left open, or be raised."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from wire import CLIENT, SERVER, chunked, head

from rpyserve.exchange import Exchange, Limits
from rpyserve.http11 import serve_connection
from rpyserve.request import Request
from rpyserve.response import FileBody, Response

BIG = b"x" * 150_000


class Fault(enum.Enum):
    BROKEN = enum.auto()
    CLOSED = enum.auto()
    STALL = enum.auto()
    EOF = enum.auto()
    CANCEL = enum.auto()


class Scripted(trio.abc.HalfCloseableStream):
    """A client that says *lines*, one a receive, then nothing; the *at*-th use of the stream meets *fault*."""

    def __init__(self, lines: list[bytes], at: int | None, fault: Fault, outer: trio.CancelScope) -> None:
        self.lines = list(lines)
        self.at = at
        self.fault = fault
        self.outer = outer
        self.uses = 0
        self.dead = False
        self.closed = False
        self.sent = b""

    async def _use(self) -> None:
        assert not self.closed, "used after it was closed"
        await trio.lowlevel.checkpoint()
        number, self.uses = self.uses, self.uses + 1
        if self.dead or (number == self.at and self.fault is Fault.BROKEN):
            self.dead = True
            raise trio.BrokenResourceError
        if number == self.at:
            if self.fault is Fault.CLOSED:
                self.dead = True
                raise trio.ClosedResourceError
            if self.fault is Fault.STALL:
                await trio.sleep_forever()
            if self.fault is Fault.CANCEL:
                self.outer.cancel()
                await trio.lowlevel.checkpoint()
            self.lines = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._use()
        if not self.lines and self.at is not None and self.fault is not Fault.EOF:
            await trio.sleep_forever()
        return self.lines.pop(0) if self.lines else b""

    async def send_all(self, data: Any) -> None:
        await self._use()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        await self._use()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Held:
    """What a response holds, and whether it has been let go."""

    def __init__(self) -> None:
        self.open = 0

    def as_bytes(self) -> Any:
        return BIG

    def as_file(self) -> Any:
        held = self
        held.open += 1

        class File(BytesIO):
            def close(self) -> None:
                held.open -= not self.closed
                super().close()

        return FileBody(File(BIG), (b"head", range(len(BIG))))

    def as_generator(self) -> Any:
        def generate() -> Iterator[bytes]:
            self.open += 1
            try:
                yield b"one"
                yield BIG
            finally:
                self.open -= 1

        return generate()

    def as_async_generator(self) -> Any:
        async def generate() -> AsyncIterator[bytes]:
            self.open += 1
            try:
                yield b"one"
                await trio.sleep(0.1)
                yield BIG
            finally:
                self.open -= 1

        return generate()


BODIES: list[Callable[[Held], Any]] = [Held.as_bytes, Held.as_file, Held.as_generator, Held.as_async_generator]

CHUNKED_POST = head("POST", "/", "Transfer-Encoding: chunked", "Expect: 100-continue")
SCRIPTS = {
    "body, keep-alive": [CHUNKED_POST[:9], CHUNKED_POST[9:], chunked(b"abc", end=b""), chunked(b"d"), head("GET", "/")],
    "unread body": [head("PUT", "/", "Content-Length: 10") + b"abc", b"defghij", head("GET", "/")],
    "large unread body": [head("PUT", "/", "Content-Length: 100000"), b"abc", b"def"],
    "HTTP/1.0": [head("GET", "/", version="1.0")],
    "HEAD": [head("HEAD", "/") * 2],
    "refusal": [b"nonsense\r\n\r\n", b"more", b"more"],
}  # fmt: skip


def serve_once(make_body: Callable[[Held], Any], lines: list[bytes], at: int | None, fault: Fault) -> Scripted:
    held = Held()
    requests: list[Request] = []
    exchanges: list[Exchange] = []

    async def respond(request: Request) -> Response:
        requests.append(request)
        held.open += 1
        request.on_close(lambda: setattr(held, "open", held.open - 1))
        if request.method == "POST":
            await request.load_body()
        return Response(make_body(held))

    async def main() -> Scripted:
        with trio.CancelScope() as outer:
            stream = Scripted(lines, at, fault, outer)
            with trio.fail_after(1000):
                await serve_connection(
                    stream, respond, limits=Limits(), client=CLIENT, server=SERVER, on_exchange=exchanges.append
                )
        assert held.open == 0
        assert stream.closed
        assert [exchange.request for exchange in exchanges if exchange.request] == requests
        assert sum(exchange.sent for exchange in exchanges) <= len(stream.sent)
        return stream

    return trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("make_body", BODIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_left_open(make_body: Callable[[Held], Any], script: str, fault: Fault, caplog: Any) -> None:
    whole = serve_once(make_body, SCRIPTS[script], None, fault)
    assert whole.sent.startswith(b"HTTP/1.1 ")
    assert whole.uses > 1
    for at in range(whole.uses):
        stream = serve_once(make_body, SCRIPTS[script], at, fault)
        assert len(stream.sent) <= len(whole.sent)
    assert not caplog.records


@pytest.mark.parametrize("make_body", BODIES)
def test_nothing_is_left_open_when_a_send_half_way_fails(make_body: Callable[[Held], Any]) -> None:
    whole = serve_once(make_body, SCRIPTS["HTTP/1.0"], None, Fault.BROKEN)
    assert whole.sent.endswith(BIG)
    cut = serve_once(make_body, SCRIPTS["HTTP/1.0"], 2, Fault.BROKEN)
    assert len(cut.sent) < len(whole.sent)
