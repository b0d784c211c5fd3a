"""Modules of the site: the ``.py`` files under it that scripts import.

Owns what is put into Python's import system while a site is served, and takes all of it out again:
a path hook that makes a `SiteFinder` for each directory of the site, a `RelativeFinder` for ``from
. import x`` in a script, and the site's root at the end of `sys.path`, so that Python's own and
installed modules win. ``from . import x`` beside a script and ``import x`` give one module object.

Each load of a module is an execution that lasts. Who imported whom cannot be known, so one change
among the modules drops all of them, and `SiteModules.generation` says so to whoever keeps something
that was made with them. Python's own caches are never trusted: a directory's goes by its mtime, and
bytecode by whole seconds and sizes.

Scripts import in threads, too, while the event loop drops modules. A drop waits for the moments in
which Python looks into `sys.modules` for what a thread has just imported; they are short. Code of a
module that is running then has used what is gone, so its import begins again. No lock is held while
such code runs: that may take long, or wait for the event loop. `_lock` guards the tables here.

Several sites may live in one process, each with a ``words.py``. One of them is active, the one
whose script was loaded last: the plain names in `sys.modules` mean its modules, and those of the
others are set aside.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, ClassVar, Final, NamedTuple

from rpyserve.scripts import definitions, file_state
from rpyserve.scripts.background import BackgroundTasks, note_threads, running_nursery
from rpyserve.scripts.execution import Execution, executing, populate_namespace
from rpyserve.scripts.source import Source, compile_source, may_make_coroutines, uses_of
from rpyserve.util.author_code import coroutine_origins
from rpyserve.util.text import one_line

log = logging.getLogger("rpyserve")

MOST_EXECUTIONS: Final = 6
"""How often one import executes a module while changes drop the modules under way."""
PACKAGE_TIMEOUT: Final = 10.0
"""Seconds that a thread waits for another one's import of a package before it loads a part."""

# How long to sleep before another look at what other threads import.
_LOOK_AGAIN: Final = 0.001
# How many looks a drop waits for threads that are between two steps of an import.
_MOST_LOOKS: Final = 40

SourceObserver = Callable[[str, bytes, ast.Module, str], object]


class _Compiled(NamedTuple):
    """A module's code, without its syntax tree, which is large.

    Args:
        data: the contents of the file.
        code: what they were compiled to.
        imports: the first names of the modules that it imports; see `Source`.
    """

    data: bytes
    code: CodeType
    imports: frozenset[str]


