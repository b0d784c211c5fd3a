"""The page of a script that fails, for those who may see it: what, where, values, and advice.

Complete without JavaScript and network: what is folded is `<details>`. All of it comes shortened
and redacted in an `ErrorReport`; here it only becomes HTML, through `html`, so that nothing of it
can be markup. A response that has begun gets `truncation_notice` as its last piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

from rpyserve.diagnostics.editor import EditorLink
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation, Variable
from rpyserve.diagnostics.redaction import Redactor, secrets_of
from rpyserve.diagnostics.reporter import as_text
from rpyserve.diagnostics.values import variables
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.pages import error_page, page_response, path_shown
from rpyserve.sessions.components import values_of
from rpyserve.util.author_code import PACKAGE_DIRECTORY, display_path
from rpyserve.util.html import html

_EMPTY: Final = Markup()
_COPY_BUTTON: Final = Markup('<div><button type="button" data-rpyserve-copy>Copy</button></div>\n')
_NEW_LINE: Final = Markup("\n")

_SOURCE_UNKNOWN: Final = (
    "The source of this line is not available: the file has changed since it was loaded, "
    "or there is no file."
)


def script_error_page(
    request: Request, report: ErrorReport, *, trusted: bool, editor: EditorLink
) -> Response:
    """Return the page for a script that fails.

    Args:
        trusted: whether the client may see the details; others get a bare 500.
        editor: what the links to files open.
    """
    if not trusted:
        bare = HTTPError(500, "This page has an error. Its author sees the details on the console.")
        return error_page(request, bare, trusted=False)
    title, text = report.title, as_text(report)
    redactor = secrets_of(request)
    parts = [
        html("<h1>{}<small>{} {}</small></h1>", title, request.method, path_shown(request)),
        _hint(report.hint),
        html("<p>In {}</p>", _file_link(report.script, 0, 1, editor)) if report.script else _EMPTY,
        _chain(report.chain, editor, level=2, heading=title),
        _section("Fields of the request", _fields(request), redactor),
        _section("Headers of the request", _headers(request), redactor),
        _section("Session", _session(request), redactor),
        html(
            "<details><summary>As text, to copy</summary>\n{}{}</details>",
            _COPY_BUTTON if request._follows else _EMPTY,
            _scrollable(text, "The error as text"),
        ),
    ]
    return page_response(request, 500, title, _lines(parts), text, error=as_fields(report))


def as_fields(report: ErrorReport) -> dict[str, object]:
    """Return *report* for JSON: what went wrong, where, and what led to it, the outermost first."""
    first = report.chain[0] if report.chain else None
    return {
        "kind": first.kind if first else "ScriptError",
        "message": report.title,
        "hint": report.hint,
        "script": report.script or (report.place.file if report.place else ""),
        "chain": [_exception_fields(each) for each in report.chain],
    }


def _exception_fields(exc: ExceptionReport) -> dict[str, object]:
    return {
        "kind": exc.kind,
        "message": exc.text or exc.title,
        "relation": exc.relation.name.lower(),
        "notes": exc.notes,
        "frames": [_frame_fields(frame) for frame in exc.frames if not _is_ours(frame)],
        "exceptions": [[_exception_fields(each) for each in chain] for chain in exc.branches],
    }


def _is_ours(frame: Frame) -> bool:
    return frame.file.startswith(PACKAGE_DIRECTORY)


def _frame_fields(frame: Frame) -> dict[str, object]:
    line = frame.failing_line
    return {
        "path": frame.file,
        "line": frame.line,
        "column": frame.column,
        "function": frame.function,
        "own": frame.own,
        "source": line.text if line else "",
        "values": {each.name: each.value for each in frame.variables},
    }


# The request


def _section(title: str, values: Mapping[str, object], redactor: Redactor) -> Markup:
    rows = variables(values, redactor)
    if not rows:
        return _EMPTY
    return html("<details><summary>{}</summary>\n{}</details>", title, _value_list(rows))


def _fields(request: Request) -> dict[str, object]:
    try:
        fields = request.args
    except HTTPError:  # it has none that can be read
        return {}
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _headers(request: Request) -> dict[str, object]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.raw_headers}


def _session(request: Request) -> dict[str, object]:
    return {} if request._session is None else values_of(request._session)


def truncation_notice(report: ErrorReport) -> str:
    """Return the last piece of a page that fails after part of it has been sent."""
    return html(
        '\n<section role="alert" style="all: initial; display: block; margin: 1em 0; '
        "padding: 1em; border: 2px solid #c22; background: #fff; color: #1d2329; "
        'font: 16px/1.5 system-ui, sans-serif"><b>An error interrupted this page.</b>\n'
        '<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre></section>\n',
        as_text(report),
    )


def _lines(parts: Sequence[Markup]) -> Markup:
    return _NEW_LINE.join(filter(None, parts))


def _hint(hint: str) -> Markup:
    if not hint:
        return _EMPTY
    sentence, _, code = hint.partition("\n")
    block = html("<pre>{}</pre>", code) if code else _EMPTY
    return html('<div class="mend"><p>{}</p>{}</div>', sentence, block)


def _scrollable(text: str, label: str) -> Markup:
    """Text that may be wider than the screen: it can be scrolled with the keyboard, too."""
    return html('<pre tabindex="0" role="region" aria-label="{}">{}</pre>', label, text)


# Exceptions


def _chain(
    chain: Sequence[ExceptionReport], editor: EditorLink, *, level: int, heading: str = ""
) -> Markup:
    """The exceptions of *chain*.

    Args:
        level: of their headings, from 1 to 6.
        heading: the heading above; an exception with the same title needs no other.
    """
    return _lines([_exception(exc, editor, level, heading) for exc in chain])


def _exception(exc: ExceptionReport, editor: EditorLink, level: int, heading: str) -> Markup:
    parts: list[Markup] = []
    if exc.relation is not Relation.ITSELF:
        parts.append(html('<p class="relation">{}</p>', exc.relation.value))
    if exc.title != heading:
        parts.append(html("<h{0}>{1}</h{0}>", min(level, 6), exc.title))
    if exc.text:
        parts.append(_scrollable(exc.text, "The whole message"))
    parts += [html('<p class="note">{}</p>', note) for note in exc.notes]
    parts.append(_frames(exc, editor))
    if exc.branches or exc.left_out:
        parts.append(_branches(exc, editor, level + 1))
    return html("<section>\n{}\n</section>", _lines(parts))


def _branches(group: ExceptionReport, editor: EditorLink, level: int) -> Markup:
    items = [html("<li>{}</li>", _chain(each, editor, level=level)) for each in group.branches]
    if group.left_out:
        items.append(html("<li>{} more</li>", group.left_out))
    return html('<ol class="branches">\n{}\n</ol>', _lines(items))


# Frames


def _frames(exc: ExceptionReport, editor: EditorLink) -> Markup:
    innermost_first = exc.own_frames[::-1]
    parts = [_frame(frame, editor, folded=n > 0) for n, frame in enumerate(innermost_first)]
    if len(exc.frames) > len(innermost_first):
        parts.append(_all_frames(exc.frames, editor))
    return _lines(parts)


def _all_frames(frames: Sequence[Frame], editor: EditorLink) -> Markup:
    count = sum(1 + frame.skipped for frame in frames)
    return html(
        "<details><summary>All {} calls, the innermost last</summary>\n<ol>\n{}\n</ol></details>",
        count,
        _lines([_frame_item(frame, editor) for frame in frames]),
    )


def _frame(frame: Frame, editor: EditorLink, *, folded: bool) -> Markup:
    """A frame of the author's, with its source and values.

    Args:
        folded: whether the values are folded.
    """
    function = html(", in <code>{}</code>", frame.function) if frame.function else _EMPTY
    place = _file_link(frame.file, frame.line, frame.column, editor)
    return html(
        '<p class="place">{}{}</p>\n{}{}{}',
        place,
        function,
        _source(frame),
        _values(frame.variables, folded=folded),
        _skipped("p", frame),
    )


def _frame_item(frame: Frame, editor: EditorLink) -> Markup:
    place = _file_link(frame.file, frame.line, frame.column, editor)
    function = f", in {frame.function}" if frame.function else ""
    line = frame.failing_line
    source = html("<br><code>{}</code>", line.text.strip()) if line is not None else _EMPTY
    return html("{}<li>{}{}{}</li>", _skipped("li", frame), place, function, source)


def _skipped(tag: str, frame: Frame) -> Markup:
    if not frame.skipped:
        return _EMPTY
    return html('<{0} class="place">… {1} more calls like these</{0}>\n', tag, frame.skipped)


def _file_link(path: str, line: int, column: int, editor: EditorLink) -> Markup:
    text = display_path(path) + (f", line {line}" if line else "")
    url = editor.link(path, line, column)
    if not url:
        return html("{}", text)
    return html('<a href="{}" title="Open in the editor">{}</a>', url, text)


def _source(frame: Frame) -> Markup:
    if not frame.lines:
        return html("<p>{}</p>\n", _SOURCE_UNKNOWN)
    width = len(str(frame.lines[-1].number))
    label = f"{display_path(frame.file)} around line {frame.line}"
    code = _lines([_source_line(line, width) for line in frame.lines])
    return html(
        '<pre class="code" tabindex="0" role="region" aria-label="{}">{}</pre>\n', label, code
    )


def _source_line(line: Line, width: int) -> Markup:
    sign = "▸" if line.failing else " "
    number = html("<i>{}{}</i> ", sign, str(line.number).rjust(width))
    text = _coloured(line, 0, len(line.text))
    if line.marked is not None:
        start, end = line.marked
        marked = _coloured(line, start, end) or Markup(" ")
        before, after = _coloured(line, 0, start), _coloured(line, end, len(line.text))
        text = html("{}<mark>{}</mark>{}", before, marked, after)
    return html("<b>{}{}</b>" if line.failing else "{}{}", number, text)


def _coloured(line: Line, start: int, end: int) -> Markup:
    """The text of *line* from one column to another."""
    tokens = line.tokens or ((0, ""),)
    ends = [column for column, _ in tokens[1:]] + [len(line.text)]
    parts = []
    for (column, kind), token_end in zip(tokens, ends, strict=True):
        text = line.text[max(column, start) : min(token_end, end)]
        if text:
            parts.append(html('<span class="{}">{}</span>' if kind else "{1}", kind, text))
    return _EMPTY.join(parts)


def _values(shown: Sequence[Variable], *, folded: bool) -> Markup:
    if not shown:
        return _EMPTY
    return html(
        "<details{}><summary>Values</summary>\n{}</details>\n",
        _EMPTY if folded else Markup(" open"),
        _value_list(shown),
    )


def _value_list(shown: Sequence[Variable]) -> Markup:
    rows = [html("<dt>{}</dt><dd>{}</dd>", each.name, each.value) for each in shown]
    return html('<dl class="values">\n{}\n</dl>', _lines(rows))
