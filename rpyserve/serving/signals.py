"""Ctrl-C and SIGTERM: the first stops the server, the second ends the process.

That holds whatever a script does. A trio task never sees a signal while a script's sync code holds
the loop, so these are plain handlers: if they find the author's code on the stack, they raise
`Interrupted` there. A thread watches over them: it puts back handlers that a script replaced,
interrupts again until the loop has noticed the stop, and ends a process that cannot stop. It makes
the main thread run a handler by sending it the signal `NUDGE`.

While a script holds the loop, the first Ctrl-C ends that run of it only, and so does whoever calls
`Signals.interrupt`: a `ScriptInterrupted` is raised. It is raised only where the author's code is
the innermost that is neither Python's nor a package's, so never within a step of rpyserve's or
trio's: for those it is an exception that a script has raised, which may happen anywhere and leaves
all in order. A run that swallows it is interrupted again at its next step, so that no ``except``
in a loop holds it, while every ``finally`` runs to its end.

A server that drains goes on as before for a while after SIGTERM, and is stopped by the same thread
then. Another signal stops it at once, and the one after that ends the process.

A hang-up stops the server if the terminal has gone. Where there is a log file, any other says that
it has been rotated.

A process that a script forks, such as a worker of a pool, is no server: it has none of these
handlers. At the end, pools are told to end, and processes that are still at work are ended.

Invariant: a handler may run between any two instructions, so it takes no lock, and writes only by
`console_writer.write`, which is made for that.
"""

from __future__ import annotations

import _thread
import atexit
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Final

import trio

from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response
from rpyserve.scripts.source import line_at
from rpyserve.serving import console_writer
from rpyserve.serving.console import print_over_ctrl_c
from rpyserve.serving.watchdog import AT_WORK, BusyRun
from rpyserve.util.author_code import (
    display_position,
    frames_from,
    innermost_author_frame,
    outermost_author_frame,
)
from rpyserve.util.exceptions import (
    ConstructorInterrupted,
    Interrupted,
    Interruption,
    ScriptInterrupted,
    containing_keyboard_interrupts,
)
from rpyserve.util.slow_calls import slow_call_log

STOPPING: Final = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
# A signal that nothing else sends: Windows never delivers SIGTERM, and SIGURG is off unless asked
# for.
NUDGE: Final = signal.SIGTERM if os.name == "nt" else signal.SIGURG

HANG_UP: Final[int] = getattr(signal, "SIGHUP", -1)

# Seconds between two checks of the watching thread.
POLL: Final = 0.25

# Seconds after which a script that holds the loop is interrupted, again if necessary.
INSIST: Final = 0.5

# Seconds after a Ctrl-C that ended a run in which the next one stops the server, whatever is busy.
AGAIN: Final = 5.0

# Seconds without effect after which it is said that Python cannot interrupt what a run is doing.
NO_EFFECT: Final = 2.0

# Seconds for which a script may hold a loop that is about to stop: a request that waited, or a
# session's callback.
HELD_UP: Final = 3.0

# Seconds that stopping may take altogether: open requests have 5, expiry callbacks too.
STOP_TIMEOUT: Final = 12.0

# Seconds that a script may keep the loop from noticing the stop; `docker stop` waits for 10.
BLOCKED_TIMEOUT: Final = 8.0

# Seconds that pools of threads and processes have to end, when all else has.
POOLS_TIMEOUT: Final = 1.0

# The exit status after a second Ctrl-C: 128 plus the number of SIGINT, as shells have it.
KILLED: Final = 130


def is_interruption(exc: BaseException) -> bool:
    """Whether *exc* is `Interrupted`, perhaps in the groups that nurseries make."""
    if isinstance(exc, BaseExceptionGroup):
        interrupted, rest = exc.split((Interrupted, trio.Cancelled))
        return interrupted is not None and rest is None
    return isinstance(exc, Interrupted)


class BusyScriptInterrupted(ScriptInterrupted):
    """What is raised in a script that holds the loop.

    It lives until the run has ended, or has swallowed it. Then the handler runs again, at the next
    step of the main thread. So this must be no function of Python's, which has steps itself. One
    that is kept, or part of a cycle, runs the handler in vain.
    """

    __del__ = staticmethod(partial(_thread.interrupt_main, NUDGE))


@atexit.register
def _keep_quiet() -> None:
    """At the end of the interpreter there is no handler."""
    del BusyScriptInterrupted.__del__


