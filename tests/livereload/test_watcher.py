"""The watch on a site's directories: real files, real events.

It waits for the system, so it is marked ``process``.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve.livereload import watcher
from rpyserve.livereload.snapshot import FileChanges

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent

LIMIT = 20
"""Seconds: far more than anything here takes."""


class Watched:
    """A site that is being watched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.batches: list[FileChanges] = []
        self._news = trio.Event()

    def tell(self, batch: FileChanges) -> None:
        self.batches.append(batch)
        self._news.set()

    async def batch(self) -> FileChanges:
        """The next batch."""
        with trio.fail_after(LIMIT):
            while not self.batches:
                self._news = trio.Event()
                await self._news.wait()
        return self.batches.pop(0)

    async def until(self, *names: str) -> list[set[str]]:
        """What each batch told of, until all of *names* have been told of."""
        told: list[set[str]] = []
        while not set(names) <= set().union(*told):
            told.append(self.names((await self.batch()).files))
        return told

    def names(self, paths: Any) -> set[str]:
        return {Path(os.path.relpath(path, self.root)).as_posix() for path in paths}

    def write(self, name: str, text: str = "x") -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)


@asynccontextmanager
async def watching(
    *roots: Path, poll: bool = False, eager: bool = True, looks: watcher.Looks | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(roots[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                watcher.watch,
                [str(root) for root in roots],
                watched.tell,
                poll=poll,
                eager=lambda: eager,
                looks=looks,
            )
        )
        yield watched
        nursery.cancel_scope.cancel()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = Path(os.path.realpath(tmp_path)) / "site"
    (root / "sub").mkdir(parents=True)
    for name in ("a.rpy", "words.py", "style.css", "sub/b.txt"):
        (root / name).write_text("before")
    return root


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "POLL", 0.02)


