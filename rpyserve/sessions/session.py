"""Visitors' sessions, and the registry that all visitors share.

A session ends once, for one reason, and never comes back to life: first its store forgets it, then
its callbacks are called. When it is due is the business of its store. Constructors never ask the
clock, so that ``Session(None, None)`` works in a plain prompt.

What a store does with its sessions are functions at the end of this module, not methods: scripts
have subclasses of `Session`, whose methods may have any name.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

from rpyserve._names import public
from rpyserve.scripts import definitions
from rpyserve.scripts.threads import in_loop
from rpyserve.sessions import callbacks
from rpyserve.sessions.callbacks import Callback, CallbackTasks
from rpyserve.sessions.components import Components, Entry
from rpyserve.sessions.expiry import Bucket, ExpiryTimer

DEFAULT_TIMEOUT: Final = 900
"""Seconds that a session lives if nobody says otherwise."""


class Store(Protocol):
    """What a session needs of the `SessionStore` that it belongs to."""

    timeout: float | None
    """Seconds that sessions live whose class does not say so; None for the default."""

    callbacks: CallbackTasks
    """Calls the callbacks of sessions that end."""

    now: Callable[[], float]
    """Returns the time."""

    def touch(self, session: Session, /) -> bool: ...

    def end(self, session: Session, reason: SessionEnd, /) -> None: ...

    def regenerate(self, session: Session, /) -> None: ...


class _SiteTimeout:
    """The ``sessionTimeout`` of sessions where neither class nor instance has one: the site's."""

    def __get__(self, session: Session | None, owner: type) -> float:
        store = None if session is None else session._store
        if store is None:  # as it is while the session is constructed
            store = getattr(getattr(session, "site", None), "sessions", None)
        timeout = None if store is None else store.timeout
        return DEFAULT_TIMEOUT if timeout is None else timeout


class SessionId(str):
    """The id of a session: a text that joins with bytes, too, as in scripts written for Twisted."""

    __slots__ = ()

    def __radd__(self, other: Any) -> Any:
        return other + (bytes(self) if isinstance(other, bytes) else str(self))

    def __add__(self, other: Any) -> Any:
        return bytes(self) + other if isinstance(other, bytes) else str.__add__(self, other)

    def __bytes__(self) -> bytes:
        return self.encode()


@public
class SessionEnd(enum.Enum):
    """Why a session ended."""

    IDLE = "idle"
    EXPIRED = "expired"
    EVICTED = "evicted"
    STOPPED = "stopped"

    # Each end of a session is counted in a dict, and the hash of `enum.Enum` is a Python function.
    __hash__ = object.__hash__


