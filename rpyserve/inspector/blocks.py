"""What the inspector's pages are built of: words for numbers and times, tables, trees, forms.

Whatever is shown goes through `text`, which leaves no character that could control how the text
around it is read, and then through `html`, so that nothing of it can be markup. Times are spans
before or after now, and carry their seconds in ``data-ago`` and ``data-left``, by which the script
of the pages lets them go on; by themselves they stand.

A table is one of cells on a wide screen, and one of cards on a narrow one. Its roles are written
out, because a browser forgets those of a table that is laid out otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from markupsafe import Markup

from rpyserve.util.html import html
from rpyserve.util.text import escape_unprintable

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data

NOTHING: Final = Markup()
LINE: Final = Markup("\n")

LONGEST: Final = 2000
"""How many characters of a text are shown."""

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


# Words


def text(value: object) -> str:
    """Return *value* as a text that is harmless wherever it stands, and not too long."""
    whole = str(value)
    return escape_unprintable(whole[:LONGEST]) + ("…" if len(whole) > LONGEST else "")


def count(number: int, one: str, many: str = "") -> str:
    """Return how many there are: ``1 session``, ``1,234 sessions``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """Return *seconds* in at most two units: ``4 min 12 s``, ``2 h``, ``250 ms``."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def milliseconds(seconds: float) -> str:
    """Return how long something took: ``0.4 ms``, ``12 ms``, ``1,204 ms``."""
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 9.95 else f"{value:,.0f} ms"


def ago(seconds: float) -> Markup:
    """Return how long ago something was."""
    return html("<span data-ago={}>{}</span>", f"{seconds:.1f}", ago_words(seconds))


def ago_words(seconds: float) -> str:
    """Return how long ago something was, in words."""
    return "just now" if seconds < 1 else f"{span(int(seconds))} ago"


def time_left(left: float | None, of: float | None) -> Markup:
    """Return how long something lives, in words and as a bar.

    Args:
        left: seconds; None for ever.
        of: seconds that it lives at most; None for ever.
    """
    if left is None:
        return html("never")
    words = html("<span class=left data-left={}>{}</span>", f"{left:.1f}", span(int(left)))
    most = max(of or 0.0, left, 1.0)
    return html(
        "{} <meter data-left={} min=0 max={} low={} high={} optimum={} value={} "
        'aria-label="Time left"></meter>',
        words,
        *(f"{each:.1f}" for each in (left, most, most / 5, most / 5, most, left)),
    )


# Blocks


def section(title: str, body: Markup, *, note: Markup | str = "") -> Markup:
    """Return a part of a page below a heading, with an optional note beside that."""
    more = html(" <small>{}</small>", note) if note else NOTHING
    return html("<section><h2>{}{}</h2>\n{}\n</section>", title, more, body)


def paragraph(*sentences: object) -> Markup:
    """Return a paragraph of sentences, each a text or markup."""
    parts = Markup(" ").join(each if isinstance(each, Markup) else text(each) for each in sentences)
    return html("<p>{}</p>", parts)


def empty(sentence: str, advice: str = "") -> Markup:
    """Return what stands in the place of things of which there are none, and how to get some."""
    return html("<p class=empty>{}{}</p>", sentence, html(" <span>{}</span>", advice))


def figures(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Return a row of numbers, each with what it is a number of."""
    items = [
        html("<div><dt>{}</dt><dd>{}</dd></div>", name, number if number is not None else "none")
        for name, number in pairs
    ]
    return html("<dl class=figures>{}</dl>", LINE.join(items))


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Return a list of terms, each with a text or markup."""
    items = [
        html("<dt>{}</dt><dd>{}</dd>", name, each if isinstance(each, Markup) else text(each))
        for name, each in pairs
    ]
    return html("<dl class=facts>{}</dl>", LINE.join(items))


def link(url: str, shown: object) -> Markup:
    """Return a link."""
    return html('<a href="{}">{}</a>', url, shown if isinstance(shown, Markup) else text(shown))


def code(shown: object) -> Markup:
    """Return something that is from code, such as a name or a value."""
    return html("<code>{}</code>", text(shown))


def tag(shown: str) -> Markup:
    """Return a short remark that stands behind a name."""
    return html(" <span class=tag>{}</span>", shown)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: what stands above it.
        kind: ``number`` for what is compared digit by digit, ``text`` for what may have several
            lines, ``wide`` for what takes the room that is left, or nothing.
        url: where the rows are sorted by it; empty if they cannot be.
        is_sorted: whether they are.
    """

    title: str
    kind: str = ""
    url: str = ""
    is_sorted: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Args:
        cells: a text or markup for each column; the first one names the row.
        id: tells it from other rows of the page, however they are sorted.
    """

    cells: Sequence[object]
    id: str = ""


def table(label: str, columns: Sequence[Column], rows: Iterable[Row]) -> Markup:
    """Return a table, whose rows can be gone through with single keys.

    Args:
        label: what it is a table of, for who does not see it.
        columns: its columns.
        rows: its rows.
    """
    return html(
        '<table role=table aria-label="{}" data-list><thead role=rowgroup><tr role=row>{}</tr>'
        "</thead>\n<tbody role=rowgroup>\n{}\n</tbody></table>",
        label,
        NOTHING.join(map(_heading, columns)),
        LINE.join(_row(columns, row) for row in rows),
    )


def _heading(column: Column) -> Markup:
    sorted_by = Markup(" aria-sort=ascending") if column.is_sorted else NOTHING
    title = link(column.url, column.title) if column.url else html("{}", column.title)
    return html(
        '<th role=columnheader scope=col class="{}"{}>{}</th>', column.kind, sorted_by, title
    )


def _row(columns: Sequence[Column], row: Row) -> Markup:
    pairs = enumerate(zip(columns, row.cells, strict=True))
    cells = NOTHING.join(_cell(*each, is_first=n == 0) for n, each in pairs)
    name = html(' id="{}"', quote(row.id)) if row.id else NOTHING
    return html("<tr role=row{}>{}</tr>", name, cells)


def _cell(column: Column, content: object, *, is_first: bool) -> Markup:
    shown = content if isinstance(content, Markup) else text(content)
    if is_first:
        return html('<th role=rowheader scope=row class="{}">{}</th>', column.kind, shown)
    return html(
        '<td role=cell class="{}" data-title="{}">{}</td>', column.kind, column.title, shown
    )


# Trees


def tree(leaves: Iterable[Data]) -> Markup:
    """Return what something holds: a list, in which what holds something itself can be opened.

    Args:
        leaves: each with its ``path``, the path of its ``parent`` (empty for none), a ``name``,
            what is ``shown`` of it, a ``note``, perhaps the markup of an ``editor``, and whether it
            ``is_open``. A parent comes before its children.
    """
    children: dict[str, list[Data]] = {}
    for leaf in leaves:
        children.setdefault(leaf["parent"], []).append(leaf)
    return _branch(children, "", Markup(" class=tree"))


def _branch(children: Mapping[str, list[Data]], parent: str, attributes: Markup) -> Markup:
    items = LINE.join(_leaf(each, children) for each in children.get(parent, ()))
    return html("<ul{}>{}</ul>", attributes, items)


def _leaf(leaf: Data, children: Mapping[str, list[Data]]) -> Markup:
    line = html(
        "<code class=key>{}</code> <code class=value>{}</code>{}",
        text(leaf["name"]),
        text(leaf["shown"]),
        html(" <small>{}</small>", text(leaf["note"])) if leaf["note"] else NOTHING,
    )
    if leaf["path"] not in children:
        return html("<li>{}{}</li>", line, leaf.get("editor", NOTHING))
    is_open = Markup(" open") if leaf.get("is_open", not leaf["parent"]) else NOTHING
    return html(
        '<li><details id="{}"{}><summary>{}</summary>{}</details></li>',
        quote(leaf["path"], errors="replace"),
        is_open,
        line,
        _branch(children, leaf["path"], NOTHING),
    )


# Forms


def actions(
    each: Iterable[Data], token: str, values: Mapping[str, str] = MappingProxyType({})
) -> Markup:
    """Return the forms of actions, each with what it will do.

    Args:
        each: the actions, as `Action.on` gives them.
        token: that of this run of the server.
        values: what is in their fields; else the example that a field has.
    """
    forms = LINE.join(action(one, token, values) for one in each)
    return html("<div class=actions>{}</div>", forms)


def action(given: Data, token: str, values: Mapping[str, str] = MappingProxyType({})) -> Markup:
    """Return the form of an action; see `actions`."""
    fields = [
        field(each, f"{given['path']}-{each['name']}", values.get(each["name"]) or each["example"])
        for each in given["fields"]
    ]
    return html(
        '<form method=post action="/-/{}"{}><input type=hidden name=token value="{}">'
        "<div>{}<button>{}</button></div>{}</form>",
        given["path"],
        Markup(" data-stays") if given["stays"] else NOTHING,
        token,
        NOTHING.join(fields),
        given["title"],
        html("<p>{}</p>", given["help"]) if given["help"] else NOTHING,
    )


def search(fields: Iterable[Data], query: Mapping[str, Any], button: str = "Search") -> Markup:
    """Return the form by which a view is asked for something else.

    Args:
        fields: those of the view that somebody may fill in.
        query: what was asked.
        button: what its button says.
    """
    made = [
        field(each, f"query-{each['name']}", str(query.get(each["name"], ""))) for each in fields
    ]
    return html(
        "<form method=get role=search>{}<button>{}</button></form>", NOTHING.join(made), button
    )


def field(given: Data, name: str, value: str = "") -> Markup:
    """Return the input of a field, with its label.

    Args:
        given: the field, as a view tells of it.
        name: its id, unique in the page.
        value: what is in it.
    """
    label = html('<label for="{}">{}</label>', name, given["help"] or given["name"])
    if given["kind"] == "check":
        box = '<input type=checkbox id="{}" name="{}" value=yes>'
        return html("<span class=check>{}{}</span>", html(box, name, given["name"]), label)
    if "|" in given["kind"]:
        options = NOTHING.join(
            html("<option{}>{}</option>", Markup(" selected") if each == value else NOTHING, each)
            for each in given["kind"].split("|")
        )
        return html('{}<select id="{}" name="{}">{}</select>', label, name, given["name"], options)
    return html(
        '{}<input data-kind="{}" id="{}" name="{}" value="{}" placeholder="{}" autocomplete=off>',
        label,
        given["kind"],
        name,
        given["name"],
        text(value),
        given["example"],
    )
