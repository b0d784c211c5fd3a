"""Bytes that are held until an element of a message, a head, a line, trailers, is whole.

Each byte is searched once, however small the pieces that it comes in. Knows the line breaks of HTTP/1.1 and nothing
else of it; `guard` and `chunks` share one of these.
"""

from __future__ import annotations

import re

__all__ = ["Held"]

# No element that is read by lines may have these: control characters, CR and LF that are not together.
_FAULT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class Held:
    """What has come and not been taken.

    Attributes:
        data: the bytes. Only what is here may take any.
    """

    __slots__ = ("_searched", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self.data)

    def take(self, count: int) -> bytes:
        """Take the first *count* bytes, or all if there are fewer."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        self._searched = 0
        return taken

    def clear(self) -> None:
        """Forget all of it."""
        self.data.clear()
        self._searched = 0

    def drop_empty_lines(self) -> None:
        """Forget empty lines at the beginning."""
        if self.data.startswith(b"\r") and (empty := _EMPTY_LINES.match(self.data)):
            self.take(empty.end())

    def lines(self) -> int:
        """How many bytes the lines have that end with an empty one, that one included; 0 if it has not come."""
        if self.data.startswith(b"\r\n"):
            return 2
        found = self.data.find(b"\r\n\r\n", max(self._searched - 3, 0))
        return found + 4 if found >= 0 else 0

    def has_fault(self) -> bool:
        """Whether a byte has come that no line may have. Says so of each byte once."""
        found = _FAULT.search(self.data, max(self._searched - 1, 0))
        self._searched = len(self.data)
        return found is not None
