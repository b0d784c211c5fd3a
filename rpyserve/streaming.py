"""Bodies that are made while they are sent: generators, async generators, and what `request.write` gives.

A stream is entered in the task that sends it. Its head is settled only when the first chunk is there, or after
`PATIENCE` seconds, because a generator's first step may still open a session, set a header or fail; a failure
until then becomes a page of its own. An async generator runs in a task of its own, so that nurseries and
time-outs around its ``yield`` are sound (`trio.as_safe_channel`). Nothing here knows of sockets or sites.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import trio

from rpyserve.errors import unwrap
from rpyserve.response import FileBody, Opened, Response, Stream, Upgrade

__all__ = ["PATIENCE", "IterStream", "Pipe", "opened"]

PATIENCE: Final = 0.5
"""Seconds that a head waits for the first chunk of an async generator."""


class IterStream(Stream):
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
    async def opened(self, response: Response) -> AsyncIterator[Opened]:
        """Start the source, and give the head and the chunks to send. See `Stream`."""
        try:
            async with self._started() as chunks:
                first = await self._first(chunks)
                if self._failure is not None:
                    await trio.sleep_forever()  # the failed task cancels this one, and its exception comes out below
                self._begun = head = self.settle(response)
                yield Opened(head, _Chunks(first, chunks))
        except BaseException as exc:
            # What the one who sends raised (a reset, a cancellation) is none of the stream's business.
            if self._failure is None:
                raise
            page = self.rescue(unwrap(self._failure), False) if self._begun is None else None
            if page is None:
                raise self._failure from None if exc is self._failure else exc
        else:
            return
        yield Opened(page, _Chunks(b"", None))

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
        said = self.rescue(unwrap(exc), True)
        names = dict((name.lower(), value) for name, value in head.headers)
        is_page = names.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in names
        return said.body if said is not None and is_page and isinstance(said.body, bytes) else b""


class Pipe(IterStream):
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
    raise TypeError(f"a streaming page yields str or bytes, not {type(item).__name__}: {item!r:.60}")


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
async def opened(response: Response) -> AsyncIterator[Opened]:
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
        async with aclosing(_each(body.chunks() if isinstance(body, FileBody) else _only(body))) as chunks:
            yield Opened(response, chunks)
    finally:
        if isinstance(body, FileBody):
            body.close()


def _only(body: bytes | Upgrade) -> Iterable[bytes]:
    """What else a protocol could send; after an upgrade that is nothing."""
    return () if isinstance(body, Upgrade) else (body,)


async def _each(chunks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk
