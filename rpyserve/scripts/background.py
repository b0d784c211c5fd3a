"""Tasks that scripts start: for as long as a response takes, or for as long as the site runs.

All of them live in one nursery, the site's, each with a cancel scope of its own; whatever one
raises is reported and stops nothing else. A request's tasks are cancelled when its response has
ended. A background task belongs to the version of the script that started it: a newer version, once
it has been executed, takes its place.

Two tasks are told apart by their functions' names and by what the functions are bound to and closed
over, so that each task of a loop or of a decorator factory runs. A function that gets arguments is
another matter: each call starts a task of its own, which an edit does not disturb. Both have a
`Job`, by which the author follows them. Plain functions run in a thread.

A task that has been cancelled must end. One that goes on, because a bare ``except:`` swallows the
cancellation or a scope shields it, is named on the console, and stopped by force when its grace is
over: it is not resumed any more. That needs the coroutine to be driven from here; see `_drive`.
"""

from __future__ import annotations

import ctypes
import inspect
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Hashable,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import coroutine
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeVar
from weakref import WeakSet

import trio

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import (
    Execution,
    ScriptExecution,
    bindings_of,
    current,
    execution_name_of,
    execution_of,
    function_name,
    is_function,
    is_plain_value,
    without_partials,
)
from rpyserve.scripts.threads import Limiter, ThreadCall, limiter_of
from rpyserve.util.author_code import ServerObject
from rpyserve.util.exceptions import ErrorReporter, reporting_errors, unwrap_group
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

AsyncFunction = Callable[..., Awaitable[object]]
AnyFunction = Callable[..., object]
Function = TypeVar("Function", bound=AnyFunction)

NAMED_AFTER: Final = 2.0
"""Seconds after which a task that was cancelled and goes on is named."""

GRACE: Final = 5.0
"""Seconds that a task has to clean up once it was cancelled; then it is stopped by force."""

MOST_SWALLOWED: Final = 100
"""How often a task may swallow its cancellation before it is stopped by force."""

MOST_ENDED: Final = 1000
"""How many tasks that have ended are remembered, so that they are not started again."""


