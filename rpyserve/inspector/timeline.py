"""What has happened on a site of late, as numbered events: two thousand lines at most.

Owns the numbers, the bound, and those who wait for news. Values only: an event holds texts and
numbers, so that it keeps nothing alive. Requests are no events here; there are too many of them,
and the recorder has them.

Events may be added in any thread of the process. Whoever waits is woken in the thread of the event
loop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

import trio

MAX_EVENTS: Final = 2_000

FOLD: Final = 1.0
"""Seconds within which what happens very often is one event."""

KINDS: Final = (
    "saved",
    "executed",
    "failed",
    "mended",
    "session made",
    "session ended",
    "time passed",
    "loop held",
    "action",
)
"""What may happen, in the words of `Event.kind`."""

_NONE: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened.

    Args:
        number: from 1.
        at: when, in seconds since the epoch.
        kind: one of `KINDS`.
        text: it, for a reader.
        fields: it, for a program: plain values.
    """

    number: int
    at: float
    kind: str
    text: str
    fields: Mapping[str, object] = field(default_factory=lambda: _NONE)


class News:
    """Lets tasks wait until something is there, and others say that it may be.

    `tell` may be called in any thread.
    """

    def __init__(self) -> None:
        self._event = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.closed = False
        self._listeners: list[Callable[[], object]] = []

    def listen(self, listener: Callable[[], object]) -> None:
        """Have *listener* called after each `tell`, in the thread of the event loop."""
        self._token = trio.lowlevel.current_trio_token()
        self._listeners.append(listener)

    def tell(self) -> None:
        """Have all who wait look again."""
        if self._token is None:
            return  # nobody has waited yet
        try:
            trio.lowlevel.current_task()
        except RuntimeError:  # another thread
            self._token.run_sync_soon(self._wake_all, idempotent=True)
        else:
            self._wake_all()

    def close(self) -> None:
        """Let all who wait go, now and from now on."""
        self.closed = True
        self.tell()

    async def wait(self, is_there: Callable[[], bool], seconds: float) -> bool:
        """Wait until *is_there*, at most for so many *seconds*; return whether it is."""
        self._token = trio.lowlevel.current_trio_token()
        with trio.move_on_after(seconds):
            while not is_there() and not self.closed:
                await self._event.wait()
        return is_there()

    def _wake_all(self) -> None:
        self._event.set()
        self._event = trio.Event()
        for listener in self._listeners:
            listener()


@dataclass(eq=False, slots=True)
class Timeline:
    """The last events of one site.

    Args:
        now: a clock, in seconds since the epoch.

    Attributes:
        number: that of the newest event; 0 before the first.
    """

    now: Callable[[], float] = time.time
    number: int = 0
    news: News = field(default_factory=News)
    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, text: str, **fields: object) -> Event:
        """Add what has just happened.

        Args:
            kind: one of `KINDS`.
            text: it, for a reader.
            fields: it, for a program: plain values.
        """
        return self._add(kind, text, fields or _NONE)

    def add_one(self, kind: str, one: str, many: str) -> Event:
        """Add what may happen very often: what is within a second is one event.

        Args:
            kind: one of `KINDS`.
            one: the text of one such event.
            many: the text of several, with ``{}`` for how many.
        """
        last = self._events[-1] if self._events else None
        if last is None or last.kind != kind or self.now() - last.at >= FOLD:
            return self._add(kind, one, {"count": 1})
        self._events.pop()
        count = cast("int", last.fields["count"]) + 1
        return self._add(kind, many.format(count), {"count": count}, last.at)

    def _add(
        self, kind: str, text: str, fields: Mapping[str, object], at: float | None = None
    ) -> Event:
        with self._lock:
            self.number += 1
            event = Event(self.number, self.now() if at is None else at, kind, text, fields)
            self._events.append(event)
        self.news.tell()
        return event

    def after(self, number: int) -> list[Event]:
        """Return the events after that of *number*, the oldest first, as far as they are kept."""
        return [event for event in list(self._events) if event.number > number]

    async def wait_after(self, number: int, seconds: float) -> list[Event]:
        """Return the events after that of *number*; wait up to so many *seconds* for the first."""
        await self.news.wait(lambda: self.number > number, seconds)
        return self.after(number)
