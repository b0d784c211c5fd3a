"""Calls of async functions that nobody awaited: named on the console, with script and line.

Python warns when it throws such a coroutine away, which may be long after the call and far from it.
So while a site is served, each coroutine remembers the line that made it.
Warnings of all other kinds go where they went before.
"""

from __future__ import annotations

import linecache
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line
from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.util.author_code import display_path, is_author_code

_NEVER: Final = re.compile(r"coroutine '([^']+)' was never awaited")
_ORIGIN: Final = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)


@contextmanager
def reporting_unawaited(reporter: ConsoleReporter) -> Iterator[None]:
    """While inside, coroutines of this thread that nobody awaited are told to *reporter*."""
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(max(1, depth))
    with warnings.catch_warnings():
        warnings.filterwarnings("always", _NEVER.pattern, RuntimeWarning)
        others: Any = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: Any = None,
        ) -> None:
            if (
                issubclass(category, RuntimeWarning)
                and (failure := _failure(str(message), filename, lineno)) is not None
            ):
                frame = failure.chain[0].frames[0]
                reporter.report(f"{display_path(frame.file)}, line {frame.line}", failure)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        try:
            yield
        finally:
            sys.set_coroutine_origin_tracking_depth(depth)


def _failure(text: str, filename: str, number: int) -> ErrorReport | None:
    """What the warning *text* means; None if it is of another kind, or not of the author's code."""
    found = _NEVER.search(text)
    if found is None:
        return None
    if origins := _ORIGIN.findall(text):
        filename, number = origins[-1][0], int(origins[-1][1])
    if not is_author_code(filename):
        return None
    name = found[1].rpartition(".")[2]
    linecache.checkcache(filename)
    source = linecache.getline(filename, number).rstrip("\n")
    frame = Frame(filename, number, lines=(Line(number, source, True),), source_hash=hash(source))
    title = f"{name}() was called without `await`, so it never ran."
    return ErrorReport(
        title, f"Write:\nawait {name}(...)", (ExceptionReport(title, frames=(frame,)),)
    )
