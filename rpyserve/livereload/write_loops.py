"""Telling what an author saves from what scripts write, so that no page reloads itself for ever.

A script may write a file of the site whenever it runs. An open page asks for itself again when such
a file changes. If that request changes the file again and again, the change is held back until no
request has run for a moment, and then announced on trial: if the page's next request changes the
file once more, it is taken to be written by a script. From then on its changes by requests are not
announced, until it is saved while no request runs. The same is decided at once where a page reloads
too often, because of what requests write that its own scripts make.

How it is found out: the time stamps of files are compared with the times at which requests ran.
What a form's request changes is announced, since that is how other visitors see it. The page whose
request it was is to leave such a change alone, so the requests that caused it are passed on.
"""

from __future__ import annotations

import enum
import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Final

from rpyserve.files.path_rules import is_script
from rpyserve.http.browser import browser_of
from rpyserve.http.request import Request
from rpyserve.livereload.snapshot import FileChanges

# Seconds by which a file's time stamp may lag behind: systems take it from a clock that ticks.
FILE_CLOCK_LAG: Final = 0.012
# Seconds by which this process's clock may lag behind.
OWN_CLOCK_LAG: Final = 0.016 if os.name == "nt" else 0.002
# Seconds after a request in which its script may still be writing.
AFTERMATH: Final = 0.3
# Seconds of a request that count, since streams last for ever.
LONGEST_REQUEST: Final = 2.0
# The same for a request by which an open page asks for itself again.
LONGEST_REFETCH: Final = 30.0
# Seconds by which a file's time stamp may be off before it is not believed.
MAX_CLOCK_ERROR: Final = 5.0
# Points for a change while an open page asked for itself.
POINTS_DURING: Final = 2
# Points for a change shortly after that.
POINTS_AFTERWARDS: Final = 1
# Points in a row at which a file may be written by a script. One change of that kind may be an
# author who saves several files at once.
THRESHOLD: Final = 3
# The same for scripts and modules: what their authors save in haste must not be overlooked.
CODE_THRESHOLD: Final = 40
# Points on trial at which it is: one change of that kind may be an author who saves again.
TRIAL_THRESHOLD: Final = 2
# Seconds without a change after which points lapse: a loop is faster.
POINTS_LAPSE: Final = 10.0
# How many files a page may write by itself; a batch of more has another cause.
MAX_FILES: Final = 100
# How many reloads are kept.
MAX_KEPT_RELOADS: Final = 100
# How often a page may reload within `RELOAD_PERIOD` because of what requests write, however many
# tabs show it.
MAX_RELOADS: Final = 3
# Seconds.
RELOAD_PERIOD: Final = 2.0
# How often in a row pages that have just reloaded may change a file: two pages may have each other
# reload, however slowly.
MAX_CHAIN: Final = 5


class RequestSpan:
    """When a request ran.

    Args:
        request: the request.
        is_refetch: whether an open page asked for itself again.
        now: the clock.

    Attributes:
        started: in seconds since the epoch.
        ended: the same; infinite while it runs.
        client: the browser that made the request; see `browser_of`.
    """

    __slots__ = ("_now", "_sources", "client", "ended", "is_refetch", "started")

    def __init__(self, request: Request, is_refetch: bool, now: Callable[[], float]) -> None:
        self.is_refetch = is_refetch
        self.started = now()
        self.ended = math.inf
        self._now = now
        # Not the headers: those of a thousand requests are more than a processor keeps at hand.
        self.client: Hashable = browser_of(request.client[0], request.raw_headers)
        self._sources = request._sources

    @property
    def is_writing(self) -> bool:
        """Whether what it writes may be the purpose of the request.

        A static file writes nothing, and a page that asks for itself again wants to be up to date:
        whatever changes meanwhile is news to it.
        """
        sources = self._sources
        return not self.is_refetch and (not sources or any(map(is_script, sources)))

    def end(self) -> None:
        self.ended = self._now()

    def includes(self, moment: float, aftermath: float = 0.0) -> bool:
        """Whether the request ran at *moment*, or had ended up to *aftermath* seconds before."""
        longest = LONGEST_REFETCH if self.is_refetch else LONGEST_REQUEST
        end = min(self.ended, self.started + longest) + aftermath
        return self.started - FILE_CLOCK_LAG <= moment <= end + OWN_CLOCK_LAG


