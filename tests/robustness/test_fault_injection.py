"""A client, or the server's end, fails at every moment of every kind of answer.

The next client notices nothing.

Three ways of failing: each use of the stream resets, stalls, ends or is cancelled; the bytes of the
request come in two pieces, cut at each place, or one by one; and the whole connection is cancelled
before each step of each task. After every one of them the next client gets the right answer, and no
task, no file and no session too many is left.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from rpyserve import (
    NOT_DONE_YET,
    Directory,
    HTTPError,
    Redirect,
    Request,
    Resource,
    Response,
    Site,
    websocket,
)
from rpyserve.files.static_file import StaticFile
from rpyserve.http.request import RequestRecord
from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.server_state import Limits
from tests.support.faulty_stream import CancelAt, Fault, Scripted, open_files, tasks
from tests.support.http_client import CLIENT, SERVER, chunked, head

BIG = "x" * 150_000

STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


class Kinds(Resource):
    """Every kind of answer, by the path's last segment."""

    isLeaf = True

    def __init__(self, file: Path) -> None:
        self.file = file
        self.open = 0
        self.later: Callable[[Callable[[], Awaitable[None]]], object] = lambda f: None

    def render(self, request: Request) -> Any:
        return getattr(self, request.prepath[0] if request.prepath[0] else "bytes")(request)

    def bytes(self, request: Request) -> str:
        return "hello"

    def big(self, request: Request) -> str:
        return BIG

    def file_(self, request: Request) -> Any:
        return StaticFile(self.file).render(request)

    def generator(self, request: Request) -> Iterator[str]:
        self.open += 1
        try:
            yield "one"
            yield BIG
        finally:
            self.open -= 1

    async def chunks(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            yield "one"
            await trio.sleep(0.1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0.1)
                yield BIG
        finally:
            self.open -= 1

    def async_generator(self, request: Request) -> AsyncIterator[str]:
        return self.chunks()

    async def slow(self, request: Request) -> str:
        self.open += 1
        try:
            await trio.sleep(0.1)
            return BIG
        finally:
            self.open -= 1

    def not_done_yet(self, request: Request) -> Any:
        async def go_on() -> None:
            for _ in range(3):
                await trio.sleep(0.05)
                request.write(BIG)
            request.finish()

        request.write("one")
        self.later(go_on)
        return NOT_DONE_YET

    def redirect(self, request: Request) -> Any:
        return Redirect("/elsewhere")

    def session(self, request: Request) -> str:
        session = request.getSession()
        session.regenerate()
        return "hello"

    def fails(self, request: Request) -> str:
        raise ValueError("on purpose")

    def missing(self, request: Request) -> str:
        raise HTTPError(404)

    def fails_at_once(self, request: Request) -> Iterator[str]:
        raise ValueError("on purpose")
        yield ""

    def fails_half_way(self, request: Request) -> Iterator[str]:
        yield "one"
        raise ValueError("on purpose")

    def form(self, request: Request) -> str:
        return (
            f"{request.field('name')} {request.file('file').size} "
            f"{len(request.file('file').read())}"
        )

    def beside(self, request: Request) -> Any:
        async def work() -> None:
            self.open += 1
            try:
                await trio.sleep(0.1)
                request.write(BIG)
                request.finish()
                await trio.sleep_forever()
            finally:
                self.open -= 1

        request.start_soon(work)
        return NOT_DONE_YET

    def socket(self, request: Request) -> Any:
        async def talk(socket: Any) -> None:
            self.open += 1
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(socket.send, BIG)
                    async for message in socket:
                        await socket.send(message)
                    nursery.cancel_scope.cancel()
            finally:
                self.open -= 1

        return websocket(talk).render(request)

    def echo(self, request: Request) -> Response:
        return Response(request.content.read())


class Root(Resource):
    """Leaves bodies to its children."""

    _wants_body = False


class Ignoring(Resource):
    """Wants no body, and streams."""

    isLeaf = True
    _wants_body = False

    def render(self, request: Request) -> Iterator[str]:
        yield "hello"


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="name"\r\n\r\nada\r\n--B\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    + b"x" * 600_000
    + b"\r\n--B--\r\n"
)
SHAKE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {'A' * 22}==",
    "Sec-WebSocket-Version: 13",
]


