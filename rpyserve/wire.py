"""The two ends of one connection's bytes: a trio stream and h11, joined by whoever waits first.

Whoever waits for bytes (the next head, a body, the watch for a client that leaves), all that comes is fed to h11 by
`Wire.more`: one reader at a time, nothing is ever dropped. The stream's own errors are translated here, once, into
`Disconnected`. Each phase has a time limit, kept by `patience`. Nothing here knows of responses.
"""

from __future__ import annotations

import enum
import math
import os
import re
import socket
import struct
from contextlib import suppress
from typing import Final

import h11
import trio

from rpyserve.errors import Disconnected
from rpyserve.exchange import Limits
from rpyserve.heads import Refusal, check_size, too_long
from rpyserve.patience import TICK

__all__ = ["Phase", "Wire"]

PIECE: Final = 64 * 1024
"""How many bytes are received or sent at once."""

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_MALFORMED: Final = "The request is malformed."
_REFUSALS: Final = {501: "The one transfer coding that this server knows is chunked."}
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER's value for a connection that ends with a reset."""


class Phase(enum.Enum):
    """What a connection is at; each has a time limit of its own."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    WORKING = enum.auto()
    SENDING = enum.auto()
    DRAINING = enum.auto()
    LINGERING = enum.auto()


class Wire:
    """One connection.

    Args:
        stream: any trio stream; it is closed by `close`.
        limits: see `Limits`.

    Attributes:
        h11: the state machine; a new one may take its place between two requests.
        scope: what is cancelled when a phase takes too long, and
        due: when that is, in trio's time; see `patience`.
        phase: what the connection is at.
        ended: whether the client has closed its side, or reset the connection.
    """

    def __init__(self, stream: trio.abc.Stream, limits: Limits) -> None:
        self.stream = stream
        self.limits = limits
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)
        self.scope = trio.CancelScope()
        self.due = math.inf
        self.phase = Phase.IDLE
        self.ended = False
        self._broken = False
        self._reading = False
        self._others = trio.lowlevel.ParkingLot()
        self._begun = False  # a byte of the next head is there
        self._held = b""  # half an empty line before a head
        self._fed = 0  # bytes that h11 got since it last had none to spare
        self._seconds = {
            Phase.IDLE: limits.idle,
            Phase.HEAD: limits.head_time,
            Phase.SENDING: limits.write_stall,
            Phase.DRAINING: limits.body_stall,
            Phase.LINGERING: limits.linger,
        }

        self.tick = min(TICK, min(self._seconds.values()) / 8)

    def enter(self, phase: Phase) -> None:
        """Begin *phase*, and its time."""
        self.phase = phase
        self.due = math.inf if phase is Phase.WORKING else trio.current_time() + self._seconds[phase]

    # What comes in

    async def more(self) -> None:
        """Wait until h11 has more bytes than before, or there will be none.

        Raises:
            Disconnected: the connection is broken, or had ended before.
        """
        if self._reading:
            await self._others.park()
            return
        if self.ended:
            raise Disconnected
        self._reading = True
        try:
            data = await self.stream.receive_some(PIECE)
        except _GONE:
            self._broken = True
            self._feed(b"")
            raise Disconnected from None
        finally:
            self._reading = False
            if self._others:
                self._others.unpark_all()
        self._feed(data)

    def _feed(self, data: bytes | bytearray) -> None:
        """Give *data* to h11: the one place where bytes reach it, so the place for a filter in front of it."""
        if not data:
            self.ended = True
        elif not self._begun:
            data = self._without_empty_lines(data)
            if not data:
                return
            self._begun = True
        self._fed += len(data)
        self.h11.receive_data(bytes(data))

    def _without_empty_lines(self, data: bytes | bytearray) -> bytes | bytearray:
        """Drop empty lines before a request line (RFC 9112, section 2.2), which h11 takes for a broken one."""
        if self._held:
            data, self._held = self._held + data, b""
        if found := _EMPTY_LINES.match(data):
            data = data[found.end() :]
        if data == b"\r":
            data, self._held = b"", b"\r"
        return data

    async def head(self) -> h11.Request | None:
        """Wait for the next request's head; None if the client closes the connection instead.

        Raises:
            Refusal: what came is no head, or too long.
            Disconnected: the connection is broken.
        """
        while True:
            event = self._next_head()
            if isinstance(event, h11.Request):
                return event
            if isinstance(event, h11.ConnectionClosed):
                return None
            if self._begun and self.phase is Phase.IDLE:
                self.enter(Phase.HEAD)
            await self.more()

    def _next_head(self) -> object:
        try:
            event = self.h11.next_event()
        except h11.RemoteProtocolError as exc:
            if exc.error_status_hint == 431:
                raise too_long(self.h11.trailing_data[0], self.limits) from None
            raise Refusal(exc.error_status_hint, _REFUSALS.get(exc.error_status_hint, _MALFORMED)) from None
        if self._fed > self.limits.line:
            if isinstance(event, h11.Request):
                check_size(event, self.limits)
            elif b"\n" not in self.h11.trailing_data[0][: self.limits.line]:
                raise too_long(b"", self.limits)
        return event

    def next_cycle(self) -> None:
        """Make ready for the next request, of which bytes may be there."""
        self.h11.start_next_cycle()
        left, closed = self.h11.trailing_data
        self._fed = len(left)
        self._begun = bool(left)
        if left.startswith(b"\r"):
            self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.head)
            self._fed, self._begun = 0, False
            self._feed(left)
            if closed:
                self._feed(b"")

    async def client_left(self) -> None:
        """Return when the client has gone: it reset the connection, or closed its side a little while ago.

        Reads ahead, so that it can be seen; what is read is the next request's.
        """
        while not self.ended:
            if self._full():
                await self._others.park()
                continue
            with suppress(Disconnected):
                await self.more()
        await trio.sleep(0 if self._broken else self.limits.half_close)

    def _full(self) -> bool:
        limit = self.limits.read_ahead
        if self._fed >= limit:
            self._fed = len(self.h11.trailing_data[0])  # the count forgets what h11 has taken out
        return self._fed >= limit

    # What goes out

    async def send(self, data: bytes) -> None:
        """Send *data*, with a time limit for every piece of it.

        Raises:
            Disconnected: the connection is broken.
        """
        try:
            if len(data) <= PIECE:
                self.enter(Phase.SENDING)
                await self.stream.send_all(data)
                return
            with memoryview(data) as view:
                for start in range(0, len(data), PIECE):
                    self.enter(Phase.SENDING)
                    await self.stream.send_all(view[start : start + PIECE])
        except _GONE:
            raise Disconnected from None

    async def linger(self) -> None:
        """Say that no more will come, and read on a little, so that a reset does not eat what was sent last."""
        self.enter(Phase.LINGERING)
        left = self.limits.linger_size
        with suppress(*_GONE):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            while left > 0 and (data := await self.stream.receive_some(PIECE)):
                left -= len(data)

    def reset(self) -> None:
        """Have the end look like a fault: for a body that has no other way to say that it is not whole."""
        if isinstance(self.stream, trio.SocketStream):
            with suppress(OSError):
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    async def close(self) -> None:
        """Close the stream, without waiting for anyone."""
        with suppress(*_GONE):
            await trio.aclose_forcefully(self.stream)
