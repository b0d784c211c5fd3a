"""Listeners, and one task for each connection.

One guard stands round every connection, so that no client, and no fault of ours, ends the server or touches another
connection. The nursery tree is ``connections[ accepting[ listeners ] ]``: to stop, accepting is cancelled, resting
connections end at once, and the others have a time of grace. It knows of responders, not of sites.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from rpyserve.exchange import Exchange, Limits, Responder, Stopping
from rpyserve.http11 import serve_connection
from rpyserve.request import Address

__all__ = ["open_listeners", "serve_listeners"]

log = logging.getLogger("rpyserve")

ATTEMPTS: Final = 100
"""How many ports `open_listeners` tries if the next free one will do."""

ACCEPT_PAUSE: Final = 0.1
"""Seconds to wait after an ``accept`` that failed, such as for want of file descriptors."""

_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EACCES, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)})
_NO_SUCH_STACK: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

Listener = trio.abc.Listener[Any]


async def open_listeners(host: str, port: int, *, next_free: bool = False) -> list[trio.SocketListener]:
    """Listen on *port* of *host*.

    Args:
        host: an address or a name; ``"localhost"`` is 127.0.0.1 and, where there is IPv6, ::1 as well.
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
            if exc.errno not in _TAKEN or port >= last:
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
        if exc.errno not in _NO_SUCH_STACK and port:
            for listener in listeners:
                await trio.aclose_forcefully(listener)
            raise
    return listeners


async def serve_listeners(
    respond: Responder,
    listeners: Sequence[Listener],
    *,
    limits: Limits | None = None,
    grace: float = 5.0,
    on_exchange: Callable[[Exchange], object] | None = None,
    stop: trio.Event,
    task_status: trio.TaskStatus[Sequence[Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every client of *listeners* until *stop* is set; the listeners are closed then.

    Args:
        respond: makes a response of each request.
        listeners: what to accept from; a stream of TLS makes requests of scheme ``https``.
        limits: for each connection; see `Limits`.
        grace: seconds that requests in flight have once *stop* is set. Then they are cancelled.
        on_exchange: called with each `Exchange`, when it is over.
        stop: set it to stop.
        task_status: ``nursery.start`` gives the listeners back once they are being served.
    """
    stopping = Stopping()

    async def serve(stream: trio.abc.Stream) -> None:
        await _guarded(stream, respond, limits, on_exchange, stopping)

    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(_accept, listener, connections, serve)
                task_status.started(listeners)
                await stop.wait()
                accepting.cancel_scope.cancel()
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)
        connections.cancel_scope.deadline = trio.current_time() + grace
        stopping.request()


async def _accept(listener: Listener, connections: trio.Nursery, serve: Callable[..., Any]) -> None:
    complained = False
    while True:
        try:
            stream = await listener.accept()
        except trio.ClosedResourceError:
            return
        except OSError as exc:
            # Out of descriptors, most likely: those who are being served will give some back.
            if not complained:
                log.warning("A connection could not be accepted: %s", exc.strerror or os.strerror(exc.errno or 0))
            complained = True
            await trio.sleep(ACCEPT_PAUSE)
        else:
            complained = False
            connections.start_soon(serve, stream)


async def _guarded(
    stream: trio.abc.Stream,
    respond: Responder,
    limits: Limits | None,
    on_exchange: Callable[[Exchange], object] | None,
    stopping: Stopping,
) -> None:
    """Serve one connection; whatever goes wrong with it is its own business."""
    try:
        client, server = _addresses(stream)
        await serve_connection(
            stream,
            respond,
            limits=limits,
            client=client,
            server=server,
            scheme="https" if isinstance(stream, trio.SSLStream) else "http",
            on_exchange=on_exchange,
            stopping=stopping,
        )
    except BaseExceptionGroup as group:
        faults, rest = group.split(Exception)
        if faults is not None:
            _tell(faults)
        if rest is not None:
            raise rest from None
    except Exception as exc:
        _tell(exc)
    finally:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)


def _tell(fault: BaseException) -> None:
    log.error("A connection failed: %s: %s", type(fault).__name__, fault)
    log.debug("Where it came from:", exc_info=fault)


def _addresses(stream: trio.abc.Stream) -> tuple[Address, Address]:
    """The client's and our own address; unknown for a stream that is no socket, or a client that has gone."""
    bottom: Any = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        client, server = bottom.socket.getpeername(), bottom.socket.getsockname()
    except (AttributeError, OSError):
        return ("", 0), ("", 0)
    return client[:2], server[:2]
