"""Which execution of a script defined a class or an interface, and whether the next request will know it.

A script's ``__name__`` is a text that knows its execution. Python and zope keep that very object as the
``__module__`` of each class, function and interface defined under it, so whatever turns up later can be asked where
it came from. The text refers to the execution weakly, because a text may be kept for ever (``logging.getLogger``
does); the namespace of the execution should hold it strongly, so that it lives as long as any code of it.

Knows nothing of sessions, nor of how scripts are compiled and run.

Which execution runs just now, what `cache` tells it, and what the namespace of each one has.

Scripts and modules of the site are executions alike. The running one is kept in a context variable, because a render
method may import a module in a thread while the event loop executes a script.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn

from zope.interface.interface import InterfaceClass

from rpyserve.scripts import file_state

__all__ = [
    "Execution",
    "ExecutionName",
    "Key",
    "ScriptExecution",
    "cache",
    "current",
    "definition_key",
    "executing",
    "execution_of",
    "is_interface",
    "name_over",
    "populate_namespace",
    "refuse_passing",
]


Key = tuple[str, str, int, int]
"""What an interface is found by across executions: module, name, which of that name (-1: a class), and the era."""

_PLACE: Final = "rpyserve.place"
_serial = count(1)


class Execution:
    """One execution of a script, or one load of a module of the site.

    Args:
        name: what its ``__name__`` says: the same text each time for one path.
        path: the file.
        cached: whether it will serve many requests; an uncached one serves a single request.
        may_cache: whether ``cache()`` may still be called while it runs.
        registry: the `Registry` of the site that it runs for.
        home: what tells modules of one name apart whose sites share a process; empty where the name does.
        era: how often its script has ceased to be cached; what was made in an earlier era is not found in a later one.

    Attributes:
        running: True until its top-level code has finished; then set it to False, or call `finish`.
        serial: a number that grows with each execution: the generation of what it defines.
        source: what it was compiled from, for error pages: the file may have been edited since.
        components: what was made for it and dies with it; the business of `components`.
        edition: of an uncached one: what is the same for all executions of the same code.
        background: functions that its top-level code wants to run beside the site; the business of `tasks`.
    """

    __slots__ = (
        "__weakref__", "_counts", "background", "components", "edition", "era", "may_cache", "name", "path",
        "registry", "running", "serial", "source",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        cached: bool = False,
        may_cache: bool = False,
        registry: Any = None,
        home: str = "",
        era: int = 0,
    ) -> None:
        self.name = ExecutionName(name, self, home)
        self.path = path
        self.running = True
        self.may_cache = may_cache
        self.serial = next(_serial)
        self.registry = registry
        self.edition: object = None
        self.background: list[Callable[..., Any]] = []
        self.era = era
        self.source = b""
        self.components: dict[Any, Any] = {}
        self._counts: dict[str, int] = {}
        self.name.cached = cached

    @property
    def cached(self) -> bool:
        """Whether it serves many requests. Setting it makes lasting what it has stored so far."""
        return self.name.cached

    @cached.setter
    def cached(self, cached: bool) -> None:
        self.name.cached = cached
        if cached:
            kept, self.components = self.components, {}
            for entry in kept.values():
                entry.settle()

    @property
    def version(self) -> object:
        """What tells what it defines from what another execution does: its serial, or, uncached, its edition."""
        return self.serial if self.cached else self.edition

    @property
    def undecided(self) -> bool:
        """Whether it is still running and may yet call ``cache()``."""
        return self.running and self.may_cache and not self.cached

    @property
    def passing(self) -> bool:
        """Whether what it defines will be unknown to the next request, as far as can be said now."""
        return not self.cached and not self.undecided

    def finish(self, namespace: Mapping[str, object] | None = None) -> None:
        """Say that the top-level code is done. The interfaces in *namespace* get their numbers in its order."""
        self.running = False
        for value in list((namespace or {}).values()):
            if is_interface(value) and execution_of(value) is self:
                definition_key(value)

    def key(self, name: str, number: int) -> Key:
        """Return what the *number*-th interface called *name* is found by."""
        return self.name.home, name, number, self.era

    def next_number(self, name: str) -> int:
        """Return 0 for the first interface called *name*, then 1, and so on."""
        number = self._counts.get(name, 0)
        self._counts[name] = number + 1
        return number


class ExecutionName(str):
    """The ``__name__`` of an execution: equal to the plain text, so that what is kept by name does not grow."""

    __slots__ = ("_execution", "cached", "home")

    _execution: weakref.ref[Execution]
    cached: bool
    home: str
    """What no other execution has but those of the same file: a plain text, the name after the last colon."""

    def __new__(cls, name: str, execution: Execution, home: str = "") -> ExecutionName:
        self = super().__new__(cls, name)
        self.home = f"{home}:{name}" if home else str(name)
        self._execution = weakref.ref(execution)
        return self

    @property
    def execution(self) -> Execution | None:
        """The execution, while it lives."""
        return self._execution()

    @property
    def passing(self) -> bool:
        """Whether the next request will not know what was defined under it; also known when the execution is gone."""
        execution = self._execution()
        return not self.cached if execution is None else execution.passing

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def is_interface(thing: object) -> bool:
    """Whether *thing* is an interface of zope's."""
    return isinstance(thing, InterfaceClass)


