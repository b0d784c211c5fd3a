"""A flood is told once a minute, with its size."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import trio

from rpyserve.util.throttle import MAX_KEYS, ThrottledLogger


async def test_once_a_minute_with_counts(autojump_clock: Any, caplog: Any) -> None:
    lines = ThrottledLogger(logging.getLogger("rpyserve"))
    logged = [lines.warn("number %d", n) for n in range(1500)]
    assert logged == [True] + [False] * 1499
    await trio.sleep(60)
    assert lines.warn("number %d of 100%%", 7)
    await trio.sleep(61)
    assert lines.warn("again")
    assert [record.getMessage() for record in caplog.records] == [
        "number 0", "number 7 of 100% (1,499 more since the last such line)", "again",
    ]  # fmt: skip


def test_each_key_by_itself(caplog: Any) -> None:
    now = [0.0]
    lines = ThrottledLogger(logging.getLogger("rpyserve"), 10, lambda: now[0])
    assert [lines.warn("%s", key, key=key) for key in "aabab"] == [True, False, True, False, False]
    now[0] = 10
    assert lines.warn("%s", "a", key="a") and not lines.warn("%s", "a", key="a")
    assert [record.getMessage() for record in caplog.records] == [
        "a",
        "b",
        "a (2 more since the last such line)",
    ]


def test_once_and_never_again(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "rpyserve")
    lines = ThrottledLogger(logging.getLogger("rpyserve"), math.inf, time.monotonic)
    assert [lines.log(logging.INFO, "said") for _ in range(3)] == [True, False, False]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "said")
    ]


def test_of_many_keys_the_oldest_is_forgotten() -> None:
    lines = ThrottledLogger(logging.getLogger("rpyserve"), math.inf, time.monotonic)
    for number in range(MAX_KEYS + 1):
        assert lines.warn("", key=number)
    assert lines.warn("", key=0)
    assert not lines.warn("", key=MAX_KEYS)
