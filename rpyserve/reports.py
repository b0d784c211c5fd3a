"""The line on the console for each reload: what changed, whom it concerns, how long it took. Texts only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["CHANGED", "GONE", "NEW", "reload_line", "seconds_since"]

NEW: Final = "new"
GONE: Final = "gone"
CHANGED: Final = "changed"

MOST_NAMES: Final = 3
"""How many files a line names."""
BELIEVED: Final = 5.0
"""Seconds that a save may lie back, by the file's time stamp; else the stamp is of another clock, or set by hand."""


def reload_line(files: Mapping[str, str], *, readers: int, all_scripts: bool, seconds: float) -> str:
    """Return the line.

    Args:
        files: the files, as their author knows them, each with what happened to it: `NEW`, `GONE` or `CHANGED`.
        readers: how many pages listen.
        all_scripts: whether a module of the site is among them, so that every script runs again.
        seconds: from the save until the pages were told.
    """
    effects = ["all scripts run again"] if all_scripts else []
    if readers:
        effects.append(f"{readers} page follows" if readers == 1 else f"{readers} pages follow")
    what = f"{_enumerated(sorted(files))} {_verb(list(files.values()))}"
    return f"{what}{': ' if effects else ''}{', '.join(effects)} ({seconds * 1000:.0f} ms)"


def seconds_since(saved: Iterable[float], noticed: float, now: float) -> float:
    """Return how long ago the last of the times *saved* is, or *noticed* if they are not to be believed."""
    last = max(saved, default=0.0)
    return now - (last if 0 <= now - last <= BELIEVED else noticed)


def _verb(events: list[str]) -> str:
    """What happened to all of the files: the same thing, or this and that."""
    event = events[0] if len(set(events)) == 1 else CHANGED
    return event if event == CHANGED else f"{'is' if len(events) == 1 else 'are'} {event}"


def _enumerated(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"
