"""Every view and action that there is: who gets it, and what it may hold. None is listed here."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.inspected_site import Browser, InspectedSite, inspected

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&\u202e\x1b[2J javascript:"
KEEP = f"""
from rpyserve import cache

cache()


class Evil:
    pass


Evil.__name__ = Evil.__qualname__ = {EVIL!r}


def resource(request):
    session = request.getSession()
    session[{EVIL!r}] = [{EVIL!r}]
    session["object"] = Evil()
    session.notifyOnExpire(Evil)
    print({EVIL!r})
    request.setHeader("X-Evil", "<script>alert(1)</script>")
    if request.args.get("fail"):
        raise ValueError({EVIL!r})
    return {EVIL!r} + request.content.read().decode("latin-1")
"""


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[InspectedSite]:
    async with inspected(tmp_path) as served:
        served.write("keep.rpy", KEEP)
        yield served


async def visited(served: InspectedSite) -> Browser:
    """Somebody who has looked, and of whom every view has something to show."""
    browser = served.browser()
    await browser.look("requests")
    evil = f"/keep?{quote(EVIL)}={quote(EVIL)}"
    await browser.get(evil, "X-Evil: <script>alert(1)</script>", "User-Agent: <script>")
    await browser.ask("POST", "/keep", EVIL.encode(), "Content-Type: text/<script>")
    await served.edit("keep.rpy", f"# {EVIL}\n{KEEP}")
    await browser.get("/keep?fail=1")
    return browser


async def places(served: InspectedSite, browser: Browser) -> tuple[list[str], list[str]]:
    """The paths of all views, pages and JSON, and of all actions."""
    table = await browser.look("")
    handle = next(iter(served.site.sessions)).uid[:10]
    names = {"id": handle, "number": "1", "path": "keep.rpy"}

    def filled(entry: dict[str, Any]) -> str:
        return re.sub(r"\{(\w+)\*?\}", lambda found: names[found[1]], entry["path"])

    views = [filled(each) for each in table["views"]]
    pages = [path.removesuffix(".json") for path in views]
    return list(dict.fromkeys([*views, *pages])), [filled(each) for each in table["actions"]]


def foreign() -> list[tuple[str, ...]]:
    return [
        ("Origin: https://site",),
        ("Origin: http://site:81",),
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("X-Forwarded-For: 127.0.0.1",),
        ("Forwarded: for=127.0.0.1",),
        ("Via: 1.1 proxy",),
    ]


@pytest.mark.parametrize("fields", foreign()[:-1], ids=str)
async def test_others_get_what_a_site_without_an_inspector_answers(
    served: InspectedSite, fields: tuple[str, ...]
) -> None:
    browser = await visited(served)
    views, actions = await places(served, browser)
    assert len(views) > 15 and len(actions) > 7
    count = len(served.recorder.records())
    for path in [*views, *actions]:
        for method in ("GET", "POST"):
            reply = await browser.ask(method, path, b"", *fields)
            assert (reply.status, "alert" in reply.text) == (404, False), (method, path)
            assert "content-security-policy" not in str(reply.headers) or method == "GET"
            assert "trusted-types" not in str(reply.headers)
    assert len(served.site.sessions) == 1
    assert len(served.recorder.records()) >= count


async def test_an_action_needs_the_token_and_is_no_get(served: InspectedSite) -> None:
    browser = await visited(served)
    _, actions = await places(served, browser)
    session = next(iter(served.site.sessions))
    before = (session._last_access, len(served.recorder.records()))
    for path in actions:
        reply = await browser.get(path)
        assert (reply.status, reply.headers["allow"]) == (405, "POST"), path
        kind = "Content-Type: application/json"
        reply = await browser.ask("POST", path, b'{"token": "wrong"}', kind)
        assert reply.status == 403, path
        reply = await browser.ask("POST", path, b"{}", kind, "X-Rpyserve-Token: wrong")
        assert reply.status == 403, path
        assert "access-control-allow-origin" not in reply.headers
    assert (session._last_access, len(served.recorder.records())) == before
    assert session.ended is None


async def test_markup_is_text_in_every_view(served: InspectedSite) -> None:
    browser = await visited(served)
    views, _ = await places(served, browser)
    for path in [*views, "/-/requests/2", "/-/requests/3", "/-/errors/1", "/-/errors/1.json"]:
        reply = await browser.get(path)
        assert reply.status in (200, 409), path
        assert "access-control-allow-origin" not in reply.headers
        kind = reply.headers["content-type"]
        if kind.startswith("text/html"):
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "trusted-types" in policy
            page = re.sub(r"<script src=\"/-/inspect\.js\"[^>]*></script>", "", reply.text)
            assert (
                "<script" not in page
                and "<img" not in page
                and "onerror=alert" not in (re.sub(r"&lt;img[^<]*", "", page))
            ), path
            assert "\u202e" not in page and "\x1b" not in page, path
            assert 'href="javascript:' not in page
        elif kind == "application/json":
            json.loads(reply.body)
        else:
            assert kind == "text/plain; charset=utf-8"
            assert reply.headers["x-content-type-options"] == "nosniff"
