"""What the site's classes were like when a record was written, and what stands for them now.

With each class a record keeps its `Facts`: what the rules for edits need to know of the class that
an object had before. If the present class has the same shape, its objects are loaded as they are.
If not, they are loaded as objects of a *former class*, which is made of the facts: it has the name
of the class, its place, and what its constructor set. Then a restart is an edit: the former class
is an old class like any other, and `rpyserve.sessions.migration` brings its objects up to date.

A former class for which there is no present one keeps what its objects have, and gives that back
when they are stored again, under the name that they came under. Using such an object raises an
`AttributeError` that says what is missing.

Knows nothing of pickles, nor of how records name things.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib
import logging
import pickle
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from types import FunctionType, GenericAlias
from typing import Any, Final, NoReturn

from zope.interface.interface import InterfaceClass

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions import object_state
from rpyserve.sessions.containers import ATOMS, MAKE, builtin_base
from rpyserve.sessions.missing_attributes import ON_CHANGE
from rpyserve.sessions.object_state import class_value
from rpyserve.sessions.session import Session
from rpyserve.util.author_code import is_author_code

log = logging.getLogger("rpyserve")

MOST_VALUE: Final = 1_000
"""Bytes of a value of a class that are worth keeping with it."""


class How(enum.IntEnum):
    """How the objects of a class are stored and loaded."""

    PLAIN = 0
    """As `object.__reduce_ex__` has it: attributes, and what a builtin base holds."""
    BY_NAME = 1
    """Attributes by their names, as what the class itself gives goes by their order."""
    SET_STATE = 2
    """The class, or a library, has its own ``__setstate__``."""
    BY_ITSELF = 3
    """The class says what to call to make another one."""
    STRUCT = 4
    """One of msgspec's structs, made with all its fields."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a class is like.

    Attributes:
        how: a `How`.
        base: module and name of the class written in C that it derives from, and for an enumeration
            the name of its kind, such as ``IntEnum``.
        assigned: the attributes that its constructor sets, apart from those that some of its
            objects lack.
        parameters: those of its constructor.
        fields: those of a named tuple or a struct, in their order.
        slots: the attributes for which it has slots.
        hidden: those of *assigned* under which the class has a method.
        cached: digests of its cached properties.
        properties: sources of properties, cached ones too, each with whether it is cached.
        values: what it has itself under other names, as far as that is plain data.
        members: the values of the members of an enumeration, likewise.
    """

    how: int
    base: tuple[str, str, str]
    assigned: tuple[str, ...]
    parameters: tuple[str, ...]
    fields: tuple[str, ...] | None
    slots: tuple[str, ...]
    hidden: tuple[str, ...]
    cached: tuple[tuple[str, bytes], ...]
    properties: tuple[tuple[str, bool, str], ...]
    values: tuple[tuple[str, Any], ...]
    members: tuple[tuple[str, Any], ...]

    @property
    def shape(self) -> bytes:
        """Equal for classes whose objects need nothing to become one of the other."""
        compared = self.how, self.base, self.assigned, self.parameters, self.fields, self.slots
        text = repr((*compared, self.hidden, self.cached))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def pack(self) -> bytes:
        """Return the facts as bytes."""
        return zlib.compress(pickle.dumps(astuple(self), 5))

    @classmethod
    def unpack(cls, packed: bytes) -> Facts:
        """Return what `pack` has packed."""
        return cls(*pickle.loads(zlib.decompress(packed)))


# Reading


def facts_of(cls: type, gaps: frozenset[str]) -> Facts:
    """Return what *cls*, a class of the site, is like at present, and its objects are.

    Args:
        cls: the class.
        gaps: attributes that some of these objects lack.
    """
    assigned = (object_state.assigned_by_class(cls) | object_state.field_names(cls)) - gaps
    hidden = {name for name in assigned if hasattr(type(class_value(cls, name)), "__get__")}
    is_enum = issubclass(cls, enum.Enum)
    fields = getattr(cls, "_fields", None) if issubclass(cls, tuple) else None
    return Facts(
        how=how_of(cls),
        base=_base_of(cls),
        assigned=tuple(sorted(assigned)),
        parameters=tuple(each.name for each in object_state.parameters_of(cls)),
        fields=_names(fields or getattr(cls, "__struct_fields__", None)),
        slots=tuple(sorted(object_state.slot_names(cls))),
        hidden=tuple(sorted(hidden)),
        cached=tuple(sorted(object_state.cached_properties(cls).items())),
        properties=() if is_enum else tuple(_properties_of(cls)),
        values=() if is_enum else tuple(_values_of(cls)),
        members=tuple(_members_of(cls)) if is_enum else (),
    )


def how_of(cls: type) -> How:
    """Return how the objects of *cls* are stored."""
    if origin_of(cls) is not None:
        return How(vars(cls).get(_HOW, How.PLAIN))
    if hasattr(cls, "__struct_fields__"):
        return How.STRUCT
    if _is_own(cls, ("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")):
        return How.BY_ITSELF
    set_state = class_value(cls, "__setstate__")
    if getattr(set_state, "__module__", None) == "dataclasses":
        return How.BY_NAME
    is_python = isinstance(set_state, FunctionType)
    return How.SET_STATE if is_python and not issubclass(cls, enum.Enum) else How.PLAIN


def _is_own(cls: type, names: Iterable[str]) -> bool:
    """Whether the author of the site has written any of these methods."""
    methods = [class_value(cls, name) for name in names]
    codes = [getattr(getattr(each, "own", each), "__code__", None) for each in methods]
    return any(code is not None and is_author_code(code.co_filename) for code in codes)


def _names(fields: Any) -> tuple[str, ...] | None:
    return None if fields is None else tuple(map(str, fields))


def _base_of(cls: type) -> tuple[str, str, str]:
    if issubclass(cls, Session):
        return "rpyserve", "Session", ""
    base, kind = builtin_base(cls), ""
    if issubclass(cls, enum.Enum):
        kind = next(each.__name__ for each in cls.__mro__ if each.__module__ == "enum")
        base = getattr(cls, "_member_type_", base)
    return base.__module__, base.__qualname__, kind


def _properties_of(cls: type) -> Iterable[tuple[str, bool, str]]:
    for base in cls.__mro__:
        if isinstance(base.__module__, ExecutionName):
            for name, value in vars(base).items():
                is_cached = isinstance(value, functools.cached_property)
                function = getattr(value, "func" if is_cached else "fget", None)
                if function is not None and (is_cached or isinstance(value, property)):
                    yield name, is_cached, object_state.source_of(function)


def _values_of(cls: type) -> Iterable[tuple[str, Any]]:
    for base in cls.__mro__:
        if isinstance(base.__module__, ExecutionName):
            for name, value in vars(base).items():
                if not (name.startswith("__") or value is None) and _is_plain(value):
                    yield name, value


def _members_of(cls: Any) -> Iterable[tuple[str, Any]]:
    for name, member in cls.__members__.items():
        yield name, member.value if _is_plain(member.value) else name


def _is_plain(value: Any) -> bool:
    """Whether *value* is plain data, and not much of it."""
    return _is_data(value, 3) and len(pickle.dumps(value, 5)) <= MOST_VALUE


_DATA: Final = ATOMS - {range, slice, type(NotImplemented), bytearray}


def _is_data(value: Any, depth: int) -> bool:
    if type(value) in _DATA:
        return True
    if type(value) not in (list, tuple, dict, set, frozenset) or not depth or len(value) > 100:
        return False
    parts = [*value, *value.values()] if type(value) is dict else value
    return all(_is_data(each, depth - 1) for each in parts)


# Standing for what is no longer there


def former_class(name: ExecutionName, qualified_name: str, packed: bytes, origin: object) -> type:
    """Return a class that stands for another one.

    Args:
        name: of the execution that defined it.
        qualified_name: its own.
        packed: its `Facts`, packed.
        origin: what `origin_of` returns.
    """
    facts = Facts.unpack(packed)
    cls = _former_enum(qualified_name, facts) if facts.base[2] else _plain(qualified_name, facts)
    _set_place(cls, name, qualified_name)
    type.__setattr__(cls, _ORIGIN, origin)
    type.__setattr__(cls, _HOW, facts.how)
    assigned = frozenset(facts.assigned)
    object_state.describe(cls, assigned, facts.parameters, dict(facts.cached))
    definitions.note_class(cls)
    return cls


def former_function(name: ExecutionName, qualified_name: str, origin: object) -> Any:
    """Return a function that stands for the one at that place. Calling it calls that."""

    # It is closed over nothing, as the one that it stands for.
    former = FunctionType(_call_present.__code__, globals())
    former.__kwdefaults__ = {"_self": [former]}
    _set_place(former, name, qualified_name)
    setattr(former, _ORIGIN, origin)
    return former


def _call_present(*args: Any, _self: list[Any], **kwargs: Any) -> Any:
    (former,) = _self
    present = definitions.current_definition(former) if _may_execute else None
    if present is None or present is former:
        raise RuntimeError(_missing(former.__module__, former.__qualname__))
    return present(*args, **kwargs)


def former_interface(name: ExecutionName, own_name: str, origin: object) -> Any:
    """Return an interface that stands for the one of that name."""
    interface = InterfaceClass(own_name, __module__=name)
    interface.setTaggedValue(_ORIGIN, origin)
    return interface


def missing_class(module: str, name: str) -> type:
    """Return a class that stands for the class *name* of another package's *module*."""
    namespace = {"__getattr__": _lookup, "__module__": module, _ORIGIN: (module, name)}
    return type(name.rpartition(".")[2], (), namespace)


