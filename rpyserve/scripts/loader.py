"""Scripts: from a file's path to the resource that its code made.

Owns which execution of a script serves the next request. Without ``cache()`` a script is executed for each request,
and nothing of that outlives the request; with it, the resource is published, if all went well, and serves until
the file, a module of the site, or a file that ``cache()`` named has changed. That is looked up by each request, so it
holds without a watcher too. What a script does wrong becomes a `ScriptError`; what is wrong with it, `hints` says.

The compiled code of a site's scripts, kept while their files stay as they are.

Owns the memory of it, which is bounded: the code that was not needed for longest goes first.

What the path of a script says of it: its names as a module, and how people are told of it.

Decided once per path, for as long as a site is open: to do it for each execution cost a quarter of an uncached script.
Looks at no disk.
"""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from rpyserve.http.errors import HTTPError, Redirect, ScriptError
from rpyserve.http.request import Request
from rpyserve.resources.resource import Resource, as_resource
from rpyserve.scripts import definitions, file_state, twisted_names, validation
from rpyserve.scripts.background import TaskOrigin
from rpyserve.scripts.execution import (
    Execution,
    ScriptExecution,
    cache,
    current,
    executing,
    populate_namespace,
)
from rpyserve.scripts.importer import SiteModules, escaped
from rpyserve.scripts.source import compile_source
from rpyserve.util import slow_calls

__all__ = ["CodeCache", "Compiled", "Place", "ScriptLoader", "ScriptNames", "cache", "current"]


KEPT: Final = 500


@dataclass(slots=True)
class Compiled:
    """A script's code, and the names that it *imports*, as `sources.TaskOrigin` has them.

    It is *sound* once an execution of it has been looked over and left a resource of use.
    """

    state: file_state.State
    source: bytes
    code: CodeType
    imports: frozenset[str]
    sound: bool = False
    number: int = field(default_factory=count().__next__)


