"""Unix sockets, passed descriptors, and what is no socket."""

from __future__ import annotations

import multiprocessing
import os
import socket
import stat
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from rpyserve import Request, Resource, Site
from rpyserve.production import sockets
from rpyserve.production.sockets import (
    LONGEST_PATH,
    CannotBind,
    Descriptor,
    Systemd,
    TCPPort,
    UnixSocket,
    open_listeners,
    parse_bind,
    passed_descriptors,
)
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.listen import CannotListen, Settings, open_endpoint
from rpyserve.serving.run import _serve_until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no Unix sockets")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: that of a socket may not be long."""
    with TemporaryDirectory(prefix="rpy") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("unix:/run/a.sock", UnixSocket("/run/a.sock", 0o600)),
        ("unix:/run/a.sock,mode=660", UnixSocket("/run/a.sock", 0o660)),
        ("unix:/run/a,b.sock", UnixSocket("/run/a,b.sock", 0o600)),
        ("unix:/run/../tmp/a", UnixSocket("/tmp/a", 0o600)),
        ("fd:3", Descriptor(3)),
        ("systemd", Systemd()),
        ("9001", TCPPort("127.0.0.1", 9001)),
        (":9001", TCPPort("127.0.0.1", 9001)),
        ("0.0.0.0:80", TCPPort("0.0.0.0", 80)),
        ("[::]:80", TCPPort("::", 80)),
        ("localhost:0", TCPPort("localhost", 0)),
    ],
)
def test_what_can_be_said(text: str, bind: object) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "fd:", "fd:-1", "fd:3x", "::1", "a:b", "65536", "unix:a\0b", "/run/a.sock"],
)
def test_what_cannot(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bind(text)


async def test_a_path_may_be_so_long_and_no_longer(directory: Path) -> None:
    stem = f"{directory}/"
    longest = stem + "a" * (LONGEST_PATH - len(stem))
    bind = parse_bind(f"unix:{longest}")
    assert isinstance(bind, UnixSocket)
    (listener,) = open_listeners(bind)
    await listener.aclose()
    with pytest.raises(ValueError, match=f"may have {LONGEST_PATH}"):
        parse_bind(f"unix:{longest}a")


class Who(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> list[Any]:
        return [request.client, request.server[1]]


async def fetch(path: Path) -> bytes:
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join([chunk async for chunk in stream])


async def test_a_site_on_a_unix_socket(directory: Path, nursery: trio.Nursery) -> None:
    path = directory / "a.sock"
    site = Site(Who())
    settings = Settings(binds=(UnixSocket(str(path), 0o640),))
    endpoint = await open_endpoint(site, settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    stop, ready = trio.Event(), trio.Event()
    async with trio.open_nursery() as serving:
        serving.start_soon(_serve_until, site, endpoint, settings, AccessLog(), stop, ready.set)
        await ready.wait()
        answer = await fetch(path)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'[["unix:", 0], 0]')
        stop.set()
    assert not path.exists()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(directory: Path) -> None:
    path = directory / "a.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    (listener,) = open_listeners(UnixSocket(str(path)))
    with pytest.raises(CannotBind, match="is in use"):
        open_listeners(UnixSocket(str(path)))
    assert path.is_socket()
    await listener.aclose()
    assert not path.exists()


async def test_one_whose_queue_is_full_is_live(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "a.sock"
    monkeypatch.setattr(sockets, "BACKLOG", 0)
    (listener,) = open_listeners(UnixSocket(str(path)))
    waiting = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect_ex(str(path))
        waiting.append(client)
    with pytest.raises(CannotBind, match="is in use"):
        open_listeners(UnixSocket(str(path)))
    for client in waiting:
        client.close()
    await listener.aclose()


async def test_what_others_have_put_there_meanwhile_is_not_removed(directory: Path) -> None:
    path = directory / "a.sock"
    (old,) = open_listeners(UnixSocket(str(path)))
    path.unlink()
    (new,) = open_listeners(UnixSocket(str(path)))
    await old.aclose()
    assert path.is_socket()
    await new.aclose()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_nothing_but_a_socket_is_replaced(directory: Path, kind: str) -> None:
    path = directory / "a.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(directory / "elsewhere")
    with pytest.raises(CannotBind, match="is not a socket"):
        open_listeners(UnixSocket(str(path)))
    assert os.path.lexists(path) and path.is_symlink() == (kind == "link")


def test_a_directory_that_is_not_there(directory: Path) -> None:
    with pytest.raises(CannotBind, match="There is no directory"):
        open_listeners(UnixSocket(str(directory / "no" / "a.sock")))


def _hold(path: str, results: Any, begin: Any, end: Any) -> None:
    begin.wait()
    try:
        held = open_listeners(UnixSocket(path))
    except CannotBind:
        results.put("refused")
        return
    results.put("listens")
    end.wait()
    assert held


def test_of_many_that_start_at_once_one_gets_a_stale_socket(directory: Path) -> None:
    path = str(directory / "a.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    spawn = multiprocessing.get_context("spawn")
    results, begin, end = spawn.Queue(), spawn.Event(), spawn.Event()
    workers = [spawn.Process(target=_hold, args=(path, results, begin, end)) for _ in range(4)]
    for worker in workers:
        worker.start()
    begin.set()
    try:
        assert sorted(results.get(timeout=60) for _ in workers) == ["listens"] + ["refused"] * 3
    finally:
        end.set()
        for worker in workers:
            worker.join(60)


# Descriptors


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_a_descriptor(directory: Path, family: int) -> None:
    with socket.socket(family) as given:
        if family == socket.AF_UNIX:
            given.bind(str(directory / "a.sock"))
        else:
            try:
                given.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            except OSError:
                pytest.skip("no IPv6")
        number = os.dup(given.fileno())
        (listener,) = open_listeners(Descriptor(number))
        assert listener.socket.getsockname() == given.getsockname()
        assert not os.get_inheritable(number)
        await listener.aclose()


def test_what_is_no_listening_socket() -> None:
    with pytest.raises(CannotBind, match="Descriptor 99999 is not an open socket"):
        open_listeners(Descriptor(99999))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        pytest.raises(CannotBind, match="is a connection"),
    ):
        open_listeners(Descriptor(client.fileno()))
    with socket.socket() as unbound, pytest.raises(CannotBind, match="without an address"):
        open_listeners(Descriptor(unbound.fileno()))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        pytest.raises(CannotBind, match="not a stream socket"),
    ):
        open_listeners(Descriptor(datagrams.fileno()))
    with open(os.devnull) as file:
        with pytest.raises(CannotBind, match="not an open socket"):
            open_listeners(Descriptor(file.fileno()))
        assert os.fstat(file.fileno()), "it is not closed"


def passed(monkeypatch: pytest.MonkeyPatch, pid: str, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "web")


def test_what_systemd_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passed(monkeypatch, str(os.getpid()), "2")
    assert sockets.are_passed_to_us()
    assert passed_descriptors() == [3, 4]
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()


@pytest.mark.parametrize(
    ("pid", "count", "words"),
    [
        ("1", "1", "are for process '1'"),
        ("", "1", "has passed no sockets"),
        ("own", "", "has passed no sockets"),
        ("own", "0", "not a number of sockets"),
        ("own", "many", "not a number of sockets"),
        ("own", "-1", "not a number of sockets"),
    ],
)
def test_what_it_has_not(monkeypatch: pytest.MonkeyPatch, pid: str, count: str, words: str) -> None:
    passed(monkeypatch, str(os.getpid()) if pid == "own" else pid, count)
    with pytest.raises(CannotBind, match=words):
        passed_descriptors()


async def test_several_at_once_and_none_is_left_open_if_one_fails(directory: Path) -> None:
    path = directory / "a.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(binds=(UnixSocket(str(path)), TCPPort("127.0.0.1", port)))
        with pytest.raises(CannotListen, match=f"Port {port} of 127.0.0.1 is in use"):
            await open_endpoint(Site(Who()), settings)
    assert not path.exists()
    settings = Settings(binds=(UnixSocket(str(path)), TCPPort("127.0.0.1", 0)))
    endpoint = await open_endpoint(Site(Who()), settings)
    assert len(endpoint.listeners) == 2
    for listener in endpoint.listeners:
        await trio.aclose_forcefully(listener)


# A process that a script forks


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/fd of Linux")
async def test_a_forked_process_does_not_hold_the_socket(
    directory: Path, nursery: trio.Nursery
) -> None:
    path = directory / "a.sock"
    children: list[tuple[int, socket.socket]] = []

    def fork(request: Request) -> str:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            theirs.send(b"begun")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        assert ours.recv(5) == b"begun"
        children.append((pid, ours))
        return "forked"

    site, stop, ready = Site(fork), trio.Event(), trio.Event()
    settings = Settings(binds=(UnixSocket(str(path)),))
    endpoint = await open_endpoint(site, settings)
    async with trio.open_nursery() as serving:
        serving.start_soon(
            partial(_serve_until, site, endpoint, settings, AccessLog(), stop, ready.set)
        )
        await ready.wait()
        assert (await fetch(path)).endswith(b"forked")
        kept = directory / "kept"
        os.link(path, kept)  # the server removes its own name for it
        stop.set()
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(str(kept))
    ((pid, child),) = children
    child.close()
    await trio.to_thread.run_sync(os.waitpid, pid, 0)
