"""A directory as a resource: from URL segments to files, scripts, indexes and listings.

`path_rules` says which names are private, `static_file` sends files, `scripts.loader` executes
scripts. This module owns the order: a segment is refused by its name; then the exact entry is
looked up, then the entry with ``.rpy``; then what that really is, links resolved, is judged.
Nothing is opened here, and every refusal is a 404 with a private reason (403 for what may not be
read). A link is never crossed without its target being judged, and no name is accepted whose
letters differ.

`EntryCache` remembers what names lead to, and which lead nowhere. Every name that comes, goes, or
becomes another file's changes the time stamps of its directory, so that one look at those stands
for looks at the file, at what else could have the name, and at other spellings. Neither what a file
contains nor where a link leads shows in the directory, so neither is remembered. Where file systems
take other letters for a file's own, nothing is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote

from rpyserve._names import public
from rpyserve.files import path_rules
from rpyserve.files.path_rules import SCRIPT, is_script
from rpyserve.files.safe_open import LENIENT, has_exact_name, is_link, resolved
from rpyserve.http.browser import is_navigation
from rpyserve.http.errors import HTTPError, PageNotFound, Redirect
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource, options_response
from rpyserve.scripts.file_state import (
    FILE_SYSTEM,
    DirectoryState,
    FileSystem,
    raise_unless_absent,
)
from rpyserve.util.author_code import working_directory

if TYPE_CHECKING:
    from rpyserve.files.static_file import SmallFileCache
    from rpyserve.scripts.loader import ScriptLoader

# How many directories an `EntryCache` remembers.
MAX_DIRECTORIES: Final = 1000
# How many names of all directories it remembers: a client can ask for any.
MAX_NAMES: Final = 20_000
# The characters of the longest name it remembers; no file system has longer ones.
MAX_NAME: Final = 255

_INDEXES: Final = ("index.rpy", "index.html")

# How many names of a directory are looked at for the nearest one.
_MAX_NAMES: Final = 500

# How many names of a directory are looked at for the pages that are there.
_MAX_LINKS: Final = 100

T = TypeVar("T")


class EntryCache(Generic[T]):
    """The entries of any number of directories."""

    def __init__(self, file_system: FileSystem = FILE_SYSTEM, *, lenient: bool = LENIENT) -> None:
        self._file_system = file_system
        self._lenient = lenient
        self._directories: dict[str, tuple[DirectoryState, dict[str, T]]] = {}
        self._names = 0  # how many are remembered

    def of(self, directory: str) -> dict[str, T]:
        """Return what is known of *directory*; what a later look finds is for `remember`.

        Args:
            directory: a path. Not a link, or what it leads to must be looked at by others.
        """
        if self._lenient:
            return {}
        known = self._directories.get(directory)
        if known is None:
            return self._add(directory)
        state, entries = known
        if state.changed():
            self._names -= len(entries)
            entries.clear()
        return entries

    def remember(self, entries: dict[str, T], name: str, entry: T) -> None:
        """Add *entry* to *entries*, which `of` has returned before *entry* was looked up."""
        if self._names >= MAX_NAMES:
            self._forget_all()
        if len(name) <= MAX_NAME:
            self._names += name not in entries
            entries[name] = entry

    def _add(self, directory: str) -> dict[str, T]:
        if len(self._directories) >= MAX_DIRECTORIES:
            self._forget_all()
        entries: dict[str, T] = {}
        self._directories[directory] = DirectoryState(directory, self._file_system), entries
        return entries

    def _forget_all(self) -> None:
        self._directories.clear()
        self._names = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a directory that may be reached.

    Args:
        name: its name.
        real: its path, links resolved.
        kind: ``directory``, ``script`` or ``file``.
        status: the stat of *real*.
    """

    name: str
    real: str
    kind: str
    status: os.stat_result


