"""Requests that come together share a look at the disk; one that comes after a save never gets what
was before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Directory, Request, Site
from rpyserve.http.response import Response
from rpyserve.protocol.server_state import LoopTick
from rpyserve.scripts.file_state import FileState
from rpyserve.serving.listeners import open_listeners, serve_listeners
from tests.support.http_client import connect_to, head
from tests.support.script_site import ScriptSite

SCRIPT = "cache()\nimport words\nresource = lambda request: words.TEXT"


async def test_each_tick_is_another_object() -> None:
    loop_tick = LoopTick()
    with loop_tick.installed():
        seen = []
        for _ in range(4):
            await trio.lowlevel.checkpoint()
            seen.append(loop_tick.current)
        assert len(set(map(id, seen))) == 4
        assert loop_tick.current is loop_tick.current
    last = loop_tick.current
    await trio.lowlevel.checkpoint()
    assert loop_tick.current is last


async def test_requests_carry_the_tick_of_the_loop(nursery: trio.Nursery) -> None:
    seen: list[object] = []

    async def respond(request: Request) -> Response:
        seen.append((request._loop_tick, loop_tick.current))
        return Response("x")

    loop_tick = LoopTick()
    with loop_tick.installed():
        clients = [connect_to(respond, nursery, loop_tick=loop_tick) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        for client in clients:
            await client.send(head("GET", "/"))
            await client.reply()
        for client in clients:
            await client.aclose()
    assert len(seen) == 3 and len({id(tick) for tick, _ in seen}) == 3  # type: ignore[misc]
    assert all(tick is current for tick, current in seen)  # type: ignore[misc]


async def test_without_a_server_no_look_is_spared(nursery: trio.Nursery) -> None:
    seen: list[object] = []

    async def respond(request: Request) -> Response:
        seen.append(request._loop_tick)
        return Response("x")

    client = connect_to(respond, nursery)
    await client.get()
    await client.aclose()
    assert seen == [None] and Request("GET", "/")._loop_tick is None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ScriptSite]:
    site = ScriptSite(tmp_path)
    site.write("words.py", "TEXT = 'one'")
    site.write("a.rpy", SCRIPT)
    yield site
    site.scripts.close()


def get(site: ScriptSite, moment: object | None) -> Any:
    request = Request("GET", "/", loop_tick=moment)
    try:
        return site.load("a.rpy", request).render(request)
    finally:
        request.close()


@pytest.mark.parametrize("name", ["words.py", "a.rpy"])
def test_an_edit_shows_from_the_next_tick_on(site: ScriptSite, name: str) -> None:
    one, two = object(), object()
    assert get(site, one) == get(site, one) == "one"
    site.write(name, SCRIPT.replace("words.TEXT", "'two!'") if name == "a.rpy" else "TEXT = 'two!'")
    assert get(site, one) == "one", "it was sent before the save"
    assert get(site, two) == "two!"
    assert get(site, None) == "two!"


def test_what_the_watcher_says_counts_at_once(site: ScriptSite) -> None:
    one = object()
    assert get(site, one) == "one"
    site.write("words.py", "TEXT = 'two!'")
    site.scripts.invalidate([str(site.root / "words.py")])
    assert get(site, one) == "two!"


def test_files_are_looked_at_once_a_tick(site: ScriptSite, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def changed(self: FileState) -> bool:
        looks.append(Path(self.path).name)
        return real(self)

    real = FileState.changed
    get(site, None)
    monkeypatch.setattr(FileState, "changed", changed)
    one = object()
    for _ in range(5):
        get(site, one)
    assert sorted(looks) == ["a.rpy", "words.py"]
    get(site, object())
    get(site, None)
    get(site, None)
    assert len(looks) == 8


async def test_each_save_shows_over_sockets(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Whoever saves and then asks gets the new text, whatever other clients keep the loop busy
    with.
    """
    site = Site(Directory(tmp_path))
    (tmp_path / "a.rpy").write_text(SCRIPT)
    (tmp_path / "words.py").write_text("TEXT = 'none'")
    stop = trio.Event()
    listeners = await open_listeners("127.0.0.1", 0)

    async def serve(task_status: Any) -> None:
        async with site.running():
            await serve_listeners(site.respond, listeners, stop=stop, task_status=task_status)

    await nursery.start(serve)
    port = listeners[0].socket.getsockname()[1]

    async def ask(stream: trio.SocketStream) -> bytes:
        await stream.send_all(head("GET", "/a"))
        return bytes(await stream.receive_some(65536))

    async def bother() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            while not stop.is_set():
                await ask(stream)

    async with trio.open_nursery() as others:
        for _ in range(5):
            others.start_soon(bother)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for number in range(200):
                (tmp_path / "words.py").write_text(f"TEXT = '{number:04}'")
                assert (await ask(stream)).endswith(b"%04d" % number)
        others.cancel_scope.cancel()
    stop.set()
