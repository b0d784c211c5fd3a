"""What is overdue ends: never early, at most a tick late, and not if its time was renewed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from rpyserve.protocol.connection import serve_connection
from rpyserve.protocol.timeouts import unwatch, watch
from tests.support.http_client import CLIENT, SERVER, Client, head, hello


class Waiting:
    def __init__(self, seconds: float) -> None:
        self.scope = trio.CancelScope()
        self.deadline = trio.current_time() + seconds

    async def wait(self, tick: float) -> float:
        """How long it took to be cancelled."""
        started = trio.current_time()
        watch(self, tick)
        try:
            with self.scope:
                await trio.sleep_forever()
        finally:
            unwatch(self)
        return trio.current_time() - started


@pytest.mark.parametrize(("seconds", "tick"), [(10, 1), (9.5, 1), (0.25, 0.125), (0, 1)])
async def test_ends_within_a_tick(autojump_clock: Any, seconds: float, tick: float) -> None:
    with trio.fail_after(60):
        assert seconds <= await Waiting(seconds).wait(tick) <= seconds + tick


async def test_time_can_be_renewed_and_shortened(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    one = Waiting(10)

    async def change() -> None:
        await trio.sleep(9)
        one.deadline = trio.current_time() + 100
        await trio.sleep(50)
        one.deadline = trio.current_time() + 1

    nursery.start_soon(change)
    with trio.fail_after(1000):
        assert 60 <= await one.wait(1) <= 61


async def test_short_tick_wakes_the_long_one(autojump_clock: Any, nursery: trio.Nursery) -> None:
    nursery.start_soon(Waiting(1000).wait, 100)
    await wait_all_tasks_blocked()
    assert 1 <= await Waiting(1).wait(0.5) <= 1.5
    nursery.cancel_scope.cancel()


def is_looking() -> bool:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return any(
        "TimeoutWatcher" in task.name
        for nursery in root.child_nurseries
        for task in nursery.child_tasks
    )


async def test_rests_while_there_is_nothing_to_watch(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    for _ in range(2):
        assert not is_looking()
        nursery.start_soon(Waiting(5).wait, 1)
        await trio.sleep(2)
        assert is_looking()
        await trio.sleep(10)


async def test_what_came_while_everyone_was_blocked_counts(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """A script that blocks for minutes must not cost others their connections."""
    for _ in range(20):
        near, far = memory_stream_pair()
        client = Client(near)
        nursery.start_soon(partial(serve_connection, far, hello, client=CLIENT, server=SERVER))
        await wait_all_tasks_blocked()
        far.receive_stream.put_data(head("GET", "/"))
        mock_clock.jump(1000)
        assert (await client.reply()).status == 200
        await client.aclose()
