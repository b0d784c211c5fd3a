"""A reverse proxy: what passes, both ways, and what a client sees of a backend that fails."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from rpyserve import Request, Resource, Response, ReverseProxyResource, Site
from rpyserve.http.response import Stream
from rpyserve.serving.listeners import serve_listeners
from tests.support.in_process import Answer, Visitor

pytest.importorskip("httpx")


@asynccontextmanager
async def backend(handle: Callable[[Any], Any]) -> AsyncIterator[str]:
    """A server whose connections *handle* gets; its address."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def site_behind(root: Any) -> AsyncIterator[str]:
    """Another site of ours as the backend."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with Site(root).running() as site, trio.open_nursery() as nursery:
        stop = trio.Event()
        start: Any = lambda: serve_listeners(site.respond, [listener], stop=stop)  # noqa: E731
        nursery.start_soon(start)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        stop.set()


@asynccontextmanager
async def proxied(url: str, **options: Any) -> AsyncIterator[Visitor]:
    root = Resource()
    root.putChild("api", ReverseProxyResource(url, **options))
    async with Site(root).running() as site:
        yield Visitor(site)


class Mirror(Resource):
    isLeaf = True

    async def render(self, request: Request) -> Response:  # type: ignore[override]
        seen = {
            "method": request.method, "uri": request.uri, "host": request.getHeader("host"),
            "agent": request.getHeader("user-agent"), "accept": request.getHeader("accept-encoding"),
            "for": request.getHeader("x-forwarded-for"), "length": request.getHeader("content-length"),
            "chunked": request.getHeader("transfer-encoding"), "body": request.content.read().decode(),
        }  # fmt: skip
        return Response(
            seen,
            203,
            [("X-Own", "a"), ("X-Own", "b"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        )


async def test_both_ways() -> None:
    async with site_behind(Mirror()) as url, proxied(url) as visitor:
        form = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", "7"),
            ("User-Agent", "me"),
        ]
        answer = await visitor.ask("POST", "/api/a%2Fb?x=%20&y", b"a=1&b=2", headers=form)
        seen = json.loads(answer.body)
        assert seen == {
            "method": "POST", "uri": "/a%2Fb?x=%20&y", "host": url.removeprefix("http://"), "agent": "me",
            "accept": None, "for": "127.0.0.1", "length": "7", "chunked": None, "body": "a=1&b=2",
        }  # fmt: skip
        assert answer.status == 203
        assert [value for name, value in answer.headers if name.lower() == "x-own"] == ["a", "b"]
        assert [value for name, value in answer.headers if name.lower() == "set-cookie"] == [
            "a=1",
            "b=2",
        ]
        seen = json.loads((await visitor.ask("PUT", "/api", b"abc")).body)
        assert seen["chunked"] == "chunked" and seen["body"] == "abc"
        assert json.loads((await visitor.get("/api/x")).body)["length"] is None


async def raw(answer: bytes, stream: Any) -> None:
    await stream.receive_some(65536)
    await stream.send_all(answer)


def fixed(answer: bytes) -> Callable[[Any], Any]:
    async def handle(stream: Any) -> None:
        await raw(answer, stream)

    return handle


async def ask_fixed(answer: bytes, method: str = "GET") -> Answer:
    async with backend(fixed(answer)) as url, proxied(url) as visitor:
        return await visitor.ask(method, "/api/")


async def test_compressed_bodies_stay_as_they_are() -> None:
    answer = await ask_fixed(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\x01"
    )
    assert answer.body == b"\x1f\x8b\x00\x01" and answer.header("content-encoding") == "gzip"


async def test_redirects_are_the_clients_to_follow() -> None:
    answer = await ask_fixed(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.header("location")) == (302, "/api/login")


@pytest.mark.parametrize("status", [204, 304, 404, 500])
async def test_other_statuses(status: int) -> None:
    answer = await ask_fixed(b"HTTP/1.1 %d Words\r\nContent-Length: 0\r\n\r\n" % status)
    assert answer.status == status and answer.body == b""


async def test_interim_answers_are_skipped() -> None:
    answer = await ask_fixed(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
        b"2\r\n\r\nok"
    )
    assert (answer.status, answer.body) == (200, b"ok")


async def test_a_head_keeps_the_length() -> None:
    reply = fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    async with backend(reply) as url, proxied(url) as visitor:
        request = Request("HEAD", "/api/")
        response = await visitor.site.respond(request)
        assert isinstance(response.body, Stream) and response.body.length == 12345
        async with response.body.start(response) as opened:
            assert [chunk async for chunk in opened.chunks] == []
        request.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Len"]
)
async def test_a_backend_that_breaks_off_before_it_answers(answer: bytes) -> None:
    found = await ask_fixed(answer)
    assert found.status == 502 and "closed the connection" in found.text


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nXX\r\n",
    ],
)
async def test_one_that_dies_half_way_never_looks_whole(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with backend(fixed(answer)) as url, proxied(url) as visitor:
        with pytest.raises(
            Exception
        ) as caught:  # what ends the connection without an end of the body
            await visitor.get("/api/")
        assert getattr(caught.value, "status", None) == 502
    (line,) = caplog.messages
    assert line.startswith(f"/api/ is broken off. {url} closed the connection half-way: ")


async def test_nobody_there() -> None:
    async with proxied("http://127.0.0.1:9") as visitor:
        answer = await visitor.get("/api/")
        assert answer.status == 502 and "Is the server running?" in answer.text


async def test_one_that_takes_too_long() -> None:
    async def silent(stream: Any) -> None:
        await trio.sleep_forever()

    async with backend(silent) as url, proxied(url, timeout=0.05) as visitor:
        assert (await visitor.get("/api/")).status == 504


async def test_a_circle() -> None:
    class Around(Resource):
        isLeaf = True

    root = Resource()
    async with site_behind(root) as url:
        root.putChild("api", ReverseProxyResource(url + "/api"))
        async with proxied(url + "/api") as visitor:
            answer = await visitor.get("/api/")
            assert answer.status == 508


async def test_a_client_that_leaves_takes_the_request_along() -> None:
    left = trio.Event()

    async def endless(stream: Any) -> None:
        await stream.receive_some(65536)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
        )
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some(1) == b""
        left.set()

    async with backend(endless) as url, proxied(url) as visitor:
        request = Request("GET", "/api/")
        response = await visitor.site.respond(request)
        assert isinstance(response.body, Stream)
        async with response.body.start(response) as opened:
            assert await anext(opened.chunks) == b"data: 1\n\n"  # at once, not when there is more
        request.close()
        with trio.fail_after(10):
            await left.wait()


async def test_a_slow_reader_holds_the_backend_up() -> None:
    sent = 0

    async def pouring(stream: Any) -> None:
        nonlocal sent
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with trio.move_on_after(60), suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(2**16))
                sent += 2**16

    async with backend(pouring) as url, proxied(url) as visitor:
        request = Request("GET", "/api/")
        response = await visitor.site.respond(request)
        assert isinstance(response.body, Stream)
        async with response.body.start(response) as opened:
            await anext(opened.chunks)
            before = -1
            while before != sent:  # until the sockets between are full
                before = sent
                await trio.sleep(0.1)
            assert sent < 50_000_000
        request.close()


async def test_connections_are_kept() -> None:
    connections = 0

    async def counting(stream: Any) -> None:
        nonlocal connections
        connections += 1
        while await stream.receive_some(65536):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with backend(counting) as url, proxied(url) as visitor:
        for _ in range(5):
            assert (await visitor.get("/api/")).text == "ok"
    assert connections == 1


@pytest.mark.parametrize(
    "rest",
    [
        "..",
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "a/%2E./x",
        "..%5csecret",
        "a/..;x/b",
        ".%2e",
    ],
)
async def test_no_path_leads_above_the_address(rest: str) -> None:
    async with proxied("http://127.0.0.1:9/public") as visitor:
        assert (await visitor.get(f"/api/{rest}")).status == 400
        assert (await visitor.get("/api/a..b/...")).status == 502, "that has no .. in it"


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("PUT", 200), ("POST", 502)]
)
async def test_a_kept_connection_that_ends_just_when_it_is_used(method: str, status: int) -> None:
    connections = 0

    async def twice(stream: Any) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await stream.receive_some(65536)  # and that is the end of it

    async with backend(twice) as url, proxied(url) as visitor:
        assert (await visitor.get("/api/")).status == 200
        assert (await visitor.ask(method, "/api/")).status == status
        assert connections == (2 if status == 200 else 1)


async def test_a_backend_that_was_started_again() -> None:
    async def once(stream: Any) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with backend(once) as url, proxied(url) as visitor:
        for _ in range(3):
            assert (await visitor.post("/api/", b"abc")).status == 200
            await trio.testing.wait_all_tasks_blocked(0.05)


async def test_the_time_that_a_client_takes_is_not_the_backends(
    autojump_clock: Any, monkeypatch: Any
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.sleep(100)
            yield b"abc"

    class Transport:
        async def handle_async_request(self, message: Any) -> Any:
            import httpx

            body = b"".join([chunk async for chunk in message.stream])
            await trio.sleep(9 if body == b"abcabcabc" else 11)
            return httpx.Response(200)

    monkeypatch.setattr(
        "rpyserve.resources.upstream.transport_for", lambda request, verify: Transport()
    )
    async with proxied("http://127.0.0.1:9", timeout=10) as visitor:
        for body, status in ((pieces(), 200), (None, 504)):
            request = Request("POST", "/api/", body=body)
            assert (await visitor.site.respond(request)).status == status
            request.close()


async def test_a_backend_that_takes_nothing_of_a_body() -> None:
    async def deaf(stream: Any) -> None:
        await trio.sleep_forever()

    async def pouring() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**20)

    async with backend(deaf) as url, proxied(url, timeout=0.2) as visitor:
        body = pouring()
        request = Request("POST", "/api/", body=body)
        assert (await visitor.site.respond(request)).status == 504
        request.close()
        await body.aclose()


async def test_an_answer_that_nobody_reads_lets_its_connection_go() -> None:
    left = trio.Event()

    async def endless(stream: Any) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        left.set()

    async with backend(endless) as url, proxied(url) as visitor:
        request = Request("GET", "/api/")
        await visitor.site.respond(request)
        request.close()
        with trio.fail_after(10):
            await left.wait()


async def test_a_name_and_password_in_the_address() -> None:
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        seen.append(await stream.receive_some(65536))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with backend(handle) as url, proxied(url.replace("://", "://ada:p%40ss@")) as visitor:
        await visitor.ask("GET", "/api/", headers=[("Authorization", "Basic own")])
        assert "ada" not in repr(visitor.site.root.children["api"])
    assert b"\r\nauthorization: Basic YWRhOnBAc3M=\r\n" in seen[0] and b"own" not in seen[0]


async def test_a_status_that_is_none() -> None:
    answer = await ask_fixed(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n")
    assert answer.status == 502 and "the status 999" in answer.text


@pytest.mark.parametrize("fields", [[], [("Upgrade", "websocket")]])
async def test_a_backend_that_switches_unasked(fields: list[tuple[str, str]]) -> None:
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    async with backend(fixed(switch)) as url, proxied(url) as visitor:
        assert (await visitor.ask("GET", "/api/", headers=fields)).status == 502


@pytest.mark.parametrize("path", ["//evil.example/x", "/%5Cevil.example/x", "///evil.example/x"])
async def test_no_path_makes_a_redirect_to_another_host(path: str) -> None:
    async def add_slash(stream: Any) -> None:
        target = (await stream.receive_some(65536)).split()[1]
        await stream.send_all(
            b"HTTP/1.1 302 Found\r\nLocation: "
            + url.encode()
            + target
            + b"/\r\nContent-Length: 0\r\n\r\n"
        )

    async with backend(add_slash) as url, Site(ReverseProxyResource(url)).running() as site:
        location = (await Visitor(site).get(path)).header("location")
    assert location is not None and location[0] == "/" and location[1] not in "/\\"


async def test_no_lines_of_httpx_on_the_console(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await ask_fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not [record for record in caplog.records if record.name.startswith("http")]


async def test_a_script_that_makes_a_context_for_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rpyserve.resources import upstream

    class Uncached(Resource):
        isLeaf = True

        def render(self, request: Request) -> Any:
            context = ssl.create_default_context()
            return ReverseProxyResource(url, verify=context).render(request)

    async with site_behind(Mirror()) as url, Site(Uncached()).running() as site:
        for _ in range(upstream.MAX_UNUSED_TRANSPORTS + 5):
            assert (await Visitor(site).get("/")).status == 203
        assert len(upstream._pools[site]) == upstream.MAX_UNUSED_TRANSPORTS
    async with site_behind(Mirror()) as url, site.running():
        assert (await Visitor(site).get("/")).status == 203, "a site may run again"


@pytest.mark.parametrize(
    "url", ["localhost:5000", "ftp://x/", "http://", "http://x/?a", "http://x/#a", ""]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="takes an address"):
        ReverseProxyResource(url)


async def test_without_httpx_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rpyserve.resources.upstream", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    async with proxied("http://127.0.0.1:9") as visitor:
        answer = await visitor.get("/api/")
        assert answer.status == 500 and "pip install httpx" in answer.text
