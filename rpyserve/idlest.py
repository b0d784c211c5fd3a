"""Which of many living things was used the longest time ago, for those who must let one go.

Nothing is kept for it while nobody asks, so making and using a thing costs no more than noting the time. Who asks
pays: all are looked at once, and about a sixteenth of them, those idle longest, are remembered. As using a thing
only ever makes its time later, the first of those that has not been used since is the one, until none is left. So
an answer costs some sixteen looks on average, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Final, Protocol

__all__ = ["Idlest", "Used"]

SHARE: Final = 16
"""Which part of all is remembered, about."""
SAMPLE: Final = 1000
"""From how many that part is estimated: sorting all of them would hold up everyone else."""


class Used(Protocol):
    """What can be idle."""

    uid: Any
    """Its id, a text."""
    _used: float
    """When it was used last; never becomes less."""


class Living(Protocol):
    """Those things, by their ids."""

    def __len__(self) -> int:
        """How many there are."""

    def get(self, uid: str, /) -> Any:
        """The one of that id; None if there is none."""

    def values(self) -> Iterable[Any]:
        """All of them."""


class Idlest:
    """Finds the thing of a mapping that has been idle longest.

    Args:
        living: the things by their ids. One that is put in must have been used no earlier than those that are there.
    """

    def __init__(self, living: Living) -> None:
        self._living = living
        self._known: list[tuple[float, str]] = []  # the idlest last

    def find(self) -> Any:
        """Return that thing; None if there is none. It is not returned again unless it is used again."""
        while len(self._living):
            while self._known:
                used, uid = self._known.pop()
                thing = self._living.get(uid)
                if thing is not None and thing._used == used:
                    return thing
            self._look_at_all()
        return None

    def _look_at_all(self) -> None:
        things: list[Used] = list(self._living.values())
        times = sorted([thing._used for thing in things[:: -(-len(things) // SAMPLE)]])
        limit = times[len(times) // SHARE]
        known = [(thing._used, thing.uid) for thing in things if thing._used <= limit]
        known.sort(key=itemgetter(0))
        known.reverse()
        self._known = known