def name_over(defined: object) -> ExecutionName | None:
    """Return the `__name__` under which *defined*, or what a partial calls, was defined; None for ordinary modules."""
    while isinstance(defined, partial):
        defined = defined.func
    module = getattr(defined, "__module__", None)
    return module if isinstance(module, ExecutionName) else None


def execution_of(defined: object) -> Execution | None:
    """Return the execution that defined this class, function or interface; None for ordinary modules."""
    name = name_over(defined)
    return None if name is None else name.execution


def definition_key(target: Any) -> tuple[Execution, Key] | None:
    """Return the execution that defined *target*, an interface or a class, and its key there.

    None for what an ordinary module defines. Interfaces of one name are numbered as they are first seen: by
    `registerAdapter`, at the end of the execution, or when used.
    """
    if name_over(target) is None:
        return None
    if not is_interface(target):
        execution = execution_of(target)
        return None if execution is None else (execution, execution.key(target.__qualname__, -1))
    place: tuple[Execution, Key] | None = target.queryDirectTaggedValue(_PLACE)
    if place is None and (execution := execution_of(target)) is not None:
        name = target.__name__
        place = execution, execution.key(name, execution.next_number(name))
        # The interface now keeps its execution, and so its components, alive, whatever becomes of the namespace.
        target.setTaggedValue(_PLACE, place)
    return place


def refuse_passing(value: object, where: str) -> list[Any]:
    """Check that the next request will know what *value* is; also what a builtin container holds, one level deep.

    Returns:
        What of all that an execution has defined: classes mostly.

    Raises:
        TypeError: an uncached execution defined its class; says what to write instead.
    """
    ours = []
    for kind in (value if _is_definition(value) else type(value), *_kinds_inside(value)):
        execution_name = name_over(kind)
        if execution_name is None:
            continue
        ours.append(kind)
        if execution_name.passing:
            name = kind.__name__
            raise TypeError(
                f"{where} cannot keep {'' if kind is value else 'an object of '}the class {name}: its script runs anew "
                f"for every request, so the next request has another class {name} and would not know this one. "
                f"Write cache() as the first line of the script, or move the class {name} into a .py file beside it "
                "and import it, or keep plain values: text, numbers, lists, dicts."
            )
    return ours


def _is_definition(value: object) -> bool:
    return isinstance(value, type) or is_interface(value)


def _kinds_inside(value: object) -> Iterable[Any]:
    """The classes of what a container holds, each once: a list may be long, and its items are mostly alike."""
    if isinstance(value, dict):
        items: tuple[Iterable[Any], ...] = (value.keys(), value.values())
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        items = (value,)
    else:
        return ()
    kinds = {kind for each in items for kind in map(type, each)}
    if any(issubclass(kind, (type, InterfaceClass)) for kind in kinds):
        return [*kinds, *(each for part in items for each in part if _is_definition(each))]
    return kinds


_running: ContextVar[Execution | None] = ContextVar("running", default=None)


def current() -> Execution | None:
    """Return the execution whose top-level code runs just now; None in a render method, or outside a server."""
    return _running.get()


def cache(*names: str | os.PathLike[str]) -> None:
    """Have this script executed once, and again only after it, a module of the site, or one of *names* has changed.

    Without it a script is executed for every request. Call it in the script's own top-level code, best as its first
    line, before the files that it names are read.

    Args:
        names: files, and directories with all that is below them, relative to the site's directory.

    Raises:
        RuntimeError: no script's top-level code is running.
        TypeError: one of *names* is no name.

    "Twisted Web in 60 seconds": rpy scripts, session objects.
    """
    execution = current()
    if not isinstance(execution, ScriptExecution):
        raise RuntimeError(
            "cache() belongs into a script's top-level code: write it as the first line of the .rpy file"
        )
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise TypeError(
                f'cache() takes names of files, as in cache("words.txt"), not {name!r:.60}; to remember what a '
                "function returns, write `from functools import cache` and @cache"
            )
    execution.cached = True
    execution.inputs += [file_state.snapshot(os.path.join(execution.root, name)) for name in names]


class ScriptExecution(Execution):
    """An execution of a script, with the files that its ``cache()`` named."""

    __slots__ = ("inputs", "root")

    def __init__(self, name: str, path: Path, root: str, registry: Any, era: int = 0) -> None:
        super().__init__(name, path, may_cache=True, registry=registry, era=era)
        self.root = root
        self.inputs: list[file_state.State] = []


@contextmanager
def executing(execution: Execution) -> Iterator[None]:
    """While inside, *execution* is the running one. On a good end, call its `finish`."""
    token = _running.set(execution)
    try:
        yield
    finally:
        _running.reset(token)
        execution.running = False


def populate_namespace(namespace: dict[str, Any], execution: Execution) -> None:
    """Put into *namespace* what every execution has. The namespace keeps its execution alive."""
    namespace["__name__"] = execution.name
    namespace["__execution__"] = execution
    namespace["input"] = _no_input


def _no_input(prompt: object = "", /) -> NoReturn:
    raise RuntimeError(
        "input() would wait at the server's console, where the visitor is not. Use a form: send "
        '<form method="post"><input name="answer"></form>, and read it with request.field("answer")'
    )
