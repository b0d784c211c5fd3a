"""One response on its way out: bytes, a file, or a stream, each framed by h11; or a change of protocol.

A small body goes out together with its head. A body that is broken off never looks whole: its framing stays
unfinished, or, where HTTP/1.0 has none, the connection is reset. While a stream is sent, a watch beside it
ends it when the client leaves. Whoever opens a file or a stream here closes it, however it ends. A stream of events
has no end of its own, so it can be ended between two of them.

A connection that another protocol has taken over, as a plain trio stream.

What the client sent before it knew that is read first. Sending has the time limit of the connection; how long the
client may be silent is the other protocol's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Final

import h11
import trio

from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.response import FileBody, Response, Stream, Upgrade
from rpyserve.protocol.response_headers import ResponseHeadCache
from rpyserve.protocol.transport import PIECE, Phase, Transport

__all__ = ["ABANDONED", "ResponseWriter", "UpgradedStream"]


class UpgradedStream(trio.abc.Stream):
    """The stream below *wire*, which nobody else reads or writes any more. Whoever has *wire* closes it."""

    def __init__(self, wire: Transport) -> None:
        self._wire = wire
        self._early = wire.guard.take_buffered()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what there is; see `trio.abc.ReceiveStream`."""
        if not self._early:
            return await self._wire.stream.receive_some(max_bytes or PIECE)
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._early)
        data, self._early = self._early[:size], self._early[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; see `trio.abc.SendStream`."""
        try:
            await self._wire.send(bytes(data))
        except ClientDisconnected:
            raise trio.BrokenResourceError("the client has gone") from None
        self._wire.enter(Phase.WORKING)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._wire.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._wire.stream.aclose()


ABANDONED: Final = 499
"""What stands for the status of a response that was never begun."""

_END: Final = h11.EndOfMessage()
_BODILESS: Final = frozenset({204, 304})
_EMPTY: Final = 205
"""A status whose body is empty, and is said to be (RFC 9110, section 15.3.6)."""


class ResponseWriter:
    """Sends one response, and knows how far it got.

    Args:
        wire: where to.
        heads: what makes heads.
        to_head: whether the request is a HEAD, whose answer has no body.

    Attributes:
        status: the status that was sent, or `ABANDONED`.
        begun: whether it is too late for another response.
        sent: how many bytes of body were sent, without framing.
        complete: whether all of it was.
    """

    __slots__ = (
        "_ended", "_heads", "_to_head", "_upgrade", "_waiting", "_wire", "started", "complete", "sent", "status"
    )  # fmt: skip

    def __init__(self, wire: Transport, heads: ResponseHeadCache, to_head: bool) -> None:
        self._wire = wire
        self._heads = heads
        self._to_head = to_head
        self.status = ABANDONED
        self.started = False
        self.sent = 0
        self.complete = False
        self._ended = False
        self._waiting: trio.CancelScope | None = None
        self._upgrade: Upgrade | None = None

    def end_events(self) -> None:
        """If it is a stream of events, or another protocol, let it end soon; any other response is left alone."""
        self._ended = True
        if self._upgrade is not None:
            self._upgrade.stop()
        if self._waiting is not None:
            self._waiting.cancel()

    def send(self, response: Response, reason: bytes, close: bool) -> Awaitable[None]:
        """Send *response*.

        Args:
            reason: the words beside the status; the usual ones if empty.
            close: whether it is the connection's last.

        Raises:
            Disconnected: the client went, and a stream was cancelled if there was one.
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
        """It ends here: see to it that it does not look whole."""
        version = self._wire.h11.their_http_version
        if self.started and not self.complete and version is not None and version < b"1.1":
            self._wire.reset()

    def _head(self, response: Response, reason: bytes, length: int | None, close: bool) -> bytes:
        if response.status in _BODILESS:
            length = None
        elif response.status == _EMPTY:
            length = 0
        event = self._heads.make(response.status, response.headers, reason, length, close)
        data = self._wire.h11.send(event)
        self.status = response.status
        self.started = True
        return data

    def _bodiless(self, response: Response) -> bool:
        return self._to_head or response.status in _BODILESS or response.status == _EMPTY

    async def _finish(self, data: bytes) -> None:
        data += self._wire.h11.send(_END)
        if data:
            await self._wire.send(data)
        self.complete = True

    async def _send_bytes(
        self, response: Response, body: bytes, reason: bytes, close: bool
    ) -> None:
        if not body or self._bodiless(response):
            await self._finish(self._head(response, reason, len(body), close))
            return
        heads, wire = self._heads, self._wire
        key = response.status, response.headers, reason, len(body), close
        data = heads.written(key) if wire.parser.bypassing_h11 else None
        if data is not None:
            # h11 wrote this head before, and need not hear of the whole cycle; see `asked.recall`.
            self.status, self.started = response.status, True
            data += body
        else:
            head = self._head(response, reason, len(body), close)
            data = head + wire.h11.send(h11.Data(data=body))
            wire.h11.send(_END)  # no bytes: the length says where the end is
            if wire.parser.may_go_on:
                heads.keep(key, head)
        await wire.send_whole(data)
        self.sent = len(body)
        self.complete = True

    async def _send_file(
        self, response: Response, body: FileBody, reason: bytes, close: bool
    ) -> None:
        try:
            chunks = body.chunks(PIECE)
            # The first read may fail, and another response is still possible then.
            chunk = b"" if self._bodiless(response) else next(chunks, b"")
            data = self._head(response, reason, body.length, close)
            if chunk:
                await self._wire.send(data + self._wire.h11.send(h11.Data(data=chunk)))
                self.sent, data = len(chunk), b""
                for part in body.rest(len(chunk)):
                    await self._send_part(body, part)
            await self._finish(data)
        finally:
            body.close()

    async def _send_part(self, body: FileBody, part: bytes | range) -> None:
        wire = self._wire
        # The length of a file is known, so h11 only counts, and any sized thing will do for that.
        wire.h11.send_with_data_passthrough(h11.Data(data=part))  # type: ignore[arg-type]
        if isinstance(part, range):
            part = part[await wire.send_file(body.file, part, self._note) :]
        for chunk in body.read(part, PIECE):
            await wire.send(chunk)
            self._note(len(chunk))

    def _note(self, count: int) -> None:
        self.sent += count

    async def _switch(self, response: Response, upgrade: Upgrade) -> None:
        self._upgrade = upgrade
        if self._ended:
            upgrade.stop()
        data = self._wire.h11.send(self._heads.switching(response.headers))
        self.status = response.status
        self.started = True
        await self._send_chunk(data)
        await upgrade.run(UpgradedStream(self._wire))
        self.complete = True

    async def _send_watched(self, response: Response, reason: bytes, close: bool) -> None:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await self._send_stream(response, reason, close)
            except Exception as exc:
                failure = exc  # raised below, so that the nursery does not wrap it into a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not self.complete:
            raise ClientDisconnected

    async def _watch(self, scope: trio.CancelScope) -> None:
        await self._wire.wait_client_left()
        scope.cancel()

    async def _send_stream(self, response: Response, reason: bytes, close: bool) -> None:
        assert not isinstance(response.body, (bytes, FileBody, Upgrade))
        async with response.body.opened(response) as opened:
            head: Response = opened.response
            if isinstance(head.body, bytes):
                await self._send_bytes(head, head.body, b"", close)
                return
            length = head.body.length if isinstance(head.body, Stream) else None
            data = self._head(head, reason, length, close)
            if not self._bodiless(head):
                await self._send_chunk(data)
                data = b""
                following = self._next_event if _has_events(head) else _next
                while chunk := await following(opened.chunks):
                    await self._send_chunk(self._wire.h11.send(h11.Data(data=chunk)))
                    self.sent += len(chunk)
            elif data:
                await self._send_chunk(data)
                data = b""
        await self._finish(data)

    async def _next_event(self, chunks: AsyncIterator[bytes]) -> bytes:
        # Only the wait is cancelled: a chunk that is half on its way goes out whole.
        with trio.CancelScope() as self._waiting:
            if not self._ended:
                return await _next(chunks)
        return b""

    async def _send_chunk(self, data: bytes) -> None:
        await self._wire.send(data)
        self._wire.enter(Phase.WORKING)


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next chunk, of which none is empty; nothing at the end."""
    return await anext(chunks, b"")


def _has_events(response: Response) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in response.headers
    )
