"""What stands now for a class, a function or an interface that an earlier execution defined.

An example. The cached script ``a.rpy`` defines ``class Counter``, and a session keeps a `Counter`.
The script is edited and executed again: there is another class of that name, and
`current_definition` of the old class returns the new one. Then the class moves to ``helper.py``,
and the script has ``from helper import Counter`` instead: now it returns the class in ``helper``,
because `publish` saw that one name of one script first stood for its own class, and then for a
class of the same name in another module.

Only executions that went well count: a script's when it is published, a module's when it is loaded.
What they define is found where Python keeps it, in ``sys.modules`` under the execution's name. Here
are only names: no execution, class or session is kept alive.

A file that was saved is not executed at once. It is *retired*: whoever asks first for what stands
for one of its definitions has it executed, so that no object is used with an old class because
nobody has visited the right page. If that fails, the old definitions stand until the next save.

The invariant: `generation` has grown since anything became out of date. Whoever keeps the number
beside an object, and looks again when it differs, never uses an object of an old class.
"""

from __future__ import annotations

import inspect
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any, Final

from zope.interface.interface import InterfaceClass

from rpyserve.resources.resource import Resource
from rpyserve.scripts.execution import Execution, ExecutionName, Key, definition_key, is_interface

Place = tuple[str, str]
"""Where something is defined: the home of its module (see `ExecutionName`) and qualified name."""

generation = 1
"""Grows with whatever may leave an object of an old class somewhere."""
all_are_tracked = True
"""Whether the garbage collector knows the objects of all classes that were ever defined."""
edits = 1
"""Grows with each change of a definition; `generation` grows with it."""
remarks = 1
"""Grows with whatever is found out about definitions while they stay the same: who uses them, what
their objects lack.
"""

Observer = Callable[[str, str, Any, int], object]
"""Is told what kind of thing came of an edit, of which file, more about it, and how often."""

observers: Final[list[Observer]] = []
"""Who is told what comes of edits, in the thread in which it happens.

``executed``: the source of what was; ``carried``: the name of the class whose objects are of the
present class now; ``added``: class and attribute; ``lost``: a sentence that says what.
"""

MOST_PAGES: Final = 1000
"""In how many items of a container at top level resources are looked for."""

_DEFINITIONS: Final = (type, FunctionType, InterfaceClass)


@dataclass(frozen=True, slots=True)
class _Published:
    """What the last good execution of a file left.

    Args:
        path: the file.
        module: returns what was executed; None if it is gone.
    """

    path: str
    module: Callable[[], ModuleType | None]


def _no_module() -> None:
    """What an earlier process has executed."""


@dataclass(frozen=True, slots=True)
class _Uses:
    """Which definitions the code of a file can reach by names.

    Args:
        path: the file.
        names: where that is defined which its own global names stand for.
        places: the same, and what stands in the modules that it has imported as such.
    """

    path: str
    names: Mapping[str, Place]
    places: frozenset[Place]


@dataclass(frozen=True, slots=True, eq=False)
class _Retired:
    """A file that is out of date.

    Args:
        renew: executes it; see `retire`.
    """

    renew: Callable[[str], bool]


# The classes that were defined, as long as they live, by their ids.
_classes: dict[int, weakref.ref[type]] = {}

# Of ``type.__flags__``: the garbage collector knows the objects of the class.
IS_TRACKED: Final = 1 << 14

# What was published, by the home of its execution.
_published: dict[str, _Published] = {}
# What scripts and modules use, uncached ones too, by the home of the execution.
_uses: dict[str, _Uses] = {}
# The same as an earlier process had it, of files that this one has not executed yet.
_recalled_uses: dict[str, _Uses] = {}
# What of those published is out of date.
_retired: dict[str, _Retired] = {}
# What of those published could not be executed again.
_failed: set[str] = set()
# For each place that a definition has left, the one where it went.
_moved_to: dict[Place, Place] = {}
# The same the other way round.
_moved_from: dict[Place, Place] = {}
# By its id, an object that top-level code has made, as long as it lives, and its roles.
_roles: dict[int, tuple[weakref.ref[Any], set[Place]]] = {}


# What has happened


def advance() -> None:
    """Say that definitions may have changed, or are going to."""
    global generation, edits
    generation += 1
    edits += 1


def note_remark() -> None:
    """Say that more is known of definitions than before."""
    global remarks
    remarks += 1