class SiteNursery:
    """Where the tasks of a site run. What is started before it opens waits for that.

    Args:
        errors: hears of what they raise.
    """

    def __init__(self, errors: ErrorReporter) -> None:
        self._errors = errors
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = 0
        self._pending: list[Callable[[], Awaitable[None]]] = []
        self._running: set[SiteTask] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While inside, tasks run; on the way out they are cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._thread = threading.get_ident()
            for work in self._pending:
                self._nursery.start_soon(work)
            self._pending.clear()
            _open_nurseries.append(self)
            for open_too in on_open:
                open_too(self)
            try:
                yield
            finally:
                _open_nurseries.remove(self)
                for task in tuple(self._running):
                    task.cancel()
                self._nursery.cancel_scope.cancel()
                self._nursery = self._token = None

    def run_sync(self, function: Callable[[], object]) -> None:
        """Call *function*, which must not raise, in the thread of the event loop.

        That is done at once, unless this is another thread: then soon.
        """
        token = self._token
        if token is None or threading.get_ident() == self._thread:
            function()
        else:
            token.run_sync_soon(function)

    def call(self, function: Callable[[], object]) -> None:
        """Do what `run_sync` does, but wait for it where that is possible."""
        try:
            trio.from_thread.run_sync(function)
        except RuntimeError:  # this is no thread of trio's
            self.run_sync(function)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which must not raise."""
        if self._nursery is None:
            self._pending.append(work)
        else:
            self._nursery.start_soon(work)

    @property
    def is_open(self) -> bool:
        """Whether tasks run."""
        return self._nursery is not None

    @contextmanager
    def running(self, task: SiteTask) -> Iterator[None]:
        """While inside, *task* is cancelled when the site stops."""
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    def report(self, what: str, exc: BaseException) -> None:
        """Tell that the task *what* raised *exc*."""
        self._errors.report_exception(f"{what} failed", exc)


on_open: Final[list[Callable[[SiteNursery], object]]] = []
"""What is called with each nursery that opens."""

_open_nurseries: Final[list[SiteNursery]] = []


def running_nursery() -> SiteNursery | None:
    """Return the nursery of the site that runs; of several, the one that was opened last."""
    return _open_nurseries[-1] if _open_nurseries else None


class SiteTask(ServerObject):
    """One task of an author, which ends soon after it is cancelled, whatever it does.

    Args:
        nursery: where it runs.
        name: what the console calls it.

    Attributes:
        ended: set when it has ended.
    """

    def __init__(self, nursery: SiteNursery, name: str) -> None:
        self.name = name
        self.ended = trio.Event()
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._cancelled_at = math.inf
        self._swallowed = 0
        self._is_stopped = False

    def cancel_from_anywhere(self) -> None:
        """Cancel it, perhaps soon, from a thread as well."""
        self._nursery.run_sync(self.cancel)

    def cancel(self) -> None:
        """Cancel it. It is named if it goes on."""
        if self._scope.cancel_called:
            return
        self._scope.cancel()
        if self._nursery.is_open and not self.ended.is_set():
            self._cancelled_at = trio.current_time()
            self._nursery.start(self._tell_if_it_goes_on)

    async def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run *function*, unless the task is cancelled already.

        Raises:
            BaseException: what *function* raises.
        """
        try:
            with self._nursery.running(self), self._scope:
                if not self._scope.cancel_called:
                    await self._drive(_call(function))
        except RuntimeError:
            if not self._is_stopped:
                raise
            # Cancel scopes that the work has left open are misnested, as trio says.
        finally:
            self.ended.set()

    async def _drive(self, work: Coroutine[Any, Any, object]) -> None:
        await _drive(work, self._must_stop)
        if not self._is_stopped:
            return
        try:
            if self._swallowed > MOST_SWALLOWED:
                _abandon(work)
            else:
                work.close()  # what is shielded has its ``finally`` blocks run
        except RuntimeError:  # one of those waits for something
            _abandon(work)

    async def _tell_if_it_goes_on(self) -> None:
        with trio.move_on_after(NAMED_AFTER, shield=True):
            await self.ended.wait()
            return
        log.warning(_GOES_ON, self.name, NAMED_AFTER, GRACE)

    def _must_stop(self, *, is_cancellation: bool) -> bool:
        """Whether it must not be resumed any more; asked each time before it is.

        Args:
            is_cancellation: it would be resumed with `trio.Cancelled`.
        """
        if self._cancelled_at == math.inf:
            return False
        self._swallowed += is_cancellation
        is_over = trio.current_time() > self._cancelled_at + GRACE
        if not is_over and self._swallowed <= MOST_SWALLOWED:
            return False
        if trio.lowlevel.current_task().child_nurseries:
            return False  # their tasks would be left without a parent
        self._is_stopped = True
        log.warning(_STOPPED_BY_FORCE, self.name)
        return True


_ADVICE: Final = (
    "`except:` and `except BaseException:` swallow the cancellation (write `except Exception:`), "
    "and a shielded cancel scope keeps it out."
)
_GOES_ON: Final = (
    f"%s was cancelled %g seconds ago and goes on. {_ADVICE} It is stopped %g seconds after it was "
    "cancelled."
)
_STOPPED_BY_FORCE: Final = (
    f"%s did not end when it was cancelled, so it has been stopped by force. {_ADVICE}"
)


async def _call(function: Callable[[], Awaitable[object]]) -> None:
    await function()


