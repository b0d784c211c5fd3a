"""Imports that nothing satisfies, as far as texts and names on the disk tell.

Imports nothing. Python's own modules are known by name; installed ones are looked up by the name
before the first dot only, since a dotted name would import its parent; the site's are read. An
import that is guarded may fail: by a ``try``, or by a condition on the platform. So may all imports
where code changes the search path of modules.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
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
from rpyserve.util.text import closest_match

__all__ = ["ImportChecker", "changes_search_path"]

Problem = tuple[str, str]
"""A message and a hint."""

_PACKAGE: Final = str(Path(__file__).parent.parent)
_PROVIDED: Final = frozenset({"cache", "registry"})
"""Public names that scripts have without an import."""
_OF_EVERY_MODULE: Final = frozenset({"__name__", "__file__", "__doc__"})
_IMPORT_ERRORS: Final = frozenset(
    {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
)
_PLATFORM_NAMES: Final = frozenset(
    {"TYPE_CHECKING", "platform", "version_info", "find_spec", "name"}
)
"""What a condition mentions that chooses between imports."""
_SEARCH_PATH: Final = re.compile(r"\bsys\.path\b|\baddsitedir\b|\bmeta_path\b|\b__path__\b")


def changes_search_path(source: bytes) -> bool:
    """Whether *source* may change where modules are looked for."""
    return _SEARCH_PATH.search(source.decode("utf-8", "replace")) is not None


class ImportChecker:
    """Checks the imports of the files of one site.

    Args:
        modules: the site's modules; they need not be installed.

    Attributes:
        reached: the files of the site that the checked imports lead to.
    """

    def __init__(self, modules: SiteModules) -> None:
        self.reached: set[str] = set()
        self._modules = modules
        self._is_installed: dict[str, bool] = {}
        self._names_of_file: dict[str, frozenset[str] | None] = {}

    def check(self, tree: ast.Module, bindings: ModuleBindings, path: str) -> Iterator[Finding]:
        """Yield what is wrong with the imports of the file at *path*, which *tree* is."""
        if not bindings.has_dynamic_names:
            yield from _missing_imports(tree, bindings)
        for node, is_guarded in _imports(tree):
            yield from self._shadowed(node, path)
            problems = list(self._unresolved(node, path))  # also what is guarded reaches files
            if not is_guarded:
                for problem in problems:
                    yield Finding(node.lineno, Rule.UNRESOLVED_IMPORT, *problem)

    def _shadowed(self, node: ast.Import | ast.ImportFrom, path: str) -> Iterator[Finding]:
        if isinstance(node, ast.Import):
            names = {_first_part(alias.name) for alias in node.names}
        else:
            names = set() if node.level else {_first_part(node.module or "")}
        for name, file in self._modules.shadowed(names, path):
            what, hint = self._modules.explain_shadowing(name, file, path)
            message = f"This import of {name} gets {what}"
            yield Finding(node.lineno, Rule.SHADOWED_MODULE, message, hint)

    def _unresolved(self, node: ast.Import | ast.ImportFrom, path: str) -> Iterator[Problem]:
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            for name in names:
                yield from self._check_absolute(name, [], path)
        elif node.level:
            yield from self._check_relative(node.module or "", node.level, names, path)
        else:
            yield from self._check_absolute(node.module or "", names, path)

    def _check_absolute(self, module: str, names: list[str], path: str) -> Iterator[Problem]:
        """Yield what ``import module`` or ``from module import names`` lacks."""
        top = _first_part(module)
        root = self._modules.root
        if top == "twisted":
            yield from _check_twisted(module, names)
        elif module == "rpyserve":
            yield from _check_rpyserve(names)
        elif top in sys.stdlib_module_names or top in sys.builtin_module_names:
            return
        elif (file := self._site_module(top)) is not None:
            if not self._modules.is_shadowed(top, file):
                yield from self._check_in_site(module, names, root)
        elif not self._is_found_elsewhere(top):
            hint = import_advice.missing(module, os.path.dirname(path), root)
            yield f"There is no module named {module}.", hint

    def _site_module(self, name: str) -> str | None:
        """The file of the site's top-level module *name*; its directory if it has no file."""
        file = module_file(self._modules.root, name)
        directory = os.path.join(self._modules.root, name)
        if file is None and self._modules.is_site_directory(directory):
            return directory
        return file

    def _check_relative(
        self, module: str, level: int, names: list[str], path: str
    ) -> Iterator[Problem]:
        directory = os.path.dirname(path)
        for _ in range(level - 1):
            if directory == self._modules.root:
                yield (
                    f"{'.' * level} leads out of the site.",
                    "One dot is the file's own directory, two dots are the one above it; "
                    "the site's directory is the topmost.",
                )
                return
            directory = os.path.dirname(directory)
        yield from self._check_in_site(module, names, directory)

    def _check_in_site(self, module: str, names: list[str], directory: str) -> Iterator[Problem]:
        """Yield what *module*, looked for from *directory* of the site, lacks of *names*."""
        # 1. The module, part by part.
        found = directory
        for part in filter(None, module.split(".")):
            self._reach(found, part)
            if not _is_module(found, part):
                where = os.path.relpath(found, self._modules.root)
                place = "in the site's directory" if where == "." else f"in {where}"
                hint = _hint_for(part, _modules_in(found))
                yield f"There is no module {part} {place}.", hint
                return
            found = os.path.join(found, part)
        # 2. The names in it: its own, or modules of the package.
        file = module_file(*os.path.split(found)) if module else module_file(found, "__init__")
        known = self._names_in(file) if file else frozenset()
        for name in names:
            self._reach(found, name)
            if known is None or name == "*" or name in known or _is_module(found, name):
                continue
            where = os.path.relpath(file or found, self._modules.root)
            place = f"in {where}" if module else "beside this file"
            yield f"There is no {name} {place}.", _hint_for(name, [*known, *_modules_in(found)])

    def _reach(self, directory: str, name: str) -> None:
        file = module_file(directory, name)
        if file is not None:
            self.reached.add(file)

    def _is_found_elsewhere(self, top: str) -> bool:
        if top not in self._is_installed:
            self._is_installed[top] = _is_installed(top)
        return self._is_installed[top] or _is_extension(self._modules.root, top)

    def _names_in(self, file: str) -> frozenset[str] | None:
        """The names that the module at *file* has; None if that cannot be known."""
        if file not in self._names_of_file:
            self._names_of_file[file] = _names_in(file)
        return self._names_of_file[file]


