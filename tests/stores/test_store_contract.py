"""What every store must do: the same tests for each, with as many workers as they need.

A clock that only tests turn would not be the store's own, so the few tests about deadlines wait for
real ones, which are short.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Protocol

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rpyserve.stores.redis import RedisStore
from rpyserve.stores.redis_address import parse_redis_url
from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    LeaseLost,
    Store,
    StoreError,
    Taken,
    Unavailable,
)
from tests.support.memory_store import SharedMemory
from tests.support.redis_server import RedisServer, needs_redis, redis_server

LONG = 600.0


class Workers(Protocol):
    """Makes workers that share what they keep."""

    async def start(self) -> Any: ...
    async def stop(self, worker: Any) -> None: ...


class Running:
    """Workers of any kind, each in a nursery of its own."""

    def __init__(self, nursery: trio.Nursery, make: Callable[[], Any]) -> None:
        self._nursery = nursery
        self.make = make
        self._running: dict[Any, tuple[trio.CancelScope, trio.Event]] = {}

    async def start(self) -> Any:
        store = self.make()
        await self._nursery.start(self._run, store)
        return store

    async def _run(self, store: Any, *, task_status: trio.TaskStatus[None]) -> None:
        scope, ended = trio.CancelScope(), trio.Event()
        self._running[store] = scope, ended
        with scope:
            await store.run(task_status=task_status)
        ended.set()

    async def stop(self, store: Any) -> None:
        scope, ended = self._running[store]
        scope.cancel()
        await ended.wait()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    with redis_server() as one, redis_server() as two:
        yield [one, two]


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=needs_redis),
        pytest.param("redis shards", marks=needs_redis),
    ]
)
async def workers(
    request: pytest.FixtureRequest, nursery: trio.Nursery, tmp_path: Any
) -> AsyncIterator[Callable[..., Running]]:
    """``workers(lease=...)`` starts none yet, and keeps nothing yet."""

    def make(lease: float = 30.0) -> Running:
        if request.param == "memory":
            return Running(nursery, SharedMemory(lease).worker)
        servers = request.getfixturevalue("servers")
        prefix = os.urandom(8).hex()  # of its own, so that tests find nothing of each other
        urls = [server.url for server in servers[: 1 + ("shards" in request.param)]]
        shards = tuple(parse_redis_url(url).shards[0] for url in urls)
        settings = replace(parse_redis_url(urls[0]), shards=shards, prefix=prefix, lease=lease)
        return Running(nursery, lambda: RedisStore(settings))

    yield make
    nursery.cancel_scope.cancel()


@pytest.fixture
async def store(workers: Callable[..., Running]) -> Store:
    return await workers().start()


@pytest.fixture
async def two(workers: Callable[..., Running]) -> tuple[Store, Store]:
    both = workers()
    return await both.start(), await both.start()


def new_key() -> bytes:
    return os.urandom(32)


async def make_record(store: Store, blob: bytes = b"one", lives: float = LONG) -> bytes:
    key = new_key()
    await store.give(await store.create(key, blob, lives), None, lives)
    return key


async def take(store: Store, key: bytes) -> Taken:
    taken = await store.take(key)
    assert taken is not None
    return taken


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Return what *look* returns, as soon as it is true."""
    found = None
    with trio.fail_after(10):
        for pause in chain([0.0], repeat(0.01)):
            await trio.sleep(pause)
            if found := await look():
                break
    return found


async def all_due(store: Store) -> list[Ending]:
    return await until(lambda: store.due(100))


async def in_background(
    nursery: trio.Nursery, store: Store, key: bytes, results: list[Any]
) -> None:
    """Start to take *key*, and wait until that waits, if it has to."""
    asked = trio.Event()

    async def run() -> None:
        asked.set()
        results.append((store, await store.take(key)))

    nursery.start_soon(run)
    await asked.wait()
    # A store does in turn what it is asked to do in one place, so it has answered the first by then.
    assert await store.take(key[:1] + new_key()[1:]) is None
    await wait_all_tasks_blocked()


# One worker


