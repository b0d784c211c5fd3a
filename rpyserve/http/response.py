"""What a site answers: a `Response`, and the kinds of body that a protocol must be able to send.

A body is `bytes`, a `FileBody`, a `Stream`, which is made while it is sent, or an `Upgrade` to
another protocol.

Header values are checked where they are set, while the script that sets them is on the stack (RFC
9110, section 5.5). So is what becomes JSON (RFC 8259): Python's own encoder says neither where a
value is that JSON cannot hold nor what to write instead, and it writes ``NaN``, which is no JSON.

The headers of a stream are complete only when its first chunk is there, or after
`FIRST_CHUNK_TIMEOUT`: until then a generator may still open a session, set a header, or fail, which
becomes an error page. An async generator runs in a task of its own, so that nurseries and timeouts
around its ``yield`` are sound (`trio.as_safe_channel`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import trio

from rpyserve._names import public
from rpyserve.http.errors import ClientDisconnected, NotJSON
from rpyserve.http.headers import encode_header
from rpyserve.util.exceptions import unwrap_group

# Header fields as they are sent: names in the script's spelling, no framing fields.
Headers = tuple[tuple[bytes, bytes], ...]

HTML: Final = (b"Content-Type", b"text/html; charset=utf-8")
JSON: Final = (b"Content-Type", b"application/json")

# The statuses of responses without a body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
_EMPTY: Final = frozenset({204, 205, 304})

# Seconds that the headers wait for the first chunk of an async generator.
FIRST_CHUNK_TIMEOUT: Final = 0.5

# How many bytes that were written may wait for a client that reads more slowly than they come.
#
# As much as a message of a WebSocket may have, so hundreds of such clients fit into memory.
MOST_WAITING: Final = 16 * 2**20

# Seconds for which more than that may wait, and become more, before the client is given up.
FALLING_BEHIND: Final = 1.0

# Bytes that are read at once of a file.
FILE_CHUNK: Final = 256 * 1024


# Bodies


@dataclass(frozen=True, slots=True, eq=False)
class FileBody:
    """An open file, or parts of it, to be sent in chunks and closed by whoever sends it.

    Args:
        file: an open binary file; its position does not matter.
        parts: what to send, in order: `bytes` as they are, a `range` as that range of the file's
            bytes.
    """

    file: BinaryIO
    parts: tuple[bytes | range, ...]

    @property
    def length(self) -> int:
        """The number of bytes to send."""
        return sum(len(part) for part in self.parts)

    def chunks(self, size: int = FILE_CHUNK) -> Iterator[bytes]:
        """Yield the bytes in chunks of at most *size*.

        Raises:
            EOFError: the file has become shorter since it was opened.
        """
        for part in self.parts:
            yield from self.read_part(part, size)

    def parts_after(self, sent: int) -> Iterator[bytes | range]:
        """Yield what is left of the parts after the first *sent* bytes."""
        for part in self.parts:
            if sent < len(part):
                yield part[sent:]
            sent = max(0, sent - len(part))

    def read_part(self, part: bytes | range, size: int) -> Iterator[bytes]:
        """Yield the bytes of one part in chunks of at most *size*.

        Raises:
            EOFError: see `chunks`.
        """
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
        self.file.close()


class Stream:
    """A body that is made while it is sent.

    A protocol enters ``stream.start(response)``, sends the headers of the `StartedStream` that this
    gives it, and then its chunks.

    Attributes:
        length: how many bytes it will have; None if that is not known.
        reason: the words beside a status that was set when it had been started.
        waits: whether the next chunk may be waited for; else the loop has no turn before that.
    """

    length: int | None = None
    waits: bool = True
    reason: bytes = b""

    def start(self, response: Response) -> AbstractAsyncContextManager[StartedStream]:
        """Start making the body of *response*; leaving the block gives up what is left of it."""
        raise NotImplementedError


class Upgrade:
    """What takes over a connection after a 101 (RFC 9110, sections 7.8 and 15.2.2).

    A protocol sends the headers of the response that has it for a body, and then leaves the
    connection to `run`.
    """

    async def run(self, stream: Any) -> None:
        """Speak the other protocol on *stream*, a `trio.abc.Stream`, until it is over.

        Returns soon after `stop`.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Called in the loop when the server is about to stop. Perhaps before `run`, or twice."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class StartedStream:
    """A stream whose headers are complete.

    Args:
        response: the response to send. If the stream failed before its first chunk, this is another
            one, whose body is bytes: send that, and no chunks.
        chunks: the chunks, none of them empty.
        is_ready: whether the first chunk is there, so that it need not be waited for.
    """

    response: Response
    chunks: AsyncIterator[bytes]
    is_ready: bool = False


