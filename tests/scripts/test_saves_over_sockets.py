"""A request that is sent after a save never gets what was before it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Site
from rpyserve.serving.listeners import open_listeners, serve_listeners
from tests.support.http_client import head

SCRIPT = "cache()\nimport words\nresource = lambda request: words.TEXT"
HOLDS_LOOP = "cache()\nresource = lambda request: request.site.root.during()"


class Root(Directory):
    """A site of two cached scripts.

    One says what the module ``words.py`` does, and one calls `during` while it holds the event
    loop.
    """

    during: Callable[[], str]
    port: int

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (root / "a.rpy").write_text(SCRIPT)
        (root / "slow.rpy").write_text(HOLDS_LOOP)
        self.save(0)

    def save(self, number: int) -> None:
        (self.path / "words.py").write_text(f"TEXT = '{number:04}'")

    async def serve(self, task_status: Any) -> None:
        site, listeners = Site(self), await open_listeners("127.0.0.1", 0)
        self.port = listeners[0].socket.getsockname()[1]
        async with site.running():
            await serve_listeners(
                site.respond, listeners, stop=trio.Event(), task_status=task_status
            )

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@pytest.fixture
async def root(tmp_path: Path, nursery: trio.Nursery) -> Root:
    root = Root(tmp_path)
    await nursery.start(root.serve)
    return root


async def ask(stream: trio.SocketStream) -> bytes:
    await stream.send_all(head("GET", "/a"))
    return bytes(await stream.receive_some(65536))


async def test_each_save_shows_while_others_ask(root: Root) -> None:
    async def keep_asking() -> None:
        async with await root.connect() as stream:
            while True:
                await ask(stream)

    async with trio.open_nursery() as others:
        for _ in range(5):
            others.start_soon(keep_asking)
        async with await root.connect() as stream:
            for number in range(200):
                root.save(number)
                assert (await ask(stream)).endswith(b"%04d" % number)
        others.cancel_scope.cancel()


async def test_a_save_within_a_head_shows(root: Root) -> None:
    """A script holds the loop while a file is saved and another client's head becomes whole."""
    request = head("GET", "/a")
    address = "127.0.0.1", root.port
    with socket.create_connection(address) as slow, socket.create_connection(address) as other:
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(20):  # it is by chance which of the two connections has its turn first

            def save_and_send(number: int = number) -> str:
                root.save(number)
                other.sendall(request[10:])
                return "done"

            root.during = save_and_send
            # Both are sent in one turn of the loop, so that both are there in the next one.
            slow.sendall(head("GET", "/slow"))
            other.sendall(request[:10])
            assert (await receive(slow)).endswith(b"done")
            assert (await receive(other)).endswith(b"%04d" % number)


async def receive(client: socket.socket) -> bytes:
    await trio.lowlevel.wait_readable(client)
    return client.recv(65536)
