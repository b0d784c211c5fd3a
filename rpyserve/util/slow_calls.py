"""Scripts whose top-level code is slow although it is executed for each request: named, once a minute at most.

Only reports. Method calls that are slow are `watchdog`'s business; their mend is another.
"""

from __future__ import annotations

import logging
import time
from typing import Final

__all__ = ["report"]

SLOW: Final = 0.1
"""Seconds."""
AGAIN: Final = 60.0

log = logging.getLogger("rpyserve")
_named: dict[str, float] = {}


def report(script: str, took: float) -> None:
    """Name *script* if its execution took too long.

    Args:
        script: what to call it.
        took: seconds.
    """
    if took < SLOW:
        return
    now = time.monotonic()
    if now < _named.get(script, -AGAIN) + AGAIN:
        return
    if len(_named) >= 1000:
        _named.clear()
    _named[script] = now
    log.warning(
        "Executing %s took %.0f ms, while everyone else waited. cache() as its first line has it executed once, not "
        "for every request.", script, took * 1000,
    )  # fmt: skip