async def test_what_is_given_back_is_taken_again(store: Store) -> None:
    key = new_key()
    made = await store.create(key, b"one", LONG)
    assert (made.key, made.blob) == (key, b"one")
    await store.give(made, b"two", LONG)
    taken = await take(store, key)
    assert (taken.key, taken.blob) == (key, b"two")
    assert taken.token != made.token


async def test_there_is_nothing_under_a_key_that_was_never_made(store: Store) -> None:
    assert await store.take(new_key()) is None


async def test_what_has_not_changed_stays(store: Store) -> None:
    key = await make_record(store, b"one")
    await store.give(await take(store, key), None, LONG)
    assert (await take(store, key)).blob == b"one"


@pytest.mark.parametrize("blob", [b"", b"\r\n$-1\r\n\x00\xff" * 100, os.urandom(3_000_000)])
async def test_any_bytes_can_be_kept(store: Store, blob: bytes) -> None:
    key = await make_record(store, blob)
    assert (await take(store, key)).blob == blob


async def test_writing_keeps_the_lease(store: Store) -> None:
    taken = await store.write(await take(store, await make_record(store)), b"two", LONG)
    assert taken.blob == b"two"
    taken = await store.write(taken, b"three", LONG)
    await store.give(taken, None, LONG)
    assert (await take(store, taken.key)).blob == b"three"


