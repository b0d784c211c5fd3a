"""Scripts that block the event loop: found on a stack, named, and interrupted where that is wanted.

Sync code of a script runs in the loop, so whatever it waits for, every visitor waits for.
`Watchdog` looks from a thread of its own, because the loop cannot look while it is blocked. What it
sees is a `BusyRun`: the outermost call of the author's code, for as long as that lasts. It names
one that lasts, and has it interrupted once a file on its stack has been saved, or after a time
limit. Raising something there is the business of `signals`, which alone can do it. Calls that were
slow and have ended are reported by `rpyserve.util.slow_calls`.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import trio

from rpyserve.scripts.execution import Execution, execution_in
from rpyserve.scripts.source import line_at
from rpyserve.util.author_code import (
    PACKAGE_DIRECTORY,
    display_path,
    display_position,
    frames_from,
    innermost_author_frame,
    is_author_code,
    outermost_author_frame,
)
from rpyserve.util.exceptions import Interruption, ScriptInterrupted
from rpyserve.util.slow_calls import ASYNC_ADVICE, BLOCKED, slow_call_log
from rpyserve.util.text import format_duration

# Seconds that a run may have lasted before anything is done about it: it may be about to end.
AT_WORK: Final = 0.2

# Seconds between two looks at a run that lasts.
CLOSE_LOOK: Final = 0.05

# Seconds by which the time of a file may be behind that of the process.
CLOCK_STEP: Final = 0.05

_DEBUGGERS: Final = frozenset({"pdb", "bdb", "cmd", "code", "IPython.core.debugger"})
# What waits for a connection, or for a process that may have one.
_MODULES_THAT_WAIT: Final = frozenset({"selectors", "socket", "ssl", "subprocess"})
_AWAIT_ADVICE: Final = (
    "It is in an async function, but others have their turn only where that awaits something. If "
    "it is meant: `await trio.to_thread.run_sync(f)` for the slow call, or write it as a function "
    "of its own with @in_thread above it; or `await trio.sleep(0)` in the loop."
)
_HOW_TO_INTERRUPT: Final = " Saving the script interrupts it, and so does Ctrl-C."

log = logging.getLogger("rpyserve")


@dataclass(slots=True, eq=False)
class BusyRun:
    """A call of the author's code that holds the loop, from when it was first seen.

    Args:
        round: the time at which the loop's present round of work began.
        frame: the outermost frame of the author's code: no other run has it in the same round.
        began: about when it began, by `time.monotonic`.
        contents: of the files on its stack that were looked at, what they held at the last look.
        unchanged: those of them that held the code that runs.
    """

    round: float
    frame: FrameType
    began: float
    contents: dict[Path, bytes | None] = field(default_factory=dict)
    unchanged: set[Path] = field(default_factory=set)

    def is_same(self, other: BusyRun) -> bool:
        """Whether *other* was noted of this run, too."""
        return self.frame is other.frame and self.round == other.round

    def is_on_stack(self, frame: FrameType | None) -> bool:
        """Whether this is the run of which *frame* is the innermost frame."""
        return any(each is self.frame for each in frames_from(frame))


class Interruptor(Protocol):
    """Who can raise something in the thread of the loop; see `signals.Signals`."""

    def interrupt(self, run: BusyRun, cause: ScriptInterrupted | None, /) -> None:
        """End *run* because of *cause*; if that is None, insist on what was asked for before."""


class Watchdog(trio.abc.Instrument):
    """Names a script that blocks the loop, with its current line, while it does: once per episode.

    Args:
        asked: whether a connection to this very server waits to be accepted: the script may be
            asking itself.
        threshold: seconds that a script may block without being named.
        interruptor: ends runs; None where nobody can.
        timeout: seconds after which a run is ended.

    Made in the thread of the loop that it watches.
    """

    def __init__(
        self,
        asked: Callable[[], bool] = lambda: False,
        *,
        threshold: float = BLOCKED,
        interruptor: Interruptor | None = None,
        timeout: float = math.inf,
    ) -> None:
        self._asked = asked
        self._threshold = threshold
        self._interruptor = interruptor
        self._timeout = timeout
        self._thread = threading.get_ident()
        self._since: float | None = None
        self._reported: float | None = None
        self._last_look = 0.0
        self.run: BusyRun | None = None

    def after_io_wait(self, timeout: float) -> None:
        """The loop begins a round of work."""
        self._since = time.monotonic()

    def before_io_wait(self, timeout: float) -> None:
        """The loop has done its round."""
        # What a frame holds must be let go of in this thread.
        self._since = self.run = None

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

    def round(self) -> float | None:
        """When the loop's present round of work began, by `time.monotonic`; None if it waits."""
        return self._since

    def blocked_for(self) -> float:
        """Seconds since the loop last waited for anything; 0 if it waits now."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def look(self) -> None:
        """Name the script that blocks, if one does and has not been named, or interrupt it."""
        since, frame = self._since, sys._current_frames().get(self._thread)
        run = self._note_run(since, frame)
        if run is None or _runs_in(_DEBUGGERS, frame):
            return
        self._name_if_due(run, frame)
        if self._interruptor is not None and time.monotonic() - run.began >= AT_WORK:
            self._interruptor.interrupt(run, self._cause(run, frame))

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._threshold / 8 if self.run is None else CLOSE_LOOK):
            self.look()

    def _note_run(self, since: float | None, frame: FrameType | None) -> BusyRun | None:
        """The run of which *frame* is the innermost frame, in the round that began at *since*."""
        last_look, self._last_look = self._last_look, time.monotonic()
        outermost = None if since is None else outermost_author_frame(frame)
        run = self.run
        if since is None or outermost is None or since != self._since:
            run = None
        elif run is None or run.frame is not outermost or run.round != since:
            run = BusyRun(since, outermost, max(since, last_look))
        self.run = run
        if self._since != since:  # the loop has let go of its runs meanwhile
            self.run = None
        return run

    # Naming

    def _name_if_due(self, run: BusyRun, frame: FrameType | None) -> None:
        if run.round == self._reported or self.blocked_for() < self._threshold:
            return
        author = innermost_author_frame(frame)
        if author is None or self._since != run.round:
            return
        self._reported = run.round
        self._report(author, frame, time.monotonic() - run.round)

    def _report(self, author: FrameType, innermost: FrameType | None, seconds: float) -> None:
        log.warning(
            "%s, has been busy for %s, and everyone else waits:\n    %s\n  %s%s",
            display_position(author),
            format_duration(round(seconds)),
            line_at(author),
            _advice(author),
            "" if self._interruptor is None else _HOW_TO_INTERRUPT,
        )
        # Another visitor's may wait as well: it is the script's own if that waits for an answer.
        if _runs_in(_MODULES_THAT_WAIT, innermost) and self._asked():
            log.warning(
                "  A connection to this server is waiting: if it is the script's own, the script "
                "waits for itself."
            )

    # Interrupting

    def _cause(self, run: BusyRun, frame: FrameType | None) -> ScriptInterrupted | None:
        """Why *run* is to be interrupted now; None if it is not."""
        saved = _saved_since(run, frame)
        if saved is not None:
            message = f"{display_path(os.fspath(saved))} was saved while this run of it was busy"
            return ScriptInterrupted(Interruption.SAVED, message)
        if time.monotonic() - run.began < self._timeout:
            return None
        limit = format_duration(self._timeout)
        message = f"it held the server for {limit}, the limit that --script-timeout sets"
        return ScriptInterrupted(Interruption.TIMEOUT, message)


def _saved_since(run: BusyRun, frame: FrameType | None) -> Path | None:
    """The file of an execution on the stack of *run* that holds other code by now.

    It must be the same at two looks: an editor may be in the middle of writing it. A file that was
    other than the code already when the run began, as in a stream of before an edit, does not
    count.
    """
    for execution in _executions_on(frame):
        path, content = execution.path, _content(execution.path)
        if content == execution.source:
            run.unchanged.add(path)
        elif path in run.contents and run.contents[path] == content:
            began = _wall_time(run.round) - CLOCK_STEP
            if path in run.unchanged or _saved_at(path) >= began:
                return path
        run.contents[path] = content
    return None


def _executions_on(frame: FrameType | None) -> set[Execution]:
    found = {execution_in(each.f_globals) for each in frames_from(frame)}
    return {each for each in found if each is not None}


def _content(path: Path) -> bytes | None:
    """What the file holds; None if it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _saved_at(path: Path) -> float:
    """The wall time of the last change of *path*; now, if it is not there any more."""
    try:
        found = path.stat()
    except OSError:
        return time.time()
    return max(found.st_mtime, found.st_ctime)


def _wall_time(moment: float) -> float:
    """What the clock on the wall showed at *moment*, a time of `time.monotonic`."""
    return time.time() - (time.monotonic() - moment)


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
