"""Sessions that a worker gives back and takes again: when they are the same objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from rpyserve import HTTPError, Request, Session, SessionEnd, Site
from rpyserve.scripts import definitions
from rpyserve.sessions.session import restored
from rpyserve.stores import released
from rpyserve.stores.released import ReleasedSessions
from rpyserve.stores.store import LeaseLost
from tests.stores.test_persistence import counter, like, note_end, workers
from tests.support.in_process import Visitor

KEY, OTHER = b"k" * 32, b"o" * 32


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> ReleasedSessions:
    return ReleasedSessions(clock)


@pytest.fixture
def session() -> Session:
    return restored(Session, None, "uid")


def test_it_is_the_same_object_if_its_record_is_the_same(
    kept: ReleasedSessions, session: Session
) -> None:
    kept.put(KEY, session, b"one")
    assert kept.take(OTHER, "uid", b"one") is None
    assert kept.take(KEY, "uid", b"one") is session
    assert kept.take(KEY, "uid", b"one") is None


def end(session: Session) -> None:
    session.expire()


def rename(session: Session) -> None:
    session.uid = "other"


def edit(session: Session) -> None:
    session._generation = definitions.generation - 1


@pytest.mark.parametrize("change", [end, rename, edit])
def test_what_has_happened_to_it_since_makes_it_another(
    kept: ReleasedSessions, session: Session, change: Callable[[Session], None]
) -> None:
    kept.put(KEY, session, b"one")
    change(session)
    assert kept.take(KEY, "uid", b"one") is None


def test_another_record_is_another_session(kept: ReleasedSessions, session: Session) -> None:
    kept.put(KEY, session, b"one")
    assert kept.take(KEY, "uid", b"two") is None
    assert kept.take(KEY, "uid", b"one") is None


def test_one_with_callbacks_is_not_kept(kept: ReleasedSessions, session: Session) -> None:
    session.notifyOnExpire(print)
    kept.put(KEY, session, b"one")
    assert len(kept) == 0


def test_nobody_is_kept_for_long(kept: ReleasedSessions, session: Session, clock: Clock) -> None:
    kept.put(KEY, session, b"one")
    clock.now = 1
    kept.put(OTHER, restored(Session, None, "other"), b"two")
    clock.now = released.LONGEST
    kept.forget_old()
    assert kept.take(KEY, "uid", b"one") is None
    assert kept.take(OTHER, "other", b"two") is not None


def test_no_more_are_kept_than_there_is_room_for(kept: ReleasedSessions) -> None:
    for _ in range(2):  # the same ones again take no more
        for number in range(40):
            kept.put(bytes([number]), restored(Session, None, str(number)), bytes(2**19))
    assert len(kept) == released.MOST // (2**19 + 1000)
    assert kept.take(bytes([0]), "0", bytes(2**19)) is None
    assert kept.take(bytes([39]), "39", bytes(2**19)) is not None


# In workers that share a store


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Site]:
    """The sites whose codecs have made sessions of records."""
    from tests.support.stored import PlainCodec

    sites: list[Site] = []
    load = PlainCodec.load

    def noting(self: PlainCodec, uid: str, key: bytes, blob: bytes) -> Session:
        sites.append(self.site)
        return load(self, uid, key, blob)

    monkeypatch.setattr(PlainCodec, "load", noting)
    return sites


async def test_a_session_is_loaded_only_after_others_have_written(
    loads: list[Site], autojump_clock: Any
) -> None:
    async with workers(counter, 2) as (_, one, two):
        visitor = Visitor(one)
        visits = [
            (await like(visitor, site).get("/")).text for site in (one, one, one, two, one, one)
        ]
        assert visits == ["1", "2", "3", "4", "5", "6"]
        assert loads == [two, one]


async def test_others_that_only_read_change_nothing(loads: list[Site], autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        return counter(request) if request.path == "/count" else str(request.getSession()["n"])

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        pages = [(one, "/count"), (two, "/"), (one, "/count"), (two, "/"), (two, "/")]
        assert [(await like(visitor, site).get(path)).text for site, path in pages] == [
            "1", "1", "2", "2", "2",
        ]  # fmt: skip
        assert loads == [two, two]


async def test_callbacks_are_as_they_were_stored(loads: list[Site], autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        if request.path == "/watch":
            request.getSession().notifyOnExpire(note_end)
        return counter(request)

    async with workers(page, 1) as (_, one):
        visitor = Visitor(one)
        for path in ("/", "/watch", "/"):
            await visitor.get(path)
        assert loads == [one]  # by the last


async def test_what_was_not_stored_is_in_no_session(loads: list[Site], autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        text = counter(request)
        if request.path == "/lock":
            request.getSession()["lock"] = threading.Lock()
        return text

    async with workers(page, 1) as (records, one):
        visitor = Visitor(one)
        await visitor.get("/")
        assert (await visitor.get("/lock")).status == 500
        assert (await visitor.get("/")).text == "2"
        assert loads == [one]

        def lose(name: str) -> None:
            if name == "give":
                records.before = lambda name: None
                records.owners.clear()
                raise LeaseLost("another worker has it")

        records.before = lose
        assert (await visitor.get("/")).status == 503
        assert (await visitor.get("/")).text == "3"
        assert loads == [one, one]


async def test_a_session_that_has_ended_elsewhere_is_another(
    loads: list[Site], autojump_clock: Any
) -> None:
    def page(request: Request) -> str:
        if request.path == "/logout":
            request.getSession().expire()
            raise HTTPError(404)
        return counter(request)

    async with workers(page, 2) as (_, one, two):
        visitor = Visitor(one)
        for _ in range(2):
            await visitor.get("/")
        await like(visitor, two).get("/logout")
        assert (await visitor.get("/")).text == "1"
        assert one.sessions.statistics().ended[SessionEnd.EXPIRED] == 0