def tell(kind: str, path: str | os.PathLike[str], about: Any, count: int = 1) -> None:
    """Tell all `observers` what came of an edit."""
    for observer in list(observers):
        observer(kind, os.fspath(path), about, count)


def tell_of_home(kind: str, home: str, about: Any, count: int = 1) -> None:
    """The same about the file at *home*."""
    if observers:
        execution = latest_execution(home)
        tell(kind, "" if execution is None else execution.path, about, count)


def advance_if_edited_since(edits_then: int) -> None:
    """Say that a request has ended which began when `edits` was *edits_then*.

    If definitions have changed meanwhile, its code may have kept objects of old classes until now.
    """
    global generation
    if edits_then != edits:
        generation += 1


def retire(homes: Iterable[str], renew: Callable[[str], bool]) -> None:
    """Say that what *homes* have defined is out of date.

    Args:
        renew: called with one of them when its definitions are asked for. It is to execute that
            file, and tells its author if that fails. It returns False if another thread must do it.
    """
    for home in homes:
        if home in _published:
            _retired[home] = _Retired(renew)
    advance()


def recall(home: str, path: str, renew: Callable[[str], bool]) -> None:
    """Say that an earlier process has executed the file of *home*, and objects of it come back.

    Does nothing if this one has. Else the file is executed when its definitions are asked for.

    Args:
        home: see `ExecutionName`.
        path: the file, which may be gone.
        renew: see `retire`.
    """
    if home not in _published and _latest_namespace(home) is None:
        _published[home] = _Published(path, _no_module)
        _retired[home] = _Retired(renew)


@dataclass(frozen=True, slots=True)
class Use:
    """How a file uses a definition of another one, or its own.

    Args:
        home: of the file that uses it.
        name: the name of the definition.
        has_name: whether that is a global name there which stands for it.
        homes: where all is defined that the file can reach under that name.
    """

    home: str
    name: str
    has_name: bool
    homes: tuple[str, ...]


def uses_of(place: Place) -> list[Use]:
    """Return how other files use what is defined at *place*, or used it in an earlier process."""
    top = place[0], place[1].partition(".")[0]
    return [
        Use(home, top[1], uses.names.get(top[1]) == top, _homes_reached(uses, top[1]))
        for home, uses in {**_recalled_uses, **_uses}.items()
        if home != top[0] and top in uses.places
    ]


def _homes_reached(uses: _Uses, name: str) -> tuple[str, ...]:
    return tuple(sorted(home for home, other in uses.places if other == name))


def recall_use(use: Use, place: Place) -> None:
    """Say that in an earlier process a file used what was defined at *place*.

    So it can be seen that this has moved since.
    """
    names = {use.name: (place[0], use.name)} if use.has_name else {}
    before = _Uses("", names, frozenset((home, use.name) for home in use.homes))
    now = _uses.get(use.home)
    if now is not None:
        _note_moves(before, now)
    elif use.home in _recalled_uses:
        other = _recalled_uses[use.home]
        both = {**other.names, **names}, other.places | before.places
        _recalled_uses[use.home] = _Uses("", *both)
    else:
        _recalled_uses[use.home] = before


def begin(home: str) -> None:
    """Say that a script is executed again, whose code may already use objects of its classes."""
    if home not in _retired:
        advance()


def publish(execution: Execution, module: ModuleType, *, is_repetition: bool = False) -> None:
    """Say that *execution* went well and lasts.

    Args:
        module: what it left behind.
        is_repetition: whether nobody can have anything of the execution before, whose code was the
            same, so that nothing is out of date.
    """
    global edits
    home = execution.name.home
    _claim_made_dataclasses(execution, module)
    _note_classes(execution, module)
    was_retired = _retired.pop(home, None) is not None
    _failed.discard(home)
    _note_roles(home, vars(module))
    before = _published.get(home)
    _published[home] = _Published(os.fspath(execution.path), weakref.ref(module))
    note_uses(execution, module)
    if was_retired:
        edits += 1  # whoever uses its objects has asked for it, or will
    elif before is not None and not is_repetition:
        advance()


def note_uses(execution: Execution, module: ModuleType) -> None:
    """Note which definitions the code in *module* uses, and which of them have moved."""
    home = execution.name.home
    before = _uses.get(home) or _recalled_uses.pop(home, None)
    names = {
        name: place
        for name, value in list(vars(module).items())
        if (place := place_of(value)) is not None
    }
    places = frozenset(names.values()) | _places_in_modules(module)
    now = _uses[home] = _Uses(os.fspath(execution.path), names, places)
    if before is None or before.places != places or before.names != names:
        note_remark()
    if before is not None:
        _note_moves(before, now)
    tell("executed", execution.path, execution.source)


