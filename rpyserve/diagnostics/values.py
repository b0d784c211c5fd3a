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
from collections.abc import Iterable, Iterator, Mapping
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
from rpyserve.diagnostics.redaction import MASK, NO_SECRETS, Redactor, is_secret
from rpyserve.http.request import Request
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.components import Components
from rpyserve.sessions.session import Registry
from rpyserve.util.author_code import is_author_code

# How many characters of a value are written.
LONGEST: Final = 400

# How many characters of a text in it.
MAX_TEXT: Final = 160

# How deep containers and objects within each other are written.
MAX_DEPTH: Final = 4

# How many items of a container, or attributes of an object.
MAX_ITEMS: Final = 12

# How many variables of a frame.
MAX_VARIABLES: Final = 30

# What is defined or imported, or put into every script, is no variable.
_DEFINITIONS: Final = (
    type, FunctionType, BuiltinFunctionType, ModuleType, InterfaceClass, Registry
)  # fmt: skip

# How functions and the like are written.
_CODE: Final[dict[Any, str]] = {
    type: "<class {0.__name__}>",
    (FunctionType, BuiltinFunctionType, MethodType): "<function {0.__qualname__}>",
    CoroutineType: "<coroutine of {0.__qualname__}>",
    (GeneratorType, AsyncGeneratorType): "<generator {0.__qualname__}>",
    ModuleType: "<module {0.__name__}>",
}

# What stands around the items of a container.
_BRACKETS: Final[dict[Any, tuple[str, str]]] = {
    tuple: ("(", ")"),
    list: ("[", "]"),
    deque: ("deque([", "])"),
    set: ("set({", "})"),
    frozenset: ("frozenset({", "})"),
}

# Classes whose own ``repr`` is short and always ends: package and name, so none is imported.
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


_PLAIN_BASES: Final = (str, bytes, bytearray, int, type(None))


def variables(namespace: Mapping[str, Any], redactor: Redactor) -> tuple[Variable, ...]:
    """Return the variables of a frame with their values, in their order.

    Functions, classes and imports are left out.
    """
    found: list[Variable] = []
    # A metaclass may give the body of its class a dict of its own making.
    for name, value in dict(namespace).items():
        if name.startswith("__") or issubclass(type(value), _DEFINITIONS):
            continue
        if len(found) == MAX_VARIABLES:
            found.append(Variable("…", "and more"))
            break
        found.append(Variable(name[:80], safe_repr(value, name, redactor)))
    return tuple(found)


