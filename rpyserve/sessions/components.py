"""What sessions and the registry hold: values under names, and components under interfaces.

A component is found again by as much as can be trusted. What an ordinary module or a prompt defines
stays the same object for ever: its identity is the key. What a cached script or a module of the
site defines comes again with the next execution: its key is module, name, and which of that name it
was. What an uncached execution defines is new each time: its components live on the execution and
go with it. Nothing is stored before its factory has returned.

After an edit a session or registry brings what it holds up to date when it is first used: see
`migration`. Until then that costs one comparison of generations. A registry that holds very much
(`holds_much`) is looked through before, in slices, when a script is asked for that may use it. Code
that uses it meanwhile does what is left at once.

What the rest of the package does with a holder are functions at the end of this module, not
methods: scripts have subclasses of `Session`, whose methods may have any name.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

import trio
from zope.interface.interface import adapter_hooks

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import (
    Execution,
    Key,
    definition_key,
    execution_of,
    is_interface,
    refuse_transient,
)
from rpyserve.scripts.threads import current_call, in_loop
from rpyserve.sessions.adapters import factory_for
from rpyserve.util.author_code import ServerObject
from rpyserve.util.slow_calls import slow_call_log

if TYPE_CHECKING:
    from rpyserve.sessions.migration import Migration

SLICE: Final = 0.005
"""Seconds for which a registry is looked through before others have their turn."""
MUCH: Final = 5_000
"""How many objects are looked through at once."""

_NOT_LOOKED_INTO: Final = (type, FunctionType, ModuleType, ServerObject, str, int, float, bytes)
_CONTAINERS: Final = (dict, list, set, frozenset, tuple, deque)

touch_observers: list[Callable[[Components, Any], object]] = []
"""Called with a session or registry, and the name of a value or the key of a component, before that
is used or changed. Empty unless somebody watches what a request does; see `transient`."""


class Entry(ServerObject):
    """A component and where it belongs.

    Args:
        component: what the factory made.
        holder: the session or registry it belongs to; None where that keeps the entry itself.
        target: the interface or class it is kept for; None where that must not be kept alive.
    """

    __slots__ = ("component", "holder", "target")

    def __init__(self, component: Any, holder: Components | None, target: Any) -> None:
        self.component = component
        self.holder = holder
        self.target = target

    def move_to_holder(self) -> None:
        """Move the component to its holder: its execution turned out to be a cached one."""
        if self.holder is not None:
            self.holder._keep(self.target, self.component)


class Components(ServerObject, MutableMapping[str, Any]):
    """A mapping of names to values that can be adapted to interfaces.

    Base of `Session` and `Registry`. Unlike a dict it is true when it is empty, and equal only to
    itself.
    """

    __slots__ = ("__dict__", "__weakref__", "_components", "_generation", "_values", "_waits_for")

    _display_name = "session"
    _generation: int
    _values: dict[str, Any] | None
    _components: dict[Any, Entry] | None
    _waits_for: Any
    """What runs of old code, and must end before all can be brought up to date; mostly None."""
    _begun: Any = None
    """The migration that goes on in slices, of a `Registry` only; mostly None."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Here and not in __init__, which a script's subclass may forget to call. The dicts are made
        # when first used: a site may have a million sessions that need neither.
        self = super().__new__(cls)
        self._values = None
        self._components = None
        self._generation = definitions.generation
        self._waits_for = None
        return self

    # The mapping

    def __getitem__(self, name: str) -> Any:
        if self._generation != definitions.generation:
            bring_up_to_date(self)
        if touch_observers:
            _note_touch(self, name)
        if self._values is None:
            raise KeyError(name)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"{self._display_name} keeps values under a text, as in "
                f'{self._display_name}["n"] = 1, not {name!r:.60}'
            )
        if touch_observers:
            _note_touch(self, name)
        definitions_held = refuse_transient(value, f"{self._display_name}[{name!r:.60}]")
        if definitions_held:
            self._mark_stale(*definitions_held)
        if self._values is None:
            self._values = {}
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        if self._values is None:
            raise KeyError(name)
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values or ())

    def __len__(self) -> int:
        return len(self._values or ())

    def __contains__(self, name: object) -> bool:
        return self._values is not None and name in self._values

    def __bool__(self) -> bool:
        return True

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # The components

    def __conform__(self, wanted: Any) -> Any:
        """Return the component for the interface *wanted*: what ``ICounter(session)`` calls."""
        return self._component_for(wanted, self)

    def getComponent(self, interface: Any, default: Any = None) -> Any:
        """Return the component for *interface*, made on first use; *default* if there is none.

        Args:
            interface: an interface, or a plain class under which `setComponent` has put something.
            default: what to return if there is no such component.
        """
        if is_interface(interface):
            return interface(self, default)
        entry = self._find(interface)
        return default if entry is None else entry.component

    def setComponent(self, interface: Any, component: Any) -> None:
        """Make *component* the one for *interface*, or for a plain class, in place of another.

        Raises:
            TypeError: *interface* is neither an interface nor a class; or an uncached script
                defines the component's class but not the interface, so that the next request would
                find an object it does not know.
        """
        if not (is_interface(interface) or isinstance(interface, type)):
            raise TypeError(
                f"{interface!r:.60} is neither an interface nor a class; use "
                f"{self._display_name}[name] = value"
            )
        if _home_of(interface)[0] is None:
            where = f"{self._display_name}.setComponent({interface.__name__}, ...)"
            refuse_transient(component, where)
        self._keep(interface, component)

    def unsetComponent(self, interface: Any) -> None:
        """Forget the component for *interface*, if there is one. The next use makes a new one."""
        execution, key = _home_of(interface)
        factory = factory_for(self, interface) if is_interface(interface) else None
        maker = None if factory is None else execution_of(factory)
        for each in (execution, maker):
            if each is not None:
                each.components.pop((id(self), id(interface)), None)
        if self._components is not None:
            self._components.pop(key, None)

    def _find(self, target: Any) -> Entry | None:
        """The entry of the component for *target*, wherever it is kept."""
        if self._generation != definitions.generation:
            bring_up_to_date(self)
        execution, key = _home_of(target)
        if execution is not None:
            entry = self._find_on(execution, target)
            if entry is not None or not execution.undecided:
                return entry
        if touch_observers:
            _note_touch(self, key)
        if self._components is None:
            return None
        return self._components.get(key) or self._moved_to(key)

    def _find_on(self, execution: Execution | None, target: Any) -> Entry | None:
        """The entry that lives on an uncached *execution* and goes with it."""
        if execution is None:
            return None
        entry: Entry | None = execution.components.get((id(self), id(target)))
        return entry

    def _moved_to(self, key: Key | int) -> Entry | None:
        """The entry that was kept elsewhere before its interface moved to another module."""
        old_key = None if isinstance(key, int) else definitions.key_before_move(key)
        if self._components is None or old_key not in self._components:
            return None
        entry = self._components[key] = self._components.pop(old_key)
        return entry

    def _component_for(self, wanted: Any, adapted: Any) -> Any:
        """The component for the interface *wanted*, which is made of *adapted* if need be."""
        entry = self._find(wanted)
        return self._make(wanted, adapted) if entry is None else entry.component

    def _make(self, wanted: Any, adapted: Any) -> Any:
        """Make the component for *wanted* of *adapted*: of this object, or what stands for it."""
        if wanted.providedBy(adapted):
            return adapted
        factory = factory_for(adapted, wanted)
        if factory is None:
            return None

        # How long does the component last? As long as the interface, or as an uncached execution
        # that makes components for an interface that lasts.
        maker = execution_of(factory)
        interface_lasts = _home_of(wanted)[0] is None
        if maker is not None and (maker.cached or not interface_lasts):
            maker = None

        entry = self._find_on(maker, wanted)
        if entry is not None:
            return entry.component
        component = factory(adapted)
        if component is None:
            return None

        # The factory may have adapted again and so have stored one: whoever has that one shall not
        # see another.
        entry = self._find(wanted) or self._find_on(maker, wanted)
        if entry is not None:
            return entry.component
        self._keep(wanted, component, maker)
        return component

    def _keep(self, target: Any, component: Any, maker: Execution | None = None) -> None:
        """Store *component* where that of *target* belongs; on *maker*, if it is given."""
        execution, key = _home_of(target)
        execution = maker or execution
        if execution is not None:
            execution.components[id(self), id(target)] = Entry(component, self, target)
            return
        if touch_observers:
            _note_touch(self, key)
        self._mark_stale(type(component))
        if self._components is None:
            self._components = {}
        # An id is a key as long as its object lives. What an execution has defined is not kept: it
        # would keep its whole old script alive.
        kept_target = target if isinstance(key, int) else None
        self._components[key] = Entry(component, None, kept_target)

    # Across edits

    def _mark_stale(self, *definitions_held: Any) -> None:
        """Have the next use bring all up to date, if one of these definitions is an old one.

        Code from before an edit, such as a stream, may still keep objects of its classes here.
        """
        if not all(map(definitions.is_current, definitions_held)):
            self._generation, self._waits_for = 0, None

    def _mark_current(self) -> None:
        self._generation = definitions.generation

    def _without_side_effects(self, make: Callable[[], list[Any]]) -> list[Any]:
        """Return what *make* returns, and undo what it does to this session or registry.

        What it adds here stays if it is among what it returns.
        """
        if is_outdated(self):  # what is restored must be of the present classes
            bring_up_to_date(self)
        values, components = dict(self._values or {}), dict(self._components or {})
        attributes = dict(self.__dict__)
        kept: set[int] = set()
        try:
            made = make()
            kept.update(map(id, made))
            return made
        finally:
            _restore(self._values, values, kept, lambda value: value)
            _restore(self._components, components, kept, lambda entry: entry.component)
            _restore(self.__dict__, attributes, kept, lambda value: value)

    def _fresh_instance(self) -> Any:
        """Return a new one, made as this one was."""
        return type(self)()


