"""The sessions of a site: the list of them, each by itself, and what can be done to one.

A session appears by the first characters of its id; the whole of it is nowhere. To look is no
visit, and calls nothing of the author's. Where there are many, they are looked at in slices, and
others have their turn between two.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.diagnostics.editor import detected
from rpyserve.diagnostics.redaction import Redactor
from rpyserve.diagnostics.values import safe_repr
from rpyserve.inspector import session_pages
from rpyserve.inspector.ended_sessions import (
    HANDLE,
    Callback,
    EndedSession,
    EndedSessions,
    callback_of,
    handle_of,
)
from rpyserve.inspector.request_views import changes_of, summary_of
from rpyserve.inspector.session_edit import change
from rpyserve.inspector.session_view import KINDS, Leaf, class_name, contents_of, interface_name
from rpyserve.inspector.views import Action, Data, Field, Problem, Question, Table, View, number_of
from rpyserve.sessions.session import Session, SessionEnd, deadline_of
from rpyserve.util.text import parse_duration

if TYPE_CHECKING:
    from rpyserve.inspector.recorder import Recorder
    from rpyserve.site import Site

SHORTEST: Final = 4
"""How many of them name a session at least."""
PAGE: Final = 50
MOST_ITEMS: Final = 500
MOST_NAMES: Final = 8
"""How many values and components of one session a list names."""
MOST_ENDED: Final = 50
"""How many ended sessions a list shows."""
LAST: Final = 5
"""How many sessions the view of the whole server names."""
AT_ONCE: Final = 50
"""How many sessions are searched before others have their turn."""
MOST_REQUESTS: Final = 50
"""How many requests of one session are listed."""
SEARCH_TIME: Final = 2.0
"""Seconds after which a search through values says how far it has come."""

_QUERY: Final = (
    Field("q", help="Search in ids and values", example="an id, or what it holds"),
    Field("sort", "used|left", "Sort by"),
    Field("after", help="After"),
    Field("limit", "number", "How many"),
)
_CHANGE: Final = Field("change", help="The path of a value that is to be changed")
_LENGTH: Final = Field("seconds", "duration", "How long", "15m")

_Row = tuple[float, str, Session]


@dataclass(slots=True)
class _Search:
    """Looks for the first sessions in an order.

    Args:
        key: what they are sorted by.
        after: the key and the handle of one that is before all that are wanted.
        wanted: says which are.

    Attributes:
        rows: those that were found, in order.
        looked_at: how many were looked at.
        is_whole: whether all were.
    """

    key: Callable[[Session], float]
    after: tuple[float, str]
    wanted: Callable[[Session], bool]
    rows: list[_Row] = field(default_factory=list)
    looked_at: int = 0
    is_whole: bool = False

    async def look(
        self, parts: Iterator[list[Session]], count: int, seconds: float = math.inf
    ) -> None:
        """Look at *parts* for the first *count*, until there are no more, or time is up."""
        end = trio.current_time() + seconds
        for part in parts:
            found = filter(self._takes, map(self._row, part))
            self.rows = heapq.nsmallest(count, [*self.rows, *found], key=_place)
            self.looked_at += len(part)
            await trio.lowlevel.checkpoint()
            if trio.current_time() >= end:
                return
        self.is_whole = True

    def _row(self, session: Session) -> _Row:
        return self.key(session), handle_of(session), session

    def _takes(self, row: _Row) -> bool:
        return row[2].ended is None and row[:2] > self.after and self.wanted(row[2])


def _place(row: _Row) -> tuple[float, str]:
    return row[:2]


class SessionViews:
    """The views and actions of the sessions of *site*.

    Args:
        site: the site.
        ended: keeps those that have ended.
        recorder: keeps what their requests did.
        visit_actions: what else can be done with one of them.
    """

    def __init__(
        self,
        site: Site,
        ended: EndedSessions,
        recorder: Recorder,
        visit_actions: Sequence[Action] = (),
    ) -> None:
        self._recorder = recorder
        self._visit_actions = visit_actions
        self._site = site
        self._store = site.sessions
        self._ended = ended
        self._actions = [
            Action(
                "sessions/{id}/pass",
                "Let time pass",
                self.let_pass,
                (_LENGTH,),
                "The session is due that much earlier, as if its visitor had stayed away. Only "
                "the sessions' clock moves, not time.time().",
            ),
            Action(
                "sessions/{id}/expire",
                "Expire now",
                self.expire,
                help="Its callbacks run, and the visitor gets a new session with the next request.",
            ),
            Action(
                "sessions/{id}/become",
                "Become this visitor",
                self.become,
                help="This browser goes on with this session. The answer has the way back.",
            ),
        ]
        self._set = Action(
            "sessions/{id}/set",
            "Change",
            self.set_value,
            (
                Field("path", help="Where"),
                Field("seen", help="What is there, as it is shown"),
                Field("value", help="The new value"),
                Field("kind", "|".join(KINDS.values()), "Its kind, in the place of None"),
            ),
            "The value is replaced in the running server, and nothing is called.",
        )
        self._pass_for_all = Action(
            "clock/pass",
            "Let it pass for all sessions",
            self.let_pass_for_all,
            (_LENGTH,),
            "Each session is due that much earlier. Those whose time is over then end, and their "
            "callbacks run.",
        )

    def register(self, table: Table) -> None:
        """Add them to *table*."""
        table.add_view(
            View(
                "sessions",
                "Sessions",
                self.listed,
                _QUERY,
                render=session_pages.sessions,
                place=2,
                count=lambda: len(self._store),
            )
        )
        table.add_view(
            View(
                "sessions/{id}", "Session {id}", self.one, (_CHANGE,), render=session_pages.session
            )
        )
        table.add_view(
            View("clock", "Let time pass", self.preview, (_LENGTH,), render=session_pages.clock)
        )
        for action in (*self._actions, self._set, self._pass_for_all):
            table.add_action(action)

    # Views

    async def listed(self, question: Question) -> Data:
        """The sessions in an order, as many as a page has, after a cursor; and the ended ones."""
        fields = question.fields
        sort, limit = fields.get("sort") or "used", _limit_of(fields.get("limit", ""))
        if sort not in ("used", "left"):
            raise Problem(400, "sort is used or left.")
        key = deadline_of if sort == "left" else _age_of_access
        after = _cursor_of(fields.get("after", ""))
        text = fields.get("q", "")
        begin = number_of(fields, "from", 0)
        found = await self._found(key, after, text, limit + 1, begin)
        rows = [row for row in found.rows if row[2].ended is None]
        shown = rows[:limit]
        counts = self._store.statistics()
        return {
            "q": text,
            "sort": sort,
            "after": fields.get("after", ""),
            "items": [self._summary(each, question) for _, _, each in shown],
            "next": _cursor(shown[-1]) if len(rows) > limit else None,
            "from": begin,
            "looked_at": found.looked_at,
            "goes_on": None if found.is_whole else begin + found.looked_at,
            "of": len(self._store),
            "made": counts.made,
            "ended": {reason.value: count for reason, count in counts.ended.items()},
            "ended_lately": [
                _summary_of_ended(each) for each in self._ended.newest_first()[:MOST_ENDED]
            ],
        }

    async def summary(self, question: Question) -> Data:
        """How many sessions there are, and the last of them."""
        found = await self._found(_age_of_access, _cursor_of(""), "", LAST)
        counts = self._store.statistics()
        return {
            "live": counts.live,
            "made": counts.made,
            "ended": {reason.value: count for reason, count in counts.ended.items()},
            "used_last": [
                self._summary(each, question) for _, _, each in found.rows if each.ended is None
            ],
        }

    async def _found(
        self,
        key: Callable[[Session], float],
        after: tuple[float, str],
        text: str,
        count: int,
        begin: int = 0,
    ) -> _Search:
        """The first sessions with *text*: those whose id begins so; if there are none, others.

        Values take long to look through, so that stops after a while, and goes on at *begin*.
        """
        if not text or (len(text) >= SHORTEST and not begin):
            start = text[:HANDLE]
            search = _Search(key, after, lambda session: handle_of(session).startswith(start))
            await search.look(self._parts(1000), count)
            if not text or search.rows:
                return search
        search = _Search(key, after, lambda session: _matches(session, text))
        await search.look(self._parts(AT_ONCE, begin), count, SEARCH_TIME)
        return search

    def _parts(self, size: int, begin: int = 0) -> Iterator[list[Session]]:
        for part in self._store.slices():
            each = islice(part, begin, None)
            begin = max(0, begin - len(part))
            while few := list(islice(each, size)):
                yield few

    def _summary(self, session: Session, question: Question) -> Data:
        return {
            "id": handle_of(session),
            "url": f"/-/sessions/{handle_of(session)}",
            "you": self._is_yours(session, question),
            **self._times_of(session),
            "holds": _names_in(session),
        }

    def _times_of(self, session: Session) -> Data:
        return {
            "used": round(max(0.0, self._store.now() - session._last_access), 3),
            "left": _or_never(self._store.time_left(session)),
            "timeout": _or_never(session._timeout),
        }

    def _is_yours(self, session: Session, question: Question) -> bool:
        return session._uid in self._site.session_ids(question.request)

    async def one(self, question: Question) -> Data:
        """One session: how long it lives, and what it holds; or held, if it has ended."""
        try:
            session = await self._named(question)
        except Problem:
            ended = self._ended.get(question.names["id"])
            if ended is None or len(question.names["id"]) < SHORTEST:
                raise
            return self._described_ended(ended)
        contents = contents_of(session, (), _redactor(session, question))
        callbacks = [callback_of(each) for each in [*(session._callbacks or ())]]
        return {
            "id": handle_of(session),
            "class": class_name(type(session)),
            "ended": None,
            "you": self._is_yours(session, question),
            **self._times_of(session),
            "holds": leaves_as_data(contents.leaves),
            "is_whole": contents.is_whole,
            "callbacks": [self._described_callback(each) for each in callbacks],
            "changing": question.fields.get("change"),
            "requests": self._requests_of(handle_of(session)),
            "set": self._set.on(id=handle_of(session)),
            "actions": [
                each.on(id=handle_of(session)) for each in (*self._actions, *self._visit_actions)
            ],
        }

    def _requests_of(self, handle: str) -> list[Data]:
        """The last requests of a session, the newest first, with what they changed in it."""
        records = [each for each in self._recorder.shown() if each.session == handle]
        return [
            summary_of(each) | {"changed": changes_of(each)}
            for each in records[: -MOST_REQUESTS - 1 : -1]
        ]

    def _described_ended(self, ended: EndedSession) -> Data:
        return {
            **_summary_of_ended(ended),
            "class": ended.kind,
            "holds": None if ended.leaves is None else leaves_as_data(ended.leaves),
            "requests": self._requests_of(ended.handle),
            "callbacks": [self._described_callback(each) for each in ended.callbacks],
        }

    def _described_callback(self, callback: Callback) -> Data:
        return {
            "name": callback.name,
            "file": callback.file,
            "line": callback.line,
            "editor": (self._site.editor or detected()).link(callback.path, callback.line),
        }

    async def preview(self, question: Question) -> Data:
        """How many sessions would end if time passed for all."""
        told: Data = {"of": len(self._store), "actions": [self._pass_for_all.on()]}
        if text := question.fields.get("seconds", ""):
            seconds, ends = _seconds_of(text), 0
            for part in self._parts(1000):
                ends += sum(self._store.time_left(each) <= seconds for each in part)
                await trio.lowlevel.checkpoint()
            told |= {"asked": text, "seconds": seconds, "would_end": ends}
        return told

    # Actions

    async def expire(self, question: Question) -> Data:
        """End a session now."""
        session = await self._named(question)
        called = [callback_of(each).name for each in [*(session._callbacks or ())]]
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

    async def set_value(self, question: Question) -> Data:
        """Change a plain value of a session."""
        path, seen, value = (question.fields.get(name) for name in ("path", "seen", "value"))
        if path is None or seen is None or value is None:
            raise Problem(400, "path, seen and value are needed.")
        self._refuse_elsewhere("The values of sessions")
        session, kind = await self._named(question), question.fields.get("kind", "")
        redactor = _redactor(session, question)
        was, now = change(session, path, seen, value, kind, redactor)
        return {
            "done": f"{path}: {was} is {now} now.",
            "was": was,
            "now": now,
            "see": f"sessions/{handle_of(session)}",
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

    def _refuse_elsewhere(self, what: str = "The time of sessions") -> None:
        if self._site.persistence is not None:
            where = self._site.persistence.store.name
            raise Problem(409, f"{what} that are kept in {where} cannot be changed here.")

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


def _redactor(session: Session, question: Question) -> Redactor:
    return Redactor([session._uid or "", *question.request.cookies.values()])


def leaves_as_data(leaves: Sequence[Leaf]) -> list[Data]:
    return [
        {
            "path": each.path,
            "name": each.path.removeprefix(each.parent),
            "parent": each.parent,
            "shown": each.shown,
            "note": each.note,
            "kind": each.kind or None,
        }
        for each in leaves
    ]


def _summary_of_ended(ended: EndedSession) -> Data:
    return {
        "id": ended.handle,
        "url": f"/-/sessions/{ended.handle}",
        "ended": ended.reason.value,
        "at": round(ended.at, 3),
        "ago": round(max(0.0, time.time() - ended.at), 3),
        "called": ", ".join(each.name for each in ended.callbacks),
        "held": "" if ended.leaves is None else _names_of(ended.leaves),
    }


def _names_of(leaves: Sequence[Leaf]) -> str:
    names = [each.path for each in leaves if not each.parent]
    return ", ".join(map(_bare, names[:MOST_NAMES]))


def _bare(path: str) -> str:
    """The key of a value of a session, or the interface of a component, without what is around."""
    is_key = path.startswith("session[") and path.endswith("]")
    return path[len("session[") : -1].strip("'\"") if is_key else path


def _names_in(session: Session) -> str:
    values = [*islice([*(session._values or ())], MOST_NAMES)]
    keys = [each[:40] if type(each) is str else safe_repr(each)[:40] for each in values]
    components = [*islice([*(session._components or {}).items()], MOST_NAMES)]
    return ", ".join([*keys, *(interface_name(key, entry) for key, entry in components)])


def _values_of(session: Session) -> Iterator[tuple[str, str]]:
    for key, value in [*(session._values or {}).items()]:
        yield safe_repr(key), safe_repr(value, key if type(key) is str else "")
    for key, entry in [*(session._components or {}).items()]:
        yield interface_name(key, entry), safe_repr(entry.component)


def _matches(session: Session, text: str) -> bool:
    return any(text in name or text in shown for name, shown in _values_of(session))
