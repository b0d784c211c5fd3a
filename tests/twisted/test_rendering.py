"""Genuine resources are rendered: what their methods return, write and raise."""

from __future__ import annotations

import textwrap

import pytest

from tests.support.genuine import TwistedSite

HEAD = """\
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
"""


def page(body: str) -> str:
    """A script whose ``render_GET`` is *body*."""
    return f"{HEAD}{textwrap.indent(textwrap.dedent(body), ' ' * 8)}\n\nresource = Page()\n"


@pytest.mark.parametrize(
    ("body", "status", "text", "kind"),
    [
        ("return b'x'", 200, "x", "text/html"),
        ("return 'é'", 200, "é", "text/html; charset=utf-8"),
        ("request.write(b'x'); request.finish(); return NOT_DONE_YET", 200, "x", "text/html"),
        ("request.write(b'x'); return b'y'", 200, "xy", "text/html"),
        ("request.write('x'); return 'y'", 200, "xy", "text/html; charset=utf-8"),
        ("request.write(b'x'); request.finish()", 200, "x", "text/html"),
        ("request.setResponseCode(404); return b'no'", 404, "no", "text/html"),
        ("request.setHeader('content-type', 'text/plain'); return 'x'", 200, "x", "text/plain"),
        ("return b'%s %s' % (request.method, request.uri)", 200, "GET /a", "text/html"),
    ],
)
def test_what_a_method_answers(
    site: TwistedSite, body: str, status: int, text: str, kind: str
) -> None:
    site.write("a.rpy", page(body))
    with site.client() as client:
        response = client.get("/a")
    assert response.status_code == status
    assert response.text == text
    assert response.headers["content-type"] == kind


def test_the_class_is_genuine(site: TwistedSite) -> None:
    site.write("a.rpy", page("return f'{Resource.__module__} {type(request).__mro__[2]}'"))
    with site.client() as client:
        text = client.get("/a").text
    assert text == "twisted.web.resource <class 'twisted.web.server.Request'>"


def test_the_packages_alone_are_enough(site: TwistedSite) -> None:
    site.write(
        "a.rpy",
        "import twisted\n"
        "class Page(twisted.web.resource.Resource):\n"
        "    def render_GET(self, request):\n"
        "        return twisted.python.util.sibpath.__name__\n"
        "resource = Page()\n",
    )
    with site.client() as client:
        assert client.get("/a").text == "sibpath"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return None", "returned nothing (None)"),
        ("return 5", "returned the number 5. Write return str(5)"),
        ("return {}", "returned a dict. Write return json.dumps(...).encode()"),
        ("return self", "A method of Twisted's returns bytes, str, or NOT_DONE_YET."),
        (
            "from twisted.internet.defer import Deferred\nreturn Deferred()",
            "returned a Deferred. A method of Twisted's returns bytes, or NOT_DONE_YET",
        ),
        ("async def f(): pass\nreturn f()", "write Deferred.fromCoroutine("),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("request.write(b'x')\n1 / 0", "ZeroDivisionError: division by zero"),
        ("request.write(b'x')", "returned nothing (None)"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_failure_has_our_page_and_our_line(
    site: TwistedSite, body: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("a.rpy", page(body))
    with site.client(raise_errors=False) as client:
        response = client.get("/a")
    assert response.status_code == 500
    assert sentence in response.text
    assert "a.rpy:" in response.text
    assert "in Page.render_GET" in response.text
    assert sentence in caplog.text


def test_a_header_that_cannot_be_sent(site: TwistedSite) -> None:
    site.write("a.rpy", page("request.setHeader('x-name', 'a\\x00b')\nreturn b''"))
    with site.client(raise_errors=False) as client:
        response = client.get("/a")
    assert (response.status_code, "control character" in response.text) == (500, True)


def test_after_the_end_nothing_is_written_and_the_console_says_so(
    site: TwistedSite, caplog: pytest.LogCaptureFixture
) -> None:
    body = "request.write(b'x'); request.finish(); request.write(b'y'); return NOT_DONE_YET"
    site.write("a.rpy", page(body))
    with site.client(raise_errors=False) as client:
        assert client.get("/a").text == "x"
    assert "Request.write called on a request after Request.finish" in caplog.text


def test_finished_twice(site: TwistedSite) -> None:
    site.write("a.rpy", page("request.finish(); request.finish(); return NOT_DONE_YET"))
    with site.client() as client, pytest.warns(UserWarning, match="called twice"):
        assert client.get("/a").status_code == 200


def test_methods_that_are_not_there(site: TwistedSite) -> None:
    site.write("a.rpy", page("return b'x'"))
    with site.client() as client:
        assert client.head("/a").status_code == 200
        response = client.post("/a")
        assert (response.status_code, response.headers["allow"]) == (405, "HEAD, GET")
        assert client.put("/a").status_code == 501


def test_errors_and_redirects_of_ours(site: TwistedSite) -> None:
    site.write("a.rpy", page("from rpyserve import HTTPError\nraise HTTPError(403, 'Not you.')"))
    site.write("b.rpy", page("from rpyserve import Redirect\nraise Redirect('/x')"))
    with site.client() as client:
        response = client.get("/a")
        assert (response.status_code, "Not you." in response.text) == (403, True)
        assert client.get("/b").headers["location"] == "/x"
