"""A guard and its h11 without a connection: bytes in, and what a server would have read of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import h11

from rpyserve.http.types import Limits
from rpyserve.protocol.validator import RequestValidator


@dataclass
class Read:
    """One request as it was read; *whole* if its end came."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    whole: bool = False


@dataclass
class Reading:
    """What became of some bytes."""

    requests: list[Read] = field(default_factory=list)
    status: int | None = None
    """Of the refusal, if there was one."""
    text: str = ""


def read(pieces: Iterable[bytes], limits: Limits | None = None, *, scheme: str = "http", end: bool = False) -> Reading:
    """Feed *pieces* one after the other, answering each request as soon as it is whole.

    h11 must like all that the guard lets through.
    """
    guard = RequestValidator(limits or Limits(), scheme)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    reading = Reading()
    for piece in pieces:
        if piece:
            _give(connection, guard.feed(piece))
            _events(guard, connection, reading)
    if end:
        _give(connection, guard.feed(b""))
        _events(guard, connection, reading)
    if guard.refusal is not None:
        reading.status, reading.text = guard.refusal.status, guard.refusal.text
    return reading


def _give(connection: h11.Connection, data: bytes) -> None:
    if data:
        connection.receive_data(data)


def _events(guard: RequestValidator, connection: h11.Connection, reading: Reading) -> None:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            reading.requests.append(Read(event.method, event.target, list(event.headers)))
        elif isinstance(event, h11.Data):
            reading.requests[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert not event.headers
            reading.requests[-1].whole = True
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return  # the client, or HTTP/1.0, wants no more
            connection.start_next_cycle()
            _give(connection, guard.resume())
        else:
            return
