"""Time that the inspector lets pass ends the sessions that would end if it had gone by."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rpyserve import Site
from tests.serving.test_run import Hello

LIFETIMES = (30.0, 300.0, 900.0, 1200.0, None)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("visit"), st.integers(0, len(LIFETIMES) - 1)),
        st.tuples(st.just("pass"), st.sampled_from([1.0, 29.0, 60.0, 299.0, 600.0, 900.0, 5000.0])),
    ),
    max_size=12,
)
A_MOMENT = 1.5
"""Seconds in which a session that is due has ended."""


async def ends(steps: list[tuple[str, Any]], *, by_sleeping: bool) -> list[list[str | None]]:
    """Why each session has ended, after each step."""
    site = Site(Hello())
    called: list[Any] = []
    async with site.running():
        sessions = []
        for lifetime in LIFETIMES:
            session = site.sessions.make()
            session.sessionTimeout = lifetime
            session.touch()
            session.notifyOnExpire(lambda session=session: called.append(session))
            sessions.append(session)
        states = []
        for kind, value in steps:
            if kind == "visit":
                sessions[value].touch()
            elif by_sleeping:
                await trio.sleep(value)
            else:
                for session in sessions:
                    site.sessions.let_pass(session, value)
            await trio.sleep(A_MOMENT)
            states.append([each.ended.value if each.ended else None for each in sessions])
            assert len(called) == len(set(map(id, called))), "each ends once"
        assert {id(each) for each in called} == {id(each) for each in sessions if each.ended}
    return states


@given(steps=STEPS)
@settings(deadline=None, max_examples=60)
def test_it_is_like_time_that_goes_by(steps: list[tuple[str, Any]]) -> None:
    found = [
        trio.run(
            lambda by=by_sleeping: ends(steps, by_sleeping=by),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
        for by_sleeping in (True, False)
    ]
    assert found[0] == found[1]
