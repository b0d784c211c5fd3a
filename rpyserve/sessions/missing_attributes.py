"""The attributes that objects from before an edit lack, and where they are taken from.

What an object has is never replaced, and a value that cannot be known is not invented: it is named
on the console. In this order an object gets what it lacks:

1. What the old class gave it under that name: the value of a property, or of the class itself.
2. The default of a field of a dataclass, and of what attrs, msgspec and pydantic call fields.
3. What a new object has, constructed with this object's own values under the names of the
   parameters. Only when the attribute is first asked for: a constructor may be slow, and may do
   more than set attributes. A value that is made of something that this object does not have, or
   has otherwise than the new one, is not taken.

For the third the class gets a ``__getattr__``, which Python calls only where an attribute is not
found, and a ``__reduce_ex__``, which makes copies. They know the objects that wait by their
identity, so that objects from after the edit are as they would be without them, and they go when
none waits any more. What is not there raises what Python would raise.

The new object is a ghost: nobody shall meet it. Wherever its constructor put it, in sessions, the
registry, or any list, dict, set or object, it is taken out again, or the object that it was made
for takes its place.

A class whose constructor proved slow is called no more: see `_State.measure`.
"""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, Protocol

from rpyserve.scripts import definitions
from rpyserve.sessions import object_state
from rpyserve.sessions.containers import ATOMS, container_type_of, rebuild
from rpyserve.sessions.object_state import (
    attributes,
    class_value,
    has_attribute,
    set_attribute,
)
from rpyserve.util.author_code import ServerObject
from rpyserve.util.slow_calls import slow_call_log

SLOW: Final = 0.02
"""Seconds that a constructor may take."""

MOST_SLOW_CALLS: Final = 3
"""After how many calls in a row that took longer a constructor is called no more."""

TOO_SLOW: Final = 1.0
"""Seconds after which one such call is enough."""

_MOST_NESTED: Final = 20
_MOST_WAIT: Final = 5.0
_MOST_FOLLOWED: Final = 500

ON_CHANGE: Final = "__rpyserve_on_change__"
"""On an old class: called with an object of a new class, and what that was, before all else."""

Log = Callable[[int, str, str], None]
"""Logs a sentence of a level and a home, once for each version of the file at that home."""


class Unknown(Exception):
    """Why an attribute is not taken from a new object."""


# What is known of a class


@dataclass(eq=False, slots=True)
class _State:
    """What the objects of one class from before its edits may lack.

    Attributes:
        names: these attributes.
        waiting: how many objects wait for the first use of such an attribute.
        slow_calls: how many calls of the constructor in a row were slow.
        registers: whether a constructor puts its object into something that others hold: the last
            one that was called did, or none was called yet.
        log: where to say so.
        said: the lines that were logged: there may be a million objects to say it of.
    """

    log: Log
    said: set[str] = field(default_factory=set)
    names: frozenset[str] = frozenset()
    waiting: int = 0
    slow_calls: int = 0
    registers: bool = True

    @property
    def is_slow(self) -> bool:
        return self.slow_calls >= MOST_SLOW_CALLS

    def measure(self, seconds: float) -> None:
        """Take note of a call. One fast call takes back those before: the machine was busy."""
        if seconds >= TOO_SLOW:
            self.slow_calls = MOST_SLOW_CALLS
        elif not self.is_slow:
            self.slow_calls = self.slow_calls + 1 if seconds > SLOW else 0

    def add_names(self, names: frozenset[str]) -> None:
        """Say that objects may lack these, too."""
        if not names <= self.names:
            self.names |= names
            definitions.note_remark()

    def may_lack(self, name: str) -> bool:
        """Whether *name* is one of the names, or may be one that cannot be read off."""
        return name in self.names or any(not each.isidentifier() for each in self.names)


_states: weakref.WeakKeyDictionary[type, _State] = weakref.WeakKeyDictionary()


def may_have_gaps(cls: type) -> bool:
    """Whether objects of *cls*, from before an edit, may lack attributes."""
    state = _states.get(cls)
    return state is not None and bool(state.names)


def gaps_of(thing: Any) -> frozenset[str]:
    """The attributes that *thing* still lacks after it was given all that can be known."""
    _supply(thing)
    _remove_hooks_if_done(type(thing))
    state = _states.get(type(thing))
    return frozenset() if state is None else object_state.missing_of(thing, state.names)


