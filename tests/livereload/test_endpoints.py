"""``/-/``: the stream of changes, the script for pages, and who may have them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
import trio.lowlevel
import trio.testing

from rpyserve import Directory, Response, Site
from rpyserve.http.request import Request
from rpyserve.http.response import Stream
from rpyserve.livereload.change_feed import ChangeFeed, Showing
from rpyserve.livereload.changes import PageChange
from rpyserve.livereload.endpoints import (
    HEARTBEAT,
    MAX_REPORT,
    MAX_REPORTS,
    MAX_TABS,
    REPEAT_INTERVAL,
    REPORT_PERIOD,
    YEAR,
    Audience,
    BrowserErrors,
    errors_script,
    tree,
)
from rpyserve.livereload.script_tag import SentPages
from rpyserve.livereload.write_loops import RequestSpan
from tests.support.in_process import ask

Publish = Callable[[PageChange], Showing]


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
            "data": {"urls": ["/style.css"], "all": False, "data": True},
        }


async def test_a_page_of_another_run_of_the_server_may_be_any_other(
    site: Site, feed: ChangeFeed
) -> None:
    async with listening(site, since="0123-7") as events:
        assert (await events.next())["data"] == {
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
            "data": {"urls": ["/a", "/b"], "all": False, "data": False},
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


async def test_a_displaced_stream_says_so_and_ends(
    site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    async with listening(site) as events:
        await events.next()
        (subscriber,) = feed._subscribers
        subscriber.displaced = True
        publish(PageChange(frozenset({"/a"})))
        assert [(await events.next())["event"] for _ in range(2)] == ["change", "crowded"]
        with pytest.raises(StopAsyncIteration):
            await events.raw()


async def test_a_page_asks_once(site: Site, feed: ChangeFeed, publish: Publish) -> None:
    start = feed.cursor
    publish(PageChange(frozenset({"/a"})))
    answer = await ask(site, f"/-/events?once&since={start}")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.header("cache-control") == "no-store"
    said = json.loads(answer.text)
    assert said.pop("visitor") and said.pop("now") / 1000 == pytest.approx(time.time(), abs=60)
    assert said == {
        "cursor": feed.cursor,
        "room": True,
        "change": {"urls": ["/a"], "all": False, "data": False},
    }
    assert feed.statistics().subscribers == 0


async def test_there_may_be_no_room_for_a_stream(site: Site, feed: ChangeFeed) -> None:
    with feed.subscribed(("127.0.0.1", b"one")) as subscriber:
        while feed.has_room(("127.0.0.1", b"one"), shared=True):
            feed.occupy(("127.0.0.1", b"one"))
        assert subscriber.displaced
        for agent, room in (("one", False), ("other", True)):
            for more in ("", "&shared"):
                answer = await ask(site, f"/-/events?once{more}", headers=[("User-Agent", agent)])
                assert json.loads(answer.text)["room"] is room


async def test_whether_two_requests_are_of_one_visitor(site: Site) -> None:
    async def visitor(*headers: tuple[str, str]) -> str:
        answer = await ask(site, "/-/events?once", headers=list(headers))
        return str(json.loads(answer.text)["visitor"])

    nobody, ada = await visitor(), await visitor(("Cookie", "user=ada"))
    assert (
        nobody == await visitor(("User-Agent", "x")) != ada == await visitor(("Cookie", "user=ada"))
    )
    assert await visitor(("Authorization", "Basic x")) not in (nobody, ada)


async def test_pages_answer(site: Site, feed: ChangeFeed, publish: Publish) -> None:
    with feed.subscribed("browser", name="me", shared=True):
        publish(PageChange(frozenset({"/a"})))
    (showing,) = feed._showings
    fields = f"name=me&since={feed.cursor}&tabs=4&shown=2&loading=1&unchanged=1"
    assert (await ask(site, f"/-/events?{fields}", "POST")).status == 204
    assert (showing.shown, showing.loading) == (2, 1)
    await ask(site, f"/-/events?once&reloaded&since={feed.cursor}")
    assert showing.settled.is_set() and showing.shown == 3


@pytest.mark.parametrize("count", ["", "-1", "x", "1e9", "²", "9" * 5000])
async def test_what_pages_answer_is_not_believed_blindly(
    count: str, site: Site, feed: ChangeFeed, publish: Publish
) -> None:
    publish(PageChange(frozenset({"/a"})))
    (showing,) = feed._showings
    assert (await ask(site, f"/-/events?since={feed.cursor}&shown={count}", "POST")).status == 204
    assert showing.shown <= MAX_TABS


async def test_when_requests_ran_is_told_to_the_browser_that_made_them(
    site: Site, feed: ChangeFeed, directory: Directory
) -> None:
    request = Request("POST", "/api", [(b"user-agent", b"one")])
    span = RequestSpan(request, False, lambda: time.time() - 1)
    start = feed.cursor
    feed.publish({str(directory.path): PageChange(frozenset({"/a"}), data=True)}, (span,))

    async def by(agent: str) -> list[list[int | None]] | None:
        url, headers = f"/-/events?once&since={start}", [("User-Agent", agent)]
        told = json.loads((await ask(site, url, headers=headers)).text)["change"]
        return told.get("by")  # type: ignore[no-any-return]

    ((started, ended),) = await by("one") or []
    assert (started, ended) == (round(span.started * 1000), None)
    span.end()
    ((_, ended),) = await by("one") or []
    assert ended == round(span.ended * 1000)
    assert await by("other") is None


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


async def test_the_script_for_errors_is_kept_as_long_as_it_is_the_one_asked_for(site: Site) -> None:
    version = errors_script()[1]
    for query, kept in ((f"?{version}", f"max-age={YEAR}, immutable"), ("?old", "no-cache")):
        script = await ask(site, f"/-/errors.js{query}", headers=OURS)
        assert (script.status, script.header("cache-control")) == (200, kept)


def report(**fields: str) -> bytes:
    given = {"kind": "error", "text": "TypeError: x", "page": "/draw", "url": "/a.js", "line": "3"}
    return urlencode(given | fields).encode()


FORM = [*OURS, ("Content-Type", "application/x-www-form-urlencoded")]


@pytest.mark.parametrize(
    ("fields", "level", "line"),
    [
        ({}, "WARNING", "/draw: TypeError: x (/a.js, line 3)"),
        (
            {"url": "/draw"},
            "WARNING",
            "/draw: TypeError: x (the page as the browser got it, line 3)",
        ),
        ({"url": "", "line": "0"}, "WARNING", "/draw: TypeError: x"),
        ({"line": "3; rm"}, "WARNING", "/draw: TypeError: x"),
        (
            {"kind": "rejection"},
            "WARNING",
            "/draw: unhandled rejection: TypeError: x (/a.js, line 3)",
        ),
        ({"kind": "console.log", "text": "hi", "line": ""}, "INFO", "/draw: console.log: hi"),
        ({"kind": "console.warn", "text": "hi", "line": ""}, "WARNING", "/draw: console.warn: hi"),
        ({"text": "a\n\x1b[31mb", "line": ""}, "WARNING", r"/draw: a\n\x1b[31mb"),
        ({"page": "/a\nb", "line": ""}, "WARNING", "/a%0Ab: TypeError: x"),
        ({"text": "x" * 9999, "line": ""}, "WARNING", "/draw: " + "x" * MAX_REPORT),
    ],
)
async def test_what_goes_wrong_in_a_page_is_a_line(
    site: Site, caplog: pytest.LogCaptureFixture, fields: dict[str, str], level: str, line: str
) -> None:
    caplog.set_level("INFO")
    answer = await ask(site, "/-/browser", "POST", headers=FORM, body=report(**fields))
    assert answer.status == 204
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (level, f"In the browser, {line}")
    ]


async def test_only_what_pages_send_is_taken_for_a_report(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    body = report(kind="other")
    assert (await ask(site, "/-/browser", "POST", headers=FORM, body=body)).status == 400
    elsewhere = [("Host", "localhost:8080"), ("Origin", "http://evil.example"), FORM[-1]]
    answer = await ask(site, "/-/browser", "POST", headers=elsewhere, body=report())
    assert answer.status == 403
    assert not [r for r in caplog.records if "In the browser" in r.getMessage()]


async def test_a_loop_of_errors_is_a_few_lines(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    errors = BrowserErrors()
    for _ in range(MAX_REPORTS // 2):
        errors.report("/draw", "error", "TypeError: x")
    await trio.sleep(REPEAT_INTERVAL + 1)
    errors.report("/draw", "error", "TypeError: x")
    for n in range(3 * MAX_REPORTS):
        errors.report("/draw", "error", f"TypeError: {n}")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == [
        "In the browser, /draw: TypeError: x",
        f"In the browser, /draw: TypeError: x ({MAX_REPORTS // 2 - 1} more since the last such line)",
    ]
    assert lines[-1] == f"In the browser: more than {MAX_REPORTS} errors a minute."
    assert len(lines) == 2 + MAX_REPORTS // 2 - 1 + 1
    await trio.sleep(REPORT_PERIOD)
    errors.report("/other", "error", "Error")
    assert caplog.records[-1].getMessage() == "In the browser, /other: Error"


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


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/-/follow.js", "POST", "GET, HEAD, OPTIONS"),
        ("/-/sent", "POST", "GET, HEAD, OPTIONS"),
        ("/-/follow.js", "PUT", "GET, HEAD, OPTIONS"),
        ("/-/browser", "GET", "OPTIONS, POST"),
        ("/-/events", "PUT", "GET, HEAD, OPTIONS, POST"),
        ("/-/events", "DELETE", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_which_methods_there_are(site: Site, path: str, method: str, allowed: str) -> None:
    for asked, status in ((method, 405), ("OPTIONS", 204)):
        answer = await ask(site, path, asked)
        assert answer.status == status
        assert sorted((answer.header("allow") or "").split(", ")) == sorted(allowed.split(", "))


async def test_answers_are_taken_from_pages_of_this_server_only(site: Site) -> None:
    headers = [("Host", "localhost:8080"), ("Origin", "http://evil.example")]
    assert (await ask(site, "/-/events?shown=1", "POST", headers=headers)).status == 403


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
