"""Large bodies, both ways: does the server's memory stay flat?

``python -m benchmarks.robustness.large_bodies`` uploads 1 GiB as a file of a form, downloads 1 GiB
that a generator makes and 1 GiB of a static file, and does the first two once more through a proxy
to another server, while clients wait that read next to nothing. It prints the most memory that the
server ever had. The tests run the same with less.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving

MIB = 2**20
MOST_MEMORY = 100 * MIB

SCRIPTS = {
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
def serving_bodies(directory: Path, size: int, upstream: int = 0) -> Iterator[ServerProcess]:
    """A server of its own in *directory*, with a file of *size* bytes, and a proxy for a port."""
    site = directory / "site"
    site.mkdir(parents=True)
    for name, text in {**SCRIPTS, "through.rpy": PROXY.format(port=upstream)}.items():
        (site / name).write_text(text, encoding="utf-8")
    with (site / "static.bin").open("wb") as file:
        file.truncate(size)
    with serving(site, directory / "console", "--quiet") as server:
        yield server


def upload(port: int, target: str, size: int) -> None:
    """Send a form with a file of *size* bytes, and check what the script says of it."""
    fields = b'Content-Disposition: form-data; name="file"; filename="large.bin"'
    head, tail = b"--x\r\n" + fields + b"\r\n\r\n", b"\r\n--x--\r\n"
    request = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
    )
    with connect(port) as client:
        client.sendall(request % (target.encode(), len(head) + size + len(tail)))
        client.sendall(head)
        piece = os.urandom(MIB)
        for _ in range(size // MIB):
            client.sendall(piece)
        client.sendall(tail)
        response = b"".join(iter(lambda: client.recv(65536), b""))
    assert response.endswith(b"%d bytes of large.bin" % size), response[:500]


def download(port: int, target: str, size: int) -> None:
    """Read a body of *size* bytes to its end."""
    with connect(port) as client:
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        received = sum(map(len, iter(lambda: client.recv(MIB), b"")))
    assert size < received < size + 1000, received


@contextmanager
def slow_reader(port: int, target: str) -> Iterator[None]:
    """While inside, a client has asked for *target* and does not read on."""
    with connect(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        yield
        assert client.recv(100)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def measure(mib: int) -> int:
    """Do all of it with *mib* MiB each.

    Returns:
        The most memory that the server had, in bytes.
    """
    size = mib * MIB
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(serving_bodies(directory / "upstream", size))
        server = stack.enter_context(serving_bodies(directory / "server", size, upstream.port))
        port, generated = server.port, f"/download?mib={mib}"
        steps: dict[str, Callable[[], None]] = {
            "upload": lambda: upload(port, "/upload", size),
            "generator": lambda: download(port, generated, size),
            "static file": lambda: download(port, "/static.bin", size),
            "proxied up": lambda: upload(port, "/through/upload", size),
            "proxied down": lambda: download(port, f"/through{generated}", size),
        }
        print(f"{'before':12} {server.peak_memory() / MIB:6.1f} MiB at most")
        for target in (generated, "/static.bin", "/through/static.bin"):
            stack.enter_context(slow_reader(port, target))
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            speed = mib / (time.perf_counter() - began)
            print(f"{name:12} {server.peak_memory() / MIB:6.1f} MiB at most, {speed:6.0f} MiB/s")
        return server.peak_memory()


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument(
        "--mib", type=int, default=1024, help="the size of each body, in MiB (1024)"
    )
    most = measure(parser.parse_args().mib)
    print(f"At most {most / MIB:.1f} MiB, with three slow readers waiting.")
    sys.exit(most > MOST_MEMORY)


if __name__ == "__main__":
    main()
