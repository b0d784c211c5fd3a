"""What the disk says of a name: its letters, its real path, and the file behind it once that is open.

Open first, then judge: the name that the *open* file has is what is asked about, so that a link swapped in between
leads nowhere. Nothing here blocks on what is no regular file, and nothing knows of requests or URLs.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, Final

from rpyserve.http.errors import HTTPError
from rpyserve.util.file_limits import is_too_many_files

__all__ = ["has_exact_name", "is_link", "name_of", "open_checked", "resolved"]

LENIENT: Final = os.name == "nt" or sys.platform == "darwin"
"""Whether the file systems of this platform take other letters, or short names, for a file's own."""
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)  # Windows would change line ends
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # what became a FIFO in between must not hold the server
    | getattr(os, "O_NOCTTY", 0)
)
_ATTEMPTS: Final = 5
_REPARSE_POINT: Final = 0x400
"""Windows: the attribute of junctions, and of files that a cloud keeps elsewhere."""


def is_link(status: os.stat_result) -> bool:
    """Whether *status*, as `os.lstat` gives it, is that of a symbolic link, or of a junction on Windows."""
    if stat.S_ISLNK(status.st_mode):
        return True
    return bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)


def open_checked(
    path: str | os.PathLike[str], judge: Callable[[str], str]
) -> tuple[BinaryIO, os.stat_result]:
    """Open the regular file at *path* and return it with its stat, if *judge* has nothing against it.

    Args:
        judge: is given the resolved path that the open file has, and returns the reason to refuse it, or nothing.

    Raises:
        HTTPError: 404 if there is no such file or it must not be sent, 403 if it cannot be read.
        OSError: there are no file descriptors left.
    """
    for _ in range(_ATTEMPTS):
        try:
            real = os.path.realpath(path)
            if not stat.S_ISREG(os.lstat(real).st_mode):
                raise HTTPError(404, private=f"{os.path.basename(path)!r} is not a file.")
            file = os.fdopen(os.open(real, _FLAGS), "rb", buffering=0)
        except PermissionError:
            raise HTTPError(
                403, private=f"rpyserve is not allowed to read {os.fspath(path)!r}."
            ) from None
        except (OSError, ValueError) as exc:
            if is_too_many_files(exc):
                raise
            break
        try:
            status = os.fstat(file.fileno())
            name = name_of(file.fileno(), real)
            why = judge(name) if name is not None else ""
            if name is not None and not why and stat.S_ISREG(status.st_mode):
                return file, status
        except BaseException:
            file.close()
            raise
        file.close()
        if why:
            raise HTTPError(404, private=why)
    raise HTTPError(
        404,
        private=f"{os.path.basename(path)!r} is not there, or was replaced while it was opened.",
    )


def name_of(fd: int, path: str) -> str | None:
    """Return the resolved path of the open *fd*, which was opened at *path*; None if it is no longer there.

    Linux knows the name of an open file. Elsewhere *path* is resolved again and must be the very same file.
    """
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and not status.st_nlink:
        return None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
    try:
        real = os.path.realpath(path)
        return real if os.path.samestat(os.lstat(real), status) else None
    except OSError:
        return None


def resolved(path: str | os.PathLike[str]) -> str:
    """The real path of a directory, in the letters by which the system will name the files in it."""
    real = os.path.realpath(path)
    try:
        fd = os.open(real, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # Windows opens no directories; or there is none
        return real
    try:
        return name_of(fd, real) or real
    finally:
        os.close(fd)


def has_exact_name(directory: str, name: str) -> bool:
    """Whether *directory* has an entry of exactly these letters, given that it has one that the system takes for it.

    Where letter case counts, no other spelling finds the file, and one look is enough. Else the names themselves
    are compared, which sees through short names (``HELLO~1.RPY``) and ignored characters as well.
    """
    if not LENIENT and _is_plain(name):
        other = name.swapcase()
        if other == name or not os.path.lexists(os.path.join(directory, other)):
            return True
    try:
        return name in os.listdir(directory)
    except OSError as exc:
        if is_too_many_files(exc):
            raise
        return False


def _is_plain(name: str) -> bool:
    """Whether nothing but letter case could make *name* that of another file, on any file system that is mounted.

    A short name has a tilde, and characters that some file systems ignore, or take for others, are no ASCII.
    """
    return name.isascii() and "~" not in name
