"""What a server and its connections share: limits, and the wish to shut down.

Nothing here reads or writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Limits", "Shutdown", "Stoppable"]


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
        write_stall: seconds that a client may take to read up to 64 KiB.
        half_close: seconds after which a client that closed its sending side counts as gone,
            although it may still be reading. What works for it is cancelled then; an answer that
            needs no waiting is always sent.
        linger: seconds for which bytes are read and thrown away after a refusal, lest a reset
            destroys the answer on its way.
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
    write_stall: float = 60
    half_close: float = 0.25
    linger: float = 3
    linger_size: int = 64 * 1024**2


class Stoppable(Protocol):
    """A connection, as `Shutdown` knows it."""

    def request_shutdown(self) -> None:
        """End at once if there is no request, else after the present response."""

    def close_if_idle(self) -> bool:
        """End now if the client has sent no whole request. Returns whether that is so."""


@dataclass(slots=True)
class Shutdown:
    """The wish that the connections of a server end, all of them or, to make room, idle ones.

    Attributes:
        requested: whether all shall end.
    """

    requested: bool = False
    _connections: dict[Stoppable, None] = field(default_factory=dict)

    def request(self) -> None:
        """Ask all connections to end. Doing so twice does nothing."""
        if self.requested:
            return
        self.requested = True
        for connection in tuple(self._connections):
            connection.request_shutdown()

    def close_idle(self, count: int) -> int:
        """End up to *count* connections without a request, the oldest first. Returns how many."""
        closed = 0
        for connection in tuple(self._connections):
            if closed >= count:
                break
            closed += connection.close_if_idle()
        return closed

    def subscribe(self, connection: Stoppable) -> None:
        """From now on, *connection* is asked too. Call `unsubscribe` at its end."""
        self._connections[connection] = None

    def unsubscribe(self, connection: Stoppable) -> None:
        """No longer ask *connection*."""
        self._connections.pop(connection, None)
