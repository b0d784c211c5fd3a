"""What is told to Twisted's log goes to our console.

Failures are reported there as all others are, with the place in the author's code. What the author
says, by ``log.msg`` or a ``Logger``, is treated as what they say by Python's ``logging``. What
Twisted says of itself is for ``--verbose``, unless it is a warning.

Twisted itself keeps what is said until a program begins to log, and writes critical events to
stderr: those would be there twice, so this is ended.
"""

from __future__ import annotations

import logging
import os
import sys
from types import FrameType, ModuleType, TracebackType
from typing import Any, Final

import twisted
from twisted.logger import formatEvent, globalLogBeginner, globalLogPublisher

from rpyserve.scripts import background
from rpyserve.util.author_code import PACKAGE_DIRECTORY, is_author_code
from rpyserve.util.exceptions import split_control_flow

log = logging.getLogger("rpyserve")

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_TWISTED: Final = os.path.dirname(str(twisted.__file__))
_PASSED: Final = (
    os.path.join(_TWISTED, "logger") + os.sep,
    os.path.join(_TWISTED, "python") + os.sep,
    PACKAGE_DIRECTORY,
)
_DEFERRED: Final = "Unhandled error in Deferred:"
# What failed, by the words of Twisted's log. Those on Deferreds are an event before the failure.
_FAILED: Final = {
    "while handling timed call": "A timed call of Twisted's reactor",
    _DEFERRED: "A Deferred whose failure nobody handled",
}


def adopt(module: ModuleType) -> None:
    """Observe Twisted's log, which *module*, ``twisted.python.log``, is a part of."""
    temporary = getattr(globalLogBeginner, "_temporaryObserver", None)
    if temporary is not None:
        globalLogPublisher.removeObserver(temporary)
    globalLogPublisher.addObserver(observe)


def observe(event: dict[str, Any]) -> None:
    """Tell the console of *event*: one of Twisted's observers of its log."""
    text = formatEvent(event) or ""
    failure = event.get("log_failure") or event.get("failure")  # before Twisted 23
    level = _LEVELS[getattr(event.get("log_level"), "name", "info")]
    if failure is not None:
        is_deferred = event.get("log_namespace") == "twisted.internet.defer"
        _report(_DEFERRED if is_deferred else text, failure)
    elif text == _DEFERRED:
        return
    elif _is_said_by_author(sys._getframe(1)):
        logging.getLogger("twisted").log(level, "%s", text)
    else:
        log.log(level if level >= logging.WARNING else logging.DEBUG, "Twisted: %s", text)


def _report(text: str, failure: Any) -> None:
    exc: BaseException = failure.value
    if split_control_flow(exc)[0] is None:
        return  # Ctrl-C has interrupted what was called
    if exc.__traceback__ is None:  # Deferreds take it away
        exc = exc.with_traceback(_traceback(failure.frames))
    first = text.strip().partition("\n")[0]
    what = _FAILED.get(first, "What Twisted's reactor called")
    nursery = background.running_nursery()
    if nursery is None:
        log.error("%s failed: %s: %s", what, type(exc).__name__, exc)
    else:
        nursery.report(what, exc)


def _traceback(frames: Any) -> TracebackType | None:
    """Make a traceback of the names, files and lines that a failure has kept."""
    made: TracebackType | None = None
    for name, file, line, *_ in reversed(frames):
        code = compile("raise Exception", file, "exec")
        try:
            exec(code.replace(co_name=name, co_qualname=name, co_firstlineno=line), {})
        except Exception as exc:
            own = exc.__traceback__ and exc.__traceback__.tb_next
            if own is not None:
                made = TracebackType(made, own.tb_frame, own.tb_lasti, line)
    return made


def _is_said_by_author(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename.startswith(_PASSED):
        frame = frame.f_back
    return frame is not None and is_author_code(frame.f_code.co_filename)
