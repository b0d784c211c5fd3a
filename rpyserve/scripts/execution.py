"""One execution of a script or of a site's module: what it defined, and what outlives it.

An execution's ``__name__`` is a text that knows its execution. Python and zope keep that very
object as the ``__module__`` of each class, function and interface defined under it, so whatever
turns up later can be asked where it came from. The text refers to its execution weakly, because a
text may be kept for ever (`logging.getLogger` does); the namespace holds the execution strongly, so
that it lives as long as any code of it.

What a script without ``cache()`` defines is *transient*: the next request executes the script
again, and has other classes. The running execution is kept in a context variable, because a render
method may import a module in a thread while the event loop executes a script.

Knows nothing of sessions, nor of how scripts are compiled and when they are run.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from itertools import count
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Final, NoReturn

from zope.interface.interface import InterfaceClass

from rpyserve._names import public
from rpyserve.scripts import file_state

Key = tuple[str, str, int, int]
"""What an interface is found by across executions: home, name, number, and era.

The number says which one of that name it is; it is -1 for a class.
"""

# The tagged value of an interface that says which execution defined it, and its key there.
_DEFINITION_TAG: Final = "rpyserve.place"

_serials = count(1)


# Executions and their names


class Execution:
    """One execution of a script, or one load of a module of the site.

    Args:
        name: what its ``__name__`` says: the same text each time for one path.
        path: the file.
        cached: whether it will serve many requests; an uncached one serves a single request.
        may_cache: whether ``cache()`` may still be called while it runs.
        registry: the `Registry` of the site that it runs for.
        package: what stands for the site's root, where sites that share a process may have modules
            of this name; empty where no other site can.
        era: how often its script has ceased to be cached; what was made in an earlier era is not
            found in a later one.
        source: what it was compiled from, for error pages: the file may have been edited since.
        code_version: the same for all executions of the same code; asked only of an uncached one.

    Attributes:
        running: True until its top-level code has finished or failed; see `executing`.
        serial: a number that grows with each execution.
        components: what was made for it and dies with it; kept here by ``sessions.components``.
        background: functions that its top-level code wants to run beside the site; see
            `background.background`.
    """

    __slots__ = (
        "__weakref__",
        "_interface_counts",
        "background",
        "code_version",
        "components",
        "era",
        "may_cache",
        "name",
        "path",
        "registry",
        "running",
        "serial",
        "source",
    )

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        cached: bool = False,
        may_cache: bool = False,
        registry: Any = None,
        package: str = "",
        era: int = 0,
        source: bytes = b"",
        code_version: object = None,
    ) -> None:
        self.name = ExecutionName(name, self, package, cached)
        self.path = path
        self.may_cache = may_cache
        self.registry = registry
        self.era = era
        self.source = source
        self.code_version = code_version
        self.running = True
        self.serial = next(_serials)
        self.components: dict[Any, Any] = {}
        self.background: list[Callable[..., Any]] = []
        self._interface_counts: dict[str, int] = {}

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
                entry.move_to_holder()

    @property
    def version(self) -> object:
        """Differs from that of another execution once the code, or what that uses, has changed."""
        return self.serial if self.cached else self.code_version

    @property
    def undecided(self) -> bool:
        """Whether it is still running and may yet call ``cache()``."""
        return self.running and self.may_cache and not self.cached

    @property
    def is_transient(self) -> bool:
        """Whether the next request will not know what it defines, as far as can be said now."""
        return not self.cached and not self.undecided

    def finish(self, namespace: Mapping[str, object] | None = None) -> None:
        """Say that the top-level code is done.

        The interfaces in *namespace* get their numbers in its order.
        """
        self.running = False
        for value in list((namespace or {}).values()):
            if isinstance(value, InterfaceClass) and execution_of(value) is self:
                definition_key(value)

    def key(self, name: str, number: int) -> Key:
        """Return what the *number*-th interface called *name* is found by."""
        return self.name.home, name, number, self.era

    def next_number(self, name: str) -> int:
        """Return 0 for the first interface called *name*, then 1, and so on."""
        number = self._interface_counts.get(name, 0)
        self._interface_counts[name] = number + 1
        return number


class ExecutionName(str):
    """The ``__name__`` of an execution.

    It equals the plain text, so that what is kept by name does not grow.
    """

    __slots__ = ("_execution", "cached", "home")

    _execution: weakref.ref[Execution]
    cached: bool
    home: str
    """A plain text that only the executions of one file have: the name, or ``package:name``."""

    def __new__(
        cls, name: str, execution: Execution, package: str = "", cached: bool = False
    ) -> ExecutionName:
        self = str.__new__(cls, name)
        self.home = f"{package}:{name}" if package else str(name)
        self.cached = cached
        self._execution = weakref.ref(execution)
        return self

    @property
    def execution(self) -> Execution | None:
        """The execution, while it lives."""
        return self._execution()

    @property
    def is_transient(self) -> bool:
        """Whether the next request will not know what was defined under it.

        That is known when the execution is gone, too.
        """
        execution = self._execution()
        return not self.cached if execution is None else execution.is_transient

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


# Who defined something


def is_interface(thing: object) -> bool:
    """Whether *thing* is an interface of zope's."""
    return isinstance(thing, InterfaceClass)


