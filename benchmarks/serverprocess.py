"""The real command as a process of its own, for benchmarks, and what it uses of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


async def fetch(port: int, path: str) -> bytes:
    """Return a whole answer, head and body, on a connection of its own: no library's time is measured with it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := await stream.receive_some(65536):
            answer += data
    return answer