async def test_a_lease_is_over_when_it_has_been_given_back(store: Store) -> None:
    taken = await take(store, await make_record(store))
    await store.give(taken, b"two", LONG)
    for late in (
        store.write(taken, b"late", LONG),
        store.give(taken, b"late", LONG),
        store.give(taken, None, LONG),
        store.move(taken, new_key(), b"late", LONG),
        store.end(taken),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert (await take(store, taken.key)).blob == b"two"


async def test_a_record_moves_and_stays_taken(store: Store) -> None:
    for _ in range(20):  # from one server to another, and within one
        taken = await take(store, await make_record(store, b"one"))
        moved = await store.move(taken, new_key(), b"two", LONG)
        assert moved.blob == b"two"
        assert await store.take(taken.key) is None
        await store.give(moved, None, LONG)
        assert (await take(store, moved.key)).blob == b"two"


async def test_an_ended_record_is_gone(store: Store) -> None:
    taken = await take(store, await make_record(store, lives=0.05))
    await store.end(taken)
    assert await store.take(taken.key) is None
    marker = await make_record(store, lives=0.1)
    assert [ending.key for ending in await all_due(store)] == [marker]


async def test_sessions_are_counted_and_the_registry_is_none(store: Store) -> None:
    for _ in range(3):
        await make_record(store)
    await make_record(store, lives=math.inf)
    registry = await store.take(REGISTRY, create=True)
    assert registry is not None and registry.blob == b""
    await store.give(registry, b"contents", math.inf)

    async def are_four() -> bool:
        return store.statistics().live == 4

    await until(are_four)


async def test_the_registry_is_made_when_it_is_wanted(store: Store) -> None:
    assert await store.take(REGISTRY) is None
    registry = await store.take(REGISTRY, create=True)
    assert registry is not None
    await store.give(registry, b"contents", math.inf)
    again = await store.take(REGISTRY, create=True)
    assert again is not None and again.blob == b"contents"


# Deadlines


async def test_what_is_due_is_claimed_and_not_to_be_had(store: Store) -> None:
    begin = trio.current_time()
    key = await make_record(store, b"one", lives=0.3)
    assert await store.due(100) == []
    (ending,) = await all_due(store)
    assert trio.current_time() - begin >= 0.3
    assert (ending.key, ending.blob, list(ending.listeners)) == (key, b"one", [])
    assert not ending.adopted
    assert await store.take(key) is None
    await store.ended(ending)


async def test_what_is_due_cannot_be_taken_even_before_it_is_claimed(store: Store) -> None:
    key = await make_record(store, lives=0.05)
    await trio.sleep(0.06)
    assert await store.take(key) is None


async def test_an_access_puts_the_deadline_off(store: Store) -> None:
    key = await make_record(store, lives=0.3)
    marker = await make_record(store, lives=0.3)
    await store.give(await take(store, key), None, LONG)
    assert [ending.key for ending in await all_due(store)] == [marker]
    await take(store, key)


async def test_giving_back_is_no_access_unless_it_says_so(store: Store) -> None:
    key = await make_record(store, lives=0.2)
    await store.give(await take(store, key), b"two", None)
    (ending,) = await all_due(store)
    assert (ending.key, ending.blob) == (key, b"two")


async def test_a_deadline_can_come_nearer(store: Store) -> None:
    key = await make_record(store, lives=LONG)
    await store.give(await take(store, key), None, 0.05)
    assert [ending.key for ending in await all_due(store)] == [key]


async def test_writing_puts_the_deadline_off(store: Store) -> None:
    taken = await take(store, await make_record(store, lives=0.2))
    await store.write(taken, b"two", LONG)
    await store.give(await take(store, await make_record(store)), None, 0.3)
    assert taken.key not in [ending.key for ending in await all_due(store)]


async def test_what_is_in_use_is_not_due(store: Store) -> None:
    taken = await take(store, await make_record(store, lives=0.05))
    marker = await make_record(store, lives=0.2)
    assert [ending.key for ending in await all_due(store)] == [marker]
    await store.give(taken, b"two", 0.05)
    (ending,) = await all_due(store)
    assert (ending.key, ending.blob) == (taken.key, b"two")


async def test_what_lives_for_ever_is_never_due(store: Store) -> None:
    key = await make_record(store, lives=math.inf)
    marker = await make_record(store, lives=0.05)
    assert [ending.key for ending in await all_due(store)] == [marker]
    await take(store, key)


async def test_no_more_are_claimed_than_asked_for(store: Store) -> None:
    keys = {await make_record(store, lives=0.05) for _ in range(7)}
    await trio.sleep(0.1)
    claimed: list[Ending] = []
    while len(claimed) < 7:
        some = await store.due(3)
        # A store on several servers may claim as many from each.
        assert len(some) <= 6
        claimed += some
    assert {ending.key for ending in claimed} == keys


async def test_room_is_made_by_who_is_due_next_and_not_in_use(store: Store) -> None:
    assert await store.evict() is None
    later = await make_record(store, lives=LONG)
    first = await make_record(store, b"first", lives=LONG / 2)
    used = await take(store, await make_record(store, lives=LONG / 4))
    await make_record(store, lives=math.inf)
    await store.give(used, None, 2 * LONG)
    ending = await store.evict()
    assert ending is not None and (ending.key, ending.blob) == (first, b"first")
    assert await store.take(first) is None
    await store.ended(ending)
    ending = await store.evict()
    assert ending is not None and ending.key == later


async def test_a_moved_record_keeps_its_listeners_and_has_a_new_deadline(
    workers: Callable[..., Running],
) -> None:
    store = await workers().start()
    for _ in range(4):  # from one server to another, and within one
        key = await make_record(store)
        await store.give(await take(store, key), None, LONG, listens=True)
        moved = await store.move(await take(store, key), new_key(), b"two", 0.1)
        await store.give(moved, None, None, listens=True)
        (ending,) = await all_due(store)
        assert (ending.key, ending.blob) == (moved.key, b"two")
        assert list(ending.listeners) == [store.worker]


async def test_a_store_is_cleared_once_no_worker_uses_it(
    workers: Callable[..., Running],
) -> None:
    both = workers()
    store, other = await both.start(), both.make()
    for _ in range(5):
        await make_record(store)
    registry = await store.take(REGISTRY, create=True)
    assert registry is not None
    await store.give(registry, b"contents", math.inf)
    with pytest.raises(StoreError, match=r"running|in use"):
        await other.clear()
    await both.stop(store)
    assert await other.clear() == 5
    assert await other.clear() == 0
    store = await both.start()
    assert await store.take(REGISTRY) is None


# For code that cannot await


async def test_a_record_is_taken_while_everything_stands_still(store: Store) -> None:
    key = await make_record(store, b"one")
    assert store.take_blocking(new_key()) is None
    taken = store.take_blocking(key)
    assert taken is not None and taken.blob == b"one"
    await store.give(taken, b"two", LONG)
    assert (await take(store, key)).blob == b"two"
    registry = store.take_blocking(REGISTRY)
    assert registry is not None and registry.blob == b""


async def test_what_another_has_is_not_waited_for(two: tuple[Store, Store]) -> None:
    first, second = two
    taken = await take(first, await make_record(first))
    with pytest.raises(Unavailable, match="another worker"):
        second.take_blocking(taken.key)
    await first.give(taken, b"two", LONG)
    assert second.take_blocking(taken.key) is not None


# Two workers


async def test_who_comes_second_waits_and_finds_what_the_first_has_stored(
    two: tuple[Store, Store], nursery: trio.Nursery
) -> None:
    first, second = two
    key = await make_record(first, b"one")
    taken = await take(first, key)
    results: list[Any] = []
    await in_background(nursery, second, key, results)
    assert not results
    await first.give(taken, b"two", LONG)
    (_, found) = await until_first(results)
    assert found.blob == b"two"
    with pytest.raises(LeaseLost):
        await first.write(taken, b"late", LONG)
    await second.give(found, b"three", LONG)


async def until_first(results: list[Any]) -> Any:
    async def first() -> Any:
        return results[:1]

    return (await until(first))[0]


async def test_who_waits_is_served_in_turn(
    workers: Callable[..., Running], nursery: trio.Nursery
) -> None:
    all_workers = workers()
    stores = [await all_workers.start() for _ in range(4)]
    key = await make_record(stores[0])
    taken = await take(stores[0], key)
    results: list[Any] = []
    for store in stores[1:] * 2:
        await in_background(nursery, store, key, results)
    for served in range(6):
        await (stores[0] if served == 0 else results[served - 1][0]).give(taken, None, LONG)
        await until_count(results, served + 1)
        taken = results[served][1]
    assert [store for store, _ in results] == stores[1:] * 2


async def until_count(results: list[Any], count: int) -> None:
    async def are_so_many() -> bool:
        return len(results) == count

    await until(are_so_many)


async def test_who_was_cancelled_while_waiting_is_passed_over(
    workers: Callable[..., Running], nursery: trio.Nursery
) -> None:
    all_workers = workers()
    one, two, three = [await all_workers.start() for _ in range(3)]
    key = await make_record(one)
    taken = await take(one, key)
    results: list[Any] = []
    async with trio.open_nursery() as impatient:
        await in_background(impatient, two, key, results)
        await in_background(nursery, three, key, results)
        impatient.cancel_scope.cancel()
    await one.give(taken, b"two", LONG)
    store, found = await until_first(results)
    assert store is three
    await three.give(found, None, LONG)
    await take(two, key)


@pytest.mark.parametrize("checkpoints", range(8))
async def test_who_was_cancelled_at_any_moment_has_taken_nothing(
    two: tuple[Store, Store], checkpoints: int
) -> None:
    first, second = two
    key = await make_record(first)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_after, scope, checkpoints)
            taken = await first.take(key)
            assert taken is not None
            await first.give(taken, None, LONG)
    with trio.fail_after(10):
        await take(second, key)


