"""Scripts that send a request to their own server, and would wait for themselves for ever.

Sync code of a script holds the loop until it returns, so a blocking connection from the loop's
thread to our own listening address can never be answered. Python's audit hooks see each ``connect``
before it happens, and an exception raised there comes out of the call. An audit hook cannot be
removed, so one is installed once and consults the servers that run at the moment. A process that a
script forks has no server in it, and may send requests to this one.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

Bound = tuple[str, int]

MESSAGE = (
    "this script sends a request to its own server ({host}:{port}), which cannot answer until "
    "the script returns: call the function that makes the page instead, or write `async def` and "
    "send the request with `await trio.to_thread.run_sync(f)`"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Server:
    """A server of this process: the addresses that lead to it, and the thread of its loop."""

    targets: frozenset[Bound]
    thread: int = field(default_factory=threading.get_ident)


_servers: list[_Server] = []
_hooked = False


@contextmanager
def forbid_self_requests(bound: Iterable[Bound], own: Iterable[str] = ()) -> Iterator[None]:
    """While inside, raise a RuntimeError where a script of this thread would wait for itself.

    That is a blocking connection to one of the addresses *bound*.

    Args:
        bound: the addresses and ports of the listeners.
        own: further addresses of this machine, which count where a listener accepts all of them.
    """
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)
    server = _Server(frozenset(target for each in bound for target in _targets(each, own)))
    _servers.append(server)
    try:
        yield
    finally:
        _servers.remove(server)


def connection_waiting(sockets: Iterable[Any]) -> Callable[[], bool]:
    """Return a function that tells whether a connection waits to be accepted.

    Args:
        sockets: listening sockets.
    """
    sockets = list(sockets)

    def waiting() -> bool:
        try:
            return bool(select.select(sockets, (), (), 0)[0])
        except (OSError, ValueError):  # closed meanwhile, or a number too large for select
            return False

    return waiting


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not _servers:
        return
    sock, address = args
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return
    target = (address[0].lower(), *address[1:2])
    thread = threading.get_ident()
    for server in _servers:
        if server.thread == thread and target in server.targets and _would_block(sock):
            raise RuntimeError(MESSAGE.format(host=address[0], port=address[1]))


def _would_block(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and sock.gettimeout() != 0


def _targets(bound: Bound, own: Iterable[str]) -> Iterator[Bound]:
    """The addresses that lead to a socket that is bound to *bound*."""
    host, port = bound
    address = ip_address(host.partition("%")[0])
    hosts = [host]
    if address.is_unspecified:
        hosts += ["127.0.0.1", "::1", *own]
    if address.is_unspecified or address.is_loopback:
        hosts += ["localhost", "", "0.0.0.0", "::"]
    return ((each, port) for each in hosts)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_servers.clear)