def frame(code: int, data: bytes) -> bytes:
    """A frame of a client (RFC 6455, section 5.2), whose mask is of zeros."""
    size = (
        bytes([0x80 | len(data)])
        if len(data) < 126
        else bytes([0xFE]) + len(data).to_bytes(2, "big")
    )
    return bytes([0x80 | code]) + size + bytes(4) + data


POST = head("POST", "/echo", "Transfer-Encoding: chunked", "Expect: 100-continue")
LARGE = head("POST", "/echo", "Content-Length: 600000")
REQUESTS: dict[str, list[bytes]] = {
    **{name: [head("GET", f"/{name}"), head("GET", "/")] for name in (
        "bytes", "big", "file_", "generator", "async_generator", "slow", "not_done_yet", "redirect", "session", "fails",
        "missing", "fails_at_once", "fails_half_way",
    )},
    "range": [head("GET", "/file_", "Range: bytes=1000-140000"), head("GET", "/")],
    "ranges": [head("GET", "/file_", "Range: bytes=0-9,100-90000,-5")],
    "not modified": [head("GET", "/file_", "If-None-Match: *"), head("GET", "/")],
    "100-continue": [POST, chunked(b"abc", end=b""), chunked(b"z" * 70_000), head("GET", "/")],
    "upload to disk": [LARGE, b"x" * 300_000, b"x" * 300_000, head("GET", "/")],
    "form": [head("POST", "/form", "Content-Type: multipart/form-data; boundary=B", f"Content-Length: {len(FORM)}"),
             FORM[:100], FORM[100:300_000], FORM[300_000:], head("GET", "/")],
    "task": [head("GET", "/beside"), head("GET", "/")],
    "WebSocket": [head("GET", "/socket", *SHAKE) + frame(1, b"early"), frame(1, b"x" * 70), frame(9, b"?"),
                  frame(2, b"y" * 30_000), frame(8, b"\x03\xe8")],
    "HEAD": [head("HEAD", "/big") + head("HEAD", "/file_"), head("HEAD", "/async_generator"), head("GET", "/")],
    "HTTP/1.0": [head("GET", "/generator", version="1.0")],
    "pipelined": [head("GET", "/slow") + head("GET", "/file_") + POST + chunked(b"abc") + head("GET", "/generator")],
    "directory": [head("GET", "/files/") + head("GET", "/files/file.txt") + head("GET", "/files/none")],
    "unread body": [head("PUT", "/ignoring", "Content-Length: 10") + b"abc", b"defghij", head("GET", "/")],
    "large unread body": [head("PUT", "/ignoring", "Content-Length: 100000"), b"abc", b"def"],
    "last": [head("GET", "/big", "Connection: close"), b"more"],
    "refusal": [head("GET", "/") + b"nonsense\r\n\r\n", b"more"],
}  # fmt: skip


@dataclass
class World:
    """A site and the connections to it, in one trio run."""

    site: Site
    kinds: Kinds
    records: list[RequestRecord] = field(default_factory=list)

    async def serve(self, stream: Scripted) -> None:
        await serve_connection(
            stream,
            self.site.respond,
            limits=Limits(),
            client=CLIENT,
            server=SERVER,
            on_record=self.records.append,
        )

    async def fail(
        self, lines: list[bytes], at: int | None, fault: Fault, step: int | None = None
    ) -> tuple[Scripted, int]:
        """Serve one client with its fault. Returns its stream, and how many steps that took."""
        with trio.CancelScope() as outer:
            stream = Scripted(lines, at, fault, outer)
            counter = CancelAt(step, outer)
            async with trio.open_nursery() as nursery:
                self.kinds.later = nursery.start_soon
                trio.lowlevel.add_instrument(counter)
                try:
                    with trio.fail_after(1000):
                        await self.serve(stream)
                finally:
                    trio.lowlevel.remove_instrument(counter)
                    nursery.cancel_scope.cancel()
        return stream, counter.steps

    async def check(self, files: int, living: int) -> None:
        """The next client is served, and nothing is left of the last one."""
        after = Scripted(
            [head("GET", "/"), head("GET", "/files/file.txt")], None, Fault.EOF, trio.CancelScope()
        )
        await self.serve(after)
        assert [int(status) for status in STATUS.findall(after.sent)] == [200, 200]
        assert b"\r\n\r\nhello" in after.sent and after.sent.endswith(BIG.encode())
        await trio.sleep(3)  # the task that keeps the time limits looks once more
        assert tasks() == living
        assert open_files() <= files  # less if garbage of another test goes meanwhile
        assert self.kinds.open == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "file.txt").write_text(BIG)
    kinds = Kinds(tmp_path / "file.txt")
    root = Root()
    for name in (name for name in vars(Kinds) if not name.startswith("__")):
        root.putChild(name, kinds)
    root.putChild("", kinds)
    root.putChild("ignoring", Ignoring())
    root.putChild("files", Directory(tmp_path))
    yield World(Site(root), kinds)


