"""Rounds of trio's loop: what makes one look at the disk do for all requests that came together.

In each round the loop asks the system what has come, and then runs every task that something came for. So what is seen
on the disk within a round is as new as any request that is taken up in it: a request that somebody sends after a save
is taken up in a later one. That holds for every stream of trio's, as whoever receives without having to wait is put off
to the next round. A request carries its round as ``moment``; one that has none is never spared a look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["LoopTick"]


class LoopTick(trio.abc.Instrument):
    """The rounds of one run of the loop.

    Attributes:
        now: stands for the present one: another object each time, so that rounds of two loops are never taken for one.
    """

    def __init__(self) -> None:
        self.now = object()

    def after_io_wait(self, timeout: float) -> None:
        """A round begins: what has come is known."""
        self.now = object()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While inside, `now` is right."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)
            self.now = object()
