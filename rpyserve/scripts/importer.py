"""Modules of the site: the ``.py`` files under it that scripts import.

Owns what is put into Python's import system while a site is served, and takes all of it out again. Python's own and
installed modules win; bytecode is never used, because it goes by whole seconds and sizes. Who imported whom cannot be
known, so one change among the modules drops all of them, and `SiteModules.generation` says so to whoever
keeps something that was made with them. ``from . import x`` beside a script and ``import x`` give one module object.
Of several sites in one process, each with a ``words.py``, the one whose script was loaded last has the plain names.
Knows nothing of scripts but that they are executions too.

What Python's import system asks for modules of the site: finders and loaders.

Python's own caches are never trusted: a directory's goes by its mtime, and bytecode by whole seconds and sizes. Each
load is an execution that lasts. Where a module may come from, and when it is dropped, is `modules`' business.
"""

from __future__ import annotations

import ast
import importlib
import logging
import os
import sys
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
from types import CodeType, ModuleType
from typing import Any, ClassVar, Final

from rpyserve.scripts import definitions, file_state
from rpyserve.scripts.execution import Execution, executing, populate_namespace
from rpyserve.scripts.source import Source, compile_source

__all__ = ["RelativeFinder", "SiteFinder", "SiteLoader", "SiteModules", "escaped", "module_file"]


SourceObserver = Callable[[str, bytes, ast.Module, str], object]

ATTEMPTS: Final = 5
"""How often a module is executed anew because modules changed while it was imported."""


def escaped(name: str) -> str:
    """Return the name of a file or directory as one part of a dotted name."""
    return name.replace("%", "%25").replace(".", "%2E")


def _unescaped(part: str) -> str:
    return part.replace("%2E", ".").replace("%25", "%")


PLAIN: Final = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)
"""What Python itself finds modules of a directory with."""


class SiteFinder(FileFinder):
    """Finds modules in one directory of the site. Looks afresh each time."""

    def __init__(self, path: str, modules: SiteModules) -> None:
        loader: Any = partial(SiteLoader, modules)
        super().__init__(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (loader, [".py"]))
        self._modules = modules

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find *fullname*, and note that it was looked for here."""
        if not self._modules.owns(fullname.rpartition(".")[0]):
            # The rest of a package that was there before: of rpyserve itself, if the site is a checkout of it.
            return PLAIN(self.path).find_spec(fullname, target)
        self.invalidate_caches()  # its cache goes by the directory's mtime, which may stand still for a while
        name = fullname.rpartition(".")[2]
        self._modules.ask(self.path, name)
        below = os.path.join(self.path, name)
        if os.path.isdir(below):
            self._modules.ask(below, "__init__")
        spec = super().find_spec(fullname, target)
        if spec is not None and not isinstance(spec.loader, ExtensionFileLoader):
            self._modules.note(fullname)
        return spec


class SiteLoader(SourceFileLoader):
    """Loads a module of the site from its source; each load is an execution."""

    def __init__(self, modules: SiteModules, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._modules = modules

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source as it is now."""
        return self._compile().code

    def _compile(self) -> Source:
        data = self._modules.read(self.path)
        source = compile_source(data, self.path)
        self._modules.warn_of_hidden(source.imports, self.path)
        if self._modules.on_source is not None:
            self._modules.on_source(self.path, data, source.tree, "module")
        return source

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, as an execution that lasts; anew if modules were dropped meanwhile."""
        spec = module.__spec__
        assert spec is not None
        with self._modules.loading(spec.name):
            execution = self._executed(spec.name, module)
            for _ in range(ATTEMPTS):
                if execution is not None:
                    break
                execution = self._executed(spec.name, module)
        if execution is None:
            raise ImportError(
                f"{spec.name} changed while it was imported, again and again", name=spec.name
            )
        execution.finish(module.__dict__)
        definitions.publish(execution, module)
        site = getattr(execution.registry, "site", None)
        if site is not None:
            site.tasks.start_declared(execution)

    def _executed(self, name: str, module: ModuleType) -> Execution | None:
        """Execute the module once; None if modules were dropped meanwhile."""
        modules = self._modules
        generation = modules.generation
        execution = Execution(
            name, Path(self.path), cached=True, registry=modules.registry, home=modules.package
        )
        try:
            source = self._compile()
            execution.source = source.data
            populate_namespace(module.__dict__, execution)
            with executing(execution):
                exec(source.code, module.__dict__)
        except Exception:
            if modules.generation == generation:
                raise
        return execution if modules.generation == generation else None


class RelativeFinder(MetaPathFinder):
    """Finds what ``from . import x`` in a script means.

    That is the very module that ``import x`` (or ``import sub.x``) gives, unless another one hides it.
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
        parts = [_unescaped(part) for part in rest.split(".")]
        directory = os.path.join(modules.root, *parts[:-1])
        if not modules.is_site_directory(directory):
            return None
        file = module_file(modules.root, parts[0]) or ""
        modules.note(fullname)
        if any("." in part for part in parts) or modules.hiding(parts[0], file):
            return self._own(fullname, directory, parts[-1])
        modules.ask(directory, parts[-1])
        found = os.path.join(directory, parts[-1])
        if os.path.isfile(found + ".py") or os.path.isdir(found):
            return ModuleSpec(fullname, _Alias(".".join(parts), modules))
        return None

    def _own(self, fullname: str, directory: str, name: str) -> ModuleSpec | None:
        below = os.path.join(directory, name)
        if "." in name and os.path.isdir(below):  # `FileFinder` would look for what follows the dot
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [below]
            return spec
        spec_found = SiteFinder(directory, self._modules).find_spec(fullname)
        return spec_found


