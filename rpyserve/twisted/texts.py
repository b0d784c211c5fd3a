"""Texts of Python 2 days: what was one type then is `str` and `bytes` now.

Scripts of those days compare, join and format what the request gives them with plain literals, and
return such literals. So what comes out of a request is a `Text`, and where Twisted takes bytes only
it takes `str` as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

_equal, _unequal = bytes.__eq__, bytes.__ne__  # a request is asked often what its method is


class Text(bytes):
    """Bytes that equal, join and format like the `str` of the same characters (UTF-8)."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return _equal(self, other if other.__class__ is bytes else encoded(other))

    def __ne__(self, other: object) -> bool:
        return _unequal(self, other if other.__class__ is bytes else encoded(other))

    # That of a text of ASCII characters is the same, so either finds the other in a dict.
    __hash__ = bytes.__hash__

    def __str__(self) -> str:
        return self.decode("utf-8", "replace")

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __add__(self, other: Any) -> Any:
        return str(self) + other if isinstance(other, str) else Text(bytes.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return other + str(self) if isinstance(other, str) else Text(other + bytes(self))

    def __contains__(self, part: Any) -> bool:
        return bytes.__contains__(self, encoded(part))

    def __getitem__(self, key: Any) -> Any:
        return as_text(bytes.__getitem__(self, key))


def encoded(value: Any) -> Any:
    """Return a `str` as bytes, and anything else as it is."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def as_text(value: Any) -> Any:
    """Return bytes as a `Text`, and anything else as it is."""
    return Text(value) if isinstance(value, bytes) else value


def segments_of(names: list[str]) -> list[Text]:
    """Return segments of a path as Twisted has them."""
    return [Text(encoded(name)) for name in names]


def _taking_str(name: str) -> Callable[..., Any]:
    method = getattr(bytes, name)

    @wraps(method)
    def call(self: Text, *args: Any) -> Any:
        return _as_texts(method(self, *map(_encoded_all, args)))

    return call


def _encoded_all(value: Any) -> Any:
    return tuple(map(encoded, value)) if isinstance(value, tuple) else encoded(value)


def _as_texts(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        return type(result)(map(Text, result))
    return as_text(result)


_METHODS: Final = (
    "capitalize", "center", "count", "endswith", "expandtabs", "find", "index", "ljust", "lower",
    "lstrip", "partition", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip",
    "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
)  # fmt: skip

for _name in _METHODS:
    setattr(Text, _name, _taking_str(_name))


def adopt(util: Any) -> None:
    """Have ``twisted.web.util``, which is *util*, redirect to a `str`."""
    genuine = util.redirectTo

    @wraps(genuine)
    def redirectTo(URL: Any, request: Any) -> Any:
        return genuine(encoded(URL), request)

    util.redirectTo = redirectTo
