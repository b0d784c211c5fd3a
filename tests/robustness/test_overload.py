"""Too much of everything: floods, bombs, scripts that break what they can, and clocks that jump."""

from __future__ import annotations

import gzip
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from rpyserve import NOT_DONE_YET, Directory, Request, Resource, Site
from rpyserve.http import response
from rpyserve.http.request import RequestRecord
from rpyserve.http.response import Response
from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.response_headers import ResponseHeadCache
from rpyserve.protocol.server_state import Limits
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.listeners import open_listeners, serve_listeners
from tests.support.http_client import CLIENT, SERVER, Client, CutOff, head, hello, post
from tests.support.in_process import Visitor, ask

# Pipelining


class Flood:
    """A client that sends without end, on a connection that holds nothing back.

    It counts what the server took.
    """

    def __init__(self, nursery: trio.Nursery, respond: Any) -> None:
        self.near, far = lockstep_stream_pair()
        self.taken = 0
        self.answered = 0
        self.over = trio.Event()
        receive = far.receive_some

        async def receive_some(max_bytes: int | None = None) -> bytes | bytearray:
            data = await receive(max_bytes)
            self.taken += len(data)
            return data

        far.receive_some = receive_some  # type: ignore[method-assign]

        def count(record: RequestRecord) -> None:
            self.answered += record.complete

        async def serve() -> None:
            await serve_connection(far, respond, client=CLIENT, server=SERVER, on_record=count)
            self.over.set()

        nursery.start_soon(serve)


async def small(request: Request) -> Response:
    return Response("x")


async def streamed(request: Request) -> Response:
    async def chunks() -> AsyncIterator[str]:
        yield "x"

    return Response(chunks())


@pytest.mark.parametrize("respond", [small, streamed])
async def test_who_pipelines_and_reads_nothing_is_held_back_then_let_go(
    respond: Any, nursery: trio.Nursery, autojump_clock: Any
) -> None:
    flood = Flood(nursery, respond)

    async def send() -> None:
        try:
            await flood.near.send_all(head("GET", "/") * 100_000)
        except trio.BrokenResourceError:
            return

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    limits = Limits()
    assert flood.answered <= 1
    assert flood.taken <= 65_536 + limits.read_ahead + 65_536
    began = trio.current_time()
    await flood.over.wait()
    assert trio.current_time() - began <= limits.write_stall + 2


async def test_a_flood_that_is_read_is_answered_in_order_and_keeps_nobody_waiting(
    nursery: trio.Nursery,
) -> None:
    many = 3000
    flood = Flood(nursery, hello)
    other = Flood(nursery, hello)
    answers = b""

    async def read() -> None:
        nonlocal answers
        while answers.count(b"hello /") < many:
            answers += await flood.near.receive_some(65536)

    async with trio.open_nursery() as both:
        both.start_soon(read)
        both.start_soon(flood.near.send_all, b"".join(head("GET", f"/{n}") for n in range(many)))
        client = Client(other.near)
        for n in range(20):
            assert (await client.get(f"/other/{n}")).text == f"hello /other/{n}"
        assert flood.answered < many, "the other one did not have to wait for the end"
    assert [int(line) for line in _numbers(answers)] == list(range(many))
    for stream in (flood.near, other.near):
        await trio.aclose_forcefully(stream)


def _numbers(answers: bytes) -> Iterator[bytes]:
    for part in answers.split(b"hello /")[1:]:
        yield part.partition(b"HTTP")[0]


# Writing


async def test_a_client_that_reads_nothing_ends_the_task_that_writes_for_it(
    tmp_path: Path,
    connect: Any,
    autojump_clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(response, "MOST_WAITING", 100_000)
    written = 0

    class Writes(Resource):
        isLeaf = True

        def render(self, request: Request) -> Any:
            request.start_soon(self.write, request)
            return NOT_DONE_YET

        async def write(self, request: Request) -> None:
            nonlocal written
            while True:
                request.write(b"x" * 1000)
                written += 1000
                await trio.sleep(0.01)

    class Unread:
        def __init__(self, stream: Any) -> None:
            self.receive_some, self.aclose = stream.receive_some, stream.aclose

        async def send_all(self, data: Any) -> None:
            await trio.sleep_forever()

    site = Site(Writes())
    async with site.running():
        client = connect(site.respond, stream=Unread)
        await client.send(head("GET", "/feed"))
        await client.over.wait()
        assert 2 <= trio.current_time() <= 4
        count = written
        await trio.sleep(10)
    assert written == count < 400_000
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("GET /feed: the client reads more slowly than the script writes")


# Bombs


@pytest.mark.parametrize(
    "bomb",
    [
        b"a: b\r\n" * 50_000,
        b"".join(b"h%d: x\r\n" % n for n in range(50_000)),
        b"Cookie: " + b"a=b; " * 50_000 + b"\r\n",
        b"X: " + b"y" * 1_000_000 + b"\r\n",
        b"x" * 1_000_000,
        (b"X" * 60_000 + b": y\r\n") * 20,
    ],
)
async def test_a_bomb_of_headers_is_refused_before_it_is_whole(
    bomb: bytes, connect: Any, autojump_clock: Any
) -> None:
    reached: list[Request] = []

    async def respond(request: Request) -> Response:
        reached.append(request)
        return Response("x")

    client = connect(respond)
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + bomb)
    assert (await client.reply()).status in (400, 431)
    assert not reached


