"""h11 on one connection, which is told of a request only when somebody needs it to know.

Most requests have been read before, in other cycles, and most responses have heads that were written before: h11
would go from idle to idle, and say what it said then. `Parser.bypassing_h11` is true of such a request until
`Parser.machine` is asked for; then h11 hears of it, and is where it would be anyway. Takes what the guard lets
through, and knows nothing of streams.

What the head of a request says, as values that requests may share.

Clients that keep a connection send mostly the same head again, and what equal bytes mean is the same. So heads that
h11 has read in a whole cycle, after which the connection went on, are kept here with what it read: `recall` spares
reading them again. Only heads without a body are kept, and few of them. No value here ever changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import h11

__all__ = ["Fields", "Parser", "RequestHead", "cache_head", "get_cached_head"]


LONGEST: Final = 4096
"""How many bytes a head may have to be kept."""
MOST: Final = 256
"""How many are kept."""


class Fields(tuple[tuple[bytes, bytes], ...]):
    """Header fields in the order in which they came, their names in small letters."""

    @cached_property
    def values(self) -> dict[bytes, bytes]:
        """The value of each name; of a field that came more than once, all, joined by commas (RFC 9110, 5.3).

        Cookies, whose values may hold commas, are joined as they are in one field (RFC 9113, 8.2.3).
        """
        found: dict[bytes, bytes] = {}
        for name, value in self:
            comma = b"; " if name == b"cookie" else b", "
            found[name] = found[name] + comma + value if name in found else value
        return found


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a head says."""

    method: str
    target: str
    headers: Fields
    http_version: str

    @classmethod
    def of(cls, event: h11.Request) -> RequestHead:
        """Return what h11 has read."""
        texts = (event.method.decode("ascii"), event.target.decode("ascii"))
        return cls(*texts, Fields(event.headers), event.http_version.decode("ascii"))


_kept: dict[bytes, RequestHead] = {}


def get_cached_head(head: bytes) -> RequestHead | None:
    """Return what h11 read in *head* before. With `ResponseHeadCache.written`, saves half of a small request."""
    return _kept.get(head)


def cache_head(head: bytes, asked: RequestHead) -> None:
    """Keep that *head*, after which no body came and the connection went on, says *asked*."""
    if len(head) <= LONGEST:
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[head] = asked


class Parser:
    """What has passed the guard, as events.

    Args:
        most: how many bytes of a head it may have to hold.

    Attributes:
        asked: the present request, once its head is known.
        untold: whether h11 has not been told of it.
    """

    __slots__ = ("_fed", "_h11", "_head", "_most", "asked", "bypassing_h11")

    def __init__(self, most: int) -> None:
        self._most = most
        self.asked: RequestHead | None = None
        self.bypassing_h11 = False
        # Made when it is first needed, which may be never: a sixth of the memory of a connection that rests.
        self._h11: h11.Connection | None = None
        self._head = b""  # the present request's, if it has no body
        self._fed = False  # whether h11 may have more to say: asking in vain costs a twentieth of a small request

    @property
    def machine(self) -> h11.Connection:
        """The state machine, told of all that has passed."""
        machine = self._h11
        if machine is None:
            machine = self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._most)
        if self.bypassing_h11:
            self.bypassing_h11 = False
            machine.receive_data(self._head)
            machine.next_event()
            machine.next_event()  # the end of a message that has no body
        return machine

    def take(self, data: bytes, *, bodiless: bool) -> None:
        """Take *data*: the whole head of a request that has no body, if *bodiless*; else any part of a message."""
        self._head = data if bodiless else b""
        self.asked = get_cached_head(self._head)
        if self.asked is not None:
            self.bypassing_h11 = True
        else:
            self.machine.receive_data(data)
            self._fed = True

    def end(self) -> None:
        """The client sends no more."""
        self.machine.receive_data(b"")
        self._fed = True

    def event(self) -> object:
        """The next of h11's events; `h11.NEED_DATA` if that takes more bytes.

        Raises:
            h11.RemoteProtocolError: what has passed is no HTTP.
        """
        event = self.machine.next_event() if self._fed else h11.NEED_DATA
        self._fed = event is not h11.NEED_DATA
        return event

    def begin(self, event: h11.Request) -> RequestHead:
        """*event* begins a request. Where no body follows, h11 is at its end afterwards."""
        self.asked = asked = RequestHead.of(event)
        if self._head:
            self.machine.next_event()
        return asked

    @property
    def expects(self) -> bool:
        """Whether something of a request is there."""
        return self.asked is not None or self._fed

    @property
    def may_go_on(self) -> bool:
        """Whether another request may follow the response that was sent."""
        return self.bypassing_h11 or self.machine.our_state is h11.DONE

    def next_cycle(self) -> None:
        """Make ready for the next request."""
        if not self.bypassing_h11:
            self.machine.start_next_cycle()
            if self._head and self.asked is not None:
                cache_head(self._head, self.asked)
        self.bypassing_h11, self.asked = False, None
