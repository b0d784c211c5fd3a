"""What must not be read on a screen: values under names such as ``password``, and what this very visitor sent as proof.

Two ways to know a secret: by the name that it stands under (of a variable, an attribute, a key, a field of a query),
and by being a cookie, a session's id or an ``Authorization`` of the request that failed, wherever it turns up.
Better one too many: a masked value costs its author a look, a shown one may be in a screenshot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rpyserve.http.request import Request

__all__ = ["MASK", "Redactor", "is_secret", "secrets_of"]

MASK: Final = "•••"
SHORTEST: Final = 8
"""Characters. A cookie ``theme=dark`` is no secret, and its value may be any word of the page."""

_ANYWHERE: Final = (
    r"pass_?w(?:or)?d|pass_?phrase|secret|token(?!iz)|api_?key|authori[sz]ation|cookie|credential|"
    r"(?:private|access|signing|encryption|session)_?key|session_?u?id"
)
_WHOLE_WORDS: Final = r"pwd|pass|pw|pin|otp|auth|sid|uid|jwt|csrf|xsrf|bearer"
_SECRET: Final = re.compile(rf"{_ANYWHERE}|(?:^|_)(?:{_WHOLE_WORDS})(?:_|$)")
_WITHIN: Final = re.compile(
    rf"(?i)((?<![A-Za-z0-9])[\w.-]*(?:{_ANYWHERE}|\b(?:{_WHOLE_WORDS}))\w*"
    r"['\"]?\s?[=:]\s?['\"]?(?:bearer |basic )?)[^\s&;,'\"<>]+"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_secret(name: object) -> bool:
    """Whether what stands under *name*, a text or bytes, is nobody's business."""
    if isinstance(name, bytes):
        name = name[:100].decode("latin-1")
    if not isinstance(name, str):
        return False
    plain = _HUMP.sub("_", str(name[:100])).lower().replace("-", "_").replace(" ", "_")
    return _SECRET.search(plain) is not None


class Redactor:
    """Hides given texts wherever they turn up.

    Args:
        secrets: the texts; those under 8 characters are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted(
            {text for text in secrets if len(text) >= SHORTEST}, key=len, reverse=True
        )
        self.longest = len(self._secrets[0]) if self._secrets else 0

    def redact(self, text: str) -> str:
        """Return *text* without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def redact_value(self, text: str) -> str:
        """Return the text of a variable's value without the secrets, and without what ``password=`` precedes."""
        return _WITHIN.sub(rf"\1{MASK}", self.redact(text))


def secrets_of(request: Request) -> Redactor:
    """Return what hides the proofs that *request* came with, and its session's id."""
    found = list(request.cookies.values())
    for name in ("authorization", "cookie", "proxy-authorization"):
        value = request.getHeader(name) or ""
        found += [value, value.partition(" ")[2]]
    if request.session is not None:
        found.append(str(request.session.uid))
    return Redactor(found)
