"""From URL to file: what is served under which name, and that nothing private ever is."""

from __future__ import annotations

import os
import re
import shelve
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from rpyserve import Directory, HTTPError, Request, Resource, Site
from rpyserve.files import path_rules, safe_open
from tests.support.in_process import Answer, Visitor, ask

CANARY = "canary-7c1e"
"""Is in every file that must never be shown."""

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@dataclass
class Ran(Resource):
    """Stands for an executed script: says which, and what was left of the path."""

    path: Path

    def render_GET(self, request: Request) -> str:
        return f"ran {self.path} {request.prepath} {request.postpath}"

    def render_POST(self, request: Request) -> str:
        return f"posted {request.content.read().decode()}"

    def getChild(self, name: str, request: Request) -> Resource:
        return self


REAL_SCRIPTS = Directory.__dict__["scripts"]


class FakeScripts:
    def __init__(self) -> None:
        self.loaded: list[Path] = []
        self.error: Exception | None = None

    def load(self, path: str | Path, request: Request | None = None) -> Resource:
        if self.error is not None:
            raise self.error
        self.loaded.append(Path(path))
        return Ran(Path(path))


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> FakeScripts:
    fake = FakeScripts()
    monkeypatch.setattr(Directory, "scripts", fake)
    return fake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    return site


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or f"content of {path.name}")
    return path


def served(root: Path, *, follow_symlinks: bool = False) -> Site:
    return Site(Directory(root, follow_symlinks=follow_symlinks))


async def status_of(root: Path, target: str, **more: Any) -> int:
    return (await ask(served(root), target, **more)).status


# Names


async def test_a_script_has_two_urls(root: Path, scripts: FakeScripts) -> None:
    script = write(root / "a" / "b.rpy")
    for target in ("/a/b.rpy", "/a/b", "/a/b%2Erpy", "/%61/b?x=1", "/a/b.rp%79"):
        assert (await ask(served(root), target)).text.startswith(f"ran {script} "), target
    assert scripts.loaded == [script] * 5


async def test_what_is_left_of_the_path_goes_to_the_script(root: Path) -> None:
    write(root / "a.rpy")
    answer = await ask(served(root), "/a/x/y%20z/")
    assert answer.text.endswith("['a', 'x', 'y z', ''] []")


async def test_an_exact_name_wins_over_the_shortened_one(root: Path) -> None:
    write(root / "a")
    write(root / "a.rpy")
    write(root / "d" / "index.html", "index")
    write(root / "d.rpy")
    assert (await ask(served(root), "/a")).text == "content of a"
    assert (await ask(served(root), "/a.rpy")).text.startswith("ran")
    assert (await ask(served(root), "/d/")).text == "index"
    assert (await ask(served(root), "/d.rpy")).text.startswith("ran")


async def test_other_files_are_static(root: Path) -> None:
    write(root / "css" / "style.css", "body{}")
    write(root / "über uns.txt", "wir")
    answer = await ask(served(root), "/css/style.css")
    assert (answer.status, answer.text) == (200, "body{}")
    assert answer.header("content-type") == "text/css; charset=utf-8"
    assert (await ask(served(root), "/%C3%BCber%20uns.txt")).text == "wir"
    assert await status_of(root, "/css/style.css", method="POST") == 405


OTHER_LETTERS = ["/hello", "/HELLO.rpy", "/hello.rpy", "/style.css", "/Style.CSS", "/dir/", "/DIR"]
"""Targets that differ only by letter case from what `write_names_with_capitals` writes."""


def write_names_with_capitals(root: Path) -> None:
    for name in ("Hello.rpy", "Style.css", "Dir/index.html"):
        write(root / name)


async def test_letters_must_be_the_files(root: Path) -> None:
    write_names_with_capitals(root)
    for target in OTHER_LETTERS:
        assert await status_of(root, target) == 404, target
    assert await status_of(root, "/Hello") == 200


