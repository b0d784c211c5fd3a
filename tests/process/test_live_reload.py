"""Hot reload of the real command, seen by browsers that are played over plain sockets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_process import Server, serving

pytestmark = pytest.mark.process

LIMIT = 20
"""Seconds: far more than anything here takes."""


def fetch(port: int, path: str, *fields: str, method: str = "GET") -> str:
    """One response, head and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            "Content-Length: 0",
            *fields,
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    return data.decode()


def body(port: int, path: str, *fields: str, method: str = "GET") -> str:
    return fetch(port, path, *fields, method=method).partition("\r\n\r\n")[2]


class Tab:
    """A page that a browser has loaded, with its stream of changes."""

    def __init__(self, port: int, path: str, browser: str = "", writes: bool = False) -> None:
        self.port = port
        self.path = path
        page = body(port, path, "Sec-Fetch-Dest: document")
        tag = re.search(r'data-rpyserve="(.*?)" data-sources="(.*?)"', page)
        assert tag, page
        self.sources = set(tag[2].split())
        self.looks = 0
        self.changes: list[dict[str, Any]] = []
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self._connection.sendall(
            f"GET /-/events?since={tag[1]} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "
            f"{browser}\r\n\r\n".encode()
        )
        self._data = b""
        name, missed = self.event()
        assert name == "hello"
        if writes and any(missed.values()):
            self._look(missed)  # what loading the page has written is announced already
        else:
            assert missed == {"urls": [], "all": False, "data": False}

    def event(self) -> tuple[str, dict[str, Any]]:
        """The next event."""
        pattern = re.compile(rb"event: (\w+)\ndata: (.*)\n")
        while not (found := pattern.search(self._data)):
            chunk = self._connection.recv(65536)
            assert chunk, "the stream has ended"
            self._data += chunk
        self._data = self._data[found.end() :]
        return found[1].decode(), json.loads(found[2])

    def follow(self) -> None:
        """Wait for the next change, and do as the script in the page does."""
        name, change = self.event()
        assert name == "change"
        self._look(change)

    def _look(self, change: dict[str, Any]) -> None:
        self.changes.append(change)
        if change["all"] or change["data"] or self.sources & set(change["urls"]):
            self.looks += 1
            body(self.port, self.path, "Rpyserve-Follow: 1", "Sec-Fetch-Dest: empty")

    def follow_for(self, seconds: float) -> None:
        """Follow whatever comes until nothing has for some time."""
        self._connection.settimeout(seconds)
        try:
            while True:
                self.follow()
        except TimeoutError:
            self._connection.settimeout(LIMIT)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def tab(port: int, path: str, browser: str = "one", *, writes: bool = False) -> Iterator[Tab]:
    """A tab with the page at *path*, which *writes* files of the site each time it is loaded."""
    found = Tab(port, path, browser, writes)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "a.rpy").write_text(
        "cache()\nfrom words import WORD\ndef resource(request):\n    return 'a ' + WORD\n"
    )
    (root / "words.py").write_text("WORD = 'before'\n")
    (root / "style.css").write_text("before")
    (root / "words.txt").write_text("before")
    (root / "reads.rpy").write_text("def resource(request):\n    return open('words.txt').read()\n")
    return root


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)


