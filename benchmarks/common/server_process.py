"""A server as a process of its own, and what it uses of the machine. Linux shows that; others show
0."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.docs import ROOT


@dataclass
class ServerProcess:
    """A server that listens.

    Args:
        process: its process.
        port: on 127.0.0.1.
        console: the file that has its stderr.
    """

    process: subprocess.Popen[Any]
    port: int
    console: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def memory(self) -> int:
        """Resident memory in bytes."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_memory(self) -> int:
        """The most memory that it ever had, in bytes."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return 0
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def cpu_time(self) -> float:
        """Seconds that it and its children have run on a CPU."""
        return _cpu_time(self.process.pid)

    def open_files(self) -> int:
        """How many file descriptors it has."""
        try:
            return len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except OSError:
            return 0

    def output(self) -> str:
        """What it has written to stderr."""
        return self.console.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it; kill it if it does not end by itself."""
        self.process.terminate()
        try:
            self.process.wait(8)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _cpu_time(pid: int) -> float:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = time.clock_gettime((~pid << 3) | 2)  # the clock of that process
        return own + sum(_cpu_time(int(child)) for child in children)
    except (AttributeError, OSError):
        return 0


@contextmanager
def serving(
    site: Path,
    console: Path,
    *options: str,
    module: str = "rpyserve",
    descriptors: int | None = None,
) -> Iterator[ServerProcess]:
    """``rpyserve SITE`` on a free port, perhaps with a limit of so many *descriptors*.

    *module* may be another that does the same.

    Raises:
        SystemExit: it did not end well when it was told to.
    """
    command = [sys.executable, "-m", module, str(site), "--port", "0", *options]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
    with (
        console.open("w") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the server did not start:\n{console.read_text()}")
        try:
            yield ServerProcess(process, int(url.rstrip("/").rpartition(":")[2]), console)
        finally:
            process.terminate()
            try:
                code = process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    if code and os.name != "nt":
        raise SystemExit(f"the server ended with {code}:\n{console.read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int, seconds: float = 20) -> bool:
    """Whether connections are accepted at *port*, at the latest after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False
