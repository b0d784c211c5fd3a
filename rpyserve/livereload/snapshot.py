"""What the directories of a site hold, and what of it has changed since the last scan.

Owns which directories are the site's own (ignored ones are not even opened), and the state of each
of their files, but for those whose names begin with a dot. Events from the system are only hints
where to look; what counts as changed is decided here. So a renamed directory, a gap between two
watches, a system without events, and an event of what a scan has found before it are all the same
thing: a file has changed if its state is another one than that which was told last.

A state is a signature. For some seconds after a save, another one may leave it as it was, where the
clock of the files steps slowly; so long the contents are a part of the state. They are told with
the change: what is read later may be of the next save.

Must not know events, scripts or URLs. Reading disks takes time: call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from rpyserve.scripts.file_state import (
    FILE_SYSTEM,
    MOST_READS,
    SETTLE_TIME,
    FileSystem,
    Signature,
    is_ignored_directory,
)

# Seconds for which contents are a part of a file's state: an event of its last save may come late.
READ_FOR: Final = 2 * SETTLE_TIME
# Bytes of a file whose contents are not read.
MAX_SIZE: Final = 1 << 20
# Bytes that are read at once, where a small file counts as `MIN_COST`.
MAX_READ: Final = 8 << 20
MIN_COST: Final = 8 << 10
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
        contents: what was in those of *files* that are there, and not too many or too large.
    """

    files: Mapping[str, float] = field(default_factory=dict)
    added_or_removed: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()
    contents: Mapping[str, bytes] = field(default_factory=dict)

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
        contents = {path: self.contents[path] for path in self.contents.keys() - later.files.keys()}
        return FileChanges(
            files,
            self.added_or_removed ^ later.added_or_removed,
            incomplete & files.keys(),
            {**contents, **later.contents},
        )

    def only(self, files: Iterable[str]) -> FileChanges:
        """Return what is told of these *files*, which are some of ours."""
        wanted = frozenset(files)
        return FileChanges(
            {path: self.files[path] for path in wanted},
            self.added_or_removed & wanted,
            self.incomplete & wanted,
            {path: self.contents[path] for path in wanted & self.contents.keys()},
        )


