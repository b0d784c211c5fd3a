"""A thread that runs trio for plain functions, and in which time passes only during their calls.

Between two calls the clock stands still, and no task runs: a call returns when all tasks are
blocked. During one the clock jumps to the next deadline whenever all tasks are blocked, so that an
hour takes no time and everything due within it happens in its order. While a task waits for a
thread or a socket, whose work takes real time, the clock advances in small steps as real time does.
Nothing here knows of sites.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from queue import SimpleQueue
from types import FrameType, SimpleNamespace
from typing import Any, Final, TypeVar, TypeVarTuple

import trio
import trio.testing

from rpyserve.scripts import background

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

# Seconds that pass at a time while a task waits for the world outside.
STEP: Final = 0.01


class Portal:
    """Runs trio in a thread of its own, from `start` until `close`.

    Args:
        context: entered in the thread when it starts, and left when it ends.
        around_call: makes what the caller enters around `call` and `close`.
    """

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        around_call: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._context = context
        self._around_call = around_call
        self._clock = trio.testing.MockClock()
        self._calls = 0
        self._called = trio.Event()
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rpyserve.testing", daemon=True)
        self._failure: BaseException | None = None
        self._token: trio.lowlevel.TrioToken
        self._end: trio.Event | None = None

    def start(self) -> None:
        """Start the thread, and wait until *context* has been entered.

        Raises:
            BaseException: whatever *context* raised.
        """
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            raise failure

    def call(self, function: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
        """Run an async function in the thread, with time passing as needed; return its result.

        Raises:
            RuntimeError: an async function calls this, or the portal is closed.
        """
        if trio.lowlevel.in_trio_run():
            raise RuntimeError(
                "Client is for plain functions; async ones use rpyserve.testing.AsyncClient."
            )
        if self._end is None:
            raise RuntimeError("This client is closed.")
        with self._around_call():
            result: Result = trio.from_thread.run(
                self._call, function, args, trio_token=self._token
            )
        return result

    def close(self) -> None:
        """Leave *context*, and wait until the thread has ended. Doing so twice does nothing.

        Raises:
            BaseException: whatever *context* raised.
        """
        with self._around_call():
            end, self._end = self._end, None
            if end is None:
                return
            with suppress(trio.RunFinishedError):  # it failed before
                self._token.run_sync_soon(end.set)
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    # In the thread

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self._clock)
        except BaseException as exc:
            self._failure = exc
        self._started.put(self._failure)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_time)
            self._count_calls(+1)  # `start` and `close` are calls, too: time passes for them
            async with self._context:
                self._end = end = trio.Event()
                self._count_calls(-1)
                self._started.put(None)
                await end.wait()
                self._count_calls(+1)
            nursery.cancel_scope.cancel()

    async def _call(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        self._count_calls(+1)
        try:
            return await function(*args)
        finally:
            self._count_calls(-1)
            await trio.testing.wait_all_tasks_blocked()

    def _count_calls(self, change: int) -> None:
        self._calls += change
        if self._calls:
            self._called.set()
        else:
            self._called = trio.Event()

    async def _pass_time(self) -> None:
        while True:
            await self._called.wait()
            await trio.testing.wait_all_tasks_blocked()
            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if due == math.inf or any(_waits_outside(task) for task in _tasks()):
                await trio.testing.wait_all_tasks_blocked(STEP)
                due = min(due, STEP)
            if self._calls and due > 0:
                self._clock.jump(due)


def _tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        yield task
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def _waits_outside(task: trio.lowlevel.Task) -> bool:
    """Whether *task* waits for a thread, a socket or the like."""
    where = {(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame in _frames(task)}
    modules = {module for module, _ in where}
    if "trio._core._entry_queue" in modules:
        return False  # trio's own task, which waits for other threads to call
    in_thread = not where.isdisjoint(_IN_THREAD)
    return in_thread or any(module.startswith("trio._core._io_") for module in modules)


def _frames(awaiting: Any) -> Iterator[FrameType]:
    """The frames of what a task awaits, also within what `background` drives step by step.

    Args:
        awaiting: has a coroutine as its ``coro``, as a task has.
    """
    for frame, _ in trio.lowlevel.Task.iter_await_frames(awaiting):
        yield frame
        if frame.f_code is background._drive.__code__:
            yield from _frames(SimpleNamespace(coro=frame.f_locals["work"]))


# Functions that wait for a call in another thread.
_IN_THREAD: Final = {
    ("trio._threads", "to_thread_run_sync"),
    ("rpyserve.twisted.reactor", "wait_for_thread"),
}
