"""Brings a session or the registry up to the present definitions, at its first use after an edit.

The holder's own class comes first, as it decides which adapters apply. Then all that it holds
becomes of the present classes: see `object_graph`. Last come the attributes that an edited
constructor sets and that objects from before the edit lack: see `missing_attributes`.

A component that Python cannot change into one of the new class is forgotten, so that the next use
makes a new one. Anything else that cannot be changed is kept as it was, and the console says so.

A session tells only what it holds, as a `Holder`: `components` is not known here.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import current, is_interface
from rpyserve.sessions import first_use
from rpyserve.sessions.adapters import factory_for
from rpyserve.sessions.missing_attributes import AttributeFiller
from rpyserve.sessions.object_graph import Limits, ObjectGraph, change_class, that_can_wait
from rpyserve.sessions.running_code import Held, RunningCode
from rpyserve.util.author_code import display_path
from rpyserve.util.text import one_line
from rpyserve.util.throttle import ThrottledLogger

AT_ONCE: Final = Limits(objects=1_000, plain=20_000)
"""How much is brought up to date when a session or the registry is first used after an edit."""

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
        fresh_instance: a method that returns a new one, made as this one was.
        without_side_effects: a method that calls a function, and undoes what that does to the
            session or registry, but for what the function returns.
        callbacks: a list of callbacks that are brought up to date, too.
        made: objects in there that are of a present class already, but were made from the state of
            one of an earlier class, each with that.
    """

    instance: Any
    name: str
    values: dict[str, Any]
    components: dict[Any, Any]
    mark_current: Callable[[], None]
    fresh_instance: Callable[[], Any]
    without_side_effects: Callable[[Callable[[], list[Any]]], list[Any]]
    callbacks: Sequence[Any] = ()
    made: Sequence[tuple[Any, type]] = ()


def _is_final() -> bool:
    """Whether no cached script or module is being executed, so that all definitions are there."""
    execution = current()
    return execution is None or not (execution.running and execution.cached)


