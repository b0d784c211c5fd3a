"""What the check says of the files of an edit, and what it said of them before.

Owns the findings of each file as of its last edit, and until its first one what was in it. All of
it is for one thread at a time, since the check takes a while. Must not know who checks.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from rpyserve.inspector.edit import CODE, Checked, Found, SavedFile, is_syntax
from rpyserve.scripts import file_state
from rpyserve.scripts.source import decode_lines

MAX_CHECKED: Final = 200
"""How many files of one edit are checked."""
MAX_SIZE: Final = 1 << 20
"""How many bytes a file may have that is read."""
MAX_BASELINE: Final = 8 << 20
"""How many bytes of files are remembered as they were before their first edit."""
DIGEST: Final = 16

Check = Callable[[str, Mapping[str, bytes]], Mapping[str, Sequence[Found]]]
"""Gets a site's directory and contents of files by their relative paths; returns findings."""


class EditCheck:
    """Checks the files of one edit after the other.

    Args:
        roots: the site's directories, as absolute paths.
        check: see `Check`.
    """

    def __init__(self, roots: Sequence[str], check: Check) -> None:
        self._roots = roots
        self._check = check
        self._sources: dict[str, bytes] = {}  # of files before their first edit
        self._findings: dict[str, Sequence[Found]] = {}

    def read_baseline(self) -> None:
        """Remember the files as they are before their first edit."""
        room = MAX_BASELINE
        for path in _python_files(self._roots):
            data = contents_of(path)
            if data is None or path in self._findings:
                continue
            room -= len(data)
            if room < 0:
                return
            self._sources.setdefault(path, data)

    def check(self, files: Sequence[SavedFile], contents: Mapping[str, bytes]) -> list[Checked]:
        """Return what is found in each of *files*; of the first ones if there are very many.

        Args:
            files: files of an edit.
            contents: what was in them, by their paths.
        """
        return [self._check_one(each, contents.get(each.path)) for each in files[:MAX_CHECKED]]

    def _check_one(self, file: SavedFile, data: bytes | None) -> Checked:
        digest = "" if data is None else hashlib.sha256(data).hexdigest()[:DIGEST]
        if file.kind not in CODE:
            return Checked(digest)
        before = self._findings.get(file.path)
        if before is None:
            before = self._found(file, self._sources.pop(file.path, None))
        now = self._findings[file.path] = self._found(file, data)
        compiles = None if data is None else not any(map(is_syntax, now))
        return Checked(digest, compiles, _difference(now, before), _difference(before, now))

    def _found(self, file: SavedFile, data: bytes | None) -> Sequence[Found]:
        if data is None:
            return ()
        name = os.path.relpath(file.path, file.root)
        return self._check(file.root, {name: data}).get(name, ())


def contents_of(path: str) -> bytes | None:
    """Return the contents of a file; None if it is gone, too large, or no regular one."""
    try:
        if os.path.getsize(path) > MAX_SIZE:
            return None
        return file_state.read(path)[0]
    except (OSError, ValueError):
        return None


def version_of(data: bytes | None) -> int:
    """Return what stands for *data*, as the source hash of a frame does; 0 for none."""
    if data is None:
        return 0
    try:
        return hash(tuple(decode_lines(data)))
    except (ValueError, SyntaxError):
        return 0


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


def _difference(these: Sequence[Found], those: Sequence[Found]) -> list[Found]:
    """Those of *these* that are not among *those*, whatever their lines."""
    left = Counter((each.rule, each.message) for each in those)
    more: list[Found] = []
    for each in these:
        if left[each.rule, each.message]:
            left[each.rule, each.message] -= 1
        else:
            more.append(each)
    return more
