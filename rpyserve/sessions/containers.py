"""What a value holds, and how what it holds is exchanged for something else.

One `ContainerType` for each class of values: builtin containers and their subclasses, `functools.partial`, exceptions, bound
methods, and whatever has attributes. What can be changed keeps its identity; what cannot (a tuple, a frozenset) is
rebuilt. A user's ``__getattr__``, ``__setattr__``, ``__iter__`` or ``__setitem__`` is never called; ``__hash__`` and
``__eq__`` of keys are, and may raise. Weak references, modules, generators and what belongs to a server are left alone.

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

__all__ = ["ATOMS", "ContainerType", "rebuilt", "shape_of"]

Swap = Callable[[Any], Any]
"""Returns what a thing is exchanged for; the thing itself where it stays."""

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
"""Classes of values that hold nothing."""

_SERVERS: Final = frozenset(
    {
        "rpyserve.sessions.components",
        "rpyserve.site",
        "rpyserve.http.request",
        "rpyserve.sessions.expiry",
    }
)
_FOREIGN: Final = frozenset(
    {"trio", "zope", "logging", "threading", "weakref", "_weakrefset", "builtins"}
)
_HEAP_TYPE: Final = 1 << 9
"""Of ``type.__flags__``: made by a ``class`` statement, not written in C."""


@dataclass(frozen=True, slots=True)
class ContainerType:
    """How values of one class are entered.

    Args:
        contents: what the value holds, its attributes apart.
        exchange: puts in what the contents are exchanged for. None: the value must be `rebuilt` instead.
        attributed: whether it has attributes that are entered too.
    """

    contents: Callable[[Any], Iterable[Any]]
    exchange: Callable[[Any, Swap], None] | None
    attributed: bool

    def held(self, thing: Any) -> Iterator[Any]:
        """All that *thing* holds and that may hold something in its turn."""
        for each in self.contents(thing):
            if type(each) not in ATOMS:
                yield each
        if self.attributed:
            for each in attributes(thing).values():
                if type(each) not in ATOMS:
                    yield each

    def refit(self, thing: Any, swap: Swap) -> None:
        """Exchange in *thing*, in place, what it holds."""
        if self.attributed:
            for name, value in attributes(thing).items():
                if (new := swap(value)) is not value:
                    set_attribute(thing, name, new)
        if self.exchange is not None:
            self.exchange(thing, swap)


def shape_of(kind: type) -> ContainerType | None:
    """Return how values of the class *kind* are entered; None if they are not."""
    if kind in ATOMS or issubclass(kind, ModuleType) or _is_foreign(kind):
        return None
    attributed = bool(kind.__flags__ & _HEAP_TYPE) or kind.__dictoffset__ != 0
    for base, (contents, exchange) in _CONTENTS.items():
        if issubclass(kind, base):
            return ContainerType(contents, exchange, attributed and kind is not MethodType)
    return ContainerType(_nothing, _keep, True) if attributed else None


def rebuilt(thing: Any, kind: type, swap: Swap) -> Any:
    """Return a thing like *thing*, of the class *kind*, that holds what its contents are exchanged for.

    Raises:
        TypeError: there can be none; the message says why.
    """
    if isinstance(thing, MethodType):
        return MethodType(swap(thing.__func__), swap(thing.__self__))
    base: Any = next((base for base in _READERS if isinstance(thing, base)), None)
    if base is None or not issubclass(kind, base):
        raise TypeError("its __slots__ or its base classes differ")
    items = _READERS[base](thing)
    if base in (tuple, frozenset):
        items = [swap(each) for each in items]
    if base is tuple and hasattr(type(thing), "_fields") and hasattr(kind, "_fields"):
        items = _by_name(dict(zip(type(thing)._fields, items, strict=False)), kind)
    new = base.__new__(kind, items)
    if type(thing).__dictoffset__ and kind.__dictoffset__:
        new.__dict__.update(thing.__dict__)
    return new


_READERS: Final[dict[type, Callable[[Any], Any]]] = {
    tuple: tuple.__iter__,
    frozenset: frozenset.__iter__,
    int: int.__int__,
    bytes: lambda thing: bytes.__getitem__(thing, slice(None)),
}


def _by_name(values: dict[str, Any], kind: Any) -> list[Any]:
    """The values in the order of the fields of *kind*, a named tuple."""
    defaults = kind._field_defaults
    if missing := [name for name in kind._fields if name not in values and name not in defaults]:
        raise TypeError(f"there is no value for its field {missing[0]}; give that a default")
    return [values[name] if name in values else defaults[name] for name in kind._fields]


def _is_foreign(kind: type) -> bool:
    if str(kind.__module__).partition(".")[0] in _FOREIGN:
        return kind.__module__ != "builtins" or not issubclass(kind, tuple(_CONTENTS))
    return any(str(base.__module__) in _SERVERS for base in kind.__mro__)


# Contents


def _nothing(thing: Any) -> tuple[()]:
    return ()


def _keep(thing: Any, swap: Swap) -> None:
    pass


def _in_dict(thing: dict[Any, Any]) -> Iterator[Any]:
    if isinstance(thing, defaultdict):
        yield thing.default_factory
    for pair in tuple(dict.items(thing)):
        yield from pair


def _exchange_in_dict(thing: dict[Any, Any], swap: Swap) -> None:
    kind: Any = OrderedDict if isinstance(thing, OrderedDict) else dict
    if isinstance(thing, defaultdict):
        thing.default_factory = swap(thing.default_factory)
    pairs = tuple(dict.items(thing))
    if all(type(key) in ATOMS for key, _ in pairs):
        for key, value in pairs:
            if (new := swap(value)) is not value:
                kind.__setitem__(thing, key, new)
        return
    # A key may have become another one, or have another hash now.
    fresh = {swap(key): swap(value) for key, value in pairs}
    kind.clear(thing)
    for key, value in fresh.items():
        kind.__setitem__(thing, key, value)


def _exchange_in_list(thing: list[Any], swap: Swap) -> None:
    for index, value in enumerate(list.__iter__(thing)):
        if (new := swap(value)) is not value:
            list.__setitem__(thing, index, new)


def _exchange_in_deque(thing: deque[Any], swap: Swap) -> None:
    before = tuple(deque.__iter__(thing))
    after = [swap(value) for value in before]
    if any(new is not old for new, old in zip(after, before, strict=True)):
        deque.clear(thing)
        deque.extend(thing, after)


def _exchange_in_set(thing: set[Any], swap: Swap) -> None:
    before = tuple(set.__iter__(thing))
    if not all(type(value) in ATOMS for value in before):
        fresh = {swap(value) for value in before}
        set.clear(thing)
        set.update(thing, fresh)


def _in_partial(thing: partial[Any]) -> tuple[Any, ...]:
    return thing.func, thing.args, thing.keywords


def _exchange_in_partial(thing: partial[Any], swap: Swap) -> None:
    func, args = swap(thing.func), swap(thing.args)
    if func is not thing.func or args is not thing.args:
        state = func, args, thing.keywords, thing.__dict__
        thing.__setstate__(state)  # type: ignore[attr-defined]


def _in_exception(thing: BaseException) -> tuple[Any, ...]:
    return (thing.args,)


def _exchange_in_exception(thing: BaseException, swap: Swap) -> None:
    if (args := swap(thing.args)) is not thing.args:
        thing.args = args


_CONTENTS: Final[
    dict[type, tuple[Callable[[Any], Iterable[Any]], Callable[[Any, Swap], None] | None]]
] = {
    dict: (_in_dict, _exchange_in_dict),
    list: (lambda thing: tuple(list.__iter__(thing)), _exchange_in_list),
    tuple: (lambda thing: tuple.__iter__(thing), None),
    set: (lambda thing: tuple(set.__iter__(thing)), _exchange_in_set),
    frozenset: (lambda thing: frozenset.__iter__(thing), None),
    deque: (lambda thing: tuple(deque.__iter__(thing)), _exchange_in_deque),
    int: (_nothing, None),
    bytes: (_nothing, None),
    MethodType: (lambda thing: (thing.__func__, thing.__self__), None),
    MappingProxyType: (gc.get_referents, _keep),
    partial: (_in_partial, _exchange_in_partial),
    BaseException: (_in_exception, _exchange_in_exception),
}
"""How the contents are read, and how they are exchanged in place; what has no second part is rebuilt."""
