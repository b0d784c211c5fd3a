"""Text for people."""

from __future__ import annotations

import pytest

from rpyserve.util.text import closest_match, format_duration, format_size, one_line


@pytest.mark.parametrize(
    ("word", "possibilities", "closest"),
    [
        ("resorce", ["render", "resource"], "resource"),
        ("resource", [], None),
        ("cart", ["session"], None),
        ("a", iter(["a", "b"]), "a"),
    ],
)
def test_closest_match(word: str, possibilities: list[str], closest: str | None) -> None:
    assert closest_match(word, possibilities) == closest


def test_how_alike_is_alike() -> None:
    assert closest_match("chart", ["cart"], cutoff=0.99) is None
    assert closest_match("chart", ["cart"]) == "cart"


def test_one_line() -> None:
    assert one_line(" several\n  lines\tof text\r\n") == "several lines of text"


def test_durations_in_words() -> None:
    words = [format_duration(seconds) for seconds in (900, 60, 3600, 5, 1, 0.5, 90, 86400)]
    assert words == [
        "15 minutes",
        "1 minute",
        "1 hour",
        "5 seconds",
        "1 second",
        "0.5 seconds",
        "90 seconds",
        "1 day",
    ]


def test_sizes_in_words() -> None:
    sizes = [format_size(size) for size in (0, 999, 1000, 3400, 9990, 999_999, 12_345_678, 10**15)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "3.4 kB", "10 kB", "1.0 MB", "12 MB", "1000 TB"]
