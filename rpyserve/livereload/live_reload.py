"""Hot reload of a site: from a save to the pages that show it.

Ties together what knows nothing of each other: the watch on the site's directories, the scripts, the hub of changes,
the tag in pages, and the guard against loops. The order is the point: scripts are invalidated first, then pages are
told, so that none can get the old code. Off, none of this exists.

The line on the console for each reload: what changed, whom it concerns, how long it took. Texts only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import quote

import trio

from rpyserve.files.directory import Directory
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.types import Responder
from rpyserve.livereload import endpoints, watcher
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.changes import FileKind, Mounts
from rpyserve.livereload.script_tag import ScriptTag, inject
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.livereload.write_loops import ENOUGH_FOR_CODE, WriteLoopDetector
from rpyserve.resources.resource import Resource, Wrapper
from rpyserve.resources.virtual_host import NameVirtualHost
from rpyserve.scripts.background import TaskOrigin
from rpyserve.site import Site

__all__ = ["CHANGED", "GONE", "NEW", "LiveReload", "directories_in", "reload_line", "seconds_since"]


log = logging.getLogger("rpyserve")

MOST_TOLD: Final = 100
"""How many pages are named that cannot follow: a script may have any number of them."""

_CODE: Final = (FileKind.SCRIPT, FileKind.MODULE)
_DATA: Final = (FileKind.FILE, FileKind.MATERIAL)


class LiveReload:
    """What makes the pages of *site* follow.

    Args:
        site: it must hold a `Directory`; see `directories_in`.
        poll: look at the files again and again instead of waiting for the system's events.
    """

    def __init__(self, site: Site, *, poll: bool = False) -> None:
        mounts = list(directories_in(site.root))
        self._roots = [str(directory.path) for directory, _ in mounts]
        self._directories = [directory for directory, _ in mounts]
        self._mounts = Mounts([(str(directory.path), prefix) for directory, prefix in mounts])
        self._site = site
        self._poll = poll
        self._guard = WriteLoopDetector(self._tell_of_loop)
        self._blocked: set[str] = set()
        self._unable: dict[
            str, str
        ] = {}  # scripts and modules with tasks that cannot be executed again, and why
        self._home = ""
        self.hub = ChangeFeed()

    def wrap(self, respond: Responder) -> Responder:
        """Wrap *respond*, the site's: pages get their tag, and ``/-/`` is ours."""
        own = Site(endpoints.tree(self.hub))
        own.trusts = lambda request: self._site.trusts(request)
        tags = ScriptTag(lambda: self.hub.cursor, self._mounts.url_of, self._tell_of_policy)
        return endpoints.mount(inject(self._guard.watching(respond), tags), own.respond)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the site, and tell the pages, until cancelled."""
        self._warn_of_shadow()
        self._home = next((root for root in self._roots if _is_here(root)), "")
        try:
            await watcher.watch(
                self._roots,
                self._on_batch,
                poll=self._poll,
                eager=self._is_awaited,
                task_status=task_status,
            )
        except Exception as exc:
            # Only the comfort is lost: what is served is fresh without it.
            log.error(
                "Pages do not follow edits any more: the watch failed: %s: %s",
                type(exc).__name__,
                exc,
            )
            log.debug("Where it came from:", exc_info=exc)

    def stop(self) -> None:
        """Let the streams of changes end."""
        self.hub.close()

    def _is_awaited(self) -> bool:
        return self.hub.statistics().readers > 0

    def _on_batch(self, batch: FileChanges) -> None:
        noticed = time.time()
        self._stay_home()
        imported = any(
            each.scripts.modules.watches(path) for each in self._directories for path in batch.files
        )
        for directory in self._directories:
            directory.scripts.invalidate(batch.files)
        quiet = self._guard.self_inflicted(batch, self._of_kind(batch, _DATA))
        quiet |= self._guard.self_inflicted(batch, self._of_kind(batch, _CODE), ENOUGH_FOR_CODE)
        counting = [
            path
            for path in batch.files
            if path not in quiet and self._kind(path) is not FileKind.IGNORED
        ]
        change = self._mounts.change_of(counting, batch.moved - quiet, batch.directories)
        if change:
            self._site.errors.reset()
            self.hub.announce(change)
            self._report(batch, counting, noticed, all_scripts=imported)
        for source in self._site.tasks.origins():
            self._renew_tasks(source, saved=str(source.path) in batch.files)

    def _renew_tasks(self, source: TaskOrigin, *, saved: bool) -> None:
        """What runs beside the site is to be of the present code, without waiting for a visit."""
        try:
            for directory in self._directories:
                directory.scripts.renew(source)
        except (HTTPError, Redirect):
            pass  # raised by the script: whoever asks for it gets it
        except (Exception, SystemExit) as exc:
            from rpyserve.diagnostics.describe import describe

            failure = describe(exc)
            if saved or self._unable.get(source.home) != failure.title:
                what = f"{self._mounts.shown(str(source.path))}, whose background task goes on as it was"
                self._site.errors.report(what, failure)
            self._unable[source.home] = failure.title
            return
        self._unable.pop(source.home, None)

    def _stay_home(self) -> None:
        """A site that was removed and made again is another directory: ``open("words.txt")`` is to mean the new one."""
        if self._home and not _is_here(self._home):
            with suppress(OSError):
                os.chdir(self._home)

    def _report(
        self, batch: FileChanges, files: list[str], noticed: float, *, all_scripts: bool
    ) -> None:

        readers = self.hub.statistics().readers
        seconds = seconds_since([batch.files[path] for path in files], noticed, time.time())
        text = reload_line(
            self._named(batch, files), readers=readers, all_scripts=all_scripts, seconds=seconds
        )
        is_code = any(self._kind(path) in _CODE for path in files)
        log.log(logging.INFO if readers or is_code else logging.DEBUG, "%s", text)

    def _named(self, batch: FileChanges, files: list[str]) -> dict[str, str]:
        """What happened to which file; a directory that came or went stands for the files in it."""
        named = {self._mounts.shown(path) + "/": _event(batch, path) for path in batch.directories}
        for path in files:
            if os.path.dirname(path) not in batch.directories:
                named[self._mounts.shown(path)] = _event(batch, path)
        return named

    def _of_kind(self, batch: FileChanges, kinds: tuple[FileKind, ...]) -> list[str]:
        return [path for path in batch.files if self._kind(path) in kinds]

    def _kind(self, path: str) -> FileKind:
        return self._mounts.kind_of(path)

    def _tell_of_loop(self, path: str) -> None:
        log.warning(
            "%s changes whenever a page is loaded, so a script must be writing it. Pages follow it no more, until you "
            "save it yourself. What scripts write is best kept outside of the site.",
            self._mounts.shown(path),
        )

    def _tell_of_policy(self, path: str, directive: str) -> None:
        if path in self._blocked or len(self._blocked) >= MOST_TOLD:
            return
        self._blocked.add(path)
        log.warning(
            "%s does not follow edits, because its Content-Security-Policy says %r. To let it, allow 'self' in "
            "script-src and connect-src.",
            path, directive,
        )  # fmt: skip

    def _warn_of_shadow(self) -> None:
        for root in self._roots[:1]:
            if os.path.lexists(os.path.join(root, "-")):
                log.warning(
                    "What is in the site as '-' is not served: rpyserve needs /-/ itself. --no-reload frees it."
                )


def _is_here(path: str) -> bool:
    try:
        return os.path.samefile(path, ".")
    except OSError:
        return False


def _event(batch: FileChanges, path: str) -> str:

    if path not in batch.moved:
        return CHANGED
    return NEW if os.path.lexists(path) else GONE


def directories_in(root: Resource, prefix: str = "/") -> Iterator[tuple[Directory, str]]:
    """Yield each `Directory` in the tree below *root* with its URL path.

    The tree is what `putChild`, and resources around others, have made of it by now.
    """
    todo, seen = [(root, prefix)], set[int]()
    while todo:
        resource, prefix = todo.pop()
        if id(resource) in seen:
            continue
        seen.add(id(resource))
        if isinstance(resource, Directory):
            yield resource, prefix
        if isinstance(resource, NameVirtualHost):
            inside = [resource.default, *resource.hosts.values()]
        else:
            inside = [resource.wrapped] if isinstance(resource, Wrapper) else []
        todo += [(each, prefix) for each in inside if each is not None]
        todo += [
            (child, f"{prefix}{quote(name, safe='')}/") for name, child in resource.children.items()
        ]


NEW: Final = "new"
GONE: Final = "gone"
CHANGED: Final = "changed"

MOST_NAMES: Final = 3
"""How many files a line names."""
BELIEVED: Final = 5.0
"""Seconds that a save may lie back, by the file's time stamp; else the stamp is of another clock, or set by hand."""


