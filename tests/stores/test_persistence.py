"""Sessions and the registry in a store, for one process and for several."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import (
    Directory,
    HTTPError,
    Redirect,
    Registry,
    Request,
    Resource,
    SessionEnd,
    Site,
    WebSocket,
    WebSocketResource,
)
from rpyserve.resources.resource import as_resource
from rpyserve.stores.codec import key_of
from rpyserve.stores.sqlite import SQLiteStore
from rpyserve.stores.store import REGISTRY, Ending, Unavailable
from tests.resources.test_websocket import Peer
from tests.support.http_client import connect_to
from tests.support.in_process import Visitor
from tests.support.stored import SharedRecords, SharedStore, running_site


def counter(request: Request) -> str:
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


def reader(request: Request) -> str:
    return str(request.getSession().get("n", 0))


def or_logout(page: Callable[[Request], str]) -> Callable[[Request], str]:
    """What answers by *page*, and at ``/logout`` ends the session."""

    def answer(request: Request) -> str:
        if request.path == "/logout":
            request.getSession().expire()
            return "Bye"
        return page(request)

    return answer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def like(visitor: Visitor, site: Site) -> Visitor:
    """The same visitor at another site."""
    other = Visitor(site)
    other.cookies = visitor.cookies
    return other


async def killed_copy(path: Path, root: Any, visitor: Visitor, **options: Any) -> list[str]:
    """What the visitor gets twice from a process that begins with the file as it is now."""
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    async with running_site(root, copy, **options) as site:
        again = Visitor(site)
        again.cookies = dict(visitor.cookies)
        return [(await again.get("/")).text for _ in range(2)]


def failing(store: SQLiteStore) -> Callable[[bool], None]:
    """What makes the file one that cannot be written, and back."""
    return lambda fails: store._file.execute(f"pragma query_only = {int(fails)}")  # type: ignore


# For one process


async def test_a_session_goes_on_after_a_restart(path: Path, autojump_clock: Any) -> None:
    visits, cookies = [], {}
    for _ in range(3):
        async with running_site(counter, path) as site:
            visitor = Visitor(site)
            visitor.cookies = cookies
            visits += [(await visitor.get("/")).text for _ in range(2)]
            assert len(site.sessions) == 1
        assert site.sessions.statistics().ended[SessionEnd.STOPPED] == 0
    assert visits == ["1", "2", "3", "4", "5", "6"]


async def test_it_is_stored_before_the_answer(path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, path) as site:
        visitor = Visitor(site)
        await visitor.get("/")
        assert await killed_copy(path, counter, visitor) == ["2", "3"]


@pytest.mark.parametrize("raised", [Redirect("/there"), HTTPError(404), HTTPError(500), KeyError()])
async def test_whatever_the_answer_is(path: Path, raised: Exception, autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        counter(request)
        raise raised

    async with running_site(page, path) as site:
        visitor = Visitor(site)
        assert (await visitor.get("/")).status >= 302
        assert await killed_copy(path, counter, visitor) == ["2", "3"]


async def test_no_id_is_in_the_file(path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, path) as site:
        visitors = [Visitor(site) for _ in range(50)]
        for visitor in visitors:
            await visitor.get("/")
        data = path.read_bytes() + Path(f"{path}-wal").read_bytes()
    data += path.read_bytes()
    for visitor in visitors:
        [uid] = visitor.cookies.values()
        assert uid.encode() not in data and key_of(uid) in data


async def test_reading_costs_no_write(path: Path, autojump_clock: Any) -> None:
    async with running_site(reader, path) as site:
        visitor = Visitor(site)
        await visitor.get("/")
        statements: list[str] = []
        site.persistence.store._file.set_trace_callback(statements.append)  # type: ignore
        for _ in range(20):
            await visitor.get("/")
        assert statements == []


async def test_a_page_without_a_session_costs_nothing(path: Path, autojump_clock: Any) -> None:
    async with running_site(lambda request: "Hello", path) as site:
        visitor = Visitor(site)
        visitor.cookies["rpyserve_8080"] = "x" * 32
        statements: list[str] = []
        site.persistence.store._file.set_trace_callback(statements.append)  # type: ignore
        await visitor.get("/")
        assert statements == []


async def test_a_function_for_one_request_goes_with_it(path: Path, autojump_clock: Any) -> None:
    made: list[weakref.ref[Any]] = []

    class Pages(Resource):
        def getChild(self, path: str, request: Request) -> Resource:
            def page(request: Request) -> str:
                return counter(request)

            made.append(weakref.ref(page))
            return as_resource(page)

    async with running_site(Pages(), path) as site:
        site.root.isLeaf = False
        assert (await Visitor(site).get("/a")).text == "1"
        gc.collect()
        assert [function() for function in made] == [None]


async def test_an_unknown_cookie_gets_a_session_of_its_own(path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, path) as site:
        visitor = Visitor(site)
        visitor.cookies["rpyserve_8080"] = "guessed"
        assert (await visitor.get("/")).text == "1"
        assert visitor.cookies["rpyserve_8080"] != "guessed"


async def test_a_new_id_is_stored_with_its_answer(path: Path, autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        if request.path == "/login":
            request.getSession().regenerate()
        return counter(request)

    async with running_site(page, path) as site:
        visitor = Visitor(site)
        await visitor.get("/")
        before = dict(visitor.cookies)
        await visitor.get("/login")
        assert visitor.cookies != before
    async with running_site(page, path) as site:
        assert (await like(visitor, site).get("/")).text == "3"
        thief = Visitor(site)
        thief.cookies = before
        assert (await thief.get("/")).text == "1"


async def test_the_old_id_is_dead_at_once(path: Path, autojump_clock: Any) -> None:
    """Also while the request that has changed it is still under way."""
    changed, go_on = trio.Event(), trio.Event()

    async def page(request: Request) -> str:
        if request.path == "/login":
            request.getSession().regenerate()
            changed.set()
            await go_on.wait()
        return counter(request)

    async with running_site(page, path) as site, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 60
        visitor = Visitor(site)
        await visitor.get("/")
        thief = Visitor(site)
        thief.cookies = dict(visitor.cookies)
        nursery.start_soon(visitor.get, "/login")
        await changed.wait()
        assert (await thief.get("/")).text == "1"
        go_on.set()


# Ends


ENDED: list[str] = []


def note_end(name: str) -> None:
    ENDED.append(name)


@pytest.fixture(autouse=True)
def _none_ended() -> None:
    ENDED.clear()


def noting(request: Request) -> str:
    session = request.getSession()
    if session.new:
        session.notifyOnExpire(functools.partial(note_end, request.path))
    return counter(request)


async def test_a_session_that_nobody_has_asked_for_ends_in_time(
    path: Path, autojump_clock: Any
) -> None:
    async with running_site(noting, path, sessionTimeout=10) as site:
        visitor = Visitor(site)
        await visitor.get("/a")
        await trio.sleep(4)
        await visitor.get("/b")
    async with running_site(noting, path, sessionTimeout=10) as site:
        await trio.sleep(9.9)
        assert ENDED == [] and len(site.sessions) == 0
        await trio.sleep(1.4)
        assert ENDED == ["/a"]
        assert (await like(visitor, site).get("/c")).text == "1"
        assert site.sessions.statistics().ended[SessionEnd.IDLE] == 1


async def test_one_that_was_due_while_the_server_was_away_ends_at_once(
    path: Path, autojump_clock: Any
) -> None:
    async with running_site(noting, path, sessionTimeout=10) as site:
        await Visitor(site).get("/a")
    await trio.sleep(100)
    async with running_site(noting, path):
        await trio.sleep(0.1)
        assert ENDED == ["/a"]
    async with running_site(noting, path):
        await trio.sleep(100)
        assert ENDED == ["/a"]


async def test_a_loaded_one_ends_on_the_dot(path: Path, autojump_clock: Any) -> None:
    async with running_site(noting, path, sessionTimeout=10) as site:
        visitor = Visitor(site)
        await visitor.get("/a")
        await trio.sleep(9.9)
        assert ENDED == []
        await trio.sleep(0.2)
        assert ENDED == ["/a"]
        assert site.persistence.store.statistics().live == 0
    async with running_site(noting, path):
        await trio.sleep(30)
    assert ENDED == ["/a"]


async def test_visits_keep_one_alive_that_the_file_knows_of_late(
    path: Path, autojump_clock: Any
) -> None:
    async with running_site(reader, path, sessionTimeout=2) as site:
        visitor = Visitor(site)
        await visitor.get("/")
        for _ in range(30):
            await trio.sleep(0.7)
            await visitor.get("/")
        assert site.sessions.statistics().made == 1


async def test_one_that_a_script_ends_stays_ended(path: Path, autojump_clock: Any) -> None:
    async with running_site(or_logout(noting), path) as site:
        visitor = Visitor(site)
        await visitor.get("/a")
        await visitor.get("/logout")
        assert ENDED == ["/a"]
        assert await killed_copy(path, counter, visitor) == ["1", "2"]


async def test_no_more_live_than_may(path: Path, autojump_clock: Any) -> None:
    async with running_site(noting, path, maxSessions=3) as site:
        for name in "abc":
            await Visitor(site).get(f"/{name}")
            await trio.sleep(1.5)
    async with running_site(noting, path, maxSessions=3) as site:
        await Visitor(site).get("/d")
        assert ENDED == ["/a"]
        assert site.persistence.store.statistics().live == 3
        await Visitor(site).get("/e")
        assert ENDED == ["/a", "/b"]
        assert site.sessions.statistics().ended[SessionEnd.EVICTED] == 2


async def test_async_callbacks_finish_as_the_server_stops(path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, path) as site:
        visitor = Visitor(site)
        await visitor.get("/")

        async def slow() -> None:
            await trio.sleep(2)
            ENDED.append("slow")

        [session] = site.sessions
        session._callbacks = [slow]
        session.expire()
    assert ENDED == ["slow"]


# A file that cannot be written


async def test_what_cannot_be_stored_is_no_200(
    path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_site(counter, path) as site:
        visitor = Visitor(site)
        assert (await visitor.get("/")).text == "1"
        fail = failing(site.persistence.store)  # type: ignore
        fail(True)
        for _ in range(3):
            answer = await visitor.get("/")
            assert answer.status == 503 and answer.header("Retry-After") == "1"
        new = Visitor(site)
        assert (await new.get("/")).status == 503
        assert len([text for text in caplog.messages if "cannot be written" in text]) == 1
        fail(False)
        assert (await visitor.get("/")).text == "5"
        assert await killed_copy(path, counter, visitor) == ["6", "7"]


async def test_what_could_not_be_stored_is_stored_later(path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, path) as site:
        visitor = Visitor(site)
        await visitor.get("/")
        fail = failing(site.persistence.store)  # type: ignore
        fail(True)
        await visitor.get("/")
        new = Visitor(site)
        await new.get("/")
        fail(False)
        await trio.sleep(1)
        assert await killed_copy(path, reader, visitor) == ["2", "2"]
        assert await killed_copy(path, reader, new) == ["1", "1"]


async def test_a_logout_that_cannot_be_stored_is_no_200(path: Path, autojump_clock: Any) -> None:
    async with running_site(or_logout(counter), path) as site:
        visitor = Visitor(site)
        for _ in range(3):
            await visitor.get("/")
        fail = failing(site.persistence.store)  # type: ignore
        fail(True)
        assert (await visitor.get("/logout")).status == 503
        assert (await visitor.get("/")).status == 503  # and not the session that has ended
        fail(False)
        await trio.sleep(1)
        assert await killed_copy(path, counter, visitor) == ["2", "3"]  # another one, from then on


async def test_an_end_that_cannot_be_stored_holds_up_no_other_page(
    path: Path, autojump_clock: Any
) -> None:
    def page(request: Request) -> str:
        if request.path == "/end":
            for session in list(request.site.sessions):  # type: ignore[attr-defined]
                if "n" not in session:
                    session.expire()
            return "ended"
        if request.path == "/seven":
            request.getSession()["n"] = 7
        return reader(request) if request.path in ("/read", "/seven") else "page"

    async with running_site(page, path) as site:
        one, two, three = Visitor(site), Visitor(site), Visitor(site)
        await one.get("/read")
        await three.get("/seven")
        fail = failing(site.persistence.store)  # type: ignore
        fail(True)
        assert (await two.get("/end")).status == 503
        assert (await two.get("/")).text == "page"
        assert (await three.get("/read")).text == "7"
        fail(False)
        assert (await two.get("/")).text == "page"
        await trio.sleep(1)
        assert await killed_copy(path, counter, one) == ["1", "2"]


async def test_a_session_and_the_registry_are_stored_both_or_none(
    path: Path, autojump_clock: Any
) -> None:
    def page(request: Request) -> str:
        registry = request.site.registry
        registry["all"] = registry.get("all", 0) + 1
        if request.path == "/large":
            registry["large"] = "x" * 1_000_000
        return f"{counter(request)} {registry['all']}"

    async with running_site(page, path) as site:
        visitor = Visitor(site)
        assert (await visitor.get("/")).text == "1 1"
        statements: list[str] = []
        file = site.persistence.store._file  # type: ignore
        file.set_trace_callback(statements.append)
        await visitor.get("/")
        assert [each for each in statements if each.lower() in ("begin immediate", "commit")] == [
            "begin immediate",
            "commit",
        ]
        file.execute("pragma max_page_count = 20")
        assert (await visitor.get("/large")).status == 503
        assert await killed_copy(path, page, visitor) == ["3 3", "4 4"]
        file.execute("pragma max_page_count = 100000")
        await trio.sleep(1)
        assert await killed_copy(path, page, visitor) == ["4 4", "5 5"]


# Streams


async def test_what_a_stream_does_before_its_head_is_stored_first(
    path: Path, autojump_clock: Any
) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        yield counter(request)
        copied.append(await killed_copy(path, reader, visitor))
        yield "."

    copied: list[Any] = []
    async with running_site(page, path) as site:
        visitor = await _visitor_with_session(site)
        await visitor.get("/")
        assert copied == [["2", "2"]]


async def _visitor_with_session(site: Site) -> Visitor:
    visitor = Visitor(site)
    root, site.root = site.root, Site(counter).root
    await visitor.get("/")
    site.root = root
    return visitor


async def test_what_a_stream_does_later_is_stored_at_its_end(
    path: Path, autojump_clock: Any
) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        session = request.getSession()
        yield "head"
        session["n"] = 7
        yield "tail"

    async with running_site(page, path) as site:
        visitor = Visitor(site)
        assert (await visitor.get("/")).text == "headtail"
        assert await killed_copy(path, reader, visitor) == ["7", "7"]


async def test_a_long_stream_is_stored_meanwhile(path: Path, autojump_clock: Any) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        session = request.getSession()
        yield "head"
        session["n"] = 7
        await trio.sleep(1)
        copied.append(await killed_copy(path, reader, visitor))
        async with request.session() as session:
            session["n"] = 8
        copied.append(await killed_copy(path, reader, visitor))
        yield "tail"

    copied: list[Any] = []
    async with running_site(page, path) as site:
        visitor = await _visitor_with_session(site)
        await visitor.get("/")
        assert copied == [["7", "7"], ["8", "8"]]


async def test_a_stream_whose_session_cannot_be_stored_is_no_200(
    path: Path, autojump_clock: Any
) -> None:
    closed = []

    async def page(request: Request) -> AsyncIterator[str]:
        try:
            yield counter(request)
            yield "more"
        finally:
            closed.append(True)

    async with running_site(page, path) as site:
        visitor = await _visitor_with_session(site)
        failing(site.persistence.store)(True)  # type: ignore
        answer = await visitor.get("/")
        assert answer.status == 503 and "more" not in answer.text and closed == [True]
        failing(site.persistence.store)(False)  # type: ignore


async def test_without_a_store_a_session_can_be_held_as_well() -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        yield "head"
        async with request.session() as session:
            session["n"] = 7
            assert session is request.getSession()
        async with request.site.registry_lease() as registry:  # type: ignore[attr-defined]
            registry["n"] = 8

    site = Site(page)
    async with site.running():
        await Visitor(site).get("/")
        [session] = site.sessions
        assert session["n"] == 7 and site.registry["n"] == 8


# The registry


def board(request: Request) -> str:
    notes = request.site.registry.setdefault("notes", [])
    if request.path == "/add":
        notes.append("x")
    return str(len(notes))


async def test_the_registry_goes_on_after_a_restart(path: Path, autojump_clock: Any) -> None:
    async with running_site(board, path) as site:
        assert [(await Visitor(site).get("/add")).text for _ in range(3)] == ["1", "2", "3"]
        assert await killed_copy(path, board, Visitor(site)) == ["3", "3"]
    async with running_site(board, path) as site:
        assert isinstance(site.registry, Registry)
        assert (await Visitor(site).get("/add")).text == "4"
        assert type(site.registry) is Registry


async def test_the_registry_may_be_used_before_it_is_loaded(
    path: Path, autojump_clock: Any
) -> None:
    async with running_site(board, path) as site:
        await Visitor(site).get("/add")
    for look in (
        lambda registry: "notes" in registry,
        lambda registry: len(registry) == 1,
        lambda registry: list(registry) == ["notes"],
        lambda registry: registry.get("notes") == ["x"],
        lambda registry: repr(registry) == "<Registry, 1 values>",
        lambda registry: registry.pop("notes") == ["x"],
    ):
        async with running_site(board, path) as site:
            assert look(site.registry)
            site.registry["notes"] = ["x"]


async def test_a_task_that_changes_the_registry(path: Path, autojump_clock: Any) -> None:
    async with running_site(board, path) as site:
        async with site.registry_lease() as registry:
            registry["notes"] = ["from a task"]
        assert await killed_copy(path, board, Visitor(site)) == ["1", "1"]
        registry["notes"].append("when it stops")
    async with running_site(board, path) as site:
        assert (await Visitor(site).get("/")).text == "2"


async def test_the_registry_that_cannot_be_stored_is_no_200(
    path: Path, autojump_clock: Any
) -> None:
    async with running_site(board, path) as site:
        await Visitor(site).get("/add")
        fail = failing(site.persistence.store)  # type: ignore
        fail(True)
        assert (await Visitor(site).get("/add")).status == 503
        assert (await Visitor(site).get("/")).status == 503
        fail(False)
        assert (await Visitor(site).get("/")).text == "2"


# What a file cannot keep


async def test_what_cannot_be_kept_lives_on_and_is_named_once(
    path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def page(request: Request) -> str:
        session = request.getSession()
        session.setdefault("job", lambda: "done")
        session.notifyOnExpire(lambda: None)
        return f"{counter(request)} {session['job']()}"

    async with running_site(page, path) as site:
        visitor = Visitor(site)
        assert [(await visitor.get("/")).text for _ in range(3)] == ["1 done", "2 done", "3 done"]
        assert len([text for text in caplog.messages if "session['job']" in text]) == 1
        assert len([text for text in caplog.messages if "callbacks" in text]) == 1
    async with running_site(page, path) as site:
        assert (await like(visitor, site).get("/")).text == "4 done"


# For several


@asynccontextmanager
async def workers(root: Any, number: int, **options: Any) -> AsyncIterator[Any]:
    """Several sites that share a store, and the records in it."""
    records = SharedRecords()
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(running_site(root, SharedStore(records), **options))
            for _ in range(number)
        ]
        yield records, *sites
        assert not records.owners  # everything has been given back


async def test_workers_share_sessions(autojump_clock: Any) -> None:
    async with workers(counter, 2) as (records, one, two):
        visitor = Visitor(one)
        visits = []
        for site in (one, two, two, one):
            visits.append((await like(visitor, site).get("/")).text)
        assert visits == ["1", "2", "3", "4"]
        assert not records.owners and len(one.sessions) == len(two.sessions) == 0
        assert records.calls["take_blocking"] == 0


async def ask_at_once(visitor: Visitor, sites: list[Site], path: str = "/") -> list[str]:
    seen: list[str] = []

    async def visit(site: Site) -> None:
        seen.append((await like(visitor, site).get(path)).text)

    async with trio.open_nursery() as nursery:
        for site in sites:
            nursery.start_soon(visit, site)
    return seen


async def slow_counter(request: Request) -> str:
    session = request.getSession()
    n = session.get("n", 0) + 1
    await trio.sleep(0.05)
    session["n"] = n
    return str(n)


async def test_nobody_overtakes_another_in_any_worker(autojump_clock: Any) -> None:
    async with workers(slow_counter, 4) as (_, *sites):
        visitor = Visitor(sites[0])
        await visitor.get("/")
        assert sorted(await ask_at_once(visitor, sites)) == ["2", "3", "4", "5"]


async def test_in_one_worker_they_share_the_object(autojump_clock: Any) -> None:
    """As without a store. They take it once, and the last one gives it back."""
    async with workers(counter, 2) as (records, one, _):
        visitor = Visitor(one)
        await visitor.get("/")
        records.calls.clear()
        seen = await ask_at_once(visitor, [one] * 8)
        assert sorted(map(int, seen)) == list(range(2, 10))
        assert records.calls["take"] == 1 and records.calls["give"] == 1


async def test_eight_at_once_over_all_workers(autojump_clock: Any) -> None:
    async with workers(counter, 4) as (_, *sites):
        visitor = Visitor(sites[0])
        await visitor.get("/")
        seen = await ask_at_once(visitor, sites * 8)
        assert sorted(map(int, seen)) == list(range(2, 34))


async def test_a_page_that_is_only_read_writes_nothing(autojump_clock: Any) -> None:
    async with workers(reader, 2) as (records, one, _):
        visitor = Visitor(one)
        await visitor.get("/")
        before = dict(records.blobs)
        records.calls.clear()
        await visitor.get("/")
        assert records.blobs == before and dict(records.calls) == {"take": 1, "give": 1}


async def test_a_page_that_only_might_use_the_session_is_no_access(autojump_clock: Any) -> None:
    async with workers(lambda request: "Hello", 1, sessionTimeout=10) as (records, site):
        visitor = Visitor(site)
        root, site.root = site.root, Site(counter).root
        await visitor.get("/")
        site.root = root
        due = dict(records.due)
        await trio.sleep(5)
        await visitor.get("/")
        assert records.calls["take"] == 1 and records.due == due


async def test_a_lost_lease_is_a_503_and_never_stored(autojump_clock: Any) -> None:
    async def page(request: Request) -> str:
        if request.path == "/stalled":
            [key] = records.owners
            records.owners[key] = b"another"
        return counter(request)

    async with workers(page, 2) as (records, one, two):
        visitor = Visitor(one)
        await visitor.get("/")
        answer = await visitor.get("/stalled")
        assert answer.status == 503 and answer.header("Retry-After") == "1"
        assert answer.header("Set-Cookie") is None and len(one.sessions) == 0
        records.owners.clear()
        assert (await like(visitor, two).get("/")).text == "2"
        assert (await visitor.get("/")).text == "3"


@pytest.mark.parametrize("step", ["take", "give", "create"])
async def test_a_store_that_is_away_is_a_503(step: str, autojump_clock: Any) -> None:
    def fail(name: str) -> None:
        if name == step:
            raise Unavailable("The store is away")

    async with workers(counter, 2) as (records, one, two):
        visitor = Visitor(one)
        if step != "create":
            await visitor.get("/")
        records.before = fail
        answer = await visitor.get("/")
        assert answer.status == 503 and answer.header("Retry-After") == "1"
        assert answer.header("Set-Cookie") is None
        records.before = lambda name: None
        records.owners.clear()  # as when the worker's lease is over
        assert (await like(visitor, two).get("/")).text == ("1" if step == "create" else "2")


async def test_a_client_that_leaves_gives_the_session_back(autojump_clock: Any) -> None:
    async def page(request: Request) -> str:
        counter(request)
        if request.path == "/slow":
            await trio.sleep(1000)
        return reader(request)

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        await visitor.get("/")

        async def leave() -> None:
            await trio.sleep(1)

        with pytest.raises(Exception):  # noqa: B017 (the client has left)
            await visitor.ask("GET", "/slow", wait_client_left=leave)
        with trio.fail_after(1):
            assert (await like(visitor, two).get("/")).text == "3"


async def test_a_request_that_is_cancelled_while_it_waits_gives_nothing_away(
    autojump_clock: Any,
) -> None:
    async with workers(slow_counter, 2) as (records, one, two), trio.open_nursery() as nursery:
        visitor = Visitor(one)
        await visitor.get("/")
        nursery.start_soon(visitor.get, "/")
        await trio.sleep(0.01)
        with trio.move_on_after(0.01):
            await like(visitor, two).get("/")
        assert (await like(visitor, two).get("/")).text == "3"
        assert not records.owners


async def test_a_new_id_in_one_worker_holds_in_all(autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        if request.path == "/login":
            request.getSession().regenerate()
        return counter(request)

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        await visitor.get("/")
        thief = Visitor(two)
        thief.cookies = dict(visitor.cookies)
        await visitor.get("/login")
        assert (await like(visitor, two).get("/")).text == "3"
        assert (await thief.get("/")).text == "1"


async def test_an_end_in_one_worker_holds_in_all(autojump_clock: Any) -> None:
    async with workers(or_logout(noting), 2) as (_, one, two):
        visitor = Visitor(one)
        await visitor.get("/a")
        old = dict(visitor.cookies)
        await like(visitor, two).get("/logout")
        assert ENDED == ["/a"]
        visitor.cookies = old
        assert (await visitor.get("/")).text == "1"


async def test_what_is_due_ends_in_one_of_them(autojump_clock: Any) -> None:
    async with workers(noting, 4, sessionTimeout=10) as (_, *sites):
        for number in range(20):
            await Visitor(sites[number % 4]).get(f"/{number}")
        await trio.sleep(9.9)
        assert ENDED == []
        await trio.sleep(0.5)
        assert sorted(ENDED) == sorted(f"/{number}" for number in range(20))


@pytest.mark.parametrize("how", ["idle", "expired"])
async def test_callbacks_that_no_store_can_keep_run_where_they_are(
    how: str, autojump_clock: Any
) -> None:
    def page(request: Request) -> str:
        session = request.getSession()
        if request.path == "/logout":
            session.expire()
            return "Bye"
        name = request.path
        session.notifyOnExpire(lambda: ENDED.append(name))
        return counter(request)

    async with workers(page, 3, sessionTimeout=10) as (_, *sites):
        visitor = Visitor(sites[0])
        for number, site in enumerate(sites):
            await like(visitor, site).get(f"/{number}")
        await like(visitor, sites[0]).get("/again")
        if how == "expired":
            await like(visitor, sites[1]).get("/logout")
        else:
            await trio.sleep(11)
        await trio.sleep(1)
        assert sorted(ENDED) == ["/0", "/1", "/2", "/again"]


async def no_endings(most: int) -> list[Ending]:
    return []


async def test_callbacks_of_a_worker_that_is_gone_are_told_as_lost(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(request: Request) -> str:
        request.getSession().notifyOnExpire(lambda: None)
        return counter(request)

    async with workers(page, 2, sessionTimeout=10) as (records, one, _):
        await Visitor(one).get("/")
        del records.inboxes[one.persistence.store.worker]
        monkeypatch.setattr(one.persistence.store, "due", no_endings)  # as it is gone
        await trio.sleep(11)
        assert [text for text in caplog.messages if "in a worker that is gone" in text]


async def test_what_no_other_worker_could_have_is_an_error_page(autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        if request.path == "/bad":
            request.getSession()["job"] = lambda: None
        return counter(request)

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        await visitor.get("/")
        answer = await visitor.get("/bad")
        assert answer.status == 500 and "session['job'] cannot be kept" in answer.text
        assert (await like(visitor, two).get("/")).text == "2"


async def test_code_that_nobody_knew_would_ask(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its session is taken while the server stands still, or not at all."""
    blocked: list[str] = []

    class Foreign(Resource):
        isLeaf = True
        _wants_session = False

        async def render_GET(self, request: Request) -> str:
            text = counter(request)
            if request.path == "/slow":
                await trio.sleep(1)
            return text

    async with workers(Foreign(), 2) as (records, one, two), trio.open_nursery() as nursery:
        visitor = Visitor(one)
        assert [(await visitor.get("/")).text for _ in range(3)] == ["1", "2", "3"]
        assert records.calls["take_blocking"] == 2
        assert len([text for text in caplog.messages if "stands still" in text]) == 1
        nursery.start_soon(like(visitor, two).get, "/slow")
        await trio.sleep(0.5)
        blocked.append((await visitor.get("/")).status)
        await trio.sleep(1)
        assert blocked == [503] and (await visitor.get("/")).text == "5"


