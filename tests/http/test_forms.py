"""Multipart forms: fields and files, limits, broken ones, and what a file may be saved as."""

from __future__ import annotations

import errno
import os
import stat
import sys
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import Resource, WSGIResource
from rpyserve.files.path_rules import invalid_segment
from rpyserve.http import forms
from rpyserve.http.errors import HTTPError
from rpyserve.http.forms import (
    CHARSETS,
    FIELD_LIMIT,
    FORM_LIMIT,
    SPOOL_SIZE,
    STRAY_PERCENT_LIMIT,
    query_fields,
)
from rpyserve.http.request import Request
from rpyserve.site import Site
from tests.support.faulty_stream import open_files
from tests.support.in_process import Visitor


def form(
    fields: dict[str, Any] | None = None, files: Iterable[tuple[str, Any]] = ()
) -> tuple[str, bytes]:
    """Return the Content-Type and the body of a form as browsers send it.

    See RFC 7578, and the HTML standard on names.
    """
    parts = []
    for name, value in (fields or {}).items():
        for text in value if isinstance(value, list) else [value]:
            parts.append(
                f'Content-Disposition: form-data; name="{quoted(name)}"\r\n\r\n{text}'.encode()
            )
    for name, (filename, content, *kind) in files:
        about = (
            f'Content-Disposition: form-data; name="{quoted(name)}"; '
            f'filename="{quoted(filename)}"\r\n'
        )
        parts.append(
            f"{about}Content-Type: {(kind or ['text/plain'])[0]}\r\n\r\n".encode() + content
        )
    body = b"".join(b"--b0undary\r\n" + part + b"\r\n" for part in parts) + b"--b0undary--\r\n"
    return "multipart/form-data; boundary=b0undary", body


def quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


async def received(content_type: str, body: bytes, piece: int = 1000) -> Request:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    async with aclosing(chunks()) as parts:
        request = Request(
            "POST", "/?a=1&b=2", [(b"content-type", content_type.encode())], body=parts
        )
        try:
            await request.load_body()
        except HTTPError:
            request.close()
            raise
        return request


async def test_fields_and_files() -> None:
    photo = ("cat.png", b"\x89PNG", "image/png")
    request = await received(
        *form({"name": "Ada", "b": ["3", "é"]}, [("photo", photo), ("photo", ("x", b""))])
    )
    assert request.args == {"a": ["1"], "b": ["3", "é"], "name": ["Ada"]}
    upload = request.file("photo")
    assert (upload.name, upload.filename, upload.content_type, upload.size) == (
        "photo",
        "cat.png",
        "image/png",
        4,
    )
    assert upload.read() == upload.read() == b"\x89PNG"
    assert [each.filename for each in request.files["photo"]] == ["cat.png", "x"]
    assert request.content.read() == b""
    request.close()
    assert upload.file.closed


async def test_no_file_chosen() -> None:
    request = await received(*form({"name": "Ada"}, [("photo", ("", b""))]))
    assert request.files == {}
    assert request.args["name"] == ["Ada"]
    assert request.file("photo", None) is None
    with pytest.raises(HTTPError, match="needs a file in the field 'photo'") as caught:
        request.file("photo")
    assert caught.value.status == 400 and "enctype" not in caught.value.detail
    request.close()


async def test_a_form_that_forgot_its_enctype() -> None:
    request = await received("application/x-www-form-urlencoded", b"photo=cat.png")
    with pytest.raises(HTTPError, match='enctype="multipart/form-data"'):
        request.file("photo")
    request.close()


