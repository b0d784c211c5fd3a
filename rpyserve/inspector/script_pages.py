"""The pages of scripts and of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from rpyserve.inspector import blocks
from rpyserve.inspector.blocks import LINE, NOTHING, Column, Row
from rpyserve.inspector.request_pages import lines, request_table
from rpyserve.util.html import html

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data


def scripts(data: Data) -> Markup:
    """Return the list of scripts."""
    if not data["items"]:
        return blocks.empty("No script has been executed yet.", "Open a page of the site.")
    columns = [
        Column("Script"),
        Column("Runs"),
        Column("Executed", "number"),
        Column("Last", "number"),
        Column("Why then", "wide"),
        Column("Top level", "number"),
        Column("Render", "number"),
        Column("Requests", "number"),
    ]
    lead = "The scripts that have been executed since the server started."
    rows = [_script_row(each) for each in data["items"]]
    return html("<p class=lead>{}</p>", lead) + blocks.table("Scripts", columns, rows)


def _script_row(item: Data) -> Row:
    name = blocks.link(item["url"], blocks.code(item["script"]))
    if item["error"]:
        name += html(' <a class=bad href="/-/errors/{}">error</a>', item["error"])
    last = item["last"]
    cells = [
        name,
        _how(item),
        f"{item['executions']:,} ×",  # noqa: RUF001
        blocks.ago(last["ago"]),
        last["why"] + (", and failed" if last["failed"] else ""),
        _median(item["execute"]),
        _median(item["render"]),
        f"{item['requests']:,}",
    ]
    return Row(cells, f"script-{item['script']}")


def _how(item: Data) -> str:
    return "once: cache()" if item["cached"] else "for each request"


def _median(figures: Data | None) -> str:
    return "–" if figures is None else blocks.milliseconds(figures["median"])  # noqa: RUF001


def script(data: Data) -> Markup:
    """Return the page of one script."""
    figures = blocks.figures(
        [
            ("executions", f"{data['executions']:,}"),
            ("its top level takes", _median(data["execute"])),
            ("its render method takes", _median(data["render"])),
            ("of the kept requests", f"{data['requests']:,}"),
        ]
    )
    runs = "It runs once, as it calls cache(), and again after an edit."
    if not data["cached"]:
        runs = "It runs anew for each request, as it does not call cache()."
    parts = [
        html("<p class=lead>{}</p>", runs),
        figures,
        blocks.section("Executions", _history(data["history"])),
        blocks.section("Background tasks", tasks(data["tasks"])),
        blocks.section("Requests", _requests(data["items"])),
    ]
    return LINE.join(parts)


def _history(items: list[Data]) -> Markup:
    columns = [
        Column("Why"),
        Column("When", "number"),
        Column("Took", "number"),
        Column("How it went", "wide"),
    ]
    rows = [
        Row(
            [
                each["why"],
                blocks.ago(each["ago"]),
                blocks.milliseconds(each["seconds"]),
                html("<span class=bad>failed</span>") if each["failed"] else "well",
            ]
        )
        for each in items
    ]
    return blocks.table("Executions", columns, rows)


def tasks(items: list[Data]) -> Markup:
    """Return a list of background tasks."""
    if not items:
        return blocks.empty("It has none.", "A script starts one with @background.")
    shown = [
        html("<li>{}{}</li>", blocks.code(each["name"]), blocks.tag(each["state"]))
        for each in items
    ]
    return html("<ul class=plain>{}</ul>", LINE.join(shown))


def _requests(items: list[Data]) -> Markup:
    return request_table(items) if items else blocks.empty("None is kept.")


# Errors


def errors(data: Data) -> Markup:
    """Return the list of errors."""
    if not data["items"]:
        return blocks.empty("There was no error.")
    return error_table(data["items"])


def error_table(items: list[Data]) -> Markup:
    """Return a table of errors."""
    columns = [
        Column("Error", "text"),
        Column("When", "number"),
        Column("Page", "text"),
        Column("Request", "number"),
    ]
    rows = [
        Row(
            [
                blocks.link(each["url"], each["title"]),
                blocks.ago(each["ago"]),
                blocks.code(each["what"]),
                blocks.link(f"/-/requests/{each['request']}", each["request"]),
            ],
            f"error-{each['number']}",
        )
        for each in items
    ]
    return blocks.table("Errors", columns, rows)


def error(data: Data) -> Markup:
    """Return the page of one error."""
    request = blocks.link(f"/-/requests/{data['request']}", data["request"])
    said = html(
        "{} {}, by request {}.", blocks.code(data["what"]), blocks.ago(data["ago"]), request
    )
    link = NOTHING
    if data["script"]:
        link = html('<p><a href="/-/scripts/{}">{}</a></p>', quote(data["script"]), data["script"])
    return (
        html("<p class=state>{}</p><p class=lead>{}</p>", blocks.text(data["title"]), said)
        + link
        + lines(data["text"], "The error")
    )
