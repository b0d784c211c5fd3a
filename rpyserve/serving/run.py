"""A site on the network: `serve` in one's own trio program, `run` for everything else.

`ProgramServer` serves the sites that a program of Twisted's listens with.

This is where a site meets the server: the host names that are accepted (outermost), the access log,
the watchdog, live reload. `run` adds what a process of its own needs: signals, a banner, and an end
that no script can hold up. Options and directories are the business of `cli`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve._names import __version__, public
from rpyserve.http.hosts import Network, TrustedClients, machine_names
from rpyserve.http.request import RequestRecord, Responder
from rpyserve.livereload import endpoints
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.endpoints import Tools
from rpyserve.livereload.live_reload import Inspect, LiveReload, directories_in
from rpyserve.protocol.server_state import Limits, Shutdown
from rpyserve.resources.resource import Resource
from rpyserve.serving import console, console_writer, notices, self_requests
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.gc_tuning import collect_when_idle
from rpyserve.serving.listen import (
    CannotListen,
    CannotServe,
    Endpoint,
    Settings,
    as_deployed,
    bound_address,
    open_endpoint,
    trusted_hosts,
)
from rpyserve.serving.listeners import serve_listeners
from rpyserve.serving.signals import Signals, end_process, interruptible, is_interruption
from rpyserve.serving.watchdog import Watchdog
from rpyserve.sessions.session import SessionEnd
from rpyserve.site import Site
from rpyserve.util import file_limits
from rpyserve.util.exceptions import unwrap_group

if TYPE_CHECKING:
    import ssl

    from rpyserve.http.request import Request
    from rpyserve.http.response import Response
    from rpyserve.inspector.edit_views import Watch
    from rpyserve.inspector.edits import Edits
    from rpyserve.inspector.ended_sessions import EndedSessions
    from rpyserve.inspector.inspector import Inspector
    from rpyserve.inspector.recorder import Recorder
    from rpyserve.production.metrics import Metrics
    from rpyserve.scripts.loader import ScriptLoader
    from rpyserve.sessions.session import Session

# Seconds that open requests have once the server is to stop; async callbacks of sessions too.
GRACE: Final = 5.0

# How many addresses get a QR code: a machine may have many.
MAX_QR_CODES: Final = 2

# Seconds after which what is still at work cannot be cancelled, such as a call in a thread.
STUCK: Final = GRACE + 0.2

# Seconds that what has ended in the meantime has to let the server end in the usual way.
LAST_CHANCE: Final = 0.1

# What is imported after the first answer, in this order, so that a server is there at once. It must
# not happen too late either: a process that may open no more files can import nothing, and would
# have no page that says so.
DEFERRED: Final = (
    "rpyserve.resources.pages",
    "rpyserve.diagnostics.advice",
    "rpyserve.diagnostics.describe",
    "rpyserve.diagnostics.error_page",
    "rpyserve.files.static_file",
    "rpyserve.check.state_loss",
    "rpyserve.sessions.migration",
)

# Seconds without a first answer after which these imports begin anyway.
FIRST_ANSWER: Final = 1.0

# Seconds between two of them, in which requests are answered.
IMPORT_PAUSE: Final = 0.005

# Seconds after which one that failed is tried again.
IMPORT_RETRY: Final = 1.0

log = logging.getLogger("rpyserve")

_has_run = threading.Event()


def has_run() -> bool:
    """Whether this process has served a site by `run`."""
    return _has_run.is_set()


@public
def run(
    site: Site | Resource,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    allowed_hosts: Iterable[str] = (),
    trust: Iterable[Network | str] = (),
    quiet: bool = False,
    reload: bool = True,
    inspector: bool = True,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Serve *site* until Ctrl-C or SIGTERM.

    Returns when all sessions have ended, their callbacks included, unless a store keeps them.

    Args:
        site: a `Site`, which may be one of an installed Twisted's, or the `Resource` at its root.
        host: the address to listen on; ``"0.0.0.0"`` accepts connections from the network.
        port: the TCP port; 0 takes any free one, which the banner names.
        allowed_hosts: host names that requests may have besides localhost and IP addresses.
        trust: networks whose clients may see details of errors, such as ``"172.17.0.0/16"``.
        quiet: print only the URL, warnings and errors.
        reload: whether open pages are refreshed when a file of a `Directory` in the tree is saved.
        inspector: whether ``/-/`` shows clients on this machine what the server is doing.
        ssl_context: to serve over https, a context with a certificate.

    Raises:
        SystemExit: with a message, if the port cannot be had, or the store cannot be used.

    "Twisted Web in 60 seconds": session endings, which calls it ``reactor.listenTCP`` and
    ``reactor.run``.
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
        title=Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "a site",
        reload=reload,
        inspector=inspector,
        tls=_fixed_context(ssl_context),
    )
    try:
        run_with(site, settings)
    except CannotServe as exc:
        raise SystemExit(str(exc)) from None


@public
async def serve(
    site: Site | Resource,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    allowed_hosts: Iterable[str] = (),
    limits: Limits | None = None,
    reload: bool = True,
    inspector: bool = True,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *site* in your own trio program, until cancelled: ``await nursery.start(serve, site)``.

    It handles no signals and prints no banner. Access lines go to the logger ``rpyserve.access`` if
    that has a handler.

    Args:
        site: a `Site`, or the `Resource` at its root.
        host: the address to listen on.
        port: the TCP port; 0 takes any free one.
        allowed_hosts: host names that requests may have besides localhost and IP addresses.
        limits: of what clients may send; see `Limits`.
        reload: whether open pages are refreshed when a file of a `Directory` in the tree is saved.
        inspector: whether ``/-/`` shows clients on this machine what the server is doing.
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
        inspector=inspector,
        tls=_fixed_context(ssl_context),
    )
    try:
        endpoint = await open_endpoint(site, settings)
    except CannotListen as exc:
        raise exc.__cause__ or exc from None
    access_log = AccessLog()
    ready = partial(task_status.started, endpoint.listeners)
    try:
        with _watch_loop(endpoint):
            await _serve_until(site, endpoint, settings, access_log, trio.Event(), ready)
    finally:
        await endpoint.close()


def run_with(
    site: Site,
    settings: Settings,
    work: Callable[[], Awaitable[None]] | None = None,
    *,
    is_program: bool = True,
) -> None:
    """Do what `run` does, with all *settings*.

    Args:
        work: runs beside the site; when it has returned, the server stops.
        is_program: whether the author's code may be elsewhere than in the scripts of the site.

    Raises:
        CannotServe: the port cannot be had, or the store cannot be used.
    """
    _has_run.set()
    access_log = _access_log(settings)
    console.set_up(quiet=settings.quiet, verbose=settings.verbose)
    signals = Signals(settings.drain, ends_runs=True)
    if work is not None:
        site.start_task(partial(_stop_after, work, signals.stop))
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = signals.installed(for_good=settings.for_good) if in_main_thread else nullcontext()
    try:
        streams = console.unfailing_streams(for_good=settings.for_good)
        with handlers, streams, notices.reporting_unawaited(site.errors, at_once=is_program):
            _run_trio(site, settings, access_log, signals)
        _say_farewell(site, settings)
    finally:
        console_writer.stop()


@dataclass
class ProgramServer:
    """Serves the sites that a program listens with.

    Args:
        settings: how to serve them.
        make_site: makes a site with a root.
        print_one: prints one response of a site, instead of serving it, and returns the exit
            status; None to serve it.

    Attributes:
        status: the exit status of the program, if it does not say otherwise.
    """

    settings: Settings
    make_site: Callable[[Any], Site]
    print_one: Callable[[Site], int] | None = None
    status: int = 0

    @property
    def host(self) -> str:
        """The address to listen on where the program names none."""
        return self.settings.host

    def open_port(self, host: str, port: int) -> list[trio.SocketListener]:
        """Listen on *port* of *host*, by default that of the command line.

        Where one response is printed, nobody is to connect, and a server of the same program may
        have the port: any free one stands for it.

        Raises:
            OSError: it cannot be had.
        """
        host, port = (host or self.host, port) if self.print_one is None else ("127.0.0.1", 0)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
        return [trio.SocketListener(trio.socket.from_stdlib_socket(listening))]

    def explain(self, exc: OSError, host: str, port: int) -> str:
        """Say in one line why *port* cannot be had."""
        return console.listen_error(exc, host or self.host, port)

    def serve(
        self,
        site: Site,
        listeners: list[trio.SocketListener],
        work: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Serve *site* until it is to stop, or *work* has returned.

        Raises:
            SystemExit: it cannot be served; the message says why.
        """
        if self.print_one is not None:
            if work is not None:
                site.start_task(work)
            self.status = self.print_one(site)
            return
        try:
            run_with(site, replace(self.settings, listeners=listeners), work)
        except CannotServe as exc:
            raise SystemExit(str(exc)) from None

    async def serve_also(
        self, site: Site, listeners: list[trio.SocketListener], *, is_running: bool
    ) -> None:
        """Serve *site* at further addresses, until cancelled.

        Args:
            is_running: whether it is served already.
        """
        if self.print_one is not None:
            return  # the first site has been asked
        # The figures are about the first site, whose server has their port.
        settings = replace(self.settings, listeners=listeners, metrics=None)
        endpoint = await open_endpoint(site, settings)
        which = "It is also" if is_running else "Another site is"
        for host, port in map(bound_address, endpoint.listeners):
            console.print_line(f"{which} at {console.url_of(host, port, settings.scheme)}")
        respond = as_deployed(interruptible(site.respond), endpoint.names, settings)
        async with nullcontext() if is_running else site.running():
            await serve_listeners(
                respond,
                endpoint.served,
                limits=settings.limits,
                most=file_limits.max_connections(),
                on_record=_access_log(settings),
                stop=trio.Event(),
            )


