"""Sessions in a store that this process has for itself, as a file of SQLite.

Nothing need be taken: a session is loaded when its cookie comes, and stays in memory, and requests
share it at any time. The store never waits, so all of this is plain functions, and a request costs
no more than looking whether its session has changed, and writing it.

What cannot be written, as the store is away, is kept, and tried again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from rpyserve.http.request import Request
from rpyserve.sessions.session import Registry, Session, SessionEnd, deadline_of
from rpyserve.stores.absent_registry import is_absent
from rpyserve.stores.codec import Codec, key_of
from rpyserve.stores.persistence import Persistence, Record, Use
from rpyserve.stores.store import REGISTRY, Ending, SoleStore, Taken, Unavailable

T = TypeVar("T")


class SoleUse(Use):
    """What one request has of a store that is for this process alone. See `Use`.

    Args:
        request: the request.
        ends: how many sessions had ended when it came.
    """

    def __init__(self, request: Request, ends: int) -> None:
        super().__init__(request)
        self.ends = ends


class SolePersistence(Persistence):
    """Keeps sessions in a store that is for this process alone. See `Persistence`."""

    store: SoleStore

    def __init__(self, site: Any, store: SoleStore, codec: Codec) -> None:
        super().__init__(site, store, codec)
        # Those who stream just now.
        self._streaming: dict[Use, Request] = {}
        # What has changed and could not be written, by its id.
        self._unwritten: dict[int, Any] = {}
        self._end_count = 0
        self._sessions.on_end = self._note_end

    # The whole life

    async def _store_all(self) -> None:
        """Store what was changed outside of requests."""
        holders = [*(record.holder for record in self._records.values()), self._registry.holder]
        for holder in holders:
            if not is_absent(holder):
                with self._telling():
                    self._put_holder(holder, accessed=False)

    async def _catch_up(self) -> None:
        self._store_ends()
        for holder in list(self._unwritten.values()):
            self._put_holder(holder)
        for request in list(self._streaming.values()):  # a message of a WebSocket is an access
            if request._session is not None:
                self._put_holder(request._session)

    def _store_ends(self) -> None:
        for key, record in list(self._ends.items()):
            assert record.taken is not None
            at_once(self.store.end(record.taken))
            self._ends.pop(key, None)

    def _unknown_to_store(self) -> int:
        return len(self._unwritten) + len(self._ends)

    # One request

    def _make_use(self, request: Request) -> SoleUse:
        return SoleUse(request, self._end_count)

    def _is_settled(self, request: Request, use: SoleUse) -> bool:
        has_used = request._session is not None or _uses_registry(use)
        return not has_used and not self._has_unstored_end(use)

    def _has_unstored_end(self, use: SoleUse) -> bool:
        """Whether the store may not know yet of a session that the request has ended."""
        return bool(self._ends) and use.ends != self._end_count

    async def _settle(self, request: Request, streams: bool = False) -> None:
        use = request._use
        use.has_answer, use.streams = True, streams
        if streams:
            self._streaming[use] = request
        try:
            with self.store.grouping():
                self._put_used(request, use)
        finally:
            # Also what this request has only read may be what another one has just put.
            await self._committed(request, use)
        self._make_room_for(request._session)

    async def _committed(self, request: Request, use: SoleUse) -> None:
        """Wait until what was put is committed. What is not is tried again later."""
        try:
            await self.store.committed()
        except Unavailable:
            if request._session is not None:
                self._note_unwritten(request._session._record)
            if _uses_registry(use):
                self._note_unwritten(self._registry)
            raise

    def _note_unwritten(self, record: Record | None) -> None:
        """Have *record* written anew, as nobody knows what is stored of it."""
        if record is not None and record.taken is not None:
            record.taken = Taken(record.key, b"", b"")
            self._unwritten[id(record.holder)] = record.holder

    def _put_used(self, request: Request, use: SoleUse) -> None:
        """Store what *request* may have changed."""
        if self._has_unstored_end(use):
            self._store_ends()
        session = request._session
        if not _uses_registry(use):
            if session is not None:
                self._put_holder(session)
        elif session is None:
            self._put_registry()
        else:
            self._put_together(session)

    def _make_room_for(self, session: Session | None) -> None:
        """End what is idle longest if *session*, which is stored, is one too many."""
        if session is not None and session.new:
            at_once(self._make_room())

    def _put_together(self, session: Session) -> None:
        """Store a session and the registry, both or none."""
        try:
            with self.store.together():
                self._put_holder(session)
                self._put_registry()
        except Unavailable:
            self._note_unwritten(session._record)
            self._note_unwritten(self._registry)
            raise

    def _put_registry(self) -> None:
        if not is_absent(self._registry.holder):
            self._put_holder(self._registry.holder)

    def _closed(self, request: Request) -> None:
        use, request._use = request._use, None
        if use is None:
            return
        self._streaming.pop(use, None)
        if use.streams or not use.has_answer:
            with self._telling():
                self._put_used(request, use)
                self._make_room_for(request._session)

    # What a request gets

    def _find_stored(self, uid: str, request: Request) -> Session | None:
        key = key_of(uid)
        if key in self._ends or key in self._records:  # it has ended, or has another id
            return None
        return self._load(Record(key), uid, self.store.take_blocking(key))

    @asynccontextmanager
    async def session_held(self, request: Request) -> AsyncIterator[Session]:
        """Have the visitor's session inside of a block. See `Request.session`."""
        session = request.getSession()
        try:
            yield session
        finally:
            with self._refusing():
                self._put_holder(session)

    @asynccontextmanager
    async def registry_lease(self) -> AsyncIterator[Registry]:
        """Have the registry inside of a block. See `Site.registry_lease`."""
        try:
            yield self._registry.holder
        finally:
            with self._refusing():
                self._put_registry()

    def fetch_registry(self) -> None:
        """Have the registry here, as it is asked for just now.

        Raises:
            HTTPError: 503, the store is away.
        """
        with self._refusing():
            taken = self.store.take_blocking(REGISTRY)
            self._load_registry(taken or Taken(REGISTRY, b"", b""))

    # Writing

    def _put_holder(self, holder: Any, *, accessed: bool = True) -> None:
        """Store a session or the registry if it has changed. What fails is tried again later."""
        record = self._registry if holder is self._registry.holder else holder._record
        try:
            if record is not None:
                self._put(record, accessed)
            elif holder.ended is None:
                self._create(holder)
        except Unavailable:
            self._unwritten[id(holder)] = holder
            raise
        if self._unwritten:
            self._unwritten.pop(id(holder), None)

    def _put(self, record: Record, accessed: bool) -> None:
        """Store *record* if it has changed."""
        if record is not self._registry and record.holder.ended is not None:
            self._end(record)
            return
        taken = record.taken
        assert taken is not None
        key, blob, lives = self._written(record)
        if key != taken.key:
            self._rename(record, at_once(self.store.move(taken, key, blob, lives)))
        elif blob != taken.blob:
            self.store.put(key, blob, lives)
            record.taken = Taken(key, b"", blob)
        elif accessed:
            self.store.note_access(key, lives)

    def _create(self, session: Session) -> None:
        """Store a new session."""
        key = key_of(session.uid)
        taken = at_once(self.store.create(key, self._blob_of(session, key), self._lives(session)))
        record = Record(key, session, taken, uid=session.uid)
        session._record = self._records[key] = record

    def _blob_of(self, holder: Any, key: bytes) -> bytes:
        dumped = self._dump(holder, key)
        for each in dumped.left_out:
            self._tell_once(f"{each}. It is lost when the server stops")
        if dumped.callbacks:
            self._tell_once(
                "A session has callbacks that cannot be kept, such as lambdas: they are lost when "
                "the server stops. Functions of a module or a cached script can be kept"
            )
        return dumped.blob

    # Ends

    def _note_end(self, session: Session) -> None:
        """Have the store forget a session that has ended here."""
        with self._telling():
            self._end(session._record)

    def _end(self, record: Record) -> None:
        assert record.taken is not None
        if self._records.get(record.key) is not record:
            return  # that is done
        del self._records[record.key]
        self._end_count += 1
        self._ends[record.key] = record
        at_once(self.store.end(record.taken))
        del self._ends[record.key]

    async def _finish(self, endings: list[Ending], reason: SessionEnd) -> None:
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

    async def _end_stored(self, ending: Ending, reason: SessionEnd) -> None:
        session = self._loaded("", ending.key, ending.blob)
        if session is not None:
            self._sessions.end_elsewhere(session, reason)
        await self.store.ended(ending)


def _uses_registry(use: Use) -> bool:
    return use.names is None or "registry" in use.names


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run *work*, which does not wait, and return what it returns."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the store of a single process must not wait")
