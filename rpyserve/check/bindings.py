"""What the top-level code of a script or module binds to names, as far as its text tells.

Reads a syntax tree and executes nothing. Every way to bind counts: in an ``if`` or ``try``, by ``with``, ``for``,
``match``, a walrus, an import, a function that says ``global``. A star import, ``exec`` or ``globals()`` may bind any
name, so where one is, no name is known to be missing: `ModuleBindings.open` says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["FUNCTIONS", "Binding", "BindingKind", "ModuleBindings", "collect_bindings"]

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_BLOCKS: Final = (ast.If, ast.For, ast.While, ast.Try, ast.TryStar, ast.Match, ast.AsyncFor)
_DYNAMIC: Final = frozenset({"exec", "globals", "vars", "locals"})
_HOMES_OF_RESOURCE: Final = ("rpyserve", "twisted.web.resource")


class BindingKind(Enum):
    """What binds a name."""

    VALUE = "an assignment of a known expression"
    FUNCTION = "def"
    CLASS = "class"
    MODULE = "import x"
    IMPORT = "from x import"
    OTHER = "anything else"


@dataclass(frozen=True, slots=True)
class Binding:
    """One place where a name is bound.

    Args:
        node: the definition, the import's alias, or what is assigned; for `BindingKind.OTHER`, whatever binds it.
        line: where it is.
        certain: it is executed whenever the top-level code is.
        source: for imports, the dotted name of what is imported.
    """

    by: BindingKind
    node: ast.AST
    line: int
    certain: bool
    source: str = ""


@dataclass(frozen=True, slots=True)
class ModuleBindings:
    """The names that top-level code binds, each with its bindings in their order.

    Args:
        open: names may be bound that cannot be seen here.
        cached: it calls rpyserve's ``cache()``.
        mentioned: the plain names that are used anywhere in the text.
        attributes: the names that stand behind a dot anywhere.
    """

    names: dict[str, list[Binding]]
    open: bool
    cached: bool
    mentioned: frozenset[str]
    attributes: frozenset[str]

    def last(self, name: str) -> Binding | None:
        """Return the last binding of *name*, or None."""
        return self.names[name][-1] if name in self.names else None

    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield the classes that are defined here."""
        for bindings in self.names.values():
            yield from (
                binding.node for binding in bindings if isinstance(binding.node, ast.ClassDef)
            )

    def is_resource(self, kind: ast.ClassDef, seen: frozenset[str] = frozenset()) -> bool | None:
        """Whether *kind* is a Resource class; None if that depends on a base that is not to be seen here."""
        answers = {self._is_base(base, seen | {kind.name}) for base in kind.bases}
        if True in answers:
            return True
        return None if None in answers else False

    def _is_base(self, base: ast.expr, seen: frozenset[str]) -> bool | None:
        if isinstance(base, ast.Attribute):
            return True if base.attr == "Resource" else None
        if not isinstance(base, ast.Name):
            return None
        bound = self.last(base.id)
        if bound is None:
            return True if base.id == "Resource" else None if self.open else False
        if isinstance(bound.node, ast.ClassDef):
            return False if base.id in seen else self.is_resource(bound.node, seen)
        if bound.by is BindingKind.IMPORT and bound.source in {
            f"{home}.Resource" for home in _HOMES_OF_RESOURCE
        }:
            return True
        return None


def collect_bindings(tree: ast.Module) -> ModuleBindings:
    """Look at the top-level code of *tree*."""
    looking = _Looking()
    looking.at(tree)
    for names in looking.names.values():
        names.sort(key=lambda binding: binding.line)
    mentioned, attributes = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            mentioned.add(node.id)
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
        elif isinstance(node, ast.Global):
            for name in node.names:
                looking.bind(name, BindingKind.OTHER, node, False)
    return ModuleBindings(
        looking.names, looking.open, looking.cached, frozenset(mentioned), frozenset(attributes)
    )


class _Looking:
    def __init__(self) -> None:
        self.names: dict[str, list[Binding]] = {}
        self.open = False
        self._calls: list[ast.expr] = []

    def bind(
        self, name: str, by: BindingKind, node: ast.AST, certain: bool, source: str = ""
    ) -> None:
        line = getattr(node, "lineno", 0)
        self.names.setdefault(name, []).append(Binding(by, node, line, certain, source))

    def at(self, tree: ast.Module) -> None:
        todo: list[tuple[ast.AST, bool]] = [(node, True) for node in reversed(tree.body)]
        while todo:
            node, certain = todo.pop()
            self._note(node, certain)
            inner = certain and not isinstance(node, _BLOCKS)
            todo += [(child, inner) for child in reversed(_here(node))]

    def _note(self, node: ast.AST, certain: bool) -> None:
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                self.bind(name, BindingKind.FUNCTION, node, certain)
            case ast.ClassDef(name):
                self.bind(name, BindingKind.CLASS, node, certain)
            case ast.Import() | ast.ImportFrom():
                self._imported(node, certain)
            case ast.Assign(targets, value):
                for target in targets:
                    self._assigned(target, value, certain)
            case ast.AnnAssign(target, _, ast.expr() as value) | ast.NamedExpr(target, value):
                self._assigned(target, value, certain)
            case (
                ast.Name(name, ast.Store())
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                self.bind(name, BindingKind.OTHER, node, certain)
            case ast.MatchMapping(rest=str(name)):
                self.bind(name, BindingKind.OTHER, node, certain)
            case ast.Call(function):
                self.open |= isinstance(function, ast.Name) and function.id in _DYNAMIC
                self._calls.append(function)

    def _assigned(self, target: ast.expr, value: ast.expr, certain: bool) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, BindingKind.VALUE, value, certain)

    def _imported(self, node: ast.Import | ast.ImportFrom, certain: bool) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.open = True
            elif isinstance(node, ast.Import):
                name = alias.asname or alias.name.partition(".")[0]
                self.bind(
                    name, BindingKind.MODULE, alias, certain, alias.name if alias.asname else name
                )
            else:
                home = "." * node.level + (node.module or "")
                self.bind(
                    alias.asname or alias.name,
                    BindingKind.IMPORT,
                    alias,
                    certain,
                    f"{home}.{alias.name}",
                )

    @property
    def cached(self) -> bool:
        return any(self._is_cache(function) for function in self._calls)

    def _is_cache(self, function: ast.expr) -> bool:
        if isinstance(function, ast.Attribute):
            return isinstance(function.value, ast.Name) and (function.value.id, function.attr) == (
                "rpyserve",
                "cache",
            )
        if not isinstance(function, ast.Name):
            return False
        bound = self.names.get(function.id)
        return (
            function.id == "cache"
            if bound is None
            else any(each.source == "rpyserve.cache" for each in bound)
        )


def _here(node: ast.AST) -> list[ast.AST]:
    """The children of *node* whose names are the top level's own."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [*getattr(node, "decorator_list", ()), *getattr(node, "bases", ())]
    if isinstance(node, _COMPREHENSIONS):
        return [child for child in ast.walk(node) if isinstance(child, ast.NamedExpr)]
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign):
        targets = [target for target in node.targets if isinstance(target, ast.Name)]
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
        targets = [node.target]  # a bare annotation binds nothing
    return [child for child in ast.iter_child_nodes(node) if child not in targets]
