"""What came of edits, for programs: ``/-/edits.json``, ``/-/edits/N.json``, ``/-/timeline.json``.

Who has just saved a file asks once. The files are looked at before anything is answered, so the
answer covers all that was saved before the question; nobody has to sleep, or to guess. With
``wait`` it comes as soon as the edits in question have settled; see `edits`.

Clients that may not see the details of errors get the 404 of a site that has none of this.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.response import Response
from rpyserve.inspector.edits import MAX_RECEIPTS, Edits, Forgotten
from rpyserve.resources.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rpyserve.http.request import Request

LONGEST_WAIT: Final = 30.0
"""Seconds that an answer may wait for news."""
MAX_ITEMS: Final = 50
"""How many edits, or events, one answer has."""
LOOK: Final = 5.0
"""Seconds that a look at the files may take."""


class Watch(Protocol):
    """What notices saves."""

    askers: int

    async def wait_look(self, seconds: float) -> bool:
        """Wait until all that has been saved by now is noticed; return whether it is."""


class BadQuestion(ValueError):
    """What was asked for is wrong; the message says what."""


class _Json(Resource):
    """Answers with JSON, errors too, those who may see it.

    Args:
        trusts: says of a request whether its client may.
        answer: returns what to answer.
    """

    isLeaf = True
    _wants_body = False
    _wants_session = False

    def __init__(
        self,
        trusts: Callable[[Request], bool],
        answer: Callable[[Request], Awaitable[Mapping[str, object]]],
    ) -> None:
        self._trusts = trusts
        self._answer = answer

    async def render_GET(self, request: Request) -> Response:
        if request.postpath or not self._trusts(request):
            raise HTTPError(404)
        try:
            return _response(await self._answer(request))
        except BadQuestion as exc:
            return _error(400, "Bad Request", str(exc))
        except Forgotten:
            detail = f"This edit is forgotten; the last {MAX_RECEIPTS} are kept."
            return _error(404, "Not Found", detail)
        except KeyError:
            return _error(404, "Not Found", "There has been no such edit yet.")


def _response(told: Mapping[str, object], status: int = 200) -> Response:
    headers = {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(json.dumps(told, separators=(",", ":")), status, headers)


def _error(status: int, title: str, detail: str) -> Response:
    return _response({"status": status, "title": title, "detail": detail}, status)


class Receipts:
    """Answers what programs ask about edits, and about the timeline.

    Args:
        edits: the edits.
        watch: what notices saves.

    Attributes:
        edits: the edits.
        boot: tells this run of the server from others, whose edits have other numbers.
    """

    def __init__(self, edits: Edits, watch: Watch) -> None:
        self.boot = secrets.token_hex(4)
        self.edits = edits
        self._watch = watch

    def resource(self, name: str, trusts: Callable[[Request], bool]) -> Resource:
        """Return the resource that is called *name* below ``/-/``.

        Args:
            name: ``edits.json``, ``edits`` or ``timeline.json``.
            trusts: says of a request whether its client may see it.
        """
        if name == "edits":
            return _Numbers(lambda number: _Json(trusts, partial(self.answer_edit, number)))
        answer = self.answer_edits if name == "edits.json" else self.answer_timeline
        return _Json(trusts, answer)

    async def answer_edit(self, name: str, request: Request) -> Mapping[str, object]:
        """Return one receipt: of a number, or the latest.

        Raises:
            BadQuestion: *request* has a field that is none.
            Forgotten: the edit is too long ago.
            KeyError: there is none of that number, not even after the time to wait.
        """
        wait = _wait_of(request)
        with self._asking():
            await self._watch.wait_look(min(LOOK, max(wait, 1)))
            number = self.edits.number if name == "latest" else int(name)
            if number > 0:
                await self.edits.wait_settled(number, wait)
        return self.edits.get(number).as_json(self.boot)

    async def answer_edits(self, request: Request) -> Mapping[str, object]:
        """Return the receipts after a number; without one, the latest.

        Raises:
            BadQuestion: *request* has a field that is none.
        """
        edits, wait = self.edits, _wait_of(request)
        after = _number_of(request, "after", None)
        deadline = trio.current_time() + wait
        with self._asking():
            await self._watch.wait_look(min(LOOK, max(wait, 1)))
            if after is None:
                after = edits.number - 1
            elif edits.number <= after:
                await edits.news.wait(lambda: edits.number > after, wait)
            left = max(0.0, deadline - trio.current_time())
            await edits.news.wait(edits.have_settled, left)
        items = edits.after(after)
        return self._list([each.as_json(self.boot) for each in items[:MAX_ITEMS]], edits.number)

    async def answer_timeline(self, request: Request) -> Mapping[str, object]:
        """Return the events after a number; without one, the latest.

        Raises:
            BadQuestion: *request* has a field that is none.
        """
        timeline, wait = self.edits.timeline, _wait_of(request)
        after = _number_of(request, "after", None)
        deadline = trio.current_time() + wait
        with self._asking():
            await self._watch.wait_look(min(LOOK, max(wait, 1)))
            if after is None:
                after = max(0, timeline.number - MAX_ITEMS)
            await timeline.news.wait(lambda: timeline.number > after, wait)
            left = max(0.0, deadline - trio.current_time())
            await self.edits.wait_settled(self.edits.number, left)
        events = timeline.after(after)
        items = [
            {"number": e.number, "at": round(e.at, 3), "kind": e.kind, "text": e.text, **e.fields}
            for e in events[:MAX_ITEMS]
        ]
        return self._list(items, timeline.number)

    def _list(self, items: list[dict[str, Any]], number: int) -> dict[str, object]:
        return {
            "at": round(time.time(), 3),
            "boot": self.boot,
            "number": number,
            "items": items,
            "next": items[-1]["number"] if items else number,
        }

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._watch.askers += 1
        try:
            yield
        finally:
            self._watch.askers -= 1


class _Numbers(Resource):
    """Has a child for each number, and for the latest: ``12.json``, ``latest.json``."""

    _wants_session = False

    def __init__(self, make: Callable[[str], Resource]) -> None:
        self._make = make

    def getChild(self, name: str, request: Request) -> Resource:
        number = re.fullmatch(r"([0-9]{1,15}|latest)\.json", name)
        if number is None:
            raise HTTPError(404)
        return self._make(number[1])


def _wait_of(request: Request) -> float:
    text = request.field("wait", "0")
    try:
        wait = float(text)
    except ValueError:
        wait = math.nan
    if not 0 <= wait <= LONGEST_WAIT:
        raise BadQuestion(f"wait is a number of seconds from 0 to {LONGEST_WAIT:g}.")
    return wait


def _number_of(request: Request, name: str, default: int | None) -> int | None:
    text = request.field(name, "")
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,15}", text):
        raise BadQuestion(f"{name} is the number of an edit or an event.")
    return int(text)