def reload_line(
    files: Mapping[str, str], *, readers: int, all_scripts: bool, seconds: float
) -> str:
    """Return the line.

    Args:
        files: the files, as their author knows them, each with what happened to it: `NEW`, `GONE` or `CHANGED`.
        readers: how many pages listen.
        all_scripts: whether a module of the site is among them, so that every script runs again.
        seconds: from the save until the pages were told.
    """
    effects = ["all scripts run again"] if all_scripts else []
    if readers:
        effects.append(f"{readers} page follows" if readers == 1 else f"{readers} pages follow")
    what = f"{_enumerated(sorted(files))} {_verb(list(files.values()))}"
    return f"{what}{': ' if effects else ''}{', '.join(effects)} ({seconds * 1000:.0f} ms)"


def seconds_since(saved: Iterable[float], noticed: float, now: float) -> float:
    """Return how long ago the last of the times *saved* is, or *noticed* if they are not to be believed."""
    last = max(saved, default=0.0)
    return now - (last if 0 <= now - last <= BELIEVED else noticed)


def _verb(events: list[str]) -> str:
    """What happened to all of the files: the same thing, or this and that."""
    event = events[0] if len(set(events)) == 1 else CHANGED
    return event if event == CHANGED else f"{'is' if len(events) == 1 else 'are'} {event}"


def _enumerated(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"
