"""Plain functions of scripts in worker threads, so that the event loop goes on meanwhile.

Owns which session such a function has to itself. The function and the requests of that visitor
that begin meanwhile never run at the same time: whoever comes later waits. Other visitors, and
functions that do not ask for the session, make nobody wait. What concerns the tables of the server
(finding a session, ending it, bringing objects up to date after an edit) is done in the loop, for
which the thread waits.

Python cannot cancel a thread, so a function that nobody waits for any more gets an exception at its
next step: while the author's code is at work, never within rpyserve's. The session is free again
when the function has really ended.

Knows nothing of what a session is.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import trio

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.util.author_code import ServerObject, innermost_author_frame
from rpyserve.util.exceptions import Interruption, ScriptInterrupted

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS: Final = 40
"""How many functions run in threads at once; those beyond wait for their turn."""

LEAVE: Final = 0.5
"""Seconds for which a function that was cancelled is waited for."""

STEP: Final = 0.05
"""Seconds after which one that goes on is interrupted again."""


class ThreadInterrupted(ScriptInterrupted):
    """Raised in a function in a thread for which nobody waits any more."""

    def __init__(self) -> None:
        super().__init__(Interruption.LEFT)


# Calls


class ThreadCall:
    """A call of a plain function in a worker thread. Made in the loop, for a single `run`.

    Args:
        function: what is called; it has no arguments.
        on_begin: called in the thread when it begins, which may be later.

    Attributes:
        ended: set when the function has ended, be it long after nobody waits any more.
    """

    def __init__(
        self, function: Callable[[], T], on_begin: Callable[[], object] = lambda: None
    ) -> None:
        self.ended = trio.Event()
        self._function = function
        self._on_begin = on_begin
        self._token = trio.lowlevel.current_trio_token()
        # By the sessions that it has to itself: where they are released.
        self._held: dict[Any, SessionLocks] = {}
        # Guards what follows: the loop and the thread both change it.
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_left = False
        self._has_begun = False
        self._was_interrupted = False

    async def hold(self, session: Any) -> None:
        """Wait until *session* is free, and have it until the function has ended."""
        locks = getattr(getattr(session, "site", None), "session_locks", None)
        if locks is not None and session not in self._held:
            await locks.acquire(session)
            self._held[session] = locks

    async def run(self, limiter: trio.CapacityLimiter) -> Any:
        """Call the function in a thread, as soon as *limiter* lets it, and return what it returns.

        Raises:
            BaseException: what it raises.
            trio.Cancelled: nobody waits for it. It has been interrupted, and has ended unless it is
                in a call that Python cannot interrupt, such as `time.sleep`.
        """
        try:
            return await trio.to_thread.run_sync(
                self._call, limiter=limiter, abandon_on_cancel=True
            )
        except trio.Cancelled:
            await self._leave()
            raise
        finally:
            if not self._has_begun or self._thread is None:
                self._finish()

    async def _leave(self) -> None:
        with self._lock:
            self._is_left = True
        with trio.move_on_after(LEAVE, shield=True):
            while self._interrupt():
                with trio.move_on_after(STEP):
                    await self.ended.wait()

    def _interrupt(self) -> bool:
        """Have an exception raised in the function. Returns whether that is still at work."""
        with self._lock:
            if self._thread is None:
                return False
            # While the thread is within rpyserve, it is left to end that.
            if innermost_author_frame(sys._current_frames().get(self._thread)) is not None:
                self._was_interrupted = True
                _raise_in(self._thread)
            return True

    # In the thread

    def _call(self) -> Any:
        with self._lock:
            if self._is_left:
                return None
            self._has_begun, self._thread = True, threading.get_ident()
        try:
            _local.call = self
            self._on_begin()
            return self._function()
        finally:
            try:
                self._end()
            except ThreadInterrupted:  # no more than one can be on its way
                self._end()

    def _end(self) -> None:
        with self._lock:
            self._thread = None
        if self._was_interrupted:
            _take_what_is_on_its_way()
        _local.call = None
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._finish)

    # In the loop, at the end

    def _finish(self) -> None:
        self.ended.set()
        while self._held:
            session, locks = self._held.popitem()
            locks.release(session)


def _raise_in(thread: int) -> None:
    exception = ctypes.py_object(ThreadInterrupted)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


def _take_what_is_on_its_way() -> None:
    """Have this thread raise what it may have to raise yet, here.

    It cannot be withdrawn: CPython 3.11 would go on looking for it in every thread, and with a
    debugger that never ends.
    """
    try:
        _raise_in(threading.get_ident())  # in place of one that is on its way
        while True:
            pass
    except ThreadInterrupted:
        pass


class _ThreadState(threading.local):
    # Of the class: to find that a thread lacks an attribute takes ten times as long.
    call: ThreadCall | None = None


_local = _ThreadState()


def current_call() -> ThreadCall | None:
    """Return the call that runs in this thread; None in the loop, and in threads of others."""
    return _local.call


def in_loop(function: Callable[..., T], *args: Any) -> T:
    """Return what ``function(*args)``, called in the loop, returns: from a `ThreadCall` or not."""
    if current_call() is None:
        return function(*args)
    return trio.from_thread.run_sync(function, *args)


def in_loop_async(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Return what ``await function(*args)`` returns in the loop, for a `ThreadCall`."""
    return trio.from_thread.run(function, *args)


