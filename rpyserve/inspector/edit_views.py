"""What came of edits, and what has happened: the views `edits`, one edit, and `timeline`.

Who has just saved a file asks once. The files are looked at before anything is answered, so the
answer covers all that was saved before the question; nobody has to sleep, or to guess. With
``wait`` it comes as soon as the edits in question have settled; see `edits`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

import trio

from rpyserve.inspector import edit_pages as pages
from rpyserve.inspector.edit import Edit
from rpyserve.inspector.edits import MAX_RECEIPTS, Edits, Forgotten
from rpyserve.inspector.timeline import Event
from rpyserve.inspector.views import (
    LONGEST_WAIT,
    Data,
    Field,
    Problem,
    Question,
    Table,
    View,
    number_of,
    seconds_of,
)

if TYPE_CHECKING:
    from rpyserve.http.request import RequestRecord
    from rpyserve.inspector.recorder import Recorder

MAX_ITEMS: Final = 50
"""How many edits, or events, one answer has."""
LOOK: Final = 5.0
"""Seconds that a look at the files may take."""


class Watch(Protocol):
    """What notices saves."""

    askers: int

    async def wait_look(self, seconds: float) -> bool:
        """Wait until all that has been saved by now is noticed; return whether it is."""


def register_edits(table: Table, edits: Edits, watch: Watch, recorder: Recorder) -> None:
    """Add to *table* what came of *edits*, whose files *watch* looks at.

    Args:
        recorder: keeps the requests that the timeline tells of.
    """
    views = _Edits(edits, watch, recorder)
    wait = Field("wait", "duration", "Wait for it, at most 30s")
    query = (Field("after", "number", "Only those after number"), wait)
    for view in (
        View("edits", "Edits", views.listed, query, render=pages.edits, is_look=False, place=5),
        View(
            "edits/{number}", "Edit {number}", views.one, (wait,), render=pages.edit, is_look=False
        ),
        View(
            "timeline",
            "Timeline",
            views.timeline,
            query,
            render=pages.timeline,
            is_look=False,
            place=6,
        ),
    ):
        table.add_view(view)


class _Edits:
    def __init__(self, edits: Edits, watch: Watch, recorder: Recorder) -> None:
        self._recorder = recorder
        self._edits = edits
        self._watch = watch

    async def one(self, question: Question) -> Data:
        """One receipt: of a number, which may be to come, or of the latest."""
        edits, name = self._edits, question.names["number"]
        number = None if name == "latest" else number_of({"number": name}, "number")
        async with self._looked(question) as left:
            if number is None:
                number = edits.number
            if number > 0:
                await edits.wait_settled(number, left())
        try:
            return edits.get(number).as_json()
        except Forgotten:
            detail = f"This edit is forgotten; the last {MAX_RECEIPTS} are kept."
            raise Problem(404, detail) from None
        except KeyError:
            raise Problem(404, "There has been no such edit yet.") from None

    async def listed(self, question: Question) -> Data:
        """The receipts after a number, the oldest first; without one, the last ones."""
        edits, after = self._edits, number_of(question.fields, "after")
        async with self._looked(question) as left:
            if after is None:
                after = max(0, edits.number - MAX_ITEMS)
            await edits.news.wait(lambda: edits.number > after, left())
            await edits.news.wait(edits.have_settled, left())
        return _listed([_row(each) for each in edits.after(after)], edits.number)

    async def timeline(self, question: Question) -> Data:
        """The events after a number, the oldest first; without one, the last, with requests."""
        timeline, after = self._edits.timeline, number_of(question.fields, "after")
        begin = max(0, timeline.number - MAX_ITEMS) if after is None else after
        async with self._looked(question) as left:
            await timeline.news.wait(lambda: timeline.number > begin, left())
            await self._edits.wait_settled(self._edits.number, left())
        told = _listed([_event(each) for each in timeline.after(begin)], timeline.number)
        if after is None:
            requests = [*_folded(self._recorder.shown())][-MAX_ITEMS:]
            told["items"] = sorted([*told["items"], *requests], key=lambda each: each["at"])
        return told

    @asynccontextmanager
    async def _looked(self, question: Question) -> AsyncIterator[Callable[[], float]]:
        """Look at the files, and have the watch be quick; gives how many seconds are left."""
        wait = seconds_of(question.fields, "wait", most=LONGEST_WAIT)
        deadline = trio.current_time() + wait
        self._watch.askers += 1
        try:
            await self._watch.wait_look(min(LOOK, max(wait, 1)))
            yield lambda: max(0.0, deadline - trio.current_time())
        finally:
            self._watch.askers -= 1


def _folded(records: Iterable[RequestRecord]) -> Iterator[Data]:
    """Requests as lines of the timeline; those of one page after each other are one."""
    for (method, path, status), few in groupby(filter(_is_over, records), _page_of):
        same = [*few]
        often = f", {len(same):,} times" if len(same) > 1 else ""
        yield {
            "number": None,
            "at": round(same[-1].at, 3),
            "kind": "request",
            "url": f"/-/requests/{same[-1].number}",
            "text": f"{method} {path} {status}{often}",
        }


def _is_over(record: RequestRecord) -> bool:
    return record.seconds is not None


def _page_of(record: RequestRecord) -> tuple[str, str, int]:
    return record.method, record.target.partition("?")[0], record.status


def _listed(items: list[Data], newest: int) -> Data:
    items = items[:MAX_ITEMS]
    return {"number": newest, "items": items, "next": items[-1]["number"] if items else newest}


def _row(edit: Edit) -> Data:
    return edit.as_json() | {"url": f"/-/edits/{edit.number}"}


def _event(event: Event) -> Data:
    told = {"number": event.number, "at": round(event.at, 3), "kind": event.kind}
    if edit := event.fields.get("edit"):
        told["url"] = f"/-/edits/{edit}"
    return told | {"text": event.text, **event.fields}
