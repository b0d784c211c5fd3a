"""What a script or module lets be known of its things: what they are at first, and whether they last.

Reads a syntax tree by way of `toplevel` and `effects`, and judges nothing: `losses` does. The top-level code runs
once for each execution; code that only it calls is a part of it.
"""

from __future__ import annotations

import ast
import re
from functools import cached_property

from rpyserve.effects import Effect, How, collect
from rpyserve.natures import Nature, nature_of
from rpyserve.scoping import Code, Where
from rpyserve.toplevel import By, TopLevel

__all__ = ["ENTRY", "MAKING", "Known", "methods"]

MAKING = frozenset({"__init__", "__new__", "__init_subclass__", "__set_name__"})
"""The methods that only make an object, or a class."""
ENTRY = re.compile(r"render(_[A-Z]+)?|getChild")
"""The methods of a resource that a request calls."""


class Known:
    """What can be known of the things in *tree*.

    Attributes:
        effects: all that happens to them, in no order.
        classes: the classes at the top level.
    """

    def __init__(self, tree: ast.Module, top: TopLevel) -> None:
        found = collect(tree)
        self.effects = found.found
        self.classes = {kind.name: kind for kind in top.classes()}
        self._top = top
        self._by_thing: dict[str, list[Effect]] = {}
        self._by_code: dict[Code, set[str]] = {}
        self._uses: dict[str, list[tuple[Where, bool]]] = {}
        for effect in self.effects:
            self._by_thing.setdefault(effect.thing, []).append(effect)
            if effect.where.code is not None:
                self._by_code.setdefault(effect.where.code, set()).add(effect.thing)
        for name, where, called in found.uses:
            self._uses.setdefault(name, []).append((where, called))

    def nature(self, thing: str, kind: str) -> Nature | None:
        """What *thing* is at first; in a class *kind*, if one is given. None if nothing gives it a value."""
        if not kind and thing in self._definitions:
            return Nature.OBJECT
        for each in [kind, *self._bases(kind)]:
            for effect in self._by_thing.get(thing, []):
                if effect.value is not None and self._is_first(effect, each):
                    return nature_of(effect.value, self.classes)
            name = thing.removeprefix("self.")
            if kind and name != thing and (found := self.nature(name, each)) is not None:
                return found
        return None

    @staticmethod
    def _is_first(effect: Effect, kind: str) -> bool:
        where = effect.where
        return where.kind == kind and (where.code is None or where.code == (kind, "__init__"))

    @cached_property
    def _definitions(self) -> set[str]:
        once = {name: found[0].by for name, found in self._top.names.items() if len(found) == 1}
        return {name for name, by in once.items() if by in (By.FUNCTION, By.CLASS)}

    def _bases(self, kind: str) -> list[str]:
        """The classes of this file from which *kind* comes."""
        found: list[str] = []
        todo = [kind]
        while todo:
            node = self.classes.get(todo.pop())
            names = [base.id for base in node.bases if isinstance(base, ast.Name)] if node else []
            new = [name for name in names if name in self.classes and name not in {kind, *found}]
            found += new
            todo += new
        return found

    def class_of(self, name: str) -> str:
        """The class of this file of which the top-level *name* is an instance; empty if there is none."""
        for binding in self._top.names.get(name, []):
            if isinstance(binding.node, ast.Call) and isinstance(binding.node.func, ast.Name):
                return binding.node.func.id if binding.node.func.id in self.classes else ""
        return ""

    def is_resource(self, kind: str) -> bool:
        """Whether the class *kind* is a Resource, or looks like one where that cannot be known."""
        node = self.classes.get(kind)
        if node is None:
            return False
        known = self._top.is_resource(node)
        return any(map(ENTRY.fullmatch, methods(node))) if known is None else known

    def is_kept(self, kind: str) -> bool:
        """Whether the top-level code makes an instance of *kind*, or of a class that comes from it."""
        family = {kind, *(name for name in self.classes if kind in self._bases(name))}
        return any(
            called and (where.code is None or where.code[1] == "__init__" or self.at_start(where.code))
            for name in family
            for where, called in self._uses.get(name, [])
        )

    def at_start(self, code: Code, above: frozenset[Code] = frozenset()) -> bool:
        """Whether *code* is only ever called while the top-level code runs."""
        kind, name = code
        if (kind and name not in MAKING) or code in above:
            return False
        uses = self._uses.get(kind or name, [])
        calls = sum(called for _, called in uses)
        return bool(uses) and calls * 2 == len(uses) and all(
            where.code is None or self.at_start(where.code, above | {code}) for where, _ in uses
        )  # fmt: skip

    def reads(self, thing: str) -> list[Effect]:
        """Where *thing* is looked at."""
        return [effect for effect in self._by_thing.get(thing, []) if effect.how is How.READ]

    def reach(self, kind: str, method: str) -> set[str]:
        """*method*, and the methods of its object that it asks for, directly or not."""
        reached, todo = set[str](), {method}
        while todo:
            name = todo.pop()
            reached.add(name)
            asked = {thing.removeprefix("self.") for thing in self._by_code.get((kind, name), ())}
            todo |= (asked & set(methods(self.classes[kind]))) - reached
        return reached


def methods(kind: ast.ClassDef) -> list[str]:
    """Return the names of the methods in the body of *kind*."""
    return [node.name for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
