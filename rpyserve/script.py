"""Scripts: from a file's path to the resource that its code made.

Owns which execution of a script serves the next request. Without ``cache()`` a script is executed for each request,
and nothing of that outlives the request; with it, the resource is published, if all went well, and serves until
the file, a module of the site, or a file that ``cache()`` named has changed. That is looked up by each request, so it
holds without a watcher too. What a script does wrong becomes a `ScriptError`; what is wrong with it, `hints` says.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from rpyserve import compat, freshness, lineage, nearmiss
from rpyserve.codes import Codes, Compiled
from rpyserve.executions import Execution
from rpyserve.http.errors import HTTPError, Redirect, ScriptError
from rpyserve.http.request import Request
from rpyserve.modules import SiteModules
from rpyserve.places import Places
from rpyserve.resources.resource import Resource, as_resource
from rpyserve.running import ScriptExecution, cache, current, executing, furnish
from rpyserve.tasks import Source
from rpyserve.util import slow_calls

__all__ = ["Scripts", "cache", "current"]

_taken: set[str] = set()
"""The prefixes of names that are in use: several sites may live in one process."""


@dataclass(frozen=True, slots=True)
class _Published:
    """What a cached execution made, and what must not change for it to serve."""

    resource: Resource
    compiled: Compiled
    inputs: tuple[freshness.State, ...]
    generation: int


class Scripts:
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
        self._codes = Codes(self.modules)
        self._published: dict[str, _Published] = {}
        self._moment: object | None = None  # the round of the loop in which was looked at
        self._fresh: set[str] = set()  # these scripts, and all modules
        self._loaded: dict[str, ModuleType] = {}
        self._eras: dict[str, int] = {}
        self._places = Places(self.modules, "")

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
        self.modules.take_charge()
        self._look(None if request is None else request.moment)
        if request is not None:
            request.on_close(partial(lineage.left, lineage.edits))
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

    def renew(self, source: Source) -> None:
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
        lineage.forget(self.root)
        compat.uninstall()
        _taken.discard(self._prefix)
        sys.modules.pop(self._prefix, None)

    def _begin(self, request: Request | None) -> None:
        self._open = True
        number = next(n for n in count(1) if _prefix("rpysite", n) not in _taken)
        self._prefix, self.modules.package = _prefix("rpysite", number), _prefix("rpydir", number)
        _taken.add(self._prefix)
        self._places = Places(self.modules, self._prefix)
        sys.modules[self._prefix] = ModuleType(self._prefix)  # pickle imports what comes before the first dot
        compat.install()
        self.modules.install()
        site = getattr(request, "site", None)
        if site is not None:
            site.on_close(self.close)
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
        execution = ScriptExecution(name, place.path, self.root, self.registry, self._eras.get(name, 0))
        execution.edition = compiled.number, generation
        execution.source = compiled.source
        module = self._module(execution, place.spec, path)
        before = sys.modules.get(name)
        sys.modules[name] = module
        if name in self._loaded:
            lineage.advance()  # what its top-level code takes from the registry is to be of its own classes
        try:
            resource = self._run(compiled, execution, module.__dict__, place.shown)
        except BaseException:
            _restore(name, before)
            raise
        if self.registry.site is not None:
            self.registry.site.tasks.settle(execution)
        if execution.cached:
            self._loaded[name] = module
            self._published[path] = _Published(resource, compiled, tuple(execution.inputs), generation)
            lineage.publish(execution, module)
        else:
            if self._loaded.pop(name, None) is not None:
                self._eras[name] = execution.era + 1
            forget = partial(_unload, name, module)
            if request is None:
                forget()
            else:
                request.on_close(forget)
        return resource

    def _run(self, compiled: Compiled, execution: ScriptExecution, namespace: dict[str, Any], shown: str) -> Resource:
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
            from rpyserve.diagnosis import title_of

            raise ScriptError(path, title_of(exc), _hint(exc)) from exc
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
        furnish(module.__dict__, execution)
        module.__dict__.update(cache=cache, registry=self.registry)
        return module


def _prefix(word: str, number: int) -> str:
    return word if number == 1 else f"{word}{number}"


def _registry_of(site: Any) -> Any:
    if site is not None:
        return site.registry
    from rpyserve.session import Registry

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
    from rpyserve import hints

    return hints.for_exception(exc)


def _look_over(namespace: dict[str, Any], path: Path) -> tuple[str, str]:
    """What is wrong with what a script left behind, if anything is, and what to do about it."""
    return nearmiss.find(namespace, _source(path))


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
