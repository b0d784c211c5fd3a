"""Imports that nothing satisfies, as far as texts and names on the disk tell.

Imports nothing. Python's own modules are known by name; installed ones are looked up by the name
before the first dot only, since a dotted name would import its parent; the site's are read. An
import that is guarded may fail: by a ``try``, or by a condition on the platform. So may all imports
where code changes the search path of modules.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Set
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from rpyserve._names import PUBLIC
from rpyserve.check.bindings import ModuleBindings, name_bound_by
from rpyserve.check.findings import Finding, Rule
from rpyserve.diagnostics import import_advice
from rpyserve.scripts import twisted_names
from rpyserve.scripts.importer import SiteModules, module_file
from rpyserve.scripts.source import compile_source
from rpyserve.scripts.validation import Problem
from rpyserve.util.text import closest_match

_PACKAGE: Final = str(Path(__file__).parent.parent)
# Public names that scripts have without an import.
_PROVIDED: Final = frozenset({"cache", "registry"})
_OF_EVERY_MODULE: Final = frozenset({"__name__", "__file__", "__doc__"})
# Names in the header of an ``except``, ``with`` or ``if`` that show that its import may fail, or is
# chosen by the platform.
_GUARD: Final = re.compile(
    r"\b(ImportError|ModuleNotFoundError|Exception|BaseException"
    r"|TYPE_CHECKING|platform|version_info|find_spec|name)\b"
)
# Names that code needs to change the search path of modules.
_SEARCH_PATH: Final = frozenset({"sys.path", "sys.meta_path", "site.addsitedir", "__path__"})
_ABOVE: Final = (
    "One dot is the file's own directory, two dots are the one above it; "
    "the site's directory is the topmost."
)
_CHANGED: Final = "It may have another name or place in this version: see Twisted's documentation."


class ImportChecker:
    """Checks the imports of the files of one site.

    Args:
        modules: the site's modules; they need not be installed.

    Attributes:
        reached: the files of the site that the checked imports lead to.
        search_path_changes: a checked file may change where modules are looked for.
    """

    def __init__(self, modules: SiteModules) -> None:
        self.reached: set[str] = set()
        self.search_path_changes = False
        self._modules = modules
        self._names_in = functools.cache(_names_in)

    def check(self, tree: ast.Module, bindings: ModuleBindings, path: str) -> Iterator[Finding]:
        """Yield what is wrong with the imports of the file at *path*, which *tree* is."""
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        mentioned = {*bindings.origins.values(), *bindings.used_names}
        mentioned.update(map(bindings.dotted_name, attributes))
        self.search_path_changes |= bool(mentioned & _SEARCH_PATH)
        if not bindings.has_dynamic_names:
            yield from _missing_imports(tree, bindings)
        for node, is_guarded in _imports(tree):
            top = "." if node.level else (node.module or "").partition(".")[0]
            for name, file in self._modules.shadowed([top], path):
                what, hint = self._modules.explain_shadowing(name, file, path)
                message = f"This import of {name} gets {what}"
                yield Finding(node.lineno, Rule.SHADOWED_MODULE, message, hint)
            problems = list(self._unresolved(node, path))  # also what is guarded reaches files
            for problem in problems if not is_guarded else ():
                yield Finding(node.lineno, Rule.UNRESOLVED_IMPORT, *problem)

    def _unresolved(self, node: ast.ImportFrom, path: str) -> Iterable[Problem]:
        module = node.module or ""
        top = module.partition(".")[0]
        names = [alias.name for alias in node.names]
        if node.level:
            return self._check_relative(node.level, module, names, path)
        if top == "twisted":
            return self._check_twisted(module, names)
        if module == "rpyserve":
            return _check_rpyserve(names)
        if top in sys.stdlib_module_names:
            return ()
        root = self._modules.root
        own = module_file(root, top) or os.path.join(root, top)
        if _is_module(root, top) and not self._modules.is_shadowed(top, own):
            return self._check_in_site(module, names, root)
        return self._check_installed(module, path)

    def _check_relative(
        self, level: int, module: str, names: list[str], path: str
    ) -> Iterable[Problem]:
        parts = self._modules.relative(os.path.dirname(path)) or ()
        depth = len(parts) + 1 - level
        if depth < 0:
            return [(f"{'.' * level} leads out of the site.", _ABOVE)]
        directory = os.path.join(self._modules.root, *parts[:depth])
        return self._check_in_site(module, names, directory)

    def _check_installed(self, module: str, path: str) -> Iterable[Problem]:
        top = module.partition(".")[0]
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            return ()
        hint = import_advice.missing(module, os.path.dirname(path), self._modules.root)
        return [(f"There is no module named {module}.", hint)]

    def _check_twisted(self, module: str, names: list[str]) -> Iterable[Problem]:
        installed = twisted_names.genuine_spec()
        if installed is None or installed.origin is None:
            return _without_twisted(module, names)
        return self._check_genuine(module, names, os.path.dirname(installed.origin))

    def _check_genuine(self, module: str, names: list[str], directory: str) -> Iterator[Problem]:
        """Yield what *module* of the Twisted in *directory* lacks of *names*."""
        found = os.path.join(directory, *module.split(".")[1:])
        if not _is_module(*os.path.split(found)):
            yield f"Twisted has no module {module}.", _CHANGED
            return
        known = self._names_in(module_file(*os.path.split(found)) or found)
        for name in names:
            is_known = name == "*" or not known.isdisjoint({name, "*"})
            if not is_known and not _is_module(found, name):
                closest = closest_match(name, known)
                hint = f"Did you mean {closest}?" if closest else _CHANGED
                yield f"There is no {name} in {module}.", hint

    def _check_in_site(self, module: str, names: list[str], directory: str) -> Iterator[Problem]:
        """Yield what *module*, looked for from *directory* of the site, lacks of *names*."""
        found = directory
        for part in filter(None, module.split(".")):
            if not self._reaches(found, part):
                where = os.path.relpath(found, self._modules.root)
                place = "in the site's directory" if where == "." else f"in {where}"
                hint = _hint_for(part, _modules_in(found))
                yield f"There is no module {part} {place}.", hint
                return
            found = os.path.join(found, part)
        file = module_file(*os.path.split(found)) if module else module_file(found, "__init__")
        place = f"in {os.path.relpath(file or found, self._modules.root)}"
        yield from self._check_names(names, file, found, place if module else "beside this file")

    def _check_names(
        self, names: list[str], file: str | None, directory: str, place: str
    ) -> Iterator[Problem]:
        """Yield which *names* a module does not have, neither itself nor as a package.

        Args:
            file: the file of the module, if it has one.
            directory: where its modules are, if it is a package.
            place: where the names are missing, in words.
        """
        known = self._names_in(file or directory)
        for name in names:
            is_known = name == "*" or not known.isdisjoint({name, "*"})
            if not self._reaches(directory, name) and not is_known:
                hint = _hint_for(name, [*known, *_modules_in(directory)])
                yield f"There is no {name} {place}.", hint

    def _reaches(self, directory: str, name: str) -> bool:
        """Whether there is such a module, which is reached then."""
        self.reached.update(filter(None, [module_file(directory, name)]))
        return _is_module(directory, name)


def _missing_imports(tree: ast.Module, bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield public names of rpyserve that are used, but bound nowhere in the file."""
    missing = PUBLIC - _PROVIDED - set(map(name_bound_by, ast.walk(tree)))
    for name in sorted(missing & bindings.used_names):
        uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
        hint = f"Import it first:\nfrom rpyserve import {name}"
        yield Finding(uses[0].lineno, Rule.UNRESOLVED_IMPORT, f"{name} is not imported.", hint)


