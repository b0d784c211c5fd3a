"""``/-/``: the stream of changes, the script for pages, and who may have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from rpyserve import Directory, Response, Site
from rpyserve.http.request import Request
from rpyserve.http.response import Stream
from rpyserve.livereload.change_feed import MAX_STREAMS, ChangeFeed
from rpyserve.livereload.changes import PageChange
from rpyserve.livereload.endpoints import HEARTBEAT, Audience, tree
from rpyserve.livereload.script_tag import SentPages
from tests.support.in_process import ask

Publish = Callable[[PageChange], int]


@pytest.fixture
def feed() -> ChangeFeed:
    return ChangeFeed()


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def site(feed: ChangeFeed, directory: Directory) -> Site:
    return Site(tree(feed, Audience(Site(directory), [(directory, "/")]), SentPages()))


@pytest.fixture
def publish(feed: ChangeFeed, directory: Directory) -> Publish:
    return lambda change: feed.publish({str(directory.path): change})


class Events:
    """A browser's end of a stream."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._waiting: list[dict[str, Any]] = []

    async def raw(self) -> str:
        return (await anext(self._chunks)).decode()

    async def next(self) -> dict[str, Any]:
        while not self._waiting:
            for block in (await self.raw()).split("\n\n")[:-1]:
                fields = dict(
                    line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")
                )
                if "data" in fields:
                    self._waiting.append({**fields, "data": json.loads(fields["data"])})
        return self._waiting.pop(0)


@asynccontextmanager
async def listening(site: Site, since: str | None = None, **headers: str) -> AsyncIterator[Events]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request("GET", "/-/events" + (f"?since={since}" if since else ""), raw)
    response = await site.respond(request)
    assert isinstance(response.body, Stream)
    async with response.body.start(response) as opened:
        assert dict(opened.response.headers)[b"Content-Type"] == b"text/event-stream"
        assert dict(opened.response.headers)[b"Cache-Control"] == b"no-store"
        yield Events(opened.chunks)
    request.close()


