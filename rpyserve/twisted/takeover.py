"""Another protocol of Twisted's on the connection of a request, such as WebSockets.

Such a protocol writes to the ``transport`` below the request, and its first words are the head of a
response. That head goes out as any other does; if it is a 101, the protocol has the connection from
then on, until it or the client closes it.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.headers import encode_header
from rpyserve.http.response import Headers, Upgrade
from rpyserve.util.exceptions import unwrap_group

HIGH_WATER: Final = 64 * 1024
"""How many bytes wait for the client before a producer is paused."""

READ_SIZE: Final = 64 * 1024
"""How many bytes of the client's are given to the protocol at once, at most."""

MOST_HEAD: Final = 64 * 1024
"""How long the head may be that a protocol writes."""


@implementer(ITCPTransport)
class ConnectionTransport(Upgrade):
    """The ``transport`` of a genuine request's channel.

    Args:
        channel: the `Channel` of the request.

    Attributes:
        protocol: what takes over the connection; set by it, or by whoever makes it.
        disconnecting: whether somebody has said `loseConnection`.
    """

    def __init__(self, channel: Any) -> None:
        # Few requests use it, so what only they need is made later.
        self._channel = channel
        self.protocol: Any = None
        self.disconnecting = self._is_aborted = False
        self.connected = True
        self._head: bytes | None = b""
        self._out = b""
        self._changed: trio.Event | None = None
        self._may_read: trio.Event | None = None
        self._producer: Any = None
        self._is_push = self._is_paused = False

    # For the protocol

    def write(self, data: bytes) -> None:
        """Send *data*. Before there was any head of a response, it is that head."""
        channel = self._channel
        if channel.status and channel.taken_over is None:
            channel.write(data)
        elif self._head is None:
            self._queue(data)
        else:
            self._head += data
            self._take_head(self._head)

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close the connection when all has been sent."""
        self.disconnecting = True
        if self._channel.taken_over is None:
            self._channel.loseConnection()
        else:
            self._wake()

    def abortConnection(self) -> None:
        """Close the connection now."""
        if self._channel.taken_over is None:
            self._channel.abortConnection()
        else:
            self._is_aborted = True
            self._wake()

    def getPeer(self) -> Any:
        return self._channel.getPeer()

    def getHost(self) -> Any:
        return self._channel.getHost()

    def pauseProducing(self) -> None:
        """Give the protocol nothing more of the client's for now."""
        if self._may_read is None:
            self._may_read = trio.Event()

    def resumeProducing(self) -> None:
        if self._may_read is not None:
            self._may_read.set()
            self._may_read = None

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have *producer* write, as fast as the client reads."""
        if self._channel.taken_over is None:
            self._channel.registerProducer(producer, streaming)
            return
        self._producer, self._is_push, self._is_paused = producer, streaming, False
        self._wake()

    def unregisterProducer(self) -> None:
        if self._channel.taken_over is None:
            self._channel.unregisterProducer()
        self._producer = None

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    # What a connection of ours does by itself

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    # The head

    def _take_head(self, head: bytes) -> None:
        raw, end, rest = head.partition(b"\r\n\r\n")
        if not end:
            if len(head) > MOST_HEAD:
                self._channel.fail(ValueError("what the protocol writes is no head of a response"))
            return
        self._head = None
        try:
            status, headers = _parsed(raw)
        except ValueError as exc:
            self._channel.fail(exc)
            return
        if status == 101:
            self._queue(rest)
            self._channel.take_over(self, status, headers)
        else:
            self._channel.writeHeaders(b"HTTP/1.1", status, b"", headers)
            self._channel.write(rest)

    def _queue(self, data: bytes) -> None:
        self._out += data
        self._wake()
        if self._is_push and not self._is_paused and len(self._out) > HIGH_WATER:
            self._is_paused = True
            self._producer.pauseProducing()

    # For our connection

    async def run(self, stream: Any) -> None:
        """Let the protocol and the client speak; see `Upgrade`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, nursery.cancel_scope)
                await self._send(stream)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ClientDisconnected):
            pass
        except* Exception as group:  # of the protocol, or of its producer
            self._channel.report(unwrap_group(group))
        finally:
            self._end()

    def stop(self) -> None:
        """See `Upgrade`."""
        self.loseConnection()

    async def _read(self, stream: Any, scope: trio.CancelScope) -> None:
        while True:
            data = await stream.receive_some(READ_SIZE)
            if not data:
                scope.cancel()
                return
            # It may have been paused while this waited for the client, and again after a resume.
            while self._may_read is not None:
                await self._may_read.wait()
            self.protocol.dataReceived(bytes(data))

    async def _send(self, stream: Any) -> None:
        while not self._is_aborted:
            if self._out:
                data, self._out = self._out, b""
                await stream.send_all(data)
            elif self._producer is not None and self._wants_more:
                self._is_paused = False
                self._producer.resumeProducing()
                await trio.lowlevel.checkpoint()
            elif self.disconnecting:
                return
            else:
                self._changed = trio.Event()
                await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    @property
    def _wants_more(self) -> bool:
        return self._is_paused or not self._is_push

    def _end(self) -> None:
        self.connected = False
        if self._producer is not None:
            self._producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(Failure(ConnectionDone("Connection done.")))


def _parsed(head: bytes) -> tuple[int, Headers]:
    """The status and the fields of the head of a response.

    Raises:
        ValueError: it is none.
    """
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ", 2)
    if not words[0].startswith(b"HTTP/1.") or not words[1:] or not words[1].isdigit():
        raise ValueError(f"what the protocol writes is no head of a response: {first[:60]!r}")
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append(encode_header(name.strip(), value.strip()))
    return int(words[1]), tuple(fields)
