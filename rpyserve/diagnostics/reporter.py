"""Writes error reports on the console: each error once, as a short block of text.

Two errors are the same if they are of the same kinds at the same places of the same source. An
error is written again after its page has been answered well (`ConsoleReporter.resolve`) and after a
file of the site has changed (`ConsoleReporter.reset`). Until then it is only counted, and the count
is written at most once a minute. Memory is bounded: what is too much is forgotten.

`as_text` also makes the page for clients that do not accept HTML.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from rpyserve.util.author_code import display_path
from rpyserve.util.exceptions import is_on_console, unwrap_group
from rpyserve.util.text import escape_unprintable

if TYPE_CHECKING:
    from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line

log = logging.getLogger("rpyserve")

# How many errors, failing pages and clients are remembered.
MAX_REMEMBERED: Final = 2000

# Seconds between two lines that say how often an error has occurred.
COUNT_INTERVAL: Final = 60.0

# How many of the author's frames are shown of one exception: the innermost ones.
MAX_FRAMES: Final = 5

# How many further lines of a message are shown.
MAX_LINES: Final = 5

# How many lines of a note are shown.
MAX_NOTE_LINES: Final = 6


# When errors are written


class FailureObserver(Protocol):
    """Is told of failures as they come and go."""

    def failed(self, what: str, page: str, report: ErrorReport) -> object:
        """*what* failed, which answers *page*, if it is one; once for each error."""
        ...

    def mended(self, page: str) -> object:
        """*page*, which had failed, has been answered well."""
        ...


_Key = tuple[object, ...]


@dataclass(slots=True)
class _Reported:
    """An error that has been written.

    Attributes:
        since: when it was last written or counted.
        repeats: how often it has occurred since then.
    """

    since: float
    repeats: int = 0


class ConsoleReporter:
    """Writes errors on the console and remembers which ones it has written.

    Args:
        now: a clock, in seconds.

    Attributes:
        failed_pages: the paths of pages that failed of late, each with the key of its failure.
        observer: is told of failures, and of pages that fail no more.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reported: dict[_Key, _Reported] = {}
        self.failed_pages: dict[str, _Key] = {}
        self.observer: FailureObserver | None = None
        self._clients: set[str] = set()

    def report(self, what: str, report: ErrorReport, *, page: str = "") -> bool:
        """Write *report* on the console, unless it is already there.

        Args:
            what: what failed, such as ``GET /hello``.
            page: the path of the page. The error is over when it is passed to `resolve`.

        Returns:
            Whether it was written.
        """
        if max(len(self._reported), len(self.failed_pages)) >= MAX_REMEMBERED:
            self.reset()
            self.failed_pages.clear()
        key = _key(report)
        known = self._reported.get(key)
        if self.observer is not None and (known is None or self.failed_pages.get(page, key) != key):
            self.observer.failed(what, page, report)
        if page:
            self.failed_pages[page] = key
        if known is None:
            self._reported[key] = _Reported(self._now())
            log.error("%s: %s", what, as_text(report))
            return True
        known.repeats += 1
        if self._now() - known.since >= COUNT_INTERVAL:
            log.error("%s: again, %d times: %s", what, known.repeats, report.title)
            self._reported[key] = _Reported(self._now())
        return False

    def report_exception(self, what: str, exc: BaseException) -> None:
        """Report that *what* raised *exc*; this makes it an `ErrorReporter`."""
        from rpyserve.diagnostics.describe import describe

        exc = unwrap_group(exc)
        if not is_on_console(exc):
            self.report(what, describe(exc))

    def once_for(self, client: str) -> bool:
        """Return True when first called for *client*, and False from then on."""
        if client in self._clients or len(self._clients) >= MAX_REMEMBERED:
            return False
        self._clients.add(client)
        return True

    def resolve(self, page: str) -> None:
        """Note that *page* has been answered well, so its error is over."""
        if page in self.failed_pages:
            self._reported.pop(self.failed_pages.pop(page), None)
            if self.observer is not None:
                self.observer.mended(page)

    def reset(self) -> None:
        """Forget all errors, because a file of the site has changed: they are written again."""
        self._reported.clear()


def _key(report: ErrorReport) -> _Key:
    place = report.place
    location = () if place is None else (place.file, place.line)
    kinds = [exc.title.partition(":")[0] for exc in report.chain] or [report.title]
    sources = [frame.source_hash for exc in report.chain for frame in exc.own_frames]
    return (*kinds, report.script, *location, *sources)


# What is written

# By the names of `Relation`, which many sites never need.
_PREFIX: Final = {"ITSELF": "", "CAUSE": "caused by ", "CONTEXT": "while handling "}
_INDENTED: Final = "  {}".format


def as_text(report: ErrorReport) -> str:
    """Return *report* as lines of plain text, in which nothing can control a terminal."""
    lines = [report.title]
    if report.script:
        lines.append(f"  {display_path(report.script)}")
    lines += map(_INDENTED, _chain_lines(report.chain, report.title))
    lines += map(_INDENTED, report.hint.splitlines())
    # A visitor may have written some of it.
    return "\n".join(escape_unprintable(line, keep="\t") for line in lines)


def _chain_lines(chain: Sequence[ExceptionReport], heading: str = "") -> Iterator[str]:
    for exc in chain:
        if exc.title != heading:
            yield _PREFIX[exc.relation.name] + exc.title
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
        yield from map(_INDENTED, rest)
    if group.left_out:
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
