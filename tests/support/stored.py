"""Sites whose sessions are kept in a store."""

from __future__ import annotations

import math
import pickle
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import trio

from rpyserve import Session, Site
from rpyserve.resources.resource import as_resource
from rpyserve.stores.codec import Unkeepable
from rpyserve.stores.opening import make_persistence
from rpyserve.stores.sqlite import SQLiteStore
from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    StoreStatistics,
    Taken,
    Unavailable,
)


@dataclass
class PlainDump:
    blob: bytes
    left_out: tuple[Any, ...] = ()
    callbacks: tuple[Any, ...] = ()

    def require_whole(self) -> bytes:
        if self.left_out:
            raise Unkeepable(self.left_out)
        return self.blob


class PlainCodec:
    """Plain pickles of the values, without a signature."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def dump(self, session: Session, key: bytes) -> PlainDump:
        callbacks = [each for each in session._callbacks or () if _may_be_kept(each)]
        own = tuple(each for each in session._callbacks or () if not _may_be_kept(each))
        kept = {name: value for name, value in session.items() if _may_be_kept(value)}
        left_out = tuple(f"session[{name!r}] cannot be kept" for name in session.keys() - kept)
        return PlainDump(pickle.dumps((kept, callbacks)), left_out, own)

    def load(self, uid: str, key: bytes, blob: bytes) -> Session:
        session: Any = self.site.sessionFactory(self.site, uid)
        values, session._callbacks = pickle.loads(blob)
        session.update(values)
        return session  # type: ignore[no-any-return]

    def dump_registry(self) -> PlainDump:
        return PlainDump(pickle.dumps(dict(self.site.registry)))

    def load_registry(self, blob: bytes) -> None:
        assert not len(self.site.registry)
        self.site.registry.update(pickle.loads(blob))


def _may_be_kept(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def stored_site(root: Any, store: Any, **options: Any) -> Site:
    """A site whose sessions are in *store*, or in the SQLite file of that path.

    A function answers all paths.
    """
    resource = as_resource(root)
    resource.isLeaf = resource.isLeaf or resource is not root
    site = Site(resource, **options)
    if isinstance(store, Path):
        store = SQLiteStore(store, clock=trio.current_time)
    site.persistence = make_persistence(site, store, PlainCodec(site))
    return site


@asynccontextmanager
async def running_site(root: Any, store: Any, **options: Any) -> AsyncIterator[Site]:
    site = stored_site(root, store, **options)
    async with site.running():
        yield site


@dataclass
class SharedRecords:
    """What several `SharedStore` have in common, as a server of its own would."""

    blobs: dict[bytes, bytes] = field(default_factory=dict)
    due: dict[bytes, float] = field(default_factory=dict)
    owners: dict[bytes, bytes] = field(default_factory=dict)
    changed: trio.Condition = field(default_factory=trio.Condition)
    tokens: Any = field(default_factory=count)
    listeners: dict[bytes, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    inboxes: dict[bytes, Any] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    before: Callable[[str], object] = lambda name: None


class SharedStore:
    """A store that several sites of a test share, with leases. Each call takes a turn of the loop.

    Args:
        records: what they share.
    """

    name = "the shared store"
    is_shared = True

    def __init__(self, records: SharedRecords) -> None:
        self.records = records
        self.worker = b"%d" % len(records.inboxes)
        records.inboxes[self.worker] = trio.open_memory_channel[bytes](100)

    async def _call(self, name: str) -> None:
        self.records.calls[name] += 1
        self.records.before(name)
        if name == "take":
            await trio.lowlevel.checkpoint()
        else:  # what writes is not cut off
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    def _get(self, key: bytes, create: bool) -> Taken | None:
        records = self.records
        if create:
            records.blobs.setdefault(key, b"")
        if key not in records.blobs or records.due.get(key, math.inf) <= trio.current_time():
            return None
        token = records.owners[key] = b"%d" % next(records.tokens)
        return Taken(key, token, records.blobs[key])

    async def take(self, key: bytes, *, create: bool = False) -> Taken | None:
        await self._call("take")
        async with self.records.changed:
            while key in self.records.owners:
                await self.records.changed.wait()
        return self._get(key, create)

    def take_blocking(self, key: bytes) -> Taken | None:
        self.records.calls["take_blocking"] += 1
        if key in self.records.owners:
            raise Unavailable("Somebody else has it")
        return self._get(key, key == REGISTRY)

    async def create(self, key: bytes, blob: bytes, lives: float) -> Taken:
        await self._call("create")
        self.records.blobs[key] = blob
        taken = self._get(key, False)
        assert taken is not None
        self.records.due[key] = trio.current_time() + lives
        return taken

    def _check(self, taken: Taken) -> None:
        if self.records.owners.get(taken.key) != taken.token:
            raise LeaseLost("Somebody else has taken it")

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        await self._call("write")
        self._check(taken)
        self.records.blobs[taken.key] = blob
        self.records.due[taken.key] = trio.current_time() + lives
        return Taken(taken.key, taken.token, blob)

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float | None, *, listens: bool = False
    ) -> None:
        await self._call("give")
        self._check(taken)
        if blob is not None:
            self.records.blobs[taken.key] = blob
        if lives is not None:
            self.records.due[taken.key] = trio.current_time() + lives
        listeners = self.records.listeners[taken.key]
        (listeners.add if listens else listeners.discard)(self.worker)
        await self._free(taken.key)

    async def _free(self, key: bytes) -> None:
        with trio.CancelScope(shield=True):
            async with self.records.changed:
                self.records.owners.pop(key, None)
                self.records.changed.notify_all()

    async def move(self, taken: Taken, key: bytes, blob: bytes, lives: float) -> Taken:
        await self.end(taken)
        return await self.create(key, blob, lives)

    async def end(self, taken: Taken) -> set[bytes]:
        await self._call("end")
        self._check(taken)
        del self.records.blobs[taken.key]
        self.records.due.pop(taken.key, None)
        await self._free(taken.key)
        return self.records.listeners.pop(taken.key, set())

    async def evict(self) -> Ending | None:
        return next(iter(await self._claim(math.inf)), None)

    async def due(self, most: int) -> list[Ending]:
        return await self._claim(trio.current_time())

    async def _claim(self, until: float) -> list[Ending]:
        due = [key for key, when in self.records.due.items() if when <= until]
        endings = [
            Ending(key, self.records.blobs[key], self.records.listeners.pop(key, set()))
            for key in due
        ]
        for key in due:
            del self.records.due[key], self.records.blobs[key]
        return endings

    async def ended(self, ending: Ending) -> None:
        pass

    async def adopt(self) -> list[Ending]:
        return []

    async def wait_told(self) -> bytes:
        key: bytes = await self.records.inboxes[self.worker][1].receive()
        return key

    async def tell(self, worker: bytes, key: bytes) -> bool:
        if worker in self.records.inboxes:
            self.records.inboxes[worker][0].send_nowait(key)
        return worker in self.records.inboxes

    async def clear(self) -> int:
        raise NotImplementedError

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(len(self.records.due))