class SiteModules:
    """The modules of the site at *root*.

    Args:
        root: the site's directory.

    Attributes:
        package: the name of the package that stands for *root* in relative imports. There must be
            no such module.
        generation: grows each time that the modules are dropped.
        drop_reason: why they were dropped last.
        uses: what of the session and the registry their code may use; see `source.uses_of`.
        registry: what a module gets as ``rpyserve.registry`` while it is loaded.
        tasks: what runs the background tasks that modules declare, if anything does.
        on_source: called with each source of a script or module that was compiled: its path, its
            contents, their syntax tree, and ``"script"`` or ``"module"``.
    """

    _active: ClassVar[SiteModules | None] = None

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        self.package = "rpydir"
        self.generation = 0
        self.drop_reason = ""
        self.uses: frozenset[str] = frozenset()
        self.registry: Any = None
        self.tasks: BackgroundTasks | None = None
        self.on_source: SourceObserver | None = None
        self._roots = {self.root, os.path.realpath(self.root)}
        # The names of the site's modules, with the files and the lookups that they depend on.
        self._names: set[str] = set()
        self._files: dict[str, file_state.State] = {}
        self._lookups: dict[str, file_state.ImportLookups] = {}
        self._lock = threading.Lock()
        # The modules whose code is running, each with its thread.
        self._loading: dict[str, int] = {}
        # The modules that wait until another thread has executed their package.
        self._queued: set[str] = set()
        # The names that were dropped and have not been imported since.
        self._dropped: set[str] = set()
        # The top-level names that were somebody else's before the site's modules were there.
        self._foreign: frozenset[str] = frozenset()
        # What is changed in Python's import system, and what it takes to change it back.
        self._relative_finder = RelativeFinder(self)
        self._removed_path_entries: list[tuple[int, str]] = []
        self._path_length = 0
        # The modules with plain names, while another site has those.
        self._set_aside: dict[str, ModuleType] = {}
        # By their paths: what modules were compiled to.
        self._compiled: dict[str, _Compiled] = {}
        # The hidden files that the console was told of.
        self._warned_of: set[str] = set()

    # In the import system

    def install(self, registry: Any = None, tasks: BackgroundTasks | None = None) -> None:
        """Make the site's modules importable."""
        self.registry = registry
        self.tasks = tasks
        sys.path_hooks.insert(0, self._path_hook)
        sys.meta_path.append(self._relative_finder)
        # `python -m` puts the current directory first: it would win over Python's own modules.
        self._removed_path_entries = [
            (i, entry) for i, entry in enumerate(sys.path) if self._is_root(entry)
        ]
        sys.path[:] = [entry for entry in sys.path if not self._is_root(entry)]
        self.activate()
        self._foreign = frozenset(name for name in list(sys.modules) if "." not in name)
        self._remove_all()

    def uninstall(self) -> None:
        """Drop the modules, and leave the import system as it was."""
        self._loading.clear()
        self._remove_all()
        self._dropped.clear()
        self._compiled.clear()
        self._deactivate()
        sys.modules.pop(self.package, None)
        sys.path_hooks.remove(self._path_hook)
        sys.meta_path.remove(self._relative_finder)
        for index, entry in self._removed_path_entries:
            sys.path.insert(index, entry)

    def activate(self) -> None:
        """Have the plain names mean this site's modules, not another's in this process."""
        other = SiteModules._active
        if other is self:
            return
        if other is not None:
            other._deactivate()
        SiteModules._active = self
        sys.path.append(self.root)
        sys.modules.update(self._set_aside)
        self._set_aside.clear()

    def _deactivate(self) -> None:
        if SiteModules._active is not self:
            return
        SiteModules._active = None
        if self.root in sys.path:
            sys.path.remove(self.root)
        for name in tuple(self._names):
            if name.partition(".")[0] != self.package and name in sys.modules:
                self._set_aside[name] = sys.modules.pop(name)

    def _path_hook(self, path: str) -> SiteFinder:
        # Decided by name: a directory that could not be looked at for once would be left to Python,
        # which shows no edits, for good. A file may be an archive of modules.
        directory = self.place_in_site(path)
        if os.path.isfile(path) or not self._is_ours(directory):
            raise ImportError("not a directory of the site", path=path)
        return SiteFinder(directory, self)

    # Whether they are fresh

    def refresh(self) -> None:
        """Drop the modules if one has changed, or if an import would now find another file."""
        if not (self._files or self._lookups):
            return
        with self._lock:
            states = *self._files.values(), *self._lookups.values()
        if file_state.any_changed(states):
            self.drop(self._reason_in(states))

    def _reason_in(self, states: Iterable[file_state.State]) -> str:
        """What has happened to the first of *states* that has changed."""
        state = next((each for each in states if each.changed()), None)
        if state is None or isinstance(state, file_state.ImportLookups):
            return "a module came or went"
        return self.reason_of(state.path)

    def reason_of(self, path: str) -> str:
        """Return what has happened to the file or directory at *path*, in words."""
        name = "/".join(self.relative(path) or (os.path.basename(path),))
        return f"{name} was {'saved' if os.path.exists(path) else 'deleted'}"

    def drop(self, reason: str) -> None:
        """Drop the modules: the next import loads them anew.

        Args:
            reason: why, in words, such as ``"util.py was saved"``.
        """
        self.generation += 1
        self.drop_reason = reason
        if self.tasks is not None:
            self.tasks.end_deleted()
        self._wait_for_threads()
        self._dropped |= self._remove_all()
        # Not before the first answer: from Python 3.13 on, this imports importlib.metadata.
        importlib.invalidate_caches()
        definitions.retire([f"{self.package}:{name}" for name in list(self._dropped)], self._renew)

    def remove_repeated_path_entries(self) -> None:
        """Have each entry of `sys.path` once: scripts that run anew add theirs each time."""
        if len(sys.path) != self._path_length:
            sys.path[:] = dict.fromkeys(sys.path)
            self._path_length = len(sys.path)

    def reload(self, name: str) -> None:
        """Import the module *name* if it was dropped, so that its background tasks start again."""
        self.activate()
        self.refresh()
        if name not in sys.modules:
            importlib.import_module(name)

    def recall(self, name: str) -> None:
        """Import the module *name* when its definitions are asked for, if it is not there.

        An earlier process has imported it, and objects of its classes come back.
        """
        *parents, last = name.removeprefix(f"{self.package}.").split(".")
        directory = os.path.join(self.root, *map(unescaped, parents))
        path = module_file(directory, unescaped(last)) or os.path.join(directory, f"{last}.py")
        definitions.recall(f"{self.package}:{name}", path, self._renew)
        if name not in self._names:
            self._dropped.add(name)

    def files(self) -> list[str]:
        """Return the files that are loaded as modules, relative to the site, in order."""
        return sorted(os.path.relpath(path, self.root) for path in self._files)

    def watches(self, path: str) -> bool:
        """Whether *path* is a file of the site that was loaded as a module."""
        return path in self._files

    def may_serve(self, imports: frozenset[str]) -> bool:
        """Whether code with these *imports* (see `Source`) may use one of the modules."""
        loaded = {name.partition(".")[0] for name in self._names | self._dropped}
        return not imports.isdisjoint({".", "importlib", *loaded})

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """While inside, the code of the module *name* is running, perhaps in a thread."""
        self._loading[name] = threading.get_ident()
        try:
            yield
        finally:
            self._loading.pop(name, None)

    def _remove_all(self) -> set[str]:
        """Returns the names that were removed."""
        self.activate()
        package = ModuleType(self.package)
        # It is empty, so that `RelativeFinder` is asked for what is in there, not the path hook.
        package.__path__ = []
        with self._lock:
            # A part of a package would call it a deadlock if that is gone while its code runs.
            kept = {
                name for name in list(self._loading) if hasattr(sys.modules.get(name), "__path__")
            }
            removed = self._names - kept
            for name in removed:
                sys.modules.pop(name, None)
            self._names &= kept
            self._files.clear()
            self._lookups.clear()
            sys.modules[self.package] = package
        for entry, finder in list(sys.path_importer_cache.items()):
            is_own = isinstance(finder, SiteFinder) and finder.modules is self
            if is_own or self.relative(self.place_in_site(entry)) is not None:
                sys.path_importer_cache.pop(entry, None)
        return removed

    def _renew(self, home: str) -> bool:
        """Import the module of *home* (see `ExecutionName`), as an object of its classes is used.

        The author is told if that fails, but not if there is no such module any more.
        """
        name = home.partition(":")[2]
        other = SiteModules._active
        try:
            self.activate()
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if not f"{name}.".startswith(f"{exc.name}."):
                self.tell_of_old_objects(name, exc)
        except (Exception, SystemExit) as exc:
            self.tell_of_old_objects(name, exc)
        finally:
            if other is not None:
                other.activate()
        return True

    def tell_of_old_objects(self, name: str, exc: BaseException) -> None:
        """Tell that *name*, a script or module that was saved, fails with *exc*."""
        what = one_line(f"{type(exc).__name__}: {exc}")
        definitions.tell("lost", os.path.join(self.root, name), f"old methods stay: {what}")
        log.warning(
            "%s was saved, but executing it fails (%s). Objects of its classes from before keep "
            "their old methods until a save that works.",
            name,
            what,
        )

    # While threads import

    def is_outermost(self, name: str) -> bool:
        """Whether this thread runs the code of no other module, for which it imports *name*."""
        own = threading.get_ident()
        loading = list(self._loading.items())
        return all(each == name or thread != own for each, thread in loading)

    def _wait_for_threads(self) -> None:
        """Wait until no other thread is between two steps of an import of a module of the site.

        There, Python raises a KeyError if what it has just imported is gone.
        """
        for _ in range(_MOST_LOOKS):
            imports = imports_under_way()
            imports.pop(threading.get_ident(), None)
            if not any(map(self._is_between_steps, imports.values())):
                return
            time.sleep(_LOOK_AGAIN)

    def _is_between_steps(self, imports: ThreadImports) -> bool:
        name = imports.names[0]
        top = name.partition(".")[0]
        is_own = name in self._names or (name != top and top in self._names)
        return is_own and not (imports.is_waiting or name in self._loading or name in self._queued)

    def wait_for_package(self, name: str) -> None:
        """Wait while another thread executes a package of *name*, which is to be loaded.

        That thread would take *name* as it is while it is half loaded. It is not waited for once it
        waits for what this one is importing.
        """
        if not self._loading:
            return
        self._queued.add(name)
        try:
            self._wait_for_package(name)
        finally:
            self._queued.discard(name)

    def _wait_for_package(self, name: str) -> None:
        deadline = time.monotonic() + PACKAGE_TIMEOUT
        looks = 0
        # One look may show a thread that has yet to say that it waits.
        while looks < 2 and time.monotonic() < deadline:
            others = self._threads_executing(name) - {threading.get_ident()}
            if not others:
                return
            looks = looks + 1 if others <= self._threads_that_wait() else 0
            time.sleep(_LOOK_AGAIN)

    def _threads_executing(self, name: str) -> set[int]:
        """The threads that run the code of a package of *name*."""
        loading = list(self._loading.items())
        return {thread for package, thread in loading if name.startswith(f"{package}.")}

    def _threads_that_wait(self) -> set[int]:
        """The threads that wait for what this one is importing, or for one that does."""
        imports = imports_under_way()
        held = set(imports.pop(threading.get_ident()).names)
        waiting: set[int] = set()
        while True:
            more = {
                thread
                for thread, each in imports.items()
                if each.is_waiting and each.names[0] in held
            }
            if more == waiting:
                return waiting
            waiting = more
            held.update(*(imports[thread].names for thread in waiting))

    # Where things are

    def relative(self, path: str) -> tuple[str, ...] | None:
        """Return the parts of *path* below the site's root, or None if it is not there."""
        for root in self._roots:
            if path == root:
                return ()
            if path.startswith(root + os.sep):
                return tuple(path[len(root) + 1 :].split(os.sep))
        return None

    def place_in_site(self, entry: str) -> str:
        """Return an entry of `sys.path` as the path of a directory below the site's root.

        It may be relative, have ``..`` in it, or lead there by links. If it leads elsewhere, the
        path is just an absolute one.
        """
        path = self._absolute(entry)
        if self.relative(path) is None:
            parts = self.relative(os.path.realpath(path))
            return path if parts is None else os.path.join(self.root, *parts)
        return path

    def is_site_directory(self, path: str) -> bool:
        """Whether ``.py`` files directly in *path* are modules of the site."""
        return os.path.isdir(path) and self._is_ours(path)

    def _is_ours(self, path: str) -> bool:
        """Whether *path* is below the root, and below nothing that is none of the site's."""
        parts = self.relative(path)
        if parts is None:
            return False
        above = [os.path.join(self.root, *parts[: depth + 1]) for depth in range(len(parts))]
        return not any(map(file_state.is_ignored_directory, above))

    def _is_root(self, entry: str) -> bool:
        return self._absolute(entry) in self._roots

    def _absolute(self, entry: str) -> str:
        """*entry* as an absolute path; below the root, if the current directory is no more."""
        try:
            return os.path.abspath(entry)
        except OSError:
            return os.path.normpath(os.path.join(self.root, entry))

    # Files of the site that other modules of the same name hide

    def is_shadowed(self, name: str, file: str) -> bool:
        """Whether ``import name`` gives Python's own or an installed module instead of *file*."""
        loaded = sys.modules.get(name)
        if loaded is not None:
            return name not in self._names and getattr(loaded, "__file__", None) != file
        if name in sys.stdlib_module_names:
            return True
        elsewhere = [entry for entry in sys.path if not self._is_root(entry)]
        spec = PathFinder.find_spec(name, elsewhere)
        return spec is not None and spec.loader is not None and spec.has_location

    def shadowed(self, names: Iterable[str], importer: str) -> Iterator[tuple[str, str]]:
        """Yield each of *names* that *importer* gets from elsewhere, with the site's file."""
        for name in sorted(set(names) - {"."}):
            for directory in {os.path.dirname(importer), self.root}:
                file = module_file(directory, name)
                if file is not None and self.is_shadowed(name, file):
                    yield name, file

    def explain_shadowing(self, name: str, file: str, importer: str) -> tuple[str, str]:
        """Say what *importer* gets under *name* instead of *file*, and what to do about it."""
        directory = os.path.dirname(importer)
        is_beside = _import_directory(file) == directory
        dots = "." if is_beside else "." * (len(self.relative(directory) or ()) + 1)
        is_pythons = name in sys.stdlib_module_names
        whose = "Python's own" if is_pythons else "an installed module of that name"
        return (
            f"{whose}, not the site's {os.path.relpath(file, self.root)}.",
            f"Rename that file (my_{name}.py), or write `from {dots} import {name}`.",
        )

    def _warn_of_shadowed(self, names: Iterable[str], importer: str) -> None:
        """Tell, once for each, of the site's files that *importer* of *names* will not get."""
        for name, file in self.shadowed(names, importer):
            if file in self._warned_of:
                continue
            self._warned_of.add(file)
            what, mend = self.explain_shadowing(name, file, importer)
            shown = os.path.relpath(importer, self.root)
            log.warning("%s imports %s and gets %s %s", shown, name, what, mend)

    # For the finders and the loaders

    def compile(self, data: bytes, path: str, *, module: bool = False) -> Source:
        """Compile the contents of a script or module, and tell what its author should know."""
        source = compile_source(data, path)
        if module:
            self.uses |= uses_of(source.code)
        self._warn_of_shadowed(source.imports, path)
        places = {self.root, os.path.dirname(path)}
        if may_make_coroutines(source, lambda name: any(module_file(p, name) for p in places)):
            self._want_origins()
        if self.on_source is not None:
            self.on_source(path, data, source.tree, "module" if module else "script")
        return source

    def _want_origins(self) -> None:
        nursery = running_nursery()
        if nursery is None:
            coroutine_origins.want()
        else:  # a module may be imported in a thread
            nursery.run_sync(coroutine_origins.want)

    def compile_module(self, path: str) -> _Compiled:
        """Compile a module, unless that was done: of those that are dropped, few have changed."""
        data = self.read(path)
        compiled = self._compiled.get(path)
        if compiled is None or compiled.data != data:
            source = self.compile(data, path, module=True)
            compiled = self._compiled[path] = _Compiled(data, source.code, source.imports)
        else:
            self._warn_of_shadowed(compiled.imports, path)
        return compiled

    def read(self, path: str) -> bytes:
        """Return the contents of a module's file, and watch it even if it cannot be loaded."""
        data, state = file_state.read(path)
        with self._lock:
            self._files[path] = state
        return data

    def note_lookup(self, directory: str, name: str) -> None:
        """Note that an import looked for *name* in *directory*."""
        with self._lock:
            lookups = self._lookups.get(directory)
            if lookups is None:
                lookups = self._lookups[directory] = file_state.ImportLookups(directory)
            lookups.add(name)

    def note_found(self, name: str) -> None:
        """Note that the module *name* is one of the site."""
        with self._lock:
            self._names.add(name)

    def note_executed(self, name: str) -> None:
        """Note that the module *name* is there again."""
        self._dropped.discard(name)

    def owns(self, parent: str) -> bool:
        """Whether what is found in the package *parent* (empty: none) is the site's."""
        return not parent or parent in self._names or parent.partition(".")[0] not in self._foreign


