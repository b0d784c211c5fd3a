"""What a script says on its request about the response."""

from __future__ import annotations

import pytest

from rpyserve.http.pending_response import PendingResponse
from rpyserve.http.response import Response, start_body


def test_headers_replace_or_stand_beside_each_other() -> None:
    pending = PendingResponse()
    pending.set_header("X-A", "1")
    pending.set_header("x-a", 2)
    pending.add_header("X-A", b"3")
    response = pending.complete_headers(Response(b"", headers={"X-a": "0", "X-B": "b"}))
    assert response.headers == ((b"X-B", b"b"), (b"x-a", b"2"), (b"X-A", b"3"))
    assert pending.headers_sent


def test_a_header_that_cannot_be_sent_is_refused_at_once() -> None:
    pending = PendingResponse()
    with pytest.raises(ValueError, match="line break"):
        pending.set_header("X-A", "a\r\nb")
    with pytest.raises(ValueError, match="200 to 599"):
        pending.set_status(600)
    assert pending.complete_headers(Response(b"")).headers == ()


async def test_what_was_written_before_the_stream_comes_first() -> None:
    pending = PendingResponse()
    pending.write("a")
    stream = pending.start_stream()
    pending.write(b"b")
    pending.finish()
    pending.write("too late")
    async with start_body(Response(stream)) as body:
        assert [chunk async for chunk in body.chunks] == [b"a", b"b"]


def test_a_body_may_be_finished_before_its_headers() -> None:
    pending = PendingResponse()
    pending.write("all of it")
    pending.finish()
    assert (pending.finished, pending.headers_sent) == (True, False)
    pending.complete_headers(Response(b""))
    assert (pending.finished, pending.headers_sent) == (True, True)


def test_a_failure_before_the_stream_is_raised_when_it_starts() -> None:
    pending = PendingResponse()
    assert not pending.fail(ZeroDivisionError())
    assert not pending.finished
    with pytest.raises(ZeroDivisionError):
        pending.start_stream()


async def test_a_failure_comes_after_what_was_written() -> None:
    pending = PendingResponse()
    stream = pending.start_stream()
    pending.write("a")
    assert pending.fail(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        async with start_body(Response(stream)) as body:
            assert await anext(body.chunks) == b"a"
            await anext(body.chunks)


def test_a_finished_body_cannot_fail() -> None:
    pending = PendingResponse()
    pending.finish()
    assert not pending.fail(ZeroDivisionError())
    assert pending.finished
