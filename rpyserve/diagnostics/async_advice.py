"""What to say about `await`: forgotten, one too many, or asyncio's, where rpyserve runs on trio.

A coroutine that was called for and not awaited shows up in three ways: as a value of no use in an exception (here), as
the result of a method (`results`), or nowhere at all (`unawaited`).
"""

from __future__ import annotations

import inspect
import re
import traceback
from types import CoroutineType, FrameType
from typing import Any, Final

from rpyserve.util.author_code import is_author_code

__all__ = ["for_asyncio", "for_await", "for_coroutine", "for_runtime_error", "innermost"]

_NURSERY: Final = "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)"
_TRIO: Final = {
    "sleep": "await trio.sleep(1)",
    **dict.fromkeys(("gather", "create_task", "ensure_future", "TaskGroup", "wait"), _NURSERY),
    "wait_for": "with trio.fail_after(5):\n    await f()",
    "timeout": "with trio.fail_after(5):\n    await f()",
    "to_thread": "await trio.to_thread.run_sync(f)",
    "run_in_executor": "await trio.to_thread.run_sync(f)",
    "Queue": "send, receive = trio.open_memory_channel(10)",
    "Event": "trio.Event()", "Lock": "trio.Lock()", "Semaphore": "trio.Semaphore(1)", "Future": "trio.Event()",
    "open_connection": "stream = await trio.open_tcp_stream(host, port)",
    "create_subprocess_exec": "await trio.run_process([...], capture_stdout=True)",
    "create_subprocess_shell": "await trio.run_process(command, shell=True, capture_stdout=True)",
    "shield": "with trio.CancelScope(shield=True):",
}  # fmt: skip


def innermost(exc: BaseException) -> tuple[FrameType | None, str]:
    """Return the innermost frame of the author's code that *exc* passed, and the line that it was at."""
    found = None
    for frame, number in traceback.walk_tb(exc.__traceback__):
        if is_author_code(frame.f_code.co_filename):
            found = frame, number
    if found is None:
        return None, ""
    from rpyserve.diagnostics.describe import source_of

    frame, number = found
    lines = source_of(frame.f_code, frame.f_globals) or ()
    return frame, lines[number - 1].strip() if 0 < number <= len(lines) else ""


def for_coroutine(exc: BaseException) -> str:
    """Return the hint for an exception that says ``coroutine`` where a value was expected; else an empty text."""
    if not re.search(r"\bcoroutine\b", str(exc)):
        return ""
    frame, line = innermost(exc)
    if frame is None:
        return ""
    also = "" if frame.f_code.co_flags & inspect.CO_COROUTINE else _in_async(frame)
    for name, value in frame.f_locals.items():
        if type(value) is CoroutineType and re.search(rf"\b{re.escape(name)}\b", line):
            call = value.__qualname__.rpartition(".")[2]
            return f"{name} is a coroutine, because its call lacks `await`. Write:\n{name} = await {call}(...){also}"
    for name in re.findall(r"(?<!await )(?<![\w.])(\w+)\(", line):
        if inspect.iscoroutinefunction(frame.f_locals.get(name, frame.f_globals.get(name))):
            return f"{name} is async, so its call needs `await`. Write:\nawait {name}(...){also}"
    return f"The call of an async function lacks its `await`. Write:\nvalue = await f(...){also}"


def _in_async(frame: FrameType) -> str:
    code = frame.f_code
    if code.co_name == "<module>":
        return "\nin an async function, such as:\nasync def resource(request):"
    return f"\nin an async function:\nasync def {code.co_name}({', '.join(code.co_varnames[: code.co_argcount])}):"


def for_await(exc: BaseException) -> str:
    """Return the hint for an `await` before what is no async call; else an empty text."""
    found = re.search(r"object (\w+) can't be used in 'await' expression", str(exc))
    found = found or re.search(r"'(\w+)' object can't be awaited", str(exc))
    if not found:
        return ""
    what = "nothing (None)" if found[1] == "NoneType" else f"a value ({found[1]})"
    return f"What follows `await` is a plain call, and gives {what} at once. Leave out `await`."


def for_runtime_error(exc: BaseException) -> str:
    """Return the hint for a RuntimeError of asyncio's or trio's; empty if none is known."""
    text = str(exc)
    if "no running event loop" in text or "no current event loop" in text:
        return for_asyncio(exc)
    if "Attempted to call run() from inside a run()" in text:
        return (
            "The server has trio running already. Write `async def`, and await the function in it."
        )
    if "must be called from async context" in text:
        return (
            "Top-level code cannot wait. Do it in the method:\nasync def render_GET(self, request):"
        )
    if "cannot reuse already awaited coroutine" in text:
        return (
            "A coroutine can be awaited once. Call the function anew for each time:\nawait f(...)"
        )
    return ""


def for_asyncio(exc: BaseException) -> str:
    """Return what to write with trio in place of the function of asyncio's that failed."""
    frames: list[Any] = traceback.extract_tb(exc.__traceback__)
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)]
    inside = [code.co_qualname for code in codes if re.search(r"\basyncio\b", code.co_filename)]
    called = [
        name for qualified in inside for name in qualified.split(".")
    ]  # Queue.get: the class says more
    written = [
        found[1] for frame in frames if (found := re.search(r"\basyncio\.(\w+)", frame.line or ""))
    ]
    used = next((name for name in called + written if name in _TRIO), None)
    instead = "Look for trio's function of that kind."
    if used is not None:
        instead = f"In place of {used}() write:\n{_TRIO[used]}"
    return f"This is asyncio's, and rpyserve runs on trio: `import trio`. {instead}"