def origin_of(defined: Any) -> Any:
    """Return what *defined*, which stands for another definition, was made of; None if it is none.

    A subclass of it does not count.
    """
    if isinstance(defined, InterfaceClass):
        return defined.queryDirectTaggedValue(_ORIGIN)
    return getattr(defined, "__dict__", {}).get(_ORIGIN)


# On what stands for another definition: what it was made of. On a class also its `How`.
_ORIGIN: Final = "__rpyserve_origin__"
_HOW: Final = "__rpyserve_how__"


def _set_place(defined: Any, name: str, qualified_name: str) -> None:
    defined.__module__ = name
    defined.__qualname__ = qualified_name
    defined.__name__ = qualified_name.rpartition(".")[2]


def _missing(name: str, qualified_name: str) -> str:
    where = name
    if isinstance(name, ExecutionName):
        where = name.rpartition(".")[2] + (".py" if ":" in name.home else ".rpy")
    return (
        f"{qualified_name} of {where} is not there at present; what was stored of it is kept as it "
        "was until there is one of that name again"
    )


def _plain(qualified_name: str, facts: Facts) -> type:
    if facts.how == How.BY_ITSELF:
        return type(qualified_name.rpartition(".")[2], (_Call,), {"__slots__": ()})
    base = _found(*facts.base[:2])
    namespace: dict[str, Any] = {
        "__getattr__": _lookup,
        "__class_getitem__": classmethod(GenericAlias),
    }
    for name in facts.hidden:
        namespace[name] = _former_method
    for name, value in reversed(facts.values):
        namespace[name] = value
    for name, is_cached, source in reversed(facts.properties):
        getter = functools.partial(_compute, name, source)
        namespace[name] = functools.cached_property(getter) if is_cached else property(getter)
    if facts.fields is not None:
        is_struct = facts.how == How.STRUCT
        namespace |= _struct_fields(facts.fields) if is_struct else _tuple_fields(facts.fields)
    if facts.how == How.SET_STATE:
        namespace |= {
            "__new__": _new_present,
            "__setstate__": _keep_state,
            "__getstate__": _kept_state,
            ON_CHANGE: staticmethod(_give_state),
        }
    name = qualified_name.rpartition(".")[2]
    try:
        return type(name, (base,), namespace)
    except TypeError:
        return type(name, (), namespace)


