"""Listeners, and one task for each connection.

Every connection has a guard, so that no client, and no error of ours, ends the server or touches
another connection. The nursery tree is ``connections[ accepting[ listeners ] ]``: to stop,
accepting is cancelled, idle connections are closed at once, and the others have a grace period.
When there are as many connections, and files that they send or receive, as there may be, those that
wait for their clients are closed to make room for new ones. It sees a `Responder`, and must not
know sites.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import trio

from rpyserve.http.request import Address, Recording, RequestRecord, Responder
from rpyserve.protocol.connection import report_connection_failure, serve_connection
from rpyserve.protocol.server_state import Limits, Shutdown, Wait
from rpyserve.util.exceptions import reporting_errors
from rpyserve.util.file_limits import ADVICE, SpareDescriptor, is_too_many_files
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

# Ports that `open_listeners` tries when the next free one will do.
ATTEMPTS: Final = 100

# Seconds to wait after an ``accept`` that failed, such as for lack of file descriptors.
ACCEPT_PAUSE: Final = 0.1

# The fraction of all connections, one in so many, that is closed at once when there is no room.
SHED: Final = 64

_PORT_TAKEN_ERRNOS: Final = frozenset(
    {errno.EADDRINUSE, errno.EACCES, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)}
)
_ON_UNIX_SOCKET: Final = "unix:", 0
_NO_IPV6_ERRNOS: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

Listener = trio.abc.Listener[Any]


async def open_listeners(
    host: str, port: int, *, next_free: bool = False
) -> list[trio.SocketListener]:
    """Listen on *port* of *host*.

    Args:
        host: an address or a name; ``"localhost"`` is 127.0.0.1 and, where there is IPv6, ::1 too.
        port: 0 for any.
        next_free: if the port is taken or forbidden, try those after it.

    Raises:
        OSError: none could be opened.
    """
    last = min(port + ATTEMPTS, 65535) if next_free and port else port
    while True:
        try:
            return await _open(host, port)
        except OSError as exc:
            if exc.errno not in _PORT_TAKEN_ERRNOS or port >= last:
                raise
            port += 1


async def _open(host: str, port: int) -> list[trio.SocketListener]:
    if host.rstrip(".").lower() != "localhost":
        return await trio.open_tcp_listeners(port, host=host)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    try:
        listeners += await trio.open_tcp_listeners(listeners[0].socket.getsockname()[1], host="::1")
    except OSError as exc:
        # Any port will do: that its twin is taken is no reason to fail.
        if exc.errno not in _NO_IPV6_ERRNOS and port:
            await close_listeners(listeners)
            raise
    return listeners


async def close_listeners(listeners: Iterable[Listener]) -> None:
    """Close all *listeners*, also while this is being cancelled. Doing so twice does nothing."""
    with trio.CancelScope(shield=True):  # which lets nothing wait: see `trio.aclose_forcefully`
        for listener in listeners:
            await trio.aclose_forcefully(listener)


async def serve_listeners(
    respond: Responder,
    listeners: Sequence[Listener],
    *,
    limits: Limits | None = None,
    grace: float = 5.0,
    most: int | None = None,
    on_record: Callable[[RequestRecord], object] | None = None,
    recorder: Recording | None = None,
    stop: trio.Event,
    shutdown: Shutdown | None = None,
    task_status: trio.TaskStatus[Sequence[Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every client of *listeners* until *stop* is set; the listeners are closed then.

    Args:
        respond: makes a response of each request.
        listeners: what to accept from; a stream of TLS makes requests of scheme ``https``.
        limits: for each connection; see `Limits`.
        grace: seconds that requests in flight have once *stop* is set. Then they are cancelled.
        most: how many connections may be open at once; None for any number.
        on_record: called with each `RequestRecord`, when it is over.
        recorder: wants more in each record than the access log.
        stop: set it to stop.
        shutdown: what the connections are told; its `Shutdown.drain` may come before *stop*.
        task_status: ``nursery.start`` gives the listeners back once they are being served.
    """
    shutdown = shutdown or Shutdown()
    room = ConnectionLimit(most, shutdown)
    serve = _Serving(respond, limits or Limits(), on_record, recorder, shutdown, room).serve

    with room.spare, _released_in_children([*_names_of(listeners)]):
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(_accept, listener, connections, serve, room)
                    task_status.started(listeners)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
            finally:
                await close_listeners(listeners)
            connections.cancel_scope.deadline = trio.current_time() + grace
            shutdown.request()