@pytest.fixture(params=[False, True], ids=["events", "polling"])
def poll(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def in_place(path: Path) -> None:
    path.write_text("after, in place")


def renamed(path: Path) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text("after, renamed")
    os.replace(beside, path)


def with_backup(path: Path) -> None:
    os.replace(path, path.with_name(path.name + "~"))
    path.write_text("after, with backup")


def deleted_and_created(path: Path) -> None:
    path.unlink()
    path.write_text("after, created")


def touched(path: Path) -> None:
    os.utime(path)


@pytest.mark.parametrize("name", ["a.rpy", "words.py", "style.css", "sub/b.txt"])
@pytest.mark.parametrize("save", [in_place, renamed, with_backup, deleted_and_created, touched])
async def test_however_an_editor_saves(
    site: Path, save: Callable[[Path], None], name: str, poll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "QUIET", 2)  # however busy the machine is
    monkeypatch.setattr(watcher, "LONGEST", LIMIT)
    async with watching(site, poll=poll) as watched:
        save(site / name)
        batch = await watched.batch()
        while name not in watched.names(batch.files):  # a temporary file beside it came first
            batch = await watched.batch()
        assert name not in watched.names(batch.added_or_removed), (
            "it was there before, and is there now"
        )


async def test_edits_within_one_second_are_all_seen(site: Path, poll: bool) -> None:
    async with watching(site, poll=poll) as watched:
        for n in range(4):
            (site / "a.rpy").write_text(str(n))
            assert watched.names((await watched.batch()).files) == {"a.rpy"}


async def test_a_branch_switch_is_one_batch(
    site: Path, poll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "QUIET", 0.5)  # however busy the machine is,
    monkeypatch.setattr(watcher, "LONGEST", LIMIT)
    monkeypatch.setattr(watcher, "MANY", 1)  # and however few it has written at the first scan
    names = {f"f{n}.css" for n in range(100)}
    for name in names:
        (site / name).write_text("before")
    async with watching(site, poll=poll) as watched:
        for name in names:
            renamed(site / name)
        assert watched.names((await watched.batch()).files) == names


@pytest.mark.parametrize("eager", [False, True])
async def test_after_a_look_all_that_was_saved_before_is_told(
    site: Path, poll: bool, eager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "POLL", LIMIT)  # nobody waits for the next scan
    looks = watcher.Looks()
    async with watching(site, poll=poll, eager=eager, looks=looks) as watched:
        for n in range(20):
            names = {"a.rpy", *(f"new{n}/{i}.txt" for i in range(n))}
            for name in sorted(names):
                watched.write(name, f"text {n}")
            with trio.fail_after(LIMIT):
                await looks.wait_look()
            told = set().union(*(watched.names(each.files) for each in watched.batches))
            assert names <= told
            watched.batches.clear()
        before = looks.answered
        with trio.fail_after(LIMIT):
            await looks.wait_look()
        assert not watched.batches and looks.answered > before


async def test_several_looks_at_once(site: Path) -> None:
    looks = watcher.Looks()
    async with watching(site, looks=looks) as watched, trio.open_nursery() as nursery:
        watched.write("a.rpy")
        for _ in range(5):
            nursery.start_soon(looks.wait_look)
        with trio.fail_after(LIMIT):
            await looks.wait_look()
    assert watched.batches and not looks.is_wanted


def scripted(site: Path, *steps: Callable[[], object]) -> watcher._Watcher:
    """A watcher that hears of all files that a test writes, after each of *steps*."""
    played = watcher._Watcher((str(site),), False, lambda: True, watcher.Looks())
    played.scan()
    played.wait_batch()
    names = ("a.rpy", "style.css", "4913", *(f"f{n}.css" for n in range(20)))

    def events() -> watcher._Events:
        for step in steps:
            step()
            yield {(1, str(site / name)) for name in names}
        while True:
            yield set()

    assert played._events is not None
    played._events.close()
    played._events = events()
    return played


def test_a_save_in_two_halves_is_one_change(site: Path) -> None:
    path = site / "a.rpy"
    for first in (path.unlink, partial(path.write_text, "")):
        batch = scripted(site, first, partial(path.write_text, "after"), path.unlink).wait_batch()
        assert str(path) in batch.files and not batch.added_or_removed and not batch.incomplete


def test_a_file_that_stays_away_is_gone(site: Path) -> None:
    path = site / "a.rpy"
    batch = scripted(site, path.unlink).wait_batch()
    assert batch.added_or_removed == {str(path)}


def test_a_file_that_comes_and_goes_is_nothing(site: Path) -> None:
    probe = site / "4913"
    batch = scripted(site, partial(probe.write_text, ""), probe.unlink).wait_batch()
    assert str(probe) not in batch.files


def test_one_file_waits_for_no_others_but_many_do(site: Path) -> None:
    def some(*numbers: int) -> None:
        for n in numbers:
            (site / f"f{n}.css").write_text("x")

    played = scripted(site, lambda: None, lambda: some(1))
    played.wait_batch()
    assert str(site / "f1.css") in played.wait_batch().files
    batch = scripted(site, lambda: some(2, 3, 4), lambda: some(6)).wait_batch()
    assert {str(site / "f2.css"), str(site / "f6.css")} <= batch.files.keys()


async def test_a_directory_is_renamed(site: Path, poll: bool) -> None:
    async with watching(site, poll=poll) as watched:
        (site / "sub").rename(site / "sub2")
        batch = await watched.batch()
        assert watched.names(batch.files) == {"sub/b.txt", "sub2/b.txt"}
        assert watched.names(batch.directories) == {"sub", "sub2"}
        in_place(site / "sub2" / "b.txt")
        assert watched.names((await watched.batch()).files) == {"sub2/b.txt"}


async def test_a_new_directory_is_watched_as_well(site: Path, poll: bool) -> None:
    async with watching(site, poll=poll) as watched:
        watched.write("new/deep/x.css")
        await watched.until("new/deep/x.css")
        in_place(site / "new" / "deep" / "x.css")
        assert (await watched.until("new/deep/x.css"))[-1] == {"new/deep/x.css"}


@pytest.mark.parametrize(
    "ignored", ["node_modules", ".git", "lib/site-packages", "__pycache__", "env"]
)
async def test_ignored_directories_are_never_told_of(site: Path, ignored: str, poll: bool) -> None:
    def make() -> None:
        if ignored == "env":
            watched.write("env/pyvenv.cfg")
        for name in ("x.py", "bin/x.py"):
            watched.write(f"{ignored}/{name}")

    async with watching(site, poll=poll) as watched:
        make()  # comes later
        watched.write("a.rpy", "after")
        told = await watched.until("a.rpy")
        watched.write(f"{ignored}/bin/x.py", "again")
        watched.write("style.css", "after")
        told += await watched.until("style.css")
        assert set().union(*told) == {"a.rpy", "style.css"}
    async with watching(site, poll=poll) as watched:  # was there before
        watched.write(f"{ignored}/x.py", "again")
        watched.write(f"{ignored}/new.py")
        watched.write("a.rpy", "again")
        assert await watched.until("a.rpy") == [{"a.rpy"}]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere one handle covers a tree"
)
async def test_ignored_directories_cost_no_watches(site: Path) -> None:
    for ignored in ("node_modules", ".git", "env/lib"):
        for n in range(20):
            (site / ignored / str(n)).mkdir(parents=True)
    (site / "env" / "pyvenv.cfg").write_text("")
    before = inotify_watches()
    async with watching(site):
        # The site, and sub.
        await trio.to_thread.run_sync(wait_for, lambda: inotify_watches() - before == 2)
        (site / "more").mkdir()
        (site / "more" / "x.css").write_text("x")
        (site / "node_modules" / "late").mkdir()
        await trio.to_thread.run_sync(wait_for, lambda: inotify_watches() - before == 3)


