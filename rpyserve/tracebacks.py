"""From an exception's traceback to frames that can be shown: bounded, whatever the traceback is like.

Of calls that repeat themselves (deep recursion) the first and the innermost are kept, and those between are counted.
Only the author's own frames get lines round the failing one and values of variables; others get their line.
"""

from __future__ import annotations

import inspect
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Final

from rpyserve import excerpts, localvalues
from rpyserve.failures import Frame, Line, Variable, is_authors
from rpyserve.http.errors import WrongResult
from rpyserve.masks import Veil

__all__ = ["Look", "frames_of"]

OUTER: Final = 10
INNER: Final = 20
"""How many frames are kept of a traceback, at its two ends."""
LOOKED_AT: Final = 100_000


@dataclass(slots=True)
class Look:
    """How closely to look, and how much of it is left: one for all exceptions of a failure.

    Args:
        values: whether to show the values of variables.
        veil: hides texts that are secret under any name.
        detailed: how many frames may still get all their lines and values.
        faults: how many exceptions may still be told.
    """

    values: bool = False
    veil: Veil = field(default_factory=Veil)
    detailed: int = 40
    faults: int = 50


@dataclass(slots=True)
class _Step:
    tb: TracebackType
    skipped: int


def frames_of(exc: BaseException, look: Look) -> tuple[Frame, ...]:
    """Return the places that *exc* passed, the innermost last; the place of a syntax error is one of them."""
    steps = list(_shortened(exc.__traceback__))
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        while steps and not is_authors(steps[-1].tb.tb_frame.f_code.co_filename):
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


def _frame(step: _Step, look: Look) -> Frame:
    tb = step.tb
    code = tb.tb_frame.f_code
    own = is_authors(code.co_filename)
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
    source = excerpts.source_of(tb.tb_frame.f_code, tb.tb_frame.f_globals)
    if source is None or not 0 < number <= len(source):
        return (), 0
    marked = excerpts.position_of(tb.tb_frame.f_code, tb.tb_lasti, source)
    if marked is not None and not marked.line <= number <= marked.end_line:
        marked = None
    column = marked.column + 1 if marked is not None and marked.line == number else 0
    lines = excerpts.lines_round(source, number, marked)
    return (lines if detailed else tuple(line for line in lines if line.failing)), column


def _name(tb: TracebackType) -> str:
    code = tb.tb_frame.f_code
    return "" if code.co_name == "<module>" else code.co_qualname.replace(".<locals>", "")[:200]


def _variables(tb: TracebackType, look: Look) -> tuple[Variable, ...]:
    frame = tb.tb_frame
    return localvalues.variables(frame.f_locals, look.veil, top_level=frame.f_code.co_name == "<module>")


def _edition(tb: TracebackType) -> int:
    execution = excerpts.execution_in(tb.tb_frame.f_globals)
    return hash(execution.source) if execution is not None else 0


def _of_function(function: object) -> Frame | None:
    """The place where *function* is defined, for an error that it made without being on the stack any more."""
    function = inspect.unwrap(function) if callable(function) else None
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if not isinstance(code, CodeType) or not is_authors(code.co_filename):
        return None
    number = code.co_firstlineno
    source = excerpts.source_of(code, names)
    lines = excerpts.lines_round(source, number, None) if source is not None and number <= len(source) else ()
    return Frame(code.co_filename, number, 1, code.co_qualname.replace(".<locals>", ""), lines=lines)


# Syntax errors


def _of_syntax_error(exc: SyntaxError, path: str, number: int) -> Frame:
    text = (exc.text or "").rstrip("\r\n")
    source, edition = _file(path)
    # The file may have been saved again since: then the line is all that is known.
    if source is None or not 0 < number <= len(source) or (text and source[number - 1].rstrip() != text.rstrip()):
        source, edition = [""] * (number - 1) + [text], zlib.crc32(text.encode("utf-8", "replace"))
        lines = tuple(line for line in _marked(exc, source, number) if line.failing and text)
    else:
        lines = _marked(exc, source, number)
    return Frame(path, number, max(exc.offset or 0, 0), own=is_authors(path), lines=lines, edition=edition)


def _file(path: str) -> tuple[list[str] | None, int]:
    try:
        if os.path.getsize(path) > 2**22:
            return None, 0
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError):
        return None, 0
    return list(excerpts.decoded(data)), hash(data)


def _marked(exc: SyntaxError, source: list[str], number: int) -> tuple[Line, ...]:
    start = (exc.offset or 0) - 1
    if start < 0:
        return excerpts.lines_round(source, number, None)
    end_line = exc.end_lineno or number
    end = (exc.end_offset or 0) - 1
    if not number <= end_line <= len(source) or (end_line == number and end <= start):
        end_line, end = number, start + 1
    return excerpts.lines_round(source, number, excerpts.Range(number, start, end_line, end))