def _restore(
    mapping: dict[Any, Any] | None, before: dict[Any, Any], kept: set[int], held: Callable[..., Any]
) -> None:
    """Restore *mapping*, in place; what was added stays if the id of what it holds is in *kept*."""
    if mapping is None:
        return
    for key, value in list(mapping.items()):
        if key not in before and id(held(value)) not in kept:
            del mapping[key]
    for key, value in before.items():
        if mapping.get(key) is not value:
            mapping[key] = value


def _note_touch(holder: Components, key: Any) -> None:
    for observer in tuple(touch_observers):
        observer(holder, key)


def _home_of(target: Any) -> tuple[Execution | None, Key | int]:
    """Where the component for *target* is kept.

    Returns:
        The uncached execution on which it is; None where it is with its session or registry. And
        the key under which it is there.
    """
    place = definition_key(target)
    if place is None:
        return None, id(target)
    execution, key = place
    return (None if execution.cached else execution), key


# For the package


def is_outdated(holder: Components) -> bool:
    """Whether definitions may have changed since *holder* was brought up to date."""
    return holder._generation != definitions.generation


def mark_outdated(holder: Components) -> None:
    """Have the next use of *holder* bring all that it holds up to date."""
    holder._generation, holder._waits_for = 0, None


def bring_up_to_date(
    holder: Components, callbacks: Sequence[Any] = (), made: Sequence[tuple[Any, type]] = ()
) -> None:
    """Bring *holder* and all that it holds up to the present definitions, in the loop.

    Args:
        holder: the session or registry.
        callbacks: a list of callbacks that are brought up to date, too: those which were stored.
            After an edit, they stay the ones that they are.
        made: objects in it that are of a present class already, but were made from the state of one
            of an earlier class, each with that.
    """
    if current_call() is not None:
        in_loop(bring_up_to_date, holder, callbacks, made)
        return
    with slow_call_log.own_call():
        if _has_to_wait(holder):
            return
        holder._waits_for = _take_migration(holder, callbacks, made).run()
        if holder._waits_for is not None:
            holder._generation = 0  # look again at the next use


