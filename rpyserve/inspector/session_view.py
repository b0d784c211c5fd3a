"""What a session holds, as a list of leaves, and what is different between two such lists.

Looking is no visit, brings nothing up to date, and calls nothing of the author's: no method, no
property, no ``__repr__``, nothing of a metaclass. Built-in methods are called on the built-in type,
attributes are read from slots and from ``__dict__`` by Python's own descriptors. A leaf holds
texts and numbers only, so that it keeps nothing alive.

Depth, leaves and characters are bounded: the size of a session does not matter. What lies deeper,
or comes later, is not compared, and whoever shows it can say so.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any, Final

from rpyserve.diagnostics.redaction import MASK, NO_SECRETS, Redactor, is_secret
from rpyserve.diagnostics.values import is_author_module, is_plain, safe_repr
from rpyserve.scripts.execution import Execution
from rpyserve.sessions.components import Components, Entry
from rpyserve.sessions.session import Registry, Session
from rpyserve.util.author_code import ServerObject

MOST_LEAVES: Final = 300
MAX_DEPTH: Final = 4

KINDS: Final = MappingProxyType(
    {str: "text", int: "whole number", float: "number", bool: "truth", type(None): "None"}
)
"""The plain values that can be changed, and what they are called."""

LONGEST_CHANGED: Final = 1000
"""How many characters, or bits, a value may have that can be changed."""

Putter = Callable[[Any], object]
"""Puts another value in the place of one."""

MOST_OF_ONE: Final = 100
"""How many items of one container, or attributes of one object, are looked at."""

GONE: Final = "gone with the request: its script does not call cache()"
"""What is said of a component that an uncached script has made."""

_SEQUENCES: Final = (list, tuple, deque)
_SETS: Final = (set, frozenset)
_OWN: Final = frozenset(
    (*Components.__slots__, *Session.__slots__, *Registry.__slots__, "_counterpart")
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value, however deep in a session.

    Args:
        path: where it lies, as the author writes that: ``session["cart"][0].name``.
        shown: what it is, as a short text.
        mark: differs if the value differs, even where `shown` does not.
        parent: the path of what it lies in; empty for what the session itself holds.
        is_node: whether it has items or attributes that are leaves of their own.
        note: what is to be said of it, such as `GONE`.
        kind: one of `KINDS` if another value of that kind could be put there; else empty.
    """

    path: str
    shown: str
    mark: object = field(repr=False)
    parent: str = ""
    is_node: bool = False
    note: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a session holds at a time.

    Args:
        leaves: the values, the shallow ones first.
        cut: the paths of what was not looked into as a whole.
        is_exhausted: whether there are more leaves than these.
    """

    leaves: tuple[Leaf, ...] = ()
    cut: frozenset[str] = frozenset()
    is_exhausted: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether this is all that the session holds."""
        return not (self.cut or self.is_exhausted)

    def knows(self, leaf: Leaf) -> bool:
        """Whether it would have *leaf*, of other contents, if that were there."""
        return not self.is_exhausted and leaf.parent not in self.cut


