"""Text for people, and from them: request targets, durations and sizes, close names, devices.

Durations in seconds are floats, and `math.inf` is "never"; sizes are bytes. Imports nothing that
costs time, because ``--help`` needs it.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from typing import Final

# How many characters of a request target are shown.
LONGEST: Final = 300

_SECONDS_PER_UNIT: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER: Final = r"(\d+(?:\.\d*)?|\.\d+)"
_DURATION: Final = re.compile(_NUMBER + r"\s*([smhd]?)", re.ASCII)
_SIZE: Final = re.compile(_NUMBER + r"\s*([kmgt]?)(?:i?b)?", re.ASCII)

# Matches the whole name of a file that Windows takes for a device.
WINDOWS_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.I
)


def escape_for_log(text: str) -> str:
    """Return *text*, the target of a request, readable, and harmless on a terminal.

    Percent-encoded UTF-8 letters are decoded; blanks, control characters, and what a terminal could
    take for more than a letter stay or become percent-encoded. At most 300 characters.
    """
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    plain = text.isascii() and text.isprintable()
    if plain and "%" not in text and " " not in text:
        return text or "-"
    from urllib.parse import unquote_to_bytes  # most targets are plain

    try:
        raw = text.encode("latin-1")  # as it came over the wire
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "backslashreplace")
    decoded = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    return "".join(map(_escape, decoded))


def escape_unprintable(text: str, keep: str = "") -> str:
    """Return *text* with escapes such as ``\\n`` in place of what could control a terminal.

    Args:
        keep: unprintable characters that stay as they are.
    """
    return "".join(
        char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text
    )


def one_line(text: str) -> str:
    """Return *text* with each run of blanks and line ends as a single blank."""
    return " ".join(text.split())


def closest_match(word: str, possibilities: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the one of *possibilities* that is most like *word*; None if none is alike.

    Args:
        cutoff: from 0 to 1, how alike they must be; see `difflib.get_close_matches`.
    """
    import difflib  # nobody needs it while every name is right

    return next(iter(difflib.get_close_matches(word, list(possibilities), 1, cutoff)), None)


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


def format_duration(seconds: float) -> str:
    """Return *seconds* in words: ``15 minutes``, ``1 hour``, ``0.5 seconds``."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit and seconds % unit == 0:
            return _count(seconds / unit, name)
    return _count(seconds, "second")


def format_size(size: int) -> str:
    """Return *size* bytes in a few characters: ``19 B``, ``3.4 kB``, in steps of 1000."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def _escape(char: str) -> str:
    if char.isprintable() and char not in " %":
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}" + ("" if number == 1 else "s")


def install_command(package: str) -> str:
    """Return the command line that installs *package* for this Python."""
    import importlib.util
    import subprocess

    command = [sys.executable, "-m", "pip", "install", package]
    if importlib.util.find_spec("pip") is None:  # as uv makes its environments
        command = ["uv", "pip", "install", "--python", sys.executable, package]
    return subprocess.list2cmdline(command)
