"""Listeners and connections on real loopback sockets: no client ends the server, and it ends as it
is told.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from rpyserve.http.request import Request, RequestRecord
from rpyserve.http.response import FileBody, Response
from rpyserve.protocol import server_state
from rpyserve.protocol.server_state import Limits
from rpyserve.serving.listeners import open_listeners, serve_listeners
from rpyserve.util import file_limits
from tests.support.http_client import Client, CutOff, echo, head, hello

RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Server:
    """A server in a test's nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.stop = trio.Event()
        self.over = trio.Event()
        self.records: list[RequestRecord] = []
        self.port = 0
        self.clients: list[Client] = []

    async def start(self, respond: Any, **options: Any) -> Server:
        listeners = await open_listeners("127.0.0.1", 0)
        self.port = listeners[0].socket.getsockname()[1]

        async def serve(task_status: trio.TaskStatus[Any]) -> None:
            await serve_listeners(
                respond,
                listeners,
                stop=self.stop,
                on_record=self.records.append,
                task_status=task_status,
                **options,
            )
            self.over.set()

        assert await self.nursery.start(serve) == listeners
        return self

    async def client(self) -> Client:
        self.clients.append(Client(await trio.open_tcp_stream("127.0.0.1", self.port)))
        return self.clients[-1]


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    server = Server(nursery)
    yield server
    for client in server.clients:
        await client.aclose()
    nursery.cancel_scope.cancel()


async def reset(client: Client) -> None:
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await client.aclose()


# Serving


async def test_request_knows_both_addresses(server: Server) -> None:
    async def respond(request: Request) -> Response:
        return Response([request.client, request.server, request.scheme])

    await server.start(respond)
    client = await server.client()
    port = client.stream.socket.getsockname()[1]
    reply = await client.get()
    assert reply.text == f'[["127.0.0.1", {port}], ["127.0.0.1", {server.port}], "http"]'


async def test_two_hundred_clients_at_once(server: Server) -> None:
    async def respond(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(request.uri)

    await server.start(respond)
    right: list[int] = []

    async def visit(n: int) -> None:
        client = await server.client()
        right.append(sum([(await client.get(f"/{n}/{i}")).text == f"/{n}/{i}" for i in range(5)]))
        await client.aclose()

    async with trio.open_nursery() as nursery:
        for n in range(200):
            nursery.start_soon(visit, n)
    assert right == [5] * 200
    assert len(server.records) == 1000


async def test_httpx_gets_along_with_it(server: Server) -> None:
    await server.start(echo)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", trust_env=False
    ) as client:
        body = b"x" * 300_000
        assert (await client.post("/", content=body)).content == body
        assert (await client.post("/", content=pieces(body))).content == body
        assert (await client.get("/")).status_code == 200
        assert (await client.head("/")).status_code == 200
    assert len({record.client for record in server.records}) == 1  # one connection for all


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


async def test_refusal_of_a_large_request_arrives(server: Server) -> None:
    await server.start(echo, limits=Limits(body=1000))
    for request in (
        b"GET /" + b"x" * 10_000_000,
        head("POST", "/", "Content-Length: 5000000") + b"x" * 5_000_000,
    ):
        client = await server.client()
        await client.send(request)
        assert (await client.reply()).status in {413, 414}
        await client.aclose()


@pytest.mark.parametrize("late", [b"\r\n", head("GET", "/another")])
async def test_what_comes_while_the_last_answer_is_sent_does_not_cut_it(
    server: Server, late: bytes
) -> None:
    async def respond(request: Request) -> Response:
        return Response(bytes(10_000_000))

    await server.start(respond)
    for _ in range(5):
        client = await server.client()
        await client.send(head("GET", "/", "Connection: close"))
        received = await client.stream.receive_some(1000)
        await client.send(late)
        assert len(received + await client.rest()) > 10_000_000
        await client.aclose()


# Clients that misbehave


async def test_clients_that_reset_do_not_end_it(server: Server, caplog: Any) -> None:
    release = trio.Event()

    async def respond(request: Request) -> Response:
        await request.load_body()
        if request.uri == "/wait":
            await release.wait()
        return Response(b"x" * 1_000_000)

    await server.start(respond)
    requests = [
        b"", b"GET", head("GET", "/"), head("GET", "/wait"), head("POST", "/", "Content-Length: 9") + b"12",
        b"?\r\n\r\n",
    ]  # fmt: skip
    for request in requests:
        client = await server.client()
        await client.send(request)
        await trio.sleep(0.01)  # so that the server is where it should be
        await reset(client)
    release.set()
    assert len((await (await server.client()).get()).body) == 1_000_000
    assert [record.getMessage() for record in caplog.records] == []


