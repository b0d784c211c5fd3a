"""What the functions of a script or module change that outlives a call of them, as far as its text tells.

Reads a syntax tree and judges nothing: `losses` does. Names of things are those of `scoping`. Goes through the tree
without recursion, so a text of any depth will do.

What kind of thing an expression makes, as far as its text tells: whether it can change in place, and how.

Reads one expression, executes nothing. What comes from elsewhere is not known: it may keep its contents in a file.

Which code a node of a syntax tree belongs to, which names are local there, and what its author calls a thing.

Reads a tree and judges nothing: `effects` and `losses` do. ``count`` is a name of the top level, ``self.n`` an
attribute of a method's own object, ``state.n`` one of a thing at the top level; a local name of the same letters is
nothing that lasts.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from rpyserve.check.bindings import FUNCTIONS

__all__ = [
    "Code",
    "Effects",
    "Mutation",
    "MutationKind",
    "Scope",
    "ValueKind",
    "collect",
    "inside",
    "nature_of",
    "thing_of",
]


_CONTAINERS: Final = frozenset(
    {
        "list",
        "dict",
        "set",
        "bytearray",
        "deque",
        "defaultdict",
        "OrderedDict",
        "Counter",
        "ChainMap",
        "array",
    }
)
_WEAK: Final = frozenset({"WeakSet", "WeakKeyDictionary", "WeakValueDictionary"})
_ITERATORS: Final = frozenset({"count", "cycle", "iter", "enumerate"})


class ValueKind(Enum):
    """How a thing can change in place."""

    CONTAINER = "things can be put into it and taken out"
    ITERATOR = "next() takes something from it"
    OBJECT = "its attributes can be set: an instance of a class of the same file, or a namespace"
    OTHER = "it cannot change, or that is not known"


def nature_of(value: ast.expr, classes: Container[str]) -> ValueKind:
    """Return what *value* makes.

    Args:
        classes: the names of the file's own classes, which come before others of that name.
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
            return _made_by(name)
    return ValueKind.OTHER


def _made_by(name: str) -> ValueKind:
    if name in _CONTAINERS or name in _WEAK:
        return ValueKind.CONTAINER
    if name in _ITERATORS:
        return ValueKind.ITERATOR
    return ValueKind.OBJECT if name == "SimpleNamespace" else ValueKind.OTHER


_LEAVES: Final = (ast.expr_context, ast.operator, ast.cmpop, ast.Constant)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CLOSED: Final = (*FUNCTIONS, ast.ClassDef, *_COMPREHENSIONS, *_LEAVES)

Code = tuple[str, str]
"""Code that runs when it is called: its class (empty: none), and its outermost function."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The code that a node belongs to.

    Args:
        code: None for what runs at the top level, class bodies included.
        kind: the class around it at the top level; empty if there is none.
        me: what the method calls its object.
        local: the names that are the functions' own.
        shared: the names that ``global`` gives to the top level.
        outer: the names that ``nonlocal`` gives to a function around it.
        lazy: things that were just found to be empty, so that giving them a value is a matter of speed only.
    """

    code: Code | None = None
    kind: str = ""
    me: str = ""
    local: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    outer: frozenset[str] = frozenset()
    lazy: frozenset[str] = frozenset()


