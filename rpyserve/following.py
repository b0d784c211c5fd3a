"""Hot reload of a site: from a save to the pages that show it.

Ties together what knows nothing of each other: the watch on the site's directories, the scripts, the hub of changes,
the tag in pages, and the guard against loops. The order is the point: scripts are invalidated first, then pages are
told, so that none can get the old code. Off, none of this exists.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import trio

from rpyserve import events, reload
from rpyserve.changes import Kind, Mounts
from rpyserve.directory import Directory
from rpyserve.exchange import Responder
from rpyserve.hub import Hub
from rpyserve.inject import Tags, inject
from rpyserve.loopguard import LoopGuard
from rpyserve.reports import reload_line, seconds_since
from rpyserve.resource import Resource
from rpyserve.site import Site
from rpyserve.snapshots import Batch

__all__ = ["Following", "directories_in"]

log = logging.getLogger("rpyserve")

_CODE: Final = (Kind.SCRIPT, Kind.MODULE)


class Following:
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
        self._guard = LoopGuard(self._tell_of_loop)
        self._blocked: set[str] = set()
        self.hub = Hub()

    def around(self, respond: Responder) -> Responder:
        """Wrap *respond*, the site's: pages get their tag, and ``/-/`` is ours."""
        own = Site(events.tree(self.hub))
        own.trusts = lambda request: self._site.trusts(request)
        tags = Tags(lambda: self.hub.mark, self._mounts.url_of, self._tell_of_policy)
        return events.reserved(inject(self._guard.watching(respond), tags), own.respond)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the site, and tell the pages, until cancelled."""
        self._warn_of_shadow()
        eager = lambda: self.hub.statistics().readers > 0  # noqa: E731
        await reload.watch(self._roots, self._on_batch, poll=self._poll, eager=eager, task_status=task_status)

    def stop(self) -> None:
        """Let the streams of changes end."""
        self.hub.close()

    def _on_batch(self, batch: Batch) -> None:
        noticed = time.time()
        imported = any(each.scripts.modules.watches(path) for each in self._directories for path in batch.files)
        for directory in self._directories:
            directory.scripts.invalidate(batch.files)
        quiet = {path for path in batch.files if self._is_own_doing(batch, path)}
        counting = [path for path in batch.files if path not in quiet and self._counts(path)]
        change = self._mounts.change_of(counting, batch.moved - quiet)
        if not change:
            return
        self.hub.announce(change)
        readers = self.hub.statistics().readers
        names = [self._mounts.shown(path) for path in counting]
        seconds = seconds_since([batch.files[path] for path in counting], noticed, time.time())
        text = reload_line(names, readers=readers, all_scripts=imported, seconds=seconds)
        is_code = any(self._mounts.kind_of(path) in _CODE for path in counting)
        log.log(logging.INFO if readers or is_code else logging.DEBUG, "%s", text)

    def _counts(self, path: str) -> bool:
        return self._mounts.kind_of(path) is not Kind.IGNORED

    def _is_own_doing(self, batch: Batch, path: str) -> bool:
        return self._mounts.kind_of(path) in (Kind.FILE, Kind.MATERIAL) and self._guard.own_doing(batch, path)

    def _tell_of_loop(self, path: str) -> None:
        log.warning(
            "%s changes whenever a page is loaded, so a script must be writing it. Pages follow it no more, until you "
            "save it yourself. What scripts write is best kept outside of the site.",
            self._mounts.shown(path),
        )

    def _tell_of_policy(self, path: str, directive: str) -> None:
        if path in self._blocked:
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


def directories_in(root: Resource, prefix: str = "/") -> Iterator[tuple[Directory, str]]:
    """Yield each `Directory` in the tree below *root* with its URL path, as far as `putChild` has made the tree."""
    if isinstance(root, Directory):
        yield root, prefix
    for name, child in root.children.items():
        yield from directories_in(child, f"{prefix}{quote(name, safe='')}/")