def _abandon(work: Coroutine[Any, Any, object]) -> None:
    """Never let *work* be collected, not even at the end of the interpreter.

    Python closes a coroutine that is collected: one that swallows everything would go on then, and
    never end.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(work))


@coroutine
def _drive(
    work: Coroutine[Any, Any, object], must_stop: Callable[..., bool]
) -> Generator[Any, Any, None]:
    """Await *work*, but stop it by force, instead of resuming it, as soon as *must_stop* says so.

    What trio sends to a coroutine that it resumes is an outcome, which may be an error.
    """
    resume: Callable[[Any], Any] = work.send
    outcome: Any = None
    while True:
        try:
            trap = resume(outcome)
        except StopIteration:
            return
        try:
            outcome, resume = (yield trap), work.send
        except BaseException as exc:  # trio throws only where *trap* is none of its own
            outcome, resume = exc, work.throw
        error = getattr(outcome, "error", None)
        if must_stop(is_cancellation=isinstance(error, trio.Cancelled)):
            return


# Jobs


JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


@public
class Job:
    """A function at work beside the site, as `Site.background` returns it.

    ``await job`` waits for its end, returns its result, and raises what it raised.

    Attributes:
        name: the name of the function.
        state: ``"waiting"`` before it begins, ``"running"``, and in the end ``"done"``,
            ``"failed"`` or ``"cancelled"``.
        progress: how far it has come: what the function itself sets by ``current_job().progress``,
            usually a number from 0 to 1; None at first.
        result: what it has returned, once it is done.
        error: the exception that it has raised, if it failed.

    It may be kept in a session or the registry, where its result and progress are brought up to
    date after an edit like everything else. It cannot be pickled, as it runs in this process only.
    """

    def __init__(self, name: str, task: SiteTask) -> None:
        self.name = name
        self.state: JobState = "waiting"
        self.progress: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._run = _JobRun(task)

    def __repr__(self) -> str:
        return f"<Job {self.name}, {self.state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the job {self.name} cannot be pickled, as it runs in this process: keep its result "
            "where it is to outlive the process"
        )

    @property
    def ended(self) -> bool:
        """Whether it is over, one way or another."""
        return self._run.ended.is_set()

    def cancel(self) -> None:
        """Cancel it. A plain function is interrupted at its next step. Never waits."""
        self._run.task.cancel_from_anywhere()

    async def wait(self) -> None:
        """Wait until it has ended, whatever comes of it."""
        await self._run.ended.wait()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._outcome().__await__()

    async def _outcome(self) -> Any:
        await self.wait()
        if self.error is not None:
            raise self.error
        if self.state == "cancelled":
            raise RuntimeError(f"the job {self.name} was cancelled")
        return self.result

    def _begin(self) -> None:
        self.state = "running"

    def _fail(self, exc: BaseException) -> None:
        self.error, self.state = exc, "failed"

    def _end(self) -> None:
        if self.state in ("waiting", "running"):
            self.state = "cancelled"
        self._run.ended.set()


class _JobRun(ServerObject):
    """What a job has of the server."""

    __slots__ = ("ended", "task")

    def __init__(self, task: SiteTask) -> None:
        self.task = task
        self.ended = trio.Event()


_current_job: ContextVar[Job | None] = ContextVar("current job", default=None)


@public
def current_job() -> Job:
    """Return the `Job` of the function that `Site.background` runs, for use within it.

    Raises:
        RuntimeError: the function was called by something else.
    """
    job = _current_job.get()
    if job is None:
        raise RuntimeError(
            "current_job() is for functions that site.background() runs: call it in there"
        )
    return job


async def _do_job(job: Job, function: AnyFunction, args: tuple[Any, ...]) -> None:
    _current_job.set(job)
    if _is_async(function):
        job._begin()
        result = function(*args)
    else:
        call = ThreadCall(partial(function, *args), job._begin)
        result = await call.run(limiter_of(_limiter))
    job.result = await result if inspect.isawaitable(result) else result
    job.state = "done"


_limiter: Limiter = trio.lowlevel.RunVar("jobs")


def _is_async(function: Any) -> bool:
    """Whether *function*, or what is called if it is an object, is an async function."""
    return inspect.iscoroutinefunction(_called_by(function))


def _called_by(function: Any) -> Any:
    """Return the function that is called at last; of an object, its method."""
    function = without_partials(function)
    return function if is_function(function) else type(function).__call__


class RequestTasks:
    """The tasks of requests; see `Request.start_soon`."""

    def __init__(self, nursery: SiteNursery) -> None:
        self._nursery = nursery

    def start(self, request: Request, function: AsyncFunction, args: tuple[Any, ...]) -> None:
        """Run ``function(*args)`` until it returns or the response to *request* has ended."""
        _check_async_function(function, "request.start_soon", "request.start_soon(f, x)")
        name = f"The task {function_name(function)} of {request.method} {request.path}"
        task = SiteTask(self._nursery, name)
        request.on_close(partial(self._end, request, task))
        run = partial(self._run, request, task, partial(function, *args))
        self._nursery.run_sync(partial(self._nursery.start, run))

    def _end(self, request: Request, task: SiteTask) -> None:
        """Cancel *task*; say so where it was hardly meant to end so soon."""
        if request._response.redirect is not None and not task.ended.is_set():
            _redirected.warn(_ENDED_BY_REDIRECT, task.name, key=task.name)
        task.cancel()

    async def _run(
        self, request: Request, task: SiteTask, function: Callable[[], Awaitable[object]]
    ) -> None:
        with reporting_errors(partial(self._handle_failure, request)):
            await task.run(function)

    def _handle_failure(self, request: Request, exc: BaseException) -> None:
        if not request._response.fail(unwrap_group(exc)):
            self._nursery.report(f"{request.method} {request.path}", exc)


_redirected: Final = ThrottledLogger(log, interval=math.inf, clock=time.monotonic)
_ENDED_BY_REDIRECT: Final = (
    "%s was cancelled, because a task that request.start_soon has started ends with the response, "
    "and that was a redirect. For work that goes on, write request.site.background(f, x)."
)


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
        """Return where *function* is defined; the script for which it was made goes first."""
        executions = list(_executions_of(function))
        scripts = [each for each in executions if isinstance(each, ScriptExecution)]
        if executions:
            return cls.of_execution((scripts or executions)[0])
        function = _called_by(function)
        module = str(getattr(function, "__module__", ""))
        # A function that is defined anew with each request is the same one each time.
        return cls(module, module, None, getattr(function, "__code__", function))

    @classmethod
    def of_execution(cls, execution: Execution) -> TaskOrigin:
        """Return the script or module that *execution* executes."""
        return cls(execution.name.home, str(execution.name), execution.path, execution.version)


class TaskKey(NamedTuple):
    """What a background task is found by.

    Args:
        home: the home of its function; see `ExecutionName.home`.
        name: the qualified name of its function.
        bindings: what its function is bound to and closed over.
        number: which one of that key its version of the script has declared.
    """

    home: str
    name: str
    bindings: Hashable
    number: int = 0


@dataclass(slots=True, eq=False)
class _BackgroundTask:
    """A background task, from when it is asked for until it has ended and is wanted no more.

    Args:
        key: what it is found by. Objects in it are known by their ids, which *function* keeps.
        origin: the version of the script that it belongs to.
        job: its state.
        function: what it runs.
        args: what the function is called with.
        task: its run.
        predecessors: the tasks of older versions that must have ended before.
    """

    key: TaskKey
    origin: TaskOrigin
    job: Job
    function: AnyFunction
    args: tuple[Any, ...]
    task: SiteTask
    predecessors: list[SiteTask] = field(default_factory=list)
    is_wanted: bool = True


class BackgroundTasks:
    """The background tasks of a site; see `Site.background`."""

    def __init__(self, nursery: SiteNursery) -> None:
        self._nursery = nursery
        self._tasks: dict[TaskKey, _BackgroundTask] = {}
        # Those that were started with arguments, until they have ended.
        self._jobs: set[_BackgroundTask] = set()

    def start(self, function: AnyFunction, args: tuple[Any, ...] = ()) -> Job:
        """Run ``function(*args)``.

        Without arguments: unless this version of it runs or has run; older versions are cancelled.
        """
        _check_function(function, "site.background", "site.background(f)")
        new = self._new(TaskOrigin.of(function), function, args)
        if args:
            self._nursery.run_sync(partial(self._start_job, new))
            return new.job
        key = _key_of(function, new.origin, objects_last=not _is_uncached.get())
        new = replace(new, key=key)
        self._nursery.call(partial(self._start_asked_for, new))
        kept = self._tasks.get(key, new)
        return kept.job if kept.origin.version == new.origin.version else new.job

    def _new(
        self, origin: TaskOrigin, function: AnyFunction, args: tuple[Any, ...] = ()
    ) -> _BackgroundTask:
        task = SiteTask(self._nursery, f"The background task {_display_name(function)}")
        key = TaskKey(origin.home, function_name(function), ())
        job = Job(function_name(function), task)
        return _BackgroundTask(key, origin, job, function, args, task)

    def _start_job(self, new: _BackgroundTask) -> None:
        self._jobs.add(new)
        self._nursery.start(partial(self._run, new))

    def _start_asked_for(self, new: _BackgroundTask) -> None:
        if not self._start(new) and self._tasks[new.key].job.ended:
            name = function_name(new.function)
            _had_run.warn(_HAS_RUN, new.task.name, name, name, key=(*new.key, new.origin.version))

    def start_declared(self, execution: Execution) -> None:
        """Start the tasks that *execution* declared, and cancel those of older versions."""
        if execution.background:
            self._start_all(execution)
        self._nursery.run_sync(partial(self._end_older, execution))

    def _start_all(self, execution: Execution) -> None:
        counts: Counter[TaskKey] = Counter()
        for function in execution.background:
            origin = TaskOrigin.of(function)
            key = _key_of(function, origin, objects_last=execution.cached)
            new = replace(self._new(origin, function), key=key._replace(number=counts[key]))
            counts[key] += 1
            self._nursery.run_sync(partial(self._start, new))

    def end_deleted(self) -> None:
        """Cancel what scripts and modules have started whose files there are no more."""
        self._end(_is_deleted)
        for each in list(self._jobs):
            if _is_deleted(each.origin):
                each.task.cancel()

    def origins(self) -> list[TaskOrigin]:
        """The scripts and modules that have tasks, once for each version that has some."""
        return list(dict.fromkeys(each.origin for each in self._tasks.values() if each.is_wanted))

    def jobs(self) -> list[tuple[TaskOrigin, Job]]:
        """Return each task that there is, or was last, with the script or module it belongs to."""
        return [(each.origin, each.job) for each in (*self._tasks.values(), *self._jobs)]

    def _start(self, new: _BackgroundTask) -> bool:
        """Start *new* in place of older versions, and return True, unless there is this version."""
        key, origin = new.key, new.origin
        same = self._tasks.get(key)
        if same is not None and same.is_wanted and same.origin.version == origin.version:
            return False
        older = [each for each in self._tasks.values() if each.key[:2] == key[:2]]
        older = [each for each in older if each is same or each.origin.version != origin.version]
        for each in older:
            self._end_one(each)
        new.predecessors += [each.task for each in older if not each.task.ended.is_set()]
        self._tasks[key] = new
        self._nursery.start(partial(self._run, new))
        return True

    def _end_older(self, execution: Execution) -> None:
        if not self._tasks:
            return
        present = TaskOrigin.of_execution(execution)
        self._end(lambda origin: origin.home == present.home and origin.version != present.version)

    def _end(self, is_meant: Callable[[TaskOrigin], bool]) -> None:
        for each in list(self._tasks.values()):
            if is_meant(each.origin):
                self._end_one(each)

    def _fail(self, started: _BackgroundTask, exc: BaseException) -> None:
        started.job._fail(unwrap_group(exc))
        self._nursery.report(started.task.name, exc)

    def _end_one(self, each: _BackgroundTask) -> None:
        each.is_wanted = False
        each.task.cancel()
        self._forget_if_over(each)

    def _forget_if_over(self, each: _BackgroundTask) -> None:
        """Forget a task unless it is still wanted: then it must not be started again."""
        is_over = not each.is_wanted and each.task.ended.is_set()
        if is_over and self._tasks.get(each.key) is each:
            del self._tasks[each.key]

    async def _run(self, started: _BackgroundTask) -> None:
        task = started.task
        try:
            # Never two of them at once, however slow the older one is to clean up; unless it cannot
            # be stopped at all.
            with trio.move_on_after(GRACE + NAMED_AFTER):
                for predecessor in started.predecessors:
                    await predecessor.ended.wait()
            started.predecessors.clear()
            work = partial(_do_job, started.job, started.function, started.args)
            with reporting_errors(partial(self._fail, started)):
                await task.run(work)
        finally:
            task.ended.set()
            started.job._end()
            self._jobs.discard(started)
            self._forget_if_over(started)
            self._forget_oldest_ended()

    def _forget_oldest_ended(self) -> None:
        if len(self._tasks) > MOST_ENDED:
            ended = [each for each in self._tasks.values() if each.task.ended.is_set()]
            for each in ended[:-MOST_ENDED]:
                del self._tasks[each.key]


_had_run: Final = ThrottledLogger(log, interval=math.inf, clock=time.monotonic)
_HAS_RUN: Final = (
    "%s has run already, so calling site.background(%s) again does nothing: without arguments it "
    "runs once for each version of its script. Give the function what it is to work on, as in "
    "site.background(%s, x), and each call starts it."
)


def _is_deleted(origin: TaskOrigin) -> bool:
    return origin.path is not None and not os.path.exists(origin.path)


@public
def background(function: Function) -> Function:
    """Run *function*, a plain or async one without arguments, beside the site.

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
    _check_function(function, "background", "background(f)")
    execution.background.append(function)
    return function