class Snapshot:
    """The files below *roots*, as they were at the last scan.

    Args:
        roots: absolute paths of directories, which need not exist.
        file_system: how files are looked at.

    Attributes:
        roots: the same.
        directories: the directories that are the site's, each with its files and their signatures.
    """

    def __init__(self, roots: Iterable[str], file_system: FileSystem = FILE_SYSTEM) -> None:
        self.roots = tuple(roots)
        self.directories: dict[str, dict[str, Signature]] = {}
        self._file_system = file_system
        self._saved: dict[str, _Saved] = {}

    def scan(self) -> FileChanges:
        """Read all directories, and return what is different."""
        is_first = not self.directories
        before, self.directories = self.directories, dict(self._walk())
        new = self.directories.keys() - before.keys()
        # Those that are still there have become ignored ones.
        gone = {path for path in before.keys() - self.directories.keys() if not os.path.isdir(path)}
        self._forget_settled()
        # Of what is there from the beginning, few files can have been saved just now.
        changes = _Changes(read_since=time.time() - SETTLE_TIME if is_first else 0)
        for directory in self.directories.keys() | gone:
            old, now = before.get(directory, {}), self.directories.get(directory, {})
            for name in old.keys() | now.keys():
                was, is_now = old.get(name, _MISSING), now.get(name, _MISSING)
                if was == is_now and not self._saved:
                    continue
                path = os.path.join(directory, name)
                if was != is_now or path in self._saved:
                    self._compare(path, was, is_now, changes)
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
        self._forget_settled()
        changes = _Changes()
        for path in paths:
            directory, name = os.path.split(path)
            files = self.directories.get(directory)
            if files is None or path in self.directories or name.startswith("."):
                continue  # in an ignored directory; or a directory in which something has changed
            self._compare(path, files.get(name, _MISSING), self._signature(path), changes)
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
                    self._add_file(files, path, name)
                elif not is_ignored_directory(path):
                    below.append(path)
            # Else it has become a virtual environment since it was looked at.
            if _MARKER not in files or directory in self.roots:
                todo += below
                yield directory, files

    # The state of one file

    def _compare(self, path: str, old: Signature, new: Signature, changes: _Changes) -> None:
        """Note in *changes* what the file at *path* has become, unless it is what it was."""
        new, data = self._read(path, new, changes)
        directory, name = os.path.split(path)
        files = self.directories.get(directory, {})
        files.pop(name, None)
        if new != _MISSING:
            files[name] = new
        digest = None if data is None else hashlib.blake2b(data, digest_size=16).digest()
        known = self._saved.get(path)
        if new == old and (known is None or digest in (None, known.digest)):
            return
        changes.note(path, old, new, data)
        self._saved.pop(path, None)
        if digest is not None:
            self._saved[path] = _Saved(self._file_system.now(), digest)

    def _read(
        self, path: str, signature: Signature, changes: _Changes
    ) -> tuple[Signature, bytes | None]:
        """The signature of a file, and its contents at that time; None if they are not read."""
        for _ in range(MOST_READS):
            if signature == _MISSING or not changes.may_read(signature):
                break
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError:
                return self._signature(path), None
            before, signature = signature, self._signature(path)
            if signature == before:
                return signature, data
        return signature, None

    def _forget_settled(self) -> None:
        since = self._file_system.now() - READ_FOR
        for path in [path for path, saved in self._saved.items() if saved.since < since]:
            del self._saved[path]

    def _add_file(self, files: dict[str, Signature], path: str, name: str) -> None:
        """Add the file at *path* to those of its directory, unless it is hidden or not there."""
        signature = _MISSING if name.startswith(".") else self._signature(path)
        if signature != _MISSING:
            files[name] = signature

    def _signature(self, path: str) -> Signature:
        try:
            found = self._file_system.stat(path)
        except (OSError, ValueError):
            return _MISSING
        if not stat.S_ISREG(found.st_mode):
            return _MISSING
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


@dataclass(frozen=True, slots=True)
class _Saved:
    """A file that was saved of late.

    Args:
        since: when that was found, by the clock of the file system's user.
        digest: of its contents.
    """

    since: float
    digest: bytes


class _Changes:
    """A `FileChanges` in the making.

    Args:
        read_since: seconds since the epoch; files with older time stamps are not read.
    """

    def __init__(self, read_since: float = 0) -> None:
        self.files: dict[str, float] = {}
        self.added_or_removed: set[str] = set()
        self.incomplete: set[str] = set()
        self.contents: dict[str, bytes] = {}
        self._read_since = read_since
        self._room = MAX_READ

    def may_read(self, signature: Signature) -> bool:
        """Whether a file of that *signature* is to be read; it is counted then."""
        size = signature[1]
        if size > MAX_SIZE or self._room <= 0 or _saved_at(signature) < self._read_since:
            return False
        self._room -= max(size, MIN_COST)
        return True

    def note(self, path: str, old: Signature, new: Signature, data: bytes | None) -> None:
        if _MISSING in (old, new):
            self.added_or_removed.add(path)
        if not new[1]:
            self.incomplete.add(path)
        self.files[path] = _saved_at(new)
        if data is not None:
            self.contents[path] = data

    def forget_times(self, directory: str, names: Iterable[str]) -> None:
        """A new *directory* may have been moved here, long after its files were written."""
        for name in names:
            self.files[os.path.join(directory, name)] = 0

    def result(self) -> FileChanges:
        return FileChanges(
            self.files,
            frozenset(self.added_or_removed),
            frozenset(self.incomplete),
            self.contents,
        )


def _saved_at(signature: Signature) -> float:
    """When a file was saved, in seconds since the epoch."""
    modified, _, _, entry_changed = signature
    # A rename changes the second time only; on Windows that one is when the file was made.
    return max(modified, entry_changed) / 1e9


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
