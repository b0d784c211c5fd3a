"""Responses as values: bodies, headers, files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from rpyserve import NOT_DONE_YET, Request, Response, Site
from rpyserve.http import response
from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.response import (
    ChunkIterator,
    FileBody,
    IterableStream,
    WriteStream,
    start_body,
)
from tests.support.faulty_stream import tasks
from tests.support.in_process import ask


@pytest.mark.parametrize("body", [None, 5, object(), 1.5])
def test_what_is_no_body_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match="use str, bytes, dict, list or a generator"):
        Response(body)


@pytest.mark.parametrize("status", [0, 100, 199, 600, "200", None])
def test_what_is_no_status_is_refused(status: Any) -> None:
    with pytest.raises(ValueError, match="from 200 to 599"):
        Response("", status)


def test_the_type_follows_from_the_body_unless_it_is_given() -> None:
    assert Response("x").headers == ((b"Content-Type", b"text/html; charset=utf-8"),)
    assert Response({}).headers == ((b"Content-Type", b"application/json"),)
    assert Response("x", headers={"content-type": "text/plain"}).headers == (
        (b"content-type", b"text/plain; charset=utf-8"),
    )
    assert Response().headers == ()


def test_iterables_become_streams() -> None:
    assert isinstance(Response(iter(["x"])).body, IterableStream)
    assert isinstance(Response(("x", "y")).body, IterableStream)


def test_a_response_cannot_be_changed() -> None:
    response = Response("x")
    with pytest.raises(AttributeError):
        response.status = 404  # type: ignore[misc]


def test_headers_are_replaced_by_name_but_cookies_add_up() -> None:
    response = Response("x", headers=[("X-A", "1"), ("Set-Cookie", "a=1")])
    changed = response.with_headers((b"x-a", b"2"), (b"set-cookie", b"b=2"))
    assert changed.headers[1:] == ((b"Set-Cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2"))
    assert response.headers[1] == (b"X-A", b"1")


def test_a_file_is_sent_in_parts() -> None:
    body = FileBody(io.BytesIO(b"0123456789"), (b"<", range(2, 7), b">", range(9, 10)))
    assert body.length == 8
    assert list(body.chunks(3)) == [b"<", b"234", b"56", b">", b"9"]
    body.close()
    assert body.file.closed


def test_a_file_that_became_shorter_never_looks_whole() -> None:
    body = FileBody(io.BytesIO(b"01234"), (range(10),))
    chunks = body.chunks()
    assert next(chunks) == b"01234"
    with pytest.raises(EOFError):
        next(chunks)


async def test_chunks_of_a_function_may_be_left_half_way() -> None:
    left = [b"c", b"b", b"a"]

    async def next_chunk() -> bytes:
        return left.pop() if left else b""

    async for chunk in ChunkIterator(next_chunk):
        assert chunk == b"a"
        break
    assert [chunk async for chunk in ChunkIterator(next_chunk)] == [b"b", b"c"]


@pytest.mark.parametrize("body", [b"abc", "abc", ["abc"], iter(["a", b"bc"])])
async def test_any_body_can_be_had_in_chunks(body: Any) -> None:
    async with start_body(Response(body)) as started:
        content = b"".join([chunk async for chunk in started.chunks])
    assert content in (b"abc", b'["abc"]')


async def test_a_file_is_closed_when_its_chunks_are_given_up() -> None:
    file = io.BytesIO(b"abc")
    async with start_body(Response(FileBody(file, (range(3),)))) as started:
        assert await anext(started.chunks) == b"abc"
    assert file.closed


# What is written


async def read_slowly(stream: WriteStream, seconds: float) -> int:
    """Take a chunk, and the next one *seconds* later; return how many bytes there were."""
    size = 0
    async with stream.start(Response(stream)) as started:
        async for chunk in started.chunks:
            size += len(chunk)
            await trio.sleep(seconds)
    return size


async def test_who_reads_more_slowly_than_is_written_is_given_up(
    autojump_clock: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "MOST_WAITING", 100_000)
    stream = WriteStream()
    most = 0

    async def write() -> None:
        nonlocal most
        while True:
            stream.write(b"x" * 1000)
            most = max(most, stream.waiting)
            await trio.sleep(0.01)

    nursery.start_soon(write)
    with pytest.raises(ClientDisconnected, match="reads more slowly than the script writes"):
        await read_slowly(stream, 1)
    assert 1 <= trio.current_time() <= 4
    assert 100_000 < most < 400_000
    written = stream._written
    await trio.sleep(10)
    assert stream._written == written, "nothing waits any more"


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_is_written_in_one_go_may_wait(
    goes_on: bool, autojump_clock: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "MOST_WAITING", 100_000)
    stream, living = WriteStream(), tasks()

    async def write() -> None:
        stream.write(b"begin")
        await trio.sleep(1)
        for _ in range(1000):
            stream.write(b"x" * 1000)
        if goes_on:
            await trio.sleep(2.5)
            stream.write(b"end")
        stream.close()

    nursery.start_soon(write)
    assert await read_slowly(stream, 0.1) == len("begin") + 1_000_000 + len("end") * goes_on
    await trio.sleep(2)
    assert tasks() == living


async def test_who_keeps_up_may_read_without_end(
    autojump_clock: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "MOST_WAITING", 100_000)
    stream = WriteStream()

    async def write() -> None:
        for _ in range(20):  # bursts, each of which takes a while to be read
            for _ in range(300):
                stream.write(b"x" * 1000)
            await trio.sleep(3.1)
        stream.close()

    nursery.start_soon(write)
    assert await read_slowly(stream, 0.01) == 6_000_000


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_response_without_a_body_may_have_none(status: int) -> None:
    assert Response(None, status).body == b""
    with pytest.raises(TypeError, match="cannot be NoneType"):
        Response(None)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("text/plain", "text/plain; charset=utf-8"),
        ("Text/CSV; header=present", "Text/CSV; header=present; charset=utf-8"),
        ("text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ("text/event-stream", "text/event-stream"),
        ("image/svg+xml", "image/svg+xml"),
    ],
)
async def test_a_text_says_its_charset(kind: str, sent: str) -> None:
    def returned(request: Request) -> str:
        request.setHeader("Content-Type", kind)
        return "\xe4"

    def written(request: Request) -> object:
        request.write("\xe4")
        request.setHeader("Content-Type", kind)
        request.finish()
        return NOT_DONE_YET

    def streamed(request: Request) -> Iterator[str]:
        request.setHeader("Content-Type", kind)
        yield "\xe4"

    def response(request: Request) -> Response:
        return Response("\xe4", headers={"Content-Type": kind})

    for page in (returned, written, streamed, response):
        answer = await ask(Site(page), "/")
        assert answer.header("content-type") == sent, page
        assert answer.body == "\xe4".encode()


async def test_a_body_that_is_text_in_part_says_its_charset() -> None:
    def written(request: Request) -> object:
        request.setHeader("Content-Type", "text/plain")
        request.write("\xe4")
        request.write(b"")
        request.finish()
        return NOT_DONE_YET

    def streamed(request: Request) -> Iterator[str | bytes]:
        request.setHeader("Content-Type", "text/plain")
        yield "\xe4"
        yield b""

    for page in (written, streamed):
        answer = await ask(Site(page), "/")
        assert answer.header("content-type") == "text/plain; charset=utf-8", page


async def test_bytes_may_be_in_any_charset() -> None:
    def page(request: Request) -> bytes:
        request.setHeader("Content-Type", "text/plain")
        return b"\xe4"

    answer = await ask(Site(page), "/")
    assert answer.header("content-type") == "text/plain"
