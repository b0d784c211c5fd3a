"""Describes an exception that came out of a script: its whole chain, frame by frame, and advice.

Everything is bounded: the number of exceptions, the length of tracebacks and messages. Of calls
that repeat (deep recursion) the first and the innermost are kept, those between are counted. Only
the author's frames get the lines around the failing one, and values. Cancellations are left out of
groups, because they are a consequence.

Nothing here decides who may see the result; values of variables are read only if they will be
shown.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final

import trio

from rpyserve.diagnostics import values as variable_values
from rpyserve.diagnostics.advice import advice_for
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation, Variable
from rpyserve.diagnostics.redaction import NO_SECRETS, Redactor
from rpyserve.diagnostics.values import safe_repr
from rpyserve.http.errors import ScriptError, WrongResult
from rpyserve.scripts.source import (
    Range,
    decode_lines,
    find_dropped_text,
    find_only_return,
    position_of,
    source_lines,
)
from rpyserve.util.author_code import is_author_code

log = logging.getLogger("rpyserve")

# How many characters of a message are kept.
MAX_MESSAGE: Final = 4000

# How many characters of its first line are kept as the title.
MAX_TITLE: Final = 300

# How many notes of an exception are kept.
MAX_NOTES: Final = 20

# How many exceptions are described of one error, in chains and groups together.
MAX_EXCEPTIONS: Final = 20

# How many frames are kept at the outer end of a traceback.
OUTER: Final = 10

# How many frames are kept at its inner end.
INNER: Final = 20

# How many frames of a traceback are looked at.
MAX_TRACEBACK: Final = 100_000

# How many lines are shown before a failing one.
BEFORE: Final = 5

# How many lines are shown after it.
AFTER: Final = 4

# How many characters of source, up to the last line shown, are looked at for colours.
MAX_COLOURED: Final = 20_000

# How many characters of a line are shown.
WIDEST: Final = 240


@dataclass(slots=True)
class _Options:
    """What may be shown of all exceptions of one error together.

    Attributes:
        show_values: whether to show the values of variables.
        redactor: hides secret texts.
        exceptions: how many more exceptions may be described.
    """

    show_values: bool
    redactor: Redactor
    exceptions: int = MAX_EXCEPTIONS


def describe(
    exc: BaseException, *, values: bool = False, redactor: Redactor = NO_SECRETS
) -> ErrorReport:
    """Describe *exc* for the author of the script that it came out of.

    Args:
        values: whether to include the values of variables.
        redactor: hides texts that are secret, such as this visitor's cookies.
    """
    options = _Options(values, redactor)
    try:
        if isinstance(exc, ScriptError):
            return _describe_script_error(exc, options)
        chain = _chain(exc, options)
        return ErrorReport(chain[0].title, options.redactor.redact(advice_for(exc)), chain)
    except Exception as failure:  # an odd object in the exception must not cost its page
        log.debug("%s could not be described: %r", type(exc).__name__, failure)
        return ErrorReport(type(exc).__name__)


def _describe_script_error(exc: ScriptError, options: _Options) -> ErrorReport:
    redact = options.redactor.redact
    cause = exc.__cause__
    message, hint = exc.message, exc.hint
    chain: tuple[ExceptionReport, ...] = ()
    if cause is not None:
        message = message or summary(cause)
        hint = hint or advice_for(cause)
        # A TypeError that rpyserve raised itself says the same as the message.
        if message != str(cause):
            chain = _chain(cause, options)
    title = redact(message)[:MAX_TITLE].partition("\n")[0]
    report = ErrorReport(title, redact(hint), chain)
    return report if report.place else replace(report, script=str(exc.path))


# Titles and messages


def summary(exc: BaseException) -> str:
    """Return one line that says what *exc* is, without the file and line of a syntax error."""
    if isinstance(exc, WrongResult):
        return str(exc)
    text = _message(exc).partition("\n")[0].strip()[:MAX_TITLE]
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def _message(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return str(exc.msg)
    if isinstance(exc, BaseExceptionGroup):
        return exc.message
    try:
        if _has_objects(exc):
            return safe_repr(exc.args[0] if len(exc.args) == 1 else exc.args)
        return str(exc)
    except Exception as failure:
        return f"its message cannot be shown: {type(failure).__name__}"


def _has_objects(exc: BaseException) -> bool:
    """Whether `str` would call the ``repr`` of an argument, which may be huge, or never end."""
    if type(exc).__str__ not in (BaseException.__str__, KeyError.__str__):
        return False
    return any(type(arg) not in (str, int, float, bool, type(None)) for arg in exc.args)


def _shorten(text: str) -> str:
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"


# Chains and groups


def _chain(exc: BaseException, options: _Options) -> tuple[ExceptionReport, ...]:
    reports: list[ExceptionReport] = []
    seen: set[int] = set()
    each: BaseException | None = exc
    relation = Relation.ITSELF
    while each is not None and id(each) not in seen and options.exceptions > 0:
        seen.add(id(each))
        options.exceptions -= 1
        reports.append(_report(each, relation, options))
        each, relation = _predecessor(each)
    return tuple(reports)


def _predecessor(exc: BaseException) -> tuple[BaseException | None, Relation]:
    """What *exc* came of, and how."""
    found, relation = exc.__cause__, Relation.CAUSE
    if found is None and not exc.__suppress_context__:
        found, relation = exc.__context__, Relation.CONTEXT
    return (None if isinstance(found, trio.Cancelled) else found), relation


def _report(exc: BaseException, relation: Relation, options: _Options) -> ExceptionReport:
    redact = options.redactor.redact
    title, message = redact(summary(exc)), redact(_message(exc)).strip()
    notes = getattr(exc, "__notes__", None)
    kept = notes[:MAX_NOTES] if isinstance(notes, list) else ()
    frames = _frames(exc, options)
    branches, left_out = _branches(exc, options)
    return ExceptionReport(
        title=title,
        text="" if message in title else _shorten(message),
        notes=tuple(redact(_shorten(str(note))) for note in kept),
        frames=frames,
        relation=relation,
        branches=branches,
        left_out=left_out,
        kind=type(exc).__name__,
    )


def _branches(
    exc: BaseException, options: _Options
) -> tuple[tuple[tuple[ExceptionReport, ...], ...], int]:
    """The chains of the exceptions in *exc*, if it is a group; and how many are left out."""
    if not isinstance(exc, BaseExceptionGroup):
        return (), 0
    _, group = exc.split(trio.Cancelled)
    members = group.exceptions if group is not None else ()
    branches = tuple(filter(None, (_chain(member, options) for member in members)))
    return branches, len(members) - len(branches)


# Frames


def _frames(exc: BaseException, options: _Options) -> tuple[Frame, ...]:
    """The frames that *exc* passed, the innermost last; the place of a syntax error is one too."""
    frames = [_frame(tb, skipped, options) for tb, skipped in _shortened(exc.__traceback__)]
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        while frames and not frames[-1].own:
            frames.pop()  # how the file came to be compiled
        frames.append(_frame_of_syntax_error(exc, exc.filename, exc.lineno, options))
    elif isinstance(exc, WrongResult):
        frames += _frames_of_function(exc.method, options, returned_nothing=exc.is_nothing)
    return tuple(frames)


def _shortened(tb: TracebackType | None) -> list[tuple[TracebackType, int]]:
    """The entries of a traceback that are kept, and how many are left out before each."""
    entries: list[TracebackType] = []
    while tb is not None and len(entries) < MAX_TRACEBACK:
        entries.append(tb)
        tb = tb.tb_next
    # Of an instruction that occurs often, keep the first and the last occurrence.
    places = [(id(tb.tb_frame.f_code), tb.tb_lasti) for tb in entries]
    last = {place: index for index, place in enumerate(places)}
    first = {place: index for index, place in reversed([*enumerate(places)])}
    kept = sorted({*first.values(), *last.values()})
    # Of many different frames, keep the two ends.
    if len(kept) > OUTER + INNER:
        kept = kept[:OUTER] + kept[-INNER:]
    return [(entries[index], index - before - 1) for before, index in pairwise([-1, *kept])]


def _frame(tb: TracebackType, skipped: int, options: _Options) -> Frame:
    code = tb.tb_frame.f_code
    own = is_author_code(code.co_filename)
    variables: tuple[Variable, ...] = ()
    if own and options.show_values:
        variables = variable_values.variables(tb.tb_frame.f_locals, options.redactor)
    source = source_lines(code, tb.tb_frame.f_globals) or ()
    marked = position_of(code, tb.tb_lasti, source)
    number = tb.tb_lineno or 0
    return Frame(
        file=code.co_filename,
        line=number,
        column=0 if marked is None else marked.column + 1,
        function=_function_name(code),
        own=own,
        lines=_coloured(context_lines(source, number, marked), source, options),
        variables=variables,
        skipped=skipped,
        source_hash=hash(tuple(source)),
    )


def _function_name(code: CodeType) -> str:
    return code.co_qualname.replace(".<locals>", "").removeprefix("<module>")[:200]


def _frames_of_function(function: Any, options: _Options, *, returned_nothing: bool) -> list[Frame]:
    """The place in *function* of an error that it made and that was found after its end.

    That is what it returns, or the text that it should have returned; else its first line.
    """
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None or not is_author_code(code.co_filename):
        return []
    source = source_lines(code, function.__globals__) or ()
    if returned_nothing:
        dropped = find_dropped_text(code, source)
        marked = dropped.place if dropped else None
    else:
        marked = find_only_return(code, source)
    number = marked.line if marked else code.co_firstlineno
    column = marked.column + 1 if marked else 1
    lines = _coloured(context_lines(source, number, marked), source, options)
    return [Frame(code.co_filename, number, column, _function_name(code), lines=lines)]


# The place of a syntax error


def _frame_of_syntax_error(exc: SyntaxError, path: str, number: int, options: _Options) -> Frame:
    text = (exc.text or "").rstrip()
    source = _read_lines(path)
    marked = _range_of(exc, number)
    lines: tuple[Line, ...] = ()
    if number <= len(source) and text in ("", source[number - 1].rstrip()):
        lines = _coloured(context_lines(source, number, marked), source, options)
    elif text:  # the file is gone or has been saved again: the line is all that is known
        lines = (_line(text, number, number, marked),)
    return Frame(
        file=path,
        line=number,
        column=max(exc.offset or 0, 0),
        own=is_author_code(path),
        lines=lines,
        source_hash=hash(tuple(source)),
    )


def _read_lines(path: str) -> Sequence[str]:
    try:
        return decode_lines(Path(path).read_bytes())
    except (OSError, ValueError):
        return ()


def _range_of(exc: SyntaxError, number: int) -> Range | None:
    if not exc.offset:
        return None
    start = exc.offset - 1
    end_line, end = exc.end_lineno or number, (exc.end_offset or 0) - 1
    if end_line <= number:
        end_line, end = number, max(end, start + 1)
    return Range(number, start, end_line, end)


# Lines of source


def context_lines(lines: Sequence[str], number: int, marked: Range | None) -> tuple[Line, ...]:
    """Return the lines around line *number*, with *marked* marked if it is not whole lines."""
    if not 0 < number <= len(lines):
        return ()
    # After the last line end there is no line, but for the parser, which may fail there.
    count = max(number, len(lines) - (not lines[-1]))
    last = number if marked is None else min(marked.end_line, number + AFTER)
    shown = range(max(1, number - BEFORE), min(count, last + AFTER) + 1)
    return tuple(_line(lines[n - 1], n, number, marked) for n in shown)


def _line(text: str, number: int, failing: int, marked: Range | None) -> Line:
    columns = _marked_columns(text, number, marked)
    if len(text) <= WIDEST:
        return Line(number, text, number == failing, columns)
    # Of a long line, show the part around the mark.
    start, end = columns or (0, 0)
    cut = max(0, start - WIDEST // 2)
    shown = f"…{text[cut : cut + WIDEST]}…"
    if columns is not None:
        columns = start - cut + 1, min(end - cut + 1, len(shown))
    return Line(number, shown, number == failing, columns)


def _marked_columns(text: str, number: int, marked: Range | None) -> tuple[int, int] | None:
    """The columns of *text* that are marked; None if none are, or all that is not blank."""
    if marked is None or not marked.line <= number <= marked.end_line:
        return None
    indent = len(text) - len(text.lstrip())
    start = max(indent, marked.column) if number == marked.line else indent
    end = marked.end_column if number == marked.end_line else len(text)
    is_whole_line = start <= indent and end >= len(text.rstrip())
    return None if end <= start or is_whole_line else (start, end)


# Colours


def _coloured(
    lines: tuple[Line, ...], source: Sequence[str], options: _Options
) -> tuple[Line, ...]:
    """*lines* of *source* with the kinds of their tokens, for a page that shows them."""
    if not lines or not options.show_values:
        return lines
    before = source[: lines[-1].number]
    if sum(map(len, before)) > MAX_COLOURED:
        return lines
    tokens = _tokens("\n".join(before))
    return tuple(
        replace(line, tokens=tokens.get(line.number, ())) if len(line.text) <= WIDEST else line
        for line in lines
    )


@lru_cache(maxsize=8)
def _tokens(text: str) -> dict[int, tuple[tuple[int, str], ...]]:
    """For each line of *text*, by its number, where its tokens begin, and their kinds.

    Returns:
        Nothing if that cannot be known.
    """
    try:
        from pygments.lexers.python import PythonLexer
    except Exception as exc:  # it is not installed, or the process may open no more files
        log.debug("source is shown without colours: %s", exc)
        return {}
    found: dict[int, list[tuple[int, str]]] = {}
    number, column = 1, 0
    for token_type, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        kind = next((kind for wanted, kind in _kinds() if token_type in wanted), "")
        for index, part in enumerate(value.split("\n")):
            if index:
                number, column = number + 1, 0
            begun = found.setdefault(number, [])
            if part and (not begun or begun[-1][1] != kind):
                begun.append((column, kind))
            column += len(part)
    return {number: tuple(tokens) for number, tokens in found.items()}


@cache
def _kinds() -> list[tuple[Any, str]]:
    from pygments import token

    return [
        (token.Keyword, "keyword"),
        (token.Operator.Word, "keyword"),
        (token.Name.Builtin, "name"),
        (token.Name.Decorator, "name"),
        (token.Name.Function, "name"),
        (token.Name.Class, "name"),
        (token.String, "string"),
        (token.Number, "number"),
        (token.Comment, "comment"),
    ]
