"""A proxy whose client fails at every moment, or whose backend does.

No connection to the backend stays in use.

The same three ways of failing as in `test_fault_injection`; the backend is a site of ours, at the other end
of a pipe.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from rpyserve import Request, Resource, ReverseProxyResource, Site, websocket
from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.server_state import Limits
from tests.robustness.test_fault_injection import SHAKE, frame
from tests.support.faulty_stream import CancelAt, Fault, Scripted, tasks
from tests.support.http_client import CLIENT, SERVER, chunked, head

httpx = pytest.importorskip("httpx")
httpcore = pytest.importorskip("httpcore")
pytest.importorskip("wsproto")

BIG = "x" * 70_000

REQUESTS: dict[str, list[bytes]] = {
    "GET": [head("GET", "/api/"), head("GET", "/api/")],
    "HEAD": [head("HEAD", "/api/"), head("GET", "/api/")],
    "POST": [head("POST", "/api/", "Content-Length: 6"), b"abc", b"def", head("GET", "/api/")],
    "chunks": [
        head("POST", "/api/", "Transfer-Encoding: chunked", "Expect: 100-continue"),
        chunked(b"z" * 70_000),
    ],
    "stream": [head("GET", "/api/stream"), head("GET", "/api/")],
    "WebSocket": [head("GET", "/api/socket", *SHAKE), frame(1, b"hello"), frame(8, b"\x03\xe8")],
}


async def chunks() -> AsyncIterator[str]:
    for _ in range(3):
        yield BIG
        await trio.sleep(0.1)


@websocket
async def echo(socket: Any) -> None:
    async for message in socket:
        await socket.send(message)


class Backend(Resource):
    isLeaf = True

    def render(self, request: Request) -> Any:
        if request.path == "/socket":
            return echo.render(request)
        return chunks() if request.path == "/stream" else f"{len(request.content.read())}{BIG}"


class Pipe(httpcore.AsyncNetworkStream):  # type: ignore[misc]
    """A connection to the backend, whose *at*-th use fails."""

    def __init__(self, world: World, stream: Any) -> None:
        self.world = world
        self.stream = stream
        self.dead = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        self.world.use(httpcore.ReadError, self)
        try:
            return bytes(await self.stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore.ReadError from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self.world.use(httpcore.WriteError, self)
        try:
            await self.stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore.WriteError from exc

    async def aclose(self) -> None:
        self.world.open -= 1
        await self.stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


class World(httpcore.AsyncNetworkBackend):  # type: ignore[misc]
    """A proxy, and its backend at the other end of pipes."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.uses = 0
        self.open = 0
        self.behind = Site(Backend())
        self.nursery: Any = None
        root = Resource()
        root.putChild("api", ReverseProxyResource("http://backend"))
        self.site = Site(root)
        self.transport = httpx.AsyncHTTPTransport()
        self.transport._pool = httpcore.AsyncConnectionPool(network_backend=self)

    def use(self, error: type[Exception], pipe: Pipe | None = None) -> None:
        number, self.uses = self.uses, self.uses + 1
        if pipe is not None and number == self.at:
            pipe.dead = True
        if number == self.at or (pipe is not None and pipe.dead):
            raise error("on purpose")

    async def connect_tcp(self, *_: Any, **__: Any) -> Pipe:
        self.use(httpcore.ConnectError)
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs)
        self.open += 1
        return Pipe(self, ours)

    async def _serve(self, stream: Any) -> None:
        await serve_connection(stream, self.behind.respond, client=CLIENT, server=SERVER)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self.nursery, self.site.running():
            yield
            await trio.sleep(3)
            connections = self.transport._pool.connections
            # httpcore itself forgets one whose request was cancelled in the very moment after it
            # was opened.
            unused = [each for each in connections if "NEW" in repr(each)]
            assert all(
                each.is_idle() or each.is_closed() or each in unused for each in connections
            ), connections
            assert self.open == len([each for each in connections if not each.is_closed()])
            await self.transport.aclose()
            assert self.open == 0
            await trio.sleep(Limits().idle)
            self.nursery.cancel_scope.cancel()

    async def ask(
        self, lines: list[bytes], at: int | None, fault: Fault, step: int | None = None
    ) -> tuple[Any, int]:
        with trio.CancelScope() as outer:
            stream = Scripted(lines, at, fault, outer)
            counter = CancelAt(step, outer)
            trio.lowlevel.add_instrument(counter)
            try:
                with trio.fail_after(1000):
                    await serve_connection(stream, self.site.respond, client=CLIENT, server=SERVER)
            finally:
                trio.lowlevel.remove_instrument(counter)
        return stream, counter.steps


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    worlds: dict[Site, World] = {}

    def make(at: int | None = None) -> World:
        world = World(at)
        worlds[world.site] = world
        return world

    monkeypatch.setattr(
        "rpyserve.resources.upstream.transport_for",
        lambda request, verify: worlds[request.site].transport,
    )
    yield make


def play(
    world: World, lines: list[bytes], at: int | None, fault: Fault, step: int | None = None
) -> tuple[Any, int]:
    async def main() -> tuple[Any, int]:
        before = tasks()
        async with world.running():
            result = await world.ask(lines, at, fault, step)
        assert tasks() == before
        return result

    return trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)


STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("fault", Fault)
def test_every_use_of_the_clients_stream_fails_once(
    kind: str, fault: Fault, world: Callable[..., World]
) -> None:
    whole, _ = play(world(), REQUESTS[kind], None, fault)
    assert STATUS.findall(whole.sent)
    for at in range(whole.uses):
        play(world(), REQUESTS[kind], at, fault)


@pytest.mark.parametrize("kind", REQUESTS)
def test_cancelled_before_every_step_of_every_task(kind: str, world: Callable[..., World]) -> None:
    _, steps = play(world(), REQUESTS[kind], None, Fault.CANCEL)
    for step in range(steps):
        play(world(), REQUESTS[kind], None, Fault.CANCEL, step)


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_use_of_the_backends_stream_fails_once(
    kind: str, world: Callable[..., World]
) -> None:
    first = world()
    whole, _ = play(first, REQUESTS[kind], None, Fault.EOF)
    for at in range(first.uses):
        stream, _ = play(world(at), REQUESTS[kind], None, Fault.EOF)
        statuses = STATUS.findall(stream.sent)
        cut = len(stream.sent) < len(whole.sent) - 200
        assert statuses == STATUS.findall(whole.sent) or b"502" in statuses or cut, at
        assert statuses, "a page, or what there is of the answer"