def _note_moves(before: _Uses, now: _Uses) -> None:
    moves = list(_moves(before, now))
    for old, new in moves:
        _note_move(old, new)
    if moves:
        advance()


def _places_in_modules(module: ModuleType, package: str = "") -> frozenset[Place]:
    """Where that is defined which *module* reaches as ``m.x``, also as ``package.m.x``."""
    found: set[Place] = set()
    for value in list(vars(module).values()):
        if not isinstance(value, ModuleType) or value is module:
            continue
        name = value.__name__
        is_namespace = hasattr(value, "__path__") and getattr(value, "__file__", None) is None
        if name.startswith(package) and (is_namespace or isinstance(name, ExecutionName)):
            found.update(filter(None, map(place_of, list(vars(value).values()))))
            found |= _places_in_modules(value, f"{name}.")
    return frozenset(found)


def _moves(before: _Uses, now: _Uses) -> Iterator[tuple[Place, Place]]:
    """What has moved, from where, and to where.

    A name of the file now stands for what another file defines under that name. Or a definition is
    no longer reached, and one of its name is that was not before.
    """
    for name, place in now.names.items():
        old = before.names.get(name, place)
        if old[0] != place[0] and old[1] == place[1] == name:
            yield old, place
    appeared = now.places - before.places
    for old in before.places - now.places:
        new = [place for place in appeared if place[1] == old[1] and place[0] != old[0]]
        if len(new) == 1:
            yield old, new[0]


def _claim_made_dataclasses(execution: Execution, module: ModuleType) -> None:
    """Note where the classes of ``make_dataclass`` are defined: Python 3.11 says in ``types``."""
    for name, value in list(vars(module).items()):
        if not (isinstance(value, type) and value.__module__ == "types"):
            continue
        if value.__qualname__ == name and is_dataclass(value):
            value.__module__ = execution.name


def _note_classes(execution: Execution, module: ModuleType) -> None:
    queue = [*vars(module).values()]
    seen: set[int] = set()
    while queue:
        value = queue.pop()
        is_own = isinstance(value, type) and value.__module__ is execution.name
        if is_own and id(value) not in seen:
            seen.add(id(value))
            note_class(value)
            queue += vars(value).values()


def note_class(cls: type) -> None:
    """Note that there is the class *cls*, defined by an execution of this process or before."""
    global all_are_tracked
    number = id(cls)
    _classes[number] = weakref.ref(cls, lambda _: _classes.pop(number, None))
    all_are_tracked = all_are_tracked and bool(cls.__flags__ & IS_TRACKED)


def _note_move(old: Place, new: Place) -> None:
    """Whatever moves is at the end of its chain of moves, so that no chain is a circle."""
    _moved_to.pop(new, None)
    _moved_from.pop(old, None)
    _moved_to[old] = new
    _moved_from[new] = old


def forget(root: str) -> None:
    """Forget what the files below *root* have defined."""
    below = root + os.sep
    gone = {home for home, published in _published.items() if published.path.startswith(below)}
    for home in gone:
        del _published[home]
        _recalled_uses.pop(home, None)
        _retired.pop(home, None)
    _failed.difference_update(gone)
    for home in [home for home, uses in _uses.items() if uses.path.startswith(below)]:
        del _uses[home]
    for number, (_, roles) in list(_roles.items()):
        if not gone.isdisjoint(home for home, _ in roles):
            del _roles[number]
    for moves in (_moved_to, _moved_from):
        for here, there in list(moves.items()):
            if not gone.isdisjoint({here[0], there[0]}):
                del moves[here]


# What top-level code has made


def roles_of(thing: object) -> set[Place]:
    """Return what *thing* is for those scripts and modules that have made it at their top level.

    The name that such an object has there, or that of the page that it is a child of, is its role.
    The next execution makes another object for the same role. Empty for all other objects.
    """
    known = _roles.get(id(thing))
    return known[1] if known is not None and known[0]() is thing else set()


def made_as(role: Place) -> Any:
    """Return what has that role at present, or None. Its file is executed if it is out of date."""
    _renew(role[0])
    things = [reference() for reference, roles in list(_roles.values()) if role in roles]
    return next((thing for thing in things if thing is not None), None)


