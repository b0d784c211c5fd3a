"""What the server does now, and what the site is: its options, registry, tasks and modules."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from rpyserve._names import __version__
from rpyserve.inspector import site_pages
from rpyserve.inspector.request_views import summary_of
from rpyserve.inspector.session_view import contents_of
from rpyserve.inspector.session_views import leaves_as_data
from rpyserve.inspector.views import Data, Question, Table, View

if TYPE_CHECKING:
    from rpyserve.inspector.recorder import Recorder
    from rpyserve.scripts.loader import ScriptLoader
    from rpyserve.site import Site

LONG: Final = 0.25
"""Seconds from which a request that has no end yet is named."""
LAST: Final = 20
MINUTE: Final = 60.0

_LIBRARIES: Final = ("trio", "h11", "click", "watchfiles", "zope.interface")


def register_site(
    table: Table,
    site: Site,
    recorder: Recorder,
    sessions: Callable[[Question], Awaitable[Data]],
    loaders: Callable[[], Iterable[ScriptLoader]],
    facts: Callable[[], Data],
) -> None:
    """Add to *table* what is to be seen of the server as a whole.

    Args:
        sessions: returns how many sessions there are, and the last of them.
        facts: returns what only the server knows: its URLs, connections and options.
    """
    views = _SiteViews(table, site, recorder, sessions, loaders, facts)
    table.add_view(View("", "Now", views.now, render=site_pages.now, place=1))
    table.add_view(View("site", "Site", views.site, render=site_pages.site, place=9))


class _SiteViews:
    def __init__(
        self,
        table: Table,
        site: Site,
        recorder: Recorder,
        sessions: Callable[[Question], Awaitable[Data]],
        loaders: Callable[[], Iterable[ScriptLoader]],
        facts: Callable[[], Data],
    ) -> None:
        self._table = table
        self._site = site
        self._recorder = recorder
        self._sessions = sessions
        self._loaders = loaders
        self._facts = facts
        self._started = time.time()

    async def now(self, question: Question) -> Data:
        """What runs, what is broken, and what has just been answered."""
        now, records = trio.current_time(), self._recorder.shown()
        running = [each for each in records if each.seconds is None and now - each.started >= LONG]
        ended = [each for each in records if each.seconds is not None]
        return {
            "started": round(self._started, 3),
            "number": self._recorder.number,
            "running": [
                summary_of(each) | {"running": round(now - each.started, 3)} for each in running
            ],
            "broken": self._broken(),
            "last": [summary_of(each) for each in ended[: -LAST - 1 : -1]],
            "minute": _figures([each.seconds for each in ended if now - each.started < MINUTE]),
            "sessions": await self._sessions(question),
            "looking": self._recorder.looking,
            "kept_bytes": self._recorder.kept_bytes,
        } | self._table.described()

    def _broken(self) -> list[Data]:
        """The pages that failed when they were asked for last, with their errors."""
        failing = self._site.errors.failed_pages
        found: dict[str, Data] = {}
        for each in self._recorder.failures:
            if each.page in failing:
                told = found.setdefault(
                    each.page, {"page": each.page, "since": round(each.at, 3), "times": 0}
                )
                told |= {
                    "title": each.report.title,
                    "times": told["times"] + 1,
                    "url": f"/-/errors/{each.number}",
                }
        return [*found.values()]

    async def site(self, question: Question) -> Data:
        """What the site is."""
        return {
            **self._facts(),
            "started": round(self._started, 3),
            "versions": _versions(),
            "directories": [each.modules.root for each in self._loaders()],
            "session_timeout": self._site.sessions.timeout,
            "max_sessions": self._site.sessions.max_sessions,
            "session_store": _store_of(self._site),
            "registry": leaves_as_data(contents_of(self._site.registry).leaves),
            "tasks": [
                {"name": job.name, "state": job.state, "of": origin.name}
                for origin, job in self._site.tasks.jobs()
            ],
            "modules": [file for loader in self._loaders() for file in loader.modules.files()],
        }


def _figures(seconds: list[float | None]) -> Data:
    known = [each for each in seconds if each is not None]
    if not known:
        return {"requests": 0, "median": None, "slowest": None}
    return {
        "requests": len(known),
        "median": round(median(known), 6),
        "slowest": round(max(known), 6),
    }


def _versions() -> dict[str, str]:
    found = {"rpyserve": __version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _store_of(site: Site) -> str:
    return "memory" if site.persistence is None else site.persistence.store.name
