"""Names: which are valid, private or near, and what a resolved path may be."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.files import path_rules
from rpyserve.files.media_types import media_type

GOOD = [
    "hello", "hello.rpy", "a b", "Ünïcode.txt", "con-tact", "console.log", "comma,1", "com", "com10", "nul-1.txt",
    "a..b", "...x", "~x", "x'y\"<z>", "%41", "x" * 255, "ü" * 127, "a+b", "lpt", "auxiliary", "-",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_that_a_file_may_have(name: str) -> None:
    assert path_rules.invalid_segment(name) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty name"),
        (".", "climb"),
        ("..", "climb"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("\x7f", "control"),
        ("a/b", "'/'"),
        ("../etc/passwd", "'/'"),
        ("a\\b", "'\\\\'"),
        ("..\\b", "'\\\\'"),
        ("C:", "':'"),
        ("hello.rpy::$DATA", "':'"),
        ("hello.rpy.", "dot or a space"),
        ("hello.rpy ", "dot or a space"),
        ("hello.rpy . .", "dot or a space"),
        ("...", "dot or a space"),
        ("\udcff.txt", "UTF-8"),
        ("x" * 256, "255"),
        ("ü" * 128, "255"),
    ],
)
def test_names_that_are_none(name: str, why: str) -> None:
    assert why in path_rules.invalid_segment(name)


@pytest.mark.parametrize(
    "name",
    ["CON", "con", "Nul.txt", "NUL .txt", "aux.tar.gz", "COM1", "lpt9.rpy", "prn", "CONIN$", "CONOUT$", "COM¹",
     "clock$", "COM0"],
)  # fmt: skip
def test_windows_devices_are_no_names_on_any_platform(name: str) -> None:
    assert "Windows" in path_rules.invalid_segment(name)


_PRIVATE = """
    X.RPY x.Rpy x.rpy~ x.rpy.bak hello.rpy.txt hello.RPY.TXT x.rpyc x.rpy.orig x.rpy.swp #x.rpy# .#x.rpy .x.rpy.swp
    x.rpy-old x.rpy_ x.rpy,v x.rpy.gz x.rpy___jb_tmp___ helper.py HELPER.PY helper.pyc helper.pyw helper.pyi
    helper.pyo helper.py3 helper.py~ helper.py.txt helper.py.bak a.py- __pycache__ __PYCACHE__ .git .env .htpasswd
    .DS_Store .rpy ..x notes.txt~ a.bak a.BAK a.swp a.swo a.orig a.tmp #a# a.old a.rej ~$letter.docx data.db
    data.db-wal data.db-shm data.db-journal data.DB a.sqlite a.sqlite3 a.sqlite-wal a.sqlite3-journal a.db3
    a.db3-wal Thumbs.db data.db2 data.s3db data.duckdb data.duckdb.wal data.mdb data.accdb data.db.1 data.db.gz
    data.sqlite3.bak dump.sql dump.sql.gz redis.dump visits.dat visits.dir visits.pag words.pickle words.pkl
    id_rsa ID_RSA id_ed25519 id_ecdsa_sk id_rsa.1 auth.p8 login.ppk store.jks words.kdbx cert.der key.pem.zip
    a.copy a.backup a.bkp a.dist a.bak.1.xz page.tpl page.mako page.j2.2 words.so words.so.1 words.abi3.so
    words.cpython-311-x86_64-linux-gnu.so notes.ipynb AGENTS.md agents.md CLAUDE.md nohup.out nohup.out.1 server.log server.LOG server.log.1
    server.log.2026-05-01 server.log-20260501.gz page.html.j2 page.jinja2 cert.pem private.key PRIVATE.KEY id.pfx x.rpy. .well-known
