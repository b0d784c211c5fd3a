"""The heads of responses: complete, and as RFC 9110 and 9112 want them whatever a script has set.

Framing, and what concerns the two ends of one connection, is the server's business, never a
script's. Each field is checked once more, because a script that splits a head answers in the name
of others.

Equal heads are made once a second, as ``Date`` changes then. What is kept of a head is h11's event,
which is immutable, and the bytes that h11 wrote for it: on every HTTP/1.1 connection that goes on
they are the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Final

import h11

from rpyserve._names import __version__
from rpyserve.http.headers import encode_header, reason_phrase
from rpyserve.http.response import Headers

# How many heads are kept.
MOST_CACHED: Final = 256

_SERVER: Final = (b"Server", f"rpyserve/{__version__}".encode())
_NOT_FOR_SCRIPTS: Final = frozenset(
    b"content-length transfer-encoding trailer connection keep-alive proxy-connection te "
    b"upgrade".split()
)
_DATE: Final = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} "
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)


class ResponseHead:
    """The head of a response.

    Attributes:
        event: what h11 is to send.
        second: when it was made, in seconds since the epoch.
        written: what h11 wrote of it on an HTTP/1.1 connection that went on afterwards, if it did.
    """

    __slots__ = ("event", "second", "written")

    def __init__(self, event: h11.Response | h11.InformationalResponse, second: int) -> None:
        self.event = event
        self.second = second
        self.written: bytes | None = None

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The fields, names in lower case."""
        return tuple(self.event.headers)


class ResponseHeadCache:
    """Makes the heads of responses, and keeps those of the present second.

    Args:
        clock: the time, in seconds since 1970, for ``Date``.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._date = (b"Date", b"")
        self._heads: dict[tuple[int, Headers, bytes, int | None, bool], ResponseHead] = {}

    def get(
        self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool
    ) -> ResponseHead:
        """Return the head of a response.

        Args:
            status: the status code.
            headers: the fields that the script has set.
            reason: the words beside the status; the usual ones if empty.
            length: what Content-Length says; None leaves it out.
            close: whether this response is the connection's last.

        Raises:
            ValueError: a header cannot be sent.
        """
        second = int(self._clock())
        if second != self._second or len(self._heads) >= MOST_CACHED:
            self._second = second
            self._date = (b"Date", _format_date(second))
            self._heads.clear()
        key = (status, headers, reason, length, close)
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = ResponseHead(self._make(*key), second)
        return head

    def _make(
        self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool
    ) -> h11.Response:
        fields = [
            field
            for field in _encode(headers)
            if field[0].lower() not in _NOT_FOR_SCRIPTS and not _is_bad_date(field)
        ]
        names = {name.lower() for name, _ in fields}
        if length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        fields += _connection_headers(status, headers, close)
        # RFC 9110, section 15.5.6: a 405 has an Allow; empty, it names no method.
        defaults = [(b"Allow", b"")] * (status == 405) + [self._date, _SERVER]
        fields += [field for field in defaults if field[0].lower() not in names]
        phrase = encode_header("status", reason)[1] if reason else reason_phrase(status).encode()
        return h11.Response(status_code=status, headers=fields, reason=phrase)

    def switching(self, headers: Headers) -> ResponseHead:
        """Return the head of a 101; *headers* name the other protocol in ``Upgrade``."""
        fields = [
            field
            for field in _encode(headers)
            if field[0].lower() not in _NOT_FOR_SCRIPTS - {b"upgrade"}
        ]
        event = h11.InformationalResponse(
            status_code=101,
            headers=[*fields, (b"Connection", b"Upgrade")],
            reason=reason_phrase(101).encode(),
        )
        return ResponseHead(event, int(self._clock()))


def _format_date(second: int) -> bytes:
    """The time as HTTP has it (RFC 9110, section 5.6.7). The import of `email` would be slow."""
    weekday, month, day, clock, year = time.asctime(time.gmtime(second)).split()
    return f"{weekday}, {day:0>2} {month} {year} {clock} GMT".encode()


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [encode_header(name, value) for name, value in headers]


def _is_bad_date(field: tuple[bytes, bytes]) -> bool:
    return field[0].lower() == b"date" and not _DATE.fullmatch(field[1])


def _connection_headers(status: int, headers: Headers, close: bool) -> list[tuple[bytes, bytes]]:
    """``Connection``, and the ``Upgrade`` of a 426 (RFC 9110, section 15.5.22)."""
    upgrades = [pair for pair in headers if pair[0].lower() == b"upgrade"] if status == 426 else []
    options = [b"close"] * close + [b"upgrade"] * bool(upgrades)
    return upgrades + ([(b"Connection", b", ".join(options))] if options else [])