def _note_roles(home: str, namespace: Mapping[str, Any]) -> None:
    todo = [(name, value) for name, value in list(namespace.items()) if name[:2] != "__"]
    seen = {id(namespace)}
    for path, value in todo:  # it grows
        if not isinstance(value, (*_DEFINITIONS, ModuleType)) and id(value) not in seen:
            seen.add(id(value))
            _note_role(value, (home, path))
            todo += [(f"{path}.{name}", page) for name, page in _pages_in(value)]


def _note_role(thing: Any, role: Place) -> None:
    number = id(thing)
    try:
        reference = weakref.ref(thing, lambda _: _roles.pop(number, None))
    except TypeError:
        return  # a number, a text, a list
    if not roles_of(thing):
        _roles[number] = reference, set()
    _roles[number][1].add(role)


def _pages_in(value: Any) -> Iterator[tuple[str, Resource]]:
    """The resources that *value*, a container or a resource itself, directly holds."""
    held: dict[Any, Any] = {}
    if isinstance(value, Resource):
        held = {**vars(value), **value.children} if hasattr(value, "__dict__") else value.children
    elif isinstance(value, (list, tuple)):
        held = dict(enumerate(value[:MOST_PAGES]))
    elif isinstance(value, dict):
        held = dict(islice(value.items(), MOST_PAGES))
    for name, each in held.items():
        if isinstance(each, Resource):
            yield str(name), each


# Where something is defined


def place_of(thing: object) -> Place | None:
    """Where *thing*, a class, a function or an interface, is defined; None if no execution did."""
    if not isinstance(thing, _DEFINITIONS):
        return None
    name = getattr(thing, "__module__", None)
    return (name.home, _qualified_name(thing)) if isinstance(name, ExecutionName) else None


def home_of(defined: Any) -> str:
    """The home of the script or module that defined a class; empty if no execution did."""
    return defined.__module__.home if isinstance(defined.__module__, ExecutionName) else ""


# What stands now


def is_current(defined: Any) -> bool:
    """Whether *defined*, a class or a function, is not known to be out of date."""
    name = getattr(defined, "__module__", None)
    return type(name) is not ExecutionName or is_current_name(name)


def is_current_name(name: ExecutionName) -> bool:
    """Whether the execution of that name is not known to be out of date."""
    if name.home in _retired:
        return False
    namespace = _latest_namespace(name.home)
    return namespace is None or namespace["__name__"] is name


def current_definition(defined: Any) -> Any:
    """Return what stands now for *defined*, a class, a function or an interface.

    Returns:
        *defined* itself if it is current, or nothing else is known. What has replaced it, if that
        is of the same kind. None if it was removed: its script or module has no such definition any
        more.
    """
    name = getattr(defined, "__module__", None)
    if type(name) is not ExecutionName:
        return defined
    home, qualified_name = _present_place((name.home, _qualified_name(defined)))
    namespace = _latest_namespace(home)
    if namespace is None or namespace["__name__"] is name:
        return defined
    found = _look_up(namespace, qualified_name)
    return found if found is not None and _is_same_kind(defined, found) else None


def outdated_classes() -> dict[type, type]:
    """Return the classes that were defined again and still live, each with what stands for it."""
    references = list(_classes.values())
    classes = [cls for reference in references if (cls := reference()) is not None]
    # No file is executed for this.
    old = [cls for cls in classes if home_of(cls) not in _retired and not is_current(cls)]
    found = {cls: current_definition(cls) for cls in old}
    return {cls: new for cls, new in found.items() if new is not None and new is not cls}


def latest_execution(home: str) -> Execution | None:
    """Return the latest execution of *home* (see `ExecutionName`) that lasts, if there is one."""
    namespace = _latest_namespace(home)
    execution = None if namespace is None else namespace["__name__"].execution
    return execution if isinstance(execution, Execution) else None


def is_executed(home: str) -> bool:
    """Whether what *home* defines is there, and nothing must be executed to know it."""
    return home not in _retired and _latest_namespace(home) is not None


def namespace_of(home: str) -> Mapping[str, Any]:
    """Return the names in the latest execution of *home* that lasts; empty if there is none."""
    return _latest_namespace(home) or {}


def is_found_by_name(defined: Any) -> bool:
    """Whether *defined*, a class, a function or an interface, can be found by its name.

    True as well of what is out of date: it could.
    """
    name, qualified_name = defined.__module__, _qualified_name(defined)
    if "<" in qualified_name:
        return False
    namespace = _latest_namespace(name.home)
    if namespace is None or namespace["__name__"] is not name:
        return True
    return _look_up(namespace, qualified_name) is not None


