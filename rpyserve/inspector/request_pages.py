"""The pages of requests: the list, one of them, and what came of one that was sent once more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup

from rpyserve.http.request import ABANDONED
from rpyserve.inspector import blocks
from rpyserve.inspector.blocks import LINE, NOTHING, Column, Row
from rpyserve.util.html import html
from rpyserve.util.text import escape_unprintable, format_size

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data

PHASES: Final = {
    "body": "Reading the body",
    "execute": "Executing the script",
    "render": "The render method",
    "wait": "Waiting, in async code",
    "send": "Sending",
    "other": "Finding the page, and the rest",
}

_SHORT: Final = {"wait": "wait", "other": "rest"}
_COPIES: Final = {"curl": "curl", "ps1": "PowerShell", "httpx": "httpx"}
_QUERY: Final = ("q", "status", "script", "session", "slower")


def requests(data: Data) -> Markup:
    """Return the list of requests."""
    asked = data["asked"]
    return LINE.join(
        [
            html("<p class=lead>{}</p>", _summary(data)),
            blocks.search(_search_fields(), asked),
            request_table(data["items"]) if data["items"] else _nothing_found(data),
            _pager(data),
        ]
    )


def _search_fields() -> list[Data]:
    return [
        {"name": "q", "kind": "text", "help": "Path", "example": "/counter"},
        {"name": "status", "kind": "text", "help": "Status", "example": "404 or 5xx"},
        {"name": "script", "kind": "text", "help": "Script", "example": "counter.rpy"},
        {"name": "slower", "kind": "duration", "help": "Slower than", "example": "100ms"},
    ]


def _summary(data: Data) -> str:
    if not data["looked_at"]:
        return "Nothing has been asked for yet."
    kept = blocks.count(data["looked_at"], "request")
    bodies = f"bodies take {format_size(data['kept_bytes'])}" if data["kept_bytes"] else ""
    return f"The last {kept}, the newest first{'; ' + bodies if bodies else ''}."


def _nothing_found(data: Data) -> Markup:
    if data["looked_at"]:
        return blocks.empty(
            "None of them is like that.", f"All {data['looked_at']:,} were looked at."
        )
    return blocks.empty("No request yet.", "Open a page of the site, and it is here.")


def _pager(data: Data) -> Markup:
    if not data["next"]:
        return NOTHING
    fields = {name: data["asked"][name] for name in _QUERY if data["asked"].get(name)}
    url = f"/-/requests?{urlencode({**fields, 'before': data['next']}, errors='replace')}"
    what = f"{len(data['items']):,} of {data['looked_at']:,} requests shown."
    return html('<p class=pager>{} <a href="{}" rel=next>Earlier ones</a></p>', what, url)


def request_table(items: list[Data]) -> Markup:
    """Return a table of requests."""
    columns = [
        Column("Request", "text"),
        Column("Status", "number"),
        Column("Took", "number"),
        Column("Where the time went"),
        Column("Script", "text"),
        Column("Session"),
        Column("Began", "number"),
    ]
    longest = max((each["seconds"] or 0.0 for each in items), default=0.0)
    rows = [_row(each, longest) for each in items]
    return blocks.table("Requests", columns, rows)


def _row(item: Data, longest: float) -> Row:
    cells = [
        request_link(item) + _tags(item),
        _status(item),
        _took(item),
        _bar(item, longest),
        _script(item),
        _session(item["session"]),
        blocks.ago(item["ago"]),
    ]
    return Row(cells, f"request-{item['number']}")


def _tags(item: Data) -> Markup:
    parts = []
    if item["replay_of"]:
        parts.append(blocks.tag(f"replay of {item['replay_of']}"))
    if item["pinned"]:
        parts.append(blocks.tag("pinned"))
    if item.get("waited_for"):
        others = ", ".join(str(each) for each in item["waited_for"][:3])
        parts.append(blocks.tag(f"waited for {others}"))
    return NOTHING.join(parts)


def request_link(each: Data) -> Markup:
    """Return the method and target of a request, with a link to its page."""
    return blocks.link(each["url"], blocks.code(f"{each['method']} {each['target'][:120]}"))


def status(code: int | None) -> Markup:
    """Return a status; one that says that something went wrong stands out, and says so."""
    if code is None:
        return html("<i>none</i>")
    if code < 400:
        return html("{}", code)
    phrase = HTTPStatus(code).phrase if code in HTTPStatus._value2member_map_ else "error"
    return html("<strong class=bad>{} <span>{}</span></strong>", code, phrase)


def _status(item: Data) -> Markup:
    if item["status"] is None:
        return html("<i>running</i>")
    number = html("client left") if item["status"] == ABANDONED else status(item["status"])
    if item["error"]:
        number += html(' <a href="/-/errors/{}">error</a>', item["error"])
    if item["complete"] is False and item["status"] != ABANDONED:
        number += blocks.tag("cut off")
    return number


def _took(item: Data) -> str:
    return blocks.milliseconds(item["seconds"]) if item["seconds"] is not None else "–"  # noqa: RUF001


def _script(item: Data) -> Markup:
    if item["script"] is None:
        return html("<i>none</i>")
    name = blocks.link(f"/-/scripts/{quote(item['script'])}", blocks.code(item["script"]))
    if item["executed"] and item["executed"] != "not cached":
        name += html(" <small>{}</small>", blocks.text(item["executed"]))
    return name


def _session(handle: str | None) -> Markup:
    if handle is None:
        return html("<i>none</i>")
    return blocks.link(f"/-/sessions/{handle}", blocks.code(handle))


# Where the time went


def _bar(item: Data, longest: float) -> Markup:
    """The phases as a bar; its length grows with the root of the time, so that few are short."""
    if not (item["seconds"] and longest):
        return NOTHING
    scale, at = 120 / math.sqrt(longest * item["seconds"]), 0.0
    pieces = []
    for name, seconds in _phases(item):
        width = seconds * scale
        pieces.append(
            html(
                '<rect class="{}" x="{}" width="{}" height="8"/>', name, f"{at:.2f}", f"{width:.2f}"
            )
        )
        at += width
    words = ", ".join(
        f"{_SHORT.get(name, name)} {blocks.milliseconds(each)}" for name, each in _phases(item)
    )
    return html(
        '<svg class=phases role=img aria-label="{}" width="120" height="8" '
        'viewBox="0 0 120 8" preserveAspectRatio="none"><title>{}</title>{}</svg>',
        words,
        words,
        NOTHING.join(pieces),
    )


def _phases(item: Data) -> Iterator[tuple[str, float]]:
    for name in PHASES:
        if item["phases"][name]:
            yield name, item["phases"][name]


def _phase_table(item: Data) -> Markup:
    rows = [
        Row(
            [
                html('<span class="swatch {}"></span>{}', name, PHASES[name]),
                blocks.milliseconds(seconds),
            ],
            name,
        )
        for name, seconds in _phases(item)
    ]
    bar = _bar(item, item["seconds"] or 0.0)
    return bar + blocks.table("Phases", [Column("Phase", "wide"), Column("Took", "number")], rows)


# One request


def request(data: Data) -> Markup:
    """Return the page of one request."""
    main = [
        _state(data),
        blocks.section("What it changed in the session", _changes(data)),
        blocks.section("What it printed", _printed(data)),
        blocks.section("Request", message(data["request"])),
        blocks.section("Response", message(data["response"])),
    ]
    aside = [
        blocks.section("Where the time went", _phase_table(data)),
        blocks.section("Copy as", _copies(data["number"])),
        blocks.section("Act on it", blocks.actions(data["actions"], data["token"])),
    ]
    return html(
        "<div class=columns><div>{}</div><aside>{}</aside></div>", LINE.join(main), LINE.join(aside)
    )


def _state(data: Data) -> Markup:
    parts = [
        html("<code>{} {}</code>: {}", data["method"], blocks.text(data["target"]), _status(data)),
        html(" in {}", _took(data)) if data["seconds"] is not None else NOTHING,
        _tags(data),
    ]
    visitor = [
        html('<a href="/-/requests/{}">{}</a>', data[name], shown)
        for name, shown in (("previous", "The one before"), ("next", "the one after"))
        if data[name]
    ]
    facts = [
        ("Began", blocks.ago(data["ago"])),
        ("Script", _script(data)),
        ("Session", _session(data["session"])),
        ("Client", data["client"]),
        ("Held the event loop for", blocks.milliseconds(data["held"])),
    ]
    if visitor:
        facts.append(("By this visitor", Markup(", ").join(visitor)))
    if data["replay_of"]:
        facts.append(
            ("Replay of", blocks.link(f"/-/requests/{data['replay_of']}", data["replay_of"]))
        )
    return html("<p class=state>{}</p>", NOTHING.join(parts)) + blocks.facts(facts)


def _changes(data: Data) -> Markup:
    changed = data["changed"]
    if changed is None:
        return blocks.empty("Not recorded: nobody was looking.", "Replay it, and it is.")
    if not changed["items"]:
        return blocks.empty("Nothing." if data["session"] else "Nothing: it used no session.")
    notes = []
    if not changed["alone"]:
        notes.append("Other requests of this session ran meanwhile: some of it may be theirs.")
    if not changed["whole"]:
        notes.append("The session holds more than is compared.")
    rows = [
        Row(
            [
                blocks.code(each["path"]) + (blocks.tag(each["note"]) if each["note"] else NOTHING),
                blocks.code(each["was"]) if each["was"] is not None else html("<i>not there</i>"),
                blocks.code(each["now"]) if each["now"] is not None else html("<i>removed</i>"),
            ],
            each["path"],
        )
        for each in changed["items"]
    ]
    columns = [Column("Value", "text"), Column("Was", "text"), Column("Is now", "wide")]
    said = blocks.paragraph(*notes) if notes else NOTHING
    return said + blocks.table("Changes of the session", columns, rows)


def _printed(data: Data) -> Markup:
    if data["printed"] is None:
        return blocks.empty("Not recorded: nobody was looking.", "Replay it, and it is.")
    if not data["printed"]:
        return blocks.empty("Nothing.")
    return lines(data["printed"], "What it printed")


def message(data: Data) -> Markup:
    """Return the head and the body of a request or a response."""
    fields = blocks.facts((name, blocks.code(value)) for name, value in data["headers"])
    if not data["headers"]:
        fields = blocks.empty("There was no head.")
    return fields + _body(data["body"])


def _body(body: Data) -> Markup:
    size = format_size(body["bytes"])
    if not body["bytes"]:
        return blocks.empty("No body.")
    if body["kept"] is None:
        return blocks.empty(f"The body of {size} was dropped to make room for later ones.")
    if body["text"] is None:
        return blocks.empty(f"The body of {size} is no text.")
    begin = "" if body["whole"] else f", of which the first {format_size(body['kept'])} are here"
    return html("<p>The body of {}{}:</p>", size, begin) + lines(body["text"], "The body")


def lines(shown: str, label: str) -> Markup:
    """Return text of several lines, as it is."""
    text = LINE.join(html("{}", blocks.text(line)) for line in shown.splitlines())
    return html('<pre role=region tabindex=0 aria-label="{}">{}</pre>', label, text)


def _copies(number: int) -> Markup:
    links = [
        html('<li><a href="/-/requests/{}.{}">{}</a></li>', number, ending, name)
        for ending, name in _COPIES.items()
    ]
    return html("<ul class=plain>{}</ul>", LINE.join(links)) + blocks.paragraph(
        "Passwords, cookies and the like are masked."
    )


# What actions did


def replayed(data: Data) -> Markup:
    """Return the two answers beside each other, and what the second one changed."""
    pair = [
        html(
            "<section><h2>{}</h2><p class=state>{} in {}</p>{}</section>",
            title,
            _status(one),
            _took(one),
            message(one["response"]),
        )
        for title, one in (("Then", data["before"]), ("Now", data["after"]))
    ]
    return LINE.join(
        [
            blocks.section("What it changed in the session", _changes(data["after"])),
            html("<div class=pair>{}</div>", LINE.join(pair)),
        ]
    )


def as_text(data: Data) -> Markup:
    """Return text that is to be copied, such as a test."""
    shown = escape_unprintable(data["text"], keep="\n\t")
    return html("<pre role=region tabindex=0 aria-label=Text>{}</pre>", shown)
