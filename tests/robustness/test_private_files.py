"""No URL whatever, on no file system whatever, yields a byte of what is private: a canary lies in
all of that.

The site has real scripts, whose sources hold the canary in a comment, and is asked by a stranger,
because on this machine an error page may show lines of a script. Other platforms' file systems are
imitated: they find a file by other letters than its own, by a short name, in spite of trailing
dots, or with characters that they ignore.
"""

from __future__ import annotations

import ntpath
import os
import random
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from rpyserve import Directory, Site
from rpyserve.files import path_rules, safe_open
from tests.support.http_client import connect_to
from tests.support.in_process import Answer, Visitor

CANARY = "canary-91d4"
STRANGER = "203.0.113.7"

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")

SCRIPT = f"# {CANARY}\nimport helper\ndef resource(request): return 'ran'\n"
PUBLIC = [
    "public.txt",
    "sub/public.txt",
    "index.html",
    "long name.txt",
    "caf\u00e9.txt",
    "1234567890.123",
    "LICENSE",
    "CNAME",
    "robots.txt",
    ".well-known/security.txt",
    "data.bin",
    "app.apk",
    "model.onnx",
    "book.epub",
    "sub/core/public.bin",
]
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
PRIVATE = [
    "../secret.txt", "../site-secret/a.txt", "hello.rpy", "sub/page.rpy", "helper.py", "sub/beside.py", ".env",
    ".git/config",
    ".1234567890", "sub/.hidden", "hello.rpy.bak", "hello.rpy~", "#hello.rpy#", "hello.rpy.txt", "Upper.RPY",
    "notes.py.orig",
    "__pycache__/helper.cpython-311.pyc", "site.db", "site.db-wal", "site.sqlite3", "page.j2", "server.key", "cert.pem",
    "caf\u00e9.py", ".caf\u00e9", "kelvin.key", "sub/1234567890.db", "sub/id_rsa", "words.kdbx", "visits.dat", "visits.dir",
    "site.db.1", "site.db.gz", "site.duckdb", "words.so", "words.pickle", "notes.ipynb", "nohup.out", "AGENTS.md", "server.log", "core",
    "server.log.1", "page.mako", "settings.dist", "notes.copy", "sub/visits",
]  # fmt: skip


def build(base: Path) -> Path:
    site = base / "site"
    for name in (*PUBLIC, *PRIVATE):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        script = path.suffix == ".rpy"
        kept = f"{KEY}{CANARY}\n" if name == "sub/visits" else f"# {CANARY}\n"
        path.write_text(
            SCRIPT if script else "public" if name in PUBLIC else kept, encoding="utf-8"
        )
    if os.name != "nt":
        for name, target in {
            "out": "..", "out.txt": "../secret.txt", "source.txt": "hello.rpy", "dots": ".git", "sub/up": "../..",
            "sub/env.txt": "../.env", "inside": "sub", "absolute.txt": str(base / "secret.txt"),
        }.items():  # fmt: skip
            (site / name).symlink_to(target)
    return site


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("fortress"))


# How an attacker spells a name


def short(name: str) -> str:
    """The name that DOS would give a file."""
    stem, dot, extension = name.rpartition(".") if "." in name[1:] else (name, "", "")
    plain = "".join(char for char in stem if char.isalnum())
    return f"{plain[:6]}~1{dot}{extension[:3]}".upper()


def fullwidth(name: str) -> str:
    return "".join(
        chr(ord(char) + 0xFEE0) if "!" <= char <= "~" and char != "/" else char for char in name
    )


WAYS: list[Callable[[str], str]] = [
    str, str, str.upper, str.swapcase, short, fullwidth,
    lambda name: name + ".", lambda name: name + " ", lambda name: name + "...  ", lambda name: name + "::$DATA",
    lambda name: name + ":stream", lambda name: name + "\x00", lambda name: name + "\x00.txt", lambda name: name + "/",
    lambda name: name + "\\", lambda name: "\u200d" + name, lambda name: name.replace(".", "\u200d."),
    lambda name: name.replace(".", "\uff0e"), lambda name: name.replace(".", "\u2024"),
    lambda name: name.replace("k", "\u212a").replace("s", "\u017f"),
    lambda name: unicodedata.normalize("NFD", name), lambda name: unicodedata.normalize("NFC", name),
    lambda name: "./" + name,
    lambda name: name.replace("/", "\\"), lambda name: name.replace("/", "//"), lambda name: "x/../" + name,
    lambda name: "C:" + name, lambda name: "C:\\" + name, lambda name: "\\\\?\\C:\\site\\" + name,
    lambda name: "\\\\server\\share\\" + name, lambda name: "aux/../" + name, lambda name: name + "?raw",
    lambda name: name + ";x",
    lambda name: name + "#", lambda name: "." * 2 + "/" + name, lambda name: "x" * 300 + "/../" + name,
]  # fmt: skip


def once(text: str) -> str:
    return quote(text, safe="/")


