"""Another protocol of Twisted's takes the connection over."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Request, TextMessage

from rpyserve import Site
from tests.support.genuine import TWISTED

from twisted.internet.protocol import Protocol  # isort: skip
from twisted.web.resource import Resource  # isort: skip
from twisted.web.server import NOT_DONE_YET  # isort: skip

UPGRADE = (
    b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly "
)


class Echo(Protocol):  # type: ignore[misc]
    """Says what it hears, in capitals."""

    def __init__(self, ends: list[str]) -> None:
        self.ends = ends
        self.heard = b""

    def connectionMade(self) -> None:
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgr")
        self.transport.write(b"ade: echo\r\nX-Own: yes\r\n\r\nhello ")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.transport.write(data.upper())
        if b"bye" in data:
            self.transport.loseConnection()
        if b"fail" in data:
            raise ValueError("the protocol failed")

    def connectionLost(self, reason: Any) -> None:
        self.ends.append(reason.type.__name__)


class Taken(Resource):  # type: ignore[misc]
    """Does as libraries for WebSockets do: takes the transport from the channel."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def render_GET(self, request: Any) -> Any:
        transport, request.channel.transport = request.channel.transport, None
        self.transport = transport
        transport.protocol = Echo(self.ends)
        transport.protocol.makeConnection(transport)
        return NOT_DONE_YET


async def read_until(client: Any, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        more = await client.stream.receive_some()
        assert more, data
        data += more
    return data


async def test_a_protocol_that_takes_over(connect: Any) -> None:
    resource = Taken()
    client = connect(Site(resource).respond)
    await client.send(UPGRADE)
    head, _, rest = (await read_until(client, b"EARLY ")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"X-Own: yes" in head
    assert rest == b"hello EARLY "
    await client.send(b"bye")
    assert await read_until(client, b"BYE") == b"BYE"
    assert await client.stream.receive_some() == b""
    assert resource.ends == ["ConnectionDone"]


async def test_a_protocol_that_has_paused_hears_nothing(connect: Any) -> None:
    resource = Taken()
    client = connect(Site(resource).respond)
    await client.send(UPGRADE)
    await read_until(client, b"EARLY ")
    transport = resource.transport
    transport.pauseProducing()  # while the client is silent
    await client.send(b"more")
    await trio.testing.wait_all_tasks_blocked()
    assert transport.protocol.heard == b"early "
    transport.resumeProducing()
    transport.pauseProducing()  # before anything has come of that
    await trio.testing.wait_all_tasks_blocked()
    assert transport.protocol.heard == b"early "
    transport.resumeProducing()
    assert await read_until(client, b"MORE") == b"MORE"
    await client.aclose()
    await client.over.wait()


async def test_the_client_leaves(connect: Any) -> None:
    resource = Taken()
    client = connect(Site(resource).respond)
    await client.send(UPGRADE)
    await read_until(client, b"EARLY ")
    await client.aclose()
    await client.over.wait()
    assert resource.ends == ["ConnectionDone"]


async def test_the_protocol_raises(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    resource = Taken()
    client = connect(Site(resource).respond)
    await client.send(UPGRADE)
    await read_until(client, b"EARLY ")
    await client.send(b"fail")
    await client.over.wait()
    assert resource.ends == ["ConnectionDone"]
    assert "ValueError: the protocol failed" in caplog.text


async def test_its_producer_raises(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def resumeProducing(self) -> None:
            raise ValueError("the producer failed")

        def stopProducing(self) -> None: ...

    resource = Taken()
    client = connect(Site(resource).respond)
    await client.send(UPGRADE)
    await read_until(client, b"EARLY ")
    resource.transport.registerProducer(Broken(), False)
    await client.over.wait()
    assert resource.ends == ["ConnectionDone"]
    assert "ValueError: the producer failed" in caplog.text


@pytest.mark.skipif(TWISTED < (25, 5), reason="this Twisted has no WebSockets of its own")
async def test_twisteds_own_web_sockets(connect: Any) -> None:
    from twisted.web.websocket import WebSocketResource

    ended = trio.Event()

    class Shout:
        def negotiationStarted(self, transport: Any) -> None:
            self.transport = transport

        def negotiationFinished(self) -> None:
            pass

        def textMessageReceived(self, message: str) -> None:
            self.transport.sendTextMessage(message.upper())

        def bytesMessageReceived(self, data: bytes) -> None: ...

        def pongReceived(self, payload: bytes) -> None: ...

        def connectionLost(self, reason: Any) -> None:
            ended.set()

    class Factory:
        def buildProtocol(self, request: Any) -> Any:
            return Shout()

    root = Resource()
    root.putChild(b"x", WebSocketResource(Factory()))
    client = connect(Site(root).respond)
    socket = WSConnection(ConnectionType.CLIENT)
    await client.send(socket.send(Request(host="localhost", target="/x")))

    async def next_event(kind: type) -> Any:
        while True:
            for event in socket.events():
                if isinstance(event, kind):
                    return event
            data = await client.stream.receive_some()
            assert data, "the server has closed the connection"
            socket.receive_data(data)

    await next_event(AcceptConnection)
    await client.send(socket.send(Message(data="hello")))
    assert (await next_event(TextMessage)).data == "HELLO"
    await client.send(socket.send(CloseConnection(code=1000)))
    await next_event(CloseConnection)
    await client.over.wait()
    assert ended.is_set()