async def test_a_stream_gives_its_session_back_with_its_head(autojump_clock: Any) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        if request.path != "/stream":
            yield counter(request)
            return
        counter(request)
        yield "head"
        await go_on.wait()
        yield "tail"

    go_on = trio.Event()
    async with workers(page, 2) as (records, one, two), trio.open_nursery() as nursery:
        visitor = await _visitor_with_session(one)
        nursery.start_soon(like(visitor, one).get, "/stream")
        await trio.sleep(1)
        assert not records.owners
        assert (await like(visitor, two).get("/")).text == "3"
        assert (await like(visitor, one).get("/")).text == "4"
        go_on.set()


async def test_what_a_stream_changes_later_is_written_if_nobody_else_has(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        session = request.getSession()
        yield "head"
        session["n"] = 7
        await trio.sleep(1)
        yield "tail"

    async with workers(page, 2) as (_, one, two), trio.open_nursery() as nursery:
        visitor = await _visitor_with_session(one)
        await visitor.get("/")
        await trio.sleep(0.1)
        two.root = Site(counter).root
        assert (await like(visitor, two).get("/")).text == "8"
        assert not [text for text in caplog.messages if "is lost" in text]
        nursery.start_soon(visitor.get, "/")
        await trio.sleep(0.5)
        assert (await like(visitor, two).get("/")).text == "9"  # 7 is only in the stream
        await trio.sleep(1)
        assert [text for text in caplog.messages if "/: what the stream has changed" in text]
        assert (await like(visitor, two).get("/")).text == "10"


async def test_a_stream_may_have_its_session_for_a_while(autojump_clock: Any) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        yield "head"
        for _ in range(3):
            async with request.session() as session:
                n = session.get("n", 0)
                await trio.sleep(0.1)
                session["n"] = n + 1
            yield "."

    async with workers(page, 2) as (records, one, two):
        visitor = await _visitor_with_session(one)
        await ask_at_once(visitor, [one, two])
        assert not records.owners
        one.root = Site(reader).root
        assert (await visitor.get("/")).text == "7"


async def test_a_script_that_does_not_use_the_registry_waits_for_nobody_who_has_it(
    tmp_path: Path, autojump_clock: Any
) -> None:
    (tmp_path / "index.rpy").write_text("def resource(request):\n    return 'page'\n")
    records = SharedRecords()
    async with running_site(Directory(tmp_path), SharedStore(records)) as site:
        records.owners[REGISTRY] = b"somebody else"
        for _ in range(2):
            assert (await Visitor(site).get("/")).text == "page"
        assert records.calls["take_blocking"] == 0
        assert isinstance(site.registry, Registry)
        assert site.persistence is not None and site.persistence.errors == 0
        records.owners.clear()


class Chat(WebSocketResource):
    async def connected(self, socket: WebSocket) -> None:
        socket.request.getSession()
        async for message in socket:
            async with socket.request.session() as session:
                session["n"] = int(message)
            await socket.send(message)


@asynccontextmanager
async def chatting(site: Site, cookies: dict[str, str]) -> AsyncIterator[Peer]:
    async with trio.open_nursery() as nursery:
        peer = Peer(connect_to(site.respond, nursery).stream)
        await peer.shake(*(f"Cookie: {name}={value}" for name, value in cookies.items()))
        yield peer
        await peer.stream.aclose()


async def test_a_websocket_stores_what_it_changes(path: Path, autojump_clock: Any) -> None:
    async with running_site(Chat(), path, sessionTimeout=10) as site:
        visitor = await _visitor_with_session(site)
        async with chatting(site, visitor.cookies) as peer:
            for number in range(20):
                await peer.say(str(number))
                await peer.next()
                await trio.sleep(1)  # its messages keep the session alive, in the file as well
            assert await killed_copy(path, reader, visitor) == ["19", "19"]


async def test_a_websocket_in_one_of_several_workers(autojump_clock: Any) -> None:
    async with workers(Chat(), 2, sessionTimeout=10) as (records, one, two):
        visitor = await _visitor_with_session(one)
        async with chatting(one, visitor.cookies) as peer:
            for number in range(20):
                await peer.say(str(number))
                await peer.next()
                assert not records.owners
                await trio.sleep(1)
            two.root = Site(counter).root
            assert (await like(visitor, two).get("/")).text == "20"
            await peer.say("100")
            await peer.next()
            assert (await like(visitor, two).get("/")).text == "101"


async def test_a_websocket_that_only_listens_keeps_the_session_alive(autojump_clock: Any) -> None:
    class Listening(WebSocketResource):
        async def connected(self, socket: WebSocket) -> None:
            socket.request.getSession()
            async for message in socket:
                await socket.send(message)

    async with workers(Listening(), 2, sessionTimeout=10) as (_, one, two):
        visitor = await _visitor_with_session(one)
        async with chatting(one, visitor.cookies) as peer:
            for _ in range(20):
                await peer.say("x")
                await peer.next()
                await trio.sleep(1)
        two.root = Site(counter).root
        assert (await like(visitor, two).get("/")).text == "2"


async def test_workers_share_the_registry(autojump_clock: Any) -> None:
    async with workers(board, 3) as (records, *sites):
        seen = [
            text for _ in range(3) for text in await ask_at_once(Visitor(sites[0]), sites, "/add")
        ]
        assert sorted(map(int, seen)) == list(range(1, 10))
        async with sites[0].registry_lease() as registry:
            registry["notes"].clear()
            with trio.move_on_after(1) as waiting:
                await Visitor(sites[1]).get("/add")
            assert waiting.cancelled_caught
        assert (await Visitor(sites[1]).get("/add")).text == "1"
        assert records.calls["take_blocking"] == 0


async def test_a_task_must_ask_for_the_registry(autojump_clock: Any) -> None:
    async with workers(board, 2) as (_, one, two):
        await Visitor(two).get("/add")
        with pytest.raises(RuntimeError, match=r"site\.registry_lease"):
            one.registry["notes"]


async def test_a_new_session_that_cannot_be_stored_holds_up_nobody_at_the_registry(
    autojump_clock: Any,
) -> None:
    def page(request: Request) -> str:
        if request.path == "/bad":
            request.getSession()["job"] = lambda: None
        return str(request.site.registry.setdefault("n", 1))  # type: ignore[attr-defined]

    async with workers(page, 2) as (_, one, two):
        assert (await Visitor(one).get("/bad")).status == 500
        with trio.fail_after(1):
            assert (await Visitor(one).get("/add")).status == 200
            assert (await Visitor(two).get("/add")).status == 200


async def test_who_leaves_while_the_one_before_writes_keeps_nothing(autojump_clock: Any) -> None:
    leaving = trio.CancelScope()

    def leave(name: str) -> None:
        if name == "write":
            leaving.cancel()

    async with workers(slow_counter, 2) as (records, one, two), trio.open_nursery() as nursery:
        visitor = Visitor(one)
        await visitor.get("/")
        records.before = leave
        nursery.start_soon(like(visitor, one).get, "/")
        await trio.sleep(0.01)
        with leaving:
            await like(visitor, one).get("/")
        await trio.sleep(0.1)
        assert records.calls["write"] == 1 and not records.owners
        with trio.fail_after(1):
            assert (await like(visitor, two).get("/")).text == "3"


async def test_what_cannot_be_stored_of_one_who_has_left_is_told(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def page(request: Request) -> str:
        if request.path == "/bad":
            request.getSession()["job"] = lambda: None
            await trio.sleep(1000)
        return counter(request)

    async def leave() -> None:
        await trio.sleep(1)

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        await visitor.get("/")
        with pytest.raises(Exception):  # noqa: B017 (the client has left)
            await visitor.ask("GET", "/bad", wait_client_left=leave)
        await trio.sleep(1)
        assert [text for text in caplog.messages if "session['job'] cannot be kept" in text]
        assert (await like(visitor, two).get("/")).text == "2"


async def test_what_cannot_be_stored_of_a_stream_is_told(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def page(request: Request) -> AsyncIterator[str]:
        session = request.getSession()
        yield "head"
        session["job"] = lambda: None

    async with workers(page, 2) as (_, one, two):
        visitor = await _visitor_with_session(one)
        await visitor.get("/")
        await trio.sleep(1)
        assert [text for text in caplog.messages if "session['job'] cannot be kept" in text]
        two.root = Site(counter).root
        assert (await like(visitor, two).get("/")).text == "2"


async def test_a_block_around_the_registry_refuses_as_documented(
    path: Path, autojump_clock: Any
) -> None:
    def fail(name: str) -> None:
        raise Unavailable("The store is away")

    async with running_site(board, path) as site:
        with pytest.raises(HTTPError) as refused:
            async with site.registry_lease() as registry:
                registry["n"] = 1
                failing(site.persistence.store)(True)  # type: ignore
        failing(site.persistence.store)(False)  # type: ignore
        assert refused.value.status == 503
    async with workers(board, 1) as (records, one):
        records.before = fail
        with pytest.raises(HTTPError) as refused:
            async with one.registry_lease():
                pass
        records.before = lambda name: None
        assert refused.value.status == 503
