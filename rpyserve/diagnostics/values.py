"""The values of variables as short texts, safe to make and safe to show.

Nothing of the author's is called, because a ``__repr__`` may fail, wait or never end: builtin values and a few of
Python's own are written here or by their own ``repr``, all else is shown by its class and attributes. Depth, items and
characters are bounded before anything is written, so a value costs the same whatever its size. Secrets are masked by
name at every level; see `masks`.

What an object is, and what it keeps, found out without asking it: nothing of its class's code is run.

For `localvalues`, which writes it down.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
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

from rpyserve.diagnostics.model import Variable
from rpyserve.diagnostics.redaction import MASK, Redactor, is_secret
from rpyserve.scripts.execution import ExecutionName
from rpyserve.util.author_code import is_author_code

__all__ = ["attributes", "described", "is_harmless", "is_of_author", "safe_repr", "variables"]


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
    return is_author_code(getattr(sys.modules.get(module), "__file__", None) or "<unknown>")


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


LONGEST: Final = 400
"""Characters of one value."""
TEXT: Final = 160
"""Characters of one text in it."""
DEPTH: Final = 4
ITEMS: Final = 12
"""Of a list, a dict, or attributes."""
MOST: Final = 30
"""Variables of a frame."""

_PLUMBING: Final = frozenset({"cache", "registry", "input"})


def variables(names: Mapping[str, Any], veil: Redactor, *, top_level: bool) -> tuple[Variable, ...]:
    """Return the variables of a frame with their values, in their order.

    Args:
        top_level: whether they are those of a whole file: then its functions, classes and imports are left out.
    """
    found: list[Variable] = []
    # A class's body may have a dict of the author's making.
    for name, value in list(dict.items(names) if isinstance(names, dict) else names.items()):
        if name.startswith("__") or (top_level and _is_furniture(name, value)):
            continue
        if len(found) == MOST:
            found.append(Variable("…", "and more"))
            break
        found.append(Variable(name[:80], safe_repr(value, name, veil)))
    return tuple(found)


def _is_furniture(name: str, value: object) -> bool:
    kinds = (type, FunctionType, BuiltinFunctionType, ModuleType)
    return (
        name in _PLUMBING
        or issubclass(type(value), kinds)
        or type(value).__name__ == "InterfaceClass"
    )


def safe_repr(value: object, name: str = "", veil: Redactor | None = None) -> str:
    """Return *value* as text of at most 400 characters, written much like Python would.

    Args:
        name: what it stands under; a secret name masks it.
        veil: hides texts that are secret under any name.
    """
    if is_secret(name) and value is not None:
        return MASK
    writer = _Writer(veil or Redactor())
    try:
        writer.value(value, 0)
    except _Full:
        writer.parts.append("…")
    except Exception as exc:  # whatever odd thing it is, the page must come
        writer.parts.append(
            f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>"
        )
    return "".join(writer.parts)


class _Full(Exception):
    """There are enough characters."""


class _Writer:
    def __init__(self, veil: Redactor) -> None:
        self.parts: list[str] = []
        self._veil = veil
        self._left = LONGEST
        self._within: list[int] = []

    def put(self, text: str) -> None:
        self.parts.append(text[: self._left])
        self._left -= len(text)
        if self._left < 0:
            raise _Full

    def value(self, value: Any, depth: int) -> None:
        kind = type(value)
        if (
            value is None
            or kind in (bool, float, complex)
            or value is ...
            or value is NotImplemented
        ):
            self.put(repr(value))
        elif issubclass(kind, enum.Enum):
            self.put(
                f"{kind.__name__}.{getattr(value, '_name_', None) or getattr(value, '_value_', '')}"
            )
        elif issubclass(kind, (str, bytes, bytearray)):
            self._text(value, kind)
        elif issubclass(kind, int):
            bits = int.bit_length(value)
            self.put(int.__repr__(value) if bits <= 1000 else f"<an int of {bits} bits>")
        elif (written := self._container(kind)) is not None:
            self._nested(value, depth, lambda: written(value, depth))
        else:
            self._other(value, kind, depth)

    def _text(self, value: Any, kind: type) -> None:
        base: Any = next(each for each in (str, bytes, bytearray) if issubclass(kind, each))
        whole = base.__len__(value)
        part = base.__getitem__(value, slice(0, TEXT + self._veil.longest))
        if base is str:
            text = self._veil.redact_value(str.__str__(part))
            self.put(repr(text[:TEXT]) + ("…" if len(text) > TEXT or whole > len(part) else ""))
            return
        text = self._veil.redact_value(part.decode("latin-1"))
        cut = "…" if len(text) > TEXT or whole > len(part) else ""
        self.put(text.replace(MASK, "***")[:TEXT].encode("latin-1").__repr__() + cut)

    # Containers

    def _container(self, kind: type) -> Callable[[Any, int], None] | None:
        if issubclass(kind, tuple):
            return self._named_tuple if hasattr(kind, "_fields") else self._tuple
        for base, write in (
            (list, self._list), (dict, self._dict), (set, self._set), (frozenset, self._set), (deque, self._list),
        ):  # fmt: skip
            if issubclass(kind, base):
                return write
        return None

    def _nested(self, value: object, depth: int, write: Callable[[], None]) -> None:
        if depth >= DEPTH or id(value) in self._within:
            self.put("…")
            return
        self._within.append(id(value))
        write()
        self._within.pop()

    def _items(self, items: Iterable[Any], count: int, depth: int) -> None:
        for number, item in enumerate(items):
            self.put(", " if number else "")
            self.value(item, depth + 1)
        self._and_more(count, ITEMS)

    def _and_more(self, count: int, written: int) -> None:
        if count > written:
            self.put(f", … {count - written} more")

    def _list(self, value: Any, depth: int) -> None:
        base = list if issubclass(type(value), list) else deque
        self.put("[" if base is list else "deque([")
        self._items(islice(base.__iter__(value), ITEMS), base.__len__(value), depth)
        self.put("]" if base is list else "])")

    def _tuple(self, value: Any, depth: int) -> None:
        count = tuple.__len__(value)
        if count == 2 and is_secret(tuple.__getitem__(value, 0)):  # a header or a field
            self.put("(")
            self.value(tuple.__getitem__(value, 0), depth + 1)
            self.put(f", {MASK})")
            return
        self.put("(")
        self._items(islice(tuple.__iter__(value), ITEMS), count, depth)
        self.put(",)" if count == 1 else ")")

    def _set(self, value: Any, depth: int) -> None:
        base = set if issubclass(type(value), set) else frozenset
        items = list(islice(base.__iter__(value), ITEMS))
        self.put(
            ("{" if base is set else "frozenset({")
            if items
            else "set("
            if base is set
            else "frozenset("
        )
        self._items(items, base.__len__(value), depth)
        self.put(("}" if base is set else "})") if items else ")")

    def _dict(self, value: Any, depth: int) -> None:
        self.put("{")
        for number, (key, item) in enumerate(list(islice(dict.items(value), ITEMS))):
            self.put(", " if number else "")
            self.value(key, depth + 1)
            self.put(": ")
            self._under(key, item, depth)
        self._and_more(dict.__len__(value), ITEMS)
        self.put("}")

    def _under(self, name: object, item: Any, depth: int) -> None:
        if is_secret(name) and item is not None:
            self.put(MASK)
        else:
            self.value(item, depth + 1)

    def _pairs(
        self, name: str, pairs: Iterable[tuple[str, Any]], depth: int, ends: str = "<>"
    ) -> None:
        pairs = list(islice(pairs, ITEMS + 1))
        self.put(f"<{name}" if ends == "<>" else f"{name}(")
        for number, (key, item) in enumerate(pairs[:ITEMS]):
            self.put(
                ("," if number and ends != "<>" else "")
                + (" " if number or ends == "<>" else "")
                + f"{key}="
            )
            self._under(key, item, depth)
        self.put(" …" if len(pairs) > ITEMS else "")
        self.put(ends[1])

    def _named_tuple(self, value: Any, depth: int) -> None:
        self._pairs(
            type(value).__name__,
            zip(type(value)._fields, tuple.__iter__(value), strict=False),
            depth,
            "()",
        )

    # All else

    def _other(self, value: Any, kind: type, depth: int) -> None:
        if is_harmless(kind):
            self.put(repr(value))
        elif (words := described(value, kind)) is not None:
            self.put(self._veil.redact_value(words))
        elif issubclass(kind, BaseException):
            self._nested(value, depth, lambda: self._exception(value, kind, depth))
        elif kind.__module__.partition(".")[0] == "rpyserve":
            self._nested(value, depth, lambda: self._ours(value, kind, depth))
        elif is_of_author(kind):
            self._nested(
                value, depth, lambda: self._pairs(kind.__name__, attributes(value, kind), depth)
            )
        else:
            self.put(f"<{kind.__module__}.{kind.__qualname__}>")

    def _exception(self, value: Any, kind: type, depth: int) -> None:
        self.put(kind.__name__)
        self._tuple(value.args, depth)

    def _ours(self, value: Any, kind: type, depth: int) -> None:
        """Objects of rpyserve's: what a script's author cares for, and never a cookie or a whole id."""
        if kind.__module__ == "rpyserve.http.request":
            pairs = {"args": value.args} if "args" in value.__dict__ else {}
            self._pairs(
                f"Request {self._veil.redact_value(f'{value.method} {value.path}'[:TEXT])}",
                pairs.items(),
                depth,
            )
        elif hasattr(kind, "getComponent"):
            self._pairs(
                kind.__name__, [(key, value[key]) for key in islice(value, ITEMS + 1)], depth
            )
        else:
            self.put(f"<{kind.__name__}>")
