"""A client of Redis on trio: one connection, which any number of tasks share.

The parser and the packer are hiredis's, which the authors of Redis maintain. Here is what trio has
to do with them: the commands of all tasks go out together, replies come back in the order of the
commands, and a connection that is lost is made anew. The protocol is RESP3, so that messages to a
channel come by the same connection. A task that is cancelled leaves its place in the queue behind,
so that its reply is not taken for another's.

Knows nothing of sessions.
"""

from __future__ import annotations

import logging
import os
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NoReturn, TypeAlias, cast

import hiredis
import trio

from rpyserve.stores.redis_address import RedisAddress
from rpyserve.stores.store import StoreError, Unavailable

Word: TypeAlias = bytes | str | int

TIMEOUT: Final = 5.0
"""Seconds that a connection may take to be made, and a reply to come."""

LONGEST_WAIT: Final = 1.0
"""Seconds after a connection was lost in which commands wait for the next one."""

LOADING_LONGEST_WAIT: Final = 60.0
"""Seconds that a start waits for a Redis that is still loading its data."""

_CHUNK: Final = 65536
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# In how many looks in a row a reply must be missing before it counts as late. A loop that was
# blocked for long finds the reply and the deadline at once, so one look would not do.
_LOOKS: Final = 5
_NOTHING: Final = object()
# After such a reply another connection may find what this one does not: the primary.
_WRONG_SERVER: Final = ("READONLY", "MASTERDOWN")
_EXPECTED: Final = (
    OSError,
    StoreError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    hiredis.HiredisError,
)

pack_command: Final[Callable[[tuple[Word, ...]], bytes]] = cast(Any, hiredis).pack_command
"""hiredis's own, whose types say that a command has one word."""

log = logging.getLogger("rpyserve")


class RedisError(Unavailable):
    """Redis has answered a command by an error.

    Args:
        reply: what it says.
        address: which Redis, as far as that is known.

    Attributes:
        code: the first word of *reply*, such as ``NOSCRIPT``.
    """

    def __init__(self, reply: str, address: RedisAddress | None = None) -> None:
        text = reply.partition(" script: ")[0]  # where in it says nothing to people
        super().__init__(text if address is None else f"Redis at {address}: {text}")
        self.reply = reply
        self.code = reply.partition(" ")[0]


class ConnectionLost(Unavailable):
    """The connection ended before a reply came: nobody knows whether the command was done."""


_CLOSED: Final = (ConnectionLost, trio.BrokenResourceError)