@public
class Session(Components):
    """What the site keeps for one visitor, until the visitor stays away.

    A mapping: ``session["user"] = name`` keeps a value for the session's life. Adaptable:
    ``ICounter(session)`` is the component that `registerAdapter` says how to make, the same object
    ever after.

    Args:
        site: the `Site` it belongs to, or None.
        uid: its id: a text, safe in URLs, that cannot be guessed. The whole of it is for its
            visitor only.

    Attributes:
        sessionTimeout: seconds it lives after its last access; None or `math.inf` for ever. What a
            subclass says goes before ``--session-timeout``; set on one session, it counts from that
            session's next access.
        new: True during the request that made it.
        ended: why it ended, a `SessionEnd`; None while it lives.
        cookieName: the name of its cookie, for subclasses. None stands for one that carries the
            server's port.
        cookieSecure: whether browsers send its cookie over https only. None stands for: if it was
            made over https.
        cookieHttpOnly: whether scripts in the page cannot read its cookie.
        cookieSameSite: the SameSite attribute of its cookie; None for no such attribute.
        cookiePath: the Path attribute of its cookie.

    "Twisted Web in 60 seconds": session basics, session objects, session endings.
    """

    __slots__ = (
        "_bucket",
        "_callbacks",
        "_last_access",
        "_record",
        "_store",
        "_timeout",
        "_uid",
        "ended",
        "new",
        "site",
    )

    sessionTimeout: float | None = cast(Any, _SiteTimeout())

    cookieName: str | None = None
    cookieSecure: bool | None = None
    cookieHttpOnly: bool = True
    cookieSameSite: str | None = "Lax"
    cookiePath: str = "/"

    _counterpart: Any = None
    """The session of another library that stands for this one, if there is one; its ``_clock.end``
    is called at the end."""

    _bucket: Bucket | None
    _callbacks: list[Callback] | None
    _last_access: float
    _record: Any
    """What a store outside of the process has of it; None where there is none."""
    _store: Store | None
    _timeout: float
    ended: SessionEnd | None
    new: bool
    site: Any
    _uid: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self._callbacks = self._store = self._bucket = self._record = None
        self.ended = self.site = self._uid = None
        self._timeout = math.inf
        self._last_access = -math.inf
        self.new = True
        return self

    def __init__(self, site: Any, uid: str | None) -> None:
        self.site = site
        self.uid = uid

    def __repr__(self) -> str:
        state = f"ended: {self.ended.value}" if self.ended else "live"
        return f"<{type(self).__name__} {self.short_id or 'without id'}, {state}>"

    @property
    def uid(self) -> Any:
        """The session's id; see the class."""
        uid = self._uid
        return SessionId(uid) if type(uid) is str else uid

    @uid.setter
    def uid(self, uid: Any) -> None:
        self._uid = str(uid) if isinstance(uid, SessionId) else uid

    @property
    def short_id(self) -> str:
        """The first characters of its id: enough to tell sessions apart, not to take one over."""
        return (self._uid or "")[:6]

    def touch(self) -> bool:
        """Count as an access: it lives on for its full time.

        Returns:
            Whether it lives. One whose time is over ends here, and an ended one stays ended.
        """
        store = self._store
        if store is None:
            return self.ended is None
        # In the usual case one assignment is all there is to do. The store does the others.
        now = store.now()
        is_current = self.ended is None and self._generation == definitions.generation
        is_due = now >= self._last_access + self._timeout
        if is_current and not is_due and self.sessionTimeout is self._timeout:
            self._last_access = now
            return True
        return in_loop(store.touch, self)

    def expire(self) -> None:
        """End the session now, callbacks included. Doing so twice does nothing."""
        if self._store is not None:
            in_loop(self._store.end, self, SessionEnd.EXPIRED)
        else:
            finish(self, SessionEnd.EXPIRED)

    def regenerate(self) -> None:
        """Give the session a new id, which the response to this request brings to its visitor.

        The old id is dead. The session stays the same object and keeps all it holds. Call it when a
        visitor logs in or out: whoever learned the id before, or made the visitor use it, has
        nothing then. A request that comes with the old id gets a new session; one that came before,
        and has not called `getSession` yet, gets one that ends with the request and sets no cookie.
        Counts as an access; does nothing to a session that has ended.

        Call it before the first ``yield`` or ``write``: the cookie goes out with the head of the
        response.
        """
        if self._store is not None:
            in_loop(self._store.regenerate, self)

    def notifyOnExpire(self, callback: Callback) -> None:
        """Have *callback* called once, when the session ends; at once if it has ended.

        Args:
            callback: a plain or async function without arguments. One that raises is reported and
                does not stop the others. What it refers to is kept alive until the session ends.
                After an edit of a cached script or a module of the site, it takes the place of
                those from before the edit that have its name, and are bound to and closed over what
                it is.

        Raises:
            TypeError: *callback* is no function.

        "Twisted Web in 60 seconds": session endings.
        """
        callbacks.check(callback)
        if self.ended is not None:
            _call(self, callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks[:] = [
                old for old in self._callbacks if not callbacks.replaces(callback, old)
            ]
            self._callbacks.append(callback)

    def _without_side_effects(self, make: Callable[[], list[Any]]) -> list[Any]:
        before = None if self._callbacks is None else list(self._callbacks)
        registry = getattr(self.site, "registry", None)
        if isinstance(registry, Registry):
            make = partial(registry._without_side_effects, make)
        try:
            return super()._without_side_effects(make)
        finally:
            if self.ended is None:
                self._callbacks = before

    def _fresh_instance(self) -> Session:
        return type(self)(self.site, self.uid)


@public
class Registry(Components):
    """What a site keeps for all its visitors: a mapping and adaptable, like a `Session`.

    Args:
        site: the `Site` it belongs to, or None.
    """

    __slots__ = ("_begun", "site")

    _display_name = "registry"

    site: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.site = self._begun = None
        return self

    def __init__(self, site: Any = None) -> None:
        self.site = site

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self)} values>"


