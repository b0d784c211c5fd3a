"""What the inspector shows and does, as data: views and actions, and the table that has them.

A view is a function from a question to plain dicts and lists, and another from these to the content
of a page. So no view knows HTML, no renderer knows the site, and the ``.json`` twin has all that
the page has. An action is a function with named fields. Both are registered with a path below
``/-/``, in which ``{name}`` stands for one segment, and ``{name*}`` for all the rest. This module
knows nothing of requests and responses but what a `Question` holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rpyserve.util.text import parse_duration

if TYPE_CHECKING:
    from markupsafe import Markup

    from rpyserve.http.request import Request

Data = dict[str, Any]

Renderer = Callable[[Data], "Markup"]
"""Returns the content of the page that shows the data of a view, below its title.

A page has the ``token`` of this run in its data besides, for the forms of actions.
"""

LONGEST_WAIT: Final = 30.0
"""Seconds that an answer may wait for news."""

TOKEN_FIELD: Final = "X-Rpyserve-Token"
"""The header field in which a program may send the token of this run."""

_PLACE: Final = re.compile(r"\{(\w+)(\*?)\}")


class Problem(Exception):
    """A question has no answer.

    Args:
        status: the HTTP status that says so.
        detail: one or two sentences for who asked.
        headers: further fields of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Question:
    """What a view or an action is asked.

    Args:
        request: the request; what is kept of it must be values.
        names: what stands for the names in the path.
        fields: the fields of the query or, of an action, of the body.
        path: what is asked for, below ``/-/``.
    """

    request: Request
    names: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A named value that a view or an action takes.

    Args:
        name: its name in the query, a form or JSON.
        kind: ``text``, ``number``, ``duration``, ``check`` (for ``yes`` or nothing), or the
            choices, divided by ``|``.
        help: what it is, in a few words.
        example: what somebody may have written in it.
    """

    name: str
    kind: str = "text"
    help: str = ""
    example: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A view.

    Args:
        path: where it is, without ``/-/``.
        title: what its page is called; names in braces stand for those of the path.
        answer: returns what it shows.
        fields: what its query may have.
        is_text: whether it is the plain ``text`` in what it returns, without a page and JSON.
        is_look: whether requests record more for a while because somebody has looked at it.
        render: makes the content of its page of what it shows; None for plain text.
        place: where the link to it is among those in all pages, from 1; 0 if there is none.
        count: returns the number that stands beside that link.
    """

    path: str
    title: str
    answer: Callable[[Question], Awaitable[Data]]
    fields: tuple[Field, ...] = ()
    is_text: bool = False
    is_look: bool = True
    render: Renderer | None = None
    place: int = 0
    count: Callable[[], int] | None = None

    def title_for(self, names: Mapping[str, str]) -> str:
        """Return what the page is called of what *names* name."""
        return _filled(self.title, names)


@dataclass(frozen=True, slots=True)
class Action:
    """An action.

    Args:
        path: where it is, without ``/-/``.
        title: what its button is called.
        perform: does it, and returns what is said of it: ``done``, a sentence, and perhaps more.
        fields: what its form has.
        help: what it will do, in a sentence or two.
        render: makes the rest of the page that says what was done; None if there is no more.
    """

    path: str
    title: str
    perform: Callable[[Question], Awaitable[Data]]
    fields: tuple[Field, ...] = ()
    help: str = ""
    render: Renderer | None = None

    def on(self, **names: str) -> Data:
        """Return what a view says of this action, as done on what *names* name.

        One that ``stays`` has a sentence for an answer, which the page of the view can show.
        """
        return {
            "path": _filled(self.path, names),
            "title": self.title,
            "help": self.help,
            "stays": self.render is None,
            "fields": [_described(each) for each in self.fields],
        }


def _filled(text: str, names: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: names[place[1]], text)


Entry = TypeVar("Entry", View, Action)


class Table:
    """All views and actions, by their paths.

    Args:
        boot: tells this run of the server from others.
    """

    def __init__(self, boot: str = "") -> None:
        self.boot = boot
        self.views: list[View] = []
        self.actions: list[Action] = []
        self._patterns: dict[str, re.Pattern[str]] = {}

    def add_view(self, view: View) -> View:
        """Register *view*."""
        self._patterns[view.path] = _pattern_of(view.path)
        self.views.append(view)
        return view

    def add_action(self, action: Action) -> Action:
        """Register *action*."""
        self._patterns[action.path] = _pattern_of(action.path)
        self.actions.append(action)
        return action

    def view_at(self, path: str) -> tuple[View, dict[str, str]] | None:
        """Return the view at *path*, and what its names stand for; None if there is none."""
        return self._find(self.views, path)

    def action_at(self, path: str) -> tuple[Action, dict[str, str]] | None:
        """Return the action at *path*, and what its names stand for; None if there is none."""
        return self._find(self.actions, path)

    def _find(self, among: list[Entry], path: str) -> tuple[Entry, dict[str, str]] | None:
        for each in among:
            if found := self._patterns[each.path].fullmatch(path):
                return each, found.groupdict()
        return None

    def described(self) -> Data:
        """Return every view and action with its fields."""
        return {
            "views": [_described_entry(view) for view in self.views],
            "actions": [_described_entry(action) for action in self.actions],
        }


def _described_entry(entry: View | Action) -> Data:
    is_view = isinstance(entry, View)
    has_twin = isinstance(entry, View) and not entry.is_text
    told: Data = {
        "method": "GET" if is_view else "POST",
        "path": f"/-/{entry.path}{'.json' if has_twin else ''}",
        "title": entry.title,
        "fields": [_described(each) for each in entry.fields],
    }
    if isinstance(entry, Action):
        told["help"] = entry.help
    return told


def _described(each: Field) -> Data:
    return {"name": each.name, "kind": each.kind, "help": each.help, "example": each.example}


# Fields that views and actions have in common


def number_of(
    fields: Mapping[str, str], name: str, default: Any = None, *, most: int | None = None
) -> Any:
    """Return the whole number that the field *name* holds; *default* if there is none.

    Raises:
        Problem: it is no number, or not from 1 to *most*.
    """
    if not (text := fields.get(name, "")):
        return default
    number = int(text[:20]) if text.isascii() and text.isdecimal() else -1
    if most is not None and not 1 <= number <= most:
        raise Problem(400, f"{name} is a number from 1 to {most}.")
    if number < 0:
        raise Problem(400, f"{name} is a whole number.")
    return number


def seconds_of(fields: Mapping[str, str], name: str, *, most: float = math.inf) -> float:
    """Return the seconds that the field *name* holds; 0 if there is none, and at most *most*.

    Raises:
        Problem: it is no duration.
    """
    if not (text := fields.get(name, "")):
        return 0.0
    try:
        return min(parse_duration(text), most)
    except ValueError as exc:
        raise Problem(400, f"{name}: {exc}") from None


def _pattern_of(path: str) -> re.Pattern[str]:
    parts, end = [], 0
    for place in _PLACE.finditer(path):
        parts += [re.escape(path[end : place.start()])]
        parts += [f"(?P<{place[1]}>{'.+' if place[2] else '[^/]+'})"]
        end = place.end()
    return re.compile("".join([*parts, re.escape(path[end:])]), re.S)
