"""A reverse proxy: what is asked for here is answered by another server (RFC 9110, section 7.6).

Both bodies are passed on as they come, so that nothing piles up and an event stream flows; a backend that dies
half-way breaks the answer off, so that it never looks whole. What belongs to one connection stays there; who asked, and
for what, is told in ``Forwarded`` (RFC 7239) and ``X-Forwarded-*``. httpx, which talks to the backend, is an extra; its
clients, one for each site, live as long as the site runs.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import trio

from rpyserve.errors import HTTPError
from rpyserve.request import Request
from rpyserve.resource import Resource
from rpyserve.response import Response, Upgrade
from rpyserve.rewriting import Mount, for_backend, for_client
from rpyserve.streaming import IterStream

if TYPE_CHECKING:
    import httpx

__all__ = ["ReverseProxyResource"]

CONNECT: Final = 5.0
"""Seconds that it may take to reach the backend."""
PIECE: Final = 64 * 1024

_MISSING: Final = "A proxy needs httpx, which is not installed. Write: pip install 'rpyserve[proxy]'"
_BOOT: Final = secrets.token_hex(4)

log = logging.getLogger("rpyserve")
_clients: WeakKeyDictionary[Any, dict[object, httpx.AsyncClient]] = WeakKeyDictionary()


class ReverseProxyResource(Resource):
    """The server at *url*, with all that is below that, mounted here. WebSockets pass too.

    Args:
        url: where requests go, such as ``"http://127.0.0.1:5000/api"``: what follows this resource in the path is
            appended, the query as it was sent.
        keep_host: whether the backend gets the ``Host`` that the client sent, instead of its own.
        timeout: seconds that the backend may take until its answer begins; None for any time. The body may take longer.
        verify: for https: whether its certificate must be good, or an `ssl.SSLContext` that says which are.

    Raises:
        ValueError: *url* is no ``http://`` or ``https://`` address of a server.

    The name is Twisted Web's (``twisted.web.proxy``). "Twisted Web in 60 seconds" announces it as its next subject.
    """

    isLeaf = True
    wants_body = False

    def __init__(
        self, url: str, *, keep_host: bool = False, timeout: float | None = 60.0, verify: ssl.SSLContext | bool = True
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                f"ReverseProxyResource(url) takes an address such as 'http://127.0.0.1:5000/api', not {url!r}"
            )
        self._origin = f"{parts.scheme}://{parts.netloc}"
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
            raise HTTPError(508, "This page is passed on in a circle.", private=f"{self!r} leads back to itself.")
        client = _client_of(request.site, self._verify)
        mount = Mount.of(request, self._origin, self._base)
        answer = await self._asked(client, self._message(request, mount))
        return _answer(request, answer, mount)

    def _message(self, request: Request, mount: Mount) -> httpx.Request:
        import httpx

        headers = for_backend(request, mount, self._pseudonym, keep_host=self._keep_host)
        return httpx.Request(
            request.method,
            self._origin,
            headers=headers,
            content=_body(request),
            extensions={"target": mount.target(request), "timeout": {"connect": CONNECT, "pool": self._timeout}},
        )

    async def _asked(self, client: httpx.AsyncClient, message: httpx.Request) -> httpx.Response:
        import httpx

        late = HTTPError(504, "The server behind this page takes too long.", private=f"{self!r}: no answer in time.")
        try:
            with trio.fail_after(float("inf") if self._timeout is None else self._timeout):
                return await client.send(message, stream=True, follow_redirects=False)
        except (trio.TooSlowError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise late from None
        except httpx.ConnectError as exc:
            why = f"{self._origin} cannot be reached ({exc}). Does the server behind this page run?"
            raise HTTPError(502, "The server behind this page cannot be reached.", private=why) from None
        except httpx.TransportError as exc:
            why = f"{self._origin} broke off before it answered: {exc or type(exc).__name__}."
            raise HTTPError(502, "The server behind this page broke off.", private=why) from None


def _body(request: Request) -> Any:
    """What goes to the backend as the body; None for none."""
    chunks = request.body_chunks()
    if chunks is not None:
        return _passed(chunks)
    size = request.content.seek(0, 2)
    request.content.seek(0)
    return _read(request.content) if size else None


async def _passed(chunks: Any) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


async def _read(file: Any) -> AsyncIterator[bytes]:
    while chunk := file.read(PIECE):
        yield chunk


def _answer(request: Request, answer: httpx.Response, mount: Mount) -> Response:
    headers = for_client(answer.headers.raw, mount)
    if answer.status_code == 101:
        return Response.ready(_Tunnel(answer), 101, headers)
    request.setResponseCode(answer.status_code, answer.extensions.get("reason_phrase") or None)
    stream = IterStream(_chunks(answer, request))
    length = answer.headers.get("content-length", "")
    stream.length = int(length) if length.isdecimal() else None
    return Response.ready(stream, answer.status_code, headers)


async def _chunks(answer: httpx.Response, request: Request) -> AsyncIterator[bytes]:
    import httpx

    chunks = answer.aiter_raw()
    try:
        async for chunk in chunks:
            yield chunk
    except httpx.TransportError as exc:
        log.warning("%s: the server behind it broke off: %s", request.path, exc or type(exc).__name__)
        raise HTTPError(502, "The server behind this page broke off.") from None
    finally:
        with trio.CancelScope(shield=True):
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
                    nursery.start_soon(self._pump, stream.receive_some, backend.write, nursery.cancel_scope)
                    nursery.start_soon(self._pump, partial(backend.read, PIECE), stream.send_all, nursery.cancel_scope)
        finally:
            with trio.CancelScope(shield=True):
                await self._answer.aclose()

    async def _pump(self, read: Any, write: Any, scope: trio.CancelScope) -> None:
        import httpcore

        try:
            while data := await read():
                await write(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, httpcore.NetworkError):
            pass  # either side has gone
        scope.cancel()


def _client_of(site: Any, verify: object) -> httpx.AsyncClient:
    """The client that *site* has for backends; its connections are kept until the site stops."""
    try:
        import httpx
    except ImportError as exc:
        raise ImportError(_MISSING, name=exc.name) from None
    clients = _clients.setdefault(site, {})
    if verify not in clients:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)
        transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)  # type: ignore[arg-type]
        clients[verify] = httpx.AsyncClient(transport=transport, trust_env=False)
        site.beside(partial(_keep, clients, verify))
    return clients[verify]


async def _keep(clients: dict[object, httpx.AsyncClient], verify: object) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await clients.pop(verify).aclose()
