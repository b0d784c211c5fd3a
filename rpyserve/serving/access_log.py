"""The access log: one line a response, made of a `RequestRecord`.

Lines go to the console, or, where someone has given the logger ``rpyserve.access`` a handler, to
that logger; a call of the `logging` module for each costs more than the rest of a small request.
Whatever a client sent is escaped, so that no client can forge a line, and a session's id is never
written whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import trio

from rpyserve.http.browser import is_browser_probe
from rpyserve.http.hosts import is_loopback
from rpyserve.http.request import ABANDONED, Request, RequestRecord
from rpyserve.util.text import escape_for_log, format_size

# Characters of one value in the combined log format; the rest is cut off.
LONGEST_FIELD: Final = 2000

_COLOURS: Final = {2: "32", 3: "36", 4: "33", 5: "31"}
_ESCAPES: Final = {ord('"'): '\\"', ord("\\"): "\\\\"} | {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 256))
}

log = logging.getLogger("rpyserve.access")


class AccessLog:
    """Takes records of requests, writes lines.

    Args:
        write: takes a line with its end; None if there are none to write, unless the logger has a
            handler.
        colour: whether the status is coloured.
        probes: whether to log the files that browsers request by themselves and that the site
            lacks, and the requests of live reload.
        layout: ``short``; ``combined``, the format of that name, with all requests; or ``json``, an
            object a line, without the requests of live reload and load balancers, unless *probes*.
            The last two have no colours.

    Attributes:
        keep: takes the records of all requests but the server's own, if somebody wants them.
        responses: how many responses there were, those without a line among them.
        answered: set after the first response.
    """

    def __init__(
        self,
        write: Callable[[str], object] | None = None,
        *,
        colour: bool = False,
        probes: bool = False,
        layout: str = "short",
    ) -> None:
        self.keep: Callable[[RequestRecord], object] | None = None
        self.responses = 0
        self.answered = trio.Event()
        self._write = write
        self._skips = _never if probes else _SKIPS.get(layout, _is_noise)
        self._format = _LAYOUTS.get(layout) or partial(_short_line, colour=colour)

    def __call__(self, record: RequestRecord) -> None:
        if not self.responses:
            self.answered.set()
        self.responses += 1
        # Live reload's, the inspector's, or a load balancer's.
        is_own = record.request is not None and not record.request._logged
        if self.keep is not None and not is_own:
            self.keep(record)
        if not (log.handlers or self._write) or self._skips(record, is_own):
            return
        if log.handlers:
            log.info("%s", self._format(record))
        elif self._write is not None:
            self._write(self._format(record) + "\n")


def _never(record: RequestRecord, is_own: bool) -> bool:
    return False


def _is_own(record: RequestRecord, is_own: bool) -> bool:
    return is_own


def _is_noise(record: RequestRecord, is_own: bool) -> bool:
    """Whether a browser or live reload sent the request by itself, and nobody needs to see it."""
    return is_own or (record.status in (204, 404) and is_browser_probe(record.target))


def _short_line(record: RequestRecord, *, colour: bool) -> str:
    """Time, method, target, status, bytes, milliseconds, the beginning of the session's id, and the
    address of a client that is not on this machine.
    """
    request = record.request
    session = None if request is None else request._session
    parts = [
        _time_of_day(int(time.time())),
        escape_for_log(record.method),
        escape_for_log(record.target),
        _status(record.status, colour),
        format_size(record.sent),
        _milliseconds(record.seconds or 0.0),
    ]
    if session is not None:
        parts.append(session.short_id)
    client = record.client[0]
    if client and not is_loopback(client):  # one that has no address has an empty one
        parts.append(f"from {escape_for_log(client)}")
    if not record.complete:
        parts.append("(cut off)")
    return " ".join(parts)


def _status(status: int, colour: bool) -> str:
    text = "-" if status == ABANDONED else str(status)
    if not colour or log.handlers:
        return text
    return f"\x1b[{_COLOURS.get(status // 100, '0')}m{text}\x1b[0m"


def _combined_line(record: RequestRecord) -> str:
    """``client - user [time] "request" status bytes "referrer" "agent"``; ``-`` if not known."""
    request = record.request
    version = user = referrer = agent = None
    if request is not None:
        version, user = request.http_version, request.user
        referrer, agent = request.getHeader("referer"), request.getHeader("user-agent")
    now = _date_and_time(int(time.time()))
    line = f"{record.method} {record.target}"
    if version:
        line += f" HTTP/{version}"
    return (
        f"{record.client[0] or '-'} - {_escaped(user).replace(' ', '+')} [{now}] "
        f'"{_escaped(line.strip())}" {record.status} {record.sent or "-"} '
        f'"{_escaped(referrer)}" "{_escaped(agent)}"'
    )


def _json_line(record: RequestRecord) -> str:
    """The record as JSON, in ASCII. What is not known, or not there, is null."""
    import json  # only this format needs it

    request, moment = record.request, time.time()
    session = None if request is None else request._session
    return json.dumps({
        "time": f"{_utc(int(moment))}.{int(moment % 1 * 1000):03}Z",
        "id": request.id if request is not None and request.id else None,
        "client": record.client[0] or None,
        "method": record.method[:LONGEST_FIELD],
        "target": record.target[:LONGEST_FIELD],
        "status": record.status,
        "bytes": record.sent,
        "seconds": round(record.seconds or 0.0, 6),
        "complete": record.complete,
        "session": None if session is None else session.short_id,
        "user": None if request is None else request.user,
        "user_agent": _header(request, "user-agent"),
        "referer": _header(request, "referer"),
    })  # fmt: skip


def _header(request: Request | None, name: str) -> str | None:
    value = None if request is None else request.getHeader(name)
    return None if value is None else value[:LONGEST_FIELD]


_LAYOUTS: Final[dict[str, Callable[[RequestRecord], str]]] = {
    "combined": _combined_line,
    "json": _json_line,
}
_SKIPS: Final = {"combined": _never, "json": _is_own}


@lru_cache(maxsize=1)
def _utc(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


@lru_cache(maxsize=1)
def _time_of_day(now: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now))


@lru_cache(maxsize=1)
def _date_and_time(now: int) -> str:
    from email.utils import formatdate  # slow to import, and only one format needs it

    # In English whatever the locale is.
    _, day, month, year, clock, zone = formatdate(now, localtime=True).split()
    return f"{day}/{month}/{year}:{clock} {zone}"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


def _escaped(value: object) -> str:
    if not value:
        return "-"
    text = str(value)[:LONGEST_FIELD].translate(_ESCAPES)
    return text.encode("ascii", "backslashreplace").decode("ascii")
