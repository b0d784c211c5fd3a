"""One WebSocket: messages in, messages out, until either side has had enough (RFC 6455).

wsproto speaks the protocol; here is who waits for whom. A reader takes messages in and answers pings, a pinger sees
to it that a client which has vanished is noticed, and the author's function runs beside them. When the client has
left, ``async for message in socket`` ends, after what it sent before; a function that never asks for messages is
cancelled. A message counts as an access to the session that the function uses.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from rpyserve.diagnostics.describe import describe
from rpyserve.http.request import Request
from rpyserve.http.response import Upgrade
from rpyserve.util.exceptions import unwrap_group

__all__ = ["WebSocket", "WebSocketClosed", "WebSocketConnection"]

PIECE: Final = 64 * 1024
PING: Final = 20.0
"""Seconds of silence after which the client is asked whether it is there, and then has to answer."""
GRACE: Final = 5.0
"""Seconds that the function has to end after the client has left, and the client to say goodbye after we have."""
STOPPING: Final = 0.5
"""Seconds that both have when the server stops."""


class WebSocketClosed(Exception):
    """The WebSocket is closed: nothing more can be sent, or will come.

    Args:
        code: why, as a number (RFC 6455, section 7.4): 1000 is a normal end, 1006 a connection that broke.
        reason: why, in the other side's words; may be empty.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket:
    """A conversation with one client. ``async for message in socket`` gives what it sends, until it leaves.

    Attributes:
        request: the request that opened it, with ``path``, ``args`` and ``getSession()``. To give a visitor a session,
            do so in the page that opens the socket.
        subprotocol: what both sides have agreed on; None if nothing.
    """

    def __init__(
        self, conversation: WebSocketConnection, request: Request, subprotocol: str | None
    ) -> None:
        self.request = request
        self.subprotocol = subprotocol
        self._conversation = conversation

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed:
            raise StopAsyncIteration from None

    async def receive(self) -> str | bytes:
        """Return the next message: `str` if it was sent as text, else `bytes`.

        Raises:
            SocketClosed: the client has left.
        """
        return await self._conversation.receive()

    async def send(self, message: str | bytes) -> None:
        """Send a message: `str` as text, bytes as bytes. Waits while the client is slow.

        Raises:
            SocketClosed: the client has left.
            TypeError: it is neither.
        """
        if isinstance(message, str):
            await self._conversation.send(TextMessage(data=message))
        elif isinstance(message, (bytes, bytearray, memoryview)):
            await self._conversation.send(BytesMessage(data=bytes(message)))
        else:
            raise TypeError(
                f"socket.send() takes str or bytes, not {type(message).__name__}; for JSON, socket.send_json(value)"
            )

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON, in a text."""
        await self.send(json.dumps(value, ensure_ascii=False))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye. Returning from the function does so too."""
        await self._conversation.close(code, reason)


