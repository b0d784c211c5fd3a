"""The access log: one line a response, made of an `RequestRecord` and written in batches.

A line is a string in a list until 50 ms have passed, because a call of the `logging` module for each costs more than
the rest of a small request. The lines go to the console, or, where someone has given the logger
``rpyserve.access`` a handler, to that logger. Whatever a client sent is escaped; a session's id is never written
whole. Nothing here knows of sites or sockets.

The combined log format: a line a response as Apache, nginx and Twisted write it, for the tools that read such logs.

Whatever came from a client is escaped as Apache does, so that no client can forge a line or end a value.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.http.browser import is_browser_probe
from rpyserve.util.durations import format_size
from rpyserve.util.text import escape_for_log

if TYPE_CHECKING:
    from rpyserve.http.types import RequestRecord

__all__ = ["AccessLog", "Combined"]


BATCH: Final = 0.05
"""Seconds that a line may wait for others."""
ABANDONED: Final = 499
"""The status of an exchange that never got a response."""

_COLOURS: Final = {2: "32", 3: "36", 4: "33", 5: "31"}

log = logging.getLogger("rpyserve.access")


class AccessLog:
    """Takes exchanges, gives lines. Call `run` beside the server, and `flush` when all is over.

    Args:
        write: takes the text of whole lines.
        colour: whether the status has a colour.
        probes: whether to show the files that browsers ask for by themselves and that the site lacks, and what pages
            ask of the server to follow edits.
        combined: whether to write the combined log format instead, which has all requests and no colours.

    Attributes:
        noted: how many responses there were, those without a line among them.
        answered: set once there was one.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        colour: bool = False,
        probes: bool = False,
        combined: bool = False,
    ) -> None:
        self._write = write
        self._line_of = _combined() if combined else self._line
        self._colour = colour
        self._probes = probes or combined
        self.noted = 0
        self.answered = trio.Event()
        self._lines: list[str] = []
        self._some = trio.Event()
        self._second = -1
        self._clock = ""

    def __call__(self, exchange: RequestRecord) -> None:
        """Note one response. Writes nothing yet."""
        if not self.noted:
            self.answered.set()
        self.noted += 1
        target = exchange.target
        if not self._probes and (
            _is_ours(exchange) or (exchange.status == 404 and is_browser_probe(target))
        ):
            return
        if not self._lines:
            self._some.set()
        self._lines.append(self._line_of(exchange))

    async def run(self) -> None:
        """Write the lines as they come, 50 ms late at most, until cancelled."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            await trio.sleep(BATCH)
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        if log.handlers:
            for line in lines:
                log.info("%s", line)
        else:
            self._write("\n".join(lines) + "\n")

    def _line(self, exchange: RequestRecord) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._clock = now, time.strftime("%H:%M:%S", time.localtime(now))
        status = str(exchange.status) if exchange.status != ABANDONED else "-"
        if self._colour and not log.handlers:
            status = f"\x1b[{_COLOURS.get(exchange.status // 100, '0')}m{status}\x1b[0m"
        request = exchange.request
        session = request.session if request is not None else None
        return (
            f"{self._clock} {escape_for_log(exchange.method)} {escape_for_log(exchange.target)} {status} "
            f"{format_size(exchange.sent)} {_milliseconds(exchange.seconds)}"
            f"{'' if session is None else ' ' + session.short_id}{'' if exchange.complete else ' (cut off)'}"
        )


def _combined() -> Callable[[RequestRecord], str]:

    return Combined()


def _is_ours(exchange: RequestRecord) -> bool:
    """Whether it is between a page and the server, and none of the site's business."""
    return exchange.request is not None and not exchange.request.logged








def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


LONGEST_FIELD: Final = 2000
"""How many characters of one value are written."""

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
_ESCAPES: Final = {ord('"'): '\\"', ord("\\"): "\\\\"} | {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 256))
}


class Combined:
    """Makes lines: ``client - user [time] "request" status bytes "referrer" "agent"``."""

    def __init__(self) -> None:
        self._second = -1
        self._clock = ""

    def __call__(self, exchange: RequestRecord) -> str:
        """Return the line for *exchange*; what is not known is ``-``."""
        request = exchange.request
        version = user = referrer = agent = None
        if request is not None:
            version, user = request.http_version, getattr(request, "user", None)
            referrer, agent = request.getHeader("referer"), request.getHeader("user-agent")
        line = f"{exchange.method} {exchange.target}{f' HTTP/{version}' if version else ''}".strip()
        return (
            f"{exchange.client[0] or '-'} - {_escaped(user).replace(' ', '+')} [{self._now()}] "
            f'"{_escaped(line)}" {exchange.status} {exchange.sent or "-"} "{_escaped(referrer)}" "{_escaped(agent)}"'
        )

    def _now(self) -> str:
        now = int(time.time())
        if now != self._second:
            at = time.localtime(now)
            month = _MONTHS[at.tm_mon - 1]  # never in another language
            self._second, self._clock = now, time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", at)
        return self._clock


def _escaped(value: object) -> str:
    if not value:
        return "-"
    return (
        str(value)[:LONGEST_FIELD]
        .translate(_ESCAPES)
        .encode("ascii", "backslashreplace")
        .decode("ascii")
    )
