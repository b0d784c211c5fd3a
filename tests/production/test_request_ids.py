"""Each request has an id, in its response, in the log, and in the report of its error."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import Request, Resource, Response, Site
from rpyserve.production.forwarded import TrustedProxies
from rpyserve.production.request_ids import with_request_ids
from rpyserve.resources.proxy_headers import Mount, upstream_headers
from tests.support.http_client import CLIENT, Client, head

PROXIES = TrustedProxies((ip_network(CLIENT[0]),))
OWN = re.compile("[0-9a-f]{16}")

Connect = Callable[..., Client]


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> Any:
        if request.path == "/broken":
            raise RuntimeError("broken")
        if request.path == "/stream":
            return self.stream()
        if request.path == "/empty":
            return Response(b"", 204)
        return request.id

    async def stream(self) -> AsyncIterator[str]:
        yield "a"
        yield "b"

    def render_POST(self, request: Request) -> str:
        return str(len(request.content.read()))


def served(proxies: TrustedProxies | None = PROXIES) -> Any:
    return with_request_ids(Site(Page()).respond, proxies)


async def test_each_response_has_one_of_its_own(connect: Connect) -> None:
    ids, respond = [], served()

    async def respond_and_note(request: Request) -> Response:
        try:
            return await respond(request)
        finally:
            ids.append(request.id)

    client = connect(respond_and_note)
    seen = []
    for path in ("/", "/", "/", "/empty", "/stream", "/broken", "/"):
        reply = await client.get(path)
        found = reply.headers["x-request-id"]
        assert OWN.fullmatch(found)
        if path == "/":
            assert reply.text == found
        seen.append(found)
    await trio.testing.wait_all_tasks_blocked()
    assert len(set(seen)) == 7
    assert ids == seen
    # The head of an equal response is kept, but without the id of another request.
    await client.send(head("HEAD", "/"))
    assert (await client.reply("HEAD")).headers["x-request-id"] not in seen


async def test_what_a_script_says_itself_wins(connect: Connect) -> None:
    async def respond(request: Request) -> Response:
        return Response("own", 200, {"x-request-id": "own"})

    client = connect(with_request_ids(respond, None))
    for _ in range(2):
        await client.send(head("GET", "/", "Connection: close"))
        text = await client.rest()
        assert text.lower().count(b"x-request-id") == 1 and b"x-request-id: own" in text
        client = connect(with_request_ids(respond, None))


def test_an_upstream_server_gets_it() -> None:
    request = Request("GET", "/", [(b"host", b"site"), (b"x-request-id", b"the client's")])
    mount = Mount("", "http://127.0.0.1:5000", "", "/")
    request.id = "4f1c"
    fields = upstream_headers(request, mount, "p", keep_host=True)
    assert [value for name, value in fields if name == b"x-request-id"] == [b"4f1c"]
    request.id = ""
    fields = upstream_headers(request, mount, "p", keep_host=True)
    assert [value for name, value in fields if name == b"x-request-id"] == [b"the client's"]


async def test_a_failure_of_the_server_has_it_as_well(connect: Connect) -> None:
    async def fails(request: Request) -> Response:
        raise RuntimeError

    client = connect(with_request_ids(fails, None))
    reply = await client.get()
    assert reply.status == 500 and OWN.fullmatch(reply.headers["x-request-id"])


@pytest.mark.parametrize(
    "given",
    ["a", "0af7651916cd43dd8448eb211c80319c", "1-67891233-abcdef012345678912345678", "a" * 128],
)
async def test_a_known_proxy_gives_it(connect: Connect, given: str) -> None:
    reply = await connect(served()).get("/", f"X-Request-ID: {given}")
    assert (reply.headers["x-request-id"], reply.text) == (given, given)


@pytest.mark.parametrize(
    "given", ["", "a" * 129, "a b", "a,b", '"', "<script>", "-a", "\xe9", "{}", "a;b"]
)
async def test_what_is_no_harmless_id_is_replaced(connect: Connect, given: str) -> None:
    reply = await connect(served()).get("/", f"X-Request-ID: {given}")
    assert OWN.fullmatch(reply.headers["x-request-id"])


async def test_of_two_none_is_taken(connect: Connect) -> None:
    reply = await connect(served()).get("/", "X-Request-ID: a", "X-Request-ID: b")
    assert OWN.fullmatch(reply.headers["x-request-id"])


@pytest.mark.parametrize("proxies", [None, TrustedProxies((ip_network("10.0.0.0/8"),))])
async def test_nobody_else_does(connect: Connect, proxies: TrustedProxies | None) -> None:
    reply = await connect(served(proxies)).get("/", "X-Request-ID: abc")
    assert OWN.fullmatch(reply.headers["x-request-id"])


@given(st.binary(max_size=40))
async def test_no_value_splits_a_head(value: bytes) -> None:
    request = Request("GET", "/", [(b"x-request-id", value)], client=CLIENT)

    async def respond(request: Request) -> Response:
        return Response()

    await with_request_ids(respond, PROXIES)(request)
    assert re.fullmatch(rb"X-Request-ID: [!-~]+\r\n", request._own_lines)


async def test_the_report_of_an_error_has_it(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await connect(served()).get("/broken", "X-Request-ID: 4f1c")
    assert "GET /broken [4f1c]: " in caplog.text


async def test_without_there_is_none(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    reply = await connect(Site(Page()).respond).get("/broken")
    assert "x-request-id" not in reply.headers
    assert "GET /broken: " in caplog.text
