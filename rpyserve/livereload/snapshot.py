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

# What a file is known by: time of its content, size, inode, time of its entry.
Signature = tuple[int, int, int, int]

# That of a file that is not there, or not a regular one.
_MISSING: Final = (0, 0, 0, 0)
# The file that makes a directory an environment, which is ignored.
_MARKER: Final = "pyvenv.cfg"
# A link to a directory that Windows does not call a link (IO_REPARSE_TAG_MOUNT_POINT).
_JUNCTION: Final = 0xA0000003


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
        return self != FileChanges()

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
        new = self.directories.keys() - before.keys()
        # Those that are still there have become ignored ones.
        gone = {path for path in before.keys() - self.directories.keys() if not os.path.isdir(path)}
        for directory in self.directories.keys() | gone:
            changes.compare(
                directory, before.get(directory, {}), self.directories.get(directory, {})
            )
        for directory in new:
            changes.forget_times(directory, self.directories[directory])
        changes.added_or_removed.update(new, gone)
        return changes.result()

    def check(self, paths: Iterable[str]) -> FileChanges | None:
        """Read *paths* only, of which something was heard.

        Returns:
            What is different; None if directories were added or removed, which takes a `scan`.
        """
        paths = [*paths]
        if any(map(self._concerns_directories, paths)):
            return None
        changes = _Changes()
        for path in paths:
            directory, name = os.path.split(path)
            files = self.directories.get(directory)
            if files is None or path in self.directories:
                continue  # in an ignored directory; or a directory in which something has changed
            old = files.pop(name, _MISSING)
            new = _add_file(files, path, name)
            if (old, new) != (_MISSING, _MISSING):
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
        todo = [*filter(os.path.isdir, self.roots)]
        while todo:
            directory = todo.pop()
            files: dict[str, Signature] = {}
            below: list[str] = []
            for path, name, is_directory in _entries(directory):
                if not is_directory:
                    _add_file(files, path, name)
                elif not is_ignored_directory(path):
                    below.append(path)
            # Else it has become a virtual environment since it was looked at.
            if _MARKER not in files or directory in self.roots:
                todo += below
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
            old, new = before.get(name, _MISSING), after.get(name, _MISSING)
            if old != new:
                self.note(os.path.join(directory, name), old, new)

    def note(self, path: str, old: Signature, new: Signature) -> None:
        modified, size, _, entry_changed = new
        if _MISSING in (old, new):
            self.added_or_removed.add(path)
        if not size:
            self.incomplete.add(path)
        # A rename changes the second time only; on Windows that one is when the file was made.
        self.files[path] = max(modified, entry_changed) / 1e9

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


def _add_file(files: dict[str, Signature], path: str, name: str) -> Signature:
    """Add the file at *path* to those of its directory, unless it is hidden or not there."""
    signature = _MISSING if name.startswith(".") else _signature(path)
    if signature != _MISSING:
        files[name] = signature
    return signature


def _signature(path: str) -> Signature:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _MISSING
    if not stat.S_ISREG(found.st_mode):
        return _MISSING
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
