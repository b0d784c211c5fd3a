"""Failures on the console: each told once as a short block, however many requests it costs.

The same failure is one of the same kinds of exception at the same place of the same source. It is told again when a
file of the site has changed (whoever watches them calls `forget`), or when its page was good in between; until then it
is only counted, and the count comes once a minute at most. Memory is bounded: of many, the oldest is forgotten.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rpyserve.failures import Failure

__all__ = ["Complaints"]

MOST: Final = 200
AGAIN: Final = 60.0
"""Seconds."""

log = logging.getLogger("rpyserve")


@dataclass(slots=True)
class _Told:
    what: str
    title: str
    since: float
    again: int = 0


class Complaints:
    """What has been told of late.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: OrderedDict[tuple[object, ...], _Told] = OrderedDict()
        self._by_page: dict[str, tuple[object, ...]] = {}
        self._clients: OrderedDict[str, None] = OrderedDict()

    def tell(self, what: str, failure: Failure, *, page: str = "") -> bool:
        """Tell *failure* on the console, unless it has been told.

        Args:
            what: what failed, such as ``GET /hello``.
            page: the path of the page; when that is `good`, the failure is over.

        Returns:
            Whether it was told.
        """
        from rpyserve.errortext import as_text

        key = _key(failure)
        if page:
            self._by_page[page] = key
        told = self._told.get(key)
        if told is not None:
            self._told.move_to_end(key)
            told.again += 1
            if self._now() - told.since >= AGAIN:
                self._count(told)
            return False
        self._told[key] = _Told(what, failure.title, self._now())
        self._bound()
        log.error("%s: %s", what, as_text(failure))
        return True

    def once_for(self, client: str) -> bool:
        """Whether *client* has not been told of yet. From now on it has."""
        if client in self._clients:
            return False
        self._clients[client] = None
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)
        return True

    def good(self, page: str) -> None:
        """Note that *page* has been answered well."""
        if self._by_page and (key := self._by_page.pop(page, None)) is not None:
            told = self._told.pop(key, None)
            if told is not None:
                self._count(told)

    def forget(self) -> None:
        """A file of the site has changed: what fails from now on is told."""
        for told in self._told.values():
            self._count(told)
        self._told.clear()
        self._by_page.clear()

    def _bound(self) -> None:
        if len(self._told) > MOST:
            self._count(self._told.popitem(last=False)[1])
        if len(self._by_page) > 10 * MOST:
            self._by_page.clear()

    def _count(self, told: _Told) -> None:
        if told.again > 1:
            log.error("%s: again, %d times: %s", told.what, told.again, told.title)
        told.again = 0
        told.since = self._now()


def _key(failure: Failure) -> tuple[object, ...]:
    place = failure.place
    where = () if place is None else (place.file, place.line)
    return (*failure.kind, failure.script, *where, *(f.edition for fault in failure.chain for f in fault.own_frames))
