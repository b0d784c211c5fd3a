"""A client for servers on this machine, without a library whose time would be measured with
theirs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

PIECE = 65536
NO_HEADERS: Mapping[str, str] = {}


@dataclass
class Client:
    """One keep-alive connection, and the cookies of one visitor."""

    stream: trio.abc.Stream
    cookies: dict[bytes, bytes] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=bytearray)

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator[Client]:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield cls(stream)

    async def get(self, path: str, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
        """Return the body of the response."""
        await self.send_head("GET", path, headers)
        return await self._receive_response()

    async def get_json(self, path: str) -> Any:
        return json.loads(await self.get(path))

    async def post(self, path: str, body: bytes, pause: float = 0) -> bytes:
        """Send *body* in pieces of 64 KiB, with a pause of so many seconds after each."""
        await self.send_head("POST", path, {"Content-Length": str(len(body))})
        for start in range(0, len(body), PIECE):
            await self.stream.send_all(body[start : start + PIECE])
            await trio.sleep(pause)
        return await self._receive_response()

    async def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode()
        if self.cookies:
            pairs = (b"%s=%s" % pair for pair in self.cookies.items())
            head += b"\r\nCookie: %s" % b"; ".join(pairs)
        await self.stream.send_all(head + b"\r\n\r\n")

    async def receive_until(self, end: bytes) -> bytes:
        """Return what comes until and with *end*."""
        while (found := self.buffer.find(end)) < 0:
            await self._receive_more()
        return self._take(found + len(end))

    async def _receive_response(self) -> bytes:
        head = await self.receive_until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(head)
        if cookie := re.search(rb"(?i)\r\nset-cookie: ([^=]+)=([^;]*)", head):
            self.cookies[cookie[1]] = cookie[2]
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        length = int(found[1]) if found else 0
        while len(self.buffer) < length:
            await self._receive_more()
        return self._take(length)

    def _take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def _receive_more(self) -> None:
        data = await self.stream.receive_some(PIECE)
        if not data:
            raise AssertionError("the server closed the connection")
        self.buffer += data


async def fetch(port: int, path: str) -> bytes:
    """Return a whole response, head and body, on a connection of its own."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request.encode())
        response = b""
        while data := await stream.receive_some(PIECE):
            response += data
    return response
