"""What guards, virtual hosts and parts of a tree hide is not told by what is at ``/-/`` either."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import (
    BasicAuth,
    Directory,
    HTTPError,
    NameVirtualHost,
    Redirect,
    Request,
    Resource,
    Site,
    cors,
)
from rpyserve.http.response import Stream
from rpyserve.livereload.live_reload import LiveReload
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.resources.resource import Wrapper
from tests.support.in_process import Answer, read

ADA = "Basic " + base64.b64encode(b"ada:lovelace").decode()
GUESS = "Basic " + base64.b64encode(b"ada:guess").decode()
USERS = {"ada": "lovelace"}

Headers = dict[str, str]


class Play:
    """A site with live reload, its author, and its visitors."""

    def __init__(self, root: Any) -> None:
        self.live_reload = LiveReload(Site(root))
        self.respond = self.live_reload.wrap(self.live_reload._site.respond)
        self.start = self.live_reload.feed.cursor

    def save(self, *paths: Path) -> None:
        self.live_reload._on_batch(FileChanges({str(path): 0.0 for path in paths}))

    def request(self, target: str, headers: Headers) -> Request:
        fields = {"Host": "localhost:8080", **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        return Request("GET", target, raw)

    async def get(self, target: str, **headers: str) -> Answer:
        request = self.request(target, {k.replace("_", "-"): v for k, v in headers.items()})
        try:
            return await read(await self.respond(request))
        finally:
            request.close()

    @asynccontextmanager
    async def listening(
        self, headers: Headers, page: str = "/", target: str = "/-/events"
    ) -> AsyncIterator[Callable[[], Any]]:
        """What gives the next event."""
        request = self.request(f"{target}?since={self.start}&page={page}", headers)
        response = await self.respond(request)
        assert isinstance(response.body, Stream), response.status
        async with response.body.start(response) as opened:

            async def next_event() -> dict[str, Any] | None:
                """None is a sign of life."""
                text = (await anext(opened.chunks)).decode()
                data = [line for line in text.splitlines() if line.startswith("data: ")]
                return json.loads(data[0].removeprefix("data: ")) if data else None

            yield next_event
        request.close()

    async def told(self, headers: Headers | None = None, **more: str) -> dict[str, Any]:
        """What a visitor is told of everything that has been saved so far."""
        async with self.listening(headers or {}, **more) as next_event:
            told = await next_event()
        assert told is not None
        return {"urls": told["urls"], "all": told["all"], "data": told["data"]}


NOTHING = {"urls": [], "all": False, "data": False}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one"
    path.mkdir()
    return path.resolve()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two"
    path.mkdir()
    return path.resolve()


async def test_without_guards_everybody_is_told_everything(one: Path, two: Path) -> None:
    root = Resource()
    root.putChild("one", Directory(one))
    root.putChild("two", cors(Directory(two)))
    play = Play(root)
    play.save(one / "a.css", two / "sub" / "b.rpy")
    play.save(two / "words.py", one / "site.db")
    urls = ["*", "/one/a.css", "/two/sub/b.rpy"]
    assert await play.told() == {"urls": urls, "all": True, "data": True}


async def test_a_guard_around_everything(one: Path) -> None:
    play = Play(BasicAuth(Directory(one), USERS, realm="All"))
    play.save(one / "secret-plans" / "merger.rpy")
    for target in ("/-/events", "/-/follow.js", "/-/", "/-/later"):
        for headers in ({}, {"Authorization": GUESS}):
            answer = await play.get(target, **headers)
            assert answer.status == 401 and "merger" not in answer.text, target
            assert answer.header("www-authenticate") == 'Basic realm="All", charset="UTF-8"'
    assert (await play.told({"Authorization": ADA}))["urls"] == ["/secret-plans/merger.rpy"]
    assert (await play.get("/-/follow.js", Authorization=ADA)).status == 200
    assert (await play.get("/-/later", Authorization=ADA)).status == 404


async def test_a_page_of_another_origin_is_not_asked_for_a_password(one: Path) -> None:
    play = Play(BasicAuth(Directory(one), USERS))
    answer = await play.get("/-/events", Origin="http://evil.example")
    assert answer.status == 403 and answer.header("www-authenticate") is None


def tree(one: Path, guarded: Any) -> Resource:
    root = Resource()
    root.putChild("public", Directory(one))
    root.putChild("members", guarded)
    return root


async def test_a_guard_around_a_part(one: Path, two: Path) -> None:
    play = Play(tree(one, BasicAuth(Directory(two), USERS)))
    play.save(one / "a.rpy", two / "plan.rpy")
    play.save(two / "words.py", two / "site.db", two / "new")
    assert await play.told() == {"urls": ["/public/a.rpy"], "all": False, "data": False}
    assert await play.told({"Authorization": GUESS}) == await play.told()
    everything = await play.told({"Authorization": ADA})
    assert everything["all"] and everything["data"]
    assert everything["urls"] == ["*", "/members/new", "/members/plan.rpy", "/public/a.rpy"]


async def test_a_guarded_page_has_the_browser_send_its_password(one: Path, two: Path) -> None:
    play = Play(tree(one, BasicAuth(Directory(two), USERS, realm="Members")))
    for page in ("/members/plan", "/members/", "/members/a/b"):
        answer = await play.get(f"/-/events?page={page}")
        assert answer.status == 401
        assert answer.header("www-authenticate") == 'Basic realm="Members", charset="UTF-8"'
        await play.told({"Authorization": ADA}, page=page)
    for page in ("/public/a", "/", "/membersonly", "nonsense", "//", "/%25ff", "/%2500"):
        await play.told(page=page)


async def test_a_hidden_change_is_no_event_at_all(
    one: Path, two: Path, autojump_clock: object
) -> None:
    play = Play(tree(one, BasicAuth(Directory(two), USERS)))
    async with play.listening({}) as next_event:
        await next_event()
        play.save(two / "plan.rpy")
        assert await next_event() is None
        play.save(one / "a.rpy")
        told = await next_event()
    assert told is not None and told["urls"] == ["/public/a.rpy"]


async def test_who_may_no_longer_pass_is_told_nothing_more(one: Path) -> None:
    users = dict(USERS)
    play = Play(tree(one, BasicAuth(Directory(one / "x"), users)))
    async with play.listening({"Authorization": ADA}) as next_event:
        await next_event()
        play.save(one / "x" / "a.rpy")
        assert (await next_event())["urls"]
        del users["ada"]
        play.save(one / "x" / "b.rpy")
        play.save(one / "c.rpy")
        assert (await next_event())["urls"] == ["/public/c.rpy"]


async def test_a_slow_check_of_a_password_is_made_once_a_change(one: Path, two: Path) -> None:
    checks: list[str] = []

    async def check(name: str, password: str) -> bool:
        checks.append(name)
        await trio.lowlevel.checkpoint()
        return (name, password) == ("ada", "lovelace")

    play = Play(tree(one, BasicAuth(Directory(two), check)))
    play.save(*(two / f"{n}.css" for n in range(100)))
    for password in (ADA, GUESS):
        checks.clear()
        await play.told({"Authorization": password})
        assert checks == ["ada"]


async def test_each_virtual_host_is_told_of_its_own(one: Path, two: Path) -> None:
    root = NameVirtualHost()
    root.addHost("a.localhost", Directory(one))
    root.addHost("b.localhost", Directory(two))
    play = Play(root)
    play.save(one / "a.rpy", one / "words.py")
    play.save(two / "b.rpy")
    assert (await play.told({"Host": "a.localhost:8080"}))["urls"] == ["/a.rpy"]
    told = await play.told({"Host": "b.localhost:8080"})
    assert told == {"urls": ["/b.rpy"], "all": False, "data": False}
    # An authority in the target counts more than Host.
    absolute = "http://b.localhost:8080/-/events"
    assert await play.told({"Host": "a.localhost:8080"}, target=absolute) == told
    for target in ("/-/events", "/-/follow.js"):
        assert (await play.get(target, Host="c.localhost")).status == 404


async def test_one_directory_for_two_hosts(one: Path) -> None:
    root = NameVirtualHost(Directory(one))
    below = Resource()
    below.putChild("files", BasicAuth(Directory(one), USERS))
    root.addHost("b.localhost", below)
    play = Play(root)
    play.save(one / "a.rpy")
    # The tags of its pages have the same name for a file, whichever host they are of.
    for headers in ({}, {"Host": "b.localhost", "Authorization": ADA}):
        assert len((await play.told(headers))["urls"]) == 1
    assert await play.told({"Host": "b.localhost"}) == NOTHING


async def test_one_directory_in_two_places(one: Path) -> None:
    files = Directory(one)
    play = Play(tree(one / "x", BasicAuth(files, USERS)))
    play.live_reload._site.root.putChild("open", files)
    play = Play(play.live_reload._site.root)
    play.save(one / "a.rpy")
    assert len((await play.told())["urls"]) == 1


class PathGuard(Wrapper):
    """An author's own, which decides by path and by cookie."""

    def enter(self, request: Request) -> Any:
        if request.path.startswith("/hidden") and request.getCookie("key") != "good":
            raise HTTPError(403)
        return None


