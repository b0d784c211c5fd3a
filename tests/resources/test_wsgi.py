"""WSGI applications as resources: PEP 3333's own validator, real Flask, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
import trio

from rpyserve import Directory, Resource, Site, WSGIResource
from tests.support.http_client import CutOff
from tests.support.in_process import Answer, Visitor

Start = Callable[..., Callable[[bytes], None]]


def mounted(app: Any) -> Site:
    root = Resource()
    root.putChild("app", WSGIResource(app))
    return Site(root)


async def ask(app: Any, target: str = "/app", method: str = "GET", **more: Any) -> Answer:
    async with mounted(app).running() as site:
        return await Visitor(site).ask(method, target, **more)


def hello(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 Fine", [("Content-Type", "text/plain"), ("X-Own", "1"), ("X-Own", "2")])
    yield b"hello "
    yield environ["REQUEST_METHOD"].encode()


async def test_chunks_headers_and_words() -> None:
    answer = await ask(hello)
    assert answer.text == "hello GET" and answer.header("content-type") == "text/plain"
    assert [value for name, value in answer.headers if name == "X-Own"] == ["1", "2"]


def echo(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    text = (
        repr([environ[key] for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")]).encode() + body
    )
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_the_validator_has_nothing_to_say(method: str) -> None:
    answer = await ask(
        validator(echo), "/app/a?b=c", method, body=b"" if method == "GET" else b"x" * 100_000
    )
    assert answer.status == 200
    if method == "POST":
        assert answer.body.endswith(b"x" * 100_000) and answer.text.startswith(
            "['/app', '/a', 'b=c']"
        )


@pytest.mark.parametrize(
    ("target", "script_name", "path_info"),
    [
        ("/app", "/app", ""),
        ("/app/", "/app", "/"),
        ("/app/a%20b/%C3%A9/", "/app", "/a b/\u00c3\u00a9/"),
        ("/app//x", "/app", "//x"),
        ("/app/a%2Fb", "/app", "/a/b"),
        ("http://localhost/app/x", "/app", "/x"),
    ],
)
async def test_where_it_is_mounted(target: str, script_name: str, path_info: str) -> None:
    assert (await ask(echo, target)).text == repr([script_name, path_info, ""])


async def test_at_the_root_and_as_an_index(tmp_path: Path) -> None:
    async with Site(WSGIResource(echo)).running() as site:
        assert (await Visitor(site).get("/a/b")).text == "['', '/a/b', '']"
    (tmp_path / "index.rpy").write_text(
        "from rpyserve import WSGIResource\n"
        "from tests.resources.test_wsgi import echo\n"
        "resource = WSGIResource(echo)\n",
        encoding="utf-8",
    )
    async with Site(Directory(tmp_path)).running() as site:
        assert (await Visitor(site).get("/")).text == "['', '/', '']"


async def test_the_environment() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        seen.update(environ)
        return hello(environ, start_response)

    headers = [
        ("Host", "localhost:8080"), ("X-Token", "a"), ("X-Token", "b"), ("X_Token", "forged"), ("Cookie", "a=1"),
        ("Cookie", "b=2"), ("Content-Type", "text/x"),
    ]  # fmt: skip
    await ask(app, "/app", "POST", body=b"abc", headers=headers)
    assert (
        seen["HTTP_HOST"] == "localhost:8080"
        and seen["HTTP_X_TOKEN"] == "a, b"
        and seen["HTTP_COOKIE"] == "a=1; b=2"
    )
    assert seen["CONTENT_TYPE"] == "text/x" and seen["CONTENT_LENGTH"] == "3"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & seen.keys()
    assert seen["REMOTE_ADDR"] == "127.0.0.1" and seen["SERVER_PORT"] == "8080"


async def test_a_multipart_form_is_the_applications_to_take_apart() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    answer = await ask(
        echo,
        "/app",
        "POST",
        body=body,
        headers=[("Content-Type", "multipart/form-data; boundary=x")],
    )
    assert answer.body.endswith(body)


def broken_start(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    raise ValueError("at once")


def broken_iteration(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [])
    raise ValueError("in the iterator")
    yield b""


def never_started(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    return [b"data"]


def nothing(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    return []


def twice(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def text(environ: dict[str, Any], start_response: Start) -> Iterable[Any]:
    start_response("200 OK", [])
    return ["text"]


def no_status(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("OK", [])
    return []


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (broken_start, "ValueError: at once"), (broken_iteration, "ValueError: in the iterator"),
        (never_started, "before it called start_response"), (nothing, "without having called "
                                                                      "start_response"),
        (twice, "start_response() twice"), (text, "gives bytes, not str"), (no_status, "is like '200 OK'"),
    ],
)  # fmt: skip
async def test_faults_are_error_pages(app: Any, why: str) -> None:
    answer = await ask(app)
    assert answer.status == 500 and why in answer.text


async def test_an_application_may_change_its_mind_until_data_was_sent() -> None:
    import sys

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError("oops")
        except ValueError:
            start_response("503 Later", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"sorry"

    answer = await ask(app)
    assert (answer.status, answer.text) == (503, "sorry")


async def test_a_failure_half_way_never_looks_whole() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half"
        raise ValueError("half-way")

    async with mounted(app).running() as site:
        with pytest.raises(ValueError, match="half-way"):
            await Visitor(site).get("/app")


async def test_write_and_close() -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"b", b"", b"c"])

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Start) -> Body:
        start_response("200 OK", [])(b"a")
        return Body()

    assert (await ask(app)).text == "abc" and closed == [True]


async def test_back_pressure_and_a_client_that_leaves() -> None:
    made = 0
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        nonlocal made
        start_response("200 OK", [])
        try:
            while True:
                made += 1
                yield b"x"
        finally:
            closed.set()

    from rpyserve.http.request import Request
    from rpyserve.http.response import Stream

    async with mounted(app).running() as site:
        request = Request("GET", "/app")
        response = await site.respond(request)
        assert isinstance(response.body, Stream)
        async with response.body.start(response) as opened:
            await anext(opened.chunks)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert made < 10
        request.close()
        await trio.to_thread.run_sync(closed.wait, 5)
    assert closed.is_set() and made < 15


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_length_that_the_application_says_is_sent(method: str, fetch: Any) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(
            "206 Partial Content", [("Content-Length", "6"), ("Content-Range", "bytes 0-5/10")]
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"abc", b"def"]

    async with mounted(app).running() as site:
        reply = await fetch(site.respond, "/app", method=method)
        assert reply.status == 206 and reply.headers["content-length"] == "6"
        assert "transfer-encoding" not in reply.headers and "content-type" not in reply.headers
        assert reply.body == (b"abcdef" if method == "GET" else b"")


@pytest.mark.parametrize("length", ["5", "7"])
async def test_a_wrong_length_never_looks_whole(length: str, fetch: Any) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", length)])
        return [b"abc", b"def"]

    async with mounted(app).running() as site:
        with pytest.raises(CutOff):
            await fetch(site.respond, "/app")


async def test_requests_run_side_by_side() -> None:
    barrier = threading.Barrier(5)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        barrier.wait(5)  # breaks unless all five are in here
        start_response("200 OK", [])
        return [b"ok"]

    async with mounted(app).running() as site, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(Visitor(site).get, "/app")
    assert not barrier.broken


def test_what_is_no_application() -> None:
    with pytest.raises(TypeError, match="takes the application itself"):
        WSGIResource("app")  # type: ignore[arg-type]


async def test_flask(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    (tmp_path / "shop.rpy").write_text(
        "from flask import Flask, redirect, request, session, url_for\n"
        "from rpyserve import WSGIResource, cache\n\n"
        "cache()\n\n"
        "app = Flask(__name__)\n"
        "app.secret_key = 'x'\n\n"
        "@app.route('/')\n"
        "def index():\n"
        "    session['n'] = session.get('n', 0) + 1\n"
        "    return f'visit {session[\"n\"]}'\n\n"
        "@app.route('/upload', methods=['POST'])\n"
        "def upload():\n"
        '    return f\'{request.files["f"].read().decode()} {request.form["a"]}\'\n\n'
        "@app.route('/away')\n"
        "def away():\n"
        "    return redirect(url_for('index'))\n\n"
        "@app.route('/broken')\n"
        "def broken():\n"
        "    raise ValueError('in flask')\n\n"
        "app.config['PROPAGATE_EXCEPTIONS'] = True\n"
        "resource = WSGIResource(app)\n",
        encoding="utf-8",
    )
    async with Site(Directory(tmp_path)).running() as site:
        visitor = Visitor(site)
        assert (await visitor.get("/shop/", headers=[("Host", "localhost")])).text == "visit 1"
        assert (await visitor.get("/shop/", headers=[("Host", "localhost")])).text == "visit 2"
        assert (await visitor.get("/shop/away", headers=[("Host", "localhost")])).header(
            "location"
        ) == "/shop/"
        assert (await visitor.get("/shop/nothing", headers=[("Host", "localhost")])).status == 404
        body = (
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nfile\r\n'
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nfield\r\n--x--\r\n'
        )
        kind = ("Content-Type", "multipart/form-data; boundary=x")
        answer = await visitor.ask(
            "POST", "/shop/upload", body, headers=[("Host", "localhost"), kind]
        )
        assert answer.text == "file field"
        answer = await visitor.get("/shop/broken", headers=[("Host", "localhost")])
        assert (
            answer.status == 500
            and "ValueError: in flask" in answer.text
            and "shop.rpy" in answer.text
        )
