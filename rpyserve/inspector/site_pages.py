"""The page of the server as a whole: what it does now, what is broken, and what happened last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup

from rpyserve.inspector import blocks, session_pages
from rpyserve.inspector.blocks import LINE, NOTHING, Column, Row
from rpyserve.inspector.request_pages import request_link, status
from rpyserve.inspector.script_pages import tasks
from rpyserve.util.html import html
from rpyserve.util.text import format_size

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data


def now(data: Data) -> Markup:
    """Return the page that is seen first."""
    sessions = data["sessions"]
    parts = [
        _figures(data),
        blocks.section("Broken", _broken(data["broken"], data["at"]))
        if data["broken"]
        else NOTHING,
        blocks.section("Going on", _running(data["running"])) if data["running"] else NOTHING,
        blocks.section(
            "Sessions used last",
            _sessions(sessions["used_last"]),
            note=_of(len(sessions["used_last"]), sessions["live"]),
        ),
        blocks.section("Just answered", _answered(data["last"], data["at"])),
        html("<p class=pager>{}</p>", _costs(data)),
    ]
    return blocks.LINE.join(filter(None, parts))


def _figures(data: Data) -> Markup:
    minute, sessions = data["minute"], data["sessions"]
    figures: list[tuple[str, object]] = [
        ("live sessions", f"{sessions['live']:,}"),
        ("requests in the last minute", f"{minute['requests']:,}"),
    ]
    if minute["requests"]:
        figures += [
            ("median", blocks.milliseconds(minute["median"])),
            ("slowest", blocks.milliseconds(minute["slowest"])),
        ]
    figures += [
        ("broken" if data["broken"] else "nothing is broken", f"{len(data['broken']):,}"),
        ("up", blocks.span(int(data["at"] - data["started"]))),
    ]
    return blocks.figures(figures)


def _broken(items: list[Data], at: float) -> Markup:
    columns = [
        Column("Page"),
        Column("Failed", "number"),
        Column("Since", "number"),
        Column("Error", "wide"),
    ]
    rows = [
        Row(
            [
                blocks.code(each["page"]),
                "once" if each["times"] == 1 else f"{each['times']:,} times",
                blocks.ago(max(0.0, at - each["since"])),
                blocks.link(each["url"], each["title"]),
            ],
            f"broken-{each['page']}",
        )
        for each in items
    ]
    return blocks.table("Pages that fail", columns, rows)


def _running(items: list[Data]) -> Markup:
    columns = [Column("Request", "wide"), Column("For", "number"), Column("Sent", "number")]
    rows = [
        Row(
            [request_link(each), blocks.span(int(each["running"])), format_size(each["sent"])],
            f"running-{each['number']}",
        )
        for each in items
    ]
    return blocks.table("Requests that are not over", columns, rows)


def _sessions(items: list[Data]) -> Markup:
    return session_pages.live_table(items) if items else session_pages.no_session()


def _answered(items: list[Data], at: float) -> Markup:
    if not items:
        return blocks.empty("No request yet.", "Open a page of your site.")
    columns = [
        Column("Request", "wide"),
        Column("Status", "number"),
        Column("Took", "number"),
        Column("When", "number"),
    ]
    rows = [
        Row(
            [
                request_link(each),
                status(each["status"]),
                blocks.milliseconds(each["seconds"]),
                blocks.ago(max(0.0, at - each["at"])),
            ],
            f"request-{each['number']}",
        )
        for each in items
    ]
    return blocks.table("Requests answered last", columns, rows)


def _of(shown: int, of: int) -> Markup | str:
    if shown >= of:
        return ""
    return html('{} of <a href="/-/sessions">{}</a>', shown, blocks.count(of, "session"))


def _costs(data: Data) -> str:
    kept = format_size(data["kept_bytes"])
    return (
        f"Request {data['number']:,} was the last one. Of bodies, {kept} are kept in memory. While "
        "somebody looks, a request that uses a session takes about a tenth of a millisecond longer."
    )


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