def inotify_watches() -> int:
    count = 0
    for entry in os.scandir("/proc/self/fdinfo"):
        try:
            count += Path(entry.path).read_text().count("inotify wd:")
        except OSError:
            continue
    return count


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("replace", ["renamed", "removed"])
async def test_the_site_goes_and_comes_back(site: Path, replace: str, poll: bool) -> None:
    copy = site.with_name("copy")  # in the meantime, as for a directory that is made anew
    shutil.copytree(site, copy)
    async with watching(site, poll=poll) as watched:
        if replace == "renamed":
            os.rename(site, site.with_name("away"))
        else:
            shutil.rmtree(site)
        everything = {"a.rpy", "words.py", "style.css", "sub/b.txt"}
        gone = await watched.until(*everything)
        assert set().union(*gone) == everything
        copy.rename(site)
        await watched.until(*everything)
        in_place(site / "a.rpy")
        assert (await watched.until("a.rpy"))[-1] == {"a.rpy"}


async def test_two_roots(site: Path, poll: bool) -> None:
    other = site.with_name("other")
    other.mkdir()
    async with watching(site, other, poll=poll) as watched:
        (other / "x.css").write_text("x")
        assert watched.names((await watched.batch()).files) == {"../other/x.css"}


async def test_cancelling_waits_for_nothing(site: Path) -> None:
    async with watching(site):
        start = time.monotonic()
    assert time.monotonic() - start < watcher.ROOT_CHECK / 2


@pytest.mark.parametrize(
    ("exc", "sentence"),
    [
        (
            OSError('OS file watch limit reached. about ["/site"] (Error { kind: MaxFilesWatch })'),
            "This system's limit of watched directories is reached "
            "(to raise it: sudo sysctl fs.inotify.max_user_watches=524288).",
        ),
        (
            RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"),
            "This system's limit of open files, or of programs that watch files, is reached "
            "(to raise the latter: sudo sysctl fs.inotify.max_user_instances=1024).",
        ),
        (
            RuntimeError("error in underlying watcher:\nlost"),
            "The system gives no file events (error in underlying watcher: lost).",
        ),
    ],
    ids=["watches", "instances", "another"],
)
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_files_are_polled_once_the_watch_fails(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    exc: Exception,
    sentence: str,
    later: bool,
) -> None:
    def fail(*directories: str, **options: object) -> Iterator[set[tuple[int, str]]]:
        if later:
            yield set()
        raise exc

    monkeypatch.setattr("watchfiles.watch", fail)
    async with watching(site) as watched:
        for text in ("one", "two"):
            (site / "a.rpy").write_text(text)
            assert watched.names((await watched.batch()).files) == {"a.rpy"}
    (record,) = caplog.records
    assert record.message == f"{sentence} Polling every 0.02 seconds instead."


UNDER_A_LIMIT = """
import logging, os, sys, trio
from rpyserve.livereload import watcher

logging.basicConfig(format="%(message)s", stream=sys.stdout)
site = sys.argv[1]

async def main():
    def tell(batch):
        print(*sorted(os.path.relpath(path, site) for path in batch.files), flush=True)
        if any(path.endswith("last.txt") for path in batch.files):
            nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.watch, [site], tell)
        with open(os.path.join(site, "d9", "last.txt"), "w"):
            pass

trio.run(main)
"""