def _missing_imports(tree: ast.Module, bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield public names of rpyserve that are used, but bound nowhere in the file."""
    missing = (PUBLIC - _PROVIDED - bindings.names.keys()) & bindings.used_names
    if not missing:
        return
    first_use: dict[str, int] = {}
    for node in ast.walk(tree):
        missing -= {name_bound_by(node)}
        if isinstance(node, ast.Name):
            first_use.setdefault(node.id, node.lineno)
    for name in sorted(missing):
        message = f"{name} is not imported."
        hint = f"Import it first:\nfrom rpyserve import {name}"
        yield Finding(first_use[name], Rule.UNRESOLVED_IMPORT, message, hint)


def _check_twisted(module: str, names: list[str]) -> Iterator[Problem]:
    for wanted in [f"{module}.{name}" for name in names if name != "*"] or [module]:
        if not twisted_names.is_provided(wanted):
            message, provided, replacement = twisted_names.replacement_for(wanted)
            yield message, replacement or provided


def _check_rpyserve(names: list[str]) -> Iterator[Problem]:
    known = PUBLIC | _OF_EVERY_MODULE | {"*", "__version__", "__all__"}
    for name in names:
        if name not in known and not _is_module(_PACKAGE, name):
            yield f"rpyserve has no {name}.", _hint_for(name, sorted(PUBLIC))


def _imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports, each with whether it is guarded: it may fail, or not be executed."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, is_guarded = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, is_guarded
        guards = is_guarded or _guards(node)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr):
                todo.append((child, guards))


def _guards(node: ast.AST) -> bool:
    match node:
        case ast.Try(handlers=handlers) | ast.TryStar(handlers=handlers):
            caught = [handler.type for handler in handlers]
            return None in caught or _mentions(caught, _IMPORT_ERRORS)
        case ast.With(items) | ast.AsyncWith(items):  # contextlib.suppress
            return _mentions([item.context_expr for item in items], _IMPORT_ERRORS)
        case ast.If(test):
            return _mentions([test], _PLATFORM_NAMES)
    return False


def _mentions(expressions: Sequence[ast.expr | None], names: frozenset[str]) -> bool:
    for expression in filter(None, expressions):
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and node.id in names:
                return True
            if isinstance(node, ast.Attribute) and node.attr in names:
                return True
    return False


def _first_part(module: str) -> str:
    return module.partition(".")[0]


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, AttributeError, ValueError):  # such as a module without a spec
        return top in sys.modules


def _is_module(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return os.path.isfile(path + ".py") or os.path.isdir(path) or _is_extension(directory, name)


def _is_extension(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return any(os.path.isfile(path + suffix) for suffix in EXTENSION_SUFFIXES)


def _modules_in(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [name.removesuffix(".py") for name in names if name.endswith(".py")]


def _names_in(file: str) -> frozenset[str] | None:
    """The names that the module at *file* binds; None if that cannot be known."""
    try:
        with open(file, "rb") as opened:
            bindings = ModuleBindings(compile_source(opened.read(), file).tree)
    except Exception:  # the file has findings of its own
        return None
    if bindings.has_dynamic_names or "__getattr__" in bindings.names:
        return None
    return frozenset(bindings.names) | _OF_EVERY_MODULE


def _hint_for(name: str, possibilities: list[str]) -> str:
    closest = closest_match(name, possibilities)
    if closest is None:
        return "Define it there, or remove the import."
    return f"Did you mean {closest}?"
