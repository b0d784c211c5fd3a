"""Sessions under attack: ids that are planted, guessed or stolen, and far too many sessions."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rpyserve import NOT_DONE_YET, HTTPError, Request, Resource, Session, Site
from rpyserve.sessions.session import SessionEnd
from rpyserve.sessions.store import MOST_CHANGED_IDS
from tests.support.in_process import Answer, Visitor

NAME = "rpyserve_8080"


class Pages(Resource):
    """``/count``, ``/login``, ``/slow``, ...: what the last segment of the path names."""

    isLeaf = True

    def __init__(self) -> None:
        self.release = trio.Event()
        self.ended: list[str] = []

    def render(self, request: Request) -> Any:
        return getattr(self, request.path[1:])(request)

    def count(self, request: Request) -> str:
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    def login(self, request: Request) -> str:
        session = request.getSession()
        session.regenerate()
        session["user"] = "ada"
        return str(session.get("n"))

    def user(self, request: Request) -> str:
        return str(request.getSession().get("user"))

    async def late_session(self, request: Request) -> str:
        await self.release.wait()
        session = request.getSession()
        session.notifyOnExpire(lambda: self.ended.append("late"))
        return str(session.get("user"))

    async def late_login(self, request: Request) -> str:
        await self.release.wait()
        return self.login(request)

    async def slow(self, request: Request) -> str:
        request.getSession()
        await self.release.wait()
        return str(request.getSession().get("user"))

    def watched(self, request: Request) -> str:
        session = request.getSession()
        session.notifyOnExpire(lambda: self.ended.append(session.get("name", "?")))
        session["name"] = request.field("name")
        return session.uid

    def failing(self, request: Request) -> str:
        request.getSession().regenerate()
        raise HTTPError(403)

    async def in_a_task(self, request: Request) -> str:
        async def begin() -> None:
            request.getSession()["n"] = 7

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
        request.getSession().regenerate()
        return "done"

    def streamed(self, request: Request) -> Any:
        async def chunks() -> AsyncIterator[str]:
            request.getSession().regenerate()
            yield "one"

        return chunks()

    def late(self, request: Request) -> Any:
        async def chunks() -> AsyncIterator[str]:
            session = request.getSession()
            yield "one"
            session.regenerate()
            yield "two"

        return chunks()

    def written(self, request: Request) -> Any:
        request.getSession().regenerate()
        request.write("one")
        request.finish()
        return NOT_DONE_YET


def a_site(**options: Any) -> tuple[Site, Pages]:
    pages = Pages()
    return Site(pages, **options), pages


def id_of(visitor: Visitor) -> str:
    return visitor.cookies[NAME]


# Fixation and guessing


@pytest.mark.parametrize(
    "planted",
    ["x" * 32, "", " ", "../../etc/passwd", "a" * 5000, "%00", "None", '"', "__init__"],
)
async def test_an_id_that_was_not_issued_is_never_adopted(planted: str) -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    visitor.cookies[NAME] = planted
    await visitor.get("/count")
    assert id_of(visitor) != planted
    assert [session.uid for session in site.sessions] == [id_of(visitor)]


async def test_an_id_works_in_its_exact_letters_only() -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    uid = id_of(visitor)
    for bent in (uid.swapcase(), uid[:-1], uid + "A", uid[::-1], f"%{ord(uid[0]):02x}{uid[1:]}"):
        other = Visitor(site)
        other.cookies[NAME] = bent
        assert (await other.get("/count")).text == "1", bent


async def test_an_ended_id_is_not_adopted_again() -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    old = id_of(visitor)
    site.sessions[old].expire()
    assert (await visitor.get("/count")).text == "1"
    assert id_of(visitor) != old


async def test_neither_the_query_nor_a_form_nor_another_cookie_brings_an_id() -> None:
    site, _ = a_site()
    victim = Visitor(site)
    await victim.get("/count")
    thief = Visitor(site)
    await thief.post(f"/count?{NAME}={id_of(victim)}", f"{NAME}={id_of(victim)}")
    assert id_of(thief) != id_of(victim)
    other_port = Visitor(site)
    other_port.cookies["rpyserve_9090"] = id_of(victim)
    assert (await other_port.get("/count")).text == "1"


@pytest.mark.parametrize("header", ["{name}=planted; {name}={uid}", "{name}={uid}; {name}=planted"])
async def test_a_planted_cookie_of_the_same_name_takes_no_session_away(header: str) -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    cookie = header.format(name=NAME, uid=id_of(visitor))
    for visit in (2, 3):
        answer = await Visitor(site).get("/count", headers=[("Cookie", cookie)])
        assert (answer.text, answer.header("set-cookie")) == (str(visit), None)
    assert len(site.sessions) == 1


# A new id


async def test_a_new_id_keeps_the_object_and_what_it_holds() -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    old = id_of(visitor)
    session = site.sessions[old]
    answer = await visitor.get("/login")
    assert answer.text == "1"
    assert re.fullmatch(
        rf"{NAME}={re.escape(session.uid)}; Path=/; HttpOnly; SameSite=Lax",
        answer.header("set-cookie") or "",
    )
    assert id_of(visitor) == session.uid != old
    assert (
        site.sessions[session.uid] is session
        and old not in site.sessions
        and len(site.sessions) == 1
    )
    assert (await visitor.get("/count")).text == "2"
    assert (await visitor.get("/user")).text == "ada"


async def test_who_planted_the_old_id_has_nothing() -> None:
    site, _ = a_site()
    thief = Visitor(site)
    await thief.get("/count")
    victim = Visitor(site)
    victim.cookies.update(thief.cookies)
    await victim.get("/login")
    assert (await victim.get("/user")).text == "ada"
    assert (await thief.get("/user")).text == "None"
    assert id_of(thief) != id_of(victim)


async def test_who_is_at_work_under_the_old_id_never_learns_the_new_one(
    nursery: trio.Nursery,
) -> None:
    site, pages = a_site()
    thief, victim = Visitor(site), Visitor(site)
    await thief.get("/count")
    victim.cookies.update(thief.cookies)
    answers = []

    async def wait() -> None:
        answers.append(await thief.get("/slow"))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    await victim.get("/login")
    pages.release.set()
    await wait_all_tasks_blocked()
    assert answers[0].header("set-cookie") is None
    assert (await thief.get("/user")).text == "None"


async def under_way(nursery: trio.Nursery, visitor: Visitor, pages: list[str]) -> list[Answer]:
    """Begin requests with the visitor's cookies; returns the list that their answers come into."""
    answers: list[Answer] = []
    for page in pages:
        other = Visitor(visitor.site)  # for what a browser makes of the answers, see the test
        other.cookies.update(visitor.cookies)

        async def wait(other: Visitor = other, page: str = page) -> None:
            answers.append(await other.get(page))

        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    return answers


