"""A store keeps genuine sessions, as it keeps ours; and a script waits for Twisted's reactor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Site
from tests.support.genuine import TwistedSite
from tests.support.in_process import Visitor

SCRIPT = """cache()
from twisted.python.components import registerAdapter
from twisted.web.resource import Resource
from twisted.web.server import Session
from zope.interface import Interface

class ICounter(Interface):
    pass

class Counter:
    def __init__(self, session):
        self.session = session
        self.value = 0

registerAdapter(Counter, Session, ICounter)

class Mine(Session):
    pass

class Page(Resource):
    def render_GET(self, request):
        request.site.sessionFactory = Mine
        session = request.getSession()
        session.name = getattr(session, "name", "") + "x"
        counter = ICounter(session)
        counter.value += 1
        same = counter.session is session is request.site.getSession(session.uid)
        return "%s %s %s %s" % (counter.value, session.name, type(session) is Mine, same)

resource = Page()
"""


async def test_sessions_outlive_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "site"
    root.mkdir()
    (root / "a.rpy").write_text(SCRIPT)
    cookies: dict[str, str] = {}
    answers = []
    for _ in range(2):
        site = Site(Directory(root), store=f"sqlite:{tmp_path / 'sessions'}")
        async with site.running():
            visitor = Visitor(site)
            visitor.cookies = cookies
            answers += [(await visitor.get("/a")).text for _ in range(2)]
            cookies = visitor.cookies
    assert answers == [f"{number} {'x' * number} True True" for number in range(1, 5)]
    assert "cannot be kept" not in caplog.text


async def test_a_script_that_waits_for_the_reactor(site: TwistedSite, autojump_clock: Any) -> None:
    site.write(
        "a.rpy",
        """cache()
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

class Page(Resource):
    def render_GET(self, request):
        d = deferLater(reactor, 5, request.write, b"at last")
        d.addCallback(lambda result: request.finish())
        return NOT_DONE_YET

resource = Page()
""",
    )
    served = Site(Directory(site.root))
    async with served.running():
        began = trio.current_time()
        assert (await Visitor(served).get("/a")).text == "at last"
        assert trio.current_time() - began == pytest.approx(5, abs=0.5)
