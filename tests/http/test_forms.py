"""Multipart forms: fields and files, limits, broken ones, and what a file may be saved as."""

from __future__ import annotations

import os
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import Resource, WSGIResource
from rpyserve.http.errors import HTTPError
from rpyserve.http.forms import FIELD_LIMIT, FORM_LIMIT, SPOOL_SIZE
from rpyserve.http.request import Request
from rpyserve.site import Site
from tests.support.faulty_stream import open_files
from tests.support.in_process import Visitor


def form(
    fields: dict[str, Any] | None = None, files: Iterable[tuple[str, Any]] = ()
) -> tuple[str, bytes]:
    """A form as browsers send it (RFC 7578, and the HTML standard on names): its Content-Type and
    its body.
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
        ("con.txt", "_con.txt"),
        ("NUL", "_NUL"),
        ("a\nb", "a_b"),
    ],
)
async def test_a_name_is_only_a_name(sent: str, kept: str) -> None:
    request = await received(*form({}, [("f", (sent, b"x"))]))
    assert request.file("f").filename == kept
    request.close()


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
    with pytest.raises(ValueError, match=r"page\.rpy"):
        request.file("evil").save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["cat.png", "other.png"]
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
