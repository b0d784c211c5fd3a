"""What a request says of the browser that sends it: a page load, a page of another origin, a probe."""

from __future__ import annotations

from typing import Final

from rpyserve.http.request import Request, authority_of

__all__ = ["FOLLOWING", "accepts_html", "is_browser_probe", "is_foreign", "is_navigation"]

FOLLOWING: Final = b"rpyserve-follow"
"""The request header by which the script in the page asks for that page again. No other origin may send it."""

_PROBES: Final = ("/favicon.ico", "/apple-touch-icon", "/.well-known/appspecific/")


def is_foreign(request: Request) -> bool:
    """Whether a page of another origin makes *request* (Fetch Metadata; RFC 6454, section 7).

    A link that somebody follows in a tab of its own is none: no page can read what comes.
    """
    origin = request.getHeader("origin")
    if (
        origin is not None
        and origin.lower() != f"{request.scheme}://{authority_of(request)}".lower()
    ):
        return True
    if request.getHeader("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    followed = request.getHeader("sec-fetch-mode"), request.getHeader("sec-fetch-dest")
    return followed != ("navigate", "document")


def is_navigation(request: Request) -> bool:
    """Whether a browser loads a page of its own by *request* (Fetch Metadata Request Headers, section 2.1).

    Browsers send no such header over plain HTTP to another machine; what they send instead is good enough there.
    """
    if request.method not in ("GET", "POST"):
        return False
    fields = request.raw_headers.values
    purpose = fields.get(b"sec-fetch-dest")
    if purpose == b"document":
        return True
    if purpose in (None, b"empty") and FOLLOWING in fields:
        return True
    if purpose is not None or fields.get(b"upgrade-insecure-requests") != b"1":
        return False

    return accepts_html(request)


def accepts_html(request: Request) -> bool:
    """Whether the client asks for HTML by name (a browser does; curl and API clients do not)."""
    return "text/html" in (request.getHeader("accept") or "")


def is_browser_probe(target: str) -> bool:
    """Whether a browser asks for *target* by itself, so that a site's author need not hear that it is missing."""
    return target.startswith(_PROBES)