def _without_twisted(module: str, names: list[str]) -> Iterator[Problem]:
    for wanted in [f"{module}.{name}".removesuffix(".*") for name in names] or [module]:
        if not twisted_names.is_provided(wanted):
            message, provided, replacement = twisted_names.replacement_for(wanted)
            yield message, f"{replacement}\n{provided}"


def _check_rpyserve(names: list[str]) -> Iterator[Problem]:
    known = PUBLIC | _OF_EVERY_MODULE | {"*", "__version__", "__all__"}
    for name in names:
        if name not in known and not _is_module(_PACKAGE, name):
            yield f"rpyserve has no {name}.", _hint_for(name, PUBLIC)


def _imports(tree: ast.Module) -> Iterator[tuple[ast.ImportFrom, bool]]:
    """Yield the imports, each with whether it is guarded: it may fail, or not be executed.

    For ``import a``, it is one of no names from ``a``.
    """
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, is_guarded = todo.pop()
        if isinstance(node, ast.ImportFrom):
            yield node, is_guarded
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield ast.ImportFrom(alias.name, [], 0, lineno=node.lineno), is_guarded
        is_guarded = is_guarded or _guards(node)
        todo += [(child, is_guarded) for child in ast.iter_child_nodes(node)]


def _guards(node: ast.AST) -> bool:
    """Whether the imports in *node* may fail: by ``except``, ``suppress``, or a condition."""
    headers: list[ast.AST] = []
    match node:
        case ast.Try(handlers=handlers) | ast.TryStar(handlers=handlers):
            headers += [handler.type or ast.Name("BaseException") for handler in handlers]
        case ast.With(items) | ast.AsyncWith(items):
            headers += items
        case ast.If(test):
            headers.append(test)
    return any(map(_GUARD.search, map(ast.unparse, headers)))


def _is_module(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    files = [path + suffix for suffix in (".py", *EXTENSION_SUFFIXES)]
    return os.path.isdir(path) or any(map(os.path.isfile, files))


def _modules_in(directory: str) -> list[str]:
    return [path.stem for path in Path(directory).glob("*.py")]


def _names_in(path: str) -> Set[str]:
    """The names that the module at *path* binds; "*" stands for what cannot be known."""
    if os.path.isdir(path):
        return set()
    try:
        bindings = ModuleBindings(compile_source(Path(path).read_bytes(), path).tree)
    except Exception:  # the file has findings of its own
        return {"*"}
    is_open = bindings.has_dynamic_names or "__getattr__" in bindings.names
    return bindings.names.keys() | _OF_EVERY_MODULE | ({"*"} if is_open else set())


def _hint_for(name: str, possibilities: Iterable[str]) -> str:
    closest = closest_match(name, possibilities)
    return f"Did you mean {closest}?" if closest else "Define it there, or remove the import."
