"""The sessions of one site: which live, until when, and which one is evicted for a new one.

A session is forgotten first and its callbacks are called then, and none is ended twice. Whoever
finds that a session is due, be it the timer or an access, ends it there and then.

Two structures serve sites with very many sessions: `ShardedDict` grows without a pause, and
`LeastRecentlyUsed` costs nothing until somebody asks for the session to evict. Knows nothing of
requests and cookies.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import trio

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import refuse_transient
from rpyserve.sessions.callbacks import CallbackTasks
from rpyserve.sessions.components import bring_up_to_date, is_outdated
from rpyserve.sessions.expiry import BATCH, Bucket, ExpiryTimer
from rpyserve.sessions.session import (
    Session,
    SessionEnd,
    deadline_of,
    finish,
    schedule,
    unschedule,
)
from rpyserve.util.author_code import ServerObject
from rpyserve.util.exceptions import ErrorReporter
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

ID_BYTES: Final = 24
"""How many random bytes are in an id; OWASP asks for 16 at least."""

SLICE: Final = 1000
"""How many sessions are looked at in one go."""

MOST_CHANGED_IDS: Final = 1000
"""How many ids that `Session.regenerate` took away are remembered, for requests under way."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """How many sessions live, how many were made, and how many ended for each reason."""

    live: int
    made: int
    ended: Mapping[SessionEnd, int]


class SessionStore(ServerObject):
    """The live sessions of one site, by id. Iterates over the sessions; ``len`` says how many live.

    Args:
        site: its ``sessionFactory`` makes the sessions.
        timeout: seconds, for sessions whose class leaves ``sessionTimeout`` as it is; None: so does
            the site.
        max_sessions: how many may live at once; the one idle longest ends for one more. None: any
            number.
        errors: hears of failures of callbacks.

    Attributes:
        callbacks: calls the callbacks of sessions that end.
        now: returns the time, as `trio.current_time` has it.
        on_new_id: called with each session that has a new id.
        on_end: called with each that has ended, if it is kept outside of the process.
        observers: called with each that was made (and None), and each that ends (and why), before
            its callbacks are.
        id_changes: how often a session got a new id.

    Raises:
        ValueError: *max_sessions* is less than 1.
    """

    def __init__(
        self,
        site: Any,
        timeout: float | None = None,
        max_sessions: int | None = None,
        errors: ErrorReporter | None = None,
    ) -> None:
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(f"at least 1 session must be able to live, so not {max_sessions}")
        self.site = site
        self.timeout = timeout
        self.max_sessions = max_sessions
        self.callbacks = CallbackTasks(errors)
        self.on_new_id: Callable[[Session], object] = lambda session: None
        self.on_end: Callable[[Session], object] = lambda session: None
        self.observers: list[Callable[[Session, SessionEnd | None], object]] = []
        self.now: Callable[[], float] = trio.current_time

        self._live: ShardedDict[Session] = ShardedDict()
        self._timer = ExpiryTimer(self._look, self._is_scheduled)
        self._least_recently_used = LeastRecentlyUsed(self._live, attrgetter("_last_access"))
        self._last_factory: Callable[[Any, str], Any] = Session
        self._is_evicting = False
        self._evictions = ThrottledLogger(log)

        self.id_changes = 0
        # The last ids that were taken away, each with the number of that change.
        self._changed_ids: dict[str, int] = {}
        self._made = 0
        self._ended = dict.fromkeys(SessionEnd, 0)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._live.values()))

    def __contains__(self, uid: object) -> bool:
        return uid in self._live

    def __getitem__(self, uid: str) -> Session:
        return self._live[uid]

    def statistics(self) -> SessionStatistics:
        """Return the counts at this moment."""
        return SessionStatistics(len(self._live), self._made, MappingProxyType(dict(self._ended)))

    def slices(self) -> Iterator[list[Session]]:
        """Yield all live sessions in lists. Between two of them, sessions may come and go."""
        for shard in self._live.shards():
            for start in range(0, len(shard), SLICE):
                yield shard[start : start + SLICE]

    # New sessions

    def make(self) -> Session:
        """Make a session by the site's factory, under a new id.

        Raises:
            TypeError: the factory returned no new `Session`, or one whose class the next request
                will not know, or its ``sessionTimeout`` is no number of seconds.
            RuntimeError: the callback of one that ends for want of room wants another.
        """
        uid, factory = secrets.token_urlsafe(ID_BYTES), self.site.sessionFactory
        session = Session(self.site, uid) if factory is Session else self._by_factory(factory, uid)
        timeout = self.timeout_of(session)
        limit = self.max_sessions
        if limit is not None and (len(self._live) >= limit or self._is_evicting):
            self._evict_for_one_more(limit)
        session._store, session._timeout = self, timeout
        session._last_access = self.now()
        self._live.put(uid, session)
        self._made += 1
        schedule(session, self._timer)
        self._tell_observers(session, None)
        return session

    def _by_factory(self, factory: Callable[[Any, str], Any], uid: str) -> Session:
        if not definitions.is_current(factory):
            factory = definitions.current_definition(factory) or factory
            self.site.sessionFactory = factory
        session = factory(self.site, uid)
        if not _is_new_session(session):
            raise TypeError(
                "sessionFactory(site, uid) must return a new Session each time, "
                f"not {session!r:.80}"
            )
        session.site, session._uid = self.site, uid
        try:
            refuse_transient(session, "site.sessionFactory makes sessions, and the site")
        except TypeError:
            self.site.sessionFactory = self._last_factory
            raise
        self._last_factory = factory
        if not definitions.is_current(type(session)):
            bring_up_to_date(session)
        return session  # type: ignore[no-any-return]

    def _evict_for_one_more(self, max_sessions: int) -> None:
        """End as many sessions as it takes for one more, the one idle longest first."""
        if self._is_evicting:
            raise RuntimeError(
                "a session that ends to make room cannot make another: its callback must only "
                "clean up"
            )
        self._is_evicting = True
        try:
            for _ in range(len(self._live) - max_sessions + 1):
                session = self._least_recently_used.find()
                if session is None:
                    break  # callbacks have ended them all
                self.end(session, SessionEnd.EVICTED)
                self._evictions.warn(
                    "session %s, idle longest, ended to make room: no more than %s live at once "
                    "(--max-sessions). A client that keeps no cookies gets a new session with each "
                    "request.",
                    session.short_id,
                    f"{max_sessions:,}",
                )
        finally:
            self._is_evicting = False

    # Sessions that are kept elsewhere

    def add(self, session: Session, *, is_timed: bool = True) -> None:
        """Let *session*, which was kept elsewhere, live on here. Counts as an access.

        Args:
            session: which one.
            is_timed: whether it is ended as soon as it is due. If not, whoever accesses it then
                ends it.
        """
        session._store, session.new = self, False
        session._timeout = self.timeout_of(session)
        session._last_access = self.now()
        self._live.put(session._uid, session)
        if is_timed:
            schedule(session, self._timer)

    def drop(self, session: Session) -> None:
        """Forget *session* without ending it: from now on it is elsewhere."""
        if self._live.get(session._uid) is session:
            self._live.pop(session._uid)
            self._timer.discard(unschedule(session))
        session._store = None

    def end_elsewhere(self, session: Session, reason: SessionEnd) -> None:
        """End *session*, which lives elsewhere and not here: call its callbacks."""
        session._store = self
        self._ended[reason] += 1
        finish(session, reason)

    # Accesses

    def find(self, uid: str) -> Session | None:
        """Return the live session *uid*, and count that as an access; None if there is none."""
        session = self._live.get(uid)
        # A subclass may have a method of that name that does something else.
        if session is None or not Session.touch(session):
            return None
        session.new = False
        return session

    def touch(self, session: Session) -> bool:
        """Let *session* live on for its full time from now; if its time is over, end it.

        Returns:
            Whether it lives.
        """
        now = self.now()
        if session.ended is None and deadline_of(session) <= now:
            self.end(session)  # the timer has not come round to it yet
        if session.ended is not None:
            return False
        if is_outdated(session):
            bring_up_to_date(session)  # before its class is asked for the time-out
            if session.ended is not None:  # a constructor may do anything
                return False
        session._last_access, session._timeout = now, self.timeout_of(session)
        schedule(session, self._timer)
        return True

    def regenerate(self, session: Session) -> None:
        """Give *session* a new id. Counts as an access; does nothing to one that has ended."""
        if not self.touch(session):
            return
        self._live.pop(session._uid)
        self._timer.discard(unschedule(session))  # the timer knows it by its old id
        self.id_changes += 1
        self._changed_ids[session._uid] = self.id_changes
        if len(self._changed_ids) > MOST_CHANGED_IDS:
            del self._changed_ids[next(iter(self._changed_ids))]
        session._uid = secrets.token_urlsafe(ID_BYTES)
        self._live.put(session._uid, session)
        schedule(session, self._timer)
        self.on_new_id(session)

    def has_changed(self, uid: str, id_changes: int) -> bool:
        """Whether *uid* was taken away from a session after the first *id_changes* such changes."""
        return self._changed_ids.get(uid, 0) > id_changes

    def timeout_of(self, session: Session) -> float:
        """Return the seconds that *session* lives after an access.

        Raises:
            TypeError: its ``sessionTimeout`` is no number of seconds.
        """
        timeout = session.sessionTimeout
        if timeout is None:
            return math.inf
        if not isinstance(timeout, (int, float)) or math.isnan(timeout):
            raise TypeError(
                f"{type(session).__name__}.sessionTimeout is a number of seconds or None, "
                f"not {timeout!r:.60}"
            )
        return max(0.0, timeout)

    # Time

    def time_left(self, session: Session) -> float:
        """Return the seconds that *session* lives if it is not used; `math.inf` for ever."""
        return max(0.0, deadline_of(session) - self.now())

    def let_pass(self, session: Session, seconds: float) -> None:
        """Have *session* be due *seconds* earlier, as if its visitor had stayed away for longer.

        It ends in its usual way, soon after this has returned, if it is due then.
        """
        if session.ended is None:
            session._last_access -= seconds
            self._least_recently_used.forget()
            schedule(session, self._timer)

    # Ends

    def end(self, session: Session, reason: SessionEnd = SessionEnd.IDLE) -> None:
        """End *session*, unless it has ended: forget it, then call its callbacks."""
        if session.ended is None and self._live.pop(session._uid) is not None:
            self._timer.discard(unschedule(session))
            self._ended[reason] += 1
            self._tell_observers(session, reason)
            finish(session, reason)
            if session._record is not None:
                self.on_end(session)

    def _tell_observers(self, session: Session, reason: SessionEnd | None) -> None:
        for observer in self.observers:
            try:
                observer(session, reason)
            except Exception:  # the session is to end all the same
                log.warning("What a session did is not shown: this is an error.", exc_info=True)

    def _is_scheduled(self, uid: str, bucket: Bucket) -> bool:
        session = self._live.get(uid)
        return session is not None and session._bucket is bucket

    def _look(self, uid: str) -> None:
        """End the session if it is due; called by the timer."""
        session = self._live[uid]
        unschedule(session)
        if deadline_of(session) <= self.now():
            self.end(session)
        else:
            schedule(session, self._timer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End sessions when they are due, until cancelled. Async callbacks run in here."""
        async with self.callbacks.open():
            task_status.started()
            # What `trio.current_time` looks up at each call.
            self.now = trio.lowlevel.current_clock().current_time
            try:
                await self._timer.run()
            finally:
                self.now = trio.current_time

    async def end_all(self, reason: SessionEnd, grace: float) -> int:
        """End every session, and wait for async callbacks, earlier ones too.

        Args:
            reason: why they end.
            grace: seconds after which callbacks that have not finished are cut off.

        Returns:
            How many sessions ended.
        """
        count = 0
        # Shielded: what a session's end must do is done on the way out of a cancelled program, too.
        with trio.move_on_after(grace, shield=True):
            async with self.callbacks.open():
                for session in chain.from_iterable(self._live.shards()):
                    self.end(session, reason)
                    count += 1
                    if count % BATCH == 0:
                        await trio.lowlevel.cancel_shielded_checkpoint()
            await self.callbacks.wait_all_finished()
        return count


