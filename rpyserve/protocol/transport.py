"""The two ends of one connection's bytes: a trio stream and h11, joined by whoever waits first.

Whoever waits for bytes (the next head, a body, the watch for a client that leaves), all that comes goes through the
guard to h11 by `Transport.receive_more`: one reader at a time, nothing is ever dropped. The stream's own errors are translated
here, once, into `ClientDisconnected`. Each phase has a time limit, kept by `patience`. Nothing here knows of responses.

What a socket takes without more ado, where the platform has that: bytes at once, and those of a file by the kernel.

A file of 10 MiB takes a fifth of the processor time so. TLS has to see the bytes, and Windows has no such call: there,
and on a file system that cannot do it, whoever asks goes on by reading. Knows nothing of HTTP.
"""

from __future__ import annotations

import enum
import errno
import functools
import math
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Final

import h11
import trio

from rpyserve.http.errors import BadRequest, ClientDisconnected
from rpyserve.http.types import Limits
from rpyserve.protocol.parser import Parser
from rpyserve.protocol.timeouts import TICK
from rpyserve.protocol.validator import RequestValidator

__all__ = ["Phase", "Transport", "descriptor_of", "send_nowait", "send_range"]


MOST: Final = 1024 * 1024
"""How many bytes are handed over before other tasks have their turn."""
_NOT_HERE: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EOVERFLOW}
)


def descriptor_of(stream: trio.abc.Stream, file: BinaryIO) -> int | None:
    """Return the descriptor of *file* if its bytes can go to *stream* by the kernel; else None."""
    if not (isinstance(stream, trio.SocketStream) and hasattr(os, "sendfile")):
        return None
    try:
        return file.fileno()
    except OSError:  # a file in memory has none
        return None


def send_nowait(stream: trio.abc.Stream, data: bytes) -> int:
    """Send of *data* what the system takes without waiting, to a *stream* to which nobody else sends.

    Returns:
        How many bytes that was; 0 as well where it cannot be done, or fails: then `send_all` says why.
    """
    if os.name != "posix" or not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


async def send_range(stream: Any, file: int, part: range, note: Callable[[int], object]) -> int:
    """Send *part* of the open *file*, whose position does not matter.

    Args:
        stream: a `trio.SocketStream`, to which nobody else sends.
        note: called with each number of bytes that the system has taken.

    Returns:
        How many were sent: fewer than *part* has only if the system cannot do it with this file.

    Raises:
        EOFError: the file has become shorter.
        OSError: reading it, or sending, failed.
    """
    socket, sent = stream.socket, 0
    while sent < len(part):
        try:
            count = os.sendfile(
                socket.fileno(), file, part.start + sent, min(len(part) - sent, MOST)
            )
        except BlockingIOError:
            await trio.lowlevel.wait_writable(socket)
            continue
        except OSError as exc:
            if exc.errno in _NOT_HERE:
                break
            raise
        if not count:
            raise EOFError("the file became shorter while it was sent")
        sent += count
        note(count)
        await trio.lowlevel.checkpoint()
    return sent


PIECE: Final = 64 * 1024
"""How many bytes are received or sent at once."""

FAREWELL: Final = 1.0
"""Seconds that the last bytes of TLS may take."""

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_REFUSED_HEAD: Final = b"HEAD / HTTP/1.1\r\nHost: refused\r\n\r\n"
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


@functools.lru_cache(maxsize=16)
def _seconds(limits: Limits) -> dict[Phase, float]:
    """How long each phase may take; the same for all connections of one kind."""
    return {
        Phase.IDLE: limits.idle,
        Phase.HEAD: limits.head_time,
        Phase.SENDING: limits.write_stall,
        Phase.DRAINING: limits.body_stall,
        Phase.LINGERING: limits.linger,
    }


