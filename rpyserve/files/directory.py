"""A directory as a resource: from URL segments to files, scripts, indexes and listings.

`paths` says which names are private, `static` sends files, `script` executes scripts. Here is the order: a segment
is refused or private by its name; then the exact entry, then the entry with ``.rpy``; then what that really is,
links resolved, is judged. Nothing is opened here, and every "no" is a 404 with a private reason (403 for what may
not be read). A link is never crossed without its target being judged, and no name is taken whose letters differ.

What names lead to in the directories of a site, remembered for as long as a directory is the same.

Every name that comes, goes, or becomes another file's changes the time stamps of its directory: one look at those
stands for looks at the file, at what else could have the name, and at other spellings (saves a quarter of a small
request). Who remembers a name must not remember what the file has in it, nor where a link leads: neither shows
in the directory. Where file systems take other letters for a file's own, nothing is remembered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote

from rpyserve.files import path_rules
from rpyserve.files.safe_open import LENIENT, has_exact_name, resolved
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource
from rpyserve.scripts.file_state import FILE_SYSTEM, DirectoryState, FileSystem

if TYPE_CHECKING:
    from rpyserve.resources import pages
    from rpyserve.scripts.loader import ScriptLoader

__all__ = ["Directory", "EntryCache"]


Entry = TypeVar("Entry")

MOST = 1000
"""How many directories are remembered."""


class _Known(Generic[Entry]):
    __slots__ = ("entries", "moment", "names")

    def __init__(self, names: DirectoryState, moment: object | None) -> None:
        self.names = names
        self.moment = moment
        self.entries: dict[str, Entry] = {}


class EntryCache(Generic[Entry]):
    """The entries of any number of directories."""

    def __init__(self, eyes: FileSystem = FILE_SYSTEM, *, lenient: bool = LENIENT) -> None:
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
            known = self._known[directory] = _Known(DirectoryState(directory, self._eyes), moment)
        elif moment is None or known.moment is not moment:
            if known.names.changed():
                known.entries = {}
            known.moment = moment
        return known.entries


_REPARSE_POINT: Final = 0x400  # Windows: junctions are links too
_INDEXES: Final = ("index.rpy", "index.html")
_MOST_NAMES: Final = 500
"""How many names of a directory are looked at for the nearest one."""


@dataclass(slots=True)
class _Tree:
    """What all directories of one site share."""

    root: str
    follow_symlinks: bool
    entries: EntryCache[_Found] = field(default_factory=lambda: EntryCache())
    scripts: ScriptLoader | None = field(default=None)

    def trespass(self, real: str, *, script: bool = False) -> str:
        return path_rules.forbidden_target(
            self.root, real, follow=self.follow_symlinks, script=script
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry of a directory that may be reached: a directory, a script, or another file."""

    name: str
    real: str
    kind: str
    status: os.stat_result


