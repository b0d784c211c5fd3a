"""What the code of a script or module changes that may outlive a call of it, as far as its text
tells.

Reads a syntax tree and judges nothing: `state_loss` does. A `Mutation` names what is changed as a
`Target`, how, and in which `Scope` that happens. Local variables are no targets. The tree is walked
without recursion, so its depth does not matter.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple

from rpyserve.check.bindings import FUNCTIONS, children_in_scope, names_bound_by

__all__ = [
    "SELF",
    "Function",
    "Mutation",
    "MutationKind",
    "Mutations",
    "NameUse",
    "Scope",
    "Target",
    "ValueKind",
    "collect_mutations",
    "kind_of_value",
]

SELF: Final = "self"
"""The owner of the attributes of a method's own object, whatever the method calls it."""

_MUTATING_METHODS: Final = frozenset({
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft",
    "insert", "intersection_update", "pop", "popitem", "popleft", "remove", "rotate", "setdefault",
    "subtract", "symmetric_difference_update", "update",
})  # fmt: skip
_MUTATING_FUNCTIONS: Final = frozenset({
    "heappop", "heappush", "heappushpop", "heapreplace", "insort", "insort_left",
})  # fmt: skip
"""Functions that change their first argument."""
_CONTAINER_TYPES: Final = frozenset({
    "ChainMap", "Counter", "OrderedDict", "WeakKeyDictionary", "WeakSet", "WeakValueDictionary",
    "array", "bytearray", "defaultdict", "deque", "dict", "list", "set",
})  # fmt: skip
_ITERATOR_TYPES: Final = frozenset({"count", "cycle", "enumerate", "iter"})
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LEAVES: Final = (ast.expr_context, ast.operator, ast.cmpop, ast.Constant)


class Target(NamedTuple):
    """What a mutation changes, such as ``count``, ``state.n`` or ``self.n``.

    Args:
        owner: a name of the top level or of a class body, or `SELF`.
        attribute: the attribute of *owner* that is meant; empty for *owner* itself.
    """

    owner: str
    attribute: str = ""

    def __str__(self) -> str:
        return f"{self.owner}.{self.attribute}" if self.attribute else self.owner


class Function(NamedTuple):
    """A function or method; functions within it count as parts of it.

    Args:
        class_name: the class whose method it is; empty if there is none.
        name: its name.
    """

    class_name: str
    name: str


class NameScope(Enum):
    """Where a name lives that is not simply one of the top level."""

    LOCAL = "in the function or in one around it"
    NONLOCAL = "in a function around it, by nonlocal"
    GLOBAL = "at the top level, by global"


@dataclass(frozen=True, slots=True)
class Scope:
    """The code that a node belongs to.

    Args:
        function: the outermost function around the node; None at the top level, in class bodies
            too.
        class_name: the class at the top level around the node; empty if there is none.
        self_name: what the method calls its object; empty outside of methods.
        names: where the names of the functions around the node live; all others are names of the
            top level.
        found_empty: targets that an ``if`` around the node has just found to be None or empty. To
            give them a value then only saves work.
    """

    function: Function | None = None
    class_name: str = ""
    self_name: str = ""
    names: Mapping[str, NameScope] = field(default_factory=dict)
    found_empty: frozenset[Target] = frozenset()

    def is_self(self, expression: ast.expr) -> bool:
        """Whether *expression* is the method's own object."""
        return isinstance(expression, ast.Name) and expression.id == self.self_name

    def target_of(self, expression: ast.expr) -> tuple[Target | None, bool]:
        """Return the target that *expression* is or is a part of, and whether it is only a part.

        A part is ``self.hits["a"]`` or ``state.user.name``, of ``self.hits`` and ``state.user``.
        The target is None for what is local to a call.
        """
        is_part = False
        while isinstance(expression, (ast.Subscript, ast.Attribute)):
            below = expression.value
            if isinstance(expression, ast.Attribute) and (owner := self._owner(below)):
                return Target(owner, expression.attr), is_part
            is_part, expression = True, below
        owner = "" if self.is_self(expression) else self._owner(expression)
        return (Target(owner) if owner else None), is_part

    def _owner(self, expression: ast.expr) -> str:
        match expression:
            case ast.Name() if self.is_self(expression):
                return SELF
            case ast.Call(ast.Name("type"), arguments):
                return SELF if any(map(self.is_self, arguments)) else ""
            case ast.Name(name) if self.names.get(name) in (None, NameScope.GLOBAL):
                return name
        return ""


