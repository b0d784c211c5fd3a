"""What is imported after the first answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from rpyserve.serving.deferred_imports import MODULES, PAUSE, RETRY, WAIT, import_deferred

LATE = "rpyserve.check.state_loss"


async def test_it_waits_for_the_first_answer(
    autojump_clock: Any, nursery: trio.Nursery, monkeypatch: Any
) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    answered = trio.Event()
    nursery.start_soon(import_deferred, answered)
    await trio.sleep(WAIT / 2)
    assert LATE not in sys.modules
    answered.set()
    await trio.sleep(PAUSE * 2 * len(MODULES))
    assert LATE in sys.modules


async def test_it_does_not_wait_for_ever(autojump_clock: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    with trio.fail_after(WAIT + RETRY):  # each can be imported at the first attempt
        await import_deferred(trio.Event())
    assert set(MODULES) <= sys.modules.keys()


class NoFile:
    """What finds modules in a process that may open no more files."""

    def find_spec(self, name: str, *args: Any) -> None:
        if name == LATE:
            raise OSError(24, "Too many open files")


async def test_it_tries_again_when_files_have_run_out(
    autojump_clock: Any,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoFile(), *sys.meta_path])
    nursery.start_soon(import_deferred, trio.Event())
    await trio.sleep(WAIT + 5 * RETRY)
    assert LATE not in sys.modules
    assert caplog.text.count("Too many open files") == 1
    monkeypatch.undo()
    await trio.sleep(2 * RETRY)
    assert LATE in sys.modules