async def test_stream_to_http10_that_is_broken_off_ends_in_a_reset(server: Server) -> None:
    async def respond(request: Request) -> Response:
        async def failing() -> AsyncIterator[str]:
            yield "one"
            await trio.sleep(0.05)
            raise ValueError

        return Response(failing())

    await server.start(respond)
    client = await server.client()
    await client.send(head("GET", "/", version="1.0"))
    with pytest.raises(trio.BrokenResourceError):
        await client.rest()


async def test_fault_of_ours_is_one_line_and_ends_one_connection(
    server: Server, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "rpyserve")
    await server.start(hello)
    bystander = await server.client()
    await bystander.get()
    with monkeypatch.context() as patch:
        patch.setattr(
            "rpyserve.protocol.connection._Connection._handle_request", lambda self, head: 1 / 0
        )
        with pytest.raises(CutOff):
            await (await server.client()).get()
    assert (await bystander.get()).status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "A connection failed: ZeroDivisionError: division by zero"
    ]


class Failing(trio.abc.Listener[Any]):
    """Fails so many times, then has a client, then none."""

    def __init__(self, failures: int, failure: Exception) -> None:
        self.failures = failures
        self.failure = failure
        self.accepted: list[Any] = []
        self.closed = False

    async def accept(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise self.failure
        if self.accepted:
            await trio.sleep_forever()
        near, far = trio.testing.memory_stream_pair()
        self.accepted.append(near)
        return far

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (MemoryError(), "Cannot allocate memory"),
    ],
)
async def test_accepting_pauses_resumes_and_says_so(
    failure: Exception, why: str, nursery: trio.Nursery, autojump_clock: Any, caplog: Any
) -> None:
    listener, stop = Failing(50, failure), trio.Event()
    async with trio.open_nursery() as inner:
        inner.start_soon(lambda: serve_listeners(hello, [listener], stop=stop))
        await trio.sleep(4)
        assert listener.failures < 50 and not listener.accepted
        await trio.sleep(10)
        assert (await Client(listener.accepted[0]).get()).text == "hello /"
        pause, again = [record.getMessage() for record in caplog.records]
        assert pause.startswith(f"Cannot accept connections right now: {why}. `ulimit -n 65536`")
        assert again == "Accepting connections again."
        stop.set()
    assert listener.closed


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes the server wait is late at once."""
    monkeypatch.setattr(server_state, "STALL_TIMEOUT", 0.0)


@pytest.mark.parametrize("message", [b"", b"GET / HT"])
@pytest.mark.usefixtures("impatient")
async def test_who_rests_makes_room_for_who_comes(
    message: bytes, server: Server, caplog: Any
) -> None:
    await server.start(hello, most=4)
    crowd = [await server.client() for _ in range(4)]
    for client in crowd:
        await client.send(message)
    await wait_all_tasks_blocked()
    for n in range(10):
        with trio.fail_after(5):
            assert (await (await server.client()).get(f"/{n}")).text == f"hello /{n}"
    assert await crowd[0].rest() == b"", "closed without a word"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "4 connections are open" in line and "ulimit" in line


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_is_sent_counts_as_a_connection_does(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(30_000_000))

    async def respond(request: Request) -> Response:
        if request.uri == "/large":
            return Response(FileBody((tmp_path / "large").open("rb"), (range(30_000_000),)))
        return Response("small")

    await server.start(respond, most=4)
    resting = await server.client()
    await resting.get("/")
    stalled = [await server.client() for _ in range(2)]
    for client in stalled:
        await client.send(head("GET", "/large"))
    assert await resting.rest() == b""
    for _ in range(3):
        with trio.fail_after(5):
            assert (await (await server.client()).get("/")).text == "small"


class Crowded(trio.abc.Listener[Any]):
    """Has a client whenever a test says so, as long as there is a spare descriptor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spare = True
        self.clients, self.waiting = trio.open_memory_channel[Any](100)
        monkeypatch.setattr(file_limits.SpareDescriptor, "hold", lambda _: None)
        monkeypatch.setattr(file_limits.SpareDescriptor, "release", self.release)

    def release(self, *_: object) -> bool:
        spare, self.spare = self.spare, False
        self.has_room = spare
        return spare

    has_room = False

    async def accept(self) -> Any:
        stream = await self.waiting.receive()
        if not self.has_room:
            self.clients.send_nowait(stream)
            raise OSError(errno.EMFILE, "Too many open files")
        self.has_room = False
        return stream

    def connect(self) -> Client:
        near, far = trio.testing.memory_stream_pair()
        self.clients.send_nowait(far)
        return Client(near)

    async def aclose(self) -> None:
        pass


