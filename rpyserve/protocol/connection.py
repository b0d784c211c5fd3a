"""One HTTP/1.1 connection over any trio stream: requests in, a responder's answers out, in order.

The story of a connection: wait for a head, have it answered, send the answer, and again, until either side
wants no more. It knows nothing of sites or sockets. Whatever a client does, the fault is answered (shortly, in plain
text, with ``Connection: close``) or the connection ends; nothing is raised but what cancels, or interrupts, the
server. A request is always closed, and reported once when it is over.

Says on the console, now and then, that somebody spoke TLS to a server that does not.

A browser shows its visitor nothing but "secure connection failed", so the site's author has to be told. One teller for
all connections of a trio run, as a browser tries again at once and several times.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import trio

from rpyserve.http.errors import BadRequest, ClientDisconnected, HTTPError
from rpyserve.http.request import Address, Request
from rpyserve.http.response import Response, Stream, Upgrade
from rpyserve.http.types import Limits, RequestRecord, Responder, Shutdown
from rpyserve.protocol import timeouts
from rpyserve.protocol.grammar import with_host
from rpyserve.protocol.parser import RequestHead
from rpyserve.protocol.request_body import RequestBody
from rpyserve.protocol.response_headers import ResponseHeadCache, reason_of
from rpyserve.protocol.response_writer import ResponseWriter
from rpyserve.protocol.server_state import LoopTick
from rpyserve.protocol.transport import Phase, Transport
from rpyserve.util.exceptions import report_or_raise, unwrap_group
from rpyserve.util.throttle import ThrottledLogger

__all__ = [
    "Limits",
    "RequestRecord",
    "Responder",
    "Shutdown",
    "serve_connection",
    "tell_of_fault",
    "tell_of_tls",
]


log = logging.getLogger("rpyserve")
_teller: trio.lowlevel.RunVar[ThrottledLogger] = trio.lowlevel.RunVar("rpyserve TLS")


def tell_of_tls(server: Address) -> None:
    """Tell of a client that spoke TLS to *server*, our own address and port."""
    try:
        teller = _teller.get()
    except LookupError:
        teller = ThrottledLogger(log)
        _teller.set(teller)
    host, port = server
    host = f"[{host}]" if ":" in host else host
    teller.warn(
        "Someone asked for https://, which takes --tls. The page is at http://%s:%d/", host, port
    )


log = logging.getLogger("rpyserve")

_HEADS: Final = ResponseHeadCache()
_PLAIN: Final = (b"Content-Type", b"text/plain; charset=utf-8")
_RESTING: Final = frozenset({Phase.IDLE, Phase.DRAINING, Phase.LINGERING})


class _NextStep(enum.Enum):
    """What follows a response."""

    ANOTHER = enum.auto()
    DRAIN = enum.auto()
    CLOSE = enum.auto()
    LINGER = enum.auto()


def serve_connection(
    stream: trio.abc.Stream,
    respond: Responder,
    *,
    limits: Limits | None = None,
    client: Address,
    server: Address,
    scheme: str = "http",
    on_exchange: Callable[[RequestRecord], object] | None = None,
    stopping: Shutdown | None = None,
    rounds: LoopTick | None = None,
    ended: Callable[[], object] = lambda: None,
) -> Coroutine[Any, Any, None]:
    """Serve one client until it, or we, have had enough; then close *stream*.

    Args:
        stream: any trio stream; one that can be half-closed is, after a refusal.
        respond: makes a response of each request. What it raises is answered with a plain page, and ends the
            connection; `ClientDisconnected` ends it without one.
        limits: how much, and how long; see `Limits`.
        client: the client's address and port, and
        server: ours; both are passed on in each request, as is
        scheme: ``"http"`` or ``"https"``.
        on_exchange: called with each `RequestRecord` when it is over, refusals included.
        stopping: what says that the server is about to stop.
        rounds: those of the loop, so that requests which come together share their looks at the disk.
        ended: called when all is over.
    """
    connection = _Connection(
        Transport(stream, limits or Limits(), scheme), respond, on_exchange, stopping or Shutdown()
    )
    connection.client, connection.server, connection.scheme = client, server, scheme
    connection.rounds, connection.ended = rounds, ended
    return connection.run()


class _Connection:
    __slots__ = (
        "client", "ended", "made_room", "on_exchange", "out", "respond", "rounds", "scheme", "server", "stopping",
        "wire",
    )  # fmt: skip

    client: Address
    server: Address
    scheme: str
    rounds: LoopTick | None
    ended: Callable[[], object]

    def __init__(
        self,
        wire: Transport,
        respond: Responder,
        on_exchange: Callable[[RequestRecord], object] | None,
        stopping: Shutdown,
    ) -> None:
        self.wire = wire
        self.respond = respond
        self.on_exchange = on_exchange
        self.stopping = stopping
        self.made_room = False  # for another connection, by ending
        self.out: ResponseWriter | None = None  # what is being sent

    async def run(self) -> None:
        # What a connection that rests has on its stack is most of its memory. So the wait for a request is in here, and
        # not in a coroutine of its own; nor are there context managers of our own.
        wire, stop, orderly = self.wire, self._stop, False
        self.stopping.subscribe(stop)
        timeouts.watch(wire, wire.tick)
        try:
            with wire.scope:
                then = _NextStep.ANOTHER
                while then is _NextStep.ANOTHER:
                    wire.enter(Phase.IDLE)
                    if wire.parser.expects:
                        await (
                            trio.lowlevel.checkpoint()
                        )  # who sends much at once shall not keep the others waiting
                    while not wire.look():
                        await wire.receive_more()
                    then = await self._handle_message()
                orderly = True
            if wire.scope.cancelled_caught and wire.phase is Phase.HEAD and not self.made_room:
                await self._refuse_late_head()
        except BaseException as exc:
            report_or_raise(exc, tell_of_fault)
        finally:
            timeouts.unwatch(wire)
            self.stopping.unsubscribe(stop)
            try:
                await wire.close(orderly=orderly or wire.phase in _RESTING)
            finally:
                self.ended()

    def _stop(self, even_in_head: bool) -> bool:
        wire = self.wire
        if self.out is not None and not even_in_head:
            self.out.end_events()
        rests = wire.phase in _RESTING or (even_in_head and wire.phase is Phase.HEAD)
        if not rests or wire.scope.cancel_called:
            return False
        self.made_room = even_in_head
        wire.scope.cancel()
        return True

    async def _handle_message(self) -> _NextStep:
        """Deal with what has come: a request, no request, or the end."""
        wire = self.wire
        if wire.refusal is not None:
            await self._refuse_head(wire.refusal)
            return _NextStep.CLOSE
        asked = wire.parser.asked
        if asked is None or wire.scope.cancel_called:  # which may have come together with a request
            return _NextStep.CLOSE
        then = await self._handle_request(asked)
        if then is _NextStep.ANOTHER:
            wire.next_cycle()
        elif then is _NextStep.LINGER:
            await self._linger()
        return then

    async def _refuse_head(self, refusal: BadRequest) -> None:
        """Answer what could not be read as a request."""
        self.wire.refused(refusal)
        if refusal.tls:
            tell_of_tls(self.server)
        out = ResponseWriter(self.wire, _HEADS, refusal.method == b"HEAD")
        try:
            await self._refuse(refusal, out)
        finally:
            self._report(
                out,
                None,
                refusal.method.decode(),
                refusal.target.decode("latin-1"),
                trio.current_time(),
            )
        await self._linger()

    async def _refuse_late_head(self) -> None:
        self.wire.scope = trio.CancelScope()
        with self.wire.scope:
            await self._refuse_head(BadRequest(408, "The head of the request took too long."))

    async def _refuse(self, refusal: BadRequest, out: ResponseWriter) -> None:
        text = f"{refusal.status} {reason_of(refusal.status)}\n{refusal.text}\n".encode()
        await out.send(Response.trusted(text, refusal.status, (_PLAIN,)), b"", close=True)

    async def _linger(self) -> None:
        if not self.stopping.requested:
            await self.wire.linger()

    async def _handle_request(self, asked: RequestHead) -> _NextStep:
        """Answer one request."""
        wire = self.wire
        started = trio.current_time() if self.on_exchange is not None else 0
        method, target, headers = asked.method, asked.target, asked.headers
        self.out = out = ResponseWriter(wire, _HEADS, method == "HEAD")
        request = body = None
        try:
            if not target.startswith("/"):
                headers = with_host(headers, target.encode("ascii"))
            wire.enter(Phase.WORKING)
            if wire.guard.length:
                body = RequestBody(wire, wire.guard.length)
            request = Request(
                method,
                target,
                headers,
                http_version=asked.http_version,
                client=self.client,
                server=self.server,
                scheme=self.scheme,
                body=body,
                client_left=wire.wait_client_left,
                moment=self.rounds.now if self.rounds is not None else None,
            )
            then = await self._answer(request, body, out)
        except BadRequest as refusal:
            await self._refuse(refusal, out)
            then = _NextStep.LINGER
        finally:
            if body is not None:
                body.close()
            self.out = None
            self._close(request)
            self._report(out, request, method, target, started)
        if then is _NextStep.DRAIN and body is not None:
            wire.enter(Phase.DRAINING)
            then = _NextStep.ANOTHER if await body.drain() else _NextStep.LINGER
        # Asked anew: the wish to stop, or to close, may have come while this response was sent.
        done = self.stopping.requested or not wire.parser.may_go_on
        return _NextStep.CLOSE if then is _NextStep.ANOTHER and done else then

    async def _answer(
        self, request: Request, body: RequestBody | None, out: ResponseWriter
    ) -> _NextStep:
        """Have *request* answered, and send the answer."""
        response: Response | None = None
        try:
            response = await self.respond(request)
            streamed = isinstance(response.body, Stream)
            close = self.stopping.requested or not (
                body is None or body.can_keep_alive(discard=not streamed)
            )
            reason = request.reason if response.status == request.code else b""
            await out.send(response, reason, close)
            if isinstance(response.body, Upgrade):
                return _NextStep.CLOSE
        except Exception as exc:
            raise self._translate(exc, request, response, out) from None
        finally:
            if not out.complete:
                out.abandon()
        if body is None or body.done:
            return _NextStep.CLOSE if close else _NextStep.ANOTHER
        return _NextStep.LINGER if close else _NextStep.DRAIN

    def _translate(
        self, exc: Exception, request: Request, response: Response | None, out: ResponseWriter
    ) -> Exception:
        """What to do about *exc*, which came out of a responder or a body: `BadRequest` or `ClientDisconnected`."""
        cause = unwrap_group(exc)
        if isinstance(cause, ClientDisconnected):
            return ClientDisconnected()
        if out.started:
            # The failure of a stream, or of another protocol, has been told by whoever made it.
            told = response is not None and isinstance(response.body, (Stream, Upgrade))
            log.log(
                logging.DEBUG if told else logging.WARNING,
                "%s %s was broken off: %s: %s", request.method, request.path, type(cause).__name__, cause,
            )  # fmt: skip
            return ClientDisconnected()
        if isinstance(cause, HTTPError):
            return BadRequest(cause.status, cause.detail)
        log.error(
            "%s %s: no response: %s: %s", request.method, request.path, type(cause).__name__, cause
        )
        log.debug("Where it came from:", exc_info=exc)
        return BadRequest(500, "The server has no answer to this request.")

    def _close(self, request: Request | None) -> None:
        if request is not None:
            try:
                request.close()
            except Exception as exc:
                log.error(
                    "%s %s: clean-up failed: %s: %s",
                    request.method,
                    request.path,
                    type(exc).__name__,
                    exc,
                )

    def _report(
        self, out: ResponseWriter, request: Request | None, method: str, target: str, started: float
    ) -> None:
        if self.on_exchange is not None:
            seconds = trio.current_time() - started
            exchange = RequestRecord(
                request, method, target, self.client, out.status, out.sent, seconds, out.complete
            )
            try:
                self.on_exchange(exchange)
            except Exception as exc:
                log.error("The access log failed: %s: %s", type(exc).__name__, exc)


def tell_of_fault(fault: BaseException) -> None:
    """Say on the console that a connection failed; that a client went away is no fault."""
    if not isinstance(fault, ClientDisconnected):
        log.error("A connection failed: %s: %s", type(fault).__name__, fault)
        log.debug("Where it came from:", exc_info=fault)
