"""What is imported after the first answer."""

from __future__ import annotations

import sys
from typing import Any

import trio

from rpyserve.serving import run
from rpyserve.serving.run import PATIENCE, PAUSE, import_the_rest


async def test_it_waits_for_the_first_answer(autojump_clock: Any, nursery: trio.Nursery, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "rpyserve.check.state_loss", raising=False)
    answered = trio.Event()
    nursery.start_soon(import_the_rest, answered)
    await trio.sleep(PATIENCE / 2)
    assert "rpyserve.check.state_loss" not in sys.modules
    answered.set()
    await trio.sleep(PAUSE * (len(run._REST) + 1))
    assert "rpyserve.check.state_loss" in sys.modules


async def test_it_does_not_wait_for_ever(autojump_clock: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "rpyserve.check.state_loss", raising=False)
    await import_the_rest(trio.Event())
    assert "rpyserve.check.state_loss" in sys.modules
