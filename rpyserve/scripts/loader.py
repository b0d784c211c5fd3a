"""Scripts: from a file's path to the resource that its code makes.

Owns which execution of a script serves the next request. Without ``cache()`` a script is executed
for each request, and nothing of that outlives the request. With it, the resource is published if
all went well, and serves until the file, a module of the site, or a file that ``cache()`` named has
changed. Each request looks at that itself, so it holds without a watcher too. What a script does
wrong becomes a `ScriptError`.

An execution goes through four steps, and each is a method of `ScriptLoader`: the code is compiled
(or remembered, by `CodeCache`), an execution is created for it, it is run, and then it is published
or discarded.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import chain, count
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, Final, Protocol

import trio

from rpyserve.http.errors import HTTPError, Redirect, ScriptError
from rpyserve.http.request import Request
from rpyserve.resources.resource import NotReady, Resource, as_resource, base_class_of
from rpyserve.scripts import definitions, file_state, twisted_names
from rpyserve.scripts.background import (
    BackgroundTasks,
    TaskOrigin,
    note_threads,
    note_uncached,
)
from rpyserve.scripts.execution import (
    ScriptExecution,
    cache,
    executing,
    execution_name_of,
    is_interface,
    populate_namespace,
)
from rpyserve.scripts.importer import SiteModules, SourceObserver, escaped, unescaped
from rpyserve.scripts.source import uses_of
from rpyserve.scripts.validation import validate_namespace
from rpyserve.util.slow_calls import slow_call_log

log = logging.getLogger("rpyserve")

MOST_COMPILED: Final = 500
"""How many scripts' code is remembered for one site."""
MOST_NOTES: Final = 64
"""How many executions of a script are remembered."""
MANY_FILES: Final = 500
"""How many files that ``cache()`` names are looked at without giving others their turn."""


# Compiled code


@dataclass(slots=True)
class CompiledScript:
    """The code of one version of a script.

    Args:
        state: the file as it was then.
        source: its contents.
        code: what they were compiled to.
        imports: the first names of the modules that it imports; see `Source`.
        may_leave_classes: whether it may define classes that the next request does not know: it has
            some, and calls ``cache()``, if it does, not before all else but imports.
        uses: what of the session and the registry it may use; see `source.uses_of`.
        validated: whether an execution of it has left a resource that can be served.
        serial: tells it from any other code.
    """

    state: file_state.State
    source: bytes
    code: CodeType
    imports: frozenset[str]
    may_leave_classes: bool
    uses: frozenset[str]
    validated: bool = False
    serial: int = field(default_factory=count().__next__)


class CodeCache:
    """The compiled code of a site's scripts, as long as their files stay as they are.

    The number is bounded: what was not used for longest is forgotten first.
    """

    def __init__(self, modules: SiteModules) -> None:
        self._modules = modules
        self._compiled: OrderedDict[str, CompiledScript] = OrderedDict()

    def get(self, path: str) -> CompiledScript:
        """Return the code of the script at *path* as it is now.

        Raises:
            ScriptError: it cannot be read, or is no Python.
            HTTPError: 404, there is no such file; 503, the disk fails.
        """
        compiled = self._compiled.get(path)
        if compiled is not None and not compiled.state.changed():
            self._compiled.move_to_end(path)
            return compiled
        self._compiled.pop(path, None)
        compiled = self._compiled[path] = self._compile(path)
        if len(self._compiled) > MOST_COMPILED:
            self._compiled.popitem(last=False)
        return compiled

    def known(self, path: str) -> CompiledScript | None:
        """Return the code of the script at *path* as it was last; None if that is not known."""
        return self._compiled.get(path)

    def clear(self) -> None:
        """Forget all code."""
        self._compiled.clear()

    def _compile(self, path: str) -> CompiledScript:
        try:
            data, state = file_state.read(path)
            source = self._modules.compile(data, path)
        except FileNotFoundError:
            raise HTTPError(404, private=f"{path} has just been deleted.") from None
        except HTTPError:  # the disk fails
            raise
        except OSError as exc:
            why = f"The script cannot be read: {exc.strerror or exc}."
            raise ScriptError(Path(path), why) from exc
        except Exception as exc:  # what is nested too deep is no SyntaxError
            raise ScriptError(Path(path)) from exc
        may_leave = not _is_cached_first(source.tree) and _may_define_classes(source.tree)
        uses = uses_of(source.code)
        return CompiledScript(state, data, source.code, source.imports, may_leave, uses)