async def test_many_large_files_share_one_file_on_disk_and_small_ones_need_none() -> None:
    small = await received(*form({}, [("s", (str(n), b"x" * n)) for n in range(100)]))
    assert [each.read() for each in small.files["s"]] == [b"x" * n for n in range(100)]
    before = open_files()
    body = os.urandom(SPOOL_SIZE + 1)
    large = await received(*form({}, [("l", (str(n), body[n:])) for n in range(40)]), piece=65536)
    assert open_files() <= before + 1
    first, last = large.file("l").file, large.files["l"][-1]
    assert first.read(5) + first.read() == body
    assert last.read() == body[39:] == last.read()
    assert (first.seek(-3, os.SEEK_END), first.read()) == (len(body) - 3, body[-3:])
    assert (first.seek(10), first.read(2), first.tell(), first.seek(5, os.SEEK_CUR)) == (
        10,
        body[10:12],
        12,
        17,
    )
    assert zipfile.is_zipfile(first) is False and first.seekable() and first.readable()
    for request in (small, large):
        request.close()
    assert first.closed
    with pytest.raises(ValueError, match="closed"):
        last.read()


async def test_a_parent_that_makes_children_leaves_the_form_to_them() -> None:
    class Parent(Resource):
        def getChild(self, name: str, request: Request) -> Any:
            assert request.field("name") == "Ada"
            return WSGIResource(raw) if name == "raw" else taken

    def taken(request: Request) -> str:
        return f"{request.file('f').read().decode()} {request.field('name')}"

    def raw(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [str(len(environ["wsgi.input"].read())).encode()]

    kind, body = form({"name": "Ada"}, [("f", ("f", b"content"))])
    async with Site(Parent()).running() as site:
        for path, text in (("/form", "content Ada"), ("/raw", str(len(body)))):
            answer = await Visitor(site).post(path, body, headers=[("Content-Type", kind)])
            assert answer.text == text


async def test_below_such_a_parent_a_large_form_lets_others_have_their_turn() -> None:
    class Parent(Resource):
        def getChild(self, name: str, request: Request) -> Any:
            return child

    def child(request: Request) -> str:
        nonlocal turns
        seen, turns = turns, 0
        return f"{request.file('f').size} {request.content.read(3)!r} {seen > 20}"

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal turns
        yield body[: len(body) // 2]
        yield body[len(body) // 2 :]
        turns = 0

    turns = 0
    kind, body = form({}, [("f", ("f", b"x" * 2_000_000))])
    async with trio.open_nursery() as nursery, aclosing(pieces()) as parts:
        nursery.start_soon(others)
        request = Request("POST", "/a", [(b"content-type", kind.encode())], body=parts)
        response = await Site(Parent()).respond(request)
        assert response.body == b"2000000 b'--b' True"
        request.close()
        nursery.cancel_scope.cancel()


async def test_a_broken_form_below_such_a_parent_is_a_400_and_an_empty_one_none() -> None:
    class Parent(Resource):
        def getChild(self, name: str, request: Request) -> Any:
            return lambda request: str(request.files)

    kind = form()[0]
    for body, status in ((b"nonsense", 400), (b"", 200)):
        answer = await Visitor(Site(Parent())).post("/a", body, headers=[("Content-Type", kind)])
        assert answer.status == status


@given(
    st.dictionaries(
        st.text("abcé\"'%\\", min_size=1, max_size=8), st.text(max_size=50), max_size=4
    ),
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), st.binary(max_size=200)), max_size=3),
    st.integers(1, 300),
)
def test_any_form_in_any_pieces(
    fields: dict[str, str], files: list[tuple[str, bytes]], piece: int
) -> None:
    content_type, body = form(fields, [(name, ("file", content)) for name, content in files])
    request = trio.run(received, content_type, body, piece)
    assert request.args == {
        "a": ["1"],
        "b": ["2"],
        **{name: [text] for name, text in fields.items()},
    }
    kept: dict[str, list[bytes]] = {}
    for name, content in files:
        kept.setdefault(name, []).append(content)
    assert {name: [each.read() for each in them] for name, them in request.files.items()} == kept
    request.close()


