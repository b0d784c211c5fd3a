"""Scripts that use Twisted's reactor."""

from __future__ import annotations

import gc
import os

import pytest

from tests.support.genuine import TwistedSite

# Twisted uses what it has deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LATER = """\
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        reactor.callLater(0.01, self.finish, request)
        return NOT_DONE_YET

    def finish(self, request):
        request.write(b"later")
        request.finish()

resource = Page()
"""


def test_a_timed_call_finishes_a_response(site: TwistedSite) -> None:
    site.write("later.rpy", LATER)
    for _ in range(2):  # a server that is started again in this process has a reactor, too
        with site.client() as client:
            assert client.get("/later").text == "later"


def test_threads_coroutines_and_a_looping_call(site: TwistedSite) -> None:
    site.write(
        "thread.rpy",
        """\
import threading
from twisted.internet import defer, reactor, task
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        defer.ensureDeferred(self.answer(request))
        return NOT_DONE_YET

    async def answer(self, request):
        ticks = []
        loop = task.LoopingCall(lambda: ticks.append(1) or len(ticks) > 2 and loop.stop())
        await loop.start(0.001)
        await task.deferLater(reactor, 0.001)
        here, there = await deferToThread(self.in_thread)
        request.write(f"{here == there} {len(ticks) > 2}")
        request.finish()

    def in_thread(self):
        inner = blockingCallFromThread(reactor, threading.get_ident)
        return threading.get_ident(), inner

resource = Page()
""",
    )
    with site.client() as client:
        assert client.get("/thread").text == "False True"


def test_an_agent_asks_a_server_of_the_script(site: TwistedSite) -> None:
    site.write(
        "agent.rpy",
        """\
from twisted.internet import defer, endpoints, reactor
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        defer.ensureDeferred(self.answer(request))
        return NOT_DONE_YET

    async def answer(self, request):
        root = Resource()
        root.putChild(b"", Data(b"hello", "text/plain"))
        endpoint = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        port = await endpoint.listen(Site(root))
        url = b"http://127.0.0.1:%d/" % port.getHost().port
        response = await Agent(reactor).request(b"GET", url)
        request.write(await readBody(response))
        await port.stopListening()
        request.finish()

resource = Page()
""",
    )
    with site.client() as client:
        assert client.get("/agent").text == "hello"


@pytest.mark.skipif(os.name == "nt", reason="has no pollreactor")
@pytest.mark.parametrize("name", ["pollreactor", "selectreactor"])
@pytest.mark.parametrize("imported", ["", "from twisted.internet import reactor\n"])
def test_another_reactor_cannot_be_installed(site: TwistedSite, name: str, imported: str) -> None:
    site.write("a.rpy", f"{imported}from twisted.internet import {name}\n{name}.install()\n")
    with site.client(raise_errors=False) as client:
        response = client.get("/a", headers={"accept": "text/plain"})
    assert response.status_code == 500
    assert "Leave its install() out, and import twisted.internet.reactor." in response.text
    assert f"{name}.install()" in response.text


def test_a_script_cannot_run_it(site: TwistedSite) -> None:
    site.write("a.rpy", "from twisted.internet import reactor\nreactor.run()\n")
    with site.client(raise_errors=False) as client:
        response = client.get("/a", headers={"accept": "text/plain"})
    assert response.status_code == 500
    assert "the reactor is running already" in response.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken(site: TwistedSite) -> None:
    site.write(
        "a.rpy",
        """\
from twisted.internet import reactor
from twisted.internet.protocol import Factory
port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
reactor.listenTCP(port.getHost().port, Factory(), interface="127.0.0.1")
""",
    )
    with site.client(raise_errors=False) as client:
        response = client.get("/a", headers={"accept": "text/plain"})
    assert response.status_code == 500
    assert "CannotListenError" in response.text
    assert "Address already in use" in response.text
    del response
    gc.collect()  # Twisted leaves the socket open