async def test_the_spare_descriptor_is_for_the_next_visitor(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any, caplog: Any
) -> None:
    listener, stop = Crowded(monkeypatch), trio.Event()
    async with trio.open_nursery() as inner:
        inner.start_soon(lambda: serve_listeners(hello, [listener], stop=stop))
        resting = listener.connect()
        assert (await resting.get()).status == 200
        await trio.sleep(2)
        listener.spare = True
        visitor = listener.connect()
        began = trio.current_time()
        assert (await visitor.get()).status == 200
        assert trio.current_time() == began
        assert await resting.rest() == b""
        stop.set()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "Too many open files: those that wait for their clients are being closed"
    )


async def test_who_is_at_work_makes_no_room(server: Server, caplog: Any) -> None:
    release = trio.Event()

    async def respond(request: Request) -> Response:
        if request.uri == "/wait":
            await release.wait()
        return Response(request.uri)

    await server.start(respond, most=2)
    busy = [await server.client() for _ in range(2)]
    for client in busy:
        await client.send(head("GET", "/wait"))
    await trio.sleep(0.05)
    waiting = await server.client()
    await waiting.send(head("GET", "/next"))
    with trio.move_on_after(0.3) as scope:
        await waiting.reply()
    assert scope.cancelled_caught
    release.set()
    with trio.fail_after(5):
        assert [(await client.reply()).text for client in [*busy, waiting]] == [
            "/wait",
            "/wait",
            "/next",
        ]


# Stopping


async def test_stop_closes_idle_connections_and_listeners_at_once(server: Server) -> None:
    await server.start(hello)
    clients = [await server.client() for _ in range(3)]
    for client in clients[1:]:
        await client.get()
    server.stop.set()
    with trio.fail_after(2):
        for client in clients:
            assert await client.rest() == b""
        await server.over.wait()
    with pytest.raises(OSError):
        await server.client()


async def test_stop_lets_requests_in_flight_end(server: Server) -> None:
    begun, release = trio.Event(), trio.Event()

    async def respond(request: Request) -> Response:
        begun.set()
        await release.wait()
        return Response("done")

    await server.start(respond)
    client = await server.client()
    await client.send(head("GET", "/"))
    await begun.wait()
    server.stop.set()
    await wait_all_tasks_blocked()
    release.set()
    reply = await client.reply()
    assert (reply.body, reply.headers["connection"]) == (b"done", "close")
    with trio.fail_after(2):
        await server.over.wait()


async def test_stop_cancels_what_outlives_its_grace(server: Server) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def respond(request: Request) -> Response:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    await server.start(respond, grace=0.05)
    client = await server.client()
    await client.send(head("GET", "/"))
    await begun.wait()
    server.stop.set()
    with trio.fail_after(2):
        await server.over.wait()
        with pytest.raises(CutOff):
            await client.reply()
    assert ended.is_set()
    assert [(record.status, record.complete) for record in server.records] == [(499, False)]


async def test_cancelling_it_closes_everything(server: Server) -> None:
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_listeners(
                hello, listeners, stop=trio.Event(), task_status=task_status
            )
        )
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        await client.get()
        nursery.cancel_scope.cancel()
    assert await client.rest() == b""
    await client.aclose()
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", port)


# Listening


async def close_all(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


async def test_localhost_is_both_stacks_on_one_port() -> None:
    listeners = await open_listeners("localhost", 0)
    addresses = [listener.socket.getsockname() for listener in listeners]
    assert addresses[0][0] == "127.0.0.1"
    assert len({address[1] for address in addresses}) == 1
    if socket.has_ipv6 and len(addresses) > 1:
        assert addresses[1][0] == "::1"
    await close_all(listeners)


async def test_taken_port_is_an_error_unless_the_next_will_do() -> None:
    first = await open_listeners("127.0.0.1", 0)
    port = first[0].socket.getsockname()[1]
    with pytest.raises(OSError) as taken:
        await open_listeners("127.0.0.1", port)
    assert taken.value.errno == errno.EADDRINUSE
    second = await open_listeners("127.0.0.1", port, next_free=True)
    assert port < second[0].socket.getsockname()[1] <= port + 100
    await close_all(first + second)


async def test_forbidden_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    async def forbidding(port: int, *, host: str) -> list[Any]:
        tried.append(port)
        if port < 8083:
            raise PermissionError(errno.EACCES, "forbidden")
        return []

    monkeypatch.setattr(trio, "open_tcp_listeners", forbidding)
    assert await open_listeners("127.0.0.1", 8080, next_free=True) == []
    assert tried == [8080, 8081, 8082, 8083]
    with pytest.raises(PermissionError):
        await open_listeners("127.0.0.1", 8080)


async def test_search_for_a_port_ends() -> None:
    with pytest.raises(OSError):
        await open_listeners("203.0.113.1", 8080, next_free=True)  # an address that no machine has
