"""The body of one request, as chunks that come in.

A body that is cut short, stalls, is malformed or too long never looks whole: its iterator raises, and goes on
raising. What nobody wanted is thrown away if it is little; else the connection must end, and `RequestBody.can_keep_alive` says
so before the response's head is made. An interim 100 goes out when the body is first asked for (RFC 9110, 10.1.1).
"""

from __future__ import annotations

from typing import Final

import h11
import trio

from rpyserve.http.errors import BadRequest, ClientDisconnected, HTTPError
from rpyserve.protocol.grammar import CHUNKED, too_large
from rpyserve.protocol.transport import Phase, Transport

__all__ = ["RequestBody"]

_CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


class RequestBody:
    """An async iterator of `bytes`.

    Args:
        wire: where it comes from.
        length: how many bytes it has, or `CHUNKED`.

    Raises, out of the iterator:
        HTTPError: 413, longer than the limits allow; 408, nothing came for too long; 400 or 431, malformed chunks
            or trailers.
        Disconnected: it was cut off, or its request is over.
    """

    def __init__(self, wire: Transport, length: int) -> None:
        self._wire = wire
        self._length = length
        self._received = 0
        self._done = False
        self._failure: tuple[int, str] | None = None
        self._cut = False

    def __aiter__(self) -> RequestBody:
        return self

    async def __anext__(self) -> bytes:
        self._check()
        while (chunk := self._take()) is None:
            await self._send_continue()
            await self._wait()
            self._check()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _send_continue(self) -> None:
        """Have a client that waits for it send its body. Never needed where a byte of it has come."""
        wire = self._wire
        if wire.h11.they_are_waiting_for_100_continue:
            try:
                await wire.send(wire.h11.send(_CONTINUE))
            finally:
                wire.enter(Phase.WORKING)

    def _check(self) -> None:
        """Raise what has ended this body before its end."""
        if self._failure is None and max(self._length, self._received) > self._wire.limits.body:
            self._failure = 413, too_large(self._wire.limits)
        if self._failure is not None:
            raise HTTPError(*self._failure)
        if self._cut:
            raise ClientDisconnected

    async def _wait(self) -> None:
        stall = self._wire.limits.body_stall
        try:
            with trio.move_on_after(stall) as scope:
                await self._wire.receive_more()
        except ClientDisconnected:
            self._cut = True
            raise
        if scope.cancelled_caught:
            self._failure = 408, f"No byte of the request's body came for {stall:g} seconds."

    def _take(self) -> bytes | None:
        """The next chunk that is there; empty at the end, None if one must wait."""
        event = None if self._done else self._next_event()
        if isinstance(event, h11.Data):
            self._received += len(event.data)
            self._check()
            return bytes(event.data)
        self._done = self._done or isinstance(event, h11.EndOfMessage)
        return b"" if self._done else None

    def _next_event(self) -> object:
        try:
            return self._wire.event()
        except ClientDisconnected:
            self._cut = True
            raise
        except BadRequest as refusal:
            self._failure = refusal.status, refusal.text
            raise HTTPError(*self._failure) from None

    @property
    def done(self) -> bool:
        """Whether its end has been read."""
        return self._done

    def can_keep_alive(self, discard: bool) -> bool:
        """Whether the connection can have another request: what is left of this body is there already, or little.

        Args:
            discard: whether nobody will read it any more; a stream might, while it is sent.
        """
        if self._done:
            return True
        if (
            self._failure is not None
            or self._cut
            or self._wire.h11.they_are_waiting_for_100_continue
        ):
            return False
        little = self._received + self._wire.limits.read_ahead
        try:
            while discard and self._received <= little and self._take():
                pass
        except (HTTPError, ClientDisconnected):
            return False
        return self._done or (self._length != CHUNKED and self._length <= little)

    async def drain(self) -> bool:
        """Read what is left, of which `may_stay` said that it is little. Returns whether its end was reached."""
        try:
            while not self._done:
                event = self._next_event()
                self._done = isinstance(event, h11.EndOfMessage)
                if event is h11.NEED_DATA:
                    await self._wire.receive_more()
        except (HTTPError, ClientDisconnected):
            return False
        return True

    def close(self) -> None:
        """The request is over: whoever goes on reading must not get the next one's bytes."""
        self._cut = True
