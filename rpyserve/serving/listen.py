"""How a site is to be served: settings, listening sockets, accepted host names.

The accepted host names depend on the addresses that are listened on: this machine's names count
only where the network can reach it. `trusted_hosts` must be around all that answers, so that a
refused request reaches nothing else; outside of it is only what a proxy says the host to be.
"""

from __future__ import annotations

import functools
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.hosts import Network, host_without_port, is_known, machine_names, normalize_host
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response
from rpyserve.protocol.server_state import Limits
from rpyserve.serving import console
from rpyserve.serving.listeners import close_listeners, open_listeners
from rpyserve.site import Site
from rpyserve.util.throttle import ThrottledLogger

if TYPE_CHECKING:
    import ssl

    from rpyserve.production.forwarded import TrustedProxies
    from rpyserve.production.send_file import SendFile
    from rpyserve.production.sockets import Bind

log = logging.getLogger("rpyserve")


class CannotServe(Exception):
    """The server cannot run; the text says why, and what to do."""


class CannotListen(CannotServe):
    """The server cannot listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve a site.

    Args:
        host: the address or name to listen on.
        port: the port; 0 takes any free one.
        next_free: whether the next free port will do if *port* cannot be had.
        binds: what to listen on instead of *host* and *port*.
        listeners: what listens already, instead of all these; there may be none of them.
        allowed_hosts: host names that requests may have besides localhost and IP addresses.
        limits: of what clients may send.
        title: what is served, for the banner.
        quiet: print only the URL, warnings and errors.
        verbose: print more.
        access_log: the format of the access log: ``short``, ``combined`` or ``json``.
        reload: whether open pages are refreshed when a file is saved, where the site has a
            directory.
        inspector: whether ``/-/`` shows those who may see it what the server is doing.
        token: what whoever wants something done at ``/-/`` must know.
        tls: makes the context for https from the names and addresses of the server; None for http.
        script_timeout: seconds for which a script may hold the loop.
        poll: whether to poll for changes instead of using file system events.
        browser_log: whether what pages log in the browser is written on the console.
        phone: whether a phone is to open the site: a QR code is printed.
        on_ready: called with the URL when the server listens.
        production: whether only visitors see the site: no hints, and nothing below ``/-/`` but what
            a load balancer asks.
        drain: seconds for which the server goes on after SIGTERM before it stops.
        proxies: who is believed when it says whose request it passes on; None for nobody.
        root_path: the path below which the site is; empty for the root of its host.
        send_file: how the proxy is told to send a file itself; None if it is not to.
        metrics: where figures for Prometheus are: a path of the site, or a socket; None for none.
        metrics_from: the networks whose clients may see them, besides this machine.
        for_good: whether the process has nothing else to do: the signal handlers then stay to its
            end, and the garbage collector is tuned.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    next_free: bool = False
    binds: tuple[Bind, ...] = ()
    listeners: Sequence[trio.SocketListener] | None = None
    allowed_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    title: str = "a site"
    quiet: bool = False
    verbose: bool = False
    access_log: str = "short"
    reload: bool = False
    inspector: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    script_timeout: float = math.inf
    poll: bool = False
    browser_log: bool = False
    phone: bool = False
    tls: Callable[[Iterable[str]], ssl.SSLContext] | None = None
    on_ready: Callable[[str], object] = lambda url: None
    for_good: bool = False
    production: bool = False
    drain: float = 0
    proxies: TrustedProxies | None = None
    root_path: str = ""
    send_file: SendFile | None = None
    metrics: str | Bind | None = None
    metrics_from: tuple[Network, ...] = ()

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    @property
    def has_request_ids(self) -> bool:
        return self.production or self.access_log == "json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a site is served.

    Args:
        listeners: what listens: `trio.SocketListener` objects, or others that have a ``socket``.
        served: the listeners to serve, which may be those sockets under TLS.
        names: the accepted host names.
        network: the addresses by which others on the network reach it.
        metrics: what listens for those who want figures.
    """

    listeners: list[Any]
    served: Sequence[trio.abc.Listener[Any]]
    names: frozenset[str]
    network: frozenset[str]
    metrics: list[Any] = field(default_factory=list)

    async def close(self) -> None:
        """Close what is still open: all of it, if the site could not be served."""
        await close_listeners([*self.listeners, *self.metrics])


