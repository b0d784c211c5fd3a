"""What to answer for a file, given the conditions and ranges of a request. No I/O.

`evaluate` is a pure function from method, headers and the file's stat to status, headers and parts.
The order is that of RFC 9110, section 13.2.2: If-Match or If-Unmodified-Since, then If-None-Match
or If-Modified-Since, then If-Range and Range. A 304 must never go to a client that has other bytes.
So the ETag of a file whose bytes are at hand is their digest, and time stamps count only when they
are two seconds old, because until then an edit may leave the same ones on coarse file systems.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from itertools import pairwise
from typing import Final

# Nanoseconds that a file counts as young: the coarsest step of time stamps in use (FAT).
YOUNG: Final = 2_000_000_000

# More ranges in one request are answered with the whole file.
MAX_RANGES: Final = 16

# The request headers that `evaluate` looks at.
CONDITIONS: Final = (
    "if-match",
    "if-unmodified-since",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "range",
)

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to answer.

    Args:
        status: the status code.
        headers: the response headers.
        parts: the body, in order: `bytes` as they are, a `range` as that range of the file's bytes.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    parts: tuple[bytes | range, ...] = ()


@dataclass(frozen=True, slots=True)
class _Validators:
    """What tells this state of the file from others (RFC 9110, section 8.8).

    Args:
        etag: the ETag; None if there is none to trust.
        date: the date in whole seconds.
        date_is_reliable: False if another file may have had the date in this place: one that was
            moved here keeps its own mtime.
    """

    etag: str | None
    date: int
    date_is_reliable: bool

    @property
    def modified(self) -> float:
        """The date for comparisons; later than all others if it must not be used."""
        return self.date if self.date_is_reliable else math.inf

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        tag = () if self.etag is None else (("ETag", self.etag),)
        return (*tag, ("Last-Modified", formatdate(self.date, usegmt=True)))


def evaluate(
    method: str,
    headers: Mapping[str, str],
    stat: os.stat_result,
    media_type: str,
    *,
    now: int,
    boundary: str,
    size: int | None = None,
    etag: str | None = None,
) -> Plan:
    """Decide what to answer.

    Args:
        method: ``GET`` or ``HEAD``.
        headers: the request's headers of `CONDITIONS`, as far as it has them, by lower-case name.
        stat: of the open file.
        media_type: the file's ``Content-Type``.
        now: nanoseconds since the epoch.
        boundary: separates the ranges of a multipart answer; must not occur in the file.
        size: how many bytes were read, if they are at hand; then the ranges are of these.
        etag: the ETag by these bytes; see `etag_of`.

    Returns:
        200, 206, 304, 412 or 416 (the last two without content).
    """
    size = stat.st_size if size is None else size
    validators = _validators(stat, now, etag)
    common = (*validators.headers, ("Cache-Control", "no-cache"), ("Accept-Ranges", "bytes"))
    if not _precondition(headers, validators):
        return Plan(412, common)
    if _not_modified(headers, validators):
        return Plan(304, common)
    content_type = ("Content-Type", media_type)
    whole = Plan(200, (content_type, *common), (range(size),))
    if method != "GET" or "range" not in headers or not _range_applies(headers, validators):
        return whole
    ranges = parse_ranges(headers["range"], size)
    if ranges is None:
        return whole
    if not ranges:
        return Plan(416, (*common, ("Content-Range", f"bytes */{size}")))
    if len(ranges) == 1:
        content_range = ("Content-Range", _content_range(ranges[0], size))
        return Plan(206, (content_type, *common, content_range), tuple(ranges))
    multipart = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    return Plan(206, (multipart, *common), _multipart(ranges, size, media_type, boundary))


def etag_of(content: bytes) -> str:
    """Return the ETag of a file by its bytes, which holds however young they are."""
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def parse_ranges(value: str, size: int) -> list[range] | None:
    """Return the ranges that a ``Range`` header asks for, clipped to *size* bytes, in its order.

    None means: send the whole file. That is the answer to a header that is malformed or of another
    unit (section 14.2), and to more than `MAX_RANGES` or overlapping ranges (section 14.2, last
    paragraph but one). An empty list means that none of them can be satisfied.
    """
    unit, equals, listed = value.partition("=")
    if not equals or unit.strip().lower() != "bytes" or listed.count(",") >= MAX_RANGES:
        return None
    specs = list(filter(None, (spec.strip(" \t") for spec in listed.split(","))))
    ranges = [_parse_range(spec, size) for spec in specs]
    if not specs or None in ranges:
        return None
    satisfiable = [part for part in ranges if part]
    return None if _overlap(satisfiable) else satisfiable


def _parse_range(spec: str, size: int) -> range | None:
    """Return one range, clipped to *size* bytes; None if the whole file is to be sent."""
    match = _RANGE.fullmatch(spec)
    if match is None or spec == "-":
        return None
    first, last = match.groups()
    if not first:  # the last bytes
        if not size and _number(last):
            return None  # all of nothing: satisfiable, but no Content-Range can say so
        return range(max(size - _number(last), 0), size)
    if last and _number(first) > _number(last):
        return None
    stop = min(_number(last) + 1, size) if last else size
    return range(_number(first), stop)


def _validators(stat: os.stat_result, now: int, etag: str | None) -> _Validators:
    young = now - max(stat.st_mtime_ns, stat.st_ctime_ns) < YOUNG
    if etag is None and not young:
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}-{stat.st_ctime_ns:x}"'
    # A file that was written just now is given a date one second older: before all later ones.
    just_written = now - stat.st_mtime_ns < YOUNG
    date = min(stat.st_mtime_ns, now) // 10**9 - just_written
    moved_here = stat.st_ctime_ns - stat.st_mtime_ns >= 10**9
    return _Validators(etag, date, date_is_reliable=not young and not moved_here)


def _precondition(headers: Mapping[str, str], validators: _Validators) -> bool:
    """Evaluate sections 13.1.1 (strong comparison) and 13.1.4."""
    if "if-match" in headers:
        tags = headers["if-match"]
        return tags.strip() == "*" or ("", validators.etag) in _TAG.findall(tags)
    limit = _date(headers.get("if-unmodified-since"))
    return limit is None or validators.modified <= limit


def _not_modified(headers: Mapping[str, str], validators: _Validators) -> bool:
    """Evaluate sections 13.1.2 (weak comparison) and 13.1.3."""
    if "if-none-match" in headers:
        tags = headers["if-none-match"]
        return tags.strip() == "*" or validators.etag in [tag for _, tag in _TAG.findall(tags)]
    since = _date(headers.get("if-modified-since"))
    return since is not None and validators.modified <= since


def _range_applies(headers: Mapping[str, str], validators: _Validators) -> bool:
    """Evaluate section 13.1.5: strong comparison; a date must be the very one."""
    validator = headers.get("if-range")
    if validator is None:
        return True
    if '"' in validator:
        return validator.strip() == validators.etag
    return _date(validator) == validators.modified


def _date(value: str | None) -> int | None:
    """Return the seconds since the epoch of an HTTP date in any of its forms (section 5.6.7)."""
    if not value:
        return None
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # the form of asctime
            date = date.replace(tzinfo=UTC)
        return int(date.timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 20 else 10**20


def _overlap(ranges: list[range]) -> bool:
    ordered = sorted(ranges, key=lambda part: part.start)
    return any(left.stop > right.start for left, right in pairwise(ordered))


def _content_range(part: range, size: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def _multipart(
    ranges: list[range], size: int, media_type: str, boundary: str
) -> tuple[bytes | range, ...]:
    """Return the parts of a ``multipart/byteranges`` body (section 14.6)."""
    parts: list[bytes | range] = []
    for part in ranges:
        head = (
            f"--{boundary}\r\n"
            f"Content-Type: {media_type}\r\n"
            f"Content-Range: {_content_range(part, size)}\r\n\r\n"
        )
        parts += [("\r\n" * bool(parts) + head).encode(), part]
    return (*parts, f"\r\n--{boundary}--\r\n".encode())