async def test_what_is_compressed_is_not_unpacked(fetch: Any) -> None:
    packed = gzip.compress(b"x" * 10_000_000)

    async def respond(request: Request) -> Response:
        await request.load_body()
        return Response(str(len(request.content.read())))

    reply = await fetch(respond, "/", "Content-Encoding: gzip", method="POST", body=packed)
    assert reply.text == str(len(packed))


async def test_a_form_of_many_fields_is_refused(tmp_path: Path) -> None:
    async def respond(request: Request) -> str:
        return str(len(request.args))

    site = Site(respond)
    assert (await ask(site, "/?" + "&".join(f"f{n}" for n in range(1001)))).status == 400
    assert (await Visitor(site).post("/", "&".join(f"f{n}" for n in range(1001)))).status == 413


# Scripts


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "fine.rpy").write_text("def resource(request): return 'fine'\n")
    site = Site(Directory(tmp_path))
    yield site
    site.close()


HEAD = "from rpyserve import *\nimport sys, os, trio\n"
FELLING = """
class Odd(BaseException):
    pass

def resource(request):
    how, what = request.field("how"), request.field("what")
    error = {"SystemExit": SystemExit, "GeneratorExit": GeneratorExit, "MemoryError": MemoryError, "Odd": Odd}[what]

    def fail():
        raise error

    async def fail_late():
        await trio.lowlevel.checkpoint()
        raise error

    def chunks():
        yield "one"
        raise error

    if how == "task":
        request.start_soon(fail_late)
    elif how == "background":
        request.site.background(fail_late)
    elif how in ("callback", "late"):
        request.getSession().notifyOnExpire(fail if how == "callback" else fail_late)
        request.getSession().expire()
    elif how == "stream":
        return chunks()
    return "begun"
"""
BAD = {
    "allocates": "def resource(request): return 'x' * (1 << 62)",
    "allocates while it is executed": "DATA = bytearray(1 << 62)\nresource = lambda request: ''",
    "recurses": "def resource(request): return resource(request)",
    "recurses while it is executed": "def f(): return f()\nf()",
    "recurses in its repr": "class A:\n    def __repr__(self): return repr(self)\ndef "
    "resource(request): return A()",
    "recurses in an exception's text": "class E(Exception):\n    def __str__(self): return "
    "str(self)\n"
    "def resource(request): raise E",
    "exits": "def resource(request): sys.exit(3)",
    "exits while it is executed": "sys.exit('no')",
    "exits in async": "async def resource(request):\n    await trio.sleep(0)\n    sys.exit(3)",
    "exits in a stream": "def resource(request):\n    sys.exit(3)\n    yield ''",
    "exits in a nursery": "async def resource(request):\n    async with trio.open_nursery() as n:\n"
    "        n.start_soon(trio.sleep, 0)\n        sys.exit(3)",
    "is nested too deep": "x = " + "(" * 5000 + ")" * 5000,
    "raises what is no Exception": "class E(BaseException): pass\ndef resource(request): raise "
    "GeneratorExit",
    "raises what is no Exception in a stream": "class E(BaseException): pass\n"
    "def resource(request):\n    raise E\n    yield ''",
    "raises what is no Exception in a nursery": "async def resource(request):\n    async with "
    "trio.open_nursery():\n"
    "        raise GeneratorExit",
    "closes what it should not": "def resource(request):\n    request.content.close()\n    "
    "request.content.read()",
    "returns what cannot be sent": "def resource(request): return ['\\ud800']",
    "sets a header that cannot be sent": "def resource(request): request.setHeader('a', "
    "'b\\r\\nc: d'); return ''",
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_script_that_breaks_costs_its_own_answer_only(
    fault: str,
    site: Site,
    tmp_path: Path,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "bad.rpy").write_text(HEAD + BAD[fault] + "\n")
    client = connect(site.respond)
    bystander = connect(site.respond)
    for _ in range(2):
        reply = await client.get("/bad")
        assert reply.status == 500, fault
        assert (await bystander.get("/fine")).text == "fine"
    assert "A connection failed" not in caplog.text
    assert "clean-up failed" not in caplog.text


async def test_nothing_that_a_script_raises_fells_the_server(
    tmp_path: Path, nursery: trio.Nursery, caplog: Any
) -> None:
    """The server serves on, wherever a script raises one of these.

    Beside a response, beside the site, when a session ends, and half-way through a stream.
    """
    (tmp_path / "fells.rpy").write_text(HEAD + FELLING)
    (tmp_path / "fine.rpy").write_text("def resource(request): return 'fine'\n")
    site = Site(Directory(tmp_path))
    stop = trio.Event()
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    async with site.running(), trio.open_nursery() as inner:
        inner.start_soon(lambda: serve_listeners(site.respond, listeners, stop=stop))
        for how in ("task", "background", "callback", "late", "stream"):
            for what in ("SystemExit", "GeneratorExit", "MemoryError", "Odd"):
                for target in (f"/fells?how={how}&what={what}", "/fine"):
                    client = Client(await trio.open_tcp_stream("127.0.0.1", port))
                    with suppress(CutOff):
                        assert (await client.get(target)).status in (200, 500), (how, what)
                    await client.aclose()
        assert "The background task" in caplog.text and "the expiry callback" in caplog.text
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        assert (await client.get("/fine")).text == "fine"
        await client.aclose()
        stop.set()


# Clocks that jump


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``jump(seconds)`` sets the wall clock to another time."""
    real, real_ns = time.time, time.time_ns
    offset = 0.0

    def jump(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(time, "time", lambda: real() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(offset * 1e9))
    return jump


DAY = 86_400


@pytest.mark.parametrize("seconds", [-400 * DAY, -DAY, -1, 1, DAY, 400 * DAY])
async def test_sessions_do_not_go_by_the_wall_clock(
    seconds: float, jump: Any, autojump_clock: Any
) -> None:
    async def count(request: Request) -> str:
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    site = Site(count, sessionTimeout=5)
    async with site.running():
        visitor = Visitor(site)
        await visitor.get("/")
        jump(seconds)
        await trio.sleep(4.9)
        assert (await visitor.get("/")).text == "2"
        jump(seconds)
        await trio.sleep(5.1)
        assert len(site.sessions) == 0
        assert (await visitor.get("/")).text == "1"


@pytest.mark.parametrize("seconds", [-400 * DAY, -1, 400 * DAY])
async def test_what_is_saved_is_fresh_whatever_the_wall_clock_says(
    seconds: float, jump: Any, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "kept.rpy").write_text("cache()\ndef resource(request): return 'old'\n")
    (tmp_path / "a.txt").write_text("old")
    visitor = Visitor(site)
    first = await visitor.get("/a.txt")
    assert (await visitor.get("/kept")).text == first.text == "old"
    jump(seconds)
    (tmp_path / "kept.rpy").write_text("cache()\ndef resource(request): return 'new'\n")
    (tmp_path / "a.txt").write_text("new")
    held = [("if-none-match", first.header("etag") or '"x"')]
    if modified := first.header("last-modified"):
        held.append(("if-modified-since", modified))
    assert (await visitor.get("/kept")).text == "new"
    assert (await visitor.ask("GET", "/a.txt", headers=held)).text == "new"


def test_date_follows_the_wall_clock_both_ways() -> None:
    now = 0.0
    heads = ResponseHeadCache(lambda: now)
    for now in (1e9, 1e9 + DAY, 1e9 - 2 * DAY, 1e9):
        dates = [
            value
            for name, value in heads.get(200, (), b"", 0, False).event.headers
            if name == b"date"
        ]
        assert parsedate_to_datetime(dates[0].decode()).timestamp() == now


async def test_access_lines_go_on_when_the_wall_clock_jumps(
    jump: Any, connect: Any, caplog: Any
) -> None:
    lines: list[str] = []
    access = AccessLog(lines.append)
    client = connect(hello)
    for seconds in (0, -DAY, DAY):
        jump(seconds)
        await client.get()
        access(client.records[-1])
    assert len("".join(lines).splitlines()) == 3
    assert all(record.seconds >= 0 for record in client.records)


async def test_a_body_that_comes_too_late_is_no_body(connect: Any, autojump_clock: Any) -> None:
    """A slow body does not hold the others: here a hundred of them, and one that is quick."""

    async def respond(request: Request) -> Response:
        await request.load_body()
        return Response("read")

    slow = [connect(respond) for _ in range(100)]
    for client in slow:
        await client.send(post(b"x" * 100)[:-50])
    quick = connect(respond)
    await quick.send(post(b"x"))
    assert (await quick.reply()).text == "read"
    for client in slow:
        assert (await client.reply()).status == 408
    logging.getLogger("rpyserve").debug("all of them are gone")
