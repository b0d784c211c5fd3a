"""State that a request or an edit will lose: what a script keeps in its own names, as far as its
text tells.

Judges what `mutations` has found; executes nothing. A script without ``cache()`` is executed for
each request, so whatever its functions change is gone with the request. What a cached script or a
module of the site keeps is shared by all visitors, and is reset when the file is edited. A false
alarm is worse than a missed loss: what only saves work, or is not known to last, is no loss.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final

from rpyserve.check.bindings import (
    DEFINITIONS,
    BindingKind,
    ModuleBindings,
    collect_bindings,
)
from rpyserve.check.findings import Rule
from rpyserve.check.mutations import (
    SELF,
    Function,
    Mutation,
    MutationKind,
    NameUse,
    Target,
    ValueKind,
    collect_mutations,
    kind_of_value,
)

__all__ = ["ModuleFacts", "StateLoss", "find_state_losses"]

_LOSES_STATE: Final = {
    **{(MutationKind.ASSIGNED, value): True for value in ValueKind},
    **{(MutationKind.UPDATED, value): True for value in ValueKind},
    (MutationKind.MODIFIED, ValueKind.CONTAINER): True,
    (MutationKind.MODIFIED, ValueKind.OBJECT): True,
    (MutationKind.CONSUMED, ValueKind.ITERATOR): True,
}
"""Which mutations of which values are a loss if the value does not last; all others are none.