async def test_what_has_changed_since_the_page_was_made_comes_first(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    cursor = feed.cursor
    publish(PageChange(frozenset({"/style.css"}), data=True))
    async with listening(site, since=cursor) as events:
        assert await events.next() == {
            "retry": "500",
            "id": feed.cursor,
            "event": "hello",
            "data": {"n": 1, "urls": ["/style.css"], "all": False, "data": True},
        }


async def test_a_page_of_another_run_of_the_server_may_be_any_other(
    site: Site, feed: ChangeFeed
) -> None:
    async with listening(site, since="0123-7") as events:
        assert (await events.next())["data"] == {
            "n": 0,
            "urls": [],
            "all": True,
            "data": True,
            "lost": True,
        }


async def test_the_last_event_goes_before_since(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    cursor = feed.cursor
    publish(PageChange(frozenset({"/a.css"})))
    async with listening(site, since=cursor, last_event_id=feed.cursor) as events:
        assert (await events.next())["data"]["urls"] == []


async def test_changes_as_they_come(site: Site, feed: ChangeFeed, publish: Publish) -> None:
    async with listening(site) as events:
        await events.next()
        publish(PageChange(frozenset({"/b", "/a"})))
        assert await events.next() == {
            "id": feed.cursor,
            "event": "change",
            "data": {"n": 1, "urls": ["/a", "/b"], "all": False, "data": False},
        }


async def test_a_slow_subscriber_gets_several_as_one(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    async with listening(site) as events:
        await events.next()
        for n in range(200):
            publish(PageChange(frozenset({f"/{n % 3}"})))
            if n % 50 == 0:
                await trio.testing.wait_all_tasks_blocked()
        assert (await events.next())["data"] == {
            "n": 200,
            "urls": ["/0", "/1", "/2"],
            "all": False,
            "data": False,
        }


async def test_a_quiet_stream_gives_a_sign_of_life(site: Site, autojump_clock: object) -> None:
    async with listening(site) as events:
        await events.next()
        start = trio.current_time()
        assert (await events.raw()).startswith(":")
        assert trio.current_time() - start == pytest.approx(HEARTBEAT)


async def test_the_end(site: Site, feed: ChangeFeed) -> None:
    async with listening(site) as events:
        await events.next()
        feed.close()
        assert (await events.next())["event"] == "stop"
        with pytest.raises(StopAsyncIteration):
            await events.raw()
    async with listening(site) as events:
        assert [(await events.next())["event"], (await events.next())["event"]] == ["hello", "stop"]
    assert feed.statistics().subscribers == 0


async def test_a_browser_with_many_tabs_is_asked_to_close_streams(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    events: list[Events] = []

    async def listen(agent: str, task_status: trio.TaskStatus[Events]) -> None:
        async with listening(site, user_agent=agent) as stream:
            await stream.next()
            task_status.started(stream)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        other = await nursery.start(listen, "other")
        for _ in range(MAX_STREAMS + 1):
            events.append(await nursery.start(listen, "one"))
        for stream in events:
            assert (await stream.next())["event"] == "crowded"
        publish(PageChange(frozenset({"/a"})))
        assert [(await stream.next())["event"] for stream in (*events, other)] == ["change"] * (
            MAX_STREAMS + 2
        )
        nursery.cancel_scope.cancel()
    assert feed.statistics().subscribers == 0


async def test_a_displaced_stream_ends_without_a_word(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    async with listening(site) as events:
        await events.next()
        (subscriber,) = feed._subscribers
        subscriber.displaced = True
        publish(PageChange(frozenset({"/a"})))
        assert (await events.next())["event"] == "change"
        with pytest.raises(StopAsyncIteration):
            await events.raw()


OURS = [("Host", "localhost:8080")]


@pytest.mark.parametrize("path", ["/-/events", "/-/follow.js", "/-/sent"])
@pytest.mark.parametrize(
    "fields",
    [
        [("Origin", "http://evil.example")],
        [("Origin", "null")],
        [("Origin", "http://localhost:8081")],
        [("Origin", "http://127.0.0.1:8080")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://localhost:8080")],
    ],
)
async def test_not_for_pages_of_others(
    site: Site, path: str, fields: list[tuple[str, str]]
) -> None:
    answer = await ask(site, path, headers=OURS + fields)
    assert answer.status == 403
    assert not any(name.lower().startswith("access-control") for name, _ in answer.headers)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("Origin", "http://localhost:8080")],
        [("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none")],
    ],
)
async def test_for_pages_of_this_server(
    site: Site, feed: ChangeFeed, fields: list[tuple[str, str]]
) -> None:
    feed.close()
    assert (await ask(site, "/-/events", headers=OURS + fields)).status == 200
    script = await ask(site, "/-/follow.js", headers=OURS + fields)
    assert (script.status, script.header("content-type")) == (200, "text/javascript; charset=utf-8")
    assert (script.header("cache-control"), script.header("cross-origin-resource-policy")) == (
        "no-cache",
        "same-origin",
    )
    again = await ask(
        site, "/-/follow.js", headers=[*OURS, ("If-None-Match", script.header("etag") or "")]
    )
    assert again.status == 304


async def test_a_page_is_given_to_its_script_once(directory: Directory, feed: ChangeFeed) -> None:
    sent = SentPages()
    site = Site(tree(feed, Audience(Site(directory), [(directory, "/")]), sent))
    content = b"<script></script>"
    name = sent.keep(Response(content, 201, {"Content-Type": "text/html"}), content)
    page = await ask(site, f"/-/sent?name={name}", headers=OURS)
    assert (page.status, page.body, page.header("content-type")) == (200, content, "text/html")
    assert page.header("cache-control") == "no-store"
    for target in (f"/-/sent?name={name}", "/-/sent?name=other", "/-/sent"):
        assert (await ask(site, target, headers=OURS)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/-/events", "/-/follow.js", "/-/sent"])
async def test_only_to_be_read(site: Site, path: str, method: str) -> None:
    for asked, status in ((method, 405), ("OPTIONS", 204)):
        answer = await ask(site, path, asked)
        assert (answer.status, answer.header("allow")) == (status, "GET, HEAD, OPTIONS")


async def test_head_opens_no_stream(site: Site, feed: ChangeFeed) -> None:
    answer = await ask(site, "/-/events", "HEAD")
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")


@pytest.mark.parametrize(
    "path", ["/-/", "/-/other", "/-/events/", "/-/events/x", "/-/follow.js/x", "/-//events"]
)
async def test_there_is_nothing_else(
    site: Site, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await ask(site, path)).status == 404
    assert not caplog.records
