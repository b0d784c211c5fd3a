"""WebSocket resources: an async function of a socket, or a class with ``connected``.

Owns the handshake (RFC 6455, section 4.2) and who may make it: browsers let any page of any origin
open a WebSocket anywhere and send the cookies along, so pages of other origins are refused unless
they are named. What happens on the socket is the business of `websocket_connection`. That module
needs wsproto, an extra, and is imported when the first handshake succeeds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from rpyserve._names import public
from rpyserve.http.browser import is_cross_origin
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Headers, Response
from rpyserve.http.websocket import WebSocket
from rpyserve.resources.resource import Resource, as_list

_MISSING_EXTRA: Final = (
    "WebSockets need wsproto, which is not installed. Write: pip install wsproto"
)
# What RFC 6455, section 1.3, has appended to the client's key.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_VERSION: Final = "13"


@public
class WebSocketResource(Resource):
    """A resource for WebSockets. Write ``async def connected(self, socket)``.

    With a ``render_GET`` besides, it is also the page that opens them.

    Attributes:
        origins: pages of which other origins may connect, such as ``["http://localhost:5173"]``;
            ``["*"]`` is all.
        subprotocols: those that `connected` understands, the best first; `WebSocket.subprotocol` is
            the one agreed on.
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
            HTTPError: 426 for a request without a WebSocket, 400 for a malformed one, 403 for a
                page of another origin.
        """
        if request.http_version == "1.0" or "websocket" not in _tokens(request, b"upgrade"):
            if hasattr(self, "render_GET"):
                return super().render(request)
            raise HTTPError(426, "This address is for WebSockets.", {"Upgrade": "websocket"})
        accept = _accept_value(request)
        self._check_origin(request)
        subprotocol = self._choose_subprotocol(request)
        fields: Headers = ((b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", accept))
        if subprotocol is not None:
            fields += ((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")),)
        try:
            from rpyserve.resources.websocket_connection import WebSocketConnection
        except ImportError as exc:
            raise ImportError(_MISSING_EXTRA, name=exc.name) from None
        connection = WebSocketConnection(request, self.connected, subprotocol, self.max_size)
        return Response.trusted(connection, 101, fields)

    def _check_origin(self, request: Request) -> None:
        origin = request.getHeader("origin")
        if origin is None:
            return  # not a browser
        allowed = as_list(self.origins)
        if "*" in allowed or origin in allowed:
            return
        if not is_cross_origin(request, allow_tls_proxy=True):
            return
        why = f"A page of {origin} tried to connect. To allow it, write origins=[{origin!r}]."
        if re.match(r"https?://(localhost|127\.|\[::1\])", origin):
            why += " If a dev server such as Vite passed it on, leave out its changeOrigin instead."
        raise HTTPError(403, "Pages of other origins may not connect here.", private=why)

    def _choose_subprotocol(self, request: Request) -> str | None:
        offered = _tokens(request, b"sec-websocket-protocol", keep_case=True)
        return next((name for name in as_list(self.subprotocols) if name in offered), None)


class _FunctionWebSocket(WebSocketResource):
    def __init__(
        self, function: Callable[[WebSocket], Awaitable[None]], origins: str | Iterable[str]
    ) -> None:
        if inspect.isroutine(function) and not inspect.iscoroutinefunction(function):
            raise TypeError(
                "@websocket takes an async function: write `async def`, and `await socket.send(x)`"
            )
        self._function = function
        self.origins = origins

    async def connected(self, socket: WebSocket) -> None:
        await self._function(socket)


@public
def websocket(
    function: Callable[[WebSocket], Awaitable[None]] | None = None,
    *,
    origins: str | Iterable[str] = (),
) -> Any:
    """Make a resource of an async function of a `WebSocket`.

    Write ``@websocket`` above ``async def resource(socket)``.

    Args:
        function: runs for each connection, and ends it by returning.
        origins: pages of which other origins may connect; see `WebSocketResource`.

    Raises:
        TypeError: *function* is not async.
    """
    if function is None:
        return lambda function: _FunctionWebSocket(function, origins)
    return _FunctionWebSocket(function, origins)


def asks_for_websocket(request: Request) -> bool:
    """Whether *request* may be answered with a 101 (RFC 6455, 4.1; RFC 9110, 7.8)."""
    return (
        request.method == "GET"
        and request.http_version != "1.0"
        and "upgrade" in _tokens(request, b"connection")
        and "websocket" in _tokens(request, b"upgrade")
    )


def _tokens(request: Request, name: bytes, *, keep_case: bool = False) -> list[str]:
    value = request.raw_headers.text(name)
    if not keep_case:
        value = value.lower()
    return [part.strip() for part in value.split(",")]


def _accept_value(request: Request) -> bytes:
    """Check the handshake; return the value of ``Sec-WebSocket-Accept`` (RFC 6455, 4.2)."""
    if not asks_for_websocket(request):
        raise HTTPError(400, "This is not a valid WebSocket handshake.")
    if request.getHeader("sec-websocket-version") != _VERSION:
        headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": _VERSION}
        raise HTTPError(426, f"Only version {_VERSION} of WebSockets is supported.", headers)
    key = request.raw_headers.text(b"sec-websocket-key")
    if not _is_key(key):
        raise HTTPError(400, "The Sec-WebSocket-Key is malformed.")
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
