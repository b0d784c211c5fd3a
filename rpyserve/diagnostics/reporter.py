"""Failures on the console: each told once as a short block, however many requests it costs.

The same failure is one of the same kinds of exception at the same place of the same source. It is told again when a
file of the site has changed (whoever watches them calls `forget`), or when its page was good in between; until then it
is only counted, and the count comes once a minute at most. Memory is bounded: of many, the oldest is forgotten.

A failure as plain text: for the console, and for clients that do not ask for HTML.

A short block: what went wrong, the author's own places with their lines, what led to it, what to do.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation
from rpyserve.util.author_code import display_path
from rpyserve.util.exceptions import unwrap_group

if TYPE_CHECKING:
    from rpyserve.diagnostics.model import ErrorReport

__all__ = ["ConsoleReporter", "as_text"]


MOST: Final = 200
AGAIN: Final = 60.0
"""Seconds."""

log = logging.getLogger("rpyserve")


@dataclass(slots=True)
class _Told:
    what: str
    title: str
    since: float
    again: int = 0


class ConsoleReporter:
    """What has been told of late.

    Args:
        now: a clock, in seconds.

    Attributes:
        failed_pages: the paths of pages that failed of late, each with what its failure is known by.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: OrderedDict[tuple[object, ...], _Told] = OrderedDict()
        self.failed_pages: dict[str, tuple[object, ...]] = {}
        self._clients: OrderedDict[str, None] = OrderedDict()

    def report(self, what: str, failure: ErrorReport, *, page: str = "") -> bool:
        """Tell *failure* on the console, unless it has been told.

        Args:
            what: what failed, such as ``GET /hello``.
            page: the path of the page; when that is `good`, the failure is over.

        Returns:
            Whether it was told.
        """

        key = _key(failure)
        if page:
            self.failed_pages[page] = key
        told = self._told.get(key)
        if told is not None:
            self._told.move_to_end(key)
            told.again += 1
            if self._now() - told.since >= AGAIN:
                self._count(told)
            return False
        self._told[key] = _Told(what, failure.title, self._now())
        self._bound()
        log.error("%s: %s", what, as_text(failure))
        return True

    def report_exception(self, what: str, exc: BaseException) -> None:
        """Tell that *what* raised *exc*; this is the `ErrorReporter` of a site."""
        from rpyserve.diagnostics.describe import describe

        self.report(what, describe(unwrap_group(exc)))

    def once_for(self, client: str) -> bool:
        """Whether *client* has not been told of yet. From now on it has."""
        if client in self._clients:
            return False
        self._clients[client] = None
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)
        return True

    def resolve(self, page: str) -> None:
        """Note that *page* has been answered well."""
        told = self._told.pop(self.failed_pages.pop(page, ()), None)
        if told is not None:
            self._count(told)

    def reset(self) -> None:
        """A file of the site has changed: what fails from now on is told."""
        for told in self._told.values():
            self._count(told)
        self._told.clear()
        self.failed_pages.clear()

    def _bound(self) -> None:
        if len(self._told) > MOST:
            self._count(self._told.popitem(last=False)[1])
        if len(self.failed_pages) > 10 * MOST:
            self.failed_pages.clear()

    def _count(self, told: _Told) -> None:
        if told.again > 1:
            log.error("%s: again, %d times: %s", told.what, told.again, told.title)
        told.again = 0
        told.since = self._now()


def _key(failure: ErrorReport) -> tuple[object, ...]:
    place = failure.place
    where = () if place is None else (place.file, place.line)
    return (
        *failure.kind,
        failure.script,
        *where,
        *(f.edition for fault in failure.chain for f in fault.own_frames),
    )


PLACES: Final = 5
"""The author's places that are told of one exception, the innermost ones."""
_WORDS: Final = {
    Relation.CAUSE: "caused by ",
    Relation.CONTEXT: "while handling ",
    Relation.ITSELF: "",
}


def as_text(failure: ErrorReport) -> str:
    """Return *failure* as lines."""
    lines = [failure.title]
    if failure.script:
        lines.append(f"  {display_path(failure.script)}")
    lines += [f"  {line}" for line in _chain(failure.chain, failure.title)]
    lines += [f"  {line}" for line in failure.hint.splitlines()]
    return "\n".join(map(_readable, lines))


def _readable(line: str) -> str:
    """*line* without what a terminal could take for more than a letter: some of it may be of a visitor's making."""
    return (
        line
        if line.isprintable()
        else "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
    )


def _chain(faults: Sequence[ExceptionReport], told: str = "") -> Iterator[str]:
    for fault in faults:
        if fault.title != told:
            yield _WORDS[fault.relation] + fault.title
        yield from (
            line for text in ([fault.text] if fault.text else []) for line in text.splitlines()[1:6]
        )
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
    yield f"{display_path(frame.file)}:{frame.line}" + (
        f" in {frame.function}" if frame.function else ""
    )
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
