"""Edits of `Session` subclasses and of expiry callbacks, against sessions that live."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from rpyserve import Session
from tests.support.edited_site import Editing, told
from tests.support.in_process import Visitor
from tests.support.tutorial import EXPIRATION_LOGGER

SHORT = """
class ShortSession(Session):
    sessionTimeout = {seconds}

    def greet(self):
        return "{word}"


def use(request):
    request.site.sessionFactory = ShortSession
    s = request.getSession()
    return f"{{s.uid}} {{s.greet()}} {{isinstance(s, ShortSession)}}"


resource = use
"""


def logger(word: str) -> str:
    """The tutorial's `ExpirationLogger`, which prints *word* and how long the session's id is."""
    printed = EXPIRATION_LOGGER.replace('"Session", uid, "has expired."', f"{word!r}, len(uid)")
    return printed + "resource = ExpirationLogger()\n"


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Editing]:
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Editing.at(tmp_path) as editing:
        yield editing


def session_of(site: Editing) -> Session:
    (session,) = site.site.sessions
    assert isinstance(session, Session)
    return session


# Subclasses


async def test_a_living_session_follows_its_class_time_out_included(
    site: Editing, autojump_clock: object
) -> None:
    site.save(SHORT.format(seconds=100, word="hello"))
    uid, word, same = (await site.get()).split()
    assert (word, same) == ("hello", "True")
    site.save(SHORT.format(seconds=10, word="hi"))
    assert await site.get() == f"{uid} hi True"
    await trio.sleep(9)
    assert await site.get() == f"{uid} hi True"
    await trio.sleep(11)
    assert len(site.site.sessions) == 0
    assert not (await site.get()).startswith(uid)


async def test_until_its_next_access_a_session_has_the_time_that_it_had(
    site: Editing, autojump_clock: object
) -> None:
    site.save(SHORT.format(seconds=100, word="hello"))
    await site.get()
    site.save(SHORT.format(seconds=10, word="hi"))
    await site.get(visitor=Visitor(site.site))
    await trio.sleep(50)
    assert len(site.site.sessions) == 1
    await trio.sleep(60)
    assert len(site.site.sessions) == 0


async def test_a_session_of_another_script_s_visitor_follows_as_well(site: Editing) -> None:
    site.save(SHORT.format(seconds=100, word="hello"))
    site.script("", "s.greet()", "b.rpy")
    await site.get()
    assert await site.get("/b") == "hello"
    site.save(SHORT.format(seconds=100, word="hi"))
    await site.get("/a", Visitor(site.site))
    assert await site.get("/b") == "hi"


async def test_the_factory_that_a_script_has_set_is_its_present_one(site: Editing) -> None:
    once = SHORT.replace(
        "resource = use", "resource = use if not registry.setdefault('set', []) else lambda r: 'no'"
    )
    once = once.replace("    request.site", "    registry['set'].append(1)\n    request.site")
    site.save(once.format(seconds=100, word="hello"))
    site.script("", "s.greet(), type(s).sessionTimeout", "b.rpy")
    await site.get()
    site.save(once.format(seconds=7, word="hi"))
    assert await site.get("/a") == "no", "the new execution does not set it"
    assert await site.get("/b", Visitor(site.site)) == "('hi', 7)"
    site.save("class Other: pass\ndef resource(request): return 'gone'\n")
    assert await site.get() == "gone"
    assert await site.get("/b", Visitor(site.site)) == "('hi', 7)", "there is no other, so it stays"


async def test_a_factory_function_of_old_code_makes_sessions_of_the_present_class(
    site: Editing,
) -> None:
    by_function = SHORT.replace("= ShortSession\n", "= lambda site, uid: ShortSession(site, uid)\n")
    once = by_function.replace(
        "resource = use", "resource = use if not registry.setdefault('set', []) else lambda r: 'no'"
    )
    once = once.replace("    request.site", "    registry['set'].append(1)\n    request.site")
    site.save(once.format(seconds=100, word="hello"))
    site.script("", "s.greet(), site_timeout(s)", "b.rpy")
    site.script("def timeout(s): return s._store.timeout_of(s)", "s.greet(), timeout(s)", "b.rpy")
    await site.get()
    site.save(once.format(seconds=7, word="hi"))
    await site.get()
    assert await site.get("/b", Visitor(site.site)) == "('hi', 7)"


async def test_attributes_of_a_session(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    class_with = """
class Mine(Session):
    def __init__(self, site, uid):
        super().__init__(site, uid)
        {sets}


def resource(request):
    request.site.sessionFactory = Mine
    s = request.getSession()
    return str(({answer}))