@pytest.mark.parametrize("method", ["write", "give", "move", "end", "create"])
async def test_what_writes_is_not_cut_off(two: tuple[Store, Store], method: str) -> None:
    first, second = two
    key, other = await make_record(first), secrets.token_bytes(32)
    taken = await take(first, key)
    given: dict[str, Any] = {
        "write": (taken, b"new", LONG),
        "give": (taken, b"new", LONG),
        "move": (taken, other, b"new", LONG),
        "end": (taken,),
        "create": (other, b"new", LONG),
    }
    with trio.CancelScope() as scope:
        scope.cancel()
        result = await getattr(first, method)(*given[method])
    if method in ("write", "move", "create"):
        await first.give(result, None, LONG)
    with trio.fail_after(10):
        found = await second.take(other if method in ("move", "create") else key)
    if method == "end":
        assert found is None
    else:
        assert found is not None and found.blob == b"new"


async def cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_record_that_ends_or_moves_is_nobody_s_who_waits_for_it(
    two: tuple[Store, Store], nursery: trio.Nursery
) -> None:
    first, second = two
    for leave in (first.end, lambda taken: first.move(taken, new_key(), b"", LONG)):
        taken = await take(first, await make_record(first))
        results: list[Any] = []
        await in_background(nursery, second, taken.key, results)
        await leave(taken)
        assert (await until_first(results))[1] is None


