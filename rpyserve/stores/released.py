"""Sessions that this worker has given back, in case that it is the next to take them.

A record that is the same byte for byte as it was given back stands for the same session: nobody
else has written meanwhile, so that need not be made anew. What would be different then is not kept:
sessions with callbacks, as one that is registered later takes the place of one that was loaded; and
those from before an edit, as what is loaded follows the rules for what was stored.

Must not know who has a record, nor where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rpyserve.scripts import definitions
from rpyserve.sessions.session import Session

LONGEST: Final = 60.0
"""Seconds that a session is kept which nobody asks for."""

MOST: Final = 16 * 2**20
"""Bytes of the records whose sessions are kept."""

_OVERHEAD: Final = 1000


@dataclass(frozen=True, slots=True)
class _Released:
    session: Session
    blob: bytes
    since: float


class ReleasedSessions:
    """Keeps sessions under the keys of their records.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[bytes, _Released] = {}  # the one released first comes first
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, session: Session, blob: bytes) -> None:
        """Keep *session*, whose record is *blob*, if it may be used again."""
        self._forget(key)
        if session._callbacks or session._counterpart is not None or session.ended is not None:
            return
        self._size += _size(blob)
        self._kept[key] = _Released(session, blob, self._clock())
        if self._size > MOST:
            self._forget(next(iter(self._kept)))

    def take(self, key: bytes, uid: str, blob: bytes) -> Session | None:
        """Take out the session of *key*; return it if *blob* is still what it is."""
        kept = self._forget(key)
        if kept is None:
            return None
        session = kept.session
        is_same = kept.blob == blob and session._uid == uid and session.ended is None
        return session if is_same and session._generation == definitions.generation else None

    def forget_old(self) -> None:
        """Forget those that nobody has asked for. To be called now and then."""
        until = self._clock() - LONGEST
        while self._kept and next(iter(self._kept.values())).since <= until:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> _Released | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= _size(kept.blob)
        return kept


def _size(blob: bytes) -> int:
    return _OVERHEAD + len(blob)
