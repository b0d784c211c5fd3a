"""Text for people: on the console, and the nearest of several names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["LONGEST", "closest_match", "escape_for_log"]


LONGEST: Final = 300
"""How many characters of a target are shown."""
_CLOSE: Final = 0.75
"""How alike two words have to be, from 0 to 1, for one to be a slip for the other."""


def escape_for_log(text: str) -> str:
    """Return *text*, a request's target, with its letters readable and all else as harmless as it was sent.

    Percent-encoded UTF-8 letters are decoded; blanks, control characters, and what a terminal could take for more
    than a letter stay or become percent-encoded. At most 300 characters.
    """
    text = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    if text.isascii() and "%" not in text and text.isprintable() and " " not in text:
        return text or "-"
    try:
        raw = text.encode("latin-1")  # as it came over the wire
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "backslashreplace")
    return "".join(
        _shown(char) for char in unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    )


def _shown(char: str) -> str:
    if char.isprintable() and char not in " %":
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def closest_match(word: str, possibilities: Iterable[str]) -> str | None:
    """Return the one of *possibilities* that *word* most likely stands for; None if none is close enough."""
    matches = difflib.get_close_matches(word, list(possibilities), 1, _CLOSE)
    return matches[0] if matches else None
