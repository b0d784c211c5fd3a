"""Tasks that scripts start: for as long as a response takes, or for as long as the site runs.

All of them live in one nursery, the site's, each with a cancel scope of its own; whatever one raises is told and
stops nothing else. A request's tasks are cancelled when its response has ended. A background task belongs to the
version of the script that started it: a newer version, once it has been executed, takes its place.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from rpyserve.complaints import Complaints
from rpyserve.diagnosis import describe
from rpyserve.errors import contained, unwrap
from rpyserve.executions import Execution, execution_of
from rpyserve.running import current

if TYPE_CHECKING:
    from rpyserve.request import Request

__all__ = ["BackgroundTasks", "Nursery", "RequestTasks", "background"]

AsyncFunction = Callable[..., Awaitable[object]]


class Nursery:
    """Where the tasks of a site run. Those that are started before it opens wait for that.

    Args:
        complaints: where their failures are told.
    """

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._nursery: trio.Nursery | None = None
        self._waiting: list[Callable[[], Awaitable[None]]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While inside, tasks run; on the way out they are cancelled."""
        async with trio.open_nursery() as self._nursery:
            for work in self._waiting:
                self._nursery.start_soon(work)
            self._waiting.clear()
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()
                self._nursery = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which must not raise."""
        if self._nursery is None:
            self._waiting.append(work)
        else:
            self._nursery.start_soon(work)

    def tell(self, whose: str, failure: BaseException) -> None:
        """Tell the console of a task that failed."""
        self._complaints.tell(f"{whose} failed", describe(unwrap(failure)))


class RequestTasks:
    """The tasks of requests; see `Request.start_soon`."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def start(self, request: Request, function: AsyncFunction, args: tuple[Any, ...]) -> None:
        """Run ``function(*args)`` until it returns or the response to *request* has ended."""
        _check(function, "request.start_soon", "request.start_soon(f, x)")
        scope = trio.CancelScope()
        request.on_close(scope.cancel)
        self._nursery.start(partial(self._run, request, scope, function, args))

    async def _run(
        self, request: Request, scope: trio.CancelScope, function: AsyncFunction, args: tuple[Any, ...]
    ) -> None:
        with scope, contained(partial(self._failed, request)):
            await function(*args)

    def _failed(self, request: Request, exc: BaseException) -> None:
        if not request.fail(unwrap(exc)):
            self._nursery.tell(f"{request.method} {request.path}", exc)


@dataclass(slots=True)
class _Background:
    version: object
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class BackgroundTasks:
    """The background tasks of a site; see `Site.background`."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._tasks: dict[tuple[str, str], _Background] = {}

    def start(self, function: AsyncFunction) -> None:
        """Run *function* unless this version of it runs, or has run, already; an older version is cancelled."""
        _check(function, "site.background", "site.background(f)")
        execution = execution_of(function)
        name = str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", repr(function)))
        version = function if execution is None else execution.version
        task = self._tasks.get(name)
        if task is not None:
            if task.version == version:
                return
            task.scope.cancel()
        task = self._tasks[name] = _Background(version)
        self._nursery.start(partial(self._run, name[1], task.scope, function))

    def settle(self, execution: Execution) -> None:
        """*execution* went well: start what its top-level code has called for; what older versions run is cancelled."""
        for function in execution.background:
            self.start(function)
        self._retire(str(execution.name), execution.version)

    def forget(self, module: str) -> None:
        """Cancel what *module* has started: there is no such script any more."""
        self._retire(module, None)

    @property
    def modules(self) -> set[str]:
        """The names of the scripts and modules whose tasks there are."""
        return {module for module, _ in self._tasks}

    def _retire(self, module: str, current: object) -> None:
        for name, task in list(self._tasks.items()):
            if name[0] == module and task.version != current:
                task.scope.cancel()
                del self._tasks[name]

    async def _run(self, name: str, scope: trio.CancelScope, function: AsyncFunction) -> None:
        with scope, contained(partial(self._nursery.tell, f"The background task {name}")):
            await function()


def background(function: AsyncFunction) -> AsyncFunction:
    """Run *function*, an async one without arguments, beside the site, once for each version of this script.

    Call it in a script's top-level code, or write it above the function as a decorator; in a method there is
    ``request.site.background(f)``. It runs until it returns or the site stops. When the script has changed and was
    executed again, it is cancelled, and the new one is started if there still is one.

    Raises:
        RuntimeError: no script's top-level code is running; in a method, use ``request.site.background(f)``.
    """
    execution = current()
    if execution is None:
        raise RuntimeError(
            "background(f) belongs into a script's top-level code; in a method write request.site.background(f)"
        )
    _check(function, "background", "background(f)")
    execution.background.append(function)
    return function


def _check(function: object, name: str, usage: str) -> None:
    if inspect.iscoroutine(function):
        function.close()
        raise TypeError(f"{name}() takes an async function, not what it returns: write {usage}, without f's own ()")
    if not callable(function) or (inspect.isroutine(function) and not inspect.iscoroutinefunction(function)):
        raise TypeError(f"{name}() takes an async function: write `async def`, and in it `await trio.sleep(seconds)`")
