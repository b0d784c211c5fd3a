"""Who may ask, and who may see what went wrong.

A page on the internet can make a visitor's browser send requests here under a name of its own (DNS rebinding).
Such a request always carries that name as its ``Host``, so an unknown *name* is refused before anything else
looks at the request; an IP address is never refused, because rebinding needs a name. `trusted_hosts`
wraps a responder; it must be the outermost wrapper. `TrustedClients` is a capability for the site: it goes by the address
of the peer, never by what a request says of itself.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.http.types import Responder

__all__ = [
    "TrustedClients",
    "authority_of",
    "host_without_port",
    "is_foreign",
    "is_known",
    "is_loopback",
    "machine_names",
    "trusted_hosts",
]

Network = IPv4Network | IPv6Network

_PASSED_ON: Final = re.compile(
    rb"forwarded|x-forwarded.*|x-(?:real|client|cluster-client|original)-.*|true-client-ip|cf-connecting-ip"
    rb"|fastly-client-ip|cdn-loop|via"
)
"""Header fields, in small letters, that proxies and tunnels add, and browsers never send."""
_NAME: Final = re.compile(r"[a-z0-9._-]+")
_IN_BRACKETS: Final = re.compile(r"\[[0-9a-f:.]+\]")
_AUTHORITY_ENDS: Final = re.compile(r"[/?#\\]")


def trusted_hosts(respond: Responder, names: Iterable[str]) -> Responder:
    """Wrap *respond* so that a request for a host that is not ours gets a 403 that names ``--allowed-host``.

    Args:
        respond: who answers the other requests.
        names: host names that are ours, besides every IP address, ``localhost`` and ``*.localhost``. One that begins
            with a dot or ``*.`` stands for all names below it.
    """
    known = frozenset(_plain(name).removeprefix("*") for name in names)

    @functools.lru_cache(maxsize=256)
    def passes(authority: str) -> bool:
        return is_known(host_without_port(authority), known)

    async def guarded(request: Request) -> Response:
        authority = authority_of(request)
        if not authority or passes(authority):
            return await respond(request)
        return _refusal(request, host_without_port(authority))

    return guarded


def authority_of(request: Request) -> str | None:
    """Return the host that *request* is for, as it was sent; None if it names none (HTTP/1.0).

    The target's own authority goes before the ``Host`` field (RFC 9112, section 3.2.2).
    """
    if request.uri.startswith("/") or "://" not in request.uri:
        return request.getHeader("host")
    return _AUTHORITY_ENDS.split(request.uri.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]


def host_without_port(authority: str) -> str:
    """Return the host in *authority*: small letters, without port and last dot."""
    head, _, port = authority.strip().rpartition(":")
    return _plain(head if head and (port.isdecimal() or not port) else authority)


def is_known(host: str, names: frozenset[str] = frozenset()) -> bool:
    """Whether *host*, in small letters, without port and last dot, is an address, localhost, or one of *names*.

    An address counts as browsers send it. They turn other spellings (``127.1``, ``0x7f.1``, ``2130706433``) into that
    before they ask, so one that arrives here is no browser's, and is a name.
    """
    if host == "localhost" or host in names:
        return True
    if not _NAME.fullmatch(host):
        return bool(_IN_BRACKETS.fullmatch(host)) and _address(host[1:-1]) is not None
    if host.endswith((".localhost", *(name for name in names if name.startswith(".")))):
        return True
    return _address(host) is not None


def machine_names() -> frozenset[str]:
    """The names by which others on the network know this machine: ``NAME``, ``NAME.domain``, ``NAME.local``."""
    name = _plain(socket.gethostname())
    first = name.partition(".")[0]
    return frozenset({name, first, f"{first}.local"}) if first else frozenset()


def is_loopback(host: str) -> bool:
    """Whether *host*, an address or ``localhost``, can be reached from this machine only."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


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


class TrustedClients:
    """Says of a request whether its client may see details of errors: those on this machine, and trusted networks.

    Args:
        networks: whose clients are trusted besides this machine's, such as the host of a container.

    A request that was passed on by a proxy is not from this machine, unless the proxy is in one of *networks*. One that
    a page of another origin makes is never trusted: its script might read the answer.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks = tuple(networks)

    def __call__(self, request: Request) -> bool:
        peer = _address(request.client[0])
        if peer is None or is_foreign(request):
            return False
        if any(peer in network for network in self.networks):
            return True
        if any(_PASSED_ON.fullmatch(name) for name, _ in request.raw_headers):
            return False
        return peer.is_loopback or peer == _address(
            request.server[0]
        )  # to one's own address, from one's own machine


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """*text* as an address; one of IPv4 that is written as IPv6 (a socket for both gives it) as what it is."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _refusal(request: Request, host: str) -> Response:
    from rpyserve.resources import pages

    host = host if len(host) <= 253 else host[:253] + "…"
    detail = (
        f"This server does not know the name {host!r}. If the name is yours, "
        f"start the server with: --allowed-host {host}"
    )
    return pages.error_page(request, HTTPError(403, detail), trusted=False)