# What threads are importing


class ThreadImports(NamedTuple):
    """What a thread is importing.

    Args:
        names: the modules, the innermost first.
        is_waiting: whether it waits until another thread has imported that one.
    """

    names: list[str]
    is_waiting: bool


def imports_under_way() -> dict[int, ThreadImports]:
    """What threads are importing, by their ids.

    Their stacks show an import from its beginning to its very end, whoever began it. Most of that
    is Python's own code, which nothing else can be asked about.
    """
    found: dict[int, ThreadImports] = {}
    for thread, frame in sys._current_frames().items():
        names = list(_imported_by(frame))
        if names:
            found[thread] = ThreadImports(names, _is_waiting(frame))
    return found


def _imported_by(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if _is_of_python(frame, "_find_and_load"):
            yield frame.f_locals["name"]
        frame = frame.f_back


def _is_waiting(frame: FrameType) -> bool:
    """Whether the innermost *frame* of a thread waits for the lock of a module."""
    lock = frame.f_locals.get("self") if _is_of_python(frame, "acquire") else None
    return bool(getattr(lock, "waiters", False))


def _is_of_python(frame: FrameType, function: str) -> bool:
    """Whether *frame* is that of a function of Python's import system."""
    code = frame.f_code
    return code.co_name == function and code.co_filename == "<frozen importlib._bootstrap>"


def _name_in_deadlock(exc: BaseException) -> str | None:
    """The module that could not be waited for, if that is what *exc* says."""
    if type(exc).__name__ != "_DeadlockError":
        return None
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    return next(
        (f.f_locals["name"] for f in reversed(frames) if _is_of_python(f, "_find_and_load")), None
    )


# What ``import x`` finds

_find_as_python_does: Final = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


# Where a name of another case is found, too, so that the names themselves must be looked at.
_IGNORING_CASE: Final = frozenset({"win32", "cygwin", "darwin"})


class SiteFinder(FileFinder):
    """Finds modules in one directory of the site. Looks afresh each time."""

    def __init__(self, path: str, modules: SiteModules) -> None:
        loader: Any = partial(SiteLoader, modules)
        super().__init__(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (loader, [".py"]))
        extensions = [(suffix, ExtensionFileLoader) for suffix in EXTENSION_SUFFIXES]
        self._kinds: list[tuple[str, Any]] = [*extensions, (".py", loader)]
        self.modules = modules

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find *fullname*, and note that it was looked for here."""
        parent, _, name = fullname.rpartition(".")
        if not self.modules.owns(parent):
            # The rest of a package that was loaded before the site was, such as rpyserve itself.
            return _find_as_python_does(self.path).find_spec(fullname, target)
        self.modules.note_lookup(self.path, name)
        below = os.path.join(self.path, name)
        if os.path.isdir(below):
            self.modules.note_lookup(below, "__init__")
        spec = self._find_afresh(fullname, below)
        if spec is not None and not isinstance(spec.loader, ExtensionFileLoader):
            self.modules.note_found(fullname)
        return spec

    def _find_afresh(self, fullname: str, below: str) -> ModuleSpec | None:
        """Find *fullname*, whose file or directory is called *below*."""
        spec = None if sys.platform in _IGNORING_CASE else self._find_file(fullname, below)
        if spec is None:
            # Python's list of all names goes by the directory's mtime, which may stand still.
            self.invalidate_caches()
            spec = super().find_spec(fullname)
        return spec

    def _find_file(self, fullname: str, below: str) -> ModuleSpec | None:
        """Find the usual, without a list of all names: a site may have hundreds of modules."""
        for start, places in ((os.path.join(below, "__init__"), [below]), (below, None)):
            for suffix, loader in self._kinds:
                file = start + suffix
                if os.path.isfile(file):
                    return importlib.util.spec_from_file_location(
                        fullname,
                        file,
                        loader=loader(fullname, file),
                        submodule_search_locations=places,
                    )
        return None


class SiteLoader(SourceFileLoader):
    """Loads a module of the site from its source; each load is an execution."""

    def __init__(self, modules: SiteModules, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._modules = modules

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source as it is now."""
        return self._modules.compile_module(self.path).code

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make the module, but not too early.

        Python holds its lock of all imports while it looks for a module, but not here.
        """
        self._modules.wait_for_package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, as an execution that lasts."""
        spec = module.__spec__
        assert spec is not None
        with self._modules.loading(spec.name):
            execution = self._execute_undisturbed(spec.name, module)
        if execution is None:
            return
        execution.finish(module.__dict__)
        self._modules.note_executed(spec.name)
        definitions.publish(execution, module)
        if self._modules.tasks is not None:
            self._modules.tasks.start_declared(execution)

    def _execute_undisturbed(self, name: str, module: ModuleType) -> Execution | None:
        """Execute the module, and anew if modules were dropped: it may have used what is gone.

        Returns:
            The execution; None if the module is there otherwise.
        """
        modules = self._modules
        initial = dict(module.__dict__)
        for attempt in range(MOST_EXECUTIONS):
            generation = modules.generation
            try:
                if attempt and _begin_again(name, module):
                    return None
                execution = self._execute(name, module)
                if generation == modules.generation:
                    return execution
            except Exception as exc:
                is_old = generation != modules.generation
                if not is_old and not _load_for_waiting_thread(modules, exc):
                    raise
            if generation != modules.generation and not modules.is_outermost(name):
                raise ImportError(f"{name} has changed while it was imported", name=name)
            # `from . import x` takes an attribute that is there, though it be of an old module.
            module.__dict__.clear()
            module.__dict__.update(initial)
            modules.wait_for_package(name)
        raise ImportError(f"{name} changed while it was imported, again and again", name=name)

    def _execute(self, name: str, module: ModuleType) -> Execution:
        modules = self._modules
        modules.note_found(name)
        execution = Execution(
            name, Path(self.path), cached=True, registry=modules.registry, package=modules.package
        )
        compiled = modules.compile_module(self.path)
        execution.source = compiled.data
        populate_namespace(module.__dict__, execution)
        threads = threading.enumerate()
        with executing(execution):
            exec(compiled.code, module.__dict__)
        note_threads(execution, threads)
        return execution


def _begin_again(name: str, module: ModuleType) -> bool:
    """Put *module* back, which was dropped while its code was running.

    Its package comes first, as Python has it. That may import *name* by itself.

    Returns:
        Whether another module has come in its place, so that all is done.
    """
    if sys.modules.get(name) is module:
        return False
    package = name.rpartition(".")[0]
    if package and package not in sys.modules:
        importlib.import_module(package)
    present = sys.modules.setdefault(name, module)
    if present is module:
        return False
    # Somebody may have got the dropped one, and have waited until its code had run.
    module.__dict__.update(vars(present))
    return True


def _load_for_waiting_thread(modules: SiteModules, exc: Exception) -> bool:
    """Load what a deadlock of two imports is about, if that is what *exc* says.

    Another thread has begun to import a part of this package, and waits until the package has been
    executed, which needs that part. Python lets a thread find a module that another one has loaded
    meanwhile.

    Returns:
        Whether the module that raised *exc* may be executed again.
    """
    name = _name_in_deadlock(exc)
    if name is None or name in sys.modules:
        return name is not None
    generation = modules.generation
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return False
    module = importlib.util.module_from_spec(spec)
    if sys.modules.setdefault(name, module) is not module:
        return True
    spec._initializing = True  # type: ignore[attr-defined]  # so that other threads wait for it
    try:
        spec.loader.exec_module(module)
    except Exception:
        sys.modules.pop(name, None)
        if modules.generation == generation:
            raise
    finally:
        spec._initializing = False  # type: ignore[attr-defined]
    package, _, child = name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], child, module)
    return True


