"""What lies below ``/-/``: the script of a page, and the stream of changes that it listens to.

Plain resources, in a site of their own, behind a `Gate`: they are for pages of this very server,
and tell a visitor only of what the site would show to that visitor. Whatever comes to ``/-/`` later
belongs behind the same gate. What is sent holds URL paths, never a path of this machine or a
source.

``/-/errors.js`` has each page tell of its scripts' errors, by a ``POST`` to ``/-/browser``.
``/-/events`` is three things. A page asks once what has changed since it was made (``?once``); one
page of each browser has a stream of what changes from then on; and pages say what they have shown
by a ``POST``.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve.http.browser import browser_of
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.livereload.change_feed import Answer, ChangeFeed
from rpyserve.livereload.changes import ANYTHING, NOTHING, Changes, PageChange
from rpyserve.livereload.script_tag import SentPages
from rpyserve.livereload.write_loops import RequestSpan, WriteLoopDetector
from rpyserve.resources.auth import Gate, View
from rpyserve.resources.resource import Resource
from rpyserve.util.text import escape_for_log, escape_unprintable
from rpyserve.util.throttle import ThrottledLogger

if TYPE_CHECKING:
    from rpyserve.files.directory import Directory
    from rpyserve.site import Site

Tools = Mapping[str, Callable[[], Resource]]

PREFIX: Final = "/-/"
HEARTBEAT: Final = 15.0
"""Seconds after which a quiet stream sends a comment.

So both sides notice when the other has gone.
"""
RETRY: Final = 500
"""Milliseconds after which a browser asks again for a stream that has ended."""
CLIENT_PARTS: Final = (
    "dom",
    "form_state",
    "reload_state",
    "morph",
    "text_morph",
    "assets",
    "notice",
    "page",
    "stream",
    "main",
)
"""The files of the client, in the order in which they are joined.