def values_of(holder: Components) -> dict[str, Any]:
    """Return what *holder* keeps under names, without counting as a use of it."""
    return dict(holder._values or {})


async def bring_up_to_date_in_slices(registry: Components) -> None:
    """Do the same, while others have their turn. Whoever uses *registry* meanwhile does the rest.

    Several tasks may do so at a time: they share the work.
    """
    await trio.lowlevel.checkpoint()
    while is_outdated(registry) and not _has_to_wait(registry):
        migration = _take_migration(registry)
        if migration.is_collected:
            registry._begun = migration
            bring_up_to_date(registry)
        else:
            _collect_more(registry, migration)
        await trio.lowlevel.checkpoint()


def holds_much(holder: Components) -> bool:
    """Whether *holder* holds so much that it should be brought up to date in slices."""
    entries = (holder._components or {}).values()
    queue = deque([holder._values, vars(holder), *(entry.component for entry in entries)])
    seen: set[int] = set()
    while queue:
        thing = queue.popleft()
        if id(thing) in seen or isinstance(thing, _NOT_LOOKED_INTO):
            continue
        seen.add(id(thing))
        if len(seen) > MUCH or (isinstance(thing, _CONTAINERS) and len(thing) > MUCH):
            return True
        queue += gc.get_referents(thing)
    return False


def _has_to_wait(holder: Components) -> bool:
    """Whether *holder* waits for running code, and nothing has changed meanwhile."""
    return holder._waits_for is not None and bool(holder._waits_for.is_current())


def _take_migration(
    holder: Components, callbacks: Sequence[Any] = (), made: Sequence[tuple[Any, type]] = ()
) -> Migration:
    """Return the migration that was begun, or another one. It is nobody else's now."""
    from rpyserve.sessions import migration  # nobody needs it before the first edit

    begun = holder._begun
    if begun is not None:
        holder._begun = None
        if begun.can_go_on and not callbacks and not made:
            return begun  # type: ignore[no-any-return]
    return migration.Migration(
        migration.Holder(
            instance=holder,
            name=holder._display_name,
            values={} if holder._values is None else holder._values,
            components={} if holder._components is None else holder._components,
            mark_current=holder._mark_current,
            fresh_instance=holder._fresh_instance,
            without_side_effects=holder._without_side_effects,
            callbacks=callbacks,
            made=made,
        )
    )


def _collect_more(registry: Components, migration: Migration) -> None:
    """Have *migration* collect for one slice.

    That may execute modules, whose code may use the registry as it is.
    """
    with slow_call_log.own_call():
        registry._mark_current()
        try:
            migration.collect(SLICE)
        finally:
            registry._generation = 0
        registry._begun = migration


def _adapt_other(wanted: Any, thing: object) -> Any:
    """Adapters of all other things. What they make is not kept."""
    if isinstance(thing, Components):
        return None
    factory = factory_for(thing, wanted)
    return None if factory is None else factory(thing)


adapter_hooks.append(_adapt_other)
