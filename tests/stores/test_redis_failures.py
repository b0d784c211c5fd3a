"""What may be the matter with a real Redis: at the start, and in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from benchmarks.common.server_process import free_port
from rpyserve.stores.redis import RedisStore
from rpyserve.stores.redis_address import parse_redis_url
from rpyserve.stores.redis_heartbeat import LIFE
from rpyserve.stores.store import LeaseLost, StoreError, Taken, Unavailable
from tests.support.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

LONG = 600.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@asynccontextmanager
async def running(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(parse_redis_url(url))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def make_record(store: RedisStore, blob: bytes = b"one", lives: float = LONG) -> bytes:
    key = os.urandom(32)
    await store.give(await store.create(key, blob, lives), None, lives)
    return key


async def take(store: RedisStore, key: bytes) -> Taken:
    taken = await store.take(key)
    assert taken is not None
    return taken


async def until_connected(store: RedisStore) -> None:
    """Return once *store* has a connection: to give something before gives that up for good."""
    while True:
        try:
            assert await store.take(os.urandom(32)) is None
            return
        except Unavailable:
            await trio.sleep(0.05)


async def take_when_possible(store: RedisStore, key: bytes) -> Taken:
    with trio.fail_after(15):
        while True:
            try:
                return await take(store, key)
            except Unavailable:
                await trio.sleep(0.05)


async def until_some(look: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """Return what *look* returns, as soon as that is something."""
    found: list[Any] = []
    with trio.fail_after(10):
        for pause in chain([0.0], repeat(0.05)):
            await trio.sleep(pause)
            if found := await look():
                break
    return found


async def why_not(url: str) -> str:
    """Return why a server that uses *url* does not start."""
    with pytest.raises(StoreError) as raised:
        await RedisStore(parse_redis_url(url)).run()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# At the start


async def test_nobody_is_there(tmp_path: Path) -> None:
    port = free_port()
    assert await why_not(f"redis://127.0.0.1:{port}") == (
        f"Redis at 127.0.0.1:{port} cannot be used: Connection refused."
    )
    assert "Connection refused" in await why_not(f"redis://localhost:{port}")
    path = tmp_path / "none"
    assert await why_not(f"unix://{path}") == (
        f"Redis at {path} cannot be used: No such file or directory."
    )


async def test_one_of_several_is_not_there(server: RedisServer) -> None:
    with redis_server(port=(port := free_port())):
        other = free_port()
        assert f":{other} " in await why_not(f"redis://127.0.0.1:{port},127.0.0.1:{other}")


async def test_it_wants_a_password() -> None:
    with redis_server("--requirepass", "secret") as server:
        assert "it wants a password" in await why_not(server.url)
        wrong = await why_not(server.url.replace("unix://", "unix://:wrong@"))
        assert "does not accept that user and password" in wrong and "wrong" not in wrong
        async with running(server.url.replace("unix://", "unix://:secret@")) as store:
            await take(store, await make_record(store))


async def test_a_user_with_its_own_rights(server: RedisServer) -> None:
    rights = "~rpy:*", "&rpy:*", "+@read", "+@write", "+@connection", "+@scripting", "+@pubsub"
    server.ask("ACL", "SETUSER", "anna", "on", ">pw", *rights, "+time")
    async with running(server.url.replace("unix://", "unix://anna:pw@")) as store:
        taken = await take(store, await make_record(store))
        await store.move(taken, os.urandom(32), b"two", LONG)
        assert await store.tell(store.worker, taken.key)
        assert await store.wait_told() == taken.key
    server.ask("ACL", "SETUSER", "anna", "-eval", "-evalsha", "-script")
    assert "NOPERM" in await why_not(server.url.replace("unix://", "unix://anna:pw@"))


async def test_a_database_that_is_not_there(server: RedisServer) -> None:
    assert "it has no database of that number" in await why_not(f"{server.url}?db=99")
    async with running(f"{server.url}?db=3") as store:
        await make_record(store)
        assert server.ask("DBSIZE") == 0


async def test_a_replica(server: RedisServer) -> None:
    port = free_port()
    with (
        redis_server(port=port),
        redis_server("--replicaof", f"127.0.0.1 {port}") as replica,
    ):
        assert "it is a replica, which cannot be written" in await why_not(replica.url)


async def test_a_cluster() -> None:
    bus = str(free_port())
    with redis_server(
        "--cluster-enabled", "yes", "--cluster-port", bus, port=free_port()
    ) as server:
        assert "it belongs to a Redis Cluster" in await why_not(server.url)


async def test_something_else_is_at_that_port(nursery: trio.Nursery) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    listeners = await nursery.start(trio.serve_tcp, answer, 0)
    port = listeners[0].socket.getsockname()[1]
    assert "does not speak the protocol of Redis" in await why_not(f"redis://127.0.0.1:{port}")
    nursery.cancel_scope.cancel()


async def test_it_would_drop_sessions(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(server.url):
        assert not caplog.records
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with running(server.url):
        (record,) = caplog.records
        assert "maxmemory-policy is allkeys-lru" in record.getMessage()


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    files = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
    names = ["server.pem", "server.pem", "ca.pem"]
    options = [word for f, n in zip(files, names, strict=True) for word in (f, str(tmp_path / n))]
    port, plain = free_port(), free_port()
    with redis_server("--tls-port", str(port), *options, port=plain):
        trusted = f"?ssl_ca_certs={tmp_path}/ca.pem"
        client = f"{trusted}&ssl_certfile={tmp_path}/server.pem"
        async with running(f"rediss://localhost:{port}{client}") as store:
            await take(store, await make_record(store))
            key = await make_record(store)
            assert store.take_blocking(key) is not None
        assert "its certificate is not accepted" in await why_not(f"rediss://localhost:{port}")
        assert "mismatch" in await why_not(f"rediss://127.0.0.1:{port}{trusted}")
        assert "TLS" in await why_not(f"redis://localhost:{port}")
        assert "Without TLS, it is redis://" in await why_not(
            f"rediss://localhost:{plain}{trusted}"
        )
        missing = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/none.pem"
        assert "No such file" in await why_not(missing)


# In between


async def test_it_is_lost_and_comes_back(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store, b"one")
        taken = await take(store, key)
        server.stop()
        with pytest.raises(Unavailable, match=f"Redis at {server.socket}"):
            await store.take(os.urandom(32))
        with pytest.raises(Unavailable):
            await store.give(taken, b"two", LONG)
        server.start()
        # What could not be given back has been given up meanwhile.
        assert (await take_when_possible(store, key)).blob == b"one"


async def test_what_could_not_be_written_is_given_up(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store, b"one")
        taken = await take(store, key)
        server.stop()
        with pytest.raises(Unavailable):
            await store.write(taken, b"two", LONG)
        server.start()
        assert (await take_when_possible(store, key)).blob == b"one"


async def test_a_short_loss_is_not_noticed(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store, b"one")
        for number in range(3):
            server.stop()
            server.start()
            await trio.lowlevel.checkpoint()
            await store.give(await take_when_possible(store, key), b"%d" % number, LONG)


async def test_it_forgets_the_scripts(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store)
        server.ask("SCRIPT", "FLUSH")
        await store.give(await take(store, key), b"two", LONG)
        assert (await take(store, key)).blob == b"two"


async def test_it_stands_still(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store)
        server.pause()
        begin = trio.current_time()
        with pytest.raises(Unavailable):
            await store.take(key)
        assert trio.current_time() - begin < 10
        server.go_on()
        await store.give(await take_when_possible(store, key), b"two", LONG)
        async with running(server.url) as other:
            await take(other, key)


async def test_its_memory_is_full(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store, b"x" * 100_000)
        short = await make_record(store, lives=0.05)
        taken = await take(store, key)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable, match=f"Redis at {server.socket}: OOM"):
            await store.give(taken, b"y" * 100_000, LONG)
        with pytest.raises(Unavailable, match=f"Redis at {server.socket}: OOM"):
            await store.create(os.urandom(32), b"", LONG)
        # What makes room goes on.
        endings = await until_some(lambda: store.due(10))
        assert [ending.key for ending in endings] == [short]
        await store.ended(endings[0])
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await take(store, key)).blob == b"x" * 100_000


async def test_it_becomes_a_replica(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server(port=(port := free_port())):
        async with running(server.url) as store:
            key = await make_record(store)
            server.ask("REPLICAOF", "127.0.0.1", port)
            with pytest.raises(Unavailable):
                await store.take(key)
            await trio.sleep(0.5)
            with pytest.raises(Unavailable, match="replica"):
                await trio.sleep(1)
                await store.take(key)
            server.ask("REPLICAOF", "NO", "ONE")
            assert await eventually_none(store)


async def eventually_none(store: RedisStore) -> bool:
    """Whether the store can be used again; it holds what the other had: nothing."""
    with trio.fail_after(10):
        while True:
            try:
                return await store.take(os.urandom(32)) is None
            except Unavailable:
                await trio.sleep(0.05)


async def test_it_comes_back_without_its_data(server: RedisServer) -> None:
    async with running(server.url) as store:
        key = await make_record(store)
        taken = await take(store, key)
        server.ask("FLUSHALL")
        with pytest.raises(LeaseLost):
            await store.give(taken, b"two", LONG)
        assert await store.take(key) is None


# Workers


async def test_a_worker_whose_loop_stands_still_keeps_what_it_has(server: RedisServer) -> None:
    async with running(server.url) as busy:
        key = await make_record(busy, b"one")
        taken = await take(busy, key)
        found: list[Any] = []
        waiting = threading.Thread(target=take_elsewhere, args=(server.url, key, found))
        waiting.start()
        be_busy(2 * LIFE / 1000)
        assert not found
        await busy.give(taken, b"two", LONG)
        await trio.to_thread.run_sync(waiting.join)
    assert found == [b"two"]


def be_busy(seconds: float) -> None:
    """Hold the loop, as a script may. Only threads go on."""
    time.sleep(seconds)


def take_elsewhere(url: str, key: bytes, found: list[Any]) -> None:
    """Take *key* as another worker does."""

    async def main() -> None:
        async with running(url) as store:
            taken = await take(store, key)
            found.append(taken.blob)
            await store.give(taken, None, LONG)

    trio.run(main)


async def test_a_dead_worker_is_followed_within_a_moment(server: RedisServer) -> None:
    """Its process is killed; its heartbeat is there for a while."""
    async with running(server.url) as store:
        key = await make_record(store, b"one")
        await trio.to_thread.run_sync(kill_worker_that_holds, server.url, key)
        begin = trio.current_time()
        assert (await take(store, key)).blob == b"one"
        assert trio.current_time() - begin < 3


HOLD = """
import sys, trio
from rpyserve.stores.redis import RedisStore
from rpyserve.stores.redis_address import parse_redis_url

