"""The client of Redis: replies go to whoever asked, whatever happens to the connection.

The server is a few lines over a memory stream, which answer when the test says so; what a real one
says is in `test_redis_failures`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

import hiredis
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from rpyserve.stores import redis_client
from rpyserve.stores.redis_address import RedisAddress
from rpyserve.stores.redis_client import (
    ConnectionLost,
    RedisClient,
    RedisConnection,
    RedisError,
)
from rpyserve.stores.store import StoreError, Unavailable

ADDRESS = RedisAddress()
Command = list[bytes]


class Server:
    """What the other end of each connection does.

    Attributes:
        connections: the server's ends, in order.
        commands: what came in, in order.
        replies: what HELLO is answered with.
    """

    def __init__(self) -> None:
        self.connections: list[trio.abc.Stream] = []
        self.is_there = True
        self.greeting = b"+OK\r\n"

    async def open_stream(self, address: RedisAddress) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self.is_there:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_stream_pair()
        self.connections.append(theirs)
        await theirs.send_all(self.greeting)
        return ours

    @property
    def stream(self) -> Any:
        return self.connections[-1]


class Reader:
    """The commands that come in on a connection, one after the other."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._reader = hiredis.Reader()

    async def command(self) -> Command:
        while (command := self._reader.gets()) is False:
            data = await self._stream.receive_some()
            assert data, "the client has closed the connection"
            self._reader.feed(bytes(data))
        return command  # type: ignore[no-any-return]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server, nursery: trio.Nursery) -> RedisClient:
    client = RedisClient(ADDRESS, greet, open_stream=server.open_stream)
    await nursery.start(client.run)
    return client


async def greet(connection: RedisConnection) -> None:
    """Nothing has to be said."""


async def reader_of(server: Server) -> Reader:
    reader = Reader(server.stream)
    assert await reader.command() == [b"HELLO", b"3"]
    return reader


async def collect(results: dict[str, Any], name: str, asked: Awaitable[Any]) -> None:
    try:
        results[name] = await asked
    except Unavailable as exc:
        results[name] = exc


