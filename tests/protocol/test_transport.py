"""What is sent by the system itself: files by the kernel, and small responses at once.

The same bytes come as by other ways, whatever happens.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rpyserve.http.request import Request, RequestRecord
from rpyserve.http.response import FileBody, Response
from rpyserve.protocol import response_writer
from rpyserve.serving.listeners import open_listeners, serve_listeners
from tests.support.http_client import Client, CutOff, head

CONTENT = os.urandom(1 << 20) * 5 + b"the end"

pytestmark = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this platform has no sendfile")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of sendfile has sent."""
    sent: list[int] = []

    def counted(*args: Any) -> int:
        sent.append(real(*args))
        return sent[-1]

    real = os.sendfile
    monkeypatch.setattr(os, "sendfile", counted)
    return sent


class Asked:
    """A client on a socket, and what the server noted of it."""

    def __init__(self, stream: trio.SocketStream, records: list[RequestRecord]) -> None:
        self.client = Client(stream)
        self.records = records


@asynccontextmanager
async def serving(make: Callable[[], Any]) -> AsyncIterator[Asked]:
    """Answer each request on a socket with the body that *make* gives."""
    records: list[RequestRecord] = []
    stop = trio.Event()

    async def respond(request: Request) -> Response:
        return Response(make(), headers={"Content-Type": "application/octet-stream"})

    async def serve(task_status: Any) -> None:
        await serve_listeners(
            respond, listeners, stop=stop, on_record=records.append, task_status=task_status
        )

    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield Asked(stream, records)
        stop.set()


def whole(path: Path, *parts: bytes | range) -> Callable[[], FileBody]:
    return lambda: FileBody(path.open("rb", buffering=0), parts or (range(len(CONTENT)),))


async def test_a_file_comes_whole_and_the_connection_goes_on(path: Path, calls: list[int]) -> None:
    async with serving(whole(path)) as asked:
        for _ in range(2):
            reply = await asked.client.get()
            assert reply.body == CONTENT
            assert reply.headers["content-length"] == str(len(CONTENT))
    assert sum(calls) > len(CONTENT)
    assert [(each.sent, each.complete) for each in asked.records] == [(len(CONTENT), True)] * 2


@pytest.mark.parametrize(
    "parts",
    [
        (range(7, len(CONTENT) - 3),),
        (range(100_000, 100_001),),
        (b"before", range(5, 200_000), b"between" * 20_000, range(3, 99), b"after"),
        (range(0, 300_000), b"a tag"),
        (range(0),),
    ],
)
async def test_parts_come_in_their_order(path: Path, parts: tuple[bytes | range, ...]) -> None:
    wanted = b"".join(
        part if isinstance(part, bytes) else CONTENT[part.start : part.stop] for part in parts
    )
    async with serving(whole(path, *parts)) as asked:
        assert (await asked.client.get()).body == wanted
        assert (await asked.client.get()).body == wanted


async def test_head_sends_no_byte_of_it(path: Path, calls: list[int]) -> None:
    async with serving(whole(path)) as asked:
        await asked.client.send(head("HEAD", "/"))
        reply = await asked.client.reply("HEAD")
        assert (reply.body, reply.headers["content-length"]) == (b"", str(len(CONTENT)))
        assert (await asked.client.get()).body == CONTENT
    assert calls


async def test_a_file_in_memory_is_read(calls: list[int]) -> None:
    async with serving(lambda: FileBody(io.BytesIO(CONTENT), (range(len(CONTENT)),))) as asked:
        assert (await asked.client.get()).body == CONTENT
    assert not calls


@pytest.mark.parametrize("good", [0, 1, 3])
async def test_a_file_system_that_cannot_do_it_is_read(
    path: Path, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = good

    def failing(*args: Any) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.EINVAL, "cannot")
        sent = real(*args[:3], 10_000)
        left -= 1
        return sent

    real = os.sendfile
    monkeypatch.setattr(os, "sendfile", failing)
    async with serving(whole(path)) as asked:
        assert (await asked.client.get()).body == CONTENT
        left = 0
        assert (await asked.client.get()).body == CONTENT


async def test_a_file_that_becomes_shorter_never_looks_whole(path: Path) -> None:
    async with serving(whole(path, range(2 * len(CONTENT)))) as asked:
        with pytest.raises(CutOff) as cut:
            await asked.client.get()
        assert cut.value.reply.body == CONTENT
    assert [each.complete for each in asked.records] == [False]


async def test_an_error_of_the_disk_ends_the_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "sendfile", failing)
    async with serving(whole(path)) as asked:
        with pytest.raises(CutOff):
            await asked.client.get()


