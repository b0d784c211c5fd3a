"""Executes script texts as the server does, without files.

The namespace's ``__name__`` knows its execution.
"""

from __future__ import annotations

from pathlib import Path
from types import CodeType
from typing import Any

from rpyserve.scripts.execution import Execution
from tests.support import tutorial


def execute(
    source: str | CodeType, *, path: str = "counter.rpy", may_cache: bool = True, **names: Any
) -> dict[str, Any]:
    """Return the namespace that *source* leaves behind.

    It holds its execution, as ``execution``.
    """
    text = source.encode() if isinstance(source, str) else b""
    execution = Execution(f"rpyserve_script_{path}", Path(path), may_cache=may_cache, source=text)

    def cache() -> None:
        execution.cached = True

    namespace = {"__name__": execution.name, "execution": execution, "cache": cache, **names}
    code = compile(source, path, "exec", dont_inherit=True) if isinstance(source, str) else source
    exec(code, namespace)
    execution.finish(namespace)
    return namespace


COUNTER = f"""
from zope.interface import Attribute, Interface, implementer
from rpyserve.sessions.adapters import registerAdapter
from rpyserve.sessions.session import Session

{tutorial.COUNTER}

def visit(session):
    counter = ICounter(session)
    counter.value += 1
    return counter.value
"""
