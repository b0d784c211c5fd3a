"""Whether files and directories are still what they were when they were read.

Owns signatures, and nothing of what is made from the files. The invariant: whoever asks after a save is told so,
whether or not a watcher runs. A signature (mtime, size, inode and ctime in nanoseconds) shows nearly every edit; file
systems whose clocks step by up to 2 s can hide one, so for 2 s after a signature was first seen the contents are
compared too, and once more when that time is over. That span is measured on our own clock: a later edit must have
another time stamp then, even if the file system's clock is wrong. The signature is taken before the contents.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

__all__ = [
    "EYES",
    "DirectoryState",
    "FileState",
    "FileSystem",
    "ImportLookups",
    "MissingFile",
    "State",
    "TreeState",
    "is_ignored_directory",
    "read",
    "snapshot",
]  # fmt: skip

SETTLE: Final = 2.0
"""Seconds after which a file that is written again has another time stamp on any file system."""
ATTEMPTS: Final = 5
"""How often a file is read that changes while it is read."""

FOREIGN: Final = frozenset({"node_modules", "site-packages", "__pycache__"})

Signature = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """How files are looked at, for tests to replace: *stat* as `os.stat`, *now* in seconds that never go back."""

    stat: Callable[[str], os.stat_result] = os.stat
    now: Callable[[], float] = time.monotonic


EYES: Final = FileSystem()


class State(Protocol):
    """What something was like when it was looked at."""

    def changed(self) -> bool:
        """Whether it is different now. Once it has said True, make a new one."""
        ...


class _Settling:
    """The signature of one path, and how long it has been the same."""

    __slots__ = ("_eyes", "_settled", "_signature", "_since", "path")

    _kind = staticmethod(stat.S_ISREG)

    def __init__(self, path: str, eyes: FileSystem) -> None:
        self.path = path
        self._eyes = eyes
        self._begin(self._sign())

    def _sign(self) -> Signature | None:
        """The present signature; None if there is no such file, or one of another kind."""
        try:
            found = self._eyes.stat(self.path)
        except (OSError, ValueError):
            return None
        if not self._kind(found.st_mode):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns

    def _begin(self, signature: Signature | None) -> None:
        self._signature = signature
        self._since = self._eyes.now()
        self._settled = signature is None

    def _must_compare(self) -> bool:
        """Whether the contents must be compared although the signature is the same. Compare *after* asking."""
        if self._settled:
            return False
        self._settled = self._eyes.now() - self._since >= SETTLE
        return True


class FileState(_Settling):
    """A file as it was when its contents were read; also one that does not exist (yet)."""

    __slots__ = ("_digest",)

    def __init__(self, path: str, eyes: FileSystem = EYES) -> None:
        super().__init__(path, eyes)
        self._digest = None if self._signature is None else _digest_of(path)

    @classmethod
    def reading(cls, path: str, eyes: FileSystem = EYES) -> tuple[bytes, FileState]:
        """Read the file at *path*; see `read`."""
        self = cls.__new__(cls)
        for _ in range(ATTEMPTS):
            _Settling.__init__(self, path, eyes)
            if self._signature is None:
                _raise_why(path)
            with open(path, "rb") as file:
                data = file.read()
            self._digest = _digest(data)
            if self._sign() == self._signature:
                break  # else it is being written; out of attempts, the next look will find it changed
        return data, self

    def changed(self) -> bool:
        """Whether the file has been written, replaced, removed or made since."""
        return self._sign() != self._signature or (
            self._must_compare() and _digest_of(self.path) != self._digest
        )


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

    __slots__ = ("_directories", "_files", "path")

    def __init__(self, path: str, eyes: FileSystem = EYES) -> None:
        self.path = path
        self._directories, files = _below(path)
        self._files = {file: FileState(file, eyes) for file in files}

    def changed(self) -> bool:
        """Whether anything has come, gone or changed."""
        directories, files = _below(self.path)
        if directories != self._directories or files != self._files.keys():
            return True
        return any(state.changed() for state in self._files.values())


class ImportLookups(_Settling):
    """Which of the names that imports asked for a directory has. Other names do not count."""

    __slots__ = ("_answers",)

    _kind = staticmethod(stat.S_ISDIR)

    def __init__(self, path: str, eyes: FileSystem = EYES) -> None:
        self._answers: dict[str, tuple[bool, bool]] = {}
        super().__init__(path, eyes)

    def ask(self, name: str) -> None:
        """Have *name* count from now on."""
        self._answers[name] = self._answer(name)

    def changed(self) -> bool:
        """Whether a name that was asked for is now found and was not, or the other way round."""
        signature = self._sign()
        if signature == self._signature and not self._must_compare():
            return False
        if any(self._answer(name) != answer for name, answer in self._answers.items()):
            return True
        if signature != self._signature:
            self._begin(signature)
        return False

    def _answer(self, name: str) -> tuple[bool, bool]:
        path = os.path.join(self.path, name)
        return os.path.isfile(path + ".py"), os.path.isdir(path)


class DirectoryState(_Settling):
    """Which names a directory has, and of which files, by the time stamps of the directory itself."""

    __slots__ = ()

    _kind = staticmethod(stat.S_ISDIR)

    def changed(self) -> bool:
        """Whether one may have come, gone or changed its file since this was asked last."""
        signature = self._sign()
        if signature != self._signature:
            self._begin(signature)
            return True
        return self._must_compare()


def read(path: str, eyes: FileSystem = EYES) -> tuple[bytes, FileState]:
    """Return the contents of a file, and its state with them.

    Raises:
        OSError: it is missing, unreadable, or no regular file (which might never end).
    """
    return FileState.reading(path, eyes)


def snapshot(path: str, eyes: FileSystem = EYES) -> State:
    """Return the state of a file, of a directory with all that is below it, or of one that does not exist yet."""
    if os.path.isdir(path):
        return TreeState(path, eyes)
    return FileState(path, eyes) if os.path.exists(path) else MissingFile(path)


def is_ignored_directory(directory: str) -> bool:
    """Whether *directory*, by its own name and contents, is none of the site's: hidden, or full of installed things."""
    name = os.path.basename(directory)
    return (
        name.startswith(".")
        or name in FOREIGN
        or os.path.isfile(os.path.join(directory, "pyvenv.cfg"))
    )


def _below(path: str) -> tuple[set[str], set[str]]:
    """The directories at and below *path*, and the files in them. Links are followed, but into no directory twice."""
    directories: set[str] = set()
    files: set[str] = set()
    seen: set[tuple[int, int]] = set()
    for directory, below, names in os.walk(path, followlinks=True):
        place = _place(directory)
        if place is None or place in seen:
            below.clear()
            continue
        seen.add(place)
        directories.add(directory)
        below[:] = [
            name for name in below if not is_ignored_directory(os.path.join(directory, name))
        ]
        files.update(os.path.join(directory, name) for name in names if not name.startswith("."))
    return directories, files


def _place(directory: str) -> tuple[int, int] | None:
    """Which directory it is, whatever leads there; None if it is no more."""
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _digest_of(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None


def _raise_why(path: str) -> NoReturn:
    """Raise the `OSError` that says why *path* cannot be read."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory")
    raise OSError(f"{path} is no regular file")
