"""One HTTP/1.1 connection over any trio stream: requests in, a responder's answers out, in order.

The story of a connection: wait for a head, have it answered, send the answer, and again, until
either side wants no more. Whatever a client does is answered (shortly, in plain text, with
``Connection: close``) or the connection ends; nothing is raised but what cancels, or interrupts,
the server. A request is always closed, and reported once when it is over. Sites and sockets are not
known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import trio

from rpyserve.http.errors import BadRequest, ClientDisconnected, HTTPError
from rpyserve.http.headers import HeaderFields, reason_phrase
from rpyserve.http.request import Address, Recording, Request, RequestRecord, Responder
from rpyserve.http.response import Response, Stream, Upgrade
from rpyserve.protocol import timeouts
from rpyserve.protocol.grammar import CHUNKED, RequestHead
from rpyserve.protocol.request_body import RequestBody
from rpyserve.protocol.response_headers import ResponseHeadCache
from rpyserve.protocol.response_writer import ResponseWriter
from rpyserve.protocol.server_state import Limits, Shutdown, Wait
from rpyserve.protocol.transport import Phase, Transport
from rpyserve.util.exceptions import report_or_raise, unwrap_group
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

_HEADS: Final = ResponseHeadCache()
_PLAIN_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
_AT_REST: Final = frozenset({Phase.IDLE, Phase.DRAINING, Phase.LINGERING})
# What h11 is told of a HEAD that could not be read: the answer to it has no body.
_STAND_IN: Final = RequestHead("HEAD", "/", HeaderFields(), "1.1")


def serve_connection(
    stream: trio.abc.Stream,
    respond: Responder,
    *,
    limits: Limits | None = None,
    client: Address,
    server: Address,
    scheme: str = "http",
    on_record: Callable[[RequestRecord], object] | None = None,
    recorder: Recording | None = None,
    shutdown: Shutdown | None = None,
    on_close: Callable[[], object] = lambda: None,
) -> Coroutine[Any, Any, None]:
    """Serve one client until it, or we, have had enough; then close *stream*.

    Args:
        stream: any trio stream; one that can be half-closed is, after the last response.
        respond: makes a response of each request. What it raises is answered with a plain page, and
            ends the connection; `ClientDisconnected` ends it without one.
        limits: how much, and how long; see `Limits`.
        client: the client's address and port, for each request.
        server: our own address and port, for each request.
        scheme: ``"http"`` or ``"https"``, for each request.
        on_record: called with each `RequestRecord` when it is over, refusals included.
        recorder: wants more in each record than the access log.
        shutdown: says when the server wants to stop.
        on_close: called when all is over.
    """
    shutdown = shutdown or Shutdown()
    transport = Transport(stream, limits or Limits(), scheme, shutdown)
    connection = _Connection(transport, respond, on_record, recorder, shutdown)
    connection.client, connection.server, connection.scheme = client, server, scheme
    connection.on_close = on_close
    return connection.run()


class _Connection:
    __slots__ = (
        "client",
        "made_room",
        "on_close",
        "on_record",
        "recorder",
        "respond",
        "scheme",
        "server",
        "shutdown",
        "transport",
        "writer",
    )

    client: Address
    server: Address
    scheme: str
    on_close: Callable[[], object]

    def __init__(
        self,
        transport: Transport,
        respond: Responder,
        on_record: Callable[[RequestRecord], object] | None,
        recorder: Recording | None,
        shutdown: Shutdown,
    ) -> None:
        self.transport = transport
        self.respond = respond
        self.on_record = on_record
        self.recorder = recorder
        self.shutdown = shutdown
        self.made_room = False  # for another connection, by ending
        self.writer: ResponseWriter | None = None  # of the response that is being made or sent

    async def run(self) -> None:
        # What a connection at rest has on its stack is most of its memory. So the wait for a
        # request is in here, not in a coroutine of its own, and no context manager is ours.
        transport, goes_on, orderly = self.transport, True, False
        self.shutdown.subscribe(self)
        timeouts.watch(transport, transport.tick)
        try:
            with transport.scope:
                while goes_on:
                    transport.enter(Phase.IDLE)
                    if transport.reader.buffer.data:
                        # A client that sends many requests at once must not keep others waiting.
                        await trio.lowlevel.checkpoint()
                    else:
                        await transport.receive_more()
                    while (message := self._read_message()) is None:
                        await transport.receive_more()
                    if isinstance(message, BadRequest):
                        await self._refuse_head(message)
                        break
                    goes_on = await self._handle_request(message)
                orderly = True
            if transport.scope.cancelled_caught and transport.phase is Phase.HEAD:
                await self._refuse_late_head()
        except BaseException as exc:
            report_or_raise(exc, report_connection_failure)
        finally:
            timeouts.unwatch(transport)
            self.shutdown.unsubscribe(self)
            try:
                await transport.close(orderly=orderly or transport.phase in _AT_REST)
            finally:
                self.on_close()

    # Asked by the server; see `Stoppable`

    def request_shutdown(self) -> None:
        if self.writer is not None:
            self.writer.end_events()
        if self.transport.phase in _AT_REST:
            self.transport.scope.cancel()

    def current_wait(self) -> tuple[Wait, float] | None:
        return self.transport.current_wait()

    def running_record(self) -> RequestRecord | None:
        return None if self.writer is None else self.writer.record

    def shed(self) -> None:
        self.made_room = True
        self.transport.scope.cancel()

    # What comes in

    def _read_message(self) -> RequestHead | BadRequest | None:
        """Return the next request, or why there is none; None if more bytes must come first."""
        transport = self.transport
        try:
            head = transport.reader.read_head()
        except BadRequest as refusal:
            return refusal
        if head is None and transport.phase is Phase.IDLE and transport.reader.has_begun_head:
            transport.enter(Phase.HEAD)
        return head

    # Refusals

    async def _refuse_head(self, refusal: BadRequest) -> None:
        """Answer what could not be read as a request."""
        if refusal.tls:
            warn_of_tls_client(self.server)
        method, target = refusal.method.decode(), refusal.target.decode("latin-1")
        if method == "HEAD":
            self.transport.cycle.begin(_STAND_IN)
        record = RequestRecord(None, method, target, b"", self.client, self.transport.now())
        try:
            await self._refuse(refusal, ResponseWriter(self.transport, _HEADS, record))
        finally:
            self._report(record)
        await self.transport.linger()

    async def _refuse_late_head(self) -> None:
        if self.made_room:
            return
        self.transport.scope = trio.CancelScope()
        with self.transport.scope:
            await self._refuse_head(BadRequest(408, "The head of the request took too long."))

    async def _refuse(self, refusal: BadRequest, writer: ResponseWriter) -> None:
        text = f"{refusal.status} {reason_phrase(refusal.status)}\n{refusal.text}\n".encode()
        response = Response.trusted(text, refusal.status, (_PLAIN_TEXT,))
        await writer.send(response, b"", close=True)

    # Requests

    async def _handle_request(self, head: RequestHead) -> bool:
        """Answer one request. Returns whether another may follow."""
        transport = self.transport
        if transport.scope.cancel_called:  # which may have come together with the request
            return False
        transport.cycle.begin(head)
        transport.enter(Phase.WORKING)
        started = transport.now()
        body = RequestBody(transport, head) if head.body_length else None
        request = self._make_request(head, body)
        record = RequestRecord(request, head.method, head.target, head.raw, self.client, started)
        self.writer = writer = ResponseWriter(transport, _HEADS, record, head.http_version)
        if self.recorder is not None:
            request._record, record.scheme = record, self.scheme
            if body is not None:
                body.kept = []
            if self.recorder.is_alert:
                self.recorder.begin(record)
        try:
            keep_alive = await self._answer(request, body, writer)
        except BadRequest as refusal:
            await self._refuse(refusal, writer)
            keep_alive = False
        finally:
            self._end_request(request, body, record)
            self._report(record)
        if keep_alive and body is not None and not body.done:
            transport.enter(Phase.DRAINING)
            keep_alive = await body.drain()
        # The wish to stop, or to close, may have come while this response was sent.
        if keep_alive and transport.cycle.keep_alive and not self.shutdown.closing:
            transport.cycle.start_next()
            return True
        if writer.upgrade is None:
            await transport.linger()
        return False

    def _make_request(self, head: RequestHead, body: RequestBody | None) -> Request:
        return Request(
            head.method,
            head.target,
            head.headers,
            http_version=head.http_version,
            client=self.client,
            server=self.server,
            scheme=self.scheme,
            body=body,
            body_length=None if head.body_length == CHUNKED else head.body_length,
            wait_client_left=self.transport.wait_client_left,
        )

    async def _answer(
        self, request: Request, body: RequestBody | None, writer: ResponseWriter
    ) -> bool:
        """Have *request* answered, and send the answer. Returns whether another may follow."""
        response: Response | None = None
        try:
            response = await self.respond(request)
            discard = not isinstance(response.body, Stream)
            keep_alive = body is None or body.can_keep_alive(discard)
            close = self.shutdown.closing or not keep_alive
            pending = request._response
            reason = pending.reason if response.status == pending.status else b""
            await writer.send(response, reason, close)
        except Exception as exc:
            raise self._translate(exc, request, response, writer) from None
        finally:
            if not writer.record.complete:
                writer.abandon()
        return not close and writer.upgrade is None

    def _translate(
        self, exc: Exception, request: Request, response: Response | None, writer: ResponseWriter
    ) -> Exception:
        """Make `BadRequest` or `ClientDisconnected` of what a responder or a body raised."""
        cause = unwrap_group(exc)
        what = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, ClientDisconnected):
            if cause.args:
                log.warning("%s %s: %s", request.method, request.path, cause)
            return ClientDisconnected()
        if writer.started:
            # The failure of a stream, or of another protocol, has been reported by whoever made it.
            reported = response is not None and isinstance(response.body, (Stream, Upgrade))
            level = logging.DEBUG if reported else logging.WARNING
            log.log(level, "%s %s was broken off: %s", request.method, request.path, what)
            return ClientDisconnected()
        if isinstance(cause, HTTPError):
            return BadRequest(cause.status, cause.detail)
        log.error("%s %s: no response: %s", request.method, request.path, what)
        log.debug("Where it came from:", exc_info=exc)
        return BadRequest(500, "The server has no answer to this request.")

    # After a request

    def _end_request(
        self, request: Request, body: RequestBody | None, record: RequestRecord
    ) -> None:
        self.writer = None
        if body is not None:
            body.close()
            record.request_size = body.received
            if self.recorder is not None:
                record.request_start = b"".join(body.kept or ())
                self.recorder.weigh(record)
        try:
            request.close()
        except Exception as exc:
            what = f"{type(exc).__name__}: {exc}"
            log.error("%s %s: clean-up failed: %s", request.method, request.path, what)

    def _report(self, record: RequestRecord) -> None:
        """Say that the request is over, and let go of it."""
        now = self.transport.now()
        record.seconds = now - record.started
        if record.send_began is not None:
            record.send = now - record.send_began
        if record.request is not None:
            record.client = record.request.client  # a proxy may have said who that is
        try:
            if self.on_record is not None:
                self.on_record(record)
        except Exception as exc:
            log.error("The access log failed: %s: %s", type(exc).__name__, exc)
        record.request = None


def report_connection_failure(exc: BaseException) -> None:
    """Say on the console that a connection failed; that a client went away is no failure."""
    if not isinstance(exc, ClientDisconnected):
        log.error("A connection failed: %s: %s", type(exc).__name__, exc)
        log.debug("Where it came from:", exc_info=exc)


# A browser shows its visitor only "secure connection failed", so the site's author is told. There
# is one throttle for all connections of a trio run, as a browser tries several times at once.
_tls_warnings: trio.lowlevel.RunVar[ThrottledLogger] = trio.lowlevel.RunVar("rpyserve TLS")


def warn_of_tls_client(server: Address) -> None:
    """Say on the console, now and then, that a client spoke TLS to *server*, our address."""
    try:
        throttled = _tls_warnings.get()
    except LookupError:
        throttled = ThrottledLogger(log)
        _tls_warnings.set(throttled)
    host, port = server
    if not port:
        return  # a Unix socket, which no browser speaks to
    host = f"[{host}]" if ":" in host else host
    throttled.warn(
        "Someone asked for https://, which takes --tls. The page is at http://%s:%d/", host, port
    )
