"""The page of the server as a whole: what it does now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup

from rpyserve.inspector import blocks, session_pages
from rpyserve.inspector.blocks import LINE, NOTHING, Column, Row
from rpyserve.inspector.request_pages import request_table, took
from rpyserve.inspector.script_pages import tasks
from rpyserve.util.html import html
from rpyserve.util.text import format_size

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data


def now(data: Data) -> Markup:
    """Return the page that is seen first."""
    sessions, minute = data["sessions"], data["minute"]
    figures = blocks.figures(
        [
            ("requests in the last minute", f"{minute['requests']:,}"),
            ("their median", "–" if minute["median"] is None else took(minute["median"])),  # noqa: RUF001
            ("live sessions", f"{sessions['live']:,}"),
            ("have ended", f"{sum(sessions['ended'].values()):,}"),
            ("running for", blocks.span(int(data["at"] - data["started"]))),
        ]
    )
    if sessions["used_last"]:
        live = session_pages.live_table(sessions["used_last"])
    else:
        live = session_pages.no_session()
    parts = [
        figures,
        blocks.section("Broken", _broken(data["broken"])),
        blocks.section("Running", _running(data["running"])) if data["running"] else NOTHING,
        blocks.section("Answered last", _answered(data["last"])),
        blocks.section("Used last", live, note=_of(sessions["used_last"], sessions["live"])),
        blocks.section("Ended last", session_pages.ended_table(sessions["ended_last"])),
    ]
    return blocks.LINE.join(parts)


def _broken(items: list[Data]) -> Markup:
    if not items:
        return blocks.empty("Nothing is broken.")
    columns = [
        Column("Page"),
        Column("Error", "wide"),
        Column("Since", "number"),
        Column("Times", "number"),
    ]
    rows = [
        Row(
            [
                blocks.code(each["page"]),
                blocks.link(each["url"], each["title"]),
                blocks.ago(each["ago"]),
                f"{each['times']:,}",
            ],
            f"broken-{each['page']}",
        )
        for each in items
    ]
    return blocks.table("Broken pages", columns, rows)


def _running(items: list[Data]) -> Markup:
    columns = [
        Column("Request", "wide"),
        Column("For", "number"),
        Column("Sent", "number"),
        Column("Session"),
    ]
    rows = [
        Row(
            [
                blocks.link(each["url"], blocks.code(f"{each['method']} {each['target'][:120]}")),
                blocks.span(each["running"]),
                format_size(each["sent"]),
                blocks.code(each["session"]) if each["session"] else "",
            ],
            f"running-{each['number']}",
        )
        for each in items
    ]
    return blocks.table("Requests without an end", columns, rows)


def _answered(items: list[Data]) -> Markup:
    if not items:
        return blocks.empty("No request yet.", "Open a page of the site, and it is here.")
    return request_table(items)


# What the site is


def site(data: Data) -> Markup:
    """Return the page of the options, the registry, tasks and modules."""
    settings = [
        ("Directory", LINE.join(blocks.code(each) for each in data["directories"])),
        ("Running for", blocks.span(int(data["at"] - data["started"]))),
        ("Sessions expire after", _lifetime(data["session_timeout"])),
        ("Sessions at most", data["max_sessions"] or "any number"),
        ("Sessions are kept in", data["session_store"]),
        ("Open connections", data.get("connections", 0)),
    ]
    parts = [
        blocks.facts(settings),
        blocks.section("Registry", _registry(data["registry"])),
        blocks.section("Background tasks", tasks(data["tasks"])),
        blocks.section("Modules of the site", _modules(data["modules"])),
        blocks.section("Options", blocks.facts(_options(data.get("options", {})))),
        blocks.section("Versions", blocks.facts(data["versions"].items())),
    ]
    return LINE.join(parts)


def _lifetime(seconds: float | None) -> str:
    return "as their class says" if seconds is None else blocks.span(seconds)


def _registry(leaves: list[Data]) -> Markup:
    if not leaves:
        return blocks.empty("Nothing.", 'Scripts keep values for all: registry["name"] = value.')
    return blocks.tree(leaves)


def _modules(files: list[str]) -> Markup:
    if not files:
        return blocks.empty("No script has imported a module of the site.")
    items = [html("<li>{}</li>", blocks.code(each)) for each in files]
    return html("<ul class=plain>{}</ul>", LINE.join(items))


def _options(options: Data) -> Iterator[tuple[str, object]]:
    for name, value in options.items():
        yield name, blocks.code(", ".join(value) if isinstance(value, list) else value)


def _of(shown: list[Data], of: int) -> Markup | str:
    if len(shown) >= of:
        return ""
    return html('{} of <a href="/-/sessions">{}</a>', len(shown), blocks.count(of, "session"))
