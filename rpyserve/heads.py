"""Heads: what a request's head must be beyond what h11 sees to, and the response heads that go out.

Pure but for the clock that ``Date`` needs. A request's head is checked once h11 has parsed it; the strict checks that
cost little are here (RFC 9112, sections 2.3, 3.2, 6.1). Response events are immutable, so equal ones are made
once a second and reused: validating one anew costs as much as sending it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

from rpyserve import __version__
from rpyserve.exchange import Limits
from rpyserve.response import Headers

__all__ = ["CHUNKED", "Heads", "RawHeaders", "Refusal", "check_request", "check_size", "reason_of", "too_long"]

RawHeaders = list[tuple[bytes, bytes]]

CHUNKED: Final = -1
"""The length of a body that does not say how long it is."""

_SERVER: Final = (b"Server", f"rpyserve/{__version__}".encode())
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})*+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]")
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_OURS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
_MEMO_SIZE: Final = 256


class Refusal(Exception):
    """What came is no request that can be answered: a short text goes back, and the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


def check_request(event: h11.Request, headers: RawHeaders) -> int:
    """Return how long the body is: a number of bytes, or `CHUNKED`.

    Raises:
        Refusal: the head breaks a rule that h11 does not know of.
    """
    version = event.http_version
    if not version.startswith(b"1."):
        raise Refusal(505, "This server speaks HTTP/1.1.")
    length: int | None = None
    chunked = host = False
    for name, value in headers:
        if name not in _FRAMING:
            continue
        if name == b"host":
            if not _HOST.fullmatch(value):
                raise Refusal(400, "The Host header is malformed.")
            host = True
        elif name == b"content-length":
            length = int(value)
        else:
            chunked = True
    if chunked and (length is not None or version == b"1.0"):
        raise Refusal(400, "Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0.")
    if not host and version != b"1.0":
        raise Refusal(400, "The Host header is missing.")
    if event.method == b"CONNECT":
        raise Refusal(501, "This server is no proxy.")
    if not event.target.startswith(b"/"):
        _check_target(event.method, event.target)
    return CHUNKED if chunked else length or 0


def _check_target(method: bytes, target: bytes) -> None:
    """Let only those targets pass that RFC 9112, section 3.2 has besides a path."""
    if not (_ABSOLUTE.match(target) or (target == b"*" and method == b"OPTIONS")):
        raise Refusal(400, "The request target is malformed.")


def check_size(event: h11.Request, limits: Limits) -> None:
    """Make sure of the size of a head that came in one piece, which h11 does not.

    Raises:
        Refusal: 414 or 431.
    """
    line = b"%s %s HTTP/1.1\r\n" % (event.method, event.target)
    if len(line) > limits.line:
        raise too_long(b"", limits)
    if len(line) + sum(len(name) + len(value) + 4 for name, value in event.headers) > limits.head:
        raise too_long(line, limits)


def too_long(begun: bytes, limits: Limits) -> Refusal:
    """What to say of a head that is too long and begins with *begun*: is it the request line, or the rest?"""
    if b"\n" in begun[: limits.line]:
        return Refusal(431, f"The head of a request may have {limits.head} bytes.")
    return Refusal(414, f"A request line may have {limits.line} bytes.")


def reason_of(status: int) -> str:
    """The usual words beside a status code; empty for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class Heads:
    """The heads of responses.

    Args:
        clock: the time, in seconds since 1970, for ``Date``.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._date = (b"Date", b"")
        self._memo: dict[tuple[int, Headers, bytes, int | None, bool], h11.Response] = {}

    def make(self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool) -> h11.Response:
        """Return the head of a response.

        Args:
            length: what Content-Length says; None leaves it out.
            close: whether this response is the connection's last.

        Raises:
            h11.LocalProtocolError: a header cannot be sent.
        """
        second = int(self._clock())
        if second != self._second or len(self._memo) >= _MEMO_SIZE:
            self._second = second
            self._date = (b"Date", formatdate(second, usegmt=True).encode())
            self._memo.clear()
        key = (status, headers, reason, length, close)
        event = self._memo.get(key)
        if event is None:
            event = self._memo[key] = self._make(*key)
        return event

    def _make(self, status: int, headers: Headers, reason: bytes, length: int | None, close: bool) -> h11.Response:
        fields = [pair for pair in headers if pair[0].lower() not in _OURS]
        said = {name.lower() for name, _ in fields}
        if length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        if close:
            fields.append((b"Connection", b"close"))
        fields += [pair for pair in (self._date, _SERVER) if pair[0].lower() not in said]
        return h11.Response(status_code=status, headers=fields, reason=reason or reason_of(status).encode())