def everything(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def twice(text: str) -> str:
    return everything(text).replace("%", "%25")


def overlong(text: str) -> str:
    """UTF-8 as no encoder makes it: two bytes for what needs one."""
    return "".join(
        f"%{0xC0 | ord(c) >> 6:02x}%{0x80 | ord(c) & 63:02x}" if c in "./\\" else once(c)
        for c in text
    )


def utf16(text: str) -> str:
    return "".join(f"%u{ord(char):04x}" if char in "./\\" else once(char) for char in text)


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A request target that would lead to something, bent and encoded."""
    name = draw(
        st.sampled_from(
            [
                *PRIVATE,
                *PRIVATE,
                *PUBLIC,
                "out/secret.txt",
                "out.txt",
                "dots/config",
                "sub/up/secret.txt",
            ]
        )
    )
    for way in draw(st.lists(st.sampled_from(WAYS), max_size=2)):
        name = way(name)
    start = draw(
        st.sampled_from(
            [
                "/",
                "/",
                "/",
                "//",
                "/./",
                "/sub/../",
                "/inside/",
                "/index/",
                "/hello/",
                "http://x/",
                "/\\",
            ]
        )
    )
    encode = draw(st.sampled_from([once, once, everything, twice, overlong, utf16]))
    return start + encode(name)


@contextmanager
def serving(root: Path) -> Iterator[Site]:
    """A site of real scripts, which is closed at the end."""
    site = Site(Directory(root))
    try:
        yield site
    finally:
        site.close()


async def answered(root: Path, target: str) -> Answer:
    """What a stranger gets from a site of its own."""
    with serving(root) as site:
        return await Visitor(site, client=STRANGER).get(target)


def assert_nothing_private(answer: Answer) -> None:
    assert CANARY not in answer.body.decode("utf-8", "replace")
    assert CANARY not in repr(answer.headers)


@given(targets())
@settings(max_examples=300)
def test_no_url_yields_a_byte_of_what_is_private(fortress: Path, target: str) -> None:
    assert_nothing_private(trio.run(answered, fortress, target))


def test_the_fortress_can_be_entered_at_all(fortress: Path) -> None:
    for name in PUBLIC:
        assert trio.run(answered, fortress, "/" + once(name)).body == b"public", name
    for name in ("hello", "hello.rpy", "sub/page"):
        assert trio.run(answered, fortress, "/" + name).text == "ran"
    for name in PRIVATE:
        if not name.endswith(".rpy"):
            assert trio.run(answered, fortress, "/" + once(name)).status == 404, name


# On the wire, without a client that would set right what is bent


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PROPFIND"]))
    field = draw(
        st.sampled_from(
            [
                "",
                "Range: bytes=0-\r\n",
                "Range: bytes=2-5,7-9\r\n",
                "Accept: text/html\r\n",
                "X-Original-URL: /.env\r\n",
            ]
        )
    )
    raw = draw(st.booleans())
    target = draw(targets())
    if raw:
        target = target.replace("%2f", "/").replace("%5c", "\\").replace("%2e", ".")
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{field}\r\n".encode("utf-8", "surrogatepass")


@given(st.lists(heads(), min_size=1, max_size=3))
@settings(max_examples=120)
def test_no_bytes_on_the_wire_yield_a_byte_of_it(fortress: Path, requests: list[bytes]) -> None:
    async def main() -> bytes:
        with serving(fortress) as site:
            site.trusts = lambda request: False
            async with trio.open_nursery() as nursery:
                client = connect_to(site.respond, nursery)
                await client.send(b"".join(requests))
                await client.stream.send_eof()
                return await client.rest()

    answer = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert answer.startswith(b"HTTP/1.1 ")
    assert CANARY.encode() not in answer


# File systems of other platforms


class Lenient:
    """A file system that takes many spellings for one name, as Windows, macOS, FAT and folding
    directories do.

    Like theirs, its real paths keep the letters that were asked for, and it does not know the name
    of an open file.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.patch = pytest.MonkeyPatch()
        self.listdir = os.listdir

    def __enter__(self) -> None:
        for name in ("lstat", "stat", "open", "scandir", "listdir", "access", "readlink"):
            self.patch.setattr(os, name, self._finding(getattr(os, name), name))

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _finding(self, real: Any, name: str) -> Any:
        def found(path: Any = ".", *args: Any, **more: Any) -> Any:
            if name == "readlink" and str(path).startswith("/proc"):
                raise FileNotFoundError(path)
            return real(
                self.find(path) if isinstance(path, (str, os.PathLike)) else path, *args, **more
            )

        return found

    def find(self, path: Any) -> str:
        path = os.fspath(path)
        if not path.startswith(self.root + os.sep):
            return path  # type: ignore[no-any-return]
        at = self.root
        for asked in path[len(self.root) + 1 :].split(os.sep):
            at = os.path.join(at, self._entry(at, asked))
        return at

    def _entry(self, directory: str, asked: str) -> str:
        try:
            names = self.listdir(directory)
        except OSError:
            return asked
        if asked in names:
            return asked
        wanted = _folded(asked)
        return next(
            (name for name in names if wanted in (_folded(name), short(name).casefold())), asked
        )


def _folded(name: str) -> str:
    name = name.partition(":")[0].rstrip(". ") or name
    kept = "".join(
        char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf"
    )
    return unicodedata.normalize("NFKC", kept.casefold())


@pytest.mark.skipif(os.name == "nt", reason="imitated where it is not real")
@pytest.mark.parametrize("known", [True, False], ids=["known to be lenient", "mounted on Linux"])
@given(target=targets())
@example(target="/" + once("\u200d.env"))
@example(target="/" + once("123456~1"))
@example(target="/" + once("HELLO~1.TXT"))
@example(target="/" + once("KELVIN.\u212aEY"))
@example(target="/" + once(unicodedata.normalize("NFD", "caf\u00e9.py")))
@example(target="/" + once(fullwidth(".env")))
@example(target="/sub/" + once(".\u200dhidden"))
@settings(max_examples=150)
def test_no_other_spelling_finds_it_where_the_system_is_lenient(
    fortress: Path, known: bool, target: str
) -> None:
    with Lenient(fortress), pytest.MonkeyPatch.context() as patch:
        patch.setattr(safe_open, "LENIENT", known)
        assert_nothing_private(trio.run(answered, fortress, target))


@pytest.mark.skipif(os.name == "nt", reason="imitated where it is not real")
def test_the_imitation_is_lenient_and_the_site_is_not(fortress: Path) -> None:
    with Lenient(fortress):
        for spelling in (
            "PUBLIC.TXT",
            "PUBLIC~1.TXT",
            "public.txt.",
            "pub\u200dlic.txt",
            fullwidth("public.txt"),
            ".ENV",
        ):
            assert os.path.lexists(fortress / spelling), spelling
            if not spelling.startswith("."):
                assert trio.run(answered, fortress, "/" + once(spelling)).status in (404,), spelling
        for name in PUBLIC:
            assert trio.run(answered, fortress, "/" + once(name)).body == b"public", name


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("C:\\site", True), ("c:\\SITE\\a.txt", True), ("C:\\site\\sub\\a.txt", True), ("C:/site/a.txt", True),
        ("C:\\site-secret\\a.txt", False), ("C:\\sit", False), ("D:\\site\\a.txt", False), ("\\\\server\\site\\a.txt",
        False),
        ("\\\\?\\C:\\site\\a.txt", False), ("\\\\.\\C:\\site\\a.txt", False), ("C:site\\a.txt", False),
        ("\\site\\a.txt", False),
    ],
)  # fmt: skip
def test_what_is_inside_by_the_rules_of_windows(
    path: str, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_rules, "os", SimpleNamespace(path=ntpath, sep="\\"))
    assert path_rules.is_inside("C:\\site", path) is inside
    assert (path_rules.forbidden_target("C:\\site", path, follow=False) == "") is inside