async def text_in(charset: str, raw: bytes) -> str:
    head = f'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain; {charset}'
    body = b"--x\r\n" + head.encode() + b"\r\n\r\n" + raw + b"\r\n--x--\r\n"
    request = await received("multipart/form-data; boundary=x", body, 65536)
    request.close()
    return request.args["a"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "named",
    [
        "punycode", "PunyCode", "idna", "undefined", "unicode_escape", "raw_unicode_escape",
        "utf-7", "mbcs", "oem", "rot13", "base64", "zlib", "bz2", "hex", "uu", "quopri", "os", "",
        "no-such", "utf-8\0", "\0", "../utf_16", "x" * 3000,
    ],
)  # fmt: skip
async def test_a_charset_that_is_no_plain_one_is_never_looked_up(
    named: str, decoded: list[tuple[str, str]]
) -> None:
    assert await text_in(f'charset="{named}"', "é-aa".encode()) == "é-aa"
    assert decoded == [("utf-8", "replace")]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """By which charsets texts are decoded, and what becomes of errors."""
    calls: list[tuple[str, str]] = []
    plain_decode = forms._Text.decode

    def decode(self: Any, encoding: str, errors: str = "strict") -> str:
        calls.append((encoding, errors))
        return plain_decode(self, encoding, errors)

    monkeypatch.setattr(forms._Text, "decode", decode)
    return calls


@pytest.mark.parametrize("charset", [*sorted(CHARSETS), "UTF-8", "ISO-8859-1", "Utf-16LE"])
async def test_the_usual_charsets_are_decoded_and_never_fail(
    charset: str, decoded: list[tuple[str, str]]
) -> None:
    assert await text_in(f"charset={charset}", "plums".encode(charset)) == "plums"
    assert isinstance(await text_in(f"charset={charset}", bytes(range(256)) * 3), str)
    slow = [call for call in decoded if call[1] != "strict" and call[0] != "utf-8"]
    assert not slow, "each replacement is a call, and there may be millions"


async def test_a_text_that_is_not_of_its_charset_is_read_as_utf_8() -> None:
    assert await text_in("charset=windows-1252", "č\x81".encode()) == "č\x81"
    assert await text_in("charset=utf-16le", b"\x00\xd8\x00") == "\x00\ufffd\x00"


# Urlencoded


PAIRS = st.text("ab=+%&;é\ufffd0fF\0\r\n_~. ", max_size=30)


