"""What an object is, and what it keeps, found out without asking it: nothing of its class's code is run.

For `localvalues`, which writes it down.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from rpyserve.failures import is_authors
from rpyserve.scripts.execution import ExecutionName

__all__ = ["attributes", "described", "is_harmless", "is_of_author"]

_HARMLESS: Final = frozenset(
    {
        *[("datetime", name) for name in ("date", "time", "datetime", "timedelta", "timezone")],
        *[("pathlib", f"{kind}{name}") for name in ("Path",) for kind in ("", "Pure", "Posix", "Windows", "PurePosix")],
        ("pathlib._local", "PosixPath"), ("pathlib._local", "WindowsPath"), ("pathlib", "PureWindowsPath"),
        ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"), ("zoneinfo", "ZoneInfo"),
        ("builtins", "range"), ("builtins", "slice"), ("re", "Pattern"), ("builtins", "memoryview"),
    }
)  # fmt: skip


def is_harmless(kind: type) -> bool:
    """Whether the ``repr`` of *kind* is Python's own, short, and always ends."""
    return (kind.__module__, kind.__name__) in _HARMLESS


def described(value: Any, kind: type) -> str | None:
    """Return the words for a class, function, module, coroutine or generator; None for all else."""
    if issubclass(kind, type):
        return f"<class {value.__name__}>"
    if issubclass(kind, (FunctionType, BuiltinFunctionType, MethodType)):
        return f"<function {value.__qualname__}>"
    if issubclass(kind, CoroutineType):
        return f"<coroutine of {value.__qualname__}>"
    if issubclass(kind, (GeneratorType, AsyncGeneratorType)):
        return f"<generator {value.__qualname__}>"
    if issubclass(kind, ModuleType):
        return f"<module {value.__name__}>"
    return None


def is_of_author(kind: type) -> bool:
    """Whether *kind* is defined in a script, a module of the site, or the author's own program."""
    module = kind.__module__
    if isinstance(module, ExecutionName) or module == "__main__":
        return True
    return is_authors(getattr(sys.modules.get(module), "__file__", None) or "<unknown>")


def attributes(value: object, kind: type) -> Iterable[tuple[str, Any]]:
    """Yield the names and values that *value* keeps, in slots and in its ``__dict__``."""
    for base in reversed(kind.__mro__):
        for name, member in list(vars(base).items()):
            if isinstance(member, MemberDescriptorType):
                try:
                    yield name, member.__get__(value, kind)
                except AttributeError:
                    continue
    try:
        kept = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return
    yield from list(dict.items(kept)) if isinstance(kept, dict) else ()
