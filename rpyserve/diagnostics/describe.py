"""From an exception's traceback to frames that can be shown: bounded, whatever the traceback is like.

Of calls that repeat themselves (deep recursion) the first and the innermost are kept, and those between are counted.
Only the author's own frames get lines round the failing one and values of variables; others get their line.

What an exception that came out of a script means to its author: the whole chain, frame by frame, and a hint.

Bounded in all directions: however long a chain or a traceback is, however deep groups are nested, however large a
message. Cancellations are left out of groups: they are a consequence. Nothing here decides who may see it; values
of variables are asked for only where they will be shown.

Lines of source as they were when the code was compiled, not as the file is by now.

An execution of a script or a site module carries its source, so an edit since shows no wrong lines. For other files
there is only the file: that of a module that was saved after this process began is taken to be newer than the code, and
not shown. Templates are read anew when they change.
Positions come from Python in bytes of UTF-8; all that leaves here counts characters.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import logging
import os
import re
import sys
import time
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from types import CodeType, TracebackType
from typing import Any, Final, NamedTuple

import trio

from rpyserve.diagnostics import values as localvalues
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation, Variable
from rpyserve.diagnostics.redaction import Redactor
from rpyserve.diagnostics.values import safe_repr
from rpyserve.http.errors import ScriptError, WrongResult
from rpyserve.scripts.execution import Execution
from rpyserve.util.author_code import is_author_code

__all__ = [
    "Budget",
    "Range",
    "context_lines",
    "decoded",
    "describe",
    "execution_in",
    "frames_of",
    "position_of",
    "source_of",
    "summary",
]


OUTER: Final = 10
INNER: Final = 20
"""How many frames are kept of a traceback, at its two ends."""
LOOKED_AT: Final = 100_000


@dataclass(slots=True)
class Budget:
    """How closely to look, and how much of it is left: one for all exceptions of a failure.

    Args:
        values: whether to show the values of variables.
        veil: hides texts that are secret under any name.
        detailed: how many frames may still get all their lines and values.
        faults: how many exceptions may still be told.
    """

    values: bool = False
    veil: Redactor = field(default_factory=Redactor)
    detailed: int = 40
    faults: int = 50


@dataclass(slots=True)
class _Step:
    tb: TracebackType
    skipped: int


def frames_of(exc: BaseException, look: Budget) -> tuple[Frame, ...]:
    """Return the places that *exc* passed, the innermost last; the place of a syntax error is one of them."""
    steps = list(_shortened(exc.__traceback__))
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        while steps and not is_author_code(steps[-1].tb.tb_frame.f_code.co_filename):
            steps.pop()  # how Python came to compile the file tells nothing
    # The innermost ones are the last to be without details.
    frames = [_frame(step, look) for step in reversed(steps)][::-1]
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        frames.append(_of_syntax_error(exc, exc.filename, exc.lineno))
    elif isinstance(exc, WrongResult) and (defined := _of_function(exc.method)) is not None:
        frames.append(defined)
    return tuple(frames)


def _shortened(tb: TracebackType | None) -> Iterator[_Step]:
    steps: list[TracebackType] = []
    while tb is not None and len(steps) < LOOKED_AT:
        steps.append(tb)
        tb = tb.tb_next
    times = Counter(map(_key, steps))
    seen: Counter[tuple[int, int]] = Counter()
    kept: list[_Step] = []
    skipped = 0
    for step in steps:
        key = _key(step)
        seen[key] += 1
        if 2 < times[key] > seen[key] > 1:
            skipped += 1
            continue
        kept.append(_Step(step, skipped))
        skipped = 0
    if len(kept) > OUTER + INNER:
        between = kept[OUTER:-INNER]
        kept[-INNER].skipped += sum(1 + step.skipped for step in between)
        del kept[OUTER:-INNER]
    return iter(kept)


def _key(tb: TracebackType) -> tuple[int, int]:
    return id(tb.tb_frame.f_code), tb.tb_lasti


def _frame(step: _Step, look: Budget) -> Frame:
    tb = step.tb
    code = tb.tb_frame.f_code
    own = is_author_code(code.co_filename)
    number = tb.tb_lineno or 0
    detailed = own and look.detailed > 0
    look.detailed -= detailed
    lines, column = _source(tb, number, detailed)
    return Frame(
        file=code.co_filename,
        line=number,
        column=column,
        function=_name(tb),
        own=own,
        lines=lines,
        variables=_variables(tb, look) if detailed and look.values else (),
        skipped=step.skipped,
        edition=_edition(tb) if own else 0,
    )


def _source(tb: TracebackType, number: int, detailed: bool) -> tuple[tuple[Line, ...], int]:
    source = source_of(tb.tb_frame.f_code, tb.tb_frame.f_globals)
    if source is None or not 0 < number <= len(source):
        return (), 0
    marked = position_of(tb.tb_frame.f_code, tb.tb_lasti, source)
    if marked is not None and not marked.line <= number <= marked.end_line:
        marked = None
    column = marked.column + 1 if marked is not None and marked.line == number else 0
    lines = context_lines(source, number, marked)
    return (lines if detailed else tuple(line for line in lines if line.failing)), column


def _name(tb: TracebackType) -> str:
    code = tb.tb_frame.f_code
    return "" if code.co_name == "<module>" else code.co_qualname.replace(".<locals>", "")[:200]


def _variables(tb: TracebackType, look: Budget) -> tuple[Variable, ...]:
    frame = tb.tb_frame
    return localvalues.variables(
        frame.f_locals, look.veil, top_level=frame.f_code.co_name == "<module>"
    )


def _edition(tb: TracebackType) -> int:
    execution = execution_in(tb.tb_frame.f_globals)
    return hash(execution.source) if execution is not None else 0


def _of_function(function: object) -> Frame | None:
    """The place where *function* is defined, for an error that it made without being on the stack any more."""
    function = inspect.unwrap(function) if callable(function) else None
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if not isinstance(code, CodeType) or not is_author_code(code.co_filename):
        return None
    number = code.co_firstlineno
    source = source_of(code, names)
    lines = (
        context_lines(source, number, None) if source is not None and number <= len(source) else ()
    )
    return Frame(
        code.co_filename, number, 1, code.co_qualname.replace(".<locals>", ""), lines=lines
    )


# Syntax errors


def _of_syntax_error(exc: SyntaxError, path: str, number: int) -> Frame:
    text = (exc.text or "").rstrip("\r\n")
    source, edition = _file(path)
    # The file may have been saved again since: then the line is all that is known.
    if (
        source is None
        or not 0 < number <= len(source)
        or (text and source[number - 1].rstrip() != text.rstrip())
    ):
        source, edition = [""] * (number - 1) + [text], zlib.crc32(text.encode("utf-8", "replace"))
        lines = tuple(line for line in _marked(exc, source, number) if line.failing and text)
    else:
        lines = _marked(exc, source, number)
    return Frame(
        path,
        number,
        max(exc.offset or 0, 0),
        own=is_author_code(path),
        lines=lines,
        edition=edition,
    )


def _file(path: str) -> tuple[list[str] | None, int]:
    try:
        if os.path.getsize(path) > 2**22:
            return None, 0
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError):
        return None, 0
    return list(decoded(data)), hash(data)


def _marked(exc: SyntaxError, source: list[str], number: int) -> tuple[Line, ...]:
    start = (exc.offset or 0) - 1
    if start < 0:
        return context_lines(source, number, None)
    end_line = exc.end_lineno or number
    end = (exc.end_offset or 0) - 1
    if not number <= end_line <= len(source) or (end_line == number and end <= start):
        end_line, end = number, start + 1
    return context_lines(source, number, Range(number, start, end_line, end))


log = logging.getLogger("rpyserve")

LONGEST: Final = 4000
"""Characters of a message, and
FIRST_LINE of a title."""
FIRST_LINE: Final = 300
LINKS: Final = 10
"""Exceptions of one chain."""
NESTED: Final = 6
"""Groups within groups."""


def describe(
    exc: BaseException, *, values: bool = False, veil: Redactor | None = None
) -> ErrorReport:
    """Say what *exc* means to the author of the script that it came out of.

    Args:
        values: whether to tell the values of variables.
        veil: hides what must not be read; see `masks`.
    """
    look = Budget(values, veil or Redactor())
    try:
        return _describe(exc, look)
    except (
        Exception
    ) as failure:  # of some odd object that it holds: the page must come all the same
        log.debug("%s could not be described: %r", type(exc).__name__, failure)
        return ErrorReport(type(exc).__name__, kind=(type(exc).__name__,))


def _describe(exc: BaseException, look: Budget) -> ErrorReport:
    from rpyserve.diagnostics import advice

    over = look.veil.redact
    if not isinstance(exc, ScriptError):
        chain = _chain(exc, look)
        return ErrorReport(chain[0].title, over(advice.advice_for(exc)), chain, "", _kind(exc))
    cause = exc.__cause__
    chain = () if cause is None or not _tells(cause, exc) else _chain(cause, look)
    hint = exc.hint or (advice.advice_for(cause) if cause is not None else "")
    message = exc.message or (summary(cause) if cause is not None else "")
    title = over(message)[:FIRST_LINE].partition("\n")[0]
    kind = _kind(cause) if cause is not None and chain else (exc.message,)
    return ErrorReport(
        title,
        over(hint),
        chain,
        "" if any(fault.own_frames for fault in chain) else str(exc.path),
        kind,
    )


def summary(exc: BaseException) -> str:
    """Return the one line that says what *exc* is, without what Python adds to say where."""
    if isinstance(exc, WrongResult):
        return str(exc)
    name, text = type(exc).__name__, _message(exc).partition("\n")[0].strip()
    if len(text) > FIRST_LINE:
        text = text[:FIRST_LINE] + "…"
    return f"{name}: {text}" if text else name


def _message(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return str(exc.msg)
    if isinstance(exc, BaseExceptionGroup):
        return exc.message
    try:
        plain = type(exc).__str__ in (BaseException.__str__, KeyError.__str__)
        if plain and any(type(arg) not in (str, int, float, bool, type(None)) for arg in exc.args):
            # Python would call the repr of what is in there, which may be huge, or never end.
            return safe_repr(exc.args[0]) if len(exc.args) == 1 else safe_repr(exc.args)
        return str(exc)
    except Exception as failure:
        return f"its message cannot be shown: {type(failure).__name__}"


def _tells(cause: BaseException, exc: ScriptError) -> bool:
    """Whether *cause* says more than *exc*: a TypeError that rpyserve raised itself says the same."""
    return exc.message != str(cause)


def _kind(exc: BaseException) -> tuple[str, ...]:
    kinds: list[str] = []
    each: BaseException | None = exc
    while each is not None and len(kinds) < LINKS:
        kinds.append(type(each).__name__)
        each = each.__cause__ or each.__context__
    return tuple(kinds)


def _chain(exc: BaseException, look: Budget, depth: int = 0) -> tuple[ExceptionReport, ...]:
    faults: list[ExceptionReport] = []
    seen: set[int] = set()
    each: BaseException | None = exc
    relation = Relation.ITSELF
    while each is not None and id(each) not in seen and len(faults) < LINKS and look.faults > 0:
        seen.add(id(each))
        look.faults -= 1
        faults.append(_fault(each, relation, look, depth))
        relation = Relation.CAUSE if each.__cause__ is not None else Relation.CONTEXT
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if isinstance(each, trio.Cancelled):
            break
    return tuple(faults)


def _fault(exc: BaseException, relation: Relation, look: Budget, depth: int) -> ExceptionReport:
    over = look.veil.redact
    message = over(_message(exc))
    longer = "\n" in message.strip() or len(message) > FIRST_LINE
    branches: tuple[tuple[ExceptionReport, ...], ...] = ()
    left_out = 0
    if isinstance(exc, BaseExceptionGroup):
        branches, left_out = _branches(exc, look, depth)
    return ExceptionReport(
        title=over(summary(exc)),
        text=_cut(message) if longer else "",
        notes=tuple(over(_cut(str(note))) for note in _notes(exc)[:20]),
        frames=frames_of(exc, look),
        relation=relation,
        branches=branches,
        left_out=left_out,
    )


def _branches(
    group: BaseExceptionGroup[Any], look: Budget, depth: int
) -> tuple[tuple[tuple[ExceptionReport, ...], ...], int]:
    real = [each for each in group.exceptions if not _is_cancelled(each)]
    told: list[tuple[ExceptionReport, ...]] = []
    for each in real:
        if depth >= NESTED or look.faults <= 0:
            break
        told.append(_chain(each, look, depth + 1))
    return tuple(told), len(real) - len(told)


def _is_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return notes if isinstance(notes, list) else []


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


BEFORE: Final = 5
AFTER: Final = 4
"""Lines shown round a failing one."""
WIDEST: Final = 240
"""Characters of a line."""

_BEGAN: Final = time.time()
_PYTHON: Final = (".py", ".rpy", ".pyw")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Range(NamedTuple):
    """A piece of source: lines counted from 1, columns in characters from 0; the end is not part of it."""

    line: int
    column: int
    end_line: int
    end_column: int


def execution_in(names: Mapping[str, object]) -> Execution | None:
    """Return the execution of a script or site module whose globals *names* are."""
    found = names.get("__execution__")
    return found if isinstance(found, Execution) else None


def source_of(code: CodeType, names: Mapping[str, object]) -> Sequence[str] | None:
    """Return the lines of the file that *code* was compiled from; None if they cannot be known.

    Args:
        names: the globals that it runs in.
    """
    execution = execution_in(names)
    if execution is not None and os.fspath(execution.path) == code.co_filename:
        return decoded(execution.source)
    return _of_file(code.co_filename, loaded=names.get("__name__") in sys.modules)


def _of_file(path: str, *, loaded: bool) -> Sequence[str] | None:
    try:
        if loaded and os.stat(path).st_mtime > _BEGAN:
            return None
    except (OSError, ValueError):
        return None
    linecache.checkcache(path)
    return [line.rstrip("\n") for line in linecache.getlines(path)] or None


@functools.lru_cache(maxsize=32)
def decoded(data: bytes) -> Sequence[str]:
    """Return the lines of a Python source, as the compiler counts them."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    return _LINE_END.split(data.decode(encoding, "replace"))


