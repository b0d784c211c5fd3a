"""What the functions of a script or module change that outlives a call of them, as far as its text tells.

Reads a syntax tree and judges nothing: `losses` does. Names of things are those of `scoping`. Goes through the tree
without recursion, so a text of any depth will do.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from rpyserve.scoping import Where, inside, thing_of

__all__ = ["Effect", "Effects", "How", "collect"]

_MUTATORS: Final = frozenset({
    "append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault", "pop", "popleft",
    "popitem", "remove", "discard", "clear", "subtract", "rotate", "intersection_update", "difference_update",
    "symmetric_difference_update",
})  # fmt: skip
_FIRST_ARGUMENT: Final = frozenset({"heappush", "heappop", "heappushpop", "heapreplace", "insort", "insort_left"})


class How(Enum):
    """What happens to a thing."""

    ASSIGNED = "it is given another value"
    COUNTED = "its next value is made of the one before"
    FILLED = "something is put into it, or taken out"
    DRAWN = "next() takes something from it"
    READ = "it is looked at"
    ENCLOSED = "a function within the one that has it gives it another value"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a piece of code does to a thing; *value* is what it assigns, where that is an expression."""

    thing: str
    how: How
    line: int
    where: Where
    value: ast.expr | None = None


@dataclass(slots=True)
class Effects:
    """All effects, and each use of a plain name, with whether it is called there."""

    found: list[Effect] = field(default_factory=list)
    uses: list[tuple[str, Where, bool]] = field(default_factory=list)


def collect(tree: ast.Module) -> Effects:
    """Return what *tree* does to things that are not local to a call."""
    effects = Effects()
    todo: list[tuple[ast.AST, Where]] = [(node, Where()) for node in reversed(tree.body)]
    while todo:
        node, where = todo.pop()
        _note(node, where, effects)
        todo += reversed(list(inside(node, where)))
    return effects


def _note(node: ast.AST, where: Where, effects: Effects) -> None:
    match node:
        case ast.Assign(targets, value):
            for target in targets:
                _assigned(target, value, where, effects)
        case ast.AnnAssign(target, _, ast.expr() as value) | ast.NamedExpr(target, value):
            _assigned(target, value, where, effects)
        case ast.AugAssign(target):
            _affected(target, How.COUNTED, node, where, effects)
        case ast.For(target) | ast.AsyncFor(target) | ast.withitem(_, ast.expr() as target):
            _assigned(target, None, where, effects)
        case ast.Delete(targets):
            for target in targets:
                if isinstance(target, ast.Subscript):
                    _affected(target, How.FILLED, target, where, effects)
        case ast.Call(function, arguments):
            _called(function, arguments, node, where, effects)
        case ast.Attribute(_, _, ast.Load()):
            _affected(node, How.READ, node, where, effects)
        case ast.Name(name, ast.Load()):
            effects.uses.append((name, where, False))
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            effects.uses += [(each.id, where, True) for each in node.decorator_list if isinstance(each, ast.Name)]


def _assigned(target: ast.expr, value: ast.expr | None, where: Where, effects: Effects) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        for each in target.elts:
            _assigned(each, None, where, effects)
        return
    thing, _ = thing_of(target, where)
    parts = [node for node in ast.walk(value) if isinstance(node, (ast.Name, ast.Attribute))] if value and thing else []
    again = any(thing_of(part, where) == (thing, False) for part in parts)
    _affected(target, How.COUNTED if again else How.ASSIGNED, target, where, effects, value)


def _called(function: ast.expr, arguments: list[ast.expr], node: ast.Call, where: Where, effects: Effects) -> None:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if isinstance(function, ast.Name):
        effects.uses.append((name, where, True))
    if isinstance(function, ast.Attribute) and name in _MUTATORS:
        _affected(function.value, How.FILLED, node, where, effects)
    elif arguments and name in _FIRST_ARGUMENT:
        _affected(arguments[0], How.FILLED, node, where, effects)
    elif arguments and name == "next" and isinstance(function, ast.Name):
        _affected(arguments[0], How.DRAWN, node, where, effects)


def _affected(
    target: ast.expr, how: How, at: ast.AST, where: Where, effects: Effects, value: ast.expr | None = None
) -> None:
    thing, deep = thing_of(target, where)
    if isinstance(target, ast.Name) and how in (How.ASSIGNED, How.COUNTED):
        if target.id in where.outer:
            thing, how = target.id, How.ENCLOSED
        elif where.code is not None and target.id not in where.shared:
            return
    if not thing or (deep and how is How.READ):
        return
    how = How.FILLED if deep and how in (How.ASSIGNED, How.COUNTED) else how
    effects.found.append(Effect(thing, how, getattr(at, "lineno", 0), where, value))
