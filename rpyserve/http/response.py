"""What a site answers: a `Response`, and the three kinds of body that a protocol must be able to carry.

A body is `bytes`, a `FileBody`, or a `Stream`. Values only: nothing here knows of sockets, h11 or scripts.
Header values are checked here, where the script that set them is still on the stack, so that no script can
split a head (RFC 9110, section 5.5).

Bodies that are made while they are sent: generators, async generators, and what `request.write` gives.

A stream is entered in the task that sends it. Its head is settled only when the first chunk is there, or after
`PATIENCE` seconds, because a generator's first step may still open a session, set a header or fail; a failure
until then becomes a page of its own. An async generator runs in a task of its own, so that nurseries and
time-outs around its ``yield`` are sound (`trio.as_safe_channel`). Nothing here knows of sockets or sites.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NoReturn

import trio

from rpyserve.util.exceptions import unwrap_group

__all__ = [
    "PATIENCE",
    "FileBody",
    "Headers",
    "IterableStream",
    "Response",
    "Stream",
    "Upgrade",
    "WriteStream",
    "encode_header",
    "opened",
]


Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields as they go over the wire: names in the script's spelling, values without framing."""

HTML = (b"Content-Type", b"text/html; charset=utf-8")
JSON = (b"Content-Type", b"application/json")

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def encode_header(name: str | bytes, value: str | bytes | int) -> tuple[bytes, bytes]:
    """Return one header field as bytes.

    Raises:
        ValueError: the name is no token, or the value has a line break or another control character in it,
            or a character outside Latin-1 (RFC 9110, sections 5.1 and 5.5).
    """
    raw_name = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not _TOKEN.fullmatch(raw_name):
        raise ValueError(f"{name!r} is not a header name")
    if isinstance(value, int):
        value = str(value)
    try:
        raw_value = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ValueError(
            f"the value of {name!r} has a character that a header cannot hold: {value!r}; use urllib.parse.quote"
        ) from None
    raw_value = raw_value.strip(b" \t")
    if not _VALUE.fullmatch(raw_value):
        raise ValueError(
            f"the value of {name!r} has a line break or control character in it: {value!r}"
        )
    return raw_name, raw_value


@dataclass(frozen=True, slots=True, eq=False)
class FileBody:
    """An open file, or parts of it, to be sent in chunks and closed by whoever sends it.

    Args:
        file: an open binary file; its position does not matter.
        parts: what to send, in order: `bytes` as they are, a `range` as that range of the file's bytes.
    """

    file: BinaryIO
    parts: tuple[bytes | range, ...]

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return sum(len(part) for part in self.parts)

    def chunks(self, size: int = 256 * 1024) -> Iterator[bytes]:
        """Yield the bytes in chunks of at most *size*.

        Raises:
            EOFError: the file has become shorter since it was opened.
        """
        for part in self.parts:
            yield from self.read(part, size)

    def rest(self, sent: int) -> Iterator[bytes | range]:
        """Yield what of its parts comes after the first *sent* bytes."""
        for part in self.parts:
            if sent < len(part):
                yield part[sent:]
            sent = max(0, sent - len(part))

    def read(self, part: bytes | range, size: int) -> Iterator[bytes]:
        """Yield one of its parts as `chunks` does."""
        if isinstance(part, bytes):
            yield part
            return
        self.file.seek(part.start)
        left = len(part)
        while left:
            chunk = self.file.read(min(size, left))
            if not chunk:
                raise EOFError("the file became shorter while it was sent")
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Stream:
    """A body that is made while it is sent.

    A protocol enters `opened(response)`, an async context manager, sends the head of the response that this
    gives it, and then each chunk of `StartedStream.chunks`. The head is final only then, because a generator's first
    step may still open a session or fail.

    Attributes:
        length: how many bytes it will have; None if that is not known.
    """

    length: int | None = None

    def opened(
        self, response: Response
    ) -> Any:  # AbstractAsyncContextManager[Opened]; see `streaming`
        raise NotImplementedError


