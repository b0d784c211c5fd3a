"""State that a request or an edit will lose: what a script keeps in its own names, as far as its text tells.

Judges what `effects` has found; executes nothing. A script without ``cache()`` is executed for each request, so all
that its functions change is new with the next one. What a cached script or a module of the site keeps is shared by all
visitors, and new when it is edited. A false alarm is worse than a missed one: what only serves speed, or is not known
to last, is no loss.

What a script or module lets be known of its things: what they are at first, and whether they last.

Reads a syntax tree by way of `toplevel` and `effects`, and judges nothing: `losses` does. The top-level code runs
once for each execution; code that only it calls is a part of it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from rpyserve.check.bindings import BindingKind, ModuleBindings, collect_bindings
from rpyserve.check.mutations import (
    Code,
    Mutation,
    MutationKind,
    Scope,
    ValueKind,
    collect,
    nature_of,
)

__all__ = ["ENTRY", "MAKING", "Lifetime", "ModuleFacts", "StateLoss", "find", "methods"]


MAKING = frozenset({"__init__", "__new__", "__init_subclass__", "__set_name__"})
"""The methods that only make an object, or a class."""
ENTRY = re.compile(r"render(_[A-Z]+)?|getChild")
"""The methods of a resource that a request calls."""


class ModuleFacts:
    """What can be known of the things in *tree*.

    Attributes:
        effects: all that happens to them, in no order.
        classes: the classes at the top level.
    """

    def __init__(self, tree: ast.Module, top: ModuleBindings) -> None:
        found = collect(tree)
        self.effects = found.found
        self.classes = {kind.name: kind for kind in top.classes()}
        self._top = top
        self._by_thing: dict[str, list[Mutation]] = {}
        self._by_code: dict[Code, set[str]] = {}
        self._uses: dict[str, list[tuple[Scope, bool]]] = {}
        for effect in self.effects:
            self._by_thing.setdefault(effect.thing, []).append(effect)
            if effect.where.code is not None:
                self._by_code.setdefault(effect.where.code, set()).add(effect.thing)
        for name, where, called in found.uses:
            self._uses.setdefault(name, []).append((where, called))

    def nature(self, thing: str, kind: str) -> ValueKind | None:
        """What *thing* is at first; in a class *kind*, if one is given. None if nothing gives it a value."""
        if not kind and thing in self._definitions:
            return ValueKind.OBJECT
        for each in [kind, *self._bases(kind)]:
            for effect in self._by_thing.get(thing, []):
                if effect.value is not None and self._is_first(effect, each):
                    return nature_of(effect.value, self.classes)
            name = thing.removeprefix("self.")
            if kind and name != thing and (found := self.nature(name, each)) is not None:
                return found
        return None

    @staticmethod
    def _is_first(effect: Mutation, kind: str) -> bool:
        where = effect.where
        return where.kind == kind and (where.code is None or where.code == (kind, "__init__"))

    @cached_property
    def _definitions(self) -> set[str]:
        once = {name: found[0].by for name, found in self._top.names.items() if len(found) == 1}
        return {
            name for name, by in once.items() if by in (BindingKind.FUNCTION, BindingKind.CLASS)
        }

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
            called
            and (where.code is None or where.code[1] == "__init__" or self.at_start(where.code))
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

    def reads(self, thing: str) -> list[Mutation]:
        """Where *thing* is looked at."""
        return [
            effect for effect in self._by_thing.get(thing, []) if effect.how is MutationKind.READ
        ]

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
    return [
        node.name for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


_OF_RESOURCES = frozenset({"self.isLeaf", "self.children"})
_FOR_SPEED = re.compile(r"cache|memo", re.IGNORECASE)
_REMEMBERS = {"functools.cache", "functools.lru_cache"}


class Lifetime(Enum):
    """How long a thing lasts."""

    REQUEST = "a request"
    EDIT = "until the next edit"
    MEMORY = "a request, though it only serves speed"


@dataclass(frozen=True, slots=True)
class StateLoss:
    """A thing that is lost, as its author writes it, such as ``self.n``, and the line that changes it."""

    line: int
    thing: str
    life: Lifetime

    @property
    def message(self) -> str:
        """What will happen, as a sentence."""
        if self.life is Lifetime.EDIT:
            return f"`{self.thing}` works, shared by all visitors, but is new with every edit of this file."
        if self.life is Lifetime.MEMORY:
            return f"What `{self.thing}` remembers is forgotten at once: the script is executed for every request."
        return f"`{self.thing}` is new with every request: the script is executed for each of them."

    @property
    def hint(self) -> str:
        """What to write instead."""
        key = self._key
        if self.life is Lifetime.MEMORY:
            return "cache() as the first line has the script executed once."
        return (
            f'session["{key}"], with session = request.getSession(), keeps it for each visitor, registry["{key}"] for '
            "all of them."
        )

    @property
    def brief(self) -> str:
        """Both in few words."""
        if self.life is Lifetime.MEMORY:
            return f"what `{self.thing}` remembers is forgotten with every request; cache() in the first line keeps it."
        what = (
            "shared by all visitors and new with every edit"
            if self.life is Lifetime.EDIT
            else "new with every request"
        )
        return (
            f'`{self.thing}` is {what}; session["{self._key}"] or registry["{self._key}"] keeps it.'
        )

    @property
    def _key(self) -> str:
        return self.thing.rpartition(".")[2].strip("_")


def find(
    tree: ast.Module, *, module: bool = False, top: ModuleBindings | None = None
) -> list[StateLoss]:
    """Return what the code of *tree* will lose, in the order of its lines.

    Args:
        module: it is a module of the site, not a script.
        top: what `look` says of it, if that is known already.
    """
    judge = _Judge(tree, top or collect_bindings(tree), module)
    losses: dict[tuple[str, str], StateLoss] = {}
    for where, loss in sorted(judge.losses(), key=lambda found: found[1].line):
        losses.setdefault((where, loss.thing), loss)
    return list(losses.values())


class _Judge:
    def __init__(self, tree: ast.Module, top: ModuleBindings, module: bool) -> None:
        self._tree = tree
        self._top = top
        self._known = ModuleFacts(tree, top)
        self._lasts = module or top.cached

    def losses(self) -> Iterator[tuple[str, StateLoss]]:
        """Yield each loss, with the class that it is about (empty: none)."""
        for effect in self._known.effects:
            if effect.where.code is not None and self._is_loss(effect):
                life = Lifetime.EDIT if self._lasts else Lifetime.REQUEST
                if effect.thing in effect.where.lazy or _FOR_SPEED.search(effect.thing):
                    life = Lifetime.MEMORY
                if not (self._lasts and life is Lifetime.MEMORY):
                    kind = effect.where.kind if effect.thing.startswith("self.") else ""
                    yield kind, StateLoss(effect.line, effect.thing, life)
        if not self._lasts:
            yield from (
                ("", StateLoss(node.lineno, node.name, Lifetime.MEMORY))
                for node in self._remembering()
            )

    def _is_loss(self, effect: Mutation) -> bool:
        if effect.how is MutationKind.READ or effect.where.code is None:
            return False
        base, _, attribute = effect.thing.partition(".")
        if base == "self":
            return self._is_loss_of_object(effect)
        if effect.how is MutationKind.ENCLOSED:
            return self._known.at_start(effect.where.code)
        if self._known.at_start(effect.where.code):
            return False
        return self._is_loss_of_part(effect, base) if attribute else self._is_loss_of_name(effect)

    def _is_loss_of_name(self, effect: Mutation) -> bool:
        nature = self._known.nature(effect.thing, "")
        if effect.how is MutationKind.FILLED:
            return nature is ValueKind.CONTAINER or (
                nature is ValueKind.OBJECT and effect.thing not in self._known.classes
            )
        return nature is ValueKind.ITERATOR if effect.how is MutationKind.DRAWN else True

    def _is_loss_of_part(self, effect: Mutation, base: str) -> bool:
        """For ``state.n``, and ``Page.n``."""
        if self._known.nature(base, "") is not ValueKind.OBJECT:
            return False
        if effect.how in (MutationKind.ASSIGNED, MutationKind.COUNTED):
            return True
        kind = base if base in self._known.classes else self._known.class_of(base)
        return (
            self._known.nature("self." + effect.thing.partition(".")[2], kind) is _FITS[effect.how]
        )

    def _is_loss_of_object(self, effect: Mutation) -> bool:
        kind, method = effect.where.kind, (effect.where.code or ("", ""))[1]
        if method in MAKING or effect.thing in _OF_RESOURCES or not self._known.is_resource(kind):
            return False
        nature = self._known.nature(effect.thing, kind)
        if effect.how in (MutationKind.FILLED, MutationKind.DRAWN):
            shared = (
                effect.how is MutationKind.FILLED
                and self._known.nature(effect.thing.partition(".")[2], kind) is ValueKind.CONTAINER
            )
            fits = nature is _FITS[effect.how] or (
                effect.how is MutationKind.FILLED and nature is ValueKind.OBJECT
            )
            return shared or (fits and self._known.is_kept(kind))
        if not self._known.is_kept(kind):
            return False
        if effect.how is MutationKind.COUNTED:
            return True
        return (
            bool(self._known.reads(effect.thing)) if self._lasts else self._is_asked_later(effect)
        )

    def _is_asked_later(self, effect: Mutation) -> bool:
        """Whether another request would ask for what this one assigns; else it is passed on within the request."""
        if self._known.nature(effect.thing, effect.where.kind) is None:
            return False
        code = effect.where.code or ("", "")
        if any(
            read.where.code == code and read.line < effect.line
            for read in self._known.reads(effect.thing)
        ):
            return True
        entries = {name for name in methods(self._known.classes[code[0]]) if ENTRY.fullmatch(name)}
        here = {entry for entry in entries if code[1] in self._known.reach(code[0], entry)}
        within = {method for entry in here for method in self._known.reach(code[0], entry)}
        readers = {
            read.where.code[1]
            for read in self._known.reads(effect.thing)
            if read.where.code is not None
        }
        return any(readers & self._known.reach(code[0], entry) for entry in entries - within)

    def _remembering(self) -> Iterator[ast.FunctionDef]:
        bodies: list[ast.AST] = [self._tree, *self._known.classes.values()]
        for node in [node for body in bodies for node in ast.iter_child_nodes(body)]:
            if isinstance(node, ast.FunctionDef) and any(map(self._remembers, node.decorator_list)):
                yield node

    def _remembers(self, decorator: ast.expr) -> bool:
        match decorator.func if isinstance(decorator, ast.Call) else decorator:
            case ast.Attribute(ast.Name(module), name):
                return f"{module}.{name}" in _REMEMBERS
            case ast.Name(name):
                bound = self._top.last(name)
                return bound is not None and bound.source in _REMEMBERS
        return False


_FITS = {MutationKind.FILLED: ValueKind.CONTAINER, MutationKind.DRAWN: ValueKind.ITERATOR}