class Call:
    """A command that has been sent, and the task that waits for its reply; None if none does."""

    __slots__ = ("reply", "task")

    def __init__(self, task: trio.lowlevel.Task | None) -> None:
        self.task = task
        self.reply: Any = None

    def finish(self, reply: Any) -> None:
        self.reply = reply
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)

    def abandon(self, raise_cancel: object) -> trio.lowlevel.Abort:
        """Let the task go that is cancelled: nobody waits for the reply then."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def stay(self, raise_cancel: object) -> trio.lowlevel.Abort:
        """Have the task wait though it is cancelled: the reply comes soon, or none will."""
        return trio.lowlevel.Abort.FAILED

    def result(self, address: RedisAddress | None) -> Any:
        """Return the reply, or raise what it is."""
        reply = self.reply
        if type(reply) is hiredis.ReplyError:
            raise RedisError(str(reply), address)
        if type(reply) is ConnectionLost:
            raise ConnectionLost(f"Redis at {address}: {reply}" if address else str(reply))
        return reply


class RedisConnection:
    """One connection to Redis.

    Args:
        stream: to the server.
        on_push: called with the words of each message to a channel.

    Attributes:
        lost_because: why the connection has ended; None while it is there.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        on_push: Callable[[list[Any]], object] = lambda words: None,
    ) -> None:
        self.lost_because: Exception | None = None
        self._stream = stream
        # What the system takes and has at once needs no turn of the loop, as trio's streams do.
        plain = type(stream) is trio.SocketStream and os.name == "posix"
        self._socket = cast(trio.SocketStream, stream).socket if plain else None
        self._on_push = on_push
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._calls: deque[Call] = deque()
        self._outgoing: list[bytes] = []
        self._sender = trio.lowlevel.ParkingLot()

    async def call(self, *words: Word) -> Any:
        """Send a command, and return the reply to it.

        Raises:
            RedisError: the reply is an error.
            ConnectionLost: the connection ended first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.lost_because is not None:
            raise ConnectionLost("the connection was lost")
        call = self.begin(words)
        await trio.lowlevel.wait_task_rescheduled(call.abandon)
        return call.result(None)

    def begin(self, words: tuple[Word, ...]) -> Call:
        """Send a command for the current task, which is rescheduled when the reply is there."""
        call = Call(trio.lowlevel.current_task())
        self._enqueue(call, words)
        return call

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send and receive until the connection is lost, or until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                nursery.start_soon(self._receive)
                nursery.start_soon(self._watch)
                task_status.started()
        except Exception as exc:
            self.lost_because = _first_expected(exc)
        finally:
            self.lost_because = self.lost_because or ConnectionLost("it was closed here")
            for call in self._calls:
                call.finish(ConnectionLost("the connection was lost before the reply came"))
            self._calls.clear()
            await trio.aclose_forcefully(self._stream)

    def _enqueue(self, call: Call, words: tuple[Word, ...]) -> None:
        self._outgoing.append(pack_command(words))
        self._calls.append(call)
        if len(self._outgoing) == 1:
            self._sender.unpark()

    async def _send(self) -> None:
        while True:
            while not self._outgoing:
                await self._sender.park()
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            sent = self._send_nowait(data)
            if sent < len(data):
                await self._stream.send_all(data[sent:])

    def _send_nowait(self, data: bytes) -> int:
        """Send what can be sent now; return how many bytes. A failure is left to the stream."""
        if self._socket is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    async def _receive(self) -> None:
        while data := await self._receive_some():
            self._reader.feed(bytes(data))
            while (reply := self._reader.gets()) is not _NOTHING:
                self._hand_out(reply)
        raise ConnectionLost("it has closed the connection")

    async def _receive_some(self) -> bytes | bytearray:
        if self._socket is not None:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return os.read(self._socket.fileno(), _CHUNK)
            except OSError:
                pass  # the stream knows what it means
        return await self._stream.receive_some(_CHUNK)

    def _hand_out(self, reply: Any) -> None:
        # The reply to SUBSCRIBE is a push itself.
        if type(reply) is hiredis.PushNotification and reply[0] != b"subscribe":
            self._on_push(reply)
            return
        if not self._calls:
            raise hiredis.ProtocolError("a reply to no command")
        self._calls.popleft().finish(reply)
        if type(reply) is hiredis.ReplyError and str(reply).startswith(_WRONG_SERVER):
            raise RedisError(str(reply))

    async def _watch(self) -> None:
        """Raise if a reply is missing for too long. A server that is silent is asked for one."""
        oldest: Call | None = None
        looks = 0
        while True:
            await trio.sleep(TIMEOUT / _LOOKS)
            if not self._calls:
                self._enqueue(Call(None), ("PING",))
            looks = looks + 1 if oldest is self._calls[0] else 0
            oldest = self._calls[0]
            if looks >= _LOOKS:
                raise trio.TooSlowError


class RedisClient:
    """One Redis, over a connection that is made anew whenever it is lost.

    Args:
        address: where it is, and how to get in.
        greet: called with each new connection before others use it. What it raises means that this
            Redis is of no use.
        on_push: called with the words of each message to a channel that *greet* has subscribed to.
        open_stream: makes the connection.

    Attributes:
        connections: how many there have been so far.
        connected_at: when the last one was made, by `trio.current_time`.
    """

    def __init__(
        self,
        address: RedisAddress,
        greet: Callable[[RedisConnection], Awaitable[object]],
        on_push: Callable[[list[Any]], object] = lambda words: None,
        open_stream: Callable[[RedisAddress], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        self.address = address
        self.connections = 0
        self.connected_at = 0.0
        self._greet = greet
        self._on_push = on_push
        self._open_stream = open_stream or open_redis_stream
        self._connection: RedisConnection | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self._lost_at = 0.0
        self._reason = ""

    async def call(self, *words: Word) -> Any:
        """Send a command, and return the reply to it.

        Raises:
            RedisError: the reply is an error.
            ConnectionLost: the connection ended first, so nobody knows whether it was done.
            Unavailable: there is no connection, so it was not done.
        """
        return await self.ask(words)

    async def ask(self, words: tuple[Word, ...], *, to_the_end: bool = False) -> Any:
        """Do the same, and with *to_the_end* return or raise only when it is known how it went.

        A task that is cancelled waits all the same then, which it need not do for long: no longer
        than a connection is waited for, and `TIMEOUT` for the reply.
        """
        if not to_the_end:
            await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._connection
        if connection is None or connection.lost_because is not None:
            connection = await self._wait_connected(shield=to_the_end)
        call = connection.begin(words)
        wait = call.stay if to_the_end else call.abandon
        await trio.lowlevel.wait_task_rescheduled(wait)
        return call.result(self.address)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until cancelled. A first one must be had, or this raises.

        Raises:
            StoreError: this Redis cannot be used. One that is loading its data is waited for.
        """
        give_up = trio.current_time() + LOADING_LONGEST_WAIT
        pause = _FIRST_PAUSE
        while True:
            before = self.connections
            try:
                await self._run_once(task_status)
            except Exception as exc:
                reason = self._describe(_first_expected(exc))
            if before < self.connections:
                pause = _FIRST_PAUSE
                self._has_lost(reason)
            elif not before and (not _is_loading(reason) or trio.current_time() > give_up):
                raise StoreError(f"Redis at {self.address} cannot be used: {reason}.")
            self._reason = reason
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _run_once(self, task_status: trio.TaskStatus[None]) -> NoReturn:
        """Connect, and stay until the connection is lost; raise why there is none."""
        with trio.fail_after(TIMEOUT):
            stream = await self._open_stream(self.address)
        connection = RedisConnection(stream, self._on_push)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(connection.run)
                with trio.fail_after(TIMEOUT):
                    await _enter(connection, self.address)
                    await self._greet(connection)
                if not self.connections:
                    task_status.started()
                self._has_connected(connection)
        except* ConnectionLost:
            pass  # what ended the connection says more
        raise connection.lost_because or ConnectionLost("it was lost")

    def _describe(self, exc: Exception) -> str:
        """Return why there is no connection, with what may be wrong in the address."""
        hint = ""
        if not self.connections and self.address.path is None:
            if self.address.tls is not None and isinstance(exc, trio.TooSlowError):
                hint = ". Without TLS, it is redis://"
            if self.address.tls is None and isinstance(exc, _CLOSED):
                hint = ". If it wants TLS, write rediss://"
        return describe(exc) + hint

    def _has_connected(self, connection: RedisConnection) -> None:
        if self.connections:
            log.info("Redis at %s is back.", self.address)
        self.connections += 1
        self.connected_at = trio.current_time()
        self._connection = connection
        self._waiting.unpark_all()

    def _has_lost(self, reason: str) -> None:
        self._connection = None
        self._lost_at = trio.current_time()
        log.warning(
            "Redis at %s is lost: %s. What needs it is answered by 503 until it is back.",
            self.address,
            reason,
        )

    async def _wait_connected(self, *, shield: bool) -> RedisConnection:
        lost_at = self._lost_at if self._connection is None else trio.current_time()
        with trio.move_on_at(lost_at + LONGEST_WAIT, shield=shield):
            while True:
                await self._waiting.park()
                if self._connection is not None and self._connection.lost_because is None:
                    return self._connection
        raise Unavailable(f"Redis at {self.address} cannot be reached: {self._reason}")


