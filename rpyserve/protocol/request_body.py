"""The body of one request, as chunks that come in.

A body that is cut short, stalls, is malformed or too long never looks whole: its iterator raises,
and goes on raising. Of a body that nobody reads, what is left is thrown away if it is little; else
the connection must end, and `RequestBody.can_keep_alive` says so before the head of the response is
made. An interim 100 goes out when the body is first asked for (RFC 9110, section 10.1.1).
"""

from __future__ import annotations

from typing import Final

import h11
import trio

from rpyserve.http.errors import BadRequest, ClientDisconnected, HTTPError
from rpyserve.http.forms import SPOOL_SIZE
from rpyserve.http.request import BODY_START, MOST_OF_REQUEST
from rpyserve.protocol.chunked import ChunkedDecoder
from rpyserve.protocol.grammar import CHUNKED, RequestHead, too_large
from rpyserve.protocol.request_reader import ReceiveBuffer
from rpyserve.protocol.server_state import Limits
from rpyserve.protocol.transport import Transport

_CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


class ContentLengthDecoder:
    """Takes a body of a known length from the buffer; the counterpart of `ChunkedDecoder`.

    Args:
        buffer: the bytes that have come.
        length: how many bytes the body has.
    """

    refusal: BadRequest | None = None

    def __init__(self, buffer: ReceiveBuffer, length: int) -> None:
        self._buffer = buffer
        self._left = length

    @property
    def done(self) -> bool:
        """Whether the body is over."""
        return not self._left

    def take(self) -> bytes:
        """Take what has come of it; empty if there is nothing."""
        piece = self._buffer.take(self._left)
        self._left -= len(piece)
        return piece


def body_decoder(
    head: RequestHead, buffer: ReceiveBuffer, limits: Limits
) -> ChunkedDecoder | ContentLengthDecoder:
    """Return what takes the body after *head* from *buffer*."""
    if head.body_length == CHUNKED:
        return ChunkedDecoder(buffer, limits)
    return ContentLengthDecoder(buffer, head.body_length)


class RequestBody:
    """An async iterator of `bytes`.

    Args:
        transport: what it comes from.
        head: the head of its request.

    Attributes:
        done: whether its end has been read.
        received: how many bytes of it have been read.
        kept: its beginning, in pieces, if somebody wants that.

    Raises, out of the iterator:
        HTTPError: 413, longer than the limits allow; 408, nothing came for too long; 400 or 431,
            malformed chunks or trailers.
        ClientDisconnected: it was cut off, or its request is over.
    """

    def __init__(self, transport: Transport, head: RequestHead) -> None:
        self._transport = transport
        self._buffer = transport.reader.buffer
        self._length = head.body_length
        self._decoder = body_decoder(head, self._buffer, transport.limits)
        self._client_waits = head.expects_continue
        self.received = 0
        self.kept: list[bytes] | None = None
        self._waited = 0.0  # seconds that went by while more was needed
        self._in_file = False  # as whoever reads so much of it has it, most likely
        self.done = False
        self._failure: tuple[int, str] | None = None
        self._cut = False

    def __aiter__(self) -> RequestBody:
        return self

    async def __anext__(self) -> bytes:
        if self.received and self._buffer:
            # There are more chunks than are taken at once, and others must have their turn.
            await trio.lowlevel.checkpoint()
        self._check()
        while (chunk := self._take_checked()) is None:
            await self._send_continue()
            await self._wait_more()
            self._check()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def can_keep_alive(self, discard: bool) -> bool:
        """Whether another request can follow: what is left of the body has come, or is little.

        Args:
            discard: whether nobody will read it any more; a stream might, while it is sent.
        """
        if self.done:
            return True
        if self._failure is not None or self._cut or self._client_waits:
            return False
        little = self.received + self._transport.limits.read_ahead
        try:
            while discard and self.received <= little and self._take_checked():
                pass
        except (HTTPError, ClientDisconnected):
            return False
        return self.done or (self._length != CHUNKED and self._length <= little)

    async def drain(self) -> bool:
        """Read what is left, which is little. Returns whether the end was reached."""
        try:
            while not self.done:
                if self._take() is None:
                    await self._transport.receive_more()
        except (HTTPError, ClientDisconnected):
            return False
        return True

    def close(self) -> None:
        """The request is over: whoever goes on reading must not get the next one's bytes."""
        self._cut = True
        if self._in_file:
            self._in_file = False
            self._transport.shutdown.release_file()

    def _check(self) -> None:
        """Raise what has ended this body before its end."""
        limits = self._transport.limits
        if self._failure is None and max(self._length, self.received) > limits.body:
            self._failure = 413, too_large(limits)
        if self._failure is not None:
            raise HTTPError(*self._failure)
        if self._cut:
            raise ClientDisconnected

    def _take_checked(self) -> bytes | None:
        chunk = self._take()
        if chunk:
            self.received += len(chunk)
            if self.kept is not None:
                self._keep(chunk)
            self._check()
            if self.received > SPOOL_SIZE and not self._in_file:
                self._in_file = True
                self._transport.shutdown.hold_file()
        return chunk

    def _keep(self, chunk: bytes) -> None:
        assert self.kept is not None
        if self.received <= MOST_OF_REQUEST:
            self.kept.append(chunk)
        elif self.received - len(chunk) <= MOST_OF_REQUEST:  # it has just become too long
            self.kept = [b"".join([*self.kept, chunk])[:BODY_START]]

    def _take(self) -> bytes | None:
        """Take what is there; empty at the end of the body, None if more must come first."""
        if self.done:
            return b""
        chunk = self._decoder.take()
        if chunk:
            self._client_waits = False
            return chunk
        if self._decoder.refusal is not None:
            self._failure = self._decoder.refusal.status, self._decoder.refusal.text
            raise HTTPError(*self._failure)
        if self._decoder.done:
            self.done = True
            return b""
        if self._buffer.ended:
            self._cut = True
            raise ClientDisconnected
        return None

    async def _send_continue(self) -> None:
        """Have a client that waits for a 100 send its body."""
        transport = self._transport
        if not self._client_waits or transport.cycle.h11.our_state is not h11.SEND_RESPONSE:
            return
        self._client_waits = False
        phase = transport.phase
        try:
            await transport.send(transport.cycle.h11.send(_CONTINUE))
        finally:
            transport.enter(phase)

    async def _wait_more(self) -> None:
        transport, limits = self._transport, self._transport.limits
        began = transport.body_since = trio.current_time()
        earned = limits.body_grace + self.received / limits.body_rate
        seconds_left = min(limits.body_stall, max(0, earned - self._waited))
        try:
            with trio.move_on_after(seconds_left) as scope:
                await transport.receive_more()
        except ClientDisconnected:
            self._cut = True
            raise
        finally:
            transport.body_since = None
            self._waited += trio.current_time() - began
        if not scope.cancelled_caught:
            return
        if seconds_left < limits.body_stall:
            text = f"fewer than {limits.body_rate:,} bytes a second"
        else:
            text = f"no byte for {limits.body_stall:g} seconds"
        self._failure = 408, f"The request's body came too slowly: {text}."