class Migration:
    """One holder's way over one edit.

    `run` brings the holder and all that it holds up to the present definitions. Where very much is
    held, `collect` does most of the work before, in slices between which others have their turn.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._is_final = _is_final()
        self._generation = definitions.generation
        self._has_begun = False
        self.is_collected = False
        self._entries: dict[Any, ComponentEntry] = {}
        self._running: RunningCode | None = None
        self._factories: dict[int, Callable[[Any], Any]] = {}
        self._without_interface: set[int] = set()
        self._filler = AttributeFiller(holder, self._factories, self._without_interface, log_once)
        self._graph = self._new_graph(AT_ONCE)

    @property
    def can_go_on(self) -> bool:
        """Whether what was collected is still what is to be brought up to date."""
        return self._generation == definitions.generation and self._is_final == _is_final()

    def collect(self, seconds: float) -> None:
        """Go on collecting what the holder holds, for about so long."""
        self._begin()
        end = time.perf_counter() + seconds
        self.is_collected = self._graph.collect(lambda: time.perf_counter() >= end)

    def run(self) -> Held | None:
        """Do it, or what is left of it.

        Returns:
            The methods of old code for whose sake something was left as it was, if there are any.
        """
        if self._is_final:
            self._holder.mark_current()  # first, as what follows may use the session
        self._begin()

        # Step 2: all that it holds
        self._graph.run()

        # Step 3: what it holds itself and is replaced
        self._replace_held(self._entries)

        # Step 4: missing attributes
        self._filler.finish()

        # Step 5: what finds things by their hash, which may need all attributes
        self._graph.finish()
        self._replace_held(self._entries)

        self._warn_all(self._graph)
        _tell_of_carried(self._graph)
        if self._graph.rest:
            self._graph.waiting |= that_can_wait(definitions.outdated_classes())
            first_use.leave(self._graph, self._renew)
        del self._graph  # each holds the other, and the graph all that it has collected
        return self._running.held() if self._is_final and self._running is not None else None

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        holder = self._holder

        # Step 1: the holder's own class
        self._change_class_of_holder()

        self._entries = dict(holder.components)
        for key, entry in self._entries.items():
            self._add_component(key, entry)
        for name, value in holder.values.items():
            self._graph.add_root(value, f"{holder.name}[{name!r:.60}]")
        for name, value in vars(holder.instance).items():
            self._graph.add_root(value, f"{holder.name}.{name}")
        if holder.callbacks:
            self._graph.add_root(holder.callbacks, f"a callback of the {holder.name}")
        for thing, old_class in holder.made:
            self._filler.note(thing, old_class, thing)

    def _new_graph(self, limits: Limits) -> ObjectGraph:
        return ObjectGraph(self._filler.note, self._holds_back, limits)

    def _renew(self, things: list[tuple[Any, str]], limits: Limits) -> ObjectGraph:
        """Bring more of what the holder holds up to date."""
        graph = self._new_graph(limits)
        for thing, label in things:
            graph.add_root(thing, label)
        graph.run()
        self._filler.finish()
        graph.finish()
        self._warn_all(graph)
        _tell_of_carried(graph)
        return graph

    def _warn_all(self, graph: ObjectGraph) -> None:
        for home, sentence in graph.warnings:
            self._warn(home, sentence)

    def _replace_held(self, entries: dict[Any, ComponentEntry]) -> None:
        for mapping in (self._holder.values, vars(self._holder.instance)):
            for name, value in list(mapping.items()):
                replacement = self._graph.replacement_of(value)
                if replacement is not value:
                    mapping[name] = replacement
        for key, entry in entries.items():
            self._replace_component(key, entry)

    def _change_class_of_holder(self) -> None:
        instance = self._holder.instance
        old_class = type(instance)
        new_class = definitions.current_definition(old_class) or old_class
        if new_class is old_class or self._holds_back(instance, new_class):
            return
        try:
            change_class(instance, new_class)
        except TypeError as exc:
            sentence = _SESSIONS_UNCHANGEABLE.format(new_class.__qualname__, exc)
            self._warn(definitions.home_of(new_class), sentence)
        else:
            self._graph.changed.append((instance, old_class))
            self._filler.note(instance, old_class, instance)

    def _holds_back(self, thing: Any, new_class: type) -> bool:
        if self._running is None:
            self._running = RunningCode()
            if self._is_final:
                self._running.renew_names()
        method = self._running.holds_back(thing, new_class)
        if method:
            sentence = _HELD_BACK.format(new_class.__qualname__, method)
            log_once(logging.INFO, definitions.home_of(new_class), sentence)
        return bool(method)

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
            self._holder.components.pop(key, None)
            cls = type(component)
            sentence = _MADE_ANEW.format(cls.__qualname__, self._label(key, entry), reason)
            self._warn(definitions.home_of(cls), sentence)
        else:
            entry.component = self._graph.replacement_of(component)

    def _label(self, key: Any, entry: ComponentEntry) -> str:
        name = key[1] if isinstance(key, tuple) else entry.target.__name__
        return f"{name}({self._holder.name})"

    # The console

    def _warn(self, home: str, sentence: str) -> None:
        """Log *sentence*, unless an execution is under way that may yet define what is missing."""
        if self._is_final:
            log_once(logging.WARNING, home, sentence)


_SESSIONS_UNCHANGEABLE: Final = (
    "sessions of the class {} that live already cannot be changed: {}. They go on as they were."
)
_HELD_BACK: Final = (
    "an object of the class {} keeps its old methods until {}, which is running on it, has ended"
)
_MADE_ANEW: Final = (
    "the {} that {} gave is made afresh: Python cannot change it into one of the new class: {}. "
    "What it held is gone."
)


def log_once(level: int, home: str, sentence: str) -> None:
    """Log *sentence*, once for each version of the script or module at *home*."""
    sentence = one_line(sentence)  # an exception's text may have lines, of a visitor's making even
    if level >= logging.WARNING:
        definitions.tell_of_home("lost", home, sentence)
    execution = definitions.latest_execution(home)
    if execution is None:
        _once.log(level, "%s", sentence, key=(sentence, definitions.edits))
    else:
        path = _display_path(execution.path)
        _once.log(level, "%s: %s", path, sentence, key=(sentence, execution.serial))


def _tell_of_carried(graph: ObjectGraph) -> None:
    if definitions.observers:
        for cls, count in Counter(type(thing) for thing, _ in graph.changed).items():
            definitions.tell_of_home("carried", definitions.home_of(cls), cls.__qualname__, count)


def _display_path(path: Path) -> str:
    # The command serves a site from its directory.
    shown = display_path(str(path))
    return path.name if os.path.isabs(shown) else shown