class SessionLocks:
    """Which sessions functions in threads have to themselves. Used in the loop only.

    Attributes:
        held: those sessions, each with an event that is set when it is free.
    """

    def __init__(self) -> None:
        self.held: dict[Any, trio.Event] = {}

    async def acquire(self, session: Any) -> None:
        """Wait until *session* is free, and take it."""
        await self.wait_free(session)
        self.held[session] = trio.Event()

    def release(self, session: Any) -> None:
        self.held.pop(session).set()

    async def wait_free(self, session: Any) -> None:
        """Wait until nobody has *session*."""
        while (free := self.held.get(session)) is not None:
            await free.wait()


Limiter = trio.lowlevel.RunVar[trio.CapacityLimiter]

# Not trio's own, so that slow functions hold up no files.
_limiter: Limiter = trio.lowlevel.RunVar("in_thread")


def limiter_of(variable: Limiter) -> trio.CapacityLimiter:
    """Return the limiter that *variable* has in this run of the loop: one of `MOST_THREADS`."""
    try:
        return variable.get()
    except LookupError:
        limiter = trio.CapacityLimiter(MOST_THREADS)
        variable.set(limiter)
        return limiter


# The decorator


@public
def in_thread(function: Callable[P, T]) -> Callable[P, Any]:
    """Have *function*, a plain one that takes long, run in a worker thread; used as a decorator.

    Others are answered meanwhile. It becomes an async function: as ``resource`` or a render method
    it is used as before, and elsewhere it is awaited. A generator function becomes an async
    generator, of which each step runs in a thread.

    Where it asks for the session, or gets one, or a request that has used one, its visitor's
    session is its own until it returns: the visitor's other requests that begin meanwhile wait. The
    registry is shared, so guard what you change there with a `threading.Lock`.

    If its visitor leaves, or the server stops, an exception is raised in it.

    Raises:
        TypeError: *function* is no function, or an async one.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            "@in_thread is for plain functions, and this one is async: write `def`, or leave "
            "@in_thread out"
        )
    if inspect.isclass(function) or not inspect.isroutine(function):
        raise TypeError(
            f"@in_thread stands above a function or a method, not above {function!r:.60}"
        )
    return _as_generator(function) if inspect.isgeneratorfunction(function) else _as_async(function)


def _as_async(function: Callable[P, T]) -> Callable[P, Any]:
    @functools.wraps(function)
    async def in_worker(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await _run(partial(function, *args, **kwargs), (*args, *kwargs.values()))

    return in_worker


def _as_generator(function: Callable[P, Any]) -> Callable[P, Any]:
    @functools.wraps(function)
    async def in_worker(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
        given = (*args, *kwargs.values())
        generator: Any = function(*args, **kwargs)
        try:
            while (item := await _run(partial(next, generator, _END), given)) is not _END:
                yield item
        finally:
            if not generator.gi_running:  # else its thread, which has the session, goes on
                with trio.CancelScope(shield=True):
                    await _run(generator.close, given)

    return in_worker


_END: Final = object()


async def _run(function: Callable[[], T], given: Iterable[object]) -> T:
    call = ThreadCall(function)
    try:
        for session in filter(None, map(_session_of, given)):
            await call.hold(session)
    except BaseException:
        call._finish()
        raise
    return await call.run(limiter_of(_limiter))  # type: ignore[no-any-return]


def _session_of(value: object) -> Any:
    """The session that a function gets with *value*; None if there is none yet."""
    if isinstance(value, Request):
        return value._session
    is_session = isinstance(value, ServerObject) and hasattr(value, "notifyOnExpire")
    return value if is_session else None
