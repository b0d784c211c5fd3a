"""Scripts that block the event loop: found on a stack, and named while they do.

Sync code of a script runs in the loop, so whatever it waits for, every visitor waits for.
`Watchdog` looks from a thread of its own, because the loop cannot look while it is blocked. It only
reports. Calls that were slow and have ended are reported by `rpyserve.util.slow_calls`.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

from rpyserve.util.author_code import (
    PACKAGE_DIRECTORY,
    display_position,
    innermost_author_frame,
    is_author_code,
    source_line,
)
from rpyserve.util.slow_calls import ASYNC_ADVICE, BLOCKED, slow_call_log
from rpyserve.util.text import format_duration

_DEBUGGERS: Final = frozenset({"pdb", "bdb", "cmd", "code", "IPython.core.debugger"})
# What waits for a connection, or for a process that may have one.
_MODULES_THAT_WAIT: Final = frozenset({"selectors", "socket", "ssl", "subprocess"})
_AWAIT_ADVICE: Final = (
    "It is in an async function, but others have their turn only where that awaits something. If "
    "it is meant: `await trio.to_thread.run_sync(f)` for the slow call, or `await trio.sleep(0)` "
    "in the loop."
)

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
        if _runs_in(_DEBUGGERS, frame):
            return
        author = innermost_author_frame(frame)
        if author is None or self._since != since:
            return
        self._reported = since
        self._report(author, frame, time.monotonic() - since)

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._threshold / 8):
            self.look()

    def _report(self, author: FrameType, innermost: FrameType | None, seconds: float) -> None:
        log.warning(
            "%s, has been busy for %s, and everyone else waits:\n    %s\n  %s",
            display_position(author),
            format_duration(round(seconds)),
            source_line(author),
            _advice(author),
        )
        # Another visitor's may wait as well: it is the script's own if that waits for an answer.
        if _runs_in(_MODULES_THAT_WAIT, innermost) and self._asked():
            log.warning(
                "  A connection to this server is waiting: if it is the script's own, the script "
                "waits for itself."
            )


def _advice(author: FrameType) -> str:
    if slow_call_log.in_own_call:
        return "The server brings objects from before an edit up to date."
    return _AWAIT_ADVICE if _is_async(author) else f"If that is meant: {ASYNC_ADVICE}"


def _runs_in(modules: frozenset[str], frame: FrameType | None) -> bool:
    """Whether code of one of *modules* is at work, or waits for what it has called."""
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY):
        if frame.f_globals.get("__name__") in modules:
            return True
        frame = frame.f_back
    return False


def _is_async(frame: FrameType | None) -> bool:
    """Whether an async function of the author's is at work: *frame*, or one that called it."""
    while frame is not None and is_author_code(frame.f_code.co_filename):
        if frame.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            return True
        frame = frame.f_back
    return False
