"""Text for people."""

from __future__ import annotations

import pytest

from rpyserve.util.text import closest_match, escape_unprintable, one_line


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