def created(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


NEW_SCRIPT = "cache()\nfrom words import WORD\ndef resource(request):\n    return 'b ' + WORD\n"


@pytest.mark.parametrize("save", [in_place, renamed, created])
def test_who_is_told_of_a_save_gets_the_new(
    site: Path, tmp_path: Path, save: Callable[[Path, str], None]
) -> None:
    saves: list[tuple[str, str, dict[str, object], str, str]] = [
        ("a.rpy", NEW_SCRIPT, {"urls": ["/a.rpy"]}, "/a", "b before"),
        ("words.py", "WORD = 'after'", {"all": True}, "/a", "b after"),
        ("style.css", "after", {"urls": ["/style.css"], "data": True}, "/style.css", "after"),
        ("words.txt", "after", {"urls": ["/words.txt"], "data": True}, "/reads", "after"),
    ]
    with serving(site, tmp_path) as server, tab(server.port, "/a") as page:
        for name, text, told, path, answer in saves:
            save(site / name, text)
            expected = {"urls": [], "all": False, "data": False, **told}
            assert page.event() == ("change", expected)
            assert body(server.port, path) == answer
        server.wait_for(r"words\.py changed, all scripts run again \(\d+ ms\)")
        assert " /-/" not in server.output()


def test_a_branch_switch_a_rename_and_a_touch(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path) as server, tab(server.port, "/a") as page:
        os.utime(site / "a.rpy")
        assert page.event()[1]["urls"] == ["/a.rpy"]
        for n in range(100):
            (site / "sub" / f"{n}.css").write_text("x")
        told: set[str] = set()
        while not {f"/sub/{n}.css" for n in range(100)} <= told:
            told.update(page.event()[1]["urls"])
        (site / "sub").rename(site / "sub2")
        change = page.event()[1]
        assert {"/", "/sub/", "/sub2/", "/sub/7.css", "/sub2/7.css"} <= set(change["urls"])
        (site / "sub2" / "7.css").write_text("after")
        assert page.event()[1]["urls"] == ["/sub2/7.css"]
        assert body(server.port, "/sub2/7.css") == "after"


def test_the_site_is_removed_and_made_again(site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    with serving(site, tmp_path) as server, tab(server.port, "/reads") as page:
        shutil.rmtree(site)
        while "/reads.rpy" not in page.event()[1]["urls"]:
            pass
        (copy / "words.txt").write_text("made again")
        copy.rename(site)
        while "/reads.rpy" not in page.event()[1]["urls"]:
            pass
        assert body(server.port, "/reads") == "made again"


def test_polling(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path, "--poll") as server, tab(server.port, "/a") as page:
        (site / "a.rpy").write_text(NEW_SCRIPT)
        assert page.event()[1]["urls"] == ["/a.rpy"]
        assert body(server.port, "/a") == "b before"


def test_a_script_that_writes_into_the_site_does_not_loop(site: Path, tmp_path: Path) -> None:
    (site / "count.rpy").write_text(
        "from pathlib import Path\n"
        "count = Path('count.txt')\n"
        "def resource(request):\n"
        "    number = int(count.read_text()) + 1 if count.exists() else 1\n"
        "    count.write_text(str(number))\n"
        "    return f'<p>{number}</p>'\n"
    )
    with (
        serving(site, tmp_path) as server,
        tab(server.port, "/count", writes=True) as one,
        tab(server.port, "/count", writes=True) as two,
    ):
        deadline = time.monotonic() + LIMIT
        while "changes whenever a page is loaded" not in server.output():
            one.follow_for(0.2)
            two.follow_for(0.2)
            body(server.port, "/count")  # somebody else
            assert time.monotonic() < deadline
        one.follow_for(0.5)  # what was announced before that line may still be on its way
        rounds = len(one.changes)
        assert rounds < 20
        for _ in range(3):
            body(server.port, "/count")
        one.follow_for(0.7)
        assert len(one.changes) == rounds, "it follows what it does itself"
        (site / "count.txt").write_text("100")  # its author does this
        one.follow()
        assert server.output().count("changes whenever a page is loaded") == 1


def test_what_one_visitor_posts_the_others_see_once(site: Path, tmp_path: Path) -> None:
    (site / "book.rpy").write_text(
        "from rpyserve import Resource, Redirect\n"
        "class Book(Resource):\n"
        "    def render_GET(self, request):\n"
        "        return open('book.txt').read()\n"
        "    def render_POST(self, request):\n"
        "        with open('book.txt', 'a') as book:\n"
        "            book.write('entry')\n"
        "        return Redirect('/book')\n"
        "resource = Book()\n"
    )
    (site / "book.txt").write_text("")
    with (
        serving(site, tmp_path) as server,
        tab(server.port, "/book") as one,
        tab(server.port, "/book") as two,
    ):
        for number in range(1, 4):
            assert "303" in fetch(server.port, "/book", method="POST")
            for page in (one, two):
                page.follow()
                page.follow_for(0.5)
                assert page.looks == number
        assert "changes whenever" not in server.output()


def test_without_reload(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path, "--no-reload") as server:
        page = fetch(server.port, "/a", "Sec-Fetch-Dest: document")
        assert page.endswith("\r\n\r\na before")
        (site / "a.rpy").write_text(NEW_SCRIPT)
        assert body(server.port, "/a") == "b before"
        assert "404" in fetch(server.port, "/-/events").partition("\r\n")[0]
        assert "changed" not in server.output()
        if Path("/proc").is_dir():
            assert "inotify" not in " ".join(_descriptors(server))


def _descriptors(server: Server) -> list[str]:
    return [os.readlink(entry.path) for entry in os.scandir(f"/proc/{server.process.pid}/fd")]


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send a Ctrl-C to one process")
def test_ctrl_c_with_fifty_streams_open(site: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(site, tmp_path))
        tabs = [stack.enter_context(tab(server.port, "/a", f"browser {n}")) for n in range(50)]
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LIMIT) == 0
        took = time.monotonic() - start
        for each in tabs:
            names = []
            while "stop" not in names:
                names.append(each.event()[0])
        # A machine at rest takes 0.2 s; requests in flight would have 5.
        assert took < 3, f"it took {took:.2f} s"
