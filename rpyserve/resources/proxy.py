"""A reverse proxy: what is asked for here is answered by another server (RFC 9110, section 7.6).

Both bodies are passed on as they come, so that nothing piles up and an event stream flows; a backend that dies
half-way breaks the answer off, so that it never looks whole. What belongs to one connection stays there; who asked, and
for what, is told in ``Forwarded`` (RFC 7239) and ``X-Forwarded-*``. httpx, which talks to the backend, is an extra; its
connections, kept by each site, live as long as the site runs.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import SplitResult, unquote, urlsplit

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import IterableStream, Response, Upgrade
from rpyserve.resources.proxy_headers import Mount, downstream_headers, upstream_headers
from rpyserve.resources.resource import Resource

if TYPE_CHECKING:
    import httpx

    from rpyserve.resources.upstream import UpstreamRequest

__all__ = ["ReverseProxyResource"]

CLOSING: Final = 1.0
"""Seconds that it may take to let go of an answer."""
PIECE: Final = 64 * 1024

_MISSING: Final = (
    "A proxy needs httpx, which is not installed. Write: pip install 'rpyserve[proxy]'"
)
_BOOT: Final = secrets.token_hex(4)


class ReverseProxyResource(Resource):
    """The server at *url*, with all that is below that, mounted here. WebSockets pass too.

    Args:
        url: where requests go, such as ``"http://127.0.0.1:5000/api"``: what follows this resource in the path is
            appended, the query as it was sent.
        keep_host: whether the backend gets the ``Host`` that the client sent, instead of its own.
        timeout: seconds that the backend may take until its answer begins, or to take the next piece of what is sent to
            it; None for any time. The answer's body may take longer.
        verify: for https: whether its certificate must be good, or an `ssl.SSLContext` that says which are.

    Raises:
        ValueError: *url* is no ``http://`` or ``https://`` address of a server.

    The name is Twisted Web's (``twisted.web.proxy``). "Twisted Web in 60 seconds" announces it as its next subject.
    """

    isLeaf = True
    wants_body = False

    def __init__(
        self,
        url: str,
        *,
        keep_host: bool = False,
        timeout: float | None = 60.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
        ):
            raise ValueError(
                f"ReverseProxyResource(url) takes an address such as 'http://127.0.0.1:5000/api', not {url!r}"
            )
        self._origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._authorization = _authorization(parts)
        self._base = parts.path.rstrip("/")
        self._keep_host = keep_host
        self._timeout = timeout
        self._verify = verify
        token = hashlib.blake2b(f"{_BOOT} {url}".encode(), digest_size=6).hexdigest()
        self._pseudonym = f"rpyserve-{token}"

    def __repr__(self) -> str:
        return f"<ReverseProxyResource {self._origin}{self._base}>"

    async def render(self, request: Request) -> Response:
        """Pass *request* on, and its answer back.

        Raises:
            HTTPError: 502, the backend cannot be reached, or breaks off before its answer begins; 504, it takes too
                long; 508, it leads back here.
            ImportError: httpx is not installed.
        """
        if self._pseudonym in (request.getHeader("via") or ""):
            raise HTTPError(
                508,
                "This page is passed on in a circle.",
                private=f"{self!r} leads back to itself.",
            )
        mount = Mount.of(request, self._origin, self._base)
        if mount.climbs():
            raise HTTPError(400, private=f"{self!r} passes no path on that has '..' in it.")
        try:
            from rpyserve.resources.upstream import UpstreamRequest, transport_of
        except ImportError as exc:
            raise ImportError(_MISSING, name=exc.name) from None
        transport = transport_of(request, self._verify)
        patience = math.inf if self._timeout is None else self._timeout
        with trio.CancelScope(deadline=trio.current_time() + patience) as scope:
            attempt = UpstreamRequest(
                self._message(request, mount), _body(request), scope, patience
            )
            answer = await self._asked(attempt, transport)
        if scope.cancelled_caught:
            why = f"{self!r}: no answer in time."
            raise HTTPError(504, "The server behind this page takes too long.", private=why)
        request.on_close(partial(_let_go, request.site, answer))
        return _answer(request, answer, mount)

    def _message(self, request: Request, mount: Mount) -> dict[str, Any]:
        headers = upstream_headers(request, mount, self._pseudonym, keep_host=self._keep_host)
        if self._authorization:
            headers = [
                *(pair for pair in headers if pair[0] != b"authorization"),
                self._authorization,
            ]
        extensions = {"target": mount.target(request)}
        return {
            "method": request.method,
            "url": self._origin,
            "headers": headers,
            "extensions": extensions,
        }

    async def _asked(
        self, attempt: UpstreamRequest, transport: httpx.AsyncHTTPTransport
    ) -> httpx.Response:
        import httpx

        try:
            return await attempt.made(transport)
        except httpx.ConnectTimeout:
            raise HTTPError(
                504, "The server behind this page takes too long.", private=f"{self!r}: no contact."
            ) from None
        except httpx.ConnectError as exc:
            why = f"{self._origin} cannot be reached ({exc}). Does the server behind this page run?"
            raise HTTPError(
                502, "The server behind this page cannot be reached.", private=why
            ) from None
        except httpx.TransportError as exc:
            if (
                attempt.may_be_repeated
            ):  # it closed a connection that we had kept, just when we used it
                return await self._asked(attempt, transport)
            why = f"{self._origin} broke off before it answered: {exc or type(exc).__name__}."
            raise HTTPError(502, "The server behind this page broke off.", private=why) from None


def _authorization(parts: SplitResult) -> tuple[bytes, bytes] | None:
    """What a name and a password in the address mean (RFC 7617)."""
    if parts.username is None:
        return None
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b"authorization", b"Basic " + base64.b64encode(credentials.encode())


def _body(request: Request) -> AsyncIterator[bytes] | None:
    """What goes to the backend as the body, chunk by chunk; None for none."""
    chunks = request.body_chunks()
    if chunks is not None:
        return aiter(chunks)
    size = request.content.seek(0, 2)
    request.content.seek(0)
    return _Chunks(request.content) if size else None


class _Chunks:
    """A file as chunks. No generator: it may be left half-way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = self._file.read(PIECE)
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _answer(request: Request, answer: httpx.Response, mount: Mount) -> Response:
    headers = downstream_headers(answer.headers.raw, mount)
    if answer.status_code == 101:
        return Response.trusted(_Tunnel(answer), 101, headers)
    if not 200 <= answer.status_code <= 599:
        why = f"{mount.origin} answered with the status {answer.status_code}, which is none."
        raise HTTPError(502, "The server behind this page makes no sense.", private=why)
    request.setResponseCode(answer.status_code, answer.extensions.get("reason_phrase") or None)
    stream = IterableStream(_chunks(answer, mount.origin))
    length = answer.headers.get("content-length", "")
    stream.length = int(length) if length.isdecimal() else None
    return Response.trusted(stream, answer.status_code, headers)


