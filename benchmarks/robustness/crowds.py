"""A crowd that holds every connection there may be, in each way that makes the server wait for it.

``python -m benchmarks.robustness.crowds [--seconds 10] [--clients 450] [--descriptors 600]
[CROWD ...]``. The server may have so many descriptors. Whoever it sends away comes back a second
later. Meanwhile a visitor asks for a script and a file, each on a new connection, and must get
enough responses. Not for Windows, which has no such limit.
"""

from __future__ import annotations

import ssl
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving

PATHS = ("/page", "/small.txt")
"""What the visitor asks for."""
END = b"the end"
"""How each response to the visitor ends."""
PAUSE = 0.05
"""Seconds between two requests of the visitor."""
ENOUGH = 5
"""Responses that the visitor must get in a second."""
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {'A' * 22}==\r\n"
)


@dataclass(frozen=True)
class Crowd:
    """What each of a crowd does.

    Args:
        opening: what it sends first.
        piece: what it sends every second from then on.
        reads: whether it reads what it gets.
        tls: whether the server expects TLS. The crowd does not speak it.
    """

    opening: bytes = b""
    piece: bytes = b""
    reads: bool = True
    tls: bool = False


def request(target: str, fields: str = "", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode()


BODY = request("/page", "Content-Length: 1000000\r\n", "POST")
CROWDS = {
    "nothing": Crowd(),
    "half a head": Crowd(request("/page")[:-2]),
    "half a head, slowly": Crowd(request("/page")[:-2], b"X: y\r\n"),
    "slow body": Crowd(BODY, b"x"),
    "body just fast enough": Crowd(BODY, b"x" * 1100),
    "half an upload": Crowd(BODY + bytes(600_000)),
    "unread download": Crowd(request("/large.bin"), b"\r\n", reads=False),
    "event streams": Crowd(request("/-/events", "User-Agent: %d\r\n")),
    "NOT_DONE_YET": Crowd(request("/never")),
    "WebSockets": Crowd(request("/socket", UPGRADE)),
    "no TLS": Crowd(tls=True),
    "half of TLS": Crowd(b"\x16\x03\x01", tls=True),
}
SITE = {
    "page.rpy": b"def resource(request): return 'the end'\n",
    "small.txt": b"the end",
    "large.bin": bytes(20_000_000),
    "never.rpy": b"from rpyserve import NOT_DONE_YET\ndef resource(request): return NOT_DONE_YET\n",
    "socket.rpy": b"""from rpyserve import websocket
@websocket
async def resource(socket):
    async for message in socket:
        pass
""",
}


async def be_one_of(crowd: Crowd, port: int, number: int) -> None:
    """Connect, and again a second after the server has closed the connection."""
    while True:
        with suppress(OSError):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await hold(stream, crowd, number)
        await trio.sleep(1)


async def hold(stream: trio.SocketStream, crowd: Crowd, number: int) -> None:
    """Do what *crowd* does until the server closes the connection."""

    async def read() -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some(65536):
                pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        if crowd.reads:
            nursery.start_soon(read)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(crowd.opening.replace(b"%d", b"%d" % number))
            while crowd.piece:
                await trio.sleep(1)
                await stream.send_all(crowd.piece)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def ask(port: int, path: str, tls: bool) -> bytes:
    """Return what comes back, on a connection of its own."""
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = plain
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = trio.SSLStream(plain, context, server_hostname="localhost")
    received = b""
    async with stream:
        await stream.send_all(request(path, "Connection: close\r\n"))
        while data := await stream.receive_some(65536):
            received += data
    return received


async def visit(
    server: ServerProcess, crowd: Crowd, clients: int, seconds: float
) -> tuple[int, list[str]]:
    """Return how many responses a visitor got, and what else it saw, beside *crowd*."""
    good, bad = 0, []
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(be_one_of, crowd, server.port, number)
        await trio.sleep(3)
        with trio.move_on_after(seconds):
            while True:
                for path in PATHS:
                    try:
                        response = await ask(server.port, path, crowd.tls)
                    except (OSError, trio.BrokenResourceError) as exc:
                        response = type(exc).__name__.encode()
                    if response.startswith(b"HTTP/1.1 200 ") and response.endswith(END):
                        good += 1
                    else:
                        bad.append(f"{path}: {response[:60]!r}")
                    await trio.sleep(PAUSE)
        nursery.cancel_scope.cancel()
    return good, bad


def run(
    crowds: list[str],
    clients: int,
    descriptors: int,
    seconds: float,
    tell: Callable[[str], object] = print,
) -> bool:
    """Try all *crowds*, each on a server of its own; return whether the visitor got enough."""
    enough = True
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        for name, content in SITE.items():
            (site / name).write_bytes(content)
        for name in crowds:
            crowd = CROWDS[name]
            options = ["--quiet", *(["--tls"] if crowd.tls else [])]
            console = Path(directory, "console")
            with serving(site, console, *options, descriptors=descriptors) as server:
                good, bad = trio.run(visit, server, crowd, clients, seconds)
            enough = enough and good >= ENOUGH * seconds
            tell(f"{name:21} {good:4} responses, {len(bad)} failures {bad[:2] or ''}")
    return enough


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=450)
    parser.add_argument("--descriptors", type=int, default=600)
    parser.add_argument("crowds", nargs="*", metavar="CROWD", help=", ".join(CROWDS))
    options = parser.parse_args()
    print(
        f"{options.clients} clients, {options.descriptors} descriptors, {options.seconds:g} s each:"
    )
    crowds = options.crowds or list(CROWDS)
    sys.exit(not run(crowds, options.clients, options.descriptors, options.seconds))


if __name__ == "__main__":
    main()