_CLASS_FACTORIES: Final = frozenset({
    "Enum", "Flag", "IntEnum", "IntFlag", "NamedTuple", "StrEnum", "TypedDict", "make_dataclass",
    "namedtuple", "new_class", "type",
})  # fmt: skip


def _may_define_classes(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "id", getattr(called, "attr", ""))
        if isinstance(node, ast.ClassDef) or name in _CLASS_FACTORIES:
            return True
    return False


def _is_cached_first(tree: ast.Module) -> bool:
    """Whether the script calls ``cache()`` before all else but imports, and a docstring."""
    for statement in tree.body:
        match statement:
            case ast.Expr(ast.Call(ast.Name("cache"))):
                return True
            case ast.ImportFrom("rpyserve") | ast.Expr(ast.Constant()):
                continue
            case ast.Import(names) | ast.ImportFrom(_, names):
                if any((each.asname or each.name) in ("cache", "*") for each in names):
                    return False  # it may be another `cache`
            case _:
                return False
    return False


# Names


@dataclass(frozen=True, slots=True)
class ScriptName:
    """What a script is called.

    Args:
        path: its file.
        module: its ``__name__``.
        spec: its module spec, whose name is below the package of the site's modules, so that ``from
            . import x`` finds what is beside the script. The name cannot be the script's own: a
            directory or module may have that.
        package: the parent of *spec*.
        display: its path as people are told it.
    """

    path: Path
    module: str
    spec: ModuleSpec
    package: str
    display: str


class ScriptNames:
    """The names of a site's scripts, each decided once.

    Args:
        modules: those of the site, whose package stands for its root.
        prefix: what stands for the root in the names of scripts.
    """

    def __init__(self, modules: SiteModules, prefix: str) -> None:
        self._modules = modules
        self._prefix = prefix
        self._names: dict[str, ScriptName] = {}

    def of(self, path: str) -> ScriptName:
        """Return the names of the script at *path*."""
        name = self._names.get(path)
        if name is None:
            name = self._names[path] = self._decide(path)
        return name

    def path_of(self, module: str) -> str:
        """Return the path of the script whose ``__name__`` is *module*; it need not be there."""
        parts = map(unescaped, module.split(".")[1:])
        return os.path.join(self._modules.root, *parts) + ".rpy"

    def _decide(self, path: str) -> ScriptName:
        *directories, file = self._modules.relative(path) or (os.path.basename(path),)
        parts = [*map(escaped, directories), escaped(file.removesuffix(".rpy"))]
        spec = ModuleSpec(".".join([self._modules.package, *parts]), None, origin=path)
        return ScriptName(
            Path(path),
            module=".".join([self._prefix, *parts]),
            spec=spec,
            package=spec.parent or "",
            display=os.path.relpath(path, self._modules.root),
        )


# Executing


def _attributes_of(resource: Resource) -> Iterable[Any]:
    return getattr(resource, "__dict__", {}).values()


class SiteServices(Protocol):
    """What scripts have of the site that they belong to."""

    registry: Any
    tasks: BackgroundTasks
    on_source: SourceObserver | None

    def on_close(self, closer: Callable[[], object]) -> None:
        """Have *closer* called once, when the site stops."""
        ...

    def registry_renewal(self) -> Callable[[], Awaitable[None]] | None:
        """Return what brings the registry up to date, if that is to be done and takes long."""
        ...

    def watch_execution(self, execution: ScriptExecution, request: Request) -> None:
        """Look at what *request* keeps of what *execution* defines, until it is answered."""
        ...


@dataclass(slots=True)
class _Run:
    """One execution, from before its code runs until it is published or discarded.

    Args:
        name: what the script is called.
        compiled: the code.
        generation: that of the site's modules when it began.
        execution: what the code knows itself by.
        module: what the code runs in.
        namespace: the names in it.
        is_repetition: see `_Cached.is_repeated_by`.
    """

    name: ScriptName
    compiled: CompiledScript
    generation: int
    execution: ScriptExecution
    module: ModuleType
    namespace: dict[str, Any]
    is_repetition: bool


