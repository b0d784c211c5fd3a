"""The pages of edits, and of the timeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from rpyserve.inspector import blocks
from rpyserve.inspector.blocks import LINE, NOTHING, Column, Row
from rpyserve.util.html import html

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data

_VERDICTS: Final = {
    "ok": "ok: it has been executed, and nothing of it fails",
    "broken": "broken: see below",
    "not run": "not run yet: no request has come for it",
}
_PAGES: Final = {
    "told": "were told",
    "shown": "show it",
    "loading": "load themselves anew",
    "unchanged": "are not concerned",
    "silent": "have not answered",
}


def edits(data: Data) -> Markup:
    """Return the list of edits, the newest first."""
    if not data["items"]:
        return blocks.empty(
            "No file has been saved yet.", "Save one, and what comes of it is here."
        )
    columns = [
        Column("Edit"),
        Column("Files", "text"),
        Column("Verdict"),
        Column("What came of it", "wide"),
        Column("Took", "number"),
        Column("Saved", "number"),
    ]
    rows = [_edit_row(each, data["at"]) for each in reversed(data["items"])]
    return blocks.table("Edits", columns, rows)


def _edit_row(item: Data, at: float) -> Row:
    files = Markup(", ").join(blocks.code(each["name"]) for each in item["files"])
    cells = [
        blocks.link(item["url"], f"Edit {item['number']}"),
        files,
        _verdict(item),
        "; ".join(_outcomes(item)),
        blocks.milliseconds(item["seconds"]) if item["seconds"] is not None else "",
        blocks.ago(max(0.0, at - item["saved"])),
    ]
    return Row(cells, f"edit-{item['number']}")


def _verdict(item: Data) -> Markup:
    kind = "bad" if item["verdict"] == "broken" else ""
    return html('<span class="{}">{}</span>', kind, item["verdict"])


def _outcomes(item: Data) -> Iterator[str]:
    """What came of an edit, in short."""
    failures = [*item["failures"]["new"], *item["failures"]["still"]]
    yield from (each["title"] for each in failures[:2])
    if item["executed"]:
        yield f"executed {', '.join(item['executed'])}"
    if item["mended"]:
        yield f"mended {', '.join(item['mended'])}"
    if item["pages"].get("shown"):
        yield f"{blocks.count(item['pages']['shown'], 'page')} follow"
    if item["carried"]:
        yield f"carried over {', '.join(item['carried'])}"
    if item["lost"]:
        yield f"lost: {item['lost'][0]}"


def edit(data: Data) -> Markup:
    """Return the page of one edit."""
    state = "It has not settled yet." if not data["settled"] else _VERDICTS[data["verdict"]]
    ago = blocks.ago(max(0.0, data["at"] - data["saved"]))
    said = html("<p class=state>{}</p><p class=lead>Saved {}.</p>", state.capitalize(), ago)
    parts = [
        said,
        blocks.section("Files", _files(data["files"])),
        _failures("New failures", data["failures"]["new"]),
        _failures("It still fails", data["failures"]["still"]),
        _listed("Mended", data["mended"]),
        _listed("Executed again", data["executed"]),
        _listed("Not executed yet", data["not_run"]),
        blocks.section("Open pages", _pages(data["pages"])),
        _listed("Objects carried over", [f"{n} × {name}" for name, n in data["carried"].items()]),  # noqa: RUF001
        _listed("Attributes added", data["added"]),
        _listed("Lost", data["lost"]),
        _findings("New findings of the check", data["findings"]["new"]),
        _findings("Findings that are gone", data["findings"]["gone"]),
    ]
    return LINE.join(filter(None, parts))


def _files(files: list[Data]) -> Markup:
    columns = [
        Column("File"),
        Column("What happened"),
        Column("Why it counts"),
        Column("Compiles", "wide"),
    ]
    rows = [
        Row(
            [
                blocks.code(each["name"]),
                each["event"],
                each["why"],
                {None: "", True: "yes", False: "no"}[each["compiles"]],
            ]
        )
        for each in files
    ]
    return blocks.table("Files", columns, rows)


def _failures(title: str, items: list[Data]) -> Markup:
    if not items:
        return NOTHING
    columns = [Column("Error", "text"), Column("Of"), Column("At", "wide")]
    rows = [
        Row(
            [
                html("<span class=bad>{}</span>", blocks.text(each["title"])),
                blocks.code(each["page"] or each["what"]),
                _place(each),
            ]
        )
        for each in items
    ]
    return blocks.section(title, blocks.table(title, columns, rows))


def _place(each: Data) -> str:
    if not each["file"]:
        return ""
    return f"{each['file']}, line {each['line']}" if each["line"] else str(each["file"])


def _listed(title: str, items: list[str]) -> Markup:
    if not items:
        return NOTHING
    shown = [html("<li>{}</li>", blocks.code(each)) for each in items]
    return blocks.section(title, html("<ul class=plain>{}</ul>", LINE.join(shown)))


def _pages(pages: Data) -> Markup:
    told = [f"{number:,} {_PAGES[name]}" for name, number in pages.items() if number]
    if not told:
        return blocks.empty("No page was open that had to be told.")
    return blocks.paragraph(", ".join(told) + ".")


def _findings(title: str, items: list[Data]) -> Markup:
    if not items:
        return NOTHING
    rows = [Row([_place(each), each["message"], blocks.code(each["rule"])]) for each in items]
    columns = [Column("Where"), Column("What", "wide"), Column("Rule")]
    return blocks.section(title, blocks.table(title, columns, rows))


# The timeline


def timeline(data: Data) -> Markup:
    """Return what has happened, the newest first."""
    if not data["items"]:
        return blocks.empty("Nothing has happened yet.", "Open a page, or save a file.")
    rows = [
        Row(
            [
                blocks.ago(max(0.0, data["at"] - each["at"])),
                each["kind"],
                blocks.link(each["url"], each["text"]) if "url" in each else each["text"],
            ],
            f"event-{each['number'] or each['url']}",
        )
        for each in reversed(data["items"])
    ]
    columns = [Column("When", "number"), Column("Kind"), Column("What", "wide")]
    return blocks.table("What has happened", columns, rows)
