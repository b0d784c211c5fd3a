"""What kind of thing an expression makes, as far as its text tells: whether it can change in place, and how.

Reads one expression, executes nothing. What comes from elsewhere is not known: it may keep its contents in a file.
"""

from __future__ import annotations

import ast
from collections.abc import Container
from enum import Enum
from typing import Final

__all__ = ["Nature", "nature_of"]

_CONTAINERS: Final = frozenset(
    {"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "ChainMap", "array"}
)
_WEAK: Final = frozenset({"WeakSet", "WeakKeyDictionary", "WeakValueDictionary"})
_ITERATORS: Final = frozenset({"count", "cycle", "iter", "enumerate"})


class Nature(Enum):
    """How a thing can change in place."""

    CONTAINER = "things can be put into it and taken out"
    ITERATOR = "next() takes something from it"
    OBJECT = "its attributes can be set: an instance of a class of the same file, or a namespace"
    OTHER = "it cannot change, or that is not known"


def nature_of(value: ast.expr, classes: Container[str]) -> Nature:
    """Return what *value* makes.

    Args:
        classes: the names of the file's own classes, which come before others of that name.
    """
    match value:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return Nature.CONTAINER
        case ast.BinOp(ast.List(), ast.Mult()) | ast.BinOp(_, ast.Mult(), ast.List()):
            return Nature.CONTAINER
        case ast.GeneratorExp():
            return Nature.ITERATOR
        case ast.Call(ast.Name(name)) if name in classes:
            return Nature.OBJECT
        case ast.Call(ast.Name(name) | ast.Attribute(ast.Name(), name)):
            return _made_by(name)
    return Nature.OTHER


def _made_by(name: str) -> Nature:
    if name in _CONTAINERS or name in _WEAK:
        return Nature.CONTAINER
    if name in _ITERATORS:
        return Nature.ITERATOR
    return Nature.OBJECT if name == "SimpleNamespace" else Nature.OTHER
