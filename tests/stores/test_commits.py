"""SQLite: what several requests change in one turn of the loop is committed together."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Request, Site
from rpyserve.stores.sqlite import SQLiteStore
from rpyserve.stores.store import Unavailable
from tests.stores.test_persistence import counter, like, reader
from tests.support.in_process import Visitor
from tests.support.stored import running_site

KEYS = [bytes([number]) * 32 for number in range(8)]


class Connection:
    """A connection whose statements are counted, and whose commits fail while `is_full`.

    The next one fails if it `fails_once`.
    """

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.is_full = self.fails_once = False
        self.done: Counter[str] = Counter()

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self.done[sql.split()[0]] += 1
        if sql == "commit" and (self.is_full or self.fails_once):
            self.fails_once = False
            raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@asynccontextmanager
async def running(path: Path, root: Any = counter) -> AsyncIterator[tuple[Site, Connection]]:
    async with running_site(root, path) as site:
        store: Any = site.persistence.store
        store._file = Connection(store._file)
        yield site, store._file


async def visitors_of(site: Site, count: int = 8) -> list[Visitor]:
    """Visitors who have sessions."""
    visitors = [Visitor(site) for _ in range(count)]
    for visitor in visitors:
        assert (await visitor.get("/")).status == 200
    return visitors


async def ask_all(visitors: list[Visitor], path: str = "/") -> list[Any]:
    answers: list[Any] = []

    async def ask(visitor: Visitor) -> None:
        answers.append(await visitor.get(path))

    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(ask, visitor)
    return answers


def copy_of(path: Path) -> Path:
    """A copy of the file as it is now."""
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    return copy


async def stored(path: Path, visitors: list[Visitor]) -> list[str]:
    """What the visitors get from a process that begins with the file as it is now."""
    async with running_site(reader, copy_of(path)) as site:
        return [(await like(visitor, site).get("/")).text for visitor in visitors]


async def test_requests_of_one_turn_share_a_commit(path: Path, autojump_clock: Any) -> None:
    async with running(path) as (site, connection):
        visitors = await visitors_of(site)
        connection.done.clear()
        answers = await ask_all(visitors)
        assert [answer.text for answer in answers] == ["2"] * 8
        assert connection.done["commit"] < 4 and connection.done["update"] == 8
        assert await stored(path, visitors) == ["2"] * 8


async def test_no_answer_is_out_before_the_commit(path: Path, autojump_clock: Any) -> None:
    async with running(path) as (site, _):
        visitors = await visitors_of(site)
        files: list[bytes] = []

        async def ask(visitor: Visitor) -> None:
            await visitor.get("/")
            files.append(Path(f"{path}-wal").read_bytes())

        async with trio.open_nursery() as nursery:
            for visitor in visitors:
                nursery.start_soon(ask, visitor)
        Path(f"{path}-wal").rename(f"{path}-wal-now")
        Path(f"{path}-wal").write_bytes(files[0])  # as it was with the first answer
        assert await stored(path, visitors) == ["2"] * 8
        Path(f"{path}-wal-now").rename(f"{path}-wal")


async def test_a_commit_that_fails_is_no_answer_of_any(path: Path, autojump_clock: Any) -> None:
    async with running(path) as (site, connection):
        visitors = await visitors_of(site)
        connection.is_full = True
        assert [answer.status for answer in await ask_all(visitors)] == [503] * 8
        assert [answer.status for answer in await ask_all(visitors)] == [503] * 8
        connection.is_full = False
        assert [answer.text for answer in await ask_all(visitors)] == ["4"] * 8
        assert await stored(path, visitors) == ["4"] * 8


async def test_what_a_commit_has_left_out_is_stored_soon(path: Path, autojump_clock: Any) -> None:
    async with running(path) as (site, connection):
        visitors = await visitors_of(site)
        connection.is_full = True
        await ask_all([*visitors, Visitor(site)])  # and one who is new
        connection.is_full = False
        await trio.sleep(1)
        assert await stored(path, visitors) == ["2"] * 8
        assert not site.persistence._unwritten  # type: ignore[union-attr]


async def test_a_session_that_takes_anothers_place_is_no_answer_before_its_commit(
    path: Path, autojump_clock: Any
) -> None:
    async with running(path) as (site, _):
        await visitors_of(site, 1)
    async with running(path) as (site, connection):
        site.sessions.max_sessions = 1
        connection.fails_once = True
        visitor = Visitor(site)
        assert (await visitor.get("/")).status == 503
        assert not connection.fails_once
        assert (await visitor.get("/")).text == "2"
        assert await stored(path, [visitor]) == ["2"]


async def test_who_only_reads_waits_for_what_is_shown(path: Path, autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        return reader(request) if request.path == "/read" else counter(request)

    async with running(path, page) as (site, connection):
        [visitor] = await visitors_of(site, 1)
        connection.is_full = True
        found: dict[str, Any] = {}

        async def ask(path: str) -> None:
            found[path] = await visitor.get(path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "/")
            nursery.start_soon(ask, "/read")
        read = found["/read"]
        assert found["/"].status == 503
        assert (read.status, read.text) == (200, "1") or read.status == 503


async def test_ends_and_new_ids_are_no_part_of_it(path: Path, autojump_clock: Any) -> None:
    def page(request: Request) -> str:
        session = request.getSession()
        if request.path == "/logout":
            session.expire()
            return "Bye"
        if request.path == "/login":
            session.regenerate()
        return counter(request)

    async with running(path, page) as (site, _):
        visitors = await visitors_of(site, 6)
        paths = ["/", "/logout", "/login"] * 2
        async with trio.open_nursery() as nursery:
            for visitor, path_ in zip(visitors, paths, strict=True):
                nursery.start_soon(visitor.get, path_)
        assert len(site.sessions) == 4
        assert await stored(path, visitors) == ["2", "0", "2"] * 2


# The store alone


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: SQLiteStore, key: bytes, blob: bytes) -> None:
    with store.grouping():
        store.put(key, blob, 60)
    await store.committed()


async def test_who_is_cancelled_has_put_it_all_the_same(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trio.open_nursery() as nursery:
                for key in KEYS:
                    nursery.start_soon(put, store, key, b"one")
        for key in KEYS:
            taken = await store.take(key)
            assert taken is not None and taken.blob == b"one"
    async with opened(path) as store:
        assert store.statistics().live == len(KEYS)


async def test_what_stops_meanwhile_commits_first(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        with store.grouping():
            store.put(KEYS[0], b"one", 60)
    async with opened(path) as store:
        assert await store.take(KEYS[0]) is not None


async def test_a_file_that_is_deleted_meanwhile_has_all(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store, trio.open_nursery() as nursery:
        with store.grouping():
            store.put(KEYS[0], b"one", 60)
            path.unlink()
            store.put(KEYS[1], b"two", 60)
        nursery.start_soon(store.committed)
    async with opened(path) as store:
        assert await store.take(KEYS[0]) is not None and await store.take(KEYS[1]) is not None


def vote(request: Request) -> str:
    """Counts in the registry, and has no session."""
    registry = request.site.registry
    if request.path == "/vote":
        registry["votes"] = registry.get("votes", 0) + 1
    return str(registry.get("votes"))


async def test_what_the_registry_alone_was_put_for_is_written_after_a_failure(
    path: Path, autojump_clock: Any
) -> None:
    async with running(path, vote) as (site, connection):
        assert (await Visitor(site).get("/vote")).text == "1"
        connection.is_full = True
        assert (await Visitor(site).get("/vote")).status == 503
        connection.is_full = False
        assert (await Visitor(site).get("/")).text == "2"
    async with running(path, vote) as (site, _):
        assert (await Visitor(site).get("/")).text == "2"


@pytest.mark.parametrize("count", [1, 3])
async def test_all_who_wait_are_told_of_a_failure(
    path: Path, count: int, autojump_clock: Any
) -> None:
    async with opened(path) as store:
        connection: Any = Connection(store._file)  # type: ignore[arg-type]
        store._file = connection
        connection.is_full = True
        failures: list[Unavailable] = []

        async def attempt(key: bytes) -> None:
            try:
                await put(store, key, b"one")
            except Unavailable as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            for key in KEYS[:count]:
                nursery.start_soon(attempt, key)
        connection.is_full = False
        assert [str(each) for each in failures] == [
            f"{path} cannot be used: the disk is full"
        ] * count
        assert await store.take(KEYS[0]) is None
