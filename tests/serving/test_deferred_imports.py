"""What is imported after the first answer."""

from __future__ import annotations

import sys
from typing import Any

import trio

from rpyserve.serving.deferred_imports import PAUSE, QUIET, import_deferred

LATE = "rpyserve.check.state_loss"


async def test_it_waits_for_the_first_answer(
    autojump_clock: Any, nursery: trio.Nursery, monkeypatch: Any
) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    answered = trio.Event()
    nursery.start_soon(import_deferred, answered)
    await trio.sleep(QUIET / 2)
    assert LATE not in sys.modules
    answered.set()
    await trio.sleep(PAUSE * 20)
    assert LATE in sys.modules


async def test_it_does_not_wait_for_ever(autojump_clock: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    await import_deferred(trio.Event())
    assert LATE in sys.modules
