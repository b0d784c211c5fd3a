"""Which factory makes the component for an interface: `registerAdapter`, and the look-up.

zope's adapter registry cannot serve here: it compares interfaces by name, so it would answer an old
interface with a new class, and it never lets go of the first. The factories are kept on the
interfaces themselves, by the name of the class to adapt: that class may come again with the next
execution.

Knows nothing of where components are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zope.interface import providedBy

from rpyserve._names import public
from rpyserve.scripts.execution import definition_key, is_interface

_FACTORIES: Final = "rpyserve.factories"
_USAGE: Final = (
    "registerAdapter(Counter, Session, ICounter) takes a factory, a class to adapt, and interfaces"
)
# A session of Twisted's stands for one of ours: what adapts one adapts the other.
_STANDS_FOR: Final = {("twisted.web.server", "Session"): ("rpyserve", "Session")}


@public
def registerAdapter(factory: Callable[[Any], Any], original: Any, *interfaces: Any) -> None:
    """Have ``interface(thing)`` return ``factory(thing)`` for instances of *original*.

    Instances of its subclasses count, too. A `Session` and a `Registry` keep what was made, so that
    ``ICounter(session) is ICounter(session)``; other things get a new one each time. Registering
    again replaces; it never fails.

    Args:
        factory: called with the thing to adapt; usually the class of the component. If it returns
            None, there is no adapter for this thing.
        original: the class to adapt from, such as `Session`; or an interface, for all that provide
            it.
        interfaces: one or more interfaces to adapt to.

    Raises:
        TypeError: an argument is not what it should be.

    "Twisted Web in 60 seconds": session objects (``twisted.python.components.registerAdapter``).
    """
    if not callable(factory):
        raise TypeError(f"{_USAGE}; {factory!r:.60} cannot be called to make a component")
    if not (isinstance(original, type) or is_interface(original)):
        raise TypeError(f"{_USAGE}; {original!r:.60} is not a class")
    if not interfaces:
        raise TypeError(f"{_USAGE}; the interface is missing")
    for wanted in interfaces:
        if not is_interface(wanted):
            raise TypeError(f"{_USAGE}; {wanted!r:.60} is not an interface")
    for wanted in interfaces:
        definition_key(wanted)
        factories = wanted.queryDirectTaggedValue(_FACTORIES)
        if factories is None:
            wanted.setTaggedValue(_FACTORIES, factories := {})
        factories[_name_of(original)] = factory


def factory_for(thing: object, wanted: Any) -> Callable[[Any], Any] | None:
    """Return the factory that adapts *thing* to the interface *wanted*; None if there is none.

    That of the nearest class of *thing* goes first, then that of an interface that it provides.
    """
    factories: dict[object, Callable[[Any], Any]] | None = wanted.queryDirectTaggedValue(_FACTORIES)
    if factories is None:
        return None
    provided = filter(is_interface, providedBy(thing).__sro__)
    for each in (*type(thing).__mro__[:-1], *provided, object):
        factory = factories.get(_name_of(each))
        if factory is not None:
            return factory
    return None


def _name_of(original: Any) -> tuple[str, ...]:
    # By name, not identity: the class may come again with the next execution.
    if isinstance(original, type):
        name = str(original.__module__), original.__qualname__
        return _STANDS_FOR.get(name, name)
    return "interface", str(original.__module__), original.__name__
