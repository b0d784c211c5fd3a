"""One server a site: whoever would start a second one is told where the first is.

The server of a directory holds a lock on a file, and writes its URL there; a further one, which
somebody wanted all the same, has a file with a number. The system gives the lock back however the
server ends, so a file that nobody holds means nothing, whatever it says. The file is outside the
site, where only its user can read it, and its name begins with a dot, so that no server has it
among its pages. Where there can be none, as on Windows or without a place to write, servers do not
know of each other, and that is no error.

Locks are those of POSIX: a process that a script forks does not inherit them. They are lost when
the process closes any descriptor of the file, so nothing else here opens that of its own server.
"""

from __future__ import annotations

import atexit
import os
import stat
import struct
import sys
import time
from collections.abc import Callable
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

# How many servers of one site are found.
MAX_SERVERS: Final = 8

# ``struct flock`` up to what is needed of it: type, whence, start, length, process. The second is
# that of macOS and the BSDs, where those come first that are last in the first.
_FLOCK: Final = "hhxxxxqqi" if sys.platform == "linux" else "qqihh"
_FLOCK_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves the site already.

    Args:
        url: where; empty if it does not say so.
        pid: the number of its process; 0 if it does not say so.
        since: when it began, in words.
        token: what it wants to hear of those who ask it to do something; empty for nothing.
    """

    url: str = ""
    pid: int = 0
    since: str = ""
    token: str = ""


class Unusable(Exception):
    """A run file is there that is not to be used; the text says why."""


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

    def publish(self, url: str, token: str = "") -> None:
        """Say that the site is at *url*, and does what is asked of it with *token*."""
        lines = [str(self._pid), self._since, url, *([token] if token else []), ""]
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
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


def claim(
    directory: Path, *, further: bool = False, tell: Callable[[str], object] = str
) -> Claim | Running | None:
    """Claim to be the server of *directory*, a resolved path.

    Waits for a moment if another has just begun, until it says where it is, or has failed.

    Args:
        further: whether to be one more if there is one.
        tell: is called with a line if other commands cannot find this server.

    Returns:
        The one that serves it already, if there is one; None if nobody can know.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    place = _place()
    if place is None:
        tell("No place for a run file: rpyserve --inspect does not find this server.")
        return None
    path = os.path.join(place, _name_for(directory))
    try:
        return _claim_more(path, fcntl) if further else _wait_claim(path, fcntl)
    except OSError as exc:
        tell(f"The run file {path} cannot be written ({exc.strerror}): --inspect is without it.")
        return None


def _wait_claim(path: str, fcntl: Any) -> Claim | Running | None:
    deadline = time.monotonic() + MAX_WAIT
    while True:
        found = _try_claim(path, fcntl)
        if isinstance(found, Claim) or (found and found.url):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(PAUSE)


def _claim_more(path: str, fcntl: Any) -> Claim | Running | None:
    for each in _paths(path):
        found = _try_claim(each, fcntl)
        if isinstance(found, Claim):
            return found
    return None


def _paths(path: str) -> list[str]:
    return [path, *(f"{path}-{number}" for number in range(2, MAX_SERVERS + 1))]


def find(directory: Path) -> list[Running]:
    """Return the servers of *directory*, or of the nearest directory around it that has any.

    Raises:
        Unusable: there is a run file that is not to be used.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise Unusable("Servers are not found on Windows, which has no locks of POSIX.") from None
    place = _place()
    if place is None:
        return []
    for each in (directory, *directory.parents):
        paths = _paths(os.path.join(place, _name_for(each)))
        if found := [running for path in paths if (running := _look(path, fcntl))]:
            return found
    return []


def _look(path: str, fcntl: Any) -> Running | None:
    """The server that holds the file *path*; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unusable(f"The run file {path} is not used: {_why(path, exc)}.") from None
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise Unusable(f"The run file {path} is not used: it is another user's.")
        holder = _holder(descriptor, fcntl)
        running = _read(descriptor)
        return running if holder and running.url and running.pid == holder else None
    finally:
        os.close(descriptor)


def _why(path: str, exc: OSError) -> str:
    return "it is a link" if os.path.islink(path) else exc.strerror or str(exc)


def _holder(descriptor: int, fcntl: Any) -> int:
    """The number of the process that has the lock of the file; 0 if none has it."""
    if _FLOCK.startswith("h"):
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    else:
        asked = struct.pack(_FLOCK, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    told = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked.ljust(_FLOCK_SIZE, b"\0"))
    fields = struct.unpack_from(_FLOCK, told)
    kind, pid = (fields[0], fields[4]) if _FLOCK.startswith("h") else (fields[3], fields[2])
    return 0 if kind == fcntl.F_UNLCK else int(pid)


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
    if len(lines) not in (4, 5) or not lines[0].isdecimal():
        return Running()
    token = lines[3] if len(lines) == 5 else ""
    return Running(url=lines[2], pid=int(lines[0]), since=lines[1], token=token)


def _is_in_place(path: str, descriptor: int) -> bool:
    """Whether the open file is still the one called *path*."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _name_for(directory: Path) -> str:
    import hashlib

    return "." + hashlib.blake2b(os.fsencode(directory), digest_size=16).hexdigest()


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
