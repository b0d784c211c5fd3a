"""Calling what a script wants called when a session ends.

A callback is a plain or an async function without arguments. What it raises is reported and stops
nothing else; cancellation and Ctrl-C pass. An async one goes on in a task. One that cannot run, or
is cut off, is logged, never lost in silence.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any, Final

import trio

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import (
    FUNCTION_CLASSES,
    bindings_of,
    execution_name_of,
    function_name,
    is_plain_value,
)
from rpyserve.util.exceptions import ErrorReporter, reporting_errors, unwrap_group
from rpyserve.util.throttle import ThrottledLogger

Callback = Callable[[], Any]

log = logging.getLogger("rpyserve")


def check(callback: object) -> None:
    """Check that *callback* can be called.

    Raises:
        TypeError: it cannot; most likely it was called already, and this is what it returned.
    """
    if callable(callback):
        return
    if inspect.iscoroutine(callback):
        callback.close()
    raise TypeError(
        f"notifyOnExpire() takes a function, not {type(callback).__name__}: write "
        "notifyOnExpire(f) without parentheses after f, or notifyOnExpire(lambda: f(x))"
    )


def replaces(new: object, old: object) -> bool:
    """Whether *new* takes the place of *old*: it has its name, and a later execution defined it.

    And it is bound to, and closed over, what that was: a callback of another object, or for another
    file, is another callback. Only of cached scripts and modules of the site: an uncached one is
    executed for each request, edited or not.
    """
    new_module, old_module = execution_name_of(new), execution_name_of(old)
    if new_module is None or old_module is None or new_module is old_module:
        return False
    if not (new_module.cached and old_module.cached):
        return False
    return _has_place_of(new, old) and _is_bound_alike(new, old, ())


def _has_place_of(new: object, old: object) -> bool:
    """Whether the function *new* is defined where *old* was."""
    new_module, old_module = execution_name_of(new), execution_name_of(old)
    if new_module is None or old_module is None:
        return new_module is old_module and function_name(new) == function_name(old)
    return definitions.is_same_definition(
        (new_module.home, function_name(new)), (old_module.home, function_name(old))
    )


def _is_bound_alike(new: object, old: object, outer: tuple[object, ...]) -> bool:
    """Whether *new* has all that *old* is bound to and closed over.

    Args:
        outer: the functions for which that is being found out: a function may hold itself.
    """
    if any(new is each for each in outer):
        return True
    bindings = bindings_of(new)
    return all(
        name in bindings and _is_alike(bindings[name], value, (*outer, new))
        for name, value in bindings_of(old).items()
    )


def _is_alike(new: Any, old: Any, outer: tuple[object, ...]) -> bool:
    """Whether *new* is *old*, or what the later execution has in its place."""
    if new is old:
        return True
    if is_plain_value(new):
        return type(new) is type(old) and bool(new == old)
    for kinds, are_alike in _COMPARISONS:
        if isinstance(new, kinds) and isinstance(old, kinds):
            return are_alike(new, old, outer)
    return not definitions.roles_of(new).isdisjoint(definitions.roles_of(old))


def _are_functions_alike(new: object, old: object, outer: tuple[object, ...]) -> bool:
    return _has_place_of(new, old) and _is_bound_alike(new, old, outer)


def _are_tuples_alike(
    new: tuple[Any, ...], old: tuple[Any, ...], outer: tuple[object, ...]
) -> bool:
    pairs = zip(new, old, strict=False)
    return len(new) == len(old) and all(_is_alike(*pair, outer) for pair in pairs)


def _are_modules_alike(new: ModuleType, old: ModuleType, outer: tuple[object, ...]) -> bool:
    return new.__name__ == old.__name__


_COMPARISONS: Final[tuple[tuple[Any, Callable[..., bool]], ...]] = (
    (FUNCTION_CLASSES, _are_functions_alike),
    (tuple, _are_tuples_alike),
    (ModuleType, _are_modules_alike),
)


class CallbackTasks:
    """Calls the callbacks of sessions, and has tasks for those that are async.

    Args:
        errors: hears of what they raise. None: the log alone does.
    """

    def __init__(self, errors: ErrorReporter | None = None) -> None:
        self._errors = errors or _LogReporter()
        self._unfinished_lines = ThrottledLogger(log, clock=time.monotonic)
        self._nurseries: list[trio.Nursery] = []
        self._running = 0
        self._all_finished = trio.Event()

    def call(self, callback: Callback, session_id: str) -> None:
        """Call *callback*. If it is async, the rest of it runs in a task.

        Args:
            session_id: what reports call the session that has ended.
        """
        awaitable = None
        with reporting_errors(partial(self._report, callback, session_id)):
            awaitable = callback()
        if not inspect.isawaitable(awaitable):
            return
        if self._nurseries:
            self._start(awaitable, callback, session_id)
        else:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            self._log_unfinished(
                logging.ERROR,
                "session %s: the expiry callback %s is async, and did not run: there is no running "
                "server to run it",
                callback,
                session_id,
            )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While inside, async callbacks can run; it is left when all that began have finished."""
        async with trio.open_nursery() as nursery:
            self._nurseries.append(nursery)
            try:
                yield
            finally:
                self._nurseries.remove(nursery)

    async def wait_all_finished(self) -> None:
        """Wait until every callback that was started has finished."""
        while self._running:
            await self._all_finished.wait()

    def _start(self, awaitable: Awaitable[Any], callback: Callback, session_id: str) -> None:
        if not self._running:
            self._all_finished = trio.Event()
        self._running += 1
        self._nurseries[-1].start_soon(self._finish, awaitable, callback, session_id)

    async def _finish(self, awaitable: Awaitable[Any], callback: Callback, session_id: str) -> None:
        finished = False
        try:
            with reporting_errors(partial(self._report, callback, session_id)):
                await awaitable
            finished = True
        finally:
            if not finished:
                self._log_unfinished(
                    logging.WARNING,
                    "session %s: the expiry callback %s was cut off",
                    callback,
                    session_id,
                )
            self._running -= 1
            if not self._running:
                self._all_finished.set()

    def _report(self, callback: Callback, session_id: str, exc: BaseException) -> None:
        what = f"session {session_id}: the expiry callback {function_name(callback)} failed"
        self._errors.report_exception(what, unwrap_group(exc))

    def _log_unfinished(
        self, level: int, message: str, callback: Callback, session_id: str
    ) -> None:
        name = function_name(callback)
        self._unfinished_lines.log(level, message, session_id, name, key=(message, name))


class _LogReporter:
    """Hears of failures where there is no site, as in a plain prompt."""

    def report_exception(self, what: str, exc: BaseException) -> None:
        log.error("%s", what, exc_info=exc)