@dataclass(frozen=True, slots=True)
class Change:
    """What is different at one place.

    Args:
        path: where.
        was: what was there; None if nothing was.
        now: what is there; None if nothing is.
        note: what is to be said of it.
    """

    path: str
    was: str | None
    now: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a request has changed in its session.

    Args:
        items: the changes, in the order of the session.
        alone: whether no other request of the same session was answered meanwhile, which would have
            a part in them.
        is_whole: whether all that the session holds was compared.
    """

    items: tuple[Change, ...] = ()
    alone: bool = True
    is_whole: bool = True


def contents_of(
    session: Components, executions: Iterable[Execution] = (), redactor: Redactor = NO_SECRETS
) -> Contents:
    """Return what *session*, or the registry, holds. This is no access.

    Args:
        executions: those of uncached scripts, whose components count, too.
        redactor: hides texts that are secret under any name.
    """
    return _Walk(redactor).walk(_roots(session, executions))


def place_of(
    session: Components, path: str, redactor: Redactor = NO_SECRETS
) -> tuple[Leaf, Putter] | None:
    """Return the value of *session* at *path*, and what puts another one there.

    Returns:
        None if there is no such place, or more than one that is written so, or nothing can be put
        there.
    """
    painter = _Walk(redactor)
    leaves = painter.walk(_roots(session, ())).leaves
    found = [leaf for leaf in leaves if leaf.path == path]
    putters = painter.putters.get(path, [])
    if len(found) != 1 or putters[0] is None:
        return None
    return found[0], putters[0]


def differences(before: Contents, after: Contents) -> tuple[Change, ...]:
    """Return what is different between the contents of one session at two times."""
    was = {leaf.path: leaf for leaf in before.leaves}
    now = {leaf.path: leaf for leaf in after.leaves}
    gone = [leaf for path, leaf in was.items() if path not in now and after.knows(leaf)]
    found = [
        Change(leaf.path, old.shown if old else None, leaf.shown, leaf.note)
        for path, leaf in now.items()
        if _is_change(old := was.get(path), leaf, before)
    ]
    return (*found, *(Change(leaf.path, leaf.shown, None, leaf.note) for leaf in gone))


def _is_change(was: Leaf | None, now: Leaf, before: Contents) -> bool:
    return before.knows(now) if was is None else was.mark != now.mark


# Where it begins


@dataclass(frozen=True, slots=True)
class _Place:
    """A value that is to be looked at."""

    path: str
    name: object
    value: Any
    depth: int = 1
    note: str = ""
    parent: str = ""
    put: Putter | None = None


def _roots(session: Components, executions: Iterable[Execution]) -> Iterator[_Place]:
    holder = "registry" if isinstance(session, Registry) else "session"
    values = session._values or {}
    for key, value in _items_of(values):
        yield _Place(f"{holder}[{_key(key)}]", key, value, put=_putter_of_item(values, key))
    for key, entry in _items_of(session._components or {}):
        yield _Place(interface_name(key, entry), "", entry.component)
    for execution in executions:
        for entry in list(execution.components.values()):
            if entry.holder is session:
                yield _Place(interface_name(0, entry), "", entry.component, note=GONE)
    for name, value, put in _places_of(session):
        if name not in _OWN:
            yield _Place(f"{holder}.{name}", name, value, put=put)


def _key(key: Any) -> str:
    return safe_repr(key)[:60] if is_plain(type(key)) else f"<{class_name(type(key))}>"


def interface_name(key: Any, entry: Entry) -> str:
    """Return what the interface of a component is called: its target, or its key, says so."""
    if entry.target is None and type(key) is tuple:
        _, name, number, *_ = key
        return f"{name}#{number + 1}" if number > 0 else str(name)
    if issubclass(type(entry.target), type):
        return class_name(entry.target)
    name = object.__getattribute__(entry.target, "__name__")
    return name if type(name) is str else class_name(type(entry.target))


# The walk


class _Walk:
    """Makes the leaves: the shallow ones first, as one long list must not hide all others."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._leaves: list[Leaf] = []
        self._cut: set[str] = set()
        self._seen: set[int] = set()
        self.putters: dict[str, list[Putter | None]] = {}
        self._queue: deque[_Place] = deque()

    def walk(self, roots: Iterable[_Place]) -> Contents:
        self._queue += roots
        while self._queue and len(self._leaves) < MOST_LEAVES:
            place = self._queue.popleft()
            try:
                self._look(place)
            except Exception as exc:  # such as a dict that a thread changes
                shown = f"<{class_name(type(place.value))}, {type(exc).__name__}>"
                self._leaf(place, shown, shown)
        return Contents(tuple(self._leaves), frozenset(self._cut), bool(self._queue))

    def _leaf(self, place: _Place, shown: str, mark: object, *, is_node: bool = False) -> None:
        path = self._redactor.redact(place.path)
        kind = _kind_to_change(place, shown)
        self._leaves.append(Leaf(path, shown, mark, place.parent, is_node, place.note, kind))
        self.putters.setdefault(path, []).append(place.put)

    def _look(self, place: _Place) -> None:
        value, kind = place.value, type(place.value)
        if is_secret(place.name) and value is not None:
            self._leaf(place, MASK, (class_name(kind), _fingerprint(value)))
        elif issubclass(kind, enum.Enum):
            shown = f"{class_name(kind)}.{_dict_of(value).get('_name_')}"
            self._leaf(place, shown, shown)
        elif is_plain(kind):
            shown = safe_repr(value, "", self._redactor)
            self._leaf(place, shown, (class_name(kind), shown, _fingerprint(value)))
        elif issubclass(kind, (ServerObject, type)) or not _can_be_entered(kind):
            self._leaf(place, f"<{class_name(kind)}>", id(value))
        else:
            self._look_into(place, kind)

    def _look_into(self, place: _Place, kind: type) -> None:
        count, children = _children_of(place.value, kind)
        node = _node(kind, count)
        is_end = place.depth >= MAX_DEPTH or id(place.value) in self._seen
        self._leaf(place, node, node, is_node=not is_end)
        self._seen.add(id(place.value))
        if count > (0 if place.depth >= MAX_DEPTH else MOST_OF_ONE):
            self._cut.add(place.path)
        if not is_end:
            self._queue += (
                _Place(place.path + path, name, value, place.depth + 1, place.note, place.path, put)
                for path, name, value, put in islice(children, MOST_OF_ONE)
            )