def _access_log(settings: Settings) -> AccessLog:
    write = console_writer.write
    if settings.access_log != "short":
        write = partial(write, has_dates=True)
    return AccessLog(
        None if settings.quiet else write,
        colour=console.use_colour(sys.stderr),
        probes=settings.verbose,
        layout=settings.access_log,
    )


async def _stop_after(work: Callable[[], Awaitable[None]], stop: trio.Event) -> None:
    await work()
    stop.set()


def _say_farewell(site: Site, settings: Settings) -> None:
    if not settings.quiet:
        console.print_over_ctrl_c(f"Stopped. {_fate_of_sessions(site, settings)}")


def _fate_of_sessions(site: Site, settings: Settings) -> str:
    if site.persistence is not None:
        kept = site.persistence.store.statistics().live
        return f"{kept:,} session{'' if kept == 1 else 's'} kept in {site.persistence.store.name}."
    ended = site.sessions.statistics().ended[SessionEnd.STOPPED]
    how = "--session-store sqlite" if settings.for_good else 'Site(..., store="sqlite")'
    return (
        f"{ended} session{'' if ended == 1 else 's'} ended, and the contents of `registry` are "
        f"gone. ({how} keeps them.)"
    )


def _run_trio(site: Site, settings: Settings, access_log: AccessLog, signals: Signals) -> None:
    """Run the server in a loop of its own. A stop in the middle of a script is no error."""
    try:
        trio.run(
            _main,
            site,
            settings,
            access_log,
            signals,
            restrict_keyboard_interrupt_to_checkpoints=False,
        )
    except BaseException as exc:
        if site.persistence is not None:
            _raise_if_unusable(exc)
        if not is_interruption(exc):
            raise