# For the store


def deadline_of(session: Session) -> float:
    """When *session* is due; `math.inf` for never."""
    # Not kept: most sessions share one time-out, so a second float in each would only cost memory.
    return session._last_access + session._timeout


def schedule(session: Session, timer: ExpiryTimer) -> None:
    """Have *timer* look at *session* when it is due."""
    before = session._bucket
    session._bucket = timer.schedule(session._uid, deadline_of(session), before)
    if session._bucket is not before:
        timer.discard(before)


def unschedule(session: Session) -> Bucket | None:
    """Have the timer ignore *session* until it is scheduled again.

    Returns:
        The bucket from which the timer is to discard it.
    """
    bucket, session._bucket = session._bucket, None
    return bucket


def finish(session: Session, reason: SessionEnd) -> None:
    """Mark *session* as ended, and call its callbacks. Doing so twice does nothing."""
    if session.ended is not None:
        return
    session.ended = reason
    if session._callbacks is not None:
        waiting, session._callbacks = session._callbacks, None
        for callback in waiting:
            _call(session, callback)
    clock = getattr(session._counterpart, "_clock", None)
    if clock is not None:
        _call(session, clock.end)


def _call(session: Session, callback: Callback) -> None:
    tasks = CallbackTasks() if session._store is None else session._store.callbacks
    tasks.call(callback, session.short_id)


# For what keeps sessions outside of the process


@dataclass(slots=True)
class Contents:
    """All that is kept of a session or the registry, its class apart.

    Attributes:
        values: under their names.
        components: by their keys.
        attributes: what its class or a script has set on it.
        callbacks: of `Session.notifyOnExpire`.
    """

    values: dict[str, Any]
    components: dict[Any, Entry]
    attributes: dict[str, Any]
    callbacks: list[Callback]


def contents_of(holder: Components) -> Contents:
    """Return what *holder* holds, in dicts that it does not share. This is no access."""
    callbacks = holder._callbacks if isinstance(holder, Session) else None
    return Contents(
        dict(holder._values or {}),
        dict(holder._components or {}),
        own_attributes(holder),
        list(callbacks or ()),
    )


def put_contents(holder: Components, contents: Contents) -> None:
    """Have *holder* hold *contents*, and nothing else."""
    vars(holder).clear()
    holder._values = contents.values or None
    holder._components = contents.components or None
    for name, value in contents.attributes.items():
        object.__setattr__(holder, name, value)
    if isinstance(holder, Session):
        holder._callbacks = contents.callbacks or None


def restored(cls: type[Session], site: Any, uid: str | None) -> Session:
    """Return an empty session of *cls*, without calling its constructor.

    It belongs to no store yet, and is not `Session.new`.
    """
    session: Session = Session.__new__(cls)
    session.site, session.uid, session.new = site, uid, False
    return session


def own_attributes(holder: Components) -> dict[str, Any]:
    """Return the attributes of *holder* that are not the package's own."""
    cls = type(holder)
    slots = _EXTRA_SLOTS.get(cls)
    if slots is None:
        slots = _EXTRA_SLOTS[cls] = _extra_slots(cls)
    own = dict(vars(holder))
    for name in slots:
        if hasattr(holder, name):
            own[name] = getattr(holder, name)
    return own


def _extra_slots(cls: type) -> list[str]:
    """The slots that a subclass has added."""
    from rpyserve.sessions.object_state import slot_names  # nobody else needs it before an edit

    return sorted(slot_names(cls) - _OWN_SLOTS)


_EXTRA_SLOTS: Final[WeakKeyDictionary[type, list[str]]] = WeakKeyDictionary()
_OWN_SLOTS: Final = frozenset((*Components.__slots__, *Session.__slots__, *Registry.__slots__))