class Upgrade:
    """What takes a connection over after a 101 (RFC 9110, sections 7.8 and 15.2.2).

    A protocol sends the head of the response that has it for a body, and then leaves the connection to `run`.
    """

    async def run(self, stream: Any) -> None:
        """Speak the other protocol on *stream*, a `trio.abc.Stream`, until it is over. Returns soon after `stop`."""
        raise NotImplementedError

    def stop(self) -> None:
        """The server is about to stop. Called in the loop, perhaps before `run`, and perhaps more than once."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class StartedStream:
    """A stream whose first chunk is there, or whose patience for it is over.

    Args:
        response: the head to send. Its body is bytes if the stream failed before it began: send that then,
            and no chunks.
        chunks: the chunks, none of them empty.
    """

    response: Response
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Response:
    """A complete answer. Immutable: make another one to change it.

    Args:
        body: text (sent as UTF-8 HTML), bytes, a dict or list (sent as JSON), an (async) iterable of text or
            bytes (streamed), or one of the body classes of this module.
        status: the HTTP status code.
        headers: header fields, as a mapping or as pairs. ``Content-Length`` is always the server's business.
            ``Content-Type`` follows from the body unless it is given.

    Raises:
        ValueError: a header field that cannot be sent.
        TypeError: a body of another type.
    """

    body: bytes | FileBody | Stream | Upgrade
    status: int
    headers: Headers = field(repr=False)

    def __init__(
        self,
        body: object = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes | int]] = (),
    ) -> None:
        if not (isinstance(status, int) and 200 <= status <= 599):
            raise ValueError(f"a response's status is a number from 200 to 599, not {status!r}")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        encoded = tuple([encode_header(name, value) for name, value in pairs])
        content, implied = _body(body)
        if implied and not any(name.lower() == b"content-type" for name, _ in encoded):
            encoded = (implied, *encoded)
        set_field = object.__setattr__
        set_field(self, "body", content)
        set_field(self, "status", status)
        set_field(self, "headers", encoded)

    @classmethod
    def trusted(
        cls, body: bytes | FileBody | Stream | Upgrade, status: int, headers: Headers
    ) -> Response:
        """Make one from parts that are known to be good: nothing is checked or added."""
        self = object.__new__(cls)
        set_field = object.__setattr__
        set_field(self, "body", body)
        set_field(self, "status", status)
        set_field(self, "headers", headers)
        return self

    def with_headers(self, *fields: tuple[bytes, bytes]) -> Response:
        """Return the same response with *fields* added; one of a name that is there replaces it.

        ``Set-Cookie`` is never replaced: each is a cookie of its own.
        """
        names = {name.lower() for name, _ in fields} - {b"set-cookie"}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return Response.trusted(self.body, self.status, kept + fields)


def _body(body: object) -> tuple[bytes | FileBody | Stream, tuple[bytes, bytes] | None]:
    if isinstance(body, str):
        return body.encode(), HTML
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), HTML if body else None
    if isinstance(body, (dict, list)):
        import json

        return json.dumps(body, ensure_ascii=False).encode(), JSON
    if isinstance(body, (FileBody, Stream)):
        return body, None
    if hasattr(body, "__aiter__") or hasattr(body, "__iter__"):
        # streaming is built on this module

        return IterableStream(body), HTML
    _refuse(body)


def _refuse(body: object) -> NoReturn:
    raise TypeError(
        f"a response's body cannot be {type(body).__name__}: use str, bytes, dict, list or a generator"
    )


PATIENCE: Final = 0.5
"""Seconds that a head waits for the first chunk of an async generator."""


class IterableStream(Stream):
    """The chunks of an iterable: text or bytes, sent as they come.

    Args:
        source: a generator, an async generator, or any other (async) iterable.
        patience: seconds that the head waits for the first chunk.

    `settle` and `rescue` are set by whoever knows the request: the first completes a head, the second turns an
    exception into the page to send instead, or, when chunks have been sent already, reports it, and may give the last
    piece to send before the body is broken off.
    """

    def __init__(self, source: Any, *, patience: float = PATIENCE) -> None:
        self.source = source
        self.patience = patience
        self.settle: Callable[[Response], Response] = lambda response: response
        self.rescue: Callable[[BaseException, bool], Response | None] = lambda exc, begun: None
        self._failure: BaseException | None = None
        self._begun: Response | None = None

    @asynccontextmanager
    async def opened(self, response: Response) -> AsyncIterator[StartedStream]:
        """Start the source, and give the head and the chunks to send. See `Stream`."""
        try:
            async with self._started() as chunks:
                first = await self._first(chunks)
                if self._failure is not None:
                    await (
                        trio.sleep_forever()
                    )  # the failed task cancels this one, and its exception comes out below
                self._begun = head = self.settle(response)
                yield StartedStream(head, _Chunks(first, chunks))
        except BaseException as exc:
            # What the one who sends raised (a reset, a cancellation) is none of the stream's business.
            if self._failure is None:
                raise
            page = self.rescue(unwrap_group(self._failure), False) if self._begun is None else None
            if page is None:
                raise self._failure from None if exc is self._failure else exc
        else:
            return
        yield StartedStream(page, _Chunks(b"", None))

    def _started(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if inspect.isasyncgen(self.source):
            return trio.as_safe_channel(self._encoded)()
        return aclosing(self._encoded())

    async def _first(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The first chunk, or nothing if the source ends, or takes too long, before it."""
        if not inspect.isasyncgen(self.source):
            return await anext(chunks, b"")
        with trio.move_on_after(self.patience):
            return await anext(chunks, b"")
        return b""

    async def _encoded(self) -> AsyncGenerator[bytes, None]:
        try:
            if isinstance(self.source, AsyncIterable):
                async for item in self.source:
                    if chunk := _encode(item):
                        yield chunk
            else:
                for item in self.source:
                    if chunk := _encode(item):
                        yield chunk
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as exc:
            self._failure = exc
            if self._begun is not None and (piece := self._last_piece(exc, self._begun)):
                yield piece
            raise
        finally:
            await _close(self.source)

    def _last_piece(self, exc: BaseException, head: Response) -> bytes:
        """What to send, below what was sent of a page, before it is broken off."""
        said = self.rescue(unwrap_group(exc), True)
        names = dict((name.lower(), value) for name, value in head.headers)
        is_page = (
            names.get(b"content-type", b"").startswith(b"text/html")
            and b"content-encoding" not in names
        )
        return said.body if said is not None and is_page and isinstance(said.body, bytes) else b""


