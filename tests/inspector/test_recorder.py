"""The recorder: which requests it keeps, how much of them, and whom it wakes."""

from __future__ import annotations

import time
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


def begun(recorder: Recorder, target: str = "/") -> RequestRecord:
    record = RequestRecord(Request("GET", target), "GET", target, ("127.0.0.1", 1), 0.0)
    recorder.begin(record)
    return record


def end(recorder: Recorder, record: RequestRecord, body: bytes = b"") -> None:
    record.seconds, record.status, record.response_start = 0.1, 200, body
    record.sent = len(body)
    recorder.end(record)
    record.request = None


def recorded(recorder: Recorder, body: bytes = b"", target: str = "/") -> RequestRecord:
    record = begun(recorder, target)
    end(recorder, record, body)
    return record


def test_records_have_numbers_and_are_found_by_them() -> None:
    recorder, before = Recorder(), time.time()
    first, second = recorded(recorder, target="/a"), begun(recorder, "/b")
    assert [each.number for each in recorder.records()] == [1, 2]
    assert recorder.get(1) is first and recorder.get(2) is second
    assert before <= first.at <= second.at <= time.time()
    assert recorder.running() == [second]


def test_its_own_requests_are_not_recorded() -> None:
    recorder = Recorder()
    record = recorded(recorder, target="/-/requests.json")
    assert (record.number, recorder.number, recorder.records()) == (0, 0, [])


def test_what_could_not_be_read_is_recorded() -> None:
    recorder = Recorder()
    record = RequestRecord(None, "", "", ("127.0.0.1", 1), 0.0)
    recorder.begin(record)
    end(recorder, record)
    assert recorder.get(1) is record


def test_the_ring_forgets_the_oldest_and_says_so() -> None:
    recorder = Recorder()
    for _ in range(MOST_RECORDS + 3):
        recorded(recorder, b"x" * 10)
    assert recorder.records()[0].number == 4
    assert len(recorder.records()) == MOST_RECORDS
    assert recorder.kept_bytes == 10 * MOST_RECORDS
    with pytest.raises(Forgotten, match=r"request 3 is forgotten; the last 500 are kept"):
        recorder.get(3)
    for number in (0, -5, MOST_RECORDS + 4):
        with pytest.raises(KeyError):
            recorder.get(number)


def test_one_that_runs_is_kept_until_its_end() -> None:
    recorder = Recorder()
    stream = begun(recorder, "/stream")
    for _ in range(2 * MOST_RECORDS):
        recorded(recorder)
    assert recorder.get(1) is stream
    assert recorder.running() == [stream]
    end(recorder, stream, b"x" * 10)
    assert recorder.running() == []
    with pytest.raises(Forgotten):
        recorder.get(1)
    assert recorder.kept_bytes == 0


def test_pinned_ones_are_kept_and_so_are_their_bodies() -> None:
    recorder = Recorder()
    for _ in range(MOST_PINNED):
        recorder.pin(recorded(recorder, b"pinned").number)
    with pytest.raises(TooManyPinned):
        recorder.pin(recorded(recorder).number)
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


def test_a_body_of_an_authors_class_is_no_reason_to_keep_that() -> None:
    class Own(bytes):
        pass

    recorder = Recorder()
    assert type(recorded(recorder, Own(b"own")).response_body.kept) is bytes


async def test_news_wake_who_waits(autojump_clock: Any) -> None:
    recorder = Recorder()
    heard: list[float] = []

    async def wait() -> None:
        await recorder.wait_news(recorder.news, 30)
        heard.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(5)
        recorded(recorder)
    assert heard == [5, 5]
    number = recorder.news
    assert await recorder.wait_news(number - 1, 30) == number
    assert await recorder.wait_news(number, 30) == number
    assert trio.current_time() - began == 35


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
