"""Sessions in Redis, for several workers: `RedisStore`.

What has to be done in one step is a script in Lua, in `rpyserve.stores.redis_scripts`; here is who
calls it, who waits, and what becomes of a record when its worker cannot know whether it has it. All
time is Redis's own. A key's first byte decides which of several servers has its record; nothing but
`RedisStore.move` concerns two keys.

Whoever is cut off between a command and its reply does not know whether it was done. So a token is
made here before a record is taken by it, and what a call that failed may have taken is released as
soon as Redis can be reached.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import hiredis
import trio

from rpyserve.stores.redis_address import RedisSettings
from rpyserve.stores.redis_client import RedisClient, RedisConnection, RedisError, Word
from rpyserve.stores.redis_heartbeat import LIFE, Heartbeat, connected
from rpyserve.stores.redis_scripts import TOKEN, WORKER_ID, Script, Scripts
from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    StoreError,
    StoreStatistics,
    Taken,
    Unavailable,
)
from rpyserve.util.exceptions import unwrap_group

COUNTED: Final = 1.0
"""Seconds between two counts of the sessions."""

LOOKED: Final = 1.5
"""Seconds between two looks into the inbox, in case a message was lost with a connection."""

RETRIED: Final = 0.1
"""Seconds after which a release that has failed is tried again."""

STOP: Final = 2.0
"""Seconds that taking leave of Redis may take."""

_NONE, _TAKEN = 0, 1
"""What the script for `take` answers; anything else means that somebody has the record."""

Cleanup: TypeAlias = Callable[[], Awaitable[object]]

log = logging.getLogger("rpyserve")


class Place(NamedTuple):
    """Where the record of one key is: which server, and under which names."""

    client: RedisClient
    bucket: str
    member: str
    record: str
    deadlines: str


class RedisStore:
    """Keeps records in one Redis, or in several that share them. See `Store` for the methods.

    Args:
        settings: where they are, and how long a record may be had while others wait for it.
        make_client: makes the client of one of them.

    Attributes:
        worker: the id of this worker.
    """

    is_shared = True

    def __init__(
        self, settings: RedisSettings, make_client: Callable[..., RedisClient] = RedisClient
    ) -> None:
        self.name = f"Redis at {', '.join(map(str, settings.shards))}"
        self.worker = secrets.token_hex(WORKER_ID // 2).encode()
        self._prefix = settings.prefix
        self._lease = _milliseconds(settings.lease)
        self._scripts = Scripts(settings.prefix)
        self._heart = f"{settings.prefix}:w:{self.worker.decode()}"
        self._clients = [
            make_client(address, self._greet, self._hear) for address in settings.shards
        ]
        self._place = lru_cache(maxsize=1000)(self._find_place)
        self._by_bucket = {name: self._choose(name) for name in (*BUCKETS, REGISTRY.decode())}
        self._tokens = 0
        # Those who take a record; without an event as long as they need not wait.
        self._waiting: dict[bytes, trio.Event | None] = {}
        self._told = trio.Event()
        self._handling: tuple[RedisClient, bytes] | None = None
        self._cleanups: deque[Cleanup] = deque()
        self._something_left = trio.Event()
        self._live = 0
        self._warned = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        channel = f"{self._prefix}:h:{self.worker.decode()}"
        hearts = [Heartbeat(client.address, self._heart, channel) for client in self._clients]
        with _unwrapping():
            async with trio.open_nursery() as nursery:
                for client in self._clients:
                    await nursery.start(client.run)
                nursery.start_soon(self._count)
                nursery.start_soon(self._clean_up)
                async with _beating(hearts):
                    task_status.started()
                    await trio.sleep_forever()

    # Records

    async def take(self, key: bytes, *, create: bool = False) -> Taken | None:
        place, token = self._place(key), self._new_token()
        try:
            while True:
                self._waiting[token] = None
                answer = await self._take(place, token, create)
                if answer[0] == _TAKEN:
                    return Taken(key, token, answer[1])
                if answer[0] == _NONE:
                    return None
                # It may have been handed over since the answer came.
                handed = self._handed(token)
                with trio.move_on_after(answer[1] / 1000 + 0.005):
                    await handed.wait()
        except (Unavailable, trio.Cancelled):
            self._leave(self._releasing(place, token))
            raise
        finally:
            del self._waiting[token]

    def _handed(self, token: bytes) -> trio.Event:
        event = self._waiting[token]
        if event is None:
            event = self._waiting[token] = trio.Event()
        return event

    async def _take(self, place: Place, token: bytes, create: bool) -> Any:
        trusts = _trusts_heartbeats(place.client)
        words = (token, self._lease, int(trusts), int(create), 1)
        return await self._run(self._scripts.take, place, words)

    def take_blocking(self, key: bytes) -> Taken | None:
        place, token = self._place(key), self._new_token()
        words = (token, self._lease, int(_trusts_heartbeats(place.client)), int(key == REGISTRY), 0)
        try:
            with connected(place.client.address) as call:
                script = self._scripts.take.text
                answer = call("EVAL", script, 2, place.record, place.deadlines, *words)
        except (OSError, hiredis.HiredisError) as exc:
            self._leave(self._releasing(place, token))
            raise Unavailable(f"{self.name}: {exc}") from exc
        if answer[0] == _NONE:
            return None
        if answer[0] != _TAKEN:
            raise Unavailable("another worker has the session of this visitor at the moment")
        return Taken(key, token, answer[1])

    async def create(self, key: bytes, blob: bytes, lives: float) -> Taken:
        place, token = self._place(key), self._new_token()
        words = (token, self._lease, _lives(lives), place.member, blob)
        try:
            await self._run(self._scripts.create, place, words, to_the_end=True)
        except Unavailable:
            self._leave(self._ending(place, token))
            raise
        self._live += 1
        return Taken(key, token, blob)

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        place = self._place(taken.key)
        words = (taken.token, self._lease, _lives(lives), place.member, blob)
        await self._run_leased(self._scripts.write, place, words)
        return Taken(taken.key, taken.token, blob)

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float | None, *, listens: bool = False
    ) -> None:
        place = self._place(taken.key)
        words = (taken.token, self._lease, _lives(lives), place.member, int(listens))
        await self._run_leased(self._scripts.give, place, words if blob is None else (*words, blob))

    async def end(self, taken: Taken) -> Collection[bytes]:
        place = self._place(taken.key)
        words = (taken.token, place.member)
        listeners = await self._run_leased(self._scripts.end, place, words)
        self._live -= 1
        return _ids(listeners)

    async def _run_leased(self, script: Script, place: Place, words: tuple[Word, ...]) -> Any:
        """Run a script that needs the lease of the first of *words*.

        If it fails, the lease is given up.
        """
        try:
            done = await self._run(script, place, words, to_the_end=True)
        except Unavailable:
            self._leave(self._releasing(place, words[0]))
            raise
        if done is None or done == 0:
            raise LeaseLost(_LOST)
        return done

    async def move(self, taken: Taken, key: bytes, blob: bytes, lives: float) -> Taken:
        old, new = self._place(taken.key), self._place(key)
        words = (taken.token, self._lease, _lives(lives), new.member, blob)
        try:
            if old.client is new.client:
                await self._move(old, new, words)
            else:
                await self._move_to_other(old, new, words)
        except (Unavailable, LeaseLost):
            self._leave(partial(self._undo_move, taken.token, old, new))
            raise
        return Taken(key, taken.token, blob)

    async def _move(self, old: Place, new: Place, words: tuple[Word, ...]) -> None:
        keys = (old.record, old.deadlines, new.record, new.deadlines)
        words = (*words, old.member)
        if not await _evaluate(old.client, self._scripts.move, keys, words, to_the_end=True):
            raise LeaseLost(_LOST)

    async def _move_to_other(self, old: Place, new: Place, words: tuple[Word, ...]) -> None:
        """Move a record from one server to another: there are two for a moment, both leased."""
        token, run = words[0], partial(self._run, to_the_end=True)
        listeners = await run(self._scripts.listeners, old, (token,))
        if listeners is None:
            raise LeaseLost(_LOST)
        await run(self._scripts.create, new, (*words, listeners))
        if await run(self._scripts.end, old, (token, old.member)) is None:
            raise LeaseLost(_LOST)

    async def _undo_move(self, token: bytes, old: Place, new: Place) -> None:
        """Release a record that may be at one place, or at the other, or at both."""
        if await self._releasing(old, token)():
            await self._ending(new, token)()
        else:
            await self._releasing(new, token)()

    # Ends

    async def due(self, most: int) -> list[Ending]:
        return await self._claim(self._scripts.due, most, adopted=False)

    async def adopt(self) -> list[Ending]:
        return await self._claim(self._scripts.adopt, adopted=True)

    async def evict(self) -> Ending | None:
        """See `Store.evict`. Of several servers, it is the one with the earliest deadline."""
        firsts: list[tuple[float, RedisClient]] = []

        async def peek(client: RedisClient) -> None:
            first = await _evaluate(client, self._scripts.peek, ())
            if first is not None:
                firsts.append((float(first), client))

        await self._with_each(peek)
        if not firsts:
            return None
        client = min(firsts, key=itemgetter(0))[1]
        found = await _evaluate(client, self._scripts.evict, (), (self.worker,))
        self._live -= len(found)
        return _claimed(found[0], False) if found else None

    async def ended(self, ending: Ending) -> None:
        place = self._place(ending.key)
        keys = (f"{place.bucket}e:{place.member}",)
        await _evaluate(place.client, self._scripts.ended, keys, (self.worker, place.member))

    async def _claim(self, script: Script, *words: Word, adopted: bool) -> list[Ending]:
        endings: list[Ending] = []

        async def claim(client: RedisClient) -> None:
            if _trusts_heartbeats(client):
                found = await _evaluate(client, script, (), (self.worker, *words))
                endings.extend(_claimed(fields, adopted) for fields in found)

        await self._with_each(claim)
        self._live -= 0 if adopted else len(endings)
        return endings

    async def tell(self, worker: bytes, key: bytes) -> bool:
        place = self._place(key)
        words = (worker, place.member)
        return bool(await _evaluate(place.client, self._scripts.tell, (), words))

    async def wait_told(self) -> bytes:
        await self._forget_told()
        while True:
            self._told = trio.Event()
            for client in self._clients:
                member = await self._first_told(client)
                if member is not None:
                    self._handling = client, member
                    return _key(member)
            with trio.move_on_after(LOOKED):
                await self._told.wait()

    async def _first_told(self, client: RedisClient) -> bytes | None:
        try:
            member: bytes | None = await client.call("LINDEX", self._inbox, 0)
        except Unavailable:
            return None
        return member

    async def _forget_told(self) -> None:
        """Take out of the inbox what the caller has done by now: had it died, it would be lost."""
        while self._handling is not None:
            client, member = self._handling
            try:
                await client.call("LREM", self._inbox, 1, member)
            except Unavailable:
                await trio.sleep(RETRIED)
            else:
                self._handling = None

    @property
    def _inbox(self) -> str:
        return f"{self._prefix}:inbox:{self.worker.decode()}"

    async def clear(self) -> int:
        count = 0
        with _unwrapping():
            async with trio.open_nursery() as nursery:
                for address in (client.address for client in self._clients):
                    client = RedisClient(address, _trust)
                    await nursery.start(client.run)
                    count += await self._clear(client)
                nursery.cancel_scope.cancel()
        return count

    async def _clear(self, client: RedisClient) -> int:
        workers = await _evaluate(client, self._scripts.workers, ())
        if workers:
            raise StoreError(f"{self.name} is in use: workers that run: {workers}")
        count: int = await _evaluate(client, self._scripts.count, (), (1,))
        cursor = b""
        while cursor != b"0":
            words = ("SCAN", cursor or b"0", "MATCH", f"{self._prefix}:*", "COUNT", 1000)
            cursor, keys = await client.call(*words)
            if keys:
                await client.call("UNLINK", *keys)
        return count

    # Statistics

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(max(0, self._live))

    async def _count(self) -> None:
        while True:
            counts: list[int] = []

            async def count(client: RedisClient, counts: list[int] = counts) -> None:
                counts.append(await _evaluate(client, self._scripts.count, (), (0,)))

            try:
                await self._with_each(count)
                self._live = sum(counts)
            except Unavailable:
                pass
            await trio.sleep(COUNTED)

    # Places and tokens

    def _find_place(self, key: bytes) -> Place:
        member = REGISTRY.decode() if key == REGISTRY else key.hex()
        name = member if key == REGISTRY else member[:2]
        bucket = f"{self._prefix}:{{{name}}}:"
        client = self._by_bucket[name]
        return Place(client, bucket, member, f"{bucket}s:{member}", f"{bucket}due")

    def _choose(self, bucket: str) -> RedisClient:
        """Return the server that has *bucket*: if one is added, only what it gets moves.

        Rendezvous hashing: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous"
        (1996).
        """
        return max(
            self._clients,
            key=lambda client: blake2b(f"{bucket} {client.address}".encode()).digest(),
        )

    def _new_token(self) -> bytes:
        self._tokens += 1
        return self.worker + b"%0*x" % (TOKEN - WORKER_ID, self._tokens)

    # Calls

    def _run(
        self, script: Script, place: Place, words: tuple[Word, ...], *, to_the_end: bool = False
    ) -> Awaitable[Any]:
        keys = place.record, place.deadlines
        return _evaluate(place.client, script, keys, words, to_the_end=to_the_end)

    async def _with_each(self, function: Callable[[RedisClient], Awaitable[object]]) -> None:
        """Call *function* for each server. One that cannot be reached does not hold up others.

        Raises:
            Unavailable: none of them could be reached.
        """
        failures: list[Unavailable] = []

        async def attempt(client: RedisClient) -> None:
            try:
                await function(client)
            except Unavailable as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            for client in self._clients:
                nursery.start_soon(attempt, client)
        if len(failures) == len(self._clients):
            raise failures[0]

    # What calls that failed have left behind

    def _releasing(self, place: Place, token: Word) -> Cleanup:
        return partial(self._run, self._scripts.release, place, (token, self._lease))

    def _ending(self, place: Place, token: Word) -> Cleanup:
        return partial(self._run, self._scripts.end, place, (token, place.member))

    def _leave(self, cleanup: Cleanup) -> None:
        self._cleanups.append(cleanup)
        self._something_left.set()

    async def _clean_up(self) -> None:
        while True:
            while self._cleanups:
                try:
                    await self._cleanups[0]()
                except Unavailable:
                    self._cleanups.rotate(-1)
                    await trio.sleep(RETRIED)
                else:
                    self._cleanups.popleft()
            self._something_left = trio.Event()
            await self._something_left.wait()

    # Connections

    async def _greet(self, connection: RedisConnection) -> None:
        """Make a connection ready: this worker lives from now on, and hears what it is told."""
        self._check(await _information(connection))
        for script in self._scripts:
            await connection.call("SCRIPT", "LOAD", script.text)
        await connection.call("SUBSCRIBE", self._heart)
        await connection.call("SADD", f"{self._prefix}:workers", self.worker)
        await connection.call("SET", self._heart, 1, "PX", LIFE)

    def _check(self, information: Mapping[str, str]) -> None:
        if information.get("redis_mode") == "cluster":
            raise StoreError(
                "it belongs to a Redis Cluster. Name servers that know nothing of each other "
                "instead, as in redis://one,two"
            )
        if information.get("role") == "slave":
            raise StoreError("it is a replica, which cannot be written. Name its primary")
        policy = information.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self._warned:
            self._warned = True
            log.warning(
                "Redis drops sessions when its memory is full, as its maxmemory-policy is %s. With "
                "noeviction, requests that need more are answered by 503 instead.",
                policy,
            )

    def _hear(self, words: list[Any]) -> None:
        """Somebody has handed a record over, or has put something into the inbox."""
        token = words[-1]
        if token in self._waiting:
            self._handed(token).set()
        elif not token:
            self._told.set()


BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))
"""The names of the buckets: the first byte of a key."""

_LOST: Final = "another worker has taken the session meanwhile"


async def _evaluate(
    client: RedisClient,
    script: Script,
    keys: tuple[str, ...],
    words: tuple[Word, ...] = (),
    *,
    to_the_end: bool = False,
) -> Any:
    """Run *script* in one step, whether or not Redis has it. See `RedisClient.ask`."""
    command = ("EVALSHA", script.sha, len(keys), *keys, *words)
    try:
        return await client.ask(command, to_the_end=to_the_end)
    except RedisError as exc:
        if exc.code != "NOSCRIPT":
            raise
    return await client.ask(("EVAL", script.text, *command[2:]), to_the_end=to_the_end)


def _trusts_heartbeats(client: RedisClient) -> bool:
    """Whether a worker without heartbeat is dead: not when none could beat a moment ago."""
    return client.connections < 2 or trio.current_time() > client.connected_at + LIFE / 1000


async def _information(connection: RedisConnection) -> Mapping[str, str]:
    """Return what Redis says of itself; nothing if this user may not ask."""
    try:
        text = await connection.call("INFO")
    except RedisError as exc:
        if exc.code != "NOPERM":
            raise
        return {}
    lines = (line.partition(":") for line in _text(text).splitlines())
    return {name: value for name, _, value in lines}


async def _trust(connection: RedisConnection) -> None:
    """Greet a connection on which nothing has to be said."""


@contextmanager
def _unwrapping() -> Iterator[None]:
    """Raise what a nursery inside raises as it is, if it is one exception."""
    try:
        yield
    except ExceptionGroup as group:
        raise unwrap_group(group) from None


@asynccontextmanager
async def _beating(hearts: list[Heartbeat]) -> AsyncIterator[None]:
    """While inside, all hearts beat."""
    for heart in hearts:
        heart.start()
    try:
        yield
    finally:
        for heart in hearts:
            heart.stop()
        with trio.move_on_after(STOP, shield=True):
            for heart in hearts:
                await trio.to_thread.run_sync(heart.join, abandon_on_cancel=True)


def _claimed(fields: list[bytes], adopted: bool) -> Ending:
    member, blob, listeners = fields
    return Ending(_key(member), blob, _ids(listeners), adopted=adopted)


def _ids(listeners: bytes) -> list[bytes]:
    """Return the ids of workers, which are stored one after the other."""
    starts = range(0, len(listeners), WORKER_ID)
    return [listeners[start : start + WORKER_ID] for start in starts]


def _key(member: bytes) -> bytes:
    return REGISTRY if member == REGISTRY else bytes.fromhex(member.decode())


def _lives(seconds: float | None) -> Word:
    """What the scripts call ``lives_for``."""
    if seconds is None:
        return "-"
    return "" if seconds == math.inf else _milliseconds(seconds)


def _milliseconds(seconds: float) -> int:
    return max(0, math.ceil(seconds * 1000))


def _text(reply: Any) -> str:
    """RESP3 has bytes for most texts, and str for some."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)
