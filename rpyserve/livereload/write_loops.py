"""Telling what an author saves from what scripts write, so that no page follows its own doing for ever.

A script may write a file of the site whenever it runs. Pages that follow ask for themselves again when such a file
changes; if that asking is what changes it, twice in a row, the file is taken to be written by its script. From then on
its changes by requests are not announced, until it is saved while no request runs. Time stamps of files are compared
with when requests ran. What a form's request changes is announced: that is how other visitors see it.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from rpyserve.http.browser import FOLLOWING
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.http.types import Responder
from rpyserve.livereload.snapshot import FileChanges

__all__ = ["WriteLoopDetector"]

EARLY: Final = 0.012
"""Seconds by which a file's time stamp may lag behind: systems take it from a clock that ticks."""
LATE: Final = 0.016 if os.name == "nt" else 0.002
"""Seconds by which our own clock may."""
AFTER: Final = 0.3
"""Seconds after a request in which its script may still be writing."""
LONGEST: Final = 2.0
"""Seconds of a request that count: streams last for ever."""
ASKEW: Final = 5.0
"""Seconds by which a file's time stamp may be off before it is not believed."""
DURING: Final = 2
"""Points for a change while a page that follows was asking; one shortly after that has one point."""
ENOUGH: Final = 3
"""Points in a row at which a file is taken to be written by a script. Once may be an author who saves much at once."""
ENOUGH_FOR_CODE: Final = 40
"""The same for scripts and modules: what their authors save in haste must not be overlooked."""
IN_A_ROW: Final = 10.0
"""Seconds after which points lapse: what loops comes sooner."""
MOST: Final = 100
"""How many files a page may write by itself; a batch of more is somebody else's."""


class _Span:
    """When a request ran."""

    __slots__ = ("_now", "began", "ended", "following")

    def __init__(self, following: bool, began: float, now: Callable[[], float]) -> None:
        self.following = following
        self.began = began
        self.ended = math.inf
        self._now = now

    def end(self) -> None:
        self.ended = self._now()

    def has(self, moment: float, after: float = 0.0) -> bool:
        """Whether *moment* is in it, or up to *after* seconds later."""
        longest = self.began + (15 * LONGEST if self.following else LONGEST)
        return self.began - EARLY <= moment <= min(self.ended, longest) + after + LATE


class WriteLoopDetector:
    """Knows when requests ran, and which files they write.

    Args:
        tell: is called once with each path of a file, or of a directory in which files come and go, that a
            script writes by itself.
        now: the time in seconds since the epoch, as files have it.
    """

    def __init__(self, tell: Callable[[str], object], now: Callable[[], float] = time.time) -> None:
        self._tell = tell
        self._now = now
        self._spans: deque[_Span] = deque(maxlen=1024)
        self._points: dict[str, tuple[int, float]] = {}
        self._told: set[str] = set()

    def watching(self, respond: Responder) -> Responder:
        """Wrap *respond* so that the guard knows when requests run."""
        now, note = self._now, self._spans.append

        async def watched(request: Request) -> Response:
            span = _Span(FOLLOWING in request.raw_headers.values, now(), now)
            note(span)
            request.on_close(span.end)
            return await respond(request)

        return watched

    def self_inflicted(
        self, batch: FileChanges, files: Iterable[str], enough: int = ENOUGH
    ) -> set[str]:
        """Return which of the *files* in *batch* have changed by what pages do themselves. Ask once a batch.

        Args:
            enough: points that it takes.
        """
        together: dict[str, list[str]] = {}
        for path in files:
            # New names, each time others, are one and the same thing over and over: what counts is where.
            together.setdefault(os.path.dirname(path) if path in batch.moved else path, []).append(
                path
            )
        found: set[str] = set()
        for key, paths in together.items() if len(together) <= MOST else ():
            if self._is_written_by_pages(
                key, self._moment(max(batch.files[path] for path in paths)), enough
            ):
                found.update(paths)
        return found

    def _is_written_by_pages(self, key: str, moment: float, enough: int) -> bool:
        before, last = self._points.pop(key, (0, moment))
        points = self._points_after(before, moment, moment - last, enough)
        if points:
            self._points[key] = points, moment
        if points >= enough and key not in self._told:
            self._told.add(key)
            self._tell(key)
        return points >= enough

    def _points_after(self, before: int, moment: float, pause: float, enough: int) -> int:
        if before >= enough:
            return before if self._ran(moment, AFTER) else 0
        if pause > IN_A_ROW:
            before = 0
        if self._ran(moment, following=False):
            return before  # of two that may have done it, this one is not to be held up
        if self._ran(moment, following=True):
            return before + DURING
        return before + 1 if self._ran(moment, AFTER, following=True) else 0

    def _ran(self, moment: float, after: float = 0.0, *, following: bool | None = None) -> bool:
        """Whether a request ran at *moment*, or up to *after* seconds before."""
        return any(
            span.has(moment, after)
            for span in self._spans
            if following is None or span.following == following
        )

    def _moment(self, saved: float) -> float:
        now = self._now()
        return saved if abs(now - saved) <= ASKEW else now
