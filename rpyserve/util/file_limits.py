"""Open files, connections among them: how many this process may have, and what it means to have run out.

A limit is Unix's; where there is none, all of this does nothing. A part of what the limit allows is kept from
connections, so that a crowd of them leaves scripts and static files something to open. Decides only; `server` and
`site` act on it.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Any, Final

__all__ = ["ADVICE", "is_too_many_files", "limit", "most_connections", "raise_limit"]

WANTED: Final = (65_536, 10_240, 4_096)
"""What a soft limit is raised to, the first of these that the system allows. macOS has a limit beyond the hard one."""
KEPT: Final = 256
"""How many descriptors are kept from connections, but no more than a quarter of all."""

ADVICE: Final = "`ulimit -n 65536`, in the shell that starts the server, raises the limit, if the system allows it."

_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})


def is_too_many_files(exc: BaseException | None) -> bool:
    """Whether *exc* says that there are no descriptors left, here or in the whole system."""
    return isinstance(exc, OSError) and exc.errno in _NONE_LEFT


def limit() -> int | None:
    """Return how many descriptors this process may have open at once; None if that is unlimited or unknown."""
    resource = _resource()
    if resource is None:
        return None
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int | None:
    """Raise the limit as far as is of use and allowed; it is never lowered. Returns what it is then."""
    resource = _resource()
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in WANTED:
            wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            if soft == resource.RLIM_INFINITY or wanted <= soft:
                break
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return limit()


def most_connections() -> int | None:
    """Return how many connections may be open at once under the present limit; None for any number."""
    most = limit()
    return None if most is None else most - min(KEPT, most // 4)


def _resource() -> Any:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource
