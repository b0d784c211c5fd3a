"""The timer by itself, and against a model that looks at every session at every moment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rpyserve.sessions import expiry
from rpyserve.sessions.expiry import TICK, Bucket, ExpiryTimer
from rpyserve.sessions.session import Session, SessionEnd
from rpyserve.sessions.store import SessionStore


@dataclass(eq=False)
class Thing:
    deadline: float
    bucket: Bucket | None = None


class Watched:
    """A timer and what it watches; notes what ended, and when."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.ended: list[tuple[str, float]] = []
        self.timer = ExpiryTimer(self.look, self.is_scheduled)

    def is_scheduled(self, uid: str, bucket: Bucket) -> bool:
        thing = self.things.get(uid)
        return thing is not None and thing.bucket is bucket

    def look(self, uid: str) -> None:
        thing = self.things[uid]
        thing.bucket = None
        if thing.deadline <= trio.current_time():
            del self.things[uid]
            self.ended.append((uid, trio.current_time()))
        else:
            self.move(uid, thing.deadline)

    def add(self, uid: str, deadline: float) -> None:
        self.things[uid] = Thing(deadline)
        self.move(uid, deadline)

    def move(self, uid: str, deadline: float) -> None:
        thing = self.things[uid]
        thing.deadline = deadline
        before = thing.bucket
        thing.bucket = self.timer.schedule(uid, deadline, before)
        if thing.bucket is not before:
            self.timer.discard(before)

    def end(self, uid: str) -> None:
        self.timer.discard(self.things.pop(uid).bucket)

    @property
    def held(self) -> tuple[int, int, int]:
        """How many ids, buckets and ticks the timer holds."""
        return held_by(self.timer)


def held_by(timer: ExpiryTimer) -> tuple[int, int, int]:
    ids = sum(len(bucket.ids) for bucket in timer._buckets.values())
    return ids, len(timer._buckets), len(timer._ticks)


@pytest.mark.parametrize("deadline", [0.0, TICK / 2, TICK, 1.0, 5.003, 1e6 + 0.001])
async def test_never_early_and_at_most_a_tick_late(
    deadline: float, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    watched.add("a", deadline)
    await trio.sleep_until(deadline + 1)
    [(_, when)] = watched.ended
    assert deadline <= when < deadline + TICK


async def test_an_earlier_deadline_wakes_the_sleeping_timer(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    await trio.testing.wait_all_tasks_blocked()
    watched.add("late", 900)
    await trio.testing.wait_all_tasks_blocked()
    watched.add("soon", 5)
    await trio.sleep(1000)
    assert watched.ended == [("soon", 5), ("late", 900)]


async def test_deadlines_move_both_ways(autojump_clock: Any, nursery: trio.Nursery) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    for uid in "abcd":
        watched.add(uid, 10)
    watched.move("a", 20)
    watched.move("b", 5)
    watched.move("c", 5)
    watched.move("c", 10)
    watched.move("d", math.inf)
    await trio.sleep(1000)
    assert sorted(watched.ended) == [("a", 20), ("b", 5), ("c", 10)]
    assert set(watched.things) == {"d"}


async def test_what_is_gone_is_neither_held_nor_ended(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    watched.add("a", 10)
    del watched.things["a"]
    await trio.sleep(20)
    assert watched.ended == []
    assert not watched.timer._buckets and not watched.timer._ticks


async def test_a_long_sweep_lets_others_have_their_turn(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    many = expiry.BATCH * 8
    for number in range(many):
        watched.add(str(number), 10)
    nursery.start_soon(watched.timer.run)
    seen = [0]
    await trio.sleep_until(10)
    while seen[-1] < many:
        seen.append(len(watched.ended))
        await trio.lowlevel.checkpoint()
    assert max(after - before for before, after in pairwise(seen)) <= 2 * expiry.BATCH
    assert len({uid for uid, _ in watched.ended}) == many


async def test_cancelled_in_a_sweep_it_loses_nothing(autojump_clock: Any) -> None:
    watched = Watched()
    many = expiry.BATCH * 3
    for number in range(many):
        watched.add(str(number), 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.timer.run)
        await trio.sleep_until(10)
        while not watched.ended:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert 0 < len(watched.ended) < many
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.timer.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(watched.ended) == len({uid for uid, _ in watched.ended}) == many


async def test_accesses_leave_nothing_behind(autojump_clock: Any, nursery: trio.Nursery) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    watched.add("a", 10)
    for step in range(500):
        watched.move("a", trio.current_time() + 10)
        assert sum(len(bucket.ids) for bucket in watched.timer._buckets.values()) == 1, step
        await trio.sleep(0.1)


@pytest.mark.parametrize("seconds", [900, 24 * 3600])
async def test_what_has_ended_is_not_held_until_it_would_have_been_due(
    seconds: float, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    site = SimpleNamespace(sessionFactory=Session)
    sessions = SessionStore(site, seconds, max_sessions=100)
    await nursery.start(sessions.run)
    for number in range(3000):
        session = sessions.make()
        if number % 3 == 0:
            session.expire()
        elif number % 3 == 1:
            session.regenerate()
        await trio.sleep(TICK * (number % 2))
        ids, buckets, ticks = held_by(sessions._timer)
        assert ids <= 2 * len(sessions) and buckets == ticks <= 2 * len(sessions) + 1
    assert len(sessions) == 100
    for session in sessions:
        session.expire()
    assert held_by(sessions._timer) == (0, 0, 0)
    nursery.cancel_scope.cancel()


async def test_deadlines_that_move_to_and_fro_leave_nothing_behind(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    watched.add("kept", 1e6)
    for step in range(1000):
        watched.add("a", 5e5 - step)
        watched.move("a", 1000)
        watched.move("a", 5e5)
        watched.end("a")
        assert max(watched.held) <= 4, step


async def test_ended_while_their_bucket_is_looked_at(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    many = expiry.BATCH * 4
    for number in range(many):
        watched.add(str(number), 10)
    watched.add("later", 20)
    nursery.start_soon(watched.timer.run)
    await trio.sleep_until(10)
    while not watched.ended:
        await trio.lowlevel.checkpoint()
    for uid in [uid for uid in watched.things if uid != "later"]:
        watched.end(uid)
    assert 0 < len(watched.ended) < many
    await trio.sleep_until(30)
    assert watched.ended[-1] == ("later", 20) and watched.held == (0, 0, 0)


async def test_a_list_that_is_out_of_date_adds_nothing(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    watched = Watched()
    nursery.start_soon(watched.timer.run)
    watched.add("a", 10)
    watched.move("a", 5)
    watched.move("a", 20)
    await trio.sleep(11)
    assert [bucket.ids for bucket in watched.timer._buckets.values()] == [["a"]]
    await trio.sleep(10)
    assert watched.ended == [("a", 20)]


# Against a model

TIMEOUTS = st.one_of(
    st.sampled_from([0, TICK, 1, 2, 5, 5.0, math.inf, None]), st.floats(0, 20, width=32)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), TIMEOUTS),
        st.tuples(st.just("retime"), st.integers(0, 5), TIMEOUTS),
        st.tuples(st.sampled_from(["touch", "find", "expire"]), st.integers(0, 5)),
        st.tuples(
            st.sampled_from(["sleep", "jump"]),
            st.one_of(st.sampled_from([TICK, 1, 5]), st.floats(0, 12)),
        ),
    ),
    max_size=40,
)


@dataclass
class Model:
    """One session, and what a naive clock says of it."""

    session: Session
    deadline: float
    ends: list[tuple[SessionEnd | None, float]] = field(default_factory=list)


class Trial:
    """Does the steps, and compares after each."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.mock = clock
        site = SimpleNamespace(sessionFactory=Session)
        self.sessions = SessionStore(site)
        self.models: list[Model] = []
        self.next_timeout: float | None = None

        class Timed(Session):
            def __init__(this, site: Any, uid: str) -> None:
                super().__init__(site, uid)
                this.sessionTimeout = self.next_timeout

        site.sessionFactory = Timed

    def new_deadline(self, session: Session) -> float:
        timeout = session.sessionTimeout
        return trio.current_time() + (math.inf if timeout is None else timeout)

    def make(self, timeout: float | None) -> None:
        self.next_timeout = timeout
        session = self.sessions.make()
        model = Model(session, self.new_deadline(session))
        session.notifyOnExpire(lambda: model.ends.append((session.ended, trio.current_time())))
        self.models.append(model)

    def access(self, index: int, how: Callable[[Session], object]) -> None:
        if index < len(self.models):
            model = self.models[index]
            lives = not model.ends and trio.current_time() < model.deadline
            found = how(model.session)
            assert bool(found) == lives
            if lives:
                model.deadline = self.new_deadline(model.session)

    def retime(self, index: int, timeout: float | None) -> None:
        if index < len(self.models):
            self.models[index].session.sessionTimeout = timeout

    def expire(self, index: int) -> None:
        if index < len(self.models):
            self.models[index].session.expire()
            assert self.models[index].ends

    async def step(self, name: str, *arguments: Any) -> None:
        if name == "sleep":
            await trio.sleep(*arguments)
        elif name == "jump":
            self.mock.jump(*arguments)  # the clock's task has no turn yet: it is behind
        elif name == "touch":
            self.access(*arguments, Session.touch)
        elif name == "find":
            self.access(*arguments, lambda session: self.sessions.find(session.uid) is not None)
        else:
            getattr(self, name)(*arguments)

    def compare(self, behind: bool) -> None:
        now = trio.current_time()
        assert held_by(self.sessions._timer)[0] <= 2 * len(self.sessions)
        for model in self.models:
            assert len(model.ends) <= 1
            assert (
                (model.session.uid in self.sessions)
                == (not model.ends)
                == (model.session.ended is None)
            )
            for why, when in model.ends:
                if why is SessionEnd.IDLE:
                    assert model.deadline <= when
            if not model.ends and not behind:
                assert now <= model.deadline + TICK

    async def run(self, steps: list[tuple[Any, ...]]) -> None:
        jumped = any(step[0] == "jump" for step in steps)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.sessions.run)
            for step in steps:
                await self.step(*step)
                self.compare(behind=jumped)
            await trio.sleep(100)
            self.compare(behind=False)
            for model in self.models:
                assert len(model.ends) == (
                    model.deadline < math.inf or model.session.ended is SessionEnd.EXPIRED
                )
                if not jumped and model.ends and model.ends[0][0] is SessionEnd.IDLE:
                    assert model.ends[0][1] <= model.deadline + TICK
            nursery.cancel_scope.cancel()


@settings(max_examples=150)
@given(STEPS)
def test_the_timer_against_a_naive_model(steps: list[tuple[Any, ...]]) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trial = Trial(clock)
    trio.run(trial.run, steps, clock=clock)
