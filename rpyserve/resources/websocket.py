"""WebSocket resources: an async function of a socket, as `websocket`, or a class with ``connected(self, socket)``.

Owns the handshake (RFC 6455, section 4.2) and who may make it: browsers let any page of any origin open a WebSocket
anywhere and send the cookies along, so pages of other origins are refused unless they are named. What happens on the
socket is `websocketwire`'s business. wsproto, which speaks the protocol, is an extra.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request, authority_of
from rpyserve.http.response import Headers, Response
from rpyserve.resources.resource import Resource, texts

if TYPE_CHECKING:
    from rpyserve.resources.websocket_connection import WebSocket

__all__ = ["WebSocketResource", "websocket"]

_MISSING: Final = (
    "WebSockets need wsproto, which is not installed. Write: pip install 'rpyserve[websocket]'"
)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"


class WebSocketResource(Resource):
    """A resource that is asked for by WebSockets. Write ``async def connected(self, socket)``.

    With a ``render_GET`` besides, it is also the page that opens them.

    Attributes:
        origins: pages of which other origins may connect, such as ``["http://localhost:5173"]``; ``["*"]`` is all.
        subprotocols: those that `connected` understands, the best first; `WebSocket.subprotocol` is the one agreed on.
        max_size: bytes that a message may have; a longer one ends the connection.
    """

    origins: str | Iterable[str] = ()
    subprotocols: str | Iterable[str] = ()
    max_size: int = 16 * 2**20

    async def connected(self, socket: WebSocket) -> None:
        """Talk with one client, until it leaves or this returns. Then the connection is closed."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method `async def connected(self, socket)`"
        )

    def render(self, request: Request) -> Any:
        """Shake hands, or answer as a page does.

        Raises:
            ImportError: wsproto is not installed.
            HTTPError: 426 for what is no WebSocket, 400 for a malformed one, 403 for a page of another origin.
        """
        if "websocket" not in _tokens(request, "upgrade"):
            if hasattr(self, "render_GET"):
                return super().render(request)
            raise HTTPError(426, "This address is for WebSockets.", {"Upgrade": "websocket"})
        accept = _accept(request)
        if not _may_connect(request, texts(self.origins)):
            origin = request.getHeader("origin")
            why = f"A page of {origin} wants to connect. If it may, write origins=[{origin!r}]; see `websocket`."
            raise HTTPError(403, "Pages of other origins may not connect here.", private=why)
        offered = _tokens(request, "sec-websocket-protocol", keep_case=True)
        subprotocol = next((name for name in texts(self.subprotocols) if name in offered), None)
        fields: Headers = ((b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", accept))
        if subprotocol is not None:
            fields += ((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")),)
        try:
            from rpyserve.resources.websocket_connection import WebSocketConnection
        except ImportError as exc:
            raise ImportError(_MISSING, name=exc.name) from None
        return Response.trusted(
            WebSocketConnection(request, self.connected, subprotocol, self.max_size), 101, fields
        )


class _Function(WebSocketResource):
    def __init__(
        self, function: Callable[[WebSocket], Awaitable[None]], origins: str | Iterable[str]
    ) -> None:
        if inspect.isroutine(function) and not inspect.iscoroutinefunction(function):
            raise TypeError(
                "@websocket stands above an async function: write `async def`, and `await socket.send(x)`"
            )
        self._function = function
        self.origins = origins

    async def connected(self, socket: WebSocket) -> None:
        await self._function(socket)


def websocket(
    function: Callable[[WebSocket], Awaitable[None]] | None = None,
    *,
    origins: str | Iterable[str] = (),
) -> Any:
    """Make a resource of an async function of a `WebSocket`: ``@websocket`` above ``async def resource(socket)``.

    Args:
        function: runs for each connection, and ends it by returning.
        origins: pages of which other origins may connect; see `WebSocketResource`.

    Raises:
        TypeError: *function* is not async.
    """
    if function is None:
        return lambda function: _Function(function, origins)
    return _Function(function, origins)


def _tokens(request: Request, name: str, *, keep_case: bool = False) -> list[str]:
    value = request.getHeader(name) or ""
    return [part.strip() for part in (value if keep_case else value.lower()).split(",")]


def _accept(request: Request) -> bytes:
    """The value of ``Sec-WebSocket-Accept`` (RFC 6455, section 4.2.2)."""
    if (
        request.method != "GET"
        or request.http_version == "1.0"
        or "upgrade" not in _tokens(request, "connection")
    ):
        raise HTTPError(400, "This is no WebSocket handshake.")
    if request.getHeader("sec-websocket-version") != _VERSION:
        versions = {"Upgrade": "websocket", "Sec-WebSocket-Version": _VERSION}
        raise HTTPError(426, f"WebSockets are spoken in version {_VERSION} here.", versions)
    key = request.getHeader("sec-websocket-key") or ""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except (binascii.Error, ValueError):
        raise HTTPError(400, "The Sec-WebSocket-Key is malformed.") from None
    return base64.b64encode(
        hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    )


def _may_connect(request: Request, origins: list[str]) -> bool:
    origin = request.getHeader("origin")
    if origin is None or "*" in origins or origin in origins:
        return True  # what is no browser sends none
    # The scheme may be another one: a tunnel in front may speak https.
    return origin.lower().partition("://")[2] == (authority_of(request) or "").lower()
