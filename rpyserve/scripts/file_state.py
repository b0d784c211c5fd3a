"""Whether files and directories are still what they were when they were read.

A file is fresh if nothing in its signature has changed: mtime, size and inode, and ctime, all to
the nanosecond. That shows nearly every edit, but file systems whose clocks step by up to 2 s can
hide one. So for `SETTLE_TIME` (2 s) after a signature was first seen, the bytes are compared too,
by their digest, and once more when that time is over. The time is measured by our own clock: an
edit later than that has another time stamp even if the file system's clock is wrong.

The order that matters: a signature is taken before the contents are read, so a write in between
shows later. Whoever asks after a save is told of it, whether or not a watcher runs. Nothing that is
made from the files is kept here.

A disk that fails, or a network drive that is away, does not say that a file has changed or is gone:
whoever asks gets an error, and what was known stays (`raise_unless_absent`).
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import methodcaller
from typing import Final, NoReturn, Protocol

from rpyserve.http.errors import HTTPError
from rpyserve.util.file_limits import is_too_many_files

SETTLE_TIME: Final = 2.0
"""Seconds after which a file that is written again has another time stamp on any file system."""
MOST_READS: Final = 5
"""How often a file is read that changes while it is read."""
IGNORED_DIRECTORIES: Final = frozenset({"node_modules", "site-packages", "__pycache__"})
"""Names of directories whose files are none of the site's author."""

# What a look at a file fails with where there is none, or none that is ours to see. Windows gives
# EINVAL for names that no file can have.
_ABSENT: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
        None,
    }
)

Signature = tuple[int, int, int, int]
"""What `os.stat` says of a file: mtime, size, inode, ctime."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """How files are looked at, for tests to replace.

    Args:
        stat: as `os.stat`.
        now: a clock, in seconds that never go back.
    """

    stat: Callable[[str], os.stat_result] = os.stat
    now: Callable[[], float] = time.monotonic


FILE_SYSTEM: Final = FileSystem()


def raise_unless_absent(path: str, exc: OSError | ValueError) -> None:
    """Raise an error unless *exc*, of a look at *path*, says that there is no such file for us.

    Raises:
        HTTPError: 503, the system cannot say whether there is one.
        OSError: *exc*, there are no file descriptors left.
    """
    if isinstance(exc, ValueError) or exc.errno in _ABSENT:
        return
    if is_too_many_files(exc):
        raise exc
    raise HTTPError(
        503,
        "The server cannot read its files just now. Try again in a moment.",
        {"Retry-After": "5"},
        private=f"The system cannot tell what {path!r} is: {exc.strerror}.",
    ) from exc


class State(Protocol):
    """What something was like when it was looked at."""

    path: str

    def changed(self) -> bool:
        """Whether it is different now. Once it has said True, make a new one."""
        ...


class _Signed:
    """The signature of one path, and since when it has been the same."""

    __slots__ = ("_file_system", "_is_settled", "_signature", "_since", "path")

    _is_right_kind = staticmethod(stat.S_ISREG)

    def __init__(self, path: str, file_system: FileSystem) -> None:
        self.path = path
        self._file_system = file_system
        self._start_from(self._read_signature())

    def _read_signature(self) -> Signature | None:
        """The present signature; None if there is no such file, or one of another kind.

        Raises:
            HTTPError, OSError: see `raise_unless_absent`.
        """
        try:
            found = self._file_system.stat(self.path)
        except (OSError, ValueError) as exc:
            raise_unless_absent(self.path, exc)
            return None
        if not self._is_right_kind(found.st_mode):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns

    def has_same_signature(self) -> bool:
        """Whether the signature is still the same, whatever the contents are."""
        return self._read_signature() == self._signature

    def _start_from(self, signature: Signature | None) -> None:
        self._signature = signature
        self._since = self._file_system.now()
        self._is_settled = signature is None

    def _must_compare_contents(self) -> bool:
        """Whether the contents must be compared although the signature is the same.

        Compare them *after* asking: the answer is no more from the time on when a change would show
        in the signature.
        """
        if self._is_settled:
            return False
        self._is_settled = self._file_system.now() - self._since >= SETTLE_TIME
        return True


class FileState(_Signed):
    """A file as it was when its contents were read; also one that does not exist (yet).

    Args:
        path: the file.
        file_system: how it is looked at.
        read_now: whether to read the file for its digest at once; else `read_contents` does so.
    """

    __slots__ = ("_digest",)

    def __init__(
        self, path: str, file_system: FileSystem = FILE_SYSTEM, *, read_now: bool = True
    ) -> None:
        super().__init__(path, file_system)
        exists = self._signature is not None
        self._digest = _digest_of_file(path) if read_now and exists else None

    def read_contents(self) -> bytes:
        """Return the contents, which count as those of this state from now on.

        Raises:
            OSError: the file is missing, unreadable, or no regular file (which might never end).
        """
        if self._signature is None:
            _raise_unreadable(self.path)
        with open(self.path, "rb") as file:
            data = file.read()
        self._digest = _digest_of(data)
        return data

    def changed(self) -> bool:
        """Whether the file has been written, replaced, removed or made since."""
        if not self.has_same_signature():
            return True
        return self._must_compare_contents() and _digest_of_file(self.path) != self._digest


class MissingFile:
    """A path where there is nothing (yet)."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def changed(self) -> bool:
        """Whether there is something now."""
        return os.path.exists(self.path)


