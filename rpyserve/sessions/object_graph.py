"""The objects that a session or the registry holds, and how they come to be of the present classes.

After an edit, objects are still of the old classes. There are two ways to the new ones:

- An object keeps its identity and its class is changed in place. That is done wherever Python can
  do it.
- What cannot be changed is replaced by another object in whatever holds it: a tuple or a frozenset
  with new contents, a member of an enumeration, an instance of a subclass of ``int``, a class or a
  function that is itself a value.

`ObjectGraph.run` does it in four steps, each of which needs the one before to be complete:

1. Collect all objects, the nearest first, up to `LIMIT`.
2. Change classes; look up the replacements of enumeration members, classes and functions.
3. Rebuild the immutable containers, those inside others first.
4. Put the replacements into whatever is mutable.

Nothing is dropped: what can neither be changed nor replaced stays as it was, and is a warning. No
step recurses, so that nothing is too deep. Of the author's code only ``__hash__`` and ``__eq__``
are called. What objects lack after an edit is not known here: see `migration`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, Flag
from types import FunctionType
from typing import Any, Final, NamedTuple

from zope.interface.interface import InterfaceClass

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.containers import ATOMS, ContainerType, container_type_of, rebuild

LIMIT: Final = 100_000
"""How many objects of one session, or of the registry, are collected, numbers and texts apart."""

_LEAF_CLASSES: Final = (type, FunctionType, InterfaceClass, type(functools.lru_cache(int)), Enum)

# Stands for objects that are not looked into and are replaced as a whole.
_LEAF: Final = ContainerType(lambda thing: (), lambda thing, replace: None, has_attributes=False)


def change_class(thing: Any, cls: type) -> None:
    """Make *thing* an instance of *cls*, in place, also if it is frozen.

    Raises:
        TypeError: Python cannot do that.
    """
    try:
        object.__setattr__(thing, "__class__", cls)
    except TypeError as exc:
        if "layout differs" not in str(exc):
            raise
        raise TypeError("its __slots__ or its base classes differ") from None


class _Node(NamedTuple):
    """An object that was collected. It is kept alive, so that its id stays its own."""

    thing: Any
    label: str
    container_type: ContainerType


class ObjectGraph:
    """What one holder holds.

    Args:
        on_change: called with each object that is of another class now, and its old class, before
            anything asks for its hash.

    Attributes:
        changed: the objects that are of another class now, each with its old class.
        unchangeable: why objects could not be changed, by their ids.
        warnings: what the author should know: the home of the module that it concerns (empty: none
            in particular), and a sentence.
    """

    def __init__(self, on_change: Callable[[Any, type], None] = lambda thing, cls: None) -> None:
        self._on_change = on_change
        self.changed: list[tuple[Any, type]] = []
        self.unchangeable: dict[int, str] = {}
        self.warnings: list[tuple[str, str]] = []
        self._queue: deque[tuple[Any, str]] = deque()
        self._factories: dict[int, Any] = {}
        self._collected: dict[int, _Node] = {}
        self._replacements: dict[int, Any] = {}
        self._container_types: dict[type, ContainerType | None] = {}
        self._present_classes: dict[type, type] = {}

    def add_root(self, thing: Any, label: str, factory: Any = None) -> None:
        """Begin at *thing*, too.

        Args:
            label: what the console calls it, and whatever it holds.
            factory: what makes another one, if *thing* is a component. If it is a class, and the
                class of *thing* is no longer there, then *thing* becomes one of this class: it was
                renamed.
        """
        if type(thing) in ATOMS:
            return
        self._queue.append((thing, label))
        if factory is not None:
            self._factories[id(thing)] = factory

    def replacement_of(self, thing: Any) -> Any:
        """Return what *thing* is replaced by; the thing itself where it stays."""
        return self._replacements.get(id(thing), thing)

    def run(self) -> None:
        """Bring all that hangs below the roots up to the present classes."""
        self._collect()
        immutable = self._change_mutable()
        self._rebuild_immutable(immutable)
        if self._replacements or self.changed:
            for node in self._collected.values():
                self._replace_children(node)

    # Step 1: collect

    def _collect(self) -> None:
        while self._queue:
            thing, label = self._queue.popleft()
            if id(thing) in self._collected:
                continue
            container_type = self._container_type(type(thing))
            if container_type is None:
                continue
            if len(self._collected) >= LIMIT:
                self._queue.clear()
                self.warnings.append(("", _TOO_MANY.format(label, LIMIT)))
                return
            self._collected[id(thing)] = _Node(thing, label, container_type)
            self._queue.extend((child, label) for child in container_type.children(thing))

    def _container_type(self, cls: type) -> ContainerType | None:
        if cls not in self._container_types:
            is_leaf = issubclass(cls, _LEAF_CLASSES)
            self._container_types[cls] = _LEAF if is_leaf else container_type_of(cls)
        return self._container_types[cls]

    # Step 2: change what can be changed in place, and replace leaves

    def _change_mutable(self) -> list[_Node]:
        """Return the rest: what is immutable and may have to be rebuilt."""
        immutable = []
        for node in self._collected.values():
            if node.container_type is _LEAF:
                self._replace_leaf(node.thing, node.label)
            elif node.container_type.is_immutable:
                immutable.append(node)
            else:
                self._change_class(node.thing, node.label)
        return immutable

    def _change_class(self, thing: Any, label: str) -> None:
        old_class = type(thing)
        new_class = self._present_class(thing, label)
        if new_class is old_class:
            return
        try:
            change_class(thing, new_class)
        except TypeError as exc:
            self._keep_unchanged(thing, label, new_class, exc)
        else:
            self.changed.append((thing, old_class))
            self._on_change(thing, old_class)

    def _replace_leaf(self, thing: Any, label: str) -> None:
        if isinstance(thing, Enum):
            new_class = self._present_class(thing, label)
            replacement = thing if new_class is type(thing) else _member_like(thing, new_class)
        else:
            replacement = definitions.current_definition(thing)
        if replacement is None:
            self._warn_leaf_missing(thing, label)
        elif replacement is not thing:
            self._replacements[id(thing)] = replacement

    def _present_class(self, thing: Any, label: str) -> type:
        """The class that *thing* should be of."""
        old_class = type(thing)
        if type(old_class.__module__) is not ExecutionName:
            return old_class
        factory = self._factories.get(id(thing))
        factory_class = factory if isinstance(factory, type) else None
        if factory_class is not None and _are_at_one_place(factory_class, old_class):
            return factory_class  # of several classes of that name this one is meant
        if old_class not in self._present_classes:
            found: type | None = definitions.current_definition(old_class)
            if found is None and factory_class is None:
                name = f"an object of the class {old_class.__qualname__}"
                self._warn_missing(old_class, label, name)
            self._present_classes[old_class] = found or factory_class or old_class
        return self._present_classes[old_class]

    # Step 3: rebuild what is immutable

    def _rebuild_immutable(self, nodes: list[_Node]) -> None:
        done: set[int] = set()
        for node in nodes:
            stack = [node]
            while stack:
                inner = [
                    child for child in self._immutable_in(stack[-1]) if id(child.thing) not in done
                ]
                if inner:
                    stack += inner  # these first
                    continue
                innermost = stack.pop()
                if id(innermost.thing) not in done:
                    done.add(id(innermost.thing))
                    self._rebuild(innermost)

    def _immutable_in(self, node: _Node) -> Iterator[_Node]:
        for child in node.container_type.read_contents(node.thing):
            child_node = self._collected.get(id(child))
            if child_node is not None and child_node.container_type.is_immutable:
                yield child_node

    def _rebuild(self, node: _Node) -> None:
        """Rebuild an object if its class has changed, or what it holds is replaced."""
        thing, label, container_type = node
        new_class = self._present_class(thing, label)
        contents = container_type.read_contents(thing)
        holds_replaced = any(id(child) in self._replacements for child in contents)
        if new_class is type(thing) and not holds_replaced:
            return
        try:
            rebuilt = rebuild(thing, new_class, self.replacement_of)
        except Exception as exc:  # of the author's own __hash__, for one
            self._keep_unchanged(thing, label, new_class, exc)
        else:
            self._replacements[id(thing)] = rebuilt
            # It has the attributes of the old one, to be replaced in step 4.
            self._collected[id(rebuilt)] = node._replace(thing=rebuilt)

    # Step 4: put replacements into what is mutable

    def _replace_children(self, node: _Node) -> None:
        try:
            node.container_type.replace_children(node.thing, self.replacement_of)
        except Exception as exc:  # of the author's own __hash__ or __eq__
            cls = type(node.thing)
            reason = f"{type(exc).__name__}: {exc}"
            sentence = _OLD_KEYS.format(node.label, cls.__name__, reason)
            self.warnings.append((definitions.home_of(cls), sentence))

    # What stays as it was

    def _keep_unchanged(self, thing: Any, label: str, new_class: type, exc: Exception) -> None:
        self.unchangeable[id(thing)] = str(exc)
        if id(thing) not in self._factories:
            sentence = _UNCHANGEABLE.format(label, new_class.__qualname__, exc)
            self.warnings.append((definitions.home_of(new_class), sentence))

    def _warn_leaf_missing(self, thing: Any, label: str) -> None:
        if isinstance(thing, Enum):
            self._warn_missing(type(thing), label, f"{type(thing).__name__}.{thing.name}")
        else:
            self._warn_missing(thing, label, getattr(thing, "__qualname__", thing.__name__))

    def _warn_missing(self, definition: Any, label: str, name: str) -> None:
        template = _LOCAL if "<locals>" in name else _GONE
        self.warnings.append((definitions.home_of(definition), template.format(label, name)))


_UNCHANGEABLE: Final = (
    "{} holds an object of the class {} that Python cannot change into one of the new class: {}. "
    "It is kept as it was, with its old methods."
)
_GONE: Final = (
    "{} holds {}, which is no longer there. It is kept as it was until there is one of that name "
    "again."
)
_LOCAL: Final = (
    "{} holds {}, which is defined inside a function, where the new one cannot be found. It is "
    "kept as it was."
)
_OLD_KEYS: Final = "{} holds a {} that is kept as it was, with keys from before the edit: {}."
_TOO_MANY: Final = (
    "{} and what comes after it hold more than {:,} objects. Those beyond are kept as they were."
)


def _are_at_one_place(new_class: type, old_class: type) -> bool:
    return definitions.place_of(new_class) == definitions.place_of(old_class)


def _member_like(old: Enum, new_class: Any) -> Enum | None:
    """The member of *new_class* that has the name of *old*, or the names of its parts."""
    if not isinstance(old, Flag):
        return new_class.__members__.get(old.name)  # type: ignore[no-any-return]
    parts = list(old)
    if any(part.name not in new_class.__members__ for part in parts):
        return None
    # Bits that have no name stay.
    unnamed = old.value
    for part in parts:
        unnamed &= ~part.value
    member = new_class(unnamed)
    for part in parts:
        member |= new_class[part.name]
    return member  # type: ignore[no-any-return]
