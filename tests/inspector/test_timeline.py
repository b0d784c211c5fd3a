"""The timeline: numbers, bound, folding, and waking who waits."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from rpyserve.inspector.timeline import FOLD, MAX_EVENTS, Timeline


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timeline(clock: Clock) -> Timeline:
    return Timeline(clock)


def test_events_have_numbers_and_times(timeline: Timeline, clock: Clock) -> None:
    timeline.add("saved", "a.rpy saved", edit=1)
    clock.at += 5
    timeline.add("failed", "GET /a: ZeroDivisionError")
    first, second = timeline.after(0)
    assert (first.number, first.at, first.kind, first.fields) == (1, 1_000, "saved", {"edit": 1})
    assert (second.number, second.at, second.text) == (2, 1_005, "GET /a: ZeroDivisionError")
    assert timeline.after(1) == [second]
    assert timeline.after(2) == timeline.after(99) == []


def test_the_oldest_are_forgotten(timeline: Timeline) -> None:
    for n in range(MAX_EVENTS + 10):
        timeline.add("action", str(n))
    kept = timeline.after(0)
    assert len(kept) == MAX_EVENTS
    assert kept[0].number == 11 and kept[-1].number == timeline.number == MAX_EVENTS + 10


def test_what_happens_very_often_is_one_event_a_second(timeline: Timeline, clock: Clock) -> None:
    def made() -> None:
        timeline.add_one("session made", "session abc made", "{} sessions made")

    made()
    assert [each.text for each in timeline.after(0)] == ["session abc made"]
    for _ in range(99):
        made()
    (event,) = timeline.after(1)
    assert (event.text, event.at, event.fields) == ("100 sessions made", 1_000, {"count": 100})
    clock.at += FOLD
    made()
    timeline.add("saved", "a.rpy saved")
    made()
    texts = [each.text for each in timeline.after(0)]
    assert texts == ["100 sessions made", "session abc made", "a.rpy saved", "session abc made"]


async def test_who_waits_is_woken_by_the_first_event(
    timeline: Timeline, autojump_clock: trio.testing.MockClock
) -> None:
    timeline.add("saved", "before")
    found: list[str] = []

    async def wait() -> None:
        found.extend(each.text for each in await timeline.wait_after(1, 30))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(7)
        assert not found
        timeline.add("saved", "after")
    assert found == ["after"]
    assert trio.current_time() - autojump_clock.current_time() == 0
    start = trio.current_time()
    assert await timeline.wait_after(2, 30) == []
    assert trio.current_time() - start == 30


async def test_an_event_of_another_thread_wakes_too(timeline: Timeline) -> None:
    async with trio.open_nursery() as nursery:

        async def add() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(timeline.add, "loop held", "a.rpy")

        nursery.start_soon(add)
        (event,) = await timeline.wait_after(0, math.inf)
    assert event.kind == "loop held"


async def test_nobody_waits_once_it_is_closed(timeline: Timeline) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timeline.wait_after, 0, math.inf)
        await trio.testing.wait_all_tasks_blocked()
        timeline.news.close()
    assert await timeline.wait_after(0, math.inf) == []
