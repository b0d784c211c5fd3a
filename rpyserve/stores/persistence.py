"""Sessions and the registry of a site that are kept in a store: when they are loaded and written.

A session is a live object in at most one process at a time. Where others share the store, a request
that may use one takes its record before it is rendered. Requests of the same visitor have it one
after the other, in this process as in all others, so an async script may await between reading and
writing. Before an answer goes out, what has changed is written: nothing is answered as done that is
not stored. Whether it has changed is seen by its bytes, so reading costs no write. When nobody here
waits for it, or others may have waited for long, the record is given back. Where the store is for
this process alone, nothing need be taken: a session is loaded when its cookie comes, and stays in
memory, and requests share it at any time.

A stream gives its session back with the head of its response. What it changes afterwards is written
at its end, unless somebody else has written meanwhile: then the console tells. The registry is one
record, with the same rules.

Must not know how sessions become bytes, nor where those lie.
"""

from __future__ import annotations

import logging
import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import ChunkIterator, FileBody, Response, StartedStream, Stream, Upgrade
from rpyserve.resources.resource import ForeignResource, FunctionResource, Resource
from rpyserve.scripts.execution import without_partials
from rpyserve.scripts.source import uses_of
from rpyserve.sessions.callbacks import Callback
from rpyserve.sessions.session import Registry, Session, SessionEnd, deadline_of
from rpyserve.stores.absent_registry import is_absent, make_absent, make_present
from rpyserve.stores.codec import Codec, key_of
from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    SoleStore,
    Store,
    StoreError,
    Taken,
    Unavailable,
)
from rpyserve.util.throttle import ThrottledLogger

if TYPE_CHECKING:
    from rpyserve.scripts.loader import ScriptLoader

log = logging.getLogger("rpyserve")

SWEEP: Final = 0.25
"""Seconds between two looks for sessions that are due in the store."""

ADOPT: Final = 2.0
"""Seconds between two looks for what workers that died had claimed."""

TURNS: Final = 1.0
"""Seconds in which requests of this process have a record one after the other, before it is given
back though more of them wait: others elsewhere may do so, too."""

BATCH: Final = 50
"""How many sessions that are due are claimed, and ended, at once."""

LONGEST_WAIT: Final = 10.0
"""Seconds after which a store that does not answer is unavailable, client or no client."""

_NOBODY: Final = bytes(32)
"""The key of no session."""

_LOST_CALLBACKS: Final = (
    "A session has ended whose callbacks were in a worker that is gone: those that no store can "
    "keep, such as lambdas, have not run."
)

T = TypeVar("T")

Respond = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True, eq=False)
class Record:
    """What this process has of one record.

    Attributes:
        key: under which it is kept.
        holder: the session or registry; None until it is loaded.
        taken: what is stored, as far as is known.
        is_held: whether the lease on it is ours.
        since: when it was taken.
        users: how many requests have it, or wait for it.
        turn: has it, where others share the store: one request after the other.
        uid: the id that *key* is of.
    """

    key: bytes
    holder: Any = None
    taken: Taken | None = None
    is_held: bool = False
    since: float = -math.inf
    users: int = 0
    turn: trio.Semaphore | None = None
    uid: str = ""


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