def _raise_if_unusable(exc: BaseException) -> None:
    """Raise what says why, if the store of sessions cannot be used."""
    from rpyserve.stores.store import StoreError

    if isinstance(reason := unwrap_group(exc), StoreError):
        raise CannotServe(str(reason)) from None


async def _main(site: Site, settings: Settings, access_log: AccessLog, signals: Signals) -> None:
    endpoint = await open_endpoint(site, settings)
    ready = partial(_announce, site, endpoint, settings)
    shutdown = Shutdown()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signals.run)
        nursery.start_soon(_drain, settings, signals.draining, shutdown)
        nursery.start_soon(_explain_delay, signals.stop)
        nursery.start_soon(_leave_stuck, site, settings, signals.stop)
        if settings.for_good:
            nursery.start_soon(collect_when_idle, lambda: access_log.responses)
        try:
            with _watch_loop(endpoint, signals, settings.script_timeout) as watchdog:
                signals.blocked_for = watchdog.blocked_for
                signals.busy_run = lambda: watchdog.run
                signals.round = watchdog.round
                await _serve_until(
                    site, endpoint, settings, access_log, signals.stop, ready, shutdown
                )
        finally:
            await endpoint.close()
        nursery.cancel_scope.cancel()


async def _serve_until(
    site: Site,
    endpoint: Endpoint,
    settings: Settings,
    access_log: AccessLog,
    stop: trio.Event,
    ready: Callable[[], object],
    shutdown: Shutdown | None = None,
) -> None:
    """Serve *site* at *endpoint* until *stop*, and end its sessions.

    Args:
        ready: called when all is set up.
        shutdown: what the connections are told.
    """
    shutdown = shutdown or Shutdown()
    if site.on_source is None and not settings.production:
        site.on_source = notices.FindingAnnouncer()
    tools = {"phone": partial(_phone_page, site, endpoint, settings)}
    live_reload, metrics = _live_reload(site, settings, tools), _metrics(site, settings, shutdown)
    recorder, inspect, edits = None, None, None
    if settings.inspector:
        from rpyserve.inspector.recorder import Recorder  # not in production

        site.recorder = recorder = Recorder(shutdown.running)
        access_log.keep = recorder.keep
        edits = None if live_reload is None else _edits_of(site, live_reload)
        feed = ChangeFeed() if live_reload is None else live_reload.feed
        facts = partial(_facts, settings, shutdown)
        inspect = _inspect(site, recorder, feed, settings.token, facts, live_reload, edits)
    respond = interruptible(_with_own_pages(site.respond, live_reload, inspect))
    respond = _with_tools(respond, site, settings, shutdown, metrics)
    respond = as_deployed(respond, endpoint.names, settings)
    on_record: Callable[[RequestRecord], object] = access_log
    if metrics is not None:
        respond, on_record = metrics.counted(respond), metrics.observed(access_log)
    async with site.running(), trio.open_nursery() as nursery:
        nursery.start_soon(import_deferred, access_log.answered)
        if metrics is not None:
            nursery.start_soon(metrics.measure_lag)
            nursery.start_soon(_serve_metrics, metrics, endpoint, settings, stop)
        if live_reload is not None:
            await nursery.start(live_reload.run)
            nursery.start_soon(_call_at_stop, live_reload.stop, stop)
        if recorder is not None:
            nursery.start_soon(_call_at_stop, recorder.close, stop)
        if edits is not None:
            nursery.start_soon(_keep_edits, edits, access_log.answered, stop)
        ready()
        await serve_listeners(
            respond,
            endpoint.served,
            limits=settings.limits,
            grace=GRACE,
            most=file_limits.max_connections(),
            on_record=on_record,
            recorder=recorder,
            stop=stop,
            shutdown=shutdown,
        )
        nursery.cancel_scope.cancel()


