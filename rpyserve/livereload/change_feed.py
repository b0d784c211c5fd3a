"""The changes of a site with their numbers, the subscribers who wait for them, and their answers.

A subscriber asks for what has changed since a cursor, so a slow one gets several changes as one,
and nothing piles up for it. Of many subscribers only some are woken at once, and each of them wakes
another one, so that requests are answered in between. What is kept is bounded: who asks for more is
told that anything may have changed. A browser has few connections to a server, and the site's own
streams come first: a subscriber for whom there is no room is displaced, and has to ask now and then
instead. Must not know files or HTTP.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.livereload.changes import NOTHING, Changes, PageChange

if TYPE_CHECKING:
    from rpyserve.livereload.write_loops import RequestSpan

# How many changes are kept.
MAX_CHANGES: Final = 256
# How many connections a browser opens to one host.
MAX_CONNECTIONS: Final = 6
# How many streams a browser may have, the site's own among them, while one of them is a subscriber.
# The other connections are for what its pages ask for.
MAX_STREAMS: Final = 4
# Seconds for which a subscriber that has gone is expected to be followed by another one: a browser
# opens its stream anew when another of its tabs takes over.
SUCCESSION: Final = 1.0
# How many subscribers are woken in one turn of the loop: together they take about a millisecond.
AT_ONCE: Final = 16


@dataclass(slots=True, eq=False)
class Subscriber:
    """One who waits for changes.

    Args:
        client: its browser, as far as browsers can be told apart.
        name: what its answers are signed with; one without a name is not expected to answer.
        shared: whether it is the only one of its browser.
        displaced: whether it is to go, because there is no room for it.
        on_displaced: called then, for one who does not wait for changes here.
    """

    client: Hashable
    name: str = ""
    shared: bool = False
    displaced: bool = False
    on_displaced: Callable[[], object] = lambda: None


@dataclass(slots=True, eq=False)
class Showing:
    """How many pages show a change, as far as they have said so.

    Args:
        number: that of the change.
        tabs: how many pages each subscriber speaks for that is expected to answer; None as long as
            it has not said.
        departed: those of them who had just gone: another one may answer in their place.
        said: how many pages have said that they show the change.
        unchanged: how many pages have said that it does not concern them.
        leaving: how many pages have said that they load themselves again.
        arrived: how many pages that have loaded themselves again are there.
        last: the time of the last answer, in seconds since the epoch; at first that of the change.
        settled: set when there is nothing more to wait for.
    """

    number: int
    tabs: dict[str, int | None]
    departed: list[str] = field(default_factory=list)
    said: int = 0
    unchanged: int = 0
    leaving: int = 0
    arrived: int = 0
    last: float = field(default_factory=time.time)
    settled: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._check()

    @property
    def shown(self) -> int:
        """How many pages show the change."""
        return self.said + self.arrived

    @property
    def loading(self) -> int:
        """How many pages load themselves again, and are not there yet."""
        return max(0, self.leaving - self.arrived)

    def take(self, name: str, answer: Answer) -> None:
        """Take an answer of the subscriber called *name*."""
        if self.settled.is_set():
            return  # that is of a later change
        if name not in self.tabs and self.departed:
            del self.tabs[self.departed.pop()]
            self.tabs[name] = None
        if name in self.tabs:
            self.tabs[name] = max(answer.tabs, self.tabs[name] or 0)
        self.said += answer.shown
        self.unchanged += answer.unchanged
        self.leaving += answer.loading
        if answer.shown:
            self.last = time.time()
        self._check()

    def take_arrival(self) -> None:
        """A page that has loaded itself again is there."""
        self.arrived += 1
        self.last = time.time()
        self._check()

    def _check(self) -> None:
        known = [tabs for tabs in self.tabs.values() if tabs is not None]
        answered = self.said + self.unchanged + max(self.leaving, self.arrived)
        if len(known) == len(self.tabs) and answered >= sum(known) and not self.loading:
            self.settled.set()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the pages of a browser did with a change.

    Args:
        tabs: how many pages of the browser there are.
        shown: how many of them say that they show what has changed.
        loading: how many load themselves again.
        unchanged: how many are not concerned.
    """

    tabs: int = 1
    shown: int = 0
    loading: int = 0
    unchanged: int = 0


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

    Args:
        on_full: called with a browser that has as many streams of the site as it has connections.

    Attributes:
        token: a random text. A cursor of another feed, such as that of a server before this one,
            has another one.
        number: that of the last change; 0 before the first.
        on_change: called after each change.
        closed: whether there will be no more.
    """

    def __init__(self, on_full: Callable[[Hashable], object] = lambda client: None) -> None:
        self.token = secrets.token_hex(6)
        self.number = 0
        self.closed = False
        self.on_change: Callable[[], object] = lambda: None
        self._on_full = on_full
        # Each with the requests that have caused it; none if it was not a request.
        self._changes: deque[tuple[Changes, tuple[RequestSpan, ...]]] = deque(maxlen=MAX_CHANGES)
        self._showings: deque[Showing] = deque(maxlen=MAX_CHANGES)
        self._subscribers: dict[Subscriber, None] = {}  # in the order in which they came
        # Those whose browsers have no subscriber since then: their names, browsers, and when.
        self._departed: deque[tuple[str, Hashable, float]] = deque(maxlen=MAX_STREAMS)
        self._site_streams: Counter[Hashable] = Counter()
        self._waiting = trio.lowlevel.ParkingLot()
        self._to_wake = 0  # how many of those who wait are to be woken in later turns
        self._awake = 0  # how many have been woken, and have not had their turn yet

    @property
    def cursor(self) -> str:
        """The cursor of whoever knows all changes so far."""
        return self.cursor_at(self.number)

    def cursor_at(self, number: int) -> str:
        """Return the cursor of whoever knows the changes up to *number*."""
        return f"{self.token}-{number}"

    # Changes

    def publish(self, changes: Changes, causes: tuple[RequestSpan, ...] = ()) -> Showing:
        """Give *changes* to all subscribers.

        Args:
            changes: what has changed.
            causes: the requests that have caused it; none if it was not a request.
        """
        self.number += 1
        self._changes.append((changes, causes))
        names = {each.name for each in self._subscribers if each.name}
        since = time.monotonic() - SUCCESSION
        departed = [name for name, _, left in self._departed if left >= since and name not in names]
        departed = list(dict.fromkeys(departed))
        showing = Showing(self.number, dict.fromkeys([*names, *departed]), departed)
        self._showings.append(showing)
        self._wake_all()
        self.on_change()
        return showing

    def since(self, cursor: str) -> Changes | None:
        """Return what has changed since *cursor*.

        Returns:
            None if that is too long ago, or of another feed: anything may have changed.
        """
        missed = self._missed(cursor)
        if missed is None:
            return None
        merged: dict[str, PageChange] = {}
        for changes, _ in missed:
            for directory, change in changes.items():
                merged[directory] = merged.get(directory, NOTHING) | change
        return merged

    def causes_since(self, cursor: str) -> tuple[RequestSpan, ...]:
        """Return the requests that have caused all that has changed since *cursor*.

        Returns:
            None of them if something had another cause.
        """
        causes = [spans for _, spans in self._missed(cursor) or ()]
        return tuple({span for spans in causes for span in spans}) if all(causes) else ()

    def _missed(self, cursor: str) -> list[tuple[Changes, tuple[RequestSpan, ...]]] | None:
        """The changes since *cursor*, with their causes; None if they are not known."""
        number = self._number_of(cursor)
        missed = self.number - number
        if number < 0 or not 0 <= missed <= len(self._changes):
            return None
        return list(islice(self._changes, len(self._changes) - missed, None))

    def _number_of(self, cursor: str) -> int:
        """The number in *cursor*; -1 if it is none of this feed."""
        token, _, number = cursor.rpartition("-")
        known = token == self.token and re.fullmatch("[0-9]{1,15}", number)
        return int(number) if known else -1

    # Answers

    def take_answer(self, name: str, cursor: str, answer: Answer) -> None:
        """Take note of what pages did with the changes up to *cursor*.

        Args:
            name: that of the subscriber that speaks for them.
            cursor: the last change that they know.
            answer: what they did.
        """
        for showing in self._showings_up_to(cursor):
            showing.take(name, answer)

    def take_arrival(self, cursor: str) -> None:
        """Take note of a page that has loaded itself again, with the changes up to *cursor*."""
        for showing in self._showings_up_to(cursor):
            showing.take_arrival()

    def _showings_up_to(self, cursor: str) -> list[Showing]:
        return [each for each in self._showings if each.number <= self._number_of(cursor)]

    def forget(self, showing: Showing) -> None:
        """Take no more answers for it."""
        if showing in self._showings:
            self._showings.remove(showing)

    # Subscribers

    async def wait_change(self, number: int, subscriber: Subscriber) -> None:
        """Wait until there is a change after *number*, or *subscriber* is to go."""
        while self.number == number and not self.closed and not subscriber.displaced:
            await self._waiting.park()
            self._awake -= 1
            self._wake_some()

    @contextmanager
    def subscribed(
        self,
        client: Hashable,
        *,
        name: str = "",
        shared: bool = False,
        on_displaced: Callable[[], object] = lambda: None,
    ) -> Iterator[Subscriber]:
        """While inside, *client*, a browser, has a subscriber; see `Subscriber`."""
        subscriber = Subscriber(client, name, shared, on_displaced=on_displaced)
        self._subscribers[subscriber] = None
        self._take_place(client)
        self._make_room(client)
        try:
            yield subscriber
        finally:
            del self._subscribers[subscriber]
            if name and all(each.client != client for each in self._subscribers):
                self._departed.append((name, client, time.monotonic()))

    def _take_place(self, client: Hashable) -> None:
        """A subscriber of *client* has come, so nobody waits for one that has gone."""
        for gone in self._departed:
            if gone[1] == client:
                self._departed.remove(gone)
                return

    def occupy(self, client: Hashable) -> Callable[[], None]:
        """Take note that *client* has a stream of the site. Call what is returned at its end."""
        self._site_streams[client] += 1
        self._make_room(client)
        if self.is_full(client):
            self._on_full(client)

        def release() -> None:
            self._site_streams[client] -= 1
            if not self._site_streams[client]:
                del self._site_streams[client]

        return release

    def is_full(self, client: Hashable) -> bool:
        """Whether *client* has as many streams of the site as it has connections."""
        return self._site_streams[client] >= MAX_CONNECTIONS

    def has_room(self, client: Hashable, *, shared: bool = False) -> bool:
        """Whether another subscriber of *client* would displace none."""
        others = [] if shared else self._lone(client)
        return self._site_streams[client] + len(others) < MAX_STREAMS

    def _make_room(self, client: Hashable) -> None:
        room = MAX_STREAMS - self._site_streams[client]
        lone = self._lone(client)
        displaced = lone[: max(0, len(lone) - max(0, room))]
        if room <= 0:
            displaced += [each for each in self._subscribers if each.client == client]
        for subscriber in displaced:
            subscriber.displaced = True
            subscriber.on_displaced()
        if displaced:
            self._wake_all()

    def _lone(self, client: Hashable) -> list[Subscriber]:
        """The subscribers of *client* that may not be the only ones of their browser."""
        return [
            each
            for each in self._subscribers
            if each.client == client and not each.shared and not each.displaced
        ]

    def close(self) -> None:
        """Let all subscribers go, now and from now on.

        All at once: the server ends the streams of those who take longer to say goodbye.
        """
        self.closed = True
        self._to_wake = 0
        self._awake += len(self._waiting.unpark_all())

    def statistics(self) -> FeedStatistics:
        """Return the present state."""
        return FeedStatistics(self.number, len(self._changes), len(self._subscribers))

    def _wake_all(self) -> None:
        self._to_wake = len(self._waiting)
        self._wake_some()

    def _wake_some(self) -> None:
        """Wake those who have waited longest, of those who are still to be woken."""
        count = max(0, min(AT_ONCE - self._awake, self._to_wake))
        self._to_wake -= count
        # Some of those who are to be woken may have left.
        self._awake += len(self._waiting.unpark(count=count))
