"""What a test's client sends and gets, as values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.testing.messages import Answer, Headers, Sent, Writer

made: list[Request] = []


@pytest.fixture(autouse=True)
def requests_are_closed() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


async def sent(writer: Writer, method: str, target: str, **more) -> Request:
    request = writer.request(method, target, Sent(**more), trio.Event())
    made.append(request)
    await request.load_body()
    return request


@pytest.mark.parametrize(
    ("target", "uri", "path"),
    [
        ("", "/page", "/page"),
        ("?a=b", "/page?a=b", "/page"),
        ("other", "/other", "/other"),
        ("/a b", "/a%20b", "/a b"),
        ("/a%20b", "/a%20b", "/a b"),
        ("/käse?q=ö", "/k%C3%A4se?q=%C3%B6", "/käse"),
        ("http://plums.localhost", "/", "/"),
    ],
)
async def test_targets(target: str, uri: str, path: str) -> None:
    request = await sent(Writer("/page"), "GET", target)
    assert (request.uri, request.path) == (uri, path)


async def test_hosts_and_schemes() -> None:
    request = await sent(Writer(), "GET", "https://plums.localhost/a")
    assert (request.scheme, request.getHeader("host")) == ("https", "plums.localhost")
    assert request.server == ("plums.localhost", 443)
    request = await sent(Writer(address="203.0.113.7"), "GET", "/a")
    assert (request.scheme, request.getHeader("host"), request.client[0]) == ("http", "localhost:8080", "203.0.113.7")


async def test_bodies() -> None:
    request = await sent(Writer(), "POST", "/", data=[("a", "1"), ("a", "2"), ("b", "x&y")])
    assert request.args == {"a": ["1", "2"], "b": ["x&y"]}
    request = await sent(Writer(), "POST", "/", json={"ö": 1})
    assert request.json() == {"ö": 1}
    request = await sent(Writer(), "PUT", "/", data=b"\x00" * 200_000)
    assert len(request.content.read()) == 200_000 and request.getHeader("content-type") is None
    assert not (await sent(Writer(), "GET", "/")).has_body
    request = await sent(Writer(), "POST", "/", files={"a": b"1", "b": ("b.txt", "ö", "text/plain")}, data={"c": "3"})
    assert (request.file("a").filename, request.file("b").read().decode(), request.field("c")) == ("file", "ö", "3")


async def test_headers_go_before_those_that_are_there_anyway() -> None:
    request = await sent(Writer(), "POST", "/", data="x", headers={"Content-Type": "text/csv", "Host": "a", "X": "y"})
    assert [request.getHeader(name) for name in ("content-type", "host", "x")] == ["text/csv", "a", "y"]


def test_cookies_are_kept_until_they_end() -> None:
    def took(*lines: str) -> dict[str, str]:
        writer.take(Headers([(b"Set-Cookie", line.encode()) for line in lines]))
        return writer.cookies

    writer = Writer()
    assert took("a=1; Path=/", "b=x=y; HttpOnly; Max-Age=60") == {"a": "1", "b": "x=y"}
    assert took("a=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT") == {"a": "2", "b": "x=y"}
    assert took("a=; Max-Age=0") == {"b": "x=y"}
    assert took("b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "c=; Max-Age=-1", "d=1; Expires=soon") == {"d": "1"}


async def test_cookies_are_shown() -> None:
    request = await sent(Writer(cookies={"a": "1", "b": "2"}), "GET", "/")
    assert request.cookies == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("method", "status", "leads_to"),
    [
        ("GET", 302, ("GET", "/a/c")),
        ("HEAD", 301, ("HEAD", "/a/c")),
        ("POST", 302, ("GET", "/a/c")),
        ("PUT", 303, ("GET", "/a/c")),
        ("POST", 307, ("POST", "/a/c")),
        ("GET", 200, None),
        ("GET", 304, None),
    ],
)
def test_where_a_redirect_leads(method: str, status: int, leads_to: object) -> None:
    assert Writer().after(method, "/a/b?x", Answer.of(Response(b"", status, {"Location": "c"}))) == leads_to


def test_an_answer() -> None:
    answer = Answer.of(Response("é", 200, [("Vary", "a"), ("vary", "b")]), "é".encode())
    assert answer.text == "é"
    assert (answer.headers["VARY"], answer.headers.all("Vary"), len(answer.headers)) == ("a, b", ["a", "b"], 3)
    assert "Content-Length" not in answer.headers
    latin = Answer.of(Response(b"\xe9", headers={"Content-Type": "text/plain; charset=latin-1"}), b"\xe9")
    assert latin.text == "é"
