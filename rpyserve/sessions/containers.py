"""What an object holds, and how that is replaced by something else.

There is one `ContainerType` for each class of objects: builtin containers and their subclasses,
`functools.partial`, exceptions, bound methods, and whatever has attributes. An object that can be
changed keeps its identity. One that cannot (a tuple, a frozenset) must be rebuilt.

Of an author's code only ``__hash__`` and ``__eq__`` of keys are called, and they may raise;
``__getattr__``, ``__setattr__``, ``__iter__`` and ``__setitem__`` never are. Weak references,
modules, generators and what belongs to the server are left alone.

Knows nothing of executions and of edits.
"""

from __future__ import annotations

import gc
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, MethodType, ModuleType
from typing import Any, Final

from rpyserve.sessions.object_state import attributes, set_attribute
from rpyserve.util.server_object import ServerObject

Replace = Callable[[Any], Any]
"""Returns the replacement of an object; the object itself where there is none."""

ReadContents = Callable[[Any], Iterable[Any]]
ReplaceContents = Callable[[Any, Replace], None]

ATOMS: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        range,
        slice,
        type(...),
        type(NotImplemented),
    }
)
"""Classes of objects that hold nothing."""

# Packages whose objects are left alone, apart from the builtin containers.
_FOREIGN: Final = frozenset(
    {"trio", "zope", "logging", "threading", "weakref", "_weakrefset", "builtins"}
)

# Of ``type.__flags__``: made by a ``class`` statement, not written in C.
_HEAP_TYPE: Final = 1 << 9


@dataclass(frozen=True, slots=True)
class ContainerType:
    """How the objects of one class are read and changed.

    Args:
        read_contents: returns what an object holds, its attributes apart.
        replace_contents: puts replacements in, in place. None: the object must be rebuilt instead.
        has_attributes: whether it has attributes, which may hold something, too.
    """

    read_contents: ReadContents
    replace_contents: ReplaceContents | None
    has_attributes: bool

    @property
    def is_immutable(self) -> bool:
        """Whether objects must be rebuilt to hold something else."""
        return self.replace_contents is None

    def children(self, thing: Any) -> list[Any]:
        """Return all that *thing* holds and that may hold something in its turn."""
        held = [*self.read_contents(thing)]
        if self.has_attributes:
            held += attributes(thing).values()
        return [child for child in held if type(child) not in ATOMS]

    def replace_children(self, thing: Any, replace: Replace) -> None:
        """Replace in *thing*, in place, what it holds."""
        if self.has_attributes:
            for name, value in attributes(thing).items():
                replacement = replace(value)
                if replacement is not value:
                    set_attribute(thing, name, replacement)
        if self.replace_contents is not None:
            self.replace_contents(thing, replace)


def container_type_of(cls: type) -> ContainerType | None:
    """Return how objects of *cls* are read and changed; None if they are not looked into."""
    if cls in ATOMS or _is_left_alone(cls):
        return None
    has_attributes = bool(cls.__flags__ & _HEAP_TYPE) or cls.__dictoffset__ != 0
    for base, (read, replace) in _CONTENTS.items():
        if issubclass(cls, base):
            return ContainerType(read, replace, has_attributes and cls is not MethodType)
    return ContainerType(_read_nothing, _replace_nothing, True) if has_attributes else None


def _is_left_alone(cls: type) -> bool:
    if issubclass(cls, (ServerObject, ModuleType)):
        return True
    package = str(cls.__module__).partition(".")[0]
    if package == "builtins":
        return not issubclass(cls, tuple(_CONTENTS))
    return package in _FOREIGN


# What must be rebuilt


def rebuild(thing: Any, cls: type, replace: Replace) -> Any:
    """Return an object of *cls* that holds what *thing* holds, or the replacements of that.

    Raises:
        TypeError: there can be none; the message says why.
    """
    if isinstance(thing, MethodType):
        return MethodType(replace(thing.__func__), replace(thing.__self__))
    base: Any = next((base for base in _IMMUTABLE if isinstance(thing, base)), None)
    if base is None or not issubclass(cls, base):
        raise TypeError("its __slots__ or its base classes differ")
    plain_value = _IMMUTABLE[base](thing)
    if base in (tuple, frozenset):
        plain_value = [replace(item) for item in plain_value]
    if base is tuple and hasattr(type(thing), "_fields") and hasattr(cls, "_fields"):
        by_name = dict(zip(type(thing)._fields, plain_value, strict=False))
        plain_value = _in_field_order(by_name, cls)
    rebuilt = base.__new__(cls, plain_value)
    if type(thing).__dictoffset__ and cls.__dictoffset__:
        rebuilt.__dict__.update(thing.__dict__)
    return rebuilt


