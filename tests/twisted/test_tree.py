"""Genuine resources and ours in one tree."""

from __future__ import annotations

import pytest

from rpyserve import Resource, Site
from tests.support.genuine import TWISTED, TwistedSite
from tests.support.in_process import ask

TREE = """
from twisted.web import vhost
from twisted.web.resource import Resource
import rpyserve

class Ours(rpyserve.Resource):
    isLeaf = False
    def render_GET(self, request):
        return f"ours {request.prepath} {request.postpath} {request.path}"

class Theirs(Resource):
    def render_GET(self, request):
        return "theirs " + "/".join(map(str, request.prepath))
    def getChild(self, name, request):
        if name == "": return self
        if name == "function": return lambda request: "a function"
        if name == "none": return None
        return Resource.getChild(self, name, request)

async def function(request):
    return "async"

resource = Theirs()
ours, theirs = Ours(), Theirs()
resource.putChild("ours", ours)
ours.putChild("theirs", theirs)
theirs.putChild(b"ours", Ours())
resource.putChild("async", function)
"""


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/a", 200, "theirs a"),
        ("/a/", 200, "theirs a/"),
        ("/a/ours", 200, "ours ['a', 'ours'] [] /a/ours"),
        ("/a/ours/theirs", 200, "theirs a/ours/theirs"),
        ("/a/ours/theirs/ours", 200, "ours ['a', 'ours', 'theirs', 'ours'] [] /a/ours/theirs/ours"),
        ("/a/function", 200, "a function"),
        ("/a/async", 200, "async"),
        ("/a/nobody", 404, "No Such Resource"),
        ("/a/ours/nobody", 404, "Page not found."),
        ("/a/none", 500, "Theirs.getChild() returned None: return a Resource"),
    ],
)
def test_each_may_be_a_child_of_the_other(
    site: TwistedSite, path: str, status: int, text: str
) -> None:
    site.write("a.rpy", TREE)
    with site.client(raise_errors=False) as client:
        response = client.get(path)
    assert response.status_code == status
    assert response.text == text if status == 200 else text in response.text


def test_a_virtual_host_monster_begins_at_our_root(site: TwistedSite) -> None:
    site.write(
        "monster.rpy",
        "from twisted.web.vhost import VHostMonsterResource\nresource = VHostMonsterResource()\n",
    )
    site.write("ours.rpy", "def resource(request): return f'{request.prepath} {request.uri}'")
    site.write(
        "theirs.rpy",
        "from twisted.web.resource import Resource\n"
        "class Page(Resource):\n"
        "    def render_GET(self, request):\n"
        "        return request.prePathURL() + b' ' + (b'safe' if request.isSecure() else b'')\n"
        "resource = Page()\n",
    )
    with site.client() as client:
        assert client.get("/monster.rpy/https/example.com/ours").text == "['ours'] /ours"
        text = client.get("/monster.rpy/https/example.com:443/theirs").text
        assert text == "https://example.com/theirs safe"


async def test_a_genuine_resource_may_be_the_root() -> None:
    from twisted.web import resource, static

    root = resource.Resource()
    root.putChild(b"", static.Data(b"index", "text/plain"))
    root.putChild(b"ours", Resource())
    answer = await ask(Site(root), "/")
    assert (answer.text, answer.header("content-type")) == ("index", "text/plain")
    assert (await ask(Site(root), "/nobody")).status == 404


def test_what_adapts_to_a_resource_counts(site: TwistedSite) -> None:
    script = """
from twisted.python.components import registerAdapter
from twisted.web.resource import IResource, Resource

class Thing:
    name = "thing"

class Page(Resource):
    def __init__(self, thing):
        super().__init__()
        self.thing = thing
    def render_GET(self, request):
        return self.thing.name

registerAdapter(Page, Thing, IResource)
resource = Thing()
"""
    site.write("a.rpy", script)
    with site.client() as client:
        assert [client.get("/a").text for _ in range(3)] == ["thing"] * 3
        site.write("a.rpy", script.replace('"thing"', '"other"'))
        assert client.get("/a").text == "other"


def test_forms(site: TwistedSite) -> None:
    site.write(
        "a.rpy",
        "from twisted.web.resource import Resource\n"
        "class Page(Resource):\n"
        "    def render_POST(self, request):\n"
        "        return '%s %d' % (request.args['x'][0], len(request.content.read()))\n"
        "resource = Page()\n",
    )
    with site.client(raise_errors=False) as client:
        assert client.post("/a?x=query", data={"x": "form"}).text == "form 6"
        files = {"file": ("name.txt", b"text")}
        assert client.post("/a", data={"x": "form"}, files=files).text.startswith("form ")
        kinds = ("multipart/form-data", "multipart/form-data; boundary=x")
        for kind in kinds[: 1 if TWISTED < (23, 8) else 2]:  # before, the second had no fields
            response = client.post("/a", content=b"junk", headers={"content-type": kind})
            assert response.status_code == 400


def test_a_body_is_compressed_by_twisteds_wrapper(site: TwistedSite) -> None:
    site.write(
        "a.rpy",
        "from twisted.web.resource import EncodingResourceWrapper\n"
        "from twisted.web.server import GzipEncoderFactory\n"
        "from twisted.web.static import Data\n"
        "resource = EncodingResourceWrapper(Data(b'x' * 999, 'text/plain'), "
        "[GzipEncoderFactory()])\n",
    )
    with site.client() as client:
        response = client.get("/a")
    assert (response.headers["content-encoding"], response.text) == ("gzip", "x" * 999)


def test_a_template_that_fails_has_our_page(site: TwistedSite) -> None:
    script = """
from twisted.web.resource import Resource
from twisted.web.template import Element, XMLString, renderElement, renderer

class Greeting(Element):
    loader = XMLString('<p xmlns:t="http://twistedmatrix.com/ns/twisted.web.template/0.1">'
                       '<b t:render="name"/></p>')
    @renderer
    def name(self, request, tag):
        return tag(request.args[b"name"][0].decode())

class Page(Resource):
    def render_GET(self, request):
        return renderElement(request, Greeting())

resource = Page()
"""
    site.write("a.rpy", script)
    with site.client(raise_errors=False) as client:
        assert client.get("/a?name=Fred").text == "<!DOCTYPE html>\n<p><b>Fred</b></p>"
        response = client.get("/a")
    assert response.status_code == 500
    assert "KeyError: b'name'" in response.text
    assert "a.rpy:10 in Greeting.name" in response.text
