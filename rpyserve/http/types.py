"""What an HTTP connection and its surroundings tell each other, as values: limits, records, and "please stop".

Nothing here reads, writes or waits. `http11` and `server` are built on it; an access log needs `RequestRecord` only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rpyserve.http.request import Address, Request
from rpyserve.http.response import Response

__all__ = ["Limits", "RequestRecord", "Responder", "Shutdown"]

Responder = Callable[[Request], Awaitable[Response]]
"""What makes a response of a request: a site, or a wrapper of one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may send, in bytes, and how long it may take, in seconds.

    Args:
        head: bytes of a request's head, the request line included; more is a 431.
        line: bytes of a request line; more is a 414.
        fields: header lines of a request, or trailers of its body; more is a 431.
        body: bytes of a request's body; more is a 413.
        read_ahead: bytes that are read while a request is worked on, and of a body that nobody wants.
        idle: seconds a connection may rest before a request.
        head_time: seconds from the first byte of a head to its end; more is a 408.
        body_stall: seconds without a byte of the body that is being waited for; more is a 408.
        write_stall: seconds that a client may take to read up to 64 KiB.
        half_close: seconds that a client has which closed its sending side but may still be reading. Then it counts
            as gone, and what works for it is cancelled. An answer that needs no waiting is always sent.
        linger: seconds, and
        linger_size: bytes that are read and thrown away after a refusal, lest a reset eats the answer.
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


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request and its response, when it is over.

    Args:
        request: the request; None if what came was none.
        method: the method as it was sent; empty if it could not be read.
        target: the request target as it was sent; empty if it could not be read.
        client: the client's IP address and port.
        status: the status that was sent; 499 if the client left, or the server stopped, before there was one.
        sent: bytes of body that were sent, without chunked framing.
        seconds: from the end of the request's head to the end of the response.
        complete: whether the whole response went out.
    """

    request: Request | None
    method: str
    target: str
    client: Address
    status: int
    sent: int
    seconds: float
    complete: bool


@dataclass(slots=True)
class Shutdown:
    """The wish that connections end: resting ones at once, the others after the response that they are at."""

    requested: bool = False
    _listeners: dict[Callable[[bool], bool], None] = field(default_factory=dict)

    def request(self) -> None:
        """Ask for it. Doing so twice does nothing."""
        if not self.requested:
            self.requested = True
            for listener in tuple(self._listeners):
                listener(False)

    def close_idle(self, many: int) -> int:
        """End up to *many* connections that wait for their clients, the oldest first. Returns how many."""
        ended = 0
        for listener in tuple(self._listeners):
            if ended >= many:
                break
            ended += listener(True)
        return ended

    def subscribe(self, listener: Callable[[bool], bool]) -> None:
        """From now on, *listener* is called when somebody asks. Say `forget` at the end.

        Args:
            listener: ends its connection if that rests, and says whether it did. Called with True, it does not wait
                for a request either whose head has begun to come.
        """
        self._listeners[listener] = None

    def unsubscribe(self, listener: Callable[[bool], bool]) -> None:
        """No longer call *listener*."""
        self._listeners.pop(listener, None)
