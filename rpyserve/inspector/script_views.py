"""The scripts of a site, why and how often they were executed, and the errors that there were.

Paths in URLs are looked up among the scripts that were executed, never on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rpyserve.diagnostics.reporter import as_text
from rpyserve.inspector import script_pages as pages
from rpyserve.inspector.recorder import MOST_FAILURES
from rpyserve.inspector.request_views import summary_of
from rpyserve.inspector.views import Data, Problem, Question, Table, View

if TYPE_CHECKING:
    from rpyserve.http.request import RequestRecord
    from rpyserve.inspector.recorder import FailureNote, Recorder
    from rpyserve.scripts.loader import ExecutionNote, ScriptLoader, ScriptStatistics
    from rpyserve.site import Site

LAST: Final = 20
"""How many requests and executions of one script are listed."""


Loaders = Callable[[], Iterable["ScriptLoader"]]
"""Returns what executes the scripts of a site."""


def register_scripts(table: Table, site: Site, recorder: Recorder, loaders: Loaders) -> None:
    """Add to *table* what is to be seen of the scripts of *site*."""
    scripts = _Scripts(site, recorder, loaders)
    table.add_view(View("scripts", "Scripts", scripts.listed, render=pages.scripts, place=4))
    table.add_view(View("scripts/{path*}", "{path}", scripts.one, render=pages.script))
    table.add_view(View("errors", "Errors", scripts.errors, render=pages.errors))
    table.add_view(View("errors/{number}", "Error {number}", scripts.error, render=pages.error))


class _Scripts:
    def __init__(self, site: Site, recorder: Recorder, loaders: Loaders) -> None:
        self._site = site
        self._recorder = recorder
        self._loaders = loaders

    def _statistics(self) -> list[ScriptStatistics]:
        return [each for loader in self._loaders() for each in loader.statistics()]

    async def listed(self, question: Question) -> Data:
        """The scripts that have been executed, by their names."""
        records = self._recorder.shown()
        items = [self._summary(each, records) for each in self._statistics()]
        return {"items": items, "looked_at": len(items), "of": len(items), "next": None}

    def _summary(self, script: ScriptStatistics, records: list[RequestRecord]) -> Data:
        own = [each for each in records if each.script == script.script]
        last = script.executions[-1]
        return {
            "script": script.script,
            "url": f"/-/scripts/{quote(script.script)}",
            "cached": script.cached,
            "executions": script.count,
            "last": _execution(last),
            "execute": _figures([each.seconds for each in script.executions]),
            "render": _figures([each.render for each in own if each.render is not None]),
            "requests": len(own),
            "error": next((each.error for each in reversed(own) if each.error), None),
        }

    async def one(self, question: Question) -> Data:
        """One script: its executions, its requests, and its errors."""
        path, records = question.names["path"], self._recorder.shown()
        for script in self._statistics():
            if script.script == path:
                break
        else:
            raise Problem(404, "No script of that name has been executed.")
        own = [each for each in reversed(records) if each.script == path]
        history = [_execution(each) for each in reversed(script.executions)]
        return self._summary(script, records) | {
            "history": history[:LAST],
            "tasks": self._tasks(path),
            "items": [summary_of(each) for each in own[:LAST]],
        }

    def _tasks(self, path: str) -> list[Data]:
        """The background tasks that the script has."""
        return [
            {"name": job.name, "state": job.state}
            for origin, job in self._site.tasks.jobs()
            if origin.path is not None and origin.path.as_posix().endswith(f"/{path}")
        ]

    async def errors(self, question: Question) -> Data:
        """The last errors, the newest first."""
        found = [_failure(each) for each in reversed(self._recorder.failures)]
        return {"items": found, "looked_at": len(found), "of": len(found), "next": None}

    async def error(self, question: Question) -> Data:
        """One error, as the console has it."""
        for each in self._recorder.failures:
            if str(each.number) == question.names["number"]:
                return _failure(each) | {"text": as_text(each.report), "script": each.report.script}
        raise Problem(404, f"There is no such error; the last {MOST_FAILURES} are kept.")


def _execution(note: ExecutionNote) -> Data:
    return {
        "at": round(note.at, 3),
        "ago": round(max(0.0, time.time() - note.at), 3),
        "why": note.why,
        "seconds": round(note.seconds, 6),
        "failed": note.failed,
    }


def _failure(note: FailureNote) -> Data:
    return {
        "number": note.number,
        "url": f"/-/errors/{note.number}",
        "at": round(note.at, 3),
        "ago": round(max(0.0, time.time() - note.at), 3),
        "what": note.what,
        "page": note.page,
        "title": note.report.title,
        "request": note.request,
    }


def _figures(seconds: list[float]) -> Data | None:
    if not seconds:
        return None
    return {"median": round(median(seconds), 6), "slowest": round(max(seconds), 6)}
