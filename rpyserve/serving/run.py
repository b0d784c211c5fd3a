"""A site on the network: `serve` in one's own trio program, `run` for everything else.

This is where a site meets the server: who may ask (outermost), the access log, the watchdog, the session clock.
`run` adds what a process of its own needs: signals, a banner, and an end that no script can hold up. Neither
knows of options or directories; see `cli`.

What a server in a process of its own says when it begins, while it stops, and at the end.

Imports what the first answer does not need, after it, so that a server is there at once and no later page waits.

It must not happen too late either: where there are no more files that a process may open, nothing can be imported,
and the page that says so would have no way to come. One module is imported in each turn of the loop.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from rpyserve._version import __version__
from rpyserve.http.hosts import Network, TrustedClients
from rpyserve.http.types import Limits
from rpyserve.livereload.live_reload import LiveReload, directories_in
from rpyserve.resources.resource import Resource
from rpyserve.serving import console, self_requests, unawaited
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.gc_tuning import FullCollections
from rpyserve.serving.listen import (
    CannotListen,
    Endpoint,
    Settings,
    address_of,
    open_door,
    reachable_by,
    trusted_hosts,
)
from rpyserve.serving.listeners import serve_listeners
from rpyserve.serving.signals import Signals, interruptible, is_interruption
from rpyserve.serving.watchdog import Watchdog
from rpyserve.sessions.session import SessionEnd
from rpyserve.site import Site
from rpyserve.util import file_limits

if TYPE_CHECKING:
    import ssl

__all__ = [
    "CannotListen",
    "Settings",
    "announce",
    "explain_delay",
    "farewell",
    "import_the_rest",
    "run",
    "run_with",
    "serve",
]


def announce(site: Site, listeners: Sequence[trio.SocketListener], settings: Settings) -> None:
    """Print the banner, and tell whoever waits for it the URL."""
    host, port = address_of(listeners[0])
    moved = settings.port not in (0, port)
    url = console.banner(
        f"rpyserve {__version__} serves {settings.title}",
        (settings.host if settings.host == "localhost" else host, port),
        timeout=site.sessions.timeout,
        scheme="http" if settings.tls is None else "https",
        quiet=settings.quiet,
        notes=[f"Port {settings.port} is not free, so this is port {port}:"] if moved else [],
    )
    settings.on_ready(url)


async def explain_delay(stop: trio.Event) -> None:
    """Say what goes on if stopping takes longer than a moment."""
    await stop.wait()
    await trio.sleep(0.5)
    console.say_after_ctrl_c(
        "Stopping. What is being answered has 5 seconds; Ctrl-C again ends it at once."
    )


def farewell(ended: int) -> str:
    """What is said at the end, when *ended* sessions have ended."""
    many = f"{ended} session{'' if ended == 1 else 's'}"
    return f"Stopped. {many} ended, and what `registry` held is gone."


PATIENCE: Final = 1.0
"""Seconds after which nobody seems to ask for anything just now."""
PAUSE: Final = 0.005
"""Seconds for others between two modules."""

_REST: Final = (
    "resources.pages", "diagnostics.model", "diagnostics.reporter", "diagnostics.error_page", "diagnostics.describe",
    "diagnostics.advice", "files.static_file", "livereload.csp", "check.state_loss", "sessions.object_graph",
    "sessions.migration",
)  # fmt: skip


async def import_the_rest(answered: trio.Event) -> None:
    """Import all that the server may need later.

    Args:
        answered: set once there was a first answer.
    """
    with trio.move_on_after(PATIENCE):
        await answered.wait()
    for name in _REST:
        await trio.sleep(PAUSE)
        import_module(f"rpyserve.{name}")


GRACE: Final = 5.0
"""Seconds that requests in flight have once the server is to stop, and async callbacks of sessions that end."""
STUCK: Final = GRACE + 0.5
"""Seconds after which what still is at work has not heard that it was cancelled."""


def run(
    site: Site | Resource,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    allowed_hosts: Iterable[str] = (),
    trust: Iterable[Network | str] = (),
    quiet: bool = False,
    reload: bool = True,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Serve *site* until Ctrl-C or SIGTERM. Returns when all sessions have ended, their callbacks included.

    Args:
        site: a `Site`, or the `Resource` at its root.
        host: the address to listen on; ``"0.0.0.0"`` lets the whole network in.
        port: the TCP port; 0 takes any free one, which the banner names.
        allowed_hosts: host names under which the site may be asked for, besides localhost and IP addresses.
        trust: networks whose clients may see details of errors, such as ``"172.17.0.0/16"``.
        quiet: only the URL, warnings and errors are shown.
        reload: whether pages in a browser follow what is saved in a `Directory` that is in the tree.
        ssl_context: to serve over https, a context with a certificate.

    Raises:
        SystemExit: with a message, if the port cannot be had.

    "Twisted Web in 60 seconds": session endings, which calls it ``reactor.listenTCP`` and ``reactor.run``.
    """
    site = _as_site(site)
    networks = list(trust)
    if networks:
        site.trusts = TrustedClients(ip_network(network) for network in networks)
    settings = Settings(
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_hosts),
        quiet=quiet,
        title=_title(),
        reload=reload,
        tls=_given(ssl_context),
    )
    try:
        run_with(site, settings)
    except CannotListen as exc:
        raise SystemExit(str(exc)) from None