class ChunkIterator:
    """The chunks that an async function returns, until it returns an empty one.

    Unlike an async generator it may be left half-way without being closed.
    """

    def __init__(self, next_chunk: Callable[[], Awaitable[bytes]]) -> None:
        self._next_chunk = next_chunk

    def __aiter__(self) -> ChunkIterator:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk


# Responses


@public
@dataclass(frozen=True, slots=True, eq=False, init=False)
class Response:
    """A complete answer. Immutable: make another one to change it.

    Args:
        body: text (sent as UTF-8 HTML), bytes, a dict or list (sent as JSON), an (async) iterable
            of text or bytes (streamed), or one of the body classes of this module. None where the
            status allows no body: 204, 205, 304.
        status: the HTTP status code.
        headers: header fields, as a mapping or as pairs. ``Content-Length`` is always the server's
            business. ``Content-Type`` follows from the body unless it is given.

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
        content, content_type = _encode_body(b"" if body is None and status in _EMPTY else body)
        if isinstance(body, str):
            encoded = say_utf8(encoded)
        if content_type and not any(name.lower() == b"content-type" for name, _ in encoded):
            encoded = (content_type, *encoded)
        _set_fields(self, content, status, encoded)

    @classmethod
    def trusted(
        cls, body: bytes | FileBody | Stream | Upgrade, status: int, headers: Headers
    ) -> Response:
        """Make one of parts that are known to be good: nothing is checked or added."""
        self = object.__new__(cls)
        _set_fields(self, body, status, headers)
        return self

    def with_headers(self, *fields: tuple[bytes, bytes]) -> Response:
        """Return the same response with *fields* added; each replaces those of the same name.

        ``Set-Cookie`` never replaces another one, since each is a cookie of its own.
        """
        names = {name.lower() for name, _ in fields} - {b"set-cookie"}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return Response.trusted(self.body, self.status, kept + fields)


def say_utf8(headers: Headers) -> Headers:
    """Return *headers* with the charset of a body that was made of `str`."""
    return tuple([
        (name, value + b"; charset=utf-8" if _lacks_charset(name, value) else value)
        for name, value in headers
    ])  # fmt: skip


def _lacks_charset(name: bytes, value: bytes) -> bool:
    if name.lower() != b"content-type":
        return False
    kind = value.lower()
    # A stream of events is always UTF-8.
    is_text = kind.startswith(b"text/") and not kind.startswith(b"text/event-stream")
    return is_text and b"charset" not in kind


def _set_fields(response: Response, body: object, status: int, headers: Headers) -> None:
    set_field = object.__setattr__
    set_field(response, "body", body)
    set_field(response, "status", status)
    set_field(response, "headers", headers)


def _encode_body(body: object) -> tuple[bytes | FileBody | Stream, tuple[bytes, bytes] | None]:
    """Return *body* as a protocol sends it, and its usual Content-Type."""
    if isinstance(body, str):
        return body.encode(), HTML
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), HTML if body else None
    if isinstance(body, (dict, list)):
        return encode_json(body), JSON
    if isinstance(body, (FileBody, Stream)):
        return body, None
    if hasattr(body, "__aiter__") or hasattr(body, "__iter__"):
        return IterableStream(body), HTML
    raise TypeError(
        f"a response's body cannot be {type(body).__name__}: "
        "use str, bytes, dict, list or a generator"
    )


# JSON

_HELD: Final = (str, int, float, bool, type(None))
# What to write for a value whose class has that attribute. The first one counts.
_CONVERSIONS: Final = {
    "isoformat": "{}.isoformat()",
    "_value2member_map_": "{}.value",
    "model_dump": '{}.model_dump(mode="json")',
    "to_dict": "{}.to_dict()",
    "tolist": "{}.tolist()",
    "__dataclass_fields__": "dataclasses.asdict({})",
    "decode": "{}.decode()",
    "__float__": "float({})",
    "__iter__": "list({})",
}


def encode_json(value: dict[Any, Any] | list[Any]) -> bytes:
    """Return *value* as JSON.

    Raises:
        NotJSON: it holds what JSON cannot, with the place of that, and what to write instead.
    """
    import json  # many sites never need it

    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as exc:
        problem = next(_problems(value), f"{str(exc)[:1].lower()}{str(exc)[1:]}")
        raise NotJSON(problem) from None
    return text.encode()


def json_conversion(value: object, name: str) -> str:
    """Return an expression that makes what JSON can hold of *value*, which is called *name*."""
    if isinstance(value, float):
        return "None"
    found = [text for attribute, text in _CONVERSIONS.items() if hasattr(type(value), attribute)]
    return [*found, "str({})"][0].format(name)


def _problems(value: object) -> Iterator[str]:
    """Say what of *value* JSON cannot hold, and where. No code of what is described is called."""
    todo: list[tuple[object, str]] = [(value, "")]
    seen: set[int] = set()
    for each, place in todo:  # it grows
        if isinstance(each, dict | list | tuple):
            odd = [key for key, _ in _items(each) if not isinstance(key, _HELD)]
            if odd:
                kind = type(odd[0]).__name__
                yield f"it has keys of type {kind}: write str(key)"
            if id(each) not in seen:
                seen.add(id(each))
                todo += [(item, f"{place}[{key!r:.60}]") for key, item in _items(each)]
        elif not isinstance(each, _HELD) or (isinstance(each, float) and not math.isfinite(each)):
            kind = type(each).__name__
            what = f"{each}" if isinstance(each, float) else f"a value x of type {kind}"
            yield f"it has {what} at {place}: write {json_conversion(each, 'x')}"


def _items(container: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


# Streams

# Called with what the source of a stream raised, and whether the headers have been sent.
#
# Before that it returns the page to send instead. Afterwards it reports the failure, and may return
# the last piece to send before the body is broken off.
ErrorHandler = Callable[[BaseException, bool], Response | None]


class IterableStream(Stream):
    """The chunks of an iterable: text or bytes, sent as they come.

    Args:
        source: a generator, an async generator, or any other (async) iterable.
        first_chunk_timeout: seconds that the headers wait for the first chunk.

    Attributes:
        complete_headers: adds to the response the headers that the script set on its request.
        error_handler: what to do when the source fails.
    """

    def __init__(self, source: Any, *, first_chunk_timeout: float = FIRST_CHUNK_TIMEOUT) -> None:
        self.complete_headers: Callable[[Response], Response] = lambda response: response
        self.error_handler: ErrorHandler = lambda exc, headers_sent: None
        self.waits = isinstance(source, AsyncIterable)
        self._source = source
        self._first_chunk_timeout = first_chunk_timeout
        self._failure: BaseException | None = None
        self._started: Response | None = None
        self._taken = 0  # bytes of an async source
        self._is_text = False

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        """Start the source, and give the headers and the chunks to send. See `Stream`."""
        try:
            async with self._open_source() as chunks:
                first = await self._first_chunk(chunks)
                if self._failure is not None:
                    # The source's task cancels this one, and its exception comes out of the block.
                    await trio.sleep_forever()
                self._started = self._complete(response)
                yield StartedStream(self._started, _Chain(first, chunks), is_ready=bool(first))
                return
        except BaseException as exc:
            # What the sender raised (a reset, a cancellation) is no failure of the source.
            if self._failure is None:
                raise
            page = None
            if self._started is None:
                page = self.error_handler(unwrap_group(self._failure), False)
            if page is None:
                raise self._failure from (None if exc is self._failure else exc)
        yield StartedStream(page, _no_chunks())

    def _complete(self, response: Response) -> Response:
        response = self.complete_headers(response)
        if not self._is_text:
            return response
        return Response.trusted(response.body, response.status, say_utf8(response.headers))

    def _open_source(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if inspect.isasyncgen(self._source):
            return trio.as_safe_channel(self._encoded_chunks)()
        return aclosing(self._encoded_chunks())

    async def _first_chunk(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The first chunk; empty if the source ends before it, or takes too long."""
        if not inspect.isasyncgen(self._source):
            return await anext(chunks, b"")
        with trio.move_on_after(self._first_chunk_timeout):
            return await anext(chunks, b"")
        return b""

    async def _encoded_chunks(self) -> AsyncGenerator[bytes, None]:
        source = self._source
        try:
            if isinstance(source, AsyncIterable):
                async for item in source:
                    if chunk := self._encode(item):
                        self._taken += len(chunk)
                        yield chunk
            else:
                for item in source:
                    if chunk := item if type(item) is bytes else self._encode(item):
                        yield chunk
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as exc:
            self._failure = exc
            if self._started is not None and (piece := self._last_piece(exc, self._started)):
                yield piece
            raise
        finally:
            await _close_source(source)

    def _encode(self, item: object) -> bytes:
        if isinstance(item, str):
            self._is_text = True
        return _encode(item)

    def _last_piece(self, exc: BaseException, started: Response) -> bytes:
        """What to send after an unfinished page before it is broken off."""
        notice = self.error_handler(unwrap_group(exc), True)
        if notice is None or not isinstance(notice.body, bytes):
            return b""
        headers = {name.lower(): value for name, value in started.headers}
        is_html = headers.get(b"content-type", b"").startswith(b"text/html")
        return notice.body if is_html and b"content-encoding" not in headers else b""


