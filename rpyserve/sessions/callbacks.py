"""Calling what a script wants called when a session ends.

A callback is a plain or an async function without arguments, and whatever it raises is told, once, and stops nothing
else. Cancellation and Ctrl-C pass. An async one runs in a task of `CallbackTasks`; one that cannot run, or is cut
off, is told of, never lost in silence.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import execution_name_of
from rpyserve.util.exceptions import reporting_errors, unwrap_group

__all__ = ["Callback", "CallbackTasks", "call", "check", "discard", "name_of", "replaces"]

Callback = Callable[[], Any]

log = logging.getLogger("rpyserve")


def check(callback: object) -> None:
    """Check that *callback* can be called.

    Raises:
        TypeError: it cannot; most likely it was called already, and this is what it returned.
    """
    if not callable(callback):
        if inspect.iscoroutine(callback):
            callback.close()
        raise TypeError(
            f"notifyOnExpire() takes a function, not {type(callback).__name__}: write notifyOnExpire(f) without "
            "parentheses after f, or notifyOnExpire(lambda: f(x))"
        )


def call(
    callback: Callback, whose: str, complaints: ConsoleReporter | None = None
) -> Awaitable[Any] | None:
    """Call *callback*. Returns what remains to be awaited of an async one."""
    result = None
    with reporting_errors(partial(_tell, callback, whose, complaints)):
        result = callback()
    return result if inspect.isawaitable(result) else None


def discard(work: Awaitable[Any], callback: Callback, whose: str) -> None:
    """Let go of what `call` returned, because there is no task to await it in."""
    if inspect.iscoroutine(work):
        work.close()
    log.error(
        "session %s: the expiry callback %s is async, and did not run: there is no running server to run it",
        whose, name_of(callback),
    )  # fmt: skip


class CallbackTasks:
    """The tasks in which async callbacks go on after `call`. What fails there is told to *complaints*."""

    def __init__(self, complaints: ConsoleReporter | None = None) -> None:
        self._complaints = complaints
        self._nurseries: list[trio.Nursery] = []
        self._unfinished = 0
        self._all_finished = trio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While inside, async callbacks can run; it is left when those that began inside have finished."""
        async with trio.open_nursery() as nursery:
            self._nurseries.append(nursery)
            try:
                yield
            finally:
                self._nurseries.remove(nursery)

    def start(self, work: Awaitable[Any], callback: Callback, whose: str) -> None:
        """Go on with what `call` returned; where nothing is open, `drop` it."""
        if not self._nurseries:
            discard(work, callback, whose)
            return
        if not self._unfinished:
            self._all_finished = trio.Event()
        self._unfinished += 1
        self._nurseries[-1].start_soon(self._finish, work, callback, whose)

    async def wait(self) -> None:
        """Return when every callback that was started has finished."""
        while self._unfinished:
            await self._all_finished.wait()

    async def _finish(self, work: Awaitable[Any], callback: Callback, whose: str) -> None:
        over = False
        try:
            with reporting_errors(
                lambda exc: _tell(callback, whose, self._complaints, unwrap_group(exc))
            ):
                await work
            over = True
        finally:
            if not over:
                log.warning(
                    "session %s: the expiry callback %s was cut off", whose, name_of(callback)
                )
            self._unfinished -= 1
            if not self._unfinished:
                self._all_finished.set()


def name_of(callback: object) -> str:
    """The name a script's author knows it by, such as ``ExpirationLogger._expired``."""
    while isinstance(callback, partial):
        callback = callback.func
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def replaces(new: object, old: object) -> bool:
    """Whether *new* takes the place of *old*: it has its name, and is of a later execution of what defined both.

    Only of cached scripts and modules of the site: an uncached one is executed for each request, edited or not.
    """
    name, before = execution_name_of(new), execution_name_of(old)
    return (
        name is not None
        and before is not None
        and before is not name
        and name.cached
        and before.cached
        and definitions.is_same_definition((name.home, name_of(new)), (before.home, name_of(old)))
    )


def _tell(
    callback: Callback, whose: str, complaints: ConsoleReporter | None, exc: BaseException
) -> None:
    from rpyserve.diagnostics.describe import describe

    what = f"session {whose}: the expiry callback {name_of(callback)} failed"
    (ConsoleReporter() if complaints is None else complaints).report(what, describe(exc))
