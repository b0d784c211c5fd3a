"""The line on the console for each reload: what changed, whom it concerns, how long it took. Texts only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["reload_line", "seconds_since"]

MOST_NAMES: Final = 3
"""How many files a line names."""
BELIEVED: Final = 5.0
"""Seconds that a save may lie back, by the file's time stamp; else the stamp is of another clock, or set by hand."""


def reload_line(names: Iterable[str], *, readers: int, all_scripts: bool, seconds: float) -> str:
    """Return the line.

    Args:
        names: the files that changed, as their author knows them.
        readers: how many pages listen.
        all_scripts: whether a module of the site is among them, so that every script runs again.
        seconds: from the save until the pages were told.
    """
    effects = ["all scripts run again"] if all_scripts else []
    if readers:
        effects.append(f"{readers} page follows" if readers == 1 else f"{readers} pages follow")
    what = f"{_enumerated(sorted(names))} changed"
    return f"{what}{': ' if effects else ''}{', '.join(effects)} ({seconds * 1000:.0f} ms)"


def seconds_since(saved: Iterable[float], noticed: float, now: float) -> float:
    """Return how long ago the last of the times *saved* is, or *noticed* if they are not to be believed."""
    last = max(saved, default=0.0)
    return now - (last if 0 <= now - last <= BELIEVED else noticed)


def _enumerated(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"
