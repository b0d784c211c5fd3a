"""What names lead to in the directories of a site, remembered for as long as a directory is the same.

Every name that comes, goes, or becomes another file's changes the time stamps of its directory: one look at those
stands for looks at the file, at what else could have the name, and at other spellings (saves a quarter of a small
request). Who remembers a name must not remember what the file has in it, nor where a link leads: neither shows
in the directory. Where file systems take other letters for a file's own, nothing is remembered.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from rpyserve.disk import LENIENT
from rpyserve.scripts.file_state import EYES, Eyes, Names

__all__ = ["Entries"]

Entry = TypeVar("Entry")

MOST = 1000
"""How many directories are remembered."""


class _Known(Generic[Entry]):
    __slots__ = ("entries", "moment", "names")

    def __init__(self, names: Names, moment: object | None) -> None:
        self.names = names
        self.moment = moment
        self.entries: dict[str, Entry] = {}


class Entries(Generic[Entry]):
    """The entries of any number of directories."""

    def __init__(self, eyes: Eyes = EYES, *, lenient: bool = LENIENT) -> None:
        self._eyes = eyes
        self._lenient = lenient
        self._known: dict[str, _Known[Entry]] = {}

    def of(self, directory: str, moment: object | None = None) -> dict[str, Entry]:
        """Return what is known of *directory*. Ask before each look; what is found by a later one may be added.

        Args:
            directory: a path. Not a link, or what it leads to must be looked at by others.
            moment: the round of the loop, in which one look will do; see `rounds`.
        """
        if self._lenient:
            return {}
        known = self._known.get(directory)
        if known is None:
            if len(self._known) >= MOST:
                self._known.clear()
            known = self._known[directory] = _Known(Names(directory, self._eyes), moment)
        elif moment is None or known.moment is not moment:
            if known.names.changed():
                known.entries = {}
            known.moment = moment
        return known.entries
