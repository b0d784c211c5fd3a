"""The values of variables as short texts, safe to make and safe to show.

No code of the author's is called, because a ``__repr__`` may fail, wait or never end: built-in
values are written here or by their own ``repr``, all other objects as their class and attributes.
Methods of built-in types are called on the type for the same reason: `dict.items(value)`, where
*value* may be a subclass that overrides ``items``.

Depth, items and characters are bounded before anything is written, so the size of a value does not
matter. Secrets are masked by their names at every level; see `redaction`.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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

from zope.interface.interface import InterfaceClass

from rpyserve.diagnostics.model import Variable
from rpyserve.diagnostics.redaction import MASK, Redactor, is_secret
from rpyserve.http.request import Request
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.components import Components
from rpyserve.util.author_code import is_author_code

__all__ = ["safe_repr", "variables"]

LONGEST: Final = 400
"""How many characters of a value are written."""

MAX_TEXT: Final = 160
"""How many characters of a text in it."""

MAX_DEPTH: Final = 4
"""How deep containers and objects within each other are written."""

MAX_ITEMS: Final = 12
"""How many items of a container, or attributes of an object."""

MAX_VARIABLES: Final = 30
"""How many variables of a frame."""

_GIVEN_NAMES: Final = frozenset({"cache", "registry", "input"})
"""Names that rpyserve puts into every script."""

_DEFINITIONS: Final = (type, FunctionType, BuiltinFunctionType, ModuleType, InterfaceClass)

_CODE: Final[tuple[tuple[Any, str], ...]] = (
    (type, "<class {0.__name__}>"),
    ((FunctionType, BuiltinFunctionType, MethodType), "<function {0.__qualname__}>"),
    (CoroutineType, "<coroutine of {0.__qualname__}>"),
    ((GeneratorType, AsyncGeneratorType), "<generator {0.__qualname__}>"),
    (ModuleType, "<module {0.__name__}>"),
)
"""How functions and the like are written."""

_SAFE_REPR: Final = frozenset(
    {
        "builtins.bool", "builtins.complex", "builtins.ellipsis", "builtins.float",
        "builtins.memoryview", "builtins.NoneType", "builtins.NotImplementedType",
        "builtins.range", "builtins.slice",
        "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta",
        "datetime.timezone", "zoneinfo.ZoneInfo",
        "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath",
        "pathlib.PureWindowsPath",
        "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "re.Pattern",
    }
)  # fmt: skip
"""Classes whose own ``repr`` is short and always ends: package and name, so none is imported."""


def variables(
    namespace: Mapping[str, Any], redactor: Redactor, *, top_level: bool
) -> tuple[Variable, ...]:
    """Return the variables of a frame with their values, in their order.

    Args:
        top_level: whether it is top-level code: then functions, classes and imports are left out.
    """
    found: list[Variable] = []
    # A metaclass may give the body of its class a dict of its own making.
    items = dict.items(namespace) if isinstance(namespace, dict) else namespace.items()
    for name, value in list(items):
        if name.startswith("__") or (top_level and _is_definition(name, value)):
            continue
        if len(found) == MAX_VARIABLES:
            found.append(Variable("…", "and more"))
            break
        found.append(Variable(name[:80], safe_repr(value, name, redactor)))
    return tuple(found)


def _is_definition(name: str, value: object) -> bool:
    return name in _GIVEN_NAMES or issubclass(type(value), _DEFINITIONS)


def safe_repr(value: object, name: str = "", redactor: Redactor | None = None) -> str:
    """Return *value* as a text of at most `LONGEST` characters, much like Python would write it.

    Args:
        name: the name of the variable; if it is secret, the value is masked.
        redactor: hides texts that are secret under any name.
    """
    if is_secret(name) and value is not None:
        return MASK
    writer = _Writer(redactor or Redactor())
    try:
        writer.write(value, 0)
    except _FullError:
        writer.parts.append("…")
    except Exception as exc:  # an odd object must not cost the page
        name = type(value).__name__
        writer.parts.append(f"<{name}, which cannot be shown: {type(exc).__name__}>")
    return "".join(writer.parts)


class _FullError(Exception):
    """The text has its full length."""


class _Writer:
    """Writes one value.

    Attributes:
        parts: the text so far.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.parts: list[str] = []
        self._redactor = redactor
        self._remaining = LONGEST
        self._enclosing: list[int] = []

    def write(self, value: Any, depth: int) -> None:
        kind = type(value)
        if _has_safe_repr(kind):
            self._put(repr(value))
        elif issubclass(kind, enum.Enum):
            self._enum(value, kind)
        elif issubclass(kind, (str, bytes, bytearray)):
            self._text(value, kind)
        elif issubclass(kind, int):
            bits = int.bit_length(value)
            self._put(int.__repr__(value) if bits <= 1000 else f"<an int of {bits} bits>")
        elif (description := _describe_code(value, kind)) is not None:
            self._put(self._redactor.redact_value(description))
        elif (write := self._writer_for(kind)) is not None:
            self._nested(value, depth, write)
        else:
            self._put(f"<{_public_module(kind)}.{kind.__qualname__}>")

    def _writer_for(self, kind: type) -> Callable[[Any, int], None] | None:
        """The method that writes objects of *kind* with what they contain."""
        writers: tuple[tuple[type, Callable[[Any, int], None]], ...] = (
            (tuple, self._tuple),
            (list, self._list),
            (deque, self._list),
            (dict, self._dict),
            (set, self._set),
            (frozenset, self._set),
            (BaseException, self._exception),
        )
        for base, write in writers:
            if issubclass(kind, base):
                return write
        if _package(kind) == "rpyserve":
            return self._object_of_rpyserve
        return self._object if _is_author_class(kind) else None

    def _put(self, text: str) -> None:
        self.parts.append(text[: self._remaining])
        self._remaining -= len(text)
        if self._remaining < 0:
            raise _FullError

    # Values without items

    def _enum(self, value: Any, kind: type) -> None:
        member = getattr(value, "_name_", None) or getattr(value, "_value_", "")
        self._put(f"{kind.__name__}.{member}")

    def _text(self, value: Any, kind: type) -> None:
        base: Any = next(each for each in (str, bytes, bytearray) if issubclass(kind, each))
        size = base.__len__(value)
        # A secret must be found even if only its beginning is shown.
        part = base.__getitem__(value, slice(0, MAX_TEXT + self._redactor.longest))
        text = str.__str__(part) if base is str else part.decode("latin-1")
        text = self._redactor.redact_value(text)
        is_cut = len(text) > MAX_TEXT or size > len(part)
        if base is str:
            shown = repr(text[:MAX_TEXT])
        else:
            shown = repr(text.replace(MASK, "***")[:MAX_TEXT].encode("latin-1"))
        self._put(shown + ("…" if is_cut else ""))

    # Values with items

    def _nested(self, value: object, depth: int, write: Callable[[Any, int], None]) -> None:
        if depth >= MAX_DEPTH or id(value) in self._enclosing:
            self._put("…")
            return
        self._enclosing.append(id(value))
        write(value, depth)
        self._enclosing.pop()

    def _items(self, items: Iterable[Any], count: int, depth: int) -> None:
        for number, item in enumerate(islice(items, MAX_ITEMS)):
            self._put(", " if number else "")
            self.write(item, depth + 1)
        self._count_more(count)

    def _count_more(self, count: int) -> None:
        if count > MAX_ITEMS:
            self._put(f", … {count - MAX_ITEMS} more")

    def _list(self, value: Any, depth: int) -> None:
        is_list = issubclass(type(value), list)
        base: Any = list if is_list else deque
        self._put("[" if is_list else "deque([")
        self._items(base.__iter__(value), base.__len__(value), depth)
        self._put("]" if is_list else "])")

    def _tuple(self, value: Any, depth: int) -> None:
        if hasattr(type(value), "_fields"):
            self._named_tuple(value, depth)
            return
        count = tuple.__len__(value)
        self._put("(")
        if count == 2 and is_secret(tuple.__getitem__(value, 0)):  # a header or a field
            self.write(tuple.__getitem__(value, 0), depth + 1)
            self._put(f", {MASK}")
        else:
            self._items(tuple.__iter__(value), count, depth)
        self._put(",)" if count == 1 else ")")

    def _set(self, value: Any, depth: int) -> None:
        is_set = issubclass(type(value), set)
        base: Any = set if is_set else frozenset
        count = base.__len__(value)
        before, after = ("{", "}") if is_set else ("frozenset({", "})")
        self._put(before if count else f"{base.__name__}(")
        self._items(base.__iter__(value), count, depth)
        self._put(after if count else ")")

    def _dict(self, value: Any, depth: int) -> None:
        self._put("{")
        for number, (key, item) in enumerate(list(islice(dict.items(value), MAX_ITEMS))):
            self._put(", " if number else "")
            self.write(key, depth + 1)
            self._put(": ")
            self._named(key, item, depth)
        self._count_more(dict.__len__(value))
        self._put("}")

    def _named(self, name: object, value: Any, depth: int) -> None:
        if is_secret(name) and value is not None:
            self._put(MASK)
        else:
            self.write(value, depth + 1)

    def _named_tuple(self, value: Any, depth: int) -> None:
        kind: Any = type(value)
        pairs = zip(kind._fields, tuple.__iter__(value), strict=False)
        self._put(f"{kind.__name__}(")
        self._pairs(pairs, depth, first="", separator=", ")
        self._put(")")

    def _pairs(
        self, pairs: Iterable[tuple[str, Any]], depth: int, *, first: str, separator: str
    ) -> None:
        for number, (key, value) in enumerate(pairs):
            if number == MAX_ITEMS:
                self._put(" …")
                break
            self._put(f"{separator if number else first}{key}=")
            self._named(key, value, depth)

    # Objects

    def _exception(self, value: Any, depth: int) -> None:
        self._put(type(value).__name__)
        self._tuple(value.args, depth)

    def _object(self, value: Any, depth: int) -> None:
        kind = type(value)
        self._tagged(kind.__name__, _attributes(value, kind), depth)

    def _object_of_rpyserve(self, value: Any, depth: int) -> None:
        """What a script's author cares for, and never a cookie or the id of a session."""
        kind = type(value)
        pairs: Iterable[tuple[str, Any]] = ()
        name = kind.__name__
        if issubclass(kind, Request):
            line = self._redactor.redact_value(f"{value.method} {value.path}"[:MAX_TEXT])
            name = f"Request {line}"
            if "args" in value.__dict__:  # else nothing has parsed the query yet
                pairs = [("args", value.args)]
        elif issubclass(kind, Components):
            pairs = [(key, value[key]) for key in islice(value, MAX_ITEMS + 1)]
        self._tagged(name, pairs, depth)

    def _tagged(self, name: str, pairs: Iterable[tuple[str, Any]], depth: int) -> None:
        self._put(f"<{name}")
        self._pairs(pairs, depth, first=" ", separator=" ")
        self._put(">")


