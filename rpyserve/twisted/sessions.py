"""Genuine sessions for ours: one visitor has one of each, and they live and end together.

Ours decides. It has the cookie, says when its time is over, and keeps the components. The genuine
one is what the author's ``site.sessionFactory`` makes. It takes a reactor, of which it asks the
time and one timed call: that is a `SessionClock`, which leaves both to our session. What a script
stores on the genuine session is brought up to date after an edit as the rest is, because our
session holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final

from twisted.web import server

from rpyserve.http.request import Request
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import is_interface, refuse_transient
from rpyserve.sessions.components import bring_up_to_date, is_outdated
from rpyserve.sessions.session import Session
from rpyserve.twisted.texts import Text
from rpyserve.util.author_code import ServerObject


class GenuineSessions(ServerObject, MutableMapping[bytes, Any]):
    """The genuine sessions of one site, by their ids: what ``site.sessions`` is.

    Args:
        native: the site of ours.
        site: the genuine ``Site``.
    """

    def __init__(self, native: Any, site: Any) -> None:
        self._native = native
        self._site = site
        self._last_factory: Any = server.Session
        # What somebody put in by hand, or by ``site.makeSession()``.
        self._others: dict[bytes, Any] = {}

    def of_request(self, request: Request) -> Any:
        """Return the genuine session of the visitor who makes *request*; this is an access."""
        session = self.of(request.getSession())
        if _is_plain(type(session)) and "sessionTimeout" not in vars(session):
            session.lastModified = session._clock.seconds()  # ours has been told already
        else:
            session.touch()
        return session

    def of(self, native: Session) -> Any:
        """Return the genuine session for *native*, made on first use."""
        if is_outdated(native):
            bring_up_to_date(native)
        session = native._counterpart
        if session is None or "_clock" not in vars(session):
            session = self._make(native, session)
        elif session.uid != native.uid:  # it has been regenerated
            session.uid = Text(native.uid.encode())
        return session

    def _make(self, native: Session, kept: Any) -> Any:
        """Make one; *kept* is what a store has kept of a former one, if it has."""
        site = self._site
        if not definitions.is_current(site.sessionFactory):
            site.sessionFactory = definitions.current_definition(site.sessionFactory)
        clock = SessionClock(native)
        before = vars(site).get("reactor")  # by its name it would be imported
        site.reactor = clock
        try:
            session = site.sessionFactory(site, Text(native.uid.encode()))
        finally:
            if before is None:
                del site.reactor
            else:
                site.reactor = before
        self._refuse_transient(session)
        if kept is not None:  # components may refer to it
            vars(kept).update(vars(session) | vars(kept))
            session = kept
        clock.genuine, session._clock = session, clock
        native._counterpart = session
        session.startCheckingExpiration()
        return session

    def _refuse_transient(self, session: Any) -> None:
        """Raise what the page is to say if the next request will not know the session's class."""
        try:
            refuse_transient(session, "site.sessionFactory makes sessions, and the site")
        except TypeError:
            self._site.sessionFactory = self._last_factory
            raise
        self._last_factory = self._site.sessionFactory

    # As a mapping

    def _find(self, uid: bytes) -> Session | None:
        name = bytes(uid).decode("ascii", "replace")
        try:
            found: Session = self._native.sessions[name]
        except KeyError:
            return None
        return found

    def __getitem__(self, uid: bytes) -> Any:
        native = self._find(uid)
        return self._others[uid] if native is None else self.of(native)

    def __setitem__(self, uid: bytes, session: Any) -> None:
        self._others[uid] = session

    def __delitem__(self, uid: bytes) -> None:
        """End the session *uid*. Doing so twice does nothing."""
        native = self._find(uid)
        if native is None:
            self._others.pop(uid, None)
            return
        clock = getattr(native._counterpart, "_clock", None)
        if clock is not None:
            clock.cancel()
        native.expire()

    def __iter__(self) -> Iterator[bytes]:
        yield from [Text(session.uid.encode()) for session in self._native.sessions]
        yield from list(self._others)

    def __len__(self) -> int:
        return len(self._native.sessions) + len(self._others)

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, bytes) and (self._find(uid) is not None or uid in self._others)


