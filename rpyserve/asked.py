"""What the head of a request says, as values that requests may share.

Clients that keep a connection send mostly the same head again, and what equal bytes mean is the same. So heads that
h11 has read in a whole cycle, after which the connection went on, are kept here with what it read: `recall` spares
reading them again. Only heads without a body are kept, and few of them. No value here ever changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import h11

__all__ = ["Asked", "Fields", "recall", "remember"]

LONGEST: Final = 4096
"""How many bytes a head may have to be kept."""
MOST: Final = 256
"""How many are kept."""


class Fields(tuple[tuple[bytes, bytes], ...]):
    """Header fields in the order in which they came, their names in small letters."""

    @cached_property
    def values(self) -> dict[bytes, bytes]:
        """The value of each name; of a field that came more than once, all, joined by commas (RFC 9110, 5.3).

        Cookies, whose values may hold commas, are joined as they are in one field (RFC 9113, 8.2.3).
        """
        found: dict[bytes, bytes] = {}
        for name, value in self:
            comma = b"; " if name == b"cookie" else b", "
            found[name] = found[name] + comma + value if name in found else value
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a head says."""

    method: str
    target: str
    headers: Fields
    http_version: str

    @classmethod
    def of(cls, event: h11.Request) -> Asked:
        """Return what h11 has read."""
        texts = (event.method.decode("ascii"), event.target.decode("ascii"))
        return cls(*texts, Fields(event.headers), event.http_version.decode("ascii"))


_kept: dict[bytes, Asked] = {}


def recall(head: bytes) -> Asked | None:
    """Return what h11 read in *head* before. With `Heads.written`, saves half of a small request."""
    return _kept.get(head)


def remember(head: bytes, asked: Asked) -> None:
    """Keep that *head*, after which no body came and the connection went on, says *asked*."""
    if len(head) <= LONGEST:
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[head] = asked
