"""Sync calls that took long are reported, each name once a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from rpyserve.util.slow_calls import SlowCallLog
from rpyserve.util.throttle import MAX_KEYS


@pytest.fixture
def lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger("rpyserve"), "propagate", True)
    caplog.set_level(logging.INFO, "rpyserve")
    return lambda: [record.getMessage() for record in caplog.records]


class Calls:
    """Calls that take as long as they are told, in a log of their own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.log: SlowCallLog

    def __call__(self) -> float:
        return self.now

    def take(self, name: str, seconds: float) -> None:
        self.log.report_script(name, seconds)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(time, "monotonic", calls)
    calls.log = SlowCallLog()
    return calls


def test_slow_code_is_named_once_a_minute(lines: Callable[[], list[str]], calls: Calls) -> None:
    calls.take("/fast", 0.09)
    calls.take("/slow", 0.35)
    calls.take("/slow", 0.35)
    calls.take("/other", 1.5)
    assert [line.split(",")[0] for line in lines()] == ["/slow took 350 ms", "/other took 1.5 s"]
    assert "async def" in lines()[0]
    assert "trio.to_thread.run_sync" in lines()[0]
    calls.now += 60
    calls.take("/slow", 0.35)
    assert len(lines()) == 3


def test_labels_are_not_kept_for_ever(lines: Callable[[], list[str]], calls: Calls) -> None:
    for number in range(2500):
        calls.take(f"/{number}", 0.2)
    assert len(calls.log._lines._next_times) <= MAX_KEYS
