"""Live reload of a site: from a save to the pages that show it.

Ties together parts that do not know each other: the watch on the site's directories, the scripts,
the feed of changes, the tag in pages, and the detector of write loops. Where live reload is off,
none of this exists.

A batch of changes takes four steps, in this order: changed modules are dropped, then what scripts
wrote themselves is filtered out, then pages are told of the rest (and the console gets its line),
and last the background tasks of changed scripts are restarted. A request may come before the batch;
what it has executed of the saved files stays, so a file is executed once for each save.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import quote

import trio

from rpyserve.files.directory import Directory
from rpyserve.http.browser import FOLLOWING, is_navigation
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.http.types import Responder
from rpyserve.livereload import endpoints, watcher
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.changes import FileKind, Mounts
from rpyserve.livereload.script_tag import ScriptTag
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.livereload.write_loops import CODE_THRESHOLD, THRESHOLD, WriteLoopDetector
from rpyserve.resources.resource import Resource, Wrapper
from rpyserve.site import Site
from rpyserve.util.exceptions import report_or_raise

log = logging.getLogger("rpyserve")

ADDED: Final = "added"
CHANGED: Final = "changed"
DELETED: Final = "deleted"

# How many files a line on the console names.
MAX_NAMES: Final = 3
# Seconds that a save may lie back by the file's time stamp. An older stamp is of another clock,
# or was set by hand.
MAX_SAVE_AGE: Final = 5.0
# How many pages whose policy blocks the script are named: there may be any number of them.
MAX_BLOCKED_PAGES: Final = 100

_CODE: Final = (FileKind.SCRIPT, FileKind.MODULE)
_DATA: Final = (FileKind.FILE, FileKind.PRIVATE_DATA)


class LiveReload:
    """Makes the open pages of *site* show what is saved.

    Args:
        site: it must hold a `Directory`; see `directories_in`.
        poll: poll the files instead of waiting for the system's events.

    Attributes:
        feed: the changes that pages are told of.
    """

    def __init__(self, site: Site, *, poll: bool = False) -> None:
        mounts = list(directories_in(site.root))
        self._directories = list(dict.fromkeys(directory for directory, _ in mounts))
        self._roots = list(dict.fromkeys(str(directory.path) for directory in self._directories))
        self._mounts = Mounts([(str(directory.path), prefix) for directory, prefix in mounts])
        self._site = site
        self._audience = endpoints.Audience(site, mounts)
        self._poll = poll
        self._write_loops = WriteLoopDetector(self._warn_of_write_loop)
        self._blocked_pages: set[str] = set()
        self.feed = ChangeFeed()

    def wrap(self, respond: Responder) -> Responder:
        """Wrap *respond*, the site's: pages get their tag, and ``/-/`` is ours."""
        tags = ScriptTag(lambda: self.feed.cursor, self._mounts.url_of, self._warn_of_policy)
        own_site = Site(endpoints.tree(self.feed, self._audience, tags.sent))
        own_site.trusts = lambda request: self._site.trusts(request)

        async def respond_with_live_reload(request: Request) -> Response:
            if request.raw_path.startswith(endpoints.PREFIX):
                request._logged = False
                return await own_site.respond(request)
            is_refetch = FOLLOWING in request.raw_headers.values
            self._write_loops.note(request, is_refetch=is_refetch)
            if not is_navigation(request):
                return await respond(request)
            page = tags.prepare(request)
            return page.with_tag(await respond(request))

        return respond_with_live_reload

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the site, and tell the pages, until cancelled."""
        self._warn_of_shadowed_name()
        await watcher.watch(
            self._roots,
            self._on_batch,
            poll=self._poll,
            eager=self._has_pages,
            task_status=task_status,
        )

    def stop(self) -> None:
        """Let the streams of changes end."""
        self.feed.close()

    def _has_pages(self) -> bool:
        return self.feed.statistics().subscribers > 0

    # A batch of changes

    def _on_batch(self, changes: FileChanges) -> None:
        noticed = time.time()
        for directory in self._directories:
            directory.working_directory.refresh()
        all_scripts = self._refresh_scripts(changes)
        kind_of = self._mounts.kind_of
        kinds: dict[str, FileKind] = {
            path: kind for path in changes.files if (kind := kind_of(path)) is not FileKind.IGNORED
        }
        self._drop_own_writes(changes, kinds)
        self._announce(changes, kinds, noticed, all_scripts=all_scripts)
        self._restart_tasks(changes, all_scripts=all_scripts)

    def _refresh_scripts(self, changes: FileChanges) -> bool:
        """Returns whether all scripts run again, because of a module of the site."""
        all_scripts = any(
            directory.scripts.modules.watches(path)
            for directory in self._directories
            for path in changes.files
        )
        for directory in self._directories:
            with suppress(OSError, HTTPError):  # the disk fails: requests look, and say so
                directory.scripts.refresh()
        return all_scripts

    def _drop_own_writes(self, changes: FileChanges, kinds: dict[str, FileKind]) -> None:
        """Leave in *kinds* what pages are to be told of."""
        for group, threshold in ((_DATA, THRESHOLD), (_CODE, CODE_THRESHOLD)):
            files = [path for path, kind in kinds.items() if kind in group]
            for path in self._write_loops.self_inflicted(changes, files, threshold):
                del kinds[path]

    def _announce(
        self,
        changes: FileChanges,
        kinds: Mapping[str, FileKind],
        noticed: float,
        *,
        all_scripts: bool,
    ) -> None:
        page_changes = self._mounts.page_changes(changes, kinds)
        if not page_changes:
            return
        self._site.errors.reset()
        self.feed.publish(page_changes)
        pages = self.feed.statistics().subscribers
        text = reload_line(
            self._events(changes, kinds),
            pages=pages,
            all_scripts=all_scripts,
            seconds=seconds_since_save(map(changes.files.__getitem__, kinds), noticed, time.time()),
        )
        is_code = not set(_CODE).isdisjoint(kinds.values())
        log.log(logging.INFO if pages or is_code else logging.DEBUG, "%s", text)

    def _events(self, changes: FileChanges, files: Iterable[str]) -> dict[str, str]:
        """What happened to which file; a directory stands for the files in it."""
        name_of = self._mounts.display_name
        events = {f"{name_of(path)}/": _event(changes, path) for path in changes.directories}
        for path in files:
            if os.path.dirname(path) not in changes.directories:
                events[name_of(path)] = _event(changes, path)
        return events

    def _restart_tasks(self, changes: FileChanges, *, all_scripts: bool) -> None:
        """Background tasks are to be of the present code, without waiting for a visit."""
        for origin in self._site.tasks.origins():
            try:
                for directory in self._directories:
                    directory.scripts.renew(origin)
            except (HTTPError, Redirect):
                pass  # raised by the script: whoever asks for it gets it
            except BaseException as exc:
                # A change of other files does not make it new.
                is_new = all_scripts or str(origin.path) in changes.files
                name = self._mounts.display_name(str(origin.path))
                what = f"{name} (its background task goes on unchanged)"
                report = partial(self._site.errors.report_exception, what)
                report_or_raise(exc, report if is_new else lambda failure: None)

    # Warnings

    def _warn_of_write_loop(self, path: str) -> None:
        log.warning(
            "%s changes whenever a page is loaded, so a script must be writing it. Live reload "
            "ignores it until you save it yourself. Scripts should write files outside the site.",
            self._mounts.display_name(path),
        )

    def _warn_of_policy(self, path: str, directive: str) -> None:
        if path in self._blocked_pages or len(self._blocked_pages) >= MAX_BLOCKED_PAGES:
            return
        self._blocked_pages.add(path)
        log.warning(
            "Live reload is off for %s, because its Content-Security-Policy says %r. To turn it "
            "on, allow 'self' in script-src and connect-src.",
            path,
            directive,
        )

    def _warn_of_shadowed_name(self) -> None:
        if os.path.lexists(os.path.join(self._roots[0], "-")):
            log.warning(
                "The file or directory '-' is not served, because live reload uses /-/. "
                "Start with --no-reload to serve it."
            )


def directories_in(root: Resource, prefix: str = "/") -> Iterator[tuple[Directory, str]]:
    """Yield each `Directory` in the tree below *root* with the URL path of each of its places.

    The tree is what `putChild`, and resources around others, have made of it by now.
    """
    todo, seen = [(root, prefix)], set[int]()
    while todo:
        resource, prefix = todo.pop()
        if isinstance(resource, Directory):
            yield resource, prefix
        if id(resource) in seen:
            continue
        seen.add(id(resource))
        if isinstance(resource, Wrapper):
            todo += [(inner, prefix) for inner in resource.inner()]
        for name, child in resource.children.items():
            todo.append((child, f"{prefix}{quote(name, safe='')}/"))


# The line on the console


def reload_line(events: Mapping[str, str], *, pages: int, all_scripts: bool, seconds: float) -> str:
    """Return the line that the console shows for a batch of changes.

    Args:
        events: the files, as their author knows them, each with what happened to it: `ADDED`,
            `DELETED` or `CHANGED`.
        pages: how many pages are told.
        all_scripts: whether all scripts will run again, because of a module of the site.
        seconds: from the save until the pages were told.
    """
    kinds = set(events.values())
    parts = [f"{_enumerated(sorted(events))} {kinds.pop() if len(kinds) == 1 else CHANGED}"]
    if all_scripts:
        parts.append("all scripts run again")
    if pages:
        parts.append(f"{pages} page{'' if pages == 1 else 's'} updated")
    return f"{', '.join(parts)} ({seconds * 1000:.0f} ms)"


def seconds_since_save(saved: Iterable[float], noticed: float, now: float) -> float:
    """Return how long ago the last of the times *saved* is.

    Args:
        saved: times of files, in seconds since the epoch; 0 if not known.
        noticed: what counts where those are not to be believed.
        now: the present time.
    """
    last = max(saved, default=0.0)
    return now - (last if 0 <= now - last <= MAX_SAVE_AGE else noticed)


def _event(changes: FileChanges, path: str) -> str:
    if path not in changes.added_or_removed:
        return CHANGED
    return ADDED if os.path.lexists(path) else DELETED


def _enumerated(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    if more <= 0:
        return ", ".join(names)
    return f"{', '.join(names[:MAX_NAMES])} and {more} more"
