"""One server a site: whoever would start a second one is told where the first is.

The server of a directory holds a lock on a file, and writes its URL there. The system gives the
lock back however the server ends, so a file that nobody holds means nothing, whatever it says. The
file is outside the site, where only its user can read it. Where there can be none, as on Windows
or without a place to write, servers do not know of each other, and that is no error.

Locks are those of POSIX: a process that a script forks does not inherit them. They are lost when
the process closes any descriptor of the file, so nothing else here opens that of its own server.
"""

from __future__ import annotations

import atexit
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Seconds for which a server that has just begun may not know its URL yet.
MAX_WAIT: Final = 10.0

# Seconds from one look at its file to the next.
PAUSE: Final = 0.05

# Bytes that a run file has at most.
MAX_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves the site already.

    Args:
        url: where; empty if it does not say so.
        pid: the number of its process; 0 if it does not say so.
        since: when it began, in words.
    """

    url: str = ""
    pid: int = 0
    since: str = ""


class Claim:
    """That this process serves the site. It lasts until `release`, or the end of the process.

    Args:
        path: the run file.
        descriptor: the file, opened and locked.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.publish("")
        atexit.register(self.release)

    def publish(self, url: str) -> None:
        """Say that the site is at *url*."""
        text = f"{self._pid}\n{self._since}\n{url}\n".encode("utf-8", "surrogateescape")
        with suppress(OSError):  # a full disk
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Remove the file, and let others serve the site."""
        atexit.unregister(self.release)
        if os.getpid() != self._pid:
            return  # a process that a script has forked
        with suppress(OSError):
            if _is_in_place(self._path, self._descriptor):
                os.unlink(self._path)
        with suppress(OSError):
            os.close(self._descriptor)


def claim(directory: Path) -> Claim | Running | None:
    """Claim to be the server of *directory*, a resolved path.

    Waits for a moment if another has just begun, until it says where it is, or has failed.

    Returns:
        The one that serves it already, if there is one; None if nobody can know.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    place = _place()
    if place is None:
        return None
    path = os.path.join(place, _name_for(directory))
    deadline = time.monotonic() + MAX_WAIT
    with suppress(OSError):
        while True:
            found = _try_claim(path, fcntl)
            if isinstance(found, Claim) or (found and found.url):
                return found
            if time.monotonic() > deadline:
                return found
            time.sleep(PAUSE)
    return None


def _try_claim(path: str, fcntl: Any) -> Claim | Running | None:
    """The claim, or who has it; None if the file has just been removed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    keeps = False
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return _read(descriptor)
        if not _is_in_place(path, descriptor):
            return None  # the server before removed it, after it was opened here
        keeps = True
        return Claim(path, descriptor)
    finally:
        if not keeps:
            os.close(descriptor)


def _read(descriptor: int) -> Running:
    """What the server that holds the lock has written so far."""
    text = os.pread(descriptor, MAX_SIZE, 0).decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    if len(lines) != 4 or not lines[0].isdecimal():
        return Running()
    return Running(url=lines[2], pid=int(lines[0]), since=lines[1])


def _is_in_place(path: str, descriptor: int) -> bool:
    """Whether the open file is still the one called *path*."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _name_for(directory: Path) -> str:
    import hashlib

    return hashlib.blake2b(os.fsencode(directory), digest_size=16).hexdigest()


def _place() -> str | None:
    """The directory for run files, which is this user's alone; None if there is none."""
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    with suppress(OSError):
        if os.stat(runtime).st_uid == user and (place := _private(f"{runtime}/rpyserve")):
            return place
    import tempfile

    with suppress(OSError):
        return _private(os.path.join(tempfile.gettempdir(), f"rpyserve-{user}"))
    return None


def _private(place: str) -> str | None:
    """Make the directory *place*; None if it is there, and others can reach into it."""
    with suppress(FileExistsError):
        os.mkdir(place, 0o700)
    found = os.lstat(place)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return place if is_ours and not found.st_mode & 0o077 else None