# Threads


# Those that top-level code has started, by the home of their executions, as long as they run.
_threads: Final[dict[str, WeakSet[threading.Thread]]] = {}
_thread_lines: Final = ThrottledLogger(log, interval=math.inf, clock=time.monotonic)
_MULTIPLY: Final = (
    "%s was executed again and has started threads again, while those of earlier executions still "
    "run: %s. Start a thread once and keep it in the registry, or write an async function with "
    "@background above it, which is replaced when its script changes."
)


def note_threads(execution: Execution, before: list[threading.Thread]) -> None:
    """Say if the threads multiply that the top-level code of *execution* has started.

    Args:
        before: the threads that there were before it ran, as `threading.enumerate` has them.
    """
    now = threading.enumerate()
    if now == before:
        return
    started = set(now).difference(before)
    started.difference_update(*_threads.values())  # those of a module that it has imported
    if started:
        earlier = _threads.setdefault(execution.name.home, WeakSet())
        names = sorted(thread.name for thread in earlier if thread.is_alive())
        earlier.update(started)
        if names:
            version = execution.name.home, execution.version
            _thread_lines.warn(_MULTIPLY, execution.path.name, ", ".join(names), key=version)


# What tells tasks apart


def _executions_of(function: Any, *outer: Any) -> Iterator[Execution]:
    """The execution that has defined *function*, and those of what it is bound to."""
    if any(function is each for each in outer):
        return  # a function may hold itself
    homes = {home for home, _ in definitions.roles_of(function)}
    own = execution_of(function if is_function(function) else type(function))
    yield from filter(None, [own, *map(definitions.latest_execution, homes)])
    if is_function(function) or not outer:
        for value in bindings_of(function).values():
            yield from _executions_of(value, function, *outer)


