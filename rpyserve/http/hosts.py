"""Which host names are this server's, and which clients may see what went wrong.

A page on the internet can make a visitor's browser send requests here under a name of its own (DNS
rebinding). Such a request always carries that name as its ``Host``. Therefore only known names are
accepted; an IP address always is, because rebinding needs a name.

`TrustedClients` goes by the address of the client, and never by what a request claims about itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from rpyserve.http.browser import is_cross_origin
from rpyserve.http.request import Request

Network = IPv4Network | IPv6Network

# Names of header fields, each on a line, that proxies and tunnels add, and browsers never send.
_PROXY_HEADER: Final = re.compile(
    rb"^(?:forwarded|x-forwarded.*|x-(?:real|client|cluster-client|original)-.*|true-client-ip"
    rb"|cf-connecting-ip|fastly-client-ip|cdn-loop|via)$",
    re.M,
)

_HOST_NAME: Final = re.compile(r"[a-z0-9._-]+")
_IP_LITERAL: Final = re.compile(r"\[[0-9a-f:.]+\]")


def host_without_port(authority: str) -> str:
    """Return the host in *authority* in lower case, without port and final dot."""
    host, _, port = authority.strip().rpartition(":")
    has_port = bool(host) and (port.isdecimal() or not port)
    return normalize_host(host if has_port else authority)


def normalize_host(host: str) -> str:
    """Return *host* in lower case, without a final dot."""
    return host.strip().lower().removesuffix(".")


def is_known(host: str, names: frozenset[str] = frozenset()) -> bool:
    """Whether *host* is an IP address, localhost, or one of *names*.

    An address counts only as browsers write it. They turn other spellings (``127.1``, ``0x7f.1``,
    ``2130706433``) into that before they send a request, so such a spelling comes from no browser,
    and is a name.

    Args:
        host: as `host_without_port` returns it.
        names: further hosts; one that begins with a dot stands for all hosts below it.
    """
    if host == "localhost" or host in names:
        return True
    if not _HOST_NAME.fullmatch(host):
        return bool(_IP_LITERAL.fullmatch(host)) and parse_address(host[1:-1]) is not None
    domains = [name for name in names if name.startswith(".")]
    if host.endswith((".localhost", *domains)):
        return True
    return parse_address(host) is not None


def machine_names() -> frozenset[str]:
    """Return this machine's names on the network: ``NAME``, ``NAME.domain``, ``NAME.local``."""
    name = normalize_host(socket.gethostname())
    first = name.partition(".")[0]
    return frozenset({name, first, f"{first}.local"}) if first else frozenset()


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether *host*, an address or ``localhost``, can be reached from this machine only."""
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


class TrustedClients:
    """Says of a request whether its client may see details of errors.

    These are clients on this machine and in trusted networks.

    A request that a proxy passed on is not from this machine, unless the proxy is in one of
    *networks*. What a proxy says of its clients (``--behind-proxy``) makes nobody trusted, and a
    request that a page of another origin makes is never trusted, because that page might read the
    answer.

    Args:
        networks: whose clients are trusted besides this machine's, such as the host of a container.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks = tuple(networks)

    def __call__(self, request: Request) -> bool:
        client = None if request._proxy is not None else parse_address(request.client[0])
        if client is None or is_cross_origin(request, allow_links=True):
            return False
        if any(client in network for network in self.networks):
            return True
        if _PROXY_HEADER.search(b"\n".join(request.raw_headers.values)):
            return False
        if client.is_loopback:
            return not _is_for_another_address(request)
        # A client with the server's own address is on the same machine.
        return client == parse_address(request.server[0])


def _is_for_another_address(request: Request) -> bool:
    """Whether *request*, from this machine, is for an address that cannot have led to it from here.

    A tunnel such as ``ssh -R`` brings what others ask for at the address of its other end.
    """
    address = parse_address(host_without_port(request.authority or "").strip("[]"))
    return address is not None and not (address.is_loopback or address.is_unspecified)


@lru_cache(maxsize=256)
def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return *text* as an address, or None.

    An IPv4 address in IPv6 form, as dual-stack sockets give it, becomes one of IPv4.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
