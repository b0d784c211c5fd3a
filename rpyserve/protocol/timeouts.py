"""One task that ends what takes too long, for all connections of a trio run.

A connection changes what it waits for several times a request. Moving a trio deadline as often
would be slow; here it is an assignment. The price: what is overdue ends up to a tick late, never
early. The task lives only while there is something to watch, and is a system task because it
belongs to no one connection.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

# Seconds between two looks, at most; something with a short time limit asks for a shorter tick.
TICK: Final = 1.0


class HasDeadline(Protocol):
    """Something with a time limit that changes.

    Attributes:
        deadline: the time, as `trio.current_time` has it, at which it ends.
        scope: what is cancelled then.
    """

    deadline: float
    scope: trio.CancelScope


class TimeoutWatcher:
    """The task, and what it watches."""

    def __init__(self) -> None:
        self._watched: dict[HasDeadline, float] = {}
        # How many of them have which tick: few differ, so the least is found at once.
        self._ticks: dict[float, int] = {}
        self._sleep = trio.CancelScope()
        self._running = False

    def add(self, timed: HasDeadline, tick: float) -> None:
        sleeps_too_long = self._running and tick < min(self._ticks, default=0)
        self._watched[timed] = tick
        self._ticks[tick] = self._ticks.get(tick, 0) + 1
        if not self._running:
            self._running = True
            trio.lowlevel.spawn_system_task(self._run)
        elif sleeps_too_long:
            self._sleep.cancel()

    def remove(self, timed: HasDeadline) -> None:
        """No longer watch *timed*. The task ends at its next look: brief connections share one."""
        tick = self._watched.pop(timed)
        self._ticks[tick] -= 1
        if not self._ticks[tick]:
            del self._ticks[tick]

    async def _run(self) -> None:
        try:
            while self._watched:
                with trio.CancelScope() as self._sleep:
                    await trio.sleep(min(self._ticks))
                # A script may have blocked everyone till now: what has come meanwhile goes first.
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
                for timed in tuple(self._watched):
                    if timed.deadline <= now:
                        timed.scope.cancel()
        finally:
            self._running = False


_watcher: trio.lowlevel.RunVar[TimeoutWatcher] = trio.lowlevel.RunVar("rpyserve time limits")


def watch(timed: HasDeadline, tick: float = TICK) -> None:
    """Cancel *timed* at its deadline, or up to *tick* seconds later. Call `unwatch` at the end."""
    try:
        watcher = _watcher.get()
    except LookupError:
        watcher = TimeoutWatcher()
        _watcher.set(watcher)
    watcher.add(timed, tick)


def unwatch(timed: HasDeadline) -> None:
    """No longer watch *timed*, which is being watched."""
    _watcher.get().remove(timed)
