"""Scripts that block the event loop: found on a stack, and named while they do.

Sync code of a script runs in the loop, so whatever it waits for, every visitor waits for.
`Watchdog` looks from a thread of its own, because the loop cannot look while it is blocked. It only
reports. Calls that were slow and have ended are reported by `rpyserve.util.slow_calls`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

from rpyserve.util.author_code import display_position, innermost_author_frame, source_line
from rpyserve.util.slow_calls import ASYNC_ADVICE, BLOCKED, slow_call_log
from rpyserve.util.text import format_duration

_DEBUGGERS: Final = frozenset({"pdb", "bdb", "cmd", "code", "IPython.core.debugger"})

log = logging.getLogger("rpyserve")


class Watchdog(trio.abc.Instrument):
    """Names a script that blocks the loop, with its current line, while it does: once per episode.

    Args:
        asked: whether a connection to this very server waits to be accepted: the script may be
            asking itself.
        threshold: seconds that a script may block.

    Made in the thread of the loop that it watches.
    """

    def __init__(
        self, asked: Callable[[], bool] = lambda: False, *, threshold: float = BLOCKED
    ) -> None:
        self._asked = asked
        self._threshold = threshold
        self._thread = threading.get_ident()
        self._since: float | None = None
        self._reported: float | None = None

    def after_io_wait(self, timeout: float) -> None:
        """The loop begins a round of work."""
        self._since = time.monotonic()

    def before_io_wait(self, timeout: float) -> None:
        """The loop has done its round."""
        self._since = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        stopped = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(stopped,), name="rpyserve watchdog", daemon=True
        )
        trio.lowlevel.add_instrument(self)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            trio.lowlevel.remove_instrument(self)

    def blocked_for(self) -> float:
        """Seconds since the loop last waited for anything; 0 if it waits now."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def look(self) -> None:
        """Name the script that blocks, if one does and has not been named."""
        since = self._since
        if since is None or since == self._reported or self.blocked_for() < self._threshold:
            return
        frame = sys._current_frames().get(self._thread)
        if _in_debugger(frame):
            return
        author = innermost_author_frame(frame)
        if author is None or self._since != since:
            return
        self._reported = since
        self._report(author, time.monotonic() - since)

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._threshold / 8):
            self.look()

    def _report(self, frame: FrameType, seconds: float) -> None:
        if self._asked():
            advice = (
                "A connection to this server is waiting: if it is the script's own, the script "
                "waits for itself."
            )
        elif slow_call_log.in_own_call:
            advice = "The server brings objects from before an edit up to date."
        else:
            advice = f"If that is meant: {ASYNC_ADVICE}"
        log.warning(
            "%s, has been busy for %s, and everyone else waits:\n    %s\n  %s",
            display_position(frame),
            format_duration(round(seconds)),
            source_line(frame),
            advice,
        )


def _in_debugger(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") in _DEBUGGERS:
            return True
        frame = frame.f_back
    return False