Each uses only functions and constants of those before it, and `main` begins to work when it is
reached: ``dom`` (what no page's names can hide), ``form_state`` (what a visitor typed),
``reload_state`` (the same over a reload), ``morph`` (uses `FormState`), ``text_morph`` (the same
for pages with scripts), ``assets`` (uses `SITE` of ``main``, at the time of a change), ``notice``,
``page`` (what the server sends now), ``stream`` (uses what ``main`` knows of the page, once it has
joined), and last ``main``.
"""
YEAR: Final = 365 * 24 * 3600
MAX_REPORT: Final = 500
"""Of how many characters of a browser's report a line on the console has at most."""
REPEAT_INTERVAL: Final = 5.0
"""Seconds in which the same report is written once."""
REPORT_PERIOD: Final = 60.0
MAX_REPORTS: Final = 60
"""How many reports are written in so many seconds."""

_KINDS: Final = {"error": "", "rejection": "unhandled rejection: "}
_FAILURES: Final = frozenset({"error", "rejection", "console.error", "console.warn"})
_REPORTED: Final = _FAILURES | {"console.debug", "console.log", "console.info"}

log = logging.getLogger("rpyserve")

MAX_TABS: Final = 1000
"""How many tabs one browser is believed to have."""


def tree(
    feed: ChangeFeed,
    audience: Audience,
    sent: SentPages,
    write_loops: WriteLoopDetector | None = None,
    tools: Tools | None = None,
) -> Resource:
    """Return the root of a site that has the resources below ``/-/``.

    Args:
        feed: the changes.
        audience: decides who is told of them.
        sent: what was sent as pages, for the scripts in them.
        write_loops: is told of pages that have loaded themselves again, and of what they write.
        tools: make what else is there, by its name, when it is first asked for.
    """
    branch = _Branch(tools or {})
    branch.putChild("events", EventStream(feed, audience, write_loops))
    branch.putChild("follow.js", _ClientScript(follow_script))
    branch.putChild("errors.js", _ClientScript(errors_script, max_age=YEAR))
    branch.putChild("browser", _BrowserReports(BrowserErrors()))
    branch.putChild("sent", _SentPage(sent))
    root = Resource()
    root.putChild("-", Gate(branch, audience.site))
    return root


class _Branch(Resource):
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def getChild(self, name: str, request: Request) -> Any:
        if name not in self._tools:
            raise HTTPError(404)
        self.putChild(name, self._tools[name]())
        return self.children[name]


class _Leaf(Resource):
    isLeaf = True
    _wants_body = False
    _wants_session = False

    def render(self, request: Request) -> Any:
        if request.postpath:
            raise HTTPError(404)
        return super().render(request)


class _ClientScript(_Leaf):
    """A script for pages.

    Args:
        script: gives its code, and its version.
        max_age: seconds for which a browser may keep it, where it asks for that very version.
    """

    def __init__(self, script: Callable[[], tuple[bytes, str]], max_age: int = 0) -> None:
        self._script = script
        self._max_age = max_age

    def render_GET(self, request: Request) -> Response:
        from rpyserve.files.media_types import media_type

        code, version = self._script()
        etag = f'"{version}"'
        is_for_good = self._max_age and request.uri.endswith(f"?{version}")
        headers = {
            "Content-Type": media_type("follow.js"),
            "Cache-Control": f"max-age={self._max_age}, immutable" if is_for_good else "no-cache",
            "ETag": etag,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if etag in (request.getHeader("if-none-match") or ""):
            return Response(b"", 304, headers)
        return Response(code, 200, headers)


@lru_cache(maxsize=1)
def follow_script() -> tuple[bytes, str]:
    """Return ``follow.js`` and its version."""
    return _with_version(_joined(map(_client_file, CLIENT_PARTS)))


@lru_cache(maxsize=1)
def errors_script() -> tuple[bytes, str]:
    """Return ``errors.js`` and its version."""
    return _with_version(_client_file("errors"))


def morphing_script(own: str) -> str:
    """Return *own*, the code of another of the server's pages, after what it can use.

    That is ``plain``, ``FormState`` and ``Mirror``, by which a page comes to show another.
    """
    return _joined([*map(_client_file, ("dom", "form_state", "morph")), own])


def _joined(parts: Iterable[str]) -> str:
    """The code of several files as one script, none of whose names is the page's."""
    return "".join(['(() => {\n"use strict";\n', *parts, "})();\n"])


def _client_file(name: str) -> str:
    from importlib.resources import files

    path = files("rpyserve.livereload") / "client" / f"{name}.js"
    return path.read_text(encoding="utf-8")


def _with_version(code: str) -> tuple[bytes, str]:
    import hashlib

    encoded = code.encode()
    return encoded, hashlib.blake2b(encoded, digest_size=8).hexdigest()


class BrowserErrors:
    """Writes on the console what goes wrong in the pages of this site.

    Whoever may load a page may send such reports: a line is short, and cannot control a terminal;
    one that repeats is counted; and of many that differ, only the first of a minute are written.
    """

    def __init__(self) -> None:
        self._lines = ThrottledLogger(log, REPEAT_INTERVAL)
        self._omitted = ThrottledLogger(log)
        self._ends = -math.inf
        self._left = 0

    def report(self, page: str, kind: str, text: str, place: str = "") -> None:
        """Write the line of one report.

        Args:
            page: the path of the page.
            kind: ``error``, ``rejection``, or ``console.log`` and the like.
            text: what happened.
            place: where, for an author; empty if that is not known.
        """
        if not self._has_room():
            self._omitted.warn("In the browser: more than %d errors a minute.", MAX_REPORTS)
            return
        level = logging.WARNING if kind in _FAILURES else logging.INFO
        line = "".join(
            (
                f"In the browser, {escape_for_log(page)}: {_KINDS.get(kind, f'{kind}: ')}",
                escape_unprintable(text[:MAX_REPORT]),
                f" ({place})" if place else "",
            )
        )
        self._lines.log(level, "%s", line, key=line)

    def _has_room(self) -> bool:
        now = trio.current_time()
        if now >= self._ends:
            self._ends, self._left = now + REPORT_PERIOD, MAX_REPORTS
        self._left -= 1
        return self._left >= 0


class _BrowserReports(_Leaf):
    _wants_body = True

    def __init__(self, errors: BrowserErrors) -> None:
        self._errors = errors

    def render_POST(self, request: Request) -> Response:
        """What went wrong in a page, or what it has logged."""
        kind, text = request.field("kind", ""), request.field("text", "")
        if kind not in _REPORTED:
            raise HTTPError(400)
        page, url, line = (request.field(name, "") for name in ("page", "url", "line"))
        place = (
            f"{_file_of(url, page)}, line {line}" if re.fullmatch("[1-9][0-9]{0,6}", line) else ""
        )
        self._errors.report(page, kind, text, place)
        return Response(b"", 204)


def _file_of(url: str, page: str) -> str:
    if url.partition("?")[0] == page:
        return "the page as the browser got it"
    return escape_for_log(url) if url else "a script that the page has made"


class _SentPage(_Leaf):
    """A page of *sent*, by its name, for the script in it: once."""

    def __init__(self, sent: SentPages) -> None:
        self._sent = sent

    def render_GET(self, request: Request) -> Response:
        page = self._sent.take(request.field("name", ""))
        if page is None:
            raise HTTPError(404)
        return page


class EventStream(_Leaf):
    """The changes of *feed*, as they come, as far as *audience* lets the visitor know of them.

    Server-sent events: HTML Living Standard, section 9.2. What pages send is believed as far as the
    line on the console goes, and no further.
    """

    def __init__(
        self, feed: ChangeFeed, audience: Audience, write_loops: WriteLoopDetector | None = None
    ) -> None:
        self._feed = feed
        self._audience = audience
        self._write_loops = write_loops or WriteLoopDetector(lambda path: None)

    async def render_GET(self, request: Request) -> Response:
        view = View(self._audience.site, request)
        page = request.field("page", "/")
        await self._audience.challenge(view, page)
        asked = request.getHeader("last-event-id") or request.field("since", None)
        since = self._feed.cursor if asked is None else asked
        if "once" in request.args:
            return await self._answer_once(since, request, view)
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        if request.method == "HEAD":
            return Response(b"", 200, headers)
        return Response(self._events(since, request, view), 200, headers)

    def render_POST(self, request: Request) -> Response:
        """What the pages of a browser did with the changes up to a cursor."""
        counts = {name: _count(request, name) for name in ("tabs", "shown", "loading", "unchanged")}
        name, cursor = request.field("name", ""), request.field("since", "")
        if _count(request, "caused"):
            self._write_loops.note_caused()
        self._feed.take_answer(name, cursor, Answer(**counts))
        return Response(b"", 204)

    async def _answer_once(self, since: str, request: Request, view: View) -> Response:
        import json

        client = _client_of(request)
        if "reloaded" in request.args:
            self._feed.take_arrival(since)
            self._write_loops.note_reload(client, request.field("page", "/"), since)
        cursor = self._feed.cursor
        change = await self._visible_since(since, view, client)
        said = {
            "cursor": cursor,
            "now": _milliseconds(time.time()),
            "visitor": self._audience.digest_of(request),
            "room": self._feed.has_room(client, shared="shared" in request.args),
            "change": change,
        }
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return Response(json.dumps(said), 200, headers)

    async def _events(self, since: str, request: Request, view: View) -> AsyncIterator[str]:
        feed, client = self._feed, _client_of(request)
        name = request.field("name", "")
        with feed.subscribed(client, name=name, shared="shared" in request.args) as subscriber:
            number = feed.number
            change = await self._visible_since(since, view, client)
            yield f"retry: {RETRY}\n{self._event('hello', change, number)}"
            while True:
                with trio.move_on_after(HEARTBEAT) as waiting:
                    await feed.wait_change(number, subscriber)
                if feed.number != number:
                    before, number = feed.cursor_at(number), feed.number
                    view = View(self._audience.site, request)
                    change = await self._visible_since(before, view, client)
                    if any(change.values()):
                        yield self._event("change", change, number)
                if subscriber.displaced:
                    yield "event: crowded\ndata: {}\n\n"
                    return  # it asks now and then, and is told what it has missed
                if feed.closed:
                    yield "event: stop\ndata: {}\n\n"
                    return
                if waiting.cancelled_caught:
                    yield ": still here\n\n"

    async def _visible_since(self, cursor: str, view: View, client: Hashable) -> dict[str, object]:
        """What the pages of *client* are told of all that has changed since *cursor* by now."""
        changes, causes = self._feed.since(cursor), self._feed.causes_since(cursor)
        return _as_json(await self._audience.visible(changes, view), causes, client)

    def _event(self, name: str, data: dict[str, object], number: int) -> str:
        import json

        return f"id: {self._feed.cursor_at(number)}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


def _client_of(request: Request) -> Hashable:
    return browser_of(request.client[0], request.raw_headers)


def _count(request: Request, name: str) -> int:
    value = request.field(name, "0")
    return min(int(value), MAX_TABS) if re.fullmatch("[0-9]{1,9}", value) else 0


def _as_json(
    change: PageChange, causes: Sequence[RequestSpan], client: Hashable
) -> dict[str, object]:
    """What the pages of *client* are told of *change*.

    Args:
        causes: the requests that have caused it. When they ran is told only to the browser that
            made them.
    """
    data: dict[str, object] = {
        "urls": sorted(change.urls),
        "all": change.all,
        "data": change.data,
    }
    if change.lost:
        data["lost"] = True
    if change and causes and all(span.client == client for span in causes):
        data["by"] = [[_milliseconds(span.started), _milliseconds(span.ended)] for span in causes]
    return data


def _milliseconds(moment: float) -> int | None:
    """*moment* for JSON; None if it has not come yet."""
    return round(moment * 1000) if math.isfinite(moment) else None


# Who is told what


class Audience:
    """The subscribers of a site's changes.

    Args:
        site: the site, whose guards and virtual hosts count.
        mounts: its directories, each with the URL path that leads to it.
    """

    def __init__(self, site: Site, mounts: Sequence[tuple[Directory, str]]) -> None:
        self.site = site
        self._key = secrets.token_bytes(16)
        self._mounts = [(directory, str(directory.path), prefix) for directory, prefix in mounts]
        self._announced: dict[str, str] = {}  # of each path, the prefix of its URLs in changes
        for _, path, prefix in self._mounts:
            self._announced.setdefault(path, prefix)

    def digest_of(self, request: Request) -> str:
        """Return what tells visitors apart: two requests with equal ones are told the same."""
        import hashlib

        fields = request.raw_headers.values
        known = repr((fields.get(b"authorization"), fields.get(b"cookie"))).encode()
        return hashlib.blake2b(known, key=self._key, digest_size=8).hexdigest()

    async def challenge(self, view: View, page: str) -> None:
        """Have the browser send the password with which it got *page*, the path of an open page.

        Raises:
            HTTPError: 401, it has not.
        """
        if any(page.startswith(prefix) for _, _, prefix in self._mounts):
            await view.challenge(page, [directory for directory, _, _ in self._mounts])

    async def visible(self, changes: Changes | None, view: View) -> PageChange:
        """Return what is told of *changes* to the visitor whose *view* it is."""
        if changes is None:
            return ANYTHING
        seen = NOTHING
        for directory, path, prefix in self._mounts:
            if path in changes:
                old = self._announced[path]
                seen |= await _visible_part(changes[path], directory, (old, prefix), view)
        return seen


async def _visible_part(
    change: PageChange, directory: Directory, prefixes: tuple[str, str], view: View
) -> PageChange:
    """What *view* shows of *change* in *directory*.

    Args:
        prefixes: how the URLs in the change begin, and those of the directory.
    """
    announced, prefix = prefixes
    is_visible = await view.shows(prefix, [directory])
    urls = set()
    for url in change.urls:
        if url == "*":
            shown = is_visible
        else:
            shown = await view.shows(prefix + url.removeprefix(announced), [directory])
        if shown:
            urls.add(url)
    if not urls and not is_visible:
        return NOTHING
    return replace(change, urls=frozenset(urls))