class Use:
    """What one request has of the store.

    Args:
        persistence: what takes it from there.
        request: the request.

    Attributes:
        names: what its script may use, of `source.ALL_USES`; None until that is known.
        records: what it has, and will give back.
        streamed: what it had when the head of its stream went out.
        has_answer: whether what it had before its answer has been settled.
        streams: whether its code goes on after that.
    """

    names: frozenset[str] | None = None
    has_answer = False
    streams = False
    records: list[Record]
    streamed: list[Streamed]

    def __init__(self, persistence: Persistence, request: Request) -> None:
        self._persistence = persistence
        self._request = request
        if persistence.store.is_shared:
            self.records, self.streamed = [], []

    async def hold(self, names: frozenset[str]) -> None:
        """Take what the script that is to answer may use; what is here already is not taken again.

        Args:
            names: of what, of `source.ALL_USES`.

        Raises:
            HTTPError: 503, the store is away.
        """
        known = self.names or frozenset()
        self.names = known | names
        if not names <= known:
            await self._persistence.hold(self._request, names - known)

    def load(self, scripts: ScriptLoader, path: str) -> Resource | Awaitable[Resource]:
        """Load a script, once what it may use is here: its top-level code may use it already."""
        if self._persistence.store.is_shared:
            return self._load_held(scripts, path)
        resource = scripts.load(path, self._request)
        self.names = scripts.uses(path)
        return resource

    async def _load_held(self, scripts: ScriptLoader, path: str) -> Resource:
        scripts.prepare(path, self._request)
        await self.hold(scripts.uses(path))
        resource = scripts.load(path, self._request)
        await self.hold(scripts.uses(path))  # it may have imported more
        return resource

    def note_access(self) -> None:
        """Note that a stream, which has given its session back, counts as an access just now."""
        if self._persistence.store.is_shared:
            self._persistence.note_accesses(self.streamed)

    async def hold_for(self, resource: Resource) -> None:
        """Take what *resource* may use, which no script of the site has left. Raises as `hold`.

        That is the session, unless it says otherwise, and the registry if its own code names it.
        """
        if self.names is None:
            await self.hold(_uses_of(resource) if resource._wants_session else frozenset())


def _uses_of(resource: Resource) -> frozenset[str]:
    if isinstance(resource, FunctionResource):
        return _uses_of_code(resource.function) | {"session"}
    kind: Any = type(resource.wrapped if isinstance(resource, ForeignResource) else resource)
    return _uses_of_code(kind) | {"session"}


@lru_cache(maxsize=1000)
def _uses_of_code(definition: Any) -> frozenset[str]:
    """What a function, or the methods of a class, may use."""
    classes = definition.__mro__ if isinstance(definition, type) else ()
    functions = [each for cls in classes for each in vars(cls).values()] or [definition]
    codes = [getattr(without_partials(each), "__code__", None) for each in functions]
    return frozenset().union(*(uses_of(code) for code in codes if code is not None))


_answered: ContextVar[Request | None] = ContextVar("answered request", default=None)


