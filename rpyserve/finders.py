"""What Python's import system asks for modules of the site: finders and loaders.

Python's own caches are never trusted: a directory's goes by its mtime, and bytecode by whole seconds and sizes. Each
load is an execution that lasts. Where a module may come from, and when it is dropped, is `modules`' business.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from rpyserve import lineage
from rpyserve.executions import Execution
from rpyserve.running import executing, furnish
from rpyserve.sources import Source, compile_source

if TYPE_CHECKING:
    from rpyserve.modules import SiteModules

__all__ = ["RelativeFinder", "SiteFinder", "SiteLoader", "escaped", "module_file"]


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
        self._modules.announced.announce(self.path, data, source.tree, module=True)
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
            raise ImportError(f"{spec.name} changed while it was imported, again and again", name=spec.name)
        execution.finish(module.__dict__)
        lineage.publish(execution, module)
        site = getattr(execution.registry, "site", None)
        if site is not None:
            site.tasks.settle(execution)

    def _executed(self, name: str, module: ModuleType) -> Execution | None:
        """Execute the module once; None if modules were dropped meanwhile."""
        modules = self._modules
        generation = modules.generation
        execution = Execution(name, Path(self.path), cached=True, registry=modules.registry, home=modules.package)
        try:
            source = self._compile()
            execution.source = source.data
            furnish(module.__dict__, execution)
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
        self._modules.take_charge()
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just put the alias's there


def module_file(directory: str, name: str) -> str | None:
    """The file of the module or package *name* in *directory*."""
    for file in (os.path.join(directory, name + ".py"), os.path.join(directory, name, "__init__.py")):
        if os.path.isfile(file):
            return file
    return None
