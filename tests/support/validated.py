"""Requests read without a connection: bytes in, and what a server would have read of them.

Whatever is accepted, h11 must read the same of the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import h11

from rpyserve.http.errors import BadRequest
from rpyserve.protocol.request_body import body_decoder
from rpyserve.protocol.request_reader import RequestReader
from rpyserve.protocol.server_state import Limits


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


def read(
    pieces: Iterable[bytes],
    limits: Limits | None = None,
    *,
    scheme: str = "http",
    end: bool = False,
) -> Reading:
    """Feed *pieces* one after the other, answering each request as soon as it is whole.

    Args:
        pieces: what the client sends.
        limits: of what it may send.
        scheme: of the connection.
        end: whether the client closes its side afterwards.
    """
    connection = _Connection(limits or Limits(), scheme)
    for piece in pieces:
        if piece:
            connection.feed(piece)
    if end:
        connection.feed(b"")
    return connection.reading


class _Connection:
    def __init__(self, limits: Limits, scheme: str) -> None:
        self.reading = Reading()
        self._limits = limits
        self._reader = RequestReader(limits, scheme)
        self._sent = bytearray()  # all bytes of the present request, and those after it
        self._is_open = True
        self._messages = self._read_messages()

    def feed(self, data: bytes) -> None:
        self._reader.buffer.feed(data)
        self._sent += data
        try:
            next(self._messages, None)
        except BadRequest as refusal:
            self.reading.status, self.reading.text = refusal.status, refusal.text

    def _read_messages(self) -> Iterator[None]:
        buffer = self._reader.buffer
        while self._is_open:
            while (head := self._reader.read_head()) is None:
                yield
            request = Read(head.method.encode(), head.target.encode(), list(head.headers))
            self.reading.requests.append(request)
            decoder = body_decoder(head, buffer, self._limits)
            while not decoder.done:
                data = decoder.take()
                request.body += data
                if decoder.refusal is not None:
                    raise decoder.refusal
                if not data and not decoder.done:
                    yield
            request.whole = True
            sent = self._sent[: len(self._sent) - len(buffer)].lstrip(b"\r\n")
            del self._sent[: len(self._sent) - len(buffer)]
            _check_with_h11(request, bytes(sent))
            self._is_open = head.keep_alive


def _check_with_h11(request: Read, sent: bytes) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(sent)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method, head.target) == (request.method, request.target)
    headers = list(head.headers)
    assert [_comparable(field, request) for field in request.headers] == [
        _comparable(field, request) for field in headers
    ]
    body = b""
    try:
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        assert dict(headers)[b"transfer-encoding"].lower() == b"chunked"
        return  # blanks around the extensions of a chunk are more than it knows
    assert isinstance(event, h11.EndOfMessage)
    assert body == request.body


def _comparable(field: tuple[bytes, bytes], request: Read) -> tuple[bytes, bytes]:
    """*field* without what h11 leaves to others, or does for others."""
    name, value = field
    if name == b"host" and not request.target.startswith(b"/"):
        return name, b""  # the target says which host is meant
    return (name, value.lower()) if name == b"transfer-encoding" else field
