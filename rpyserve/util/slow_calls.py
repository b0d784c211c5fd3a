"""Sync calls that took long: a log line for each, but once a minute at most for one name.

Code of a script that is not async runs in the event loop, so whatever it waits for, every visitor
waits for. This module measures and reports calls that have ended. A call that has not ended yet is
the business of the watchdog, which looks from another thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rpyserve.util.throttle import ThrottledLogger

# Seconds after which a call is reported when it is over.
SLOW: Final = 0.1

# Seconds after which the watchdog reports a call that is not over.
BLOCKED: Final = 2.0

ASYNC_ADVICE: Final = (
    "write `@in_thread` above it (`from rpyserve import in_thread`), or `async def`, and "
    "`await trio.to_thread.run_sync(f)` for the slow call."
)

_log = logging.getLogger("rpyserve")


class SlowCallLog:
    """Reports slow calls by their names.

    Attributes:
        threshold: seconds that a call may take without being reported.
        observers: called with the name and the seconds of each slow call, in its thread.
    """

    def __init__(self) -> None:
        self.threshold = SLOW
        self.observers: list[Callable[[str, float], object]] = []
        self._lines = ThrottledLogger(_log, clock=time.monotonic)
        self._own_calls: deque[tuple[float, float]] = deque(maxlen=1000)
        self._own_calls_under_way = 0

    # Calls that the server makes on its own account, inside of a script's

    @contextmanager
    def own_call(self) -> Iterator[None]:
        """While inside, it is the server that wants a script's code called, not the script.

        The script is not blamed for that time. One may be inside of another.
        """
        began = time.perf_counter()
        self._own_calls_under_way += 1
        try:
            yield
        finally:
            self._own_calls_under_way -= 1
            if not self._own_calls_under_way:
                self._own_calls.append((began, time.perf_counter() - began))

    @property
    def in_own_call(self) -> bool:
        """Whether such a call is under way."""
        return self._own_calls_under_way > 0

    def own_seconds_since(self, began: float) -> float:
        """How long such calls have taken since *began*, a time of `time.perf_counter`."""
        return sum(seconds for start, seconds in list(self._own_calls) if start >= began)

    # Reports

    def report(self, name: str, seconds: float, advice: str = "") -> None:
        """Report a call if it took too long.

        Args:
            name: what was called. It begins the line, and calls of the same name are reported once
                a minute.
            seconds: how long it took.
            advice: a sentence that says what to do.
        """
        if seconds > self.threshold:
            for observer in list(self.observers):
                observer(name, seconds)
            took = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
            self._lines.warn(
                "%s took %s, and everyone else waited.%s",
                name, took, advice and f" {advice}", key=name,
            )  # fmt: skip

    def report_script(self, name: str, seconds: float) -> None:
        """Report a call of a script's code if it took too long, with advice for its author."""
        # Of what took clearly longer than `BLOCKED` the watchdog has given the advice.
        advice = "" if seconds > 1.5 * BLOCKED else f"To let others go on meanwhile: {ASYNC_ADVICE}"
        self.report(name, seconds, advice)


# The one of this process.
slow_call_log: Final = SlowCallLog()
