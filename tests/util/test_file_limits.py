"""Open files: the limit is raised, never lowered, and running out of them is nobody's crash."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rpyserve import Directory, Site
from rpyserve.util import file_limits
from rpyserve.util.file_limits import is_too_many_files, limit, max_connections, raise_limit
from tests.support.faulty_stream import open_files
from tests.support.http_client import head
from tests.support.in_process import ask
from tests.support.real_process import RawClient, program

INFINITY = -1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A system whose limits a test sets; it refuses what is above its *highest*."""

    def set_limit(which: int, pair: tuple[int, int]) -> None:
        if pair[0] > system.highest:
            raise ValueError("current limit exceeds maximum limit")
        system.limits = pair

    system = SimpleNamespace(
        RLIMIT_NOFILE=7, RLIM_INFINITY=INFINITY, limits=(256, 4096), highest=10**9
    )
    system.getrlimit = lambda which: system.limits
    system.setrlimit = set_limit
    monkeypatch.setattr(file_limits, "_resource", lambda: system)
    yield system


@pytest.mark.parametrize(
    ("soft", "hard", "highest", "raised"),
    [
        (256, 4096, 10**9, 4096),
        (1024, 1_048_576, 10**9, 65_536),
        (256, INFINITY, 10_240, 10_240),
        (256, INFINITY, 100, 256),
        (4096, 4096, 10**9, 4096),
        (100_000, 1_048_576, 10**9, 100_000),
    ],
)
def test_the_limit_is_raised_as_far_as_it_can_be(
    fake: Any, soft: int, hard: int, highest: int, raised: int
) -> None:
    fake.limits, fake.highest = (soft, hard), highest
    assert raise_limit() == raised == limit()
    assert fake.limits == (raised, hard)


def test_no_limit_stays_none(fake: Any) -> None:
    fake.limits = (INFINITY, INFINITY)
    assert raise_limit() is limit() is max_connections() is None


def test_where_there_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_limit() is limit() is max_connections() is None


@pytest.mark.parametrize(("soft", "most"), [(64, 48), (256, 192), (1024, 768), (65_536, 65_280)])
def test_some_are_kept_from_connections(fake: Any, soft: int, most: int) -> None:
    fake.limits = (soft, soft)
    assert max_connections() == most


def test_what_it_means_to_have_none_left() -> None:
    assert is_too_many_files(OSError(errno.EMFILE, "")) and is_too_many_files(
        OSError(errno.ENFILE, "")
    )
    assert not (
        is_too_many_files(OSError(errno.ENOENT, ""))
        or is_too_many_files(ValueError())
        or is_too_many_files(None)
    )


def test_the_spare_descriptor_is_held_while_inside() -> None:
    before = open_files()
    spare = file_limits.SpareDescriptor()
    with spare:
        spare.hold()
        assert open_files() == before + bool(before)
        assert spare.release() and not spare.release()
        assert open_files() == before
        spare.hold()
    assert open_files() == before and not spare.release()


def no_memory(*_: object) -> int:
    raise MemoryError


def test_there_may_be_no_spare_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    spare = file_limits.SpareDescriptor()
    with NoneLeft():
        spare.hold()
        assert not spare.release()
    monkeypatch.setattr(os, "open", no_memory)
    spare.hold()
    assert not spare.release()


# None left, for one request


class NoneLeft:
    """While inside, nothing can be opened."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        for name in ("os.open", "os.scandir", "builtins.open"):
            self.patch.setattr(name, fail)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "d").mkdir()
    for name in ("a.txt", "d/b.txt"):
        (tmp_path / name).write_text("content")
    (tmp_path / "page.rpy").write_text("def resource(request): return 'page'")
    (tmp_path / "reads.rpy").write_text(
        "def resource(request):\n    with open(__file__) as file:\n        return file.read()\n"
    )
    site = Site(Directory(tmp_path))
    yield site
    site.close()


@pytest.mark.parametrize("target", ["/a.txt", "/page", "/d/", "/reads"])
async def test_a_request_that_can_open_nothing_is_a_503(
    site: Site, target: str, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if target == "/reads":
        await ask(site, target)  # so that it is compiled
    for _ in range(3):
        with NoneLeft():
            answer = await ask(site, target)
        assert answer.status == 503
        assert answer.header("retry-after") == "1"
    assert (await ask(site, target)).status == 200
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Too many open files" in line and "ulimit -n" in line


# None left, for real


WEBSOCKET = head(
    "GET",
    "/socket",
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    f"Sec-WebSocket-Key: {'A' * 22}==",
)


@pytest.mark.process
@pytest.mark.skipif(os.name == "nt", reason="a limit of Unix")
@pytest.mark.parametrize(
    "opening",
    [
        b"",
        head("GET", "/page")[:-2],
        head("POST", "/page", "Content-Length: 1000000") + b"x",
        head("GET", "/large"),
        head("GET", "/-/events"),
        head("GET", "/never"),
        WEBSOCKET,
    ],
    ids=["nothing", "head", "body", "download", "events", "NOT_DONE_YET", "WebSocket"],
)
async def test_a_crowd_at_the_limit_does_not_keep_a_visitor_out(
    opening: bytes, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(10_000_000))
    (tmp_path / "never.rpy").write_text(
        "from rpyserve import NOT_DONE_YET\ndef resource(request): return NOT_DONE_YET\n"
    )
    (tmp_path / "socket.rpy").write_text(
        "from rpyserve import websocket\n@websocket\n"
        "async def resource(socket):\n    async for message in socket: pass\n"
    )
    command = f'ulimit -n 64 && exec "{sys.executable}" -m rpyserve "{tmp_path}" --port 0'
    with program(["/bin/sh", "-c", command], tmp_path / "console") as server:
        server.port = int(server.wait_for(r"http://[^/\s]+:(\d+)")[1])
        async with RawClient.connect(server.port) as visitor:
            await visitor.get("/page")
        await trio.sleep(2)  # what is imported later needs descriptors
        crowd = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(100)]
        for number, stream in enumerate(crowd):
            agent = b"\r\nUser-Agent: %d\r\n" % number  # one stream of events for each
            with suppress(trio.BrokenResourceError):
                await stream.send_all(opening.replace(b"\r\n", agent, 1))
        try:
            for _ in range(10):
                with trio.fail_after(5):
                    async with RawClient.connect(server.port) as visitor:
                        assert await visitor.get("/page") == "page"
                        assert await visitor.get("/a.txt") == "content"
        finally:
            for stream in crowd:
                await trio.aclose_forcefully(stream)
        server.wait_for("to make room")
        assert server.output().count("ulimit -n") == 1
