"""Texts: request targets on the console, the closest of several names, names of devices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["LONGEST", "WINDOWS_DEVICE", "closest_match", "escape_for_log", "one_line"]

LONGEST: Final = 300
"""How many characters of a request target are shown."""

WINDOWS_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.I
)
"""Matches the whole name of a file that Windows takes for a device."""


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
    try:
        raw = text.encode("latin-1")  # as it came over the wire
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "backslashreplace")
    decoded = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    return "".join(map(_escape, decoded))


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


def _escape(char: str) -> str:
    if char.isprintable() and char not in " %":
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
