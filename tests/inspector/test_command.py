"""`--inspect`: which server, what is asked of it, and what is printed of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rpyserve.inspector.command import (
    TOKEN_FIELD,
    CannotInspect,
    Target,
    choose,
    lines_of,
    show,
    target_of,
)

REQUESTS = {
    "number": 2,
    "items": [
        {"n": 1, "target": "/a\x1b[31m‮", "phases": {"render": 0.1}, "error": None},
        {"n": 2, "target": "x" * 99, "status": 200},
    ],
}


@dataclass
class Inspected:
    """A server with two views and an action."""

    port: int
    done: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/app/"


@contextmanager
def inspected() -> Iterator[Inspected]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            views = {"/app/-/requests.json": REQUESTS, "/app/-/.json": {"views": ["requests"]}}
            if self.path == "/app/-/requests/1.curl":
                self._answer(200, b"curl 'a\xff'")
            elif path == "/app/-/broken.json":
                self._answer(200, b"<html>")
            elif path in views:
                self._answer(200, json.dumps(views[path] | {"asked": self.path}).encode())
            else:
                self._error(405 if path == "/app/-/clock/pass" else 404, "There is none.")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.done.append((self.path, self.headers[TOKEN_FIELD], body))
            if self.headers[TOKEN_FIELD] == "secret":
                self._answer(200, b'{"ended": 3}')
            else:
                self._error(403, "The token is wrong.")

        def _error(self, status: int, detail: str) -> None:
            self._answer(status, json.dumps({"status": status, "detail": detail}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Inspected(http.server_address[1])
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield server
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Inspected]:
    with inspected() as server:
        yield server


def test_a_view_is_a_table(server: Inspected, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(server.url, "", target_of("requests?after=1")) == 0
    out = capsys.readouterr().out
    assert "asked   /app/-/requests.json?after=1" in out
    assert "n  target" in out and "…" in out
    assert "\x1b" not in out and "\u202e" not in out and "x" * 49 not in out


def test_json_is_printed_whole(server: Inspected, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(server.url, "", target_of("/-/requests.json")) == 0
    assert json.loads(capsys.readouterr().out)["items"] == REQUESTS["items"]
    assert show(server.url, "", target_of("")) == 0
    assert 'views  ["requests"]' in capsys.readouterr().out


def test_a_copy_is_printed_as_it_is(server: Inspected, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(server.url, "", target_of("requests/1.curl")) == 0
    assert capsys.readouterr().out == "curl 'a\\xff'\n"


def test_an_action_is_done_with_the_token(
    server: Inspected, capsys: pytest.CaptureFixture[str]
) -> None:
    server.done.clear()
    assert show(server.url, "secret", target_of("clock/pass?seconds=15m&x=")) == 0
    assert server.done == [("/app/-/clock/pass", "secret", b'{"seconds": "15m", "x": ""}')]
    assert capsys.readouterr().out == "ended  3\n"


def test_errors_are_one_line(server: Inspected, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(server.url, "wrong", target_of("clock/pass")) == 1
    assert show(server.url, "", target_of("nothing/here")) == 1
    assert show(server.url, "", target_of("nothing.json")) == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "Error: 403 Forbidden: The token is wrong.",
        "Error: 404 Not Found: There is none.",
    ]
    assert json.loads(told.out)["status"] == 404
    with pytest.raises(CannotInspect, match="with no JSON"):
        show(server.url, "", target_of("broken"))


def test_a_server_that_has_gone() -> None:
    with inspected() as server:
        url = server.url
    with pytest.raises(CannotInspect, match="does not answer"):
        show(url, "", target_of("requests"))
    for url in ("unix:/nonexistent/socket", "nonsense", "http://[::1"):
        with pytest.raises(CannotInspect, match="does not answer"):
            show(url, "", target_of("requests"))


@pytest.mark.parametrize(
    ("view", "target"),
    [
        ("", Target("", "")),
        ("requests", Target("requests", "")),
        ("/-/scripts/a b.json?q=ä b", Target("scripts/a%20b.json", "q=%C3%A4%20b")),
        ("timeline.json?after=3&wait=5", Target("timeline.json", "after=3&wait=5")),
    ],
)
def test_what_is_typed(view: str, target: Target) -> None:
    assert target_of(view) == target


@pytest.mark.parametrize(
    "view", ["../admin", "a/./b", "http://elsewhere/", "a\r\nHost: b", "a\0", "a#b"]
)
def test_what_is_no_view(view: str) -> None:
    with pytest.raises(ValueError, match="is no view"):
        target_of(view)


@dataclass
class Known:
    url: str
    pid: int = 1


def test_which_server() -> None:
    one, other = Known("http://127.0.0.1:8080/"), Known("https://127.0.0.1/")
    site = Path("/site")
    assert choose([one], None, site) is one
    assert choose([one, other], 8080, site) is one and choose([one, other], 443, site) is other
    for servers, port, why in (
        ([], None, "No server of '/site' is running"),
        ([one, other], None, r"2 servers .* at http://127.0.0.1:8080/ and https://127.0.0.1/: say"),
        ([one], 9, "No server of this site has port 9"),
        ([Known("unix:/a")], 9, "has port 9"),
    ):
        with pytest.raises(CannotInspect, match=why):
            choose(servers, port, site)


@pytest.mark.parametrize("answer", [None, [], {}, [1, {}], "a\nb", {"a": []}, [{"a": [{}]}], 1e999])
def test_any_json_can_be_printed(answer: Any) -> None:
    assert all("\n" not in line for line in lines_of(answer))
