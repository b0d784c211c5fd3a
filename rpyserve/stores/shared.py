"""Sessions in a store that several workers share.

A session is a live object in at most one process at a time. A request that may use one takes its
record before it is rendered. Requests of the same visitor have it one after the other, in this
process as in all others, so an async script may await between reading and writing. When nobody here
waits for it, or others may have waited for long, the record is given back with the answer.

A stream gives its session back with the head of its response. What it changes afterwards is written
at its end, unless somebody else has written meanwhile: then the console tells.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource
from rpyserve.sessions.callbacks import Callback
from rpyserve.sessions.session import Registry, Session, SessionEnd
from rpyserve.stores.absent_registry import make_absent
from rpyserve.stores.codec import Codec, key_of
from rpyserve.stores.persistence import NOTHING, Persistence, Record, Respond, Use
from rpyserve.stores.released import ReleasedSessions
from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    Store,
    StoreError,
    Taken,
    Unavailable,
)

if TYPE_CHECKING:
    from rpyserve.scripts.loader import ScriptLoader

log = logging.getLogger("rpyserve")

TURNS: Final = 1.0
"""Seconds in which requests of this process have a record one after the other, before it is given
back though more of them wait: others elsewhere may do so, too."""

LONGEST_WAIT: Final = 10.0
"""Seconds after which a store that does not answer is unavailable, client or no client."""

_LOST_CALLBACKS: Final = (
    "A session has ended whose callbacks were in a worker that is gone: those that no store can "
    "keep, such as lambdas, have not run."
)


@dataclass(slots=True, eq=False)
class Streamed:
    """A session that was given back as the heads of streams went out, which still have it.

    Attributes:
        session: the object that the streams know.
        key: of its record.
        blob: what is stored of this object.
        count: how many streams.
    """

    session: Session
    key: bytes
    blob: bytes
    count: int = 0


class OwnCallbacks(NamedTuple):
    """Callbacks of a session that only this process has."""

    session_id: str
    callbacks: Sequence[Callback]


class SharedUse(Use):
    """What one request has of the store that others share. See `Use`.

    Args:
        persistence: what takes it from there.
        request: the request.

    Attributes:
        records: what it has, and will give back.
        streamed: what it had when the head of its stream went out.
    """

    def __init__(self, persistence: SharedPersistence, request: Request) -> None:
        super().__init__(request)
        self._persistence = persistence
        self.records: list[Record] = []
        self.streamed: list[Streamed] = []

    async def hold(self, names: frozenset[str]) -> None:
        """See `Use.hold`."""
        known = self.names or NOTHING
        self.names = known | names
        if not names <= known:
            await self._persistence.hold(self._request, names - known)

    def load(self, scripts: ScriptLoader, path: str) -> Resource | Awaitable[Resource]:
        """See `Use.load`."""
        return self._load_held(scripts, path)

    async def _load_held(self, scripts: ScriptLoader, path: str) -> Resource:
        scripts.prepare(path, self._request)
        await self.hold(scripts.uses(path))
        resource = scripts.load(path, self._request)
        await self.hold(scripts.uses(path))  # it may have imported more
        return resource

    def note_access(self) -> None:
        """See `Use.note_access`."""
        self._persistence.note_accesses(self.streamed)


_answered: ContextVar[Request | None] = ContextVar("answered request", default=None)


class SharedPersistence(Persistence):
    """Keeps sessions in a store that several workers share. See `Persistence`."""

    def __init__(self, site: Any, store: Store, codec: Codec) -> None:
        super().__init__(site, store, codec)
        self._registry.turn = _new_turn()
        self._streamed: dict[bytes, Streamed] = {}
        # The callbacks of sessions that no store can keep, by their keys.
        self._own: dict[bytes, OwnCallbacks] = {}
        # Those that a stream has accessed, which the store does not know yet.
        self._accessed: set[Streamed] = set()
        self._released = ReleasedSessions(trio.current_time)

    # The whole life

    def _tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self._hear,)

    async def _adopt(self) -> None:
        await super()._adopt()
        await self._store_accesses()
        self._released.forget_old()

    async def _store_all(self) -> None:
        """Give back what requests had that have been cut off."""
        for record in [*self._records.values(), self._registry]:
            if record.is_held:
                record.users = 1
                await self._release_or_tell(record)

    async def _catch_up(self) -> None:
        for key, record in list(self._ends.items()):
            assert record.taken is not None
            with suppress(LeaseLost):
                await self._end_taken(record.taken)
            self._ends.pop(key, None)

    # One request

    async def answer(self, request: Request, respond: Respond) -> Response:
        """See `Persistence.answer`."""
        _answered.set(request)
        try:
            return await super().answer(request, respond)
        finally:
            _answered.set(None)

    def _make_use(self, request: Request) -> SharedUse:
        return SharedUse(self, request)

    def _is_settled(self, request: Request, use: SharedUse) -> bool:
        return not use.records and not _is_to_create(request._session)

    def _page_for(self, request: Request, reason: Exception) -> Response:
        # Or the visitor would have the cookie of what is not stored.
        request._response.session_cookie = None
        return super()._page_for(request, reason)

    async def _settle(self, request: Request, streams: bool = False) -> None:
        use, session = request._use, request._session
        use.has_answer, use.streams = True, streams
        if self._is_settled(request, use):
            return
        failure: Exception | None = None
        if _is_to_create(session):
            use.records.append(await self._create(session))
            with self._in_time():
                await self._make_room()
        while use.records:
            record = use.records.pop()
            if streams and record.holder is session:
                self._note_streamed(use, record)
            try:
                await self._release(record, record.holder in (session, self._site.registry))
            except Exception as exc:
                failure = failure or exc
        if failure is not None:
            raise failure

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """While inside, nobody but a store that does not answer cuts the task off."""
        with trio.move_on_after(LONGEST_WAIT, shield=True) as scope:
            yield
        if scope.cancelled_caught:
            raise Unavailable(f"{self.store.name} does not answer")

    def _closed(self, request: Request) -> None:
        use, request._use = request._use, None
        if use is not None and (use.records or use.streamed):
            self._site.start_task(partial(self._settle_closed, request, use))

    async def _settle_closed(self, request: Request, use: SharedUse) -> None:
        while use.records:
            await self._release_or_tell(use.records.pop())
        while use.streamed:
            with self._telling(), self._in_time():
                await self._end_stream(use.streamed.pop(), request)

    # What a request gets

    async def hold(self, request: Request, names: frozenset[str]) -> None:
        """Take what *request* may use, where others share the store. See `Use.hold`."""
        records = request._use.records
        try:
            if "session" in names:
                for uid in self._site.session_ids(request):
                    record = await self._acquire(uid)
                    if record is not None:
                        records.append(record)
                        break
            if "registry" in names:
                records.append(await self._acquire_registry())
        except StoreError as exc:
            raise self._refusal(exc) from exc

    def _has(self, request: Request, session: Session) -> bool:
        use = request._use
        return use is not None and any(record.holder is session for record in use.records)

    def _find_stored(self, uid: str, request: Request) -> Session | None:
        key = key_of(uid)
        record = self._records.get(key)
        if key in self._ends:
            return None
        if record is not None:
            raise Unavailable("Another request of this visitor has the session at the moment")
        self._hint_at_blocking(request)
        record = self._records[key] = Record(key, turn=_new_turn(free=False))
        try:
            taken = self.store.take_blocking(key)
        except BaseException:
            del self._records[key]
            raise
        if self._load(record, uid, taken) is None:
            del self._records[key]
            return None
        record.is_held = True
        record.users += 1
        self._note_found(record, request)
        return record.holder if record.holder.touch() else None

    def _note_found(self, record: Record, request: Request) -> None:
        """Have *record* given back once the request is done, or at once if its head has gone."""
        use = request._use
        if use is not None and not use.has_answer:
            use.records.append(record)
            return
        if use is not None and use.streams:
            self._note_streamed(use, record)
        self._site.start_task(partial(self._release_or_tell, record))

    async def _release_or_tell(self, record: Record) -> None:
        with self._telling(), self._in_time():
            await self._release(record, accessed=True)

    def _hint_at_blocking(self, request: Request) -> None:
        self._tell_once(
            f"{request.path}: code that is not in the site asks for a session. Each time the "
            f"server stands still until {self.store.name} has answered"
        )

    def _session_of(self, key: bytes, uid: str, blob: bytes) -> Session | None:
        session = self._released.take(key, uid, blob)
        streamed = self._streamed.get(key)
        if streamed is not None and streamed.blob == blob:
            session = streamed.session
        elif session is None:
            session = self._loaded(uid, key, blob)
        if session is not None:
            self._put_back_own(session, key)
        return session

    # Callbacks that only this worker has

    def _blob_of(self, holder: Any, key: bytes) -> bytes:
        """See `Persistence._blob_of`.

        Raises:
            Exception: it holds what no other worker could have.
        """
        dumped = self._dump(holder, key)
        self._keep_own(holder, key, dumped.callbacks)
        return dumped.require_whole()

    def _keep_own(self, holder: Any, key: bytes, callbacks: Sequence[Callback]) -> None:
        """Keep callbacks here that no store can: they run in this process when the session ends."""
        if not callbacks:
            self._own.pop(key, None)
            return
        self._own[key] = OwnCallbacks(holder.short_id, callbacks)
        self._tell_once(
            "A session has callbacks that cannot be stored, such as lambdas: they run in the "
            "worker where they were made, and are lost with it. Functions of a module or a cached "
            "script run in any"
        )

    def _put_back_own(self, session: Session, key: bytes) -> None:
        """Have *session*, which was loaded, have its callbacks that only this process has."""
        own = self._own.get(key)
        if own is not None:
            had = session._callbacks or []
            missing = [each for each in own.callbacks if not any(each is one for one in had)]
            session._callbacks = [*had, *missing]

    async def _hear(self) -> None:
        """Call the callbacks that only this worker has, as others find that sessions have ended."""
        while True:
            with self._telling():
                own = self._own.pop(await self.store.wait_told(), None)
                if own is not None:
                    for callback in own.callbacks:
                        self._sessions.callbacks.call(callback, own.session_id)

    async def _tell_listeners(self, listeners: Collection[bytes], key: bytes) -> None:
        """Have other workers call the callbacks that only they have."""
        for worker in listeners:
            if worker != self.store.worker and not await self.store.tell(worker, key):
                log.warning(_LOST_CALLBACKS)

    # Taking and giving

    async def _acquire(self, uid: str) -> Record | None:
        """Take the record of the session *uid*, once nobody else has it, here or elsewhere."""
        key = key_of(uid)
        if key in self._ends:
            return None
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record(key, turn=_new_turn())
        await self._wait_turn(record)
        try:
            if not record.is_held:
                taken = await self.store.take(key)
                record.is_held = self._load(record, uid, taken) is not None
                record.since = trio.current_time()
        except BaseException:
            self._leave(record)
            raise
        session = record.holder
        if not record.is_held or session.ended is not None or session.uid != uid:
            await self._release(record, accessed=False)
            return None
        return record

    async def _acquire_registry(self) -> Record:
        record = self._registry
        await self._wait_turn(record)
        try:
            if not record.is_held:
                self._load_registry(await self.store.take(REGISTRY, create=True))
                record.since = trio.current_time()
        except BaseException:
            self._leave(record)
            raise
        return record

    async def _wait_turn(self, record: Record) -> None:
        """Wait until nobody here has *record*."""
        assert record.turn is not None
        record.users += 1
        if record.turn.value:
            record.turn.acquire_nowait()  # no other task need run before, as `acquire` has it
            return
        try:
            await record.turn.acquire()
        except BaseException:
            record.users -= 1
            if record.is_held and not record.users:  # the one before has left it for this one
                record.turn.acquire_nowait()
                record.users += 1
                self._site.start_task(partial(self._release_or_tell, record))
            self._forget_unused(record)
            raise

    async def _release(self, record: Record, accessed: bool) -> None:
        """Write what a request has changed in *record*. Then who waits here has it, or it is given
        back: if nobody does, or others elsewhere have waited for long.

        Raises:
            LeaseLost: somebody else has it.
        """
        give = record.users == 1 or trio.current_time() > record.since + TURNS
        try:
            if record.is_held:
                await self._put(record, give=give, accessed=accessed)
                if record.is_held and not give and record.users == 1:  # who waited has left
                    give = True
                    await self._put(record, give=True, accessed=accessed)
                record.is_held = record.is_held and not give
        except BaseException as exc:
            is_held, record.is_held = record.is_held, False
            if is_held and record.taken is not None and not isinstance(exc, StoreError):
                # It holds what cannot be stored: what was stored remains.
                await self.store.give(record.taken, None, None)
            raise
        finally:
            self._leave(record)

    def _leave(self, record: Record) -> None:
        """Let the next one have *record*. Unless it is held, what is here counts no more then."""
        assert record.turn is not None
        record.users -= 1
        if not record.is_held:
            self._drop(record)
        self._forget_unused(record)
        record.turn.release()

    def _drop(self, record: Record) -> None:
        if record is self._registry:
            make_absent(record.holder, self.fetch_registry)
        elif record.holder is not None:
            self._sessions.drop(record.holder)
            record.holder = None

    def _forget_unused(self, record: Record) -> None:
        if not record.users and self._records.get(record.key) is record:
            del self._records[record.key]

    # Writing

    async def _create(self, session: Session) -> Record:
        """Store a new session."""
        key = key_of(session.uid)
        blob = self._blob_of(session, key)
        taken = await self.store.create(key, blob, self._lives(session))
        record = Record(key, session, taken, True, users=1)
        record.turn, record.uid = _new_turn(free=False), session.uid
        session._record = self._records[key] = record
        return record

    async def _put(self, record: Record, *, give: bool, accessed: bool) -> None:
        """Store *record* if it has changed, and give it back if *give*."""
        if record is not self._registry and record.holder.ended is not None:
            await self._end(record)
            return
        taken = record.taken
        assert taken is not None
        key, blob, lives = self._written(record)
        if key != taken.key:
            taken = await self.store.move(taken, key, blob, lives)
            self._rename(record, taken)
        changed = blob != taken.blob
        if give:
            new_blob = blob if changed else None
            new_lives = lives if accessed or changed else None
            await self.store.give(taken, new_blob, new_lives, listens=key in self._own)
            record.taken = Taken(key, taken.token, blob)
            self._keep_released(record, blob)
        else:
            record.taken = await self.store.write(taken, blob, lives) if changed else taken
        self._note_stored(record, blob)

    def _keep_released(self, record: Record, blob: bytes) -> None:
        """Keep a session that was given back, which may be as it is when it is asked for again."""
        if record is not self._registry and record.key not in self._streamed:
            self._released.put(record.key, record.holder, blob)

    def _note_stored(self, record: Record, blob: bytes) -> None:
        """What a stream has of the session is stored as *blob* just now."""
        streamed = self._streamed.get(record.key)
        if streamed is not None and streamed.session is record.holder:
            streamed.blob = blob

    def _rename(self, record: Record, taken: Taken) -> None:
        self._own.pop(record.key, None)
        super()._rename(record, taken)

    # Ends

    async def _end(self, record: Record) -> None:
        assert record.taken is not None
        if self._records.get(record.key) is record:
            del self._records[record.key]
        elif not record.is_held:
            return  # another request has done that
        record.is_held = False
        self._ends[record.key] = record
        with self._in_time():
            await self._end_taken(record.taken)
        del self._ends[record.key]

    async def _end_taken(self, taken: Taken) -> None:
        """Have the store forget a session whose callbacks have been called here."""
        listeners = await self.store.end(taken)
        self._own.pop(taken.key, None)  # they have run here
        await self._tell_listeners(listeners, taken.key)

    async def _finish(self, endings: list[Ending], reason: SessionEnd) -> None:
        # Together, as each has to wait for the store to forget it.
        async with trio.open_nursery() as nursery:
            for ending in endings:
                nursery.start_soon(self._end_stored_or_tell, ending, reason)

    async def _end_stored_or_tell(self, ending: Ending, reason: SessionEnd) -> None:
        with self._telling():
            await self._end_stored(ending, reason)

    async def _end_stored(self, ending: Ending, reason: SessionEnd) -> None:
        # Without a record, only callbacks of a worker that died are left of it.
        session = self._loaded("", ending.key, ending.blob) if ending.blob else None
        if session is not None:
            self._put_back_own(session, ending.key)
            self._own.pop(ending.key, None)
            self._sessions.end_elsewhere(session, reason)
        await self._tell_listeners(ending.listeners, ending.key)
        await self.store.ended(ending)

    # Streams

    def _note_streamed(self, use: SharedUse, record: Record) -> None:
        streamed = self._streamed.get(record.key)
        if streamed is None or streamed.session is not record.holder:
            blob = b"" if record.taken is None else record.taken.blob
            streamed = self._streamed[record.key] = Streamed(record.holder, record.key, blob)
        streamed.count += 1
        use.streamed.append(streamed)

    def note_accesses(self, streamed: list[Streamed]) -> None:
        """Have the store told soon that these sessions have been accessed."""
        self._accessed.update(streamed)

    async def _store_accesses(self) -> None:
        accessed, self._accessed = self._accessed, set()
        async with trio.open_nursery() as nursery:
            for streamed in accessed:
                nursery.start_soon(self._store_access, streamed)

    async def _store_access(self, streamed: Streamed) -> None:
        with self._telling(), self._in_time():
            taken = await self.store.take(streamed.key)
            if taken is not None:
                lives = self._sessions.timeout_of(streamed.session)
                await self.store.give(taken, None, lives)

    async def _end_stream(self, streamed: Streamed, request: Request) -> None:
        """Write what a stream has changed since its head went out, if nobody else has written."""
        streamed.count -= 1
        if not streamed.count and self._streamed.get(streamed.key) is streamed:
            del self._streamed[streamed.key]
        session = streamed.session
        record = self._records.get(streamed.key)
        if record is not None and record.holder is session:
            return  # another request has it, and will write it
        is_changed = session.ended is not None
        if not is_changed:
            is_changed = self._blob_of(session, streamed.key) != streamed.blob
        if is_changed and not await self._write_late(streamed):
            log.warning(
                "%s: what the stream has changed in the session since its head went out is lost: "
                "somebody else has used that meanwhile. Write `async with request.session() as "
                "session:` around what changes it.",
                request.path,
            )

    async def _write_late(self, streamed: Streamed) -> bool:
        """Write what has changed; return whether that was possible."""
        taken = await self.store.take(streamed.key)
        if taken is None:
            return streamed.session.ended is not None
        if streamed.session.ended is not None:
            await self._end_taken(taken)
            return True
        is_same = taken.blob == streamed.blob
        blob = self._blob_of(streamed.session, streamed.key) if is_same else None
        lives = self._sessions.timeout_of(streamed.session) if is_same else None
        await self.store.give(taken, blob, lives)
        return is_same

    @asynccontextmanager
    async def session_held(self, request: Request) -> AsyncIterator[Session]:
        """Have the visitor's session inside of a block. See `Request.session`."""
        had = self._had_session(request)
        if had is not None:
            yield had
            return
        with self._refusing():
            record = await self._hold_again(request)
        try:
            yield record.holder
        finally:
            with self._refusing(), self._in_time():
                await self._release(record, accessed=True)

    def _had_session(self, request: Request) -> Session | None:
        """The session that *request* has anyway until its answer goes out."""
        use = request._use
        if use is None or use.has_answer:
            return None
        if request._session is not None and request._session._record is None:
            new: Session = request._session
            return new
        for record in use.records:
            if record is not self._registry:
                return record.holder  # type: ignore[no-any-return]
        return None

    async def _hold_again(self, request: Request) -> Record:
        known = request._session
        ids = self._site.session_ids(request) if known is None else [known.uid]
        for uid in ids:
            record = await self._acquire(uid)
            if record is not None:
                request._session = record.holder
                if request._observer is not None:
                    request._observer.note_session(record.holder)
                record.holder.touch()
                return record
        return await self._create(request.getSession())

    # The registry

    @asynccontextmanager
    async def registry_lease(self) -> AsyncIterator[Registry]:
        """Have the registry inside of a block. See `Site.registry_lease`."""
        registry = self._registry.holder
        request = _answered.get()
        use = None if request is None else request._use
        if use is not None and self._registry in use.records:
            yield registry
            return
        with self._refusing():
            record = await self._acquire_registry()
        try:
            yield registry
        finally:
            with self._refusing(), self._in_time():
                await self._release(record, accessed=True)

    def fetch_registry(self) -> None:
        """Have the registry here, as it is asked for just now.

        Raises:
            HTTPError: 503, the store is away, or another worker has it.
            RuntimeError: no request asks for it, so that nobody would give it back.
        """
        with self._refusing():
            request = _answered.get()
            if request is None or request._use is None:
                raise RuntimeError(
                    "The registry is shared with other processes: write "
                    "`async with site.registry_lease() as registry:` around what uses it."
                )
            self._take_registry_blocking()
            request._use.records.append(self._registry)

    def _take_registry_blocking(self) -> None:
        turn = self._registry.turn
        assert turn is not None
        try:
            turn.acquire_nowait()
        except trio.WouldBlock:
            raise Unavailable("Another request has the registry at the moment") from None
        try:
            taken = self.store.take_blocking(REGISTRY)
            self._load_registry(taken or Taken(REGISTRY, b"", b""))
        except BaseException:
            turn.release()
            raise
        self._registry.users += 1


def _new_turn(*, free: bool = True) -> trio.Semaphore:
    return trio.Semaphore(int(free), max_value=1)


def _is_to_create(session: Session | None) -> bool:
    """Whether *session* is live and not stored yet."""
    return session is not None and session._record is None and session.ended is None
