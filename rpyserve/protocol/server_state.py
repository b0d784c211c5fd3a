"""What a server and its connections share: limits, and the wish to end or to make room.

Nothing here reads or writes.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from rpyserve._names import public
from rpyserve.http.request import RequestRecord

# Seconds that a client may make the server wait before its connection can make room for others.
#
# One that sends or reads steadily does not take so long.
STALL_TIMEOUT: Final = 1.0


@public
@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may send, in bytes, and how long it may take, in seconds.

    Args:
        head: bytes of a request's head, the request line included; more is a 431.
        line: bytes of a request line; more is a 414.
        fields: header lines of a request, or trailers of its body; more is a 431.
        body: bytes of a request's body; more is a 413.
        read_ahead: bytes that are read while a request is worked on, and of a body that nobody
            wants.
        idle: seconds that a connection may wait for a request.
        head_time: seconds from the first byte of a head to its end; more is a 408.
        body_stall: seconds without a byte of the body that is being waited for; more is a 408.
        body_rate: bytes of the body that have to come for each second that it is waited for; fewer
            is a 408. The slowest mobile networks carry several times as much, and a body of the
            full size cannot take years.
        body_grace: seconds of that time that are not counted, for connections that begin slowly.
        write_stall: seconds that a client may take to read up to 64 KiB.
        half_close: seconds after which a client that closed its sending side counts as gone,
            although it may still be reading. What works for it is cancelled then; an answer that
            needs no waiting is always sent.
        linger: seconds for which bytes are read and thrown away after the last response, lest a
            reset destroys it on its way.
        linger_size: bytes that are read and thrown away so.
    """

    head: int = 64 * 1024
    line: int = 16 * 1024
    fields: int = 256
    body: int = 2 * 1024**3
    read_ahead: int = 64 * 1024
    idle: float = 75
    head_time: float = 15
    body_stall: float = 60
    body_rate: int = 1000
    body_grace: float = 20
    write_stall: float = 60
    half_close: float = 0.25
    linger: float = 3
    linger_size: int = 64 * 1024**2


class Wait(enum.IntEnum):
    """What of its client a connection waits for, in the order in which connections make room.

    Attributes:
        REQUEST: the next one, or the end of what nobody wants.
        HEAD: the rest of a request's head, or of a TLS handshake.
        BODY: the rest of a request's body, which a script needs.
        READING: that it reads what was sent, before more can be sent.
        STREAM: nothing: a stream has nothing to send.
        UPGRADE: nothing: another protocol is spoken, such as a WebSocket's.
    """

    REQUEST = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    READING = enum.auto()
    STREAM = enum.auto()
    UPGRADE = enum.auto()

    def stall_timeout(self, waited: float) -> float:
        """Return how long a client may have this without making room for another that *waited*.

        The longer the other has waited, the sooner. A stream has to be silent, however, as a script
        may be at work on its next piece.
        """
        return STALL_TIMEOUT if self is Wait.STREAM else STALL_TIMEOUT - waited


class Stoppable(Protocol):
    """A connection, as `Shutdown` knows it."""

    def request_shutdown(self) -> None:
        """End at once if there is no request, else after the present response."""

    def current_wait(self) -> tuple[Wait, float] | None:
        """Return what it waits for, and since when; None if a script works for it, or it ends."""

    def running_record(self) -> RequestRecord | None:
        """Return the record of the request that it answers; None if it answers none."""

    def shed(self) -> None:
        """End now, without a word."""


@dataclass(slots=True)
class Shutdown:
    """The wish that the connections of a server end: all of them, or some to make room for others.

    Attributes:
        requested: whether all shall end.
        closing: whether each response is the last one on its connection.
        files: how many files connections hold open, besides their sockets.
        on_file: called when that has become one more.
    """

    requested: bool = False
    closing: bool = False
    files: int = 0
    on_file: Callable[[], object] = lambda: None
    _connections: dict[Stoppable, None] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def running(self) -> list[RequestRecord]:
        """Return the records of all requests that are being answered."""
        found = [each.running_record() for each in tuple(self._connections)]
        return [record for record in found if record is not None]

    def drain(self) -> None:
        """Let each connection end after its next response; new ones are served as well."""
        self.closing = True

    def request(self) -> None:
        """Ask all connections to end. Doing so twice does nothing."""
        if self.requested:
            return
        self.requested = self.closing = True
        for connection in tuple(self._connections):
            connection.request_shutdown()

    def make_room(self, count: int, waited: float = 0) -> int:
        """End up to *count* connections that wait for their clients, those first that wait longest.

        `Wait` says which kind comes first. A connection that a script works for is kept.

        Args:
            count: how many.
            waited: for how many seconds there has been no room.

        Returns:
            How many there were.
        """
        now = trio.current_time()
        found: list[tuple[Wait, float, Stoppable]] = []
        for connection in self._connections:
            wait = connection.current_wait()
            if wait is not None and now - wait[1] >= wait[0].stall_timeout(waited):
                found.append((*wait, connection))
        found = heapq.nsmallest(count, found, key=lambda each: each[:2])
        for *_, connection in found:
            connection.shed()
        return len(found)

    def hold_file(self) -> None:
        self.files += 1
        self.on_file()

    def release_file(self) -> None:
        self.files -= 1

    def subscribe(self, connection: Stoppable) -> None:
        """From now on, *connection* is asked too. Call `unsubscribe` at its end."""
        self._connections[connection] = None

    def unsubscribe(self, connection: Stoppable) -> None:
        """No longer ask *connection*."""
        self._connections.pop(connection, None)
