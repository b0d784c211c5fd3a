"""Noticing saves: watches the directories of a site, and tells of each batch of changes. The only user of watchfiles.

The system's events are hints where to look (see `snapshots`). Where there is one handle for each directory, only the
site's own are watched, so that an environment inside the site costs nothing; where one handle covers a tree, the root
is. Without events the directories are looked at again and again. Whoever cancels `watch` never waits for its thread.
Freshness of what is served never depends on any of this.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import trio

from rpyserve.livereload.snapshot import FileChanges, Snapshot

__all__ = ["watch"]

log = logging.getLogger("rpyserve")

STEP: Final = 5
"""Milliseconds without a further event after which a batch is complete."""
RESTING_STEP: Final = 50
"""The same while nobody waits for changes: the thread wakes up less often."""
DEBOUNCE: Final = 20
"""Milliseconds that a batch may last."""
LOOK: Final = 1000
"""Milliseconds after which the watch is renewed if the roots themselves have been replaced."""
QUIET: Final = 0.05
"""Seconds without a change after which a large batch, or one in which files are missing, is complete."""
LONGEST: Final = 1.0
"""Seconds that such a batch may last."""
MANY: Final = 3
"""How many files make a batch large."""
POLL: Final = 0.25
"""Seconds between two looks where there are no events; more where a look takes long."""
ATTEMPTS: Final = 3
"""How often the directories are watched anew that change meanwhile. What is missed then shows with the next event."""

_ONE_HANDLE_A_TREE: Final = sys.platform in ("darwin", "win32")


async def watch(
    roots: Iterable[str],
    tell: Callable[[FileChanges], object],
    *,
    poll: bool = False,
    eager: Callable[[], bool] = lambda: True,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call *tell*, in the loop, with each batch of changes below *roots*, until cancelled.

    Args:
        roots: directories, as absolute paths. They may vanish, and come back.
        poll: look again and again, instead of waiting for the system's events.
        eager: whether somebody waits for changes; if not, they may come some hundredths of a second later.
    """
    watcher = _Watcher(tuple(roots), poll, eager)
    limiter = trio.CapacityLimiter(1)
    in_thread = partial(trio.to_thread.run_sync, limiter=limiter, abandon_on_cancel=True)
    try:
        await in_thread(watcher.look)
        task_status.started()
        while True:
            if batch := await in_thread(watcher.wait):
                tell(batch)
    finally:
        watcher.stop.set()


class _Watcher:
    """Lives in a thread, but for `stop`."""

    def __init__(self, roots: tuple[str, ...], poll: bool, eager: Callable[[], bool]) -> None:
        self.stop = threading.Event()
        self._eager = eager
        self._snapshot = Snapshot(roots)
        self._identity = self._identities()
        self._events: Any = None
        self._polling = poll or _is_deaf(roots)
        self._pause = POLL
        self._begun = False

    def look(self) -> FileChanges:
        """Look at everything, and see to it that looking does not become all there is to do."""
        began = time.monotonic()
        batch = self._snapshot.look()
        self._pause = max(POLL, 5 * (time.monotonic() - began))
        return batch

    def wait(self) -> FileChanges:
        """Return the next batch; an empty one if nothing has happened for a second or so."""
        began = time.monotonic()
        batch = self._first() or FileChanges()
        while (len(batch.files) >= MANY or batch.unsure) and time.monotonic() - began < LONGEST:
            more = self._next(QUIET, QUIET)
            if more is None:
                break
            batch |= more
        return batch

    def _first(self) -> FileChanges | None:
        if self._begun:
            return self._next(LOOK / 1000, self._pause)
        self._begun = True  # it takes a moment to get ready, in which something may have happened
        return self.look() if self._polling else self._watch_anew()

    def _next(self, patience: float, pause: float) -> FileChanges | None:
        """Return what happens next, be it none of ours; None if nothing has happened at all.

        Args:
            patience: seconds to wait for an event.
            pause: seconds to wait before looking, where there are no events.
        """
        if self._polling:
            self.stop.wait(pause)
            return self.look() or None
        if self._identities() != self._identity or self._events is None:
            return self._recover(patience) or None
        step = STEP if self._eager() else RESTING_STEP
        heard = self._events.watch(DEBOUNCE, step, int(patience * 1000), self.stop)
        if isinstance(heard, str):
            return None
        batch = self._snapshot.look_at({path for _, path in heard})
        return self._watch_anew() if batch is None else batch

    def _recover(self, patience: float) -> FileChanges:
        """A root has gone, or is another directory than it was."""
        self.stop.wait(min(POLL, patience))
        self._identity = self._identities()
        return self._watch_anew()

    def _watch_anew(self) -> FileChanges:
        """Watch the directories that are there now, and look at what happened while nobody watched."""
        batch = self._snapshot.look()
        for _ in range(ATTEMPTS):
            watched = set(self._snapshot.directories)
            self._listen()
            batch |= self._snapshot.look()
            if self._polling or watched == set(self._snapshot.directories):
                break  # else some came while the others were being watched
        return batch

    def _listen(self) -> None:
        from watchfiles._rust_notify import RustNotify

        if self._events is not None:
            self._events.close()
            self._events = None
        if self.stop.is_set():
            return  # nobody waits for this thread any more
        directories = self._snapshot.roots if _ONE_HANDLE_A_TREE else self._snapshot.directories
        wanted = [path for path in directories if os.path.isdir(path)]
        if not wanted:
            return
        try:
            self._events = RustNotify(wanted, False, False, 0, _ONE_HANDLE_A_TREE, True)
        except FileNotFoundError:
            return  # one has just gone; the next look notices
        except (OSError, RuntimeError) as exc:
            self._polling = True
            log.warning("%s", _why_polling(exc, len(wanted)))

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(root) for root in self._snapshot.roots]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_deaf(roots: Iterable[str]) -> bool:
    """Whether the system is known to send no events of *roots*: drives of Windows under WSL."""
    under_wsl = "microsoft" in platform.release().lower() and sys.platform == "linux"
    return under_wsl and any(root.startswith("/mnt/") for root in roots)


def _why_polling(exc: Exception, directories: int) -> str:
    number = getattr(exc, "errno", None)
    if (
        number in (errno.ENOSPC, errno.EMFILE)
        or "limit" in str(exc)
        or "Too many open files" in str(exc)
    ):
        return (
            f"The system has no file watches left (the site has {directories} directories), so files are looked at "
            f"every {POLL} seconds instead. `sysctl fs.inotify` shows the limits."
        )
    return f"The system gives no file events ({exc}), so files are looked at every {POLL} seconds instead."