class _State(enum.Enum):
    """What is known of a file, or of a directory in which files come and go."""

    WATCHED = enum.auto()
    HELD = enum.auto()  # its changes wait until no request runs
    ON_TRIAL = enum.auto()  # they have been announced: does a request change it once more?
    FOUND = enum.auto()  # it is written by a script


@dataclass(slots=True)
class _Record:
    """What is known of one file.

    Args:
        last: when it changed last, in seconds since the epoch.
        points: how often, weighted, an open page may have changed it in a row.
        trial_points: the same for its changes on trial.
        chain: how often in a row a page that had just reloaded has changed it.
        chained: the change that was counted last.
        state: what follows from that.
    """

    last: float
    points: int = 0
    trial_points: int = 0
    chain: int = 0
    chained: float = 0.0
    state: _State = _State.WATCHED


@dataclass(frozen=True, slots=True)
class _Reload:
    """A page that has loaded itself again; see `WriteLoopDetector.note_reload`."""

    when: float
    client: Hashable
    page: str
    cursor: str


class WriteLoopDetector:
    """Knows when requests ran, and which files they write.

    Args:
        on_found: called once with each path that a script writes by itself: that of a file, or of a
            directory in which files come and go.
        now: the time in seconds since the epoch, as files have it.
    """

    def __init__(
        self, on_found: Callable[[str], object], now: Callable[[], float] = time.time
    ) -> None:
        self._on_found = on_found
        self._now = now
        self._spans: deque[RequestSpan] = deque(maxlen=1024)
        self._records: dict[str, _Record] = {}
        self._reported: set[str] = set()
        self._saved = 0.0  # when an author saved last
        self._written: deque[tuple[float, str]] = deque(maxlen=MAX_FILES)  # by requests
        self._reloads: deque[_Reload] = deque(maxlen=MAX_KEPT_RELOADS)

    def note(self, request: Request, *, is_refetch: bool) -> None:
        """Take note that *request* runs from now on, until it is closed.

        Args:
            is_refetch: whether an open page asks for itself again.
        """
        span = RequestSpan(request, is_refetch, self._now)
        self._spans.append(span)
        request.on_close(span.end)

    def note_reload(self, client: Hashable, page: str, cursor: str) -> None:
        """Take note that a page has loaded itself again.

        Args:
            client: its browser; see `browser_of`.
            page: its path.
            cursor: the last change that it shows.
        """
        self._reloads.append(_Reload(self._now(), client, page, cursor))
        since = self._now() - RELOAD_PERIOD
        recent = [each for each in self._reloads if each.when >= since]
        changes = {each.cursor for each in recent if (each.client, each.page) == (client, page)}
        if len(changes) > MAX_RELOADS:
            for key, when in self._recently_written().items():
                self._note_found(key, self._records.setdefault(key, _Record(when)))

    def note_caused(self) -> None:
        """Take note that a page that has just reloaded has caused the last change, by itself."""
        for key, when in self._recently_written().items():
            record = self._records.setdefault(key, _Record(when))
            if when == record.chained:
                continue  # another page has said so
            is_next = when - record.chained <= POINTS_LAPSE and record.chained > self._saved
            record.chain, record.chained = record.chain + 1 if is_next else 1, when
            if record.chain > MAX_CHAIN:
                self._note_found(key, record)

    def causes(self, changes: FileChanges, files: Collection[str]) -> tuple[RequestSpan, ...]:
        """Return the requests that may have written *files*, as they ran when these changed.

        Returns:
            None of them if one of the files changed while no such request ran.
        """
        if changes.directories or not files:
            return ()
        moments = {self._plausible(changes.files[path]) for path in files}
        spans = [[span for span in self._running(moment) if span.is_writing] for moment in moments]
        return tuple({span for group in spans for span in group}) if all(spans) else ()

    def self_inflicted(
        self, changes: FileChanges, files: Iterable[str], *, is_code: bool = False
    ) -> set[str]:
        """Return which of *files* pages seem to change by being loaded. Ask once a batch.

        Args:
            changes: all that has changed.
            files: those of its files that are asked about.
            is_code: whether they are scripts and modules.
        """
        groups = _groups(changes, files)
        if len(groups) > MAX_FILES:
            return set()
        found: set[str] = set()
        for key, paths in groups.items():
            moment = self._plausible(max(changes.files[path] for path in paths))
            if self._is_written_by_pages(key, moment, is_code):
                found.update(paths)
        return found

    def take_held(self, changes: FileChanges, files: Iterable[str]) -> set[str]:
        """Return which of *files* were held back, and are on trial from now on."""
        taken: set[str] = set()
        for key, paths in _groups(changes, files).items():
            record = self._records.get(key)
            if record and record.state is _State.HELD:
                record.state = _State.ON_TRIAL
                taken.update(paths)
        return taken

    def is_quiet(self) -> bool:
        """Whether no request has run for a moment."""
        return not self._ran(self._now(), AFTERMATH)

    def _is_written_by_pages(self, key: str, moment: float, is_code: bool) -> bool:
        recent = self._ran(moment, AFTERMATH)
        record = self._records.pop(key, None) or _Record(moment)
        self._judge(record, moment, recent, CODE_THRESHOLD if is_code else THRESHOLD)
        if record.state in (_State.WATCHED, _State.ON_TRIAL):
            self._note_announced(key, by_request=bool(recent) and not is_code)
        record.last = moment
        if record.points or record.chain or record.state is not _State.WATCHED:
            self._records[key] = record
        if record.state is _State.FOUND:
            self._note_found(key, record)
        return record.state in (_State.HELD, _State.FOUND)

    def _judge(self, record: _Record, moment: float, recent: set[bool], threshold: int) -> None:
        """Have *record* say what follows from a change at *moment*, shortly after *recent*."""
        if record.state is _State.WATCHED:
            record.points = self._points_after(record, moment, recent)
            if record.points >= threshold:
                record.state = _State.HELD
        elif record.state is _State.ON_TRIAL and True in recent:
            is_during = True in self._ran(moment)
            record.trial_points += POINTS_DURING if is_during else POINTS_AFTERWARDS
            is_proved = record.trial_points >= TRIAL_THRESHOLD
            record.state = _State.FOUND if is_proved else _State.HELD
        elif not recent or record.state is _State.ON_TRIAL:  # somebody else has written it
            record.points = record.trial_points = record.chain = 0
            record.state = _State.WATCHED

    def _points_after(self, record: _Record, moment: float, recent: set[bool]) -> int:
        """The points of a file that has changed at *moment*, shortly after *recent* requests."""
        before = record.points if moment - record.last <= POINTS_LAPSE else 0
        running = self._ran(moment)
        if False in running:
            return before  # of two requests that may have done it, this one is not to be held up
        if True in running:
            return before + POINTS_DURING
        return before + POINTS_AFTERWARDS if True in recent else 0

    def _note_announced(self, key: str, *, by_request: bool) -> None:
        """Remember a change that is not held back, and whether a request may have made it."""
        if by_request:
            self._written.append((self._now(), key))
        else:
            self._reloads.clear()  # a save: what reloads now has a reason
            self._saved = self._now()

    def _recently_written(self) -> dict[str, float]:
        """When each file was changed last that requests have changed within `RELOAD_PERIOD`."""
        since = self._now() - RELOAD_PERIOD
        return {key: when for when, key in self._written if when >= since}

    def _note_found(self, key: str, record: _Record) -> None:
        record.state = _State.FOUND
        if key not in self._reported:
            self._reported.add(key)
            self._on_found(key)

    def _ran(self, moment: float, aftermath: float = 0.0) -> set[bool]:
        """Which kinds of requests ran then: those by which pages ask for themselves, and others."""
        return {span.is_refetch for span in self._running(moment, aftermath)}

    def _running(self, moment: float, aftermath: float = 0.0) -> list[RequestSpan]:
        return [span for span in self._spans if span.includes(moment, aftermath)]

    def _plausible(self, saved: float) -> float:
        """*saved*, or the present time where that is not to be believed."""
        now = self._now()
        return saved if abs(now - saved) <= MAX_CLOCK_ERROR else now


def _groups(changes: FileChanges, files: Iterable[str]) -> dict[str, list[str]]:
    """The *files*, those that came or went by their directory.

    New names, each time others, are one thing that happens again: what counts is where.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[os.path.dirname(path) if path in changes.added_or_removed else path].append(path)
    return groups
