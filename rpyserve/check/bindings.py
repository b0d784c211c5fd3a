"""Which names the top-level code of a script or module binds, as far as its text tells.

Reads a syntax tree and executes nothing. Every way to bind counts: in an ``if`` or ``try``, by
``with``, ``for``, ``match``, a walrus, an import, or a function that declares a name ``global``. A
star import, ``exec`` or ``globals()`` may bind any name. No name is known to be missing then;
`ModuleBindings.has_dynamic_names` says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = [
    "DEFINITIONS",
    "FUNCTIONS",
    "Binding",
    "BindingKind",
    "ModuleBindings",
    "children_in_scope",
    "collect_bindings",
    "names_bound_by",
]

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
"""The nodes that open the scope of a function."""
DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
"""The nodes of functions that have a name."""

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CONDITIONAL: Final = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
_BINDS_ANY_NAME: Final = frozenset({"exec", "globals", "vars", "locals"})
_RESOURCE: Final = frozenset({"rpyserve.Resource", "twisted.web.resource.Resource"})


class BindingKind(Enum):
    """What binds a name."""

    VALUE = "an assignment of an expression"
    FUNCTION = "def"
    CLASS = "class"
    MODULE = "import x"
    IMPORT = "from x import"
    OTHER = "anything else"


@dataclass(frozen=True, slots=True)
class Binding:
    """One place where a name is bound.

    Args:
        kind: what binds the name.
        node: the definition, the alias of an import, or the expression that is assigned. For
            `BindingKind.OTHER`, the node that binds the name.
        line: the line of *node*.
        is_unconditional: the binding happens whenever the top-level code runs.
        imported: for imports, the dotted name of what is imported; else empty.
    """

    kind: BindingKind
    node: ast.AST
    line: int
    is_unconditional: bool
    imported: str = ""


@dataclass(frozen=True, slots=True)
class ModuleBindings:
    """The names that top-level code binds.

    Args:
        names: the bindings of each name, in the order of their lines.
        has_dynamic_names: names may be bound that the text does not show.
        calls_cache: the code calls rpyserve's ``cache()``.
        used_names: the plain names that stand anywhere in the text.
        used_attributes: the names that stand behind a dot anywhere in the text.
    """

    names: dict[str, list[Binding]]
    has_dynamic_names: bool
    calls_cache: bool
    used_names: frozenset[str]
    used_attributes: frozenset[str]

    def last(self, name: str) -> Binding | None:
        """Return the last binding of *name*, or None."""
        return self.names[name][-1] if name in self.names else None

    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield the classes that are defined at the top level."""
        for bindings in self.names.values():
            for binding in bindings:
                if isinstance(binding.node, ast.ClassDef):
                    yield binding.node

    def is_resource(self, cls: ast.ClassDef, seen: frozenset[str] = frozenset()) -> bool | None:
        """Whether *cls* is a Resource class; None if the text does not show a base that matters."""
        answers = {self._is_resource_base(base, seen | {cls.name}) for base in cls.bases}
        if True in answers:
            return True
        return None if None in answers else False

    def _is_resource_base(self, base: ast.expr, seen: frozenset[str]) -> bool | None:
        if isinstance(base, ast.Attribute):
            return True if base.attr == "Resource" else None
        if not isinstance(base, ast.Name):
            return None
        bound = self.last(base.id)
        if bound is None:
            if base.id == "Resource":
                return True
            return None if self.has_dynamic_names else False
        if isinstance(bound.node, ast.ClassDef):
            return False if base.id in seen else self.is_resource(bound.node, seen)
        return True if bound.imported in _RESOURCE else None


def collect_bindings(tree: ast.Module) -> ModuleBindings:
    """Return what the top-level code of *tree* binds."""
    return _Collector(tree).result()


def names_bound_by(node: ast.AST) -> list[str]:
    """Return the names that *node* binds in the scope in which it stands, its children aside."""
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return [name]
        case ast.Name(name, ast.Store() | ast.Del()):
            return [name]
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.Import(aliases):
            return [alias.asname or alias.name.partition(".")[0] for alias in aliases]
        case ast.ImportFrom(_, aliases):
            return [alias.asname or alias.name for alias in aliases]
    return []


