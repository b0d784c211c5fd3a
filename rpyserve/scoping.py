"""Which code a node of a syntax tree belongs to, which names are local there, and what its author calls a thing.

Reads a tree and judges nothing: `effects` and `losses` do. ``count`` is a name of the top level, ``self.n`` an
attribute of a method's own object, ``state.n`` one of a thing at the top level; a local name of the same letters is
nothing that lasts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rpyserve.toplevel import FUNCTIONS

__all__ = ["Code", "Where", "inside", "thing_of"]

_LEAVES: Final = (ast.expr_context, ast.operator, ast.cmpop, ast.Constant)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CLOSED: Final = (*FUNCTIONS, ast.ClassDef, *_COMPREHENSIONS, *_LEAVES)

Code = tuple[str, str]
"""Code that runs when it is called: its class (empty: none), and its outermost function."""


@dataclass(frozen=True, slots=True)
class Where:
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


def inside(node: ast.AST, where: Where) -> Iterator[tuple[ast.AST, Where]]:
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
            where = replace(where, local=where.local | {n for each in node.generators for n in _stored(each.target)})
        yield from ((child, where) for child in ast.iter_child_nodes(node) if not isinstance(child, _LEAVES))


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, where: Where
) -> Iterator[tuple[ast.AST, Where]]:
    body: Sequence[ast.AST] = node.body if isinstance(node.body, list) else [node.body]
    name = getattr(node, "name", "lambda")
    arguments = [*node.args.posonlyargs, *node.args.args]
    shared, outer, local = _names_of(node, body)
    if where.code is None:
        method = bool(where.kind and arguments) and not isinstance(node, ast.Lambda) and not _is_static(node)
        inner = Where((where.kind, name), where.kind, arguments[0].arg if method else "", local, shared)
    else:
        me = "" if where.me in local else where.me
        around = (where.local | local) - shared
        inner = replace(where, me=me, local=around, shared=shared | where.shared - local, outer=outer, lazy=frozenset())
    yield from ((child, where) for child in [*getattr(node, "decorator_list", ()), node.args])
    yield from ((child, inner) for child in body)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)


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
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
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


def _emptiness(test: ast.expr, where: Where) -> frozenset[str]:
    """The things that *test* finds to be None, or empty."""
    match test:
        case ast.Compare(thing, [ast.Is() | ast.Eq()], [ast.Constant(None)]) | ast.UnaryOp(ast.Not(), thing):
            return frozenset({named} if (named := thing_of(thing, where)[0]) else ())
        case ast.BoolOp(_, values):
            return frozenset().union(*(_emptiness(value, where) for value in values))
    return frozenset()


def thing_of(expression: ast.expr, where: Where) -> tuple[str, bool]:
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


def _base(expression: ast.expr, where: Where) -> str:
    if _is_me(expression, where):
        return "self"
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and expression.func.id == "type":
        return "self" if any(_is_me(each, where) for each in expression.args) else ""
    if not isinstance(expression, ast.Name) or expression.id in where.local or expression.id in where.outer:
        return ""
    return expression.id


def _is_me(expression: ast.expr, where: Where) -> bool:
    return isinstance(expression, ast.Name) and bool(where.me) and expression.id == where.me