def _is_new_session(session: object) -> bool:
    return isinstance(session, Session) and session.ended is None and session._store is None


SHARDS: Final = 64
"""How many dicts a `ShardedDict` has."""

T = TypeVar("T")


class ShardedDict(Generic[T]):
    """A mapping of any number of texts, in which adding one never takes long. No value is None.

    A dict that is full is made anew, and one of a million entries takes long for that, in which
    nobody is answered. Here the entries lie in many dicts, each of which is small, and they fill up
    at different times.
    """

    __slots__ = ("_count", "_shards")

    def __init__(self) -> None:
        self._shards: list[dict[str, T]] = [{} for _ in range(SHARDS)]
        self._count = 0

    def __getitem__(self, key: str) -> T:
        return self._shards[hash(key) % SHARDS][key]

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) % SHARDS]

    def put(self, key: str, value: T) -> None:
        """Put *value* in, under a key that there is not yet."""
        self._shards[hash(key) % SHARDS][key] = value
        self._count += 1

    def get(self, key: str) -> T | None:
        """Return the value of *key*, or None."""
        return self._shards[hash(key) % SHARDS].get(key)

    def pop(self, key: str) -> T | None:
        """Take out the value of *key*, and return it; None if there is none."""
        value = self._shards[hash(key) % SHARDS].pop(key, None)
        if value is not None:
            self._count -= 1
        return value

    def values(self) -> Iterator[T]:
        """Iterate over all values: nothing may come or go meanwhile."""
        return chain.from_iterable(shard.values() for shard in self._shards)

    def shards(self) -> Iterator[list[T]]:
        """Yield all values in lists. Between two of them, values may come and go."""
        for shard in self._shards:
            yield list(shard.values())


