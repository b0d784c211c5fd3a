"""Noticing saves: watches the directories of a site, and reports each batch of changes.

The only user of watchfiles. The system's events are hints where to look (see `snapshot`). Where
there is one handle for each directory, only the site's own directories are watched, so that an
environment inside the site costs nothing; where one handle covers a tree, the root is watched.
Without events, or with events of some directories only, the directories are scanned again and
again.

watchfiles takes and tells names in UTF-8 only. A directory with another name is scanned now and
then; an event of a file with another name ends its watch, so all is scanned and watched anew.

All of the work is done in one thread. Whoever cancels `watch` never waits for it. A failure, such
as for lack of memory, ends no watch: it begins anew after a while, and finds what it has missed.
Freshness of what is served never depends on any of this.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio

from rpyserve.livereload.snapshot import FileChanges, Snapshot
from rpyserve.util.text import one_line

log = logging.getLogger("rpyserve")

# Milliseconds without a further event after which a batch of events is complete.
STEP: Final = 5
# Milliseconds that a batch of events may last.
DEBOUNCE: Final = 20
# Seconds from one question for events to the next while nobody waits for changes.
IDLE_PAUSE: Final = 0.045
# Seconds after which it is checked again whether the roots themselves have been replaced.
ROOT_CHECK: Final = 1.0
# Seconds without a change after which a large or incomplete batch is passed on.
QUIET: Final = 0.05
# Seconds that such a batch may last.
LONGEST: Final = 1.0
# How many files make a batch large.
MANY: Final = 3
# Seconds between two scans where there are no events; more where a scan takes long.
POLL: Final = 0.25
# Seconds after which watching begins anew when it has failed.
RETRY: Final = 5.0
# How often directories that change meanwhile are watched anew. What is missed then shows with the
# next event.
ATTEMPTS: Final = 3

_ONE_HANDLE_A_TREE: Final = sys.platform in ("darwin", "win32")


class Looks:
    """Questions whether something has been saved, which the watch answers by a look at the files.

    The system's events come some hundredths of a second after a save. Who has just saved a file and
    wants to know what came of it does not wait for them: after `wait_look` all that was saved
    before has been reported.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.wake = threading.Event()
        self._answer = trio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a look; may be asked in any thread."""
        return self.asked > self.answered

    async def wait_look(self) -> None:
        """Wait until the files have been looked at from now on, and changes been reported."""
        self.asked += 1
        number = self.asked
        self.wake.set()
        while self.answered < number:
            await self._answer.wait()

    def answer(self, number: int) -> None:
        """Say that the first *number* questions have been answered."""
        self.answered = number
        if not self.is_wanted:
            self.wake.clear()
        self._answer.set()
        self._answer = trio.Event()


_Events = Generator[Set[tuple[int, str]], None, None]


async def watch(
    roots: Iterable[str],
    on_batch: Callable[[FileChanges], object],
    *,
    poll: bool = False,
    eager: Callable[[], bool] = lambda: True,
    looks: Looks | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call *on_batch*, in the loop, with each batch of changes below *roots*, until cancelled.

    Args:
        roots: directories, as absolute paths. They may vanish, and come back.
        on_batch: gets what has changed.
        poll: scan again and again, instead of waiting for the system's events.
        eager: whether somebody waits for changes; if not, they may come some hundredths of a second
            later.
        looks: who wants to know at once whether there are changes.
        task_status: is told when the directories have been scanned for the first time.
    """
    looks = looks or Looks()
    watcher = _Watcher(tuple(roots), poll, eager, looks)
    limiter = trio.CapacityLimiter(1)
    in_thread = partial(trio.to_thread.run_sync, limiter=limiter, abandon_on_cancel=True)
    failures = _Failures()
    try:
        with failures.noted():
            await in_thread(watcher.scan)
        task_status.started()
        while True:
            asked = looks.asked
            with failures.noted():
                if batch := await in_thread(watcher.wait_batch):
                    on_batch(batch)
                looks.answer(asked)
            if failures.is_failing:
                await trio.sleep(RETRY)
                watcher.begin_anew()
    finally:
        watcher.stop.set()
        looks.wake.set()


