"""Cookies as text: what ``Cookie`` brought, and what ``Set-Cookie`` says (RFC 6265). Pure.

Strict in what is sent, so that no value can end a cookie early and add attributes of its own; lenient in what comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["format_set_cookie", "parse_cookies"]

Text = str | bytes | int | bool | None

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r'[!#-+\--:<-\[\]-~]*|"[!#-+\--:<-\[\]-~]*"')
_ATTRIBUTE: Final = re.compile(r"[ -:<-~]*")


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies in a ``Cookie`` header, by name; of two with one name the first counts (section 5.4)."""
    found: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals:
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            found.setdefault(name, value[1:-1] if quoted else value)
    return found


def format_set_cookie(
    name: str | bytes, value: str | bytes, attributes: Mapping[str, Text] = {}
) -> str:
    """Return a ``Set-Cookie`` value (section 4.1).

    Args:
        name, value: the cookie.
        attributes: its attributes in their order: True for one without a value, None for one to leave out.

    Raises:
        ValueError: a part has a character that it cannot have.
    """
    plain_name, plain_value = _text(name), _text(value)
    if not _NAME.fullmatch(plain_name):
        raise ValueError(f"{plain_name!r} is no name for a cookie: use letters, digits, - and _")
    if not _VALUE.fullmatch(plain_value):
        raise ValueError(
            f"the cookie {plain_name!r} cannot hold {plain_value!r:.60}: use urllib.parse.quote(value), and unquote "
            "when you read it"
        )
    parts = [f"{plain_name}={plain_value}"]
    for attribute, said in attributes.items():
        if said is None:
            continue
        text = _text(said)
        if not _ATTRIBUTE.fullmatch(text):
            raise ValueError(f"the cookie {plain_name!r} cannot have {attribute} {text!r:.60}")
        parts.append(attribute if said is True else f"{attribute}={text}")
    return "; ".join(parts)


def _text(value: Text) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