@dataclass(frozen=True, slots=True)
class _Edit:
    """What happened to a class from one version to another.

    Attributes:
        names: attributes that objects may lack.
        former: what the old class had under names that the constructor sets now.
        defaults: what makes the default of a field that was added.
        hiding: objects' own attributes that would hide what the class defines now.
        outdated: cached properties with other code than before.
        has_private: whether it has private attributes of pydantic.
        old_parameters: the parameters that the old class had.
    """

    names: frozenset[str]
    former: dict[str, Any]
    defaults: dict[str, object_state.Default]
    hiding: frozenset[str]
    outdated: frozenset[str]
    has_private: bool
    old_parameters: frozenset[str]

    @property
    def changes_objects(self) -> bool:
        """Whether objects change at once, and not only at the first use of what they lack."""
        kinds = self.former, self.defaults, self.hiding, self.outdated, self.has_private
        return any(kinds)


def _compare(cls: type, old_class: type, state: _State) -> _Edit:
    before, now = map(_set_by, (old_class, cls))
    old_state = _states.get(old_class)
    still_missing = old_state.names & now if old_state else frozenset()
    # What an object had from its class only, it may lack if it has the name itself now.
    shared = {name for name in now & before if _is_plain(class_value(old_class, name))}
    names = (now - before) | still_missing | shared
    names |= {f"*{name}" for name in names if _reads_elsewhere(class_value(cls, name))}
    state.add_names(names)
    defaults = object_state.field_defaults(cls)
    return _Edit(
        names,
        former={name: value for name in names if (value := _former(cls, old_class, name))},
        defaults={name: make for name, make in defaults.items() if name in names},
        hiding=frozenset(name for name in before - now if _is_hidden(cls, old_class, name)),
        outdated=frozenset(_outdated_properties(cls, old_class)),
        has_private=bool(object_state.private_attributes_of(cls)),
        old_parameters=frozenset(each.name for each in object_state.parameters_of(old_class)),
    )


def _set_by(cls: type) -> frozenset[str]:
    return object_state.assigned_by_class(cls) | object_state.field_names(cls)


def _former(cls: type, old_class: type, name: str) -> Any:
    """What *old_class* had under *name* and *cls* has no more, if a value can come of it."""
    value, now = class_value(old_class, name), class_value(cls, name)
    if isinstance(now, MemberDescriptorType):
        now = None  # a slot, which is empty as yet
    if isinstance(value, (property, cached_property)):
        return None if _is_definition(now) else value
    return None if value is None or _is_definition(value) or now is not None else (value,)


def _is_hidden(cls: type, old_class: type, name: str) -> bool:
    """Whether *cls* has a method under *name*, which *old_class* had not.

    A property is not hidden by what an object has.
    """
    value = class_value(cls, name)
    is_method = _is_definition(value) and not hasattr(type(value), "__set__")
    return is_method and not _is_definition(class_value(old_class, name))


def _is_plain(value: object) -> bool:
    return value is not None and not _is_definition(value)


def _reads_elsewhere(value: object) -> bool:
    """Whether *value* is a descriptor that keeps what it is given under another name."""
    is_ours = isinstance(value, (property, MemberDescriptorType))
    return hasattr(type(value), "__set__") and not is_ours


def _is_definition(value: object) -> bool:
    """Whether a class has *value* to make something else of it: a method, a property."""
    return hasattr(type(value), "__get__")


def _outdated_properties(cls: type, old_class: type) -> Iterable[str]:
    before, now = map(object_state.cached_properties, (old_class, cls))
    return [name for name in before.keys() & now if before[name] != now[name]]


# One migration


class Holder(Protocol):
    """A session, or the registry."""

    @property
    def instance(self) -> Any: ...

    @property
    def fresh_instance(self) -> Callable[[], Any]:
        """A method that returns a new one, made as this one was."""

    @property
    def without_side_effects(self) -> Callable[[Callable[[], list[Any]]], list[Any]]:
        """A method that calls a function, and undoes what that does to session and registry.

        What the function adds there and returns, too, stays.
        """


class _HolderMethods:
    """The methods of a holder, which they do not keep alive."""

    def __init__(self, holder: Holder) -> None:
        self.instance = weakref.ref(holder.instance)
        self.make_another = weakref.WeakMethod(holder.fresh_instance)
        self.undo = weakref.WeakMethod(holder.without_side_effects)


