"""Visitors' sessions, and the registry that all visitors share.

A session ends once, for one reason, and never comes back to life: first it is forgotten, then its callbacks are
called. When it is due is the business of the store it belongs to; see `sessions`. Constructors never ask the clock, so
that ``Session(None, None)`` works in a plain prompt. Knows nothing of requests and cookies.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from rpyserve.scripts import definitions
from rpyserve.sessions import callbacks
from rpyserve.sessions.callbacks import Callback
from rpyserve.sessions.components import Components
from rpyserve.sessions.expiry import Bucket

if TYPE_CHECKING:
    from rpyserve.sessions.store import SessionStore

__all__ = ["EndReason", "Registry", "Session"]

DEFAULT: Final = 900
"""Seconds that a session lives if nobody says otherwise."""


class _SiteTimeout:
    """The ``sessionTimeout`` of sessions of whose time-out neither class nor instance says anything: the site's."""

    def __get__(self, session: Session | None, owner: type) -> float:
        sessions = None if session is None else session._store
        if sessions is None:
            sessions = getattr(getattr(session, "site", None), "sessions", None)
        said = None if sessions is None else sessions.timeout
        return DEFAULT if said is None else said


class EndReason(enum.Enum):
    """Why a session ended."""

    IDLE = "idle"
    EXPIRED = "expired"
    EVICTED = "evicted"
    STOPPED = "stopped"

    __hash__ = (
        object.__hash__
    )  # enum's own, a Python function, is a tenth of what it takes to end a session


class Session(Components):
    """What the site keeps for one visitor, from the first `Request.getSession` until the visitor stays away.

    A mapping: ``session["user"] = name`` keeps a value for the session's life. Adaptable: ``ICounter(session)`` is
    the component that `registerAdapter` says how to make, the same object ever after.

    Args:
        site: the `Site` it belongs to, or None.
        uid: its id: a text, safe in URLs, that cannot be guessed. The whole of it is for its visitor only.

    Attributes:
        sessionTimeout: seconds it lives after its last access; None or `math.inf` for ever. What a subclass says
            goes before ``--session-timeout``; set on one session, it counts from that session's next access.
        new: True during the request that made it.
        ended: why it ended, an `EndReason`; None while it lives.
        cookieName, cookieSecure, cookieHttpOnly, cookieSameSite, cookiePath: of its cookie, for subclasses. The name
            None stands for one that carries the server's port, and Secure None for: over https.

    "Twisted Web in 60 seconds": session basics, session objects, session endings.
    """

    __slots__ = ("_callbacks", "_lives", "_store", "_tick", "_used", "ended", "new", "site", "uid")

    sessionTimeout: float | None = cast(Any, _SiteTimeout())

    cookieName: str | None = None
    cookieSecure: bool | None = None
    cookieHttpOnly: bool = True
    cookieSameSite: str | None = "Lax"
    cookiePath: str = "/"

    _callbacks: list[Callback] | None
    _lives: float
    _store: SessionStore | None
    _tick: Bucket | None
    _used: float
    ended: EndReason | None
    new: bool
    site: Any
    uid: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        # As `Components` has it: to ask it would be a tenth of what it takes to make a session.
        self._values = self._components = None
        self._generation = definitions.generation
        self._callbacks = self._store = self._tick = self.ended = self.site = self.uid = None
        self._lives = math.inf
        self._used = -math.inf
        self.new = True
        return self

    def __init__(self, site: Any, uid: str | None) -> None:
        self.site = site
        self.uid = uid

    def __repr__(self) -> str:
        state = f"ended: {self.ended.value}" if self.ended else "live"
        return f"<{type(self).__name__} {self.label or 'without id'}, {state}>"

    @property
    def label(self) -> str:
        """The first characters of its id: enough to tell sessions apart, too few to take one over."""
        return (self.uid or "")[:6]

    @property
    def _deadline(self) -> float:
        # Not kept, as most sessions share one time-out: a float less in each saves a tenth of its memory.
        return self._used + self._lives

    def touch(self) -> bool:
        """Count as an access: it lives on for its full time.

        Returns:
            Whether it lives. One whose time is over ends here, and an ended one stays ended.
        """
        store = self._store
        if store is None:
            return self.ended is None
        # The usual case, in which one assignment is all there is to do. Seen here, it takes half as long as over there.
        now = store.now()
        if (
            now < self._used + self._lives
            and self.sessionTimeout is self._lives
            and self.ended is None
            and self._generation == definitions.generation
        ):
            self._used = now
            return True
        return store.touch(self)

    def expire(self) -> None:
        """End the session now, callbacks included. Doing so twice does nothing."""
        if self._store is not None:
            self._store.end(self, EndReason.EXPIRED)
        else:
            self._end(EndReason.EXPIRED)

    def regenerate(self) -> None:
        """Give the session a new id, which the response to this request brings to its visitor. The old one is dead.

        The session stays the same object and keeps all it holds. Call it when a visitor logs in or out: whoever
        learned the id before, or made the visitor use it, has nothing then. A request that comes with the old id gets
        a new session. Counts as an access; does nothing to a session that has ended.

        Call it before the first ``yield`` or ``write``: the cookie goes out with the head of the response.
        """
        if self._store is not None:
            self._store.renew(self)

    def notifyOnExpire(self, callback: Callback) -> None:
        """Have *callback* called once, when the session ends, whatever the reason; at once if it has ended.

        Args:
            callback: a plain or async function without arguments. One that raises is reported and does not stop
                the others. What it refers to is kept alive until the session ends. After an edit of a cached script
                or a module of the site, it takes the place of those of its name from before the edit.

        Raises:
            TypeError: *callback* is no function.

        "Twisted Web in 60 seconds": session endings.
        """
        callbacks.check(callback)
        if self.ended is not None:
            self._call(callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks[:] = [
                each for each in self._callbacks if not callbacks.replaces(callback, each)
            ]
            self._callbacks.append(callback)

    def _without_side_effects(self, make: Callable[[], Any]) -> Any:
        waiting = None if self._callbacks is None else list(self._callbacks)
        try:
            return super()._without_side_effects(make)
        finally:
            if self.ended is None:
                self._callbacks = waiting

    def _another(self) -> Session:
        return type(self)(self.site, self.uid)

    def _end(self, why: EndReason) -> None:
        if self.ended is not None:
            return
        self.ended = why
        if self._callbacks is not None:
            waiting, self._callbacks = self._callbacks, None
            for callback in waiting:
                self._call(callback)

    def _call(self, callback: Callback) -> None:
        work = callbacks.call(
            callback, self.label, None if self._store is None else self._store.errors
        )
        if work is not None:
            go_on = callbacks.discard if self._store is None else self._store._tasks.start
            go_on(work, callback, self.label)


class Registry(Components):
    """What a site keeps for all its visitors: the counterpart of a `Session`, mapping and adaptable like it.

    Args:
        site: the `Site` it belongs to, or None.
    """

    __slots__ = ("site",)

    _called = "registry"

    site: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.site = None
        return self

    def __init__(self, site: Any = None) -> None:
        self.site = site

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self)} values>"
