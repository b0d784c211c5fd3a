"""The baseline loop: the smallest correct keep-alive loop on trio and h11, and nothing else.

``python -m benchmarks.performance.baseline_loop PORT``. It is what a server on these two libraries
costs at least, and so what the others are measured by. Its response head is made anew each time, as
whoever writes such a loop does it first; only ``Date``, which a server must send (RFC 9110, section
6.6.1), is made once a second.
"""

from __future__ import annotations

import sys
import time
from email.utils import formatdate
from functools import lru_cache

import h11
import trio

BODY = b"Hello, world!"


@lru_cache(maxsize=1)
def date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


async def respond(stream: trio.SocketStream, connection: h11.Connection) -> None:
    headers = [
        (b"Date", date(int(time.time()))),
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(BODY)),
    ]
    data = connection.send(h11.Response(status_code=200, headers=headers))
    data += connection.send(h11.Data(data=BODY))
    data += connection.send(h11.EndOfMessage())
    await stream.send_all(data)


async def serve(stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    async with stream:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.EndOfMessage):
                await respond(stream, connection)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return


async def serve_or_close(stream: trio.SocketStream) -> None:
    try:
        await serve(stream)
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        await trio.aclose_forcefully(stream)


if __name__ == "__main__":
    trio.run(trio.serve_tcp, serve_or_close, int(sys.argv[1]))