def _found(module: str, name: str) -> Any:
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return object
    return found if isinstance(found, type) else object


def _lookup(self: Any, name: str) -> Any:
    cls = type(self)
    if origin_of(cls) is not None and not name.startswith("__"):
        raise AttributeError(_missing(cls.__module__, cls.__qualname__), name=name, obj=self)
    raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}", name=name, obj=self)


def _former_method(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise RuntimeError(_missing(type(self).__module__, type(self).__qualname__))


def _compute(name: str, source: str, thing: Any) -> Any:
    """What a property of the former class gives for *thing*, which is of the present one."""
    if not source:
        raise RuntimeError("the source of the property is not known")
    namespace = dict(definitions.namespace_of(definitions.home_of(type(thing))))
    exec(compile(source, f"<{type(thing).__qualname__}.{name} as it was>", "exec"), namespace)
    return next(reversed(namespace.values()))(thing)


def _tuple_fields(fields: tuple[str, ...]) -> dict[str, Any]:
    def __new__(cls: Any, *values: Any) -> Any:
        return tuple.__new__(cls, values)

    return {"_fields": fields, "__new__": __new__, "__getnewargs__": tuple}


def _struct_fields(fields: tuple[str, ...]) -> dict[str, Any]:
    return {"__struct_fields__": fields}


# An object with a ``__setstate__`` of its own is made as one of the present class at once. Where
# there is none, what that method is to be given waits until there is.

_made: list[tuple[Any, type]] = []
_may_execute = True


@contextmanager
def noting_made(*, may_execute: bool) -> Iterator[list[tuple[Any, type]]]:
    """While inside, objects are loaded.

    Args:
        may_execute: whether files of the site may be executed for that.

    Yields:
        Those that were made as objects of a present class at once, each with its former class.
    """
    global _made, _may_execute
    before = _made, _may_execute  # a file that is executed may load the registry
    _made, _may_execute = [], may_execute
    try:
        yield _made
    finally:
        _made, _may_execute = before


def _new_present(cls: type, *args: Any) -> Any:
    present = definitions.current_definition(cls) if _may_execute else cls
    if present is None or present is cls:
        return builtin_base(cls).__new__(cls, *args)
    thing = present.__new__(present, *args)
    _made.append((thing, cls))
    return thing


def _keep_state(self: Any, state: Any) -> None:
    object_state.set_attribute(self, object_state.STATE, state)


def _kept_state(self: Any) -> Any:
    return object_state.attributes(self).get(object_state.STATE)


def _give_state(thing: Any, before: Any) -> None:
    """Give *thing* what its ``__setstate__`` is to be given, which waited in *before*."""
    own = object_state.attributes(before)
    if object_state.STATE not in own:
        return
    object_state.dict_of(thing).pop(object_state.STATE, None)
    try:
        thing.__setstate__(own[object_state.STATE])
    except Exception as exc:
        cls = type(thing)
        log.warning("%s.__setstate__ fails: %s: %s", cls.__qualname__, type(exc).__name__, exc)


# A class that says what to call to make another one is called when there is a present one.


class _Call:
    """What stands for an object, and knows what it is to be made by.

    Python can make no object of the site of it in place: it has no room. So it is made again.
    """

    __slots__ = ("__weakref__", "args", "is_called", "items", "pairs", "state")

    args: tuple[tuple[Any, ...], dict[str, Any]]
    is_called: bool
    items: list[Any]
    pairs: list[tuple[Any, Any]]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.args, self.is_called = (args, kwargs), False
        self.state, self.items, self.pairs = None, [], []
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.is_called = True  # the class itself was, not only its ``__new__``

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        self.items.extend(items)

    def __getattr__(self, name: str) -> Any:
        return _lookup(self, name)


def call_of(thing: Any) -> Any:
    """Return what `object.__reduce_ex__` would return for what *thing* stands for."""
    args, kwargs = thing.args
    make, given = (type(thing), args) if thing.is_called else (_new, (type(thing), args, kwargs))
    return make, given, thing.state, iter(thing.items) or None, iter(thing.pairs) or None


def _new(cls: Any, args: Any, kwargs: Any) -> Any:
    return cls.__new__(cls, *args, **kwargs)


def _make(call: Any, cls: Any) -> Any:
    """Make the object of *cls* that *call* stands for."""
    args, kwargs = call.args
    made = cls(*args, **kwargs) if call.is_called else cls.__new__(cls, *args, **kwargs)
    if call.state is not None:
        _set_state(made, call.state)
    if call.items:
        made.extend(call.items)
    for key, value in call.pairs:
        made[key] = value
    return made


def _set_state(made: Any, state: Any) -> None:
    """As pickle does."""
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name, value in {**(own or {}), **(slots or {})}.items():
        object_state.set_attribute(made, name, value)


setattr(_Call, MAKE, _make)


# Enumerations


def _former_enum(qualified_name: str, facts: Facts) -> type:
    module, base, kind = facts.base
    enum_kind: Any = getattr(enum, kind, enum.Enum)
    mixin = _found(module, base)
    options = {} if mixin is object or issubclass(enum_kind, mixin) else {"type": mixin}
    name, members = qualified_name.rpartition(".")[2], dict(facts.members)
    try:
        cls = enum_kind(name, members, **options)
    except Exception:
        plain: Any = enum.Enum
        cls = plain(name, members)
    return cls  # type: ignore[no-any-return]


# What cannot be loaded


class Unloaded:
    """Stands for a value that could not be loaded. Whatever is done with it raises why.

    Args:
        why: the reason.
        record: the record that it came in, and which of its pickles it is.
    """

    def __init__(self, why: str, record: tuple[bytes, int]) -> None:
        own = object.__getattribute__(self, "__dict__")
        own.update(_rpyserve_why=why, _rpyserve_record=record)

    def __repr__(self) -> str:
        return f"<a value that could not be loaded: {self._rpyserve_why}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse_use(self)


def why_of(thing: Unloaded) -> str:
    """Return why it could not be loaded."""
    return str(object.__getattribute__(thing, "__dict__")["_rpyserve_why"])


def _refuse_use(self: Any, *args: Any) -> NoReturn:
    raise RuntimeError(
        f"this value could not be loaded: {self._rpyserve_why}. It is kept as it was stored, and "
        "is tried again when the server starts; `del` forgets it"
    )


_OPERATIONS: Final = """\
add and bool call contains delitem enter eq exit float format getitem gt ge index int iter len lt le
mod mul ne neg next or radd rsub setattr setitem str sub truediv"""
for _operation in _OPERATIONS.split():
    setattr(Unloaded, f"__{_operation}__", _refuse_use)
Unloaded.__hash__ = object.__hash__  # type: ignore[method-assign]