class AttributeFiller:
    """Gives the objects of one session, or of the registry, what they lack.

    Args:
        holder: the session or registry.
        factories: what makes another component of it, by the component's id. More may be put in.
        without_interface: the ids of components whose interface is not there for the moment: what
            they lack is added after another edit. More may be put in.
        log: where to say what was done.
    """

    def __init__(
        self,
        holder: Holder,
        factories: dict[int, Callable[[Any], Any]],
        without_interface: set[int],
        log: Log,
    ) -> None:
        self._factories = factories
        self._without_interface = without_interface
        self._methods = _HolderMethods(holder)
        self._log = log
        self._edits: dict[tuple[type, type], _Edit] = {}
        self._held: list[_Held] = []

    def note(self, thing: Any, old_class: type, former: Any) -> None:
        """Say that *former*, an *old_class*, is of another class now, or *thing* in its place.

        From now on it has what it lacks, before anything of it is asked: call this before its hash
        can be needed.
        """
        on_change = vars(old_class).get(ON_CHANGE)
        if on_change is not None:
            on_change(thing, former)
        edit = self._edit(type(thing), old_class)
        old_parameters = _stop_waiting(former)
        if old_parameters is None:
            old_parameters = edit.old_parameters
        if edit.changes_objects:
            self._change(thing, edit)
        factory = self._factories.get(id(thing))
        names = edit.names | object_state.assigned_by_function(factory)
        if object_state.missing_of(thing, names):
            state = _states[type(thing)]
            state.add_names(names)
            if id(thing) not in self._without_interface:
                self._wait(thing, factory, state, old_parameters)

    def finish(self) -> None:
        """Fill what cannot wait for its first use."""
        for held in self._held:
            _supply(held.thing)
        for thing in {type(held.thing): held.thing for held in self._held}.values():
            _remove_hooks_if_done(type(thing))
        self._held.clear()

    def _edit(self, cls: type, old_class: type) -> _Edit:
        classes = cls, old_class
        if classes not in self._edits:
            state = _states.setdefault(cls, _State(self._log))
            self._edits[classes] = _compare(cls, old_class, state)
        return self._edits[classes]

    def _change(self, thing: Any, edit: _Edit) -> None:
        """Change what needs no new object."""
        self._drop(thing, edit)
        self._add_known(thing, edit)
        if edit.has_private:
            self._add_private(thing)

    def _drop(self, thing: Any, edit: _Edit) -> None:
        """Drop attributes that would hide what the class defines, and what was cached."""
        own = object_state.dict_of(thing)
        for names, sentence in ((edit.hiding, _HIDDEN), (edit.outdated, _OUTDATED)):
            dropped = sorted(name for name in names if name in own)
            for name in dropped:
                del own[name]
            if dropped:
                line = sentence.format(type(thing).__qualname__, ", ".join(dropped))
                _say(logging.INFO, type(thing), line)

    def _add_known(self, thing: Any, edit: _Edit) -> None:
        """Add what the old class gave it, and defaults."""
        for makers, where in ((edit.former, _FORMER), (edit.defaults, _FIELDS)):
            added = []
            for name, make in makers.items():
                if isinstance(make, property) or not has_attribute(thing, name):
                    added += self._add(thing, name, make)
            _say_added(type(thing), added, where)

    def _add(self, thing: Any, name: str, make: Any) -> list[str]:
        """Add one attribute; what fails is said when the attribute is asked for."""
        state = _states[type(thing)]
        if state.is_slow:
            return []
        try:
            with _measuring(state):
                value = _value_of(make, thing)
            set_attribute(thing, name, value)
        except Exception as exc:
            _say_missing(type(thing), [name], _described(exc))
            return []
        return [name]

    def _add_private(self, thing: Any) -> None:
        cls = type(thing)
        lacking = object_state.missing_private_attributes(thing)
        if not lacking or _states[cls].is_slow:
            return
        try:
            with _measuring(_states[cls]):
                _say_added(cls, object_state.add_private_attributes(thing), _FIELDS)
        except Exception as exc:
            _say_missing(cls, lacking, _described(exc))

    def _wait(
        self,
        thing: Any,
        factory: Callable[[Any], Any] | None,
        state: _State,
        old_parameters: frozenset[str],
    ) -> None:
        entry: _Reference | _Held
        try:
            entry = _Reference(thing, _forget)
        except TypeError:  # its class has slots, and none for weak references
            entry = _Held(thing)
            self._held.append(entry)
        entry.key, entry.state = id(thing), state
        entry.factory, entry.holder = factory, self._methods
        entry.old_parameters = old_parameters
        state.waiting += 1
        _waiting[id(thing)] = entry
        _install_hooks(type(thing))


def _value_of(make: Any, thing: Any) -> Any:
    """The value that a property, a class, or the default of a field gives *thing*."""
    if isinstance(make, property):
        return make.__get__(thing, type(thing))
    if isinstance(make, cached_property):
        return make.func(thing)
    if isinstance(make, tuple):  # all objects shared it; now each has its own
        (value,) = make
        return copy.copy(value) if type(value) in (list, dict, set) else value
    return make(thing)