class WriteStream(IterableStream):
    """What `request.write` was given, until `close`.

    A client that falls behind is given up: unlike a generator, whoever writes does not wait for it.
    What is written in one go has no limit, as the client had no chance to read it.
    """

    def __init__(self) -> None:
        self._send, receive = trio.open_memory_channel[bytes | _Failure](math.inf)
        super().__init__(receive, first_chunk_timeout=math.inf)
        self._written = 0
        self._sending: trio.CancelScope | None = None
        self._watched = False

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        """See `IterableStream`.

        Raises:
            ClientDisconnected: too much waited for the client.
        """
        with trio.CancelScope() as scope:
            self._sending = scope
            try:
                async with super().start(response) as started:
                    yield started
            finally:
                self._sending = None
        if scope.cancelled_caught:
            raise ClientDisconnected(
                "the client reads more slowly than the script writes, and more than "
                f"{MOST_WAITING // 2**20} MiB wait for it: it is given up"
            )

    def write(self, chunk: bytes) -> None:
        """Queue *chunk*. When the client has gone, or after `close`, nothing happens."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(chunk)
            self._written += len(chunk)
        if self.waiting > MOST_WAITING and self._sending is not None and not self._watched:
            self._watched = True
            trio.lowlevel.spawn_system_task(self._give_up_slow_client)

    @property
    def waiting(self) -> int:
        """How many bytes were written and not taken yet."""
        return self._written - self._taken

    async def _give_up_slow_client(self) -> None:
        waiting = self._written
        while self._sending is not None and self.waiting > MOST_WAITING:
            if self.waiting > waiting:
                self._sending.cancel()
            waiting = self.waiting
            await trio.sleep(FALLING_BEHIND)
        self._watched = False

    def close(self) -> None:
        """Say that the body is complete."""
        self._send.close()

    def fail(self, exc: BaseException) -> None:
        """Say that the body will never be complete: after what was written, *exc* is raised."""
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
    kind = type(item).__name__
    raise TypeError(f"a streaming page yields str or bytes, not {kind}: {item!r:.60}")


class _Chain:
    """The chunk *first*, unless it is empty, and then the others."""

    __slots__ = ("_first", "_others")

    def __init__(self, first: bytes, others: AsyncIterator[bytes]) -> None:
        self._first = first
        self._others = others

    def __aiter__(self) -> _Chain:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        # Each chunk of a stream comes by, so no coroutine is made for it.
        return self._take_first() if self._first else self._others.__anext__()

    async def _take_first(self) -> bytes:
        first, self._first = self._first, b""
        return first


async def _no_chunks() -> AsyncGenerator[bytes, None]:
    return
    yield b""


async def _close_source(source: Iterable[object] | AsyncIterable[object]) -> None:
    """Run a generator's ``finally`` now, not when it is garbage collected."""
    if inspect.isasyncgen(source) or isinstance(source, trio.abc.AsyncResource):
        await source.aclose()
    elif inspect.isgenerator(source):
        source.close()


@asynccontextmanager
async def start_body(response: Response) -> AsyncIterator[StartedStream]:
    """Give the chunks of any response, as a `StartedStream`.

    An `Upgrade` has no chunks.
    """
    body = response.body
    if isinstance(body, Stream):
        async with body.start(response) as started:
            if not isinstance(started.response.body, bytes):
                yield started
                return
        response, body = started.response, started.response.body
    try:
        async with aclosing(_complete_chunks(body)) as chunks:
            yield StartedStream(response, chunks)
    finally:
        if isinstance(body, FileBody):
            body.close()


async def _complete_chunks(body: bytes | FileBody | Upgrade) -> AsyncGenerator[bytes, None]:
    if isinstance(body, FileBody):
        for chunk in body.chunks():
            yield chunk
    elif isinstance(body, bytes):
        yield body
