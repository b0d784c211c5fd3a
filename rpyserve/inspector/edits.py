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

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from rpyserve.diagnostics.model import ErrorReport
from rpyserve.inspector.edit import (
    CODE,
    Edit,
    Failure,
    File,
    Outcome,
    SavedFile,
    Versions,
    cut,
    named,
)
from rpyserve.inspector.edit_check import Check, EditCheck, contents_of, version_of
from rpyserve.inspector.timeline import News, Timeline
from rpyserve.scripts import definitions
from rpyserve.util.slow_calls import slow_call_log

if TYPE_CHECKING:
    from rpyserve.sessions.session import Session, SessionEnd
    from rpyserve.site import Site

MAX_RECEIPTS: Final = 200
MAX_EVENTS: Final = 256
MAX_PAGES: Final = 2_000
_SYNTAX: Final = frozenset({"SyntaxError", "IndentationError", "TabError"})

_T = TypeVar("_T")

_Event = Outcome | Failure


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
        self._roots = tuple(os.path.join(root, "") for root in roots)
        self._name_of = name_of
        self._check = EditCheck(roots, check)
        self._now = now
        self._edits: deque[Edit] = deque(maxlen=MAX_RECEIPTS)
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
        saved: float,
        contents: Mapping[str, bytes],
    ) -> Edit:
        """Number a batch of saves.

        Args:
            files: what was saved, at least one.
            noticed: when that was noticed.
            saved: when it was saved, the last of them.
            contents: what was in the files then, by their paths; not of those that are gone, or
                too large.
        """
        self.number += 1
        of_files = [
            File(each, version=version_of(contents.get(each.path)) if each.kind in CODE else 0)
            for each in files
        ]
        edit = Edit(self.number, saved, noticed, of_files, contents, _on_settled=self._note_settled)
        self._edits.append(edit)
        self._move_early(edit)
        self.news.tell()
        return edit

    def _note_settled(self, edit: Edit) -> None:
        names = [each.file.name for each in edit.files]
        parts = [f"edit {edit.number}: {named(names)}: {edit.verdict}", *edit.short()]
        self.timeline.add(
            "saved",
            cut(", ".join(parts), 300),
            edit=edit.number,
            verdict=edit.verdict,
            files=names[:20],
        )
        self.news.tell()

    async def examine(self, edit: Edit) -> None:
        """Check the files of *edit*, in a thread."""
        files, edit.contents, contents = [each.file for each in edit.files], {}, edit.contents
        try:
            checked = await self._in_thread(partial(self._check.check, files, contents))
        except Exception as exc:  # an edit is judged without it
            edit.lost[f"its files could not be checked: {type(exc).__name__}: {exc}"] = 1
        else:
            edit.note_checked(checked)

    async def read_baseline(self) -> None:
        """Read the files as they are before their first edit, in a thread."""
        await self._in_thread(self._check.read_baseline)

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(
            function, limiter=self._limiter, abandon_on_cancel=True
        )

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
            self._executed[path] = {path: version_of(about)}
            about = self._name_of(path)
            text = f"{about} executed{' again' * is_again}"
            self.timeline.add("executed", cut(text, 200), file=about)
        versions = self._executed.get(path, {path: 0} if path else {})
        about = cut(about, 300)
        self._take(Outcome(self._now(), kind, path, about, count, versions, is_again))

    def failed(self, what: str, page: str, report: ErrorReport) -> None:
        """Take a failure; see `FailureObserver`."""
        self._take(self._failure_of(what, page, report))

    def _failure_of(self, what: str, page: str, report: ErrorReport) -> Failure:
        frames = [frame for each in report.chain for frame in each.frames if frame.own]
        versions = {frame.file: frame.source_hash for frame in frames}
        if report.script:
            versions.setdefault(report.script, version_of(contents_of(report.script)))
        place = report.place
        path = report.script if place is None else place.file
        name = self._name_of(path) if path.startswith(self._roots) else path
        kinds = {each.kind or each.title.partition(":")[0] for each in report.chain}
        return Failure(
            self._now(),
            page,
            what,
            report.title,
            name,
            0 if place is None else place.line,
            versions,
            is_syntax=bool(kinds & _SYNTAX),
            is_whole=not frames and bool(report.script),
        )

    def mended(self, page: str) -> None:
        """Take that *page*, which had failed, has been answered well; see `FailureObserver`."""
        failure, number = self._failing.get(page, (None, 0))
        edit = None if failure is None else self._mender(failure, number)
        if edit is not None:  # else a request of before the failure may have been answered only now
            del self._failing[page]
            if all(each.page != page for each, _ in edit.failures.values()):
                edit.mended[page] = None
            text = cut(f"{page} is answered well", 200)
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
        text = cut(f"{failure.what}: {failure.title}", 200)
        self.timeline.add("failed", text, page=failure.page, edit=number or None)

    def _owner(self, event: _Event) -> Edit | None:
        """The edit that *event* is put down to."""
        edits = [*reversed(self._edits)]
        if isinstance(event, Outcome) and event.kind == "executed":
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
            if owner is not None and owner.holds(event.versions) and event.at < edit.saved:
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
        site.sessions.observers.append(self._session)
        site.on_close(self.close)

    def _session(self, session: Session, ended: SessionEnd | None) -> None:
        name, add = session.short_id, self.timeline.add_one
        if ended is None:
            add("session made", f"session {name} made", "{} sessions made")
        else:
            add("session ended", f"session {name} ended: {ended.value}", "{} sessions ended")

    def note_action(self, path: str, done: str) -> None:
        """Take that somebody has done something here: the action at *path*; *done* says what."""
        kind = "time passed" if path.endswith("/pass") else "action"
        self.timeline.add(kind, cut(done, 200), path=cut(path, 80))

    def _loop_held(self, name: str, seconds: float) -> None:
        text = cut(f"{name} held the loop for {seconds:.2f} s", 200)
        self.timeline.add("loop held", text, seconds=round(seconds, 3))

    def close(self) -> None:
        """Be told nothing more, and let all who wait go."""
        if self.told in definitions.observers:
            definitions.observers.remove(self.told)
            slow_call_log.observers.remove(self._loop_held)
        self.news.close()
        self.timeline.news.close()
