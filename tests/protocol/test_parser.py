"""Heads that come again: what is spared must not be noticed by anyone."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from rpyserve.http.request import Request
from rpyserve.http.response import IterableStream, Response
from rpyserve.protocol import parser
from rpyserve.protocol.parser import Fields, RequestHead
from rpyserve.protocol.response_headers import ResponseHeadCache
from rpyserve.protocol.transport import Transport
from tests.support.http_client import Client, answering, connect_to, echo, head, hello, post


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_kept", {})


@pytest.fixture
def connect(nursery: trio.Nursery) -> Any:
    return lambda respond, **options: connect_to(respond, nursery, **options)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request, whether h11 was told of it, when its answer was sent."""
    seen: list[bool] = []

    async def send(self: Transport, data: bytes) -> None:
        seen.append(not self.parser.bypassing_h11)
        await real(self, data)

    real = Transport.send
    monkeypatch.setattr(Transport, "send", send)
    return seen


async def answers(client: Client, count: int, method: str = "GET") -> list[bytes]:
    return [(await client.reply(method)).body for _ in range(count)]


async def test_equal_requests_get_equal_answers_and_h11_hears_of_the_first(connect: Any, told: list[bool]) -> None:
    client = connect(hello)
    raw = []
    for _ in range(3):
        await client.send(head("GET", "/a"))
        raw.append(await client.stream.receive_some(65536))
    assert [answer.partition(b"Date: ")[2][31:] for answer in raw] == [raw[0].partition(b"Date: ")[2][31:]] * 3
    assert len({len(answer) for answer in raw}) == 1
    assert told[0] and not told[2]  # the second may be in another second
    assert [exchange.target for exchange in client.exchanges] == ["/a"] * 3


async def test_another_connection_has_it_too(connect: Any, told: list[bool]) -> None:
    first, second = connect(hello), connect(hello)
    await first.get("/a")
    await first.get("/a")
    assert (await second.get("/a")).body == b"hello /a"
    assert parser.get_cached_head(head("GET", "/a")) == RequestHead("GET", "/a", Fields([(b"host", b"site")]), "1.1")


async def test_pipelined(connect: Any) -> None:
    client = connect(hello)
    await client.send(head("GET", "/a") * 3 + head("GET", "/b") + head("GET", "/a") * 2)
    assert await answers(client, 6) == [b"hello /a"] * 3 + [b"hello /b"] + [b"hello /a"] * 2


async def test_a_body_that_looks_like_a_known_head_is_a_body(connect: Any) -> None:
    client = connect(echo)
    known = head("GET", "/a")
    await client.get("/a")
    await client.get("/a")
    await client.send(post(known))
    assert (await client.reply()).body == known
    await client.send(head("POST", "/", f"Content-Length: {len(known)}"))
    await trio.testing.wait_all_tasks_blocked()
    await client.send(known)
    assert (await client.reply()).body == known
    assert (await client.get("/a")).status == 200


@pytest.mark.parametrize("body", ["", "x" * 200_000, b""])
async def test_bodies_of_any_size(connect: Any, body: Any) -> None:
    client = connect(answering(body))
    for _ in range(3):
        assert len((await client.get("/a")).body) == len(body)


async def test_answers_that_need_h11(connect: Any) -> None:
    """A stream, a HEAD, a status without body, and a last answer, each to a head that is known."""
    bodies: list[Response] = [Response("a")] * 2

    async def respond(request: Request) -> Response:
        return bodies.pop(0)

    client = connect(respond)
    await client.get("/a")
    bodies += [
        Response(IterableStream(iter("bc"))),
        Response(b"", 304),
        Response("d"),
        Response(b"", 204),
        Response("e"),
    ]
    assert [(await client.get("/a")).body for _ in range(6)] == [b"a", b"bc", b"", b"d", b"", b"e"]
    bodies += [Response("f")] * 3
    for _ in range(3):
        await client.send(head("HEAD", "/a"))
        reply = await client.reply("HEAD")
        assert (reply.body, reply.headers["content-length"]) == (b"", "1")


async def test_a_client_that_wants_no_more_is_closed_each_time(connect: Any) -> None:
    for _ in range(3):
        client = connect(hello)
        await client.send(head("GET", "/a", "Connection: close"))
        rest = await client.rest()
        assert rest.endswith(b"hello /a") and b"\r\nConnection: close\r\n" in rest
    assert parser.get_cached_head(head("GET", "/a", "Connection: close")) is None


async def test_old_clients_are_closed_each_time(connect: Any) -> None:
    for _ in range(3):
        client = connect(hello)
        await client.send(head("GET", "/a", version="1.0"))
        assert (await client.rest()).endswith(b"hello /a")
    assert parser.get_cached_head(head("GET", "/a", version="1.0")) is None


async def test_a_client_that_closes_its_side_at_once_gets_its_answer(connect: Any) -> None:
    client = connect(hello)
    await client.get("/a")
    await client.get("/a")
    await client.send(head("GET", "/a"))
    await client.stream.send_stream.aclose()
    assert (await client.rest()).endswith(b"hello /a")


async def test_what_a_responder_raises_for_a_known_head_is_answered(connect: Any) -> None:
    calls = iter([None, None, ValueError("no")])

    async def respond(request: Request) -> Response:
        if (failure := next(calls)) is not None:
            raise failure
        return Response("x")

    client = connect(respond)
    await client.get("/a")
    await client.get("/a")
    reply = await client.get("/a")
    assert (reply.status, reply.headers["connection"]) == (500, "close")


def test_few_are_kept_and_no_long_ones() -> None:
    what = RequestHead("GET", "/", Fields(), "1.1")
    for number in range(3 * parser.MOST):
        parser.cache_head(b"%d" % number, what)
    assert len(parser._kept) <= parser.MOST
    parser.cache_head(b"x" * (parser.LONGEST + 1), what)
    assert parser.get_cached_head(b"x" * (parser.LONGEST + 1)) is None


def test_fields_that_come_more_than_once_are_joined() -> None:
    fields = Fields([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert fields.values == {b"a": b"1, 3", b"b": b"2"}
    assert list(fields) == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


def test_a_written_head_is_kept_for_its_second_only() -> None:
    now = 1.0
    heads = ResponseHeadCache(lambda: now)
    key = 200, ((b"A", b"b"),), b"", 5, False
    assert heads.written(key) is None
    heads.keep(key, b"head")
    now = 1.9
    assert heads.written(key) == b"head"
    assert heads.written((200, ((b"A", b"b"),), b"", 6, False)) is None
    now = 2.0
    assert heads.written(key) is None


def test_few_written_heads_are_kept() -> None:
    heads = ResponseHeadCache(lambda: 0)
    for length in range(2000):
        heads.make(200, (), b"", length, False)
        heads.keep((200, (), b"", length, False), b"head")
    assert len(heads._written) <= 256
