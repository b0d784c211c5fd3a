"""From changed files to what browsers are told: URL paths, and whom it may concern. Values only.

Owns which changes count at all: what editors, databases and Python leave beside the files does not, nor do log files.
A name that is private never gets into a URL here; a private file that scripts read counts, without its name.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from rpyserve.files import path_rules

__all__ = ["ANYTHING", "NOTHING", "FileKind", "Mounts", "PageChange"]

MOST_URLS: Final = 500
"""How many names a change has; one of more says only that anything may have changed."""


class FileKind(enum.Enum):
    """What a file is to the site."""

    SCRIPT = enum.auto()
    MODULE = enum.auto()
    FILE = enum.auto()
    MATERIAL = enum.auto()
    IGNORED = enum.auto()


@dataclass(frozen=True, slots=True)
class PageChange:
    """What has changed, as pages are told it.

    Args:
        urls: URL paths of files, and, ending in a slash, of directories with other names in them; ``"*"`` stands for
            private files that scripts may read.
        all: whether every page that a script made may be another one.
        data: whether a file has changed that scripts may have read.
        lost: whether it is not known what has changed: it may be anything.
    """

    urls: frozenset[str] = frozenset()
    all: bool = False
    data: bool = False
    lost: bool = False

    def __bool__(self) -> bool:
        return bool(self.urls or self.all or self.data)

    def __or__(self, other: PageChange) -> PageChange:
        urls = self.urls | other.urls
        if self.lost or other.lost or len(urls) > MOST_URLS:
            return ANYTHING
        return PageChange(urls, self.all or other.all, self.data or other.data)


NOTHING: Final = PageChange()
ANYTHING: Final = PageChange(all=True, data=True, lost=True)


class Mounts:
    """Where directories are in a site.

    Args:
        mounts: each directory, as an absolute path, with the URL path that leads to it: ``"/"``, ``"/files/"``.
    """

    def __init__(self, mounts: Sequence[tuple[str, str]]) -> None:
        self._mounts = sorted(mounts, key=lambda mount: -len(mount[0]))

    def url_of(self, path: str) -> str:
        """Return the URL path of the file, or (with a slash at its end) the directory, at *path*.

        Returns:
            It is percent-encoded; ``"*"`` if the name is private, or in none of the directories.
        """
        prefix, names = self._split(path)
        if names is None or any(
            path_rules.private_reason(name, top=depth == 0)
            for depth, name in enumerate(names)
            if name
        ):
            return "*"
        return prefix + "/".join(quote(os.fsencode(name), safe="") for name in names)

    def kind_of(self, path: str) -> FileKind:
        """Return what the file at *path* is."""
        _, names = self._split(path)
        if names is None or any(
            path_rules.private_reason(name, top=depth == 0) for depth, name in enumerate(names[:-1])
        ):
            return FileKind.IGNORED
        name = names[-1]
        if path_rules.is_script(name):
            return FileKind.SCRIPT
        if name.endswith(".py") and not name.startswith("."):
            return FileKind.MODULE
        if path_rules.private_reason(name, top=len(names) == 1):
            return FileKind.MATERIAL if path_rules.is_material(name) else FileKind.IGNORED
        return FileKind.IGNORED if name.endswith(".log") else FileKind.FILE

    def change_of(
        self, files: Iterable[str], moved: Iterable[str] = (), directories: Iterable[str] = ()
    ) -> PageChange:
        """Return what pages are told.

        Args:
            files: those that have changed.
            moved: files and directories that came or went, and so changed the directory that they are in.
            directories: the directories among them.
        """
        kinds = {path: self.kind_of(path) for path in files}
        urls = {
            self.url_of(path)
            for path, kind in kinds.items()
            if kind in (FileKind.SCRIPT, FileKind.FILE)
        }
        urls |= {
            self.url_of(os.path.join(os.path.dirname(path), ""))
            for path in moved
            if self.kind_of(path) is not FileKind.IGNORED
        }
        urls |= {self.url_of(os.path.join(path, "")) for path in directories}
        urls.discard("*")
        if FileKind.MATERIAL in kinds.values():
            urls.add("*")
        return NOTHING | PageChange(
            frozenset(urls),
            all=FileKind.MODULE in kinds.values(),
            data=not {FileKind.FILE, FileKind.MATERIAL}.isdisjoint(kinds.values()),
        )

    def shown(self, path: str) -> str:
        """Return *path* as the site's author knows it: relative to the directory that it is in."""
        for root, prefix in self._mounts:
            if path_rules.is_inside(root, path):
                return (
                    prefix.strip("/")
                    + "/" * (prefix != "/")
                    + os.path.relpath(path, root).replace(os.sep, "/")
                )
        return path

    def _split(self, path: str) -> tuple[str, list[str] | None]:
        for root, prefix in self._mounts:
            if path_rules.is_inside(root, path):
                return prefix, path[len(root) :].lstrip(os.sep).split(os.sep)
        return "", None