# Objects that wait


class _Reference(weakref.ref[Any]):
    """An object that waits. It is not kept alive.

    Attributes:
        old_parameters: the parameters that it may have been constructed with: those of the class
            that it had before the first edit since which it waits.
    """

    __slots__ = ("factory", "holder", "key", "old_parameters", "state")

    key: int
    state: _State
    factory: Callable[[Any], Any] | None
    holder: _HolderMethods
    old_parameters: frozenset[str]


@dataclass(eq=False)
class _Held:
    """The same of an object without weak references, until its migration ends."""

    thing: Any
    key: int = 0
    state: Any = None
    factory: Callable[[Any], Any] | None = None
    holder: Any = None
    old_parameters: frozenset[str] = frozenset()

    def __call__(self) -> Any:
        return self.thing


@dataclass(eq=False, slots=True)
class _UnderWay:
    """An object that is being filled."""

    thread: int = field(default_factory=threading.get_ident)
    done: threading.Event = field(default_factory=threading.Event)


_waiting: dict[int, _Reference | _Held] = {}
_under_way: dict[int, _UnderWay] = {}
_nesting = threading.local()
_hooks_lock = threading.RLock()


def _forget(entry: _Reference) -> None:
    """The object is gone."""
    if _waiting.get(entry.key) is entry:
        del _waiting[entry.key]
        entry.state.waiting -= 1


def _stop_waiting(thing: Any) -> frozenset[str] | None:
    """Have *thing* wait no more. Return its `_Reference.old_parameters`; None if it did not."""
    entry = _waiting.get(id(thing))
    if entry is None or _waiting.pop(id(thing), None) is not entry:
        return None
    entry.state.waiting -= 1
    return entry.old_parameters


def _supply(thing: Any, name: str = "") -> bool:
    """Give *thing* all that it lacks; return whether it has *name* now.

    Does nothing for an object that does not wait, and for a name that is not lacking.
    """
    entry = _waiting.get(id(thing))
    if entry is None or entry() is not thing:
        return False
    if name.startswith("__") or (name and not entry.state.may_lack(name)):
        return False
    mine = _UnderWay()
    other = _under_way.setdefault(id(thing), mine)
    if other is mine:
        try:
            _fill_unless_too_deep(thing, entry)
        finally:
            del _under_way[id(thing)]
            mine.done.set()
    elif other.thread != mine.thread:
        other.done.wait(_MOST_WAIT)
    # Else a constructor reads the very object that it is called for.
    return has_attribute(thing, name)


def _fill_unless_too_deep(thing: Any, entry: _Reference | _Held) -> None:
    depth = getattr(_nesting, "depth", 0)
    if depth >= _MOST_NESTED:
        return
    _nesting.depth = depth + 1
    try:
        _fill(thing, entry)
    finally:
        _nesting.depth = depth
    _stop_waiting(thing)


def _fill(thing: Any, entry: _Reference | _Held) -> None:
    cls, state = type(thing), entry.state
    lacking = object_state.missing_of(thing, state.names)
    if not lacking:
        return
    try:
        if state.is_slow:
            raise Unknown("its constructor is too slow to be called for each of them")
        added, how = _take_from_another(thing, entry, lacking)
    except Unknown as exc:
        _say_missing(cls, object_state.missing_of(thing, lacking), str(exc))
        return
    except Exception as exc:
        _say_missing(cls, object_state.missing_of(thing, lacking), _described(exc))
        return
    _say_added(cls, added, how)


def _say_added(cls: type, names: Iterable[str], where: str) -> None:
    if not names:
        return
    line = _ADDED.format(cls.__qualname__, ", ".join(sorted(names)), where)
    if _say(logging.INFO, cls, line):
        for name in names:
            about = f"{cls.__qualname__}.{name}"
            definitions.tell_of_home("added", definitions.home_of(cls), about)


def _say_missing(cls: type, missing: Iterable[str], reason: str) -> None:
    names = sorted(name for name in missing if name.isidentifier())
    if names:
        line = _MISSING.format(cls.__qualname__, ", ".join(names), reason, names[0])
        _say(logging.WARNING, cls, line)


def _say(level: int, cls: type, line: str) -> bool:
    """Returns whether it was not said before."""
    state = _states[cls]
    if line in state.said:
        return False
    state.said.add(line)
    state.log(level, definitions.home_of(cls), line)
    return True