class _Failures:
    """Tells that the watch has failed, and that it is back: once each, however long that takes."""

    def __init__(self) -> None:
        self.is_failing = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note whether what is done inside fails."""
        try:
            yield
        except Exception as exc:
            if not self.is_failing:
                reason = one_line(f"{type(exc).__name__}: {exc}".removesuffix(": "))
                log.error(
                    "Watching the files failed (%s). Pages do not follow edits until that works "
                    "again; it is tried every %g seconds.",
                    reason,
                    RETRY,
                )
                log.debug("Where it came from:", exc_info=exc)
            self.is_failing = True
        else:
            if self.is_failing:
                log.warning("The files are being watched again.")
            self.is_failing = False


class _Watcher:
    """Lives in a thread, but for `stop`."""

    def __init__(
        self, roots: tuple[str, ...], poll: bool, eager: Callable[[], bool], looks: Looks
    ) -> None:
        self.stop = threading.Event()
        self._looks = looks
        self._eager = eager
        self._snapshot = Snapshot(roots)
        self._root_ids = self._identify_roots()
        self._events: _Events | None = None
        self._polling = poll or _sends_no_events(roots)
        # Whether there are directories that send no events because of their names.
        self._must_scan = False
        self._pause = POLL
        self._started = False

    def scan(self) -> FileChanges:
        """Scan everything, and see to it that scanning does not become all there is to do."""
        start = time.monotonic()
        changes = self._snapshot.scan()
        self._pause = max(POLL, 5 * (time.monotonic() - start))
        return changes

    def begin_anew(self) -> None:
        """Have the next batch tell all that has changed since the last scan that went well."""
        self._started = False

    def wait_batch(self) -> FileChanges:
        """Return the next batch; an empty one if nothing has happened for `ROOT_CHECK`."""
        batch = self._look() if self._started and self._looks.is_wanted else self._wait_first()
        start = time.monotonic()
        while _may_go_on(batch) and time.monotonic() - start < LONGEST:
            more = self._wait_more(QUIET, QUIET)
            if more is None:
                break
            batch |= more
        return batch

    def _look(self) -> FileChanges:
        """Return what has changed by now."""
        if self._polling:
            return self.scan()
        if self._events is None or self._identify_roots() != self._root_ids:
            self._root_ids = self._identify_roots()
            return self._watch_anew()
        return self._scan_in_between() or FileChanges()

    def _wait_first(self) -> FileChanges:
        if self._started:
            return self._wait_more(ROOT_CHECK, self._pause) or FileChanges()
        self._started = True
        # It takes a moment to get ready, in which something may have happened.
        return self.scan() if self._polling else self._watch_anew()

    def _wait_more(self, timeout: float, pause: float) -> FileChanges | None:
        """Return what happens next, be it nothing of the site; None if nothing has happened at all.

        Args:
            timeout: seconds to wait for an event.
            pause: seconds to wait before a scan, where there are no events.
        """
        if self._polling:
            self._looks.wake.wait(pause)
            return self.scan() or None
        if self._events is None or self._identify_roots() != self._root_ids:
            return self._begin_again(timeout) or None
        if self._must_scan:
            timeout = min(timeout, self._pause)
        paths = self._wait_events(self._events, timeout)
        if paths is None:
            return self._watch_anew()
        if not paths:
            return self._scan_in_between() if self._must_scan else None
        changes = self._snapshot.check(paths)
        return self._watch_anew() if changes is None else changes

    def _scan_in_between(self) -> FileChanges | None:
        """Look at what sends no events."""
        before = self._snapshot.directories.keys()
        changes = self.scan()
        if self._snapshot.directories.keys() != before:
            changes |= self._watch_anew()
        return changes or None

    def _begin_again(self, timeout: float) -> FileChanges:
        """A root is not there, or is another directory than it was."""
        self.stop.wait(min(POLL, timeout))
        self._root_ids = self._identify_roots()
        return self._watch_anew()

    def _watch_anew(self) -> FileChanges:
        """Watch the directories that are there now, and find what happened meanwhile."""
        changes = self._snapshot.scan()
        for _ in range(ATTEMPTS):
            watched = set(self._snapshot.directories)
            self._start_events()
            changes |= self._snapshot.scan()
            if self._polling or watched == set(self._snapshot.directories):
                break  # else some came while the others were being watched
        return changes

    def _start_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
        if self.stop.is_set():
            return  # nobody waits for this thread any more
        wanted = self._directories_to_watch()
        if not wanted:
            return
        events = _file_events(wanted, self.stop)
        try:
            next(events, None)  # the scan that follows finds what is heard already
        except (FileNotFoundError, PermissionError):
            return  # one has just gone, or may not be read any more; the next scan notices
        except (OSError, RuntimeError) as exc:
            if not _is_about_a_name(exc):
                self._poll_from_now_on(exc)
        else:
            self._events = events

    def _directories_to_watch(self) -> list[str]:
        directories = self._snapshot.roots if _ONE_HANDLE_A_TREE else self._snapshot.directories
        readable = [*filter(_is_readable_directory, directories)]
        wanted = [*filter(_is_unicode, readable)]
        self._must_scan = len(wanted) < len(readable)
        return wanted

    def _wait_events(self, events: _Events, timeout: float) -> set[str] | None:
        """Return the paths of which something is heard; none after *timeout* seconds.

        None if something has happened whose path cannot be told.
        """
        deadline = time.monotonic() + timeout
        try:
            for heard in events:
                if heard or self._looks.is_wanted or time.monotonic() >= deadline:
                    return {path for _, path in heard}
                if not self._eager():
                    self._looks.wake.wait(IDLE_PAUSE)
        except (OSError, RuntimeError) as exc:
            if _is_about_a_name(exc):
                self.stop.wait(POLL)  # lest a file that is written all the time keeps this busy
                return None
            self._poll_from_now_on(exc)
        return set()

    def _poll_from_now_on(self, exc: Exception) -> None:
        self._polling = True
        log.warning("%s Polling every %g seconds instead.", _why_no_events(exc), POLL)

    def _identify_roots(self) -> list[tuple[int, int] | None]:
        return [*map(_identity, self._snapshot.roots)]


def _may_go_on(batch: FileChanges) -> bool:
    return len(batch.files) >= MANY or bool(batch.incomplete)


def _file_events(directories: list[str], stop: threading.Event) -> _Events:
    """Return an iterator that watches *directories* from its first step on, until *stop*.

    Each step takes some milliseconds, and yields what was heard: (kind of change, path).
    """
    import watchfiles

    logger = logging.getLogger("watchfiles")
    if not logger.level:  # else it writes how many changes there were into a program's log
        logger.setLevel(logging.WARNING)
    return watchfiles.watch(
        *directories,
        watch_filter=None,
        debounce=DEBOUNCE,
        step=STEP,
        stop_event=stop,
        rust_timeout=1,  # one step at a time: the caller decides how long to wait
        yield_on_timeout=True,
        debug=False,
        force_polling=False,
        recursive=_ONE_HANDLE_A_TREE,
        ignore_permission_denied=False,  # else it keeps silent about having no watches left, too
    )


def _is_readable_directory(path: str) -> bool:
    """Whether *path* can be watched; what may not be read has no files for anybody."""
    return os.path.isdir(path) and os.access(path, os.R_OK)


def _is_unicode(path: str) -> bool:
    """Whether *path* is a text: names on Unix are bytes, and need not be one in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_about_a_name(exc: Exception) -> bool:
    """Whether *exc*, of watchfiles, says that something happened to a file of no UTF-8 name."""
    return "Unable to decode path" in str(exc)


def _why_no_events(exc: Exception) -> str:
    """Say why there are no events, and what the author can do about it."""
    reason = one_line(str(exc))
    if "OS file watch limit reached" in reason:
        return (
            "This system's limit of watched directories is reached "
            "(to raise it: sudo sysctl fs.inotify.max_user_watches=524288)."
        )
    if "Too many open files" in reason:
        return (
            "This system's limit of open files, or of programs that watch files, is reached "
            "(to raise the latter: sudo sysctl fs.inotify.max_user_instances=1024)."
        )
    return f"The system gives no file events ({reason})."


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sends_no_events(roots: Iterable[str]) -> bool:
    """Whether the system is known to send no events of *roots*: drives of Windows under WSL."""
    under_wsl = "microsoft" in platform.release().lower()
    return under_wsl and any(root.startswith("/mnt/") for root in roots)
