"""What a genuine request talks to in place of a connection; it collects a `Response`.

A response that is finished at once is whole. One that is not is a stream, whose head goes out when
Twisted writes it. What is written waits in the stream until the client takes it: a push producer is
paused meanwhile, and a pull producer is asked for more only when nothing waits. When the client
leaves, the request hears of it by ``connectionLost``, as it does from Twisted.

Somebody who writes to the ``transport`` below, before there is a head, takes the connection over:
see `takeover`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import trio
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.error import FlattenerError

from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.headers import encode_header, reason_phrase
from rpyserve.http.request import Address, Request
from rpyserve.http.response import FileBody, Headers, Response, StartedStream, Upgrade, WriteStream
from rpyserve.twisted.site import hosting_of
from rpyserve.twisted.takeover import HIGH_WATER, ConnectionTransport
from rpyserve.twisted.texts import encoded
from rpyserve.util.exceptions import split_control_flow

WHOLE: Final = 128 * 1024
"""A pull producer that ends before so many bytes makes a whole response."""


class Channel:
    """The channel of one genuine request, and what it has written.

    Args:
        native: the request of ours.
        site: the genuine ``Site``.

    Attributes:
        request: the genuine request; set by whoever makes it.
        status: the status that was written; 0 if there is no head yet.
        is_malformed: Twisted found that the form in the body is none.
        taken_over: what speaks another protocol on the connection, if anything does.
    """

    factory = None  # whose log of accesses it would be: ours is written elsewhere

    def __init__(self, native: Request, site: Any) -> None:
        self.native = native
        self.site = site
        self.request: Any = None
        self.status = 0
        self.is_malformed = False
        self.taken_over: Upgrade | None = None
        self.transport: Any = ConnectionTransport(self)
        self._headers: Headers = ()
        self._length: int | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_done = False
        self._failure: BaseException | None = None
        self._stream: _ChannelStream | None = None
        self._producer: Any = None
        self._is_push = self._is_paused = False
        self._changed: trio.Event | None = None

    # Who talks to whom

    def getPeer(self) -> Any:
        return _address(self.native.client)

    def getHost(self) -> Any:
        return _address(self.native.server)

    def isSecure(self) -> bool:
        return self.native.scheme == "https"

    # What the request writes

    def writeHeaders(self, version: Any, code: Any, reason: Any, headers: Any) -> None:
        """Take the head. *headers* are ``Headers``; of a Twisted before 24.10, a list."""
        self.request.chunked = 0  # framing is the business of our connections
        fields = []
        for name, value in _pairs(headers):
            kind, field = _field(encoded(name), encoded(value))
            if kind == b"content-length":
                self._length = int(field[1])
            elif kind != b"transfer-encoding":
                fields.append(field)
        reason = _field(b"status", encoded(reason))[1][1]
        pending = self.native._response
        self.status = pending.status = int(code)
        usual = reason_phrase(self.status).encode()
        pending.reason = b"" if reason == usual else reason
        self._headers = tuple(fields)
        self._wake()

    def write(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not data or self._is_done:
            return
        if self._stream is None:
            self._chunks.append(data)
            self._size += len(data)
        else:
            self._stream.write(data)
        if self._is_push and not self._is_paused and self._waiting > HIGH_WATER:
            self._is_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def requestDone(self, request: Any) -> None:
        """Called by the request when it has been finished."""
        self._end()

    def loseConnection(self) -> None:
        """End the response here: what is written by now is all of it."""
        if self.status:
            self._end()
        else:
            self.fail(ClientDisconnected())

    def abortConnection(self) -> None:
        """Break the response off."""
        self.fail(ClientDisconnected())

    def fail(self, exc: BaseException) -> None:
        """The response will never be complete, because of *exc*."""
        if self._is_done and self._stream is not None:
            return
        self._failure = self._failure or exc
        if self._stream is not None:
            self._stream.fail(exc)
        self._is_done = True
        self._wake()

    def _end(self) -> None:
        self._is_done = True
        if self._stream is not None:
            self._stream.close()
        self._wake()

    def report(self, exc: BaseException) -> None:
        """Tell the console of *exc*, which no page can show any more."""
        hosting_of(self.native.site).report(self.native, exc)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.is_malformed = True

    def _protocolUpgradeForWebsockets(self, protocol: Any) -> None:
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    # Producers

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have *producer* write; it is paused, or asked for more, as the client takes it."""
        self._producer, self._is_push, self._is_paused = producer, streaming, False
        self._wake()

    def unregisterProducer(self) -> None:
        self._producer, self._is_push, self._is_paused = None, False, False

    @property
    def is_pulled(self) -> bool:
        """Whether there is a producer that writes only when it is asked."""
        return self._producer is not None and not self._is_push

    @property
    def _waiting(self) -> int:
        return self._size if self._stream is None else self._stream.waiting

    def ask_for_more(self) -> None:
        """Ask the producer for more, if there is one that waits to be asked."""
        producer = self._producer
        if producer is None or (self._is_push and not self._is_paused):
            return
        self._is_paused = False
        try:
            producer.resumeProducing()
        except BaseException as exc:
            if split_control_flow(exc)[1] is not None:
                raise
            self.request.fail(exc)

    # The response

    def response(self) -> Response | None:
        """Return the whole response, or the beginning of one; None if there is no head yet.

        Raises:
            BaseException: why there is none.
        """
        if self.is_pulled:
            self._pull()
        if self._failure is not None:
            raise self._failure
        if self.taken_over is not None:
            return Response.trusted(self.taken_over, self.status, self._headers)
        if not self.status:
            return None
        if self._is_done:
            return Response.trusted(self._whole_body(), self.status, self._headers)
        self._stream = _ChannelStream(self, self._length)
        for chunk in self._chunks:
            self._stream.write(chunk)
        self._chunks.clear()
        return Response.trusted(self._stream, self.status, self._headers)

    def _pull(self) -> None:
        before = -1
        while before != self._size < WHOLE and self.is_pulled:
            before = self._size
            self.ask_for_more()

    def _whole_body(self) -> bytes | FileBody:
        if self.native.method == "HEAD" and self._length is not None:
            return FileBody(BytesIO(), (range(self._length),))  # nothing of it is sent
        return b"".join(self._chunks)

    def take_over(self, upgrade: Upgrade, status: int, headers: Headers) -> None:
        """Leave the connection to *upgrade*, after a head of *status* and *headers*."""
        self.taken_over, self.status, self._headers = upgrade, status, headers
        self._wake()

    async def wait_changed(self) -> None:
        """Wait until there may be a response."""
        if self.is_pulled:
            await trio.lowlevel.checkpoint()
            return
        self._changed = trio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def lose(self) -> None:
        """The client has gone. Does nothing after a response that is complete."""
        if self._is_done or self.taken_over is not None:
            return
        self._is_done = True
        producer, self._producer = self._producer, None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            if getattr(self.request, "channel", None) is self:
                self.request.connectionLost(Failure(ConnectionDone("Connection done.")))


