"""The names that top-level code binds, and the blocks of code that run together.

Reads the syntax tree of a script or module, and executes nothing. Every way to bind counts: in an
``if`` or ``try``, by ``with``, ``for``, ``match``, a walrus, an import, or a function that declares
a name ``global``. A star import, ``exec`` or ``globals()`` may bind any name. No name is known to
be missing then; `ModuleBindings.has_dynamic_names` says so. The tree is walked without recursion,
so its depth does not matter.
"""

from __future__ import annotations

import ast
import builtins
from functools import cached_property
from itertools import chain
from typing import Final

from rpyserve.scripts.validation import is_called_by_requests

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Function = Definition | ast.Lambda
# The dotted names of `Resource`; without a dot it comes from ``from rpyserve import *``.
RESOURCE_NAMES: Final = frozenset({
    "Resource", "rpyserve.Resource", "twisted.web.resource.Resource",
})  # fmt: skip

# Statements that bind names to something that the text shows.
_PLAIN: Final = (
    ast.Assign,
    ast.AnnAssign,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
)
_NAME_FIELDS: Final[dict[type[ast.AST], str]] = {
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.arg: "arg",
}
# What a script calls to be executed once.
_CACHE_NAMES: Final = frozenset({"cache", "rpyserve.cache"})
_BIND_ANY_NAME: Final = frozenset({"exec", "globals", "vars", "locals"})


class Block:
    """Code that runs together: the top level, the body of a class, or a function.

    Functions and classes within a function are a part of it.

    Args:
        class_name: the class around it; empty if there is none.
        function: the function that it is, if it is one.

    Attributes:
        name: the name of the function; empty if it is none.
        nodes: what it consists of: in the order of the text, and parents before their children.
    """

    def __init__(self, class_name: str = "", function: Function | None = None) -> None:
        self.class_name = class_name
        self.function = function
        self.name: str = getattr(function, "name", "lambda") if function else ""
        self.nodes: list[ast.AST] = []

    @cached_property
    def self_name(self) -> str:
        """What a method calls its object; empty for all else."""
        decorators = map(ast.unparse, getattr(self.function, "decorator_list", ()))
        if not self.class_name or "staticmethod" in decorators:
            return ""
        return next((node.arg for node in self.nodes if isinstance(node, ast.arg)), "")

    @cached_property
    def local_names(self) -> set[str | None]:
        """The names that live only as long as a call of the function."""
        declared = [node.names for node in self.nodes if isinstance(node, ast.Global)]
        names = map(name_bound_by, self.nodes) if self.name else ()
        return set(names).difference(*declared)


