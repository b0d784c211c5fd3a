"""What a socket takes without more ado, where the platform has that: bytes at once, and those of a file by the kernel.

A file of 10 MiB takes a fifth of the processor time so. TLS has to see the bytes, and Windows has no such call: there,
and on a file system that cannot do it, whoever asks goes on by reading. Knows nothing of HTTP.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import trio

__all__ = ["descriptor_of", "send_range", "write_at_once"]

MOST: Final = 1024 * 1024
"""How many bytes are handed over before other tasks have their turn."""
_NOT_HERE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EOVERFLOW})


def descriptor_of(stream: trio.abc.Stream, file: BinaryIO) -> int | None:
    """Return the descriptor of *file* if its bytes can go to *stream* by the kernel; else None."""
    if not (isinstance(stream, trio.SocketStream) and hasattr(os, "sendfile")):
        return None
    try:
        return file.fileno()
    except OSError:  # a file in memory has none
        return None


def write_at_once(stream: trio.abc.Stream, data: bytes) -> int:
    """Send of *data* what the system takes without waiting, to a *stream* to which nobody else sends.

    Returns:
        How many bytes that was; 0 as well where it cannot be done, or fails: then `send_all` says why.
    """
    if os.name != "posix" or not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


async def send_range(stream: Any, file: int, part: range, note: Callable[[int], object]) -> int:
    """Send *part* of the open *file*, whose position does not matter.

    Args:
        stream: a `trio.SocketStream`, to which nobody else sends.
        note: called with each number of bytes that the system has taken.

    Returns:
        How many were sent: fewer than *part* has only if the system cannot do it with this file.

    Raises:
        EOFError: the file has become shorter.
        OSError: reading it, or sending, failed.
    """
    socket, sent = stream.socket, 0
    while sent < len(part):
        try:
            count = os.sendfile(socket.fileno(), file, part.start + sent, min(len(part) - sent, MOST))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(socket)
            continue
        except OSError as exc:
            if exc.errno in _NOT_HERE:
                break
            raise
        if not count:
            raise EOFError("the file became shorter while it was sent")
        sent += count
        note(count)
        await trio.lowlevel.checkpoint()
    return sent