def position_of(code: CodeType, instruction: int, lines: Sequence[str]) -> Range | None:
    """Return what piece of *lines* the instruction at that byte offset of *code* comes from."""
    if instruction < 0 or not code.co_filename.endswith(_PYTHON):
        return None  # a template's place has the columns of the code that was made of it
    found = next(islice(code.co_positions(), instruction // 2, None), (None, None, None, None))
    line, end_line, start, end = found
    if line is None or end_line is None or start is None or end is None or end_line > len(lines):
        return None
    return Range(
        line, _characters(lines[line - 1], start), end_line, _characters(lines[end_line - 1], end)
    )


def _characters(line: str, count: int) -> int:
    return (
        count
        if line.isascii()
        else len(line.encode("utf-8", "surrogatepass")[:count].decode("utf-8", "ignore"))
    )


def context_lines(lines: Sequence[str], number: int, marked: Range | None) -> tuple[Line, ...]:
    """Return the lines round line *number*, with the piece *marked* where it is less than a whole line."""
    last = min(marked.end_line, number + AFTER) if marked is not None else number
    count = len(lines) - (
        number < len(lines) and not lines[-1]
    )  # what follows the last line end is no line
    first, end = max(1, number - BEFORE), min(count, last + AFTER)
    return tuple(_line(lines[n - 1], n, number, marked) for n in range(first, end + 1))


def _line(text: str, number: int, failing: int, marked: Range | None) -> Line:
    span = _span(text, number, marked)
    shift = max(0, span[0] - WIDEST // 2) if span is not None and span[0] > WIDEST * 3 // 4 else 0
    cut = text[shift : shift + WIDEST]
    shown = ("…" if shift else "") + cut + ("…" if len(text) > shift + WIDEST else "")
    if span is not None:
        move = (1 if shift else 0) - shift
        span = min(span[0] + move, len(shown)), min(span[1] + move, len(shown))
    return Line(number, shown, number == failing, span)


def _span(text: str, number: int, marked: Range | None) -> tuple[int, int] | None:
    """The columns of *text* that are marked; None if none are, or all that is not blank."""
    if marked is None or not marked.line <= number <= marked.end_line:
        return None
    blank = len(text) - len(text.lstrip())
    start = max(blank, marked.column if number == marked.line else 0)
    end = marked.end_column if number == marked.end_line else len(text)
    whole = start <= blank and end >= len(text.rstrip())
    return None if end <= start or whole else (start, end)
