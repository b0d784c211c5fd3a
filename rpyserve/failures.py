"""What to say of an exception that came out of a script: a title, the place, a hint. Values, no pages.

The frames that count are the script author's own: those of rpyserve, trio and Python itself are left out while
there is one of the author's. Nothing here decides who may see it.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rpyserve.errors import ScriptError

__all__ = ["Failure", "Place", "describe"]

MOST_PLACES: Final = 12
"""How many of the author's lines are shown, the innermost ones."""

_HERE = str(Path(__file__).parent) + os.sep
_FOREIGN = tuple(
    str(Path(path)) + os.sep for key, path in sysconfig.get_paths().items() if key in {"stdlib", "purelib", "platlib"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the author's code."""

    file: str
    line: int
    function: str
    source: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, told to the author of a script.

    Args:
        title: one line: what went wrong.
        hint: what to do about it, in lines; may be empty.
        places: the author's lines, the innermost last.
        chain: titles of the exceptions that led to it, the first cause last.
    """

    title: str
    hint: str
    places: tuple[Place, ...]
    chain: tuple[str, ...]


def describe(exc: BaseException) -> Failure:
    """Say what *exc* means to the author of the script that it came out of."""
    from rpyserve import hints

    if isinstance(exc, ScriptError):
        cause = exc.__cause__
        hint = exc.hint or (hints.for_exception(cause) if cause is not None else "")
        chain = _chain(cause)
        if cause is not None and exc.message in (_title(cause), _syntax_title(cause)):
            chain = chain[1:]  # the message says it already
        return Failure(exc.message, hint, _places(cause) if cause is not None else (), chain)
    return Failure(_title(exc), hints.for_exception(exc), _places(exc), _chain(exc.__cause__ or _context(exc)))


def _title(exc: BaseException) -> str:
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _syntax_title(exc: BaseException) -> str:
    """Without the file and line that ``str`` adds to a syntax error: those are its place."""
    return f"{type(exc).__name__}: {exc.msg}" if isinstance(exc, SyntaxError) else ""


def _context(exc: BaseException) -> BaseException | None:
    return None if exc.__suppress_context__ else exc.__context__


def _chain(exc: BaseException | None) -> tuple[str, ...]:
    titles: list[str] = []
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen and len(titles) < 10:
        seen.add(id(exc))
        titles.append(_title(exc))
        exc = exc.__cause__ or _context(exc)
    return tuple(titles)


def _places(exc: BaseException) -> tuple[Place, ...]:
    if isinstance(exc, SyntaxError) and exc.filename:
        return (Place(exc.filename, exc.lineno or 0, "", (exc.text or "").strip()),)
    if isinstance(exc, BaseExceptionGroup):
        return tuple(place for each in exc.exceptions[:5] for place in _places(each)[-1:])
    entries = traceback.extract_tb(exc.__traceback__, limit=-50)
    own = [Place(e.filename, e.lineno or 0, e.name, e.line or "") for e in entries if is_authors(e.filename)]
    once = dict.fromkeys(own)  # endless recursion passes the same few lines again and again
    return tuple(once)[-MOST_PLACES:]


def is_authors(filename: str) -> bool:
    """Whether *filename* is code of the site's author: neither rpyserve's, Python's nor an installed package's."""
    return not filename.startswith(("<", _HERE, *_FOREIGN))
