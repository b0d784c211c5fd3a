"""A store in a file, for one process: what the dev server keeps its sessions in.

One process at a time has the file. It says so by a lock on a file beside it, which the system
releases when the process dies, and in which its number can be read. Nobody else writes, so there
are no leases, and no method ever waits.

With the write-ahead log, what has been committed survives the death of the process, and with
``sync="full"`` that of the machine; without it the machine's last commits may be missing then, and
the file is sound. The log is brought into the file by a thread with a connection of its own, since
that waits for the disk. Except for that moment, SQLite has the file locked against everybody: it
need not lock it for each commit then, which would take as long as the commit itself.

Deadlines of sessions that were only read are written in one batch a second; so each is stored a
second late, and after a crash no session ends early.

What several requests have put is committed together, once for all that come in the same turn of
the loop: see `SQLiteStore.committed`. All else is committed by itself, after that.

The file is looked at before each commit, and each second: one that was deleted is written anew with
all it had, and one that is another now is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import trio

from rpyserve.stores.store import (
    REGISTRY,
    Ending,
    StoreError,
    StoreStatistics,
    Taken,
    Unavailable,
)
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

APPLICATION_ID: Final = 0x72707973
"""What the file says of itself: ``rpys``."""

VERSION: Final = 1
"""Of the tables. A file of a later one is left alone."""

FLUSH: Final = 1.0
"""Seconds between two batches of deadlines; each is stored that much later."""

LOG_SIZE: Final = 4 * 2**20
"""Bytes of the write-ahead log from which it is brought into the file."""

_NEVER: Final = 1e18
"""What stands for `math.inf`, in seconds since 1970."""

_TABLES: Final = f"""
create table records (
    key blob primary key,
    due real not null,
    claimed integer not null default 0,
    data blob not null
);
create index by_due on records (due);
pragma application_id = {APPLICATION_ID};
pragma user_version = {VERSION};
"""
# Most records are small, and a page is what a commit writes.
_PAGE_SIZE: Final = 2048

# Milliseconds in which somebody who looks into the file may be in the way of a write.
_BUSY: Final = 5000

_UPDATE: Final = "update records set data = ?, claimed = 0 where key = ?"
_WRITE: Final = (
    "insert into records (key, due, data) values (?, ?, ?) "
    "on conflict (key) do update set due = excluded.due, data = excluded.data, claimed = 0"
)
_IGNORED: Final = "# What the server keeps here is nobody else's business.\n*\n"
_CACHE_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory holds the sessions of a site; see https://bford.info/cachedir/\n"
)


class _Group:
    """What is committed together.

    Attributes:
        failure: why that was not possible.
        waiting: who waits for it, but for the first one, which commits it.
    """

    __slots__ = ("failure", "has_first", "waiting")

    def __init__(self) -> None:
        self.failure: Unavailable | None = None
        self.has_first = False
        self.waiting: list[trio.lowlevel.Task] = []


class Damaged(StoreError):
    """A file is a database that SQLite cannot read any more."""


class SQLiteStore:
    """Records in the SQLite file at *path*.

    Args:
        path: the file. Its directory is made, if need be.
        name: what people are told it is called.
        full_sync: whether each commit waits until the disk has it.
        clock: returns the time in seconds since 1970.
    """

    is_shared = False
    worker = b""

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        full_sync: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.name = name or str(path)
        self._full_sync = full_sync
        self._clock = clock
        self._lock: sqlite3.Connection | None = None
        self._file: sqlite3.Connection | None = None
        self._is_alone = False
        self._group: _Group | None = None
        self._is_grouping = False
        self._identity: tuple[int, int] | None = None
        self._live = 0
        self._path = os.fspath(path)
        # The deadlines that have changed since the last batch, and for how long a record was to
        # live when it was written as a whole.
        self._deadlines: dict[bytes, float] = {}
        self._lives: dict[bytes, float] = {}
        # What a process that died had claimed.
        self._adoptable: list[Ending] = []
        self._failures = ThrottledLogger(log)

    # Opening and closing

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the file, until cancelled. See `Store.run`."""
        self.open()
        try:
            task_status.started()
            while True:
                await trio.sleep(FLUSH)
                self._flush_deadlines_or_tell()
                await self._shorten_log()
                self._lock_out_others()  # if that was not possible before
        finally:
            self._commit_group()
            self._flush_deadlines_or_tell()
            with trio.CancelScope(shield=True):
                # What is left of the log is brought into the file by that, which takes its time.
                await trio.to_thread.run_sync(self.close)

    def open(self) -> None:
        """Have the file from now on.

        Raises:
            StoreError: another process has it, or it cannot be used.
        """
        try:
            _make_directory(self.path.parent)
            self._lock = self._take_lock()
            with contextlib.suppress(FileExistsError):  # nobody else is to read what is in it
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
            self._file = self._connect()
            self._check(self._file)
        except (OSError, sqlite3.Error) as exc:
            self.close()
            kind = Damaged if _has_code(exc, sqlite3.SQLITE_CORRUPT) else StoreError
            raise kind(self._why(exc)) from exc
        except StoreError:
            self.close()
            raise
        self._identity = self._identity_now()
        self._read_counts(self._file)
        self._lock_out_others()

    def close(self) -> None:
        """Let go of the file. Doing so twice does nothing."""
        for connection in (self._file, self._lock):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._file = self._lock = None

    def _take_lock(self) -> sqlite3.Connection:
        """Open the file beside that says who has this one.

        A process that only wants to know may read in it while it is locked.
        """
        beside = self.path.with_name(self.path.name + "-lock")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL, 0o600))
        lock = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            lock.execute("pragma synchronous = off")
            lock.execute("create table if not exists owner (pid integer)")
            lock.execute("begin immediate")
            lock.execute("delete from owner")
            lock.execute("insert into owner values (?)", (os.getpid(),))
            lock.execute("commit")
            lock.execute("begin immediate")
        except sqlite3.OperationalError as exc:
            owner = self._owner(lock) if _has_code(exc, sqlite3.SQLITE_BUSY) else None
            lock.close()
            if owner is None:
                raise
            raise StoreError(f"{self.name} is in use by process {owner}") from None
        return lock

    def _owner(self, lock: sqlite3.Connection) -> int | None:
        lock.execute("pragma busy_timeout = 1000")
        row = lock.execute("select pid from owner").fetchone()
        return None if row is None else int(row[0])

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"pragma page_size = {_PAGE_SIZE}")  # of a new file
            connection.execute("pragma journal_mode = wal")
            connection.execute(f"pragma synchronous = {'full' if self._full_sync else 'normal'}")
            connection.execute("pragma wal_autocheckpoint = 0")
        except sqlite3.Error:
            connection.close()
            raise
        self._is_alone = False
        return connection

    def _lock_out_others(self) -> None:
        """Have the file locked from now on, unless somebody else looks into it just now."""
        if self._file is not None and not self._is_alone:
            self._commit_group()
            self._is_alone = self._set_locking(self._file, "exclusive")
            if not self._is_alone:
                self._set_locking(self._file, "normal")

    def _let_others_in(self) -> None:
        if self._file is not None and self._is_alone:
            self._commit_group()
            self._is_alone = not self._set_locking(self._file, "normal")

    def _set_locking(self, file: sqlite3.Connection, mode: str) -> bool:
        """Return whether that was possible."""
        try:
            file.execute(f"pragma locking_mode = {mode}")
            file.execute("pragma busy_timeout = 0")
            try:
                file.execute("begin immediate")  # the mode holds from the next write on
                file.execute("commit")
            finally:
                file.execute(f"pragma busy_timeout = {_BUSY}")
        except sqlite3.Error:
            return False  # whoever writes next is told why
        return True

    def _check(self, file: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse one that is damaged, or not ours."""
        [application] = file.execute("pragma application_id").fetchone()
        [version] = file.execute("pragma user_version").fetchone()
        [tables] = file.execute("select count(*) from sqlite_master").fetchone()
        if not (application or tables):
            file.executescript(f"begin; {_TABLES} commit;")
            return
        if application != APPLICATION_ID:
            raise StoreError(f"{self.name} is another program's database: name another file")
        if version > VERSION:
            raise StoreError(
                f"{self.name} was written by a later rpyserve: use that, or name another file"
            )
        [found] = file.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise Damaged(f"{self.name} is damaged: {found.splitlines()[-1]}. {_WAY_OUT}")

    def _read_counts(self, file: sqlite3.Connection) -> None:
        rows = file.execute("select key, data from records where claimed").fetchall()
        self._adoptable = [Ending(key, data, adopted=True) for key, data in rows]
        [self._live] = file.execute(
            "select count(*) from records where not claimed and key != ?", (REGISTRY,)
        ).fetchone()

    # The file itself

    def _identity_now(self) -> tuple[int, int] | None:
        """What tells the file at the path from any other; None if there is none."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _usable(self) -> sqlite3.Connection:
        """The connection, once it is certain that others will find what is written there."""
        if self._lock is None:
            raise Unavailable(f"{self.name} is not open")
        try:
            found = self._identity_now()
            if found != self._identity:
                if found is not None or self._file is None:
                    raise Unavailable(f"{self.name} has been replaced by another file")
                self._commit_group()
                self._write_anew(self._file)
            if self._file is None:
                self._file = self._connect()
        except OSError as exc:
            raise Unavailable(self._why(exc)) from exc
        except sqlite3.Error as exc:
            self._fail(exc)
        return self._file

    def _write_anew(self, deleted: sqlite3.Connection) -> None:
        """Put the file back that was deleted: until it is closed, all is still there."""
        copy = self.path.with_name(self.path.name + ".new-wal")
        _make_directory(self.path.parent)
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL, 0o600))
        deleted.execute("vacuum into ?", (os.fspath(copy),))
        for end in ("-wal", "-shm"):  # those of the deleted one must not be taken for the new one's
            Path(f"{self.path}{end}").unlink(missing_ok=True)
        os.replace(copy, self.path)
        self._identity = self._identity_now()
        log.warning("%s was deleted while in use. It has been written anew.", self.name)
        self._file = None
        deleted.close()  # before there is another log of that name, as it removes that

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        if self._group is not None:
            self._commit_group()
        try:
            return self._usable().execute(sql, values)
        except sqlite3.Error as exc:
            self._fail(exc)

    def _execute_in_group(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        """Have this committed with what others put, while `grouping`."""
        if not self._is_grouping:
            return self._execute(sql, values)
        file = self._file if self._group is not None else self._usable()
        assert file is not None
        try:
            if not file.in_transaction:
                file.execute("begin immediate")
                self._group = _Group()
            return file.execute(sql, values)
        except sqlite3.Error as exc:
            if self._group is not None and not file.in_transaction:
                self._commit_group()  # nothing is left of it
            self._fail(exc)

    @contextlib.contextmanager
    def grouping(self) -> Iterator[None]:
        """See `SoleStore.grouping`."""
        self._is_grouping = True
        try:
            yield
        finally:
            self._is_grouping = False

    async def committed(self) -> None:
        """See `SoleStore.committed`."""
        group = self._group
        if group is None:
            return
        if group.has_first:
            group.waiting.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(_stay)
        else:
            group.has_first = True
            await trio.lowlevel.cancel_shielded_checkpoint()  # others join meanwhile
            if self._group is group:
                self._commit_group()
        if group.failure is not None:
            raise Unavailable(str(group.failure)) from group.failure

    def _commit_group(self) -> None:
        """Commit what was put together, if there is anything. Who waits for it is told if it fails.

        In a group that has failed in between, nothing is left to commit, which fails as well.
        """
        group, self._group = self._group, None
        if group is None:
            return
        assert self._file is not None
        try:
            self._file.execute("commit")
        except sqlite3.Error as exc:
            group.failure = Unavailable(self._why(exc))
            if self._file.in_transaction:
                self._file.execute("rollback")
        for task in group.waiting:
            trio.lowlevel.reschedule(task)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._commit_group()
        file = self._usable()
        if file.in_transaction:  # that of `together`
            yield file
            return
        try:
            file.execute("begin immediate")
            try:
                yield file
                file.execute("commit")
            except BaseException:
                if file.in_transaction:
                    file.execute("rollback")
                raise
        except sqlite3.Error as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> NoReturn:
        raise Unavailable(self._why(exc)) from exc

    def _why(self, exc: Exception) -> str:
        """What went wrong, in a sentence for the console."""
        if isinstance(exc, OSError):
            return f"{self.name} cannot be used: {exc.strerror or exc}"
        text = str(exc)
        reason = next((why for part, why in _REASONS.items() if part in text), text)
        return f"{self.name} cannot be used: {reason}"

    async def _shorten_log(self) -> None:
        """Bring a long log into the file, in a thread."""
        if self._log_size() >= LOG_SIZE:
            self._let_others_in()
            await trio.to_thread.run_sync(self._checkpoint)

    def _log_size(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        with (
            contextlib.suppress(sqlite3.Error),  # tried again in a second
            contextlib.closing(sqlite3.connect(self.path, timeout=0)) as connection,
        ):
            connection.execute("pragma wal_checkpoint(passive)")

    # Deadlines

    def _due(self, lives: float) -> float:
        return min(self._clock() + lives + FLUSH, _NEVER)

    def _flush_deadlines(self) -> None:
        if not self._deadlines:
            return
        batch = [(due, key) for key, due in self._deadlines.items()]
        with self._transaction() as file:
            file.executemany("update records set due = ? where key = ?", batch)
        self._deadlines.clear()

    def _flush_deadlines_or_tell(self) -> None:
        try:
            self._usable()  # it may have been deleted, and nobody has written since
            self._flush_deadlines()
        except Unavailable as exc:
            self._failures.warn("%s. Times of visits are not stored at present.", exc)

    # The records

    async def take(self, key: bytes, *, create: bool = False) -> Taken | None:
        """See `Store.take`."""
        return self._take(key, create=create)

    def take_blocking(self, key: bytes) -> Taken | None:
        """See `Store.take_blocking`."""
        return self._take(key)

    def _take(self, key: bytes, *, create: bool = False) -> Taken | None:
        row = self._execute(
            "select data, due from records where key = ? and not claimed", (key,)
        ).fetchone()
        if row is None:
            return Taken(key, b"", b"") if create else None
        data, due = row
        is_over = self._deadlines.get(key, due) <= self._clock()
        return None if is_over else Taken(key, b"", data)

    async def create(self, key: bytes, blob: bytes, lives: float) -> Taken:
        """See `Store.create`."""
        self._write_whole(key, blob, lives)
        self._live += 1
        return Taken(key, b"", blob)

    def _write_whole(self, key: bytes, blob: bytes, lives: float) -> None:
        self._execute_in_group(_WRITE, (key, self._due(lives), blob))
        self._deadlines.pop(key, None)
        self._lives[key] = lives

    async def write(self, taken: Taken, blob: bytes, lives: float) -> Taken:
        """See `Store.write`."""
        self.put(taken.key, blob, lives)
        return Taken(taken.key, b"", blob)

    def put(self, key: bytes, blob: bytes, lives: float) -> None:
        """See `SoleStore.put`."""
        is_as_before = abs(self._lives.get(key, _NEVER) - lives) < FLUSH
        # An index less to write. The deadline is written with the next batch.
        if is_as_before and self._execute_in_group(_UPDATE, (blob, key)).rowcount:
            self._deadlines[key] = self._due(lives)
        else:
            self._write_whole(key, blob, lives)

    def note_access(self, key: bytes, lives: float) -> None:
        """See `SoleStore.note_access`."""
        self._deadlines[key] = self._due(lives)

    async def give(
        self, taken: Taken, blob: bytes | None, lives: float | None, *, listens: bool = False
    ) -> None:
        """See `Store.give`."""
        if lives is None:
            if blob is not None:
                self._execute("update records set data = ? where key = ?", (blob, taken.key))
        elif blob is None:
            self.note_access(taken.key, lives)
        else:
            self.put(taken.key, blob, lives)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """See `SoleStore.together`."""
        with self._transaction():
            yield

    async def move(self, taken: Taken, key: bytes, blob: bytes, lives: float) -> Taken:
        """See `Store.move`."""
        with self._transaction() as file:
            file.execute("delete from records where key = ?", (taken.key,))
            file.execute(_WRITE, (key, self._due(lives), blob))
        self._deadlines.pop(taken.key, None)
        self._lives.pop(taken.key, None)
        return Taken(key, b"", blob)

    async def end(self, taken: Taken) -> tuple[bytes, ...]:
        """See `Store.end`."""
        self._forget(taken.key)
        return ()

    def _forget(self, key: bytes) -> None:
        removed = self._execute("delete from records where key = ? and not claimed", (key,))
        self._live -= removed.rowcount
        if not removed.rowcount:
            self._execute("delete from records where key = ?", (key,))
        self._deadlines.pop(key, None)
        self._lives.pop(key, None)

    # What is due

    async def evict(self) -> Ending | None:
        """See `Store.evict`."""
        found = self._claim(_NEVER, 1)
        return found[0] if found else None

    async def due(self, most: int) -> list[Ending]:
        """See `Store.due`."""
        return self._claim(self._clock(), most)

    def _claim(self, until: float, most: int) -> list[Ending]:
        self._flush_deadlines()
        rows = self._execute(
            "select key, data from records where due <= ? and not claimed and key != ? "
            "order by due limit ?",
            (until, REGISTRY, most),
        ).fetchall()
        if rows:
            with self._transaction() as file:
                keys = [(key,) for key, _ in rows]
                file.executemany("update records set claimed = 1 where key = ?", keys)
            self._live -= len(rows)
        return [Ending(key, data) for key, data in rows]

    async def ended(self, ending: Ending) -> None:
        """See `Store.ended`."""
        self._forget(ending.key)

    async def adopt(self) -> list[Ending]:
        """See `Store.adopt`."""
        adopted, self._adoptable = self._adoptable, []
        return adopted

    async def wait_told(self) -> bytes:
        """See `Store.wait_told`: there is no other worker."""
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def tell(self, worker: bytes, key: bytes) -> bool:
        """See `Store.tell`: there is no other worker."""
        return False

    async def clear(self) -> int:
        """See `Store.clear`. A damaged file goes as well, but no other that is not ours."""
        if self._identity_now() is None:
            return 0
        try:
            self.open()
            count = self._live
        except Damaged:
            count = 0
        if self._file is not None:
            self._file.close()  # Windows removes no file that is open; the lock is still ours
        self._remove_files()
        self.close()
        return count

    def _remove_files(self) -> None:
        try:
            for end in ("", "-wal", "-shm"):
                Path(f"{self.path}{end}").unlink(missing_ok=True)
        except OSError as exc:
            raise StoreError(self._why(exc)) from exc

    def statistics(self) -> StoreStatistics:
        """See `Store.statistics`."""
        return StoreStatistics(self._live)


def _stay(raise_cancel: object) -> trio.lowlevel.Abort:
    """A commit comes in the next turn of the loop: who waits for it is not cut off."""
    return trio.lowlevel.Abort.FAILED


_WAY_OUT: Final = "Put a copy in its place, or empty it by `rpyserve --forget`"

# What SQLite says, or a part of it, and what it means here.
_REASONS: Final = {
    "file is not a database": "it is no database. Name another file, or delete it",
    "disk image is malformed": f"it is damaged. {_WAY_OUT}",
    "disk is full": "the disk is full",
    "readonly database": "it, or its directory, cannot be written",
    "unable to open": "it, or its directory, cannot be written",
    "locking protocol": "the disk keeps no locks, as some network drives. Name a file elsewhere",
    "disk I/O error": "the disk fails, or keeps no locks, as some network drives",
}


def _has_code(exc: Exception, code: int) -> bool:
    """Whether *exc* is an error of SQLite with that primary result code."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF == code


def _make_directory(directory: Path) -> None:
    """Make the directory; one of our own keeps itself out of repositories and backups."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.name == ".rpyserve" and not (directory / ".gitignore").exists():
        (directory / ".gitignore").write_text(_IGNORED, encoding="utf-8")
        (directory / "CACHEDIR.TAG").write_text(_CACHE_TAG, encoding="utf-8")
