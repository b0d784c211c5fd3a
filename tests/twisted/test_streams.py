"""Answers of genuine resources that come later, and bit by bit; and clients that leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

pytest.importorskip("twisted")

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from rpyserve import Site
from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.request import Request
from rpyserve.http.response import start_body
from rpyserve.twisted.takeover import HIGH_WATER
from tests.support.genuine import TwistedSite
from tests.support.http_client import Client, CutOff, head


class Later(Resource):  # type: ignore[misc]
    """Keeps its requests, and what became of them."""

    isLeaf = True

    def __init__(self, begin: Callable[[Any], object] = lambda request: None) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.ends: list[str] = []
        self._begin = begin

    def render_GET(self, request: Any) -> int:
        self.requests.append(request)
        request.notifyFinish().addCallbacks(
            lambda result: self.ends.append("finished"),
            lambda failure: self.ends.append(failure.trap(ConnectionDone).__name__),
        )
        self._begin(request)
        return int(NOT_DONE_YET)


async def blocked() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def ask(connect: Any, resource: Resource, method: str = "GET") -> Client:
    """A client that has asked and waits."""
    client: Client = connect(Site(resource).respond)
    await client.send(head(method, "/x"))
    await blocked()
    return client


async def test_the_head_goes_out_when_it_is_written(connect: Any) -> None:
    later = Later()
    client = await ask(connect, later)
    later.requests[0].setResponseCode(404, b"Not Here")
    later.requests[0].setHeader(b"x-when", b"later")
    later.requests[0].write(b"")
    await blocked()
    got = await client.stream.receive_some()
    assert got.startswith(b"HTTP/1.1 404 Not Here\r\n")
    assert b"\r\nX-When: later\r\n" in got
    later.requests[0].write(b"begun")
    later.requests[0].finish()
    assert b"begun" in await client.stream.receive_some()
    assert later.ends == ["finished"]


async def test_an_answer_that_is_finished_at_once_is_whole(connect: Any) -> None:
    later = Later()
    client = await ask(connect, later)
    later.requests[0].write(b"all ")
    later.requests[0].write(b"of it")
    later.requests[0].finish()
    reply = await client.reply()
    assert (reply.body, reply.headers["content-length"]) == (b"all of it", "9")


async def test_a_length_that_the_script_says(connect: Any) -> None:
    later = Later(lambda request: request.setHeader(b"content-length", b"4"))
    client = await ask(connect, later)
    later.requests[0].write(b"ab")
    await blocked()
    later.requests[0].write(b"cd")
    later.requests[0].finish()
    reply = await client.reply()
    assert (reply.body, reply.headers["content-length"]) == (b"abcd", "4")


@pytest.mark.parametrize("written", [b"", b"some"])
async def test_a_client_that_leaves_ends_the_request(connect: Any, written: bytes) -> None:
    later = Later()
    client = await ask(connect, later)
    if written:
        later.requests[0].write(written)
        await blocked()
    await client.aclose()
    await client.over.wait()
    assert later.ends == ["ConnectionDone"]
    later.requests[0].write(b"nobody hears")
    with pytest.raises(RuntimeError, match="after its connection was lost"):
        later.requests[0].finish()


async def test_a_head_request_waits_and_has_no_body(connect: Any) -> None:
    later = Later()
    client = await ask(connect, later, "HEAD")
    later.requests[0].write(b"dropped")
    later.requests[0].finish()
    assert (await client.reply("HEAD")).body == b""


class Pull:
    """Writes *count* pieces, one each time that it is asked."""

    def __init__(self, request: Any, count: float, size: int) -> None:
        self.request, self.left, self.piece = request, count, b"x" * size
        self.asked, self.stopped = 0, False
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.asked += 1
        if self.left:
            self.left -= 1
            self.request.write(self.piece)
        else:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.stopped = True


async def test_a_pull_producer_that_is_soon_through_makes_a_whole_answer(connect: Any) -> None:
    client = await ask(connect, Later(lambda request: Pull(request, 3, 10)))
    reply = await client.reply()
    assert (reply.body, reply.headers["content-length"]) == (b"x" * 30, "30")


async def test_a_pull_producer_is_asked_as_the_client_reads(connect: Any) -> None:
    made: list[Pull] = []
    later = Later(lambda request: made.append(Pull(request, 100, 100_000)))
    client = await ask(connect, later)
    assert len((await client.reply()).body) == 10_000_000
    assert later.ends == ["finished"]
    assert not made[0].stopped


async def test_a_producer_without_end_and_a_client_that_never_reads() -> None:
    made: list[Pull] = []
    later = Later(lambda request: made.append(Pull(request, float("inf"), 100_000)))
    site = Site(later)
    response = await site.respond(Request("GET", "/x"))
    async with start_body(response) as body:
        for _ in range(10):
            await anext(body.chunks)
        asked = made[0].asked
        await blocked()
        assert made[0].asked == asked < 20
    assert made[0].stopped
    assert later.ends == ["ConnectionDone"]


async def test_a_pull_producer_that_writes_nothing_now_and_then(connect: Any) -> None:
    class Hesitant(Pull):
        def resumeProducing(self) -> None:
            if self.asked % 3:
                self.asked += 1
            else:
                super().resumeProducing()

    client = await ask(connect, Later(lambda request: Hesitant(request, 5, 100_000)))
    assert len((await client.reply()).body) == 500_000


async def test_a_push_producer_is_paused_and_resumed() -> None:
    class Push(Pull):
        def __init__(self, request: Any) -> None:
            self.request, self.paused, self.events = request, False, list[str]()
            request.registerProducer(self, True)

        def pauseProducing(self) -> None:
            self.events.append("pause")
            self.paused = True

        def resumeProducing(self) -> None:
            self.events.append("resume")
            self.paused = False

        def produce(self) -> int:
            count = 0
            while not self.paused:
                self.request.write(b"x" * 1000)
                count += 1
            return count

    made: list[Push] = []
    later = Later(lambda request: made.append(Push(request)))
    site = Site(later)
    responses: list[Any] = []

    async def respond() -> None:
        responses.append(await site.respond(Request("GET", "/x")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond)
        await blocked()
        push = made[0]
        count = push.produce()
        assert HIGH_WATER < count * 1000 <= HIGH_WATER + 1000
    async with start_body(responses[0]) as body:
        for _ in range(count):
            await anext(body.chunks)
        assert push.events == ["pause"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, body.chunks)
            await blocked()
            assert push.events == ["pause", "resume"]
            push.produce()
            assert push.events == ["pause", "resume", "pause"]


async def test_a_client_that_falls_behind_one_who_only_writes(autojump_clock: Any) -> None:
    later = Later(lambda request: request.write(b""))
    response = await Site(later).respond(Request("GET", "/x"))
    with pytest.raises(ClientDisconnected, match="reads more slowly than the script writes"):
        async with start_body(response):
            for _ in range(100):
                later.requests[0].write(b"x" * 1_000_000)
                await trio.sleep(0.1)
    assert later.ends == ["ConnectionDone"]


async def test_a_failure_before_and_after_something_was_written(
    connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from twisted.python.failure import Failure

    for written in (b"", b"some"):
        later = Later()
        client = await ask(connect, later)
        if written:
            later.requests[0].write(written)
            await blocked()
        try:
            raise ValueError(f"mine {written!r}")
        except ValueError:
            later.requests[0].processingFailed(Failure())
        if written:
            with pytest.raises(CutOff) as caught:
                await client.reply()
            assert caught.value.reply.body.startswith(written)
        else:
            reply = await client.reply()
            assert (reply.status, b"ValueError: mine" in reply.body) == (500, True)
        assert f"ValueError: mine {written!r}" in caplog.text
        assert later.ends == ["finished"]


async def test_a_producer_that_raises(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Pull):
        def resumeProducing(self) -> None:
            raise ValueError("no more")

    client = await ask(connect, Later(lambda request: Broken(request, 1, 1)))
    assert (await client.reply()).status == 500
    assert "ValueError: no more" in caplog.text


async def test_a_deferred_that_fires_later(connect: Any) -> None:
    deferred: Deferred[bytes] = Deferred()

    def begin(request: Any) -> None:
        deferred.addCallback(request.write)
        deferred.addCallback(lambda result: request.finish())

    client = await ask(connect, Later(begin))
    deferred.callback(b"fired")
    assert (await client.reply()).body == b"fired"


async def test_the_connection_is_lost_by_the_resource(connect: Any) -> None:
    later = Later()
    client = await ask(connect, later)
    later.requests[0].transport.loseConnection()
    with pytest.raises(CutOff):
        await client.reply()
    later = Later()
    client = await ask(connect, later)
    later.requests[0].write(b"this much")
    later.requests[0].transport.loseConnection()
    assert (await client.reply()).body == b"this much"


async def test_an_edit_while_an_answer_waits(site: TwistedSite, nursery: Any) -> None:
    from rpyserve.testing import AsyncClient

    text = """cache()
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
waiting = registry.setdefault("waiting", [])
class Page(Resource):
    def render_GET(self, request):
        if b"now" in request.args:
            return b"new"
        waiting.append(request)
        return NOT_DONE_YET
resource = Page()
"""
    site.write("a.rpy", text)
    answers: list[str] = []
    async with AsyncClient(str(site.root)) as client:

        async def get() -> None:
            answers.append((await client.get("/a")).text)

        nursery.start_soon(get)
        await blocked()
        site.write("a.rpy", text.replace('b"new"', 'b"newer"'))
        assert (await client.get("/a?now=1")).text == "newer"
        (request,) = client.registry["waiting"]
        request.write(b"old")
        request.finish()
        await blocked()
    assert answers == ["old"]
