"""The recorder: what is kept of the requests of a site, and for how long.

Owns one ring of records, the bounds of what they hold, and the question whether somebody looks. The
records are filled by whoever does something for a request. They hold values only: a request, a
session or an exception in here would keep whole executions of scripts alive.

It runs with each request of a site on its author's machine, so it does little, and imports little.
What only those need who look is imported when they do.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Final

import trio

from rpyserve.http.request import (
    MOST_OF_REQUEST,
    MOST_OF_RESPONSE,
    RequestRecord,
    beginning_of,
)

MOST_RECORDS: Final = 1024
MOST_SHOWN: Final = 500
MOST_PINNED: Final = 20

MOST_BODIES: Final = 8 * 2**20
"""Bytes of bodies that are kept in all."""

LARGEST: Final = MOST_OF_REQUEST + MOST_OF_RESPONSE

UNCOUNTED: Final = 2**20
"""Bytes of bodies after which they are counted, as counting each would cost each request."""

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
        on_record: told of each request that is over, when all that is to be kept has been taken.

    Attributes:
        number: that of the newest record; 0 before the first.
    """

    def __init__(self, on_record: Callable[[RequestRecord], object] = lambda record: None) -> None:
        self.number = 0
        self._on_record = on_record
        self._ended = 0
        # By number, modulo their count. What stands where nothing has been recorded is over.
        nothing = RequestRecord(None, "", "", ("", 0), 0.0)
        nothing.seconds = 0.0
        self._ring = [nothing] * MOST_RECORDS
        # What runs though the ring has no room for it any more, and what is pinned.
        self._running: dict[int, RequestRecord] = {}
        self._pinned: dict[int, RequestRecord] = {}
        # Bytes of bodies that have come since they were counted last.
        self._uncounted = 0
        # Whether somebody looks, or waits for news: the usual request need not ask for more.
        self._is_alert = False
        self._watched_until: float | None = None
        self._waiting: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Recorder, {self.number} requests>"

    # While requests are answered: nothing may be done here that is not needed each time

    def begin(self, record: RequestRecord) -> None:
        """Keep *record*, of a request that begins; of none that is for the server itself."""
        request = record.request
        if request is not None:
            if request.raw_path.startswith("/-/"):
                return
            request._record = record
            record.request_headers = request.raw_headers
        self.number = record.number = number = self.number + 1
        record.at = time()
        index = number % MOST_RECORDS
        before, self._ring[index] = self._ring[index], record
        if before.seconds is None:
            self._running[before.number] = before
        if self._is_alert:
            self._tell()

    def end(self, record: RequestRecord) -> None:
        """Take what is still to be known of a request that is over, before it is let go of."""
        if record.number:
            request = record.request
            if request is not None:
                if request.scheme != "http":
                    record.scheme = request.scheme
                session = request._session
                if session is not None:
                    record.session = (session._uid or "")[:HANDLE]
            start = record.response_start
            if len(start) > MOST_OF_RESPONSE or type(start) is not bytes:
                record.response_start = start = _plain(start)
            self._uncounted += len(start) + len(record.request_start)
            if self._uncounted > UNCOUNTED:
                self._make_room()
            self._ended += 1
            if record.number <= self.number - MOST_RECORDS:
                self._running.pop(record.number, None)
            if self._is_alert:
                self._tell()
        self._on_record(record)

    # Bodies

    @property
    def kept_bytes(self) -> int:
        """How many bytes of bodies are kept."""
        return sum(map(_kept_by, self.records()))

    def _make_room(self) -> None:
        """Drop the oldest bodies if there is too much; those of pinned requests last."""
        self._uncounted = 0
        excess = self.kept_bytes - (MOST_BODIES - UNCOUNTED - LARGEST)
        for record in sorted(self.records(), key=lambda record: (record.pinned, record.number)):
            if excess <= 0:
                return
            if record.seconds is not None and (kept := _kept_by(record)):
                excess -= kept
                record.response_start = record.request_start = b""
                record.lacks_bodies = True

    # What is kept

    def records(self) -> list[RequestRecord]:
        """Return the records, the oldest first: those that run, those that are pinned, the last."""
        found = self._running | self._pinned | {each.number: each for each in self._ring}
        found.pop(0, None)
        return [found[number] for number in sorted(found)]

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
        if record.number != number:
            record = self._running.get(number) or self._pinned.get(number) or record
        if record.number == number and number:
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
            self._pinned[number] = record

    def unpin(self, number: int) -> None:
        """Keep the record of that number no longer than others.

        Raises:
            Forgotten, KeyError: as `get`.
        """
        self.get(number).pinned = False
        self._pinned.pop(number, None)

    # Who looks

    def watch(self) -> None:
        """Somebody looks: for 60 s from now, requests record more."""
        self._watched_until = trio.current_time() + LOOK
        self._is_alert = True

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked of late."""
        until = self._watched_until
        return until is not None and trio.current_time() < until

    @property
    def news(self) -> int:
        """How often something has happened."""
        return self.number + self._ended

    async def wait_news(self, after: int, seconds: float) -> int:
        """Wait until `news` is more than *after*, at most so many *seconds*, and return it."""
        with trio.move_on_after(seconds):
            while self.news <= after:
                if self._waiting is None:
                    self._waiting = trio.Event()
                self._is_alert = True
                await self._waiting.wait()
        return self.news

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set()
        self._is_alert = self.is_watched


def _kept_by(record: RequestRecord) -> int:
    return len(record.response_start) + len(record.request_start)


def _plain(body: bytes) -> bytes:
    """What is kept of a response's body. It is no object of a class of the author's."""
    return beginning_of(b"".join([body]), len(body))
