"""Tasks that scripts start: for as long as a response takes, or for as long as the site runs.

All of them live in one nursery, the site's, each with a cancel scope of its own; whatever one
raises is reported and stops nothing else. A request's tasks are cancelled when its response has
ended. A background task belongs to the version of the script that started it: a newer version, once
it has been executed, takes its place.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.scripts.execution import Execution, current, execution_of
from rpyserve.util.exceptions import ErrorReporter, reporting_errors, unwrap_group

AsyncFunction = Callable[..., Awaitable[object]]
TaskName = tuple[str, str]
"""The home of a background task's function (see `ExecutionName.home`), and its qualified name."""


class SiteNursery:
    """Where the tasks of a site run. What is started before it opens waits for that.

    Args:
        errors: hears of what they raise.
    """

    def __init__(self, errors: ErrorReporter) -> None:
        self._errors = errors
        self._nursery: trio.Nursery | None = None
        self._pending: list[Callable[[], Awaitable[None]]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While inside, tasks run; on the way out they are cancelled."""
        async with trio.open_nursery() as self._nursery:
            for work in self._pending:
                self._nursery.start_soon(work)
            self._pending.clear()
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()
                self._nursery = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which must not raise."""
        if self._nursery is None:
            self._pending.append(work)
        else:
            self._nursery.start_soon(work)

    def report(self, what: str, exc: BaseException) -> None:
        """Tell that the task *what* raised *exc*."""
        self._errors.report_exception(f"{what} failed", exc)


class RequestTasks:
    """The tasks of requests; see `Request.start_soon`."""

    def __init__(self, nursery: SiteNursery) -> None:
        self._nursery = nursery

    def start(self, request: Request, function: AsyncFunction, args: tuple[Any, ...]) -> None:
        """Run ``function(*args)`` until it returns or the response to *request* has ended."""
        _check_async_function(function, "request.start_soon", "request.start_soon(f, x)")
        scope = trio.CancelScope()
        request.on_close(scope.cancel)
        self._nursery.start(partial(self._run, request, scope, function, args))

    async def _run(
        self,
        request: Request,
        scope: trio.CancelScope,
        function: AsyncFunction,
        args: tuple[Any, ...],
    ) -> None:
        with scope, reporting_errors(partial(self._handle_failure, request)):
            await function(*args)

    def _handle_failure(self, request: Request, exc: BaseException) -> None:
        if not request._response.fail(unwrap_group(exc)):
            self._nursery.report(f"{request.method} {request.path}", exc)


@dataclass(frozen=True, slots=True)
class TaskOrigin:
    """A script or module that has background tasks.

    Args:
        home: what no other script or module has; see `ExecutionName.home`.
        name: its ``__name__``.
        path: its file; None for what is no script or module of a site.
        version: what differs when it has been executed again because it has changed.
    """

    home: str
    name: str
    path: Path | None
    version: object

    @classmethod
    def of(cls, function: Any) -> TaskOrigin:
        """Return where *function* is defined."""
        execution = execution_of(function)
        if execution is not None:
            return cls.of_execution(execution)
        module = str(getattr(function, "__module__", ""))
        # A function that is defined anew with each request is the same one each time.
        return cls(module, module, None, getattr(function, "__code__", function))

    @classmethod
    def of_execution(cls, execution: Execution) -> TaskOrigin:
        """Return the script or module that *execution* executes."""
        return cls(execution.name.home, str(execution.name), execution.path, execution.version)


@dataclass(slots=True)
class _Task:
    """A background task, from when it is asked for until it has ended and is wanted no more.

    It waits until *predecessor*, the task of an older version, has ended.
    """

    origin: TaskOrigin
    predecessor: _Task | None = None
    is_wanted: bool = True
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class BackgroundTasks:
    """The background tasks of a site; see `Site.background`."""

    def __init__(self, nursery: SiteNursery) -> None:
        self._nursery = nursery
        self._tasks: dict[TaskName, _Task] = {}

    def start(self, function: AsyncFunction) -> None:
        """Run *function* unless this version of it runs or has run; cancel an older version."""
        _check_async_function(function, "site.background", "site.background(f)")
        origin = TaskOrigin.of(function)
        name = origin.home, _function_name(function)
        older = self._tasks.get(name)
        if older is not None:
            if older.is_wanted and older.origin.version == origin.version:
                return
            older.scope.cancel()
        task = self._tasks[name] = _Task(origin, older)
        self._nursery.start(partial(self._run, name, task, function))

    def start_declared(self, execution: Execution) -> None:
        """Start the tasks that *execution* declared, and cancel those of older versions."""
        for function in execution.background:
            self.start(function)
        present = TaskOrigin.of_execution(execution)
        self._end(lambda origin: origin.home == present.home and origin.version != present.version)

    def end_deleted(self) -> None:
        """Cancel what scripts and modules have started whose files there are no more."""
        self._end(lambda origin: origin.path is not None and not os.path.exists(origin.path))

    def origins(self) -> list[TaskOrigin]:
        """The scripts and modules that have tasks, once for each version that has some."""
        return list(dict.fromkeys(task.origin for task in self._tasks.values() if task.is_wanted))

    def _end(self, is_meant: Callable[[TaskOrigin], bool]) -> None:
        for name, task in list(self._tasks.items()):
            if is_meant(task.origin):
                task.is_wanted = False
                task.scope.cancel()
                self._forget_if_over(name, task)

    def _forget_if_over(self, name: TaskName, task: _Task) -> None:
        """Forget *task* unless it is still wanted: then it must not be started again."""
        is_over = not task.is_wanted and task.ended.is_set()
        if is_over and self._tasks.get(name) is task:
            del self._tasks[name]

    async def _run(self, name: TaskName, task: _Task, function: AsyncFunction) -> None:
        # Never two of them at once, however slow the older one is to clean up.
        if task.predecessor is not None:
            with trio.CancelScope(shield=True):
                await task.predecessor.ended.wait()
            task.predecessor = None
        report = partial(self._nursery.report, f"The background task {name[1]}")
        try:
            with task.scope, reporting_errors(report):
                if not task.scope.cancel_called:
                    await function()
        finally:
            task.ended.set()
            self._forget_if_over(name, task)


@public
def background(function: AsyncFunction) -> AsyncFunction:
    """Run *function*, an async one without arguments, beside the site.

    Call it in a script's top-level code, or write it above the function as a decorator; in a method
    there is ``request.site.background(f)``. It runs once for each version of the script, until it
    returns or the site stops. When the script has changed, which is noticed at once where pages
    follow edits, and else by the next request, it is cancelled, and the new one is started if there
    still is one.

    Raises:
        RuntimeError: no script's top-level code is running; in a method, use
            ``request.site.background(f)``.
    """
    execution = current()
    if execution is None:
        raise RuntimeError(
            "background(f) belongs into a script's top-level code; "
            "in a method write request.site.background(f)"
        )
    _check_async_function(function, "background", "background(f)")
    execution.background.append(function)
    return function


def _function_name(function: Any) -> str:
    """What is the same for one function each time that its script is executed."""
    if isinstance(function, partial):
        return f"{_function_name(function.func)}{function.args}{function.keywords or ''}"
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _check_async_function(function: object, name: str, usage: str) -> None:
    """Raise a TypeError that says what to write if *function* cannot be one.

    Args:
        name: what the author called.
        usage: how it is called.
    """
    if inspect.iscoroutine(function):
        function.close()
        raise TypeError(
            f"{name}() takes an async function, not what it returns: "
            f"write {usage}, without f's own ()"
        )
    is_sync = inspect.isroutine(function) and not inspect.iscoroutinefunction(function)
    if is_sync or not callable(function):
        raise TypeError(
            f"{name}() takes an async function: "
            "write `async def`, and in it `await trio.sleep(seconds)`"
        )
