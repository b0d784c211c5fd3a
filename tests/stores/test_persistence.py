"""Sessions and the registry in a store, for one process and for several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from rpyserve import Request, Site
from tests.support.in_process import Visitor
from tests.support.stored import SharedRecords, SharedStore, running_site, stored_site


def counter(request: Request) -> str:
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


# For one process


async def test_a_session_goes_on_after_a_restart(tmp_path: Path, autojump_clock: Any) -> None:
    visits, cookies = [], {}
    for _ in range(3):
        async with running_site(counter, tmp_path / "s.db") as site:
            visitor = Visitor(site)
            visitor.cookies = cookies
            visits += [(await visitor.get("/")).text for _ in range(2)]
            assert len(site.sessions) == 1
    assert visits == ["1", "2", "3", "4", "5", "6"]


async def test_a_session_is_stored_before_the_answer(tmp_path: Path, autojump_clock: Any) -> None:
    async with running_site(counter, tmp_path / "s.db") as site:
        visitor = Visitor(site)
        await visitor.get("/")
        copy = (tmp_path / "s.db").read_bytes(), (tmp_path / "s.db-wal").read_bytes()
        assert any(next(iter(site.sessions)).uid.encode() in each for each in copy) is False
    (tmp_path / "t.db").write_bytes(copy[0])
    (tmp_path / "t.db-wal").write_bytes(copy[1])
    async with running_site(counter, tmp_path / "t.db") as site:  # as after a SIGKILL
        again = Visitor(site)
        again.cookies = visitor.cookies
        assert (await again.get("/")).text == "2"


# For several


async def test_workers_share_sessions(autojump_clock: Any) -> None:
    records = SharedRecords()
    async with (
        running_site(counter, SharedStore(records)) as one,
        running_site(counter, SharedStore(records)) as two,
    ):
        visitor = Visitor(one)
        visits = []
        for site in (one, two, two, one):
            visitor.site = site
            visits.append((await visitor.get("/")).text)
        assert visits == ["1", "2", "3", "4"]
        assert not records.owners and len(one.sessions) == len(two.sessions) == 0
        assert records.calls["take_blocking"] == 0


async def test_nobody_overtakes_another_in_any_worker(autojump_clock: Any) -> None:
    async def slow_counter(request: Request) -> str:
        session = request.getSession()
        n = session.get("n", 0) + 1
        await trio.sleep(0.05)
        session["n"] = n
        return str(n)

    records = SharedRecords()
    sites = [stored_site(slow_counter, SharedStore(records)) for _ in range(4)]
    async with trio.open_nursery() as nursery:

        async def run(site: Site, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            async with site.running():
                task_status.started()
                await trio.sleep_forever()

        for site in sites:
            await nursery.start(run, site)
        visitor = Visitor(sites[0])
        await visitor.get("/")
        seen = []

        async def visit(site: Site) -> None:
            other = Visitor(site)
            other.cookies = dict(visitor.cookies)
            seen.append(int((await other.get("/")).text))

        async with trio.open_nursery() as visits:
            for site in sites:
                visits.start_soon(visit, site)
        assert sorted(seen) == [2, 3, 4, 5]
        nursery.cancel_scope.cancel()
