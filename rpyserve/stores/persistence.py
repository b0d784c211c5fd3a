"""Sessions and the registry of a site that are kept in a store: when they are loaded and written.

Before an answer goes out, what has changed is written: nothing is answered as done that is not
stored. Whether it has changed is seen by its bytes, so reading costs no write. The registry is one
record, with the same rules.

Here is what holds for every store. What a store for this process alone makes simple is in
`rpyserve.stores.sole`; how workers that share one have a session in turn is in
`rpyserve.stores.shared`.

Must not know how sessions become bytes, nor where those lie.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import ChunkIterator, FileBody, Response, StartedStream, Stream, Upgrade
from rpyserve.resources.resource import ForeignResource, FunctionResource, Resource
from rpyserve.scripts.execution import without_partials
from rpyserve.scripts.source import uses_of
from rpyserve.sessions.session import Registry, Session, SessionEnd, deadline_of
from rpyserve.stores.absent_registry import make_absent, make_present
from rpyserve.stores.codec import Codec, Dumped, Unkeepable, key_of
from rpyserve.stores.store import REGISTRY, Ending, Store, StoreError, Taken, Unavailable
from rpyserve.util.throttle import ThrottledLogger

if TYPE_CHECKING:
    from rpyserve.scripts.loader import ScriptLoader

log = logging.getLogger("rpyserve")

SWEEP: Final = 0.25
"""Seconds between two looks for sessions that are due in the store."""

ADOPT: Final = 2.0
"""Seconds between two looks for what workers that died had claimed."""

BATCH: Final = 50
"""How many sessions that are due are claimed, and ended, at once."""

NOTHING: Final[frozenset[str]] = frozenset()
"""What a script may use of `source.ALL_USES` that uses none of it."""

_NOBODY: Final = bytes(32)
"""The key of no session."""

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


class Use:
    """What one request has of the store.

    Args:
        request: the request.

    Attributes:
        names: what its script may use, of `source.ALL_USES`; None until that is known.
        has_answer: whether what it had before its answer has been settled.
        streams: whether its code goes on after that.
    """

    names: frozenset[str] | None = None
    has_answer = False
    streams = False

    def __init__(self, request: Request) -> None:
        self._request = request

    async def hold(self, names: frozenset[str]) -> None:
        """Take what the script that is to answer may use; what is here already is not taken again.

        Args:
            names: of what, of `source.ALL_USES`.

        Raises:
            HTTPError: 503, the store is away.
        """
        self.names = (self.names or NOTHING) | names

    def load(self, scripts: ScriptLoader, path: str) -> Resource | Awaitable[Resource]:
        """Load a script, once what it may use is here: its top-level code may use it already."""
        resource = scripts.load(path, self._request)
        self.names = scripts.uses(path)
        return resource

    def note_access(self) -> None:
        """Note that a stream, whose head has gone out, counts as an access just now."""

    async def hold_for(self, resource: Resource) -> None:
        """Take what *resource* may use, which no script of the site has left. Raises as `hold`.

        That is the session, unless it says otherwise, and the registry if its own code names it.
        """
        if self.names is None:
            await self.hold(_uses_of(resource) if resource._wants_session else NOTHING)


def _uses_of(resource: Resource) -> frozenset[str]:
    if isinstance(resource, FunctionResource):
        return _uses_of_code(_code_of(resource.function)) | {"session"}
    kind: Any = type(resource.wrapped if isinstance(resource, ForeignResource) else resource)
    return _uses_of_code(kind) | {"session"}


def _code_of(function: Any) -> CodeType | None:
    code: CodeType | None = getattr(without_partials(function), "__code__", None)
    return code


@lru_cache(maxsize=1000)
def _uses_of_code(definition: type | CodeType | None) -> frozenset[str]:
    """What the code of a function, or of the methods of a class, may use."""
    codes = [definition]
    if isinstance(definition, type):
        codes = [_code_of(each) for cls in definition.__mro__ for each in vars(cls).values()]
    return frozenset().union(*(uses_of(code) for code in codes if isinstance(code, CodeType)))


class Persistence(ABC):
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
        self._registry = Record(REGISTRY, site.registry)
        # Those that have ended, which the store does not know yet, as it was away.
        self._ends: dict[bytes, Record] = {}
        self._failures = ThrottledLogger(log)
        self._told: set[str] = set()
        self.errors = 0  # requests that were refused for the store
        site.ready_checks.append(self._check)
        make_absent(site.registry, self.fetch_registry)

    async def _check(self) -> None:
        """Raise if the store is away."""
        await self.store.take(_NOBODY)

    # The whole life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the store, and end sessions that are due there, until cancelled.

        Raises:
            StoreError: the store cannot be used at all.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            for task in self._tasks():
                nursery.start_soon(task)
            task_status.started()
            next_adoption = -math.inf
            while True:
                with self._telling():
                    if trio.current_time() >= next_adoption:
                        next_adoption = trio.current_time() + ADOPT
                        await self._adopt()
                    await self._catch_up()
                    while endings := await self.store.due(BATCH):
                        await self._finish(endings, SessionEnd.IDLE)
                        await trio.lowlevel.checkpoint()
                await trio.sleep(SWEEP)

    def _tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What runs as long as the store."""
        return ()

    async def _adopt(self) -> None:
        """End what workers that died had claimed."""
        await self._finish(await self.store.adopt(), SessionEnd.IDLE)

    async def close(self, grace: float) -> None:
        """Store what has changed, and let callbacks finish that have begun. No session ends.

        Args:
            grace: seconds.
        """
        with trio.move_on_after(grace, shield=True):
            await self._store_all()
            with self._telling():
                await self._catch_up()
            await self._sessions.callbacks.wait_all_finished()
        lost = self._unknown_to_store()
        if lost:
            log.error(
                "%s: the last changes of %d sessions could not be written, and are lost",
                self.store.name,
                lost,
            )

    @abstractmethod
    async def _store_all(self) -> None:
        """Store what has changed, as the server stops. What fails is told."""

    @abstractmethod
    async def _catch_up(self) -> None:
        """Tell the store what it could not be told before, and what streams have changed."""

    def _unknown_to_store(self) -> int:
        """How many sessions there are of which the store does not know the last."""
        return len(self._ends)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """While inside, what cannot be stored is told on the console, not raised."""
        try:
            yield
        except (StoreError, Unkeepable) as exc:
            self._failures.warn("%s", exc, key=str(exc))

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except StoreError as exc:
            raise self._refusal(exc) from exc

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

    # One request

    async def answer(self, request: Request, respond: Respond) -> Response:
        """Answer *request* by *respond*; what it changes is stored before the answer goes out.

        Raises:
            BaseException: whatever *respond* raises.
        """
        use = request._use = self._make_use(request)
        page = None
        try:
            response = await respond(request)
            if isinstance(response.body, (Stream, Upgrade)):
                return await self._settle_stream(request, response)
            if not self._is_settled(request, use):
                page = await self._settle_page(request)
        except BaseException:
            request.on_close(partial(self._closed, request))
            raise
        if page is None:
            request._use = None
            return response
        request.on_close(partial(self._closed, request))  # it may still have something
        if isinstance(response.body, FileBody):
            response.body.close()
        return page

    def _make_use(self, request: Request) -> Any:
        return Use(request)

    @abstractmethod
    def _is_settled(self, request: Request, use: Any) -> bool:
        """Whether there is nothing to store or to give back of what *request* has had."""

    @abstractmethod
    async def _settle(self, request: Request, streams: bool = False) -> None:
        """Store what *request* has changed, and give back what it has.

        Args:
            streams: whether its code goes on, as it is a stream.

        Raises:
            StoreError: that cannot be done.
        """

    @abstractmethod
    def _closed(self, request: Request) -> None:
        """Store what has changed since the answer went out, or was given up."""

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
        return self._page_for(request, reason)

    def _page_for(self, request: Request, reason: Exception) -> Response:
        page: Response = self._site.page_for(request, reason)
        return page

    # What a request gets

    def find(self, uid: str, request: Request) -> Session | None:
        """Return the session *uid*, and count that as an access; None if there is none.

        Raises:
            HTTPError: 503, the store is away; or somebody else has the session, and this request
                has not waited for it, as nobody knew that its script would ask.
        """
        session: Session | None = self._sessions.find(uid)
        if session is not None and self._has(request, session):
            return session
        try:
            return self._find_stored(uid, request)
        except StoreError as exc:
            raise self._refusal(exc) from exc

    def _has(self, request: Request, session: Session) -> bool:
        """Whether *request* may use *session*, which is live here."""
        return True

    @abstractmethod
    def _find_stored(self, uid: str, request: Request) -> Session | None:
        """Load the session *uid*; None if there is none."""

    @abstractmethod
    def session_held(self, request: Request) -> AbstractAsyncContextManager[Session]:
        """Have the visitor's session inside of a block. See `Request.session`."""

    @abstractmethod
    def registry_lease(self) -> AbstractAsyncContextManager[Registry]:
        """Have the registry inside of a block. See `Site.registry_lease`."""

    @abstractmethod
    def fetch_registry(self) -> None:
        """Have the registry here, as it is asked for just now.

        Raises:
            HTTPError: 503, the store is away, or another worker has it.
            RuntimeError: no request asks for it, so that nobody would give it back.
        """

    # Records become objects

    def _load(self, record: Record, uid: str, taken: Taken | None) -> Session | None:
        """Have the session of what was *taken* live here."""
        session = None if taken is None else self._session_of(record.key, uid, taken.blob)
        if session is None:
            return None
        record.holder, record.taken, record.uid = session, taken, uid
        session._record = record
        self._records[record.key] = record
        # Others share it only as long as a request has it.
        self._sessions.add(session, is_timed=not self.store.is_shared)
        return session

    def _session_of(self, key: bytes, uid: str, blob: bytes) -> Session | None:
        """The session of a record; None if it cannot be trusted or read, which is told."""
        return self._loaded(uid, key, blob)

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

    # Objects become records

    def _dump(self, holder: Any, key: bytes) -> Dumped:
        return self._codec.dump_registry() if key == REGISTRY else self._codec.dump(holder, key)

    @abstractmethod
    def _blob_of(self, holder: Any, key: bytes) -> bytes:
        """The record of a session or the registry as it is now; what is not in it is told."""

    def _written(self, record: Record) -> tuple[bytes, bytes, float]:
        """What *record* is to be in the store: its key, its bytes, and how long it lives."""
        holder, taken = record.holder, record.taken
        if record is self._registry:
            is_unused = taken is not None and not taken.blob and _is_empty(holder)
            return REGISTRY, b"" if is_unused else self._blob_of(holder, REGISTRY), math.inf
        # Only `regenerate` changes an id, and it is rarely called.
        key = record.key if holder._uid == record.uid else key_of(holder.uid)
        return key, self._blob_of(holder, key), self._lives(holder)

    def _rename(self, record: Record, taken: Taken) -> None:
        self._records.pop(record.key, None)
        record.key, record.taken, record.uid = taken.key, taken, record.holder.uid
        self._records[taken.key] = record

    def _lives(self, session: Session) -> float:
        seconds: float = deadline_of(session) - self._sessions.now()
        return max(0.0, seconds)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s.", text)

    async def _make_room(self) -> None:
        limit = self._sessions.max_sessions
        if limit is not None and self.store.statistics().live > limit:
            ending = await self.store.evict()
            if ending is not None:
                await self._finish([ending], SessionEnd.EVICTED)

    # Ends

    @abstractmethod
    async def _finish(self, endings: list[Ending], reason: SessionEnd) -> None:
        """End what was claimed as it is due, or to make room."""


def _is_empty(registry: Registry) -> bool:
    return not (registry._values or registry._components or registry.__dict__)


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