@pytest.fixture
def lenient(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system below the site that does not mind letter case."""
    real_lstat = os.lstat

    def lstat(path: Any, **more: Any) -> os.stat_result:
        folder, name = os.path.split(os.fspath(path))
        if os.path.basename(folder) == root.name:
            name = next((n for n in os.listdir(folder) if n.casefold() == name.casefold()), name)
        return real_lstat(os.path.join(folder, name), **more)

    monkeypatch.setattr(os, "lstat", lstat)


@pytest.mark.parametrize("platform_is_lenient", [True, False])
async def test_letters_must_be_the_files_where_the_file_system_does_not_mind(
    root: Path, platform_is_lenient: bool, lenient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_open, "LENIENT", platform_is_lenient)
    write_names_with_capitals(root)
    assert os.path.samestat(os.lstat(root / "Style.css"), os.lstat(root / "sTYLE.css"))
    for target in OTHER_LETTERS:
        assert await status_of(root, target) == 404, target
    for target in ("/Hello", "/Hello.rpy", "/Style.css", "/Dir/"):
        assert await status_of(root, target) == 200, target


def test_short_names_are_not_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "hello.rpy")
    monkeypatch.setattr(safe_open, "LENIENT", True)
    assert safe_open.has_exact_name(str(root), "hello.rpy")
    assert not safe_open.has_exact_name(str(root), "HELLO~1.RPY")
    assert not safe_open.has_exact_name(str(root / "none"), "x")


async def test_a_real_script_is_run_and_its_source_never_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "scripts", REAL_SCRIPTS)
    write(root / "d" / "hello.rpy", f"# {CANARY}\ndef resource(request):\n    return __file__\n")
    write(root / "broken.rpy", f"# {CANARY}\n1 / 0\n")
    site = served(root)
    async with site.running():
        for target in ("/d/hello", "/d/hello.rpy"):
            assert (await ask(site, target)).text == str(root / "d" / "hello.rpy")
            assert (await ask(site, target, headers=[("range", "bytes=0-3")])).status == 200
            assert CANARY not in (await ask(site, target, "HEAD")).text
        assert (await ask(site, "/broken")).status == 500
        for target in (
            "/d/hello.rpy/x",
            "/d/hello.rpy/",
            "/d/hello.rpy%20",
            "/d/HELLO.RPY",
            "/d/hello.rpy~",
        ):
            answer = await ask(site, target)
            assert answer.status == 404, target
            assert CANARY not in answer.text


async def test_all_directories_of_a_site_share_its_scripts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "scripts", REAL_SCRIPTS)
    (root / "d").mkdir()
    directory = Directory(root)
    below = directory.getChild("d", Request("GET", "/d/"))
    assert isinstance(below, Directory)
    assert below.path == root / "d"
    assert below.scripts is directory.scripts
    assert Directory(root).scripts is not directory.scripts


# Directories


async def test_options_of_directories_and_scripts(root: Path) -> None:
    site = Site(Directory(root))
    (root / "d").mkdir(exist_ok=True)
    (root / "page.rpy").write_text("def resource(request):\n    return 'page'")
    for target, allow in [
        ("/d", "GET, HEAD, OPTIONS"),
        ("/d/", "GET, HEAD, OPTIONS"),
        ("/page", "GET, HEAD, OPTIONS, POST"),
    ]:
        answer = await ask(site, target, "OPTIONS")
        assert (answer.status, answer.header("allow"), answer.body) == (204, allow, b"")
    assert (await ask(site, "/none", "OPTIONS")).status == 404


async def test_a_directory_redirects_to_its_slash(root: Path) -> None:
    (root / "d" / "e f").mkdir(parents=True)
    for target, location in {
        "/d": "/d/",
        "/d?a=1&b=%20": "/d/?a=1&b=%20",
        "/d/e%20f": "/d/e%20f/",
        "/d?//evil": "/d/?//evil",
        "http://host/d": "/d/",
    }.items():
        answer = await ask(served(root), target)
        assert (answer.status, answer.header("location")) == (302, location)
    assert (await ask(served(root), "/d", method="HEAD")).status == 302


async def test_a_form_sent_to_a_directory_arrives_at_its_index(root: Path) -> None:
    write(root / "d" / "index.rpy")
    answer = await ask(served(root), "/d", method="POST", body="x=1")
    assert (answer.status, answer.header("location")) == (307, "/d/")
    assert (await ask(served(root), "/d/", method="POST", body="x=1")).text == "posted x=1"


@pytest.mark.parametrize(
    "target",
    ["//evil.example/%2e%2e/d", "//evil.example/d", "///d", "/\\evil/d", "/%5cevil", "/%2fevil", "//d", "/d//", "/.//d",
     "//", "/d/..", "/d/%2e%2e/d", "/%2e%2e/d", "/%09/evil", "/d%0d%0aX:1"],
)  # fmt: skip
async def test_no_redirect_leads_elsewhere(root: Path, target: str) -> None:
    (root / "d").mkdir()
    answer = await ask(served(root), target)
    assert (answer.status, answer.header("location")) == (404, None)


def test_a_location_has_exactly_one_slash_in_front_whatever_the_tree_is(root: Path) -> None:
    request = Request("GET", "/")
    request.prepath = ["", "", "\\evil.example", "a?b#c", "d\r\n"]
    redirect = Directory(root).render(request)
    assert redirect.url == "/%5Cevil.example/a%3Fb%23c/d%0D%0A/"


async def test_the_index(root: Path) -> None:
    write(root / "d" / "x.txt")
    assert "x.txt" in (await ask(served(root), "/d/")).text
    write(root / "d" / "index.html", "html")
    assert (await ask(served(root), "/d/")).text == "html"
    script = write(root / "d" / "index.rpy")
    assert (await ask(served(root), "/d/")).text == f"ran {script} ['d', ''] []"
    assert (await ask(served(root), "/d/index")).text.startswith("ran")


@needs_links
async def test_an_index_that_cannot_be_one_is_passed_over(root: Path, tmp_path: Path) -> None:
    (root / "index.rpy").mkdir()
    (root / "index.html").symlink_to(write(tmp_path / "outside.html", CANARY))
    write(root / "x.txt")
    answer = await ask(served(root), "/")
    assert (answer.status, answer.text) == (200, "x.txt\n")


async def test_an_empty_site_says_how_to_begin(root: Path, tmp_path: Path) -> None:
    write(root / "helper.py")
    answer = await ask(served(root), "/")
    assert str(root / "index.rpy") in answer.text
    as_html = await ask(served(root), "/", headers=[("accept", "text/html")])
    assert "and reload this page:" in as_html.text
    (root / "d").mkdir()
    assert (await ask(served(root), "/d/")).text.strip() == ""


async def test_a_listing(root: Path) -> None:
    for name in (
        "b.txt",
        "A.txt",
        "hello.rpy",
        "javascript&x.txt",
        "100%.txt",
        "a#b.txt",
        "Z/x.txt",
        "c d/x.txt",
    ):
        write(root / name)
    answer = await ask(served(root), "/", headers=[("accept", "text/html")])
    hrefs = [
        "c%20d/",
        "Z/",
        "100%25.txt",
        "a%23b.txt",
        "A.txt",
        "b.txt",
        "hello.rpy",
        "javascript%26x.txt",
    ]
    positions = [answer.text.find(f'href="{href}"') for href in hrefs]
    assert -1 not in positions
    assert positions == sorted(positions)


async def test_every_link_of_a_listing_works(root: Path) -> None:
    names = [
        "b.txt",
        "hello.rpy",
        "a&b.txt",
        "100%.txt",
        "a#b.txt",
        "c d/x.txt",
        "ü;=.txt",
        " x.txt",
        "'.txt",
    ]
    for name in names if os.name == "nt" else [*names, '"?<x>*.txt']:
        write(root / name)
    entries = list(Directory(root)._public_entries())
    assert len(entries) >= len(names)
    for found in entries:
        assert await status_of(root, "/" + quote(found.name)) in (200, 302), found.name


_PRIVATE = """
    X.RPY x.rpy~ x.rpy.bak x.rpyc hello.rpy.txt helper.py __pycache__/helper.cpython-311.pyc .env .git/config a.txt~
    a.swp a.swo a.orig #a# data.db data.db-wal data.sqlite3 page.html.j2 cert.pem private.key sub/.well-known/x.txt
    d.rpy/secret.txt
"""
PRIVATE = _PRIVATE.split()
if os.name != "nt":
    PRIVATE += ["CON", "nul.txt", "a:b", "tail.", "space ", "back\\slash", "new\nline"]


async def test_private_things_are_neither_served_nor_listed_nor_announced(root: Path) -> None:
    write(root / "public.txt", "public")
    for name in PRIVATE:
        write(root / name, CANARY)
    with suppress(OSError):  # not every file system takes such a name
        (root / b"bad-\xff.txt".decode("utf-8", "surrogateescape")).write_text(CANARY)
    site = served(root)
    for name in [
        *PRIVATE,
        "bad-%ff.txt",
        "d.rpy",
        "d",
        "d.rpy/",
        ".git/",
        "__pycache__",
        "__pycache__/",
        ".env/",
    ]:
        for method in ("GET", "HEAD", "POST"):
            for headers in ([], [("range", "bytes=0-3")], [("accept", "text/html")]):
                target = "/" + (name if "%" in name else quote(name))
                answer = await ask(site, target, method, headers=headers)
                assert answer.status == 404, target
                assert CANARY not in answer.text
    assert (await ask(site, "/")).text == "sub/\npublic.txt\n"


async def test_well_known_files_are_served(root: Path) -> None:
    write(root / ".well-known" / "acme-challenge" / "token")
    write(root / ".well-known" / ".hidden", CANARY)
    assert (await ask(served(root), "/.well-known/acme-challenge/token")).text == "content of token"
    assert await status_of(root, "/.well-known/.hidden") == 404


async def test_environments_are_not_listed_but_served(root: Path) -> None:
    write(root / "env" / "pyvenv.cfg")
    write(root / "node_modules" / "lib" / "lib.js", "js")
    write(root / "lib" / "site-packages" / "x.txt")
    assert (await ask(served(root), "/")).text == "lib/\n"
    assert (await ask(served(root), "/lib/")).text.strip() == ""
    assert (await ask(served(root), "/node_modules/lib/lib.js")).text == "js"


# What is no file, and what may not be read


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
async def test_fifos_sockets_and_devices_are_never_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pipe", "pipe.rpy", "index.rpy", "index.html"):
        os.mkfifo(root / name)
    (root / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(root)  # the address of a socket must be short
        bound.bind("sock")
        with trio.fail_after(5):
            for follow in (True, False):
                site = served(root, follow_symlinks=follow)
                for target in (
                    "/pipe",
                    "/pipe.rpy",
                    "/pipe/x",
                    "/null",
                    "/sock",
                    "/index.rpy",
                    "/index",
                ):
                    answer = await ask(site, target)
                    assert answer.status == 404, target
                assert "neither a file nor a directory" in (await ask(site, "/pipe")).text
                assert "empty" not in (await ask(site, "/")).text


async def test_a_directory_called_like_a_script(root: Path) -> None:
    write(root / "x.rpy" / "index.html", CANARY)
    for target in ("/x.rpy", "/x.rpy/", "/x", "/x/", "/x.rpy/index.html"):
        answer = await ask(served(root), target)
        assert answer.status == 404
        assert "is a directory" in answer.text


async def test_what_may_not_be_read_is_forbidden_with_a_private_reason(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    write(root / "a.txt")
    site = served(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", forbidden)
        await refused(site, "/a.txt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", forbidden)
        await refused(site, "/")
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", forbidden)
        await refused(site, "/a.txt")


async def refused(site: Site, target: str) -> None:
    near, far = await ask(site, target), await Visitor(site, client="192.0.2.1").get(target)
    assert (near.status, far.status) == (403, 403)
    assert "not allowed" in near.text
    assert "not allowed" not in far.text


async def test_an_unreadable_file_is_not_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "a.txt")
    write(root / "b.txt")
    real_access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("a.txt") and real_access(path, mode)
    )
    assert (await ask(served(root), "/")).text == "b.txt\n"


@pytest.mark.parametrize(
    "target", ["/" + "x" * 250, "/" + "x" * 300, "/" + "%C3%BC" * 130, "/" + "a/" * 3000]
)
async def test_long_names(root: Path, target: str) -> None:
    assert await status_of(root, target) == 404


async def test_a_long_path(root: Path) -> None:
    """Each name is good, the path as a whole is longer than the system allows."""
    if os.mkdir not in os.supports_dir_fd:
        pytest.skip("the platform cannot make such a path")
    fd = os.open(root, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=fd)
            inner = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
    finally:
        os.close(fd)
    assert await status_of(root, "/" + ("d" * 250 + "/") * 20) == 404


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    site = served(tmp_path / "none")
    assert "There is no directory" in (await ask(site, "/")).text
    assert (await ask(site, "/x")).status == 404
    site = served(write(tmp_path / "file"))
    assert "is not a directory" in (await ask(site, "/")).text


# Links


@needs_links
async def test_links_within_the_site_are_followed(root: Path) -> None:
    write(root / "real" / "a.txt")
    write(root / "real" / "s.rpy")
    (root / "link").symlink_to("real")
    (root / "a.txt").symlink_to("real/a.txt")
    (root / "t.rpy").symlink_to("real/s.rpy")
    site = served(root)
    for target in ("/link/a.txt", "/a.txt"):
        assert (await ask(site, target)).text == "content of a.txt"
    assert (await ask(site, "/t")).text.startswith(f"ran {root / 't.rpy'} ")
    assert (await ask(site, "/link/s")).text.startswith(f"ran {root / 'link' / 's.rpy'} ")
    assert (await ask(site, "/")).text == "link/\nreal/\na.txt\nt.rpy\n"


@needs_links
@pytest.mark.parametrize("follow", [True, False])
async def test_no_link_shows_what_is_private(root: Path, follow: bool) -> None:
    for name in ("s.rpy", ".env", "lib/helper.py", "d.rpy/a.txt", ".git/config"):
        write(root / name, CANARY)
    links = {"s.txt": "s.rpy", "env.txt": ".env", "h.txt": "lib/helper.py", "h.rpy": "lib/helper.py", "d": "d.rpy",
             "a.txt": "d.rpy/a.txt", "git": ".git", "loop": "loop", "gone.txt": "nothing", "up": "up/x"}  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    site = served(root, follow_symlinks=follow)
    for name in [*links, "d/a.txt", "git/config", "git/", "h"]:
        answer = await ask(site, "/" + name)
        assert answer.status == 404, name
        assert CANARY not in answer.text
    assert (await ask(site, "/")).text == "lib/\ns.rpy\n"


@needs_links
async def test_links_out_of_the_site(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "site-secret" / "a.txt", CANARY)
    write(tmp_path / "site-secret" / ".env", CANARY)
    write(tmp_path / "site-secret" / "x.rpy", CANARY)
    (root / "a.txt").symlink_to(tmp_path / "site-secret" / "a.txt")
    (root / "dir").symlink_to(tmp_path / "site-secret")
    (root / "up").symlink_to("..")
    (root / "x.rpy").symlink_to(tmp_path / "site-secret" / "x.rpy")
    (root / "env").symlink_to(tmp_path / "site-secret" / ".env")
    write(root / "z.txt")
    shut, open_ = served(root), served(root, follow_symlinks=True)
    for name in ("a.txt", "dir", "dir/", "dir/a.txt", "up/site-secret/a.txt", "x", "x.rpy", "env"):
        answer = await ask(shut, "/" + name)
        assert answer.status == 404, name
        assert CANARY not in answer.text
    assert "--follow-symlinks" in (await ask(shut, "/a.txt")).text
    assert (await ask(shut, "/")).text == "z.txt\n"
    assert (await ask(open_, "/a.txt")).text == CANARY
    assert (await ask(open_, "/dir/a.txt")).text == CANARY
    assert (await ask(open_, "/x")).text.startswith(f"ran {root / 'x.rpy'}")
    for name in ("env", "dir/.env"):
        assert (await ask(open_, "/" + name)).status == 404


@needs_links
async def test_the_site_itself_may_be_a_link_in_a_hidden_place(tmp_path: Path) -> None:
    write(tmp_path / ".hidden" / "site" / "a.txt")
    (tmp_path / "link").symlink_to(tmp_path / ".hidden" / "site")
    assert (await ask(served(tmp_path / "link"), "/a.txt")).text == "content of a.txt"


class Swapper:
    """Replaces something in the site by a link out of it, and back, before looks at the disk."""

    LOOKS = ("lstat", "open", "stat", "readlink", "fstat")

    def __init__(self, where: Path, outside: Path) -> None:
        self.where, self.outside = where, outside
        self.away = where.with_name("away")
        self.moments: tuple[int, ...] = ()
        self.looks = 0
        self.real = {name: getattr(os, name) for name in self.LOOKS}

    def swap(self) -> None:
        if self.away.exists():
            self.where.unlink()
            self.away.rename(self.where)
        else:
            self.where.rename(self.away)
            self.where.symlink_to(self.outside)

    async def ask(self, site: Site, target: str, moments: tuple[int, ...]) -> Answer:
        self.moments, self.looks = moments, 0
        with pytest.MonkeyPatch.context() as patch:
            for name in self.LOOKS:
                patch.setattr(os, name, partial(self._look, name))
            answer = await ask(site, target)
        if self.away.exists():
            self.swap()
        return answer

    def _look(self, name: str, *args: Any, **more: Any) -> Any:
        if self.looks in self.moments:
            self.moments = tuple(moment for moment in self.moments if moment > self.looks)
            looks, self.looks = self.looks, -(10**6)  # what swapping itself looks at does not count
            self.swap()
            self.looks = looks
        self.looks += 1
        return self.real[name](*args, **more)


@needs_links
@pytest.mark.parametrize("swapped", ["d", "d/a.txt"])
async def test_a_link_swapped_in_at_any_moment_shows_nothing(
    root: Path, tmp_path: Path, swapped: str
) -> None:
    write(tmp_path / "outside" / "a.txt", CANARY)
    write(root / "d" / "a.txt", "inside")
    site = served(root)
    swapper = Swapper(root / swapped, tmp_path / "outside" / Path(swapped).relative_to("d"))
    assert (await swapper.ask(site, "/d/a.txt", ())).text == "inside"
    looks = swapper.looks
    assert looks > 3
    statuses = {(await swapper.ask(site, "/d/a.txt", (moment,))).status for moment in range(looks)}
    assert statuses == {200, 404}
    # There and back, more than once: only a system that names open files sees through that.
    times = 3 if await trio.Path("/proc/self/fd").exists() else 1
    for moments in combinations(range(looks), times):
        answer = await swapper.ask(site, "/d/a.txt", moments)
        assert CANARY not in answer.text, f"swapped before looks {moments}"


# What is private by its content


async def test_a_shelf_is_private_whatever_files_it_has(root: Path) -> None:
    with shelve.open(os.fspath(root / "visits")) as shelf:
        shelf["a"] = "b"
    names = os.listdir(root)
    assert names
    for name in names:
        for method in ("GET", "HEAD"):
            assert (await ask(served(root), f"/{name}", method)).status == 404, name


async def test_a_name_that_tells_nothing_is_judged_by_how_the_file_begins(root: Path) -> None:
    large = b"SQLite format 3\x00" + bytes(2**18)
    for name, content in (("visits", large), ("visits.data", large[:100]), ("visits.txt", large)):
        (root / name).write_bytes(content)
    site = served(root)
    for name in ("visits", "visits.data"):
        for fields in ([], [("Range", "bytes=16-")]):
            answer = await ask(site, f"/{name}", headers=fields)
            assert answer.status == 404 and "Databases are never served." in answer.text
            stranger = await Visitor(site, client="203.0.113.7").get(f"/{name}")
            assert stranger.status == 404 and "Databases" not in stranger.text
    answer = await ask(site, "/visits.txt")
    assert answer.body == large, "a known extension is the author's word"


# Reasons and near names


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/hello.py", ["scripts end in .rpy", "Did you mean /hello?"]),
        ("/Hello", ["Did you mean /hello?"]),
        ("/helo", ["Did you mean /hello?"]),
        ("/hello.rpy.txt", ["copy of a script", "Did you mean /hello?"]),
        ("/HELLO.RPY", ["lower case", "Did you mean /hello?"]),
        ("/stlye.css", ["Did you mean /style.css?"]),
        ("/dot.", ["cannot end in a dot", "Did you mean /dot..rpy?"]),
        ("/sub%20dir/pgae", ["Did you mean /sub%20dir/page?"]),
        ("/Sub%20Dir/", ["Did you mean /sub%20dir?"]),
        ("/notepad", ["'notepad.rpy.txt'", "rename it to 'notepad.rpy'"]),
        ("/python", ["'python.py'", "rename it to 'python.rpy'"]),
        ("/style.css/", ["'style.css' is a file", "try /style.css"]),
        ("/zzz", ["There is no 'zzz' or 'zzz.rpy'"]),
        ("/..", ["climb"]),
        ("/a%00b", ["NUL"]),
        ("/%ff", ["UTF-8"]),
        ("/.env", ["begin with a dot"]),
        ("/CON", ["Windows"]),
        ("/sub%20dir//page", ["between two slashes"]),
    ],
)
async def test_a_404_says_why_and_what_is_near_to_its_author_only(
    root: Path, target: str, says: list[str]
) -> None:
    names = (
        "hello.rpy",
        "style.css",
        "sub dir/page.rpy",
        "notepad.rpy.txt",
        "python.py",
        "dot..rpy",
    )
    for name in names:
        write(root / name)
    site = served(root)
    answer, foreign = await ask(site, target), await Visitor(site, client="192.0.2.1").get(target)
    assert (answer.status, foreign.status) == (404, 404)
    for sentence in says:
        assert sentence in answer.text
        assert sentence not in foreign.text


BROWSER = [("Accept", "text/html"), ("Sec-Fetch-Dest", "document")]


async def test_a_404_for_the_author_has_the_pages_that_are_there_and_how_to_make_it(
    root: Path,
) -> None:
    for name in ("index.rpy", "a b.rpy", "about.html", "style.css", "sub/x.rpy", ".hidden.rpy"):
        write(root / name)
    site = served(root)
    text = (await ask(site, "/new", headers=BROWSER)).text
    links = re.findall('<li><a href="(.*?)">', text)
    assert links == ["./", "a%20b", "about.html", "sub/"]
    assert f"save this as <code>{root / 'new.rpy'}</code>" in text
    foreign = await Visitor(site, client="192.0.2.1").get("/new", headers=BROWSER)
    assert "about" not in foreign.text and "new.rpy" not in foreign.text


@pytest.mark.parametrize("target", ["/new.css", "/..x", "/con", "/new/page", "/%3Cscript%3E"])
async def test_a_404_offers_only_what_would_be_the_page(root: Path, target: str) -> None:
    assert "save this" not in (await ask(served(root), target, headers=BROWSER)).text


async def test_a_site_without_an_icon_is_no_error_in_the_browser(root: Path) -> None:
    site = served(root)
    assert (await ask(site, "/favicon.ico")).status == 204
    assert (await ask(site, "/sub/favicon.ico")).status == 404
    write(root / "favicon.ico", "icon")
    assert (await ask(site, "/favicon.ico")).body == b"icon"


async def test_what_is_private_is_not_suggested(root: Path) -> None:
    write(root / ".secrets")
    write(root / "secrets.pem")
    assert "Did you mean" not in (await ask(served(root), "/secrets")).text


async def test_what_leads_nowhere_is_not_suggested(root: Path) -> None:
    write(root / "page.rpy" / "x.txt")
    write(root / "venv" / "pyvenv.cfg")
    for target in ("/page.rpy", "/page", "/pag", "/venf", "/node_module"):
        assert "Did you mean" not in (await ask(served(root), target)).text


async def test_a_404_in_a_large_directory_looks_at_some_names_only(root: Path) -> None:
    for number in range(600):
        (root / f"name{number:04}.txt").touch()
    assert "Did you mean /name0" in (await ask(served(root), "/name0000.tx")).text


async def test_who_sees_no_hint_costs_no_look_at_the_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "hello.rpy")
    looks: list[Any] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or real(path))
    site = served(root)
    for target in ("/helo", "/hello.py", "/hello.rpy.txt", "/%ff"):
        answer = await Visitor(site, client="203.0.113.7").get(target)
        assert (answer.status, looks) == (404, [])
    await ask(site, "/helo")
    assert looks


async def test_a_hint_takes_a_bounded_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []

    def closest(word: str, names: Iterable[str]) -> None:
        compared.append([word, *names])

    monkeypatch.setattr(path_rules, "closest_match", closest)
    for number in range(100):
        (root / f"{'ab' * 100}{number}.txt").touch()
    await ask(served(root), "/" + "ba" * 100)
    ((*words,),) = compared
    assert len(words) <= 41 and max(map(len, words)) <= 40


async def test_a_script_may_refuse_in_its_own_words(root: Path, scripts: FakeScripts) -> None:
    write(root / "hello.rpy")
    scripts.error = HTTPError(404, "Not today.", private="own reason")
    answer = await ask(served(root), "/hello")
    assert "Not today." in answer.text
    assert "own reason" in answer.text
    assert "Did you mean" not in answer.text


# By hand


async def test_a_directory_in_a_tree_made_by_hand(root: Path) -> None:
    write(root / "d" / "a.txt")
    write(root / ".well-known" / "x.txt")
    top = Resource()
    top.putChild("files", Directory(root))
    site = Site(top)
    assert (await ask(site, "/files/d/a.txt")).text == "content of a.txt"
    assert (await ask(site, "/files")).header("location") == "/files/"
    assert (await ask(site, "/files/d?x")).header("location") == "/files/d/?x"
    assert (await ask(site, "/files/")).text.endswith("d/\n")
    assert "Did you mean /files/d?" in (await ask(site, "/files/D")).text


async def test_children_put_by_hand_go_first(root: Path) -> None:
    write(root / "a.txt")
    write(root / "d" / "a.txt")
    directory = Directory(root)
    directory.putChild("a.txt", lambda request: "by hand")
    site = Site(directory)
    assert (await ask(site, "/a.txt")).text == "by hand"
    assert (await ask(site, "/d/a.txt")).text == "content of a.txt"


def test_the_path_is_absolute_wherever_it_was_started(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    directory = Directory("site")
    monkeypatch.chdir("/")
    assert directory.path == root
    assert repr(directory) == f"<Directory {root}>"


# No URL whatever


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A site with a canary in all that is private, and around it."""
    base = tmp_path_factory.mktemp("fortress")
    site = base / "site"
    for name in [
        "../secret.txt",
        "../site-secret/a.txt",
        "hello.rpy",
        "sub/page.rpy",
        "lib/util.rpy",
        *PRIVATE,
    ]:
        write(site / name, CANARY)
    for name in ("public.txt", "sub/public.txt", "index.html"):
        write(site / name)
    for name, target in {
        "out": "..", "out.txt": "../secret.txt", "sibling": "../site-secret", "source.txt": "hello.rpy", "dots": ".git",
        "sub/up": "../..", "sub/here": ".", "sub/env.txt": "../.env", "inside": "sub", "evil.rpy": "../secret.txt",
    }.items():  # fmt: skip
        if os.name != "nt":  # where links need a privilege
            (site / name).symlink_to(target)
    yield site


_TARGETS = """
    hello.rpy hello sub/page.rpy sub/page sub/public.txt public.txt inside/page inside/public.txt out/site/hello.rpy
    out.txt sibling/a.txt source.txt dots/config sub/up/secret.txt sub/here/here/page.rpy sub/env.txt evil evil.rpy
    ../secret.txt ../site-secret/a.txt sub/../hello.rpy sub/../../secret.txt lib/util sub inside out /etc/passwd d
"""
TARGETS = ["", *_TARGETS.split(), *PRIVATE]
_TAILS = r". ~ ::$DATA : %00 .txt .bak ? # \ / %2f .. ?raw?? ;x /. .rpy /.. //"
TAILS = [" ", "\x00.txt", *_TAILS.split()]


@st.composite
def urls(draw: st.DrawFn) -> str:
    """A path that would lead to something, perhaps bent, encoded, or with letters changed."""
    path = draw(st.sampled_from([*"//////", "//", "/\\", "/./"])) + draw(st.sampled_from(TARGETS))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(1, len(path)))
        path = path[:at] + draw(st.sampled_from(TAILS)) + path[at:]
    ways = draw(
        st.sampled_from(
            [[plain], [plain, encoded], [plain] * 20 + [encoded, twice, swapped, slash]]
        )
    )
    how = draw(st.lists(st.sampled_from(ways), min_size=len(path), max_size=len(path)))
    return path[0] + "".join(way(char) for char, way in zip(path, how, strict=True))[1:]


