"""Brings a session or the registry up to the present definitions, at its first use after an edit.

The holder's own class comes first, as it decides which adapters apply. Then all that it holds
becomes of the present classes: see `object_graph`. Last come the attributes that an edited
constructor sets and that objects from before the edit lack: see `object_state`. A component takes
them from one that its adapter makes; another object takes them from one constructed with what it
has under the names of the constructor's parameters.

A component that Python cannot change into one of the new class is forgotten, so that the next use
makes a new one. Anything else that cannot be changed is kept as it was, and the console says so.

A session tells only what it holds, as a `Holder`: `components` is not known here.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import current, is_interface
from rpyserve.sessions import object_state
from rpyserve.sessions.adapters import factory_for
from rpyserve.sessions.object_graph import ObjectGraph, change_class
from rpyserve.util.author_code import display_path
from rpyserve.util.text import one_line
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

_once = ThrottledLogger(log, interval=math.inf, clock=time.monotonic)


class ComponentEntry(Protocol):
    """A component that a holder keeps."""

    component: Any
    target: Any
    """The interface or class it is kept for; None where its key says so."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A session, or the registry, as a migration sees it.

    Args:
        instance: the session or registry.
        name: what the console calls it.
        values: what it holds under names.
        components: its components, by their keys.
        mark_current: called when no later definition can be missed.
        fresh_instance: returns a new one, made as this one was.
        without_side_effects: calls a function that may do something to the session, and undoes
            that.
    """

    instance: Any
    name: str
    values: dict[str, Any]
    components: dict[Any, Any]
    mark_current: Callable[[], None]
    fresh_instance: Callable[[], Any]
    without_side_effects: Callable[[Callable[[], Any]], Any]


def migrate(holder: Holder) -> None:
    """Bring *holder* and all that it holds up to the present definitions."""
    execution = current()
    # While a cached script or a module is being executed, more definitions are on their way.
    is_final = execution is None or not (execution.running and execution.cached)
    if is_final:
        holder.mark_current()  # first, as what follows may use the session
    _Migration(holder, is_final).run()


class _Migration:
    """One holder's way over one edit."""

    def __init__(self, holder: Holder, is_final: bool) -> None:
        self._holder = holder
        self._is_final = is_final
        self._graph = ObjectGraph()
        self._factories: dict[int, Callable[[Any], Any]] = {}
        self._without_interface: set[int] = set()
        self._added: dict[tuple[type, type], frozenset[str]] = {}

    def run(self) -> None:
        holder = self._holder

        # Step 1: the holder's own class
        self._change_class_of_holder()

        # Step 2: all that it holds
        entries = dict(holder.components)
        attributes = vars(holder.instance)
        for key, entry in entries.items():
            self._add_component(key, entry)
        for name, value in holder.values.items():
            self._graph.add_root(value, f"{holder.name}[{name!r:.60}]")
        for name, value in attributes.items():
            self._graph.add_root(value, f"{holder.name}.{name}")
        self._graph.run()

        # Step 3: what it holds itself and is replaced
        for mapping in (holder.values, attributes):
            for name, value in list(mapping.items()):
                replacement = self._graph.replacement_of(value)
                if replacement is not value:
                    mapping[name] = replacement
        for key, entry in entries.items():
            self._replace_component(key, entry)

        # Step 4: missing attributes
        for thing, old_class in self._graph.changed:
            self._add_missing(thing, old_class)

        for home, sentence in self._graph.warnings:
            self._warn(home, sentence)

    def _change_class_of_holder(self) -> None:
        instance = self._holder.instance
        old_class = type(instance)
        new_class = definitions.current_definition(old_class) or old_class
        if new_class is old_class:
            return
        try:
            change_class(instance, new_class)
        except TypeError as exc:
            sentence = _SESSIONS_UNCHANGEABLE.format(new_class.__qualname__, exc)
            self._warn(definitions.home_of(new_class), sentence)
        else:
            self._graph.changed.append((instance, old_class))

    # Components

    def _add_component(self, key: Any, entry: ComponentEntry) -> None:
        component, interface = entry.component, entry.target
        if interface is None:
            interface = definitions.interface_at(key)
            if interface is None and key[2] >= 0:
                self._without_interface.add(id(component))
        factory = None
        if is_interface(interface):
            factory = factory_for(self._holder.instance, interface)
        if factory is not None:
            self._factories[id(component)] = factory
        self._graph.add_root(component, self._label(key, entry), factory)

    def _replace_component(self, key: Any, entry: ComponentEntry) -> None:
        component = entry.component
        reason = self._graph.unchangeable.get(id(component))
        if self._is_final and reason is not None and id(component) in self._factories:
            del self._holder.components[key]
            cls = type(component)
            sentence = _MADE_ANEW.format(cls.__qualname__, self._label(key, entry), reason)
            self._warn(definitions.home_of(cls), sentence)
        else:
            entry.component = self._graph.replacement_of(component)

    def _label(self, key: Any, entry: ComponentEntry) -> str:
        name = key[1] if isinstance(key, tuple) else entry.target.__name__
        return f"{name}({self._holder.name})"

    # Missing attributes

    def _add_missing(self, thing: Any, old_class: type) -> None:
        names = self._names_that_may_be_missing(thing, old_class)
        cls = type(thing)
        added: list[str] = []
        try:
            added += object_state.add_default_fields(thing)
            missing = object_state.missing_of(thing, names)
            if missing and id(thing) in self._without_interface:
                object_state.record_missing(cls, missing)  # until its interface is there again
            elif missing:
                added += object_state.add_missing_attributes(thing, self._maker_of_another(thing))
        except Exception as exc:
            self._record_missing(thing, object_state.missing_of(thing, names), exc)
        if added:
            sentence = _ADDED.format(cls.__qualname__, ", ".join(sorted(added)))
            _log_once(logging.INFO, definitions.home_of(cls), sentence)

    def _names_that_may_be_missing(self, thing: Any, old_class: type) -> frozenset[str]:
        classes = type(thing), old_class
        if classes not in self._added:
            self._added[classes] = object_state.added_attributes(*classes)
        factory = self._factories.get(id(thing))
        return self._added[classes] | object_state.assigned_by_function(factory)

    def _maker_of_another(self, thing: Any) -> Callable[[], Any]:
        """Return a function that makes another object like *thing*."""
        holder = self._holder
        factory = self._factories.get(id(thing))

        def make() -> Any:
            if factory is not None:
                return factory(holder.instance)
            if thing is holder.instance:
                return holder.fresh_instance()
            return object_state.construct_like(thing)

        return lambda: holder.without_side_effects(make)

    def _record_missing(self, thing: Any, missing: frozenset[str], exc: Exception) -> None:
        cls = type(thing)
        object_state.record_missing(cls, missing)
        names = sorted(name for name in missing if name.isidentifier())
        if names:
            sentence = _MISSING.format(cls.__qualname__, ", ".join(names), exc, names[0])
            self._warn(definitions.home_of(cls), sentence)

    # The console

    def _warn(self, home: str, sentence: str) -> None:
        """Log *sentence*, unless an execution is under way that may yet define what is missing."""
        if self._is_final:
            _log_once(logging.WARNING, home, sentence)


_SESSIONS_UNCHANGEABLE: Final = (
    "sessions of the class {} that live already cannot be changed: {}. They go on as they were."
)
_MADE_ANEW: Final = (
    "the {} that {} gave is made afresh: Python cannot change it into one of the new class: {}. "
    "What it held is gone."
)
_ADDED: Final = "objects of the class {} from before the edit got {} from a new one"
_MISSING: Final = (
    "objects of the class {} from before the edit lack {}, and none can be made to take that from "
    "({}). Give the class itself a value, as in `{} = None`."
)


def _log_once(level: int, home: str, sentence: str) -> None:
    """Log *sentence*, once for each version of the script or module at *home*."""
    sentence = one_line(sentence)  # an exception's text may have lines, of a visitor's making even
    execution = definitions.latest_execution(home)
    if execution is None:
        _once.log(level, "%s", sentence, key=(sentence, definitions.edits))
    else:
        path = _display_path(execution.path)
        _once.log(level, "%s: %s", path, sentence, key=(sentence, execution.serial))


def _display_path(path: Path) -> str:
    # The command serves a site from its directory.
    shown = display_path(str(path))
    return path.name if os.path.isabs(shown) else shown