def test_private_names_below_the_site_by_the_rules_of_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_rules, "os", SimpleNamespace(path=ntpath, sep="\\"))
    for root in ("C:\\site", "C:\\", "\\\\server\\share\\"):
        start = root.rstrip("\\") + "\\"
        assert path_rules.forbidden_target(root, start + "public.txt", follow=False) == ""
        for name in (
            ".env",
            ".git\\config",
            "hello.rpy",
            "sub\\X.RPY",
            "sub\\helper.py",
            "SITE.DB",
            "a.pem",
        ):
            assert path_rules.forbidden_target(root, start + name, follow=False), name


# A race that is lost


@needs_links
@pytest.mark.parametrize("swapped", ["d", "d/a.txt"])
def test_a_thread_that_swaps_a_link_all_the_time_shows_nothing(
    tmp_path: Path, swapped: str
) -> None:
    """For a quarter of a second, at whatever moments that may be; `test_directory` does it at each
    moment in turn.
    """
    for place, text in (("site", "inside"), ("outside", CANARY)):
        (tmp_path / place / "d").mkdir(parents=True)
        (tmp_path / place / "d" / "a.txt").write_text(text)
    inner = tmp_path / "site" / "kept"
    (tmp_path / "site" / swapped).rename(inner)
    link, fresh = tmp_path / "site" / swapped, tmp_path / "site" / "fresh"
    link.symlink_to(inner)
    over = threading.Event()

    def swap() -> None:
        for target in _alternating(inner, tmp_path / "outside" / swapped, over):
            fresh.symlink_to(target)
            os.replace(fresh, link)

    async def ask_on() -> set[str]:
        seen, end = set(), time.monotonic() + 0.25
        while time.monotonic() < end or "inside" not in seen:
            answer = await answered(tmp_path / "site", "/d/a.txt")
            assert answer.status in (200, 404)
            assert_nothing_private(answer)
            seen.add(answer.text)
        return seen

    before = sys.getswitchinterval()
    sys.setswitchinterval(random.Random(swapped).uniform(1e-6, 1e-4))
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        trio.run(ask_on)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
    assert stat.S_ISLNK(os.lstat(link).st_mode)


def _alternating(one: Path, other: Path, over: threading.Event) -> Iterator[Path]:
    while not over.is_set():
        yield other
        yield one
