"""What a store does: it keeps records under keys, and lets one worker at a time have each.

A record is what the codec made of a session or of the registry: bytes, of which a store knows
nothing. A key is a hash of a session's id, so that no store ever holds an id. Who takes a record
has a lease on it until it is given back: the token of the lease is kept in the record, and each
write checks it in the same atomic step. So a worker that was stalled, and whose record somebody
else has by now, is told so instead of writing over it. A store that only one process can use, as a
file of SQLite, needs no leases and keeps the same interface.

Deadlines are by the store's own clock: the clocks of workers may differ.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import trio

REGISTRY: Final = b"registry"
"""The key of the registry's record, which no session has: theirs are hashes of 32 bytes."""


class StoreError(Exception):
    """A store cannot do what it is asked. The text says why, in a sentence for the console."""


class Unavailable(StoreError):
    """The store cannot be reached, is still loading, is full, or cannot be written.

    The request is answered by a 503 with ``Retry-After``: nothing is answered as done that is not
    stored.
    """


class LeaseLost(StoreError):
    """Somebody else has taken the record meanwhile, so what this worker made of it is refused."""


class Taken(NamedTuple):
    """A record that this worker has.

    Attributes:
        key: under which it is kept.
        token: of the lease, which each write checks; empty where there are no leases.
        blob: what was stored last; empty for a record that has just been made.
    """

    key: bytes
    token: bytes
    blob: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """A session whose time is over and that this worker has claimed: nobody else will.

    Attributes:
        key: under which it was kept.
        blob: what was stored last.
        listeners: the workers that have callbacks of it which could not be stored.
        adopted: whether a worker that died had claimed it before, so that its callbacks may have
            run already.
    """

    key: bytes
    blob: bytes
    listeners: Collection[bytes] = ()
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How many sessions a store keeps."""

    live: int


class Store(Protocol):
    """Keeps records. Each method raises `Unavailable` if the store cannot be used at present.

    *lives* is always in seconds from now until the record is due; `math.inf` for never. What is
    cancelled has either done its whole work or nothing of it: no lease is left behind. What writes
    for a request -- `create`, `write`, `give`, `move`, `end` -- is not cut off by a cancellation,
    and takes some seconds at most.

    Attributes:
        name: where it is, for people; no password is in it.
        is_shared: whether other workers use it, too. If not, nobody else can write, so that what
            was given back may be used without being taken again, and its methods never really
            wait: a plain function may call them.
        worker: the id of this worker; empty if there is no other.
    """

    name: str
    is_shared: bool
    worker: bytes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection, the heartbeat and whatever else is needed, until cancelled.

        ``task_status.started()`` is called when the store can be used.

        Raises:
            StoreError: it cannot be used at all, and the server must not start.
        """

    async def take(self, key: bytes, *, create: bool = False) -> Taken | None:
        """Take the record of *key*, as soon as nobody else has it.

        Args:
            key: whose record.
            create: make an empty one if there is none, as for the registry.

        Returns:
            None if there is none, or its time is over.
        """

    def take_blocking(self, key: bytes) -> Taken | None:
        """Take the record of *key* while everything else in this process stands still.

        For code that asks for a session in a plain function, where nobody knew that it would. It
        waits for the network, never for a lease.

        Raises:
            Unavailable: also if somebody else has the record.
        """

    async def create(self, key: bytes, blob: bytes, lives: float) -> Taken:
        """Make the record of a new session, and take it."""

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        """Store *blob* in place of what is there, and keep the lease, unless that fails.

        Raises:
            LeaseLost: somebody else has it.
        """

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float | None, *, listens: bool = False
    ) -> None:
        """Give the record back.

        Args:
            taken: what is given back.
            blob: what to store first; None if nothing has changed.
            lives: seconds until it is due; None if this was no access, so that it is due when it
                was.
            listens: whether this worker has callbacks of it that could not be stored.

        Raises:
            LeaseLost: somebody else has it.
        """

    async def move(self, taken: Taken, key: bytes, blob: bytes, lives: float) -> Taken:
        """Keep the record as *blob* under another key from now on, and keep the lease.

        The old one is gone in the same step, or, where that cannot be, afterwards.

        Raises:
            LeaseLost: somebody else has it.
        """

    async def end(self, taken: Taken) -> Collection[bytes]:
        """Forget the record: the session has ended. Its callbacks are the caller's business.

        Returns:
            The workers that have callbacks of it which could not be stored.

        Raises:
            LeaseLost: somebody else has it.
        """

    async def evict(self) -> Ending | None:
        """Claim the session that is due next, to make room; None if there is none."""

    async def due(self, most: int) -> list[Ending]:
        """Claim up to *most* sessions whose time is over: they are in no other worker's list."""

    async def ended(self, ending: Ending) -> None:
        """Forget a claimed session: its callbacks have run."""

    async def adopt(self) -> list[Ending]:
        """Claim what workers that have died had claimed, and had not called `ended` for."""

    async def wait_told(self) -> bytes:
        """Wait until another worker has claimed a session that this worker listens to.

        Returns:
            The session's key.
        """

    async def tell(self, worker: bytes, key: bytes) -> bool:
        """Tell a worker that the session of *key* has ended.

        Returns:
            False if that worker is dead, so that its callbacks are lost.
        """

    async def clear(self) -> int:
        """Forget every session and the registry; no callback runs. Called without `run`.

        Returns:
            How many sessions there were.

        Raises:
            StoreError: a server uses it.
        """

    def statistics(self) -> StoreStatistics:
        """Return the counts as they were known last."""


class SoleStore(Store, Protocol):
    """A store that is not shared. What each request needs are plain functions."""

    def put(self, key: bytes, blob: bytes, lives: float) -> None:
        """Store *blob* in place of what is there, or as a new record."""

    def note_access(self, key: bytes, lives: float) -> None:
        """Have the record of *key* be due after *lives* seconds. This never fails."""

    def grouping(self) -> AbstractContextManager[None]:
        """While inside, what is put, or created, is committed only by `committed`."""

    async def committed(self) -> None:
        """Wait until all is committed that was put so far, by others, too.

        It is not cut off by a cancellation, and takes a turn of the loop.

        Raises:
            Unavailable: it could not be: nothing is stored of what was put since the last commit.
        """

    def together(self) -> AbstractContextManager[None]:
        """While inside, what is written is stored as a whole, or not at all."""
