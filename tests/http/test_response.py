"""Responses as values: bodies, headers, files."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rpyserve import Response
from rpyserve.http.response import ChunkIterator, FileBody, IterableStream, start_body


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
        (b"content-type", b"text/plain"),
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