def _with_own_pages(
    respond: Responder, live_reload: LiveReload | None, inspect: Inspect | None
) -> Responder:
    """Wrap *respond* so that what lies below ``/-/`` is the server's, if it has pages there."""
    if live_reload is not None:
        return live_reload.wrap(respond, *([] if inspect is None else [inspect]))
    if inspect is None:
        return respond

    def respond_or_inspect(request: Request) -> Awaitable[Response]:
        response = inspect(request) if request.raw_path.startswith(endpoints.PREFIX) else None
        return respond(request) if response is None else response

    return respond_or_inspect


def _inspect(
    site: Site,
    recorder: Recorder,
    feed: ChangeFeed,
    token: str,
    facts: Callable[[], dict[str, Any]],
    watch: Watch | None = None,
    edits: Callable[[], Edits] | None = None,
) -> Inspect:
    """Return what answers with the inspector's pages; it is made for the first who may see it."""

    @functools.cache
    def ended_sessions() -> EndedSessions:
        from rpyserve.inspector.ended_sessions import EndedSessions

        return EndedSessions()

    @functools.cache
    def inspector() -> Inspector:
        from rpyserve.inspector.inspector import Inspector, Server

        server = Server(
            respond=interruptible(site.respond),
            loaders=partial(_loaders_of, site),
            token=token,
            facts=facts,
            places=feed,
            with_morphing=endpoints.morphing_script,
        )
        made = Inspector(site, recorder, ended_sessions(), server)
        if watch is not None and edits is not None:
            from rpyserve.inspector.edit_views import register_edits

            register_edits(made.table, edits(), watch, recorder)
            made.on_done = edits().note_action
            edits().timeline.news.listen(recorder.tell)
        return made

    def note(session: Session, reason: SessionEnd | None) -> None:
        if reason is not None:
            ended_sessions().add(session, reason)
        if recorder.is_alert:
            recorder.tell()

    site.sessions.observers.append(note)
    feed.on_change = recorder.tell

    def inspect(request: Request) -> Awaitable[Response] | None:
        return inspector().response_to(request) if site.trusts(request) else None

    return inspect


