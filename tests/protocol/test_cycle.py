"""Cycles of which h11 is not told: nobody must notice."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
import trio.testing

from rpyserve.http.request import Request
from rpyserve.http.response import IterableStream, Response
from rpyserve.protocol import connection
from rpyserve.protocol.cycle import H11State, MessageCycle
from rpyserve.protocol.grammar import parse_head
from rpyserve.protocol.response_headers import ResponseHeadCache
from rpyserve.protocol.transport import Transport
from tests.support.http_client import Client, answering, connect_to, echo, head, hello, post


@pytest.fixture(autouse=True)
def heads(monkeypatch: pytest.MonkeyPatch) -> ResponseHeadCache:
    """The heads of responses, of a second that does not end."""
    heads = ResponseHeadCache(lambda: 0)
    monkeypatch.setattr(connection, "_HEADS", heads)
    return heads


@pytest.fixture
def connect(nursery: trio.Nursery) -> Any:
    return lambda respond, **options: connect_to(respond, nursery, **options)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request, whether h11 was told of it, when its answer was sent."""
    seen: list[bool] = []

    def send(self: Transport, data: bytes) -> int:
        seen.append(self.cycle.state is H11State.IN_STEP)
        return real(self, data)

    real = Transport.send_nowait
    monkeypatch.setattr(Transport, "send_nowait", send)
    return seen


async def answers(client: Client, count: int, method: str = "GET") -> list[bytes]:
    return [(await client.reply(method)).body for _ in range(count)]


async def test_equal_requests_get_equal_answers_and_h11_hears_of_the_first(
    connect: Any, told: list[bool]
) -> None:
    client = connect(hello)
    raw = []
    for _ in range(3):
        await client.send(head("GET", "/a"))
        raw.append(await client.stream.receive_some(65536))
    assert [answer.partition(b"Date: ")[2][31:] for answer in raw] == [
        raw[0].partition(b"Date: ")[2][31:]
    ] * 3
    assert len({len(answer) for answer in raw}) == 1
    assert told == [True, False, False]
    assert [record.target for record in client.records] == ["/a"] * 3


async def test_another_connection_and_another_request_bypass_h11_too(
    connect: Any, told: list[bool]
) -> None:
    first, second = connect(answering("x")), connect(answering("x"))
    await first.get("/a")
    assert (await second.get("/b", "Cookie: c=d")).body == b"x"
    assert told == [True, False]


async def test_a_request_with_a_body_bypasses_h11_too(connect: Any, told: list[bool]) -> None:
    client = connect(echo)
    for _ in range(2):
        await client.send(post(b"abc"))
        assert (await client.reply()).body == b"abc"
    assert told == [True, False]


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


async def test_old_clients_are_closed_each_time(connect: Any) -> None:
    for _ in range(3):
        client = connect(hello)
        await client.send(head("GET", "/a", version="1.0"))
        assert (await client.rest()).endswith(b"hello /a")


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


# The states


def cycle_of(data: bytes) -> MessageCycle:
    cycle = MessageCycle()
    assert cycle.state is H11State.IDLE
    cycle.begin(parse_head(data, "http"))
    assert cycle.state is H11State.BYPASSED
    return cycle


def test_h11_is_told_when_it_is_asked_for() -> None:
    cycle = cycle_of(head("GET", "/"))
    assert cycle.can_bypass_h11 and cycle.keep_alive
    assert cycle.h11.our_state is h11.SEND_RESPONSE
    assert cycle.state is H11State.IN_STEP
    assert not cycle.can_bypass_h11
    assert not cycle.keep_alive, "the response has not been sent"


@pytest.mark.parametrize("told", [True, False])
def test_after_a_cycle_there_is_no_request(told: bool) -> None:
    cycle = cycle_of(head("GET", "/"))
    if told:
        cycle.h11.send(h11.Response(status_code=204, headers=[]))
        cycle.h11.send(h11.EndOfMessage())
    assert cycle.keep_alive
    cycle.start_next()
    assert cycle.state is H11State.IDLE
    assert cycle.h11.our_state is h11.IDLE


FIELDS = [
    (),
    ("Connection: close",),
    ("Connection: keep-alive",),
    ("Connection: x, Close",),
    ("Upgrade: websocket", "Connection: Upgrade"),
    ("Content-Length: 5",),
    ("Transfer-Encoding: chunked",),
    ("Expect: 100-continue", "Content-Length: 5"),
]


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("length", [None, 5])
def test_h11_does_what_it_would_do_had_it_read_the_request(
    method: str, fields: tuple[str, ...], version: str, length: int | None
) -> None:
    if version == "1.0" and "Transfer-Encoding: chunked" in fields:
        pytest.skip("refused")
    data = head(method, "/", *fields, version=version)
    cycle = cycle_of(data)
    reading = h11.Connection(h11.SERVER)
    reading.receive_data(data)
    reading.next_event()
    headers = [] if length is None else [("Content-Length", str(length))]
    sent = []
    for machine in (cycle.h11, reading):
        written = machine.send(h11.Response(status_code=200, headers=headers))
        if method != "HEAD":
            written += machine.send(h11.Data(data=b"hello"))
        sent.append(written + machine.send(h11.EndOfMessage()))
    assert sent[0] == sent[1]
    goes_on = reading.our_state is h11.DONE
    assert cycle.keep_alive == goes_on
    assert cycle_of(data).keep_alive == goes_on, "also where h11 is bypassed"


def test_h11_lets_a_protocol_be_changed_that_the_client_proposed() -> None:
    cycle = cycle_of(head("GET", "/", "Connection: Upgrade", "Upgrade: websocket"))
    cycle.h11.send(h11.InformationalResponse(status_code=101, headers=[]))
    assert cycle.h11.our_state is h11.SWITCHED_PROTOCOL
    with pytest.raises(h11.LocalProtocolError):
        cycle_of(head("GET", "/")).h11.send(h11.InformationalResponse(status_code=101, headers=[]))
