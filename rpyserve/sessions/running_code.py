"""Code from before an edit that still runs, and the objects that its methods run on.

A request, a stream or a thread that began before an edit ends with the functions it began with. Two
things would break it while its objects are renewed:

- ``super()`` in a running method, if its object is no longer of the old class; or the name of a
  method that the edit has removed. Such an object keeps its class until the method has ended: see
  `RunningCode.holds_back`. Every other object is renewed at once, as new requests use it, too.
- ``is``, ``isinstance`` and ``match`` with classes and enumerations, which running code finds under
  the names of its own module. `RunningCode.renew_names` puts the present ones there.

Looking costs time for each task and thread, so it is done only when an object is to be changed.

Knows nothing of sessions.
"""

from __future__ import annotations

import gc
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

import trio

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName

_SUSPENDABLE: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)

# What stands between a coroutine and what it awaits: it says nothing of the latter itself.
_GO_BETWEENS: Final = frozenset(
    {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
)


class Held:
    """Methods that must end before what they run on can be changed.

    Args:
        methods: a function for each that says whether it has ended.
    """

    def __init__(self, methods: list[Callable[[], bool]]) -> None:
        self._methods = methods
        self._generation = definitions.generation

    def is_current(self) -> bool:
        """Whether they still run, all of them, and nothing else has changed meanwhile."""
        if self._generation != definitions.generation:
            return False
        return not any(has_ended() for has_ended in self._methods)


class RunningCode:
    """The site's old code that was running at one moment."""

    def __init__(self) -> None:
        self._methods: dict[int, list[tuple[CodeType, Callable[[], bool]]]] = {}
        self._held: list[Callable[[], bool]] = []
        self._namespaces: dict[int, dict[str, Any]] = {}
        self._kept: list[Any] = []
        for frame, has_ended in _frames():
            self._add(frame, has_ended)

    def holds_back(self, thing: Any, new_class: type) -> str:
        """Return the name of a method on *thing* that would break if it became a *new_class*.

        Empty, if there is none.
        """
        for code, has_ended in self._methods.get(id(thing), ()):
            if not has_ended() and _would_break(code, type(thing), new_class):
                self._held.append(has_ended)
                return code.co_qualname
        return ""

    def held(self) -> Held | None:
        """Return the methods that have held anything back, if there are any."""
        return Held(self._held) if self._held else None

    def renew_names(self) -> None:
        """Have the old code find the present classes under the names that it uses."""
        for namespace in self._namespaces.values():
            for name, value in list(namespace.items()):
                if isinstance(value, type) and (new := _stand_in(value)) is not value:
                    namespace[name] = new

    def _add(self, frame: FrameType, has_ended: Callable[[], bool]) -> None:
        name = frame.f_globals.get("__name__")
        if type(name) is not ExecutionName:
            return
        self._namespaces[id(frame.f_globals)] = frame.f_globals
        thing = _object_of_method(frame)
        if thing is not None:
            self._kept.append(thing)  # so that its id stays its own
            self._methods.setdefault(id(thing), []).append((frame.f_code, has_ended))


def _object_of_method(frame: FrameType) -> Any:
    """The object that a method runs on, or a function inside of it; else None."""
    code = frame.f_code
    names = {"self", *code.co_varnames[: min(code.co_argcount, 1)]}
    known = frame.f_locals
    for thing in [known[name] for name in names if name in known]:
        if any(
            code.co_qualname.startswith(f"{base.__qualname__}.") for base in type(thing).__mro__
        ):
            return thing
    return None


def _would_break(code: CodeType, old_class: type, new_class: type) -> bool:
    """Whether *code* uses ``super()``, or names something that *new_class* does not have."""
    if "__class__" in code.co_freevars:
        return True
    return any(
        _has(old_class, name) and not _has(new_class, name)
        for each in _codes_in(code)
        for name in each.co_names
    )


def _has(cls: type, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__)


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes_in(const)


def _stand_in(old: type) -> type:
    """What old code can use in place of *old*, in every way in which it uses that."""
    new = None if definitions.is_current(old) else definitions.current_definition(old)
    if not isinstance(new, type):
        return old
    if any(name not in getattr(new, "__members__", {}) for name in getattr(old, "__members__", ())):
        return old
    return new if _signature(new) == _signature(old) else old


def _signature(cls: type) -> str:
    try:
        return str(inspect.signature(cls))
    except (TypeError, ValueError):
        return ""


# Everything that runs


def _frames() -> Iterator[tuple[FrameType, Callable[[], bool]]]:
    """The frames of all threads and tasks, each with a function that says if it has ended."""
    for thread, innermost in sys._current_frames().items():
        for frame in _stack(innermost):
            yield frame, _left(thread, frame)
    for thing in _suspended():
        suspended_at = _frame_of(thing)
        if suspended_at is not None:
            yield suspended_at, _ended(thing)


def _stack(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back


def _left(thread: int, frame: FrameType) -> Callable[[], bool]:
    """Return a function that says whether *thread* has left *frame*."""

    def has_ended() -> bool:
        innermost = sys._current_frames().get(thread)
        return innermost is None or frame not in _stack(innermost)

    return has_ended


def _ended(suspendable: Any) -> Callable[[], bool]:
    """Return a function that says whether a coroutine or generator has ended."""
    reference = weakref.ref(suspendable)
    return lambda: (thing := reference()) is None or _frame_of(thing) is None


def _suspended() -> Iterator[Any]:
    """The coroutines and generators that tasks run, and those which these hold."""
    seen: set[int] = set()
    stack = [task.coro for task in _tasks()]
    while stack:
        thing = stack.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, _SUSPENDABLE):
            yield thing
        stack += (each for each in gc.get_referents(thing) if _leads_on(each))


def _leads_on(thing: Any) -> bool:
    if isinstance(thing, _SUSPENDABLE):
        return True
    return type(thing).__name__ in _GO_BETWEENS


def _frame_of(suspendable: Any) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame = getattr(suspendable, name, None)
        if isinstance(frame, FrameType):
            return frame
    return None


def _tasks() -> Iterator[Any]:
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:  # in a thread, or without a server
        return
    stack = [] if root is None else [root]
    while stack:
        task = stack.pop()
        yield task
        for nursery in task.child_nurseries:
            stack += nursery.child_tasks
