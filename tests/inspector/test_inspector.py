"""The inspector: who may see it, what an action must bring, and what it shows of sessions."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Resource, Site
from rpyserve.inspector import blocks
from rpyserve.inspector.inspector import MOST_BYTES
from rpyserve.inspector.recorder import Recorder
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.resources.resource import Resource as Root
from rpyserve.serving.run import _inspect, _with_own_pages
from tests.support.in_process import Answer, Visitor

FORM = ("Content-Type", "application/x-www-form-urlencoded")
VIEWS = ["/-/", "/-/.json", "/-/sessions", "/-/sessions.json", "/-/clock", "/-/clock.json"]
ACTIONS = ["expire", "become", "pass"]
EVIL = "<script>alert(1)</script>'\"&\u202e\x1b[2J"


class Pages(Root):
    """Counts the visits of a session."""

    isLeaf = True

    def render_GET(self, request: Any) -> str:
        if request.path.startswith("/-/"):
            return "the site's own"
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])


class Served:
    """A site with its inspector, without a socket."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.respond = _with_own_pages(
            site.respond, None, _inspect(site, Recorder(), ChangeFeed(), "a-token", dict)
        )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(Pages())
    async with site.running():
        yield site


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(Served(site))


async def handle(visitor: Visitor) -> str:
    """The handle of the session of *visitor*, who visits the site for it."""
    await visitor.get("/")
    answer = await visitor.get("/-/sessions.json")
    [found] = [each["id"] for each in json.loads(answer.body)["items"] if each["you"]]
    return found