def execution_name_of(defined: object) -> ExecutionName | None:
    """Return the ``__name__`` under which *defined*, or what a partial calls, was defined.

    None for what an ordinary module defines.
    """
    module = getattr(without_partials(defined), "__module__", None)
    return module if isinstance(module, ExecutionName) else None


def execution_in(namespace: Mapping[str, object]) -> Execution | None:
    """Return the execution of a script or site module whose globals are *namespace*."""
    found = namespace.get("__execution__")
    return found if isinstance(found, Execution) else None


def execution_of(defined: object) -> Execution | None:
    """Return the execution that defined this class, function or interface.

    None for what an ordinary module defines, and where the execution is gone.
    """
    name = execution_name_of(defined)
    return None if name is None else name.execution


def definition_key(target: Any) -> tuple[Execution, Key] | None:
    """Return the execution that defined *target*, an interface or a class, and its key there.

    None for what an ordinary module defines. Interfaces of one name are numbered as they are first
    seen: by `registerAdapter`, at the end of the execution, or when used.
    """
    execution_name = execution_name_of(target)
    if execution_name is None:
        return None
    if not is_interface(target):
        execution = execution_name.execution
        return None if execution is None else (execution, execution.key(target.__qualname__, -1))
    known: tuple[Execution, Key] | None = target.queryDirectTaggedValue(_DEFINITION_TAG)
    if known is None and (execution := execution_name.execution) is not None:
        known = execution, execution.key(target.__name__, execution.next_number(target.__name__))
        # The interface now keeps its execution alive, and so its components.
        target.setTaggedValue(_DEFINITION_TAG, known)
    return known


# What a function is bound to


FUNCTION_CLASSES: Final = (FunctionType, MethodType, partial, type)
"""What a script defines or makes to be called."""


def is_function(thing: object) -> bool:
    """Whether *thing* is a function, a method, a partial or a class."""
    return isinstance(thing, FUNCTION_CLASSES)


def without_partials(function: Any) -> Any:
    """Return what *function* calls at last, if it is a partial; else itself."""
    while isinstance(function, partial):
        function = function.func
    return function