def plain(char: str) -> str:
    return char if " " < char < "\x7f" else encoded(char)


def encoded(char: str) -> str:
    return (
        char
        if char == "/"
        else quote(char, safe="")
        if quote(char, safe="") != char
        else f"%{ord(char):02x}"
    )


def twice(char: str) -> str:
    return encoded(char).replace("%", "%25")


def swapped(char: str) -> str:
    return plain(char.swapcase())


def slash(char: str) -> str:
    return "%2F" if char == "/" else plain(char)


@given(
    urls(),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([None, "bytes=0-", "bytes=0-3,5-9"]),
)
@settings(max_examples=400)
def test_no_url_ever_shows_a_byte_that_is_private(
    fortress: Path, target: str, method: str, ranges: str | None
) -> None:
    site = Site(Directory(fortress))
    answer: Answer = trio.run(
        lambda: ask(
            site,
            target,
            method,
            headers=[("range", ranges)] if ranges else [("accept", "text/html")],
        )
    )
    assert CANARY not in answer.text
    assert CANARY[:4] not in answer.text
    assert answer.status in (200, 206, 302, 307, 404, 405, 416)
    location = answer.header("location")
    if location is not None:
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_no_text_as_a_path_breaks_anything(fortress: Path, text: str) -> None:
    answer = trio.run(
        lambda: ask(Site(Directory(fortress)), "/" + quote(text, errors="surrogatepass"))
    )
    assert answer.status in (200, 302, 404)
    assert CANARY not in answer.text


