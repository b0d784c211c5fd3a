"""A reverse proxy: an upstream server answers the requests (RFC 9110, section 7.6).

Both bodies are forwarded as they come, so that nothing piles up and an event stream flows; an
upstream that closes the connection half-way breaks the response off, so that it never looks
complete. Headers of one connection stay there; who made the request, and for what, is told in
``Forwarded`` (RFC 7239) and ``X-Forwarded-*``.

Talking to the upstream is the business of `upstream`. That module needs httpx, an extra, and is
imported by the first request.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from rpyserve._names import public
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import ChunkIterator, IterableStream, Response
from rpyserve.resources.proxy_headers import Mount, downstream_headers, upstream_headers
from rpyserve.resources.resource import Resource

if TYPE_CHECKING:
    from rpyserve.resources.upstream import UpstreamResponse

# Bytes that are read at once of a body that has been loaded before.
READ_SIZE: Final = 64 * 1024

_MISSING_EXTRA: Final = "A proxy needs httpx, which is not installed. Write: pip install httpx"
# Tells this process from others that proxy to the same address.
_PROCESS_ID: Final = secrets.token_hex(4)


@public
class ReverseProxyResource(Resource):
    """The server at *url*, with all that is below that, mounted here. WebSockets pass too.

    Args:
        url: where requests go, such as ``"http://127.0.0.1:5000/api"``: what follows this resource
            in the path is appended, the query as it was sent.
        keep_host: whether the upstream server gets the ``Host`` that the client sent, instead of
            its own.
        timeout: seconds that the upstream server may take until its response begins, or to take the
            next piece of what is sent to it; None for any time. The body of the response may take
            longer.
        verify: for https: whether its certificate must be good, or an `ssl.SSLContext` that says
            which are.

    Raises:
        ValueError: *url* is not the ``http://`` or ``https://`` address of a server.

    The name is Twisted Web's (``twisted.web.proxy``). "Twisted Web in 60 seconds" announces it as
    its next subject.
    """

    isLeaf = True
    _wants_body = False
    _wants_session = False

    def __init__(
        self,
        url: str,
        *,
        keep_host: bool = False,
        timeout: float | None = 60.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and parts.hostname
        if not is_server or parts.query or parts.fragment:
            raise ValueError(
                "ReverseProxyResource(url) takes an address such as 'http://127.0.0.1:5000/api', "
                f"not {url!r}"
            )
        self._origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._authorization = _authorization(parts)
        self._base = parts.path.rstrip("/")
        self._keep_host = keep_host
        self._timeout = math.inf if timeout is None else timeout
        self._verify = verify
        token = hashlib.blake2b(f"{_PROCESS_ID} {url}".encode(), digest_size=6).hexdigest()
        self._pseudonym = f"rpyserve-{token}"

    def __repr__(self) -> str:
        return f"<ReverseProxyResource {self._origin}{self._base}>"

    async def render(self, request: Request) -> Response:
        """Forward *request*, and return the upstream server's response.

        Raises:
            HTTPError: 502, the upstream server cannot be reached, or closes the connection before
                its response begins; 504, it takes too long; 508, it leads back here.
            ImportError: httpx is not installed.
        """
        if self._pseudonym in request.raw_headers.text(b"via"):
            why = f"{self!r} received a request that it had forwarded itself."
            raise HTTPError(508, "This proxy points back to itself.", private=why)
        mount = Mount.of(request, self._origin, self._base)
        if mount.climbs():
            raise HTTPError(400, private=f"{self!r} does not forward paths that contain '..'.")
        try:
            from rpyserve.resources.upstream import UpstreamRequest, transport_for
        except ImportError as exc:
            raise ImportError(_MISSING_EXTRA, name=exc.name) from None
        upstream_request = UpstreamRequest(
            request.method,
            self._origin,
            mount.target(request),
            self._headers(request, mount),
            _body_of(request),
            self._timeout,
        )
        response = await upstream_request.send(transport_for(request, self._verify))
        request.on_close(lambda: response.release(request.site))
        return _forwarded(request, response, mount)

    def _headers(self, request: Request, mount: Mount) -> list[tuple[bytes, bytes]]:
        headers = upstream_headers(request, mount, self._pseudonym, keep_host=self._keep_host)
        if self._authorization is None:
            return headers
        return [*(pair for pair in headers if pair[0] != b"authorization"), self._authorization]


def _authorization(parts: SplitResult) -> tuple[bytes, bytes] | None:
    """Return the header that a name and a password in the address stand for (RFC 7617)."""
    if parts.username is None:
        return None
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b"authorization", b"Basic " + base64.b64encode(credentials.encode())


def _body_of(request: Request) -> AsyncIterator[bytes] | None:
    """Return the body as chunks; None if there is none."""
    chunks = request.body_chunks()
    if chunks is not None:
        return aiter(chunks)
    size = request.content.seek(0, 2)
    request.content.seek(0)
    if not size:
        return None

    async def read() -> bytes:
        return request.content.read(READ_SIZE)

    return ChunkIterator(read)


def _forwarded(request: Request, upstream: UpstreamResponse, mount: Mount) -> Response:
    """Return the response that the client gets for the *upstream* one."""
    headers = downstream_headers(upstream.headers, mount)
    if upstream.status == 101:
        return Response.trusted(upstream.tunnel(), 101, headers)
    if not 200 <= upstream.status <= 599:
        why = f"{mount.origin} responded with the status {upstream.status}, which is not valid."
        raise HTTPError(502, "The upstream server sent an invalid response.", private=why)
    request.setResponseCode(upstream.status, upstream.reason)
    stream = IterableStream(upstream.chunks())
    stream.length = upstream.length
    return Response.trusted(stream, upstream.status, headers)