async def test_a_reply_goes_to_whoever_asked(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    reader, results = await reader_of(server), {}
    for name in "abc":
        nursery.start_soon(collect, results, name, client.call("ECHO", name))
        await wait_all_tasks_blocked()
    asked = [(await reader.command())[1] for _ in range(3)]
    assert asked == [b"a", b"b", b"c"]
    await server.stream.send_all(b"$1\r\na\r\n$1\r\n")  # a reply and a half
    await wait_all_tasks_blocked()
    assert results == {"a": b"a"}
    await server.stream.send_all(b"b\r\n$1\r\nc\r\n")
    await wait_all_tasks_blocked()
    assert results == {"a": b"a", "b": b"b", "c": b"c"}


async def test_commands_of_one_moment_go_out_together(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    await reader_of(server)
    for number in range(100):
        nursery.start_soon(collect, {}, "", client.call("ECHO", number))
    await wait_all_tasks_blocked()
    data = await server.stream.receive_some()
    assert data.count(b"ECHO") == 100


async def test_any_words_arrive(
    client: RedisClient, server: Server, nursery: trio.Nursery, autojump_clock: Any
) -> None:
    reader = await reader_of(server)
    nursery.start_soon(collect, {}, "", client.call("SET", b"\r\n\0\xff", "é", 10**12))
    assert await reader.command() == [b"SET", b"\r\n\0\xff", "é".encode(), b"1000000000000"]


async def test_who_is_cancelled_gets_no_reply_and_nobody_else_gets_it(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    reader, results = await reader_of(server), {}
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as impatient:
            impatient.start_soon(client.call, "ECHO", "a")
            await wait_all_tasks_blocked()
            scope.cancel()
    nursery.start_soon(collect, results, "b", client.call("ECHO", "b"))
    assert await reader.command() == [b"ECHO", b"a"]
    assert await reader.command() == [b"ECHO", b"b"]
    await server.stream.send_all(b"$1\r\na\r\n$1\r\nb\r\n")
    await wait_all_tasks_blocked()
    assert results == {"b": b"b"}


async def test_who_is_cancelled_already_sends_nothing(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    reader = await reader_of(server)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.call("ECHO", "a")
    assert scope.cancelled_caught
    nursery.start_soon(collect, {}, "", client.call("ECHO", "b"))
    assert await reader.command() == [b"ECHO", b"b"]


async def test_an_error_is_raised_where_it_belongs(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    reader, results = await reader_of(server), {}
    for name in "ab":
        nursery.start_soon(collect, results, name, client.call("GET", name))
        await reader.command()
    await server.stream.send_all(b"-OOM command not allowed\r\n$1\r\nb\r\n")
    await wait_all_tasks_blocked()
    assert isinstance(results["a"], RedisError) and results["a"].code == "OOM"
    assert results["b"] == b"b"


async def test_messages_to_a_channel_come_between_replies(
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    heard: list[Any] = []
    client = RedisClient(ADDRESS, greet, heard.append, server.open_stream)
    await nursery.start(client.run)
    reader, results = await reader_of(server), {}
    nursery.start_soon(collect, results, "subscribe", client.call("SUBSCRIBE", "c"))
    await reader.command()
    nursery.start_soon(collect, results, "a", client.call("GET", "a"))
    await reader.command()
    await server.stream.send_all(
        b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
        b"$1\r\na\r\n"
    )
    await wait_all_tasks_blocked()
    assert heard == [[b"message", b"c", b"hi"]]
    assert results == {"subscribe": [b"subscribe", b"c", 1], "a": b"a"}


async def test_who_waits_when_the_connection_ends_is_told(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    reader, results = await reader_of(server), {}
    for name in "ab":
        nursery.start_soon(collect, results, name, client.call("GET", name))
        await reader.command()
    await server.stream.send_all(b"$1\r\na\r\n$1\r\n")
    await server.stream.aclose()
    await wait_all_tasks_blocked()
    assert results["a"] == b"a"
    assert isinstance(results["b"], ConnectionLost)


async def test_a_lost_connection_is_made_anew_and_commands_wait_for_it(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    results: dict[str, Any] = {}
    for round_ in range(3):
        await server.stream.aclose()
        await wait_all_tasks_blocked()
        nursery.start_soon(collect, results, "a", client.call("GET", round_))
        await trio.sleep(0.5)
        reader = await reader_of(server)
        assert await reader.command() == [b"GET", b"%d" % round_]
        await server.stream.send_all(b"$1\r\na\r\n")
        await wait_all_tasks_blocked()
        assert results.pop("a") == b"a"
    assert client.connections == 4


async def test_commands_wait_for_a_moment_only(
    client: RedisClient,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: Any,
) -> None:
    server.is_there = False
    await server.stream.aclose()
    await wait_all_tasks_blocked()
    begin = trio.current_time()
    with pytest.raises(Unavailable, match="Connection refused"):
        await client.call("GET", "a")
    assert trio.current_time() - begin <= redis_client.LONGEST_WAIT
    await trio.sleep(60)
    begin = trio.current_time()
    with pytest.raises(Unavailable, match="Connection refused"):
        await client.call("GET", "a")
    assert trio.current_time() == begin
    server.is_there = True
    await trio.sleep(1)
    assert client.connections == 2
    # Each change is told once, however often was tried.
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert len([line for line in told if "is lost" in line]) == 1


async def test_a_server_that_does_not_answer_is_left(
    client: RedisClient, server: Server, autojump_clock: Any
) -> None:
    results: dict[str, Any] = {}
    begin = trio.current_time()
    async with trio.open_nursery() as asking:
        asking.start_soon(collect, results, "a", client.call("GET", "a"))
    assert isinstance(results["a"], ConnectionLost)
    assert trio.current_time() - begin < 2 * redis_client.TIMEOUT
    await trio.sleep(1)
    assert client.connections == 2


async def test_a_server_that_is_busy_for_less_is_waited_for(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    results: dict[str, Any] = {}
    nursery.start_soon(collect, results, "a", client.call("GET", "a"))
    await trio.sleep(redis_client.TIMEOUT * 0.9)
    await server.stream.send_all(b"$1\r\na\r\n")
    await wait_all_tasks_blocked()
    assert results == {"a": b"a"}
    assert client.connections == 1


async def test_a_silent_connection_is_tried(
    client: RedisClient, server: Server, autojump_clock: Any
) -> None:
    reader = await reader_of(server)
    for _ in range(3):
        assert await reader.command() == [b"PING"]
        await server.stream.send_all(b"+PONG\r\n")
    assert client.connections == 1


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02"])
async def test_what_is_not_redis_is_left(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    junk: bytes,
    autojump_clock: Any,
) -> None:
    results: dict[str, Any] = {}
    nursery.start_soon(collect, results, "a", client.call("GET", "a"))
    await wait_all_tasks_blocked()
    await server.stream.send_all(junk)
    await trio.sleep(0.5)
    assert isinstance(results["a"], ConnectionLost)


async def test_a_reply_that_nobody_asked_for_ends_the_connection(
    client: RedisClient,
    server: Server,
    autojump_clock: Any,
) -> None:
    await server.stream.send_all(b"+OK\r\n")
    await trio.sleep(0.5)
    assert client.connections == 2


async def test_a_server_that_has_become_a_replica_is_left(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    results: dict[str, Any] = {}
    nursery.start_soon(collect, results, "a", client.call("SET", "a", 1))
    await wait_all_tasks_blocked()
    await server.stream.send_all(b"-READONLY You can't write against a read only replica.\r\n")
    await trio.sleep(0.5)
    assert results["a"].code == "READONLY"
    assert client.connections == 2


async def test_what_greeting_raises_ends_the_start(server: Server, autojump_clock: Any) -> None:
    async def refuse(connection: RedisConnection) -> None:
        raise StoreError("it is a replica")

    with pytest.raises(StoreError, match=r"Redis at localhost:6379 .*it is a replica"):
        await RedisClient(ADDRESS, refuse, open_stream=server.open_stream).run()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "password"),
        (b"-WRONGPASS invalid username-password pair\r\n", "user and password"),
        (b"-ERR unknown command 'HELLO'\r\n", "older than version 6"),
        (b"-DENIED Redis is running in protected mode.\r\n", "protected mode"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak the protocol of Redis"),
    ],
)
async def test_a_start_says_why_it_fails(
    server: Server, greeting: bytes, said: str, autojump_clock: Any
) -> None:
    server.greeting = greeting
    with pytest.raises(StoreError, match=f"Redis at localhost:6379 .*{said}"):
        await RedisClient(ADDRESS, greet, open_stream=server.open_stream).run()


async def test_a_start_does_not_wait_for_a_server_that_is_silent(
    server: Server, autojump_clock: Any
) -> None:
    server.greeting = b""
    with pytest.raises(StoreError, match="has not answered for 5 seconds"):
        await RedisClient(ADDRESS, greet, open_stream=server.open_stream).run()


async def test_a_start_waits_for_a_server_that_is_loading(
    server: Server,
    nursery: trio.Nursery,
    autojump_clock: Any,
) -> None:
    server.greeting = b"-LOADING Redis is loading the dataset in memory\r\n"
    client = RedisClient(ADDRESS, greet, open_stream=server.open_stream)
    started: list[Any] = []

    async def start() -> None:
        started.append(await nursery.start(client.run))

    nursery.start_soon(start)
    await trio.sleep(10)
    assert not started and client.connections == 0
    server.greeting = b"+OK\r\n"
    await trio.sleep(2)
    assert started and client.connections == 1


async def test_a_start_does_not_wait_for_ever(server: Server, autojump_clock: Any) -> None:
    server.greeting = b"-LOADING Redis is loading the dataset in memory\r\n"
    with pytest.raises(StoreError, match="LOADING"):
        await RedisClient(ADDRESS, greet, open_stream=server.open_stream).run()
    assert trio.current_time() >= redis_client.LOADING_LONGEST_WAIT


async def test_a_mistake_of_ours_is_not_taken_for_a_lost_connection(
    server: Server, autojump_clock: Any
) -> None:
    async def fail(connection: RedisConnection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        await RedisClient(ADDRESS, fail, open_stream=server.open_stream).run()
    assert raised.group_contains(ZeroDivisionError)


@pytest.mark.parametrize("when", range(12))
async def test_a_cancelled_caller_never_harms_the_others(
    client: RedisClient,
    server: Server,
    nursery: trio.Nursery,
    when: int,
    autojump_clock: Any,
) -> None:
    """Cancelled at each moment of a call, while others have theirs under way."""
    nursery.start_soon(echo, server)
    results: dict[str, Any] = {}

    async def ask(name: str) -> None:
        for _ in range(5):
            assert await client.call("ECHO", name) == name.encode()
        results[name] = True

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as impatient:
            impatient.start_soon(cancel_after, scope, when)
            impatient.start_soon(ask, "cut")
    async with trio.open_nursery() as others:
        for name in "abc":
            others.start_soon(ask, name)
    assert {"a", "b", "c"} <= set(results)


async def cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def echo(server: Server) -> None:
    reader = await reader_of(server)
    while True:
        words = await reader.command()
        reply = b"+PONG\r\n" if len(words) == 1 else b"$%d\r\n%b\r\n" % (len(words[1]), words[1])
        await server.stream.send_all(reply)