async def test_requests_under_way_cost_a_visitor_neither_the_session_nor_others(
    nursery: trio.Nursery,
) -> None:
    site, pages = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    answers = await under_way(nursery, visitor, ["/late_session"] * 40)
    await visitor.get("/login")
    pages.release.set()
    await wait_all_tasks_blocked()
    assert [answer.header("set-cookie") for answer in answers] == [None] * 40
    assert [session.uid for session in site.sessions] == [id_of(visitor)]
    assert pages.ended == ["late"] * 40
    assert (await visitor.get("/user")).text == "ada"


async def test_who_planted_the_old_id_has_nothing_by_a_request_under_way(
    nursery: trio.Nursery,
) -> None:
    site, pages = a_site()
    thief, victim = Visitor(site), Visitor(site)
    await thief.get("/count")
    victim.cookies.update(thief.cookies)
    answers = await under_way(nursery, thief, ["/late_session"] * 3)
    await victim.get("/login")
    pages.release.set()
    await wait_all_tasks_blocked()
    assert [(answer.text, answer.header("set-cookie")) for answer in answers] == [
        ("None", None)
    ] * 3


async def test_who_logs_in_twice_at_once_is_logged_in_by_either_answer(
    nursery: trio.Nursery,
) -> None:
    site, pages = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    answers = await under_way(nursery, visitor, ["/late_login"] * 2)
    pages.release.set()
    await wait_all_tasks_blocked()
    for answer in answers:
        visitor.cookies[NAME] = (answer.header("set-cookie") or "").partition("=")[2].split(";")[0]
        assert (await visitor.get("/user")).text == "ada"


