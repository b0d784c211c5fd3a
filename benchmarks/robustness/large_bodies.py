"""Large bodies, both ways: does the server's memory stay flat?

``python benchmarks/gigabyte.py`` uploads 1 GiB as a file of a form, downloads 1 GiB that a generator makes and 1 GiB
of a static file, and does the first two once more through a proxy to another server, while readers wait who read
next to nothing. It prints the most memory that the server ever had. The tests run the same with less.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 2**20

SITE = {
    "upload.rpy": """
def resource(request):
    upload = request.file("file")
    size = 0
    while piece := upload.file.read(2**20):
        size += len(piece)
    return f"{size} bytes of {upload.filename}"
""",
    "download.rpy": """
def resource(request):
    for _ in range(int(request.field("mib"))):
        yield bytes(2**20)
""",
}
PROXY = """
from rpyserve import ReverseProxyResource, cache

cache()
resource = ReverseProxyResource("http://127.0.0.1:{port}")
"""


@contextmanager
def server(size: int, backend: int = 0) -> Iterator[tuple[int, int]]:
    """A server of its own, with a proxy for the port *backend*: its port, and the number of its process."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in {**SITE, "through.rpy": PROXY.format(port=backend)}.items():
            Path(directory, name).write_text(text, encoding="utf-8")
        with open(Path(directory, "static.bin"), "wb") as file:
            file.truncate(size)
        command = [sys.executable, "-m", "rpyserve", directory, "--port", "0", "--quiet"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
                yield port, process.pid
            finally:
                process.terminate()


def peak(process: int) -> int:
    """The most memory that *process* ever had, in bytes; 0 where that cannot be known."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def upload(port: int, target: str, size: int) -> None:
    """Send a form with a file of *size* bytes, and check what the script says of it."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
    tail = b"\r\n--x--\r\n"
    with connection(port) as sock:
        sock.sendall(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
            % (target.encode(), len(head) + size + len(tail))
        )
        sock.sendall(head)
        piece = os.urandom(MIB)
        for _ in range(size // MIB):
            sock.sendall(piece)
        sock.sendall(tail)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.endswith(b"%d bytes of large.bin" % size), answer[:500]


def download(port: int, target: str, size: int) -> None:
    """Read a body of *size* bytes to its end."""
    with connection(port) as sock:
        sock.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        received = sum(map(len, iter(lambda: sock.recv(MIB), b"")))
    assert size < received < size + 1000, received


@contextmanager
def slow_reader(port: int, target: str) -> Iterator[None]:
    """While inside, somebody has asked for *target* and reads a little now and then."""
    with connection(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        yield
        assert sock.recv(100)


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def measure(mib: int) -> int:
    """Do all of it with *mib* MiB each. Returns the most memory that the server had, in bytes."""
    size = mib * MIB
    with server(size) as (backend, _), server(size, backend) as (port, process):
        print(f"{'before':12} {peak(process) / MIB:6.1f} MiB at most")
        steps = {
            "upload": lambda: upload(port, "/upload", size),
            "generator": lambda: download(port, f"/download?mib={mib}", size),
            "static file": lambda: download(port, "/static.bin", size),
            "proxied up": lambda: upload(port, "/through/upload", size),
            "proxied down": lambda: download(port, f"/through/download?mib={mib}", size),
        }
        slow = [f"/download?mib={mib}", "/static.bin", "/through/static.bin"]
        with slow_reader(port, slow[0]), slow_reader(port, slow[1]), slow_reader(port, slow[2]):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                took = time.perf_counter() - began
                print(f"{name:12} {peak(process) / MIB:6.1f} MiB at most, {mib / took:6.0f} MiB/s")
        return peak(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=1024, help="the size of each body, in MiB (1024)")
    most = measure(parser.parse_args().mib)
    print(f"At most {most / MIB:.1f} MiB, with three slow readers waiting.")
    sys.exit(most > 100 * MIB)


if __name__ == "__main__":
    main()