def safe_repr(value: object, name: str = "", redactor: Redactor = NO_SECRETS) -> str:
    """Return *value* as a text of at most `LONGEST` characters, much like Python would write it.

    Args:
        name: the name of the variable; if it is secret, the value is masked.
        redactor: hides texts that are secret under any name.
    """
    parts: list[str] = []
    room = LONGEST
    try:
        for part in _Writer(redactor).write_named(name, value, 0):
            parts.append(part[:room])
            room -= len(part)
            if room < 0:
                parts.append("…")
                break
    except Exception as exc:  # an odd object must not cost the page
        parts.append(f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>")
    return "".join(parts)


class _Writer:
    """Writes one value, piece by piece."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._enclosing: list[int] = []

    def write_named(self, name: object, value: Any, depth: int) -> Iterator[str]:
        if is_secret(name) and value is not None:
            yield MASK
        else:
            yield from self.write(value, depth)

    def write(self, value: Any, depth: int) -> Iterator[str]:
        plain = self._plain(value, type(value))
        if plain is not None:
            yield plain
        elif depth >= MAX_DEPTH or id(value) in self._enclosing:
            yield "…"
        else:
            self._enclosing.append(id(value))
            yield from self._nested(value, type(value), depth + 1)
            self._enclosing.pop()

    # Values without items

    def _plain(self, value: Any, kind: type) -> str | None:
        if _has_safe_repr(kind):
            return repr(value)
        if issubclass(kind, enum.Enum):
            return f"{kind.__name__}.{value._name_}"
        for base in (str, bytes, bytearray):
            if issubclass(kind, base):
                return self._text(value, base)
        if issubclass(kind, int):
            bits = int.bit_length(value)
            return int.__repr__(value) if bits <= 1000 else f"<an int of {bits} bits>"
        for kinds, template in _CODE.items():
            if issubclass(kind, kinds):
                return self._redactor.redact_value(template.format(value))
        return None

    def _text(self, value: Any, base: Any) -> str:
        size = base.__len__(value)
        # A secret must be found even if only its beginning is shown.
        part = base.__getitem__(value, slice(0, MAX_TEXT + self._redactor.longest))
        text = str.__str__(part) if base is str else part.decode("latin-1")
        text = self._redactor.redact_value(text)
        more = "…" if size > MAX_TEXT else ""
        if base is str:
            return repr(text[:MAX_TEXT]) + more
        return repr(text.replace(MASK, "***")[:MAX_TEXT].encode("latin-1")) + more

    # Values with items. All of these get the depth of the items.

    def _nested(self, value: Any, kind: type, depth: int) -> Iterator[str]:
        if hasattr(kind, "_fields") or not issubclass(kind, (*_BRACKETS, dict, BaseException)):
            yield from self._object(value, kind, depth)
        elif issubclass(kind, dict):
            yield from self._dict(value, depth)
        elif issubclass(kind, BaseException):
            yield kind.__name__
            yield from self._items(value.args, depth)
        else:
            yield from self._items(value, depth)

    def _items(self, value: Any, depth: int) -> Iterator[str]:
        base = next(each for each in _BRACKETS if issubclass(type(value), each))
        opening, closing = _BRACKETS[base]
        count = base.__len__(value)
        yield opening
        items = list(islice(base.__iter__(value), MAX_ITEMS))
        if base is tuple and count == 2 and is_secret(items[0]):  # a header or a field
            yield from self.write(items[0], depth)
            yield f", {MASK}"
        else:
            separator = ""
            for item in items:
                yield separator
                yield from self.write(item, depth)
                separator = ", "
        yield _more(count)
        yield f",{closing}" if base is tuple and count == 1 else closing

    def _dict(self, value: Any, depth: int) -> Iterator[str]:
        yield "{"
        separator = ""
        for key, item in list(islice(dict.items(value), MAX_ITEMS)):
            yield separator
            yield from self.write(key, depth)
            yield ": "
            yield from self.write_named(key, item, depth)
            separator = ", "
        yield _more(dict.__len__(value))
        yield "}"

    def _object(self, value: Any, kind: type, depth: int) -> Iterator[str]:
        name = kind.__name__
        pairs: Iterable[tuple[str, Any]] = ()
        if issubclass(kind, tuple):
            fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
            pairs = zip(fields, tuple.__iter__(value), strict=False)
        elif _package(kind) == "rpyserve":
            name, pairs = self._object_of_rpyserve(value, kind)
        elif _is_author_class(kind):
            pairs = attributes(value)
        else:
            name = f"{_public_module(kind)}.{kind.__qualname__}"
        yield f"<{name}"
        for number, (key, item) in enumerate(pairs):
            if number == MAX_ITEMS:
                yield " …"
                break
            yield f" {key}="
            yield from self.write_named(key, item, depth)
        yield ">"

    def _object_of_rpyserve(self, value: Any, kind: type) -> tuple[str, Iterable[tuple[str, Any]]]:
        """What a script's author cares for, and never a cookie or the id of a session."""
        if issubclass(kind, Request):
            line = self._redactor.redact_value(f"{value.method} {value.path}"[:MAX_TEXT])
            # Unless the query has been parsed, nobody has looked at it.
            pairs = [("args", value.args)] if "args" in value.__dict__ else []
            return f"Request {line}", pairs
        if issubclass(kind, Components):
            return kind.__name__, [(key, value[key]) for key in islice(value, MAX_ITEMS + 1)]
        return kind.__name__, ()


def _more(count: int) -> str:
    return f", … {count - MAX_ITEMS} more" if count > MAX_ITEMS else ""


# What an object is and what it holds, found without calling any code of its class


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _public_module(kind: type) -> str:
    """Where *kind* is imported from: ``io``, if Python defines it in ``_io`` or ``io._local``."""
    public = kind.__module__.partition("._")[0].removeprefix("_")
    known = public in sys.stdlib_module_names
    is_there = known and getattr(sys.modules.get(public), kind.__name__, None) is kind
    return public if is_there else kind.__module__


def _has_safe_repr(kind: type) -> bool:
    return f"{_package(kind)}.{kind.__qualname__}" in _SAFE_REPR and not _is_author_class(kind)


def is_plain(kind: type) -> bool:
    """Return whether values of *kind* have no items that could be shown one by one."""
    return issubclass(kind, _PLAIN_BASES) or (type(kind) is type and _has_safe_repr(kind))


def _is_author_class(kind: type) -> bool:
    return is_author_module(kind.__module__)


def is_author_module(module: str) -> bool:
    """Return whether what has this ``__module__`` is the author's."""
    if isinstance(module, ExecutionName) or module == "__main__":
        return True
    return is_author_code(getattr(sys.modules.get(module), "__file__", None) or "<unknown>")


def attributes(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the names and values that *value* holds, in slots and in its ``__dict__``."""
    kind = type(value)
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
