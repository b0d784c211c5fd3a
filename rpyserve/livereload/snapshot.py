"""What the directories of a site hold, and what of it has changed since the last look.

Owns which directories are the site's own (foreign ones are not even looked into), and one signature for each of their
files, but for those whose names begin with a dot. Events from the system are only hints where to look; what counts as
changed is decided here, so that a renamed directory, a gap between two watches, and a system without events are all the
same thing. Knows nothing of events, scripts or URLs. Looking at disks takes time: call it in a thread.
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

_MARKER: Final = "pyvenv.cfg"
"""Its coming or going makes a directory foreign, or the site's."""
_JUNCTION: Final = 0xA0000003
"""What Windows calls a link to a directory that is not called a link (IO_REPARSE_TAG_MOUNT_POINT)."""


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What has changed from one look to the next.

    Args:
        files: each file that was written, made, replaced or removed, with the time of that in seconds since the epoch;
            0 if it is not known.
        moved: files and directories that came or went.
        unsure: those of *files* that are not there, or empty, at the moment: perhaps half of a save.
    """

    files: Mapping[str, float] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.files or self.moved)

    @property
    def directories(self) -> frozenset[str]:
        """The directories among those that came or went."""
        return self.moved - self.files.keys()

    def __or__(self, later: FileChanges) -> FileChanges:
        files = {**self.files, **later.files}
        for path in self.moved & later.moved & later.unsure:
            if self.files.get(path) and not later.files[path]:
                del files[path]  # it came and went: nobody need know
        unsure = (self.unsure - later.files.keys()) | later.unsure
        return FileChanges(files, self.moved ^ later.moved, unsure & files.keys())


class Snapshot:
    """The files below *roots*, as they were when they were last looked at.

    Attributes:
        directories: the directories that are the site's, and each one's files with their signatures.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self.roots = tuple(roots)
        self.directories: dict[str, dict[str, Signature]] = {}

    def look(self) -> FileChanges:
        """Look at everything, and return what is different."""
        before, self.directories = self.directories, dict(self._walk())
        changes = _Changes()
        for directory in before.keys() | self.directories.keys():
            old, new = before.get(directory, {}), self.directories.get(directory, {})
            if directory not in self.directories and os.path.isdir(directory):
                continue  # it has become foreign
            for name in old.keys() | new.keys():
                if old.get(name) != new.get(name):
                    path = os.path.join(directory, name)
                    changes.note(path, old.get(name), new.get(name))
                    if directory not in before:
                        changes.files[path] = (
                            0  # it may have been moved here, long after it was written
                        )
            if (directory in before) != (directory in self.directories):
                changes.moved.add(directory)
        return changes.batch()

    def look_at(self, paths: Iterable[str]) -> FileChanges | None:
        """Look at *paths* only, of which something was heard.

        Returns:
            What is different; None if directories have come or gone: `look` at everything then.
        """
        paths = [*paths]
        if any(self._is_about_directories(path) for path in paths):
            return None
        changes = _Changes()
        for path in paths:
            directory, name = os.path.split(path)
            files = self.directories.get(directory)
            if files is None or name.startswith(".") or path in self.directories:
                continue  # a foreign one; or its own time stamp, because something in it has changed
            old, new = files.pop(name, None), _signature(path)
            if new is not None:
                files[name] = new
            if old is not None or new is not None:
                changes.note(path, old, new)
        return changes.batch()

    def _is_about_directories(self, path: str) -> bool:
        """Whether *path* means that other directories than before may be the site's."""
        if path in self.directories:
            return not os.path.isdir(path)
        directory, name = os.path.split(path)
        if directory not in self.directories:
            return self._is_unknown(directory)
        return name == _MARKER or (os.path.isdir(path) and not is_ignored_directory(path))

    def _is_unknown(self, directory: str) -> bool:
        """Whether *directory*, of which we know nothing, could be one of the site's."""
        while directory not in self.directories:
            above = os.path.dirname(directory)
            if above == directory or is_ignored_directory(directory):
                return False
            directory = above
        return True

    def _walk(self) -> Iterator[tuple[str, dict[str, Signature]]]:
        todo = [root for root in self.roots if os.path.isdir(root)]
        while todo:
            directory = todo.pop()
            files: dict[str, Signature] = {}
            for path, name, is_directory in _entries(directory):
                if is_directory:
                    if not is_ignored_directory(path):
                        todo.append(path)
                elif not name.startswith(".") and (signature := _signature(path)) is not None:
                    files[name] = signature
            yield directory, files


class _Changes:
    def __init__(self) -> None:
        self.files: dict[str, float] = {}
        self.moved: set[str] = set()
        self.unsure: set[str] = set()

    def note(self, path: str, old: Signature | None, new: Signature | None) -> None:
        if old is None or new is None:
            self.moved.add(path)
        if new is None or not new[1]:
            self.unsure.add(path)
        # A rename changes the second time only; on Windows that one is when the file was made.
        self.files[path] = max(new[0], new[3]) / 1e9 if new is not None else 0

    def batch(self) -> FileChanges:
        return FileChanges(self.files, frozenset(self.moved), frozenset(self.unsure))


def _entries(directory: str) -> list[tuple[str, str, bool]]:
    try:
        with os.scandir(directory) as entries:
            return [(entry.path, entry.name, _is_own_directory(entry)) for entry in entries]
    except OSError:  # gone, or not for us
        return []


def _is_own_directory(entry: os.DirEntry[str]) -> bool:
    """Whether *entry* is a directory, and no link to one: links may lead round in circles."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return False
        return getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) != _JUNCTION
    except OSError:  # it has just gone
        return False


def _signature(path: str) -> Signature | None:
    """What a file is known by; None for what is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
