"""Sessions: what they keep, how long they live, how they end. No test really waits."""

from __future__ import annotations

import gc
import json
import math
import re
import sys
import tracemalloc
import weakref
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.http.request import Request
from rpyserve.sessions.expiry import TICK
from rpyserve.sessions.session import Registry, Session, SessionEnd
from rpyserve.sessions.store import SessionStore
from tests.support.executions import COUNTER, execute


class Short(Session):
    sessionTimeout = 5


def store(factory: Any = Session, timeout: float | None = None) -> SessionStore:
    site = SimpleNamespace(sessionFactory=factory)
    site.sessions = SessionStore(site, timeout, errors=ConsoleReporter())
    return site.sessions  # type: ignore[no-any-return]


@pytest.fixture
async def running(nursery: trio.Nursery) -> SessionStore:
    """A store of `Short` sessions whose timer runs; its tests ask for a mock clock, too."""
    sessions = store(Short)
    await nursery.start(sessions.run)
    return sessions


# The mapping


@pytest.mark.parametrize("keeper", [Session(None, None), Registry()])
def test_it_is_a_mapping(keeper: Session | Registry) -> None:
    assert (
        list(keeper) == list(keeper.keys()) == list(keeper.values()) == list(keeper.items()) == []
    )
    assert (
        len(keeper) == 0
        and "user" not in keeper
        and keeper.get("user") is None
        and keeper.get("user", 7) == 7
    )
    with pytest.raises(KeyError):
        keeper["user"]
    with pytest.raises(KeyError):
        del keeper["user"]
    with pytest.raises(KeyError):
        keeper.pop("user")
    assert keeper.pop("user", 7) == 7
    keeper["user"] = "ada"
    assert keeper["user"] == "ada" == keeper.get("user") and "user" in keeper
    assert keeper.setdefault("user", "bob") == "ada"
    assert keeper.setdefault("n", 1) == 1
    keeper.update(n=2, m=None)
    assert list(keeper.items()) == [("user", "ada"), ("n", 2), ("m", None)]
    assert keeper.pop("n") == 2
    del keeper["user"]
    assert dict(keeper) == {"m": None} and len(keeper) == 1
    keeper.clear()
    assert len(keeper) == 0


@pytest.mark.parametrize("make", [lambda: Session(None, None), Registry])
def test_an_empty_one_is_true_and_equal_only_to_itself(make: Any) -> None:
    one, other = make(), make()
    assert one and one == one and one != other and len({one, other}) == 2


@pytest.mark.parametrize("key", [b"user", 1, None, ("a",), Session])
def test_a_key_is_a_text(key: Any) -> None:
    with pytest.raises(TypeError, match=r'keeps values under a text, as in session\["n"\] = 1'):
        Session(None, None)[key] = 1
    assert key not in Session(None, None)


def test_what_the_next_request_would_not_know_is_refused_and_nothing_changes() -> None:
    session, script = Session(None, None), execute(COUNTER)
    session["c"] = 1
    for value in (script["Counter"](None), [script["Counter"](None)]):
        with pytest.raises(
            TypeError, match=r"session\['c'\] cannot keep an object of the class Counter"
        ):
            session["c"] = value
        with pytest.raises(TypeError, match=r"registry\['c'\] cannot keep"):
            Registry().setdefault("c", value)
    assert session["c"] == 1
    session["c"] = execute("cache()\n" + COUNTER)["Counter"](None)


# Made by hand


def test_made_by_hand_it_needs_no_clock_and_no_site() -> None:
    session = Session(None, None)
    assert (session.site, session.uid, session.new, session.ended, session.short_id) == (
        None,
        None,
        True,
        None,
        "",
    )
    assert session.sessionTimeout == 900
    assert session.touch()
    session.expire()
    assert session.ended is SessionEnd.EXPIRED
    assert not session.touch()


def test_attributes_of_the_scripts_own_can_be_set() -> None:
    session = Session(None, None)
    session.user = "ada"  # type: ignore[attr-defined]
    session.sessionTimeout = 3
    assert vars(session) == {"user": "ada", "sessionTimeout": 3}
    assert weakref.ref(session)() is session


