"""What the disk says of a name: its letters, its real path, and the open file behind it.

Open first, then judge: the path that the *open* file has is what is judged, so that a link swapped
in between leads nowhere. Nothing here blocks on anything but regular files, and nothing knows
requests or URLs.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, Final

from rpyserve.http.errors import HTTPError
from rpyserve.scripts.file_state import raise_unless_absent

# Whether file systems of this platform accept other letters, or short names, for a file.
LENIENT: Final = os.name == "nt" or sys.platform == "darwin"

_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)  # Windows would change line ends
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # what became a FIFO in between must not block the server
    | getattr(os, "O_NOCTTY", 0)
)

# How often a file is opened that is replaced meanwhile.
_ATTEMPTS: Final = 5

# Windows: the attribute of junctions, and of files that a cloud keeps elsewhere.
_REPARSE_POINT: Final = 0x400


def is_link(status: os.stat_result) -> bool:
    """Whether *status*, of `os.lstat`, is that of a symbolic link, or of a junction on Windows."""
    if stat.S_ISLNK(status.st_mode):
        return True
    return bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)


def open_checked(
    path: str | os.PathLike[str], judge: Callable[[str], str]
) -> tuple[BinaryIO, os.stat_result]:
    """Open the regular file at *path*, and return it with its stat, if *judge* allows that.

    Args:
        judge: is given the resolved path that the open file has, and returns the reason to refuse
            it, or nothing.

    Raises:
        HTTPError: 404 if there is no such file or it must not be sent, 403 if it may not be read,
            503 if the disk fails.
        OSError: there are no file descriptors left.
    """
    name = os.path.basename(path)
    for _ in range(_ATTEMPTS):
        try:
            real = os.path.realpath(path)
            if not stat.S_ISREG(os.lstat(real).st_mode):
                raise HTTPError(404, private=f"{name!r} is not a file.")
            file = os.fdopen(os.open(real, _FLAGS), "rb", buffering=0)
        except PermissionError:
            why = f"rpyserve is not allowed to read {os.fspath(path)!r}."
            raise HTTPError(403, private=why) from None
        except (OSError, ValueError) as exc:
            raise_unless_absent(os.fspath(path), exc)
            break
        status = _status_if_allowed(file, real, judge)
        if status is not None:
            return file, status
    raise HTTPError(404, private=f"{name!r} is not there, or was replaced while it was opened.")


def _status_if_allowed(
    file: BinaryIO, path: str, judge: Callable[[str], str]
) -> os.stat_result | None:
    """Return the stat of *file*, opened at *path*; None if it has been replaced since.

    Unless the stat is returned, *file* is closed.

    Raises:
        HTTPError: 404, *judge* refuses it.
    """
    allowed = False
    try:
        status = os.fstat(file.fileno())
        real = _name_of(file.fileno(), path, status)
        if real is None:
            return None
        if why := judge(real):
            raise HTTPError(404, private=why)
        allowed = stat.S_ISREG(status.st_mode)
        return status if allowed else None
    finally:
        if not allowed:
            file.close()


def _name_of(fd: int, path: str, status: os.stat_result) -> str | None:
    """Return the resolved path of *fd*, opened at *path*; None if it is no longer there.

    Linux knows the name of an open file. Elsewhere *path* is resolved again and must be the very
    same file.

    Args:
        status: the stat of *fd*.
    """
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
    """Return the real path of a directory, in the letters that the system uses for its files."""
    real = os.path.realpath(path)
    try:
        fd = os.open(real, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # Windows opens no directories; or there is none
        return real
    try:
        return _name_of(fd, real, os.fstat(fd)) or real
    finally:
        os.close(fd)


def has_exact_name(directory: str, name: str) -> bool:
    """Whether *directory* has an entry of exactly these letters.

    Ask only if it has one that the system takes for *name*.

    Where letter case counts, no other spelling finds the file, and one look is enough. Else the
    names themselves are compared, which sees through short names (``HELLO~1.RPY``) and ignored
    characters as well.
    """
    # A short name has a tilde, and what some file systems ignore or take for others is not ASCII.
    if not LENIENT and name.isascii() and "~" not in name:
        other = name.swapcase()
        if other == name or not os.path.lexists(os.path.join(directory, other)):
            return True
    try:
        return name in os.listdir(directory)
    except OSError as exc:
        raise_unless_absent(directory, exc)
        return False
