"""When Python looks for garbage, so that looking keeps nobody waiting for long. For a process that only serves.

Left alone, Python looks at all there is whenever a quarter more is there: with a million sessions that takes a fifth of
a second, in which nobody is answered, and it finds next to nothing. Here what is young is looked at as ever. All there
is is looked at where that is quick, else when nobody has asked for anything lately, else when there is reason to
think that much of it is garbage. What was there when the server began is never looked at. Only what refers to itself is
garbage to be found so; all else is free at once.

It knows of sites and requests only what it is told.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["FullCollections"]

YOUNG: Final = 2_000
"""How many new objects are looked at together, and
TIMES: how many such looks make the middle generation. So one look at that takes some 2 ms."""
TIMES: Final = 5
NEVER: Final = 1_000_000_000

PAUSE: Final = 1.0
"""Seconds between two thoughts of whether all is to be looked at, and of quiet that is quiet enough."""
DUE: Final = 5
"""How many looks at the middle generation make it worth while to look at all."""
EACH: Final = 0.002
"""Seconds by which each of these may have made that longer."""
QUICK: Final = 0.015
"""Seconds that it may take at any time."""
MOST: Final = 600
"""How many of these looks there may be before all is looked at, whatever that takes: some 7 million objects."""
ENDED: Final = 10_000
"""How many sessions that held something must have ended before that is a reason; they are as many as live, too."""


class FullCollections:
    """Decides when to look at all there is. Call `run` beside the server, within `rarely`.

    Args:
        answered: says how many requests have been answered.
        ended: says how many sessions that held something have ended: what they held may refer to them.
        living: says how many sessions live.
        collect: looks at all there is.
        looks: says how many looks at the middle generation there were since.
    """

    def __init__(
        self,
        answered: Callable[[], int],
        ended: Callable[[], int],
        living: Callable[[], int],
        *,
        collect: Callable[[], object] = gc.collect,
        looks: Callable[[], int] = lambda: gc.get_count()[2],
    ) -> None:
        self._answered = answered
        self._ended = ended
        self._living = living
        self._collect = collect
        self._looks = looks
        self._answered_then = answered()
        self._ended_then = ended()
        self._took = 0.0

    async def run(self) -> None:
        """Look at all there is when it is time, until cancelled. What is there at first is never looked at."""
        import trio  # `rarely` is for importing it, too

        gc.freeze()
        while True:
            await trio.sleep(PAUSE)
            answered, before = self._answered(), self._answered_then
            self._answered_then = answered
            if self._is_time(quiet=answered == before):
                self._look()

    def _is_time(self, *, quiet: bool) -> bool:
        looks = self._looks()
        if looks < DUE:
            return False
        ended = self._ended() - self._ended_then
        return (
            quiet
            or self._took + looks * EACH <= QUICK
            or looks >= MOST
            or ended >= max(ENDED, self._living())
        )  # fmt: skip

    def _look(self) -> None:
        began = time.perf_counter()
        self._ended_then = self._ended()
        self._collect()
        self._took = time.perf_counter() - began


@contextmanager
def tuned_gc() -> Iterator[None]:
    """While inside, Python looks by itself at what is young, and never at all there is.

    Where Python looks at a little of all there is each time (the third threshold is 0 then), it is left alone.
    """
    usual = gc.get_threshold()
    if usual[2]:
        gc.set_threshold(YOUNG, TIMES, NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
