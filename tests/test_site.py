"""A site built by hand, without a directory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Request, Resource, Session, Site
from rpyserve.util.exceptions import Interrupted, Interruption, ScriptInterrupted
from tests.support.in_process import Visitor, ask


class ShortSession(Session):
    sessionTimeout = 5


class Logger(Resource):
    """The expiry logger of the series."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.ended: list[tuple[str, float]] = []

    def render_GET(self, request: Request) -> str:
        session = request.getSession()
        if session.uid not in self.seen:
            self.seen.add(session.uid)
            session.notifyOnExpire(lambda: self.ended.append((session.uid, trio.current_time())))
        return session.uid


def by_hand(logger: Logger) -> Site:
    root = Resource()
    root.putChild("logme", logger)
    site = Site(root)
    site.sessionFactory = ShortSession
    return site


async def test_visits_keep_a_session_alive_and_silence_ends_it(autojump_clock: Any) -> None:
    logger = Logger()
    site = by_hand(logger)
    async with site.running():
        anna = Visitor(site)
        uids = set()
        for _ in range(30):
            uids.add((await anna.get("/logme")).text)
            await trio.sleep(2)
        assert len(uids) == 1
        assert logger.ended == []
        last = trio.current_time() - 2
        await trio.sleep(2.9)
        assert logger.ended == []
        await trio.sleep(1)
        [(uid, when)] = logger.ended
        assert uid in uids
        assert 5 <= when - last <= 5 + 1 / 64
        assert (await anna.get("/logme")).text != uid


async def test_a_script_may_set_the_factory(autojump_clock: Any) -> None:
    logger = Logger()
    site = Site(logger)

    class Quick(Session):
        sessionTimeout = 1

    def page(request: Request) -> str:
        request.site.sessionFactory = Quick
        return type(request.getSession()).__name__

    site.root.putChild("quick", page)
    async with site.running():
        assert (await ask(site, "/quick")).text == "Quick"
        assert len(site.sessions) == 1
        await trio.sleep(1.1)
        assert len(site.sessions) == 0


async def test_a_factory_in_a_subclass_of_site() -> None:
    class Mine(Site):
        sessionFactory = ShortSession

    assert (
        await ask(Mine(lambda request: type(request.getSession()).__name__), "/")
    ).text == "ShortSession"


async def test_stopping_ends_every_session_callbacks_included(autojump_clock: Any) -> None:
    said: list[str] = []

    async def goodbye() -> None:
        await trio.sleep(1)
        said.append("async")

    def page(request: Request) -> str:
        session = request.getSession()
        session.notifyOnExpire(lambda: said.append(session.ended.value))  # type: ignore[union-attr]
        session.notifyOnExpire(goodbye)
        return ""

    site = Site(page)
    async with site.running():
        await ask(site, "/")
        await ask(site, "/")
    assert Counter(said) == {"stopped": 2, "async": 2}


async def test_a_hundred_visitors_each_with_a_count_of_their_own() -> None:
    async def count(request: Request) -> str:
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        mine = session["n"]
        await trio.lowlevel.checkpoint()
        return str(mine)

    site = Site(count)
    seen: dict[int, list[str]] = {}

    async def visit(number: int) -> None:
        visitor = Visitor(site)
        seen[number] = [(await visitor.get("/")).text for _ in range(100)]

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(visit, number)
    assert len(seen) == 100
    assert all(counts == [str(n) for n in range(1, 101)] for counts in seen.values())


async def test_the_registry_is_shared_by_all_visitors() -> None:
    def note(request: Request) -> str:
        notes = request.site.registry
        notes["n"] = notes.get("n", 0) + 1
        return str(notes["n"])

    site = Site(note)
    assert [(await ask(site, "/")).text for _ in range(3)] == ["1", "2", "3"]
    assert (await ask(Site(note), "/")).text == "1"


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit(), ValueError("x"), RecursionError()])
async def test_what_a_script_raises_is_a_page(error: BaseException) -> None:
    def fails(request: Request) -> str:
        raise error

    answer = await ask(Site(fails), "/")
    assert answer.status == 500
    assert type(error).__name__ in answer.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted()])
async def test_what_is_no_scripts_business_passes(error: BaseException) -> None:
    def fails(request: Request) -> str:
        raise error

    with pytest.raises(type(error)):
        await ask(Site(fails), "/")


