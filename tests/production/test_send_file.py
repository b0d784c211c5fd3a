"""Files that the proxy sends: which, and under which name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpyserve import Directory, Request, Response, Site
from rpyserve.http.response import FileBody
from rpyserve.production.send_file import SendFile, parse_send_file, with_send_file
from tests.support.in_process import Answer, read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of open files")

LARGE = b"x" * 300_000
NGINX = SendFile("X-Accel-Redirect", "/internal/")

Ask = Callable[..., Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    (directory / "a b").mkdir(parents=True)
    (directory / "large.bin").write_bytes(LARGE)
    (directory / "a b" / "ä%.bin").write_bytes(LARGE)
    (directory / "small.txt").write_text("small")
    (directory / ".hidden.bin").write_bytes(LARGE)
    (directory / "data.db").write_bytes(LARGE)
    (tmp_path / "outside.bin").write_bytes(LARGE)
    (directory / "link.bin").symlink_to("large.bin")
    (directory / "out.bin").symlink_to(tmp_path / "outside.bin")
    return directory


async def ask(
    root: Path, target: str, how: SendFile = NGINX, *, proxied: bool = True, method: str = "GET",
    follow: bool = False, **fields: str,
) -> Answer:  # fmt: skip
    site = Site(Directory(root, follow_symlinks=follow))
    respond = with_send_file(site.respond, how, str(root))
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    request = Request(method, target, raw)
    if proxied:
        request._proxy = ("127.0.0.1", 1)
    try:
        return await read(await respond(request))
    finally:
        request.close()


async def test_a_large_file_is_named(root: Path) -> None:
    answer = await ask(root, "/large.bin")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("x-accel-redirect") == "/internal/large.bin"
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("etag") is answer.header("last-modified") is None
    answer = await ask(root, "/large.bin", SendFile("X-Sendfile"))
    assert answer.header("x-sendfile") == f"{root}/large.bin"


async def test_names_are_encoded(root: Path) -> None:
    answer = await ask(root, "/a%20b/%C3%A4%25.bin")
    assert answer.header("x-accel-redirect") == "/internal/a%20b/%C3%A4%25.bin"


async def test_the_site_remains_the_judge(root: Path) -> None:
    for target in ("/.hidden.bin", "/data.db", "/out.bin", "/missing.bin"):
        answer = await ask(root, target)
        assert (answer.status, answer.header("x-accel-redirect")) == (404, None)


async def test_a_link_is_named_by_what_it_leads_to(root: Path) -> None:
    answer = await ask(root, "/link.bin")
    assert answer.header("x-accel-redirect") == "/internal/large.bin"
    answer = await ask(root, "/out.bin", follow=True)
    assert (answer.body, answer.header("x-accel-redirect")) == (LARGE, None)


async def test_what_is_not_handed_over(root: Path) -> None:
    assert (await ask(root, "/small.txt")).body == b"small"
    answer = await ask(root, "/large.bin", proxied=False)
    assert (answer.body, answer.header("x-accel-redirect")) == (LARGE, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"range": "bytes=0-9"},
        {"if_none_match": "*"},
        {"if_match": '"nginx"'},
        {"if_range": '"x"', "range": "bytes=5-"},
    ],
)
async def test_conditions_are_the_proxys(root: Path, fields: dict[str, str]) -> None:
    answer = await ask(root, "/large.bin", **fields)
    assert (answer.status, answer.header("x-accel-redirect")) == (200, "/internal/large.bin")
    answer = await ask(root, "/large.bin", proxied=False, **fields)
    assert answer.header("x-accel-redirect") is None and answer.status in (206, 304, 412, 200)


async def test_head(root: Path) -> None:
    answer = await ask(root, "/large.bin", method="HEAD")
    assert answer.header("x-accel-redirect") == "/internal/large.bin"


@pytest.mark.parametrize("part", ["deleted", "replaced", "half", "status"])
async def test_only_the_whole_file_that_is_there(root: Path, part: str) -> None:
    path = root / "large.bin"
    file = path.open("rb", buffering=0)
    if part == "deleted":
        path.unlink()
    elif part == "replaced":
        (root / "new").write_bytes(b"other")
        os.replace(root / "new", path)
    span = range(0, 10) if part == "half" else range(len(LARGE))
    status = 404 if part == "status" else 200

    async def respond(request: Request) -> Response:
        return Response(FileBody(file, (span,)), status)

    request = Request("GET", "/")
    request._proxy = ("127.0.0.1", 1)
    answer = await read(await with_send_file(respond, NGINX, str(root))(request))
    assert (len(answer.body), answer.header("x-accel-redirect")) == (len(span), None)


async def test_the_file_is_closed(root: Path) -> None:
    file = (root / "large.bin").open("rb", buffering=0)

    async def respond(request: Request) -> Response:
        return Response(FileBody(file, (range(len(LARGE)),)))

    request = Request("GET", "/")
    request._proxy = ("127.0.0.1", 1)
    await with_send_file(respond, NGINX, str(root))(request)
    assert file.closed


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("nginx:/internal/", NGINX),
        ("nginx:/internal", NGINX),
        ("x-sendfile", SendFile("X-Sendfile")),
        ("X-Sendfile", SendFile("X-Sendfile")),
    ],
)
def test_what_can_be_said(text: str, how: SendFile) -> None:
    assert parse_send_file(text) == how