async def test_a_client_that_leaves_ends_it(path: Path) -> None:
    async with serving(
        whole(path, range(len(CONTENT)), range(len(CONTENT)), range(len(CONTENT)))
    ) as asked:
        await asked.client.send(head("GET", "/"))
        await asked.client.stream.receive_some(1000)
        await asked.client.aclose()
        while not asked.records:
            await trio.lowlevel.checkpoint()
        assert not asked.records[0].complete
        assert asked.records[0].sent < 3 * len(CONTENT)


async def test_others_have_their_turn(path: Path, calls: list[int]) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with serving(whole(path)) as asked, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await asked.client.get()
        nursery.cancel_scope.cancel()
    assert turns >= len(calls)


# Small responses, which are sent at once


SMALL = b"small " * 100


@pytest.mark.parametrize("takes", [0, 1, 100])
async def test_what_the_system_does_not_take_is_sent_later(
    monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    def part(descriptor: int, data: bytes) -> int:
        if not data.startswith(b"HTTP/"):
            return real(descriptor, data)
        if not takes:
            raise BlockingIOError
        return real(descriptor, data[:takes])

    real = os.write
    monkeypatch.setattr(os, "write", part)
    async with serving(lambda: SMALL) as asked:
        for _ in range(3):
            assert (await asked.client.get()).body == SMALL
    assert all(each.complete for each in asked.records)


async def test_a_fault_while_sending_at_once_is_left_to_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(descriptor: int, data: bytes) -> int:
        if data.startswith(b"HTTP/"):
            raise BrokenPipeError
        return real(descriptor, data)

    real = os.write
    monkeypatch.setattr(os, "write", broken)
    async with serving(lambda: SMALL) as asked:
        assert (await asked.client.get()).status == 200, "only the stream says what is broken"
    assert [each.complete for each in asked.records] == [True]


async def test_who_sends_much_at_once_keeps_nobody_waiting() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with serving(lambda: SMALL) as asked, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await asked.client.send(head("GET", "/") * 100)
        for _ in range(100):
            await asked.client.reply()
        nursery.cancel_scope.cancel()
    assert turns >= 90


# Streams


async def test_each_chunk_is_sent_before_the_next_is_asked_for() -> None:
    seen: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        yield b"first"
        for letter in b"abc":
            seen.append(raw.recv(1000, socket.MSG_DONTWAIT).rpartition(b"\r\n\r\n")[2])
            yield bytes([letter])

    async with serving(chunks) as asked:
        stream = asked.client.stream
        raw = socket.socket(fileno=os.dup(stream.socket.fileno()))
        with raw:
            await asked.client.send(head("GET", "/"))
            while len(seen) < 3:
                await trio.lowlevel.checkpoint()
    assert seen == [b"5\r\nfirst\r\n", b"1\r\na\r\n", b"1\r\nb\r\n"]


async def test_the_head_of_a_stream_goes_out_with_its_first_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"first"
        yield b"second"

    writes: list[bytes] = []
    real = os.writev

    def noting(descriptor: int, parts: list[bytes]) -> int:
        writes.append(b"".join(parts))
        return real(descriptor, parts)

    monkeypatch.setattr(os, "writev", noting)
    async with serving(chunks) as asked:
        assert (await asked.client.get()).body == b"firstsecond"
    first, second = writes
    assert first.startswith(b"HTTP/1.1 200") and first.endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert second == b"6\r\nsecond\r\n"


async def test_a_client_that_leaves_a_stream_that_never_waits_ends_it() -> None:
    closed = trio.Event()

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100
        finally:
            closed.set()

    async with serving(chunks) as asked:
        await asked.client.send(head("GET", "/"))
        await asked.client.stream.receive_some(1000)
        await asked.client.aclose()
        with trio.fail_after(5):
            await closed.wait()
            while not asked.records:
                await trio.lowlevel.checkpoint()
    assert not asked.records[0].complete


async def test_an_endless_stream_leaves_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = count()
    clock = SimpleNamespace(monotonic=lambda: next(milliseconds) / 4000)
    monkeypatch.setattr(response_writer, "time", clock)
    made = 0

    def chunks() -> Iterator[bytes]:
        nonlocal made
        while made < 10_000:
            made += 1
            yield b"x"

    async with serving(chunks) as asked:
        await asked.client.send(head("GET", "/"))
        while not made:
            await trio.lowlevel.checkpoint()
        for _ in range(50):
            before = made
            await trio.lowlevel.checkpoint()
            assert made - before <= 12, "at most two turns of a millisecond by this clock"
        assert made < 10_000
        made = 10_000