@dataclass(slots=True, eq=False)
class _Order:
    """That a run is to be interrupted.

    Args:
        run: which one.
        cause: what is raised in it.
        given: when it was asked for.
        times: how often it was raised.
        last: when that was last.
    """

    run: BusyRun
    cause: ScriptInterrupted
    given: float = field(default_factory=time.monotonic)
    times: int = 0
    last: float = -math.inf


class Signals:
    """What the signals have asked for in one run of a server.

    Args:
        drain: seconds from SIGTERM to the stop; with any other signal it begins at once.

    Attributes:
        draining: set in the loop when they begin.
        stop: set in the loop after the first signal, or when the server has drained.
        blocked_for: returns for how many seconds the loop has been busy without a pause.
        busy_run: returns the run that was last seen to hold the loop, if it may still do so.
        round: returns when the loop's present round of work began; None while it waits.
        ends_runs: whether Ctrl-C ends the run that holds the loop before it stops the server.
    """

    def __init__(self, drain: float = 0, *, ends_runs: bool = False) -> None:
        self.draining = trio.Event()
        self.stop = trio.Event()
        self.blocked_for: Callable[[], float] = lambda: math.inf
        self.busy_run: Callable[[], BusyRun | None] = lambda: None
        self.round: Callable[[], float | None] = lambda: None
        self.ends_runs = ends_runs
        self._drain = drain
        self._drain_ends = math.inf
        self._order: _Order | None = None
        self._main = 0
        self._ended_run_at = -math.inf
        self._requested_at: float | None = None
        self._noticed = False
        self._reported = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._before: dict[int, Any] = {}
        self._had_terminal = _has_terminal()

    @property
    def are_handled(self) -> bool:
        """Whether the handlers are installed."""
        return self in _handling

    @contextmanager
    def installed(self, *, for_good: bool = False) -> Iterator[None]:
        """Handle the signals while inside. In the main thread only.

        Args:
            for_good: whether to handle them until the process ends.
        """
        over = threading.Event()
        self._before = {number: signal.getsignal(number) for number in (*_stopping(), NUDGE)}
        self._install()
        _handling.append(self)
        main = self._main = threading.get_ident()
        threading.Thread(
            target=self._watch, args=(main, over), name="rpyserve signals", daemon=True
        ).start()
        try:
            with containing_keyboard_interrupts():
                yield
        finally:
            if not for_good:
                over.set()
                self._uninstall()

    async def run(self) -> None:
        """Wait in the loop for the first signal, and note that the loop has noticed it."""
        self._token = trio.lowlevel.current_trio_token()
        if self._drain_ends < math.inf:
            self.draining.set()
        if self._requested_at is None:
            await self.stop.wait()
        self.stop.set()
        self._noticed = True

    def _install(self) -> None:
        for number in self._before:
            if signal.getsignal(number) != self._handle:
                signal.signal(number, self._handle)

    def _uninstall(self) -> None:
        _handling.remove(self)
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def forget_in_child(self) -> None:
        """In a forked process: handle nothing. Ctrl-C ends it without a traceback."""
        signal.set_wakeup_fd(-1)  # or signals of this process would wake up the server
        for number, before in self._before.items():
            default = before in (None, signal.default_int_handler)
            signal.signal(number, signal.SIG_DFL if default else before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == NUDGE:
            self._install()
            if self._has_drained():
                self._request_stop(frame)
            if self._seconds_stopping() > INSIST:
                self._interrupt(frame, again=True)
            elif self._requested_at is None:
                self._carry_out(frame)
        elif number == HANG_UP and self._is_for_log():
            console_writer.write("SIGHUP: the log file is opened again.\n")
        elif self._requested_at is not None:
            force_exit(KILLED)
        elif number == signal.SIGTERM and self._drain and self._drain_ends == math.inf:
            self._drain_ends = time.monotonic() + self._drain
            self._tell_loop(self.draining)
        elif number == signal.SIGINT and (run := self._run_to_end(frame)) is not None:
            self._ended_run_at = time.monotonic()
            self._order = _Order(run, ScriptInterrupted(Interruption.CONSOLE))
            self._carry_out(frame)
        else:
            self._request_stop(frame)

    # The run that holds the loop

    def interrupt(self, run: BusyRun, cause: ScriptInterrupted | None) -> None:
        """End *run* because of *cause*; if that is None, insist on what was asked for before.

        Called by the watchdog's thread, again and again as long as the run lasts.
        """
        order = self._order
        if order is None or not order.run.is_same(run):
            if cause is None:
                return
            order = self._order = _Order(run, cause)
        now = time.monotonic()
        if not order.times and now - order.given > NO_EFFECT:
            order.given = math.inf
            print_over_ctrl_c(_NO_EFFECT)
        if now - order.last > INSIST:
            _nudge(self._main)

    def _run_to_end(self, frame: FrameType | None) -> BusyRun | None:
        """The run of which Ctrl-C is the end; None if it is to stop the server."""
        if not self.ends_runs or time.monotonic() - self._ended_run_at < AGAIN:
            return None
        outermost, run, began = outermost_author_frame(frame), self.busy_run(), self.round()
        if outermost is None or began is None or self.blocked_for() < AT_WORK:
            return None
        if run is None:
            return BusyRun(began, outermost, began)
        return run if run.frame is outermost else None

    def _carry_out(self, frame: FrameType | None) -> None:
        """Raise what was asked for in the run that was meant, if the author's code is at work."""
        order = self._order
        if order is None or self._is_over(order):
            self._order = None  # with it goes the frame, in this thread
            return
        author = innermost_author_frame(frame)
        if author is None or _is_around_fork(frame) or not _may_raise(order.run, frame):
            return
        order.times += 1
        order.last = time.monotonic()
        if order.times == 1 and order.cause.reason in _AFTER_INTERRUPTION:
            _say_interrupted(order.cause.reason, author)
        if slow_call_log.in_own_call:
            raise ConstructorInterrupted(str(order.cause))
        raise BusyScriptInterrupted(order.cause.reason, str(order.cause))

    def _is_over(self, order: _Order) -> bool:
        """Whether the run has ended, or has given others their turn."""
        return order.run.round != self.round()

    def _is_for_log(self) -> bool:
        """Whether a hang-up is about the log file: there is one, and no terminal has gone."""
        return console_writer.has_log() and self._had_terminal == _has_terminal()

    def _request_stop(self, frame: FrameType | None) -> None:
        self._requested_at = time.monotonic()
        self._tell_loop(self.stop)
        if self.blocked_for() > AT_WORK:
            self._interrupt(frame)

    def _tell_loop(self, event: trio.Event) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(event.set)

    def _is_replaced(self) -> bool:
        return any(signal.getsignal(number) != self._handle for number in self._before)

    def _has_old_order(self) -> bool:
        order = self._order
        return order is not None and self._is_over(order)

    def _has_drained(self) -> bool:
        return self._requested_at is None and time.monotonic() >= self._drain_ends

    def _seconds_stopping(self) -> float:
        """Seconds since the first signal; 0 before it."""
        requested_at = self._requested_at
        return 0.0 if requested_at is None else time.monotonic() - requested_at

    def _is_held_up(self) -> bool:
        """Whether a script keeps the loop from noticing the stop, or from going on with it."""
        return not self._noticed or HELD_UP < self.blocked_for() < math.inf

    def _interrupt(self, frame: FrameType | None, *, again: bool = False) -> None:
        author = innermost_author_frame(frame, even_in_ours=again) if self._is_held_up() else None
        if author is None or _is_around_fork(frame):
            return
        if not self._reported:
            self._reported = True
            with suppress(Exception):
                print_over_ctrl_c(f"Interrupted {_place(author)}")
        raise Interrupted

    def _watch(self, main: int, over: threading.Event) -> None:
        told = False
        while not over.wait(POLL):
            waited = self._seconds_stopping()
            if waited > INSIST and self._is_held_up():
                _nudge(main)
                if not told and waited > 4 * INSIST:
                    told = True
                    print_over_ctrl_c("A script is still running. Press Ctrl-C again to quit now.")
            elif self._has_drained() or self._is_replaced() or self._has_old_order():
                _nudge(main)
            if waited > (STOP_TIMEOUT if self._noticed else BLOCKED_TIMEOUT):
                print_over_ctrl_c("Stopping took too long, quitting now.")
                force_exit(0)


def interruptible(respond: Responder) -> Responder:
    """Wrap *respond* so that an interrupted script costs its own request only.

    The client of that gets no answer.
    """

    async def guarded(request: Request) -> Response:
        try:
            return await respond(request)
        except Interrupted:
            raise ClientDisconnected from None
        except BaseExceptionGroup as group:
            interrupted, rest = group.split(Interrupted)
            if interrupted is None:
                raise
            if rest is not None:
                raise rest from None
            raise ClientDisconnected from None

    return guarded


_AFTER_INTERRUPTION: Final = {
    Interruption.CONSOLE: "the server goes on; Ctrl-C again stops it",
    Interruption.SAVED: "it was saved meanwhile",
}
_NO_EFFECT: Final = (
    "The script is to be interrupted, but what it is doing now is no Python, such as a long "
    "regular expression: that cannot be interrupted before it ends."
)


def _say_interrupted(reason: Interruption, author: FrameType) -> None:
    with suppress(Exception):
        print_over_ctrl_c(f"Interrupted {_place(author)}  ({_AFTER_INTERRUPTION[reason]})")


def _place(author: FrameType) -> str:
    line = line_at(author)
    return f"{display_position(author)}: {line}" if line else display_position(author)


def _is_around_fork(frame: FrameType | None) -> bool:
    """Whether Python calls what runs around a fork: it prints what is raised there, and goes on."""
    if frame is None or frame.f_globals.get("__name__") != "logging":
        return False
    return frame.f_code.co_name in _AROUND_FORK


_AROUND_FORK: Final = ("_acquireLock", "_releaseLock", "_after_at_fork_child_reinit_locks")
"""What `logging` has called around each fork, by its names in all versions of Python."""


def _may_raise(run: BusyRun, frame: FrameType | None) -> bool:
    """Whether *run* is at work, and what it raises does not end the loop.

    What is called by ``TrioToken.run_sync_soon`` must not raise.
    """
    return run.is_on_stack(frame) and not any(
        each.f_globals.get("__name__") == "trio._core._entry_queue" for each in frames_from(frame)
    )


def force_exit(status: int) -> None:
    """End the process now, after writing what waits to be written. Never returns, never hangs."""
    for child in _children():
        with suppress(Exception):
            child.kill()
    with suppress(Exception):
        _thread.start_new_thread(_end_soon, (status,))  # writing may block
    console_writer.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def end_process(status: int = 0, *, at_once: bool = False) -> None:
    """End what scripts left running, and the process, if that would hold it.

    Args:
        status: its exit status.
        at_once: whether to end the process in any case.
    """
    if _has_threads() or _children():
        _end_pools()
    if at_once or _has_threads():
        atexit._run_exitfuncs()
        force_exit(status)


def _has_threads() -> bool:
    """Whether there are threads that Python waits for at its end."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    return any(not thread.daemon for thread in others)


def _children() -> list[Any]:
    """The processes that `multiprocessing`, which pools use too, has started and that run."""
    multiprocessing = sys.modules.get("multiprocessing")
    try:
        return [] if multiprocessing is None else multiprocessing.active_children()
    except Exception:  # in the middle of something, as a signal handler may ask
        return []


def _end_pools() -> None:
    """Do what Python does first at its end, which pools of threads and processes wait for.

    It waits for whatever they are doing, so that is limited here.
    """
    pools = threading.Thread(target=_run_thread_exits, name="rpyserve pools", daemon=True)
    pools.start()
    pools.join(POOLS_TIMEOUT)
    children = _children()
    for child in children:
        with suppress(Exception):
            child.terminate()
    if children:
        many = "A process" if len(children) == 1 else f"{len(children)} processes"
        was = "was" if len(children) == 1 else "were"
        print_over_ctrl_c(f"{many} that a script started {was} still running, and {was} ended.")


def _run_thread_exits() -> None:
    # Python calls them before `atexit`, in `threading._shutdown`, and they may be called twice.
    for call in reversed(getattr(threading, "_threading_atexits", ())):
        with suppress(Exception):
            call()


def _end_soon(status: int) -> None:
    time.sleep(1)
    os._exit(status)


def _nudge(thread: int) -> None:
    if os.name == "nt":
        _thread.interrupt_main(NUDGE)
    else:
        # Unlike interrupt_main, this wakes it from a system call.
        signal.pthread_kill(thread, NUDGE)


def _stopping() -> list[int]:
    """The signals that mean: stop. A hang-up of the terminal is none of them under nohup."""
    numbers = {getattr(signal, name) for name in STOPPING if hasattr(signal, name)} - {NUDGE}
    if HANG_UP in numbers and signal.getsignal(HANG_UP) != signal.SIG_DFL:
        numbers.remove(HANG_UP)
    return sorted(numbers)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which sends it a hang-up when it goes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def _forget_in_child() -> None:
    for signals in _handling:
        signals.forget_in_child()
    _handling.clear()


_handling: list[Signals] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