def _display_name(function: Any) -> str:
    execution = execution_of(function)
    of_file = "" if execution is None else f" of {execution.path.name}"
    return f"{function_name(function)}{of_file}"


def _key_of(function: Any, origin: TaskOrigin, *, objects_last: bool) -> TaskKey:
    """Return what the background task that runs *function* is found by.

    Args:
        objects_last: objects that the next execution, or the next request, has anew are not told
            apart; this says whether all others stay the same.
    """

    def describe(value: Any, *outer: Any) -> Hashable:
        # A function may hold itself, so those whose bindings are being described are passed on.
        if is_plain_value(value):
            return type(value), value
        if isinstance(value, tuple):
            return tuple(describe(item, *outer) for item in value)
        if is_function(value):
            name = getattr(execution_name_of(value), "home", ""), function_name(value)
            is_inner = any(value is each for each in outer)
            return name if is_inner else (name, *describe_bindings(value, *outer))
        if roles := definitions.roles_of(value):
            return min(roles)
        return id(value) if _stays(value, objects_last) else type(value).__qualname__

    def describe_bindings(function: Any, *outer: Any) -> tuple[Hashable, ...]:
        bindings = bindings_of(function).items()
        return tuple((name, describe(value, function, *outer)) for name, value in bindings)

    return TaskKey(origin.home, function_name(function), describe_bindings(function))