def inside(node: ast.AST, where: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    """Yield the children of *node*, which belongs to *where*, each with what it belongs to."""
    if isinstance(node, FUNCTIONS):
        yield from _function(node, where)
    elif isinstance(node, ast.ClassDef):
        yield from ((child, where) for child in [*node.decorator_list, *node.bases, *node.keywords])
        body = replace(where, kind=node.name) if where.code is None else where
        yield from ((child, body) for child in node.body)
    elif isinstance(node, ast.If):
        yield node.test, where
        lazily = replace(where, lazy=where.lazy | _emptiness(node.test, where))
        yield from ((child, lazily) for child in node.body)
        yield from ((child, where) for child in node.orelse)
    else:
        if isinstance(node, _COMPREHENSIONS):
            where = replace(
                where,
                local=where.local | {n for each in node.generators for n in _stored(each.target)},
            )
        yield from (
            (child, where) for child in ast.iter_child_nodes(node) if not isinstance(child, _LEAVES)
        )


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, where: Scope
) -> Iterator[tuple[ast.AST, Scope]]:
    body: Sequence[ast.AST] = node.body if isinstance(node.body, list) else [node.body]
    name = getattr(node, "name", "lambda")
    arguments = [*node.args.posonlyargs, *node.args.args]
    shared, outer, local = _names_of(node, body)
    if where.code is None:
        method = (
            bool(where.kind and arguments)
            and not isinstance(node, ast.Lambda)
            and not _is_static(node)
        )
        inner = Scope(
            (where.kind, name), where.kind, arguments[0].arg if method else "", local, shared
        )
    else:
        me = "" if where.me in local else where.me
        around = (where.local | local) - shared
        inner = replace(
            where,
            me=me,
            local=around,
            shared=shared | where.shared - local,
            outer=outer,
            lazy=frozenset(),
        )
    yield from ((child, where) for child in [*getattr(node, "decorator_list", ()), node.args])
    yield from ((child, inner) for child in body)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list
    )


