"""The attributes that an object has itself, and those that it lacks after an edit of its class.

An object has attributes in its ``__dict__`` and its slots. They are read and set without any
``__getattr__``, ``__setattr__`` or property of its class, so that looking has no effect, and what
is frozen can be changed. What the class provides counts as present, but never as the object's own.

Whether an object lacks anything is read from the code of its old class and its new one: only what a
constructor sets now, and did not set before, can be missing. So a constructor, which may do more
than set attributes, is called only when an edit has added one. Missing attributes come from the
defaults of a dataclass, else from a freshly constructed object. What an object has is never
replaced.

Knows nothing of sessions.
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

# Attributes that there are


def attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes that *thing* has itself, by name."""
    found = dict(_dict_of(thing))
    for name, slot in _slots_of(type(thing)):
        try:
            found[name] = slot.__get__(thing)
        except AttributeError:  # it is empty
            continue
    return found


def has_attribute(thing: Any, name: str) -> bool:
    """Whether *thing* or its class has an attribute *name*."""
    if name in _dict_of(thing):
        return True
    slot = _slot_of(type(thing), name)
    if slot is None:
        return any(name in vars(base) for base in type(thing).__mro__)
    try:
        slot.__get__(thing)
    except AttributeError:  # it is empty
        return False
    return True


def set_attribute(thing: Any, name: str, value: Any) -> None:
    """Set an attribute, also of an object that is frozen.

    Raises:
        AttributeError: it has no room for it.
    """
    slot = _slot_of(type(thing), name)
    if slot is not None:
        slot.__set__(thing, value)
    elif type(thing).__dictoffset__:
        _dict_of(thing)[name] = value
    else:
        raise AttributeError(name)


def _dict_of(thing: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def _slots_of(cls: type) -> Iterator[tuple[str, Any]]:
    for base in cls.__mro__:
        if "__slots__" in vars(base):
            for name, value in vars(base).items():
                if type(value) is MemberDescriptorType:
                    yield name, value


def _slot_of(cls: type, name: str) -> Any:
    return next((slot for slot_name, slot in _slots_of(cls) if slot_name == name), None)


# Attributes that are missing

_CONSTRUCTORS: Final = ("__new__", "__init__", "__post_init__")

# Names in code that sets attributes whose names cannot be read off.
_UNREADABLE: Final = frozenset({"setattr", "vars", "__dict__", "__setattr__"})

# What was read from the code of each class, for the next of its objects.
_assigned: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()

# What objects of each class go on lacking. The next edit may mend what stood in the way.
_still_missing: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def added_attributes(new_class: type, old_class: type) -> frozenset[str]:
    """The attributes that an object of *new_class* may lack if it was made as an *old_class*."""
    added = assigned_by_class(new_class) - assigned_by_class(old_class)
    return added | _still_missing.get(old_class, frozenset())


def record_missing(cls: type, names: frozenset[str]) -> None:
    """Note that objects of *cls* go on lacking *names*."""
    _still_missing[cls] = _still_missing.get(cls, frozenset()) | names


def missing_of(thing: Any, names: frozenset[str]) -> frozenset[str]:
    """Those of *names* that neither *thing* nor its class has."""
    return frozenset(name for name in names if not has_attribute(thing, name))


def add_default_fields(thing: Any) -> list[str]:
    """Give *thing* the fields of a dataclass that it lacks and that have a ``default_factory``.

    Returns:
        Their names. A plain default needs no adding: the class has it.

    Raises:
        Exception: whatever a ``default_factory`` raises.
    """
    added = []
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
        make = field.default_factory
        if make is not dataclasses.MISSING and not has_attribute(thing, field.name):
            set_attribute(thing, field.name, make())
            added.append(field.name)
    return added


def add_missing_attributes(thing: Any, make: Callable[[], Any]) -> list[str]:
    """Give *thing* the attributes that it lacks and that a new object has.

    Args:
        make: makes the new object.

    Returns:
        Their names.

    Raises:
        Exception: whatever *make* raises; TypeError if it makes something else.
    """
    fresh = make()
    if type(fresh) is not type(thing):
        raise TypeError(f"a new one is of the class {type(fresh).__name__}")
    added = []
    for name, value in attributes(fresh).items():
        if not has_attribute(thing, name):
            set_attribute(thing, name, value)
            added.append(name)
    return added


def construct_like(thing: Any) -> Any:
    """Return a new object of the class of *thing*.

    What its constructor must be given is what *thing* has under the names of the parameters.

    Raises:
        TypeError: *thing* has nothing under the name of a parameter that must be given.
        Exception: whatever the constructor raises.
    """
    cls: Any = type(thing)
    known = attributes(thing)
    positional: list[Any] = []
    by_keyword: dict[str, Any] = {}
    for parameter in inspect.signature(cls).parameters.values():
        if not _is_required(parameter):
            continue
        name = parameter.name
        if name not in known:
            raise TypeError(f"its constructor wants {name}, and it has no attribute of that name")
        if parameter.kind is parameter.KEYWORD_ONLY:
            by_keyword[name] = known[name]
        else:
            positional.append(known[name])
    return cls(*positional, **by_keyword)


def _is_required(parameter: inspect.Parameter) -> bool:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is parameter.empty


# What code assigns


def assigned_by_class(cls: type) -> frozenset[str]:
    """The attributes that constructing a *cls* sets, by what the site's own code of it says.

    Code that sets attributes whose names cannot be read off counts as one of its own, with a name
    that is none: if it was edited, it may set others now.
    """
    names = _assigned.get(cls)
    if names is None:
        names = _assigned[cls] = _find_assigned(cls)
    return names


def assigned_by_function(function: Any) -> frozenset[str]:
    """The attributes that *function* sets, if it is a function of the site."""
    if isinstance(function, FunctionType) and isinstance(function.__module__, ExecutionName):
        return frozenset(_assigned_in(function.__code__))
    return frozenset()


def _find_assigned(cls: type) -> frozenset[str]:
    codes = _codes_of(cls)
    names: set[str] = set()
    # The constructors, and the methods and properties that are named in code looked at before.
    queue, seen = list(_CONSTRUCTORS), set(_CONSTRUCTORS)
    while queue:
        for code in codes.get(queue.pop(), ()):
            names.update(_assigned_in(code))
            called = codes.keys() & (set(code.co_names) - seen)
            seen |= called
            queue += called
    return frozenset(names)


def _assigned_in(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_ATTR":
            yield str(instruction.argval)
    if _UNREADABLE.intersection(code.co_names):
        plain = [const for const in code.co_consts if not isinstance(const, CodeType)]
        yield f"*{plain}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _assigned_in(const)


def _codes_of(cls: type) -> dict[str, list[CodeType]]:
    """The code of functions and properties, by name, as far as the site defines the classes."""
    found: dict[str, list[CodeType]] = {}
    for base in cls.__mro__:
        if isinstance(base.__module__, ExecutionName):
            for name, value in vars(base).items():
                codes = list(_codes_in(value))
                if codes:
                    found.setdefault(name, []).extend(codes)
    return found


def _codes_in(value: Any) -> Iterator[CodeType]:
    functions = (value.fget, value.fset) if isinstance(value, property) else (value,)
    function: Any
    for function in functions:
        function = getattr(function, "__func__", function)  # of a classmethod
        if callable(function):
            function = inspect.unwrap(function)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code
