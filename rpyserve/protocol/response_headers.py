"""The response heads that go out: complete, and as RFC 9110 and 9112 want them whatever a script has set.

Pure but for the clock that ``Date`` needs. Framing, and what concerns two ends of one connection, are the server's
business, never a script's. Each field is looked at once more, because a script that splits a head answers in the
name of others. Response events are immutable, so equal ones are made once a second and reused: validating one anew
costs as much as sending it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import h11

from rpyserve._version import __version__
from rpyserve.http.response import Headers, encode_header

__all__ = ["Key", "RawHeaders", "ResponseHeadCache", "reason_of"]

RawHeaders = list[tuple[bytes, bytes]]

Key = tuple[int, Headers, bytes, int | None, bool]
"""What a head is made of: see the arguments of `ResponseHeadCache.make`."""

_SERVER: Final = (b"Server", f"rpyserve/{__version__}".encode())
_OURS = frozenset(
    {
        b"content-length", b"transfer-encoding", b"trailer", b"connection", b"keep-alive", b"proxy-connection", b"te",
        b"upgrade",
    }
)  # fmt: skip
_DATE = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    rb"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)
_MEMO_SIZE: Final = 256

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)


def _date(second: int) -> bytes:
    """The time as HTTP has it (RFC 9110, section 5.6.7). What Python has for it takes 3 ms to import."""
    at = time.gmtime(second)
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
    return f"{day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT".encode()


def reason_of(status: int) -> str:
    """The usual words beside a status code; empty for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class ResponseHeadCache:
    """The heads of responses.

    Args:
        clock: the time, in seconds since 1970, for ``Date``.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._date = (b"Date", b"")
        self._memo: dict[Key, h11.Response] = {}
        self._written: dict[Key, bytes] = {}

    def make(
        self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool
    ) -> h11.Response:
        """Return the head of a response.

        Args:
            length: what Content-Length says; None leaves it out.
            close: whether this response is the connection's last.

        Raises:
            ValueError: a header cannot be sent.
        """
        self._tick()
        key = (status, headers, reason, length, close)
        event = self._memo.get(key)
        if event is None:
            event = self._memo[key] = self._make(*key)
        return event

    def written(self, key: Key) -> bytes | None:
        """Return the head as h11 wrote it earlier in this second, if it was given to `keep`."""
        self._tick()
        return self._written.get(key)

    def keep(self, key: Key, data: bytes) -> None:
        """Keep what h11 wrote on an HTTP/1.1 connection that went on: there, it is the same for all."""
        self._written[key] = data

    def _tick(self) -> None:
        second = int(self._clock())
        if second != self._second or len(self._memo) >= _MEMO_SIZE:
            self._second = second
            self._date = (b"Date", _date(second))
            self._memo.clear()
            self._written.clear()

    def switching(self, headers: Headers) -> h11.InformationalResponse:
        """Return the head after which the connection is another protocol's; *headers* name that in ``Upgrade``."""
        fields = [encode_header(name, value) for name, value in headers]
        fields = [
            pair for pair in fields if pair[0].lower() == b"upgrade" or pair[0].lower() not in _OURS
        ]
        return h11.InformationalResponse(
            status_code=101,
            headers=[*fields, (b"Connection", b"Upgrade")],
            reason=reason_of(101).encode(),
        )

    def _make(
        self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool
    ) -> h11.Response:
        fields = [encode_header(name, value) for name, value in headers]
        fields = [
            pair for pair in fields if pair[0].lower() not in _OURS and not _is_bad_date(pair)
        ]
        said = {name.lower() for name, _ in fields}
        if length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        fields += _connection_headers(status, headers, close)
        if status == 405 and b"allow" not in said:
            fields.append(
                (b"Allow", b"")
            )  # RFC 9110, section 15.5.6: no method that anyone has told of
        fields += [pair for pair in (self._date, _SERVER) if pair[0].lower() not in said]
        words = encode_header("status", reason)[1] if reason else reason_of(status).encode()
        return h11.Response(status_code=status, headers=fields, reason=words)


def _is_bad_date(pair: tuple[bytes, bytes]) -> bool:
    return pair[0].lower() == b"date" and not _DATE.fullmatch(pair[1])


def _connection_headers(status: int, headers: Headers, close: bool) -> RawHeaders:
    """``Connection``, and the ``Upgrade`` that a 426, but nothing else here, must have (RFC 9110, section 15.5.22)."""
    upgrades = [pair for pair in headers if pair[0].lower() == b"upgrade"] if status == 426 else []
    options = [b"close"] * close + [b"upgrade"] * bool(upgrades)
    return upgrades + ([(b"Connection", b", ".join(options))] if options else [])
