"""A page of the internet that has its own name point here gets nothing.

That is so whatever it asks for, and however.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Site
from rpyserve.serving.listen import trusted_hosts
from tests.support.http_client import Client, Reply

SECRET = "secret-5b1f"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    for name, text in {
        "page.rpy": f"def resource(request):\n    request.getSession()\n    return {SECRET!r}\n",
        "fails.rpy": f"raise ValueError({SECRET!r})\n",
        "moved.rpy": "from rpyserve import Redirect\ndef resource(request): return "
        f"Redirect('/{SECRET}')\n",
        "a.txt": SECRET,
        f"d/{SECRET}": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    site = Site(Directory(tmp_path))
    yield site
    site.close()


TARGETS = [
    "/",
    "/page",
    "/page?x",
    "/fails",
    "/moved",
    "/a.txt",
    "/d",
    "/d/",
    f"/{SECRET[:-1]}",
    "/-/",
    "/-/events",
    "*",
]
HOSTS = [
    "evil.example", "EVIL.example.", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080",
    "2130706433", "0x7f000001", "127.1", "017700000001", "evil", "[::1].evil.example", "user@localhost",
    "localhost,evil.example", "xn--lcalhost-5tb",
]  # fmt: skip
SECOND_LOOK = [
    "Origin: http://localhost:8080",
    "X-Forwarded-Host: localhost",
    "Forwarded: host=localhost",
    "Referer: http://localhost/",
]


async def ask(
    connect: Callable[..., Client], site: Site, line: str, *fields: str
) -> tuple[Reply, str]:
    client = connect(trusted_hosts(site.respond, {"mine.example"}).__call__)
    await client.send("\r\n".join([line, *fields, "", ""]).encode())
    reply = await client.reply(line.partition(" ")[0])
    await client.aclose()
    return reply, f"{reply.headers} {reply.text}"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_foreign_name_gets_nothing(
    target: str, site: Site, connect: Any, autojump_clock: Any
) -> None:
    for host in HOSTS:
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            if target == "*" and method != "OPTIONS":
                continue
            fields = [
                f"Host: {host}",
                *SECOND_LOOK,
                *(["Content-Length: 0"] if method == "POST" else []),
            ]
            reply, told = await ask(connect, site, f"{method} {target} HTTP/1.1", *fields)
            assert reply.status in (400, 403), (host, method)
            assert SECRET not in told and "set-cookie" not in reply.headers
            assert "access-control-allow-origin" not in reply.headers
            if reply.status == 403 and method == "GET":
                assert "--allowed-host" in reply.text
    assert len(site.sessions) == 0


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "localhost.", "app.localhost:1", "127.0.0.1:8080", "10.1.2.3", "[::1]:8080",
     "[::1]", "[::ffff:127.0.0.1]:80", "mine.example", "Mine.Example.:8080"],
)  # fmt: skip
async def test_ours_get_everything(
    host: str, site: Site, connect: Any, autojump_clock: Any
) -> None:
    statuses = [
        (await ask(connect, site, f"GET {target} HTTP/1.1", f"Host: {host}"))[0].status
        for target in TARGETS[:8]
    ]
    assert statuses == [200, 200, 200, 500, 302, 200, 302, 200]


async def test_the_name_in_an_absolute_target_counts(
    site: Site, connect: Any, autojump_clock: Any
) -> None:
    for target, status in {
        "http://evil.example/page": 403, "http://localhost@evil.example/page": 403, "http://localhost/page": 200,
        "HTTP://LOCALHOST:8080/page": 200, "http://evil.example#@localhost/page": 403,
        "http://evil.example?@localhost/page": 403,
    }.items():  # fmt: skip
        reply, told = await ask(connect, site, f"GET {target} HTTP/1.1", "Host: localhost")
        assert reply.status in (status, 400), target
        assert (SECRET in told) is (status == 200), target
    assert (await ask(connect, site, "GET http://localhost/page HTTP/1.1", "Host: evil.example"))[
        0
    ].status in (
        200,
        400,
    )


async def test_without_a_name_only_http10_may_ask(
    site: Site, connect: Any, autojump_clock: Any
) -> None:
    """No browser speaks HTTP/1.0, so there is nobody whose name could be rebound."""
    assert (await ask(connect, site, "GET /a.txt HTTP/1.0"))[0].status == 200
    assert (await ask(connect, site, "GET /a.txt HTTP/1.1"))[0].status == 400
    assert (await ask(connect, site, "GET /a.txt HTTP/1.0", "Host: evil.example"))[0].status == 403


async def test_two_names_are_no_way_round(site: Site, connect: Any, autojump_clock: Any) -> None:
    for pair in (("localhost", "evil.example"), ("evil.example", "localhost")):
        reply, told = await ask(
            connect, site, "GET /a.txt HTTP/1.1", *(f"Host: {host}" for host in pair)
        )
        assert reply.status in (400, 403) and SECRET not in told


# Details of errors


@pytest.mark.parametrize(
    ("client", "fields", "sees"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("203.0.113.7", [], False),
        ("203.0.113.7", ["Forwarded: for=127.0.0.1"], False),
        ("203.0.113.7", ["X-Forwarded-For: 127.0.0.1"], False),
        ("203.0.113.7", ["X-Real-IP: 127.0.0.1", "Host: 127.0.0.1"], False),
        ("127.0.0.1", ["Forwarded: for=127.0.0.1;host=localhost"], False),
        ("127.0.0.1", ["X-Forwarded-For: 127.0.0.1"], False),
        ("127.0.0.1", ["X-Forwarded-Proto: https"], False),
    ],
)
async def test_details_go_to_this_machine_only_whatever_a_request_says(
    client: str, fields: list[str], sees: bool, site: Site, nursery: trio.Nursery, caplog: Any
) -> None:
    from rpyserve.http.request import Request

    raw = [
        (name.lower().encode(), value.encode())
        for name, _, value in (field.partition(": ") for field in fields)
    ]
    for accept in (b"text/html", b"*/*"):
        request = Request("GET", "/fails", [*raw, (b"accept", accept)], client=(client, 1))
        response = await site.respond(request)
        request.close()
        assert response.status == 500
        assert (SECRET.encode() in bytes(response.body)) is sees  # type: ignore[arg-type]
    assert ("--trust" in caplog.text) is not sees