def _names_of(function: ast.AST, body: Sequence[ast.AST]) -> tuple[frozenset[str], ...]:
    """What is global, what is nonlocal, and what is local in a function, whatever is nested in it aside."""
    shared: set[str] = set()
    outer: set[str] = set()
    local = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}  # type: ignore[attr-defined]
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        match node:
            case ast.Global(names):
                shared.update(names)
            case ast.Nonlocal(names):
                outer.update(names)
            case ast.Name(name, ast.Store() | ast.Del()) | ast.ExceptHandler(name=str(name)):
                local.add(name)
            case (
                ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                local.add(name)
            case ast.alias(name, alias):
                local.add(alias or name.partition(".")[0])
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                local.add(name)
        if not isinstance(node, _CLOSED):
            todo += ast.iter_child_nodes(node)
    return frozenset(shared), frozenset(outer), frozenset(local - shared - outer)


def _stored(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _emptiness(test: ast.expr, where: Scope) -> frozenset[str]:
    """The things that *test* finds to be None, or empty."""
    match test:
        case ast.Compare(thing, [ast.Is() | ast.Eq()], [ast.Constant(None)]) | ast.UnaryOp(
            ast.Not(), thing
        ):
            return frozenset({named} if (named := thing_of(thing, where)[0]) else ())
        case ast.BoolOp(_, values):
            return frozenset().union(*(_emptiness(value, where) for value in values))
    return frozenset()


def thing_of(expression: ast.expr, where: Scope) -> tuple[str, bool]:
    """What the author calls the thing that *expression* is, or is a part of; empty if that is nothing lasting.

    The second value says that it is only a part, such as ``self.hits["a"]``.
    """
    deep = False
    while isinstance(expression, (ast.Subscript, ast.Attribute)):
        inner = expression.value
        if isinstance(expression, ast.Attribute) and (base := _base(inner, where)):
            return f"{base}.{expression.attr}", deep
        deep, expression = True, inner
    return ("" if _is_me(expression, where) else _base(expression, where)), deep


def _base(expression: ast.expr, where: Scope) -> str:
    if _is_me(expression, where):
        return "self"
    if (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Name)
        and expression.func.id == "type"
    ):
        return "self" if any(_is_me(each, where) for each in expression.args) else ""
    if (
        not isinstance(expression, ast.Name)
        or expression.id in where.local
        or expression.id in where.outer
    ):
        return ""
    return expression.id


def _is_me(expression: ast.expr, where: Scope) -> bool:
    return isinstance(expression, ast.Name) and bool(where.me) and expression.id == where.me


_MUTATORS: Final = frozenset({
    "append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault", "pop", "popleft",
    "popitem", "remove", "discard", "clear", "subtract", "rotate", "intersection_update", "difference_update",
    "symmetric_difference_update",
})  # fmt: skip
_FIRST_ARGUMENT: Final = frozenset(
    {"heappush", "heappop", "heappushpop", "heapreplace", "insort", "insort_left"}
)


class MutationKind(Enum):
    """What happens to a thing."""

    ASSIGNED = "it is given another value"
    COUNTED = "its next value is made of the one before"
    FILLED = "something is put into it, or taken out"
    DRAWN = "next() takes something from it"
    READ = "it is looked at"
    ENCLOSED = "a function within the one that has it gives it another value"


@dataclass(frozen=True, slots=True)
class Mutation:
    """Something that a piece of code does to a thing; *value* is what it assigns, where that is an expression."""

    thing: str
    how: MutationKind
    line: int
    where: Scope
    value: ast.expr | None = None


@dataclass(slots=True)
class Effects:
    """All effects, and each use of a plain name, with whether it is called there."""

    found: list[Mutation] = field(default_factory=list)
    uses: list[tuple[str, Scope, bool]] = field(default_factory=list)


def collect(tree: ast.Module) -> Effects:
    """Return what *tree* does to things that are not local to a call."""
    effects = Effects()
    todo: list[tuple[ast.AST, Scope]] = [(node, Scope()) for node in reversed(tree.body)]
    while todo:
        node, where = todo.pop()
        _note(node, where, effects)
        todo += reversed(list(inside(node, where)))
    return effects


def _note(node: ast.AST, where: Scope, effects: Effects) -> None:
    match node:
        case ast.Assign(targets, value):
            for target in targets:
                _assigned(target, value, where, effects)
        case ast.AnnAssign(target, _, ast.expr() as value) | ast.NamedExpr(target, value):
            _assigned(target, value, where, effects)
        case ast.AugAssign(target):
            _affected(target, MutationKind.COUNTED, node, where, effects)
        case ast.For(target) | ast.AsyncFor(target) | ast.withitem(_, ast.expr() as target):
            _assigned(target, None, where, effects)
        case ast.Delete(targets):
            for target in targets:
                if isinstance(target, ast.Subscript):
                    _affected(target, MutationKind.FILLED, target, where, effects)
        case ast.Call(function, arguments):
            _called(function, arguments, node, where, effects)
        case ast.Attribute(_, _, ast.Load()):
            _affected(node, MutationKind.READ, node, where, effects)
        case ast.Name(name, ast.Load()):
            effects.uses.append((name, where, False))
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            effects.uses += [
                (each.id, where, True) for each in node.decorator_list if isinstance(each, ast.Name)
            ]


def _assigned(target: ast.expr, value: ast.expr | None, where: Scope, effects: Effects) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        for each in target.elts:
            _assigned(each, None, where, effects)
        return
    thing, _ = thing_of(target, where)
    parts = (
        [node for node in ast.walk(value) if isinstance(node, (ast.Name, ast.Attribute))]
        if value and thing
        else []
    )
    again = any(thing_of(part, where) == (thing, False) for part in parts)
    _affected(
        target,
        MutationKind.COUNTED if again else MutationKind.ASSIGNED,
        target,
        where,
        effects,
        value,
    )


def _called(
    function: ast.expr, arguments: list[ast.expr], node: ast.Call, where: Scope, effects: Effects
) -> None:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if isinstance(function, ast.Name):
        effects.uses.append((name, where, True))
    if isinstance(function, ast.Attribute) and name in _MUTATORS:
        _affected(function.value, MutationKind.FILLED, node, where, effects)
    elif arguments and name in _FIRST_ARGUMENT:
        _affected(arguments[0], MutationKind.FILLED, node, where, effects)
    elif arguments and name == "next" and isinstance(function, ast.Name):
        _affected(arguments[0], MutationKind.DRAWN, node, where, effects)


def _affected(
    target: ast.expr,
    how: MutationKind,
    at: ast.AST,
    where: Scope,
    effects: Effects,
    value: ast.expr | None = None,
) -> None:
    thing, deep = thing_of(target, where)
    if isinstance(target, ast.Name) and how in (MutationKind.ASSIGNED, MutationKind.COUNTED):
        if target.id in where.outer:
            thing, how = target.id, MutationKind.ENCLOSED
        elif where.code is not None and target.id not in where.shared:
            return
    if not thing or (deep and how is MutationKind.READ):
        return
    how = (
        MutationKind.FILLED
        if deep and how in (MutationKind.ASSIGNED, MutationKind.COUNTED)
        else how
    )
    effects.found.append(Mutation(thing, how, getattr(at, "lineno", 0), where, value))