def run(world: World, what: Callable[[int, int], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with world.site.running():
            await trio.testing.wait_all_tasks_blocked()
            return await what(open_files(), tasks())

    return trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing but what the scripts do on purpose may be told."""
    yield
    told = {
        record.getMessage().partition("\n")[0]
        for record in caplog.records
        if record.levelname != "INFO"
    }
    assert not [
        line for line in told if "on purpose" not in line and "sees only a bare" not in line
    ]


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("fault", Fault)
def test_every_use_of_the_stream_fails_once(kind: str, fault: Fault, world: World) -> None:
    async def each(files: int, living: int) -> None:
        whole, _ = await world.fail(REQUESTS[kind], None, fault)
        assert STATUS.findall(whole.sent)
        assert whole.closed
        for at in range(whole.uses):
            stream, _ = await world.fail(REQUESTS[kind], at, fault)
            assert stream.closed and len(answers(stream.sent)[0]) <= len(answers(whole.sent)[0])
            await world.check(files, living)

    run(world, each)


@pytest.mark.parametrize("kind", REQUESTS)
def test_cancelled_before_every_step_of_every_task(kind: str, world: World) -> None:
    async def each(files: int, living: int) -> None:
        whole, steps = await world.fail(REQUESTS[kind], None, Fault.CANCEL)
        assert steps > 3
        for step in range(steps):
            stream, _ = await world.fail(REQUESTS[kind], None, Fault.CANCEL, step)
            assert len(answers(stream.sent)[0]) <= len(answers(whole.sent)[0])
            await world.check(files, living)

    run(world, each)


@pytest.mark.parametrize("kind", ["100-continue", "pipelined", "range", "refusal", "session"])
def test_a_request_cut_in_two_at_every_place_is_the_same_request(kind: str, world: World) -> None:
    data = b"".join(REQUESTS[kind])[:700]
    rest = b"".join(REQUESTS[kind])[700:]

    async def each(files: int, living: int) -> None:
        whole, _ = await world.fail([data + rest], None, Fault.EOF)
        for cut in range(1, len(data)):
            stream, _ = await world.fail([data[:cut], data[cut:] + rest], None, Fault.EOF)
            assert answers(stream.sent) == answers(whole.sent), data[:cut]
        await world.check(files, living)

    run(world, each)


@pytest.mark.parametrize("kind", sorted(REQUESTS.keys() - {"upload to disk"}))
def test_a_request_that_comes_byte_by_byte_is_the_same_request(kind: str, world: World) -> None:
    data = b"".join(REQUESTS[kind])
    drops = [data[n : n + 1] for n in range(min(len(data), 900))] + [data[900:]] * (len(data) > 900)

    async def each(files: int, living: int) -> None:
        whole, _ = await world.fail([data], None, Fault.EOF)
        stream, _ = await world.fail(drops, None, Fault.EOF)
        assert answers(stream.sent) == answers(whole.sent)
        await world.check(files, living)

    run(world, each)


_PASSING = re.compile(
    rb"HTTP/1\.1 100 Continue\r\n\r\n|(?:Date|Set-Cookie|ETag|Last-Modified): "
    rb"[^\r]*\r\n|\b[0-9a-f]{32}\b"
)


def answers(sent: bytes) -> tuple[list[int], int]:
    """Return the final statuses, and how much came.

    Interim answers do not count, nor does what goes by the time or is random.
    """
    return [int(status) for status in STATUS.findall(sent) if status != b"100"], len(
        _PASSING.sub(b"", sent)
    )