class Directory(Resource):
    """The files and scripts below a directory.

    ``root.putChild("files", Directory("static"))`` puts one into a tree made by hand.

    Args:
        path: the directory.
        follow_symlinks: whether links may lead out of it.

    "Twisted Web in 60 seconds": serving static content from a directory, rpy scripts.
    """

    wants_body = False

    def __init__(self, path: str | os.PathLike[str], *, follow_symlinks: bool = False) -> None:
        self._real = self._path = resolved(path)
        self._tree = _Tree(self._real, follow_symlinks)

    def __repr__(self) -> str:
        return f"<Directory {self._path}>"

    @property
    def path(self) -> Path:
        """The directory, as an absolute path."""
        return Path(self._path)

    @property
    def scripts(self) -> ScriptLoader:
        """What executes the scripts of this directory and those below it."""
        if self._tree.scripts is None:
            from rpyserve.scripts.loader import ScriptLoader

            self._tree.scripts = ScriptLoader(Path(self._tree.root))
        return self._tree.scripts

    def render(self, request: Request) -> Redirect:
        """Send the visitor to the same URL with a slash, where relative links work."""
        if not any(request.prepath):
            raise HTTPError(404)
        target = "/" + "/".join(quote(name, safe="") for name in request.prepath).lstrip("/") + "/"
        query = f"?{request.query}" if request.query else ""
        return Redirect(target + query, None if request.method in ("GET", "HEAD") else 307)

    def getChild(self, name: str, request: Request) -> Any:
        if not name:
            return self._index(request)
        known = self._tree.entries.of(self._real, request.loop_tick)
        if (remembered := known.get(name)) is not None:
            return self._resource(remembered, request)
        found = self._reached(name, request)
        if self._is_plain(found):
            known[name] = found
        return self._resource(found, request)

    def _reached(self, name: str, request: Request) -> _Found:
        """The entry that the URL segment *name* leads to.

        Raises:
            HTTPError: it leads nowhere, and why.
        """
        try:
            if why := path_rules.invalid_segment(name) or path_rules.private_reason(
                name, top=self._is_top
            ):
                raise HTTPError(404, private=why)
            found = self._find(name) or (
                None if path_rules.is_script(name) else self._find(name + path_rules.SCRIPT)
            )
            if found is None:
                request.sources.append(os.path.join(self._real, ""))
                raise HTTPError(404)
        except HTTPError as exc:
            raise HTTPError(
                exc.status, private=self._explained(name, exc.private, request)
            ) from None
        return found

    def error_page(self, status: int, request: Request) -> Resource | None:
        """The script ``404.rpy`` in the directory, if there is one."""
        name = f"{status}{path_rules.SCRIPT}"
        found = self._find(name)
        request.sources.append(os.path.join(self._real, "" if found is None else name))
        if found is None or found.kind != "script":
            return None
        return self.scripts.load(os.path.join(self._path, name), request)

    @property
    def _is_top(self) -> bool:
        return self._path == self._tree.root

    def _index(self, request: Request) -> Any:
        if request.postpath:
            raise HTTPError(404, private=path_rules.invalid_segment(""))
        known = self._tree.entries.of(self._real, request.loop_tick)
        for name in _INDEXES:
            try:
                found = known.get(name) or self._find(name)
            except HTTPError:
                continue
            if found is not None and found.kind != "directory":
                if self._is_plain(found):
                    known[name] = found
                return self._resource(found, request)
            if not request.sources:
                request.sources.append(os.path.join(self._real, ""))
        return _Listing(self)

    def _resource(self, found: _Found, request: Request) -> Any:
        path = os.path.join(self._path, found.name)
        if found.kind == "directory":
            return self._below(path, found.real)
        request.sources.append(found.real)
        if found.kind == "file":
            from rpyserve.files.static_file import StaticFile

            return StaticFile(os.path.join(self._real, found.name), self._tree.trespass)
        return self.scripts.load(path, request)

    def _below(self, path: str, real: str) -> Directory:
        child = Directory.__new__(Directory)
        child._path, child._real, child._tree = path, real, self._tree
        return child

    def _is_plain(self, found: _Found) -> bool:
        """Whether it is no link, so that it stays what it is while the names of this directory do."""
        return found.real == os.path.join(self._real, found.name)

    def _find(self, name: str) -> _Found | None:
        """Return the entry *name*, or None if there is none in just these letters.

        Raises:
            HTTPError: it is there, but must not be reached.
        """
        found = self._entry(name)
        return found if found is not None and has_exact_name(self._real, name) else None

    def _entry(self, name: str) -> _Found | None:
        real = os.path.join(self._real, name)
        try:
            status = os.lstat(real)
            if (
                stat.S_ISLNK(status.st_mode)
                or getattr(status, "st_file_attributes", 0) & _REPARSE_POINT
            ):
                real = os.path.realpath(real)
                if why := self._tree.trespass(real, script=path_rules.is_script(name)):
                    raise HTTPError(404, private=f"{name!r} is a link. {why}")
                status = os.stat(real)
        except PermissionError:
            raise HTTPError(
                403, private=f"rpyserve is not allowed to look into {self._path!r}."
            ) from None
        except (OSError, ValueError):  # none there, or a name that this file system cannot have
            return None
        return _Found(name, real, _kind(name, status), status)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._real) as entries:
                return [entry.name for entry in entries]
        except FileNotFoundError:
            raise HTTPError(404, private=f"There is no directory {self._path!r}.") from None
        except NotADirectoryError:
            raise HTTPError(404, private=f"{self._path!r} is not a directory.") from None
        except PermissionError:
            raise HTTPError(
                403, private=f"rpyserve is not allowed to read the directory {self._path!r}."
            ) from None

    def _public(self, names: Iterable[str] | None = None) -> Iterator[_Found]:
        """The entries that a listing shows, or those of *names* that it would."""
        for name in self._names() if names is None else names:
            if (
                path_rules.invalid_segment(name)
                or path_rules.private_reason(name, top=self._is_top)
                or path_rules.unlisted(name)
            ):
                continue
            try:
                found = self._entry(name)
            except HTTPError:
                continue
            if found is None or not os.access(found.real, os.R_OK):
                continue
            if found.kind == "directory" and os.path.lexists(
                os.path.join(found.real, "pyvenv.cfg")
            ):
                continue
            yield found

    def _explained(self, name: str, why: str, request: Request) -> str:
        """Why *name* leads nowhere, and which name near it leads somewhere."""
        try:
            names = list(islice(self._names(), _MOST_NAMES))
        except (OSError, HTTPError):
            return why
        said = [why or f"There is no {name!r} or {name + path_rules.SCRIPT!r} in {self._path}."]
        public = [found.name for found in self._public(names)]
        short = [n.removesuffix(path_rules.SCRIPT) for n in public if path_rules.is_script(n)]
        if near := path_rules.nearest(name, [*short, *(n for n in public if n != name)]):
            said.append(f"Did you mean {path_rules.readable([*request.prepath[:-1], near])}?")
        elif advice := path_rules.rename_hint(name, names):
            said.append(advice)
        return " ".join(said)


class _Listing(Resource):
    wants_body = False

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def render_GET(self, request: Request) -> Response:
        from rpyserve.resources import pages

        entries = [_row(found) for found in self._directory._public()]
        if not entries and request.prepath == [""] and request.site.trusts(request):
            return pages.empty_site(request, self._directory.path)
        entries.sort(
            key=lambda entry: (entry.kind != "directory", entry.name.casefold(), entry.name)
        )
        return pages.listing(request, "/" + "/".join(request.prepath), entries)


def _row(found: _Found) -> pages.Entry:
    from rpyserve.resources import pages

    slash = "/" if found.kind == "directory" else ""
    size = None if found.kind == "directory" else found.status.st_size
    return pages.Entry(
        found.name + slash,
        quote(found.name, safe="") + slash,
        found.kind,
        size,
        found.status.st_mtime,
    )


def _kind(name: str, status: os.stat_result) -> str:
    script = path_rules.is_script(name)
    if stat.S_ISREG(status.st_mode):
        return "script" if script else "file"
    if not stat.S_ISDIR(status.st_mode):
        raise HTTPError(
            404, private=f"{name!r} is neither a file nor a directory, so it is never opened."
        )
    if script:
        raise HTTPError(404, private=f"{name!r} is a directory: a script is a file.")
    return "directory"
