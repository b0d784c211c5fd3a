"""One timer for any number of deadlines: one task, not one for each.

Time is cut into ticks of 1/64 s, which floats hold exactly. An id lies in the bucket of the tick at
which it was due when it was put there. A later deadline changes nothing at first: the id is looked
at when its bucket's time has come, and moves on then. So an access to a session is an assignment.
An earlier deadline puts the id into a second bucket, and the entry in the first one is out of date.
A deadline is never met early, and at most one tick late while other tasks leave the timer the
processor.

It holds ids only, so that what has ended is free at once. Ids that are out of date stay until they
are the greater part of a bucket, and empty buckets until they are the greater part of all: so there
are never more than twice as many as are needed, and dropping one costs little. It does not know
what has the deadlines, nor what happens when they have come.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final

import trio

TICK: Final = 1 / 64
"""Seconds between two looks."""

BATCH: Final = 250
"""How many ids are looked at before other tasks have their turn."""


class Bucket:
    """The ids to look at in one tick, and how many of them are known to be out of date."""

    __slots__ = ("ids", "outdated", "tick")

    def __init__(self, tick: int) -> None:
        self.tick = tick
        self.ids: list[str] = []
        self.outdated = 0


class ExpiryTimer:
    """Calls a function with each id whose deadline may have come.

    Args:
        look: called with an id that has just been taken from its bucket. If the deadline has moved,
            it schedules the id again.
        is_scheduled: whether an id has not gone, and a bucket is the one in which it was scheduled
            last.
    """

    def __init__(
        self, look: Callable[[str], object], is_scheduled: Callable[[str, Bucket], bool]
    ) -> None:
        self._look = look
        self._is_scheduled = is_scheduled
        self._buckets: dict[int, Bucket] = {}
        self._ticks: list[int] = []  # a heap of the keys of `_buckets`
        self._empty = 0  # at most so many of `_buckets`
        self._sleep: trio.CancelScope | None = None

    def schedule(self, uid: str, deadline: float, bucket: Bucket | None) -> Bucket | None:
        """Have an id looked at once its deadline has come.

        Args:
            uid: the id.
            deadline: by the clock of `trio.current_time`; `math.inf` for never.
            bucket: where it lies already; None if it lies nowhere.

        Returns:
            The bucket where it lies now, for the caller to keep. If that is another one, the caller
            discards the id from the former.
        """
        if deadline == math.inf:
            return bucket
        tick = math.ceil(deadline / TICK)
        if bucket is not None and bucket.tick <= tick:
            return bucket  # it will be looked at before that, and move on
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._new_bucket(tick)
        bucket.ids.append(uid)
        return bucket

    def discard(self, bucket: Bucket | None) -> None:
        """Note that an id which lies in *bucket* is not scheduled there any more."""
        if bucket is None:
            return
        bucket.outdated += 1
        if 2 * bucket.outdated <= len(bucket.ids):
            return
        bucket.ids = [uid for uid in bucket.ids if self._is_scheduled(uid, bucket)]
        bucket.outdated = 0
        if bucket.ids:
            return
        self._empty += 1
        if 2 * self._empty > len(self._buckets):
            self._buckets = {tick: each for tick, each in self._buckets.items() if each.ids}
            self._ticks = sorted(self._buckets)
            self._empty = 0

    def _new_bucket(self, tick: int) -> Bucket:
        bucket = self._buckets[tick] = Bucket(tick)
        heapq.heappush(self._ticks, tick)
        if self._sleep is not None and tick * TICK < self._sleep.deadline:
            self._sleep.deadline = tick * TICK
        return bucket

    async def run(self) -> None:
        """Look at what is due, until cancelled."""
        while True:
            try:
                with trio.CancelScope(deadline=self._next_time()) as self._sleep:
                    await trio.sleep_forever()
            finally:
                self._sleep = None
            await self._look_at_due()

    def _next_time(self) -> float:
        return self._ticks[0] * TICK if self._ticks else math.inf

    async def _look_at_due(self) -> None:
        looks = 0
        while self._next_time() <= trio.current_time():
            bucket = self._buckets[self._ticks[0]]
            if not bucket.ids:
                del self._buckets[heapq.heappop(self._ticks)]
            # Each id is taken off as it is looked at: cancelled between two, nothing is lost.
            while bucket.ids:
                uid = bucket.ids.pop()
                if self._is_scheduled(uid, bucket):
                    self._look(uid)
                looks += 1
                if looks % BATCH == 0:
                    await trio.lowlevel.checkpoint()
