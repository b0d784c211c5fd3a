"""Warnings of what may happen a thousand times a second: told once a minute, with how often it happened.

A flood of requests must not become a flood of lines, nor should the console be silent about it. Time is trio's, so
this is for code that runs in the loop. What is told, and when, is the caller's business.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

__all__ = ["EVERY", "ThrottledLogger"]

EVERY: Final = 60.0
"""Seconds between two lines."""


class ThrottledLogger:
    """One kind of warning.

    Args:
        log: who tells it.
        every: seconds for which it is counted only, after it was told.
    """

    def __init__(self, log: logging.Logger, every: float = EVERY) -> None:
        self._log = log
        self._every = every
        self._again = -math.inf
        self._untold = 0

    def warn(self, message: str, *args: object) -> bool:
        """Tell *message*, a format for *args*, unless that was done less than a minute ago. Returns whether it was."""
        now = trio.current_time()
        if now < self._again:
            self._untold += 1
            return False
        self._again = now + self._every
        untold, self._untold = self._untold, 0
        self._log.warning(
            message + (f" ({untold:,} more since the last such line)" if untold else ""), *args
        )
        return True
