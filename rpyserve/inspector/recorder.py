"""The recorder: what is kept of the requests of a site, and for how long.

Owns one ring of records, the bounds of what they hold, and the question whether somebody looks. The
records are filled by whoever does something for a request. They hold values only: a request, a
session or an exception in here would keep whole executions of scripts alive.

It runs with each request of a site on its author's machine, so it does little, and imports little.
What only those need who look is imported when they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.http.request import BODY_START, MOST_OF_RESPONSE

if TYPE_CHECKING:
    from rpyserve.http.request import RequestRecord

MOST_RECORDS: Final = 1024
MOST_SHOWN: Final = 500
MOST_PINNED: Final = 20

MOST_BODIES: Final = 8 * 2**20
"""Bytes of bodies that are kept in all."""

LOOK: Final = 60.0
"""Seconds for which one look counts."""

HANDLE: Final = 10
"""How many characters of a session's id are shown: 132 of its 192 bits stay secret."""

NOBODY_LOOKED: Final = "not recorded, nobody was looking; replay it"


class Forgotten(LookupError):
    """A record that was there once; or, of its body, what was dropped to make room."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} is forgotten; the last {MOST_SHOWN} are kept")
        self.number = number


class TooManyPinned(ValueError):
    """There are `MOST_PINNED` already."""

    def __init__(self) -> None:
        super().__init__(f"{MOST_PINNED} requests are pinned already: unpin one of them")


class Recorder:
    """Keeps the records of the last requests of one site.

    Args:
        clock: the time, in seconds since the epoch.

    Attributes:
        number: that of the newest record; 0 before the first.
        news: how often something has happened.
        kept_bytes: how many bytes of bodies are kept.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.number = 0
        self.news = 0
        self.kept_bytes = 0
        self._clock = clock
        self._ring: list[RequestRecord | None] = [None] * MOST_RECORDS
        # What the ring has no room for, and is kept nevertheless: what runs, and what is pinned.
        self._apart: dict[int, RequestRecord] = {}
        self._pinned: set[int] = set()
        # The bodies of the requests with lower numbers are gone.
        self._bodies_from = 1
        self._watched_until: float | None = None
        self._waiting: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Recorder, {self.number} requests>"

    # While requests are answered

    def begin(self, record: RequestRecord) -> None:
        """Keep *record*, of a request that begins; of none that is for the server itself."""
        request = record.request
        if request is not None:
            if request.raw_path.startswith("/-/"):
                return
            request._record = record
        self.number = number = self.number + 1
        self.news += 1
        record.number, record.at = number, self._clock()
        index = number % MOST_RECORDS
        before, self._ring[index] = self._ring[index], record
        if before is not None:
            self._leave(before)
        if self._waiting is not None:
            self._tell()

    def end(self, record: RequestRecord) -> None:
        """Take what is still to be known of a request that is over, before it is let go of."""
        if not record.number:
            return
        request = record.request
        if request is not None:
            record.request_headers = request.raw_headers
            if request.scheme != "http":
                record.scheme = request.scheme
            session = request._session
            if session is not None:
                record.session = (session._uid or "")[:HANDLE]
        start = record.response_start
        if len(start) > MOST_OF_RESPONSE:
            start = start[:BODY_START]
        record.response_start = start = b"".join([start])  # never an object of an author's class
        self.kept_bytes += len(start) + len(record.request_start)
        if self.kept_bytes > MOST_BODIES:
            self._make_room()
        if record.number <= self.number - MOST_RECORDS and not record.pinned:
            self._forget(record)
        self.news += 1
        if self._waiting is not None:
            self._tell()

    def _leave(self, record: RequestRecord) -> None:
        """Take *record*, which the ring has no room for any more."""
        if record.seconds is None or record.pinned:
            self._apart[record.number] = record
        else:
            self.kept_bytes -= len(record.response_start) + len(record.request_start)

    def _forget(self, record: RequestRecord) -> None:
        self._apart.pop(record.number, None)
        self.kept_bytes -= len(record.response_start) + len(record.request_start)

    def _make_room(self) -> None:
        """Drop the oldest bodies; those of pinned requests last."""
        for record in self._oldest_first():
            if self.kept_bytes <= MOST_BODIES:
                return
            if record.seconds is not None:
                self._drop_bodies(record)

    def _oldest_first(self) -> Iterator[RequestRecord]:
        first = max(self._bodies_from, self.number - MOST_RECORDS + 1)
        for number in range(first, self.number + 1):
            record = self._ring[number % MOST_RECORDS]
            assert record is not None
            if not record.pinned:
                yield record
                if record.lacks_bodies and number == self._bodies_from:
                    self._bodies_from = number + 1
        yield from sorted(self._pinned_records(), key=lambda record: record.number)

    def _drop_bodies(self, record: RequestRecord) -> None:
        self.kept_bytes -= len(record.response_start) + len(record.request_start)
        record.response_start = record.request_start = b""
        record.lacks_bodies = True

    # What is kept

    def records(self) -> list[RequestRecord]:
        """Return the records, the oldest first: those that run, those that are pinned, the last."""
        last = [record for record in self._ring if record is not None]
        return sorted([*self._apart.values(), *last], key=lambda record: record.number)

    def running(self) -> list[RequestRecord]:
        """Return the records of requests that have no end yet, the oldest first."""
        return [record for record in self.records() if record.seconds is None]

    def get(self, number: int) -> RequestRecord:
        """Return the record of that number.

        Raises:
            Forgotten: it is not kept any more.
            KeyError: there was none yet.
        """
        record = self._ring[number % MOST_RECORDS]
        if record is None or record.number != number:
            record = self._apart.get(number)
        if record is not None:
            return record
        raise Forgotten(number) if 0 < number <= self.number else KeyError(number)

    def pin(self, number: int) -> None:
        """Keep the record of that number however many come later.

        Raises:
            Forgotten, KeyError: as `get`.
            TooManyPinned: there are 20 already.
        """
        record = self.get(number)
        if not record.pinned:
            if len(self._pinned) >= MOST_PINNED:
                raise TooManyPinned
            record.pinned = True
            self._pinned.add(number)

    def unpin(self, number: int) -> None:
        """Keep the record of that number no longer than others.

        Raises:
            Forgotten, KeyError: as `get`.
        """
        record = self.get(number)
        record.pinned = False
        self._pinned.discard(number)
        if number in self._apart and record.seconds is not None:
            self._forget(record)

    def _pinned_records(self) -> list[RequestRecord]:
        return [self.get(number) for number in self._pinned]

    # Who looks

    def watch(self) -> None:
        """Somebody looks: for 60 s from now, requests record more."""
        self._watched_until = trio.current_time() + LOOK

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked of late."""
        until = self._watched_until
        return until is not None and trio.current_time() < until

    async def wait_news(self, after: int, seconds: float) -> int:
        """Wait until `news` is more than *after*, at most so many *seconds*, and return it."""
        with trio.move_on_after(seconds):
            while self.news <= after:
                if self._waiting is None:
                    self._waiting = trio.Event()
                await self._waiting.wait()
        return self.news

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set()
