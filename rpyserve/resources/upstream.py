"""Asking other servers by httpx: one request, with the patience that one has for it, over connections that are kept.

Owns the connections of each site, which live as long as it runs at most, and when a request may be made a second time.
Nothing here knows what is asked. Whoever imports this needs httpx.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpx
import trio

from rpyserve.http.request import Request

__all__ = ["UpstreamRequest", "transport_of"]

CONNECT: Final = 5.0
"""Seconds that it may take to reach the backend."""
KEPT: Final = 4.0
"""Seconds that an idle connection is kept: servers close theirs after 5 or more, and a request must not cross that."""
CLOSING: Final = 1.0
"""Seconds that it may take to close them all."""
MOST: Final = 8
"""How many contexts for https, each with its connections, a site keeps that nobody uses just now."""

_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be asked for twice (RFC 9110, section 9.2.2)."""
_kept: WeakKeyDictionary[Any, dict[ssl.SSLContext | bool, _Kept]] = WeakKeyDictionary()


class UpstreamRequest:
    """One request on its way to the backend.

    Args:
        message: what it is made of.
        body: the chunks that go with it; None for nothing.
        scope: is cancelled when the backend has done nothing for
        patience: seconds. The time that our client takes for its body does not count.
    """

    def __init__(
        self,
        message: dict[str, Any],
        body: AsyncIterator[bytes] | None,
        scope: trio.CancelScope,
        patience: float,
    ) -> None:
        self._message = message
        self._has_body = body is not None
        self._body = _Passed(body, scope, patience)
        self._connected = False

    async def made(self, transport: httpx.AsyncHTTPTransport) -> httpx.Response:
        """Ask, and return the head of the answer."""
        message = httpx.Request(**self._message, stream=self._body)
        message.extensions |= {"timeout": {"connect": CONNECT}, "trace": self._trace}
        if self._has_body and "content-length" not in message.headers:
            message.headers["transfer-encoding"] = "chunked"
        return await transport.handle_async_request(message)

    @property
    def may_be_repeated(self) -> bool:
        """Whether it is allowed to ask again, and that would be over a newer connection."""
        return not self._connected and not self._has_body and self._message["method"] in _REPEATABLE

    async def _trace(self, event: str, info: object) -> None:
        self._connected = self._connected or event.startswith("connection.connect_")


class _Passed(httpx.AsyncByteStream):
    """The chunks of a body, each of which the backend has to take in time. No generator: it may be left half-way."""

    def __init__(
        self, chunks: AsyncIterator[bytes] | None, scope: trio.CancelScope, patience: float
    ) -> None:
        self._chunks = chunks
        self._scope = scope
        self._patience = patience

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            raise StopAsyncIteration
        self._scope.deadline = math.inf
        try:
            return await anext(self._chunks)
        finally:
            self._scope.deadline = trio.current_time() + self._patience


@dataclass(eq=False)
class _Kept:
    transport: httpx.AsyncHTTPTransport
    users: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


def transport_of(request: Request, verify: ssl.SSLContext | bool) -> httpx.AsyncHTTPTransport:
    """What *request* may ask backends by until it is over; the connections are kept for others until the site stops.

    Of different contexts, of which an uncached script makes one for each request, only a few are kept.
    """
    of_site = _kept.setdefault(request.site, {})
    if verify not in of_site:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEPT
        )
        of_site[verify] = kept = _Kept(
            httpx.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)
        )
        request.site.start_task(partial(_keep, of_site, verify, kept))
    kept = of_site[verify]
    kept.users += 1
    request.on_close(partial(_release, of_site, kept))
    return kept.transport


def _release(of_site: dict[ssl.SSLContext | bool, _Kept], kept: _Kept) -> None:
    kept.users -= 1
    unused = [verify for verify, each in of_site.items() if not each.users]
    for verify in unused[: max(len(of_site) - MOST, 0)]:
        of_site.pop(verify).scope.cancel()


async def _keep(
    of_site: dict[ssl.SSLContext | bool, _Kept], verify: ssl.SSLContext | bool, kept: _Kept
) -> None:
    try:
        with kept.scope:
            await trio.sleep_forever()
    finally:
        if of_site.get(verify) is kept:  # the site stops
            del of_site[verify]
        with trio.move_on_after(CLOSING, shield=True):
            await kept.transport.aclose()
