"""Requests to an upstream server, made by httpx, and their responses.

Owns the time limits, when a request may be repeated, the connections of each site, which live as
long as it runs at most, and the translation of httpx's exceptions into `HTTPError`. This module
must not know what is requested, or why. It imports httpx, which is an extra.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpcore
import httpx
import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Upgrade

# Seconds that it may take to reach the server.
CONNECT_TIMEOUT: Final = 5.0

# Seconds that an idle connection is kept. Most servers close theirs after 5 or more.
KEEP_ALIVE: Final = 4.0

# Seconds that it may take to close connections.
CLOSE_TIMEOUT: Final = 1.0

# How many contexts for https, each with its connections, a site keeps that are not in use.
MAX_UNUSED_TRANSPORTS: Final = 8

# Bytes that a tunnel reads at once.
TUNNEL_SIZE: Final = 64 * 1024

# Methods of requests that may be sent twice (RFC 9110, section 9.2.2).
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class UpstreamRequest:
    """One request on its way to an upstream server.

    Args:
        method: the method.
        origin: the server, such as ``"http://127.0.0.1:5000"``.
        target: the request target.
        headers: all header fields but those that frame the body.
        body: the chunks of the body; None if there is none.
        timeout: seconds that the server may do nothing. The time that our client takes for its body
            does not count.
    """

    def __init__(
        self,
        method: str,
        origin: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: AsyncIterator[bytes] | None,
        timeout: float,
    ) -> None:
        self._method = method
        self._origin = origin
        self._target = target
        self._headers = headers
        self._has_body = body is not None
        self._timeout = timeout
        self._scope = trio.CancelScope()
        self._body = _TimedBody(body, self._scope, timeout)
        self._connected = False

    async def send(self, transport: httpx.AsyncHTTPTransport) -> UpstreamResponse:
        """Send the request, and wait for the head of the response.

        Raises:
            HTTPError: 502 or 504, there is none.
        """
        self._scope.deadline = trio.current_time() + self._timeout
        with self._scope:
            while True:
                try:
                    return UpstreamResponse(await self._attempt(transport), self._origin)
                except httpx.ConnectTimeout:
                    raise self._too_slow("could not be reached in time") from None
                except httpx.ConnectError as exc:
                    why = f"{self._origin} cannot be reached ({exc}). Is the server running?"
                    detail = "The upstream server cannot be reached."
                    raise HTTPError(502, detail, private=why) from None
                except httpx.TransportError as exc:
                    # Perhaps it has closed an old connection, and sending again is safe.
                    is_repeatable = not self._has_body and self._method in _REPEATABLE
                    if self._connected or not is_repeatable:
                        raise _closed_by(self._origin, "before it responded", exc) from None
        raise self._too_slow("did not respond in time")

    async def _attempt(self, transport: httpx.AsyncHTTPTransport) -> httpx.Response:
        request = httpx.Request(
            self._method, self._origin, headers=self._headers, stream=self._body
        )
        request.extensions = {
            "target": self._target,
            "timeout": {"connect": CONNECT_TIMEOUT},
            "trace": self._trace,
        }
        if self._has_body and "content-length" not in request.headers:
            request.headers["transfer-encoding"] = "chunked"
        return await transport.handle_async_request(request)

    async def _trace(self, event: str, info: object) -> None:
        if event.startswith("connection.connect_"):
            self._connected = True

    def _too_slow(self, what: str) -> HTTPError:
        detail = "The upstream server took too long to respond."
        return HTTPError(504, detail, private=f"{self._origin} {what}.")


class _TimedBody(httpx.AsyncByteStream):
    """The chunks of a body, each of which the server has to take in time.

    Not a generator: it may be left half-way.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes] | None, scope: trio.CancelScope, timeout: float
    ) -> None:
        self._chunks = chunks
        self._scope = scope
        self._timeout = timeout

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            raise StopAsyncIteration
        self._scope.deadline = math.inf
        try:
            return await anext(self._chunks)
        finally:
            self._scope.deadline = trio.current_time() + self._timeout


