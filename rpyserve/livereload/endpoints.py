"""What lies below ``/-/``: the script of a page, and the stream of changes that it listens to.

Plain resources, in a site of their own. They are for pages of this very server: a request that
another origin makes is refused before anything else. What is sent holds URL paths, never a path of
this machine or a source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, Final

import trio

from rpyserve.http.browser import is_cross_origin
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.changes import PageChange
from rpyserve.resources.resource import Resource

__all__ = ["PREFIX", "EventStream", "tree"]

PREFIX: Final = "/-/"
HEARTBEAT: Final = 15.0
"""Seconds after which a quiet stream sends a comment.

So both sides notice when the other has gone.
"""
RETRY: Final = 500
"""Milliseconds after which a browser asks again for a stream that has ended."""
CLIENT_PARTS: Final = ("dom", "form_state", "morph", "assets", "notice", "main")
"""The files of the client, in the order in which they are joined.

Each uses only functions and constants of those before it, and `main` begins to work when it is
reached: ``dom`` (what no page's names can hide), ``form_state`` (what a visitor typed), ``morph``
(uses `FormState`), ``assets`` (uses `SITE` of ``main``, at the time of a change), ``notice``, and
last ``main``.
"""


def tree(feed: ChangeFeed) -> Resource:
    """Return the root of a site that has the resources below ``/-/``."""
    branch = _Branch()
    branch.putChild("events", EventStream(feed))
    branch.putChild("follow.js", _ClientScript())
    root = Resource()
    root.putChild("-", branch)
    return root


class _Branch(Resource):
    def getChild(self, name: str, request: Request) -> Any:
        raise HTTPError(404)


class _SameOriginResource(Resource):
    """A resource that only pages of this server may ask for."""

    isLeaf = True
    _wants_body = False

    def render(self, request: Request) -> Any:
        if is_cross_origin(request, allow_tls_proxy=True):
            raise HTTPError(403, "This is for pages of this server only.")
        if request.postpath:
            raise HTTPError(404)
        return super().render(request)


class _ClientScript(_SameOriginResource):
    """``follow.js``: several files in one function, so that none of their names is the page's."""

    def render_GET(self, request: Request) -> Response:
        import hashlib

        from rpyserve.files.media_types import media_type

        code = _client_script()
        etag = f'"{hashlib.blake2b(code, digest_size=8).hexdigest()}"'
        headers = {
            "Content-Type": media_type("follow.js"),
            "Cache-Control": "no-cache",
            "ETag": etag,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if etag in (request.getHeader("if-none-match") or ""):
            return Response(b"", 304, headers)
        return Response(code, 200, headers)


@lru_cache(maxsize=1)
def _client_script() -> bytes:
    from importlib.resources import files

    folder = files("rpyserve.livereload") / "client"
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in CLIENT_PARTS]
    return "".join(['(() => {\n"use strict";\n', *parts, "})();\n"]).encode()


class EventStream(_SameOriginResource):
    """The changes of *feed*, as they come.

    Server-sent events: HTML Living Standard, section 9.2.
    """

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed

    def render_GET(self, request: Request) -> Response:
        since = request.getHeader("last-event-id") or request.field("since", self._feed.cursor)
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        if request.method == "HEAD":
            return Response(b"", 200, headers)
        client = (request.client[0], request.getHeader("user-agent"))
        return Response(self._events(since, client), 200, headers)

    async def _events(self, since: str, client: tuple[str, str | None]) -> AsyncIterator[str]:
        feed = self._feed
        with feed.subscribed(client) as subscriber:
            number = feed.number
            yield f"retry: {RETRY}\n{self._event('hello', feed.since(since))}"
            while True:
                with trio.move_on_after(HEARTBEAT) as waiting:
                    await feed.wait_change(number, subscriber)
                if subscriber.crowded:
                    subscriber.crowded = False
                    yield "event: crowded\ndata: {}\n\n"
                if feed.number != number:
                    change, number = feed.since(feed.cursor_at(number)), feed.number
                    yield self._event("change", change)
                if subscriber.displaced:
                    return  # it asks again, and is told then what it has missed
                if feed.closed:
                    yield "event: stop\ndata: {}\n\n"
                    return
                if waiting.cancelled_caught:
                    yield ": still here\n\n"

    def _event(self, name: str, change: PageChange) -> str:
        import json

        data = {
            "n": self._feed.number,
            "urls": sorted(change.urls),
            "all": change.all,
            "data": change.data,
        }
        if change.lost:
            data["lost"] = True
        return f"id: {self._feed.cursor}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