class CodeCache:
    """The code of the scripts of one site."""

    def __init__(self, modules: SiteModules) -> None:
        self._modules = modules
        self._kept: OrderedDict[str, Compiled] = OrderedDict()

    def compiled(self, path: str) -> Compiled:
        """Return the code of the script at *path* as it is now.

        Raises:
            ScriptError: it cannot be read, or is no Python.
            HTTPError: 404, there is no such file.
        """
        kept = self._kept.get(path)
        if kept is not None and not kept.state.changed():
            self._kept.move_to_end(path)
            return kept
        self.drop(path)
        kept = self._kept[path] = self._compile(path)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    def drop(self, path: str) -> None:
        """Forget the code of *path*."""
        self._kept.pop(path, None)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def _compile(self, path: str) -> Compiled:
        try:
            data, state = file_state.read(path)
            source = compile_source(data, path)
        except FileNotFoundError:
            raise HTTPError(404, private=f"{path} has just been deleted.") from None
        except OSError as exc:
            raise ScriptError(
                Path(path), f"The script cannot be read: {exc.strerror or exc}."
            ) from exc
        except Exception as exc:  # what is nested too deep is no SyntaxError
            from rpyserve.diagnostics import advice
            from rpyserve.diagnostics.describe import summary

            raise ScriptError(Path(path), summary(exc), advice.advice_for(exc)) from exc
        self._modules.warn_of_hidden(source.imports, path)
        if self._modules.on_source is not None:
            self._modules.on_source(path, data, source.tree, "script")
        return Compiled(state, data, source.code, source.imports)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a script is: its *path*, its *name* as a module, and the same as its module spec has it.

    The *spec* is not named like the script, whose stem may be that of a directory or of a module beside it. *shown* is
    the path as people are told it.
    """

    path: Path
    name: str
    spec: str
    shown: str


class ScriptNames:
    """The places of a site's scripts.

    Args:
        modules: those of the site, whose package stands for its root.
        prefix: what stands for it in the names of scripts.
    """

    def __init__(self, modules: SiteModules, prefix: str) -> None:
        self._modules = modules
        self._prefix = prefix
        self._known: dict[str, Place] = {}

    def of(self, path: str) -> Place:
        """Return the place of the script at *path*."""
        place = self._known.get(path)
        if place is None:
            place = self._known[path] = self._make(path)
        return place

    def _make(self, path: str) -> Place:
        *directories, file = self._modules.relative(path) or (os.path.basename(path),)
        parts = [*map(escaped, directories), escaped(file.removesuffix(".rpy"))]
        name, spec = ".".join([self._prefix, *parts]), ".".join([self._modules.package, *parts])
        return Place(Path(path), name, spec, os.path.relpath(path, self._modules.root))


_taken: set[str] = set()
"""The prefixes of names that are in use: several sites may live in one process."""


@dataclass(frozen=True, slots=True)
class _Published:
    """What a cached execution made, and what must not change for it to serve."""

    resource: Resource
    compiled: Compiled
    inputs: tuple[file_state.State, ...]
    generation: int


class ScriptLoader:
    """The scripts of a site.

    Args:
        root: the site's directory.

    Attributes:
        registry: the site's `Registry`, as scripts get it; by default that of the first request's site.
        modules: the modules of the site.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        self.registry: Any = None
        self._prefix = ""
        self.modules = SiteModules(self.root)
        self._open = False
        self._codes = CodeCache(self.modules)
        self._published: dict[str, _Published] = {}
        self._moment: object | None = None  # the round of the loop in which was looked at
        self._fresh: set[str] = set()  # these scripts, and all modules
        self._loaded: dict[str, ModuleType] = {}
        self._eras: dict[str, int] = {}
        self._places = ScriptNames(self.modules, "")

    def load(self, path: str | Path, request: Request | None = None) -> Resource:
        """Return the resource of the script at *path*: a published one if it is fresh, else one of a new execution.

        Args:
            path: the script, as an absolute path.
            request: the request that it is for. When it ends, nothing of an uncached execution is kept.

        Raises:
            ScriptError: the script cannot be executed, or leaves nothing that could be served.
            HTTPError, Redirect: the script raised it; 404 if there is no such file.
        """
        if not self._open:
            self._begin(request)
        self.modules.activate()
        self._look(None if request is None else request.loop_tick)
        if request is not None:
            request.on_close(partial(definitions.note_code_finished, definitions.edits))
        key = os.fspath(path)
        published = self._published.get(key)
        if published is not None:
            if self._is_fresh(key, published):
                return published.resource
            del self._published[key]
        return self._execute(key, request)

    def _look(self, moment: object | None) -> None:
        """See whether the modules are fresh, once in a round of the loop: see `rounds`."""
        if moment is None or moment is not self._moment:
            self._moment = moment
            self._fresh.clear()
            self.modules.refresh()

    def invalidate(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Have the scripts and modules among *paths* executed again at their next use."""
        for path in [os.fspath(path) for path in paths]:
            self._published.pop(path, None)
            self._codes.drop(path)
            if self.modules.watches(path):
                self.modules.drop()
        if self._open and self.registry.site is not None:
            self.registry.site.tasks.end_deleted()

    def renew(self, source: TaskOrigin) -> None:
        """Execute *source* again if it is one of these scripts or their modules, and has changed.

        Raises:
            Exception: what `load`, or the import of a module, raises.
        """
        path = os.fspath(source.path or "")
        if not self._open or self.modules.relative(path) is None:
            return
        if source.home == f"{self.modules.package}:{source.name}":
            self.modules.reload(source.name)
        elif source.home == self._places.of(path).name:
            self.modules.refresh()
            edition = self._codes.compiled(path).number, self.modules.generation
            if source.version != edition:
                self.load(path)

    def close(self) -> None:
        """Let go of all scripts and modules, and leave the import system as it was."""
        if not self._open:
            return
        self._open = False
        for name, module in self._loaded.items():
            _unload(name, module)
        self._loaded.clear()
        self._published.clear()
        self._codes.clear()
        self._eras.clear()
        self.modules.uninstall()
        definitions.forget(self.root)
        twisted_names.uninstall()
        _taken.discard(self._prefix)
        sys.modules.pop(self._prefix, None)

    def _begin(self, request: Request | None) -> None:
        self._open = True
        number = next(n for n in count(1) if _prefix("rpysite", n) not in _taken)
        self._prefix, self.modules.package = _prefix("rpysite", number), _prefix("rpydir", number)
        _taken.add(self._prefix)
        self._places = ScriptNames(self.modules, self._prefix)
        sys.modules[self._prefix] = ModuleType(
            self._prefix
        )  # pickle imports what comes before the first dot
        twisted_names.install()
        self.modules.install()
        site = getattr(request, "site", None)
        if site is not None:
            site.on_close(self.close)
            self.modules.on_source = site.on_source
        if self.registry is None:
            self.registry = _registry_of(site)
        self.modules.registry = self.registry

    def _is_fresh(self, path: str, published: _Published) -> bool:
        if published.generation != self.modules.generation:
            return False
        if path in self._fresh:
            return True
        if any(state.changed() for state in published.inputs):
            if self.modules.may_serve(published.compiled.imports):
                self.modules.drop()  # a module may have read the file as well
            return False
        if published.compiled.state.changed():
            return False
        self._fresh.add(path)
        return True

    # One execution

    def _execute(self, path: str, request: Request | None) -> Resource:
        compiled = self._codes.compiled(path)
        generation = self.modules.generation
        place = self._places.of(path)
        name = place.name
        execution = ScriptExecution(
            name, place.path, self.root, self.registry, self._eras.get(name, 0)
        )
        execution.edition = compiled.number, generation
        execution.source = compiled.source
        module = self._module(execution, place.spec, path)
        before = sys.modules.get(name)
        sys.modules[name] = module
        if name in self._loaded:
            definitions.advance()  # what its top-level code takes from the registry is to be of its own classes
        try:
            resource = self._run(compiled, execution, module.__dict__, place.shown)
        except BaseException:
            _restore(name, before)
            raise
        if self.registry.site is not None:
            self.registry.site.tasks.start_declared(execution)
        if execution.cached:
            self._loaded[name] = module
            self._published[path] = _Published(
                resource, compiled, tuple(execution.inputs), generation
            )
            definitions.publish(execution, module)
        else:
            if self._loaded.pop(name, None) is not None:
                self._eras[name] = execution.era + 1
            forget = partial(_unload, name, module)
            if request is None:
                forget()
            else:
                request.on_close(forget)
        return resource

    def _run(
        self, compiled: Compiled, execution: ScriptExecution, namespace: dict[str, Any], shown: str
    ) -> Resource:
        path = execution.path
        began = time.perf_counter()
        try:
            with executing(execution):
                exec(compiled.code, namespace)
        except (HTTPError, Redirect):
            raise
        except SystemExit as exc:
            raise ScriptError(path, "The script ended itself with sys.exit().", _hint(exc)) from exc
        except Exception as exc:
            from rpyserve.diagnostics.describe import summary

            raise ScriptError(path, summary(exc), _hint(exc)) from exc
        execution.finish(namespace)
        if compiled.sound and not execution.cached:
            slow_calls.report(shown, time.perf_counter() - began)
        if not compiled.sound:
            message, hint = _look_over(namespace, path)
            if message:
                raise ScriptError(path, message, hint)
            compiled.sound = True
        try:
            return as_resource(namespace.get("resource"))
        except TypeError as exc:
            raise ScriptError(path, str(exc), _look_over(namespace, path)[1]) from exc

    def _module(self, execution: Execution, spec_name: str, path: str) -> ModuleType:
        module = ModuleType(execution.name)
        spec = ModuleSpec(spec_name, None, origin=path)
        module.__spec__, module.__package__, module.__file__ = spec, spec.parent, path
        populate_namespace(module.__dict__, execution)
        module.__dict__.update(cache=cache, registry=self.registry)
        return module


def _prefix(word: str, number: int) -> str:
    return word if number == 1 else f"{word}{number}"


def _registry_of(site: Any) -> Any:
    if site is not None:
        return site.registry
    from rpyserve.sessions.session import Registry

    return Registry()


def _restore(name: str, before: ModuleType | None) -> None:
    if before is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = before


def _unload(name: str, module: ModuleType) -> None:
    if sys.modules.get(name) is module:
        del sys.modules[name]


def _hint(exc: BaseException) -> str:
    from rpyserve.diagnostics import advice

    return advice.advice_for(exc)


def _look_over(namespace: dict[str, Any], path: Path) -> tuple[str, str]:
    """What is wrong with what a script left behind, if anything is, and what to do about it."""
    return validation.validate_namespace(namespace, _source(path))


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
