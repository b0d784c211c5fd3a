"""HTTP/1.1 over memory streams: what a client sends, and what comes back.

Where it matters, byte for byte.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any

import h11
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from rpyserve import __version__
from rpyserve.http.errors import ClientDisconnected, HTTPError
from rpyserve.http.request import BODY_START, MOST_OF_REQUEST, Body, Request, RequestRecord
from rpyserve.http.response import FileBody, Response, Stream, Upgrade
from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.server_state import Limits, Shutdown
from tests.support.http_client import (
    CLIENT,
    SERVER,
    Client,
    CutOff,
    Reply,
    answering,
    chunked,
    connect_to,
    echo,
    head,
    hello,
    post,
)

BIG = b"0123456789abcdef" * 40_000  # larger than any piece that is sent at once


# A request and its answer


async def test_request_reaches_the_responder_as_it_was_sent(fetch: Any) -> None:
    seen: list[Request] = []

    async def respond(request: Request) -> Response:
        seen.append(request)
        return Response("x")

    await fetch(respond, "/a%20b?x=1", "X-Thing: one", "x-thing: two")
    (request,) = seen
    assert (request.method, request.uri, request.path, request.query) == (
        "GET",
        "/a%20b?x=1",
        "/a b",
        "x=1",
    )
    assert request.getHeader("X-Thing") == "one, two"
    assert (request.client, request.server, request.scheme) == (CLIENT, SERVER, "http")
    assert request.http_version == "1.1"
    assert not request.has_body


async def test_response_has_length_date_and_server(fetch: Any) -> None:
    reply = await fetch(answering("hä", 203, [("X-A", "1")]))
    assert (reply.status, reply.body) == (203, "hä".encode())
    assert reply.headers["content-length"] == "3"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", reply.headers["date"])
    assert reply.headers["server"] == f"rpyserve/{__version__}"
    assert reply.headers["x-a"] == "1"
    assert "connection" not in reply.headers


async def test_framing_that_a_script_sets_is_ignored_but_its_date_counts(fetch: Any) -> None:
    set_by_script = [
        ("Content-Length", "99"), ("transfer-encoding", "chunked"), ("Connection", "upgrade"), ("Upgrade", "x"),
        ("Keep-Alive", "timeout=5"), ("Trailer", "X"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ]  # fmt: skip
    reply = await fetch(answering("abc", 200, set_by_script))
    assert reply.body == b"abc"
    assert reply.headers["content-length"] == "3"
    assert "transfer-encoding" not in reply.headers
    assert not {"connection", "keep-alive", "upgrade", "trailer"} & set(reply.headers)
    assert reply.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


async def test_date_that_is_none_is_ours(fetch: Any) -> None:
    assert (await fetch(answering("x", 200, [("Date", "today")]))).headers["date"].endswith(" GMT")


async def test_small_response_is_sent_at_once(connect: Any) -> None:
    sends: list[bytes] = []

    class Counting:
        def __init__(self, stream: Any) -> None:
            self.receive_some, self.aclose, self._stream = (
                stream.receive_some,
                stream.aclose,
                stream,
            )

        async def send_all(self, data: bytes) -> None:
            sends.append(bytes(data))
            await self._stream.send_all(data)

    client = connect(hello, stream=Counting)
    await client.get()
    assert len(sends) == 1


async def test_reason_is_the_requests_own_or_the_usual_one(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        if request.uri == "/own":
            request.setResponseCode(299, "Custom Words")
            return Response("", 299)
        request.setResponseCode(200, "Custom Words")
        return Response("", 404)  # an error page that took the answer's place

    client = connect(respond)
    await client.send(head("GET", "/own") + head("GET", "/", "Connection: close"))
    lines = [line for line in (await client.rest()).split(b"\r\n") if line.startswith(b"HTTP/")]
    assert lines == [b"HTTP/1.1 299 Custom Words", b"HTTP/1.1 404 Not Found"]


# Bodies out


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_head_204_and_304_have_no_body(
    connect: Any, autojump_clock: Any, method: str, status: int, kind: str
) -> None:
    file = BytesIO(b"text")
    bodies: dict[str, Any] = {
        "bytes": b"text",
        "file": FileBody(file, (range(4),)),
        "stream": counting(2),
    }
    client = connect(answering(bodies[kind], status))
    await client.send(head(method, "/", "Connection: close"))
    raw = await client.rest()
    start, _, body = raw.partition(b"\r\n\r\n")
    assert bool(body) == (method == "GET" and status == 200)
    assert (b"Content-Length:" in start) == (status == 200 and kind != "stream")
    if kind == "file":
        assert file.closed
    assert client.records[0].complete


@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_205_says_that_it_has_no_body(connect: Any, autojump_clock: Any, kind: str) -> None:
    bodies: dict[str, Any] = {
        "bytes": b"text",
        "file": FileBody(BytesIO(b"text"), (range(4),)),
        "stream": counting(2),
    }
    client = connect(answering(bodies[kind], 205))
    for _ in range(2 if kind == "bytes" else 1):
        reply = await client.get()
        assert (reply.status, reply.body, reply.headers["content-length"]) == (205, b"", "0")
        assert "transfer-encoding" not in reply.headers


async def test_405_always_has_allow_and_426_upgrade(fetch: Any) -> None:
    assert (await fetch(answering("", 405))).headers["allow"] == ""
    assert (await fetch(answering("", 405, [("Allow", "GET")]))).headers["allow"] == "GET"
    reply = await fetch(answering("", 426, [("Upgrade", "x/1")]))
    assert (reply.headers["upgrade"], reply.headers["connection"]) == ("x/1", "upgrade")


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\x01", b"\x1b", b"\x7f"])
async def test_nothing_of_a_script_splits_a_head(fetch: Any, byte: bytes) -> None:
    async def name(request: Request) -> Response:
        return Response.trusted(b"x", 200, ((b"A" + byte, b"b"),))

    async def value(request: Request) -> Response:
        return Response.trusted(b"x", 200, ((b"A", b"b" + byte + b"c"),))

    async def words(request: Request) -> Response:
        request._response.reason = b"OK" + byte + b"X"
        return Response(b"x")

    for respond in (name, value, words):
        reply = await fetch(respond)
        assert (reply.status, "a" in reply.headers) == (500, False)


async def counting(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"{i};"
        await trio.sleep(1)


async def test_large_body_arrives_whole(fetch: Any) -> None:
    assert (await fetch(answering(BIG))).body == BIG


async def test_file_is_sent_in_parts_and_closed(fetch: Any) -> None:
    file = BytesIO(BIG)
    reply = await fetch(answering(FileBody(file, (b"--x\r\n", range(3, 200_000), b"end"))))
    assert reply.body == b"--x\r\n" + BIG[3:200_000] + b"end"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert file.closed


async def test_file_that_shrinks_while_it_is_sent_is_not_whole(connect: Any, caplog: Any) -> None:
    file = BytesIO(BIG)
    client = connect(answering(FileBody(file, (range(len(BIG) + 1),))))
    with pytest.raises(CutOff) as cut:
        await client.get("/film")
    assert cut.value.reply.body == BIG
    assert file.closed
    assert "GET /film was broken off" in caplog.text
    assert not client.records[0].complete


async def test_file_that_cannot_be_read_is_a_500(fetch: Any) -> None:
    file = BytesIO(b"")
    assert (await fetch(answering(FileBody(file, (range(5),))))).status == 500
    assert file.closed


async def test_stream_is_chunked_as_it_comes(connect: Any, autojump_clock: Any) -> None:
    client = connect(answering(counting(3)))
    started = trio.current_time()
    reply = await client.get()
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.body == b"0;1;2;"
    assert trio.current_time() - started == 3
    assert (await client.get()).status == 200  # and the connection lives on


def streaming(make: Callable[[], Iterator[bytes]]) -> Any:
    async def respond(request: Request) -> Response:
        return Response(make())

    return respond


async def test_streams_are_framed_alike_and_h11_writes_their_head_once(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    def send(self: h11.Connection, event: Any) -> bytes | None:
        told.append(event)
        return real(self, event)

    told: list[Any] = []
    real = h11.Connection.send
    monkeypatch.setattr(h11.Connection, "send", send)
    client = connect(streaming(two))
    replies = [await client.get() for _ in range(5)]
    assert {reply.body for reply in replies} == {b"onetwo"}
    assert {reply.headers["transfer-encoding"] for reply in replies} == {"chunked"}
    dates = {reply.headers["date"] for reply in replies}
    assert len([each for each in told if isinstance(each, h11.Response)]) <= len(dates) < 5


async def test_stream_that_breaks_off_where_others_went_through_is_not_whole(connect: Any) -> None:
    def one() -> Iterator[bytes]:
        yield b"one"
        if len(client.records) == 2:
            raise ValueError("half way")

    client = connect(streaming(one))
    for _ in range(2):
        assert (await client.get()).body == b"one"
    with pytest.raises(CutOff) as cut:
        await client.get()
    assert cut.value.reply.body == b"one"
    await client.over.wait()
    assert [record.complete for record in client.records] == [True, True, False]


async def test_stream_to_http10_has_no_chunks_though_others_had(connect: Any) -> None:
    def one() -> Iterator[bytes]:
        yield b"one"

    for _ in range(2):
        assert (await connect(streaming(one)).get()).body == b"one"
    client = connect(streaming(one))
    await client.send(head("GET", "/", version="1.0"))
    start, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert (b"chunked" in start, body) == (False, b"one")


async def test_stream_to_http10_ends_with_the_connection(connect: Any, autojump_clock: Any) -> None:
    client = connect(answering(counting(3)))
    await client.send(head("GET", "/", version="1.0"))
    start, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in start
    assert body == b"0;1;2;"


async def test_stream_that_fails_half_way_is_not_whole(connect: Any) -> None:
    def failing() -> Iterator[str]:
        yield "one"
        raise ValueError("half way")

    client = connect(answering(failing()))
    with pytest.raises(CutOff) as cut:
        await client.get()
    assert cut.value.reply.body == b"one"
    (record,) = client.records
    assert (record.status, record.sent, record.complete) == (200, 3, False)


async def test_stream_that_fails_before_it_begins_is_a_500(fetch: Any) -> None:
    class Failing(Stream):
        def start(self, response: Response) -> Any:
            raise ValueError("not even begun")

    reply = await fetch(answering(Failing()))
    assert (reply.status, reply.headers["connection"]) == (500, "close")


async def test_stream_that_failed_at_once_may_give_a_page_instead(connect: Any) -> None:
    def failing() -> Iterator[str]:
        raise ValueError("at once")
        yield ""

    async def respond(request: Request) -> Response:
        response = Response(failing())
        response.body.error_handler = lambda exc, headers_sent: Response(f"page: {exc}", 500)  # type: ignore[union-attr]
        return response

    client = connect(respond)
    reply = await client.get()
    assert (reply.status, reply.body) == (500, b"page: at once")
    assert reply.headers["content-length"] == "13"
    assert (await client.get()).status == 500  # the connection lives on


async def test_stream_is_cancelled_when_the_client_goes(connect: Any, autojump_clock: Any) -> None:
    ended: list[float] = []

    async def forever() -> AsyncIterator[str]:
        try:
            yield "one"
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    client = connect(answering(forever()))
    await client.send(head("GET", "/"))
    await trio.sleep(5)
    await client.aclose()
    with trio.fail_after(1):
        await client.over.wait()
    assert ended
    assert not client.records[0].complete


@pytest.mark.parametrize("fails", [False, True])
async def test_stream_of_events_ends_with_its_client(
    connect: Any, autojump_clock: Any, fails: bool
) -> None:
    async def events() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await trio.sleep(1)
        if fails:
            raise ValueError("half way")
        await trio.sleep_forever()

    client = connect(answering(events(), headers=[("Content-Type", "text/event-stream")]))
    await client.send(head("GET", "/"))
    await trio.sleep(5)
    await client.aclose()
    with trio.fail_after(1):
        await client.over.wait()
    assert client.records[0].complete is not fails


# Bodies in


async def test_body_with_length_and_chunked_body(connect: Any) -> None:
    client = connect(echo)
    await client.send(post(BIG))
    assert (await client.reply()).body == BIG
    await client.send(head("POST", "/", "Transfer-Encoding: chunked") + chunked(b"one", BIG, b"3"))
    assert (await client.reply()).body == b"one" + BIG + b"3"
    await client.send(post(b""))
    assert (await client.reply()).body == b""


async def test_body_arrives_while_it_is_read(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        assert request._body is not None
        return Response([str(len(chunk)) + " " async for chunk in request._body])

    client = connect(respond)
    await client.send(head("POST", "/", "Content-Length: 5") + b"ab")
    await wait_all_tasks_blocked()
    await client.send(b"cde")
    assert (await client.reply()).body == b'["2 ", "3 "]'


@pytest.mark.parametrize("said", [True, False])
async def test_a_request_knows_how_long_its_body_is_if_the_client_has_said(
    connect: Any, said: bool
) -> None:
    async def respond(request: Request) -> Response:
        await request.load_body()
        return Response(type(request.content).__name__)

    client = connect(respond)
    await client.send(
        post(b"abc") if said else head("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc")
    )
    kind = "BytesIO" if said else "SpooledTemporaryFile"  # which goes to disk when it has grown
    assert (await client.reply()).body == kind.encode()


@pytest.mark.parametrize("framing", [["Content-Length: 10"], ["Transfer-Encoding: chunked"]])
async def test_body_cut_short_never_looks_whole(connect: Any, framing: list[str]) -> None:
    failures: list[BaseException] = []

    async def respond(request: Request) -> Response:
        try:
            await request.load_body()
        except BaseException as exc:
            failures.append(exc)
            raise
        return Response("whole")

    client = connect(respond)
    await client.send(head("POST", "/", *framing) + b"5\r\nabc")
    await client.stream.send_eof()
    assert await client.rest() == b""
    assert [type(exc) for exc in failures] == [ClientDisconnected]
    assert (client.records[0].status, client.records[0].complete) == (499, False)


async def test_malformed_chunks_are_a_400_out_of_the_body(connect: Any) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nabcdeXX")
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (400, "close")


@pytest.mark.parametrize("said", [True, False])
async def test_body_over_the_limit_is_a_413(connect: Any, said: bool) -> None:
    client = connect(echo, limits=Limits(body=1000))
    body = b"x" * 1001
    await client.send(
        post(body) if said else head("POST", "/", "Transfer-Encoding: chunked") + chunked(body)
    )
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert client.records[0].status == 413


async def test_body_at_the_limit_is_good(fetch: Any) -> None:
    assert (
        await fetch(echo, method="POST", body=b"x" * 1000, limits=Limits(body=1000))
    ).body == b"x" * 1000


async def test_http_error_of_the_body_goes_on_being_raised(fetch: Any) -> None:
    async def respond(request: Request) -> Response:
        body = request._body
        assert body is not None
        statuses = []
        for _ in range(2):
            try:
                async for _ in body:
                    pass
            except HTTPError as exc:
                statuses.append(exc.status)
        return Response(statuses)

    assert (
        await fetch(respond, method="POST", body=b"12345", limits=Limits(body=4))
    ).body == b"[413, 413]"


async def test_body_that_failed_is_never_followed_by_another_request(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        with pytest.raises(HTTPError):
            await request.load_body()
        return Response(iter(["too large"]))

    client = connect(respond, limits=Limits(body=4))
    await client.send(post(b"12345"))
    reply = await client.reply()
    assert (reply.body, reply.headers["connection"]) == (b"too large", "close")


async def test_little_unread_body_is_drained_and_the_connection_lives_on(connect: Any) -> None:
    client = connect(hello)
    await client.send(head("POST", "/one", "Content-Length: 5") + b"ab")
    reply = await client.reply()
    assert (reply.body, "connection" in reply.headers) == (b"hello /one", False)
    await client.send(b"cde" + head("GET", "/two"))
    assert (await client.reply()).body == b"hello /two"
    await client.send(
        head("POST", "/three", "Transfer-Encoding: chunked")
        + chunked(b"x" * 100)
        + head("GET", "/four")
    )
    assert (await client.reply()).body == b"hello /three"
    assert (await client.reply()).body == b"hello /four"


@pytest.mark.parametrize(
    "framing",
    [
        ["Content-Length: 100000"],
        ["Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Expect: 100-continue"],
    ],
)
async def test_unread_body_of_which_much_may_come_ends_the_connection(
    connect: Any, framing: list[str]
) -> None:
    client = connect(hello)
    await client.send(head("POST", "/", *framing))
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"], reply.interim) == (200, "close", [])
    assert await client.rest() == b""


async def test_client_that_never_sends_the_little_it_promised_is_let_go(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(hello, limits=Limits(body_stall=10))
    await client.send(head("POST", "/", "Content-Length: 5"))
    assert (await client.reply()).status == 200
    await wait_all_tasks_blocked()
    assert len(client.records) == 1  # told of at once, not when the rest has come
    started = trio.current_time()
    assert await client.rest() == b""
    assert 10 <= trio.current_time() - started <= 10 + 3 + 3


async def test_100_continue_is_sent_when_the_body_is_asked_for(connect: Any) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
    await wait_all_tasks_blocked()
    assert bytes(await client.stream.receive_some(1000)) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"12345")
    reply = await client.reply()
    assert (reply.body, "connection" in reply.headers) == (b"12345", False)


async def test_100_continue_is_not_sent_for_a_body_that_is_there_or_too_large(connect: Any) -> None:
    client = connect(echo, limits=Limits(body=100))
    await client.send(head("POST", "/", "Content-Length: 5", "Expect: 100-continue") + b"12345")
    reply = await client.reply()
    assert (reply.status, reply.interim) == (200, [])
    await client.send(head("POST", "/", "Content-Length: 500", "Expect: 100-continue"))
    reply = await client.reply()
    assert (reply.status, reply.interim) == (413, [])


async def test_body_after_its_request_is_over_is_gone(connect: Any) -> None:
    bodies: list[Any] = []

    async def respond(request: Request) -> Response:
        bodies.append(request._body)
        return Response("x")

    client = connect(respond)
    await client.send(post(b"first") + post(b"second"))
    await client.reply()
    await client.reply()
    with pytest.raises(ClientDisconnected):
        await anext(bodies[0])


async def test_who_sends_many_small_chunks_keeps_nobody_waiting(
    connect: Any, nursery: trio.Nursery
) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    client = connect(echo)
    await client.send(head("POST", "/", "Transfer-Encoding: chunked") + chunked(*[b"x"] * 10_000))
    nursery.start_soon(count)
    assert (await client.reply()).body == b"x" * 10_000
    assert turns >= 10


# One after another


async def test_keep_alive(connect: Any) -> None:
    client = connect(hello)
    for n in range(5):
        assert (await client.get(f"/{n}")).body == f"hello /{n}".encode()
    assert [record.target for record in client.records] == ["/0", "/1", "/2", "/3", "/4"]


async def test_pipelined_requests_are_answered_in_order(connect: Any, autojump_clock: Any) -> None:
    async def respond(request: Request) -> Response:
        await trio.sleep(5 if request.uri == "/slow" else 0)
        return Response(request.uri)

    client = connect(respond)
    await client.send(
        head("GET", "/slow") + head("GET", "/quick") + post(b"body") + head("GET", "/last")
    )
    assert [(await client.reply()).body for _ in range(4)] == [b"/slow", b"/quick", b"/", b"/last"]


async def test_pipelined_bytes_survive_the_watch_for_the_client(
    connect: Any, autojump_clock: Any
) -> None:
    async def respond(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.wait_client_left)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        return Response(request.uri)

    client = connect(respond)
    await client.send(head("GET", "/one"))
    await trio.sleep(1)
    await client.send(head("GET", "/two")[:9])
    await trio.sleep(1)
    await client.send(head("GET", "/two")[9:] + head("GET", "/three"))
    assert [(await client.reply()).body for _ in range(3)] == [b"/one", b"/two", b"/three"]


async def test_watch_reads_ahead_only_so_much(connect: Any, autojump_clock: Any) -> None:
    received = 0

    class Endless:
        def __init__(self, stream: Any) -> None:
            self.send_all, self.aclose = stream.send_all, stream.aclose
            self.first = True

        async def receive_some(self, limit: int) -> bytes:
            nonlocal received
            await trio.lowlevel.checkpoint()
            data = head("GET", "/") if self.first else b"x" * limit
            self.first = False
            received += len(data)
            return data

    async def respond(request: Request) -> Response:
        with trio.move_on_after(5):
            await request.wait_client_left()
        return Response(str(received))

    client = connect(respond, stream=Endless, limits=Limits(read_ahead=64 * 1024))
    assert int((await client.reply()).body) <= 3 * 64 * 1024


async def test_body_and_watch_share_one_reader(connect: Any, autojump_clock: Any) -> None:
    async def respond(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.wait_client_left)
            await trio.sleep(1)
            await request.load_body()
            nursery.cancel_scope.cancel()
        return Response(request.content.read())

    client = connect(respond)
    await client.send(head("POST", "/", "Content-Length: 6"))
    for part in (b"ab", b"cd", b"ef"):
        await trio.sleep(2)
        await client.send(part)
    assert (await client.reply()).body == b"abcdef"
    assert (await client.get()).status == 200


async def test_stream_that_reads_its_request_while_it_answers(
    connect: Any, autojump_clock: Any
) -> None:
    async def respond(request: Request) -> Response:
        async def shouting() -> AsyncIterator[bytes]:
            assert request._body is not None
            async for chunk in request._body:
                yield chunk.upper()

        return Response(shouting())

    client = connect(respond)
    await client.send(head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    await trio.sleep(2)
    await client.send(b"2\r\nde\r\n0\r\n\r\n")
    reply = await client.reply()
    assert reply.body == b"ABCDE"


async def test_connection_close_and_http10_end_the_connection(connect: Any) -> None:
    for request in (head("GET", "/", "Connection: close"), head("GET", "/", version="1.0")):
        client = connect(hello)
        await client.send(request)
        reply = await client.reply()
        assert (reply.body, reply.headers["connection"]) == (b"hello /", "close")
        assert await client.rest() == b""


async def test_http12_is_served_as_http11(connect: Any) -> None:
    client = connect(answering(counting(0)))
    await client.send(head("GET", "/", version="1.2"))
    assert (await client.reply()).headers["transfer-encoding"] == "chunked"


async def test_options_star_and_absolute_targets_reach_the_responder(connect: Any) -> None:
    client = connect(hello)
    for method, target in [("OPTIONS", "*"), ("GET", "http://site/a?b")]:
        await client.send(head(method, target))
        assert (await client.reply()).body == f"hello {target}".encode()


@pytest.mark.parametrize("pause", [True, False])
async def test_empty_lines_before_a_request_are_skipped(connect: Any, pause: bool) -> None:
    client = connect(hello)
    for part in (
        b"\r",
        b"\n\r\n",
        head("GET", "/one") + b"\r\n" + head("GET", "/two") + b"\r",
        b"\n",
        b"\r\n",
    ):
        await client.send(part)
        if pause:
            await wait_all_tasks_blocked()
    await client.send(head("POST", "/three", "Content-Length: 1") + b"x\r\n")
    assert [(await client.reply()).body for _ in range(3)] == [
        b"hello /one",
        b"hello /two",
        b"hello /three",
    ]
    assert (await client.get("/four")).body == b"hello /four"


async def test_upgrade_is_ignored(connect: Any) -> None:
    client = connect(hello)
    assert (
        await client.get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
    ).status == 200
    assert (await client.get("/")).status == 200


# What is refused


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (400, b"garbage\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, head("GET", "/").replace(b"site", b"si te")),
        (400, head("GET", "/").replace(b"site", b"site/x")),
        (400, head("GET", "/").replace(b"site", b"user@site")),
        (400, head("GET", "/").replace(b"site", b"[::1")),
        (400, head("GET", "/").replace(b"site", b"site:80x")),
        (400, head("GET", "/").replace(b"site", b"si%zzte")),
        (400, head("GET", "*")),
        (400, head("GET", "path")),
        (400, head("GET", "http://")),
        (400, head("POST", "/", "Content-Length: 3", "Transfer-Encoding: chunked") + chunked(b"x")),
        (400, head("POST", "/", "Transfer-Encoding: chunked", version="1.0") + chunked(b"x")),
        (400, head("POST", "/", "Content-Length: 3", "Content-Length: 4") + b"abcd"),
        (400, head("POST", "/", "Content-Length: -1")),
        (414, head("GET", "/" + "x" * 16 * 1024)),
        (414, b"GET /" + b"x" * 20_000),
        (431, head("GET", "/", "X: " + "y" * 64 * 1024)),
        (431, b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000),
        (431, head("GET", "/", *["X: y"] * 12_000)),
        (501, head("POST", "/", "Transfer-Encoding: gzip, chunked")),
        (501, head("CONNECT", "site:80")),
        (501, b"x" * 200_000),
        (505, head("GET", "/", version="2.0")),
        (505, head("GET", "/", version="0.9")),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ],
)
async def test_refusals(connect: Any, status: int, raw: bytes) -> None:
    client = connect(answering("never"))
    await client.send(raw)
    reply = await client.reply()
    assert reply.status == status
    assert reply.headers["connection"] == "close"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text.startswith(f"{status} ")
    assert len(reply.body) == int(reply.headers["content-length"]) < 200
    assert await client.rest() == b""
    (record,) = client.records
    assert (record.status, record.request, record.sent) == (status, None, len(reply.body))


async def test_host_of_a_whole_url_takes_the_place_of_the_header(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        return Response(request.getHeader("Host"))

    client = connect(respond)
    await client.send(head("GET", "http://other:80/a"))
    assert (await client.reply()).body == b"other:80"


@pytest.mark.parametrize(
    "host",
    ["site", "site:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "a_b.example.", "a%20"],
)
async def test_hosts_that_are_good(connect: Any, host: str) -> None:
    client = connect(hello)
    await client.send(head("GET", "/").replace(b"site", host.encode()))
    assert (await client.reply()).status == 200


async def test_head_and_line_up_to_the_limit_are_good(connect: Any) -> None:
    client = connect(answering("x"))
    target = "/" + "x" * (16 * 1024 - len("GET / HTTP/1.1\r\n"))
    assert (await client.get(target)).status == 200
    assert (await client.get("/", "X: " + "y" * (63 * 1024))).status == 200
    client = connect(answering("x"))
    assert (await client.get(target + "x")).status == 414


async def test_refusal_of_a_head_has_no_body(connect: Any) -> None:
    client = connect(hello)
    await client.send(head("HEAD", "/", version="1.1").replace(b"site", b"@"))
    start, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 400 Bad Request")
    assert body == b""


async def test_bad_second_request_leaves_the_first_its_answer(connect: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/one") + b"nonsense\r\n\r\n" + head("GET", "/three"))
    assert (await client.reply()).body == b"hello /one"
    assert (await client.reply()).status == 400
    assert await client.rest() == b""


async def test_refused_chunk_is_told_once_the_good_ones_are_read(connect: Any) -> None:
    chunks: list[bytes] = []

    async def respond(request: Request) -> Response:
        assert request._body is not None
        async for chunk in request._body:
            chunks.append(chunk)
        return Response("whole")

    client = connect(respond)
    await client.send(
        head("POST", "/", "Transfer-Encoding: chunked")
        + b"3\r\nabc\r\n-1\r\n"
        + head("GET", "/stolen")
    )
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"], chunks) == (400, "close", [b"abc"])
    assert await client.rest() == b""


async def test_access_log_names_what_was_refused(connect: Any) -> None:
    client = connect(answering("never"))
    await client.send(head("GET", "/page", "X : a"))
    await client.rest()
    assert [(record.method, record.target) for record in client.records] == [("GET", "/page")]


async def test_after_a_refusal_the_server_listens_a_little(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(hello)
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.reply()).status == 400
    assert await client.rest() == b""  # half-closed
    await client.send(b"x" * 100_000)  # and yet this is no reset
    started = trio.current_time()
    await client.over.wait()
    assert 3 <= trio.current_time() - started <= 5


async def test_after_a_refusal_the_server_listens_to_so_many_bytes(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(hello, limits=Limits(linger_size=100_000))
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.reply()).status == 400
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(10):
            await client.send(b"x" * 50_000)
            await wait_all_tasks_blocked()


# Time


@pytest.mark.parametrize("before", [b"", head("GET", "/"), b"\r\n"])
async def test_idle_connection_is_closed_without_a_word(
    connect: Any, autojump_clock: Any, before: bytes
) -> None:
    client = connect(hello)
    await client.send(before)
    if b"GET" in before:
        await client.reply()
    started = trio.current_time()
    assert await client.rest() == b""
    assert 75 <= trio.current_time() - started <= 77


async def test_empty_lines_do_not_keep_a_connection(connect: Any, autojump_clock: Any) -> None:
    client = connect(hello)
    with trio.fail_after(77), pytest.raises(trio.BrokenResourceError):
        while True:
            await client.send(b"\r\n")
            await trio.sleep(1)


async def test_slow_head_is_a_408(connect: Any, autojump_clock: Any) -> None:
    client = connect(hello)
    await trio.sleep(60)
    with trio.fail_after(17):
        for byte in head("GET", "/")[:13]:
            await client.send(bytes([byte]))
            await trio.sleep(1)
        reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert [record.status for record in client.records] == [408]
    assert await client.rest() == b""


async def test_slow_pipelined_head_is_a_408(connect: Any, autojump_clock: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/one") + b"GET /two HT")
    assert (await client.reply()).body == b"hello /one"
    with trio.fail_after(17):
        assert (await client.reply()).status == 408


async def test_head_that_takes_its_time_but_comes_is_good(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(hello)
    for _ in range(3):
        await trio.sleep(70)
        await client.send(b"GET / HTTP/1.1\r\n")
        await trio.sleep(14)
        await client.send(b"Host: a\r\n\r\n")
        assert (await client.reply()).status == 200


async def test_stalled_body_is_a_408_out_of_the_body(connect: Any, autojump_clock: Any) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", "Content-Length: 200000") + bytes(100_000))
    await trio.sleep(50)
    await client.send(b"cd")
    started = trio.current_time()
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert b"no byte for 60 seconds" in reply.body
    assert trio.current_time() - started == 60


async def send_steadily(client: Client, piece: bytes, times: float) -> None:
    """One *piece* each second."""
    while times > 0:
        times -= 1
        try:
            await client.send(piece)
        except trio.BrokenResourceError:
            return
        await trio.sleep(1)


@pytest.mark.parametrize("framing", ["Content-Length: 60000", "Transfer-Encoding: chunked"])
async def test_body_that_comes_too_slowly_is_a_408(
    framing: str, connect: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", framing))
    piece = b"1\r\nx\r\n" if "chunked" in framing else b"x"
    nursery.start_soon(send_steadily, client, piece, math.inf)
    started = trio.current_time()
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert b"fewer than 1,000 bytes a second" in reply.body
    assert 20 <= trio.current_time() - started <= 21


async def test_body_that_comes_fast_enough_may_take_as_long_as_it_needs(
    connect: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", "Content-Length: 600000"))
    nursery.start_soon(send_steadily, client, b"x" * 1000, 600)
    assert len((await client.reply()).body) == 600_000
    assert trio.current_time() >= 599


async def test_time_that_a_script_takes_is_no_time_of_the_body(
    connect: Any, autojump_clock: Any
) -> None:
    async def respond(request: Request) -> Response:
        assert request._body is not None
        size = 0
        async for chunk in request._body:
            size += len(chunk)
            await trio.sleep(100)
        return Response(str(size))

    client = connect(respond)
    await client.send(head("POST", "/", "Content-Length: 4") + b"x")
    for _ in range(3):
        await trio.sleep(104)
        await client.send(b"x")
    assert (await client.reply()).body == b"4"


async def test_responder_may_take_as_long_as_it_likes(connect: Any, autojump_clock: Any) -> None:
    async def respond(request: Request) -> Response:
        await trio.sleep(1000)
        return Response("at last")

    assert (await connect(respond).get()).body == b"at last"


async def test_stream_may_pause_as_long_as_it_likes(connect: Any, autojump_clock: Any) -> None:
    async def pausing() -> AsyncIterator[str]:
        for n in range(3):
            yield str(n)
            await trio.sleep(1000)

    assert (await connect(answering(pausing())).get()).body == b"012"


async def test_body_that_was_asked_for_may_take_its_time(connect: Any, autojump_clock: Any) -> None:
    client = connect(echo)
    await client.send(head("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
    for byte in (b"a", b"b", b"c"):
        await trio.sleep(6)
        await client.send(byte)
    assert (await client.reply()).body == b"abc"


class Sluggish:
    """A stream whose client reads at a rate, in bytes per second; 0: not at all."""

    def __init__(self, stream: Any, rate: float) -> None:
        self.receive_some, self.aclose, self._stream, self._rate = (
            stream.receive_some,
            stream.aclose,
            stream,
            rate,
        )

    async def send_all(self, data: Any) -> None:
        await trio.sleep(len(data) / self._rate if self._rate else math.inf)
        await self._stream.send_all(data)


def bodies_of(data: bytes) -> dict[str, Any]:
    def stream() -> Iterator[bytes]:
        yield data

    return {"bytes": data, "file": FileBody(BytesIO(data), (range(len(data)),)), "stream": stream()}


@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_client_that_reads_nothing_is_let_go(
    connect: Any, autojump_clock: Any, kind: str
) -> None:
    body = bodies_of(BIG)[kind]
    client = connect(answering(body), stream=lambda stream: Sluggish(stream, 0))
    with pytest.raises(CutOff):
        await client.get()
    assert 60 <= trio.current_time() <= 62
    assert not client.records[0].complete
    assert not isinstance(body, FileBody) or body.file.closed


@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_client_that_reads_slowly_gets_it_all(
    connect: Any, autojump_clock: Any, kind: str
) -> None:
    client = connect(answering(bodies_of(BIG)[kind]), stream=lambda stream: Sluggish(stream, 2000))
    assert (await client.get()).body == BIG
    assert trio.current_time() >= len(BIG) / 2000


# A client that leaves, or closes half


async def leaving(request: Request) -> Response:
    with trio.move_on_after(60):
        await request.wait_client_left()
        raise ClientDisconnected
    return Response("patient")


async def test_client_left_returns_when_the_client_closes(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(leaving)
    await client.send(head("GET", "/"))
    await trio.sleep(5)
    await client.aclose()
    with trio.fail_after(1):
        await client.over.wait()
    assert (client.records[0].status, client.records[0].complete) == (499, False)


async def test_half_closing_client_gets_an_answer_that_is_quick(
    connect: Any, autojump_clock: Any
) -> None:
    async def soon(request: Request) -> Response:
        with trio.move_on_after(0.2):
            await request.wait_client_left()
            raise ClientDisconnected
        return Response("soon")

    for respond, body in [
        (hello, b"hello /"),
        (soon, b"soon"),
        (answering(["a", "b"]), b'["a", "b"]'),
    ]:
        client = connect(respond)
        await client.send(head("GET", "/"))
        await client.stream.send_eof()
        assert (await client.reply()).body == body
        assert await client.rest() == b""


async def test_half_closing_client_gets_a_stream_that_is_quick(
    connect: Any, autojump_clock: Any
) -> None:
    client = connect(answering(str(n) for n in range(9)))
    await client.send(head("GET", "/"))
    await client.stream.send_eof()
    assert (await client.reply()).body == b"012345678"


async def test_half_closing_client_counts_as_gone_after_a_while(
    connect: Any, autojump_clock: Any
) -> None:
    for respond in (leaving, answering(counting(100))):
        client = connect(respond)
        await client.send(head("GET", "/"))
        await client.stream.send_eof()
        started = trio.current_time()
        await client.over.wait()
        assert trio.current_time() - started == pytest.approx(0.25)


async def test_half_closing_client_gets_all_that_it_pipelined(connect: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/one") + head("GET", "/two") + b"GET /thr")
    await client.stream.send_eof()
    assert [(await client.reply()).body for _ in range(2)] == [b"hello /one", b"hello /two"]
    assert (await client.reply()).status == 400
    assert await client.rest() == b""


# A responder that fails


async def test_failing_responder_is_a_500_and_one_line(connect: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "rpyserve")

    async def respond(request: Request) -> Response:
        raise ValueError("a bug")

    client = connect(respond)
    reply = await client.get("/x")
    assert (reply.status, reply.headers["connection"]) == (500, "close")
    assert b"bug" not in reply.body
    assert [record.getMessage() for record in caplog.records] == [
        "GET /x: no response: ValueError: a bug"
    ]
    assert all(record.exc_info is None for record in caplog.records)


async def test_what_is_no_response_is_a_500(fetch: Any) -> None:
    async def respond(request: Request) -> Any:
        return None

    assert (await fetch(respond)).status == 500


async def test_http_error_in_a_group_is_itself(fetch: Any) -> None:
    async def respond(request: Request) -> Response:
        async with trio.open_nursery():
            raise HTTPError(418, "short and stout")

    reply = await fetch(respond)
    assert (reply.status, reply.body.endswith(b"short and stout\n")) == (418, True)


async def test_request_is_closed_whatever_happens(connect: Any, caplog: Any) -> None:
    closed: list[str] = []

    async def respond(request: Request) -> Response:
        request.on_close(lambda: closed.append(request.uri))
        if request.uri == "/bad":
            request.on_close(lambda: 1 / 0)
        if request.uri == "/left":
            raise ClientDisconnected
        return Response("x")

    client = connect(respond)
    await client.get("/good")
    await client.get("/bad")
    await client.send(head("GET", "/left"))
    assert await client.rest() == b""
    assert closed == ["/good", "/bad", "/left"]
    assert "GET /bad: clean-up failed" in caplog.text


async def test_failing_access_log_does_not_harm(nursery: trio.Nursery, caplog: Any) -> None:
    near, far = memory_stream_pair()
    client = Client(near)
    nursery.start_soon(
        partial(
            serve_connection,
            far,
            hello,
            client=CLIENT,
            server=SERVER,
            on_record=lambda record: 1 / 0,
        )
    )
    assert (await client.get()).status == 200
    assert (await client.get()).status == 200
    assert "The access log failed: ZeroDivisionError" in caplog.text


async def test_record_tells_of_one_response(connect: Any, autojump_clock: Any) -> None:
    async def respond(request: Request) -> Response:
        await trio.sleep(2)
        return Response("four", 201)

    client = connect(respond)
    await client.get("/x?y")
    (record,) = client.records
    assert record.request is None  # it was there for who was told, and is not kept
    assert (record.method, record.target, record.client) == ("GET", "/x?y", CLIENT)
    assert (record.status, record.sent, record.seconds, record.complete) == (
        201,
        4,
        2,
        True,
    )


# Making room


class Silence(Upgrade):
    """Another protocol, in which nobody says anything."""

    async def run(self, stream: Any) -> None:
        while await stream.receive_some():
            pass

    def stop(self) -> None:
        pass


async def any_kind(request: Request) -> Response:
    """Answers in the way that the path says."""
    if request.path == "/upgrade":
        return Response.trusted(Silence(), 101, ((b"Upgrade", b"x"),))
    if request.path == "/work":
        await trio.sleep(1000)
    if request.path == "/busy":
        return Response(counting(1000))
    if request.path == "/stream":
        return Response(silent())
    if request.method == "POST":
        await request.load_body()
    return Response(BIG if request.path == "/big" else "x")


async def silent() -> AsyncIterator[str]:
    yield "one"
    await trio.sleep_forever()


WAITING = [
    b"",
    head("GET", "/")[:9],
    head("POST", "/", "Content-Length: 5"),
    head("GET", "/big"),
    head("GET", "/stream"),
    head("GET", "/upgrade", "Connection: Upgrade", "Upgrade: x"),
]
"""What clients send that make the server wait, in the order in which they make room."""


async def of_each_kind(connect: Any, shutdown: Shutdown) -> list[Client]:
    """One client of each kind in `WAITING`, in reversed order."""
    clients = []
    for message in reversed(WAITING):
        stalls = b"/big" in message
        stream = (lambda far: Sluggish(far, 0)) if stalls else None
        client = connect(any_kind, shutdown=shutdown, stream=stream)
        clients.append(client)
        await client.send(message)
        await trio.sleep(0.1)
    return clients


async def test_who_makes_the_server_wait_makes_room_in_a_known_order(
    connect: Any, autojump_clock: Any
) -> None:
    shutdown = Shutdown()
    clients = await of_each_kind(connect, shutdown)
    older = await of_each_kind(connect, shutdown)
    await trio.sleep(2)
    for kind in range(1, len(WAITING) + 1):
        for client in (clients[-kind], older[-kind]):
            assert shutdown.make_room(1) == 1
            await wait_all_tasks_blocked()
            assert client.over.is_set(), WAITING[kind - 1]
    assert shutdown.make_room(1) == 0
    assert not any(record.complete for client in clients for record in client.records)


async def test_whom_a_script_works_for_makes_no_room(connect: Any, autojump_clock: Any) -> None:
    shutdown = Shutdown()
    clients = [connect(any_kind, shutdown=shutdown) for _ in range(2)]
    await clients[0].send(head("GET", "/work"))
    await clients[1].send(head("GET", "/busy"))
    await trio.sleep(10.5)  # between two pieces of the second
    assert shutdown.make_room(9, waited=1000) == 0
    await trio.sleep(10)
    assert not any(client.over.is_set() for client in clients)


async def test_who_is_not_slow_makes_room_only_when_another_has_waited(
    connect: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    shutdown = Shutdown()
    client = connect(echo, shutdown=shutdown)
    await client.send(head("POST", "/", "Content-Length: 1000000"))
    nursery.start_soon(send_steadily, client, b"x" * 1000, math.inf)
    for _ in range(9):
        await trio.sleep(0.9)
        assert shutdown.make_room(1) == 0
    await trio.sleep(0.4)
    assert shutdown.make_room(1, waited=0.2) == 0
    assert shutdown.make_room(1, waited=0.9) == 1
    assert shutdown.make_room(1, waited=0.9) == 0, "it ends already"
    await client.over.wait()


async def test_who_talks_in_another_protocol_is_not_silent(
    connect: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    shutdown = Shutdown()
    silent, talking = (connect(any_kind, shutdown=shutdown) for _ in range(2))
    for client in (silent, talking):
        await client.send(WAITING[-1])
    nursery.start_soon(send_steadily, talking, b"x", 5)
    await trio.sleep(4.5)
    assert shutdown.make_room(2) == 1
    await silent.over.wait()
    await trio.sleep(3)
    assert shutdown.make_room(2) == 1
    await talking.over.wait()


async def test_files_are_counted_while_they_are_sent_or_received(
    connect: Any, autojump_clock: Any
) -> None:
    shutdown = Shutdown()
    counted: list[int] = []
    shutdown.on_file = lambda: counted.append(shutdown.files)
    stalled = connect(
        answering(FileBody(BytesIO(BIG), (range(len(BIG)),))),
        shutdown=shutdown,
        stream=lambda far: Sluggish(far, 0),
    )
    await stalled.send(head("GET", "/"))
    uploads = [connect(echo, shutdown=shutdown) for _ in range(2)]
    for client, size in zip(uploads, (100_000, 600_000), strict=True):
        await client.send(head("POST", "/", "Content-Length: 700000") + bytes(size))
    await trio.sleep(1)
    assert (shutdown.files, counted) == (2, [1, 2])
    for client in (stalled, *uploads):
        await client.aclose()
    await trio.sleep(100)
    assert shutdown.files == 0


# The end


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_comes_after_the_last_request_is_read_and_thrown_away(
    version: str, connect: Any, autojump_clock: Any
) -> None:
    client = connect(hello)
    last = head("GET", "/last", "Connection: close", version=version)
    await client.send(last + b"\r\n" + head("GET", "/never"))
    assert (await client.rest()).endswith(b"hello /last")
    await client.send(b"x" * 100_000)
    await trio.sleep(1)
    assert not client.over.is_set()
    await client.stream.send_eof()
    await wait_all_tasks_blocked()
    assert client.over.is_set()
    assert len(client.records) == 1


async def test_lingering_ends(connect: Any, autojump_clock: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/", "Connection: close"))
    await client.rest()
    began = trio.current_time()
    await client.over.wait()
    assert 3 <= trio.current_time() - began <= 4


async def test_who_has_said_all_is_not_waited_for(connect: Any, autojump_clock: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/"))
    await client.stream.send_eof()
    assert (await client.reply()).status == 200
    await wait_all_tasks_blocked()
    assert client.over.is_set()


# Stopping


async def test_stopping_closes_resting_connections_at_once(connect: Any) -> None:
    shutdown = Shutdown()
    fresh, used, refused = (connect(hello, shutdown=shutdown) for _ in range(3))
    await used.get()
    await refused.send(b"nonsense\r\n\r\n")
    await refused.reply()
    await wait_all_tasks_blocked()
    shutdown.request()
    shutdown.request()
    with trio.fail_after(1):
        for client in (fresh, used, refused):
            assert await client.rest() == b""
            await client.over.wait()


async def test_stopping_ends_a_stream_of_events_and_no_other(
    connect: Any, autojump_clock: Any
) -> None:
    shutdown = Shutdown()
    left = []

    async def ticks(times: float) -> AsyncIterator[str]:
        try:
            while times > 0:
                times -= 1
                yield "tick\n"
                await trio.sleep(1)
        finally:
            left.append(trio.current_time())

    async def respond(request: Request) -> Response:
        if request.path == "/events":
            return Response(
                ticks(math.inf), headers={"Content-Type": "text/event-stream; charset=utf-8"}
            )
        return Response(ticks(4), headers={"Content-Type": "text/plain"})

    events, plain = connect(respond, shutdown=shutdown), connect(respond, shutdown=shutdown)
    await events.send(head("GET", "/events"))
    await plain.send(head("GET", "/plain"))
    await trio.sleep(1.5)
    began = trio.current_time()
    shutdown.request()
    assert (await events.reply()).body == b"tick\n" * 2
    assert await events.rest() == b""
    assert left == [began]
    assert (await plain.reply()).body == b"tick\n" * 4


async def test_stopping_lets_requests_in_flight_end(connect: Any, autojump_clock: Any) -> None:
    shutdown = Shutdown()

    async def respond(request: Request) -> Response:
        await trio.sleep(3)
        return Response("done")

    client = connect(respond, shutdown=shutdown)
    late = connect(hello, shutdown=shutdown)
    await client.send(head("GET", "/") + head("GET", "/never"))
    await late.send(head("GET", "/")[:10])
    await trio.sleep(1)
    shutdown.request()
    await late.send(head("GET", "/")[10:])
    for each, body in ((client, b"done"), (late, b"hello /")):
        reply: Reply = await each.reply()
        assert (reply.body, reply.headers["connection"]) == (body, "close")
        assert await each.rest() == b""


async def test_request_that_comes_with_the_wish_to_stop_is_not_begun(nursery: trio.Nursery) -> None:
    shutdown = Shutdown()
    begun: list[Request] = []

    class Late:
        def __init__(self, stream: Any) -> None:
            self.send_all, self.aclose = stream.send_all, stream.aclose

        async def receive_some(self, limit: int) -> bytes:
            await trio.lowlevel.checkpoint()
            shutdown.request()
            return head("GET", "/")

    async def respond(request: Request) -> Response:
        begun.append(request)
        return Response("x")

    client = connect_to(respond, nursery, stream=Late, shutdown=shutdown)
    assert await client.rest() == b""
    assert not begun


# Anything at all


BITS = st.sampled_from(
    [
        b"GET", b"POST", b"HEAD", b"CONNECT", b" ", b"/", b"*", b"/a?b", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0",
        b"\r\n", b"\n", b"\r", b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"5\r\nabcde\r\n",
        b"0\r\n\r\n", b"abcde", b"\x00", b"\xff", b" \t",
        head("GET", "/"), post(b"abc"), head("POST", "/", "Transfer-Encoding: chunked"), chunked(b"abc", b"d"),
        head("POST", "/", "Content-Length: 70000"), head("HEAD", "/"), b"x" * 70_000,
    ]
)  # fmt: skip
ANYTHING = st.lists(BITS | st.binary(max_size=20), max_size=12).map(b"".join)


async def any_way(request: Request) -> Response:
    """Reads its body or not, streams or not: that follows from the head."""
    if len(request.raw_headers) % 2:
        await request.load_body()
    return Response(iter(["a", "b"])) if request.method == "POST" else Response("c")


@given(data=ANYTHING, cuts=st.lists(st.integers(0, 200), max_size=6), eof=st.booleans())
@example(data=b"\r", cuts=[], eof=True)
@example(data=post(b"abc") * 3, cuts=[1, 1, 1], eof=False)
def test_any_bytes_in_any_chunking_are_answered_or_closed(
    data: bytes, cuts: list[int], eof: bool
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client = connect_to(any_way, nursery)
            rest = data
            with trio.move_on_after(600) as patience:
                try:
                    for cut in cuts:
                        part, rest = rest[:cut], rest[cut:]
                        await client.send(part)
                        await wait_all_tasks_blocked()
                    await client.send(rest)
                    if eof:
                        await client.stream.send_eof()
                except trio.BrokenResourceError:
                    pass  # closed already
                answer = await client.rest()
                await client.over.wait()
            assert not patience.cancelled_caught
            assert not answer or answer.startswith(b"HTTP/1.1 ")
            assert len(client.records) <= answer.count(b"HTTP/1.1 ") + 1

    trio.run(main, clock=MockClock(autojump_threshold=0))


# For the recorder


class Recorder:
    is_alert = True

    def __init__(self) -> None:
        self.begun: list[RequestRecord] = []
        self.weighed: list[RequestRecord] = []

    def begin(self, record: RequestRecord) -> None:
        self.begun.append(record)

    def weigh(self, record: RequestRecord) -> None:
        self.weighed.append(record)


async def test_a_record_is_there_while_a_request_is_answered(connect: Any) -> None:
    shutdown, recorder = Shutdown(), Recorder()

    async def respond(request: Request) -> Response:
        (running,) = shutdown.running()
        assert running is request._record is recorder.begun[-1]
        assert (running.request, running.seconds, running.status) == (request, None, 499)
        return Response("Hello", 200, {"X-Colour": "red"})

    client = connect(respond, recorder=recorder, shutdown=shutdown)
    assert (await client.get("/page", "X-Asked: yes")).status == 200
    (record,) = client.records
    assert shutdown.running() == []
    assert (b"x-asked", b"yes") in list(record.request_headers)
    assert (b"x-colour", b"red") in list(record.response_headers)
    assert record.response_body == Body(5, b"Hello", True)
    assert record.request_body == Body(0, b"", True)
    assert record.request is None


@pytest.mark.parametrize(
    ("size", "kept"), [(5, 5), (MOST_OF_REQUEST, MOST_OF_REQUEST), (2**20, BODY_START)]
)
async def test_a_record_has_the_beginning_of_the_bodies(connect: Any, size: int, kept: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def respond(request: Request) -> Response:
        await request.load_body()
        return Response(request.content.read())

    client = connect(respond, recorder=Recorder())
    await client.send(post(body))
    assert (await client.reply("POST")).body == body
    (record,) = client.records
    assert record.request_body == Body(size, body[:kept], kept == size)
    assert record.body is not None


async def test_a_body_that_nobody_reads_is_kept_as_far_as_it_came(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        return Response("no")

    client = connect(respond, recorder=Recorder())
    await client.send(post(b"12345"))
    assert (await client.reply("POST")).text == "no"
    assert client.records[0].request_body == Body(5, b"12345", True)


async def test_the_body_of_a_response_that_is_cut_off_is_bounded(connect: Any) -> None:
    async def respond(request: Request) -> Response:
        return Response(bytes(2**20))

    client = connect(respond, recorder=Recorder())
    await client.send(head("GET", "/"))
    await client.stream.receive_some(10)
    await client.aclose()
    await client.over.wait()
    body = client.records[0].response_body
    assert body.kept == bytes(BODY_START)
    assert not body.whole