def children_in_scope(node: ast.AST) -> list[ast.AST]:
    """Return the nodes below *node* that may bind names in the same scope as *node* itself.

    These are its children, except where *node* opens a scope of its own. A bare annotation binds
    nothing.
    """
    if isinstance(node, FUNCTIONS):
        return [*getattr(node, "decorator_list", ()), node.args]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    if isinstance(node, _COMPREHENSIONS):
        return [child for child in ast.walk(node) if isinstance(child, ast.NamedExpr)]
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return []
    return list(ast.iter_child_nodes(node))


class _Collector:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._names: dict[str, list[Binding]] = {}
        self._has_dynamic_names = False
        self._assigned: dict[ast.expr, ast.expr] = {}  # the value that each target gets
        self._called: list[ast.expr] = []

    def result(self) -> ModuleBindings:
        self._visit_top_level()
        used_names, used_attributes = set[str](), set[str]()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name):
                used_names.add(node.id)
            elif isinstance(node, ast.Attribute):
                used_attributes.add(node.attr)
            elif isinstance(node, ast.Global):
                for name in node.names:
                    self._bind(name, BindingKind.OTHER, node, False)
        for bindings in self._names.values():
            bindings.sort(key=lambda binding: binding.line)
        return ModuleBindings(
            self._names,
            self._has_dynamic_names,
            any(self._is_cache(function) for function in self._called),
            frozenset(used_names),
            frozenset(used_attributes),
        )

    def _visit_top_level(self) -> None:
        todo: list[tuple[ast.AST, bool]] = [(node, True) for node in reversed(self._tree.body)]
        while todo:
            node, unconditional = todo.pop()
            self._visit(node, unconditional)
            below = unconditional and not isinstance(node, _CONDITIONAL)
            todo += [(child, below) for child in reversed(children_in_scope(node))]

    def _visit(self, node: ast.AST, unconditional: bool) -> None:
        match node:
            case ast.Assign(targets, value):
                self._assigned.update(dict.fromkeys(targets, value))
            case ast.AnnAssign(target, _, ast.expr() as value) | ast.NamedExpr(target, value):
                self._assigned[target] = value
            case ast.Call(function):
                self._called.append(function)
                if isinstance(function, ast.Name) and function.id in _BINDS_ANY_NAME:
                    self._has_dynamic_names = True
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                self._bind(name, BindingKind.FUNCTION, node, unconditional)
            case ast.ClassDef(name):
                self._bind(name, BindingKind.CLASS, node, unconditional)
            case ast.Import() | ast.ImportFrom():
                self._visit_import(node, unconditional)
            case ast.Name(name, ast.Store()) if node in self._assigned:
                self._bind(name, BindingKind.VALUE, self._assigned[node], unconditional)
            case ast.ExceptHandler() | ast.Name(_, ast.Del()):
                pass  # the name is unbound in the end
            case _:
                for name in names_bound_by(node):
                    self._bind(name, BindingKind.OTHER, node, unconditional)

    def _bind(
        self, name: str, kind: BindingKind, node: ast.AST, unconditional: bool, imported: str = ""
    ) -> None:
        line = getattr(node, "lineno", 0)
        binding = Binding(kind, node, line, unconditional, imported)
        self._names.setdefault(name, []).append(binding)

    def _visit_import(self, node: ast.Import | ast.ImportFrom, unconditional: bool) -> None:
        for alias, name in zip(node.names, names_bound_by(node), strict=True):
            if name == "*":
                self._has_dynamic_names = True
            elif isinstance(node, ast.Import):
                imported = alias.name if alias.asname else name
                self._bind(name, BindingKind.MODULE, alias, unconditional, imported)
            else:
                imported = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                self._bind(name, BindingKind.IMPORT, alias, unconditional, imported)

    def _is_cache(self, function: ast.expr) -> bool:
        match function:
            case ast.Attribute(ast.Name("rpyserve"), "cache"):
                return True
            case ast.Name(name) if name in self._names:
                return any(each.imported == "rpyserve.cache" for each in self._names[name])
            case ast.Name("cache"):
                return True
        return False