def test_a_limit_that_is_reached_half_way(site: Path) -> None:
    """A real limit, of a user namespace: the system watches 5 of 11 directories."""
    unshare = shutil.which("unshare")
    limited = "echo 5 > /proc/sys/user/max_inotify_watches"
    begin = [unshare or "unshare", "--user", "--map-root-user", "sh", "-c"]
    if not unshare or subprocess.run([*begin, limited], capture_output=True).returncode:
        pytest.skip("no user namespaces here, or they have no limits of their own")
    for n in range(10):
        (site / f"d{n}").mkdir()
    done = subprocess.run(
        [*begin, f'{limited} && exec "$@"', "sh", sys.executable, "-c", UNDER_A_LIMIT, str(site)],
        capture_output=True, text=True, timeout=LIMIT, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    first, last = done.stdout.splitlines()
    assert first.startswith("This system's limit of watched directories is reached")
    assert last == "d9/last.txt"


# Names that are no text


@pytest.fixture
def latin_1(site: Path) -> Callable[[str], Path]:
    """Makes a path in the site whose name is ISO 8859-1, as in an old archive, not UTF-8."""

    def path(name: str) -> Path:
        return Path(os.fsdecode(os.fsencode(site) + b"/" + name.encode("latin-1")))

    try:
        path("é").touch()
        path("é").unlink()
    except OSError:
        pytest.skip("this file system takes no such names")
    return path


async def test_a_name_that_is_no_text_does_not_end_the_watch(
    site: Path, latin_1: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(site) as watched:
        for text in ("one", "two"):
            latin_1("café.txt").write_text(text)
            assert (await watched.batch()).files.keys() == {str(latin_1("café.txt"))}
            in_place(site / "a.rpy")
            await watched.until("a.rpy")
    assert not caplog.records


async def test_a_directory_whose_name_is_no_text(
    site: Path, latin_1: Callable[[str], Path], poll: bool, caplog: pytest.LogCaptureFixture
) -> None:
    latin_1("été").mkdir()
    async with watching(site, poll=poll) as watched:
        for text in ("one", "two"):
            (latin_1("été") / "a.txt").write_text(text)
            assert (await watched.batch()).files.keys() == {str(latin_1("été") / "a.txt")}
            in_place(site / "a.rpy")
            await watched.until("a.rpy")
        (latin_1("été") / "deep").mkdir()  # one that can be watched, below one that cannot
        assert (await watched.batch()).directories
        latin_1("hiver").mkdir()
        assert (await watched.batch()).directories
        for path in (latin_1("hiver") / "a.txt", latin_1("été") / "deep" / "b.txt"):
            path.write_text("x")
            assert (await watched.batch()).files.keys() == {str(path)}
    assert not caplog.records


# Failures


@pytest.mark.parametrize("where", ["scan", "wait", "tell"])
async def test_a_watch_that_fails_begins_anew(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    failures = [MemoryError(), MemoryError()]

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return function(*args)

        return call

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(watcher, "RETRY", 0.02)
    if where != "tell":
        name = {"scan": "scan", "wait": "wait_batch"}[where]
        monkeypatch.setattr(watcher._Watcher, name, failing(getattr(watcher._Watcher, name)))
    else:
        monkeypatch.setattr(Watched, "tell", failing(Watched.tell))
    async with watching(site) as watched:
        while not any("again." in record.message for record in caplog.records):
            in_place(site / "a.rpy")
            await trio.sleep(0.02)
        in_place(site / "style.css")
        await watched.until("style.css")
    first, last = (record.message for record in caplog.records)
    assert first == (
        "Watching the files failed (MemoryError). Pages do not follow edits until that works "
        "again; it is tried every 0.02 seconds."
    )
    assert last == "The files are being watched again."


async def test_the_library_adds_nothing_to_the_log(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watching(site) as watched:
        in_place(site / "a.rpy")
        await watched.batch()
    assert not caplog.records


async def test_polling_asks_for_no_events(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchfiles.watch", None)
    async with watching(site, poll=True) as watched:
        in_place(site / "sub" / "b.txt")
        assert watched.names((await watched.batch()).files) == {"sub/b.txt"}


def test_drives_of_windows_under_wsl_are_polled_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher.platform, "release", lambda: "5.15.0-microsoft-standard-WSL2")
    assert watcher._sends_no_events(["/mnt/c/site"]) and not watcher._sends_no_events(
        ["/home/ada/site"]
    )
    monkeypatch.setattr(watcher.platform, "release", lambda: "6.1.0")
    assert not watcher._sends_no_events(["/mnt/c/site"])
