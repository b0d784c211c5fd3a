"""The recorder: what is kept of the requests of a site, and for how long.

Owns one ring of records, the bounds of what they hold, and the question whether somebody looks. The
records are filled by whoever does something for a request. They hold values only: a request, a
session or an exception in here would keep whole executions of scripts alive.

It runs with each request of a site on its author's machine, so it does little, and imports little.
What only those need who look is imported when they do.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.http.request import (
    MOST_OF_REQUEST,
    MOST_OF_RESPONSE,
    RequestRecord,
    beginning_of,
)

if TYPE_CHECKING:
    from rpyserve.diagnostics.model import ErrorReport
    from rpyserve.inspector.request_observer import Listening

MOST_RECORDS: Final = 1024
MOST_SHOWN: Final = 500
MOST_PINNED: Final = 20

MOST_FAILURES: Final = 50
"""How many errors are kept."""

MOST_BODIES: Final = 8 * 2**20
"""Bytes of bodies that are kept in all."""

LARGEST: Final = MOST_OF_REQUEST + MOST_OF_RESPONSE

UNCOUNTED: Final = 2**20
"""Bytes of bodies after which they are counted, as counting each would cost each request."""

SMALL: Final = 256
"""Bytes of a body that need not be counted: all of them are little beside `MOST_BODIES`."""

LOOK: Final = 60.0
"""Seconds for which one look counts."""

NOBODY_LOOKED: Final = "not recorded, nobody was looking; replay it"


log = logging.getLogger("rpyserve")


class Forgotten(LookupError):
    """A record that was there once; or, of its body, what was dropped to make room."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} is forgotten; the last {MOST_SHOWN} are kept")
        self.number = number


class TooManyPinned(ValueError):
    """There are `MOST_PINNED` already."""

    def __init__(self) -> None:
        super().__init__(f"{MOST_PINNED} requests are pinned already: unpin one of them")


@dataclass(frozen=True, slots=True)
class FailureNote:
    """An error of a script.

    Args:
        number: counted from 1.
        at: when it occurred, in seconds since the epoch.
        what: what failed, such as ``GET /hello``.
        page: the path of the page.
        report: what is said of it; all of it is text.
        request: the number of the request.
    """

    number: int
    at: float
    what: str
    page: str
    report: ErrorReport
    request: int