@needs_links
async def test_the_fortress_can_be_entered_at_all(fortress: Path) -> None:
    """So that the tests above do not pass because nothing is found."""
    site = Site(Directory(fortress))
    for target in ("/public.txt", "/inside/public.txt", "/sub/here/here/public.txt"):
        assert (await ask(site, target)).text == "content of public.txt"
    for target in ("/hello", "/sub/page", "/inside/page.rpy"):
        assert (await ask(site, target)).text.startswith("ran ")


# The working directory


def test_a_site_that_is_made_again_is_entered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "made"
    root.mkdir()
    monkeypatch.chdir(root)
    working_directory = Directory(root).working_directory
    for text in ("one", "two"):
        root.rename(tmp_path / f"before {text}")
        working_directory.refresh()  # there is none yet
        root.mkdir()
        (root / "words.txt").write_text(text)
        working_directory.refresh()
        assert Path("words.txt").read_text() == text


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove a current directory")
def test_a_removed_directory_that_a_script_has_entered_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, other = tmp_path / "made", tmp_path / "other"
    site.mkdir()
    other.mkdir()
    monkeypatch.chdir(site)
    working_directory = Directory(site).working_directory
    os.chdir(other)
    working_directory.refresh()
    assert os.path.samefile(".", other)
    other.rmdir()
    working_directory.refresh()
    assert os.path.samefile(".", site)


def test_a_directory_that_nobody_has_entered_is_never_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "made"
    site.mkdir()
    monkeypatch.chdir(tmp_path)
    working_directory = Directory(site).working_directory
    site.rmdir()
    site.mkdir()
    working_directory.refresh()
    assert os.path.samefile(".", tmp_path)


async def test_a_hint_that_is_known_is_for_its_author_only(root: Path) -> None:
    write(root / "hello.rpy")
    site = served(root)
    assert "Did you mean /hello?" in (await ask(site, "/helo")).text
    assert "Did you mean" not in (await Visitor(site, client="203.0.113.7").get("/helo")).text
