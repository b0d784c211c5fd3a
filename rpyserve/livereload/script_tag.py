"""The tag that makes a page follow, put into what a browser loads as a page, and into nothing else.

A wrapper of the responder signature. Whoever does not load a page (curl, fetch, frames, HEAD) gets exactly what the
site answers, for the price of a look at the headers. It never raises: a page that cannot have the tag goes out without.
Which script the tag names, and what it does, is the business of others.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from rpyserve.http.browser import is_navigation
from rpyserve.http.headers import HeaderFields
from rpyserve.http.request import Request
from rpyserve.http.response import (
    ChunkIterator,
    FileBody,
    Headers,
    Response,
    StartedStream,
    Stream,
    Upgrade,
)
from rpyserve.http.types import Responder

__all__ = ["ScriptTag", "inject"]

log = logging.getLogger("rpyserve")

SAMPLE: Final = 64 * 1024
"""How many bytes of a page are searched for what its head says."""

_CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since"})
_DROPPED: Final = frozenset(
    {b"etag", b"last-modified", b"accept-ranges", b"cache-control", b"vary"}
)
_NEVER: Final = (b"content-encoding", b"content-range", b"content-digest", b"repr-digest")
_PLACE = re.compile(rb"(?=</head\s*>)|<body\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.I)
_BASE = re.compile(rb"<base\s", re.I)


@dataclass(frozen=True, slots=True)
class ScriptTag:
    """What is in a tag.

    Args:
        mark: gives the number of the last change, as the stream of changes understands it.
        url_of: gives the URL path of a file or directory, or ``"*"``.
        tell: is called with a page's path and the directive that keeps it from following.
    """

    mark: Callable[[], str]
    url_of: Callable[[str], str]
    tell: Callable[[str, str], object]

    def make(
        self,
        request: Request,
        mark: str,
        status: int,
        headers: Headers,
        sample: bytes,
        digest: str = "",
    ) -> bytes:
        """Return the tag for a page that begins with *sample*; nothing if its policy would block it."""
        from html import escape

        from rpyserve.livereload import csp

        policies = [
            value.decode("latin-1")
            for name, value in headers
            if name.lower() == b"content-security-policy"
        ]
        kept = _digest(" ".join(policies).encode()) if policies else ""
        policies += csp.in_document(sample.decode("utf-8", "replace"))
        if policies and (
            why := csp.blocking_directive(policies, request.scheme, request.authority or "")
        ):
            self.tell(request.path, why)
            return b""
        up = "/" if _BASE.search(sample) else "../" * (request.raw_path.count("/") - 1) or "./"
        sources = dict.fromkeys(map(self.url_of, request._sources))
        made = (
            "file"
            if request._sources and not any(path.endswith(".rpy") for path in request._sources)
            else "script"
        )
        return (
            f'<script async src="{up}-/follow.js" data-rpyserve="{mark}" data-sources="{escape(" ".join(sources))}"'
            f' data-made="{made}" data-method="{request.method}" data-status="{status}"'
            f' data-digest="{digest}" data-policy="{kept}"></script>'
        ).encode()


def inject(respond: Responder, tags: ScriptTag) -> Responder:
    """Wrap *respond* so that pages which a browser loads have a tag at their end."""

    async def injected(request: Request) -> Response:
        if not is_navigation(request):
            return await respond(request)
        # A copy that the browser kept from before may have another tag, or none.
        request.raw_headers = HeaderFields(
            pair for pair in request.raw_headers if pair[0] not in _CONDITIONS
        )
        make = partial(tags.make, request, tags.mark())
        response = await respond(request)
        try:
            return _tagged(response, make)
        except Exception as exc:
            log.debug("%s goes out as it is: %s", request.path, exc)
            return response

    return injected


Make = Callable[..., bytes]
"""`ScriptTag.make` for a request: of the status, the headers, the page's beginning, and the digest of all of it."""


