"""Temporary files for what a request brings: in memory while it is small, then on disk, gone with the request.

The file on disk has no name, or loses it when it is closed, so nothing stays behind whatever happens. A full disk is
an answer of its own. Knows nothing of requests.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import BinaryIO, Final, cast

from rpyserve.errors import HTTPError

__all__ = ["SPOOL_SIZE", "full_is_507", "temporary"]

SPOOL_SIZE: Final = 2**19
"""How many bytes of a body stay in memory."""

_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def temporary(on_close: Callable[[Callable[[], object]], object], in_memory: int = SPOOL_SIZE) -> BinaryIO:
    """Return a new binary file.

    Args:
        on_close: is given what must be called to let go of it.
        in_memory: how many bytes it may have before it goes to disk.
    """
    # It lives as long as its request.
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=in_memory))  # noqa: SIM115
    on_close(partial(_discard, file))
    return file


@contextmanager
def full_is_507() -> Iterator[None]:
    """While inside, an error that says that the disk is full is an `HTTPError`, 507."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        why = (
            f"A body did not fit into {tempfile.gettempdir()}, where large ones are kept meanwhile: {exc.strerror}. "
            "The environment variable TMPDIR names another place."
        )
        raise HTTPError(507, "The server has no room for this.", private=why) from None


def _discard(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk may refuse what is still to be written
        file.close()
