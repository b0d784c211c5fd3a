"""Modules of the site: the ``.py`` files under it that scripts import.

Owns what is put into Python's import system while a site is served, and takes all of it out again. Python's own and
installed modules win; bytecode is never used, because it goes by whole seconds and sizes. Who imported whom cannot be
known, so one change among the modules drops all of them, and `SiteModules.generation` says so to whoever
keeps something that was made with them. ``from . import x`` beside a script and ``import x`` give one module object.
Of several sites in one process, each with a ``words.py``, the one whose script was loaded last has the plain names.
Knows nothing of scripts but that they are executions too.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from rpyserve import freshness, lineage
from rpyserve.announced import Announced
from rpyserve.finders import RelativeFinder, SiteFinder, module_file

__all__ = ["SiteModules"]

log = logging.getLogger("rpyserve")


class SiteModules:
    """The modules of the site at *root*.

    Args:
        root: the site's directory.

    Attributes:
        package: the name of the package that stands for *root* in relative imports. There must be no such module.
        generation: grows each time that the modules are dropped.
        registry: what a module gets as ``rpyserve.registry`` while it is loaded.
        announced: what the console was told that the scripts and modules will lose.
    """

    _in_charge: ClassVar[SiteModules | None] = None

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        self.package = "rpydir"
        self.generation = 0
        self.registry: Any = None
        self.announced = Announced(self.root)
        self._roots = {self.root, os.path.realpath(self.root)}
        self._files: dict[str, freshness.State] = {}
        self._listings: dict[str, freshness.Listing] = {}
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
        self._moved = [(i, entry) for i, entry in enumerate(sys.path) if os.path.abspath(entry) in self._roots]
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) not in self._roots]
        self.take_charge()
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

    def take_charge(self) -> None:
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
        self._away = {name: sys.modules.pop(name) for name in self._plain_names() if name in sys.modules}

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
        lineage.advance()

    def reload(self, name: str) -> None:
        """Import the module *name* if it was dropped, so that what it runs beside the site is of its present code."""
        self.take_charge()
        self.refresh()
        if name not in sys.modules:
            importlib.import_module(name)

    def watches(self, path: str) -> bool:
        """Whether *path* is a file of the site that was loaded as a module."""
        return path in self._files

    def may_serve(self, imports: frozenset[str]) -> bool:
        """Whether one of the modules may be what a source with these *imports* (see `sources.Source`) uses."""
        return not imports.isdisjoint({".", "importlib", *(name.partition(".")[0] for name in self._names)})

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """While inside, the module *name* is being loaded, perhaps in a thread, and so is not dropped under way."""
        self._loading.add(name)
        try:
            yield
        finally:
            self._loading.discard(name)

    def _forget(self) -> None:
        self.take_charge()
        # Python fails with a KeyError if what it is importing goes, or what that is in. It goes as soon as it can.
        busy = [f"{each}." for each in tuple(self._loading)] if self._installed else []
        kept = {name for name in self._names if any(each.startswith(f"{name}.") for each in busy)}
        self._left_over = bool(kept)
        for name in self._names - kept:
            sys.modules.pop(name, None)
        self._names = kept
        self._files.clear()
        self._listings.clear()
        for entry in [entry for entry in sys.path_importer_cache if self.relative(entry) is not None]:
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
        return not any(freshness.is_foreign(os.path.join(self.root, *parts[: n + 1])) for n in range(len(parts)))

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
                log.warning("%s imports %s and gets %s %s", os.path.relpath(importer, self.root), name, what, mend)

    def hidden(self, names: Iterable[str], importer: str) -> Iterator[tuple[str, str]]:
        """Yield each of *names* that *importer* does not get from the site, with the site's file of that name."""
        for name in sorted(set(names) - {"."}):
            for directory in {os.path.dirname(importer), self.root}:
                file = module_file(directory, name)
                if file is not None and self.hiding(name, file):
                    yield name, file

    def explained(self, name: str, file: str, importer: str) -> tuple[str, str]:
        """Say what *importer* gets under *name* instead of *file*, and what to do about it."""
        depth = 0 if _home(file) == os.path.dirname(importer) else len(self.relative(os.path.dirname(importer)) or ())
        whose = "Python's own" if name in sys.stdlib_module_names else "an installed module of that name"
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
            self._listings[directory] = freshness.Listing(directory)
        self._listings[directory].ask(name)

    def owns(self, parent: str) -> bool:
        """Whether what is found in the package *parent* (empty: none) is the site's, not a foreign package's."""
        return not parent or parent in self._names or parent.partition(".")[0] == self.package

    def note(self, name: str) -> None:
        """Note that the module *name* is one of the site."""
        self._names.add(name)

    def read(self, path: str) -> bytes:
        """Return the contents of a module's file, and watch it from now on, whether or not it can be loaded."""
        data, self._files[path] = freshness.read(path)
        return data


def _home(file: str) -> str:
    """The directory that a module's or package's file makes it importable from."""
    directory = os.path.dirname(file)
    return os.path.dirname(directory) if os.path.basename(file) == "__init__.py" else directory