async def _chunks(answer: httpx.Response, origin: str) -> AsyncIterator[bytes]:
    import httpx

    chunks = answer.aiter_raw()
    try:
        async for chunk in chunks:
            yield chunk
    except httpx.TransportError as exc:
        why = f"{origin} broke off half-way: {exc or type(exc).__name__}."
        raise HTTPError(502, "The server behind this page broke off.", private=why) from None
    finally:
        with trio.move_on_after(CLOSING, shield=True):
            await answer.aclose()
            # httpx reads through generators in generators; this ends them all, so that none is left to be collected.
            with suppress(StopAsyncIteration, httpx.StreamError, httpx.TransportError):
                await anext(chunks)


class _Tunnel(Upgrade):
    """Another protocol, of which only the bytes are passed on, both ways."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._scope = trio.CancelScope()

    def stop(self) -> None:
        """Let go."""
        self._scope.cancel()

    async def run(self, stream: Any) -> None:
        """Pass bytes until either side closes."""
        backend = self._answer.extensions["network_stream"]
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._pump, stream.receive_some, backend.write, nursery.cancel_scope
                    )
                    nursery.start_soon(
                        self._pump,
                        partial(backend.read, PIECE),
                        stream.send_all,
                        nursery.cancel_scope,
                    )
        finally:
            await _close(self._answer)

    async def _pump(self, read: Any, write: Any, scope: trio.CancelScope) -> None:
        import httpcore

        try:
            while data := await read():
                await write(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, httpcore.NetworkError):
            pass  # either side has gone
        scope.cancel()


def _let_go(site: Any, answer: httpx.Response) -> None:
    """The request is over: an answer that nobody has read to its end must not hold its connection."""
    if not answer.is_closed:
        site.start_task(partial(_close, answer))


async def _close(answer: httpx.Response) -> None:
    with trio.move_on_after(CLOSING, shield=True):
        await answer.aclose()