class Recorder:
    """Keeps the records of the last requests of one site.

    Args:
        running: returns the records of the requests that are being answered.

    Attributes:
        failures: the last errors, the oldest first.
        failure_count: how many errors there were.
        is_alert: whether somebody looks or waits for news, so that more is to be done.
        is_closed: whether nobody is to look or wait any more.
        news: counts what has happened while `is_alert`.
        looking: how many pages have a stream of news.
    """

    def __init__(self, running: Callable[[], list[RequestRecord]] = list) -> None:
        self.is_alert = False
        self.is_closed = False
        self.news = 0
        self.looking = 0
        self.failures: deque[FailureNote] = deque(maxlen=MOST_FAILURES)
        self.failure_count = 0
        self._find_running = running
        # Those that are over, as they ended. They get their numbers when somebody asks for them.
        self._ring: deque[RequestRecord] = deque(maxlen=MOST_RECORDS)
        self._append = self._ring.append
        self._pinned: dict[int, RequestRecord] = {}
        self._last_number = 0
        # Bytes of bodies that have come since they were counted last.
        self._uncounted = 0
        self._watched_until: float | None = None
        self._listening: Listening | None = None
        self._waiting: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Recorder, {len(self._ring)} requests>"

    # While requests are answered

    def begin(self, record: RequestRecord) -> None:
        """Take notice of a request that begins, as somebody looks or waits for news."""
        if is_recorded(record):
            self._give_number(record)
            if self._listening is not None and self.is_watched:
                self._watch(record)
            self.tell()

    def _watch(self, record: RequestRecord) -> None:
        from rpyserve.inspector.request_observer import RequestObserver

        try:
            RequestObserver(record, self.running)
        except Exception as exc:
            log.error("The inspector failed: %s: %s", type(exc).__name__, exc)

    def keep(self, record: RequestRecord) -> None:
        """Keep *record*, of a request that is over and about to be let go of.

        Each request comes by here, so nothing is done that can be done when somebody looks.
        """
        request = record.request
        if request is not None and (session := request._session) is not None:
            record._session_id = session._uid
        if record.sent > SMALL:
            self.weigh(record)
        self._append(record)
        if self.is_alert:
            self.tell()

    def _give_number(self, record: RequestRecord) -> None:
        if not record.number:
            self._last_number = record.number = self._last_number + 1

    def _give_numbers(self) -> None:
        for record in self._ring:
            self._give_number(record)

    def note_failure(
        self, record: RequestRecord, what: str, page: str, report: ErrorReport
    ) -> None:
        """Keep *report*, of an error that the request of *record* had."""
        self._give_numbers()  # those that came before it have the smaller ones
        self._give_number(record)
        self.failure_count += 1
        record.error = self.failure_count
        self.failures.append(
            FailureNote(record.error, time.time(), what, page, report, record.number)
        )

    # Bodies

    @property
    def kept_bytes(self) -> int:
        """How many bytes of bodies are kept."""
        return sum(map(_kept_by, self._ended()))

    def weigh(self, record: RequestRecord) -> None:
        """Bound what is kept of the bodies of a request."""
        record.response_start = beginning_of(record.response_start, len(record.response_start))
        self._uncounted += _kept_by(record)
        if self._uncounted > UNCOUNTED:
            self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest bodies if there is too much; those of pinned requests last."""
        self._uncounted = 0
        excess = self.kept_bytes - (MOST_BODIES - UNCOUNTED - LARGEST - SMALL * MOST_RECORDS)
        for record in sorted(self._ended(), key=lambda record: record.pinned):
            if excess <= 0:
                return
            if kept := _kept_by(record):
                excess -= kept
                record.response_start = record.request_start = b""
                record.lacks_bodies = True

    # What is kept

    @property
    def number(self) -> int:
        """The number of the newest record; 0 before the first."""
        self._give_numbers()
        return self._last_number

    def records(self) -> list[RequestRecord]:
        """Return the records, the oldest first: those that run, those that are pinned, the last."""
        return sorted([*self._ended(), *self.running()], key=lambda record: record.number)

    def running(self) -> list[RequestRecord]:
        """Return the records of requests that have no end yet, the oldest first."""
        found = sorted(filter(is_recorded, self._find_running()), key=lambda record: record.started)
        for record in found:
            self._give_number(record)
        return found

    def shown(self) -> list[RequestRecord]:
        """Return the records that views show, the oldest first."""
        records = self.records()
        others = [each for each in records if not each.pinned]
        return [*(each for each in records if each.pinned), *others[-MOST_SHOWN:]]

    def clear(self) -> int:
        """Forget those that are over and not pinned; return how many they were."""
        self._give_numbers()
        count = sum(not each.pinned for each in self._ring)
        self._ring.clear()
        return count

    def _ended(self) -> list[RequestRecord]:
        """Those that are over, as they ended; pinned ones first."""
        self._give_numbers()
        pinned = [each for each in self._pinned.values() if each.seconds is not None]
        return [*pinned, *(each for each in self._ring if not each.pinned)]

    def get(self, number: int) -> RequestRecord:
        """Return the record of that number.

        Raises:
            Forgotten: it is not kept any more.
            KeyError: there was none yet.
        """
        for record in (*self._ended(), *self.running()):
            if record.number == number:
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
        from rpyserve.inspector.request_observer import Listening  # nobody else needs it

        if self.is_closed:
            return
        self._watched_until = trio.current_time() + LOOK
        self._be_alert()
        if self._listening is None:
            self._listening = Listening()
            self._listening.start()

    def close(self) -> None:
        """Nobody looks any more, and whoever waits goes on."""
        self.is_closed = True
        self._watched_until = None
        self.tell()

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.stop()
            self._listening = None

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked of late."""
        until = self._watched_until
        return until is not None and trio.current_time() < until

    async def wait_until(self, is_there: Callable[[], bool], seconds: float) -> None:
        """Wait until *is_there*, at most so many *seconds*; requests that come and go may do it."""
        with trio.move_on_after(seconds):
            while not (is_there() or self.is_closed):
                if self._waiting is None:
                    self._waiting = trio.Event()
                self._be_alert()
                await self._waiting.wait()

    def _be_alert(self) -> None:
        """Give requests their numbers as they begin, from now on."""
        if not self.is_alert:
            self._give_numbers()
            self.is_alert = True

    def tell(self) -> None:
        """Have all who wait look again: something has happened that views show."""
        self.news += 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set()
        self.is_alert = self.is_watched
        if not self.is_alert:
            self._stop_listening()


def is_recorded(record: RequestRecord) -> bool:
    """Return whether *record* is of a request for the site, and not for the server itself."""
    request = record.request
    return request is None or (request._logged and not request.raw_path.startswith("/-/"))


def _kept_by(record: RequestRecord) -> int:
    return len(record.response_start) + len(record.request_start)
