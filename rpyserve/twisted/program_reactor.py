"""The reactor of a program: a genuine ``Site`` that it listens with is served by our server.

What it says of such a port is Twisted's: `SitePort` is an ``IListeningPort``, and a port that is
taken is a ``CannotListenError``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet import address, defer, error, interfaces
from zope.interface import implementer

from rpyserve.resources.resource import as_resource
from rpyserve.twisted.reactor import TrioReactor


class Host(Protocol):
    """The program that runs, to its reactor; see `rpyserve.twisted.program`."""

    has_listened: bool
    has_run: bool
    server: Any

    def listen(self, site: Any, listeners: list[Any]) -> None: ...

    def stop_listening(self, site: Any, listeners: list[Any]) -> None: ...

    def run(self, work: Callable[[], Awaitable[None]]) -> None: ...


class ProgramReactor(TrioReactor):
    """A reactor whose `run` is that of our server.

    Args:
        program: what has imported it.
    """

    def __init__(self, program: Host) -> None:
        self._program = program
        self._sites: dict[int, tuple[Any, Any]] = {}
        super().__init__()

    def run(self, installSignalHandlers: bool = True) -> None:
        """Serve until Ctrl-C, or `stop`.

        Raises:
            ReactorAlreadyRunning, ReactorNotRestartable: as Twisted's own.
        """
        if self._started or self._program.has_run:
            if self._startedBefore:
                raise error.ReactorNotRestartable
            raise error.ReactorAlreadyRunning
        self._program.run(self.run_tasks)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """Listen on *port*; on this machine only for a ``Site``, unless an address is named.

        Raises:
            CannotListenError: the port cannot be had.
        """
        if not _is_site(factory):
            self._program.has_listened = True
            return super().listenTCP(port, factory, backlog, interface)
        try:
            listeners = self._program.server.open_port(interface, port)
        except OSError as exc:
            raise error.CannotListenError(interface, port, exc) from None
        factory.doStart()
        native = self._site_of(factory)
        self._program.listen(native, listeners)
        return SitePort(factory, listeners, partial(self._program.stop_listening, native))

    def listenUNIX(self, *args: Any, **kwargs: Any) -> Any:
        """Listen on a Unix socket, as Twisted does."""
        self._program.has_listened = True
        return super().listenUNIX(*args, **kwargs)

    def listenUDP(self, *args: Any, **kwargs: Any) -> Any:
        """Listen on a UDP port, as Twisted does."""
        self._program.has_listened = True
        return super().listenUDP(*args, **kwargs)

    def _site_of(self, genuine: Any) -> Any:
        """Return the site of ours that serves *genuine*."""
        known = self._sites.get(id(genuine))
        if known is None:
            from rpyserve.twisted import site

            native = self._program.server.make_site(as_resource(genuine.resource))
            site.use(native, genuine)
            known = self._sites[id(genuine)] = genuine, native
        return known[1]


def _is_site(factory: Any) -> bool:
    module = sys.modules.get("twisted.web.server")
    return module is not None and isinstance(factory, module.Site)


@implementer(interfaces.IListeningPort)
class SitePort:
    """A port at which our server serves a ``Site``.

    Args:
        factory: the site.
        listeners: the listeners of trio.
        stop: has the listeners that it is given accept nothing more.
    """

    def __init__(
        self, factory: Any, listeners: list[Any], stop: Callable[[list[Any]], None]
    ) -> None:
        self.factory = factory
        self._listeners = listeners
        self._stop = stop
        self._address = listeners[0].socket.getsockname()

    def startListening(self) -> None:
        """Do nothing: it listens already."""

    def stopListening(self) -> defer.Deferred[None]:
        """Accept no further connections."""
        self._stop(self._listeners)
        self._listeners = []
        return defer.succeed(None)

    loseConnection = stopListening

    def getHost(self) -> Any:
        """Return the address that it listens on."""
        kind = address.IPv6Address if ":" in self._address[0] else address.IPv4Address
        return kind("TCP", *self._address[:2])
