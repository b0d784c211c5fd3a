"""The recorder: which requests it keeps, how much of them, and whom it wakes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rpyserve.http.request import BODY_START, Request, RequestRecord
from rpyserve.inspector.recorder import (
    LOOK,
    MOST_BODIES,
    MOST_PINNED,
    MOST_RECORDS,
    Forgotten,
    Recorder,
    TooManyPinned,
)


def begun(target: str = "/") -> RequestRecord:
    request = Request("GET", target)
    return RequestRecord(request, "GET", target, b"", ("127.0.0.1", 1), 0.0)


def end(recorder: Recorder, record: RequestRecord, body: bytes = b"") -> None:
    record.seconds, record.status, record.complete = 0.1, 200, True
    record.response_start, record.sent = body, len(body)
    recorder.keep(record)
    record.request = None


def recorded(recorder: Recorder, body: bytes = b"", target: str = "/") -> RequestRecord:
    record = begun(target)
    end(recorder, record, body)
    return record


def test_records_have_numbers_and_are_found_by_them() -> None:
    recorder = Recorder()
    first, second = recorded(recorder, target="/a"), recorded(recorder, target="/b")
    assert [each.number for each in recorder.records()] == [1, 2]
    assert recorder.get(1) is first and recorder.get(2) is second


async def test_those_that_run_are_there_too(autojump_clock: Any) -> None:
    running = [begun("/stream"), begun("/-/events"), begun("/other")]
    running[2].started = -1.0
    recorder = Recorder(running=lambda: running)
    recorded(recorder)
    assert [each.target for each in recorder.records()] == ["/", "/other", "/stream"]
    assert [each.number for each in running] == [3, 0, 2]
    assert recorder.get(3) is running[0]
    end(recorder, running.pop(0))
    assert recorder.get(3).seconds is not None
    assert [each.number for each in recorder.records()] == [1, 2, 3]


def test_what_could_not_be_read_is_recorded() -> None:
    recorder = Recorder()
    record = RequestRecord(None, "", "", b"", ("127.0.0.1", 1), 0.0)
    end(recorder, record)
    assert recorder.get(1) is record


def test_what_nobody_has_noted_is_not_known() -> None:
    record = begun()
    assert (record.script, record.session, record.printed, record.held) == (None, None, None, 0.0)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        record.nothing_like_it  # noqa: B018


def test_the_ring_forgets_the_oldest_and_says_so() -> None:
    recorder = Recorder()
    for _ in range(3):
        recorded(recorder, b"x" * 10)
    assert [each.number for each in recorder.records()] == [1, 2, 3]
    for _ in range(MOST_RECORDS):
        recorded(recorder, b"x" * 10)
    assert recorder.records()[0].number == 4
    assert len(recorder.records()) == MOST_RECORDS
    assert recorder.kept_bytes == 10 * MOST_RECORDS
    with pytest.raises(Forgotten, match=r"request 3 is forgotten; the last 500 are kept"):
        recorder.get(3)
    for number in (0, -5, MOST_RECORDS + 4):
        with pytest.raises(KeyError):
            recorder.get(number)


async def test_when_it_began(autojump_clock: Any) -> None:
    record = begun()
    record.started = trio.current_time()
    await trio.sleep(500)
    assert 499 < time.time() - record.at < 501
    record.seconds = 0.5
    record.response_head = SimpleNamespace(headers=(), second=int(time.time()) - 500)
    assert 499 < time.time() - record.at < 501
    record.response_head = SimpleNamespace(
        headers=(), second=int(time.time()) - 5000
    )  # the machine slept
    assert 4999 < time.time() - record.at < 5002


def test_pinned_ones_are_kept_and_so_are_their_bodies() -> None:
    recorder = Recorder()
    for _ in range(MOST_PINNED):
        recorded(recorder, b"pinned")
        recorder.pin(recorder.number)
    recorded(recorder)
    with pytest.raises(TooManyPinned):
        recorder.pin(recorder.number)
    for _ in range(2 * MOST_RECORDS):
        recorded(recorder, b"x" * 16_000)
    assert recorder.get(1).response_body.kept == b"pinned"
    recorder.unpin(1)
    with pytest.raises(Forgotten):
        recorder.get(1)
    assert len(recorder.records()) == MOST_RECORDS + MOST_PINNED - 1


def test_long_bodies_have_their_beginning() -> None:
    recorder = Recorder()
    record = recorded(recorder, b"ab" * 10_000)
    body = record.response_body
    assert (body.size, body.kept, body.whole) == (20_000, b"ab" * (BODY_START // 2), False)
    assert recorder.kept_bytes == BODY_START


def test_the_oldest_bodies_make_room() -> None:
    recorder = Recorder()
    count = MOST_BODIES // 16_384 + 10
    for _ in range(count):
        recorded(recorder, bytes(16_384))
        assert recorder.kept_bytes <= MOST_BODIES
    lacking = [each for each in recorder.records() if each.response_body.kept is None]
    assert [each.number for each in lacking] == list(range(1, len(lacking) + 1))
    assert recorder.kept_bytes > MOST_BODIES * 3 / 4
    assert all(each.response_body.size == 16_384 for each in lacking)


async def test_a_request_wakes_who_waits(autojump_clock: Any) -> None:
    recorder = Recorder()
    heard: list[float] = []

    async def wait() -> None:
        await recorder.wait_until(lambda: bool(recorder.number), 30)
        heard.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(5)
        recorded(recorder)
    assert heard == [5, 5]
    await recorder.wait_until(lambda: recorder.number == 2, 30)
    assert trio.current_time() - began == 35


async def test_nobody_waits_for_a_recorder_that_is_closed(autojump_clock: Any) -> None:
    recorder = Recorder()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.wait_until, lambda: False, 30)
        await trio.sleep(1)
        recorder.close()
    await recorder.wait_until(lambda: False, 30)
    assert trio.current_time() - began == 1
    recorder.watch()
    assert not recorder.is_watched


async def test_a_look_counts_for_a_minute(autojump_clock: Any) -> None:
    recorder = Recorder()
    assert not recorder.is_watched
    recorder.watch()
    await trio.sleep(LOOK - 1)
    assert recorder.is_watched
    recorder.watch()
    await trio.sleep(LOOK - 1)
    assert recorder.is_watched
    await trio.sleep(2)
    assert not recorder.is_watched
