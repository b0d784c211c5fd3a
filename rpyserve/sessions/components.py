"""What sessions and the registry hold: values under names, and components under interfaces.

A component is found again by as much as can be trusted. What an ordinary module or a prompt defines stays the same
object for ever: its identity is the key. What a cached script or a module of the site defines comes again with the
next execution: its key is module, name, and which of that name it was. What an uncached execution defines is new
each time: its components live on the execution and go with it. Nothing is stored before its factory has returned.

After an edit a session or registry brings what it holds up to date when it is first used: `carryover`. Until then
it costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from zope.interface import interface

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import (
    Execution,
    ExecutionName,
    Key,
    definition_key,
    execution_of,
    is_interface,
    refuse_transient,
)
from rpyserve.sessions.adapters import factory_for, registerAdapter

__all__ = ["Components", "Execution", "ExecutionName", "execution_of", "registerAdapter"]


class Entry:
    """A component and where it belongs.

    Args:
        component: what the factory made.
        holder: the session or registry, and
        target: the interface or class it is kept for; both only where they must be kept alive for the key's sake.
    """

    __slots__ = ("component", "holder", "target")

    def __init__(self, component: Any, holder: Components | None, target: Any) -> None:
        self.component = component
        self.holder = holder
        self.target = target

    def settle(self) -> None:
        """Its execution turned out to be a cached one: move the component to its holder."""
        if self.holder is not None:
            self.holder._keep(self.target, self.component)


class Components(MutableMapping[str, Any]):
    """A mapping of names to values that can be adapted to interfaces. Base of `Session` and `Registry`.

    Unlike a dict it is true when it is empty, and equal only to itself.
    """

    __slots__ = ("__dict__", "__weakref__", "_components", "_generation", "_values")

    _called = "session"
    _generation: int
    _values: dict[str, Any] | None
    _components: dict[Any, Entry] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Here and not in __init__, which a script's subclass may forget to call. The dicts are made when first used:
        # a site may have a million sessions that need neither.
        self = super().__new__(cls)
        self._values = None
        self._components = None
        self._generation = definitions.generation
        return self

    # The mapping

    def __getitem__(self, name: str) -> Any:
        if self._generation != definitions.generation:
            renew(self)
        if self._values is None:
            raise KeyError(name)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f'{self._called} keeps values under a text, as in {self._called}["n"] = 1, not {name!r:.60}'
            )
        if ours := refuse_transient(value, f"{self._called}[{name!r:.60}]"):
            self._mark_stale(*ours)
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
        """Return the component for the interface *wanted*, made on first use: what ``ICounter(session)`` calls."""
        entry = self._find(wanted)
        return self._make(wanted) if entry is None else entry.component

    def getComponent(self, interface: Any, default: Any = None) -> Any:
        """Return the component for *interface*, made on first use; *default* if there is none and no adapter.

        Args:
            interface: an interface, or a plain class under which `setComponent` has put something.
            default: what to return if there is no such component.
        """
        if is_interface(interface):
            return interface(self, default)
        entry = self._find(interface)
        return default if entry is None else entry.component

    def setComponent(self, interface: Any, component: Any) -> None:
        """Make *component* the one for *interface* (or for a plain class), in place of what is there.

        Raises:
            TypeError: *interface* is neither an interface nor a class; or an uncached script defines the component's
                class but not the interface, so that the next request would find an object it does not know.
        """
        if not (is_interface(interface) or isinstance(interface, type)):
            raise TypeError(
                f"{interface!r:.60} is neither an interface nor a class; use {self._called}[name] = value"
            )
        place = definition_key(interface)
        if place is None or place[0].cached:
            refuse_transient(component, f"{self._called}.setComponent({interface.__name__}, ...)")
        self._keep(interface, component)

    def unsetComponent(self, interface: Any) -> None:
        """Forget the component for *interface*; the next use makes a new one. If there is none, does nothing."""
        place = definition_key(interface)
        if place is not None:
            place[0].components.pop((id(self), id(interface)), None)
        factory = factory_for(self, interface) if is_interface(interface) else None
        if factory is not None and (maker := execution_of(factory)) is not None:
            maker.components.pop((id(self), id(interface)), None)
        if self._components is not None:
            self._components.pop(id(interface) if place is None else place[1], None)

    def _find(self, target: Any) -> Entry | None:
        if self._generation != definitions.generation:
            renew(self)
        place = definition_key(target)
        if place is None:
            return None if self._components is None else self._components.get(id(target))
        execution, key = place
        if not execution.cached:
            entry: Entry | None = execution.components.get((id(self), id(target)))
            if entry is not None or not execution.undecided:
                return entry
        if self._components is None:
            return None
        return self._components.get(key) or self._moved_to(key)

    def _moved_to(self, key: Key) -> Entry | None:
        """The component that was kept under *key* before its interface moved to another module of the site."""
        if (
            self._components is None
            or (old := definitions.key_before_move(key)) is None
            or old not in self._components
        ):
            return None
        entry = self._components[key] = self._components.pop(old)
        return entry

    def _make(self, wanted: Any) -> Any:
        if wanted.providedBy(self):
            return self
        factory = factory_for(self, wanted)
        if factory is None:
            return None
        place, maker = definition_key(wanted), execution_of(factory)
        if maker is not None and (maker.cached or (place is not None and not place[0].cached)):
            maker = None  # the interface decides, unless it is lasting and its factory is not
        found = self._made_by(maker, wanted)
        if found is None:
            component = factory(self)
            if component is None:
                return None
            # The factory may have adapted again and stored the very same: whoever has that one shall not see another.
            found = self._find(wanted) or self._made_by(maker, wanted)
            if found is None:
                self._keep(wanted, component, maker)
                return component
        return found.component

    def _made_by(self, maker: Execution | None, target: Any) -> Entry | None:
        return None if maker is None else maker.components.get((id(self), id(target)))

    def _keep(self, target: Any, component: Any, maker: Execution | None = None) -> None:
        """Store *component* where that of *target* belongs, or on *maker*, an execution that is to take it along."""
        place = definition_key(target)
        home = maker or (place[0] if place is not None and not place[0].cached else None)
        if home is not None:
            home.components[id(self), id(target)] = Entry(component, self, target)
            return
        self._mark_stale(type(component))
        if self._components is None:
            self._components = {}
        if place is None:
            self._components[id(target)] = Entry(component, None, target)
        else:
            # Without the interface: it would keep its whole old script alive.
            self._components[place[1]] = Entry(component, None, None)

    # Across edits

    def _mark_stale(self, *kinds: Any) -> None:
        """Code from before an edit, a stream for one, may still keep objects of its classes here: note it."""
        if not all(map(definitions.is_current, kinds)):
            self._generation = 0

    def _without_side_effects(self, make: Callable[[], Any]) -> Any:
        """Return what *make* makes, an object that nobody will keep, and leave here all as it was."""
        values = None if self._values is None else dict(self._values)
        components = None if self._components is None else dict(self._components)
        own = dict(self.__dict__)
        try:
            return make()
        finally:
            self._values, self._components = values, components
            self.__dict__.clear()
            self.__dict__.update(own)

    def _another(self) -> Any:
        """Return a new one of this kind."""
        return type(self)()


def _adapt_other(wanted: Any, thing: object) -> Any:
    """Adapters of all other things. What they make is not kept."""
    if isinstance(thing, Components):
        return None
    factory = factory_for(thing, wanted)
    return None if factory is None else factory(thing)


def renew(holder: Components) -> None:
    """Bring *holder* up to date after an edit."""
    from rpyserve.sessions import migration  # nobody needs it before the first edit

    migration.migrate(holder)


interface.adapter_hooks.append(_adapt_other)