class _Alias(Loader):
    """Gives a module that has another name already, or gets it now."""

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


def module_file(directory: str, name: str) -> str | None:
    """The file of the module or package *name* in *directory*."""
    for file in (
        os.path.join(directory, name + ".py"),
        os.path.join(directory, name, "__init__.py"),
    ):
        if os.path.isfile(file):
            return file
    return None


log = logging.getLogger("rpyserve")


class SiteModules:
    """The modules of the site at *root*.

    Args:
        root: the site's directory.

    Attributes:
        package: the name of the package that stands for *root* in relative imports. There must be no such module.
        generation: grows each time that the modules are dropped.
        registry: what a module gets as ``rpyserve.registry`` while it is loaded.
        on_source: called with each source of a script or module that was compiled: its path, its contents, their
            syntax tree, and ``"script"`` or ``"module"``.
    """

    _in_charge: ClassVar[SiteModules | None] = None

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        self.package = "rpydir"
        self.generation = 0
        self.registry: Any = None
        self.on_source: SourceObserver | None = None
        self._roots = {self.root, os.path.realpath(self.root)}
        self._files: dict[str, file_state.State] = {}
        self._listings: dict[str, file_state.ImportLookups] = {}
        self._names: set[str] = set()
        self._away: dict[str, ModuleType] = {}
        self._loading: set[str] = set()
        self._left_over = False
        self._told: set[str] = set()
        self._moved: list[tuple[int, str]] = []
        self._relative = RelativeFinder(self)
        self._installed = False

    def install(self) -> None:
        """Make the site's modules importable."""
        if self._installed:
            return
        self._installed = True
        sys.path_hooks.insert(0, self._path_hook)
        sys.meta_path.append(self._relative)
        # ``python -m`` puts the current directory first, where it would win over Python's own modules.
        self._moved = [
            (i, entry) for i, entry in enumerate(sys.path) if os.path.abspath(entry) in self._roots
        ]
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) not in self._roots]
        self.activate()
        self._forget()

    def uninstall(self) -> None:
        """Drop the modules, and leave the import system as it was."""
        if not self._installed:
            return
        self._installed = False
        self._forget()
        self._step_back()
        sys.modules.pop(self.package, None)
        sys.path_hooks.remove(self._path_hook)
        sys.meta_path.remove(self._relative)
        for index, entry in self._moved:
            sys.path.insert(index, entry)

    def activate(self) -> None:
        """Have the plain names mean this site's modules from now on, not those of another site in this process."""
        other = SiteModules._in_charge
        if other is self:
            return
        if other is not None:
            other._step_back()
        SiteModules._in_charge = self
        sys.path.append(self.root)
        sys.modules.update(self._away)
        self._away.clear()

    def _step_back(self) -> None:
        if SiteModules._in_charge is not self:
            return
        SiteModules._in_charge = None
        if self.root in sys.path:
            sys.path.remove(self.root)
        self._away = {
            name: sys.modules.pop(name) for name in self._plain_names() if name in sys.modules
        }

    def _plain_names(self) -> list[str]:
        """The names of the site's modules that other sites may use as well."""
        return [name for name in self._names if name.partition(".")[0] != self.package]

    def refresh(self) -> None:
        """Drop the modules if one of them has changed, or if an import would now find another file."""
        if (
            (self._left_over and not self._loading)
            or any(state.changed() for state in self._files.values())
            or any(listing.changed() for listing in self._listings.values())
        ):
            self.drop()

    def drop(self) -> None:
        """Drop the modules: the next import loads them anew."""
        self.generation += 1
        site: Any = getattr(self.registry, "site", None)
        if site is not None:
            site.tasks.end_deleted()
        self._forget()
        definitions.advance()

    def reload(self, name: str) -> None:
        """Import the module *name* if it was dropped, so that what it runs beside the site is of its present code."""
        self.activate()
        self.refresh()
        if name not in sys.modules:
            importlib.import_module(name)

    def watches(self, path: str) -> bool:
        """Whether *path* is a file of the site that was loaded as a module."""
        return path in self._files

    def may_serve(self, imports: frozenset[str]) -> bool:
        """Whether one of the modules may be what a source with these *imports* (see `sources.TaskOrigin`) uses."""
        return not imports.isdisjoint(
            {".", "importlib", *(name.partition(".")[0] for name in self._names)}
        )

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """While inside, the module *name* is being loaded, perhaps in a thread, and so is not dropped under way."""
        self._loading.add(name)
        try:
            yield
        finally:
            self._loading.discard(name)

    def _forget(self) -> None:
        self.activate()
        # Python fails with a KeyError if what it is importing goes, or what that is in. It goes as soon as it can.
        busy = [f"{each}." for each in tuple(self._loading)] if self._installed else []
        kept = {name for name in self._names if any(each.startswith(f"{name}.") for each in busy)}
        self._left_over = bool(kept)
        for name in self._names - kept:
            sys.modules.pop(name, None)
        self._names = kept
        self._files.clear()
        self._listings.clear()
        for entry in [
            entry for entry in sys.path_importer_cache if self.relative(entry) is not None
        ]:
            del sys.path_importer_cache[entry]
        beside = ModuleType(self.package)
        beside.__path__ = []  # so that `RelativeFinder` is asked for what is in there, and not the path hook
        sys.modules[self.package] = beside
        importlib.invalidate_caches()

    # Where things are

    def relative(self, path: str) -> tuple[str, ...] | None:
        """Return the parts of *path* below the site's root, or None if it is not there."""
        for root in self._roots:
            if path == root:
                return ()
            if path.startswith(root + os.sep):
                return tuple(path[len(root) + 1 :].split(os.sep))
        return None

    def is_site_directory(self, path: str) -> bool:
        """Whether ``.py`` files directly in *path* are modules of the site."""
        parts = self.relative(path)
        if parts is None or not os.path.isdir(path):
            return False
        return not any(
            file_state.is_ignored_directory(os.path.join(self.root, *parts[: n + 1]))
            for n in range(len(parts))
        )

    def hiding(self, name: str, file: str) -> bool:
        """Whether ``import name`` gives something else than *file* of the site: Python's own, or an installed one."""
        loaded = sys.modules.get(name)
        if loaded is not None:
            return name not in self._names and getattr(loaded, "__file__", None) != file
        if name in sys.stdlib_module_names:
            return True
        elsewhere = [entry for entry in sys.path if os.path.abspath(entry) not in self._roots]
        spec = PathFinder.find_spec(name, elsewhere)
        return spec is not None and spec.loader is not None and spec.has_location

    def warn_of_hidden(self, names: Iterable[str], importer: str) -> None:
        """Name each site file that *importer*, by importing one of *names*, will not get. Once per file."""
        for name, file in self.hidden(names, importer):
            if file not in self._told:
                self._told.add(file)
                what, mend = self.explained(name, file, importer)
                log.warning(
                    "%s imports %s and gets %s %s",
                    os.path.relpath(importer, self.root),
                    name,
                    what,
                    mend,
                )

    def hidden(self, names: Iterable[str], importer: str) -> Iterator[tuple[str, str]]:
        """Yield each of *names* that *importer* does not get from the site, with the site's file of that name."""
        for name in sorted(set(names) - {"."}):
            for directory in {os.path.dirname(importer), self.root}:
                file = module_file(directory, name)
                if file is not None and self.hiding(name, file):
                    yield name, file

    def explained(self, name: str, file: str, importer: str) -> tuple[str, str]:
        """Say what *importer* gets under *name* instead of *file*, and what to do about it."""
        depth = (
            0
            if _home(file) == os.path.dirname(importer)
            else len(self.relative(os.path.dirname(importer)) or ())
        )
        whose = (
            "Python's own"
            if name in sys.stdlib_module_names
            else "an installed module of that name"
        )
        return (
            f"{whose}, not the site's {os.path.relpath(file, self.root)}.",
            f"Rename that file (my_{name}.py), or write `from {'.' * (depth + 1)} import {name}`.",
        )

    # For the finders and the loader

    def _path_hook(self, path: str) -> SiteFinder:
        if not self.is_site_directory(path):
            raise ImportError("not a directory of the site", path=path)
        return SiteFinder(path, self)

    def ask(self, directory: str, name: str) -> None:
        """Note that an import looked for *name* in *directory*."""
        if directory not in self._listings:
            self._listings[directory] = file_state.ImportLookups(directory)
        self._listings[directory].ask(name)

    def owns(self, parent: str) -> bool:
        """Whether what is found in the package *parent* (empty: none) is the site's, not a foreign package's."""
        return not parent or parent in self._names or parent.partition(".")[0] == self.package

    def note(self, name: str) -> None:
        """Note that the module *name* is one of the site."""
        self._names.add(name)

    def read(self, path: str) -> bytes:
        """Return the contents of a module's file, and watch it from now on, whether or not it can be loaded."""
        data, self._files[path] = file_state.read(path)
        return data


def _home(file: str) -> str:
    """The directory that a module's or package's file makes it importable from."""
    directory = os.path.dirname(file)
    return os.path.dirname(directory) if os.path.basename(file) == "__init__.py" else directory