class Transport:
    """One connection.

    Args:
        stream: any trio stream; it is closed by `close`.
        limits: see `Limits`.
        scheme: ``"http"`` or ``"https"``.

    Attributes:
        parser: h11, and
        guard: what lets bytes through to it.
        scope: what is cancelled when a phase takes too long, and
        due: when that is, in trio's time; see `patience`.
        refusal: why what came is no request, if so.
        phase: what the connection is at.
        ended: whether the client has closed its side, or reset the connection.
    """

    __slots__ = (
        "_broken", "_others", "_reading", "_seconds", "_unread", "deadline", "ended", "guard", "limits", "parser", "phase",
        "refusal", "scope", "stream", "tick",
    )  # fmt: skip

    def __init__(self, stream: trio.abc.Stream, limits: Limits, scheme: str = "http") -> None:
        self.stream = stream
        self.limits = limits
        self.parser = Parser(limits.head)
        self.guard = RequestValidator(limits, scheme)
        self.refusal: BadRequest | None = None
        self.scope = trio.CancelScope()
        self.deadline = math.inf
        self.phase = Phase.IDLE
        self.ended = False
        self._broken = False
        self._reading = False
        self._others: trio.lowlevel.ParkingLot | None = None
        self._unread = 0  # bytes that have come and may still be here
        self._seconds = _seconds(limits)
        self.tick = min(TICK, min(self._seconds.values()) / 8)

    def enter(self, phase: Phase) -> None:
        """Begin *phase*, and its time."""
        self.phase = phase
        self.deadline = (
            math.inf if phase is Phase.WORKING else trio.current_time() + self._seconds[phase]
        )

    @property
    def h11(self) -> h11.Connection:
        """The state machine."""
        return self.parser.machine

    # What comes in

    async def receive_more(self) -> None:
        """Wait until h11 has more bytes than before, or there will be none.

        Raises:
            Disconnected: the connection is broken, or had ended before.
        """
        if self._reading:
            await self._park()
            return
        if self.ended:
            raise ClientDisconnected
        self._reading = True
        try:
            data = await self.stream.receive_some(PIECE)
        except _GONE:
            self._broken = True
            self._feed(b"")
            raise ClientDisconnected from None
        finally:
            self._reading = False
            if self._others is not None:
                self._others.unpark_all()
        self._feed(data)

    async def _park(self) -> None:
        """Wait until somebody else has read."""
        if self._others is None:
            self._others = trio.lowlevel.ParkingLot()
        await self._others.park()

    def _feed(self, data: bytes | bytearray) -> None:
        self.ended = self.ended or not data
        self._unread += len(data)
        self._pass_on(self.guard.feed(data))

    def _pass_on(self, data: bytes) -> None:
        if data:
            self.parser.take(data, bodiless=not self.guard.length)
        if self.ended and self.guard.at_eof:
            self.parser.end()

    def event(self) -> object:
        """The next of h11's events; `h11.NEED_DATA` if that takes more bytes.

        Raises:
            Refusal: all that was good has been read, and what follows is not.
            Disconnected: the client sends no more, and this is not the end of a message.
        """
        try:
            event = self.parser.event()
        except h11.RemoteProtocolError as exc:
            if self.guard.at_eof:
                raise ClientDisconnected from None
            raise BadRequest(
                exc.error_status_hint, "The request is malformed."
            ) from None  # h11 has become stricter
        if event is h11.NEED_DATA and self.guard.refusal is not None:
            raise self.guard.refusal
        return event

    def look(self) -> bool:
        """Whether it is known what comes next: a request, of which `parser` has the head; no request, and `refusal`
        says why; or, where there is neither, the end, as the client has closed the connection.

        Raises:
            Disconnected: the connection is broken.
        """
        if self.parser.asked is not None:
            return True
        try:
            event = self.event()
        except BadRequest as refusal:
            self.refusal = refusal
            return True
        if isinstance(event, h11.Request):
            self.parser.begin(event)
            return True
        if self.phase is Phase.IDLE and self.guard.begun:
            self.enter(Phase.HEAD)
        return isinstance(event, h11.ConnectionClosed)

    def next_cycle(self) -> None:
        """Make ready for the next request, of which bytes may be there."""
        self.parser.next_cycle()
        self._pass_on(self.guard.resume())

    def refused(self, refusal: BadRequest) -> None:
        """Tell h11 what it needs to know of a head that never got to it: the answer to a HEAD has no body."""
        if refusal.method == b"HEAD":
            self.h11.receive_data(_REFUSED_HEAD)
            self.h11.next_event()

    async def wait_client_left(self) -> None:
        """Return when the client has gone: it reset the connection, or closed its side a little while ago.

        Reads ahead, so that it can be seen; what is read is the next request's.
        """
        while not self.ended:
            if self._full():
                await self._park()
                continue
            with suppress(ClientDisconnected):
                await self.receive_more()
        await trio.sleep(0 if self._broken else self.limits.half_close)

    def _full(self) -> bool:
        limit = self.limits.read_ahead
        if self._unread >= limit:
            self._unread = self.guard.waiting + len(self.h11.trailing_data[0])
        return self._unread >= limit

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
            raise ClientDisconnected from None

    async def send_whole(self, data: bytes) -> None:
        """Send *data*, which is all that there is to send for this request, as `send` does.

        What the system takes at once needs no turn of the loop: the next request waits for one. Saves a tenth of a
        small request.

        Raises:
            Disconnected: the connection is broken.
        """
        sent = send_nowait(self.stream, data) if len(data) <= PIECE else 0
        if sent < len(data):
            await self.send(data[sent:])

    async def send_file(self, file: BinaryIO, part: range, note: Callable[[int], object]) -> int:
        """Send *part* of *file*, if that can be done without reading it here. Time limits are those of `send`.

        Args:
            note: called with each number of bytes that the system has taken.

        Returns:
            How many bytes were sent; the others are to be read.

        Raises:
            Disconnected: the connection is broken.
            EOFError: the file has become shorter.
        """
        descriptor = descriptor_of(self.stream, file)
        if descriptor is None:
            return 0
        left = PIECE

        def sent(count: int) -> None:
            nonlocal left
            note(count)
            left -= count
            if left <= 0:
                left = PIECE
                self.enter(Phase.SENDING)

        self.enter(Phase.SENDING)
        try:
            return await send_range(self.stream, descriptor, part, sent)
        except (*_GONE, ConnectionError):
            raise ClientDisconnected from None

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

    async def close(self, *, orderly: bool) -> None:
        """Close the stream, without waiting for anyone.

        Args:
            orderly: whether what was sent is whole. TLS says so at its end (RFC 9112, section 9.8).
        """
        with suppress(*_GONE):
            if orderly:
                with trio.move_on_after(FAREWELL) as scope:
                    await self.stream.aclose()
                if not scope.cancelled_caught:
                    return
            await trio.aclose_forcefully(self.stream)
