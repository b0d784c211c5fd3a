"""The client's end of a connection: raw bytes out, and what comes back read by a real
h11 client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
from trio.testing import memory_stream_pair

from rpyserve.http.request import Request, RequestRecord
from rpyserve.http.response import Response
from rpyserve.protocol.connection import serve_connection

CLIENT = ("127.0.0.1", 5000)
SERVER = ("127.0.0.1", 8080)

Respond = Callable[[Request], Awaitable[Response]]


class CutOff(Exception):
    """The connection ended before the response did; what had come of it is in `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    reason: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One connection. `send` raw bytes, read each `reply` to its EndOfMessage."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.left = b""
        self.records: list[RequestRecord] = []
        self.over = trio.Event()
        """Set when the server is through with this connection."""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def get(self, target: str = "/", *more: str) -> Reply:
        await self.send(head("GET", target, *more))
        return await self.reply()

    async def reply(self, method: str = "GET") -> Reply:
        """Read the next response; `CutOff` if there is none, or not all of it."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        if self.left:
            parser.receive_data(self.left)
        reply = Reply()
        while True:
            try:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await self.stream.receive_some(65536)))
                    continue
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                raise CutOff(reply) from None
            if isinstance(event, h11.InformationalResponse):
                reply.interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                reply.status, reply.reason = event.status_code, bytes(event.reason)
                reply.headers = {k.decode(): v.decode("latin-1") for k, v in event.headers}
            elif isinstance(event, h11.Data):
                reply.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.left = parser.trailing_data[0]
                return reply
            else:
                raise CutOff(reply)

    async def rest(self) -> bytes:
        """Whatever comes until the server closes its side."""
        data, self.left = self.left, b""
        while chunk := await self.stream.receive_some(65536):
            data += chunk
        return data

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)


def head(method: str, target: str, *fields: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: site", *fields, "", ""]).encode(
        "latin-1"
    )


def post(body: bytes, *fields: str) -> bytes:
    return head("POST", "/", f"Content-Length: {len(body)}", *fields) + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def connect_to(
    respond: Respond,
    nursery: trio.Nursery,
    *,
    stream: Any = None,
    on_record: Callable[[RequestRecord], object] = lambda record: None,
    **options: Any,
) -> Client:
    """Serve a new connection in *nursery*, and return the client's end of it.

    *stream* wraps the server's end, to make it misbehave.
    """
    near, far = memory_stream_pair()
    client = Client(near)

    def note(record: RequestRecord) -> None:
        client.records.append(record)
        on_record(record)

    async def serve() -> None:
        try:
            await serve_connection(
                stream(far) if stream else far,
                respond,
                client=CLIENT,
                server=SERVER,
                on_record=note,
                **options,
            )
        finally:
            client.over.set()

    nursery.start_soon(serve)
    return client


async def hello(request: Request) -> Response:
    return Response(f"hello {request.uri}")


async def echo(request: Request) -> Response:
    await request.load_body()
    return Response(request.content.read(), headers={"Content-Type": "text/plain"})


def answering(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Respond:
    async def respond(request: Request) -> Response:
        return Response(body, status, list(headers))

    return respond
