"""A connection that another protocol has taken over, as a plain trio stream.

What the client sent before it knew that is read first. Sending has the time limit of the connection; how long the
client may be silent is the other protocol's business.
"""

from __future__ import annotations

import trio

from rpyserve.http.errors import Disconnected
from rpyserve.wire import PIECE, Phase, Wire

__all__ = ["Takeover"]


class Takeover(trio.abc.Stream):
    """The stream below *wire*, which nobody else reads or writes any more. Whoever has *wire* closes it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._early = wire.guard.release()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what there is; see `trio.abc.ReceiveStream`."""
        if not self._early:
            return await self._wire.stream.receive_some(max_bytes or PIECE)
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._early)
        data, self._early = self._early[:size], self._early[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; see `trio.abc.SendStream`."""
        try:
            await self._wire.send(bytes(data))
        except Disconnected:
            raise trio.BrokenResourceError("the client has gone") from None
        self._wire.enter(Phase.WORKING)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._wire.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._wire.stream.aclose()
