"""What the directories of a site hold, and what of it has changed since the last scan.

Owns which directories are the site's own (ignored ones are not even opened), and one signature for
each of their files, but for those whose names begin with a dot. Events from the system are only
hints where to look; what counts as changed is decided here. So a renamed directory, a gap between
two watches, and a system without events are all the same thing.

Must not know events, scripts or URLs. Reading disks takes time: call it in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from rpyserve.scripts.file_state import is_ignored_directory

__all__ = ["FileChanges", "Snapshot"]

Signature = tuple[int, int, int, int]
"""What a file is known by: time of its content, size, inode, time of its entry."""

_MARKER: Final = "pyvenv.cfg"
"""The file that makes a directory an environment, which is ignored."""
_JUNCTION: Final = 0xA0000003
"""A link to a directory that Windows does not call a link (IO_REPARSE_TAG_MOUNT_POINT)."""


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What has changed from one scan to the next.

    Args:
        files: each file that was written, made, replaced or removed, with the time of that in
            seconds since the epoch; 0 if the time is not known.
        added_or_removed: files and directories that were not there before, or are not any more.
        incomplete: those of *files* that are missing or empty at the moment, perhaps half of a
            save.
    """

    files: Mapping[str, float] = field(default_factory=dict)
    added_or_removed: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.files or self.added_or_removed)

    @property
    def directories(self) -> frozenset[str]:
        """The directories that were added or removed."""
        return self.added_or_removed - self.files.keys()

    def __or__(self, later: FileChanges) -> FileChanges:
        files = {**self.files, **later.files}
        for path in self.added_or_removed & later.added_or_removed & later.incomplete:
            if self.files.get(path) and not later.files[path]:
                del files[path]  # it came and went: nobody need know
        incomplete = (self.incomplete - later.files.keys()) | later.incomplete
        return FileChanges(
            files,
            self.added_or_removed ^ later.added_or_removed,
            incomplete & files.keys(),
        )


class Snapshot:
    """The files below *roots*, as they were at the last scan.

    Attributes:
        roots: absolute paths of directories, which need not exist.
        directories: the directories that are the site's, each with its files and their signatures.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self.roots = tuple(roots)
        self.directories: dict[str, dict[str, Signature]] = {}

    def scan(self) -> FileChanges:
        """Read all directories, and return what is different."""
        before, self.directories = self.directories, dict(self._walk())
        changes = _Changes()
        for directory in before.keys() | self.directories.keys():
            if directory not in self.directories and os.path.isdir(directory):
                continue  # it has become an ignored one
            old, new = before.get(directory, {}), self.directories.get(directory, {})
            changes.compare(directory, old, new)
            if directory not in before:
                changes.forget_times(directory, new)
            if (directory in before) != (directory in self.directories):
                changes.added_or_removed.add(directory)
        return changes.result()

    def check(self, paths: Iterable[str]) -> FileChanges | None:
        """Read *paths* only, of which something was heard.

        Returns:
            What is different; None if directories were added or removed, which takes a `scan`.
        """
        paths = [*paths]
        if any(self._concerns_directories(path) for path in paths):
            return None
        changes = _Changes()
        for path in paths:
            directory, name = os.path.split(path)
            files = self.directories.get(directory)
            if files is None or path in self.directories:
                continue  # in an ignored directory; or a directory in which something has changed
            old = files.pop(name, None)
            new = _add_file(files, path, name)
            if old is not None or new is not None:
                changes.note(path, old, new)
        return changes.result()

    def _concerns_directories(self, path: str) -> bool:
        """Whether *path* means that other directories than before may be the site's."""
        if path in self.directories:
            return not os.path.isdir(path)
        directory, name = os.path.split(path)
        if directory not in self.directories:
            return self._may_be_new(directory)
        if name == _MARKER:
            return True
        return os.path.isdir(path) and not is_ignored_directory(path)

    def _may_be_new(self, directory: str) -> bool:
        """Whether *directory*, which no scan has found, could be one of the site's."""
        while directory not in self.directories:
            parent = os.path.dirname(directory)
            if parent == directory or is_ignored_directory(directory):
                return False
            directory = parent
        return True

    def _walk(self) -> Iterator[tuple[str, dict[str, Signature]]]:
        todo = [root for root in self.roots if os.path.isdir(root)]
        while todo:
            directory = todo.pop()
            entries = _entries(directory)
            if directory not in self.roots and any(name == _MARKER for _, name, _ in entries):
                continue  # it has become a virtual environment since it was looked at
            files: dict[str, Signature] = {}
            for path, name, is_directory in entries:
                if not is_directory:
                    _add_file(files, path, name)
                elif not is_ignored_directory(path):
                    todo.append(path)
            yield directory, files


class _Changes:
    """A `FileChanges` in the making."""

    def __init__(self) -> None:
        self.files: dict[str, float] = {}
        self.added_or_removed: set[str] = set()
        self.incomplete: set[str] = set()

    def compare(
        self, directory: str, before: Mapping[str, Signature], after: Mapping[str, Signature]
    ) -> None:
        for name in before.keys() | after.keys():
            old, new = before.get(name), after.get(name)
            if old != new:
                self.note(os.path.join(directory, name), old, new)

    def note(self, path: str, old: Signature | None, new: Signature | None) -> None:
        if old is None or new is None:
            self.added_or_removed.add(path)
        if new is None or not new[1]:
            self.incomplete.add(path)
        # A rename changes the second time only; on Windows that one is when the file was made.
        self.files[path] = max(new[0], new[3]) / 1e9 if new is not None else 0

    def forget_times(self, directory: str, names: Iterable[str]) -> None:
        """A new *directory* may have been moved here, long after its files were written."""
        for name in names:
            self.files[os.path.join(directory, name)] = 0

    def result(self) -> FileChanges:
        return FileChanges(self.files, frozenset(self.added_or_removed), frozenset(self.incomplete))


def _entries(directory: str) -> list[tuple[str, str, bool]]:
    """The path and name of each entry, and whether it is a directory."""
    try:
        with os.scandir(directory) as entries:
            return [(entry.path, entry.name, _is_directory(entry)) for entry in entries]
    except OSError:  # it is gone, or may not be read
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether *entry* is a directory, and not a link to one: links may lead round in circles."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return False
        return getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) != _JUNCTION
    except OSError:  # it has just gone
        return False


def _add_file(files: dict[str, Signature], path: str, name: str) -> Signature | None:
    """Add the file at *path* to those of its directory, unless it is hidden or not there."""
    signature = None if name.startswith(".") else _signature(path)
    if signature is not None:
        files[name] = signature
    return signature


def _signature(path: str) -> Signature | None:
    """The signature of a regular file; None for anything else."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
