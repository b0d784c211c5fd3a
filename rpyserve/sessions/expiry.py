"""One clock for any number of things that fall due: one task, not a timer each.

Time is cut into ticks of 1/64 s, which floats hold exactly. The id of a living thing lies in the list of the tick
at which it was due when it was put there. A later deadline costs nothing: it is looked at when the old tick comes,
and the thing moves on then; so an access is an assignment. An earlier one puts the id into a second list, and the
first is out of date. Never early, and at most one tick late while other tasks leave it the processor.

It holds ids only, so that what has ended is free at once. It does not know what ending means.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

__all__ = ["TICK", "Bucket", "ExpiryTimer", "Timed"]

TICK: Final = 1 / 64
"""Seconds between two looks."""

BATCH: Final = 250
"""How many things are looked at before other tasks have their turn."""


class Bucket:
    """One moment to look, and the ids of what is to be looked at then."""

    __slots__ = ("ids", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[str] = []


class Timed(Protocol):
    """What a clock watches."""

    uid: Any
    """Its id, a text."""
    _tick: Bucket | None
    """The clock's own; None at first."""

    @property
    def _deadline(self) -> float:
        """When it is due, in `trio.current_time`; `math.inf` for never."""


class Living(Protocol):
    """The things that are watched, by their ids."""

    def get(self, uid: str, /) -> Any:
        """The one of that id; None if there is none."""


class ExpiryTimer:
    """Watches the things of a mapping, by id, and ends those that are due. What left the mapping is no more watched.

    Args:
        living: the things by their ids.
        end: called with each that is due; takes it out of the mapping.
    """

    def __init__(self, living: Living, end: Callable[[Any], object]) -> None:
        self._living = living
        self._end = end
        self._ticks: dict[int, Bucket] = {}
        self._heap: list[int] = []
        self._sleep: trio.CancelScope | None = None

    def watch(self, thing: Timed) -> None:
        """Take note of a deadline of *thing* that is new."""
        deadline = thing._deadline
        if deadline == math.inf:
            return
        number = math.ceil(deadline / TICK)
        if thing._tick is not None and thing._tick.number <= number:
            return  # it will be looked at before that, and move on
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._ticks[number] = Bucket(number)
            heapq.heappush(self._heap, number)
            if self._sleep is not None and number * TICK < self._sleep.deadline:
                self._sleep.deadline = number * TICK
        tick.ids.append(thing.uid)
        thing._tick = tick

    async def run(self) -> None:
        """End what is due, until cancelled."""
        while True:
            try:
                with trio.CancelScope(deadline=self._next()) as self._sleep:
                    await trio.sleep_forever()
            finally:
                self._sleep = None
            await self._sweep()

    def _next(self) -> float:
        return self._heap[0] * TICK if self._heap else math.inf

    async def _sweep(self) -> None:
        looked = 0
        while self._next() <= (now := trio.current_time()):
            tick = self._ticks[self._heap[0]]
            # Each id is taken off as it is looked at: cancelled between two, nothing is lost.
            ids = tick.ids
            while ids:
                self._look(ids.pop(), tick, now)
                looked += 1
                if looked % BATCH == 0:
                    await trio.lowlevel.checkpoint()
                    now = trio.current_time()
            del self._ticks[heapq.heappop(self._heap)]

    def _look(self, uid: str, tick: Bucket, now: float) -> None:
        thing: Timed | None = self._living.get(uid)
        if thing is None or thing._tick is not tick:
            return  # it has ended, or its deadline was brought forward and it lies in an earlier list
        thing._tick = None
        if thing._deadline <= now:
            self._end(thing)
        else:
            self.watch(thing)