def answer(hosted: Any, resource: Any) -> Any:
    """Have the genuine *resource* answer *hosted*.

    Returns:
        The `Response`, or a coroutine that returns it when there is one.
    """
    channel: Channel = hosted.channel
    channel.request = hosted
    try:
        _encode_body(hosted, resource)
        hosted.render(resource)
    except BaseException as exc:
        if split_control_flow(exc)[1] is not None:
            raise
        hosted.fail(exc)
    response = channel.response()
    return _wait_for_response(channel) if response is None else response


def _encode_body(hosted: Any, resource: Any) -> None:
    """Have the body compressed, if *resource* is such a wrapper of Twisted's."""
    make_encoder = getattr(resource, "getEncoder", None)
    if make_encoder is not None:
        hosted._encoder = make_encoder(hosted)


async def _wait_for_response(channel: Channel) -> Response:
    try:
        while (response := channel.response()) is None:
            await channel.wait_changed()
        return response
    except trio.Cancelled:
        channel.lose()
        raise


class _ChannelStream(WriteStream):
    """What a genuine request writes after its head, as the client takes it."""

    def __init__(self, channel: Channel, length: int | None) -> None:
        super().__init__()
        self._channel = channel
        self.length = length
        self._source = _Chunks(channel, self._source)

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        """See `WriteStream`. If the block is left before the end, the client has gone."""
        try:
            async with super().start(response) as started:
                yield started
        finally:
            self._channel.lose()

    async def _first_chunk(self, chunks: AsyncIterator[bytes]) -> bytes:
        return b""  # the head goes out when it is written


class _Chunks:
    """What waits in a stream; when nothing does, the producer is asked for more."""

    def __init__(self, channel: Channel, written: trio.MemoryReceiveChannel[Any]) -> None:
        self._channel = channel
        self._written = written

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Any:
        try:
            while True:
                with suppress(trio.WouldBlock):
                    return self._written.receive_nowait()
                self._channel.ask_for_more()
                if not self._channel.is_pulled:
                    return await self._written.receive()
                await trio.lowlevel.checkpoint()  # it may write nothing, again and again
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


def exception_of(failure: Any) -> BaseException:
    """Return the exception of a ``Failure``, with its traceback as far as there is one."""
    exc: BaseException = failure.value
    if isinstance(exc, FlattenerError) and isinstance(exc.args[0], BaseException):
        return exc.args[0]  # which an element of a template has raised
    if exc.__traceback__ is None and getattr(failure, "tb", None) is not None:
        exc.__traceback__ = failure.tb
    return exc


def _pairs(headers: Any) -> Any:
    if isinstance(headers, (list, tuple)):
        return headers
    return [(name, value) for name, values in headers.getAllRawHeaders() for value in values]


@lru_cache(maxsize=512)
def _field(name: bytes, value: bytes) -> tuple[bytes, tuple[bytes, bytes]]:
    """The name in lower case, and the field as it can be sent; most come again and again."""
    field = encode_header(name, value)
    return field[0].lower(), field


@lru_cache(maxsize=512)
def _address(address: Address) -> Any:
    host, port = address
    if not host:
        return UNIXAddress(None)
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, port)
