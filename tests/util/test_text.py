"""Text for people, and from them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.util.text import (
    closest_match,
    escape_unprintable,
    format_duration,
    format_size,
    one_line,
    parse_duration,
    parse_size,
)


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


def test_escape_unprintable() -> None:
    assert escape_unprintable("an é\n\x1b[2J\t") == r"an é\n\x1b[2J\t"
    assert escape_unprintable("a\tb\n", keep="\t") == "a\tb\\n"


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1.5h", 5400),
        ("1d", 86400),
        ("2 H", 7200),
        (" 5 ", 5),
        ("never", math.inf),
        ("Never", math.inf),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "5 min", "m", "1e3", "nan", "inf", "5;", "\u0665", "9" * 400]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("64k", 65536),
        ("500M", 500 * 2**20),
        ("2 GiB", 2 * 2**30),
        ("1.5MB", 1572864),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "M", "5x", "1e9", "inf"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_a_size_beyond_numbers() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_size("9" * 400)


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as exc:
            assert str(exc)
