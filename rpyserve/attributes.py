"""The attributes that an object has itself, in its ``__dict__`` and its slots, whatever its class makes of them.

No ``__getattr__``, ``__setattr__`` or property of a user is ever called, so that looking has no effect, and what is
frozen can be changed. What the class provides is seen too, but never as the object's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MemberDescriptorType
from typing import Any

__all__ = ["attributes", "has", "set_attribute"]


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
