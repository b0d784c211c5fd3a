"""One edit: what was saved, what came of it so far, and how both are told.

The receipt is what programs are told, as JSON that is never longer than it should be; `Edit.short`
is the same in a few words, for the console. Who puts what down to which edit is no matter of this
module.

Values only: an edit keeps texts and numbers, never an object of a script.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rpyserve.util.text import escape_unprintable, one_line

MAX_JSON: Final = 1_540
"""How many characters the receipt of one file has: 1,600 with the time and the run before it."""
JSON_PER_FILE: Final = 300

CODE: Final = ("script", "module")
_NO_CODE: Final = frozenset({"syntax-error", "unreadable"})

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
        """Whether it is there, to be executed."""
        return self.file.kind in CODE and self.file.event != "deleted"

    def is_in(self, versions: Versions) -> bool:
        """Whether *versions* has it, with this content."""
        if self.file.kind not in CODE:
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
class Checked:
    """What the check says of a file.

    Args:
        digest: see `File`.
        compiles: see `File`.
        new: findings that it had not before.
        gone: those that it does not have any more.
    """

    digest: str
    compiles: bool | None = None
    new: Sequence[Found] = ()
    gone: Sequence[Found] = ()


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
            "what": cut(self.what, 80),
            "title": cut(self.title, 160),
            "file": self.file or None,
            "line": self.line or None,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
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


@dataclass(eq=False, slots=True)
class Edit:
    """One batch of saves, and what came of it so far.

    Attributes:
        number: from 1.
        saved: the time of the last save, in seconds since the epoch.
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
    saved: float
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

    def put(self, outcome: Outcome, *, times: int = 1) -> None:
        """Put *outcome* down to it, or take it away: *times* is -1."""
        counts: Counter[str] = getattr(self, outcome.kind)
        counts[outcome.about] += times * outcome.count
        if counts[outcome.about] <= 0:
            del counts[outcome.about]

    def settle(self, pages: Pages, now: float) -> None:
        """Say that its pages have answered, or have had time enough."""
        self.note_pages(pages)
        self.seconds = max(0.0, now - self.saved)
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

    def note_checked(self, checked: Iterable[Checked]) -> None:
        """Take note of what the check says of each of its files, as many as it has checked."""
        for file, each in zip(self.files, checked, strict=False):
            file.digest, file.compiles = each.digest, each.compiles
            self.findings_new += [(file.file.name, finding) for finding in each.new]
            self.findings_gone += [(file.file.name, finding) for finding in each.gone]

    # What it says

    def short(self) -> list[str]:
        """Return what came of it in a few words each, for a line on the console."""
        broken = [each.file.name for each in self.files if each.compiles is False]
        parts = [f"{named(broken)} does not compile"] if broken else []
        new = [(name, each) for name, each in self.findings_new if not is_syntax(each)]
        if new:
            parts.append(f"{len(new)} new finding{'s' * (len(new) != 1)} of --check")
        if self.carried:
            count = self.carried.total()
            parts.append(f"{count} object{'s' * (count != 1)} carried over")
        if self.added:
            parts.append(f"{named([*self.added])} added")
        if self.lost:
            parts.append(f"{len(self.lost)} loss{'es' * (len(self.lost) != 1)}")
        failed = [failure for failure, _ in self.present_failures() if not failure.is_syntax]
        if failed:
            names = dict.fromkeys(each.page or each.what for each in failed)
            parts.append(f"{named([*names])} fail{'s' * (len(names) == 1)}: {failed[-1].title}")
        if self.mended:
            parts.append(f"{named([*self.mended])} mended")
        return [cut(part, 160) for part in parts]

    def as_json(self) -> dict[str, Any]:
        """Return the receipt; lists are cut so that it is not longer than it should be."""
        longest = MAX_JSON + JSON_PER_FILE * (min(len(self.files), 20) - 1)
        for most in (20, 10, 5, 3, 2, 1):
            told = self._as_json(most, 160 if most > 2 else 80)
            if len(json.dumps(told)) <= longest:
                break
        return told

    def _as_json(self, most: int, width: int) -> dict[str, Any]:
        new = [failure for failure, is_new in self.present_failures() if is_new]
        still = [failure for failure, is_new in self.present_failures() if not is_new]
        cut = _Cut(most, width)
        told = {
            "number": self.number,
            "saved": round(self.saved, 3),
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
        return cut(item, self._width) if isinstance(item, str) else item


def cut(text: str, width: int) -> str:
    """Return *text* as one line of so many characters at most."""
    text = escape_unprintable(one_line(text))
    return text if len(text) <= width else f"{text[: width - 1]}…"


def named(names: Sequence[str]) -> str:
    """Return the first of *names*, and how many more there are."""
    more = len(names) - 2
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:2])} and {more} more"


def is_syntax(finding: Found) -> bool:
    """Return whether *finding* says that a file is no Python."""
    return finding.rule.value in _NO_CODE


def _finding(name: str, finding: Found) -> dict[str, object]:
    return {
        "file": name,
        "line": finding.line or None,
        "rule": finding.rule.value,
        "message": finding.message,
    }
