"""How a site is to be served: settings, listening sockets, accepted host names.

The accepted host names depend on the addresses that are listened on: this machine's names count
only where the network can reach it. `trusted_hosts` must be the outermost wrapper, so that a
refused request reaches nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.hosts import host_without_port, is_known, machine_names, normalize_host
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response
from rpyserve.protocol.server_state import Limits
from rpyserve.serving import console
from rpyserve.serving.listeners import open_listeners
from rpyserve.site import Site

if TYPE_CHECKING:
    import ssl


class CannotListen(Exception):
    """The server cannot listen; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve a site.

    Args:
        host: the address or name to listen on.
        port: the port; 0 takes any free one.
        next_free: whether the next free port will do if *port* cannot be had.
        allowed_hosts: host names that requests may have besides localhost and IP addresses.
        limits: of what clients may send.
        title: what is served, for the banner.
        quiet: print only the URL, warnings and errors.
        verbose: print more.
        combined: whether the access log has the combined log format.
        reload: whether open pages are refreshed when a file is saved, where the site has a
            directory.
        tls: makes the context for https from the names and addresses of the server; None for http.
        script_timeout: seconds for which a script may hold the loop.
        poll: whether to poll for changes instead of using file system events.
        on_ready: called with the URL when the server listens.
        for_good: whether the process has nothing else to do: the signal handlers then stay to its
            end, and the garbage collector is tuned.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    next_free: bool = False
    allowed_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    title: str = "a site"
    quiet: bool = False
    verbose: bool = False
    combined: bool = False
    reload: bool = False
    script_timeout: float = math.inf
    poll: bool = False
    tls: Callable[[Iterable[str]], ssl.SSLContext] | None = None
    on_ready: Callable[[str], object] = lambda url: None
    for_good: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a site is served.

    Args:
        listeners: the listening sockets.
        served: the listeners to serve, which may be those sockets under TLS.
        names: the accepted host names.
        network: the addresses by which others on the network reach it.
    """

    listeners: list[trio.SocketListener]
    served: Sequence[trio.abc.Listener[Any]]
    names: frozenset[str]
    network: frozenset[str]


async def open_endpoint(site: Site, settings: Settings) -> Endpoint:
    """Open the listening sockets.

    Raises:
        OSError: the port cannot be had.
        CannotListen: there is no certificate.
    """
    listeners = await open_listeners(settings.host, settings.port, next_free=settings.next_free)
    names = {*settings.allowed_hosts, *getattr(site.root, "hosts", ())}
    bound = [bound_address(listener)[0] for listener in listeners]
    reachable = frozenset(chain.from_iterable(map(console.network_addresses, bound)))
    if reachable:
        names |= machine_names()
    if settings.tls is None:
        return Endpoint(listeners, listeners, frozenset(names), reachable)
    try:
        context = settings.tls(
            sorted({"localhost", "127.0.0.1", "::1", *bound, *reachable, *names})
        )
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    secure = [trio.SSLListener(listener, context) for listener in listeners]
    return Endpoint(listeners, secure, frozenset(names), reachable)


def bound_address(listener: trio.SocketListener) -> tuple[str, int]:
    host, port = listener.socket.getsockname()[:2]
    return host, port


def trusted_hosts(respond: Responder, names: Iterable[str]) -> Responder:
    """Wrap *respond* so that a request for a host that is not ours is refused.

    It gets a 403 that names ``--allowed-host``.

    Args:
        respond: who answers the other requests.
        names: host names that are ours, besides every IP address, ``localhost`` and
            ``*.localhost``. One that begins with a dot or ``*.`` stands for all names below it.
    """
    known = frozenset(normalize_host(name).removeprefix("*") for name in names)

    @functools.lru_cache(maxsize=256)
    def passes(authority: str) -> bool:
        return is_known(host_without_port(authority), known)

    async def guarded(request: Request) -> Response:
        authority = request.authority
        if not authority or passes(authority):
            return await respond(request)
        return _refusal(request, host_without_port(authority))

    return guarded


def _refusal(request: Request, host: str) -> Response:
    from rpyserve.resources import pages

    host = host if len(host) <= 253 else host[:253] + "…"
    detail = (
        f"This server does not know the name {host!r}. If the name is yours, "
        f"start the server with: --allowed-host {host}"
    )
    return pages.error_page(request, HTTPError(403, detail), trusted=False)
