"""The real command, or a program, as a process of its own, and a client that speaks plain HTTP/1.1
to it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    console: Path
    port: int = 0
    scheme: str = "http"
    expected_code: int | None = 0
    """The exit status; None for any."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def output(self) -> str:
        """What it has printed so far, stdout and stderr together."""
        return self.console.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.output()):
                return found
            assert self.process.poll() is None, f"it has ended:\n{self.output()}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} after {seconds} s in:\n{self.output()}")


@contextmanager
def serving(
    site: Path, tmp_path: Path, *options: str, scheme: str = "http", own_group: bool = False
) -> Iterator[Server]:
    """``rpyserve SITE`` on a free port, in a process group of its own if *own_group*."""
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", "0", *options]
    with program(command, tmp_path / "console", own_group=own_group) as server:
        server.scheme = scheme
        server.port = int(server.wait_for(rf"{scheme}://[^/\s]+:(\d+)")[1])
        yield server


@contextmanager
def program(
    command: list[str], console: Path, cwd: Path | None = None, *, own_group: bool = False
) -> Iterator[Server]:
    """*command*, which must end well when it is told to, and must not have shown a traceback."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("RPYSERVE_")
    }
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    with console.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            start_new_session=own_group,
        )
    server = Server(process, console)
    try:
        yield server
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)
        is_well = os.name == "nt" or server.expected_code in (None, code)
        assert is_well, f"exit code {code}:\n{server.output()}"
        assert "Traceback" not in server.output()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RawClient:
    """One keep-alive connection that shows its cookies like a browser: no library between the test
    and the bytes.
    """

    stream: trio.SocketStream
    cookies: dict[str, str] = field(default_factory=dict)
    buffer: bytes = b""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, port: int, cookies: dict[str, str] | None = None
    ) -> AsyncIterator[RawClient]:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield cls(stream, {} if cookies is None else cookies)

    async def get(self, path: str) -> str:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
            + (f"Cookie: {cookie}\r\n" if cookie else "")
            + "\r\n"
        )
        await self.stream.send_all(head.encode())
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        raw, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status, *lines = raw.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 200 "), status
        length = 0
        for line in lines:
            name, _, value = line.partition(": ")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        while len(self.buffer) < length:
            await self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body.decode()

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        assert data, "the server closed the connection"
        self.buffer += data
