"""A program of the author's: it makes its sites itself, and ends with ``reactor.run()``.

It runs as ``__main__``. A `Site` that it listens with is served by our server, which is passed in
as a `Server`; what else it listens with is Twisted's own business. Where there is no Twisted, two
names stand in for its reactor, so that the programs of "Twisted Web in 60 seconds" run.

Must not import Twisted before the program does.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from rpyserve.resources.resource import Resource
from rpyserve.scripts import twisted_names
from rpyserve.util.text import install_command

Work = Callable[[], Awaitable[None]]


class Server(Protocol):
    """Who serves the sites of a program."""

    @property
    def make_site(self) -> Callable[[Any], Any]:
        """Makes a site of ours of a root, or of a site of ours that the program has made."""

    def open_port(self, host: str, port: int) -> list[Any]:
        """Return listeners of a TCP port. An empty *host* is that of the command line.

        Raises:
            OSError: it cannot be had.
        """

    def explain(self, exc: OSError, host: str, port: int) -> str:
        """Say in one line why a port cannot be had."""

    def serve(self, site: Any, listeners: list[Any], work: Work | None) -> None:
        """Serve *site* until it is to stop, or *work* has returned."""

    async def serve_also(self, site: Any, listeners: list[Any], *, is_running: bool) -> None:
        """Serve *site* at further addresses, until cancelled.

        Args:
            is_running: whether it is served already.
        """


@dataclass(eq=False)
class Program:
    """A program that runs.

    Args:
        path: its file.
        server: who serves its sites.

    Attributes:
        has_listened: whether it has listened with anything.
        has_run: whether it has run the reactor.
    """

    path: Path
    server: Server
    has_listened: bool = False
    has_run: bool = False

    def __post_init__(self) -> None:
        # What it listens with before it runs: sites of ours, each with its listeners.
        self._sites: dict[Any, list[Any]] = {}
        self._serving: Any = None

    def listen(self, site: Any, listeners: list[Any]) -> None:
        """Serve *site*, a site of ours, at *listeners*: now, or when the reactor runs."""
        self.has_listened = True
        is_known = site in self._sites
        self._sites.setdefault(site, []).extend(listeners)
        if self._serving is not None:
            self._serve_also(site, listeners, is_running=is_known)

    def stop_listening(self, site: Any, listeners: list[Any]) -> None:
        """Accept no further connections for *site* at *listeners*."""
        for listener in listeners:
            try:
                listener.socket.close()
            except RuntimeError:  # the loop does not run yet, or no more: trio refuses
                self._sites[site].remove(listener)
                socket.close(listener.socket.detach())

    def run(self, work: Work | None) -> None:
        """Serve all sites until the server is to stop, or *work* has returned."""
        self.has_run = True
        if not self._sites:  # it may listen later, or just ask others
            self._sites[self.server.make_site(Resource())] = []
        self._serving, *others = self._sites
        for site in others:
            self._serve_also(site, self._sites[site], is_running=False)
        self.server.serve(self._serving, self._sites[self._serving], work)

    def _serve_also(self, site: Any, listeners: list[Any], *, is_running: bool) -> None:
        async def serve() -> None:
            await self.server.serve_also(site, listeners, is_running=is_running)

        self._serving.start_task(serve)


def execute(program: Program) -> None:
    """Run *program* as ``__main__``, until it ends.

    Raises:
        BaseException: what it raises.
    """
    global _current
    _current = program
    twisted_names.install()
    if twisted_names.genuine_spec() is None:
        twisted_names.PROVIDED["twisted.internet"] = {"reactor": __name__}
    else:
        from rpyserve.twisted import installation

        installation.make_reactor = _make_reactor
    sys.argv = [str(program.path)]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program.path)))
    runpy.run_path(str(program.path), run_name="__main__")


def _make_reactor() -> Any:
    from rpyserve.twisted.program_reactor import ProgramReactor

    assert _current is not None
    return ProgramReactor(_current)


_current: Program | None = None


class PlainReactor:
    """What stands in for ``twisted.internet.reactor`` where there is no Twisted: two names."""

    def listenTCP(self, port: int, site: Any, interface: str = "") -> None:
        """Serve *site*, a `Site`, at *port* once `run` is called.

        Raises:
            SystemExit: the port cannot be had.
        """
        assert _current is not None
        server = _current.server
        try:
            listeners = server.open_port(interface, port)
        except OSError as exc:
            raise SystemExit(server.explain(exc, interface, port)) from None
        _current.listen(server.make_site(site), listeners)

    def run(self) -> None:
        """Serve until Ctrl-C."""
        assert _current is not None
        _current.run(None)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"rpyserve has no reactor.{name}: it has listenTCP(port, site) and run(). The others "
            f"are Twisted's own, which is used once it is installed: {install_command('twisted')}"
        )


reactor = PlainReactor()
