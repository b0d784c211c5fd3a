"""Scripts of Python 2 days: plain literals where Twisted has bytes."""

from __future__ import annotations

import pytest

from tests.support.genuine import TwistedSite
from tests.twisted.test_rendering import page

from rpyserve.twisted.texts import Text  # isort: skip


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("Text(b'ab') == 'ab' == Text(b'ab')", True),
        ("Text(b'ab') == b'ab'", True),
        ("Text(b'ab') != 'ab'", False),
        ("Text(b'ab') != 'abc'", True),
        ("Text(b'ab') == 5", False),
        ("{'ab': 1}[Text(b'ab')]", 1),
        ("{Text(b'ab'): 1}['ab']", 1),
        ("{Text(b'ab'): 1}[b'ab']", 1),
        ("'<' + Text(b'ab') + '>'", "<ab>"),
        ("b'<' + Text(b'ab') + b'>'", b"<ab>"),
        ("'%s %r' % (Text(b'ab'), Text(b'ab'))", "ab b'ab'"),
        ("f'{Text(b\"ab\"):>4}'", "  ab"),
        ("b'%s' % Text(b'ab')", b"ab"),
        ("int(Text(b'12'))", 12),
        ("str(Text('é'.encode()))", "é"),
        ("Text('é'.encode()) == 'é'", True),
        ("'b' in Text(b'ab')", True),
        ("Text(b'a/b').split('/')", ["a", "b"]),
        ("Text(b'a/b').startswith(('x', 'a'))", True),
        ("Text(b'a.b').partition('.')", ("a", ".", "b")),
        ("Text(b'ab')[1:] + 'c'", "bc"),
        ("Text(b'ab').upper() + '!'", "AB!"),
        ("b''.join([b'x', Text(b'ab')])", b"xab"),
        ("bytes(Text(b'ab')) is not None and type(bytes(Text(b'ab')))", bytes),
    ],
)
def test_bytes_that_are_text_as_well(expression: str, value: object) -> None:
    assert eval(expression, {"Text": Text}) == value


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'you asked for ' + request.path", "you asked for /a/b%20c"),
        ("'%s' % request.args['name'][0]", "é"),
        ("request.method + ' ' + request.uri.split('?')[0]", "GET /a/b%20c"),
        ("str(request.postpath == ['b c'])", "True"),
        ("request.getHeader('host')", "localhost:8080"),
        ("request.getHeader(b'host') + ''", "localhost:8080"),
        ("request.getCookie('k') + ''", "v"),
        ("'Hello ' + request.getUser()", "Hello me"),
        ("'%d' % len(b'<' + request.getSession().uid)", "33"),
    ],
)
def test_what_a_request_gives(site: TwistedSite, expression: str, text: str) -> None:
    site.write("a.rpy", page(f"return {expression}"))
    with site.client() as client:
        client.cookies.set("k", "v")
        assert client.get("/a/b%20c?name=%C3%A9", auth=("me", "x")).text == text


@pytest.mark.parametrize(
    "body",
    [
        "from twisted.web.util import redirectTo\nreturn redirectTo('/x', request)",
        "from twisted.web.util import Redirect\nreturn Redirect(b'/x').render(request)",
        "request.redirect('/x')\nreturn ''",
    ],
)
def test_redirects(site: TwistedSite, body: str) -> None:
    site.write("a.rpy", page(body))
    with site.client() as client:
        response = client.get("/a")
    assert (response.status_code, response.headers["location"]) == (302, "/x")


def test_without_twisted_an_id_joins_with_bytes(site: TwistedSite) -> None:
    site.write("a.rpy", "def resource(request): return b'<' + request.getSession().uid")
    with site.client() as client:
        assert len(client.get("/a").content) == 33
