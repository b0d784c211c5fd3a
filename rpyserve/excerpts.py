"""Lines of source as they were when the code was compiled, not as the file is by now.

An execution of a script or a site module carries its source, so an edit since shows no wrong lines. For other files
there is only the file: that of a module that was saved after this process began is taken to be newer than the code, and
not shown. Templates are read anew when they change.
Positions come from Python in bytes of UTF-8; all that leaves here counts characters.
"""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
import time
import tokenize
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import islice
from types import CodeType
from typing import Final, NamedTuple

from rpyserve.failures import Line
from rpyserve.scripts.execution import Execution

__all__ = ["Range", "decoded", "execution_in", "lines_round", "position_of", "source_of"]

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
    return Range(line, _characters(lines[line - 1], start), end_line, _characters(lines[end_line - 1], end))


def _characters(line: str, count: int) -> int:
    return count if line.isascii() else len(line.encode("utf-8", "surrogatepass")[:count].decode("utf-8", "ignore"))


def lines_round(lines: Sequence[str], number: int, marked: Range | None) -> tuple[Line, ...]:
    """Return the lines round line *number*, with the piece *marked* where it is less than a whole line."""
    last = min(marked.end_line, number + AFTER) if marked is not None else number
    count = len(lines) - (number < len(lines) and not lines[-1])  # what follows the last line end is no line
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
