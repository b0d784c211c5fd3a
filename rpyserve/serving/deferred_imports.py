"""Imports of what the first answer does not need, so that a server is there at once.

They must not happen too late either: a process that may open no more files can import nothing, and
would have no page that says so.
"""

from __future__ import annotations

import importlib
import logging
from typing import Final

import trio

# Seconds without a first answer after which the imports begin anyway.
WAIT: Final = 1.0

# Seconds between two imports, in which requests are answered.
PAUSE: Final = 0.005

# Seconds after which an import that failed is tried again.
RETRY: Final = 1.0

# What is imported, in this order.
MODULES: Final = (
    "rpyserve.resources.pages",
    "rpyserve.diagnostics.advice",
    "rpyserve.diagnostics.describe",
    "rpyserve.diagnostics.error_page",
    "rpyserve.files.static_file",
    "rpyserve.check.state_loss",
    "rpyserve.sessions.migration",
)

log = logging.getLogger("rpyserve")


async def import_deferred(answered: trio.Event) -> None:
    """Import `MODULES`, one in each turn of the loop, once the event *answered* is set."""
    with trio.move_on_after(WAIT):
        await answered.wait()
    has_failed = False
    while True:
        try:
            for name in MODULES:
                await trio.sleep(PAUSE)
                importlib.import_module(name)
            return
        except Exception as exc:
            if not has_failed:
                log.warning("A part of rpyserve cannot be imported now: %s. Trying again.", exc)
            has_failed = True
        await trio.sleep(RETRY)
