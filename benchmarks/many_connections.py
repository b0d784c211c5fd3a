"""Ten thousand connections at once: what does each cost, and is one more client answered?

``python benchmarks/many_connections.py [--connections 10000]``. Each connection asks once and then rests, as a
browser's does. One machine has so many ports towards one address; here they go to several addresses of its own.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import trio
from serverprocess import Server, fetch, serving

REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def connect(server: Server, streams: list[trio.SocketStream], limit: trio.CapacityLimiter) -> None:
    async with limit:
        stream = await trio.open_tcp_stream(f"127.0.0.{1 + len(streams) % 4}", server.port)
        streams.append(stream)
        await stream.send_all(REQUEST)
        answer = b""
        while not answer.endswith(b"<p>page"):
            answer += await stream.receive_some(65536)


async def measure(server: Server, connections: int) -> bool:
    before = server.memory()
    streams: list[trio.SocketStream] = []
    limit = trio.CapacityLimiter(200)
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(connect, server, streams, limit)
    took = time.monotonic() - began
    after = server.memory()
    each = (after - before) / connections / 1000
    print(f"{server.descriptors()} descriptors after {took:.1f} s; {each:.1f} kB of memory a connection")
    times = []
    for _ in range(100):
        began = time.monotonic()
        assert (await fetch(server.port, "/page")).endswith(b"<p>page")
        times.append(time.monotonic() - began)
    print(f"one more client: median {sorted(times)[50] * 1000:.1f} ms, slowest {max(times) * 1000:.1f} ms")
    alive = 0
    for stream in streams[:: max(1, connections // 100)]:
        await stream.send_all(REQUEST)
        alive += (await stream.receive_some(65536)).endswith(b"<p>page")
    print(f"of every hundredth connection, asked again, {alive} answered")
    for stream in streams:
        await trio.aclose_forcefully(stream)
    with trio.move_on_after(30):
        while server.descriptors() > 100:  # noqa: ASYNC110  # of another process
            await trio.sleep(0.1)
    print(f"after all have gone: {server.descriptors()} descriptors")
    return max(times) < 1 and alive >= 100 and server.descriptors() < 100


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
            good = trio.run(measure, server, options.connections)
    sys.exit(not good)


if __name__ == "__main__":
    main()