async def open_endpoint(site: Site, settings: Settings) -> Endpoint:
    """Open the listening sockets.

    Raises:
        CannotListen: a socket cannot be had, or there is no certificate.
    """
    listeners = await _open_listeners(settings)
    names = {*settings.allowed_hosts, *getattr(site.root, "hosts", ())}
    bound = [host for host, port in map(bound_address, listeners) if port]
    reachable = frozenset(chain.from_iterable(map(console.network_addresses, bound)))
    if reachable:
        names |= machine_names()
    try:
        served: Sequence[trio.abc.Listener[Any]] = listeners
        if settings.tls is not None:
            context = settings.tls(
                sorted({"localhost", "127.0.0.1", "::1", *bound, *reachable, *names})
            )
            served = [trio.SSLListener(listener, context) for listener in listeners]
        metrics: list[Any] = []
        if not isinstance(settings.metrics, str | None):
            metrics = await open_binds([settings.metrics])
    except BaseException:
        await close_listeners(listeners)
        raise
    return Endpoint(listeners, served, frozenset(names), reachable, metrics)


async def _open_listeners(settings: Settings) -> list[Any]:
    if settings.listeners is not None:
        return [*settings.listeners]
    if settings.binds:
        return await open_binds(settings.binds)
    return await _open_port(settings.host, settings.port, next_free=settings.next_free)


async def open_binds(binds: Iterable[Bind]) -> list[Any]:
    """Open what the command line says.

    Raises:
        CannotListen: one of them cannot be had; none is left open.
    """
    from rpyserve.production import sockets

    listeners: list[Any] = []
    try:
        for bind in binds:
            if isinstance(bind, sockets.TCPPort):
                listeners += await _open_port(bind.host, bind.port)
            else:
                listeners += sockets.open_listeners(bind)
    except BaseException as exc:
        await close_listeners(listeners)
        if isinstance(exc, sockets.CannotBind):
            raise CannotListen(str(exc)) from None
        raise
    return listeners


async def _open_port(host: str, port: int, *, next_free: bool = False) -> list[Any]:
    try:
        return [*await open_listeners(host, port, next_free=next_free)]
    except OSError as exc:
        raise CannotListen(console.listen_error(exc, host, port)) from exc


def bound_address(listener: Any) -> tuple[str, int]:
    """Return the address and port of *listener*; of a Unix socket ``unix:PATH``, and port 0."""
    name = listener.socket.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{name}", 0
    host, port = name[:2]
    return host, port


def as_deployed(respond: Responder, names: Iterable[str], settings: Settings) -> Responder:
    """Wrap *respond* so that it sees requests as the client made them, for a host that is ours."""
    proxies, root_path = settings.proxies, settings.root_path
    if root_path:
        from rpyserve.production.forwarded import below_root_path

        respond = below_root_path(respond, root_path)
    respond = trusted_hosts(respond, names, explain=not settings.production)
    if proxies is not None:
        from rpyserve.production.forwarded import behind_proxy
        from rpyserve.resources.pages import error_page

        refuse = functools.partial(error_page, trusted=False)
        respond = behind_proxy(respond, proxies, refuse, prefixes=not root_path)
    if settings.has_request_ids:
        from rpyserve.production.request_ids import with_request_ids

        respond = with_request_ids(respond, proxies)
    return respond


def trusted_hosts(respond: Responder, names: Iterable[str], *, explain: bool = True) -> Responder:
    """Wrap *respond* so that a request for a host that is not ours is refused.

    It gets a 403 that names ``--allowed-host``, unless only the console is to explain it.

    Args:
        respond: who answers the other requests.
        names: host names that are ours, besides every IP address, ``localhost`` and
            ``*.localhost``. One that begins with a dot or ``*.`` stands for all names below it.
    """
    known = frozenset(normalize_host(name).removeprefix("*") for name in names)
    refused = ThrottledLogger(log)

    @functools.lru_cache(maxsize=256)
    def passes(authority: str) -> bool:
        return is_known(host_without_port(authority), known)

    def guarded(request: Request) -> Awaitable[Response]:
        authority = request.authority
        if not authority or passes(authority):
            return respond(request)
        return refuse(request, host_without_port(authority))

    async def refuse(request: Request, host: str) -> Response:
        if not explain:
            refused.warn("A request was for %r; --allowed-host would accept it.", host[:253])
        return _refusal(request, host, explain)

    return guarded


def _refusal(request: Request, host: str, explain: bool) -> Response:
    from rpyserve.resources import pages

    host = host if len(host) <= 253 else host[:253] + "…"
    detail = "This server does not know the name of the host."
    if explain:
        detail = (
            f"This server does not know the name {host!r}. If the name is yours, "
            f"start the server with: --allowed-host {host}"
        )
    return pages.error_page(request, HTTPError(403, detail), trusted=False)
