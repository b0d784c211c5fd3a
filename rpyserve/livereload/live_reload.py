"""Live reload of a site: from a save to the pages that show it.

Ties together parts that do not know each other: the watch on the site's directories, the scripts,
the feed of changes, the tag in pages, and the detector of write loops. Where live reload is off,
none of this exists.

A batch of changes takes four steps, in this order: changed modules are dropped, then what scripts
wrote themselves is filtered out, then pages are told of the rest, and last the background tasks of
changed scripts are restarted. A request may come before the batch; what it has executed of the
saved files stays, so a file is executed once for each save. The console gets its line when the
pages have said that they show the change, or have had time enough to say it. Who is interested in
what else comes of an edit is told of each as it begins and as its pages have answered: see
`EditObserver`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote

import trio

from rpyserve.files.directory import Directory
from rpyserve.http.browser import FOLLOWING, browser_of, is_navigation
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response, Stream
from rpyserve.livereload import endpoints, watcher
from rpyserve.livereload.change_feed import MAX_CONNECTIONS, ChangeFeed, Showing
from rpyserve.livereload.changes import FileKind, Mounts
from rpyserve.livereload.script_tag import ScriptTag
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.livereload.write_loops import WriteLoopDetector
from rpyserve.resources.resource import Resource, Wrapper
from rpyserve.site import Site
from rpyserve.util.exceptions import report_or_raise
from rpyserve.util.text import one_line

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
# Seconds that the line of a change waits for the pages to say that they show it.
SHOWING_TIMEOUT: Final = 2.0
# Seconds after which a browser without a free connection is worth a warning: its pages may be just
# loading again.
FULL_TIMEOUT: Final = 2.0
# Seconds after which changes that pages seem to cause are announced after all, if no request runs,
# and how often they wait for that.
TRIAL_PAUSE: Final = 0.5
MAX_PAUSES: Final = 6

_CODE: Final = (FileKind.SCRIPT, FileKind.MODULE)
_DATA: Final = (FileKind.FILE, FileKind.PRIVATE_DATA)


_KINDS: Final = {
    FileKind.SCRIPT: "script",
    FileKind.MODULE: "module",
    FileKind.FILE: "file",
    FileKind.PRIVATE_DATA: "data",
}
_WHY: Final = {
    FileKind.SCRIPT: "a script",
    FileKind.MODULE: "a module that nothing has imported yet",
    FileKind.FILE: "a file that pages may show",
    FileKind.PRIVATE_DATA: "a file that scripts may read",
}
_LOADED: Final = "a module: all scripts run again"


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of a batch of changes that counts.

    Args:
        path: the file.
        root: the directory of the site that it is in.
        name: the file as its author knows it.
        event: `ADDED`, `CHANGED` or `DELETED`.
        kind: ``script``, ``module``, ``file`` or ``data``.
        why: why it counts.
        saved: when it was saved, in seconds since the epoch; 0 if not known.
    """

    path: str
    root: str
    name: str
    event: str
    kind: str
    why: str
    saved: float


class ObservedEdit(Protocol):
    """An edit, as one who observes edits knows it."""

    @property
    def number(self) -> int:
        """Its number, for the console."""

    def settle(self, pages: Showing, now: float) -> object:
        """Its pages have answered, or have had time enough."""

    def short(self) -> list[str]:
        """What came of it, for the console."""


class EditObserver(Protocol):
    """Is told of edits."""

    def begin(
        self,
        files: Sequence[SavedFile],
        noticed: float,
        saved: float,
        contents: Mapping[str, bytes],
    ) -> Any:
        """A batch of *files* was noticed at that time, and *saved* at that; returns the edit."""

    async def examine(self, edit: Any) -> None:
        """Find out about its files what takes time."""


@dataclass(frozen=True, slots=True)
class _Announced:
    """A batch of changes that pages have been told of.

    Args:
        showing: what they say to it.
        events: what happened to which file, as its author knows it.
        saved: the times of the files.
        noticed: when the change was.
        all_scripts: whether all scripts run again.
        is_code: whether there is a script or a module among the files.
        deadline: when the pages should have answered at the latest, by trio's clock.
        edit: it, as the observer of edits knows it; None if there is no observer.
        settled: set when its line may be printed.
    """

    showing: Showing
    events: Mapping[str, str]
    saved: list[float]
    noticed: float
    all_scripts: bool
    is_code: bool
    deadline: float
    edit: ObservedEdit | None
    settled: trio.Event = field(default_factory=trio.Event)


