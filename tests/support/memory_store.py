"""A store in memory, for tests: what Redis does for several workers, as plainly as can be said.

Workers are made by `SharedMemory.worker`, and die when their `run` is cancelled.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import trio

from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    StoreError,
    StoreStatistics,
    Taken,
    Unavailable,
)


@dataclass(slots=True, eq=False)
class Record:
    """What is kept under one key."""

    blob: bytes
    due: float
    owner: bytes = b""
    till: float = 0.0
    queue: deque[tuple[bytes, trio.Event]] = field(default_factory=deque)
    listeners: set[bytes] = field(default_factory=set)

    def hand_over(self, till: float) -> None:
        """Give it to the first of those who wait."""
        self.owner, self.till = b"", till
        if self.queue:
            self.owner, event = self.queue.popleft()
            event.set()

    def wake(self) -> None:
        for _, event in self.queue:
            event.set()


class SharedMemory:
    """What the workers of one test share."""

    def __init__(self, lease: float = 30.0) -> None:
        self.lease = lease
        self.records: dict[bytes, Record] = {}
        self.endings: dict[bytes, dict[bytes, Ending]] = {}
        self.inboxes: dict[bytes, trio.MemorySendChannel[bytes]] = {}
        self.workers = 0

    def worker(self) -> MemoryStore:
        self.workers += 1
        return MemoryStore(self, b"worker%010d" % self.workers)

    def till(self) -> float:
        return trio.current_time() + self.lease


class MemoryStore:
    """The store of one worker."""

    name = "the memory of the tests"
    is_shared = True

    def __init__(self, shared: SharedMemory, worker: bytes) -> None:
        self.worker = worker
        self._shared = shared
        self._tokens = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._shared.inboxes[self.worker], self._inbox = trio.open_memory_channel(math.inf)
        self._shared.endings[self.worker] = {}
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.die()

    def die(self) -> None:
        """What this worker has is for others to take from now on."""
        self._shared.inboxes.pop(self.worker, None)
        for record in self._shared.records.values():
            if record.owner.startswith(self.worker):
                record.hand_over(self._shared.till())

    async def take(self, key: bytes, *, create: bool = False) -> Taken | None:
        await trio.lowlevel.checkpoint()
        token = self._token()
        if create and key not in self._shared.records:
            self._shared.records[key] = Record(b"", math.inf)
        while (record := self._shared.records.get(key)) is not None:
            if record.owner in (b"", token) or record.till <= trio.current_time():
                return self._take(record, key, token)
            await self._wait(record, token)
        return None

    def _take(self, record: Record, key: bytes, token: bytes) -> Taken | None:
        if record.owner != token and record.due <= trio.current_time():
            return None
        record.owner, record.till = token, self._shared.till()
        return Taken(key, token, record.blob)

    def take_blocking(self, key: bytes) -> Taken | None:
        if key == REGISTRY:
            self._shared.records.setdefault(key, Record(b"", math.inf))
        record = self._shared.records.get(key)
        if record is None:
            return None
        if record.owner and record.till > trio.current_time():
            raise Unavailable("another worker has the session of this visitor at the moment")
        return self._take(record, key, self._token())

    async def _wait(self, record: Record, token: bytes) -> None:
        place = (token, trio.Event())
        record.queue.append(place)
        try:
            with trio.move_on_at(record.till):
                await place[1].wait()
        except trio.Cancelled:
            if record.owner == token:
                record.hand_over(self._shared.till())
            raise
        finally:
            if place in record.queue:
                record.queue.remove(place)

    async def create(self, key: bytes, blob: bytes, lives: float) -> Taken:
        await trio.lowlevel.cancel_shielded_checkpoint()
        token = self._token()
        record = Record(blob, trio.current_time() + lives, token, self._shared.till())
        self._shared.records[key] = record
        return Taken(key, token, blob)

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        record.blob, record.due = blob, trio.current_time() + lives
        record.till = self._shared.till()
        return taken._replace(blob=blob)

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float | None, *, listens: bool = False
    ) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        record.blob = record.blob if blob is None else blob
        record.due = record.due if lives is None else trio.current_time() + lives
        record.listeners.discard(self.worker)
        if listens:
            record.listeners.add(self.worker)
        record.hand_over(self._shared.till())

    async def move(self, taken: Taken, key: bytes, blob: bytes, lives: float) -> Taken:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        due = trio.current_time() + lives
        self._shared.records[key] = replace(record, blob=blob, due=due, queue=deque())
        del self._shared.records[taken.key]
        record.wake()
        return taken._replace(key=key, blob=blob)

    async def end(self, taken: Taken) -> Collection[bytes]:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        del self._shared.records[taken.key]
        record.wake()
        return record.listeners

    async def evict(self) -> Ending | None:
        await trio.lowlevel.checkpoint()
        free = [key for key, each in self._sessions() if not each.owner]
        first = min(free, key=lambda key: self._shared.records[key].due, default=None)
        return None if first is None else self._claim(first)

    async def due(self, most: int) -> list[Ending]:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        over = [key for key, each in self._sessions() if each.due <= now and not each.owner]
        return [self._claim(key) for key in over[:most]]

    def _claim(self, key: bytes) -> Ending:
        record = self._shared.records.pop(key)
        record.wake()
        ending = Ending(key, record.blob, sorted(record.listeners))
        self._shared.endings[self.worker][key] = ending
        return ending

    async def ended(self, ending: Ending) -> None:
        await trio.lowlevel.checkpoint()
        self._shared.endings[self.worker].pop(ending.key, None)

    async def adopt(self) -> list[Ending]:
        await trio.lowlevel.checkpoint()
        endings = self._shared.endings
        dead = [worker for worker in endings if worker not in self._shared.inboxes]
        adopted = [
            replace(ending, adopted=True)
            for worker in dead
            for ending in endings.pop(worker).values()
        ]
        endings[self.worker] |= {ending.key: ending for ending in adopted}
        return adopted

    async def wait_told(self) -> bytes:
        return await self._inbox.receive()

    async def tell(self, worker: bytes, key: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        if worker not in self._shared.inboxes:
            return False
        self._shared.inboxes[worker].send_nowait(key)
        return True

    async def clear(self) -> int:
        await trio.lowlevel.checkpoint()
        if self._shared.inboxes:
            raise StoreError("workers are running")
        count = len(self._sessions())
        self._shared.records.clear()
        return count

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(len(self._sessions()))

    def _sessions(self) -> list[tuple[bytes, Record]]:
        return [(key, each) for key, each in self._shared.records.items() if key != REGISTRY]

    def _token(self) -> bytes:
        self._tokens += 1
        return self.worker + b"%016x" % self._tokens

    def _leased(self, taken: Taken) -> Record:
        record = self._shared.records.get(taken.key)
        if record is None or record.owner != taken.token:
            raise LeaseLost("another worker has taken the session meanwhile")
        return record
