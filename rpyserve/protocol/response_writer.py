"""One response on its way out: bytes, a file, or a stream; or a change of protocol.

A small body goes out together with its head, and so does the first chunk of a stream. A body that
is broken off never looks whole: its framing stays unfinished, or, where HTTP/1.0 has none, the
connection is reset. While a stream waits, a task beside it ends it when the client leaves. Whoever
opens a file or a stream here closes it, however it ends. A stream of events has no end of its own,
so it can be ended between two of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import h11
import trio

from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.request import ABANDONED, RequestRecord, beginning_of
from rpyserve.http.response import (
    ChunkIterator,
    FileBody,
    Response,
    StartedStream,
    Stream,
    Upgrade,
)
from rpyserve.protocol.response_headers import ResponseHead, ResponseHeadCache
from rpyserve.protocol.transport import PIECE, Phase, Transport

# Seconds that a stream may send what the system takes at once before other tasks have their turn.
STREAM_TURN: Final = 0.001

_END: Final = h11.EndOfMessage()
# The end of a chunked body (RFC 9112, section 7.1).
_LAST_CHUNK: Final = b"0\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})
# A status whose body is empty, and is said to be (RFC 9110, section 15.3.6).
_EMPTY: Final = 205


class ResponseWriter:
    """Sends one response, and knows how far it got.

    Args:
        transport: where to send.
        heads: makes the heads of responses.
        record: that of the request; says what was sent. The response to a HEAD has no body.
        http_version: the request's.

    Attributes:
        record: that of the request.
        upgrade: the other protocol that has taken over the connection, if one has.
    """

    __slots__ = (
        "_event_wait",
        "_events_ended",
        "_has_events",
        "_heads",
        "_is_chunked",
        "_is_http_10",
        "_new_head",
        "_start_watch",
        "_to_head",
        "_transport",
        "_turn_ends",
        "record",
        "upgrade",
    )

    def __init__(
        self,
        transport: Transport,
        heads: ResponseHeadCache,
        record: RequestRecord,
        http_version: str = "1.1",
    ) -> None:
        self.record = record
        self._transport = transport
        self._heads = heads
        self._to_head = record.method == "HEAD"
        self._is_http_10 = http_version == "1.0"
        self._is_chunked = False
        # The head of a chunked body, and what h11 has just written of it.
        self._new_head: tuple[ResponseHead, bytes] | None = None
        # Has the client watched by a task, as soon as this one waits.
        self._start_watch: Callable[[], object] | None = None
        self._turn_ends = 0.0
        self._events_ended = False
        self._has_events = False
        self._event_wait: trio.CancelScope | None = None
        self.upgrade: Upgrade | None = None

    @property
    def started(self) -> bool:
        """Whether it is too late for another response."""
        return self.record.status != ABANDONED

    def end_events(self) -> None:
        """Let a stream of events, or another protocol, end soon; other responses go on."""
        self._events_ended = True
        if self.upgrade is not None:
            self.upgrade.stop()
        if self._event_wait is not None:
            self._event_wait.cancel()

    def send(self, response: Response, reason: bytes, close: bool) -> Awaitable[None]:
        """Send *response*.

        Args:
            response: what to send.
            reason: the words beside the status; the usual ones if empty.
            close: whether it is the connection's last.

        Raises:
            ClientDisconnected: the client went, and a stream was cancelled if there was one.
            Exception: what a file or a stream raised.
        """
        body = response.body
        if isinstance(body, bytes):
            return self._send_bytes(response, body, reason, close)
        if isinstance(body, FileBody):
            return self._send_file(response, body, reason, close)
        if isinstance(body, Upgrade):
            return self._switch(response, body)
        return self._send_watched(response, reason, close)

    def abandon(self) -> None:
        """The response ends here: see to it that it does not look whole."""
        record = self.record
        record.response_start = beginning_of(record.response_start, len(record.response_start))
        if self.started and not record.complete and self._is_http_10:
            self._transport.reset()

    # Heads and ends

    def _frame_head(
        self, response: Response, reason: bytes, length: int | None, close: bool
    ) -> bytes:
        status = response.status
        if status in _BODILESS:
            length = None
        elif status == _EMPTY:
            length = 0
        head = self._heads.get(status, response.headers, reason, length, close)
        self.record.status, self.record.response_head = status, head
        cycle = self._transport.cycle
        if self._is_chunked and head.written is not None and cycle.can_bypass_h11:
            return self._with_own_lines(head.written)
        data = cycle.h11.send(head.event)
        if self._is_chunked:
            self._new_head = head, data
        return self._with_own_lines(data)

    def _with_own_lines(self, head: bytes) -> bytes:
        """Return *head* with the lines that only this response has, so that heads can be kept."""
        request = self.record.request
        if request is None or not request._own_lines:
            return head
        own = request._own_lines
        if b"\r\n" + own[: own.index(b":") + 1].lower() in head.lower():
            return head  # what a script says itself is left alone
        return head[:-2] + own + head[-2:]

    def _frame(self, chunk: bytes) -> Sequence[bytes]:
        if self._is_chunked and chunk:  # h11 does not count the bytes of chunks
            return b"%x\r\n" % len(chunk), chunk, b"\r\n"
        return self._transport.cycle.h11.send_with_data_passthrough(h11.Data(data=chunk)) or ()

    def _is_bodiless(self, response: Response) -> bool:
        return self._to_head or response.status in _BODILESS or response.status == _EMPTY

    async def _finish(self, data: bytes) -> None:
        data += self._frame_end()
        taken = self._transport.send_nowait(data) if data else 0
        if taken < len(data):
            await self._transport.send(data[taken:])
        self.record.complete = True

    def _frame_end(self) -> bytes:
        cycle = self._transport.cycle
        if self._is_chunked and cycle.can_bypass_h11:
            return _LAST_CHUNK
        data: bytes = cycle.h11.send(_END)
        if self._new_head is not None and cycle.keep_alive:
            head, written = self._new_head
            head.written = written
        return data

    # Bytes and files

    async def _send_bytes(
        self, response: Response, body: bytes, reason: bytes, close: bool
    ) -> None:
        if not body or self._is_bodiless(response):
            await self._finish(self._frame_head(response, reason, len(body), close))
            return
        transport, cycle = self._transport, self._transport.cycle
        head = self._heads.get(response.status, response.headers, reason, len(body), close)
        if head.written is not None and cycle.can_bypass_h11:
            data = self._with_own_lines(head.written) + body
        else:
            written = cycle.h11.send(head.event)
            data = b"".join([self._with_own_lines(written), *self._frame(body)])
            cycle.h11.send(_END)  # no bytes: the length says where the end is
            if cycle.keep_alive:
                head.written = written
        record = self.record
        record.status, record.response_head = response.status, head
        record.response_start = body
        # What the system takes at once needs no turn of the loop: the wait for the next request is
        # one.
        taken = transport.send_nowait(data)
        if taken < len(data):
            record.send_began = self._transport.now()
            await transport.send(data[taken:])
        record.sent = len(body)
        record.complete = True

    async def _send_file(
        self, response: Response, body: FileBody, reason: bytes, close: bool
    ) -> None:
        self._transport.shutdown.hold_file()
        self.record.send_began = self._transport.now()
        try:
            chunks = body.chunks(PIECE)
            # The first read may fail, and another response is still possible then.
            chunk = b"" if self._is_bodiless(response) else next(chunks, b"")
            data = self._frame_head(response, reason, body.length, close)
            if chunk:
                self.record.response_start = beginning_of(chunk, body.length)
                await self._transport.send(b"".join([data, *self._frame(chunk)]))
                self.record.sent, data = len(chunk), b""
                for part in body.parts_after(len(chunk)):
                    await self._send_part(body, part)
            await self._finish(data)
        finally:
            body.close()
            self._transport.shutdown.release_file()

    async def _send_part(self, body: FileBody, part: bytes | range) -> None:
        transport = self._transport
        # The length of a file is known, so h11 only counts, and any sized thing will do for that.
        machine = transport.cycle.h11
        machine.send_with_data_passthrough(h11.Data(data=part))  # type: ignore[arg-type]
        if isinstance(part, range):
            part = part[await transport.send_file(body.file, part, self._note_sent) :]
        for chunk in body.read_part(part, PIECE):
            await transport.send(chunk)
            self._note_sent(len(chunk))

    def _note_sent(self, count: int) -> None:
        self.record.sent += count

    # Streams

    async def _send_watched(self, response: Response, reason: bytes, close: bool) -> None:
        assert isinstance(response.body, Stream)
        failure: Exception | None = None
        self.record.send_began = self._transport.now()
        self._transport.enter(Phase.STREAMING)
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            self._start_watch = partial(nursery.start_soon, self._cancel_on_disconnect, scope)
            if response.body.waits:
                self._begin_watch()
            try:
                await self._send_stream(response, reason, close)
            except Exception as exc:
                failure = exc  # raised below, so that the nursery does not wrap it into a group
            if self._start_watch is None:
                scope.cancel()
        if failure is None and not self.record.complete:
            failure = ClientDisconnected()
        if isinstance(failure, ClientDisconnected) and not failure.args:
            # Events have no end but the one that the client makes.
            self.record.complete = self._has_events
        if failure is not None:
            raise failure

    def _begin_watch(self) -> None:
        if self._start_watch is not None:
            self._start_watch()
            self._start_watch = None

    async def _cancel_on_disconnect(self, scope: trio.CancelScope) -> None:
        await self._transport.wait_client_left()
        scope.cancel()

    async def _send_stream(self, response: Response, reason: bytes, close: bool) -> None:
        assert not isinstance(response.body, (bytes, FileBody, Upgrade))
        async with response.body.start(response) as started:
            head = started.response
            if isinstance(head.body, bytes):  # it failed before it began: this is the page for that
                await self._send_bytes(head, head.body, b"", close)
                return
            length = head.body.length if isinstance(head.body, Stream) else None
            if head.status != response.status:
                reason = head.body.reason if isinstance(head.body, Stream) else b""
            if self._is_bodiless(head):
                await self._send_rest(self._frame_head(head, reason, length, close))
            else:
                # RFC 9112, section 6.1: HTTP/1.0 has no chunks, the end of the connection ends it.
                self._is_chunked = length is None and not self._is_http_10
                data = self._frame_head(head, reason, length, close)
                await self._send_begun(started, data)
        await self._finish(b"")

    async def _send_begun(self, started: StartedStream, head: bytes) -> None:
        """Send the framed *head* and the chunks; the first together with it, if that is there."""
        chunks = started.chunks
        self._turn_ends = time.monotonic() + STREAM_TURN
        self._has_events = _has_events(started.response)
        if self._has_events:
            chunks = ChunkIterator(partial(self._wait_next_event, chunks))
        if self._has_events or not started.is_ready:
            await self._send_rest(head)
            head = b""
        request = self.record.request
        observer = None if request is None else request._observer
        async for chunk in chunks:
            if observer is not None:
                observer.note_chunk(chunk)
            parts = self._frame(chunk)
            if head:
                parts, head = (head, *parts), b""
            # It goes out before the next is asked for. A turn of the loop for each would cost more
            # than the chunk, and nobody can cancel this task before there is one.
            rest = self._transport.send_parts_nowait(parts)
            if rest or time.monotonic() >= self._turn_ends:
                await self._send_rest(rest)
            self.record.sent += len(chunk)

    async def _wait_next_event(self, chunks: AsyncIterator[bytes]) -> bytes:
        # Only the wait is cancelled: a chunk that is half on its way goes out whole.
        with trio.CancelScope() as self._event_wait:
            if not self._events_ended:
                return await anext(chunks, b"")
        return b""

    async def _send_rest(self, data: bytes) -> None:
        self._begin_watch()
        await self._transport.send(data)  # a turn of the loop even if that is nothing
        self._transport.enter(Phase.STREAMING)
        self._turn_ends = time.monotonic() + STREAM_TURN

    # Another protocol

    async def _switch(self, response: Response, upgrade: Upgrade) -> None:
        head = self._heads.switching(response.headers)
        data = self._with_own_lines(self._transport.cycle.h11.send(head.event))
        self.record.status, self.record.response_head = response.status, head
        self.record.send_began = self._transport.now()
        self.upgrade = upgrade
        if self._events_ended:
            upgrade.stop()
        await self._transport.send(data)
        self._transport.enter(Phase.UPGRADED)
        await upgrade.run(UpgradedStream(self._transport))
        self.record.complete = True


class UpgradedStream(trio.abc.Stream):
    """The stream below *transport*, taken over by another protocol, which does not close it.

    What the client sent before it knew of the change is read first. Sending has the time limit of
    the connection; how long the client may be silent is the other protocol's business.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        buffer = transport.reader.buffer
        self._early = buffer.take(len(buffer))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        transport = self._transport
        if not self._early:
            data = await transport.stream.receive_some(max_bytes or PIECE)
            if transport.phase is Phase.UPGRADED:
                transport.enter(Phase.UPGRADED)  # the silence begins anew
            return data
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._early)
        data, self._early = self._early[:size], self._early[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._transport.send(bytes(data))
        except ClientDisconnected:
            raise trio.BrokenResourceError("the client has gone") from None
        self._transport.enter(Phase.UPGRADED)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._transport.stream.aclose()


def _has_events(response: Response) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in response.headers
    )
