"""The server's end of a connection that fails when a test wants it to, and what is left open
afterwards.
"""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from typing import Any

import trio


class Fault(enum.Enum):
    BROKEN = enum.auto()
    CLOSED = enum.auto()
    STALL = enum.auto()
    EOF = enum.auto()
    CANCEL = enum.auto()


class Scripted(trio.abc.HalfCloseableStream):
    """A client that says *lines*, one a receive, then nothing; the *at*-th use of the stream meets
    *fault*.
    """

    def __init__(
        self, lines: list[bytes], at: int | None, fault: Fault, outer: trio.CancelScope
    ) -> None:
        self.lines = list(lines)
        self.at = at
        self.fault = fault
        self.outer = outer
        self.uses = 0
        self.dead = False
        self.closed = False
        self.sent = b""

    async def _use(self) -> None:
        assert not self.closed, "used after it was closed"
        await trio.lowlevel.checkpoint()
        number, self.uses = self.uses, self.uses + 1
        if self.dead or (number == self.at and self.fault is Fault.BROKEN):
            self.dead = True
            raise trio.BrokenResourceError
        if number == self.at:
            if self.fault is Fault.CLOSED:
                self.dead = True
                raise trio.ClosedResourceError
            if self.fault is Fault.STALL:
                await trio.sleep_forever()
            if self.fault is Fault.CANCEL:
                self.outer.cancel()
                await trio.lowlevel.checkpoint()
            self.lines = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._use()
        if not self.lines and self.at is not None and self.fault is not Fault.EOF:
            await trio.sleep_forever()
        return self.lines.pop(0) if self.lines else b""

    async def send_all(self, data: Any) -> None:
        await self._use()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        await self._use()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class CancelAt(trio.abc.Instrument):
    """Cancels *scope* before the *at*-th step of any task that is taken while it is installed."""

    def __init__(self, at: int | None, scope: trio.CancelScope) -> None:
        self.at = at
        self.scope = scope
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.steps == self.at:
            self.scope.cancel()
        self.steps += 1


def open_files() -> int:
    """How many files this process has open; 0 where that cannot be seen."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(directory))
    return 0


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
