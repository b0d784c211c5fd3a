"""Callbacks that no store can keep, such as lambdas: they run once, in the worker that has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from rpyserve import Request, Resource, Site
from rpyserve.stores.persistence import ADOPT, SWEEP
from tests.support.in_process import Visitor
from tests.support.memory_store import SharedMemory
from tests.support.stored import running_site


@asynccontextmanager
async def workers(root: Any, count: int, **options: Any) -> AsyncIterator[list[Site]]:
    memory = SharedMemory()
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[Site]) -> None:
            async with running_site(root, memory.worker(), **options) as site:
                task_status.started(site)
                await trio.sleep_forever()

        yield [await nursery.start(run) for _ in range(count)]
        nursery.cancel_scope.cancel()


def visitor_of(site: Site, like: Visitor | None = None) -> Visitor:
    visitor = Visitor(site)
    if like is not None:
        visitor.cookies = like.cookies
    return visitor


class Ends(Resource):
    """A page that has something called when its visitor's session ends."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def render_GET(self, request: Request) -> str:
        session = request.getSession()
        if "note" in request.args:
            name = request.args["note"][0]
            session.notifyOnExpire(lambda: self.called.append(name))
        if "end" in request.args:
            session.expire()
        return "ok"


async def test_they_run_in_their_worker_when_another_finds_the_end(autojump_clock: Any) -> None:
    ends = Ends()
    async with workers(ends, 3, sessionTimeout=10) as sites:
        visitor = visitor_of(sites[0])
        await visitor.get("/?note=a")
        await visitor_of(sites[1], visitor).get("/?note=b")
        await visitor_of(sites[1], visitor).get("/?note=c")
        await visitor_of(sites[2], visitor).get("/")
        assert ends.called == []
        await trio.sleep(10 + 2 * SWEEP)
        assert sorted(ends.called) == ["a", "b", "c"]


async def test_a_session_that_a_script_ends_has_them_run_everywhere(autojump_clock: Any) -> None:
    ends = Ends()
    async with workers(ends, 2) as sites:
        visitor = visitor_of(sites[0])
        await visitor.get("/?note=a")
        await visitor_of(sites[1], visitor).get("/?note=b")
        await visitor_of(sites[0], visitor).get("/?end=")
        await trio.sleep(SWEEP)
        assert sorted(ends.called) == ["a", "b"]


async def test_those_of_a_worker_that_is_gone_are_told_as_lost(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ends, memory = Ends(), SharedMemory()
    async with running_site(ends, memory.worker(), sessionTimeout=10) as site:
        async with running_site(ends, memory.worker(), sessionTimeout=10) as gone:
            visitor = visitor_of(gone)
            await visitor.get("/?note=lost")
        await visitor_of(site, visitor).get("/?note=kept")
        await trio.sleep(10 + 2 * SWEEP)
    assert ends.called == ["kept"]
    assert [line for line in caplog.messages if "in a worker that is gone" in line]


async def test_what_a_dead_worker_had_claimed_ends_elsewhere(autojump_clock: Any) -> None:
    ends, memory = Ends(), SharedMemory()
    dead = memory.worker()
    async with running_site(ends, memory.worker(), sessionTimeout=10) as site:
        async with trio.open_nursery() as nursery:
            await nursery.start(dead.run)
            visitor = visitor_of(site)
            await visitor.get("/?note=a")
            memory.records[next(iter(memory.records))].due = 0
            (claimed,) = await dead.due(10)
            nursery.cancel_scope.cancel()
        await trio.sleep(ADOPT + SWEEP)
        assert ends.called == ["a"]
        assert claimed.key not in memory.records
