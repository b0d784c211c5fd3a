"""The page of a script that fails, for those who may see it: what, where, with which values, and what to do.

Whole without JavaScript and network: what is folded is `<details>`. Every piece of it comes shortened and masked from
`diagnosis`; here it only becomes HTML, through `html`, so nothing of it can be markup. A stream that has begun gets
`truncation_notice` as its last piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from rpyserve.diagnostics.editor import EditorLink
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation, Variable
from rpyserve.diagnostics.reporter import as_text
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.pages import error_page, page_response, path_shown
from rpyserve.util.author_code import display_path
from rpyserve.util.html import html

__all__ = ["script_error_page", "truncation_notice"]

_EMPTY: Final = Markup()
_NEW_LINE: Final = Markup("\n")


def script_error_page(
    request: Request, failure: ErrorReport, *, trusted: bool, editor: EditorLink
) -> Response:
    """The page for a script that fails: all of it for a trusted client, a bare 500 for others."""
    if not trusted:
        bare = HTTPError(500, "This page has an error. Its author sees more on the console.")
        return error_page(request, bare, trusted=False)
    text = as_text(failure)
    parts = [
        html("<h1>{}<small>{} {}</small></h1>", failure.title, request.method, path_shown(request)),
        _hint(failure.hint),
        html("<p>In {}</p>", _file(failure.script, 0, 1, editor)) if failure.script else _EMPTY,
        _chain(failure.chain, editor, 2, failure.title),
        html(
            "<details><summary>As text, to copy</summary>\n{}</details>",
            _block(text, "The failure as text"),
        ),
    ]
    return page_response(request, 500, failure.title, _NEW_LINE.join(filter(None, parts)), text, {})


def truncation_notice(failure: ErrorReport) -> str:
    """The last piece of a page that fails when part of it has been sent: what the browser is to show below that."""
    return html(
        '\n<section role="alert" style="all: initial; display: block; margin: 1em 0; padding: 1em; '
        'border: 2px solid #c22; background: #fff; color: #1d2329; font: 16px/1.5 system-ui, sans-serif">'
        '<b>The page breaks off here.</b>\n<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>'
        "</section>\n",
        as_text(failure),
    )


def _hint(hint: str) -> Markup:
    first, _, rest = hint.partition("\n")
    lines = html("<pre>{}</pre>", rest) if rest else _EMPTY
    return html('<div class="mend"><p>{}</p>{}</div>', first, lines) if hint else _EMPTY


def _block(text: str, label: str) -> Markup:
    """Text that may be wider than the screen: it scrolls by itself, with the keyboard too."""
    return html('<pre tabindex="0" role="region" aria-label="{}">{}</pre>', label, text)


# Exceptions


def _chain(
    faults: Sequence[ExceptionReport], editor: EditorLink, level: int, told: str = ""
) -> Markup:
    return _NEW_LINE.join(
        _fault(fault, editor, level, told if n == 0 else "") for n, fault in enumerate(faults)
    )


def _fault(fault: ExceptionReport, editor: EditorLink, level: int, told: str) -> Markup:
    parts: list[Markup] = []
    if fault.relation is not Relation.ITSELF:
        parts.append(html('<p class="relation">{}</p>', fault.relation.value))
    if fault.title != told:
        parts.append(html("<h{}>{}</h{}>", min(level, 6), fault.title, min(level, 6)))
    if fault.text:
        parts.append(_block(fault.text, "The whole message"))
    parts += [html('<p class="note">{}</p>', note) for note in fault.notes]
    parts.append(_frames(fault, editor))
    if fault.branches or fault.left_out:
        parts.append(_branches(fault, editor, level + 1))
    return html("<section>\n{}\n</section>", _NEW_LINE.join(filter(None, parts)))


def _branches(fault: ExceptionReport, editor: EditorLink, level: int) -> Markup:
    items = [html("<li>{}</li>", _chain(branch, editor, level)) for branch in fault.branches]
    if fault.left_out:
        items.append(html("<li>{} more</li>", fault.left_out))
    return html('<ol class="branches">\n{}\n</ol>', _NEW_LINE.join(items))


# Frames


def _frames(fault: ExceptionReport, editor: EditorLink) -> Markup:
    own = fault.own_frames
    parts = [_frame(frame, editor, opened=n == 0) for n, frame in enumerate(reversed(own))]
    if len(fault.frames) > len(own):
        rows = [_row(frame, editor) for frame in fault.frames]
        parts.append(
            html(
                "<details><summary>All {} calls, the innermost last</summary>\n<ol>\n{}\n</ol></details>",
                sum(1 + frame.skipped for frame in fault.frames), _NEW_LINE.join(rows),
            )
        )  # fmt: skip
    return _NEW_LINE.join(parts)


def _frame(frame: Frame, editor: EditorLink, *, opened: bool) -> Markup:
    skipped = (
        html('<p class="place">… {} more calls like these</p>', frame.skipped)
        if frame.skipped
        else _EMPTY
    )
    return html(
        '<p class="place">{}{}</p>\n{}{}{}',
        _file(frame.file, frame.line, frame.column, editor),
        html(", in <code>{}</code>", frame.function) if frame.function else _EMPTY,
        _source(frame),
        _values(frame.variables, opened=opened),
        skipped,
    )


def _row(frame: Frame, editor: EditorLink) -> Markup:
    skipped = (
        html("<li>… {} more calls like these</li>\n", frame.skipped) if frame.skipped else _EMPTY
    )
    line = frame.source
    source = html("<br><code>{}</code>", line.text.strip()) if line is not None else _EMPTY
    place = _file(frame.file, frame.line, frame.column, editor)
    return html(
        "{}<li>{}{}{}</li>",
        skipped,
        place,
        f", in {frame.function}" if frame.function else "",
        source,
    )


def _file(path: str, line: int, column: int, editor: EditorLink) -> Markup:
    shown = display_path(path) + (f", line {line}" if line else "")
    link = editor.link(path, line, column) if not path.startswith("<") else ""
    return (
        html('<a href="{}" title="Open in the editor">{}</a>', link, shown)
        if link
        else html("{}", shown)
    )


def _source(frame: Frame) -> Markup:
    if not frame.lines:
        reason = "The source of this line is not known: the file has changed since it was loaded, or there is none."
        return html("<p>{}</p>\n", reason)
    width = len(str(frame.lines[-1].number))
    lines = _NEW_LINE.join(_line(line, width) for line in frame.lines)
    label = f"{display_path(frame.file)} round line {frame.line}"
    return html(
        '<pre class="code" tabindex="0" role="region" aria-label="{}">{}</pre>\n', label, lines
    )


def _line(line: Line, width: int) -> Markup:
    sign = "▸" if line.failing else " "
    number = html("<i>{}{}</i> ", sign, str(line.number).rjust(width))
    if line.marked is None:
        text = html("{}", line.text)
    else:
        start, end = line.marked
        marked = line.text[start:end] or " "
        text = html("{}<mark>{}</mark>{}", line.text[:start], marked, line.text[end:])
    return html("<b>{}{}</b>", number, text) if line.failing else html("{}{}", number, text)


def _values(variables: Sequence[Variable], *, opened: bool) -> Markup:
    if not variables:
        return _EMPTY
    rows = _NEW_LINE.join(
        html("<dt>{}</dt><dd>{}</dd>", each.name, each.value) for each in variables
    )
    state = Markup(" open") if opened else _EMPTY
    return html(
        '<details{}><summary>Values</summary>\n<dl class="values">\n{}\n</dl></details>\n',
        state,
        rows,
    )