class TreeState:
    """A directory with all that is below it, dot files and foreign directories apart."""

    __slots__ = ("_directories", "_files", "_is_settled", "path")

    def __init__(self, path: str, file_system: FileSystem = FILE_SYSTEM) -> None:
        self.path = path
        directories, files = _below(path)
        # They show what comes and goes; for the first two seconds the names are read again anyway.
        self._directories = {each: DirectoryState(each, file_system) for each in directories}
        self._files = {file: FileState(file, file_system) for file in files}
        # A link that leads nowhere may lead to a directory later.
        self._is_settled = all(map(os.path.isfile, files))

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self._files)

    def changed(self) -> bool:
        """Whether anything has come, gone or changed."""
        return self._has_other_names() or any_changed(self._files.values())

    def _has_other_names(self) -> bool:
        if self._is_settled and not any_changed(self._directories.values()):
            return False
        directories, files = _below(self.path)
        return directories != self._directories.keys() or files != self._files.keys()


class PatternState:
    """What a pattern such as ``notes/*.md`` matches; ``**`` stands for any directories."""

    __slots__ = ("_states", "path")

    def __init__(self, path: str, file_system: FileSystem = FILE_SYSTEM) -> None:
        self.path = path
        self._states = {match: snapshot(match, file_system) for match in matches(path)}

    @property
    def count(self) -> int:
        """How many files match, with all below the directories that do."""
        return sum(map(count_of, self._states.values()))

    def changed(self) -> bool:
        """Whether something matches that did not, or has gone or changed."""
        return matches(self.path) != self._states.keys() or any_changed(self._states.values())


class ImportLookups(_Signed):
    """Which of the names that imports asked for a directory has. Other names do not count."""

    __slots__ = ("_answers",)

    _is_right_kind = staticmethod(stat.S_ISDIR)

    def __init__(self, path: str, file_system: FileSystem = FILE_SYSTEM) -> None:
        self._answers: dict[str, tuple[bool, bool]] = {}
        super().__init__(path, file_system)

    def add(self, name: str) -> None:
        """Have *name* count from now on."""
        self._answers[name] = self._answer(name)

    def changed(self) -> bool:
        """Whether a name that was asked for is now found and was not, or the other way round."""
        signature = self._read_signature()
        if signature == self._signature and not self._must_compare_contents():
            return False
        # A thread that imports may add a name meanwhile.
        if any(self._answer(name) != answer for name, answer in list(self._answers.items())):
            return True
        if signature != self._signature:
            self._start_from(signature)
        return False

    def _answer(self, name: str) -> tuple[bool, bool]:
        path = os.path.join(self.path, name)
        return os.path.isfile(path + ".py"), os.path.isdir(path)