CANDIDATE_SHARE: Final = 16
"""One item in about so many is remembered as a candidate."""

SAMPLE: Final = 1000
"""From how many items it is estimated which are candidates, as sorting all would take long."""


class LeastRecentlyUsed:
    """Finds the item of a mapping that has not been used for the longest time.

    Nothing is kept while nobody asks, so that using an item costs no more than noting the time. The
    first `find` looks at all items, and remembers those idle longest. Using an item only ever makes
    its time later, so the first of them that has not been used since is the one to return, until
    none of them is left. So a `find` takes about `CANDIDATE_SHARE` looks on average, however many
    items there are.

    Args:
        items: the items by their ids. One that is put in must have been used no earlier than those
            that are there.
        last_access: returns when an item was used last; it becomes less only before `forget`.
    """

    def __init__(
        self, items: Mapping[str, Any] | ShardedDict[Any], last_access: Callable[[Any], float]
    ) -> None:
        self._items = items
        self._last_access = last_access
        self._candidates: list[tuple[float, str]] = []  # the one idle longest comes last

    def find(self) -> Any:
        """Return that item, or None. It is not returned again unless it is used again."""
        while len(self._items):
            while self._candidates:
                used, uid = self._candidates.pop()
                item = self._items.get(uid)
                if item is not None and self._last_access(item) == used:
                    return item
            self._find_candidates()
        return None

    def forget(self) -> None:
        """Look at all items again the next time, as the time of one has become less."""
        self._candidates.clear()

    def _find_candidates(self) -> None:
        items = list(self._items.values())
        sample = items[:: math.ceil(len(items) / SAMPLE)]
        times = sorted(map(self._last_access, sample))
        limit = times[len(times) // CANDIDATE_SHARE]
        timed = zip(map(self._last_access, items), items, strict=True)
        candidates = [(time, item.uid) for time, item in timed if time <= limit]
        # Sorted and turned round, as of those used at the same time the first shall go first.
        candidates.sort(key=itemgetter(0))
        candidates.reverse()
        self._candidates = candidates