def _stays(value: Any, objects_last: bool) -> bool:
    """Whether the next request has the same *value*, not another one that is like it."""
    if isinstance(value, (Request, *_CONTAINERS)):
        return False
    name = execution_name_of(type(value))
    is_own = name is not None and name.is_transient
    return isinstance(value, ServerObject) or (objects_last and not is_own)


_CONTAINERS: Final = (list, dict, set, frozenset, bytearray)

# Whether the request that is being answered is answered by a script without ``cache()``.
_is_uncached: ContextVar[bool] = ContextVar("is uncached", default=False)


_forget_uncached: Final = partial(_is_uncached.set, False)


def note_uncached(request: Request) -> None:
    """Say that a script without ``cache()`` answers *request*: it has made all its objects anew."""
    _is_uncached.set(True)
    request.on_close(_forget_uncached)


def _check_function(function: object, name: str, usage: str) -> None:
    """Raise a TypeError that says what to write if *function* cannot be called.

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
    if not callable(function):
        raise TypeError(
            f"{name}() takes a function, not {function!r:.60}: write {usage}, without f's own ()"
        )


def _check_async_function(function: object, name: str, usage: str) -> None:
    """Raise a TypeError that says what to write if *function* cannot be an async one."""
    _check_function(function, name, usage)
    is_sync = inspect.isroutine(function) and not inspect.iscoroutinefunction(function)
    if is_sync or not callable(function):
        raise TypeError(
            f"{name}() takes an async function: "
            "write `async def`, and in it `await trio.sleep(seconds)`"
        )
