"""The changes of a site with their numbers, and those who wait for them.

A reader asks for what has changed since a number, so a slow one gets several changes as one, and nothing piles up for
it. What is kept is bounded; who asks for more is told that anything may have changed. Knows nothing of files or HTTP.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from rpyserve.livereload.changes import ANYTHING, NOTHING, PageChange

__all__ = ["ChangeFeed", "HubStatistics", "Subscriber"]

KEPT: Final = 256
"""How many changes are remembered."""
MOST_STREAMS: Final = 4
"""How many streams one browser has before it is asked to close some: it has six connections to a host in all."""
ROOM: Final = 1
"""How many more it may have for the moment. Then its oldest ends; a page that is asked for must find a connection."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One who waits for changes.

    Args:
        client: its browser.
        crowded: that browser has many streams open, and should close some; whoever says so resets it.
        displaced: it did not, so this stream is to make room.
    """

    client: Hashable
    crowded: bool = False
    displaced: bool = False


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """A look at a `ChangeFeed`: the number of the last change, how many are kept, how many readers there are."""

    number: int
    kept: int
    readers: int


class ChangeFeed:
    """Takes changes, gives them to readers.

    Attributes:
        boot: a random token: numbers of another hub, such as that of a server before this one, mean nothing here.
        number: that of the last change; 0 before the first.
        closed: whether there will be no more.
    """

    def __init__(self) -> None:
        self.boot = secrets.token_hex(6)
        self.number = 0
        self.closed = False
        self._changes: deque[PageChange] = deque(maxlen=KEPT)
        self._readers: dict[Subscriber, None] = {}  # in the order in which they came
        self._news = trio.Event()

    @property
    def cursor(self) -> str:
        """The present moment, as readers name it."""
        return f"{self.boot}-{self.number}"

    def announce(self, change: PageChange) -> int:
        """Tell all readers of *change*. Returns its number."""
        self.number += 1
        self._changes.append(change)
        self._wake()
        return self.number

    def since(self, mark: str) -> PageChange:
        """Return what has changed since *mark*: anything, if that is too long ago, or of another hub."""
        boot, _, text = mark.rpartition("-")
        if boot != self.boot or not (text.isascii() and text.isdecimal()) or len(text) > 15:
            return ANYTHING
        missed = self.number - int(text)
        if not 0 <= missed <= len(self._changes):
            return ANYTHING
        merged = NOTHING
        for index in range(len(self._changes) - missed, len(self._changes)):
            merged |= self._changes[index]
        return merged

    async def wait_change(self, number: int, reader: Subscriber) -> None:
        """Wait until there is a change after *number*, or something else that *reader* should know, or the end."""
        while self.number == number and not (self.closed or reader.crowded or reader.displaced):
            await self._news.wait()

    @contextmanager
    def reading(self, client: Hashable) -> Iterator[Subscriber]:
        """While inside, *client*, a browser, has a stream open."""
        reader = Subscriber(client)
        self._readers[reader] = None
        self._make_room(client)
        try:
            yield reader
        finally:
            del self._readers[reader]

    def _make_room(self, client: Hashable) -> None:
        mates = [each for each in self._readers if each.client == client and not each.displaced]
        if len(mates) <= MOST_STREAMS:
            return
        for mate in mates:
            mate.crowded = True
        for mate in mates[: -MOST_STREAMS - ROOM]:
            mate.displaced = True
        self._wake()

    def close(self) -> None:
        """Let all readers go, now and from now on."""
        self.closed = True
        self._wake()

    def statistics(self) -> HubStatistics:
        """Return what is going on."""
        return HubStatistics(self.number, len(self._changes), len(self._readers))

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
