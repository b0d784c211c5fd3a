"""The stream by which an open page of the inspector learns that there is something new to see.

It says "look", and how many things there are, never what they are: the page then asks for itself.
So nothing piles up for a slow page, and there is one place that makes HTML. However busy the site
is, it says so a few times a second at most. Server-sent events: HTML Living Standard, section 9.2.

A stream takes one of the few connections that a browser has, so it counts as one of those that live
reload counts. While it is open, somebody looks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from rpyserve.http.browser import browser_of
from rpyserve.http.response import Response

if TYPE_CHECKING:
    from rpyserve.http.request import Request
    from rpyserve.inspector.recorder import Recorder
    from rpyserve.sessions.store import SessionStore

PAUSE: Final = 0.25
"""Seconds from one look to the next, at least."""


HEARTBEAT: Final = 15.0
"""Seconds after which a quiet stream sends a comment, so that both sides notice if one is gone."""

RETRY: Final = 500
"""Milliseconds after which a browser asks again for a stream that has ended."""


class Place(Protocol):
    """The place of one stream among those of its browser."""

    @property
    def displaced(self) -> bool:
        """Whether another stream has it now."""


class Places(Protocol):
    """Gives places to streams: a browser has few connections."""

    def subscribed(
        self, client: Hashable, *, on_displaced: Callable[[], object]
    ) -> AbstractContextManager[Place]:
        """While inside, *client* has one more stream."""


class Looks:
    """Makes the streams of a site.

    Args:
        recorder: knows of news.
        sessions: its sessions.
        places: has a place for each stream.
        boot: tells this run of the server from others.
    """

    def __init__(
        self, recorder: Recorder, sessions: SessionStore, places: Places, boot: str
    ) -> None:
        self._recorder = recorder
        self._sessions = sessions
        self._places = places
        self._boot = boot

    def response_to(self, request: Request) -> Response:
        """Return a stream."""
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return Response(b"" if request.method == "HEAD" else self.events(request), 200, headers)

    async def events(self, request: Request) -> AsyncGenerator[str, None]:
        """Yield what the stream sends, until there is nothing more to see."""
        recorder = self._recorder
        client = browser_of(request.client[0], request.raw_headers)
        with (
            self._places.subscribed(client, on_displaced=recorder.tell) as subscriber,
            self._looking(),
        ):
            seen = recorder.news
            yield f"retry: {RETRY}\n{self._event('look')}"
            while not (recorder.is_closed or subscriber.displaced):
                recorder.watch()
                await recorder.wait_until(partial(self._has_news, seen), HEARTBEAT)
                if not self._has_news(seen):
                    yield ": still here\n\n"
                    continue
                seen = recorder.news
                yield self._event("look")
                await trio.sleep(PAUSE)
            yield self._event("stop" if recorder.is_closed else "crowded")

    @contextmanager
    def _looking(self) -> Iterator[None]:
        self._recorder.looking += 1
        try:
            yield
        finally:
            self._recorder.looking -= 1

    def _has_news(self, seen: int) -> bool:
        return self._recorder.news != seen

    def _event(self, name: str) -> str:
        told = {
            "boot": self._boot,
            "requests": self._recorder.number,
            "ended": sum(self._sessions.statistics().ended.values()),
            "failed": self._recorder.failure_count,
        }
        return f"event: {name}\ndata: {json.dumps(told)}\n\n"