async def test_a_request_that_began_after_the_change_gets_a_cookie() -> None:
    """It may be of a visitor whose answer with the new id was lost."""
    site, _ = a_site()
    visitor = Visitor(site)
    await visitor.get("/count")
    old = id_of(visitor)
    site.sessions[old].regenerate()
    assert (await visitor.get("/user")).text == "None"
    assert id_of(visitor) != old and id_of(visitor) in site.sessions


async def test_ids_that_were_taken_away_are_not_kept_for_ever() -> None:
    site, _ = a_site()
    session = site.sessions.make()
    first = session.uid
    for _ in range(MOST_CHANGED_IDS):
        session.regenerate()
    assert site.sessions.has_changed(first, 0) and not site.sessions.has_changed(first, 1)
    session.regenerate()
    assert not site.sessions.has_changed(first, 0)
    assert len(site.sessions._changed_ids) == MOST_CHANGED_IDS


@pytest.mark.parametrize("page", ["login", "failing", "in_a_task", "streamed", "written"])
@pytest.mark.parametrize("before", [0, 1])
async def test_the_cookie_comes_with_every_kind_of_answer(page: str, before: int) -> None:
    site, _ = a_site()
    visitor = Visitor(site)
    for _ in range(before):
        await visitor.get("/count")
    old = visitor.cookies.get(NAME)
    answer = await visitor.get("/" + page)
    (session,) = site.sessions
    assert (answer.header("set-cookie") or "").startswith(f"{NAME}={session.uid};")
    assert id_of(visitor) == session.uid != old


async def test_twice_in_one_request_the_last_id_counts() -> None:
    async def twice(request: Request) -> str:
        request.getSession().regenerate()
        request.getSession().regenerate()
        return "done"

    site = Site(twice)
    visitor = Visitor(site)
    await visitor.get("/")
    assert [session.uid for session in site.sessions] == [id_of(visitor)]


async def test_too_late_for_a_cookie_is_told(caplog: pytest.LogCaptureFixture) -> None:
    site, _ = a_site()
    assert (await Visitor(site).get("/late")).text == "onetwo"
    assert [record.getMessage() for record in caplog.records] == [
        "/late: regenerate() changed the session's id after the head of the response was sent, "
        "so the visitor has no "
        "cookie for it. Call it before the first yield or write."
    ]


async def test_outside_of_the_visitors_request_is_told(caplog: pytest.LogCaptureFixture) -> None:
    site, _ = a_site()
    visitor, other = Visitor(site), Visitor(site)
    await visitor.get("/count")
    old = id_of(visitor)
    site.sessions[old].regenerate()
    assert "outside of a request" in caplog.text
    assert (await visitor.get("/count")).text == "1"

    def anothers(request: Request) -> str:
        request.getSession()
        site.sessions[id_of(visitor)].regenerate()
        return "done"

    site.root = Site(anothers).root
    await other.get("/")
    assert caplog.text.count("outside of a request") == 2
    assert id_of(other) in site.sessions


async def test_an_ended_session_gets_no_new_id() -> None:
    site, _ = a_site()
    session = site.sessions.make()
    old = session.uid
    session.expire()
    session.regenerate()
    assert session.uid == old and len(site.sessions) == 0
    by_hand = Session(None, "mine")
    by_hand.regenerate()
    assert by_hand.uid == "mine"


