"""The pages of sessions: the list, one of them, and time that passes for all."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from markupsafe import Markup

from rpyserve.inspector import blocks
from rpyserve.inspector.blocks import NOTHING, Column, Row
from rpyserve.inspector.request_pages import request_link, status
from rpyserve.util.html import html

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data

REASONS: Final = {
    "idle": "idle: its time was over",
    "expired": "expired by the site, or here",
    "evicted": "evicted, to make room for another",
    "stopped": "stopped with the server",
}

_HOW_TO: Final = "A session is made when a script calls request.getSession()."
_NO_EFFECT: Final = (
    "Only the sessions' clock moves: not time.time(), nor tasks that sleep. In a test, "
    "client.sleep moves all."
)


def sessions(data: Data) -> Markup:
    """Return the list of sessions."""
    return blocks.LINE.join(
        [
            html("<p class=lead>{}</p>", summary_of(data)),
            _search(data),
            live_table(data["items"], data) if data["items"] else _nothing_found(data),
            _pager(data),
            blocks.section("Ended lately", ended_table(data["ended_lately"])),
        ]
    )


def summary_of(data: Data) -> str:
    """Return how many sessions live, and how many have ended, and why."""
    live = f"{blocks.count(data['of'], 'live session')}."
    ended = [f"{number:,} {reason}" for reason, number in data["ended"].items() if number]
    return f"{live} Ended so far: {', '.join(ended)}." if ended else f"{live} None has ended yet."


def _search(data: Data) -> Markup:
    fields: list[Data] = [
        {"name": "q", "kind": "text", "help": "Search", "example": "an id, or what it holds"}
    ]
    aging = html('<a href="/-/clock">Let time pass for all…</a>')
    return html("<div class=bar>{}{}</div>", blocks.search(fields, data), aging)


def _nothing_found(data: Data) -> Markup:
    if data["q"]:
        looked = _looked_at(data)
        return blocks.empty(f"No session has “{blocks.text(data['q'])}” in it.", looked)
    if data["after"]:
        return blocks.empty("There are no more sessions.")
    return no_session()


def no_session() -> Markup:
    """Return what is said where there is no session."""
    return blocks.empty("No session yet.", _HOW_TO)


def live_table(items: list[Data], query: Data | None = None) -> Markup:
    """Return a table of sessions that live.

    Args:
        query: what was asked of the list, if it can be sorted.
    """
    columns = [
        Column("Session"),
        _sortable("Last used", "used", query),
        _sortable("Ends in", "left", query),
        Column("Holds", "wide"),
    ]
    return blocks.table("Live sessions", columns, map(_live_row, items))


def _sortable(title: str, sort: str, query: Data | None) -> Column:
    if query is None:
        return Column(title, "number")
    fields = {"q": query["q"], "sort": sort} if query["q"] else {"sort": sort}
    url = f"/-/sessions?{urlencode(fields, errors='replace')}"
    return Column(title, "number", url, query["sort"] == sort)


def _live_row(item: Data) -> Row:
    name = blocks.link(item["url"], blocks.code(item["id"]))
    you = blocks.tag("yours") if item["you"] else NOTHING
    left = blocks.time_left(item["left"], item["timeout"])
    holds = blocks.code(item["holds"]) if item["holds"] else html("<i>nothing</i>")
    return Row([name + you, blocks.ago(item["used"]), left, holds], f"session-{item['id']}")


def _pager(data: Data) -> Markup:
    shown = len(data["items"])
    parts = []
    if shown and (data["next"] or data["after"] or data["q"]):
        looked = "" if data["goes_on"] else _looked_at(data)
        parts.append(html("{} of {:,} sessions shown. {}", f"{shown:,}", data["of"], looked))
    if data["goes_on"]:
        fields = {"q": data["q"], "sort": data["sort"], "from": data["goes_on"]}
        parts.append(html("{} {}", _looked_at(data), _to_more(fields, "Look on")))
    elif data["next"]:
        fields = {"q": data["q"], "sort": data["sort"], "after": data["next"]}
        parts.append(_to_more(fields, "The next ones"))
    return html("<p class=pager>{}</p>", Markup(" ").join(parts)) if parts else NOTHING


def _looked_at(data: Data) -> str:
    """How far a search has come."""
    so_far = data["from"] + data["looked_at"]
    if data["goes_on"]:
        return f"{so_far:,} of {data['of']:,} were looked at so far."
    return "All were looked at." if so_far >= data["of"] else ""


def _to_more(fields: Data, words: str) -> Markup:
    url = f"/-/sessions?{urlencode(fields, errors='replace')}"
    return html('<a href="{}" rel=next>{}</a>', url, words)


def ended_table(items: list[Data]) -> Markup:
    """Return a table of sessions that have ended."""
    if not items:
        return blocks.empty("No session has ended.", "Those that do are here with the reason.")
    columns = [
        Column("Session"),
        Column("Ended", "number"),
        Column("Why"),
        Column("Called", "text"),
        Column("Held", "wide"),
    ]
    return blocks.table("Sessions that have ended", columns, map(_ended_row, items))


def _ended_row(item: Data) -> Row:
    cells = [
        blocks.link(item["url"], blocks.code(item["id"])),
        blocks.ago(item["ago"]),
        item["ended"],
        blocks.code(item["called"]) if item["called"] else html("<i>nothing</i>"),
        blocks.code(item["held"]) if item["held"] else html("<i>nothing</i>"),
    ]
    return Row(cells, f"ended-{item['id']}")


# One session


def session(data: Data) -> Markup:
    """Return the page of one session, live or ended."""
    is_live = data["ended"] is None
    body = [
        _live_state(data) if is_live else _ended_state(data),
        blocks.section("Holds" if is_live else "Held at its end", _holdings(data)),
        blocks.section(
            "When it ends" if is_live else "Called at its end", _callbacks(data["callbacks"])
        ),
    ]
    body.append(blocks.section("What its requests did", _requests(data["requests"])))
    content = html("<div>{}</div>", blocks.LINE.join(body))
    if not is_live:
        return content
    acts = blocks.section("Act on it", blocks.actions(data["actions"], data["token"]))
    return html("<div class=columns>{}<aside>{}</aside></div>", content, acts)


def _requests(items: list[Data]) -> Markup:
    if not items:
        return blocks.empty("None of its requests is kept.")
    columns = [
        Column("Request", "text"),
        Column("Status", "number"),
        Column("When", "number"),
        Column("Changed", "wide"),
    ]
    rows = [
        Row(
            [
                request_link(each),
                status(each["status"]),
                blocks.ago(each["ago"]),
                _changed(each["changed"]),
            ],
            f"request-{each['number']}",
        )
        for each in items
    ]
    return blocks.table("Requests of this session", columns, rows)


def _changed(changed: Data | None) -> Markup:
    if changed is None:
        return html("<i>not recorded: nobody was looking</i>")
    if not changed["items"]:
        return html("<i>nothing</i>")
    said = [html("{} {}", blocks.code(each["path"]), _step(each)) for each in changed["items"][:3]]
    more = len(changed["items"]) - 3
    if more > 0:
        said.append(html("{} more", more))
    return Markup(", ").join(said)


def _step(change: Data) -> Markup:
    if change["was"] is None:
        return html("is now {}", blocks.code(change["now"]))
    if change["now"] is None:
        return html("is gone")
    return html("{} → {}", blocks.code(change["was"]), blocks.code(change["now"]))


def _live_state(data: Data) -> Markup:
    you = blocks.tag("your own session") if data["you"] else NOTHING
    if data["left"] is None:
        ends = html("It never ends by itself.")
    else:
        ends = html("Ends in {}", blocks.time_left(data["left"], data["timeout"]))
    lives = ""
    if data["timeout"] is not None:
        lives = f", and lives for {blocks.span(data['timeout'])} after each use"
    used = html("<code>{}</code>, last used {}{}.", data["class"], blocks.ago(data["used"]), lives)
    return html("<p class=state>{}{}</p>\n<p class=lead>{}</p>", ends, you, used)


def _ended_state(data: Data) -> Markup:
    why = REASONS[data["ended"]]
    ended = html("Ended {}: {}.", blocks.ago(data["ago"]), why)
    lead = html("<code>{}</code>. What follows was kept as text.", data["class"])
    return html("<p class=state>{}</p>\n<p class=lead>{}</p>", ended, lead)


def _holdings(data: Data) -> Markup:
    if data["holds"] is None:
        return blocks.empty("Not looked into.", "Many sessions ended in the same second.")
    if not data["holds"]:
        advice = (
            'Scripts keep values in it: session["name"] = value.' if data["ended"] is None else ""
        )
        return blocks.empty("Nothing.", advice)
    more = NOTHING
    if not data.get("is_whole", True):
        more = html("<p class=pager>There is more, which is not shown.</p>")
    return blocks.tree(_with_editor(each, data) for each in data["holds"]) + more


def _with_editor(leaf: Data, data: Data) -> Data:
    """What can be changed has a link, and then a form."""
    changing = data.get("changing") or ""
    told = leaf | {"is_open": not leaf["parent"] or changing.startswith(leaf["path"])}
    if leaf["kind"] is None or "set" not in data or not _fits_in_a_line(leaf):
        return told
    if leaf["path"] != changing:
        url = f"?{urlencode({'change': leaf['path']}, errors='replace')}"
        label = f"Change {leaf['path']}"
        return told | {
            "editor": html(
                ' <a class=change href="{}" aria-label="{}">Change</a>', url, blocks.text(label)
            )
        }
    return told | {"editor": _change_form(leaf, data)}


def _fits_in_a_line(leaf: Data) -> bool:
    return leaf["kind"] != "text" or str(ast.literal_eval(leaf["shown"])).isprintable()


def _change_form(leaf: Data, data: Data) -> Markup:
    kinds = NOTHING
    if leaf["kind"] == "None":
        described = next(each for each in data["set"]["fields"] if each["name"] == "kind")
        shown = described | {"help": "as", "kind": described["kind"].removesuffix("|None")}
        kinds = blocks.field(shown, "change-kind")
    value = "" if leaf["kind"] == "None" else str(ast.literal_eval(leaf["shown"]))
    return html(
        '<form class=change method=post data-stays action="/-/{}"><input type=hidden name=token '
        'value="{}"><input type=hidden name=path value="{}"><input type=hidden name=seen '
        'value="{}">{}{}<button>Change</button> <a href="?">Cancel</a></form>',
        data["set"]["path"],
        data["token"],
        leaf["path"],
        leaf["shown"],
        blocks.field(
            {"name": "value", "kind": "text", "help": "New value", "example": ""},
            "change-value",
            value,
        ),
        kinds,
    )


def _callbacks(callbacks: list[Data]) -> Markup:
    if not callbacks:
        return blocks.empty("Nothing is called.", "Scripts ask for it with notifyOnExpire().")
    items = [html("<li>{}</li>", _callback(each)) for each in callbacks]
    return html("<ul class=plain>{}</ul>", blocks.LINE.join(items))


def _callback(each: Data) -> Markup:
    name = blocks.code(each["name"])
    if not each["file"]:
        return name
    place = html("{}, line {}", blocks.text(each["file"]), each["line"])
    if each["editor"]:
        place = html('<a href="{}" title="Open in the editor">{}</a>', each["editor"], place)
    return html("{} <small>{}</small>", name, place)


# Time


def clock(data: Data) -> Markup:
    """Return the page on which time passes for all sessions."""
    length: Data = {"name": "seconds", "kind": "duration", "help": "How long", "example": "15m"}
    parts = [
        blocks.paragraph("Have all sessions be due earlier, and see what your site does then."),
        blocks.paragraph(_NO_EFFECT),
        blocks.section(
            "How many would end?",
            blocks.search([length], {"seconds": data.get("asked", "")}, "Count them"),
        ),
    ]
    if "would_end" in data:
        ends, of = data["would_end"], blocks.count(data["of"], "session")
        parts.append(
            html(
                "<p role=status class=state>After {}, {} of {} would have ended.</p>",
                blocks.span(data["seconds"]),
                f"{ends:,}",
                of,
            )
        )
    forms = blocks.actions(data["actions"], data["token"], {"seconds": data.get("asked", "")})
    return blocks.LINE.join([*parts, blocks.section("Do it", forms)])
