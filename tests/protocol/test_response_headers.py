"""The heads of responses are made once a second, and few are kept."""

from __future__ import annotations

from rpyserve.protocol.response_headers import MOST_CACHED, ResponseHeadCache

HEADERS = ((b"A", b"b"),)


def test_heads_are_reused_within_a_second_and_dated_anew() -> None:
    now = 0.0
    heads = ResponseHeadCache(lambda: now)
    first = heads.get(200, HEADERS, b"", 5, False)
    assert heads.get(200, ((b"A", b"b"),), b"", 5, False) is first
    assert heads.get(200, HEADERS, b"", 5, True) is not first
    assert heads.get(200, HEADERS, b"", 6, False) is not first
    assert (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT") in list(first.event.headers)
    now = 1.5
    second = heads.get(200, HEADERS, b"", 5, False)
    assert (b"date", b"Thu, 01 Jan 1970 00:00:01 GMT") in list(second.event.headers)


def test_dates_have_two_digits_for_the_day() -> None:
    for second, date in [
        (1e9, b"Sun, 09 Sep 2001 01:46:40 GMT"),
        (2**31, b"Tue, 19 Jan 2038 03:14:08 GMT"),
    ]:
        heads = ResponseHeadCache(lambda: second)  # noqa: B023
        assert (b"date", date) in list(heads.get(200, (), b"", 0, False).event.headers)


def test_what_was_written_is_kept_for_its_second_only() -> None:
    now = 1.0
    heads = ResponseHeadCache(lambda: now)
    assert heads.get(200, HEADERS, b"", 5, False).written is None
    heads.get(200, HEADERS, b"", 5, False).written = b"head"
    now = 1.9
    assert heads.get(200, HEADERS, b"", 5, False).written == b"head"
    assert heads.get(200, HEADERS, b"", 6, False).written is None
    now = 2.0
    assert heads.get(200, HEADERS, b"", 5, False).written is None


def test_few_heads_are_kept() -> None:
    heads = ResponseHeadCache(lambda: 0)
    for number in range(5000):
        heads.get(200, ((b"Set-Cookie", b"%d" % number),), b"", 5, False)
    assert len(heads._heads) <= MOST_CACHED
