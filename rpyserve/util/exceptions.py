"""Exceptions of code that is not ours: which count, which must go on, and who hears of them.

A script can raise anything. Cancellation and interrupts always pass; every other exception ends the
script only. `KeyboardInterrupt` is an interrupt only where Python raises it at Ctrl-C. Where
rpyserve handles the signals itself, Ctrl-C raises `Interrupted`, or nothing, so that one must be a
script's own. `ScriptInterrupted` is raised in a script from outside, and yet ends that script only,
so it counts as a failure of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio


class ErrorReporter(Protocol):
    """Who hears of failures that belong to no request."""

    def report_exception(self, what: str, exc: BaseException) -> None: ...


def unwrap_group(exc: BaseException) -> BaseException:
    """Return the one exception that counts inside *exc*.

    A nursery wraps what its tasks raise in an `ExceptionGroup`. If, cancellations apart, there is
    only one exception in the group, that one counts; otherwise the group itself does.
    """
    while isinstance(exc, BaseExceptionGroup):
        _, real = exc.split(trio.Cancelled)
        if real is None or len(real.exceptions) != 1:
            return exc
        exc = real.exceptions[0]
    return exc


class Interrupted(BaseException):
    """Raised in the middle of a script's sync code because the server is to stop."""


class Interruption(enum.Enum):
    """Why a run of a script was interrupted."""

    SAVED = "the script was saved meanwhile"
    CONSOLE = "Ctrl-C was pressed at the server's console"
    TIMEOUT = "it took too long"
    LEFT = "nobody waits for it any more"


class ScriptInterrupted(BaseException):
    """Raised in the middle of a script's sync code, to end what it does there and nothing else.

    It is no `Exception`, so that ``except Exception`` in a loop does not swallow it.

    Args:
        reason: why.
        message: what the author is told.
    """

    def __init__(self, reason: Interruption, message: str = "") -> None:
        super().__init__(message or reason.value)
        self.reason = reason


def is_on_console(exc: BaseException) -> bool:
    """Whether *exc* is an interruption of which the console has been told as it was raised."""
    return isinstance(exc, ScriptInterrupted) and exc.reason is not Interruption.TIMEOUT


class ConstructorInterrupted(Exception):
    """Raised in place of `ScriptInterrupted` in code that the server calls for objects of an edit.

    Whatever calls that is ready for every `Exception`.
    """


_OURS: Final = (trio.Cancelled, Interrupted)
# What ends more than a script. A process has one handler for each signal, so this is one's, too.
_control_flow: tuple[type[BaseException], ...] = (*_OURS, KeyboardInterrupt)


@contextmanager
def containing_keyboard_interrupts() -> Iterator[None]:
    """While inside, a `KeyboardInterrupt` is a failure like any other: no Ctrl-C raises it."""
    global _control_flow
    before, _control_flow = _control_flow, _OURS
    try:
        yield
    finally:
        _control_flow = before


def split_control_flow(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split *exc* into a failure and what must be raised again: cancellation and interrupts.

    A script can raise anything, `SystemExit` and `GeneratorExit` too, and none of it may end more
    than the script.

    Returns:
        The failure and the control flow; None for a part that is not there.
    """
    if isinstance(exc, BaseExceptionGroup):
        control_flow, failure = exc.split(_control_flow)
        return failure, control_flow
    return (None, exc) if isinstance(exc, _control_flow) else (exc, None)


@contextmanager
def reporting_errors(report: Callable[[BaseException], object]) -> Iterator[None]:
    """Give failures to *report* and raise them no further; cancellation and interrupts pass."""
    try:
        yield
    except BaseException as exc:
        report_or_raise(exc, report)


def report_or_raise(exc: BaseException, report: Callable[[BaseException], object]) -> None:
    """Do with *exc*, which has been caught, what `reporting_errors` does."""
    failure, control_flow = split_control_flow(exc)
    if failure is not None:
        report(failure)
    if control_flow is exc:
        raise exc
    if control_flow is not None:
        raise control_flow from None