async def serve(
    site: Site | Resource,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    allowed_hosts: Iterable[str] = (),
    limits: Limits | None = None,
    reload: bool = True,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *site* in your own trio program, until cancelled: ``await nursery.start(serve, site)``.

    It handles no signals and prints no banner. Access lines go to the logger ``rpyserve.access`` if that has a handler.

    Args:
        site: a `Site`, or the `Resource` at its root.
        host, port: where to listen; port 0 takes any free one.
        allowed_hosts: host names under which the site may be asked for, besides localhost and IP addresses.
        limits: of what clients may send; see `Limits`.
        reload: whether pages in a browser follow what is saved in a `Directory` that is in the tree.
        ssl_context: to serve over https, a context with a certificate.
        task_status: gets the listeners, as `trio.serve_tcp` gives them.

    Raises:
        OSError: the port cannot be had.
    """
    site = _as_site(site)
    settings = Settings(
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_hosts),
        limits=limits or Limits(),
        reload=reload,
        tls=_given(ssl_context),
    )
    door = await open_door(site, settings)
    access = AccessLog(lambda lines: None)
    with _watched(door.listeners):
        await _serve_until(
            site, door, settings, access, trio.Event(), lambda: task_status.started(door.listeners)
        )


def run_with(site: Site, settings: Settings) -> None:
    """Do what `run` does, with all *settings*.

    Raises:
        CannotListen: the port cannot be had.
    """
    access = AccessLog(
        (lambda lines: None) if settings.quiet else console.write,
        colour=console.wants_colour(sys.stderr),
        probes=settings.verbose,
        combined=settings.combined,
    )
    console.set_up(quiet=settings.quiet, verbose=settings.verbose, before=access.flush)
    signals = Signals(access.flush)
    in_main = threading.current_thread() is threading.main_thread()
    installed = signals.installed(for_good=settings.for_good) if in_main else nullcontext()
    with installed, unawaited.reporting_unawaited(site.errors):
        _run_trio(site, settings, access, signals)
        access.flush()
    if not settings.quiet:
        console.say_after_ctrl_c(farewell(site.sessions.statistics().ended[SessionEnd.STOPPED]))


def _run_trio(site: Site, settings: Settings, access: AccessLog, signals: Signals) -> None:
    """Run the server in a loop of its own. What stops it, be it in the middle of a script, is no error."""
    try:
        trio.run(
            _main, site, settings, access, signals, restrict_keyboard_interrupt_to_checkpoints=False
        )
    except BaseException as exc:
        if not is_interruption(exc):
            raise


async def _main(site: Site, settings: Settings, access: AccessLog, signals: Signals) -> None:
    try:
        door = await open_door(site, settings)
    except OSError as exc:
        raise CannotListen(console.listen_error(exc, settings.host, settings.port)) from None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signals.run)
        nursery.start_soon(explain_delay, signals.stop)
        if settings.for_good:
            sessions = site.sessions
            seldom = FullCollections(
                lambda: access.noted, lambda: sessions.ended_with_data, lambda: len(sessions)
            )
            nursery.start_soon(seldom.run)
        with _watched(door.listeners) as dog:
            signals.blocked_for = dog.blocked_for
            await _serve_until(
                site,
                door,
                settings,
                access,
                signals.stop,
                lambda: announce(site, door.listeners, settings),
            )
        nursery.cancel_scope.cancel()


async def _serve_until(
    site: Site,
    door: Endpoint,
    settings: Settings,
    access: AccessLog,
    stop: trio.Event,
    ready: Callable[[], object],
) -> None:
    """Serve *site* at *door* until *stop*, and end its sessions. *ready* is called when all is set up."""
    following = _following(site, settings)
    respond = site.respond if following is None else following.wrap(site.respond)
    respond = trusted_hosts(interruptible(respond), door.names)
    async with site.running(), trio.open_nursery() as nursery:
        nursery.start_soon(access.run)
        nursery.start_soon(_end_sessions, site, stop)
        nursery.start_soon(import_the_rest, access.answered)
        if following is not None:
            await nursery.start(following.run)
            nursery.start_soon(_end_streams, following, stop)
        ready()
        most = file_limits.max_connections()
        await serve_listeners(
            respond,
            door.served,
            limits=settings.limits,
            grace=GRACE,
            most=most,
            on_exchange=access,
            stop=stop,
        )
        nursery.cancel_scope.cancel()


async def _end_sessions(site: Site, stop: trio.Event) -> None:
    """End the sessions even if a request is at work where nothing can cancel it, such as in a thread."""
    await stop.wait()
    await trio.sleep(STUCK)
    await site.sessions.end_all(SessionEnd.STOPPED, GRACE)


def _following(site: Site, settings: Settings) -> LiveReload | None:
    """What makes pages follow edits; nothing if it is not wanted, or if there are no files that could be edited."""
    if not settings.reload or not any(directories_in(site.root)):
        return None
    return LiveReload(site, poll=settings.poll)


async def _end_streams(following: LiveReload, stop: trio.Event) -> None:
    await stop.wait()
    following.stop()


@contextmanager
def _watched(listeners: Sequence[trio.SocketListener]) -> Iterator[Watchdog]:
    """While inside, scripts that hold the loop are named, and those that ask us are refused."""
    own = {address for listener in listeners for address in reachable_by(listener)}
    dog = Watchdog(
        self_requests.anyone_waiting([listener.socket.fileno() for listener in listeners])
    )
    with (
        dog.watching(),
        self_requests.forbid_self_requests([address_of(listener) for listener in listeners], own),
    ):
        yield dog


def _as_site(thing: Site | Resource) -> Site:
    return thing if isinstance(thing, Site) else Site(thing)


def _given(context: ssl.SSLContext | None) -> Callable[[Iterable[str]], ssl.SSLContext] | None:
    return None if context is None else lambda names: context


def _title() -> str:
    """What a program of one's own is called."""
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "a site"
