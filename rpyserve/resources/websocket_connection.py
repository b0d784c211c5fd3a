"""One WebSocket: messages in, messages out, until either side closes it (RFC 6455).

wsproto speaks the protocol; this module decides who waits for whom. A reader takes messages in and
answers pings, a pinger notices a client that has vanished, and the author's function runs beside
them. When the client has left, ``async for message in socket`` ends, after the messages that came
before; a function that never asks for messages is cancelled. A message counts as an access to the
session that the function uses.

This module imports wsproto, which is an extra.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from rpyserve.http.request import Request
from rpyserve.http.response import Upgrade
from rpyserve.http.websocket import WebSocket, WebSocketClosed
from rpyserve.util.exceptions import reporting_errors

# Bytes that are read at once.
RECEIVE_SIZE: Final = 64 * 1024

# How many frames of one client are dealt with before others have their turn: they may be tiny.
EVENTS_AT_ONCE: Final = 100

# Seconds of silence after which the client is sent a ping, and then has as long to answer.
PING: Final = 20.0

# Seconds that the function has after the client has left, and the client after our close.
GRACE: Final = 5.0

# Seconds that both have when the server stops.
STOPPING: Final = 0.5

_ABNORMAL: Final = CloseReason.ABNORMAL_CLOSURE
# Codes that a close frame must not contain (RFC 6455, section 7.4.1).
_NEVER_SENT: Final = frozenset({CloseReason.NO_STATUS_RCVD, CloseReason.ABNORMAL_CLOSURE})


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
        # The protocol
        self._protocol = Connection(ConnectionType.SERVER)
        self._stream: Any = None
        self._send_lock = trio.Lock()
        self._last_received = 0.0
        self._stopping = trio.Event()
        self._closed: WebSocketClosed | None = None
        self._closed_event = trio.Event()
        # Messages, from the reader to the function
        self._message = bytearray()
        self._messages_in, self._messages_out = trio.open_memory_channel[str | bytes](0)
        self._delivering = False  # whether the reader waits until the function asks for a message
        # The function
        self._function_scope = trio.CancelScope()
        self._function_receives = False  # whether it has ever asked for a message
        self._failure: BaseException | None = None

    def stop(self) -> None:
        self._stopping.set()

    async def run(self, stream: Any) -> None:
        """Run the author's function, and the protocol beside it, until the connection is closed.

        Raises:
            RuntimeError: the function failed, which has been reported.
        """
        self._stream = stream
        self._last_received = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._ping)
            nursery.start_soon(self._close_when_stopping)
            with reporting_errors(self._fail), self._function_scope:
                await self._connected(self._socket)
            await self._close_and_wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise RuntimeError("the function of the WebSocket failed") from self._failure

    def _fail(self, exc: BaseException) -> None:
        """Report what the function raised, but for the news that the client has left."""
        failure: BaseException | None = exc
        if isinstance(exc, BaseExceptionGroup):
            failure = exc.split(WebSocketClosed)[1]
        elif isinstance(exc, WebSocketClosed):
            failure = None
        if failure is not None:
            self._failure = failure
            self._request.site.errors.report_exception(f"WebSocket {self._request.path}", failure)

    async def _close_and_wait(self) -> None:
        """Close the connection, and wait a little for the client to do the same."""
        failed = self._failure is not None
        code = CloseReason.INTERNAL_ERROR if failed else CloseReason.NORMAL_CLOSURE
        with trio.move_on_after(GRACE):
            await self.close(code, "")
            self._messages_out.close()  # only the client's close frame is still of interest
            await self._closed_event.wait()

    # For the function

    async def receive(self) -> str | bytes:
        self._function_receives = True
        try:
            message = await self._messages_out.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._closed or WebSocketClosed(CloseReason.NORMAL_CLOSURE) from None
        session = self._request._session
        if session is not None:
            session.touch()
            if self._request._use is not None:
                self._request._use.note_access()
        return message

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._send_event(TextMessage(data=message))
        else:
            await self._send_event(BytesMessage(data=message))

    async def _send_event(self, event: Any) -> None:
        async with self._send_lock:
            if self._closed is not None or self._protocol.state is not ConnectionState.OPEN:
                raise self._closed or WebSocketClosed(CloseReason.NORMAL_CLOSURE)
            await self._transmit(self._protocol.send(event))

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, if none has been sent."""
        can_close = (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
        async with self._send_lock:
            if self._closed is None and self._protocol.state in can_close:
                await self._transmit(self._protocol.send(CloseConnection(code=code, reason=reason)))

    async def _transmit(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._mark_closed(WebSocketClosed(_ABNORMAL)) from None
        except trio.Cancelled:
            # Half a frame may have been sent, and nothing can follow that.
            self._mark_closed(WebSocketClosed(_ABNORMAL))
            raise

    # Beside the function

    async def _read(self) -> None:
        while self._closed is None:
            try:
                data = await self._stream.receive_some(RECEIVE_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._last_received = trio.current_time()
            self._protocol.receive_data(bytes(data) or None)
            for count, event in enumerate(self._protocol.events(), start=1):
                await self._handle(event)
                if count % EVENTS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    async def _handle(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            await self._handle_message(event)
        elif isinstance(event, Ping):
            with suppress(WebSocketClosed):
                await self._send_event(Pong(payload=bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            await self._reply_close(int(event.code), event.reason or "")

    async def _handle_message(self, event: TextMessage | BytesMessage) -> None:
        """Add a part to the message, and deliver it when it is complete."""
        is_text = isinstance(event, TextMessage)
        self._message += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._message) > self._max_size:
            self._message = bytearray()
            reason = f"messages are limited to {self._max_size} bytes"
            await self._reply_close(CloseReason.MESSAGE_TOO_BIG, reason)
        elif event.message_finished:
            data, self._message = bytes(self._message), bytearray()
            await self._deliver(data.decode() if is_text else data)

    async def _deliver(self, message: str | bytes) -> None:
        """Wait until the function takes *message*. This is the backpressure: nothing is read."""
        self._delivering = True
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the function has ended
            await self._messages_in.send(message)
        self._delivering = False
        self._last_received = trio.current_time()

    async def _reply_close(self, code: int, reason: str) -> None:
        """The client closes, or has to be closed."""
        sent_code = 1000 if code in _NEVER_SENT else code
        is_first = self._protocol.state is ConnectionState.OPEN
        with suppress(WebSocketClosed):
            await self.close(sent_code, reason if is_first else "")
        self._mark_closed(WebSocketClosed(code, reason))

    def _mark_closed(self, closed: WebSocketClosed, grace: float = GRACE) -> WebSocketClosed:
        """Note that nothing more will come, and have the function end.

        One that asks for messages will notice, and has *grace* seconds.

        Returns:
            Why the WebSocket is closed: the first reason that was noted.
        """
        if self._closed is not None:
            return self._closed
        self._closed = closed
        self._closed_event.set()
        self._messages_in.close()
        if self._function_receives:
            self._function_scope.deadline = trio.current_time() + grace
        else:
            self._function_scope.cancel()
        return closed

    async def _ping(self) -> None:
        while self._closed is None:
            silence = trio.current_time() - self._last_received
            if silence < PING:
                await trio.sleep(PING - silence)
                continue
            if silence >= 2 * PING and not self._delivering:
                self._mark_closed(WebSocketClosed(_ABNORMAL))
                return
            with suppress(WebSocketClosed), trio.move_on_after(PING):
                await self._send_event(Ping(payload=b""))
            await trio.sleep(PING)

    async def _close_when_stopping(self) -> None:
        await self._stopping.wait()
        reason = "the server is shutting down"
        with suppress(WebSocketClosed), trio.move_on_after(STOPPING):
            await self.close(CloseReason.GOING_AWAY, reason)
        self._mark_closed(WebSocketClosed(CloseReason.GOING_AWAY, reason), STOPPING)
