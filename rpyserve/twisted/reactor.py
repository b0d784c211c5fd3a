"""Twisted's reactor, run by trio: `TrioReactor`, and `SiteReactor`, which belongs to a site.

It is Twisted's own `PosixReactorBase`, so everything that listens, connects and starts processes is
Twisted's. What a reactor has to add is here: who waits for descriptors (a task for each), for the
time of a call (one task), and for other threads (trio's token). Its tasks have one nursery, inside
of a task of its host.

Trio is the master of signals: the reactor handles none, and hears of ended processes by trio.

Nothing of it runs in the context of whoever has called it, such as a request's, which would live
on in it then.

An order matters at the end: the triggers of "shutdown" run while everything still works, as they
may wait for something; then the descriptors are let go, and then the thread pool. The end is
shielded from cancellation, and must therefore have a time limit.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, Final

import trio
from twisted.internet import error
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.posixbase import PosixReactorBase
from twisted.python import log as twisted_log
from twisted.python import threadable
from twisted.python.log import callWithLogger
from zope.interface import implementer

from rpyserve.scripts.background import SiteNursery
from rpyserve.util.author_code import display_position, innermost_author_frame

log = logging.getLogger("rpyserve")

GRACE: Final = 4.0
"""Seconds that triggers of "shutdown" and calls in the thread pool have, once it is to stop."""

POLL: Final = 0.01
"""Seconds between two looks at what gives no sign: files on a disk are ready at any time."""

REAP: Final = 0.1
"""Seconds between two looks for ended processes, where no signal tells of them."""

_LOST: Final = error.ConnectionFdescWentAway("File descriptor lost")


def _epoch() -> float:
    """When trio's clock was 0, in seconds since 1970; 0 where the loop does not run yet."""
    try:
        return time.time() - trio.current_time()
    except RuntimeError:
        return 0.0


