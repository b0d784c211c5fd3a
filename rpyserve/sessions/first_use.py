"""Objects that an edit leaves to be brought up to date at their first use, or when there is time.

The registry may hold a million objects, and no save may hold up the site. So a migration changes
only the nearest objects at once. For those beyond there are two ways at the same time:

- Their old class is watched: whatever is done with such an object first brings it up to date. For
  that the old class gets, in place of its attribute access and its operators, functions that do
  so and then what was asked for. ``isinstance`` asks for ``__class__`` and gets the new one.
- A task goes through them in slices, between requests.

What this cannot do: until an object was used or the task has come to it, ``type(thing)`` is the old
class, as that cannot be watched. And where an object of a class that has not changed waits, members
of changed enumerations in it are the old ones until the task has come to it.

Why not change the old class in place, so that there is nothing to walk, as other tools do? New code
holds on to the new class in too many ways: decorators and registries that took it, ``super()`` in
its methods, the members of an enumeration, all that dataclasses and attrs generate. There would be
two classes of one name that never become one.

Knows nothing of sessions, nor of how an object is brought up to date.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import trio

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.object_graph import CHUNK, Left, Limits

log = logging.getLogger("rpyserve")

_SLICE: Final = Limits(objects=200, plain=1_000)
"""How much the task brings up to date before others have their turn."""

_ONE: Final = Limits(objects=0, plain=20_000)
"""What is brought up to date with an object that is used."""

# What else is asked of an object in place of its class: not what is asked of the class.
_NOT_WATCHED: Final = frozenset(
    {
        "__init__",
        "__new__",
        "__post_init__",
        "__getattr__",
        "__del__",
        "__init_subclass__",
        "__class_getitem__",
        "__subclasshook__",
        "__set_name__",
    }
)
_ALWAYS_WATCHED: Final = frozenset(
    {"__getattribute__", "__setattr__", "__delattr__", "__reduce_ex__"}
)


class Rest(Protocol):
    """What was left."""

    rest: list[Left]
    waiting: dict[type, type]


Renew = Callable[[list[tuple[Any, str]], Limits], Rest]
"""Brings objects up to date, each given with its label, and what they hold."""


def leave(rest: Rest, renew: Renew) -> None:
    """See to it that *rest* is brought up to date by *renew*."""
    later = _Later(renew)
    later.add(rest)
    try:
        trio.lowlevel.spawn_system_task(later.run)
    except RuntimeError:  # no server runs in this thread: it is done at the first use alone
        return


class _Later:
    """What one migration has left."""

    def __init__(self, renew: Renew) -> None:
        self._renew = renew
        self._rest: list[Left] = []
        self._generation = definitions.generation
        # By their ids; kept alive, so that an id stays its own.
        self._seen: dict[int, Any] = {}

    def add(self, rest: Rest) -> None:
        self._rest += rest.rest
        for old_class, new_class in rest.waiting.items():
            _watch(old_class, new_class, self.renew_one)

    def renew_one(self, thing: Any) -> None:
        rest = self._renew([(thing, f"the registry or a session, in {type(thing).__name__}")], _ONE)
        for old_class, new_class in rest.waiting.items():
            _watch(old_class, new_class, self.renew_one)

    async def run(self) -> None:
        try:
            for batch in self._batches():
                await trio.lowlevel.checkpoint()
                if self._generation != definitions.generation:
                    return  # the next migration leaves all that is left now
                self.add(self._renew(batch, _SLICE))
        except Exception:
            log.exception("Bringing objects up to date after an edit has failed.")
        finally:
            self._seen.clear()

    def _batches(self) -> Iterator[list[tuple[Any, str]]]:
        while self._rest:
            things, first, label = self._rest.pop()
            for start in range(first, min(first + CHUNK, len(things)), _SLICE.objects):
                batch = [
                    (thing, label)
                    for thing in things[start : start + _SLICE.objects]
                    if id(thing) not in self._seen
                ]
                self._seen.update((id(thing), thing) for thing, _ in batch)
                yield batch


# Classes that are watched


class _Watch:
    """What is done at the first use of an object of an old class."""

    def __init__(self) -> None:
        self.new_class: type = object
        self.renew: Callable[[Any], None] = lambda thing: None

    def is_renewed(self, thing: Any, caller: Any) -> bool:
        """Bring *thing* up to date; return whether it is of another class now."""
        old_class = type(thing)
        if _is_watched(old_class) and not _is_used_by_its_method(thing, caller):
            self.renew(thing)
        return type(thing) is not old_class


# On an old class: its `_Watch`, which lasts as long as the class.
_WATCH: Final = "__rpyserve_watch__"


def _is_watched(cls: type) -> bool:
    return _WATCH in vars(cls)


def _watch(old_class: type, new_class: type, renew: Callable[[Any], None]) -> None:
    watch = vars(old_class).get(_WATCH)
    if watch is None:
        watch = _Watch()
        type.__setattr__(old_class, _WATCH, watch)
        for name in _names_to_watch(old_class, new_class):
            original = getattr(old_class, name, None)
            type.__setattr__(old_class, name, _watching(watch, name, original))
    watch.new_class, watch.renew = new_class, renew


def _names_to_watch(*classes: type) -> set[str]:
    names = set(_ALWAYS_WATCHED)
    for cls in classes:
        for base in cls.__mro__[:-1]:
            names |= {name for name, value in vars(base).items() if callable(value)}
    return {name for name in names if name[:2] == "__" == name[-2:]} - _NOT_WATCHED


def _watching(watch: _Watch, name: str, original: Any) -> Callable[..., Any]:
    """Return a method *name* that first brings its object up to date."""
    if name == "__getattribute__":
        return _watching_get(watch, original)

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if watch.is_renewed(self, sys._getframe(1)):
            return getattr(type(self), name)(self, *args, **kwargs)
        if original is None:
            return NotImplemented
        return original(self, *args, **kwargs)

    return method


def _watching_get(watch: _Watch, original: Any) -> Callable[..., Any]:
    def __getattribute__(self: Any, name: str, /) -> Any:
        if name == "__class__":  # `isinstance` asks the object's class, too, before and afterwards
            return watch.new_class if _is_watched(type(self)) else original(self, name)
        if watch.is_renewed(self, sys._getframe(1)):
            return getattr(self, name)
        return original(self, name)

    return __getattribute__


def _is_used_by_its_method(thing: Any, caller: Any) -> bool:
    """Whether the old code that uses *thing* is a method of it, such as its constructor."""
    frame = caller
    while frame is not None and _is_old_code(frame.f_globals.get("__name__")):
        code = frame.f_code
        if code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is thing:
            return True
        frame = frame.f_back
    return False


def _is_old_code(name: object) -> bool:
    return type(name) is ExecutionName and not definitions.is_current_name(name)