class ValueKind(Enum):
    """How a value can change."""

    CONTAINER = "things can be put into it and taken out"
    ITERATOR = "next() takes something from it"
    OBJECT = "its attributes can be set: an instance of a class of the same file, or a namespace"
    DEFINITION = "a function or class of the same file; its attributes can be set"
    OTHER = "it cannot change, or that is not known"


class MutationKind(Enum):
    """What happens to a target."""

    ASSIGNED = "it is given another value"
    UPDATED = "its next value is made of the one before"
    MODIFIED = "something is put into it or taken out"
    CONSUMED = "next() takes something from it"
    READ = "it is only read"
    NONLOCAL = "a function within the one that owns it gives it another value"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One place where code changes or reads a target.

    Args:
        target: what is changed.
        kind: what happens to it.
        line: the line of the code.
        scope: what the code belongs to.
        value: the expression that is assigned, if there is one.
    """

    target: Target
    kind: MutationKind
    line: int
    scope: Scope
    value: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class NameUse:
    """One place where a plain name is read.

    Args:
        name: the name.
        scope: what the code belongs to.
        is_call: whether the name is called there, or used as a decorator. Each call is a plain use
            as well.
    """

    name: str
    scope: Scope
    is_call: bool


@dataclass(slots=True)
class Mutations:
    """What a tree does to targets and names.

    Args:
        found: the mutations, in the order of the text.
        uses: the uses of plain names.
    """

    found: list[Mutation] = field(default_factory=list)
    uses: list[NameUse] = field(default_factory=list)


def collect_mutations(tree: ast.Module) -> Mutations:
    """Return what *tree* does to targets that are not local to a call."""
    collector = _Collector()
    todo: list[tuple[ast.AST, Scope]] = [(node, Scope()) for node in reversed(tree.body)]
    while todo:
        node, scope = todo.pop()
        collector.visit(node, scope)
        todo += reversed(list(_children(node, scope)))
    return collector.mutations


def kind_of_value(value: ast.expr, classes: Container[str]) -> ValueKind:
    """Return the kind of the value that the expression *value* makes.

    What comes from elsewhere is not known: it may keep its contents in a file.

    Args:
        classes: the names of the file's own classes. They hide the standard library's of the same
            name.
    """
    match value:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return ValueKind.CONTAINER
        case ast.BinOp(ast.List(), ast.Mult()) | ast.BinOp(_, ast.Mult(), ast.List()):
            return ValueKind.CONTAINER
        case ast.GeneratorExp():
            return ValueKind.ITERATOR
        case ast.Call(ast.Name(name)) if name in classes:
            return ValueKind.OBJECT
        case ast.Call(ast.Name(name) | ast.Attribute(ast.Name(), name)):
            return _kind_of_instance(name)
    return ValueKind.OTHER


def _kind_of_instance(type_name: str) -> ValueKind:
    if type_name in _CONTAINER_TYPES:
        return ValueKind.CONTAINER
    if type_name in _ITERATOR_TYPES:
        return ValueKind.ITERATOR
    return ValueKind.OBJECT if type_name == "SimpleNamespace" else ValueKind.OTHER


# Scopes


def _children(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    """Yield the children of *node*, which belongs to *scope*, each with its own scope."""
    if isinstance(node, FUNCTIONS):
        body = node.body if isinstance(node.body, list) else [node.body]
        yield from ((child, scope) for child in children_in_scope(node))
        inner = _scope_of_function(node, scope)
        yield from ((child, inner) for child in body)
    elif isinstance(node, ast.ClassDef):
        yield from ((child, scope) for child in children_in_scope(node))
        if scope.function is None:
            scope = replace(scope, class_name=node.name)
        yield from ((child, scope) for child in node.body)
    elif isinstance(node, ast.If):
        empty = scope.found_empty | _found_empty(node.test, scope)
        inner = replace(scope, found_empty=empty)
        yield node.test, scope
        yield from ((child, inner) for child in node.body)
        yield from ((child, scope) for child in node.orelse)
    else:
        if isinstance(node, _COMPREHENSIONS):
            scope = _scope_of_comprehension(node, scope)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, _LEAVES):
                yield child, scope


def _scope_of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, around: Scope
) -> Scope:
    names = _names_of_function(node)
    if around.function is not None:
        self_name = "" if around.self_name in names else around.self_name
        inherited = dict(around.names) | names
        return replace(around, self_name=self_name, names=inherited, found_empty=frozenset())
    function = Function(around.class_name, getattr(node, "name", "lambda"))
    return Scope(function, around.class_name, _self_name(node, around), names)


def _self_name(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, around: Scope) -> str:
    """The name of the first parameter, if *node* is a method."""
    parameters = [*node.args.posonlyargs, *node.args.args]
    if isinstance(node, ast.Lambda) or not around.class_name or not parameters:
        return ""
    decorators = [each.id for each in node.decorator_list if isinstance(each, ast.Name)]
    return "" if "staticmethod" in decorators else parameters[0].arg


def _names_of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
) -> dict[str, NameScope]:
    """Where the names live that *node* binds or declares itself."""
    arguments = (each for each in ast.walk(node.args) if isinstance(each, ast.arg))
    names = {argument.arg: NameScope.LOCAL for argument in arguments}
    declared: dict[str, NameScope] = {}
    todo: list[ast.AST] = list(node.body) if isinstance(node.body, list) else [node.body]
    while todo:
        inner = todo.pop()
        names.update(dict.fromkeys(names_bound_by(inner), NameScope.LOCAL))
        if isinstance(inner, ast.Global):
            declared.update(dict.fromkeys(inner.names, NameScope.GLOBAL))
        elif isinstance(inner, ast.Nonlocal):
            declared.update(dict.fromkeys(inner.names, NameScope.NONLOCAL))
        todo += children_in_scope(inner)
    return names | declared


def _scope_of_comprehension(
    node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, around: Scope
) -> Scope:
    names = dict(around.names)
    for generator in node.generators:
        for each in ast.walk(generator.target):
            names.update(dict.fromkeys(names_bound_by(each), NameScope.LOCAL))
    return replace(around, names=names)


def _found_empty(test: ast.expr, scope: Scope) -> frozenset[Target]:
    """The targets that *test* finds to be None or empty."""
    match test:
        case ast.Compare(expression, [ast.Is() | ast.Eq()], [ast.Constant(None)]):
            target, _ = scope.target_of(expression)
        case ast.UnaryOp(ast.Not(), expression):
            target, _ = scope.target_of(expression)
        case ast.BoolOp(_, tests):
            return frozenset().union(*(_found_empty(each, scope) for each in tests))
        case _:
            return frozenset()
    return frozenset() if target is None else frozenset({target})


# Mutations


class _Collector:
    def __init__(self) -> None:
        self.mutations = Mutations()

    def visit(self, node: ast.AST, scope: Scope) -> None:
        """Note what *node* itself, its children aside, does in *scope*."""
        match node:
            case ast.Assign(targets, value):
                for target in targets:
                    self._visit_assignment(target, value, scope)
            case ast.AnnAssign(target, _, ast.expr() as value) | ast.NamedExpr(target, value):
                self._visit_assignment(target, value, scope)
            case ast.AugAssign(target):
                self._assign(target, MutationKind.UPDATED, node.lineno, scope)
            case ast.For(target) | ast.AsyncFor(target) | ast.withitem(_, ast.expr() as target):
                self._visit_assignment(target, None, scope)
            case ast.Delete(targets):
                for target in targets:
                    if isinstance(target, ast.Subscript):
                        self._change(target, MutationKind.MODIFIED, target.lineno, scope)
            case ast.Call():
                self._visit_call(node, scope)
            case ast.Attribute(_, _, ast.Load()):
                read, is_part = scope.target_of(node)
                if read is not None and not is_part:
                    self._note(read, MutationKind.READ, node.lineno, scope)
            case ast.Name(name, ast.Load()):
                self._use(name, scope, is_call=False)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Name):
                        self._use(decorator.id, scope, is_call=True)

    def _visit_assignment(self, target: ast.expr, value: ast.expr | None, scope: Scope) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for each in target.elts:
                self._visit_assignment(each, None, scope)
        else:
            updates = value is not None and _is_made_of(value, target, scope)
            kind = MutationKind.UPDATED if updates else MutationKind.ASSIGNED
            self._assign(target, kind, target.lineno, scope, value)

    def _visit_call(self, call: ast.Call, scope: Scope) -> None:
        match call:
            case ast.Call(ast.Attribute(container, name)) if name in _MUTATING_METHODS:
                self._change(container, MutationKind.MODIFIED, call.lineno, scope)
            case ast.Call(ast.Name(name) | ast.Attribute(_, name), [first, *_]):
                if name in _MUTATING_FUNCTIONS:
                    self._change(first, MutationKind.MODIFIED, call.lineno, scope)
                elif name == "next" and isinstance(call.func, ast.Name):
                    self._change(first, MutationKind.CONSUMED, call.lineno, scope)
        if isinstance(call.func, ast.Name):
            self._use(call.func.id, scope, is_call=True)

    def _assign(
        self,
        expression: ast.expr,
        kind: MutationKind,
        line: int,
        scope: Scope,
        value: ast.expr | None = None,
    ) -> None:
        """Note that *expression* is assigned to: a name, an attribute, or a part of either."""
        if isinstance(expression, ast.Name):
            name = expression.id
            lives = scope.names.get(name)
            if lives is NameScope.NONLOCAL:
                self._note(Target(name), MutationKind.NONLOCAL, line, scope, value)
            elif scope.function is None or lives is NameScope.GLOBAL:
                self._note(Target(name), kind, line, scope, value)
            return
        target, is_part = scope.target_of(expression)
        if target is not None:
            kind = MutationKind.MODIFIED if is_part else kind
            self._note(target, kind, line, scope, value)

    def _change(self, expression: ast.expr, kind: MutationKind, line: int, scope: Scope) -> None:
        """Note that what *expression* gives is changed in place."""
        target, _ = scope.target_of(expression)
        if target is not None:
            self._note(target, kind, line, scope)

    def _note(
        self,
        target: Target,
        kind: MutationKind,
        line: int,
        scope: Scope,
        value: ast.expr | None = None,
    ) -> None:
        self.mutations.found.append(Mutation(target, kind, line, scope, value))

    def _use(self, name: str, scope: Scope, *, is_call: bool) -> None:
        self.mutations.uses.append(NameUse(name, scope, is_call))


def _is_made_of(value: ast.expr, target: ast.expr, scope: Scope) -> bool:
    """Whether *value* reads what *target* is, as in ``n = n + 1``."""
    wanted = scope.target_of(target)[0]
    if wanted is None:
        return False
    parts = (each for each in ast.walk(value) if isinstance(each, (ast.Name, ast.Attribute)))
    return any(scope.target_of(part) == (wanted, False) for part in parts)
