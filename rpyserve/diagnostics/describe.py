"""Describes an exception that came out of a script: its whole chain, frame by frame, and advice.

Everything is bounded: the length of chains, tracebacks and messages, the depth and width of groups.
Of calls that repeat (deep recursion) the first and the innermost are kept, those between are
counted. Only the author's frames get the lines around the failing one, and values. Cancellations
are left out of groups, because they are a consequence.

Nothing here decides who may see the result; values of variables are read only if they will be
shown.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Any, Final

import trio

from rpyserve.diagnostics import values as variable_values
from rpyserve.diagnostics.advice import advice_for
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation, Variable
from rpyserve.diagnostics.redaction import Redactor
from rpyserve.diagnostics.values import safe_repr
from rpyserve.http.errors import ScriptError, WrongResult
from rpyserve.scripts.execution import execution_in
from rpyserve.scripts.source import Range, decode_lines, position_of, source_lines
from rpyserve.util.author_code import is_author_code

__all__ = ["Budget", "context_lines", "describe", "summary"]

log = logging.getLogger("rpyserve")

MAX_MESSAGE: Final = 4000
"""How many characters of a message are kept."""

MAX_TITLE: Final = 300
"""How many characters of its first line are kept as the title."""

MAX_NOTES: Final = 20
"""How many notes of an exception are kept."""

MAX_CHAIN: Final = 10
"""How many exceptions of one chain are described."""

MAX_DEPTH: Final = 6
"""How deep groups within groups are described."""

OUTER: Final = 10
"""How many frames are kept at the outer end of a traceback."""

INNER: Final = 20
"""How many frames are kept at its inner end."""

MAX_TRACEBACK: Final = 100_000
"""How many frames of a traceback are looked at."""

BEFORE: Final = 5
"""How many lines are shown before a failing one."""

AFTER: Final = 4
"""How many lines are shown after it."""

WIDEST: Final = 240
"""How many characters of a line are shown."""

MAX_SOURCE: Final = 4 * 1024 * 1024
"""Size in bytes up to which a file with a syntax error is read."""


@dataclass(slots=True)
class Budget:
    """What may be shown of all exceptions of one error together.

    Attributes:
        show_values: whether to show the values of variables.
        redactor: hides secret texts.
        detailed_frames: how many more frames may get all their lines and values.
        exceptions: how many more exceptions may be described.
    """

    show_values: bool = False
    redactor: Redactor = field(default_factory=Redactor)
    detailed_frames: int = 40
    exceptions: int = 50


def describe(
    exc: BaseException, *, values: bool = False, redactor: Redactor | None = None
) -> ErrorReport:
    """Describe *exc* for the author of the script that it came out of.

    Args:
        values: whether to include the values of variables.
        redactor: hides texts that are secret, such as this visitor's cookies.
    """
    budget = Budget(values, redactor or Redactor())
    try:
        if isinstance(exc, ScriptError):
            return _describe_script_error(exc, budget)
        chain = _chain(exc, budget)
        hint = budget.redactor.redact(advice_for(exc))
        return ErrorReport(chain[0].title, hint, chain, fingerprint=_fingerprint(exc))
    except Exception as failure:  # an odd object in the exception must not cost its page
        log.debug("%s could not be described: %r", type(exc).__name__, failure)
        return ErrorReport(type(exc).__name__, fingerprint=(type(exc).__name__,))


def _describe_script_error(exc: ScriptError, budget: Budget) -> ErrorReport:
    redact = budget.redactor.redact
    cause = exc.__cause__
    message, hint = exc.message, exc.hint
    chain: tuple[ExceptionReport, ...] = ()
    if cause is not None:
        message = message or summary(cause)
        hint = hint or advice_for(cause)
        # A TypeError that rpyserve raised itself says the same as the message.
        if message != str(cause):
            chain = _chain(cause, budget)
    has_place = any(each.own_frames for each in chain)
    return ErrorReport(
        title=redact(message)[:MAX_TITLE].partition("\n")[0],
        hint=redact(hint),
        chain=chain,
        script="" if has_place else str(exc.path),
        fingerprint=_fingerprint(cause) if cause is not None and chain else (message,),
    )


def _fingerprint(exc: BaseException) -> tuple[str, ...]:
    names: list[str] = []
    each: BaseException | None = exc
    while each is not None and len(names) < MAX_CHAIN:
        names.append(type(each).__name__)
        each = each.__cause__ or each.__context__
    return tuple(names)


# Titles and messages


def summary(exc: BaseException) -> str:
    """Return one line that says what *exc* is, without the file and line of a syntax error."""
    if isinstance(exc, WrongResult):
        return str(exc)
    text = _message(exc).partition("\n")[0].strip()
    if len(text) > MAX_TITLE:
        text = text[:MAX_TITLE] + "…"
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


def _chain(exc: BaseException, budget: Budget, depth: int = 0) -> tuple[ExceptionReport, ...]:
    reports: list[ExceptionReport] = []
    seen: set[int] = set()
    each: BaseException | None = exc
    relation = Relation.ITSELF
    while each is not None and id(each) not in seen:
        if len(reports) >= MAX_CHAIN or budget.exceptions <= 0:
            break
        seen.add(id(each))
        budget.exceptions -= 1
        reports.append(_report(each, relation, budget, depth))
        each, relation = _predecessor(each)
    return tuple(reports)


def _predecessor(exc: BaseException) -> tuple[BaseException | None, Relation]:
    """What *exc* came of, and how."""
    if exc.__cause__ is not None:
        found, relation = exc.__cause__, Relation.CAUSE
    elif exc.__context__ is not None and not exc.__suppress_context__:
        found, relation = exc.__context__, Relation.CONTEXT
    else:
        return None, Relation.ITSELF
    return (None if isinstance(found, trio.Cancelled) else found), relation


def _report(exc: BaseException, relation: Relation, budget: Budget, depth: int) -> ExceptionReport:
    redact = budget.redactor.redact
    message = redact(_message(exc))
    is_longer = "\n" in message.strip() or len(message) > MAX_TITLE
    branches: tuple[tuple[ExceptionReport, ...], ...] = ()
    left_out = 0
    if isinstance(exc, BaseExceptionGroup):
        branches, left_out = _branches(exc, budget, depth)
    return ExceptionReport(
        title=redact(summary(exc)),
        text=_shorten(message) if is_longer else "",
        notes=tuple(redact(_shorten(str(note))) for note in _notes(exc)[:MAX_NOTES]),
        frames=_frames(exc, budget),
        relation=relation,
        branches=branches,
        left_out=left_out,
    )


def _branches(
    group: BaseExceptionGroup[Any], budget: Budget, depth: int
) -> tuple[tuple[tuple[ExceptionReport, ...], ...], int]:
    members = [each for each in group.exceptions if not _is_cancelled(each)]
    branches: list[tuple[ExceptionReport, ...]] = []
    for member in members:
        if depth >= MAX_DEPTH or budget.exceptions <= 0:
            break
        branches.append(_chain(member, budget, depth + 1))
    return tuple(branches), len(members) - len(branches)


def _is_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return notes if isinstance(notes, list) else []


# Frames


@dataclass(slots=True)
class _Step:
    """An entry of a traceback, and how many were left out before it."""

    tb: TracebackType
    skipped: int


def _frames(exc: BaseException, budget: Budget) -> tuple[Frame, ...]:
    """The frames that *exc* passed, the innermost last; the place of a syntax error is one too."""
    steps = _shortened(exc.__traceback__)
    place: list[Frame] = []
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        place = [_frame_of_syntax_error(exc, exc.filename, exc.lineno)]
        # How Python came to compile the file tells nothing.
        while steps and not is_author_code(steps[-1].tb.tb_frame.f_code.co_filename):
            steps.pop()
    elif isinstance(exc, WrongResult):
        place = _frames_of_function(exc.method)
    # From the innermost on, because the budget of details is better spent there.
    frames = [_frame(step, budget) for step in reversed(steps)]
    return (*reversed(frames), *place)


def _shortened(tb: TracebackType | None) -> list[_Step]:
    entries: list[TracebackType] = []
    while tb is not None and len(entries) < MAX_TRACEBACK:
        entries.append(tb)
        tb = tb.tb_next

    # Of an instruction that occurs often, keep the first and the last occurrence.
    occurrences = Counter(map(_instruction, entries))
    seen: Counter[tuple[int, int]] = Counter()
    steps: list[_Step] = []
    skipped = 0
    for entry in entries:
        key = _instruction(entry)
        seen[key] += 1
        if 1 < seen[key] < occurrences[key]:
            skipped += 1
        else:
            steps.append(_Step(entry, skipped))
            skipped = 0

    # Of many different frames, keep the two ends.
    if len(steps) > OUTER + INNER:
        steps[-INNER].skipped += sum(1 + step.skipped for step in steps[OUTER:-INNER])
        del steps[OUTER:-INNER]
    return steps


def _instruction(tb: TracebackType) -> tuple[int, int]:
    return id(tb.tb_frame.f_code), tb.tb_lasti


def _frame(step: _Step, budget: Budget) -> Frame:
    tb = step.tb
    code, namespace = tb.tb_frame.f_code, tb.tb_frame.f_globals
    own = is_author_code(code.co_filename)
    is_detailed = own and budget.detailed_frames > 0
    lines, column = _excerpt(tb)
    variables: tuple[Variable, ...] = ()
    if is_detailed:
        budget.detailed_frames -= 1
        if budget.show_values:
            variables = _variables(tb, budget)
    else:
        lines = tuple(line for line in lines if line.failing)
    execution = execution_in(namespace) if own else None
    return Frame(
        file=code.co_filename,
        line=tb.tb_lineno or 0,
        column=column,
        function="" if code.co_name == "<module>" else _function_name(code),
        own=own,
        lines=lines,
        variables=variables,
        skipped=step.skipped,
        source_hash=0 if execution is None else hash(execution.source),
    )


def _excerpt(tb: TracebackType) -> tuple[tuple[Line, ...], int]:
    """The lines around that of *tb*, and the column at fault; 0 if it is not known."""
    code, number = tb.tb_frame.f_code, tb.tb_lineno or 0
    source = source_lines(code, tb.tb_frame.f_globals)
    if source is None or not 0 < number <= len(source):
        return (), 0
    marked = position_of(code, tb.tb_lasti, source)
    if marked is not None and not marked.line <= number <= marked.end_line:
        marked = None
    column = marked.column + 1 if marked is not None and marked.line == number else 0
    return context_lines(source, number, marked), column


def _variables(tb: TracebackType, budget: Budget) -> tuple[Variable, ...]:
    frame = tb.tb_frame
    top_level = frame.f_code.co_name == "<module>"
    return variable_values.variables(frame.f_locals, budget.redactor, top_level=top_level)


def _function_name(code: CodeType) -> str:
    return code.co_qualname.replace(".<locals>", "")[:200]


def _frames_of_function(function: object) -> list[Frame]:
    """The place where *function* is defined, for an error it made that was found after its end."""
    function = inspect.unwrap(function) if callable(function) else None
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or not is_author_code(code.co_filename):
        return []
    number = code.co_firstlineno
    lines: tuple[Line, ...] = ()
    source = source_lines(code, getattr(function, "__globals__", {}))
    if source is not None and number <= len(source):
        lines = context_lines(source, number, None)
    return [Frame(code.co_filename, number, 1, _function_name(code), lines=lines)]


# The place of a syntax error


def _frame_of_syntax_error(exc: SyntaxError, path: str, number: int) -> Frame:
    text = (exc.text or "").rstrip()
    source = _read_lines(path)
    is_current = number <= len(source) and text in ("", source[number - 1].rstrip())
    if is_current:
        lines = _lines_around(exc, source, number)
    else:
        # The file is gone or has been saved again: the line is all that is known.
        source = [""] * (number - 1) + [text]
        around = _lines_around(exc, source, number) if text else ()
        lines = tuple(line for line in around if line.failing)
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
        if os.path.getsize(path) > MAX_SOURCE:
            return ()
        with open(path, "rb") as file:
            return decode_lines(file.read())
    except (OSError, ValueError):
        return ()


def _lines_around(exc: SyntaxError, source: Sequence[str], number: int) -> tuple[Line, ...]:
    if not exc.offset:
        return context_lines(source, number, None)
    start = exc.offset - 1
    end_line, end = exc.end_lineno or number, (exc.end_offset or 0) - 1
    if not number <= end_line <= len(source) or (end_line, end) <= (number, start):
        end_line, end = number, start + 1
    return context_lines(source, number, Range(number, start, end_line, end))


# Lines of source


def context_lines(lines: Sequence[str], number: int, marked: Range | None) -> tuple[Line, ...]:
    """Return the lines around line *number*, with *marked* marked if it is not whole lines."""
    count = len(lines)
    if number < count and not lines[-1]:
        count -= 1  # only nothing follows the last line end
    last = number if marked is None else min(marked.end_line, number + AFTER)
    shown = range(max(1, number - BEFORE), min(count, last + AFTER) + 1)
    return tuple(_line(lines[n - 1], n, number, marked) for n in shown)


def _line(text: str, number: int, failing: int, marked: Range | None) -> Line:
    columns = _marked_columns(text, number, marked)
    # Of a long line, show the part around the mark.
    start = 0
    if columns is not None and columns[0] > WIDEST * 3 // 4:
        start = columns[0] - WIDEST // 2
    shown = text[start : start + WIDEST]
    if len(text) > start + WIDEST:
        shown += "…"
    shift = -start
    if start:
        shown = "…" + shown
        shift += 1
    if columns is not None:
        columns = min(columns[0] + shift, len(shown)), min(columns[1] + shift, len(shown))
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