def test_its_repr_says_its_state_and_not_its_id() -> None:
    session = Short(None, "abcdefghijkl")
    assert repr(session) == "<Short abcdef, live>"
    session.expire()
    assert repr(session) == "<Short abcdef, ended: expired>"
    assert repr(Session(None, None)) == "<Session without id, live>"


def test_cookies_are_safe_by_default_and_a_subclass_can_say_otherwise() -> None:
    assert (Session.cookieHttpOnly, Session.cookieSameSite, Session.cookiePath) == (
        True,
        "Lax",
        "/",
    )
    assert Session.cookieSecure is None and Session.cookieName is None

    class Strict(Session):
        cookieSameSite = "Strict"

    assert Strict(None, None).cookieSameSite == "Strict"


# The store


async def test_ids_are_long_safe_in_urls_and_all_different(mock_clock: Any) -> None:
    sessions = store()
    made = [sessions.make() for _ in range(100)]
    assert len({session.uid for session in made}) == 100
    for session in made:
        assert re.fullmatch(r"[\w-]{32,}", session.uid)
        assert session.short_id == session.uid[:6]


async def test_made_and_found(mock_clock: Any) -> None:
    sessions = store(Short)
    session = sessions.make()
    assert type(session) is Short and session.new and session.site is sessions.site
    assert sessions.find(session.uid) is session
    assert not session.new
    assert list(sessions) == [session] and len(sessions) == 1
    assert session.uid in sessions and sessions[session.uid] is session


async def test_an_unknown_id_is_never_adopted(mock_clock: Any) -> None:
    sessions = store()
    for uid in ("", "x", "made-up-by-a-stranger"):
        assert sessions.find(uid) is None
    assert len(sessions) == 0


async def test_a_factory_is_any_callable(mock_clock: Any) -> None:
    class Forgetful(Session):
        def __init__(self, site: Any, uid: str) -> None:
            self["greeting"] = "hello"

    for factory in (Forgetful, lambda site, uid: Forgetful(site, uid), partial(Forgetful)):
        sessions = store(factory)
        session = sessions.make()
        assert (
            session["greeting"] == "hello"
            and session.uid in sessions
            and session.site is sessions.site
        )
        session.expire()
        assert len(sessions) == 0


@pytest.mark.parametrize("wrong", [None, "session", object()])
async def test_a_factory_must_return_a_session(wrong: object, mock_clock: Any) -> None:
    with pytest.raises(TypeError, match="must return a new Session each time"):
        store(lambda site, uid: wrong).make()


async def test_a_factory_must_not_hand_out_one_session_twice(mock_clock: Any) -> None:
    one = Session(None, None)
    sessions = store(lambda site, uid: one)
    only = sessions.make()
    with pytest.raises(TypeError, match="must return a new Session each time"):
        sessions.make()
    assert list(sessions) == [only]


@pytest.mark.parametrize("wrong", ["5", math.nan, (5,)])
async def test_a_time_out_that_is_no_number_is_told(wrong: Any, mock_clock: Any) -> None:
    class Wrong(Session):
        sessionTimeout = wrong

    sessions = store(Wrong)
    with pytest.raises(TypeError, match=r"Wrong\.sessionTimeout is a number of seconds or None"):
        sessions.make()
    assert len(sessions) == 0


async def test_statistics(mock_clock: Any) -> None:
    sessions = store()
    a, b, c = (sessions.make() for _ in range(3))
    a.expire()
    sessions.end(b, SessionEnd.EVICTED)
    sessions.end(b, SessionEnd.STOPPED)
    numbers = sessions.statistics()
    assert (numbers.live, numbers.made) == (1, 3)
    assert numbers.ended == {
        SessionEnd.IDLE: 0,
        SessionEnd.EXPIRED: 1,
        SessionEnd.EVICTED: 1,
        SessionEnd.STOPPED: 0,
    }
    c.expire()
    assert numbers.live == 1 and numbers.ended[SessionEnd.EXPIRED] == 1, (
        "it is a value of its moment"
    )