def _facts(settings: Settings, shutdown: Shutdown) -> dict[str, Any]:
    """Return what the inspector shows of the server."""
    return {"connections": shutdown.connections, "options": _plain(settings)}


def _plain(thing: Any) -> dict[str, Any]:
    """Return the fields of *thing* that say something, with plain values; `Limits` among them."""
    found: dict[str, Any] = {}
    for each in fields(thing):
        value = getattr(thing, each.name) if each.repr else None
        if isinstance(value, Limits):
            found |= {f"limits.{name}": limit for name, limit in _plain(value).items()}
        elif isinstance(value, (str, int, float)) and value not in ("", False, math.inf):
            found[each.name] = value
        elif isinstance(value, tuple) and value:
            found[each.name] = [str(item) for item in value]
    return found


def _loaders_of(site: Site) -> Iterable[ScriptLoader]:
    """Return what executes the scripts of *site*."""
    return {id(each.scripts): each.scripts for each, _ in directories_in(site.root)}.values()


def _with_tools(
    respond: Responder,
    site: Site,
    settings: Settings,
    shutdown: Shutdown,
    metrics: Metrics | None,
) -> Responder:
    """Wrap *respond* so that it also does what a proxy, a load balancer or Prometheus needs."""
    if settings.send_file is not None and (path := getattr(site.root, "path", None)) is not None:
        from rpyserve.production.send_file import with_send_file

        respond = with_send_file(respond, settings.send_file, str(path))
    if settings.production:
        from rpyserve.production.status import Status, with_status

        respond = with_status(respond, Status(site.ready_checks, lambda: shutdown.closing))
    if metrics is not None and isinstance(settings.metrics, str):
        from rpyserve.production.metrics import with_metrics

        clients = TrustedClients(settings.metrics_from)
        respond = with_metrics(respond, metrics, settings.metrics, clients)
    return respond


def _metrics(site: Site, settings: Settings, shutdown: Shutdown) -> Metrics | None:
    if settings.metrics is None:
        return None
    from rpyserve.production.metrics import Metrics

    return Metrics(site, lambda: shutdown.connections)


