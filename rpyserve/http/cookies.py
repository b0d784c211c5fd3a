"""Cookies as text: the ``Cookie`` and ``Set-Cookie`` fields (RFC 6265).

Strict in what is sent, so that no value can end a cookie early and add attributes of its own;
lenient in what comes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

AttributeValue = str | bytes | int | bool | None

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r'[!#-+\--:<-\[\]-~]*|"[!#-+\--:<-\[\]-~]*"')
_ATTRIBUTE: Final = re.compile(r"[ -:<-~]*")


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies in a ``Cookie`` field, by name (section 5.4).

    Of two with one name the first counts.
    """
    found: dict[str, str] = {}
    for name, value in cookie_pairs(header):
        found.setdefault(name, value)
    return found


def cookie_pairs(header: str) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each cookie in a ``Cookie`` field.

    Two may have one name: a browser keeps one for each path and domain.
    """
    for pair in header.split(";"):
        # Other blanks belong to names and values: they are bytes of UTF-8, read as Latin-1.
        name, equals, value = pair.strip(" \t").partition("=")
        if equals:
            is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
            yield name, value[1:-1] if is_quoted else value


def format_set_cookie(
    name: str | bytes, value: str | bytes, attributes: Mapping[str, AttributeValue] = {}
) -> str:
    """Return the value of a ``Set-Cookie`` field (section 4.1).

    Args:
        name: the cookie's name.
        value: the cookie's value.
        attributes: its attributes in their order: True for one without a value, None for one to
            leave out.

    Raises:
        ValueError: a part has a character that it cannot have.
    """
    name_text, value_text = _as_text(name), _as_text(value)
    if not _NAME.fullmatch(name_text):
        raise ValueError(f"{name_text!r} is not a name for a cookie: use letters, digits, - and _")
    if not _VALUE.fullmatch(value_text):
        raise ValueError(
            f"the cookie {name_text!r} cannot hold {value_text!r:.60}: "
            "use urllib.parse.quote(value), and unquote when you read it"
        )
    parts = [f"{name_text}={value_text}"]
    for attribute, given in attributes.items():
        if given is None:
            continue
        text = _as_text(given)
        if not _ATTRIBUTE.fullmatch(text):
            raise ValueError(f"the cookie {name_text!r} cannot have {attribute} {text!r:.60}")
        parts.append(attribute if given is True else f"{attribute}={text}")
    return "; ".join(parts)


def _as_text(value: AttributeValue) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
