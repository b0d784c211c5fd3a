"""What uncached scripts put into sessions: refused, however deep it lies, and taken out again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Session, Site
from rpyserve.sessions.components import touch_observers
from tests.support.in_process import Visitor

HEAD = """
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from rpyserve import Redirect, Registry, Resource, Session, HTTPError, registerAdapter, registry
import kept

class Item:
    def __init__(self, name="tea"):
        self.name = name

class Mark(Enum):
    EMPTY = 0

class Point(NamedTuple):
    x: int

class OwnSession(Session):
    sessionTimeout = 900

"""
KEPT = """
from rpyserve import Interface, Registry, Session, registerAdapter

class ICart(Interface):
    pass

class Cart:
    def __init__(self, session=None):
        self.items = []
        self.last = None
        self.pair = ()

registerAdapter(Cart, Session, ICart)
registerAdapter(Cart, Registry, ICart)
"""


class Play:
    def __init__(self, root: Path, site: Site) -> None:
        self.root = root
        self.site = site
        self.visitor = Visitor(site)

    def script(self, body: str, name: str = "a.rpy", first: str = "") -> None:
        lines = "\n    ".join(["s = request.getSession()", *body.splitlines()])
        text = f"{first}\n{HEAD}\ndef resource(request):\n    {lines}\n    return 'fine'\n"
        (self.root / name).write_text(text, encoding="utf-8")

    async def get(self, target: str = "/a", status: int = 200) -> str:
        answer = await self.visitor.get(target)
        assert answer.status == status, answer.text[-2000:]
        return answer.text

    @property
    def session(self) -> Session:
        [session] = self.site.sessions
        return session


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    (tmp_path / "kept.py").write_text(KEPT, encoding="utf-8")
    async with Site(Directory(tmp_path)).running() as site:
        yield Play(tmp_path, site)
    assert not touch_observers


CASES = {
    's.setdefault("items", []).append(Item())': 'session["items"][0]',
    's["board"] = [[Mark.EMPTY] * 3 for _ in range(3)]': 'session["board"][0][0]',
    "s.item = Item()": "session.item",
    "s.box = [Item()]": "session.box[0]",
    's["d"] = {"a": {"b": Item()}}': 'session["d"]["a"]["b"]',
    's["d"] = {"a": {Mark.EMPTY: 1}}': 'session["d"]["a"] (the key Mark)',
    's["d"] = [(1, (2, Item()))]': 'session["d"][0][1][1]',
    's["d"] = [{1, Mark.EMPTY}]': 'session["d"][0] (in it)',
    's["d"] = deque([deque([Item()])])': 'session["d"][0][0]',
    's["p"] = [[Point(1)]]': 'session["p"][0][0]',
    's["c"] = [[Item]]': 'session["c"][0][0]',
    's["cart"] = kept.Cart(); s["cart"].items.append(Item())': 'session["cart"].items[0]',
    "kept.ICart(s).items.append(Item())": "ICart(session).items[0]",
    "kept.ICart(registry).last = Item()": "ICart(registry).last",
    "cart = kept.Cart(); s.setComponent(kept.ICart, cart); cart.last = Item()": (
        "ICart(session).last"
    ),
    'registry.setdefault("notes", []).append(Item())': 'registry["notes"][0]',
    'request.site.registry.setdefault("n", {})["x"] = Item()': 'registry["n"]["x"]',
    "registry.best = Item()": "registry.best",
    "request.site.sessionFactory = OwnSession": "request.site.sessionFactory",
}


@pytest.mark.parametrize("body", CASES)
async def test_is_refused_with_its_path_and_the_mend_and_taken_out(
    play: Play, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    play.script(body)
    page = (await play.get(status=500)).replace("&#34;", '"').replace("&quot;", '"')
    assert f"{CASES[body]} cannot keep" in page
    assert "cache()" in page and ".py file beside it" in page
    assert f"{CASES[body]} cannot keep" in caplog.text
    play.script("")
    await play.get()
    assert len(caplog.messages) == 1
    play.script(body, first="from rpyserve import cache\ncache()")
    assert await play.get() == "fine", "the session is not poisoned"


async def test_of_what_was_there_before_nothing_else_is_lost(play: Play) -> None:
    play.script('s["items"] = ["tea", ["jam"]]; s["cart"] = kept.Cart()\ns["t"] = [(1, 2)]')
    await play.get()
    play.script(
        's["items"][1].append(Item())\ns["items"].insert(0, Mark.EMPTY)\n'
        's["cart"].pair = (1, Item())\ns["cart"].items.append("egg")\n'
        's["t"].append((1, (2, Item())))\ns["t"] = s["t"]'
    )
    await play.get(status=500)
    session = play.session
    assert session["items"] == ["tea", ["jam"]] and session["t"] == [(1, 2)]
    assert session["cart"].items == ["egg"] and not hasattr(session["cart"], "pair")


async def test_a_value_that_took_the_place_of_another_gives_it_back(play: Play) -> None:
    play.script('s["n"] = [1]')
    await play.get()
    play.script('s["n"] = [1, [Item()]]')
    await play.get(status=500)
    assert play.session["n"] == [1]


async def test_what_lies_under_two_names_is_taken_out_from_under_both(play: Play) -> None:
    play.script('s["old"] = ["tea"]')
    await play.get()
    play.script(
        's.get("new")\nitems = s["old"]\ns["new"] = items\nitems.append(Item())',
    )
    await play.get(status=500)
    assert play.session["old"] == ["tea"]


async def test_what_cannot_be_taken_out_of_its_container_goes_with_that(play: Play) -> None:
    play.script('s["items"] = ["tea"]')
    await play.get()
    play.script('s["items"].append(defaultdict(Item))')
    await play.get(status=500)
    assert play.session["items"] == ["tea"]


async def test_what_the_garbage_collector_does_not_track_is_looked_into(play: Play) -> None:
    first = "import msgspec\nclass Small(msgspec.Struct, gc=False):\n    item: object = None\n"
    play.script('s["d"] = [{"a": Small()}]', first=first)
    await play.get(status=500)
    (play.root / "kept.py").write_text(KEPT + first, encoding="utf-8")
    play.script('s["d"] = [kept.Small(Item())]')
    await play.get(status=500)
    assert "d" not in play.session


async def test_what_is_gone_again_by_the_end_is_nobodys_business(play: Play) -> None:
    play.script('s["q"] = []\ns["q"].append(Item())\ns["q"].clear()\nItem()\nmine = [Item()]')
    assert await play.get() == "fine"


async def test_a_redirect_and_an_error_of_the_script(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    play.script('s.setdefault("a", []).append(Item())\nraise Redirect("/b")')
    assert "cannot keep" in await play.get(status=500)
    caplog.clear()
    play.script('s.setdefault("b", []).append(Item())\nraise HTTPError(404)')
    await play.get(status=404)
    assert 'session["b"][0] cannot keep an object of the class Item' in caplog.text
    assert not dict(play.session)


async def test_a_stream_is_looked_at_when_it_ends(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    text = HEAD + (
        "async def resource(request):\n    s = request.getSession()\n    async def chunks():\n"
        "        yield 'a'\n        s.setdefault('items', []).append(Item())\n        yield 'b'\n"
        "    from rpyserve import Response\n    return Response(chunks())\n"
    )
    (play.root / "a.rpy").write_text(text, encoding="utf-8")
    assert await play.get() == "ab"
    assert 'GET /a: session["items"][0] cannot keep' in caplog.text
    assert "items" not in play.session


async def test_a_long_stream_keeps_no_session_of_another_visitor(play: Play) -> None:
    text = HEAD + (
        "import trio\nfrom rpyserve import Response\nasync def resource(request):\n"
        "    async def chunks():\n        await trio.sleep_forever()\n        yield 'a'\n"
        "    return Response(chunks())\n"
    )
    (play.root / "stream.rpy").write_text(text, encoding="utf-8")
    play.script('s["n"] = 1')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Visitor(play.site).get, "/stream")
        await trio.testing.wait_all_tasks_blocked()
        await play.get()
        session = weakref.ref(play.session)
        play.session.expire()
        gc.collect()
        assert session() is None
        nursery.cancel_scope.cancel()


async def test_what_a_background_task_of_a_former_request_keeps_is_found_by_the_next(
    play: Play,
) -> None:
    play.script(
        "async def tick():\n    registry.setdefault('log', []).append(Item())\n"
        "request.site.background(tick)\nregistry.get('log')"
    )
    await play.get()
    await trio.testing.wait_all_tasks_blocked()
    assert 'registry["log"][0] cannot keep' in (await play.get(status=500)).replace("&#34;", '"')
    await play.get()


async def test_overlapping_requests_do_not_find_each_others(
    play: Play, autojump_clock: Any
) -> None:
    text = HEAD + (
        "import trio\nasync def resource(request):\n    s = registry.setdefault('s', [])\n"
        "    item = Item()\n    s.append(item)\n    await trio.sleep(1)\n    s.remove(item)\n"
        "    return 'fine'\n"
    )
    (play.root / "a.rpy").write_text(text, encoding="utf-8")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(play.get)
            await trio.sleep(0.3)


async def test_cached_scripts_and_those_without_classes_are_not_watched(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []
    monkeypatch.setattr(Site, "watch_execution", lambda *args: watched.append(args))
    play.script('s["a"] = [Item()]', first="from rpyserve import cache\ncache()")
    await play.get()
    watched.clear()
    await play.get()
    (play.root / "b.rpy").write_text("def resource(request):\n    return 'fine'\n", "utf-8")
    await play.get("/b")
    assert not watched


async def test_only_what_was_used_is_looked_at(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = gc.get_referents
    monkeypatch.setattr(gc, "get_referents", lambda *a: seen.extend(a) or original(*a))
    play.site.registry["big"] = [[number] for number in range(1000)]
    play.script('registry["small"] = [[1]]')
    await play.get()
    assert len(seen) < 50


async def test_nothing_of_the_request_is_kept(play: Play) -> None:
    play.script('s.setdefault("items", []).append(Item())\nkept.item = request')
    await play.get(status=500)
    import kept  # type: ignore[import-not-found]

    request = weakref.ref(kept.item)
    del kept.item
    gc.collect()
    assert request() is None


async def test_a_request_is_freed_as_it_ends_not_when_the_garbage_collector_comes_by(
    play: Play,
) -> None:
    play.script("s['n'] = 1\nkept.request = request")
    await play.get()
    import kept  # type: ignore[import-not-found]

    request = weakref.ref(kept.request)
    gc.disable()
    try:
        del kept.request
        assert request() is None
    finally:
        gc.enable()


async def test_a_factory_that_makes_sessions_of_an_own_class(play: Play) -> None:
    body = "request.site.sessionFactory = lambda site, uid: OwnSession(site, uid)"
    play.script(body)
    await play.get()
    play.visitor.cookies.clear()
    assert "cannot keep an object of the class OwnSession" in await play.get(status=500)
    (play.root / "b.rpy").write_text(
        "resource = lambda request: str(request.getSession())\n", "utf-8"
    )
    await play.get("/b")


async def test_what_is_lost_when_cache_is_taken_out_is_told(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    body = 's.setdefault("items", []).append(Item())'
    play.script(body, first="from rpyserve import cache\ncache()")
    await play.get()
    play.script(body)
    await play.get(status=500)
    told = [message for message in caplog.messages if "call cache()" in message]
    assert len(told) == 1 and "a.rpy does not call cache() any more" in told[0]
    assert "(Item, Mark, Point, OwnSession)" in told[0]
    assert len(play.session["items"]) == 1, "the object from before is kept"
    play.script(body, first="from rpyserve import cache\ncache()")
    await play.get()
    assert len({type(item) for item in play.session["items"]}) == 1


@pytest.mark.parametrize(
    "first",
    [
        "from functools import cache\n@cache\ndef f(): pass",
        "from functools import cache\ncache(print)",
        "from functools import *\ncache(print)",
        "import functools as cache\ntry:\n    cache(print)\nexcept TypeError: pass",
        "from rpyserve import Resource\nif False:\n    cache()",
        "class Early: pass\ncache",
    ],
)
async def test_what_only_looks_like_cache_at_the_beginning_changes_nothing(
    play: Play, first: str
) -> None:
    play.script('s["list"] = [Item()]', first=first)
    assert "cannot keep an object of the class Item" in await play.get(status=500)


async def test_a_class_before_cache_that_fails_is_not_kept(play: Play) -> None:
    (play.root / "a.rpy").write_text(
        "from rpyserve import registry\n\nclass Item:\n    pass\n\n"
        "registry['kept'] = [Item()]\ncache(None)\n\ndef resource(request):\n    return ''\n"
    )
    await play.get(status=500)
    assert play.site.registry.get("kept") is None
