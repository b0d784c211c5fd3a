"""What is kept of sessions that have ended: the last two hundred, as text.

A session is looked at when it ends, before its callbacks are called, as the session itself must not
be kept. That takes a while for one that holds much, so of very many that end at once only some are
looked into; of the others it is kept that they have ended, and why.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, Final

from rpyserve.diagnostics.redaction import Redactor
from rpyserve.inspector.session_view import Leaf, class_name, contents_of
from rpyserve.sessions.session import Session, SessionEnd
from rpyserve.util.author_code import display_path

HANDLE: Final = 10
"""How many characters of an id are shown: 132 of its 192 bits stay secret."""

MOST_ENDED: Final = 200
MOST_A_SECOND: Final = 20
"""How many of those that end in one second are looked into."""

MOST_OF_ONE: Final = 20
"""How many values of one are kept."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A function that is called when a session ends.

    Args:
        name: its name.
        file: the file that it is from, as its author knows it; empty if that is not known.
        path: the same, absolute.
        line: where it begins there.
    """

    name: str
    file: str = ""
    path: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class EndedSession:
    """What is known of a session that has ended.

    Args:
        handle: the first characters of its id.
        kind: the name of its class.
        reason: why it ended.
        at: when, in seconds since the epoch.
        callbacks: what was called at its end.
        leaves: the first of what it held; None if it was not looked into.
    """

    handle: str
    kind: str
    reason: SessionEnd
    at: float
    callbacks: tuple[Callback, ...]
    leaves: tuple[Leaf, ...] | None


class EndedSessions:
    """The sessions that have ended of late."""

    def __init__(self) -> None:
        self._ended: deque[EndedSession] = deque(maxlen=MOST_ENDED)
        self._second, self._looked_into = 0, 0

    def add(self, session: Session, reason: SessionEnd) -> None:
        """Take note that *session* ends. Call it before its callbacks are called."""
        at = time.time()
        ended = EndedSession(
            handle_of(session),
            class_name(type(session)),
            reason,
            at,
            tuple(map(callback_of, session._callbacks or ())),
            self._leaves_of(session) if self._may_look(int(at)) else None,
        )
        self._ended.append(ended)

    def _may_look(self, second: int) -> bool:
        if second != self._second:
            self._second, self._looked_into = second, 0
        self._looked_into += 1
        return self._looked_into <= MOST_A_SECOND

    def _leaves_of(self, session: Session) -> tuple[Leaf, ...]:
        return contents_of(session, (), Redactor([session._uid or ""])).leaves[:MOST_OF_ONE]

    def newest_first(self) -> list[EndedSession]:
        """Return those that are kept."""
        return [*reversed(self._ended)]

    def get(self, handle: str) -> EndedSession | None:
        """Return the one whose id begins with *handle*, the newest of several; None for none."""
        found = (each for each in reversed(self._ended) if each.handle.startswith(handle))
        return next(found, None)


def handle_of(session: Session) -> str:
    """Return what *session* is called in the inspector."""
    return (session._uid or "")[:HANDLE]


def callback_of(called: Any) -> Callback:
    """Return what is told of a callback. Nothing of it is called."""
    function = called.__func__ if isinstance(called, MethodType) else called
    if not isinstance(function, FunctionType):
        return Callback(class_name(type(called)))
    code = function.__code__
    path = code.co_filename
    return Callback(function.__qualname__, display_path(path), path, code.co_firstlineno)