def interface_at(key: Key) -> Any:
    """Return the interface that *key* stands for at present, or None."""
    _renew(key[0])
    for value in list((_latest_namespace(key[0]) or {}).values()):
        if not is_interface(value):
            continue
        defined = definition_key(value)
        if defined is not None and defined[1] == key:
            return value
    return None


def key_before_move(key: Key) -> Key | None:
    """Return the key that the interface of *key* had before it moved; None if it did not."""
    home, name, number, era = key
    old = _moved_from.get((home, name))
    if old is None or _is_shared(old, home):
        return None
    return *old, number, era


def is_same_definition(new: Place, old: Place) -> bool:
    """Whether *new* is the place of *old*, or the one to which it has moved."""
    return new == old or new == _next_move(old)


# What is out of date is executed


def _present_place(place: Place) -> Place:
    """Where the definition at *place* is now. What is out of date on the way is executed."""
    _renew(place[0])
    if _is_gone(place):
        for home in _retired.keys() & _users_of(place):
            _renew(home)  # this may show where it has moved to
    place = _after_moves(place)
    _renew(place[0])
    return place


def _renew(home: str) -> None:
    """Execute the file of *home* if it is out of date."""
    global generation
    retired = _retired.get(home)
    if retired is None:
        return
    if not retired.renew(home):
        generation += 1  # whoever asks has not seen the last of it
    elif _retired.get(home) is retired:
        del _retired[home]
        _failed.add(home)
        _recalled_uses.pop(home, None)


def _is_gone(place: Place) -> bool:
    """Whether the file at *place* is no longer there, or has no definition of that name."""
    home, qualified_name = place
    namespace = _latest_namespace(home)
    if home in _retired or home not in _published:
        return False
    if namespace is None:
        return not os.path.exists(_published[home].path)
    return _look_up(namespace, qualified_name) is None


def _users_of(place: Place) -> set[str]:
    """The homes in which a name stands for the definition at *place*."""
    top = place[0], place[1].partition(".")[0]
    known = *_uses.items(), *_recalled_uses.items()
    return {home for home, uses in known if top in uses.places}


# Helpers


def _qualified_name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or thing.__name__)


def _latest_namespace(home: str) -> dict[str, Any] | None:
    """The namespace of the latest execution of *home* that lasts, be it running or published."""
    name = home.rpartition(":")[2]
    modules = [sys.modules.get(name)]
    # While a module of another site has that name in `sys.modules`, this one is set aside.
    if name != home and home in _published and home not in _failed:
        modules.append(_published[home].module())
    for module in modules:
        namespace: dict[str, Any] = getattr(module, "__dict__", {})
        own_name = namespace.get("__name__")
        if isinstance(own_name, ExecutionName) and own_name.home == home:
            return namespace if own_name.cached else None
    return None


def _after_moves(place: Place) -> Place:
    """Where the definition at *place* is now.

    What another file still uses at its old place was copied, and has not moved.
    """
    for _ in range(len(_moved_to)):
        moved = _next_move(place)
        if moved is None or _is_shared(place, moved[0]):
            break
        place = moved
    return place


def _next_move(place: Place) -> Place | None:
    """Where the definition at *place* moved to, perhaps inside of a class that moved."""
    home, qualified_name = place
    first, dot, rest = qualified_name.partition(".")
    moved = _moved_to.get((home, first))
    return None if moved is None else (moved[0], moved[1] + dot + rest)


def _is_shared(place: Place, user: str) -> bool:
    """Whether any file but its own and the one of *user* has the definition at *place*."""
    home, qualified_name = place
    top = home, qualified_name.partition(".")[0]
    return not _users_of(top) <= {home, user}


def _look_up(namespace: Mapping[str, Any], qualified_name: str) -> Any:
    """What *qualified_name* stands for in *namespace*, or None."""
    first, *rest = qualified_name.split(".")
    found = namespace.get(first)
    for name in rest:
        found = inspect.getattr_static(found, name, None) if isinstance(found, type) else None
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def _is_same_kind(old: Any, new: Any) -> bool:
    """Whether *new* can stand for *old*: a class for a class, an enumeration for an enumeration."""
    if isinstance(old, type):
        return isinstance(new, type) and issubclass(old, Enum) == issubclass(new, Enum)
    return is_interface(new) if is_interface(old) else callable(new)
