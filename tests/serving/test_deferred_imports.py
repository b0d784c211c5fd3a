"""What is imported after the first answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from rpyserve.serving.run import (
    DEFERRED,
    FIRST_ANSWER,
    IMPORT_PAUSE,
    IMPORT_RETRY,
    import_deferred,
)

LATE = "rpyserve.check.state_loss"


async def test_it_waits_for_the_first_answer(
    autojump_clock: Any, nursery: trio.Nursery, monkeypatch: Any
) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    answered = trio.Event()
    nursery.start_soon(import_deferred, answered)
    await trio.sleep(FIRST_ANSWER / 2)
    assert LATE not in sys.modules
    answered.set()
    await trio.sleep(IMPORT_PAUSE * 2 * len(DEFERRED))
    assert LATE in sys.modules


async def test_it_does_not_wait_for_ever(autojump_clock: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, LATE, raising=False)
    with trio.fail_after(FIRST_ANSWER + IMPORT_RETRY):  # each can be imported at the first attempt
        await import_deferred(trio.Event())
    assert set(DEFERRED) <= sys.modules.keys()


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
    await trio.sleep(FIRST_ANSWER + 5 * IMPORT_RETRY)
    assert LATE not in sys.modules
    assert caplog.text.count("Too many open files") == 1
    monkeypatch.undo()
    await trio.sleep(2 * IMPORT_RETRY)
    assert LATE in sys.modules