class Persistence:
    """Keeps the sessions and the registry of a site in a store.

    Args:
        site: the site.
        store: where they are kept.
        codec: makes records.
    """

    def __init__(self, site: Any, store: Store, codec: Codec) -> None:
        self.store = store
        self._site = site
        self._sessions = site.sessions
        self._codec = codec
        # By their keys: those that are loaded here.
        self._records: dict[bytes, Record] = {}
        self._registry = Record(REGISTRY, site.registry, turn=self._new_turn())
        self._streamed: dict[bytes, Streamed] = {}
        # The callbacks of sessions that no store can keep, by their keys.
        self._own: dict[bytes, OwnCallbacks] = {}
        # Those that a stream has accessed, which the store does not know yet.
        self._accessed: set[Streamed] = set()
        # Those who stream just now, and the store is for this process alone.
        self._streaming: dict[Use, Request] = {}
        # What the store does not know yet, as it was away: that some have ended, or have changed.
        self._ends: dict[bytes, Record] = {}
        self._unwritten: dict[int, Any] = {}
        self._failures = ThrottledLogger(log)
        self._told: set[str] = set()
        self.errors = 0  # requests that were refused for the store
        self._sessions.on_end = self._note_end
        site.ready_checks.append(self._check)
        make_absent(site.registry, self.fetch_registry)

    async def _check(self) -> None:
        """Raise if the store is away."""
        await self.store.take(_NOBODY)

    def _new_turn(self, *, free: bool = True) -> trio.Semaphore | None:
        return trio.Semaphore(int(free), max_value=1) if self.store.is_shared else None

    # The whole life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the store, and end sessions that are due there, until cancelled.

        Raises:
            StoreError: the store cannot be used at all.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            if self.store.is_shared:
                nursery.start_soon(self._hear)
            task_status.started()
            next_adoption = -math.inf
            while True:
                with self._telling():
                    if trio.current_time() >= next_adoption:
                        next_adoption = trio.current_time() + ADOPT
                        await self._finish(await self.store.adopt(), SessionEnd.IDLE)
                        await self._store_accesses()
                    await self._catch_up()
                    await self._put_streaming()
                    while endings := await self.store.due(BATCH):
                        await self._finish(endings, SessionEnd.IDLE)
                        await trio.lowlevel.checkpoint()
                await trio.sleep(SWEEP)

    async def close(self, grace: float) -> None:
        """Store what has changed, and let callbacks finish that have begun. No session ends.

        Args:
            grace: seconds.
        """
        with trio.move_on_after(grace, shield=True):
            if self.store.is_shared:
                await self._release_all()
            else:
                await self._put_all()
            with self._telling():
                await self._catch_up()
            await self._sessions.callbacks.wait_all_finished()
        if self._unwritten or self._ends:
            log.error(
                "%s: the last changes of %d sessions could not be written, and are lost",
                self.store.name,
                len(self._unwritten) + len(self._ends),
            )

    async def _release_all(self) -> None:
        """Give back what requests had that have been cut off."""
        for record in [*self._records.values(), self._registry]:
            if record.is_held:
                record.users = 1
                await self._release_or_tell(record)

    async def _put_all(self) -> None:
        """Store what was changed outside of requests."""
        holders = [*(record.holder for record in self._records.values()), self._registry.holder]
        for holder in holders:
            if not is_absent(holder):
                with self._telling():
                    await self._put_holder(holder, accessed=False)

    async def _catch_up(self) -> None:
        """Tell the store what it could not be told before."""
        for key, record in list(self._ends.items()):
            assert record.taken is not None
            with suppress(LeaseLost):
                await self._end_taken(record.taken)
            self._ends.pop(key, None)
        for holder in list(self._unwritten.values()):
            await self._put_holder(holder)

    async def _put_streaming(self) -> None:
        """Store what streams have changed, and that messages of WebSockets are accesses."""
        for request in list(self._streaming.values()):
            if request._session is not None:
                await self._put_holder(request._session)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """While inside, what a store cannot do is told on the console, not raised."""
        try:
            yield
        except StoreError as exc:
            self._failures.warn("%s", exc, key=str(exc))

    # One request

    async def answer(self, request: Request, respond: Respond) -> Response:
        """Answer *request* by *respond*; what it changes is stored before the answer goes out.

        Raises:
            BaseException: whatever *respond* raises.
        """
        use = request._use = Use(self, request)
        if self.store.is_shared:
            _answered.set(request)
        try:
            response = await respond(request)
            if isinstance(response.body, (Stream, Upgrade)):
                return await self._settle_stream(request, response)
            if not self.store.is_shared and self._has_nothing(request, use):
                request._use = None
                return response
            page = await self._settle_page(request)
        except BaseException:
            request.on_close(partial(self._closed, request))
            raise
        finally:
            if self.store.is_shared:
                _answered.set(None)
        request._use = None
        if page is not None and isinstance(response.body, FileBody):
            response.body.close()
        return page or response

    def _has_nothing(self, request: Request, use: Use) -> bool:
        """Whether there is nothing that *request* could have changed."""
        uses_registry = use.names is None or "registry" in use.names
        return request._session is None and not uses_registry and not self._ends

    async def _settle_stream(self, request: Request, response: Response) -> Response:
        """Have what *request* has changed stored before the head of its stream goes out."""
        request.on_close(partial(self._closed, request))
        if isinstance(response.body, Upgrade):
            return await self._settle_page(request, streams=True) or response
        assert isinstance(response.body, Stream)
        body = _StoredStream(response.body, partial(self._settle_page, request, True))
        return Response.trusted(body, response.status, response.headers)

    async def _settle_page(self, request: Request, streams: bool = False) -> Response | None:
        """Store and give back; return the page that says so if that cannot be done."""
        try:
            await self._settle(request, streams)
            return None
        except StoreError as exc:
            reason: Exception = self._refusal(exc)
        except Exception as exc:
            reason = exc
        if self.store.is_shared:  # or the visitor would have the cookie of what is not stored
            request._response.session_cookie = None
        page: Response = self._site.page_for(request, reason)
        return page

    async def _settle(self, request: Request, streams: bool = False) -> None:
        """Store what *request* has changed, and give back what it has.

        Args:
            streams: whether its code goes on, as it is a stream.

        Raises:
            StoreError: that cannot be done.
        """
        use, session = request._use, request._session
        use.has_answer, use.streams = True, streams
        if not self.store.is_shared:
            if streams:
                self._streaming[use] = request
            await self._settle_alone(request, use)
            return
        failure: Exception | None = None
        with self._in_time():
            if session is not None and session._record is None and session.ended is None:
                use.records.append(await self._create(session))
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

    async def _settle_alone(self, request: Request, use: Use) -> None:
        if self._ends:
            await self._catch_up()
        session = request._session
        uses_registry = use.names is None or "registry" in use.names
        if session is None or not uses_registry:
            if session is not None:
                await self._put_holder(session)
            elif uses_registry:
                await self._put_registry()
        else:
            await self._put_together(session)
        if session is not None and session.new:
            await self._make_room()

    async def _put_together(self, session: Session) -> None:
        """Store a session and the registry, both or none."""
        try:
            with cast(SoleStore, self.store).together():
                await self._put_holder(session)
                await self._put_registry()
        except Unavailable:
            for record in (session._record, self._registry):
                if record is not None and record.taken is not None:  # nobody knows what is there
                    record.taken = Taken(record.key, b"", b"")
                    self._unwritten[id(record.holder)] = record.holder
            raise

    async def _put_registry(self) -> None:
        if not is_absent(self._registry.holder):
            await self._put_holder(self._registry.holder)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """While inside, nobody but a store that does not answer cuts the task off."""
        with trio.move_on_after(LONGEST_WAIT, shield=True) as scope:
            yield
        if scope.cancelled_caught:
            raise Unavailable(f"{self.store.name} does not answer")

    def _closed(self, request: Request) -> None:
        """Store what has changed since the answer went out, or was given up."""
        use, request._use = request._use, None
        if use is None:
            return
        if not self.store.is_shared:
            self._streaming.pop(use, None)
            if use.streams or not use.has_answer:
                with self._telling():
                    at_once(self._settle_alone(request, use))
            return
        if use.records or use.streamed:
            self._site.start_task(partial(self._settle_closed, request, use))

    async def _settle_closed(self, request: Request, use: Use) -> None:
        while use.records:
            await self._release_or_tell(use.records.pop())
        while use.streamed:
            with self._telling(), self._in_time():
                await self._end_stream(use.streamed.pop(), request)

    def _refusal(self, exc: StoreError) -> HTTPError:
        """What the visitor gets as *exc* was raised, which the console is told."""
        self._failures.warn("%s", exc, key=str(exc))
        self.errors += 1
        return HTTPError(
            503,
            "What you do here cannot be stored just now. Try again in a moment.",
            {"Retry-After": "1"},
            private=str(exc),
        )

    # What a request gets

    async def hold(self, request: Request, names: frozenset[str]) -> None:
        """Take what *request* may use, where others share the store. See `Use.hold`."""
        if not self.store.is_shared:
            return
        with self._refusing():
            if "session" in names:
                await self._hold_session(request, self._site.session_ids(request))
            if "registry" in names:
                request._use.records.append(await self._acquire_registry())

    async def _hold_session(self, request: Request, ids: list[str]) -> Record | None:
        for uid in ids:
            record = await self._acquire(uid)
            if record is not None:
                request._use.records.append(record)
                return record
        return None

    def find(self, uid: str, request: Request) -> Session | None:
        """Return the session *uid*, and count that as an access; None if there is none.

        Raises:
            HTTPError: 503, the store is away; or somebody else has the session, and this request
                has not waited for it, as nobody knew that its script would ask.
        """
        session: Session | None = self._sessions.find(uid)
        if session is not None and (not self.store.is_shared or self._has(request, session)):
            return session
        try:
            return self._find_stored(uid, request)
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
        if not self.store.is_shared:
            if record is not None:  # it has ended, or another id
                return None
            return self._load(Record(key), uid, at_once(self.store.take(key)))
        if record is None:
            self._hint_at_blocking(request)
            record = self._records[key] = Record(key, turn=self._new_turn(free=False))
            try:
                taken = self.store.take_blocking(key)
            except BaseException:
                del self._records[key]
                raise
            if self._load(record, uid, taken) is None:
                del self._records[key]
                return None
            record.is_held = True
        else:
            raise Unavailable("Another request of this visitor has the session at the moment")
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

    def _load(self, record: Record, uid: str, taken: Taken | None) -> Session | None:
        """Have the session of what was *taken* live here."""
        if taken is None:
            return None
        streamed = self._streamed.get(record.key)
        if streamed is not None and streamed.blob == taken.blob:
            session: Session | None = streamed.session
        else:
            session = self._loaded(uid, record.key, taken.blob)
        if session is None:
            return None
        record.holder, record.taken, record.uid = session, taken, uid
        session._record = record
        self._records[record.key] = record
        self._put_back_own(session, record.key)
        self._sessions.add(session)
        return session

    def _loaded(self, uid: str, key: bytes, blob: bytes) -> Session | None:
        """The session of a record; None if it cannot be trusted or read, which is told."""
        try:
            return self._codec.load(uid, key, blob)
        except StoreError:
            raise
        except Exception as exc:
            what = f"A session in {self.store.name} cannot be loaded, and its visitor gets another"
            self._failures.warn("%s: %s", what, exc, key=what)
        return None

    def _blob_of(self, holder: Any, key: bytes) -> bytes:
        """The record of a session or the registry as it is now.

        Raises:
            Exception: it holds what no other worker could have.
        """
        is_registry = key == REGISTRY
        dumped = self._codec.dump_registry() if is_registry else self._codec.dump(holder, key)
        if self.store.is_shared:
            self._keep_own(holder, key, dumped.callbacks)
            return dumped.require_whole()
        for each in dumped.left_out:
            self._tell_once(f"{each}. It is lost when the server stops")
        if dumped.callbacks:
            self._tell_once(
                "A session has callbacks that cannot be kept, such as lambdas: they are lost when "
                "the server stops. Functions of a module or a cached script can be kept"
            )
        return dumped.blob

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

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s.", text)

    def _put_back_own(self, session: Session, key: bytes) -> None:
        """Have *session*, which was loaded, have its callbacks that only this process has."""
        own = self._own.get(key)
        if own is not None:
            had = session._callbacks or []
            missing = [each for each in own.callbacks if not any(each is one for one in had)]
            session._callbacks = [*had, *missing]

    # Taking and giving, where others share the store

    async def _acquire(self, uid: str) -> Record | None:
        """Take the record of the session *uid*, once nobody else has it, here or elsewhere."""
        key = key_of(uid)
        if key in self._ends:
            return None
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record(key, turn=self._new_turn())
        async with self._having_turn(record):
            if not record.is_held:
                taken = await self.store.take(key)
                record.is_held = self._load(record, uid, taken) is not None
                record.since = trio.current_time()
        session = record.holder
        if not record.is_held or session.ended is not None or session.uid != uid:
            await self._release(record, accessed=False)
            return None
        return record

    async def _acquire_registry(self) -> Record:
        record = self._registry
        async with self._having_turn(record):
            if not record.is_held:
                self._load_registry(await self.store.take(REGISTRY, create=True))
                record.since = trio.current_time()
        return record

    @asynccontextmanager
    async def _having_turn(self, record: Record) -> AsyncIterator[None]:
        """Wait until nobody here has *record*; it is left again if what is inside fails."""
        assert record.turn is not None
        record.users += 1
        try:
            await record.turn.acquire()
        except BaseException:
            record.users -= 1
            self._forget_unused(record)
            raise
        try:
            yield
        except BaseException:
            self._leave(record)
            raise

    def _load_registry(self, taken: Taken | None) -> None:
        assert taken is not None
        record = self._registry
        make_present(record.holder)
        if taken.blob and (record.taken is None or record.taken.blob != taken.blob):
            self._read_registry(record.holder, taken.blob)
        record.taken, record.is_held = taken, True

    def _read_registry(self, registry: Registry, blob: bytes) -> None:
        registry._values = registry._components = None
        registry.__dict__.clear()
        try:
            self._codec.load_registry(blob)
        except Exception as exc:
            # It is left as it is: another key, or another version, may be what it takes.
            make_absent(registry, self.fetch_registry)
            if isinstance(exc, StoreError):
                raise
            raise Unavailable(
                f"The registry in {self.store.name} cannot be loaded: {exc}. Put the key back, or "
                "begin anew with `rpyserve --forget`"
            ) from exc

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
                record.is_held = record.is_held and not give
        except BaseException as exc:
            if record.is_held and record.taken is not None and not isinstance(exc, StoreError):
                # It holds what cannot be stored: what was stored remains.
                await self.store.give(record.taken, None, None)
            record.is_held = False
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
        record = Record(key, session, taken, self.store.is_shared, users=1)
        record.turn, record.uid = self._new_turn(free=False), session.uid
        session._record = self._records[key] = record
        return record

    async def _put_holder(self, holder: Any, *, accessed: bool = True) -> None:
        """Store a session or the registry if it has changed. What fails is tried again later."""
        try:
            if holder is self._registry.holder:
                await self._put(self._registry, give=True, accessed=accessed)
            elif holder._record is not None:
                await self._put(holder._record, give=True, accessed=accessed)
            elif holder.ended is None:
                await self._create(holder)
        except Unavailable:
            self._unwritten[id(holder)] = holder
            raise
        self._unwritten.pop(id(holder), None)

    async def _put(self, record: Record, *, give: bool, accessed: bool) -> None:
        """Store *record* if it has changed, and give it back if *give*."""
        taken, holder = record.taken, record.holder
        assert taken is not None
        if record is self._registry:
            key, lives = REGISTRY, math.inf
        elif holder.ended is not None:
            await self._end(record)
            return
        else:
            # Only `regenerate` changes an id, and it is rarely called.
            key = record.key if holder.uid == record.uid else key_of(holder.uid)
            lives = self._lives(holder)
        is_unused = record is self._registry and not taken.blob and _is_empty(holder)
        blob = b"" if is_unused else self._blob_of(holder, key)
        changed = blob != taken.blob
        if key != taken.key:
            taken = await self.store.move(taken, key, blob, lives)
            self._rename(record, taken)
            changed = False
        if give:
            await self.store.give(
                taken,
                blob if changed else None,
                lives if accessed or changed else None,
                listens=key in self._own,
            )
            taken = Taken(taken.key, taken.token, blob) if changed else taken
        elif changed:
            taken = await self.store.write(taken, blob, lives)
        record.taken = taken
        streamed = self._streamed.get(key)
        if streamed is not None and streamed.session is holder:
            streamed.blob = blob

    def _rename(self, record: Record, taken: Taken) -> None:
        self._own.pop(record.key, None)
        self._records.pop(record.key, None)
        record.key, record.taken, record.uid = taken.key, taken, record.holder.uid
        self._records[taken.key] = record

    def _lives(self, session: Session) -> float:
        seconds: float = deadline_of(session) - self._sessions.now()
        return max(0.0, seconds)

    async def _make_room(self) -> None:
        limit = self._sessions.max_sessions
        if limit is not None and self.store.statistics().live > limit:
            ending = await self.store.evict()
            if ending is not None:
                await self._finish([ending], SessionEnd.EVICTED)

    # Ends

    def _note_end(self, session: Session) -> None:
        """Have the store forget a session that has ended here.

        Where others share it, the request that has the session does that.
        """
        if self.store.is_shared:
            return
        with self._telling():
            at_once(self._end(session._record))

    async def _end(self, record: Record) -> None:
        assert record.taken is not None
        if self._records.get(record.key) is record:
            del self._records[record.key]
        elif not record.is_held:
            return  # another request has done that
        record.is_held = False
        self._ends[record.key] = record
        await self._end_taken(record.taken)
        del self._ends[record.key]

    async def _end_taken(self, taken: Taken) -> None:
        """Have the store forget a session whose callbacks have been called here."""
        listeners = await self.store.end(taken)
        self._own.pop(taken.key, None)  # they have run here
        await self._tell_listeners(listeners, taken.key)

    async def _finish(self, endings: list[Ending], reason: SessionEnd) -> None:
        """End what was claimed as it is due, or to make room."""
        if self.store.is_shared:
            # Together, as each has to wait for the store to forget it.
            async with trio.open_nursery() as nursery:
                for ending in endings:
                    nursery.start_soon(self._end_stored_or_tell, ending, reason)
            return
        for ending in endings:
            record = self._records.get(ending.key)
            session = None if record is None else record.holder
            if record is None or session is None or session.ended is not None:
                await self._end_stored(ending, reason)
            elif reason is SessionEnd.IDLE and deadline_of(session) > self._sessions.now():
                # It is in use here. That is not yet known there.
                blob = self._blob_of(session, ending.key)
                record.taken = await self.store.create(ending.key, blob, self._lives(session))
            else:
                self._sessions.end(session, reason)

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

    async def _tell_listeners(self, listeners: Collection[bytes], key: bytes) -> None:
        """Have other workers call the callbacks that only they have."""
        for worker in listeners:
            if worker != self.store.worker and not await self.store.tell(worker, key):
                log.warning(_LOST_CALLBACKS)

    async def _hear(self) -> None:
        """Call the callbacks that only this worker has, as others find that sessions have ended."""
        while True:
            with self._telling():
                own = self._own.pop(await self.store.wait_told(), None)
                if own is not None:
                    for callback in own.callbacks:
                        self._sessions.callbacks.call(callback, own.session_id)

    # Streams

    def _note_streamed(self, use: Use, record: Record) -> None:
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
        if not self.store.is_shared:
            session = request.getSession()
            try:
                yield session
            finally:
                with self._refusing():
                    await self._put_holder(session)
            return
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
                record.holder.touch()
                return record
        return await self._create(request.getSession())

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except StoreError as exc:
            raise self._refusal(exc) from exc

    # The registry

    @asynccontextmanager
    async def registry_lease(self) -> AsyncIterator[Registry]:
        """Have the registry inside of a block. See `Site.registry_lease`."""
        registry = self._registry.holder
        if not self.store.is_shared:
            try:
                yield registry
            finally:
                await self._put_registry()
            return
        request = _answered.get()
        if (
            request is not None
            and request._use is not None
            and self._registry in (request._use.records)
        ):
            yield registry
            return
        record = await self._acquire_registry()
        try:
            yield registry
        finally:
            with self._in_time():
                await self._release(record, accessed=True)

    def fetch_registry(self) -> None:
        """Have the registry here, as it is asked for just now.

        Raises:
            HTTPError: 503, the store is away, or another worker has it.
            RuntimeError: no request asks for it, so that nobody would give it back.
        """
        with self._refusing():
            if not self.store.is_shared:
                self._load_registry(at_once(self.store.take(REGISTRY, create=True)))
                return
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


def _is_empty(registry: Registry) -> bool:
    return not (registry._values or registry._components or registry.__dict__)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run *work*, which does not wait, and return what it returns."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the store of a single process must not wait")


class _StoredStream(Stream):
    """A stream whose session is stored before its head goes out.

    Args:
        stream: what is sent.
        settle: stores it, or returns the page that is to be sent instead.
    """

    def __init__(self, stream: Stream, settle: Callable[[], Awaitable[Response | None]]) -> None:
        self._stream = stream
        self._settle = settle
        self.length = stream.length

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        """See `Stream`."""
        async with self._stream.start(response) as started:
            page = await self._settle()
            if page is None:
                yield started
                return
        yield StartedStream(page, ChunkIterator(_no_chunk))


async def _no_chunk() -> bytes:
    return b""