class UpstreamResponse:
    """The head of a response; its body is still on the way.

    Attributes:
        status: the status code.
        reason: the reason phrase; None if it is empty.
        headers: the header fields.
        length: how many bytes the body has; None if that is not known.
    """

    def __init__(self, response: httpx.Response, origin: str) -> None:
        self._response = response
        self._origin = origin
        self.status = response.status_code
        self.reason: bytes | None = response.extensions.get("reason_phrase") or None
        self.headers = response.headers.raw
        length = response.headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else None

    async def chunks(self) -> AsyncIterator[bytes]:
        chunks = self._response.aiter_raw()
        try:
            async for chunk in chunks:
                yield chunk
        except httpx.TransportError as exc:
            raise _closed_by(self._origin, "half-way", exc) from None
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._response.aclose()
                # httpx nests generators. This ends them all, so none is left to be collected.
                with suppress(StopAsyncIteration, httpx.StreamError, httpx.TransportError):
                    await anext(chunks)

    def tunnel(self) -> Upgrade:
        """Return what forwards the bytes of another protocol, after a 101."""
        return _Tunnel(self._response)

    def release(self, site: Any) -> None:
        """Give the connection back, even if nobody has read the body to its end."""
        if not self._response.is_closed:
            site.start_task(partial(_close, self._response))


class _Tunnel(Upgrade):
    """Another protocol, whose bytes are forwarded in both directions."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._scope = trio.CancelScope()

    def stop(self) -> None:
        self._scope.cancel()

    async def run(self, stream: Any) -> None:
        """Forward bytes until either side closes."""
        upstream = self._response.extensions["network_stream"]
        receive_upstream = partial(upstream.read, TUNNEL_SIZE)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(self._pump, stream.receive_some, upstream.write, scope)
                    nursery.start_soon(self._pump, receive_upstream, stream.send_all, scope)
        finally:
            await _close(self._response)

    async def _pump(self, receive: Any, send: Any, scope: trio.CancelScope) -> None:
        try:
            while data := await receive():
                await send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, httpcore.NetworkError):
            pass  # either side has gone
        scope.cancel()


def _closed_by(origin: str, when: str, exc: httpx.TransportError) -> HTTPError:
    why = f"{origin} closed the connection {when}: {exc or type(exc).__name__}."
    return HTTPError(502, "The upstream server closed the connection.", private=why)


async def _close(response: httpx.Response) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await response.aclose()


# The connections of a site


@dataclass(eq=False)
class _PooledTransport:
    transport: httpx.AsyncHTTPTransport
    users: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


_Pool = dict[ssl.SSLContext | bool, _PooledTransport]
# The transports of each site, by what they verify.
_pools: WeakKeyDictionary[Any, _Pool] = WeakKeyDictionary()


def transport_for(request: Request, verify: ssl.SSLContext | bool) -> httpx.AsyncHTTPTransport:
    """Return what *request* may use until it is over.

    Its connections are kept for others until the site stops. Of different contexts, of which an
    uncached script makes one for each request, only a few are kept.
    """
    pool = _pools.setdefault(request.site, {})
    if verify not in pool:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEP_ALIVE
        )
        transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)
        pool[verify] = pooled = _PooledTransport(transport)
        request.site.start_task(partial(_keep_open, pool, verify, pooled))
    pooled = pool[verify]
    pooled.users += 1
    request.on_close(partial(_release, pool, pooled))
    return pooled.transport


def _release(pool: _Pool, pooled: _PooledTransport) -> None:
    pooled.users -= 1
    unused = [verify for verify, each in pool.items() if not each.users]
    for verify in unused[: max(len(pool) - MAX_UNUSED_TRANSPORTS, 0)]:
        pool.pop(verify).scope.cancel()


async def _keep_open(pool: _Pool, verify: ssl.SSLContext | bool, pooled: _PooledTransport) -> None:
    try:
        with pooled.scope:
            await trio.sleep_forever()
    finally:
        if pool.get(verify) is pooled:  # the site stops
            del pool[verify]
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await pooled.transport.aclose()
