"""What to answer for a file, given the conditions and ranges of a request. No I/O.

`evaluate` is a pure function from method, headers and the file's stat to status, headers and part.
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
from typing import Final

# Nanoseconds that a file counts as young: the coarsest step of time stamps in use (FAT).
YOUNG: Final = 2_000_000_000

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
# One range (section 14.2): the first byte, the last one, or how many from the end.
_RANGE = re.compile(r"[ \t]*bytes[ \t]*=[ \t]*(?=-?[0-9])([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*", re.I)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to answer.

    Args:
        status: the status code.
        headers: the response headers.
        part: which of the file's bytes are the body; None if it has none.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    part: range | None = None


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
    content: bytes | None = None,
) -> Plan:
    """Decide what to answer.

    Args:
        method: ``GET`` or ``HEAD``.
        headers: the request's headers of `CONDITIONS`, as far as it has them, by lower-case name.
        stat: of the open file.
        media_type: the file's ``Content-Type``.
        now: nanoseconds since the epoch.
        content: the file's bytes, if they are at hand; then the range is of these.

    Returns:
        200, 206, 304, 412 or 416 (the last two without content).
    """
    size = stat.st_size if content is None else len(content)
    validators = _validators(stat, now, content)
    common = (*validators.headers, ("Cache-Control", "no-cache"), ("Accept-Ranges", "bytes"))
    if not _precondition(headers, validators):
        return Plan(412, common)
    if _not_modified(headers, validators):
        return Plan(304, common)
    fields = (("Content-Type", media_type), *common)
    whole = Plan(200, fields, range(size))
    if method != "GET" or "range" not in headers or not _range_applies(headers, validators):
        return whole
    part = parse_range(headers["range"], size)
    if part is None:
        return whole
    if not part:
        return Plan(416, (*common, ("Content-Range", f"bytes */{size}")))
    content_range = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Plan(206, (*fields, ("Content-Range", content_range)), part)


def parse_range(value: str, size: int) -> range | None:
    """Return the range that a ``Range`` header asks for, clipped to *size* bytes.

    None means: send the whole file. That is the answer to a header that is malformed, of another
    unit, or asks for several ranges: a server may ignore it (section 14.2). An empty range cannot
    be satisfied.
    """
    match = _RANGE.fullmatch(value)
    if match is None:
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


def _validators(stat: os.stat_result, now: int, content: bytes | None) -> _Validators:
    young = now - max(stat.st_mtime_ns, stat.st_ctime_ns) < YOUNG
    etag = None
    if content is not None:
        etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    elif not young:
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
