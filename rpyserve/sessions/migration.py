"""Brings a session, or the registry, up to the present definitions when it is first used after an edit.

Owns the order: the holder's own class, then a walk over all that it holds, then what objects lack that an edited
constructor sets, and last what the console says of it. What a component lacks comes from one that its adapter makes;
what another object lacks, from one made with what it has under the names of its constructor's parameters. A component
that Python cannot change is forgotten, so that the next use makes one afresh.

A holder tells only what it holds: `components` is not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import current, is_interface
from rpyserve.sessions import object_state
from rpyserve.sessions.adapters import factory_for
from rpyserve.sessions.object_graph import ObjectGraph, change_class

__all__ = ["migrate"]

_MOST_TOLD: Final = 1000

log = logging.getLogger("rpyserve")

_told: set[tuple[str, int]] = set()


def migrate(holder: Any) -> None:
    """Bring *holder*, a session or the registry, and all that it holds up to the present definitions."""
    running = current()
    whole = running is None or not (running.running and running.cached)
    if whole:
        # First: what follows may come back here. While an execution runs, more definitions are on their way, so
        # it is not up to date then.
        holder._generation = definitions.generation
    _Migration(holder, whole).run()


class _Migration:
    """One holder's way over one edit."""

    def __init__(self, holder: Any, whole: bool) -> None:
        self._holder = holder
        self._whole = whole
        self._walk = ObjectGraph()
        self._factories: dict[int, Callable[[Any], Any]] = {}
        self._waiting: set[int] = set()
        self._added: dict[tuple[type, type], frozenset[str]] = {}

    def run(self) -> None:
        self._change_holder()
        entries = dict(self._holder._components or {})
        for key, entry in entries.items():
            self._enter(key, entry)
        own, values = self._holder.__dict__, self._holder._values or {}
        for held, shown in ((values, "{}[{!r:.60}]"), (own, "{}.{}")):
            for name, value in held.items():
                self._walk.enter(value, shown.format(self._holder._called, name))
        self._walk.run()
        for held in (values, own):
            for name, value in list(held.items()):
                if (new := self._walk.now(value)) is not value:
                    held[name] = new
        for key, entry in entries.items():
            self._settle(key, entry)
        for thing, old in self._walk.changed:
            self._fill(thing, old)
        for module, sentence in self._walk.news:
            self._warn(module, sentence)

    def _change_holder(self) -> None:
        old = type(self._holder)
        kind = definitions.current_definition(old) or old
        if kind is not old:
            try:
                change_class(self._holder, kind)
            except TypeError as exc:
                self._warn(
                    definitions.home_of(kind),
                    f"sessions of the class {kind.__qualname__} that live already cannot be changed: {exc}. They go on "
                    "as they were.",
                )  # fmt: skip
            else:
                self._walk.changed.append((self._holder, old))

    def _enter(self, key: Any, entry: Any) -> None:
        interface = entry.target
        if interface is None:
            interface = definitions.interface_at(key)
            if interface is None and key[2] >= 0:
                self._waiting.add(id(entry.component))  # for its interface to return
        factory = factory_for(self._holder, interface) if is_interface(interface) else None
        if factory is not None:
            self._factories[id(entry.component)] = factory
        name = key[1] if isinstance(key, tuple) else interface.__name__
        self._walk.enter(entry.component, f"{name}({self._holder._called})", factory)

    def _settle(self, key: Any, entry: Any) -> None:
        if (
            self._whole
            and id(entry.component) in self._walk.stuck
            and id(entry.component) in self._factories
        ):
            del self._holder._components[key]
            kind = type(entry.component)
            self._warn(
                definitions.home_of(kind),
                f"the {kind.__qualname__} that {key[1] if isinstance(key, tuple) else entry.target.__name__}"
                f"({self._holder._called}) gave is made afresh: Python cannot change it into one of the new class: "
                f"{self._walk.stuck[id(entry.component)]}. What it held is gone.",
            )  # fmt: skip
        else:
            entry.component = self._walk.now(entry.component)

    # What is lacking

    def _fill(self, thing: Any, old: type) -> None:
        kind = type(thing)
        if (kind, old) not in self._added:
            self._added[kind, old] = object_state.added(kind, old)
        names = self._added[kind, old] | object_state.assigned_by(self._factories.get(id(thing)))
        got: list[str] = []
        try:
            got += object_state.from_defaults(thing)
            if lacks := object_state.lacking(thing, names):
                if id(thing) in self._waiting:
                    object_state.record_missing(kind, lacks)
                else:
                    got += object_state.add_missing_attributes(thing, self._maker(thing))
        except Exception as exc:
            self._record_missing(thing, object_state.lacking(thing, names), exc)
        if got:
            _tell(
                logging.INFO,
                definitions.home_of(kind),
                _FILLED.format(kind.__qualname__, ", ".join(sorted(got))),
            )

    def _maker(self, thing: Any) -> Callable[[], Any]:
        factory = self._factories.get(id(thing))
        if factory is not None:
            return lambda: self._holder._without_side_effects(lambda: factory(self._holder))
        if thing is self._holder:
            return lambda: self._holder._without_side_effects(self._holder._another)
        return lambda: self._holder._without_side_effects(
            lambda: object_state.construct_like(thing)
        )

    def _record_missing(self, thing: Any, lacks: frozenset[str], exc: Exception) -> None:
        kind = type(thing)
        object_state.record_missing(kind, lacks)
        if named := sorted(name for name in lacks if name.isidentifier()):
            sentence = _LACKING.format(kind.__qualname__, ", ".join(named), exc, named[0])
            self._warn(definitions.home_of(kind), sentence)

    def _warn(self, module: str, sentence: str) -> None:
        """Say *sentence*, unless an execution is under way that may yet define what is missing, or fail."""
        if self._whole:
            _tell(logging.WARNING, module, sentence)


_FILLED: Final = "objects of the class {} from before the edit got {} from a new one"
_LACKING: Final = (
    "objects of the class {} from before the edit lack {}, and none can be made to take that from ({}). Give the class "
    "itself a value, as in `{} = None`."
)


def _tell(level: int, module: str, text: str) -> None:
    """Say *text* of the script or module at the home *module* on the console, once for each of its versions."""
    text = " ".join(text.split())  # an exception's may have lines, of a visitor's making even
    execution = definitions.latest_execution(module)
    version = definitions.edits if execution is None else execution.serial
    if (text, version) in _told:
        return
    if len(_told) >= _MOST_TOLD:
        _told.clear()
    _told.add((text, version))
    log.log(level, "%s%s", "" if execution is None else f"{_shown(execution.path)}: ", text)


def _shown(path: Path) -> str:
    """*path* below the current directory, which is the site's when it is served by the command; else its name."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name
