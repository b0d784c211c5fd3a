"""What an object holds, and how that is replaced by something else.

There is one `ContainerType` for each class of objects: builtin containers and their subclasses,
`functools.partial`, exceptions, bound methods, functions with what they close over, iterators,
collections of weak references, arrays of objects, and whatever has attributes. An object that can
be changed keeps its identity. One that cannot (a tuple, a frozenset) must be rebuilt. `remake`
makes an object of another class from an object's state, where Python cannot change its class.

A container changes only if something that it holds is replaced, or has another hash than before, so
that whoever goes through it meanwhile is disturbed as little as can be.

Of an author's code only ``__hash__`` and ``__eq__`` of keys are called, and they may raise;
``__getattr__``, ``__setattr__``, ``__iter__`` and ``__setitem__`` never are. Plain weak references,
modules and what belongs to the server are left alone.

Knows nothing of executions and of edits.
"""

from __future__ import annotations

import functools
import gc
import itertools
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import (
    AsyncGeneratorType,
    CellType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from zope.interface.interface import InterfaceClass

from rpyserve.sessions.object_state import STATE, attributes, class_value, set_attribute
from rpyserve.util.author_code import ServerObject

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

LEAF_CLASSES: Final = (type, FunctionType, InterfaceClass, type(functools.lru_cache(int)), Enum)
"""Classes of objects that a script defines by name, and that are exchanged as a whole."""

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
        replace_contents: puts replacements in, in place, keys of dicts and members of sets apart.
            None: the object must be rebuilt instead.
        has_attributes: whether it has attributes, which may hold something, too.
        read_keys: returns what an object finds by its hash.
        replace_keys: puts everything in anew, for keys that are replaced or have another hash.
    """

    read_contents: ReadContents
    replace_contents: ReplaceContents | None
    has_attributes: bool
    read_keys: ReadContents | None = None
    replace_keys: ReplaceContents | None = None

    @property
    def is_immutable(self) -> bool:
        """Whether objects must be rebuilt to hold something else."""
        return self.replace_contents is None

    @property
    def has_only_attributes(self) -> bool:
        """Whether it is neither a container nor something that must be rebuilt."""
        is_container = self.read_contents is not _read_nothing or self.read_keys is not None
        return self.has_attributes and not is_container and not self.is_immutable

    @property
    def is_closed(self) -> bool:
        """Whether what it holds can neither be exchanged in it nor in another one."""
        reads_something = self.read_contents is not _read_nothing and self.read_keys is None
        return reads_something and self.replace_contents is _replace_nothing

    def children(self, thing: Any) -> Sequence[Any]:
        """Return all that *thing* holds."""
        return (*self.keys(thing), *self.values(thing))

    def values(self, thing: Any) -> Sequence[Any]:
        """Return all that *thing* holds, its keys apart."""
        contents = self.read_contents(thing)
        if not isinstance(contents, (list, tuple)):
            contents = tuple(contents)
        return (*contents, *attributes(thing).values()) if self.has_attributes else contents

    def keys(self, thing: Any) -> list[Any]:
        """Return what *thing* finds by its hash, numbers and texts apart."""
        if self.read_keys is None:
            return []
        # There may be very many, so no copy is made where they are numbers and texts.
        is_plain = ATOMS.issuperset(map(type, self.read_keys(thing)))
        return [] if is_plain else [*self.read_keys(thing)]

    def replace_children(self, thing: Any, replace: Replace) -> None:
        """Replace in *thing*, in place, what it holds. Its keys stay."""
        if self.has_attributes:
            for name, value in attributes(thing).items():
                replacement = replace(value)
                if replacement is not value:
                    set_attribute(thing, name, replacement)
        if self.replace_contents is not None:
            self.replace_contents(thing, replace)


def opaque_type() -> ContainerType:
    """Return a type for objects that are neither looked into nor changed."""
    return ContainerType(_read_nothing, _replace_nothing, has_attributes=False)


def container_type_of(cls: type) -> ContainerType | None:
    """Return how objects of *cls* are read and changed; None if they are not looked into."""
    if cls in ATOMS or _is_left_alone(cls):
        return None
    has_attributes = bool(cls.__flags__ & _HEAP_TYPE) or cls.__dictoffset__ != 0
    if _is_array(cls):
        return ContainerType(_read_array, _replace_in_array, has_attributes)
    if str(cls.__module__).partition(".")[0] in _WRITTEN_IN_C:
        return ContainerType(gc.get_referents, _replace_nothing, has_attributes)
    for base, (read, replace) in _CONTENTS.items():
        if issubclass(cls, base):
            with_attributes = has_attributes and base not in _WITHOUT_ATTRIBUTES
            keys = next((_KEYS[each] for each in _KEYS if issubclass(cls, each)), ())
            return ContainerType(read, replace, with_attributes, *keys)
    return ContainerType(_read_nothing, _replace_nothing, True) if has_attributes else None


def _is_left_alone(cls: type) -> bool:
    if issubclass(cls, (ServerObject, ModuleType)):
        return True
    package = str(cls.__module__).partition(".")[0]
    if package == "builtins":
        return not issubclass(cls, tuple(_CONTENTS))
    return package in _FOREIGN and cls not in _CONTENTS


def dict_class(thing: dict[Any, Any]) -> Any:
    """The class whose methods change *thing*, past those of the author's class."""
    return OrderedDict if isinstance(thing, OrderedDict) else dict


def are_found(thing: Any, keys: list[Any]) -> bool:
    """Whether *thing* has the *keys* under the hashes that they have now."""
    try:
        if isinstance(thing, dict) and type(thing).__iter__ is dict.__iter__:
            # Python copies the hashes from a dict or a set, and computes those from a list.
            return set(dict.copy(thing)).issubset({*keys})
        if isinstance(thing, (set, frozenset)):
            members: Any = set if isinstance(thing, set) else frozenset
            return bool(members.issubset(thing, set(keys)))
        return all(key in thing for key in keys)
    except Exception:  # of the author's own __hash__ or __eq__
        return False


# What must be rebuilt


def rebuild(thing: Any, cls: type, replace: Replace) -> Any:
    """Return an object of *cls* that holds what *thing* holds, or the replacements of that.

    Raises:
        TypeError: there can be none; the message says why.
    """
    if type(thing) in _REFERENCES:
        return _REFERENCES[type(thing)](thing, replace)
    base: Any = next((base for base in _VALUES if isinstance(thing, base)), None)
    if base is None or not issubclass(cls, base):
        raise TypeError("its __slots__ or its base classes differ")
    rebuilt = base.__new__(cls, _VALUES[base](thing, cls, replace))
    _copy_attributes(thing, rebuilt)
    return rebuilt


_REFERENCES: Final[dict[type, Callable[[Any, Replace], Any]]] = {
    MethodType: lambda thing, replace: MethodType(replace(thing.__func__), replace(thing.__self__)),
    weakref.ref: lambda thing, replace: weakref.ref(replace(thing()), thing.__callback__),
}


def _tuple_items(thing: Any, cls: Any, replace: Replace) -> list[Any]:
    items = [replace(item) for item in tuple.__iter__(thing)]
    if not (hasattr(type(thing), "_fields") and hasattr(cls, "_fields")):
        return items
    return _in_field_order(dict(zip(type(thing)._fields, items, strict=False)), cls)


def _in_field_order(values: dict[str, Any], named_tuple: Any) -> list[Any]:
    """The values in the order of the fields of *named_tuple*; its defaults where there is none."""
    values = named_tuple._field_defaults | values
    missing = [name for name in named_tuple._fields if name not in values]
    if missing:
        raise TypeError(f"there is no value for its field {missing[0]}; give that a default")
    return [values[name] for name in named_tuple._fields]


# What ``__new__`` is given for an object of *cls* that has the value of *thing*.
_VALUES: Final[dict[type, Callable[[Any, type, Replace], Any]]] = {
    tuple: _tuple_items,
    frozenset: lambda thing, cls, replace: map(replace, frozenset.__iter__(thing)),
    int: lambda thing, cls, replace: int.__int__(thing),
    bytes: lambda thing, cls, replace: bytes.__getitem__(thing, slice(None)),
}


# What must be made again, as one of a class that Python cannot change it into


MAKE: Final = "__rpyserve_make__"
"""On an old class: a method that makes an object of a class, where there is no other way."""


def remake(thing: Any, cls: type) -> tuple[Any, list[str]]:
    """Return an object of *cls* with the state of *thing*, and attributes that it has no room for.

    No constructor of the author's is called, unless *thing* only stands for another object and
    knows what that is to be made by.

    Raises:
        TypeError: there can be none; the message says why.
    """
    make = class_value(type(thing), MAKE)
    if make is not None:
        return make(thing, cls), []
    if hasattr(cls, "__struct_fields__"):
        return _remake_struct(thing, cls)
    base: Any = next((base for base in _FILL if isinstance(thing, base)), object)
    fits = builtin_base(type(thing)) is builtin_base(cls) or base is not object
    if not (fits and issubclass(cls, base)):
        raise TypeError("its base classes differ")
    made = base.__new__(cls)
    if base is not object:
        _FILL[base](made, thing)
    return made, _copy_attributes(thing, made)


def _copy_attributes(thing: Any, made: Any) -> list[str]:
    """Give *made* the attributes of *thing*; return those that it has no room for."""
    no_room = []
    for name, value in attributes(thing).items():
        if name == STATE:
            continue
        try:
            set_attribute(made, name, value)
        except AttributeError:
            no_room.append(name)
    return no_room


def builtin_base(cls: type) -> type:
    """Return the class written in C that decides how objects of *cls* lie in memory."""
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


def _remake_struct(thing: Any, cls: Any) -> tuple[Any, list[str]]:
    # One of msgspec's structs, which are made with all their fields.
    known = {
        name: getattr(thing, name)
        for name in getattr(type(thing), "__struct_fields__", ())
        if hasattr(thing, name)
    }
    fields = {name: value for name, value in known.items() if name in cls.__struct_fields__}
    return cls(**fields), sorted(known.keys() - fields.keys())


def _fill_dict(made: Any, thing: dict[Any, Any]) -> None:
    base = dict_class(made)
    for key, value in tuple(dict.items(thing)):
        base.__setitem__(made, key, value)


def _fill_defaultdict(made: Any, thing: Any) -> None:
    made.default_factory = thing.default_factory
    _fill_dict(made, thing)


def _fill_deque(made: Any, thing: deque[Any]) -> None:
    deque.__init__(made, deque.__iter__(thing), thing.maxlen)


def _fill_exception(made: Any, thing: BaseException) -> None:
    made.args = thing.args
    made.__traceback__ = thing.__traceback__
    made.__cause__, made.__context__ = thing.__cause__, thing.__context__


# How the contents of one object are put into a new one, the most special classes first.
_FILL: Final[dict[type, Callable[[Any, Any], None]]] = {
    defaultdict: _fill_defaultdict,
    dict: _fill_dict,
    list: lambda made, thing: list.extend(made, list.__iter__(thing)),
    set: lambda made, thing: set.update(made, set.__iter__(thing)),
    deque: _fill_deque,
    BaseException: _fill_exception,
}


# The contents of each class of objects


def _read_nothing(thing: Any) -> tuple[()]:
    return ()


def _replace_nothing(thing: Any, replace: Replace) -> None:
    pass


def _read_values(thing: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(dict.values(thing))


def _read_keys(thing: dict[Any, Any]) -> Iterable[Any]:
    return dict.keys(thing)


def _replace_in_dict(thing: dict[Any, Any], replace: Replace) -> None:
    base = dict_class(thing)
    for key, value in tuple(dict.items(thing)):
        replacement = replace(value)
        if replacement is not value:
            base.__setitem__(thing, key, replacement)


def _replace_keys_of_dict(thing: dict[Any, Any], replace: Replace) -> None:
    base = dict_class(thing)
    replaced = {replace(key): replace(value) for key, value in tuple(dict.items(thing))}
    base.clear(thing)
    for key, value in replaced.items():
        base.__setitem__(thing, key, value)


def _read_defaultdict(thing: defaultdict[Any, Any]) -> tuple[Any, ...]:
    return (thing.default_factory, *_read_values(thing))


def _replace_in_defaultdict(thing: defaultdict[Any, Any], replace: Replace) -> None:
    thing.default_factory = replace(thing.default_factory)
    _replace_in_dict(thing, replace)


def _read_list(thing: list[Any]) -> list[Any]:
    return list.__getitem__(thing, slice(None))


def _replace_in_list(thing: list[Any], replace: Replace) -> None:
    for index, value in enumerate(list.__iter__(thing)):
        replacement = replace(value)
        if replacement is not value:
            list.__setitem__(thing, index, replacement)


def _read_deque(thing: deque[Any]) -> tuple[Any, ...]:
    return tuple(deque.__iter__(thing))


def _replace_in_deque(thing: deque[Any], replace: Replace) -> None:
    for index, value in enumerate(_read_deque(thing)):
        replacement = replace(value)
        if replacement is not value:
            deque.__setitem__(thing, index, replacement)


def _read_set(thing: set[Any]) -> tuple[Any, ...]:
    return tuple(set.__iter__(thing))


def _replace_members(thing: set[Any], replace: Replace) -> None:
    replaced = {replace(value) for value in _read_set(thing)}
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


# Functions made by other functions keep what these had.


def _read_function(thing: FunctionType) -> Iterator[Any]:
    if "<locals>" in thing.__qualname__:
        for cell in thing.__closure__ or ():
            yield from _read_cell(cell)
        yield thing.__defaults__
        yield thing.__kwdefaults__


def _read_cell(cell: CellType) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:  # it is empty
        return


def _replace_in_function(thing: FunctionType, replace: Replace) -> None:
    if "<locals>" not in thing.__qualname__:
        return
    for cell in thing.__closure__ or ():
        for value in _read_cell(cell):
            replacement = replace(value)
            if replacement is not value:
                cell.cell_contents = replacement
    defaults = replace(thing.__defaults__)
    if defaults is not thing.__defaults__:
        thing.__defaults__ = defaults


# Collections that do not keep alive what they hold


def _read_weak_reference(thing: weakref.ref[Any]) -> tuple[Any, ...]:
    target = thing()
    return () if target is None else (target,)


def _replace_members_of_weak_set(thing: WeakSet[Any], replace: Replace) -> None:
    members = [replace(value) for value in thing]
    thing.clear()
    thing.update(members)


def _read_weak_values(thing: Any) -> list[Any]:
    return list(thing.values())


def _replace_in_weak_dict(thing: Any, replace: Replace) -> None:
    for key, value in list(thing.items()):
        replacement = replace(value)
        if replacement is not value:
            thing[key] = replacement


def _replace_keys_of_weak_dict(thing: Any, replace: Replace) -> None:
    replaced = [(replace(key), replace(value)) for key, value in list(thing.items())]
    thing.clear()
    thing.update(replaced)


# Arrays of objects, as numpy and pandas have them

_WRITTEN_IN_C: Final = frozenset({"pandas"})


def _is_array(cls: type) -> bool:
    return any((base.__module__, base.__name__) == ("numpy", "ndarray") for base in cls.__mro__)


def _read_array(thing: Any) -> Iterable[Any]:
    return tuple(thing.flat) if thing.dtype.kind == "O" else ()


def _replace_in_array(thing: Any, replace: Replace) -> None:
    for index, value in enumerate(_read_array(thing)):
        replacement = replace(value)
        if replacement is not value:
            thing.flat[index] = replacement


# Iterators go on with what they hold: no other can be put into them.


def _read_generator(thing: Any) -> tuple[Any, ...]:
    frame = thing.ag_frame if isinstance(thing, AsyncGeneratorType) else thing.gi_frame
    return () if frame is None else tuple(frame.f_locals.values())


_ITERATORS: Final = (
    *(value for value in vars(itertools).values() if isinstance(value, type)),
    *map(type, (iter([]), iter(()), iter({}), iter({}.values()), iter({}.items()), iter(set()))),
    *(enumerate, map, filter, zip, reversed, type(reversed([]))),
    type(iter(lambda: 1, 2)),
)


# How contents are read, and how they are replaced in place; None where the object is rebuilt.
_CONTENTS: Final[dict[type, tuple[ReadContents, ReplaceContents | None]]] = {
    defaultdict: (_read_defaultdict, _replace_in_defaultdict),
    dict: (_read_values, _replace_in_dict),
    list: (_read_list, _replace_in_list),
    tuple: (tuple.__iter__, None),
    set: (_read_nothing, _replace_nothing),
    frozenset: (frozenset.__iter__, None),
    deque: (_read_deque, _replace_in_deque),
    int: (_read_nothing, None),
    bytes: (_read_nothing, None),
    MethodType: (_read_method, None),
    FunctionType: (_read_function, _replace_in_function),
    MappingProxyType: (gc.get_referents, _replace_nothing),
    partial: (_read_partial, _replace_in_partial),
    BaseException: (_read_exception, _replace_in_exception),
    weakref.ref: (_read_weak_reference, None),
    WeakSet: (_read_nothing, _replace_nothing),
    WeakKeyDictionary: (_read_weak_values, _replace_in_weak_dict),
    WeakValueDictionary: (_read_weak_values, _replace_in_weak_dict),
    GeneratorType: (_read_generator, _replace_nothing),
    AsyncGeneratorType: (_read_generator, _replace_nothing),
    **dict.fromkeys(_ITERATORS, (gc.get_referents, _replace_nothing)),
}

# What is found by its hash, and how it is put in anew.
_KEYS: Final[dict[type, tuple[ReadContents, ReplaceContents | None]]] = {
    dict: (_read_keys, _replace_keys_of_dict),
    set: (_read_set, _replace_members),
    frozenset: (frozenset.__iter__, None),
    WeakSet: (list, _replace_members_of_weak_set),
    WeakKeyDictionary: (list, _replace_keys_of_weak_dict),
    WeakValueDictionary: (list, _replace_keys_of_weak_dict),
}

_WITHOUT_ATTRIBUTES: Final = frozenset(
    {MethodType, FunctionType, weakref.ref, WeakSet, WeakKeyDictionary, WeakValueDictionary}
)