"""
    site.save(
        class_with.format(
            sets="self.cart = []", answer="s.cart.append(1), s.uid == s.site.sessions[s.uid].uid"
        )
    )
    assert await site.get() == "(None, True)"
    caplog.clear()
    site.save(class_with.format(sets="self.cart, self.wishes = [], {}", answer="s.cart, s.wishes"))
    assert await site.get() == "([1], {})"
    assert told(caplog) == [
        "a.rpy: objects of the class Mine from before the edit got wishes from a new one"
    ]
    assert len(site.site.sessions) == 1


async def test_a_session_class_that_gets_slots(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    site.save(SHORT.format(seconds=100, word="hello"))
    uid = (await site.get()).split()[0]
    caplog.clear()
    site.save(
        SHORT.format(seconds=100, word="hi").replace(
            "    sessionTimeout", "    __slots__ = ('a',)\n    sessionTimeout"
        )
    )
    assert await site.get() == f"{uid} hello False"
    assert told(caplog) == [
        "a.rpy: sessions of the class ShortSession that live already cannot be changed: its "
        "__slots__ or its base "
        "classes differ. They go on as they were."
    ]
    assert (await site.get(visitor=Visitor(site.site))).endswith("hi True")


# Callbacks


async def end(site: Editing, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is printed when the session ends."""
    capsys.readouterr()
    session_of(site).expire()
    return capsys.readouterr().out.splitlines()


async def test_the_series_logger_prints_one_line_after_an_edit(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("old", "new", "newer"):
        site.save(logger(word))
        await site.get()
        await site.get()
    assert await end(site, capsys) == ["newer 32"]


async def test_without_a_visit_after_the_edit_the_old_one_runs(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    site.save(logger("old"))
    await site.get()
    site.save(logger("new"))
    assert await end(site, capsys) == ["old 32"]


REGISTERS = """
class Page(Resource):
    def render_GET(self, request):
        s = request.getSession()
        {registers}
        return ""

    def bye(self):
        print("{word}")

    async def later(self):
        print("{word} later")


def bye():
    print("{word} function")


resource = Page()
"""


@pytest.mark.parametrize(
    ("registers", "printed"),
    [
        ("s.notifyOnExpire(self.bye)", ["new"]),
        ("s.notifyOnExpire(bye)", ["new function"]),
        ("s.notifyOnExpire(lambda: self.bye())", ["new"]),
        ("s.notifyOnExpire(__import__('functools').partial(bye))", ["new function"]),
        ("s.notifyOnExpire(self.bye), s.notifyOnExpire(bye)", ["new", "new function"]),
        ("s.notifyOnExpire(self.bye), s.notifyOnExpire(self.bye)", ["new", "new"]),
    ],
)  # fmt: skip
async def test_a_callback_of_the_new_execution_takes_the_old_ones_place(
    site: Editing, capsys: pytest.CaptureFixture[str], registers: str, printed: list[str]
) -> None:
    for word in ("old", "new"):
        site.save(REGISTERS.replace("{registers}", registers).replace("{word}", word))
        await site.get()
    assert await end(site, capsys) == printed


async def test_others_still_run(site: Editing, capsys: pytest.CaptureFixture[str]) -> None:
    text = REGISTERS.replace("{registers}", "s.notifyOnExpire(self.bye)").replace("{word}", "a")
    site.save(text)
    site.save(text.replace('"a"', '"b"'), "b.rpy")
    await site.get("/a")
    await site.get("/b")
    site.save(text.replace("self.bye", "bye").replace('"a ', '"new '))
    await site.get("/a")
    assert await end(site, capsys) == ["a", "b", "new function"]


async def test_within_one_execution_each_registration_counts(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    site.save(
        REGISTERS.replace("{registers}", "s.notifyOnExpire(self.bye)").replace("{word}", "bye")
    )
    await site.get()
    await site.get()
    assert await end(site, capsys) == ["bye", "bye"]


async def test_uncached_executions_do_not_replace_each_other_s(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    text = REGISTERS.replace("{registers}", "s.notifyOnExpire(self.bye)").replace("{word}", "bye")
    (site.root / "a.rpy").write_text("from rpyserve import Resource\n" + text)
    await site.get()
    await site.get()
    assert await end(site, capsys) == ["bye", "bye"]


async def test_a_callback_of_a_class_that_moved_to_a_module(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    site.save(logger("old"))
    await site.get()
    site.save("from rpyserve import Resource\n" + logger("new"), "helper.py")
    site.save("from helper import ExpirationLogger\nresource = ExpirationLogger()\n")
    await site.get()
    assert await end(site, capsys) == ["new 32"]