class ScriptModule(ModuleType):
    """What a script's code runs in.

    Requests overlap, and `sys.modules` has one module of a name. Where that is of another request
    of an uncached script, what is asked of it comes from the asking request's own: `pickle` finds
    a class only if it is the very same one.
    """

    def __getattribute__(self, name: str) -> Any:
        if name[:2] != "__":
            own = _own_modules.get().get(super().__getattribute__("__name__"))
            module = None if own is None else own()
            if module is not None and module is not self:
                return ModuleType.__getattribute__(module, name)
        return super().__getattribute__(name)


# By the script's name: what the code of an uncached script runs in for the request that is answered
# here. As everything that goes by context, it holds in the threads of that request, too.
_own_modules: ContextVar[Mapping[str, weakref.ref[ModuleType]]] = ContextVar(
    "modules of uncached scripts", default=MappingProxyType({})
)


@dataclass(frozen=True, slots=True)
class _Cached:
    """The last execution of a cached script.

    Args:
        module: what its code ran in.
        compiled: the code.
        generation: that of the site's modules when it began.
        resource: what it made.
    """

    module: ModuleType
    compiled: CompiledScript
    generation: int
    resource: Resource

    def is_repeated_by(self, compiled: CompiledScript, generation: int) -> bool:
        """Whether executing *compiled* is no edit: only a file that ``cache()`` names has changed.

        That is so if the code is the same, and nobody can have anything that it has defined.
        """
        is_same = compiled.source == self.compiled.source and generation == self.generation
        return is_same and not self._is_in_use

    @property
    def _is_in_use(self) -> bool:
        """Whether anybody may have a class or a function of it, or an object of such a class."""
        name, namespace = self.module.__name__, vars(self.module)
        own = [value for value in namespace.values() if execution_name_of(value) is name]
        if any(type(value) is not FunctionType for value in own):
            return True
        known = Counter(map(id, [*namespace.values(), *_attributes_of(self.resource)]))
        own = [*{id(value): value for value in own}.values(), object()]
        *counts, of_nobodys = [sys.getrefcount(value) for value in own]
        return any(
            count - of_nobodys > known[id(value)] for count, value in zip(counts, own, strict=False)
        )


@dataclass(frozen=True, slots=True)
class _Published:
    """What a cached execution made, and what must not change for it to serve.

    Args:
        display: the script's path as people are told it.
        resource: what it made.
        compiled: its code, as long as the file is the same.
        inputs: the files that its ``cache()`` named, as they were then, and at last the script.
        generation: that of the site's modules when it began.
        has_many_inputs: whether looking at all these files takes long.
        may_use_twisted: whether it, or a module that it imports, may use Twisted's names.
    """

    display: str
    resource: Resource
    compiled: CompiledScript
    inputs: tuple[file_state.State, ...]
    generation: int
    has_many_inputs: bool
    may_use_twisted: bool


# What is remembered of executions: values only


@dataclass(frozen=True, slots=True)
class ExecutionNote:
    """How one execution of a script went.

    Args:
        at: when it was over, in seconds since the epoch.
        why: why there was one: ``"first use"``, ``"saved"``, ``"util.py was saved"``, ``"not
            cached"``, ``"it failed before"``.
        seconds: how long its top-level code took.
        failed: whether that raised something, or left nothing that could be served.
    """

    at: float
    why: str
    seconds: float
    failed: bool


@dataclass(frozen=True, slots=True)
class ScriptStatistics:
    """What is known of one script.

    Args:
        script: its path, relative to the site's directory.
        cached: whether its last execution serves many requests.
        count: how often it has been executed.
        executions: the last of them, the newest at the end.
    """

    script: str
    cached: bool
    count: int
    executions: tuple[ExecutionNote, ...]


@dataclass(slots=True)
class _History:
    display: str
    cached: bool = False
    count: int = 0
    serial: int = -1
    generation: int = -1
    # Plain tuples of what `ExecutionNote` has: uncached scripts make one with each request.
    executions: deque[tuple[float, str, float, bool]] = field(
        default_factory=lambda: deque(maxlen=MOST_NOTES)
    )