class SessionClock(ServerObject):
    """What a genuine session takes for its reactor, and for the timed call that it has of it.

    Args:
        native: the session of ours, which decides when the time is over.

    Attributes:
        genuine: the genuine session.
    """

    __slots__ = ("_function", "_is_active", "genuine", "native")

    def __init__(self, native: Session) -> None:
        self.native = native
        self.genuine: Any = None
        self._function: Callable[[], object] | None = None
        self._is_active = False

    # As a reactor

    def seconds(self) -> float:
        """Return the time, in seconds since 1970."""
        return time.time()

    def callLater(self, delay: float, function: Callable[..., object], *args: Any) -> SessionClock:
        """Have *function* called when the session of ours ends."""
        self._function = (lambda: function(*args)) if args else function
        self._is_active = True
        self.reset(delay)
        return self

    # As a timed call

    def active(self) -> bool:
        return self._is_active

    def cancel(self) -> None:
        self._is_active = False

    def reset(self, seconds: float) -> None:
        """Count as an access; *seconds* count if the author's own class says so."""
        native, genuine = self.native, self.genuine
        if genuine is not None and _has_own_timeout(genuine):
            if native.sessionTimeout != seconds:
                native.sessionTimeout = seconds
        else:
            vars(native).pop("sessionTimeout", None)
        Session.touch(native)

    def getTime(self) -> float:
        """Return when the session ends unless it is visited, in seconds since 1970."""
        return time.time() + float(self.native.sessionTimeout or 0)

    def end(self) -> None:
        """The session of ours has ended."""
        if self._is_active and self._function is not None:
            self._is_active = False
            self._function()


def _has_own_timeout(session: Any) -> bool:
    """Whether the session, or its class, says how long it lives; Twisted's own class does not."""
    return "sessionTimeout" in vars(session) or _overrides(type(session), "sessionTimeout")


def _is_plain(kind: type) -> bool:
    """Whether a class of sessions has the time-out and the ``touch`` that Twisted's has."""
    return not (_overrides(kind, "sessionTimeout") or _overrides(kind, "touch"))


def _overrides(kind: type, name: str) -> bool:
    """Whether another class than Twisted's gives *kind* what it has under *name*."""
    if kind is server.Session:
        return False
    return next(each for each in kind.__mro__ if name in vars(each)) is not server.Session


# What a store does not keep of a session: what Twisted's constructor gives it, and its callbacks.
_NOT_KEPT: Final = frozenset(
    [
        "site",
        "uid",
        "_clock",
        "_reactor",
        "_expireCall",
        "_adapterCache",
        "expireCallbacks",
        "sessionNamespaces",
    ]
)


# Components


def adopt(module: Any) -> None:
    """Have the sessions of *module*, ``twisted.web.server``, keep components in ours."""
    kind = module.Session
    genuine = kind.getComponent, kind.setComponent, kind.unsetComponent

    def getComponent(self: Any, interface: Any, default: Any = None) -> Any:
        ours = _ours(self)
        if ours is None:
            return genuine[0](self, interface, default)
        return _component(ours, self, interface, default)

    def setComponent(self: Any, interface: Any, component: Any) -> None:
        ours = _ours(self)
        if ours is None:
            genuine[1](self, interface, component)
        else:
            ours.setComponent(interface, component)

    def unsetComponent(self: Any, interface: Any) -> None:
        ours = _ours(self)
        if ours is None:
            genuine[2](self, interface)
        else:
            ours.unsetComponent(interface)

    def __getstate__(self: Any) -> dict[str, Any]:
        return {name: each for name, each in vars(self).items() if name not in _NOT_KEPT}

    for method in (getComponent, setComponent, unsetComponent, __getstate__):
        setattr(kind, method.__name__, method)


def _ours(session: Any) -> Session | None:
    clock = vars(session).get("_clock")
    return None if clock is None else clock.native


def _component(ours: Session, session: Any, interface: Any, default: Any) -> Any:
    if not is_interface(interface):
        return ours.getComponent(interface, default)
    component = ours._component_for(interface, session)
    if component is not None:
        return component
    component = interface.__adapt__(session)  # by an adapter that is registered with Twisted only
    if component is None:
        return default
    if not getattr(component, "temporaryAdapter", False):
        ours.setComponent(interface, component)
    return component
