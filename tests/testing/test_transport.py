"""What a site gets of a client's request, and a client of the site's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpyserve import Redirect, Resource, Response
from rpyserve.testing import AsyncClient, Client

LATIN = ("Content-Type", "text/plain; charset=latin-1")


@pytest.fixture(scope="module")
def echo():
    """Ask for what a request is made of."""

    class Echo(Resource):
        isLeaf = True

        def render(self, request):
            return {
                "uri": request.uri,
                "path": request.path,
                "host": request.getHeader("host"),
                "scheme": request.scheme,
                "server": list(request.server),
                "client": request.client[0],
                "type": request.getHeader("content-type"),
                "x": request.getHeader("x"),
                "cookies": request.cookies,
                "args": request.args,
                "length": len(request.content.read()),
            }

    with Client(Echo()) as client:
        yield client


@pytest.mark.parametrize(
    ("target", "uri", "path"),
    [
        ("", "/", "/"),
        ("?a=b", "/?a=b", "/"),
        ("other", "/other", "/other"),
        ("/a b", "/a%20b", "/a b"),
        ("/a%20b", "/a%20b", "/a b"),
        ("/käse?q=ö", "/k%C3%A4se?q=%C3%B6", "/käse"),
        ("http://plums.localhost", "/", "/"),
    ],
)
def test_targets(echo: Client, target: str, uri: str, path: str) -> None:
    got = echo.get(target).json()
    assert (got["uri"], got["path"]) == (uri, path)


@pytest.mark.parametrize(
    ("target", "uri"),
    [("", "/page"), ("?a=b", "/page?a=b"), ("other", "/other"), ("/", "/"), ("http://a/b", "/b")],
)
def test_an_empty_target_is_the_script_that_was_given(
    tmp_path: Path, target: str, uri: str
) -> None:
    (tmp_path / "page.rpy").write_text("def resource(request): return ''")
    with Client(tmp_path / "page.rpy") as client:
        assert client.build_request("GET", target).url.raw_path.decode() == uri


def test_hosts_schemes_and_addresses(echo: Client) -> None:
    got = echo.get("https://plums.localhost/a").json()
    assert (got["scheme"], got["host"], got["server"]) == (
        "https", "plums.localhost", ["plums.localhost", 443],
    )  # fmt: skip
    got = echo.new_visitor(address="203.0.113.7").get("/a").json()
    assert (got["scheme"], got["host"], got["client"]) == ("http", "localhost:8080", "203.0.113.7")
    assert got["server"] == ["localhost", 8080]
    got = echo.new_visitor(base_url="https://site.example/sub").get("/a").json()
    assert (got["host"], got["uri"]) == ("site.example", "/sub/a")


def test_bodies(echo: Client) -> None:
    got = echo.post("/", data={"a": ["1", "2"], "b": "x&y"}).json()
    assert (got["args"], got["type"]) == (
        {"a": ["1", "2"], "b": ["x&y"]}, "application/x-www-form-urlencoded",
    )  # fmt: skip
    got = echo.put("/", content=b"\x00" * 200_000).json()
    assert (got["length"], got["type"]) == (200_000, None)
    got = echo.post("/", content=(piece for piece in (b"ab", b"c"))).json()
    assert got["length"] == 3
    assert echo.get("/").json()["length"] == echo.post("/").json()["length"] == 0


async def test_a_body_that_is_made_while_it_is_sent() -> None:
    async def pieces():
        yield b"ab"
        yield b"c"

    class Length(Resource):
        def render_POST(self, request):
            return str(len(request.content.read()))

    async with AsyncClient(Length()) as client:
        assert (await client.post("/", content=pieces())).text == "3"


def test_headers_go_before_those_that_are_there_anyway(echo: Client) -> None:
    got = echo.post(
        "/", data={"a": "b"}, headers={"Content-Type": "text/csv", "Host": "a", "X": "y"}
    ).json()
    assert (got["type"], got["host"], got["x"]) == ("text/csv", "a", "y")


def test_cookies_are_shown(echo: Client) -> None:
    assert echo.new_visitor(cookies={"a": "1", "b": "2"}).get("/").json()["cookies"] == {
        "a": "1",
        "b": "2",
    }


@pytest.mark.parametrize(("status", "becomes"), [(302, "GET 0"), (303, "GET 0"), (307, "POST 4")])
def test_where_a_redirect_leads(status: int, becomes: str) -> None:
    class Page(Resource):
        isLeaf = True

        def render(self, request):
            if request.postpath == ["a", "b"]:
                return Redirect("c", status)
            return f"{request.method} {len(request.content.read())}"

    with Client(Page(), follow_redirects=True) as client:
        answer = client.post("/a/b?x", files={"photo": b"abcd"})
        assert answer.url.path == "/a/c" and answer.history[0].status_code == status
        assert answer.text.startswith(becomes.split()[0])
        assert client.post("/a/b", content=b"abcd").text == becomes


def test_a_response() -> None:
    with Client(
        lambda request: Response(b"\xe9", 200, [("Vary", "a"), ("vary", "b"), LATIN])
    ) as client:
        answer = client.get("/")
        assert (answer.text, answer.extensions["complete"]) == ("\xe9", True)
        assert (answer.headers["VARY"], answer.headers.get_list("Vary")) == ("a, b", ["a", "b"])
        assert "Content-Length" not in answer.headers


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 600_000)
    with Client(tmp_path) as client:
        assert client.get("/a.bin").content == b"x" * 600_000
        assert client.get("/a.bin", headers={"Range": "bytes=2-3"}).status_code == 206
        with client.stream("GET", "/a.bin") as answer:
            next(answer.iter_raw())
