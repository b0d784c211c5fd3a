"""Content Security Policies of other pages: would one block a script of this server, or its connections back?

Pure decisions over texts (Content Security Policy Level 3, sections 2.3, 6.7 and 6.8). Whatever is not understood
counts as "would block".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape

__all__ = ["blocking_directive", "in_document"]

_SCRIPT = ("script-src-elem", "script-src", "default-src")
_CONNECT = ("connect-src", "default-src")
_PORTS = {"http": "80", "https": "443"}
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_META = re.compile(r"<meta\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.I)
_ATTRIBUTE = re.compile(r"([a-z-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))", re.I)
_HOST_SOURCE = re.compile(
    r"(?:([a-z][a-z0-9+.\-]*)://)?(\*|(?:\*\.)?[a-z0-9.\-]+|\[[0-9a-f:.]+\])(?::(\d+|\*))?/?"
)


def blocking_directive(policies: Iterable[str], scheme: str, authority: str) -> str:
    """Say which directive would block a script from this server, or its connections; empty if none would.

    Args:
        policies: values of ``Content-Security-Policy``, each perhaps several policies joined by commas.
        scheme: of the page, ``"http"`` or ``"https"``.
        authority: host, and port if it is not the usual one, of the page.
    """
    for policy in ",".join(policies).split(","):
        directives = _directives(policy)
        sandbox = directives.get("sandbox")
        if sandbox is not None and not {"allow-scripts", "allow-same-origin"} <= set(sandbox):
            return "sandbox"
        for names in (_SCRIPT, _CONNECT):
            name = next((name for name in names if name in directives), None)
            if name is not None and not _allows(
                directives[name], scheme, authority.lower(), script=names is _SCRIPT
            ):
                return " ".join([name, *directives[name]])
    return ""


def in_document(text: str) -> list[str]:
    """Return the policies that an HTML document's own ``<meta http-equiv>`` elements hold."""
    found = []
    for tag in _META.findall(_COMMENT.sub("", text)):
        fields = {name.lower(): unescape(a or b or c) for name, a, b, c in _ATTRIBUTE.findall(tag)}
        if fields.get("http-equiv", "").lower() == "content-security-policy":
            found.append(fields.get("content", ""))
    return found


def _directives(policy: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in policy.split(";"):
        words = part.split()
        if words:
            found.setdefault(words[0].lower(), [word.lower() for word in words[1:]])
    return found


def _allows(sources: list[str], scheme: str, authority: str, *, script: bool) -> bool:
    if script and "'strict-dynamic'" in sources:
        return False
    return any(_matches(source, scheme, authority) for source in sources)


def _matches(source: str, scheme: str, authority: str) -> bool:
    if source in ("'self'", "*", f"{scheme}:") or (source, scheme) == ("http:", "https"):
        return True
    parts = _HOST_SOURCE.fullmatch(source)
    if parts is None:
        return False
    wanted, name, number = parts.groups()
    host, port = _split(authority, scheme)
    if wanted not in (None, scheme) and (wanted, scheme) != ("http", "https"):
        return False
    if number not in ("*", port) and not (number is None and port == _PORTS.get(scheme)):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


def _split(authority: str, scheme: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon and port.isdecimal() else (authority, _PORTS.get(scheme, ""))
