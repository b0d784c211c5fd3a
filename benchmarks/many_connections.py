"""Ten thousand connections at once: what does each cost, and is one more client answered?

``python benchmarks/many_connections.py [--connections 10000]``. Each connection asks once and then rests, as a
browser's does. One machine has so many ports towards one address; here they go to several addresses of its own.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

import trio
from serverprocess import Server, fetch, serving

AHEAD = 200
REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"<p>page"


def connect(server: Server, connections: int) -> list[socket.socket]:
    """Open so many connections, a few hundred requests ahead of their answers."""
    clients: list[socket.socket] = []
    for number in range(connections):
        clients.append(socket.create_connection((f"127.0.0.{1 + number % 4}", server.port), 60))
        clients[-1].sendall(REQUEST)
        if number >= AHEAD:
            assert answered(clients[number - AHEAD])
    assert all(answered(client) for client in clients[-AHEAD:])
    return clients


def answered(client: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(ANSWER):
        data = client.recv(65536)
        if not data:
            return False
        answer += data
    return True


async def one_more(server: Server) -> list[float]:
    """How long one more client waits, with each request on a connection of its own."""
    times = []
    for _ in range(100):
        began = time.monotonic()
        assert (await fetch(server.port, "/page")).endswith(ANSWER)
        times.append(time.monotonic() - began)
    return sorted(times)


def measure(server: Server, connections: int) -> bool:
    before = server.memory()
    began = time.monotonic()
    clients = connect(server, connections)
    each = (server.memory() - before) / connections / 1000
    took = time.monotonic() - began
    print(
        f"{server.descriptors()} descriptors after {took:.1f} s, {server.seconds():.1f} s of processor time; "
        f"{each:.1f} kB of memory a connection"
    )
    times = trio.run(one_more, server)
    print(f"one more client: median {times[50] * 1000:.1f} ms, slowest {times[-1] * 1000:.1f} ms")
    some = clients[:: max(1, connections // 100)]
    for client in some:
        client.sendall(REQUEST)
    alive = sum(answered(client) for client in some)
    print(f"of {len(some)} connections, asked again, {alive} answered")
    for client in clients:
        client.close()
    end = time.monotonic() + 30
    while server.descriptors() > 100 and time.monotonic() < end:
        time.sleep(0.1)
    print(f"after all have gone: {server.descriptors()} descriptors")
    return times[-1] < 1 and alive == len(some) and server.descriptors() < 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < options.connections + 500:
        sys.exit(f"This shell allows {hard} open files: ulimit -Hn must be more than {options.connections + 500}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, options.connections + 500), hard))
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        (site / "page.rpy").write_text("cache()\ndef resource(request): return '<p>page'\n")
        with serving(site, Path(directory, "console"), "--quiet", "--host", "0.0.0.0") as server:
            good = measure(server, options.connections)
    sys.exit(not good)


if __name__ == "__main__":
    main()
