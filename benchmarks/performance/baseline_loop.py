"""The bare loop: the smallest correct keep-alive loop on trio and h11. No framework, no log, no limits.

``python benchmarks/baseline_loop.py PORT``. What a server on these two libraries costs at least, and so the measure of
`compare`. Its head is made anew for each response, as whoever writes such a loop does it first; only ``Date``, which
a server must send (RFC 9110, section 6.6.1), is made once a second.
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


async def answer(stream: trio.SocketStream, connection: h11.Connection) -> None:
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
                await answer(stream, connection)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return


async def guarded(stream: trio.SocketStream) -> None:
    try:
        await serve(stream)
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        await trio.aclose_forcefully(stream)


if __name__ == "__main__":
    trio.run(trio.serve_tcp, guarded, int(sys.argv[1]))
