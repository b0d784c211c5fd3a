"""h11 on one connection, which is told of a request only when somebody needs it to know.

Most requests have been read before, in other cycles, and most responses have heads that were written before: h11
would go from idle to idle, and say what it said then. `Parser.untold` is true of such a request until
`Parser.machine` is asked for; then h11 hears of it, and is where it would be anyway. Takes what the guard lets
through, and knows nothing of streams.
"""

from __future__ import annotations

import h11

from rpyserve.asked import Asked, recall, remember

__all__ = ["Parser"]


class Parser:
    """What has passed the guard, as events.

    Args:
        most: how many bytes of a head it may have to hold.

    Attributes:
        asked: the present request, once its head is known.
        untold: whether h11 has not been told of it.
    """

    __slots__ = ("_fed", "_h11", "_head", "_most", "asked", "untold")

    def __init__(self, most: int) -> None:
        self._most = most
        self.asked: Asked | None = None
        self.untold = False
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
        if self.untold:
            self.untold = False
            machine.receive_data(self._head)
            machine.next_event()
            machine.next_event()  # the end of a message that has no body
        return machine

    def take(self, data: bytes, *, bodiless: bool) -> None:
        """Take *data*: the whole head of a request that has no body, if *bodiless*; else any part of a message."""
        self._head = data if bodiless else b""
        self.asked = recall(self._head)
        if self.asked is not None:
            self.untold = True
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

    def begin(self, event: h11.Request) -> Asked:
        """*event* begins a request. Where no body follows, h11 is at its end afterwards."""
        self.asked = asked = Asked.of(event)
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
        return self.untold or self.machine.our_state is h11.DONE

    def next_cycle(self) -> None:
        """Make ready for the next request."""
        if not self.untold:
            self.machine.start_next_cycle()
            if self._head and self.asked is not None:
                remember(self._head, self.asked)
        self.untold, self.asked = False, None
