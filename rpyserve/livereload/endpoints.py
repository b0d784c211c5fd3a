"""What lies below ``/-/``: the script that makes a page follow, and the stream of changes that it listens to.

Plain resources, in a site of their own. They are for pages of this very server: a request that another origin
makes is refused before anything else. What is sent holds URL paths, never a path of this machine or a source.
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
from rpyserve.http.types import Responder
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.changes import PageChange
from rpyserve.resources.resource import Resource

__all__ = ["PREFIX", "EventStream", "mount", "tree"]

PREFIX: Final = "/-/"
HEARTBEAT: Final = 15.0
"""Seconds after which a quiet stream sends a comment, so that both sides notice when the other has gone."""
_PARTS: Final = ("form_state", "morph", "assets", "notice", "main")
RETRY: Final = 500
"""Milliseconds after which a browser asks again for a stream that has ended."""


def tree(hub: ChangeFeed) -> Resource:
    """Return the resource for ``/-/``."""
    branch = _Branch()
    branch.putChild("events", EventStream(hub))
    branch.putChild("follow.js", _Script())
    root = Resource()
    root.putChild("-", branch)
    return root


def mount(respond: Responder, ours: Responder) -> Responder:
    """Wrap *respond* so that *ours* answers what is below ``/-/``, for pages of this server, and unlogged."""

    async def answer(request: Request) -> Response:
        if not request.raw_path.startswith(PREFIX):
            return await respond(request)
        request._logged = False
        return await ours(request)

    return answer


class _Branch(Resource):
    def getChild(self, name: str, request: Request) -> Any:
        raise HTTPError(404)


class _Own(Resource):
    """A resource that only pages of this server may ask for."""

    isLeaf = True
    _wants_body = False

    def render(self, request: Request) -> Any:
        if is_cross_origin(request, allow_tls_proxy=True):
            raise HTTPError(403, "This is for pages of this server only.")
        if request.postpath:
            raise HTTPError(404)
        return super().render(request)


class _Script(_Own):
    """``follow.js``: several files in one function, so that none of their names is the page's."""

    def render_GET(self, request: Request) -> Response:
        import hashlib

        from rpyserve.files.media_types import media_type

        code = _script()
        fields = {
            "Content-Type": media_type("follow.js"),
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.blake2b(code, digest_size=8).hexdigest()}"',
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if fields["ETag"] in (request.getHeader("if-none-match") or ""):
            return Response(b"", 304, fields)
        return Response(code, 200, fields)


@lru_cache(maxsize=1)
def _script() -> bytes:
    from importlib.resources import files

    parts = [
        (files("rpyserve.livereload") / "client" / f"{name}.js").read_text(encoding="utf-8")
        for name in _PARTS
    ]
    return "".join(['(() => {\n"use strict";\n', *parts, "})();\n"]).encode()


class EventStream(_Own):
    """The changes of *hub*, as they come (HTML Living Standard, section 9.2: server-sent events)."""

    def __init__(self, hub: ChangeFeed) -> None:
        self._hub = hub

    def render_GET(self, request: Request) -> Response:
        since = request.getHeader("last-event-id") or request.field("since", self._hub.cursor)
        fields = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        if request.method == "HEAD":
            return Response(b"", 200, fields)
        client = (request.client[0], request.getHeader("user-agent"))
        return Response(self._events(since, client), 200, fields)

    async def _events(self, since: str, client: tuple[str, str | None]) -> AsyncIterator[str]:
        hub = self._hub
        with hub.reading(client) as reader:
            number = hub.number
            yield f"retry: {RETRY}\n{self._event('hello', hub.since(since))}"
            while True:
                with trio.move_on_after(HEARTBEAT) as waiting:
                    await hub.wait_change(number, reader)
                if reader.crowded:
                    reader.crowded = False
                    yield "event: crowded\ndata: {}\n\n"
                if hub.number != number:
                    change, number = hub.since(f"{hub.boot}-{number}"), hub.number
                    yield self._event("change", change)
                if reader.displaced:
                    return  # it asks again, and is told then what it has missed
                if hub.closed:
                    yield "event: stop\ndata: {}\n\n"
                    return
                if waiting.cancelled_caught:
                    yield ": still here\n\n"

    def _event(self, name: str, change: PageChange) -> str:
        import json

        hub = self._hub
        data = {
            "n": hub.number,
            "urls": sorted(change.urls),
            "all": change.all,
            "data": change.data,
        }
        if change.lost:
            data["lost"] = True
        return f"id: {hub.cursor}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
