"""Telling what an author saves from what scripts write, so that no page reloads itself for ever.

A script may write a file of the site whenever it runs. An open page asks for itself again when such
a file changes. If that request is what changes the file, twice in a row, the file is taken to be
written by a script. From then on its changes by requests are not announced, until it is saved while
no request runs.

How it is found out: the time stamps of files are compared with the times at which requests ran.
What a form's request changes is announced, since that is how other visitors see it.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

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
# Points in a row at which a file is taken to be written by a script. One change of that kind may
# be an author who saves several files at once.
THRESHOLD: Final = 3
# The same for scripts and modules: what their authors save in haste must not be overlooked.
CODE_THRESHOLD: Final = 40
# Seconds without a change after which points lapse: a loop is faster.
POINTS_LAPSE: Final = 10.0
# How many files a page may write by itself; a batch of more has another cause.
MAX_FILES: Final = 100


class _RequestSpan:
    """When a request ran.

    Args:
        is_refetch: whether an open page asked for itself again.
        now: the clock.
    """

    __slots__ = ("_now", "ended", "is_refetch", "started")

    def __init__(self, is_refetch: bool, now: Callable[[], float]) -> None:
        self.is_refetch = is_refetch
        self.started = now()
        self.ended = math.inf
        self._now = now

    def end(self) -> None:
        self.ended = self._now()

    def includes(self, moment: float, aftermath: float = 0.0) -> bool:
        """Whether the request ran at *moment*, or had ended up to *aftermath* seconds before."""
        longest = LONGEST_REFETCH if self.is_refetch else LONGEST_REQUEST
        end = min(self.ended, self.started + longest) + aftermath
        return self.started - FILE_CLOCK_LAG <= moment <= end + OWN_CLOCK_LAG


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
        self._spans: deque[_RequestSpan] = deque(maxlen=1024)
        self._points: dict[str, tuple[int, float]] = {}
        self._reported: set[str] = set()

    def note(self, request: Request, *, is_refetch: bool) -> None:
        """Take note that *request* runs from now on, until it is closed.

        Args:
            is_refetch: whether an open page asks for itself again.
        """
        span = _RequestSpan(is_refetch, self._now)
        self._spans.append(span)
        request.on_close(span.end)

    def self_inflicted(
        self, changes: FileChanges, files: Iterable[str], threshold: int = THRESHOLD
    ) -> set[str]:
        """Return which of *files* pages have changed by being loaded. Ask once a batch.

        Args:
            changes: all that has changed.
            files: those of its files that are asked about.
            threshold: how many points it takes.
        """
        # New names, each time others, are one thing that happens again: what counts is where.
        groups: dict[str, list[str]] = {}
        for path in files:
            key = os.path.dirname(path) if path in changes.added_or_removed else path
            groups.setdefault(key, []).append(path)
        if len(groups) > MAX_FILES:
            return set()
        found: set[str] = set()
        for key, paths in groups.items():
            moment = self._plausible(max(changes.files[path] for path in paths))
            if self._is_written_by_pages(key, moment, threshold):
                found.update(paths)
        return found

    def _is_written_by_pages(self, key: str, moment: float, threshold: int) -> bool:
        before, last = self._points.pop(key, (0, moment))
        points = self._points_after(before, moment, moment - last, threshold)
        if points:
            self._points[key] = points, moment
        if points < threshold:
            return False
        if key not in self._reported:
            self._reported.add(key)
            self._on_found(key)
        return True

    def _points_after(self, before: int, moment: float, pause: float, threshold: int) -> int:
        """The points of a file that had *before*, and has changed at *moment*."""
        running, recent = self._ran(moment), self._ran(moment, AFTERMATH)
        if before >= threshold:
            return before if recent else 0
        if pause > POINTS_LAPSE:
            before = 0
        if False in running:
            return before  # of two requests that may have done it, this one is not to be held up
        if True in running:
            return before + POINTS_DURING
        return before + POINTS_AFTERWARDS if True in recent else 0

    def _ran(self, moment: float, aftermath: float = 0.0) -> set[bool]:
        """Which kinds of requests ran then: those by which pages ask for themselves, and others."""
        return {span.is_refetch for span in self._spans if span.includes(moment, aftermath)}

    def _plausible(self, saved: float) -> float:
        """*saved*, or the present time where that is not to be believed."""
        now = self._now()
        return saved if abs(now - saved) <= MAX_CLOCK_ERROR else now
