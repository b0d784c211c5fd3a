"""When the garbage collector looks at all objects."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import trio
import trio.testing

from rpyserve import Resource, Site
from rpyserve.serving import gc_tuning
from rpyserve.serving.gc_tuning import DUE, PAUSE, SPARING, collect_when_idle


def test_python_itself_seldom_looks_at_all_there_is() -> None:
    usual = gc.get_threshold()
    full = gc.get_stats()[2]["collections"]
    with gc_tuning.tuned_gc():
        kept = [[number] for number in range(500_000)]
        assert gc.get_stats()[2]["collections"] == full or not usual[2]
        assert gc.get_stats()[0]["collections"] > 0
    assert gc.get_threshold() == usual and len(kept) == 500_000


async def test_a_session_that_refers_to_itself_is_found_once_nobody_waits(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    site, answered, is_busy = Site(Resource()), 0, True

    def count_answered() -> int:
        nonlocal answered
        answered += is_busy
        return answered

    with gc_tuning.tuned_gc():
        nursery.start_soon(collect_when_idle, count_answered)
        await trio.testing.wait_all_tasks_blocked()
        session = site.sessions.make()
        session["itself"] = session
        for _ in range(DUE):  # then it is of the oldest generation
            gc.collect(1)
        session.expire()
        left = weakref.ref(session)
        del session
        await trio.sleep(3 * PAUSE)
        assert left() is not None
        is_busy = False
        await trio.sleep(3 * PAUSE)
        assert left() is None


async def test_nothing_new_is_no_reason(autojump_clock: Any, nursery: trio.Nursery) -> None:
    with gc_tuning.tuned_gc():
        nursery.start_soon(collect_when_idle, lambda: 0)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        full = gc.get_stats()[2]["collections"]
        await trio.sleep(5 * PAUSE)
        assert gc.get_stats()[2]["collections"] == full


async def test_what_takes_long_is_done_seldom(autojump_clock: Any, nursery: trio.Nursery) -> None:
    times = iter(range(100))  # each collection takes a second
    with gc_tuning.tuned_gc():
        nursery.start_soon(collect_when_idle, lambda: 0, lambda: float(next(times)))
        await trio.testing.wait_all_tasks_blocked()
        full = gc.get_stats()[2]["collections"]
        for seconds, expected in ((2 * PAUSE, 1), (10 * PAUSE, 1), (SPARING, 2)):
            for _ in range(DUE):
                gc.collect(1)
            await trio.sleep(seconds)
            assert gc.get_stats()[2]["collections"] == full + expected
