"""Ten thousand connections at once: what does each cost, and is one more client still answered?

``python -m benchmarks.scale.connections [--connections 10000]``. Each connection asks once and is
idle then, as a browser's is. One machine has a limited number of ports for one address; here they
go to several addresses of its own. The memory of the baseline loop's connections is measured in the
same run: it is the least that trio and h11 need.
"""

from __future__ import annotations

import resource
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.common.client import fetch
from benchmarks.common.docs import table
from benchmarks.common.options import add_write, option_parser
from benchmarks.common.server_process import ServerProcess, serving
from benchmarks.common.servers import BASELINE, start
from benchmarks.scale import report

AHEAD = 200
"""How many requests are sent ahead of the responses."""
REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"Hello, world!"
WARM_UP = 100
"""Connections that come and go first: what a server makes or imports only once is there then."""
LIMIT = 1.3
"""How many times the memory of the baseline loop's connections one of ours may take."""
FEW_FILES = 100
"""A server whose clients have gone has fewer open files than that."""


def connect_all(server: ServerProcess, connections: int) -> list[socket.socket]:
    """Open so many connections, each with one request."""
    clients: list[socket.socket] = []
    for number in range(connections):
        address = f"127.0.0.{1 + number % 4}"
        client = socket.create_connection((address, server.port), 60)
        client.sendall(REQUEST)
        clients.append(client)
        if number >= AHEAD:
            assert receives_response(clients[number - AHEAD])
    assert all(receives_response(client) for client in clients[-AHEAD:])
    return clients


def receives_response(client: socket.socket) -> bool:
    response = b""
    while not response.endswith(BODY):
        data = client.recv(65536)
        if not data:
            return False
        response += data
    return True


async def one_more_client(server: ServerProcess) -> list[float]:
    """How long one more client waits, in seconds, with each request on a connection of its own."""
    times = []
    for _ in range(100):
        began = time.monotonic()
        assert (await fetch(server.port, "/page")).endswith(BODY)
        times.append(time.monotonic() - began)
    return sorted(times)


def memory_of(server: ServerProcess, connections: int) -> tuple[list[socket.socket], float]:
    """Open so many connections; return them, and the bytes that each takes."""
    for _ in range(WARM_UP):
        assert trio.run(fetch, server.port, "/page").endswith(BODY)
    time.sleep(2)
    before = server.memory()
    clients = connect_all(server, connections)
    return clients, (server.memory() - before) / connections


@dataclass
class Measured:
    """Whether all was well, and the bytes of memory that each connection took."""

    good: bool
    memory: float


def measure(server: ServerProcess, connections: int) -> Measured:
    began = time.monotonic()
    clients, memory = memory_of(server, connections)
    took = time.monotonic() - began
    print(
        f"{server.open_files()} open files after {took:.1f} s, {server.cpu_time():.1f} s of "
        f"CPU time; {memory / 1000:.1f} kB of memory a connection"
    )
    times = trio.run(one_more_client, server)
    median, slowest = times[50], times[-1]
    print(f"one more client: median {median * 1000:.1f} ms, slowest {slowest * 1000:.1f} ms")
    some = clients[:: max(1, connections // 100)]
    for client in some:
        client.sendall(REQUEST)
    alive = sum(receives_response(client) for client in some)
    print(f"of {len(some)} connections, asked again, {alive} answered")
    for client in clients:
        client.close()
    open_files = wait_until_closed(server)
    print(f"after all have gone: {open_files} open files")
    return Measured(slowest < 1 and alive == len(some) and open_files < FEW_FILES, memory)


def wait_until_closed(server: ServerProcess) -> int:
    """Wait until the server has closed all connections; return how many files it has open."""
    end = time.monotonic() + 30
    while server.open_files() >= FEW_FILES and time.monotonic() < end:
        time.sleep(0.1)
    return server.open_files()


def measure_baseline(directory: Path, connections: int) -> float:
    """The bytes of memory that each connection of the baseline loop takes."""
    server = start(BASELINE, {}, directory, directory)
    try:
        clients, memory = memory_of(server, connections)
    finally:
        server.stop()
    for client in clients:
        client.close()
    return memory


def section(own: float, baseline: float, connections: int) -> str:
    ratio = report.marked(own / baseline, LIMIT)
    rows = [
        ["the baseline loop", f"{baseline / 1000:.1f}", "1", ""],
        ["rpyserve", f"{own / 1000:.1f}", ratio, str(LIMIT)],
    ]
    return f"""\
{connections:,} open connections, each of which is idle after one request. {report.machine()}

{table(["", "kB of memory per connection", "ratio", "at most"], rows)}

Each connection is one task. An idle connection keeps only what it needs: no h11 state unless it had
to parse something new, no state of request bodies, no coroutine except the one that waits, and one
shared copy of what many clients send alike."""


def allow_open_files(files: int) -> None:
    """Raise the limit of open files if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        sys.exit(f"This shell allows {hard} open files: ulimit -Hn must be more than {files}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    add_write(parser, report.DOCUMENT)
    options = parser.parse_args()
    allow_open_files(options.connections + 500)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        site = directory / "site"
        site.mkdir()
        (site / "page.rpy").write_text("cache()\ndef resource(request): return 'Hello, world!'\n")
        with serving(site, directory / "console", "--quiet", "--host", "0.0.0.0") as server:
            own = measure(server, options.connections)
        baseline = measure_baseline(directory / "baseline", options.connections)
    text = section(own.memory, baseline, options.connections)
    report.write_section(report.CONNECTIONS, text, options.write)
    print(text)
    sys.exit(not own.good or own.memory > LIMIT * baseline)


if __name__ == "__main__":
    main()
