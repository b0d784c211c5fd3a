"""Redis without trio: the sign that a worker lives, and calls that wait for the network.

The sign is a key that ends unless it is set again and again, and a channel that is subscribed to.
That is done from a thread of its own, by a connection of its own: a script that holds the event
loop for seconds does not make the worker dead, and its sessions are not taken from it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import hiredis

from rpyserve.stores.redis_address import RedisAddress
from rpyserve.stores.redis_client import Word, hello, pack_command

BEAT: Final = 0.5
"""Seconds from one beat to the next."""

LIFE: Final = 1500
"""Milliseconds that a beat lasts."""

_TIMEOUT: Final = 1.0


class Heartbeat:
    """Sets *key* every `BEAT` seconds and is subscribed to *channel*, from `start` until `stop`.

    While Redis cannot be reached it tries again, and says nothing: the client of the event loop
    does.
    """

    def __init__(self, address: RedisAddress, key: str, channel: str) -> None:
        self._address = address
        self._key = key
        self._channel = channel
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"rpyserve heartbeat to {address}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take the key away soon, so that nobody has to wait for its end."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the key is gone, or Redis could not be reached for that."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with (
                contextlib.suppress(OSError, hiredis.HiredisError),
                connected(self._address) as call,
            ):
                self._beat(call)
            self._stopped.wait(BEAT)

    def _beat(self, call: Caller) -> None:
        call("SUBSCRIBE", self._channel)
        while not self._stopped.is_set():
            call("SET", self._key, 1, "PX", LIFE)
            self._stopped.wait(BEAT)
        call("DEL", self._key)


class Caller:
    """Sends a command over a socket, waits for the reply, and raises it if it is an error."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(notEnoughData=self)

    def __call__(self, *words: Word) -> Any:
        self._connection.sendall(pack_command(words))
        while (reply := self._reader.gets()) is self:
            data = self._connection.recv(65536)
            if not data:
                raise ConnectionResetError
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


@contextlib.contextmanager
def connected(address: RedisAddress) -> Iterator[Caller]:
    """A connection that plain functions can use.

    Raises:
        OSError: there is none.
        hiredis.HiredisError: it does not let us in.
    """
    with _open_socket(address) as connection:
        connection.settimeout(_TIMEOUT)
        call = Caller(connection)
        call(*hello(address))
        if address.database:
            call("SELECT", address.database)
        yield call


def _open_socket(address: RedisAddress) -> socket.socket:
    if address.path is not None:
        return _open_unix_socket(address.path)
    context = None if address.tls is None else address.tls.context()
    connection = socket.create_connection((address.host, address.port), timeout=_TIMEOUT)
    if context is None:
        return connection
    return context.wrap_socket(connection, server_hostname=address.host)


def _open_unix_socket(path: str) -> socket.socket:
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        stack.pop_all()
        return connection