An `ValueKind.OBJECT` that is modified has methods like those of a container, as far as its text
tells.
"""
_CONSTRUCTORS: Final = frozenset({"__init__", "__new__", "__init_subclass__", "__set_name__"})
"""Methods that are only called while an object, or a class, is made."""
_ENTRY_POINT: Final = re.compile(r"render(_[A-Z]+)?|getChild")
"""The methods of a resource that a request calls."""
_RESOURCE_ATTRIBUTES: Final = frozenset({"isLeaf", "children"})
"""Attributes that every Resource has, and that are no state."""
_MESSAGES: Final = {
    Rule.STATE_LOST_ON_REQUEST: "{} is lost after each request, as the script runs again for each",
    Rule.STATE_LOST_ON_EDIT: "{} is shared by all visitors, but lost when this file is edited",
    Rule.USELESS_CACHE: "{} saves no work, as the script runs again for each request",
}
_CACHE_NAME: Final = re.compile(r"cache|memo", re.IGNORECASE)
_CACHING_DECORATORS: Final = frozenset({"functools.cache", "functools.lru_cache"})


@dataclass(frozen=True, slots=True)
class StateLoss:
    """A target that loses its state.

    Args:
        line: the first line that changes it.
        name: the target as its author writes it, such as ``self.n``.
        rule: when the state is lost, and whether that matters.
    """

    line: int
    name: str
    rule: Rule

    @property
    def message(self) -> str:
        """What will happen, as a sentence."""
        return _MESSAGES[self.rule].format(f"`{self.name}`") + "."

    @property
    def hint(self) -> str:
        """What to write instead."""
        if self.rule is Rule.USELESS_CACHE:
            return "Call cache() in the first line, so that the script runs only once."
        return (
            f"Keep it in {self._session} for each visitor (session = request.getSession()), "
            f"or in {self._registry} for all of them."
        )

    @property
    def brief(self) -> str:
        """Message and hint in one line, for the console."""
        message = self.message.removesuffix(".")
        if self.rule is Rule.USELESS_CACHE:
            return f"{message}; call cache() in the first line."
        return f"{message}; keep it in {self._session} or {self._registry}."

    @property
    def _session(self) -> str:
        return f'session["{self._key}"]'

    @property
    def _registry(self) -> str:
        return f'registry["{self._key}"]'

    @property
    def _key(self) -> str:
        return self.name.rpartition(".")[2].strip("_")


def find_state_losses(
    tree: ast.Module, *, is_module: bool = False, bindings: ModuleBindings | None = None
) -> list[StateLoss]:
    """Return what the code of *tree* will lose, in the order of its lines.

    Args:
        is_module: it is a module of the site, not a script.
        bindings: its bindings, if they are known already.
    """
    judge = _Judge(tree, bindings or collect_bindings(tree), is_module)
    first: dict[tuple[str, str], StateLoss] = {}
    for class_name, loss in sorted(judge.losses(), key=lambda found: found[1].line):
        first.setdefault((class_name, loss.name), loss)
    return list(first.values())


class ModuleFacts:
    """What the text of a script or module tells of its state: what it is at first, and whether it
    lasts.

    The top-level code runs once for each execution; functions that only it calls are a part of it.

    Attributes:
        mutations: all mutations, in the order of the text.
        classes: the classes at the top level, by name.
    """

    def __init__(self, tree: ast.Module, bindings: ModuleBindings) -> None:
        collected = collect_mutations(tree)
        self.mutations = collected.found
        self.classes = {cls.name: cls for cls in bindings.classes()}
        self._bindings = bindings
        self._initial_values: dict[tuple[str, Target], ast.expr] = {}
        self._reads: dict[Target, list[Mutation]] = {}
        self._attributes_used: dict[Function, set[str]] = {}
        self._uses: dict[str, list[NameUse]] = {}
        for mutation in self.mutations:
            self._add(mutation)
        for use in collected.uses:
            self._uses.setdefault(use.name, []).append(use)

    def _add(self, mutation: Mutation) -> None:
        target, scope = mutation.target, mutation.scope
        if mutation.kind is MutationKind.READ:
            self._reads.setdefault(target, []).append(mutation)
        if scope.function is not None and target.owner == SELF:
            self._attributes_used.setdefault(scope.function, set()).add(target.attribute)
        at_start = scope.function in (None, Function(scope.class_name, "__init__"))
        if mutation.value is not None and at_start:
            self._initial_values.setdefault((scope.class_name, target), mutation.value)

    # What values are at first; None where nothing gives them a value

    def kind_of_name(self, name: str) -> ValueKind | None:
        """Return what the top-level *name* is at first."""
        if name in self._definitions:
            return ValueKind.DEFINITION
        return self._initial_kind("", Target(name))

    def kind_of_attribute(self, class_name: str, attribute: str) -> ValueKind | None:
        """Return what *attribute* of an instance of the class is at first."""
        for each in [class_name, *self._bases(class_name)]:
            own = self._initial_kind(each, Target(SELF, attribute))
            kind = own or self._initial_kind(each, Target(attribute))
            if kind is not None:
                return kind
        return None

    def kind_of_class_attribute(self, class_name: str, attribute: str) -> ValueKind | None:
        """Return what *attribute* is in the body of the class, or of one of its bases."""
        kinds = (
            self._initial_kind(each, Target(attribute))
            for each in [class_name, *self._bases(class_name)]
        )
        return next((kind for kind in kinds if kind is not None), None)

    def _initial_kind(self, class_name: str, target: Target) -> ValueKind | None:
        value = self._initial_values.get((class_name, target))
        return None if value is None else kind_of_value(value, self.classes)

    @cached_property
    def _definitions(self) -> set[str]:
        """The names that are bound once, by ``def`` or ``class``."""
        kinds = (BindingKind.FUNCTION, BindingKind.CLASS)
        return {
            name
            for name, bindings in self._bindings.names.items()
            if len(bindings) == 1 and bindings[0].kind in kinds
        }

    # Classes

    def _bases(self, class_name: str) -> list[str]:
        """The classes of this file from which the class inherits."""
        found: list[str] = []
        todo = [class_name]
        while todo:
            cls = self.classes.get(todo.pop())
            names = [base.id for base in cls.bases if isinstance(base, ast.Name)] if cls else []
            for name in names:
                if name in self.classes and name not in (class_name, *found):
                    found.append(name)
                    todo.append(name)
        return found

    def class_of(self, name: str) -> str:
        """Return the class of this file that *name* is, or is an instance of; empty if none."""
        if name in self.classes:
            return name
        for binding in self._bindings.names.get(name, []):
            match binding.node:
                case ast.Call(ast.Name(class_name)):
                    return class_name if class_name in self.classes else ""
        return ""

    def is_resource(self, class_name: str) -> bool:
        """Whether the class is a Resource, or looks like one where that cannot be known."""
        cls = self.classes.get(class_name)
        if cls is None:
            return False
        known = self._bindings.is_resource(cls)
        if known is None:
            return any(map(_ENTRY_POINT.fullmatch, self.methods(class_name)))
        return known

    def methods(self, class_name: str) -> set[str]:
        """Return the names of the methods in the body of the class."""
        body = self.classes[class_name].body
        return {node.name for node in body if isinstance(node, DEFINITIONS)}

    # What runs when

    def outlives_requests(self, class_name: str) -> bool:
        """Whether the top-level code makes an instance of the class or of a subclass."""
        family = {class_name}
        family.update(name for name in self.classes if class_name in self._bases(name))
        return any(
            use.is_call and self._is_use_at_start(use)
            for name in family
            for use in self._uses.get(name, [])
        )

    def _is_use_at_start(self, use: NameUse) -> bool:
        function = use.scope.function
        if function is None or function.name == "__init__":
            return True
        return self.runs_at_start(function)

    def runs_at_start(self, function: Function, callers: frozenset[Function] = frozenset()) -> bool:
        """Whether *function* is only ever called while the top-level code runs."""
        if function in callers:
            return False
        if function.class_name and function.name not in _CONSTRUCTORS:
            return False
        uses = self._uses.get(function.class_name or function.name, [])
        calls = sum(use.is_call for use in uses)
        if not uses or calls * 2 != len(uses):  # each call is a plain use as well
            return False
        users = {use.scope.function for use in uses} - {None}
        return all(self.runs_at_start(user, callers | {function}) for user in users if user)

    def reads(self, target: Target) -> list[Mutation]:
        """Return where *target* is read."""
        return self._reads.get(target, [])

    def reachable_methods(self, class_name: str, method: str) -> set[str]:
        """Return *method*, and the methods of its object that it uses, directly or not."""
        methods = self.methods(class_name)
        reached: set[str] = set()
        todo = {method}
        while todo:
            name = todo.pop()
            reached.add(name)
            used = self._attributes_used.get(Function(class_name, name), set())
            todo |= (used & methods) - reached
        return reached


class _Judge:
    """Decides which mutations are losses."""

    def __init__(self, tree: ast.Module, bindings: ModuleBindings, is_module: bool) -> None:
        self._tree = tree
        self._bindings = bindings
        self._facts = ModuleFacts(tree, bindings)
        self._lasts_until_edit = is_module or bindings.calls_cache

    def losses(self) -> Iterator[tuple[str, StateLoss]]:
        """Yield each loss, with the class that it is about; empty for none."""
        for mutation in self._facts.mutations:
            function = mutation.scope.function
            if function is not None and self._is_loss(mutation, function):
                rule = self._rule(mutation)
                if rule is not None:
                    is_own = mutation.target.owner == SELF
                    class_name = mutation.scope.class_name if is_own else ""
                    yield class_name, StateLoss(mutation.line, str(mutation.target), rule)
        if not self._lasts_until_edit:
            for node in self._cached_functions():
                yield "", StateLoss(node.lineno, node.name, Rule.USELESS_CACHE)

    def _rule(self, mutation: Mutation) -> Rule | None:
        """The rule that a loss breaks; None for a cache that lasts long enough."""
        target = mutation.target
        if target in mutation.scope.found_empty or _CACHE_NAME.search(str(target)):
            return None if self._lasts_until_edit else Rule.USELESS_CACHE
        return Rule.STATE_LOST_ON_EDIT if self._lasts_until_edit else Rule.STATE_LOST_ON_REQUEST

    def _is_loss(self, mutation: Mutation, function: Function) -> bool:
        if mutation.kind is MutationKind.READ:
            return False
        if mutation.target.owner == SELF:
            return self._is_loss_of_own_attribute(mutation, function)
        runs_at_start = self._facts.runs_at_start(function)
        if mutation.kind is MutationKind.NONLOCAL:
            return runs_at_start  # else the variable lives only as long as the request
        if runs_at_start:
            return False
        if mutation.target.attribute:
            return self._is_loss_of_attribute(mutation)
        return _loses_state(mutation, self._facts.kind_of_name(mutation.target.owner))

    def _is_loss_of_attribute(self, mutation: Mutation) -> bool:
        """For ``state.n``, where ``state`` is an object at the top level, and ``Page.n``."""
        owner, attribute = mutation.target
        if self._facts.kind_of_name(owner) not in (ValueKind.OBJECT, ValueKind.DEFINITION):
            return False
        kind = self._facts.kind_of_attribute(self._facts.class_of(owner), attribute)
        if mutation.kind is MutationKind.MODIFIED and kind is ValueKind.OBJECT:
            return False
        return _loses_state(mutation, kind)

    def _is_loss_of_own_attribute(self, mutation: Mutation, function: Function) -> bool:
        """For ``self.n`` in a method of a Resource."""
        class_name, attribute = mutation.scope.class_name, mutation.target.attribute
        if function.name in _CONSTRUCTORS or attribute in _RESOURCE_ATTRIBUTES:
            return False
        if not self._facts.is_resource(class_name):
            return False
        # What the class has is shared by its instances, even by those that live for one request.
        shared = self._facts.kind_of_class_attribute(class_name, attribute)
        if mutation.kind is MutationKind.MODIFIED and shared is ValueKind.CONTAINER:
            return True
        if not self._facts.outlives_requests(class_name):
            return False
        if mutation.kind is MutationKind.ASSIGNED:
            return self._is_read_later(mutation, function)
        return _loses_state(mutation, self._facts.kind_of_attribute(class_name, attribute))

    def _is_read_later(self, mutation: Mutation, function: Function) -> bool:
        """Whether another request may read what this one assigns, and not only this one itself."""
        reads = self._facts.reads(mutation.target)
        if self._lasts_until_edit:
            return bool(reads)
        class_name, attribute = mutation.scope.class_name, mutation.target.attribute
        if self._facts.kind_of_attribute(class_name, attribute) is None:
            return False
        # 1. It is read before it is assigned.
        here = [read for read in reads if read.scope.function == function]
        if any(read.line < mutation.line for read in here):
            return True
        # 2. It is read by a method that is not called by the request that assigns it.
        reach = {
            method: self._facts.reachable_methods(function.class_name, method)
            for method in self._facts.methods(function.class_name)
            if _ENTRY_POINT.fullmatch(method)
        }
        assigning = [methods for methods in reach.values() if function.name in methods]
        same_request = set().union(*assigning)
        readers = {read.scope.function.name for read in reads if read.scope.function is not None}
        return any(
            readers & methods for entry, methods in reach.items() if entry not in same_request
        )

    def _cached_functions(self) -> Iterator[ast.FunctionDef]:
        """Functions and methods that a decorator of functools caches."""
        bodies = [self._tree.body, *(cls.body for cls in self._facts.classes.values())]
        for node in chain.from_iterable(bodies):
            if isinstance(node, ast.FunctionDef) and any(map(self._caches, node.decorator_list)):
                yield node

    def _caches(self, decorator: ast.expr) -> bool:
        match decorator.func if isinstance(decorator, ast.Call) else decorator:
            case ast.Attribute(ast.Name(module), name):
                return f"{module}.{name}" in _CACHING_DECORATORS
            case ast.Name(name):
                bound = self._bindings.last(name)
                return bound is not None and bound.imported in _CACHING_DECORATORS
        return False


def _loses_state(mutation: Mutation, kind: ValueKind | None) -> bool:
    return _LOSES_STATE.get((mutation.kind, kind or ValueKind.OTHER), False)
