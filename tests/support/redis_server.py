"""A real redis-server for tests, on a Unix socket in a directory of its own, or on a free port.

It is never the machine's own: tests start it, and end it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REDIS_SERVER = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(
    REDIS_SERVER is None, reason="redis-server is not installed (Debian: redis-server)"
)


class RedisServer:
    """One redis-server.

    Args:
        options: as on its command line: ``"--appendonly", "yes"``.
        port: to listen on besides the socket; 0 for none.
    """

    def __init__(self, *options: str, port: int = 0) -> None:
        # pytest's own directories have names too long for a Unix socket.
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self.directory / "socket"
        self.url = f"unix://{self.socket}"
        self._command = [
            REDIS_SERVER or "redis-server", "--port", str(port), "--unixsocket", str(self.socket),
            "--dir", str(self.directory), "--save", "", "--daemonize", "no", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it; and *wait* until it can be used, its data being loaded."""
        self.socket.unlink(missing_ok=True)
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while wait and not self._answers():
            assert self._process.poll() is None, self.log()
            time.sleep(0.005)

    def stop(self) -> None:
        """Kill it; its data stay, if it was to write them."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def close(self) -> None:
        """End it, and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory)

    def ask(self, *words: Any) -> Any:
        """Send one command over a connection of its own, and return the reply."""
        import hiredis

        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(hiredis.pack_command(words))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(65536))
        return reply

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return not str(self.ask("PING")).startswith("LOADING")
        return False


@contextlib.contextmanager
def redis_server(*options: str, port: int = 0) -> Iterator[RedisServer]:
    """A server that runs while the block does."""
    server = RedisServer(*options, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()
