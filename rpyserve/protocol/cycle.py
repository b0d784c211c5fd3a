"""The cycles of requests and responses: when h11 must know of one, and whether another may follow.

h11 frames the responses, and its state machine says what may be sent and whether the connection
goes on. Most requests need none of that: the head of their response was written before, and its
body is of a known length or chunked. `MessageCycle` therefore tells h11 of a request only when
somebody asks for its state machine; until then h11 is bypassed. The connection may go on if

- h11 was bypassed, and the client did not ask for the end (`RequestHead.keep_alive`): such a
  response never asks for it either, because only the heads of responses after which h11 let a
  connection go on are used again; or
- h11 was told, and says so after the response.

h11 never reads what came. It is told what its state machine goes by: method, version, and whether
the client wants to close or to change the protocol. Bodies are the business of `request_body`.
"""

from __future__ import annotations

import enum

import h11

from rpyserve.protocol.grammar import RequestHead


class H11State(enum.Enum):
    """What h11 knows of the present request."""

    # There is no request. h11 may still send the refusal of one that could not be read.
    IDLE = enum.auto()

    # There is a request, and h11 has not been told of it.
    BYPASSED = enum.auto()

    # h11 has been told of the request, and everything sent since was framed by it.
    IN_STEP = enum.auto()


class MessageCycle:
    """The request and response cycles of one connection.

    Attributes:
        state: what h11 knows.
    """

    __slots__ = ("_h11", "_head", "state")

    def __init__(self) -> None:
        self.state = H11State.IDLE
        self._head: RequestHead | None = None
        self._h11: h11.Connection | None = None  # made when it is first needed, which may be never

    def begin(self, head: RequestHead) -> None:
        self._head = head
        self.state = H11State.BYPASSED

    @property
    def h11(self) -> h11.Connection:
        """The state machine, told of the present request."""
        machine = self._h11
        if machine is None:
            machine = self._h11 = h11.Connection(h11.SERVER)
        if self._head is not None and self.state is H11State.BYPASSED:
            self.state = H11State.IN_STEP
            machine.receive_data(_as_told(self._head))
            machine.next_event()  # the head,
            machine.next_event()  # and the end, as h11 is told of no body
        return machine

    @property
    def can_bypass_h11(self) -> bool:
        """Whether a head may be sent that h11 wrote before; see `ResponseHead.written`."""
        head = self._head
        return self.state is H11State.BYPASSED and head is not None and head.keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether, after the response, another request may follow."""
        if self._head is not None and self.state is H11State.BYPASSED:
            return self._head.keep_alive
        return self.h11.our_state is h11.DONE

    def start_next(self) -> None:
        """Make ready for the next request: the response was sent, and the body read to its end."""
        if self.state is H11State.IN_STEP:
            self.h11.start_next_cycle()
        self.state = H11State.IDLE
        self._head = None


def _as_told(head: RequestHead) -> bytes:
    """A request of the same method, version and wishes, without a body."""
    lines = [f"{head.method} / HTTP/{head.http_version}", "Host: any"]
    if not head.keep_alive:
        lines.append("Connection: close")
    if b"upgrade" in head.headers.values:
        lines.append("Upgrade: any")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