class Login(Wrapper):
    """An author's own, which answers itself."""

    answer: Any = None

    def enter(self, request: Request) -> Any:
        if request.getCookie("key") == "good":
            return None
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_guard_that_decides_by_path(one: Path) -> None:
    play = Play(PathGuard(Directory(one)))
    play.save(one / "hidden" / "a.rpy", one / "b.rpy")
    assert (await play.told())["urls"] == ["/b.rpy"]
    assert (await play.told({"Cookie": "key=good"}))["urls"] == ["/b.rpy", "/hidden/a.rpy"]


@pytest.mark.parametrize("answer", [Resource(), Redirect("/login"), HTTPError(403)])
async def test_a_guard_that_answers_itself(one: Path, answer: Any) -> None:
    guard = Login(Directory(one))
    guard.answer = answer
    play = Play(guard)
    play.save(one / "a.rpy")
    status = 403 if isinstance(answer, HTTPError) else 404
    for target in ("/-/events", "/-/follow.js"):
        assert (await play.get(target)).status == status
    assert (await play.told({"Cookie": "key=good"}))["urls"] == ["/a.rpy"]
    inside = Play(tree(one / "x", guard))
    inside.save(one / "a.rpy")
    assert await inside.told() == NOTHING
    assert (await inside.told({"Cookie": "key=good"}))["urls"] == ["/members/a.rpy"]


