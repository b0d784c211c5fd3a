"""The sessions of a site: the list of them, each by itself, and what can be done to one.

A session appears by the first characters of its id; the whole of it is nowhere. To look is no
visit, and calls nothing of the author's. Where there are many, they are looked at in slices, and
others have their turn between two.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import islice
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve.diagnostics.values import safe_repr
from rpyserve.inspector.views import Action, Data, Field, Problem, Question, Table, View
from rpyserve.sessions.components import Entry
from rpyserve.sessions.session import Session, SessionEnd, deadline_of
from rpyserve.util.text import parse_duration

if TYPE_CHECKING:
    from rpyserve.site import Site

HANDLE: Final = 10
"""How many characters of an id are shown: 132 of its 192 bits stay secret."""
SHORTEST: Final = 4
"""How many of them name a session at least."""
PAGE: Final = 50
MOST_ITEMS: Final = 500
MOST_VALUES: Final = 300
"""How many values of one session are shown."""
AT_ONCE: Final = 50
"""How many sessions are searched before others have their turn."""

_Row = tuple[float, str, Session]


def register_sessions(table: Table, site: Site) -> None:
    """Add to *table* what is to be seen of the sessions of *site*, and done to them."""
    sessions = _Sessions(site)
    query = (
        Field("q", help="Search in ids and values"),
        Field("sort", "used|left", "Sort by"),
        Field("after", help="After"),
        Field("limit", "number", "How many"),
    )
    length = Field("seconds", "duration", "How long, such as 15m")
    table.add_view(View("sessions", "Sessions", sessions.listed, query))
    table.add_view(View("sessions/{id}", "Session", sessions.one))
    table.add_view(View("clock", "Let time pass", sessions.preview, (length,)))
    sessions.actions = [
        table.add_action(Action("sessions/{id}/expire", "Expire now", sessions.expire)),
        table.add_action(Action("sessions/{id}/become", "Become this visitor", sessions.become)),
        table.add_action(
            Action("sessions/{id}/pass", "Let time pass", sessions.let_pass, (length,))
        ),
    ]
    sessions.pass_for_all = table.add_action(
        Action("clock/pass", "Let time pass for all sessions", sessions.let_pass_for_all, (length,))
    )


class _Sessions:
    actions: list[Action]
    pass_for_all: Action

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = site.sessions

    # Views

    async def listed(self, question: Question) -> Data:
        """The sessions in an order, as many as a page has, after a cursor."""
        fields = question.fields
        sort, limit = fields.get("sort") or "used", _limit_of(fields.get("limit", ""))
        if sort not in ("used", "left"):
            raise Problem(400, "sort is used or left.")
        key = deadline_of if sort == "left" else _age_of_access
        after = _cursor_of(fields.get("after", ""))
        rows, looked_at, of = await self._found(key, after, fields.get("q", ""), limit + 1)
        shown = rows[:limit]
        return {
            "items": [self._summary(each, question) for _, _, each in shown],
            "next": _cursor(shown[-1]) if len(rows) > limit else None,
            "looked_at": looked_at,
            "of": of,
        }

    async def _found(
        self, key: Callable[[Session], float], after: tuple[float, str], text: str, count: int
    ) -> tuple[list[_Row], int, int]:
        """The first sessions with *text*: those whose id begins so; if there are none, others."""
        if not text:
            return await self._first(key, after, lambda session: True, 1000, count)
        if len(text) >= SHORTEST:
            start = text[:HANDLE]
            found = await self._first(
                key, after, lambda session: handle_of(session).startswith(start), 1000, count
            )
            if found[0]:
                return found
        return await self._first(
            key, after, lambda session: _matches(session, text), AT_ONCE, count
        )

    async def _first(
        self,
        key: Callable[[Session], float],
        after: tuple[float, str],
        wanted: Callable[[Session], bool],
        at_once: int,
        count: int,
    ) -> tuple[list[_Row], int, int]:
        best: list[_Row] = []
        looked_at = 0
        for part in self._parts(at_once):
            rows = [
                row
                for each in part
                if each.ended is None
                and (row := (key(each), handle_of(each), each))[:2] > after
                and wanted(each)
            ]
            best = heapq.nsmallest(count, [*best, *rows], key=lambda row: row[:2])
            looked_at += len(part)
            await trio.lowlevel.checkpoint()
        return [row for row in best if row[2].ended is None], looked_at, len(self._store)

    def _parts(self, size: int) -> Iterator[list[Session]]:
        for part in self._store.slices():
            each = iter(part)
            while few := list(islice(each, size)):
                yield few

    def _summary(self, session: Session, question: Question) -> Data:
        return {
            "id": handle_of(session),
            "url": f"/-/sessions/{handle_of(session)}",
            "you": self._is_yours(session, question),
            "used": round(self._store.now() - session._last_access, 3),
            "left": _or_never(self._store.time_left(session)),
            "holds": _names_in(session),
        }

    def _is_yours(self, session: Session, question: Question) -> bool:
        return session._uid in self._site.session_ids(question.request)

    async def one(self, question: Question) -> Data:
        """One session: how long it lives, and what it holds."""
        session = await self._named(question)
        handle = handle_of(session)
        return {
            "id": handle,
            "class": _class_name(type(session)),
            "you": self._is_yours(session, question),
            "used": round(self._store.now() - session._last_access, 3),
            "left": _or_never(self._store.time_left(session)),
            "timeout": _or_never(session._timeout),
            "values": [*islice(_values_of(session), MOST_VALUES)],
            "components": [*islice(_components_of(session), MOST_VALUES)],
            "callbacks": [_name_of(each) for each in [*(session._callbacks or ())]],
            "actions": [each.on(id=handle) for each in self.actions],
        }

    async def preview(self, question: Question) -> Data:
        """How many sessions would end if time passed for all."""
        told: Data = {
            "note": "Only the sessions' clock moves: not time.time(), nor tasks that sleep.",
            "of": len(self._store),
            "actions": [self.pass_for_all.on()],
        }
        if text := question.fields.get("seconds", ""):
            seconds, ends = _seconds_of(text), 0
            for part in self._parts(1000):
                ends += sum(self._store.time_left(each) <= seconds for each in part)
                await trio.lowlevel.checkpoint()
            told |= {"seconds": seconds, "would_end": ends}
        return told

    # Actions

    async def expire(self, question: Question) -> Data:
        """End a session now."""
        session = await self._named(question)
        called = [_name_of(each) for each in [*(session._callbacks or ())]]
        self._store.end(session, SessionEnd.EXPIRED)
        what = f"; called {', '.join(called)}" if called else ""
        return {
            "done": f"Session {handle_of(session)} has ended{what}.",
            "callbacks": called,
            "see": "sessions",
        }

    async def become(self, question: Question) -> Data:
        """Have this browser go on with a session."""
        session = await self._named(question)
        ours = set(self._site.session_ids(question.request))
        before = [
            handle_of(each) for part in self._store.slices() for each in part if each._uid in ours
        ]
        self._site.adopt_session(question.request, session)
        back = f" To go back, become {before[0]}." if before else ""
        return {
            "done": f"This browser goes on with session {handle_of(session)}.{back}",
            "before": before[0] if before else None,
            "see": f"sessions/{(before or [handle_of(session)])[0]}",
        }

    async def let_pass(self, question: Question) -> Data:
        """Have a session be due earlier."""
        seconds = _seconds_of(question.fields.get("seconds", ""))
        self._refuse_elsewhere()
        session = await self._named(question)
        self._store.let_pass(session, seconds)
        left = self._store.time_left(session)
        return {
            "done": f"{seconds:g} seconds have passed for session {handle_of(session)}.",
            "left": _or_never(left),
            "see": f"sessions/{handle_of(session)}" if left else "sessions",
        }

    async def let_pass_for_all(self, question: Question) -> Data:
        """Have all sessions be due earlier."""
        seconds, count, ends = _seconds_of(question.fields.get("seconds", "")), 0, 0
        self._refuse_elsewhere()
        for part in self._parts(1000):
            for session in part:
                if session.ended is None:
                    self._store.let_pass(session, seconds)
                    count, ends = count + 1, ends + (self._store.time_left(session) == 0)
            await trio.lowlevel.checkpoint()
        what = f"{seconds:g} seconds have passed for {count:,} sessions; {ends:,} of them end."
        return {"done": what, "aged": count, "ends": ends, "see": "sessions"}

    def _refuse_elsewhere(self) -> None:
        if self._site.persistence is not None:
            where = self._site.persistence.store.name
            raise Problem(409, f"The time of sessions that are kept in {where} cannot be moved.")

    async def _named(self, question: Question) -> Session:
        name, found = question.names["id"], []
        if not SHORTEST <= len(name) <= HANDLE:
            raise Problem(404, "A session is named by the first 10 characters of its id.")
        for part in self._store.slices():
            found += [each for each in part if each._uid.startswith(name)]
            await trio.lowlevel.checkpoint()
        found = [each for each in found if each.ended is None]
        if not found:
            raise Problem(404, "There is no such session: it has ended, or there never was one.")
        if len(found) > 1:
            raise Problem(409, f"{len(found)} sessions have an id that begins so: say more of it.")
        return found[0]


def handle_of(session: Session) -> str:
    """Return what *session* is called in the inspector."""
    return (session._uid or "")[:HANDLE]


def _or_never(seconds: float) -> float | None:
    return None if seconds == math.inf else round(seconds, 3)


def _limit_of(text: str) -> int:
    if not text:
        return PAGE
    if not (text.isdecimal() and text.isascii() and 1 <= int(text[:9]) <= MOST_ITEMS):
        raise Problem(400, f"limit is a number from 1 to {MOST_ITEMS}.")
    return int(text)


def _seconds_of(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise Problem(400, str(exc)) from None
    if seconds == math.inf:
        raise Problem(400, "Time that passes comes to an end: write seconds, 90s, 15m or 2h.")
    return seconds


# A cursor holds what the rows are sorted by, which does not change while time goes on


def _age_of_access(session: Session) -> float:
    return -session._last_access


def _cursor(row: _Row) -> str:
    return f"{row[0]!r}~{row[1]}"


def _cursor_of(text: str) -> tuple[float, str]:
    if not text:
        return -math.inf, ""
    value, mark, handle = text.partition("~")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not mark or math.isnan(number):
        raise Problem(400, "after is what an answer had as next.")
    return number, handle


# What a session holds; nothing of the author's is called


def _values_of(session: Session) -> Iterator[Data]:
    for key, value in [*(session._values or {}).items()]:
        name = key if type(key) is str else ""
        yield {"path": f"session[{safe_repr(key)}]", "shown": safe_repr(value, name)}


def _components_of(session: Session) -> Iterator[Data]:
    for key, entry in [*(session._components or {}).items()]:
        component = entry.component
        yield {
            "interface": _interface_name(entry if entry.target is not None else key),
            "class": _class_name(type(component)),
            "shown": safe_repr(component),
        }


def _names_in(session: Session) -> str:
    keys = [safe_repr(key)[:40] for key in islice([*(session._values or ())], 8)]
    interfaces = [_interface_name(key) for key in islice([*(session._components or ())], 8)]
    return ", ".join([*keys, *interfaces])


def _interface_name(key: Any) -> str:
    """The name of what a component is kept for: a text that ends with it, or the thing itself."""
    thing = key.target if isinstance(key, Entry) else key
    if isinstance(thing, type):
        return _class_name(thing)
    if type(thing) is tuple:
        thing = thing[-1]
    name = thing if type(thing) is str else getattr(thing, "__name__", "")
    return name[:80].rpartition(".")[2] if type(name) is str else _class_name(type(thing))


def _class_name(kind: type) -> str:
    return str(type.__dict__["__name__"].__get__(kind))


def _name_of(callback: Any) -> str:
    plain = isinstance(callback, (FunctionType, MethodType))
    return str(callback.__qualname__) if plain else _class_name(type(callback))


def _matches(session: Session, text: str) -> bool:
    return any(
        text in each["path"] or text in each["shown"] for each in _values_of(session)
    ) or any(text in each["interface"] or text in each["shown"] for each in _components_of(session))
