"""When Python's garbage collector runs, so that no request waits long for it. For a process that
only serves.

By default Python collects the oldest generation whenever the number of objects has grown by a
quarter. With very many sessions such a full collection takes long and finds next to nothing, since
only reference cycles need it. Here the young generations are collected as usual; a full collection
runs when it is quick, else when the server is idle, else when many sessions with data have ended.
Objects from before the start are frozen, so they are never looked at.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["FullCollections"]

YOUNG: Final = 2_000
"""New objects that make one collection of the youngest generation."""

TIMES: Final = 5
"""Collections of the youngest generation that make one of the middle generation."""

NEVER: Final = 1_000_000_000
"""A threshold that is never reached."""

PAUSE: Final = 1.0
"""Seconds between two decisions; without a request for so long, the server counts as idle."""

DUE: Final = 5
"""Collections of the middle generation before a full one is worth while."""

EACH: Final = 0.002
"""Seconds by which each of these may have made a full collection longer."""

QUICK: Final = 0.015
"""Seconds that a full collection may take while requests are being answered."""

MOST: Final = 600
"""Collections of the middle generation after which a full one runs, whatever it takes."""

ENDED: Final = 10_000
"""Ended sessions that held data that are a reason for a full collection, if they are as many as the
live ones.
"""


class FullCollections:
    """Decides when a full collection runs. Start `run` beside the server, within `tuned_gc`.

    Args:
        answered: returns how many requests have been answered.
        ended: returns how many sessions that held data have ended: their data may refer to them.
        live: returns how many sessions are live.
        collect: makes a full collection.
        due: returns how many collections of the middle generation there were since.
    """

    def __init__(
        self,
        answered: Callable[[], int],
        ended: Callable[[], int],
        live: Callable[[], int],
        *,
        collect: Callable[[], object] = gc.collect,
        due: Callable[[], int] = lambda: gc.get_count()[2],
    ) -> None:
        self._answered = answered
        self._ended = ended
        self._live = live
        self._collect = collect
        self._due = due
        self._answered_then = answered()
        self._ended_then = ended()
        self._took = 0.0

    async def run(self) -> None:
        """Collect when it is time, until cancelled. Objects that exist at first are frozen."""
        import trio  # `tuned_gc` is entered before it is imported

        gc.freeze()
        while True:
            await trio.sleep(PAUSE)
            answered, before = self._answered(), self._answered_then
            self._answered_then = answered
            if self._is_time(quiet=answered == before):
                self._collect_now()

    def _is_time(self, *, quiet: bool) -> bool:
        due = self._due()
        if due < DUE:
            return False
        ended = self._ended() - self._ended_then
        return (
            quiet
            or self._took + due * EACH <= QUICK
            or due >= MOST
            or ended >= max(ENDED, self._live())
        )  # fmt: skip

    def _collect_now(self) -> None:
        began = time.perf_counter()
        self._ended_then = self._ended()
        self._collect()
        self._took = time.perf_counter() - began


@contextmanager
def tuned_gc() -> Iterator[None]:
    """While inside, Python collects the young generations by itself, and never the oldest one.

    A Python whose collector works in increments (the third threshold is 0 then) is left alone.
    """
    usual = gc.get_threshold()
    if usual[2]:
        gc.set_threshold(YOUNG, TIMES, NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
