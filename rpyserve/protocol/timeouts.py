"""One task that ends what takes too long, for all connections of a trio run.

A connection changes what it waits for three times a request, and moving a trio deadline as often costs a tenth of a
small request; here it is an assignment. The price: what is overdue ends up to a tick late, never early. The task
lives only while there is something to watch, and is a system task because it belongs to no one connection.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

__all__ = ["TICK", "HasDeadline", "unwatch", "watch"]

TICK: Final = 1.0
"""Seconds between two looks, at most; a connection with short limits has them shortened."""


class HasDeadline(Protocol):
    """Something with a time limit that changes.

    Attributes:
        due: the time, as `trio.current_time` has it, at which it ends.
        scope: what is cancelled then.
    """

    deadline: float
    scope: trio.CancelScope


class TimeoutWatcher:
    def __init__(self) -> None:
        self._watched: dict[HasDeadline, float] = {}
        self._ticks: dict[
            float, int
        ] = {}  # how many of them have which: few differ, so the least is found at once
        self._nap = trio.CancelScope()
        self._running = False

    def add(self, timed: HasDeadline, tick: float) -> None:
        hurried = self._running and tick < min(self._ticks, default=0)
        self._watched[timed] = tick
        self._ticks[tick] = self._ticks.get(tick, 0) + 1
        if not self._running:
            self._running = True
            trio.lowlevel.spawn_system_task(self._run)
        elif hurried:
            self._nap.cancel()

    def remove(self, timed: HasDeadline) -> None:
        tick = self._watched.pop(
            timed
        )  # the task notices at its next look, so that brief connections share one
        self._ticks[tick] -= 1
        if not self._ticks[tick]:
            del self._ticks[tick]

    async def _run(self) -> None:
        try:
            while self._watched:
                with trio.CancelScope() as self._nap:
                    await trio.sleep(min(self._ticks))
                # A script may have blocked everyone till now: what has come meanwhile is looked at first.
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
                for timed in tuple(self._watched):
                    if timed.deadline <= now:
                        timed.scope.cancel()
        finally:
            self._running = False


_patience: trio.lowlevel.RunVar[TimeoutWatcher] = trio.lowlevel.RunVar("rpyserve patience")


def watch(timed: HasDeadline, tick: float = TICK) -> None:
    """From now on, *timed* is cancelled when it is due, or up to *tick* seconds later. Say `unwatch` at the end."""
    try:
        patience = _patience.get()
    except LookupError:
        patience = TimeoutWatcher()
        _patience.set(patience)
    patience.add(timed, tick)


def unwatch(timed: HasDeadline) -> None:
    """No longer watch *timed*, which is being watched."""
    _patience.get().remove(timed)