class ConnectionLimit:
    """Counts the open connections with their files, and makes room where there are too many.

    Args:
        most: how many there may be at once; None for any number.
        shutdown: knows the connections.

    Attributes:
        spare: what a new connection takes when there is no other descriptor.
    """

    def __init__(self, most: int | None, shutdown: Shutdown) -> None:
        self.spare = SpareDescriptor()
        self._most = sys.maxsize if most is None else most
        self._shutdown = shutdown
        self._open = 0
        self._next_look = 0.0
        self._room_made = trio.Event()
        self._warnings = ThrottledLogger(log)
        shutdown.on_file = self._note_file

    @property
    def _missing(self) -> int:
        """How many must be closed before one more can be opened."""
        return self._open + self._shutdown.files + 1 - self._most

    async def enter(self) -> None:
        """Count one more connection, as soon as there is room for it."""
        began = trio.current_time()
        while self._missing > 0:
            self.make_room(trio.current_time() - began)
            with trio.move_on_after(ACCEPT_PAUSE):  # then one that was busy may be idle
                while self._missing > 0:
                    self._room_made = trio.Event()
                    await self._room_made.wait()
        self._open += 1

    def leave(self) -> None:
        self._open -= 1
        self.spare.hold()
        self._room_made.set()

    def make_room(self, waited: float = 0, why: str = "") -> None:
        """Close some of the connections that wait for their clients; see `Shutdown.make_room`."""
        closed = self._shutdown.make_room(max(self._missing, 1 + self._open // SHED), waited)
        if closed or self._missing > 0:
            crowd = f"{self._open:,} connections are open, and more would leave scripts no files"
            self._warnings.warn(
                "%s: those that wait for their clients are being closed to make room. " + ADVICE,
                why or crowd,
            )

    def _note_file(self) -> None:
        now = trio.current_time()
        if self._missing > 0 and now >= self._next_look:  # those that are told to end need a moment
            self._next_look = now + ACCEPT_PAUSE
            self.make_room()


async def _accept(
    listener: Listener, connections: trio.Nursery, serve: Callable[..., Any], room: ConnectionLimit
) -> None:
    failing, paused = ThrottledLogger(log), False
    while True:
        try:
            stream = await listener.accept()
        except trio.ClosedResourceError:
            return
        except (OSError, MemoryError) as exc:
            why = os.strerror(getattr(exc, "errno", None) or errno.ENOMEM)
            if is_too_many_files(exc):
                room.make_room(why=why)  # which gives some back soon
                if room.spare.release():
                    continue
            paused |= failing.warn("Cannot accept connections right now: %s. %s", why, ADVICE)
            await trio.sleep(ACCEPT_PAUSE)
        else:
            if paused:
                paused = False
                log.warning("Accepting connections again.")
            try:
                await room.enter()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            connections.start_soon(serve, stream)


class _Greeting:
    """A connection whose client has not said yet whether it speaks TLS."""

    def __init__(self, seconds: float) -> None:
        self.scope = trio.move_on_after(seconds)
        self._since = trio.current_time()

    def request_shutdown(self) -> None:
        self.scope.cancel()

    def current_wait(self) -> tuple[Wait, float] | None:
        return None if self.scope.cancel_called else (Wait.HEAD, self._since)

    def running_record(self) -> None:
        return None

    def shed(self) -> None:
        self.scope.cancel()


@dataclass(frozen=True, slots=True)
class _Serving:
    """What all connections have in common."""

    respond: Responder
    limits: Limits
    on_record: Callable[[RequestRecord], object] | None
    recorder: Recording | None
    shutdown: Shutdown
    room: ConnectionLimit

    def serve(self, stream: trio.abc.Stream) -> Coroutine[Any, Any, None]:
        """Serve one connection; whatever goes wrong with it is its own business."""
        client, server = _addresses(stream)
        if isinstance(stream, trio.SSLStream):
            return self._serve_tls(stream, client, server)
        return self._serve(stream, client, server, "http")

    async def _serve_tls(
        self, stream: trio.SSLStream[Any], client: Address, server: Address
    ) -> None:
        # Imports ssl, which takes time.
        from rpyserve.serving.tls import answer_plain_http

        speaks_tls = False
        greeting = _Greeting(self.limits.head_time)
        self.shutdown.subscribe(greeting)
        try:
            with reporting_errors(report_connection_failure), greeting.scope:
                speaks_tls = not await answer_plain_http(stream, server)
        finally:
            self.shutdown.unsubscribe(greeting)
            if not speaks_tls:
                try:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await trio.aclose_forcefully(stream)
                finally:
                    self.room.leave()
        if speaks_tls:
            await self._serve(stream, client, server, "https")

    def _serve(
        self, stream: trio.abc.Stream, client: Address, server: Address, scheme: str
    ) -> Coroutine[Any, Any, None]:
        return serve_connection(
            stream,
            self.respond,
            limits=self.limits,
            client=client,
            server=server,
            scheme=scheme,
            on_record=self.on_record,
            recorder=self.recorder,
            shutdown=self.shutdown,
            on_close=self.room.leave,
        )


# Processes that scripts fork

# The ports, and the paths of Unix sockets, that are served.
_served: list[int | str] = []


@contextmanager
def _released_in_children(names: Sequence[int | str]) -> Iterator[None]:
    """While inside, a process that is forked lets go of the sockets of these *names*."""
    _served.extend(names)
    try:
        yield
    finally:
        for name in names:
            _served.remove(name)


def _names_of(listeners: Iterable[Any]) -> Iterator[int | str]:
    for listener in listeners:
        with suppress(AttributeError):  # a listener in memory has no socket
            name = getattr(listener, "transport_listener", listener).socket.getsockname()
            yield name[1] if isinstance(name, tuple) else name


def _release_sockets() -> None:
    """In a forked process: let go of the server's listeners and connections.

    A worker of a pool would keep the port taken when the server is gone, and connections open that
    the server has closed. Their numbers are kept, for an object of the server's may close them yet.
    """
    if not _served:
        return
    with suppress(OSError):
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            if _local_name(descriptor) in _served:
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _local_name(descriptor: int) -> int | str | None:
    """The port of a socket of TCP, or the path of a Unix socket; None for anything else."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        name = sock.getsockname()
    except OSError:
        return None
    finally:
        sock.detach()
    if sock.type != socket.SOCK_STREAM:
        return None
    return name[1] if isinstance(name, tuple) else str(name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_sockets)


def _addresses(stream: trio.abc.Stream) -> tuple[Address, Address]:
    """Return the client's and our own address.

    They are unknown for a stream that is no socket, and for a client that has gone. Clients on a
    Unix socket have no address, and are all called ``unix:``.
    """
    bottom: Any = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        server = bottom.socket.getsockname()
        if not isinstance(server, tuple):
            return _ON_UNIX_SOCKET, _ON_UNIX_SOCKET
        client = bottom.socket.getpeername()
    except (AttributeError, OSError):
        return ("", 0), ("", 0)
    return client[:2], _shared(server[:2])


@functools.lru_cache(maxsize=64)
def _shared(address: Address) -> Address:
    """The same object for equal addresses: we have few, and connections that rest keep theirs."""
    return address