_SAVED: Final = "saved"


class ScriptLoader:
    """The scripts of a site.

    It opens with the first request, which brings the site, and closes when that stops.

    Args:
        root: the site's directory.
        registry: what scripts get as ``registry`` where there is no site.

    Attributes:
        registry: what scripts get as ``registry``: that of the site.
        modules: the modules of the site.
    """

    def __init__(self, root: str | Path, registry: Any = None) -> None:
        self.root = os.path.abspath(root)
        self.registry = registry
        self.modules = SiteModules(self.root)
        self._tasks: BackgroundTasks | None = None
        self._watch: Callable[[ScriptExecution, Request], None] | None = None
        self._is_open = False
        self._prefix = ""
        self._names = ScriptNames(self.modules, "")
        self._codes = CodeCache(self.modules)
        # By the script's path: what may serve the next request.
        self._published: dict[str, _Published] = {}
        # By the script's path: how its executions went.
        self._histories: dict[str, _History] = {}
        # By the script's name: the last executions of cached scripts, whose modules stay in
        # `sys.modules`, and how often the script has ceased to be cached.
        self._cached: dict[str, _Cached] = {}
        # The names of those that an earlier process has executed.
        self._recalled: set[str] = set()
        self._eras: dict[str, int] = {}
        # By the path of a cached script with classes that objects elsewhere may be of: its file.
        self._definers: dict[str, file_state.State] = {}
        # Which of them are to be executed by the thread of the event loop, and which are running.
        self._postponed: set[str] = set()
        self._running: set[str] = set()
        self._thread = 0
        # By the script's name: the modules of uncached executions whose requests have not ended.
        self._live: dict[str, list[ModuleType]] = {}
        # The names in `cache()` that the console was told of, each with its script.
        self._warned_of: set[tuple[str, str]] = set()
        self._retired_in = 0
        # Threads of the site's own may all be at work.
        self._limiter = trio.CapacityLimiter(4)
        # In which generation the registry was as it should be, and what brings it there.
        self._ready_in = 0
        self._registry_renewal: Callable[[], Callable[[], Awaitable[None]] | None] | None = None
        self._twisted_changes = 0

    def load(self, path: str | Path, request: Request | None = None) -> Resource:
        """Return the resource of the script at *path*.

        That is the published one if it is fresh; else the script is executed.

        Args:
            path: the script, as an absolute path.
            request: the request that it is for. When it ends, nothing of an uncached execution is
                kept.

        Raises:
            ScriptError: the script cannot be executed, or leaves nothing that could be served.
            HTTPError, Redirect: the script raised it; 404 if there is no such file.
            NotReady: something is to be done before, and *request* may wait.
        """
        if not self._is_open:
            self.open(getattr(request, "site", None))
        self.modules.activate()
        self.modules.remove_repeated_path_entries()
        self.modules.refresh()
        path = os.fspath(path)
        published = self._published.get(path)
        if published is None or published.may_use_twisted:
            self._follow_twisted()
        self._retire_changed(path)
        if self._ready_in != definitions.generation:
            self._wait_for_registry(path, request)
        edits = definitions.edits
        try:
            resource = self._current(path, request)
            edits = definitions.edits  # its code is as new as anything that is defined now
        finally:
            if request is not None:
                request.on_close(partial(definitions.advance_if_edited_since, edits))
        if self._ready_in != definitions.generation and path in self._published:
            self._wait_for_registry(path, request)  # its execution has defined other classes
        return resource

    def _wait_for_registry(self, path: str, request: Request | None) -> None:
        """Have the registry brought up to date before the script at *path* uses it.

        Raises:
            NotReady: that takes long.
        """
        if self._registry_renewal is not None and request is not None and request._may_wait:
            wait = self._registry_renewal()
            if wait is None:
                self._ready_in = definitions.generation
                return
            self._codes.get(path)  # `uses` is to know the script as it is now
            if "registry" in self.uses(path):
                raise NotReady(wait)

    def prepare(self, path: str, request: Request) -> None:
        """Compile the script at *path*, so that `uses` knows it, unless it cannot be compiled."""
        self.open(getattr(request, "site", None))
        with suppress(ScriptError, HTTPError):  # as `load` will say
            self._codes.get(path)

    def uses(self, path: str) -> frozenset[str]:
        """Return what of the session and the registry the script at *path* may use.

        Args:
            path: the script, which has been loaded or prepared.
        """
        compiled = self._codes.known(path)
        if compiled is None:
            return frozenset()
        if self.modules.uses <= compiled.uses or not self.modules.may_serve(compiled.imports):
            return compiled.uses
        return compiled.uses | self.modules.uses

    def _follow_twisted(self) -> None:
        """Have everything executed anew when Twisted was installed or removed."""
        changes = twisted_names.changes()
        if changes != self._twisted_changes:
            self._twisted_changes = changes
            self.modules.drop("Twisted was installed or removed")

    def _current(self, path: str, request: Request | None) -> Resource:
        published, why = self._published.get(path), ""
        if published is not None:
            why = self._why_stale(published, request)
            if not why:
                if request is not None and (record := request._record) is not None:
                    record.script = published.display
                return published.resource
            del self._published[path]
        return self._execute(path, request, why)

    def refresh(self) -> None:
        """Retire what has changed, and cancel the tasks of deleted files.

        Each request does the same. What has been executed from the files as they are now stays.
        """
        self.modules.refresh()
        if self._is_open:
            self._retire_changed()
        if self._tasks is not None:
            self._tasks.end_deleted()

    def renew(self, origin: TaskOrigin) -> None:
        """Execute *origin* again if it is one of these scripts or their modules, and has changed.

        Raises:
            Exception: what `load`, or the import of a module, raises.
        """
        path = os.fspath(origin.path or "")
        if not self._is_open or self.modules.relative(path) is None:
            return
        if origin.home == f"{self.modules.package}:{origin.name}":
            self.modules.reload(origin.name)
        elif origin.home == self._names.of(path).module:
            self.modules.refresh()
            if origin.version != self._code_version(self._codes.get(path)):
                self.load(path)

    # What an earlier process has left

    def stored_name(self, home: str) -> str | None:
        """Return what a home (see `ExecutionName`) is called outside of this process.

        The numbers in it may differ between processes. None if it is not one of this site.
        """
        prefix, package = self._prefix, self.modules.package
        marks = {f"{package}:{package}.": ":", f"{package}:": "", f"{prefix}.": "."}
        for beginning, mark in marks.items() if self._is_open else ():
            if home.startswith(beginning):
                return mark + home.removeprefix(beginning)
        return None

    def home_of(self, stored_name: str) -> str:
        """Return the home that `stored_name` stands for in this process."""
        package = self.modules.package
        match stored_name[:1]:
            case ".":
                return self._prefix + stored_name
            case ":":
                return f"{package}:{package}.{stored_name[1:]}"
        return f"{package}:{stored_name}"

    def recall(self, home: str) -> None:
        """Execute what has that home when its definitions are asked for.

        An earlier process has executed it, and objects of its classes come back. Does nothing if
        this one has.
        """
        package, _, module = home.rpartition(":")
        if package:
            self.modules.recall(module)
        else:
            path = self._names.path_of(home)
            definitions.recall(home, path, self._renew_script)
            self._recalled.add(home)
            self._definers.setdefault(path, file_state.FileState(path))

    def era_of(self, home: str) -> int:
        """How often the script of *home* has ceased to be cached; 0 for a module."""
        return self._eras.get(home, 0)

    def close(self) -> None:
        """Let go of all scripts and modules, and leave the import system as it was."""
        if not self._is_open:
            return
        self._is_open = False
        for name, cached in self._cached.items():
            _remove_module(name, cached.module)
        self._cached.clear()
        self._recalled.clear()
        self._published.clear()
        self._histories.clear()
        self._codes.clear()
        self._eras.clear()
        self._definers.clear()
        self._postponed.clear()
        self.modules.uninstall()
        definitions.forget(self.root)
        twisted_names.uninstall()
        sys.modules.pop(self._prefix, None)

    def open(self, site: SiteServices | None) -> None:
        """Begin to serve the scripts of *site*, if that has not happened yet."""
        if self._is_open:
            return
        self._is_open = True
        self._thread = threading.get_ident()
        self._retired_in = self.modules.generation
        # Other sites in this process have other numbers.
        numbers = chain([""], count(2))
        number = next(number for number in numbers if f"rpysite{number}" not in sys.modules)
        self._prefix, self.modules.package = f"rpysite{number}", f"rpydir{number}"
        self._names = ScriptNames(self.modules, self._prefix)
        # pickle imports what comes before the first dot of a name
        sys.modules[self._prefix] = ModuleType(self._prefix)
        if site is not None:
            site.on_close(self.close)
            self.registry = site.registry
            self._tasks = site.tasks
            self._watch = site.watch_execution
            self._registry_renewal = site.registry_renewal
            self.modules.on_source = site.on_source
        twisted_names.install()
        self._twisted_changes = twisted_names.changes()
        self.modules.install(self.registry, self._tasks)

    # Whether what is published may serve

    def _why_stale(self, published: _Published, request: Request | None) -> str:
        """Why *published* must not serve, in words; empty if it may.

        Raises:
            NotReady: so many files must be looked at that *request* is to wait for that.
        """
        if published.generation != self.modules.generation:
            return self.modules.drop_reason
        compiled = published.compiled
        if published.has_many_inputs and request is not None:
            looked_at, has_changed = request._looked_at
            if looked_at is not published.inputs and request._may_wait:
                raise NotReady(partial(self._look_at_many, published.inputs, request))
            if looked_at is published.inputs and not has_changed:
                return _SAVED if compiled.state.changed() else ""
        for state in published.inputs:
            if state.changed():
                if state is compiled.state:
                    return _SAVED
                reason = self.modules.reason_of(state.path)
                if self.modules.may_serve(compiled.imports):
                    self.modules.drop(reason)  # a module may have read the file as well
                return reason
        return ""

    async def _look_at_many(self, inputs: tuple[file_state.State, ...], request: Request) -> None:
        """Look at files in a thread, while others have their turn.

        What is saved meanwhile is for later requests. What has changed is looked at again.
        """
        has_changed = await trio.to_thread.run_sync(
            file_state.any_changed, inputs, limiter=self._limiter
        )
        request._looked_at = inputs, has_changed

    # Scripts that define classes

    def _retire_changed(self, path: str = "") -> None:
        """Retire the scripts that have changed, so that objects of their classes are brought up to
        date.

        Args:
            path: a script that is looked at anyway.
        """
        definers = self._definers
        changed = [each for each, state in definers.items() if each != path and state.changed()]
        for each in changed:
            definers[each] = file_state.FileState(each)
        if self._retired_in != self.modules.generation:
            self._retired_in = self.modules.generation
            definitions.retire({*self._cached, *self._recalled}, self._renew_script)
        elif changed:
            homes = [self._names.of(each).module for each in changed]
            definitions.retire(homes, self._renew_script)
        if self._postponed:
            for home in list(self._postponed):
                self._postponed.discard(home)
                self._renew_script(home)

    def _renew_script(self, home: str) -> bool:
        """Execute the script of *home* if it has changed, as an object of its classes is used.

        Returns:
            False if it has to wait until the thread of the event loop comes by.
        """
        if threading.get_ident() != self._thread:
            self._postponed.add(home)
            return False
        cached = self._cached.get(home)
        if home in self._running or not (cached or home in self._recalled):
            return True
        path = self._names.path_of(home) if cached is None else str(cached.module.__file__)
        try:
            self._current(path, None)
        except (HTTPError, Redirect):
            pass  # raised by the script, or it is no longer there
        except ScriptError as exc:
            self.modules.tell_of_old_objects(self._names.of(path).display, exc.__cause__ or exc)
        return True

    def _tell_of_uncached(self, run: _Run, before: ModuleType) -> None:
        """Say what is lost as a script has ceased to be cached."""
        names = ", ".join(each.__name__ for each in _kept_elsewhere(before))
        if names:
            log.warning(_NO_LONGER_CACHED, run.name.display, names)

    # One execution

    def _execute(self, path: str, request: Request | None, why: str = "") -> Resource:
        if request is not None and request._record is not None:
            request._record.script = self._names.of(path).display
        compiled = self._codes.get(path)
        why = why or self._why_execute(path, compiled)
        run = self._create_run(path, compiled)
        if compiled.may_leave_classes and request is not None and self._watch is not None:
            self._watch(run.execution, request)
        name, before = run.name.module, sys.modules.get(run.name.module)
        sys.modules[name] = run.module
        began = time.perf_counter()
        try:
            resource = self._run(run)
        except BaseException:
            self._note_execution(path, run, why, began, request, failed=True)
            _put_back(name, before)
            raise
        self._note_execution(path, run, why, began, request)
        if self._tasks is not None:
            self._tasks.start_declared(run.execution)
        if run.execution.cached:
            self._publish(path, run, resource)
        else:
            self._discard(path, run, request)
        return resource

    def _why_execute(self, path: str, compiled: CompiledScript) -> str:
        """Why a script that is not published is executed, in words."""
        before = self._histories.get(path)
        if before is None:
            return "first use"
        if before.serial != compiled.serial:
            return _SAVED
        if before.generation != self.modules.generation:
            return self.modules.drop_reason
        _, _, _, failed = before.executions[-1]
        return "it failed before" if failed else "not cached"

    def _note_execution(
        self,
        path: str,
        run: _Run,
        why: str,
        began: float,
        request: Request | None,
        *,
        failed: bool = False,
    ) -> None:
        seconds = time.perf_counter() - began
        history = self._histories.get(path)
        if history is None:
            if len(self._histories) >= MOST_COMPILED:
                del self._histories[next(iter(self._histories))]
            history = self._histories[path] = _History(run.name.display)
        history.count += 1
        history.cached = run.execution.cached
        history.serial, history.generation = run.compiled.serial, run.generation
        history.executions.append((time.time(), why, seconds, failed))
        record = None if request is None else request._record
        if record is not None:
            record.executed, record.execute = why, seconds

    def statistics(self) -> list[ScriptStatistics]:
        """Return what is known of the scripts that have been executed, by their names."""
        return [
            ScriptStatistics(
                each.display,
                each.cached,
                each.count,
                tuple(ExecutionNote(*note) for note in each.executions),
            )
            for each in sorted(self._histories.values(), key=lambda each: each.display)
        ]

    def _create_run(self, path: str, compiled: CompiledScript) -> _Run:
        name = self._names.of(path)
        execution = ScriptExecution(
            name.module,
            name.path,
            self.root,
            registry=self.registry,
            era=self._eras.get(name.module, 0),
            source=compiled.source,
            code_version=self._code_version(compiled),
        )
        module = ScriptModule(execution.name)
        namespace = module.__dict__
        namespace["__spec__"], namespace["__package__"] = name.spec, name.package
        namespace["__file__"] = path
        populate_namespace(namespace, execution)
        namespace["cache"], namespace["registry"] = cache, self.registry
        generation = self.modules.generation
        before = self._cached.get(name.module)
        is_repetition = before is not None and before.is_repeated_by(compiled, generation)
        return _Run(name, compiled, generation, execution, module, namespace, is_repetition)

    def _code_version(self, compiled: CompiledScript) -> object:
        return compiled.serial, self.modules.generation

    def _run(self, run: _Run) -> Resource:
        """Run the code, and return the resource that it left.

        Raises:
            ScriptError: it failed, or left nothing that could be served.
            HTTPError, Redirect: it raised that.
        """
        name, compiled, execution = run.name, run.compiled, run.execution
        if name.module in self._cached and not run.is_repetition:
            # What its top-level code takes from the registry is to be of its own classes.
            definitions.begin(name.module)
        threads, began = threading.enumerate(), time.perf_counter()
        self._running.add(name.module)
        try:
            with executing(execution):
                exec(compiled.code, run.namespace)
            note_threads(execution, threads)
        except (HTTPError, Redirect):
            raise
        except SystemExit as exc:
            raise ScriptError(name.path, "The script ended itself with sys.exit().") from exc
        except Exception as exc:
            raise ScriptError(name.path) from exc
        finally:
            self._running.discard(name.module)
        execution.finish(run.namespace)
        if compiled.validated and not execution.cached:
            slow_call_log.report(
                f"Executing {name.display}",
                time.perf_counter() - began,
                "cache() as its first line has it executed once, not for every request.",
            )
        return _resource_of(run)

    def _publish(self, path: str, run: _Run, resource: Resource) -> None:
        """Have *resource* serve until something has changed."""
        self._cached[run.name.module] = _Cached(run.module, run.compiled, run.generation, resource)
        inputs = *run.execution.inputs, run.compiled.state
        is_many = sum(map(file_state.count_of, inputs)) > MANY_FILES
        imports = run.compiled.imports
        self._published[path] = _Published(
            run.name.display,
            resource,
            run.compiled,
            inputs,
            run.generation,
            has_many_inputs=is_many,
            may_use_twisted="twisted" in imports or self.modules.may_serve(imports),
        )
        definitions.publish(run.execution, run.module, is_repetition=run.is_repetition)
        for missing in run.execution.missing_inputs:
            self._warn_of_missing_input(run.name.display, missing)
        if _kept_elsewhere(run.module):
            self._definers[path] = run.compiled.state
        else:
            self._definers.pop(path, None)

    def _warn_of_missing_input(self, script: str, name: str) -> None:
        if (script, name) not in self._warned_of:
            self._warned_of.add((script, name))
            log.warning(
                "%s calls cache(%r), but there is no such file or directory. The script runs again "
                "as soon as there is one.",
                script,
                name,
            )

    def _discard(self, path: str, run: _Run, request: Request | None) -> None:
        """Have nothing left of the execution when *request* ends."""
        name = run.name.module
        self._definers.pop(path, None)
        before = self._cached.pop(name, None)
        if before is not None:
            self._eras[name] = run.execution.era + 1
            self._tell_of_uncached(run, before.module)
        self._live.setdefault(name, []).append(run.module)
        others = {key: own for key, own in _own_modules.get().items() if own() is not None}
        _own_modules.set({**others, name: weakref.ref(run.module)})
        remove = partial(self._forget, name, run.module)
        if request is None:
            remove()
        else:
            request.on_close(remove)
            note_uncached(request)

    def _forget(self, name: str, module: ModuleType) -> None:
        """Take *module* out of `sys.modules`, where another one may still be in use.

        Requests overlap, and `typing`, `inspect` and `pickle` look there for the script of a class.
        """
        live = self._live[name]
        live.remove(module)
        if live and sys.modules.get(name) is module:
            sys.modules[name] = live[-1]
        elif not live:
            del self._live[name]
            _remove_module(name, module)


