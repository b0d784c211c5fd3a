"""The objects that a session or the registry holds, and how they come to be of the present classes.

After an edit, objects are still of the old classes. There are three ways to the new ones:

- An object keeps its identity and its class is changed in place. That is done wherever Python can
  do it.
- What cannot be changed is replaced by another object in whatever holds it: a tuple or a frozenset
  with new contents, a member of an enumeration, an instance of a subclass of ``int``, a class or a
  function that is itself a value.
- An object with attributes whose class Python cannot change (other ``__slots__``, other bases) is
  made again from its state, by `containers.remake`, and replaced likewise. What it was made into is
  kept on its old class, so that another session that holds it gets the same one.

The steps, each of which needs the ones before to be complete:

1. Collect all objects, the nearest first.
2. Change classes; make again what cannot be changed; look up the replacements of enumeration
   members, classes and functions.
3. Rebuild the immutable containers, those inside others first, and put the replacements into
   whatever is mutable. What finds things by their hash is left for later.
4. `ObjectGraph.finish`, when objects have got the attributes that the edit has added: frozensets,
   sets, and keys of dicts. They change only if something in them was replaced or has another hash,
   so that a loop over them goes on undisturbed.

Only so many objects are brought up to date at once, see `Limits`. Those beyond are the
`ObjectGraph.rest`, for `first_use`: an object that keeps its identity can wait, with all that it
holds, and so can plain data, if there is very much of it. Keys, and what must be replaced, cannot:
whoever takes it from a list would have the old one.

Nothing is dropped: what can neither be changed nor replaced stays as it was, and is a warning. No
step recurses, so that nothing is too deep. Of the author's code only ``__hash__`` and ``__eq__``
are called. What objects lack after an edit is not known here: see `migration`.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import Enum, Flag
from itertools import islice
from types import FunctionType
from typing import Any, ClassVar, Final, NamedTuple

from zope.interface import directlyProvidedBy
from zope.interface.declarations import Provides, ProvidesClass

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.containers import (
    ATOMS,
    LEAF_CLASSES,
    ContainerType,
    are_found,
    container_type_of,
    opaque_type,
    rebuild,
    remake,
)
from rpyserve.sessions.object_state import attributes, dict_of

CHUNK: Final = 1_000
"""Of so many objects in a container at once it is asked whether their classes matter."""

# Other processes have their own modules.
_POOLS: Final = frozenset(
    {("concurrent.futures.process", "ProcessPoolExecutor"), ("multiprocessing.pool", "Pool")}
)

# What Python does not track if it holds numbers and texts only.
_UNTRACKED: Final = frozenset({dict, tuple})

_PLAIN: Final = frozenset({list, dict, set, deque})

# What libraries keep of a class in its objects, and we can renew.
_KNOWN: Final = ATOMS | {ProvidesClass, type(ClassVar[int])}

# Stands for objects that are not looked into and are replaced as a whole.
_LEAF: Final = opaque_type()

# On an old class: by their ids, the `_Made` of its objects. That lasts as long as the class, and so
# as long as anybody may still hold such an object.
_MADE_INTO: Final = "__rpyserve_made_into__"

# On a class, by the ids of its objects: references to the `_Made` whose result they are.
_MADE_FROM: Final = "__rpyserve_made_from__"


class _Made:
    """An object, and the one that was made from it; after further edits, the latest of those."""

    __slots__ = ("__weakref__", "made", "thing")

    def __init__(self, thing: Any, made: Any) -> None:
        self.thing = thing
        self.made = made


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


class _Held(NamedTuple):
    """Objects that something holds.

    Args:
        things: these objects.
        label: what the console calls them.
        can_wait: whether they need not be brought up to date at once, if they are too many.
        holder: the id of what holds them.
    """

    things: Sequence[Any]
    label: str
    can_wait: bool
    holder: int


class Limits(NamedTuple):
    """How much is brought up to date at once.

    Args:
        objects: of the site's classes.
        plain: lists, dicts and sets, for each value of a session or of the registry.
    """

    objects: int
    plain: int


Left = tuple[Sequence[Any], int, str]
"""A chunk of objects that wait: where they are, where in that they begin, and their label."""


class ObjectGraph:
    """What one holder holds.

    Args:
        on_change: called with each object that is of another class now, its old class, and the
            object that it was (itself, unless it was made again), before anything asks for its
            hash.
        holds_back: says whether an object must not become one of a class yet.
        limits: how much is done at once.

    Attributes:
        changed: the objects that are of another class now, each with its old class. One that was
            made again is meant itself, not the one that it replaces.
        unchangeable: why objects could not be changed, by their ids.
        warnings: what the author should know: the home of the module that it concerns (empty: none
            in particular), and a sentence.
        rest: what waits, see `Left`.
        waiting: the old classes of those, each with its new class.
    """

    def __init__(
        self,
        on_change: Callable[[Any, type, Any], None],
        holds_back: Callable[[Any, type], bool],
        limits: Limits,
    ) -> None:
        self._on_change = on_change
        self._holds_back = holds_back
        self.changed: list[tuple[Any, type]] = []
        self.unchangeable: dict[int, str] = {}
        self.warnings: list[tuple[str, str]] = []
        self.rest: list[Left] = []
        self.waiting: dict[type, type] = {}
        self._queue: deque[_Held] = deque()
        self._steps = self._collect()
        self._factories: dict[int, Any] = {}
        self._collected: dict[int, _Node] = {}
        self._replacements: dict[int, Any] = {}
        self._limits = limits
        self._count = 0
        self._plain: Counter[str] = Counter()
        # The ids of those that hold anything that may be replaced.
        self._holding: set[int] = set()
        # The ids of those that find something by its hash, other than numbers and texts.
        self._keyed: set[int] = set()
        self._container_types: dict[type, ContainerType] = {}
        self._skipped: set[type] = set(ATOMS)
        self._patient: set[type] = set()  # whose objects can wait
        self._present_classes: dict[type, type] = {}
        self._instrumented: dict[type, bool] = {}

    def add_root(self, thing: Any, label: str, factory: Any = None) -> None:
        """Begin at *thing*, too.

        Args:
            label: what the console calls it, and whatever it holds.
            factory: what makes another one, if *thing* is a component. If it is a class, and the
                class of *thing* is no longer there, then *thing* becomes one of this class: it was
                renamed.
        """
        self._queue.append(_Held((thing,), label, False, 0))
        if factory is not None:
            self._factories[id(thing)] = factory

    def replacement_of(self, thing: Any) -> Any:
        """Return what *thing* is replaced by; the thing itself where it stays."""
        while id(thing) in self._replacements:
            thing = self._replacements[id(thing)]
        return thing

    def collect(self, is_time_over: Callable[[], bool]) -> bool:
        """Do a part of `run` that changes nothing yet: go on until all is collected.

        What was collected is no longer looked at, so that whoever changes it meanwhile must not
        put old objects there.

        Args:
            is_time_over: whether to stop for now.

        Returns:
            Whether all is collected.
        """
        return not any(is_time_over() for _ in self._steps)

    def run(self) -> None:
        """Bring all that hangs below the roots up to the present classes, but for `finish`."""
        self.collect(lambda: False)
        self._change_all()
        self._rebuild_immutable(lambda node: node.container_type.read_keys is None)
        if self._has_changed():
            self._exchange(lambda node: id(node.thing) not in self._keyed)

    def finish(self) -> None:
        """Bring up to date what finds things by their hash."""
        before = len(self._replacements)
        self._rebuild_immutable(lambda node: True)
        found_more = len(self._replacements) > before
        # First the keys: a value is put under a key whose hash is the one that it is found by.
        for thing_id in self._keyed:
            node = self._collected[thing_id]
            replace_keys = node.container_type.replace_keys
            if replace_keys is not None and self._has_other_keys(node):
                self._guarded(node, replace_keys)
        if self._has_changed():
            self._exchange(lambda node: found_more or id(node.thing) in self._keyed)
            self._warn_of_iterators()

    def _has_changed(self) -> bool:
        return bool(self._replacements or self.changed)

    # Step 1: collect

    def _collect(self) -> Iterator[None]:
        """Collect all; a step is a chunk of objects."""
        while self._queue:
            held = self._queue.popleft()
            things = iter(held.things)
            for start in range(0, len(held.things), CHUNK):
                classes = set(map(type, islice(things, CHUNK)))
                if not classes <= self._skipped:
                    self._collect_chunk(held, start, classes)
                yield

    def _collect_chunk(self, held: _Held, start: int, classes: set[type]) -> None:
        if held.can_wait and self._count >= self._limits.objects and classes <= self._patient:
            self.rest.append((held.things, start, held.label))
            return
        things = held.things[start : start + CHUNK]
        self._classify_all(classes, things, held)
        if definitions.all_are_tracked and not classes.isdisjoint(_UNTRACKED):
            # The others hold numbers and texts only.
            things = [
                thing for thing in things if type(thing) not in _UNTRACKED or gc.is_tracked(thing)
            ]
        for thing in things:
            if type(thing) not in self._skipped:
                self._collect_one(thing, held)
        if not classes <= self._skipped | self._patient:
            self._holding.add(held.holder)

    def _classify_all(self, classes: set[type], things: Sequence[Any], held: _Held) -> None:
        """Classify those of *classes*, which *things* are of, that are new."""
        for cls in classes - self._container_types.keys() - self._skipped:
            self._classify(cls, next(thing for thing in things if type(thing) is cls))
            if (cls.__module__, cls.__name__) in _POOLS:
                self.warnings.append(("", _POOL.format(held.label, cls.__name__)))

    def _classify(self, cls: type, thing: Any) -> None:
        container_type = container_type_of(cls)
        if issubclass(cls, LEAF_CLASSES) and cls is not FunctionType:
            container_type = _LEAF
        if container_type is None:
            self._skipped.add(cls)
            return
        self._container_types[cls] = container_type
        if container_type.has_only_attributes and type(cls.__module__) is ExecutionName:
            self._let_wait(cls, thing)

    def _let_wait(self, cls: type, thing: Any) -> None:
        """Let the objects of *cls*, of which *thing* is one, wait if that can be."""
        new_class = definitions.current_definition(cls) or cls
        if new_class is cls:
            self._patient.add(cls)
        elif _can_change(cls, new_class) and not self._is_instrumented(thing):
            self._patient.add(cls)
            self.waiting[cls] = new_class

    def _collect_one(self, thing: Any, held: _Held) -> None:
        if id(thing) in self._collected:
            return
        cls = type(thing)
        if cls not in self._container_types:  # a file was executed meanwhile, whose code uses it
            self._classify(cls, thing)
            if cls in self._skipped:
                return
        if held.can_wait and self._must_wait(cls, held.label):
            self.rest.append(((thing,), 0, held.label))
            return
        node = self._collected[id(thing)] = _Node(thing, held.label, self._container_types[cls])
        made = vars(cls).get(_MADE_INTO, {}).get(id(thing))
        if made is not None:  # by another session, for one
            self._replacements[id(thing)] = made.made
            self._queue.append(held._replace(things=(made.made,)))
        elif self._is_instrumented(thing):
            self._leave_instrumented(node)
        else:
            self._collect_children(node, held)

    def _must_wait(self, cls: type, label: str) -> bool:
        """Count an object of *cls*; return whether there were too many before it."""
        if cls in self._patient:
            self._count += 1
            return self._count > self._limits.objects
        if cls in _PLAIN:
            self._plain[label] += 1
            return self._plain[label] > self._limits.plain
        return False

    def _collect_children(self, node: _Node, held: _Held) -> None:
        thing, label, container_type = node
        keys = container_type.keys(thing)
        if keys:
            self._keyed.add(id(thing))
            can_wait = all(map(_is_found_by_identity, set(map(type, keys))))
            self._queue.append(_Held(keys, label, can_wait, id(thing)))
        # A key may be a tuple: what is in it cannot wait either.
        can_wait = held.can_wait or not container_type.is_immutable
        self._queue.append(_Held(container_type.values(thing), label, can_wait, id(thing)))

    def _is_instrumented(self, thing: Any) -> bool:
        """Whether another library keeps something in *thing* that belongs to its old class."""
        cls = type(thing)
        if type(cls.__module__) is not ExecutionName or definitions.is_current(cls):
            return False
        if cls not in self._instrumented:
            self._instrumented[cls] = any(
                _refers_to(value, cls) for value in attributes(thing).values()
            )
        return self._instrumented[cls]

    def _leave_instrumented(self, node: _Node) -> None:
        cls = type(node.thing)
        self._collected[id(node.thing)] = node._replace(container_type=_LEFT_ALONE)
        sentence = _INSTRUMENTED.format(node.label, cls.__qualname__)
        self.warnings.append((definitions.home_of(cls), sentence))

    # Step 2: change what can be changed in place, make again what cannot, and replace leaves

    def _change_all(self) -> None:
        for node in list(self._collected.values()):
            if id(node.thing) in self._replacements or node.container_type is _LEFT_ALONE:
                continue
            if isinstance(node.thing, LEAF_CLASSES):
                self._replace_leaf(node.thing, node.label)
            elif not node.container_type.is_immutable:
                self._change(node)

    def _change(self, node: _Node) -> None:
        thing = node.thing
        old_class = type(thing)
        new_class = self._present_class(thing, node.label)
        if new_class is old_class or self._holds_back(thing, new_class):
            return
        try:
            change_class(thing, new_class)
        except TypeError:
            self._make_again(node, new_class)
        else:
            _renew_kept_class(thing)
            self.changed.append((thing, old_class))
            self._on_change(thing, old_class, thing)

    def _make_again(self, node: _Node, new_class: type) -> None:
        thing, label, _ = node
        old_class = type(thing)
        try:
            made, no_room = remake(thing, new_class)
        except Exception as exc:  # a constructor may be the only way
            self._keep_unchanged(thing, label, new_class, exc)
            return
        _renew_kept_class(made)
        self._classify(new_class, made)
        self._note_replacement(node, made, self._container_types[new_class])
        _remember(thing, made)
        self.changed.append((made, old_class))
        self._on_change(made, old_class, thing)
        if no_room:
            sentence = _NO_ROOM.format(label, new_class.__qualname__, ", ".join(no_room))
            self.warnings.append((definitions.home_of(new_class), sentence))

    def _note_replacement(self, node: _Node, made: Any, container_type: ContainerType) -> None:
        """Have *made*, which holds the same as the old object as yet, take its place."""
        thing = node.thing
        self._replacements[id(thing)] = made
        self._collected[id(made)] = _Node(made, node.label, container_type)
        self._holding.add(id(made))
        if id(thing) in self._keyed:
            self._keyed.add(id(made))

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

    def _rebuild_immutable(self, is_due: Callable[[_Node], bool]) -> None:
        done: set[int] = set()
        for node in list(self._collected.values()):
            stack = [node] if node.container_type.is_immutable and is_due(node) else []
            while stack:
                inner = [
                    child
                    for child in self._immutable_in(stack[-1])
                    if id(child.thing) not in done and is_due(child)
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
        if id(thing) in self._replacements or id(thing) in self.unchangeable:
            return
        new_class = self._present_class(thing, label)
        if new_class is type(thing) and not self._holds_replaced(node):
            return
        try:
            rebuilt = rebuild(thing, new_class, self.replacement_of)
        except Exception as exc:  # of the author's own __hash__, for one
            self._keep_unchanged(thing, label, new_class, exc)
        else:
            # It has the attributes of the old one, to be replaced in the next step.
            self._note_replacement(node, rebuilt, container_type)

    def _holds_replaced(self, node: _Node) -> bool:
        contents = node.container_type.read_contents(node.thing)
        if any(id(child) in self._replacements for child in contents):
            return True
        return id(node.thing) in self._keyed and self._has_other_keys(node)

    def _exchange(self, is_due: Callable[[_Node], bool]) -> None:
        """Put replacements into whatever is mutable, where *is_due* says so of a node."""
        for thing_id in self._holding & self._collected.keys() if self._replacements else ():
            node = self._collected[thing_id]
            if is_due(node):
                self._guarded(node, node.container_type.replace_children)

    # Step 4: keys

    def _has_other_keys(self, node: _Node) -> bool:
        """Whether a key in *node* is replaced, or has another hash than the one it is found by."""
        keys = node.container_type.keys(node.thing)
        if any(id(key) in self._replacements for key in keys):
            return True
        return bool(keys) and not are_found(node.thing, keys)

    def _guarded(self, node: _Node, change: Any) -> None:
        try:
            change(node.thing, self.replacement_of)
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

    def _warn_of_iterators(self) -> None:
        for node in self._collected.values():
            if node.container_type.is_closed and self._holds_replaced(node):
                name = type(node.thing).__name__
                self.warnings.append(("", _ITERATOR.format(node.label, name)))


_UNCHANGEABLE: Final = (
    "{} holds an object of the class {} that Python cannot change into one of the new class: {}. "
    "It is kept as it was, with its old methods."
)
_NO_ROOM: Final = "{} holds objects of the class {} that have no room for {} any more."
_GONE: Final = (
    "{} holds {}, which is no longer there. It is kept as it was until there is one of that name "
    "again."
)
_LOCAL: Final = (
    "{} holds {}, which is defined inside a function, where the new one cannot be found. It is "
    "kept as it was."
)
_OLD_KEYS: Final = "{} holds a {} that is kept as it was, with keys from before the edit: {}."
_ITERATOR: Final = (
    "{} holds a {} that goes on with objects from before the edit: they cannot be exchanged in it. "
    "A list and an index can be brought up to date."
)
_POOL: Final = (
    "{} holds a {}, whose processes go on with the code that they began with. To have them run the "
    "edited code, shut it down and make another one."
)
_INSTRUMENTED: Final = (
    "{} holds an object of the class {} that belongs to a library which knows it by its old class. "
    "It is kept as it was, with its old methods; keep its id instead, and load it in each request."
)

# Stands for objects that are neither looked into nor changed.
_LEFT_ALONE: Final = opaque_type()


def _is_found_by_identity(cls: type) -> bool:
    """Whether the hash of an object of *cls* stays the same, whatever becomes of it."""
    new_class = definitions.current_definition(cls) or cls
    return cls.__hash__ is new_class.__hash__ is object.__hash__


def that_can_wait(outdated: dict[type, type]) -> dict[type, type]:
    """Those of some old classes whose objects can be brought up to date at their first use."""
    return {
        old_class: new_class
        for old_class, new_class in outdated.items()
        if _is_simple(old_class) and _can_change(old_class, new_class)
    }


def _is_simple(cls: type) -> bool:
    container_type = None if issubclass(cls, LEAF_CLASSES) else container_type_of(cls)
    return container_type is not None and container_type.has_only_attributes


def _can_change(old_class: type, new_class: type) -> bool:
    """Whether objects of *old_class* can become objects of *new_class* and stay the same."""
    try:
        change_class(object.__new__(old_class), new_class)
    except TypeError:
        return False
    return True


def _renew_kept_class(thing: Any) -> None:
    """Renew what `typing` and zope keep in an object of a class: that very class."""
    own = dict_of(thing)
    alias = own.get("__orig_class__")
    if alias is not None:  # a Box[int]
        with suppress(Exception):
            own["__orig_class__"] = type(thing)[alias.__args__]
    if "__provides__" in own:
        current = map(definitions.current_definition, directlyProvidedBy(thing))
        own["__provides__"] = Provides(type(thing), *filter(None, current))


def _refers_to(value: Any, cls: type) -> bool:
    """Whether *value*, an object of a library, has *cls* as an attribute."""
    if type(value) in _KNOWN or type(type(value).__module__) is ExecutionName:
        return False
    return any(each is cls for each in attributes(value).values())


def _remember(thing: Any, made: Any) -> None:
    """Note what *thing* was made into, for others that hold it, or an earlier version of it.

    No version is kept alive by the one before it.
    """
    entry = _Made(thing, made)
    _on_class(type(thing), _MADE_INTO)[id(thing)] = entry
    earlier = vars(type(thing)).get(_MADE_FROM, {}).pop(id(thing), [])
    references = [reference for reference in earlier if reference() is not None]
    for reference in references:
        reference().made = made
    _on_class(type(made), _MADE_FROM)[id(made)] = [*references, weakref.ref(entry)]


def _on_class(cls: type, name: str) -> dict[int, Any]:
    if name not in vars(cls):
        type.__setattr__(cls, name, {})
    found: dict[int, Any] = vars(cls)[name]
    return found


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
