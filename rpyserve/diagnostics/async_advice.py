"""Advice about `await`: forgotten, or asyncio's, where rpyserve runs on trio.

A coroutine that was not awaited shows up in three ways: in an exception, where a value was expected
(here), as the result of a method (`resources.rendering`), or not at all (`serving.unawaited`).
"""

from __future__ import annotations

import re
import traceback
from types import CoroutineType
from typing import Final

from rpyserve.scripts.source import innermost_author_line

_TRIO_LINES: Final = (
    ("sleep", "await trio.sleep(1)"),
    (
        "gather create_task ensure_future TaskGroup wait",
        "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    ),
    ("wait_for timeout", "with trio.fail_after(5):\n    await f()"),
    ("to_thread", "await trio.to_thread.run_sync(f)"),
    ("Queue", "send, receive = trio.open_memory_channel(10)"),
    ("Event", "trio.Event()"),
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
# What trio has in place of a name of asyncio's.
_TRIO: Final = {name: line for names, line in _TRIO_LINES for name in names.split()}


def for_coroutine(exc: BaseException) -> str:
    """Return the advice if *exc* says that a value is a ``coroutine``; else an empty text."""
    if not re.search(r"\bcoroutine\b", str(exc)):
        return ""
    frame, line = innermost_author_line(exc)
    for name, value in getattr(frame, "f_locals", {}).items():
        if type(value) is CoroutineType and re.search(rf"\b{re.escape(name)}\b", line):
            call = value.__qualname__.rpartition(".")[2]
            sentence = f"{name} is a coroutine, because its call lacks `await`."
            return f"{sentence} Write:\n{name} = await {call}(...)"
    return "The call of an async function lacks `await`. Write:\nvalue = await f(...)"


def for_asyncio(exc: BaseException) -> str:
    """Return what to write with trio in place of the asyncio function that failed."""
    sentence = "This needs asyncio, but rpyserve runs on trio: `import trio`."
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if re.search(r"\basyncio\b", frame.f_code.co_filename) is None:
            continue
        # Of Queue.get, the class says more.
        for name in frame.f_code.co_qualname.split("."):
            if name in _TRIO:
                return f"{sentence} In place of {name}() write:\n{_TRIO[name]}"
    return f"{sentence} Look for trio's counterpart."
