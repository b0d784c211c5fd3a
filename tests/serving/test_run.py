"""A site served from a program of one's own."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from rpyserve import Directory, HTTPError, Request, Resource, Session, Site, serve
from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.response import Response
from rpyserve.protocol.server_state import Limits
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.access_log import log as access_log
from rpyserve.serving.listen import CannotListen, Settings, open_endpoint
from rpyserve.serving.run import _leave_stuck, _serve_until, run, run_with
from rpyserve.serving.signals import interruptible, is_interruption
from rpyserve.util.exceptions import Interrupted

ROOT = Path(__file__).parent.parent.parent


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> str:
        request.getSession()
        return "hello"

    def render_POST(self, request: Request) -> str:
        return str(len(request.content.read()))


async def ask(
    port: int, *fields: str, method: str = "GET", body: bytes = b"", target: str = "/"
) -> bytes:
    head = [
        f"{method} {target} HTTP/1.1",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *fields,
    ]
    if not any(field.startswith("Host:") for field in fields):
        head.append("Host: localhost")
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
        return b"".join([chunk async for chunk in stream])


async def started(nursery: trio.Nursery, site: Site | Resource, **options: Any) -> int:
    listeners = await nursery.start(partial(serve, site, port=0, **options))
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def test_in_a_trio_program(nursery: trio.Nursery) -> None:
    before = signal.getsignal(signal.SIGINT)
    port = await started(nursery, Hello())
    answer = await ask(port)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nhello")
    assert signal.getsignal(signal.SIGINT) is before


async def test_cancelled_it_closes_all_listeners() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve, Hello(), "localhost", 0))
        nursery.cancel_scope.cancel()
    assert {listener.socket.fileno() for listener in listeners} == {-1}


async def test_a_site_that_cannot_run_leaves_its_port_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    site = Site(Hello())
    monkeypatch.setattr(site, "running", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError) as failure:
        await serve(site, port=port)
    socket.create_server(("127.0.0.1", port)).close()
    assert failure  # whose traceback keeps what was not closed


async def test_cancelled_it_ends_all_sessions_callbacks_included() -> None:
    ended: list[str] = []

    async def callback() -> None:
        await trio.lowlevel.checkpoint()
        ended.append("late")

    def factory(site: Site, uid: str) -> Session:
        session = Session(site, uid)
        session.notifyOnExpire(lambda: ended.append("now"))
        session.notifyOnExpire(callback)
        return session

    site = Site(Hello())
    site.sessionFactory = factory
    async with trio.open_nursery() as nursery:
        port = await started(nursery, site)
        await ask(port)
        nursery.cancel_scope.cancel()
    assert ended == ["now", "late"]
    assert len(site.sessions) == 0
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_who_may_ask(nursery: trio.Nursery) -> None:
    port = await started(nursery, Hello(), allowed_hosts=["my.example"])
    assert b" 200 " in await ask(port, "Host: my.example")
    answer = await ask(port, "Host: evil.example")
    assert b" 403 " in answer
    assert b"--allowed-host" in answer


async def test_this_machines_names_count_only_on_the_network(nursery: trio.Nursery) -> None:
    name = f"Host: {socket.gethostname()}"
    assert b" 403 " in await ask(await started(nursery, Hello()), name)
    assert b" 200 " in await ask(await started(nursery, Hello(), host="0.0.0.0"), name)


async def test_limits(nursery: trio.Nursery) -> None:
    port = await started(nursery, Hello(), limits=Limits(body=10))
    assert (await ask(port, method="POST", body=b"x" * 10)).endswith(b"10")
    answer = await ask(port, method="POST", body=b"x" * 11)
    assert b" 413 " in answer
    assert b"10 bytes (--max-body)" in answer


async def test_access_lines_go_to_a_logger_that_is_configured(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    written = trio.Event()

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        written.set()

    handler = logging.Handler()
    handler.emit = emit  # type: ignore[method-assign]
    port = await started(nursery, Hello())
    await ask(port)
    monkeypatch.setattr(access_log, "handlers", [handler])
    monkeypatch.setattr(access_log, "level", logging.INFO)
    access_log.manager._clear_cache()  # type: ignore[attr-defined]
    await ask(port)
    with trio.fail_after(5):
        await written.wait()
    assert "GET / 200 5 B" in lines[-1]
    assert capsys.readouterr() == ("", "")


async def test_a_request_that_is_stuck_in_a_thread_holds_neither_sessions_nor_the_process(
    nursery: trio.Nursery, mock_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.serving.run.end_process", lambda at_once: ended.append("process"))
    ended: list[str] = []
    begun, stop, ready, over = trio.Event(), trio.Event(), trio.Event(), threading.Event()

    def work() -> None:
        trio.from_thread.run_sync(begun.set)
        over.wait()

    async def stuck(request: Request) -> str:
        request.getSession().notifyOnExpire(lambda: ended.append("ended"))
        await trio.to_thread.run_sync(work)
        return "done"

    site = Site(stuck)
    door = await open_endpoint(site, Settings(port=0))
    nursery.start_soon(_serve_until, site, door, Settings(), AccessLog(), stop, ready.set)
    nursery.start_soon(_leave_stuck, site, Settings(), stop)
    await ready.wait()
    nursery.start_soon(ask, door.listeners[0].socket.getsockname()[1])
    await begun.wait()
    try:
        stop.set()
        for seconds, expected in ((0, []), (5, []), (0.2, ["ended"]), (0.1, ["ended", "process"])):
            mock_clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()
            assert ended == expected
        assert site.sessions.statistics().live == 0
    finally:
        over.set()


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught:
            await serve(Hello(), port=port)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(SystemExit, match=f"Port {port} of 127.0.0.1 is in use"):
            await trio.to_thread.run_sync(partial(run, Hello(), port=port, quiet=True))


def test_why_it_cannot_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(exc: OSError) -> str:
        async def refuse(*args: object, **kwargs: object) -> None:
            raise exc

        monkeypatch.setattr("rpyserve.serving.listen.open_listeners", refuse)
        with pytest.raises(CannotListen) as caught:
            run_with(Site(Hello()), Settings(port=80, quiet=True))
        return str(caught.value)

    assert "not allowed" in reason(PermissionError(errno.EACCES, "Permission denied"))
    assert "in use" in reason(OSError(errno.EADDRINUSE, "Address already in use"))
    assert "not an address of this machine" in reason(OSError(errno.EADDRNOTAVAIL, "Cannot assign"))
    assert "There is no host" in reason(socket.gaierror(-2, "Name or service not known"))
    assert "Strange thing" in reason(OSError(errno.EIO, "Strange thing"))


def test_trust_is_the_sites() -> None:
    site = Site(Hello())
    with pytest.raises(ValueError, match="docker"):
        run(site, trust=["docker"])
    outsider = Request("GET", "/", client=("172.17.0.1", 1))
    assert not site.trusts(outsider)


@pytest.mark.process
def test_a_program_that_runs_a_site(tmp_path: Path) -> None:
    """``run`` returns after Ctrl-C, and hands the signals back."""
    if sys.platform == "win32":
        pytest.skip("Windows cannot send a Ctrl-C to one process")
    (tmp_path / "app.py").write_text(
        "import signal\nfrom rpyserve import Resource, Site, run\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "run(Site(Resource()), port=0)\n"
        "print('after', signal.getsignal(signal.SIGINT) is before)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "after True\n")
    assert "serves app.py" in err
    assert "Stopped." in err


async def test_an_interrupted_script_costs_its_own_request_only() -> None:
    async def answered(exc: BaseException | None) -> Response:
        async def respond(request: Request) -> Response:
            if exc is not None:
                raise exc
            return Response("fine")

        return await interruptible(respond)(Request("GET", "/"))

    assert (await answered(None)).status == 200
    for exc in (Interrupted(), BaseExceptionGroup("", [Interrupted()])):
        with pytest.raises(ClientDisconnected):
            await answered(exc)
    with pytest.raises(HTTPError):
        await answered(HTTPError(404))
    with pytest.raises(BaseExceptionGroup) as caught:
        await answered(BaseExceptionGroup("", [Interrupted(), KeyboardInterrupt()]))
    assert [type(each) for each in caught.value.exceptions] == [KeyboardInterrupt]


def test_what_is_an_interruption() -> None:
    assert is_interruption(Interrupted())
    assert is_interruption(BaseExceptionGroup("", [BaseExceptionGroup("", [Interrupted()])]))
    assert not is_interruption(ValueError())
    assert not is_interruption(BaseExceptionGroup("", [Interrupted(), ValueError()]))
    assert not is_interruption(BaseExceptionGroup("", [KeyboardInterrupt()]))


# Pages that follow

BROWSER = "Sec-Fetch-Dest: document"


async def test_pages_follow_where_the_tree_holds_a_directory(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<p>static</p>")
    root = Resource()
    root.putChild("", Hello())
    root.putChild("files", Directory(tmp_path))
    port = await started(nursery, root)
    assert b'data-sources=""' in await ask(port, BROWSER)
    assert (await ask(port)).endswith(b"\r\n\r\nhello")
    page = await ask(port, BROWSER, target="/files/")
    assert b'data-sources="/files/ /files/index.html"' in page
    assert b'src="../-/follow.js"' in page
    assert b" 200 " in await ask(port, target="/-/follow.js")


@pytest.mark.parametrize("wanted", [True, False])
async def test_they_do_not_without_one_or_if_they_are_not_to(
    nursery: trio.Nursery, tmp_path: Path, wanted: bool
) -> None:
    root = Resource()
    root.putChild("", Hello())
    if not wanted:
        root.putChild("files", Directory(tmp_path))
    port = await started(nursery, root, reload=wanted)
    assert (await ask(port, BROWSER)).endswith(b"\r\n\r\nhello")
    assert b" 404 " in await ask(port, target="/-/follow.js")


@pytest.mark.parametrize("reload", [True, False])
async def test_a_program_can_do_without_the_inspector(
    nursery: trio.Nursery, tmp_path: Path, reload: bool
) -> None:
    for wanted, status in ((True, b" 200 "), (False, b" 404 ")):
        root = Resource()
        root.putChild("files", Directory(tmp_path))
        port = await started(nursery, root, reload=reload, inspector=wanted)
        assert status in await ask(port, target="/-/sessions.json")
