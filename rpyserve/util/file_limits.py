"""How many files, connections among them, this process may have open at once.

The limit is Unix's; where there is none, nothing is limited. A part of what the limit allows is
kept from connections, so that a crowd of them leaves scripts and static files something to open.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any, Final

# What the soft limit is raised to: the first of these that the system allows.
#
# macOS refuses some that are below its hard limit.
_WANTED: Final = (65_536, 10_240, 4_096)

# How many descriptors are kept from connections, but no more than a quarter of all.
_RESERVED: Final = 256

ADVICE: Final = (
    "`ulimit -n 65536`, in the shell that starts the server, raises the limit, if the system "
    "allows it."
)


def is_too_many_files(exc: BaseException | None) -> bool:
    """Whether *exc* says that no descriptors are left, in this process or in the whole system."""
    return isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)


def limit() -> int | None:
    """Return how many descriptors may be open at once; None if that is unlimited or unknown."""
    resource = _resource()
    if resource is None:
        return None
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int | None:
    """Raise the limit as far as is useful and allowed; never lower it. Return the limit then."""
    resource = _resource()
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in _WANTED:
            if hard != resource.RLIM_INFINITY:
                wanted = min(wanted, hard)
            if soft == resource.RLIM_INFINITY or soft >= wanted:
                break
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return limit()


def max_connections() -> int | None:
    """Return how many connections may be open at once; None for any number."""
    descriptors = limit()
    if descriptors is None:
        return None
    return descriptors - min(_RESERVED, descriptors // 4)


class SpareDescriptor:
    """A descriptor that is held while inside, for a new connection when all others are in use."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        self.hold()

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """Hold one, if there is one and none is held."""
        if self._descriptor is None:
            with suppress(OSError, MemoryError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY)

    def release(self) -> bool:
        """Give it back to the system. Returns whether there was one."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None


def _resource() -> Any:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource
