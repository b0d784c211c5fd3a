"""Writes error reports on the console: each error once, as a short block of text.

Two errors are the same if they have the same fingerprint at the same places of the same source. An
error is written again after its page has been answered well (`ConsoleReporter.resolve`) and after a
file of the site has changed (`ConsoleReporter.reset`). Until then it is only counted, and the count
is written at most once a minute. Memory is bounded: the least recent error is forgotten first.

`as_text` also makes the page for clients that do not accept HTML.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation
from rpyserve.util.author_code import display_path
from rpyserve.util.exceptions import unwrap_group

__all__ = ["ConsoleReporter", "as_text"]

log = logging.getLogger("rpyserve")

MAX_ERRORS: Final = 200
"""How many errors, and how many clients, are remembered."""

MAX_PAGES: Final = 2000
"""How many failing pages are remembered."""

COUNT_INTERVAL: Final = 60.0
"""Seconds between two lines that say how often an error has occurred."""

MAX_FRAMES: Final = 5
"""How many of the author's frames are shown of one exception: the innermost ones."""

MAX_LINES: Final = 5
"""How many further lines of a message are shown."""

MAX_NOTE_LINES: Final = 6
"""How many lines of a note are shown."""


# When errors are written

_Key = tuple[object, ...]


@dataclass(slots=True)
class _Reported:
    """An error that has been written.

    Attributes:
        what: what failed, such as ``GET /hello``.
        title: the first line of what was written.
        since: when it was last written or counted.
        repeats: how often it has occurred since then.
    """

    what: str
    title: str
    since: float
    repeats: int = 0


class ConsoleReporter:
    """Writes errors on the console and remembers which ones it has written.

    Args:
        now: a clock, in seconds.

    Attributes:
        failed_pages: the paths of pages that failed of late, each with the key of its failure.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reported: OrderedDict[_Key, _Reported] = OrderedDict()
        self.failed_pages: dict[str, _Key] = {}
        self._clients: OrderedDict[str, None] = OrderedDict()

    def report(self, what: str, report: ErrorReport, *, page: str = "") -> bool:
        """Write *report* on the console, unless it is already there.

        Args:
            what: what failed, such as ``GET /hello``.
            page: the path of the page. The error is over when it is passed to `resolve`.

        Returns:
            Whether it was written.
        """
        key = _key(report)
        if page:
            self.failed_pages[page] = key
        known = self._reported.get(key)
        if known is not None:
            self._reported.move_to_end(key)
            known.repeats += 1
            if self._now() - known.since >= COUNT_INTERVAL:
                self._write_count(known)
            return False
        self._reported[key] = _Reported(what, report.title, self._now())
        self._forget_oldest()
        log.error("%s: %s", what, as_text(report))
        return True

    def report_exception(self, what: str, exc: BaseException) -> None:
        """Report that *what* raised *exc*; this makes it an `ErrorReporter`."""
        from rpyserve.diagnostics.describe import describe

        self.report(what, describe(unwrap_group(exc)))

    def once_for(self, client: str) -> bool:
        """Return True when first called for *client*, and False from then on."""
        if client in self._clients:
            return False
        self._clients[client] = None
        if len(self._clients) > MAX_ERRORS:
            self._clients.popitem(last=False)
        return True

    def resolve(self, page: str) -> None:
        """Note that *page* has been answered well, so its error is over."""
        known = self._reported.pop(self.failed_pages.pop(page, ()), None)
        if known is not None:
            self._write_count(known)

    def reset(self) -> None:
        """Forget all errors, because a file of the site has changed: they are written again."""
        for known in self._reported.values():
            self._write_count(known)
        self._reported.clear()
        self.failed_pages.clear()

    def _forget_oldest(self) -> None:
        if len(self._reported) > MAX_ERRORS:
            _, oldest = self._reported.popitem(last=False)
            self._write_count(oldest)
        if len(self.failed_pages) > MAX_PAGES:
            self.failed_pages.clear()

    def _write_count(self, known: _Reported) -> None:
        if known.repeats > 1:
            log.error("%s: again, %d times: %s", known.what, known.repeats, known.title)
        known.repeats = 0
        known.since = self._now()


def _key(report: ErrorReport) -> _Key:
    place = report.place
    location = () if place is None else (place.file, place.line)
    sources = [frame.source_hash for exc in report.chain for frame in exc.own_frames]
    return (*report.fingerprint, report.script, *location, *sources)


# What is written

_PREFIX: Final = {
    Relation.ITSELF: "",
    Relation.CAUSE: "caused by ",
    Relation.CONTEXT: "while handling ",
}


def as_text(report: ErrorReport) -> str:
    """Return *report* as lines of plain text, in which nothing can control a terminal."""
    lines = [report.title]
    if report.script:
        lines.append(f"  {display_path(report.script)}")
    lines += [f"  {line}" for line in _chain_lines(report.chain, report.title)]
    lines += [f"  {line}" for line in report.hint.splitlines()]
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """*line* with all but letters and tabs escaped: a visitor may have written some of it."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


def _chain_lines(chain: Sequence[ExceptionReport], heading: str = "") -> Iterator[str]:
    for exc in chain:
        if exc.title != heading:
            yield _PREFIX[exc.relation] + exc.title
        yield from exc.text.splitlines()[1 : MAX_LINES + 1]
        for note in exc.notes:
            yield from note.splitlines()[:MAX_NOTE_LINES]
        for frame in exc.own_frames[-MAX_FRAMES:]:
            yield from _frame_lines(frame)
        yield from _branch_lines(exc)


def _branch_lines(group: ExceptionReport) -> Iterator[str]:
    count = len(group.branches) + group.left_out
    for number, branch in enumerate(group.branches, 1):
        first, *rest = _chain_lines(branch)
        yield f"{number} of {count}: {first}"
        yield from (f"  {line}" for line in rest)
    if group.left_out and not group.branches:
        yield f"… {group.left_out} more"


def _frame_lines(frame: Frame) -> Iterator[str]:
    if frame.skipped:
        yield f"… {frame.skipped} more calls like these"
    place = f"{display_path(frame.file)}:{frame.line}"
    yield f"{place} in {frame.function}" if frame.function else place
    line = frame.failing_line
    if line is not None and line.text.strip():
        yield f"  {line.text.strip()}"
        if line.marked is not None:
            yield f"  {_carets(line, line.marked)}"


def _carets(line: Line, marked: tuple[int, int]) -> str:
    indent = len(line.text) - len(line.text.lstrip())
    start = marked[0]
    end = min(marked[1], len(line.text.rstrip()) + 1)
    return " " * (start - indent) + "^" * max(1, end - start)