async def test_memory_of_a_session(mock_clock: Any) -> None:
    sessions = store()
    for _ in range(1000):
        sessions.make()
    number = 20_000
    tracemalloc.start()
    try:
        for _ in range(number):
            sessions.make()
        each = tracemalloc.get_traced_memory()[0] / number
    finally:
        tracemalloc.stop()
    assert each < 400  # with the store's dict at an unlucky size; under 300 at a million


# How long it lives


async def test_it_ends_when_its_visitor_stays_away(
    autojump_clock: Any, running: SessionStore
) -> None:
    session = running.make()
    await trio.sleep(5 - TICK)
    assert session.ended is None
    await trio.sleep(2 * TICK)
    assert session.ended is SessionEnd.IDLE
    assert running.find(session.uid) is None and len(running) == 0


@pytest.mark.parametrize("visit", ["find", "touch"])
async def test_visiting_keeps_it_alive_for_ever(
    visit: str, autojump_clock: Any, running: SessionStore
) -> None:
    session = running.make()
    for _ in range(1000):
        await trio.sleep(4)
        assert running.find(session.uid) is session if visit == "find" else session.touch()
    await trio.sleep(4.9)
    assert session.ended is None
    await trio.sleep(0.2)
    assert session.ended is SessionEnd.IDLE


async def test_fifteen_minutes_are_the_default(autojump_clock: Any, nursery: trio.Nursery) -> None:
    sessions = store()
    await nursery.start(sessions.run)
    session = sessions.make()
    await trio.sleep(899.9)
    assert session.ended is None
    await trio.sleep(0.2)
    assert session.ended is SessionEnd.IDLE


async def test_found_when_the_clock_is_behind_it_is_over_all_the_same(mock_clock: Any) -> None:
    sessions = store(Short)
    for look in (lambda session: sessions.find(session.uid), Session.touch):
        session = sessions.make()
        said: list[SessionEnd | None] = []
        session.notifyOnExpire(
            lambda session=session, said=said: said.append(session.ended)  # type: ignore[misc]
        )
        mock_clock.jump(5)
        assert not look(session)
        assert session.ended is SessionEnd.IDLE and said == [SessionEnd.IDLE]