async def token(visitor: Visitor, name: str) -> str:
    page = await visitor.get(f"/-/sessions/{name}")
    found = re.search('name=token value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


async def act(visitor: Visitor, path: str, **fields: object) -> Answer:
    headers = [("Content-Type", "application/json")]
    return await visitor.ask("POST", path, json.dumps(fields).encode(), headers)


# Who may see it


def foreign() -> list[dict[str, Any]]:
    host = ("Host", "localhost:8080")
    return [
        {"headers": [host, ("Origin", "http://evil.example")]},
        {"headers": [host, ("Origin", "https://localhost:8080")]},
        {"headers": [host, ("Origin", "http://localhost:9090")]},
        {"headers": [host, ("Origin", "null")]},
        {"headers": [host, ("Sec-Fetch-Site", "cross-site")]},
        {"headers": [host, ("Sec-Fetch-Site", "same-site")]},
        {"headers": [host, ("X-Forwarded-For", "127.0.0.1")]},
        {"headers": [host, ("Forwarded", "for=127.0.0.1")]},
    ]


@pytest.mark.parametrize("more", foreign(), ids=str)
async def test_who_may_not_see_it_gets_the_site(
    site: Site, visitor: Visitor, more: dict[str, Any]
) -> None:
    name = await handle(visitor)
    key = await token(visitor, name)
    for path in [*VIEWS, f"/-/sessions/{name}", "/-/inspect.css"]:
        assert (await visitor.get(path, **more)).text == "the site's own", path
    fields = {"token": key, "seconds": "900"}
    for action in ACTIONS:
        headers = [*more["headers"], ("Content-Type", "application/json")]
        answer = await visitor.ask(
            "POST", f"/-/sessions/{name}/{action}", json.dumps(fields).encode(), headers
        )
        assert answer.status == 405, "so says the site"
    assert len(site.sessions) == 1


async def test_another_machine_gets_the_site(site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    other = Visitor(visitor.site, "192.0.2.8")
    for path in [*VIEWS, f"/-/sessions/{name}"]:
        assert (await other.get(path)).text == "the site's own", path


async def test_what_is_not_the_inspectors_is_the_sites(visitor: Visitor) -> None:
    assert (await visitor.get("/-/nothing")).text == "the site's own"


@pytest.mark.parametrize("path", VIEWS)
async def test_the_headers(visitor: Visitor, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status == 200
    policy = answer.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Access-Control-Allow-Origin") is None


# Actions


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", [FORM], 403),
        (b"token=wrong", [FORM], 403),
        (b"token=%ff", [FORM], 403),
        (b"{}", [("Content-Type", "application/json")], 403),
        (b"token=T", [("Content-Type", "text/plain")], 415),
        (b"token=T", [], 415),
        (b"[]", [("Content-Type", "application/json")], 400),
        (b"{", [("Content-Type", "application/json")], 400),
        (b'{"token": []}', [("Content-Type", "application/json")], 400),
        (b"token=T&a=" + b"a" * MOST_BYTES, [FORM], 413),
    ],
)
async def test_a_wrong_post_does_nothing(
    site: Site,
    visitor: Visitor,
    action: str,
    body: bytes,
    headers: list[tuple[str, str]],
    status: int,
) -> None:
    name = await handle(visitor)
    body = body.replace(b"=T", b"=" + (await token(visitor, name)).encode())
    [before] = [each._last_access for each in site.sessions]
    answer = await visitor.ask("POST", f"/-/sessions/{name}/{action}", body, headers)
    assert answer.status == status, answer.text
    assert [each._last_access for each in site.sessions] == [before]
    assert answer.header("Set-Cookie") is None


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_get_of_an_action(site: Site, visitor: Visitor, action: str) -> None:
    name = await handle(visitor)
    answer = await visitor.get(f"/-/sessions/{name}/{action}?token=a")
    assert (answer.status, answer.header("Allow")) == (405, "POST")
    assert len(site.sessions) == 1


async def test_expire_by_a_form(site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    [session] = site.sessions
    called: list[int] = []
    session.notifyOnExpire(lambda: called.append(1))
    key = await token(visitor, name)
    answer = await visitor.post(f"/-/sessions/{name}/expire", f"token={key}")
    assert (answer.status, called, len(site.sessions)) == (200, [1], 0)
    assert "has ended" in answer.text
    again = await visitor.post(f"/-/sessions/{name}/expire", f"token={key}")
    assert again.status == 404


async def test_become_and_back(site: Site, visitor: Visitor) -> None:
    other = Visitor(visitor.site)
    name = await handle(visitor)
    theirs = await handle(other)
    for _ in range(3):
        await other.get("/")
    uids = [str(each.uid) for each in site.sessions]
    key = await token(visitor, name)
    answer = await act(visitor, f"/-/sessions/{theirs}/become", token=key)
    assert not any(uid in answer.text for uid in uids), "the id is in the cookie only"
    assert (await visitor.get("/")).text == "5"
    back = json.loads(answer.body)["before"]
    assert back == name
    await act(visitor, f"/-/sessions/{back}/become", token=key)
    assert (await visitor.get("/")).text == "2"


# Time


async def test_time_passes_for_one(autojump_clock: object, site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    [session] = site.sessions
    ended: list[Any] = []
    session.notifyOnExpire(lambda: ended.append(session.ended))
    key = await token(visitor, name)
    path = f"/-/sessions/{name}/pass"
    answer = json.loads((await act(visitor, path, token=key, seconds="10m")).body)
    assert 299 <= answer["left"] <= 300
    assert not ended
    await act(visitor, path, token=key, seconds="5m")
    await trio.sleep(0.1)
    assert [end.value for end in ended] == ["idle"]


async def test_time_passes_for_all(autojump_clock: object, site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    lasting, longer, *many = [site.sessions.make() for _ in range(3000)]
    lasting.sessionTimeout, longer.sessionTimeout = None, 1200
    lasting.touch(), longer.touch()
    key = await token(visitor, name)
    said = json.loads((await visitor.get("/-/clock.json?seconds=15m")).body)
    assert (said["would_end"], said["of"]) == (2999, 3001)
    assert len(site.sessions) == 3001, "that only says it"
    answer = json.loads((await act(visitor, "/-/clock/pass", token=key, seconds="15m")).body)
    assert (answer["aged"], answer["ends"]) == (3001, 2999)
    await trio.sleep(0.1)
    assert {*site.sessions} == {lasting, longer}
    assert 299 <= site.sessions.time_left(longer) <= 300
    assert {each.ended.value for each in many if each.ended} == {"idle"}


async def test_the_one_idle_longest_is_evicted_after_time_has_passed(
    autojump_clock: object, site: Site
) -> None:
    store = site.sessions
    first, second = store.make(), store.make()
    store.max_sessions = 2
    await trio.sleep(1)
    first.touch()
    await trio.sleep(1)
    second.touch()
    store.let_pass(second, 60)
    store.make()
    assert second.ended is not None
    assert first.ended is None


@pytest.mark.parametrize("seconds", ["", "0", "-1", "never", "nan", "1e999", "x", EVIL])
async def test_a_bad_duration(site: Site, visitor: Visitor, seconds: str) -> None:
    name = await handle(visitor)
    key = await token(visitor, name)
    for path in (f"/-/sessions/{name}/pass", "/-/clock/pass"):
        answer = await act(visitor, path, token=key, seconds=seconds)
        assert answer.status == 400, answer.text
    assert len(site.sessions) == 1


# Pages for people


async def test_an_empty_site_says_how_to_get_a_session(visitor: Visitor) -> None:
    for path in ("/-/", "/-/sessions"):
        page = await visitor.get(path)
        assert "No session yet." in page.text
        assert "request.getSession()" in page.text


async def test_the_page_of_sessions(autojump_clock: object, site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    site.sessions.make()["user"] = "Ada"
    site.sessions.make().expire()
    await trio.sleep(252)
    page = (await visitor.get("/-/sessions")).text
    assert "2 live sessions. Ended so far: 1 expired." in page
    assert "4 min 12 s ago" in page
    assert "10 min 48 s" in page
    assert re.search(r'<meter[^>]* max=900.0[^>]* value=648.0 aria-label="Time left">', page)
    assert page.count("yours") == 1
    row = re.search(f'<tr role=row id="session-{name}">.*?</tr>', page)
    assert row and "yours" in row[0]
    assert '<a href="/-/sessions.json">This page as JSON</a>' in page
    assert '<a href="/-/sessions" aria-current=page>Sessions <small>2</small></a>' in page


async def test_the_page_of_one_session(site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    [session] = site.sessions
    session["cart"] = [{"name": "Lamp", "price": 39.5}]

    def goodbye() -> None:
        raise AssertionError("nobody calls it")

    session.notifyOnExpire(goodbye)
    page = (await visitor.get(f"/-/sessions/{name}")).text
    assert f"<h1>Session {name}</h1>" in page
    assert "your own session" in page
    assert "<code class=key>[0]</code> <code class=value>dict of 2</code>" in page
    assert "<code class=key>[&#39;price&#39;]</code> <code class=value>39.5</code>" in page
    assert "goodbye</code>" in page
    assert "test_inspector.py, line " in page
    for action in ("Expire now", "Become this visitor", "Let time pass"):
        assert f"<button>{action}</button>" in page
    assert "Its callbacks run, and the visitor gets a new session" in page
    await trio.lowlevel.checkpoint()
    session._callbacks = None


async def test_an_ended_session_is_kept_as_text(site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    [session] = site.sessions
    session["cart"], session["password"] = ["a lamp"], "sesame in the session"
    uid = str(session.uid)
    called: list[str] = []

    def goodbye() -> None:
        called.append("goodbye")

    session.notifyOnExpire(goodbye)
    session.expire()
    assert called == ["goodbye"]
    ended = json.loads((await visitor.get(f"/-/sessions/{name}.json")).body)
    assert ended["ended"] == "expired"
    assert {each["path"] for each in ended["holds"]} >= {"session['cart']", "session['cart'][0]"}
    assert ended["callbacks"][0]["name"].endswith("goodbye")
    page = (await visitor.get(f"/-/sessions/{name}")).text
    assert "a lamp" in page
    assert "<button>" not in page
    assert not any(text in page for text in ("sesame", uid))
    listed = json.loads((await visitor.get("/-/sessions.json")).body)
    [found] = listed["ended_lately"]
    assert (found["id"], found["held"]) == (name, "n, cart, password")


async def test_ended_sessions_are_bounded(site: Site, visitor: Visitor) -> None:
    for number in range(300):
        session = site.sessions.make()
        session["n"] = number
        session.expire()
    page = json.loads((await visitor.get("/-/sessions.json")).body)
    assert len(page["ended_lately"]) == 50
    assert page["ended"]["expired"] == 300
    assert page["ended_lately"][0]["held"] == "", "too many at once to look into each"


async def test_what_an_observer_raises_ends_no_less(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ValueError("a mistake")

    site.sessions.observers.insert(0, fail)
    session, called = site.sessions.make(), []
    session.notifyOnExpire(lambda: called.append(1))
    session.expire()
    assert (called, len(site.sessions)) == ([1], 0)
    assert "a mistake" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0004, "1 ms"),
        (0.25, "250 ms"),
        (12.9, "12 s"),
        (252, "4 min 12 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90061, "1 d 1 h"),
    ],
)
def test_spans_in_words(seconds: float, words: str) -> None:
    assert blocks.span(seconds) == words


# Sessions


async def test_a_look_is_no_visit(autojump_clock: object, site: Site, visitor: Visitor) -> None:
    name = await handle(visitor)
    [session] = site.sessions
    before = session._last_access
    await trio.sleep(60)
    for path in [*VIEWS, f"/-/sessions/{name}", f"/-/sessions/{name}.json"]:
        await visitor.get(path)
    assert session._last_access == before


async def test_what_a_session_holds_is_inert(site: Site, visitor: Visitor) -> None:
    class Loud:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("the author's code was called")

        def __repr__(self) -> str:
            raise AssertionError("the author's code was called")

    name = await handle(visitor)
    [session] = site.sessions
    session[EVIL] = EVIL
    session["password"] = "sesame in the session"
    session["odd"] = [float("nan"), float("inf"), "\ud800", 10**5000]
    assert session._values is not None
    session._values["loud"] = Loud()  # the session itself would look at it
    session["self"] = loop = []
    loop.append(loop)
    session["long"] = "x" * 10_000_000
    for path in ("/-/sessions", f"/-/sessions/{name}", f"/-/sessions?q={'%3Cscript%3E'}"):
        for end in ("", ".json"):
            head, mark, query = path.partition("?")
            answer = await visitor.get(head + end + mark + query)
            assert answer.status == 200, answer.text
            assert len(answer.body) < 100_000
            assert "sesame" not in answer.text
            assert str(session.uid) not in answer.text
            if not end:
                assert "<script>alert" not in answer.text
                assert "\u202e" not in answer.text
                assert "\x1b" not in answer.text


async def test_pages_of_many_sessions_by_a_cursor(
    autojump_clock: object, site: Site, visitor: Visitor
) -> None:
    made = []
    for _ in range(120):
        made.append(site.sessions.make())
        await trio.sleep(0.3)
    for sort in ("used", "left"):
        found: list[str] = []
        after = ""
        while after is not None:
            url = f"/-/sessions.json?sort={sort}&after={after}"
            page = json.loads((await visitor.get(url)).body)
            assert (page["looked_at"], page["of"]) == (120, 120)
            found += [each["id"] for each in page["items"]]
            after = page["next"]
            await trio.sleep(1)
        ids = [str(each.uid)[:10] for each in made]
        assert found == (ids[::-1] if sort == "used" else ids)


async def test_search(site: Site, visitor: Visitor) -> None:
    made = [site.sessions.make() for _ in range(200)]
    made[17]["user"] = "Ada Lovelace"
    uid = str(made[30].uid)
    for text, wanted in (("Lovelace", made[17]), (uid[:10], made[30]), (uid, made[30])):
        page = json.loads((await visitor.get(f"/-/sessions.json?q={text}")).body)
        assert [each["id"] for each in page["items"]] == [str(wanted.uid)[:10]]


async def test_a_search_that_takes_long_says_how_far_it_has_come_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, site: Site, visitor: Visitor
) -> None:
    for number in range(500):
        site.sessions.make()["user"] = f"visitor {number}"
    monkeypatch.setattr("rpyserve.inspector.session_views.SEARCH_TIME", 0.0)
    found, begin, steps = set(), 0, 0
    while begin is not None:
        path = f"/-/sessions.json?q=visitor&limit=500&from={begin}"
        answer = json.loads((await visitor.get(path)).body)
        found |= {each["id"] for each in answer["items"]}
        assert answer["from"] == begin and answer["of"] == 500
        begin, steps = answer["goes_on"], steps + 1
    assert len(found) == 500 and steps > 5
    page = (await visitor.get("/-/sessions?q=visitor")).text
    assert "of 500 were looked at so far." in page and "Look on</a>" in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("sessions/AAAAAAAAAA", 404),
        ("sessions/A", 404),
        ("sessions/%3Cb%3E%E2%80%AE", 404),
        ("sessions?limit=0", 400),
        ("sessions?limit=many", 400),
        ("sessions?after=x", 400),
        ("sessions?after=nan~x", 400),
        ("sessions?sort=x", 400),
        ("clock?seconds=x", 400),
    ],
)
async def test_bad_questions(visitor: Visitor, path: str, status: int) -> None:
    head, mark, query = path.partition("?")
    page = await visitor.get(f"/-/{path}")
    twin = await visitor.get(f"/-/{head}.json{mark}{query}")
    assert (page.status, twin.status) == (status, status)
    assert json.loads(twin.body)["status"] == status
    assert json.loads(twin.body)["detail"] in page.text.replace("&#39;", "'")


async def test_an_ambiguous_handle(site: Site, visitor: Visitor) -> None:
    for end in "ab":
        session = site.sessions.make()
        site.sessions.drop(session)
        session._uid = "same" + end * 28
        site.sessions.add(session)
    assert (await visitor.get("/-/sessions/same")).status == 409
    assert (await visitor.get("/-/sessions/samea")).status == 200


async def test_everything_is_listed_for_programs(site: Site, visitor: Visitor) -> None:
    told = json.loads((await visitor.get("/-/.json")).body)
    assert {each["path"] for each in told["views"]} >= {"/-/.json", "/-/sessions.json"}
    assert {each["path"] for each in told["actions"]} >= {"/-/clock/pass"}
    assert told["boot"]
    assert told["sessions"]["live"] == 0


async def test_a_site_behind_a_password() -> None:
    from rpyserve import BasicAuth

    site = Site(BasicAuth(Resource(), {"ada": "x"}))
    answer = await Visitor(Served(site)).get("/-/sessions")
    assert answer.status == 401
