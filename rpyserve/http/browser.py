"""What a request says of the browser that sends it: a page load, another origin, a probe.

A browser sends ``Origin`` and ``Sec-Fetch-Site`` itself, so a page cannot forge them. Other clients
can send anything: these functions protect the users of browsers, and nothing else.
"""

from __future__ import annotations

from typing import Final

from rpyserve.http.headers import HeaderFields
from rpyserve.http.request import Request

# The header by which the script in a page asks for that page again.
#
# No page of another origin may send it.
FOLLOWING: Final = b"rpyserve-follow"

_PROBES: Final = ("/favicon.ico", "/apple-touch-icon", "/.well-known/appspecific/")
_PAGE_DESTINATIONS: Final = (b"document", b"iframe", b"frame")
_FROM_OWN_PAGES: Final = (None, b"same-origin", b"none")


def is_cross_origin(
    request: Request, *, allow_links: bool = False, allow_tls_proxy: bool = False
) -> bool:
    """Whether a page of another origin makes the browser send *request*.

    ``Origin`` must be the scheme and the authority of the request (RFC 6454, section 7). A request
    without ``Origin`` is judged by ``Sec-Fetch-Site``; one with neither is no page's, or one that a
    page of this origin made.

    Args:
        allow_links: do not count a link that somebody follows in a tab: no page can read what
            comes.
        allow_tls_proxy: also accept the same authority with ``https``, in case a proxy in front
            speaks TLS.
    """
    fields = request.raw_headers.values
    origin = fields.get(b"origin")
    if origin is not None:
        claimed = origin.decode("latin-1").lower()
        if not _is_own_origin(request, claimed, allow_tls_proxy):
            return True
    if fields.get(b"sec-fetch-site") in _FROM_OWN_PAGES:
        return False
    return not (allow_links and _is_followed_link(request))


def _is_own_origin(request: Request, origin: str, allow_tls_proxy: bool) -> bool:
    scheme, _, authority = origin.partition("://")
    if request.authority is None or authority != request.authority.lower():
        return False
    return scheme == request.scheme or (allow_tls_proxy and scheme == "https")


def _is_followed_link(request: Request) -> bool:
    return (
        request.getHeader("sec-fetch-mode") == "navigate"
        and request.getHeader("sec-fetch-dest") == "document"
    )


def browser_of(address: str, headers: HeaderFields) -> tuple[str, bytes | None]:
    """Return what tells browsers apart, roughly: an address, and what the browser calls itself."""
    return address, headers.values.get(b"user-agent")


def is_navigation(request: Request) -> bool:
    """Whether a browser loads a page by *request*, into a tab or a frame.

    A page load that a service worker passes on has no destination, but still its mode, which no
    script can give to a request of its own (Fetch Metadata Request Headers, section 2); Firefox
    makes that "same-origin". Browsers send no such headers over plain HTTP to another machine. What
    they send instead is good enough there, and for Firefox.
    """
    if request.method not in ("GET", "POST"):
        return False
    fields = request.raw_headers.values
    destination, mode = fields.get(b"sec-fetch-dest"), fields.get(b"sec-fetch-mode")
    if destination in _PAGE_DESTINATIONS:
        return True
    if destination == b"empty" and mode == b"navigate":
        return True
    if destination in (None, b"empty") and FOLLOWING in fields:
        return True
    is_unclear = destination is None or (destination, mode) == (b"empty", b"same-origin")
    if not is_unclear or fields.get(b"upgrade-insecure-requests") != b"1":
        return False
    return accepts_html(request)


def accepts_html(request: Request) -> bool:
    """Whether the client asks for HTML by name (a browser does; curl and API clients do not)."""
    return "text/html" in request.raw_headers.text(b"accept")


def is_browser_probe(target: str) -> bool:
    """Whether browsers ask for *target* by themselves: nobody need hear that it is missing."""
    return target.startswith(_PROBES)
