"""Imports what the first answer does not need, after it, so that a server is there at once and no later page waits.

It must not happen too late either: where there are no more files that a process may open, nothing can be imported,
and the page that says so would have no way to come. One module is imported in each turn of the loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import trio

__all__ = ["import_the_rest"]

PATIENCE: Final = 1.0
"""Seconds after which nobody seems to ask for anything just now."""
PAUSE: Final = 0.005
"""Seconds for others between two modules."""

_REST: Final = (
    "pages", "failures", "errortext", "errorpage", "tracebacks", "diagnosis", "hints", "static", "policy", "losses",
    "reports", "renewal", "carryover",
)  # fmt: skip


async def import_the_rest(answered: trio.Event) -> None:
    """Import all that the server may need later.

    Args:
        answered: set once there was a first answer.
    """
    with trio.move_on_after(PATIENCE):
        await answered.wait()
    for name in _REST:
        await trio.sleep(PAUSE)
        import_module(f"rpyserve.{name}")