class _Settling(_Signed):
    """A signature that is trusted once it has been the same for `SETTLE_TIME`."""

    __slots__ = ()

    def changed(self) -> bool:
        """Whether there may have been a change since this was asked last."""
        signature = self._read_signature()
        if signature != self._signature:
            self._start_from(signature)
            return True
        return self._must_compare_contents()


class DirectoryState(_Settling):
    """Which names a directory has, and for which files.

    The signature of the directory itself shows when one comes, goes, or becomes another file's.
    """

    __slots__ = ()

    _is_right_kind = staticmethod(stat.S_ISDIR)


class SettlingFile(_Settling):
    """A file whose contents are read anew, after each look, until a change would show."""

    __slots__ = ()


def read(path: str, file_system: FileSystem = FILE_SYSTEM) -> tuple[bytes, FileState]:
    """Return the contents of a file, and its state with them.

    A file that is being written is read again; after `MOST_READS` times, its state has changed at
    the next look.

    Raises:
        OSError: it is missing, unreadable, or no regular file (which might never end).
    """
    for _ in range(MOST_READS):
        state = FileState(path, file_system, read_now=False)
        data = state.read_contents()
        if state.has_same_signature():
            break
    return data, state


def snapshot(path: str, file_system: FileSystem = FILE_SYSTEM) -> State:
    """Return the state of a file, of a directory with all that is below it, or of nothing yet.

    What is not there may be a pattern, and is then what it matches.
    """
    if os.path.isdir(path):
        return TreeState(path, file_system)
    if os.path.exists(path):
        return FileState(path, file_system)
    return PatternState(path, file_system) if glob.has_magic(path) else MissingFile(path)


def matches(pattern: str) -> set[str]:
    """Return the files and directories that *pattern* stands for."""
    return set(glob.iglob(pattern, recursive=True))


def is_there(path: str) -> bool:
    """Whether *path*, which may be a pattern, stands for a file or a directory."""
    return os.path.exists(path) or bool(matches(path))


def count_of(state: State) -> int:
    """Of how many files *state* is."""
    return state.count if isinstance(state, (TreeState, PatternState)) else 1


_changed = methodcaller("changed")


def any_changed(states: Iterable[State]) -> bool:
    """Whether one of *states* has changed."""
    return any(map(_changed, states))  # which is quicker than a generator, and each request asks


def is_ignored_directory(directory: str) -> bool:
    """Whether *directory* is none of the site's: it is hidden, or has what was installed."""
    name = os.path.basename(directory)
    return (
        name.startswith(".")
        or name in IGNORED_DIRECTORIES
        or os.path.isfile(os.path.join(directory, "pyvenv.cfg"))
    )


def _below(path: str) -> tuple[set[str], set[str]]:
    """The directories at and below *path*, and their files.

    Links are followed, but into no directory twice.
    """
    directories: set[str] = set()
    files: set[str] = set()
    seen: set[tuple[int, int]] = set()
    for directory, below, names in os.walk(path, followlinks=True, onerror=_raise_unless_absent):
        identity = _identity(directory)
        if identity is None or identity in seen:
            below.clear()
            continue
        seen.add(identity)
        directories.add(directory)
        below[:] = [
            name for name in below if not is_ignored_directory(os.path.join(directory, name))
        ]
        files.update(os.path.join(directory, name) for name in names if not name.startswith("."))
    return directories, files


def _raise_unless_absent(exc: OSError) -> None:
    raise_unless_absent(exc.filename, exc)


def _identity(directory: str) -> tuple[int, int] | None:
    """Which directory it is, whatever leads there; None if it is no more."""
    try:
        found = os.stat(directory)
    except OSError as exc:
        raise_unless_absent(directory, exc)
        return None
    return found.st_dev, found.st_ino


def _digest_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _digest_of_file(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as exc:
        raise_unless_absent(path, exc)
        return None


def _raise_unreadable(path: str) -> NoReturn:
    """Raise the `OSError` that says why *path* cannot be read."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory")
    raise OSError(f"{path} is no regular file")