async def open_redis_stream(address: RedisAddress) -> trio.abc.Stream:
    """Connect to *address*, by TLS if it says so.

    Raises:
        OSError: nobody listens there, or a file for TLS cannot be read.
        trio.BrokenResourceError: TLS has failed.
    """
    if address.path is not None:
        return await trio.open_unix_socket(address.path)
    context = None if address.tls is None else address.tls.context()
    stream = await trio.open_tcp_stream(address.host, address.port)
    if context is None:
        return stream
    encrypted = trio.SSLStream(stream, context, server_hostname=address.host)
    try:
        await encrypted.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(encrypted)
        raise
    return encrypted


async def _enter(connection: RedisConnection, address: RedisAddress) -> None:
    """Switch to RESP3, log in, and choose the database."""
    await connection.call(*hello(address))
    if address.database:
        await connection.call("SELECT", address.database)


def hello(address: RedisAddress) -> tuple[Word, ...]:
    """The first command of a connection: the protocol, and the user."""
    if address.password is None:
        return ("HELLO", 3)
    return ("HELLO", 3, "AUTH", address.user or "default", address.password)


# What an error's first words mean, for whoever has to do something about it.
_ADVICE: Final = (
    ("NOAUTH", "it wants a password, as in redis://:PASSWORD@HOST"),
    ("WRONGPASS", "it does not accept that user and password"),
    ("ERR DB index", "it has no database of that number"),
    ("ERR unknown command 'HELLO'", "it is older than version 6"),
    ("ERR unknown command `HELLO`", "it is older than version 6"),
    ("DENIED", "it is in protected mode, and lets nobody in from another machine"),
    ("READONLY", "it is a replica, which cannot be written"),
)


def describe(exc: Exception) -> str:
    """Return why Redis cannot be used, as the end of a sentence."""
    if isinstance(exc, RedisError):
        reply = exc.reply
        return next((advice for start, advice in _ADVICE if reply.startswith(start)), reply)
    if isinstance(exc, trio.TooSlowError):
        return f"it has not answered for {TIMEOUT:g} seconds"
    if isinstance(exc, hiredis.HiredisError):
        return "what answers there does not speak the protocol of Redis, or wants TLS (rediss://)"
    return _describe_error(exc)


def _describe_error(exc: BaseException) -> str:
    """Return the text of what is at the bottom of *exc*."""
    if isinstance(exc, BaseExceptionGroup):
        return _describe_error(exc.exceptions[0])
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS has failed ({exc.reason}). Without TLS, it is redis://"
    if exc.__cause__ is not None:
        return _describe_error(exc.__cause__)
    if (
        isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0
    ):  # trio's texts have the address, too
        return os.strerror(exc.errno)
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)


def _is_loading(reason: str) -> bool:
    return reason.startswith("LOADING")


def _first_expected(exc: Exception) -> Exception:
    """Return the first failure of the network, or of Redis, in *exc*; anything else is raised."""
    leaves = list(_leaves(exc))
    if not all(isinstance(leaf, _EXPECTED) for leaf in leaves):
        raise exc
    return leaves[0]


def _leaves(exc: Exception) -> Iterator[Exception]:
    if isinstance(exc, ExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    else:
        yield exc