class WorkingDirectory:
    """Keeps a process that was started in a site's directory in the directory of that path.

    The command changes into the site, so that ``open("words.txt")`` in a script means the site's
    file. A site that is removed and made again is another directory, and one that a script has
    changed into may be removed as well.

    Args:
        root: the site's directory. If it is not the current one, nothing is ever changed.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        entered = _identity(root)
        self._entered = entered if entered == _identity(os.curdir) else None

    def refresh(self) -> None:
        """Enter the site's directory if the current one is no more, or no longer the site's."""
        present = _identity(self._root)
        if self._entered is None or present is None:
            return
        is_replaced = present != self._entered and _identity(os.curdir) == self._entered
        if is_replaced or not working_directory():
            with suppress(OSError):
                os.chdir(self._root)
                self._entered = present


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@dataclass(slots=True)
class _Missing:
    """A name that leads nowhere.

    Args:
        why: the reason.
        nearest: the entry that may have been meant.
        hint: what else could help; None until somebody may be told.
    """

    why: str
    nearest: str = ""
    hint: str | None = None


@dataclass(slots=True)
class _Tree:
    """What all directories of one site share."""

    root: str
    follow_symlinks: bool
    working_directory: WorkingDirectory
    entries: EntryCache[_Entry | _Missing] = field(default_factory=EntryCache)
    small_files: SmallFileCache | None = None
    scripts: ScriptLoader | None = None

    def forbidden_target(self, real: str, *, script: bool = False) -> str:
        return path_rules.forbidden_target(
            self.root, real, follow=self.follow_symlinks, script=script
        )


@public
class Directory(Resource):
    """The files and scripts below a directory.

    ``root.putChild("files", Directory("static"))`` puts one into a tree made by hand.

    Args:
        path: the directory.
        follow_symlinks: whether links may lead out of it.

    "Twisted Web in 60 seconds": serving static content from a directory, rpy scripts.
    """

    _wants_body = False
    _wants_session = False

    def __init__(self, path: str | os.PathLike[str], *, follow_symlinks: bool = False) -> None:
        root = resolved(path)
        self._tree = _Tree(root, follow_symlinks, WorkingDirectory(root))
        self._path = root
        self._prefix = os.path.join(root, "")
        self._real = root

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

    @property
    def working_directory(self) -> WorkingDirectory:
        """What enters the directory again when it has been replaced."""
        return self._tree.working_directory

    def render(self, request: Request) -> Redirect | Response:
        """Send the visitor to the same URL with a slash, where relative links work."""
        if not any(request.prepath):
            raise HTTPError(404)
        if request.method == "OPTIONS":
            return options_response(("GET", "HEAD", "OPTIONS"))
        path = "/".join(quote(name, safe="") for name in request.prepath)
        query = f"?{request.query}" if request.query else ""
        status = None if request.method in ("GET", "HEAD") else 307
        return Redirect(f"/{path.lstrip('/')}/{query}", status)

    def getChild(self, name: str, request: Request) -> Any:
        if not name:
            return self._index(request)
        try:
            entry = self._entry(name)
        except HTTPError as exc:
            if exc.status >= 500:
                raise
            raise self._not_found(name, _Missing(exc.private), request, exc.status) from None
        if isinstance(entry, _Missing):
            if request.prepath == ["favicon.ico"]:
                return _NoIcon()
            raise self._not_found(name, entry, request)
        return self._resource(entry, request)

    def error_page(self, status: int, request: Request) -> Resource | None:
        """Return the script ``404.rpy`` in the directory, if there is one."""
        name = f"{status}{SCRIPT}"
        entry = self._exact_entry(name)
        request._sources.append(os.path.join(self._real, "" if entry is None else name))
        if entry is None or entry.kind != "script":
            return None
        return self.scripts.load(self._prefix + name, request)

    # Which entry, and which resource that is

    def _entry(self, name: str) -> _Entry | _Missing:
        """Return what the URL segment *name* leads to; the disk is asked if that may have changed.

        Raises:
            HTTPError: it must not be reached, or not by us; that may change without its name.
        """
        known = self._tree.entries.of(self._real)
        entry = known.get(name)
        if entry is None:
            entry = self._find_for(name)
            self._remember(name, entry, known)
        return entry

    def _exact_entry(self, name: str) -> _Entry | None:
        """Return the entry *name* itself, not one that its URL leads to. Raises as `_entry`."""
        entry = self._entry(name)
        return entry if isinstance(entry, _Entry) and entry.name == name else None

    def _find_for(self, name: str) -> _Entry | _Missing:
        if why := path_rules.refusal(name, top=self._is_top):
            return _Missing(why)
        entry = self._find(name)
        if entry is None and not is_script(name):
            entry = self._find(name + SCRIPT)
        return entry or _Missing(f"There is no {name!r} or {name + SCRIPT!r} in {self._path}.")

    def _not_found(
        self, name: str, missing: _Missing, request: Request, status: int = 404
    ) -> HTTPError:
        request._sources.append(os.path.join(self._real, ""))
        why = self._with_hints(name, missing, request)
        is_for_author = status == 404 and not request.postpath and is_navigation(request)
        if is_for_author and request.site.trusts(request):
            return PageNotFound(why, self._links(), self._new_file(name))
        return HTTPError(status, private=why)

    def _links(self) -> list[str]:
        """The pages of the directory, as they stand in relative URLs; not all if they are many."""
        try:
            entries = [*self._public_entries(self._names(_MAX_LINKS))]
        except (OSError, HTTPError):
            return []
        names = (_link(entry) for entry in entries)
        return sorted(filter(None, dict.fromkeys(names)), key=str.casefold)

    def _new_file(self, name: str) -> str:
        if not re.fullmatch(r"[\w-]+(\.rpy)?", name) or path_rules.refusal(name, top=self._is_top):
            return ""
        return self._prefix + name.removesuffix(SCRIPT) + SCRIPT

    def _index(self, request: Request) -> Any:
        if request.postpath:
            raise HTTPError(404, private=path_rules.invalid_segment(""))
        for name in _INDEXES:
            try:
                entry = self._exact_entry(name)
            except HTTPError as exc:
                if exc.status >= 500:
                    raise
                continue
            if entry is not None and entry.kind != "directory":
                return self._resource(entry, request)
            if not request._sources:
                request._sources.append(os.path.join(self._real, ""))
        return _Listing(self)

    def _resource(self, entry: _Entry, request: Request) -> Any:
        path = self._prefix + entry.name
        if entry.kind == "directory":
            return _Subdirectory(self._tree, path, entry.real)
        request._sources.append(entry.real)
        if entry.kind == "script":
            if request._use is not None:
                return request._use.load(self.scripts, path)
            return self.scripts.load(path, request)
        return self._static_file(entry)

    def _static_file(self, entry: _Entry) -> Resource:
        from rpyserve.files.static_file import SmallFileCache, StaticFile

        if self._tree.small_files is None:
            self._tree.small_files = SmallFileCache()
        path = os.path.join(self._real, entry.name)
        cache = self._tree.small_files if entry.real == path else None
        return StaticFile(path, self._tree.forbidden_target, cache)

    def _remember(
        self, name: str, entry: _Entry | _Missing, known: dict[str, _Entry | _Missing]
    ) -> None:
        """Remember *entry*, unless a link is in play: its target may change, the directory not."""
        if isinstance(entry, _Missing):
            paths = (os.path.join(self._real, each) for each in (name, name + SCRIPT))
            has_link = any(map(os.path.islink, paths))
        else:
            has_link = entry.real != os.path.join(self._real, entry.name)
        if not has_link:
            self._tree.entries.remember(known, name, entry)

    @property
    def _is_top(self) -> bool:
        return self._path == self._tree.root

    def _is_listed(self, name: str) -> bool:
        return path_rules.is_listed(name, top=self._is_top)

    # What the disk has

    def _find(self, name: str) -> _Entry | None:
        """Return the entry *name*, or None if there is none in just these letters.

        Raises:
            HTTPError: it is there, but must not be reached; 503 if the disk fails.
        """
        if self._is_top:
            # What was known of its entries is forgotten when a site is made again, so this is
            # early enough, and costs a request for a known entry nothing.
            self._tree.working_directory.refresh()
        entry = self._look_up(name)
        if entry is None or not has_exact_name(self._real, name):
            return None
        return entry

    def _look_up(self, name: str) -> _Entry | None:
        """Return what the system takes for the entry *name*, perhaps one of other letters."""
        real = os.path.join(self._real, name)
        try:
            status = os.lstat(real)
            if is_link(status):
                real = os.path.realpath(real)
                if why := self._tree.forbidden_target(real, script=is_script(name)):
                    raise HTTPError(404, private=f"{name!r} is a link. {why}")
                status = os.stat(real)
        except PermissionError:
            why = f"rpyserve is not allowed to open the directory {self._path!r}."
            raise HTTPError(403, private=why) from None
        except (OSError, ValueError) as exc:
            raise_unless_absent(real, exc)
            return None
        return _Entry(name, real, _kind(name, status), status)

    def _names(self, limit: int | None = None) -> list[str]:
        try:
            with os.scandir(self._real) as entries:
                return [entry.name for entry in islice(entries, limit)]
        except FileNotFoundError:
            status, why = 404, f"There is no directory {self._path!r}."
        except NotADirectoryError:
            status, why = 404, f"{self._path!r} is not a directory."
        except PermissionError:
            status, why = 403, f"rpyserve is not allowed to read the directory {self._path!r}."
        except OSError as exc:
            raise_unless_absent(self._path, exc)
            raise
        raise HTTPError(status, private=why)

    def _public_entries(self, names: Iterable[str] | None = None) -> Iterator[_Entry]:
        """Yield the entries that a listing shows, or those of *names* that it would show."""
        for name in self._names() if names is None else names:
            if not self._is_listed(name):
                continue
            try:
                entry = self._look_up(name)
            except HTTPError:
                continue
            if entry is not None and _can_be_listed(entry):
                yield entry

    def _with_hints(self, name: str, missing: _Missing, request: Request) -> str:
        """Say why *name* leads nowhere, and which similar name does not.

        That is for the site's author only. It is looked for when a trusted client asks, so that no
        other can have the directory read again and again.
        """
        if missing.hint is None:
            if not request.site.trusts(request):
                return missing.why
            missing.nearest, missing.hint = self._hints_for(name)
        if missing.nearest:
            url = path_rules.readable([*request.prepath[:-1], missing.nearest])
            return f"{missing.why} Did you mean {url}?"
        return f"{missing.why} {missing.hint}".rstrip()

    def _hints_for(self, name: str) -> tuple[str, str]:
        """Return the entry that may have been meant by *name*, or else what could help."""
        try:
            names = self._names(_MAX_NAMES)
        except (OSError, HTTPError):
            return "", ""
        entries: dict[str, str] = {}  # by their names in URLs
        for entry in filter(self._is_listed, names):
            short = entry.removesuffix(SCRIPT)
            if self._is_listed(short):
                entries[short] = entry
            entries[entry] = entry
        entries.pop(name, None)
        nearest = path_rules.nearest(name, entries)
        if nearest and any(self._public_entries([entries[nearest]])):
            return nearest, ""
        return "", path_rules.rename_hint(name, names)


class _Subdirectory(Directory):
    """A directory below another one, whose tree it shares.

    Args:
        tree: what they share.
        path: the path that its URL stands for, as the site's author sees it.
        real: the same, links resolved.
    """

    def __init__(self, tree: _Tree, path: str, real: str) -> None:
        self._tree = tree
        self._path = path
        self._prefix = path + os.sep
        self._real = real


class _Listing(Resource):
    _wants_body = False
    _wants_session = False

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def render_GET(self, request: Request) -> Response:
        from rpyserve.resources import pages

        rows = [
            pages.ListingEntry(
                entry.name, entry.kind == "directory", entry.status.st_size, entry.status.st_mtime
            )
            for entry in self._directory._public_entries()
        ]
        if not rows and request.prepath == [""] and request.site.trusts(request):
            return pages.empty_site(request, self._directory.path)
        rows.sort(key=lambda row: (not row.is_directory, row.name.casefold(), row.name))
        return pages.listing(request, "/" + "/".join(request.prepath), rows)


def _link(entry: _Entry) -> str:
    """The relative URL of a page or directory, beside it; empty for other files."""
    if entry.kind == "directory":
        return f"{entry.name}/"
    if entry.name in _INDEXES:
        return "./"
    if entry.kind == "script":
        return entry.name.removesuffix(SCRIPT)
    return entry.name if entry.name.endswith((".html", ".htm")) else ""


class _NoIcon(Resource):
    """What browsers ask for with each site: a 404 would be an error in their consoles."""

    isLeaf = True
    _wants_body = False

    def render_GET(self, request: Request) -> Response:
        return Response(b"", 204, {"Cache-Control": "no-cache"})


def _can_be_listed(entry: _Entry) -> bool:
    """Whether it can be read, and is not a virtual environment."""
    if not os.access(entry.real, os.R_OK):
        return False
    environment = os.path.join(entry.real, "pyvenv.cfg")
    return entry.kind != "directory" or not os.path.lexists(environment)


def _kind(name: str, status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        if why := path_rules.private_file_reason(name):
            raise HTTPError(404, private=why)
        return "script" if is_script(name) else "file"
    if not stat.S_ISDIR(status.st_mode):
        why = f"{name!r} is neither a file nor a directory, so it is never opened."
        raise HTTPError(404, private=why)
    if is_script(name):
        raise HTTPError(404, private=f"{name!r} is a directory: a script is a file.")
    return "directory"
