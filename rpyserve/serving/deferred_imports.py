"""Imports what the first answer does not need after that answer, so that a server is there at once.

It must not happen too late either: a process that may open no more files can import nothing, and
would have no page that says so. If that is so already, it is tried again later. One module is
imported in each turn of the loop, so that requests come between two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import trio

__all__ = ["import_deferred"]

QUIET: Final = 1.0
"""Seconds without a first request after which the imports begin anyway."""

PAUSE: Final = 0.005
"""Seconds between two imports, in which requests are answered."""

RETRY: Final = 1.0
"""Seconds after which an import that failed is tried again."""

log = logging.getLogger("rpyserve")


async def import_deferred(answered: trio.Event) -> None:
    """Import all that the server may need later.

    Args:
        answered: set once there was a first answer.
    """
    with trio.move_on_after(QUIET):
        await answered.wait()
    has_failed = False
    while True:
        try:
            for _ in _imports():
                await trio.sleep(PAUSE)
            return
        except Exception as exc:
            if not has_failed:
                log.warning("A part of rpyserve cannot be imported now: %s. Trying again.", exc)
            has_failed = True
        await trio.sleep(RETRY)


def _imports() -> Iterator[None]:
    """Import one more module each time that a value is asked for."""
    yield
    import rpyserve.resources.pages

    yield
    import rpyserve.diagnostics.advice

    yield
    import rpyserve.diagnostics.describe

    yield
    import rpyserve.diagnostics.error_page

    yield
    import rpyserve.files.static_file

    yield
    import rpyserve.livereload.csp

    yield
    import rpyserve.check.state_loss

    yield
    import rpyserve.sessions.migration  # noqa: F401
