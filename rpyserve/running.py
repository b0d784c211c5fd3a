"""Which execution runs just now, what `cache` tells it, and what the namespace of each one has.

Scripts and modules of the site are executions alike. The running one is kept in a context variable, because a render
method may import a module in a thread while the event loop executes a script.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from rpyserve import freshness
from rpyserve.executions import Execution

__all__ = ["ScriptExecution", "cache", "current", "executing", "furnish"]

_running: ContextVar[Execution | None] = ContextVar("running", default=None)


def current() -> Execution | None:
    """Return the execution whose top-level code runs just now; None in a render method, or outside a server."""
    return _running.get()


def cache(*names: str | os.PathLike[str]) -> None:
    """Have this script executed once, and again only after it, a module of the site, or one of *names* has changed.

    Without it a script is executed for every request. Call it in the script's own top-level code, best as its first
    line, before the files that it names are read.

    Args:
        names: files, and directories with all that is below them, relative to the site's directory.

    Raises:
        RuntimeError: no script's top-level code is running.
        TypeError: one of *names* is no name.

    "Twisted Web in 60 seconds": rpy scripts, session objects.
    """
    execution = current()
    if not isinstance(execution, ScriptExecution):
        raise RuntimeError(
            "cache() belongs into a script's top-level code: write it as the first line of the .rpy file"
        )
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise TypeError(
                f'cache() takes names of files, as in cache("words.txt"), not {name!r:.60}; to remember what a '
                "function returns, write `from functools import cache` and @cache"
            )
    execution.cached = True
    execution.inputs += [freshness.observe(os.path.join(execution.root, name)) for name in names]


class ScriptExecution(Execution):
    """An execution of a script, with the files that its ``cache()`` named."""

    __slots__ = ("inputs", "root")

    def __init__(self, name: str, path: Path, root: str, registry: Any, era: int = 0) -> None:
        super().__init__(name, path, may_cache=True, registry=registry, era=era)
        self.root = root
        self.inputs: list[freshness.State] = []


@contextmanager
def executing(execution: Execution) -> Iterator[None]:
    """While inside, *execution* is the running one. On a good end, call its `finish`."""
    token = _running.set(execution)
    try:
        yield
    finally:
        _running.reset(token)
        execution.running = False


def furnish(namespace: dict[str, Any], execution: Execution) -> None:
    """Put into *namespace* what every execution has. The namespace keeps its execution alive."""
    namespace["__name__"] = execution.name
    namespace["__execution__"] = execution
    namespace["input"] = _no_input


def _no_input(prompt: object = "", /) -> NoReturn:
    raise RuntimeError(
        "input() would wait at the server's console, where the visitor is not. Use a form: send "
        '<form method="post"><input name="answer"></form>, and read it with request.field("answer")'
    )
