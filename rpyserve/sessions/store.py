"""The store of a site's sessions: which live, until when, and who has to go when there are too many.

When one is due is what `clock` looks after; a look that finds a session due before the clock does ends it then and
there. Who ends for one more is what `idlest` finds. A session is forgotten before its callbacks are called, and none is
ended twice. Knows nothing of requests and cookies.

Which of many living things was used the longest time ago, for those who must let one go.

Nothing is kept for it while nobody asks, so making and using a thing costs no more than noting the time. Who asks
pays: all are looked at once, and about a sixteenth of them, those idle longest, are remembered. As using a thing
only ever makes its time later, the first of those that has not been used since is the one, until none is left. So
an answer costs some sixteen looks on average, however many there are.

A mapping of any number of things by text, in which putting one more in never takes long.

A dict that is full is made anew: with 700,000 entries that takes 30 ms, in which nobody is answered. Here the things
lie in many dicts, each of which is small, and they fill up at different times. The price is a tenth of a microsecond
for each access. Knows nothing of what it holds.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.scripts import definitions
from rpyserve.sessions.callbacks import CallbackTasks
from rpyserve.sessions.components import renew
from rpyserve.sessions.expiry import BATCH, ExpiryTimer
from rpyserve.sessions.session import EndReason, Session
from rpyserve.util.throttle import ThrottledLogger

__all__ = ["LeastRecentlyUsed", "SessionStatistics", "SessionStore", "ShardedDict", "Used"]


SHARE: Final = 16
"""Which part of all is remembered, about."""
SAMPLE: Final = 1000
"""From how many that part is estimated: sorting all of them would hold up everyone else."""


class Used(Protocol):
    """What can be idle."""

    uid: Any
    """Its id, a text."""
    _used: float
    """When it was used last; never becomes less."""


class Living(Protocol):
    """Those things, by their ids."""

    def __len__(self) -> int:
        """How many there are."""

    def get(self, uid: str, /) -> Any:
        """The one of that id; None if there is none."""

    def values(self) -> Iterable[Any]:
        """All of them."""


class LeastRecentlyUsed:
    """Finds the thing of a mapping that has been idle longest.

    Args:
        living: the things by their ids. One that is put in must have been used no earlier than those that are there.
    """

    def __init__(self, living: Living) -> None:
        self._living = living
        self._known: list[tuple[float, str]] = []  # the idlest last

    def find(self) -> Any:
        """Return that thing; None if there is none. It is not returned again unless it is used again."""
        while len(self._living):
            while self._known:
                used, uid = self._known.pop()
                thing = self._living.get(uid)
                if thing is not None and thing._used == used:
                    return thing
            self._look_at_all()
        return None

    def _look_at_all(self) -> None:
        things: list[Used] = list(self._living.values())
        times = sorted([thing._used for thing in things[:: -(-len(things) // SAMPLE)]])
        limit = times[len(times) // SHARE]
        known = [(thing._used, thing.uid) for thing in things if thing._used <= limit]
        known.sort(key=itemgetter(0))
        known.reverse()
        self._known = known


MANY: Final = 64
"""How many dicts; a power of 2."""

Thing = TypeVar("Thing")


class ShardedDict(Generic[Thing]):
    """Things by their names, in no order: what is needed of a dict. Only None it cannot hold."""

    __slots__ = ("_many", "_shelves")

    def __init__(self) -> None:
        self._shelves: list[dict[str, Thing]] = [{} for _ in range(MANY)]
        self._many = 0

    def __getitem__(self, name: str) -> Thing:
        return self._shelves[hash(name) % MANY][name]

    def __len__(self) -> int:
        return self._many

    def __contains__(self, name: object) -> bool:
        return name in self._shelves[hash(name) % MANY]

    def put(self, name: str, thing: Thing) -> None:
        """Put *thing* in, under a name that none has."""
        self._shelves[hash(name) % MANY][name] = thing
        self._many += 1

    def get(self, name: str) -> Thing | None:
        """Return the thing of that name, or None."""
        return self._shelves[hash(name) % MANY].get(name)

    def pop(self, name: str) -> Thing | None:
        """Take out the thing of that name, and return it; None if there is none."""
        thing = self._shelves[hash(name) % MANY].pop(name, None)
        if thing is not None:
            self._many -= 1
        return thing

    def values(self) -> Iterator[Thing]:
        """Iterate over all things: nothing may come or go meanwhile."""
        return chain.from_iterable(shelf.values() for shelf in self._shelves)

    def parts(self) -> Iterator[list[Thing]]:
        """Yield all things in lists, each as it is when it is come to: between two of them, things may come and go."""
        for shelf in self._shelves:
            yield list(shelf.values())


log = logging.getLogger("rpyserve")

ID_BYTES: Final = 24
"""How much of chance is in an id; 16 is what OWASP asks for at least. A multiple of 3, so that ids can be cut apart."""
ID_LENGTH: Final = ID_BYTES * 4 // 3
DRAWN: Final = 64
"""How many ids are drawn at once: one call of the system for each took a quarter of the time to make a session."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """How many sessions live, how many were made, and how many ended for each reason."""

    live: int
    made: int
    ended: Mapping[EndReason, int]


class SessionStore:
    """The living sessions of one site, by id. Iterates over the sessions; ``len`` says how many live.

    Args:
        site: its ``sessionFactory`` makes the sessions.
        timeout: seconds, for sessions whose class leaves ``sessionTimeout`` as it is; None: so does the site.
        most: how many may live at once; the one idle longest ends for one more. None: any number.

    Attributes:
        renewed: called with a session that has a new id.
        complaints: where failures of callbacks are told.
        let_go: how many of those that ended held something.
        now: the time, as `trio.current_time` has it.

    Raises:
        ValueError: *most* is less than 1.
    """

    def __init__(self, site: Any, timeout: float | None = None, most: int | None = None) -> None:
        if most is not None and most < 1:
            raise ValueError(f"at least 1 session must be able to live, so not {most}")
        self.site = site
        self.timeout = timeout
        self.most = most
        self.renewed: Callable[[Session], object] = lambda session: None
        self._living: ShardedDict[Session] = ShardedDict()
        self._clock = ExpiryTimer(self._living, self.end)
        self._idlest = LeastRecentlyUsed(self._living)
        self._making_room = False
        self._crowded = ThrottledLogger(log)
        self.errors = ConsoleReporter()
        self._tasks = CallbackTasks(self.errors)
        self.now: Callable[[], float] = trio.current_time
        self.ended_with_data = 0
        self._ids: list[str] = []
        self._made = 0
        self._ended = dict.fromkeys(EndReason, 0)

    def __len__(self) -> int:
        return len(self._living)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._living.values()))

    def __contains__(self, uid: object) -> bool:
        return uid in self._living

    def __getitem__(self, uid: str) -> Session:
        return self._living[uid]

    def statistics(self) -> SessionStatistics:
        """Return the counts at this moment."""
        return SessionStatistics(len(self._living), self._made, MappingProxyType(dict(self._ended)))

    def make(self) -> Session:
        """Make a session by the site's factory, under a new id.

        Raises:
            TypeError: the factory returned no new `Session`, or its ``sessionTimeout`` is no number of seconds.
            RuntimeError: the callback of one that ends for want of room wants another.
        """
        uid, factory = self._new_id(), self.site.sessionFactory
        session = Session(self.site, uid) if factory is Session else self._by_factory(factory, uid)
        lives = max(0.0, self.timeout_of(session))
        if self.most is not None and (self._making_room or len(self._living) >= self.most):
            self._make_room(self.most)
        session._used = self.now()
        session._lives = lives
        session._store = self
        self._living.put(uid, session)
        self._made += 1
        self._clock.watch(session)
        return session

    def _by_factory(self, factory: Callable[[Any, str], Any], uid: str) -> Session:
        if not definitions.is_current(factory):
            self.site.sessionFactory = factory = definitions.current_definition(factory) or factory
        session = factory(self.site, uid)
        if (
            not isinstance(session, Session)
            or session._store is not None
            or session.ended is not None
        ):
            raise TypeError(
                f"sessionFactory(site, uid) must return a new Session each time, not {session!r:.80}"
            )
        session.site, session.uid = self.site, uid
        if not definitions.is_current(type(session)):
            renew(session)
        return session

    def _new_id(self) -> str:
        if not self._ids:
            drawn = secrets.token_urlsafe(ID_BYTES * DRAWN)
            self._ids = [
                drawn[start : start + ID_LENGTH] for start in range(0, len(drawn), ID_LENGTH)
            ]
        return self._ids.pop()

    def _make_room(self, most: int) -> None:
        """End as many sessions as it takes for one more, the idlest first."""
        if self._making_room:
            raise RuntimeError(
                "a session that ends to make room cannot make another: its callback must only clean up"
            )
        self._making_room = True
        try:
            for _ in range(len(self._living) - most + 1):
                session = self._idlest.find()
                if session is None:
                    break  # callbacks have ended them all
                self.end(session, EndReason.EVICTED)
                self._crowded.warn(
                    "session %s, idle longest, ended to make room: no more than %s live at once (--max-sessions). A "
                    "client that keeps no cookies gets a new session with each request.", session.label, f"{most:,}",
                )  # fmt: skip
        finally:
            self._making_room = False

    def renew(self, session: Session) -> None:
        """Give *session* a new id. Counts as an access; does nothing to one that has ended."""
        if not self.touch(session):
            return
        self._living.pop(session.uid)
        session.uid = self._new_id()
        self._living.put(session.uid, session)
        session._tick = None  # the clock knows it by its old id
        self._clock.watch(session)
        self.renewed(session)

    def find(self, uid: str) -> Session | None:
        """Return the living session *uid*, and count that as an access; None if there is none."""
        session = self._living.get(uid)
        if session is None or not Session.touch(session):  # whatever a subclass makes of that name
            return None
        session.new = False
        return session

    def touch(self, session: Session) -> bool:
        """Let *session* live on for its full time from now; if its time is over, end it. Returns whether it lives."""
        now = self.now()
        if session.ended is None and session._deadline <= now:
            self.end(session)  # the clock has not come round to it yet
        if session.ended is not None:
            return False
        if session._generation != definitions.generation:
            renew(session)  # before its class is asked for the time-out
            if session.ended is not None:  # a constructor may do anything
                return False
        lives = max(0.0, self.timeout_of(session))
        session._used, session._lives = now, lives
        self._clock.watch(session)
        return True

    def timeout_of(self, session: Session) -> float:
        """Seconds that *session* lives after an access: its own word or its class's, else the site's.

        Raises:
            TypeError: its ``sessionTimeout`` is no number of seconds.
        """
        timeout = session.sessionTimeout
        if timeout is None:
            return math.inf
        if not isinstance(timeout, (int, float)) or math.isnan(timeout):
            raise TypeError(
                f"{type(session).__name__}.sessionTimeout is a number of seconds or None, not {timeout!r:.60}"
            )
        return timeout

    def end(self, session: Session, why: EndReason = EndReason.IDLE) -> None:
        """End *session*: it is forgotten, then its callbacks are called. Ending it twice does nothing."""
        if session.ended is None and self._living.pop(session.uid) is not None:
            self._ended[why] += 1
            self.ended_with_data += session._components is not None or session._values is not None
            session._end(why)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let sessions end when their time has come, until cancelled. Async callbacks run in here."""
        async with self._tasks.open():
            task_status.started()
            self.now = (
                trio.lowlevel.current_clock().current_time
            )  # what `trio.current_time` looks up each time
            try:
                await self._clock.run()
            finally:
                self.now = trio.current_time

    async def end_all(self, why: EndReason, grace: float) -> int:
        """End every session, and wait for async callbacks, earlier ones too; those left after *grace* s are cut off.

        Returns:
            How many sessions ended.
        """
        count = 0
        # Shielded: what a session's end must do is done on the way out of a cancelled program, too.
        with trio.move_on_after(grace, shield=True):
            async with self._tasks.open():
                for session in chain.from_iterable(self._living.parts()):
                    self.end(session, why)
                    count += 1
                    if count % BATCH == 0:
                        await trio.lowlevel.cancel_shielded_checkpoint()
            await self._tasks.wait()
        return count
