"""Log lines that may repeat a thousand times a second: one a minute of each kind, with a count.

A flood of requests must not become a flood of lines, nor should the console be silent about it.
This module decides only whether a line may be written now; what it says is the caller's business.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from typing import Final

import trio

# Seconds between two lines of one kind.
INTERVAL: Final = 60.0

# How many kinds of lines one `ThrottledLogger` remembers; beyond that it forgets the oldest.
MAX_KEYS: Final = 1000


class ThrottledLogger:
    """Writes each kind of line once per interval, and counts those in between.

    Args:
        log: the logger that writes them.
        interval: seconds for which a line is suppressed after it was written; `math.inf` for ever.
        clock: returns the time in seconds. The default works inside `trio.run` only.
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
        self._next_times: dict[Hashable, float] = {}
        self._suppressed: dict[Hashable, int] = {}

    def warn(self, message: str, *args: object, key: Hashable = None) -> bool:
        """Log a warning unless one with the same key was logged within the interval.

        Args:
            message: a format for *args*.
            key: what counts as the same line; by default every line does.

        Returns:
            Whether it was logged.
        """
        return self._log_line(logging.WARNING, message, args, key)

    def log(self, level: int, message: str, *args: object, key: Hashable = None) -> bool:
        """Like `warn`, with the logging *level* of the caller's choice."""
        return self._log_line(level, message, args, key)

    def _log_line(self, level: int, message: str, args: tuple[object, ...], key: Hashable) -> bool:
        now = self._clock()
        if now < self._next_times.get(key, -math.inf):
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return False
        suppressed = self._suppressed.pop(key, 0)
        self._remember(key, now + self._interval)
        if suppressed:
            message += f" ({suppressed:,} more since the last such line)"
        self._log.log(level, message, *args, stacklevel=3)  # names the caller of `warn` or `log`
        return True

    def _remember(self, key: Hashable, next_time: float) -> None:
        self._next_times.pop(key, None)  # so that the first of the dict is the oldest
        if len(self._next_times) >= MAX_KEYS:
            oldest = next(iter(self._next_times))
            del self._next_times[oldest]
            self._suppressed.pop(oldest, None)
        self._next_times[key] = next_time
