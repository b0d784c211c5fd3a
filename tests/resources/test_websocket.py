"""WebSockets: the handshake, messages both ways, and every way in which a connection ends."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Request, Site, WebSocketResource, websocket
from rpyserve.protocol.server_state import Shutdown
from tests.support.http_client import connect_to
from tests.support.in_process import ask
from tests.support.real_process import serving

wsproto = pytest.importorskip("wsproto")
from wsproto import events  # noqa: E402
from wsproto.connection import Connection, ConnectionState, ConnectionType  # noqa: E402

from rpyserve.http.websocket import WebSocket, WebSocketClosed  # noqa: E402
from rpyserve.resources.websocket_connection import (  # noqa: E402
    EVENTS_AT_ONCE,
    GRACE,
    PING,
    WebSocketConnection,
)

KEY = base64.b64encode(bytes(range(16))).decode()
SHAKE = [
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
]


class Peer:
    """A client that has shaken hands."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.head = b""
        self.protocol = Connection(ConnectionType.CLIENT)

    async def shake(self, *fields: str, early: bytes = b"") -> None:
        lines = ["GET /?room=1 HTTP/1.1", "Host: localhost:8080", *SHAKE, *fields, "", ""]
        await self.stream.send_all("\r\n".join(lines).encode() + early)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive_some(65536)
        self.head, _, rest = data.partition(b"\r\n\r\n")
        self.protocol.receive_data(rest)

    async def send(self, *sent: Any) -> None:
        await self.stream.send_all(b"".join(self.protocol.send(event) for event in sent))

    async def say(self, data: str | bytes) -> None:
        await self.send(
            events.TextMessage(data=data)
            if isinstance(data, str)
            else events.BytesMessage(data=data)
        )

    async def next(self) -> Any:
        """The next event: a whole message, a ping, or the end."""
        parts: list[Any] = []
        while True:
            for event in self.protocol.events():
                if not isinstance(event, events.Message):
                    return event
                parts.append(event.data)
                if event.message_finished:
                    return parts[0][:0].join(parts)
            data = await self.stream.receive_some(65536)
            self.protocol.receive_data(data or None)

    async def end(self) -> tuple[int, str | None]:
        """Wait for the goodbye, return it, and the connection must be closed after that."""
        while not isinstance(event := await self.next(), events.CloseConnection):
            pass
        if self.protocol.state is ConnectionState.REMOTE_CLOSING:
            await self.send(event.response())
        assert await self.stream.receive_some(100) == b""
        return int(event.code), event.reason


@asynccontextmanager
async def talking(
    resource: Any, *fields: str, early: bytes = b"", **options: Any
) -> AsyncIterator[Peer]:
    async with Site(resource).running() as site, trio.open_nursery() as nursery:
        client = connect_to(site.respond, nursery, **options)
        peer = Peer(client.stream)
        await peer.shake(*fields, early=early)
        yield peer
        await peer.stream.aclose()


@websocket
async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


async def test_messages_both_ways(autojump_clock: Any) -> None:
    async with talking(echo) as peer:
        head = peer.head.decode().lower()
        assert (
            head.startswith("http/1.1 101 switching protocols\r\n")
            and "connection: upgrade" in head
        )
        assert "sec-websocket-accept: " in head and "content-length" not in head
        for message in ("hi", "", "é" * 70_000, b"\x00\xff", b"x" * 200_000):
            await peer.say(message)
            assert await peer.next() == message
        await peer.send(events.CloseConnection(code=1000, reason="bye"))
        assert (await peer.end())[0] == 1000


async def test_what_comes_with_the_handshake_and_in_pieces(autojump_clock: Any) -> None:
    early = Connection(ConnectionType.CLIENT).send(events.TextMessage(data="early"))
    async with talking(echo, early=early) as peer:
        assert await peer.next() == "early"
        pieces = [events.TextMessage(data="a", message_finished=False), events.Ping(payload=b"?")]
        await peer.send(*pieces, events.TextMessage(data="b"))
        assert (
            await peer.next() == events.Pong(payload=bytearray(b"?")) and await peer.next() == "ab"
        )
        for byte in peer.protocol.send(events.TextMessage(data="slowly")):
            await peer.stream.send_all(bytes([byte]))
        assert await peer.next() == "slowly"


