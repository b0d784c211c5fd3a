"""Imports that nothing satisfies, as far as texts and names on the disk tell.

Imports nothing: Python's own modules are known by name, installed ones are looked for by the name before the first
dot only (a dotted name would import its parent), and the site's are read. An import that is guarded, by a ``try`` or by
a question after the platform, may fail; so may all of them where the path of modules is changed by hand.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

import rpyserve
from rpyserve.check.bindings import ModuleBindings, collect_bindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.diagnostics import import_advice
from rpyserve.scripts import twisted_names
from rpyserve.scripts.importer import SiteModules, module_file
from rpyserve.scripts.source import compile_source

__all__ = ["ImportChecker", "changes_path"]

_CATCHES: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_ASKS: Final = frozenset({"TYPE_CHECKING", "platform", "version_info", "find_spec", "name"})
_CHANGES_PATH: Final = re.compile(r"\bsys\.path\b|\baddsitedir\b|\bmeta_path\b|\b__path__\b")


def changes_path(source: bytes) -> bool:
    """Whether *source* may change where modules are looked for."""
    return _CHANGES_PATH.search(source.decode("utf-8", "replace")) is not None


class ImportChecker:
    """The imports of the files of one site, looked at one file after the other.

    Args:
        modules: the site's modules; they need not be installed.

    Attributes:
        reached: the site's files that were found to be imported.
    """

    def __init__(self, modules: SiteModules) -> None:
        self._modules = modules
        self.reached: set[str] = set()
        self._installed: dict[str, bool] = {}
        self._names: dict[str, frozenset[str] | None] = {}

    def find(self, tree: ast.Module, top: ModuleBindings, path: str) -> Iterator[Finding]:
        """Yield what is wrong with the imports of the file at *path*, which *tree* is, and *top* its top level."""
        if not top.open:
            yield from _forgotten(tree, top)
        for node, guarded in _imports(tree):
            wanted = {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                wanted = set() if node.level else {(node.module or "").partition(".")[0]}
            for name, file in self._modules.shadowed(wanted, path):
                what, mend = self._modules.explain_shadowing(name, file, path)
                yield Finding(
                    node.lineno, Rule.HIDDEN_MODULE, f"This import of {name} gets {what}", mend
                )
            unmet = list(self._unmet(node, path))
            if not guarded:
                yield from (
                    Finding(node.lineno, Rule.IMPORT, message, hint) for message, hint in unmet
                )

    def _unmet(self, node: ast.Import | ast.ImportFrom, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._absolute(alias.name, [], path)
            return
        names = [alias.name for alias in node.names]
        if node.level:
            yield from self._relative(node.module or "", node.level, names, path)
        else:
            yield from self._absolute(node.module or "", names, path)

    def _absolute(self, name: str, names: list[str], path: str) -> Iterator[tuple[str, str]]:
        top = name.partition(".")[0]
        root = self._modules.root
        if top == "twisted":
            yield from _of_twisted(name, names)
        elif name == "rpyserve":
            yield from self._of_rpyserve(names)
        elif top in sys.stdlib_module_names or top in sys.builtin_module_names:
            return
        elif (file := module_file(root, top)) is not None:
            if not self._modules.is_shadowed(top, file):
                yield from self._in_site(name, names, root)
        elif self._modules.is_site_directory(
            below := os.path.join(root, top)
        ) and not self._modules.is_shadowed(top, below):
            yield from self._in_site(name, names, root)
        elif not (self._is_installed(top) or _is_extension(root, top)):
            hint = import_advice.missing(name, os.path.dirname(path), root)
            yield f"Nothing is found under the name {name}.", hint

    def _relative(
        self, name: str, level: int, names: list[str], path: str
    ) -> Iterator[tuple[str, str]]:
        directory = os.path.dirname(path)
        for _ in range(level - 1):
            if directory == self._modules.root:
                yield (
                    f"{'.' * level} leads out of the site.",
                    "One dot is the file's own directory, two the one above it; the site's directory is the topmost.",
                )
                return
            directory = os.path.dirname(directory)
        yield from self._in_site(name, names, directory)

    def _in_site(self, name: str, names: list[str], directory: str) -> Iterator[tuple[str, str]]:
        """What a module *name* of the site, looked for from *directory*, lacks of *names*."""
        found = directory
        for part in filter(None, name.split(".")):
            self._reach(found, part)
            found = os.path.join(found, part)
            if not (
                os.path.isdir(found)
                or os.path.isfile(found + ".py")
                or _is_extension(*os.path.split(found))
            ):
                where = os.path.relpath(os.path.dirname(found), self._modules.root)
                place = "in the site's directory" if where == "." else f"in {where}"
                yield (
                    f"There is no module {part} {place}.",
                    _near(part, _modules_in(os.path.dirname(found))),
                )
                return
        file = module_file(*os.path.split(found)) if name else module_file(found, "__init__")
        has = self._names_in(file) if file else frozenset()
        for each in names:
            self._reach(found, each)
            if has is None or each == "*" or each in has or _is_module(found, each):
                continue
            place = os.path.relpath(file or found, self._modules.root)
            beside = "beside this file" if not name else f"in {place}"
            yield f"There is no {each} {beside}.", _near(each, [*has, *_modules_in(found)])

    def _reach(self, directory: str, name: str) -> None:
        if (file := module_file(directory, name)) is not None:
            self.reached.add(file)

    def _of_rpyserve(self, names: list[str]) -> Iterator[tuple[str, str]]:
        directory = os.path.dirname(rpyserve.__file__)
        for name in names:
            if name not in ("*", *dir(rpyserve)) and not _is_module(directory, name):
                yield f"rpyserve has no {name}.", _near(name, rpyserve.__all__)

    def _is_installed(self, top: str) -> bool:
        if top not in self._installed:
            try:
                self._installed[top] = importlib.util.find_spec(top) is not None
            except (ImportError, AttributeError, ValueError):  # such as a module without a spec
                self._installed[top] = top in sys.modules
        return self._installed[top]

    def _names_in(self, file: str) -> frozenset[str] | None:
        """The names that the module at *file* has; None if that cannot be known."""
        if file not in self._names:
            self._names[file] = _names_in(file)
        return self._names[file]


def _forgotten(tree: ast.Module, top: ModuleBindings) -> Iterator[Finding]:
    """Names of rpyserve's that are used without an import. Scripts have two of them without."""
    missing = (set(rpyserve.__all__) - {"cache", "registry"} - top.names.keys()) & top.mentioned
    if not missing:
        return
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, (ast.alias, ast.arg)):
            missing -= {node.arg} if isinstance(node, ast.arg) else {node.asname or node.name}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            missing.discard(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            missing.discard(node.id)
    used = [node for node in nodes if isinstance(node, ast.Name) and node.id in missing]
    for name in sorted(missing):
        for node in [node for node in used if node.id == name][:1]:
            yield Finding(
                node.lineno,
                Rule.IMPORT,
                f"{name} is not imported.",
                f"Import it first:\nfrom rpyserve import {name}",
            )


def _of_twisted(name: str, names: list[str]) -> Iterator[tuple[str, str]]:
    for wanted in [f"{name}.{each}" for each in names if each != "*"] or [name]:
        if not twisted_names.is_provided(wanted):
            message, covered, mend = twisted_names.replacement_for(wanted)
            yield message, mend or covered


def _names_in(file: str) -> frozenset[str] | None:
    try:
        with open(file, "rb") as opened:
            top = collect_bindings(compile_source(opened.read(), file).tree)
    except Exception:  # its own findings tell
        return None
    return (
        None
        if top.open or "__getattr__" in top.names
        else frozenset(top.names) | {"__name__", "__file__", "__doc__"}
    )


def _imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports, each with whether it may fail, or may not be executed at all."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, guarded = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, guarded
        guards = guarded or _guards(node)
        todo += [
            (child, guards)
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.expr)
        ]


