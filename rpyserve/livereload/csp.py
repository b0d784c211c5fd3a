"""Content Security Policies of pages: does one block a script of this server, or its stream?

Only what allows it in plain words counts as allowing: ``'self'``, ``*``, the scheme, or the
server's own address (Content Security Policy Level 3, sections 2.3 and 6.8). All else counts as
blocking.
"""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Final

__all__ = ["blocking_directive", "policies_in"]

# The directives that decide on a script, and on a stream; the first one present counts.
_NEEDED: Final = (
    ("script-src-elem", "script-src", "default-src"),
    ("connect-src", "default-src"),
)
_NEEDED_IN_SANDBOX: Final = frozenset({"allow-scripts", "allow-same-origin"})


def blocking_directive(policies: Iterable[str], scheme: str, authority: str) -> str:
    """Return the directive that blocks a script of this server, or its stream; empty if none does.

    Args:
        policies: values of ``Content-Security-Policy``, each perhaps several policies joined by
            commas.
        scheme: that of the page, ``"http"`` or ``"https"``.
        authority: the page's host, with its port if that is not the usual one.
    """
    allowed = {"'self'", "*", f"{scheme}:", authority.lower(), f"{scheme}://{authority.lower()}"}
    for policy in ",".join(policies).split(","):
        directives = _directives(policy)
        sandbox = directives.get("sandbox")
        if sandbox is not None and not _NEEDED_IN_SANDBOX.issubset(sandbox):
            return "sandbox"
        for names in _NEEDED:
            blocking = _blocking(directives, names, allowed)
            if blocking:
                return blocking
    return ""


def _blocking(directives: dict[str, list[str]], names: tuple[str, ...], allowed: set[str]) -> str:
    """The first directive of *names* that is present, if it blocks."""
    for name in names:
        if name in directives:
            sources = directives[name]
            blocks = allowed.isdisjoint(sources) or "'strict-dynamic'" in sources
            return " ".join([name, *sources]) if blocks else ""
    return ""


def policies_in(text: str) -> list[str]:
    """Return the policies in an HTML document's own ``<meta http-equiv>`` elements."""
    if "content-security-policy" not in text.lower():
        return []
    parser = _MetaParser()
    parser.feed(text)
    return parser.policies


class _MetaParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.policies: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "meta" and (fields.get("http-equiv") or "").lower() == "content-security-policy":
            self.policies.append(fields.get("content") or "")


def _directives(policy: str) -> dict[str, list[str]]:
    """The directives of *policy*; of two that have the same name, the first counts."""
    found: dict[str, list[str]] = {}
    for part in policy.lower().split(";"):
        words = part.split()
        if words:
            found.setdefault(words[0], words[1:])
    return found