def function_name(function: Any) -> str:
    """Return the name a script's author knows it by, such as ``ExpirationLogger._expired``."""
    function = without_partials(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def bindings_of(function: Any) -> dict[str, Any]:
    """Return what *function* is bound to and closed over, each under a name.

    That is the object of a method, an object that is called itself, the arguments of a partial, and
    for a nested function the variables of the functions around it and its default values.
    """
    found: dict[str, Any] = {}
    if isinstance(function, partial):
        found |= {f"argument {index}": value for index, value in enumerate(function.args)}
        found |= {f"argument {name}": value for name, value in function.keywords.items()}
        function = function.func
    if isinstance(function, MethodType):
        found["self"] = function.__self__
        function = function.__func__
    if not isinstance(function, FunctionType):
        return found if isinstance(function, type) else {**found, "self": function}
    return {**found, **dict(_enclosed_variables(function)), **_nested_defaults(function)}


def _enclosed_variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            with suppress(ValueError):  # the variable has no value
                yield name, cell.cell_contents


def _nested_defaults(function: FunctionType) -> dict[str, Any]:
    """The default values, by which a function in a loop is often given the loop's variables."""
    if "<locals>" not in function.__qualname__ and function.__name__ != "<lambda>":
        return {}
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return dict(zip(names, defaults, strict=True)) | (function.__kwdefaults__ or {})


def is_plain_value(value: object) -> bool:
    """Whether *value* is a text, a number, a path or the like: it is what it equals."""
    kind = type(value)
    package = str(kind.__module__).partition(".")[0]
    is_immutable = kind.__hash__ is not None and not isinstance(value, (tuple, frozenset))
    if value is None or kind.__eq__ is object.__eq__:
        return value is None
    return package in sys.stdlib_module_names and is_immutable and not is_function(value)


# What the next request would not know


def refuse_transient(value: object, where: str) -> list[Any]:
    """Check that the next request will know what *value* is, and what it directly holds.

    Args:
        value: what is to be kept; it may be a builtin container.
        where: what the author calls that place, for the message.

    Returns:
        The classes and interfaces of all that, as far as an execution defined them.

    Raises:
        TypeError: an uncached execution defined its class; says what to write instead.
    """
    if type(value) in _PLAIN:
        return []
    defined = []
    for kind in (value if _is_definition(value) else type(value), *_kinds_inside(value)):
        execution_name = execution_name_of(kind)
        if execution_name is None:
            continue
        if execution_name.is_transient:
            what = "the class" if kind is value else "an object of the class"
            raise TypeError(": ".join(refusal(where, what, kind.__name__)))
        defined.append(kind)
    return defined


def refusal(where: str, what: str, name: str) -> tuple[str, str]:
    """Return why *where* cannot keep *what*, of the class *name*, and what to write instead."""
    return (
        f"{where} cannot keep {what} {name}",
        f"its script runs anew for every request, so the next request has another class {name} and "
        "would not know this one. Write cache() as the first line of the script, or move the class "
        f"{name} into a .py file beside it and import it, or keep plain values: text, numbers, "
        "lists, dicts.",
    )


_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _is_definition(value: object) -> bool:
    return isinstance(value, type) or is_interface(value)


def _kinds_inside(value: object) -> Iterable[Any]:
    """The classes of what a container holds, each once, and what classes and interfaces it holds.

    A list may be long, but its items are mostly alike.
    """
    if isinstance(value, dict):
        items: tuple[Iterable[Any], ...] = (value.keys(), value.values())
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        items = (value,)
    else:
        return ()
    kinds = {kind for part in items for kind in map(type, part)}
    if not any(issubclass(kind, (type, InterfaceClass)) for kind in kinds):
        return kinds
    return [*kinds, *(each for part in items for each in part if _is_definition(each))]


# The execution that runs


_running: ContextVar[Execution | None] = ContextVar("running", default=None)


def current() -> Execution | None:
    """Return the execution whose top-level code runs just now; None in a render method."""
    return _running.get()


@public
def cache(*names: str | os.PathLike[str]) -> None:
    """Have this script executed once, not for every request.

    It is executed again only after it, a module of the site, or one of *names* has changed. Call it
    in the script's own top-level code, best as its first line, before the files that it names are
    read.

    Args:
        names: files, directories with all that is below them, and patterns such as ``notes/*.md``,
            relative to the site's directory.

    Raises:
        RuntimeError: no script's top-level code is running.
        TypeError: one of *names* is no name.

    "Twisted Web in 60 seconds": rpy scripts, session objects.
    """
    execution = current()
    if not isinstance(execution, ScriptExecution):
        raise RuntimeError(
            "cache() belongs into a script's top-level code: "
            "write it as the first line of the .rpy file"
        )
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise TypeError(
                f'cache() takes names of files, as in cache("words.txt"), not {name!r:.60}; to '
                "remember what a function returns, write `from functools import cache` and @cache"
            )
    execution.cached = True
    for name in names:
        path = os.path.join(execution.root, name)
        execution.inputs.append(file_state.snapshot(path))
        if not file_state.is_there(path):
            execution.missing_inputs.append(os.fspath(name))


class ScriptExecution(Execution):
    """An execution of a script.

    Attributes:
        root: the site's directory.
        inputs: the files that its ``cache()`` named, as they were then.
        missing_inputs: those names that stand for nothing that is there.
    """

    __slots__ = ("inputs", "missing_inputs", "root")

    def __init__(
        self,
        name: str,
        path: Path,
        root: str,
        *,
        registry: Any,
        era: int,
        source: bytes,
        code_version: object,
    ) -> None:
        # Uncached scripts make one with each request.
        Execution.__init__(
            self,
            name,
            path,
            may_cache=True,
            registry=registry,
            era=era,
            source=source,
            code_version=code_version,
        )
        self.root = root
        self.inputs: list[file_state.State] = []
        self.missing_inputs: list[str] = []


class executing:
    """While inside, *execution* is the one whose code runs; after that it is not `running`."""

    __slots__ = ("_execution", "_token")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __enter__(self) -> None:
        self._token = _running.set(self._execution)

    def __exit__(self, *raised: object) -> None:
        _running.reset(self._token)
        self._execution.running = False


def populate_namespace(namespace: dict[str, Any], execution: Execution) -> None:
    """Put into *namespace* what every execution has. The namespace keeps its execution alive."""
    namespace["__name__"] = execution.name
    namespace["__execution__"] = execution
    namespace["input"] = _no_input


def _no_input(prompt: object = "", /) -> NoReturn:
    raise RuntimeError(
        "input() would wait at the server's console, where the visitor is not. Use a form: send "
        '<form method="post"><input name="answer"></form>, '
        'and read it with request.field("answer")'
    )
