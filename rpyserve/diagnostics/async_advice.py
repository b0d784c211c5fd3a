"""Advice about `await`: forgotten, one too many, or asyncio's, where rpyserve runs on trio.

A coroutine that was not awaited shows up in three ways: in an exception, where a value was expected
(here), as the result of a method (`resources.rendering`), or not at all (`serving.unawaited`).
"""

from __future__ import annotations

import inspect
import re
import traceback
from types import CoroutineType, FrameType
from typing import Final

from rpyserve.scripts.source import innermost_author_line

__all__ = ["for_asyncio", "for_await", "for_coroutine", "for_runtime_error"]

_TRIO_LINES: Final = (
    ("sleep", "await trio.sleep(1)"),
    (
        "gather create_task ensure_future TaskGroup wait",
        "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    ),
    ("wait_for timeout", "with trio.fail_after(5):\n    await f()"),
    ("to_thread run_in_executor", "await trio.to_thread.run_sync(f)"),
    ("Queue", "send, receive = trio.open_memory_channel(10)"),
    ("Event Future", "trio.Event()"),
    ("Lock", "trio.Lock()"),
    ("Semaphore", "trio.Semaphore(1)"),
    ("open_connection", "stream = await trio.open_tcp_stream(host, port)"),
    ("create_subprocess_exec", "await trio.run_process([...], capture_stdout=True)"),
    (
        "create_subprocess_shell",
        "await trio.run_process(command, shell=True, capture_stdout=True)",
    ),
    ("shield", "with trio.CancelScope(shield=True):"),
)
_TRIO: Final = {name: line for names, line in _TRIO_LINES for name in names.split()}
"""What trio has in place of a name of asyncio's."""

_RUNTIME_ERRORS: Final = (
    (
        "Attempted to call run() from inside a run()",
        "The server is already running trio. Write `async def`, and await the function in it.",
    ),
    (
        "must be called from async context",
        "Top-level code cannot wait. Do it in the method:\nasync def render_GET(self, request):",
    ),
    (
        "cannot reuse already awaited coroutine",
        "A coroutine can be awaited only once. Call the function again each time:\nawait f(...)",
    ),
)


def for_coroutine(exc: BaseException) -> str:
    """Return the advice if *exc* says that a value is a ``coroutine``; else an empty text."""
    if not re.search(r"\bcoroutine\b", str(exc)):
        return ""
    frame, line = innermost_author_line(exc)
    if frame is None:
        return ""
    is_async = frame.f_code.co_flags & inspect.CO_COROUTINE
    also = "" if is_async else _in_async_function(frame)
    if name := _coroutine_variable(frame, line):
        call = frame.f_locals[name].__qualname__.rpartition(".")[2]
        sentence = f"{name} is a coroutine, because its call lacks `await`."
        return f"{sentence} Write:\n{name} = await {call}(...){also}"
    if name := _async_call(frame, line):
        return f"{name} is async, so its call needs `await`. Write:\nawait {name}(...){also}"
    return f"The call of an async function lacks `await`. Write:\nvalue = await f(...){also}"


def _coroutine_variable(frame: FrameType, line: str) -> str:
    for name, value in frame.f_locals.items():
        if type(value) is CoroutineType and re.search(rf"\b{re.escape(name)}\b", line):
            return name
    return ""


def _async_call(frame: FrameType, line: str) -> str:
    for name in re.findall(r"(?<!await )(?<![\w.])(\w+)\(", line):
        function = frame.f_locals.get(name, frame.f_globals.get(name))
        if inspect.iscoroutinefunction(function):
            return str(name)
    return ""


def _in_async_function(frame: FrameType) -> str:
    code = frame.f_code
    if code.co_name == "<module>":
        return "\nin an async function, such as:\nasync def resource(request):"
    parameters = ", ".join(code.co_varnames[: code.co_argcount])
    return f"\nin an async function:\nasync def {code.co_name}({parameters}):"


def for_await(exc: BaseException) -> str:
    """Return the advice if something was awaited that is not a coroutine; else an empty text."""
    found = re.search(
        r"object (\w+) can't be used in 'await' expression|'(\w+)' object can't be awaited",
        str(exc),
    )
    if found is None:
        return ""
    kind = found[1] or found[2]
    value = "nothing (None)" if kind == "NoneType" else f"a value ({kind})"
    return f"This function is not async: it returns {value} at once. Remove the `await`."


def for_runtime_error(exc: BaseException) -> str:
    """Return the advice about a RuntimeError of asyncio's or trio's; empty if there is none."""
    text = str(exc)
    if "no running event loop" in text or "no current event loop" in text:
        return for_asyncio(exc)
    return next((advice for message, advice in _RUNTIME_ERRORS if message in text), "")


def for_asyncio(exc: BaseException) -> str:
    """Return what to write with trio in place of the asyncio function that failed."""
    used = next((name for name in _asyncio_names(exc) if name in _TRIO), None)
    sentence = "This needs asyncio, but rpyserve runs on trio: `import trio`."
    if used is None:
        return f"{sentence} Look for trio's counterpart."
    return f"{sentence} In place of {used}() write:\n{_TRIO[used]}"


def _asyncio_names(exc: BaseException) -> list[str]:
    """Names that may tell what of asyncio was used, the best first."""
    names: list[str] = []
    # The functions of asyncio that ran: of Queue.get, the class says more.
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if re.search(r"\basyncio\b", frame.f_code.co_filename):
            names += frame.f_code.co_qualname.split(".")
    # What the lines of source mention.
    for entry in traceback.extract_tb(exc.__traceback__):
        names += re.findall(r"\basyncio\.(\w+)", entry.line or "")
    return names