@given(st.lists(PAIRS, max_size=5).map("&".join))
def test_urlencoded_is_read_as_python_reads_it(text: str) -> None:
    expected = parse_qs(text.encode().decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    found = forms._parse_fields(text.encode(), 400)
    assert found == {
        utf_8(name): [utf_8(value) for value in values] for name, values in expected.items()
    } or any("\ufffd" in utf_8(name) for name in expected)


@given(st.lists(st.binary(max_size=12), max_size=4).map(b"&".join))
def test_bytes_without_escapes_are_read_as_those_beside_some(raw: bytes) -> None:
    plain = raw.replace(b"%", b"")
    beside_an_escape = forms._parse_fields(plain + b"&%00end=", 400)
    assert beside_an_escape == forms._parse_fields(plain, 400) | {"\0end": [""]} or b"\0end" in raw


def utf_8(latin: str) -> str:
    return latin.encode("latin-1").decode("utf-8", "replace")


async def test_what_a_client_did_not_encode_is_utf_8() -> None:
    request = await received("application/x-www-form-urlencoded", "n=Zoë+%C3%AB".encode())
    assert request.args["n"] == ["Zoë ë"]
    request.close()


def test_a_few_stray_percent_signs_are_themselves_many_are_refused() -> None:
    assert query_fields("a=10%&b=%zz%2") == {"a": ["10%"], "b": ["%zz%2"]}
    many = "%" * STRAY_PERCENT_LIMIT
    assert query_fields("a=" + many) == {"a": [many]}
    with pytest.raises(HTTPError, match="encode nothing") as caught:
        query_fields("a=" + many + "%")
    assert caught.value.status == 400


@pytest.mark.parametrize("unit", [b"%", b"a%", b"%4", b"%41", b"%ff", b"%C3%A9", b"=", b"+", b"&"])
async def test_what_a_urlencoded_form_costs_does_not_depend_on_escapes(
    unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in calls of Python: none of them is made for each escape."""
    request = Request("POST", "/", [(b"content-type", b"application/x-www-form-urlencoded")])
    request.content.write(b"a=" + unit * 100_000)
    calls = 0

    def count(*arguments: Any) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        with suppress(HTTPError):
            _ = request.args
    finally:
        sys.setprofile(None)
    assert calls < 1000


# Multipart, broken or too large


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=", b"", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"nothing of the kind", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n1\r\n--x--", 400),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\n" + b"A: " + b"a" * 9000 + b"\r\n\r\n1\r\n--x--",
            413,
        ),
    ],
)
async def test_broken_forms(content_type: str, body: bytes, status: int) -> None:
    with pytest.raises(HTTPError) as caught:
        await received(content_type, body)
    assert caught.value.status == status


async def test_too_many_fields_and_too_much_text() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    request = await received(
        "multipart/form-data; boundary=x", part * FIELD_LIMIT + b"--x--", 65536
    )
    assert len(request.args["a"]) == FIELD_LIMIT
    with pytest.raises(HTTPError) as caught:
        await received(
            "multipart/form-data; boundary=x", part * (FIELD_LIMIT + 1) + b"--x--", 65536
        )
    assert caught.value.status == 413
    with pytest.raises(HTTPError) as caught:
        await received(*form({"a": "x" * (FORM_LIMIT + 1)}), 65536)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("cat.png", "cat.png"),
        ("C:\\pictures\\cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("..", "unnamed"),
        ("a:b*c.txt", "a_b_c.txt"),
        (" .hidden", "hidden"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
        ("Müller.txt", "Müller.txt"),
        ("\U0001f600" * 80 + ".png", "\U0001f600" * 24 + ".png"),
        ("x." + "e" * 300, ("x." + "e" * 300)[:100]),
        ("x" * 99 + " y", "x" * 99),
        ("con.txt", "_con.txt"),
        ("NUL", "_NUL"),
        ("a\nb", "a_b"),
        ("COM¹.txt", "_COM¹.txt"),
        ("lpt³", "_lpt³"),
        ("CONIN$", "_CONIN$"),
        ("conout$.log", "_conout$.log"),
        ("CLOCK$", "_CLOCK$"),
        ("con .txt", "_con .txt"),
    ],
)
async def test_a_name_is_only_a_name(sent: str, kept: str) -> None:
    request = await received(*form({}, [("f", (sent, b"x"))]))
    assert request.file("f").filename == kept
    request.close()


@given(st.one_of(st.text(), st.text("conCON$ .¹lptLPT12x", max_size=12)))
def test_a_name_is_one_that_a_url_may_have(sent: str) -> None:
    assert invalid_segment(forms._safe_filename(sent)) == ""


async def test_save(tmp_path: Path) -> None:
    request = await received(
        *form({}, [("f", ("cat.png", b"meow")), ("evil", ("page.rpy", b"resource = 1"))])
    )
    upload = request.file("f")
    assert upload.save(tmp_path) == tmp_path / "cat.png"
    assert upload.save(tmp_path / "other.png").read_bytes() == b"meow"
    for name in ("page.rpy", "page.RPY", "helper.py", "page.html.j2", "page.rpy.txt"):
        with pytest.raises(ValueError, match="would be executed"):
            upload.save(tmp_path / name)
    for place in (tmp_path, tmp_path / "page.rpy"):
        with pytest.raises(HTTPError) as caught:
            request.file("evil").save(place)
        assert caught.value.status == 400
        assert caught.value.detail == "A file called 'page.rpy' is not accepted here."
        assert "would be executed" in caught.value.private
    assert sorted(os.listdir(tmp_path)) == ["cat.png", "other.png"]
    request.close()


@pytest.mark.parametrize(
    "suffix",
    [
        *all_suffixes(), ".so", ".abi3.so", ".cpython-311-x86_64-linux-gnu.so", ".pyd",
        ".cp313-win_amd64.pyd", ".dll", ".dylib", ".pyc", ".pyo", ".pyw", ".pyi", ".pyx", ".pth",
        ".rpy", ".j2", ".jinja", ".jinja2",
    ],
)  # fmt: skip
async def test_nothing_that_would_be_executed_is_saved(suffix: str, tmp_path: Path) -> None:
    request = await received(*form({}, [("f", ("f", b"\x7fELF"))]))
    upload = request.file("f")
    for spelling in {suffix, suffix.upper(), suffix.title(), suffix.swapcase()}:
        # Windows drops blanks and dots at the end, and what follows a colon is the same file.
        for end in ("", " ", ".", ". .", "::$DATA", ":x"):
            with pytest.raises(ValueError, match="would be executed"):
                upload.save(tmp_path / f"words{spelling}{end}")
            with pytest.raises(ValueError, match="would be executed"):
                upload.save(tmp_path / f"{spelling}{end}")
    assert os.listdir(tmp_path) == []
    request.close()


async def test_what_is_not_executed_is_saved(tmp_path: Path) -> None:
    request = await received(*form({}, [("f", ("f", b"x"))]))
    for name in (
        "mr.so and so.pdf",
        "notes.python",
        "so",
        "a.source",
        "py",
        "b.pyramid",
        "dll.txt",
    ):
        assert request.file("f").save(tmp_path / name).read_bytes() == b"x"
    request.close()


async def test_a_link_to_a_script_is_no_way_round_and_other_links_stay(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("word = 1")
    (tmp_path / "innocent.png").symlink_to("words.py")
    (tmp_path / "latest.png").symlink_to("first.png")
    request = await received(*form({}, [("f", ("f", b"x"))]))
    with pytest.raises(ValueError, match=r"words\.py"):
        request.file("f").save(tmp_path / "innocent.png")
    request.file("f").save(tmp_path / "latest.png")
    assert (tmp_path / "words.py").read_text() == "word = 1"
    assert (tmp_path / "latest.png").is_symlink() and (tmp_path / "first.png").read_text() == "x"
    request.close()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
async def test_a_save_that_fails_leaves_the_old_file(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await received(*form({}, [("f", ("photo.png", b"new"))]))
    kept = tmp_path / "photo.png"
    kept.write_bytes(b"the good old one")

    def half(content: Any, copy: Any, size: int) -> None:
        copy.write(b"ne")
        copy.flush()
        assert kept.read_bytes() == b"the good old one", "while the new one is written"
        raise failure

    with monkeypatch.context() as patch, pytest.raises(type(failure)):
        patch.setattr(forms.shutil, "copyfileobj", half)
        request.file("f").save(tmp_path)
    assert kept.read_bytes() == b"the good old one" and os.listdir(tmp_path) == ["photo.png"]
    assert request.file("f").save(tmp_path).read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["photo.png"]
    request.close()


async def test_a_saved_file_has_the_rights_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    request = await received(*form({}, [("f", ("f", b"x"))]))
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "secret").chmod(0o600)
    for name, like in (("secret", "secret"), ("new", "plain")):
        expected = (tmp_path / like).stat().st_mode
        assert stat.S_IMODE(request.file("f").save(tmp_path / name).stat().st_mode) == (
            stat.S_IMODE(expected)
        )
    request.close()


async def test_a_device_is_written_to_and_a_missing_directory_is_named(tmp_path: Path) -> None:
    request = await received(*form({}, [("f", ("f", b"x"))]))
    request.file("f").save(os.devnull)
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)
    with pytest.raises(FileNotFoundError, match=r"missing.photo\.png"):
        request.file("f").save(tmp_path / "missing" / "photo.png")
    request.close()


async def test_a_script_that_takes_files() -> None:
    def resource(request: Request) -> dict[str, Any]:
        return {"size": request.file("f").size, "note": request.field("note")}

    content_type, body = form({"note": "hi"}, [("f", ("a.txt", b"12345"))])
    answer = await Visitor(Site(resource)).ask(
        "POST", "/", body, headers=[("Content-Type", content_type)]
    )
    assert answer.body == b'{"size": 5, "note": "hi"}'


async def test_broken_forms_are_pages() -> None:
    answer = await Visitor(Site(lambda request: "never")).ask(
        "POST", "/", b"oops", headers=[("Content-Type", "multipart/form-data; boundary=x")]
    )
    assert answer.status == 400 and "form is malformed" in answer.text
