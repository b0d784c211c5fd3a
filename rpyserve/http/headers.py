"""Header fields, as they are read and before they are sent; the usual words of a status.

Values and pure functions. Which fields a message has is the business of those who make or read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class HeaderFields(tuple[tuple[bytes, bytes], ...]):
    """The header fields of a request in their order, with names in lower case.

    Attributes:
        values: the value of each name. The values of a repeated field are joined by commas (RFC
            9110, section 5.3). Cookies, whose values may contain commas, are joined by semicolons
            (RFC 9113, section 8.2.3).
    """

    values: dict[bytes, bytes]

    def __new__(cls, fields: Iterable[tuple[bytes, bytes]] = ()) -> HeaderFields:
        self = super().__new__(cls, fields)
        self.values = dict(self)
        if len(self.values) != len(self):
            self.values = _joined(self)
        return self

    def text(self, name: bytes) -> str:
        """Return the value of *name*, in lower case, as text; empty if there is none."""
        return self.values.get(name, b"").decode("latin-1")

    @property
    def host(self) -> str | None:
        """The value of ``Host`` as text; None if there is none."""
        value = self.values.get(b"host")
        return None if value is None else value.decode("latin-1")


def _joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        separator = b"; " if name == b"cookie" else b", "
        found[name] = found[name] + separator + value if name in found else value
    return found


def encode_header(name: str | bytes, value: str | bytes | int) -> tuple[bytes, bytes]:
    """Return one header field as bytes.

    Raises:
        ValueError: the name is no token, or the value has a line break or another control character
            in it, or a character outside Latin-1 (RFC 9110, sections 5.1 and 5.5).
    """
    raw_name = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not _NAME.fullmatch(raw_name):
        raise ValueError(f"{name!r} is not a header name")
    raw_value = _encode_value(name, value).strip(b" \t")
    if not _VALUE.fullmatch(raw_value):
        raise ValueError(
            f"the value of {name!r} has a line break or control character in it: {value!r}"
        )
    return raw_name, raw_value


def _encode_value(name: str | bytes, value: str | bytes | int) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    if not isinstance(value, str):
        return value
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"the value of {name!r} has a character that a header cannot hold: {value!r}; "
            "use urllib.parse.quote"
        ) from None


def reason_phrase(status: int) -> str:
    """Return the usual words beside a status code; empty for a code that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
