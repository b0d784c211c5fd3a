"""Content Security Policies of pages: does one block a script of this server, or its stream?

Only ``'self'`` and ``*`` count as allowing; all else counts as blocking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from typing import Final

__all__ = ["blocking_directive", "policies_in"]

# The directives that decide; of each group the first one present counts.
_DECIDING: Final = (
    ("sandbox",),
    ("script-src-elem", "script-src", "default-src"),
    ("connect-src", "default-src"),
)
_ALLOWING: Final = frozenset({"'self'", "*"})
_META: Final = re.compile(r"<meta\s[^>]*content-security-policy[\"'\s/>][^>]*", re.IGNORECASE)
_CONTENT: Final = re.compile(r"""\bcontent\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)


def blocking_directive(policies: Iterable[str]) -> str:
    """Return the directive that blocks a script of this server, or its stream; empty if none does.

    Args:
        policies: values of ``Content-Security-Policy``, each perhaps several policies joined by
            commas.
    """
    for policy in ",".join(policies).split(","):
        directives = [part.split() for part in policy.lower().split(";") if part.strip()]
        by_name = {directive[0]: directive for directive in reversed(directives)}
        for names in _DECIDING:
            directive = next(filter(None, map(by_name.get, names)), None)
            if directive is not None and _blocks(directive):
                return " ".join(directive)
    return ""


def _blocks(directive: list[str]) -> bool:
    return _ALLOWING.isdisjoint(directive) or "'strict-dynamic'" in directive


def policies_in(text: str) -> list[str]:
    """Return the policies in an HTML document's own ``<meta http-equiv>`` elements."""
    contents = _CONTENT.findall(" ".join(_META.findall(text)))
    return [unescape(content[1:-1]) for content in contents]