class WebSocketConnection(Upgrade):
    """What takes a connection over.

    Args:
        request: the handshake.
        connected: the author's function.
        subprotocol: what was agreed on.
        max_size: bytes that a message may have.
    """

    def __init__(
        self,
        request: Request,
        connected: Callable[[WebSocket], Awaitable[None]],
        subprotocol: str | None,
        max_size: int,
    ) -> None:
        self._request = request
        self._connected = connected
        self._max_size = max_size
        self._socket = WebSocket(self, request, subprotocol)
        self._protocol = Connection(ConnectionType.SERVER)
        self._stream: Any = None
        self._sending = trio.Lock()
        self._put, self._get = trio.open_memory_channel[str | bytes](0)
        self._message = bytearray()
        self._heard = 0.0
        self._closed: WebSocketClosed | None = None
        self._listens = False  # whether the function asks for messages
        self._handing_on = False  # whether the reader waits for it to do so again
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._stopping = trio.Event()

    def stop(self) -> None:
        """Say goodbye soon."""
        self._stopping.set()

    async def run(self, stream: Any) -> None:
        """Converse until it is over.

        Raises:
            Exception: what the function raised. It has been told.
        """
        self._stream = stream
        self._heard = trio.current_time()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._ping)
            nursery.start_soon(self._stop_in_time)
            failure = await self._call()
            await self._end(failure)
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _call(self) -> Exception | None:
        """Run the author's function; return what it raises."""
        failure: Exception | None = None
        try:
            with self._scope:
                await self._connected(self._socket)
        except* WebSocketClosed:
            pass  # the client left while the function was sending
        except* Exception as group:
            failure = group
            self._request.site.errors.report(
                f"WebSocket {self._request.path}", describe(unwrap_group(group))
            )
        return failure

    async def _end(self, failure: Exception | None) -> None:
        """Say goodbye, and wait a little for the client to do the same."""
        code = CloseReason.INTERNAL_ERROR if failure is not None else CloseReason.NORMAL_CLOSURE
        with trio.move_on_after(GRACE):
            await self.close(code, "")
            self._get.close()  # what still comes is of no interest, but the client's goodbye is
            await self._over.wait()

    # For the socket

    async def receive(self) -> str | bytes:
        """The next message."""
        self._listens = True
        try:
            message = await self._get.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._closed or WebSocketClosed(CloseReason.NORMAL_CLOSURE) from None
        session = self._request.session
        if session is not None:
            session.touch()
        return message

    async def send(self, event: Any) -> None:
        """Send one of wsproto's events."""
        async with self._sending:
            if self._closed is not None or self._protocol.state is not ConnectionState.OPEN:
                raise self._closed or WebSocketClosed(CloseReason.NORMAL_CLOSURE)
            await self._transmit(self._protocol.send(event))

    async def close(self, code: int, reason: str) -> None:
        """Send a goodbye, if none has been sent."""
        async with self._sending:
            if (
                self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
                and self._closed is None
            ):
                await self._transmit(self._protocol.send(CloseConnection(code=code, reason=reason)))

    async def _transmit(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone(WebSocketClosed(CloseReason.ABNORMAL_CLOSURE))
            raise self._closed or WebSocketClosed(CloseReason.ABNORMAL_CLOSURE) from None
        except trio.Cancelled:
            self._gone(
                WebSocketClosed(CloseReason.ABNORMAL_CLOSURE)
            )  # half a frame may be out, and what follows is none
            raise

    # Beside the function

    async def _read(self) -> None:
        while self._closed is None:
            try:
                data = await self._stream.receive_some(PIECE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._heard = trio.current_time()
            self._protocol.receive_data(bytes(data) or None)
            for event in self._protocol.events():
                await self._take(event)

    async def _take(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            await self._take_part(event)
        elif isinstance(event, Ping):
            with suppress(WebSocketClosed):
                await self.send(Pong(payload=bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            await self._goodbye(int(event.code), event.reason or "")

    async def _take_part(self, event: TextMessage | BytesMessage) -> None:
        text = isinstance(event, TextMessage)
        self._message += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._message) > self._max_size:
            self._message = bytearray()
            await self._goodbye(
                CloseReason.MESSAGE_TOO_BIG, f"a message may have {self._max_size} bytes"
            )
        elif event.message_finished:
            data, self._message = bytes(self._message), bytearray()
            await self._hand_on(data.decode() if text else data)

    async def _hand_on(self, message: str | bytes) -> None:
        """Wait until the function takes *message*. Nothing more is read meanwhile, so nothing piles up."""
        self._handing_on = True
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError
        ):  # nobody wants it any more
            await self._put.send(message)
        self._handing_on = False
        self._heard = trio.current_time()

    async def _goodbye(self, code: int, reason: str) -> None:
        """The client closes, or has to be closed."""
        said = (
            code if code not in (CloseReason.NO_STATUS_RCVD, CloseReason.ABNORMAL_CLOSURE) else 1000
        )
        with suppress(WebSocketClosed):
            await self.close(said, reason if self._protocol.state is ConnectionState.OPEN else "")
        self._gone(WebSocketClosed(code, reason))

    def _gone(self, closed: WebSocketClosed, grace: float = GRACE) -> None:
        """Nothing more will come. The function may end in peace if it is going to notice."""
        if self._closed is None:
            self._closed = closed
            self._over.set()
            self._put.close()
            if self._listens:
                self._scope.deadline = trio.current_time() + grace
            else:
                self._scope.cancel()

    async def _ping(self) -> None:
        while self._closed is None:
            silence = trio.current_time() - self._heard
            if silence >= 2 * PING and not self._handing_on:
                self._gone(WebSocketClosed(CloseReason.ABNORMAL_CLOSURE))
                return
            if silence >= PING:
                with suppress(WebSocketClosed), trio.move_on_after(PING):
                    await self.send(Ping(payload=b""))
            await trio.sleep(PING if silence >= PING else PING - silence)

    async def _stop_in_time(self) -> None:
        await self._stopping.wait()
        with suppress(WebSocketClosed), trio.move_on_after(STOPPING):
            await self.close(CloseReason.GOING_AWAY, "the server stops")
        self._gone(WebSocketClosed(CloseReason.GOING_AWAY, "the server stops"), STOPPING)
