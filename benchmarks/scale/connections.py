"""Ten thousand connections at once: what does each cost, beside the bare loop's, and is one more client answered?

``python benchmarks/many_connections.py [--connections 10000]``. Each connection asks once and then rests, as a
browser's does. One machine has so many ports towards one address; here they go to several addresses of its own. What
the least costs that can be made of trio and h11 is measured in the same run: `bareloop`.
"""

from __future__ import annotations

import argparse
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.common.server_process import Server, fetch, serving
from benchmarks.scale import report as sections

AHEAD = 200
REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"Hello, world!"
BRIEF = 100
"""Connections that come and go before: what a server makes or imports only once is there then."""
LIMIT = 1.3
"""How many times the memory of the bare loop's connections one of ours may take."""


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


@contextmanager
def bare(console: Path) -> Iterator[Server]:
    """The bare loop as a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).parents[1] / "performance" / "baseline_loop.py"), str(port)]
    with console.open("w") as errors, subprocess.Popen(command, stderr=errors, text=True) as process:
        try:
            while not answers(port):
                time.sleep(0.05)
            yield Server(process, f"http://127.0.0.1:{port}/", console)
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return trio.run(fetch, port, "/page").endswith(ANSWER)
    except OSError:
        return False


def memory_of(server: Server, connections: int) -> tuple[list[socket.socket], float]:
    """Open so many connections; return them, and the bytes that each takes."""
    for _ in range(BRIEF):
        assert answers(server.port)
    time.sleep(2)
    before = server.memory()
    clients = connect(server, connections)
    return clients, (server.memory() - before) / connections


def measure(server: Server, connections: int) -> tuple[bool, float]:
    began = time.monotonic()
    clients, each = memory_of(server, connections)
    took = time.monotonic() - began
    print(
        f"{server.descriptors()} descriptors after {took:.1f} s, {server.seconds():.1f} s of processor time; "
        f"{each / 1000:.1f} kB of memory a connection"
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
    return times[-1] < 1 and alive == len(some) and server.descriptors() < 100, each


def section(ours: float, least: float, connections: int) -> str:
    rows = [
        ["the bare loop", f"{least / 1000:.1f}", "1", ""],
        ["rpyserve", f"{ours / 1000:.1f}", sections.verdict(ours / least, LIMIT), str(LIMIT)],
    ]
    return f"""\
{connections:,} connections at once, each of which has asked once and rests. {sections.machine()}

{sections.table(["", "kB of memory each", "ratio", "at most"], rows)}

Each is one task. What a connection that rests does not need is not there: no `h11` unless it had to read something new,
no state of bodies, no coroutine but the one that waits, and one copy of what many clients send alike."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--write", type=Path, default=sections.DOCUMENT, metavar="FILE", help="where the section goes")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < options.connections + 500:
        sys.exit(f"This shell allows {hard} open files: ulimit -Hn must be more than {options.connections + 500}.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, options.connections + 500), hard))
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        (site / "page.rpy").write_text("cache()\ndef resource(request): return 'Hello, world!'\n")
        with serving(site, Path(directory, "console"), "--quiet", "--host", "0.0.0.0") as server:
            good, ours = measure(server, options.connections)
        with bare(Path(directory, "bare")) as server:
            clients, least = memory_of(server, options.connections)
            for client in clients:
                client.close()
    text = section(ours, least, options.connections)
    sections.write(sections.HEADINGS[2], text, options.write)
    print(text)
    sys.exit(not good or ours > LIMIT * least)


if __name__ == "__main__":
    main()