async def test_under_its_new_id_it_ends_in_its_time(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    site, pages = a_site(sessionTimeout=5)
    await nursery.start(site.sessions.run)
    visitor = Visitor(site)
    await visitor.get("/watched?name=ada")
    await trio.sleep(3)
    await visitor.get("/login")
    await trio.sleep(4.9)
    assert pages.ended == []
    await trio.sleep(0.2)
    assert pages.ended == ["ada"]
    assert len(site.sessions) == 0
    nursery.cancel_scope.cancel()


# More than there is room for


async def test_the_one_idle_longest_ends_for_one_more(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site, pages = a_site(maxSessions=3)
    visitors = [Visitor(site) for _ in range(5)]
    for name, visitor in zip("abc", visitors, strict=False):
        await visitor.get(f"/watched?name={name}")
        await trio.sleep(1)
    await visitors[0].get("/count")
    await trio.sleep(1)
    await visitors[3].get("/watched?name=d")
    assert pages.ended == ["b"]
    await visitors[4].get("/count")
    assert pages.ended == ["b", "c"]
    assert len(site.sessions) == 3
    assert site.sessions.statistics().ended[SessionEnd.EVICTED] == 2
    assert (await visitors[0].get("/count")).text == "2"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "--max-sessions" in line and "3 live at once" in line and id_of(visitors[1]) not in line


async def test_a_client_without_cookies_fills_nothing(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site, _ = a_site(maxSessions=100)
    faithful = Visitor(site)
    for visit in range(1, 2001):
        await Visitor(site).get("/count")
        if visit % 50 == 0:
            assert (await faithful.get("/count")).text == str(visit // 50)
        await trio.sleep(0.05)
    assert len(site.sessions) == 100
    lines = [line for line in caplog.messages if "idle longest" in line]
    assert len(lines) == 2, "100 s: one line a minute"
    assert "more since the last such line" in lines[1]


async def test_callbacks_that_make_or_end_sessions_do_not_run_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site, _ = a_site(maxSessions=3)

    def once_more() -> None:
        site.sessions.make().notifyOnExpire(once_more)

    for _ in range(3):
        site.sessions.make().notifyOnExpire(once_more)
    for _ in range(20):
        site.sessions.make()
        assert len(site.sessions) == 3
    assert "its callback must only clean up" in caplog.text
    site, _ = a_site(maxSessions=2)
    first = site.sessions.make()
    first.notifyOnExpire(lambda: [session.expire() for session in site.sessions])
    site.sessions.make()
    assert site.sessions.make() in list(site.sessions)
    assert len(site.sessions) == 1


async def test_a_factory_that_fails_costs_nobody_their_session() -> None:
    site, _ = a_site(maxSessions=1)
    kept = site.sessions.make()
    site.sessionFactory = lambda site, uid: None  # type: ignore[assignment,return-value]
    with pytest.raises(TypeError):
        site.sessions.make()
    assert list(site.sessions) == [kept]


async def test_none_is_any_number_and_none_at_all_is_refused() -> None:
    site, _ = a_site(maxSessions=None)
    assert site.sessions.max_sessions is None
    assert a_site()[0].sessions.max_sessions == 100_000
    with pytest.raises(ValueError, match="at least 1"):
        a_site(maxSessions=0)


# No id in any log


async def test_no_line_has_a_whole_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site, _ = a_site(maxSessions=2)
    visitors = [Visitor(site) for _ in range(4)]
    seen = set()
    for visitor in visitors:
        for page in ("count", "login", "late", "failing", "in_a_task", "nonsense"):
            await visitor.get("/" + page)
            seen |= {session.uid for session in site.sessions}
            for session in site.sessions:
                logging.getLogger("rpyserve").info("%s %r %s", session, session, session.short_id)
                session.notifyOnExpire(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    for session in site.sessions:
        session.regenerate()
        seen.add(session.uid)
        session.expire()
    assert len(seen) > 8 and caplog.records
    for uid in seen:
        assert uid not in caplog.text
        assert uid[:6] in caplog.text