class ModuleBindings:
    """The names that the top-level code of *tree* binds.

    Attributes:
        blocks: all code, the top level first.
        names: for each name the statements at the top level that bind it, in the order of the text;
            None stands for a way to bind it whose outcome the text does not show.
        origins: the dotted names of what is imported, by its name here.
        classes: the classes at the top level, by name.
        has_dynamic_names: names may be bound that the text does not show.
        used_names: the plain names that stand anywhere in the text.
        used_attributes: the names that stand behind a dot anywhere in the text.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.blocks = _blocks(tree)
        self.names: dict[str, list[ast.stmt | None]] = {}
        self.origins: dict[str, str] = {}
        self._bind_names(tree)
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        nodes = list(chain.from_iterable(block.nodes for block in self.blocks))
        for name in chain(*(node.names for node in nodes if isinstance(node, ast.Global))):
            self.names.setdefault(name, []).append(None)
        self.used_names = {node.id for node in nodes if isinstance(node, ast.Name)}
        self.used_attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        top_level = {getattr(node, "id", "") for node in self.blocks[0].nodes}
        self.has_dynamic_names = "*" in self.names or bool(top_level & _BIND_ANY_NAME)

    @cached_property
    def cache_calls(self) -> list[ast.Call]:
        """The calls of ``cache()`` in top-level code; with one, a script is executed only once."""
        calls = [node for node in self.blocks[0].nodes if isinstance(node, ast.Call)]
        return [call for call in calls if self.dotted_name(call.func) in _CACHE_NAMES]

    def _bind_names(self, tree: ast.Module) -> None:
        # The statement of each node that one of the `_PLAIN` statements may bind.
        plain: dict[ast.AST, ast.stmt] = {
            node: statement
            for statement in tree.body
            if isinstance(statement, _PLAIN)
            for node in (statement, *ast.iter_child_nodes(statement))
        }
        # The targets of comprehensions and of annotations without a value bind nothing here.
        not_bound: set[ast.AST] = set()
        for node in self.blocks[0].nodes:
            match node:
                case ast.comprehension(target) | ast.AnnAssign(target, value=None):
                    not_bound.update(ast.walk(target))
                case ast.Import() | ast.ImportFrom():
                    self.origins |= _origins(node)
            name = name_bound_by(node)
            if name and node not in not_bound:
                self.names.setdefault(name, []).append(plain.get(node))

    def only(self, name: str) -> ast.stmt | None:
        """Return the statement that binds *name*, if there is exactly one."""
        found = self.names.get(name, [])
        return found[0] if len(found) == 1 else None

    def dotted_name(self, expression: ast.expr) -> str:
        """Return the name that *expression* has where it is imported from.

        A name that nothing binds is returned as it is. Empty for what is made in this file, or is
        no name at all.
        """
        attributes: list[str] = []
        while isinstance(expression, ast.Attribute):
            attributes.append(expression.attr)
            expression = expression.value
        name = getattr(expression, "id", "")
        origin = self.origins.get(name, "" if name in self.names else name)
        return ".".join([origin, *reversed(attributes)]) if origin else ""

    # Classes

    def family(self, cls: str) -> list[str]:
        """Return the class *cls* of this file, and those from which it inherits."""
        found = [cls] if cls in self.classes else []
        for each in found:  # it grows
            others = self.classes.keys() - found
            bases = map(ast.unparse, self.classes[each].bases)
            found += [base for base in bases if base in others]
        return found

    def is_resource(self, cls: str) -> bool | None:
        """Whether *cls* is a Resource class; None if the text does not show a base that matters."""
        bases = chain.from_iterable(self.classes[name].bases for name in self.family(cls))
        others = [base for base in bases if getattr(base, "id", "") not in self.classes]
        names = set(map(self.dotted_name, others))
        if names & RESOURCE_NAMES:
            return True
        return False if names <= vars(builtins).keys() else None

    def may_be_resource(self, cls: str) -> bool:
        """Whether *cls* is a Resource, or looks like one where that cannot be known."""
        known = cls in self.classes and self.is_resource(cls)
        return any(map(is_called_by_requests, self.methods(cls))) if known is None else known

    def methods(self, cls: str) -> dict[str, Definition]:
        return {node.name: node for node in self.classes[cls].body if isinstance(node, Definition)}


def name_bound_by(node: ast.AST) -> str | None:
    """Return the name that *node* binds where it stands; None if it binds none."""
    if isinstance(node, ast.alias):
        return node.asname or node.name.partition(".")[0]
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else None
    return getattr(node, _NAME_FIELDS.get(type(node), ""), None)


def _origins(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """The dotted names of what *node* imports, by the names that it binds."""
    found: dict[str, str] = {}
    for alias in node.names:
        name = str(name_bound_by(alias))
        if isinstance(node, ast.ImportFrom):
            found[name] = f"{'.' * node.level}{node.module or ''}.{alias.name}"
        else:
            found[name] = alias.name if alias.asname else name
    return found


def _blocks(tree: ast.Module) -> list[Block]:
    blocks = [Block()]
    todo: list[tuple[ast.AST, Block]] = [(tree, blocks[0])]
    while todo:
        node, block = todo.pop()
        block.nodes.append(node)
        inner = block
        if not block.name and isinstance(node, ast.ClassDef):
            inner = Block(node.name)
        elif not block.name and isinstance(node, Function):
            inner = Block(block.class_name, node)
        if inner is not block:
            blocks.append(inner)
        # Decorators and base classes belong to the code around.
        outside = {*getattr(node, "decorator_list", ()), *getattr(node, "bases", ())}
        children = reversed(list(ast.iter_child_nodes(node)))
        todo += [(child, block if child in outside else inner) for child in children]
    return blocks
