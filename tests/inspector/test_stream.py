"""The stream of the inspector's pages: it says look, not too often, and it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable

import pytest
import trio
import trio.testing

from rpyserve import Resource, Site
from rpyserve.http.request import Request
from rpyserve.inspector.recorder import Recorder
from rpyserve.inspector.stream import HEARTBEAT, PAUSE, Looks
from rpyserve.livereload.change_feed import MAX_STREAMS, ChangeFeed
from tests.support.records import finished_record

Events = AsyncGenerator[str, None]


def request_for(target: str, browser: str = "a browser") -> Request:
    headers = [(b"user-agent", browser.encode())]
    return Request("GET", target, headers, client=("127.0.0.1", 1))


class Watched:
    """A site whose news there are streams of."""

    def __init__(self) -> None:
        self.recorder, self.feed = Recorder(), ChangeFeed()
        self.feed.on_change = self.recorder.tell
        self.looks = Looks(self.recorder, Site(Resource()).sessions, self.feed, "boot")

    def stream(self, browser: str = "a browser") -> Events:
        return self.looks.events(request_for("/-/events?inspect=1", browser))

    def ask(self, target: str = "/") -> None:
        """A request begins."""
        request = request_for(target)
        request._logged = not target.startswith("/-/")
        self.recorder.begin(finished_record(request, target=target))


async def event(stream: Events) -> str:
    text = await anext(stream)
    return text.partition("event: ")[2].partition("\n")[0] or text


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_it_says_look_when_there_is_news(autojump_clock: object, watched: Watched) -> None:
    stream = watched.stream()
    first = await anext(stream)
    told = json.loads(first.partition("data: ")[2])
    assert told == {"boot": "boot", "requests": 0, "ended": 0, "failed": 0}
    news: list[Callable[[], object]] = [watched.ask, lambda: watched.feed.publish({})]
    for happen in news:
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(event, stream)
            await trio.testing.wait_all_tasks_blocked()
            happen()
        assert trio.current_time() - began <= PAUSE
        await trio.sleep(1)
    await stream.aclose()


async def test_the_inspectors_own_requests_are_no_news(
    autojump_clock: object, watched: Watched
) -> None:
    stream = watched.stream()
    await event(stream)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            assert await event(stream) == ": still here\n\n"

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        watched.ask("/-/sessions")
    assert trio.current_time() - began == pytest.approx(HEARTBEAT)
    await stream.aclose()


async def test_four_looks_a_second_however_busy_the_site_is(
    autojump_clock: object, watched: Watched
) -> None:
    stream, looks = watched.stream(), 0
    async with trio.open_nursery() as nursery:

        async def be_busy() -> None:
            while True:
                watched.ask()
                await trio.sleep(0.001)

        nursery.start_soon(be_busy)
        with trio.move_on_after(10):
            while await event(stream) == "look":
                looks += 1
        nursery.cancel_scope.cancel()
    assert 35 <= looks <= 42


async def test_it_ends_with_the_server(autojump_clock: object, watched: Watched) -> None:
    stream = watched.stream()
    await event(stream)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            said = [await event(stream)]
            said += [each.partition("event: ")[2].partition("\n")[0] async for each in stream]
            assert said[-1] == "stop"

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        watched.recorder.close()
    assert trio.current_time() - began < 1
    assert watched.recorder.looking == 0


async def test_a_browser_has_only_so_many(autojump_clock: object, watched: Watched) -> None:
    streams = [watched.stream() for _ in range(MAX_STREAMS + 1)]
    another = watched.stream("another browser")
    for stream in [*streams, another]:
        await event(stream)
    assert await event(streams[0]) == "crowded"
    with pytest.raises(StopAsyncIteration):
        await anext(streams[0])
    assert watched.recorder.looking == MAX_STREAMS + 1
    for stream in [*streams, another]:
        await stream.aclose()
    assert watched.recorder.looking == 0


async def test_while_it_is_open_somebody_looks(autojump_clock: object, watched: Watched) -> None:
    stream = watched.stream()
    await event(stream)
    for _ in range(20):
        assert await event(stream) == ": still here\n\n"
        assert watched.recorder.is_watched
    await stream.aclose()
    await trio.sleep(61)
    assert not watched.recorder.is_watched
    watched.recorder.close()