def _tagged(response: Response, make: Make) -> Response:
    body = response.body
    if isinstance(body, Stream):
        return Response.trusted(_TaggedStream(body, make), response.status, response.headers)
    if isinstance(body, Upgrade) or not _is_whole_page(response):
        return response
    sample = _beginning(body) if isinstance(body, FileBody) else body[:SAMPLE]
    digest = "" if isinstance(body, FileBody) else _digest(body)
    tag = make(response.status, response.headers, sample, digest)
    if not tag:
        return response
    longer = FileBody(body.file, (*body.parts, tag)) if isinstance(body, FileBody) else body + tag
    return Response.trusted(longer, response.status, _fields(response.headers))


def _is_whole_page(response: Response) -> bool:
    """Whether a tag may be put into *response* (RFC 9110, sections 8.3, 8.4, 15.3.5, 15.3.7, 15.4.5)."""
    fields = {name.lower(): value.lower() for name, value in response.headers}
    kind, _, parameters = fields.get(b"content-type", b"").partition(b";")
    return (
        kind.strip() == b"text/html"
        and response.status not in (204, 206, 304)
        and b"utf-16" not in parameters
        and b"utf-32" not in parameters
        and not fields.get(b"content-disposition", b"").startswith(b"attachment")
        and not any(name in fields for name in _NEVER)
    )


def _fields(headers: Headers) -> Headers:
    """The header fields of a page with a tag in it: it is no longer what its validators stand for."""
    values = {name.lower(): value for name, value in headers}
    storing = (
        b"no-store" if b"no-store" in values.get(b"cache-control", b"").lower() else b"no-cache"
    )
    varying = b", ".join(value for name, value in headers if name.lower() == b"vary")
    kept = tuple(pair for pair in headers if pair[0].lower() not in _DROPPED)
    vary = b", ".join(filter(None, [varying, b"Sec-Fetch-Dest"])) if varying != b"*" else b"*"
    return (*kept, (b"Cache-Control", storing), (b"Vary", vary))


def _digest(content: bytes) -> str:
    """What tells one content from another, where nobody means harm."""
    return f"{zlib.crc32(content):x}"


def _beginning(body: FileBody) -> bytes:
    first = body.parts[0] if body.parts else b""
    if isinstance(first, bytes):
        return first[:SAMPLE]
    body.file.seek(first.start)
    return body.file.read(min(SAMPLE, len(first)))


class _TaggedStream(Stream):
    """A stream with a tag: in the head of its first chunk if that has one (it may never end), else after the last."""

    def __init__(self, stream: Stream, make: Make) -> None:
        self._stream = stream
        self._make = make

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        async with self._stream.start(response) as started:
            yield self._tagged(started)

    def _tagged(self, started: StartedStream) -> StartedStream:
        head = started.response
        if isinstance(head.body, bytes):
            return StartedStream(_tagged(head, self._make), started.chunks)
        if not _is_whole_page(head):
            return started
        make = partial(self._make, head.status, head.headers)
        chunks = ChunkIterator(_TaggedChunks(started.chunks, make).next_chunk)
        return StartedStream(Response.trusted(self, head.status, _fields(head.headers)), chunks)


class _TaggedChunks:
    """*chunks* with a tag in or after them."""

    def __init__(self, chunks: AsyncIterator[bytes], make: Callable[[bytes], bytes]) -> None:
        self._chunks = chunks
        self._make: Callable[[bytes], bytes] | None = make
        self._last = b""

    async def next_chunk(self) -> bytes:
        """Return the next chunk; empty at the end."""
        chunk = await anext(self._chunks, b"")
        if not chunk:
            last, self._last = self._last or self._tag(b""), b""
            return last
        if self._make is None:
            return chunk
        tag = self._tag(chunk)
        place = _PLACE.search(chunk)
        if place is None:
            self._last = tag
            return chunk
        return chunk[: place.end()] + tag + chunk[place.end() :]

    def _tag(self, sample: bytes) -> bytes:
        """The tag, once; nothing if there is none."""
        make, self._make = self._make, None
        try:
            return make(sample[:SAMPLE]) if make is not None else b""
        except Exception as exc:
            log.debug("A page goes out as it is: %s", exc)
            return b""
