"""The changes of a site with their numbers, and the subscribers who wait for them.

A subscriber asks for what has changed since a cursor, so a slow one gets several changes as one,
and nothing piles up for it. What is kept is bounded: who asks for more is told that anything may
have changed. Must not know files or HTTP.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final

import trio

from rpyserve.livereload.changes import NOTHING, Changes, PageChange

# How many changes are kept.
MAX_CHANGES: Final = 256
# How many streams one browser has before it is asked to close some. It has six connections to a
# host in all.
MAX_STREAMS: Final = 4
# How many more streams it may have for the moment. Then its oldest stream ends: a page that is
# asked for must find a connection.
EXTRA_STREAMS: Final = 1


@dataclass(slots=True, eq=False)
class Subscriber:
    """One who waits for changes.

    Args:
        client: its browser.
        crowded: whether that browser has many streams open, and should close some. Who tells it so
            resets this.
        displaced: whether this stream is to end, because the browser has closed none.
    """

    client: Hashable
    crowded: bool = False
    displaced: bool = False


@dataclass(frozen=True, slots=True)
class FeedStatistics:
    """The state of a `ChangeFeed`.

    Args:
        number: that of the last change.
        kept: how many changes are kept.
        subscribers: how many there are.
    """

    number: int
    kept: int
    subscribers: int


class ChangeFeed:
    """Takes changes, and gives them to subscribers.

    Attributes:
        token: a random text. A cursor of another feed, such as that of a server before this one,
            has another one.
        number: that of the last change; 0 before the first.
        closed: whether there will be no more.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(6)
        self.number = 0
        self.closed = False
        self._changes: deque[Changes] = deque(maxlen=MAX_CHANGES)
        self._subscribers: dict[Subscriber, None] = {}  # in the order in which they came
        self._wake_up = trio.Event()

    @property
    def cursor(self) -> str:
        """The cursor of whoever knows all changes so far."""
        return self.cursor_at(self.number)

    def cursor_at(self, number: int) -> str:
        """Return the cursor of whoever knows the changes up to *number*."""
        return f"{self.token}-{number}"

    def publish(self, changes: Changes) -> int:
        """Give *changes* to all subscribers. Returns their number."""
        self.number += 1
        self._changes.append(changes)
        self._wake_all()
        return self.number

    def since(self, cursor: str) -> Changes | None:
        """Return what has changed since *cursor*.

        Returns:
            None if that is too long ago, or of another feed: anything may have changed.
        """
        token, _, number = cursor.rpartition("-")
        if token != self.token or not re.fullmatch("[0-9]{1,15}", number):
            return None
        missed = self.number - int(number)
        if not 0 <= missed <= len(self._changes):
            return None
        merged: dict[str, PageChange] = {}
        for changes in islice(self._changes, len(self._changes) - missed, None):
            for directory, change in changes.items():
                merged[directory] = merged.get(directory, NOTHING) | change
        return merged

    async def wait_change(self, number: int, subscriber: Subscriber) -> None:
        """Wait until there is a change after *number*, or *subscriber* is to do something else."""
        while self.number == number and not self.closed:
            if subscriber.crowded or subscriber.displaced:
                return
            await self._wake_up.wait()

    @contextmanager
    def subscribed(self, client: Hashable) -> Iterator[Subscriber]:
        """While inside, *client*, a browser, has a stream open."""
        subscriber = Subscriber(client)
        self._subscribers[subscriber] = None
        self._make_room(client)
        try:
            yield subscriber
        finally:
            del self._subscribers[subscriber]

    def _make_room(self, client: Hashable) -> None:
        siblings = [
            each for each in self._subscribers if each.client == client and not each.displaced
        ]
        if len(siblings) <= MAX_STREAMS:
            return
        for sibling in siblings:
            sibling.crowded = True
        for sibling in siblings[: -MAX_STREAMS - EXTRA_STREAMS]:
            sibling.displaced = True
        self._wake_all()

    def close(self) -> None:
        """Let all subscribers go, now and from now on."""
        self.closed = True
        self._wake_all()

    def statistics(self) -> FeedStatistics:
        """Return the present state."""
        return FeedStatistics(self.number, len(self._changes), len(self._subscribers))

    def _wake_all(self) -> None:
        self._wake_up.set()
        self._wake_up = trio.Event()