_NO_LONGER_CACHED: Final = (
    "%s does not call cache() any more. Objects of its classes (%s) that sessions or the registry "
    "hold keep their old methods until it does, and components are created again."
)


def _kept_elsewhere(module: ModuleType) -> list[Any]:
    """The classes and interfaces of the script in *module* whose objects sessions may hold."""
    return [
        value
        for value in list(vars(module).values())
        if isinstance(value, type) or is_interface(value)
        if execution_name_of(value) is module.__name__
        if not (isinstance(value, type) and base_class_of(value))
    ]


def _resource_of(run: _Run) -> Resource:
    """The resource that an execution left.

    Code is validated once, by the first execution that went well.
    """
    path, namespace = run.name.path, run.namespace
    if not run.compiled.validated:
        message, hint = _validate(run)
        if message:
            raise ScriptError(path, message, hint)
        run.compiled.validated = True
        if not run.execution.cached:  # else they are noted as it is published
            definitions.note_uses(run.execution, run.module)
    try:
        return as_resource(namespace.get("resource"))
    except TypeError as exc:
        raise ScriptError(path, str(exc), _validate(run)[1]) from exc


def _validate(run: _Run) -> tuple[str, str]:
    """What is wrong with what an execution left, if anything is, and what to do about it."""
    source = run.compiled.source.decode("utf-8", "replace")
    return validate_namespace(run.namespace, source)


def _put_back(name: str, before: ModuleType | None) -> None:
    """Have `sys.modules` say of *name* what it said before."""
    if before is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = before


def _remove_module(name: str, module: ModuleType) -> None:
    """Take *module* out of `sys.modules`, unless a later execution has its place."""
    if sys.modules.get(name) is module:
        del sys.modules[name]