async def main():
    store = RedisStore(parse_redis_url(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await store.take(bytes.fromhex(sys.argv[2]))
        print("taken", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def kill_worker_that_holds(url: str, key: bytes) -> None:
    """Start another process, and kill it once it has *key*."""
    command = [sys.executable, "-c", HOLD, url, key.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        process.kill()


async def test_after_a_loss_nobody_counts_as_dead_at_once(server: RedisServer) -> None:
    async with running(server.url) as first, running(server.url) as second:
        key = await make_record(first, b"one")
        taken = await take(first, key)
        server.stop()
        await trio.to_thread.run_sync(time.sleep, LIFE / 1000 + 0.3)
        server.start()
        with trio.move_on_after(0.5):
            await take_when_possible(second, key)
            raise AssertionError("it was taken from a worker that lives")
        await until_connected(first)
        await first.give(taken, b"two", LONG)
        assert (await take_when_possible(second, key)).blob == b"two"


async def test_what_a_dead_worker_had_been_told_is_adopted_as_lost(server: RedisServer) -> None:
    async with running(server.url) as store:
        async with running(server.url) as dead:
            key = os.urandom(32)
            assert await store.tell(dead.worker, key)
            assert await dead.wait_told() == key  # and dies before it has done what is to be done
        (ending,) = await until_some(store.adopt)
        assert (ending.key, list(ending.listeners), ending.adopted) == (key, [dead.worker], True)
        assert not await store.tell(dead.worker, key)
        await store.ended(ending)


async def test_nothing_is_left_behind(server: RedisServer) -> None:
    """Whatever was kept, all keys are gone once it has ended, but for what ends by itself."""
    async with running(server.url) as store:
        for _ in range(5):
            await make_record(store, lives=0.05)
        await store.end(await take(store, await make_record(store)))
        await store.move(await take(store, await make_record(store)), os.urandom(32), b"", 0.05)
        with trio.fail_after(10):
            ended = 0
            while ended < 5:
                for ending in await store.due(100):
                    await store.ended(ending)
                    ended += 1
    async with running(server.url) as store:
        with trio.fail_after(10):
            while server.ask("SCARD", "rpy:workers") > 1:
                await store.adopt()
                await trio.sleep(0.05)
        keys = {key.decode() for key in server.ask("KEYS", "*")}
        kept = {f"rpy:w:{store.worker.decode()}", "rpy:workers", "rpy:live"}
        assert {key for key in keys if ":s:" not in key and ":due" not in key} <= (
            kept | {"rpy:swept", "rpy:adopted"}
        )
