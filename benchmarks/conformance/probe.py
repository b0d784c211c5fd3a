"""Sends the bytes of one rule over any stream, and says in a few words what came back.

``200 POST abcde; 200 GET`` are two responses, the second that to the plain request which follows;
``closed`` means that the server closed the connection, ``no answer`` that nothing came in time. The
bodies of errors are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from benchmarks.conformance.rules import AWAIT, HOST, Repeat, Rule, raw, readable

NEXT_REQUEST = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
QUIET = 1.0
"""Seconds without a byte after which nothing more is expected of a server that has answered."""
MOST_RESPONSES = 5


class NothingMore(Exception):
    """No more bytes will come."""


@dataclass
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    def described(self, shown: tuple[str, ...]) -> str:
        words = [str(self.status)]
        if self.status < 300 and self.body:
            words.append(readable([self.body[:40].strip()]))
        fields = [f"{name}: {self._value(name)}" for name in shown if name in self.headers]
        if fields:
            words.append(f"({', '.join(fields)})")
        if self.cut:
            words.append("cut")
        return " ".join(words)

    def _value(self, name: str) -> str:
        value = self.headers[name]
        return value.rpartition(" ")[2] if name == "date" else value

    def has_body(self, method: str) -> bool:
        return method != "HEAD" and self.status >= 200 and self.status not in (204, 304)


class ResponseReader:
    """What comes over *stream*, response by response.

    Attributes:
        begun: set once something has come.
        closed: whether the server has closed its side.
    """

    def __init__(self, stream: Any, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._buffer = b""
        self.begun = trio.Event()
        self.closed = False

    async def _receive_more(self) -> None:
        if self.closed:
            raise NothingMore
        between_responses = self.begun.is_set() and not self._buffer
        with trio.move_on_after(QUIET if between_responses else self._timeout):
            try:
                data = bytes(await self._stream.receive_some(65536))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self.closed = not data
            self._buffer += data
            if data:
                self.begun.set()
                return
        raise NothingMore

    async def next_response(self, method: str) -> Response:
        """The next response, to a request by *method*.

        Raises:
            NothingMore: there is none.
        """
        while b"\r\n\r\n" not in self._buffer:
            await self._receive_more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        words = status.split(" ")
        is_http = words[0].startswith("HTTP/") and words[1].isdigit()
        response = Response(int(words[1]) if is_http else 0)
        for line in lines:
            name, _, value = line.partition(":")
            response.headers[name.lower()] = value.strip()
        if response.has_body(method):
            await self._read_body(response)
        return response

    async def _read_body(self, response: Response) -> None:
        framed = not response.headers.keys().isdisjoint(("content-length", "transfer-encoding"))
        try:
            if "chunked" in response.headers.get("transfer-encoding", ""):
                await self._read_chunks(response)
            elif "content-length" in response.headers:
                response.body = await self._exactly(int(response.headers["content-length"]))
            else:
                while True:
                    await self._receive_more()
        except (NothingMore, ValueError):
            response.cut = framed
            response.body, self._buffer = response.body or self._buffer, b""

    async def _read_chunks(self, response: Response) -> None:
        while size := int((await self._line()).partition(b";")[0], 16):
            response.body += (await self._exactly(size + 2))[:-2]
        await self._line()

    async def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            await self._receive_more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._receive_more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


async def probe(stream: Any, rule: Rule, seconds: float = 3) -> str:
    """Send the bytes of *rule*, and what follows them, over *stream*.

    Args:
        stream: a connection to the server.
        rule: what to send.
        seconds: how long to wait for an answer.

    Returns:
        What came back.
    """
    reader = ResponseReader(stream, seconds)
    words: list[str] = []
    closing = False
    method = raw(rule.sent).partition(b" ")[0].decode("latin-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, rule, reader)
        try:
            while len(words) < MOST_RESPONSES:
                response = await reader.next_response(method)
                words.append(response.described(() if words else rule.shown))
                closing = response.headers.get("connection", "").lower() == "close"
                method = method if response.status < 200 else "GET"
        except NothingMore:
            pass
        nursery.cancel_scope.cancel()
    if reader.closed or closing:  # some wait for the client to do it
        words.append("closed")
    return "; ".join(words) or "no answer"


async def _send(stream: Any, rule: Rule, reader: ResponseReader) -> None:
    try:
        for part in rule.sent:
            if part is AWAIT:
                with trio.move_on_after(QUIET):
                    await reader.begun.wait()
            await stream.send_all(part.data * part.times if isinstance(part, Repeat) else part)
        if rule.cut:
            await stream.send_eof()
            return
        # Not at once: a server that closes while bytes are unread resets the connection, and the
        # client may lose the answer.
        with trio.move_on_after(QUIET / 2):
            await reader.begun.wait()
        await stream.send_all(NEXT_REQUEST)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has been answered already
