"""The store in a file: what it keeps, what it costs, and what becomes of bad files."""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Site
from rpyserve.files import path_rules
from rpyserve.livereload.snapshot import Snapshot
from rpyserve.stores.sqlite import APPLICATION_ID, LOG_SIZE, SQLiteStore
from rpyserve.stores.store import REGISTRY, StoreError, Taken, Unavailable
from tests.support.in_process import Visitor

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".rpyserve" / "sessions.db"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, clock=trio.current_time, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def taken_blob(store: SQLiteStore, key: bytes) -> bytes | None:
    taken = await store.take(key)
    return None if taken is None else taken.blob


def why_not(path: Path) -> str:
    store = SQLiteStore(path, name="sessions.db")
    with pytest.raises(StoreError) as caught:
        store.open()
    store.close()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 200
    return message


# What it keeps


async def test_records_outlive_the_process(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        assert await taken_blob(store, KEY) == b"one"
        await store.write(taken, b"two", 60)
        assert store.statistics().live == 1
    async with opened(path) as store:
        assert await taken_blob(store, KEY) == b"two"
        assert await taken_blob(store, OTHER) is None
        assert store.statistics().live == 1
        await store.end(taken)
        assert await taken_blob(store, KEY) is None
        assert store.statistics().live == 0
    async with opened(path) as store:
        assert await taken_blob(store, KEY) is None


async def test_the_registry_is_made_when_it_is_taken(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.take(REGISTRY, create=True)
        assert taken == Taken(REGISTRY, b"", b"")
        await store.give(taken, b"notes", math.inf)
        assert store.statistics().live == 0  # it is no session
    async with opened(path) as store:
        assert await taken_blob(store, REGISTRY) == b"notes"
        assert await store.due(10) == [] and await store.evict() is None


async def test_a_record_moves_in_one_step(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        moved = await store.move(taken, OTHER, b"two", 60)
        assert await store.take(KEY) is None
        assert await store.take(OTHER) == moved == Taken(OTHER, b"", b"two")
        assert store.statistics().live == 1


async def test_what_is_due_is_claimed_once(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        for second in range(1, 4):
            await store.create(bytes([second]) * 32, b"%d" % second, second)
        await store.create(OTHER, b"later", 60)
        await trio.sleep(2.5 + 1)  # a second late, as times of visits come a second late
        first = await store.due(1)
        assert [ending.blob for ending in first] == [b"1"]
        assert [ending.blob for ending in await store.due(10)] == [b"2"]
        assert await store.due(10) == []
        assert await store.take(b"\1" * 32) is None and store.statistics().live == 2
        await store.ended(first[0])
    async with opened(path) as store:  # it died before it had ended the second
        [ending] = await store.adopt()
        assert ending.blob == b"2" and ending.adopted
        assert await store.adopt() == []
        await store.ended(ending)
    async with opened(path) as store:
        assert await store.adopt() == []


async def test_what_is_due_next_makes_room(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"first", 10)
        await store.create(OTHER, b"second", 20)
        await store.give(taken, None, 30)  # read, and not yet written
        ending = await store.evict()
        assert ending is not None and ending.blob == b"second"


async def test_what_is_due_is_not_there(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 10)
        await trio.sleep(9)
        await store.give(taken, None, 10)
        await trio.sleep(9)
        assert await store.take(KEY) is not None
        await trio.sleep(3)
        assert await store.take(KEY) is None


async def test_a_change_that_is_no_access_leaves_the_time(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 10)
        await trio.sleep(5)
        await store.give(taken, b"two", None)
        assert await taken_blob(store, KEY) == b"two"
        await trio.sleep(7)
        assert await store.take(KEY) is None


# What it costs


async def test_reading_is_written_once_a_second(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        await trio.sleep(1.5)
        statements: list[str] = []
        store._file.set_trace_callback(statements.append)  # type: ignore[union-attr]
        for _ in range(100):
            await store.take(KEY)
            await store.give(taken, None, 60)
        assert not [each for each in statements if not each.startswith("select")]
        await trio.sleep(1)
        assert len([each for each in statements if each.startswith("update")]) == 1


async def test_a_long_log_is_brought_into_the_file(path: Path) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"", 60)
        for number in range(12):
            taken = await store.write(taken, bytes([number]) * (LOG_SIZE // 10), 60)
        assert path.stat().st_size < LOG_SIZE // 100
        await store._shorten_log()
        assert path.stat().st_size > LOG_SIZE // 10
        assert await taken_blob(store, KEY) == taken.blob
    assert not Path(f"{path}-wal").exists()


@pytest.mark.parametrize(("full", "level"), [(False, 1), (True, 2)])
async def test_how_sure_a_commit_is(path: Path, full: bool, level: int) -> None:
    async with opened(path, full_sync=full) as store:
        assert store._file.execute("pragma synchronous").fetchone() == (level,)  # type: ignore[union-attr]
        assert store._file.execute("pragma journal_mode").fetchone() == ("wal",)  # type: ignore[union-attr]
        assert store._file.execute("pragma wal_autocheckpoint").fetchone() == (0,)  # type: ignore[union-attr]


# Where it lies, and that nobody sees it


async def test_nothing_of_it_is_served_or_watched(tmp_path: Path, autojump_clock: Any) -> None:
    (tmp_path / "page.rpy").write_text("def resource(request): return 'Hello'")
    site = Site(Directory(tmp_path))
    snapshot = Snapshot([str(tmp_path)])
    snapshot.scan()
    async with opened(tmp_path / ".rpyserve" / "sessions.db") as store, site.running():
        await store.create(KEY, b"one", 60)
        assert not snapshot.scan()
        for file in (tmp_path / ".rpyserve").iterdir():
            assert (await Visitor(site).get(f"/.rpyserve/{file.name}")).status == 404
        listing = (await Visitor(site).get("/")).text
        assert "page.rpy" in listing and ".rpyserve" not in listing


async def test_its_directory_keeps_itself_out_of_repositories_and_backups(path: Path) -> None:
    async with opened(path):
        assert (path.parent / ".gitignore").read_text().splitlines()[-1] == "*"
        tag = (path.parent / "CACHEDIR.TAG").read_text()
        assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
        files = {file.name for file in path.parent.iterdir()}
        assert {"sessions.db", "sessions.db-lock", "sessions.db-wal"} <= files
        assert path_rules.refusal(".rpyserve", top=True)
        for name in ("sessions.db", "sessions.db-lock", "sessions.db-wal", "sessions.db-shm"):
            assert os.stat(path.parent / name).st_mode & 0o077 == 0


async def test_a_directory_of_others_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    async with opened(tmp_path / "data" / "kept.db"):
        assert not (tmp_path / "data" / ".gitignore").exists()


# Who has it


async def test_one_process_at_a_time_has_it(path: Path) -> None:
    async with opened(path):
        assert why_not(path) == f"sessions.db is in use by process {os.getpid()}"
    hold = f"""
import sys
from pathlib import Path
from rpyserve.stores.sqlite import SQLiteStore
SQLiteStore(Path({str(path)!r})).open()
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert why_not(path) == f"sessions.db is in use by process {other.pid}"
        with pytest.raises(StoreError, match="in use"):
            await SQLiteStore(path).clear()
        other.kill()
    async with opened(path):
        pass


# Bad files


def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"Dear diary, " * 1000)
    assert "it is no database. Name another file, or delete it" in why_not(path)
    assert path.read_bytes().startswith(b"Dear diary")


async def test_a_file_that_is_no_database_is_not_emptied(path: Path) -> None:
    test_a_file_that_is_no_database(path)
    with pytest.raises(StoreError, match="it is no database"):
        await SQLiteStore(path).clear()
    assert path.read_bytes().startswith(b"Dear diary")


def test_the_database_of_another_program(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as file:
        file.execute("create table customers (name)")
    assert "another program's database" in why_not(path)


async def test_the_database_of_another_program_is_not_emptied(path: Path) -> None:
    test_the_database_of_another_program(path)
    with pytest.raises(StoreError):
        await SQLiteStore(path).clear()
    assert path.exists()


async def test_a_file_of_a_later_version(path: Path) -> None:
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as file:
        file.execute("pragma user_version = 2")
    assert "a later rpyserve" in why_not(path)


async def test_a_damaged_file(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        for number in range(200):
            await store.create(bytes([number]) * 32, b"x" * 300, 60)
    data = bytearray(path.read_bytes())
    for place in range(4096 + 20, len(data), 4096):
        data[place : place + 200] = b"\xff" * 200
    path.write_bytes(data)
    message = why_not(path)
    assert "damaged" in message
    assert "rpyserve --forget" in message
    await SQLiteStore(path).clear()
    async with opened(path) as store:
        assert store.statistics().live == 0


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in why_not(tmp_path / "file" / "sessions.db")
    (tmp_path / "sessions.db").mkdir()
    assert "cannot be" in why_not(tmp_path / "sessions.db")


def test_a_disk_that_keeps_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise sqlite3.OperationalError("locking protocol")

    monkeypatch.setattr(sqlite3, "connect", fail)
    assert "the disk keeps no locks, as some network drives. Name a file elsewhere" in why_not(path)


async def test_a_full_disk(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        store._file.execute("pragma max_page_count = 5")  # type: ignore[union-attr]
        with pytest.raises(Unavailable, match="the disk is full"):
            await store.write(taken, b"x" * 100_000, 60)
        assert await taken_blob(store, KEY) == b"one"
        store._file.execute("pragma max_page_count = 1000000")  # type: ignore[union-attr]
        await store.write(taken, b"x" * 100_000, 60)


async def test_a_disk_that_cannot_be_written(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        store._file.execute("pragma query_only = on")  # type: ignore[union-attr]
        for attempt in (
            store.write(taken, b"two", 60),
            store.move(taken, OTHER, b"two", 60),
            store.end(taken),
        ):
            with pytest.raises(Unavailable, match="cannot be written"):
                await attempt
        assert store.statistics().live == 1


async def test_times_of_visits_that_cannot_be_written_are_told_and_kept(
    path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        await store.give(taken, None, 600)
        store._file.execute("pragma query_only = on")  # type: ignore[union-attr]
        await trio.sleep(5)
        assert len(caplog.messages) == 1 and "Times of visits" in caplog.text
        store._file.execute("pragma query_only = off")  # type: ignore[union-attr]
        await trio.sleep(100)
        assert await store.take(KEY) is not None


# A file that is deleted while it is in use


@pytest.mark.parametrize("with_directory", [False, True])
async def test_a_deleted_file_is_written_anew_with_all_it_had(
    path: Path, with_directory: bool, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await store.create(OTHER, b"other", 60)
        taken = await store.create(KEY, b"one", 60)
        for file in path.parent.glob("*" if with_directory else "sessions.db*"):
            if with_directory or not file.name.endswith("-lock"):
                file.unlink()
        if with_directory:
            path.parent.rmdir()
        await store.write(taken, b"two", 60)
        assert "was deleted while in use. It has been written anew." in caplog.text
        await store.write(taken, b"three", 60)
        data = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    copy = path.with_name("copy.db")
    copy.write_bytes(data[0])
    Path(f"{copy}-wal").write_bytes(data[1])
    for file in (path, copy):
        async with opened(file) as store:
            assert await taken_blob(store, KEY) == b"three"
            assert await taken_blob(store, OTHER) == b"other"


@pytest.mark.parametrize("fails_at", ["replace", "connect"])
async def test_a_file_that_cannot_be_written_anew_is_lost_only_with_the_process(
    path: Path, fails_at: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with opened(path) as store:
        await store.create(OTHER, b"other", 60)
        taken = await store.create(KEY, b"one", 60)
        path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(
                *{"replace": (os, "replace"), "connect": (sqlite3, "connect")}[fails_at], fail
            )
            for _ in range(2):
                with pytest.raises(Unavailable, match="Too many open files"):
                    await store.write(taken, b"two", 60)
        await store.write(taken, b"three", 60)
    async with opened(path) as store:
        assert await taken_blob(store, KEY) == b"three"
        assert await taken_blob(store, OTHER) == b"other"


async def test_a_deleted_file_is_back_before_anybody_writes(
    path: Path, autojump_clock: Any
) -> None:
    async with opened(path) as store:
        await store.create(KEY, b"one", 60)
        path.unlink()
        await trio.sleep(1.5)
        assert path.exists()
        path.unlink()
    async with opened(path) as store:  # or when the server stops
        assert await taken_blob(store, KEY) == b"one"


async def test_nobody_else_can_look_into_it_but_for_a_moment(path: Path) -> None:
    def look() -> int:
        with closing(sqlite3.connect(path, timeout=0)) as file:
            return file.execute("select count(*) from records").fetchone()[0]

    async with opened(path) as store:
        await store.create(KEY, b"one", 60)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            look()
    assert look() == 1


async def test_somebody_who_looks_into_it_is_in_nobodys_way(
    path: Path, autojump_clock: Any
) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin")
        assert other.execute("select count(*) from records").fetchone() == (1,)
        async with opened(path) as store:
            await store.write(taken, b"two", 60)
            other.execute("commit")
            assert other.execute("select data from records").fetchone() == (b"two",)
            other.close()
            await trio.sleep(1.5)
            with (
                closing(sqlite3.connect(path, timeout=0)) as late,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                late.execute("select data from records")
            await store.write(taken, b"three", 60)
            assert await taken_blob(store, KEY) == b"three"


async def test_a_file_in_its_place_is_left_alone(path: Path, autojump_clock: Any) -> None:
    async with opened(path) as store:
        taken = await store.create(KEY, b"one", 60)
        path.rename(path.with_name("away.db"))
        path.write_bytes(b"something else")
        with pytest.raises(Unavailable, match="replaced by another file"):
            await store.write(taken, b"two", 60)
        path.unlink()
        path.with_name("away.db").rename(path)
        await store.write(taken, b"two", 60)
    async with opened(path) as store:
        assert await taken_blob(store, KEY) == b"two"


# Emptying


async def test_emptying_it_says_how_many_there_were(path: Path, autojump_clock: Any) -> None:
    assert await SQLiteStore(path).clear() == 0
    assert not path.parent.exists()
    async with opened(path) as store:
        await store.create(KEY, b"one", 60)
        await store.create(OTHER, b"two", 60)
        await store.take(REGISTRY, create=True)
    assert await SQLiteStore(path).clear() == 2
    async with opened(path) as store:
        assert store.statistics().live == 0 and await store.take(KEY) is None


def test_its_number_is_its_name() -> None:
    assert APPLICATION_ID.to_bytes(4, "big") == b"rpys"