async def _serve_metrics(
    metrics: Metrics, endpoint: Endpoint, settings: Settings, stop: trio.Event
) -> None:
    """Serve *metrics* on a port of their own, if they have one."""
    if not endpoint.metrics:
        return
    from rpyserve.production.metrics import metrics_site

    respond = metrics_site(metrics, TrustedClients(settings.metrics_from))
    names = endpoint.names | machine_names()
    await serve_listeners(trusted_hosts(respond, names), endpoint.metrics, stop=stop)


def _announce(site: Site, endpoint: Endpoint, settings: Settings) -> None:
    """Print the banner, and give the URL to whoever waits for it. From then on a thread writes."""
    if not endpoint.listeners:
        console.print_line(f"rpyserve {__version__} runs {settings.title}. Ctrl-C stops it.")
        console_writer.start()
        return
    host, port = bound_address(endpoint.listeners[0])
    notes = [f"Also at {name}." for name in _others(endpoint, settings)]
    for name, number in map(bound_address, endpoint.metrics):
        notes.append(f"Metrics at {console.url_of(name, number)}{'metrics' if number else ''}")
    if not _names_its_sockets(settings) and settings.port not in (0, port):
        notes.append(f"Port {settings.port} is not free, using port {port} instead:")
    url = console.banner(
        f"rpyserve {__version__} serves {settings.title}",
        (settings.host if settings.host == "localhost" else host, port),
        timeout=site.sessions.timeout,
        scheme=settings.scheme,
        quiet=settings.quiet,
        notes=notes,
        warn=not settings.production,
        codes=_qr_codes(endpoint, settings),
        store="" if site.persistence is None else site.persistence.store.name,
        inspector=settings.inspector,
    )
    console_writer.start()
    settings.on_ready(url)


def _qr_codes(endpoint: Endpoint, settings: Settings) -> list[str]:
    """QR codes of the addresses that a phone can open, where somebody may scan them."""
    if not settings.phone and (settings.production or not console.is_terminal(sys.stderr)):
        return []
    if urls := _network_urls(endpoint, settings):
        from rpyserve.inspector.phone import qr_text

        return [qr_text(url) for url in urls[:MAX_QR_CODES]]
    return []


def _others(endpoint: Endpoint, settings: Settings) -> Iterator[str]:
    """The addresses besides the first one, where several were asked for."""
    others = endpoint.listeners[1:] if _names_its_sockets(settings) else []
    for host, port in map(bound_address, others):
        yield console.url_of(host, port, settings.scheme)


def _names_its_sockets(settings: Settings) -> bool:
    return bool(settings.binds) or settings.listeners is not None


async def _drain(settings: Settings, draining: trio.Event, shutdown: Shutdown) -> None:
    await draining.wait()
    shutdown.drain()
    if not settings.quiet:
        console.print_line(f"SIGTERM: {settings.drain:g} more seconds, then the server stops.")


async def _explain_delay(stop: trio.Event) -> None:
    """Say why the server is still there if stopping takes longer than a moment."""
    await stop.wait()
    await trio.sleep(0.5)
    console.print_over_ctrl_c(
        f"Stopping: waiting up to {GRACE:g} seconds for open requests. Ctrl-C again quits now."
    )


async def _leave_stuck(site: Site, settings: Settings, stop: trio.Event) -> None:
    """End the sessions and the process even if something cannot be cancelled."""
    await stop.wait()
    await trio.sleep(STUCK)
    await site.end_sessions(GRACE)
    await trio.sleep(LAST_CHANCE)
    console.print_over_ctrl_c("Not waiting for what cannot be cancelled: a call in a thread.")
    _say_farewell(site, settings)
    end_process(at_once=True)


async def _call_at_stop(function: Callable[[], object], stop: trio.Event) -> None:
    await stop.wait()
    function()


def _edits_of(site: Site, live_reload: LiveReload) -> Callable[[], Edits]:
    """Return what makes the receipts of edits when they are first wanted."""

    @functools.cache
    def make() -> Edits:
        from rpyserve.inspector.edits import Edits

        edits = Edits(live_reload.roots, live_reload.name_of, notices.check_silently)
        edits.observe(site)
        return edits

    live_reload.edits = make
    return make


