"""The line for each reload."""

from __future__ import annotations

import pytest

from rpyserve.livereload.live_reload import CHANGED, GONE, NEW, reload_line, seconds_since


def line(files: dict[str, str], readers: int = 0, seconds: float = 0.0084, *, all_scripts: bool = False) -> str:
    return reload_line(files, readers=readers, all_scripts=all_scripts, seconds=seconds)


def test_one_file() -> None:
    assert line({"a.rpy": CHANGED}) == "a.rpy changed (8 ms)"
    assert line({"a.rpy": NEW}) == "a.rpy is new (8 ms)"
    assert line({"a.rpy": GONE}) == "a.rpy is gone (8 ms)"


def test_who_follows() -> None:
    assert line({"a.rpy": CHANGED}, 1) == "a.rpy changed: 1 page follows (8 ms)"
    assert line({"a.rpy": CHANGED}, 2) == "a.rpy changed: 2 pages follow (8 ms)"


def test_a_module() -> None:
    assert line({"words.py": CHANGED}, all_scripts=True) == "words.py changed: all scripts run again (8 ms)"
    assert line({"words.py": CHANGED}, 2, all_scripts=True) == (
        "words.py changed: all scripts run again, 2 pages follow (8 ms)"
    )


def test_many_files() -> None:
    assert line({"b": NEW, "a": NEW}) == "a, b are new (8 ms)"
    assert line({"b": NEW, "a": GONE, "c": CHANGED}) == "a, b, c changed (8 ms)"
    assert line({f"f{n:03}": CHANGED for n in range(100)}) == "f000, f001, f002 and 97 more changed (8 ms)"


@pytest.mark.parametrize(
    ("saved", "seconds"),
    [([99.9], 0.1), ([98.0, 99.8], 0.2), ([0], 0.01), ([], 0.01), ([50.0], 0.01), ([200.0], 0.01)],
    ids=["just now", "the last one", "unknown", "no file", "long ago", "another clock"],
)
def test_how_long_it_took(saved: list[float], seconds: float) -> None:
    assert seconds_since(saved, 99.99, 100.0) == pytest.approx(seconds)
