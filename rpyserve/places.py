"""What the path of a script says of it: its names as a module, and how people are told of it.

Decided once per path, for as long as a site is open: to do it for each execution cost a quarter of an uncached script.
Looks at no disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rpyserve.finders import escaped
from rpyserve.modules import SiteModules

__all__ = ["Place", "Places"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a script is: its *path*, its *name* as a module, and the same as its module spec has it.

    The *spec* is not named like the script, whose stem may be that of a directory or of a module beside it. *shown* is
    the path as people are told it.
    """

    path: Path
    name: str
    spec: str
    shown: str


class Places:
    """The places of a site's scripts.

    Args:
        modules: those of the site, whose package stands for its root.
        prefix: what stands for it in the names of scripts.
    """

    def __init__(self, modules: SiteModules, prefix: str) -> None:
        self._modules = modules
        self._prefix = prefix
        self._known: dict[str, Place] = {}

    def of(self, path: str) -> Place:
        """Return the place of the script at *path*."""
        place = self._known.get(path)
        if place is None:
            place = self._known[path] = self._make(path)
        return place

    def _make(self, path: str) -> Place:
        *directories, file = self._modules.relative(path) or (os.path.basename(path),)
        parts = [*map(escaped, directories), escaped(file.removesuffix(".rpy"))]
        name, spec = ".".join([self._prefix, *parts]), ".".join([self._modules.package, *parts])
        return Place(Path(path), name, spec, os.path.relpath(path, self._modules.root))