async def _keep_edits(make: Callable[[], Edits], answered: trio.Event, stop: trio.Event) -> None:
    """Have receipts of edits from the first answer on, and let who waits for one go at the end."""
    with trio.move_on_after(FIRST_ANSWER):
        await answered.wait()
    edits = None
    while edits is None:
        try:
            edits = make()
        except Exception as exc:
            log.debug("Receipts of edits cannot be had now: %s. Trying again.", exc)
            await trio.sleep(IMPORT_RETRY)
    # Imports of the check take a while, which is not to be added to the first edit.
    await edits.read_baseline()
    await stop.wait()
    edits.close()


def _phone_page(site: Site, endpoint: Endpoint, settings: Settings) -> Resource:
    from rpyserve.inspector.phone import PhonePage

    return PhonePage(site, _network_urls(endpoint, settings))


def _network_urls(endpoint: Endpoint, settings: Settings) -> list[str]:
    """The URLs by which other devices reach the site."""
    port = bound_address(endpoint.listeners[0])[1]
    if not port:
        return []
    return [console.url_of(each, port, settings.scheme) for each in sorted(endpoint.network)]


def _live_reload(site: Site, settings: Settings, tools: Tools) -> LiveReload | None:
    """What refreshes pages; None if it is not wanted, or there are no files to edit."""
    if not settings.reload or not any(directories_in(site.root)):
        return None
    return LiveReload(site, poll=settings.poll, browser_log=settings.browser_log, tools=tools)


@contextmanager
def _watch_loop(
    endpoint: Endpoint, signals: Signals | None = None, script_timeout: float = math.inf
) -> Iterator[Watchdog]:
    """While inside, name scripts that hold the loop, and refuse requests to their own server.

    Args:
        signals: if they are handled, they can interrupt scripts.
        script_timeout: seconds after which a script that holds the loop is interrupted.
    """
    sockets = [listener.socket.fileno() for listener in endpoint.listeners]
    watchdog = Watchdog(
        self_requests.connection_waiting(sockets),
        interruptor=signals if signals is not None and signals.are_handled else None,
        timeout=script_timeout,
    )
    bound = [(host, port) for host, port in map(bound_address, endpoint.listeners) if port]
    with watchdog.watching(), self_requests.forbid_self_requests(bound, endpoint.network):
        yield watchdog


def _as_site(thing: Any) -> Site:
    if isinstance(thing, Site):
        return thing
    genuine = getattr(sys.modules.get("twisted.web.server"), "Site", None)
    is_genuine = genuine is not None and isinstance(thing, genuine)
    return _site_of_genuine(thing) if is_genuine else Site(thing)


def _site_of_genuine(genuine: Any) -> Site:
    """Return a site of ours that serves *genuine*, a ``Site`` of an installed Twisted's."""
    from rpyserve.resources.resource import as_resource
    from rpyserve.scripts import twisted_names

    twisted_names.install()
    from rpyserve.twisted import site

    native = Site(as_resource(genuine.resource))
    site.use(native, genuine)
    return native


def _fixed_context(
    context: ssl.SSLContext | None,
) -> Callable[[Iterable[str]], ssl.SSLContext] | None:
    return None if context is None else lambda names: context


async def import_deferred(answered: trio.Event) -> None:
    """Import `DEFERRED`, one in each turn of the loop, once the event *answered* is set."""
    with trio.move_on_after(FIRST_ANSWER):
        await answered.wait()
    has_failed = False
    while True:
        try:
            for name in DEFERRED:
                await trio.sleep(IMPORT_PAUSE)
                importlib.import_module(name)
            return
        except Exception as exc:
            if not has_failed:
                log.warning("A part of rpyserve cannot be imported now: %s. Trying again.", exc)
            has_failed = True
        await trio.sleep(IMPORT_RETRY)
