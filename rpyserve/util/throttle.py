"""Log lines that may repeat a thousand times a second: one a minute of each kind, with a count.

A flood of requests must not become a flood of lines, nor should the console be silent about it.
This module decides only whether a line may be written now; what it says is the caller's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

import trio

__all__ = ["INTERVAL", "MAX_KEYS", "ThrottledLogger", "monotonic"]

INTERVAL: Final = 60.0
"""Seconds between two lines of one kind."""

MAX_KEYS: Final = 1000
"""How many kinds of lines one `ThrottledLogger` remembers; beyond that it forgets the oldest."""


def monotonic() -> float:
    """Seconds for a `ThrottledLogger` that is used outside of trio, too."""
    return time.monotonic()


@dataclass(slots=True)
class _Line:
    next_time: float
    suppressed: int = 0


class ThrottledLogger:
    """Writes each kind of line once per interval, and counts those in between.

    Args:
        log: the logger that writes them.
        interval: seconds for which a line is suppressed after it was written; `math.inf` for ever.
        clock: returns the time in seconds. The default works only inside `trio.run`; see
            `monotonic`.
    """

    def __init__(
        self,
        log: logging.Logger,
        interval: float = INTERVAL,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._log = log
        self._interval = interval
        self._clock = clock
        self._lines: dict[Hashable, _Line] = {}

    def warn(self, message: str, *args: object, key: Hashable = None) -> bool:
        """Log a warning unless one with the same key was logged within the interval.

        Args:
            message: a format for *args*.
            key: what counts as the same line; by default every line does.

        Returns:
            Whether it was logged.
        """
        return self.log(logging.WARNING, message, *args, key=key)

    def log(self, level: int, message: str, *args: object, key: Hashable = None) -> bool:
        """Like `warn`, with the logging *level* of the caller's choice."""
        now = self._clock()
        line = self._lines.get(key)
        if line is not None and now < line.next_time:
            line.suppressed += 1
            return False
        self._remember(key, now)
        if line is not None and line.suppressed:
            message += f" ({line.suppressed:,} more since the last such line)"
        self._log.log(level, message, *args)
        return True

    def _remember(self, key: Hashable, now: float) -> None:
        self._lines.pop(key, None)  # so that the first of the dict is the oldest
        if len(self._lines) >= MAX_KEYS:
            del self._lines[next(iter(self._lines))]
        self._lines[key] = _Line(now + self._interval)
