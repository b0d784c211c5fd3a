"""A failure as plain text: for the console, and for clients that do not ask for HTML.

A short block: what went wrong, the author's own places with their lines, what led to it, what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rpyserve.failures import Failure, Fault, Frame, Line, Relation, file_shown

__all__ = ["as_text"]

PLACES: Final = 5
"""The author's places that are told of one exception, the innermost ones."""
_WORDS: Final = {Relation.CAUSE: "caused by ", Relation.CONTEXT: "while handling ", Relation.ITSELF: ""}


def as_text(failure: Failure) -> str:
    """Return *failure* as lines."""
    lines = [failure.title]
    if failure.script:
        lines.append(f"  {file_shown(failure.script)}")
    lines += [f"  {line}" for line in _chain(failure.chain, failure.title)]
    lines += [f"  {line}" for line in failure.hint.splitlines()]
    return "\n".join(map(_readable, lines))


def _readable(line: str) -> str:
    """*line* without what a terminal could take for more than a letter: some of it may be of a visitor's making."""
    return line if line.isprintable() else "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


def _chain(faults: Sequence[Fault], told: str = "") -> Iterator[str]:
    for fault in faults:
        if fault.title != told:
            yield _WORDS[fault.relation] + fault.title
        yield from (line for text in ([fault.text] if fault.text else []) for line in text.splitlines()[1:6])
        yield from (line for note in fault.notes for line in note.splitlines()[:6])
        for frame in fault.own_frames[-PLACES:]:
            yield from _frame(frame)
        for number, branch in enumerate(fault.branches, 1):
            first, *rest = _chain(branch)
            yield f"{number} of {len(fault.branches) + fault.left_out}: {first}"
            yield from (f"  {line}" for line in rest)
        if fault.left_out and not fault.branches:
            yield f"… {fault.left_out} more"


def _frame(frame: Frame) -> Iterator[str]:
    if frame.skipped:
        yield f"… {frame.skipped} more calls like these"
    yield f"{file_shown(frame.file)}:{frame.line}" + (f" in {frame.function}" if frame.function else "")
    line = frame.source
    if line is not None and line.text.strip():
        yield from (f"  {text}" for text in _with_carets(line))


def _with_carets(line: Line) -> Iterator[str]:
    text = line.text.lstrip().rstrip()
    yield text
    if line.marked is not None:
        gone = len(line.text) - len(line.text.lstrip())
        start, end = line.marked
        yield " " * (start - gone) + "^" * max(1, min(end, len(line.text.rstrip()) + 1) - start)