Inspect = Callable[[Request], Awaitable[Response] | None]
"""Answers a request for one of the server's pages; None if it is none of them, or not for it."""


class LiveReload:
    """Makes the open pages of *site* show what is saved.

    Args:
        site: it must hold a `Directory`; see `directories_in`.
        poll: poll the files instead of waiting for the system's events.
        browser_log: have pages tell also what they log in the browser, not only their errors.
        tools: what else is below ``/-/``; see `endpoints.tree`.

    Attributes:
        feed: the changes that pages are told of.
        edits: returns who is told of edits, when there is the first one; None for nobody.
        name_of: returns the path of a file as its author knows it.
        roots: the directories that are watched, as absolute paths.
        askers: how many others wait for changes.
    """

    def __init__(
        self,
        site: Site,
        *,
        poll: bool = False,
        browser_log: bool = False,
        tools: endpoints.Tools | None = None,
    ) -> None:
        mounts = list(directories_in(site.root))
        self._directories = list(dict.fromkeys(directory for directory, _ in mounts))
        self._roots = list(dict.fromkeys(str(directory.path) for directory in self._directories))
        self._mounts = Mounts([(str(directory.path), prefix) for directory, prefix in mounts])
        self._site = site
        self._audience = endpoints.Audience(site, mounts)
        self._poll = poll
        self._browser_log = browser_log
        self._tools = tools
        self._write_loops = WriteLoopDetector(self._warn_of_write_loop)
        self._blocked_pages: set[str] = set()
        self._announced, self._to_say = trio.open_memory_channel[_Announced](math.inf)
        self._held = FileChanges()
        self._has_held = trio.Event()
        self._released = trio.Event()
        self._to_settle, self._begun = trio.open_memory_channel[_Announced](math.inf)
        self.edits: Callable[[], EditObserver] | None = None
        self.name_of = self._mounts.display_name
        self.roots = tuple(self._roots)
        self.askers = 0
        self._looks = watcher.Looks()
        self._full, self._to_check = trio.open_memory_channel[Hashable](1)
        self.feed = ChangeFeed(self._note_full)

    def wrap(self, respond: Responder, inspect: Inspect = lambda request: None) -> Responder:
        """Wrap *respond*, the site's: pages get their tag, and ``/-/`` is the server's.

        Args:
            inspect: is asked first for what lies below ``/-/``.
        """
        tags = ScriptTag(
            lambda: self.feed.cursor,
            self._mounts.url_of,
            self._warn_of_policy,
            errors_version=lambda: endpoints.errors_script()[1],
            browser_log=self._browser_log,
        )
        own_site = Site(
            endpoints.tree(
                self.feed, self._audience, tags.sent, self._write_loops, tools=self._tools
            )
        )
        own_site.trusts = lambda request: self._site.trusts(request)

        async def respond_with_live_reload(request: Request) -> Response:
            if request.raw_path.startswith(endpoints.PREFIX):
                if (answer := inspect(request)) is not None:
                    return await answer
                request._logged = False
                return await own_site.respond(request)
            is_refetch = FOLLOWING in request.raw_headers.values
            self._write_loops.note(request, is_refetch=is_refetch)
            if not is_navigation(request):
                response = await respond(request)
                if isinstance(response.body, Stream):
                    self._count_stream(request, response)
                return response
            page = tags.prepare(request)
            return page.with_tag(await respond(request))

        return respond_with_live_reload

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the site, and tell the pages, until cancelled."""
        self._warn_of_shadowed_name()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_announced)
            nursery.start_soon(self._settle_all)
            nursery.start_soon(self._announce_held)
            nursery.start_soon(self._warn_of_streams)
            await watcher.watch(
                self._roots,
                self._on_batch,
                poll=self._poll,
                eager=self._has_pages,
                looks=self._looks,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Let the streams of changes end."""
        self.feed.close()

    async def wait_look(self, seconds: float) -> bool:
        """Wait until all that has been saved by now is noticed, and pages are told of all code.

        Args:
            seconds: how long to wait at most: the disk may be slow, and the watch may have failed.

        Returns:
            Whether it is.
        """
        with trio.move_on_after(seconds) as waiting:
            await self._looks.wait_look()
            while any(self._mounts.kind_of(path) in _CODE for path in self._held.files):
                await self._released.wait()
        return not waiting.cancelled_caught

    def _has_pages(self) -> bool:
        return self.feed.statistics().subscribers > 0 or self.askers > 0

    def _count_stream(self, request: Request, response: Response) -> None:
        """The site's own streams take connections, of which a browser has few."""
        types = [value for name, value in response.headers if name.lower() == b"content-type"]
        if types and types[0].startswith(b"text/event-stream"):
            client = browser_of(request.client[0], request.raw_headers)
            request.on_close(self.feed.occupy(client))

    # A batch of changes

    def _on_batch(self, changes: FileChanges) -> None:
        noticed = time.time()
        for directory in self._directories:
            directory.working_directory.refresh()
        modules = self._modules_among(changes)
        self._refresh_scripts()
        kind_of = self._mounts.kind_of
        kinds: dict[str, FileKind] = {
            path: kind for path in changes.files if (kind := kind_of(path)) is not FileKind.IGNORED
        }
        self._drop_own_writes(changes, kinds)
        self._announce(changes, kinds, noticed, modules=modules)
        self._restart_tasks(changes, all_scripts=bool(modules))

    def _modules_among(self, changes: FileChanges) -> set[str]:
        """The modules that the site has loaded: all scripts run again because of them."""
        return {
            path
            for path in changes.files
            if any(each.scripts.modules.watches(path) for each in self._directories)
        }

    def _refresh_scripts(self) -> None:
        for directory in self._directories:
            with suppress(OSError, HTTPError):  # the disk fails: requests look, and say so
                directory.scripts.refresh()

    def _drop_own_writes(self, changes: FileChanges, kinds: dict[str, FileKind]) -> None:
        """Leave in *kinds* what pages are to be told of now."""
        for group, is_code in ((_DATA, False), (_CODE, True)):
            files = [path for path, kind in kinds.items() if kind in group]
            held = self._write_loops.self_inflicted(changes, files, is_code=is_code)
            for path in held:
                del kinds[path]
            self._hold(changes, held)

    def _hold(self, changes: FileChanges, files: set[str]) -> None:
        if files:
            self._held |= changes.only(files)
            self._has_held.set()

    async def _announce_held(self) -> None:
        """Tell pages, once no request runs, of the changes that they seem to cause themselves."""
        while True:
            await self._has_held.wait()
            for _ in range(MAX_PAUSES):
                await trio.sleep(TRIAL_PAUSE)
                if self._write_loops.is_quiet():
                    break
            self._has_held = trio.Event()
            changes, self._held = self._held, FileChanges()
            taken = self._write_loops.take_held(changes, changes.files)
            kinds = {path: self._mounts.kind_of(path) for path in sorted(taken)}
            self._announce(changes, kinds, time.time(), modules=frozenset())
            self._released.set()
            self._released = trio.Event()

    def _announce(
        self,
        changes: FileChanges,
        kinds: Mapping[str, FileKind],
        noticed: float,
        *,
        modules: Set[str],
    ) -> None:
        """Tell pages, and the observer of edits.

        Args:
            modules: those among the files because of which all scripts run again.
        """
        page_changes = self._mounts.page_changes(changes, kinds)
        if not page_changes:
            return
        self._site.errors.reset()
        edit = self._begin_edit(changes, kinds, noticed, modules)
        is_code = not set(_CODE).isdisjoint(kinds.values())
        causes = () if is_code else self._write_loops.causes(changes, kinds)
        announced = _Announced(
            self.feed.publish(page_changes, causes),
            self._events(changes, kinds),
            [changes.files[path] for path in kinds],
            noticed,
            bool(modules),
            is_code,
            trio.current_time() + SHOWING_TIMEOUT,
            edit,
        )
        is_next = self._to_say.statistics().tasks_waiting_receive > 0
        if edit is None and is_next and announced.showing.settled.is_set():
            self._say(announced)
        else:
            self._to_settle.send_nowait(announced)
            self._announced.send_nowait(announced)

    def _begin_edit(
        self,
        changes: FileChanges,
        kinds: Mapping[str, FileKind],
        noticed: float,
        modules: Set[str],
    ) -> ObservedEdit | None:
        if self.edits is None or not kinds:
            return None
        files = [
            SavedFile(
                path,
                self._mounts.root_of(path),
                self._mounts.display_name(path),
                _event(changes, path),
                _KINDS[kind],
                _LOADED if path in modules else _WHY[kind],
                changes.files[path],
            )
            for path, kind in kinds.items()
        ]
        saved = [each.saved for each in files]
        at = noticed - seconds_since_save(saved, noticed, noticed)
        try:
            edit: ObservedEdit = self.edits().begin(files, noticed, at, changes.contents)
        except Exception as exc:  # what is imported for it can not be read at the moment
            log.warning("An edit has no receipt: %s.", one_line(f"{type(exc).__name__}: {exc}"))
            return None
        return edit

    async def _settle_all(self) -> None:
        """Let each change settle, beside the others."""
        async with trio.open_nursery() as nursery:
            async for announced in self._begun:
                nursery.start_soon(self._settle, announced)

    async def _settle(self, announced: _Announced) -> None:
        edit, showing = announced.edit, announced.showing
        if edit is not None and self.edits is not None:
            await self.edits().examine(edit)
        with trio.move_on_at(announced.deadline):
            await showing.settled.wait()
        if edit is not None:
            edit.settle(showing, time.time())
        announced.settled.set()

    async def _say_announced(self) -> None:
        """Print the line of each change, in their order, when its pages show it."""
        async for announced in self._to_say:
            await announced.settled.wait()
            self._say(announced)

    def _say(self, announced: _Announced) -> None:
        showing = announced.showing
        self.feed.forget(showing)
        text = reload_line(
            announced.events,
            pages=showing.shown,
            loading=showing.loading,
            all_scripts=announced.all_scripts,
            seconds=seconds_since_save(announced.saved, announced.noticed, showing.last),
            more=[] if announced.edit is None else announced.edit.short(),
        )
        if announced.edit is not None:
            text = f"Edit {announced.edit.number}: {text}"
        is_news = announced.is_code or showing.shown or showing.loading
        log.log(logging.INFO if is_news else logging.DEBUG, "%s", text)

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

    def _note_full(self, client: Hashable) -> None:
        with suppress(trio.WouldBlock):  # another one is looked at
            self._full.send_nowait(client)

    async def _warn_of_streams(self) -> None:
        """Say once that a browser has no connection left, if that lasts."""
        async for client in self._to_check:
            await trio.sleep(FULL_TIMEOUT)
            if self.feed.is_full(client):
                break
        log.warning(
            "A browser has %d event streams of this site open. Most browsers open no more than %d "
            "connections to a server: until one of the streams ends, its other requests have to "
            "wait, and its pages do not follow edits.",
            MAX_CONNECTIONS,
            MAX_CONNECTIONS,
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


def reload_line(
    events: Mapping[str, str],
    *,
    pages: int,
    loading: int,
    all_scripts: bool,
    seconds: float,
    more: Sequence[str] = (),
) -> str:
    """Return the line that the console shows for a batch of changes.

    Args:
        events: the files, as their author knows them, each with what happened to it: `ADDED`,
            `DELETED` or `CHANGED`.
        pages: how many pages have said that they show it.
        loading: how many pages load themselves again, and have not come yet.
        all_scripts: whether all scripts will run again, because of a module of the site.
        seconds: from the save until the last page showed it.
        more: what else came of it.
    """
    kinds = set(events.values())
    parts = [f"{_enumerated(sorted(events))} {kinds.pop() if len(kinds) == 1 else CHANGED}"]
    if all_scripts:
        parts.append("all scripts run again")
    if pages:
        parts.append(f"{_pages(pages)} updated")
    if loading:
        parts.append(f"{_pages(loading)} still loading")
    parts += more
    return f"{', '.join(parts)} ({seconds * 1000:.0f} ms)"


def _pages(number: int) -> str:
    return f"{number} page{'' if number == 1 else 's'}"


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
