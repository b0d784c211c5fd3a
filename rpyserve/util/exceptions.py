"""Exceptions of code that is not ours: which count, which must go on, and who hears of them.

A script can raise anything. Cancellation and interrupts always pass; every other exception ends the script only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio

__all__ = [
    "ErrorReporter",
    "Interrupted",
    "report_or_raise",
    "reporting_errors",
    "split_control_flow",
    "unwrap_group",
]


class ErrorReporter(Protocol):
    """Who hears of failures that belong to no request."""

    def report_exception(self, what: str, exc: BaseException) -> None: ...


def unwrap_group(exc: BaseException) -> BaseException:
    """Return the one exception that counts inside *exc*.

    A nursery wraps what its tasks raise in an `ExceptionGroup`. If, cancellations apart, there is only one
    exception in the group, that one counts; otherwise the group itself does.
    """
    while isinstance(exc, BaseExceptionGroup):
        _, real = exc.split(trio.Cancelled)
        if real is None or len(real.exceptions) != 1:
            return exc
        exc = real.exceptions[0]
    return exc


class Interrupted(BaseException):
    """Raised in the middle of a script's sync code because the server is to stop."""


_PASSING: Final = (trio.Cancelled, KeyboardInterrupt, Interrupted)


def split_control_flow(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part *exc* into what is a failure of the code that raised it, and what must go on up: cancellation, interrupts.

    A script can raise anything, `SystemExit` and `GeneratorExit` too, and none of it may end more than the script.
    """
    if isinstance(exc, BaseExceptionGroup):
        passing, own = exc.split(_PASSING)
        return own, passing
    return (None, exc) if isinstance(exc, _PASSING) else (exc, None)


@contextmanager
def reporting_errors(tell: Callable[[BaseException], object]) -> Iterator[None]:
    """While inside, what fails is told by *tell* and goes no further; cancellation and interrupts pass."""
    try:
        yield
    except BaseException as exc:
        report_or_raise(exc, tell)


def report_or_raise(exc: BaseException, tell: Callable[[BaseException], object]) -> None:
    """Where *exc* has been caught, do what `contained` does with it."""
    own, passing = split_control_flow(exc)
    if own is not None:
        tell(own)
    if passing is exc:
        raise exc
    if passing is not None:
        raise passing from None
