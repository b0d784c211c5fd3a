"""What a script has of a WebSocket: messages in, messages out, until it is closed.

This needs no extra: the connection, a `MessageChannel`, is made in `resources` with wsproto. It is
apart from both the resource and the connection because they would import each other otherwise.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from rpyserve._names import public
from rpyserve.http.request import Request


@public
class WebSocketClosed(Exception):
    """The WebSocket is closed: nothing more can be sent or received.

    Args:
        code: why, as a number (RFC 6455, section 7.4): 1000 is a normal end, 1006 a connection that
            broke.
        reason: why, in the other side's words; may be empty.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class MessageChannel(Protocol):
    """The connection behind a `WebSocket`."""

    async def receive(self) -> str | bytes: ...

    async def send(self, message: str | bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


@public
class WebSocket:
    """A connection to one client.

    ``async for message in socket`` gives what the client sends, until it leaves.

    Attributes:
        request: the request that opened it, with ``path``, ``args`` and ``getSession()``. To give a
            visitor a session, do so in the page that opens the socket.
        subprotocol: what both sides have agreed on; None if nothing.
    """

    def __init__(
        self, connection: MessageChannel, request: Request, subprotocol: str | None
    ) -> None:
        self.request = request
        self.subprotocol = subprotocol
        self._connection = connection

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
            WebSocketClosed: the client has left.
        """
        return await self._connection.receive()

    async def send(self, message: str | bytes) -> None:
        """Send a message: `str` as text, bytes as bytes. Waits while the client is slow.

        Raises:
            WebSocketClosed: the client has left.
            TypeError: *message* is neither.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"socket.send() takes str or bytes, not {type(message).__name__}; "
                "for JSON, use socket.send_json(value)"
            )
        await self._connection.send(message if isinstance(message, str) else bytes(message))

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON, in a text message."""
        await self.send(json.dumps(value, ensure_ascii=False))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. Returning from the function does so too."""
        await self._connection.close(code, reason)
