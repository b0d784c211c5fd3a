"""When Python's garbage collector runs, so that no request waits long for it.

For a process that only serves. By default Python collects the oldest generation whenever the number
of objects has grown by a quarter. With very many sessions such a full collection takes long and
finds next to nothing, since only reference cycles need it. Here a full one runs when the server is
idle, and otherwise rarely; the young generations are small, so that collecting them is quick.
Objects from before the start are frozen, so they are never looked at.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# See `gc.set_threshold`: new objects, collections of the youngest and of the middle generation.
THRESHOLDS: Final = 2_000, 5, 600

# Seconds; without a request for so long, the server counts as idle.
PAUSE: Final = 1.0

# Collections of the middle generation before a full one is worth while.
DUE: Final = 5

# How much longer than a full collection took it is until the next one. With a million objects, one
# takes 100 ms, and somebody might come just then.
SPARING: Final = 500


@contextmanager
def tuned_gc() -> Iterator[None]:
    """While inside, Python rarely collects the oldest generation by itself.

    A Python whose collector works in increments (the third threshold is 0 then) is left alone.
    """
    usual = gc.get_threshold()
    if usual[2]:
        gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def collect_when_idle(
    answered: Callable[[], int], clock: Callable[[], float] = time.perf_counter
) -> None:
    """Make full collections while nobody waits, until cancelled. Start it within `tuned_gc`.

    Args:
        answered: returns how many requests have been answered.
        clock: seconds, by which a collection is measured.
    """
    import trio  # `tuned_gc` is entered before it is imported

    gc.freeze()
    next_at = trio.current_time()
    while True:
        before = answered()
        await trio.sleep(PAUSE)
        is_due = gc.get_count()[2] >= DUE and trio.current_time() >= next_at
        if answered() == before and is_due:
            began = clock()
            gc.collect()
            next_at = trio.current_time() + SPARING * (clock() - began)
