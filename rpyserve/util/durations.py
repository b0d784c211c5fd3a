"""Durations and sizes, as people write them on a command line.

Seconds are floats, and `math.inf` is "never"; sizes are bytes. The text of a ValueError is made to
be shown. Imports nothing that costs time, because ``--help`` needs it.
"""

from __future__ import annotations

import math
import re
from typing import Final

_SECONDS_PER_UNIT: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER: Final = r"(\d+(?:\.\d*)?|\.\d+)"
_DURATION: Final = re.compile(_NUMBER + r"\s*([smhd]?)", re.ASCII)
_SIZE: Final = re.compile(_NUMBER + r"\s*([kmgt]?)(?:i?b)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds that *text* means: ``5``, ``0.5``, ``90s``, ``15m``, ``2h``, ``never``.

    Raises:
        ValueError: it is not a duration, or not longer than 0.
    """
    normalized = text.strip().lower()
    if normalized == "never":
        return math.inf
    match = _DURATION.fullmatch(normalized)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration: write seconds (5 or 0.5), 90s, 15m, 2h, or never"
        )
    seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2]]
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"{text!r} is not a valid duration: it must be longer than 0; for no end, use never"
        )
    return seconds


def parse_size(text: str) -> int:
    """Return the bytes that *text* means: ``1000``, ``64k`` or ``2 GiB``, in steps of 1024.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes (1000), 64k, 500M or 2G")
    size = float(match[1]) * 1024.0 ** " kmgt".index(match[2] or " ")
    if size == math.inf:
        raise ValueError(f"{text[:20]!r}... is too large")
    return int(size)
