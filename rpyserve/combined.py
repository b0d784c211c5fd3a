"""The combined log format: a line a response as Apache, nginx and Twisted write it, for the tools that read such logs.

Whatever came from a client is escaped as Apache does, so that no client can forge a line or end a value.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rpyserve.http.types import Exchange

__all__ = ["Combined"]

LONGEST_FIELD: Final = 2000
"""How many characters of one value are written."""

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPES: Final = {ord('"'): '\\"', ord("\\"): "\\\\"} | {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 256))
}


class Combined:
    """Makes lines: ``client - user [time] "request" status bytes "referrer" "agent"``."""

    def __init__(self) -> None:
        self._second = -1
        self._clock = ""

    def __call__(self, exchange: Exchange) -> str:
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
    return str(value)[:LONGEST_FIELD].translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")
