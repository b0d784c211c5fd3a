"""Where to listen besides a TCP port: a Unix socket, a descriptor of a parent, those of systemd.

`parse_bind` reads what the command line says, and what it returns is opened by `open_listeners`.
The path of a Unix socket is taken only if nobody listens there: the check, the removal of what a
dead process left behind, and the new socket are one step for all who start at the same time, by a
lock on the directory. At the end the path is removed if it is still ours.

Whatever fails is a `CannotBind`, whose text is for the console.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import trio

from rpyserve.util.text import escape_unprintable

LONGEST_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes that the path of a Unix socket may have: one less than its field in ``sockaddr_un``."""

DEFAULT_MODE: Final = 0o600

BACKLOG: Final = 1024

_FIRST_DESCRIPTOR: Final = 3
"""The first of those that systemd passes; see sd_listen_fds(3)."""

_USAGE: Final = "use unix:PATH, fd:NUMBER, systemd, or ADDRESS:PORT"
_UNIX: Final = re.compile(r"unix:(?P<path>.+?)(?:,mode=(?P<mode>[0-7]{3,4}))?", re.DOTALL)
_TCP: Final = re.compile(r"(?:(?P<host>[^\[\]:]*|\[[^\]]*\]):)?(?P<port>[0-9]{1,5})")


class CannotBind(Exception):
    """A socket cannot be had; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class TCPPort:
    """A TCP port of an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix socket at an absolute path, and who may connect to it, as a file's mode."""

    path: str
    mode: int = DEFAULT_MODE

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open socket that this process was started with."""

    number: int

    def __str__(self) -> str:
        return f"fd:{self.number}"


@dataclass(frozen=True, slots=True)
class Systemd:
    """All sockets that systemd has opened for this process."""

    def __str__(self) -> str:
        return "systemd"


Bind = TCPPort | UnixSocket | Descriptor | Systemd


def parse_bind(text: str) -> Bind:
    """Return what *text* says, as the docs of ``--bind`` have it; a port alone is one of loopback.

    A path is made absolute, as the command changes into the site later.

    Raises:
        ValueError: it says nothing of the kind.
    """
    if text == "systemd":
        return Systemd()
    if found := _UNIX.fullmatch(text):
        return _unix_socket(found["path"], found["mode"])
    if found := re.fullmatch(r"fd:([0-9]{1,9})", text):
        return Descriptor(int(found[1]))
    found = _TCP.fullmatch(text)
    if found is None:
        raise ValueError(f"{_shown(text)} is not a socket: {_USAGE}")
    port = int(found["port"])
    if port > 65535:
        raise ValueError(f"{port} is not a port: the last one is 65535")
    return TCPPort((found["host"] or "127.0.0.1").strip("[]"), port)


def _unix_socket(path: str, mode: str | None) -> UnixSocket:
    if not hasattr(socket, "AF_UNIX") or os.name == "nt":
        raise ValueError(f"{_shown(path)}: this system has no Unix sockets that Python can use")
    absolute = os.path.abspath(path)
    if "\0" in path:
        raise ValueError(f"{_shown(path)} is not a path")
    size = len(os.fsencode(absolute))
    if size > LONGEST_PATH:
        raise ValueError(
            f"{_shown(absolute)} has {size} bytes; the path of a socket may have {LONGEST_PATH}"
        )
    return UnixSocket(absolute, DEFAULT_MODE if mode is None else int(mode, 8))


def open_listeners(bind: UnixSocket | Descriptor | Systemd) -> list[Any]:
    """Open what *bind* says.

    Returns:
        `trio.SocketListener` objects, or others that have their ``socket``.

    Raises:
        CannotBind: it cannot be had.
    """
    match bind:
        case UnixSocket():
            return [_listen_on_path(bind)]
        case Descriptor(number):
            return [_listen_on_descriptor(number)]
        case Systemd():
            return [*map(_listen_on_descriptor, passed_descriptors())]


# Unix sockets


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a Unix socket, and removes its path at the end.

    Args:
        listening: the socket.
        remove: removes the path.

    Attributes:
        socket: the socket, as `trio.SocketListener` has it.
    """

    def __init__(self, listening: socket.socket, remove: Callable[[], None]) -> None:
        self.socket = trio.socket.from_stdlib_socket(listening)
        self._listener = trio.SocketListener(self.socket)
        self._remove = remove

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        self._remove()
        await self._listener.aclose()