class WriteStream(IterableStream):
    """What `request.write` puts in comes out to the client, until `close`."""

    def __init__(self) -> None:
        self._send, receive = trio.open_memory_channel[bytes | _Failure](math.inf)
        super().__init__(receive, patience=math.inf)

    def write(self, chunk: bytes) -> None:
        """Queue *chunk*. When the client has gone, or after `close`, nothing happens."""
        try:
            self._send.send_nowait(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def close(self) -> None:
        """The body is complete."""
        self._send.close()

    def fail(self, exc: BaseException) -> None:
        """The body will never be complete: whoever sends it gets *exc* after what was written."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(_Failure(exc))


@dataclass(frozen=True, slots=True)
class _Failure:
    exc: BaseException


def _encode(item: object) -> bytes:
    if isinstance(item, _Failure):
        raise item.exc
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    raise TypeError(
        f"a streaming page yields str or bytes, not {type(item).__name__}: {item!r:.60}"
    )


class _Chunks:
    """What came first, then the others. Not a generator: it may be left half-way without being closed."""

    def __init__(self, first: bytes, others: AsyncIterator[bytes] | None) -> None:
        self._first = first
        self._others = others

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        if self._others is None:
            raise StopAsyncIteration
        return await anext(self._others)


async def _close(source: Iterable[object] | AsyncIterable[object]) -> None:
    """Let a generator's ``finally`` run now, not when the garbage is collected."""
    if inspect.isasyncgen(source) or isinstance(source, trio.abc.AsyncResource):
        await source.aclose()
    elif inspect.isgenerator(source):
        source.close()


@asynccontextmanager
async def opened(response: Response) -> AsyncIterator[StartedStream]:
    """Give any response in the shape of a stream that has begun, for those that only want its chunks."""
    body = response.body
    if isinstance(body, Stream):
        async with body.opened(response) as begun:
            page = begun.response.body
            if not isinstance(page, bytes):
                yield begun
                return
        response, body = begun.response, page
    try:
        async with aclosing(
            _each(body.chunks() if isinstance(body, FileBody) else _only(body))
        ) as chunks:
            yield StartedStream(response, chunks)
    finally:
        if isinstance(body, FileBody):
            body.close()


def _only(body: bytes | Upgrade) -> Iterable[bytes]:
    """What else a protocol could send; after an upgrade that is nothing."""
    return () if isinstance(body, Upgrade) else (body,)


async def _each(chunks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk
