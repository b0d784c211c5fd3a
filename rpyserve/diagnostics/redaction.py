"""Hides what must not be on a screen: passwords and the like, and the credentials of this request.

A secret is known in two ways: by the name of what holds it (a variable, an attribute, a key, a
query field), and by its text, if it is a cookie, the session id or an ``Authorization`` of the
request that failed. It is better to hide too much: a hidden value costs its author a look, a
visible one may be in a screenshot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rpyserve.http.request import Request

# What is shown in place of a secret.
MASK: Final = "•••"

# Characters from which a text counts as secret: ``dark`` of ``theme=dark`` may be any word.
SHORTEST: Final = 8

# How many characters of a name are looked at.
_LONGEST_NAME: Final = 100

_ANYWHERE: Final = (
    r"pass_?w(?:or)?d|pass_?phrase|secret|token(?!iz)|api_?key|authori[sz]ation|cookie|credential|"
    r"(?:private|access|signing|encryption|session)_?key|session_?u?id"
)
_WHOLE_WORDS: Final = r"pwd|pass|pw|pin|otp|auth|sid|uid|jwt|csrf|xsrf|bearer"
_SECRET_NAME: Final = re.compile(rf"{_ANYWHERE}|(?:^|_)(?:{_WHOLE_WORDS})(?:_|$)")
_ASSIGNMENT: Final = re.compile(
    rf"(?i)((?<![A-Za-z0-9])[\w.-]*(?:{_ANYWHERE}|\b(?:{_WHOLE_WORDS}))\w*"
    r"['\"]?\s?[=:]\s?['\"]?(?:bearer |basic )?)[^\s&;,'\"<>]+"
)
_CAMEL_CASE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_CREDENTIAL_HEADERS: Final = (b"authorization", b"cookie", b"proxy-authorization")


def is_secret(name: object) -> bool:
    """Whether the value that a variable, attribute, key or field of this *name* holds is secret."""
    if isinstance(name, bytes):
        name = name[:_LONGEST_NAME].decode("latin-1")
    if not isinstance(name, str):
        return False
    snake_case = _CAMEL_CASE.sub("_", str(name[:_LONGEST_NAME])).lower()
    return _SECRET_NAME.search(snake_case.replace("-", "_").replace(" ", "_")) is not None


class Redactor:
    """Hides given texts wherever they occur.

    Args:
        secrets: the texts; those shorter than `SHORTEST` are ignored.

    Attributes:
        longest: the length of the longest of them.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = {text for text in secrets if len(text) >= SHORTEST}
        self._secrets = sorted(found, key=len, reverse=True)
        self.longest = max(map(len, found), default=0)

    def redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def redact_value(self, text: str) -> str:
        """Return *text* without the secrets, and without what follows ``password=`` and alike."""
        return _ASSIGNMENT.sub(rf"\1{MASK}", self.redact(text))


# Hides what is secret by its name only.
NO_SECRETS: Final = Redactor()


def secrets_of(request: Request) -> Redactor:
    """Return what hides the credentials that *request* came with, and the id of its session."""
    found = list(request.cookies.values())
    for name in _CREDENTIAL_HEADERS:
        value = request.raw_headers.text(name)
        found += [value, value.partition(" ")[2]]
    if request._session is not None:
        found.append(str(request._session.uid))
    return Redactor(found)