async def test_a_get_child_that_guards(one: Path) -> None:
    class Branch(Resource):
        def getChildWithDefault(self, name: str, request: Request) -> Any:
            if request.getCookie("key") != "good":
                raise HTTPError(404)
            return super().getChildWithDefault(name, request)

    branch = Branch()
    branch.putChild("files", Directory(one))
    root = Resource()
    root.putChild("staff", branch)
    play = Play(root)
    play.save(one / "a.rpy")
    assert await play.told() == NOTHING
    assert (await play.told({"Cookie": "key=good"}))["urls"] == ["/staff/files/a.rpy"]


async def test_a_guard_inside_another_knows_the_user(one: Path) -> None:
    class OnlyAda(Wrapper):
        def enter(self, request: Request) -> None:
            if request.user != "ada":
                raise HTTPError(403)

    users = {**USERS, "grace": "hopper"}
    play = Play(BasicAuth(tree(one / "x", OnlyAda(Directory(one))), users))
    play.save(one / "a.rpy", one / "b.rpy")
    grace = "Basic " + base64.b64encode(b"grace:hopper").decode()
    assert (await play.told({"Authorization": ADA}))["urls"] == [
        "/members/a.rpy",
        "/members/b.rpy",
    ]
    assert await play.told({"Authorization": grace}) == NOTHING


async def test_a_guard_that_makes_sessions_makes_one(one: Path) -> None:
    class Counting(Wrapper):
        def enter(self, request: Request) -> None:
            request.getSession()

    play = Play(Counting(Directory(one)))
    play.save(*(one / f"{n}.css" for n in range(50)))
    assert len((await play.told())["urls"]) == 50
    assert len(play.live_reload._site.sessions) == 1


async def test_a_guard_that_fails_hides_what_is_behind_it(one: Path) -> None:
    class Broken(Wrapper):
        def enter(self, request: Request) -> None:
            raise KeyError("x")

    play = Play(tree(one / "x", Broken(Directory(one))))
    play.save(one / "a.rpy")
    assert await play.told() == NOTHING


async def test_a_page_that_asks_for_a_password_has_no_tag(one: Path) -> None:
    (one / "a.rpy").write_text("resource = lambda request: '<h1>a</h1>'")
    play = Play(BasicAuth(Directory(one), USERS))
    headers = {"Sec_Fetch_Dest": "document", "Accept": "text/html"}
    refused = await play.get("/a", **headers)
    assert refused.status == 401 and "follow.js" not in refused.text
    assert "follow.js" in (await play.get("/a", Authorization=ADA, **headers)).text
    play.live_reload._site.close()