# What an object is and what it holds, found without calling any code of its class


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _public_module(kind: type) -> str:
    """Where *kind* is imported from: ``io``, if Python defines it in ``_io`` or ``io._local``."""
    public = kind.__module__.partition("._")[0].removeprefix("_")
    if public not in sys.stdlib_module_names or public not in sys.modules:
        return kind.__module__
    is_there = vars(sys.modules[public]).get(kind.__name__) is kind
    return public if is_there else kind.__module__


def _has_safe_repr(kind: type) -> bool:
    return f"{_package(kind)}.{kind.__qualname__}" in _SAFE_REPR and not _is_author_class(kind)


def _describe_code(value: Any, kind: type) -> str | None:
    """The words for a class, function, module, coroutine or generator; None for all else."""
    for kinds, template in _CODE:
        if issubclass(kind, kinds):
            return template.format(value)
    return None


def _is_author_class(kind: type) -> bool:
    module = kind.__module__
    if isinstance(module, ExecutionName) or module == "__main__":
        return True
    return is_author_code(getattr(sys.modules.get(module), "__file__", None) or "<unknown>")


def _attributes(value: object, kind: type) -> Iterator[tuple[str, Any]]:
    """The names and values that *value* holds, in slots and in its ``__dict__``."""
    for base in reversed(kind.__mro__):
        for name, member in list(vars(base).items()):
            if isinstance(member, MemberDescriptorType):
                try:
                    yield name, member.__get__(value, kind)
                except AttributeError:
                    continue
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return
    if isinstance(held, dict):
        yield from list(dict.items(held))
