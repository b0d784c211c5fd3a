"""From changed files to what browsers are told: URL paths, and whom it may concern. Values only.

Owns which changes count at all: files that editors, databases and Python leave beside others do
not, nor do log files. A private name never gets into a URL here; a private file that scripts may
read counts, without its name.
"""

from __future__ import annotations

import enum
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from rpyserve.files import path_rules
from rpyserve.livereload.snapshot import FileChanges

# How many URLs a change has; one of more says only that anything may have changed.
MAX_URLS: Final = 500


class FileKind(enum.Enum):
    """What a file is to the site."""

    SCRIPT = enum.auto()
    MODULE = enum.auto()
    FILE = enum.auto()
    PRIVATE_DATA = enum.auto()
    IGNORED = enum.auto()


_SERVED: Final = frozenset({FileKind.SCRIPT, FileKind.FILE})
_DATA: Final = frozenset({FileKind.FILE, FileKind.PRIVATE_DATA})


@dataclass(frozen=True, slots=True)
class PageChange:
    """What has changed, as pages are told it.

    Args:
        urls: URL paths of files, and, ending in a slash, of directories with other names in them;
            ``"*"`` stands for private files that scripts may read.
        all: whether every page that a script made may be another one.
        data: whether a file has changed that scripts may have read.
        lost: whether it is not known what has changed: it may be anything.
    """

    urls: frozenset[str] = frozenset()
    all: bool = False
    data: bool = False
    lost: bool = False

    def __bool__(self) -> bool:
        return self != PageChange()

    def __or__(self, other: PageChange) -> PageChange:
        urls = self.urls | other.urls
        if self.lost or other.lost or len(urls) > MAX_URLS:
            return ANYTHING
        return PageChange(urls, self.all | other.all, self.data | other.data)


NOTHING: Final = PageChange()
ANYTHING: Final = PageChange(all=True, data=True, lost=True)

Changes = Mapping[str, PageChange]
"""What has changed in each directory of a site, by its path: not every visitor sees them all."""


class Mounts:
    """Where directories are in a site.

    Args:
        mounts: each directory, as an absolute path, with the URL path that leads to it: ``"/"``,
            ``"/files/"``.
    """

    def __init__(self, mounts: Sequence[tuple[str, str]]) -> None:
        self._mounts = sorted(mounts, key=lambda mount: -len(mount[0]))

    def url_of(self, path: str) -> str:
        """Return the URL path of a file, or (where *path* ends in a slash) of a directory.

        Returns:
            It is percent-encoded; ``"*"`` if the name is private, or in none of the directories.
        """
        _, prefix, names = self._split(path)
        if _is_private(names):
            return "*"
        return prefix + "/".join(quote(os.fsencode(name), safe="") for name in names)

    def kind_of(self, path: str) -> FileKind:
        """Return what the file at *path* is."""
        _, _, names = self._split(path)
        name = names[-1]
        if _is_private(names[:-1]):
            return FileKind.IGNORED
        if path_rules.is_script(name):
            return FileKind.SCRIPT
        if name.endswith(".py"):
            return FileKind.MODULE
        if _is_private(names):
            return FileKind.PRIVATE_DATA if path_rules.is_material(name) else FileKind.IGNORED
        return FileKind.IGNORED if path_rules.private_file_reason(name) else FileKind.FILE

    def root_of(self, path: str) -> str:
        """Return the directory of the site that *path* is in; empty if it is in none."""
        return self._split(path)[0]

    def page_changes(self, changes: FileChanges, kinds: Mapping[str, FileKind]) -> Changes:
        """Return what pages are told, for each directory in which something has changed.

        Args:
            changes: what has changed on disk.
            kinds: the files among it that count, with what each is.
        """
        # The directories that came or went, and those in which names that count did.
        ignored = changes.files.keys() - kinds.keys()
        parents = {os.path.dirname(path) for path in changes.added_or_removed - ignored}
        paths = [path for path, kind in kinds.items() if kind in _SERVED]
        paths += [f"{path}{os.sep}" for path in changes.directories | parents]
        urls: defaultdict[str, set[str]] = defaultdict(set)
        for path in paths:
            urls[self._split(path)[0]].add(self.url_of(path))
        present: defaultdict[str, set[FileKind]] = defaultdict(set)
        for path, kind in kinds.items():
            present[self._split(path)[0]].add(kind)
        found = {root: _page_change(urls[root], present[root]) for root in {*urls, *present}}
        return {root: change for root, change in found.items() if change}

    def display_name(self, path: str) -> str:
        """Return *path* as the site's author knows it: relative to the directory that it is in."""
        _, prefix, names = self._split(path)
        name = prefix[1:] + "/".join(names) if prefix else path
        # A name that is no text (bytes that are not UTF-8) is shown with escapes.
        return os.fsencode(name).decode("utf-8", "backslashreplace")

    def _split(self, path: str) -> tuple[str, str, list[str]]:
        """The directory that *path* is in, its URL prefix, and the names below it.

        What is in none of the directories has a private name.
        """
        for root, prefix in self._mounts:
            if path_rules.is_inside(root, path):
                return root, prefix, path[len(root) :].lstrip(os.sep).split(os.sep)
        return "", "", [os.pardir]


def _page_change(urls: set[str], kinds: set[FileKind]) -> PageChange:
    """What pages are told of files of these *kinds*, and of *urls*, some perhaps private."""
    named = urls - {"*"}
    if FileKind.PRIVATE_DATA in kinds:
        named.add("*")
    is_data = not kinds.isdisjoint(_DATA)
    return NOTHING | PageChange(frozenset(named), FileKind.MODULE in kinds, is_data)


def _is_private(names: Sequence[str]) -> bool:
    reasons = (path_rules.private_reason(name, top=not depth) for depth, name in enumerate(names))
    return any(reasons)
