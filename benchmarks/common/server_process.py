"""The real command as a process of its own, for benchmarks, and what it uses of the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    console: Path

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def memory(self) -> int:
        """Resident memory in bytes; 0 where that cannot be seen."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def seconds(self) -> float:
        """How long it has had a processor; 0 where that cannot be seen."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))

    def descriptors(self) -> int:
        """How many files it has open; 0 where that cannot be seen."""
        try:
            return len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except OSError:
            return 0

    def said(self) -> str:
        """What it has told on stderr."""
        return self.console.read_text(encoding="utf-8", errors="replace")


@contextmanager
def serving(site: Path, console: Path, *options: str) -> Iterator[Server]:
    """``rpyserve SITE`` on a free port; it must end well when it is told to."""
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", "0", *options]
    with (
        console.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        server = Server(process, process.stdout.readline().strip(), console)
        try:
            yield server
        finally:
            process.terminate()
            code = process.wait(15)
    if code and os.name != "nt":
        raise SystemExit(f"the server ended with {code}:\n{server.said()[-2000:]}")


@dataclass
class Visitor:
    """One connection that is kept, and the cookies of one visitor."""

    stream: trio.SocketStream
    cookies: dict[bytes, bytes] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=bytearray)

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator[Visitor]:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield cls(stream)

    async def get(self, path: str) -> bytes:
        """Return the body of an answer."""
        await self.stream.send_all(self._head("GET", path))
        return await self._answer()

    async def json(self, path: str) -> Any:
        return json.loads(await self.get(path))

    async def post(self, path: str, body: bytes, pause: float = 0) -> bytes:
        """Send *body* in pieces of 64 KiB, with a pause after each."""
        await self.stream.send_all(self._head("POST", path, b"Content-Length: %d\r\n" % len(body)))
        for start in range(0, len(body), 65536):
            await self.stream.send_all(body[start : start + 65536])
            await trio.sleep(pause)
        return await self._answer()

    def _head(self, method: str, path: str, more: bytes = b"") -> bytes:
        cookie = b"; ".join(b"%s=%s" % pair for pair in self.cookies.items())
        line = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
        return line + (b"Cookie: %s\r\n" % cookie if cookie else b"") + more + b"\r\n"

    async def _answer(self) -> bytes:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        head = bytes(self.buffer[:end])
        del self.buffer[: end + 4]
        if not head.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(head)
        if found := re.search(rb"(?i)\r\nset-cookie: ([^=]+)=([^;]*)", head):
            self.cookies[found[1]] = found[2]
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        length = int(found[1]) if found else 0
        while len(self.buffer) < length:
            await self._more()
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise AssertionError("the server closed the connection")
        self.buffer += data


async def fetch(port: int, path: str) -> bytes:
    """Return a whole answer, head and body, on a connection of its own: no library's time is measured with it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := await stream.receive_some(65536):
            answer += data
    return answer