def interrupted_once(reason: Interruption) -> tuple[list[Request], Resource]:
    """A page that is interrupted when it is asked for first, and the requests it was asked by."""
    asked: list[Request] = []

    class Page(Resource):
        def getChild(self, name: str, request: Request) -> Resource:
            return self

        def render_GET(self, request: Request) -> str:
            asked.append(request)
            request.setHeader("X-Run", len(asked))
            session = request.getSession()
            session["runs"] = session.get("runs", 0) + 1
            if len(asked) == 1:
                raise ScriptInterrupted(reason)
            return f"{request.prepath} {session['runs']}"

        render_POST = render_GET

    return asked, Page()


async def test_a_script_that_was_saved_meanwhile_begins_again() -> None:
    asked, page = interrupted_once(Interruption.SAVED)
    visitor = Visitor(Site(page))
    answer = await visitor.get("/a/b%20c")
    assert answer.text == "['a', 'b c'] 2"
    assert answer.header("X-Run") == "2"
    assert (await visitor.get("/a")).text == "['a'] 3"  # the session of the run that was given up
    assert asked[0] is asked[1]


@pytest.mark.parametrize(
    ("method", "reason"),
    [("POST", Interruption.SAVED), ("GET", Interruption.CONSOLE), ("GET", Interruption.LEFT)],
)
async def test_else_its_visitor_gets_an_error(
    method: str, reason: Interruption, caplog: pytest.LogCaptureFixture
) -> None:
    asked, page = interrupted_once(reason)
    answer = await Visitor(Site(page)).ask(method, "/")
    assert answer.status == 503
    assert reason.value in answer.text
    assert len(asked) == 1
    assert not caplog.records


async def test_what_has_begun_something_does_not_begin_again() -> None:
    async def work() -> None:
        pass

    def page(request: Request) -> str:
        if request.field("write", ""):
            request.write("x")
        else:
            request.start_soon(work)
        raise ScriptInterrupted(Interruption.SAVED)

    site = Site(page)
    async with site.running():
        assert (await ask(site, "/?write=1")).status == 503
        assert (await ask(site, "/")).status == 503


async def test_cancellation_passes(autojump_clock: Any) -> None:
    async def slow(request: Request) -> None:
        await trio.sleep(10)

    site = Site(slow)
    with trio.move_on_after(1) as scope:
        await ask(site, "/")
    assert scope.cancelled_caught


async def test_one_resource_that_fails_leaves_the_others_alone() -> None:
    root = Resource()
    root.putChild("bad", lambda request: 1 / 0)
    root.putChild("good", lambda request: "good")
    site = Site(root)
    assert [(await ask(site, path)).status for path in ("/bad", "/good", "/bad", "/good")] == [
        500,
        200,
        500,
        200,
    ]


async def test_options_for_the_server_as_a_whole_is_no_page() -> None:
    answer = await ask(Site(Resource()), "*", "OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("allow") == "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"


async def test_closers_run_once_in_reverse() -> None:
    site = Site(lambda request: "")
    said: list[str] = []

    def first() -> None:
        said.append("first")

    site.on_close(first)
    site.on_close(first)
    site.on_close(lambda: said.append("second"))
    site.close()
    site.close()
    assert said == ["second", "first"]


async def test_the_console_says_why_a_page_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rpyserve")
    root = Resource()
    root.putChild("hello", lambda request: "hello")
    await ask(Site(root), "/hello/%0aforged")
    assert caplog.messages == ["/hello/%0Aforged: There are no pages below /hello: try /hello"]


async def test_the_console_says_one_reason_once_a_second(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level("INFO", logger="rpyserve")
    root = Resource()
    for name in ("hello", "other"):
        root.putChild(name, lambda request: "hello")
    site = Site(root)
    for number in range(100):
        await ask(site, f"/hello/x?{number}")
    await ask(site, "/other/x")
    await trio.sleep(1)
    await ask(site, "/hello/x")
    reasons = [f"There are no pages below /{name}: try /{name}" for name in ("hello", "other")]
    assert caplog.messages == [
        f"/hello/x?0: {reasons[0]}",
        f"/other/x: {reasons[1]}",
        f"/hello/x: {reasons[0]} (99 more since the last such line)",
    ]