async def test_who_says_how_long(mock_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Same(Session):
        sessionTimeout = 900

    class Silent(Session):
        pass

    def timeout(factory: Any, site: float | None) -> float:
        sessions = store(factory, site)
        return sessions.timeout_of(sessions.make())

    assert timeout(Session, None) == 900
    assert store(Silent, 7).make().sessionTimeout == 7, "what a script reads is what holds"
    assert Session(None, None).sessionTimeout == Silent.sessionTimeout == 900
    assert timeout(Session, 7) == timeout(Silent, 7) == 7
    assert timeout(Short, 7) == 5
    assert timeout(Same, 7) == 900, "what a class says counts, also if it says the default"
    assert timeout(Session, math.inf) == math.inf

    def with_attribute(site: Any, uid: str) -> Session:
        session = Session(site, uid)
        session.sessionTimeout = 900
        return session

    assert timeout(with_attribute, 7) == 900
    monkeypatch.setattr(Session, "sessionTimeout", 3)
    assert timeout(Session, 7) == timeout(Silent, 7) == timeout(Session, None) == 3
    monkeypatch.setattr(Session, "sessionTimeout", None)
    assert timeout(Session, 7) == math.inf


@pytest.mark.parametrize("never", [None, math.inf])
async def test_never(never: float | None, autojump_clock: Any, nursery: trio.Nursery) -> None:
    class Eternal(Session):
        sessionTimeout = never

    sessions = store(Eternal)
    await nursery.start(sessions.run)
    session = sessions.make()
    await trio.sleep(86_400)
    assert sessions.find(session.uid) is session
    session.sessionTimeout = 5
    await trio.sleep(86_400)
    assert session.touch()
    await trio.sleep(6)
    assert session.ended is SessionEnd.IDLE


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_at_all(seconds: float, autojump_clock: Any, nursery: trio.Nursery) -> None:
    sessions = store(Session, seconds)
    await nursery.start(sessions.run)
    session = sessions.make()
    await trio.sleep(TICK)
    assert session.ended is SessionEnd.IDLE


@pytest.mark.parametrize("seconds", [2, 20])
async def test_a_changed_time_out_counts_from_the_next_access(
    seconds: float, autojump_clock: Any, running: SessionStore
) -> None:
    session, other = running.make(), running.make()
    for each in (session, other):
        each.sessionTimeout = seconds
    await trio.sleep(1)
    session.touch()
    await trio.sleep(seconds - 0.1)
    assert session.ended is None
    await trio.sleep(0.2)
    assert session.ended is SessionEnd.IDLE
    await trio.sleep(20)
    assert other.ended is SessionEnd.IDLE


async def test_a_changed_time_out_alone_changes_nothing(
    autojump_clock: Any, running: SessionStore
) -> None:
    shorter, longer = running.make(), running.make()
    shorter.sessionTimeout, longer.sessionTimeout = 1, 50
    await trio.sleep(4.9)
    assert shorter.ended is longer.ended is None
    await trio.sleep(0.2)
    assert shorter.ended is longer.ended is SessionEnd.IDLE


async def test_ten_thousand_end_each_once(autojump_clock: Any, running: SessionStore) -> None:
    ends: list[str] = []
    for _ in range(10_000):
        session = running.make()
        session.notifyOnExpire(partial(ends.append, session.uid))
    await trio.sleep(6)
    assert len(ends) == len(set(ends)) == 10_000
    assert running.statistics().ended[SessionEnd.IDLE] == 10_000


async def test_an_ended_session_is_free_at_once(autojump_clock: Any, running: SessionStore) -> None:
    session = running.make()
    session["big"] = value = Short(None, None)
    gone = weakref.ref(value)
    session.expire()
    del session, value
    gc.collect()
    assert gone() is None


async def test_an_ended_session_lets_go_of_its_callbacks(
    autojump_clock: Any, running: SessionStore
) -> None:
    session, held = running.make(), Short(None, None)
    session.notifyOnExpire(held.touch)
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is not None
    session.expire()
    gc.collect()
    assert gone() is None


# How it ends


async def test_callbacks_are_called_in_order_and_once(
    autojump_clock: Any, running: SessionStore
) -> None:
    said = []
    session = running.make()
    for number in range(5):
        session.notifyOnExpire(partial(said.append, number))
    await trio.sleep(100)
    session.expire()
    assert said == [0, 1, 2, 3, 4]


async def test_expire_calls_them_there_and_then(mock_clock: Any) -> None:
    sessions, said = store(), []
    session = sessions.make()
    session["user"] = "ada"
    session.notifyOnExpire(
        lambda: said.append((session.ended, session["user"], session.uid in sessions))
    )
    session.expire()
    assert said == [(SessionEnd.EXPIRED, "ada", False)]


def test_made_by_hand_it_ends_alike(caplog: pytest.LogCaptureFixture) -> None:
    said = []

    async def bye() -> None:
        said.append("never")

    session = Session(None, None)
    session.notifyOnExpire(bye)
    session.notifyOnExpire(lambda: said.append("plain"))
    session.expire()
    assert said == ["plain"]
    assert "bye is async, and did not run" in caplog.text


async def test_one_that_raises_is_told_and_stops_nothing(
    autojump_clock: Any, running: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    said = []

    def fail() -> None:
        raise ValueError("no")

    async def fail_later() -> None:
        await trio.sleep(1)
        raise ValueError("later")

    session, other = running.make(), running.make()
    for callback in (fail, fail_later, fail, lambda: said.append(1)):
        session.notifyOnExpire(callback)
    other.notifyOnExpire(lambda: said.append(2))
    await trio.sleep(10)
    assert sorted(said) == [1, 2]
    titles = [line.splitlines()[0].rpartition(": ")[2] for line in caplog.messages]
    assert titles == ["no", "later"], "the second failure is the same"
    assert all(session.short_id in line and session.uid not in line for line in caplog.messages)
    assert running.make().touch(), "the clock goes on"


async def test_async_callbacks_run_beside_the_clock(
    autojump_clock: Any, running: SessionStore
) -> None:
    ends: list[tuple[str, float]] = []

    async def bye(name: str) -> None:
        await trio.sleep(3)
        ends.append((name, trio.current_time()))

    a, b, c = (running.make() for _ in range(3))
    a.notifyOnExpire(partial(bye, "a"))
    b.notifyOnExpire(lambda: bye("b"))
    c.notifyOnExpire(partial(bye, "c"))
    c.expire()
    await trio.sleep(4)
    assert ends == [("c", 3)]
    await trio.sleep(5)
    assert sorted(ends[1:]) == [("a", 8), ("b", 8)]


async def test_a_callback_may_expire_and_touch_and_make_sessions(
    autojump_clock: Any, running: SessionStore
) -> None:
    said: list[Any] = []
    session, other = running.make(), running.make()
    session.notifyOnExpire(session.expire)
    session.notifyOnExpire(lambda: said.append(session.touch()))
    session.notifyOnExpire(other.expire)
    session.notifyOnExpire(lambda: said.append(running.make()))
    session.expire()
    assert said[0] is False and said[1].ended is None
    assert session.ended is other.ended is SessionEnd.EXPIRED
    assert list(running) == [said[1]]


async def test_registered_on_an_ended_session_it_is_called_at_once(
    autojump_clock: Any, running: SessionStore
) -> None:
    said: list[str] = []

    async def bye() -> None:
        await trio.sleep(1)
        said.append("async")

    session = running.make()
    session.expire()
    session.notifyOnExpire(lambda: said.append("plain"))
    assert said == ["plain"]
    session.notifyOnExpire(bye)
    await trio.sleep(2)
    assert said == ["plain", "async"]


async def test_what_is_no_function_is_told_at_once(mock_clock: Any) -> None:
    session = store().make()
    with pytest.raises(TypeError, match="without parentheses"):
        session.notifyOnExpire(print(end=""))  # type: ignore[arg-type, func-returns-value]
    session.expire()


async def test_without_a_clock_async_callbacks_are_told_of(
    mock_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def bye() -> None:
        raise AssertionError

    session = store().make()
    session.notifyOnExpire(bye)
    session.expire()
    assert "bye is async, and did not run" in caplog.text


# The end of all


async def test_a_graceful_stop_ends_every_session_callbacks_included(
    autojump_clock: Any, running: SessionStore
) -> None:
    said: list[Any] = []

    async def bye(number: int, seconds: float = 2) -> None:
        await trio.sleep(seconds)
        said.append(number)

    earlier = running.make()
    earlier.notifyOnExpire(partial(bye, -1, 3))
    earlier.expire()
    made = [running.make() for _ in range(1000)]
    for number, session in enumerate(made):
        session.notifyOnExpire(partial(said.append, "plain"))
        session.notifyOnExpire(partial(bye, number))
    assert await running.end_all(SessionEnd.STOPPED, 5) == 1000
    assert trio.current_time() == 3
    assert said.count("plain") == 1000 and set(said) - {"plain"} == {-1, *range(1000)}
    assert {session.ended for session in made} == {SessionEnd.STOPPED} and len(running) == 0


async def test_the_grace_has_an_end_and_who_is_cut_off_is_named(
    autojump_clock: Any, running: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def endless() -> None:
        await trio.sleep_forever()

    said: list[int] = []
    for number in range(1000):
        running.make().notifyOnExpire(partial(said.append, number))
    running.make().notifyOnExpire(endless)
    await running.end_all(SessionEnd.STOPPED, 5)
    assert trio.current_time() == 5
    assert len(said) == 1000
    [line] = caplog.messages
    assert "endless was cut off" in line


@pytest.mark.parametrize("grace", [0, 5])
async def test_on_the_way_out_of_a_cancelled_program_all_of_it_is_done(
    grace: float, autojump_clock: Any, running: SessionStore
) -> None:
    said: list[Any] = []

    async def bye() -> None:
        await trio.sleep(1)
        said.append("async")

    for number in range(1000):
        running.make().notifyOnExpire(partial(said.append, number))
    running.make().notifyOnExpire(bye)
    with trio.CancelScope() as scope:
        scope.cancel()
        await running.end_all(SessionEnd.STOPPED, grace)
    assert len(running) == 0 and set(range(1000)) <= set(said)
    assert ("async" in said) == (grace == 5)


async def test_the_store_goes_on_after_the_end_of_all(
    autojump_clock: Any, running: SessionStore
) -> None:
    said: list[str] = []

    async def bye() -> None:
        await trio.sleep(1)
        said.append("bye")

    await running.end_all(SessionEnd.STOPPED, 1)
    session = running.make()
    session.notifyOnExpire(bye)
    await trio.sleep(10)
    assert session.ended is SessionEnd.IDLE and said == ["bye"]


# What users complained of elsewhere


class Asking(Request):
    """A request whose site finds the session by an id, as by a cookie."""

    def __init__(self, sessions: SessionStore, uid: str = "") -> None:
        super().__init__("GET", "/")
        self.site = SimpleNamespace(
            session_for=lambda request: sessions.find(uid) or sessions.make()
        )  # type: ignore


async def test_session_lifetime_can_be_set(autojump_clock: Any, nursery: trio.Nursery) -> None:
    by_flag, by_class = store(timeout=2), store(Short)
    for sessions, seconds in ((by_flag, 2), (by_class, 5)):
        await nursery.start(sessions.run)
        session = sessions.make()
        await trio.sleep(seconds - 0.1)
        assert session.ended is None
        await trio.sleep(0.2)
        assert session.ended is SessionEnd.IDLE


async def test_one_visit_a_request_is_enough_to_keep_a_session(
    autojump_clock: Any, running: SessionStore
) -> None:
    first = Asking(running).getSession()
    for _ in range(10):
        await trio.sleep(4)
        assert Asking(running, first.uid).getSession() is first


async def test_sessions_do_not_come_back_to_life(
    autojump_clock: Any, running: SessionStore
) -> None:
    session = running.make()
    session.expire()
    for _ in range(3):
        assert not session.touch()
        assert running.find(session.uid) is None
        await trio.sleep(3)
    assert session.ended is SessionEnd.EXPIRED and len(running) == 0


async def test_sessions_do_not_expire_twice(autojump_clock: Any, running: SessionStore) -> None:
    said: list[int] = []
    session = running.make()
    session.notifyOnExpire(lambda: said.append(1))
    session.expire()
    session.expire()
    await trio.sleep(100)
    await running.end_all(SessionEnd.STOPPED, 1)
    session.expire()
    assert said == [1] and session.ended is SessionEnd.EXPIRED
    assert sum(running.statistics().ended.values()) == 1


async def test_sessions_do_not_go_stale_inside_a_request(
    autojump_clock: Any, running: SessionStore
) -> None:
    request = Asking(running)
    first = request.getSession()
    assert request.getSession() is first and first.new
    first.expire()
    second = request.getSession()
    assert second is not first and second.ended is None and second.new


async def test_nor_when_their_time_is_over_and_the_clock_is_behind(mock_clock: Any) -> None:
    request = Asking(store(Short))
    first = request.getSession()
    mock_clock.jump(5)
    second = request.getSession()
    assert first.ended is SessionEnd.IDLE
    assert second is not first and second.ended is None


async def test_a_callback_that_raises_does_not_break_the_request(mock_clock: Any) -> None:
    session = Asking(store()).getSession()
    session.notifyOnExpire(partial(int, "x"))
    session.expire()
    assert session.ended is SessionEnd.EXPIRED


def test_the_module_needs_no_running_trio() -> None:
    assert Registry() and SessionStore(None) is not None and "trio" in sys.modules


async def test_a_touch_of_a_script_is_not_asked(autojump_clock: Any) -> None:
    class Own(Session):
        def touch(self) -> None:  # type: ignore[override]
            raise AssertionError

    sessions = store(Own)
    session = sessions.make()
    await trio.sleep(1)
    assert sessions.find(session.uid) is session


def test_an_id_joins_with_text_and_with_bytes() -> None:
    uid = Session(None, "abc").uid
    assert isinstance(uid, str)
    assert (b"<" + uid + b">", "<" + uid + ">", b"%s" % uid) == (b"<abc>", "<abc>", b"abc")
    assert (f"{uid}!", uid + "!", uid == "abc", {uid: 1}["abc"]) == ("abc!", "abc!", True, 1)
    assert json.dumps([uid]) == '["abc"]'