def _can_be_entered(kind: type) -> bool:
    return issubclass(kind, (dict, *_SEQUENCES, *_SETS)) or _is_authors(kind)


def _node(kind: type, count: int) -> str:
    """What is shown of a container or an object, whose items follow."""
    if not issubclass(kind, (dict, *_SEQUENCES, *_SETS)):
        return f"<{class_name(kind)}>"
    return f"{class_name(kind)} of {count:,}" if count else f"empty {class_name(kind)}"


def _children_of(value: Any, kind: type) -> tuple[int, Iterable[_Child]]:
    """How many items or attributes a value has, and the first of them."""
    if issubclass(kind, dict):
        return dict.__len__(value), [
            (f"[{_key(key)}]", key, item, _putter_of_item(value, key))
            for key, item in _items_of(value)
        ]
    for base in (*_SEQUENCES, *_SETS):
        if issubclass(kind, base):
            each: Any = base
            found = list(islice(each.__iter__(value), MOST_OF_ONE))
            if base in _SETS:
                of_set = [(f"{{{_key(item)}}}", "", item, None) for item in found]
                return each.__len__(value), of_set
            return each.__len__(value), [
                (f"[{n}]", "", item, partial(list.__setitem__, value, n) if base is list else None)
                for n, item in enumerate(found)
            ]
    attributes = list(_places_of(value))
    return len(attributes), [(f".{name}", name, item, put) for name, item, put in attributes]


_Child = tuple[str, object, Any, Putter | None]
"""The end of its path, its name, its value, and what puts another value in its place, if any."""


def _putter_of_item(mapping: dict[Any, Any], key: Any) -> Putter | None:
    """What changes an item; None if an author's key would be asked whether it is that key."""
    is_ours = type(key) is bytes or _kind_of(key)
    return partial(dict.__setitem__, mapping, key) if is_ours else None


def _kind_of(value: Any) -> str:
    """What kind of plain value it is; empty if it is none. A metaclass may have any ``__eq__``."""
    return next((name for kind, name in KINDS.items() if kind is type(value)), "")


def _kind_to_change(place: _Place, shown: str) -> str:
    """What kind of value can be put there instead; empty if that is none, or not known whole."""
    value = place.value
    kind = _kind_of(value)
    if place.put is None or place.note or not kind:
        return ""
    size = len(value) if type(value) is str else value.bit_length() if type(value) is int else 0
    is_whole = size <= LONGEST_CHANGED and shown == repr(value)
    return kind if is_whole else ""


def _items_of(mapping: dict[Any, Any]) -> list[tuple[Any, Any]]:
    return list(islice(dict.items(mapping), MOST_LEAVES + 1))


def _fingerprint(value: Any) -> object:
    """Tells a value from others of its class, however long it is."""
    for base in (str, bytes, int):
        if issubclass(type(value), base):
            each: Any = base
            return each.__hash__(value)
    return hash(safe_repr(value))


# Classes and attributes, without any code of the author's

_dict_slot: Final[Any] = type.__dict__["__dict__"]
_mro_slot: Final[Any] = type.__dict__["__mro__"]
_name_slot: Final[Any] = type.__dict__["__name__"]


def class_name(kind: type) -> str:
    """Return the name of a class, whatever its metaclass makes of it."""
    return str.__str__(_name_slot.__get__(kind))


def attributes_of(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values that *thing* holds, in its ``__dict__`` and in slots."""
    for name, value, _ in _places_of(thing):
        yield name, value


def _places_of(thing: Any) -> Iterator[tuple[str, Any, Putter | None]]:
    """The same, each with what puts another value there: no property, and no ``__setattr__``."""
    attributes = _dict_of(thing)
    for name, value in _items_of(attributes):
        yield name, value, _putter_of_item(attributes, name)
    for base in _mro_slot.__get__(type(thing)):
        for name, member in list(_dict_slot.__get__(base).items()):
            if type(member) is MemberDescriptorType:
                try:
                    yield name, member.__get__(thing), partial(member.__set__, thing)
                except AttributeError:  # it is empty
                    continue


def _dict_of(thing: Any) -> dict[str, Any]:
    for base in _mro_slot.__get__(type(thing)):
        member = _dict_slot.__get__(base).get("__dict__")
        if type(member) is GetSetDescriptorType:
            found = member.__get__(thing)
            return found if type(found) is dict else {}
    return {}


def _is_authors(kind: type) -> bool:
    module = _dict_slot.__get__(kind).get("__module__")
    return issubclass(type(module), str) and is_author_module(module)
