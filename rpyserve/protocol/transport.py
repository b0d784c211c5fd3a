"""One connection's stream: bytes in and out, with a time limit for each phase, until it is closed.

One task reads at a time, whoever needs bytes first: the wait for a head, the body of a request, or
the watch for a client that leaves. All that comes goes into the buffer of `RequestReader`, so
nothing is lost. The stream's own errors are translated here, once, into `ClientDisconnected`.
Nothing here knows of responses.

Where the platform has it, small responses are sent without waiting for the loop, and files by the
kernel (``sendfile``). TLS has to see the bytes, and Windows and some file systems cannot do it:
then files are read here.
"""

from __future__ import annotations

import enum
import errno
import functools
import math
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final

import trio

from rpyserve.http.errors import ClientDisconnected
from rpyserve.protocol.cycle import MessageCycle
from rpyserve.protocol.request_reader import RequestReader
from rpyserve.protocol.server_state import Limits, Shutdown, Wait
from rpyserve.protocol.timeouts import TICK

# How many bytes are received or sent at once.
PIECE: Final = 64 * 1024

# How many bytes of a file the kernel is given at once, before other tasks have their turn.
MOST_FOR_KERNEL: Final = 1024 * 1024

# How long the last bytes of TLS may take.
CLOSE_SECONDS: Final = 1.0

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_CANNOT_SENDFILE: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EOVERFLOW}
)
# SO_LINGER's value for a connection that ends with a reset.
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Phase(enum.Enum):
    """What a connection is doing; each phase has a time limit of its own, or none.

    A stream, or another protocol, is in its own phase whenever it is not `SENDING`.
    """

    IDLE = enum.auto()
    HEAD = enum.auto()
    WORKING = enum.auto()
    SENDING = enum.auto()
    STREAMING = enum.auto()
    UPGRADED = enum.auto()
    DRAINING = enum.auto()
    LINGERING = enum.auto()


_WAITS: Final = {
    Phase.IDLE: Wait.REQUEST,
    Phase.DRAINING: Wait.REQUEST,
    Phase.LINGERING: Wait.REQUEST,
    Phase.HEAD: Wait.HEAD,
    Phase.SENDING: Wait.READING,
    Phase.STREAMING: Wait.STREAM,
    Phase.UPGRADED: Wait.UPGRADE,
}


@functools.lru_cache(maxsize=16)
def _time_limits(limits: Limits) -> dict[Phase, float]:
    """How many seconds each phase may take that has a limit; the same object for equal limits."""
    return {
        Phase.IDLE: limits.idle,
        Phase.HEAD: limits.head_time,
        Phase.SENDING: limits.write_stall,
        Phase.DRAINING: limits.body_stall,
        Phase.LINGERING: limits.linger,
    }


