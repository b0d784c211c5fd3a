"""Who may ask, and who may see what went wrong.

A page on the internet can make a visitor's browser send requests here under a name of its own (DNS rebinding).
Such a request always carries that name as its ``Host``, so an unknown *name* is refused before anything else
looks at the request; an IP address is never refused, because rebinding needs a name. `trusted_hosts`
wraps a responder; it must be the outermost wrapper. `TrustedClients` is a capability for the site: it goes by the address
of the peer, never by what a request says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rpyserve.http.request import Request

if TYPE_CHECKING:
    pass

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from rpyserve.http.browser import is_foreign

__all__ = ["TrustedClients", "host_without_port", "is_known", "is_loopback", "machine_names"]

Network = IPv4Network | IPv6Network

_PASSED_ON: Final = re.compile(
    rb"forwarded|x-forwarded.*|x-(?:real|client|cluster-client|original)-.*|true-client-ip|cf-connecting-ip"
    rb"|fastly-client-ip|cdn-loop|via"
)
"""Header fields, in small letters, that proxies and tunnels add, and browsers never send."""
_NAME: Final = re.compile(r"[a-z0-9._-]+")
_IN_BRACKETS: Final = re.compile(r"\[[0-9a-f:.]+\]")


def host_without_port(authority: str) -> str:
    """Return the host in *authority*: small letters, without port and last dot."""
    head, _, port = authority.strip().rpartition(":")
    return normalize_host(head if head and (port.isdecimal() or not port) else authority)


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
    name = normalize_host(socket.gethostname())
    first = name.partition(".")[0]
    return frozenset({name, first, f"{first}.local"}) if first else frozenset()


def is_loopback(host: str) -> bool:
    """Whether *host*, an address or ``localhost``, can be reached from this machine only."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


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


def normalize_host(name: str) -> str:
    return name.strip().lower().removesuffix(".")
