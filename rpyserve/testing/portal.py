"""A thread that runs trio for those who do not, and in which time passes only when somebody waits for it.

The clock stands still between two calls. Within one it jumps to whatever is due next as soon as nothing else can
happen, so that an hour takes no time and everything due within it happens in its order. While a task waits for the
world outside, a thread or a socket, no jump would be fair: time then passes as it does on the wall. Nothing here
knows of sites.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final, TypeVar, TypeVarTuple

import trio
import trio.testing

__all__ = ["Portal"]

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

STEP: Final = 0.01
"""Seconds that pass at a time while something waits for the world outside."""

Body = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


class Portal:
    """Runs *main* in a thread of its own until `close`.

    Args:
        main: an async function that is given an async function: to be awaited once all is ready, and which returns
            when it is time to end.
    """

    def __init__(self, main: Body) -> None:
        self._main = main
        self._clock = trio.testing.MockClock()
        self._waiting = 0
        self._asked = trio.Event()
        self._begun: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rpyserve.testing", daemon=True)
        self._failure: BaseException | None = None
        self._token: trio.lowlevel.TrioToken
        self._end: trio.Event | None = None
        self._thread.start()
        failure = self._begun.get()
        if failure is not None:
            raise failure

    def call(self, function: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
        """Run the async function in the thread, with time passing as it needs, and return what it returns.

        Raises:
            RuntimeError: an async function calls this; or the portal is closed.
        """
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("This client is for plain functions; async ones use rpyserve.testing.AsyncClient.")
        if self._end is None:
            raise RuntimeError("This client is closed.")
        result: Result = trio.from_thread.run(self._awaited, function, args, trio_token=self._token)
        return result

    def close(self) -> None:
        """Have *main* end, and wait for that. Doing so twice does nothing.

        Raises:
            BaseException: whatever *main* raised.
        """
        end, self._end = self._end, None
        if end is not None:
            self._token.run_sync_soon(end.set)
            self._thread.join()
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._all, clock=self._clock)
        except BaseException as exc:
            self._failure = exc
        self._begun.put(self._failure)

    async def _all(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_time)
            await self._main(self._until_closed)
            nursery.cancel_scope.cancel()

    async def _until_closed(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = end = trio.Event()
        self._begun.put(None)
        await end.wait()
        self._wait(+1)  # what ends may take its time

    async def _awaited(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        self._wait(+1)
        try:
            return await function(*args)
        finally:
            self._wait(-1)

    def _wait(self, change: int) -> None:
        self._waiting += change
        if self._waiting:
            self._asked.set()
        elif self._asked.is_set():
            self._asked = trio.Event()

    async def _pass_time(self) -> None:
        while True:
            await self._asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if due == math.inf or _someone_is_outside():
                await trio.testing.wait_all_tasks_blocked(STEP)
                due = min(due, STEP)
            if self._waiting and due > 0:
                self._clock.jump(due)


def _someone_is_outside() -> bool:
    """Whether a task waits for a thread, a socket or the like."""
    return any(_is_outside(task) for task in _tasks())


def _tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        yield task
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def _is_outside(task: trio.lowlevel.Task) -> bool:
    where = {(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame, _ in task.iter_await_frames()}
    modules = {module for module, _ in where}
    if "trio._core._entry_queue" in modules:
        return False  # trio's own, which waits for other threads to call
    in_thread = ("trio._threads", "to_thread_run_sync") in where
    return in_thread or any(module.startswith("trio._core._io_") for module in modules)
