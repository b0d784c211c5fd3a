"""A receipt for every edit: what was saved, and what came of it.

Owns the numbers of edits, the last receipts, and which edit something is put down to. An edit is
one batch of saves; whoever notices it calls `Edits.begin`, then `Edit.settle` when the pages have
answered. What comes of it is told by the scripts and sessions (`definitions.observers`) and by the
reporter of errors.

Something is put down to an edit by the content of the files that it concerns, not by the time at
which it is told: a request may have executed a saved file before the batch was noticed, and one of
before may fail after it. The contents are those that the files had when they were noticed: they
come with the batch, since what is read later may be of the next save.

An edit has *settled* when its files have been checked, in a thread, and each page that was told has
said that it shows them, or that they do not concern it, or has had its time. What is told later is
still added to the receipt.

Must not know how files are watched, nor who checks them. Values only: a receipt keeps texts and
numbers, never an object of a script.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from rpyserve.diagnostics.model import ErrorReport
from rpyserve.inspector.timeline import News, Timeline
from rpyserve.scripts import definitions, file_state
from rpyserve.scripts.source import decode_lines
from rpyserve.util.slow_calls import slow_call_log
from rpyserve.util.text import escape_unprintable, one_line

if TYPE_CHECKING:
    from rpyserve.sessions.session import Session, SessionEnd
    from rpyserve.site import Site

MAX_RECEIPTS: Final = 200
MAX_EXAMINED: Final = 200
"""How many files of one edit are read and checked."""
MAX_SIZE: Final = 1 << 20
"""How many bytes a file may have that is read."""
MAX_BASELINE: Final = 8 << 20
"""How many bytes of files are remembered as they were before their first edit."""
MAX_EVENTS: Final = 256
MAX_PAGES: Final = 2_000
MAX_JSON: Final = 1_600
"""How many characters the receipt of one file has."""
JSON_PER_FILE: Final = 300
DIGEST: Final = 16

_CODE: Final = ("script", "module")
_NO_CODE: Final = frozenset({"syntax-error", "unreadable"})
_SYNTAX: Final = frozenset({"SyntaxError", "IndentationError", "TabError"})

Versions = Mapping[str, int]
"""Files by their paths, each with a number that stands for its content."""


class SavedFile(Protocol):
    """A file of an edit, as `Edits.begin` is given it."""

    @property
    def path(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def saved(self) -> float: ...


class Found(Protocol):
    """A finding of the check."""

    @property
    def line(self) -> int: ...
    @property
    def rule(self) -> Any: ...
    @property
    def message(self) -> str: ...


class Pages(Protocol):
    """What the pages say that were told of an edit."""

    @property
    def tabs(self) -> Mapping[str, int | None]: ...
    @property
    def shown(self) -> int: ...
    @property
    def loading(self) -> int: ...
    @property
    def unchanged(self) -> int: ...


Check = Callable[[str, Mapping[str, bytes]], Mapping[str, Sequence[Found]]]
"""Gets a site's directory and contents of files by their relative paths; returns findings."""


# What is known of one edit