class Transport:
    """The stream of one connection, and what is known of it.

    Args:
        stream: any trio stream; it is closed by `close`.
        limits: see `Limits`.
        scheme: ``"http"`` or ``"https"``.
        shutdown: counts the files that connections hold open.

    Attributes:
        stream: the stream.
        limits: the limits.
        shutdown: see above.
        reader: what has come, and the heads in it.
        cycle: h11, and whether the connection may go on.
        phase: what the connection is doing.
        since: when that began, or the client last did its part. Unknown while `Phase.WORKING`.
        body_since: since when bytes of a request's body are waited for; None if they are not.
        scope: what is cancelled when a phase takes too long.
        now: returns the time: what `trio.current_time` looks up at each call.
        deadline: when that is, in trio's time; see `timeouts`.
        tick: how many seconds late that may be noticed.
    """

    __slots__ = (
        "_broken",
        "_parked",
        "_reading",
        "_socket",
        "_time_limits",
        "body_since",
        "cycle",
        "deadline",
        "limits",
        "now",
        "phase",
        "reader",
        "scope",
        "shutdown",
        "since",
        "stream",
        "tick",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        scheme: str = "http",
        shutdown: Shutdown | None = None,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.shutdown = shutdown or Shutdown()
        self.reader = RequestReader(limits, scheme)
        self.cycle = MessageCycle()
        self.scope = trio.CancelScope()
        self.now = trio.lowlevel.current_clock().current_time
        self.deadline = math.inf
        self.phase = Phase.IDLE
        self.since = -math.inf
        self.body_since: float | None = None
        self._time_limits = _time_limits(limits)
        self.tick = min(TICK, min(self._time_limits.values()) / 8)
        self._socket = _posix_socket(stream)
        self._broken = False
        self._reading = False
        self._parked: trio.lowlevel.ParkingLot | None = None  # tasks that wait for another to read

    def enter(self, phase: Phase) -> None:
        """Begin *phase*, and its time."""
        self.phase = phase
        if phase is Phase.WORKING:
            self.deadline = math.inf
        else:
            self.since = self.now()
            self.deadline = self.since + self._time_limits.get(phase, math.inf)

    def current_wait(self) -> tuple[Wait, float] | None:
        """Return what its client makes the connection wait for, and since when."""
        if self.scope.cancel_called:
            return None
        if self.body_since is not None and self.phase is not Phase.SENDING:
            return Wait.BODY, self.body_since
        wait = _WAITS.get(self.phase)
        return None if wait is None else (wait, self.since)

    # What comes in

    @property
    def ended(self) -> bool:
        """Whether the client has closed its side, or reset the connection."""
        return self.reader.buffer.ended

    async def receive_more(self) -> None:
        """Wait until more bytes have come, or there will be none.

        Raises:
            ClientDisconnected: the connection is broken, or had ended before.
        """
        if self._reading:
            await self._wait_for_reading_task()
            return
        if self.ended:
            raise ClientDisconnected
        self._reading = True
        try:
            data: bytes | bytearray | None = None
            if self.phase is Phase.IDLE and self._socket is not None:
                await trio.lowlevel.checkpoint()  # meanwhile a busy client sends its next request
                data = _receive_nowait(self._socket)
                if data is None:
                    await trio.lowlevel.wait_readable(self._socket)
                    data = _receive_nowait(self._socket)
            if data is None:
                data = await self.stream.receive_some(PIECE)
        except (*_GONE, OSError):
            self._broken = True
            self.reader.buffer.feed(b"")
            raise ClientDisconnected from None
        finally:
            self._reading = False
            if self._parked is not None:
                self._parked.unpark_all()
        self.reader.buffer.feed(data)

    async def _wait_for_reading_task(self) -> None:
        if self._parked is None:
            self._parked = trio.lowlevel.ParkingLot()
        await self._parked.park()

    async def wait_client_left(self) -> None:
        """Return when the client has gone: it reset the connection, or closed its side a while ago.

        Reads ahead, so that it can be seen; what is read is the next request's.
        """
        while not self.ended:
            if len(self.reader.buffer) >= self.limits.read_ahead:
                await self._wait_for_reading_task()
                continue
            with suppress(ClientDisconnected):
                await self.receive_more()
        await trio.sleep(0 if self._broken else self.limits.half_close)

    # What goes out

    async def send(self, data: bytes) -> None:
        """Send *data*, with a time limit for every piece of it.

        Raises:
            ClientDisconnected: the connection is broken.
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

    def send_nowait(self, data: bytes) -> int:
        """Send of *data* what the system takes at once. Nobody else may be sending.

        Returns:
            How many bytes that was; 0 as well where it cannot be done, or fails: then `send` says
            why.
        """
        if self._socket is None or len(data) > PIECE:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    def send_parts_nowait(self, parts: Sequence[bytes]) -> bytes:
        """Send of *parts*, one after the other, what the system takes at once, as `send_nowait`.

        Returns:
            What is left to `send`.
        """
        size = sum(map(len, parts))
        if self._socket is None or size > PIECE:
            return b"".join(parts)
        try:
            taken = os.writev(self._socket.fileno(), parts)
        except OSError:
            taken = 0
        return b"" if taken == size else b"".join(parts)[taken:]

    async def send_file(self, file: BinaryIO, part: range, note: Callable[[int], object]) -> int:
        """Send *part* of *file*, if that can be done without reading it here.

        Time limits are those of `send`.

        Args:
            file: an open file.
            part: which of its bytes.
            note: called with each number of bytes that the system has taken.

        Returns:
            How many bytes were sent; the others are to be read.

        Raises:
            ClientDisconnected: the connection is broken.
            EOFError: the file has become shorter.
        """
        descriptor = _sendfile_descriptor(self.stream, file)
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
            return await _send_range(self.stream, descriptor, part, sent)
        except (*_GONE, ConnectionError):
            raise ClientDisconnected from None

    # The end

    async def linger(self) -> None:
        """End our side, and read on a little, lest a reset destroys what was sent last.

        A system resets a connection that is closed with bytes in it that nobody has read (RFC 9112,
        section 9.6). A server that stops does not wait for that.
        """
        if self.ended or self.shutdown.requested:
            return
        self.enter(Phase.LINGERING)
        left = self.limits.linger_size
        with suppress(*_GONE):
            await self._send_eof()
            while left > 0 and (data := await self.stream.receive_some(PIECE)):
                left -= len(data)

    async def _send_eof(self) -> None:
        if isinstance(self.stream, trio.SSLStream):
            # What still comes is thrown away, so it need not be decrypted.
            encrypted, self.stream = self.stream, self.stream.transport_stream
            with suppress(*_GONE):  # which it is once it finds data where the end should be
                await encrypted.unwrap()
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()

    def reset(self) -> None:
        """Have the end look like a fault: nothing else says that a body is not whole."""
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
                with trio.move_on_after(CLOSE_SECONDS) as scope:
                    await self.stream.aclose()
                if not scope.cancelled_caught:
                    return
            await trio.aclose_forcefully(self.stream)


# What a socket takes from the system itself


def _posix_socket(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """Return the socket of *stream* if it can be read and written like a file; else None."""
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return stream.socket
    return None


def _receive_nowait(source: trio.socket.SocketType) -> bytes | None:
    """Return what has come; None if that is nothing.

    Raises:
        OSError: the connection is broken.
    """
    try:
        return os.read(source.fileno(), PIECE)
    except BlockingIOError:
        return None


def _sendfile_descriptor(stream: trio.abc.Stream, file: BinaryIO) -> int | None:
    """Return the descriptor of *file* if the kernel can send its bytes to *stream*; else None."""
    if not (isinstance(stream, trio.SocketStream) and hasattr(os, "sendfile")):
        return None
    try:
        return file.fileno()
    except OSError:  # a file in memory has none
        return None


async def _send_range(stream: Any, file: int, part: range, note: Callable[[int], object]) -> int:
    """Send *part* of the open *file* to a socket to which nobody else sends.

    Returns:
        How many bytes were sent: fewer than *part* has only if the system cannot do it with this
        file.

    Raises:
        EOFError: the file has become shorter.
        OSError: reading it, or sending, failed.
    """
    target, sent = stream.socket, 0
    while sent < len(part):
        count = min(len(part) - sent, MOST_FOR_KERNEL)
        try:
            count = os.sendfile(target.fileno(), file, part.start + sent, count)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(target)
            continue
        except OSError as exc:
            if exc.errno in _CANNOT_SENDFILE:
                break
            raise
        if not count:
            raise EOFError("the file became shorter while it was sent")
        sent += count
        note(count)
        await trio.lowlevel.checkpoint()
    return sent
