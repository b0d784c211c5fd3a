"""A registry whose contents are in a store: whatever uses it brings them here.

It is the site's own registry, which scripts have under its name, with another class as long as it
is absent. So a registry that is here costs nothing more than one that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rpyserve.scripts import definitions
from rpyserve.sessions.session import Registry


class AbsentRegistry(Registry):
    """What a registry is while it is not here. Made by `make_absent`, and ended by `make_present`.

    What it is can be told without what it holds: ``isinstance`` asks that of all that a script has
    in its namespace, and the loader whether it is to be brought up to date.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Registry
        if name == "_generation":
            return definitions.generation
        if name != "__dict__":  # for those who look after each request for what is new
            _fetch(self)
        return object.__getattribute__(self, name)


def make_absent(registry: Registry, fetch: Callable[[], object]) -> None:
    """Have *fetch* called when *registry* is used; it calls `make_present`, or raises."""
    if is_absent(registry):
        return
    object.__setattr__(registry, "_waits_for", fetch)
    object.__setattr__(registry, "__class__", AbsentRegistry)


def make_present(registry: Registry) -> None:
    """Let *registry* be used as it is from now on."""
    if is_absent(registry):
        object.__setattr__(registry, "__class__", Registry)
        registry._waits_for = None


def is_absent(registry: object) -> bool:
    """Whether the contents of *registry* are not here."""
    return type(registry) is AbsentRegistry


def _fetch(registry: Registry) -> None:
    object.__getattribute__(registry, "_waits_for")()


def _fetching(name: str) -> Any:
    def method(self: Registry, *args: Any) -> Any:
        _fetch(self)
        return getattr(Registry, name)(self, *args)

    return method


# Python looks for these on the class only.
_SPECIAL: Final = (
    "__getitem__", "__setitem__", "__delitem__", "__iter__", "__len__", "__contains__",
    "__conform__", "__repr__", "__setattr__", "__delattr__",
)  # fmt: skip
for _name in _SPECIAL:
    setattr(AbsentRegistry, _name, _fetching(_name))