@dataclass(eq=False, slots=True)
class File:
    """A file of an edit.

    Attributes:
        file: as it was noticed.
        compiles: whether it is Python; None if it need not be, is gone, or was not read.
        digest: the first digits of the SHA-256 of what was in it; empty if it was not read.
        version: stands for the same; see `Versions`.
    """

    file: SavedFile
    compiles: bool | None = None
    digest: str = ""
    version: int = 0

    @property
    def is_code(self) -> bool:
        """Whether it is to be executed."""
        return self.file.kind in _CODE and self.file.event != "deleted"

    def is_in(self, versions: Versions) -> bool:
        """Whether *versions* has it, with this content."""
        if self.file.kind not in _CODE:
            return self.file.path in versions
        return self.version != 0 and versions.get(self.file.path) == self.version

    def as_json(self) -> dict[str, object]:
        """Return it for a receipt."""
        return {
            "name": self.file.name,
            "event": self.file.event,
            "why": self.file.why,
            "compiles": self.compiles,
            "sha256": self.digest or None,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of a page, or of something else.

    Args:
        at: when, in seconds since the epoch.
        page: its path; empty if it was none.
        what: what failed.
        title: the exception.
        file: the name of the innermost file of the author's; empty if there is none.
        line: the line in it.
        versions: the author's files that it passed.
        is_syntax: whether the code could not be compiled.
        is_whole: whether a script is at fault as a whole, such as one that is empty.
    """

    at: float
    page: str
    what: str
    title: str
    file: str
    line: int
    versions: Versions
    is_syntax: bool
    is_whole: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What is the same for the same failure, wherever its line has moved."""
        return self.page or self.what, self.title, self.file

    def as_json(self) -> dict[str, object]:
        """Return it for a receipt."""
        return {
            "page": self.page or None,
            "what": _cut(self.what, 80),
            "title": _cut(self.title, 160),
            "file": self.file or None,
            "line": self.line or None,
        }


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of an edit; see `definitions.observers`.

    Args:
        at: when, in seconds since the epoch.
        kind: ``executed``, ``carried``, ``added`` or ``lost``.
        path: the file that it concerns; empty if that is not known.
        about: what was executed, carried over, added or lost.
        count: how often.
        versions: the file, with its content.
        is_again: whether the file had been executed before.
    """

    at: float
    kind: str
    path: str
    about: str
    count: int
    versions: Versions
    is_again: bool = False


_Event = _Outcome | Failure


@dataclass(eq=False, slots=True)
class Edit:
    """One batch of saves, and what came of it so far.

    Attributes:
        number: from 1.
        at: the time of the last save, in seconds since the epoch.
        noticed: when the batch was noticed.
        files: the files.
        executed: the scripts and modules that were executed again, each with how often.
        carried: the classes whose objects are of the present class now, each with how many.
        added: attributes that objects got, as ``Class.attribute``; how often does not matter.
        lost: sentences that say what was lost.
        findings_new: findings of the check that its files had not before, each with its file.
        findings_gone: those that they do not have any more.
        failures: what failed, each with whether it had not failed so before.
        mended: pages that had failed and have been answered well.
        contents: what was in its files when they were noticed; empty once they are examined.
        pages: how many pages were told, show it, load themselves, are not concerned.
        seconds: from the save until it had settled; None before that.
    """

    number: int
    at: float
    noticed: float
    files: list[File]
    contents: Mapping[str, bytes] = field(default_factory=dict)
    executed: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    findings_new: list[tuple[str, Found]] = field(default_factory=list)
    findings_gone: list[tuple[str, Found]] = field(default_factory=list)
    failures: dict[tuple[str, str, str], tuple[Failure, bool]] = field(default_factory=dict)
    mended: dict[str, None] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    _on_settled: Callable[[Edit], object] = lambda edit: None

    @property
    def has_settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.seconds is not None

    @property
    def not_run(self) -> list[str]:
        """Its scripts and modules that nobody has executed since."""
        code = (each.file.name for each in self.files if each.is_code)
        return [name for name in code if name not in self.executed]

    @property
    def verdict(self) -> str:
        """``broken``, ``not run`` or ``ok``."""
        if self.present_failures() or any(each.compiles is False for each in self.files):
            return "broken"
        return "not run" if self.not_run else "ok"

    def holds(self, versions: Versions) -> bool:
        """Whether one of its files has the content that *versions* says.

        What a data file was when it was read is not known.
        """
        return any(each.is_in(versions) for each in self.files)

    def touches(self, versions: Versions) -> bool:
        """Whether it saved one of these files, whatever their content."""
        return any(each.file.path in versions for each in self.files)

    def has_kind(self, *kinds: str) -> bool:
        """Whether one of its files is of one of these kinds."""
        return any(each.file.kind in kinds for each in self.files)

    def present_failures(self) -> list[tuple[Failure, bool]]:
        """Return the failures, but for those of a content that was there only while it was saved.

        A script that is at fault as a whole cannot have been executed, and what compiles has no
        mistake of syntax. The report of such a failure has read the file again, so its content
        does not tell.
        """
        compiling = {each.file.name for each in self.files if each.compiles}
        return [
            (failure, is_new)
            for failure, is_new in self.failures.values()
            if not (failure.is_whole and failure.file in self.executed)
            if not (failure.is_syntax and failure.file in compiling)
        ]

    def put(self, outcome: _Outcome, *, times: int = 1) -> None:
        """Put *outcome* down to it, or take it away: *times* is -1."""
        counts: Counter[str] = getattr(self, outcome.kind)
        counts[outcome.about] += times * outcome.count
        if counts[outcome.about] <= 0:
            del counts[outcome.about]

    def settle(self, pages: Pages, now: float) -> None:
        """Say that its pages have answered, or have had time enough."""
        self.note_pages(pages)
        self.seconds = max(0.0, now - self.at)
        self._on_settled(self)

    def note_pages(self, pages: Pages) -> None:
        """Take note of what *pages* say by now."""
        told = sum(1 if tabs is None else tabs for tabs in pages.tabs.values())
        answered = pages.shown + pages.unchanged + pages.loading
        self.pages = {
            "told": max(told, answered),
            "shown": pages.shown,
            "loading": pages.loading,
            "unchanged": pages.unchanged,
            "silent": max(0, told - answered),
        }

    # What it says

    def short(self) -> list[str]:
        """Return what came of it in a few words each, for a line on the console."""
        broken = [each.file.name for each in self.files if each.compiles is False]
        parts = [f"{_named(broken)} does not compile"] if broken else []
        new = [(name, each) for name, each in self.findings_new if not _is_syntax(each)]
        if new:
            parts.append(f"{len(new)} new finding{'s' * (len(new) != 1)} of --check")
        if self.carried:
            count = self.carried.total()
            parts.append(f"{count} object{'s' * (count != 1)} carried over")
        if self.added:
            parts.append(f"{_named([*self.added])} added")
        if self.lost:
            parts.append(f"{len(self.lost)} loss{'es' * (len(self.lost) != 1)}")
        failed = [failure for failure, _ in self.present_failures() if not failure.is_syntax]
        if failed:
            names = dict.fromkeys(each.page or each.what for each in failed)
            parts.append(f"{_named([*names])} fail{'s' * (len(names) == 1)}: {failed[-1].title}")
        if self.mended:
            parts.append(f"{_named([*self.mended])} mended")
        return [_cut(part, 160) for part in parts]

    def as_json(self, boot: str = "") -> dict[str, object]:
        """Return the receipt; lists are cut so that it is not longer than it should be.

        Args:
            boot: tells this run of the server from others.
        """
        longest = MAX_JSON + JSON_PER_FILE * (min(len(self.files), 20) - 1)
        for most in (20, 10, 5, 3, 2, 1):
            told = self._as_json(boot, most, 160 if most > 2 else 80)
            if len(json.dumps(told)) <= longest:
                break
        return told

    def _as_json(self, boot: str, most: int, width: int) -> dict[str, object]:
        new = [failure for failure, is_new in self.present_failures() if is_new]
        still = [failure for failure, is_new in self.present_failures() if not is_new]
        cut = _Cut(most, width)
        told = {
            "number": self.number,
            "boot": boot,
            "at": round(self.at, 3),
            "settled": self.has_settled,
            "seconds": None if self.seconds is None else round(self.seconds, 4),
            "verdict": self.verdict,
            "files": cut(each.as_json() for each in self.files),
            "findings": {
                "new": cut(_finding(name, each) for name, each in self.findings_new),
                "gone": cut(_finding(name, each) for name, each in self.findings_gone),
            },
            "executed": cut(self.executed),
            "not_run": cut(self.not_run),
            "pages": self.pages,
            "carried": dict(self.carried.most_common(most)),
            "added": cut(self.added),
            "lost": cut(self.lost),
            "failures": {
                "new": cut(each.as_json() for each in new),
                "still": cut(each.as_json() for each in still),
            },
            "mended": cut(self.mended),
        }
        return told | {"left_out": cut.left_out} if cut.left_out else told


class _Cut:
    """Cuts lists and the texts in them."""

    def __init__(self, most: int, width: int) -> None:
        self._most, self._width = most, width
        self.left_out = 0

    def __call__(self, items: Iterable[object]) -> list[object]:
        items = list(items)
        self.left_out += max(0, len(items) - self._most)
        return [self._narrowed(item) for item in items[: self._most]]

    def _narrowed(self, item: object) -> object:
        if isinstance(item, dict):
            return {key: self._narrowed(value) for key, value in item.items()}
        return _cut(item, self._width) if isinstance(item, str) else item


def _cut(text: str, width: int) -> str:
    text = escape_unprintable(one_line(text))
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _named(names: Sequence[str]) -> str:
    more = len(names) - 2
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:2])} and {more} more"


def _is_syntax(finding: Found) -> bool:
    return finding.rule.value in _NO_CODE


def _finding(name: str, finding: Found) -> dict[str, object]:
    return {
        "file": name,
        "line": finding.line or None,
        "rule": finding.rule.value,
        "message": finding.message,
    }


# All edits of a site


class Forgotten(KeyError):
    """An edit that was, but is not kept any more."""


class Edits:
    """The edits of one site; the last ones are kept.

    Args:
        roots: the site's directories, as absolute paths.
        name_of: returns the path of a file as the site's author knows it.
        check: see `Check`.
        timeline: gets a line for what happens.
        now: a clock, in seconds since the epoch.

    Attributes:
        number: that of the newest edit; 0 before the first.
        news: tells that an edit has settled, or has begun.
    """

    def __init__(
        self,
        roots: Sequence[str],
        name_of: Callable[[str], str],
        check: Check,
        timeline: Timeline | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.number = 0
        self.news = News()
        self.timeline = timeline or Timeline(now)
        self._roots = tuple(roots)
        self._name_of = name_of
        self._check = check
        self._now = now
        self._edits: deque[Edit] = deque(maxlen=MAX_RECEIPTS)
        self._sources: dict[str, bytes] = {}  # of files before their first edit
        self._findings: dict[str, Sequence[Found]] = {}
        self._limiter = trio.CapacityLimiter(1)
        self._recent: deque[tuple[_Event, Edit | None]] = deque(maxlen=MAX_EVENTS)
        self._executed: dict[str, Versions] = {}  # by the path, what was executed last
        self._failing: dict[str, tuple[Failure, int]] = {}  # by the page, with the edit's number
        self._token: trio.lowlevel.TrioToken | None = None

    # What is there

    def get(self, number: int) -> Edit:
        """Return the edit of that number.

        Raises:
            Forgotten: it is too long ago.
            KeyError: there was none yet.
        """
        if not 0 < number <= self.number:
            raise KeyError(number)
        if number <= self.number - len(self._edits):
            raise Forgotten(number)
        return self._edits[number - self.number - 1]

    def after(self, number: int) -> list[Edit]:
        """Return the edits after that of *number* that are kept, the oldest first."""
        return [each for each in self._edits if each.number > number]

    async def wait_settled(self, number: int, seconds: float) -> None:
        """Wait until the edit of that number, which may be to come, and all before have settled."""

        def have_settled() -> bool:
            edits = (each for each in self._edits if each.number <= number)
            return self.number >= number and all(each.has_settled for each in edits)

        await self.news.wait(have_settled, seconds)

    def have_settled(self) -> bool:
        """Whether all edits so far have settled."""
        return all(each.has_settled for each in self._edits)

    # An edit

    def begin(
        self,
        files: Sequence[SavedFile],
        noticed: float,
        at: float,
        contents: Mapping[str, bytes],
    ) -> Edit:
        """Number a batch of saves.

        Args:
            files: what was saved, at least one.
            noticed: when that was noticed.
            at: when it was saved.
            contents: what was in the files then, by their paths; not of those that are gone, or
                too large.
        """
        self.number += 1
        of_files = [
            File(each, version=_version(contents.get(each.path)) if each.kind in _CODE else 0)
            for each in files
        ]
        edit = Edit(self.number, at, noticed, of_files, contents, _on_settled=self._note_settled)
        self._edits.append(edit)
        self._move_early(edit)
        self.news.tell()
        return edit

    def _note_settled(self, edit: Edit) -> None:
        names = [each.file.name for each in edit.files]
        parts = [f"edit {edit.number}: {_named(names)}: {edit.verdict}", *edit.short()]
        self.timeline.add(
            "saved",
            _cut(", ".join(parts), 300),
            edit=edit.number,
            verdict=edit.verdict,
            files=names[:20],
        )
        self.news.tell()

    async def examine(self, edit: Edit) -> None:
        """Check the files of *edit*, in a thread."""
        files = edit.files[:MAX_EXAMINED]
        try:
            found = await trio.to_thread.run_sync(
                self._examine, files, edit.contents, limiter=self._limiter, abandon_on_cancel=True
            )
        except Exception as exc:  # an edit is judged without it
            edit.lost[f"its files could not be checked: {type(exc).__name__}: {exc}"] = 1
            found = []
        for file, digest, before, now in found:
            file.digest = digest
            self._note_findings(edit, file, before, now)
        edit.contents = {}

    def _note_findings(
        self, edit: Edit, file: File, before: Sequence[Found], now: Sequence[Found]
    ) -> None:
        name = file.file.name
        if file.is_code and (file.digest or now):
            file.compiles = not any(map(_is_syntax, now))
        edit.findings_new += [(name, each) for each in _difference(now, before)]
        edit.findings_gone += [(name, each) for each in _difference(before, now)]

    # Checking files, in a thread

    def read_baseline(self) -> None:
        """Remember the files as they are before their first edit, in a thread."""
        room = MAX_BASELINE
        for path in _python_files(self._roots):
            data = _contents(path)
            if data is None or path in self._findings:
                continue
            room -= len(data)
            if room < 0:
                return
            self._sources.setdefault(path, data)

    def _examine(self, files: Sequence[File], contents: Mapping[str, bytes]) -> list[_Examined]:
        found: list[_Examined] = []
        for file in files:
            path = file.file.path
            data = contents.get(path)
            digest = "" if data is None else hashlib.sha256(data).hexdigest()[:DIGEST]
            if file.file.kind not in _CODE:
                found.append((file, digest, (), ()))
                continue
            before = self._findings.get(path)
            if before is None:
                before = self._check_one(file.file, self._sources.pop(path, None))
            now = self._findings[path] = self._check_one(file.file, data)
            found.append((file, digest, before, now))
        return found

    def _check_one(self, file: SavedFile, data: bytes | None) -> Sequence[Found]:
        if data is None:
            return ()
        name = os.path.relpath(file.path, file.root)
        return self._check(file.root, {name: data}).get(name, ())

    # What comes of edits

    def told(self, kind: str, path: str, about: Any, count: int) -> None:
        """Take what scripts and sessions tell, in any thread; see `definitions.observers`."""
        if path and not path.startswith(self._roots):
            return  # of another site in this process
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            if self._token is not None:
                self._token.run_sync_soon(self._told, kind, path, about, count)
        else:
            self._told(kind, path, about, count)

    def _told(self, kind: str, path: str, about: Any, count: int) -> None:
        is_again = path in self._executed
        if kind == "executed":
            if len(self._executed) >= MAX_PAGES:
                self._executed.clear()
            self._executed[path] = {path: _version(about)}
            about = self._name_of(path)
            text = f"{about} executed{' again' * is_again}"
            self.timeline.add("executed", _cut(text, 200), file=about)
        versions = self._executed.get(path, {path: 0} if path else {})
        about = _cut(about, 300)
        self._take(_Outcome(self._now(), kind, path, about, count, versions, is_again))

    def failed(self, what: str, page: str, report: ErrorReport) -> None:
        """Take a failure; see `FailureObserver`."""
        frames = [frame for each in report.chain for frame in each.frames if frame.own]
        versions = {frame.file: frame.source_hash for frame in frames}
        if report.script:
            versions.setdefault(report.script, _version(_contents(report.script)))
        place = report.place
        path = report.script if place is None else place.file
        name = self._name_of(path) if path.startswith(self._roots) else path
        kinds = {each.kind or each.title.partition(":")[0] for each in report.chain}
        line = place.line if place is not None else 0
        failure = Failure(
            self._now(),
            page,
            what,
            report.title,
            name,
            line,
            versions,
            bool(kinds & _SYNTAX),
            is_whole=not frames and bool(report.script),
        )
        self._take(failure)

    def mended(self, page: str) -> None:
        """Take that *page*, which had failed, has been answered well; see `FailureObserver`."""
        failure, number = self._failing.get(page, (None, 0))
        edit = None if failure is None else self._mender(failure, number)
        if edit is not None:  # else a request of before the failure may have been answered only now
            del self._failing[page]
            if all(each.page != page for each, _ in edit.failures.values()):
                edit.mended[page] = None
            text = _cut(f"{page} is answered well", 200)
            self.timeline.add("mended", text, page=page, edit=edit.number)

    def _mender(self, failure: Failure, number: int) -> Edit | None:
        """The newest edit after that of *number* that can have mended *failure*."""
        for edit in reversed(self._edits):
            if edit.number <= number:
                break
            if edit.touches(failure.versions) or edit.has_kind("module", "file", "data"):
                return edit
        return None

    def _take(self, event: _Event) -> None:
        """Put *event* down to an edit."""
        edit = self._owner(event)
        self._recent.append((event, edit))
        if isinstance(event, Failure):
            self._note_failure(event, edit)
        elif edit is not None:
            edit.put(event)

    def _note_failure(self, failure: Failure, edit: Edit | None) -> None:
        number = 0 if edit is None else edit.number
        key = failure.page or failure.what
        known, known_in = self._failing.get(key, (None, 0))
        is_new = known is None or known.key != failure.key or known_in == number
        if edit is not None:
            is_new = edit.failures.get(failure.key, (failure, is_new))[1]
            edit.failures[failure.key] = failure, is_new
            edit.mended.pop(failure.page, None)
        if len(self._failing) < MAX_PAGES:
            self._failing[key] = failure, number
        text = _cut(f"{failure.what}: {failure.title}", 200)
        self.timeline.add("failed", text, page=failure.page, edit=number or None)

    def _owner(self, event: _Event) -> Edit | None:
        """The edit that *event* is put down to."""
        edits = [*reversed(self._edits)]
        if isinstance(event, _Outcome) and event.kind == "executed":
            for edit in edits:  # the first execution of a version is of the edit that made it
                if edit.holds(event.versions) and event.about not in edit.executed:
                    return edit
        if not event.versions:
            return edits[0] if edits else None
        return next((each for each in edits if self._concerns(each, event)), None)

    def _concerns(self, edit: Edit, event: _Event) -> bool:
        if edit.holds(event.versions):
            return True
        if event.at < edit.noticed or edit.touches(event.versions):
            return False  # it is of another version of the file
        if isinstance(event, Failure):
            return not event.is_syntax and (edit.has_kind("module") or bool(edit.carried))
        return edit.has_kind("module") or (event.is_again and edit.has_kind("file", "data"))

    def _move_early(self, edit: Edit) -> None:
        """Move to *edit* what came of its files before it was noticed."""
        for index, (event, owner) in enumerate(self._recent):
            if owner is edit or not edit.holds(event.versions):
                continue
            if owner is not None and owner.holds(event.versions) and event.at < edit.at:
                continue
            self._recent[index] = event, edit
            if isinstance(event, Failure):
                self._move_failure(event, owner, edit)
                continue
            if owner is not None:
                owner.put(event, times=-1)
            edit.put(event)

    def _move_failure(self, failure: Failure, owner: Edit | None, edit: Edit) -> None:
        known = None if owner is None else owner.failures.pop(failure.key, None)
        edit.failures[failure.key] = failure, True if known is None else known[1]
        self._failing[failure.page or failure.what] = failure, edit.number

    # Observing

    def observe(self, site: Site) -> None:
        """Have scripts, sessions and the reporter of errors tell what happens, until `close`."""
        self._token = trio.lowlevel.current_trio_token()
        definitions.observers.append(self.told)
        slow_call_log.observers.append(self._loop_held)
        site.errors.observer = self
        site.sessions.observer = self._session
        site.on_close(self.close)

    def _session(self, session: Session, ended: SessionEnd | None) -> None:
        name, add = session.short_id, self.timeline.add_one
        if ended is None:
            add("session made", f"session {name} made", "{} sessions made")
        else:
            add("session ended", f"session {name} ended: {ended.value}", "{} sessions ended")

    def _loop_held(self, name: str, seconds: float) -> None:
        text = _cut(f"{name} held the loop for {seconds:.2f} s", 200)
        self.timeline.add("loop held", text, seconds=round(seconds, 3))

    def close(self) -> None:
        """Be told nothing more, and let all who wait go."""
        if self.told in definitions.observers:
            definitions.observers.remove(self.told)
            slow_call_log.observers.remove(self._loop_held)
        self.news.close()
        self.timeline.news.close()


_Examined = tuple[File, str, Sequence[Found], Sequence[Found]]


def _version(data: bytes | None) -> int:
    """Stands for the content, as the source hash of a frame does; 0 for none."""
    if data is None:
        return 0
    try:
        return hash(tuple(decode_lines(data)))
    except (ValueError, SyntaxError):
        return 0


def _contents(path: str) -> bytes | None:
    """The contents of a file; None if it is gone, too large, or no regular one."""
    try:
        if os.path.getsize(path) > MAX_SIZE:
            return None
        return file_state.read(path)[0]
    except (OSError, ValueError):
        return None


def _python_files(roots: Iterable[str]) -> Iterator[str]:
    for root in roots:
        for directory, names, files in os.walk(root):
            names[:] = [
                name
                for name in names
                if not name.startswith(".")
                and not file_state.is_ignored_directory(os.path.join(directory, name))
            ]
            for name in files:
                if name.endswith((".py", ".rpy")):
                    yield os.path.join(directory, name)


def _difference(these: Sequence[Found], those: Sequence[Found]) -> Iterator[Found]:
    """Those of *these* that are not among *those*, whatever their lines."""
    left = Counter((each.rule, each.message) for each in those)
    for each in these:
        if left[each.rule, each.message]:
            left[each.rule, each.message] -= 1
        else:
            yield each