async def test_a_lease_that_is_over_goes_to_who_waits(workers: Callable[..., Running]) -> None:
    both = workers(lease=0.3)
    slow, other = await both.start(), await both.start()
    key = await make_record(slow, b"one")
    late = await take(slow, key)
    taken = await take(other, key)
    for attempt in (slow.write(late, b"late", LONG), slow.give(late, b"late", LONG)):
        with pytest.raises(LeaseLost):
            await attempt
    await other.give(taken, b"two", LONG)
    assert (await take(other, key)).blob == b"two"


async def test_a_lease_that_nobody_else_wants_does_not_end(
    workers: Callable[..., Running],
) -> None:
    store = await workers(lease=0.1).start()
    taken = await take(store, await make_record(store))
    await trio.sleep(0.15)
    await store.give(taken, b"two", LONG)
    assert (await take(store, taken.key)).blob == b"two"


async def test_what_a_stopped_worker_has_taken_goes_to_who_waits(
    workers: Callable[..., Running], nursery: trio.Nursery
) -> None:
    both = workers()
    first, second = await both.start(), await both.start()
    key = await make_record(first, b"one")
    await take(first, key)
    results: list[Any] = []
    await in_background(nursery, second, key, results)
    await both.stop(first)
    assert (await until_first(results))[1].blob == b"one"


async def test_all_that_is_due_is_claimed_by_one_of_them(two: tuple[Store, Store]) -> None:
    keys = [await make_record(two[0], lives=0.2) for _ in range(20)]
    claimed: list[bytes] = []

    async def claim(store: Store) -> None:
        while len(claimed) < len(keys):
            claimed.extend(ending.key for ending in await store.due(3))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for store in two:
                nursery.start_soon(claim, store)
    assert sorted(claimed) == sorted(keys)


async def test_what_a_dead_worker_has_claimed_is_adopted_once(
    workers: Callable[..., Running],
) -> None:
    three = workers()
    dead, one, two = [await three.start() for _ in range(3)]
    keys = [await make_record(dead, b"one", lives=0.05) for _ in range(2)]
    await trio.sleep(0.06)
    endings: list[Ending] = []
    while len(endings) < 2:
        endings += await dead.due(10)
    await dead.ended(endings[0])
    assert await one.adopt() == []
    await three.stop(dead)
    adopted: list[Ending] = []
    with trio.fail_after(10):
        while not adopted:
            adopted += await one.adopt() + await two.adopt()
            await trio.sleep(0.05)
    (ending,) = adopted
    assert (ending.key, ending.blob, ending.adopted) == (endings[1].key, b"one", True)
    assert ending.key in keys
    await one.ended(ending)
    await two.ended(ending)


async def test_listeners_are_known_at_the_end_and_can_be_told(
    workers: Callable[..., Running],
) -> None:
    four = workers()
    one, two, three, dead = [await four.start() for _ in range(4)]
    key = await make_record(one, lives=LONG)
    for store in (one, dead, two, three):
        await store.give(await take(store, key), None, LONG, listens=True)
    await three.give(await take(three, key), None, 0.1, listens=False)
    await four.stop(dead)
    (ending,) = await all_due(three)
    assert set(ending.listeners) == {one.worker, two.worker, dead.worker}
    assert await three.tell(one.worker, key)
    assert await three.tell(two.worker, key)
    assert not await three.tell(dead.worker, key)
    with trio.fail_after(10):
        assert await one.wait_told() == key
        assert await two.wait_told() == key


async def test_who_waits_to_be_told_is_told_at_once(
    two: tuple[Store, Store], nursery: trio.Nursery
) -> None:
    first, second = two
    keys = [new_key() for _ in range(3)]
    told: list[bytes] = []

    async def listen() -> None:
        while True:
            told.append(await first.wait_told())

    nursery.start_soon(listen)
    await wait_all_tasks_blocked(0.1)
    for key in keys:
        assert await second.tell(first.worker, key)
    await until_count(told, 3)
    assert sorted(told) == sorted(keys)
