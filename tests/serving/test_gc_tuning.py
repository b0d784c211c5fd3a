"""When all there is, is looked at for garbage."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from rpyserve import Resource, Site
from rpyserve.serving import gc_tuning
from rpyserve.serving.gc_tuning import DUE, ENDED, MOST, PAUSE, QUICK, FullCollections


@dataclass
class Process:
    """What is told to one `FullCollections`, and how often it has looked."""

    answered: int = 0
    ended: int = 0
    living: int = 0
    looks: int = 0
    collected: int = 0
    busy: bool = True

    def collect(self) -> None:
        self.collected += 1
        self.looks = 0

    def garbage(self) -> FullCollections:
        return FullCollections(
            lambda: self.answered,
            lambda: self.ended,
            lambda: self.living,
            collect=self.collect,
            due=lambda: self.looks,
        )

    async def goes_on(self, times: int = 3) -> int:
        """Let some time pass; return how often all was looked at meanwhile."""
        before = self.collected
        for _ in range(times):
            self.answered += self.busy
            await trio.sleep(PAUSE)
        return self.collected - before


@pytest.fixture
async def process(autojump_clock: Any, nursery: trio.Nursery) -> Process:
    process = Process()
    nursery.start_soon(process.garbage().run)
    await trio.sleep(PAUSE / 2)
    return process


LONG = int(QUICK / gc_tuning.EACH) + 1
"""So many looks at what is young that all there is may take long."""


async def test_nothing_new_is_no_reason(process: Process) -> None:
    process.busy = False
    process.looks = DUE - 1
    assert await process.goes_on() == 0


async def test_what_is_quick_is_done_even_under_load(process: Process) -> None:
    process.looks = DUE
    assert await process.goes_on() == 1


async def test_what_takes_long_waits_for_quiet(process: Process) -> None:
    process.looks = LONG
    assert await process.goes_on() == 0
    process.busy = False
    assert await process.goes_on() == 1


async def test_it_does_not_wait_for_ever(process: Process) -> None:
    process.looks = MOST
    assert await process.goes_on() == 1


async def test_sessions_that_ended_are_a_reason(process: Process) -> None:
    process.living = 3 * ENDED
    process.looks = LONG
    process.ended = process.living - 1
    assert await process.goes_on() == 0
    process.ended += 1
    assert await process.goes_on() == 1
    process.looks = LONG
    assert await process.goes_on() == 0, "they count once"


async def test_sessions_say_how_many_held_something() -> None:
    sessions = Site(Resource()).sessions
    empty, full = sessions.make(), sessions.make()
    full["name"] = "Ann"
    empty.expire()
    assert sessions.ended_with_data == 0
    full.expire()
    assert sessions.ended_with_data == 1


def test_python_itself_never_looks_at_all_there_is() -> None:
    usual = gc.get_threshold()
    full = gc.get_stats()[2]["collections"]
    with gc_tuning.tuned_gc():
        kept = [[number] for number in range(500_000)]
        assert gc.get_stats()[2]["collections"] == full or not usual[2]
        assert gc.get_stats()[0]["collections"] > 0
    assert gc.get_threshold() == usual and len(kept) == 500_000


async def test_a_session_that_refers_to_itself_is_found(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    site = Site(Resource())
    seldom = FullCollections(
        lambda: 0,
        lambda: site.sessions.ended_with_data,
        lambda: len(site.sessions),
        due=lambda: DUE,
    )
    with gc_tuning.tuned_gc():
        nursery.start_soon(seldom.run)
        await trio.testing.wait_all_tasks_blocked()
        session = site.sessions.make()
        session["itself"] = session
        session.expire()
        left = weakref.ref(session)
        del session
        await trio.sleep(2 * PAUSE)
        assert left() is None