"""
PRIVATE = [*_PRIVATE.split(), "x.rpy (copy)", "x.py ", "secret.pem . .", "a\nb.db"]


@pytest.mark.parametrize("name", PRIVATE)
def test_private_names(name: str) -> None:
    reason = path_rules.private_reason(name)
    assert reason.endswith(".")
    assert not path_rules.is_script(name)


@pytest.mark.parametrize(
    "name",
    ["x.rpy", "a.b.rpy", "x.html", "x.js", "numpy", "copy", "x.pytorch.txt", "python.txt", "db", "sqlite.html",
     "pem.txt", "monkey", "keys.txt", "a~b", "#anchor", "db.json", "data.dbx", "backup.zip", "happy.png",
     "template.tmpl", "a.wal", "LICENSE", "CNAME", "README", "Makefile", "robots.txt", "data.bin", "app.apk", "app.ipa",
     "model.onnx", "model.pt", "book.epub", "a.tar.gz", "a.zip", "v1.2", "1.2.3.zip", "id_rsa.pub", "id_rsa.html",
     "site.crt", "blog", "catalog", "catalog.1", "core", "core.js", "core.1", "dist", "backup", "a.log.html",
     "dialog", "so", "a.sol", "list.data", "directory", "a.dirt", "page.html.gz", "style.css.br", "x.asc", "a.iso"],
)  # fmt: skip
def test_public_names(name: str) -> None:
    assert path_rules.private_reason(name) == ""


@pytest.mark.parametrize("name", ["core", "CORE", "core.1", "core.12345"])
def test_names_of_memory_dumps_are_those_of_directories_as_well(name: str) -> None:
    assert path_rules.private_reason(name) == ""
    assert path_rules.private_file_reason(name).endswith(".")


@pytest.mark.parametrize("name", ["core.js", "score", "core.x", "cores", "encore", "core.1.txt"])
def test_names_of_other_files(name: str) -> None:
    assert path_rules.private_file_reason(name) == ""


def test_the_documentation_lists_private_names_only() -> None:
    text = (Path(__file__).parents[2] / "docs" / "static.md").read_text(encoding="utf-8")
    section = text.partition("## Files that are never sent")[2].partition("Rather than")[0]
    rows = " ".join(line for line in section.splitlines() if line.startswith("| "))
    copies = section.partition("are private too:")[2].partition("Upper")[0]
    named = re.findall(r"`([^`]+)`", rows + copies)
    assert len(named) > 50
    for name in set(named) - {".well-known", ".rpy.", ".py."}:
        plain = (
            name.replace("*", "x") if name[0] in "*#" else name if name[0] != "." else f"x{name}"
        )
        if name in ("-wal", "-shm", "-journal"):
            plain = f"x.db{name}"
        assert path_rules.private_reason(plain) or path_rules.private_file_reason(plain), name


ELF = b"\x7fELF\x02\x01\x01" + bytes(9)


@pytest.mark.parametrize(
    "start",
    [
        b"SQLite format 3\x00\x10\x00",
        b"\xce\x9aW\x13",
        b"\x13W\x9a\xcf",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"\n-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
        b"PuTTY-User-Key-File-3: ssh-ed25519\n",
        ELF + b"\x04\x00",
        ELF + b"\x00\x04",
    ],
)
def test_private_contents(start: bytes) -> None:
    assert path_rules.private_content(start).endswith(".")


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"hello",
        b"SQLite format 3 is described here",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\n",
        b"PK\x03\x04",
        ELF + b"\x02\x00",
        ELF + b"\x03\x00",
        b"\x08\x07\x12\x07pytorch",
    ],
)
def test_public_contents(start: bytes) -> None:
    assert path_rules.private_content(start) == ""


def test_well_known_is_public_at_the_top_only() -> None:
    assert path_rules.private_reason(".well-known", top=True) == ""
    assert path_rules.private_reason(".well-known", top=False)
    assert path_rules.private_reason(".Well-Known", top=True)
    assert path_rules.private_reason(".git", top=True)


def test_every_reason_tells_a_beginner_what_to_do() -> None:
    assert "scripts end in .rpy" in path_rules.private_reason("hello.py")
    assert "lower case" in path_rules.private_reason("HELLO.RPY")
    assert "copy of a script" in path_rules.private_reason("hello.rpy.txt")


def test_what_a_script_is() -> None:
    assert path_rules.is_script("x.rpy")
    for name in ("x.RPY", ".rpy", "x.rpy.txt", "rpy", "x.rpyc", "xrpy"):
        assert not path_rules.is_script(name)


ROOT = os.path.abspath(os.sep + os.path.join("srv", "site"))


def below(*names: str) -> str:
    return os.path.join(ROOT, *names)


def test_inside_is_not_a_matter_of_prefixes() -> None:
    assert path_rules.is_inside(ROOT, ROOT)
    assert path_rules.is_inside(ROOT, below("a", "b"))
    assert not path_rules.is_inside(ROOT, ROOT + "-secret")
    assert not path_rules.is_inside(ROOT, os.path.join(ROOT + "-secret", "a"))
    assert not path_rules.is_inside(ROOT, os.path.dirname(ROOT))
    assert path_rules.is_inside(os.path.abspath(os.sep), below("a"))


@pytest.mark.parametrize("follow", [True, False])
def test_a_resolved_path_is_judged_by_all_its_names(follow: bool) -> None:
    def why(*names: str, script: bool = False) -> str:
        return path_rules.forbidden_target(ROOT, below(*names), follow=follow, script=script)

    assert why("a.txt") == why("d", "a.txt") == why(".well-known", "a.txt") == why() == ""
    assert why("x.rpy", script=True) == why("d", "x.rpy", script=True) == ""
    assert "never served" in why("x.rpy")
    assert "never served" in why("x.rpy", "a.txt")
    assert "never served" in why("x.rpy", "y.rpy", script=True)
    assert "never served" in why(".git", "config")
    assert "never served" in why("d", ".well-known", "a.txt")
    assert "never served" in why("d", "x.py", script=True)


def test_only_links_that_may_leave_the_site_do() -> None:
    outside = os.path.join(ROOT + "-secret", "a.txt")
    assert "--follow-symlinks" in path_rules.forbidden_target(ROOT, outside, follow=False)
    assert path_rules.forbidden_target(ROOT, outside, follow=True) == ""
    for name in ("x.rpy", ".env", "x.pem"):
        assert path_rules.forbidden_target(ROOT, os.path.join(ROOT + "-secret", name), follow=True)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Hello", "hello"),
        ("helo", "hello"),
        ("hello.py", "hello"),
        ("hello.rpy.txt", "hello"),
        ("HELLO.RPY", "hello"),
        ("stlye.css", "style.css"),
        ("guestbok", "guestbook"),
        ("qqqq", ""),
        ("", ""),
    ],
)
def test_the_nearest_name(asked: str, found: str) -> None:
    assert path_rules.nearest(asked, ["hello", "hello.rpy", "style.css", "guestbook"]) == found


def test_a_script_with_the_wrong_name_is_named() -> None:
    assert "rename it to 'hello.rpy'" in path_rules.rename_hint("hello", ["a.txt", "hello.rpy.txt"])
    assert "rename it to 'hello.rpy'" in path_rules.rename_hint("hello.rpy", ["hello.py"])
    assert "rename it to 'Hello.rpy'" in path_rules.rename_hint("hello", ["Hello.RPY"])
    assert (
        path_rules.rename_hint("hello", ["hello.txt", "hello.rpy~", "other.py", "hello.rpy"]) == ""
    )


def test_readable_urls() -> None:
    assert path_rules.readable(["a b", "über uns?#%<"]) == "/a%20b/über%20uns%3F%23%25%3C"
    assert path_rules.readable(["a-b_c.d~e"]) == "/a-b_c.d~e"


@given(st.text(max_size=300))
def test_any_text_gets_an_answer(name: str) -> None:
    if not path_rules.invalid_segment(name):
        assert not any(char in "/\\:" or char < " " for char in name)
        assert len(os.fsencode(name)) <= 255
    path_rules.private_reason(name)
    path_rules.nearest(name, ["hello"])
    path_rules.rename_hint(name, [name, "x.py"])


@given(
    st.from_regex(r"[a-z]{1,8}\.r?py", fullmatch=True),
    st.text(alphabet="~.-_ #()12abcTXTbak", min_size=1, max_size=10),
)
def test_whatever_is_hung_on_a_scripts_name_stays_private(name: str, tail: str) -> None:
    if not tail[0].isalnum():
        assert path_rules.private_reason(name + tail)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("A.HTML", "text/html; charset=utf-8"),
        ("a.b.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.tar.gz", "application/gzip"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.nonsense", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ],
)
def test_media_types_come_from_our_own_table(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mimetypes.guess_type", lambda *_, **__: ("text/wrong", None))
    assert media_type(name) == kind


def test_a_name_without_extension_is_told_by_its_start() -> None:
    text = "text/plain; charset=utf-8"
    assert media_type("README", b"<html>hello") == text
    assert media_type("TOKEN", b"") == text
    assert media_type("LICENSE", "é".encode() * 3 + "é".encode()[:1]) == text
    assert media_type("a.out", b"plain") == "application/octet-stream"
    assert media_type("program", b"\x7fELF\x00") == "application/octet-stream"
    assert media_type("latin", b"caf\xe9 au lait") == "application/octet-stream"


@pytest.mark.parametrize(
    "name",
    [
        "site.db",
        "site.DB3",
        "a.sqlite3",
        "site.db-wal",
        "page.html.j2",
        "cert.pem",
        "visits.dat",
        "a.duckdb",
        "a.pickle",
    ],
)
def test_what_scripts_may_read_though_it_is_private(name: str) -> None:
    assert path_rules.private_reason(name) and path_rules.is_material(name)


@pytest.mark.parametrize(
    "name",
    [
        "site.db-shm",
        "site.db-journal",
        ".site.db",
        "site.db~",
        "a.rpy",
        "words.py",
        "a.rpy.db",
        "style.css",
        "site.db.1",
        "server.log",
        "words.so",
    ],
)
def test_what_they_do_not_read(name: str) -> None:
    assert not path_rules.is_material(name)
