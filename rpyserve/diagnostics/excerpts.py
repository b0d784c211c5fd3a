"""Lines of source around a failing one, as they were when the code was compiled.

The execution of a script or a site module carries its source, so a later edit shows no wrong lines.
For other files there is only the file itself: if a module was saved after this process began, the
file may be newer than the code, and is not shown. Templates are compiled again when they change.

Python counts columns in bytes of UTF-8; everything that leaves this module counts characters.
"""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
import time
import tokenize
import traceback
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import islice
from types import CodeType, FrameType
from typing import Final, NamedTuple, cast

from rpyserve.diagnostics.model import Line
from rpyserve.scripts.execution import Execution
from rpyserve.util.author_code import is_author_code

__all__ = [
    "Range",
    "context_lines",
    "decode_lines",
    "execution_in",
    "innermost_author_line",
    "position_of",
    "source_lines",
]

BEFORE: Final = 5
"""How many lines are shown before the failing one."""

AFTER: Final = 4
"""How many lines are shown after it."""

WIDEST: Final = 240
"""How many characters of a line are shown."""

_STARTED: Final = time.time()
_PYTHON: Final = (".py", ".rpy", ".pyw")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Range(NamedTuple):
    """A piece of source: lines counted from 1, columns in characters from 0, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


# The source of code


def execution_in(namespace: Mapping[str, object]) -> Execution | None:
    """Return the execution of a script or site module whose globals are *namespace*."""
    found = namespace.get("__execution__")
    return found if isinstance(found, Execution) else None


def source_lines(code: CodeType, namespace: Mapping[str, object]) -> Sequence[str] | None:
    """Return the lines of the file that *code* was compiled from; None if they are not known.

    Args:
        namespace: the globals that it runs in.
    """
    execution = execution_in(namespace)
    if execution is not None and os.fspath(execution.path) == code.co_filename:
        return decode_lines(execution.source)
    return _lines_of_file(code.co_filename, loaded=namespace.get("__name__") in sys.modules)


def _lines_of_file(path: str, *, loaded: bool) -> Sequence[str] | None:
    try:
        if loaded and os.stat(path).st_mtime > _STARTED:
            return None
    except (OSError, ValueError):
        return None
    linecache.checkcache(path)
    return [line.rstrip("\n") for line in linecache.getlines(path)] or None


@functools.lru_cache(maxsize=32)
def decode_lines(data: bytes) -> Sequence[str]:
    """Return the lines of a Python source, as the compiler counts them."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    return _LINE_END.split(data.decode(encoding, "replace"))


def innermost_author_line(exc: BaseException) -> tuple[FrameType | None, str]:
    """Return the innermost frame of the author's code that *exc* passed, and its line of source."""
    entries = traceback.walk_tb(exc.__traceback__)
    own = [entry for entry in entries if is_author_code(entry[0].f_code.co_filename)]
    if not own:
        return None, ""
    frame, number = own[-1]
    lines = source_lines(frame.f_code, frame.f_globals) or ()
    return frame, lines[number - 1].strip() if 0 < number <= len(lines) else ""


# Positions in it


def position_of(code: CodeType, instruction: int, lines: Sequence[str]) -> Range | None:
    """Return the piece of *lines* that the instruction at that byte offset of *code* comes from."""
    if instruction < 0 or not code.co_filename.endswith(_PYTHON):
        return None  # the columns of a template are those of the code generated from it
    unknown = (None, None, None, None)
    found = next(islice(code.co_positions(), instruction // 2, None), unknown)
    if None in found:
        return None
    line, end_line, start, end = cast("tuple[int, int, int, int]", found)
    if end_line > len(lines):
        return None
    column = _count_characters(lines[line - 1], start)
    return Range(line, column, end_line, _count_characters(lines[end_line - 1], end))


def _count_characters(line: str, size: int) -> int:
    if line.isascii():
        return size
    return len(line.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore"))


# The lines to show


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
