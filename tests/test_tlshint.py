"""Who speaks TLS to a plain port is answered as well as can be, and the console says so, now and then."""

from __future__ import annotations

import math
from typing import Any

import pytest
from wire import answering

from rpyserve import tlshint

HELLO = bytes.fromhex("16030100f8010000f40303")


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(tlshint, "_last", -math.inf)
    monkeypatch.setattr(tlshint, "monotonic", lambda: time[0])
    return time


async def test_console_says_where_the_page_is(connect: Any, caplog: Any) -> None:
    for _ in range(3):
        client = connect(answering("never"))
        await client.send(HELLO)
        assert b"This port speaks http://, not https://." in await client.rest()
    (record,) = caplog.records
    assert record.getMessage() == (
        "Someone asked for https://, which is not spoken here. The page is at http://127.0.0.1:8080/"
    )


def test_it_is_told_once_a_minute(now: list[float], caplog: Any) -> None:
    for now[0] in (0, 1, 59.9, 60, 61, 120):
        tlshint.tell_of_tls(("::1", 80))
    assert [record.getMessage().partition("http://")[2] for record in caplog.records] == ["[::1]:80/"] * 3