class Both(WebSocketResource):
    subprotocols = ("v2", "v1")
    origins = ("http://localhost:5173",)
    max_size = 10

    def render_GET(self, request: Request) -> str:
        return "the page"

    async def connected(self, socket: WebSocket) -> None:
        await socket.send_json([socket.subprotocol, socket.request.args, socket.request.path])
        with pytest.raises(TypeError, match="send_json"):
            await socket.send({})  # type: ignore[arg-type]
        await socket.receive()
        await socket.close(4000, "enough")


async def test_a_class_and_its_page(autojump_clock: Any) -> None:
    assert (await ask(Site(Both()), "/")).text == "the page"
    async with talking(
        Both(), "Sec-WebSocket-Protocol: v1, v2", "Origin: http://localhost:5173"
    ) as peer:
        assert b"Sec-WebSocket-Protocol: v2" in peer.head
        assert json.loads(await peer.next()) == ["v2", {"room": ["1"]}, "/"]
        await peer.say("go on")
        assert await peer.end() == (4000, "enough")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": "h2c"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "!" * 24}, 400),
        ({"Connection": "close"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Origin": "http://localhost:80801"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_handshakes_that_fail(changes: dict[str, str], status: int) -> None:
    fields = {"Host": "localhost:8080", **dict(line.split(": ", 1) for line in SHAKE), **changes}
    answer = await ask(Site(echo), "/", headers=list(fields.items()))
    assert answer.status == status
    if status == 426:
        assert answer.header("upgrade") == "websocket"


async def test_an_upgrade_in_http_1_0_is_ignored() -> None:
    for resource, status in ((echo, 426), (Both(), 200)):
        raw = [tuple(part.encode() for part in line.split(": ", 1)) for line in SHAKE]
        request = Request("GET", "/", raw, http_version="1.0")
        assert (await Site(resource).respond(request)).status == status
        request.close()


@pytest.mark.parametrize(
    "origin", ["http://localhost:8080", "HTTP://LOCALHOST:8080", "https://localhost:8080"]
)
async def test_pages_of_this_server_may_connect(origin: str, autojump_clock: Any) -> None:
    async with talking(echo, f"Origin: {origin}") as peer:
        await peer.say("x")
        assert await peer.next() == "x"


async def test_one_origin_may_be_written_without_a_list(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rpyserve")
    resource = websocket(echo.connected, origins="http://localhost:5173")
    async with talking(resource, "Origin: http://localhost:5173") as peer:
        assert b" 101 " in peer.head
    async with talking(resource, "Origin: http://localhost:5174") as peer:
        assert b" 403 " in peer.head
    assert "write origins=['http://localhost:5174']" in caplog.text
    assert "leave out its changeOrigin" in caplog.text


def test_a_function_that_is_not_async() -> None:
    def plain(socket: WebSocket) -> None: ...

    with pytest.raises(TypeError, match="write `async def`"):
        websocket(plain)  # type: ignore[arg-type]


async def test_too_large(autojump_clock: Any) -> None:
    async with talking(Both(), "Origin: http://localhost:5173") as peer:
        await peer.next()
        await peer.send(
            events.TextMessage(data="12345678", message_finished=False),
            events.TextMessage(data="901"),
        )
        assert (await peer.end())[0] == 1009


@pytest.mark.parametrize(
    "sent", [b"\xff\xff\xff", b"\x81\x03abc", b"\x83\x80\x00\x00\x00\x00", b"\x81\x81\0\0\0\0\xff"]
)
async def test_what_is_no_websocket_frame(sent: bytes, autojump_clock: Any) -> None:
    async with talking(echo) as peer:
        await peer.stream.send_all(sent)
        assert (await peer.end())[0] in (1002, 1007)


@pytest.mark.parametrize(
    "exc", [ValueError("oops"), SystemExit("oops"), ExceptionGroup("", [ValueError("oops")])]
)
async def test_a_function_that_fails(
    exc: BaseException, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket
    async def fails(socket: WebSocket) -> None:
        raise exc

    async with talking(fails) as peer:
        assert (await peer.end())[0] == 1011
    assert caplog.text.count("oops") == 1


async def test_returning_says_goodbye_even_to_a_client_that_does_not_answer(
    autojump_clock: Any,
) -> None:
    @websocket
    async def short(socket: WebSocket) -> None:
        await socket.send("hello")

    async with talking(short) as peer:
        began = trio.current_time()
        assert await peer.next() == "hello"
        assert (await peer.next()).code == 1000
        assert await peer.stream.receive_some(10) == b""
        assert GRACE <= trio.current_time() - began < GRACE + 2


Ending = Callable[[WebSocket, list[str]], Any]


async def reading(socket: WebSocket, seen: list[str]) -> None:
    async for _ in socket:
        pass
    await trio.sleep(1)  # clean-up has some time
    seen.append("ended by itself")


async def waiting(socket: WebSocket, seen: list[str]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        seen.append("cancelled")


async def sending(socket: WebSocket, seen: list[str]) -> None:
    try:
        while True:
            await trio.sleep(1)
            await socket.send("tick")
    except (WebSocketClosed, trio.Cancelled):
        seen.append("noticed")
        raise


async def both(socket: WebSocket, seen: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting, socket, seen)
        await reading(socket, seen)


@pytest.mark.parametrize("leave", ["goodbye", "close", "vanish"])
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (reading, ["ended by itself"]), (waiting, ["cancelled"]), (sending, ["noticed"]),
        (both, ["ended by itself", "cancelled"]),
    ],
)  # fmt: skip
async def test_a_client_that_leaves(
    work: Ending, expected: list[str], leave: str, autojump_clock: Any
) -> None:
    seen: list[str] = []

    @websocket
    async def resource(socket: WebSocket) -> None:
        await work(socket, seen)

    async with talking(resource) as peer:
        await trio.sleep(0.5)
        if leave == "goodbye":
            await peer.send(events.CloseConnection(code=1001))
            await peer.end()
        elif leave == "close":
            await peer.stream.aclose()
        else:
            await trio.sleep(3 * PING)  # it answers no ping
        await trio.sleep(GRACE + 2)
        assert seen == expected


async def test_who_answers_pings_stays(autojump_clock: Any) -> None:
    async with talking(echo) as peer:
        for _ in range(5):
            event = await peer.next()
            assert isinstance(event, events.Ping)
            await peer.send(event.response())
        await peer.say("still here")
        assert await peer.next() == "still here"


async def test_stopping_says_goodbye(autojump_clock: Any) -> None:
    shutdown = Shutdown()
    async with talking(echo, shutdown=shutdown) as peer:
        await peer.say("x")
        assert await peer.next() == "x"
        shutdown.request()
        assert await peer.end() == (1001, "the server is shutting down")


async def test_a_message_keeps_the_session_alive(autojump_clock: Any) -> None:
    sessions: list[Any] = []

    @websocket
    async def resource(socket: WebSocket) -> None:
        sessions.append(socket.request.getSession())
        async for _ in socket:
            pass

    async with Site(resource, sessionTimeout=5).running() as site, trio.open_nursery() as nursery:
        peer = Peer(connect_to(site.respond, nursery).stream)
        await peer.shake()
        for _ in range(5):
            await trio.sleep(3)
            await peer.say("x")
        assert sessions[0].ended is None
        await trio.sleep(6)
        assert sessions[0].ended is not None
        await peer.stream.aclose()


async def test_a_function_that_takes_its_time_keeps_its_client(autojump_clock: Any) -> None:
    @websocket
    async def slow(socket: WebSocket) -> None:
        async for message in socket:
            await trio.sleep(10 * PING)
            await socket.send(f"done with {message}")

    async with talking(slow) as peer:
        await peer.say("a")
        await peer.say("b")  # waits for its turn, and all that comes after it waits too
        heard: list[Any] = []
        while len(heard) < 2:
            event = await peer.next()
            if isinstance(event, events.Ping):
                await peer.send(event.response())
            else:
                heard.append(event)
        assert heard == ["done with a", "done with b"]


async def test_the_last_message_is_dealt_with_although_the_client_has_said_goodbye(
    autojump_clock: Any,
) -> None:
    seen = []

    @websocket
    async def resource(socket: WebSocket) -> None:
        async for message in socket:
            await trio.sleep(1)
            seen.append(message)

    async with talking(resource) as peer:
        for message in "abc":
            await peer.say(message)
        await peer.send(events.CloseConnection(code=1000))
        await peer.end()
    assert seen == ["a", "b", "c"]


async def test_a_client_that_breaks_off_while_its_message_waits(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def connected(socket: WebSocket) -> None:
        await trio.sleep(5)
        try:
            await socket.send("x")
        finally:
            seen.append(socket)

    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(theirs)
    request = Request("GET", "/")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(WebSocketConnection(request, connected, None, 2**20).run, ours)
        await peer.say("nobody takes it")
        await trio.sleep(1)
        ours.send_stream.close()
    assert seen and not caplog.records


async def test_a_send_that_is_cancelled_half_way_ends_the_connection(autojump_clock: Any) -> None:
    reached = []

    async def connected(socket: WebSocket) -> None:
        with trio.move_on_after(1):
            await socket.send("x" * 100)
        await socket.send("y")
        reached.append("a send after half a frame")

    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            WebSocketConnection(Request("GET", "/"), connected, None, 2**20).run, ours
        )
        await trio.sleep(2)
        await theirs.aclose()
    assert reached == []


async def test_pieces_of_nothing_do_not_pile_up(autojump_clock: Any) -> None:
    connection = WebSocketConnection(Request("GET", "/"), echo.connected, None, 2**20)
    for _ in range(1000):
        await connection._handle_message(events.TextMessage(data="", message_finished=False))
    assert len(connection._message) == 0


@pytest.mark.parametrize(
    "frames",
    [
        [events.Pong()],
        [events.BytesMessage(data=b"", message_finished=False)],
        [events.BytesMessage(data=b"x", message_finished=False)],
        [events.Ping()],
        [events.BytesMessage(data=b"x")],
    ],
)
async def test_tiny_frames_do_not_keep_others_waiting(
    frames: list[Any], autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []  # how many turns others had had when each frame was dealt with
    turn = 0
    handle = WebSocketConnection._handle

    async def counting(connection: WebSocketConnection, event: Any) -> None:
        turns.append(turn)
        await handle(connection, event)

    monkeypatch.setattr(WebSocketConnection, "_handle", counting)
    async with talking(echo) as peer, trio.open_nursery() as nursery:
        sent = b"".join(peer.protocol.send(event) for event in frames * 3000)
        nursery.start_soon(peer.stream.send_all, sent)
        while len(turns) < 3000:
            turn += 1
            await trio.lowlevel.checkpoint()
    # trio runs the tasks of one turn in any order, and the end of the stream is one event more.
    assert max(Counter(turns).values()) <= 2 * EVENTS_AT_ONCE + 1


@pytest.mark.parametrize("text", [True, False])
async def test_the_limit_is_of_bytes(text: bool, autojump_clock: Any) -> None:
    resource = Both()  # takes 10 bytes
    async with talking(resource, "Origin: http://localhost:5173") as peer:
        await peer.next()
        await peer.say("\u20ac" * 4 if text else b"x" * 11)
        assert (await peer.end())[0] == 1009


async def test_stopping_does_not_wait_for_a_function_that_is_at_work(autojump_clock: Any) -> None:
    @websocket
    async def busy(socket: WebSocket) -> None:
        async for _ in socket:
            await trio.sleep(1000)

    shutdown = Shutdown()
    async with talking(busy, shutdown=shutdown) as peer:
        await peer.say("x")
        await trio.sleep(1)
        began = trio.current_time()
        shutdown.request()
        assert await peer.end() == (1001, "the server is shutting down")
        assert trio.current_time() - began < 1


async def test_back_pressure(autojump_clock: Any) -> None:
    async def connected(socket: WebSocket) -> None:
        await trio.sleep(10)
        async for _ in socket:
            await trio.sleep(1)

    ours, theirs = trio.testing.lockstep_stream_pair()  # what is sent waits until it is received
    peer = Peer(theirs)
    request = Request("GET", "/")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(WebSocketConnection(request, connected, None, 2**20).run, ours)
        began = trio.current_time()
        for _ in range(10):
            await peer.say("x")
        assert 15 < trio.current_time() - began < 25  # nobody reads ahead, so nothing piles up
        await theirs.aclose()


def test_without_wsproto_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "rpyserve.resources.websocket_connection",
        "wsproto",
        "wsproto.connection",
        "wsproto.events",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    headers = [tuple(line.split(": ", 1)) for line in SHAKE]

    async def main() -> None:
        answer = await ask(Site(echo), "/", headers=headers)
        assert answer.status == 500 and "pip install wsproto" in answer.text

    trio.run(main)


@pytest.mark.process
def test_a_real_client(tmp_path: Path) -> None:
    client = pytest.importorskip("websockets.sync.client")
    site = tmp_path / "site"
    site.mkdir()
    (site / "chat.rpy").write_text(
        "from rpyserve import websocket\n\n@websocket\nasync def resource(socket):\n"
        "    async for message in socket:\n        await socket.send(message * 2)\n",
        encoding="utf-8",
    )
    with (
        serving(site, tmp_path) as server,
        client.connect(f"ws://127.0.0.1:{server.port}/chat") as socket,
    ):
        socket.send("ha")
        assert socket.recv() == "haha"
        socket.send(b"\x00" * 100_000)
        assert len(socket.recv()) == 200_000
        socket.close()
        server.wait_for(r"GET /chat 101 ")