# How the plain value of an instance of a subclass is read.
_IMMUTABLE: Final[dict[type, Callable[[Any], Any]]] = {
    tuple: tuple.__iter__,
    frozenset: frozenset.__iter__,
    int: int.__int__,
    bytes: lambda thing: bytes.__getitem__(thing, slice(None)),
}


def _in_field_order(values: dict[str, Any], named_tuple: Any) -> list[Any]:
    """The values in the order of the fields of *named_tuple*; its defaults where there is none."""
    values = named_tuple._field_defaults | values
    missing = [name for name in named_tuple._fields if name not in values]
    if missing:
        raise TypeError(f"there is no value for its field {missing[0]}; give that a default")
    return [values[name] for name in named_tuple._fields]


# The contents of each class of objects


def _read_nothing(thing: Any) -> tuple[()]:
    return ()


def _replace_nothing(thing: Any, replace: Replace) -> None:
    pass


def _read_dict(thing: dict[Any, Any]) -> Iterator[Any]:
    if isinstance(thing, defaultdict):
        yield thing.default_factory
    for pair in tuple(dict.items(thing)):
        yield from pair


def _replace_in_dict(thing: dict[Any, Any], replace: Replace) -> None:
    base: Any = OrderedDict if isinstance(thing, OrderedDict) else dict
    if isinstance(thing, defaultdict):
        thing.default_factory = replace(thing.default_factory)
    pairs = tuple(dict.items(thing))
    if all(type(key) in ATOMS for key, _ in pairs):
        for key, value in pairs:
            replacement = replace(value)
            if replacement is not value:
                base.__setitem__(thing, key, replacement)
        return
    # A key may have become another one, or have another hash now.
    replaced = {replace(key): replace(value) for key, value in pairs}
    base.clear(thing)
    for key, value in replaced.items():
        base.__setitem__(thing, key, value)


def _read_list(thing: list[Any]) -> tuple[Any, ...]:
    return tuple(list.__iter__(thing))


def _replace_in_list(thing: list[Any], replace: Replace) -> None:
    for index, value in enumerate(list.__iter__(thing)):
        replacement = replace(value)
        if replacement is not value:
            list.__setitem__(thing, index, replacement)


def _read_deque(thing: deque[Any]) -> tuple[Any, ...]:
    return tuple(deque.__iter__(thing))


def _replace_in_deque(thing: deque[Any], replace: Replace) -> None:
    before = _read_deque(thing)
    after = [replace(value) for value in before]
    if any(new is not old for new, old in zip(after, before, strict=True)):
        deque.clear(thing)
        deque.extend(thing, after)


def _read_set(thing: set[Any]) -> tuple[Any, ...]:
    return tuple(set.__iter__(thing))


def _replace_in_set(thing: set[Any], replace: Replace) -> None:
    before = _read_set(thing)
    if all(type(value) in ATOMS for value in before):
        return
    replaced = {replace(value) for value in before}
    set.clear(thing)
    set.update(thing, replaced)


def _read_partial(thing: partial[Any]) -> tuple[Any, ...]:
    return thing.func, thing.args, thing.keywords


def _replace_in_partial(thing: partial[Any], replace: Replace) -> None:
    func, args = replace(thing.func), replace(thing.args)
    if func is not thing.func or args is not thing.args:
        state = func, args, thing.keywords, thing.__dict__
        thing.__setstate__(state)  # type: ignore[attr-defined]


def _read_exception(thing: BaseException) -> tuple[Any, ...]:
    return (thing.args,)


def _replace_in_exception(thing: BaseException, replace: Replace) -> None:
    args = replace(thing.args)
    if args is not thing.args:
        thing.args = args


def _read_method(thing: MethodType) -> tuple[Any, ...]:
    return thing.__func__, thing.__self__


# How contents are read, and how they are replaced in place; None where the object is rebuilt.
_CONTENTS: Final[dict[type, tuple[ReadContents, ReplaceContents | None]]] = {
    dict: (_read_dict, _replace_in_dict),
    list: (_read_list, _replace_in_list),
    tuple: (tuple.__iter__, None),
    set: (_read_set, _replace_in_set),
    frozenset: (frozenset.__iter__, None),
    deque: (_read_deque, _replace_in_deque),
    int: (_read_nothing, None),
    bytes: (_read_nothing, None),
    MethodType: (_read_method, None),
    MappingProxyType: (gc.get_referents, _replace_nothing),
    partial: (_read_partial, _replace_in_partial),
    BaseException: (_read_exception, _replace_in_exception),
}