def _listen_on_path(bind: UnixSocket) -> UnixListener:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _directory_lock(bind.path):
            _remove_stale(bind.path)
            _bind_with_mode(listening, bind)
            listening.listen(BACKLOG)
            identity = _identity(bind.path)
    except OSError as exc:
        listening.close()
        raise CannotBind(_why_not(bind.path, exc)) from None
    except BaseException:
        listening.close()
        raise
    pid = os.getpid()

    def remove() -> None:
        with suppress(OSError), _directory_lock(bind.path):
            if os.getpid() == pid and _identity(bind.path) == identity:
                os.unlink(bind.path)

    return UnixListener(listening, remove)


def _bind_with_mode(listening: socket.socket, bind: UnixSocket) -> None:
    # Nobody else may connect before the mode is what it shall be.
    before = os.umask(0o177)
    try:
        listening.bind(bind.path)
    finally:
        os.umask(before)
    os.chmod(bind.path, bind.mode)


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended.

    Raises:
        CannotBind: it is no socket, or somebody listens there.
    """
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise CannotBind(f"{_shown(path)} is there already, and is not a socket. It is left alone.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code != errno.ENOENT:
        raise CannotBind(f"{_shown(path)} is in use: another server listens there.")


@contextmanager
def _directory_lock(path: str) -> Iterator[None]:
    import fcntl

    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _why_not(path: str, exc: OSError) -> str:
    directory = os.path.dirname(path)
    if isinstance(exc, FileNotFoundError):
        return f"There is no directory {_shown(directory)} for the socket {_shown(path)}."
    return f"The socket {_shown(path)} cannot be made: {exc.strerror or exc}."


# Descriptors


def _listen_on_descriptor(number: int) -> trio.SocketListener:
    try:
        listening = socket.socket(fileno=number)
    except OSError as exc:
        raise CannotBind(f"Descriptor {number} is not an open socket: {exc.strerror}.") from None
    if why := _why_not_listening(listening):
        listening.detach()
        raise CannotBind(f"Descriptor {number} {why}.")
    os.set_inheritable(number, False)
    listening.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _why_not_listening(candidate: socket.socket) -> str:
    """Have *candidate* listen; say why it cannot."""
    if candidate.type != socket.SOCK_STREAM:
        return "is not a stream socket (SOCK_STREAM)"
    if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    name = candidate.getsockname()
    if not (name[1] if isinstance(name, tuple) else name):
        return "is a socket without an address"
    try:
        candidate.listen(BACKLOG)
    except OSError:
        return "is a connection, not a socket that listens"
    return ""


def are_passed_to_us(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd, or a program like it, has opened sockets for this very process."""
    return environment.get("LISTEN_PID") == str(os.getpid()) and "LISTEN_FDS" in environment


def passed_descriptors() -> list[int]:
    """Return the numbers of the descriptors that systemd has opened for this process.

    No process that is started from now on is told of them; see sd_listen_fds(3).

    Raises:
        CannotBind: there are none for this process.
    """
    pid, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if not pid or not count:
        raise CannotBind("systemd has passed no sockets: start this service by its .socket unit.")
    if pid != str(os.getpid()):
        raise CannotBind(
            f"The sockets in LISTEN_FDS are for process {_shown(pid)}, not for this one "
            f"({os.getpid()}): start rpyserve by `exec`, not from a shell script that waits for it."
        )
    if not re.fullmatch("[1-9][0-9]{0,3}", count):
        raise CannotBind(f"LISTEN_FDS is not a number of sockets: {_shown(count)}.")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [*range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))]


def _shown(text: str) -> str:
    return f"{escape_unprintable(text[:200])!r}"