def _guards(node: ast.AST) -> bool:
    if isinstance(node, (ast.Try, ast.TryStar)):
        caught = [name for handler in node.handlers for name in _named(handler.type)]
        return bool(_CATCHES & set(caught)) or any(
            handler.type is None for handler in node.handlers
        )
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return bool(_CATCHES & {name for item in node.items for name in _named(item.context_expr)})
    return isinstance(node, ast.If) and bool(_ASKS & set(_named(node.test)))


def _named(node: ast.AST | None) -> list[str]:
    parts = [] if node is None else list(ast.walk(node))
    return [getattr(each, "id", "") or getattr(each, "attr", "") for each in parts]


def _is_module(directory: str, name: str) -> bool:
    below = os.path.join(directory, name)
    return os.path.isfile(below + ".py") or os.path.isdir(below) or _is_extension(directory, name)


def _is_extension(directory: str, name: str) -> bool:
    return any(
        os.path.isfile(os.path.join(directory, name + suffix)) for suffix in EXTENSION_SUFFIXES
    )


def _modules_in(directory: str) -> list[str]:
    try:
        return [name.removesuffix(".py") for name in os.listdir(directory) if name.endswith(".py")]
    except OSError:
        return []


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 1, 0.7)
    return f"Did you mean {close[0]}?" if close else "Write it there, or take the import out."
