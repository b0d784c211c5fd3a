"""What became, in later executions, of a class, a function or an interface that an earlier one defined.

Only good executions count: a script's when it is published, a module's when it is loaded. What they define is found
where Python keeps it, in ``sys.modules`` under the execution's name; here are only names: which definition each
name stood for, so that a class that moves to a module of the site, or back, is known to be the same one.

The invariant: `generation` has grown since whatever became out of date, so that who compares it, and looks again when
it differs, never hands out what is out of date. Nothing here holds an execution, a class or a session.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any, Final
from weakref import WeakValueDictionary

from rpyserve.scripts.execution import Execution, ExecutionName, Key, definition_key, is_interface

__all__ = [
    "Place",
    "advance",
    "current_definition",
    "current_execution",
    "follows",
    "forget",
    "home_of",
    "interface_at",
    "is_current",
    "note_code_finished",
    "origin",
    "place_of",
    "publish",
]  # fmt: skip

Place = tuple[str, str]
"""Where something is defined: the home of its module (see `ExecutionName`), and its qualified name."""

HOPS: Final = 10
"""How often something may move before it is looked up."""

generation = 1
"""Grows with whatever may make an object that is kept somewhere one of an old class."""
edits = 1
"""Grows with each change of a definition; `generation` grows with it."""

_names: dict[str, tuple[str, dict[str, Place]]] = {}
_modules: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()
_moved: dict[Place, Place] = {}
_origins: dict[Place, Place] = {}


def advance() -> None:
    """Say that definitions may have changed, or are going to."""
    global generation, edits
    generation += 1
    edits += 1


def note_code_finished(edits_then: int) -> None:
    """Say that code which began when `edits` was *edits_then* has ended: it may have kept objects of old classes."""
    global generation
    if edits_then != edits:
        generation += 1


def publish(execution: Execution, module: ModuleType) -> None:
    """Say that *execution* went well and stands from now on; *module* is what it left behind."""
    name = execution.name.home
    now = {
        key: place
        for key, value in list(vars(module).items())
        if (place := place_of(value)) is not None
    }
    _modules[name] = module
    before = _names.get(name)
    _names[name] = os.fspath(execution.path), now
    if before is None:
        return
    for key, place in now.items():
        old = before[1].get(key, place)
        if old[0] != place[0] and old[1] == place[1] == key:
            _moved.pop(place, None)
            _origins.pop(old, None)
            _moved[old], _origins[place] = place, old
    advance()


def forget(root: str) -> None:
    """Forget what the files below *root* have defined."""
    gone = {name for name, (path, _) in _names.items() if path.startswith(root + os.sep)}
    for name in gone:
        del _names[name]
        _modules.pop(name, None)
    for moves in (_moved, _origins):
        for pair in [pair for pair in moves.items() if pair[0][0] in gone or pair[1][0] in gone]:
            del moves[pair[0]]


def place_of(thing: object) -> Place | None:
    """Where *thing*, a class, a function or an interface, is defined; None for what no execution has defined."""
    if not (isinstance(thing, (type, FunctionType)) or is_interface(thing)):
        return None
    module = getattr(thing, "__module__", None)
    return (module.home, _qualified(thing)) if isinstance(module, ExecutionName) else None


def home_of(defined: Any) -> str:
    """What tells the script or module that defined a class from all others; empty for those of no execution."""
    return defined.__module__.home if isinstance(defined.__module__, ExecutionName) else ""


def is_current(defined: Any) -> bool:
    """Whether *defined*, a class or a function, is not known to be out of date."""
    name = getattr(defined, "__module__", None)
    if type(name) is not ExecutionName:
        return True
    namespace = _namespace(name.home)
    return namespace is None or namespace["__name__"] is name


def current_definition(defined: Any) -> Any:
    """Return what stands now for *defined*, a class, a function or an interface.

    That is *defined* itself where nothing else is known; None where its script or module is there and has no more
    such a thing.
    """
    name = getattr(defined, "__module__", None)
    if type(name) is not ExecutionName:
        return defined
    place: Place | None = (name.home, _qualified(defined))
    gone = False
    for _ in range(HOPS):
        if place is None:
            break
        moved = _next(place)
        if moved is not None and _is_used(place, moved[0]):
            moved = None  # it was copied, not moved
        namespace = _namespace(place[0])
        if namespace is not None and moved is None:
            if namespace["__name__"] is name:
                return defined
            found = _look_up(namespace, place[1])
            if found is not None:
                return found if _is_alike(defined, found) else None
            gone = True
        place = moved
    return None if gone else defined


def current_execution(home: str) -> Execution | None:
    """Return the execution that stands for *home* (see `ExecutionName`), if there is one that lasts."""
    namespace = _namespace(home)
    execution = None if namespace is None else namespace["__name__"].execution
    return execution if isinstance(execution, Execution) else None


def interface_at(key: Key) -> Any:
    """Return the interface that *key* stands for at present, or None."""
    for value in list((_namespace(key[0]) or {}).values()):
        if is_interface(value) and (place := definition_key(value)) is not None and place[1] == key:
            return value
    return None


def origin(key: Key) -> Key | None:
    """Return the key under which the interface of *key* was known before it moved to where it is now."""
    old = _origins.get((key[0], key[1]))
    if old is None or _is_used(old, key[0]):
        return None
    return old[0], old[1], key[2], key[3]


def follows(new: Place, old: Place) -> bool:
    """Whether *new* is the place of *old*, or the one to which it has moved."""
    return new == old or new == _next(old)


def _qualified(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or thing.__name__)


def _namespace(home: str) -> dict[str, Any] | None:
    """The namespace of the execution that stands, or runs, for *home*, if it is one that lasts."""
    name = home.rpartition(":")[2]
    # While a module of another site has that name in `sys.modules`, this one is not in there, but stands.
    for module in (sys.modules.get(name), _modules.get(home) if name != home else None):
        namespace: dict[str, Any] = getattr(module, "__dict__", {})
        own = namespace.get("__name__")
        if isinstance(own, ExecutionName) and own.home == home:
            return namespace if own.cached else None
    return None


def _next(place: Place) -> Place | None:
    first, dot, rest = place[1].partition(".")
    moved = _moved.get((place[0], first))
    return None if moved is None else (moved[0], moved[1] + dot + rest)


def _is_used(place: Place, but: str) -> bool:
    """Whether a script or module, other than where it is defined and *but*, has what is defined at *place*."""
    top = place[0], place[1].partition(".")[0]
    return any(
        top in known.values() for name, (_, known) in _names.items() if name not in (place[0], but)
    )


def _look_up(namespace: Mapping[str, Any], qualname: str) -> Any:
    """What *qualname* stands for in *namespace*, or None."""
    first, *rest = qualname.split(".")
    found = namespace.get(first)
    for name in rest:
        found = inspect.getattr_static(found, name, None) if isinstance(found, type) else None
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def _is_alike(old: Any, new: Any) -> bool:
    """Whether *new* can stand for *old*: a class for a class, an enumeration for an enumeration, and so on."""
    if isinstance(old, type):
        return isinstance(new, type) and issubclass(old, Enum) == issubclass(new, Enum)
    return is_interface(new) if is_interface(old) else callable(new)
