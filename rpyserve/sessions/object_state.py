"""What an edited constructor would set and an object from before the edit lacks.

Whether anything is lacking is read from the code of the classes, so that a constructor, which may do more than set
attributes, is called only when an edit has added one. What is lacking comes from the defaults of a dataclass, else
from one freshly made object. What the object has is kept, and so is what its class provides.

Knows nothing of sessions.

The attributes that an object has itself, in its ``__dict__`` and its slots, whatever its class makes of them.

No ``__getattr__``, ``__setattr__`` or property of a user is ever called, so that looking has no effect, and what is
frozen can be changed. What the class provides is seen too, but never as the object's own.
"""

from __future__ import annotations

import dataclasses
import dis
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MemberDescriptorType
from typing import Any, Final
from weakref import WeakKeyDictionary

from rpyserve.scripts.execution import ExecutionName

__all__ = [
    "add_missing_attributes",
    "added",
    "assigned",
    "assigned_by",
    "attributes",
    "construct_like",
    "from_defaults",
    "has",
    "lacking",
    "record_missing",
    "set_attribute",
]


def attributes(thing: Any) -> dict[str, Any]:
    """The attributes that *thing* has itself, in its ``__dict__`` and its slots, by name."""
    found = dict(_dict_of(thing))
    for name, slot in _slots_of(type(thing)):
        try:
            found[name] = slot.__get__(thing)
        except AttributeError:
            continue
    return found


def has(thing: Any, name: str) -> bool:
    """Whether *thing* or its class has an attribute *name*, without asking for it."""
    if name in _dict_of(thing):
        return True
    for slot_name, slot in _slots_of(type(thing)):
        if slot_name == name:
            try:
                slot.__get__(thing)
            except AttributeError:
                return False
    return any(name in vars(base) for base in type(thing).__mro__)


def set_attribute(thing: Any, name: str, value: Any) -> None:
    """Set an attribute, also of what is frozen.

    Raises:
        AttributeError: it has no room for it.
    """
    for slot_name, slot in _slots_of(type(thing)):
        if slot_name == name:
            slot.__set__(thing, value)
            return
    if not type(thing).__dictoffset__:
        raise AttributeError(name)
    _dict_of(thing)[name] = value


def _dict_of(thing: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def _slots_of(kind: type) -> Iterator[tuple[str, Any]]:
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            for name, value in vars(base).items():
                if type(value) is MemberDescriptorType:
                    yield name, value


_CONSTRUCTORS: Final = ("__new__", "__init__", "__post_init__")
_UNREADABLE: Final = frozenset({"setattr", "vars", "__dict__", "__setattr__"})

_assigned: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()
"""What was read from the code of a class, for the next of its objects."""
_owed: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()
"""What objects of a class lack because it could not be made, for the next edit, which may mend that."""


def added(kind: type, old: type) -> frozenset[str]:
    """The attributes that objects of *kind* may lack which were made as an *old*."""
    return (assigned(kind) - assigned(old)) | _owed.get(old, frozenset())


def record_missing(kind: type, names: frozenset[str]) -> None:
    """Note that objects of *kind* go on lacking *names*."""
    _owed[kind] = _owed.get(kind, frozenset()) | names


def assigned(kind: type) -> frozenset[str]:
    """The attributes that constructing a *kind* sets, by what the site's own code of it says.

    Code that sets attributes whose names cannot be read off counts as one of its own, with a name that is none: if it
    was edited, it may set others now.
    """
    known = _assigned.get(kind)
    if known is None:
        known = _assigned[kind] = _find_assigned(kind)
    return known


def _find_assigned(kind: type) -> frozenset[str]:
    codes = _codes_of(kind)
    names: set[str] = set()
    todo, seen = list(_CONSTRUCTORS), set(_CONSTRUCTORS)
    while todo:
        for code in codes.get(todo.pop(), ()):
            names.update(assigned_in(code))
            called = {name for name in code.co_names if name in codes} - seen
            seen |= called
            todo += called
    return frozenset(names)


def assigned_by(factory: Any) -> frozenset[str]:
    """The attributes that *factory* sets, if it is a function of the site."""
    if not isinstance(factory, FunctionType) or not isinstance(factory.__module__, ExecutionName):
        return frozenset()
    return frozenset(assigned_in(factory.__code__))


def assigned_in(code: CodeType) -> Iterator[str]:
    """The attributes that *code* sets, on whatever object."""
    for each in dis.get_instructions(code):
        if each.opname == "STORE_ATTR":
            yield str(each.argval)
    if _UNREADABLE.intersection(code.co_names):
        yield f"*{[const for const in code.co_consts if not isinstance(const, CodeType)]}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from assigned_in(const)


def lacking(thing: Any, names: frozenset[str]) -> frozenset[str]:
    """Those of *names* that neither *thing* nor its class has."""
    return frozenset(name for name in names if not has(thing, name))


def from_defaults(thing: Any) -> list[str]:
    """Give *thing*, if it is of a dataclass, the fields that it lacks and that have a default. Returns their names.

    Raises:
        Exception: whatever a ``default_factory`` raises.
    """
    filled = []
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
        if not has(thing, field.name) and field.default_factory is not dataclasses.MISSING:
            set_attribute(thing, field.name, field.default_factory())
            filled.append(field.name)
    return filled


def add_missing_attributes(thing: Any, make: Callable[[], Any]) -> list[str]:
    """Give *thing* the attributes that it lacks and that a new one has, which *make* makes. Returns their names.

    Raises:
        Exception: whatever *make* raises; TypeError if it makes something else.
    """
    fresh = make()
    if type(fresh) is not type(thing):
        raise TypeError(f"a new one is of the class {type(fresh).__name__}")
    filled = []
    for name, value in attributes(fresh).items():
        if not has(thing, name):
            set_attribute(thing, name, value)
            filled.append(name)
    return filled


def construct_like(thing: Any) -> Any:
    """Return a new object of the class of *thing*; what its constructor must be given is what *thing* has of that name.

    Raises:
        TypeError: *thing* has nothing under the name of a parameter that must be given.
        Exception: whatever the constructor raises.
    """
    kind: Any = type(thing)
    arguments: list[Any] = []
    named: dict[str, Any] = {}
    known = attributes(thing)
    for each in inspect.signature(kind).parameters.values():
        if each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if each.name not in known:
            raise TypeError(
                f"its constructor wants {each.name}, and it has no attribute of that name"
            )
        if each.kind is each.KEYWORD_ONLY:
            named[each.name] = known[each.name]
        else:
            arguments.append(known[each.name])
    return kind(*arguments, **named)


def _codes_of(kind: type) -> dict[str, list[CodeType]]:
    """The code of the functions and properties, by name, in those classes of *kind* that the site defines."""
    found: dict[str, list[CodeType]] = {}
    for base in kind.__mro__:
        if isinstance(base.__module__, ExecutionName):
            for name, value in vars(base).items():
                found.setdefault(name, []).extend(_codes_in(value))
    return {name: codes for name, codes in found.items() if codes}


def _codes_in(value: Any) -> Iterator[CodeType]:
    parts = (value.fget, value.fset) if isinstance(value, property) else (value,)
    part: Any
    for part in parts:
        function = (
            inspect.unwrap(getattr(part, "__func__", part))
            if callable(part) or hasattr(part, "__func__")
            else None
        )
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code
