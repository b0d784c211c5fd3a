"""A store in memory, for tests: what Redis does for several workers, as plainly as can be said.

Workers are made by `SharedMemory.worker`, and die when their `run` is cancelled.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

import trio

from rpyserve.stores.store import REGISTRY, Ending, LeaseLost, StoreStatistics, Taken


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
        records, token = self._shared.records, self._token()
        if create and key not in records:
            records[key] = Record(b"", math.inf)
        while (record := records.get(key)) is not None:
            now = trio.current_time()
            if record.owner == token or not record.owner or record.till <= now:
                if record.owner != token and record.due <= now:
                    return None
                record.owner, record.till = token, self._shared.till()
                return Taken(key, token, record.blob)
            await self._wait(record, token)
        return None

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
        await trio.lowlevel.checkpoint()
        token = self._token()
        record = Record(blob, trio.current_time() + lives, token, self._shared.till())
        self._shared.records[key] = record
        return Taken(key, token, blob)

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        record.blob, record.due = blob, trio.current_time() + lives
        record.till = self._shared.till()
        return replace(taken, blob=blob)

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float, *, listens: bool = False
    ) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        record.blob = record.blob if blob is None else blob
        record.due = trio.current_time() + lives
        record.listeners.discard(self.worker)
        if listens:
            record.listeners.add(self.worker)
        record.hand_over(self._shared.till())

    async def move(self, taken: Taken, key: bytes) -> Taken:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        self._shared.records[key] = replace(record, queue=deque())
        del self._shared.records[taken.key]
        record.wake()
        return replace(taken, key=key)

    async def end(self, taken: Taken) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        record = self._leased(taken)
        del self._shared.records[taken.key]
        record.wake()

    async def due(self, most: int) -> list[Ending]:
        await trio.lowlevel.checkpoint()
        now, records = trio.current_time(), self._shared.records
        over = [key for key, each in records.items() if each.due <= now and not each.owner]
        endings = [self._claim(key, records.pop(key)) for key in over[:most]]
        self._shared.endings[self.worker] |= {ending.key: ending for ending in endings}
        return endings

    def _claim(self, key: bytes, record: Record) -> Ending:
        record.wake()
        return Ending(key, record.blob, sorted(record.listeners))

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

    def statistics(self) -> StoreStatistics:
        sessions = [key for key in self._shared.records if key != REGISTRY]
        return StoreStatistics(len(sessions))

    def _token(self) -> bytes:
        self._tokens += 1
        return self.worker + b"%016x" % self._tokens

    def _leased(self, taken: Taken) -> Record:
        record = self._shared.records.get(taken.key)
        if record is None or record.owner != taken.token:
            raise LeaseLost("another worker has taken the session meanwhile")
        return record