def _described(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".rstrip(".")


# The hooks


def _install_hooks(cls: type) -> None:
    """Have lookups that fail on objects of *cls*, and copies of them, come here first.

    A metaclass is not asked: it may not allow it.
    """
    with _hooks_lock:
        for name, make_hook in _HOOKS.items():
            own = vars(cls).get(name)
            if not getattr(own, "is_hook", False):
                type.__setattr__(cls, name, make_hook(cls, own))


def _remove_hooks_if_done(cls: type) -> None:
    state = _states.get(cls)
    if state is None or state.waiting:
        return
    with _hooks_lock:
        for name in _HOOKS if not state.waiting else ():
            hook: Any = vars(cls).get(name)
            if not getattr(hook, "is_hook", False):
                continue
            if hook.own is None:
                type.__delattr__(cls, name)
            else:
                type.__setattr__(cls, name, hook.own)


def _lookup_hook(cls: type, own: Any) -> Any:
    """``__getattr__``: called with a name that an object does not have."""

    def __getattr__(self: Any, name: str) -> Any:
        getattribute: Any = type(self).__getattribute__
        is_there = _supply(self, name)
        _remove_hooks_if_done(cls)
        if is_there:
            return getattribute(self, name)
        if own is not None:
            return own.__get__(self, type(self))(name)
        inherited = getattr(super(cls, self), "__getattr__", None)
        if inherited is not None:
            return inherited(name)
        return getattribute(self, name)  # it raises, and says what there is to say

    __getattr__.is_hook, __getattr__.own = True, own  # type: ignore[attr-defined]
    return __getattr__


def _copy_hook(cls: type, own: Any) -> Any:
    """``__reduce_ex__``: called by `copy` and `pickle`, so that copies lack nothing."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        _supply(self)
        _remove_hooks_if_done(cls)
        inherited: Any = super(cls, self).__reduce_ex__  # type: ignore[arg-type]
        return (inherited if own is None else own.__get__(self, type(self)))(protocol)

    __reduce_ex__.is_hook, __reduce_ex__.own = True, own  # type: ignore[attr-defined]
    return __reduce_ex__


_HOOKS: Final = {"__getattr__": _lookup_hook, "__reduce_ex__": _copy_hook}


# The ghost


@contextmanager
def _measuring(state: _State) -> Iterator[None]:
    """While inside, a constructor, a property or a default is called: it is measured."""
    began = time.perf_counter()
    try:
        with slow_call_log.own_call():
            yield
    finally:
        state.measure(time.perf_counter() - began)


def _take_from_another(
    thing: Any, entry: _Reference | _Held, lacking: frozenset[str]
) -> tuple[list[str], str]:
    """Give *thing* what a new object has.

    Returns:
        The names of what it got, and where from.
    """
    arguments = _Arguments(thing, entry.old_parameters)
    make, how = _maker(thing, entry, arguments)
    # In a list, so that nothing here refers to the new one but that list.
    ghost: list[Any] = []
    removal = _Removal(ghost, thing, entry.state)
    try:
        _construct(thing, entry, make, ghost)
        if ghost[0] is thing or removal.was_there_before:
            raise Unknown("its class has no other object")
        if type(ghost[0]) is not type(thing):
            raise Unknown(f"a new one is of the class {type(ghost[0]).__name__}")
        added, unknown = _take(thing, ghost, lacking, arguments)
    finally:
        removal.run()
    for name in sorted(lacking & unknown.keys()):
        _say_missing(type(thing), [name], unknown[name])
    return added, how


def _construct(
    thing: Any, entry: _Reference | _Held, make: Callable[[], Any], ghost: list[Any]
) -> None:
    """Put what *make* returns into *ghost*; if it raises, the object it was about to return."""
    own = attributes(thing)
    try:
        with _measuring(entry.state):
            _undoing(entry.holder.undo(), make, ghost)
    except Exception as exc:
        ghost += _constructed_in(exc, type(thing))
        exc.__traceback__ = None  # it refers to the new object
        raise
    if ghost[0] is thing:  # there is only one, and its constructor has run again
        for name, value in own.items():
            set_attribute(thing, name, value)


def _constructed_in(exc: Exception, cls: type) -> list[Any]:
    """The object whose constructor has raised *exc*, if there is one."""
    traceback = exc.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_name == "__init__" and code.co_argcount:
            first = traceback.tb_frame.f_locals.get(code.co_varnames[0])
            if type(first) is cls:
                return [first]
        traceback = traceback.tb_next
    return []


def _take(
    thing: Any, ghost: list[Any], lacking: frozenset[str], arguments: _Arguments
) -> tuple[list[str], dict[str, str]]:
    """Give *thing* what it lacks; return the names, and why it does not take others."""
    fresh = attributes(ghost[0])
    unknown = _unknown(thing, fresh, arguments)
    kept = object_state.assigned_by_class(type(thing)) - lacking
    added = []
    for name, value in fresh.items():
        if name not in kept and name not in unknown and not has_attribute(thing, name):
            set_attribute(thing, name, arguments.original_of(value))
            added.append(name)
    return added, unknown


def _maker(
    thing: Any, entry: _Reference | _Held, arguments: _Arguments
) -> tuple[Callable[[], Any], str]:
    if class_value(type(thing), "__del__") is not None:
        raise Unknown("its class has a __del__, which would run for a new one as well")
    factory, holder = entry.factory, entry.holder.instance()
    make_another = entry.holder.make_another()
    if thing is holder and make_another is not None:
        return make_another, "a new one"
    if factory is None:
        arguments.read()
        cls: Any = type(thing)
        return lambda: cls(*arguments.positional, **arguments.by_keyword), arguments.described
    if holder is None:
        raise Unknown("its session is gone")
    return lambda: factory(holder), "a new one"


def _undoing(undo: Any, make: Callable[[], Any], made: list[Any]) -> None:
    """Put what *make* returns into *made*, and undo what it does to session and registry.

    What it adds there and has as its own attribute stays: both shall be the same object.
    """

    def inner() -> list[Any]:
        made.append(make())
        return list(attributes(made[0]).values())

    if undo is None:  # the session is gone
        made.append(make())
    else:
        undo(inner)


class _Arguments:
    """The arguments to construct another object like *thing* with.

    Attributes:
        unknown: the parameters whose values are not known, and that *thing* may have been
            constructed with.
    """

    def __init__(self, thing: Any, old_parameters: frozenset[str]) -> None:
        self._class = type(thing)
        self._known = attributes(thing)
        self._old_parameters = old_parameters
        self.positional: list[Any] = []
        self.by_keyword: dict[str, Any] = {}
        self.unknown: set[str] = set()
        self._own: dict[str, str] = {}
        # A constructor may change what it is given: it gets copies. By the ids of these.
        self._originals: dict[int, tuple[Any, Any]] = {}

    def original_of(self, value: Any) -> Any:
        """What *value* is a copy of; itself if it is none."""
        return self._originals.get(id(value), (value,))[0]

    def _copy(self, value: Any) -> Any:
        if type(value) not in (list, dict, set, deque, bytearray):
            return value
        copied = copy.copy(value)
        self._originals[id(copied)] = value, copied
        return copied

    @property
    def described(self) -> str:
        name = self._class.__name__
        given = ", ".join(f"{parameter}=self.{own}" for parameter, own in self._own.items())
        return f"{name}({given})"

    def read(self) -> None:
        """Find them all.

        Raises:
            Unknown: there is nothing for a parameter that must be given.
        """
        for parameter in object_state.parameters_of(self._class):
            attribute = self._attribute_for(parameter.name)
            if attribute is None:
                self._leave_out(parameter)
            else:
                self._pass(parameter, self._copy(self._known[attribute]))
                self._own[parameter.name] = attribute

    def _attribute_for(self, name: str) -> str | None:
        """The attribute that has what was given for *name*: as it was assigned, or of its name."""
        kept_as = object_state.sources_of(self._class).kept_as.get(name, [])
        candidates = [*sorted(kept_as, key=lambda attribute: attribute != name), name]
        return next((each for each in candidates if each in self._known), None)

    def _pass(self, parameter: inspect.Parameter, value: Any) -> None:
        match parameter.kind:
            case parameter.VAR_POSITIONAL if isinstance(value, (list, tuple)):
                self.positional += value
            case parameter.VAR_KEYWORD if isinstance(value, dict):
                self.by_keyword |= value
            case parameter.VAR_POSITIONAL | parameter.VAR_KEYWORD:
                self.unknown.add(parameter.name)
            case parameter.KEYWORD_ONLY:
                self.by_keyword[parameter.name] = value
            case _:
                self.positional.append(value)

    def _leave_out(self, parameter: inspect.Parameter) -> None:
        name = parameter.name
        is_variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not is_variable:
            raise Unknown(f"its constructor wants {name}, and it has no attribute of that name")
        # A parameter that the edit has added was not given before: its default is right.
        if name in self._old_parameters:
            self.unknown.add(name)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            self.positional.append(parameter.default)


def _unknown(thing: Any, fresh: dict[str, Any], arguments: _Arguments) -> dict[str, str]:
    """Those of the new object's attributes that *thing* cannot take, and why.

    They are made of a parameter that is not known, or of another attribute that *thing* has
    otherwise.
    """
    own, parameters = attributes(thing), arguments.unknown
    changed = {
        name
        for name in own.keys() & fresh.keys()
        if not _is_same(own[name], arguments.original_of(fresh[name]))
    }
    found = {}
    for name in fresh.keys() - own.keys():
        for source in _all_sources(type(thing), name, own.keys()):
            if source in parameters:
                found[name] = f"it is made of {source}, which they do not keep"
            elif source.removeprefix(".") in changed and source.startswith("."):
                found[name] = f"it is made of {source[1:]}, which may be another by now"
        if parameters and name not in object_state.sources_of(type(thing)).of:
            found[name] = f"it may be made of {min(parameters)}, which they do not keep"
    return found


def _all_sources(cls: type, name: str, own: Iterable[str]) -> set[str]:
    """What the attribute *name* is made of, in the end: parameters, and attributes in *own*."""
    sources = object_state.sources_of(cls)
    found: set[str] = set()
    queue = [f".{name}"]
    while queue:
        source = queue.pop()
        if source in found:
            continue
        found.add(source)
        if source.startswith(".") and source[1:] not in own:
            queue += sources.of.get(source[1:], ())
            queue += (f".{each}" for each in object_state.names_in_code(cls, source[1:]))
    return found


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are surely the same, without asking their own ``__eq__``."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in (list, dict, set, tuple, frozenset, deque):
        return not one and not other
    return type(one) in ATOMS and bool(one == other)


class _Removal:
    """Removes one new object, which nobody shall meet, from wherever it is.

    Args:
        ghost: a list that will have that object, if there is one.
        thing: the object that it is made for. It takes its place again where it has lost it.
        state: what is known of its class.
    """

    def __init__(self, ghost: list[Any], thing: Any, state: _State) -> None:
        self._ghost = ghost
        self._thing = thing
        self._state = state
        # Looking through all objects takes time: only where the constructor may register its own.
        self._is_known = state.registers
        # What refers to it, and all objects of its class.
        self._before = gc.get_referrers(thing, type(thing)) if self._is_known else []
        others = [each for each in self._before if type(each) is not type(thing)]
        holders = [each for each in others if isinstance(each, (list, deque, dict))]
        self._held_by = [each for each in holders if _contains(_items_of(each), thing)]

    @cached_property
    def was_there_before(self) -> bool:
        """Whether it is no new object: one that others have, such as one of a pool."""
        return bool(self._ghost) and _contains(self._before, self._ghost[0])

    def run(self) -> None:
        """Remove it."""
        ghost, thing = self._ghost, self._thing
        if not ghost or ghost[0] is thing or self.was_there_before:
            return
        probe = [object()]
        references = sys.getrefcount(ghost[0]) - sys.getrefcount(probe[0])
        # By the ids of the new object, its methods and tuples with it: what takes their place.
        self._replacements: dict[int, Any] = {id(ghost[0]): thing}
        self._below = _reachable_from(ghost[0])
        self._inside = {*map(id, self._below), id(object_state.dict_of(thing))}
        self._below += [thing, object_state.dict_of(thing)]
        self._state.registers = references > self._references_below()
        if references:
            self._replace_everywhere()

    def _replace_everywhere(self) -> None:
        ghosts = self._ghost
        # First what refers to it; then what refers to its methods, and to tuples with it.
        for _ in range(3):
            referrers = gc.get_referrers(*ghosts) if self._state.registers else self._below
            ghosts = self._replace_in_all(referrers, ghosts)
            if not ghosts:
                return

    def _references_below(self) -> int:
        ids = [id(each) for holder in self._below for each in gc.get_referents(holder)]
        return ids.count(id(self._ghost[0]))

    def _replace_in_all(self, referrers: list[Any], ghosts: list[Any]) -> list[Any]:
        """Replace in all of them; return those that are immutable, and are to be replaced, too."""
        ours = {id(ghosts), id(self._ghost), id(self._ghost[0]), id(referrers)}
        immutable = []
        for referrer in referrers:
            if id(referrer) in ours:
                continue
            if type(referrer) not in (tuple, MethodType):
                self._replace_in(referrer)
            elif self._holds_ghost(referrer) and not _is_same_sequence(referrer, ghosts):
                immutable.append(referrer)
        for each in immutable:
            self._replacements[id(each)] = rebuild(each, type(each), self._replacement_of)
        return immutable

    def _holds_ghost(self, referrer: Any) -> bool:
        return not self._replacements.keys().isdisjoint(map(id, gc.get_referents(referrer)))

    def _replacement_of(self, value: Any) -> Any:
        return self._replacements.get(id(value), value)

    def _replace_in(self, referrer: Any) -> None:
        if isinstance(referrer, (list, deque)):
            self._replace_in_list(referrer)
        elif isinstance(referrer, set):
            self._replace_in_set(referrer)
        elif isinstance(referrer, dict):
            self._replace_in_dict(referrer)
        elif isinstance(referrer, CellType):
            referrer.cell_contents = self._replacement_of(referrer.cell_contents)
        elif container_type_of(type(referrer)) is not None:
            for name, value in attributes(referrer).items():
                if id(value) in self._replacements:
                    set_attribute(referrer, name, self._replacement_of(value))

    def _replace_in_list(self, referrer: Any) -> None:
        for index in reversed(range(len(referrer))):
            each = referrer[index]
            if id(each) not in self._replacements:
                continue
            thing = self._replacement_of(each)
            takes_place = id(referrer) in self._inside or _contains(self._held_by, referrer)
            if takes_place and not _contains(referrer, thing):
                referrer[index] = thing
            else:
                del referrer[index]

    def _replace_in_set(self, referrer: set[Any]) -> None:
        for each in list(referrer):
            if id(each) in self._replacements:
                referrer.discard(each)
                if id(referrer) in self._inside:
                    referrer.add(self._replacement_of(each))

    def _replace_in_dict(self, referrer: dict[Any, Any]) -> None:
        last = next(reversed(referrer), None)
        for key, value in list(referrer.items()):
            if id(key) in self._replacements:
                del referrer[key]
            elif id(value) in self._replacements:
                self._replace_value(referrer, key, self._replacement_of(value), key is last)

    def _replace_value(self, referrer: dict[Any, Any], key: Any, thing: Any, is_last: bool) -> None:
        # What is not at the end of a dict was not added, but has replaced something. At the end it
        # is removed only if the object itself is known to have had no place there.
        was_added = is_last and self._is_known and thing is self._thing
        had_it = not was_added or _contains(self._held_by, referrer)
        lost_it = had_it and not _contains(referrer.values(), thing)
        if lost_it or id(referrer) in self._inside:
            referrer[key] = thing
        elif not _replace_in_owner(referrer, key, thing):
            del referrer[key]


def _items_of(holder: Any) -> Iterable[Any]:
    return dict.values(holder) if isinstance(holder, dict) else holder


def _contains(values: Iterable[Any], thing: Any) -> bool:
    is_method = type(thing) is MethodType  # each look-up makes another
    return any(each is thing or (is_method and each == thing) for each in values)


def _is_same_sequence(one: Any, other: list[Any]) -> bool:
    """Whether *one* is a tuple of just these: that of the arguments of a call of ours."""
    return type(one) is tuple and [*map(id, one)] == [*map(id, other)]


def _reachable_from(ghost: Any) -> list[Any]:
    """What the new object holds, directly and indirectly, as far as it can be followed quickly."""
    found: list[Any] = []
    seen = {id(ghost)}
    queue = deque(gc.get_referents(ghost))
    while queue and len(found) < _MOST_FOLLOWED:
        each = queue.popleft()
        if id(each) in seen or isinstance(each, (type, ModuleType, ServerObject)):
            continue
        seen.add(id(each))
        found.append(each)
        queue += (
            each.__closure__ or () if isinstance(each, FunctionType) else gc.get_referents(each)
        )
    return found


def _replace_in_owner(namespace: dict[Any, Any], name: Any, thing: Any) -> bool:
    """Set the attribute *name* to *thing*, if *namespace* is the one of an object or a class."""
    for owner in gc.get_referrers(namespace):
        if isinstance(owner, type) and name in vars(owner):
            setattr(owner, name, thing)
            return True
        if object_state.dict_of(owner) is namespace:
            namespace[name] = thing
            return True
    return False


# The console

_FIELDS: Final = "its default"
_FORMER: Final = "the class as it was before the edit"
_ADDED: Final = "objects of the class {} from before the edit got {} from {}"
_MISSING: Final = (
    "objects of the class {} from before the edit lack {}: {}. Give the class itself a value, as "
    "in `{} = None`."
)
_HIDDEN: Final = (
    "objects of the class {} from before the edit lose their attribute {}: it would hide what the "
    "class defines under that name now"
)
_OUTDATED: Final = (
    "objects of the class {} from before the edit compute {} again: its cached_property was edited"
)