@implementer(IReactorFDSet)
class TrioReactor(PosixReactorBase):  # type: ignore[misc]  # Twisted has no complete types
    """A reactor that runs while `run_tasks` does."""

    def __init__(self) -> None:
        self._reads = _Watches(trio.lowlevel.wait_readable, "doRead", self._disconnectSelectable)
        self._writes = _Watches(trio.lowlevel.wait_writable, "doWrite", self._disconnectSelectable)
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope(shield=True)
        self._sleep = trio.CancelScope()
        self._epoch = _epoch()  # calls may be made before it runs
        self._reaps = False
        self.threadpool: Any = None
        self._ending_pool: Any = None
        super().__init__()

    # Its run

    async def run_tasks(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be at work until the reactor has been stopped, or this is cancelled.

        Args:
            task_status: told when the triggers of "startup" have run.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled)
            with self._scope:
                await self._run_shielded(task_status)
            nursery.cancel_scope.cancel()

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._scope.deadline = trio.current_time() + GRACE
            if self._started and not self._stopped:
                PosixReactorBase.stop(self)
            self._sleep.cancel()

    async def _run_shielded(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            try:
                self._token = trio.lowlevel.current_trio_token()
                self._epoch = _epoch()
                if self._reaps:
                    _start_soon(self._nursery, self._reap)
                self.startRunning()
                task_status.started()
                with self._reads.running(self._nursery), self._writes.running(self._nursery):
                    await self._run_calls()
                await self._wait_for_threads()
            finally:
                self._nursery.cancel_scope.cancel()
                self._nursery = self._token = None

    async def _run_calls(self) -> None:
        """Call what is due, and what other threads want, until the reactor has stopped."""
        while True:
            self.runUntilCurrent()
            if not self._started:
                return
            delay = self.timeout()
            deadline = math.inf if delay is None else trio.current_time() + delay
            with trio.CancelScope(deadline=deadline) as self._sleep:
                await trio.sleep_forever()

    def startRunning(self, installSignalHandlers: bool = False) -> None:
        """Fire "startup". There are no signal handlers to install."""
        super().startRunning(installSignalHandlers=False)

    def stop(self) -> None:
        """Have the reactor end soon."""
        super().stop()
        self._sleep.cancel()

    def crash(self) -> None:
        """Have the reactor end now."""
        super().crash()
        self._sleep.cancel()

    def doIteration(self, delay: float | None) -> None:
        """Refuse: only the loop of trio can wait for something.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "reactor.iterate() cannot run trio's event loop, in which this reactor runs. Return a "
            "Deferred, or NOT_DONE_YET, and go on in a callback."
        )

    # Time

    def seconds(self) -> float:
        """Seconds since 1970 by trio's clock."""
        try:
            return self._epoch + trio.current_time()
        except RuntimeError:  # another thread, or the loop does not run yet
            return time.time()

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        """Call *callable* in *delay* seconds."""
        call = super().callLater(delay, callable, *args, **kw)
        self._wake_at(call.getTime())
        return call

    def _moveCallLaterSooner(self, delayedCall: Any) -> None:
        super()._moveCallLaterSooner(delayedCall)
        self._wake_at(delayedCall.getTime())

    def _wake_at(self, seconds: float) -> None:
        self._sleep.deadline = min(self._sleep.deadline, seconds - self._epoch)

    # Threads

    def installWaker(self) -> None:
        """Install nothing: trio's token wakes the loop."""

    def wakeUp(self) -> None:
        """Have the calls of other threads made. May be called in any thread."""
        token = self._token
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._sleep.cancel()

    def _initThreadPool(self) -> None:
        super()._initThreadPool()
        pool = self.threadpool
        pool.callInThreadWithCallback = partial(self._call_in_thread, pool.callInThreadWithCallback)

    def _call_in_thread(
        self,
        call: Callable[..., object],
        on_result: Callable[[bool, Any], object] | None,
        function: Callable[..., object],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Have a task wait for the *function* that the pool is to *call*, so that trio knows."""
        token = self._token
        if self._nursery is None or token is None or not threadable.isInIOThread():
            call(on_result, function, *args, **kwargs)
            return
        ended = trio.Event()
        _start_soon(self._nursery, wait_for_thread, ended)

        def notice(success: bool, result: Any) -> None:
            try:
                if on_result is not None:
                    on_result(success, result)
                elif not success:
                    twisted_log.err(result)
            finally:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(ended.set)

        call(notice, function, *args, **kwargs)

    def _stopThreadPool(self) -> None:
        """Have the thread pool end, without holding the loop for that."""
        if self._nursery is None:
            super()._stopThreadPool()
            return
        self._ending_pool, self.threadpool = self.threadpool, None
        self._threadpoolStartupID = self.threadpoolShutdownID = None

    async def _wait_for_threads(self) -> None:
        pool, self._ending_pool = self._ending_pool, None
        if pool is None:
            return
        own = trio.CapacityLimiter(1)
        try:
            await trio.to_thread.run_sync(pool.stop, abandon_on_cancel=True, limiter=own)
        except trio.Cancelled:
            log.warning("A call in the reactor's thread pool has not ended, and is left alone.")
            raise

    # Processes

    def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
        """Start a process; see Twisted's `IReactorProcess`."""
        if not self._reaps and os.name == "posix":
            self._reaps = True
            if self._nursery is not None:
                _start_soon(self._nursery, self._reap)
        return super().spawnProcess(*args, **kwargs)

    async def _reap(self) -> None:
        """Have each process noticed that ends, and those that have ended already."""
        from twisted.internet.process import reapAllProcesses

        try:
            with trio.open_signal_receiver(signal.SIGCHLD) as signals:
                reapAllProcesses()
                async for _ in signals:
                    reapAllProcesses()
        except RuntimeError:  # signals are for the main thread only
            while True:
                reapAllProcesses()
                await trio.sleep(REAP)

    # Descriptors

    def addReader(self, reader: Any) -> None:
        """Call the ``doRead`` of *reader* whenever there is something to read."""
        self._reads.add(reader)

    def addWriter(self, writer: Any) -> None:
        """Call the ``doWrite`` of *writer* whenever it can be written to."""
        self._writes.add(writer)

    def removeReader(self, reader: Any) -> None:
        """Take back `addReader`."""
        self._reads.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        """Take back `addWriter`."""
        self._writes.remove(writer)

    def removeAll(self) -> list[Any]:
        """Remove all readers and writers, and return them."""
        return list(self._removeAll(self._reads.scopes, self._writes.scopes))

    def getReaders(self) -> list[Any]:
        """Return what is read from."""
        return list(self._reads.scopes)

    def getWriters(self) -> list[Any]:
        """Return what is written to."""
        return list(self._writes.scopes)


class SiteReactor(TrioReactor):
    """The reactor of the site that runs. Scripts can neither run nor stop it.

    Modules keep it, so it is the same one for a site that runs later in this process.
    """

    def attach(self, nursery: SiteNursery) -> None:
        """Run in *nursery*, that of a site, unless another site's has it already."""
        if self._is_attached:
            return
        self._is_attached = True
        nursery.run_sync(partial(Context().run, nursery.start, self._run_for_site))

    _is_attached = False

    async def _run_for_site(self) -> None:
        try:
            await self.run_tasks()
        finally:
            TrioReactor.__init__(self)
            self._is_attached = False

    def run(self, installSignalHandlers: bool = True) -> None:
        """Refuse.

        Raises:
            ReactorAlreadyRunning: always.
        """
        raise error.ReactorAlreadyRunning(
            "reactor.run(): the reactor is running already, as long as rpyserve does. Leave the "
            "call out. If this file is a program, not a page: rpyserve program.py"
        )

    def stop(self) -> None:
        """Say that only the end of the server stops it."""
        self._refuse_to_stop("reactor.stop()")

    def crash(self) -> None:
        """Have the reactor end now, if the server does."""
        if self._stopped:
            super().crash()
        else:
            self._refuse_to_stop("reactor.crash()")

    def _refuse_to_stop(self, call: str) -> None:
        frame = innermost_author_frame(sys._getframe(2))
        place = "" if frame is None else f"{display_position(frame)}: "
        log.warning(
            "%s%s does nothing: the reactor runs as long as the server, which Ctrl-C stops.",
            place,
            call,
        )


class _Watches:
    """The descriptors that are read from, or those that are written to, each with a task.

    Args:
        wait: waits until a descriptor is ready.
        method: the name of the method to call then: ``doRead`` or ``doWrite``.
        disconnect: called with a descriptor, with what is wrong with it, and whether it was read.

    Attributes:
        scopes: the descriptors, each with what cancels its task.
    """

    def __init__(
        self,
        wait: Callable[[int], Awaitable[None]],
        method: str,
        disconnect: Callable[[Any, BaseException, bool], object],
    ) -> None:
        self._wait = wait
        self._method = method
        self._disconnect = disconnect
        self._nursery: trio.Nursery | None = None
        self.scopes: dict[Any, trio.CancelScope] = {}

    @contextmanager
    def running(self, nursery: trio.Nursery) -> Iterator[None]:
        """While inside, the tasks run in *nursery*."""
        self._nursery = nursery
        for descriptor in self.scopes:
            self._start(descriptor)
        try:
            yield
        finally:
            self._nursery = None

    def add(self, descriptor: Any) -> None:
        """Watch *descriptor*, if it is not watched yet."""
        if descriptor not in self.scopes:
            self._start(descriptor)

    def remove(self, descriptor: Any) -> None:
        """Watch *descriptor* no more."""
        scope = self.scopes.pop(descriptor, None)
        if scope is not None:
            scope.cancel()  # trio forgets the descriptor at once: it may be closed now

    def _start(self, descriptor: Any) -> None:
        scope = self.scopes[descriptor] = trio.CancelScope()
        if self._nursery is not None:
            _start_soon(self._nursery, self._run, descriptor, scope)

    async def _run(self, descriptor: Any, scope: trio.CancelScope) -> None:
        with scope:
            while not scope.cancel_called:
                lost = await self._wait_until_ready(descriptor)
                # What else was ready in this turn may have closed it.
                if not scope.cancel_called:
                    callWithLogger(descriptor, self._handle, descriptor, lost)

    async def _wait_until_ready(self, descriptor: Any) -> Any:
        """Wait until *descriptor* is ready; return an error if it never will be."""
        try:
            await self._wait(descriptor.fileno())
        except PermissionError:  # epoll refuses files on a disk
            await trio.sleep(POLL)
        except Exception:
            await trio.lowlevel.checkpoint()
            return _LOST
        return None

    def _handle(self, descriptor: Any, lost: Exception | None) -> None:
        try:
            if descriptor.fileno() == -1:
                lost = _LOST
            reason = lost or getattr(descriptor, self._method)()
        except BaseException as exc:
            twisted_log.err()
            reason = exc
        if reason:
            self._disconnect(descriptor, reason, self._method == "doRead")


async def wait_for_thread(ended: trio.Event) -> None:
    """Wait until a call in a thread has *ended*: by this name, the test client knows of it."""
    await ended.wait()


def _start_soon(
    nursery: trio.Nursery, function: Callable[..., Awaitable[None]], *args: Any
) -> None:
    Context().run(nursery.start_soon, function, *args)