# What ``from . import x`` in a script finds


class RelativeFinder(MetaPathFinder):
    """Finds what is below the package that stands for the site's root.

    That is the very module that ``import x`` (or ``import sub.x``) gives, unless another module
    hides that one.
    """

    def __init__(self, modules: SiteModules) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find *fullname* below the package that stands for the site's root."""
        modules = self._modules
        package, _, rest = fullname.partition(".")
        if package != modules.package or not rest:
            return None
        parts = [unescaped(part) for part in rest.split(".")]
        directory = os.path.join(modules.root, *parts[:-1])
        if not modules.is_site_directory(directory):
            return None
        modules.note_found(fullname)
        if self._has_plain_name(parts):
            return self._find_alias(fullname, directory, parts)
        return self._find_own(fullname, directory, parts[-1])

    def _has_plain_name(self, parts: list[str]) -> bool:
        """Whether an absolute import reaches what has these *parts*."""
        if any("." in part for part in parts):
            return False
        file = module_file(self._modules.root, parts[0]) or ""
        return not self._modules.is_shadowed(parts[0], file)

    def _find_alias(self, fullname: str, directory: str, parts: list[str]) -> ModuleSpec | None:
        self._modules.note_lookup(directory, parts[-1])
        found = os.path.join(directory, parts[-1])
        if os.path.isfile(found + ".py") or os.path.isdir(found):
            return ModuleSpec(fullname, _AliasLoader(".".join(parts), self._modules))
        return None

    def _find_own(self, fullname: str, directory: str, name: str) -> ModuleSpec | None:
        below = os.path.join(directory, name)
        if "." in name and os.path.isdir(below):  # `FileFinder` would look for what follows the dot
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [below]
            return spec
        return SiteFinder(directory, self._modules).find_spec(fullname)


class _AliasLoader(Loader):
    """Gives the module of another name, which is imported for that if need be."""

    def __init__(self, name: str, modules: SiteModules) -> None:
        self._name = name
        self._modules = modules
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._modules.activate()
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just put the alias's there


# Names of files


def escaped(name: str) -> str:
    """Return the name of a file or directory as one part of a dotted name."""
    return name.replace("%", "%25").replace(".", "%2E")


def unescaped(part: str) -> str:
    """Return what `escaped` has made *part* of."""
    return part.replace("%2E", ".").replace("%25", "%")


def module_file(directory: str, name: str) -> str | None:
    """The file of the module or package *name* in *directory*."""
    module = os.path.join(directory, name + ".py")
    package = os.path.join(directory, name, "__init__.py")
    return next((file for file in (module, package) if os.path.isfile(file)), None)


def _import_directory(file: str) -> str:
    """The directory that a module's or package's file makes it importable from."""
    directory = os.path.dirname(file)
    return os.path.dirname(directory) if os.path.basename(file) == "__init__.py" else directory
