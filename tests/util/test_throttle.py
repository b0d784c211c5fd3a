"""A flood is told once a minute, with its size."""

from __future__ import annotations

import logging
from typing import Any

import trio

from rpyserve.util.throttle import ThrottledLogger


async def test_once_a_minute_with_counts(autojump_clock: Any, caplog: Any) -> None:
    seldom = ThrottledLogger(logging.getLogger("rpyserve"))
    told = [seldom.warn("number %d", n) for n in range(1500)]
    assert told == [True] + [False] * 1499
    await trio.sleep(60)
    assert seldom.warn("number %d of 100%%", 7)
    await trio.sleep(61)
    assert seldom.warn("again")
    assert [record.getMessage() for record in caplog.records] == [
        "number 0", "number 7 of 100% (1,499 more since the last such line)", "again",
    ]  # fmt: skip
